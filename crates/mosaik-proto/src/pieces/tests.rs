//! The rules of asking for pieces, one by one.

use super::*;

const GROUP: usize = FILE_GROUP_LEN as usize;
/// Two pieces and a half.
const SIZE: u64 = 40_000;

fn blob(n: u8) -> BlobId {
    BlobId([n; 32])
}

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn session(n: u8) -> SessionId {
    SessionId(u64::from(n))
}

/// A file is asked for, nothing of it is here, and these peers are there.
fn asking(peers: &[u8]) -> Pieces {
    let mut all = Pieces::default();
    all.ask(blob(1), SIZE).expect("it is short enough");
    all.lacks(&blob(1), vec![0, 1, 2]);
    peers.iter().for_each(|n| all.up(session(*n), node(*n)));
    all
}

fn next(all: &mut Pieces, now_ms: u64) -> Option<(SessionId, u32, u32)> {
    all.next(now_ms, |_| false).map(|want| (want.session, want.group, want.from))
}

#[test]
fn the_last_piece_goes_first_and_one_at_a_time() {
    let mut all = asking(&[1, 2]);
    let mut order = Vec::new();
    while let Some((from, group, 0)) = next(&mut all, 0) {
        assert_eq!(next(&mut all, 0), None, "one peer at a time");
        assert_eq!(all.slice(&from, 100, &[0; 60]), None);
        let piece = all.slice(&from, 100, &[0; 40]).expect("all of it came");
        assert_eq!(
            (piece.blob, piece.size, piece.group, piece.bytes.len()),
            (blob(1), SIZE, group, 100)
        );
        assert_eq!(next(&mut all, 0), None, "it is being verified");
        let is_whole = all.checked(&blob(1), group, Checked::Held, 0);
        order.push((group, is_whole));
    }
    assert_eq!(order, [(2, false), (0, false), (1, true)]);
}

#[test]
fn what_is_too_long_or_too_much_is_refused() {
    let mut all = Pieces::default();
    assert_eq!(all.ask(blob(0), FILE_MAX + 1), Err(AskError::TooLong(FILE_MAX + 1)));
    for n in 0..ASKED_MAX as u8 {
        assert_eq!(all.ask(blob(n), FILE_MAX), Ok(()));
    }
    assert_eq!(all.ask(blob(255), 1), Err(AskError::TooMany));
    assert_eq!(all.ask(blob(0), 1), Ok(()), "it is asked for already");
    all.forget(&blob(0));
    assert_eq!(all.ask(blob(255), 1), Ok(()));
}

#[test]
fn a_link_that_breaks_costs_nothing_with_the_same_peer() {
    let mut all = asking(&[1]);
    assert_eq!(next(&mut all, 0), Some((session(1), 2, 0)));
    all.slice(&session(1), 7_300, &[0; 1024]);
    assert!(all.standing(&blob(1)).is_some_and(|it| it.here == 1024 && it.is_coming));
    all.down(&session(1));
    assert!(all.standing(&blob(1)).is_some_and(|it| !it.is_coming));
    assert!(all.is_seeking());
    all.up(session(2), node(1));
    assert_eq!(next(&mut all, 0), Some((session(2), 2, 1024)));
    // Another one begins anew: a wrong piece has one giver.
    all.down(&session(2));
    all.up(session(3), node(3));
    assert_eq!(next(&mut all, 0), Some((session(3), 2, 0)));
}

#[test]
fn who_gave_a_wrong_piece_is_not_asked_again() {
    let mut all = asking(&[1]);
    assert_eq!(next(&mut all, 0), Some((session(1), 2, 0)));
    assert!(all.slice(&session(1), 10, &[0; 10]).is_some());
    assert!(!all.checked(&blob(1), 2, Checked::Wrong, 0));
    assert_eq!(next(&mut all, u64::MAX), None);
    all.down(&session(1));
    all.up(session(2), node(1));
    assert_eq!(next(&mut all, u64::MAX), None);
    all.up(session(3), node(2));
    assert_eq!(next(&mut all, 0), Some((session(3), 2, 0)));
}

#[test]
fn who_lacks_it_is_asked_ever_more_rarely() {
    let mut all = asking(&[1]);
    let mut now_ms = 0;
    for pause_ms in [1, 2, 4, 8, 16, 30, 30].map(|minutes| minutes * 60_000) {
        assert!(next(&mut all, now_ms).is_some());
        all.lacked(&session(1), now_ms);
        assert_eq!(next(&mut all, now_ms + pause_ms - 1), None);
        assert_eq!(all.next_timeout_ms(now_ms), Some(now_ms + pause_ms));
        now_ms += pause_ms;
    }
    // A disk of this side's that fails isn't the peer's fault.
    assert!(next(&mut all, now_ms).is_some());
    assert!(all.slice(&session(1), 1, &[0]).is_some());
    all.checked(&blob(1), 2, Checked::Failed, now_ms);
    assert_eq!(next(&mut all, now_ms), None);
    assert!(next(&mut all, now_ms + RETRY_FIRST_MS).is_some());
}

#[test]
fn what_comes_another_way_is_not_asked_for_and_what_lacks_is_found_out_again() {
    let mut all = asking(&[1]);
    assert_eq!(all.next(0, |_| true), None);
    all.may_have_come(&blob(1));
    assert_eq!(all.unknown().collect::<Vec<_>>(), [(blob(1), SIZE)]);
    assert_eq!(next(&mut all, 0), None);
    all.lacks(&blob(1), vec![1]);
    assert_eq!(all.standing(&blob(1)).map(|it| it.here), Some(SIZE - GROUP as u64));
    assert_eq!(next(&mut all, 0), Some((session(1), 1, 0)));
    all.forget(&blob(1));
    assert_eq!(all.slice(&session(1), 10, &[0; 10]), None);
    assert!(!all.is_seeking());
}

#[test]
fn a_peer_has_only_so_much_fetched_for_it() {
    let mut all = asking(&[1, 2]);
    let taken = |all: &mut Pieces, n: u8| {
        (0..9).filter(|of| all.may_fetch_for(&session(n), blob(*of))).count()
    };
    assert_eq!(taken(&mut all, 1), FETCHED_FOR_PEER_MAX);
    assert_eq!(taken(&mut all, 1), FETCHED_FOR_PEER_MAX, "the same ones");
    assert_eq!(taken(&mut all, 2), FETCHED_FOR_PEER_MAX);
    assert_eq!(taken(&mut all, 3), 0, "nobody");
    all.forget(&blob(0));
    assert!(all.may_fetch_for(&session(1), blob(8)));
}
