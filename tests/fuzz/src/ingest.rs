//! Bytes as all that a peer sends in one session, into a replica that holds something.
//!
//! An input is a byte of choices (see [`Choice`]) and the bytes of the stream, frame after frame.

use std::{collections::BTreeSet, sync::LazyLock};

use mosaik_core::{
    event::Payload,
    feed::{Branch, Ledger, Tip},
    id::NodeId,
    limits::TIPS_MAX,
    run::{Run, verify_head},
    trie::Prefix,
    view,
};
use mosaik_proto::{
    carrier::{Effect, Input, Now, Role, SessionId},
    hint::Hint,
    message::{
        APP, Ask, Bye, ByeCode, FRAME_MAX, FrontierItem, Greet, Hello, Items, LackReason, Message,
        Payloads, Reason, Want, ZSTD, frame_len,
    },
    proof::membership_proof,
    replica::{Config, Replica},
};
use mosaik_sim::disk::MemoryLedger;
use rand::RngExt;

use super::{
    Chance, Seed, Target, bytes, message,
    world::{Author, HASHER, KEYS, NOW_MS, key},
};

/// See the module's head.
pub const TARGET: Target = Target { name: "ingest", seeds, mutate, check };

const SESSION: SessionId = SessionId(1);
const BINDING: [u8; 32] = [7; 32];
/// Keys of the node, of its feed, and of the peer.
const NODE: u8 = 250;
const OWN: u8 = 251;
const PEER: u8 = 252;
/// Feeds that the node takes: few, so that an input can bring too many.
const AUTHORS_MAX: usize = 80;
/// Feeds that a node which holds many begins with: more than one leaf of the trie.
const MANY: u8 = 50;
/// Bytes that the node may send for one that it gets. A `Want` of 70 bytes brings the largest feed
/// here, some 10,000; an answer that begets answers would pass any such bound.
const ANSWER_MAX: usize = 300;
/// What it may send unasked: greetings, heads, and one comparison.
const UNASKED_MAX: usize = 64 << 10;

/// What the first byte of an input chooses.
#[derive(Debug, Clone, Copy)]
struct Choice(u8);

impl Choice {
    /// Whether the node is the one that dialed.
    fn role(self) -> Role {
        if self.0 & 1 == 1 { Role::Dialer } else { Role::Listener }
    }

    /// Whether it holds more feeds than one leaf of the trie.
    fn holds_many(self) -> bool {
        self.0 & 2 != 0
    }

    /// Milliseconds that pass between two frames.
    fn pause_ms(self) -> u64 {
        [0, 250, 3_000, 30_000][usize::from(self.0 >> 2 & 3)]
    }

    /// Whether the peer reads what is sent to it.
    fn reads(self) -> bool {
        self.0 & 16 == 0
    }
}

/// A replica and all around it.
struct Node {
    replica: Replica,
    ledger: MemoryLedger,
    now: Now,
    effects: Vec<Effect>,
    is_closed: bool,
    sent: usize,
    reads: bool,
}

fn config() -> Config {
    Config {
        keys: KEYS.clone(),
        node_key: key(NODE),
        author_key: key(OWN),
        author_is_new: true,
        name: "node".to_owned(),
        software: "mosaik-node 0.1.0".to_owned(),
        sync_interval_ms: 60_000,
        sync_jitter_ms: 30_000,
        sessions_kept: mosaik_proto::peers::SESSIONS_KEPT,
        authors_max: AUTHORS_MAX,
        clock_floor_ms: NOW_MS - 1_000_000_000,
        seed: 1,
    }
}

/// What a node holds before anybody speaks to it: an author with branches, one whose payloads are
/// missing, one of whom there is more elsewhere; and with `many` all the others.
static HELD: LazyLock<[MemoryLedger; 2]> = LazyLock::new(|| [false, true].map(held));

fn held(many: bool) -> MemoryLedger {
    let mut node = Node::open(MemoryLedger::default(), Choice(0));
    let base = Author::new(1, 6);
    let mut runs = vec![base.all(), base.branch(3, 1).run(4, 4), base.branch(0, 2).all()];
    let absent = Author::new(2, 3).all();
    let mut absent = Run::decode(&absent.encode()).expect("own encoding");
    for entry in &mut absent.entries {
        let (len, hash) = (entry.payload.len() as u32, entry.payload.hash());
        entry.payload = Payload::Absent { len, hash };
    }
    runs.push(absent.verify(&HASHER).expect("payloads stand outside what is signed"));
    runs.push(Author::new(3, 4).run(1, 2));
    let others = if many { 4..MANY } else { 4..4 };
    runs.extend(others.map(|author| Author::new(author, 2).all()));
    for run in runs {
        node.step(Input::Hint { from: NodeId([0; 32]), hint: Hint::Run(run) });
    }
    node.ledger
}

impl Node {
    fn open(mut ledger: MemoryLedger, choice: Choice) -> Self {
        let now = Now { mono_ms: 0, wall_ms: NOW_MS };
        let replica = Replica::open(config(), now, &mut ledger).expect("memory never fails");
        let (effects, reads) = (Vec::new(), choice.reads());
        Self { replica, ledger, now, effects, is_closed: false, sent: 0, reads }
    }

    /// A batch of one input, as the owner loop of a node does it.
    fn step(&mut self, input: Input) {
        self.batch([input]);
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Send { session, frame, .. } => self.sends(session, &frame),
                Effect::Close { .. } => self.is_closed = true,
                _ => {}
            }
        }
    }

    fn batch(&mut self, inputs: impl IntoIterator<Item = Input>) {
        let Self { replica, ledger, now, effects, .. } = self;
        replica.handle_timeout(*now, ledger, effects).expect("memory never fails");
        for input in inputs {
            replica.handle(*now, input, ledger, effects).expect("memory never fails");
        }
        replica.end_batch(*now, ledger, effects).expect("memory never fails");
        ledger.commit();
    }

    /// What goes out is a frame that anybody would take.
    fn sends(&mut self, session: SessionId, frame: &[u8]) {
        assert!(!self.is_closed, "a frame after the end of its session");
        let header = frame.first_chunk().expect("a frame has a length");
        assert_eq!(frame_len(*header), Ok(frame.len() - 4));
        let message = Message::decode(&frame[4..], &HASHER);
        assert!(message.is_ok(), "a frame that nobody takes: {message:?}");
        self.sent += frame.len();
        if self.reads {
            self.batch([Input::Sent { session, bytes: frame.len() }]);
        }
    }

    /// Lets time pass, timeout by timeout.
    fn pass(&mut self, ms: u64) {
        let end_ms = self.now.mono_ms + ms;
        while self.now.mono_ms < end_ms {
            let next_ms = self.replica.next_timeout_ms().clamp(self.now.mono_ms + 1, end_ms);
            self.now.wall_ms += next_ms - self.now.mono_ms;
            self.now.mono_ms = next_ms;
            self.step(Input::Progress { session: SESSION });
        }
    }

    /// Whatever was sent to it: what it holds is signed and whole, and what it shows follows from it.
    fn is_sound(&mut self) {
        let branches = self.ledger.branches().expect("memory never fails");
        let (mut events, mut missing) = (0, 0);
        for branch in &branches {
            let (held, absent) = self.branch_is_signed(branch);
            events += held;
            missing += absent;
        }
        let counts = self.ledger.counts().expect("memory never fails");
        assert_eq!((counts.events, counts.missing), (events, missing), "the counts are wrong");
        let authors: BTreeSet<_> = branches.iter().map(|branch| branch.author).collect();
        assert_eq!(authors.len(), self.replica.frontier().len());
        assert_eq!(branches.len() - authors.len(), self.replica.extra_branches());
        assert!(branches.len() <= AUTHORS_MAX + TIPS_MAX, "{} branches", branches.len());
        for author in &authors {
            let feed = self.replica.frontier().get(author).expect("it is among the branches");
            let mut tips: Vec<Tip> =
                branches.iter().filter(|b| b.author == *author).map(|b| b.tip).collect();
            tips.sort_unstable();
            assert_eq!(feed.tips(), tips, "the frontier is not what is stored");
            assert!(tips.len() <= TIPS_MAX);
        }
        self.is_the_same_when_built_anew();
    }

    /// Every event follows from the one before and a signed one follows it. How many there are, and
    /// how many lack their payload.
    fn branch_is_signed(&self, branch: &Branch) -> (u64, u64) {
        let ledger = &self.ledger;
        let (first, last) = (branch.first_seq(), branch.tip.seq);
        let events = ledger.events(branch.id, first, last, usize::MAX).expect("memory never fails");
        let mut before = match branch.parent {
            Some((parent, seq)) => ledger.id_at(parent, seq).expect("memory never fails"),
            None => Some(Tip::ROOT.id),
        };
        for (seq, event) in (first..).zip(&events) {
            assert_eq!((event.author, event.seq), (branch.author, seq));
            assert_eq!(Some(event.prev), before, "a gap in what is stored");
            let (author, hlc, kind) = (&event.author, event.hlc, &event.kind);
            let id = HASHER.id(author, seq, &event.prev, hlc, kind, &event.payload);
            assert_eq!(id, event.id, "an event under another's name");
            before = Some(id);
            let signed = ledger.signed_from(branch.id, seq).expect("memory never fails");
            let (at, signature) = signed.expect("a signature covers each event");
            if at == seq {
                assert!(verify_head(&event.author, &event.id, &signature), "a forged event");
            }
        }
        assert_eq!(events.len() as u64, last + 1 - first);
        assert_eq!(before, Some(branch.tip.id));
        let absent = events.iter().filter(|event| event.payload.bytes().is_none()).count();
        (events.len() as u64, absent as u64)
    }

    /// A node that starts on what is stored, and folds all of it anew, shows the same.
    fn is_the_same_when_built_anew(&mut self) {
        let mut ledger = self.ledger.clone();
        view::reset(&mut ledger).expect("memory never fails");
        let (was, held_back) = (self.shown(), self.ledger.counts().expect("memory").held_back);
        let replica = Replica::open(config(), self.now, &mut ledger).expect("memory never fails");
        let top = replica.frontier().hash(&Prefix::EMPTY, &BTreeSet::new());
        assert_eq!(top, was.0, "another frontier after a restart");
        // Events are let go every few seconds: one may be due and not yet folded.
        if ledger.counts().expect("memory").held_back == held_back {
            let digest = view::digest(&ledger).expect("memory never fails");
            assert_eq!(digest, was.1, "another view when folded anew");
        }
    }

    fn shown(&self) -> ([u8; 16], [u8; 32]) {
        let top = self.replica.frontier().hash(&Prefix::EMPTY, &BTreeSet::new());
        (top, view::digest(&self.ledger).expect("memory never fails"))
    }
}

fn peer() -> NodeId {
    NodeId(key(PEER).verifying_key().to_bytes())
}

/// However a peer behaves, the node stays in order, its answers in measure, and its end is typed.
fn check(input: &[u8]) {
    let Some((mut node, taken)) = play(input) else { return };
    let most = UNASKED_MAX + ANSWER_MAX * taken;
    assert!(node.sent <= most, "{} bytes for {taken}", node.sent);
    node.step(Input::Disconnected { session: SESSION, reason: "over".to_owned() });
    assert!(node.replica.sessions().is_empty());
    node.is_sound();
}

/// Whether the node is still in session with the peer when all of an input was said.
pub fn is_taken(input: &[u8]) -> bool {
    play(input).is_some_and(|(node, _)| !node.is_closed)
}

/// The node after a session, and how many bytes of it were whole frames.
fn play(input: &[u8]) -> Option<(Node, usize)> {
    let (&choice, mut stream) = input.split_first()?;
    let choice = Choice(choice);
    let mut node = Node::open(HELD[usize::from(choice.holds_many())].clone(), choice);
    let (peer, role, binding) = (peer(), choice.role(), BINDING.to_vec());
    node.step(Input::Connected { session: SESSION, peer, role, binding, rtt_ms: None });
    let mut taken = 0;
    while !node.is_closed
        && let Some((header, rest)) = stream.split_first_chunk()
    {
        let decoded = match frame_len(*header) {
            Ok(len) if len > rest.len() => break,
            Ok(len) => {
                let (frame, rest) = rest.split_at(len);
                taken += 4 + len;
                stream = rest;
                Message::decode(frame, &HASHER)
            }
            Err(error) => Err(error),
        };
        let is_bad = decoded.is_err();
        node.step(match decoded {
            Ok(message) => Input::Frame { session: SESSION, message },
            Err(error) => Input::BadFrame { session: SESSION, error },
        });
        assert!(node.is_closed || !is_bad, "a bad frame doesn't end its session");
        node.pass(choice.pause_ms());
    }
    Some((node, taken))
}

/// The greeting that the node takes.
fn greeting() -> [Message; 2] {
    let node = NodeId(key(NODE).verifying_key().to_bytes());
    let proof = membership_proof(&KEYS.membership, &BINDING, peer().as_bytes(), node.as_bytes());
    let greet = Greet { app: APP.to_owned(), versions: (1, 1), proof };
    let hello = Hello {
        software: "fuzz".to_owned(),
        capabilities: ZSTD,
        frame_max: FRAME_MAX as u32,
        credit: 1 << 24,
        clock_ms: NOW_MS,
        name: "fuzz".to_owned(),
        boot: 1,
        top: [1; 16],
        authors: 3,
        events: 12,
        declines: [0; 16],
    };
    [Message::Greet(greet), Message::Hello(hello)]
}

/// Sessions of both roles, and of nodes that hold few feeds or many.
static SEEDS: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    let ends = [("listener", 0), ("dialer", 1), ("many-listener", 2), ("many-dialer", 3)];
    let mut seeds = Vec::new();
    for (end, choice) in ends {
        for (name, said) in talks() {
            seeds.push((format!("{end}-{name}"), session(choice, said)));
        }
    }
    for (name, said) in floods() {
        seeds.push((format!("flood-{name}"), session(0, said)));
    }
    seeds
});

fn seeds() -> Vec<Seed> {
    SEEDS.clone()
}

/// The bytes of a session that begins as it should.
fn session(choice: u8, said: Vec<Message>) -> Vec<u8> {
    let said = greeting().into_iter().chain(said).flat_map(|message| message.encode());
    std::iter::once(choice).chain(said).collect()
}

fn item(author: &Author) -> FrontierItem {
    FrontierItem { author: author.id(), tips: vec![author.tip()] }
}

fn items(mut items: Vec<FrontierItem>, more: bool) -> Message {
    items.sort_unstable_by_key(|item| item.author);
    Message::Items(Items { prefix: Prefix::EMPTY, items, lacked: Vec::new(), more })
}

fn want(author: &Author, tip: Option<Tip>, locator: Vec<Tip>) -> Message {
    Message::Want(Want { author: author.id(), tip, locator, credit: 1 << 20 })
}

/// What a peer may say once it has greeted.
fn talks() -> Vec<(&'static str, Vec<Message>)> {
    let done = || Message::Done(Prefix::EMPTY);
    let (base, absent, more) = (Author::new(1, 6), Author::new(2, 3), Author::new(3, 4));
    let stranger = Author::new(200, 3);
    let forked = base.branch(5, 9);
    let above = Tip { seq: 900, id: base.tip().id };
    let ask = Ask { author: absent.id(), tip: absent.tip() };
    let gives = absent.events.iter().map(|e| (e.id, e.payload.bytes().unwrap_or(&[]).to_vec()));
    let payloads = Payloads { ask: vec![ask], give: gives.collect(), lack: vec![base.tip().id] };
    let root = || Message::Root([9; 16]);
    vec![
        ("done", vec![done(), Message::Again(7), root(), done(), Message::Twin(5)]),
        ("items", vec![items(vec![item(&more), item(&stranger)], false), done(), root(), done()]),
        ("pages", vec![items(vec![item(&stranger)], true), items(vec![item(&more)], false)]),
        ("leaf", vec![Message::Leaf(Prefix::EMPTY, vec![[1; 8], [2; 8]]), done(), root()]),
        ("tree", vec![Message::Tree(Prefix::EMPTY, [[3; 8]; 16]), done(), done()]),
        ("runs", vec![done(), Message::Run(more.run(3, 4)), Message::Run(stranger.all())]),
        ("fork", vec![done(), Message::Run(forked.run(6, 6)), Message::Run(base.all())]),
        ("gap", vec![Message::Run(stranger.run(3, 3)), Message::Run(stranger.run(1, 2)), done()]),
        ("have", vec![done(), Message::Have(more.id(), more.tip()), Message::Run(more.all())]),
        ("filled", vec![done(), Message::Payloads(payloads), Message::Run(absent.all())]),
        ("want-all", vec![done(), want(&base, None, vec![Tip::ROOT])]),
        ("want-tip", vec![want(&base, Some(base.tip()), vec![Tip::from(&base.events[1])])]),
        (
            "want-lost",
            vec![done(), want(&base, Some(above), vec![above]), want(&stranger, None, vec![])],
        ),
        (
            "lack",
            vec![
                Message::Have(more.id(), more.tip()),
                Message::Lack(more.id(), Some(more.tip()), LackReason::SendLongLocator),
                Message::Lack(more.id(), Some(more.tip()), LackReason::Gone),
            ],
        ),
        (
            "decline",
            vec![Message::Decline(base.id(), Reason::Quota), done(), want(&base, None, vec![])],
        ),
        ("bye", vec![Message::Bye(Bye::new(ByeCode::Leaving, "so long"))]),
        ("skipped", vec![Message::Skipped(200), done()]),
    ]
}

/// More than the node takes: of branches, and of authors.
fn floods() -> Vec<(&'static str, Vec<Message>)> {
    let base = Author::new(1, 6);
    let branches = (10..80).map(|mark| Message::Run(base.branch(6, mark).run(7, 7)));
    let authors = (100..200).map(|n| Message::Run(Author::new(n, 1).all()));
    vec![("crowded", branches.collect()), ("quota", authors.collect())]
}

/// The frames of a stream, the last one whole or not.
fn frames(mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some((header, rest)) = stream.split_first_chunk() {
        let len = frame_len(*header).map_or(rest.len(), |len| len.min(rest.len()));
        frames.push(stream[..4 + len].to_vec());
        stream = &rest[len..];
    }
    frames
}

fn mutate(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let Some((&choice, stream)) = bytes.split_first().filter(|_| chance.random_range(0..20) > 0)
    else {
        return bytes::change(bytes, chance);
    };
    let choice = if chance.random_range(0..8) == 0 { chance.random() } else { choice };
    let mut frames = frames(stream);
    for _ in 0..chance.random_range(1..=4) {
        change(&mut frames, chance);
    }
    *bytes = std::iter::once(choice).chain(frames.concat()).collect();
}

/// One change, mostly behind the greeting: without it nothing is taken.
fn change(frames: &mut Vec<Vec<u8>>, chance: &mut Chance) {
    let first = if chance.random_range(0..30) == 0 { 0 } else { frames.len().min(2) };
    let at = chance.random_range(first..=frames.len());
    match chance.random_range(0..7) {
        0 if at < frames.len() => drop(frames.remove(at)),
        1 if at < frames.len() => frames.insert(at, frames[at].clone()),
        2 if at < frames.len() => {
            let other = chance.random_range(at..frames.len());
            frames.swap(at, other);
        }
        3 if at < frames.len() => {
            let mut body = frames[at].get(4..).unwrap_or_default().to_vec();
            bytes::change(&mut body, chance);
            frames[at] = [&(body.len() as u32).to_be_bytes()[..], &body].concat();
        }
        4 => {
            // What another session says.
            let other = self::frames(&SEEDS[chance.random_range(0..SEEDS.len())].1[1..]);
            frames.insert(at, other[chance.random_range(0..other.len())].clone());
        }
        _ => frames.insert(at, message::random(chance).encode()),
    }
}

#[cfg(test)]
mod tests {
    use mosaik_core::feed::Way;

    use super::*;

    /// What the target would say if something unverified came in.
    #[test]
    #[should_panic(expected = "a forged event")]
    fn an_event_that_its_author_did_not_sign_is_seen() {
        let mut node = Node::open(HELD[0].clone(), Choice(0));
        let author = Author::new(3, 4);
        let branches = node.ledger.branches().expect("memory never fails");
        let branch = branches.iter().find(|branch| branch.author == author.id());
        let branch = branch.expect("it is held up to its second event").id;
        let appended = node.ledger.append(branch, &author.events[2..], &[7; 64], Way::Session, 0);
        appended.expect("memory never fails");
        node.replica = Replica::open(config(), node.now, &mut node.ledger).expect("memory");
        node.is_sound();
    }
}
