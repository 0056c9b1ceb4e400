//! Broadcasts: what is new goes once to all who hear it, and who lacks something then says so.
//!
//! Nobody acknowledges. Some time after something was broadcast one of those who hear each other says
//! what it holds, twice; who holds less says that, and which of the last it has; who was first to
//! broadcast what lacks does so again, or somebody else. Where that brings nothing a link is compared.
//!
//! Invariants:
//! - What is kept, sent again and asked for is bounded in number and in time, whatever others say.
//! - Who keeps silent because others said the same has heard it said of the very same hash.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mosaik_core::{feed::Tip, id::AuthorId};
use mosaik_proto::{
    carrier::{Input, SessionId},
    message::Message,
};
use rand::{RngExt, rngs::StdRng};

use super::{ANNOUNCE_EVERY_MS, Air, Heard, RESERVE_NEWS, Station, Turn, link::LinkState};
use crate::{
    airtime::HEADER_LEN,
    cast::{Held, NAMES_MAX, Name, Said, Sender, key_of, name_of},
    stack::{Interface, Link, Order, Peer},
};

/// Peers that must hear a broadcast: to one a link is as good.
const HEARERS_MIN: usize = 2;
/// Broadcasts that are remembered, to be sent again.
const RECENT_MAX: usize = 16;
/// How often one is sent again at the most.
const AGAIN_MAX: u32 = 3;
/// Bytes of what says what somebody holds, at the most.
const HELD_LEN: usize = HEADER_LEN + 28 + 5 + 8 + 9;
/// How many others may have said the same before who joins others says it first.
const JOINS_AFTER: u32 = 2;
/// How long who lacks something waits for it, in times of a whole packet on air.
const PATIENCE: u64 = 14;
/// How often it says so before it compares a link, and how far apart two such comparisons are, in the same.
const SAYS_MAX: u32 = 2;
const COMPARE_PAUSE: u64 = 60;

/// What was broadcast, by whomever.
#[derive(Debug)]
struct Recent {
    key: (AuthorId, Tip),
    packet: Vec<u8>,
    is_own: bool,
    /// When it goes, if it is to.
    due_ms: Option<u64>,
    sent: u32,
    /// When it was on air last.
    said_ms: u64,
}

/// After a broadcast: what is held now is said, unless another says the same.
#[derive(Debug)]
struct Round {
    first_ms: u64,
    due_ms: u64,
    /// How many others said since that they hold the same.
    same: u32,
    is_second: bool,
}

/// Somebody holds more than this node.
#[derive(Debug)]
struct Behind {
    peer: Peer,
    held: Held,
    /// When that is said; none once it was.
    says_ms: Option<u64>,
    said: u32,
    since_ms: u64,
    /// When something must have come.
    until_ms: u64,
}

/// What an interface knows of broadcasts.
#[derive(Debug, Default)]
pub(super) struct Casting {
    recent: VecDeque<Recent>,
    round: Option<Round>,
    behind: Option<Behind>,
    /// When an event was on air last.
    moved_ms: u64,
    compares_from_ms: u64,
    pub(super) sent: u64,
    pub(super) heard: u64,
    pub(super) refused: u64,
}

/// What goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Event(usize),
    Lacks,
    Holds,
    Check,
}

impl Casting {
    fn note(&mut self, key: (AuthorId, Tip), packet: Vec<u8>, due_ms: Option<u64>, now_ms: u64) {
        if let Some(recent) = self.recent.iter_mut().find(|it| it.key == key) {
            // Another was quicker.
            recent.due_ms = due_ms;
            recent.said_ms = now_ms;
            return;
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        let is_own = due_ms.is_some();
        self.recent.push_back(Recent { key, packet, is_own, due_ms, sent: 0, said_ms: now_ms });
    }

    /// The short names of the newest.
    fn names(&self) -> Vec<Name> {
        self.recent.iter().rev().take(NAMES_MAX).map(|it| name_of(it.key.1)).collect()
    }

    /// Something was on air: what is held is to be said, after `wait_ms` and no later than `most_ms` after
    /// the first.
    fn begin_round(&mut self, (wait_ms, again_ms, most_ms): (u64, u64, u64), now_ms: u64) {
        self.moved_ms = now_ms;
        match self.round.as_mut().filter(|round| !round.is_second) {
            Some(round) => {
                round.same = 0;
                let due_ms = round.due_ms.max(now_ms + again_ms);
                round.due_ms = due_ms.min(round.first_ms + most_ms).max(now_ms);
            }
            None => {
                let (first_ms, due_ms) = (now_ms, now_ms + wait_ms);
                let round = Round { first_ms, due_ms, same: 0, is_second: false };
                self.round = Some(round);
            }
        }
    }
}

impl Air {
    /// Milliseconds of a whole packet: everything here waits in proportion.
    pub(super) fn unit_ms(&self) -> u64 {
        self.channel.packet_ms(500)
    }

    /// When a broadcast of so many bytes on air may go that is due then; none for one that never will.
    fn casts_at_ms(&self, len: usize, author: Option<&AuthorId>, due_ms: u64) -> Option<u64> {
        if !self.is_online {
            return None;
        }
        let reserve_ms = self.budget.share_ms() / 100 * RESERVE_NEWS;
        let at_ms = due_ms.max(self.busy_until_ms);
        let at_ms = author.map_or(at_ms, |author| self.authors.when(author, at_ms));
        self.budget.when(self.channel.packet_ms(len) + reserve_ms, at_ms)
    }

    /// What goes next of all that is broadcast, and when.
    fn next_cast(&self, now_ms: u64) -> Option<(u64, Next)> {
        let casting = &self.casting;
        let events = casting.recent.iter().enumerate().filter_map(|(at, it)| {
            let (len, due_ms) = (HEADER_LEN + it.packet.len(), it.due_ms?.max(now_ms));
            Some((self.casts_at_ms(len, Some(&it.key.0), due_ms)?, Next::Event(at)))
        });
        let held = |ms: u64| self.casts_at_ms(HELD_LEN, None, ms.max(now_ms));
        let behind = casting.behind.as_ref();
        let says = behind.and_then(|it| Some((held(it.says_ms?)?, Next::Lacks)));
        let until = behind.filter(|it| it.says_ms.is_none());
        let until = until.map(|it| (it.until_ms.max(now_ms), Next::Check));
        let round = casting.round.as_ref();
        let holds = round.and_then(|it| Some((held(it.due_ms)?, Next::Holds)));
        events.chain(says).chain(until).chain(holds).min()
    }

    /// When something of it goes.
    pub(super) fn next_cast_ms(&self, now_ms: u64) -> Option<u64> {
        self.next_cast(now_ms).map(|(ms, _)| ms)
    }

    /// Whether what this node holds is said first: it is what joins others.
    fn waits(&self, links: usize, rng: &mut StdRng) -> (u64, u64, u64) {
        let unit_ms = self.unit_ms();
        let chance_ms = rng.random_range(0..=4 * unit_ms);
        let wait_ms = if links > 1 { unit_ms + chance_ms / 4 } else { 3 * unit_ms + chance_ms };
        (wait_ms, unit_ms, 8 * unit_ms)
    }
}

impl Station {
    fn held(&self) -> Held {
        Held { top: self.own_top, events: self.own_events }
    }

    /// The peers that hear broadcasts, by interface: where there are enough for one.
    pub(super) fn hearers(&self, now_ms: u64) -> BTreeMap<Interface, BTreeSet<Peer>> {
        let mut all: BTreeMap<Interface, BTreeSet<Peer>> = BTreeMap::new();
        if self.config.seal.is_none() || self.is_paused {
            return all;
        }
        let hears = |it: &Heard| {
            // A broadcast makes one hop.
            it.is_there(now_ms) && it.hops <= 1 && it.announce.takes_broadcasts
        };
        for (peer, heard) in self.peers.iter().filter(|(_, heard)| hears(heard)) {
            if self.airs.get(&heard.interface).is_some_and(Air::is_radio) {
                all.entry(heard.interface).or_default().insert(*peer);
            }
        }
        all.retain(|_, peers| peers.len() >= HEARERS_MIN);
        all
    }

    fn links_on(&self, interface: Interface) -> impl Iterator<Item = (&Link, &LinkState)> {
        let is_there = move |it: &LinkState| it.interface == interface && it.session.is_some();
        self.links.iter().filter(move |(_, state)| is_there(state))
    }

    fn begin_round(&mut self, interface: Interface, now_ms: u64) {
        let links = self.links_on(interface).count();
        if let Some(air) = self.airs.get_mut(&interface) {
            let waits = air.waits(links, &mut self.rng);
            air.casting.begin_round(waits, now_ms);
        }
    }

    /// What this node holds has changed by a broadcast: who held the same before it presumably has heard that
    /// too, and needs neither a link nor an announce.
    pub(super) fn presume(&mut self, now_ms: u64) {
        for (interface, air) in &mut self.airs {
            let unit_ms = air.unit_ms();
            let moved_ms = air.casting.moved_ms;
            if !air.is_radio() || moved_ms == 0 || moved_ms + 2 * unit_ms <= now_ms {
                continue;
            }
            let mut all_hear = true;
            for heard in self.peers.values_mut().filter(|it| it.interface == *interface) {
                all_hear &= heard.announce.takes_broadcasts && heard.hops <= 1;
                if heard.announce.takes_broadcasts && heard.likely_top() == self.top_before {
                    heard.presumed = Some(self.own_top);
                }
            }
            if let Some(announced) = air.announced.as_mut()
                && all_hear
                && announced.top == self.top_before
            {
                announced.top = self.own_top;
                air.next_announce_ms = air.announced_ms.unwrap_or(now_ms) + ANNOUNCE_EVERY_MS;
            }
        }
    }

    /// A run that the replica wants broadcast.
    pub(super) fn on_broadcast(&mut self, frame: &[u8], now_ms: u64) {
        let Some(seal) = &self.config.seal else { return };
        let message = frame.get(4..).map(|body| Message::decode(body, &self.config.hasher));
        let Some(Ok(Message::Run(run))) = message else { return };
        let key = key_of(&run);
        let sender = Sender::of(self.config.own);
        let Some(packet) = seal.close(sender, &Said::Run(run), &self.config.hasher) else { return };
        for air in self.airs.values_mut().filter(|air| air.is_radio()) {
            air.casting.note(key, packet.clone(), Some(now_ms), now_ms);
        }
    }

    /// Takes what was broadcast by somebody.
    pub(super) fn on_overheard(
        &mut self,
        interface: Interface,
        packet: Vec<u8>,
        now_ms: u64,
        turn: &mut Turn,
    ) {
        let Some(seal) = &self.config.seal else { return };
        let opened = seal.open(&packet, &self.config.hasher);
        let Some(air) = self.airs.get_mut(&interface).filter(|air| air.is_radio()) else { return };
        let Ok((sender, said)) = opened else {
            air.casting.refused += 1;
            return;
        };
        let mut of = self.peers.iter().filter(|(peer, heard)| {
            Sender::of(**peer) == sender && heard.interface == interface && heard.hops <= 1
        });
        // Two with one name are nobody.
        let peer = of.next().map(|(peer, _)| *peer).filter(|_| of.next().is_none());
        match (said, peer) {
            (Said::Run(run), _) => {
                air.casting.heard += 1;
                air.casting.note(key_of(&run), packet, None, now_ms);
                let session = self.session_with(interface, peer);
                turn.inputs.push(Input::Overheard { session, run });
                self.begin_round(interface, now_ms);
            }
            (Said::Holds(held), Some(peer)) => self.on_held(peer, held, now_ms),
            (Said::Lacks(held, names), Some(peer)) => {
                self.say_again(interface, peer, held, &names, now_ms);
            }
            (Said::Holds(_) | Said::Lacks(..), None) => {}
        }
    }

    /// The session with a peer, or with another that may have what it has.
    fn session_with(&self, interface: Interface, peer: Option<Peer>) -> Option<SessionId> {
        let links = self.links_on(interface).map(|(_, it)| it);
        links.max_by_key(|it| peer.is_some() && it.peer == peer).and_then(|it| it.session)
    }

    /// A peer has said what it holds.
    pub(super) fn on_held(&mut self, peer: Peer, held: Held, now_ms: u64) {
        let own = self.held();
        let Some(heard) = self.peers.get_mut(&peer) else { return };
        let interface = heard.interface;
        if held.top == own.top {
            (heard.announce.top, heard.announce.events) = (held.top, held.events);
            heard.presumed = None;
        }
        let Some(unit_ms) = self.airs.get(&interface).map(Air::unit_ms) else { return };
        let is_moving = self.links_on(interface).any(|(_, it)| it.moved_ms + 6 * unit_ms > now_ms);
        let Some(air) = self.airs.get_mut(&interface).filter(|air| air.is_radio()) else { return };
        let casting = &mut air.casting;
        if held.top == own.top {
            casting.round.iter_mut().for_each(|round| round.same += 1);
            casting.behind = casting.behind.take().filter(|it| it.held.top != own.top);
            return;
        }
        // It may be from before what is on its way, or was a moment ago.
        let is_old = casting.moved_ms + unit_ms > now_ms || self.own_changed_ms + unit_ms > now_ms;
        if held.events < own.events || is_old || is_moving || casting.behind.is_some() {
            return;
        }
        let says_ms = now_ms + unit_ms / 2 + self.rng.random_range(0..=2 * unit_ms);
        casting.behind = Some(Behind {
            peer,
            held,
            says_ms: Some(says_ms),
            said: 0,
            since_ms: now_ms,
            until_ms: says_ms + PATIENCE * unit_ms,
        });
    }

    /// A peer lacks something of the last that were broadcast: it goes again, unless another is quicker.
    fn say_again(
        &mut self,
        interface: Interface,
        peer: Peer,
        held: Held,
        names: &[Name],
        now_ms: u64,
    ) {
        let own = self.held();
        if held.top == own.top || held.events > own.events {
            return;
        }
        let lacks = usize::try_from((own.events - held.events).max(1)).unwrap_or(usize::MAX);
        let links = self.links_on(interface).count();
        let is_linked = self.links_on(interface).any(|(_, it)| it.peer == Some(peer));
        let Some(air) = self.airs.get_mut(&interface) else { return };
        let unit_ms = air.unit_ms();
        if lacks > air.casting.recent.len().min(NAMES_MAX) {
            return;
        }
        let lacked = air.casting.recent.iter_mut().rev();
        let lacked = lacked.filter(|it| !names.contains(&name_of(it.key.1))).take(lacks);
        for recent in lacked {
            let is_fresh = recent.said_ms + unit_ms > now_ms;
            let has_gone = recent.sent >= AGAIN_MAX + u32::from(recent.is_own);
            if recent.due_ms.is_some() || has_gone || is_fresh {
                continue;
            }
            let chance_ms = self.rng.random_range(0..=unit_ms);
            let wait_ms = match (recent.is_own, is_linked && links > 1) {
                (true, _) => chance_ms / 2,
                (false, true) => unit_ms + chance_ms,
                (false, false) => 3 * unit_ms + 6 * chance_ms,
            };
            recent.due_ms = Some(now_ms + wait_ms);
        }
    }

    /// Broadcasts what is due.
    pub(super) fn broadcast(&mut self, now_ms: u64, turn: &mut Turn) {
        if self.config.seal.is_none() || self.is_paused {
            return;
        }
        let interfaces: Vec<Interface> = self.airs.keys().copied().collect();
        for interface in interfaces {
            while let Some(air) = self.airs.get_mut(&interface)
                && let Some((ms, next)) = air.next_cast(now_ms)
                && ms <= now_ms
            {
                match next {
                    Next::Event(at) => self.cast_event(interface, at, now_ms, turn),
                    Next::Lacks => self.say_lacks(interface, now_ms, turn),
                    Next::Holds => self.say_holds(interface, now_ms, turn),
                    Next::Check => self.check_behind(interface, now_ms, turn),
                }
            }
        }
    }

    fn cast_event(&mut self, interface: Interface, at: usize, now_ms: u64, turn: &mut Turn) {
        let Some(air) = self.airs.get_mut(&interface) else { return };
        let Some(recent) = air.casting.recent.get_mut(at) else { return };
        (recent.due_ms, recent.said_ms) = (None, now_ms);
        recent.sent += 1;
        let is_first = recent.is_own && recent.sent == 1;
        let (author, bytes) = (recent.key.0, recent.packet.clone());
        let len = HEADER_LEN + bytes.len();
        air.authors.spend(author, air.channel.packet_ms(len), now_ms);
        air.spend(len, now_ms);
        air.casting.sent += 1;
        turn.orders.push(Order::Broadcast { interface, bytes });
        self.begin_round(interface, now_ms);
        if is_first {
            self.presume(now_ms);
        }
    }

    fn say(&mut self, interface: Interface, said: &Said, now_ms: u64, turn: &mut Turn) {
        let (Some(seal), sender) = (&self.config.seal, Sender::of(self.config.own)) else { return };
        let Some(bytes) = seal.close(sender, said, &self.config.hasher) else { return };
        if let Some(air) = self.airs.get_mut(&interface) {
            air.spend(HEADER_LEN + bytes.len(), now_ms);
            turn.orders.push(Order::Broadcast { interface, bytes });
        }
    }

    /// Says what this node holds, if nobody has said the same since; who joins others says it at the second
    /// time in any case, for they may not hear each other.
    fn say_holds(&mut self, interface: Interface, now_ms: u64, turn: &mut Turn) {
        let (held, links) = (self.held(), self.links_on(interface).count());
        let Some(air) = self.airs.get_mut(&interface) else { return };
        let unit_ms = air.unit_ms();
        let Some(round) = air.casting.round.take() else { return };
        if !round.is_second {
            let chance_ms = self.rng.random_range(0..=4 * unit_ms);
            let wait_ms = if links > 1 { chance_ms } else { 6 * unit_ms + 2 * chance_ms };
            let due_ms = now_ms + 8 * unit_ms + wait_ms;
            air.casting.round = Some(Round { due_ms, same: 0, is_second: true, ..round });
        }
        let others = if links > 1 { JOINS_AFTER } else { 1 };
        if round.same < others || (links > 1 && round.is_second) {
            self.say(interface, &Said::Holds(held), now_ms, turn);
        }
    }

    fn say_lacks(&mut self, interface: Interface, now_ms: u64, turn: &mut Turn) {
        let held = self.held();
        let Some(air) = self.airs.get_mut(&interface) else { return };
        let (unit_ms, names) = (air.unit_ms(), air.casting.names());
        let Some(behind) = air.casting.behind.as_mut() else { return };
        if behind.held.top == held.top {
            air.casting.behind = None;
            return;
        }
        (behind.says_ms, behind.since_ms) = (None, now_ms);
        behind.until_ms = now_ms + PATIENCE * unit_ms;
        behind.said += 1;
        self.say(interface, &Said::Lacks(held, names), now_ms, turn);
    }

    /// What lacked should be here.
    fn check_behind(&mut self, interface: Interface, now_ms: u64, turn: &mut Turn) {
        let own_top = self.own_top;
        let Some(unit_ms) = self.airs.get(&interface).map(Air::unit_ms) else { return };
        let is_moving = self.links_on(interface).any(|(_, it)| it.moved_ms + 6 * unit_ms > now_ms);
        let own_changed_ms = self.own_changed_ms;
        let Some(casting) = self.airs.get_mut(&interface).map(|air| &mut air.casting) else {
            return;
        };
        let Some(behind) = casting.behind.as_mut() else { return };
        if behind.held.top == own_top {
            casting.behind = None;
            return;
        }
        if is_moving {
            behind.until_ms = now_ms + PATIENCE * unit_ms;
            return;
        }
        if own_changed_ms > behind.since_ms && behind.said < SAYS_MAX {
            behind.says_ms = Some(now_ms);
            return;
        }
        let peer = behind.peer;
        casting.behind = None;
        if casting.compares_from_ms > now_ms {
            return;
        }
        casting.compares_from_ms = now_ms + COMPARE_PAUSE * unit_ms;
        match self.session_with(interface, Some(peer)) {
            Some(session) => turn.inputs.push(Input::Behind { session }),
            None => {
                if let Some(heard) = self.peers.get_mut(&peer) {
                    heard.dial_ms.get_or_insert(now_ms);
                }
            }
        }
    }
}
