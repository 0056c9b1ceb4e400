//! The feeds that a node holds: taking runs in, appending to its own, folding both.
//!
//! Invariants:
//! - An event is stored in its branch, folded, and noted in the frontier in one transaction of the
//!   ledger. If that fails, this whole value is thrown away and built anew from the ledger.
//! - Own events follow the own event before; so each copy of a key makes one branch, whatever is
//!   restarted.
//! - Nothing declined is stored, whoever sends it.
//!
//! Source: FORMAT.md of mosaik-core; Kulkarni et al., "Logical Physical Clocks", OPODIS 2014.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use mosaik_core::{
    codec::{ReadError, Reader, Writer},
    event::{Draft, Event, Hasher, Payload},
    feed::{Branch, BranchId, Feed, Ledger, Place, Tip, Way},
    frontier::Frontier,
    hlc::{Clock, Hlc, OBSERVE_AHEAD_MAX_MS, SKEW_MAX_MS, is_held_back},
    id::{AuthorId, EventId, Fingerprint},
    limits::{RUN_LEN_MAX, UNSIGNED_EVENTS_MAX, UNSIGNED_PAYLOAD_MAX},
    run::{Fill, VerifiedRun},
    trie::{Prefix, Rule},
    view,
};

use crate::{Fault, message::Reason};

/// Names of this file's values in the ledger.
const META_OWN: &str = "own last";
const META_DECLINED: &str = "declined";
const META_SEEN: &str = "seen";
/// An own stamp this far ahead of a clock that nobody confirms was made by a broken clock, in ms.
const STAMP_AHEAD_MAX_MS: u64 = 24 * 60 * 60 * 1000;
/// Events taken off the held-back list in one go.
const RELEASE_MAX: usize = 1024;
/// Authors that are declined at a time, here or by one peer, in memory.
pub(crate) const DECLINES_MAX: usize = 65_536;

/// What a node's clock says, and what its peers say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wall {
    /// Unix ms to work with.
    pub(crate) ms: u64,
    /// Whether peers' clocks agree within ten minutes.
    pub(crate) confirmed: bool,
    /// Whether it was never set, so that the peers' median stands in its place if there is one.
    pub(crate) unset: bool,
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Its last events are new.
    New,
    /// All of it was here already.
    Held,
    /// The event before it is not here.
    UnknownBase,
    /// Its author is declined.
    Declined,
    /// There is no room for more events.
    NoRoom,
}

/// All feeds of one node, its own among them.
#[derive(Debug)]
pub(crate) struct Feeds {
    pub(crate) hasher: Hasher,
    pub(crate) frontier: Frontier,
    /// Authors declined here, and why.
    pub(crate) declines: BTreeMap<AuthorId, Reason>,
    /// Branches that have grown since [`Feeds::take_grown`].
    grown: BTreeMap<AuthorId, BTreeSet<BranchId>>,
    /// Tips of all authors.
    tips: usize,
    tips_max: usize,
    /// Whether there is no room for more events, of whomever.
    is_full: bool,
    key: SigningKey,
    clock: Clock,
    /// The stamps of all that came, its greatest kept in the ledger: what its people saw before a
    /// restart is below what they write after it.
    seen: Clock,
    noted_seen: Hlc,
    own_last: Option<Tip>,
    /// The stamp of an own event that was written since the start.
    own_stamp: Option<(Tip, Hlc)>,
    view_rule: Rule,
    /// Whether the view has changed since its digests were brought up to date.
    is_view_touched: bool,
}

impl Feeds {
    /// Builds the frontier from what `ledger` holds.
    pub(crate) fn open<L: Ledger>(
        fingerprint: &Fingerprint,
        key: SigningKey,
        authors_max: usize,
        wall: Wall,
        ledger: &mut L,
    ) -> Result<Self, Fault<L>> {
        let mut frontier = Frontier::new(Rule::frontier(fingerprint));
        let mut tips = 0;
        for branch in ledger.branches()? {
            tips += 1;
            add_branch(&mut frontier, branch);
        }
        // A damaged note is as good as none: the tips say the rest.
        let own_last = ledger.meta(META_OWN)?.and_then(|bytes| read_tip(&bytes).ok());
        let noted_seen = ledger.meta(META_SEEN)?.and_then(|bytes| bytes.try_into().ok());
        let noted_seen =
            noted_seen.map_or(Hlc::default(), |b| Hlc::from_u64(u64::from_be_bytes(b)));
        let declines = ledger.meta(META_DECLINED)?.and_then(|bytes| read_declines(&bytes).ok());
        let mut feeds = Self {
            hasher: Hasher::new(fingerprint),
            frontier,
            declines: declines.unwrap_or_default(),
            grown: BTreeMap::new(),
            tips,
            tips_max: authors_max,
            is_full: false,
            key,
            clock: Clock::default(),
            seen: Clock::default(),
            noted_seen,
            own_last,
            own_stamp: None,
            view_rule: view::rule(fingerprint),
            is_view_touched: true,
        };
        feeds.resume_clock(ledger)?;
        feeds.seen.resume(noted_seen);
        if !view::is_current(ledger)? {
            feeds.fold_all(wall, ledger)?;
        }
        // Hashed now, so that the first comparison doesn't wait for it.
        feeds.frontier.hash(&Prefix::EMPTY, &BTreeSet::new());
        Ok(feeds)
    }

    /// Folds every held event anew: the view is empty, or of another version of the fold.
    fn fold_all<L: Ledger>(&mut self, wall: Wall, ledger: &mut L) -> Result<(), Fault<L>> {
        view::reset(ledger)?;
        for branch in ledger.branches()? {
            let mut next = branch.first_seq();
            while next <= branch.tip.seq {
                let events = ledger.events(branch.id, next, branch.tip.seq, RUN_LEN_MAX)?;
                let Some(last) = events.last() else { break };
                next = last.seq + 1;
                for event in &events {
                    self.fold_in(branch.id, event, wall, ledger)?;
                }
            }
        }
        self.settle(ledger)
    }

    /// The author whose feed this node writes.
    pub(crate) fn own_author(&self) -> AuthorId {
        AuthorId(self.key.verifying_key().to_bytes())
    }

    /// The last event that this node wrote.
    pub(crate) fn own_last(&self) -> Option<Tip> {
        self.own_last
    }

    /// Whether `tip` is an event of the own feed that the last own one is, or follows.
    pub(crate) fn is_before_own_last<L: Ledger>(
        &self,
        tip: Tip,
        ledger: &L,
    ) -> Result<bool, Fault<L>> {
        let (Some(last), Some(feed)) = (self.own_last, self.feed(&self.own_author())) else {
            return Ok(false);
        };
        let (Some(at), Some(home)) = (feed.find(tip, ledger)?, feed.find(last, ledger)?) else {
            return Ok(false);
        };
        let path = feed.path(home);
        Ok(path.iter().any(|part| part.branch == at && (part.from..=part.to).contains(&tip.seq)))
    }

    pub(crate) fn feed(&self, author: &AuthorId) -> Option<&Feed> {
        self.frontier.get(author)
    }

    /// Branches beyond each author's first.
    pub(crate) fn extra_branches(&self) -> usize {
        self.tips - self.frontier.len()
    }

    /// The branch that holds an event, if one does.
    pub(crate) fn find<L: Ledger>(
        &self,
        author: &AuthorId,
        tip: Tip,
        ledger: &L,
    ) -> Result<Option<BranchId>, Fault<L>> {
        Ok(match self.feed(author) {
            Some(feed) => feed.find(tip, ledger)?,
            None => None,
        })
    }

    /// The tips that are new since the last call.
    pub(crate) fn take_grown(&mut self) -> Vec<(AuthorId, Tip)> {
        let mut tips = Vec::new();
        for (author, branches) in std::mem::take(&mut self.grown) {
            let feed = self.feed(&author);
            let grown = branches.into_iter().filter_map(|id| Some(feed?.branch(id)?.tip));
            tips.extend(grown.map(|tip| (author, tip)));
        }
        tips
    }

    /// Stores what is new of a verified run.
    pub(crate) fn take_run<L: Ledger>(
        &mut self,
        run: &VerifiedRun,
        way: Way,
        wall: Wall,
        ledger: &mut L,
    ) -> Result<Taken, Fault<L>> {
        let author = run.author();
        if self.declines(&author).is_some() {
            return Ok(Taken::Declined);
        }
        let empty = Feed::default();
        let place = self.frontier.get(&author).unwrap_or(&empty).place(run, ledger)?;
        if self.is_full && matches!(place, Place::Extends { .. } | Place::Forks { .. }) {
            return Ok(Taken::NoRoom);
        }
        let (branch, held) = match place {
            Place::UnknownBase => return Ok(Taken::UnknownBase),
            Place::Crowded => {
                self.decline(author, Reason::Crowded, ledger)?;
                return Ok(Taken::Declined);
            }
            Place::Held => (None, run.events().len()),
            Place::Extends { branch, held } => (Some(branch), held),
            Place::Forks { parent, held } => {
                (Some(self.begin_branch(author, parent, ledger)?), held)
            }
        };
        self.fill_from(&author, &run.events()[..held], wall, ledger)?;
        let Some(branch) = branch else {
            return Ok(Taken::Held);
        };
        self.append(branch, &run.events()[held..], run.signature(), way, wall, ledger)?;
        Ok(Taken::New)
    }

    /// Appends drafts to the own feed, stamped, chained and signed: the runs to tell of.
    pub(crate) fn append_own<L: Ledger>(
        &mut self,
        drafts: Vec<Draft>,
        wall: Wall,
        ledger: &mut L,
    ) -> Result<Vec<VerifiedRun>, Fault<L>> {
        let author = self.own_author();
        let (branch, mut last) = self.own_place(ledger)?;
        let branch = match branch {
            Some(branch) => branch,
            None => self.begin_branch(author, None, ledger)?,
        };
        // The event before may have come from elsewhere, with a stamp that this clock didn't adopt.
        let before = self.stamp_of(branch, last, ledger)?;
        self.clock.resume(before);
        if stamps_were_broken(before, wall) {
            self.clock.reset();
        }
        self.clock.observe(self.seen.last(), wall.ms);
        let mut runs = Vec::new();
        let mut batch = OwnBatch::default();
        for Draft { kind, payload } in drafts {
            let payload = Payload::Present(payload);
            if !batch.takes(&kind, &payload) {
                runs.push(VerifiedRun::sign(&self.key, std::mem::take(&mut batch).events));
                batch.takes(&kind, &payload);
            }
            let hlc = self.clock.tick(wall.ms);
            let seq = last.seq + 1;
            let id = self.hasher.id(&author, seq, &last.id, hlc, &kind, &payload);
            batch.events.push(Event { id, author, seq, prev: last.id, hlc, kind, payload });
            last = Tip { seq, id };
        }
        if !batch.events.is_empty() {
            runs.push(VerifiedRun::sign(&self.key, batch.events));
        }
        for run in &runs {
            self.append(branch, run.events(), run.signature(), Way::Own, wall, ledger)?;
        }
        self.own_last = Some(last);
        self.own_stamp = Some((last, self.clock.last()));
        ledger.set_meta(META_OWN, &write_tip(last))?;
        Ok(runs)
    }

    /// Where the next own event goes: after the last own one; only if held events follow that one,
    /// after the greatest tip above it.
    fn own_place<L: Ledger>(&self, ledger: &L) -> Result<(Option<BranchId>, Tip), Fault<L>> {
        let Some(feed) = self.feed(&self.own_author()) else {
            return Ok((None, Tip::ROOT));
        };
        let mut above = feed.branches().iter().collect::<Vec<_>>();
        if let Some(last) = self.own_last
            && let Some(home) = feed.find(last, ledger)?
        {
            above.retain(|branch| {
                feed.path(branch.id).iter().any(|part| part.branch == home && part.to >= last.seq)
            });
        }
        let greatest = above.into_iter().max_by_key(|branch| branch.tip);
        Ok(greatest.map_or((None, Tip::ROOT), |branch| (Some(branch.id), branch.tip)))
    }

    /// Takes the payload of an event that lacked it, if there is room for more.
    pub(crate) fn fill<L: Ledger>(
        &mut self,
        author: &AuthorId,
        tip: Tip,
        bytes: &[u8],
        wall: Wall,
        ledger: &mut L,
    ) -> Result<bool, Fault<L>> {
        if self.is_full {
            return Ok(false);
        }
        let Some(branch) = self.find(author, tip, ledger)? else {
            return Ok(false);
        };
        let Some(mut event) = ledger.events(branch, tip.seq, tip.seq, 0)?.pop() else {
            return Ok(false);
        };
        if event.payload.bytes().is_some() || !event.payload.is(bytes) {
            return Ok(false);
        }
        ledger.fill(branch, tip.seq, bytes)?;
        let waits = match view::stamp(&event) {
            Some(stamp) => ledger.is_held_back(stamp, branch, tip.seq)?,
            None => false,
        };
        event.payload = Payload::Present(bytes.to_vec());
        if !waits {
            self.fold_in(branch, &event, wall, ledger)?;
        }
        Ok(true)
    }

    /// Folds in the events whose time has come.
    pub(crate) fn release<L: Ledger>(
        &mut self,
        wall: Wall,
        ledger: &mut L,
    ) -> Result<(), Fault<L>> {
        loop {
            let due = ledger.release(wall.ms.saturating_add(SKEW_MAX_MS), RELEASE_MAX)?;
            let more = due.len() == RELEASE_MAX;
            for (_, branch, seq) in due {
                if let Some(event) = ledger.events(branch, seq, seq, 0)?.pop()
                    && event.payload.bytes().is_some()
                {
                    self.is_view_touched = true;
                    view::fold(ledger, &event)?;
                }
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// At the end of a batch: notes the greatest stamp that came, and brings the view's digests up to
    /// date if it has changed.
    pub(crate) fn settle<L: Ledger>(&mut self, ledger: &mut L) -> Result<(), Fault<L>> {
        if self.seen.last() != self.noted_seen {
            self.noted_seen = self.seen.last();
            ledger.set_meta(META_SEEN, &self.noted_seen.as_u64().to_be_bytes())?;
        }
        if std::mem::take(&mut self.is_view_touched) {
            view::settle(ledger, &self.view_rule)?;
        }
        Ok(())
    }

    /// Whether and why nothing of `author` is taken. Past nine tenths of the cap only feeds that are
    /// known go on; which others were met is remembered until the next start.
    pub(crate) fn declines(&mut self, author: &AuthorId) -> Option<Reason> {
        if let Some(reason) = self.declines.get(author) {
            return Some(*reason);
        }
        let is_full = self.tips >= self.tips_max / 10 * 9;
        if !is_full || self.frontier.get(author).is_some() {
            return None;
        }
        if self.declines.len() < DECLINES_MAX {
            self.declines.insert(*author, Reason::Quota);
        }
        Some(Reason::Quota)
    }

    /// Takes no more events from now on, or takes that back. Returns whether that is a change.
    pub(crate) fn set_full(&mut self, is_full: bool) -> bool {
        std::mem::replace(&mut self.is_full, is_full) != is_full
    }

    /// Whether there is no room for more events.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Declines an author from now on.
    fn decline<L: Ledger>(
        &mut self,
        author: AuthorId,
        reason: Reason,
        ledger: &mut L,
    ) -> Result<(), Fault<L>> {
        self.declines.insert(author, reason);
        ledger.set_meta(META_DECLINED, &write_declines(&self.declines))?;
        Ok(())
    }

    fn begin_branch<L: Ledger>(
        &mut self,
        author: AuthorId,
        parent: Option<(BranchId, u64)>,
        ledger: &mut L,
    ) -> Result<BranchId, Fault<L>> {
        let id = ledger.begin_branch(author, parent)?;
        self.tips += 1;
        add_branch(&mut self.frontier, Branch { id, author, parent, tip: Tip::ROOT });
        Ok(id)
    }

    fn append<L: Ledger>(
        &mut self,
        branch: BranchId,
        events: &[Event],
        signature: &[u8; 64],
        way: Way,
        wall: Wall,
        ledger: &mut L,
    ) -> Result<(), Fault<L>> {
        ledger.append(branch, events, signature, way, wall.ms)?;
        for event in events {
            self.see(event.hlc, wall);
            self.fold_in(branch, event, wall, ledger)?;
        }
        let (first, last) = (&events[0], &events[events.len() - 1]);
        if let Some(feed) = self.frontier.get_mut(&first.author) {
            feed.grow(branch, Tip::from(last));
        }
        self.grown.entry(first.author).or_default().insert(branch);
        Ok(())
    }

    /// Learns of a stamp. One that was seen under a clock far ahead is not kept for ever.
    fn see(&mut self, stamp: Hlc, wall: Wall) {
        self.clock.observe(stamp, wall.ms);
        if self.seen.last().ms() > wall.ms.saturating_add(OBSERVE_AHEAD_MAX_MS) {
            self.seen.reset();
        }
        self.seen.observe(stamp, wall.ms);
    }

    /// Folds an event that is here, or notes that it waits for its time.
    fn fold_in<L: Ledger>(
        &mut self,
        branch: BranchId,
        event: &Event,
        wall: Wall,
        ledger: &mut L,
    ) -> Result<(), Fault<L>> {
        if let Some(stamp) = view::stamp(event)
            && is_held_back(stamp, wall.ms)
        {
            ledger.hold_back(stamp, branch, event.seq)?;
            return view::index(ledger, event);
        }
        if event.payload.bytes().is_some() {
            self.is_view_touched = true;
            view::fold(ledger, event)?;
        }
        Ok(())
    }

    /// Fills absent payloads of held events from a run that carries them.
    fn fill_from<L: Ledger>(
        &mut self,
        author: &AuthorId,
        events: &[Event],
        wall: Wall,
        ledger: &mut L,
    ) -> Result<(), Fault<L>> {
        if ledger.counts()?.missing == 0 {
            return Ok(());
        }
        for event in events {
            if let Payload::Present(bytes) = &event.payload {
                self.fill(author, Tip::from(event), bytes, wall, ledger)?;
            }
        }
        Ok(())
    }

    /// The clock goes on above the node's own last stamp, also where the wall clock is behind it.
    fn resume_clock<L: Ledger>(&mut self, ledger: &L) -> Result<(), Fault<L>> {
        if let (Some(branch), last) = self.own_place(ledger)? {
            let stamp = self.stamp_of(branch, last, ledger)?;
            self.clock.resume(stamp);
        }
        Ok(())
    }

    /// The stamp of a held event; the least of all before the first.
    fn stamp_of<L: Ledger>(&self, branch: BranchId, at: Tip, ledger: &L) -> Result<Hlc, Fault<L>> {
        if let Some((_, stamp)) = self.own_stamp.filter(|(own, _)| *own == at) {
            return Ok(stamp);
        }
        let event = ledger.events(branch, at.seq, at.seq, 0)?.pop();
        Ok(event.filter(|event| event.id == at.id).map_or(Hlc::default(), |event| event.hlc))
    }
}

/// A bad clock costs what was written under it, never the feed: then the clock starts again.
fn stamps_were_broken(last: Hlc, wall: Wall) -> bool {
    let ahead_ms = last.ms().saturating_sub(wall.ms);
    (wall.confirmed && ahead_ms > SKEW_MAX_MS) || (!wall.unset && ahead_ms > STAMP_AHEAD_MAX_MS)
}

/// Own events until the next signature is due.
#[derive(Default)]
struct OwnBatch {
    events: Vec<Event>,
    payload_len: usize,
    fill: Fill,
}

impl OwnBatch {
    fn takes(&mut self, kind: &mosaik_core::event::Kind, payload: &Payload) -> bool {
        let full = self.events.len() >= UNSIGNED_EVENTS_MAX
            || self.payload_len + payload.len() > UNSIGNED_PAYLOAD_MAX;
        if (full && !self.events.is_empty()) || !self.fill.take(kind, payload) {
            return false;
        }
        self.payload_len += payload.len();
        true
    }
}

fn add_branch(frontier: &mut Frontier, branch: Branch) {
    let author = branch.author;
    match frontier.get_mut(&author) {
        Some(feed) => feed.add(branch),
        None => {
            frontier.insert(author, Feed::from(branch));
        }
    }
}

fn write_tip(tip: Tip) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.varint(tip.seq).raw(tip.id.as_bytes());
    writer.into_bytes()
}

fn read_tip(bytes: &[u8]) -> Result<Tip, ReadError> {
    let mut reader = Reader::new(bytes);
    let tip = Tip { seq: reader.varint()?, id: EventId(reader.array()?) };
    reader.finish().map(|()| tip)
}

fn write_declines(declines: &BTreeMap<AuthorId, Reason>) -> Vec<u8> {
    let mut writer = Writer::new();
    for (author, reason) in declines.iter().filter(|(_, reason)| **reason != Reason::Quota) {
        writer.raw(author.as_bytes()).u8(reason.as_u8());
    }
    writer.into_bytes()
}

fn read_declines(bytes: &[u8]) -> Result<BTreeMap<AuthorId, Reason>, ReadError> {
    let mut reader = Reader::new(bytes);
    let mut declines = BTreeMap::new();
    while reader.remaining() > 0 {
        declines.insert(AuthorId(reader.array()?), Reason::from_u8(reader.u8()?));
    }
    Ok(declines)
}
