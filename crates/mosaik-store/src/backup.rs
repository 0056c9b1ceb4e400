//! Backups: all events of a store and what its node keeps beside them, in one file with a digest.
//!
//! Invariants:
//! - A backup is one snapshot. What is damaged in it is an error: a backup never holds less than it says.
//! - What is read is believed only after it was checked: lengths before they are allocated, every run
//!   by its chain and its author's signature, the whole by the digest at its end.
//! - The view isn't in it: the node folds it at the next start.
//!
//! Source: FORMAT.md beside this crate, section 5.

mod file;

use std::{io, num::NonZeroU64};

use mosaik_core::{
    codec::{ReadError, Reader as Bytes, Writer},
    feed::{Branch, BranchId, Ledger, Way},
    id::{AuthorId, Fingerprint},
    record::RecordEvent,
    run::{Run, RunError, encode_events},
};

use self::file::{Source, Target};
use crate::{
    commit::Batch,
    fault::StoreError,
    read::{self, Arrival, Reader},
    store::Store,
};

/// Runs that are restored in one transaction: each waits for the disk once.
const RUNS_A_COMMIT: usize = 256;

/// Arrivals, and missing payloads, that are read at once.
const ARRIVALS_A_PAGE: usize = 1024;
const MISSING_A_PAGE: usize = 1024;

mod tag {
    pub(super) const END: u8 = 0;
    pub(super) const ABOUT: u8 = 1;
    pub(super) const NETWORK: u8 = 2;
    pub(super) const KEYS: u8 = 3;
    pub(super) const META: u8 = 4;
    pub(super) const BRANCH: u8 = 5;
    pub(super) const RUN: u8 = 6;
    pub(super) const MISSING: u8 = 7;
}

/// What stands at the beginning of a backup.
#[derive(Clone, PartialEq, Eq)]
pub struct BackupHead {
    /// Whose network.
    pub fingerprint: Fingerprint,
    /// When it was made, in milliseconds of the Unix epoch.
    pub made_ms: u64,
    /// Events in it.
    pub events: u64,
    /// Runs in it.
    pub arrivals: u64,
    /// The network's id, if it was to be in it.
    pub network: Option<String>,
    /// The seed of the node's key.
    pub node_key: [u8; 32],
    /// The seed of its author's key.
    pub author_key: [u8; 32],
}

/// What a new backup holds beside the store.
#[derive(Clone)]
pub struct BackupOf<'a> {
    /// The network's id, if whoever has the backup may know it.
    pub network: Option<&'a str>,
    /// The seed of the node's key.
    pub node_key: [u8; 32],
    /// The seed of its author's key.
    pub author_key: [u8; 32],
    /// The wall clock, in milliseconds of the Unix epoch.
    pub made_ms: u64,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Events.
    pub events: u64,
    /// Branches of all feeds.
    pub branches: u64,
    /// What the author that was asked for calls itself; empty if it never said so.
    pub own_name: String,
    /// Seq of that author's greatest event, if there is one.
    pub own_seq: Option<NonZeroU64>,
    /// The digest at the end of the file.
    pub digest: [u8; 32],
}

/// Why a backup was not made, or not restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The file can't be read.
    #[error("the backup can't be read")]
    Read(#[source] io::Error),
    /// The file can't be written.
    #[error("the backup can't be written")]
    Write(#[source] io::Error),
    /// Some other file.
    #[error("this is no backup of mosaik-node")]
    Foreign,
    /// It ends too early.
    #[error("the backup is cut off: take another copy of it")]
    Cut,
    /// Bytes that were not written so.
    #[error("the backup is damaged: {0}; take another copy of it")]
    Damaged(String),
    /// Not what the store is of.
    #[error("the backup is of network {}, not of {}", found.short(), expected.short())]
    OtherNetwork {
        /// Whose it is.
        found: Fingerprint,
        /// Whose it should be.
        expected: Fingerprint,
    },
    /// There is something in the store already.
    #[error("a backup is restored into an empty store, this one holds events")]
    NotEmpty,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Whoever asked wants no more.
    #[error("the backup was given up")]
    GivenUp,
}

impl From<ReadError> for BackupError {
    fn from(error: ReadError) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<RunError> for BackupError {
    fn from(error: RunError) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// Told how many of how many runs are done; false ends the work.
type GoOn<'a> = dyn FnMut(u64, u64) -> bool + 'a;

impl Reader {
    /// Writes a backup of this snapshot, and returns the digest that it ends in. `go_on` is told how many
    /// of how many runs are done, and ends it by returning false.
    ///
    /// # Errors
    ///
    /// [`BackupError`]: what was written until then is no backup. Also where an event is damaged.
    pub fn backup(
        &self,
        of: &BackupOf<'_>,
        out: impl io::Write,
        go_on: &mut GoOn<'_>,
    ) -> Result<[u8; 32], BackupError> {
        let mut target = Target::begin(out)?;
        let network = self.network()?;
        let (events, arrivals) = (self.counts()?.events, self.last_arrival()?);
        let mut writer = Writer::new();
        writer.raw(network.as_bytes()).raw(&of.made_ms.to_le_bytes());
        writer.raw(&events.to_le_bytes()).raw(&arrivals.to_le_bytes());
        target.section(tag::ABOUT, writer.as_bytes())?;
        if let Some(network) = of.network {
            target.section(tag::NETWORK, network.as_bytes())?;
        }
        target.section(tag::KEYS, &[of.node_key, of.author_key].concat())?;
        for (name, value) in read::metas(self.tables())? {
            let mut writer = Writer::new();
            writer.bytes(&name).raw(&value);
            target.section(tag::META, writer.as_bytes())?;
        }
        let branches = self.branches()?;
        let mut begun = 0;
        let mut done = 0;
        loop {
            let page = self.arrivals(done, ARRIVALS_A_PAGE)?;
            let Some(last) = page.last() else { break };
            let next = last.number;
            for arrival in &page {
                // A branch stands before its first run, and so behind the run that it begins in.
                while let Some(branch) = branches.get(begun).filter(|b| b.id <= arrival.branch) {
                    target.section(tag::BRANCH, &write_branch(branch))?;
                    begun += 1;
                }
                target.section(tag::RUN, &self.run_section(arrival)?)?;
                if !go_on(arrival.number, arrivals) {
                    return Err(BackupError::GivenUp);
                }
            }
            done = next;
        }
        let mut after = None;
        loop {
            let page = self.missing(after.as_ref(), MISSING_A_PAGE)?;
            for missing in &page {
                let mut writer = Writer::new();
                writer.raw(&missing.branch.0.to_le_bytes()).raw(&missing.tip.seq.to_le_bytes());
                target.section(tag::MISSING, writer.as_bytes())?;
            }
            after = page.last().copied();
            if after.is_none() {
                return target.end();
            }
        }
    }

    /// A run as it came, and how.
    fn run_section(&self, arrival: &Arrival) -> Result<Vec<u8>, BackupError> {
        let Arrival { branch, first_seq, last_seq, received_ms, way, .. } = *arrival;
        let events = self.events(branch, first_seq, last_seq, usize::MAX)?;
        let signature = self.signed_up_to(branch, last_seq, last_seq)?;
        let is_whole = events.last().is_some_and(|last| last.seq == last_seq);
        let Some((_, signature)) = signature.filter(|_| is_whole) else {
            let what = "a run is not whole, or has no signature";
            return Err(StoreError::corrupt("arrivals", arrival.number, what).into());
        };
        let mut writer = Writer::new();
        writer.raw(&branch.0.to_le_bytes()).raw(&received_ms.to_le_bytes()).u8(way.as_u8());
        writer.raw(&encode_events(&events, &signature));
        Ok(writer.into_bytes())
    }
}

fn write_branch(branch: &Branch) -> Vec<u8> {
    let (parent, parent_seq) = branch.parent.map_or((0, 0), |(id, seq)| (id.0, seq));
    let mut writer = Writer::new();
    writer.raw(&branch.id.0.to_le_bytes()).raw(branch.author.as_bytes());
    writer.raw(&parent.to_le_bytes()).raw(&parent_seq.to_le_bytes());
    writer.into_bytes()
}

/// A backup that is read: its head first, then all else.
#[derive(Debug)]
pub struct Backup<R> {
    source: Source<R>,
    head: BackupHead,
}

impl std::fmt::Debug for BackupHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("BackupHead");
        shown.field("fingerprint", &self.fingerprint).field("made_ms", &self.made_ms);
        shown.field("events", &self.events).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for BackupOf<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupOf").field("made_ms", &self.made_ms).finish_non_exhaustive()
    }
}

impl<R: io::Read> Backup<R> {
    /// Reads the head.
    ///
    /// # Errors
    ///
    /// [`BackupError`] for a file that is none, or that can't be read.
    pub fn open(source: R) -> Result<Self, BackupError> {
        let mut source = Source::begin(source)?;
        let wrong = || BackupError::Damaged("its head is not where it should be".to_owned());
        let (tag, bytes) = source.section()?;
        if tag != tag::ABOUT {
            return Err(wrong());
        }
        let mut about = Bytes::new(&bytes);
        let mut head = BackupHead {
            fingerprint: Fingerprint(about.array()?),
            made_ms: u64::from_le_bytes(about.array()?),
            events: u64::from_le_bytes(about.array()?),
            arrivals: u64::from_le_bytes(about.array()?),
            network: None,
            node_key: [0; 32],
            author_key: [0; 32],
        };
        about.finish()?;
        let (mut tag, mut bytes) = source.section()?;
        if tag == tag::NETWORK {
            let text = String::from_utf8(bytes).map_err(|_| wrong())?;
            head.network = Some(text);
            (tag, bytes) = source.section()?;
        }
        if tag != tag::KEYS {
            return Err(wrong());
        }
        let mut keys = Bytes::new(&bytes);
        (head.node_key, head.author_key) = (keys.array()?, keys.array()?);
        keys.finish()?;
        Ok(Self { source, head })
    }

    /// What stands at its beginning: only as good as the whole, which was not read yet.
    pub fn head(&self) -> &BackupHead {
        &self.head
    }

    /// Reads all of it and returns the digest at its end; keeps nothing. Signatures are left for
    /// [`Backup::restore`].
    ///
    /// # Errors
    ///
    /// [`BackupError`] for a backup that is cut or damaged.
    pub fn read_through(mut self, go_on: &mut GoOn<'_>) -> Result<[u8; 32], BackupError> {
        let mut runs = 0;
        loop {
            match self.source.section()? {
                (tag::END, digest) => {
                    self.is_complete(runs)?;
                    return self.source.end(&digest);
                }
                (tag::RUN, bytes) => {
                    RunSection::read(&bytes)?;
                    runs += 1;
                    if !go_on(runs, self.head.arrivals) {
                        return Err(BackupError::GivenUp);
                    }
                }
                _ => {}
            }
        }
    }

    /// Puts all of it into `store`, which must be empty. Also tells how far the feed of `own` goes.
    ///
    /// # Errors
    ///
    /// [`BackupError`]: the store then holds a part of it, and is to be thrown away.
    pub fn restore(
        mut self,
        store: &mut Store,
        own: &AuthorId,
        go_on: &mut GoOn<'_>,
    ) -> Result<Restored, BackupError> {
        let reader = store.reader()?;
        let expected = reader.network()?;
        if self.head.fingerprint != expected {
            let found = self.head.fingerprint;
            return Err(BackupError::OtherNetwork { found, expected });
        }
        if reader.last_arrival()? > 0 {
            return Err(BackupError::NotEmpty);
        }
        let hasher = reader.hasher().clone();
        drop(reader);
        let mut restored = Restored {
            events: 0,
            branches: 0,
            own_name: String::new(),
            own_seq: None,
            digest: [0; 32],
        };
        let mut runs = 0;
        loop {
            let mut digest = None;
            store.write(|batch| -> Result<(), BackupError> {
                for _ in 0..RUNS_A_COMMIT {
                    let (tag, bytes) = self.source.section()?;
                    match tag {
                        tag::META => restore_meta(batch, &bytes)?,
                        tag::BRANCH => {
                            restore_branch(batch, &bytes)?;
                            restored.branches += 1;
                        }
                        tag::RUN => {
                            let section = RunSection::read(&bytes)?;
                            restore_run(batch, section, &hasher, own, &mut restored)?;
                            runs += 1;
                        }
                        tag::MISSING => {
                            let mut reader = Bytes::new(&bytes);
                            let branch = BranchId(u32::from_le_bytes(reader.array()?));
                            let seq = u64::from_le_bytes(reader.array()?);
                            reader.finish()?;
                            batch.want(branch, seq)?;
                        }
                        tag::END => {
                            digest = Some(bytes);
                            break;
                        }
                        other => {
                            return Err(BackupError::Damaged(format!("a section of kind {other}")));
                        }
                    }
                }
                Ok(())
            })?;
            if !go_on(runs, self.head.arrivals) {
                return Err(BackupError::GivenUp);
            }
            if let Some(digest) = digest {
                self.is_complete(runs)?;
                restored.digest = self.source.end(&digest)?;
                return Ok(restored);
            }
        }
    }

    fn is_complete(&self, runs: u64) -> Result<(), BackupError> {
        if runs == self.head.arrivals {
            return Ok(());
        }
        let what = format!("it holds {runs} runs and should hold {}", self.head.arrivals);
        Err(BackupError::Damaged(what))
    }
}

/// A run and how it came.
struct RunSection {
    branch: BranchId,
    received_ms: u64,
    way: Way,
    run: Run,
}

impl RunSection {
    fn read(bytes: &[u8]) -> Result<Self, BackupError> {
        let mut reader = Bytes::new(bytes);
        let branch = BranchId(u32::from_le_bytes(reader.array()?));
        let received_ms = u64::from_le_bytes(reader.array()?);
        let way = reader.u8()?;
        let way = Way::from_u8(way).ok_or(ReadError::Tag(u64::from(way)))?;
        let run = Run::decode(reader.rest())?;
        Ok(Self { branch, received_ms, way, run })
    }
}

fn restore_meta(batch: &mut Batch<'_>, bytes: &[u8]) -> Result<(), BackupError> {
    let mut reader = Bytes::new(bytes);
    let name = std::str::from_utf8(reader.bytes(usize::MAX)?).map_err(|_| ReadError::Utf8)?;
    if name.starts_with('.') {
        return Err(BackupError::Damaged(format!("a value is named {name:?}")));
    }
    Ok(batch.set_meta(name, reader.rest())?)
}

fn restore_branch(batch: &mut Batch<'_>, bytes: &[u8]) -> Result<(), BackupError> {
    let mut reader = Bytes::new(bytes);
    let id = BranchId(u32::from_le_bytes(reader.array()?));
    let author = AuthorId(reader.array()?);
    let parent =
        (BranchId(u32::from_le_bytes(reader.array()?)), u64::from_le_bytes(reader.array()?));
    reader.finish()?;
    let misplaced = || BackupError::Damaged(format!("branch {} is not where it should be", id.0));
    let parent = (parent.1 > 0).then_some(parent);
    let begun = batch.begin_branch(author, parent).map_err(|error| match error {
        StoreError::Misplaced { .. } => misplaced(),
        error => error.into(),
    })?;
    if begun == id { Ok(()) } else { Err(misplaced()) }
}

fn restore_run(
    batch: &mut Batch<'_>,
    section: RunSection,
    hasher: &mosaik_core::event::Hasher,
    own: &AuthorId,
    restored: &mut Restored,
) -> Result<(), BackupError> {
    let RunSection { branch, received_ms, way, run } = section;
    let run = run.verify(hasher)?;
    let appended = batch.append(branch, run.events(), run.signature(), way, received_ms);
    appended.map_err(|error| match error {
        StoreError::Misplaced { .. } => BackupError::Damaged(error.to_string()),
        error => error.into(),
    })?;
    // What was pruned was on no list; what was on one follows behind the runs.
    batch.unlist(branch, run.events())?;
    restored.events += run.events().len() as u64;
    if run.author() != *own {
        return Ok(());
    }
    restored.own_seq = restored.own_seq.max(NonZeroU64::new(run.head().seq));
    for event in run.events() {
        if let Some(bytes) = event.payload.bytes()
            && let Ok(Some(RecordEvent::Profile { name })) =
                RecordEvent::decode(event.kind.as_str(), bytes)
        {
            restored.own_name = name;
        }
    }
    Ok(())
}
