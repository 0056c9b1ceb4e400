//! The view against a fold that begins empty.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use mosaik_core::{
    event::Event,
    id::Fingerprint,
    kv::{Kv, KvMut, Order},
    trie::Rule,
    view,
};
use redb::{Builder, ReadableTable, ReadableTableMetadata, Table, TableDefinition};

use super::{CheckError, CheckPhase, CheckProgress, Report, ViewState};
use crate::{
    fault::StoreError,
    read::{self, Reader},
    store::CACHE_LEN,
    tables::{Bytes, Tables},
};

const SCRATCH_NAME: &str = "store.scratch";
const CELLS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("view");

/// Events folded between two settlings, which hold the names of all touched records in memory.
const SETTLE_EVERY: u64 = 65_536;

/// Cells compared between two looks at whether to go on.
const CELLS_A_STEP: u64 = 1024;

/// An ordered map on disk that ends with the check.
pub(super) struct Fresh<'txn>(Table<'txn, Bytes, Bytes>);

impl Kv for Fresh<'_> {
    type Error = StoreError;

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let row = self.0.get(key)?;
        Ok(row.map(|bytes| bytes.value().to_vec()))
    }

    fn range(
        &self,
        from: &[u8],
        to: &[u8],
        order: Order,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        read::table_range(&self.0, from, to, order, each)
    }
}

impl KvMut for Fresh<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.0.insert(key, value)?;
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.0.remove(key)?;
        Ok(())
    }
}

/// Calls `work` with an empty map in a file in `dir`, which is gone afterwards.
pub(super) fn with_fresh<T>(
    dir: &Path,
    work: impl FnOnce(Fresh<'_>) -> Result<T, CheckError>,
) -> Result<T, CheckError> {
    let path = dir.join(SCRATCH_NAME);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    // Without a name nobody else opens it, and a crash leaves nothing behind.
    let opened = options.open(&path).and_then(|file| fs::remove_file(&path).map(|()| file));
    let file = opened.map_err(|source| CheckError::Scratch { path, source })?;
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_LEN);
    let database =
        builder.create_file(file).map_err(|error| StoreError::Database(Box::new(error.into())))?;
    // It is never committed: nothing is synced.
    let transaction = database.begin_write().map_err(StoreError::from)?;
    let done = work(Fresh(transaction.open_table(CELLS).map_err(StoreError::from)?))?;
    transaction.abort().map_err(StoreError::from)?;
    Ok(done)
}

/// A fold of all events, as long as none of them is damaged.
pub(super) struct Fold<'txn> {
    fresh: Fresh<'txn>,
    rule: Rule,
    folded: u64,
    is_whole: bool,
}

impl<'txn> Fold<'txn> {
    pub(super) fn begin(mut fresh: Fresh<'txn>, network: &Fingerprint) -> Result<Self, CheckError> {
        view::reset(&mut fresh)?;
        Ok(Self { fresh, rule: view::rule(network), folded: 0, is_whole: true })
    }

    /// Takes an event that isn't held back.
    pub(super) fn take(&mut self, event: &Event) -> Result<(), CheckError> {
        if !self.is_whole {
            return Ok(());
        }
        view::fold(&mut self.fresh, event)?;
        self.folded += 1;
        if self.folded.is_multiple_of(SETTLE_EVERY) {
            view::settle(&mut self.fresh, &self.rule)?;
        }
        Ok(())
    }

    /// Takes what is known of an event that is held back.
    pub(super) fn pass_over(&mut self, event: &Event) -> Result<(), CheckError> {
        if self.is_whole {
            view::index(&mut self.fresh, event)?;
        }
        Ok(())
    }

    /// Events could not be read: there is nothing to compare with.
    pub(super) fn give_up(&mut self) {
        self.is_whole = false;
    }
}

/// Holds every cell of the view against the fold.
pub(super) fn compare(
    reader: &Reader,
    mut fold: Fold<'_>,
    report: &mut Report,
    step: &mut dyn FnMut(CheckProgress) -> Result<(), CheckError>,
) -> Result<(), CheckError> {
    let held = reader.tables().view();
    let total = held.len().map_err(StoreError::from)?;
    report.cells = total;
    report.digest = view::digest(reader).ok();
    if !fold.is_whole {
        return Ok(());
    }
    if !view::is_current(reader)? {
        report.view = ViewState::NotFolded;
        return Ok(());
    }
    view::settle(&mut fold.fresh, &fold.rule)?;
    report.view = ViewState::Compared;
    let mut ours = held.iter().map_err(StoreError::from)?;
    let mut fresh = fold.fresh.0.iter().map_err(StoreError::from)?;
    let mut row = ours.next().transpose().map_err(StoreError::from)?;
    let mut should = fresh.next().transpose().map_err(StoreError::from)?;
    let mut done = 0;
    loop {
        let order = match (&row, &should) {
            (None, None) => return Ok(()),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((ours, _)), Some((fresh, _))) => ours.value().cmp(fresh.value()),
        };
        let (key, what) = match order {
            std::cmp::Ordering::Less => (&row, Some("should not be there")),
            std::cmp::Ordering::Greater => (&should, Some("is gone")),
            std::cmp::Ordering::Equal => {
                let value = |row: &Option<Row<'_>>| row.as_ref().map(|row| row.1.value().to_vec());
                (&row, (value(&row) != value(&should)).then_some("is not what the events say"))
            }
        };
        if let (Some((key, _)), Some(what)) = (key, what) {
            report.find("view", format!("{} {what}", view::cell_name(key.value())));
        }
        if order.is_le() {
            row = ours.next().transpose().map_err(StoreError::from)?;
            done += 1;
            if done % CELLS_A_STEP == 0 {
                step(CheckProgress { phase: CheckPhase::View, done, total })?;
            }
        }
        if order.is_ge() {
            should = fresh.next().transpose().map_err(StoreError::from)?;
        }
    }
}

type Row<'a> = (redb::AccessGuard<'a, Bytes>, redb::AccessGuard<'a, Bytes>);
