use mosaik_core::trie::Prefix;
use mosaik_proto::{
    carrier::{Input, Role},
    message::{ByeCode, Items, Message, Want},
};

use super::wire::{Author, Node, Pair, Talk};

/// A node that holds one event of each of so many authors.
fn node(n: u8, authors: u64) -> Node {
    let mut node = Node::new(n);
    node.take((0..authors).map(|i| Author::of(i, 1).all()));
    node
}

#[test]
fn equal_nodes_are_in_sync_after_less_than_300_bytes_each_way() {
    for authors in [0, 1, 1_000, 10_000] {
        let mut pair = Pair::connected(node(1, authors), node(2, authors));
        for (node, bytes) in pair.bytes(true).into_iter().enumerate() {
            assert!(bytes < 300, "node {node} sent {bytes} bytes with {authors} authors");
            assert!(pair.nodes[node].replica.synced_since_ms().is_some());
        }
        // And every further comparison costs two frames.
        pair.sent.clear();
        pair.pass(100_000);
        assert!(pair.has_sent(0, |message| matches!(message, Message::Root(_))));
        let bytes: usize = pair.bytes(true).iter().sum();
        assert!(bytes <= 2 * (21 + 6), "{bytes} bytes");
    }
}

/// Ten of so many feeds differ, `newer` of them newer at the first node: all bytes but those of runs,
/// and round trips.
fn ten_differ(authors: u64, newer: u64) -> (usize, f64) {
    let mut nodes = [node(1, authors), node(2, authors)];
    for i in 0..10 {
        let author = Author::of(i * authors / 10, 2);
        nodes[usize::from(i >= newer)].take([author.run(2, 2)]);
    }
    let [a, b] = nodes;
    let mut pair = Pair::connected(a, b);
    pair.pass(1_000);
    assert!(pair.agree());
    let trips = pair.half_trips as f64 / 2.0;
    (pair.bytes(false).iter().sum(), trips)
}

#[test]
fn ten_differing_feeds_cost_what_the_format_counts() {
    for (authors, bytes_max) in [(1_000, 4_900), (10_000, 6_400)] {
        for newer in [5, 10, 0] {
            let (bytes, trips) = ten_differ(authors, newer);
            assert!(bytes < bytes_max, "{bytes} bytes with {authors} authors, {newer} newer");
            assert!(trips <= 5.5, "{trips} round trips with {authors} authors, {newer} newer");
        }
    }
}

#[test]
fn every_frame_that_answers_nothing_ends_the_session() {
    let prefix = Prefix::EMPTY.child(5);
    let items = |prefix| Items { prefix, items: vec![], lacked: vec![], more: false };
    for stray in [
        Message::Tree(Prefix::EMPTY, [[0; 8]; 16]),
        Message::Tree(prefix, [[0; 8]; 16]),
        Message::Leaf(Prefix::EMPTY, vec![]),
        Message::Leaf(prefix, vec![]),
        Message::Items(items(Prefix::EMPTY)),
        Message::Items(items(prefix)),
        Message::Done(Prefix::EMPTY),
        Message::Done(prefix),
    ] {
        let mut talk = Talk::open(node(1, 50));
        talk.say(stray.clone());
        assert_eq!(talk.end.map(|bye| bye.code), Some(ByeCode::Violation), "{stray:?}");
        assert_eq!(talk.node.replica.totals().violations, 1);
    }
}

#[test]
fn a_comparison_that_stands_still_ends_the_session() {
    let mut talk = Talk::raw(node(1, 50), Role::Listener);
    talk.say(Message::Greet(talk.greet()));
    talk.say(Message::Hello(talk.hello([0; 16])));
    talk.pass(59_000);
    assert_eq!(talk.end, None);
    talk.pass(1_000);
    assert_eq!(talk.end.map(|bye| bye.code), Some(ByeCode::Timeout));
}

/// Met by reading: what was written between a node's hello and the other's was told to nobody.
#[test]
fn news_are_told_from_the_own_hello_on() {
    for writer in [0, 1] {
        let mut pair = Pair::new(node(1, 2), node(2, 2));
        pair.connect(0);
        // Until the writer has said hello and doesn't know the other's yet.
        while !pair.has_sent(writer, |message| matches!(message, Message::Hello(_))) {
            pair.flight();
            let written = pair.nodes[writer].effects.iter().any(|effect| {
                matches!(effect, mosaik_proto::carrier::Effect::Send { frame, .. } if frame[4] == 2)
            });
            if written {
                break;
            }
        }
        pair.nodes[writer].append(b"news");
        pair.settle();
        pair.pass(1_000);
        assert!(pair.agree(), "node {writer} wrote");
    }
}

#[test]
fn who_waits_to_be_synced_gets_a_comparison_that_begins_now() {
    for asker in [0, 1] {
        let mut pair = Pair::connected(node(1, 40), node(2, 41));
        pair.pass(5_000);
        let asked_ms = pair.nodes[asker].mono_ms;
        assert!(pair.nodes[asker].replica.synced_since_ms() < Some(asked_ms));
        pair.nodes[asker].step(Input::Compare);
        pair.settle();
        // The dialer's own timer starts it.
        pair.pass(100);
        assert!(pair.nodes[asker].replica.synced_since_ms() >= Some(asked_ms), "node {asker}");
    }
}

#[test]
fn a_comparison_asked_for_during_the_greeting_follows_it() {
    for asker in [0, 1] {
        let mut pair = Pair::new(node(1, 40), node(2, 41));
        pair.connect(0);
        pair.pass(0);
        pair.nodes.iter_mut().for_each(|node| node.pass(100));
        let asked_ms = pair.nodes[asker].mono_ms;
        pair.nodes[asker].step(Input::Compare);
        pair.settle();
        pair.pass(100);
        assert!(pair.nodes[asker].replica.synced_since_ms() >= Some(asked_ms), "node {asker}");
    }
}

/// Met by seed 58: a `Want` stands in the place of an item, and what its locator names was forgotten.
#[test]
fn what_a_want_shows_during_a_comparison_has_to_come_before_it_counts_as_synced() {
    let (ours, theirs) = (Author::of(1, 3), Author::of(1, 3).branch(1, 5, 2));
    let mut holder = Node::new(1);
    holder.take([ours.all()]);
    let mut talk = Talk::open(holder);
    talk.pass(1_000);
    let began_ms = talk.node.mono_ms;
    assert!(matches!(talk.say(Message::Root([1; 16]))[..], [Message::Root(_)]));
    let locator = vec![theirs.tip()];
    let want = Want { author: ours.id(), tip: Some(ours.tip()), locator, credit: 1 << 20 };
    talk.say(Message::Want(want));
    talk.say(Message::Done(Prefix::EMPTY));
    assert!(talk.node.replica.synced_since_ms() < Some(began_ms));
    talk.say(Message::Run(theirs.all()));
    assert_eq!(talk.node.replica.synced_since_ms(), Some(began_ms));
}
