//! Works that take long: the answer is a line of JSON now and then, and the last one is the result.

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// One line of such an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line<T> {
    /// It goes on.
    Progress(Progress),
    /// It is done: the last line.
    Done(T),
    /// It came to no end: the last line.
    Failed(Failure),
}

/// How far a work is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is done now, in one word.
    pub phase: String,
    /// So much of it is done.
    pub done: u64,
    /// Of about so much.
    pub total: u64,
}

/// What `GET /db/check` ends in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// The version of this document.
    pub schema: u32,
    /// Branches of all feeds.
    pub branches: u64,
    /// Blocks that were read.
    pub blocks: u64,
    /// Events that stand in their chain.
    pub events: u64,
    /// Signatures that hold.
    pub signatures: u64,
    /// Runs that were committed here.
    pub arrivals: u64,
    /// Payloads that should be here and aren't.
    pub missing: u64,
    /// Payloads that are absent and not asked for: retention took them.
    #[serde(default)]
    pub pruned: u64,
    /// Events that wait outside the view.
    pub held_back: u64,
    /// Cells of the view.
    pub cells: u64,
    /// The view's digest; none if it can't be read.
    pub view_digest: Option<String>,
    /// `compared`, `not_folded` (it is at the next start) or `not_compared` (events are damaged).
    pub view: ViewCheck,
    /// What is not as it was written, at most a hundred.
    pub findings: Vec<Finding>,
    /// How much more is.
    pub findings_more: u64,
}

/// What became of the view's comparison with a fresh fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ViewCheck {
    /// Cell by cell.
    Compared,
    /// There is no view of this version yet.
    NotFolded,
    /// Events are damaged: there is nothing to compare with.
    NotCompared,
}

/// What `POST /db/compact` ends in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compacted {
    /// The version of this document.
    pub schema: u32,
    /// Bytes that the store took on its disk.
    pub before: u64,
    /// Bytes that it takes now.
    pub after: u64,
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The table of the store.
    pub table: String,
    /// Where in it and what, in words.
    pub what: String,
}
