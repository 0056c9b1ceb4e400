//! A peer that says nothing for an hour: what it costs, and when it ends.

use mosaik_core::trie::Prefix;
use mosaik_proto::{
    carrier::Role,
    message::{ByeCode, Message},
};

use super::wire::{Author, Node, Talk};

const HOUR_MS: u64 = 60 * 60 * 1000;

#[test]
fn who_never_greets_is_hung_up_on_after_ten_seconds() {
    for role in [Role::Dialer, Role::Listener] {
        let mut talk = Talk::raw(Node::new(1), role);
        talk.pass(9_999);
        assert_eq!(talk.end, None);
        talk.pass(HOUR_MS);
        assert_eq!(talk.end.map(|bye| bye.code), Some(ByeCode::Timeout));
        assert!(talk.node.replica.sessions().is_empty());
    }
}

#[test]
fn who_leaves_a_comparison_open_is_hung_up_on_after_a_minute() {
    let mut talk = Talk::raw(Node::new(1), Role::Listener);
    talk.say(Message::Greet(talk.greet()));
    let top = talk.node.top();
    talk.say(Message::Hello(talk.hello(top)));
    talk.pass(59_999);
    assert_eq!(talk.end, None);
    talk.pass(HOUR_MS);
    assert_eq!(talk.end.map(|bye| bye.code), Some(ByeCode::Timeout));
}

/// It may have nothing to say. It is told what is new, and what it claimed is given up.
#[test]
fn who_is_in_step_and_silent_for_an_hour_stays_and_costs_nothing_more() {
    let mut talk = Talk::open(Node::new(1));
    let claimed = Author::of(1, 3);
    talk.say(Message::Have(claimed.id(), claimed.tip()));
    // Asked for, and once more with more credit, which it might wait for.
    let asked = talk.pass(60_000);
    assert!(matches!(asked[..], [Message::Want(_), Message::Want(_)]), "{asked:?}");
    let heard = talk.pass(HOUR_MS);
    assert_eq!((heard, talk.end.clone()), (vec![], None));
    talk.node.append(b"news");
    assert!(matches!(talk.heard()[..], [Message::Run(_)]));
    assert_eq!(talk.say(Message::Done(Prefix::EMPTY)), []);
    assert_eq!(talk.end.map(|bye| bye.code), Some(ByeCode::Violation), "that answers nothing");
}
