//! Feeds and view of one node in one redb file.
//!
//! Invariants:
//! - Events, tips and view change in one transaction, and what [`Store::write`] returned `Ok` for is
//!   on disk.
//! - After a write error nothing more is written before [`Store::reopen`] has looked at the file again.
//! - Nothing read from disk is believed: every id is computed anew and must meet the next one.
//! - A store is made at the first run only. Later a missing or empty file is an error, never a new
//!   start: a node must not forget silently.
//!
//! Source: FORMAT.md beside this crate has the bytes.

mod backup;
mod block;
mod check;
mod commit;
mod disk;
mod fault;
mod files;
mod migrate;
mod read;
mod store;
mod tables;

pub use backup::{Backup, BackupError, BackupHead, BackupOf, Restored};
pub use check::{CheckError, CheckPhase, CheckProgress, Finding, Report, ViewState};
pub use commit::{Batch, Pruned};
pub use disk::MemoryDisk;
pub use fault::{CompactError, OpenError, StoreError};
pub use migrate::SCHEMA;
pub use read::{Arrival, Reader};
pub use store::{CACHE_LEN, Readers, Store};
