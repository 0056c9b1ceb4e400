//! The replica: the pure state machine that decides for one node.
//!
//! Invariants:
//! - One owner feeds it inputs, commits what it wrote to the ledger, and only then carries out its
//!   effects: nobody hears of an event before it is durable here.
//! - It never blocks and fails only with the ledger; then it is thrown away and opened anew.
//! - After every batch of inputs [`Replica::end_batch`] tells, asks and serves.
//!
//! Source: FORMAT.md beside this crate.

mod inputs;
mod news;
mod notices;
mod pings;
mod probes;
mod status;

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use mosaik_core::{
    event::Draft,
    feed::{Ledger, Tip},
    hlc::SKEW_MAX_MS,
    id::{AuthorId, NodeId},
    key::NetworkKeys,
    run::VerifiedRun,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

pub use self::status::{Lag, Progress, SessionStatus, Totals};
use self::{pings::Pings, probes::Probes};
use crate::{
    Fault,
    asks::Asks,
    carrier::{Addresses, Effect, Input, Now, OnAir, Role, SessionId},
    feeds::{Feeds, Wall},
    message::{Bye, ByeCode, Message, NAME_LEN_MAX},
    peers::{PeerBook, PeerState},
    session::{Declines, Me, Notice, Session, Shared},
};

/// How long the first append after a start waits for the node's own feed, in milliseconds.
pub const OWN_FEED_WAIT_MS: u64 = 2000;
/// How long two sessions of one node id under two boot numbers must both last before they count as
/// two nodes: longer than a dead connection takes to be noticed (8 s), in milliseconds.
const TWIN_AFTER_MS: u64 = 10_000;
/// How often held-back events, surplus sessions and twins are looked at, in milliseconds.
const TICK_MS: u64 = 5_000;
/// How old a session is that may end for want of places, in milliseconds: its peer has heard by gossip
/// of others by then, and may have met nobody else before.
const SURPLUS_AGE_MS: u64 = 60_000;
/// Open sessions beyond which younger ones end, too.
const SESSIONS_YOUNG_MAX: usize = 64;
/// A random lost peer is probed this often, plus half as much at random, in milliseconds.
const PROBE_MS: u64 = 20_000;
/// How long after a change of own addresses another one brings no new attempts, in milliseconds: an
/// interface that comes and goes must not make a node dial without end.
const BACK_MS: u64 = 10_000;
/// By how much a boot number is above the last one at the most, where time doesn't make it so: in a
/// million two copies hardly meet, and a clock that is set right is soon above it again.
const BOOT_STEP_MAX: u64 = 1 << 20;

const META_BOOT: &str = "boot";
const META_PEERS: &str = "known peers";
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
    /// Sessions that are kept open for news: [`SESSIONS_KEPT`](crate::peers::SESSIONS_KEPT), or fewer where each byte costs.
    pub sessions_kept: usize,
    /// Authors that are taken; a tip counts like one.
    pub authors_max: usize,
    /// A wall clock before this was never set, Unix ms: the program's own date.
    pub clock_floor_ms: u64,
    /// Where chance begins.
    pub seed: u64,
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
    peer_declines: BTreeMap<NodeId, Declines>,
    neighbours: BTreeSet<NodeId>,
    /// Offsets of the peers' clocks against this one, in milliseconds.
    clock_offsets: BTreeMap<NodeId, i64>,
    own_addresses: Addresses,
    /// When their last change made all peers worth another try.
    back_ms: Option<u64>,
    is_paused: bool,
    /// Own runs of this batch: told as they are.
    fresh: Vec<VerifiedRun>,
    /// Appends that wait for the own feed, and until when.
    waiting: Vec<(u64, Vec<Draft>)>,
    own_feed_until_ms: Option<u64>,
    totals: Totals,
    pings: Pings,
    probes: Probes,
    twin: Option<u64>,
    /// Pairs of sessions of one node id that were told of each other.
    twins_told: BTreeSet<(SessionId, SessionId)>,
    /// None without a radio.
    on_air: Option<OnAir>,
    /// Authors of whom something came over radio.
    home: BTreeSet<AuthorId>,
    /// Whether some hear what this node broadcasts over radio.
    is_broadcasting: bool,
    /// What came so in this batch.
    overheard: BTreeSet<(AuthorId, Tip)>,
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
        let mut rng = StdRng::seed_from_u64(config.seed);
        let jitter_ms = rng.random_range(0..=config.sync_jitter_ms);
        // Time makes two copies of one store differ. Under a clock that fell counting makes the number
        // greater, and chance makes the copies differ.
        let boot = match now.wall_ms > last_boot {
            true => now.wall_ms,
            false => last_boot + rng.random_range(1..=BOOT_STEP_MAX),
        };
        ledger.set_meta(META_BOOT, &boot.to_be_bytes())?;
        let mut peers = PeerBook::new(config.sessions_kept);
        if let Some(cache) = ledger.meta(META_PEERS)? {
            // A damaged cache only lacks peers.
            let _ = peers.restore(&cache, now);
        }
        for node in ledger.meta(META_BLOCKED)?.unwrap_or_default().chunks_exact(32) {
            peers.block(NodeId(node.try_into().unwrap_or_default()), true, now);
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
            back_ms: None,
            is_paused: false,
            fresh: Vec::new(),
            waiting: Vec::new(),
            totals: Totals::default(),
            pings: Pings::default(),
            probes: Probes::default(),
            twin: None,
            twins_told: BTreeSet::new(),
            on_air: None,
            home: BTreeSet::new(),
            is_broadcasting: false,
            overheard: BTreeSet::new(),
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
            Input::Connected { session, peer, role, binding, rtt_ms } => {
                let ends = (session, peer, role);
                let link = (binding, None);
                self.on_connected(now, ends, link, ledger, effects, &mut notices);
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.rtt_ms = rtt_ms;
                }
            }
            Input::Linked { session, peer, role, binding, radio } => {
                let ends = (session, peer, role);
                let link = (binding, Some(radio));
                self.on_connected(now, ends, link, ledger, effects, &mut notices);
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
                self.end_session(now, session, PeerState::Lost, &reason, effects);
            }
            Input::Ping { token, peer } => self.on_ping(now, token, peer, effects),
            Input::Probe { token } => self.probe(now, token, effects),
            Input::OnAir(on_air) => self.on_air = Some(on_air),
            Input::Island { session, island } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.set_island(island);
                }
            }
            Input::Broadcasting(on) => self.is_broadcasting = on,
            Input::Overheard { session, run } => {
                self.on_overheard(now, session, &run, ledger, effects, &mut notices)?;
            }
            Input::Behind { session } => {
                self.again += 1;
                let token = self.again;
                let (session, mut shared) =
                    self.session(now, session, ledger, effects, &mut notices);
                if let Some(session) = session {
                    session.compare(token, &mut shared);
                }
            }
            Input::Way { session, way } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.way = way;
                }
            }
            Input::Forget { peer } => {
                let result = self.peers.forget(&peer);
                ledger.set_meta(META_PEERS, &self.peers.encode(now.wall_ms))?;
                effects.push(Effect::Forgotten { peer, result });
            }
            Input::DialFailed { peer, reason } => {
                self.pings.dial_failed(&peer, &reason, effects);
                let chance = self.rng.random();
                self.peers.dial_failed(peer, &reason, now.mono_ms, chance);
            }
            Input::Found { peer, addresses, source } => {
                if peer != self.me.node {
                    self.peers.observe(peer, addresses, source, now);
                }
            }
            Input::Hint { from, hint } => self.on_hint(now, from, hint, ledger, &mut notices)?,
            Input::Neighbour { peer, up } => self.on_neighbour(now, peer, up),
            Input::OwnAddresses(addresses) => self.on_own_addresses(now, addresses),
            Input::Pause(on) => self.pause(now, on, ledger, effects, &mut notices),
            Input::Compare => self.compare(now, ledger, effects, &mut notices),
            Input::Block { peer, blocked } => {
                self.on_block(now, peer, blocked, ledger, effects, &mut notices)?;
            }
            Input::FileWant { session: id, blob, group, from } => {
                let (session, shared) = self.session(now, id, ledger, effects, &mut notices);
                match session.filter(|session| session.is_open()) {
                    Some(session) => session.want_file(blob, group, from, shared),
                    None => shared.effects.push(Effect::FileLacked { session: id }),
                }
            }
            Input::FileGive { session, token, piece } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.give_file(token, piece, effects);
                }
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
            self.asks.next_timeout_ms().filter(|_| !self.feeds.is_full()),
            self.own_feed_until_ms,
            self.next_presence_ms,
            self.peers.next_due_ms(self.sessions_in_hand()).filter(|_| !self.is_paused),
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
        let due = if self.feeds.is_full() { Vec::new() } else { self.asks.next(now.mono_ms) };
        for next in due {
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
            session.settle(&shared);
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
        self.feeds.settle(ledger)
    }

    fn tick<L: Ledger>(
        &mut self,
        now: Now,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault<L>> {
        if ledger.counts()?.held_back > 0 {
            let wall = self.wall(now);
            self.feeds.release(wall, ledger)?;
        }
        self.tell_twins(now, effects);
        self.pings.expire(now, effects);
        self.end_lasting_duplicates(now, ledger, effects)?;
        let mut notices = Vec::new();
        let of_peers = |session: &&Session| session.is_open() && !session.is_radio();
        let open = self.sessions.values().filter(of_peers).count();
        // The newest go: what lasts is worth keeping.
        let age_ms = if open > SESSIONS_YOUNG_MAX { TICK_MS } else { SURPLUS_AGE_MS };
        let idle = self.sessions.values().rev().filter(|session| {
            of_peers(session) && session.is_idle() && session.opened_ms + age_ms <= now.mono_ms
        });
        let surplus: Vec<SessionId> = idle
            .take(open.saturating_sub(2 * self.config.sessions_kept))
            .map(|session| session.id)
            .collect();
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
        let of_peers = |session: &&Session| session.is_open() && !session.is_radio();
        for session in self.sessions.values().filter(of_peers) {
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

    fn end_lasting_duplicates<L: Ledger>(
        &mut self,
        now: Now,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault<L>> {
        let (mut seen, mut again) = (BTreeSet::new(), BTreeSet::new());
        let of_peers = |session: &&Session| session.is_open() && !session.is_radio();
        for session in self.sessions.values().filter(of_peers) {
            let Some(hello) = session.hello() else { continue };
            let ends = (session.peer, hello.boot);
            if !seen.insert(ends) {
                again.insert(ends);
            }
        }
        for (peer, boot) in again {
            self.end_duplicates(now, peer, boot, ledger, effects)?;
        }
        Ok(())
    }

    /// Sessions that make others needless: open ones, and those that this node has dialed and that are
    /// being greeted. Who only connects, and never says who it is, stands in nobody's place.
    fn sessions_in_hand(&self) -> usize {
        let in_hand = |session: &&Session| {
            !session.is_radio() && (session.is_open() || session.role == Role::Dialer)
        };
        self.sessions.values().filter(in_hand).count()
    }

    fn dial_due(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.is_paused {
            self.next_probe_ms = now.mono_ms + PROBE_MS;
            self.next_round_ms = now.mono_ms + self.config.sync_interval_ms;
            return;
        }
        let mut dials = self.peers.due(self.sessions_in_hand(), now);
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
}
