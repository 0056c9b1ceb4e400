//! What files change of whom a station dials and of what goes next, one by one.

use mosaik_core::id::{BlobId, Fingerprint};
use mosaik_proto::message::{FILE_SLICE_MAX, FilePart, FileWant};

use super::{queue::Class, *};
use crate::stack::PublicKeys;

const RADIO: Interface = Interface(0);
const TAG: [u8; 4] = *b"tag ";
const PEER: Peer = Peer([9; 16]);
const LINK: Link = Link([7; 16]);

fn hasher() -> Hasher {
    Hasher::new(&Fingerprint([3; 32]))
}

/// A station at a line of 9,600 bit/s that holds what its peer holds, and has heard it.
fn station() -> Station {
    let own = Peer([1; 16]);
    let (first, bitrate) = (Kinds::default(), Some(9_600));
    let config = StationConfig {
        own,
        tag: TAG,
        hasher: hasher(),
        share: 1000,
        bitrate,
        first,
        seal: None,
        seed: 1,
    };
    let mut station = Station::new(config);
    let (name, online) = ("line".to_owned(), true);
    let interface = Report::Interface { interface: RADIO, name, bitrate, online };
    station.handle_report(interface, 0, &mut Turn::default());
    hear(&mut station, 0);
    station
}

fn hear(station: &mut Station, now_ms: u64) {
    let (is_alone, is_bridge, takes_broadcasts) = (false, false, false);
    let (tag, top) = (TAG, [0; 8]);
    let announce = Announce { tag, top, events: 0, is_alone, is_bridge, takes_broadcasts };
    let heard = Report::Heard {
        service: Service::Feed,
        peer: PEER,
        keys: PublicKeys([0; 64]),
        app_data: announce.encode(),
        hops: 1,
        interface: RADIO,
    };
    station.handle_report(heard, now_ms, &mut Turn::default());
}

/// When links are opened until then; each is up at once, and breaks.
fn dials(station: &mut Station, from_ms: u64, until_ms: u64) -> Vec<u64> {
    let mut dials = Vec::new();
    let mut now_ms = from_ms;
    while let Some(ms) = station.next_timeout_ms(now_ms).filter(|ms| *ms <= until_ms) {
        now_ms = ms.max(now_ms + 1);
        let mut turn = Turn::default();
        station.handle_timeout(now_ms, &mut turn);
        if turn.orders.iter().any(|order| matches!(order, Order::Open { .. })) {
            dials.push(now_ms);
            let (service, peer, role) = (Service::Feed, Some(PEER), Role::Dialer);
            let (link, interface) = (LINK, RADIO);
            let up =
                Report::Up { link, service, peer, role, rtt_ms: 10, packet_max: 431, interface };
            station.handle_report(up, now_ms, &mut turn);
            let down = Report::Down { link, reason: "broken".into() };
            station.handle_report(down, now_ms, &mut turn);
        }
    }
    dials
}

#[test]
fn a_peer_that_holds_the_same_is_dialed_while_a_file_is_sought_and_ever_more_rarely() {
    let mut station = station();
    assert_eq!(dials(&mut station, 0, 3_600_000), []);
    station.seek(true, 3_600_000);
    let sought = dials(&mut station, 3_600_000, 3 * 3_600_000);
    assert!(sought.first().is_some_and(|ms| *ms < 3_610_000), "{sought:?}");
    for (at, pair) in sought.windows(2).enumerate() {
        let least_ms = (RETRY_MS << at.min(10)).min(RETRY_MAX_MS);
        assert!(pair[1] - pair[0] >= least_ms, "{sought:?}");
    }
    assert!((7..=12).contains(&sought.len()), "{sought:?}");
    station.seek(false, 3 * 3_600_000);
    hear(&mut station, 3 * 3_600_000);
    assert_eq!(dials(&mut station, 3 * 3_600_000, 5 * 3_600_000), []);
}

fn pace() -> Pace {
    Pace { packet_max: 431, resource_max: 0, packet_ms: 100, rtt_ms: 100 }
}

fn slice() -> Message {
    Message::FilePart(FilePart { token: 1, total: 2_000, bytes: vec![7; FILE_SLICE_MAX] })
}

#[test]
fn what_is_more_urgent_waits_for_the_rest_of_a_slice_and_for_no_share_of_files() {
    let mut link = LinkState::new(Role::Dialer, RADIO, pace(), hasher(), 0);
    let push = |link: &mut LinkState, message: &Message| {
        link.push(&message.encode(), false, &Kinds::default(), 0).expect("own frame");
    };
    let due = |link: &LinkState| link.due(|_| true, 0).map(|due| due.class);
    push(&mut link, &slice());
    push(&mut link, &slice());
    assert_eq!(due(&link), Some(Class::Files));
    assert!(link.next(|_| true, 0).is_ok_and(|gone| gone.is_some()));
    assert_eq!(due(&link), Some(Class::Files), "of the first two packets are left");
    push(&mut link, &Message::Root([1; 16]));
    assert_eq!(due(&link), Some(Class::News), "it is counted as its peer's");
    for _ in 0..2 {
        assert!(link.next(|_| true, 0).is_ok_and(|gone| gone.is_some()));
    }
    assert_eq!(due(&link), Some(Class::Files), "it went before the second slice");
}

#[test]
fn a_link_on_which_a_piece_is_awaited_is_not_idle() {
    let mut link = LinkState::new(Role::Dialer, RADIO, pace(), hasher(), 0);
    link.session = Some(SessionId(1));
    assert_eq!(link.closes_at_ms(), Some(IDLE_MS));
    let want = FileWant { token: 1, blob: BlobId([1; 32]), group: 0, from: 0 };
    let want = Message::FileWant(want);
    link.push(&want.encode(), true, &Kinds::default(), 0).expect("own frame");
    assert_eq!(link.closes_at_ms(), None);
    assert!(link.next(|_| true, 0).is_ok_and(|gone| gone.is_some()));
    // The other end has it.
    assert!(link.stream.on_received(&[0, 1], 0).is_ok());
    assert_eq!(link.closes_at_ms(), Some(IDLE_PIECE_MS));
    assert!(link.note_came(&slice()));
    assert_eq!(link.closes_at_ms(), Some(IDLE_PIECE_MS));
    let last = FilePart { token: 1, total: 2_000, bytes: vec![7; 976] };
    assert!(link.note_came(&Message::FilePart(last)));
    assert_eq!(link.closes_at_ms(), Some(IDLE_MS));
}
