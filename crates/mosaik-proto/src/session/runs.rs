//! Runs, to this side and to the other: claims, `Want`s, and what goes unasked.

use std::collections::BTreeSet;

use mosaik_core::{
    feed::{Ledger, Tip, Way},
    id::AuthorId,
    run::VerifiedRun,
};

use super::{Notice, Session, Shared};
use crate::{
    Fault,
    asks::{HEAD_WAIT_MS, Next},
    carrier::Effect,
    feeds::Taken,
    hint::INLINE_RUN_MAX,
    message::{LackReason, Message, Want},
    serve::{Serve, Served, long_locator, short_locator},
};

/// Bytes of runs that may be sent unasked since the peer's last `Want` or `Have`.
pub const UNASKED_MAX: usize = 64 << 10;
/// Bytes of frames handed to the carrier and not yet sent, past which no more runs are read.
pub const SEND_AHEAD: usize = 1 << 20;
/// The same over radio: what comes up meanwhile goes before the rest.
const SEND_AHEAD_RADIO: usize = 16 << 10;
/// `Want`s of one peer that are served at a time.
const SERVES_MAX: usize = 4096;
/// Bytes of a run that goes over radio instead of its head: with what a link leaves out it is a packet.
const PUSH_RADIO_MAX: usize = 480;
/// Bytes of a run that goes by broadcast: with what seals it a packet.
pub(crate) const BROADCAST_RUN_MAX: usize = 400;
/// How long what was before a broadcast that makes no sense alone is waited for, in milliseconds, where a
/// link is as fast as the internet.
const OVERHEARD_WAIT_MS: u64 = 1_000;
/// Events above a peer's tip that are looked at for sending unasked.
const PUSH_EVENTS_MAX: u64 = 512;

/// What came in one batch, as far as it matters whose turn it is to tell it over radio.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Whether this node has sessions over the internet, too.
    pub(crate) is_bridge: bool,
    /// What came over radio.
    pub(crate) over_radio: BTreeSet<(AuthorId, Tip)>,
    /// Of that, what a bridge brought.
    pub(crate) by_bridge: BTreeSet<(AuthorId, Tip)>,
    /// Authors of whom something came over radio before: the island has them first.
    pub(crate) home: BTreeSet<AuthorId>,
    /// What came by broadcast: all who hear such have it from there.
    pub(crate) overheard: BTreeSet<(AuthorId, Tip)>,
}

/// Authors that are remembered as an island's own.
const HOME_MAX: usize = 4096;

impl News {
    /// Notes what a session brought.
    pub(crate) fn note(&mut self, session: &Session) {
        if !session.is_radio() {
            return;
        }
        self.over_radio.extend(&session.brought);
        if session.island.is_peer_bridge {
            self.by_bridge.extend(&session.brought);
        } else {
            let room = HOME_MAX - self.home.len();
            self.home.extend(session.brought.iter().map(|(author, _)| *author).take(room));
        }
    }

    /// Notes what came by broadcast.
    pub(crate) fn note_overheard(&mut self, overheard: BTreeSet<(AuthorId, Tip)>) {
        let room = HOME_MAX - self.home.len();
        self.home.extend(overheard.iter().map(|(author, _)| *author).take(room));
        self.over_radio.extend(&overheard);
        self.overheard = overheard;
    }

    pub(crate) fn is_overheard(&self, event: &(AuthorId, Tip)) -> bool {
        self.overheard.contains(event)
    }
}

/// To this side.
impl Session {
    /// The peer says that it holds a tip which isn't held here. While a comparison runs it counts as
    /// shown by it, for it may stand in the place of an item.
    pub(super) fn claim<L: Ledger>(
        &mut self,
        author: AuthorId,
        tip: Tip,
        wait_ms: u64,
        shared: &mut Shared<'_, L>,
    ) {
        let greatest = shared.feeds.feed(&author).map_or(0, |feed| feed.greatest().seq);
        let gap = tip.seq.saturating_sub(greatest);
        let noted = shared.asks.claim(self.id, author, tip, gap, shared.now.mono_ms + wait_ms);
        self.note_shown(author, tip, noted);
    }

    pub(super) fn ask_now<L: Ledger>(
        &mut self,
        author: &AuthorId,
        shared: &mut Shared<'_, L>,
    ) -> bool {
        if shared.feeds.is_full() {
            return false;
        }
        let next = shared.asks.ask_now(self.id, author, shared.now.mono_ms);
        next.inspect(|next| self.want(*next, shared)).is_some()
    }

    /// Sends the `Want` that was decided.
    pub(crate) fn want<L: Ledger>(&mut self, next: Next, shared: &mut Shared<'_, L>) {
        let locator = short_locator(shared.feeds.feed(&next.author));
        let Next { author, tip, credit, .. } = next;
        let want = Want { author, tip, locator, credit };
        self.send(Message::Want(want), shared.effects);
    }

    pub(super) fn on_run<L: Ledger>(
        &mut self,
        run: &VerifiedRun,
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        let author = run.author();
        let cost = (run.events().len() as u64, run.encoded_len() as u64);
        let head = Tip::from(run.head());
        match shared.feeds.take_run(run, Way::Session, shared.wall, shared.ledger)? {
            Taken::New => {
                shared.notices.push(Notice::Grew);
                if self.is_radio() {
                    self.brought.insert((author, head));
                    self.turns.drop_held(&author, head.seq);
                }
            }
            Taken::Held => {
                shared.notices.push(Notice::Duplicate(run.events().len()));
                self.send(Message::Have(author, head), shared.effects);
            }
            // Also where something of this author was asked for: a new run may come before older
            // ones that are on their way.
            Taken::UnknownBase => self.claim(author, head, 0, shared),
            Taken::NoRoom => {}
            Taken::Declined => {
                shared.notices.push(Notice::Declined(author));
                self.declined(&author, shared);
            }
        }
        settle_claims(&author, shared)?;
        shared.asks.received(self.id, &author, cost, shared.now.mono_ms);
        Ok(())
    }

    pub(super) fn on_have<L: Ledger>(
        &mut self,
        author: AuthorId,
        tip: Tip,
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        self.unasked = 0;
        self.note_held(&author, tip, shared)?;
        self.lift_decline(&author, shared.feeds);
        if !self.declined(&author, shared)
            && shared.feeds.find(&author, tip, shared.ledger)?.is_none()
        {
            self.claim(author, tip, HEAD_WAIT_MS, shared);
        }
        Ok(())
    }

    pub(super) fn on_lack<L: Ledger>(
        &mut self,
        author: AuthorId,
        tip: Option<Tip>,
        reason: LackReason,
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        if reason == LackReason::SendLongLocator
            && let Some(feed) = shared.feeds.feed(&author)
            && let Some(credit) = shared.asks.may_be_long(self.id, &author, tip)
        {
            let locator = long_locator(feed, shared.ledger)?;
            self.send(Message::Want(Want { author, tip, locator, credit }), shared.effects);
        } else {
            shared.asks.lacks(self.id, &author, tip);
        }
        Ok(())
    }
}

/// To the other side.
impl Session {
    pub(super) fn on_want<L: Ledger>(
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
            serve.grant(want.credit);
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
            Ok(mut serve) => {
                if let Some(radio) = &self.radio {
                    serve.in_short_runs(radio.run_len_max);
                }
                self.serves.push_back(serve);
            }
            Err(reason) => self.send(Message::Lack(author, want.tip, reason), shared.effects),
        }
        Ok(())
    }

    /// Reads payloads and runs that the peer asked for, in turn, as long as the carrier has room.
    pub(crate) fn pump<L: Ledger>(&mut self, shared: &mut Shared<'_, L>) -> Result<(), Fault<L>> {
        self.give_payloads(shared)?;
        let mut waiting = 0;
        let (patience, now_ms) = (self.patience(), shared.now.mono_ms);
        let ahead = if self.is_radio() { SEND_AHEAD_RADIO } else { SEND_AHEAD };
        while self.queued < ahead && waiting < self.serves.len() {
            if self.is_radio() {
                self.shortest_first();
            }
            let Some(mut serve) = self.serves.pop_front() else { break };
            match serve.next(shared.ledger)? {
                Served::Run(bytes) => {
                    self.send_run(&bytes, true, shared.effects);
                    self.serves.push_back(serve);
                    waiting = 0;
                }
                // One that was abandoned must not keep a place for ever.
                Served::Waits if !serve.waits(patience, now_ms) => {}
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
        self.give_slices(shared.effects);
        Ok(())
    }

    /// Of what may go, the feed that lacks least is the next: it is whole soonest.
    fn shortest_first(&mut self) {
        let shortest = self.serves.iter().enumerate().filter(|(_, serve)| serve.may_go());
        let shortest = shortest.min_by_key(|(_, serve)| serve.events()).map(|(at, _)| at);
        if let Some(serve) = shortest.and_then(|at| self.serves.remove(at)) {
            self.serves.push_front(serve);
        }
    }

    /// Sends unasked what one feed has above `theirs`, if it is little. Whether it went.
    pub(super) fn push_from<L: Ledger>(
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
                Served::Run(bytes) => {
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
            self.send_run(&bytes, false, shared.effects);
        }
        Ok(true)
    }

    /// Tells of runs that were just written here, one upon the other, of which the first are encoded in
    /// `unasked`: these themselves, as far as they may go unasked, and of the rest the last head. Whoever
    /// asks for that gets all before it; a head for each would be more than anybody notes. A gossip
    /// neighbour has small runs from gossip if they go there.
    pub(crate) fn tell_own(
        &mut self,
        runs: &[VerifiedRun],
        unasked: &[Vec<u8>],
        by_gossip: bool,
        effects: &mut Vec<Effect>,
    ) {
        let Some(last) = runs.last() else { return };
        if !self.tells() || self.skip.contains(&last.author()) {
            return;
        }
        let comes_by_gossip =
            |bytes: &[u8]| by_gossip && self.is_neighbour && bytes.len() <= INLINE_RUN_MAX;
        let room = UNASKED_MAX.saturating_sub(self.unasked);
        let mut len = 0;
        let fits = |bytes: &&Vec<u8>| {
            len += bytes.len();
            !comes_by_gossip(bytes) && len <= room
        };
        let told = unasked.iter().take_while(fits).count();
        for bytes in &unasked[..told] {
            self.unasked += bytes.len();
            self.send_run(bytes, false, effects);
        }
        if told < runs.len() {
            self.send(Message::Have(last.author(), Tip::from(last.head())), effects);
        }
    }

    /// Tells over radio that an event is durable here: by itself, where it is little more than its head,
    /// for the question and the answer would take two packets more.
    pub(crate) fn tell_event<L: Ledger>(
        &mut self,
        author: AuthorId,
        tip: Tip,
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        if !self.tells() || self.skip.contains(&author) || self.brought.contains(&(author, tip)) {
            return Ok(());
        }
        if self.is_open()
            && let Some(bytes) = event_run(author, tip, shared)?
            && bytes.len() <= PUSH_RADIO_MAX
            && self.unasked + bytes.len() <= UNASKED_MAX
        {
            self.unasked += bytes.len();
            self.send_run(&bytes, false, shared.effects);
            return Ok(());
        }
        self.tell_head(author, tip, shared.effects);
        Ok(())
    }

    /// Whether it is this node's turn to tell over radio that an event is durable here. What isn't to be
    /// told by itself is done with.
    pub(crate) fn is_turn<L: Ledger>(
        &mut self,
        (author, tip): (AuthorId, Tip),
        news: &News,
        shared: &mut Shared<'_, L>,
    ) -> bool {
        let own_name = self.radio.as_ref().map_or(&[][..], |radio| &radio.own_name);
        let is_first = || self.island.is_first(own_name, &author);
        let came_over_radio = news.over_radio.contains(&(author, tip));
        let now_ms = shared.now.mono_ms;
        if !news.is_bridge {
            // The one bridge brought it: the other need only know that it is here.
            if self.island.is_peer_bridge && news.by_bridge.contains(&(author, tip)) {
                self.tell_head(author, tip, shared.effects);
                return false;
            }
        } else if self.island.is_peer_bridge {
            // Mostly it has it from outside, too. One of the two says so, of all that came meanwhile.
            let wait_ms = self.island.wait_ms * if is_first() { 4 } else { 8 };
            self.turns.push(now_ms + wait_ms, author, tip, true);
            return false;
        } else if !came_over_radio && (!is_first() || news.home.contains(&author)) {
            self.turns.push(now_ms + self.island.wait_ms, author, tip, false);
            return false;
        }
        self.tells() && !self.skip.contains(&author) && !self.brought.contains(&(author, tip))
    }

    /// The peer hears what is broadcast, and this event was: it asks for it where it lacks it.
    pub(crate) fn was_broadcast(&mut self, author: &AuthorId, seq: u64) {
        self.turns.drop_held(author, seq);
    }

    /// Whether the peer hears what this node broadcasts.
    pub(crate) fn hears_broadcasts(&self) -> bool {
        self.island.hears_broadcasts
    }

    /// Something of the peer's network was broadcast that lacks what is before it.
    pub(crate) fn claim_overheard<L: Ledger>(
        &mut self,
        author: AuthorId,
        tip: Tip,
        shared: &mut Shared<'_, L>,
    ) {
        // What is before it may be under way.
        let wait_ms = OVERHEARD_WAIT_MS * self.patience();
        if self.is_open() && !self.skip.contains(&author) {
            self.claim(author, tip, wait_ms, shared);
        }
    }

    /// Whether both ends are bridges: what either writes reaches the other from outside.
    pub(crate) fn is_between_bridges(&self, is_bridge: bool) -> bool {
        is_bridge && self.island.is_peer_bridge
    }

    /// Tells what waited for its turn and is due: nobody else did.
    pub(crate) fn tell_due<L: Ledger>(
        &mut self,
        is_bridge: bool,
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        while let Some((author, tip)) = self.turns.due(shared.now.mono_ms) {
            match self.is_between_bridges(is_bridge) {
                true => self.tell_head(author, tip, shared.effects),
                false => self.tell_event(author, tip, shared)?,
            }
        }
        Ok(())
    }

    /// Tells that a tip is durable here.
    pub(crate) fn tell_head(&mut self, author: AuthorId, tip: Tip, effects: &mut Vec<Effect>) {
        // The peer knows; over radio its carrier was told by this one's that the run came.
        if self.brought.contains(&(author, tip)) {
            return;
        }
        if self.tells() && !self.skip.contains(&author) {
            self.send(Message::Have(author, tip), effects);
        }
    }
}

/// The run of one event, encoded; none of one that isn't held.
pub(crate) fn event_run<L: Ledger>(
    author: AuthorId,
    tip: Tip,
    shared: &mut Shared<'_, L>,
) -> Result<Option<Vec<u8>>, Fault<L>> {
    let Some(feed) = shared.feeds.feed(&author) else { return Ok(None) };
    let Some(branch) = feed.find(tip, shared.ledger)? else { return Ok(None) };
    let before = match tip.seq {
        1 => Some(Tip::ROOT),
        seq => shared.ledger.id_at(branch, seq - 1)?.map(|id| Tip { seq: seq - 1, id }),
    };
    let Some(before) = before else { return Ok(None) };
    let begun = Serve::begin(feed, author, Some(tip), &[before], u64::MAX, shared.ledger)?;
    let Ok(mut serve) = begun else { return Ok(None) };
    Ok(match serve.next(shared.ledger)? {
        Served::Run(bytes) => Some(bytes),
        Served::Waits | Served::Finished | Served::Damaged => None,
    })
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
