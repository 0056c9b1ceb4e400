//! Reads.

use mosaik_core::{
    feed::{BranchId, Way},
    id::AuthorId,
};

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
