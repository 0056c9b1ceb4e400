use mosaik_core::{
    event::{Draft, Kind},
    feed::{Ledger, Tip},
    id::{AuthorId, EventId},
    run::VerifiedRun,
    view,
};
use mosaik_proto::carrier::{Effect, Input};
use mosaik_proto::message::{ByeCode, LackReason, Message, Payloads, Reason, Want};

use super::wire::{Author, Node, Pair, Talk, runs};

fn want(author: &Author, locator: Vec<Tip>, credit: u64) -> Message {
    Message::Want(Want { author: author.id(), tip: Some(author.tip()), locator, credit })
}

fn at(author: &Author, seq: u64) -> Tip {
    Tip::from(&author.events[seq as usize - 1])
}

fn holding(runs: impl IntoIterator<Item = VerifiedRun>) -> Talk {
    let mut node = Node::new(1);
    node.take(runs);
    Talk::open(node)
}

#[test]
fn a_want_is_served_from_what_its_locator_names() {
    let author = Author::of(1, 20);
    let mut talk = holding([author.run(1, 5), author.run(6, 20)]);
    let from = |locator, talk: &mut Talk| runs(&talk.say(want(&author, locator, 1 << 20)));
    assert_eq!(from(vec![Tip::ROOT], &mut talk), [(1, 20)]);
    assert_eq!(from(vec![at(&author, 7)], &mut talk), [(8, 20)]);
    assert_eq!(from(vec![at(&author, 20)], &mut talk), []);
}

#[test]
fn a_peer_holds_what_was_written_here_once_it_says_that_it_is_durable_there() {
    let mut pair = Pair::connected(Node::new(1), Node::new(2));
    pair.nodes[0].append(b"first");
    let replicas = |pair: &Pair, seq| pair.nodes[0].replica.replicas(seq);
    assert_eq!((pair.nodes[0].replica.own_seq(), replicas(&pair, 1)), (1, 0));
    pair.settle();
    assert_eq!(replicas(&pair, 1), 1);
    pair.nodes[0].append(b"second");
    assert_eq!((replicas(&pair, 1), replicas(&pair, 2)), (1, 0));
    pair.settle();
    assert_eq!(replicas(&pair, 2), 1);
}

/// The topmost hash leaves out what one of the two declines: that it is equal says nothing of that.
#[test]
fn a_peer_that_declines_the_own_feed_is_no_replica() {
    let mut talk = Talk::open(Node::new(1));
    talk.node.append(b"one");
    talk.heard();
    talk.say(Message::Decline(talk.node.replica.author(), Reason::Quota));
    let answer = talk.say(Message::Root([0; 16]));
    assert!(matches!(answer[..], [Message::Done(_)]), "{answer:?}");
    assert_eq!(talk.node.replica.replicas(1), 0);
}

/// It has it from elsewhere, and was never told by this session.
#[test]
fn a_peer_that_shows_the_own_feed_in_a_comparison_holds_it() {
    let mut first = Pair::connected(Node::new(1), Node::new(2));
    first.nodes[0].append(b"all");
    first.settle();
    let [a, b] = first.nodes;
    for dialer in [0, 1] {
        let ledgers = [a.ledger.clone(), b.ledger.clone()];
        let mut pair = Pair::new(Node::new(1), Node::new(2));
        for (node, ledger) in pair.nodes.iter_mut().zip(ledgers) {
            node.ledger = ledger;
        }
        let [a, b] = pair.nodes;
        let mut pair = Pair::new(a.restart(), b.restart());
        pair.connect(dialer);
        pair.settle();
        assert_eq!(pair.nodes[0].replica.replicas(1), 1, "dialed by {dialer}");
    }
}

/// A `Have` of a branch that the last own event isn't on says nothing of that event.
#[test]
fn another_branch_of_the_own_feed_is_no_replica() {
    let mut talk = Talk::open(Node::new(1));
    talk.node.append(b"one");
    talk.node.append(b"two");
    let own = talk.node.replica.author();
    talk.say(Message::Have(own, Tip { seq: 2, id: mosaik_core::id::EventId([9; 32]) }));
    assert_eq!(talk.node.replica.replicas(1), 0);
    let tips = talk.node.replica.frontier().get(&own).expect("its own feed").tips();
    talk.say(Message::Have(own, tips[0]));
    assert_eq!(talk.node.replica.replicas(2), 1);
}

#[test]
fn an_asker_on_another_branch_is_served_from_the_fork() {
    let trunk = Author::of(1, 10);
    let (ours, theirs) = (trunk.branch(6, 5, 1), trunk.branch(8, 5, 2));
    let mut talk = holding([ours.run(1, 11), theirs.run(1, 13)]);
    let answer = talk.say(want(&ours, vec![theirs.tip()], 1 << 20));
    assert_eq!(runs(&answer), [(7, 11)]);
    // Of its own branch the asker holds less than there is.
    let answer = talk.say(want(&ours, vec![at(&theirs, 7)], 1 << 20));
    assert_eq!(runs(&answer), [(7, 11)]);
}

/// The event before the fork has no signature of its own: the run that vouches for it goes first,
/// whole, though it leads to another branch.
#[test]
fn the_run_that_vouches_for_the_event_before_a_fork_goes_first() {
    let trunk = Author::of(1, 10);
    let other = trunk.branch(6, 5, 2);
    let mut talk = holding([trunk.run(1, 10), other.run(7, 11)]);
    let answer = talk.say(want(&other, vec![Tip::ROOT], 1 << 20));
    assert_eq!(runs(&answer), [(1, 10), (7, 11)]);
}

#[test]
fn branches_of_one_author_meet_from_both_sides() {
    let trunk = Author::of(1, 300);
    for fork in [0, 1, 100, 256, 299, 300] {
        for (ours, theirs) in [(5, 5), (1, 300), (0, 5)] {
            let (ours, theirs) = (trunk.branch(fork, ours, 1), trunk.branch(fork, theirs, 2));
            let mut nodes = [Node::new(1), Node::new(2)];
            for (node, author) in nodes.iter_mut().zip([&ours, &theirs]) {
                if author.tip() != Tip::ROOT {
                    node.take([author.all()]);
                }
            }
            let [a, b] = nodes;
            let mut pair = Pair::connected(a, b);
            pair.pass(1_000);
            assert!(pair.agree(), "fork at {fork}");
            for node in &pair.nodes {
                assert!(ours.tip() == Tip::ROOT || node.holds(&ours), "fork at {fork}");
                assert!(node.holds(&theirs), "fork at {fork}");
            }
        }
    }
}

#[test]
fn an_asker_that_names_nothing_known_is_sent_for_the_long_locator() {
    let trunk = Author::of(1, 100);
    let theirs = trunk.branch(50, 30, 2);
    let mut talk = holding([trunk.all()]);
    let answer = talk.say(want(&trunk, vec![theirs.tip()], 1 << 20));
    let lack = Message::Lack(trunk.id(), Some(trunk.tip()), LackReason::SendLongLocator);
    assert!(answer.contains(&lack), "{answer:?}");
    // Its tip isn't here, so it is asked for, too.
    assert!(answer.iter().any(|m| matches!(m, Message::Want(w) if w.tip == Some(theirs.tip()))));
    let locator = vec![at(&theirs, 64), at(&theirs, 48), Tip::ROOT];
    assert_eq!(runs(&talk.say(want(&trunk, locator, 1 << 20))), [(49, 100)]);
    let unknown = Author::of(2, 3);
    let answer = talk.say(want(&unknown, vec![Tip::ROOT], 1 << 20));
    assert_eq!(answer, [Message::Lack(unknown.id(), Some(unknown.tip()), LackReason::Gone)]);
}

#[test]
fn the_long_locator_steps_down_by_powers_of_two_and_goes_once() {
    let author = Author::of(1, 100);
    let mut talk = holding([author.all()]);
    let theirs = author.branch(10, 200, 2);
    talk.say(Message::Have(theirs.id(), theirs.tip()));
    let asked = talk.pass(200);
    let Some(Message::Want(short)) = asked.first() else { panic!("{asked:?}") };
    assert_eq!(short.locator, [author.tip()]);
    let lack = Message::Lack(theirs.id(), short.tip, LackReason::SendLongLocator);
    let answer = talk.say(lack.clone());
    let Some(Message::Want(long)) = answer.first() else { panic!("{answer:?}") };
    let seqs: Vec<u64> = long.locator.iter().map(|tip| tip.seq).collect();
    assert_eq!(seqs, [99, 98, 96, 92, 84, 68, 36, 0]);
    assert_eq!(talk.say(lack), [], "it lies: it is not asked a third time");
}

#[test]
fn credit_bounds_what_goes_but_for_the_first_run() {
    let mut author = Author::new(1);
    (0..20).for_each(|_| author.write(&[1; 60_000]));
    let runs_of_4 = (0..5).map(|i| author.run(i * 4 + 1, i * 4 + 4));
    let mut talk = holding(runs_of_4);
    assert_eq!(runs(&talk.say(want(&author, vec![Tip::ROOT], 0))), [(1, 4)]);
    assert_eq!(runs(&talk.say(want(&author, vec![Tip::ROOT], 100_000))), []);
    assert_eq!(runs(&talk.say(want(&author, vec![Tip::ROOT], 200_000))), [(5, 8)]);
    assert_eq!(runs(&talk.say(want(&author, vec![], u64::MAX))), [(9, 12), (13, 16), (17, 20)]);
}

/// Met by seeds 232, 325 and others: with half a run of credit left none was granted, and the next
/// run was longer.
#[test]
fn a_feed_of_large_runs_of_any_length_comes_whole() {
    for len in [1_000, 20_000, 40_000, 65_536] {
        let mut author = Author::new(1);
        (0..100).for_each(|i| author.write(&vec![i; len]));
        let mut node = Node::new(1);
        node.take((0..33).map(|i| author.run(i * 3 + 1, i * 3 + 3)));
        node.take([author.run(100, 100)]);
        let mut pair = Pair::connected(Node::new(2), node);
        pair.pass(1_000);
        assert!(pair.nodes[0].holds(&author), "payloads of {len} bytes");
        let runs = pair.sent.iter().filter(|sent| matches!(sent.message, Message::Run(_)));
        assert!(runs.count() <= 100 * len / 130_000 + 2, "runs are joined");
    }
}

/// Met by reading: a new run that overtook the older ones made its sender unbelieved.
#[test]
fn a_run_that_comes_before_older_ones_is_asked_for_when_they_are_here() {
    let author = Author::of(1, 10);
    let older = author.branch(9, 0, 0);
    let mut talk = Talk::open(Node::new(1));
    talk.say(Message::Have(older.id(), older.tip()));
    assert!(matches!(talk.pass(200)[..], [Message::Want(_)]));
    talk.say(Message::Run(author.run(10, 10)));
    let answer = talk.say(Message::Run(author.run(1, 9)));
    let asks_for_last = |m: &Message| matches!(m, Message::Want(w) if w.tip == Some(author.tip()));
    assert!(answer.iter().any(asks_for_last), "{answer:?}");
}

#[test]
fn a_head_is_asked_for_when_its_run_has_not_come_in_time() {
    let author = Author::of(1, 3);
    let mut talk = Talk::open(Node::new(1));
    assert_eq!(talk.say(Message::Have(author.id(), author.tip())), []);
    assert_eq!(talk.pass(199), []);
    assert!(matches!(talk.pass(1)[..], [Message::Want(_)]));
    let mut talk = Talk::open(Node::new(1));
    talk.say(Message::Have(author.id(), author.tip()));
    talk.say(Message::Run(author.all()));
    assert_eq!(talk.pass(1_000), []);
}

#[test]
fn own_events_go_unasked_until_64_kib_are_on_their_way() {
    let mut talk = Talk::open(Node::new(1));
    let mut sent = [0, 0];
    for _ in 0..100 {
        talk.node.append(&[5; 1_000]);
        for message in talk.heard() {
            match message {
                Message::Run(_) => sent[0] += 1,
                Message::Have(..) => sent[1] += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(sent[0] > 50 && sent[1] > 30 && sent[0] + sent[1] == 100, "{sent:?}");
    let author = Author::of(1, 1);
    talk.say(Message::Have(author.id(), author.tip()));
    talk.node.append(b"again");
    assert!(matches!(talk.heard()[..], [Message::Run(_)]));
}

#[test]
fn no_more_is_read_than_the_carrier_takes() {
    let mut author = Author::new(1);
    (0..200).for_each(|i| author.write(&[i; 60_000]));
    let mut node = Node::new(1);
    node.take((0..50).map(|i| author.run(i * 4 + 1, i * 4 + 4)));
    let mut talk = Talk::open(node);
    let runs = runs(&talk.say_unsent(want(&author, vec![Tip::ROOT], u64::MAX)));
    assert!(runs.len() < 8, "{} runs", runs.len());
}

#[test]
fn too_many_wants_end_the_session() {
    let author = Author::of(1, 6_000);
    let mut talk = holding((0..12).map(|i| author.run(i * 500 + 1, i * 500 + 500)));
    // One run goes whatever the credit, and up to the thousandth event it is all.
    for seq in 1_001..=5_200 {
        let tip = Some(at(&author, seq));
        let want = Want { author: author.id(), tip, locator: vec![Tip::ROOT], credit: 0 };
        talk.say_unsent(Message::Want(want));
    }
    assert_eq!(talk.end.map(|bye| bye.code), Some(ByeCode::Violation));
}

/// Met by reading: the view's digest stayed as it was until something else came.
#[test]
fn a_payload_that_comes_later_counts_in_the_view_at_once() {
    let mut author = Author::new(1);
    let draft = mosaik_core::record::RecordEvent::Note { record: "r".into(), text: "t".into() };
    let draft = draft.encode().expect("a small event");
    author.write_at(super::wire::EPOCH_MS, draft.kind.as_str(), &draft.payload);
    let mut whole = Node::new(2);
    whole.take([author.all()]);
    let mut stripped = Node::new(1);
    stripped.take([author.stripped()]);
    assert_eq!(stripped.ledger.counts().expect("memory never fails").missing, 1);
    let mut pair = Pair::connected(stripped, whole);
    pair.pass(1_000);
    assert!(
        pair.has_sent(
            1,
            |m| matches!(m, Message::Payloads(Payloads { give, .. }) if give.len() == 1)
        )
    );
    let digest = |node: &Node| view::digest(&node.ledger).expect("memory never fails");
    assert_eq!(digest(&pair.nodes[0]), digest(&pair.nodes[1]));
    assert_eq!(pair.nodes[0].ledger.counts().expect("memory never fails").missing, 0);
}

/// Met by seed 244: each branch took a round trip, and a locator of all the others.
#[test]
fn many_branches_come_for_one_want() {
    let trunk = Author::of(1, 5);
    let branches = |marks: std::ops::Range<u8>| {
        let trunk = trunk.clone();
        marks.map(move |mark| trunk.branch(5, 1, mark).all())
    };
    let mut nodes = [Node::new(1), Node::new(2)];
    nodes[0].take(branches(0..31));
    nodes[1].take(branches(30..60));
    let [a, b] = nodes;
    let mut pair = Pair::connected(a, b);
    pair.pass(1_000);
    assert!(pair.agree());
    let wants = pair.sent.iter().filter(|sent| matches!(sent.message, Message::Want(_)));
    assert_eq!(wants.count(), 2);
}

/// Met by reading: more credit was granted when all had been sent, and that was a new want.
#[test]
fn a_feed_that_fits_the_credit_comes_once() {
    let author = Author::of(1, 3_000);
    let mut node = Node::new(1);
    node.take((0..12).map(|i| author.run(i * 250 + 1, i * 250 + 250)));
    let mut pair = Pair::connected(Node::new(2), node);
    pair.pass(2_000);
    assert!(pair.nodes[0].holds(&author));
    assert_eq!(pair.nodes[0].replica.totals().runs_duplicate, 0);
    let wants = pair.sent.iter().filter(|sent| matches!(sent.message, Message::Want(_)));
    assert_eq!(wants.count(), 1);
}

/// An import writes faster than it is fetched: a head for each of its runs would be more than the 64 that
/// a node notes of one author, and the rest would wait for the next comparison.
#[test]
fn many_large_appends_in_a_row_all_come_without_another_comparison() {
    let mut pair = Pair::connected(Node::new(1), Node::new(2));
    pair.settle();
    let kind = Kind::new("app.bulk").expect("a kind");
    for batch in 0..20u8 {
        let draft = |i: u8| Draft { kind: kind.clone(), payload: vec![batch ^ i; 40_000] };
        let drafts = (0..25).map(draft).collect();
        pair.nodes[0].step(Input::Append { token: 1, drafts });
        // What is told of it goes out; no answer comes before the next is written.
        let heads =
            pair.nodes[0].effects.iter().filter(|effect| matches!(effect, Effect::Send { .. }));
        assert!(heads.count() <= 3 * (usize::from(batch) + 1), "a head for each run is told");
    }
    pair.settle();
    pair.pass(5_000);
    assert!(pair.agree(), "{:?}", pair.nodes[1].replica.awaited());
}

#[test]
fn of_more_heads_than_are_noted_of_one_author_the_last_is_asked_for() {
    let mut talk = Talk::open(Node::new(1));
    let author = AuthorId([7; 32]);
    let tip = |seq: u64| Tip { seq, id: EventId([seq as u8; 32]) };
    for seq in 1..=200 {
        talk.say(Message::Have(author, tip(seq)));
    }
    talk.pass(1_000);
    assert_eq!(talk.node.replica.awaited().tips, 64);
    assert!(
        talk.node.replica.lags().values().any(|lag| lag.behind == 200),
        "the last is forgotten"
    );
}
