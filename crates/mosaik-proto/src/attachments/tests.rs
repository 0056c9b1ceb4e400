//! The rules of fetching and letting go, one by one.

use super::*;

fn blob(n: u8) -> BlobId {
    BlobId([n; 32])
}

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn limits(bytes_max: u64) -> Limits {
    Limits { bytes_max, archive: false }
}

/// Takes in what the records say: blob, size, whether the settings take it.
fn scan(all: &mut Attachments, now_ms: u64, seen: &[(u8, u64, bool)]) -> Vec<BlobId> {
    let mut scan = all.scan();
    for (n, size, is_taken) in seen {
        scan.see(all, blob(*n), *size, *is_taken);
    }
    all.scanned(now_ms, scan)
}

fn wanting(seen: &[(u8, u64, bool)]) -> Attachments {
    let mut all = Attachments::new(limits(0));
    scan(&mut all, 0, seen);
    all
}

#[test]
fn the_shortest_go_first_and_what_is_asked_for_before_them() {
    let mut all = wanting(&[(1, 500, true), (2, 100, true), (3, 900, false), (4, 300, true)]);
    all.ask(blob(3), 900);
    for n in 1..=FETCHES_MAX as u8 {
        all.peer_up(node(n));
    }
    let order: Vec<_> = std::iter::from_fn(|| all.next_fetch(0)).map(|fetch| fetch.blob).collect();
    assert_eq!(order, [blob(3), blob(2), blob(4), blob(1)]);
}

#[test]
fn no_more_is_fetched_at_once_than_may_be_in_all_and_from_one_peer() {
    let many: Vec<_> = (1..=20).map(|n| (n, 10, true)).collect();
    let mut all = wanting(&many);
    assert_eq!(all.next_fetch(0), None);
    all.peer_up(node(1));
    assert_eq!(std::iter::from_fn(|| all.next_fetch(0)).count(), FETCHES_PER_PEER_MAX);
    (2..=9).for_each(|n| all.peer_up(node(n)));
    let rest = FETCHES_MAX - FETCHES_PER_PEER_MAX;
    assert_eq!(std::iter::from_fn(|| all.next_fetch(0)).count(), rest);
}

#[test]
fn who_lacked_it_is_asked_again_ever_later_and_others_at_once() {
    let mut all = wanting(&[(1, 10, true)]);
    all.peer_up(node(1));
    all.peer_up(node(2));
    let first = all.next_fetch(0).expect("two peers");
    all.fetched(0, &first, End::Lacked);
    let second = all.next_fetch(0).expect("the other one");
    assert_ne!(second.peer, first.peer);
    assert_eq!(all.state(&blob(1), 10, true), State::Fetching { from: second.peer });
    all.fetched(0, &second, End::Lacked);
    assert_eq!((all.next_fetch(0), all.next_timeout_ms(0)), (None, Some(RETRY_FIRST_MS)));
    assert_eq!(all.state(&blob(1), 10, true), State::WaitsForHolder);
    let mut now_ms = 0;
    let mut waited = Vec::new();
    for _ in 0..24 {
        let due = all.next_timeout_ms(now_ms).expect("a retry");
        let again = all.next_fetch(due).expect("due");
        all.fetched(due, &again, End::Lacked);
        waited.push(due - now_ms);
        now_ms = due;
    }
    assert_eq!(waited.iter().max(), Some(&RETRY_MAX_MS));
}

#[test]
fn a_new_session_and_somebody_who_asks_don_t_wait_for_the_retry() {
    let mut all = wanting(&[(1, 10, true)]);
    all.peer_up(node(1));
    for _ in 0..2 {
        let fetch = all.next_fetch(0).expect("a peer that may have it");
        all.fetched(0, &fetch, End::Lacked);
        assert_eq!(all.next_fetch(0), None);
        all.peer_down(&node(1));
        all.peer_up(node(1));
    }
    let fetch = all.next_fetch(0).expect("a new session");
    all.fetched(0, &fetch, End::Lacked);
    all.ask(blob(1), 10);
    assert!(all.next_fetch(0).is_some());
}

#[test]
fn a_peer_whose_connection_is_cut_now_and_then_is_asked_soon_as_long_as_something_comes() {
    let mut all = wanting(&[(1, 10, true)]);
    all.peer_up(node(1));
    let mut now_ms = 0;
    let mut waited = Vec::new();
    for came in [true, true, true, false, false, true] {
        let fetch = all.next_fetch(now_ms).expect("due");
        all.fetched(now_ms, &fetch, End::Cut { came });
        assert_eq!(all.state(&blob(1), 10, true), State::WaitsForTurn);
        let due = all.next_timeout_ms(now_ms).expect("a retry");
        waited.push((due - now_ms) / RETRY_FIRST_MS);
        now_ms = due;
    }
    assert_eq!(waited, [1, 1, 1, 2, 4, 1]);
}

#[test]
fn garbage_keeps_its_sender_away_for_longer() {
    let mut all = wanting(&[(1, 10, true)]);
    all.peer_up(node(1));
    let fetch = all.next_fetch(0).expect("a peer");
    all.fetched(0, &fetch, End::Garbage);
    assert_eq!(all.next_timeout_ms(0), Some(RETRY_GARBAGE_MS));
}

#[test]
fn a_file_longer_than_claimed_waits_for_a_longer_claim() {
    let mut all = wanting(&[(1, 10, true)]);
    all.peer_up(node(1));
    let fetch = all.next_fetch(0).expect("a peer");
    assert_eq!(fetch.len_max, 10);
    all.fetched(0, &fetch, End::TooLong);
    assert_eq!((all.next_fetch(9), all.next_timeout_ms(9)), (None, None));
    assert_eq!(all.state(&blob(1), 10, true), State::TooLong);
    // Of two claims the longer one that is taken counts.
    scan(&mut all, 0, &[(1, 10, true), (1, 90, true), (1, 500, false)]);
    assert_eq!(all.next_fetch(0).map(|fetch| fetch.len_max), Some(90));
}

#[test]
fn nothing_is_fetched_beyond_the_room_that_there_is() {
    let mut all = Attachments::new(limits(100));
    all.peer_up(node(1));
    all.hold(blob(9), 30);
    scan(&mut all, 0, &[(1, 50, true), (2, 60, true), (3, 80, true), (9, 30, true)]);
    // 50 fit; with them promised 60 don't any more.
    assert_eq!(all.next_fetch(0).map(|fetch| fetch.blob), Some(blob(1)));
    assert_eq!(all.next_fetch(0), None);
    assert_eq!(all.state(&blob(3), 80, true), State::NoRoom);
    all.set_free(5);
    assert_eq!((all.room(), all.state(&blob(2), 60, true)), (5, State::NoRoom));
}

#[test]
fn what_the_settings_leave_out_and_what_was_dropped_waits_to_be_asked_for() {
    let mut all = wanting(&[(1, 10, false), (2, 20, true), (3, 40, true)]);
    assert_eq!(all.pending(), Pending { count: 2, bytes: 60 });
    all.peer_up(node(1));
    all.let_go(blob(2), true);
    scan(&mut all, 0, &[(1, 10, false), (2, 20, true), (3, 40, true)]);
    assert_eq!(all.state(&blob(1), 10, false), State::LeftOut);
    assert_eq!(all.state(&blob(2), 20, true), State::Dropped);
    assert_eq!(all.pending(), Pending { count: 1, bytes: 40 });
    let fetch = all.next_fetch(0).expect("one is wanted");
    all.fetched(0, &fetch, End::Whole { size: 40 });
    assert_eq!((fetch.blob, all.pending()), (blob(3), Pending::default()));
    assert_eq!(all.next_fetch(0), None);
    all.ask(blob(2), 20);
    all.pin(blob(1), true);
    scan(&mut all, 0, &[(1, 10, false), (2, 20, true), (3, 40, true)]);
    let next: Vec<_> = std::iter::from_fn(|| all.next_fetch(0)).map(|fetch| fetch.blob).collect();
    assert_eq!(next, [blob(2), blob(1)]);
}

#[test]
fn only_what_no_record_names_for_long_is_let_go_and_nothing_pinned() {
    let mut all = Attachments::new(limits(0));
    (1..=3).for_each(|n| all.hold(blob(n), 10));
    all.pin(blob(2), true);
    assert_eq!(scan(&mut all, 1000, &[(3, 10, false)]), []);
    // It is named again for a while, and the hour begins anew.
    assert_eq!(scan(&mut all, 2000, &[(1, 10, true), (3, 10, false)]), []);
    assert_eq!(scan(&mut all, 3000, &[(3, 10, false)]), []);
    assert_eq!(scan(&mut all, UNREFERENCED_MS + 1000, &[(3, 10, false)]), []);
    assert_eq!(scan(&mut all, UNREFERENCED_MS + 3000, &[(3, 10, false)]), [blob(1)]);
    all.let_go(blob(1), false);
    assert_eq!(all.totals(), Pending { count: 2, bytes: 20 });
    let mut archive = Attachments::new(Limits { bytes_max: 0, archive: true });
    archive.hold(blob(1), 10);
    assert_eq!(scan(&mut archive, 0, &[]), []);
    assert_eq!(scan(&mut archive, UNREFERENCED_MS * 2, &[]), []);
}

#[test]
fn of_many_only_the_shortest_are_known_by_name() {
    let mut all = Attachments::new(limits(0));
    let mut scan = all.scan();
    let many = WANTED_MAX as u64 + 100;
    let name = |n: u64| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        BlobId(bytes)
    };
    for n in 0..many {
        scan.see(&all, name(n), many - n, true);
    }
    all.scanned(0, scan);
    assert_eq!((all.wanted.len(), all.pending().count), (WANTED_MAX, many));
    assert!(all.wanted.contains_key(&name(many - 1)) && !all.wanted.contains_key(&name(0)));
    assert_eq!(all.state(&name(0), many, true), State::WaitsForTurn);
}
