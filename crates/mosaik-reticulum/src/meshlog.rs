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

mod peer;
mod taking;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use mosaik_core::{
    key::derive,
    meshlog::{
        MeshlogId, is_native_author,
        message::{EVENTS_SENT_MAX, Message, write_events, write_frontier},
    },
};
use mosaik_proto::carrier::Role;
use rand::{RngExt, SeedableRng, rngs::StdRng};

pub use self::taking::{Counts, Refused};
use self::{
    peer::{InFlight, PeerState, Ready, Told},
    taking::Taking,
};
use crate::{
    airtime::{
        ANNOUNCE_LEN, LINK_IDENTIFY_LEN, LINK_PROOF_LEN, LINK_REQUEST_LEN, link_packet_len,
        resource_len,
    },
    stack::{Interface, Link, Order, Outcome, Peer, PublicKeys, Report, Service},
    station::{Airtime, On},
};

/// The first byte of an announce of ours; meshlogd begins with `{`, and reads nobody's.
const ANNOUNCE_VERSION: u8 = 1;
/// Bytes of it: the version, and the network's tag.
const ANNOUNCE_DATA_LEN: usize = 5;
/// As of the station's: how often, and how far apart at the least in times of one on air.
const ANNOUNCE_EVERY_MS: u64 = 30 * 60 * 1000;
const ANNOUNCE_PAUSE: u64 = 400;
/// Peers that are remembered, and links at a time: a guess, meshlogd has two links a pair.
const PEERS_MAX: usize = 256;
const LINKS_MAX: usize = 48;
/// After a link that could not be opened the next attempt waits so long, and ever longer.
const RETRY_MS: u64 = 15_000;
const RETRY_MAX_MS: u64 = 30 * 60 * 1000;
/// How long the other end of a link may take to say who it is, in times of a packet on air, and in
/// milliseconds besides.
const HANDSHAKE: u64 = 20;
const HANDSHAKE_MS: u64 = 1_500;
/// Messages and events without sense that end a link, and for how long its other end is left alone then.
const SENSELESS_MAX: u32 = 8;
const BAR_MS: u64 = 10 * 60 * 1000;
const BAR_MAX_MS: u64 = 24 * 60 * 60 * 1000;
/// How long a peer may take to send what it was told to lack here, besides three times the time of that
/// on air. Doubled each time that nothing comes.
const ANSWER_MS: u64 = 4_000;
const ANSWER_MAX_MS: u64 = 60 * 60 * 1000;
/// Bytes of a usual event of meshlogd, signed.
const EVENT_LEN: usize = 450;
/// How often what waits for others is looked through.
const EXPIRE_EVERY_MS: u64 = 60_000;
/// How long a bridge of the same network that isn't the first for an author waits before it takes what
/// the first should bring, besides the time of a message on air.
const RANK_MS: u64 = 10_000;
/// Bridges of the same network that are remembered, and for how long.
const BRIDGES_MAX: usize = 64;
const BRIDGE_MS: u64 = 3 * ANNOUNCE_EVERY_MS;
/// A proof of a packet, in bytes on air.
const PROOF_LEN: usize = 115;
/// Bytes of events in a message at most, where a Resource costs nothing.
const SEND_BYTES_MAX: usize = 128 << 10;

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

    fn on_heard(
        &mut self,
        (peer, keys): (Peer, PublicKeys),
        app_data: &[u8],
        interface: Interface,
        now_ms: u64,
        air: &Airtime<'_>,
        turn: &mut Turn,
    ) {
        if self.taking.learn(keys) {
            turn.learned.push(keys);
        }
        if app_data == self.announce_data() {
            return self.on_bridge(peer, now_ms, turn);
        }
        let reach_ms = air.spread_ms(interface);
        let wait_ms = self.rng.random_range(0..=reach_ms);
        // Who heard this node's announce just now is dialing already.
        let announced_ms = self.announced.get(&interface).and_then(|announced| announced.at_ms);
        let wait_ms = match announced_ms {
            Some(ms) if ms + 2 * reach_ms > now_ms => wait_ms + 2 * reach_ms,
            _ => wait_ms,
        };
        if !self.make_room_for(peer) {
            return;
        }
        let state = self.peers.entry(peer).or_insert_with(|| PeerState::new(interface));
        (state.heard_ms, state.interface) = (Some(now_ms), interface);
        if state.dial_ms.is_none() {
            state.dial_ms = Some((now_ms + wait_ms).max(state.retry_ms).max(state.barred_ms));
        }
    }

    /// Another bridge of this network: what it has comes by another way, or from the same meshlogd.
    fn on_bridge(&mut self, peer: Peer, now_ms: u64, turn: &mut Turn) {
        self.bridges.retain(|_, heard_ms| *heard_ms + BRIDGE_MS > now_ms);
        if self.bridges.len() < BRIDGES_MAX || self.bridges.contains_key(&peer) {
            self.bridges.insert(peer, now_ms);
        }
        self.peers.remove(&peer);
        let links = self.links.iter().filter(|(_, state)| state.peer == Some(peer));
        turn.orders.extend(links.map(|(link, _)| Order::Close { link: *link }));
    }

    fn make_room_for(&mut self, peer: Peer) -> bool {
        if self.peers.contains_key(&peer) || self.peers.len() < PEERS_MAX {
            return true;
        }
        let is_linked = |peer: &Peer| self.links.values().any(|link| link.peer == Some(*peer));
        let idle = self.peers.iter().filter(|(peer, _)| !is_linked(peer));
        let oldest = idle.min_by_key(|(_, state)| state.heard_ms).map(|(peer, _)| *peer);
        oldest.is_some_and(|peer| self.peers.remove(&peer).is_some())
    }

    fn on_identified(&mut self, link: Link, peer: Peer, now_ms: u64, turn: &mut Turn) {
        let Some(interface) = self.links.get(&link).map(|state| state.interface) else { return };
        let is_barred = self.peers.get(&peer).is_some_and(|state| state.barred_ms > now_ms);
        if is_barred || self.bridges.contains_key(&peer) || !self.make_room_for(peer) {
            return turn.orders.push(Order::Close { link });
        }
        if let Some(state) = self.links.get_mut(&link) {
            state.peer = Some(peer);
        }
        let state = self.peers.entry(peer).or_insert_with(|| PeerState::new(interface));
        (state.is_dialing, state.failures, state.dial_ms) = (false, 0, None);
        (state.was_linked, state.interface) = (true, interface);
        state.look_ms = Some(now_ms);
    }

    fn on_unreachable(&mut self, peer: Peer, now_ms: u64) {
        let chance = self.rng.random_range(0..RETRY_MS);
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let wait_ms = (RETRY_MS << state.failures.min(10)).min(RETRY_MAX_MS) + chance;
        state.failures += 1;
        state.is_dialing = false;
        state.retry_ms = now_ms + wait_ms;
        state.dial_ms = Some(state.retry_ms);
    }

    fn on_down(&mut self, link: Link, now_ms: u64) {
        let Some(state) = self.links.remove(&link) else { return };
        let Some(peer) = state.peer else { return };
        let is_linked = self.links.values().any(|other| other.peer == Some(peer));
        let chance = self.rng.random_range(0..RETRY_MS);
        let Some(state) = self.peers.get_mut(&peer) else { return };
        if state.in_flight.as_ref().is_some_and(|sent| sent.link == link) {
            state.in_flight = None;
        }
        if !is_linked {
            state.on_unlinked();
            state.dial_ms = Some((now_ms + RETRY_MS / 3 + chance).max(state.barred_ms));
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
            (true, _) => air.spend_packet(interface, resource_len(bytes.len()).1, now_ms),
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

    /// Leaves a peer alone for a while.
    fn bar(&mut self, peer: Option<Peer>, now_ms: u64) {
        let Some(state) = peer.and_then(|peer| self.peers.get_mut(&peer)) else { return };
        state.barred_ms = now_ms + (BAR_MS << state.bars.min(10)).min(BAR_MAX_MS);
        state.bars += 1;
    }

    fn on_sent(
        &mut self,
        link: Link,
        token: u64,
        outcome: &Outcome,
        now_ms: u64,
        air: &Airtime<'_>,
    ) {
        let Some(state) = self.links.get(&link) else { return };
        let interface = state.interface;
        let Some(peer) = state.peer.and_then(|peer| self.peers.get_mut(&peer)) else { return };
        let is_it = |sent: &mut InFlight| sent.link == link && sent.token == token;
        let Some(sent) = peer.in_flight.take_if(is_it) else { return };
        let air_ms = answer_ms(air, interface, EVENTS_SENT_MAX as u64);
        match outcome {
            // Where it is not known, its next frontier tells.
            Outcome::Proved | Outcome::Left => {
                self.sent += sent.events as u64;
                peer.on_sent(sent.up_to, air_ms, now_ms);
            }
            Outcome::Failed(_) => {
                peer.resume_ms = now_ms + (1_000 + air_ms / 8) * (1 << peer.send_failures.min(8));
                peer.send_failures += 1;
                peer.turn += 1;
                peer.look_ms = Some(peer.resume_ms);
            }
        }
    }

    /// Takes the node's answer to an [`Ask`].
    pub fn on_events(&mut self, token: u64, events: &[Wire], now_ms: u64) {
        let asked = |state: &&mut PeerState| state.asked.as_ref().is_some_and(|it| it.0 == token);
        let Some(peer) = self.peers.values_mut().find(asked) else { return };
        peer.asked = None;
        if events.is_empty() {
            // It is held, and can't be had now.
            peer.look_ms = Some(now_ms + RETRY_MS);
            return;
        }
        let mut up_to: BTreeMap<String, u64> = BTreeMap::new();
        for Wire { author, seq, .. } in events {
            let last = up_to.entry(author.clone()).or_default();
            *last = (*last).max(*seq);
        }
        let bytes = write_events(events.iter().map(|event| &*event.json)).into_bytes();
        let up_to = up_to.into_iter().collect();
        peer.ready = Some(Ready { bytes, up_to, events: events.len() });
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

    /// Closes links whose other end doesn't say who it is: what it asks for can't be answered, and
    /// meshlogd opens another only when they are gone.
    fn close_unknown(&mut self, now_ms: u64, air: &Airtime<'_>, turn: &mut Turn) {
        let mut next_ms = None::<u64>;
        for (link, state) in self.links.iter().filter(|(_, state)| state.peer.is_none()) {
            let due_ms = state.opened_ms + handshake_ms(air, state.interface);
            if due_ms <= now_ms {
                turn.orders.push(Order::Close { link: *link });
            } else {
                next_ms = next_ms.into_iter().chain([due_ms]).min();
            }
        }
        self.wake(next_ms);
    }

    fn announce_data(&self) -> [u8; ANNOUNCE_DATA_LEN] {
        let [a, b, c, d] = self.config.tag;
        [ANNOUNCE_VERSION, a, b, c, d]
    }

    fn announce(&mut self, now_ms: u64, air: &mut Airtime<'_>, turn: &mut Turn) {
        let len = ANNOUNCE_LEN + ANNOUNCE_DATA_LEN;
        let online = air.online();
        self.announced.retain(|interface, _| online.contains(interface));
        let is_alone = self.links.is_empty() && self.peers.values().any(|peer| !peer.was_linked);
        let jitter_ms = self.rng.random_range(0..ANNOUNCE_EVERY_MS / 6);
        let (mut is_due, mut next_ms) = (false, None::<u64>);
        for interface in &online {
            let wait_ms = self.rng.random_range(0..=air.spread_ms(*interface));
            let announced = self.announced.entry(*interface);
            let announced = announced.or_insert_with(|| Announced {
                at_ms: None,
                next_ms: now_ms + wait_ms,
                has_news: false,
            });
            let pause_ms = ANNOUNCE_PAUSE * air.channel(*interface).packet_ms(len);
            let sooner_ms = announced.at_ms.filter(|_| is_alone && announced.has_news);
            let due_ms =
                sooner_ms.map_or(announced.next_ms, |ms| announced.next_ms.min(ms + pause_ms));
            let at_ms = air.packet_at_ms(*interface, len, due_ms.max(now_ms));
            is_due |= at_ms == Some(now_ms);
            next_ms = next_ms.into_iter().chain(at_ms).min();
        }
        if !is_due {
            return self.wake(next_ms);
        }
        // The stack announces on all interfaces.
        for interface in &online {
            air.spend_packet(*interface, len, now_ms);
            let pause_ms = ANNOUNCE_PAUSE * air.channel(*interface).packet_ms(len);
            let next_ms = now_ms + pause_ms.max(ANNOUNCE_EVERY_MS) + jitter_ms;
            let announced = Announced { at_ms: Some(now_ms), next_ms, has_news: false };
            self.announced.insert(*interface, announced);
        }
        let app_data = self.announce_data().to_vec();
        turn.orders.push(Order::Announce { service: Service::Meshlog, app_data });
    }

    fn dial(&mut self, now_ms: u64, air: &mut Airtime<'_>, turn: &mut Turn) {
        let waiting: Vec<(Peer, Interface, u64)> = self
            .peers
            .iter()
            .filter_map(|(peer, state)| Some((*peer, state.interface, state.dial_ms?)))
            .collect();
        for (peer, interface, dial_ms) in waiting {
            let is_here = |link: &&LinkState| link.interface == interface;
            // One that hasn't said who it is may be this peer's.
            let unknown = self.links.values().filter(is_here).filter(|link| link.peer.is_none());
            let unknown_ms =
                unknown.map(|link| link.opened_ms + handshake_ms(air, interface)).max();
            let is_busy = |state: &PeerState| state.is_dialing && state.interface == interface;
            if self.links.len() >= LINKS_MAX || self.peers.values().any(is_busy) {
                continue;
            }
            let due_ms = dial_ms.max(unknown_ms.unwrap_or(0)).max(now_ms);
            let at_ms = air.packet_at_ms(interface, LINK_REQUEST_LEN, due_ms);
            if at_ms != Some(now_ms) {
                self.wake(at_ms);
                continue;
            }
            let is_linked = self.links.values().any(|link| link.peer == Some(peer));
            let Some(state) = self.peers.get_mut(&peer) else { continue };
            state.dial_ms = None;
            if is_linked {
                continue;
            }
            state.is_dialing = true;
            air.spend_packet(interface, LINK_REQUEST_LEN, now_ms);
            turn.orders.push(Order::Open { service: Service::Meshlog, peer });
        }
    }

    /// The link of a peer that is used: one that this node opened first, for on that packets are proved.
    fn link_of(&self, peer: Peer, turn: usize) -> Option<Link> {
        let links = self.links.iter().filter(|(_, state)| state.peer == Some(peer));
        let mut links: Vec<_> = links.collect();
        links.sort_by_key(|(_, state)| state.role == Role::Listener);
        (!links.is_empty()).then(|| *links[turn % links.len()].0)
    }

    fn serve(&mut self, peer: Peer, now_ms: u64, air: &mut Airtime<'_>, turn: &mut Turn) {
        let Some(state) = self.peers.get(&peer) else { return };
        let Some(link) = self.link_of(peer, state.turn) else { return };
        if state.look_ms.is_some_and(|ms| ms <= now_ms) {
            self.look(peer, link, now_ms, air, turn);
        }
        self.tell(peer, link, now_ms, air, turn);
        self.transmit(peer, link, now_ms, air, turn);
        let look_ms = self.peers.get(&peer).and_then(|state| state.look_ms);
        self.wake(look_ms);
    }

    /// Reckons what lacks there and here, and asks the node for what is to be sent next.
    fn look(&mut self, peer: Peer, link: Link, now_ms: u64, air: &Airtime<'_>, turn: &mut Turn) {
        let (Some(state), Some(there)) = (self.peers.get_mut(&peer), self.links.get(&link)) else {
            return;
        };
        let (wants, next_ms) = state.wants(self.taking.held(), now_ms);
        state.look_ms = next_ms;
        state.lacks = wants.iter().map(|want| want.lacks).sum();
        state.offers = state.theirs.iter().flatten().fold(0, |sum, (author, seq)| {
            let is_wanted = !is_native_author(author) && !self.taking.is_blocked(author, now_ms);
            let lacks = if is_wanted { seq.saturating_sub(self.taking.len(author)) } else { 0 };
            sum.saturating_add(lacks)
        });
        let is_busy = state.asked.is_some() || state.ready.is_some() || state.in_flight.is_some();
        if wants.is_empty() || is_busy {
            return;
        }
        if state.resume_ms > now_ms {
            state.look_ms = state.look_ms.into_iter().chain([state.resume_ms]).min();
            return;
        }
        let bytes_max = match air.resource_max(there.interface) {
            0 => there.packet_max - 24,
            most if air.channel(there.interface).bytes_ms(1 << 10) > 100 => most,
            _ => SEND_BYTES_MAX,
        };
        self.last_token += 1;
        let wants: Vec<_> = wants
            .into_iter()
            .take(EVENTS_SENT_MAX)
            .map(|want| (want.author, want.from, if want.is_probe { 1 } else { EVENTS_SENT_MAX }))
            .collect();
        let from = wants.iter().map(|(author, from, _)| (author.clone(), *from)).collect();
        state.asked = Some((self.last_token, from));
        let events_max = EVENTS_SENT_MAX;
        turn.asks.push(Ask { token: self.last_token, wants, events_max, bytes_max });
    }

    /// What is held here, as this peer is told: of its authors, all that makes it send nothing in vain.
    fn frontier_for(&self, state: &PeerState, now_ms: u64) -> String {
        let held = self.taking.held();
        let Some(theirs) = &state.theirs else {
            return write_frontier(held.iter().map(|(author, held)| (author.as_str(), held.len)));
        };
        let entries = theirs.iter().map(|(author, seq)| {
            let is_unwanted = is_native_author(author) || self.taking.is_blocked(author, now_ms);
            let len = self.taking.len(author);
            (author.as_str(), if is_unwanted { len.max(*seq) } else { len })
        });
        write_frontier(entries.filter(|(_, seq)| *seq > 0))
    }

    /// Tells a peer what is held here, if it has something that lacks.
    fn tell(
        &mut self,
        peer: Peer,
        link: Link,
        now_ms: u64,
        air: &mut Airtime<'_>,
        turn: &mut Turn,
    ) {
        let (Some(state), Some(there)) = (self.peers.get(&peer), self.links.get(&link)) else {
            return;
        };
        let wait_ms = match (&state.theirs, state.offers) {
            (Some(_), 0) => return,
            (Some(_), offers) => answer_ms(air, there.interface, offers),
            (None, _) => answer_ms(air, there.interface, 1),
        };
        let due_ms = state.told.as_ref().map_or(now_ms, |told| {
            let wait_ms = (wait_ms << told.in_vain.min(16)).min(ANSWER_MAX_MS);
            told.at_ms.max(state.news_ms) + wait_ms
        });
        if due_ms > now_ms {
            return self.wake(Some(due_ms));
        }
        let message = self.frontier_for(state, now_ms);
        if state.theirs.is_none() && message.len() > there.packet_max {
            // It will say what it has, and then less need be told.
            return;
        }
        let on = there.on(peer);
        let at_ms = air.send_at_ms(on, message.len(), now_ms);
        if at_ms != Some(now_ms) {
            return self.wake(at_ms);
        }
        air.spend_send(on, message.len(), now_ms);
        self.last_token += 1;
        let token = self.last_token;
        turn.orders.push(Order::Send { link, token, bytes: message.into_bytes() });
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let in_vain = state.told.as_ref().map_or(0, |told| {
            // Nothing came since, perhaps for want of another link.
            if state.news_ms < told.at_ms { told.in_vain + 1 } else { 0 }
        });
        state.turn += usize::from(in_vain > 0);
        state.told = Some(Told { at_ms: now_ms, in_vain });
        let again_ms = now_ms + (wait_ms << in_vain.min(16)).min(ANSWER_MAX_MS);
        self.wake(Some(again_ms));
    }

    fn transmit(
        &mut self,
        peer: Peer,
        link: Link,
        now_ms: u64,
        air: &mut Airtime<'_>,
        turn: &mut Turn,
    ) {
        let (Some(state), Some(there)) = (self.peers.get_mut(&peer), self.links.get(&link)) else {
            return;
        };
        let Some(ready) = state.ready.take_if(|_| state.in_flight.is_none()) else { return };
        let len = ready.bytes.len();
        match air.send_at_ms(there.on(peer), len, now_ms) {
            Some(ms) if ms <= now_ms => {
                air.spend_send(there.on(peer), len, now_ms);
                self.last_token += 1;
                let Ready { bytes, up_to, events } = ready;
                let token = self.last_token;
                state.in_flight = Some(InFlight { link, token, up_to, events });
                turn.orders.push(Order::Send { link, token, bytes });
            }
            Some(ms) => {
                state.ready = Some(ready);
                self.wake(Some(ms));
            }
            // More than an hour's share, or the interface is gone: then the next look sees.
            None if air.online().contains(&there.interface) => {
                state.give_up(ready.up_to, now_ms);
            }
            None => state.look_ms = Some(now_ms + RETRY_MS),
        }
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

/// How long the other end of a link may take to say who it is.
fn handshake_ms(air: &Airtime<'_>, interface: Interface) -> u64 {
    HANDSHAKE_MS + HANDSHAKE * air.channel(interface).packet_ms(500)
}
