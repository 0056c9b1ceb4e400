//! The replica: the pure state machine that decides for one node.
//!
//! Invariants:
//! - One owner feeds it inputs, commits what it wrote to the ledger, and only then carries out its
//!   effects: nobody hears of an event before it is durable here.
//! - It never blocks and fails only with the ledger; then it is thrown away and opened anew.
//! - After every batch of inputs [`Replica::end_batch`] tells, asks and serves.
//!
//! Source: FORMAT.md beside this crate.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use mosaik_core::{
    event::Draft,
    feed::{Ledger, Tip, Way},
    hlc::SKEW_MAX_MS,
    id::{AuthorId, NodeId},
    key::NetworkKeys,
    run::VerifiedRun,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    Fault,
    asks::Asks,
    carrier::{Addresses, Effect, Input, Now, Role, SessionId},
    feeds::{Feeds, Taken, Wall},
    hint::{Hint, INLINE_RUN_MAX, Presence},
    message::{Bye, ByeCode, Message, NAME_LEN_MAX, Reason},
    peers::{PeerBook, PeerState, Retry, SESSIONS_KEPT},
    session::{Me, Notice, Session, Shared, settle_claims},
};

/// How long the first append after a start waits for the node's own feed, in milliseconds.
pub const OWN_FEED_WAIT_MS: u64 = 2000;
/// How long two sessions of one node id under two boot numbers must both last before they count as
/// two nodes: longer than a dead connection takes to be noticed (8 s), in milliseconds.
const TWIN_AFTER_MS: u64 = 10_000;
/// How often held-back events, surplus sessions and twins are looked at, in milliseconds.
const TICK_MS: u64 = 5_000;
/// A random lost peer is probed this often, plus half as much at random, in milliseconds.
const PROBE_MS: u64 = 20_000;
/// How long a peer that closed an idle session is left alone, in milliseconds.
const DONE_WAIT_MS: u64 = 60_000;
/// Presence is told at most this often, in milliseconds.
const PRESENCE_GAP_MS: u64 = 1_000;
/// Sessions at a time, greeting ones included.
const SESSIONS_MAX: usize = 256;

const META_BOOT: &str = "boot";
const META_PEERS: &str = "peers";
const META_BLOCKED: &str = "blocked";

/// What a replica is told once.
#[derive(Debug, Clone)]
pub struct Config {
    /// The network's keys.
    pub keys: NetworkKeys,
    /// The node's key: presence is signed with it. Its public half is the transport's own id.
    pub node_key: SigningKey,
    /// The key of the feed that this node writes.
    pub author_key: SigningKey,
    /// Whether that key was made just now, so that no peer can hold any of its feed.
    pub author_is_new: bool,
    /// What the people here call the node.
    pub name: String,
    /// Name and version of the program.
    pub software: String,
    /// Time between comparisons with a peer, in milliseconds.
    pub sync_interval_ms: u64,
    /// At most this is added to it, drawn anew each time, in milliseconds.
    pub sync_jitter_ms: u64,
    /// Authors that are taken; a tip counts like one.
    pub authors_max: usize,
    /// A wall clock before this was never set, Unix ms: the program's own date.
    pub clock_floor_ms: u64,
    /// Where chance begins.
    pub seed: u64,
}

/// Totals since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Runs that brought something new.
    pub runs_taken: u64,
    /// Runs that brought nothing.
    pub runs_duplicate: u64,
    /// Sessions ended because the peer broke the protocol.
    pub violations: u64,
    /// Runs and items of declined authors.
    pub declined: u64,
}

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// No peer, and none to try.
    Isolated,
    /// No session yet, but somebody to dial.
    Joining,
    /// Something that a peer showed is still to come.
    Syncing,
    /// A comparison within the last two intervals, and all that it showed is here.
    InSync,
}

/// One open session, for `peers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStatus {
    /// Its number.
    pub session: SessionId,
    /// With whom.
    pub peer: NodeId,
    /// Which end this is.
    pub role: Role,
    /// Whether hellos are exchanged.
    pub is_open: bool,
}

/// See the module's head.
#[derive(Debug)]
pub struct Replica {
    config: Config,
    me: Me,
    feeds: Feeds,
    asks: Asks,
    peers: PeerBook,
    sessions: BTreeMap<SessionId, Session>,
    /// What each peer declines, and the digest that it came under.
    peer_declines: BTreeMap<NodeId, ([u8; 16], BTreeMap<AuthorId, Reason>)>,
    neighbours: BTreeSet<NodeId>,
    /// Offsets of the peers' clocks against this one, in milliseconds.
    clock_offsets: BTreeMap<NodeId, i64>,
    own_addresses: Addresses,
    /// Own runs of this batch: told as they are.
    fresh: Vec<VerifiedRun>,
    /// Appends that wait for the own feed, and until when.
    waiting: Vec<(u64, Vec<Draft>)>,
    own_feed_until_ms: Option<u64>,
    changed: bool,
    totals: Totals,
    twin: Option<u64>,
    /// Pairs of sessions of one node id that were told of each other.
    twins_told: BTreeSet<(SessionId, SessionId)>,
    synced_strict_ms: Option<u64>,
    synced_ms: Option<u64>,
    again: u64,
    next_tick_ms: u64,
    next_round_ms: u64,
    next_probe_ms: u64,
    next_presence_ms: Option<u64>,
    last_presence_ms: Option<u64>,
    rng: StdRng,
}

impl Replica {
    /// Builds a replica on what `ledger` holds. Counts the start: the boot number is durable once
    /// the caller commits.
    ///
    /// # Errors
    ///
    /// The ledger's.
    pub fn open<L: Ledger>(mut config: Config, now: Now, ledger: &mut L) -> Result<Self, Fault<L>> {
        let wall =
            Wall { ms: now.wall_ms, confirmed: false, unset: now.wall_ms < config.clock_floor_ms };
        let feeds = Feeds::open(
            &config.keys.fingerprint,
            config.author_key.clone(),
            config.authors_max,
            wall,
            ledger,
        )?;
        let last_boot = ledger.meta(META_BOOT)?.and_then(|bytes| bytes.try_into().ok());
        let last_boot = last_boot.map_or(0, u64::from_be_bytes);
        // Time makes two copies of one store differ; counting makes a clock that fell harmless.
        let boot = now.wall_ms.max(last_boot + 1);
        ledger.set_meta(META_BOOT, &boot.to_be_bytes())?;
        let mut peers = PeerBook::default();
        if let Some(cache) = ledger.meta(META_PEERS)? {
            // A damaged cache only lacks peers.
            let _ = peers.restore(&cache, now.mono_ms);
        }
        for node in ledger.meta(META_BLOCKED)?.unwrap_or_default().chunks_exact(32) {
            peers.block(NodeId(node.try_into().unwrap_or_default()), true, now.mono_ms);
        }
        let mut cut = config.name.len().min(NAME_LEN_MAX);
        while !config.name.is_char_boundary(cut) {
            cut -= 1;
        }
        config.name.truncate(cut);
        let me = Me {
            node: NodeId(config.node_key.verifying_key().to_bytes()),
            membership: config.keys.membership,
            fingerprint: config.keys.fingerprint,
            software: config.software.clone(),
            name: config.name.clone(),
            boot,
            interval_ms: config.sync_interval_ms,
            jitter_ms: config.sync_jitter_ms,
        };
        let mut rng = StdRng::seed_from_u64(config.seed);
        let jitter_ms = rng.random_range(0..=config.sync_jitter_ms);
        Ok(Self {
            own_feed_until_ms: (!config.author_is_new).then_some(now.mono_ms + OWN_FEED_WAIT_MS),
            next_round_ms: now.mono_ms + config.sync_interval_ms + jitter_ms,
            next_probe_ms: now.mono_ms + PROBE_MS,
            next_tick_ms: now.mono_ms,
            config,
            me,
            feeds,
            asks: Asks::default(),
            peers,
            sessions: BTreeMap::new(),
            peer_declines: BTreeMap::new(),
            neighbours: BTreeSet::new(),
            clock_offsets: BTreeMap::new(),
            own_addresses: Addresses::default(),
            fresh: Vec::new(),
            waiting: Vec::new(),
            changed: true,
            totals: Totals::default(),
            twin: None,
            twins_told: BTreeSet::new(),
            synced_strict_ms: None,
            synced_ms: None,
            again: 0,
            next_presence_ms: None,
            last_presence_ms: None,
            rng,
        })
    }

    /// Takes one input. What must be done is appended to `effects`, to be carried out after
    /// [`Replica::end_batch`] and the commit.
    ///
    /// # Errors
    ///
    /// The ledger's: throw this replica and its effects away, and open another.
    pub fn handle<L: Ledger>(
        &mut self,
        now: Now,
        input: Input,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault<L>> {
        let mut notices = Vec::new();
        match input {
            Input::Append { token, drafts } => {
                self.on_append(now, token, drafts, ledger, effects)?
            }
            Input::Connected { session, peer, role, binding } => {
                self.on_connected(now, (session, peer, role), binding, ledger, effects);
            }
            Input::Frame { session, message } => {
                let (session, mut shared) =
                    self.session(now, session, ledger, effects, &mut notices);
                if let Some(session) = session {
                    session.handle(message, &mut shared)?;
                }
            }
            Input::BadFrame { session, error } => {
                let (session, mut shared) =
                    self.session(now, session, ledger, effects, &mut notices);
                if let Some(session) = session {
                    session.violation(error.to_string(), &mut shared);
                }
            }
            Input::Progress { session } => self.asks.progress(session, now.mono_ms),
            Input::Sent { session, bytes } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.on_sent(bytes);
                }
            }
            Input::Disconnected { session, reason } => {
                self.end_session(now, session, PeerState::Lost, &reason);
            }
            Input::DialFailed { peer, reason } => {
                let chance = self.rng.random();
                self.peers.dial_failed(peer, &reason, now.mono_ms, chance);
            }
            Input::Found { peer, addresses, source } => {
                if peer != self.me.node {
                    self.peers.observe(peer, addresses, source, now.mono_ms);
                }
            }
            Input::Hint { from, hint } => self.on_hint(now, from, hint, ledger, &mut notices)?,
            Input::Neighbour { peer, up } => self.on_neighbour(now, peer, up),
            Input::OwnAddresses(addresses) => {
                self.own_addresses = addresses;
                self.tell_presence_soon(now);
            }
            Input::Compare => self.compare(now, ledger, effects, &mut notices),
            Input::Block { peer, blocked } => {
                self.on_block(now, peer, blocked, ledger, effects, &mut notices)?;
            }
            Input::Leave => self.leave(now, ledger, effects, &mut notices),
        }
        self.on_notices(now, notices, ledger, effects)
    }

    /// Does what is due by now.
    ///
    /// # Errors
    ///
    /// As [`Replica::handle`].
    pub fn handle_timeout<L: Ledger>(
        &mut self,
        now: Now,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault<L>> {
        let mut notices = Vec::new();
        let due = |session: &Session| session.next_timeout_ms().is_some_and(|ms| ms <= now.mono_ms);
        let ids: Vec<SessionId> =
            self.sessions.values().filter(|session| due(session)).map(|s| s.id).collect();
        for id in ids {
            let jitter_ms = self.jitter();
            let (session, mut shared) = self.session(now, id, ledger, effects, &mut notices);
            if let Some(session) = session {
                session.handle_timeout(jitter_ms, &mut shared);
            }
        }
        self.on_notices(now, notices, ledger, effects)?;
        if self.next_tick_ms <= now.mono_ms {
            self.next_tick_ms = now.mono_ms + TICK_MS;
            self.tick(now, ledger, effects)?;
        }
        if self.own_feed_until_ms.is_some_and(|until_ms| until_ms <= now.mono_ms) {
            self.own_feed_is_here(now, ledger, effects)?;
        }
        self.dial_due(now, effects);
        if self.next_presence_ms.is_some_and(|ms| ms <= now.mono_ms) {
            self.tell_presence(now, false, effects);
        }
        Ok(())
    }

    /// When [`Replica::handle_timeout`] has something to do: monotonic milliseconds.
    pub fn next_timeout_ms(&self) -> u64 {
        let sessions = self.sessions.values().filter_map(Session::next_timeout_ms);
        let others = [
            self.asks.next_timeout_ms(),
            self.own_feed_until_ms,
            self.next_presence_ms,
            self.peers.next_due_ms(self.sessions.len()),
        ];
        let fixed = [self.next_tick_ms, self.next_round_ms, self.next_probe_ms];
        sessions.chain(others.into_iter().flatten()).chain(fixed).min().unwrap_or(u64::MAX)
    }

    /// Ends a batch: tells what is new, asks for what is claimed, serves what is asked, and brings
    /// the view's digests up to date. Then commit, then carry out the effects.
    ///
    /// # Errors
    ///
    /// As [`Replica::handle`].
    pub fn end_batch<L: Ledger>(
        &mut self,
        now: Now,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault<L>> {
        let mut notices = Vec::new();
        self.tell_news(now, ledger, effects)?;
        for next in self.asks.next(now.mono_ms) {
            let (session, mut shared) =
                self.session(now, next.session, ledger, effects, &mut notices);
            if let Some(session) = session {
                session.want(next, &mut shared);
            }
        }
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            let (session, mut shared) = self.session(now, id, ledger, effects, &mut notices);
            let Some(session) = session.filter(|session| session.is_open()) else { continue };
            session.pump(&mut shared)?;
            session.settle(&mut shared)?;
            if let Some((began_ms, is_strict)) = session.synced() {
                if is_strict {
                    self.synced_strict_ms = self.synced_strict_ms.max(Some(began_ms));
                }
                self.synced_ms = self.synced_ms.max(Some(began_ms));
            }
        }
        self.on_notices(now, notices, ledger, effects)?;
        if self.own_feed_until_ms.is_some() && self.synced_ms.is_some() {
            self.own_feed_is_here(now, ledger, effects)?;
            self.tell_news(now, ledger, effects)?;
        }
        if std::mem::take(&mut self.changed) {
            self.feeds.settle(ledger)?;
        }
        Ok(())
    }

    // What the program shows

    /// This node's id.
    pub fn node(&self) -> NodeId {
        self.me.node
    }

    /// The author whose feed it writes.
    pub fn author(&self) -> AuthorId {
        self.feeds.own_author()
    }

    /// The number of this start.
    pub fn boot(&self) -> u64 {
        self.me.boot
    }

    /// The boot number of another node that uses this node's key, if one was met.
    pub fn twin(&self) -> Option<u64> {
        self.twin
    }

    /// All peers.
    pub fn peers(&self) -> &PeerBook {
        &self.peers
    }

    /// All feeds.
    pub fn frontier(&self) -> &mosaik_core::frontier::Frontier {
        &self.feeds.frontier
    }

    /// Authors that are declined here, and why.
    pub fn declines(&self) -> &BTreeMap<AuthorId, Reason> {
        &self.feeds.declines
    }

    /// Branches beyond each author's first.
    pub fn extra_branches(&self) -> usize {
        self.feeds.extra_branches()
    }

    /// Totals since the start.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The sessions.
    pub fn sessions(&self) -> Vec<SessionStatus> {
        let status = |session: &Session| SessionStatus {
            session: session.id,
            peer: session.peer,
            role: session.role,
            is_open: session.is_open(),
        };
        self.sessions.values().map(status).collect()
    }

    /// How many peers have an open session.
    pub fn open_peers(&self) -> usize {
        let open = self.sessions.values().filter(|session| session.is_open());
        open.map(|session| session.peer).collect::<BTreeSet<_>>().len()
    }

    /// How far it is.
    pub fn progress(&self, now: Now) -> Progress {
        if self.open_peers() == 0 {
            let hope = self.peers.has_hope() || !self.sessions.is_empty();
            return if hope { Progress::Joining } else { Progress::Isolated };
        }
        let window_ms = 2 * (self.config.sync_interval_ms + self.config.sync_jitter_ms);
        let recent = self.synced_ms.is_some_and(|ms| ms + window_ms >= now.mono_ms);
        let busy = !self.asks.is_empty() || self.sessions.values().any(Session::is_syncing);
        if recent && !busy { Progress::InSync } else { Progress::Syncing }
    }

    /// When the newest comparison began of which all that it showed is here: monotonic ms. Whoever
    /// waits to be synced compares this with the time of its call.
    pub fn synced_since_ms(&self) -> Option<u64> {
        self.synced_strict_ms
    }

    /// The time to work with: this node's clock, or the peers' where it was never set.
    pub fn wall_ms(&self, now: Now) -> u64 {
        self.wall(now).ms
    }

    /// What the peers' clocks say against this one, in milliseconds: their median offset.
    pub fn clock_offset_ms(&self) -> Option<i64> {
        let mut offsets: Vec<i64> = self.clock_offsets.values().copied().collect();
        offsets.sort_unstable();
        offsets.get(offsets.len() / 2).copied()
    }

    // Inputs

    fn on_append<L: Ledger>(
        &mut self,
        now: Now,
        token: u64,
        drafts: Vec<Draft>,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault<L>> {
        if self.own_feed_until_ms.is_some() {
            self.waiting.push((token, drafts));
            return Ok(());
        }
        let wall = self.wall(now);
        let runs = self.feeds.append_own(drafts, wall, ledger)?;
        let events = runs.iter().flat_map(|run| run.events().iter().map(Tip::from)).collect();
        effects.push(Effect::Appended { token, author: self.feeds.own_author(), events });
        self.fresh.extend(runs);
        self.changed = true;
        Ok(())
    }

    /// The own feed was fetched, or nobody gave it in time: appends go on.
    fn own_feed_is_here<L: Ledger>(
        &mut self,
        now: Now,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault<L>> {
        self.own_feed_until_ms = None;
        for (token, drafts) in std::mem::take(&mut self.waiting) {
            self.on_append(now, token, drafts, ledger, effects)?;
        }
        Ok(())
    }

    fn on_connected<L: Ledger>(
        &mut self,
        now: Now,
        (id, peer, role): (SessionId, NodeId, Role),
        binding: Vec<u8>,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
    ) {
        self.peers.connected(peer, now.wall_ms);
        let remembered = self.peer_declines.get(&peer).map(|(_, d)| d.clone()).unwrap_or_default();
        let wall = self.wall(now);
        let mut notices = Vec::new();
        let mut shared = Shared {
            now,
            wall,
            me: &self.me,
            feeds: &mut self.feeds,
            asks: &mut self.asks,
            ledger,
            effects,
            notices: &mut notices,
        };
        let mut session = Session::new(id, peer, role, binding, remembered, &mut shared);
        if self.peers.is_blocked(&peer) {
            session.bye(Bye::new(ByeCode::Blocked, "this node is blocked here"), &mut shared);
        } else if self.sessions.len() >= SESSIONS_MAX {
            session.bye(Bye::new(ByeCode::Unable, "too many sessions, try later"), &mut shared);
        }
        session.is_neighbour = self.neighbours.contains(&peer);
        self.sessions.insert(id, session);
    }

    fn on_hint<L: Ledger>(
        &mut self,
        now: Now,
        from: NodeId,
        hint: Hint,
        ledger: &mut L,
        notices: &mut Vec<Notice>,
    ) -> Result<(), Fault<L>> {
        match hint {
            Hint::Head(author, tip) => {
                if !self.feeds.declines.contains_key(&author)
                    && self.feeds.find(&author, tip, ledger)?.is_none()
                {
                    self.claim_from(now, from, author, tip);
                }
            }
            Hint::Run(run) => {
                let wall = self.wall(now);
                match self.feeds.take_run(&run, Way::Gossip, wall, ledger)? {
                    Taken::New => notices.push(Notice::Grew),
                    Taken::Held => notices.push(Notice::Duplicate),
                    Taken::UnknownBase => {
                        self.claim_from(now, from, run.author(), Tip::from(run.head()));
                    }
                    Taken::Declined(_) => notices.push(Notice::Declined(run.author())),
                }
            }
            Hint::Presence(presence) if presence.node == self.me.node => {
                // An older number may be this node's own last start, still under way.
                if presence.boot > self.me.boot {
                    notices.push(Notice::Twin(presence.boot));
                }
            }
            Hint::Presence(presence) => self.peers.observe_presence(&presence, now.mono_ms),
        }
        Ok(())
    }

    /// A head told by gossip is asked of the neighbour that passed it on.
    fn claim_from(&mut self, now: Now, from: NodeId, author: AuthorId, tip: Tip) {
        let session = self.sessions.values().find(|s| s.peer == from && s.is_open());
        if let Some(session) = session {
            let greatest = self.feeds.feed(&author).map_or(0, |feed| feed.greatest().seq);
            let gap = tip.seq.saturating_sub(greatest);
            let due_ms = now.mono_ms + crate::asks::HEAD_WAIT_MS;
            self.asks.claim(session.id, author, tip, gap, due_ms);
        }
    }

    fn on_neighbour(&mut self, now: Now, peer: NodeId, up: bool) {
        if up {
            self.neighbours.insert(peer);
            self.tell_presence_soon(now);
        } else {
            self.neighbours.remove(&peer);
        }
        for session in self.sessions.values_mut().filter(|session| session.peer == peer) {
            session.is_neighbour = up;
        }
    }

    fn compare<L: Ledger>(
        &mut self,
        now: Now,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
        notices: &mut Vec<Notice>,
    ) {
        self.again += 1;
        let token = self.again;
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            let (session, mut shared) = self.session(now, id, ledger, effects, notices);
            if let Some(session) = session {
                session.compare(token, &mut shared);
            }
        }
    }

    fn on_block<L: Ledger>(
        &mut self,
        now: Now,
        peer: NodeId,
        blocked: bool,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
        notices: &mut Vec<Notice>,
    ) -> Result<(), Fault<L>> {
        self.peers.block(peer, blocked, now.mono_ms);
        let all: Vec<u8> = self.peers.blocked().into_iter().flat_map(|node| node.0).collect();
        ledger.set_meta(META_BLOCKED, &all)?;
        let ids: Vec<SessionId> =
            self.sessions.values().filter(|s| blocked && s.peer == peer).map(|s| s.id).collect();
        for id in ids {
            let (session, mut shared) = self.session(now, id, ledger, effects, notices);
            if let Some(session) = session {
                session.bye(Bye::new(ByeCode::Blocked, "this node is blocked here"), &mut shared);
            }
        }
        Ok(())
    }

    fn leave<L: Ledger>(
        &mut self,
        now: Now,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
        notices: &mut Vec<Notice>,
    ) {
        self.tell_presence(now, true, effects);
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            let (session, mut shared) = self.session(now, id, ledger, effects, notices);
            if let Some(session) = session {
                session.bye(Bye::new(ByeCode::Leaving, "the node is stopping"), &mut shared);
            }
        }
    }

    // Notices

    fn on_notices<L: Ledger>(
        &mut self,
        now: Now,
        notices: Vec<Notice>,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault<L>> {
        for notice in notices {
            match notice {
                Notice::Opened(id) => self.on_opened(now, id, ledger, effects)?,
                Notice::Grew => {
                    self.totals.runs_taken += 1;
                    self.changed = true;
                }
                Notice::Duplicate => self.totals.runs_duplicate += 1,
                Notice::Declined(author) => {
                    self.totals.declined += 1;
                    self.asks.forget(&author);
                    for session in self.sessions.values_mut() {
                        session.leave_out(author);
                    }
                }
                Notice::Twin(boot) => {
                    if boot != self.me.boot {
                        self.twin = Some(boot);
                    }
                }
                Notice::Over(id, bye) => self.on_over(now, id, &bye),
            }
        }
        Ok(())
    }

    fn on_opened<L: Ledger>(
        &mut self,
        now: Now,
        id: SessionId,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault<L>> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let peer = session.peer;
        let Some(hello) = session.hello() else { return Ok(()) };
        let boot = hello.boot;
        self.clock_offsets.insert(peer, hello.clock_ms.wrapping_sub(now.wall_ms) as i64);
        self.peers.opened(peer, &hello.name, &hello.software, now.wall_ms);
        let digest = hello.declines;
        if self.peer_declines.get(&peer).is_some_and(|(known, _)| *known != digest) {
            self.peer_declines.remove(&peer);
            session.forget_declines(&self.feeds);
        }
        ledger.set_meta(META_PEERS, &self.peers.encode())?;
        self.end_duplicates(now, peer, boot, ledger, effects)
    }

    /// Of two connections between the same node and boot number the one stays that the smaller id
    /// dialed; of two that one side dialed, the newer: its other end is there.
    fn end_duplicates<L: Ledger>(
        &mut self,
        now: Now,
        peer: NodeId,
        boot: u64,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault<L>> {
        let dialed_by_smaller =
            |session: &Session| (session.role == Role::Dialer) == (self.me.node < peer);
        let same = |s: &&Session| {
            s.peer == peer && s.is_open() && s.hello().is_some_and(|hello| hello.boot == boot)
        };
        let mut same: Vec<(bool, u64, SessionId)> = self
            .sessions
            .values()
            .filter(same)
            .map(|session| (dialed_by_smaller(session), session.opened_ms, session.id))
            .collect();
        same.sort_unstable();
        same.pop();
        let mut notices = Vec::new();
        for (_, _, surplus) in same {
            let (session, mut shared) = self.session(now, surplus, ledger, effects, &mut notices);
            if let Some(session) = session {
                session
                    .bye(Bye::new(ByeCode::Duplicate, "another connection is kept"), &mut shared);
            }
        }
        self.on_notices(now, notices, ledger, effects)
    }

    fn on_over(&mut self, now: Now, id: SessionId, bye: &Bye) {
        let then = match bye.code {
            ByeCode::Leaving => PeerState::Left,
            ByeCode::OtherNetwork | ByeCode::Version => PeerState::Refused,
            ByeCode::Done | ByeCode::Duplicate => PeerState::Reachable,
            ByeCode::Blocked | ByeCode::Unable => PeerState::BackingOff,
            ByeCode::Violation => {
                self.totals.violations += 1;
                PeerState::BackingOff
            }
            _ => PeerState::Lost,
        };
        self.end_session(now, id, then, &bye.text);
    }

    fn end_session(&mut self, now: Now, id: SessionId, then: PeerState, reason: &str) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.asks.close(id);
        self.twins_told.retain(|(a, b)| *a != id && *b != id);
        if let Some(hello) = session.hello()
            && !session.peer_declines().is_empty()
        {
            let declines = (hello.declines, session.peer_declines().clone());
            self.peer_declines.insert(session.peer, declines);
        }
        let wait_ms = match then {
            // Whoever closed an idle session has others enough.
            PeerState::Reachable => DONE_WAIT_MS,
            PeerState::Refused | PeerState::BackingOff => DONE_WAIT_MS / 2,
            _ => self.rng.random_range(0..1000),
        };
        let retry = Retry { now_ms: now.mono_ms, wait_ms };
        self.peers.disconnected(session.peer, then, reason, retry);
        if !self.sessions.values().any(|other| other.peer == session.peer) {
            self.clock_offsets.remove(&session.peer);
        }
    }

    // News

    /// Tells every session what has become durable in this batch, and gossip what is this node's.
    fn tell_news<L: Ledger>(
        &mut self,
        now: Now,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault<L>> {
        let fresh = std::mem::take(&mut self.fresh);
        let grown = self.feeds.take_grown();
        let own = self.feeds.own_author();
        let by_gossip = !self.neighbours.is_empty();
        for run in &fresh {
            let small = by_gossip && run.encode().len() <= INLINE_RUN_MAX;
            for session in self.sessions.values_mut() {
                session.tell(run, small, effects);
            }
            if small {
                effects.push(Effect::Gossip(Hint::Run(run.clone())));
            }
        }
        if let Some(last) = fresh.last().filter(|_| by_gossip)
            && last.encode().len() > INLINE_RUN_MAX
        {
            effects.push(Effect::Gossip(Hint::Head(own, Tip::from(last.head()))));
        }
        let mut authors = BTreeSet::new();
        for (author, tip) in grown {
            authors.insert(author);
            let told =
                fresh.last().is_some_and(|run| author == own && Tip::from(run.head()) == tip);
            for session in self.sessions.values_mut().filter(|_| !told) {
                session.tell_head(author, tip, effects);
            }
        }
        let wall = self.wall(now);
        let mut notices = Vec::new();
        let mut shared = Shared {
            now,
            wall,
            me: &self.me,
            feeds: &mut self.feeds,
            asks: &mut self.asks,
            ledger,
            effects,
            notices: &mut notices,
        };
        for author in authors {
            settle_claims(&author, &mut shared)?;
        }
        Ok(())
    }

    fn tell_presence_soon(&mut self, now: Now) {
        let after_ms = self.last_presence_ms.map_or(now.mono_ms, |ms| ms + PRESENCE_GAP_MS);
        self.next_presence_ms = Some(after_ms.max(now.mono_ms));
    }

    fn tell_presence(&mut self, now: Now, leaving: bool, effects: &mut Vec<Effect>) {
        self.next_presence_ms = None;
        self.last_presence_ms = Some(now.mono_ms);
        if self.neighbours.is_empty() {
            return;
        }
        let presence = Presence::sign(
            &self.config.node_key,
            &self.config.keys.fingerprint,
            self.me.boot,
            now.wall_ms,
            leaving,
            &self.me.name,
            &self.own_addresses,
        );
        effects.push(Effect::Gossip(Hint::Presence(presence)));
    }

    // Time

    fn tick<L: Ledger>(
        &mut self,
        now: Now,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault<L>> {
        if ledger.counts()?.held_back > 0 {
            let wall = self.wall(now);
            self.feeds.release(wall, ledger)?;
            self.changed = true;
        }
        self.tell_twins(now, effects);
        let mut notices = Vec::new();
        let open = self.sessions.values().filter(|session| session.is_open()).count();
        // The newest go: what lasts is worth keeping.
        let idle = self.sessions.values().rev().filter(|session| {
            session.is_open() && session.is_idle() && session.opened_ms + TICK_MS <= now.mono_ms
        });
        let surplus: Vec<SessionId> =
            idle.take(open.saturating_sub(2 * SESSIONS_KEPT)).map(|session| session.id).collect();
        for id in surplus {
            let (session, mut shared) = self.session(now, id, ledger, effects, &mut notices);
            if let Some(session) = session {
                session.bye(
                    Bye::new(ByeCode::Done, "all is said, others need the place"),
                    &mut shared,
                );
            }
        }
        self.on_notices(now, notices, ledger, effects)
    }

    /// Two sessions of one node id under two boot numbers that both last: both ends are told.
    fn tell_twins(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let mut by_peer: BTreeMap<NodeId, Vec<(u64, SessionId)>> = BTreeMap::new();
        for session in self.sessions.values().filter(|session| session.is_open()) {
            if let Some(hello) = session.hello() {
                by_peer.entry(session.peer).or_default().push((hello.boot, session.id));
            }
        }
        for twins in by_peer.values().filter(|sessions| sessions.len() > 1) {
            let newest_ms =
                twins.iter().filter_map(|(_, id)| Some(self.sessions.get(id)?.opened_ms)).max();
            if newest_ms.is_none_or(|ms| ms + TWIN_AFTER_MS > now.mono_ms) {
                continue;
            }
            for (boot, id) in twins {
                for (_, to) in twins.iter().filter(|(other, _)| other != boot) {
                    if self.twins_told.insert((*id, *to))
                        && let Some(session) = self.sessions.get_mut(to)
                    {
                        session.send(Message::Twin(*boot), effects);
                    }
                }
            }
        }
    }

    fn dial_due(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let mut dials = self.peers.due(self.sessions.len(), now.mono_ms);
        if self.next_probe_ms <= now.mono_ms {
            self.next_probe_ms = now.mono_ms + PROBE_MS + self.rng.random_range(0..PROBE_MS / 2);
            let chance = self.rng.random();
            dials.extend(self.peers.any(true, chance));
        }
        if self.next_round_ms <= now.mono_ms {
            self.next_round_ms = now.mono_ms + self.config.sync_interval_ms + self.jitter();
            self.tell_presence_soon(now);
            let chance = self.rng.random();
            dials.extend(self.peers.any(false, chance));
        }
        effects.extend(dials.into_iter().map(|(peer, addresses)| Effect::Dial { peer, addresses }));
    }

    fn jitter(&mut self) -> u64 {
        self.rng.random_range(0..=self.me.jitter_ms)
    }

    fn wall(&self, now: Now) -> Wall {
        let offset = self.clock_offset_ms();
        let unset = now.wall_ms < self.config.clock_floor_ms;
        let ms = match offset {
            Some(offset) if unset => now.wall_ms.saturating_add_signed(offset),
            _ => now.wall_ms,
        };
        let confirmed = offset.is_some_and(|offset| offset.unsigned_abs() <= SKEW_MAX_MS);
        Wall { ms, confirmed, unset: unset && offset.is_none() }
    }

    /// A session and all that it needs beside itself.
    fn session<'a, L: Ledger>(
        &'a mut self,
        now: Now,
        id: SessionId,
        ledger: &'a mut L,
        effects: &'a mut Vec<Effect>,
        notices: &'a mut Vec<Notice>,
    ) -> (Option<&'a mut Session>, Shared<'a, L>) {
        let wall = self.wall(now);
        let shared = Shared {
            now,
            wall,
            me: &self.me,
            feeds: &mut self.feeds,
            asks: &mut self.asks,
            ledger,
            effects,
            notices,
        };
        (self.sessions.get_mut(&id), shared)
    }

    /// The last event that this node wrote, if any.
    pub fn own_last(&self) -> Option<Tip> {
        self.feeds.own_last()
    }
}
