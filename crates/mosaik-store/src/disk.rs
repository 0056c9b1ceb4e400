//! A disk in memory, for tests and simulators: it outlives the stores on it, and breaks when told to.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use redb::{StorageBackend, backends::InMemoryBackend};

/// A disk in memory. Copies are the same disk; [`crate::Store::on_backend`] takes it.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    bytes: InMemoryBackend,
    fault: Mutex<Option<io::ErrorKind>>,
}

impl MemoryDisk {
    /// From now on every write and sync fails so. Reads go on.
    pub fn fail(&self, kind: io::ErrorKind) {
        *self.fault() = Some(kind);
    }

    /// From now on writes work again.
    pub fn mend(&self) {
        *self.fault() = None;
    }

    fn fault(&self) -> std::sync::MutexGuard<'_, Option<io::ErrorKind>> {
        self.0.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writable(&self) -> io::Result<&InMemoryBackend> {
        match *self.fault() {
            Some(kind) => Err(kind.into()),
            None => Ok(&self.0.bytes),
        }
    }
}

impl StorageBackend for MemoryDisk {
    fn len(&self) -> io::Result<u64> {
        self.0.bytes.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.bytes.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.writable()?.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.writable()?.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.writable()?.write(offset, data)
    }
}
