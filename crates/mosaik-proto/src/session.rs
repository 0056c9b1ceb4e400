//! One conversation with one peer: greeting, comparison, runs both ways, the live tail.
//!
//! Invariants:
//! - Nothing of this network is said before the other's proof holds.
//! - Only the dialer starts a comparison; every frame of one is answered, or the session ends.
//! - Unasked runs stay within [`UNASKED_MAX`] bytes since the peer's last `Want` or `Have`; all
//!   others were asked for, with credit.
//! - Frames wait at the carrier up to [`SEND_AHEAD`]; runs beyond that stay on disk.
//!
//! Source: FORMAT.md beside this crate, sections 2 and 3.

mod comparing;
mod declines;
mod files;
mod greeting;
mod payloads;
mod runs;

use std::collections::{BTreeSet, VecDeque};

use mosaik_core::{
    feed::{Ledger, Tip},
    id::{AuthorId, Fingerprint, NodeId},
};

pub use self::runs::{SEND_AHEAD, UNASKED_MAX};
use self::{
    comparing::{COMPARE_TIMEOUT_MS, Round},
    files::Files,
    greeting::GREET_TIMEOUT_MS,
};
pub(crate) use self::{
    declines::Declines,
    runs::{BROADCAST_RUN_MAX, News, event_run, settle_claims},
};
use crate::{
    Fault,
    asks::Asks,
    carrier::{Effect, Now, Radio, Role, SessionId},
    feeds::{Feeds, Wall},
    message::{Ask, Bye, ByeCode, FRAME_MAX, Hello, Message, Probe, Probed, SessionWay, ZSTD},
    reconcile::{Comparison, Held, Stray},
    serve::Serve,
    turns::{Held as Turns, Island},
};

/// What all sessions of a node share.
pub(crate) struct Shared<'a, L: Ledger> {
    pub(crate) now: Now,
    pub(crate) wall: Wall,
    pub(crate) me: &'a Me,
    pub(crate) feeds: &'a mut Feeds,
    pub(crate) asks: &'a mut Asks,
    pub(crate) ledger: &'a mut L,
    pub(crate) effects: &'a mut Vec<Effect>,
    pub(crate) notices: &'a mut Vec<Notice>,
}

/// What a node says of itself in every session.
#[derive(Debug, Clone)]
pub(crate) struct Me {
    pub(crate) node: NodeId,
    pub(crate) membership: [u8; 32],
    pub(crate) fingerprint: Fingerprint,
    pub(crate) software: String,
    pub(crate) name: String,
    pub(crate) boot: u64,
    pub(crate) interval_ms: u64,
    pub(crate) jitter_ms: u64,
}

/// What a session tells the replica.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Proofs and hellos are exchanged.
    Opened(SessionId),
    /// A run brought something new, by session or gossip.
    Grew,
    /// A run of so many events brought nothing new.
    Duplicate(usize),
    /// The author is declined here, and something of it came.
    Declined(AuthorId),
    /// Another node uses this node's key, under this boot number.
    Twin(u64),
    /// The peer answers the ping with this token.
    Pong(SessionId, u64),
    /// A probe came.
    Probe(SessionId, Probe),
    /// An answer to a probe came.
    Probed(SessionId, Probed),
    /// It is over; the carrier is told.
    Over(SessionId, Bye),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Waiting for the other's proof.
    AwaitGreet { until_ms: u64 },
    /// Both proofs hold, our `Hello` is out. Waiting for the other's.
    AwaitHello { until_ms: u64 },
    /// Comparing, asking, serving, telling.
    Open,
    /// Nothing more is said.
    Over,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) peer: NodeId,
    pub(crate) role: Role,
    /// When both had said hello; before that, when the connection came up.
    pub(crate) opened_ms: u64,
    /// Whether the peer is a gossip neighbour: what goes by gossip reaches it that way.
    pub(crate) is_neighbour: bool,
    /// The round trip when the connection came up, in milliseconds.
    pub(crate) rtt_ms: Option<u32>,
    /// The way that it takes, as the carrier last said.
    pub(crate) way: SessionWay,
    /// What is different over radio.
    radio: Option<Radio>,
    /// Which bridges are around it.
    island: Island,
    /// What another bridge may tell the peer before this node does.
    turns: Turns,
    binding: Vec<u8>,
    state: State,
    /// The version that both speak; 0 before the greeting.
    version: u64,
    hello: Option<Hello>,
    comparison: Comparison,
    round: Option<Round>,
    /// Authors that one of the two declines.
    skip: BTreeSet<AuthorId>,
    /// What the peer declines.
    peer_declines: Declines,
    /// Authors of whom the peer was told that they are declined here.
    told: BTreeSet<AuthorId>,
    /// Bytes of runs sent unasked since the peer's last `Want` or `Have`.
    unasked: usize,
    /// Bytes of frames handed to the carrier and not yet sent.
    queued: usize,
    serves: VecDeque<Serve>,
    /// Payloads that the peer asked for and that still go.
    gives: VecDeque<Ask>,
    /// Pieces of files under way, over radio.
    files: Files,
    /// Of the payloads that are missing here, how many the peer lacked when it was last asked for all.
    lacked: Option<u64>,
    /// The greatest event of this node's own feed that the peer is known to hold.
    own_held: Option<Tip>,
    /// The last own event when the topmost hash was told last.
    told_own: Option<Tip>,
    /// Tips that the peer brought over radio: it is not told of them.
    brought: BTreeSet<(AuthorId, Tip)>,
    next_root_ms: Option<u64>,
    /// The dialer: a comparison is asked for, by the peer's token or by this node's own people.
    asked_again: Option<Option<u64>>,
    /// The listener: its own last `Again`.
    again: Option<Again>,
}

/// A listener's request for a comparison.
#[derive(Debug, Clone, Copy)]
struct Again {
    token: u64,
    /// When it was made.
    at_ms: u64,
    /// Whether the dialer's echo came: its next `Root` is for this.
    is_echoed: bool,
}

impl Session {
    /// A session over a fresh connection. The dialer greets.
    pub(crate) fn new<L: Ledger>(
        id: SessionId,
        peer: NodeId,
        role: Role,
        binding: Vec<u8>,
        radio: Option<Radio>,
        remembered: Declines,
        shared: &mut Shared<'_, L>,
    ) -> Self {
        let now_ms = shared.now.mono_ms;
        let patience = radio.as_ref().map_or(1, |radio| radio.patience.max(1));
        if radio.is_some() {
            shared.asks.slow(id, patience);
        }
        let mut session = Self {
            id,
            peer,
            role,
            is_neighbour: false,
            rtt_ms: None,
            way: SessionWay::Unknown,
            radio,
            island: Island::default(),
            turns: Turns::default(),
            version: 0,
            opened_ms: now_ms,
            binding,
            state: State::AwaitGreet { until_ms: now_ms + GREET_TIMEOUT_MS * patience },
            hello: None,
            comparison: Comparison::new([0; 32], FRAME_MAX),
            round: None,
            skip: remembered.authors().chain(shared.feeds.declines.keys()).copied().collect(),
            peer_declines: remembered,
            told: BTreeSet::new(),
            unasked: 0,
            queued: 0,
            serves: VecDeque::new(),
            gives: VecDeque::new(),
            files: Files::default(),
            lacked: None,
            own_held: None,
            told_own: None,
            brought: BTreeSet::new(),
            next_root_ms: None,
            asked_again: None,
            again: None,
        };
        if role == Role::Dialer {
            session.greet(shared);
        }
        session
    }

    /// Whether it goes over radio: all that is for company, and not for the feeds, is left out.
    pub(crate) fn is_radio(&self) -> bool {
        self.radio.is_some()
    }

    /// What its carrier knows of the bridges around it.
    pub(crate) fn set_island(&mut self, island: Island) {
        self.island = island;
    }

    /// How many times longer than usual everything may take.
    fn patience(&self) -> u64 {
        self.radio.as_ref().map_or(1, |radio| radio.patience.max(1))
    }

    /// Whether both have said hello and neither goodbye.
    pub(crate) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether news are told: from this side's `Hello` on, for what came before is in it. The peer
    /// has that `Hello` before the first of them.
    fn tells(&self) -> bool {
        matches!(self.state, State::AwaitHello { .. } | State::Open)
    }

    /// The version of the protocol that both speak; 0 before the greeting.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Bytes handed to the carrier that have not left it.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// What the peer said of itself.
    pub(crate) fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// Events that the peer has asked for and that still go.
    pub(crate) fn to_serve(&self) -> u64 {
        self.serves.iter().map(Serve::events).sum()
    }

    /// Of the payloads that are missing here, how many the peer lacks, too; none before it was asked.
    pub(crate) fn lacked(&self) -> Option<u64> {
        self.lacked
    }

    /// The seq up to which the peer is known to hold this node's own feed.
    pub(crate) fn own_held_seq(&self) -> u64 {
        self.own_held.map_or(0, |tip| tip.seq)
    }

    /// The last own event, if what is compared covers the own feed: not where one of the two declines
    /// it.
    fn own_compared(&self, feeds: &Feeds) -> Option<Tip> {
        feeds.own_last().filter(|_| !self.skip.contains(&feeds.own_author()))
    }

    /// The peer holds this event; if it is this node's own, so are all before it.
    pub(super) fn note_held<L: Ledger>(
        &mut self,
        author: &AuthorId,
        tip: Tip,
        shared: &Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        self.turns.drop_held(author, tip.seq);
        if *author == shared.feeds.own_author()
            && self.own_held < Some(tip)
            && shared.feeds.is_before_own_last(tip, shared.ledger)?
        {
            self.own_held = Some(tip);
        }
        Ok(())
    }

    /// Takes one message. Never blocks, never fails but with the storage.
    pub(crate) fn handle<L: Ledger>(
        &mut self,
        message: Message,
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        shared.asks.progress(self.id, shared.now.mono_ms);
        match (self.state, message) {
            (State::Over, _) => {}
            (_, Message::Bye(bye)) => self.over(bye, shared),
            (_, Message::Skipped(_)) => {}
            (State::AwaitGreet { .. }, Message::Greet(greet)) => self.on_greet(&greet, shared),
            (State::AwaitHello { .. }, Message::Hello(hello)) => {
                return self.on_hello(hello, shared);
            }
            (State::Open, message) => return self.handle_open(message, shared),
            // Right message, wrong moment: a bug or an attack. Either way we hang up.
            (State::AwaitGreet { .. } | State::AwaitHello { .. }, message) => {
                let kind = message.kind();
                self.violation(
                    format!("a frame of type {kind} before the greeting is over"),
                    shared,
                );
            }
        }
        Ok(())
    }

    fn handle_open<L: Ledger>(
        &mut self,
        message: Message,
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        let outcome = match message {
            Message::Root(hash) => self.on_root(hash, shared),
            Message::Tree(prefix, children) => {
                let answer =
                    self.comparison.on_tree(prefix, &children, held(shared.feeds, &self.skip));
                answer.map(|answer| answer.into_iter().for_each(|m| self.send(m, shared.effects)))
            }
            Message::Leaf(prefix, shorts) => {
                let answer =
                    self.comparison.on_leaf(prefix, &shorts, held(shared.feeds, &self.skip));
                answer.map(|answer| self.send(answer, shared.effects))
            }
            Message::Items(items) => self.on_items(&items, shared)?,
            Message::Done(prefix) => {
                if self.comparison.is_answer_to_top(prefix) {
                    self.own_held = self.own_held.max(self.told_own);
                }
                let answer = self.comparison.on_done(prefix, held(shared.feeds, &self.skip));
                answer.map(|answer| answer.into_iter().for_each(|m| self.send(m, shared.effects)))
            }
            Message::Want(want) => return self.on_want(&want, shared),
            Message::Run(run) => return self.on_run(&run, shared),
            Message::Have(author, tip) => return self.on_have(author, tip, shared),
            Message::Payloads(payloads) => return self.on_payloads(payloads, shared),
            Message::Decline(author, _) => {
                self.on_decline(author, shared);
                return Ok(());
            }
            Message::Lack(author, tip, reason) => return self.on_lack(author, tip, reason, shared),
            Message::Again(token) => {
                self.on_again(token);
                return Ok(());
            }
            Message::Twin(boot) => {
                shared.notices.push(Notice::Twin(boot));
                return Ok(());
            }
            Message::FileWant(want) => {
                self.on_file_want(want, shared);
                return Ok(());
            }
            Message::FilePart(part) => {
                self.on_file_part(part, shared);
                return Ok(());
            }
            // Not offered over radio.
            Message::Ping(_) | Message::Pong(_) | Message::Probe(_) | Message::Probed(_)
                if self.is_radio() =>
            {
                return Ok(());
            }
            Message::Ping(token) => {
                self.send(Message::Pong(token), shared.effects);
                return Ok(());
            }
            Message::Pong(token) => {
                shared.notices.push(Notice::Pong(self.id, token));
                return Ok(());
            }
            Message::Probe(probe) => {
                shared.notices.push(Notice::Probe(self.id, probe));
                return Ok(());
            }
            Message::Probed(probed) => {
                shared.notices.push(Notice::Probed(self.id, probed));
                return Ok(());
            }
            Message::Greet(_) | Message::Hello(_) => {
                self.violation("a second greeting".into(), shared);
                return Ok(());
            }
            Message::Bye(_) | Message::Skipped(_) => return Ok(()),
        };
        match outcome {
            Ok(()) => self.note_progress(shared),
            Err(Stray) => {
                self.violation("a frame of a comparison that answers nothing".into(), shared);
                Ok(())
            }
        }
    }

    /// Does what is due. `jitter_ms` is drawn anew by the caller at each call.
    pub(crate) fn handle_timeout<L: Ledger>(&mut self, jitter_ms: u64, shared: &mut Shared<'_, L>) {
        let now_ms = shared.now.mono_ms;
        match self.state {
            State::AwaitGreet { until_ms } | State::AwaitHello { until_ms }
                if until_ms <= now_ms =>
            {
                let seconds = GREET_TIMEOUT_MS * self.patience() / 1000;
                let text = format!("no greeting within {seconds} s");
                self.bye(Bye::new(ByeCode::Timeout, text), shared);
            }
            State::AwaitGreet { .. } | State::AwaitHello { .. } | State::Over => {}
            State::Open => {
                self.files_timeout(shared);
                self.open_timeout(now_ms, jitter_ms, shared);
            }
        }
    }

    /// When [`Session::handle_timeout`] has something to do.
    pub(crate) fn next_timeout_ms(&self) -> Option<u64> {
        match self.state {
            State::AwaitGreet { until_ms } | State::AwaitHello { until_ms } => Some(until_ms),
            State::Over => None,
            State::Open => self.open_timeout_ms().into_iter().chain(self.files.until_ms()).min(),
        }
    }

    fn open_timeout_ms(&self) -> Option<u64> {
        if !self.comparison.has_ended() {
            let timeout_ms = COMPARE_TIMEOUT_MS * self.patience();
            return self.round.as_ref().map(|round| round.moved_ms + timeout_ms);
        }
        match self.role {
            Role::Listener => self.turns.next_ms(),
            Role::Dialer if self.asked_again.is_some() => Some(0),
            // Its carrier knows by announces when there is something to compare.
            Role::Dialer if self.is_radio() => self.turns.next_ms(),
            // Not drawn yet: at once, to draw it.
            Role::Dialer => Some(self.next_root_ms.unwrap_or(0)),
        }
    }

    /// Ends the session with a reason.
    pub(crate) fn bye<L: Ledger>(&mut self, bye: Bye, shared: &mut Shared<'_, L>) {
        if self.state != State::Over {
            shared.effects.push(Effect::Close { session: self.id, bye: bye.clone() });
            self.over_quietly(bye, shared);
        }
    }

    /// Ends it because the peer broke the protocol.
    pub(crate) fn violation<L: Ledger>(&mut self, text: String, shared: &mut Shared<'_, L>) {
        self.bye(Bye::new(ByeCode::Violation, text), shared);
    }

    /// The peer has ended it.
    fn over<L: Ledger>(&mut self, bye: Bye, shared: &mut Shared<'_, L>) {
        let close = Bye::new(ByeCode::Done, "");
        shared.effects.push(Effect::Close { session: self.id, bye: close });
        self.over_quietly(bye, shared);
    }

    fn over_quietly<L: Ledger>(&mut self, bye: Bye, shared: &mut Shared<'_, L>) {
        self.state = State::Over;
        self.serves.clear();
        self.gives.clear();
        self.files = Files::default();
        shared.asks.close(self.id);
        shared.notices.push(Notice::Over(self.id, bye));
    }

    /// The carrier has sent this many bytes.
    pub(crate) fn on_sent(&mut self, bytes: usize) {
        self.queued = self.queued.saturating_sub(bytes);
    }

    pub(crate) fn send(&mut self, message: Message, effects: &mut Vec<Effect>) {
        self.push_frame(message.encode(), false, effects);
    }

    /// Sends an encoded run, compressed where both take that and it pays.
    fn send_run(&mut self, run: &[u8], is_asked: bool, effects: &mut Vec<Effect>) {
        // Over radio the carrier compresses, with what it knows of the link.
        let zstd = !self.is_radio()
            && self.hello.as_ref().is_some_and(|hello| hello.capabilities & ZSTD != 0);
        self.push_frame(crate::message::run_frame(run, zstd), is_asked, effects);
    }

    /// All sessions were told of what came.
    pub(crate) fn has_told(&mut self) {
        self.brought.clear();
    }

    fn push_frame(&mut self, frame: Vec<u8>, is_asked: bool, effects: &mut Vec<Effect>) {
        self.queued += frame.len();
        effects.push(Effect::Send { session: self.id, frame, is_asked });
    }
}

fn held<'a>(feeds: &'a Feeds, skip: &'a BTreeSet<AuthorId>) -> Held<'a> {
    Held { frontier: &feeds.frontier, skip }
}
