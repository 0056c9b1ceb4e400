use std::net::SocketAddr;

use mosaik_core::id::NodeId;
use mosaik_proto::{
    carrier::{Addresses, Effect, Input, Role, SessionId},
    message::{ByeCode, Message},
    peers::{PeerState, SESSIONS_KEPT},
    replica::Config,
};

use super::wire::{EPOCH_MS, Node, Pair, Talk, config};

#[test]
fn of_two_connections_both_ends_keep_the_same() {
    let mut pair = Pair::new(Node::new(1), Node::new(2));
    let smaller = usize::from(pair.nodes[0].replica.node() > pair.nodes[1].replica.node());
    for first in [0, 1] {
        pair.connect(first);
        pair.connect(1 - first);
        pair.settle();
        for node in [0, 1] {
            let sessions = pair.nodes[node].replica.sessions();
            assert_eq!(sessions.len(), 1);
            assert_eq!(sessions[0].role == Role::Dialer, node == smaller);
        }
    }
    // And the answers to that.
    let is_expected = |code| matches!(code, ByeCode::Duplicate | ByeCode::Done);
    assert!(pair.ends.iter().all(|bye| is_expected(bye.code)), "{:?}", pair.ends);
}

#[test]
fn a_new_connection_of_the_same_dialer_takes_the_place_of_its_dead_one() {
    let mut pair = Pair::connected(Node::new(1), Node::new(2));
    pair.nodes[0].step(Input::Disconnected { session: SessionId(1), reason: "lost".into() });
    pair.pass(100);
    pair.connect(0);
    pair.settle();
    let sessions = |node: &Node| -> Vec<SessionId> {
        node.replica.sessions().iter().map(|session| session.session).collect()
    };
    assert_eq!(sessions(&pair.nodes[0]), [SessionId(2)]);
    // The listener can't know which of the two is dead before some time has passed.
    assert_eq!(sessions(&pair.nodes[1]), [SessionId(1), SessionId(2)]);
    pair.pass(16_000);
    assert_eq!(sessions(&pair.nodes[1]), [SessionId(2)]);
}

#[test]
fn who_is_turned_away_before_a_greeting_comes_again_later_and_later() {
    let mut node = Node::new(1);
    let peer = NodeId([3; 32]);
    node.knows(peer);
    for number in 1..=8 {
        let dials = |node: &Node| {
            let is_it =
                |effect: &&Effect| matches!(effect, Effect::Dial { peer: to, .. } if *to == peer);
            node.effects.iter().filter(is_it).count()
        };
        node.pass(600_000);
        assert!(dials(&node) > 0, "the dial after {number} in vain");
        let session = SessionId(number);
        let (role, binding) = (Role::Dialer, vec![number as u8; 32]);
        node.step(Input::Connected { session, peer, role, binding, rtt_ms: None });
        let reason = "closed by the peer: unable for now".into();
        node.step(Input::Disconnected { session, reason });
        node.effects.clear();
        let state =
            node.replica.peers().get(&peer).map(|peer| (peer.failures, peer.last_reason.clone()));
        assert_eq!(state, Some((number as u32, "closed by the peer: unable for now".into())));
        node.pass(400);
        assert_eq!(dials(&node), 0, "at once after {number} in vain");
    }
}

/// A machine that stood still sees an answer that took as long, and then waits three times that before
/// it calls a connection dead. Whoever dials meanwhile must not be turned away for it.
#[test]
fn a_connection_that_only_one_end_still_believes_in_makes_room_for_a_new_one() {
    for lost in [0, 1] {
        for dialer in [0, 1] {
            let mut pair = Pair::connected(Node::new(1), Node::new(2));
            pair.pass(11_000);
            pair.nodes[lost]
                .step(Input::Disconnected { session: SessionId(1), reason: "lost".into() });
            pair.connect(dialer);
            pair.settle();
            for node in &pair.nodes {
                let sessions = node.replica.sessions();
                assert_eq!(sessions.len(), 1, "lost at {lost}, dialed by {dialer}");
                assert_eq!(sessions[0].session, SessionId(2));
            }
        }
    }
}

/// Each end knows its own order only: with both choosing, both connections could be ended.
#[test]
fn of_two_connections_of_one_dialer_the_dialer_ends_one() {
    let mut pair = Pair::new(Node::new(1), Node::new(2));
    pair.connect(0);
    pair.connect(0);
    pair.settle();
    assert_eq!(pair.nodes[0].replica.sessions().len(), 1);
    assert_eq!(pair.nodes[1].replica.sessions().len(), 1);
    // What the dialer said, and the listener's answer to it.
    let codes: Vec<ByeCode> = pair.ends.iter().map(|bye| bye.code).collect();
    assert_eq!(codes, [ByeCode::Duplicate, ByeCode::Done]);
}

#[test]
fn a_blocked_peer_is_hung_up_on_with_a_sentence_and_let_in_again() {
    let mut pair = Pair::connected(Node::new(1), Node::new(2));
    let ids = [0, 1].map(|node| pair.nodes[node].replica.node());
    pair.nodes[0].step(Input::Block { peer: ids[1], blocked: true });
    pair.settle();
    assert_eq!(pair.nodes[0].peer_state(ids[1]), Some(PeerState::Blocked));
    let there = pair.nodes[1].replica.peers().get(&ids[0]);
    assert!(there.is_some_and(|peer| peer.last_reason.contains("blocked")));
    pair.connect(1);
    pair.settle();
    assert!(pair.nodes.iter().all(|node| node.replica.sessions().is_empty()));
    pair.nodes[0].step(Input::Block { peer: ids[1], blocked: false });
    pair.connect(1);
    pair.settle();
    assert_eq!(pair.nodes[0].peer_state(ids[1]), Some(PeerState::Connected));
    assert_eq!(pair.nodes[1].peer_state(ids[0]), Some(PeerState::Connected));
}

#[test]
fn a_block_lasts_over_a_restart() {
    let mut node = Node::new(1);
    let peer = NodeId([3; 32]);
    node.step(Input::Block { peer, blocked: true });
    let mut node = node.restart();
    node.knows(peer);
    node.pass(100_000);
    assert!(!node.effects.iter().any(|effect| matches!(effect, Effect::Dial { .. })));
    let talk = Talk::raw(node, Role::Listener);
    assert_eq!(talk.node.replica.sessions(), []);
}

#[test]
fn a_node_that_stops_says_so() {
    let mut pair = Pair::connected(Node::new(1), Node::new(2));
    let id = pair.nodes[0].replica.node();
    pair.nodes[0].step(Input::Leave);
    pair.settle();
    assert_eq!(pair.nodes[1].peer_state(id), Some(PeerState::Left));
}

#[test]
fn two_nodes_of_one_key_are_told_of_each_other() {
    let mut talk = Talk::open(Node::new(1));
    talk.pass(20_000);
    // The same peer, from another machine.
    let session = SessionId(999_999);
    let first = std::mem::replace(&mut talk.session, session);
    let (peer, role) = (talk.peer, Role::Listener);
    let binding = super::wire::BINDING.to_vec();
    talk.node.step(Input::Connected { session, peer, role, binding, rtt_ms: None });
    talk.say(Message::Greet(talk.greet()));
    let mut hello = talk.hello(talk.node.top());
    hello.boot = 2;
    talk.say(Message::Hello(hello));
    talk.say(Message::Done(mosaik_core::trie::Prefix::EMPTY));
    assert_eq!(talk.node.replica.sessions().len(), 2, "two boot numbers are no duplicates");
    talk.node.pass(16_000);
    let twins: Vec<(SessionId, u64)> = talk
        .node
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send { session, frame, .. } => {
                let hasher = super::wire::hasher();
                match Message::decode(&frame[4..], &hasher).expect("own frame") {
                    Message::Twin(boot) => Some((*session, boot)),
                    _ => None,
                }
            }
            _ => None,
        })
        .collect();
    assert_eq!(twins, [(session, 1), (first, 2)]);
}

#[test]
fn a_node_that_is_told_of_its_twin_shows_it() {
    let mut talk = Talk::open(Node::new(1));
    let own = talk.node.replica.boot();
    talk.say(Message::Twin(own));
    assert_eq!(talk.node.replica.twin(), None);
    talk.say(Message::Twin(own + 5));
    assert_eq!(talk.node.replica.twin(), Some(own + 5));
}

/// Met by seed 16969: both counted one on from the same number, and all others took the second for a
/// surplus connection of the first, for ever.
#[test]
fn two_copies_of_a_store_start_under_two_boot_numbers_though_their_clocks_fell() {
    let original = Node::new(1);
    let last = original.replica.boot();
    let start = |seed| {
        let ledger = original.ledger.clone();
        let config = Config { author_is_new: false, seed, ..config(1) };
        Node::open(config, ledger, EPOCH_MS - 1_000).replica.boot()
    };
    assert!(start(1) > last && start(2) > last);
    assert_ne!(start(1), start(2));
}

#[test]
fn a_peer_that_floods_with_sessions_is_told_to_come_later() {
    let mut node = Node::new(1);
    for i in 0..4204 {
        let mut peer = [9; 32];
        peer[..8].copy_from_slice(&u64::to_be_bytes(i));
        node.step(Input::Connected {
            session: SessionId(i),
            peer: NodeId(peer),
            role: Role::Listener,
            binding: vec![],
            rtt_ms: None,
        });
    }
    assert_eq!(node.replica.sessions().len(), 4160);
    let unable = node.effects.iter().filter(
        |effect| matches!(effect, Effect::Close { bye, .. } if bye.code == ByeCode::Unable),
    );
    assert_eq!(unable.count(), 44);
    assert_eq!(node.replica.peers().iter().count(), 0, "strangers take no place in the book");
}

/// What came of the pings so far.
fn ponged(node: &Node) -> Vec<(u64, Result<SessionId, String>)> {
    let ponged = node.effects.iter().filter_map(|effect| match effect {
        Effect::Ponged { token, answer } => Some((*token, answer.clone())),
        _ => None,
    });
    ponged.collect()
}

#[test]
fn a_ping_is_answered_over_the_session_that_is_there() {
    let mut pair = Pair::connected(Node::new(1), Node::new(2));
    let peer = pair.nodes[1].replica.node();
    let session = pair.nodes[0].replica.sessions()[0].session;
    pair.nodes[0].step(Input::Ping { token: 7, peer });
    pair.settle();
    assert_eq!(pair.ponged, [(7, Ok(session))]);
}

#[test]
fn a_ping_dials_and_says_why_nobody_answers() {
    let mut node = Node::new(1);
    let peer = NodeId([3; 32]);
    node.step(Input::Ping { token: 1, peer });
    assert_eq!(ponged(&node), [(1, Err("nobody of this id is known here".to_owned()))]);
    node.knows(peer);
    let dials = |node: &Node| {
        node.effects.iter().filter(|effect| matches!(effect, Effect::Dial { .. })).count()
    };
    let before = dials(&node);
    node.step(Input::Ping { token: 2, peer });
    node.step(Input::Ping { token: 3, peer });
    assert!(dials(&node) <= before + 1, "one dial for all who ask");
    node.step(Input::DialFailed { peer, reason: "no answer within 5 s".into() });
    let failed = Err("no answer within 5 s".to_owned());
    assert_eq!(ponged(&node)[1..], [(2, failed.clone()), (3, failed)]);
}

#[test]
fn a_ping_that_nobody_answers_ends() {
    let mut talk = Talk::open(Node::new(1));
    let peer = talk.peer;
    talk.node.step(Input::Ping { token: 1, peer });
    talk.node.pass(16_000);
    let late = Err("no answer within 10 s".to_owned());
    assert_eq!(ponged(&talk.node), [(1, late)]);
    // An answer that nobody waits for is none.
    talk.say(Message::Pong(1));
    assert_eq!(ponged(&talk.node), []);
    talk.node.step(Input::Ping { token: 2, peer });
    let session = talk.session;
    talk.node.step(Input::Disconnected { session, reason: "timed out".into() });
    assert_eq!(ponged(&talk.node), [(2, Err("timed out".to_owned()))]);
}

/// Dials since the last call, those that are due now among them.
fn dials(node: &mut Node) -> usize {
    node.pass(1);
    let effects = std::mem::take(&mut node.effects);
    effects.iter().filter(|effect| matches!(effect, Effect::Dial { .. })).count()
}

#[test]
fn a_paused_node_says_goodbye_dials_nobody_and_lets_nobody_in_until_it_goes_on() {
    let mut pair = Pair::connected(Node::new(1), Node::new(2));
    let ids = [0, 1].map(|node| pair.nodes[node].replica.node());
    pair.nodes[0].knows(ids[1]);
    pair.nodes[0].step(Input::Pause(true));
    pair.settle();
    assert!(pair.nodes.iter().all(|node| node.replica.sessions().is_empty()));
    assert_eq!(pair.nodes[1].peer_state(ids[0]), Some(PeerState::Left));
    assert_eq!(pair.nodes[0].peer_state(ids[1]), Some(PeerState::Reachable));
    dials(&mut pair.nodes[0]);
    pair.nodes[0].pass(600_000);
    pair.nodes[0].knows(NodeId([9; 32]));
    pair.nodes[0].step(Input::Ping { token: 1, peer: ids[1] });
    assert_eq!(dials(&mut pair.nodes[0]), 0);
    pair.connect(1);
    pair.settle();
    assert!(pair.nodes.iter().all(|node| node.replica.sessions().is_empty()));
    let there = pair.nodes[1].replica.peers().get(&ids[0]);
    assert!(there.is_some_and(|peer| peer.last_reason.contains("paused")));
    pair.nodes[0].step(Input::Pause(false));
    assert_eq!(dials(&mut pair.nodes[0]), 2, "whatever came of it before");
    pair.connect(0);
    pair.settle();
    assert!(pair.nodes.iter().all(|node| node.replica.sessions().len() == 1));
}

#[test]
fn a_new_address_of_its_own_makes_a_node_try_everybody_again() {
    let mut node = Node::new(1);
    let peer = NodeId([3; 32]);
    node.knows(peer);
    assert_eq!(dials(&mut node), 1);
    let failed = |node: &mut Node| {
        node.step(Input::DialFailed { peer, reason: "no answer within 5 s".into() });
    };
    let moved = |node: &mut Node, host: u8| {
        let direct = vec![SocketAddr::from(([192, 0, 2, host], 4242))];
        node.step(Input::OwnAddresses(Addresses { direct, relays: Vec::new() }));
    };
    for _ in 0..12 {
        failed(&mut node);
        node.pass(700_000);
    }
    dials(&mut node);
    failed(&mut node);
    node.pass(1_000);
    assert_eq!(dials(&mut node), 0, "it waits for minutes by now");
    moved(&mut node, 1);
    assert_eq!(dials(&mut node), 1);
    // One that comes and goes doesn't.
    for host in 2..5 {
        failed(&mut node);
        moved(&mut node, host);
    }
    assert_eq!(dials(&mut node), 0);
}

/// Whoever knows an address can connect. Only members can greet.
#[test]
fn strangers_that_say_nothing_keep_a_node_from_dialing_nobody() {
    let mut node = Node::new(1);
    for n in 0..SESSIONS_KEPT as u8 {
        node.step(Input::Connected {
            session: SessionId(u64::from(n)),
            peer: NodeId([100 + n; 32]),
            role: Role::Listener,
            binding: vec![n; 32],
            rtt_ms: None,
        });
    }
    assert_eq!(node.replica.sessions().len(), SESSIONS_KEPT);
    node.knows(NodeId([3; 32]));
    assert_eq!(dials(&mut node), 1);
}
