//! Two ends of a comparison on one machine: no session, no storage, only what is said.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mosaik_core::{
    event::Hasher,
    feed::{Branch, BranchId, Tip},
    id::{EventId, Fingerprint},
    trie::Rule,
};
use proptest::prelude::*;

use super::*;

const FINGERPRINT: Fingerprint = Fingerprint([9; 32]);
const KEY: [u8; 32] = [5; 32];

fn author(i: u64) -> AuthorId {
    AuthorId(*blake3::hash(&i.to_be_bytes()).as_bytes())
}

/// Authors in few prefixes: deep tries from small numbers.
fn crowded_author(i: u64) -> AuthorId {
    let mut bytes = *blake3::hash(&i.to_be_bytes()).as_bytes();
    let last = 0xe0 | (bytes[3] & 3);
    bytes[..3].copy_from_slice(&[0xab, 0xcd, last]);
    AuthorId(bytes)
}

fn feed(author: AuthorId, seqs: &[u64]) -> Feed {
    let mut feed = Feed::default();
    for (i, seq) in seqs.iter().enumerate() {
        let tip = Tip { seq: *seq, id: EventId([i as u8 + 1; 32]) };
        feed.add(Branch { id: BranchId(i as u32), author, parent: None, tip });
    }
    feed
}

/// One end.
struct End {
    frontier: Frontier,
    /// Declined here.
    declines: BTreeSet<AuthorId>,
    skip: BTreeSet<AuthorId>,
    comparison: Comparison,
    is_dialer: bool,
    /// The items that the other has told.
    told: BTreeMap<AuthorId, Vec<Tip>>,
}

impl End {
    fn new(held: impl IntoIterator<Item = (AuthorId, u64)>, is_dialer: bool) -> Self {
        let mut frontier = Frontier::new(Rule::frontier(&FINGERPRINT));
        for (author, seq) in held {
            frontier.insert(author, feed(author, &[seq]));
        }
        Self {
            frontier,
            declines: BTreeSet::new(),
            skip: BTreeSet::new(),
            comparison: Comparison::new(KEY, crate::message::FRAME_MAX),
            is_dialer,
            told: BTreeMap::new(),
        }
    }

    fn hear(&mut self, message: Message) -> Result<Vec<Message>, Stray> {
        let held = Held { frontier: &self.frontier, skip: &self.skip };
        match message {
            Message::Root(top) => {
                self.comparison.on_root(top, self.is_dialer, held).map(|answer| vec![answer])
            }
            Message::Tree(prefix, children) => self.comparison.on_tree(prefix, &children, held),
            Message::Leaf(prefix, shorts) => {
                self.comparison.on_leaf(prefix, &shorts, held).map(|answer| vec![answer])
            }
            Message::Done(prefix) => {
                self.comparison.on_done(prefix, held).map(|answer| answer.into_iter().collect())
            }
            Message::Items(items) => {
                self.comparison.expects_items(items.prefix)?;
                let mut differing = BTreeSet::new();
                for item in &items.items {
                    if self.declines.contains(&item.author) {
                        self.skip.insert(item.author);
                        continue;
                    }
                    self.told.insert(item.author, item.tips.clone());
                    if self.frontier.get(&item.author).is_some_and(|own| own.tips() != item.tips) {
                        differing.insert(item.author);
                    }
                }
                let held = Held { frontier: &self.frontier, skip: &self.skip };
                self.comparison
                    .answer_items(&items, differing, BTreeSet::new(), held)
                    .map(|answer| vec![answer])
            }
            other => panic!("no frame of a comparison: {other:?}"),
        }
    }
}

/// What a comparison cost.
#[derive(Debug, Default)]
struct Cost {
    /// From the dialer, from the listener.
    bytes: [usize; 2],
    half_trips: usize,
    frames: usize,
}

/// The comparison that a listener's hello begins. Each frame goes through its bytes.
fn compare(dialer: &mut End, listener: &mut End) -> Result<Cost, Stray> {
    let hasher = Hasher::new(&FINGERPRINT);
    let mut cost = Cost::default();
    listener.comparison.told();
    let top = Held { frontier: &listener.frontier, skip: &listener.skip }.top();
    let held = Held { frontier: &dialer.frontier, skip: &dialer.skip };
    let first = dialer.comparison.answer_top(top, held);
    let mut on_way = [VecDeque::from([first]), VecDeque::new()];
    let mut from = 0;
    while on_way.iter().any(|way| !way.is_empty()) {
        let frames = std::mem::take(&mut on_way[from]);
        cost.half_trips += usize::from(!frames.is_empty());
        for message in frames {
            let frame = message.encode();
            cost.bytes[from] += frame.len();
            cost.frames += 1;
            let message = Message::decode(&frame[4..], &hasher).expect("own encoding");
            let to = if from == 0 { &mut *listener } else { &mut *dialer };
            on_way[1 - from].extend(to.hear(message)?);
        }
        from = 1 - from;
    }
    Ok(cost)
}

/// After a comparison each end was told all that the other holds and it doesn't, and both know that
/// it is over.
fn check(dialer: &mut End, listener: &mut End) -> Cost {
    let cost = compare(dialer, listener).expect("every frame answers something");
    assert!(dialer.comparison.has_ended() && listener.comparison.has_ended());
    let declined: BTreeSet<_> = dialer.declines.union(&listener.declines).copied().collect();
    for (end, other) in [(&*dialer, &*listener), (&*listener, &*dialer)] {
        for (author, theirs) in other.frontier.under(&Prefix::EMPTY, &declined) {
            let own = end.frontier.get(&author).map(Feed::tips);
            if own != Some(theirs.tips()) {
                assert_eq!(end.told.get(&author), Some(&theirs.tips()), "{author} was not told");
            }
        }
    }
    cost
}

fn pair(name: fn(u64) -> AuthorId, held: &[(u64, u64, u64)]) -> (End, End) {
    let side = |seq: fn(&(u64, u64, u64)) -> u64| {
        held.iter().map(move |at| (name(at.0), seq(at))).filter(|(_, seq)| *seq > 0)
    };
    (End::new(side(|at| at.1), true), End::new(side(|at| at.2), false))
}

#[test]
fn a_comparison_shows_both_ends_all_that_differs() {
    for count in [0, 1, 2, 32, 33, 64, 65, 66, 1_000, 10_000] {
        for step in [1, 7, 1_000_000] {
            for (dialer, listener) in [(3, 3), (3, 0), (0, 3), (5, 3)] {
                let held: Vec<_> = (0..count)
                    .map(|i| if i % step == 0 { (i, dialer, listener) } else { (i, 4, 4) })
                    .collect();
                for name in [author, crowded_author] {
                    let (mut dialer, mut listener) = pair(name, &held);
                    check(&mut dialer, &mut listener);
                }
            }
        }
    }
}

#[test]
fn equal_frontiers_are_found_equal_by_one_frame() {
    let held: Vec<_> = (0..10_000).map(|i| (i, 3, 3)).collect();
    let (mut dialer, mut listener) = pair(author, &held);
    let cost = check(&mut dialer, &mut listener);
    assert_eq!((cost.bytes, cost.frames), ([6, 0], 1));
}

#[test]
fn the_cost_grows_with_the_difference_and_not_with_the_frontier() {
    for (authors, bytes_max) in [(1_000, 4_500), (10_000, 6_500), (100_000, 8_500)] {
        let differs = |i| i % (authors / 10) == 0;
        let seqs = |i: u64| match i % 2 {
            _ if !differs(i) => (3, 3),
            0 => (4, 3),
            _ => (3, 4),
        };
        let held: Vec<_> = (0..authors).map(|i| (i, seqs(i).0, seqs(i).1)).collect();
        let (mut dialer, mut listener) = pair(author, &held);
        let cost = check(&mut dialer, &mut listener);
        let bytes: usize = cost.bytes.iter().sum();
        assert!(bytes < bytes_max, "{authors} authors: {bytes} bytes");
        assert!(cost.half_trips <= 8, "{authors} authors: {} half round trips", cost.half_trips);
    }
}

#[test]
fn pages_that_do_not_fit_one_frame_follow_one_another() {
    let held: Vec<_> = (0..3_000).map(|i| (i, i % 2, (i + 1) % 2)).collect();
    let (mut dialer, mut listener) = pair(author, &held);
    for end in [&mut dialer, &mut listener] {
        end.comparison.set_frame_max(4096);
    }
    check(&mut dialer, &mut listener);
    // One long leaf: every item of it goes, in pages of one frame.
    let held: Vec<_> = (0..32).map(|i| (i, 0, 1)).collect();
    let (mut dialer, mut listener) = pair(author, &held);
    let many: Vec<u64> = (1..=60).collect();
    for i in 0..32 {
        listener.frontier.insert(author(i), feed(author(i), &many));
    }
    listener.comparison.set_frame_max(4096);
    let cost = check(&mut dialer, &mut listener);
    assert!(cost.half_trips > 32, "{cost:?}");
}

#[test]
fn a_feed_that_changes_while_it_is_compared_costs_no_session() {
    let held: Vec<_> = (0..200).map(|i| (i, 3, if i % 50 == 0 { 4 } else { 3 })).collect();
    let (mut dialer, mut listener) = pair(author, &held);
    listener.comparison.told();
    let top = Held { frontier: &listener.frontier, skip: &listener.skip }.top();
    let held = Held { frontier: &dialer.frontier, skip: &dialer.skip };
    let mut on_way = VecDeque::from([(true, dialer.comparison.answer_top(top, held))]);
    for i in 0.. {
        let Some((from_dialer, message)) = on_way.pop_front() else { break };
        let (to, other) =
            if from_dialer { (&mut listener, &mut dialer) } else { (&mut dialer, &mut listener) };
        // Both grow, each time elsewhere.
        for (end, at) in [(&mut *to, i * 7), (other, i * 13)] {
            let at = author(at % 250);
            let seq = end.frontier.get(&at).map_or(1, |feed| feed.greatest().seq + 1);
            end.frontier.insert(at, feed(at, &[seq]));
        }
        let answers = to.hear(message).expect("every frame answers something");
        on_way.extend(answers.into_iter().map(|answer| (!from_dialer, answer)));
    }
    assert!(dialer.comparison.has_ended() && listener.comparison.has_ended());
}

/// A frame of every type, under some prefixes.
fn strays() -> Vec<Message> {
    let deep = Prefix::EMPTY.child(3).child(9);
    let items = |prefix| Items { prefix, items: vec![], lacked: vec![], more: false };
    let mut strays = vec![Message::Root([1; 16])];
    for prefix in [Prefix::EMPTY, Prefix::EMPTY.child(3), deep] {
        strays.push(Message::Tree(prefix, [[1; 8]; 16]));
        strays.push(Message::Leaf(prefix, vec![[1; 8]]));
        strays.push(Message::Items(items(prefix)));
        strays.push(Message::Done(prefix));
    }
    strays
}

#[test]
fn a_frame_that_answers_nothing_is_refused() {
    for stray in strays() {
        let held: Vec<_> = (0..100).map(|i| (i, 3, 3)).collect();
        let (mut dialer, mut listener) = pair(author, &held);
        check(&mut dialer, &mut listener);
        assert_eq!(dialer.hear(stray.clone()), Err(Stray), "the dialer took {stray:?}");
        // The listener always takes a root: the dialer may begin anew.
        if !matches!(stray, Message::Root(_)) {
            assert_eq!(listener.hear(stray.clone()), Err(Stray), "the listener took {stray:?}");
        }
    }
}

#[test]
fn an_answer_is_taken_once() {
    let held: Vec<_> = (0..100).map(|i| (i, 3, 3)).collect();
    let (mut dialer, mut listener) = pair(author, &held);
    let held = Held { frontier: &dialer.frontier, skip: &dialer.skip };
    assert!(matches!(dialer.comparison.answer_top([1; 16], held), Message::Tree(..)));
    let leaf = Message::Leaf(Prefix::EMPTY.child(3), vec![[1; 8]]);
    assert!(dialer.hear(leaf.clone()).is_ok());
    assert_eq!(dialer.hear(leaf), Err(Stray));
    assert_eq!(dialer.hear(Message::Root([2; 16])), Err(Stray), "it has not asked");
    assert!(listener.hear(Message::Root([2; 16])).is_ok());
    assert_eq!(listener.hear(Message::Root([2; 16])), Err(Stray), "one at a time");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_two_frontiers_are_told_apart(
        held in proptest::collection::vec((0u64..400, 0u64..3, 0u64..3), 0..300),
        dialer_declines in proptest::collection::btree_set(0u64..400, 0..20),
        listener_declines in proptest::collection::btree_set(0u64..400, 0..20),
        both_know in any::<bool>(),
        crowded in any::<bool>(),
        frame_max in prop::sample::select(vec![4096usize, 1 << 20]),
    ) {
        let name = if crowded { crowded_author } else { author };
        let (mut dialer, mut listener) = pair(name, &held);
        dialer.declines = dialer_declines.into_iter().map(name).collect();
        listener.declines = listener_declines.into_iter().map(name).collect();
        let all: BTreeSet<_> = dialer.declines.union(&listener.declines).copied().collect();
        for end in [&mut dialer, &mut listener] {
            end.skip = if both_know { all.clone() } else { end.declines.clone() };
            end.comparison.set_frame_max(frame_max);
        }
        check(&mut dialer, &mut listener);
        if both_know {
            for end in [&dialer, &listener] {
                prop_assert!(end.told.keys().all(|author| !all.contains(author)));
            }
        }
    }
}
