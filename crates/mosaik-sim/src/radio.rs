//! Nodes that have nothing but a radio: the real replica, session and station on a simulated channel.
//!
//! What is real: what a node says and when, every byte of it, what its store holds, airtime by the
//! formula of the modem. What isn't: Reticulum's own cryptography and routing; its packets have the
//! lengths and steps of the reference.

pub mod cases;
mod channel;
mod files;
mod hostile;
pub mod hours;
mod internet;
mod stack;

use std::collections::BTreeMap;

use mosaik_core::{
    event::{Draft, Hasher, Kind},
    id::{AuthorId, BlobId},
    key::{Network, NetworkKeys},
    trie::Prefix,
};
use mosaik_proto::{
    carrier::{Effect, Input, Now, Role},
    message::Message,
    peers::SESSIONS_KEPT,
    replica::{Config, Progress, Replica},
};
use mosaik_reticulum::{
    airtime::{Ceiling, Channel, HOUR_MS},
    cast::Seal,
    stack::{Interface, Report},
    station::{Kinds, OwnState, Station, StationConfig, Turn},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use self::channel::Used;
use self::{
    channel::Air,
    files::Files,
    hostile::Hostile,
    internet::Internet,
    stack::{Packet, Stack},
};
use crate::{
    cluster::EPOCH_MS,
    storage::{Backing, Storage},
};

/// What an island is made of.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Nodes, 2 to 30.
    pub nodes: usize,
    /// How fast the one channel is.
    pub channel: Channel,
    /// Bits a second that the stations take it for.
    pub bitrate: u32,
    /// Packets that a receiver loses, in thousandths.
    pub loss: u32,
    /// Pairs that don't hear each other.
    pub deaf: Vec<(usize, usize)>,
    /// Nodes that have sessions with each other over the internet.
    pub online: Vec<usize>,
    /// Nodes that have no radio.
    pub mute: Vec<usize>,
    /// The share of an hour that each may send, in thousandths.
    pub share: u32,
    /// Whether somebody else is there who asks for all that costs others airtime.
    pub is_flooded: bool,
    /// Nodes that broadcast what is new, and take what is.
    pub broadcasting: Vec<usize>,
    /// Where chance begins.
    pub seed: u64,
}

impl Setup {
    /// Two nodes side by side that lose nothing and may always send.
    pub fn pair(channel: Channel, bitrate: u32, seed: u64) -> Self {
        let (loss, share, is_flooded) = (0, 1000, false);
        let (deaf, online, mute) = (Vec::new(), Vec::new(), Vec::new());
        let (nodes, broadcasting) = (2, Vec::new());
        Self {
            nodes,
            channel,
            bitrate,
            loss,
            deaf,
            online,
            mute,
            share,
            is_flooded,
            broadcasting,
            seed,
        }
    }

    /// So many nodes, of which all broadcast, or none does.
    pub fn with_nodes(self, nodes: usize, broadcasts: bool) -> Self {
        let broadcasting = if broadcasts { (0..nodes).collect() } else { Vec::new() };
        Self { nodes, broadcasting, ..self }
    }
}

struct Node {
    replica: Replica,
    storage: Storage,
    station: Station,
    stack: Stack,
    files: Files,
    /// It transmits until then.
    busy_until_ms: u64,
    /// It looks at the channel again then.
    looks_ms: u64,
    token: u64,
    /// When it has something to do; none where that is to be asked anew.
    next_ms: Option<u64>,
}

/// The network of all islands.
fn keys() -> NetworkKeys {
    Network::Public("island".into()).keys()
}

impl Node {
    /// One that has just started, and holds nothing.
    fn new(setup: &Setup, index: usize, now_ms: u64, rng: &mut ChaCha8Rng) -> Self {
        let keys = keys();
        let mut storage = Storage::new(Backing::Model, keys.fingerprint);
        let config = Config {
            keys: keys.clone(),
            node_key: ed25519_dalek::SigningKey::from_bytes(&[100 + index as u8; 32]),
            author_key: ed25519_dalek::SigningKey::from_bytes(&[200 + index as u8; 32]),
            author_is_new: now_ms == 0,
            name: format!("n{index}"),
            software: "mosaik-sim".into(),
            sync_interval_ms: 60_000,
            sync_jitter_ms: 30_000,
            sessions_kept: SESSIONS_KEPT,
            authors_max: 10_000,
            clock_floor_ms: EPOCH_MS / 2,
            seed: rng.random(),
        };
        let now = Now { mono_ms: now_ms, wall_ms: EPOCH_MS + now_ms };
        let opened = storage.write(None, |book| Replica::open(config, now, book));
        let station = StationConfig {
            own: stack::peer(index),
            tag: keys.radio,
            hasher: Hasher::new(&keys.fingerprint),
            share: setup.share,
            bitrate: Some(setup.bitrate),
            first: Kinds::default(),
            seal: setup.broadcasting.contains(&index).then(|| Seal::of(&keys)),
            seed: rng.random(),
        };
        // As a node has it: none where it may always send.
        let ceiling = (setup.share < 1000).then(|| Ceiling {
            channel: setup.channel,
            an_hour_ms: HOUR_MS / 1000 * u64::from(setup.share),
        });
        let packet_ms = setup.channel.packet_ms(500);
        Self {
            replica: opened.expect("a storage that works"),
            storage,
            station: Station::new(station),
            stack: Stack::new(index, packet_ms, ceiling, now_ms),
            files: Files::default(),
            busy_until_ms: now_ms,
            looks_ms: now_ms,
            token: 0,
            next_ms: None,
        }
    }
}

/// Counts the events of a frame that is said over radio.
fn note_said(said: &mut BTreeMap<AuthorId, u64>, frame: &[u8], hasher: &Hasher) {
    if let Ok(Message::Run(run)) = Message::decode(&frame[4..], hasher) {
        *said.entry(run.author()).or_default() += run.events().len() as u64;
    }
}

/// See the module's head.
pub struct Island {
    setup: Setup,
    nodes: Vec<Node>,
    /// Behind the nodes.
    hostile: Option<Hostile>,
    air: Air,
    /// What is on air: by its end and a number, who, since when, what.
    flying: BTreeMap<(u64, u64), (usize, u64, Packet)>,
    internet: Internet,
    /// How many events of each author were said over radio, by anybody.
    said: BTreeMap<AuthorId, u64>,
    hasher: Hasher,
    now_ms: u64,
    count: u64,
    rng: ChaCha8Rng,
}

impl std::fmt::Debug for Island {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Island").field("now_ms", &self.now_ms).finish_non_exhaustive()
    }
}

impl Island {
    /// Nodes that have just started and hold nothing.
    pub fn new(setup: &Setup) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(setup.seed);
        let nodes = (0..setup.nodes).map(|index| Node::new(setup, index, 0, &mut rng)).collect();
        let air = Air::new(setup.channel, setup.loss, setup.deaf.clone());
        let hostile = setup.is_flooded.then(|| Hostile::new(setup.nodes, &keys()));
        let mut island = Self {
            setup: setup.clone(),
            nodes,
            hostile,
            air,
            flying: BTreeMap::new(),
            internet: Internet::default(),
            said: BTreeMap::new(),
            hasher: Hasher::new(&keys().fingerprint),
            now_ms: 0,
            count: 0,
            rng,
        };
        for (a, b) in island.internet.join(&setup.online) {
            island.connect(a, b);
        }
        let with_radio = (0..setup.nodes).filter(|index| !setup.mute.contains(index));
        with_radio.for_each(|index| island.begin(index));
        island
    }

    /// A node's radio is there.
    fn begin(&mut self, node: usize) {
        let interface = Report::Interface {
            interface: Interface(0),
            name: "radio".into(),
            bitrate: Some(self.setup.bitrate),
            online: true,
        };
        self.report(node, vec![interface]);
    }

    /// A node stops at once, and starts with its keys and an empty disk.
    pub fn lose_disk(&mut self, node: usize) {
        self.nodes[node] = Node::new(&self.setup, node, self.now_ms, &mut self.rng);
        self.begin(node);
    }

    /// A node writes so many events of so many random bytes, each by itself as a person would.
    pub fn write(&mut self, node: usize, events: usize, len: usize) {
        for _ in 0..events {
            let payload = (0..len).map(|_| self.rng.random()).collect();
            let kind = Kind::new("reading").expect("a kind");
            let drafts = vec![Draft::new(kind, payload).expect("a short payload")];
            self.nodes[node].token += 1;
            let token = self.nodes[node].token;
            self.inputs(node, vec![Input::Append { token, drafts }]);
        }
    }

    /// A node has a file of so many bytes.
    pub fn add_file(&mut self, node: usize, blob: BlobId, size: u64) {
        self.nodes[node].files.whole.insert(blob, size);
    }

    /// Somebody at a node asks for a file of so many bytes over radio.
    ///
    /// # Panics
    ///
    /// If it is too long for that.
    pub fn ask_for_file(&mut self, node: usize, blob: BlobId, size: u64) {
        self.nodes[node].files.ask(blob, size);
        self.inputs(node, Vec::new());
    }

    /// Bytes of a file that are at a node, if all of it is or it was asked for.
    pub fn file_here(&self, node: usize, blob: &BlobId) -> Option<u64> {
        let files = &self.nodes[node].files;
        let asked = files.pieces.standing(blob).map(|asked| asked.here);
        files.whole.get(blob).copied().or(asked)
    }

    /// Runs until `is` holds; gives the time, in milliseconds of this island. None if that takes longer than
    /// `max_ms`.
    pub fn until(&mut self, max_ms: u64, is: impl Fn(&Self) -> bool) -> Option<u64> {
        let end_ms = self.now_ms + max_ms;
        while !is(self) {
            if !self.turn(end_ms) {
                return None;
            }
        }
        Some(self.now_ms)
    }

    /// How often an event of this node was said over radio, on average.
    pub fn said(&self, of: usize) -> f64 {
        let said = self.said.get(&self.author(of)).copied().unwrap_or(0);
        said as f64 / self.held(of, of) as f64
    }

    /// Runs until all nodes hold the same; gives the time, in milliseconds of this island. None if that
    /// takes longer than `max_ms`.
    pub fn converge(&mut self, max_ms: u64) -> Option<u64> {
        self.until(max_ms, Self::is_equal)
    }

    /// Runs for so long.
    pub fn run(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while self.turn(end_ms) {}
        self.now_ms = end_ms;
    }

    /// Whether all hold the same.
    pub fn is_equal(&self) -> bool {
        let top = |node: &Node| node.replica.frontier().hash(&Prefix::EMPTY, &Default::default());
        let first = top(&self.nodes[0]);
        self.nodes.iter().all(|node| top(node) == first)
    }

    /// How many events a node holds of another's feed.
    pub fn held(&self, node: usize, of: usize) -> u64 {
        let author = self.author(of);
        self.nodes[node].replica.frontier().get(&author).map_or(0, |feed| feed.greatest().seq)
    }

    /// How far a node is, and with how many peers it has sessions.
    pub fn progress(&self, node: usize) -> (Progress, usize) {
        let replica = &self.nodes[node].replica;
        (replica.progress(self.now()), replica.open_peers())
    }

    /// Events that a node heard by broadcast.
    pub fn overheard(&self, node: usize) -> u64 {
        let interfaces = self.nodes[node].station.interfaces(self.now_ms);
        interfaces.iter().map(|it| it.broadcasts_heard).sum()
    }

    /// How many branches of another's feed a node holds.
    pub fn branches(&self, node: usize, of: usize) -> usize {
        let author = self.author(of);
        self.nodes[node].replica.frontier().get(&author).map_or(0, |feed| feed.tips().len())
    }

    /// Two nodes meet over the internet, for good.
    fn connect(&mut self, a: usize, b: usize) {
        let ids = [a, b].map(|index| self.nodes[index].replica.node());
        let session = self.internet.session(a, b);
        for (index, peer, role) in [(a, ids[1], Role::Dialer), (b, ids[0], Role::Listener)] {
            let binding = vec![a as u8, b as u8];
            let rtt_ms = Some(50);
            self.inputs(index, vec![Input::Connected { session, peer, role, binding, rtt_ms }]);
        }
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.now_ms, wall_ms: EPOCH_MS + self.now_ms }
    }

    fn author(&self, node: usize) -> AuthorId {
        self.nodes[node].replica.author()
    }

    /// Milliseconds since the start.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// What was on air so far, by kind.
    pub fn used(&self) -> BTreeMap<&'static str, Used> {
        self.air.used.clone()
    }

    /// Bytes and milliseconds on air so far.
    pub fn on_air(&self) -> Used {
        self.air.used.values().fold(Used::default(), |all, used| Used {
            packets: all.packets + used.packets,
            bytes: all.bytes + used.bytes,
            air_ms: all.air_ms + used.air_ms,
        })
    }

    /// The most that one node sent in any hour, in milliseconds.
    pub fn busiest_hour_ms(&self) -> u64 {
        let hours = (0..self.nodes.len()).map(|node| self.busiest_hour(node));
        hours.map(|hour| hour.values().map(|used| used.air_ms).sum()).max().unwrap_or(0)
    }

    /// What a node sent in the hour in which it sent most, wherever that begins, by kind.
    pub fn busiest_hour(&self, node: usize) -> BTreeMap<&'static str, Used> {
        let sent: Vec<_> = self.air.sent.iter().filter(|sent| sent.node == node).collect();
        let (mut first, mut air_ms, mut most_ms, mut busiest) = (0, 0, 0, 0..0);
        for (last, end) in sent.iter().enumerate() {
            air_ms += end.air_ms;
            while sent[first].at_ms + HOUR_MS <= end.at_ms {
                air_ms -= sent[first].air_ms;
                first += 1;
            }
            if air_ms > most_ms {
                (most_ms, busiest) = (air_ms, first..last + 1);
            }
        }
        let mut by_kind = BTreeMap::<_, Used>::new();
        for sent in &sent[busiest] {
            by_kind.entry(sent.kind).or_default().add(sent);
        }
        by_kind
    }

    /// Does the next thing that happens before `end_ms`; whether there was one.
    fn turn(&mut self, end_ms: u64) -> bool {
        let next_ms: Vec<u64> = (0..self.nodes.len()).map(|index| self.next_ms(index)).collect();
        let next_ms = next_ms.into_iter();
        let next_ms = next_ms.chain(self.hostile.as_ref().map(|it| it.next_ms.max(self.now_ms)));
        let flying_ms = self.flying.keys().next().map(|(ms, _)| *ms);
        let frame_ms = self.internet.next_ms();
        let next_ms = next_ms.into_iter().chain(flying_ms).chain(frame_ms).min();
        let Some(next_ms) = next_ms else { return false };
        if next_ms > end_ms {
            return false;
        }
        self.now_ms = self.now_ms.max(next_ms);
        while let Some(entry) = self.flying.first_entry()
            && entry.key().0 <= self.now_ms
        {
            let (key, (from, begins_ms, packet)) = entry.remove_entry();
            self.land(from, (begins_ms, key.0), &packet);
        }
        while let Some((to, session, frame)) = self.internet.take(self.now_ms) {
            let message = Message::decode(&frame[4..], &self.hasher).expect("a frame of a node");
            self.inputs(to, vec![Input::Frame { session, message }]);
        }
        for index in 0..self.nodes.len() {
            if self.next_ms(index) <= self.now_ms {
                self.wake(index);
            }
        }
        self.flood();
        true
    }

    fn next_ms(&mut self, index: usize) -> u64 {
        let node = &mut self.nodes[index];
        if let Some(ms) = node.next_ms {
            return ms.max(self.now_ms);
        }
        let sends = !node.stack.queue.is_empty();
        let sends_ms = sends.then_some(node.busy_until_ms.max(node.looks_ms));
        let times = [
            sends_ms,
            node.stack.next_timeout_ms(),
            node.station.next_timeout_ms(self.now_ms),
            Some(node.replica.next_timeout_ms()),
            node.files.pieces.next_timeout_ms(self.now_ms),
        ];
        let next_ms = times.into_iter().flatten().min().unwrap_or(u64::MAX).max(self.now_ms);
        node.next_ms = Some(next_ms);
        next_ms
    }

    fn wake(&mut self, index: usize) {
        let mut reports = Vec::new();
        self.nodes[index].next_ms = None;
        self.nodes[index].stack.on_timeout(self.now_ms, &mut reports);
        self.report(index, reports);
        if self.nodes[index].replica.next_timeout_ms() <= self.now_ms {
            self.inputs(index, Vec::new());
        }
        let wants = self.nodes[index].files.wants(self.now_ms);
        if !wants.is_empty() {
            self.inputs(index, wants);
        }
        let node = &mut self.nodes[index];
        if node.busy_until_ms > self.now_ms || node.looks_ms > self.now_ms {
            return;
        }
        let Some(packet) = node.stack.queue.front() else { return };
        let free_ms = self.air.free_ms(index, self.now_ms, &mut self.rng);
        if free_ms > self.now_ms {
            return node.looks_ms = free_ms;
        }
        let ends_ms = self.air.begin(index, packet, self.now_ms);
        node.busy_until_ms = ends_ms;
        if let Some(packet) = node.stack.queue.pop_front() {
            self.count += 1;
            self.flying.insert((ends_ms, self.count), (index, self.now_ms, packet));
        }
    }

    /// Lets the hostile one send, if it is its turn.
    fn flood(&mut self) {
        let index = self.nodes.len();
        let Some(hostile) = self.hostile.as_mut().filter(|it| it.next_ms <= self.now_ms) else {
            return;
        };
        let free_ms = self.air.free_ms(index, self.now_ms, &mut self.rng);
        if free_ms > self.now_ms {
            return hostile.next_ms = free_ms;
        }
        let packet = hostile.next(&mut self.rng);
        let ends_ms = self.air.begin(index, &packet, self.now_ms);
        hostile.next_ms = ends_ms + self.rng.random_range(1..=hostile::PAUSE_MS);
        self.count += 1;
        self.flying.insert((ends_ms, self.count), (index, self.now_ms, packet));
    }

    fn land(&mut self, from: usize, times: (u64, u64), packet: &Packet) {
        for index in 0..self.nodes.len() {
            let is_for_it = packet.to().is_none_or(|to| to == index);
            if is_for_it && self.air.arrives(index, from, times, &mut self.rng) {
                let mut reports = Vec::new();
                self.nodes[index].stack.on_packet(packet.clone(), self.now_ms, &mut reports);
                self.report(index, reports);
            }
        }
        let index = self.nodes.len();
        let arrives =
            packet.to() == Some(index) && self.air.arrives(index, from, times, &mut self.rng);
        if let Some(hostile) = self.hostile.as_mut().filter(|_| arrives) {
            hostile.on_packet(packet);
        }
    }

    fn report(&mut self, index: usize, reports: Vec<Report>) {
        let mut turn = Turn::default();
        let node = &mut self.nodes[index];
        node.next_ms = None;
        for report in reports {
            node.station.handle_report(report, self.now_ms, &mut turn);
        }
        node.station.handle_timeout(self.now_ms, &mut turn);
        self.take_turn(index, turn);
    }

    fn take_turn(&mut self, index: usize, turn: Turn) {
        let mut reports = Vec::new();
        for order in turn.orders {
            self.nodes[index].stack.carry(order, self.now_ms, &mut reports);
        }
        if !reports.is_empty() {
            self.report(index, reports);
        }
        if !turn.inputs.is_empty() {
            self.inputs(index, turn.inputs);
        }
    }

    /// Takes, commits, sends: what the owner loop of a node does.
    fn inputs(&mut self, index: usize, inputs: Vec<Input>) {
        let now = self.now();
        let node = &mut self.nodes[index];
        node.next_ms = None;
        let mut effects: Vec<Effect> = Vec::new();
        for input in &inputs {
            if let Input::Disconnected { session, .. } = input {
                node.files.down(session);
            }
        }
        let replica = &mut node.replica;
        let written = node.storage.write(None, |book| {
            replica.handle_timeout(now, book, &mut effects)?;
            for input in inputs {
                replica.handle(now, input, book, &mut effects)?;
            }
            replica.end_batch(now, book, &mut effects)
        });
        written.expect("a storage that works");
        let top = replica.frontier().hash(&Prefix::EMPTY, &Default::default());
        let (events, is_bridge) = (node.storage.snapshot().counts().events, replica.is_bridge());
        node.station.set_state(OwnState { top, events, is_bridge }, self.now_ms);
        let mut turn = Turn::default();
        for effect in effects {
            if let Effect::Broadcast { frame } = &effect {
                note_said(&mut self.said, frame, &self.hasher);
            }
            if let Effect::Send { session, frame, .. } = &effect {
                match self.internet.send(*session, index, frame, self.now_ms) {
                    true => {
                        let (session, bytes) = (*session, frame.len());
                        turn.inputs.push(Input::Sent { session, bytes });
                    }
                    false => note_said(&mut self.said, frame, &self.hasher),
                }
            }
            turn.inputs.extend(node.files.take(&effect, self.now_ms));
            node.station.handle_effect(effect, self.now_ms, &mut turn);
        }
        turn.inputs.extend(node.files.wants(self.now_ms));
        node.station.seek(node.files.pieces.is_seeking(), self.now_ms);
        node.station.handle_timeout(self.now_ms, &mut turn);
        self.take_turn(index, turn);
    }
}
