//! The whole store, looked at once: every block, chain and signature, every list, and the view.
//!
//! Invariants:
//! - All of it is one snapshot, and nothing of the store is changed.
//! - What is found is told and the walk goes on, so that one damaged block doesn't hide another.
//! - The view is held against a fold of all events that begins empty, in a file beside the store.

mod feeds;
mod view;

use std::{
    fmt, io,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
};

use mosaik_core::view::ViewError;

use crate::{fault::StoreError, read::Reader};

/// Findings that are kept one by one; the rest is counted.
///
/// A guess: who sees a hundred restores a backup, whatever the others are.
const FINDINGS_MAX: usize = 100;

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// In which table.
    pub table: &'static str,
    /// Where in it and what, in words.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.table, self.what)
    }
}

/// What became of the view's comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewState {
    /// Every cell was held against a fresh fold.
    Compared,
    /// There is nothing to compare: no fold of this version has been made yet. The next start does.
    NotFolded,
    /// Events are damaged, so there is no fold to compare with.
    NotCompared,
}

/// What a store holds, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Branches of all feeds.
    pub branches: u64,
    /// Blocks that were read.
    pub blocks: u64,
    /// Events that were read and stand in their chain.
    pub events: u64,
    /// Signatures that hold.
    pub signatures: u64,
    /// Rows of the log of arrivals.
    pub arrivals: u64,
    /// Payloads that should be here and aren't.
    pub missing: u64,
    /// Payloads of applications' own kinds that are absent and not asked for.
    pub pruned: u64,
    /// Events that wait outside the view.
    pub held_back: u64,
    /// Cells of the view.
    pub cells: u64,
    /// The view's digest; none if that can't be read.
    pub digest: Option<[u8; 32]>,
    /// Whether the view was compared.
    pub view: ViewState,
    /// The first of what is wrong.
    pub findings: Vec<Finding>,
    /// How much more is.
    pub findings_more: u64,
}

impl Report {
    /// Whether all is as it was written.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    fn find(&mut self, table: &'static str, what: impl Into<String>) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { table, what: what.into() });
        } else {
            self.findings_more += 1;
        }
    }
}

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckProgress {
    /// What is looked at.
    pub phase: CheckPhase,
    /// So much of it is done: events, rows or cells.
    pub done: u64,
    /// Of about so much.
    pub total: u64,
}

/// The parts of a check, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckPhase {
    /// Blocks, chains, signatures; the fresh fold beside them.
    Events,
    /// Arrivals and the lists.
    Lists,
    /// The cells of the view.
    View,
}

impl CheckPhase {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Lists => "lists",
            Self::View => "view",
        }
    }
}

/// Why a check came to no end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The disk failed, or the database can't be read at all.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no room for the fold to compare with.
    #[error("can't write {} to fold all events into", path.display())]
    Scratch {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Whoever asked wants no more.
    #[error("the check was given up")]
    GivenUp,
}

impl From<ViewError<StoreError>> for CheckError {
    fn from(error: ViewError<StoreError>) -> Self {
        Self::Store(match error {
            ViewError::Storage(error) => error,
            ViewError::Damaged(error) => StoreError::corrupt("view", "a fresh fold", error),
        })
    }
}

impl Reader {
    /// Looks at all that this snapshot holds. `go_on` is told how far it is, many times a second, and
    /// ends the check by returning false.
    ///
    /// Takes as long as folding all events anew. While it runs the file grows with each commit. The
    /// fold goes to a file without a name in `scratch`: about as large as the view.
    ///
    /// # Errors
    ///
    /// [`CheckError`]: what was found until then is lost. Damage is no error but a finding, unless
    /// the database itself gives up on it.
    pub fn check(
        &self,
        scratch: &Path,
        mut go_on: impl FnMut(CheckProgress) -> bool,
    ) -> Result<Report, CheckError> {
        let checked = panic::catch_unwind(AssertUnwindSafe(|| self.run(scratch, &mut go_on)));
        // redb asserts what it reads from the file: in a damaged one that may not hold.
        checked.unwrap_or_else(|_| {
            let what = "the database gave up on what it read";
            Err(StoreError::corrupt("(all)", (), what).into())
        })
    }

    fn run(
        &self,
        scratch: &Path,
        go_on: &mut dyn FnMut(CheckProgress) -> bool,
    ) -> Result<Report, CheckError> {
        let mut report = Report {
            branches: 0,
            blocks: 0,
            events: 0,
            signatures: 0,
            arrivals: 0,
            missing: 0,
            pruned: 0,
            held_back: 0,
            cells: 0,
            digest: None,
            view: ViewState::NotCompared,
            findings: Vec::new(),
            findings_more: 0,
        };
        let branches = match self.branches() {
            Ok(branches) => branches,
            Err(StoreError::Corrupt { table, key, what }) => {
                report.find(table, format!("at {key}: {what}"));
                return Ok(report);
            }
            Err(error) => return Err(error.into()),
        };
        let network = self.network()?;
        view::with_fresh(scratch, |fresh| {
            let mut step =
                |progress| if go_on(progress) { Ok(()) } else { Err(CheckError::GivenUp) };
            let mut fold = view::Fold::begin(fresh, &network)?;
            let tables = self.tables();
            feeds::walk(tables, self.hasher(), &branches, &mut report, &mut fold, &mut step)?;
            feeds::lists(tables, &branches, &mut report, &mut step)?;
            view::compare(self, fold, &mut report, &mut step)
        })?;
        Ok(report)
    }
}
