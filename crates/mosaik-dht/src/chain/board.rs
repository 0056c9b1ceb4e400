//! What is known of one slot: the values that storage nodes gave in its last read.
//!
//! Invariants:
//! - Each distinct value is judged once and announced once a read, however many nodes give it.
//! - `seq_max` never falls: no write of ours is at or below a seq that was ever seen here.
//! - At most [`VALUES_MAX`] values are kept: those with the highest seq, for they decide.

use std::sync::Arc;

use crate::{
    record::{self, Record, RecordError},
    slot::{SlotKeys, SlotValue},
};

/// Distinct values kept of one slot. Honest storage nodes give one or two; in a public network
/// anyone may sign more.
const VALUES_MAX: usize = 16;

/// One distinct value of a slot, judged.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) seq: i64,
    pub(super) digest: [u8; 32],
    value: Vec<u8>,
    pub(super) verdict: Result<Record, RecordError>,
}

impl Seen {
    pub(super) fn new(keys: &SlotKeys, slot: u8, value: SlotValue) -> Self {
        let (digest, verdict) = (value.digest(), record::parse(keys, slot, &value));
        Self { seq: value.seq, digest, value: value.value, verdict }
    }

    pub(super) fn record(&self) -> Option<&Record> {
        self.verdict.as_ref().ok()
    }
}

#[derive(Debug)]
struct Reading {
    began_ms: u64,
    until_ms: u64,
    values: Vec<Arc<Seen>>,
}

#[derive(Debug, Default)]
pub(super) struct Board {
    reading: Option<Reading>,
    values: Vec<Arc<Seen>>,
    /// When the last answered read began.
    pub(super) read_ms: Option<u64>,
    pub(super) seq_max: Option<i64>,
}

impl Board {
    pub(super) fn begin(&mut self, now_ms: u64, until_ms: u64) {
        self.reading = Some(Reading { began_ms: now_ms, until_ms, values: Vec::new() });
    }

    pub(super) fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    pub(super) fn reading_until_ms(&self) -> Option<u64> {
        self.reading.as_ref().map(|reading| reading.until_ms)
    }

    /// Takes a value of the read under way. Returns it when it is new to this read, and whether it
    /// is also new beside the read before.
    pub(super) fn take(
        &mut self,
        keys: &SlotKeys,
        slot: u8,
        value: SlotValue,
    ) -> Option<(Arc<Seen>, bool)> {
        let reading = self.reading.as_mut()?;
        let digest = value.digest();
        let same = |seen: &&Arc<Seen>| seen.digest == digest;
        if reading.values.iter().any(|seen| same(&seen)) {
            return None;
        }
        let full = reading.values.len() >= VALUES_MAX;
        if full && reading.values.first().is_some_and(|lowest| value.seq <= lowest.seq) {
            return None;
        }
        self.seq_max = self.seq_max.max(Some(value.seq));
        let before = self.values.iter().find(same).cloned();
        let new = before.is_none();
        let seen = before.unwrap_or_else(|| Arc::new(Seen::new(keys, slot, value)));
        if full {
            reading.values.remove(0);
        }
        reading.values.push(seen.clone());
        reading.values.sort_by(|a, b| (a.seq, &a.value).cmp(&(b.seq, &b.value)));
        Some((seen, new))
    }

    /// Ends the read. Where no storage node answered, what was known before stands.
    pub(super) fn end(&mut self, answered: bool) {
        if let Some(reading) = self.reading.take()
            && (answered || !reading.values.is_empty())
        {
            self.read_ms = Some(reading.began_ms);
            self.values = reading.values;
        }
    }

    /// Our own value is out there.
    pub(super) fn place(&mut self, seen: Arc<Seen>) {
        self.seq_max = self.seq_max.max(Some(seen.seq));
        self.values = vec![seen];
    }

    /// The values of the last answered read, the deciding one last.
    pub(super) fn values(&self) -> &[Arc<Seen>] {
        &self.values
    }

    /// The value that decides: the one with the highest seq, on a tie the larger bytes.
    pub(super) fn top(&self) -> Option<&Arc<Seen>> {
        self.values.last()
    }
}
