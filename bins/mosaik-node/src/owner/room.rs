//! The room that the store takes: its limit, and making it smaller.

use std::time::{Duration, Instant};

use mosaik_store::{CompactError, Store};
use tokio::sync::oneshot;
use tracing::info;

use super::{Owner, Work, cause};
use crate::handle::{Compacted, WriteError};

/// How long a compaction waits for those who read: an answer takes milliseconds, an export may take
/// longer than anybody wants to wait.
const COMPACT_WAIT: Duration = Duration::from_secs(5);
/// How often it is tried meanwhile.
const COMPACT_EVERY: Duration = Duration::from_millis(20);

/// How much the store may take, and who wants it to take less.
pub(super) struct Room {
    /// Bytes; 0 is no limit.
    limit: u64,
    /// Why nothing more is taken, if nothing is.
    full: Option<String>,
    asked: Vec<Asked>,
    next_try: Option<Instant>,
}

struct Asked {
    until: Instant,
    reply: oneshot::Sender<Result<Compacted, WriteError>>,
}

impl Room {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, full: None, asked: Vec::new(), next_try: None }
    }

    /// Why there is no room, if there is none.
    pub(super) fn full(&self) -> Option<&str> {
        self.full.as_deref()
    }

    /// Looks whether there is room; true if that has changed. What one batch brings may go beyond the
    /// limit.
    pub(super) fn look(&mut self, store: &Store) -> bool {
        if self.limit == 0 {
            return false;
        }
        // A disk that doesn't say fails at the next commit, with a better reason.
        let Ok(Some(len)) = store.disk_len() else { return false };
        let is_full = len >= self.limit;
        if is_full == self.full.is_some() {
            return false;
        }
        info!(len, limit = self.limit, is_full, "the room for the store has changed");
        self.full = is_full.then(|| {
            format!(
                "the store takes {len} bytes and may take {} (store_max): raise that, or try what \
                 `mosaik-node db compact` gives back",
                self.limit
            )
        });
        true
    }

    /// Refuses what would append, if there is no room for it; gives the rest back.
    pub(super) fn turn_away(&self, works: Vec<Work>) -> Vec<Work> {
        let Some(why) = &self.full else { return works };
        let mut rest = Vec::new();
        for work in works {
            match work {
                // Whoever asked may be gone: then nobody hears.
                Work::Edit(_, reply) => drop(reply.send(Err(WriteError::Degraded(why.clone())))),
                Work::Profile(_) | Work::Radio(_) => {}
                work @ (Work::Reply(_) | Work::Want(..)) => rest.push(work),
            }
        }
        rest
    }

    pub(super) fn ask(&mut self, reply: oneshot::Sender<Result<Compacted, WriteError>>) {
        let now = Instant::now();
        self.asked.push(Asked { until: now + COMPACT_WAIT, reply });
        self.next_try = Some(now);
    }

    /// When a compaction is tried next.
    pub(super) fn next_try(&self) -> Option<Instant> {
        self.next_try
    }
}

impl Owner {
    /// Makes the store smaller, if somebody asked for it and nobody reads.
    pub(super) fn compact_if_asked(&mut self) {
        let now = Instant::now();
        if self.room.next_try.is_none_or(|at| at > now) {
            return;
        }
        self.room.next_try = None;
        let outcome = self.compact();
        if let Err(WriteError::Reading) = outcome {
            self.room.asked.retain(|asked| !asked.reply.is_closed());
            let late = self.room.asked.extract_if(.., |asked| asked.until <= now);
            late.for_each(|asked| drop(asked.reply.send(Err(WriteError::Reading))));
            if !self.room.asked.is_empty() {
                self.room.next_try = Some(now + COMPACT_EVERY);
            }
            return;
        }
        for asked in std::mem::take(&mut self.room.asked) {
            // Whoever asked may be gone.
            drop(asked.reply.send(outcome.clone()));
        }
        // There may be room again, and after a failure the store has to be opened anew.
        self.batch(Vec::new(), Vec::new());
    }

    fn compact(&mut self) -> Result<Compacted, WriteError> {
        let len = |store: &Store| {
            let len = store.disk_len().map_err(|error| WriteError::Degraded(cause(&error)));
            len.map(|len| len.unwrap_or(0))
        };
        if let Some(why) = &self.degraded {
            let text = format!("the store takes no writes ({why}): mend that first");
            return Err(WriteError::Degraded(text));
        }
        let before = len(&self.store)?;
        self.store.compact().map_err(|error| match error {
            CompactError::Busy => WriteError::Reading,
            error => WriteError::Degraded(cause(&error)),
        })?;
        let after = len(&self.store)?;
        info!(before, after, "the store is compacted");
        Ok(Compacted { before, after })
    }
}
