//! The chain at work: a Mainline client that reads and writes what [`Chain`] decides, and beside it
//! pkarr relays, where there are any.
//!
//! Invariants:
//! - One task owns the chain; everybody else holds a [`ChainHandle`] or reads a snapshot.
//! - Each value goes to the chain when it arrives; a read's end is only waited for, never needed.
//! - Nothing here ends the program: a DHT client that can't start is tried again with back-off.
//! - Every queue is bounded: what doesn't fit ([`EVENTS_MAX`]) is dropped, the next read repairs it.

use std::{
    collections::HashSet,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ed25519_dalek::SigningKey;
use futures_lite::StreamExt;
use mainline::{Dht, MutableItem, async_dht::AsyncDht, errors::PutMutableError};
use mosaik_core::{id::NodeId, key::NetworkKeys, reach::Reach};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tracing::{debug, info, warn};

pub use self::meters::ChainMeters;
use self::{
    meters::Counters,
    relays::{Asked, Relays},
};
use crate::{
    chain::{Candidate, Chain, Draw, Effect, Input, Now, Situation, SlotStatus, Summary},
    record::Neighbour,
    slot::{SlotKeys, SlotValue},
};

/// Events that wait for the node. What is more is dropped: found again at the next read.
pub const EVENTS_MAX: usize = 256;
/// Commands and answers that wait for the task; who has more waits, or drops a hint.
const INBOX_MAX: usize = 256;
/// The longest a farewell may take.
const LEAVE_MAX: Duration = Duration::from_secs(3);
/// Waits between tries to start the DHT client, doubled each time, full jitter on top.
const START_WAIT_MS: u64 = 500;
const START_WAIT_MS_MAX: u64 = 60_000;
/// Reads of the whole chain without any answer after which the client is built anew: names of
/// bootstrap nodes are resolved again, as after a change of networks.
const UNANSWERED_MAX: u32 = 6;
/// Time between the starts of lookups of one read of the chain. A lookup asks some twenty nodes
/// twice over; the answers to all sixteen at once overflow a socket's default buffer, and a third
/// of them was lost (measured on loopback).
const READ_APART: Duration = Duration::from_millis(20);
/// Nodes that are told and taken from one run to the next: two full buckets, of which some are alive.
pub const NODES_MAX: usize = 40;
/// How often they are told, while storage nodes answer.
const NODES_EVERY: Duration = Duration::from_secs(300);
/// Request timeouts: on the open network, and where all bootstrap nodes are on this machine.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
const REQUEST_TIMEOUT_LOOPBACK: Duration = Duration::from_millis(500);

/// What a chain client needs to know.
#[derive(Clone)]
pub struct ChainConfig {
    /// The network's keys.
    pub keys: NetworkKeys,
    /// The node's endpoint key: it signs the leases.
    pub signing_key: SigningKey,
    /// Whether the DHT is used; without it there is nothing but `pkarr_relays`.
    pub dht: bool,
    /// URLs of pkarr relays, which are asked beside the DHT.
    pub pkarr_relays: Vec<String>,
    /// Nodes to begin with, `host:port`. Empty: the public Mainline nodes.
    pub dht_bootstrap: Vec<String>,
    /// Nodes that answered in an earlier run ([`ChainEvent::Nodes`]): asked beside those, so that a
    /// start doesn't hang on a few well-known ones. At most [`NODES_MAX`] are used.
    pub known_nodes: Vec<SocketAddrV4>,
    /// What is published and dialed.
    pub reach: Reach,
    /// Whether each byte costs: the chain is read more rarely.
    pub metered: bool,
    /// How long to wait for one storage node; none: 2 s, or 0.5 s if all of `dht_bootstrap` is
    /// loopback.
    pub request_timeout: Option<Duration>,
}

impl ChainConfig {
    /// The usual settings for a network: public nodes, public addresses.
    pub fn new(keys: NetworkKeys, signing_key: SigningKey) -> Self {
        Self {
            keys,
            signing_key,
            dht: true,
            pkarr_relays: Vec::new(),
            dht_bootstrap: Vec::new(),
            known_nodes: Vec::new(),
            reach: Reach::default(),
            metered: false,
            request_timeout: None,
        }
    }
}

/// What the chain tells the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainEvent {
    /// Somebody to dial. The same node comes again at later reads while peers are few.
    Found(Candidate),
    /// The status changed.
    State(Summary),
    /// Nodes of the DHT that answer, to begin with at the next start.
    Nodes(Vec<SocketAddrV4>),
}

/// Starts the task that keeps a node's chain.
#[derive(Debug)]
pub struct ChainClient;

impl ChainClient {
    /// Starts reading at once, and writing as soon as [`ChainHandle::set_addresses`] gave something
    /// to publish. The task ends by [`ChainHandle::leave`], or, without a tombstone, when all
    /// handles are dropped. Must be called inside a tokio runtime.
    pub fn spawn(config: ChainConfig) -> (ChainHandle, mpsc::Receiver<ChainEvent>) {
        let keys = SlotKeys::new(&config.keys);
        let chain = new_chain(&config);
        let started = Instant::now();
        let (situation, situations) = watch::channel(Situation::default());
        let (is_paused, pauses) = watch::channel(false);
        let (commands, inbox) = mpsc::channel(INBOX_MAX);
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let (slots, snapshot) = watch::channel(chain.slots(now(started)));
        let (answers, answered) = mpsc::channel(INBOX_MAX);
        let counters = Arc::new(Counters::default());
        let worker = Worker {
            relays: Relays::new(&config.pkarr_relays),
            keys,
            config,
            chain,
            started,
            draw: Draw::from_seed(rand::random()),
            events,
            slots,
            dht: DhtState::Off,
            start_wait_ms: START_WAIT_MS,
            unanswered: 0,
            nodes_told: None,
            answers,
            jobs: JoinSet::new(),
            farewells: Vec::new(),
            counters: Arc::clone(&counters),
        };
        tokio::spawn(worker.run(situations, pauses, inbox, answered));
        let (situation, is_paused) = (Arc::new(situation), Arc::new(is_paused));
        (ChainHandle { situation, commands, snapshot, is_paused, counters }, receiver)
    }
}

/// How the node speaks to its chain. Cheap to clone; none of its calls but [`Self::leave`] waits.
#[derive(Debug, Clone)]
pub struct ChainHandle {
    situation: Arc<watch::Sender<Situation>>,
    commands: mpsc::Sender<Command>,
    snapshot: watch::Receiver<Vec<SlotStatus>>,
    is_paused: Arc<watch::Sender<bool>>,
    counters: Arc<Counters>,
}

impl ChainHandle {
    /// How many peers have an open session.
    pub fn set_peers(&self, peers: usize) {
        self.update(|situation| situation.peers = peers);
    }

    /// Under which relays and addresses this node can be reached, of whatever kind: what may not be
    /// published is left out. The slot is rewritten when they have settled.
    pub fn set_addresses(&self, relays: Vec<String>, addresses: Vec<SocketAddr>) {
        self.update(|situation| (situation.relays, situation.addresses) = (relays, addresses));
    }

    /// Live peers to name in the record, best first; they go out with the next write.
    pub fn set_neighbours(&self, neighbours: Vec<Neighbour>) {
        self.update(|situation| situation.neighbours = neighbours);
    }

    /// What to add to this machine's clock to get the median of the peers'.
    pub fn set_clock_offset(&self, offset_ms: i64) {
        self.update(|situation| situation.clock_offset_ms = offset_ms);
    }

    /// A dial ended without an authenticated session.
    pub fn dial_failed(&self, node: NodeId) {
        self.tell(Input::DialFailed(node));
    }

    /// A session was authenticated.
    pub fn session_up(&self, node: NodeId) {
        self.tell(Input::SessionUp(node));
    }

    /// An authenticated session broke without a farewell.
    pub fn session_broke(&self, node: NodeId) {
        self.tell(Input::SessionBroke(node));
    }

    /// Reads all slots now.
    pub fn look(&self) {
        self.tell(Input::Look);
    }

    /// All 16 slots as they were last read.
    pub fn slots(&self) -> Vec<SlotStatus> {
        self.snapshot.borrow().clone()
    }

    /// Follows the slots: changes whenever something was learned about one.
    pub fn watch_slots(&self) -> watch::Receiver<Vec<SlotStatus>> {
        self.snapshot.clone()
    }

    /// Leaves the slot and lets the DHT alone, or begins anew.
    pub fn pause(&self, on: bool) {
        self.is_paused.send_replace(on);
    }

    /// What is counted. Keeps the task no longer than the handles do.
    pub fn meters(&self) -> ChainMeters {
        ChainMeters::new(Arc::clone(&self.counters), self.snapshot.clone())
    }

    /// Leaves a tombstone in the own slot and ends the task; waits at most 3 s. Whether storage
    /// nodes took it is not promised.
    pub async fn leave(&self) {
        let (done, is_done) = oneshot::channel();
        let farewell = async {
            if self.commands.send(Command::Leave(done)).await.is_ok() {
                // An error is the task's end as well.
                let _ = is_done.await;
            }
        };
        if timeout(LEAVE_MAX, farewell).await.is_err() {
            debug!("the tombstone was not acknowledged in time");
        }
    }

    fn update(&self, change: impl FnOnce(&mut Situation)) {
        self.situation.send_if_modified(|situation| {
            let before = situation.clone();
            change(situation);
            *situation != before
        });
    }

    fn tell(&self, input: Input) {
        // A hint only: when the queue is full, a later one does.
        if self.commands.try_send(Command::Tell(input)).is_err() {
            debug!("a hint for the chain was dropped");
        }
    }
}

#[derive(Debug)]
enum Command {
    Tell(Input),
    Leave(oneshot::Sender<()>),
}

enum DhtState {
    Off,
    /// Waits, then starts: [`Worker::start`].
    Starting(JoinHandle<io::Result<AsyncDht>>),
    On(AsyncDht),
}

struct Worker {
    keys: SlotKeys,
    config: ChainConfig,
    chain: Chain,
    started: Instant,
    draw: Draw,
    events: mpsc::Sender<ChainEvent>,
    slots: watch::Sender<Vec<SlotStatus>>,
    dht: DhtState,
    relays: Option<Relays>,
    start_wait_ms: u64,
    unanswered: u32,
    nodes_told: Option<Instant>,
    answers: mpsc::Sender<Input>,
    jobs: JoinSet<()>,
    farewells: Vec<oneshot::Sender<()>>,
    counters: Arc<Counters>,
}

impl Worker {
    async fn run(
        mut self,
        mut situations: watch::Receiver<Situation>,
        mut pauses: watch::Receiver<bool>,
        mut inbox: mpsc::Receiver<Command>,
        mut answered: mpsc::Receiver<Input>,
    ) {
        self.begin();
        let mut is_leaving = false;
        loop {
            let timeout_ms = self.chain.next_timeout_ms();
            let wake = timeout_ms.map(|at_ms| self.started + Duration::from_millis(at_ms));
            let over = tokio::select! {
                command = inbox.recv() => match command {
                    Some(Command::Tell(input)) => self.handle(input),
                    Some(Command::Leave(done)) => {
                        self.farewells.push(done);
                        self.handle(Input::Leave)
                    }
                    None => true,
                },
                Some(input) = answered.recv() => self.handle(input),
                Ok(()) = situations.changed() => {
                    let situation = situations.borrow_and_update().clone();
                    self.handle(Input::Situation(situation))
                }
                Ok(()) = pauses.changed(), if !is_leaving => {
                    is_leaving = *pauses.borrow_and_update();
                    is_leaving && self.handle(Input::Leave)
                }
                built = started(&mut self.dht) => self.on_started(built),
                Some(_) = self.jobs.join_next() => false,
                () = sleep_until(wake) => self.on_timeout(),
            };
            if over && is_leaving && self.farewells.is_empty() && !inbox.is_closed() {
                self.rest();
                if !self.until_resumed(&mut pauses, &mut inbox, &mut answered).await {
                    break;
                }
                is_leaving = false;
                let situation = situations.borrow_and_update().clone();
                self.begin();
                self.handle(Input::Situation(situation));
            } else if over {
                break;
            }
        }
        for done in self.farewells {
            let _ = done.send(());
        }
    }

    /// Starts the DHT client, if one is wanted.
    fn begin(&mut self) {
        if self.config.dht {
            self.dht = self.start(0);
        } else {
            self.handle(Input::DhtUp);
        }
    }

    /// Lets go of the DHT client and of all that was learned of slots.
    fn rest(&mut self) {
        self.jobs.abort_all();
        self.dht = DhtState::Off;
        self.chain = new_chain(&self.config);
        self.slots.send_replace(self.chain.slots(now(self.started)));
    }

    /// Waits for the end of a pause; `false`: the node ends first. What comes meanwhile is of before.
    async fn until_resumed(
        &mut self,
        pauses: &mut watch::Receiver<bool>,
        inbox: &mut mpsc::Receiver<Command>,
        answered: &mut mpsc::Receiver<Input>,
    ) -> bool {
        loop {
            tokio::select! {
                resumed = pauses.wait_for(|on| !on) => return resumed.is_ok(),
                command = inbox.recv() => match command {
                    Some(Command::Tell(_)) => {}
                    Some(Command::Leave(done)) => {
                        self.farewells.push(done);
                        return false;
                    }
                    None => return false,
                },
                Some(_) = answered.recv() => {}
                Some(_) = self.jobs.join_next() => {}
            }
        }
    }

    /// Builds the DHT client in a thread that may block, after a wait.
    fn start(&self, wait_ms: u64) -> DhtState {
        let bootstrap = self.config.dht_bootstrap.clone();
        let known = self.config.known_nodes.clone();
        let request_timeout = self.config.request_timeout;
        DhtState::Starting(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            let build = move || build(&bootstrap, &known, request_timeout);
            tokio::task::spawn_blocking(build).await.map_err(io::Error::other)?
        }))
    }

    fn on_started(&mut self, built: io::Result<AsyncDht>) -> bool {
        match built {
            Ok(dht) => {
                debug!("the DHT client runs");
                self.dht = DhtState::On(dht);
                self.handle(Input::DhtUp)
            }
            Err(error) => {
                let wait_ms = self.start_wait_ms + self.draw.below(self.start_wait_ms);
                self.start_wait_ms = (self.start_wait_ms * 2).min(START_WAIT_MS_MAX);
                warn!(%error, wait_ms, "the DHT client can't start, trying again");
                self.dht = self.start(wait_ms);
                false
            }
        }
    }

    fn on_timeout(&mut self) -> bool {
        let mut effects = Vec::new();
        self.chain.handle_timeout(now(self.started), &mut self.draw, &mut effects);
        self.carry_out(effects)
    }

    fn handle(&mut self, input: Input) -> bool {
        let mut effects = Vec::new();
        self.chain.handle(now(self.started), &mut self.draw, input, &mut effects);
        self.carry_out(effects)
    }

    /// Does what the chain wants. True when it is over.
    fn carry_out(&mut self, effects: Vec<Effect>) -> bool {
        let now = now(self.started);
        let (mut over, mut changed, mut dialed) = (false, false, false);
        for effect in effects {
            match effect {
                Effect::Read(slots) => self.read_all(slots),
                Effect::Put { slot, value, cas } => self.put(slot, value, cas),
                Effect::Found(candidate) => self.tell(ChainEvent::Found(candidate)),
                Effect::Changed => changed = true,
                Effect::HolderDialed => dialed = true,
                Effect::Over => over = true,
            }
        }
        self.counters.conflicts(self.chain.conflicts());
        let slots = self.chain.slots(now);
        self.slots.send_if_modified(|before| {
            let news = *before != slots;
            *before = slots;
            news
        });
        if changed || dialed {
            let summary = self.chain.summary(now);
            self.tell(ChainEvent::State(summary));
            self.tell_nodes(&summary);
            if changed {
                self.rebuild_if_unanswered(&summary);
            }
        }
        over
    }

    /// A client to which nobody answers may know dead bootstrap nodes only.
    fn rebuild_if_unanswered(&mut self, summary: &Summary) {
        if summary.answering {
            self.unanswered = 0;
            self.start_wait_ms = START_WAIT_MS;
            return;
        }
        self.unanswered += 1;
        if self.unanswered >= UNANSWERED_MAX && matches!(self.dht, DhtState::On(_)) {
            info!(reads = self.unanswered, "no storage node answers, starting the DHT client anew");
            self.unanswered = 0;
            self.dht = self.start(0);
        }
    }

    /// Tells which nodes of the DHT answer, now and then.
    fn tell_nodes(&mut self, summary: &Summary) {
        let DhtState::On(dht) = &self.dht else { return };
        if !summary.answering || self.nodes_told.is_some_and(|told| told.elapsed() < NODES_EVERY) {
            return;
        }
        self.nodes_told = Some(Instant::now());
        let (dht, events) = (dht.clone(), self.events.clone());
        self.jobs.spawn(async move {
            let nodes = dht.to_bootstrap().await;
            let nodes = nodes.iter().filter_map(|node| node.parse().ok()).take(NODES_MAX);
            // The next time is soon enough for one that is dropped.
            let _ = events.try_send(ChainEvent::Nodes(nodes.collect()));
        });
    }

    fn tell(&self, event: ChainEvent) {
        if self.events.try_send(event).is_err() {
            debug!("an event of the chain was dropped");
        }
    }

    /// Starts a lookup for each slot, in random order, so that none is always the last.
    fn read_all(&mut self, mut slots: Vec<u8>) {
        let mut wait = Duration::ZERO;
        while !slots.is_empty() {
            let at = self.draw.below(slots.len() as u64) as usize;
            self.read(slots.swap_remove(at), wait);
            wait += READ_APART;
        }
    }

    /// The DHT client, if there is one, and the relays. None if neither can be asked.
    fn sources(&self) -> Option<(Option<AsyncDht>, Option<Relays>)> {
        let dht = match &self.dht {
            DhtState::On(dht) => Some(dht.clone()),
            DhtState::Off | DhtState::Starting(_) => None,
        };
        (dht.is_some() || self.relays.is_some()).then(|| (dht, self.relays.clone()))
    }

    /// Asks storage nodes and relays for one slot. Each distinct value goes to the chain as it arrives.
    fn read(&mut self, slot: u8, wait: Duration) {
        let answers = self.answers.clone();
        let Some((dht, relays)) = self.sources() else {
            self.jobs.spawn(async move {
                let _ = answers.send(Input::ReadEnded { slot, answered: 0 }).await;
            });
            return;
        };
        self.counters.lookup();
        let keys = self.keys.clone();
        self.jobs.spawn(async move {
            tokio::time::sleep(wait).await;
            let asked = relays.map(|relays| relays.get(&keys, slot, &answers));
            let lookup = async {
                let responded = match dht {
                    Some(dht) => lookup(&dht, &keys.public_key(slot), slot, &answers).await,
                    None => 0,
                };
                (responded, responded > 0)
            };
            let (responded, given) = asked.unwrap_or_else(Asked::nobody).beside(lookup).await;
            let answered = responded + given.len() as u32;
            let _ = answers.send(Input::ReadEnded { slot, answered }).await;
        });
    }

    fn put(&mut self, slot: u8, value: SlotValue, cas: Option<i64>) {
        let answers = self.answers.clone();
        let seq = value.seq;
        let Some((dht, relays)) = self.sources() else {
            self.jobs.spawn(async move {
                let _ = answers.send(Input::PutFailed { slot, seq, refused: false }).await;
            });
            return;
        };
        self.counters.put();
        let (counters, keys) = (Arc::clone(&self.counters), self.keys.clone());
        self.jobs.spawn(async move {
            let asked = relays.map(|relays| relays.put(&keys, slot, &value, cas));
            let stored = async {
                let stored = match dht {
                    Some(dht) => store(&dht, keys.public_key(slot), value, cas).await,
                    None => Stored::default(),
                };
                (stored, stored.at > 0)
            };
            let (mut stored, given) = asked.unwrap_or_else(Asked::nobody).beside(stored).await;
            for put in given {
                stored.at += u32::from(put == relays::Put::Taken);
                stored.refused |= put == relays::Put::Refused;
            }
            let Stored { at: stored_at, refused } = stored;
            counters.stored_at(stored_at);
            debug!(slot, seq, stored_at, refused, "slot put");
            let input = match stored_at {
                0 => Input::PutFailed { slot, seq, refused },
                _ => Input::PutOk { slot, seq },
            };
            let _ = answers.send(input).await;
        });
    }
}

fn new_chain(config: &ChainConfig) -> Chain {
    let keys = SlotKeys::new(&config.keys);
    Chain::new(keys, config.signing_key.clone(), config.reach).metered(config.metered)
}

/// Asks the storage nodes for a slot; how many answered.
async fn lookup(dht: &AsyncDht, key: &[u8; 32], slot: u8, answers: &mpsc::Sender<Input>) -> u32 {
    let mut get = dht.get_mutable_detailed(key, None, None);
    let mut given = HashSet::new();
    while let Some(item) = get.items.next().await {
        let value = slot_value(&item);
        if given.insert(value.digest()) && answers.send(Input::Value { slot, value }).await.is_err()
        {
            return 0;
        }
    }
    get.outcome.recv().await.responded()
}

/// What became of a put.
#[derive(Debug, Clone, Copy, Default)]
struct Stored {
    /// Storage nodes and relays that acknowledged it.
    at: u32,
    /// Whether somebody refused it for another value.
    refused: bool,
}

async fn store(dht: &AsyncDht, key: [u8; 32], value: SlotValue, cas: Option<i64>) -> Stored {
    let SlotValue { seq, signature, value } = value;
    let item = MutableItem::new_signed_unchecked(key, signature, &value, seq, None);
    match dht.put_mutable(item, cas).await {
        Ok(outcome) => Stored { at: outcome.stored_at.max(1), refused: false },
        Err(error) => {
            debug!(seq, %error, "the DHT did not take a slot's value");
            Stored { at: 0, refused: matches!(error, PutMutableError::Concurrency(_)) }
        }
    }
}

/// Waits for a DHT client that is being built, else for ever.
async fn started(dht: &mut DhtState) -> io::Result<AsyncDht> {
    match dht {
        DhtState::Starting(built) => {
            built.await.unwrap_or_else(|error| Err(io::Error::other(error)))
        }
        DhtState::Off | DhtState::On(_) => std::future::pending().await,
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}

fn slot_value(item: &MutableItem) -> SlotValue {
    SlotValue { seq: item.seq(), signature: *item.signature(), value: item.value().to_vec() }
}

fn now(started: Instant) -> Now {
    let mono_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    // A clock before 1970 is as unset as one at it.
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono_ms, wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX) }
}

/// Resolves the bootstrap nodes and starts the client. Blocks. Where no name resolves, those that are
/// `known` are asked alone.
fn build(
    bootstrap: &[String],
    known: &[SocketAddrV4],
    request_timeout: Option<Duration>,
) -> io::Result<AsyncDht> {
    let public = mainline::DEFAULT_BOOTSTRAP_NODES.map(str::to_owned);
    let hosts = if bootstrap.is_empty() { &public[..] } else { bootstrap };
    let mut addresses = match resolve(hosts) {
        Err(error) if known.is_empty() => return Err(error),
        resolved => resolved.unwrap_or_default(),
    };
    addresses.extend(known.iter().take(NODES_MAX));
    let loopback = addresses.iter().all(|address| address.ip().is_loopback());
    let default_timeout = if loopback { REQUEST_TIMEOUT_LOOPBACK } else { REQUEST_TIMEOUT };
    let mut builder = Dht::builder();
    builder
        .bootstrap(&addresses)
        .port(0)
        .request_timeout(request_timeout.unwrap_or(default_timeout));
    if loopback {
        builder.bind_address(Ipv4Addr::LOCALHOST);
    }
    Ok(builder.build()?.as_async())
}

/// Mainline speaks IPv4 alone. A name that doesn't resolve is passed over while another does.
pub(crate) fn resolve(hosts: &[String]) -> io::Result<Vec<SocketAddrV4>> {
    let mut addresses = Vec::new();
    let mut failed = None;
    for host in hosts {
        match host.to_socket_addrs() {
            Ok(found) => addresses.extend(found.filter_map(|address| match address {
                SocketAddr::V4(address) => Some(address),
                SocketAddr::V6(_) => None,
            })),
            Err(error) => {
                failed =
                    Some(io::Error::new(error.kind(), format!("bootstrap node {host}: {error}")));
            }
        }
    }
    match failed {
        _ if !addresses.is_empty() => Ok(addresses),
        Some(error) => Err(error),
        None => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("none of {} bootstrap nodes has an IPv4 address", hosts.len()),
        )),
    }
}

mod meters;
mod relays;
#[cfg(test)]
mod tests;
