//! A cluster of real replicas on simulated time: one thread, one heap of timed events, one seed.
//!
//! Each seed draws its own mix: how many nodes, how slow and how faulty. First chaos, then the
//! faults stop, then all must agree. Faults fall at any moment, also between a commit and the frames
//! that it lets go.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use mosaik_core::{
    event::{Draft, Hasher, Kind},
    feed::Tip,
    id::{AuthorId, NodeId},
    key::{Network as NetworkId, NetworkKeys},
    record::RecordEvent,
    value::Value,
};
use mosaik_proto::{
    carrier::{Addresses, Effect, Input, Now, Role, SessionId, Source},
    hint::Hint,
    message::Message,
    replica::{Config, Replica},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    disk::MemoryLedger,
    network::{End, Network},
    trace::{In, Out},
};

/// Unix ms at the start of every simulation.
const EPOCH_MS: u64 = 1_800_000_000_000;
/// Interval and jitter of comparisons, in milliseconds.
pub(crate) const INTERVAL_MS: u64 = 10_000;
const JITTER_MS: u64 = 5_000;
/// Appends of one seed at the most.
const APPENDS_MAX: u64 = 30;

/// What one seed does to its cluster.
#[derive(Debug, Clone)]
struct Weather {
    latency_ms: u64,
    /// In a thousand: how often a send cuts its connection at some byte.
    cut: u32,
    /// In a thousand: how often a commit fails or the node crashes in it.
    crash: u32,
    /// In a hundred: how often a hint is lost.
    hint_loss: u32,
    gossip: bool,
    chaos_ms: u64,
}

/// One node: what survives a crash, and what doesn't.
pub(crate) struct Node {
    pub(crate) ledger: MemoryLedger,
    pub(crate) replica: Option<Replica>,
    config: Config,
    clock_offset_ms: i64,
    next_session: u64,
    next_token: u64,
    wakes_at_ms: Option<u64>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("up", &self.replica.is_some()).finish_non_exhaustive()
    }
}

enum Timed {
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
    /// Somebody writes.
    Append(usize),
    /// Two groups of nodes can't reach each other, until the next such moment.
    Partition,
    /// A node's directory is copied, and the copy started.
    Clone,
}

/// See the module's head.
pub struct Cluster {
    pub(crate) now_ms: u64,
    pub(crate) nodes: Vec<Node>,
    /// Every append that was acknowledged.
    pub(crate) acknowledged: Vec<(AuthorId, Tip)>,
    /// Whether a node's directory was copied, so that branches are to be expected.
    pub(crate) has_clone: bool,
    rng: ChaCha8Rng,
    keys: NetworkKeys,
    hasher: Hasher,
    network: Network,
    weather: Weather,
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Timed>,
    next_event: u64,
    /// Which nodes are cut off from the others.
    island: BTreeSet<usize>,
    appended: u64,
    /// Where all that happens is told, if anywhere.
    pub(crate) tell: Option<fn(String)>,
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
    /// A cluster of 2 to 8 nodes, all drawn from `seed`.
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let weather = Weather {
            latency_ms: [1, 20, 300][rng.random_range(0..3)],
            cut: [0, 5, 60][rng.random_range(0..3)],
            crash: [0, 3, 30][rng.random_range(0..3)],
            hint_loss: [0, 20, 90][rng.random_range(0..3)],
            gossip: rng.random_bool(0.5),
            chaos_ms: rng.random_range(5_000..60_000),
        };
        let keys = NetworkId::Public("simulation".into()).keys();
        let mut cluster = Self {
            now_ms: 0,
            nodes: Vec::new(),
            acknowledged: Vec::new(),
            has_clone: false,
            hasher: Hasher::new(&keys.fingerprint),
            keys,
            network: Network::default(),
            weather,
            heap: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            island: BTreeSet::new(),
            appended: 0,
            tell: None,
            rng,
        };
        let count = cluster.rng.random_range(2..=8);
        for index in 0..count {
            cluster.add_node(index as u8);
        }
        let chaos_ms = cluster.weather.chaos_ms;
        for _ in 0..cluster.rng.random_range(1..=APPENDS_MAX) {
            let (node, at_ms) =
                (cluster.rng.random_range(0..count), cluster.rng.random_range(0..chaos_ms));
            cluster.at(at_ms, Timed::Append(node));
        }
        for _ in 0..cluster.rng.random_range(0..4) {
            let at_ms = cluster.rng.random_range(0..chaos_ms);
            cluster.at(at_ms, Timed::Partition);
        }
        if count >= 3 && cluster.rng.random_bool(0.2) {
            let at_ms = cluster.rng.random_range(chaos_ms / 2..chaos_ms);
            cluster.at(at_ms, Timed::Clone);
        }
        cluster
    }

    fn add_node(&mut self, index: u8) {
        let config = Config {
            keys: self.keys.clone(),
            node_key: ed25519(100 + index),
            author_key: ed25519(200 + index),
            author_is_new: true,
            name: format!("n{index}"),
            software: "mosaik-sim".into(),
            sync_interval_ms: INTERVAL_MS,
            sync_jitter_ms: JITTER_MS,
            authors_max: 1000,
            clock_floor_ms: EPOCH_MS / 2,
            seed: self.rng.random(),
        };
        self.nodes.push(Node {
            ledger: MemoryLedger::default(),
            replica: None,
            config,
            clock_offset_ms: self.rng.random_range(-120_000..120_000),
            next_session: 0,
            next_token: 0,
            wakes_at_ms: None,
        });
        let at_ms = self.rng.random_range(0..2_000);
        self.at(at_ms, Timed::Restart(usize::from(index)));
    }

    /// Runs the chaos, then lets all come back and gives them `rounds` intervals. Whether all agree.
    pub fn run(&mut self, rounds: u64) -> bool {
        self.run_until(self.weather.chaos_ms);
        self.heal();
        for _ in 0..rounds {
            self.run_until(self.now_ms + INTERVAL_MS + JITTER_MS);
            if self.agrees() {
                return true;
            }
        }
        false
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

    /// The faults stop; whoever is down comes up.
    fn heal(&mut self) {
        self.island.clear();
        self.weather = Weather { cut: 0, crash: 0, ..self.weather.clone() };
        for node in 0..self.nodes.len() {
            if self.nodes[node].replica.is_none() {
                self.at(self.now_ms, Timed::Restart(node));
            }
        }
    }

    fn at(&mut self, at_ms: u64, event: Timed) {
        self.heap.push(Reverse((at_ms, self.next_event)));
        self.events.insert(self.next_event, event);
        self.next_event += 1;
    }

    fn soon(&mut self, event: Timed) {
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
            Timed::Hint(node, from, bytes) => {
                if let Ok(hint) = Hint::decode(&bytes, &self.hasher, &self.keys.fingerprint) {
                    self.step(node, Some(Input::Hint { from, hint }));
                }
            }
            Timed::Append(node) => self.append(node),
            Timed::Partition => self.partition(),
            Timed::Clone => self.clone_node(),
        }
    }

    // Nodes

    fn now(&self, node: usize) -> Now {
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
        // Everybody knows the next one on a ring, and somebody else.
        let count = self.nodes.len();
        for other in [(index + 1) % count, self.rng.random_range(0..count)] {
            if other != index {
                let peer = self.id(other);
                let addresses = self.addresses(other);
                self.step(index, Some(Input::Found { peer, addresses, source: Source::Slot }));
            }
        }
        let own = self.addresses(index);
        self.step(index, Some(Input::OwnAddresses(own)));
    }

    fn id(&self, node: usize) -> NodeId {
        NodeId(self.nodes[node].config.node_key.verifying_key().to_bytes())
    }

    fn addresses(&self, node: usize) -> Addresses {
        Addresses { direct: vec![([127, 0, 0, 1], 1000 + node as u16).into()], relays: vec![] }
    }

    /// Takes, commits, sends: what the owner loop of a node does.
    fn step(&mut self, index: usize, input: Option<Input>) {
        let now = self.now(index);
        let crash = self.rng.random_range(0..10_000) < self.weather.crash;
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
        if crash {
            // Before the commit or right after it: in both cases nothing of the batch is sent.
            if self.rng.random_bool(0.5) {
                self.nodes[index].ledger.commit();
            }
            self.crash(index);
            return;
        }
        node.ledger.commit();
        let next_ms = replica.next_timeout_ms().max(self.now_ms + 1);
        node.wakes_at_ms = Some(next_ms);
        self.at(next_ms, Timed::Wake(index));
        for effect in effects {
            if let Some(tell) = self.tell {
                tell(format!("{:>7} n{index}   {}", self.now_ms, Out(&effect)));
            }
            self.carry(index, effect);
        }
    }

    fn crash(&mut self, index: usize) {
        self.nodes[index].ledger.crash();
        self.nodes[index].replica = None;
        for end in self.network.ends_of(index) {
            self.cut(end);
        }
        let at_ms = self.now_ms + self.rng.random_range(1..10_000);
        self.at(at_ms, Timed::Restart(index));
    }

    fn clone_node(&mut self) {
        let original = self.rng.random_range(0..self.nodes.len());
        let node = &self.nodes[original];
        let mut ledger = node.ledger.clone();
        ledger.crash();
        let copy = Node {
            ledger,
            replica: None,
            config: Config { seed: node.config.seed ^ 1, ..node.config.clone() },
            clock_offset_ms: node.clock_offset_ms + 7,
            next_session: 1 << 32,
            next_token: 0,
            wakes_at_ms: None,
        };
        self.has_clone = true;
        self.nodes.push(copy);
        let index = self.nodes.len() - 1;
        self.at(self.now_ms + 1, Timed::Restart(index));
        for _ in 0..3 {
            let at_ms = self.now_ms + self.rng.random_range(1..5_000);
            let writer = if self.rng.random_bool(0.5) { index } else { original };
            self.at(at_ms, Timed::Append(writer));
        }
    }

    fn append(&mut self, index: usize) {
        let drafts = self.drafts();
        let node = &mut self.nodes[index];
        if node.replica.is_none() {
            return;
        }
        node.next_token += 1;
        let token = node.next_token;
        self.step(index, Some(Input::Append { token, drafts }));
    }

    fn drafts(&mut self) -> Vec<Draft> {
        self.appended += 1;
        let count = if self.rng.random_bool(0.1) {
            self.rng.random_range(1..400)
        } else {
            self.rng.random_range(1..4)
        };
        (0..count).map(|i| self.draft(i)).collect()
    }

    fn draft(&mut self, i: u64) -> Draft {
        let record = format!("r{}", self.rng.random_range(0..5));
        let event = match self.rng.random_range(0..5) {
            0 => RecordEvent::Create { record, form: "f".into() },
            1 => RecordEvent::Note { record, text: format!("note {} {i}", self.appended) },
            2 => RecordEvent::Archive { record, archived: self.rng.random_bool(0.5) },
            3 => {
                let field = format!("x{}", self.rng.random_range(0..3));
                let value = Value::Int(self.appended as i64);
                RecordEvent::Set { record, field, value, over: Vec::new() }
            }
            _ => {
                let len = [0, 10, 3_000, 60_000][self.rng.random_range(0..4)];
                let kind = Kind::new("app.blob").expect("a kind");
                return Draft { kind, payload: vec![i as u8; len] };
            }
        };
        event.encode().expect("a small event")
    }

    // Wires

    fn carry(&mut self, index: usize, effect: Effect) {
        match effect {
            Effect::Send { session, frame } => self.send(End { node: index, session }, frame),
            Effect::Close { session, bye } => {
                let end = End { node: index, session };
                self.send(end, Message::Bye(bye).encode());
                self.close(end);
            }
            Effect::Dial { peer, .. } => self.soon(Timed::Dial(index, peer)),
            Effect::Gossip(hint) => self.gossip(index, &hint),
            Effect::Opened { peer, .. } if self.weather.gossip => {
                self.step(index, Some(Input::Neighbour { peer, up: true }));
            }
            Effect::Appended { author, events, .. } => {
                self.acknowledged.extend(events.into_iter().map(|tip| (author, tip)));
            }
            _ => {}
        }
    }

    fn dial(&mut self, from: usize, to: NodeId) {
        let up = |node: &usize| {
            *node != from
                && self.id(*node) == to
                && self.nodes[*node].replica.is_some()
                && self.island.contains(node) == self.island.contains(&from)
        };
        let found: Vec<usize> = (0..self.nodes.len()).filter(up).collect();
        if found.is_empty() || self.nodes[from].replica.is_none() {
            let reason = "no answer".into();
            self.step(from, Some(Input::DialFailed { peer: to, reason }));
            return;
        }
        let to = found[self.rng.random_range(0..found.len())];
        let (a, b) = (self.new_end(from), self.new_end(to));
        self.network.connect(a, b);
        let binding: Vec<u8> = (0..32).map(|_| self.rng.random()).collect();
        for (end, other, role) in [(a, to, Role::Dialer), (b, from, Role::Listener)] {
            let (peer, binding) = (self.id(other), binding.clone());
            let session = end.session;
            self.step(end.node, Some(Input::Connected { session, peer, role, binding }));
        }
    }

    fn new_end(&mut self, node: usize) -> End {
        self.nodes[node].next_session += 1;
        End { node, session: SessionId(self.nodes[node].next_session) }
    }

    fn send(&mut self, from: End, mut frame: Vec<u8>) {
        let Some(to) = self.network.other(from) else { return };
        self.soon(Timed::Sent(from, frame.len()));
        let is_cut = self.rng.random_range(0..1000) < self.weather.cut;
        if is_cut {
            frame.truncate(self.rng.random_range(0..frame.len()));
        }
        let half = frame.split_off(self.rng.random_range(0..=frame.len()));
        for bytes in [frame, half] {
            let earliest_ms = self.now_ms + self.rng.random_range(0..=self.weather.latency_ms * 2);
            let at_ms = self.network.arrival_ms(to, earliest_ms);
            self.at(at_ms, Timed::Bytes(to, bytes));
        }
        if is_cut {
            self.cut(from);
        }
    }

    fn receive(&mut self, end: End, bytes: &[u8]) {
        let session = end.session;
        match self.network.receive(end, bytes) {
            Ok(frames) => {
                for frame in frames {
                    let input = match Message::decode(&frame, &self.hasher) {
                        Ok(message) => Input::Frame { session, message },
                        Err(error) => Input::BadFrame { session, error },
                    };
                    self.step(end.node, Some(input));
                }
            }
            Err(error) => self.step(end.node, Some(Input::BadFrame { session, error })),
        }
    }

    /// Breaks a connection; what is under way still arrives, then both ends notice.
    fn cut(&mut self, end: End) {
        self.close(end);
    }

    fn close(&mut self, end: End) {
        let Some(ends) = self.network.close(end) else { return };
        for end in ends {
            let earliest_ms = self.now_ms + self.rng.random_range(0..=self.weather.latency_ms * 2);
            let at_ms = self.network.arrival_ms(end, earliest_ms);
            self.at(at_ms, Timed::Closed(end));
        }
    }

    fn gossip(&mut self, from: usize, hint: &Hint) {
        let bytes = hint.encode(self.rng.random());
        let id = self.id(from);
        for node in 0..self.nodes.len() {
            let reached = self.island.contains(&node) == self.island.contains(&from);
            if node != from && reached && self.rng.random_range(0..100) >= self.weather.hint_loss {
                self.soon(Timed::Hint(node, id, bytes.clone()));
            }
        }
    }

    fn partition(&mut self) {
        self.island = (0..self.nodes.len()).filter(|_| self.rng.random_bool(0.5)).collect();
        for (a, b) in self.network.connections() {
            if self.island.contains(&a.node) != self.island.contains(&b.node) {
                self.cut(a);
            }
        }
    }
}

fn ed25519(seed: u8) -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[seed; 32])
}
