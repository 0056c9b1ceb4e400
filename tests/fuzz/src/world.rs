//! The network, the authors and the events that inputs are made of: the same in every run.

use std::sync::LazyLock;

use ed25519_dalek::SigningKey;
use mosaik_core::{
    event::{Event, Hasher, Kind, Payload},
    feed::Tip,
    hlc::Hlc,
    id::AuthorId,
    key::{Network, NetworkKeys},
    run::VerifiedRun,
};
use rand::RngExt;

use super::{Chance, bytes};

/// When everything happens, Unix ms: the stamp of most golden vectors.
pub(super) const NOW_MS: u64 = 1_790_000_000_000;

/// The network of the golden vectors, so that their signatures hold here.
pub(super) static KEYS: LazyLock<NetworkKeys> = LazyLock::new(|| {
    Network::parse("mosaik-node-test-vector-1").expect("a name that is in use").keys()
});

pub(super) static HASHER: LazyLock<Hasher> = LazyLock::new(|| Hasher::new(&KEYS.fingerprint));

/// The key of the author of this number.
pub(super) fn key(author: u8) -> SigningKey {
    SigningKey::from_bytes(&[author; 32])
}

/// An author and events of its own making.
#[derive(Clone)]
pub(super) struct Author {
    key: SigningKey,
    pub(super) events: Vec<Event>,
}

impl Author {
    /// An author that has written so many events.
    pub(super) fn new(number: u8, events: usize) -> Self {
        let mut author = Self { key: key(number), events: Vec::new() };
        for n in 0..events {
            author.write(NOW_MS + n as u64, "app.x", vec![number, n as u8]);
        }
        author
    }

    pub(super) fn id(&self) -> AuthorId {
        AuthorId(self.key.verifying_key().to_bytes())
    }

    pub(super) fn tip(&self) -> Tip {
        self.events.last().map_or(Tip::ROOT, Tip::from)
    }

    pub(super) fn write(&mut self, ms: u64, kind: &str, payload: Vec<u8>) {
        let (author, last) = (self.id(), self.tip());
        let (seq, hlc) = (last.seq + 1, Hlc::new(ms, 0));
        let kind = Kind::new(kind).expect("a kind");
        let payload = Payload::Present(payload);
        let id = HASHER.id(&author, seq, &last.id, hlc, &kind, &payload);
        self.events.push(Event { id, author, seq, prev: last.id, hlc, kind, payload });
    }

    /// The same author's other feed: equal up to `seq`, then one event that carries `mark`.
    pub(super) fn branch(&self, seq: usize, mark: u8) -> Self {
        let mut branch = self.clone();
        branch.events.truncate(seq);
        branch.write(NOW_MS, "app.branch", vec![mark]);
        branch
    }

    /// The events from this seq to that under one signature.
    pub(super) fn run(&self, from: usize, to: usize) -> VerifiedRun {
        VerifiedRun::sign(&self.key, self.events[from - 1..to].to_vec())
    }

    pub(super) fn all(&self) -> VerifiedRun {
        self.run(1, self.events.len())
    }
}

/// More authors than any target's node takes.
static AUTHORS: LazyLock<Vec<Author>> =
    LazyLock::new(|| (0..90).map(|number| Author::new(number, 7)).collect());

/// One of the authors that runs are of.
pub(super) fn author(chance: &mut Chance) -> &'static Author {
    &AUTHORS[chance.random_range(0..AUTHORS.len())]
}

/// A run in order: of the beginning of a feed, a branch, or with an odd stamp.
pub(super) fn run(chance: &mut Chance) -> VerifiedRun {
    let mut author = author(chance).clone();
    author.events.truncate(chance.random_range(1..=7));
    let mut from = chance.random_range(1..=author.events.len());
    match chance.random_range(0..4) {
        0 => author = author.branch(from - 1, chance.random()),
        1 => {
            let ms = [0, NOW_MS, NOW_MS + (1 << 32), (1 << 48) - 1][chance.random_range(0..4)];
            let kind = ["field.set", "record.create", "note.add", "z"][chance.random_range(0..4)];
            author.write(ms, kind, bytes::some(chance, 60));
        }
        _ => {}
    }
    from = from.min(author.events.len());
    let to = chance.random_range(from..=author.events.len());
    author.run(from, to)
}
