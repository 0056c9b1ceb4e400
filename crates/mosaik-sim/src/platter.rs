//! A disk that keeps only what was synced: when the power goes, each write since then may be there,
//! lost, or torn between two sectors; and one that fails for a while.
//!
//! Invariants:
//! - What [`StorageBackend::sync_data`] returned `Ok` for is there after any power cut.
//! - Writes since then are lost or kept one by one, so also in another order than they were made.
//! - When its budget of operations is used up every further one fails, until it is switched on again.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use redb::StorageBackend;

/// What a disk writes as a whole, in bytes.
const SECTOR: usize = 512;

/// Copies are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Platter(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// What reads see.
    now: Vec<u8>,
    /// What a power cut leaves for certain.
    synced: Vec<u8>,
    unsynced: Vec<Change>,
    /// Operations until the disk fails, and how.
    fuse: Option<(u64, io::ErrorKind)>,
}

#[derive(Debug, Clone)]
enum Change {
    Bytes(usize, Vec<u8>),
    Len(usize),
}

impl Platter {
    /// A disk that holds these bytes.
    pub(crate) fn of(image: Vec<u8>) -> Self {
        let inner = Inner { now: image.clone(), synced: image, ..Inner::default() };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// After so many more operations all fail so. Reads go on.
    pub(crate) fn fail_after(&self, operations: u64, kind: io::ErrorKind) {
        self.inner().fuse = Some((operations, kind));
    }

    /// It works again.
    pub(crate) fn mend(&self) {
        self.inner().fuse = None;
    }

    /// The power goes and comes again: what was not synced is drawn.
    pub(crate) fn cut_power(&self, rng: &mut ChaCha8Rng) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let mut image = std::mem::take(&mut inner.synced);
        let kept = [0, 50, 90, 100][rng.random_range(0..4)];
        for change in std::mem::take(&mut inner.unsynced) {
            let luck = rng.random_range(0..100);
            match change {
                _ if luck < kept => change.apply(&mut image),
                // Torn: some of its sectors are there.
                Change::Bytes(at, bytes) if luck % 2 == 0 => {
                    for (i, sector) in bytes.chunks(SECTOR).enumerate() {
                        if rng.random_bool(0.5) {
                            Change::Bytes(at + i * SECTOR, sector.to_vec()).apply(&mut image);
                        }
                    }
                }
                Change::Bytes(..) | Change::Len(_) => {}
            }
        }
        inner.fuse = None;
        inner.now.clone_from(&image);
        inner.synced = image;
    }

    /// What a power cut now would leave at least.
    pub(crate) fn image(&self) -> Vec<u8> {
        self.inner().synced.clone()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk for one more operation that changes it.
    fn working(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let mut inner = self.inner();
        if let Some((left, kind)) = &mut inner.fuse {
            if *left == 0 {
                return Err((*kind).into());
            }
            *left -= 1;
        }
        Ok(inner)
    }
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Len(len) => image.resize(*len, 0),
            Self::Bytes(at, bytes) => {
                let end = at + bytes.len();
                if image.len() < end {
                    image.resize(end, 0);
                }
                image[*at..end].copy_from_slice(bytes);
            }
        }
    }
}

impl StorageBackend for Platter {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inner().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.inner();
        let at = offset as usize;
        let bytes = inner.now.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Len(len as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.working()?;
        let inner = &mut *inner;
        inner.unsynced.drain(..).for_each(|change| change.apply(&mut inner.synced));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Bytes(offset as usize, data.to_vec()))
    }
}

impl Platter {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut inner = self.working()?;
        change.apply(&mut inner.now);
        inner.unsynced.push(change);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn what_was_synced_is_there_after_every_power_cut() {
        for seed in 0..50 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let disk = Platter::default();
            disk.write(0, &[1; 2000]).expect("a working disk");
            disk.sync_data().expect("a working disk");
            disk.write(2000, &[2; 2000]).expect("a working disk");
            disk.cut_power(&mut rng);
            assert_eq!(disk.image()[..2000], [1; 2000]);
        }
    }

    #[test]
    fn a_write_that_was_not_synced_may_be_there_lost_or_torn() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let disk = Platter::of(vec![0; 1024]);
            disk.write(0, &[1; 1024]).expect("a working disk");
            disk.cut_power(&mut rng);
            let image = disk.image();
            seen.insert((image[0], image[1023]));
        }
        assert_eq!(seen.len(), 4, "{seen:?}");
    }

    #[test]
    fn a_disk_fails_at_its_operation_and_works_again_once_mended() {
        let disk = Platter::default();
        disk.fail_after(1, io::ErrorKind::StorageFull);
        disk.write(0, &[1]).expect("one operation is left");
        let error = disk.write(0, &[2]).expect_err("a full disk");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        disk.mend();
        disk.sync_data().expect("a working disk");
        assert_eq!(disk.image(), [1]);
    }
}
