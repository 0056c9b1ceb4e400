//! Writes: all of one batch in one transaction, seen by its own reads.
//!
//! Invariants:
//! - A batch that changed nothing is not committed: no sync for nothing.
//! - The open block of a branch is read once an append, and only full blocks and the new open one
//!   are written.

use std::{cell::Cell, fmt};

use mosaik_core::{
    event::{Event, Hasher, Payload},
    feed::{Branch, BranchId, Counts, Ledger, Missing, Tip, Way},
    hlc::Hlc,
    id::{AuthorId, EventId},
    kv::{Kv, KvMut, Order},
};
use redb::{ReadableTable, WriteTransaction};

use crate::{
    block::{BLOCK_LEN_MAX, Block, Cutter},
    fault::StoreError,
    read::{self, Arrival},
    tables::{META_EVENTS, WriteTables},
};

type Result<T> = std::result::Result<T, StoreError>;

/// What will be committed together. Made by [`crate::Store::write`].
pub struct Batch<'txn> {
    tables: WriteTables<'txn>,
    hasher: &'txn Hasher,
    events: u64,
    arrivals: u64,
    changed: bool,
    /// Whether the database failed, so that it must be reopened. A cell, since reads fail as well.
    failed: Cell<bool>,
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch(changed: {})", self.changed)
    }
}

/// Payloads that were taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// How many.
    pub payloads: u64,
    /// How long they were in all.
    pub bytes: u64,
}

impl std::ops::AddAssign for Pruned {
    fn add_assign(&mut self, more: Self) {
        self.payloads += more.payloads;
        self.bytes += more.bytes;
    }
}

/// What became of a batch.
pub(crate) enum End {
    /// There is something to commit.
    Changed,
    /// Nothing was written.
    Unchanged,
    /// The database failed in it.
    Failed,
}

impl<'txn> Batch<'txn> {
    pub(crate) fn open(transaction: &'txn WriteTransaction, hasher: &'txn Hasher) -> Result<Self> {
        let tables = WriteTables::open(transaction)?;
        Ok(Self {
            events: read::events_total(&tables)?,
            arrivals: read::last_arrival(&tables)?,
            tables,
            hasher,
            changed: false,
            failed: Cell::new(false),
        })
    }

    /// Closes the tables.
    pub(crate) fn close(mut self) -> Result<End> {
        if self.failed.get() {
            return Ok(End::Failed);
        }
        if !self.changed {
            return Ok(End::Unchanged);
        }
        let events = self.events.to_le_bytes();
        self.tables.meta.insert(META_EVENTS, events.as_slice())?;
        Ok(End::Changed)
    }

    /// Takes away the payloads of those events from `from` to `to` for which `is_due` says so, the last
    /// first, and takes those of them that are absent off the missing list: they are not asked for.
    ///
    /// # Errors
    ///
    /// [`StoreError`] of the disk, or of a block that is damaged.
    pub fn prune(
        &mut self,
        branch: BranchId,
        from: u64,
        to: u64,
        is_due: &mut dyn FnMut(&Event) -> bool,
    ) -> Result<Pruned> {
        let pruned = self.prune_blocks(branch, from, to, is_due);
        self.watch(pruned)
    }

    /// Puts an absent payload on the missing list: it is asked for again.
    ///
    /// # Errors
    ///
    /// As [`Batch::prune`].
    pub fn want(&mut self, branch: BranchId, seq: u64) -> Result<()> {
        let events = self.events(branch, seq, seq, 0)?;
        let Some(event) = events.first().filter(|event| event.payload.bytes().is_none()) else {
            return Ok(());
        };
        self.changed = true;
        let put = self.put_missing(branch, event);
        self.watch(put)
    }

    /// Takes absent payloads of a branch's events off the missing list.
    pub(crate) fn unlist(&mut self, branch: BranchId, events: &[Event]) -> Result<()> {
        for event in events.iter().filter(|event| event.payload.bytes().is_none()) {
            let key = (event.author.as_bytes(), branch.0, event.seq, event.id.as_bytes());
            let removed = self.tables.missing.remove(key).map(drop);
            self.watch(removed)?;
        }
        Ok(())
    }

    /// At most `max` arrivals after the one of number `after`, in order.
    ///
    /// # Errors
    ///
    /// [`StoreError`] of the disk.
    pub fn arrivals(&self, after: u64, max: usize) -> Result<Vec<Arrival>> {
        self.watch(read::arrivals(&self.tables, after, max))
    }

    /// The number of the last arrival; 0 before the first.
    pub fn last_arrival(&self) -> u64 {
        self.arrivals
    }

    /// Notes a failure of the database on its way to the caller.
    fn watch<T, E: Into<StoreError>>(&self, result: std::result::Result<T, E>) -> Result<T> {
        result.map_err(|error| {
            let error = error.into();
            self.failed.set(self.failed.get() || error.is_fatal());
            error
        })
    }

    fn branch(&self, id: BranchId) -> Result<Branch> {
        let misplaced = StoreError::Misplaced { branch: id, seq: 0 };
        read::branch(&self.tables, id)?.ok_or(misplaced)
    }

    fn put_branch(&mut self, branch: &Branch) -> Result<()> {
        let (parent, parent_seq) = branch.parent.map_or((0, 0), |(id, seq)| (id.0, seq));
        let row = (
            branch.author.as_bytes(),
            parent,
            parent_seq,
            branch.tip.seq,
            branch.tip.id.as_bytes(),
        );
        self.tables.branches.insert(branch.id.0, row)?;
        Ok(())
    }

    fn put_block(&mut self, branch: BranchId, block: &Block) -> Result<()> {
        let key = (branch.0, block.first_seq);
        self.tables.blocks.insert(key, block.bytes.as_slice())?;
        Ok(())
    }

    /// Writes consecutive events that go on where `cutter` stands.
    fn put_events(&mut self, branch: BranchId, mut cutter: Cutter, events: &[Event]) -> Result<()> {
        for event in events {
            if let Some(full) = cutter.push(event) {
                self.put_block(branch, &full)?;
            }
        }
        self.put_block(branch, &cutter.finish())
    }

    /// The open block of a branch, or a new one after its tip.
    fn open_block(&self, branch: &Branch) -> Result<Cutter> {
        let next_seq = branch.tip.seq + 1;
        let keys = (branch.id.0, branch.first_seq())..=(branch.id.0, branch.tip.seq);
        if branch.first_seq() < next_seq
            && let Some(row) = self.tables.blocks.range(keys)?.next_back()
        {
            let (key, bytes) = row?;
            if bytes.value().len() < BLOCK_LEN_MAX
                && let Ok(cutter) = Cutter::resume(key.value().1, bytes.value())
                && cutter.next_seq() == next_seq
            {
                return Ok(cutter);
            }
        }
        // None yet, or full. Or damaged: what was in it is lost, but the feed must go on.
        Ok(Cutter::begin(next_seq, branch.tip.id))
    }

    fn put_missing(&mut self, branch: BranchId, event: &Event) -> Result<()> {
        let (author, id) = (event.author.as_bytes(), event.id.as_bytes());
        let key = (author, branch.0, event.seq, id);
        self.tables.missing.insert(key, ())?;
        Ok(())
    }

    fn append_run(
        &mut self,
        branch: BranchId,
        events: &[Event],
        signature: &[u8; 64],
        way: Way,
        received_ms: u64,
    ) -> Result<()> {
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return Ok(());
        };
        let mut row = self.branch(branch)?;
        let follows = first.author == row.author
            && Some(first.seq) == row.tip.seq.checked_add(1)
            && first.prev == row.tip.id
            && events.is_sorted_by(|a, b| a.seq + 1 == b.seq && a.id == b.prev);
        if !follows {
            let seq = first.seq;
            return Err(StoreError::Misplaced { branch, seq });
        }
        self.changed = true;
        let cutter = self.open_block(&row)?;
        self.put_events(branch, cutter, events)?;
        for event in events.iter().filter(|event| event.payload.bytes().is_none()) {
            self.put_missing(branch, event)?;
        }
        self.tables.signatures.insert((branch.0, last.seq), signature)?;
        row.tip = Tip::from(last);
        self.put_branch(&row)?;
        self.arrivals += 1;
        let arrival = (branch.0, first.seq, last.seq, received_ms, way.as_u8());
        self.tables.arrivals.insert(self.arrivals, arrival)?;
        self.events += events.len() as u64;
        Ok(())
    }

    fn begin(&mut self, author: AuthorId, parent: Option<(BranchId, u64)>) -> Result<BranchId> {
        let last = self.tables.branches.last()?.map(|(id, _)| id.value());
        let next = last.map_or(Some(0), |last| last.checked_add(1));
        let id = next.ok_or_else(|| StoreError::corrupt("branches", last, "no number is left"))?;
        let tip = match parent {
            None => Tip::ROOT,
            Some((branch, seq)) => Tip {
                seq,
                id: read::id_at(&self.tables, self.hasher, branch, seq)?
                    .ok_or(StoreError::Misplaced { branch, seq })?,
            },
        };
        let id = BranchId(id);
        self.changed = true;
        self.put_branch(&Branch { id, author, parent, tip })?;
        Ok(id)
    }

    /// Fills one payload. The block may grow over its limit, and is then cut anew.
    fn fill_payload(&mut self, branch: BranchId, seq: u64, payload: &[u8]) -> Result<()> {
        let row = self.branch(branch)?;
        if !row.covers(seq) {
            return Ok(());
        }
        let mut block = Vec::new();
        read::blocks(&self.tables, self.hasher, &row, seq, |events| {
            block = events;
            false
        })?;
        let Some(event) = block.iter_mut().find(|event| event.seq == seq) else {
            return Err(StoreError::corrupt("blocks", (branch.0, seq), "no such event"));
        };
        if event.payload.bytes().is_some() {
            return Ok(());
        }
        debug_assert!(event.payload.is(payload), "a payload of another event");
        event.payload = Payload::Present(payload.to_vec());
        let key = (*event.author.as_bytes(), *event.id.as_bytes());
        let (first_seq, base) = (block[0].seq, block[0].prev);
        self.changed = true;
        self.put_events(branch, Cutter::begin(first_seq, base), &block)?;
        self.tables.missing.remove((&key.0, branch.0, seq, &key.1))?;
        Ok(())
    }

    fn prune_blocks(
        &mut self,
        branch: BranchId,
        from: u64,
        to: u64,
        is_due: &mut dyn FnMut(&Event) -> bool,
    ) -> Result<Pruned> {
        let row = self.branch(branch)?;
        let (from, to) = (from.max(row.first_seq()), to.min(row.tip.seq));
        let mut pruned = Pruned::default();
        if from > to {
            return Ok(pruned);
        }
        let mut blocks = Vec::new();
        read::blocks(&self.tables, self.hasher, &row, from, |events| {
            let is_last = events.last().is_none_or(|last| last.seq >= to);
            blocks.push(events);
            !is_last
        })?;
        for mut events in blocks.into_iter().rev() {
            let before = pruned;
            for event in events.iter_mut().rev() {
                if !(from..=to).contains(&event.seq) || !is_due(event) {
                    continue;
                }
                let (author, id) = (event.author.as_bytes(), event.id.as_bytes());
                match &event.payload {
                    Payload::Absent { .. } => {
                        let key = (author, branch.0, event.seq, id);
                        self.changed |= self.tables.missing.remove(key)?.is_some();
                    }
                    Payload::Present(bytes) => {
                        let (len, hash) = (bytes.len() as u32, event.payload.hash());
                        pruned += Pruned { payloads: 1, bytes: u64::from(len) };
                        event.payload = Payload::Absent { len, hash };
                    }
                }
            }
            if pruned != before {
                self.changed = true;
                let (first_seq, base) = (events[0].seq, events[0].prev);
                self.put_events(branch, Cutter::begin(first_seq, base), &events)?;
            }
        }
        Ok(pruned)
    }

    fn take_held(&mut self, until_ms: u64, max: usize) -> Result<Vec<(Hlc, BranchId, u64)>> {
        let last = (Hlc::new(until_ms, u16::MAX).as_u64(), u32::MAX, u64::MAX);
        let due = self
            .tables
            .held
            .range(..=last)?
            .take(max)
            .map(|row| Ok(row?.0.value()))
            .collect::<Result<Vec<_>>>()?;
        for key in &due {
            self.changed = true;
            self.tables.held.remove(key)?;
        }
        let named = |(hlc, branch, seq)| (Hlc::from_u64(hlc), BranchId(branch), seq);
        Ok(due.into_iter().map(named).collect())
    }
}

impl Kv for Batch<'_> {
    type Error = StoreError;

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.watch(read::view_get(&self.tables, key))
    }

    fn range(
        &self,
        from: &[u8],
        to: &[u8],
        order: Order,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        self.watch(read::view_range(&self.tables, from, to, order, each))
    }
}

impl KvMut for Batch<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.changed = true;
        let put = self.tables.view.insert(key, value).map(drop);
        self.watch(put)
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        let was = self.tables.view.remove(key).map(|was| was.is_some());
        self.changed |= self.watch(was)?;
        Ok(())
    }
}

impl Ledger for Batch<'_> {
    fn is_damage(error: &StoreError) -> bool {
        matches!(error, StoreError::Corrupt { .. }) && !error.is_fatal()
    }

    fn branches(&self) -> Result<Vec<Branch>> {
        self.watch(read::branches(&self.tables))
    }

    fn begin_branch(
        &mut self,
        author: AuthorId,
        parent: Option<(BranchId, u64)>,
    ) -> Result<BranchId> {
        let begun = self.begin(author, parent);
        self.watch(begun)
    }

    fn append(
        &mut self,
        branch: BranchId,
        events: &[Event],
        signature: &[u8; 64],
        way: Way,
        received_ms: u64,
    ) -> Result<()> {
        let appended = self.append_run(branch, events, signature, way, received_ms);
        self.watch(appended)
    }

    fn events(&self, branch: BranchId, from: u64, to: u64, bytes_max: usize) -> Result<Vec<Event>> {
        let hasher = self.hasher;
        self.watch(read::events(&self.tables, hasher, branch, from, to, bytes_max))
    }

    fn id_at(&self, branch: BranchId, seq: u64) -> Result<Option<EventId>> {
        self.watch(read::id_at(&self.tables, self.hasher, branch, seq))
    }

    fn signed_from(&self, branch: BranchId, seq: u64) -> Result<Option<(u64, [u8; 64])>> {
        self.watch(read::signed_from(&self.tables, branch, seq))
    }

    fn signed_up_to(
        &self,
        branch: BranchId,
        from: u64,
        to: u64,
    ) -> Result<Option<(u64, [u8; 64])>> {
        self.watch(read::signed_up_to(&self.tables, branch, from, to))
    }

    fn fill(&mut self, branch: BranchId, seq: u64, payload: &[u8]) -> Result<()> {
        let filled = self.fill_payload(branch, seq, payload);
        self.watch(filled)
    }

    fn missing(&self, after: Option<&Missing>, max: usize) -> Result<Vec<Missing>> {
        self.watch(read::missing(&self.tables, after, max))
    }

    fn hold_back(&mut self, hlc: Hlc, branch: BranchId, seq: u64) -> Result<()> {
        self.changed = true;
        let key = (hlc.as_u64(), branch.0, seq);
        let held = self.tables.held.insert(key, ()).map(drop);
        self.watch(held)
    }

    fn release(&mut self, until_ms: u64, max: usize) -> Result<Vec<(Hlc, BranchId, u64)>> {
        let due = self.take_held(until_ms, max);
        self.watch(due)
    }

    fn is_held_back(&self, hlc: Hlc, branch: BranchId, seq: u64) -> Result<bool> {
        self.watch(read::is_held_back(&self.tables, hlc, branch, seq))
    }

    fn counts(&self) -> Result<Counts> {
        self.watch(read::counts(&self.tables, self.events))
    }

    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.watch(read::meta(&self.tables, name.as_bytes()))
    }

    fn set_meta(&mut self, name: &str, value: &[u8]) -> Result<()> {
        debug_assert!(!name.starts_with('.'), "a name of the store's own");
        self.changed = true;
        let set = self.tables.meta.insert(name.as_bytes(), value).map(drop);
        self.watch(set)
    }
}
