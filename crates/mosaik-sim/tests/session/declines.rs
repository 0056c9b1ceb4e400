use mosaik_core::{
    feed::Tip,
    id::{AuthorId, EventId},
    trie::Prefix,
};
use mosaik_proto::{
    carrier::{Input, SessionId},
    message::{Message, Reason, Want},
    replica::Config,
};
use mosaik_sim::disk::MemoryLedger;

use super::wire::{Author, EPOCH_MS, Node, Pair, Talk, config};

/// A node that takes 9 authors.
fn small(n: u8) -> Node {
    let config = Config { authors_max: 10, ..config(n) };
    Node::open(config, MemoryLedger::default(), EPOCH_MS)
}

/// Met by reading: authors over the quota were asked for and sent at each comparison.
#[test]
fn authors_over_the_quota_are_declined_once_and_known_ones_go_on() {
    let mut large = Node::new(2);
    large.take((0..20).map(|i| Author::of(i, 1).all()));
    let mut pair = Pair::connected(small(1), large);
    pair.pass(1_000);
    assert_eq!(pair.nodes[0].replica.frontier().len(), 9);
    assert_eq!(pair.nodes[0].replica.declines().len(), 11);
    assert!(pair.nodes[0].replica.synced_since_ms().is_some());
    let known = pair.nodes[0].replica.frontier().under(&Prefix::EMPTY, &Default::default());
    let known = known[0].0;
    pair.sent.clear();
    let author = (0..20).map(|i| Author::of(i, 2)).find(|author| author.id() == known);
    let author = author.expect("one of the twenty");
    pair.nodes[1].take([author.run(2, 2)]);
    pair.settle();
    pair.pass(200_000);
    assert!(pair.nodes[0].holds(&author));
    let bytes: usize = pair.bytes(true).iter().sum();
    assert!(bytes < 1_500, "{bytes} bytes: what is declined is left out of comparisons");
}

#[test]
fn an_author_of_65_tips_is_declined_and_what_is_held_stays() {
    let trunk = Author::of(1, 5);
    let mut node = Node::new(1);
    node.take((0..65).map(|mark| trunk.branch(5, 1, mark).all()));
    let tips = node.replica.frontier().get(&trunk.id()).map(|feed| feed.tips().len());
    assert_eq!(tips, Some(64));
    assert_eq!(node.replica.declines().get(&trunk.id()), Some(&Reason::Crowded));
    // Also after a restart.
    let mut talk = Talk::open(node.restart());
    let own = trunk.branch(5, 1, 200);
    let answer = talk.say(Message::Have(own.id(), own.tip()));
    assert_eq!(answer, [Message::Decline(own.id(), Reason::Crowded)]);
    assert_eq!(talk.say(Message::Run(own.all())), [], "said once");
    let want = Want { author: own.id(), tip: None, locator: vec![Tip::ROOT], credit: 1 << 20 };
    assert_eq!(talk.say(Message::Want(want)), []);
    assert_eq!(talk.end, None, "and never a violation");
}

#[test]
fn nodes_that_decline_an_author_agree_on_all_others() {
    let crowd = Author::of(1, 5);
    let mut nodes = [Node::new(1), Node::new(2)];
    nodes[0].take((0..65).map(|mark| crowd.branch(5, 1, mark).all()));
    nodes[1].take((0..60).map(|mark| crowd.branch(5, 1, 100 + mark).all()));
    nodes[1].take([Author::of(2, 1).all()]);
    let [a, b] = nodes;
    let mut pair = Pair::connected(a, b);
    pair.pass(1_000);
    assert!(pair.nodes[0].holds(&Author::of(2, 1)));
    for node in &pair.nodes {
        assert!(node.replica.synced_since_ms().is_some());
    }
    // The next comparison finds both equal, and so does the next session.
    for _ in 0..2 {
        pair.sent.clear();
        pair.pass(100_000);
        let bytes: usize = pair.bytes(true).iter().sum();
        assert!(bytes < 300, "{bytes} bytes");
        pair.connect(0);
        pair.settle();
        pair.pass(1_000);
    }
}

/// Met by a seed: what was declined after a `Hello` was remembered under the digest in it, which was
/// the same after a restart that forgot the decline.
#[test]
fn what_a_peer_declined_is_told_to_it_again_when_it_has_started_anew() {
    let mut large = Node::new(2);
    large.take((0..20).map(|i| Author::of(i, 1).all()));
    let mut pair = Pair::connected(small(1), large);
    pair.pass(1_000);
    assert_eq!(pair.nodes[0].replica.declines().len(), 11);
    let [declining, mut other] = pair.nodes;
    other.step(Input::Disconnected { session: SessionId(1), reason: "it is gone".into() });
    let mut pair = Pair::connected(declining.restart(), other);
    // The listener's own `Hello` goes before it has the dialer's: the next comparison shows all.
    pair.pass(100_000);
    assert_eq!(pair.nodes[0].replica.declines().len(), 11, "it has heard of them anew");
}

/// Met by seeds 3300 and 3962: a feed was asked for, declined, and then came from elsewhere. Who
/// declined it says so but once, so every comparison showed a difference and brought all items.
#[test]
fn what_a_peer_declines_when_asked_is_left_out_though_it_comes_from_elsewhere() {
    let (author, crowd) = (Author::of(1, 1), Author::of(2, 2));
    let mut node = Node::new(1);
    node.take([author.all()]);
    let mut talk = Talk::open(node);
    let top = talk.node.top();
    talk.say(Message::Have(crowd.id(), crowd.tip()));
    assert!(matches!(talk.pass(200)[..], [Message::Want(_)]));
    talk.say(Message::Decline(crowd.id(), Reason::Crowded));
    talk.node.take([crowd.all()]);
    assert_eq!(talk.heard(), [], "no head of what it declines");
    let answer = talk.say(Message::Root(top));
    assert_eq!(answer, [Message::Done(Prefix::EMPTY)], "equal but for that");
}

/// There is no end of authors who could be invented.
#[test]
fn a_decline_of_what_was_neither_told_nor_asked_for_is_not_kept() {
    let author = Author::of(1, 1);
    let mut talk = Talk::open(Node::new(1));
    talk.say(Message::Decline(author.id(), Reason::Crowded));
    talk.node.take([author.all()]);
    assert_eq!(talk.heard(), [Message::Have(author.id(), author.tip())]);
}

#[test]
fn a_peer_that_speaks_of_a_feed_that_it_had_declined_takes_it_again() {
    let author = Author::of(1, 1);
    let mut node = Node::new(1);
    node.take([author.all()]);
    let mut talk = Talk::open(node);
    talk.say(Message::Decline(author.id(), Reason::Blocked));
    let longer = Author::of(1, 2);
    talk.node.take([longer.run(2, 2)]);
    assert_eq!(talk.heard(), [], "no head of what it declines");
    let want = Want {
        author: author.id(),
        tip: Some(longer.tip()),
        locator: vec![author.tip()],
        credit: 1 << 20,
    };
    assert!(matches!(talk.say(Message::Want(want))[..], [Message::Run(_)]));
}

/// There is no end of authors who could be invented: of those that are told there is.
#[test]
fn a_full_node_answers_a_bounded_number_of_invented_authors() {
    let mut node = small(1);
    node.take((0..9).map(|i| Author::of(i, 1).all()));
    let mut talk = Talk::open(node);
    let mut declined = 0;
    for n in 0..66_000_u64 {
        let mut author = [9; 32];
        author[..8].copy_from_slice(&n.to_be_bytes());
        let tip = Tip { seq: 1, id: EventId(author) };
        declined += talk.say(Message::Have(AuthorId(author), tip)).len();
    }
    assert_eq!((declined, talk.end), (65_536, None));
    assert_eq!(talk.node.replica.declines().len(), 65_536);
}
