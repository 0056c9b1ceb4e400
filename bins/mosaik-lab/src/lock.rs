//! One cluster of processes at a time on a machine.
//!
//! Tests run side by side, in threads of one process and in several processes. Two clusters on a
//! small machine slow each other until deadlines pass that mean nothing. The lock is the system's
//! (`flock`), so it is gone with the process that holds it, whatever way that ends.

use std::{
    env,
    fs::{File, OpenOptions, TryLockError},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::wait;

/// Held for as long as this value lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock of this machine.
    ///
    /// # Errors
    ///
    /// If it isn't free within `deadline`, or its file can't be made.
    pub async fn take(deadline: Duration) -> Result<Self> {
        Self::take_at(&env::temp_dir().join("mosaik-lab.lock"), deadline).await
    }

    async fn take_at(path: &Path, deadline: Duration) -> Result<Self> {
        let file = open(path).with_context(|| format!("cannot open {}", path.display()))?;
        wait::until("the lock of clusters", deadline, || {
            let tried = match file.try_lock() {
                Ok(()) => Ok(()),
                Err(TryLockError::WouldBlock) => Err("another cluster runs".to_owned()),
                Err(TryLockError::Error(error)) => Err(error.to_string()),
            };
            async { tried }
        })
        .await?;
        Ok(Self { _file: file })
    }
}

/// Opens for reading first: a file that another user made can be locked, but not written.
fn open(path: &Path) -> std::io::Result<File> {
    File::open(path).or_else(|_| OpenOptions::new().create(true).append(true).open(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_lock_is_had_by_one_at_a_time_and_freed_on_drop() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("lock");
        let first = Lock::take_at(&path, Duration::from_secs(5)).await.expect("it is free");
        let second = Lock::take_at(&path, Duration::from_millis(100)).await;
        assert!(second.is_err_and(|error| error.to_string().contains("another cluster runs")));
        drop(first);
        Lock::take_at(&path, Duration::from_secs(5)).await.expect("it is free again");
    }
}
