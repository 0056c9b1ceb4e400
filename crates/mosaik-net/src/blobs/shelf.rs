//! Where the files lie: a directory of its own beside the store of events.
//!
//! Invariants:
//! - The directory is made when the first file comes. Without one nothing is opened: a node whose
//!   network has no attachments pays nothing for them.
//! - Each file, whole or begun, has the tag `keep/BLOB` as long as it is wanted: collection takes what
//!   has none. `pin/BLOB` and `dropped/BLOB` are marks that outlive a restart.
//! - [`Shelf::add`] returns when the file is on disk and would be found after a power cut.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_lite::{Stream, StreamExt};
use iroh_blobs::{
    Hash, HashAndFormat,
    api::{
        TempTag,
        blobs::{AddProgressItem, BlobReader, BlobStatus},
    },
    store::{
        GcConfig, ProtectOutcome,
        fs::{FsStore, options::Options},
    },
};
use mosaik_core::id::BlobId;
use tokio::{
    io::AsyncReadExt,
    sync::{Notify, OnceCell, watch},
    time::timeout,
};

/// Between two looks whether something is to be collected; no look costs anything without a reason.
const SWEEP_PAUSE: Duration = Duration::from_millis(50);
/// How long a removal is waited for.
const REMOVE_MAX: Duration = Duration::from_secs(20);
/// Bytes of one piece of a file that is read.
const PIECE_LEN: usize = 64 * 1024;

/// Where files lie while they are added.
const TEMP: &str = "temp";
const KEEP: &str = "keep/";
const PIN: &str = "pin/";
const DROPPED: &str = "dropped/";
const OVER_RADIO: &str = "over-radio/";

/// Why something was not done with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShelfError {
    /// The disk, or what stands on it.
    #[error("the files of attachments can't be read or written")]
    Disk(#[from] io::Error),
    /// Who sent the file broke off.
    #[error("the file broke off before its end")]
    Source(#[source] io::Error),
    /// There is no room for it.
    #[error("there is room for {0} more bytes of attachments, and the file is longer")]
    NoRoom(u64),
    /// What lies there isn't what its name says.
    #[error("the file is damaged: drop it, and it is fetched again")]
    Damaged,
}

/// The files of one node.
pub struct Shelf {
    dir: PathBuf,
    store: OnceCell<FsStore>,
    sweeps: Arc<Sweeps>,
    /// Files that are being added.
    adding: Arc<AtomicUsize>,
}

/// When the collection is to run, and how often it has.
struct Sweeps {
    due: Notify,
    begun: watch::Sender<u64>,
}

/// A file on the shelf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// All of it, so many bytes.
    Whole(u64),
    /// A part of it.
    Begun,
}

/// What was on the shelf when it was opened.
#[derive(Debug, Default)]
pub struct Inventory {
    /// The files.
    pub held: Vec<(BlobId, Held)>,
    /// Those to be kept whatever happens.
    pub pinned: Vec<BlobId>,
    /// Those that a person let go.
    pub dropped: Vec<BlobId>,
    /// Those that a person asked for over radio.
    pub over_radio: Vec<BlobId>,
}

/// A file that was added, and is not collected while this lives.
#[derive(Debug)]
pub struct Staged {
    /// Its BLAKE3.
    pub blob: BlobId,
    /// Its bytes.
    pub size: u64,
    _tag: TempTag,
}

/// A file that is being added. What an addition that was broken off has left is removed when
/// none is under way: iroh-blobs leaves it.
struct Adding {
    count: Arc<AtomicUsize>,
    temp: PathBuf,
}

impl Adding {
    fn begin(count: &Arc<AtomicUsize>, temp: PathBuf) -> Self {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            clear(&temp);
        }
        Self { count: count.clone(), temp }
    }
}

impl Drop for Adding {
    fn drop(&mut self) {
        if self.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            clear(&self.temp);
        }
    }
}

fn clear(temp: &Path) {
    for file in fs::read_dir(temp).into_iter().flatten().flatten() {
        // What can't be removed now is removed the next time.
        let _ = fs::remove_file(file.path());
    }
}

impl Shelf {
    /// A shelf in `dir`, of which only the parent need exist.
    pub fn new(dir: PathBuf) -> Self {
        let sweeps = Sweeps { due: Notify::new(), begun: watch::Sender::new(0) };
        let adding = Arc::default();
        Self { dir, store: OnceCell::new(), sweeps: Arc::new(sweeps), adding }
    }

    /// Whether there ever was a file.
    pub fn is_begun(&self) -> bool {
        self.store.initialized() || self.dir.exists()
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) async fn store(&self) -> Result<&FsStore, ShelfError> {
        self.store.get_or_try_init(|| self.open()).await
    }

    async fn open(&self) -> Result<FsStore, ShelfError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        // What was being added when the program was killed: it has no name yet.
        let _ = fs::remove_dir_all(self.dir.join(TEMP));
        let mut options = Options::new(&self.dir);
        let sweeps = self.sweeps.clone();
        options.gc = Some(GcConfig {
            interval: SWEEP_PAUSE,
            // Waits here until something is to be collected; all that has a tag is safe anyway.
            add_protected: Some(Arc::new(move |_| {
                let sweeps = sweeps.clone();
                Box::pin(async move {
                    sweeps.begun.send_modify(|begun| *begun += 1);
                    sweeps.due.notified().await;
                    ProtectOutcome::Continue
                })
            })),
        });
        let store = FsStore::load_with_opts(self.dir.join("blobs.db"), options).await;
        Ok(store.map_err(|error| io::Error::other(format!("{error:#}")))?)
    }

    /// What lies on the shelf, and the marks; nothing where there never was a file.
    ///
    /// # Errors
    ///
    /// [`ShelfError`], here and below.
    pub async fn inventory(&self) -> Result<Inventory, ShelfError> {
        let mut all = Inventory::default();
        if !self.is_begun() {
            return Ok(all);
        }
        let store = self.store().await?;
        for hash in store.blobs().list().hashes().await.map_err(other)? {
            let held = match store.blobs().status(hash).await.map_err(other)? {
                BlobStatus::Complete { size } => Held::Whole(size),
                BlobStatus::Partial { .. } => Held::Begun,
                BlobStatus::NotFound => continue,
            };
            all.held.push((of_hash(&hash), held));
        }
        let marks = [
            (PIN, &mut all.pinned),
            (DROPPED, &mut all.dropped),
            (OVER_RADIO, &mut all.over_radio),
        ];
        for (prefix, list) in marks {
            let mut tags = store.tags().list_prefix(prefix).await.map_err(other)?;
            while let Some(tag) = tags.next().await {
                let tag = tag.map_err(other)?;
                let name =
                    tag.name.0.get(prefix.len()..).and_then(|hex| std::str::from_utf8(hex).ok());
                list.extend(name.and_then(|hex| hex.parse::<BlobId>().ok()));
            }
        }
        Ok(all)
    }

    /// Takes in a file of at most `len_max` bytes, and hashes it while it comes. It is durable when
    /// this returns, and kept until [`Shelf::remove`].
    pub async fn add(
        &self,
        pieces: impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static,
        len_max: u64,
    ) -> Result<Staged, ShelfError> {
        let store = self.store().await?;
        let _adding = Adding::begin(&self.adding, self.dir.join(TEMP));
        let too_long = Arc::new(AtomicBool::new(false));
        let refuted = too_long.clone();
        let mut len = 0;
        let counted = pieces.map(move |piece| {
            let piece = piece?;
            len += piece.len() as u64;
            if len > len_max {
                refuted.store(true, Ordering::Relaxed);
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(piece)
        });
        let mut progress = store.blobs().add_stream(counted).await.stream().await;
        let mut size = 0;
        while let Some(item) = progress.next().await {
            match item {
                AddProgressItem::Size(bytes) => size = bytes,
                AddProgressItem::Done(tag) => {
                    let hash = tag.hash();
                    self.keep(of_hash(&hash)).await?;
                    self.make_durable(&hash).await?;
                    return Ok(Staged { blob: of_hash(&hash), size, _tag: tag });
                }
                AddProgressItem::Error(_) if too_long.load(Ordering::Relaxed) => {
                    return Err(ShelfError::NoRoom(len_max));
                }
                AddProgressItem::Error(error) => return Err(ShelfError::Source(error)),
                _ => {}
            }
        }
        Err(ShelfError::Source(io::ErrorKind::UnexpectedEof.into()))
    }

    /// Syncs the files of a blob, and the database that names it.
    pub(super) async fn make_durable(&self, hash: &Hash) -> Result<(), ShelfError> {
        let paths = Options::new(&self.dir).path;
        let files = [paths.data_path(hash), paths.outboard_path(hash)];
        let dir = paths.data_path;
        let synced = tokio::task::spawn_blocking(move || {
            for file in files {
                match File::open(&file) {
                    Ok(file) => file.sync_all()?,
                    // Small ones lie in the database.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            File::open(dir)?.sync_all()
        });
        synced.await.map_err(other)??;
        self.store().await?.sync_db().await.map_err(other)?;
        Ok(())
    }

    /// Protects a blob from collection, whole, begun or not here yet.
    pub(super) async fn keep(&self, blob: BlobId) -> Result<(), ShelfError> {
        self.tag(KEEP, blob, HashAndFormat::raw(to_hash(blob))).await
    }

    /// Marks a blob as pinned, or lifts that; durably.
    pub async fn pin(&self, blob: BlobId, on: bool) -> Result<(), ShelfError> {
        self.mark(PIN, blob, on).await
    }

    /// Marks a blob as let go by a person, or lifts that; durably.
    pub async fn mark_dropped(&self, blob: BlobId, on: bool) -> Result<(), ShelfError> {
        self.mark(DROPPED, blob, on).await
    }

    /// Marks a blob as asked for over radio, or lifts that; durably.
    pub async fn mark_over_radio(&self, blob: BlobId, on: bool) -> Result<(), ShelfError> {
        self.mark(OVER_RADIO, blob, on).await
    }

    /// A mark keeps nothing by itself: it points to the empty file.
    async fn mark(&self, prefix: &str, blob: BlobId, on: bool) -> Result<(), ShelfError> {
        if on {
            self.tag(prefix, blob, HashAndFormat::raw(Hash::EMPTY)).await?;
        } else if self.is_begun() {
            self.untag(prefix, blob).await?;
        }
        if self.is_begun() {
            self.store().await?.sync_db().await.map_err(other)?;
        }
        Ok(())
    }

    async fn tag(&self, prefix: &str, blob: BlobId, of: HashAndFormat) -> Result<(), ShelfError> {
        let tags = self.store().await?.tags();
        Ok(tags.set(format!("{prefix}{blob}"), of).await.map_err(other)?)
    }

    async fn untag(&self, prefix: &str, blob: BlobId) -> Result<(), ShelfError> {
        let tags = self.store().await?.tags();
        tags.delete(format!("{prefix}{blob}")).await.map_err(other)?;
        Ok(())
    }

    /// Takes files away, and gives their bytes back to the disk. One that is being read or added at
    /// that moment may stay; then this is false.
    pub async fn remove(&self, blobs: &[BlobId]) -> Result<bool, ShelfError> {
        if !self.is_begun() {
            return Ok(true);
        }
        for blob in blobs {
            self.untag(KEEP, *blob).await?;
        }
        timeout(REMOVE_MAX, self.swept(blobs)).await.unwrap_or(Ok(false))
    }

    async fn swept(&self, blobs: &[BlobId]) -> Result<bool, ShelfError> {
        let mut begun = self.sweeps.begun.subscribe();
        // The first may have begun before the tags were gone, the second not.
        for _ in 0..2 {
            begun.borrow_and_update();
            self.sweeps.due.notify_one();
            if begun.changed().await.is_err() {
                break;
            }
        }
        for blob in blobs {
            if self.local(*blob).await? > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Bytes of a blob that are here, verified.
    pub async fn local(&self, blob: BlobId) -> Result<u64, ShelfError> {
        if !self.is_begun() {
            return Ok(0);
        }
        let remote = self.store().await?.remote();
        let local = remote.local(to_hash(blob)).await;
        let local = local.map_err(|error| io::Error::other(format!("{error:#}")))?;
        Ok(local.local_bytes())
    }

    /// Begins to read a file that is here, whole.
    pub async fn read(&self, blob: BlobId) -> Result<Reading, ShelfError> {
        let reader = self.store().await?.blobs().reader(to_hash(blob));
        Ok(Reading { reader: Box::pin(reader), hasher: blake3::Hasher::new(), blob })
    }

    /// Closes the files. Nothing may be asked afterwards.
    pub async fn close(&self) {
        if let Some(store) = self.store.get() {
            // It has ended already: the same.
            let _ = store.shutdown().await;
        }
    }
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shelf({})", self.dir.display())
    }
}

/// A file, piece by piece.
pub struct Reading {
    reader: std::pin::Pin<Box<BlobReader>>,
    hasher: blake3::Hasher,
    blob: BlobId,
}

impl Reading {
    /// The next piece; none at the end.
    ///
    /// # Errors
    ///
    /// [`ShelfError::Damaged`] in place of the end where what was read isn't what its name says.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ShelfError> {
        let mut piece = BytesMut::with_capacity(PIECE_LEN);
        if self.reader.read_buf(&mut piece).await? > 0 {
            self.hasher.update(&piece);
            return Ok(Some(piece.freeze()));
        }
        if self.hasher.finalize() == blake3::Hash::from_bytes(self.blob.0) {
            Ok(None)
        } else {
            Err(ShelfError::Damaged)
        }
    }
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reading({})", self.blob.short())
    }
}

pub(super) fn to_hash(blob: BlobId) -> Hash {
    Hash::from_bytes(blob.0)
}

fn of_hash(hash: &Hash) -> BlobId {
    BlobId(*hash.as_bytes())
}

pub(super) fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}
