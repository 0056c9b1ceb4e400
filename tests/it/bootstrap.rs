//! The chain's client against storage nodes of every kind that the open network has: some ignore an
//! equal seq, some refuse it, some write over it, some forget, and a mix of all with nodes that are
//! silent, slow or lose packets.
//!
//! Clients run in this process and speak UDP on loopback. What storage nodes were asked for is read
//! from their own log. Deadlines have ten times the room that a step takes.

mod claims;
mod forged;
mod promises;
mod records;
mod relays;
mod secret;
mod silence;
mod stale;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ed25519_dalek::SigningKey;
use mosaik_core::{
    id::NodeId,
    key::{Network, NetworkKeys, SLOTS},
    reach::Reach,
};
use mosaik_dht::{
    Candidate, ChainClient, ChainConfig, ChainEvent, ChainHandle, SlotState, SlotStatus, record,
    slot::{SlotKeys, SlotValue},
};
use mosaik_lab::dht::{
    NODES,
    stub::{Behaviour, Item, Outcome, Put, StubDht},
};
use tokio::{sync::mpsc, time::timeout};

/// How long any one step may take: ten times a cold read of all slots, a put and two more reads. A
/// write that was acknowledged, and that the next reads don't find, is repeated after a minute.
const STEP: Duration = Duration::from_secs(100);

/// BEP 44's two hours, scaled to the length of a test: longer than any of them takes.
const EXPIRES_AFTER: Duration = Duration::from_secs(120);

/// Writes of one node in its first minute.
const WRITES_MAX: usize = 3;

/// A DHT with the slots of one network.
#[derive(Clone)]
struct Dht {
    name: &'static str,
    stub: Arc<StubDht>,
    network: NetworkKeys,
    keys: SlotKeys,
}

impl Dht {
    async fn start(name: &'static str, behaviours: Vec<Behaviour>) -> Self {
        let network = Network::Public("mosaik-node-test-vector-1".to_owned());
        Self::of(&network, name, behaviours).await
    }

    async fn of(network: &Network, name: &'static str, behaviours: Vec<Behaviour>) -> Self {
        let network = network.keys();
        let stub = StubDht::start(behaviours).await.expect("loopback is there");
        Self { name, stub: Arc::new(stub), keys: SlotKeys::new(&network), network }
    }

    /// A client without an address, which reads and never writes.
    fn reader(&self, node: u8) -> Client {
        let config = ChainConfig {
            dht_bootstrap: self.stub.bootstrap().to_vec(),
            reach: Reach::Lab,
            ..ChainConfig::new(self.network.clone(), key(node))
        };
        let (handle, events) = ChainClient::spawn(config);
        Client { name: format!("{}, node {node}", self.name), handle, events }
    }

    /// A client that needs a slot.
    fn node(&self, node: u8) -> Client {
        let client = self.reader(node);
        client.handle.set_addresses(vec![], vec![address(node)]);
        client
    }

    /// What stands in a slot for who asks all storage nodes.
    fn newest(&self, slot: u8) -> Option<SlotValue> {
        let stored = self.stub.stored(&self.keys.public_key(slot)).into_iter().flatten();
        let newest = stored.max_by(|a, b| (a.seq, &a.value).cmp(&(b.seq, &b.value)))?;
        Some(slot_value(&newest))
    }

    /// How many values storage nodes give of a slot.
    fn values(&self, slot: u8) -> usize {
        let stored = self.stub.stored(&self.keys.public_key(slot)).into_iter().flatten();
        stored.map(|item| (item.seq, item.value)).collect::<BTreeSet<_>>().len()
    }

    /// Who has a live lease in which slot.
    fn holders(&self) -> BTreeMap<u8, NodeId> {
        let holder = |slot| {
            let record = record::parse(&self.keys, slot, &self.newest(slot)?).ok()?;
            record.lease.is_live(now_s()).then_some((slot, record.node))
        };
        (0..SLOTS as u8).filter_map(holder).collect()
    }

    /// The writes of nodes: what went to some twenty storage nodes, or twice, is one.
    fn writes(&self) -> Vec<Write> {
        let mut writes: Vec<Write> = Vec::new();
        for put in self.stub.puts() {
            let (slot, value) = (self.slot(&put), slot_value(&put.item));
            let digest = blake3::hash(&value.value);
            let same = |write: &Write| (write.slot, write.seq) == (slot, value.seq);
            let known = writes.iter().position(|write| same(write) && write.digest == digest);
            let at = known.unwrap_or_else(|| {
                let record = record::parse(&self.keys, slot, &value);
                let node = record.expect("clients write good records").node;
                let (seq, at) = (value.seq, put.at);
                writes.push(Write { slot, node, seq, digest, at, asked: 0, stored: 0 });
                writes.len() - 1
            });
            writes[at].asked += 1;
            writes[at].stored += usize::from(put.outcome == Outcome::Stored);
        }
        writes
    }

    fn slot(&self, put: &Put) -> u8 {
        let slot = (0..SLOTS as u8).find(|&slot| self.keys.public_key(slot) == put.key);
        slot.expect("clients write to slots alone")
    }

    /// No storage node was asked to take a value at or below the seq that it held; the same value
    /// once more changes nothing.
    fn check_seqs(&self) {
        for put in self.stub.puts() {
            let Some(before) = &put.before else { continue };
            assert!(
                before.seq < put.item.seq || *before == put.item,
                "{}: slot {} is put at seq {} over {} ({:?})",
                self.name,
                self.slot(&put),
                put.item.seq,
                before.seq,
                put.outcome
            );
        }
    }

    /// No two values were ever written at one seq of a slot, whoever wrote them.
    fn check_no_seq_twice(&self) {
        let writes = self.writes();
        let seqs: BTreeSet<_> = writes.iter().map(|write| (write.slot, write.seq)).collect();
        assert_eq!(seqs.len(), writes.len(), "{}: {writes:#?}", self.name);
    }
}

/// A value that a client sent out.
#[derive(Debug)]
struct Write {
    slot: u8,
    node: NodeId,
    seq: i64,
    digest: blake3::Hash,
    at: Instant,
    /// Puts that reached a storage node.
    asked: usize,
    /// Those after which it stood there.
    stored: usize,
}

/// A chain's client.
struct Client {
    name: String,
    handle: ChainHandle,
    events: mpsc::Receiver<ChainEvent>,
}

impl Client {
    /// Waits until the slots say so; the slot that did.
    async fn slot_that(&self, what: &str, is: impl Fn(&SlotStatus) -> bool) -> SlotStatus {
        let mut slots = self.handle.watch_slots();
        let wait = async {
            loop {
                if let Some(slot) = slots.borrow_and_update().iter().find(|slot| is(slot)) {
                    return slot.clone();
                }
                slots.changed().await.expect("the task runs");
            }
        };
        match timeout(STEP, wait).await {
            Ok(slot) => slot,
            Err(_) => panic!("{}: not {what} in {STEP:?}: {:#?}", self.name, self.handle.slots()),
        }
    }

    async fn holds(&self) -> SlotStatus {
        self.slot_that("holding a slot", |slot| slot.state == SlotState::Mine).await
    }

    /// The slots that it takes for its own.
    fn own(&self) -> Vec<u8> {
        let slots = self.handle.slots();
        let mine = slots.iter().filter(|slot| slot.state == SlotState::Mine);
        mine.map(|slot| slot.slot).collect()
    }

    /// Waits until all slots have been read once more with an answer; whom it found since.
    async fn look(&mut self) -> Vec<Candidate> {
        let mut found = Vec::new();
        let over = |event: &ChainEvent| {
            matches!(event, ChainEvent::State(summary)
                if summary.answering && summary.unknown == 0 && summary.next_look_ms > 0)
        };
        let take = |event| {
            let over = over(&event);
            if let ChainEvent::Found(candidate) = event {
                found.push(candidate);
            }
            over.then_some(())
        };
        self.event("a read of all slots", take).await;
        found
    }

    async fn find(&mut self, node: u8) -> Candidate {
        let is_it = |event| match event {
            ChainEvent::Found(found) if found.node == node_id(node) => Some(found),
            ChainEvent::Found(_) | ChainEvent::State(_) | ChainEvent::Nodes(_) => None,
        };
        self.event("a holder", is_it).await
    }

    /// Takes events until one is it.
    async fn event<T>(&mut self, what: &str, mut is: impl FnMut(ChainEvent) -> Option<T>) -> T {
        let wait = async {
            loop {
                let event = self.events.recv().await.expect("the task runs");
                if let Some(found) = is(event) {
                    return found;
                }
            }
        };
        match timeout(STEP, wait).await {
            Ok(found) => found,
            Err(_) => panic!("{}: no {what} in {STEP:?}: {:#?}", self.name, self.handle.slots()),
        }
    }
}

/// A DHT of each kind, and one of all.
async fn every_dht() -> Vec<Dht> {
    every_dht_of(&Network::Public("mosaik-node-test-vector-1".to_owned())).await
}

async fn every_dht_of(network: &Network) -> Vec<Dht> {
    let [ignores, refuses, overwrites, expires] = Behaviour::kinds(EXPIRES_AFTER);
    let mut every = Vec::new();
    for (name, behaviours) in [
        ("equal seq ignored", vec![ignores; NODES]),
        ("equal seq refused", vec![refuses; NODES]),
        ("equal seq overwrites", vec![overwrites; NODES]),
        ("expiring", vec![expires; NODES]),
        ("mix", Behaviour::mix(EXPIRES_AFTER)),
    ] {
        every.push(Dht::of(network, name, behaviours).await);
    }
    every
}

/// Runs a test on each of them, at the same time: most of it is waiting.
async fn on_every_dht<F>(test: impl Fn(Dht) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    on_each(every_dht().await, test).await;
}

async fn on_each<F>(every: Vec<Dht>, test: impl Fn(Dht) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let run = |dht: Dht| (dht.name, tokio::spawn(test(dht)));
    let runs: Vec<_> = every.into_iter().map(run).collect();
    for (name, run) in runs {
        if let Err(error) = run.await {
            panic!("on the DHT {name:?}: {error}");
        }
    }
}

fn key(node: u8) -> SigningKey {
    SigningKey::from_bytes(&[node; 32])
}

fn node_id(node: u8) -> NodeId {
    NodeId(key(node).verifying_key().to_bytes())
}

fn address(node: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 4000 + u16::from(node)))
}

fn now_s() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("it is later than 1970").as_secs()
}

fn now_us() -> i64 {
    i64::try_from(now_s() * 1_000_000).expect("a time")
}

fn slot_value(item: &Item) -> SlotValue {
    let Item { seq, signature, value } = item.clone();
    SlotValue { seq, signature, value }
}
