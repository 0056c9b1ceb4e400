//! Reads: of a snapshot, and by the same code of a batch's own writes.
//!
//! Invariants:
//! - What comes from disk is checked before it is given out. An event was hashed, its payload too,
//!   and the chain it stands in meets the next block or the branch's tip.
//! - Damaged bytes are an error that names table and key, never a panic.

use std::{fmt, sync::Arc};

use mosaik_core::{
    event::{Event, Hasher},
    feed::{Branch, BranchId, Counts, Missing, Tip, Way},
    hlc::Hlc,
    id::{AuthorId, EventId, Fingerprint},
    kv::{Kv, Order},
};
use redb::{ReadableTable, ReadableTableMetadata};

use crate::{
    block,
    fault::StoreError,
    tables::{Bytes, META_EVENTS, META_NETWORK, ReadTables, Tables},
};

type Result<T> = std::result::Result<T, StoreError>;

/// A signed event's seq and the signature.
type Signed = (u64, [u8; 64]);

/// One committed run: a row of the log that `events --since` and streams follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Its place in the order of commits here, from 1, without a hole.
    pub number: u64,
    /// Whose events.
    pub author: AuthorId,
    /// On which branch.
    pub branch: BranchId,
    /// Seq of the first event.
    pub first_seq: u64,
    /// Seq of the last event.
    pub last_seq: u64,
    /// When it came, in milliseconds of the Unix epoch by this node's clock.
    pub received_ms: u64,
    /// How it came.
    pub way: Way,
}

/// All that was committed at one moment.
///
/// Keep it short: while one is held, the file grows with every commit.
#[derive(Clone)]
pub struct Reader {
    tables: Arc<ReadTables>,
    hasher: Arc<Hasher>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader(..)")
    }
}

/// Each fails with [`StoreError`]: of the disk, or of what stands on it.
#[allow(clippy::missing_errors_doc, reason = "one sentence for all of them stands above")]
impl Reader {
    pub(crate) fn new(tables: ReadTables, hasher: Arc<Hasher>) -> Self {
        Self { tables: Arc::new(tables), hasher }
    }

    pub(crate) fn tables(&self) -> &ReadTables {
        &self.tables
    }

    pub(crate) fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// All branches, ascending by number.
    pub fn branches(&self) -> Result<Vec<Branch>> {
        branches(&*self.tables)
    }

    /// The events of one branch from `from` to `to`, in order, cut after `bytes_max` of payload; at
    /// least one where `from` is on the branch.
    pub fn events(
        &self,
        branch: BranchId,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> Result<Vec<Event>> {
        events(&*self.tables, &self.hasher, branch, from, to, bytes_max)
    }

    /// The id of one event.
    pub fn id_at(&self, branch: BranchId, seq: u64) -> Result<Option<EventId>> {
        id_at(&*self.tables, &self.hasher, branch, seq)
    }

    /// The first signed event of a branch at `seq` or after it.
    pub fn signed_from(&self, branch: BranchId, seq: u64) -> Result<Option<Signed>> {
        signed_from(&*self.tables, branch, seq)
    }

    /// The last signed event of a branch in `from..=to`.
    pub fn signed_up_to(&self, branch: BranchId, from: u64, to: u64) -> Result<Option<Signed>> {
        signed_up_to(&*self.tables, branch, from, to)
    }

    /// At most `max` missing payloads, of events after `after` in a fixed order.
    pub fn missing(&self, after: Option<&Missing>, max: usize) -> Result<Vec<Missing>> {
        missing(&*self.tables, after, max)
    }

    /// Whether an event is held back.
    pub fn is_held_back(&self, hlc: Hlc, branch: BranchId, seq: u64) -> Result<bool> {
        is_held_back(&*self.tables, hlc, branch, seq)
    }

    /// Totals.
    pub fn counts(&self) -> Result<Counts> {
        counts(&*self.tables, events_total(&*self.tables)?)
    }

    /// The fingerprint of the network that the store is of.
    pub fn network(&self) -> Result<Fingerprint> {
        let network = meta(&*self.tables, META_NETWORK)?.and_then(|bytes| bytes.try_into().ok());
        network
            .map(Fingerprint)
            .ok_or_else(|| StoreError::corrupt("meta", ".network", "it is gone"))
    }

    /// A named value of the node's own.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>> {
        meta(&*self.tables, name.as_bytes())
    }

    /// At most `max` arrivals after the one of number `after`, in order.
    pub fn arrivals(&self, after: u64, max: usize) -> Result<Vec<Arrival>> {
        arrivals(&*self.tables, after, max)
    }

    /// The number of the last arrival; 0 before the first.
    pub fn last_arrival(&self) -> Result<u64> {
        last_arrival(&*self.tables)
    }
}

impl Kv for Reader {
    type Error = StoreError;

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        view_get(&*self.tables, key)
    }

    fn range(
        &self,
        from: &[u8],
        to: &[u8],
        order: Order,
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        view_range(&*self.tables, from, to, order, each)
    }
}

type BranchRow<'a> = (&'a [u8; 32], u32, u64, u64, &'a [u8; 32]);

fn branch_of_row(id: u32, row: BranchRow<'_>) -> Result<Branch> {
    let (author, parent, parent_seq, seq, tip) = row;
    if seq == u64::MAX || parent_seq > seq {
        let what = format!("a tip at seq {seq} after a parent at {parent_seq}");
        return Err(StoreError::corrupt("branches", id, what));
    }
    Ok(Branch {
        id: BranchId(id),
        author: AuthorId(*author),
        parent: (parent_seq > 0).then_some((BranchId(parent), parent_seq)),
        tip: Tip { seq, id: EventId(*tip) },
    })
}

pub(crate) fn branch<T: Tables>(tables: &T, id: BranchId) -> Result<Option<Branch>> {
    let row = tables.branches().get(id.0)?;
    row.map(|row| branch_of_row(id.0, row.value())).transpose()
}

pub(crate) fn branches<T: Tables>(tables: &T) -> Result<Vec<Branch>> {
    tables
        .branches()
        .iter()?
        .map(|row| {
            let (id, row) = row?;
            branch_of_row(id.value(), row.value())
        })
        .collect()
}

/// The key of the block of `branch` that holds `seq`, or would.
fn block_at<T: Tables>(tables: &T, branch: BranchId, seq: u64) -> Result<Option<u64>> {
    let last = tables.blocks().range((branch.0, 0)..=(branch.0, seq))?.next_back();
    Ok(last.transpose()?.map(|(key, _)| key.value().1))
}

/// Calls `each` with the checked events of every block of `branch` from the one that holds `from`,
/// until it returns false or the branch ends.
pub(crate) fn blocks<T: Tables>(
    tables: &T,
    hasher: &Hasher,
    branch: &Branch,
    from: u64,
    mut each: impl FnMut(Vec<Event>) -> bool,
) -> Result<()> {
    let number = branch.id.0;
    let first = block_at(tables, branch.id, from)?
        .ok_or_else(|| StoreError::corrupt("blocks", (number, from), "no block"))?;
    let mut rows = tables.blocks().range((number, first)..=(number, u64::MAX))?;
    let mut next = rows.next().transpose()?;
    while let Some((key, bytes)) = next {
        let (_, first_seq) = key.value();
        next = rows.next().transpose()?;
        let end = match &next {
            None => branch.tip,
            Some((key, bytes)) => Tip {
                seq: key.value().1.saturating_sub(1),
                id: block::base(bytes.value())
                    .map_err(|error| StoreError::corrupt("blocks", key.value(), error))?,
            },
        };
        let events = block::events(hasher, branch.author, first_seq, bytes.value(), end)
            .map_err(|error| StoreError::corrupt("blocks", (number, first_seq), error))?;
        if !each(events) {
            break;
        }
    }
    Ok(())
}

pub(crate) fn events<T: Tables>(
    tables: &T,
    hasher: &Hasher,
    id: BranchId,
    from: u64,
    to: u64,
    bytes_max: usize,
) -> Result<Vec<Event>> {
    let mut taken = Vec::new();
    let mut bytes = 0usize;
    let Some(branch) = branch(tables, id)? else {
        return Ok(taken);
    };
    let from = from.max(branch.first_seq());
    if from > to.min(branch.tip.seq) {
        return Ok(taken);
    }
    let mut take = |event: Event| {
        bytes = bytes.saturating_add(event.payload.len());
        let fits = event.seq <= to && (taken.is_empty() || bytes <= bytes_max);
        if fits {
            taken.push(event);
        }
        fits
    };
    blocks(tables, hasher, &branch, from, |events| {
        let mut wanted = events.into_iter().filter(|event| event.seq >= from);
        wanted.all(&mut take)
    })?;
    Ok(taken)
}

pub(crate) fn id_at<T: Tables>(
    tables: &T,
    hasher: &Hasher,
    id: BranchId,
    seq: u64,
) -> Result<Option<EventId>> {
    let Some(branch) = branch(tables, id)?.filter(|branch| branch.covers(seq)) else {
        return Ok(None);
    };
    if seq == branch.tip.seq {
        return Ok(Some(branch.tip.id));
    }
    let mut found = None;
    blocks(tables, hasher, &branch, seq, |events| {
        found = events.iter().find(|event| event.seq == seq).map(|event| event.id);
        false
    })?;
    match found {
        Some(_) => Ok(found),
        None => Err(StoreError::corrupt("blocks", (id.0, seq), "no such event")),
    }
}

pub(crate) fn signed_from<T: Tables>(
    tables: &T,
    branch: BranchId,
    seq: u64,
) -> Result<Option<Signed>> {
    let mut rows = tables.signatures().range((branch.0, seq)..=(branch.0, u64::MAX))?;
    let row = rows.next().transpose()?;
    Ok(row.map(|(key, bytes)| (key.value().1, *bytes.value())))
}

pub(crate) fn signed_up_to<T: Tables>(
    tables: &T,
    branch: BranchId,
    from: u64,
    to: u64,
) -> Result<Option<Signed>> {
    if from > to {
        return Ok(None);
    }
    let mut rows = tables.signatures().range((branch.0, from)..=(branch.0, to))?;
    let row = rows.next_back().transpose()?;
    Ok(row.map(|(key, bytes)| (key.value().1, *bytes.value())))
}

pub(crate) fn missing<T: Tables>(
    tables: &T,
    after: Option<&Missing>,
    max: usize,
) -> Result<Vec<Missing>> {
    let rows = match after {
        Some(Missing { author, branch, tip }) => {
            let after = (author.as_bytes(), branch.0, tip.seq, tip.id.as_bytes());
            let past = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
            tables.missing().range(past)?
        }
        None => tables.missing().iter()?,
    };
    rows.take(max)
        .map(|row| {
            let (key, _) = row?;
            let (author, branch, seq, id) = key.value();
            Ok(Missing {
                author: AuthorId(*author),
                branch: BranchId(branch),
                tip: Tip { seq, id: EventId(*id) },
            })
        })
        .collect()
}

pub(crate) fn is_held_back<T: Tables>(
    tables: &T,
    hlc: Hlc,
    branch: BranchId,
    seq: u64,
) -> Result<bool> {
    let row = tables.held().get((hlc.as_u64(), branch.0, seq))?;
    Ok(row.is_some())
}

/// How many events were counted when the transaction began.
pub(crate) fn events_total<T: Tables>(tables: &T) -> Result<u64> {
    let Some(bytes) = meta(tables, META_EVENTS)? else {
        return Ok(0);
    };
    let bytes = <[u8; 8]>::try_from(bytes).map_err(|bytes| {
        StoreError::corrupt("meta", ".events", format!("{} bytes", bytes.len()))
    })?;
    Ok(u64::from_le_bytes(bytes))
}

pub(crate) fn counts<T: Tables>(tables: &T, events: u64) -> Result<Counts> {
    Ok(Counts { events, missing: tables.missing().len()?, held_back: tables.held().len()? })
}

pub(crate) fn meta<T: Tables>(tables: &T, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let row = tables.meta().get(name)?;
    Ok(row.map(|bytes| bytes.value().to_vec()))
}

/// All named values of the node's own.
pub(crate) fn metas<T: Tables>(tables: &T) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut metas = Vec::new();
    for row in tables.meta().iter()? {
        let (name, value) = row?;
        if !name.value().starts_with(b".") {
            metas.push((name.value().to_vec(), value.value().to_vec()));
        }
    }
    Ok(metas)
}

pub(crate) fn arrivals<T: Tables>(tables: &T, after: u64, max: usize) -> Result<Vec<Arrival>> {
    let Some(first) = after.checked_add(1) else {
        return Ok(Vec::new());
    };
    let mut known: Option<(u32, AuthorId)> = None;
    tables
        .arrivals()
        .range(first..)?
        .take(max)
        .map(|row| {
            let (number, row) = row?;
            let number = number.value();
            let (branch, first_seq, last_seq, received_ms, way) = row.value();
            let damaged = |what| StoreError::corrupt("arrivals", number, what);
            let author = match known {
                Some((known, author)) if known == branch => author,
                _ => {
                    let held = self::branch(tables, BranchId(branch))?;
                    held.ok_or_else(|| damaged("no such branch"))?.author
                }
            };
            known = Some((branch, author));
            Ok(Arrival {
                number,
                author,
                branch: BranchId(branch),
                first_seq,
                last_seq,
                received_ms,
                way: Way::from_u8(way).ok_or_else(|| damaged("an unknown way"))?,
            })
        })
        .collect()
}

pub(crate) fn last_arrival<T: Tables>(tables: &T) -> Result<u64> {
    let last = tables.arrivals().last()?;
    Ok(last.map_or(0, |(number, _)| number.value()))
}

pub(crate) fn view_get<T: Tables>(tables: &T, key: &[u8]) -> Result<Option<Vec<u8>>> {
    let row = tables.view().get(key)?;
    Ok(row.map(|bytes| bytes.value().to_vec()))
}

pub(crate) fn view_range<T: Tables>(
    tables: &T,
    from: &[u8],
    to: &[u8],
    order: Order,
    each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<()> {
    table_range(tables.view(), from, to, order, each)
}

/// Walks a table of bytes.
pub(crate) fn table_range(
    table: &impl ReadableTable<Bytes, Bytes>,
    from: &[u8],
    to: &[u8],
    order: Order,
    each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<()> {
    if from >= to {
        return Ok(());
    }
    let mut rows = table.range(from..to)?;
    while let Some(row) = match order {
        Order::Ascending => rows.next(),
        Order::Descending => rows.next_back(),
    } {
        let (key, value) = row?;
        if !each(key.value(), value.value()) {
            break;
        }
    }
    Ok(())
}
