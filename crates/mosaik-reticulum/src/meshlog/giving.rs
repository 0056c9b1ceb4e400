//! What goes to a peer: events that it lacks, and what is held here, so that it sends what lacks here.

use std::collections::BTreeMap;

use mosaik_core::meshlog::{
    is_native_author,
    message::{EVENTS_SENT_MAX, write_events, write_frontier},
};
use mosaik_proto::carrier::Role;

use super::{
    Ask, Meshlog, RETRY_MS, Turn, Wire, answer_ms,
    peer::{InFlight, PeerState, Ready, Told},
};
use crate::{
    stack::{Link, Order, Outcome, Peer},
    station::Airtime,
};

/// What is held is told again ever more rarely to whom nothing comes from, at last so often.
const ANSWER_MAX_MS: u64 = 60 * 60 * 1000;
/// How hard what bzip2 will make of a message is looked for with zstd.
const COMPRESSION: i32 = 3;
/// Bytes of events in a message at most, where a Resource costs nothing.
const SEND_BYTES_MAX: usize = 128 << 10;

impl Meshlog {
    pub(super) fn on_sent(
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

    /// The link of a peer that is used: one that this node opened first, for on that packets are proved.
    pub(super) fn link_of(&self, peer: Peer, turn: usize) -> Option<Link> {
        let links = self.links.iter().filter(|(_, state)| state.peer == Some(peer));
        let mut links: Vec<_> = links.collect();
        links.sort_by_key(|(_, state)| state.role == Role::Listener);
        (!links.is_empty()).then(|| *links[turn % links.len()].0)
    }

    pub(super) fn serve(
        &mut self,
        peer: Peer,
        now_ms: u64,
        air: &mut Airtime<'_>,
        turn: &mut Turn,
    ) {
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
    pub(super) fn look(
        &mut self,
        peer: Peer,
        link: Link,
        now_ms: u64,
        air: &Airtime<'_>,
        turn: &mut Turn,
    ) {
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
            most if air.is_radio(there.interface) => most,
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
    pub(super) fn frontier_for(&self, state: &PeerState, now_ms: u64) -> String {
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
    pub(super) fn tell(
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
        let len = len_on_air(message.as_bytes(), on.packet_max);
        let at_ms = air.send_at_ms(on, len, now_ms);
        if at_ms != Some(now_ms) {
            return self.wake(at_ms);
        }
        air.spend_send(on, len, now_ms);
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

    pub(super) fn transmit(
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
        let len = len_on_air(&ready.bytes, there.packet_max);
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
}

/// Bytes of a message as they go, or some more: the stack compresses what is longer than a packet, with
/// bzip2, which makes of some kilobytes of JSON up to a quarter more than this.
pub(super) fn len_on_air(bytes: &[u8], packet_max: usize) -> usize {
    if bytes.len() <= packet_max {
        return bytes.len();
    }
    let compressed = zstd::bulk::compress(bytes, COMPRESSION).map_or(bytes.len(), |it| it.len());
    let compressed = compressed + compressed / 4;
    // A Resource it is all the same.
    compressed.clamp(packet_max + 1, bytes.len())
}
