//! What this node says on air, to whom and when: announces, links, sessions over them.
//!
//! Invariants:
//! - Pure: reports, effects and times in, orders and inputs out. The stack is at the edge, and the
//!   simulated channel in its place is another.
//! - Nothing is ordered before the interface has had the time that what went before takes on air, nor
//!   what would spend more than the interface's share of an hour.
//! - Links are disposable: no state of the feeds is bound to one. Equal hashes cost no link.
//! - One link a peer: of two that were opened at once the one stays that the smaller identity hash opened,
//!   else the newer one.
//! - What strangers can make it keep is bounded.
//!
//! Source: FORMAT.md beside this crate.

mod casting;
mod dialing;
mod lent;
mod link;
mod queue;

use std::{collections::BTreeMap, iter};

use mosaik_core::{
    event::Hasher,
    id::{AuthorId, NodeId},
    key::derive,
};
use mosaik_proto::{
    carrier::{Effect, Input, OnAir, Radio, Role, SessionId},
    message::{Bye, ByeCode, Message},
    turns::Island,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

pub(crate) use self::dialing::ever_longer_ms;
use self::{
    casting::Casting,
    dialing::{Heard, RETRY_MS},
    link::{Due, Gone, LinkState},
    queue::Class,
};
pub use self::{
    lent::{Airtime, On},
    queue::{Kinds, Queued, Waiting},
};
use crate::{
    airtime::{
        ANNOUNCE_LEN, Budget, Channel, HOUR_MS, LINK_IDENTIFY_LEN, LINK_PROOF_LEN, Shares,
        link_packet_len, resource_len,
    },
    announce::{Announce, LEN_MAX},
    cast::Seal,
    stack::{Interface, Link, Order, Outcome, Peer, Report, Service},
    stream::{ACK_TOKEN, Pace, RESOURCE_FROM, RESOURCE_MAX},
};

/// Sessions over radio are numbered from here on; numbers below are another carrier's.
const SESSIONS_FROM: u64 = 1 << 62;
/// Peers that are remembered. A guess: more than an island has.
const PEERS_MAX: usize = 1024;
/// Links at a time, the other ends' included.
const LINKS_MAX: usize = 64;
/// How often a node announces itself if nothing changes; and how far apart two announces are at the least,
/// in times of one on air: a quarter of a percent.
pub(crate) const ANNOUNCE_EVERY_MS: u64 = 30 * 60 * 1000;
pub(crate) const ANNOUNCE_PAUSE: u64 = 400;
/// How soon at the least it does so again while it has heard nobody, then ever later, in milliseconds.
const LONELY_MS: u64 = 15_000;
/// The same on a wire.
const LONELY_WIRE_MS: u64 = 2_000;
/// How long a bridge counts that isn't heard any more: three of its announces.
const BRIDGE_LASTS_MS: u64 = 3 * ANNOUNCE_EVERY_MS;
/// How long a first announce or a dial may wait so that not all speak at once, in times of an announce
/// on air.
const SPREAD: u64 = 4;
/// Milliseconds of that at the least: two nodes on a fast interface that heard one another at once.
const SPREAD_MIN_MS: u64 = 200;
/// How long a link may be idle before whoever opened it closes it, in milliseconds: its signs of life
/// cost less than another link for some minutes.
const IDLE_MS: u64 = 10 * 60 * 1000;
/// The same while a piece of a file is awaited: it goes when an hour has room for it, and a slice or two
/// may be all that it has.
const IDLE_PIECE_MS: u64 = 2 * HOUR_MS;
/// How long the other end of a link may take to say who it is, and this end to say goodbye, in times of
/// a whole packet on air and of seconds.
const HANDSHAKE: u64 = 20;
const RETRY_MAX_MS: u64 = 30 * 60 * 1000;
/// What everything takes over the internet at the most, for comparison: by how much longer 16 KiB take
/// than this, sessions are patient.
const USUAL_MS: u64 = 2_000;
/// What of an interface's share files must leave to the rest, history to what goes before it, and news to
/// control, in hundredths.
const RESERVE_FILES: u64 = 40;
const RESERVE_HISTORY: u64 = 30;
const RESERVE_PRIORITY: u64 = 20;
const RESERVE_NEWS: u64 = 10;
/// What of an interface's share one peer may take at the most, and the events of one author, in
/// hundredths: who talks without end leaves something to the others.
const EACH: u64 = 75;
/// Bytes of a run, and how many of the longest fit an hour's share at the least: a run is of use when all
/// of it is there.
const RUN_LENS: [usize; 4] = [14 << 10, 6 << 10, 3 << 10, 1 << 10];
const RUNS_AN_HOUR: u64 = 8;
/// Milliseconds on air of one at the most: of what a session that broke had of a longer one nothing is kept.
const RUN_AIR_MAX_MS: u64 = 3 * 60 * 1000;
/// Of an interface's share, in hundredths, what this node orders; the rest is for what the stack sends by
/// itself: signs of life, answers to requests.
const OWN_SHARE: u64 = 85;
/// Into how many parts of an hour's share a Resource may cut it at the least: one that is more than the
/// share would never go.
const RESOURCES_AN_HOUR: u64 = 4;
/// Milliseconds on air of a Resource at the most: the stack has given up by its own clock on those of six
/// minutes, each time anew.
const RESOURCE_AIR_MAX_MS: u64 = 4 * 60 * 1000;
/// Bits a second of what is no radio, and from which on something is none.
const WIRE_BITRATE: u32 = 10_000_000;
const RADIO_BITRATE_MAX: u32 = 1_000_000;
/// Milliseconds between two packets for whoever else wants to speak.
const GAP_MS: u64 = 20;

/// What a station is told once.
#[derive(Debug, Clone)]
pub struct StationConfig {
    /// This node's identity hash.
    pub own: Peer,
    /// Names the network in announces.
    pub tag: [u8; 4],
    /// For the runs in messages.
    pub hasher: Hasher,
    /// Of each radio's time, in thousandths; 1,000 is no limit.
    pub share: u32,
    /// Bits a second where an interface says nothing of it; none: such a one is a wire.
    pub bitrate: Option<u32>,
    /// Of what is asked for, what goes first.
    pub first: Kinds,
    /// What broadcasts are sealed with; none: nothing is broadcast, and none is taken.
    pub seal: Option<Seal>,
    /// Where chance begins.
    pub seed: u64,
}

/// What the node is and holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnState {
    /// The topmost hash of its feeds.
    pub top: [u8; 16],
    /// Events that it holds.
    pub events: u64,
    /// Whether it has sessions over the internet.
    pub is_bridge: bool,
}

/// What came of one turn.
#[derive(Debug, Default)]
pub struct Turn {
    /// For the stack, in this order.
    pub orders: Vec<Order>,
    /// For the replica, in this order.
    pub inputs: Vec<Input>,
}

/// An interface as it is now.
#[derive(Debug)]
struct Air {
    name: String,
    bitrate: u32,
    channel: Channel,
    budget: Budget,
    authors: Shares<AuthorId>,
    peers: Shares<Peer>,
    is_online: bool,
    /// What was ordered takes until then.
    busy_until_ms: u64,
    announced_ms: Option<u64>,
    next_announce_ms: u64,
    announced: Option<Announce>,
    /// How often this node announced itself there while it had heard nobody.
    lonely: u32,
    /// Dials in a row that led nowhere, and until when others wait for that: the channel may be full.
    failures: u32,
    retry_ms: u64,
    casting: Casting,
}

/// See the module's head.
#[derive(Debug)]
pub struct Station {
    config: StationConfig,
    own_top: [u8; 8],
    own_events: u64,
    own_changed_ms: u64,
    /// The hash before that change.
    top_before: [u8; 8],
    is_bridge: bool,
    /// As it was told last.
    on_air: Option<OnAir>,
    /// Whether the replica was told that some hear broadcasts.
    is_broadcasting: bool,
    airs: BTreeMap<Interface, Air>,
    peers: BTreeMap<Peer, Heard>,
    links: BTreeMap<Link, LinkState>,
    sessions: BTreeMap<SessionId, Link>,
    next_session: u64,
    is_paused: bool,
    /// Whether a file is asked for that a peer may have.
    is_seeking: bool,
    rng: StdRng,
}

/// One interface, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// Whether it can send.
    pub is_online: bool,
    /// Milliseconds on air in the last hour, as reckoned.
    pub used_ms: u64,
    /// Milliseconds that are left of its share; none without one.
    pub left_ms: Option<u64>,
    /// Bits a second; none for a wire.
    pub bitrate: Option<u32>,
    /// What waits, by class.
    pub queued: Queued,
    /// Events that this node has broadcast there, those sent again too.
    pub broadcasts_sent: u64,
    /// Events that were heard so.
    pub broadcasts_heard: u64,
    /// Broadcasts that were nothing of this network's, or made no sense.
    pub broadcasts_refused: u64,
}

/// One peer, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its identity hash.
    pub peer: Peer,
    /// Events that it announced.
    pub events: u64,
    /// Whether it announced the same hash as this node has.
    pub is_equal: bool,
    /// Transport nodes in between.
    pub hops: u8,
    /// Milliseconds since it was heard.
    pub age_ms: u64,
    /// Whether there is a session with it.
    pub is_linked: bool,
}

impl Station {
    /// A station that has heard nobody.
    pub fn new(config: StationConfig) -> Self {
        Self {
            rng: StdRng::seed_from_u64(config.seed),
            config,
            own_top: [0; 8],
            own_events: 0,
            own_changed_ms: 0,
            top_before: [0; 8],
            is_bridge: false,
            on_air: None,
            is_broadcasting: false,
            airs: BTreeMap::new(),
            peers: BTreeMap::new(),
            links: BTreeMap::new(),
            sessions: BTreeMap::new(),
            next_session: SESSIONS_FROM,
            is_paused: false,
            is_seeking: false,
        }
    }

    /// What the node holds now.
    pub fn set_state(&mut self, held: OwnState, now_ms: u64) {
        let before = self.own_top;
        self.own_top.copy_from_slice(&held.top[..8]);
        self.own_events = held.events;
        self.is_bridge = held.is_bridge;
        if self.own_top != before {
            (self.own_changed_ms, self.top_before) = (now_ms, before);
            self.presume(now_ms);
        }
    }

    /// Stays silent from now on, or speaks again. Sessions are the replica's to end.
    pub fn pause(&mut self, on: bool) {
        self.is_paused = on;
    }

    /// Takes what the stack tells.
    pub fn handle_report(&mut self, report: Report, now_ms: u64, turn: &mut Turn) {
        match report {
            Report::Interface { interface, name, bitrate, online } => {
                self.on_interface(interface, name, bitrate, online, now_ms);
            }
            Report::Heard { service: Service::Feed, peer, app_data, hops, interface, .. } => {
                self.on_heard(peer, &app_data, (hops, interface), now_ms, turn);
            }
            Report::Up {
                link,
                service: Service::Feed,
                peer,
                role,
                rtt_ms,
                packet_max,
                interface,
            } => {
                let air = self.airs.get_mut(&interface);
                let channel = air.as_ref().map_or(Channel::Bits(1_000_000), |air| air.channel);
                if let Some(air) = air {
                    let len = if role == Role::Dialer { LINK_IDENTIFY_LEN } else { LINK_PROOF_LEN };
                    air.spend(len, now_ms);
                }
                if self.links.len() >= LINKS_MAX {
                    return turn.orders.push(Order::Close { link });
                }
                let share_ms =
                    self.airs.get(&interface).map_or(u64::MAX, |it| it.budget.share_ms());
                let pace = Pace {
                    packet_max,
                    resource_max: resource_max(channel, share_ms),
                    packet_ms: channel.packet_ms(link_packet_len(packet_max)),
                    rtt_ms: u64::from(rtt_ms),
                };
                let state =
                    LinkState::new(role, interface, pace, self.config.hasher.clone(), now_ms);
                self.links.insert(link, state);
                if let Some(peer) = peer {
                    self.on_identified(link, peer, now_ms, turn);
                }
            }
            Report::Identified { link, peer } => self.on_identified(link, peer, now_ms, turn),
            Report::Unreachable { service: Service::Feed, peer, .. } => {
                self.on_unreachable(peer, now_ms);
            }
            Report::Received { link, bytes } => self.on_received(link, &bytes, now_ms, turn),
            Report::Sent { link, token, outcome } => {
                if let Some(state) = self.links.get_mut(&link)
                    && token != ACK_TOKEN
                {
                    match outcome {
                        Outcome::Left => {}
                        Outcome::Proved => state.stream.on_sent(token, true),
                        Outcome::Failed(_) => state.stream.on_sent(token, false),
                    }
                }
            }
            Report::Overheard { interface, bytes } => {
                self.on_overheard(interface, bytes, now_ms, turn);
            }
            Report::Down { link, reason } => self.on_down(link, &reason, now_ms, turn),
            Report::Heard { .. } | Report::Up { .. } | Report::Unreachable { .. } => {}
        }
    }

    fn on_interface(
        &mut self,
        interface: Interface,
        name: String,
        bitrate: Option<u32>,
        is_online: bool,
        now_ms: u64,
    ) {
        let bitrate = self.config.bitrate.or(bitrate).unwrap_or(WIRE_BITRATE);
        let channel = Channel::of_bitrate(bitrate);
        let has_limit = bitrate < RADIO_BITRATE_MAX && self.config.share < 1000;
        let budget = match has_limit {
            true => {
                let share_ms = HOUR_MS / 1000 * u64::from(self.config.share);
                Budget::begun(share_ms / 100 * OWN_SHARE, now_ms)
            }
            false => Budget::unlimited(),
        };
        let spread_ms = spread_ms(channel);
        let wait_ms = self.rng.random_range(0..=spread_ms);
        let air = self.airs.entry(interface).or_insert_with(|| Air {
            name: String::new(),
            bitrate,
            channel,
            budget: Budget::unlimited(),
            authors: Shares::new(u64::MAX),
            peers: Shares::new(u64::MAX),
            is_online: false,
            busy_until_ms: 0,
            announced_ms: None,
            next_announce_ms: now_ms,
            announced: None,
            lonely: 0,
            failures: 0,
            retry_ms: 0,
            casting: Casting::default(),
        });
        if is_online && !air.is_online {
            air.next_announce_ms = air.next_announce_ms.max(now_ms) + wait_ms;
        }
        if air.channel != channel || air.name.is_empty() {
            let each_ms = budget.share_ms().saturating_mul(EACH) / 100;
            let each_ms = if has_limit { each_ms } else { u64::MAX };
            (air.channel, air.budget) = (channel, budget);
            (air.authors, air.peers) = (Shares::new(each_ms), Shares::new(each_ms));
        }
        (air.bitrate, air.name, air.is_online) = (bitrate, name, is_online);
    }

    fn on_identified(&mut self, link: Link, peer: Peer, now_ms: u64, turn: &mut Turn) {
        if let Some(heard) = self.peers.get_mut(&peer) {
            heard.on_linked();
        }
        let Some(role) = self.links.get(&link).map(|state| state.role) else { return };
        let other = self.links.iter().find(|(id, state)| state.peer == Some(peer) && **id != link);
        if let Some((other, state)) = other {
            let by_smaller = |role| (role == Role::Dialer) == (self.config.own < peer);
            let other = *other;
            // One that is long open was lost by whoever opens another, or it would not.
            let keeps_other = !state.is_old(now_ms) && by_smaller(state.role) && !by_smaller(role);
            let surplus = if keeps_other { link } else { other };
            self.hang_up(surplus, "another link is kept", now_ms, turn);
            if surplus == link {
                return;
            }
        }
        let Some(state) = self.links.get_mut(&link) else { return };
        if let Some(air) = self.airs.get_mut(&state.interface) {
            air.failures = 0;
        }
        let session = SessionId(self.next_session);
        self.next_session += 1;
        (state.peer, state.session) = (Some(peer), Some(session));
        self.sessions.insert(session, link);
        let air = self.airs.get(&state.interface);
        let radio = Radio {
            patience: air.map_or(1, Air::patience),
            run_len_max: air.map_or(RUN_LENS[0], Air::run_len_max),
            own_name: self.config.own.0.to_vec(),
            peer_name: peer.0.to_vec(),
        };
        let binding = link.0.to_vec();
        turn.inputs.push(Input::Linked { session, peer: node_of(peer), role, binding, radio });
        // A replica that was built anew doesn't know it any more.
        if self.is_broadcasting {
            turn.inputs.push(Input::Broadcasting(true));
        }
    }

    fn on_received(&mut self, link: Link, bytes: &[u8], now_ms: u64, turn: &mut Turn) {
        let Some(state) = self.links.get_mut(&link) else { return };
        state.moved_ms = now_ms;
        if bytes.len() > state.pace.packet_max
            && let Some(air) = self.airs.get_mut(&state.interface)
        {
            // What the stack asked for and proved to get it.
            let (_, answers) = resource_len(bytes.len());
            air.spend(answers, now_ms);
        }
        let Some(session) = state.session else { return };
        let records = match state.stream.on_received(bytes, now_ms) {
            Ok(records) => records,
            Err(error) => {
                let reason = error.to_string();
                return self.hang_up(link, &reason, now_ms, turn);
            }
        };
        for record in records {
            match state.codec.expand(&record) {
                Ok(message) => {
                    if state.note_came(&message)
                        && let Some(heard) = state.peer.and_then(|peer| self.peers.get_mut(&peer))
                    {
                        (heard.sought, heard.seek_ms) = (0, now_ms);
                    }
                    turn.inputs.push(Input::Frame { session, message });
                }
                Err(error) => {
                    turn.inputs.push(Input::BadFrame { session, error });
                    break;
                }
            }
        }
    }

    fn on_down(&mut self, link: Link, reason: &str, now_ms: u64, turn: &mut Turn) {
        let Some(state) = self.links.remove(&link) else { return };
        let Some(session) = state.session else { return };
        self.sessions.remove(&session);
        turn.inputs.push(Input::Disconnected { session, reason: reason.to_owned() });
        // What it lacked it still lacks: another link, if the last announce says so.
        let air = self.airs.get(&state.interface);
        let retry_ms = air.map_or(RETRY_MS, Air::retry_after_ms);
        let chance = self.rng.random_range(0..retry_ms);
        if let Some(heard) = state.peer.and_then(|peer| self.peers.get_mut(&peer))
            && !state.is_closing()
        {
            heard.dial_ms = Some(now_ms + retry_ms / 2 + chance);
        }
    }

    /// Takes an effect, if it is of one of its sessions.
    pub fn handle_effect(&mut self, effect: Effect, now_ms: u64, turn: &mut Turn) {
        match effect {
            Effect::Send { session, frame, is_asked } => {
                let Some(link) = self.sessions.get(&session).copied() else { return };
                let Some(state) = self.links.get_mut(&link) else { return };
                if let Err(error) = state.push(&frame, is_asked, &self.config.first, now_ms) {
                    self.hang_up(link, &error.to_string(), now_ms, turn);
                }
            }
            Effect::Close { session, bye } => self.close(session, bye, now_ms, turn),
            Effect::Broadcast { frame } => self.on_broadcast(&frame, now_ms),
            _ => {}
        }
    }

    fn close(&mut self, session: SessionId, bye: Bye, now_ms: u64, turn: &mut Turn) {
        let Some(link) = self.sessions.get(&session).copied() else { return };
        let Some(state) = self.links.get_mut(&link) else { return };
        let has_said = bye.code == ByeCode::Done && bye.text.is_empty();
        let frame = Message::Bye(bye).encode();
        let is_said = !has_said && state.push(&frame, false, &self.config.first, now_ms).is_ok();
        let until_ms = now_ms + 1_000 + HANDSHAKE * state.pace.packet_ms;
        state.closing_ms = Some(if is_said { until_ms } else { now_ms });
        self.handle_timeout(now_ms, turn);
    }

    /// Tells who was heard, where that has changed.
    fn tell_on_air(&mut self, now_ms: u64, turn: &mut Turn) {
        let mut on_air = OnAir::default();
        for heard in self.peers.values().filter(|heard| heard.is_there(now_ms)) {
            on_air.heard += 1;
            on_air.equal += u32::from(heard.announce.top == self.own_top);
        }
        if self.on_air.replace(on_air) != Some(on_air) {
            turn.inputs.push(Input::OnAir(on_air));
        }
    }

    /// Tells the sessions over an interface which bridges are heard there, and who hears broadcasts, where
    /// that has changed.
    fn tell_islands(&mut self, now_ms: u64, turn: &mut Turn) {
        let hearers = self.hearers(now_ms);
        if self.is_broadcasting == hearers.is_empty() {
            self.is_broadcasting = !hearers.is_empty();
            turn.inputs.push(Input::Broadcasting(self.is_broadcasting));
        }
        let is_there = |heard: &Heard| heard.heard_ms + BRIDGE_LASTS_MS > now_ms;
        let bridges: Vec<(Interface, Peer)> = self
            .peers
            .iter()
            .filter(|(_, heard)| heard.announce.is_bridge && is_there(heard))
            .map(|(peer, heard)| (heard.interface, *peer))
            .collect();
        let mut links: BTreeMap<Interface, u64> = BTreeMap::new();
        for link in self.links.values() {
            *links.entry(link.interface).or_default() += 1;
        }
        for state in self.links.values_mut() {
            let (Some(session), Some(peer)) = (state.session, state.peer) else { continue };
            let here = bridges.iter().filter(|(interface, _)| *interface == state.interface);
            let here: Vec<Peer> = here.map(|(_, bridge)| *bridge).collect();
            let count = links.get(&state.interface).copied().unwrap_or(1);
            let island = Island {
                is_peer_bridge: here.contains(&peer),
                bridges: here.iter().map(|bridge| bridge.0.to_vec()).collect(),
                // An event and its answer, after those to whom the other bridge has links as well.
                wait_ms: if here.is_empty() { 0 } else { 2 * state.pace.packet_ms * (count + 1) },
                hears_broadcasts: hearers
                    .get(&state.interface)
                    .is_some_and(|peers| peers.contains(&peer)),
            };
            if state.island != island {
                state.island = island.clone();
                turn.inputs.push(Input::Island { session, island });
            }
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now_ms: u64, turn: &mut Turn) {
        self.tell_on_air(now_ms, turn);
        self.tell_islands(now_ms, turn);
        self.close_links(now_ms, turn);
        self.announce(now_ms, turn);
        self.dial(now_ms, turn);
        self.broadcast(now_ms, turn);
        self.transmit(now_ms, turn);
    }

    /// Ends a link, which costs a packet.
    fn hang_up(&mut self, link: Link, reason: &str, now_ms: u64, turn: &mut Turn) {
        turn.orders.push(Order::Close { link });
        let interface = self.links.get(&link).map(|state| state.interface);
        if let Some(air) = interface.and_then(|interface| self.airs.get_mut(&interface)) {
            air.spend(link_packet_len(1), now_ms);
        }
        self.on_down(link, reason, now_ms, turn);
    }

    fn close_links(&mut self, now_ms: u64, turn: &mut Turn) {
        let due = |link: &LinkState| link.closes_at_ms().is_some_and(|ms| ms <= now_ms);
        let due: Vec<Link> =
            self.links.iter().filter(|(_, link)| due(link)).map(|(link, _)| *link).collect();
        for link in due {
            self.hang_up(link, "closed: nothing more to say", now_ms, turn);
        }
    }

    fn announce(&mut self, now_ms: u64, turn: &mut Turn) {
        let announce = Announce {
            tag: self.config.tag,
            top: self.own_top,
            events: self.own_events,
            is_alone: self.sessions.is_empty(),
            is_bridge: self.is_bridge,
            takes_broadcasts: self.config.seal.is_some(),
        };
        if self.is_paused {
            return;
        }
        let jitter_ms = self.rng.random_range(0..ANNOUNCE_EVERY_MS / 6);
        let (seals, own_changed_ms) = (self.config.seal.is_some(), self.own_changed_ms);
        for (interface, air) in self.airs.iter_mut().filter(|(_, air)| air.is_online) {
            let cost_ms = air.channel.packet_ms(ANNOUNCE_LEN + LEN_MAX);
            let is_news =
                |last: Announce| (last.top, last.is_bridge) != (announce.top, announce.is_bridge);
            let has_changed = air.announced.is_some_and(is_news);
            let pause_ms = ANNOUNCE_PAUSE * cost_ms;
            let changed_ms = air.announced_ms.filter(|_| has_changed).map(|ms| ms + pause_ms);
            // What is broadcast first needs no announce.
            let settled_ms = if seals { own_changed_ms + 4 * air.unit_ms() } else { 0 };
            let changed_ms = changed_ms.map(|ms| ms.max(settled_ms));
            air.next_announce_ms =
                changed_ms.map_or(air.next_announce_ms, |ms| ms.min(air.next_announce_ms));
            let is_due = air.next_announce_ms <= now_ms
                && air.busy_until_ms <= now_ms
                && air.budget.when(cost_ms, now_ms) == Some(now_ms);
            if !is_due {
                continue;
            }
            air.spend(ANNOUNCE_LEN + LEN_MAX, now_ms);
            (air.announced, air.announced_ms) = (Some(announce), Some(now_ms));
            let is_lonely = !self.peers.values().any(|heard| heard.interface == *interface);
            let lonely_ms = if air.is_radio() { LONELY_MS } else { LONELY_WIRE_MS };
            // Where nobody was heard yet perhaps nobody heard: the modem may have come later than this node.
            let every_ms = match is_lonely {
                true => (pause_ms.max(lonely_ms) << air.lonely.min(16)).min(ANNOUNCE_EVERY_MS),
                false => ANNOUNCE_EVERY_MS + jitter_ms,
            };
            air.lonely += u32::from(is_lonely);
            air.next_announce_ms = now_ms + pause_ms.max(every_ms);
            let (service, app_data) = (Service::Feed, announce.encode());
            turn.orders.push(Order::Announce { service, interface: *interface, app_data });
        }
    }

    /// What goes next on each interface: of all links the one with the most urgent, and of equal ones the
    /// one whose peer got least.
    fn transmit(&mut self, now_ms: u64, turn: &mut Turn) {
        loop {
            let next = self.links.iter().filter_map(|(link, state)| {
                let air = self.airs.get(&state.interface)?;
                let due = state.due(|author| air.authors.when(author, now_ms) <= now_ms, now_ms)?;
                let got_ms = state.peer.map_or(0, |peer| air.peers.used_ms(&peer, now_ms));
                (air.sends_at_ms(state, due, now_ms) == Some(now_ms)).then_some((
                    due.class,
                    got_ms,
                    state.moved_ms,
                    *link,
                ))
            });
            let Some((.., link)) = next.min() else { return };
            let Some(state) = self.links.get_mut(&link) else { return };
            let Some(air) = self.airs.get_mut(&state.interface) else { return };
            match state.next(|author| air.authors.when(author, now_ms) <= now_ms, now_ms) {
                Ok(Some(gone)) => {
                    air.spend_on(state, &gone, now_ms);
                    let Gone { out, sent, .. } = gone;
                    if let Some(session) = state.session.filter(|_| sent > 0) {
                        turn.inputs.push(Input::Sent { session, bytes: sent });
                    }
                    turn.orders.push(Order::Send { link, token: out.token, bytes: out.bytes });
                }
                Ok(None) => return,
                Err(error) => {
                    self.hang_up(link, &error.to_string(), now_ms, turn);
                }
            }
        }
    }

    /// The stack is gone: all sessions are over.
    pub fn end(&mut self, bye: &Bye, turn: &mut Turn) {
        let links: Vec<Link> = self.links.keys().copied().collect();
        links.into_iter().for_each(|link| self.on_down(link, &bye.text, 0, turn));
    }

    /// When [`Station::handle_timeout`] has something to do, if nothing else happens.
    pub fn next_timeout_ms(&self, now_ms: u64) -> Option<u64> {
        let links = self.links.values().flat_map(|state| {
            let air = self.airs.get(&state.interface);
            let sends_ms = air.and_then(|air| air.next_send_ms(state, now_ms));
            [sends_ms, state.closes_at_ms()]
        });
        let announces = self
            .airs
            .values()
            .map(|air| air.begins_at_ms(ANNOUNCE_LEN + LEN_MAX, air.next_announce_ms.max(now_ms)));
        let casts = self.airs.values().map(|air| air.next_cast_ms(now_ms));
        let casts = casts.filter(|_| self.config.seal.is_some());
        let own = iter::once(self.next_dial_ms(now_ms))
            .chain(announces)
            .chain(casts)
            .filter(|_| !self.is_paused);
        links.chain(own).flatten().min()
    }

    /// The interfaces, for people.
    pub fn interfaces(&self, now_ms: u64) -> Vec<InterfaceStatus> {
        let status = |(interface, air): (&Interface, &Air)| {
            let mut queued = Queued::default();
            for link in self.links.values().filter(|link| link.interface == *interface) {
                link.count_queued(&mut queued);
            }
            InterfaceStatus {
                name: air.name.clone(),
                is_online: air.is_online,
                used_ms: air.budget.used_ms(now_ms),
                left_ms: air.budget.left_ms(now_ms),
                bitrate: air.is_radio().then_some(air.bitrate),
                queued,
                broadcasts_sent: air.casting.sent,
                broadcasts_heard: air.casting.heard,
                broadcasts_refused: air.casting.refused,
            }
        };
        self.airs.iter().map(status).collect()
    }

    /// The peers that were heard, for people.
    pub fn peers(&self, now_ms: u64) -> Vec<PeerStatus> {
        let is_linked = |peer: &Peer| {
            self.links.values().any(|link| link.peer == Some(*peer) && link.session.is_some())
        };
        let status = |(peer, heard): (&Peer, &Heard)| PeerStatus {
            peer: *peer,
            events: heard.announce.events,
            is_equal: heard.announce.top == self.own_top,
            hops: heard.hops,
            age_ms: now_ms.saturating_sub(heard.heard_ms),
            is_linked: is_linked(peer),
        };
        self.peers.iter().map(status).collect()
    }
}

/// What stands for a peer among nodes: it is none of the transport's, and is dialed by nobody.
fn node_of(peer: Peer) -> NodeId {
    NodeId(derive("radio peer", &peer.0))
}

/// The longest Resource of which an hour has room for some, and that isn't on air for too long.
fn resource_max(channel: Channel, share_ms: u64) -> usize {
    let most_ms = RESOURCE_AIR_MAX_MS.min(share_ms / RESOURCES_AN_HOUR);
    let fits = |len: &usize| channel.bytes_ms(resource_len(*len).0) <= most_ms;
    [RESOURCE_MAX, RESOURCE_MAX / 2, RESOURCE_FROM].into_iter().find(fits).unwrap_or(0)
}

fn spread_ms(channel: Channel) -> u64 {
    (SPREAD * channel.packet_ms(ANNOUNCE_LEN + LEN_MAX)).max(SPREAD_MIN_MS)
}

impl Air {
    fn is_radio(&self) -> bool {
        self.bitrate < RADIO_BITRATE_MAX
    }

    /// How many times longer things take here than elsewhere, waiting for the next hour included.
    fn patience(&self) -> u64 {
        let air_ms = self.channel.bytes_ms(16 << 10);
        let took_ms = match self.budget.share_ms() {
            u64::MAX => air_ms,
            share_ms => air_ms.saturating_mul(HOUR_MS / share_ms.max(1)),
        };
        took_ms / USUAL_MS + 1
    }

    fn run_len_max(&self) -> usize {
        let most_ms = RUN_AIR_MAX_MS.min(self.budget.share_ms() / RUNS_AN_HOUR);
        let fits = |len: &usize| self.channel.bytes_ms(*len) <= most_ms;
        RUN_LENS.into_iter().find(fits).unwrap_or(RUN_LENS[3])
    }

    fn spend(&mut self, len: usize, now_ms: u64) {
        self.spend_ms(self.channel.packet_ms(len), now_ms);
    }

    fn spend_ms(&mut self, cost_ms: u64, now_ms: u64) {
        self.budget.spend(cost_ms, now_ms);
        // On a wire nobody waits for another.
        let gap_ms = if self.is_radio() { GAP_MS } else { 0 };
        self.busy_until_ms = self.busy_until_ms.max(now_ms) + cost_ms.saturating_sub(1) + gap_ms;
    }

    fn cost_ms(&self, len: usize, packet_max: usize) -> u64 {
        match len > packet_max {
            true => self.channel.bytes_ms(resource_len(len).0),
            false => self.channel.packet_ms(link_packet_len(len)),
        }
    }

    /// When a packet that is due then may go; none for one that never will.
    fn begins_at_ms(&self, len: usize, due_ms: u64) -> Option<u64> {
        let at_ms = due_ms.max(self.busy_until_ms);
        self.is_online.then(|| self.budget.when(self.channel.packet_ms(len), at_ms)).flatten()
    }

    /// When what is due on a link may go; none for what never will.
    fn sends_at_ms(&self, link: &LinkState, due: Due, now_ms: u64) -> Option<u64> {
        self.may_send_at_ms(due.class, (due.len, link.pace.packet_max), link.peer, now_ms)
    }

    /// When so many bytes of a class may go to a peer; none for what never will.
    fn may_send_at_ms(
        &self,
        class: Class,
        (len, packet_max): (usize, usize),
        peer: Option<Peer>,
        now_ms: u64,
    ) -> Option<u64> {
        if !self.is_online {
            return None;
        }
        let reserve = match class {
            Class::Control => 0,
            Class::News => RESERVE_NEWS,
            Class::Priority => RESERVE_PRIORITY,
            Class::History => RESERVE_HISTORY,
            Class::Files => RESERVE_FILES,
        };
        let of_peer_ms = match (class, peer) {
            (Class::Control, _) | (_, None) => now_ms,
            (_, Some(peer)) => self.peers.when(&peer, now_ms),
        };
        let cost_ms = self.cost_ms(len, packet_max) + self.budget.share_ms() / 100 * reserve;
        let at_ms = self.budget.when(cost_ms, of_peer_ms)?;
        Some(at_ms.max(self.busy_until_ms))
    }

    /// When something may go on a link, if nothing else happens.
    fn next_send_ms(&self, link: &LinkState, now_ms: u64) -> Option<u64> {
        let again_ms = link.stream.next_timeout_ms().map(|ms| ms.max(now_ms));
        let at = |ms: u64| {
            let due = link.due(|author| self.authors.when(author, ms) <= ms, ms)?;
            self.sends_at_ms(link, due, ms)
        };
        let of_author = |author| Some(self.authors.when(author, now_ms)).filter(|ms| *ms > now_ms);
        let shares_ms = link.authors().filter_map(of_author).min();
        [at(now_ms), again_ms.and_then(at), shares_ms].into_iter().flatten().min()
    }

    /// So many bytes go to a peer.
    fn spend_send(&mut self, (len, packet_max): (usize, usize), peer: Option<Peer>, now_ms: u64) {
        let cost_ms = self.cost_ms(len, packet_max);
        self.spend_ms(cost_ms, now_ms);
        if let Some(peer) = peer {
            self.peers.spend(peer, cost_ms, now_ms);
        }
    }

    /// So much has gone on a link.
    fn spend_on(&mut self, link: &LinkState, gone: &Gone, now_ms: u64) {
        let packet_max = link.pace.packet_max;
        self.spend_send((gone.out.bytes.len(), packet_max), link.peer, now_ms);
        let whole_ms = self.channel.packet_ms(link_packet_len(packet_max));
        for (author, len) in &gone.of {
            self.authors.spend(*author, whole_ms * *len as u64 / packet_max as u64, now_ms);
        }
    }
}

#[cfg(test)]
mod tests;
