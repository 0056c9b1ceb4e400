//! One simulated node: what survives its crashes, and the loop that takes, commits and sends.

use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;
use mosaik_core::{
    event::Hasher,
    feed::Tip,
    id::{AuthorId, NodeId},
    key::Network as NetworkId,
};
use mosaik_proto::{
    carrier::{Addresses, Effect, Input, Now, Source},
    hint::Hint,
    message::Message,
    peers::SESSIONS_KEPT,
    replica::{Config, Replica},
};
use mosaik_store::StoreError;
use rand::RngExt;

use crate::{
    cluster::{Cluster, EPOCH_MS, INTERVAL_MS, JITTER_MS, Plant, Timed},
    storage::{Backup, Fault, Storage},
    trace::{In, Out},
};

/// Disk operations within which a disk that is about to fail does so: a commit takes some.
const FUSE_MAX: u64 = 60;
/// How much more often a step that appends meets its end: appends are few, and the moment in which
/// most is at stake.
const APPEND_ODDS: u32 = 50;

/// Whom one can trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nature {
    /// It follows the protocol, and is owed what the protocol promises.
    Honest,
    /// It says what it likes.
    Hostile(Temper),
    /// It is in another network.
    Foreign,
}

/// What somebody hostile does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Temper {
    /// Its frames are changed, and lies in good form come among them.
    Liar,
    /// It claims to hold much, and answers little.
    Silent,
    /// It floods all with branches of its own feeds.
    Flooder,
    /// Its frontier never ends.
    Endless,
    /// Its runs don't follow from what it has sent, or aren't their author's.
    Forger,
}

impl Temper {
    pub(crate) const ALL: [Self; 5] =
        [Self::Liar, Self::Silent, Self::Flooder, Self::Endless, Self::Forger];
}

/// One node: what survives a crash, and what doesn't.
pub(crate) struct Node {
    pub(crate) nature: Nature,
    /// Whether it has another's keys: who dials that id may meet either.
    is_copy: bool,
    pub(crate) storage: Storage,
    pub(crate) backup: Option<Backup>,
    /// Boxed: it is taken out and put back at each step.
    pub(crate) replica: Option<Box<Replica>>,
    /// Whom it declined when it went down: who heard of it still goes by that.
    pub(crate) declined: BTreeSet<AuthorId>,
    pub(crate) config: Config,
    pub(crate) hasher: Hasher,
    pub(crate) clock_offset_ms: i64,
    pub(crate) drift_ppm: i64,
    pub(crate) next_session: u64,
    pub(crate) next_token: u64,
    /// It does nothing before this.
    pub(crate) paused_until_ms: u64,
    /// The wake that is on its way, and the one that is wanted.
    wakes_at_ms: Option<u64>,
    wants_ms: u64,
    /// Its disk is about to fail, or the power to go.
    pub(crate) doom: Option<Doom>,
}

/// How a step may end a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doom {
    /// The power goes, in or after the commit.
    Power,
    /// The process is killed, in or after the commit.
    Kill,
    /// The commit fails, and the node begins anew.
    Commit,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("up", &self.replica.is_some()).finish_non_exhaustive()
    }
}

impl Cluster {
    pub(crate) fn add_node(&mut self, nature: Nature) {
        let index = self.nodes.len() as u8;
        let name = if nature == Nature::Foreign { "elsewhere" } else { "simulation" };
        let keys = NetworkId::Public(name.into()).keys();
        let drift_ppm = self.weather.drift_ppm;
        self.nodes.push(Node {
            nature,
            is_copy: false,
            storage: Storage::new(self.backing, keys.fingerprint),
            backup: None,
            replica: None,
            declined: BTreeSet::new(),
            hasher: Hasher::new(&keys.fingerprint),
            config: Config {
                keys,
                node_key: SigningKey::from_bytes(&[100 + index; 32]),
                author_key: SigningKey::from_bytes(&[200 + index; 32]),
                author_is_new: true,
                name: format!("n{index}"),
                software: "mosaik-sim".into(),
                sync_interval_ms: INTERVAL_MS,
                sync_jitter_ms: JITTER_MS,
                sessions_kept: SESSIONS_KEPT,
                authors_max: self.weather.authors_max,
                clock_floor_ms: EPOCH_MS / 2,
                seed: self.rng.random(),
            },
            clock_offset_ms: self.rng.random_range(-120_000..120_000),
            drift_ppm: self.rng.random_range(-drift_ppm..=drift_ppm),
            next_session: 0,
            next_token: 0,
            paused_until_ms: 0,
            wakes_at_ms: None,
            wants_ms: 0,
            doom: None,
        });
        let at_ms = self.rng.random_range(0..2_000);
        self.at(at_ms, Timed::Restart(self.nodes.len() - 1));
    }

    /// A node on a copy of another's storage, with its keys.
    pub(crate) fn add_copy(&mut self, original: usize) -> usize {
        let node = &self.nodes[original];
        let storage = Storage::of(&node.storage.backup(), node.config.keys.fingerprint);
        self.nodes.push(Node {
            nature: node.nature,
            is_copy: true,
            storage,
            backup: None,
            replica: None,
            declined: BTreeSet::new(),
            config: Config { seed: node.config.seed ^ 1, ..node.config.clone() },
            hasher: node.hasher.clone(),
            clock_offset_ms: node.clock_offset_ms + 7,
            drift_ppm: node.drift_ppm,
            next_session: 1 << 32,
            next_token: 0,
            paused_until_ms: 0,
            wakes_at_ms: None,
            wants_ms: 0,
            doom: None,
        });
        self.nodes.len() - 1
    }

    pub(crate) fn now(&self, node: usize) -> Now {
        let Node { clock_offset_ms, drift_ppm, .. } = self.nodes[node];
        let apart_ms = self.now_ms as i64 * drift_ppm / 1_000_000;
        let wall_ms = (EPOCH_MS + self.now_ms).saturating_add_signed(clock_offset_ms + apart_ms);
        Now { mono_ms: self.now_ms, wall_ms }
    }

    pub(crate) fn id(&self, node: usize) -> NodeId {
        NodeId(self.nodes[node].config.node_key.verifying_key().to_bytes())
    }

    pub(crate) fn author(&self, node: usize) -> AuthorId {
        AuthorId(self.nodes[node].config.author_key.verifying_key().to_bytes())
    }

    fn addresses(&self, node: usize) -> Addresses {
        Addresses { direct: vec![([127, 0, 0, 1], 1000 + node as u16).into()], relays: vec![] }
    }

    pub(crate) fn start(&mut self, index: usize) {
        let now = self.now(index);
        let node = &mut self.nodes[index];
        if node.replica.is_some() {
            return;
        }
        let config = node.config.clone();
        let opened = node.storage.write(None, |book| Replica::open(config, now, book));
        node.replica = Some(Box::new(opened.expect("a storage that works")));
        node.config.author_is_new = false;
        // Everybody knows an honest one, so that these form a ring, and somebody else.
        let count = self.nodes.len();
        let id = self.id(index);
        let is_next = |other: &usize| {
            let node = &self.nodes[*other];
            node.nature == Nature::Honest && !node.is_copy && self.id(*other) != id
        };
        let next = (1..count).map(|step| (index + step) % count).find(is_next);
        for other in next.into_iter().chain([self.rng.random_range(0..count)]) {
            if self.id(other) != id {
                let peer = self.id(other);
                let addresses = self.addresses(other);
                self.step(index, Some(Input::Found { peer, addresses, source: Source::Slot }));
            }
        }
        let own = self.addresses(index);
        self.step(index, Some(Input::OwnAddresses(own)));
    }

    /// Its own timeout, if it is due.
    pub(crate) fn wake(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.wakes_at_ms = None;
        if node.wants_ms <= self.now_ms {
            self.step(index, None);
        } else if node.replica.is_some() {
            let wants_ms = node.wants_ms;
            self.wake_at(index, wants_ms);
        }
    }

    fn wake_at(&mut self, index: usize, at_ms: u64) {
        let node = &mut self.nodes[index];
        node.wants_ms = at_ms;
        if node.wakes_at_ms.is_none_or(|ms| at_ms < ms) {
            node.wakes_at_ms = Some(at_ms);
            self.at(at_ms, Timed::Wake(index));
        }
    }

    /// Takes, commits, sends: what the owner loop of a node does.
    pub(crate) fn step(&mut self, index: usize, input: Option<Input>) {
        let now = self.now(index);
        let Some(mut replica) = self.nodes[index].replica.take() else { return };
        self.tally.steps += 1;
        if let (Some(tell), Some(input)) = (self.tell, &input) {
            tell(format!("{:>7} n{index} {}", self.now_ms, In(input)));
        }
        let ends = self.draw_end(index, input.as_ref());
        let lie = self.base_lie(index, &replica, input.as_ref());
        let mut effects = Vec::new();
        let written = self.nodes[index].storage.write(lie, |book| {
            replica.handle_timeout(now, book, &mut effects)?;
            if let Some(input) = input {
                replica.handle(now, input, book, &mut effects)?;
            }
            replica.end_batch(now, book, &mut effects)?;
            if ends == Some(End::BeforeCommit) { Err(given_up()) } else { Ok(()) }
        });
        let next_ms = replica.next_timeout_ms().max(self.now_ms + 1);
        self.nodes[index].replica = Some(replica);
        self.check_bounds(index);
        match (written, ends) {
            (Ok(()), None) => {
                self.wake_at(index, next_ms);
                self.carry_all(index, effects);
                self.answer_calls(index);
            }
            (Ok(()), Some(_)) => {
                // Of what is durable some is still told.
                effects.truncate(self.rng.random_range(0..=effects.len()));
                self.carry_all(index, effects);
                self.crash(index);
            }
            (Err(error), _) => {
                let doom = self.nodes[index].doom;
                assert!(doom.is_some(), "a storage that works failed: {error:?}");
                if self.plant == Some(Plant::SendBeforeCommit) {
                    self.carry_all(index, effects);
                }
                self.crash(index);
            }
        }
    }

    fn carry_all(&mut self, index: usize, effects: Vec<Effect>) {
        for effect in effects {
            if let Some(tell) = self.tell {
                tell(format!("{:>7} n{index}   {}", self.now_ms, Out(&effect)));
            }
            self.check_effect(index, &effect);
            self.carry(index, effect);
        }
    }

    /// Draws whether this step is the node's last, and how it ends. On a disk the end comes at one of
    /// the next operations, so it may fall into any part of a commit.
    fn draw_end(&mut self, index: usize, input: Option<&Input>) -> Option<End> {
        let odds = if matches!(input, Some(Input::Append { .. })) { APPEND_ODDS } else { 1 };
        if self.rng.random_range(0..10_000) >= odds * self.weather.crash {
            return None;
        }
        let doom = [Doom::Power, Doom::Kill, Doom::Commit][self.rng.random_range(0..3)];
        let node = &mut self.nodes[index];
        node.doom = Some(doom);
        match (&node.storage, doom) {
            (Storage::Redb(_), Doom::Power | Doom::Commit) => {
                node.storage.fail_after(self.rng.random_range(0..FUSE_MAX));
                None
            }
            (_, Doom::Commit) => Some(End::BeforeCommit),
            _ if self.rng.random_bool(0.5) => Some(End::BeforeCommit),
            _ => Some(End::AfterCommit),
        }
    }

    /// With that bug planted: the base of the run that comes, where it isn't held.
    fn base_lie(&self, index: usize, replica: &Replica, input: Option<&Input>) -> Option<Tip> {
        if self.plant != Some(Plant::SkipBaseCheck) {
            return None;
        }
        let (Input::Frame { message: Message::Run(run), .. }
        | Input::Hint { hint: Hint::Run(run), .. }) = input?
        else {
            return None;
        };
        let (seq, id) = run.base();
        let is_held = self.nodes[index].storage.snapshot().find(&run.author(), Tip { seq, id });
        let knows = replica.frontier().get(&run.author()).is_some();
        (seq > 0 && knows && is_held.is_none()).then_some(Tip { seq, id })
    }
}

/// How a step ends a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    BeforeCommit,
    AfterCommit,
}

/// What ends a batch before its commit.
fn given_up() -> Fault {
    StoreError::Poisoned.into()
}
