//! A look at every frame between an interface and the stack.
//!
//! The stack tells when a link is up, but not to which destination an inbound one goes, nor over
//! which interface it runs. Both are in the clear on the wire, in the handshake's frames, and pass
//! here before the stack sees them.
//!
//! Invariants:
//! - An announce of a destination that isn't ours to care for ends here. A node that forwards for
//!   nobody needs no others, and a public network has thousands: each would cost a signature check
//!   and a row in tables that grow.
//! - While no more links are wanted, a request for one ends here, so it is never answered on the air.
//! - Requests and announces come in no faster than this node wants to work for them.
//! - Nothing goes out above an interface's ceiling, whoever wanted it.
//! - A frame longer than the interface's may be is dropped before it takes room.
//! - Broadcasts begin and end here, as packets of a PLAIN destination: the stack's node sends none of those,
//!   and has no way to register a GROUP one. And rnsd passes nothing but PLAIN ones on between its clients
//!   and its interfaces; what is in them is sealed in any case.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use personal_rns::{
    DestinationHash,
    interfaces::{
        ConnectionView, FrameSink, FrameSinkError, InterfaceDescriptor, InterfaceKind,
        InterfaceOriginKind, PacketPhyStats, ReportsStatus, StatusView, frame_cap_for,
    },
    manifold::interface_seam::{Interface as Attached, InterfaceSeam, OutboundDisposition},
    routing::{
        announce::{DottedNameHash, derive_plain_destination_hash, expand_name},
        links::LinkId,
    },
    wire::{
        ContextFlag, DestinationType, IfacFlag, PacketType, PropagationType, WireContext,
        WirePacketHeader,
    },
};
use tokio::sync::{
    broadcast::{self, error::RecvError},
    mpsc::UnboundedSender,
};
use tracing::trace;

use super::{Event, Place, gate::Gate, peers::Peers};
use crate::{
    airtime::HEADER_LEN,
    stack::{BROADCAST_MAX, Interface, Link, Service},
};

/// Where the name's hash begins in an announce, behind the public keys.
const ANNOUNCE_NAME: usize = 64;
/// Public keys at the beginning of a link request, and of the first of the two.
const REQUEST_KEYS: usize = 64;

/// A broadcast's frame, and the interface that it goes out on.
pub(super) type Outgoing = (Interface, Arc<[u8]>);

/// What all taps of a stack look at, and whom they tell.
#[derive(Clone)]
pub(super) struct Lookout {
    /// Ours: each service with its destination and the hash of its name.
    pub(super) services: Arc<[(Service, DestinationHash, DottedNameHash)]>,
    pub(super) peers: Arc<Peers>,
    /// Set while there are as many links as there may be.
    pub(super) full: Arc<AtomicBool>,
    /// Broadcasts on their way out; none where none are sent or taken.
    pub(super) broadcasts: Option<broadcast::Sender<Outgoing>>,
    /// Told before the stack sees the frame, so what follows from it is told later.
    pub(super) events: UnboundedSender<Event>,
}

impl Lookout {
    /// Whether this is the hash of a service's name that we have too.
    fn names(&self, hash: &[u8; 10]) -> bool {
        self.services.iter().any(|(_, _, ours)| ours.as_bytes() == hash)
    }
}

/// Where broadcasts go.
fn all_around() -> DestinationHash {
    let name = expand_name("mosaik", &["broadcast"]).expect("our names are short and have no dots");
    derive_plain_destination_hash(&name)
}

/// A broadcast as it is on the wire; none of one that is too long.
pub(super) fn broadcast_frame(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() > BROADCAST_MAX {
        return None;
    }
    let header = WirePacketHeader {
        ifac_flag: IfacFlag::Open,
        context_flag: ContextFlag::Unset,
        propagation: PropagationType::Broadcast,
        destination_type: DestinationType::Plain,
        packet_type: PacketType::Data,
        hops: 0,
        transport_id: None,
        address: all_around().to_address(),
        context: WireContext::None,
    };
    let mut frame = vec![0; HEADER_LEN];
    let written = header.write(&mut frame).ok()?;
    frame.truncate(written);
    frame.extend_from_slice(bytes);
    Some(frame)
}

/// The hash of a service's name, as announces carry it.
pub(super) fn name_hash(service: Service) -> DottedNameHash {
    let (app, aspect) = service.name();
    expand_name(app, &[aspect]).expect("our names are short and have no dots")
}

/// The lookout at one place.
#[derive(Clone)]
struct Tap {
    lookout: Lookout,
    place: Place,
    gate: Arc<Gate>,
}

impl Tap {
    /// Whether the stack shall see a frame that came in.
    fn lets_in(&self, frame: &[u8]) -> bool {
        let Ok((header, payload)) = WirePacketHeader::parse(frame) else {
            return false;
        };
        match (header.packet_type, header.context) {
            (PacketType::Announce, _) => {
                let name = payload.get(ANNOUNCE_NAME..).and_then(|rest| rest.first_chunk());
                let of = DestinationHash::from_address(header.address);
                let now = Instant::now();
                name.is_some_and(|name| self.lookout.names(name))
                    && self.lookout.peers.have_room(&of, now)
                    && self.gate.admits_announce(now)
            }
            (PacketType::LinkRequest, _) => {
                let to = DestinationHash::from_address(header.address);
                let service = self.lookout.services.iter().find(|(_, ours, _)| *ours == to);
                let (Some((service, ..)), Some(keys)) = (service, payload.first_chunk()) else {
                    return false;
                };
                if self.lookout.full.load(Ordering::Relaxed)
                    || !self.gate.admits_request(Instant::now())
                {
                    return false;
                }
                let link = requested(&to, keys);
                self.tell(Event::Requested { link, service: *service, place: self.place });
                true
            }
            (PacketType::Data, WireContext::None)
                if header.destination_type == DestinationType::Plain =>
            {
                // Nothing else that is in the clear is of use here.
                let is_ours = DestinationHash::from_address(header.address) == all_around()
                    && header.hops == 0
                    && payload.len() <= BROADCAST_MAX
                    && self.lookout.broadcasts.is_some();
                if is_ours && self.gate.admits_broadcast(Instant::now()) {
                    let (interface, bytes) = (self.place.interface, payload.to_vec());
                    self.tell(Event::Overheard { interface, bytes });
                }
                !is_ours
            }
            (PacketType::Proof, WireContext::LinkRequestProof) => {
                let link = Link(*header.address.as_bytes());
                self.tell(Event::Answered { link, place: self.place });
                true
            }
            _ => true,
        }
    }

    /// Whether the interface shall send a frame.
    fn lets_out(&self, frame: &[u8]) -> bool {
        let lets = self.gate.lets_out(frame, Instant::now());
        if !lets {
            trace!(interface = self.place.interface.0, len = frame.len(), "above the ceiling");
        }
        lets
    }

    fn tell(&self, event: Event) {
        // Nobody listens any more only while the stack stops.
        let _ = self.lookout.events.send(event);
    }
}

/// The id of the link that this request asks for.
fn requested(to: &DestinationHash, keys: &[u8; REQUEST_KEYS]) -> Link {
    let (encryption, signing) = keys.split_at(REQUEST_KEYS / 2);
    let half = |bytes: &[u8]| *bytes.first_chunk().expect("it was split in the middle");
    let encryption = personal_rns::crypto::X25519PublicKey(half(encryption));
    let signing = personal_rns::crypto::Ed25519PublicKey(half(signing));
    Link(*LinkId::derive(to, &encryption, &signing).as_bytes())
}

/// An interface that is looked at.
pub(super) struct Tapped<I> {
    inner: I,
    tap: Tap,
}

impl<I> Tapped<I> {
    pub(super) fn new(inner: I, place: Place, lookout: Lookout, gate: Arc<Gate>) -> Self {
        Self { inner, tap: Tap { lookout, place, gate } }
    }
}

impl<I: Attached> Attached for Tapped<I> {
    const HW_MTU: usize = I::HW_MTU;
    const KIND: InterfaceKind = I::KIND;

    fn channel_tag(&self) -> &[u8] {
        self.inner.channel_tag()
    }

    fn descriptor(&self) -> InterfaceDescriptor {
        self.inner.descriptor()
    }

    async fn run<S: InterfaceSeam>(self, seam: S) {
        let frame = Frame { bytes: Vec::new(), cap: frame_cap_for(&self.inner.descriptor()) };
        let tap = self.tap.clone();
        let out = Vec::new();
        let broadcasts = tap.lookout.broadcasts.as_ref().map(broadcast::Sender::subscribe);
        self.inner.run(TapSeam { seam, frame, out, broadcasts, tap: self.tap }).await;
        tap.tell(Event::Ended { place: tap.place });
    }
}

impl<I: ReportsStatus> ReportsStatus for Tapped<I> {
    fn status_view(&self) -> Option<StatusView> {
        self.inner.status_view()
    }

    fn connection_view(&self) -> Option<ConnectionView> {
        self.inner.connection_view()
    }
}

/// The interface's side of the boundary, with a frame of its own to look at before it goes on.
pub(super) struct TapSeam<S> {
    seam: S,
    /// Being received.
    frame: Frame,
    /// Being sent, where there is a ceiling or a broadcast.
    out: Vec<u8>,
    /// What this node broadcasts.
    broadcasts: Option<broadcast::Receiver<Outgoing>>,
    tap: Tap,
}

/// The next broadcast that goes out on an interface.
async fn next_broadcast(
    broadcasts: &mut Option<broadcast::Receiver<Outgoing>>,
    interface: Interface,
) -> Arc<[u8]> {
    while let Some(receiver) = broadcasts {
        match receiver.recv().await {
            Ok((on, frame)) if on == interface => return frame,
            // What found no room is lost, as on air.
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => *broadcasts = None,
        }
    }
    pending().await
}

impl<S: InterfaceSeam> TapSeam<S> {
    /// A broadcast that waits, if one does.
    fn waiting_broadcast(&mut self) -> Option<Arc<[u8]>> {
        loop {
            match self.broadcasts.as_mut()?.try_recv() {
                Ok((on, frame)) if on == self.tap.place.interface => return Some(frame),
                Ok(_) | Err(broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => return None,
            }
        }
    }
}

impl<S: InterfaceSeam> InterfaceSeam for TapSeam<S> {
    fn interface_origin(&self) -> InterfaceOriginKind {
        self.seam.interface_origin()
    }

    fn fill_entropy(&mut self, bytes: &mut [u8]) {
        self.seam.fill_entropy(bytes);
    }

    async fn inbound_sink(&mut self) -> &mut dyn FrameSink {
        // Waits where the stack has no room, so the interface stops reading then.
        self.seam.inbound_sink().await;
        &mut self.frame
    }

    async fn commit_inbound(&mut self) {
        if !self.frame.bytes.is_empty() && self.tap.lets_in(&self.frame.bytes) {
            self.seam.next_inbound(&self.frame.bytes).await;
        }
        self.frame.bytes.clear();
    }

    async fn next_inbound_with_phy(&mut self, frame: &[u8], phy: PacketPhyStats) {
        if self.tap.lets_in(frame) {
            self.seam.next_inbound_with_phy(frame, phy).await;
        }
    }

    async fn next_outbound(&mut self) -> &[u8] {
        if self.tap.gate.is_open() && self.broadcasts.is_none() {
            return self.seam.next_outbound().await;
        }
        loop {
            self.out.clear();
            tokio::select! {
                frame = self.seam.next_outbound() => self.out.extend_from_slice(frame),
                frame = next_broadcast(&mut self.broadcasts, self.tap.place.interface) => {
                    self.out.extend_from_slice(&frame);
                }
            }
            if self.tap.lets_out(&self.out) {
                return &self.out;
            }
        }
    }

    fn accept_outbound_custody(&mut self) {
        self.seam.accept_outbound_custody();
    }

    fn complete_outbound(&mut self, disposition: OutboundDisposition) {
        self.seam.complete_outbound(disposition);
    }

    fn try_next_outbound(&mut self) -> Option<&[u8]> {
        while let Some(frame) = self.waiting_broadcast() {
            if self.tap.lets_out(&frame) {
                self.out.clear();
                self.out.extend_from_slice(&frame);
                return Some(&self.out);
            }
        }
        if self.tap.gate.is_open() {
            return self.seam.try_next_outbound();
        }
        loop {
            let frame = self.seam.try_next_outbound()?;
            if self.tap.lets_out(frame) {
                self.out.clear();
                self.out.extend_from_slice(frame);
                return Some(&self.out);
            }
        }
    }

    async fn request_tunnel_synthesis(&mut self) {
        self.seam.request_tunnel_synthesis().await;
    }
}

/// Runs one connection's interface on a seam that outlives it.
pub(super) struct Lent<'a, S>(pub(super) &'a mut S);

impl<S: InterfaceSeam> InterfaceSeam for Lent<'_, S> {
    fn interface_origin(&self) -> InterfaceOriginKind {
        self.0.interface_origin()
    }

    fn fill_entropy(&mut self, bytes: &mut [u8]) {
        self.0.fill_entropy(bytes);
    }

    async fn inbound_sink(&mut self) -> &mut dyn FrameSink {
        self.0.inbound_sink().await
    }

    async fn commit_inbound(&mut self) {
        self.0.commit_inbound().await;
    }

    async fn next_inbound_with_phy(&mut self, frame: &[u8], phy: PacketPhyStats) {
        self.0.next_inbound_with_phy(frame, phy).await;
    }

    async fn next_outbound(&mut self) -> &[u8] {
        self.0.next_outbound().await
    }

    fn accept_outbound_custody(&mut self) {
        self.0.accept_outbound_custody();
    }

    fn complete_outbound(&mut self, disposition: OutboundDisposition) {
        self.0.complete_outbound(disposition);
    }

    fn try_next_outbound(&mut self) -> Option<&[u8]> {
        self.0.try_next_outbound()
    }

    async fn request_tunnel_synthesis(&mut self) {
        self.0.request_tunnel_synthesis().await;
    }
}

/// A frame that is being received, of at most `cap` bytes.
struct Frame {
    bytes: Vec<u8>,
    cap: usize,
}

impl FrameSink for Frame {
    fn clear(&mut self) {
        self.bytes.clear();
    }

    fn frame_len(&self) -> usize {
        self.bytes.len()
    }

    fn free_capacity(&self) -> usize {
        self.cap - self.bytes.len()
    }

    fn push(&mut self, byte: u8) -> Result<(), FrameSinkError> {
        self.extend_from_slice(&[byte])
    }

    fn extend_from_slice(&mut self, run: &[u8]) -> Result<(), FrameSinkError> {
        if run.len() > self.free_capacity() {
            return Err(FrameSinkError::Full);
        }
        self.bytes.extend_from_slice(run);
        Ok(())
    }
}
