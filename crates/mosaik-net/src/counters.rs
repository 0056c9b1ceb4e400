//! What a carrier has done, in numbers for `status` and metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start. Each stands for itself: no two are read as of one moment.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Whole frames handed to the transport.
    pub frames_sent: Count,
    /// Whole frames received.
    pub frames_received: Count,
    /// Frames for sessions that were over, and those in the queue of one that ended.
    pub frames_dropped: Count,
    /// Bytes of sync streams handed to the transport.
    pub bytes_sent: Count,
    /// Bytes of sync streams received.
    pub bytes_received: Count,
    /// Frames that broke the protocol.
    pub frames_bad: Count,
    /// Sessions begun, dialed and accepted.
    pub sessions: Count,
    /// Dials that led nowhere.
    pub dials_failed: Count,
    /// Connections turned away before a session: too many, no stream in time, gossip without a
    /// greeting.
    pub refused: Count,
    /// Hints broadcast.
    pub hints_sent: Count,
    /// Hints received and handed on.
    pub hints_received: Count,
    /// Hints dropped because a queue was full, and those that gossip itself lost.
    pub hints_dropped: Count,
    /// Hints received that were none.
    pub hints_bad: Count,
    /// Hints too large to be broadcast.
    pub hints_oversize: Count,
}

/// One number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// As of now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn one_more(&self) {
        self.add(1);
    }
}
