//! Who was heard, and to whom links are opened, when.
//!
//! Invariants:
//! - An island is joined by as few links as it has nodes, less one: all turn to the smallest hash first.
//! - Where nothing is lost by speaking too early, on a wire, nobody waits for long: neither for a turn nor
//!   because of somebody who is gone.
//!
//! Source: FORMAT.md beside this crate, section 1.

use std::collections::BTreeMap;

use rand::RngExt;

use super::{ANNOUNCE_EVERY_MS, Air, LINKS_MAX, PEERS_MAX, RETRY_MAX_MS, Station, Turn, spread_ms};
use crate::{
    airtime::{ANNOUNCE_LEN, Channel, LINK_REQUEST_LEN},
    announce::{Announce, LEN_MAX},
    cast::Held,
    stack::{Interface, Order, Peer, Service},
};

/// How long a dial waits for another announce after each, in times of one on air.
const MORE: u64 = 2;
/// How long an announce that still differs waits where its peer isn't the one that all turn to, in times
/// of the usual spread: by then what it lacks should have come by way of that one.
const SETTLE: u64 = 30;
/// The same on a wire, in milliseconds, where a link more costs next to nothing.
const SETTLE_WIRE_MS: u64 = 1_000;
/// After so many announces in a row that differ somebody who holds less is dialed, though it has links.
const DIFFERS: u32 = 2;
/// After a link that could not be opened the next attempt waits so long, and ever longer.
pub(super) const RETRY_MS: u64 = 30_000;
/// The same on a wire.
const RETRY_WIRE_MS: u64 = 2_000;
/// How long a dial on a wire keeps others waiting, in milliseconds: who is there answers within that, and
/// the stack waits for more than 6 s for who is gone.
const TURN_WIRE_MS: u64 = 1_000;
/// How far apart two announces to newcomers are at the least, in milliseconds.
const WELCOME_PAUSE_MS: u64 = 500;

/// A peer that was heard.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) announce: Announce,
    /// What it holds, presumably: what it announced, and what was broadcast since.
    pub(super) presumed: Option<[u8; 8]>,
    pub(super) heard_ms: u64,
    /// How many of its announces in a row differed from what this node held.
    differed: u32,
    pub(super) hops: u8,
    pub(super) interface: Interface,
    /// When a link is to be opened to it, if it differs then.
    pub(super) dial_ms: Option<u64>,
    /// Whether it was linked, and has lost that: it may know nobody any more.
    is_back: bool,
    /// Since when a link to it is being opened.
    dialed_ms: Option<u64>,
    failures: u32,
    retry_ms: u64,
    /// Links in a row that were opened to it for the sake of a file, and brought nothing of it.
    pub(super) sought: u32,
    /// When the next one may be.
    pub(super) seek_ms: u64,
}

impl Heard {
    /// Whether it was heard lately: one announce may have been missed.
    pub(super) fn is_there(&self, now_ms: u64) -> bool {
        self.heard_ms + 2 * ANNOUNCE_EVERY_MS > now_ms
    }

    pub(super) fn on_linked(&mut self) {
        (self.dialed_ms, self.failures, self.dial_ms, self.is_back) = (None, 0, None, false);
    }

    /// The topmost hash of what it holds, presumably.
    pub(super) fn likely_top(&self) -> [u8; 8] {
        self.presumed.unwrap_or(self.announce.top)
    }
}

/// What decides on dials over one interface.
#[derive(Debug, Default)]
struct Dialing {
    /// The peer that all who hear it turn to first: who has the smallest hash. So an island is joined by as
    /// few links as it has nodes. Others are dialed where that doesn't bring what they have.
    hub: Option<Peer>,
    is_under_way: bool,
    /// While the ends of a new link tell each other what they hold no other is opened.
    from_ms: u64,
    /// When something went over a link last: what comes over that may be all that lacks elsewhere.
    moved_ms: u64,
}

impl Station {
    /// Whether a file is asked for that a peer may have: then links are opened to peers that hold the same
    /// events, too.
    pub fn seek(&mut self, on: bool, now_ms: u64) {
        if std::mem::replace(&mut self.is_seeking, on) || !on {
            return;
        }
        for heard in self.peers.values_mut() {
            (heard.sought, heard.seek_ms) = (0, now_ms);
            heard.dial_ms = Some(heard.dial_ms.unwrap_or(now_ms).max(heard.retry_ms));
        }
    }

    pub(super) fn on_heard(
        &mut self,
        peer: Peer,
        app_data: &[u8],
        (hops, interface): (u8, Interface),
        now_ms: u64,
        turn: &mut Turn,
    ) {
        let Ok(announce) = Announce::decode(app_data) else { return };
        if announce.tag != self.config.tag || peer == self.config.own {
            return;
        }
        if !self.peers.contains_key(&peer) && self.peers.len() >= PEERS_MAX {
            let oldest = self.peers.iter().min_by_key(|(_, heard)| heard.heard_ms);
            let Some(oldest) = oldest.map(|(peer, _)| *peer) else { return };
            self.peers.remove(&oldest);
        }
        // Its end of an older link is gone: it was started anew, or lost it.
        let gone = self.links.iter().find(|(_, state)| {
            announce.is_alone && state.peer == Some(peer) && state.is_old(now_ms)
        });
        let gone = gone.map(|(link, _)| *link);
        let known = self.peers.get(&peer).filter(|heard| heard.is_there(now_ms));
        let is_newcomer = known.is_none() || gone.is_some();
        if let Some(link) = gone {
            self.hang_up(link, "lost: the other end has no link", now_ms, turn);
        }
        let channel = self.airs.get(&interface).map_or(Channel::Bits(1_000_000), |air| air.channel);
        let spread_ms = spread_ms(channel);
        let wait_ms = self.rng.random_range(0..=spread_ms);
        // Where one speaks others may be about to: a link to whoever was first might be one too many.
        let more_ms = now_ms + MORE * channel.packet_ms(ANNOUNCE_LEN + LEN_MAX);
        for other in self.peers.values_mut().filter(|other| other.interface == interface) {
            let is_fresh = other.heard_ms + 2 * spread_ms > now_ms;
            other.dial_ms = other.dial_ms.map(|ms| if is_fresh { ms.max(more_ms) } else { ms });
        }
        let heard = self.peers.entry(peer).or_insert(Heard {
            announce,
            presumed: None,
            heard_ms: now_ms,
            differed: 0,
            hops,
            interface,
            dial_ms: None,
            is_back: false,
            dialed_ms: None,
            failures: 0,
            retry_ms: 0,
            sought: 0,
            seek_ms: 0,
        });
        (heard.announce, heard.heard_ms, heard.hops, heard.interface) =
            (announce, now_ms, hops, interface);
        heard.presumed = None;
        heard.differed = if announce.top == self.own_top { 0 } else { heard.differed + 1 };
        heard.is_back |= gone.is_some();
        heard.dial_ms = Some((now_ms + wait_ms).max(heard.retry_ms));
        if is_newcomer {
            self.welcome(interface, now_ms + wait_ms);
        }
        // With a link no other is opened: what lacks though nothing comes over it is said.
        let is_linked = self.links.values().any(|it| it.peer == Some(peer) && it.session.is_some());
        if self.config.seal.is_some() && announce.takes_broadcasts && is_linked && hops <= 1 {
            let held = Held { top: announce.top, events: announce.events };
            self.on_held(peer, held, now_ms);
        }
    }

    /// Says again on a wire what who has just come didn't hear: of two, the one that is to open a link may
    /// be the newcomer.
    fn welcome(&mut self, interface: Interface, at_ms: u64) {
        if let Some(air) = self.airs.get_mut(&interface).filter(|air| !air.is_radio()) {
            let again_ms = air.announced_ms.map_or(at_ms, |ms| at_ms.max(ms + WELCOME_PAUSE_MS));
            air.next_announce_ms = air.next_announce_ms.min(again_ms);
        }
    }

    /// What decides on dials, for each interface.
    fn dialing(&self, now_ms: u64) -> BTreeMap<Interface, Dialing> {
        let mut all: BTreeMap<Interface, Dialing> = BTreeMap::new();
        for (peer, heard) in &self.peers {
            let dialing = all.entry(heard.interface).or_default();
            let is_radio = self.airs.get(&heard.interface).is_none_or(Air::is_radio);
            match heard.dialed_ms {
                Some(_) if is_radio => dialing.is_under_way = true,
                Some(ms) => dialing.from_ms = dialing.from_ms.max(ms + TURN_WIRE_MS),
                None => {}
            }
            let is_there = heard.failures == 0 && heard.is_there(now_ms);
            if is_there && *peer < self.config.own {
                dialing.hub.get_or_insert(*peer);
            }
        }
        for link in self.links.values() {
            let dialing = all.entry(link.interface).or_default();
            // Who already has a link to such a one leaves the next to that one: all would turn at once.
            if link.peer.is_some_and(|peer| peer < self.config.own) {
                dialing.hub = None;
            }
            if link.is_new(now_ms) {
                dialing.from_ms = dialing.from_ms.max(link.new_until_ms());
            }
            if link.session.is_some() {
                dialing.moved_ms = dialing.moved_ms.max(link.moved_ms);
            }
        }
        all
    }

    pub(super) fn on_unreachable(&mut self, peer: Peer, now_ms: u64) {
        let Some(heard) = self.peers.get_mut(&peer) else { return };
        let air = self.airs.get_mut(&heard.interface);
        let retry_ms = air.as_ref().map_or(RETRY_MS, |air| air.retry_after_ms());
        let chance = self.rng.random_range(0..retry_ms);
        let wait_ms = |failures| ever_longer_ms(retry_ms, failures) + chance;
        // A wire isn't too full for an answer: who gives none is gone.
        if let Some(air) = air.filter(|air| air.is_radio()) {
            air.retry_ms = now_ms + wait_ms(air.failures);
            air.failures += 1;
        }
        let wait_ms = wait_ms(heard.failures);
        heard.failures += 1;
        heard.dialed_ms = None;
        heard.retry_ms = now_ms + wait_ms;
        heard.dial_ms = Some(heard.retry_ms);
    }

    /// When a link to a peer is to be opened; none while another is, for what comes over that may be all
    /// that lacks.
    fn dials_at_ms(
        &self,
        (peer, heard): (&Peer, &Heard),
        all: &BTreeMap<Interface, Dialing>,
        now_ms: u64,
    ) -> Option<u64> {
        let dial_ms = heard.dial_ms.filter(|_| heard.dialed_ms.is_none())?;
        let dialing = all.get(&heard.interface)?;
        let air = self.airs.get(&heard.interface)?;
        if self.links.len() >= LINKS_MAX || dialing.is_under_way {
            return None;
        }
        let is_first = heard.is_back || dialing.hub == Some(*peer) || self.is_seeking;
        let due_ms = match is_first {
            true => dial_ms,
            false => (dial_ms.max(dialing.moved_ms) + air.settle_ms()).max(air.retry_ms),
        };
        let due_ms = due_ms.max(dialing.from_ms);
        air.begins_at_ms(LINK_REQUEST_LEN, due_ms.max(now_ms))
    }

    /// When the next link is to be opened, if nothing else happens.
    pub(super) fn next_dial_ms(&self, now_ms: u64) -> Option<u64> {
        let all = self.dialing(now_ms);
        self.peers.iter().filter_map(|it| self.dials_at_ms(it, &all, now_ms)).min()
    }

    /// Opens the links that are due.
    pub(super) fn dial(&mut self, now_ms: u64, turn: &mut Turn) {
        if self.is_paused {
            return;
        }
        let linked: Vec<Peer> = self.links.values().filter_map(|link| link.peer).collect();
        let mut all = self.dialing(now_ms);
        let may = |it: &(&Peer, &Heard)| self.dials_at_ms(*it, &all, now_ms) == Some(now_ms);
        let due: Vec<Peer> = self.peers.iter().filter(may).map(|(peer, _)| *peer).collect();
        for peer in due {
            let Some(heard) = self.peers.get_mut(&peer) else { continue };
            let Some(dialing) = all.get_mut(&heard.interface).filter(|it| !it.is_under_way) else {
                continue;
            };
            heard.dial_ms = None;
            // Who is back announces itself.
            if linked.contains(&peer) || !heard.is_there(now_ms) {
                continue;
            }
            let is_first = heard.is_back || dialing.hub == Some(peer);
            // What came since may be what the peer had to give; and who holds less, and has links, gets it
            // there. Its next announce tells.
            let (theirs, own) = (heard.announce.events, self.own_events);
            let lacks = theirs == own || heard.announce.is_alone || heard.differed > DIFFERS;
            let gives = theirs > own || (lacks && heard.heard_ms >= self.own_changed_ms);
            let is_needless = heard.likely_top() == self.own_top || !(is_first || gives);
            if is_needless && !self.is_seeking {
                continue;
            }
            if is_needless {
                // What is coming over one link isn't looked for over another.
                let is_coming = self.links.values().any(|link| link.brings_piece(now_ms));
                let from_ms = if is_coming { now_ms + RETRY_MS } else { heard.seek_ms };
                if from_ms > now_ms {
                    heard.dial_ms = Some(from_ms);
                    continue;
                }
                heard.seek_ms = now_ms + ever_longer_ms(RETRY_MS, heard.sought);
                heard.sought += 1;
            }
            dialing.is_under_way = true;
            heard.dialed_ms = Some(now_ms);
            if let Some(air) = self.airs.get_mut(&heard.interface) {
                air.spend(LINK_REQUEST_LEN, now_ms);
            }
            turn.orders.push(Order::Open { service: Service::Feed, peer });
        }
    }
}

/// How long to wait after so many attempts in vain: each time twice as long, up to a limit.
pub(crate) fn ever_longer_ms(first_ms: u64, attempts: u32) -> u64 {
    (first_ms << attempts.min(10)).min(RETRY_MAX_MS)
}

impl Air {
    /// How long an announce that still differs waits where its peer isn't the one that all turn to.
    fn settle_ms(&self) -> u64 {
        match self.is_radio() {
            true => SETTLE * spread_ms(self.channel),
            false => SETTLE_WIRE_MS,
        }
    }

    /// How long after a link that broke, or could not be opened, another may be tried.
    pub(super) fn retry_after_ms(&self) -> u64 {
        if self.is_radio() { RETRY_MS } else { RETRY_WIRE_MS }
    }
}
