//! Hints over iroh-gossip, beside open sessions only.
//!
//! Invariants:
//! - Gossip is spoken with peers alone that have an open session and whose `Greet` held, in either
//!   direction; with the last session its connections close. Gossip's own dials pass the same gate.
//! - Peers are introduced by a connection that already stands: after one failed dial of its own,
//!   gossip never dials that peer again (iroh-gossip issue 159).
//! - Nothing over [`HINT_LEN_MAX`] is broadcast: it would silence this node for good (issue 131).
//! - A full queue drops hints and never waits.
//!
//! Source: FORMAT.md beside this crate, section 3.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_lite::StreamExt;
use iroh::{
    Endpoint, EndpointAddr, EndpointId,
    endpoint::{
        AfterHandshakeOutcome, BeforeConnectOutcome, Connection, EndpointHooks, Side,
        WeakConnectionHandle,
    },
};
use iroh_gossip::{
    ALPN,
    api::{Event, GossipReceiver, GossipSender},
    proto::TopicId,
};
use mosaik_core::{
    event::Hasher,
    id::{Fingerprint, NodeId},
};
use mosaik_proto::{
    carrier::{Input, Role, SessionId},
    hint::{HINT_LEN_MAX, Hint},
    message::ByeCode,
};
use tokio::{
    sync::{Notify, mpsc, mpsc::error::TrySendError},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, warn};

use crate::{
    blobs, budget::Delivery, counters::Counters, limits::Limits, reason::speaks_not, sync::code,
};

/// Bytes of one gossip message, gossip's own header included: the same at all nodes.
pub const MESSAGE_LEN_MAX: usize = 4096;
/// Hints that wait to be broadcast. More are dropped: newer ones come.
pub(crate) const HINTS_WAITING_MAX: usize = 256;
/// Age of a session at which its peer is introduced. Most sessions only compare and end; each
/// introduction may push another neighbour out.
const INTRODUCE_AFTER: Duration = Duration::from_secs(1);
/// How long after an introduction the next one of the same peer follows, twice as long each time.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(320);
/// With as many neighbours, those who went are let go: gossip's own active view.
const NEIGHBOURS_ENOUGH: usize = 5;
/// Gossip connections with one peer, and as many for files. Each end may open one; the rest is room for those on their way
/// out.
const CONNECTIONS_MAX: usize = 4;
/// How long an introduction, and handing a hint to gossip, may take.
const INTRODUCE_MAX: Duration = Duration::from_secs(5);
const BROADCAST_MAX: Duration = Duration::from_secs(1);

/// Who may gossip with this node, and exchange files. Asked from iroh's own tasks for each connection, hence the lock,
/// which is held for a few instructions.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    admitted: Mutex<HashMap<NodeId, Admitted>>,
    changed: Notify,
    limits: Arc<Limits>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Admitted {
    /// Open sessions, and which end of each this is.
    sessions: HashMap<SessionId, Role>,
    /// Beside the sessions': of gossip, and of files.
    connections: Vec<(Beside, WeakConnectionHandle)>,
}

/// What is spoken beside a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Gossip,
    Files,
}

impl Beside {
    /// What a protocol needs a session for; none needs none.
    fn of(alpn: &[u8]) -> Option<Self> {
        match alpn {
            ALPN => Some(Self::Gossip),
            blobs::ALPN => Some(Self::Files),
            _ => None,
        }
    }
}

/// A session's claim to gossip. Dropped with it.
#[derive(Debug)]
pub(crate) struct Admission {
    gate: Arc<Gate>,
    peer: NodeId,
    session: SessionId,
}

impl Gate {
    pub(crate) fn new(limits: Arc<Limits>, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { limits, counters, ..Self::default() })
    }

    /// Admits a peer as long as the returned claim lives.
    pub(crate) fn admit(
        self: &Arc<Self>,
        peer: NodeId,
        session: SessionId,
        role: Role,
    ) -> Admission {
        self.lock().entry(peer).or_default().sessions.insert(session, role);
        self.changed.notify_one();
        Admission { gate: self.clone(), peer, session }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<NodeId, Admitted>> {
        self.admitted.lock().expect("nothing panics while it holds this lock")
    }

    /// Peers that this end dialed, those it introduces, and the newest such session with each.
    fn dialed(&self) -> HashMap<NodeId, SessionId> {
        let newest = |admitted: &Admitted| {
            let dialed = admitted.sessions.iter().filter(|(_, role)| **role == Role::Dialer);
            dialed.map(|(session, _)| *session).max()
        };
        self.lock().iter().filter_map(|(id, peer)| Some((*id, newest(peer)?))).collect()
    }

    fn is_admitted(&self, peer: EndpointId) -> bool {
        self.lock().contains_key(&NodeId(*peer.as_bytes()))
    }

    /// Takes in a connection that has come about, whoever opened it, or says why not.
    fn take(&self, connection: &Connection) -> Result<(), (ByeCode, &'static str)> {
        if connection.side() == Side::Server {
            let peer = NodeId(*connection.remote_id().as_bytes());
            let entered = self.limits.of(peer).enter(connection);
            entered.map_err(|reason| (ByeCode::Unable, reason))?;
        }
        match Beside::of(connection.alpn()) {
            None => Ok(()),
            Some(beside) if self.enter(beside, connection) => Ok(()),
            Some(Beside::Gossip) => Err((ByeCode::Violation, "gossip needs an open session")),
            Some(Beside::Files) => Err((ByeCode::Violation, "files need an open session")),
        }
    }

    /// Takes a connection in that needs a session, or not.
    fn enter(&self, beside: Beside, connection: &Connection) -> bool {
        let peer = NodeId(*connection.remote_id().as_bytes());
        let mut admitted = self.lock();
        let Some(admitted) = admitted.get_mut(&peer) else { return false };
        admitted.connections.retain(|(_, other)| {
            other.upgrade().is_some_and(|connection| connection.close_reason().is_none())
        });
        let alike = admitted.connections.iter().filter(|(other, _)| *other == beside);
        if alike.count() >= CONNECTIONS_MAX {
            return false;
        }
        admitted.connections.push((beside, connection.weak_handle()));
        true
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut admitted = self.gate.lock();
        let Some(peer) = admitted.get_mut(&self.peer) else { return };
        peer.sessions.remove(&self.session);
        let gone = peer.sessions.is_empty().then(|| admitted.remove(&self.peer)).flatten();
        drop(admitted);
        for (_, connection) in gone.into_iter().flat_map(|gone| gone.connections) {
            if let Some(connection) = connection.upgrade() {
                connection.close(code(ByeCode::Done), b"no session is open");
            }
        }
        self.gate.changed.notify_one();
    }
}

/// The gate as iroh asks it.
#[derive(Debug)]
pub(crate) struct Hook(pub(crate) Arc<Gate>);

impl EndpointHooks for Hook {
    async fn before_connect<'a>(
        &'a self,
        addr: &'a EndpointAddr,
        alpn: &'a [u8],
    ) -> BeforeConnectOutcome {
        if Beside::of(alpn).is_none() || self.0.is_admitted(addr.id) {
            BeforeConnectOutcome::Accept
        } else {
            BeforeConnectOutcome::Reject
        }
    }

    async fn after_handshake<'a>(&'a self, connection: &'a Connection) -> AfterHandshakeOutcome {
        match self.0.take(connection) {
            Ok(()) => AfterHandshakeOutcome::Accept,
            Err((why, reason)) => {
                self.0.counters.refused.one_more();
                AfterHandshakeOutcome::Reject { error_code: code(why), reason: reason.into() }
            }
        }
    }
}

/// Starts gossip on an endpoint. The topic is joined without anybody; peers are introduced later.
pub(crate) fn spawn(endpoint: Endpoint) -> iroh_gossip::net::Gossip {
    iroh_gossip::net::Gossip::builder().max_message_size(MESSAGE_LEN_MAX).spawn(endpoint)
}

/// One network's topic: sends and takes hints, introduces peers.
pub(crate) struct Topic {
    pub(crate) endpoint: Endpoint,
    pub(crate) gossip: iroh_gossip::net::Gossip,
    pub(crate) gate: Arc<Gate>,
    pub(crate) inbox: mpsc::Sender<Delivery>,
    pub(crate) hasher: Hasher,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) limits: Arc<Limits>,
    pub(crate) counters: Arc<Counters>,
}

/// When a peer is introduced next.
struct Introduction {
    /// For which session; a new one begins anew.
    session: SessionId,
    /// None: the peer speaks no gossip.
    at: Option<Instant>,
    again_after: Duration,
}

/// A peer that speaks no gossip: a metered one, for which each further attempt costs a handshake.
struct NoGossip(NodeId);

impl Topic {
    /// Runs until `hints` ends or gossip does.
    pub(crate) async fn run(self, topic: [u8; 32], mut hints: mpsc::Receiver<Hint>) {
        let topic = TopicId::from_bytes(topic);
        let (sender, mut events): (GossipSender, GossipReceiver) =
            match self.gossip.subscribe(topic, Vec::new()).await {
                Ok(topic) => topic.split(),
                Err(error) => {
                    warn!(%error, "no gossip");
                    return;
                }
            };
        let mut neighbours: HashSet<NodeId> = HashSet::new();
        let mut introductions: HashMap<NodeId, Introduction> = HashMap::new();
        let mut tasks: JoinSet<Result<(), NoGossip>> = JoinSet::new();
        loop {
            let next = introductions
                .iter()
                .filter(|(peer, _)| !neighbours.contains(*peer))
                .filter_map(|(_, introduction)| introduction.at)
                .min();
            tokio::select! {
                hint = hints.recv() => {
                    let Some(hint) = hint else { return };
                    self.broadcast(&sender, &hint).await;
                }
                event = events.next() => match event {
                    Some(Ok(event)) => if !self.take(event, &mut neighbours).await { return },
                    Some(Err(error)) => {
                        warn!(%error, "gossip ended");
                        return;
                    }
                    None => return,
                },
                () = self.gate.changed.notified() => {
                    let dialed = self.gate.dialed();
                    introductions.retain(|peer, known| dialed.get(peer) == Some(&known.session));
                    let at = Some(Instant::now() + INTRODUCE_AFTER);
                    for (peer, session) in dialed {
                        let new = Introduction { session, at, again_after: AGAIN_AFTER };
                        introductions.entry(peer).or_insert(new);
                    }
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    let now = Instant::now();
                    for (peer, introduction) in &mut introductions {
                        if introduction.at.is_none_or(|at| at > now) || neighbours.contains(peer) {
                            continue;
                        }
                        let is_first = introduction.again_after == AGAIN_AFTER;
                        introduction.at = Some(now + introduction.again_after);
                        introduction.again_after =
                            (introduction.again_after * 2).min(AGAIN_AFTER_MAX);
                        // The first is for the peer's sake as well: it may have no neighbour yet.
                        if is_first || neighbours.len() < NEIGHBOURS_ENOUGH {
                            self.introduce(*peer, &sender, &mut tasks);
                        }
                    }
                }
                Some(ended) = tasks.join_next() => {
                    if let Ok(Err(NoGossip(peer))) = ended
                        && let Some(introduction) = introductions.get_mut(&peer)
                    {
                        introduction.at = None;
                    }
                }
            }
        }
    }

    /// Opens a connection, hands it to gossip, and only then asks gossip to join the peer.
    fn introduce(
        &self,
        peer: NodeId,
        sender: &GossipSender,
        tasks: &mut JoinSet<Result<(), NoGossip>>,
    ) {
        let Ok(id) = EndpointId::from_bytes(peer.as_bytes()) else { return };
        let (endpoint, gossip, sender) =
            (self.endpoint.clone(), self.gossip.clone(), sender.clone());
        tasks.spawn(async move {
            // Where it is, the endpoint knows from the session.
            let connection = match timeout(INTRODUCE_MAX, endpoint.connect(id, ALPN)).await {
                Ok(Ok(connection)) => connection,
                Ok(Err(error)) => {
                    debug!(peer = %peer.short(), %error, "not introduced");
                    return if speaks_not(&error) { Err(NoGossip(peer)) } else { Ok(()) };
                }
                Err(_) => {
                    debug!(peer = %peer.short(), "not introduced in time");
                    return Ok(());
                }
            };
            if gossip.handle_connection(connection).await.is_ok() {
                // A failure means that the topic is closed.
                let _ = sender.join_peers(vec![id]).await;
            }
            Ok(())
        });
    }

    async fn broadcast(&self, sender: &GossipSender, hint: &Hint) {
        // The nonce: gossip drops bytes that it has seen in the last 90 s.
        let bytes = hint.encode(rand::random());
        if bytes.len() > HINT_LEN_MAX {
            self.counters.hints_oversize.one_more();
            return debug!(bytes = bytes.len(), "a hint is too large for gossip");
        }
        match timeout(BROADCAST_MAX, sender.broadcast(bytes.into())).await {
            Ok(Ok(())) => self.counters.hints_sent.one_more(),
            Ok(Err(_)) | Err(_) => self.counters.hints_dropped.one_more(),
        }
    }

    /// `false`: nobody takes inputs any more.
    async fn take(&self, event: Event, neighbours: &mut HashSet<NodeId>) -> bool {
        let (peer, up) = match event {
            Event::Received(message) => {
                let from = NodeId(*message.delivered_from.as_bytes());
                // Before anything is computed for it.
                return !self.limits.of(from).hint() || self.hand_on(from, &message.content);
            }
            Event::Lagged => {
                self.counters.hints_dropped.one_more();
                return true;
            }
            Event::NeighborUp(peer) => (NodeId(*peer.as_bytes()), true),
            Event::NeighborDown(peer) => (NodeId(*peer.as_bytes()), false),
        };
        debug!(peer = %peer.short(), up, "gossip neighbour");
        if up {
            neighbours.insert(peer);
        } else {
            neighbours.remove(&peer);
        }
        self.inbox.send(Input::Neighbour { peer, up }.into()).await.is_ok()
    }

    /// Checks a hint and hands it on if there is room.
    fn hand_on(&self, from: NodeId, bytes: &[u8]) -> bool {
        let hint = match Hint::decode(bytes, &self.hasher, &self.fingerprint) {
            Ok(hint) => hint,
            Err(error) => {
                debug!(from = %from.short(), %error, "not a hint");
                self.counters.hints_bad.one_more();
                return true;
            }
        };
        match self.inbox.try_send(Input::Hint { from, hint }.into()) {
            Ok(()) => self.counters.hints_received.one_more(),
            Err(TrySendError::Full(_)) => self.counters.hints_dropped.one_more(),
            Err(TrySendError::Closed(_)) => return false,
        }
        true
    }
}
