use mosaik_core::{key::Network, trie::Prefix};
use mosaik_proto::{
    carrier::Role,
    message::{Bye, ByeCode, Greet, Message},
    peers::PeerState,
    replica::Config,
};
use mosaik_sim::disk::MemoryLedger;

use super::wire::{EPOCH_MS, Node, Pair, Talk, config};

#[test]
fn two_networks_part_with_a_sentence_at_both_ends() {
    let other = Config { keys: Network::Public("another".into()).keys(), ..config(2) };
    let stranger = Node::open(other, MemoryLedger::default(), EPOCH_MS);
    let ids = [config(1), config(2)].map(|c| c.node_key.verifying_key().to_bytes());
    let mut pair = Pair::new(Node::new(1), stranger);
    pair.nodes[0].knows(mosaik_core::id::NodeId(ids[1]));
    pair.nodes[1].knows(mosaik_core::id::NodeId(ids[0]));
    pair.connect(0);
    pair.settle();
    assert!(pair.sent.iter().all(|sent| matches!(sent.message, Message::Greet(_))));
    for (node, peer) in [(0, ids[1]), (1, ids[0])] {
        let peer = pair.nodes[node].replica.peers().get(&mosaik_core::id::NodeId(peer));
        let peer = peer.expect("it was told where");
        assert_eq!(peer.state(), PeerState::Refused);
        assert!(peer.last_reason.contains("not in this network"), "{}", peer.last_reason);
    }
}

#[test]
fn a_server_that_echoes_is_refused() {
    let mut talk = Talk::raw(Node::new(1), Role::Dialer);
    let said = talk.heard();
    assert_eq!(said.len(), 1);
    talk.say(said[0].clone());
    assert_eq!(talk.end.map(|bye| bye.code), Some(ByeCode::OtherNetwork));
}

fn greeted_with(change: impl Fn(&mut Greet)) -> Option<Bye> {
    let mut talk = Talk::raw(Node::new(1), Role::Listener);
    let mut greet = talk.greet();
    change(&mut greet);
    assert_eq!(talk.say(Message::Greet(greet)), [], "nothing is said to a stranger");
    talk.end
}

#[test]
fn another_program_or_version_is_refused_with_both_named() {
    let bye = greeted_with(|greet| greet.versions = (7, 9)).expect("refused");
    assert_eq!(bye.code, ByeCode::Version);
    assert!(bye.text.contains("1 to 1") && bye.text.contains("7 to 9"), "{}", bye.text);
    let bye = greeted_with(|greet| greet.app = "ssh".into()).expect("refused");
    assert_eq!(bye.code, ByeCode::Version);
}

#[test]
fn a_proof_with_one_bit_changed_is_refused() {
    let bye = greeted_with(|greet| greet.proof[31] ^= 1).expect("refused");
    assert_eq!(bye.code, ByeCode::OtherNetwork);
}

#[test]
fn nothing_but_the_greeting_is_taken_before_it_is_over() {
    for greet_first in [false, true] {
        for message in [Message::Root([0; 16]), Message::Done(Prefix::EMPTY), Message::Again(1)] {
            let mut talk = Talk::raw(Node::new(1), Role::Listener);
            if greet_first {
                talk.say(Message::Greet(talk.greet()));
            }
            talk.say(message.clone());
            assert_eq!(talk.end.map(|bye| bye.code), Some(ByeCode::Violation), "{message:?}");
        }
    }
}

#[test]
fn unknown_types_that_may_be_skipped_are_at_any_time() {
    let mut talk = Talk::raw(Node::new(1), Role::Listener);
    talk.say(Message::Skipped(200));
    let answer = talk.say(Message::Greet(talk.greet()));
    assert!(matches!(answer[..], [Message::Greet(_), Message::Hello(_)]));
}

#[test]
fn a_second_greeting_ends_the_session() {
    let mut talk = Talk::open(Node::new(1));
    talk.say(Message::Greet(talk.greet()));
    assert_eq!(talk.end.map(|bye| bye.code), Some(ByeCode::Violation));
}

#[test]
fn a_peer_that_does_not_greet_is_hung_up_on() {
    for role in [Role::Dialer, Role::Listener] {
        let mut talk = Talk::raw(Node::new(1), role);
        talk.pass(9_999);
        assert_eq!(talk.end, None);
        talk.pass(1);
        assert_eq!(talk.end.map(|bye| bye.code), Some(ByeCode::Timeout));
    }
}
