//! What a carrier has done, in numbers for metrics.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use iroh::{Endpoint, metrics::SocketMetrics};
use iroh_gossip::net::Gossip;

/// Counts since the start. Each stands for itself: no two are read as of one moment.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Whole frames handed to the transport.
    pub frames_sent: Count,
    /// Whole frames received.
    pub frames_received: Count,
    /// Frames for sessions that were over, and those in the queue of one that ended.
    pub frames_dropped: Count,
    /// Bytes of sync streams handed to the transport.
    pub bytes_sent: Count,
    /// Bytes of sync streams received.
    pub bytes_received: Count,
    /// Frames that broke the protocol.
    pub frames_bad: Count,
    /// Sessions begun, dialed and accepted.
    pub sessions: Count,
    /// Dials that led nowhere.
    pub dials_failed: Count,
    /// Connections turned away before a session: too many, no stream in time, gossip without a
    /// greeting.
    pub refused: Count,
    /// Of these, connections of a peer that opens too many.
    pub limited_connections: Count,
    /// Frames that were taken later because their sender sends too many.
    pub limited_frames: Count,
    /// The same of comparisons.
    pub limited_comparisons: Count,
    /// Writes to a peer that waited because it takes too many bytes.
    pub limited_sends: Count,
    /// Requests for files that waited because their sender makes too many.
    pub limited_requests: Count,
    /// Hints dropped because a neighbour passes on too many.
    pub limited_hints: Count,
    /// Bytes of files handed to the transport, without their hashes.
    pub blob_bytes_served: Count,
    /// Bytes of files that came and were right.
    pub blob_bytes_fetched: Count,
    /// Hints broadcast.
    pub hints_sent: Count,
    /// Hints received and handed on.
    pub hints_received: Count,
    /// Hints dropped because a queue was full, and those that gossip itself lost.
    pub hints_dropped: Count,
    /// Hints received that were none.
    pub hints_bad: Count,
    /// Hints too large to be broadcast.
    pub hints_oversize: Count,
}

/// Bytes both ways.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bytes {
    /// To peers and relays.
    pub sent: u64,
    /// From them.
    pub received: u64,
}

/// The numbers of one carrier, to be kept and read at any time, also after its end.
#[derive(Clone)]
pub struct Traffic {
    counters: Arc<Counters>,
    socket: Arc<SocketMetrics>,
    gossip: Option<Gossip>,
}

impl Traffic {
    pub(crate) fn new(
        counters: Arc<Counters>,
        endpoint: &Endpoint,
        gossip: Option<Gossip>,
    ) -> Self {
        Self { counters, socket: endpoint.metrics().socket.clone(), gossip }
    }

    /// What the bytes were for. The last is what is left of all that UDP and relays carried: handshakes,
    /// acknowledgements, signs of life, encryption, what was lost and sent again.
    pub fn purposes(&self) -> [(&'static str, Bytes); 4] {
        let (counters, socket) = (&self.counters, &self.socket);
        let bytes = |sent, received| Bytes { sent, received };
        let sync = bytes(counters.bytes_sent.get(), counters.bytes_received.get());
        let files = bytes(counters.blob_bytes_served.get(), counters.blob_bytes_fetched.get());
        let gossip = self.gossip();
        let rest = |all: u64, of: fn(&Bytes) -> u64| {
            all.saturating_sub(of(&sync) + of(&files) + of(&gossip))
        };
        let sent = socket.send_ipv4.get() + socket.send_ipv6.get() + socket.send_relay.get();
        let received = socket.recv_data_ipv4.get()
            + socket.recv_data_ipv6.get()
            + socket.recv_data_relay.get();
        let links = bytes(rest(sent, |bytes| bytes.sent), rest(received, |bytes| bytes.received));
        [("sync", sync), ("files", files), ("gossip", gossip), ("links", links)]
    }

    fn gossip(&self) -> Bytes {
        let Some(gossip) = &self.gossip else { return Bytes::default() };
        let told = gossip.metrics();
        Bytes {
            sent: told.msgs_ctrl_sent_size.get() + told.msgs_data_sent_size.get(),
            received: told.msgs_ctrl_recv_size.get() + told.msgs_data_recv_size.get(),
        }
    }

    /// All of them as of now, each by a name that closes with its unit.
    ///
    /// Bytes of sync are those of its streams, before encryption. Bytes of UDP are whole datagrams
    /// without their IP and UDP headers: sync, gossip, handshakes and acknowledgements of all peers,
    /// sent again where they were lost. What goes over a relay is counted apart.
    pub fn numbers(&self) -> [(&'static str, u64); 28] {
        let (counters, socket) = (&self.counters, &self.socket);
        let gossip = self.gossip();
        [
            ("sync_bytes_sent", counters.bytes_sent.get()),
            ("sync_bytes_received", counters.bytes_received.get()),
            ("frames_sent", counters.frames_sent.get()),
            ("frames_received", counters.frames_received.get()),
            ("frames_dropped", counters.frames_dropped.get()),
            ("frames_bad", counters.frames_bad.get()),
            ("udp_bytes_sent", socket.send_ipv4.get() + socket.send_ipv6.get()),
            ("udp_bytes_received", socket.recv_data_ipv4.get() + socket.recv_data_ipv6.get()),
            ("relay_bytes_sent", socket.send_relay.get()),
            ("relay_bytes_received", socket.recv_data_relay.get()),
            ("sessions", counters.sessions.get()),
            ("dials_failed", counters.dials_failed.get()),
            ("connections_refused", counters.refused.get()),
            ("limited_connections", counters.limited_connections.get()),
            ("limited_frames", counters.limited_frames.get()),
            ("limited_comparisons", counters.limited_comparisons.get()),
            ("limited_sends", counters.limited_sends.get()),
            ("limited_requests", counters.limited_requests.get()),
            ("limited_hints", counters.limited_hints.get()),
            ("blob_bytes_served", counters.blob_bytes_served.get()),
            ("blob_bytes_fetched", counters.blob_bytes_fetched.get()),
            ("gossip_bytes_sent", gossip.sent),
            ("gossip_bytes_received", gossip.received),
            ("hints_sent", counters.hints_sent.get()),
            ("hints_received", counters.hints_received.get()),
            ("hints_dropped", counters.hints_dropped.get()),
            ("hints_bad", counters.hints_bad.get()),
            ("hints_oversize", counters.hints_oversize.get()),
        ]
    }
}

impl fmt::Debug for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.numbers()).finish()
    }
}

/// One number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// As of now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn one_more(&self) {
        self.add(1);
    }
}
