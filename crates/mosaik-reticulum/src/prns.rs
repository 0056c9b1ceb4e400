//! The Reticulum stack of this node: personal-rns, on a thread of its own.
//!
//! ```text
//! Order ─► Serving ─► commands of the stack ─► its thread ─► interfaces
//! Report ◄─ Serving ◄─ Event ◄── callbacks of the stack, and a look at its frames (tap)
//! ```
//!
//! What the stack needs, found by running it against rns 1.5.7:
//! - Its future isn't `Send`, so it has a thread with a runtime of one thread.
//! - Its callbacks run inside it and may not wait. They give everything in one order to
//!   [`serving::Serving`], which decides. Two reactions can't wait for that: how a link that has just
//!   come up greets Resources, and that a link whose other end is known may send them.
//! - The link's id is the same at both ends. To which destination an inbound link goes, and over which
//!   interface a link runs, only the frames tell: see [`tap`].
//! - A link packet has at most [`PACKET_MAX`] bytes, whatever MTU the link has; Resources use all of it.
//! - A link packet to a destination that doesn't prove ends as timed out after 6 RTT and a second. That
//!   says nothing, so packets of [`Service::Feed`] count as gone once the stack has them.
//! - Of an interface whose connection is lost the links stay until they are stale, which takes up to
//!   12 minutes; the other end knows them under a connection that won't come back. They are closed here.
//! - Each end reckons a link's keepalive from the RTT that it saw: clamp(RTT x 205.7, 5 s, 360 s). The
//!   end that opened it sends them, and closes the link two intervals and 5 s after it heard anything. The
//!   other answers only where its own interval since its last packet is over, so one that saw a longer
//!   RTT answers too seldom: an idle link then falls now and then. It is up to who needs one to open it.
//! - One Resource a link and direction: a second is refused while the first is under way.
//! - rns offers a Resource before it knows of it, so a wish for its parts that comes at once is lost.
//!   The stack asks again after about a second; between two of these stacks nothing is lost.
//! - Announces wait for nobody: of an interface that is offline they are lost, and what was queued for a
//!   connection of rnsd that broke is dropped, as its links are gone.
//! - An inbound handshake that isn't completed is remembered for six minutes: see [`gate`].
//!
//! Invariants:
//! - [`Prns::carry`] never waits. What finds no room closes its link or is answered with bad news.
//! - The two destinations share one identity, and nothing of it is logged but its hash.

mod attach;
mod ceiling;
mod gate;
mod identity;
mod peers;
mod rnsd;
mod serving;
mod tap;

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use personal_rns::{
    Diagnostic, GrowableHeap, ManuallyAttached, Message, NoPersistence, PreConfiguredDestination,
    PrnsCommand, PrnsEvent, PrnsNode, PrnsNodeHandle, PrnsNodeRecipe, ProofStrategy, RatchetPolicy,
    ResourceMemoryLimits, ResourceStrategy,
    engine::{
        CommandId, Identify, LinkClosedReason, MAX_SEND_TO_LINK_PLAINTEXT_LEN, SetResourceStrategy,
        Settlement,
    },
    identity::IdentityHash,
    interfaces::InterfaceId,
    request_endpoints,
    routing::{
        LinkRequestPolicy,
        announce::{AnnounceObservation, derive_destination_hash},
        delivery::Delivery,
        links::LinkId,
    },
    runtime::{
        CryptoPoolConfig, ResourceAdmissionPeer, ResourceOfferAdmission, ServeMyRequestEndpoints,
    },
    units::ByteLimit,
};
use tokio::sync::{broadcast, mpsc, oneshot};
use tracing::{debug, error};

pub use self::{
    attach::AttachError,
    identity::{Identity, IdentityError},
    rnsd::RnsdError,
};
use self::{
    serving::{Refused, Serving},
    tap::{Lookout, name_hash},
};
use crate::{
    airtime::Ceiling,
    stack::{Interface, Link, Order, Peer, PublicKeys, Report, Service},
    via::Via,
};

/// Bytes of a link packet at most, on every interface.
pub const PACKET_MAX: usize = MAX_SEND_TO_LINK_PLAINTEXT_LEN;

/// Links at most, those included that come up. Above, own ones are not opened and requests of others
/// not answered.
///
/// A guess: a radio island has some 30 nodes, and meshlogd has two links a pair.
pub const LINKS_MAX: usize = 128;

/// Bytes of a Resource that may come in, at most: more would come in segments, which nobody sends.
pub const RESOURCE_LEN_LIMIT: usize = (1 << 20) - 1;

/// Orders that wait for the stack at most.
const ORDERS_MAX: usize = 1024;

/// Reports that wait for the node at most, besides those that wait for them.
const REPORTS_MAX: usize = 64;

/// Broadcasts that wait for an interface at most.
const BROADCASTS_MAX: usize = 16;

/// Bytes that have come and wait for the node at most. Above, the link that they came on is closed.
const INBOUND_MAX: usize = 8 << 20;

/// Bytes of Resources that the stack holds at most, in each direction.
const RESOURCES_MAX: usize = 16 << 20;

/// What a stack is started with.
#[derive(Debug, Clone)]
pub struct PrnsConfig {
    /// The file with the identity. Made at the first start.
    pub identity: PathBuf,
    /// The ways in, at least one; the first has the [`Interface`] 0.
    pub ways: Vec<Way>,
    /// The configuration directory of the `rnsd` of [`Via::Rnsd`]; none for the one that rns takes.
    pub rns_config: Option<PathBuf>,
    /// Whether this node has the destination `meshlog.sync` too.
    pub meshlog: bool,
    /// Whether broadcasts are sent and taken.
    pub broadcasts: bool,
    /// Bytes of a Resource that comes in, uncompressed, at most; at most [`RESOURCE_LEN_LIMIT`].
    pub resource_len_max: usize,
}

/// A way in, and what may be sent on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Which.
    pub via: Via,
    /// At most so much, whoever wants it; none for what needs no limit.
    pub ceiling: Option<Ceiling>,
}

impl From<Via> for Way {
    fn from(via: Via) -> Self {
        Self { via, ceiling: None }
    }
}

/// Why a stack doesn't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// There is no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The `rnsd` can't be used.
    #[error(transparent)]
    Rnsd(#[from] RnsdError),
    /// An interface can't be made.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The system gives no thread.
    #[error("cannot start the thread of the Reticulum stack")]
    Thread(#[source] io::Error),
    /// The stack ended while it started. The log has more.
    #[error("the Reticulum stack ended while it started")]
    Ended,
}

/// A running stack.
#[derive(Debug)]
pub struct Prns {
    orders: mpsc::Sender<Order>,
    refused: Arc<Mutex<VecDeque<Refused>>>,
    ended: oneshot::Receiver<()>,
    identity: Arc<Identity>,
}

impl Prns {
    /// Starts a stack. Returns when its interfaces are there, which isn't when they are online.
    ///
    /// Blocks for as long as it takes to read a file and to bind a socket.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing runs then.
    pub fn start(config: PrnsConfig) -> Result<(Self, mpsc::Receiver<Report>), StartError> {
        let identity = Arc::new(Identity::load_or_create(&config.identity)?);
        let (orders, orders_in) = mpsc::channel(ORDERS_MAX);
        let (reports, reports_out) = mpsc::channel(REPORTS_MAX);
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let (over, ended) = oneshot::channel();
        let refused = Arc::default();
        let stack = Stack {
            identity: Arc::clone(&identity),
            config,
            orders: orders_in,
            refused: Arc::clone(&refused),
            reports,
        };
        thread::Builder::new()
            .name("reticulum".to_owned())
            .spawn(move || {
                stack.run(&ready);
                let _ = over.send(());
            })
            .map_err(StartError::Thread)?;
        started.recv().unwrap_or(Err(StartError::Ended))?;
        Ok((Self { orders, refused, ended, identity }, reports_out))
    }

    /// Whose stack it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Carries out an order. Never waits.
    ///
    /// Where more orders wait than may: a `Send` or a `Close` closes its link, an `Open` is answered
    /// by `Unreachable`, and an `Announce` or a `Broadcast` isn't made.
    pub fn carry(&self, order: Order) {
        if let Err(mpsc::error::TrySendError::Full(order)) = self.orders.try_send(order) {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            if refused.len() < ORDERS_MAX {
                refused.extend(Refused::of(&order));
            }
        }
    }

    /// Closes all links, and stops. Nothing is told any more.
    pub async fn close(self) {
        drop(self.orders);
        // An error means that the thread is gone already.
        let _ = self.ended.await;
    }
}

/// Where in the stack an interface is: which of the configuration's, and which connection of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    interface: Interface,
    id: InterfaceId,
}

/// What the stack and its interfaces tell, in the order in which it happened.
#[derive(Debug)]
enum Event {
    /// A request for a link to one of our destinations is about to reach the stack.
    Requested {
        link: Link,
        service: Service,
        place: Place,
    },
    /// An answer to a request of ours is about to reach the stack.
    Answered {
        link: Link,
        place: Place,
    },
    /// The connection behind an interface is over for good.
    Ended {
        place: Place,
    },
    /// Somebody connected to a listening socket.
    Accepted {
        interface: Interface,
        stream: tokio::net::TcpStream,
        from: std::net::SocketAddr,
    },
    Heard {
        service: Service,
        peer: Peer,
        app_data: Vec<u8>,
        hops: u8,
        from: InterfaceId,
    },
    /// The same, with what the stack knows of the peer.
    Known {
        service: Service,
        keys: Option<PublicKeys>,
        app_data: Vec<u8>,
        hops: u8,
        from: InterfaceId,
    },
    /// A broadcast was heard.
    Overheard {
        interface: Interface,
        bytes: Vec<u8>,
    },
    /// An inbound link is up.
    Established {
        link: Link,
        rtt_ms: u64,
    },
    Identified {
        link: Link,
        peer: Peer,
    },
    Closed {
        link: Link,
        reason: LinkClosedReason,
    },
    Received {
        link: Link,
        bytes: Vec<u8>,
    },
    /// More came on a link than there is room for.
    Overrun {
        link: Link,
    },
    Settled {
        id: CommandId,
        settlement: Settlement,
    },
    /// A Resource is through, or not.
    Sent {
        link: Link,
        token: u64,
        result: Result<(), String>,
    },
}

/// What goes to the thread.
struct Stack {
    config: PrnsConfig,
    identity: Arc<Identity>,
    orders: mpsc::Receiver<Order>,
    refused: Arc<Mutex<VecDeque<Refused>>>,
    reports: mpsc::Sender<Report>,
}

impl Stack {
    fn run(self, ready: &std::sync::mpsc::SyncSender<Result<(), StartError>>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = ready.send(Err(StartError::Thread(error)));
                return;
            }
        };
        runtime.block_on(self.live(ready));
        // What a blocking task still compresses is for nobody.
        runtime.shutdown_background();
    }

    async fn live(self, ready: &std::sync::mpsc::SyncSender<Result<(), StartError>>) {
        let (events, events_in) = mpsc::unbounded_channel();
        let services = self.services();
        let lookout = Lookout {
            services: services
                .iter()
                .map(|service| {
                    let name = name_hash(*service);
                    let peer = IdentityHash::new(self.identity.peer().0);
                    (*service, derive_destination_hash(&peer, &name), name)
                })
                .collect(),
            peers: Arc::default(),
            full: Arc::new(AtomicBool::new(false)),
            broadcasts: self.config.broadcasts.then(|| broadcast::Sender::new(BROADCASTS_MAX)),
            events: events.clone(),
        };
        let waiting = Arc::new(AtomicUsize::new(0));
        let node = self.node(&services, &events, &waiting);
        let handle = node.handle();
        let attached = attach::all(&self.config, &handle, &lookout).await;
        let attached = match attached {
            Ok(attached) => attached,
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        let _ = ready.send(Ok(()));
        let serving = Serving::new(handle, lookout, attached, waiting);
        // A task of its own: beside the stack in one task, a flood of frames would use up its turns.
        let serving = tokio::spawn(serving.run(self.orders, self.reports, self.refused, events_in));
        let stopped = async {
            if let Err(failed) = serving.await {
                error!(%failed, "the Reticulum stack is served no more");
            }
        };
        if let Err(failed) = Box::pin(node.run_until(stopped)).await {
            error!(%failed, "the Reticulum stack ended");
        }
    }

    fn services(&self) -> Vec<Service> {
        match self.config.meshlog {
            true => vec![Service::Feed, Service::Meshlog],
            false => vec![Service::Feed],
        }
    }

    /// The stack itself, with all that it calls back.
    fn node(
        &self,
        services: &[Service],
        events: &mpsc::UnboundedSender<Event>,
        waiting: &Arc<AtomicUsize>,
    ) -> PrnsNode<
        (),
        impl personal_rns::runtime::request_endpoints::RequestEndpointSet<()> + use<>,
        impl FnMut(PrnsEvent<'_>, &()) + use<>,
        GrowableHeap,
    > {
        let (told, heard) = (events.clone(), events.clone());
        let waiting = Arc::clone(waiting);
        let resource_len_max = self.config.resource_len_max.min(RESOURCE_LEN_LIMIT) as u64;
        let me = IdentityHash::new(self.identity.peer().0);
        let watched = services.to_vec();
        let destinations: Vec<_> =
            services.iter().map(|service| self.destination(*service)).collect();
        PrnsNode::new_with_handle(|handle| PrnsNodeRecipe {
            transport_identity: None,
            pre_configured_destinations: destinations,
            app_state: (),
            storage: GrowableHeap,
            request_endpoints: request_endpoints![],
            interfaces: ManuallyAttached,
            persistence: NoPersistence,
            on_event: move |event: PrnsEvent<'_>, _: &()| {
                greet(&handle, &event, me, resource_len_max);
                if let Some(event) = event_of(event, &waiting) {
                    let _ = told.send(event);
                }
            },
        })
        .with_accepted_announce_observer(move |announce| {
            let _ = service_of(&announce, &watched)
                .map(|service| {
                    heard.send(Event::Heard {
                        service,
                        peer: Peer(*announce.announced_identity.as_bytes()),
                        app_data: announce.app_data.to_vec(),
                        hops: announce.hops.0,
                        from: announce.source_interface,
                    })
                })
                .transpose();
        })
        .with_resource_memory_limits(ResourceMemoryLimits {
            incoming_bytes: RESOURCES_MAX,
            outgoing_bytes: RESOURCES_MAX,
        })
        // What a radio brings is little, and threads cost more than they bring.
        .with_crypto_pool(CryptoPoolConfig::Inline)
    }

    fn destination(&self, service: Service) -> PreConfiguredDestination<'static> {
        let (app_name, aspects): (_, &[&str]) = match service {
            Service::Feed => ("mosaik", &["feed"]),
            Service::Meshlog => ("meshlog", &["sync"]),
        };
        PreConfiguredDestination::Single {
            app_name,
            aspects,
            identity: self.identity.secret(),
            announce_app_data: &[],
            proof: match service {
                Service::Feed => ProofStrategy::ProveNone,
                Service::Meshlog => ProofStrategy::ProveAll,
            },
            link_requests: LinkRequestPolicy::AcceptAll,
            ratchet: RatchetPolicy::NoRatchets,
            // Asked about each: none is taken before the other end is known, see `greet`.
            resource_strategy: ResourceStrategy::AcceptIf,
            maximum_request_bytes: ByteLimit::Maximum(0),
            request_endpoints: ServeMyRequestEndpoints::No,
        }
    }
}

/// What a link needs before the next frame of the other end is looked at.
fn greet(handle: &PrnsNodeHandle, event: &PrnsEvent<'_>, me: IdentityHash, len_max: u64) {
    match event {
        PrnsEvent::Diagnostic(Diagnostic::CommandSettled {
            settlement: Settlement::EstablishLink(Ok(established)),
            ..
        }) => {
            let link_id = established.link_id;
            // Whom we asked for has proved to be it.
            let strategy = ResourceStrategy::Accept {
                max_uncompressed_bytes: len_max,
                accept_compressed: true,
            };
            handle
                .issue(PrnsCommand::SetResourceStrategy(SetResourceStrategy { link_id, strategy }));
            handle.issue(PrnsCommand::Identify(Identify { link_id, identity: me }));
        }
        PrnsEvent::Diagnostic(Diagnostic::PeerIdentified { link_id, identity }) => {
            let admission = ResourceOfferAdmission {
                peer: ResourceAdmissionPeer::Authenticated(*identity),
                max_uncompressed_bytes: len_max,
                accept_compressed: true,
            };
            // Whoever watches offers gets them; nobody does, and the rule stays.
            drop(handle.admit_resource_offers(*link_id, admission));
        }
        PrnsEvent::Diagnostic(_) | PrnsEvent::Message(_) => {}
    }
}

/// What of an event matters here.
fn event_of(event: PrnsEvent<'_>, waiting: &AtomicUsize) -> Option<Event> {
    let link = |id: LinkId| Link(*id.as_bytes());
    let received = |id: LinkId, bytes: &[u8]| {
        let link = link(id);
        let before = waiting.fetch_add(bytes.len(), Ordering::Relaxed);
        if before + bytes.len() <= INBOUND_MAX {
            return Some(Event::Received { link, bytes: bytes.to_vec() });
        }
        waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
        Some(Event::Overrun { link })
    };
    match event {
        PrnsEvent::Message(Message::Delivered(Delivery::Link(packet))) => {
            received(packet.link_id, packet.plaintext)
        }
        PrnsEvent::Message(Message::Resource { link_id, data, .. }) => received(link_id, data),
        PrnsEvent::Diagnostic(Diagnostic::LinkEstablished(established)) => {
            Some(Event::Established {
                link: link(established.link_id),
                rtt_ms: established.rtt_millis,
            })
        }
        PrnsEvent::Diagnostic(Diagnostic::PeerIdentified { link_id, identity }) => {
            Some(Event::Identified { link: link(link_id), peer: Peer(*identity.as_bytes()) })
        }
        PrnsEvent::Diagnostic(Diagnostic::LinkClosed { link_id, reason }) => {
            Some(Event::Closed { link: link(link_id), reason })
        }
        PrnsEvent::Diagnostic(Diagnostic::CommandSettled { id, settlement }) => {
            Some(Event::Settled { id, settlement })
        }
        PrnsEvent::Diagnostic(Diagnostic::ResourceFailed { link_id, cause, .. }) => {
            debug!(link = %link(link_id), ?cause, "a Resource failed");
            None
        }
        // Single packets, requests, channels and segments are nothing that our peers use; the rest is
        // what the stack tells of itself.
        PrnsEvent::Message(_) | PrnsEvent::Diagnostic(_) => None,
    }
}

/// Of which service an announce is.
fn service_of(announce: &AnnounceObservation<'_>, services: &[Service]) -> Option<Service> {
    let is = |service: &&Service| {
        derive_destination_hash(&announce.announced_identity, &name_hash(**service))
            == announce.destination
    };
    services.iter().find(is).copied()
}
