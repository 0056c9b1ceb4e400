//! The carrier as the node's loop holds it.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use iroh::{Endpoint, TransportAddr, endpoint::WeakConnectionHandle};
use mosaik_core::{
    event::Hasher,
    id::NodeId,
    reach::{Reach, is_public},
};
use mosaik_proto::{
    carrier::{Addresses, Effect, Input, SessionId},
    hint::Hint,
    message::{Bye, ByeCode},
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tracing::debug;

use crate::{
    blobs::{self, Fetcher, Serving},
    budget::{Budget, Delivery, INCOMING_MAX},
    connect::{self, DIALS_WAITING_MAX, Dial, Shared},
    counters::{Counters, Traffic},
    endpoint::{self, BindError, NetConfig, SYNC_ALPN, addresses, tell_addresses},
    gossip::{self, Gate, HINTS_WAITING_MAX, Hook, Topic},
    limits::Limits,
    mdns::{Mdns, Neighbours},
    outlook::{self, Outlook},
    rate::{Place, Rate},
    relay::Homes,
    sync::{Handle, News},
};

/// How long sessions may take to say goodbye when the carrier closes.
const FAREWELLS_MAX: Duration = Duration::from_secs(3);
/// How long gossip and the endpoint may take to close: the latter waits for acknowledgements of
/// peers that may be gone, up to 18 s were seen.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Sessions and hints over iroh.
///
/// Sessions are numbered from 1; numbers from 2^62 on are left to other carriers.
pub struct Net {
    endpoint: Endpoint,
    reach: Reach,
    inbox: mpsc::Sender<Delivery>,
    complaints: watch::Receiver<Vec<String>>,
    sessions: HashMap<SessionId, Handle>,
    news: mpsc::UnboundedReceiver<News>,
    dials: mpsc::Sender<Dial>,
    hints: Option<mpsc::Sender<Hint>>,
    gossip: Option<iroh_gossip::net::Gossip>,
    fetcher: Option<Fetcher>,
    counters: Arc<Counters>,
    paused: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    /// Dials, accepts and sessions.
    connections: JoinHandle<()>,
    /// The gossip topic and the watch on own addresses.
    tasks: JoinSet<()>,
}

/// How a peer is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// Through what.
    pub via: Via,
    /// The other end: a socket address, or a relay's URL.
    pub remote: String,
    /// Round trip, as the transport estimates it.
    pub rtt_ms: u64,
}

/// Through what a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// UDP, end to end, to a private address: both are in one local network.
    Lan,
    /// UDP, end to end.
    Direct,
    /// A relay passes the packets on.
    Relay,
}

impl Via {
    /// The word for `peers`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Direct => "direct",
            Self::Relay => "relay",
        }
    }
}

impl Net {
    /// Opens the endpoint and begins to accept. Inputs go to `inbox`; while it is full, sessions
    /// wait.
    ///
    /// Relays are not waited for: being alone is a state, not a failure.
    ///
    /// # Errors
    ///
    /// [`BindError`], mostly because an address of `config.listen` can't be had.
    pub async fn bind(config: NetConfig, inbox: mpsc::Sender<Delivery>) -> Result<Self, BindError> {
        let counters = Arc::new(Counters::default());
        let limits = Limits::new(counters.clone());
        let gate = Gate::new(limits.clone(), counters.clone());
        let mut alpns = vec![SYNC_ALPN.to_vec()];
        if config.gossip {
            alpns.push(iroh_gossip::ALPN.to_vec());
        }
        if config.shelf.is_some() {
            alpns.push(blobs::ALPN.to_vec());
        }
        let mode = config.relays.mode()?;
        let relays = mode.relay_map();
        let endpoint = endpoint::bind(&config, mode, alpns, Hook(gate.clone())).await?;
        let gossip = config.gossip.then(|| gossip::spawn(endpoint.clone()));
        let hasher = Hasher::new(&config.keys.fingerprint);
        let (news_sender, session_news) = mpsc::unbounded_channel();
        let (dials, dials_asked) = mpsc::channel(DIALS_WAITING_MAX);
        let (stop, stop_seen) = watch::channel(false);
        let (paused, pauses) = watch::channel(false);
        let neighbours = Arc::new(Neighbours::default());
        let [rate_down, rate_up] =
            [config.rate_down, config.rate_up].map(|rate| rate.map(Rate::new).map(Arc::new));
        let for_files = |rate: &Option<Arc<Rate>>| rate.clone().map(Place::new);
        let serving = config.shelf.clone().map(|shelf| {
            let rate = for_files(&rate_up).map(Arc::new);
            Serving::new(shelf, rate, limits.clone(), counters.clone())
        });
        let shared = Arc::new(Shared {
            endpoint: endpoint.clone(),
            inbox: inbox.clone(),
            budget: Arc::new(Budget::new(INCOMING_MAX)),
            news: news_sender,
            hasher: hasher.clone(),
            rate_down: rate_down.clone(),
            rate_up,
            reach: config.reach,
            relays: config.relays,
            relay_only: config.relay_only,
            connections_max: config.connections_max,
            neighbours: neighbours.clone(),
            gate: gate.clone(),
            gossip: gossip.clone(),
            serving,
            limits: limits.clone(),
            counters: counters.clone(),
            sessions: AtomicU64::new(1),
            paused: pauses.clone(),
            stop: stop_seen,
        });
        let mut tasks = JoinSet::new();
        let (complaints, complained) = watch::channel(Vec::new());
        let news =
            tell_addresses(endpoint.clone(), config.reach, complained.clone(), inbox.clone());
        tasks.spawn(news);
        if !relays.is_empty() {
            let endpoint = endpoint.clone();
            let homes = Homes { endpoint, list: relays, complaints, paused: pauses.clone() };
            tasks.spawn(homes.watch());
        }
        if config.mdns {
            let mdns = Mdns {
                tag: config.keys.mdns,
                node: NodeId(*endpoint.id().as_bytes()),
                neighbours,
                inbox: inbox.clone(),
                paused: pauses,
            };
            tasks.spawn(mdns.run(endpoint.clone()));
        }
        let hints = gossip.clone().map(|gossip| {
            let (sender, hints) = mpsc::channel(HINTS_WAITING_MAX);
            let topic = Topic {
                endpoint: endpoint.clone(),
                gossip,
                gate,
                inbox: inbox.clone(),
                hasher,
                fingerprint: config.keys.fingerprint,
                limits,
                counters: counters.clone(),
            };
            tasks.spawn(topic.run(config.keys.topic, hints));
            sender
        });
        let fetcher = config.shelf.map(|shelf| {
            let (fetcher, orders) = Fetcher::new();
            let rate = for_files(&rate_down);
            tasks.spawn(blobs::run(endpoint.clone(), shelf, rate, counters.clone(), orders));
            fetcher
        });
        Ok(Self {
            endpoint,
            fetcher,
            reach: config.reach,
            inbox,
            complaints: complained,
            sessions: HashMap::new(),
            news: session_news,
            dials,
            hints,
            gossip,
            counters,
            paused,
            stop,
            connections: tokio::spawn(connect::run(shared, dials_asked)),
            tasks,
        })
    }

    /// This node's id.
    pub fn node_id(&self) -> NodeId {
        NodeId(*self.endpoint.id().as_bytes())
    }

    /// The UDP port that it listens on; of several the first.
    pub fn bound_port(&self) -> Option<u16> {
        self.endpoint.bound_sockets().first().map(std::net::SocketAddr::port)
    }

    /// What others can dial now. Changes come as [`Input::OwnAddresses`], the first ones too.
    pub fn addresses(&self) -> Addresses {
        addresses(&self.endpoint.addr(), self.reach)
    }

    /// What goes wrong with relays, in sentences. With every change of it [`Input::OwnAddresses`] comes
    /// again.
    pub fn complaints(&self) -> Vec<String> {
        self.complaints.borrow().clone()
    }

    /// What it has seen of the network so far.
    pub fn outlook(&self) -> Outlook {
        outlook::of(&self.endpoint)
    }

    /// Why it carries nothing any more, if it doesn't.
    pub fn is_dead(&self) -> Option<String> {
        let ended = self.endpoint.is_closed() || self.connections.is_finished();
        ended.then(|| "the network endpoint is closed: start the node anew".to_owned())
    }

    /// What the carrier has done so far; may be kept and read at any time.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// A way to fetch files, if it has a shelf for them.
    pub fn fetcher(&self) -> Option<Fetcher> {
        self.fetcher.clone()
    }

    /// The same and what the transport counts, as named numbers.
    pub fn traffic(&self) -> Traffic {
        Traffic::new(self.counters.clone(), &self.endpoint, self.gossip.clone())
    }

    /// Sends nothing of its own accord, or does again: nobody is let in, no other relay is looked for,
    /// and nothing is announced. What iroh doesn't leave is the connection with the home relay: a sign
    /// of life every 15 s. Sessions are the replica's to end.
    pub fn pause(&self, on: bool) {
        self.paused.send_replace(on);
    }

    /// Carries out an effect, or leaves it to another carrier if it is none of this one's. Never
    /// waits.
    ///
    /// Effects on sessions that are over do nothing: their `Disconnected` is on the way.
    pub fn carry(&mut self, effect: Effect) {
        self.read_news();
        match effect {
            Effect::Send { session, frame, .. } => {
                let sent = self.sessions.get(&session).is_some_and(|handle| handle.send(frame));
                if !sent {
                    self.counters.frames_dropped.one_more();
                }
            }
            Effect::Opened { session, role, .. } => {
                if let Some(handle) = self.sessions.get(&session) {
                    handle.admit(role);
                }
            }
            Effect::Close { session, bye } => {
                if let Some(handle) = self.sessions.remove(&session) {
                    handle.close(bye);
                }
            }
            Effect::Dial { peer, addresses } => self.dial(peer, addresses),
            Effect::Gossip(hint) => {
                if let Some(hints) = &self.hints
                    && hints.try_send(hint).is_err()
                {
                    self.counters.hints_dropped.one_more();
                }
            }
            // Appends are answered by who asked for them.
            _ => {}
        }
    }

    fn dial(&self, peer: NodeId, addresses: Addresses) {
        if self.dials.try_send(Dial { peer, addresses }).is_err() {
            self.counters.dials_failed.one_more();
            let reason = format!("{DIALS_WAITING_MAX} other dials are waiting");
            let inbox = self.inbox.clone();
            tokio::spawn(async move {
                inbox.send(Input::DialFailed { peer, reason }.into()).await.is_ok()
            });
        }
    }

    fn read_news(&mut self) {
        while let Ok(news) = self.news.try_recv() {
            match news {
                News::Came(session, handle) => {
                    self.sessions.insert(session, handle);
                }
                News::Went(session) => {
                    self.sessions.remove(&session);
                }
            }
        }
    }

    /// How the peer of a session is reached now; `None` once it is over.
    pub fn path(&self, session: SessionId) -> Option<Path> {
        path(&self.sessions.get(&session)?.connection)
    }

    /// Says goodbye in all sessions, closes everything and lets go of the port. Bounded in time: 6 s
    /// at the most, nearly always far less.
    ///
    /// What it still tells the inbox may be left unread.
    pub async fn close(mut self) {
        self.stop.send_replace(true);
        self.read_news();
        for (_, handle) in self.sessions.drain() {
            handle.close(Bye::new(ByeCode::Leaving, "the node is stopping"));
        }
        // Those that come yet find nobody.
        drop(self.news);
        if timeout(FAREWELLS_MAX, &mut self.connections).await.is_err() {
            self.connections.abort();
            let _ = self.connections.await;
        }
        drop(self.hints);
        if let Some(gossip) = self.gossip.take() {
            let _ = timeout(CLOSE_MAX, gossip.shutdown()).await;
        }
        self.tasks.shutdown().await;
        let bound = self.endpoint.bound_sockets();
        if timeout(CLOSE_MAX, self.endpoint.close()).await.is_err() {
            debug!("the endpoint takes long to close and is left alone");
        }
        drop(self.endpoint);
        if timeout(CLOSE_MAX, until_free(&bound)).await.is_err() {
            debug!(?bound, "the ports are not free yet");
        }
    }
}

/// Waits until the addresses can be had again: iroh closes its sockets in a thread of its own.
async fn until_free(bound: &[SocketAddr]) {
    let is_free = |address: &SocketAddr| {
        !UdpSocket::bind(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    while !bound.iter().all(is_free) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) fn path(connection: &WeakConnectionHandle) -> Option<Path> {
    let connection = connection.upgrade()?;
    let paths = connection.paths();
    let path = paths.iter().find(|path| path.is_selected()).or_else(|| paths.iter().next())?;
    let via = match path.remote_addr() {
        TransportAddr::Relay(_) => Via::Relay,
        TransportAddr::Ip(address) if !is_public(address.ip().to_canonical()) => Via::Lan,
        _ => Via::Direct,
    };
    Some(Path {
        via,
        remote: match path.remote_addr() {
            TransportAddr::Ip(address) => address.to_string(),
            TransportAddr::Relay(url) => url.to_string(),
            other => other.to_string(),
        },
        rtt_ms: u64::try_from(path.rtt().as_millis()).unwrap_or(u64::MAX),
    })
}
