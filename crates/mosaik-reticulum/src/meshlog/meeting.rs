//! Who is there: announces, dials, links, and who is left alone.

use rand::RngExt;

use super::{Announced, BRIDGE_MS, LINKS_MAX, LinkState, Meshlog, RETRY_MS, Turn, peer::PeerState};
use crate::{
    airtime::{ANNOUNCE_LEN, LINK_REQUEST_LEN},
    stack::{Interface, Link, Order, Peer, PublicKeys, Service},
    station::{ANNOUNCE_EVERY_MS, ANNOUNCE_PAUSE, Airtime, ever_longer_ms},
};

/// The first byte of an announce of ours; meshlogd begins with `{`, and reads nobody's.
const ANNOUNCE_VERSION: u8 = 1;
/// Bytes of it: the version, and the network's tag.
pub(super) const ANNOUNCE_DATA_LEN: usize = 5;
/// How long the first one waits on a radio, in milliseconds: meshlogd announces itself every 20 s, and
/// uses the link of whoever dials it first. On a link that this node has opened it needn't prove packets,
/// and meshlogd sends one every few seconds.
const LISTEN_FIRST_MS: u64 = 25_000;
/// Peers that are remembered.
const PEERS_MAX: usize = 256;
/// How long the other end of a link may take to say who it is, in times of a packet on air, and in
/// milliseconds besides.
const HANDSHAKE: u64 = 20;
const HANDSHAKE_MS: u64 = 1_500;
/// How long a peer that talks without sense is left alone; doubled each time.
const BAR_MS: u64 = 10 * 60 * 1000;
const BAR_MAX_MS: u64 = 24 * 60 * 60 * 1000;
/// Bridges of the same network that are remembered.
const BRIDGES_MAX: usize = 64;

impl Meshlog {
    pub(super) fn on_heard(
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
    pub(super) fn on_bridge(&mut self, peer: Peer, now_ms: u64, turn: &mut Turn) {
        self.bridges.retain(|_, heard_ms| *heard_ms + BRIDGE_MS > now_ms);
        if self.bridges.len() < BRIDGES_MAX || self.bridges.contains_key(&peer) {
            self.bridges.insert(peer, now_ms);
        }
        self.peers.remove(&peer);
        let links = self.links.iter().filter(|(_, state)| state.peer == Some(peer));
        turn.orders.extend(links.map(|(link, _)| Order::Close { link: *link }));
    }

    pub(super) fn make_room_for(&mut self, peer: Peer) -> bool {
        if self.peers.contains_key(&peer) || self.peers.len() < PEERS_MAX {
            return true;
        }
        let is_linked = |peer: &Peer| self.links.values().any(|link| link.peer == Some(*peer));
        let idle = self.peers.iter().filter(|(peer, _)| !is_linked(peer));
        let oldest = idle.min_by_key(|(_, state)| state.heard_ms).map(|(peer, _)| *peer);
        oldest.is_some_and(|peer| self.peers.remove(&peer).is_some())
    }

    pub(super) fn on_identified(&mut self, link: Link, peer: Peer, now_ms: u64, turn: &mut Turn) {
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

    pub(super) fn on_unreachable(&mut self, peer: Peer, now_ms: u64) {
        let chance = self.rng.random_range(0..RETRY_MS);
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let wait_ms = ever_longer_ms(RETRY_MS, state.failures) + chance;
        state.failures += 1;
        state.is_dialing = false;
        state.retry_ms = now_ms + wait_ms;
        state.dial_ms = Some(state.retry_ms);
    }

    pub(super) fn on_down(&mut self, link: Link, now_ms: u64) {
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

    /// Closes links whose other end doesn't say who it is: what it asks for can't be answered, and
    /// meshlogd opens another only when they are gone.
    pub(super) fn close_unknown(&mut self, now_ms: u64, air: &Airtime<'_>, turn: &mut Turn) {
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

    pub(super) fn announce_data(&self) -> [u8; ANNOUNCE_DATA_LEN] {
        let [a, b, c, d] = self.config.tag;
        [ANNOUNCE_VERSION, a, b, c, d]
    }

    pub(super) fn announce(&mut self, now_ms: u64, air: &mut Airtime<'_>, turn: &mut Turn) {
        let len = ANNOUNCE_LEN + ANNOUNCE_DATA_LEN;
        let (online, app_data) = (air.online(), self.announce_data().to_vec());
        self.announced.retain(|interface, _| online.contains(interface));
        let is_alone = self.links.is_empty() && self.peers.values().any(|peer| !peer.was_linked);
        let jitter_ms = self.rng.random_range(0..ANNOUNCE_EVERY_MS / 6);
        let mut next_ms = None::<u64>;
        for interface in &online {
            let wait_ms = self.rng.random_range(0..=air.spread_ms(*interface));
            let listen_ms = if air.is_radio(*interface) { LISTEN_FIRST_MS } else { 0 };
            let announced = self.announced.entry(*interface);
            let announced = announced.or_insert_with(|| Announced {
                at_ms: None,
                next_ms: now_ms + listen_ms + wait_ms,
                has_news: false,
            });
            let pause_ms = ANNOUNCE_PAUSE * air.channel(*interface).packet_ms(len);
            let sooner_ms = announced.at_ms.filter(|_| is_alone && announced.has_news);
            let due_ms =
                sooner_ms.map_or(announced.next_ms, |ms| announced.next_ms.min(ms + pause_ms));
            let at_ms = air.packet_at_ms(*interface, len, due_ms.max(now_ms));
            if at_ms != Some(now_ms) {
                next_ms = next_ms.into_iter().chain(at_ms).min();
                continue;
            }
            air.spend_packet(*interface, len, now_ms);
            let again_ms = now_ms + pause_ms.max(ANNOUNCE_EVERY_MS) + jitter_ms;
            *announced = Announced { at_ms: Some(now_ms), next_ms: again_ms, has_news: false };
            let (service, app_data) = (Service::Meshlog, app_data.clone());
            turn.orders.push(Order::Announce { service, interface: *interface, app_data });
            next_ms = next_ms.into_iter().chain([again_ms]).min();
        }
        self.wake(next_ms);
    }

    pub(super) fn dial(&mut self, now_ms: u64, air: &mut Airtime<'_>, turn: &mut Turn) {
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

    /// Leaves a peer alone for a while.
    pub(super) fn bar(&mut self, peer: Option<Peer>, now_ms: u64) {
        let Some(state) = peer.and_then(|peer| self.peers.get_mut(&peer)) else { return };
        state.barred_ms = now_ms + (BAR_MS << state.bars.min(10)).min(BAR_MAX_MS);
        state.bars += 1;
    }
}

/// How long the other end of a link may take to say who it is.
fn handshake_ms(air: &Airtime<'_>, interface: Interface) -> u64 {
    HANDSHAKE_MS + HANDSHAKE * air.channel(interface).packet_ms(500)
}
