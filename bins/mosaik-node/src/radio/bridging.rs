//! The bridge to meshlogd's side: the machine that decides, and a task that reads the store for it, and
//! writes what came.
//!
//! Invariants:
//! - What the store is asked for is read beside the loop of the owner, and beside the radio's.
//! - What came is written by the owner, as any edit; the machine hears of it when it is durable, and of
//!   what is held then before that.
//! - One question to the task a peer, and one offer at a time: so its queue is bounded.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use mosaik_api::document::{BridgeMeshlog, MeshlogPeer, Refusal};
use mosaik_reticulum::{
    meshlog::{Ask, Came, Fate, Held, Meshlog, MeshlogConfig, Offer, Turn, Wire},
    stack::{Order, Peer, PublicKeys, Report},
    station::Airtime,
};
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Duration, Instant, sleep_until},
};
use tracing::{debug, info, warn};

use super::ledger::{Ledger, Looked};
use crate::{
    edit::{Edit, Line},
    handle::Handle,
    reads::{ReadError, Reads},
};

/// The file with the keys of meshlogd's authors that were heard, in the network's directory.
const KEYS_FILE: &str = "meshlog.keys";
/// Bytes of a key in it, and of all of them at most.
const KEY_LEN: usize = 64;
const KEYS_LEN_MAX: usize = 4096 * KEY_LEN;
/// How long new keys wait for others before the file is written.
const KEEP_AFTER: Duration = Duration::from_secs(10);
/// How often feeds are looked at again that wait: for a payload, or for the time of an event from the
/// future.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// After a look the store is left alone for so many times as long as that took.
const REST: u32 = 4;

/// What the task is asked.
enum Job {
    Events(Ask),
    Take(Offer),
    Check(Vec<PublicKeys>),
    Keep(Vec<PublicKeys>),
}

/// What it answers.
pub(super) enum Done {
    Held(Vec<(String, Held)>),
    Events(u64, Vec<Wire>),
    Taken(u64, Vec<Fate>),
    Mismatched(u64),
}

/// See the module's head.
pub(super) struct Bridging {
    machine: Meshlog,
    jobs: mpsc::UnboundedSender<Job>,
    done: mpsc::Receiver<Done>,
    /// When the keys are to be written.
    keep_at: Option<Instant>,
    /// Events taken before their author's key was known, that it has not signed.
    mismatched: u64,
}

impl Bridging {
    pub(super) fn start(
        own: Peer,
        tag: [u8; 4],
        directory: &Path,
        handle: Handle,
        reads: Reads,
    ) -> Self {
        let (jobs, asked) = mpsc::unbounded_channel();
        let (answers, done) = mpsc::channel(16);
        let keys_file = directory.join(KEYS_FILE);
        let keys = read_keys(&keys_file);
        let ledger = Some(Box::new(Ledger::new(&keys)));
        let task = Worker { handle, reads, ledger, asked, answers, keys_file };
        tokio::spawn(task.run());
        let machine = Meshlog::new(MeshlogConfig { own, tag, keys, seed: rand::random() });
        Self { machine, jobs, done, keep_at: None, mismatched: 0 }
    }

    /// The next answer of the task.
    pub(super) async fn done(&mut self) -> Option<Done> {
        self.done.recv().await
    }

    pub(super) fn take(&mut self, done: Done, now_ms: u64) {
        match done {
            Done::Held(held) => self.machine.set_held(held, now_ms),
            Done::Events(token, events) => self.machine.on_events(token, &events, now_ms),
            Done::Taken(token, fates) => self.machine.on_taken(token, &fates, now_ms),
            Done::Mismatched(events) => self.mismatched += events,
        }
    }

    pub(super) fn handle_report(
        &mut self,
        report: &Report,
        now_ms: u64,
        air: &mut Airtime<'_>,
    ) -> Vec<Order> {
        let mut turn = Turn::default();
        self.machine.handle_report(report, now_ms, air, &mut turn);
        self.pass_on(turn)
    }

    pub(super) fn handle_timeout(&mut self, now_ms: u64, air: &mut Airtime<'_>) -> Vec<Order> {
        let mut turn = Turn::default();
        self.machine.handle_timeout(now_ms, air, &mut turn);
        if self.keep_at.is_some_and(|at| at <= Instant::now()) {
            self.keep_at = None;
            let _ = self.jobs.send(Job::Keep(self.machine.keys().copied().collect()));
        }
        self.pass_on(turn)
    }

    pub(super) fn pause(&mut self, on: bool) -> Vec<Order> {
        let mut turn = Turn::default();
        self.machine.pause(on, &mut turn);
        turn.orders
    }

    pub(super) fn next_timeout_ms(&self) -> Option<u64> {
        self.machine.next_timeout_ms()
    }

    fn pass_on(&mut self, turn: Turn) -> Vec<Order> {
        let Turn { orders, asks, offers, learned } = turn;
        if !learned.is_empty() {
            self.keep_at.get_or_insert_with(|| Instant::now() + KEEP_AFTER);
        }
        let check = (!learned.is_empty()).then_some(Job::Check(learned));
        let jobs = asks.into_iter().map(Job::Events).chain(offers.into_iter().map(Job::Take));
        for job in jobs.chain(check) {
            // The task ends with the node, and not before.
            let _ = self.jobs.send(job);
        }
        orders
    }

    /// All of it, for people.
    pub(super) fn show(&self, now_ms: u64) -> BridgeMeshlog {
        let status = self.machine.status(now_ms);
        let refused = status.counts.refused.iter();
        let peers = status.peers.into_iter().map(|peer| MeshlogPeer {
            identity: peer.peer.to_string(),
            linked: peer.is_linked,
            heard_ms: peer.age_ms,
            lacks: peer.lacks,
            offers: peer.offers,
        });
        BridgeMeshlog {
            authors: status.authors,
            keys: status.keys,
            verified: status.counts.verified,
            unverified: status.counts.unverified,
            mismatched: self.mismatched,
            known: status.counts.known,
            echoed: status.counts.echoed,
            sent: status.sent,
            pending: status.pending,
            bridges: status.bridges,
            refused: refused
                .map(|(why, events)| Refusal { why: why.as_str().to_owned(), events: *events })
                .collect(),
            peers: peers.collect(),
        }
    }
}

/// The task beside the radio's.
struct Worker {
    handle: Handle,
    reads: Reads,
    /// Away while it is looked into.
    ledger: Option<Box<Ledger>>,
    asked: mpsc::UnboundedReceiver<Job>,
    answers: mpsc::Sender<Done>,
    keys_file: PathBuf,
}

/// Nobody asks any more.
struct Over;

impl Worker {
    async fn run(mut self) {
        let mut arrivals = self.handle.arrivals();
        let mut has_more = true;
        let mut look_at = Instant::now() + LOOK_EVERY;
        let mut rest_until = Instant::now();
        loop {
            let came = async {
                sleep_until(rest_until).await;
                arrivals.changed().await
            };
            let job = tokio::select! {
                biased;
                job = self.asked.recv() => match job {
                    Some(job) => Some(job),
                    None => return,
                },
                changed = came => match changed {
                    Ok(()) => None,
                    Err(_) => return,
                },
                () = std::future::ready(()), if has_more => None,
                () = sleep_until(look_at) => {
                    look_at = Instant::now() + LOOK_EVERY;
                    None
                }
            };
            let done = match job {
                Some(job) => self.serve(job, &mut has_more).await,
                None => {
                    let begun = Instant::now();
                    let done = self.look(&mut has_more).await;
                    rest_until = Instant::now() + REST * begun.elapsed();
                    done
                }
            };
            if done.is_err() {
                return;
            }
        }
    }

    /// Works with the ledger where that may block.
    async fn with_ledger<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Ledger, &mosaik_store::Reader) -> Result<T, mosaik_store::StoreError>
        + Send
        + 'static,
    ) -> Result<Option<T>, Over> {
        let (reads, mut ledger) = (self.reads.clone(), self.ledger.take().unwrap_or_default());
        let worked = spawn_blocking(move || {
            let done = match reads.snapshot() {
                Ok(snapshot) => work(&mut ledger, snapshot.view()).map_err(ReadError::from),
                Err(error) => Err(error),
            };
            (ledger, done)
        });
        // An error: the runtime ends.
        let (ledger, done) = worked.await.map_err(|_| Over)?;
        self.ledger = Some(ledger);
        Ok(done.inspect_err(|error| warn!(%error, "the store can't be read for meshlogd")).ok())
    }

    async fn answer(&self, done: Done) -> Result<(), Over> {
        self.answers.send(done).await.map_err(|_| Over)
    }

    async fn look(&mut self, has_more: &mut bool) -> Result<(), Over> {
        let looked = self
            .with_ledger(|ledger, reader| {
                ledger.look_again();
                ledger.look(reader)
            })
            .await?;
        // A store that can't be read is tried again when something comes, and after a while.
        let Looked { changed, has_more: more } = looked.unwrap_or_default();
        *has_more = more;
        if changed.is_empty() {
            return Ok(());
        }
        self.answer(Done::Held(changed)).await
    }

    async fn serve(&mut self, job: Job, has_more: &mut bool) -> Result<(), Over> {
        match job {
            Job::Events(ask) => {
                let token = ask.token;
                let events =
                    self.with_ledger(move |ledger, reader| ledger.events(reader, &ask)).await?;
                self.answer(Done::Events(token, events.unwrap_or_default())).await
            }
            Job::Take(offer) => {
                let fates = self.take(offer.events, has_more).await?;
                self.answer(Done::Taken(offer.token, fates)).await
            }
            Job::Check(keys) => {
                let learned = self.with_ledger(move |ledger, reader| {
                    let (mut bad, mut changed) = (0, Vec::new());
                    for keys in &keys {
                        let learned = ledger.learn(reader, keys)?;
                        if learned.bad > 0 {
                            let (author, bad, good) = (keys.peer(), learned.bad, learned.good);
                            warn!(%author, bad, good, "taken before the key was known, and not signed by it");
                        }
                        bad += learned.bad;
                        changed.extend(learned.changed);
                    }
                    Ok((bad, changed))
                });
                let Some((bad, changed)) = learned.await? else { return Ok(()) };
                if bad > 0 {
                    self.answer(Done::Held(changed)).await?;
                    self.answer(Done::Mismatched(bad)).await?;
                }
                Ok(())
            }
            Job::Keep(keys) => {
                let path = self.keys_file.clone();
                let kept = spawn_blocking(move || write_keys(&path, &keys));
                if let Err(error) = kept.await.map_err(|_| Over)? {
                    warn!(%error, "the keys of meshlogd's authors can't be kept");
                }
                Ok(())
            }
        }
    }

    /// Lets the owner write what is new, and tells what is held then.
    async fn take(&mut self, events: Vec<Came>, has_more: &mut bool) -> Result<Vec<Fate>, Over> {
        // What came by another way in the meantime counts.
        self.look_through(has_more).await?;
        let sorted = self.with_ledger(move |ledger, _| Ok(sort(ledger, events))).await?;
        let Some((mut fates, new)) = sorted else { return Ok(Vec::new()) };
        let lines: Vec<Line> =
            new.into_iter().zip(1..).map(|(wire, line)| Line { line, wire }).collect();
        if lines.is_empty() {
            return Ok(fates.into_iter().map(|fate| fate.unwrap_or(Fate::NotWritten)).collect());
        }
        let (count, written) =
            (lines.len() as u64, self.handle.edit(Edit::ImportMeshlog { lines }));
        let fate = match written.await {
            Ok(appended) if appended.rows.created > 0 => {
                info!(events = appended.rows.created, of = count, "taken from meshlogd");
                Fate::Taken
            }
            Ok(_) => Fate::Known,
            Err(error) => {
                debug!(%error, "events of meshlogd are not written");
                Fate::NotWritten
            }
        };
        fates.iter_mut().for_each(|it| *it = Some(it.unwrap_or(fate)));
        self.look_through(has_more).await?;
        Ok(fates.into_iter().map(|it| it.unwrap_or(fate)).collect())
    }

    /// Looks until there is nothing more, so that what is told is what is committed.
    async fn look_through(&mut self, has_more: &mut bool) -> Result<(), Over> {
        loop {
            self.look(has_more).await?;
            if !*has_more {
                return Ok(());
            }
        }
    }
}

/// What is sorted out: the fates that are known, and the events to write.
type Sorted = (Vec<Option<Fate>>, Vec<String>);

/// Tells what is new from what is held, or doesn't fit to it.
fn sort(ledger: &Ledger, events: Vec<Came>) -> Sorted {
    let (mut fates, mut new) = (Vec::new(), Vec::new());
    let mut before: BTreeMap<String, Came> = BTreeMap::new();
    for came in events {
        let fate = ledger.fate(&came, before.get(&came.author));
        if fate.is_none() {
            new.push(came.json.clone());
            before.insert(came.author.clone(), came);
        }
        fates.push(fate);
    }
    (fates, new)
}

/// The keys that were kept; none where the file can't be read: they are heard again.
fn read_keys(path: &Path) -> Vec<PublicKeys> {
    let bytes = match fs::read(path) {
        Ok(bytes) if bytes.len() <= KEYS_LEN_MAX && bytes.len() % KEY_LEN == 0 => bytes,
        Ok(_) => {
            warn!(path = %path.display(), "not a file of keys: it is written anew");
            return Vec::new();
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            warn!(%error, path = %path.display(), "the keys of meshlogd's authors can't be read");
            return Vec::new();
        }
    };
    let keys = bytes.chunks_exact(KEY_LEN).filter_map(|key| key.try_into().ok());
    keys.map(PublicKeys).collect()
}

/// Writes them whole, over what is there.
fn write_keys(path: &Path, keys: &[PublicKeys]) -> io::Result<()> {
    let bytes: Vec<u8> = keys.iter().flat_map(|keys| keys.0).collect();
    let beside = path.with_added_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&beside)?.write_all(&bytes)?;
    fs::rename(&beside, path)
}
