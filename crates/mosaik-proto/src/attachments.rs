//! Which attachments' bytes to fetch next and from whom, and which to let go.
//!
//! Invariants:
//! - No blob is fetched from two peers at once, and at most [`FETCHES_MAX`] are fetched together,
//!   [`FETCHES_PER_PEER_MAX`] of them from one peer.
//! - The shortest go first, those that a person waits for before all others.
//! - A fetch is never allowed more bytes than the longest claim that the settings take, nor more than
//!   there is room for. Claims are an author's word: the hash alone says what a file is.
//! - What waits is bounded: the [`WANTED_MAX`] shortest are known by name, the rest is counted and
//!   found by the next scan.
//! - Only what no record has named for [`UNREFERENCED_MS`] is let go, and nothing that is pinned.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use mosaik_core::id::{BlobId, NodeId};

/// Blobs fetched at once. A guess: enough that a slow peer doesn't hold up all others.
pub const FETCHES_MAX: usize = 4;
/// The same, of one peer.
pub const FETCHES_PER_PEER_MAX: usize = 2;
/// Blobs that are known to wait. 4,096 with their retries are some hundred kB.
pub const WANTED_MAX: usize = 4096;
/// How long a blob that no record names is kept, in milliseconds: its event may be on the way, or
/// comes back with a restored feed. An hour is a guess.
pub const UNREFERENCED_MS: u64 = 60 * 60 * 1000;
/// When a peer is asked again for what it lacked, in milliseconds; twice as long each time. So who
/// gets it after t is asked by 2 t.
const RETRY_FIRST_MS: u64 = 1000;
const RETRY_MAX_MS: u64 = 10 * 60 * 1000;
/// The first retry after bytes that were not what the hash says.
const RETRY_GARBAGE_MS: u64 = 60 * 1000;

/// What may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all blobs; 0: as many as there are.
    pub bytes_max: u64,
    /// Whether what no record names is kept too.
    pub archive: bool,
}

/// A blob to fetch now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    /// Which.
    pub blob: BlobId,
    /// From whom.
    pub peer: NodeId,
    /// Its bytes at most: more is not what was claimed.
    pub len_max: u64,
}

/// How a fetch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is here, verified.
    Whole {
        /// Its bytes.
        size: u64,
    },
    /// The peer hasn't got it, or not all of it.
    Lacked,
    /// The connection ended; what came is kept.
    Cut {
        /// Whether anything came.
        came: bool,
    },
    /// What came was not what the hash says.
    Garbage,
    /// It is longer than was claimed.
    TooLong,
}

/// How it stands with one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All of it is here.
    Here,
    /// It is being fetched.
    Fetching {
        /// From whom.
        from: NodeId,
    },
    /// It is wanted; peers are connected, and none had it so far, or others go first.
    WaitsForTurn,
    /// It is wanted; every connected peer lacked it.
    WaitsForHolder,
    /// It is wanted, and nobody is connected.
    WaitsForPeer,
    /// It is wanted, and there is no room for it.
    NoRoom,
    /// It is longer than is claimed.
    TooLong,
    /// The settings leave it until somebody asks.
    LeftOut,
    /// It was dropped here, and is left until somebody asks.
    Dropped,
}

/// What waits to be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pending {
    /// Blobs.
    pub count: u64,
    /// Their bytes, as claimed.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct Wanted {
    /// The longest claim that is taken.
    len_max: u64,
    /// Somebody waits for it.
    asked: bool,
    from: Option<NodeId>,
    /// It was longer than this.
    refuted: Option<u64>,
    /// When to ask peers again that were asked before.
    retries: BTreeMap<NodeId, Retry>,
}

#[derive(Debug, Clone, Copy)]
struct Retry {
    at_ms: u64,
    after_ms: u64,
    lacked: bool,
}

/// What is known of all attachments' bytes.
#[derive(Debug)]
pub struct Attachments {
    limits: Limits,
    /// Bytes that the disk can take beyond what is held.
    free: u64,
    /// What is here, whole, and its bytes.
    held: BTreeMap<BlobId, u64>,
    held_bytes: u64,
    pinned: BTreeSet<BlobId>,
    dropped: BTreeSet<BlobId>,
    wanted: BTreeMap<BlobId, Wanted>,
    pending: Pending,
    /// What is here in part.
    begun: BTreeSet<BlobId>,
    /// Held or begun, and since when no record names it.
    unreferenced: BTreeMap<BlobId, u64>,
    /// Connected peers, and what is fetched from each.
    peers: BTreeMap<NodeId, usize>,
}

/// One walk over all references, in the order of blobs.
#[derive(Debug, Default)]
pub struct Scan {
    blob: Option<BlobId>,
    /// The longest claim of this blob that is taken.
    taken: Option<u64>,
    pending: Pending,
    /// The shortest that are lacked.
    shortest: BTreeSet<(u64, BlobId)>,
    referenced: BTreeSet<BlobId>,
}

impl Attachments {
    /// Nothing is here, nobody is connected.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            free: u64::MAX,
            held: BTreeMap::new(),
            held_bytes: 0,
            begun: BTreeSet::new(),
            pinned: BTreeSet::new(),
            dropped: BTreeSet::new(),
            wanted: BTreeMap::new(),
            pending: Pending::default(),
            unreferenced: BTreeMap::new(),
            peers: BTreeMap::new(),
        }
    }

    /// Notes that a blob is here, whole.
    pub fn hold(&mut self, blob: BlobId, size: u64) {
        self.wanted.remove(&blob);
        self.begun.remove(&blob);
        if self.held.insert(blob, size).is_none() {
            self.held_bytes = self.held_bytes.saturating_add(size);
        }
    }

    /// Notes that a part of a blob is here.
    pub fn begin(&mut self, blob: BlobId) {
        if !self.held.contains_key(&blob) {
            self.begun.insert(blob);
        }
    }

    /// Notes that a blob isn't here any more. One that was `dropped` by a person stays away until
    /// somebody asks for it.
    pub fn let_go(&mut self, blob: BlobId, dropped: bool) {
        if let Some(size) = self.held.remove(&blob) {
            self.held_bytes = self.held_bytes.saturating_sub(size);
        }
        self.begun.remove(&blob);
        self.unreferenced.remove(&blob);
        if dropped {
            self.dropped.insert(blob);
            self.pinned.remove(&blob);
            self.wanted.remove(&blob);
        }
    }

    /// Keeps a blob whatever the settings and records say, or lifts that.
    pub fn pin(&mut self, blob: BlobId, on: bool) {
        if on {
            self.pinned.insert(blob);
            self.dropped.remove(&blob);
        } else {
            self.pinned.remove(&blob);
        }
    }

    /// Whether it is pinned.
    pub fn is_pinned(&self, blob: &BlobId) -> bool {
        self.pinned.contains(blob)
    }

    /// Whether all of it is here; then its bytes.
    pub fn held(&self, blob: &BlobId) -> Option<u64> {
        self.held.get(blob).copied()
    }

    /// Blobs that are here, and their bytes.
    pub fn totals(&self) -> Pending {
        Pending { count: self.held.len() as u64, bytes: self.held_bytes }
    }

    /// What waits to be fetched, as of the last scan and what came since.
    pub fn pending(&self) -> Pending {
        self.pending
    }

    /// Notes how many bytes the disk can take.
    pub fn set_free(&mut self, free: u64) {
        self.free = free;
    }

    /// Bytes that may come on top of what is here.
    pub fn room(&self) -> u64 {
        match self.limits.bytes_max {
            0 => self.free,
            max => max.saturating_sub(self.held_bytes).min(self.free),
        }
    }

    /// A session with a peer is open. What it lacked before, it may have now.
    pub fn peer_up(&mut self, peer: NodeId) {
        if self.peers.contains_key(&peer) {
            return;
        }
        let running = self.wanted.values().filter(|wanted| wanted.from == Some(peer)).count();
        self.peers.insert(peer, running);
        for wanted in self.wanted.values_mut() {
            wanted.retries.remove(&peer);
        }
    }

    /// No session with it is open any more.
    pub fn peer_down(&mut self, peer: &NodeId) {
        self.peers.remove(peer);
    }

    /// Somebody waits for a blob of at most `len_max` bytes: before all others, and at once.
    pub fn ask(&mut self, blob: BlobId, len_max: u64) {
        if self.held.contains_key(&blob) {
            return;
        }
        self.dropped.remove(&blob);
        let wanted = self.wanted.entry(blob).or_default();
        wanted.asked = true;
        wanted.len_max = wanted.len_max.max(len_max);
        for retry in wanted.retries.values_mut() {
            retry.at_ms = 0;
        }
    }

    /// Begins a walk over all references.
    pub fn scan(&self) -> Scan {
        Scan::default()
    }

    /// Ends a walk: what is lacked is wanted from now on. Returns what is to be let go: held, pinned
    /// by nobody, and for long named by no record.
    pub fn scanned(&mut self, now_ms: u64, mut scan: Scan) -> Vec<BlobId> {
        scan.next_blob(self);
        self.pending = scan.pending;
        let shortest: BTreeMap<_, _> =
            scan.shortest.iter().map(|(len_max, blob)| (*blob, *len_max)).collect();
        self.wanted.retain(|blob, wanted| {
            wanted.asked || wanted.from.is_some() || shortest.contains_key(blob)
        });
        for (blob, len_max) in shortest {
            let wanted = self.wanted.entry(blob).or_default();
            wanted.len_max = wanted.len_max.max(len_max);
        }
        if self.limits.archive {
            return Vec::new();
        }
        let orphans = self.held.keys().chain(&self.begun).filter(|blob| {
            let is_named = scan.referenced.contains(*blob) || self.wanted.contains_key(*blob);
            !is_named && !self.pinned.contains(*blob)
        });
        let since = |blob: &BlobId| self.unreferenced.get(blob).copied().unwrap_or(now_ms);
        self.unreferenced = orphans.map(|blob| (*blob, since(blob))).collect();
        let is_due = |since: u64| now_ms.saturating_sub(since) >= UNREFERENCED_MS;
        self.unreferenced.iter().filter(|(_, since)| is_due(**since)).map(|(b, _)| *b).collect()
    }

    /// The next blob to fetch now, which from then on counts as being fetched.
    pub fn next_fetch(&mut self, now_ms: u64) -> Option<Fetch> {
        let running: Vec<_> = self.wanted.values().filter(|wanted| wanted.from.is_some()).collect();
        if running.len() >= FETCHES_MAX {
            return None;
        }
        let promised: u64 = running.iter().map(|wanted| wanted.len_max).sum();
        let room = self.room().saturating_sub(promised);
        let ready = self.wanted.iter().filter(|(_, wanted)| {
            wanted.from.is_none() && !wanted.is_refuted() && wanted.len_max <= room
        });
        let found = ready
            .filter_map(|(blob, wanted)| Some((*blob, wanted, self.holder(now_ms, blob, wanted)?)));
        let (blob, _, peer) =
            found.min_by_key(|(blob, wanted, _)| (!wanted.asked, wanted.len_max, *blob))?;
        self.begun.insert(blob);
        let wanted = self.wanted.get_mut(&blob)?;
        wanted.from = Some(peer);
        *self.peers.entry(peer).or_default() += 1;
        Some(Fetch { blob, peer, len_max: wanted.len_max })
    }

    /// Whom to ask for a blob: who failed least, then who is asked least, then by chance that is the
    /// same for one blob and peer, so that not all nodes ask one.
    fn holder(&self, now_ms: u64, blob: &BlobId, wanted: &Wanted) -> Option<NodeId> {
        let ready = self.peers.iter().filter(|(peer, running)| {
            let waits = wanted.retries.get(*peer).is_some_and(|retry| retry.at_ms > now_ms);
            !waits && **running < FETCHES_PER_PEER_MAX
        });
        let key = |(peer, running): &(&NodeId, &usize)| {
            let failed = wanted.retries.get(*peer).map_or(0, |retry| retry.after_ms);
            let mut distance = peer.0;
            distance.iter_mut().zip(blob.0).for_each(|(byte, other)| *byte ^= other);
            (failed, **running, distance)
        };
        ready.min_by_key(key).map(|(peer, _)| *peer)
    }

    /// Notes how a fetch ended.
    pub fn fetched(&mut self, now_ms: u64, fetch: &Fetch, end: End) {
        if let Some(running) = self.peers.get_mut(&fetch.peer) {
            *running = running.saturating_sub(1);
        }
        // It was dropped meanwhile.
        let Some(wanted) = self.wanted.get_mut(&fetch.blob) else { return };
        wanted.from = None;
        let first_ms = match end {
            End::Whole { size } => return self.came(fetch.blob, size),
            End::TooLong => {
                wanted.refuted = Some(fetch.len_max);
                return;
            }
            End::Lacked | End::Cut { .. } => RETRY_FIRST_MS,
            End::Garbage => RETRY_GARBAGE_MS,
        };
        // Who gives something each time gives all of it in the end.
        let retries = wanted.retries.get(&fetch.peer).filter(|_| end != End::Cut { came: true });
        let before = retries.map_or(0, |retry| retry.after_ms);
        let after_ms = (before * 2).clamp(first_ms, RETRY_MAX_MS);
        let retry =
            Retry { at_ms: now_ms + after_ms, after_ms, lacked: !matches!(end, End::Cut { .. }) };
        wanted.retries.insert(fetch.peer, retry);
    }

    /// Notes that all of a blob came another way than by a fetch.
    pub fn came(&mut self, blob: BlobId, size: u64) {
        if let Some(wanted) = self.wanted.get(&blob) {
            self.pending.count = self.pending.count.saturating_sub(1);
            self.pending.bytes = self.pending.bytes.saturating_sub(wanted.len_max);
        }
        self.hold(blob, size);
    }

    /// When, after `now_ms`, [`Attachments::next_fetch`] may have something without anything else
    /// happening.
    pub fn next_timeout_ms(&self, now_ms: u64) -> Option<u64> {
        let waiting =
            self.wanted.values().filter(|wanted| wanted.from.is_none() && !wanted.is_refuted());
        let retries = waiting.flat_map(|wanted| &wanted.retries);
        retries
            .filter(|(peer, _)| self.peers.contains_key(*peer))
            .map(|(_, retry)| retry.at_ms)
            .filter(|at_ms| *at_ms > now_ms)
            .min()
    }

    /// How it stands with a blob of so many bytes, as claimed, that the settings take or not.
    pub fn state(&self, blob: &BlobId, claimed: u64, is_taken: bool) -> State {
        if self.held.contains_key(blob) {
            return State::Here;
        }
        let wanted = self.wanted.get(blob);
        if let Some(from) = wanted.and_then(|wanted| wanted.from) {
            return State::Fetching { from };
        }
        let is_asked = wanted.is_some_and(|wanted| wanted.asked);
        if self.dropped.contains(blob) {
            return State::Dropped;
        }
        if !is_taken && !is_asked && !self.pinned.contains(blob) {
            return State::LeftOut;
        }
        if wanted.is_some_and(Wanted::is_refuted) {
            return State::TooLong;
        }
        if claimed > self.room() {
            return State::NoRoom;
        }
        let Some(wanted) = wanted else { return State::WaitsForTurn };
        let lacks = |peer| wanted.retries.get(peer).is_some_and(|retry| retry.lacked);
        match (self.peers.is_empty(), self.peers.keys().all(lacks)) {
            (true, _) => State::WaitsForPeer,
            (false, true) => State::WaitsForHolder,
            (false, false) => State::WaitsForTurn,
        }
    }
}

impl Wanted {
    /// Whether it is known to be longer than anybody claims.
    fn is_refuted(&self) -> bool {
        self.refuted.is_some_and(|refuted| self.len_max <= refuted)
    }
}

impl Scan {
    /// Takes in that a record names `blob` as a file of `size` bytes, and whether the settings take
    /// that. All references of one blob come together.
    pub fn see(&mut self, of: &Attachments, blob: BlobId, size: u64, is_taken: bool) {
        if self.blob != Some(blob) {
            self.next_blob(of);
            self.blob = Some(blob);
        }
        if is_taken || of.pinned.contains(&blob) {
            self.taken = self.taken.max(Some(size));
        }
    }

    fn next_blob(&mut self, of: &Attachments) {
        let (Some(blob), taken) = (self.blob.take(), self.taken.take()) else { return };
        if of.held.contains_key(&blob) || of.begun.contains(&blob) {
            self.referenced.insert(blob);
        }
        if of.held.contains_key(&blob) {
            return;
        }
        let Some(size) = taken.filter(|_| !of.dropped.contains(&blob)) else { return };
        self.pending.count += 1;
        self.pending.bytes = self.pending.bytes.saturating_add(size);
        self.shortest.insert((size, blob));
        if self.shortest.len() > WANTED_MAX {
            self.shortest.pop_last();
        }
    }
}
