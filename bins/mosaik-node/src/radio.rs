//! The radio of a node: a station that decides, and the Reticulum stack that does.
//!
//! Invariants:
//! - One task holds both. What the owner tells it waits in a queue that the sessions themselves bound.
//! - Inputs go to the owner in order; while its inbox is full the radio waits, nobody else.
//! - The bridge to meshlogd, where there is one, shares the interfaces' time, and goes after the station.

mod bridging;
mod ledger;

use std::{future::Future, path::Path as FilePath, pin::Pin, time::Instant};

use mosaik_api::document::{Bridge, BridgeInterface, BridgePeer, BridgeQueue, BridgeWaiting};
use mosaik_core::{
    binding::RadioIdentity, event::Hasher, id::AuthorId, key::NetworkKeys,
    meshlog::message::MESSAGE_LEN_MAX, trie::Prefix,
};
use mosaik_net::{Delivery, Outlook, Path};
use mosaik_proto::{
    carrier::{Effect, SessionId},
    message::{Bye, ByeCode},
    replica::Replica,
};
use mosaik_reticulum::{
    Via,
    airtime::{Ceiling, Channel, HOUR_MS},
    cast::Seal,
    prns::{Prns, PrnsConfig, StartError, Way},
    stack::{Order, Peer, Report},
    station::{Kinds, OwnState, Queued, Station, StationConfig, Turn, Waiting},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Duration, sleep_until, timeout},
};
use tracing::{debug, warn};

use self::bridging::{Bridging, Done};
use crate::{carrier::Carrier, config::Config, handle::Handle, reads::Reads};

/// The file of the identity in Reticulum, in the network's directory.
const IDENTITY_FILE: &str = "reticulum.key";
/// Bytes of a Resource that is taken: a segment of the stream, with room.
const RESOURCE_MAX: usize = 64 << 10;
/// The same where meshlogd is spoken to: one of its messages.
const MESHLOG_RESOURCE_MAX: usize = MESSAGE_LEN_MAX;
/// How often what is shown is put together anew, though nothing happened: ages grow.
const SHOW_EVERY: Duration = Duration::from_secs(1);
/// How long goodbyes may take.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// What the owner tells the radio.
enum Told {
    Effect(Effect),
    State(OwnState),
    Pause(bool),
    Close,
}

/// What of the node a radio is started with.
pub(crate) struct Parts<'a> {
    pub(crate) directory: &'a FilePath,
    pub(crate) keys: &'a NetworkKeys,
    pub(crate) inbox: mpsc::Sender<Delivery>,
    pub(crate) shown: watch::Sender<Bridge>,
    pub(crate) handle: Handle,
    pub(crate) reads: Reads,
    pub(crate) author: AuthorId,
    /// Whether a file is asked for that a peer may have.
    pub(crate) seeks: watch::Receiver<bool>,
}

/// See the module's head.
pub(crate) struct Radio {
    told: mpsc::UnboundedSender<Told>,
    task: JoinHandle<()>,
    identity: RadioIdentity,
    told_state: Option<OwnState>,
}

impl Radio {
    /// Starts it; what it shows of itself goes to `shown` of the parts.
    ///
    /// # Errors
    ///
    /// [`StartError`], mostly because a way into Reticulum can't be taken.
    pub(crate) fn start(
        config: &Config,
        ways: Vec<Via>,
        parts: Parts<'_>,
    ) -> Result<Self, StartError> {
        let Parts { directory, keys, inbox, shown, handle, reads, author, seeks } = parts;
        let bitrate = u32::try_from(config.rns_bitrate).ok().filter(|bits| *bits > 0);
        let share = u32::from(config.rns_airtime.0) * 10;
        let ceiling = bitrate.filter(|_| share < 1000).map(|bits| Ceiling {
            channel: Channel::of_bitrate(bits),
            an_hour_ms: HOUR_MS / 1000 * u64::from(share),
        });
        let stack = PrnsConfig {
            identity: directory.join(IDENTITY_FILE),
            ways: ways.into_iter().map(|via| Way { via, ceiling }).collect(),
            rns_config: config.rns_config.clone(),
            meshlog: config.rns_meshlog,
            broadcasts: config.rns_broadcast,
            resource_len_max: if config.rns_meshlog { MESHLOG_RESOURCE_MAX } else { RESOURCE_MAX },
        };
        let (prns, reports) = Prns::start(stack)?;
        let own = prns.identity().peer();
        let identity = RadioIdentity {
            keys: prns.identity().keys().0,
            signature: prns.identity().sign(&RadioIdentity::statement(&author)),
        };
        let station = Station::new(StationConfig {
            own,
            tag: keys.radio,
            hasher: Hasher::new(&keys.fingerprint),
            share,
            bitrate,
            first: Kinds(config.rns_first.clone()),
            seal: config.rns_broadcast.then(|| Seal::of(keys)),
            seed: rand::random(),
        });
        let (told, commands) = mpsc::unbounded_channel();
        let started = Instant::now();
        let meshlog =
            config.rns_meshlog.then(|| Bridging::start(own, keys.radio, directory, handle, reads));
        let around = Around { own, inbox, shown, seeks };
        let task = Task { prns, reports, commands, station, meshlog, around, started };
        Ok(Self { told, task: tokio::spawn(task.run()), identity, told_state: None })
    }

    /// Its identity, which takes the author of this node for its own.
    pub(crate) fn identity(&self) -> RadioIdentity {
        self.identity
    }
}

impl Carrier for Radio {
    fn carry(&mut self, effect: Effect) {
        let is_ours =
            matches!(effect, Effect::Send { .. } | Effect::Close { .. } | Effect::Broadcast { .. });
        if is_ours {
            // The task ends with the carrier, and not before.
            let _ = self.told.send(Told::Effect(effect));
        }
    }

    fn path(&self, _: SessionId) -> Option<Path> {
        None
    }

    fn notices(&self) -> Vec<String> {
        Vec::new()
    }

    fn outlook(&self) -> Option<Outlook> {
        None
    }

    fn is_dead(&self) -> Option<String> {
        let ended = self.task.is_finished();
        ended.then(|| "the Reticulum stack has ended: start the node anew".to_owned())
    }

    fn note(&mut self, replica: &Replica, events: u64) {
        let top = replica.frontier().hash(&Prefix::EMPTY, &Default::default());
        let state = OwnState { top, events, is_bridge: replica.is_bridge() };
        if self.told_state.replace(state) != Some(state) {
            let _ = self.told.send(Told::State(state));
        }
    }

    fn pause(&mut self, on: bool) {
        let _ = self.told.send(Told::Pause(on));
    }

    fn close(mut self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let _ = self.told.send(Told::Close);
            if timeout(CLOSE_MAX, &mut self.task).await.is_err() {
                self.task.abort();
            }
        })
    }
}

fn shown_queue(queued: Queued) -> BridgeQueue {
    let shown = |it: Waiting| BridgeWaiting { events: it.events, bytes: it.bytes };
    BridgeQueue {
        control: shown(queued.control),
        news: shown(queued.news),
        priority: shown(queued.priority),
        history: shown(queued.history),
        files: shown(queued.files),
    }
}

struct Task {
    prns: Prns,
    reports: mpsc::Receiver<Report>,
    commands: mpsc::UnboundedReceiver<Told>,
    station: Station,
    meshlog: Option<Bridging>,
    around: Around,
    started: Instant,
}

/// Who this is, and what of the node it speaks with.
struct Around {
    own: Peer,
    inbox: mpsc::Sender<Delivery>,
    shown: watch::Sender<Bridge>,
    seeks: watch::Receiver<bool>,
}

impl Task {
    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    async fn run(mut self) {
        let mut show_at = self.started;
        loop {
            let meshlog_ms = self.meshlog.as_ref().and_then(Bridging::next_timeout_ms);
            let station_ms = self.station.next_timeout_ms(self.now_ms());
            let timeout_ms = station_ms.into_iter().chain(meshlog_ms).min();
            let due = timeout_ms.and_then(|ms| self.started.checked_add(Duration::from_millis(ms)));
            let wake = due.map_or(show_at, |due| due.min(show_at));
            let mut turn = Turn::default();
            let mut foreign = Vec::new();
            tokio::select! {
                report = self.reports.recv() => match report {
                    Some(report) => self.take_report(report, &mut turn, &mut foreign),
                    None => break warn!("the Reticulum stack has ended"),
                },
                told = self.commands.recv() => match told {
                    Some(Told::Effect(effect)) => {
                        self.station.handle_effect(effect, self.now_ms(), &mut turn);
                    }
                    Some(Told::State(state)) => self.station.set_state(state, self.now_ms()),
                    Some(Told::Pause(on)) => {
                        self.station.pause(on);
                        foreign.extend(self.meshlog.iter_mut().flat_map(|it| it.pause(on)));
                    }
                    Some(Told::Close) | None => {
                        self.prns.close().await;
                        return;
                    }
                },
                Some(done) = next_done(&mut self.meshlog) => {
                    let now_ms = self.now_ms();
                    if let Some(meshlog) = &mut self.meshlog {
                        meshlog.take(done, now_ms);
                    }
                }
                // Without a keeper of files nobody seeks.
                Ok(()) = self.around.seeks.changed() => {
                    let seeks = *self.around.seeks.borrow_and_update();
                    self.station.seek(seeks, self.now_ms());
                }
                () = sleep_until(wake.into()) => {}
            }
            self.station.handle_timeout(self.now_ms(), &mut turn);
            let now_ms = self.now_ms();
            if let Some(meshlog) = &mut self.meshlog {
                foreign.extend(meshlog.handle_timeout(now_ms, &mut self.station.airtime()));
            }
            let Turn { orders, inputs } = turn;
            orders.into_iter().chain(foreign).for_each(|order| self.prns.carry(order));
            for input in inputs {
                if self.around.inbox.send(input.into()).await.is_err() {
                    self.prns.close().await;
                    return;
                }
            }
            if show_at <= Instant::now() {
                show_at = Instant::now() + SHOW_EVERY;
                self.show();
            }
        }
        // Sessions end with it.
        let mut turn = Turn::default();
        let bye = Bye::new(ByeCode::Unable, "the radio has stopped");
        self.station.end(&bye, &mut turn);
        for input in turn.inputs {
            if self.around.inbox.send(input.into()).await.is_err() {
                return;
            }
        }
    }

    fn take_report(&mut self, report: Report, turn: &mut Turn, foreign: &mut Vec<Order>) {
        debug!(?report, "radio");
        let now_ms = self.now_ms();
        if let Some(meshlog) = &mut self.meshlog {
            let air = &mut self.station.airtime();
            foreign.extend(meshlog.handle_report(&report, now_ms, air));
        }
        self.station.handle_report(report, self.now_ms(), turn);
    }

    fn show(&self) {
        let now_ms = self.now_ms();
        let interfaces = self.station.interfaces(now_ms).into_iter();
        let peers = self.station.peers(now_ms).into_iter();
        let bridge = Bridge {
            schema: 0,
            identity: Some(self.around.own.to_string()),
            interfaces: interfaces
                .map(|it| BridgeInterface {
                    name: it.name,
                    online: it.is_online,
                    bitrate: it.bitrate,
                    airtime_used_ms: it.used_ms,
                    airtime_left_ms: it.left_ms,
                    queued: shown_queue(it.queued),
                    broadcasts_sent: it.broadcasts_sent,
                    broadcasts_heard: it.broadcasts_heard,
                    broadcasts_refused: it.broadcasts_refused,
                })
                .collect(),
            meshlog: self.meshlog.as_ref().map(|it| it.show(now_ms)),
            peers: peers
                .map(|it| BridgePeer {
                    identity: it.peer.to_string(),
                    events: it.events,
                    author: None,
                    name: None,
                    in_sync: it.is_equal,
                    hops: it.hops,
                    heard_ms: it.age_ms,
                    linked: it.is_linked,
                })
                .collect(),
            // The keeper of files knows.
            files: Vec::new(),
            held_back: Default::default(),
        };
        self.around.shown.send_replace(bridge);
    }
}

/// The next answer that the bridge to meshlogd waits for; never, where there is none.
async fn next_done(meshlog: &mut Option<Bridging>) -> Option<Done> {
    match meshlog {
        Some(meshlog) => meshlog.done().await,
        None => std::future::pending().await,
    }
}
