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

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mosaik_core::{
    feed::{Ledger, Missing, Tip, Way},
    id::{AuthorId, EventId, Fingerprint, NodeId},
    run::VerifiedRun,
};

use crate::{
    Fault,
    asks::{Asks, HEAD_WAIT_MS, Next},
    carrier::{Effect, Now, Role, SessionId},
    feeds::{Feeds, Taken, Wall},
    message::{
        APP, Ask, Bye, ByeCode, FRAME_MAX, Greet, Hello, Items, LackReason, Message, Payloads,
        Reason, VERSIONS, Want, ZSTD,
    },
    proof::{declines_digest, membership_proof},
    reconcile::{Comparison, Held, Stray},
    serve::{Serve, Served, long_locator, short_locator},
};

/// Bytes of runs that may be sent unasked since the peer's last `Want` or `Have`.
pub const UNASKED_MAX: usize = 64 << 10;
/// Bytes of frames handed to the carrier and not yet sent, past which no more runs are read.
pub const SEND_AHEAD: usize = 1 << 20;
/// How long greeting and hello may take, in milliseconds: three slow round trips.
const GREET_TIMEOUT_MS: u64 = 10_000;
/// How long a comparison may stand still, in milliseconds.
const COMPARE_TIMEOUT_MS: u64 = 60_000;
/// `Want`s of one peer that are served at a time.
const SERVES_MAX: usize = 4096;
/// Feeds that a peer may decline.
const DECLINES_MAX: usize = 65_536;
/// Absent payloads asked for at a time: even the longest then fit one frame.
const PAYLOAD_ASKS: usize = 15;
/// Events above a peer's tip that are looked at for sending unasked.
const PUSH_EVENTS_MAX: u64 = 512;

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
    /// A run brought nothing new.
    Duplicate,
    /// The author was declined here just now.
    Declined(AuthorId),
    /// Another node uses this node's key, under this boot number.
    Twin(u64),
    /// It is over; the carrier is told.
    Over(SessionId, Bye),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Waiting for the other's proof.
    AwaitGreet { until_ms: u64 },
    /// Both proofs hold. Waiting for the other's `Hello`.
    AwaitHello { until_ms: u64 },
    /// Comparing, asking, serving, telling.
    Open,
    /// Nothing more is said.
    Over,
}

/// One comparison and what it showed.
#[derive(Debug)]
struct Round {
    began_ms: u64,
    moved_ms: u64,
    /// Whether it compares what the peer held when it began, or later.
    is_strict: bool,
    has_ended: bool,
    /// Tips that the peer showed and that were not held.
    shown: BTreeSet<(AuthorId, Tip)>,
    /// Payloads asked for and not yet given or lacked.
    payloads: BTreeSet<EventId>,
    /// The last missing payload that was asked for.
    asked_to: Option<Missing>,
    /// Whether more was shown than could be noted: the next comparison shows the rest.
    is_partial: bool,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) peer: NodeId,
    pub(crate) role: Role,
    pub(crate) opened_ms: u64,
    /// When the last frame came.
    pub(crate) heard_ms: u64,
    /// Whether the peer is a gossip neighbour: then small runs reach it that way.
    pub(crate) is_neighbour: bool,
    binding: Vec<u8>,
    state: State,
    hello: Option<Hello>,
    comparison: Comparison,
    round: Option<Round>,
    /// Authors that one of the two declines.
    skip: BTreeSet<AuthorId>,
    /// Authors that the peer declines.
    peer_declines: BTreeMap<AuthorId, Reason>,
    /// Authors of whom the peer was told that they are declined here.
    told: BTreeSet<AuthorId>,
    unasked: usize,
    queued: usize,
    serves: VecDeque<Serve>,
    next_root_ms: Option<u64>,
    /// The dialer: a comparison is asked for, by the peer's token or by this node's own people.
    asked_again: Option<Option<u64>>,
    /// The listener: the token of its own last `Again`, when it went, whether it came back.
    again: Option<(u64, u64, bool)>,
}

impl Session {
    /// A session over a fresh connection. The dialer greets.
    pub(crate) fn new<L: Ledger>(
        id: SessionId,
        peer: NodeId,
        role: Role,
        binding: Vec<u8>,
        remembered: BTreeMap<AuthorId, Reason>,
        shared: &mut Shared<'_, L>,
    ) -> Self {
        let now_ms = shared.now.mono_ms;
        let mut session = Self {
            id,
            peer,
            role,
            opened_ms: now_ms,
            heard_ms: now_ms,
            is_neighbour: false,
            binding,
            state: State::AwaitGreet { until_ms: now_ms + GREET_TIMEOUT_MS },
            hello: None,
            comparison: Comparison::new([0; 32], FRAME_MAX),
            round: None,
            skip: remembered.keys().chain(shared.feeds.declines.keys()).copied().collect(),
            peer_declines: remembered,
            told: BTreeSet::new(),
            unasked: 0,
            queued: 0,
            serves: VecDeque::new(),
            next_root_ms: None,
            asked_again: None,
            again: None,
        };
        if role == Role::Dialer {
            session.greet(shared);
        }
        session
    }

    /// Whether both have said hello and neither goodbye.
    pub(crate) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// What the peer said of itself.
    pub(crate) fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// What the peer declines, to be remembered.
    pub(crate) fn peer_declines(&self) -> &BTreeMap<AuthorId, Reason> {
        &self.peer_declines
    }

    /// Whether a comparison runs, or something that it showed is still to come.
    pub(crate) fn is_syncing(&self) -> bool {
        self.round.as_ref().is_some_and(|round| !round.is_complete())
    }

    /// Whether this session has nothing to do but to wait for news.
    pub(crate) fn is_idle(&self) -> bool {
        !self.is_syncing() && self.serves.is_empty()
    }

    /// When the last comparison began and whether it was strict, if all it showed is settled.
    pub(crate) fn synced(&self) -> Option<(u64, bool)> {
        let round = self.round.as_ref().filter(|round| round.is_complete())?;
        Some((round.began_ms, round.is_strict))
    }

    /// Takes one message. Never blocks, never fails but with the storage.
    pub(crate) fn handle<L: Ledger>(
        &mut self,
        message: Message,
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        self.heard_ms = shared.now.mono_ms;
        shared.asks.progress(self.id, shared.now.mono_ms);
        match (self.state, message) {
            (State::Over, _) => {}
            (_, Message::Bye(bye)) => self.over(bye, shared),
            (_, Message::Skipped(_)) => {}
            (State::AwaitGreet { .. }, Message::Greet(greet)) => self.on_greet(&greet, shared),
            (State::AwaitHello { .. }, Message::Hello(hello)) => self.on_hello(hello, shared),
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
                let answer = self.comparison.on_done(prefix, held(shared.feeds, &self.skip));
                answer.map(|answer| answer.into_iter().for_each(|m| self.send(m, shared.effects)))
            }
            Message::Want(want) => return self.on_want(&want, shared),
            Message::Run(run) => return self.on_run(&run, shared),
            Message::Have(author, tip) => return self.on_have(author, tip, shared),
            Message::Payloads(payloads) => return self.on_payloads(payloads, shared),
            Message::Decline(author, reason) => {
                self.on_decline(author, reason, shared);
                Ok(())
            }
            Message::Lack(author, tip, reason) => return self.on_lack(author, tip, reason, shared),
            Message::Again(token) => {
                self.on_again(token);
                Ok(())
            }
            Message::Twin(boot) => {
                shared.notices.push(Notice::Twin(boot));
                Ok(())
            }
            Message::Greet(_) | Message::Hello(_) => {
                self.violation("a second greeting".into(), shared);
                Ok(())
            }
            Message::Bye(_) | Message::Skipped(_) => Ok(()),
        };
        match outcome {
            Ok(()) => self.note_progress(shared),
            Err(Stray) => {
                self.violation("a frame of a comparison that answers nothing".into(), shared);
                Ok(())
            }
        }
    }

    // Greeting

    fn greet<L: Ledger>(&mut self, shared: &mut Shared<'_, L>) {
        let greet = Greet {
            app: APP.into(),
            versions: (*VERSIONS.start(), *VERSIONS.end()),
            proof: self.proof(shared.me, Direction::Ours),
        };
        self.send(Message::Greet(greet), shared.effects);
    }

    fn proof(&self, me: &Me, direction: Direction) -> [u8; 32] {
        let (sender, receiver) = match direction {
            Direction::Ours => (me.node, self.peer),
            Direction::Theirs => (self.peer, me.node),
        };
        membership_proof(&me.membership, &self.binding, sender.as_bytes(), receiver.as_bytes())
    }

    fn on_greet<L: Ledger>(&mut self, greet: &Greet, shared: &mut Shared<'_, L>) {
        let version = greet.versions.1.min(*VERSIONS.end());
        if greet.app != APP || version < greet.versions.0.max(*VERSIONS.start()) {
            let text = format!(
                "no common protocol: this node speaks {APP} {} to {}, the other {} {} to {}",
                VERSIONS.start(),
                VERSIONS.end(),
                greet.app,
                greet.versions.0,
                greet.versions.1,
            );
            return self.bye(Bye::new(ByeCode::Version, text), shared);
        }
        // Constant time: this is what keeps strangers out.
        let proof = blake3::Hash::from_bytes(self.proof(shared.me, Direction::Theirs));
        if proof != blake3::Hash::from_bytes(greet.proof) {
            let text = "the other node is not in this network: its network id differs";
            return self.bye(Bye::new(ByeCode::OtherNetwork, text), shared);
        }
        let direction = match self.role {
            Role::Dialer => Direction::Ours,
            Role::Listener => Direction::Theirs,
        };
        let key = self.proof(shared.me, direction);
        self.comparison = Comparison::new(key, FRAME_MAX);
        if self.role == Role::Listener {
            self.greet(shared);
            self.comparison.told();
            self.begin_round(shared.now.mono_ms, true);
        }
        self.say_hello(shared);
        self.state = State::AwaitHello { until_ms: shared.now.mono_ms + GREET_TIMEOUT_MS };
    }

    fn say_hello<L: Ledger>(&mut self, shared: &mut Shared<'_, L>) {
        let me = shared.me;
        let hello = Hello {
            software: me.software.clone(),
            capabilities: ZSTD,
            frame_max: FRAME_MAX as u32,
            credit: crate::asks::CREDIT_MAX,
            clock_ms: shared.now.wall_ms,
            name: me.name.clone(),
            boot: me.boot,
            top: held(shared.feeds, &self.skip).top(),
            authors: shared.feeds.frontier.len() as u64,
            events: shared.ledger.counts().map_or(0, |counts| counts.events),
            declines: declines_digest(&me.fingerprint, shared.feeds.declines.keys()),
        };
        self.send(Message::Hello(hello), shared.effects);
    }

    fn on_hello<L: Ledger>(&mut self, hello: Hello, shared: &mut Shared<'_, L>) {
        self.state = State::Open;
        self.opened_ms = shared.now.mono_ms;
        self.comparison.set_frame_max((hello.frame_max as usize).min(FRAME_MAX));
        let top = hello.top;
        self.hello = Some(hello);
        shared.effects.push(Effect::Opened { session: self.id, peer: self.peer, role: self.role });
        shared.notices.push(Notice::Opened(self.id));
        if self.role == Role::Dialer {
            self.begin_round(shared.now.mono_ms, true);
            let answer = self.comparison.answer_top(top, held(shared.feeds, &self.skip));
            self.send(answer, shared.effects);
        }
    }

    /// Forgets what was remembered of the peer's declines: its digest has changed.
    pub(crate) fn forget_declines(&mut self, feeds: &Feeds) {
        self.peer_declines.clear();
        self.skip = feeds.declines.keys().copied().collect();
    }

    // Comparison

    fn begin_round(&mut self, now_ms: u64, is_strict: bool) {
        self.round = Some(Round {
            began_ms: now_ms,
            moved_ms: now_ms,
            is_strict,
            has_ended: false,
            shown: BTreeSet::new(),
            payloads: BTreeSet::new(),
            asked_to: None,
            is_partial: false,
        });
    }

    /// Asks for a comparison that begins after now: the dialer begins one, the listener asks it to.
    pub(crate) fn compare<L: Ledger>(&mut self, token: u64, shared: &mut Shared<'_, L>) {
        if !self.is_open() {
            return;
        }
        match self.role {
            Role::Dialer => {
                self.asked_again.get_or_insert(None);
            }
            Role::Listener => {
                self.again = Some((token, shared.now.mono_ms, false));
                self.send(Message::Again(token), shared.effects);
            }
        }
    }

    fn on_again(&mut self, token: u64) {
        match self.role {
            Role::Dialer => self.asked_again = Some(Some(token)),
            Role::Listener => {
                if let Some((own, _, echoed)) = &mut self.again
                    && *own == token
                {
                    *echoed = true;
                }
            }
        }
    }

    fn on_root<L: Ledger>(
        &mut self,
        hash: [u8; 16],
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Stray> {
        let is_dialer = self.role == Role::Dialer;
        let answer = self.comparison.on_root(hash, is_dialer, held(shared.feeds, &self.skip))?;
        if !is_dialer {
            // An equal hash was computed by the dialer some time ago: strict only if it came for our
            // asking. Otherwise the dialer answers our own hash, and that is after now.
            let echoed = self.again.take_if(|(_, _, echoed)| *echoed);
            let is_strict = echoed.is_some() || !matches!(answer, Message::Done(_));
            let began_ms = echoed.map_or(shared.now.mono_ms, |(_, sent_ms, _)| sent_ms);
            self.begin_round(began_ms, is_strict);
        }
        self.send(answer, shared.effects);
        Ok(())
    }

    fn on_items<L: Ledger>(
        &mut self,
        items: &Items,
        shared: &mut Shared<'_, L>,
    ) -> Result<Result<(), Stray>, Fault<L>> {
        if let Err(stray) = self.comparison.expects_items(items.prefix) {
            return Ok(Err(stray));
        }
        let mut differing = BTreeSet::new();
        for item in &items.items {
            let author = item.author;
            self.lift_decline(&author, shared.feeds);
            if self.declined(&author, shared) {
                continue;
            }
            let mut lacks = false;
            for tip in &item.tips {
                if shared.feeds.find(&author, *tip, shared.ledger)?.is_none() {
                    lacks = true;
                    let noted = self.claim(author, *tip, 0, shared);
                    if let Some(round) = &mut self.round {
                        round.is_partial |= !noted;
                        round.shown.insert((author, *tip));
                    }
                }
            }
            let Some(feed) = shared.feeds.feed(&author) else {
                self.ask_now(&author, shared);
                continue;
            };
            if feed.tips() == item.tips {
                continue;
            }
            let said = if lacks {
                self.ask_now(&author, shared)
            } else {
                self.push_from(&author, &item.tips, shared)?
            };
            if !said {
                differing.insert(author);
            }
        }
        let answer = self.comparison.answer_items(items, differing, held(shared.feeds, &self.skip));
        Ok(answer.map(|answer| self.send(answer, shared.effects)))
    }

    /// After a frame of a comparison: it may have ended.
    fn note_progress<L: Ledger>(&mut self, shared: &mut Shared<'_, L>) -> Result<(), Fault<L>> {
        let Some(round) = &mut self.round else { return Ok(()) };
        round.moved_ms = shared.now.mono_ms;
        if !round.has_ended && self.comparison.has_ended() {
            round.has_ended = true;
            self.next_root_ms = None;
            self.ask_payloads(shared)?;
        }
        Ok(())
    }

    // Runs to this side

    fn claim<L: Ledger>(
        &self,
        author: AuthorId,
        tip: Tip,
        wait_ms: u64,
        shared: &mut Shared<'_, L>,
    ) -> bool {
        let greatest = shared.feeds.feed(&author).map_or(0, |feed| feed.greatest().seq);
        let gap = tip.seq.saturating_sub(greatest);
        shared.asks.claim(self.id, author, tip, gap, shared.now.mono_ms + wait_ms)
    }

    fn ask_now<L: Ledger>(&mut self, author: &AuthorId, shared: &mut Shared<'_, L>) -> bool {
        let next = shared.asks.ask_now(self.id, author, shared.now.mono_ms);
        next.inspect(|next| self.want(*next, shared)).is_some()
    }

    /// Sends the `Want` that was decided.
    pub(crate) fn want<L: Ledger>(&mut self, next: Next, shared: &mut Shared<'_, L>) {
        let locator = short_locator(shared.feeds.feed(&next.author));
        let Next { author, tip, credit, .. } = next;
        let want = Want { author, tip: Some(tip), locator, credit };
        self.send(Message::Want(want), shared.effects);
    }

    fn on_run<L: Ledger>(
        &mut self,
        run: &VerifiedRun,
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        let author = run.author();
        let len = run.encode().len() as u64;
        let head = Tip::from(run.head());
        let was_asked = shared.asks.is_asked(self.id, &author);
        match shared.feeds.take_run(run, Way::Session, shared.wall, shared.ledger)? {
            Taken::New => shared.notices.push(Notice::Grew),
            Taken::Held => {
                shared.notices.push(Notice::Duplicate);
                self.send(Message::Have(author, head), shared.effects);
            }
            // What was asked for must follow from the locator: this peer can't serve it.
            Taken::UnknownBase if was_asked => shared.asks.lacks(self.id, &author, None),
            Taken::UnknownBase => {
                self.claim(author, head, 0, shared);
            }
            Taken::Declined(_) => {
                shared.notices.push(Notice::Declined(author));
                self.declined(&author, shared);
            }
        }
        settle_claims(&author, shared)?;
        shared.asks.received(self.id, &author, len, shared.now.mono_ms);
        Ok(())
    }

    fn on_have<L: Ledger>(
        &mut self,
        author: AuthorId,
        tip: Tip,
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        self.unasked = 0;
        self.lift_decline(&author, shared.feeds);
        if !self.declined(&author, shared)
            && shared.feeds.find(&author, tip, shared.ledger)?.is_none()
        {
            self.claim(author, tip, HEAD_WAIT_MS, shared);
        }
        Ok(())
    }

    fn on_lack<L: Ledger>(
        &mut self,
        author: AuthorId,
        tip: Option<Tip>,
        reason: LackReason,
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        let asked = shared.asks.is_asked(self.id, &author);
        match (reason, shared.feeds.feed(&author)) {
            (LackReason::SendLongLocator, Some(feed)) if asked => {
                let locator = long_locator(feed, shared.ledger)?;
                // The credit of the first `Want` is still granted: nothing came for it.
                let credit = crate::asks::CREDIT_ASK;
                self.send(Message::Want(Want { author, tip, locator, credit }), shared.effects);
            }
            _ => shared.asks.lacks(self.id, &author, tip),
        }
        Ok(())
    }

    // Runs to the other side

    fn on_want<L: Ledger>(
        &mut self,
        want: &Want,
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        self.unasked = 0;
        let author = want.author;
        self.lift_decline(&author, shared.feeds);
        if self.declined(&author, shared) {
            return Ok(());
        }
        // A locator names its sender's tips: what of them isn't here is worth asking for.
        if want.locator.last() != Some(&Tip::ROOT) {
            for tip in &want.locator {
                if shared.feeds.find(&author, *tip, shared.ledger)?.is_none() {
                    self.claim(author, *tip, 0, shared);
                }
            }
        }
        let same = |serve: &&mut Serve| serve.author == author && serve.tip == want.tip;
        if let Some(serve) = self.serves.iter_mut().find(same) {
            serve.credit = serve.credit.saturating_add(want.credit);
            return Ok(());
        }
        if self.serves.len() >= SERVES_MAX {
            self.violation(format!("more than {SERVES_MAX} wants at a time"), shared);
            return Ok(());
        }
        let begun = match shared.feeds.feed(&author) {
            Some(feed) => {
                Serve::begin(feed, author, want.tip, &want.locator, want.credit, shared.ledger)?
            }
            None => Err(LackReason::Gone),
        };
        match begun {
            Ok(serve) => self.serves.push_back(serve),
            Err(reason) => self.send(Message::Lack(author, want.tip, reason), shared.effects),
        }
        Ok(())
    }

    /// Reads runs for the peer's `Want`s, in turn, as long as the carrier has room.
    pub(crate) fn pump<L: Ledger>(&mut self, shared: &mut Shared<'_, L>) -> Result<(), Fault<L>> {
        let mut waiting = 0;
        while self.queued < SEND_AHEAD && waiting < self.serves.len() {
            let Some(mut serve) = self.serves.pop_front() else { break };
            match serve.next(shared.ledger)? {
                Served::Run(run) => {
                    self.send_bytes(&run.encode(), shared.effects);
                    self.serves.push_back(serve);
                    waiting = 0;
                }
                Served::Waits => {
                    self.serves.push_back(serve);
                    waiting += 1;
                }
                Served::Finished => {}
                Served::Damaged => {
                    let lack = Message::Lack(serve.author, serve.tip, LackReason::Gone);
                    self.send(lack, shared.effects);
                }
            }
        }
        Ok(())
    }

    /// Sends unasked what one feed has above `theirs`, if it is little. Whether it went.
    fn push_from<L: Ledger>(
        &mut self,
        author: &AuthorId,
        theirs: &[Tip],
        shared: &mut Shared<'_, L>,
    ) -> Result<bool, Fault<L>> {
        let Some(feed) = shared.feeds.feed(author) else { return Ok(false) };
        let (&[ours], &[theirs]) = (feed.tips().as_slice(), theirs) else { return Ok(false) };
        if ours.seq.saturating_sub(theirs.seq) > PUSH_EVENTS_MAX {
            return Ok(false);
        }
        let room = (UNASKED_MAX - self.unasked) as u64;
        let begun = Serve::begin(feed, *author, Some(ours), &[theirs], u64::MAX, shared.ledger)?;
        let Ok(mut serve) = begun else { return Ok(false) };
        let (mut runs, mut len) = (Vec::new(), 0);
        loop {
            match serve.next(shared.ledger)? {
                Served::Run(run) => {
                    let bytes = run.encode();
                    len += bytes.len() as u64;
                    if len > room {
                        return Ok(false);
                    }
                    runs.push(bytes);
                }
                Served::Finished => break,
                Served::Waits | Served::Damaged => return Ok(false),
            }
        }
        self.unasked += len as usize;
        for bytes in runs {
            self.send_bytes(&bytes, shared.effects);
        }
        Ok(true)
    }

    /// Tells of a run just written or taken here: the run itself where it may go unasked, else its
    /// head.
    pub(crate) fn tell(&mut self, run: &VerifiedRun, by_gossip: bool, effects: &mut Vec<Effect>) {
        let author = run.author();
        if !self.is_open() || self.skip.contains(&author) {
            return;
        }
        if !(by_gossip && self.is_neighbour) {
            let bytes = run.encode();
            if self.unasked + bytes.len() <= UNASKED_MAX {
                self.unasked += bytes.len();
                self.send_bytes(&bytes, effects);
                return;
            }
        }
        self.send(Message::Have(author, Tip::from(run.head())), effects);
    }

    /// Tells that a tip is durable here.
    pub(crate) fn tell_head(&mut self, author: AuthorId, tip: Tip, effects: &mut Vec<Effect>) {
        if self.is_open() && !self.skip.contains(&author) {
            self.send(Message::Have(author, tip), effects);
        }
    }

    // Declines

    /// Whether `author` is declined here; says so once a session.
    fn declined<L: Ledger>(&mut self, author: &AuthorId, shared: &mut Shared<'_, L>) -> bool {
        let Some(reason) = shared.feeds.declines.get(author) else { return false };
        self.skip.insert(*author);
        shared.asks.forget(author);
        if self.told.insert(*author) {
            self.send(Message::Decline(*author, *reason), shared.effects);
        }
        true
    }

    /// An author was declined here just now: it is left out from now on.
    pub(crate) fn leave_out(&mut self, author: AuthorId) {
        self.skip.insert(author);
        if let Some(round) = &mut self.round {
            round.shown.retain(|(shown, _)| *shown != author);
        }
    }

    fn on_decline<L: Ledger>(
        &mut self,
        author: AuthorId,
        reason: Reason,
        shared: &mut Shared<'_, L>,
    ) {
        if self.peer_declines.len() < DECLINES_MAX {
            self.peer_declines.insert(author, reason);
            self.skip.insert(author);
        }
        self.serves.retain(|serve| serve.author != author);
        shared.asks.lacks(self.id, &author, None);
    }

    /// The peer speaks of a feed that it had declined: it takes it again.
    fn lift_decline(&mut self, author: &AuthorId, feeds: &Feeds) {
        if self.peer_declines.remove(author).is_some() && !feeds.declines.contains_key(author) {
            self.skip.remove(author);
        }
    }

    // Payloads

    fn ask_payloads<L: Ledger>(&mut self, shared: &mut Shared<'_, L>) -> Result<(), Fault<L>> {
        let Some(round) = &mut self.round else { return Ok(()) };
        let missing = shared.ledger.missing(round.asked_to.as_ref(), PAYLOAD_ASKS)?;
        let Some(last) = missing.last() else { return Ok(()) };
        round.asked_to = Some(*last);
        round.payloads = missing.iter().map(|missing| missing.tip.id).collect();
        let ask = missing.iter().map(|missing| Ask { author: missing.author, tip: missing.tip });
        let ask = ask.collect();
        self.send(Message::Payloads(Payloads { ask, ..Payloads::default() }), shared.effects);
        Ok(())
    }

    fn on_payloads<L: Ledger>(
        &mut self,
        payloads: Payloads,
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        self.give_payloads(&payloads.ask, shared)?;
        let pending = self.round.as_mut().map(|round| std::mem::take(&mut round.payloads));
        let mut pending = pending.unwrap_or_default();
        if !payloads.give.is_empty() {
            self.take_payloads(&payloads.give, &pending, shared)?;
        }
        for id in payloads.give.iter().map(|(id, _)| id).chain(&payloads.lack) {
            pending.remove(id);
        }
        let answered = !(payloads.give.is_empty() && payloads.lack.is_empty());
        let is_last = pending.is_empty();
        if let Some(round) = &mut self.round {
            round.payloads = pending;
        }
        if answered && is_last { self.ask_payloads(shared) } else { Ok(()) }
    }

    fn give_payloads<L: Ledger>(
        &mut self,
        asks: &[Ask],
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        let mut answer = Payloads::default();
        let mut room = (FRAME_MAX / 2).min(SEND_AHEAD.saturating_sub(self.queued));
        for ask in asks {
            let branch = shared.feeds.find(&ask.author, ask.tip, shared.ledger)?;
            let event = match branch {
                Some(branch) => shared.ledger.events(branch, ask.tip.seq, ask.tip.seq, 0)?.pop(),
                None => None,
            };
            match event.as_ref().and_then(|event| event.payload.bytes()) {
                Some(bytes) if bytes.len() + 64 <= room => {
                    room -= bytes.len() + 64;
                    answer.give.push((ask.tip.id, bytes.to_vec()));
                }
                // It doesn't fit: the next comparison asks again.
                _ => answer.lack.push(ask.tip.id),
            }
        }
        if !asks.is_empty() {
            self.send(Message::Payloads(answer), shared.effects);
        }
        Ok(())
    }

    fn take_payloads<L: Ledger>(
        &mut self,
        given: &[(EventId, Vec<u8>)],
        pending: &BTreeSet<EventId>,
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        let missing = shared.ledger.missing(None, DECLINES_MAX)?;
        let missing: BTreeMap<EventId, Missing> =
            missing.into_iter().map(|missing| (missing.tip.id, missing)).collect();
        for (id, bytes) in given.iter().filter(|(id, _)| pending.contains(id)) {
            if let Some(at) = missing.get(id) {
                shared.feeds.fill(&at.author, at.tip, bytes, shared.wall, shared.ledger)?;
            }
        }
        Ok(())
    }

    // Time, and the end

    /// The carrier has sent this many bytes.
    pub(crate) fn on_sent(&mut self, bytes: usize) {
        self.queued = self.queued.saturating_sub(bytes);
    }

    /// Settles what the last round showed and is here, declined or given up by now.
    pub(crate) fn settle<L: Ledger>(&mut self, shared: &mut Shared<'_, L>) -> Result<(), Fault<L>> {
        let Some(round) = self.round.as_mut().filter(|round| !round.shown.is_empty()) else {
            return Ok(());
        };
        round.shown.retain(|(author, tip)| shared.asks.is_claimed(author, *tip));
        Ok(())
    }

    /// Does what is due. `jitter_ms` is drawn anew by the caller at each call.
    pub(crate) fn handle_timeout<L: Ledger>(&mut self, jitter_ms: u64, shared: &mut Shared<'_, L>) {
        let now_ms = shared.now.mono_ms;
        match self.state {
            State::AwaitGreet { until_ms } | State::AwaitHello { until_ms }
                if until_ms <= now_ms =>
            {
                let text = format!("no greeting within {} s", GREET_TIMEOUT_MS / 1000);
                self.bye(Bye::new(ByeCode::Timeout, text), shared);
            }
            State::AwaitGreet { .. } | State::AwaitHello { .. } | State::Over => {}
            State::Open => self.open_timeout(now_ms, jitter_ms, shared),
        }
    }

    fn open_timeout<L: Ledger>(&mut self, now_ms: u64, jitter_ms: u64, shared: &mut Shared<'_, L>) {
        if !self.comparison.has_ended() {
            if self.round.as_ref().is_some_and(|r| r.moved_ms + COMPARE_TIMEOUT_MS <= now_ms) {
                let text = format!("a comparison stood still for {} s", COMPARE_TIMEOUT_MS / 1000);
                self.bye(Bye::new(ByeCode::Timeout, text), shared);
            }
            return;
        }
        if self.role == Role::Listener {
            return;
        }
        let due_ms = *self.next_root_ms.get_or_insert(now_ms + shared.me.interval_ms + jitter_ms);
        let asked = self.asked_again.take();
        if asked.is_none() && due_ms > now_ms {
            return;
        }
        if let Some(Some(token)) = asked {
            self.send(Message::Again(token), shared.effects);
        }
        self.next_root_ms = None;
        self.begin_round(now_ms, true);
        let root = self.comparison.ask(held(shared.feeds, &self.skip));
        self.send(root, shared.effects);
    }

    /// When [`Session::handle_timeout`] has something to do.
    pub(crate) fn next_timeout_ms(&self) -> Option<u64> {
        match self.state {
            State::AwaitGreet { until_ms } | State::AwaitHello { until_ms } => Some(until_ms),
            State::Over => None,
            State::Open if !self.comparison.has_ended() => {
                self.round.as_ref().map(|round| round.moved_ms + COMPARE_TIMEOUT_MS)
            }
            State::Open if self.role == Role::Listener => None,
            State::Open if self.asked_again.is_some() => Some(0),
            // Not drawn yet: at once, to draw it.
            State::Open => Some(self.next_root_ms.unwrap_or(0)),
        }
    }

    /// Ends the session with a reason.
    pub(crate) fn bye<L: Ledger>(&mut self, bye: Bye, shared: &mut Shared<'_, L>) {
        if self.state != State::Over {
            shared.effects.push(Effect::Close { session: self.id, bye: bye.clone() });
            self.over_quietly(bye, shared);
        }
    }

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
        shared.asks.close(self.id);
        shared.notices.push(Notice::Over(self.id, bye));
    }

    pub(crate) fn send(&mut self, message: Message, effects: &mut Vec<Effect>) {
        self.push_frame(message.encode(), effects);
    }

    /// Sends an encoded run, compressed where both take that and it pays.
    fn send_bytes(&mut self, run: &[u8], effects: &mut Vec<Effect>) {
        let zstd = self.hello.as_ref().is_some_and(|hello| hello.capabilities & ZSTD != 0);
        self.push_frame(crate::message::run_frame(run, zstd), effects);
    }

    fn push_frame(&mut self, frame: Vec<u8>, effects: &mut Vec<Effect>) {
        self.queued += frame.len();
        effects.push(Effect::Send { session: self.id, frame });
    }
}

impl Round {
    fn is_complete(&self) -> bool {
        self.has_ended && !self.is_partial && self.shown.is_empty() && self.payloads.is_empty()
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Ours,
    Theirs,
}

fn held<'a>(feeds: &'a Feeds, skip: &'a BTreeSet<AuthorId>) -> Held<'a> {
    Held { frontier: &feeds.frontier, skip }
}

/// Takes off the list every claimed tip of `author` that is held by now.
pub(crate) fn settle_claims<L: Ledger>(
    author: &AuthorId,
    shared: &mut Shared<'_, L>,
) -> Result<(), Fault<L>> {
    for tip in shared.asks.claimed(author) {
        if shared.feeds.find(author, tip, shared.ledger)?.is_some() {
            shared.asks.settle(author, tip);
        }
    }
    Ok(())
}
