//! A node without carriers: the real replica, store and server, and an owner that only appends.

use std::{path::PathBuf, time::Instant};

use ed25519_dalek::SigningKey;
use mosaik_api::client::Client;
use mosaik_core::{event::Draft, id::AuthorId, key::Network, ticket::Ticket};
use mosaik_net::Shelf;
use mosaik_proto::{
    Fault,
    attachments::Limits,
    carrier::{Effect, Input, Now},
    peers::Unforgettable,
    replica::{Config, Replica},
};
use mosaik_store::{Batch, Store, StoreError};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use super::super::*;
use crate::{
    attachments,
    doctor::Means,
    edit::{EditError, decide},
    handle::{Appended, Desk, Request, Snapshot, Surroundings, WriteError, handle},
    meters::Meters,
};

/// Milliseconds of the Unix epoch at which these nodes begin; they count on by the real clock.
const BEGIN_MS: u64 = 1_795_248_000_000;

pub(super) struct TestNode {
    pub(super) client: Client,
    pub(super) socket: PathBuf,
    /// Changes what the node shows.
    pub(super) show: watch::Sender<Snapshot>,
    stop: watch::Sender<bool>,
    server: JoinHandle<io::Result<()>>,
    _directory: tempfile::TempDir,
}

struct Owner {
    store: Store,
    replica: Replica,
    begin: Instant,
    arrivals: watch::Sender<u64>,
    /// Those who wait for a comparison: this node has no peer, so they wait on.
    comparing: Vec<oneshot::Sender<()>>,
}

impl TestNode {
    pub(super) async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let keys = Network::Public("demo".into()).keys();
        let (fingerprint, kind) = (keys.fingerprint, keys.kind);
        let mut store = Store::open(directory.path(), &fingerprint).expect("a new store");
        let node_key = SigningKey::from_bytes(&[1; 32]);
        let node = NodeId(node_key.verifying_key().to_bytes());
        let config = Config {
            keys,
            node_key,
            author_key: SigningKey::from_bytes(&[2; 32]),
            author_is_new: true,
            name: "hq".into(),
            software: "test".into(),
            sync_interval_ms: 60_000,
            sync_jitter_ms: 30_000,
            sessions_kept: mosaik_proto::peers::SESSIONS_KEPT,
            authors_max: 100,
            clock_floor_ms: 0,
            seed: 1,
        };
        let begin = Instant::now();
        let opened = store.write(|batch| Replica::open(config, now(begin), batch).map_err(Fail));
        let replica = opened.expect("an empty store");
        let reads = Reads::new(store.readers());
        let ticket = Ticket { node, relays: Vec::new(), addresses: Vec::new() };
        let (_, bridge) = tokio::sync::watch::channel(Default::default());
        let (handle, Desk { mut inbox, snapshots: show, arrivals, meters }) =
            handle(Snapshot::beginning(replica.author(), ticket), Meters::default(), bridge);
        let parts = attachments::Parts {
            shelf: Arc::new(Shelf::new(directory.path().join("blobs"))),
            fetcher: None,
            reads: reads.clone(),
            rules: Arc::default(),
            limits: Limits { bytes_max: 0, archive: false },
            snapshots: handle.watch(),
            arrivals: handle.arrivals(),
            meters,
            over_radio: None,
        };
        let (attachments, keeper) = Attachments::new(handle.clone(), parts);
        tokio::spawn(keeper.run());
        let mut owner = Owner { store, replica, begin, arrivals, comparing: Vec::new() };
        tokio::spawn(async move {
            while let Some(request) = inbox.recv().await {
                owner.answer(request);
            }
        });
        let socket = directory.path().join("node.sock");
        let about = About {
            node,
            name: "hq".into(),
            fingerprint,
            kind,
            data_dir: "/data".into(),
            socket: socket.display().to_string(),
            means: Means::default(),
        };
        let (stop, stopping) = watch::channel(false);
        let listener = bind(&socket).expect("a free path");
        let server = tokio::spawn(serve(listener, about, handle, reads, attachments, stopping));
        let client = Client::new(&socket);
        Self { client, socket, show, stop, server, _directory: directory }
    }

    pub(super) fn begin_to_stop(&self) {
        self.stop.send_replace(true);
    }

    pub(super) async fn stopped(self) {
        self.begin_to_stop();
        self.server.await.expect("no panic").expect("a clean end");
    }
}

/// A fault of the replica, or of the store around it.
#[derive(Debug)]
struct Fail(#[allow(dead_code, reason = "shown by a failing test")] Fault<Batch<'static>>);

impl From<StoreError> for Fail {
    fn from(error: StoreError) -> Self {
        Self(error.into())
    }
}

fn now(begin: Instant) -> Now {
    let mono_ms = u64::try_from(begin.elapsed().as_millis()).expect("a short test");
    Now { mono_ms, wall_ms: BEGIN_MS + mono_ms }
}

impl Owner {
    fn answer(&mut self, request: Request) {
        match request {
            Request::Edit { edit, reply } => {
                let decided = decide(&self.store.reader().expect("a snapshot"), &edit);
                let answer = match decided {
                    Ok(decision) => {
                        Ok(Appended { rows: decision.rows, ..self.append(decision.drafts) })
                    }
                    Err(EditError::Refused(refusal)) => Err(WriteError::Refused(refusal)),
                    Err(EditError::View(error)) => panic!("{error}"),
                };
                let _ = reply.send(answer);
            }
            // There are no peers: all wait for ever.
            Request::Compare { reply }
            | Request::Replicas { reply, .. }
            | Request::Fetch { reply, .. } => {
                self.comparing.push(reply);
            }
            Request::Block { reply, .. } | Request::Dial { reply, .. } => {
                let _ = reply.send(Err(WriteError::Degraded("the disk is full".into())));
            }
            Request::Peers { reply } => {
                let _ = reply.send(Vec::new());
            }
            Request::Surroundings { reply } => {
                let _ = reply.send(Surroundings::default());
            }
            Request::Ping { reply, .. } => {
                let _ = reply.send(Err("no address of it is known".to_owned()));
            }
            Request::Probe { reply } => {
                let _ = reply.send(Err("no connected peer answers probes".to_owned()));
            }
            Request::Probed { reply } => {
                let _ = reply.send(None);
            }
            Request::Forget { reply, .. } => {
                let _ = reply.send(Err(Unforgettable::Busy));
            }
            Request::Compact { reply } => {
                let _ = reply.send(Err(WriteError::Reading));
            }
            Request::Pause { reply, .. } => {
                let _ = reply.send(());
            }
            Request::Shutdown => {}
        }
    }

    fn append(&mut self, drafts: Vec<Draft>) -> Appended {
        let author: AuthorId = self.replica.author();
        let mut appended = Appended { author, events: Vec::new(), rows: Default::default() };
        if drafts.is_empty() {
            return appended;
        }
        let (now, replica) = (now(self.begin), &mut self.replica);
        let effects = self.store.write(|batch| {
            let mut effects = Vec::new();
            let input = Input::Append { token: 1, drafts };
            replica.handle(now, input, batch, &mut effects).map_err(Fail)?;
            replica.end_batch(now, batch, &mut effects).map_err(Fail)?;
            Ok::<_, Fail>(effects)
        });
        for effect in effects.expect("a working disk") {
            if let Effect::Appended { events, .. } = effect {
                appended.events = events;
            }
        }
        let last_arrival = self.store.reader().expect("a snapshot").last_arrival();
        let last_arrival = last_arrival.expect("a working disk");
        self.arrivals.send_replace(last_arrival);
        appended
    }
}
