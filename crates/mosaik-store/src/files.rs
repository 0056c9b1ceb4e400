//! The files of a data directory that the store keeps: database, marker, lock.
//!
//! Invariants:
//! - The database appears whole or not at all: it is built under another name, then renamed.
//! - The marker is written after it and never removed: with a marker and no database, something was
//!   lost.
//! - The lock is held as long as this lives. Its file stays, it only names the last holder.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process,
};

use crate::fault::OpenError;

const DATABASE_NAME: &str = "store.redb";
const NEW_NAME: &str = "store.redb.new";
const MARKER_NAME: &str = "store.created";
const LOCK_NAME: &str = "store.lock";
const PROBE_NAME: &str = "store.probe";

/// Bytes that are copied between two looks at how far it is.
const COPY_STEP: usize = 1 << 20;

/// What a database begins with, as redb writes it.
const MAGIC: &[u8] = b"redb";

/// Bytes that must be writable before a failed store is closed to be reopened: more than redb writes
/// to mend a file.
const PROBE_LEN: usize = 256 * 1024;

/// A directory whose lock this process holds.
#[derive(Debug)]
pub(crate) struct Files {
    dir: PathBuf,
    _lock: File,
}

/// What is there.
pub(crate) enum Found {
    /// Nothing, and there never was.
    Nothing,
    /// A database.
    Database,
}

impl Files {
    /// Takes the lock of `dir`, which must exist.
    pub(crate) fn lock(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(LOCK_NAME);
        let failed = |error| OpenError::io(&path, error);
        let mut lock = private().create(true).truncate(false).open(&path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Who holds it is a courtesy: that somebody does is already certain.
                let _ = lock.read_to_string(&mut text);
                let pid = text.trim().parse().ok();
                return Err(OpenError::Held { pid });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", process::id()))
            .map_err(failed)?;
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.dir.join(DATABASE_NAME)
    }

    fn marker(&self) -> PathBuf {
        self.dir.join(MARKER_NAME)
    }

    /// Tells a first run from a loss.
    pub(crate) fn look(&self) -> Result<Found, OpenError> {
        let (path, marker) = (self.database(), self.marker());
        let failed = |error| OpenError::io(&path, error);
        let marked = marker.try_exists().map_err(|error| OpenError::io(&marker, error))?;
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return if marked {
                    Err(OpenError::Missing { path, marker })
                } else {
                    Ok(Found::Nothing)
                };
            }
            Err(error) => return Err(failed(error)),
        };
        if file.metadata().map_err(failed)?.len() == 0 {
            return Err(OpenError::Empty { path, marker });
        }
        let mut head = [0; MAGIC.len()];
        match file.read_exact(&mut head) {
            Ok(()) if head == MAGIC => Ok(Found::Database),
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(failed(error)),
            _ => Err(OpenError::Foreign { path }),
        }
    }

    /// An empty file to build a database in.
    pub(crate) fn begin(&self) -> Result<File, OpenError> {
        let path = self.dir.join(NEW_NAME);
        private()
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(|error| OpenError::io(&path, error))
    }

    /// Makes what was built since [`Files::begin`] the database.
    pub(crate) fn finish(&self) -> Result<(), OpenError> {
        let path = self.database();
        fs::rename(self.dir.join(NEW_NAME), &path)
            .and_then(|()| self.sync())
            .map_err(|error| OpenError::io(&path, error))
    }

    /// Notes that there is a database, if that is not noted yet.
    pub(crate) fn mark(&self) -> Result<(), OpenError> {
        let path = self.marker();
        let mark = || -> io::Result<()> {
            if path.try_exists()? {
                return Ok(());
            }
            let mut file = private().create(true).truncate(true).open(&path)?;
            writeln!(
                file,
                "This node has made {DATABASE_NAME}. Keep this file: if the database is ever lost, \
                 it is what tells a loss from a first run."
            )?;
            file.sync_all()?;
            self.sync()
        };
        mark().map_err(|error| OpenError::io(&path, error))
    }

    /// Keeps a copy of the database, which nobody has open, as that of schema `schema`: whole or not at
    /// all, and only where there is room for the copy and for as much again.
    pub(crate) fn keep_copy(&self, schema: u32) -> Result<(), OpenError> {
        let (from, to) = (self.database(), self.copy(schema));
        let failed = |error| OpenError::io(&to, error);
        let unfinished = to.with_added_extension("new");
        // One that was cut off takes the room that this one needs.
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let needed = 2 * self.disk_len().map_err(failed)?;
        let space = rustix::fs::statvfs(&self.dir).map_err(|error| failed(error.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if free < needed {
            return Err(OpenError::NoRoom { path: from, needed, free });
        }
        copy(&from, &unfinished)
            .and_then(|()| fs::rename(&unfinished, &to))
            .and_then(|()| self.sync())
            .map_err(failed)
    }

    /// Removes what [`Files::keep_copy`] has kept of older schemas than `schema`.
    pub(crate) fn drop_copies(&self, schema: u32) -> io::Result<()> {
        for older in 1..schema {
            match fs::remove_file(self.copy(older)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn copy(&self, schema: u32) -> PathBuf {
        self.dir.join(format!("{DATABASE_NAME}.v{schema}"))
    }

    /// Bytes that the database takes on the disk.
    pub(crate) fn disk_len(&self) -> io::Result<u64> {
        // POSIX leaves the unit open; on Linux it is 512, whatever the file system's blocks.
        Ok(fs::metadata(self.database())?.blocks() * 512)
    }

    /// Whether the disk takes writes again.
    pub(crate) fn probe(&self) -> Result<(), OpenError> {
        let path = self.dir.join(PROBE_NAME);
        let probe = || -> io::Result<()> {
            let mut file = private().create(true).truncate(true).open(&path)?;
            file.write_all(&vec![0x5a; PROBE_LEN])?;
            file.sync_all()
        };
        let probed = probe();
        // On a disk that fails this may fail too; the next probe writes over it.
        let _ = fs::remove_file(&path);
        probed.map_err(|error| OpenError::io(&path, error))
    }

    /// Makes new names durable.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

/// Copies a file durably. What is all zeros is left out: the database has room that was never written.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let len = source.metadata()?.len();
    let mut target = private().create(true).truncate(true).open(to)?;
    target.set_len(len)?;
    let mut buffer = vec![0; COPY_STEP];
    let mut done = 0;
    while done < len {
        let step = COPY_STEP.min(usize::try_from(len - done).unwrap_or(COPY_STEP));
        let piece = &mut buffer[..step];
        source.read_exact(piece)?;
        if piece.iter().any(|byte| *byte != 0) {
            target.seek(io::SeekFrom::Start(done))?;
            target.write_all(piece)?;
        }
        let percent = |done: u64| done * 100 / len;
        let before = percent(done);
        done += step as u64;
        if percent(done) / 10 > before / 10 {
            tracing::info!(percent = percent(done), "store migration: the copy to go back to");
        }
    }
    target.sync_all()
}

/// Read and write, and nobody else's to read: a secret network's data.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}
