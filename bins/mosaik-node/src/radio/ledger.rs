//! What this node holds as meshlogd has it: our feeds translated, and foreign ones as they came; each
//! without a hole.
//!
//! Invariants:
//! - It follows from the set of events that are here with their payloads and not held back: whoever holds
//!   the same has the same here, in whichever order it came.
//! - Of a feed of ours that branches it has the way to the greatest tip by (seq, id); of a foreign one
//!   the longest chain, of equal ones that with the smallest last id. Of an author whose keys are known
//!   only what it has signed counts.
//! - It blocks on the disk, and is called where that harms nobody.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use mosaik_core::{
    event::{Event, Payload},
    feed::{BranchId, Feed, Segment},
    id::AuthorId,
    meshlog::{FOREIGN_KIND, MeshlogEvent, MeshlogId, is_native_author, translate},
};
use mosaik_reticulum::{
    meshlog::{Ask, Came, Fate, Held, Wire},
    stack::PublicKeys,
};
use mosaik_store::{Reader, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// Every so many events of a translated feed the id is kept: so many more are translated to serve one.
const CHECKPOINT: u64 = 64;
/// Arrivals that one look goes through, and events of one feed.
const ARRIVALS_MAX: usize = 64;
const EVENTS_MAX: u64 = 4096;
/// Bytes of payload that are read at once.
const READ_MAX: usize = 1 << 20;

/// A feed of ours.
#[derive(Debug, Default)]
struct Native {
    path: Vec<Segment>,
    /// Up to where it is translated, and what the last one is called there.
    translated: u64,
    last: Option<MeshlogId>,
    checkpoints: Vec<MeshlogId>,
    /// Up to the last event that says something there.
    offered: Option<Held>,
    /// Whether the next one can't be translated yet.
    waits: bool,
}

/// Where a foreign event stands here.
#[derive(Debug, Clone, Copy)]
struct Place {
    id: MeshlogId,
    branch: BranchId,
    seq: u64,
}

/// A foreign feed.
#[derive(Debug, Default)]
struct Foreign {
    /// The chain that counts: seq 1 first.
    chain: Vec<Place>,
    /// The others by seq, each with what it follows.
    beside: BTreeMap<u64, Vec<(Place, Option<MeshlogId>)>>,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    arrival: u64,
    native: BTreeMap<AuthorId, Native>,
    foreign: BTreeMap<String, Foreign>,
    /// Feeds of ours that may have more.
    stale: BTreeSet<AuthorId>,
    /// By author of meshlogd's.
    keys: BTreeMap<String, PublicKeys>,
}

/// How a look ended.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// What is held now of those of whom that changed.
    pub(super) changed: Vec<(String, Held)>,
    /// Whether there is more to look at.
    pub(super) has_more: bool,
}

impl Ledger {
    /// Nothing yet, with keys that are known.
    pub(super) fn new(keys: &[PublicKeys]) -> Self {
        let keys = keys.iter().map(|keys| (keys.peer().to_string(), *keys)).collect();
        Self { keys, ..Self::default() }
    }

    /// Looks at what came since the last time, or at a part of it.
    pub(super) fn look(&mut self, reader: &Reader) -> Result<Looked> {
        let arrivals = reader.arrivals(self.arrival, ARRIVALS_MAX)?;
        let (mut seen, mut changed) = (BTreeSet::new(), BTreeMap::new());
        for arrival in &arrivals {
            self.stale.insert(arrival.author);
            let (first, last) = (arrival.first_seq, arrival.last_seq);
            each_event(reader, arrival.branch, first, last, |event| {
                seen.extend(self.note_foreign(arrival.branch, &event));
                true
            })?;
            self.arrival = arrival.number;
        }
        for author in seen {
            if let Some(held) = self.foreign.get_mut(&author).and_then(Foreign::settle) {
                changed.insert(author, held);
            }
        }
        let mut has_more = arrivals.len() == ARRIVALS_MAX;
        if !has_more && !self.stale.is_empty() {
            for (author, held, is_done) in self.translate(reader)? {
                has_more |= !is_done;
                changed.extend(held.map(|held| (author.to_string(), held)));
            }
        }
        Ok(Looked { changed: changed.into_iter().collect(), has_more })
    }

    /// Lets those feeds be looked at again whose next event couldn't be translated.
    pub(super) fn look_again(&mut self) {
        let waiting = self.native.iter().filter(|(_, native)| native.waits);
        self.stale.extend(waiting.map(|(author, _)| *author));
    }

    /// Notes a foreign event that `event` carries, if it does; of whom.
    fn note_foreign(&mut self, branch: BranchId, event: &Event) -> Option<String> {
        let inner = foreign(event)?;
        let keys = self.keys.get(&inner.author);
        if keys.is_some_and(|keys| inner.verify(&keys.0).is_err()) {
            return None;
        }
        let place = Place { id: inner.id, branch, seq: event.seq };
        let feed = self.foreign.entry(inner.author.clone()).or_default();
        feed.note(inner.seq, place, inner.prev).then_some(inner.author)
    }

    /// Goes on with the feeds of ours that may have more.
    fn translate(&mut self, reader: &Reader) -> Result<Vec<(AuthorId, Option<Held>, bool)>> {
        let mut feeds: BTreeMap<AuthorId, Feed> = BTreeMap::new();
        for branch in reader.branches()? {
            if self.stale.contains(&branch.author) {
                feeds.entry(branch.author).or_default().add(branch);
            }
        }
        let may_be_held_back = reader.counts()?.held_back > 0;
        let mut done = Vec::new();
        for (author, feed) in feeds {
            let native = self.native.entry(author).or_default();
            let before = native.offered;
            native.take_path(way_to_greatest(&feed));
            let is_done = native.go_on(reader, may_be_held_back)?;
            if is_done {
                self.stale.remove(&author);
            }
            let after = native.offered.unwrap_or(NOTHING);
            done.push((author, (native.offered != before).then_some(after), is_done));
        }
        Ok(done)
    }

    /// What becomes of an event that came; none: it is to be taken.
    pub(super) fn fate(&self, came: &Came, before: Option<&Came>) -> Option<Fate> {
        let feed = self.foreign.get(&came.author);
        let chain = feed.map_or(&[][..], |feed| &feed.chain);
        let is_beside = |feed: &Foreign| {
            let at = feed.beside.get(&came.seq);
            at.is_some_and(|at| at.iter().any(|(place, _)| place.id == came.id))
        };
        let index = usize::try_from(came.seq - 1).unwrap_or(usize::MAX);
        match chain.get(index) {
            Some(place) if place.id == came.id => return Some(Fate::Known),
            _ if feed.is_some_and(is_beside) => return Some(Fate::Known),
            Some(_) => return Some(Fate::Fork),
            None => {}
        }
        // What it follows is held, or comes before it at the same time.
        let held = (index == chain.len()).then(|| chain.last().map(|place| place.id));
        let follows = match before {
            Some(before) => before.seq + 1 == came.seq && came.prev == Some(before.id),
            None => held == Some(came.prev),
        };
        (!follows).then_some(Fate::Fork)
    }

    /// Events that were asked for.
    pub(super) fn events(&self, reader: &Reader, ask: &Ask) -> Result<Vec<Wire>> {
        let mut events = Taken { ask, events: Vec::new(), bytes: 0 };
        for (author, from, count) in &ask.wants {
            if events.is_full() {
                break;
            }
            let to = from.saturating_add(*count as u64 - 1);
            match native_author(author).and_then(|id| self.native.get(&id)) {
                Some(native) => native.serve(reader, author, *from, to, &mut events)?,
                None => self.serve_foreign(reader, author, *from, to, &mut events)?,
            }
        }
        Ok(events.events)
    }

    fn serve_foreign(
        &self,
        reader: &Reader,
        author: &str,
        from: u64,
        to: u64,
        events: &mut Taken<'_>,
    ) -> Result<()> {
        let Some(feed) = self.foreign.get(author) else { return Ok(()) };
        for (place, seq) in feed.chain.iter().zip(1..=to).skip(from as usize - 1) {
            let Some(json) = carried(reader, place)? else { return Ok(()) };
            if !events.push(author, seq, json) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Learns whose keys these are: events of that author that it hasn't signed count no longer, so that
    /// whoever planted one while nobody knew the keys has not taken the place of the real one.
    pub(super) fn learn(&mut self, reader: &Reader, keys: &PublicKeys) -> Result<Learned> {
        let author = keys.peer().to_string();
        self.keys.insert(author.clone(), *keys);
        let mut learned = Learned::default();
        let Some(feed) = self.foreign.get_mut(&author) else { return Ok(learned) };
        let (mut good, mut before) = (BTreeMap::<u64, Vec<_>>::new(), None);
        let chain = feed.chain.iter().zip(1..).map(|(place, seq)| {
            let prev = before.replace(place.id);
            (seq, *place, prev)
        });
        let beside = feed
            .beside
            .iter()
            .flat_map(|(seq, at)| at.iter().map(|(place, prev)| (*seq, *place, *prev)));
        for (seq, place, prev) in chain.chain(beside) {
            let Some(json) = carried(reader, &place)? else { continue };
            let event = MeshlogEvent::parse(json.as_bytes());
            if event.is_ok_and(|event| event.verify(&keys.0).is_ok()) {
                learned.good += 1;
                good.entry(seq).or_default().push((place, prev));
            } else {
                learned.bad += 1;
            }
        }
        if learned.bad > 0 {
            *feed = Foreign { chain: Vec::new(), beside: good };
            let held = feed.settle().unwrap_or(NOTHING);
            learned.changed = Some((author, held));
        }
        Ok(learned)
    }
}

/// What new keys show.
#[derive(Debug, Default)]
pub(super) struct Learned {
    /// Events of their author that it has signed.
    pub(super) good: u64,
    /// Events that it has not.
    pub(super) bad: u64,
    /// What is held of it now, if that changed.
    pub(super) changed: Option<(String, Held)>,
}

/// Nothing is held.
const NOTHING: Held = Held { len: 0, head: MeshlogId([0; 16]) };

/// Events that are put together for an answer.
struct Taken<'a> {
    ask: &'a Ask,
    events: Vec<Wire>,
    bytes: usize,
}

impl Taken<'_> {
    fn is_full(&self) -> bool {
        self.events.len() >= self.ask.events_max || self.bytes >= self.ask.bytes_max
    }

    /// Appends one, if there is room.
    fn push(&mut self, author: &str, seq: u64, json: String) -> bool {
        let bytes = self.bytes + json.len() + 1;
        let fits = self.events.is_empty() || bytes <= self.ask.bytes_max;
        if self.events.len() >= self.ask.events_max || !fits {
            // Nothing shorter after it: events of one author go in order.
            return false;
        }
        self.bytes = bytes;
        self.events.push(Wire { author: author.to_owned(), seq, json });
        true
    }
}

impl Native {
    /// Takes another way through the feed; what is translated stays as far as both go together.
    fn take_path(&mut self, path: Vec<Segment>) {
        let mut common = 0;
        for (old, new) in self.path.iter().zip(&path) {
            if (old.branch, old.from) != (new.branch, new.from) {
                break;
            }
            common = old.to.min(new.to);
            if old.to != new.to {
                break;
            }
        }
        if common < self.translated {
            let kept = common / CHECKPOINT;
            self.checkpoints.truncate(kept as usize);
            (self.translated, self.last) = (kept * CHECKPOINT, self.checkpoints.last().copied());
            self.offered = None;
        }
        self.path = path;
    }

    /// Translates what follows. Returns whether it came to the end, or to one that must be waited for.
    fn go_on(&mut self, reader: &Reader, may_be_held_back: bool) -> Result<bool> {
        self.waits = false;
        let until = self.translated + EVENTS_MAX;
        for segment in self.path.clone() {
            let from = segment.from.max(self.translated + 1);
            let mut error = None;
            each_event(reader, segment.branch, from, segment.to, |event| {
                if self.translated >= until {
                    return false;
                }
                let is_held_back = || reader.is_held_back(event.hlc, segment.branch, event.seq);
                match if may_be_held_back { is_held_back() } else { Ok(false) } {
                    Ok(false) => {}
                    Ok(true) => self.waits = true,
                    Err(failed) => error = Some(failed),
                }
                if self.waits || error.is_some() {
                    return false;
                }
                let Ok(written) = translate(&event, self.last) else {
                    self.waits = true;
                    return false;
                };
                (self.translated, self.last) = (event.seq, Some(written.id));
                if event.seq % CHECKPOINT == 0 {
                    self.checkpoints.push(written.id);
                }
                if !written.is_reference {
                    self.offered = Some(Held { len: event.seq, head: written.id });
                }
                true
            })?;
            if let Some(error) = error {
                return Err(error);
            }
            if self.waits || self.translated < segment.to {
                return Ok(self.waits);
            }
        }
        Ok(true)
    }

    fn serve(
        &self,
        reader: &Reader,
        author: &str,
        from: u64,
        to: u64,
        events: &mut Taken<'_>,
    ) -> Result<()> {
        let to = to.min(self.offered.map_or(0, |held| held.len));
        let checkpoint = ((from - 1) / CHECKPOINT).min(self.checkpoints.len() as u64);
        let mut at = checkpoint * CHECKPOINT;
        let mut last = match checkpoint {
            0 => None,
            one => self.checkpoints.get(one as usize - 1).copied(),
        };
        for segment in &self.path {
            let (first, end) = (segment.from.max(at + 1), segment.to.min(to));
            let mut is_over = false;
            each_event(reader, segment.branch, first, end, |event| {
                let Ok(written) = translate(&event, last) else {
                    is_over = true;
                    return false;
                };
                (at, last) = (event.seq, Some(written.id));
                is_over = at >= from && !events.push(author, at, written.wire);
                !is_over
            })?;
            if is_over || at >= to {
                break;
            }
        }
        Ok(())
    }
}

impl Foreign {
    /// Notes an event. Returns whether it wasn't known.
    fn note(&mut self, seq: u64, place: Place, prev: Option<MeshlogId>) -> bool {
        let index = usize::try_from(seq - 1).unwrap_or(usize::MAX);
        if self.chain.get(index).is_some_and(|held| held.id == place.id) {
            return false;
        }
        if index == self.chain.len()
            && prev == self.chain.last().map(|last| last.id)
            && self.beside.is_empty()
        {
            self.chain.push(place);
            return true;
        }
        let beside = self.beside.entry(seq).or_default();
        if beside.iter().any(|(held, _)| held.id == place.id) {
            return false;
        }
        beside.push((place, prev));
        true
    }

    /// Finds the chain that counts, after something was noted. What is held now.
    fn settle(&mut self) -> Option<Held> {
        if !self.beside.is_empty() {
            self.rebuild();
        }
        let head = self.chain.last()?.id;
        Some(Held { len: self.chain.len() as u64, head })
    }

    fn rebuild(&mut self) {
        let mut all = std::mem::take(&mut self.beside);
        let mut before = None;
        for (place, seq) in std::mem::take(&mut self.chain).into_iter().zip(1..) {
            all.entry(seq).or_default().push((place, before));
            before = Some(place.id);
        }
        // Those at each seq to which a chain leads from the first, each with where it comes from.
        let mut levels: Vec<Vec<(Place, usize)>> = Vec::new();
        for seq in 1.. {
            let Some(at) = all.get(&seq) else { break };
            let level: Vec<_> = at
                .iter()
                .filter_map(|(place, prev)| match (levels.last(), prev) {
                    (None, None) => Some((*place, 0)),
                    (Some(below), Some(prev)) => {
                        Some((*place, below.iter().position(|(held, _)| held.id == *prev)?))
                    }
                    _ => None,
                })
                .collect();
            if level.is_empty() {
                break;
            }
            levels.push(level);
        }
        let last = levels.last().into_iter().flatten().enumerate();
        let mut at = last.min_by_key(|(_, (place, _))| place.id).map(|(index, _)| index);
        for level in levels.iter().rev() {
            let Some((place, below)) = at.and_then(|index| level.get(index)) else { break };
            self.chain.push(*place);
            at = Some(*below);
        }
        self.chain.reverse();
        for (place, seq) in self.chain.iter().zip(1..) {
            if let Some(at) = all.get_mut(&seq) {
                at.retain(|(held, _)| held.id != place.id);
            }
        }
        all.retain(|_, at| !at.is_empty());
        self.beside = all;
    }
}

/// The way through a feed to its greatest tip by (seq, id).
fn way_to_greatest(feed: &Feed) -> Vec<Segment> {
    let greatest = feed.branches().iter().max_by_key(|branch| branch.tip);
    greatest.map(|branch| feed.path(branch.id)).unwrap_or_default()
}

fn native_author(name: &str) -> Option<AuthorId> {
    let bytes = is_native_author(name).then(|| HEXLOWER.decode(name.as_bytes()).ok()).flatten()?;
    bytes.try_into().ok().map(AuthorId)
}

/// The foreign event that one of ours carries, if it does.
fn foreign(event: &Event) -> Option<MeshlogEvent> {
    let Payload::Present(payload) = &event.payload else { return None };
    if event.kind.as_str() != FOREIGN_KIND {
        return None;
    }
    MeshlogEvent::parse(payload).ok().filter(|inner| !inner.is_translated())
}

/// The JSON of a foreign event, if it is still here.
fn carried(reader: &Reader, place: &Place) -> Result<Option<String>> {
    let found = reader.events(place.branch, place.seq, place.seq, READ_MAX)?;
    let payload = found.into_iter().next().map(|event| event.payload);
    Ok(match payload {
        Some(Payload::Present(bytes)) => String::from_utf8(bytes).ok(),
        _ => None,
    })
}

/// Calls `each` for the events of a branch in order, until it returns false.
fn each_event(
    reader: &Reader,
    branch: BranchId,
    from: u64,
    to: u64,
    mut each: impl FnMut(Event) -> bool,
) -> Result<()> {
    let mut next = from;
    while next <= to {
        let events = reader.events(branch, next, to, READ_MAX)?;
        let Some(last) = events.last() else { return Ok(()) };
        next = last.seq + 1;
        for event in events {
            if !each(event) {
                return Ok(());
            }
        }
    }
    Ok(())
}
