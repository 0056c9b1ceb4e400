//! A cluster of real replicas on simulated time: one thread, one heap of timed events, one seed.
//!
//! Each seed draws its own mix: how many nodes, how slow and how faulty, and who is among them that
//! nobody can trust. First chaos, then the faults stop, then all must agree. Faults fall at any
//! moment, also between a commit and the frames that it lets go.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use ed25519_dalek::SigningKey;
use mosaik_core::{
    event::Hasher,
    feed::Tip,
    id::{AuthorId, NodeId},
    key::Network as NetworkId,
};
use mosaik_proto::{
    carrier::{Addresses, Input, Now, Source},
    hint::Hint,
    replica::{Config, Replica},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    call::Call,
    disk::MemoryLedger,
    network::{End, Network},
    trace::{In, Out},
};

/// Unix ms at the start of every simulation.
pub(crate) const EPOCH_MS: u64 = 1_800_000_000_000;
/// Interval and jitter of comparisons, in milliseconds.
pub(crate) const INTERVAL_MS: u64 = 10_000;
pub(crate) const JITTER_MS: u64 = 5_000;
/// Appends of one seed at the most.
const APPENDS_MAX: u64 = 30;

/// What one seed does to its cluster.
#[derive(Debug, Clone)]
pub(crate) struct Weather {
    pub(crate) latency_ms: u64,
    /// In a thousand: how often a send cuts its connection at some byte.
    pub(crate) cut: u32,
    /// In ten thousand: how often a commit fails or the node crashes in it.
    pub(crate) crash: u32,
    /// In a hundred: how often a hint is lost.
    pub(crate) hint_loss: u32,
    /// In a hundred: how often a run goes over gossip without its payloads.
    pub(crate) stripped: u32,
    pub(crate) gossip: bool,
    /// Whether clocks jump.
    pub(crate) jumps: bool,
    pub(crate) chaos_ms: u64,
}

/// Whom one can trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nature {
    /// It follows the protocol, and is owed what the protocol promises.
    Honest,
    /// It says what it likes: its frames are changed, others come among them.
    Hostile,
    /// It is in another network.
    Foreign,
}

/// A bug that is put in on purpose, to see that the checker finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// Effects are carried out before what they tell of is durable.
    SendBeforeCommit,
}

/// One node: what survives a crash, and what doesn't.
pub(crate) struct Node {
    pub(crate) nature: Nature,
    pub(crate) ledger: MemoryLedger,
    pub(crate) replica: Option<Replica>,
    pub(crate) config: Config,
    pub(crate) hasher: Hasher,
    pub(crate) clock_offset_ms: i64,
    pub(crate) next_session: u64,
    pub(crate) next_token: u64,
    wakes_at_ms: Option<u64>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("up", &self.replica.is_some()).finish_non_exhaustive()
    }
}

pub(crate) enum Timed {
    /// A node's own timeout.
    Wake(usize),
    /// A node comes up again.
    Restart(usize),
    /// Bytes reach one end of a connection.
    Bytes(End, Vec<u8>),
    /// The carrier at one end has sent that many bytes.
    Sent(End, usize),
    /// A connection is gone, as one end sees it.
    Closed(End),
    /// A dial arrives, or fails.
    Dial(usize, NodeId),
    /// A hint reaches a node.
    Hint(usize, NodeId, Vec<u8>),
    /// A node has a new gossip neighbour.
    Neighbour(usize, NodeId),
    /// Somebody writes.
    Append(usize),
    /// Two groups of nodes can't reach each other, until the next such moment.
    Partition,
    /// A node's directory is copied, and the copy started.
    Clone,
    /// Somebody waits to be synced.
    Call(usize),
    /// A node's clock jumps.
    Jump(usize),
    /// An author has more branches than anybody takes.
    Crowd,
}

/// See the module's head.
pub struct Cluster {
    pub(crate) now_ms: u64,
    pub(crate) nodes: Vec<Node>,
    /// Every append that was acknowledged.
    pub(crate) acknowledged: Vec<(AuthorId, Tip)>,
    /// Whether branches are to be expected: a node's directory was copied, or an author is crowded.
    pub(crate) may_branch: bool,
    pub(crate) weather: Weather,
    /// Where all that happens is told, if anywhere.
    pub(crate) tell: Option<fn(String)>,
    pub(crate) plant: Option<Plant>,
    pub(crate) network: Network,
    pub(crate) rng: ChaCha8Rng,
    /// Which nodes are cut off from the others.
    pub(crate) island: BTreeSet<usize>,
    pub(crate) appended: u64,
    /// Calls that wait.
    pub(crate) calls: Vec<Call>,
    /// The first that was answered too soon.
    pub(crate) broken_call: Option<String>,
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Timed>,
    next_event: u64,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("now_ms", &self.now_ms)
            .field("nodes", &self.nodes)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// A cluster of 2 to 8 honest nodes and at most one hostile and one foreign one, all drawn from
    /// `seed`.
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let weather = Weather {
            latency_ms: [1, 20, 300][rng.random_range(0..3)],
            cut: [0, 5, 60][rng.random_range(0..3)],
            crash: [0, 3, 30][rng.random_range(0..3)],
            hint_loss: [0, 20, 90][rng.random_range(0..3)],
            stripped: [0, 0, 0, 50][rng.random_range(0..4)],
            gossip: rng.random_bool(0.5),
            jumps: rng.random_bool(0.15),
            chaos_ms: rng.random_range(5_000..60_000),
        };
        let mut cluster = Self {
            now_ms: 0,
            nodes: Vec::new(),
            acknowledged: Vec::new(),
            may_branch: false,
            weather,
            tell: None,
            plant: None,
            network: Network::default(),
            rng,
            island: BTreeSet::new(),
            appended: 0,
            calls: Vec::new(),
            broken_call: None,
            heap: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
        };
        let honest = cluster.rng.random_range(2..=8);
        (0..honest).for_each(|_| cluster.add_node(Nature::Honest));
        for (nature, share) in [(Nature::Hostile, 0.2), (Nature::Foreign, 0.1)] {
            if cluster.rng.random_bool(share) {
                cluster.add_node(nature);
            }
        }
        cluster.plan(honest);
        cluster
    }

    fn add_node(&mut self, nature: Nature) {
        let index = self.nodes.len() as u8;
        let name = if nature == Nature::Foreign { "elsewhere" } else { "simulation" };
        let keys = NetworkId::Public(name.into()).keys();
        self.nodes.push(Node {
            nature,
            ledger: MemoryLedger::default(),
            replica: None,
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
                authors_max: 1000,
                clock_floor_ms: EPOCH_MS / 2,
                seed: self.rng.random(),
            },
            clock_offset_ms: self.rng.random_range(-120_000..120_000),
            next_session: 0,
            next_token: 0,
            wakes_at_ms: None,
        });
        let at_ms = self.rng.random_range(0..2_000);
        self.at(at_ms, Timed::Restart(self.nodes.len() - 1));
    }

    /// Draws when what happens, among the first `honest` nodes.
    fn plan(&mut self, honest: usize) {
        let chaos_ms = self.weather.chaos_ms;
        for _ in 0..self.rng.random_range(1..=APPENDS_MAX) {
            let (node, at_ms) =
                (self.rng.random_range(0..honest), self.rng.random_range(0..chaos_ms));
            self.at(at_ms, Timed::Append(node));
        }
        for _ in 0..self.rng.random_range(0..4) {
            let at_ms = self.rng.random_range(0..chaos_ms);
            self.at(at_ms, Timed::Partition);
        }
        for _ in 0..self.rng.random_range(0..6) {
            let (node, at_ms) =
                (self.rng.random_range(0..honest), self.rng.random_range(0..chaos_ms));
            self.at(at_ms, Timed::Call(node));
        }
        if honest >= 3 && self.rng.random_bool(0.2) {
            let at_ms = self.rng.random_range(chaos_ms / 2..chaos_ms);
            self.at(at_ms, Timed::Clone);
        }
        if self.weather.jumps {
            for _ in 0..self.rng.random_range(1..6) {
                let (node, at_ms) =
                    (self.rng.random_range(0..honest), self.rng.random_range(0..chaos_ms));
                self.at(at_ms, Timed::Jump(node));
            }
        }
        if self.rng.random_bool(0.05) {
            let at_ms = self.rng.random_range(0..chaos_ms);
            self.at(at_ms, Timed::Crowd);
        }
    }

    /// Puts a bug in.
    #[must_use]
    pub fn with(self, plant: Plant) -> Self {
        Self { plant: Some(plant), ..self }
    }

    /// Runs the chaos, then lets all come back and gives them `rounds` intervals. Whether all agree.
    pub fn run(&mut self, rounds: u64) -> bool {
        self.run_until(self.weather.chaos_ms);
        self.heal();
        for _ in 0..rounds {
            self.run_round();
            if self.agrees() {
                return true;
            }
        }
        false
    }

    /// One interval with its jitter: every session compares at least once.
    pub(crate) fn run_round(&mut self) {
        self.run_until(self.now_ms + INTERVAL_MS + JITTER_MS);
    }

    fn run_until(&mut self, end_ms: u64) {
        while let Some(Reverse((at_ms, number))) = self.heap.peek().copied() {
            if at_ms > end_ms {
                break;
            }
            self.heap.pop();
            self.now_ms = self.now_ms.max(at_ms);
            if let Some(event) = self.events.remove(&number) {
                self.happen(event);
            }
        }
        self.now_ms = end_ms;
    }

    pub(crate) fn at(&mut self, at_ms: u64, event: Timed) {
        self.heap.push(Reverse((at_ms, self.next_event)));
        self.events.insert(self.next_event, event);
        self.next_event += 1;
    }

    pub(crate) fn soon(&mut self, event: Timed) {
        let delay_ms = self.rng.random_range(0..=self.weather.latency_ms * 2);
        self.at(self.now_ms + delay_ms, event);
    }

    fn happen(&mut self, event: Timed) {
        match event {
            Timed::Wake(node) => {
                if self.nodes[node].wakes_at_ms.is_some_and(|ms| ms <= self.now_ms) {
                    self.step(node, None);
                }
            }
            Timed::Restart(node) => self.start(node),
            Timed::Bytes(end, bytes) => self.receive(end, &bytes),
            Timed::Sent(end, bytes) => {
                self.step(end.node, Some(Input::Sent { session: end.session, bytes }));
            }
            Timed::Closed(end) => {
                let reason = "the connection broke".into();
                self.step(end.node, Some(Input::Disconnected { session: end.session, reason }));
            }
            Timed::Dial(from, to) => self.dial(from, to),
            Timed::Hint(index, from, bytes) => {
                let node = &self.nodes[index];
                let fingerprint = &node.config.keys.fingerprint;
                if let Ok(hint) = Hint::decode(&bytes, &node.hasher, fingerprint) {
                    self.step(index, Some(Input::Hint { from, hint }));
                }
            }
            Timed::Neighbour(node, peer) => {
                self.step(node, Some(Input::Neighbour { peer, up: true }));
            }
            Timed::Append(node) => self.append(node),
            Timed::Partition => self.partition(),
            Timed::Clone => self.clone_node(),
            Timed::Call(node) => self.call(node),
            Timed::Jump(node) => self.jump(node),
            Timed::Crowd => self.crowd(),
        }
    }

    // Nodes

    pub(crate) fn now(&self, node: usize) -> Now {
        let wall_ms =
            (EPOCH_MS + self.now_ms).saturating_add_signed(self.nodes[node].clock_offset_ms);
        Now { mono_ms: self.now_ms, wall_ms }
    }

    fn start(&mut self, index: usize) {
        let now = self.now(index);
        let node = &mut self.nodes[index];
        if node.replica.is_some() {
            return;
        }
        let opened = Replica::open(node.config.clone(), now, &mut node.ledger);
        node.replica = Some(opened.expect("memory never fails"));
        node.ledger.commit();
        node.config.author_is_new = false;
        // Everybody knows an honest one, so that these form a ring, and somebody else.
        let count = self.nodes.len();
        let id = self.id(index);
        let is_next =
            |other: &usize| self.nodes[*other].nature == Nature::Honest && self.id(*other) != id;
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

    pub(crate) fn id(&self, node: usize) -> NodeId {
        NodeId(self.nodes[node].config.node_key.verifying_key().to_bytes())
    }

    fn addresses(&self, node: usize) -> Addresses {
        Addresses { direct: vec![([127, 0, 0, 1], 1000 + node as u16).into()], relays: vec![] }
    }

    /// Takes, commits, sends: what the owner loop of a node does.
    pub(crate) fn step(&mut self, index: usize, input: Option<Input>) {
        let now = self.now(index);
        // Appends are few, and the moment in which most is at stake.
        let odds = if matches!(input, Some(Input::Append { .. })) { 50 } else { 1 };
        let crashes = self.rng.random_range(0..10_000) < odds * self.weather.crash;
        let node = &mut self.nodes[index];
        let Some(replica) = &mut node.replica else { return };
        if let (Some(tell), Some(input)) = (self.tell, &input) {
            tell(format!("{:>7} n{index} {}", self.now_ms, In(input)));
        }
        let mut effects = Vec::new();
        let ledger = &mut node.ledger;
        replica.handle_timeout(now, ledger, &mut effects).expect("memory never fails");
        if let Some(input) = input {
            replica.handle(now, input, ledger, &mut effects).expect("memory never fails");
        }
        replica.end_batch(now, ledger, &mut effects).expect("memory never fails");
        let next_ms = replica.next_timeout_ms().max(self.now_ms + 1);
        if crashes {
            // Before the commit or right after it: in both cases nothing of the batch is sent.
            if self.rng.random_bool(0.5) {
                self.nodes[index].ledger.commit();
            }
            if self.plant == Some(Plant::SendBeforeCommit) {
                effects.into_iter().for_each(|effect| self.carry(index, effect));
            }
            self.crash(index);
            return;
        }
        node.ledger.commit();
        node.wakes_at_ms = Some(next_ms);
        self.at(next_ms, Timed::Wake(index));
        for effect in effects {
            if let Some(tell) = self.tell {
                tell(format!("{:>7} n{index}   {}", self.now_ms, Out(&effect)));
            }
            self.carry(index, effect);
        }
        self.answer_calls(index);
    }

    /// A node on a copy of another's storage, with its keys.
    pub(crate) fn add_copy(&mut self, original: usize) -> usize {
        let node = &self.nodes[original];
        self.nodes.push(Node {
            nature: node.nature,
            ledger: node.ledger.clone(),
            replica: None,
            config: Config { seed: node.config.seed ^ 1, ..node.config.clone() },
            hasher: node.hasher.clone(),
            clock_offset_ms: node.clock_offset_ms + 7,
            next_session: 1 << 32,
            next_token: 0,
            wakes_at_ms: None,
        });
        self.nodes.len() - 1
    }
}
