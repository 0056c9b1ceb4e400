//! Backups of a whole node: its store, its keys and, where that may be told, its network's id.

use std::{
    io,
    time::{SystemTime, UNIX_EPOCH},
};

use mosaik_core::key::NetworkKind;
use mosaik_store::{BackupError, BackupOf, Reader};

use crate::directory::{Directory, DirectoryError};

/// Why a backup was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MakeError {
    /// A store without an author.
    #[error("no node has run here yet: there is nothing to copy")]
    NoKeys,
    /// Keys or network id.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The file, or the store.
    #[error(transparent)]
    Backup(#[from] BackupError),
}

/// Writes a backup of what `reader` holds and of what lies beside it in `directory`; returns the digest at
/// its end. The id of a secret network is in it only with `secret`, a public one's name always.
///
/// # Errors
///
/// [`MakeError`]: what was written until then is no backup.
pub fn write(
    reader: &Reader,
    directory: &Directory,
    secret: bool,
    out: impl io::Write,
    go_on: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<[u8; 32], MakeError> {
    if !directory.has_author() {
        return Err(MakeError::NoKeys);
    }
    let keys = directory.keys()?;
    let network = directory.network()?;
    let network = network.filter(|known| secret || known.kind() == NetworkKind::Public);
    let network = network.map(|known| known.to_string());
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let of = BackupOf {
        network: network.as_deref(),
        node_key: keys.node,
        author_key: keys.author,
        made_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
    };
    Ok(reader.backup(&of, out, go_on)?)
}
