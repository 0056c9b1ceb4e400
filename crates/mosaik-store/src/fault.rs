//! What can go wrong below, as what the caller may do next.

use std::{fmt, io, path::PathBuf};

use mosaik_core::{feed::BranchId, id::Fingerprint};
use redb::{CommitError, DatabaseError, StorageError, TableError, TransactionError};

/// Why something was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No room, or no right to write. Nothing was written; make room, then [`crate::Store::reopen`].
    #[error("the disk is full or read-only")]
    Full(#[source] io::Error),
    /// The disk failed. Nothing was written; [`crate::Store::reopen`].
    #[error("the disk failed")]
    Io(#[source] io::Error),
    /// Bytes that were not written so, or not by this program. What they held must come from peers.
    #[error("table {table} is damaged at {key}: {what}")]
    Corrupt {
        /// Which table.
        table: &'static str,
        /// Where in it.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// A write failed before. Until [`crate::Store::reopen`] there are reads only.
    #[error("a write has failed: the store takes no more before it is reopened")]
    Poisoned,
    /// The store was closed or reopened since this snapshot was taken. Take a new one.
    #[error("the store was closed while it was read")]
    Closed,
    /// The caller placed events where they don't belong. A bug, and nothing was written.
    #[error("events at seq {seq} do not follow what branch {} holds", branch.0)]
    Misplaced {
        /// Which branch.
        branch: BranchId,
        /// Where.
        seq: u64,
    },
    /// redb refused for another reason.
    #[error("the database failed")]
    Database(#[source] Box<redb::Error>),
}

impl StoreError {
    pub(crate) fn corrupt(
        table: &'static str,
        key: impl fmt::Debug,
        what: impl fmt::Display,
    ) -> Self {
        Self::Corrupt { table, key: format!("{key:?}"), what: what.to_string() }
    }

    /// Whether the database itself failed, so that it must be reopened: not what was found in it.
    pub(crate) fn is_fatal(&self) -> bool {
        match self {
            Self::Full(_) | Self::Io(_) | Self::Poisoned | Self::Closed | Self::Database(_) => true,
            Self::Corrupt { table, .. } => *table == DATABASE,
            Self::Misplaced { .. } => false,
        }
    }
}

/// The name in [`StoreError::Corrupt`] for what redb itself found damaged.
const DATABASE: &str = "(all)";

/// Whether the disk has no room or may not be written: a person can mend that.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::PermissionDenied
    )
}

impl From<StorageError> for StoreError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io(error) if is_full(&error) => Self::Full(error),
            // The file is shorter than what it says of itself, or than that takes.
            StorageError::Io(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
                ) =>
            {
                Self::corrupt(DATABASE, (), error)
            }
            StorageError::Io(error) => Self::Io(error),
            StorageError::Corrupted(what) => Self::corrupt(DATABASE, (), what),
            StorageError::PreviousIo => Self::Poisoned,
            StorageError::DatabaseClosed => Self::Closed,
            other => Self::Database(Box::new(other.into())),
        }
    }
}

impl From<TableError> for StoreError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(error) => error.into(),
            other => Self::Database(Box::new(other.into())),
        }
    }
}

impl From<TransactionError> for StoreError {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => error.into(),
            other => Self::Database(Box::new(other.into())),
        }
    }
}

impl From<CommitError> for StoreError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Storage(error) => error.into(),
            other => Self::Database(Box::new(other.into())),
        }
    }
}

/// Why a store was not compacted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompactError {
    /// A snapshot is held. Try again when it is gone.
    #[error("the store is being read")]
    Busy,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a store was not opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it.
    #[error("another mosaik-node holds this data directory ({})", Holder(*pid))]
    Held {
        /// Which, if it has said so already.
        pid: Option<u32>,
    },
    /// The database is gone, and this is not the first run.
    #[error(
        "{} is missing, but this node has run here before: restore it from a backup, or delete {} to begin with an empty store and fetch all from peers",
        path.display(), marker.display()
    )]
    Missing {
        /// The database.
        path: PathBuf,
        /// What tells that there was one.
        marker: PathBuf,
    },
    /// The database has no bytes.
    #[error(
        "{} is empty: restore it from a backup, or delete it and {} to begin with an empty store and fetch all from peers",
        path.display(), marker.display()
    )]
    Empty {
        /// The database.
        path: PathBuf,
        /// What tells that there was one.
        marker: PathBuf,
    },
    /// Some other file.
    #[error("{} is not a store of mosaik-node: move it away, or choose another data directory", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A store that can't be read any more.
    #[error("{} is damaged: restore it from a backup ({what})", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// Another network's data.
    #[error("{} belongs to network {}, not to {}: move it away, or choose another data directory", path.display(), found.short(), expected.short())]
    OtherNetwork {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: Fingerprint,
        /// Whose it should be.
        expected: Fingerprint,
    },
    /// Written by a later version of this program.
    #[error("{} has schema {found}, this mosaik-node knows up to {known}: install a newer one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema known here.
        known: u32,
    },
    /// No room for the copy that is kept while a store is migrated, and for the migration.
    #[error(
        "{} is of an older version and needs {needed} bytes free to be migrated, {free} are: make room, nothing was changed",
        path.display()
    )]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// No room, or no right to write.
    #[error("can't write to {}", path.display())]
    Unwritable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The disk failed.
    #[error("can't open {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database failed in another way.
    #[error("can't open {}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
}

struct Holder(Option<u32>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "pid {pid}"),
            None => f.write_str("pid unknown"),
        }
    }
}

impl OpenError {
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        if is_full(&source) { Self::Unwritable { path, source } } else { Self::Io { path, source } }
    }

    pub(crate) fn store(path: impl Into<PathBuf>, source: StoreError) -> Self {
        let path = path.into();
        match source {
            StoreError::Full(source) => Self::Unwritable { path, source },
            StoreError::Io(source) => Self::Io { path, source },
            corrupt @ StoreError::Corrupt { .. } => {
                Self::Damaged { path, what: corrupt.to_string() }
            }
            source => Self::Store { path, source },
        }
    }

    pub(crate) fn database(path: impl Into<PathBuf>, error: DatabaseError) -> Self {
        match error {
            DatabaseError::Storage(error) => Self::store(path, error.into()),
            DatabaseError::DatabaseAlreadyOpen => Self::Held { pid: None },
            DatabaseError::UpgradeRequired(_) => Self::Foreign { path: path.into() },
            other => Self::Damaged { path: path.into(), what: other.to_string() },
        }
    }
}
