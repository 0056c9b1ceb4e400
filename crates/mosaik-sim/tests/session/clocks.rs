use mosaik_core::{
    feed::{Ledger, Tip},
    hlc::Hlc,
};
use mosaik_proto::{
    carrier::{Effect, Input},
    hint::Hint,
};
use mosaik_sim::disk::MemoryLedger;

use super::wire::{EPOCH_MS, Node, Pair, config};

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

fn at(n: u8, wall_ms: u64) -> Node {
    Node::open(config(n), MemoryLedger::default(), wall_ms)
}

/// The stamp of the last event that a node wrote.
fn stamp(node: &Node) -> Hlc {
    let last = node.replica.own_last().expect("it wrote something");
    let feed = node.replica.frontier().get(&node.replica.author()).expect("its own feed");
    let branch = feed.find(last, &node.ledger).expect("memory never fails").expect("held");
    let events = node.ledger.events(branch, last.seq, last.seq, 0).expect("memory never fails");
    events[0].hlc
}

#[test]
fn a_clock_that_was_never_set_takes_the_peers_time() {
    let mut pair = Pair::connected(at(1, 5_000), at(2, EPOCH_MS));
    pair.nodes[0].append(b"x");
    assert_eq!(stamp(&pair.nodes[0]).ms(), EPOCH_MS);
    // And has no say in theirs.
    assert_eq!(pair.nodes[1].replica.clock_offset_ms(), None);
    pair.nodes[1].append(b"x");
    assert_eq!(stamp(&pair.nodes[1]).ms(), EPOCH_MS);
}

#[test]
fn two_clocks_that_were_never_set_tell_each_other_nothing() {
    let mut pair = Pair::connected(at(1, 5_000), at(2, 9_000));
    pair.nodes[0].append(b"x");
    assert_eq!(stamp(&pair.nodes[0]).ms(), 5_000);
}

/// A node that wrote one event when its clock was ahead by so much, and was then set right.
fn was_ahead(ms: u64) -> Node {
    let mut node = at(1, EPOCH_MS + ms);
    node.append(b"written ahead");
    node.wall_ms = EPOCH_MS;
    node
}

#[test]
fn own_stamps_rise_over_a_clock_that_fell_a_little() {
    let mut pair = Pair::connected(was_ahead(9 * MINUTE_MS), at(2, EPOCH_MS));
    let before = stamp(&pair.nodes[0]);
    pair.nodes[0].append(b"x");
    assert!(stamp(&pair.nodes[0]) > before);
    assert!(stamp(&pair.nodes[0]).ms() <= before.ms() + 1);
}

#[test]
fn own_stamps_fall_where_peers_confirm_that_the_clock_was_wrong() {
    // Nobody confirms it: an hour ahead it goes on above its last stamp, over restarts.
    let mut alone = was_ahead(60 * MINUTE_MS).restart();
    alone.pass(2_000);
    alone.append(b"x");
    assert!(stamp(&alone).ms() >= EPOCH_MS + 60 * MINUTE_MS);
    // Peers confirm it.
    let mut pair = Pair::connected(was_ahead(60 * MINUTE_MS), at(2, EPOCH_MS));
    pair.nodes[0].append(b"x");
    assert_eq!(stamp(&pair.nodes[0]).ms(), EPOCH_MS);
    pair.settle();
    assert!(pair.agree(), "a run whose stamps fall is valid");
    // More than a day is wrong in any case.
    let mut alone = was_ahead(DAY_MS + 1);
    alone.append(b"x");
    assert_eq!(stamp(&alone).ms(), EPOCH_MS);
}

/// Met by reading: stamps of an own feed that came from elsewhere were adopted up to 5 minutes only.
#[test]
fn own_stamps_go_on_above_an_own_event_that_came_from_elsewhere() {
    let mut first = at(1, EPOCH_MS + 8 * MINUTE_MS);
    first.append(b"before the disk was lost");
    let own = first.effects.iter().find_map(|effect| match effect {
        Effect::Appended { events, .. } => events.last().copied(),
        _ => None,
    });
    let other = Pair::connected(first, at(2, EPOCH_MS)).nodes;
    let [first, second] = other;
    let before = stamp(&first);
    let config = mosaik_proto::replica::Config { author_is_new: false, ..config(1) };
    let restored = Node::open(config, MemoryLedger::default(), EPOCH_MS);
    let mut pair = Pair::connected(restored, second);
    pair.nodes[0].append(b"after");
    assert_eq!(pair.nodes[0].replica.own_last().map(|tip| tip.seq), Some(2));
    assert_eq!(own.map(|tip| tip.seq), Some(1));
    assert!(stamp(&pair.nodes[0]) > before, "it follows {before:?}");
    assert_eq!(pair.nodes[0].replica.extra_branches(), 0);
}

/// Met by seeds: the clock took up its own last stamp at a start, and forgot what it had seen.
#[test]
fn what_was_seen_before_a_restart_is_below_what_is_written_after_it() {
    let mut pair = Pair::connected(at(1, EPOCH_MS), at(2, EPOCH_MS + 4 * MINUTE_MS));
    pair.nodes[1].append(b"by a clock four minutes ahead");
    pair.settle();
    assert!(pair.agree());
    let seen = stamp(&pair.nodes[1]);
    let [node, _] = pair.nodes;
    let mut node = node.restart();
    node.pass(2_000);
    node.append(b"after it was seen");
    assert!(stamp(&node) > seen, "{:?} is not above {seen:?}", stamp(&node));
}

#[test]
fn an_append_after_a_start_waits_for_the_own_feed_two_seconds_at_most() {
    let mut node = at(1, EPOCH_MS);
    node.append(b"one");
    let mut node = node.restart();
    node.append(b"two");
    let appended =
        |node: &Node| node.effects.iter().any(|effect| matches!(effect, Effect::Appended { .. }));
    assert!(!appended(&node));
    node.pass(1_999);
    assert!(!appended(&node));
    node.pass(1);
    assert!(appended(&node));
    assert_eq!(node.replica.own_last().map(|tip| tip.seq), Some(2));
}

#[test]
fn an_event_from_the_future_is_relayed_and_counts_when_its_time_has_come() {
    let mut ahead = at(1, EPOCH_MS + 60 * MINUTE_MS);
    let draft = mosaik_core::record::RecordEvent::Note { record: "r".into(), text: "t".into() };
    let drafts = vec![draft.encode().expect("a small event")];
    ahead.step(Input::Append { token: 1, drafts });
    let mut pair = Pair::connected(ahead, at(2, EPOCH_MS));
    pair.settle();
    assert!(pair.agree());
    let held_back = |node: &Node| node.ledger.counts().expect("memory never fails").held_back;
    assert_eq!(held_back(&pair.nodes[1]), 1);
    pair.nodes[1].pass(50 * MINUTE_MS + 6_000);
    assert_eq!(held_back(&pair.nodes[1]), 0);
    let digest = |node: &Node| mosaik_core::view::digest(&node.ledger).expect("memory never fails");
    assert_eq!(digest(&pair.nodes[0]), digest(&pair.nodes[1]));
}

#[test]
fn a_wall_clock_that_jumps_does_not_stop_a_node() {
    let mut pair = Pair::connected(at(1, EPOCH_MS), at(2, EPOCH_MS));
    for wall_ms in [EPOCH_MS + 40 * DAY_MS, 0, EPOCH_MS] {
        pair.nodes[0].wall_ms = wall_ms;
        pair.nodes[0].append(b"x");
        pair.settle();
        pair.pass(100);
        assert!(pair.agree());
    }
    let tip = pair.nodes[0].replica.own_last().unwrap_or(Tip::ROOT);
    assert_eq!(tip.seq, 3);
    let hint = Hint::Head(pair.nodes[0].replica.author(), tip);
    pair.nodes[1].step(Input::Hint { from: pair.nodes[0].replica.node(), hint });
    pair.pass(200_000);
    assert!(pair.agree());
}
