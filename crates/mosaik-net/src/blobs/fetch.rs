//! Fetches: carried out as they are ordered; what is ordered is decided elsewhere.
//!
//! Invariants:
//! - A fetch asks for what isn't here yet, and never takes more than was allowed.
//! - A file counts as fetched when it is whole and durable.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_lite::StreamExt;
use iroh::{
    Endpoint, EndpointId,
    endpoint::{Connection, ConnectionError},
};
use iroh_blobs::{
    api::{blobs::BlobStatus, remote::GetProgressItem},
    get::{
        GetError,
        fsm::{AtBlobHeaderNextError, DecodeError},
    },
};
use mosaik_core::id::NodeId;
use mosaik_proto::{
    attachments::{End, Fetch},
    message::ByeCode,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::debug;

use super::{
    ALPN,
    shelf::{Shelf, ShelfError, other, to_hash},
};
use crate::{counters::Counters, rate::Place, sync::code};

/// How long a dial may take.
const DIAL_MAX: Duration = Duration::from_secs(5);
/// How long a peer may send nothing.
const STALL_MAX: Duration = Duration::from_secs(20);
/// How long a connection stays open without a fetch.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Orders that may wait to be begun: more than are ever given at once.
const ORDERS_MAX: usize = 16;

/// A way to order fetches.
#[derive(Debug, Clone)]
pub struct Fetcher(mpsc::Sender<Order>);

/// What is ordered, to be carried out by [`run`].
pub(super) type Orders = mpsc::Receiver<Order>;

#[derive(Debug)]
pub(crate) struct Order {
    fetch: Fetch,
    here: Arc<AtomicU64>,
    reply: oneshot::Sender<End>,
}

/// A fetch under way. Dropping it ends the fetch; what came is kept.
#[derive(Debug)]
pub struct Fetching {
    here: Arc<AtomicU64>,
    reply: oneshot::Receiver<End>,
}

impl Fetcher {
    pub(crate) fn new() -> (Self, Orders) {
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        (Self(sender), orders)
    }

    /// Begins a fetch.
    pub async fn fetch(&self, fetch: Fetch) -> Fetching {
        let (told, reply) = oneshot::channel();
        let here = Arc::new(AtomicU64::new(0));
        // Nobody carries it out any more: then `end` says so.
        let _ = self.0.send(Order { fetch, here: here.clone(), reply: told }).await;
        Fetching { here, reply }
    }
}

impl Fetching {
    /// Bytes of the file that are here; may be kept and read at any time.
    pub fn here(&self) -> Arc<AtomicU64> {
        self.here.clone()
    }

    /// Returns when it has ended.
    pub async fn end(self) -> End {
        self.reply.await.unwrap_or(End::Cut { came: false })
    }
}

/// What all fetches share.
struct Shared {
    endpoint: Endpoint,
    shelf: Arc<Shelf>,
    rate: Option<Place>,
    counters: Arc<Counters>,
    connections: Mutex<HashMap<NodeId, Connection>>,
}

/// Carries out orders until nobody can give any.
pub(crate) async fn run(
    endpoint: Endpoint,
    shelf: Arc<Shelf>,
    rate: Option<Place>,
    counters: Arc<Counters>,
    mut orders: Orders,
) {
    let connections = Mutex::default();
    let shared = Arc::new(Shared { endpoint, shelf, rate, counters, connections });
    let mut fetches = JoinSet::new();
    loop {
        tokio::select! {
            order = orders.recv() => {
                let Some(Order { fetch, here, mut reply }) = order else { return };
                let shared = shared.clone();
                fetches.spawn(async move {
                    let end = tokio::select! {
                        end = shared.fetch(&fetch, &here) => end,
                        () = reply.closed() => return,
                    };
                    // Nobody waits any more: the next look at the disk tells what is there.
                    let _ = reply.send(end);
                });
            }
            Some(_) = fetches.join_next() => {}
            () = sleep(IDLE_MAX), if fetches.is_empty() => shared.hang_up(),
        }
    }
}

impl Shared {
    async fn fetch(&self, fetch: &Fetch, here: &AtomicU64) -> End {
        let came = AtomicU64::new(0);
        match self.try_fetch(fetch, here, &came).await {
            Ok(Some(end)) => return end,
            Ok(None) => {}
            Err(error) => {
                let (peer, blob) = (fetch.peer.short(), fetch.blob.short());
                debug!(peer, blob, %error, "a fetch was cut");
            }
        }
        End::Cut { came: came.into_inner() > 0 }
    }

    /// None, and an error of this side: it is cut. Counts what `came`.
    async fn try_fetch(
        &self,
        fetch: &Fetch,
        here: &AtomicU64,
        came: &AtomicU64,
    ) -> Result<Option<End>, ShelfError> {
        let store = self.shelf.store().await?;
        let (blob, hash) = (fetch.blob, to_hash(fetch.blob));
        self.shelf.keep(blob).await?;
        let local = store.remote().local(hash).await;
        let local = local.map_err(|error| io::Error::other(format!("{error:#}")))?;
        let before = local.local_bytes();
        here.store(before, Ordering::Relaxed);
        if !local.is_complete() {
            let connection = self.connection(fetch.peer).await?;
            let progress = store.remote().execute_get(connection, local.missing()).stream();
            let mut progress = std::pin::pin!(progress);
            loop {
                let item = timeout(STALL_MAX, progress.next()).await;
                match item.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))? {
                    Some(GetProgressItem::Progress(now)) => {
                        let more = now.saturating_sub(came.swap(now, Ordering::Relaxed));
                        self.counters.blob_bytes_fetched.add(more);
                        here.store(before + now, Ordering::Relaxed);
                        if before + now > fetch.len_max {
                            return Ok(Some(End::TooLong));
                        }
                        if let Some(rate) = &self.rate {
                            rate.take(usize::try_from(more).unwrap_or(usize::MAX)).await;
                        }
                    }
                    Some(GetProgressItem::Done(_)) => break,
                    Some(GetProgressItem::Error(error)) => return Ok(end_of(fetch.peer, &error)),
                    None => return Ok(None),
                }
            }
        }
        match store.blobs().status(hash).await.map_err(other)? {
            BlobStatus::Complete { size } if size > fetch.len_max => Ok(Some(End::TooLong)),
            BlobStatus::Complete { size } => {
                self.shelf.make_durable(&hash).await?;
                Ok(Some(End::Whole { size }))
            }
            // All that was asked for came, but the sender had another idea of its length.
            _ => Ok(Some(End::Garbage)),
        }
    }

    /// A connection to a peer: the one that is open, or a new one. Where it is the endpoint knows from
    /// the session; without a session the gate refuses.
    async fn connection(&self, peer: NodeId) -> Result<Connection, ShelfError> {
        let known = self.lock().get(&peer).cloned();
        if let Some(connection) = known.filter(|connection| connection.close_reason().is_none()) {
            return Ok(connection);
        }
        let id = EndpointId::from_bytes(peer.as_bytes()).map_err(other)?;
        let dialed = timeout(DIAL_MAX, self.endpoint.connect(id, ALPN)).await;
        let connection =
            dialed.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map_err(other)?;
        self.lock().insert(peer, connection.clone());
        Ok(connection)
    }

    fn hang_up(&self) {
        for (_, connection) in self.lock().drain() {
            if !matches!(connection.close_reason(), Some(ConnectionError::LocallyClosed)) {
                connection.close(code(ByeCode::Done), b"all is fetched");
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<NodeId, Connection>> {
        self.connections.lock().expect("nothing panics while it holds this lock")
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.hang_up();
    }
}

/// What an error of the protocol means; none: the connection ended.
fn end_of(peer: NodeId, error: &GetError) -> Option<End> {
    debug!(peer = peer.short(), %error, "a fetch failed");
    if error.iroh_error_code().is_some() {
        return Some(End::Lacked);
    }
    match error {
        GetError::Decode { source, .. } => match source {
            DecodeError::ParentHashMismatch { .. } | DecodeError::LeafHashMismatch { .. } => {
                Some(End::Garbage)
            }
            DecodeError::ChunkNotFound { .. }
            | DecodeError::ParentNotFound { .. }
            | DecodeError::LeafNotFound { .. } => Some(End::Lacked),
            _ => None,
        },
        GetError::AtBlobHeaderNext { source: AtBlobHeaderNextError::NotFound { .. }, .. } => {
            Some(End::Lacked)
        }
        _ => None,
    }
}
