//! What peers get: whole files, read by them alone.

use std::{sync::Arc, time::Duration};

use iroh::endpoint::Connection;
use iroh_blobs::provider::{
    StreamPair,
    events::{
        AbortReason, ConnectMode, EventMask, EventSender, ObserveMode, ProviderMessage,
        RequestMode, ThrottleMode,
    },
    handle_stream,
};
use mosaik_core::id::NodeId;
use mosaik_proto::message::ByeCode;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tracing::debug;

use super::shelf::Shelf;
use crate::{
    counters::Counters,
    limits::{Limits, Peer},
    rate::Place,
    sync::code,
};

/// Requests served at once, of all peers. A guess: each costs a file handle and the stream's window.
const SERVED_MAX: usize = 32;
/// Under a limit so few requests are served at once that each gets a block in this time: a peer to whom
/// nothing comes for 20 s gives up.
const BLOCK_EVERY_S: u64 = 10;
/// Bytes of a block, and of a pair of hashes that goes with it.
const BLOCK_LEN: u64 = 16 << 10;
const HASHES_LEN: u64 = 64;
/// How long a peer may take to send its request, and to take the next 16 KiB.
const STALL_MAX: Duration = Duration::from_secs(30);
/// How long a connection may stay without a request. Peers close theirs after 10 s.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Each request is asked about before it is served, and each 16 KiB are told; nothing may be written,
/// nor watched.
const MASK: EventMask = EventMask {
    connected: ConnectMode::None,
    get: RequestMode::Intercept,
    get_many: RequestMode::Disabled,
    push: RequestMode::Disabled,
    observe: ObserveMode::Intercept,
    throttle: ThrottleMode::Intercept,
};

/// What all that serve share.
#[derive(Clone)]
pub(crate) struct Serving {
    shelf: Arc<Shelf>,
    places: Arc<Semaphore>,
    rate: Option<Arc<Place>>,
    limits: Arc<Limits>,
    counters: Arc<Counters>,
}

impl Serving {
    /// Serves what is on the shelf, within `rate`.
    pub(crate) fn new(
        shelf: Arc<Shelf>,
        rate: Option<Arc<Place>>,
        limits: Arc<Limits>,
        counters: Arc<Counters>,
    ) -> Self {
        let places = Arc::new(Semaphore::new(served_max(rate.as_deref().map(Place::bytes_per_s))));
        Self { shelf, places, rate, limits, counters }
    }
}

/// Requests that are served at once.
fn served_max(bytes_per_s: Option<u64>) -> usize {
    let fitting = bytes_per_s.map(|rate| rate.saturating_mul(BLOCK_EVERY_S) / BLOCK_LEN);
    fitting.map_or(SERVED_MAX, |fitting| {
        usize::try_from(fitting).unwrap_or(SERVED_MAX).clamp(1, SERVED_MAX)
    })
}

/// Serves one connection to its end. The gate has let it in.
pub(crate) async fn serve(serving: Serving, connection: Connection) {
    let peer = serving.limits.of(NodeId(*connection.remote_id().as_bytes()));
    let mut requests = JoinSet::new();
    loop {
        let accepted = timeout(IDLE_MAX, connection.accept_bi()).await;
        while requests.try_join_next().is_some() {}
        let (send, recv) = match accepted {
            Ok(Ok(streams)) => streams,
            Ok(Err(_)) => break,
            Err(_) if requests.is_empty() => {
                connection.close(code(ByeCode::Done), b"no file was asked for");
                break;
            }
            Err(_) => continue,
        };
        // No other request is taken before there is a place for this one: who asks too much waits.
        let has_places =
            async { (peer.request().await, serving.places.clone().acquire_owned().await) };
        let places = tokio::select! {
            places = has_places => places,
            _ = connection.closed() => break,
        };
        let (events, asked) = EventSender::channel(4, MASK);
        let pair = StreamPair::new(connection.stable_id() as u64, recv, send, events);
        let (serving, peer) = (serving.clone(), peer.clone());
        requests.spawn(async move {
            answer(&serving, &peer, pair, asked).await;
            drop(places);
        });
    }
}

/// Serves one request, as long as the peer takes what it asked for.
async fn answer(
    serving: &Serving,
    peer: &Peer,
    pair: StreamPair,
    mut asked: mpsc::Receiver<ProviderMessage>,
) {
    // Where there never was a file there is nothing to open.
    if !serving.shelf.is_begun() {
        return;
    }
    let store = match serving.shelf.store().await {
        Ok(store) => store.clone(),
        Err(error) => return debug!(%error, "a file could not be served"),
    };
    let mut served = std::pin::pin!(handle_stream(pair, (*store).clone()));
    loop {
        tokio::select! {
            ended = &mut served => {
                if let Err(error) = ended {
                    debug!(%error, "a file was not served to its end");
                }
                return;
            }
            message = timeout(STALL_MAX, asked.recv()) => match message {
                Err(_) => return debug!("a peer takes nothing of what it asked for"),
                // What is left to be done is done without questions.
                Ok(None) => {
                    let _ = timeout(STALL_MAX, &mut served).await;
                    return;
                }
                Ok(Some(ProviderMessage::GetRequestReceived(message))) => {
                    let of = &message.inner.request;
                    let is_here = of.ranges.is_blob() && store.blobs().has(of.hash).await.is_ok_and(|has| has);
                    let answer = if is_here { Ok(()) } else { Err(AbortReason::Permission) };
                    let _ = message.tx.send(answer).await;
                }
                Ok(Some(ProviderMessage::Throttle(message))) => {
                    let size = message.inner.size;
                    serving.counters.blob_bytes_served.add(size);
                    // The next block is written when this one is paid for.
                    let bytes = usize::try_from(size + HASHES_LEN).unwrap_or(usize::MAX);
                    peer.served(bytes, serving.rate.as_deref()).await;
                    let _ = message.tx.send(Ok(())).await;
                }
                Ok(Some(ProviderMessage::ObserveRequestReceived(message))) => {
                    let _ = message.tx.send(Err(AbortReason::Permission)).await;
                }
                // Not asked about by the mask.
                Ok(Some(_)) => return,
            }
        }
    }
}
