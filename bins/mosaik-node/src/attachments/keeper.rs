//! The one that owns what is known of attachments' files: a loop beside the node's.
//!
//! Invariants:
//! - It decides nothing ([`mosaik_proto::attachments`] does), and waits for no disk or peer itself.
//! - It ends when the node has ended, and closes the files after all fetches.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use mosaik_api::document::{Peer, PeerState};
use mosaik_core::{
    id::{BlobId, NodeId},
    view::{self, FileReference},
};
use mosaik_net::{Fetcher, Held, Shelf, ShelfError};
use mosaik_proto::{
    attachments::{Attachments as Policy, End, Fetch, Limits, Pending, Scan, State},
    pieces::{AskError, FILE_MAX, Standing},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};
use tracing::{debug, info, warn};

use super::{FileNews, Look, OverRadio, RadioWay, Rule, over_radio::Over, takes};
use crate::{
    handle::Snapshot,
    meters::Meters,
    reads::{ReadError, Reads},
};

/// References that are read at once.
const PAGE: usize = 1024;
/// Between two scans at least; and so many times as long as the last one took.
const SCAN_PAUSE: Duration = Duration::from_millis(100);
const SCAN_SHARE: u32 = 20;
/// A scan without a reason: what was held back folds in without an arrival.
const SCAN_EVERY: Duration = Duration::from_secs(5 * 60);
/// Bytes of the disk that are left to all else: a full one stops the store of events as well.
const FREE_MIN: u64 = 256_000_000;

/// What the keeper is asked.
pub(super) enum Ask {
    /// How many bytes may come.
    Room(oneshot::Sender<u64>),
    /// How it stands with these blobs of so many bytes, as claimed, that the settings take or not.
    Look(Vec<(BlobId, u64, bool)>, oneshot::Sender<Vec<Look>>),
    /// A file was added here.
    Added(BlobId, u64, oneshot::Sender<()>),
    /// Somebody waits for a blob of at most so many bytes.
    Fetch(BlobId, u64, oneshot::Sender<()>),
    /// A blob is pinned from now on, or not any more.
    Pinned(BlobId, bool, oneshot::Sender<()>),
    /// A blob is let go: answered when nothing of it comes any more.
    LetGo(BlobId, oneshot::Sender<()>),
    /// Somebody waits for a blob of so many bytes, as claimed, and it may come over radio.
    OverRadio(BlobId, u64, oneshot::Sender<Result<(), AskError>>),
    /// What was asked for over radio, and what waits in all.
    Radio(oneshot::Sender<(Vec<Standing>, Pending)>),
}

/// What the loop is built from.
pub(crate) struct Parts {
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) fetcher: Option<Fetcher>,
    pub(crate) reads: Reads,
    pub(crate) rules: Arc<[Rule]>,
    pub(crate) limits: Limits,
    pub(crate) snapshots: watch::Receiver<Snapshot>,
    pub(crate) arrivals: watch::Receiver<u64>,
    pub(crate) meters: Arc<Meters>,
    /// None without a radio.
    pub(crate) over_radio: Option<OverRadio>,
}

pub(crate) struct Keeper {
    pub(super) parts: Parts,
    pub(super) policy: Policy,
    /// What is asked for over radio, where there is one.
    pub(super) over: Option<Over>,
    asks: mpsc::Receiver<Ask>,
    /// Grows whenever something begins or ends.
    changes: watch::Sender<u64>,
    pub(super) running: HashMap<BlobId, Running>,
    /// Who waits until nothing of a blob comes any more.
    leaving: HashMap<BlobId, oneshot::Sender<()>>,
    pub(super) tasks: JoinSet<Done>,
    pub(super) peers: HashSet<NodeId>,
    /// Peers that are known and not connected.
    absent: usize,
    started: Instant,
    scan: Option<(Scan, Instant)>,
    /// When the last one ended, and how long the next one waits at least.
    scanned: (Instant, Duration),
    /// Whether references may have changed since.
    is_stale: bool,
    is_asked: bool,
}

pub(super) struct Running {
    here: Arc<AtomicU64>,
    /// Dropped to end it.
    _stop: oneshot::Sender<()>,
}

/// What a task has done.
pub(super) enum Done {
    Fetched(Fetch, End),
    /// Work on what goes over radio.
    OverRadio(super::over_radio::Done),
    /// A page of references, each with whether the settings take it; the last one to go on after.
    Page(Result<Page, ReadError>),
    Removed(Vec<BlobId>, Result<bool, ShelfError>),
}

pub(super) struct Page {
    seen: Vec<(BlobId, u64, bool)>,
    next: Option<FileReference>,
}

impl Keeper {
    pub(super) fn new(
        mut parts: Parts,
        asks: mpsc::Receiver<Ask>,
        changes: watch::Sender<u64>,
    ) -> Self {
        Self {
            policy: Policy::new(parts.limits),
            over: parts.over_radio.take().map(Over::new),
            parts,
            asks,
            changes,
            running: HashMap::new(),
            leaving: HashMap::new(),
            tasks: JoinSet::new(),
            peers: HashSet::new(),
            absent: 0,
            started: Instant::now(),
            scan: None,
            scanned: (Instant::now(), Duration::ZERO),
            is_stale: true,
            is_asked: true,
        }
    }

    /// Runs until the node has ended.
    pub(crate) async fn run(mut self) {
        match self.parts.shelf.inventory().await {
            Ok(all) => {
                for (blob, held) in all.held {
                    match held {
                        Held::Whole(size) => self.policy.hold(blob, size),
                        Held::Begun => self.policy.begin(blob),
                    }
                }
                all.dropped.into_iter().for_each(|blob| self.policy.let_go(blob, true));
                all.pinned.into_iter().for_each(|blob| self.policy.pin(blob, true));
                all.over_radio.into_iter().for_each(|blob| self.ask_over_radio_again(blob));
            }
            Err(error) => {
                let error = anyhow::Error::new(error);
                warn!(error = format!("{error:#}"), "the files of attachments can't be opened");
            }
        }
        self.look_around();
        self.see_peers();
        while self.turn().await {}
        self.tasks.shutdown().await;
        self.parts.shelf.close().await;
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// One thing that happens; false once the node has ended.
    async fn turn(&mut self) -> bool {
        self.begin_fetches().await;
        self.want_pieces();
        self.show();
        let now_ms = self.now_ms();
        let pieces = self.over.as_ref().and_then(|over| over.next_timeout_ms(now_ms));
        let retry = self.policy.next_timeout_ms(now_ms).into_iter().chain(pieces).min();
        let retry = retry.map(|ms| self.started + Duration::from_millis(ms));
        let scan = self.scan.is_none().then(|| self.scan_at());
        let due = [retry, scan].into_iter().flatten().min();
        let due = due.unwrap_or_else(|| Instant::now() + SCAN_EVERY);
        tokio::select! {
            ask = self.asks.recv(), if self.is_asked => match ask {
                Some(ask) => self.answer(ask),
                // Nobody can ask any more; the node goes on.
                None => self.is_asked = false,
            },
            changed = self.parts.snapshots.changed() => {
                if changed.is_err() {
                    return false;
                }
                self.see_peers();
            }
            changed = self.parts.arrivals.changed() => {
                if changed.is_err() {
                    return false;
                }
                self.is_stale = true;
            }
            Some(news) = next_news(&mut self.over) => self.take_news(news),
            Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => match done {
                Ok(done) => self.take(done),
                Err(error) => warn!(%error, "work on a file of an attachment broke off"),
            },
            () = tokio::time::sleep_until(due.into()) => {
                if self.scan.is_none() && self.scan_at() <= Instant::now() {
                    self.begin_scan();
                }
            }
        }
        true
    }

    fn answer(&mut self, ask: Ask) {
        // Whoever asked may be gone: then nobody hears.
        match ask {
            Ask::Room(reply) => {
                self.look_around();
                let _ = reply.send(self.policy.room());
            }
            Ask::Look(of, reply) => {
                let looks = of.into_iter().map(|(blob, size, taken)| self.look(blob, size, taken));
                let _ = reply.send(looks.collect());
            }
            Ask::Added(blob, size, reply) => {
                self.policy.hold(blob, size);
                self.end_over_radio(blob);
                self.changed();
                let _ = reply.send(());
            }
            Ask::OverRadio(blob, size, reply) => {
                let _ = reply.send(self.ask_over_radio(blob, size));
                self.changed();
            }
            Ask::Radio(reply) => {
                let asked = self.over.as_ref().map(|over| over.pieces.all()).unwrap_or_default();
                let _ = reply.send((asked, self.policy.pending()));
            }
            Ask::Fetch(blob, len_max, reply) => {
                self.look_around();
                self.policy.ask(blob, len_max);
                let _ = reply.send(());
            }
            Ask::Pinned(blob, on, reply) => {
                self.policy.pin(blob, on);
                self.is_stale = true;
                let _ = reply.send(());
            }
            Ask::LetGo(blob, reply) => {
                self.policy.let_go(blob, true);
                self.end_over_radio(blob);
                self.is_stale = true;
                match self.running.remove(&blob) {
                    Some(_running) => drop(self.leaving.insert(blob, reply)),
                    None => drop(reply.send(())),
                }
            }
        }
    }

    fn look(&self, blob: BlobId, size: u64, is_taken: bool) -> Look {
        let state = self.policy.state(&blob, size, is_taken);
        let asked = self.over.as_ref().and_then(|over| over.pieces.standing(&blob));
        let here = match (state, self.running.get(&blob)) {
            (State::Here, _) => self.policy.held(&blob).unwrap_or(size),
            (_, Some(running)) => running.here.load(Ordering::Relaxed),
            _ => asked.map_or(0, |asked| asked.here),
        };
        let radio = match (asked, &self.over) {
            (Some(asked), _) => RadioWay::Asked { is_coming: asked.is_coming },
            (None, Some(_)) if size <= FILE_MAX => RadioWay::Open,
            _ => RadioWay::None,
        };
        let room = self.policy.room();
        let (peers, absent) = (self.peers.len(), self.absent);
        Look { state, here, radio, room, peers, absent, pinned: self.policy.is_pinned(&blob) }
    }

    /// How much the disk can take.
    fn look_around(&mut self) {
        let dir = self.parts.shelf.dir();
        if let Ok(disk) = rustix::fs::statvfs(dir.parent().unwrap_or(dir)) {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            self.policy.set_free(free.saturating_sub(FREE_MIN));
        }
    }

    fn see_peers(&mut self) {
        let connected: HashSet<NodeId> = {
            let snapshot = self.parts.snapshots.borrow_and_update();
            let of_us =
                |peer: &&Peer| !matches!(peer.state, PeerState::Refused | PeerState::Blocked);
            let (connected, absent): (Vec<_>, Vec<_>) = snapshot
                .peers
                .iter()
                .filter(of_us)
                .partition(|peer| peer.state == PeerState::Connected);
            self.absent = absent.len();
            connected.into_iter().filter_map(|peer| peer.id.parse().ok()).collect()
        };
        for gone in self.peers.difference(&connected) {
            self.policy.peer_down(gone);
        }
        for new in connected.difference(&self.peers) {
            self.policy.peer_up(*new);
        }
        if connected != self.peers {
            self.peers = connected;
            self.changed();
        }
    }

    async fn begin_fetches(&mut self) {
        let Some(fetcher) = self.parts.fetcher.clone() else { return };
        while let Some(fetch) = self.policy.next_fetch(self.now_ms()) {
            let fetching = fetcher.fetch(fetch).await;
            let (stop, stopped) = oneshot::channel();
            let running = Running { here: fetching.here(), _stop: stop };
            self.running.insert(fetch.blob, running);
            self.tasks.spawn(async move {
                tokio::select! {
                    end = fetching.end() => Done::Fetched(fetch, end),
                    _ = stopped => Done::Fetched(fetch, End::Cut { came: false }),
                }
            });
            self.changed();
        }
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Fetched(fetch, end) => {
                self.running.remove(&fetch.blob);
                self.look_around();
                let now_ms = self.now_ms();
                self.policy.fetched(now_ms, &fetch, end);
                let (blob, peer) = (fetch.blob.short(), fetch.peer.short());
                debug!(blob, peer, ?end, "a fetch has ended");
                if end == End::TooLong {
                    info!(blob, "a file is longer than its record says, and is not fetched");
                    self.remove(vec![fetch.blob]);
                }
                match end {
                    End::Whole { .. } => self.end_over_radio(fetch.blob),
                    End::Lacked | End::Cut { came: false } => {}
                    _ => self.may_have_come(&fetch.blob),
                }
                if let Some(reply) = self.leaving.remove(&fetch.blob) {
                    let _ = reply.send(());
                }
                self.changed();
            }
            Done::OverRadio(done) => self.take_over_radio(done),
            Done::Page(Ok(page)) => self.take_page(page),
            Done::Page(Err(error)) => {
                let error = anyhow::Error::new(error);
                warn!(error = format!("{error:#}"), "the attachments could not be read");
                self.end_scan();
            }
            Done::Removed(blobs, removed) => match removed {
                Ok(true) => {
                    info!(files = blobs.len(), "files are collected");
                    blobs.into_iter().for_each(|blob| self.policy.let_go(blob, false));
                }
                Ok(false) => debug!("a file is in use, and is collected later"),
                Err(error) => warn!(%error, "files could not be collected"),
            },
        }
    }

    pub(super) fn remove(&mut self, blobs: Vec<BlobId>) {
        let shelf = self.parts.shelf.clone();
        self.tasks.spawn(async move {
            let removed = shelf.remove(&blobs).await;
            Done::Removed(blobs, removed)
        });
    }

    // Scans

    fn scan_at(&self) -> Instant {
        let (ended, pause) = self.scanned;
        ended + if self.is_stale { pause } else { SCAN_EVERY }
    }

    fn begin_scan(&mut self) {
        self.is_stale = false;
        self.scan = Some((self.policy.scan(), Instant::now()));
        self.read_page(None);
    }

    fn read_page(&mut self, after: Option<FileReference>) {
        let (reads, rules) = (self.parts.reads.clone(), self.parts.rules.clone());
        self.tasks.spawn(async move {
            let read = tokio::task::spawn_blocking(move || page(&reads, &rules, after.as_ref()));
            // An error says that the program ends.
            Done::Page(read.await.unwrap_or(Ok(Page { seen: Vec::new(), next: None })))
        });
    }

    fn take_page(&mut self, page: Page) {
        let Some((scan, _)) = &mut self.scan else { return };
        for (blob, size, is_taken) in page.seen {
            scan.see(&self.policy, blob, size, is_taken);
        }
        if page.next.is_some() {
            return self.read_page(page.next);
        }
        let now_ms = self.now_ms();
        if let Some(scan) = self.end_scan() {
            let unnamed = self.policy.scanned(now_ms, scan);
            if !unnamed.is_empty() {
                self.remove(unnamed);
            }
        }
    }

    fn end_scan(&mut self) -> Option<Scan> {
        let (scan, begun) = self.scan.take()?;
        let pause = (begun.elapsed() * SCAN_SHARE).max(SCAN_PAUSE);
        self.scanned = (Instant::now(), pause);
        Some(scan)
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    fn show(&self) {
        self.parts.meters.attachments(self.policy.totals(), self.policy.pending());
    }
}

/// The next that the node tells of files over radio; never, where there is none.
async fn next_news(over: &mut Option<Over>) -> Option<FileNews> {
    match over {
        Some(over) => over.parts.news.recv().await,
        None => std::future::pending().await,
    }
}

/// Reads references after `after`, and what the settings say of each.
fn page(reads: &Reads, rules: &[Rule], after: Option<&FileReference>) -> Result<Page, ReadError> {
    let snapshot = reads.snapshot()?;
    let mut found = Vec::new();
    view::files(snapshot.view(), after, |file| {
        found.push(file);
        found.len() < PAGE
    })?;
    let next = (found.len() == PAGE).then(|| found.last().cloned()).flatten();
    let mut seen = Vec::with_capacity(found.len());
    for file in found {
        let form = view::form(snapshot.view(), &file.record)?;
        seen.push((BlobId(file.blob), file.size, takes(rules, form.as_deref(), file.size)));
    }
    Ok(Page { seen, next })
}
