//! What a peer may say that nobody can trust: changed frames, lies in good form, floods, forged runs,
//! and nothing at all.

use std::{
    collections::BTreeMap,
    sync::{LazyLock, Mutex, PoisonError},
};

use ed25519_dalek::SigningKey;
use mosaik_core::{
    event::{Event, Hasher, Kind, Payload},
    feed::Tip,
    hlc::Hlc,
    id::{AuthorId, EventId},
    limits::TIPS_MAX,
    run::{Run, VerifiedRun},
    trie::Prefix,
};
use mosaik_proto::message::{
    Ask, FrontierItem, Items, LackReason, Message, Payloads, Reason, Want,
};
use rand::RngExt;

use crate::{
    cluster::{Cluster, EPOCH_MS},
    node::Temper,
};

/// Types of the frames that answer something: `Tree` to `Done`, `Run`, `Payloads`, `Lack`.
const ANSWERS: [u8; 7] = [4, 5, 6, 7, 9, 11, 13];
/// The author of whom a flood of branches comes, and the one of forged runs.
const FLOOD_KEY: [u8; 32] = [8; 32];
const FORGER_KEY: [u8; 32] = [9; 32];
/// Branches of one flood: more than anybody takes.
const FLOOD: u16 = TIPS_MAX as u16 + 40;
/// Authors of one page of an endless frontier.
const PAGE: usize = 30;

impl Cluster {
    /// What goes over the wire in the place of an honest frame.
    pub(crate) fn twist(&mut self, temper: Temper, frame: Vec<u8>) -> Vec<Vec<u8>> {
        // The greeting stays as it is: without it nobody listens.
        let kind = frame.get(4).copied().unwrap_or_default();
        if temper != Temper::Liar && kind < 3 {
            return vec![frame];
        }
        match temper {
            Temper::Liar => self.corrupt(frame),
            Temper::Silent if ANSWERS.contains(&kind) && self.rng.random_bool(0.8) => {
                let (author, tip) = self.known();
                vec![Message::Have(author, tip).encode()]
            }
            Temper::Silent => vec![frame],
            Temper::Flooder if self.rng.random_bool(0.5) => {
                let hasher = &self.nodes[0].hasher;
                let runs = (0..4).map(|_| self.rng.random_range(0..FLOOD));
                let runs = runs.collect::<Vec<_>>().into_iter();
                let mut frames: Vec<_> = runs
                    .map(|branch| Message::Run(branch_run(hasher, FLOOD_KEY, branch)).encode())
                    .collect();
                frames.push(frame);
                frames
            }
            Temper::Flooder => vec![frame],
            // Whatever ends a comparison goes on with one more page.
            Temper::Endless if kind == 6 || kind == 7 => vec![self.page(&frame)],
            Temper::Endless => vec![frame],
            Temper::Forger if self.rng.random_bool(0.3) => vec![self.forged(), frame],
            Temper::Forger => vec![frame],
        }
    }

    /// One more page of a frontier without end, in the place of `Items` or `Done`.
    fn page(&mut self, frame: &[u8]) -> Vec<u8> {
        let prefix = match Message::decode(&frame[4..], &self.nodes[0].hasher) {
            Ok(Message::Items(items)) => items.prefix,
            Ok(Message::Done(prefix)) => prefix,
            _ => return frame.to_vec(),
        };
        let mut items = Vec::new();
        for _ in 0..PAGE {
            let author = AuthorId(self.rng.random());
            let tip = Tip { seq: self.rng.random_range(1..1000), id: EventId(self.rng.random()) };
            if prefix.covers(author.as_bytes()) {
                items.push(FrontierItem { author, tips: vec![tip] });
            }
        }
        items.sort_unstable_by_key(|item| item.author);
        Message::Items(Items { prefix, items, lacked: vec![], more: true }).encode()
    }

    /// A run whose base was never sent, one that its author didn't sign, or one that is cut short.
    fn forged(&mut self) -> Vec<u8> {
        let hasher = self.nodes[0].hasher.clone();
        let (branch, from) = (self.rng.random_range(0..6), self.rng.random_range(0..4));
        let run = branch_run(&hasher, FORGER_KEY, branch);
        let events = &run.events()[from..];
        match self.rng.random_range(0..8) {
            0 => {
                let signature = std::array::from_fn(|_| self.rng.random());
                let run = Run::of(events, signature).encode();
                mosaik_proto::message::run_frame(&run, false)
            }
            1 => mosaik_proto::message::run_frame(&run.encode()[..run.encode().len() / 2], false),
            _ => {
                let run = Run::of(events, *run.signature()).encode();
                mosaik_proto::message::run_frame(&run, self.rng.random())
            }
        }
    }

    /// Something that exists if possible.
    fn known(&mut self) -> (AuthorId, Tip) {
        match self.acknowledged.len() {
            0 => (AuthorId([1; 32]), Tip { seq: 1, id: EventId([1; 32]) }),
            known => self.acknowledged[self.rng.random_range(0..known)],
        }
    }

    /// A frame in disorder, or a lie beside it.
    fn corrupt(&mut self, mut frame: Vec<u8>) -> Vec<Vec<u8>> {
        match self.rng.random_range(0..60) {
            0 => {
                let at = self.rng.random_range(0..frame.len());
                frame[at] ^= 1 << self.rng.random_range(0..8);
                vec![frame]
            }
            1 => {
                frame.truncate(self.rng.random_range(5..=frame.len()));
                vec![with_length(frame)]
            }
            2 => {
                let body: Vec<u8> =
                    (0..self.rng.random_range(1..100)).map(|_| self.rng.random()).collect();
                vec![with_length([vec![0; 4], body].concat()), frame]
            }
            3 => vec![frame.clone(), frame],
            4 => Vec::new(),
            5..15 => vec![self.lie().encode(), frame],
            _ => vec![frame],
        }
    }

    /// A message in good form that isn't true, of an author that exists if possible.
    fn lie(&mut self) -> Message {
        let (author, tip) = self.known();
        let above =
            Tip { seq: tip.seq + self.rng.random_range(1..1000), id: EventId(self.rng.random()) };
        let shown = if self.rng.random_bool(0.5) { tip } else { above };
        let prefix = if self.rng.random_bool(0.5) { Prefix::EMPTY } else { Prefix::EMPTY.child(3) };
        match self.rng.random_range(0..14) {
            0 | 1 => Message::Have(author, above),
            2 => Message::Have(AuthorId(self.rng.random()), above),
            3 => Message::Want(Want {
                author,
                tip: Some(shown),
                locator: vec![Tip::ROOT],
                credit: u64::MAX,
            }),
            4 => Message::Want(Want { author, tip: None, locator: vec![above], credit: 0 }),
            5 => Message::Lack(author, Some(shown), LackReason::SendLongLocator),
            6 => Message::Lack(author, Some(shown), LackReason::Gone),
            7 => Message::Payloads(Payloads {
                ask: vec![Ask { author, tip: shown }],
                give: vec![(shown.id, vec![1, 2, 3])],
                lack: vec![above.id],
            }),
            8 => Message::Decline(author, Reason::Quota),
            9 => Message::Items(Items {
                prefix: Prefix::EMPTY,
                items: vec![FrontierItem { author, tips: vec![shown] }],
                lacked: vec![],
                more: self.rng.random(),
            }),
            10 => Message::Done(prefix),
            11 => Message::Leaf(prefix, vec![self.rng.random()]),
            12 => Message::Tree(prefix, self.rng.random()),
            _ => Message::Twin(self.rng.random()),
        }
    }
}

/// Sets a frame's length field to what it is.
fn with_length(mut frame: Vec<u8>) -> Vec<u8> {
    let len = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&len.to_be_bytes());
    frame
}

/// The feeds of whoever is hostile: their authors may have branches.
pub(crate) fn hostile_authors() -> [AuthorId; 2] {
    *HOSTILE
}

static HOSTILE: LazyLock<[AuthorId; 2]> = LazyLock::new(|| {
    [FLOOD_KEY, FORGER_KEY]
        .map(|key| AuthorId(SigningKey::from_bytes(&key).verifying_key().to_bytes()))
});

/// Runs that were signed for some seed before: they are the same in all.
static BRANCHES: Mutex<BTreeMap<([u8; 32], u16), VerifiedRun>> = Mutex::new(BTreeMap::new());

/// Events of which the first is shared by all branches, and the others tell them apart.
pub(crate) fn branch_run(hasher: &Hasher, key: [u8; 32], branch: u16) -> VerifiedRun {
    let mut known = BRANCHES.lock().unwrap_or_else(PoisonError::into_inner);
    known.entry((key, branch)).or_insert_with(|| sign_branch(hasher, key, branch)).clone()
}

fn sign_branch(hasher: &Hasher, key: [u8; 32], branch: u16) -> VerifiedRun {
    let key = SigningKey::from_bytes(&key);
    let author = AuthorId(key.verifying_key().to_bytes());
    let kind = Kind::new("app.crowd").expect("a kind");
    let mut last = Tip::ROOT;
    let mut events = Vec::new();
    for (seq, mark) in [(1, 0), (2, branch), (3, branch), (4, branch)] {
        let payload = Payload::Present(mark.to_be_bytes().to_vec());
        let hlc = Hlc::new(EPOCH_MS + seq, 0);
        let id = hasher.id(&author, seq, &last.id, hlc, &kind, &payload);
        events.push(Event { id, author, seq, prev: last.id, hlc, kind: kind.clone(), payload });
        last = Tip { seq, id };
    }
    VerifiedRun::sign(&key, events)
}
