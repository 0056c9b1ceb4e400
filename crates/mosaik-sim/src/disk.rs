//! A store in memory: what [`Ledger`] promises, in as few words as it can be said.
//!
//! Invariants:
//! - Reads see the writes before them. [`MemoryLedger::commit`] keeps what was written,
//!   [`MemoryLedger::crash`] takes back all since the last commit: there is nothing in between.
//! - The real store and this one give the same answers; `tests/ledger.rs` holds them together.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    mem,
    ops::Bound,
};

use mosaik_core::{
    event::{Event, Payload},
    feed::{Branch, BranchId, Counts, Ledger, Missing, Tip, Way},
    hlc::Hlc,
    id::{AuthorId, EventId},
    kv::{Kv, KvMut, MemoryKv, Order},
};
use mosaik_store::Arrival;

type Place = (BranchId, u64);

/// What one write changed, with what was there before.
#[derive(Debug, Clone)]
enum Undo {
    View(Vec<u8>, Option<Vec<u8>>),
    Begun,
    Grown(BranchId, Tip),
    Event(Place, Option<Event>),
    Signed(Place),
    Arrived,
    Missing(Missing, Listed),
    Held((Hlc, BranchId, u64), Listed),
    Meta(String, Option<Vec<u8>>),
}

/// Whether a list had an entry before the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listed {
    Before,
    Not,
}

/// Feeds, view and all else that a node keeps, on a disk that never fails and may be unplugged.
#[derive(Debug, Clone, Default)]
pub struct MemoryLedger {
    view: MemoryKv,
    branches: Vec<Branch>,
    events: BTreeMap<Place, Event>,
    signatures: BTreeMap<Place, [u8; 64]>,
    arrivals: Vec<Arrival>,
    missing: BTreeSet<Missing>,
    held: BTreeSet<(Hlc, BranchId, u64)>,
    meta: BTreeMap<String, Vec<u8>>,
    undo: Vec<Undo>,
}

impl MemoryLedger {
    /// Makes all written so far durable.
    pub fn commit(&mut self) {
        self.undo.clear();
    }

    /// Takes back what was written since the last commit, as a crash or a failed commit does.
    pub fn crash(&mut self) {
        for undo in mem::take(&mut self.undo).into_iter().rev() {
            match undo {
                Undo::View(key, before) => put_back(&mut self.view, key, before),
                Undo::Begun => drop(self.branches.pop()),
                Undo::Grown(branch, tip) => self.branches[branch.0 as usize].tip = tip,
                Undo::Event(place, before) => put_back(&mut self.events, place, before),
                Undo::Signed(place) => drop(self.signatures.remove(&place)),
                Undo::Arrived => drop(self.arrivals.pop()),
                Undo::Missing(entry, listed) => list_back(&mut self.missing, entry, listed),
                Undo::Held(entry, listed) => list_back(&mut self.held, entry, listed),
                Undo::Meta(name, before) => put_back(&mut self.meta, name, before),
            }
        }
    }

    /// Whether anything was written since the last commit.
    pub fn is_dirty(&self) -> bool {
        !self.undo.is_empty()
    }

    /// At most `max` arrivals after the one of number `after`.
    pub fn arrivals(&self, after: u64, max: usize) -> Vec<Arrival> {
        let start = usize::try_from(after).unwrap_or(usize::MAX);
        self.arrivals.iter().skip(start).take(max).copied().collect()
    }

    /// All branches, ascending by number.
    pub(crate) fn all_branches(&self) -> &[Branch] {
        &self.branches
    }

    /// The stamps of a branch's events from `from` to `to`.
    pub(crate) fn stamps(&self, branch: BranchId, from: u64, to: u64) -> impl Iterator<Item = Hlc> {
        self.events.range((branch, from)..=(branch, to)).map(|(_, event)| event.hlc)
    }

    /// Lets a branch without events go on from another event than the one before it: a planted bug.
    pub(crate) fn misname(&mut self, branch: BranchId, base: Tip) {
        self.branches[branch.0 as usize].tip = base;
    }

    fn branch(&self, id: BranchId) -> &Branch {
        &self.branches[id.0 as usize]
    }
}

fn put_back<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, before: Option<V>) {
    match before {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

fn list_back<T: Ord>(set: &mut BTreeSet<T>, entry: T, listed: Listed) {
    match listed {
        Listed::Before => set.insert(entry),
        Listed::Not => set.remove(&entry),
    };
}

impl Kv for MemoryLedger {
    type Error = Infallible;

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Infallible> {
        Kv::get(&self.view, key)
    }

    fn range(
        &self,
        from: &[u8],
        to: &[u8],
        order: Order,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Infallible> {
        Kv::range(&self.view, from, to, order, each)
    }
}

impl KvMut for MemoryLedger {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Infallible> {
        let before = self.view.insert(key.to_vec(), value.to_vec());
        self.undo.push(Undo::View(key.to_vec(), before));
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Infallible> {
        if let Some(before) = self.view.remove(key) {
            self.undo.push(Undo::View(key.to_vec(), Some(before)));
        }
        Ok(())
    }
}

impl Ledger for MemoryLedger {
    fn branches(&self) -> Result<Vec<Branch>, Infallible> {
        Ok(self.branches.clone())
    }

    fn begin_branch(
        &mut self,
        author: AuthorId,
        parent: Option<(BranchId, u64)>,
    ) -> Result<BranchId, Infallible> {
        let id = BranchId(u32::try_from(self.branches.len()).expect("fewer than 2^32 branches"));
        let tip = parent.map_or(Tip::ROOT, |place| Tip::from(&self.events[&place]));
        self.branches.push(Branch { id, author, parent, tip });
        self.undo.push(Undo::Begun);
        Ok(id)
    }

    fn append(
        &mut self,
        branch: BranchId,
        events: &[Event],
        signature: &[u8; 64],
        way: Way,
        received_ms: u64,
    ) -> Result<(), Infallible> {
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return Ok(());
        };
        let Branch { author, tip, .. } = *self.branch(branch);
        assert_eq!(
            (first.author, first.seq, first.prev),
            (author, tip.seq + 1, tip.id),
            "events that do not follow the branch's tip"
        );
        for event in events {
            let place = (branch, event.seq);
            if event.payload.bytes().is_none() {
                let entry = Missing { author, branch, tip: Tip::from(event) };
                self.missing.insert(entry);
                self.undo.push(Undo::Missing(entry, Listed::Not));
            }
            self.events.insert(place, event.clone());
            self.undo.push(Undo::Event(place, None));
        }
        self.signatures.insert((branch, last.seq), *signature);
        self.undo.push(Undo::Signed((branch, last.seq)));
        self.branches[branch.0 as usize].tip = Tip::from(last);
        self.undo.push(Undo::Grown(branch, tip));
        self.arrivals.push(Arrival {
            number: self.arrivals.len() as u64 + 1,
            author,
            branch,
            first_seq: first.seq,
            last_seq: last.seq,
            received_ms,
            way,
        });
        self.undo.push(Undo::Arrived);
        Ok(())
    }

    fn events(
        &self,
        branch: BranchId,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> Result<Vec<Event>, Infallible> {
        let mut bytes = 0usize;
        Ok(self
            .events
            .range((branch, from)..=(branch, to.max(from)))
            .filter(|((_, seq), _)| *seq <= to)
            .enumerate()
            .take_while(|(index, (_, event))| {
                bytes += event.payload.len();
                *index == 0 || bytes <= bytes_max
            })
            .map(|(_, (_, event))| event.clone())
            .collect())
    }

    fn id_at(&self, branch: BranchId, seq: u64) -> Result<Option<EventId>, Infallible> {
        Ok(self.events.get(&(branch, seq)).map(|event| event.id))
    }

    fn signed_from(
        &self,
        branch: BranchId,
        seq: u64,
    ) -> Result<Option<(u64, [u8; 64])>, Infallible> {
        let mut signed = self.signatures.range((branch, seq)..=(branch, u64::MAX));
        Ok(signed.next().map(|((_, seq), bytes)| (*seq, *bytes)))
    }

    fn signed_up_to(
        &self,
        branch: BranchId,
        from: u64,
        to: u64,
    ) -> Result<Option<(u64, [u8; 64])>, Infallible> {
        if from > to {
            return Ok(None);
        }
        let mut signed = self.signatures.range((branch, from)..=(branch, to));
        Ok(signed.next_back().map(|((_, seq), bytes)| (*seq, *bytes)))
    }

    fn fill(&mut self, branch: BranchId, seq: u64, payload: &[u8]) -> Result<(), Infallible> {
        let place = (branch, seq);
        let Some(event) = self.events.get_mut(&place) else {
            return Ok(());
        };
        if event.payload.bytes().is_some() {
            return Ok(());
        }
        debug_assert!(event.payload.is(payload), "a payload of another event");
        self.undo.push(Undo::Event(place, Some(event.clone())));
        event.payload = Payload::Present(payload.to_vec());
        let entry = Missing { author: event.author, branch, tip: Tip::from(&*event) };
        if self.missing.remove(&entry) {
            self.undo.push(Undo::Missing(entry, Listed::Before));
        }
        Ok(())
    }

    fn missing(&self, after: Option<&Missing>, max: usize) -> Result<Vec<Missing>, Infallible> {
        let after = after.map_or(Bound::Unbounded, |after| Bound::Excluded(*after));
        let rest = self.missing.range((after, Bound::Unbounded));
        Ok(rest.take(max).copied().collect())
    }

    fn hold_back(&mut self, hlc: Hlc, branch: BranchId, seq: u64) -> Result<(), Infallible> {
        let entry = (hlc, branch, seq);
        if self.held.insert(entry) {
            self.undo.push(Undo::Held(entry, Listed::Not));
        }
        Ok(())
    }

    fn release(
        &mut self,
        until_ms: u64,
        max: usize,
    ) -> Result<Vec<(Hlc, BranchId, u64)>, Infallible> {
        let due: Vec<_> = self
            .held
            .iter()
            .take_while(|(hlc, ..)| hlc.ms() <= until_ms)
            .take(max)
            .copied()
            .collect();
        for entry in &due {
            self.held.remove(entry);
            self.undo.push(Undo::Held(*entry, Listed::Before));
        }
        Ok(due)
    }

    fn is_held_back(&self, hlc: Hlc, branch: BranchId, seq: u64) -> Result<bool, Infallible> {
        Ok(self.held.contains(&(hlc, branch, seq)))
    }

    fn counts(&self) -> Result<Counts, Infallible> {
        Ok(Counts {
            events: self.events.len() as u64,
            missing: self.missing.len() as u64,
            held_back: self.held.len() as u64,
        })
    }

    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.meta.get(name).cloned())
    }

    fn set_meta(&mut self, name: &str, value: &[u8]) -> Result<(), Infallible> {
        let before = self.meta.insert(name.to_owned(), value.to_vec());
        self.undo.push(Undo::Meta(name.to_owned(), before));
        Ok(())
    }
}
