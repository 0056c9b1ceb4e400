//! A model of the DHT and of dialing, on simulated time, for the tests of the chain.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use ed25519_dalek::SigningKey;
use mosaik_core::{
    id::NodeId,
    key::{Network, SLOTS},
    reach::Reach,
};

use super::{Chain, Draw, Effect, Input, Now, Situation};
use crate::{
    record::{self, Draft},
    slot::{SlotKeys, SlotValue},
};

pub(super) const WALL_MS: u64 = 1_750_000_000_000;
/// Storage nodes that hold each slot. More than one, so that they may disagree.
const STORES: usize = 5;

pub(super) fn keys() -> SlotKeys {
    SlotKeys::new(&Network::Public("mosaik-node-test-vector-1".to_owned()).keys())
}

pub(super) fn signing_key(node: u8) -> SigningKey {
    SigningKey::from_bytes(&[node; 32])
}

pub(super) fn node_id(node: u8) -> NodeId {
    NodeId(signing_key(node).verifying_key().to_bytes())
}

pub(super) fn situation(node: u8, peers: usize) -> Situation {
    Situation {
        peers,
        addresses: vec![format!("203.0.113.{node}:4242").parse().expect("an address")],
        ..Situation::default()
    }
}

#[derive(Debug)]
enum Happening {
    Start(usize),
    Input(usize, Input),
    /// A put reaches one storage node.
    Stored {
        node: usize,
        slot: u8,
        value: SlotValue,
        cas: Option<i64>,
        store: usize,
    },
    Dialed {
        from: usize,
        to: NodeId,
    },
}

struct Node {
    chain: Chain,
    draw: Draw,
    id: NodeId,
    situation: Situation,
    peers: BTreeSet<usize>,
    alive: bool,
    puts: BTreeMap<(u8, i64), (usize, usize)>,
    pub(super) put_at_ms: Vec<u64>,
    pub(super) reads: usize,
}

/// Chains of some nodes over one set of storage nodes.
pub(super) struct World {
    pub(super) now_ms: u64,
    nodes: Vec<Node>,
    stores: Vec<BTreeMap<u8, SlotValue>>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    waiting: BTreeMap<(u64, u64), Happening>,
    serial: u64,
    draw: Draw,
}

impl World {
    /// `nodes` chains that start within 100 ms of each other.
    pub(super) fn new(seed: u64, nodes: u8) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let mut world = Self {
            now_ms: 0,
            nodes: Vec::new(),
            stores: vec![BTreeMap::new(); STORES],
            queue: BinaryHeap::new(),
            waiting: BTreeMap::new(),
            serial: 0,
            draw: Draw::from_seed(bytes),
        };
        for node in 1..=nodes {
            let start_ms = world.draw.below(100);
            world.join(node, start_ms);
        }
        world
    }

    /// Adds a node that starts in `wait_ms`.
    pub(super) fn join(&mut self, node: u8, wait_ms: u64) -> usize {
        let mut seed = [node; 32];
        seed[..8].copy_from_slice(&self.draw.below(u64::MAX).to_be_bytes());
        self.nodes.push(Node {
            chain: Chain::new(keys(), signing_key(node), Reach::Public),
            draw: Draw::from_seed(seed),
            id: node_id(node),
            situation: situation(node, 0),
            peers: BTreeSet::new(),
            alive: true,
            puts: BTreeMap::new(),
            put_at_ms: Vec::new(),
            reads: 0,
        });
        let at = self.nodes.len() - 1;
        self.later(wait_ms, Happening::Start(at));
        at
    }

    /// Ends a node without a farewell. Its peers notice within some seconds.
    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node].alive = false;
        for peer in std::mem::take(&mut self.nodes[node].peers) {
            self.nodes[peer].peers.remove(&node);
            let id = self.nodes[node].id;
            let wait_ms = 5_000 + self.draw.below(1_000);
            self.later(wait_ms, Happening::Input(peer, Input::SessionBroke(id)));
            self.tell_peers(peer, wait_ms);
            self.later(wait_ms + 1, Happening::Dialed { from: peer, to: id });
        }
    }

    /// A live lease of a node that isn't there.
    pub(super) fn fill(&mut self, node: u8, slot: u8) {
        let issued_s = self.now().wall_ms / 1000;
        let draft = Draft {
            addresses: situation(node, 0).addresses,
            issued_s,
            expires_s: issued_s + 3600,
            ..Draft::default()
        };
        let built = record::build(&keys(), slot, &signing_key(node), &draft, 1, &[0; 24]);
        let (value, _) = built.expect("a record");
        for store in &mut self.stores {
            store.insert(slot, value.clone());
        }
    }

    /// Live leases of nodes that aren't there, in all slots where nothing stands.
    pub(super) fn fill_empty(&mut self) {
        for slot in 0..SLOTS as u8 {
            if self.stores.iter().all(|store| !store.contains_key(&slot)) {
                self.fill(200 + slot, slot);
            }
        }
    }

    pub(super) fn leave(&mut self, node: usize) {
        self.later(0, Happening::Input(node, Input::Leave));
    }

    pub(super) fn run_until(&mut self, until_ms: u64) {
        loop {
            let timeouts = self.nodes.iter().enumerate().filter(|(_, node)| node.alive);
            let timeout = timeouts
                .filter_map(|(at, node)| {
                    node.chain.next_timeout_ms().map(|ms| (ms.max(self.now_ms), at))
                })
                .min();
            let next = self.queue.peek().map(|Reverse((at_ms, _))| *at_ms);
            let at_ms = timeout.map(|(at_ms, _)| at_ms).into_iter().chain(next).min();
            let Some(at_ms) = at_ms.filter(|&at_ms| at_ms <= until_ms) else { break };
            self.now_ms = self.now_ms.max(at_ms);
            if next == Some(at_ms) {
                let Reverse(key) = self.queue.pop().expect("it was peeked at");
                let happening = self.waiting.remove(&key).expect("queued once");
                self.happen(happening);
            } else if let Some((_, at)) = timeout {
                let (now, node) = (self.now(), &mut self.nodes[at]);
                let mut effects = Vec::new();
                node.chain.handle_timeout(now, &mut node.draw, &mut effects);
                self.carry_out(at, effects);
            }
        }
        self.now_ms = until_ms;
    }

    /// Runs until `done`, at most until `until_ms`; when that was.
    pub(super) fn run_until_so(
        &mut self,
        until_ms: u64,
        done: impl Fn(&Self) -> bool,
    ) -> Option<u64> {
        while self.now_ms < until_ms {
            if done(self) {
                return Some(self.now_ms);
            }
            self.run_until(self.now_ms + 50);
        }
        done(self).then_some(self.now_ms)
    }

    /// How many separate groups the living nodes form.
    pub(super) fn components(&self) -> usize {
        let mut left: BTreeSet<usize> =
            (0..self.nodes.len()).filter(|&at| self.nodes[at].alive).collect();
        let mut components = 0;
        while let Some(first) = left.pop_first() {
            components += 1;
            let mut reached = vec![first];
            while let Some(at) = reached.pop() {
                reached.extend(self.nodes[at].peers.iter().filter(|peer| left.remove(peer)));
            }
        }
        components
    }

    /// Slots that living nodes believe to hold, with repeats, sorted.
    pub(super) fn held(&self) -> Vec<u8> {
        let alive = self.nodes.iter().filter(|node| node.alive);
        let mut held: Vec<u8> = alive.filter_map(|node| node.chain.held()).collect();
        held.sort_unstable();
        held
    }

    pub(super) fn chain(&self, node: usize) -> &Chain {
        &self.nodes[node].chain
    }

    pub(super) fn peers(&self, node: usize) -> usize {
        self.nodes[node].peers.len()
    }

    pub(super) fn puts(&self, node: usize, from_ms: u64) -> usize {
        self.nodes[node].put_at_ms.iter().filter(|&&at_ms| at_ms >= from_ms).count()
    }

    pub(super) fn reads(&self, node: usize) -> usize {
        self.nodes[node].reads
    }

    pub(super) fn now(&self) -> Now {
        Now { mono_ms: self.now_ms, wall_ms: WALL_MS + self.now_ms }
    }

    fn later(&mut self, wait_ms: u64, happening: Happening) {
        self.serial += 1;
        let key = (self.now_ms + wait_ms, self.serial);
        self.queue.push(Reverse(key));
        self.waiting.insert(key, happening);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Start(at) => {
                self.tell_peers(at, 0);
                self.input(at, Input::DhtUp);
            }
            Happening::Input(at, input) => self.input(at, input),
            Happening::Stored { node, slot, value, cas, store } => {
                let ok = self.store(store, slot, &value, cas);
                let seq = value.seq;
                let (asked, stored) = self.nodes[node].puts.entry((slot, seq)).or_default();
                *asked += 1;
                *stored += usize::from(ok);
                let (asked, stored) = (*asked, *stored);
                if asked.is_multiple_of(STORES) {
                    self.nodes[node].puts.remove(&(slot, seq));
                    let most = stored * 2 > STORES;
                    let input = if most {
                        Input::PutOk { slot, seq }
                    } else {
                        Input::PutFailed { slot, seq, refused: true }
                    };
                    self.input(node, input);
                }
            }
            Happening::Dialed { from, to } => {
                let target = self.nodes.iter().position(|node| node.id == to && node.alive);
                match target {
                    Some(target) if self.nodes[from].alive => {
                        if self.nodes[from].peers.insert(target) {
                            self.nodes[target].peers.insert(from);
                            self.tell_peers(from, 0);
                            self.tell_peers(target, 0);
                        }
                    }
                    _ => self.input(from, Input::DialFailed(to)),
                }
            }
        }
    }

    /// BEP 44, as the mainline crate does it: cas first, then the seq.
    fn store(&mut self, store: usize, slot: u8, value: &SlotValue, cas: Option<i64>) -> bool {
        if let Some(before) = self.stores[store].get(&slot)
            && (cas.is_some_and(|cas| cas != before.seq) || value.seq < before.seq)
        {
            return false;
        }
        let before = self.stores[store].insert(slot, value.clone());
        assert!(
            before.is_none_or(|before| before.seq != value.seq || before == *value),
            "two values at one seq in slot {slot}"
        );
        true
    }

    fn tell_peers(&mut self, at: usize, wait_ms: u64) {
        let node = &mut self.nodes[at];
        node.situation.peers = node.peers.len();
        let situation = node.situation.clone();
        self.later(wait_ms, Happening::Input(at, Input::Situation(situation)));
    }

    fn input(&mut self, at: usize, input: Input) {
        if !self.nodes[at].alive {
            return;
        }
        let (now, node) = (self.now(), &mut self.nodes[at]);
        let mut effects = Vec::new();
        node.chain.handle(now, &mut node.draw, input, &mut effects);
        self.carry_out(at, effects);
    }

    fn carry_out(&mut self, at: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Read(slots) => self.read(at, slots),
                Effect::Put { slot, value, cas } => {
                    self.nodes[at].put_at_ms.push(self.now_ms);
                    for store in 0..STORES {
                        let wait_ms = 30 + self.draw.below(100);
                        let value = value.clone();
                        self.later(
                            wait_ms,
                            Happening::Stored { node: at, slot, value, cas, store },
                        );
                    }
                }
                Effect::Found(candidate) => {
                    let known = self.nodes[at]
                        .peers
                        .iter()
                        .any(|&peer| self.nodes[peer].id == candidate.node);
                    if !known {
                        // A dead node's dial runs into its timeout.
                        let alive =
                            self.nodes.iter().any(|node| node.id == candidate.node && node.alive);
                        let wait_ms = if alive { 3 + self.draw.below(10) } else { 5_000 };
                        self.later(wait_ms, Happening::Dialed { from: at, to: candidate.node });
                    }
                }
                Effect::Over => self.nodes[at].alive = false,
                Effect::Changed | Effect::HolderDialed => {}
            }
        }
    }

    /// Values come after 1 to 60 ms, the end after the request timeout.
    fn read(&mut self, at: usize, slots: Vec<u8>) {
        for slot in slots {
            self.nodes[at].reads += 1;
            for store in 0..STORES {
                if let Some(value) = self.stores[store].get(&slot).cloned() {
                    let wait_ms = 1 + self.draw.below(60);
                    self.later(wait_ms, Happening::Input(at, Input::Value { slot, value }));
                }
            }
            let wait_ms = 500 + self.draw.below(100);
            let answered = STORES as u32;
            self.later(wait_ms, Happening::Input(at, Input::ReadEnded { slot, answered }));
        }
    }
}
