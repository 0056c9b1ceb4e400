//! What one peer may make this node do, over whatever connections.
//!
//! Invariants:
//! - Who asks for too much waits: its streams are read, and written, later. Only what can't wait is turned
//!   away: connections with a reason, hints without a word, for others passed them on in good faith.
//! - The limits are far above what a node of this program asks for. They bound what a peer costs; they
//!   don't share the line, which `rate_up` and `rate_down` do.
//! - What a peer has spent outlasts its connections. Of more than [`PEERS_MAX`] peers only those are
//!   remembered that are connected: whoever makes keys passes any limit by key.
//!
//! Source: FORMAT.md beside this crate, section 2.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use iroh::endpoint::{Connection, WeakConnectionHandle};
use mosaik_core::id::NodeId;
use mosaik_proto::message::Message;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep_until,
};

use crate::{
    SYNC_ALPN,
    counters::{Count, Counters},
    rate::{Place, Rate},
};

/// Connections of all kinds that one peer may open a second, and saved up: 60 a minute. A node dials a
/// peer that it has lost within a second, once, and then backs off.
const CONNECTIONS_PER_S: u64 = 1;
const CONNECTIONS_SAVED: Duration = Duration::from_secs(60);
/// Sync connections from one peer at once. One is kept; others are dead, of a copy of its key, or on their
/// way to be ended.
const SESSIONS_MAX: usize = 16;
/// Frames that are taken from one peer a second. The smallest run costs about 40 us to check: under half
/// of a core.
const FRAMES_PER_S: u64 = 10_000;
const FRAMES_SAVED: Duration = Duration::from_secs(2);
/// Comparisons that one peer may begin, or ask for, a second. Each may cost as many hashes as there are
/// feeds. Nodes begin one a minute; the rest is for people who ask.
const COMPARISONS_PER_S: u64 = 5;
const COMPARISONS_SAVED: Duration = Duration::from_secs(20);
/// Bytes that are sent to one peer a second, of sync and files: a gigabit line.
const BYTES_PER_S: u64 = 128 << 20;
const BYTES_SAVED: Duration = Duration::from_secs(1);
/// Requests for files that are taken from one peer a second. Each costs a look into the database and a
/// file handle, some 0.2 ms.
const REQUESTS_PER_S: u64 = 250;
const REQUESTS_SAVED: Duration = Duration::from_secs(4);
/// Requests of one peer that are served at once: a quarter of all. A node makes two.
const REQUESTS_AT_ONCE: usize = 8;
/// Hints that are taken from one gossip neighbour a second, its own and those that it passes on.
const HINTS_PER_S: u64 = 1000;
const HINTS_SAVED: Duration = Duration::from_secs(2);
/// Peers that are remembered. A guess: each takes about 500 bytes.
const PEERS_MAX: usize = 1024;

/// The limits of all peers. Locked for a few instructions, never across an await.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    peers: Mutex<HashMap<NodeId, Arc<Peer>>>,
    counters: Arc<Counters>,
}

/// What one peer has spent.
#[derive(Debug)]
pub(crate) struct Peer {
    connections: Rate,
    frames: Rate,
    comparisons: Rate,
    bytes: Rate,
    requests: Rate,
    hints: Rate,
    serving: Arc<Semaphore>,
    /// Held by the file whose turn it is: one peer has one place among those that share the line.
    turn: tokio::sync::Mutex<()>,
    /// Sync connections that it has opened.
    sessions: Mutex<Vec<WeakConnectionHandle>>,
    counters: Arc<Counters>,
}

impl Limits {
    pub(crate) fn new(counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { counters, ..Self::default() })
    }

    /// Those of one peer.
    pub(crate) fn of(&self, peer: NodeId) -> Arc<Peer> {
        let mut peers = self.peers.lock().expect("nothing panics while it holds this lock");
        if !peers.contains_key(&peer) && peers.len() >= PEERS_MAX {
            let is_held = |peer: &Arc<Peer>| Arc::strong_count(peer) > 1;
            peers.retain(|_, peer| is_held(peer) || !peer.is_rested());
            if peers.len() >= PEERS_MAX {
                peers.retain(|_, peer| is_held(peer));
            }
        }
        peers.entry(peer).or_insert_with(|| Arc::new(Peer::new(self.counters.clone()))).clone()
    }
}

impl Peer {
    fn new(counters: Arc<Counters>) -> Self {
        Self {
            connections: Rate::with_burst(CONNECTIONS_PER_S, CONNECTIONS_SAVED),
            frames: Rate::with_burst(FRAMES_PER_S, FRAMES_SAVED),
            comparisons: Rate::with_burst(COMPARISONS_PER_S, COMPARISONS_SAVED),
            bytes: Rate::with_burst(BYTES_PER_S, BYTES_SAVED),
            requests: Rate::with_burst(REQUESTS_PER_S, REQUESTS_SAVED),
            hints: Rate::with_burst(HINTS_PER_S, HINTS_SAVED),
            serving: Arc::new(Semaphore::new(REQUESTS_AT_ONCE)),
            turn: tokio::sync::Mutex::default(),
            sessions: Mutex::default(),
            counters,
        }
    }

    /// Takes in a connection that the peer has opened, or says why not.
    pub(crate) fn enter(&self, connection: &Connection) -> Result<(), &'static str> {
        let refusal = if !self.connections.try_take() {
            "too many connections within a minute, try later"
        } else if connection.alpn() == SYNC_ALPN && !self.enter_session(connection) {
            "too many connections at once, try later"
        } else {
            return Ok(());
        };
        self.counters.limited_connections.one_more();
        Err(refusal)
    }

    fn enter_session(&self, connection: &Connection) -> bool {
        let mut sessions = self.sessions();
        sessions.retain(is_open);
        let has_room = sessions.len() < SESSIONS_MAX;
        if has_room {
            sessions.push(connection.weak_handle());
        }
        has_room
    }

    /// Waits until a frame that came may be taken.
    pub(crate) async fn frame(&self, message: &Message) {
        if matches!(message, Message::Root(_) | Message::Again(_)) {
            wait(&self.comparisons, 1, &self.counters.limited_comparisons).await;
        }
        wait(&self.frames, 1, &self.counters.limited_frames).await;
    }

    /// Waits until `bytes` that were written to it are within its limit.
    pub(crate) async fn sent(&self, bytes: usize) {
        wait(&self.bytes, bytes, &self.counters.limited_sends).await;
    }

    /// The same of a file's, which are also within `rate`.
    pub(crate) async fn served(&self, bytes: usize, rate: Option<&Place>) {
        self.sent(bytes).await;
        if let Some(rate) = rate {
            let _turn = self.turn.lock().await;
            rate.take(bytes).await;
        }
    }

    /// Waits until a request for a file may be served, which lasts as long as what is returned.
    pub(crate) async fn request(&self) -> OwnedSemaphorePermit {
        wait(&self.requests, 1, &self.counters.limited_requests).await;
        let place = match self.serving.clone().try_acquire_owned() {
            Ok(place) => return place,
            Err(_) => self.serving.clone().acquire_owned(),
        };
        self.counters.limited_requests.one_more();
        place.await.expect("the semaphore is never closed")
    }

    /// Whether a hint from it may be taken.
    pub(crate) fn hint(&self) -> bool {
        let is_free = self.hints.try_take();
        if !is_free {
            self.counters.limited_hints.one_more();
        }
        is_free
    }

    /// Whether a fresh one would be just like it.
    fn is_rested(&self) -> bool {
        let rates = [&self.connections, &self.frames, &self.comparisons, &self.bytes];
        let rates = rates.into_iter().chain([&self.requests, &self.hints]);
        rates.into_iter().all(Rate::is_rested) && !self.sessions().iter().any(is_open)
    }

    fn sessions(&self) -> MutexGuard<'_, Vec<WeakConnectionHandle>> {
        self.sessions.lock().expect("nothing panics while it holds this lock")
    }
}

fn is_open(connection: &WeakConnectionHandle) -> bool {
    connection.upgrade().is_some_and(|connection| connection.close_reason().is_none())
}

async fn wait(rate: &Rate, units: usize, limited: &Count) {
    if let Some(until) = rate.charge(units) {
        limited.one_more();
        sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: usize) -> NodeId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        NodeId(id)
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_peer_spent_is_remembered_and_keys_that_come_and_go_take_bounded_room() {
        let limits = Limits::new(Arc::default());
        while limits.of(node(0)).hint() {}
        assert!(!limits.of(node(0)).hint());
        assert!(limits.of(node(1)).hint());
        let held = limits.of(node(2));
        while held.hint() {}
        for number in 0..3 * PEERS_MAX {
            limits.of(node(number + 3));
            assert!(limits.peers.lock().expect("no panic").len() <= PEERS_MAX);
        }
        assert!(!limits.of(node(2)).hint());
        // Not connected, but in debt; those that never asked for anything had to go first.
        assert!(!limits.of(node(0)).hint());
    }

    #[tokio::test(start_paused = true)]
    async fn comparisons_are_dearer_than_other_frames() {
        let limits = Limits::new(Arc::default());
        let peer = limits.of(node(1));
        let start = tokio::time::Instant::now();
        for token in 0..150 {
            peer.frame(&Message::Again(token)).await;
        }
        // 100 were saved up.
        let took = start.elapsed();
        assert!((9..12).contains(&took.as_secs()), "{took:?}");
        assert_eq!(limits.counters.limited_comparisons.get(), 50);
        for token in 0..19_900 {
            peer.frame(&Message::Ping(token)).await;
        }
        assert_eq!(start.elapsed(), took);
        for token in 0..10_000 {
            peer.frame(&Message::Ping(token)).await;
        }
        let took = start.elapsed() - took;
        assert!((900..1100).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_and_requests_are_bounded_and_eight_are_served_at_once() {
        let limits = Limits::new(Arc::default());
        let peer = limits.of(node(1));
        let start = tokio::time::Instant::now();
        for _ in 0..5 {
            peer.sent(32 << 20).await;
        }
        assert_eq!(start.elapsed(), Duration::from_millis(250));
        let start = tokio::time::Instant::now();
        for _ in 0..1250 {
            drop(peer.request().await);
        }
        let took = start.elapsed();
        assert!((900..1100).contains(&took.as_millis()), "{took:?}");
        let mut served = Vec::new();
        for _ in 0..REQUESTS_AT_ONCE {
            served.push(peer.request().await);
        }
        let next = tokio::time::timeout(Duration::from_secs(60), peer.request());
        assert!(next.await.is_err());
        served.pop();
        drop(peer.request().await);
    }
}
