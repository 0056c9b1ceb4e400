//! Events of another system in the feeds of ours: when they count, and what they can't do.

use mosaik_core::{
    event::Event,
    feed::Ledger,
    hlc::Hlc,
    meshlog::{FOREIGN_KIND, compose, foreign_draft, json::Json},
    view,
};
use mosaik_proto::carrier::Input;

use super::wire::{Author, EPOCH_MS, Node, Pair};

const MINUTE_MS: u64 = 60_000;
/// The year 2286: what one bogus event made of another program's clock.
const FAR_MS: u64 = 9_999_999_999_999;

/// What `north` says at `ms`: a set of R's field `f`.
fn wire(ms: u64, value: u64) -> String {
    let payload = Json::map([
        ("record", Json::text("R")),
        ("field", Json::text("f")),
        ("value", Json::whole(value)),
    ]);
    compose("north", 1, Hlc::new(ms, 0), "field.set", &payload, None).wire
}

fn bring(node: &mut Node, wires: &[String]) {
    let draft = |wire: &String| foreign_draft(wire.as_bytes()).expect("a good event").0;
    node.step(Input::Append { token: 1, drafts: wires.iter().map(draft).collect() });
}

/// An author who carries what was said at `inner_ms` in an event of `outer_ms`.
fn carrier(n: u64, outer_ms: u64, inner_ms: u64) -> Author {
    let mut author = Author::new(n);
    author.write_at(outer_ms, FOREIGN_KIND, wire(inner_ms, 1).as_bytes());
    author
}

fn shows(node: &Node) -> Option<mosaik_core::value::Value> {
    let field = view::field(&node.ledger, "R", "f").expect("memory never fails");
    field.map(|field| field.shown.value)
}

fn held_back(node: &Node) -> u64 {
    node.ledger.counts().expect("memory never fails").held_back
}

fn is_known(node: &Node, event: &Event) -> bool {
    let inner = view::foreign(event).expect("a good event");
    view::carried(&node.ledger, &inner).expect("memory never fails").is_some()
}

#[test]
fn a_foreign_stamp_far_ahead_holds_its_event_back_and_moves_no_clock() {
    let mut node = Node::new(1);
    bring(&mut node, &[wire(FAR_MS, 9), wire(EPOCH_MS, 1)]);
    node.append(b"afterwards");
    let own = node.replica.frontier().get(&node.replica.author()).expect("its own feed");
    let branch = own.branches()[0].id;
    let events = node.ledger.events(branch, 1, 3, usize::MAX).expect("memory never fails");
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(|event| event.hlc.ms() < EPOCH_MS + MINUTE_MS), "{events:?}");
    assert_eq!((held_back(&node), shows(&node)), (1, Some(1i64.into())));
    // It is here all the same: who brings it again can see that.
    assert!(is_known(&node, &events[0]));
    let node = node.restart();
    assert_eq!((held_back(&node), shows(&node)), (1, Some(1i64.into())));
}

#[test]
fn a_foreign_event_counts_when_the_time_inside_it_has_come() {
    let mut node = Node::new(1);
    bring(&mut node, &[wire(EPOCH_MS + 30 * MINUTE_MS, 1)]);
    let mut pair = Pair::connected(node, Node::new(2));
    pair.settle();
    assert!(pair.agree());
    for node in &mut pair.nodes {
        assert_eq!((held_back(node), shows(node)), (1, None));
        node.pass(20 * MINUTE_MS + 6_000);
        assert_eq!((held_back(node), shows(node)), (0, Some(1i64.into())));
    }
}

/// The clock of a bridge says nothing of what it brings.
#[test]
fn a_foreign_event_counts_at_once_whatever_the_stamp_of_what_carries_it() {
    let mut node = Node::new(1);
    let author = carrier(1, EPOCH_MS + 60 * MINUTE_MS, EPOCH_MS);
    node.take([author.all()]);
    assert_eq!((held_back(&node), shows(&node)), (0, Some(1i64.into())));
}

#[test]
fn a_payload_that_comes_later_counts_by_the_time_inside_it() {
    for (outer_ms, inner_ms, waits) in [
        (EPOCH_MS, EPOCH_MS, false),
        (EPOCH_MS + 60 * MINUTE_MS, EPOCH_MS, false),
        (EPOCH_MS, EPOCH_MS + 30 * MINUTE_MS, true),
        (EPOCH_MS + 60 * MINUTE_MS, EPOCH_MS + 30 * MINUTE_MS, true),
    ] {
        let author = carrier(1, outer_ms, inner_ms);
        let mut node = Node::new(1);
        node.take([author.stripped()]);
        assert_eq!((held_back(&node), shows(&node)), (0, None));
        assert!(!is_known(&node, &author.events[0]));
        node.take([author.all()]);
        assert!(is_known(&node, &author.events[0]));
        assert_eq!((held_back(&node), shows(&node).is_none()), (u64::from(waits), waits));
        node.pass(20 * MINUTE_MS + 6_000);
        assert_eq!((held_back(&node), shows(&node)), (0, Some(1i64.into())));
    }
}

/// Two bridges bring it: in one batch, one after the other, or one without its payload.
#[test]
fn what_two_bridges_bring_counts_once_in_whatever_order() {
    let [one, two] = [1, 2].map(|n| carrier(n, EPOCH_MS + n, EPOCH_MS));
    let digest = |runs: Vec<Vec<mosaik_core::run::VerifiedRun>>| {
        let mut node = Node::new(1);
        runs.into_iter().for_each(|batch| node.take(batch));
        let field = view::field(&node.ledger, "R", "f").expect("memory never fails");
        assert_eq!(field.map(|field| field.others.len()), Some(0));
        view::digest(&node.ledger).expect("memory never fails")
    };
    let alone = digest(vec![vec![one.all()]]);
    for runs in [
        vec![vec![two.all()]],
        vec![vec![one.all(), two.all()]],
        vec![vec![two.all()], vec![one.all()]],
        vec![vec![two.stripped()], vec![one.all()]],
        vec![vec![two.stripped(), one.all()], vec![two.all()]],
    ] {
        assert_eq!(digest(runs), alone);
    }
}
