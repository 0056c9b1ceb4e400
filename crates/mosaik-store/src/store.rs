//! The store: opened once, written by one owner, read by anyone.

use std::{
    collections::BTreeSet,
    fmt,
    fs::File,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, TryLockError},
};

use mosaik_core::{event::Hasher, feed::Branch, id::Fingerprint};
use redb::{
    Builder, CompactionError, Database, DatabaseError, Durability, ReadableDatabase,
    StorageBackend, TableDefinition, TableError,
};

use crate::{
    commit::{Batch, End},
    fault::{CompactError, OpenError, StoreError},
    files::{Files, Found},
    migrate::{SCHEMA, migrate, set_schema},
    read::{self, Reader},
    tables::{Bytes, META_NETWORK, META_SCHEMA, ReadTables, WriteTables},
};

/// Bytes of the file that redb keeps in memory.
///
/// 16 MiB: the inner pages of a store of some 10^6 events and the blocks in use. An idle node is to
/// stay under 25 MB, and the kernel caches the file anyway.
pub const CACHE_LEN: usize = 16 * 1024 * 1024;

/// Arrivals from the end whose branches are checked when a store is opened. What was written last is
/// what a bad disk loses; all else is checked when read. 256 take some milliseconds.
const RECENT_ARRIVALS: u64 = 256;

/// The one that writes.
pub struct Store {
    readers: Readers,
    origin: Origin,
    fingerprint: Fingerprint,
    poisoned: bool,
    damage: Vec<StoreError>,
}

/// Gives snapshots. Copies may be handed to whoever reads.
#[derive(Clone)]
pub struct Readers {
    /// None between the end of one database and the begin of the next.
    database: Arc<RwLock<Option<Database>>>,
    hasher: Arc<Hasher>,
}

/// Where databases come from.
enum Origin {
    Files(Files),
    Backend(Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>),
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({}, poisoned: {})", self.origin.path().display(), self.poisoned)
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Readers(..)")
    }
}

impl Store {
    /// Opens the store in `dir`, which must exist, and makes it at the first run.
    ///
    /// A store that was not closed is mended first, which may take a second each 200 MB.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says what a person can do. Nothing was changed then, except for a lock file.
    pub fn open(dir: &Path, fingerprint: &Fingerprint) -> Result<Self, OpenError> {
        Self::of(Origin::Files(Files::lock(dir)?), fingerprint)
    }

    /// Opens a store on redb's own kind of disk: of a test that makes it fail, or of a simulator.
    ///
    /// Copies of `backend` must be the same disk: one is taken each time that the store is reopened.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn on_backend<B: StorageBackend + Clone>(
        backend: B,
        fingerprint: &Fingerprint,
    ) -> Result<Self, OpenError> {
        let open = move || builder().create_with_backend(backend.clone());
        Self::of(Origin::Backend(Box::new(open)), fingerprint)
    }

    fn of(origin: Origin, fingerprint: &Fingerprint) -> Result<Self, OpenError> {
        let hasher = Arc::new(Hasher::new(fingerprint));
        let (database, damage) = origin.open(fingerprint, &hasher)?;
        Ok(Self {
            readers: Readers { database: Arc::new(RwLock::new(Some(database))), hasher },
            origin,
            fingerprint: *fingerprint,
            poisoned: false,
            damage,
        })
    }

    /// Runs `work` and commits what it wrote, in one durable transaction: all or, where it or the
    /// commit fails, nothing. If it wrote nothing, the disk isn't touched.
    ///
    /// # Errors
    ///
    /// What `work` returned, or [`StoreError`]. After one of the disk [`Store::is_poisoned`] holds;
    /// if it was the last sync that failed, the batch may be found whole after [`Store::reopen`].
    pub fn write<T, E: From<StoreError>>(
        &mut self,
        work: impl FnOnce(&mut Batch<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        if self.poisoned {
            return Err(StoreError::Poisoned.into());
        }
        let open = self.readers.database.read();
        let open = open.unwrap_or_else(PoisonError::into_inner);
        let database = open.as_ref().ok_or(StoreError::Closed)?;
        let written = commit(database, &self.readers.hasher, work);
        let (outcome, end) = match written {
            Ok((outcome, end)) => (outcome, end),
            Err(error) => (Err(error.into()), End::Failed),
        };
        if matches!(end, End::Failed) {
            self.poisoned = true;
        }
        outcome
    }

    /// Whether a write has failed, so that there are reads only until [`Store::reopen`].
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Closes the database, opens it again and looks at what was written last: the way back after a
    /// write error. Snapshots taken before end with [`StoreError::Closed`].
    ///
    /// Whatever was built from the store before must be built anew.
    ///
    /// # Errors
    ///
    /// [`OpenError`] while the disk still fails; try again later. While it takes no writes at all,
    /// the database isn't closed, and reads go on.
    pub fn reopen(&mut self) -> Result<(), OpenError> {
        self.poisoned = true;
        if let Origin::Files(files) = &self.origin {
            files.probe()?;
        }
        let open = self.readers.database.write();
        let mut open = open.unwrap_or_else(PoisonError::into_inner);
        drop(open.take());
        let (database, damage) = self.origin.open(&self.fingerprint, &self.readers.hasher)?;
        *open = Some(database);
        self.damage = damage;
        self.poisoned = false;
        Ok(())
    }

    /// Bytes that the database takes on its disk; none where it lies on no file system.
    ///
    /// The file's length says less: it grows by doubling, and what was never written takes no room.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if the system doesn't say.
    pub fn disk_len(&self) -> Result<Option<u64>, StoreError> {
        match &self.origin {
            Origin::Files(files) => files.disk_len().map(Some).map_err(StoreError::Io),
            Origin::Backend(_) => Ok(None),
        }
    }

    /// Moves what the file holds together and gives the rest back to the disk. Reading and writing wait
    /// meanwhile: about two seconds a gigabyte on a fast disk.
    ///
    /// # Errors
    ///
    /// [`CompactError::Busy`] while anybody holds a snapshot; else as [`Store::write`].
    pub fn compact(&mut self) -> Result<(), CompactError> {
        if self.poisoned {
            return Err(StoreError::Poisoned.into());
        }
        let open = self.readers.database.write();
        let mut open = open.unwrap_or_else(PoisonError::into_inner);
        let compacted = open.as_mut().ok_or(StoreError::Closed)?.compact();
        match compacted {
            Ok(_) => Ok(()),
            Err(CompactionError::Storage(error)) => {
                self.poisoned = true;
                Err(StoreError::from(error).into())
            }
            Err(_) => Err(CompactError::Busy),
        }
    }

    /// A node that has run on this store is about to stop, and all is well: what was kept of the store
    /// before it was migrated is not needed any more.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] if it can't be removed; it then only takes room.
    pub fn has_served(&self) -> Result<(), StoreError> {
        match &self.origin {
            Origin::Files(files) => files.drop_copies(SCHEMA).map_err(StoreError::Io),
            Origin::Backend(_) => Ok(()),
        }
    }

    /// What was found damaged among the newest events when the store was opened. They read as
    /// [`StoreError::Corrupt`]; the feeds go on all the same.
    pub fn damage(&self) -> &[StoreError] {
        &self.damage
    }

    /// A snapshot of all that is committed now.
    ///
    /// # Errors
    ///
    /// As [`Readers::reader`].
    pub fn reader(&self) -> Result<Reader, StoreError> {
        self.readers.reader()
    }

    /// What gives snapshots to others, also after a [`Store::reopen`].
    pub fn readers(&self) -> Readers {
        self.readers.clone()
    }
}

impl Drop for Store {
    /// Closes the database before the lock is given up, whoever still has [`Readers`].
    fn drop(&mut self) {
        let open = self.readers.database.write();
        drop(open.unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Readers {
    /// A snapshot of all that is committed now.
    ///
    /// # Errors
    ///
    /// [`StoreError::Closed`] where the store was dropped, or not yet opened again.
    pub fn reader(&self) -> Result<Reader, StoreError> {
        let open = self.database.read();
        self.begin(&open.unwrap_or_else(PoisonError::into_inner))
    }

    /// The same, without waiting: none while the store is compacted or opened anew.
    ///
    /// # Errors
    ///
    /// As [`Readers::reader`].
    pub fn reader_now(&self) -> Result<Option<Reader>, StoreError> {
        match self.database.try_read() {
            Ok(open) => self.begin(&open).map(Some),
            Err(TryLockError::Poisoned(open)) => self.begin(&open.into_inner()).map(Some),
            Err(TryLockError::WouldBlock) => Ok(None),
        }
    }

    fn begin(&self, open: &Option<Database>) -> Result<Reader, StoreError> {
        let transaction = open.as_ref().ok_or(StoreError::Closed)?.begin_read()?;
        Ok(Reader::new(ReadTables::open(&transaction)?, self.hasher.clone()))
    }
}

/// Runs `work` in a transaction and ends it. The error is the database's own: it must be reopened.
fn commit<T, E: From<StoreError>>(
    database: &Database,
    hasher: &Hasher,
    work: impl FnOnce(&mut Batch<'_>) -> Result<T, E>,
) -> Result<(Result<T, E>, End), StoreError> {
    let mut transaction = database.begin_write()?;
    transaction
        .set_durability(Durability::Immediate)
        .map_err(|error| StoreError::Database(Box::new(error.into())))?;
    let mut batch = Batch::open(&transaction, hasher)?;
    let outcome = work(&mut batch);
    let end = batch.close()?;
    match (&outcome, end) {
        (Ok(_), End::Changed) => {
            transaction.commit()?;
            Ok((outcome, End::Changed))
        }
        (Ok(_), End::Failed) => {
            // Whoever wrote has overlooked an error.
            transaction.abort()?;
            Err(StoreError::Poisoned)
        }
        (_, end) => {
            transaction.abort()?;
            Ok((outcome, end))
        }
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_LEN);
    builder.set_repair_callback(|repair| {
        tracing::info!(percent = (repair.progress() * 100.0) as u32, "store repair");
    });
    builder
}

impl Origin {
    fn path(&self) -> PathBuf {
        match self {
            Self::Files(files) => files.database(),
            Self::Backend(_) => PathBuf::from("(backend)"),
        }
    }

    /// Opens or makes the database, and checks whose it is and what was written last.
    fn open(
        &self,
        fingerprint: &Fingerprint,
        hasher: &Arc<Hasher>,
    ) -> Result<(Database, Vec<StoreError>), OpenError> {
        let open = || match self {
            Self::Files(files) => match files.look()? {
                Found::Nothing => {
                    let database = self.make(files.begin()?, fingerprint)?;
                    files.finish()?;
                    Ok(database)
                }
                Found::Database => {
                    self.look(files.database(), fingerprint)?;
                    builder()
                        .open(files.database())
                        .map_err(|error| OpenError::database(files.database(), error))
                }
            },
            Self::Backend(open) => {
                let database = open().map_err(|error| OpenError::database(self.path(), error))?;
                self.make_if_new(database, fingerprint)
            }
        };
        let opened = panic::catch_unwind(AssertUnwindSafe(|| {
            let mut database = open()?;
            let schema = self.check(&database, fingerprint)?;
            if let (Self::Files(files), 1..SCHEMA) = (self, schema) {
                // A copy of a file that is closed, and so whole.
                drop(database);
                files.keep_copy(schema)?;
                database = open()?;
            }
            migrate(&database, schema).map_err(|error| OpenError::store(self.path(), error))?;
            let damage = self.verify(&database, hasher)?;
            Ok((database, damage))
        }));
        // redb asserts what it reads from the file: in a damaged one that may not hold.
        let opened = opened.unwrap_or_else(|_| {
            Err(OpenError::Damaged {
                path: self.path(),
                what: "the database gave up on what it read".to_owned(),
            })
        })?;
        if let Self::Files(files) = self {
            files.mark()?;
        }
        for damage in &opened.1 {
            tracing::warn!(error = %damage, "stored events are damaged");
        }
        Ok(opened)
    }

    fn make(&self, file: File, fingerprint: &Fingerprint) -> Result<Database, OpenError> {
        let database =
            builder().create_file(file).map_err(|error| OpenError::database(self.path(), error))?;
        self.make_if_new(database, fingerprint)
    }

    /// Makes all tables in an empty database.
    fn make_if_new(
        &self,
        database: Database,
        fingerprint: &Fingerprint,
    ) -> Result<Database, OpenError> {
        let make = || -> Result<(), StoreError> {
            if database.begin_read()?.list_tables()?.next().is_some() {
                return Ok(());
            }
            let transaction = database.begin_write()?;
            let mut tables = WriteTables::open(&transaction)?;
            let network = fingerprint.as_bytes().as_slice();
            tables.meta.insert(META_NETWORK, network)?;
            drop(tables);
            set_schema(&transaction, SCHEMA)?;
            transaction.commit()?;
            Ok(())
        };
        make().map_err(|error| OpenError::store(self.path(), error))?;
        Ok(database)
    }

    /// Refuses a store that is another's before redb writes to it, which it does to open one.
    fn look(&self, path: PathBuf, fingerprint: &Fingerprint) -> Result<(), OpenError> {
        match builder().open_read_only(path) {
            Ok(database) => self.check(&database, fingerprint).map(|_| ()),
            // It was not closed, or is damaged: the one that may mend it says so.
            Err(_) => Ok(()),
        }
    }

    /// Checks network and schema, and gives the latter.
    fn check(
        &self,
        database: &impl ReadableDatabase,
        fingerprint: &Fingerprint,
    ) -> Result<u32, OpenError> {
        let path = self.path();
        let failed = |error| OpenError::store(&path, error);
        let transaction = database.begin_read().map_err(|error| failed(error.into()))?;
        let meta = TableDefinition::<Bytes, Bytes>::new("meta");
        let meta = match transaction.open_table(meta) {
            Ok(meta) => meta,
            Err(TableError::Storage(error)) => return Err(failed(error.into())),
            // redb's, but another program's.
            Err(_) => return Err(OpenError::Foreign { path }),
        };
        let value = |name: &[u8]| -> Result<Option<Vec<u8>>, OpenError> {
            let row = meta.get(name).map_err(|error| failed(error.into()))?;
            Ok(row.map(|bytes| bytes.value().to_vec()))
        };
        let (schema, network) = (value(META_SCHEMA)?, value(META_NETWORK)?);
        drop((meta, transaction));
        let schema = schema.and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
        let network = network.and_then(|bytes| bytes.try_into().ok()).map(Fingerprint);
        let (Some(found_schema), Some(found)) = (schema, network) else {
            return Err(OpenError::Foreign { path });
        };
        if found != *fingerprint {
            return Err(OpenError::OtherNetwork { path, found, expected: *fingerprint });
        }
        if found_schema > SCHEMA {
            return Err(OpenError::Newer { path, found: found_schema, known: SCHEMA });
        }
        Ok(found_schema)
    }

    /// Looks at all branches, and at the events of those that grew last.
    fn verify(
        &self,
        database: &Database,
        hasher: &Arc<Hasher>,
    ) -> Result<Vec<StoreError>, OpenError> {
        let verify = || -> Result<Vec<StoreError>, StoreError> {
            let tables = ReadTables::open(&database.begin_read()?)?;
            verify(&Reader::new(tables, hasher.clone()))
        };
        verify().map_err(|error| OpenError::store(self.path(), error))
    }
}

fn verify(reader: &Reader) -> Result<Vec<StoreError>, StoreError> {
    let branches = reader.branches()?;
    let find = |id| {
        let at = branches.binary_search_by_key(&id, |branch: &Branch| branch.id);
        at.ok().map(|at| &branches[at])
    };
    for branch in &branches {
        let rooted = branch.parent.is_none_or(|(id, seq)| {
            find(id).is_some_and(|parent| {
                id < branch.id && parent.author == branch.author && seq <= parent.tip.seq
            })
        });
        if !rooted {
            return Err(StoreError::corrupt("branches", branch.id.0, "no such parent"));
        }
    }
    let last = reader.last_arrival()?;
    let recent = reader.arrivals(last.saturating_sub(RECENT_ARRIVALS), RECENT_ARRIVALS as usize)?;
    let recent: BTreeSet<_> = recent.into_iter().map(|arrival| arrival.branch).collect();
    let mut damage = Vec::new();
    for branch in recent.into_iter().filter_map(find) {
        let (tables, hasher) = (reader.tables(), reader.hasher());
        match read::blocks(tables, hasher, branch, branch.tip.seq, |_| false) {
            Ok(()) => {}
            Err(error) if error.is_fatal() => return Err(error),
            Err(error) => damage.push(error),
        }
    }
    Ok(damage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_being_compacted_is_not_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path(), &Fingerprint([1; 32])).expect("a new store");
        let readers = store.readers();
        assert!(readers.reader_now().is_ok_and(|reader| reader.is_some()));
        // What `compact` holds while it works.
        let compacting = readers.database.write().expect("nobody panicked");
        assert!(readers.reader_now().is_ok_and(|reader| reader.is_none()));
        drop(compacting);
        assert!(readers.reader_now().is_ok_and(|reader| reader.is_some()));
    }
}
