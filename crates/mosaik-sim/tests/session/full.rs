//! A node whose store has no room for more.

use mosaik_core::feed::Ledger;
use mosaik_proto::message::{ByeCode, Message};

use super::wire::{Author, Node, Pair};

fn set_full(node: &mut Node, is_full: bool) {
    let (now, ledger, effects) = (node.now(), &mut node.ledger, &mut node.effects);
    node.replica.set_full(now, is_full, ledger, effects).expect("memory never fails");
    node.batch([]);
}

#[test]
fn a_full_node_asks_for_nothing_and_gives_what_it_has_until_there_is_room() {
    let [ours, theirs, later] = [1, 2, 3].map(|n| Author::of(n, 3));
    let (mut full, mut other) = (Node::new(1), Node::new(2));
    let stripped = Author::of(1000, 2);
    full.take([ours.all(), stripped.stripped()]);
    other.take([theirs.all(), stripped.all()]);
    set_full(&mut full, true);
    let mut pair = Pair::connected(full, other);
    // What is told unasked is not taken either, nor what gossip brings.
    pair.nodes[1].take([later.all()]);
    pair.settle();
    pair.nodes[0].take([later.all()]);
    pair.pass(200_000);
    assert!(pair.nodes[1].holds(&ours));
    assert!(!pair.nodes[0].holds(&theirs) && !pair.nodes[0].holds(&later));
    assert!(!pair.has_sent(0, |message| matches!(message, Message::Want(_))));
    let now_ms = pair.nodes[0].mono_ms;
    assert!(pair.nodes[0].replica.next_timeout_ms() > now_ms, "nothing is due that can't be done");
    assert!(pair.ends.is_empty(), "{:?}", pair.ends);

    // Nor payloads: they may be far longer than what tells of them.
    assert!(!pair.has_sent(0, |message| matches!(message, Message::Payloads(_))));

    set_full(&mut pair.nodes[0], false);
    pair.settle();
    assert!(pair.ends.iter().any(|bye| bye.code == ByeCode::Unable), "{:?}", pair.ends);
    pair.connect(1);
    pair.settle();
    assert!(pair.agree());
    assert!(pair.nodes[0].holds(&theirs) && pair.nodes[0].holds(&later));
    assert_eq!(pair.nodes[0].ledger.counts().expect("memory never fails").missing, 0);
}
