//! What was asked for is given, and no more.

use mosaik_core::feed::Tip;
use mosaik_proto::message::{LackReason, Message, Reason, Want};

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
