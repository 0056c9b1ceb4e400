//! Whom a station dials and what goes next, one by one: on wires, and where files are asked for.

use std::collections::BTreeMap;

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

/// A station at a line of 9,600 bit/s.
fn station() -> Station {
    begun(Peer([1; 16]), Some(9_600), 1, 0)
}

/// A station with one interface; without a bitrate that is a wire.
fn begun(own: Peer, bitrate: Option<u32>, seed: u64, now_ms: u64) -> Station {
    let (tag, hasher, share, first, seal) = (TAG, hasher(), 1000, Kinds::default(), None);
    let config = StationConfig { own, tag, hasher, share, bitrate, first, seal, seed };
    let mut station = Station::new(config);
    let (name, online) = ("line".to_owned(), true);
    let interface = Report::Interface { interface: RADIO, name, bitrate, online };
    station.handle_report(interface, now_ms, &mut Turn::default());
    station
}

fn heard(peer: Peer, app_data: Vec<u8>) -> Report {
    let (service, keys, hops) = (Service::Feed, PublicKeys([0; 64]), 1);
    Report::Heard { service, peer, keys, app_data, hops, interface: RADIO }
}

fn hear(station: &mut Station, now_ms: u64) {
    let (is_alone, is_bridge, takes_broadcasts) = (false, false, false);
    let (tag, top) = (TAG, [0; 8]);
    let announce = Announce { tag, top, events: 0, is_alone, is_bridge, takes_broadcasts };
    station.handle_report(heard(PEER, announce.encode()), now_ms, &mut Turn::default());
}

/// When links are opened until then to the peer, which is heard now and then; each is up at once, and breaks.
fn dials(station: &mut Station, from_ms: u64, until_ms: u64) -> Vec<u64> {
    let mut dials = Vec::new();
    let (mut now_ms, mut heard_ms) = (from_ms, from_ms);
    hear(station, from_ms);
    while let Some(ms) = station.next_timeout_ms(now_ms).filter(|ms| *ms <= until_ms) {
        now_ms = ms.max(now_ms + 1);
        if heard_ms + ANNOUNCE_EVERY_MS <= now_ms {
            heard_ms = now_ms;
            hear(station, now_ms);
        }
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

/// Who differs and answers no request is asked ever more rarely, and no more once it isn't heard any more.
#[test]
fn who_is_gone_is_dialed_no_more() {
    let mut station = station();
    station.set_state(OwnState { top: [1; 16], ..OwnState::default() }, 0);
    hear(&mut station, 1);
    let (mut now_ms, mut dials) = (1, Vec::new());
    while let Some(ms) = station.next_timeout_ms(now_ms).filter(|ms| *ms < 24 * HOUR_MS) {
        now_ms = ms.max(now_ms + 1);
        let mut turn = Turn::default();
        station.handle_timeout(now_ms, &mut turn);
        if turn.orders.iter().any(|order| matches!(order, Order::Open { .. })) {
            dials.push(now_ms);
            let (service, peer, reason) = (Service::Feed, PEER, "no answer".into());
            let report = Report::Unreachable { service, peer, reason };
            station.handle_report(report, now_ms + REQUEST_MS, &mut turn);
        }
    }
    assert!((4..=8).contains(&dials.len()), "{dials:?}");
    assert!(dials.last().is_some_and(|ms| *ms < 2 * ANNOUNCE_EVERY_MS), "{dials:?}");
    hear(&mut station, now_ms);
    assert!(station.next_dial_ms(now_ms).is_some());
}

/// Several stations at one wire, as clients of one `rnsd` are, and peers that were heard there and are gone.
struct Wire {
    stations: BTreeMap<Peer, Station>,
    /// What comes to whom, when.
    coming: Vec<(u64, Peer, Report)>,
    next_link: u8,
}

/// How long the stack waits for who doesn't answer a request.
const REQUEST_MS: u64 = 6_000;

impl Wire {
    fn new() -> Self {
        Self { stations: BTreeMap::new(), coming: Vec::new(), next_link: 0 }
    }

    /// Somebody comes who holds so many events, its hash made of them.
    fn join(&mut self, own: Peer, events: u64, seed: u64, now_ms: u64) {
        let mut station = begun(own, None, seed, now_ms);
        let top = [events as u8; 16];
        station.set_state(OwnState { top, events, is_bridge: false }, now_ms);
        self.stations.insert(own, station);
    }

    fn carry(&mut self, from: Peer, order: Order, now_ms: u64) {
        let at_ms = now_ms + 1;
        match order {
            Order::Announce { app_data, .. } => {
                let others = self.stations.keys().filter(|peer| **peer != from);
                let report = heard(from, app_data);
                self.coming.extend(others.map(|to| (at_ms, *to, report.clone())));
            }
            Order::Open { service, peer } if !self.stations.contains_key(&peer) => {
                let reason = "no answer".into();
                let report = Report::Unreachable { service, peer, reason };
                self.coming.push((now_ms + REQUEST_MS, from, report));
            }
            Order::Open { service, peer } => {
                self.next_link += 1;
                let link = Link([self.next_link; 16]);
                let up = |peer, role| {
                    let (rtt_ms, packet_max, interface) = (2, 431, RADIO);
                    Report::Up { link, service, peer, role, rtt_ms, packet_max, interface }
                };
                self.coming.push((at_ms, peer, up(None, Role::Listener)));
                self.coming.push((at_ms + 1, from, up(Some(peer), Role::Dialer)));
                self.coming.push((at_ms + 2, peer, Report::Identified { link, peer: from }));
            }
            _ => {}
        }
    }

    /// When the two have a session with each other, if they have within that time.
    fn linked_ms(&mut self, pair: [Peer; 2], from_ms: u64, within_ms: u64) -> Option<u64> {
        for now_ms in from_ms..from_ms + within_ms {
            let due: Vec<_> = self.coming.extract_if(.., |(ms, ..)| *ms <= now_ms).collect();
            let mut orders = Vec::new();
            for (peer, station) in &mut self.stations {
                let mut turn = Turn::default();
                for (.., report) in due.iter().filter(|(_, to, _)| to == peer) {
                    station.handle_report(report.clone(), now_ms, &mut turn);
                }
                station.handle_timeout(now_ms, &mut turn);
                orders.extend(turn.orders.into_iter().map(|order| (*peer, order)));
            }
            orders.into_iter().for_each(|(from, order)| self.carry(from, order, now_ms));
            let [one, other] = pair;
            let has = |own: Peer, peer: Peer| {
                let peers = self.stations[&own].peers(now_ms);
                peers.iter().any(|status| status.peer == peer && status.is_linked)
            };
            if has(one, other) && has(other, one) {
                return Some(now_ms - from_ms);
            }
        }
        None
    }
}

/// Long enough for all waits that a radio has.
const LONG_MS: u64 = 120_000;

#[test]
fn on_a_wire_whoever_comes_is_linked_at_once_whichever_hash_is_the_smaller() {
    for seed in 0..40 {
        let (old, new) = (Peer([2; 16]), Peer([if seed % 2 == 0 { 1 } else { 3 }; 16]));
        let mut wire = Wire::new();
        wire.join(old, 100, seed, 0);
        // What it announces is heard by nobody, and one day long nobody comes.
        let came_ms = 1 + HOUR_MS * (seed % 24);
        assert_eq!(wire.linked_ms([old, old], 0, 1), None);
        let station = wire.stations.get_mut(&old).expect("it has joined");
        let mut now_ms = 0;
        while let Some(ms) = station.next_timeout_ms(now_ms).filter(|ms| *ms < came_ms) {
            now_ms = ms.max(now_ms + 1);
            station.handle_timeout(now_ms, &mut Turn::default());
        }
        wire.join(new, 0, seed + 100, came_ms);
        let linked_ms = wire.linked_ms([old, new], came_ms, LONG_MS);
        assert!(linked_ms.is_some_and(|ms| ms <= 1_000), "seed {seed}: {linked_ms:?}");
    }
}

#[test]
fn on_a_wire_nobody_waits_for_those_who_are_gone() {
    for seed in 0..40 {
        let (old, new) = (Peer([50; 16]), Peer([if seed % 2 == 0 { 40 } else { 60 }; 16]));
        let mut wire = Wire::new();
        wire.join(old, 100, seed, 0);
        let mut now_ms = 0;
        for gone in (0..6).map(|at| Peer([10 * at + 1 + seed as u8 % 3; 16])) {
            wire.join(gone, 1 + u64::from(gone.0[0]), seed, now_ms);
            let linked_ms = wire.linked_ms([old, gone], now_ms, LONG_MS);
            assert!(linked_ms.is_some_and(|ms| ms <= 5_000), "seed {seed}: {linked_ms:?}");
            now_ms += linked_ms.unwrap_or(0) + 1;
            // Its link breaks, and what it announced last differs still.
            wire.stations.remove(&gone);
            let station = wire.stations.get_mut(&old).expect("it has joined");
            let down = Report::Down { link: Link([wire.next_link; 16]), reason: "broken".into() };
            station.handle_report(down, now_ms, &mut Turn::default());
        }
        // Its attempts to reach them are under way, and fail.
        assert_eq!(wire.linked_ms([old, old], now_ms, 1_000 * (seed % 20)), None);
        now_ms += 1_000 * (seed % 20);
        wire.join(new, 0, seed, now_ms);
        let linked_ms = wire.linked_ms([old, new], now_ms, LONG_MS);
        assert!(linked_ms.is_some_and(|ms| ms <= 5_000), "seed {seed}: {linked_ms:?}");
    }
}

/// The same where nobody has heard this node: it alone can open the link.
#[test]
fn on_a_wire_a_dial_that_leads_nowhere_holds_up_no_other() {
    let (own, gone, there) = (Peer([1; 16]), Peer([2; 16]), Peer([3; 16]));
    // While the request to the one is under way, and after it has failed.
    for seed in 0..10 {
        let there_ms = [0, REQUEST_MS + 2_000][seed as usize % 2];
        let mut wire = Wire::new();
        wire.join(own, 100, seed, 0);
        let announced = |from: Peer| {
            let (is_alone, is_bridge, takes_broadcasts) = (true, false, false);
            let (tag, top) = (TAG, [from.0[0]; 8]);
            let announce = Announce { tag, top, events: 0, is_alone, is_bridge, takes_broadcasts };
            heard(from, announce.encode())
        };
        wire.coming.push((0, own, announced(gone)));
        assert_eq!(wire.linked_ms([own, own], 0, there_ms.max(1)), None);
        wire.coming.push((there_ms, own, announced(there)));
        let station = wire.stations.get_mut(&own).expect("it has joined");
        let mut dialed_ms = None;
        for now_ms in there_ms..there_ms + LONG_MS / 4 {
            let mut turn = Turn::default();
            for (.., report) in wire.coming.extract_if(.., |(ms, ..)| *ms <= now_ms) {
                station.handle_report(report, now_ms, &mut turn);
            }
            station.handle_timeout(now_ms, &mut turn);
            for order in turn.orders {
                let Order::Open { service, peer } = order else { continue };
                if peer == there {
                    dialed_ms.get_or_insert(now_ms - there_ms);
                }
                let report = Report::Unreachable { service, peer, reason: "no answer".into() };
                wire.coming.push((now_ms + REQUEST_MS, own, report));
            }
        }
        assert!(dialed_ms.is_some_and(|ms| ms <= 4_000), "seed {seed}: {dialed_ms:?}");
    }
}
