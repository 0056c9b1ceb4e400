//! What was asked for is given, and no more.

use mosaik_core::feed::Tip;
use mosaik_proto::{
    carrier::Role,
    message::{Ask, FRAME_MIN, LackReason, Message, Payloads, Reason, Want},
};

use super::wire::{Author, Node, Talk, runs};

fn want(author: &Author, tip: Tip, locator: Vec<Tip>) -> Message {
    Message::Want(Want { author: author.id(), tip: Some(tip), locator, credit: 1 << 20 })
}

fn at(author: &Author, seq: u64) -> Tip {
    Tip::from(&author.events[seq as usize - 1])
}

#[test]
fn a_want_for_a_tip_is_served_up_to_it_or_the_first_signed_head_after_it() {
    let author = Author::of(1, 20);
    let mut node = Node::new(1);
    node.take([author.run(1, 5), author.run(6, 8), author.run(9, 20)]);
    let mut talk = Talk::open(node);
    let mut served = |seq| {
        let answer = talk.say(want(&author, at(&author, seq), vec![Tip::ROOT]));
        runs(&answer).last().map(|(_, last)| *last)
    };
    assert_eq!(served(5), Some(5));
    assert_eq!(served(7), Some(8));
    assert_eq!(served(8), Some(8));
    assert_eq!(served(20), Some(20));
}

/// A later version may have reasons of its own: none of them ends a session.
#[test]
fn an_unknown_reason_declines_or_lacks_all_the_same() {
    let (known, shown) = (Author::of(1, 1), Author::of(2, 1));
    let mut node = Node::new(1);
    node.take([known.all()]);
    let mut talk = Talk::open(node);
    talk.say(Message::Decline(known.id(), Reason::Other(77)));
    let longer = Author::of(1, 2);
    talk.node.take([longer.run(2, 2)]);
    assert_eq!(talk.heard(), [], "no head of what it declines");
    talk.say(Message::Have(shown.id(), shown.tip()));
    assert!(matches!(talk.pass(200)[..], [Message::Want(_)]));
    let lack = Message::Lack(shown.id(), Some(shown.tip()), LackReason::Other(9));
    assert_eq!(talk.say(lack), []);
    assert_eq!(talk.pass(30_000), [], "it is gone there: nobody is asked again");
    assert_eq!(talk.end, None);
}

/// An asker that goes elsewhere says nothing: what it left must not take a place for ever.
#[test]
fn a_want_that_waited_a_minute_for_credit_is_forgotten() {
    let mut author = Author::new(1);
    (0..20).for_each(|i| author.write(&[i; 60_000]));
    let mut node = Node::new(1);
    node.take((0..5).map(|i| author.run(i * 4 + 1, i * 4 + 4)));
    let more = |credit| Want { author: author.id(), tip: None, locator: vec![Tip::ROOT], credit };
    for (waited_ms, first) in [(50_000, 5), (70_000, 1)] {
        let mut talk = Talk::open(node);
        assert_eq!(runs(&talk.say(Message::Want(more(0)))), [(1, 4)]);
        talk.pass(waited_ms);
        let answer = runs(&talk.say(Message::Want(more(1 << 18))));
        assert_eq!(answer.first(), Some(&(first, first + 3)), "after {waited_ms} ms");
        node = talk.node.restart();
    }
}

#[test]
fn a_decline_closes_the_wants_of_its_author_on_both_sides() {
    let author = Author::of(1, 2_000);
    let mut node = Node::new(1);
    node.take([author.run(1, 1_000), author.run(1_001, 2_000)]);
    let mut talk = Talk::open(node);
    let want = Want { author: author.id(), tip: None, locator: vec![Tip::ROOT], credit: 0 };
    assert_eq!(runs(&talk.say(Message::Want(want.clone()))), [(1, 1_000)]);
    talk.say(Message::Decline(author.id(), Reason::Quota));
    // Were it still open, this would only add credit to it.
    let again = Want { credit: 1 << 20, ..want };
    assert_eq!(runs(&talk.say(Message::Want(again))), [(1, 1_000), (1_001, 2_000)]);
}

/// The least that a peer may take holds four of the longest payloads.
#[test]
fn payloads_that_do_not_fit_one_frame_come_in_further_ones() {
    let mut author = Author::new(1);
    (0..15).for_each(|i| author.write(&[i; 65_536]));
    let mut node = Node::new(1);
    node.take((1..=15).map(|i| author.run(i, i)));
    let mut talk = Talk::raw(node, Role::Listener);
    talk.say(Message::Greet(talk.greet()));
    let mut hello = talk.hello(talk.node.top());
    hello.frame_max = FRAME_MIN;
    talk.say(Message::Hello(hello));
    let unknown = Author::of(2, 1);
    let mut ask: Vec<Ask> =
        (1..=15).map(|seq| Ask { author: author.id(), tip: at(&author, seq) }).collect();
    ask.push(Ask { author: unknown.id(), tip: unknown.tip() });
    let answer = talk.say(Message::Payloads(Payloads { ask, ..Payloads::default() }));
    let (mut given, mut lacked) = (Vec::new(), Vec::new());
    for message in answer {
        assert!(message.encode().len() <= 4 + FRAME_MIN as usize);
        let Message::Payloads(payloads) = message else { panic!("{message:?}") };
        given.extend(payloads.give.into_iter().map(|(id, _)| id));
        lacked.extend(payloads.lack);
    }
    let held: Vec<_> = author.events.iter().map(|event| event.id).collect();
    assert_eq!(given, held);
    assert_eq!(lacked, [unknown.tip().id]);
}
