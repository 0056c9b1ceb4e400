//! Tests of the peer book.

use super::*;

/// So many milliseconds after the start.
fn at(ms: u64) -> Now {
    Now { mono_ms: ms, wall_ms: WALL_MS + ms }
}

const WALL_MS: u64 = 1_750_000_000_000;
const A: NodeId = NodeId([1; 32]);

fn introduction(name: &str) -> Introduction {
    Introduction { name: name.to_owned(), rtt_ms: Some(38), ..Introduction::default() }
}

fn somewhere(port: u16) -> Addresses {
    Addresses { direct: vec![([127, 0, 0, 1], port).into()], relays: vec![] }
}

#[test]
fn a_failed_peer_backs_off_and_a_new_address_is_tried_at_once() {
    let mut book = PeerBook::new(SESSIONS_KEPT);
    book.observe(A, somewhere(1), Source::Slot, at(0));
    assert_eq!(book.due(0, at(0)).len(), 1);
    book.dial_failed(A, "no answer", 0, 700);
    assert_eq!(book.due(0, at(100)), []);
    book.observe(A, somewhere(2), Source::Gossip, at(100));
    assert_eq!(book.due(0, at(100)).len(), 1);
}

#[test]
fn a_blocked_peer_is_never_dialed() {
    let mut book = PeerBook::new(SESSIONS_KEPT);
    book.block(A, true, at(0));
    book.observe(A, somewhere(1), Source::Slot, at(0));
    assert_eq!(book.due(0, at(u64::MAX - WALL_MS)), []);
    assert_eq!(book.any(false, 5), None);
    book.block(A, false, at(0));
    assert_eq!(book.due(0, at(0)).len(), 1);
}

#[test]
fn one_lost_peer_is_probed_whatever_its_back_off() {
    let mut book = PeerBook::new(SESSIONS_KEPT);
    book.observe(A, somewhere(1), Source::Slot, at(0));
    book.due(0, at(0));
    book.dial_failed(A, "no answer", 0, u64::MAX);
    assert_eq!(book.any(true, 9).map(|(node, _)| node), Some(A));
}

#[test]
fn enough_sessions_ask_for_no_dial() {
    let mut book = PeerBook::new(SESSIONS_KEPT);
    book.observe(A, somewhere(1), Source::Slot, at(0));
    assert_eq!(book.due(SESSIONS_KEPT, at(0)), []);
    assert_eq!(book.next_due_ms(SESSIONS_KEPT), None);
}

#[test]
fn the_cache_keeps_who_answered_and_where() {
    let mut book = PeerBook::new(SESSIONS_KEPT);
    book.observe(A, somewhere(1), Source::Slot, at(0));
    book.connected(A);
    book.opened(A, introduction("hq"), 77);
    let mut restored = PeerBook::new(SESSIONS_KEPT);
    restored.restore(&book.encode(WALL_MS), at(0)).expect("own encoding");
    assert_eq!(restored.get(&A).map(|peer| peer.addresses(WALL_MS)), Some(somewhere(1)));
    assert_eq!(restored.get(&A).map(|peer| peer.introduction.name.as_str()), Some("hq"));
}

/// Whoever comes back where it was, and knows nobody, must be found.
/// Fifteen of sixteen holders may be dead, and each of them costs a dial its full time.
#[test]
fn who_has_no_session_dials_all_slots_at_once() {
    let mut book = PeerBook::new(SESSIONS_KEPT);
    for i in 0..40 {
        book.observe(NodeId([i; 32]), somewhere(1), Source::Slot, at(0));
    }
    assert_eq!(book.due(0, at(0)).len(), NAMED_ALONE_MAX);
    assert_eq!((book.due(0, at(0)).len(), book.next_due_ms(0)), (0, None));
    assert_eq!((book.due(1, at(0)).len(), book.next_due_ms(1)), (0, None));
}

/// A cache full of those that a member made up is there before the first slot is read, and that member may
/// be the first to have a session.
#[test]
fn made_up_peers_that_were_dialed_first_take_no_place_of_the_slots() {
    for sessions in [0, 1, SESSIONS_KEPT - 1] {
        let mut book = PeerBook::new(SESSIONS_KEPT);
        for i in 0..200 {
            book.observe(numbered(i), in_the_internet(i, false), Source::Cache, at(0));
        }
        assert_eq!(book.due(0, at(0)).len(), OTHERS_ALONE_MAX);
        assert_eq!(book.next_due_ms(sessions), None);
        for i in 0..16 {
            book.observe(numbered(8000 + i), in_the_internet(8000 + i, false), Source::Slot, at(9));
        }
        assert!(book.next_due_ms(sessions).is_some());
        let at_once = match sessions {
            0 => 16,
            1 => DIALS_MAX,
            _ => NAMED_PER_WANTED,
        };
        assert_eq!(book.due(sessions, at(9)).len(), at_once);
        assert_eq!((book.due(sessions, at(9)).len(), book.next_due_ms(sessions)), (0, None));
    }
}

#[test]
fn a_peer_that_left_is_shown_as_left_and_looked_for_now_and_then() {
    let mut book = PeerBook::new(SESSIONS_KEPT);
    book.observe(A, somewhere(1), Source::Ticket, at(0));
    book.connected(A);
    book.opened(A, introduction("hq"), 77);
    book.disconnected(A, PeerState::Left, "the node is stopping", Retry { now: at(0), wait_ms: 9 });
    assert_eq!(book.due(0, at(peer::LEFT_WAIT_MS - 1)), []);
    assert_eq!(book.due(0, at(peer::LEFT_WAIT_MS)).len(), 1);
    assert_eq!(book.get(&A).map(Peer::state), Some(PeerState::Left));
    book.dial_failed(A, "no answer", peer::LEFT_WAIT_MS, u64::MAX);
    assert_eq!(book.get(&A).map(Peer::state), Some(PeerState::Left));
    assert!(book.next_due_ms(0).is_some());
}

#[test]
fn a_peer_of_two_connections_is_connected_until_both_are_gone() {
    let mut book = PeerBook::new(SESSIONS_KEPT);
    book.observe(A, somewhere(1), Source::Slot, at(0));
    for _ in 0..2 {
        book.connected(A);
        book.opened(A, introduction("hq"), 77);
    }
    let retry = Retry { now: at(0), wait_ms: 0 };
    book.disconnected(A, PeerState::Reachable, "another connection is kept", retry);
    assert_eq!(book.get(&A).map(Peer::state), Some(PeerState::Connected));
    assert_eq!(book.due(0, at(0)), []);
    book.disconnected(A, PeerState::Lost, "the connection broke", retry);
    assert_eq!(book.get(&A).map(Peer::state), Some(PeerState::Lost));
    assert_eq!(book.due(0, at(0)).len(), 1);
}

#[test]
fn strangers_that_only_connect_take_no_place() {
    let mut book = PeerBook::new(SESSIONS_KEPT);
    let retry = Retry { now: at(0), wait_ms: 0 };
    book.connected(A);
    book.disconnected(A, PeerState::Refused, "another network", retry);
    assert!(book.get(&A).is_none());
}

#[test]
fn a_full_book_lets_a_stranger_go_for_one_more_and_keeps_who_was_heard() {
    let mut book = PeerBook::new(SESSIONS_KEPT);
    let node = |i: usize| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&i.to_be_bytes());
        NodeId(bytes)
    };
    for i in 0..PEERS_MAX {
        book.observe(node(i), somewhere(1), Source::Slot, at(0));
    }
    book.connected(node(0));
    book.opened(node(0), introduction("hq"), 77);
    book.dial_failed(node(7), "no answer", 0, 0);
    book.observe(A, somewhere(2), Source::Slot, at(0));
    assert!(book.get(&A).is_some() && book.get(&node(0)).is_some());
    assert!(book.get(&node(7)).is_none(), "of the strangers it had failed most");
}

/// Node keys cost nothing: whoever has many must not fill the book.
#[test]
fn a_full_book_lets_the_longest_silent_go_for_one_that_has_greeted() {
    let mut book = PeerBook::new(SESSIONS_KEPT);
    let node = |i: usize| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&i.to_be_bytes());
        NodeId(bytes)
    };
    book.observe(A, somewhere(1), Source::Ticket, at(0));
    let retry = Retry { now: at(0), wait_ms: 0 };
    for i in 0..PEERS_MAX + 10 {
        book.connected(node(i));
        book.opened(node(i), introduction("one of many"), 1 + i as u64);
        book.disconnected(node(i), PeerState::Lost, "gone", retry);
    }
    assert_eq!(book.iter().count(), PEERS_MAX);
    assert!(book.get(&A).is_some(), "a person named it");
    assert!(book.get(&node(0)).is_none() && book.get(&node(PEERS_MAX + 9)).is_some());
}

#[test]
fn addresses_expire_and_the_peer_stays() {
    let mut book = PeerBook::new(SESSIONS_KEPT);
    book.observe(A, somewhere(1), Source::Slot, at(0));
    let late = at(ADDRESS_AGE_MAX_MS + 1);
    // A clock that is set makes all look old: nothing better is known.
    assert_eq!(book.get(&A).map(|peer| peer.addresses(late.wall_ms)), Some(somewhere(1)));
    book.observe(A, somewhere(2), Source::Gossip, late);
    assert_eq!(book.due(0, late), [(A, somewhere(2))]);
}

#[test]
fn an_answer_makes_addresses_fresh() {
    let mut book = PeerBook::new(SESSIONS_KEPT);
    book.observe(A, somewhere(1), Source::Ticket, at(0));
    book.connected(A);
    book.opened(A, introduction("hq"), WALL_MS + ADDRESS_AGE_MAX_MS);
    book.disconnected(
        A,
        PeerState::Lost,
        "gone",
        Retry { now: at(ADDRESS_AGE_MAX_MS), wait_ms: 0 },
    );
    assert_eq!(book.due(0, at(2 * ADDRESS_AGE_MAX_MS)).len(), 1);
}

#[test]
fn of_one_source_who_is_near_goes_first() {
    let mut book = PeerBook::new(SESSIONS_KEPT);
    let (far, near) = (NodeId([1; 32]), NodeId([2; 32]));
    for (node, rtt_ms) in [(far, 300), (near, 3)] {
        book.observe(node, somewhere(1), Source::Cache, at(0));
        book.connected(node);
        let introduction = Introduction { rtt_ms: Some(rtt_ms), ..introduction("hq") };
        book.opened(node, introduction, WALL_MS);
        let retry = Retry { now: at(0), wait_ms: 0 };
        book.disconnected(node, PeerState::Reachable, "all is said", retry);
    }
    let order: Vec<NodeId> = book.due(0, at(0)).into_iter().map(|(node, _)| node).collect();
    assert_eq!(order, [near, far]);
}

#[test]
fn a_person_forgets_who_is_neither_there_nor_blocked() {
    let mut book = PeerBook::new(SESSIONS_KEPT);
    assert_eq!(book.forget(&A), Err(Unforgettable::Unknown));
    book.observe(A, somewhere(1), Source::Slot, at(0));
    book.due(0, at(0));
    assert_eq!(book.forget(&A), Err(Unforgettable::Busy));
    book.dial_failed(A, "no answer", 0, 0);
    book.block(A, true, at(0));
    assert_eq!(book.forget(&A), Err(Unforgettable::Blocked));
    book.block(A, false, at(0));
    assert_eq!(book.forget(&A), Ok(()));
    assert!(book.get(&A).is_none());
}

/// A node of the public internet, in a /24 of its own unless they share one.
fn in_the_internet(at: u16, share: bool) -> Addresses {
    let [high, low] = at.to_be_bytes();
    let third = if share { 7 } else { low };
    Addresses { direct: vec![([93, high, third, 9], 4000).into()], relays: vec![] }
}

fn numbered(at: u16) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&at.to_be_bytes());
    // Neither the first nor the last in the order of ids.
    NodeId(*blake3::hash(&bytes).as_bytes())
}

/// Plays dials against a world in which one peer of all answers: how many dials it took, and when.
fn dials_until(honest: NodeId, mut book: PeerBook) -> (usize, u64) {
    const DEAD_MS: u64 = 5_000;
    let (mut dials, mut failing) = (0, std::collections::VecDeque::new());
    for now_ms in (0..60_000).step_by(50) {
        while failing.front().is_some_and(|(due_ms, _)| *due_ms <= now_ms) {
            if let Some((_, node)) = failing.pop_front() {
                book.dial_failed(node, "no answer", now_ms, 0);
            }
        }
        for (node, _) in book.due(0, at(now_ms)) {
            dials += 1;
            if node == honest {
                return (dials, now_ms);
            }
            failing.push_back((now_ms + DEAD_MS, node));
        }
    }
    panic!("never dialed in {dials} dials");
}

#[test]
fn five_hundred_dead_peers_of_three_sources_keep_no_honest_one_waiting() {
    // Where the honest one is told of, and by how many dead ones of the same source it is surrounded.
    for (source, others) in [(Source::Slot, 15), (Source::Ticket, 0), (Source::Mdns, 3)] {
        for honest in 0..16 {
            let mut book = PeerBook::new(SESSIONS_KEPT);
            let honest = numbered(9000 + honest);
            book.observe(honest, in_the_internet(9000, false), source, at(0));
            for i in 0..others {
                book.observe(numbered(8000 + i), in_the_internet(8000 + i, false), source, at(0));
            }
            for i in 0..500 {
                let source = if i % 2 == 0 { Source::Cache } else { Source::Gossip };
                book.observe(numbered(i), in_the_internet(i, false), source, at(0));
            }
            let (dials, when_ms) = dials_until(honest, book);
            assert!(dials <= 40 && when_ms <= 5_100, "{source:?}: {dials} dials, {when_ms} ms");
        }
    }
}

#[test]
fn one_part_of_the_internet_takes_four_dials_at_a_time_and_spins_nobody() {
    let mut book = PeerBook::new(SESSIONS_KEPT);
    for i in 0..100 {
        book.observe(numbered(i), in_the_internet(3, true), Source::Gossip, at(0));
    }
    assert_eq!(book.due(0, at(0)).len(), 4);
    let next_ms = book.next_due_ms(0).expect("they wait");
    assert!(next_ms > 0, "due at once, again and again");
    book.observe(A, in_the_internet(4, false), Source::Gossip, at(10));
    assert_eq!(book.due(0, at(10)).len(), 1, "elsewhere there is room");
}

#[test]
fn a_damaged_cache_only_lacks_peers() {
    let mut book = PeerBook::new(SESSIONS_KEPT);
    book.observe(A, somewhere(1), Source::Ticket, at(0));
    book.connected(A);
    book.opened(A, introduction("hq"), WALL_MS);
    let whole = book.encode(WALL_MS);
    for cut in 0..whole.len() {
        let mut restored = PeerBook::new(SESSIONS_KEPT);
        assert!(restored.restore(&whole[..cut], at(0)).is_err());
    }
    let mut restored = PeerBook::new(SESSIONS_KEPT);
    restored.restore(&whole, at(0)).expect("own encoding");
    let peer = restored.get(&A).expect("it was heard");
    assert_eq!(peer.introduction, introduction("hq"));
    assert_eq!((peer.first_seen_ms, peer.heard_ms), (WALL_MS, WALL_MS));
}
