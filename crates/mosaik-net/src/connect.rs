//! How sessions begin: dials, and connections that others open.
//!
//! Invariants:
//! - Dials in flight, handshakes and accepted connections are bounded, the latter also for each
//!   part of the internet: one house can't take all places.
//! - All tasks end, and let go of the endpoint, when [`run`] returns.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use iroh::{
    Endpoint, TransportAddr,
    endpoint::{Accepting, Incoming, IncomingAddr},
};
use mosaik_core::{
    event::Hasher,
    id::NodeId,
    reach::{Reach, Subnet},
};
use mosaik_proto::{
    carrier::{Addresses, Input, Role, SessionId},
    message::ByeCode,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::{Id, JoinSet},
    time::timeout,
};
use tracing::debug;

use crate::{
    SYNC_ALPN, blobs,
    budget::{Budget, Delivery},
    counters::Counters,
    endpoint::to_dial,
    gossip::Gate,
    limits::Limits,
    mdns::Neighbours,
    rate::Rate,
    reason::of_dial,
    relay::RelaySetting,
    sync,
};

/// Dials at once; the rest wait. Each to a dead address costs 63 KB and [`DIAL_MAX`]. As many as a node
/// begins that has no session.
const DIALS_MAX: usize = 32;
/// Dials that may wait. With more, a dial fails at once.
pub(crate) const DIALS_WAITING_MAX: usize = 256;
/// How long a dial may take.
const DIAL_MAX: Duration = Duration::from_secs(5);
/// One part of the public internet, a v4 /24 or v6 /48, has at most this share of the connections that
/// others may open, or [`SUBNET_LEAST`] where that is more. A guess: an office, not a botnet.
const SUBNET_SHARE: usize = 8;
/// A family behind one address.
const SUBNET_LEAST: usize = 4;
/// Handshakes at once; from half of it on, addresses must first prove that they are real.
const HANDSHAKES_MAX: usize = 64;
/// How long a connection may take from its first packet to its first stream.
const GREETING_MAX: Duration = Duration::from_secs(5);

/// What all tasks of one carrier share: handles and figures, nothing that is changed under a lock
/// but the gate.
pub(crate) struct Shared {
    pub(crate) endpoint: Endpoint,
    pub(crate) inbox: mpsc::Sender<Delivery>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) news: mpsc::UnboundedSender<sync::News>,
    pub(crate) hasher: Hasher,
    pub(crate) rate_down: Option<Arc<Rate>>,
    pub(crate) rate_up: Option<Arc<Rate>>,
    pub(crate) reach: Reach,
    pub(crate) relays: RelaySetting,
    pub(crate) relay_only: bool,
    pub(crate) connections_max: usize,
    pub(crate) neighbours: Arc<Neighbours>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) gossip: Option<iroh_gossip::net::Gossip>,
    pub(crate) serving: Option<blobs::Serving>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) sessions: AtomicU64,
    /// Whether nobody is let in for now.
    pub(crate) paused: watch::Receiver<bool>,
    /// Set when the carrier closes.
    pub(crate) stop: watch::Receiver<bool>,
}

impl Shared {
    pub(crate) fn next_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    /// Waits until the inbox has taken `input`, but not once the carrier closes: then whoever reads
    /// the inbox waits for the carrier.
    pub(crate) async fn tell(&self, input: Input) {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            // Nobody there to be told: the session ends when its reader or handle notices.
            _ = self.inbox.send(input.into()) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
}

/// A dial that was asked for.
pub(crate) struct Dial {
    pub(crate) peer: NodeId,
    pub(crate) addresses: Addresses,
}

/// Where a connection comes from. Private addresses, and those behind relays, are only counted in all.
fn subnet(address: &IncomingAddr) -> Option<Subnet> {
    match address {
        IncomingAddr::Ip(address) => Subnet::of(address.ip()),
        _ => None,
    }
}

/// How many connections one part of the public internet may have open here: never more than half of
/// all, so that one house can't take all places.
fn per_subnet_max(connections_max: usize) -> usize {
    (connections_max / SUBNET_SHARE).max(SUBNET_LEAST).min(connections_max.div_ceil(2))
}

/// Dials and accepts until told to stop, then waits for the sessions to end.
pub(crate) async fn run(shared: Arc<Shared>, mut dials: mpsc::Receiver<Dial>) {
    let mut stop = shared.stop.clone();
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut accepted: HashMap<Id, Option<Subnet>> = HashMap::new();
    let dialing = Arc::new(Semaphore::new(DIALS_MAX));
    // The place that the next dial takes: without one, dials wait in their queue, which is bounded.
    let mut place = None;
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let near_max = per_subnet_max(shared.connections_max);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(ended) = tasks.join_next_with_id() => {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                accepted.remove(&id);
            }
            free = dialing.clone().acquire_owned(), if place.is_none() => place = free.ok(),
            dial = dials.recv(), if place.is_some() => {
                let Some(dial) = dial else { break };
                let begin = connect(shared.clone(), dial, place.take());
                tasks.spawn(unless_stopped(shared.clone(), begin));
            }
            incoming = shared.endpoint.accept() => {
                let Some(incoming) = incoming else { break };
                if *shared.paused.borrow() {
                    // Not a word costs nothing.
                    incoming.ignore();
                    continue;
                }
                let subnet = subnet(&incoming.remote_addr());
                let near = accepted.values().filter(|other| subnet.is_some() && **other == subnet);
                if accepted.len() >= shared.connections_max || near.count() >= near_max {
                    shared.counters.refused.one_more();
                    incoming.refuse();
                    continue;
                }
                if let Some((accepting, permit)) = admit(&shared, incoming, &handshakes) {
                    let begin = accept(shared.clone(), accepting, permit);
                    let task = tasks.spawn(unless_stopped(shared.clone(), begin));
                    accepted.insert(task.id(), subnet);
                }
            }
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// A connection on its way to being a session.
type Begun = (iroh::endpoint::Connection, Role, sync::Streams);

/// Runs the session that `begin` leads to; gives up on it when the carrier stops before.
async fn unless_stopped(shared: Arc<Shared>, begin: impl Future<Output = Option<Begun>>) {
    let mut stop = shared.stop.clone();
    let begun = tokio::select! {
        begun = begin => begun,
        _ = stop.wait_for(|stop| *stop) => None,
    };
    if let Some((connection, role, streams)) = begun {
        sync::run(shared, connection, role, streams).await;
    }
}

/// Dials, and gives its place among the dials to another when it knows what came of it.
async fn connect(
    shared: Arc<Shared>,
    dial: Dial,
    place: Option<OwnedSemaphorePermit>,
) -> Option<Begun> {
    let reached = reach(&shared, &dial).await;
    drop(place);
    match reached {
        Ok(begun) => Some(begun),
        Err(reason) => {
            debug!(peer = %dial.peer.short(), reason, "dial failed");
            shared.counters.dials_failed.one_more();
            shared.tell(Input::DialFailed { peer: dial.peer, reason }).await;
            None
        }
    }
}

/// Opens a connection and its stream, or says in words why not.
async fn reach(shared: &Shared, dial: &Dial) -> Result<Begun, String> {
    let Some(mut addr) = to_dial(dial.peer, &dial.addresses, shared.reach) else {
        return Err("that is no node id".to_owned());
    };
    addr =
        addr.with_addrs(shared.neighbours.addresses(&dial.peer).into_iter().map(TransportAddr::Ip));
    let elsewhere = shared.relays.shared(&dial.addresses.relays);
    addr = addr.with_addrs(elsewhere.into_iter().map(TransportAddr::Relay));
    if shared.relay_only {
        addr.addrs.retain(TransportAddr::is_relay);
    }
    if addr.is_empty() && !dial.addresses.is_empty() {
        return Err("none of its addresses may be dialed from here".to_owned());
    }
    let opening = async {
        let connection =
            shared.endpoint.connect(addr, SYNC_ALPN).await.map_err(|error| of_dial(&error))?;
        let streams =
            connection.open_bi().await.map_err(|error| crate::reason::of_connection(&error))?;
        Ok((connection, Role::Dialer, streams))
    };
    timeout(DIAL_MAX, opening)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", DIAL_MAX.as_secs())))
}

/// Begins a handshake if there is room for one.
fn admit(
    shared: &Shared,
    incoming: Incoming,
    handshakes: &Arc<Semaphore>,
) -> Option<(Accepting, OwnedSemaphorePermit)> {
    let under_load = handshakes.available_permits() < HANDSHAKES_MAX / 2;
    if under_load && !incoming.remote_addr_validated() {
        // It comes again with a proof that the address is its own.
        let _ = incoming.retry();
        return None;
    }
    let Ok(permit) = handshakes.clone().try_acquire_owned() else {
        shared.counters.refused.one_more();
        incoming.refuse();
        return None;
    };
    // It may be gone by now: the queue is served in order.
    Some((incoming.accept().ok()?, permit))
}

/// Finishes a handshake. Of a sync connection it takes the stream; one for files it serves, a gossip one
/// it hands on.
async fn accept(
    shared: Arc<Shared>,
    accepting: Accepting,
    permit: OwnedSemaphorePermit,
) -> Option<Begun> {
    let connection = match timeout(GREETING_MAX, accepting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            debug!(%error, "handshake failed");
            return None;
        }
        Err(_) => return None,
    };
    drop(permit);
    if connection.alpn() == SYNC_ALPN {
        return match timeout(GREETING_MAX, connection.accept_bi()).await {
            Ok(Ok(streams)) => Some((connection, Role::Listener, streams)),
            Ok(Err(_)) => None,
            Err(_) => {
                shared.counters.refused.one_more();
                connection.close(sync::code(ByeCode::Timeout), b"no stream was opened in time");
                None
            }
        };
    }
    // The gate has let it in; it keeps its place among the accepted until it is gone.
    if connection.alpn() == blobs::ALPN {
        if let Some(serving) = shared.serving.clone() {
            blobs::serve(serving, connection).await;
        }
        return None;
    }
    let closed = connection.weak_handle().closed();
    if let Some(gossip) = &shared.gossip
        && gossip.handle_connection(connection).await.is_ok()
    {
        closed.await;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_house_never_has_more_than_half_of_the_places_but_the_only_one() {
        let shares = [1, 2, 3, 4, 8, 32, 64, 256, 4096].map(per_subnet_max);
        assert_eq!(shares, [1, 1, 2, 2, 4, 4, 8, 32, 512]);
    }
}
