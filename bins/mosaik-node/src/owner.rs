//! The owner of a node's state: one loop that takes, commits, sends.
//!
//! Invariants:
//! - Nobody hears of an event before it is on disk here: effects go out after the commit, and a
//!   batch that can't be committed has none.
//! - The loop never waits for a peer or an asker.
//! - At the store's limit nothing is appended, and nothing that peers have is asked for; reads, and
//!   serving what is held, go on.
//! - A failed commit throws the replica away, not the process: sessions are closed, the store is
//!   reopened, a new replica is built from it. Until that succeeds reads go on, nothing is
//!   acknowledged, and the snapshot says why. A crash and a failed commit share this one way back.

mod probing;
mod retain;
mod room;
mod work;

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mosaik_core::{binding::RadioIdentity, feed::Ledger, id::NodeId, view::ViewError};
use mosaik_dht::{Candidate, ChainEvent, ChainHandle, Hint as SlotHint, Summary};
use mosaik_net::Delivery;
use mosaik_proto::{
    carrier::{Addresses, Effect, Input, Now, SessionId, Source},
    message::{Bye, ByeCode},
    peers::Unforgettable,
    replica::{self, Replica},
};
use mosaik_store::{Batch, Store, StoreError};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::{debug, info, warn};

use self::{
    probing::Probing,
    retain::Retention,
    room::Room,
    work::{Carrying, Outcome, Pending, Taken, Work},
};
use crate::{
    attachments::FileNews,
    carrier::Carriers,
    dht_nodes::DhtNodes,
    handle::{Appended, Desk, Pong, Request, Surroundings, WriteError},
    meters::Committed,
    retention::Rule,
    snapshot,
    strangers::Strangers,
};

/// Inputs of carriers that may wait for the owner; who brings more waits.
///
/// A guess; their bytes are bounded by [`mosaik_net::INCOMING_MAX`].
pub(crate) const INPUTS_MAX: usize = 256;
/// How often a new snapshot is shown at most: people and waiting scripts notice no less.
const SHOW_EVERY: Duration = Duration::from_millis(50);
/// How long a failed store is left alone before it is opened again.
const REOPEN_EVERY: Duration = Duration::from_secs(2);
/// How long a slot's tombstone and the peers' goodbyes may take.
const LEAVE_MAX: Duration = Duration::from_secs(4);

type Fault = ViewError<StoreError>;

/// What the loop is built from.
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) config: replica::Config,
    /// Bytes that the store may take; 0: as many as the disk has.
    pub(crate) store_max: u64,
    /// Which payloads are pruned when.
    pub(crate) retention: Vec<Rule>,
    pub(crate) carriers: Carriers,
    /// This author's identity in Reticulum, where it has a radio.
    pub(crate) radio: Option<RadioIdentity>,
    pub(crate) inputs: mpsc::Receiver<Delivery>,
    pub(crate) chain: Option<(ChainHandle, mpsc::Receiver<ChainEvent>)>,
    /// Where the nodes of the DHT are kept.
    pub(crate) dht_nodes: DhtNodes,
    /// Where it is told what concerns files over radio; none without one.
    pub(crate) files: Option<mpsc::UnboundedSender<FileNews>>,
    pub(crate) desk: Desk,
    pub(crate) started: Instant,
}

/// What woke the loop.
enum Woken {
    Input(Option<Delivery>),
    Request(Option<Request>),
    Chain(Option<ChainEvent>),
    Time,
}

pub(crate) struct Owner {
    store: Store,
    config: replica::Config,
    /// None while the store is out of order.
    replica: Option<Replica>,
    carriers: Carriers,
    /// What is to be said at the start.
    radio: Option<RadioIdentity>,
    inputs: mpsc::Receiver<Delivery>,
    chain: Option<ChainHandle>,
    chain_events: Option<mpsc::Receiver<ChainEvent>>,
    dht_nodes: DhtNodes,
    files: Option<mpsc::UnboundedSender<FileNews>>,
    desk: Desk,
    started: Instant,
    next_token: u64,
    /// Who waits for which append.
    pending: BTreeMap<u64, Vec<Pending>>,
    /// Who waits for a comparison that began after this moment.
    synced: Vec<(u64, oneshot::Sender<()>)>,
    /// Who waits until so many peers hold the own feed up to some seq; none: up to its end once the
    /// store is in order again.
    replicated: Vec<(Option<u64>, usize, oneshot::Sender<()>)>,
    /// Who waits for the answer to which ping, and since when that is under way.
    pings: BTreeMap<u64, (Instant, oneshot::Sender<Result<Pong, String>>)>,
    /// Who waits for a peer to be forgotten.
    forgetting: Vec<(NodeId, oneshot::Sender<Result<(), Unforgettable>>)>,
    probing: Probing,
    /// Open sessions, until this node or the peer closes them.
    open: HashMap<SessionId, NodeId>,
    strangers: Strangers,
    slots: Option<Summary>,
    own_addresses: Addresses,
    /// Whether a person wants no sessions.
    is_paused: bool,
    degraded: Option<String>,
    room: Room,
    retention: Retention,
    shown: Option<Instant>,
    /// Whether something may have changed since.
    is_stale: bool,
    reopen_at: Option<Instant>,
}

impl Owner {
    /// Builds the replica on the store; both are fresh, so an error ends the start.
    pub(crate) fn new(parts: Parts) -> Result<Self, Fault> {
        let Parts { store, config, store_max, retention, .. } = parts;
        let Parts { carriers, radio, inputs, chain, dht_nodes, files, desk, started, .. } = parts;
        let (chain, chain_events) = chain.unzip();
        let mut owner = Self {
            store,
            config,
            replica: None,
            carriers,
            radio,
            inputs,
            chain,
            chain_events,
            dht_nodes,
            files,
            desk,
            started,
            next_token: 0,
            pending: BTreeMap::new(),
            synced: Vec::new(),
            replicated: Vec::new(),
            pings: BTreeMap::new(),
            forgetting: Vec::new(),
            probing: Probing::default(),
            open: HashMap::new(),
            strangers: Strangers::default(),
            slots: None,
            own_addresses: Addresses::default(),
            is_paused: false,
            degraded: None,
            room: Room::new(store_max),
            retention: Retention::new(retention),
            shown: None,
            is_stale: true,
            reopen_at: None,
        };
        owner.room.look(&owner.store);
        owner.open_replica()?;
        Ok(owner)
    }

    fn open_replica(&mut self) -> Result<(), Fault> {
        let (now, config) = (self.now(), self.config.clone());
        let replica = self.store.write(|batch| Replica::open(config, now, batch))?;
        // From now on some peer may hold this feed.
        self.config.author_is_new = false;
        let reader = self.store.reader()?;
        self.arrived(reader.last_arrival()?);
        self.desk.meters.begin(reader.counts()?.events);
        self.replica = Some(replica);
        Ok(())
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono_ms: self.started.elapsed().as_millis() as u64, wall_ms: wall.as_millis() as u64 }
    }

    /// Runs until somebody asks to stop or nobody can ask any more.
    pub(crate) async fn run(mut self, first: Vec<Input>) {
        let name = self.config.name.clone();
        let radio = self.radio.take().map(|identity| Work::Radio(Box::new(identity)));
        self.batch(first, std::iter::once(Work::Profile(name)).chain(radio).collect());
        loop {
            self.compact_if_asked();
            self.retain_if_due();
            self.show();
            let woken = self.sleep().await;
            let mut taken = Taken::default();
            match woken {
                Woken::Input(Some(delivery)) => taken.deliver(delivery),
                Woken::Request(Some(request)) => self.take_request(request, &mut taken),
                Woken::Chain(Some(event)) => self.take_chain(event, &mut taken.inputs),
                Woken::Chain(None) => self.chain_events = None,
                Woken::Request(None) | Woken::Input(None) => break,
                // Only to show what the last batch changed.
                Woken::Time if !self.is_due() => continue,
                Woken::Time => {}
            }
            while !taken.is_full() {
                if let Ok(delivery) = self.inputs.try_recv() {
                    taken.deliver(delivery);
                } else if let Ok(request) = self.desk.inbox.try_recv() {
                    self.take_request(request, &mut taken);
                } else {
                    break;
                }
            }
            let Taken { inputs, works, rooms, stop, .. } = taken;
            self.batch(inputs, works);
            drop(rooms);
            if stop {
                break;
            }
        }
        // Boxed: the farewells' state would be part of every turn of the loop.
        Box::pin(self.leave()).await;
    }

    /// Waits for whatever comes first.
    async fn sleep(&mut self) -> Woken {
        let now = Instant::now();
        let timeout_ms = self.replica.as_ref().map_or(u64::MAX, Replica::next_timeout_ms);
        let due = self.started.checked_add(Duration::from_millis(timeout_ms));
        let show = self.shown.filter(|_| self.is_stale).map(|shown| shown + SHOW_EVERY);
        let room = [self.room.next_try(), self.retention.next_step()];
        let wake = [due, show, self.reopen_at].into_iter().chain(room).flatten().min();
        let wake = wake.unwrap_or(now + Duration::from_secs(60)).max(now);
        tokio::select! {
            biased;
            request = self.desk.inbox.recv() => Woken::Request(request),
            input = self.inputs.recv() => Woken::Input(input),
            Some(event) = next_event(&mut self.chain_events) => Woken::Chain(event),
            () = tokio::time::sleep_until(wake.into()) => Woken::Time,
        }
    }

    /// Whether time itself has brought something to do.
    fn is_due(&self) -> bool {
        let now_ms = self.now().mono_ms;
        self.replica.as_ref().is_some_and(|replica| replica.next_timeout_ms() <= now_ms)
            || self.reopen_at.is_some_and(|at| at <= Instant::now())
    }

    // Take

    /// Turns a request into inputs and works.
    fn take_request(&mut self, request: Request, taken: &mut Taken) {
        match request {
            Request::Edit { edit, reply } => taken.works.push(Work::Edit(edit, reply)),
            Request::Block { peer, on, reply } => {
                taken.inputs.push(Input::Block { peer, blocked: on });
                taken.works.push(Work::Reply(reply));
            }
            Request::Dial { ticket, reply } => {
                let addresses = Addresses { direct: ticket.addresses, relays: ticket.relays };
                let (peer, source) = (ticket.node, Source::Ticket);
                taken.inputs.push(Input::Found { peer, addresses, source });
                taken.works.push(Work::Reply(reply));
            }
            Request::Peers { reply } => {
                let peers = self.replica.as_ref().map(|replica| {
                    let strangers = self.strangers.refused();
                    let wall_ms = self.now().wall_ms;
                    snapshot::peers_in_full(replica, &self.carriers, strangers, wall_ms)
                });
                drop(reply.send(peers.unwrap_or_default()));
            }
            Request::Surroundings { reply } => {
                let replica = self.replica.as_ref();
                let surroundings = Surroundings {
                    outlook: self.carriers.outlook(),
                    slots: self.slots,
                    clock_offset_ms: replica.and_then(Replica::clock_offset_ms),
                    clock_unset: self.now().wall_ms < self.config.clock_floor_ms,
                };
                drop(reply.send(surroundings));
            }
            Request::Ping { peer, reply } => {
                self.next_token += 1;
                let token = self.next_token;
                self.pings.insert(token, (Instant::now(), reply));
                taken.inputs.push(Input::Ping { token, peer });
            }
            Request::Probe { reply } => {
                self.next_token += 1;
                self.probing.ask(self.next_token, reply);
                taken.inputs.push(Input::Probe { token: self.next_token });
            }
            Request::Probed { reply } => {
                let wall_ms = self.now().wall_ms;
                drop(reply.send(self.probing.report(self.replica.as_ref(), wall_ms)));
            }
            Request::Forget { peer, reply } => {
                self.forgetting.push((peer, reply));
                taken.inputs.push(Input::Forget { peer });
            }
            Request::Compare { reply } => {
                self.synced.push((self.now().mono_ms, reply));
                taken.inputs.push(Input::Compare);
            }
            Request::Fetch { author, seq, reply } => {
                self.synced.push((self.now().mono_ms, reply));
                taken.works.push(Work::Want(author, seq));
                taken.inputs.push(Input::Compare);
            }
            Request::Compact { reply } => self.room.ask(reply),
            Request::Replicas { count, reply } => {
                let seq = self.replica.as_ref().map(Replica::own_seq);
                self.replicated.push((seq, count, reply));
            }
            Request::Pause { on, reply } => {
                self.pause(on);
                taken.inputs.push(Input::Pause(on));
                // Whoever asked may be gone.
                let _ = reply.send(());
            }
            Request::Shutdown => taken.stop = true,
        }
    }

    fn pause(&mut self, on: bool) {
        info!(on, "paused by hand");
        self.is_paused = on;
        self.carriers.pause(on);
        if let Some(chain) = &self.chain {
            chain.pause(on);
        }
    }

    fn take_chain(&mut self, event: ChainEvent, inputs: &mut Vec<Input>) {
        match event {
            ChainEvent::Found(found) => inputs.extend(found_inputs(found)),
            ChainEvent::State(summary) => self.slots = Some(summary),
            ChainEvent::Nodes(nodes) => self.dht_nodes.keep(&nodes),
        }
    }

    // Commit

    /// Takes a batch, commits it whole, and only then sends what it lets go.
    fn batch(&mut self, inputs: Vec<Input>, works: Vec<Work>) {
        let now = self.now();
        self.is_stale = true;
        if self.reopen_at.is_some_and(|at| at <= Instant::now()) {
            self.reopen();
        }
        for input in &inputs {
            self.note_input(input);
        }
        let Some(mut replica) = self.replica.take() else {
            return self.refuse(inputs, works);
        };
        let is_full = self.room.full().is_some();
        let works = self.room.turn_away(works);
        let mut effects = Vec::new();
        let mut done = Vec::new();
        let mut token = self.next_token;
        let mut last_arrival = *self.desk.arrivals.borrow();
        let (begun, mut events) = (Instant::now(), 0);
        let written = self.store.write(|batch: &mut Batch<'_>| -> Result<(), Fault> {
            replica.set_full(now, is_full, batch, &mut effects)?;
            replica.handle_timeout(now, batch, &mut effects)?;
            for input in inputs {
                if let Some(way) = probing::way(&input, &self.carriers) {
                    replica.handle(now, way, batch, &mut effects)?;
                }
                replica.handle(now, input, batch, &mut effects)?;
            }
            Carrying::new(now, &mut replica, batch, &mut effects, &mut token, &mut done)
                .all(works)?;
            replica.end_batch(now, batch, &mut effects)?;
            last_arrival = batch.last_arrival();
            events = batch.counts()?.events;
            Ok(())
        });
        self.next_token = token;
        match written {
            Ok(()) => {
                let (took, totals) = (begun.elapsed(), replica.totals());
                let written = effects.iter().map(written_by).sum();
                self.desk.meters.committed(Committed { took, events, written, totals });
                self.replica = Some(replica);
                self.arrived(last_arrival);
                if self.room.look(&self.store) {
                    // Whoever is refused next finds the reason in `status`.
                    self.shown = None;
                }
                for outcome in done {
                    self.finish(outcome);
                }
                for effect in effects {
                    self.send(effect);
                }
                if let Some(replica) = &self.replica {
                    self.carriers.note(replica, events);
                }
                self.tell_synced();
                self.tell_replicated();
            }
            Err(error) => self.recover(&replica, done, &error),
        }
    }

    /// Tells who follows events, if there are new ones.
    fn arrived(&self, last: u64) {
        self.desk.arrivals.send_if_modified(|told| std::mem::replace(told, last) != last);
    }

    /// Answers what needed no append, and remembers what waits for one.
    fn finish(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Waits(token, pending) => {
                self.pending.insert(token, pending);
            }
            // Whoever asked may be gone: then nobody hears.
            Outcome::Edited(reply, result) => drop(reply.send(result)),
            Outcome::Done(reply) => drop(reply.send(Ok(()))),
        }
    }

    // Send

    fn send(&mut self, effect: Effect) {
        self.strangers.note_effect(&effect, self.now().wall_ms);
        if let Some(news) = FileNews::of(&effect) {
            self.tell_files(news);
        }
        match &effect {
            Effect::FilePeer { .. }
            | Effect::FileAsked { .. }
            | Effect::FileSlice { .. }
            | Effect::FileLacked { .. } => return,
            Effect::Appended { token, author, events } => {
                let mut rest = events.as_slice();
                for Pending { reply, rows, events } in
                    self.pending.remove(token).into_iter().flatten()
                {
                    let (theirs, others) = rest.split_at(events.min(rest.len()));
                    rest = others;
                    let appended = Appended { author: *author, events: theirs.to_vec(), rows };
                    drop(reply.send(Ok(appended)));
                }
                return;
            }
            Effect::Pinged { token } => {
                if let Some((since, _)) = self.pings.get_mut(token) {
                    *since = Instant::now();
                }
                return;
            }
            Effect::Ponged { token, answer } => {
                if let Some((since, reply)) = self.pings.remove(token) {
                    let pong = |session: &SessionId| Pong {
                        rtt: since.elapsed(),
                        path: self.carriers.path(*session),
                    };
                    drop(reply.send(answer.as_ref().map(pong).map_err(Clone::clone)));
                }
                return;
            }
            Effect::ProbeBegun { .. } | Effect::ProbeAnswered { .. } | Effect::ProbeCame { .. } => {
                let wall_ms = self.now().wall_ms;
                return self.probing.note(effect, self.replica.as_ref(), wall_ms);
            }
            Effect::Forgotten { peer, result } => {
                for (_, reply) in self.forgetting.extract_if(.., |(waiting, _)| waiting == peer) {
                    let _ = reply.send(*result);
                }
                return;
            }
            Effect::Opened { session, peer, .. } => {
                self.open.insert(*session, *peer);
                self.desk.meters.peer_came(self.started.elapsed());
                if let Some(chain) = &self.chain {
                    chain.session_up(*peer);
                }
            }
            Effect::Close { session, bye } => {
                let was_open = self.open.remove(session).is_some();
                debug!(was_open, reason = bye.text, "a session is closed");
            }
            _ => {}
        }
        self.carriers.carry(effect);
    }

    /// Tells the chain what concerns it, and remembers who is there.
    fn note_input(&mut self, input: &Input) {
        self.strangers.note_input(input);
        match input {
            Input::DialFailed { peer, reason } => {
                debug!(peer = peer.short(), reason, "a dial led nowhere");
                if let Some(chain) = &self.chain {
                    chain.dial_failed(*peer);
                }
            }
            Input::Disconnected { session, .. } => {
                self.tell_files(FileNews::Over(*session));
                if let (Some(peer), Some(chain)) = (self.open.remove(session), &self.chain) {
                    chain.session_broke(peer);
                }
            }
            Input::OwnAddresses(addresses) => {
                self.own_addresses = addresses.clone();
                if let Some(chain) = &self.chain {
                    chain.set_addresses(addresses.relays.clone(), addresses.direct.clone());
                }
            }
            _ => {}
        }
    }

    fn tell_files(&self, news: FileNews) {
        if let Some(files) = &self.files {
            // Who keeps the files ends after this loop, or has broken off.
            let _ = files.send(news);
        }
    }

    fn tell_synced(&mut self) {
        let Some(since_ms) = self.replica.as_ref().and_then(Replica::synced_since_ms) else {
            return;
        };
        self.synced.retain(|(_, reply)| !reply.is_closed());
        let is_early = |(asked_ms, _): &(u64, _)| *asked_ms > since_ms;
        let (waiting, done) = std::mem::take(&mut self.synced).into_iter().partition(is_early);
        self.synced = waiting;
        for (_, reply) in done {
            // Whoever waited may be gone.
            let _ = reply.send(());
        }
    }

    fn tell_replicated(&mut self) {
        let Some(replica) = &self.replica else { return };
        self.replicated.retain(|(.., reply)| !reply.is_closed());
        let (mut waiting, mut done) = (Vec::new(), Vec::new());
        for (seq, count, reply) in std::mem::take(&mut self.replicated) {
            let seq = seq.unwrap_or_else(|| replica.own_seq());
            let list = if replica.replicas(seq) < count { &mut waiting } else { &mut done };
            list.push((Some(seq), count, reply));
        }
        self.replicated = waiting;
        for (.., reply) in done {
            // Whoever waited may be gone.
            let _ = reply.send(());
        }
    }

    // Trouble

    /// A batch could not be committed: nothing of it is sent or acknowledged.
    fn recover(&mut self, replica: &Replica, done: Vec<Outcome>, error: &Fault) {
        let why = format!("{:#}", anyhow::Error::msg(cause(error)));
        warn!(why, "a commit failed; reading goes on, writing waits for the store");
        for outcome in done {
            match outcome {
                Outcome::Waits(token, pending) => drop(self.pending.insert(token, pending)),
                Outcome::Edited(reply, _) => {
                    drop(reply.send(Err(WriteError::Degraded(why.clone()))));
                }
                Outcome::Done(reply) => drop(reply.send(Err(WriteError::Degraded(why.clone())))),
            }
        }
        for Pending { reply, .. } in std::mem::take(&mut self.pending).into_values().flatten() {
            drop(reply.send(Err(WriteError::Degraded(why.clone()))));
        }
        for session in replica.sessions() {
            let bye = Bye::new(ByeCode::Unable, "the store is out of order, try later");
            self.send(Effect::Close { session: session.session, bye });
        }
        // The replica that would have answered is gone.
        self.pings.clear();
        self.forgetting.clear();
        self.probing.clear();
        self.degraded = Some(why);
        self.shown = None;
        self.reopen_at = Some(Instant::now());
    }

    fn reopen(&mut self) {
        self.reopen_at = None;
        let reopened = self.store.reopen().map_err(|error| cause(&error));
        match reopened.and_then(|()| self.open_replica().map_err(|error| cause(&error))) {
            Ok(()) => {
                info!("the store is in order again");
                self.degraded = None;
                let addresses = self.own_addresses.clone();
                let inputs = vec![Input::OwnAddresses(addresses), Input::Pause(self.is_paused)];
                self.batch(inputs, Vec::new());
            }
            Err(why) => {
                debug!(why, "the store can't be opened again yet");
                self.degraded = Some(why);
                self.reopen_at = Some(Instant::now() + REOPEN_EVERY);
            }
        }
        self.shown = None;
    }

    /// While the store is out of order: no sessions, no writes.
    fn refuse(&mut self, inputs: Vec<Input>, works: Vec<Work>) {
        for input in inputs {
            if let Input::Connected { session, .. } = input {
                let bye = Bye::new(ByeCode::Unable, "the store is out of order, try later");
                self.carriers.carry(Effect::Close { session, bye });
            }
        }
        // Whoever waits is told that nothing came of it.
        self.pings.clear();
        self.forgetting.clear();
        self.probing.clear();
        let why = self.degraded.clone().unwrap_or_default();
        for work in works {
            match work {
                Work::Edit(_, reply) => drop(reply.send(Err(WriteError::Degraded(why.clone())))),
                Work::Reply(reply) => drop(reply.send(Err(WriteError::Degraded(why.clone())))),
                Work::Profile(_) | Work::Radio(_) | Work::Want(..) => {}
            }
        }
    }

    // Show

    /// Shows a new snapshot, if the last one is old enough and says something else.
    fn show(&mut self) {
        if !self.is_stale || self.shown.is_some_and(|shown| shown.elapsed() < SHOW_EVERY) {
            return;
        }
        self.shown = Some(Instant::now());
        self.is_stale = false;
        let slots = self.chain.as_ref().map(ChainHandle::slots).unwrap_or_default();
        let new = snapshot::of(snapshot::Sources {
            now: self.now(),
            name: &self.config.name,
            replica: self.replica.as_ref(),
            carriers: &self.carriers,
            strangers: self.strangers.refused(),
            last: &self.desk.snapshots.borrow(),
            addresses: &self.own_addresses,
            summary: self.slots,
            slots: &slots,
            degraded: self.degraded.as_deref().or(self.room.full()),
        });
        if let (Some(chain), Some(replica)) = (&self.chain, &self.replica) {
            chain.set_peers(replica.open_peers());
            chain.set_clock_offset(replica.clock_offset_ms().unwrap_or(0));
            chain.set_neighbours(snapshot::neighbours(replica, self.now().wall_ms));
        }
        self.desk.snapshots.send_if_modified(|shown| {
            let changed = *shown != new;
            *shown = new;
            changed
        });
    }

    /// Says goodbye to all, leaves the slot, closes the carriers.
    async fn leave(mut self) {
        self.desk.inbox.close();
        self.batch(vec![Input::Leave], Vec::new());
        if self.replica.is_some()
            && let Err(error) = self.store.has_served()
        {
            warn!(error = cause(&error), "the copy of the store before its migration stays");
        }
        let Self { carriers, chain, .. } = self;
        let slot = async {
            if let Some(chain) = chain {
                let _ = timeout(LEAVE_MAX, chain.leave()).await;
            }
        };
        tokio::join!(slot, carriers.close());
    }
}

/// How many own events an effect tells of.
fn written_by(effect: &Effect) -> u64 {
    match effect {
        Effect::Appended { events, .. } => events.len() as u64,
        _ => 0,
    }
}

/// The next event of the chain; never, where there is none.
async fn next_event(events: &mut Option<mpsc::Receiver<ChainEvent>>) -> Option<Option<ChainEvent>> {
    match events {
        Some(events) => Some(events.recv().await),
        None => std::future::pending().await,
    }
}

/// A slot's holder and those that it names, as peers to dial.
fn found_inputs(found: Candidate) -> Vec<Input> {
    let mut inputs: Vec<Input> = found
        .neighbours
        .into_iter()
        .map(|neighbour| {
            let mut addresses = Addresses::default();
            match &neighbour.hint {
                SlotHint::Address(address) => addresses.direct.push(*address),
                SlotHint::Relay(_) => addresses.relays.extend(neighbour.hint.relay_url()),
            }
            Input::Found { peer: neighbour.node, addresses, source: Source::SlotNeighbour }
        })
        .collect();
    let addresses = Addresses { direct: found.addresses, relays: found.relays };
    inputs.push(Input::Found { peer: found.node, addresses, source: Source::Slot });
    inputs
}

/// An error and what lies below it, in one line.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
