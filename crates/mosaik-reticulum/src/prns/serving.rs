//! Orders and events in, commands and reports out: the owner of what is known of links.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use mosaik_proto::carrier::Role;
use personal_rns::{
    DestinationHash, PrnsCommand, PrnsNodeHandle,
    engine::{
        AnnounceAppData, AnnounceNow, AnnounceTarget, CloseLink, CommandId, EstablishLink,
        EstablishLinkFailure, LinkClosedReason, LinkEstablished, PATH_REQUEST_ID_LEN,
        PathRequestId, RequestPath, SendToLink, SendToLinkFailure, SendToLinkPayload, Settlement,
    },
    identity::IdentityHash,
    interfaces::InterfaceId,
    node_introspection::DestinationIdentityQuery,
    routing::{announce::derive_destination_hash, links::LinkId},
};
use tokio::{
    sync::mpsc::{Receiver, Sender, UnboundedReceiver},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    Event, LINKS_MAX, PACKET_MAX, Place,
    attach::{self, Known},
    tap::{Lookout, broadcast_frame, name_hash},
};
use crate::stack::{
    APP_DATA_MAX, Interface, Link, Order, Outcome, Peer, PublicKeys, Report, Service,
};

/// How often interfaces are looked at, in milliseconds.
///
/// The stack says nothing when one goes; before a lost connection is tried again 125 ms pass.
const LOOK_MS: u64 = 100;

/// How long closing may take, in milliseconds: what is written then is one packet a link.
const CLOSE_MS: u64 = 1000;

/// How long interfaces have for the last frames, in milliseconds: a system call each, on a machine that
/// may be busy.
const FLUSH_MS: u64 = 100;

/// Handshakes of others that are remembered until their link is up, or until this many followed.
const HANDSHAKES_MAX: usize = 256;

/// Connections to one listening socket at most. Each has some 2 MB of buffers in the stack.
const MEMBERS_MAX: usize = 32;

/// Sends of a link that are not answered, at most.
const SENDS_MAX: usize = 64;

/// Bytes of Resources of a link that wait, at most.
const SEND_BYTES_MAX: usize = 4 << 20;

/// Reports that wait for room at the node. Above, nothing more is taken from anybody.
const PENDING_MAX: usize = 1024;

/// Announces whose peers are being looked up, at most. Above, they are lost, as on the air.
const LOOKUPS_MAX: usize = 64;

/// An order that found no room.
#[derive(Debug)]
pub(super) enum Refused {
    Link(Link),
    Open(Service, Peer),
}

impl Refused {
    /// What must be told of an order that isn't carried out; nothing of what isn't answered.
    pub(super) fn of(order: &Order) -> Option<Self> {
        match order {
            Order::Announce { .. } | Order::Broadcast { .. } => None,
            Order::Open { service, peer } => Some(Self::Open(*service, *peer)),
            Order::Send { link, .. } | Order::Close { link } => Some(Self::Link(*link)),
        }
    }
}

/// A link that is up.
struct Up {
    service: Service,
    place: Place,
    /// Resources that wait for their turn.
    queue: VecDeque<(u64, Vec<u8>)>,
    queued_bytes: usize,
    /// The Resource that is under way.
    sending: Option<u64>,
    /// Packets whose proof is awaited.
    unproved: Vec<u64>,
}

/// What a command was given for.
enum Command {
    /// The second time after a path was asked for.
    Open {
        service: Service,
        peer: Peer,
        again: bool,
    },
    Path {
        service: Service,
        peer: Peer,
    },
    Packet {
        link: Link,
        token: u64,
    },
}

pub(super) struct Serving {
    handle: PrnsNodeHandle,
    lookout: Lookout,
    interfaces: Vec<(Known, bool)>,
    members: Vec<Place>,
    /// What waits for room at the node.
    pending: VecDeque<Report>,
    /// Bytes that have come and weren't taken in by the node.
    waiting: Arc<AtomicUsize>,
    commands: HashMap<CommandId, Command>,
    /// Inbound handshakes: their links aren't up yet.
    requested: VecDeque<(Link, Service, Place)>,
    /// Where the other ends of our handshakes answered.
    answered: VecDeque<(Link, Place)>,
    links: HashMap<Link, Up>,
    /// Links of ours on their way up.
    opening: usize,
    lookups: usize,
}

impl Serving {
    pub(super) fn new(
        handle: PrnsNodeHandle,
        lookout: Lookout,
        attached: Vec<Known>,
        waiting: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            handle,
            lookout,
            interfaces: attached.into_iter().map(|known| (known, false)).collect(),
            members: Vec::new(),
            pending: VecDeque::new(),
            waiting,
            commands: HashMap::new(),
            requested: VecDeque::new(),
            answered: VecDeque::new(),
            links: HashMap::new(),
            opening: 0,
            lookups: 0,
        }
    }

    /// Serves until nobody gives orders or nobody takes reports; then closes all links.
    pub(super) async fn run(
        mut self,
        mut orders: Receiver<Order>,
        reports: Sender<Report>,
        refused: Arc<Mutex<VecDeque<Refused>>>,
        mut events: UnboundedReceiver<Event>,
    ) {
        for (known, _) in &self.interfaces {
            let online = known.view.is_none();
            self.pending.push_back(interface_report(known, online));
        }
        for (known, online) in &mut self.interfaces {
            *online = known.view.is_none();
        }
        let mut looks = interval(Duration::from_millis(LOOK_MS));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let room = self.pending.len() < PENDING_MAX;
            tokio::select! {
                permit = reports.reserve(), if !self.pending.is_empty() => {
                    let Ok(permit) = permit else { break };
                    if let Some(report) = self.pending.pop_front() {
                        if let Report::Received { bytes, .. } = &report {
                            self.waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
                        }
                        permit.send(report);
                    }
                }
                event = events.recv(), if room => {
                    // The lookout has a sender, so there always may be more.
                    if let Some(event) = event {
                        self.on_event(event);
                    }
                }
                order = orders.recv(), if room => {
                    let Some(order) = order else { break };
                    self.on_order(order);
                }
                _ = looks.tick() => self.look(),
            }
            let list = mem::take(&mut *refused.lock().unwrap_or_else(PoisonError::into_inner));
            for refused in list {
                self.on_refused(refused);
            }
            let count = self.links.len() + self.opening;
            self.lookout.full.store(count >= LINKS_MAX, Ordering::Relaxed);
        }
        self.close(&mut events).await;
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Announce { service, interface, app_data } => {
                self.announce(service, interface, &app_data);
            }
            Order::Open { service, peer } => self.open(service, peer),
            Order::Send { link, token, bytes } => self.send(link, token, bytes),
            Order::Broadcast { interface, bytes } => self.broadcast(interface, &bytes),
            Order::Close { link } => self.hang_up(link, "closed here"),
        }
    }

    fn on_refused(&mut self, refused: Refused) {
        match refused {
            Refused::Link(link) => self.hang_up(link, "more orders than the stack takes"),
            Refused::Open(service, peer) => {
                self.unreachable(service, peer, "more orders than the stack takes");
            }
        }
    }

    fn announce(&self, service: Service, interface: Interface, app_data: &[u8]) {
        let ours = self.lookout.services.iter().find(|(ours, ..)| *ours == service);
        let Some((_, destination, _)) = ours.filter(|_| app_data.len() <= APP_DATA_MAX) else {
            warn!(%service, len = app_data.len(), "an announce that can't be made");
            return;
        };
        let known = self.interfaces.iter().filter(|(known, _)| known.interface == interface);
        let members = self.members.iter().filter(|place| place.interface == interface);
        let own = known.filter_map(|(known, _)| known.id);
        for id in own.chain(members.map(|place| place.id)) {
            let Ok(data) = app_data.try_into() else { return };
            self.handle.issue(PrnsCommand::AnnounceNow(AnnounceNow {
                destination: *destination,
                target: AnnounceTarget::Interface(id),
                app_data: AnnounceAppData::Data(data),
            }));
        }
    }

    fn broadcast(&self, interface: Interface, bytes: &[u8]) {
        let Some((to, frame)) = self.lookout.broadcasts.as_ref().zip(broadcast_frame(bytes)) else {
            warn!(len = bytes.len(), "a broadcast that can't be made");
            return;
        };
        // Nobody listens where no interface is there.
        let _ = to.send((interface, frame.into()));
    }

    fn open(&mut self, service: Service, peer: Peer) {
        if self.links.len() + self.opening >= LINKS_MAX {
            return self.unreachable(service, peer, &format!("{LINKS_MAX} links are in use"));
        }
        self.opening += 1;
        self.establish(service, peer, false);
    }

    fn establish(&mut self, service: Service, peer: Peer, again: bool) {
        let destination = destination(service, peer);
        let command = PrnsCommand::EstablishLink(EstablishLink { destination });
        self.issue(command, Command::Open { service, peer, again });
    }

    fn issue(&mut self, command: PrnsCommand, purpose: Command) {
        match self.handle.issue(command) {
            Some(id) => {
                self.commands.insert(id, purpose);
            }
            None => self.failed(purpose, "the stack has stopped"),
        }
    }

    fn failed(&mut self, command: Command, reason: &str) {
        match command {
            Command::Open { service, peer, .. } | Command::Path { service, peer } => {
                self.opening -= 1;
                self.unreachable(service, peer, reason);
            }
            Command::Packet { link, token } => {
                self.packet_is(link, token, Outcome::Failed(reason.to_owned()));
            }
        }
    }

    fn unreachable(&mut self, service: Service, peer: Peer, reason: &str) {
        self.pending.push_back(Report::Unreachable { service, peer, reason: reason.to_owned() });
    }

    fn send(&mut self, link: Link, token: u64, bytes: Vec<u8>) {
        let refusal = match self.links.get(&link) {
            None => Some("no such link"),
            Some(_) if bytes.is_empty() => Some("nothing to send"),
            Some(up) if up.unanswered() >= SENDS_MAX => Some("too much is under way"),
            Some(up) if up.queued_bytes + bytes.len() > SEND_BYTES_MAX && up.queued_bytes > 0 => {
                Some("too many bytes wait")
            }
            Some(_) => None,
        };
        if let Some(reason) = refusal {
            return self.sent(link, token, Outcome::Failed(reason.to_owned()));
        }
        let Some(up) = self.links.get_mut(&link) else { return };
        let link_id = LinkId::new(link.0);
        match SendToLinkPayload::from_slice(&bytes) {
            Ok(payload) => {
                let command = PrnsCommand::SendToLink(SendToLink { link_id, payload });
                if up.service == Service::Meshlog {
                    up.unproved.push(token);
                    self.issue(command, Command::Packet { link, token });
                } else {
                    let outcome = match self.handle.issue(command) {
                        Some(_) => Outcome::Left,
                        None => Outcome::Failed("the stack has stopped".to_owned()),
                    };
                    self.sent(link, token, outcome);
                }
            }
            Err(()) => {
                up.queued_bytes += bytes.len();
                up.queue.push_back((token, bytes));
                self.next_resource(link);
            }
        }
    }

    /// Starts the link's next Resource, if none is under way.
    fn next_resource(&mut self, link: Link) {
        let Some(up) = self.links.get_mut(&link) else { return };
        if up.sending.is_some() {
            return;
        }
        let Some((token, bytes)) = up.queue.pop_front() else { return };
        up.queued_bytes -= bytes.len();
        up.sending = Some(token);
        let (handle, events) = (self.handle.clone(), self.lookout.events.clone());
        tokio::spawn(async move {
            let id = LinkId::new(link.0);
            let sent = handle.send_resource(id, bytes.len() as u64, &bytes[..]).await;
            let result = sent.map_err(|error| format!("{error:?}"));
            let _ = events.send(Event::Sent { link, token, result });
        });
    }

    fn sent(&mut self, link: Link, token: u64, outcome: Outcome) {
        self.pending.push_back(Report::Sent { link, token, outcome });
    }

    /// A packet whose proof was awaited is through, or it isn't.
    fn packet_is(&mut self, link: Link, token: u64, outcome: Outcome) {
        // With its link gone it has its answer.
        let Some(up) = self.links.get_mut(&link) else { return };
        let Some(index) = up.unproved.iter().position(|waits| *waits == token) else { return };
        up.unproved.swap_remove(index);
        self.sent(link, token, outcome);
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Requested { link, service, place } => {
                remember(&mut self.requested, (link, service, place));
            }
            Event::Answered { link, place } => remember(&mut self.answered, (link, place)),
            Event::Ended { place } => self.on_ended(place),
            Event::Accepted { interface, stream, from } => {
                self.on_accepted(interface, stream, from);
            }
            Event::Heard { service, peer, app_data, hops, from } => {
                self.look_up(service, peer, app_data, hops, from);
            }
            Event::Known { service, keys, app_data, hops, from } => {
                self.on_known(service, keys, app_data, hops, from);
            }
            Event::Overheard { interface, bytes } => {
                self.pending.push_back(Report::Overheard { interface, bytes });
            }
            Event::Established { link, rtt_ms } => self.on_established(link, rtt_ms),
            Event::Identified { link, peer } => {
                if self.links.contains_key(&link) {
                    self.pending.push_back(Report::Identified { link, peer });
                }
            }
            Event::Closed { link, reason } => self.down(
                link,
                match reason {
                    LinkClosedReason::Timeout => "nothing was heard any more",
                    LinkClosedReason::PeerClosed => "closed by the other end",
                    LinkClosedReason::MalformedRtt => "the handshake was malformed",
                },
            ),
            Event::Received { link, bytes } => {
                if self.links.contains_key(&link) {
                    self.pending.push_back(Report::Received { link, bytes });
                } else {
                    self.waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
                }
            }
            Event::Overrun { link } => self.hang_up(link, "more came than was taken in"),
            Event::Settled { id, settlement } => {
                if let Some(command) = self.commands.remove(&id) {
                    self.on_settled(command, settlement);
                }
            }
            Event::Sent { link, token, result } => self.on_sent(link, token, result),
        }
    }

    fn on_settled(&mut self, command: Command, settlement: Settlement) {
        match (command, settlement) {
            (Command::Open { service, peer, .. }, Settlement::EstablishLink(Ok(established))) => {
                self.opening -= 1;
                self.on_opened(service, peer, established);
            }
            // Not heard since the start, or forgotten: somebody on the way may know it.
            (
                Command::Open { service, peer, again: false },
                Settlement::EstablishLink(Err(EstablishLinkFailure::Rejected(_))),
            ) => {
                let mut id = [0; PATH_REQUEST_ID_LEN];
                self.handle.fill_entropy(&mut id);
                let (destination, id) = (destination(service, peer), PathRequestId::new(id));
                let command = PrnsCommand::RequestPath(RequestPath { destination, id });
                self.issue(command, Command::Path { service, peer });
            }
            (Command::Path { service, peer }, Settlement::RequestPath(Ok(_))) => {
                self.establish(service, peer, true);
            }
            (Command::Packet { link, token }, Settlement::SendToLink(result)) => {
                let outcome = match result {
                    Ok(_) => Outcome::Proved,
                    Err(SendToLinkFailure::Timeout | SendToLinkFailure::Culled) => Outcome::Left,
                    Err(failure) => Outcome::Failed(format!("{failure:?}")),
                };
                self.packet_is(link, token, outcome);
            }
            (command, settlement) => {
                let reason = format!("{settlement:?}");
                self.failed(command, &reason);
            }
        }
    }

    /// A link of ours is up. That it shows who we are is under way already.
    fn on_opened(&mut self, service: Service, peer: Peer, established: LinkEstablished) {
        let link = Link(*established.link_id.as_bytes());
        let answered = self.answered.iter().position(|(answered, _)| *answered == link);
        let Some((_, place)) = answered.and_then(|index| self.answered.remove(index)) else {
            // An answer that never came can't have brought a link up.
            self.handle.close_link(established.link_id);
            return self.unreachable(service, peer, "the link is not known");
        };
        self.up(link, service, Some(peer), Role::Dialer, established.rtt_millis, place);
    }

    fn on_established(&mut self, link: Link, rtt_ms: u64) {
        let requested = self.requested.iter().position(|(requested, ..)| *requested == link);
        let requested = requested.and_then(|index| self.requested.remove(index));
        let Some((_, service, place)) = requested.filter(|_| self.links.len() < LINKS_MAX) else {
            debug!(%link, "a link that there is no room for");
            self.handle.close_link(LinkId::new(link.0));
            return;
        };
        self.up(link, service, None, Role::Listener, rtt_ms, place);
    }

    fn up(
        &mut self,
        link: Link,
        service: Service,
        peer: Option<Peer>,
        role: Role,
        rtt_ms: u64,
        place: Place,
    ) {
        let up = Up {
            service,
            place,
            queue: VecDeque::new(),
            queued_bytes: 0,
            sending: None,
            unproved: Vec::new(),
        };
        self.links.insert(link, up);
        let rtt_ms = u32::try_from(rtt_ms).unwrap_or(u32::MAX);
        let (packet_max, interface) = (PACKET_MAX, place.interface);
        let report = Report::Up { link, service, peer, role, rtt_ms, packet_max, interface };
        self.pending.push_back(report);
    }

    fn on_sent(&mut self, link: Link, token: u64, result: Result<(), String>) {
        // With its link gone it has its answer; and a link has no second with the same id.
        let Some(up) = self.links.get_mut(&link).filter(|up| up.sending == Some(token)) else {
            return;
        };
        up.sending = None;
        let outcome = result.map_or_else(Outcome::Failed, |()| Outcome::Proved);
        self.sent(link, token, outcome);
        self.next_resource(link);
    }

    fn on_accepted(
        &mut self,
        interface: Interface,
        stream: tokio::net::TcpStream,
        from: std::net::SocketAddr,
    ) {
        let there = self.members.iter().filter(|place| place.interface == interface).count();
        if there >= MEMBERS_MAX {
            warn!(%from, there, "no room for another connection of Reticulum");
            return;
        }
        let listening = self.interfaces.iter().find(|(known, _)| known.interface == interface);
        let Some((listening, _)) = listening else { return };
        let place = attach::member(&self.handle, &self.lookout, listening, stream, from);
        self.members.push(place);
    }

    fn on_ended(&mut self, place: Place) {
        self.members.retain(|member| member.id != place.id);
        self.handle.forget_interface(place.id);
        self.lose(place.id);
    }

    /// Looks at what the stack says of its interfaces.
    fn look(&mut self) {
        let mut lost = Vec::new();
        for (known, was) in &mut self.interfaces {
            let Some(view) = &known.view else { continue };
            let online = view().iter().any(|vitals| vitals.connection.is_online());
            if mem::replace(was, online) != online {
                self.pending.push_back(interface_report(known, online));
                lost.extend(known.id.filter(|_| !online));
            }
        }
        for id in lost {
            self.lose(id);
        }
    }

    /// Closes the links of a connection that is gone.
    fn lose(&mut self, id: InterfaceId) {
        let over = |(link, up): (&Link, &Up)| (up.place.id == id).then_some(*link);
        let links: Vec<_> = self.links.iter().filter_map(over).collect();
        for link in links {
            self.hang_up(link, "the interface's connection is lost");
        }
    }

    /// Asks the stack for the keys of a peer that was heard.
    fn look_up(
        &mut self,
        service: Service,
        peer: Peer,
        app_data: Vec<u8>,
        hops: u8,
        from: InterfaceId,
    ) {
        if app_data.len() > APP_DATA_MAX || self.lookups >= LOOKUPS_MAX {
            debug!(%peer, len = app_data.len(), "an announce that is not taken in");
            return;
        }
        self.lookout.peers.heard(&destination(service, peer), Instant::now());
        self.lookups += 1;
        let (handle, events) = (self.handle.clone(), self.lookout.events.clone());
        tokio::spawn(async move {
            let query = DestinationIdentityQuery::Destination(destination(service, peer));
            let found = handle.destination_identity(query).await;
            let keys = found.map(|known| PublicKeys(*known.public.as_bytes()));
            let _ = events.send(Event::Known { service, keys, app_data, hops, from });
        });
    }

    fn on_known(
        &mut self,
        service: Service,
        keys: Option<PublicKeys>,
        app_data: Vec<u8>,
        hops: u8,
        from: InterfaceId,
    ) {
        self.lookups -= 1;
        let known = self.interfaces.iter().find(|(known, _)| known.id == Some(from));
        let member = self.members.iter().find(|place| place.id == from);
        let interface =
            known.map(|(known, _)| known.interface).or(member.map(|place| place.interface));
        // An interface that is gone, or a peer that was forgotten: as if it were never heard.
        let (Some(interface), Some(keys)) = (interface, keys) else { return };
        let peer = keys.peer();
        self.pending.push_back(Report::Heard { service, peer, keys, app_data, hops, interface });
    }

    /// Closes a link from here.
    fn hang_up(&mut self, link: Link, reason: &str) {
        if self.links.contains_key(&link) {
            self.handle.close_link(LinkId::new(link.0));
            self.down(link, reason);
        }
    }

    fn down(&mut self, link: Link, reason: &str) {
        let Some(up) = self.links.remove(&link) else { return };
        let waiting = up.queue.into_iter().map(|(token, _)| token);
        for token in up.sending.into_iter().chain(up.unproved).chain(waiting) {
            self.sent(link, token, Outcome::Failed(reason.to_owned()));
        }
        self.pending.push_back(Report::Down { link, reason: reason.to_owned() });
    }

    /// Closes all links, and lets the stack write it.
    async fn close(mut self, events: &mut UnboundedReceiver<Event>) {
        let close = |link: &Link| {
            let link_id = LinkId::new(link.0);
            self.handle.issue(PrnsCommand::CloseLink(CloseLink { link_id }))
        };
        let mut closing: Vec<_> = self.links.keys().filter_map(close).collect();
        self.links.clear();
        let settled = async {
            while !closing.is_empty() {
                match events.recv().await {
                    Some(Event::Settled { id, .. }) => closing.retain(|waits| *waits != id),
                    Some(_) => {}
                    None => return,
                }
            }
        };
        let _ = timeout(Duration::from_millis(CLOSE_MS), settled).await;
        // The frames are with the interfaces now, which write them when they have their turn.
        sleep(Duration::from_millis(FLUSH_MS)).await;
    }
}

impl Up {
    fn unanswered(&self) -> usize {
        self.queue.len() + self.unproved.len() + usize::from(self.sending.is_some())
    }
}

/// The hash of a peer's destination.
fn destination(service: Service, peer: Peer) -> DestinationHash {
    derive_destination_hash(&IdentityHash::new(peer.0), &name_hash(service))
}

fn remember<T>(list: &mut VecDeque<T>, item: T) {
    if list.len() >= HANDSHAKES_MAX {
        list.pop_front();
    }
    list.push_back(item);
}

fn interface_report(known: &Known, online: bool) -> Report {
    Report::Interface {
        interface: known.interface,
        name: known.name.clone(),
        bitrate: known.bitrate,
        online,
    }
}
