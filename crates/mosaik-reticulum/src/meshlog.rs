//! This node as a peer of meshlogd 0.5.0, on `meshlog.sync`: what it announces, whom it dials, what it
//! tells of what it holds, which events it sends and takes.
//!
//! Invariants:
//! - Pure: reports, answers of the node and times in; orders and questions to the node out.
//! - Nothing is sent twice before it is known to be lost: at most one message with events is on its way
//!   to a peer, and what was proved to have come is sent again only where it doesn't show there, one
//!   event at a time, after a time that doubles.
//! - Where nothing differs nothing is said. What this node holds is told only to whoever has something
//!   that lacks here: it is what makes meshlogd send.
//! - Links are disposable. What a peer has is known by its word, what it was sent by proofs.
//! - What strangers can make it keep, or check, is bounded.
//!
//! Source: FORMAT.md beside this crate, section 4.

mod giving;
mod meeting;
mod peer;
mod taking;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use mosaik_core::{
    key::derive,
    meshlog::{
        MeshlogId,
        message::{EVENTS_SENT_MAX, Message},
    },
};
use mosaik_proto::carrier::Role;
use rand::{SeedableRng, rngs::StdRng};

pub use self::taking::{Counts, Refused};
use self::{giving::len_on_air, peer::PeerState, taking::Taking};
use crate::{
    airtime::{LINK_IDENTIFY_LEN, LINK_PROOF_LEN, link_packet_len, resource_len},
    stack::{Interface, Link, Order, Peer, PublicKeys, Report, Service},
    station::{ANNOUNCE_EVERY_MS, Airtime, On},
};

/// Links at a time: a guess, meshlogd has two a pair.
const LINKS_MAX: usize = 48;
/// How long what could not be done waits until it is tried again.
const RETRY_MS: u64 = 15_000;
/// Messages and events without sense that end a link.
const SENSELESS_MAX: u32 = 8;
/// How long a peer may take to send what it was told to lack here, besides three times the time of that
/// on air.
const ANSWER_MS: u64 = 4_000;
/// Bytes of a usual event of meshlogd, signed.
const EVENT_LEN: usize = 450;
/// How often what waits for others is looked through.
const EXPIRE_EVERY_MS: u64 = 60_000;
/// How long a bridge of the same network that isn't the first for an author waits before it takes what
/// the first should bring, besides the time of a message on air.
const RANK_MS: u64 = 10_000;
/// For how long other bridges are remembered.
const BRIDGE_MS: u64 = 3 * ANNOUNCE_EVERY_MS;
/// A proof of a packet, in bytes on air.
const PROOF_LEN: usize = 115;

/// What it is told once.
#[derive(Debug, Clone)]
pub struct MeshlogConfig {
    /// This node's identity hash.
    pub own: Peer,
    /// Names the network in announces: bridges of one network leave each other alone.
    pub tag: [u8; 4],
    /// Keys that are known from before.
    pub keys: Vec<PublicKeys>,
    /// Where chance begins.
    pub seed: u64,
}

/// How much of an author's feed is held, without a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// How many events.
    pub len: u64,
    /// The id there of the last.
    pub head: MeshlogId,
}

/// A question to the node: events of these authors, each from a seq on, answered by
/// [`Meshlog::on_events`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// What the answer is recognised by.
    pub token: u64,
    /// Author, first seq, number of events at most.
    pub wants: Vec<(String, u64, usize)>,
    /// Events of all of them at most.
    pub events_max: usize,
    /// Bytes of all of them at most; a first one may be longer.
    pub bytes_max: usize,
}

/// An event as it stands on meshlogd's wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wire {
    /// Its author's name there.
    pub author: String,
    /// Its place.
    pub seq: u64,
    /// Its JSON.
    pub json: String,
}

/// Events that came, to be taken; answered by [`Meshlog::on_taken`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// What the answer is recognised by.
    pub token: u64,
    /// The events.
    pub events: Vec<Came>,
}

/// An event that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Came {
    /// Its author's name there.
    pub author: String,
    /// Its place.
    pub seq: u64,
    /// Its id there.
    pub id: MeshlogId,
    /// What it follows.
    pub prev: Option<MeshlogId>,
    /// Its JSON, as it came.
    pub json: String,
    /// Whether its author's key is known, and has signed it.
    pub is_verified: bool,
}

/// What became of an event that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is durable.
    Taken,
    /// It was here.
    Known,
    /// Another one stands at its place, or before it.
    Fork,
    /// It can't be written now.
    NotWritten,
}

/// What came of one turn.
#[derive(Debug, Default)]
pub struct Turn {
    /// For the stack, in this order.
    pub orders: Vec<Order>,
    /// Questions to the node.
    pub asks: Vec<Ask>,
    /// Events for the node.
    pub offers: Vec<Offer>,
    /// Keys that are new: to be kept, and events of their authors that were taken before to be checked.
    pub learned: Vec<PublicKeys>,
}

#[derive(Debug)]
struct LinkState {
    interface: Interface,
    role: Role,
    packet_max: usize,
    peer: Option<Peer>,
    opened_ms: u64,
    senseless: u32,
}

impl LinkState {
    fn on(&self, peer: Peer) -> On {
        On { interface: self.interface, peer, packet_max: self.packet_max }
    }
}

#[derive(Debug)]
struct Announced {
    at_ms: Option<u64>,
    next_ms: u64,
    has_news: bool,
}

/// One peer, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshlogPeer {
    /// Its identity hash.
    pub peer: Peer,
    /// Whether a link to it is open on which both know each other.
    pub is_linked: bool,
    /// Milliseconds since it was heard; none if it came by itself.
    pub age_ms: Option<u64>,
    /// Events that it lacks.
    pub lacks: u64,
    /// Events that it says to have and that lack here.
    pub offers: u64,
}

/// All of it, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshlogStatus {
    /// The peers that were heard or came.
    pub peers: Vec<MeshlogPeer>,
    /// Authors of whom something is held, ours too.
    pub authors: u64,
    /// Authors whose keys are known.
    pub keys: u64,
    /// What became of what came.
    pub counts: Counts,
    /// Events that were sent and have come, as far as can be known.
    pub sent: u64,
    /// Events that wait for others before them.
    pub pending: u64,
    /// Other bridges of this network that were heard here.
    pub bridges: u64,
}

/// See the module's head.
#[derive(Debug)]
pub struct Meshlog {
    config: MeshlogConfig,
    taking: Taking,
    peers: BTreeMap<Peer, PeerState>,
    links: BTreeMap<Link, LinkState>,
    /// Other bridges of this network, and when they were heard.
    bridges: BTreeMap<Peer, u64>,
    announced: BTreeMap<Interface, Announced>,
    is_paused: bool,
    sent: u64,
    last_token: u64,
    expire_ms: u64,
    next_ms: Option<u64>,
    rng: StdRng,
}

impl Meshlog {
    /// A peer of nobody yet.
    pub fn new(config: MeshlogConfig) -> Self {
        let mut taking = Taking::default();
        for keys in &config.keys {
            taking.learn(*keys);
        }
        Self {
            rng: StdRng::seed_from_u64(config.seed),
            config,
            taking,
            peers: BTreeMap::new(),
            links: BTreeMap::new(),
            bridges: BTreeMap::new(),
            announced: BTreeMap::new(),
            is_paused: false,
            sent: 0,
            last_token: 0,
            expire_ms: 0,
            next_ms: None,
        }
    }

    /// What the node holds now of these authors; length 0: nothing any more.
    pub fn set_held(&mut self, held: Vec<(String, Held)>, now_ms: u64) {
        if held.is_empty() {
            return;
        }
        for (author, held) in held {
            self.taking.set_held(author, held, now_ms);
        }
        self.peers.values_mut().for_each(|peer| peer.look_ms = Some(now_ms));
        self.announced.values_mut().for_each(|announced| announced.has_news = true);
    }

    /// Stays silent from now on, or speaks again.
    pub fn pause(&mut self, on: bool, turn: &mut Turn) {
        self.is_paused = on;
        if on {
            turn.orders.extend(self.links.keys().map(|link| Order::Close { link: *link }));
        }
    }

    /// The keys that are known.
    pub fn keys(&self) -> impl Iterator<Item = &PublicKeys> {
        self.taking.keys()
    }

    /// Takes what the stack tells; what isn't about `meshlog.sync` is left alone.
    pub fn handle_report(
        &mut self,
        report: &Report,
        now_ms: u64,
        air: &mut Airtime<'_>,
        turn: &mut Turn,
    ) {
        match report {
            Report::Heard {
                service: Service::Meshlog, peer, keys, app_data, interface, ..
            } if *peer != self.config.own => {
                self.on_heard((*peer, *keys), app_data, *interface, now_ms, air, turn);
            }
            Report::Up {
                link,
                service: Service::Meshlog,
                peer,
                role,
                packet_max,
                interface,
                ..
            } => {
                let len = if *role == Role::Dialer { LINK_IDENTIFY_LEN } else { LINK_PROOF_LEN };
                air.spend_packet(*interface, len, now_ms);
                if self.links.len() >= LINKS_MAX || self.is_paused {
                    return turn.orders.push(Order::Close { link: *link });
                }
                let state = LinkState {
                    interface: *interface,
                    role: *role,
                    packet_max: *packet_max,
                    peer: None,
                    opened_ms: now_ms,
                    senseless: 0,
                };
                self.links.insert(*link, state);
                if let Some(peer) = peer {
                    self.on_identified(*link, *peer, now_ms, turn);
                }
            }
            Report::Identified { link, peer } => self.on_identified(*link, *peer, now_ms, turn),
            Report::Unreachable { service: Service::Meshlog, peer, .. } => {
                self.on_unreachable(*peer, now_ms);
            }
            Report::Received { link, bytes } => self.on_received(*link, bytes, now_ms, air, turn),
            Report::Sent { link, token, outcome } => {
                self.on_sent(*link, *token, outcome, now_ms, air);
            }
            Report::Down { link, .. } => self.on_down(*link, now_ms),
            _ => {}
        }
    }

    fn on_received(
        &mut self,
        link: Link,
        bytes: &[u8],
        now_ms: u64,
        air: &mut Airtime<'_>,
        turn: &mut Turn,
    ) {
        let Some(state) = self.links.get(&link) else { return };
        let (interface, peer) = (state.interface, state.peer);
        // What the stack sends for it: a proof, and what a Resource is asked for with.
        match (bytes.len() > state.packet_max, state.role) {
            (true, _) => {
                let len = len_on_air(bytes, state.packet_max);
                air.spend_packet(interface, resource_len(len).1, now_ms);
            }
            (false, Role::Listener) => air.spend_packet(interface, PROOF_LEN, now_ms),
            (false, Role::Dialer) => {}
        }
        let senseless = match Message::parse(bytes) {
            Ok(Message::Frontier(theirs)) => {
                // Whose it is must be known.
                let air_ms = answer_ms(air, interface, EVENTS_SENT_MAX as u64);
                if let Some(peer) = peer.and_then(|peer| self.peers.get_mut(&peer)) {
                    peer.on_frontier(theirs, air_ms, now_ms);
                }
                0
            }
            Ok(Message::Events(events)) => self.on_came(peer, interface, &events, now_ms, air),
            Err(_) => {
                self.taking.refuse(Refused::Malformed);
                1
            }
        };
        let Some(state) = self.links.get_mut(&link) else { return };
        state.senseless += senseless;
        if state.senseless >= SENSELESS_MAX {
            self.bar(peer, now_ms);
            turn.orders.push(Order::Close { link });
        }
    }

    fn on_came(
        &mut self,
        peer: Option<Peer>,
        interface: Interface,
        events: &[&str],
        now_ms: u64,
        air: &Airtime<'_>,
    ) -> u32 {
        let (mut senseless, mut is_news) = (0, false);
        let rank_ms = RANK_MS + answer_ms(air, interface, EVENTS_SENT_MAX as u64);
        let Self { taking, bridges, config, .. } = self;
        for json in events {
            let wait_ms = |author: &str| match is_first(config.own, bridges, author, now_ms) {
                true => 0,
                false => rank_ms,
            };
            match taking.admit(json, now_ms, wait_ms) {
                Ok(is_new) => is_news |= is_new,
                Err(refused) => senseless += u32::from(refused.is_peers_fault()),
            }
        }
        if let Some(peer) = peer.and_then(|peer| self.peers.get_mut(&peer)) {
            peer.look_ms = Some(now_ms);
            if is_news {
                peer.news_ms = now_ms;
                peer.told.iter_mut().for_each(|told| told.in_vain = 0);
            }
        }
        senseless
    }

    /// Takes the node's answer to an [`Offer`]: one fate for each event.
    pub fn on_taken(&mut self, token: u64, fates: &[Fate], now_ms: u64) {
        self.taking.on_taken(token, fates, now_ms);
        self.peers.values_mut().for_each(|peer| peer.look_ms = Some(now_ms));
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now_ms: u64, air: &mut Airtime<'_>, turn: &mut Turn) {
        self.next_ms = None;
        if self.expire_ms <= now_ms {
            self.taking.expire(now_ms);
            self.expire_ms = now_ms + EXPIRE_EVERY_MS;
        }
        self.last_token += 1;
        turn.offers.extend(self.taking.offer(self.last_token, now_ms));
        self.wake(self.taking.offers_at_ms());
        if self.is_paused {
            return;
        }
        self.close_unknown(now_ms, air, turn);
        self.announce(now_ms, air, turn);
        self.dial(now_ms, air, turn);
        let peers: Vec<Peer> = self.peers.keys().copied().collect();
        for peer in peers {
            self.serve(peer, now_ms, air, turn);
        }
    }

    /// When [`Meshlog::handle_timeout`] has something to do, if nothing else happens.
    pub fn next_timeout_ms(&self) -> Option<u64> {
        self.next_ms
    }

    fn wake(&mut self, at_ms: Option<u64>) {
        self.next_ms = self.next_ms.into_iter().chain(at_ms).min();
    }

    /// All of it, for people.
    pub fn status(&self, now_ms: u64) -> MeshlogStatus {
        let peer = |(peer, state): (&Peer, &PeerState)| MeshlogPeer {
            peer: *peer,
            is_linked: self.links.values().any(|link| link.peer == Some(*peer)),
            age_ms: state.heard_ms.map(|ms| now_ms.saturating_sub(ms)),
            lacks: state.lacks,
            offers: state.offers,
        };
        MeshlogStatus {
            peers: self.peers.iter().map(peer).collect(),
            authors: self.taking.held().len() as u64,
            keys: self.taking.keys().count() as u64,
            counts: self.taking.counts.clone(),
            sent: self.sent,
            pending: self.taking.pending() as u64,
            bridges: self.bridges.len() as u64,
        }
    }
}

/// Whether this node takes an author's events before other bridges of its network do.
fn is_first(own: Peer, bridges: &BTreeMap<Peer, u64>, author: &str, now_ms: u64) -> bool {
    let rank = |bridge: Peer| derive("meshlog bridge", &[author.as_bytes(), &bridge.0].concat());
    let own = rank(own);
    let others = bridges.iter().filter(|(_, heard_ms)| **heard_ms + BRIDGE_MS > now_ms);
    others.map(|(bridge, _)| rank(*bridge)).all(|other| own < other)
}

/// How long a peer may take to send so many events.
fn answer_ms(air: &Airtime<'_>, interface: Interface, events: u64) -> u64 {
    let events = usize::try_from(events).unwrap_or(usize::MAX).clamp(1, EVENTS_SENT_MAX);
    let channel = air.channel(interface);
    let bytes_ms = channel.bytes_ms(resource_len(events * EVENT_LEN).0);
    ANSWER_MS + 3 * (bytes_ms + channel.packet_ms(link_packet_len(EVENT_LEN)))
}
