//! What a simulated node keeps its feeds in: the model, or the real store on a disk that loses.
//!
//! Invariants:
//! - [`Storage::write`] is all or nothing, and what it returned `Ok` for is there after every crash.
//! - A node that is down can be read: its storage is mended when it crashes, not when it restarts.

use std::{convert::Infallible, io::ErrorKind};

use mosaik_core::{
    event::Event,
    feed::{Branch, BranchId, Counts, Ledger, Missing, Tip, Way},
    hlc::Hlc,
    id::{AuthorId, EventId, Fingerprint},
    kv::{Kv, KvMut, Order},
    view::{self, ViewError},
};
use mosaik_store::{Arrival, Batch, Reader, Store, StoreError};
use rand_chacha::ChaCha8Rng;

use crate::{disk::MemoryLedger, platter::Platter};

/// Why a step was not committed.
pub(crate) type Fault = ViewError<StoreError>;

/// Which storage the nodes of a cluster have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// The store model.
    Model,
    /// The real store on a disk in memory that loses what was not synced.
    Redb,
}

/// A node's storage, which survives its crashes.
pub(crate) enum Storage {
    Model(Box<MemoryLedger>),
    Redb(OnDisk),
}

/// A copy of a storage, as a backup has it.
pub(crate) enum Backup {
    Model(Box<MemoryLedger>),
    Image(Vec<u8>),
}

pub(crate) struct OnDisk {
    disk: Platter,
    fingerprint: Fingerprint,
    /// None for the moment between two opens.
    store: Option<Store>,
}

/// What a crash leaves of what was not committed.
pub(crate) enum Crash<'a> {
    /// The process ends; the disk has all that was written.
    Process,
    /// The power goes: what was not synced is drawn.
    Power(&'a mut ChaCha8Rng),
}

impl OnDisk {
    fn open(image: Option<Vec<u8>>, fingerprint: Fingerprint) -> Self {
        let mut on_disk =
            Self { disk: image.map(Platter::of).unwrap_or_default(), fingerprint, store: None };
        on_disk.reopen();
        on_disk
    }

    /// Opens what is on the disk now, which every crash and every backup must have left whole.
    fn reopen(&mut self) {
        self.store = None;
        let store = Store::on_backend(self.disk.clone(), &self.fingerprint);
        let store = store.expect("a store opens after every crash");
        assert!(store.damage().is_empty(), "a crash has damaged events: {:?}", store.damage());
        self.store = Some(store);
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("open but for a moment")
    }
}

impl Storage {
    pub(crate) fn new(backing: Backing, fingerprint: Fingerprint) -> Self {
        match backing {
            Backing::Model => Self::Model(Box::default()),
            Backing::Redb => Self::Redb(OnDisk::open(None, fingerprint)),
        }
    }

    /// Runs `work` and commits what it wrote, or nothing of it.
    pub(crate) fn write<T>(
        &mut self,
        lie: Option<Tip>,
        work: impl FnOnce(&mut Book<'_, '_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        match self {
            Self::Model(model) => {
                let done = work(&mut Book { kept: Kept::Model(model), lie });
                match &done {
                    Ok(_) => model.commit(),
                    Err(_) => model.crash(),
                }
                done
            }
            Self::Redb(on_disk) => {
                let store = on_disk.store.as_mut().expect("open but for a moment");
                store.write(|batch| work(&mut Book { kept: Kept::Redb(batch), lie }))
            }
        }
    }

    /// All that is committed.
    pub(crate) fn snapshot(&self) -> Snapshot<'_> {
        match self {
            Self::Model(model) => Snapshot::Model(model),
            Self::Redb(on_disk) => {
                Snapshot::Redb(on_disk.store().reader().expect("memory can be read"))
            }
        }
    }

    /// From so many disk operations on all fail.
    pub(crate) fn fail_after(&self, operations: u64) {
        match self {
            Self::Model(_) => {}
            Self::Redb(on_disk) => {
                let kind = if operations.is_multiple_of(2) {
                    ErrorKind::StorageFull
                } else {
                    ErrorKind::Other
                };
                on_disk.disk.fail_after(operations, kind);
            }
        }
    }

    /// Its disk works again.
    pub(crate) fn mend(&self) {
        if let Self::Redb(on_disk) = self {
            on_disk.disk.mend();
        }
    }

    /// Whoever used it is gone: it is opened anew from what is left.
    pub(crate) fn crash(&mut self, crash: Crash<'_>) {
        match self {
            Self::Model(model) => model.crash(),
            Self::Redb(on_disk) => {
                // Where the power goes nothing is written on the way down.
                on_disk.disk.fail_after(0, ErrorKind::Other);
                on_disk.store = None;
                on_disk.disk.mend();
                if let Crash::Power(rng) = crash {
                    on_disk.disk.cut_power(rng);
                }
                on_disk.reopen();
            }
        }
    }

    pub(crate) fn backup(&self) -> Backup {
        match self {
            Self::Model(model) => Backup::Model(model.clone()),
            Self::Redb(on_disk) => Backup::Image(on_disk.disk.image()),
        }
    }

    /// A storage on a copy of a backup.
    pub(crate) fn of(backup: &Backup, fingerprint: Fingerprint) -> Self {
        match backup {
            Backup::Model(model) => Self::Model(model.clone()),
            Backup::Image(image) => Self::Redb(OnDisk::open(Some(image.clone()), fingerprint)),
        }
    }
}

/// What a replica writes to.
pub(crate) struct Book<'a, 'txn> {
    kept: Kept<'a, 'txn>,
    /// The planted bug that skips the check of a run's base: whatever is held at its place answers to
    /// its name.
    lie: Option<Tip>,
}

enum Kept<'a, 'txn> {
    Model(&'a mut MemoryLedger),
    Redb(&'a mut Batch<'txn>),
}

/// What is committed, to read.
pub(crate) enum Snapshot<'a> {
    Model(&'a MemoryLedger),
    Redb(Reader),
}

fn never<T>(result: Result<T, Infallible>) -> Result<T, StoreError> {
    result.map_err(|never| match never {})
}

/// The same call on whatever it is kept in.
macro_rules! either {
    ($in:expr, $of:ident, $kept:ident => $call:expr) => {
        match $in {
            $of::Model($kept) => never($call),
            $of::Redb($kept) => $call,
        }
    };
}

impl Snapshot<'_> {
    pub(crate) fn branches(&self) -> Vec<Branch> {
        either!(self, Snapshot, kept => kept.branches()).expect("memory can be read")
    }

    /// All events of a branch that is held.
    pub(crate) fn events(&self, branch: &Branch) -> Vec<Event> {
        let (id, from, to) = (branch.id, branch.first_seq(), branch.tip.seq);
        let events = either!(self, Snapshot, kept => kept.events(id, from, to, usize::MAX));
        events.expect("memory can be read")
    }

    pub(crate) fn event(&self, branch: BranchId, seq: u64) -> Option<Event> {
        let events = either!(self, Snapshot, kept => kept.events(branch, seq, seq, 0));
        events.expect("memory can be read").pop()
    }

    pub(crate) fn id_at(&self, branch: BranchId, seq: u64) -> Option<EventId> {
        either!(self, Snapshot, kept => kept.id_at(branch, seq)).expect("memory can be read")
    }

    /// The first signed event of a branch at `seq` or after it.
    pub(crate) fn signed_from(&self, branch: BranchId, seq: u64) -> Option<(u64, [u8; 64])> {
        either!(self, Snapshot, kept => kept.signed_from(branch, seq)).expect("memory can be read")
    }

    pub(crate) fn is_held_back(&self, event: &Event, branch: BranchId) -> bool {
        let Some(stamp) = view::stamp(event) else { return false };
        let held = either!(self, Snapshot, kept => kept.is_held_back(stamp, branch, event.seq));
        held.expect("memory can be read")
    }

    pub(crate) fn counts(&self) -> Counts {
        either!(self, Snapshot, kept => kept.counts()).expect("memory can be read")
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        view::digest(self).expect("memory can be read")
    }

    /// The greatest stamp of all that had come before the run that holds an event of this node's own.
    pub(crate) fn greatest_stamp_before(&self, branch: BranchId, seq: u64) -> Option<Hlc> {
        let arrivals = match self {
            Self::Model(model) => model.arrivals(0, usize::MAX),
            Self::Redb(reader) => reader.arrivals(0, usize::MAX).expect("memory can be read"),
        };
        let holds =
            |run: &Arrival| run.branch == branch && (run.first_seq..=run.last_seq).contains(&seq);
        let before = arrivals.iter().take_while(|run| !holds(run));
        before.filter_map(|run| self.greatest_stamp_of(run)).max()
    }

    fn greatest_stamp_of(&self, run: &Arrival) -> Option<Hlc> {
        let Arrival { branch, first_seq: from, last_seq: to, .. } = *run;
        match self {
            Self::Model(model) => model.stamps(branch, from, to).max(),
            Self::Redb(reader) => {
                let events = reader.events(branch, from, to, usize::MAX);
                events.expect("memory can be read").iter().map(|event| event.hlc).max()
            }
        }
    }

    /// The branch that holds an event.
    pub(crate) fn find(&self, author: &AuthorId, at: Tip) -> Option<BranchId> {
        let holds = |branch: &&Branch| {
            branch.author == *author
                && branch.covers(at.seq)
                && (branch.tip == at || self.id_at(branch.id, at.seq) == Some(at.id))
        };
        match self {
            Self::Model(model) => model.all_branches().iter().find(holds).map(|branch| branch.id),
            Self::Redb(_) => self.branches().iter().find(holds).map(|branch| branch.id),
        }
    }
}

impl Kv for Snapshot<'_> {
    type Error = StoreError;

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Self::Model(model) => never(Kv::get(*model, key)),
            Self::Redb(reader) => reader.get(key),
        }
    }

    fn range(
        &self,
        from: &[u8],
        to: &[u8],
        order: Order,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        match self {
            Self::Model(model) => never(Kv::range(*model, from, to, order, each)),
            Self::Redb(reader) => reader.range(from, to, order, each),
        }
    }
}

impl Kv for Book<'_, '_> {
    type Error = StoreError;

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        either!(&self.kept, Kept, kept => Kv::get(*kept, key))
    }

    fn range(
        &self,
        from: &[u8],
        to: &[u8],
        order: Order,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        either!(&self.kept, Kept, kept => Kv::range(*kept, from, to, order, each))
    }
}

impl KvMut for Book<'_, '_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        either!(&mut self.kept, Kept, kept => kept.put(key, value))
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        either!(&mut self.kept, Kept, kept => kept.delete(key))
    }
}

impl Ledger for Book<'_, '_> {
    fn branches(&self) -> Result<Vec<Branch>, StoreError> {
        either!(&self.kept, Kept, kept => kept.branches())
    }

    fn begin_branch(
        &mut self,
        author: AuthorId,
        parent: Option<(BranchId, u64)>,
    ) -> Result<BranchId, StoreError> {
        let id = either!(&mut self.kept, Kept, kept => kept.begin_branch(author, parent))?;
        if let (Some(lie), Some((_, seq)), Kept::Model(model)) = (self.lie, parent, &mut self.kept)
            && lie.seq == seq
        {
            model.misname(id, lie);
        }
        Ok(id)
    }

    fn append(
        &mut self,
        branch: BranchId,
        events: &[Event],
        signature: &[u8; 64],
        way: Way,
        received_ms: u64,
    ) -> Result<(), StoreError> {
        either!(&mut self.kept, Kept, kept => kept.append(branch, events, signature, way, received_ms))
    }

    fn events(
        &self,
        branch: BranchId,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> Result<Vec<Event>, StoreError> {
        either!(&self.kept, Kept, kept => kept.events(branch, from, to, bytes_max))
    }

    fn id_at(&self, branch: BranchId, seq: u64) -> Result<Option<EventId>, StoreError> {
        let id = either!(&self.kept, Kept, kept => kept.id_at(branch, seq))?;
        let lie = self.lie.filter(|lie| lie.seq == seq && id.is_some());
        Ok(lie.map(|lie| lie.id).or(id))
    }

    fn signed_from(
        &self,
        branch: BranchId,
        seq: u64,
    ) -> Result<Option<(u64, [u8; 64])>, StoreError> {
        either!(&self.kept, Kept, kept => kept.signed_from(branch, seq))
    }

    fn signed_up_to(
        &self,
        branch: BranchId,
        from: u64,
        to: u64,
    ) -> Result<Option<(u64, [u8; 64])>, StoreError> {
        either!(&self.kept, Kept, kept => kept.signed_up_to(branch, from, to))
    }

    fn fill(&mut self, branch: BranchId, seq: u64, payload: &[u8]) -> Result<(), StoreError> {
        either!(&mut self.kept, Kept, kept => kept.fill(branch, seq, payload))
    }

    fn missing(&self, after: Option<&Missing>, max: usize) -> Result<Vec<Missing>, StoreError> {
        either!(&self.kept, Kept, kept => kept.missing(after, max))
    }

    fn hold_back(&mut self, hlc: Hlc, branch: BranchId, seq: u64) -> Result<(), StoreError> {
        either!(&mut self.kept, Kept, kept => kept.hold_back(hlc, branch, seq))
    }

    fn release(
        &mut self,
        until_ms: u64,
        max: usize,
    ) -> Result<Vec<(Hlc, BranchId, u64)>, StoreError> {
        either!(&mut self.kept, Kept, kept => kept.release(until_ms, max))
    }

    fn is_held_back(&self, hlc: Hlc, branch: BranchId, seq: u64) -> Result<bool, StoreError> {
        either!(&self.kept, Kept, kept => kept.is_held_back(hlc, branch, seq))
    }

    fn counts(&self) -> Result<Counts, StoreError> {
        either!(&self.kept, Kept, kept => kept.counts())
    }

    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        either!(&self.kept, Kept, kept => kept.meta(name))
    }

    fn set_meta(&mut self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        either!(&mut self.kept, Kept, kept => kept.set_meta(name, value))
    }
}

#[cfg(test)]
mod tests {
    use mosaik_core::key::Network;

    use super::*;
    use crate::hostile::branch_run;

    /// Met by seed 28473: a run that came in the batch of an append, after it, counted as seen.
    #[test]
    fn what_comes_after_an_event_was_not_seen_by_its_writer() {
        let hasher =
            mosaik_core::event::Hasher::new(&Network::Public("x".into()).keys().fingerprint);
        let mut ledger = MemoryLedger::default();
        let runs = [1, 2].map(|key| branch_run(&hasher, [key; 32], 0));
        let branches = runs.each_ref().map(|run| {
            let branch = ledger.begin_branch(run.author(), None).expect("memory never fails");
            let appended = ledger.append(branch, run.events(), run.signature(), Way::Own, 0);
            appended.expect("memory never fails");
            branch
        });
        let seen = branches.map(|branch| Snapshot::Model(&ledger).greatest_stamp_before(branch, 2));
        assert_eq!(seen, [None, Some(runs[0].head().hlc)]);
    }
}
