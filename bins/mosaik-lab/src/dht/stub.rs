//! Mainline nodes whose treatment of BEP 44 is chosen, on 127.0.0.1 only.
//!
//! The nodes of [`super::LocalDht`] all do as the mainline crate does. Those of the open network
//! don't: programs differ in what they answer to an equal seq, items expire, packets get lost, and
//! some nodes hold what the others have replaced long ago. Here each node is told how to be.
//!
//! Invariants:
//! - They speak the real protocol over UDP: BEP 5's ping, find_node and get_peers, BEP 44's get and
//!   put of mutable items, with tokens and signatures checked.
//! - All nodes know each other from the start, and never learn of anybody else.
//! - What comes in is bounded: packets, items, the log.
//! - One lock guards what tests look at; it is never held across an await.
//!
//! Source: BEP 5 and BEP 44; FORMAT.md of mosaik-dht for what is kept there.

mod bencode;
mod krpc;
mod ledger;
mod node;
pub mod relay;
mod storage;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rand::{SeedableRng, rngs::StdRng};
use tokio::{net::UdpSocket, task::JoinSet};

use self::{
    ledger::Ledger,
    node::{Contact, Node},
    storage::Storage,
};

/// What a node does with another value at the seq that it holds.
///
/// The same value at that seq is acknowledged by all, and lasts anew where items expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EqualSeq {
    /// Says yes and keeps the old value, as libtorrent.
    Ignored,
    /// Answers with error 302 and keeps the old value, as anacrolix's DHT and as BEP 44 asks.
    Refused,
    /// Says yes and keeps the new value, as the mainline crate.
    Overwrites,
}

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behaviour {
    /// What it does with another value at an equal seq.
    pub equal_seq: EqualSeq,
    /// After how long an item that nobody puts again is forgotten; none: never.
    pub expires_after: Option<Duration>,
    /// Never answers.
    pub silent: bool,
    /// How late each answer is.
    pub delay: Duration,
    /// The share of packets that get lost on the way in, and again on the way out, in percent.
    pub loss_percent: u8,
}

impl Behaviour {
    /// A quick node that forgets nothing.
    pub const fn new(equal_seq: EqualSeq) -> Self {
        Self {
            equal_seq,
            expires_after: None,
            silent: false,
            delay: Duration::ZERO,
            loss_percent: 0,
        }
    }

    /// A quick node that does what BEP 44 says, with another time than its two hours.
    pub const fn expiring(after: Duration) -> Self {
        Self { expires_after: Some(after), ..Self::new(EqualSeq::Refused) }
    }

    /// The four kinds of nodes that there are.
    pub const fn kinds(expires_after: Duration) -> [Self; 4] {
        [
            Self::new(EqualSeq::Ignored),
            Self::new(EqualSeq::Refused),
            Self::new(EqualSeq::Overwrites),
            Self::expiring(expires_after),
        ]
    }

    /// Twenty nodes of all four kinds: two silent, two that lose a third of all questions and
    /// answers, three that are slow. Their answers still come within half a second, the timeout of a
    /// client on loopback.
    pub fn mix(expires_after: Duration) -> Vec<Self> {
        let kinds = Self::kinds(expires_after);
        let node = |at: usize| match (kinds[at % kinds.len()], at) {
            (kind, 3 | 12) => Self { silent: true, ..kind },
            (kind, 5 | 14) => Self { loss_percent: 18, ..kind },
            (kind, 7 | 8 | 17) => Self { delay: Duration::from_millis(150), ..kind },
            (kind, _) => kind,
        };
        (0..super::NODES).map(node).collect()
    }
}

/// What stands under a key: a BEP 44 mutable item without its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its sequence number.
    pub seq: i64,
    /// The key's signature over seq and value.
    pub signature: [u8; 64],
    /// The value.
    pub value: Vec<u8>,
}

/// What became of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It stands there now.
    Stored,
    /// The node said yes, and kept what it had.
    Ignored,
    /// The node answered with this error.
    Refused(u16),
}

/// A put that reached a node.
#[derive(Debug, Clone)]
pub struct Put {
    /// Which node, in the order of their start.
    pub node: usize,
    /// Who asked: one address a client.
    pub from: SocketAddr,
    /// When it came.
    pub at: Instant,
    /// The key.
    pub key: [u8; 32],
    /// What was to be kept.
    pub item: Item,
    /// The seq that it was to replace.
    pub cas: Option<i64>,
    /// What the node held.
    pub before: Option<Item>,
    /// What it did.
    pub outcome: Outcome,
}

/// How many requests came in. What was lost on the way, or came to a silent node, isn't counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// Queries `get`.
    pub gets: u64,
    /// Queries `put`, whatever became of them.
    pub puts: u64,
}

/// A DHT of such nodes; they stop when it is dropped.
#[derive(Debug)]
pub struct StubDht {
    bootstrap: Vec<String>,
    ledger: Arc<Mutex<Ledger>>,
    _tasks: JoinSet<std::io::Result<()>>,
}

impl StubDht {
    /// Starts a node for each behaviour.
    ///
    /// # Errors
    ///
    /// If a socket can't be had.
    pub async fn start(behaviours: Vec<Behaviour>) -> Result<Self> {
        let (mut sockets, mut contacts) = (Vec::new(), Vec::new());
        for node in 0..behaviours.len() {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await;
            let socket = socket.context("cannot start a storage node")?;
            contacts.push(Contact { id: id(node), address: socket.local_addr()? });
            sockets.push(socket);
        }
        let storage =
            |behaviour: &Behaviour| Storage::new(behaviour.equal_seq, behaviour.expires_after);
        let ledger = Ledger::new(behaviours.iter().map(storage).collect());
        let ledger = Arc::new(Mutex::new(ledger));
        let bootstrap = contacts.iter().map(|contact| contact.address.to_string()).collect();
        let contacts: Arc<[Contact]> = contacts.into();
        let mut tasks = JoinSet::new();
        for (index, (socket, behaviour)) in sockets.into_iter().zip(behaviours).enumerate() {
            let node = Node {
                index,
                id: id(index),
                behaviour,
                socket,
                contacts: contacts.clone(),
                ledger: ledger.clone(),
                // One seed a node: a run loses the same packets in the same order of requests.
                rng: StdRng::seed_from_u64(index as u64),
            };
            tasks.spawn(node.run());
        }
        Ok(Self { bootstrap, ledger, _tasks: tasks })
    }

    /// Addresses to begin with, `host:port`: one a node, in the order of their start.
    pub fn bootstrap(&self) -> &[String] {
        &self.bootstrap
    }

    /// What each node holds under a key, in the order of their start.
    pub fn stored(&self, key: &[u8; 32]) -> Vec<Option<Item>> {
        let (target, now) = (storage::target(key, None), Instant::now());
        let ledger = self.ledger();
        let get = |storage: &Storage| storage.get(&target, now).map(|kept| kept.item.clone());
        ledger.storages.iter().map(get).collect()
    }

    /// All puts that reached a node, in their order.
    pub fn puts(&self) -> Vec<Put> {
        self.ledger().puts.clone()
    }

    /// How many requests came in, at all nodes.
    pub fn requests(&self) -> Requests {
        let ledger = self.ledger();
        let mut all = Requests::default();
        for requests in ledger.requests.values() {
            all.gets += requests.gets;
            all.puts += requests.puts;
        }
        all
    }

    /// How many requests came in for a key, at all nodes.
    pub fn requests_for(&self, key: &[u8; 32]) -> Requests {
        let target = storage::target(key, None);
        self.ledger().requests.get(&target).copied().unwrap_or_default()
    }

    /// Lays an item into all nodes without asking them: whatever stands there, signed or not.
    pub fn place(&self, key: &[u8; 32], item: &Item) {
        let now = Instant::now();
        for storage in &mut self.ledger().storages {
            storage.place(*key, item.clone(), false, now);
        }
    }

    /// Lays an item into one node, which keeps it for ever: it says yes to what is newer, and
    /// nothing changes.
    ///
    /// # Panics
    ///
    /// If there is no such node.
    pub fn pin(&self, node: usize, key: &[u8; 32], item: &Item) {
        self.ledger().storages[node].place(*key, item.clone(), true, Instant::now());
    }

    /// From now on no node answers or takes anything.
    pub fn silence(&self) {
        self.ledger().silent = true;
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node's place: spread like random ones, and the same each time. BEP 42 leaves ids on loopback
/// free; mainline's client only wants the first 21 bits to differ between nodes of one IP.
fn id(node: usize) -> [u8; 20] {
    let mut id = [0; 20];
    blake3::Hasher::new().update(&node.to_be_bytes()).finalize_xof().fill(&mut id);
    id
}

#[cfg(test)]
mod tests;
