//! The peer book: who is known, where, in which state, and when to dial whom.
//!
//! Invariants:
//! - One way in: what any source says of a peer comes through [`PeerBook::observe`].
//! - A peer is never forgotten because of silence alone; its addresses grow old.
//! - Time and chance are arguments: the book reads no clock and draws nothing.

mod cache;
mod order;
mod peer;

use std::collections::BTreeMap;

use mosaik_core::id::NodeId;

use self::order::Room;
pub use self::peer::{ADDRESS_AGE_MAX_MS, Introduction, Peer, PeerState, Whereabouts};
use crate::carrier::{Addresses, Now, Source};

/// Sessions that a node keeps open for news, unless it is told another number.
pub const SESSIONS_KEPT: usize = 8;
/// Dials under way at a time: to peers that are named by who can't name many, and to all others. They
/// are counted apart, so that hundreds that are made up don't take the places of those in the slots.
const DIALS_MAX: usize = 8;
/// The same for who has no session: the 16 slots, and some that people name; and others.
const NAMED_ALONE_MAX: usize = 20;
const OTHERS_ALONE_MAX: usize = 12;
/// Dials to named ones for each session that is wanted: most of them may be dead.
const NAMED_PER_WANTED: usize = 4;
/// The first back-off, doubled with each failure, in milliseconds.
const BACK_OFF_MS: u64 = 1000;
/// The longest back-off, in milliseconds: a peer that is back is found within five minutes.
const BACK_OFF_MAX_MS: u64 = 5 * 60 * 1000;
/// The least wait before a peer of another network is tried again, in milliseconds; doubled each time.
const REFUSED_WAIT_MS: u64 = 30_000;
/// Peers known at a time. For one more a stranger goes: a peer that was never heard. For one that has
/// greeted, if there is no stranger, the one goes that was heard longest ago.
const PEERS_MAX: usize = 4096;
/// How long a peer waits in whose part of the internet enough are being dialed, in milliseconds.
const CROWDED_WAIT_MS: u64 = 1000;
/// Direct addresses kept of one source.
const DIRECT_MAX: usize = 8;
const RELAYS_MAX: usize = 2;
const RELAY_LEN_MAX: usize = 200;

/// Why a peer can't be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unforgettable {
    /// Nobody of this id is known.
    Unknown,
    /// It is connected, or being dialed.
    Busy,
    /// It is blocked: forgotten, it would be let in again.
    Blocked,
}

/// All peers that are known.
#[derive(Debug)]
pub struct PeerBook {
    /// Sessions that are wanted.
    sessions_kept: usize,
    peers: BTreeMap<NodeId, Peer>,
    /// Connections at a time, those of strangers that have not greeted yet among them.
    connections: BTreeMap<NodeId, usize>,
    /// Dials under way.
    dials: usize,
    /// The wall clock when somebody to dial was last looked for: by it addresses expire.
    wall_ms: u64,
}

impl PeerBook {
    /// An empty one, of a node that wants so many sessions.
    pub fn new(sessions_kept: usize) -> Self {
        Self {
            sessions_kept,
            peers: BTreeMap::new(),
            connections: BTreeMap::new(),
            dials: 0,
            wall_ms: 0,
        }
    }

    /// All peers, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Peer)> {
        self.peers.iter()
    }

    /// One peer.
    pub fn get(&self, node: &NodeId) -> Option<&Peer> {
        self.peers.get(node)
    }

    /// Whether a dial is under way, or a peer is known that may be dialed.
    pub fn has_hope(&self) -> bool {
        self.dials > 0 || self.may_be_dialed().next().is_some()
    }

    /// Peers that may be dialed when they are due.
    fn may_be_dialed(&self) -> impl Iterator<Item = (&NodeId, &Peer)> {
        self.peers.iter().filter(|(node, peer)| {
            let is_free = !peer.is_blocked && !peer.is_dialing;
            is_free && !self.connections.contains_key(*node) && peer.has_address()
        })
    }

    /// Some source says where a peer is. News are tried at once, whatever failed before.
    pub fn observe(&mut self, node: NodeId, mut addresses: Addresses, source: Source, now: Now) {
        if !self.peers.contains_key(&node) && !self.make_room() {
            return;
        }
        addresses.direct.truncate(DIRECT_MAX);
        addresses.relays.retain(|url| url.len() <= RELAY_LEN_MAX);
        addresses.relays.truncate(RELAYS_MAX);
        let peer = self.peers.entry(node).or_insert_with(|| Peer::new(source, now.wall_ms));
        let said = Whereabouts { addresses, seen_ms: now.wall_ms };
        let before = peer.whereabouts.insert(source, said.clone());
        if before.is_none_or(|before| before.addresses != said.addresses) {
            peer.is_back(now.mono_ms);
        }
    }

    /// Forgets all that is known of a peer. It is known again when some source names it or it comes.
    ///
    /// # Errors
    ///
    /// [`Unforgettable`], and the peer stays.
    pub fn forget(&mut self, node: &NodeId) -> Result<(), Unforgettable> {
        let peer = self.peers.get(node).ok_or(Unforgettable::Unknown)?;
        match peer {
            _ if peer.is_blocked => Err(Unforgettable::Blocked),
            _ if self.is_busy(node) => Err(Unforgettable::Busy),
            _ => {
                self.peers.remove(node);
                Ok(())
            }
        }
    }

    /// Whether there is room for one more, if need be in the place of the stranger that failed most.
    fn make_room(&mut self) -> bool {
        if self.peers.len() < PEERS_MAX {
            return true;
        }
        let is_free = |node: &NodeId| !self.connections.contains_key(node);
        let strangers = self.peers.iter().filter(|(node, p)| p.is_stranger() && is_free(node));
        let worst = strangers.max_by_key(|(_, peer)| peer.failures).map(|(node, _)| *node);
        worst.is_some_and(|node| self.peers.remove(&node).is_some())
    }

    fn forget_longest_silent(&mut self) {
        let may_go = |node: &NodeId, peer: &Peer| {
            let is_chosen = peer.is_blocked || peer.found_by == Source::Ticket;
            !is_chosen && !peer.is_dialing && !self.connections.contains_key(node)
        };
        let known = self.peers.iter().filter(|(node, peer)| may_go(node, peer));
        let silent = known.min_by_key(|(_, peer)| peer.heard_ms).map(|(node, _)| *node);
        if let Some(node) = silent {
            self.peers.remove(&node);
        }
    }

    /// A node says over gossip that it is here or leaves; older words than the newest don't count.
    pub fn observe_presence(&mut self, presence: &crate::hint::Presence, now: Now) {
        let said = (presence.boot, presence.said_ms);
        if self.peers.get(&presence.node).is_some_and(|peer| peer.said >= said) {
            return;
        }
        self.observe(presence.node, presence.addresses.clone(), Source::Gossip, now);
        let Some(peer) = self.peers.get_mut(&presence.node) else { return };
        peer.said = said;
        peer.introduction.name.clone_from(&presence.name);
        if presence.leaving {
            peer.leaves(now.mono_ms);
        } else {
            peer.is_back(now.mono_ms);
        }
    }

    /// A connection with a node is up, whoever dialed. Nothing is known of a stranger yet.
    pub fn connected(&mut self, node: NodeId) {
        self.dial_is_over(&node);
        *self.connections.entry(node).or_default() += 1;
    }

    /// Both have said hello.
    pub fn opened(&mut self, node: NodeId, introduction: Introduction, wall_ms: u64) {
        if !self.peers.contains_key(&node) && !self.make_room() {
            self.forget_longest_silent();
        }
        let peer = self.peers.entry(node).or_insert_with(|| Peer::new(Source::Inbound, wall_ms));
        let rtt_ms = introduction.rtt_ms.or(peer.introduction.rtt_ms);
        peer.introduction = Introduction { rtt_ms, ..introduction };
        peer.heard_ms = wall_ms;
        peer.failures = 0;
        peer.is_open = true;
        peer.outcome = PeerState::Reachable;
        peer.last_reason.clear();
        peer.confirm(wall_ms);
    }

    /// A connection has ended: in which state that leaves the peer, should it have been the last.
    pub fn disconnected(&mut self, node: NodeId, then: PeerState, reason: &str, at: Retry) {
        let Some(count) = self.connections.get_mut(&node) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.connections.remove(&node);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.is_open = false;
        peer.last_reason = reason.to_owned();
        peer.next_dial_ms = at.now.mono_ms + at.wait_ms;
        if then != PeerState::Refused {
            // It was there until now.
            peer.confirm(at.now.wall_ms);
        }
        match then {
            PeerState::Left => peer.leaves(at.now.mono_ms),
            // It had said so by gossip.
            PeerState::Lost if peer.outcome == PeerState::Left => {}
            PeerState::Refused => {
                peer.outcome = then;
                peer.next_dial_ms = at.now.mono_ms + (REFUSED_WAIT_MS << peer.failures.min(4));
                peer.failures = peer.failures.saturating_add(1);
            }
            _ => peer.outcome = then,
        }
    }

    /// A dial led nowhere: back off, with full jitter. `chance` is any number, drawn anew.
    pub fn dial_failed(&mut self, node: NodeId, reason: &str, now_ms: u64, chance: u64) {
        self.dial_is_over(&node);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.failures = peer.failures.saturating_add(1);
            let longest = (BACK_OFF_MS << peer.failures.min(16)).min(BACK_OFF_MAX_MS);
            peer.next_dial_ms = now_ms + BACK_OFF_MS / 2 + chance % longest;
            peer.last_reason = reason.to_owned();
            if !matches!(peer.outcome, PeerState::Left | PeerState::Refused) {
                peer.outcome = PeerState::BackingOff;
            }
        }
    }

    fn dial_is_over(&mut self, node: &NodeId) {
        if let Some(peer) = self.peers.get_mut(node)
            && std::mem::take(&mut peer.is_dialing)
        {
            self.dials -= 1;
        }
    }

    /// Blocks a peer or lets it in again.
    pub fn block(&mut self, node: NodeId, blocked: bool, now: Now) {
        let new = || Peer::new(Source::Inbound, now.wall_ms);
        let peer = self.peers.entry(node).or_insert_with(new);
        if peer.is_blocked && !blocked {
            peer.failures = 0;
            peer.next_dial_ms = now.mono_ms;
        }
        peer.is_blocked = blocked;
    }

    /// The network is another, or there again: what failed before says nothing. Only who refused this
    /// node, or has left, waits on.
    pub fn all_are_due(&mut self, now_ms: u64) {
        let gone = |peer: &&mut Peer| matches!(peer.outcome, PeerState::Left | PeerState::Refused);
        for peer in self.peers.values_mut().filter(|peer| !gone(peer)) {
            peer.failures = 0;
            peer.next_dial_ms = peer.next_dial_ms.min(now_ms);
        }
    }

    /// Whether a peer is blocked here.
    pub fn is_blocked(&self, node: &NodeId) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.is_blocked)
    }

    /// The peers that are blocked here.
    pub fn blocked(&self) -> Vec<NodeId> {
        self.peers.iter().filter(|(_, peer)| peer.is_blocked).map(|(id, _)| *id).collect()
    }

    /// Whom to dial now, so that `sessions` become as many as are wanted.
    pub fn due(&mut self, sessions: usize, now: Now) -> Vec<(NodeId, Addresses)> {
        self.wall_ms = now.wall_ms;
        let room = self.room(sessions);
        if room.is_none() {
            return Vec::new();
        }
        let due = self.may_be_dialed().filter(|(_, peer)| peer.next_dial_ms <= now.mono_ms);
        let busy = self.peers.values().filter(|peer| peer.is_dialing);
        let order::First { nodes, crowded } = order::first(due, busy, room, now.wall_ms);
        for node in crowded {
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.next_dial_ms = now.mono_ms + CROWDED_WAIT_MS;
            }
        }
        nodes.into_iter().filter_map(|node| self.dial(node)).collect()
    }

    /// When [`PeerBook::due`] has somebody, if more sessions are wanted.
    pub fn next_due_ms(&self, sessions: usize) -> Option<u64> {
        let room = self.room(sessions);
        let may = self.may_be_dialed().filter(|(_, peer)| room.of(peer) > 0);
        may.map(|(_, peer)| peer.next_dial_ms).min()
    }

    /// How many more dials there may be. Each to a dead address takes seconds, so who has no session
    /// yet dials all slots and more at once; and whoever wants one more goes on to dial several in the
    /// slots: the sessions that it has may be with those who made the others up.
    fn room(&self, sessions: usize) -> Room {
        let dialing = self.peers.values().filter(|peer| peer.is_dialing);
        let named = dialing.filter(|peer| order::is_named(peer)).count();
        let others = self.dials.saturating_sub(named);
        let wanted = self.sessions_kept.saturating_sub(sessions);
        match sessions {
            0 => Room {
                named: NAMED_ALONE_MAX.saturating_sub(named),
                others: OTHERS_ALONE_MAX.saturating_sub(others),
            },
            _ => Room {
                named: (NAMED_PER_WANTED * wanted).min(DIALS_MAX).saturating_sub(named),
                others: wanted.saturating_sub(self.dials),
            },
        }
    }

    /// One of the peers that may be dialed, whatever their back-off; `lost` ones only, or any that
    /// was not refused.
    pub fn any(&mut self, lost: bool, chance: u64) -> Option<(NodeId, Addresses)> {
        if self.dials >= DIALS_MAX {
            return None;
        }
        let is_lost = |peer: &Peer| matches!(peer.outcome, PeerState::Lost | PeerState::BackingOff);
        let may: Vec<NodeId> = self
            .may_be_dialed()
            .filter(|(_, peer)| is_lost(peer) || (!lost && peer.outcome != PeerState::Refused))
            .map(|(node, _)| *node)
            .collect();
        let nth = chance.checked_rem(may.len() as u64)?;
        self.dial(may[nth as usize])
    }

    /// Whether a dial of the peer is under way, or a connection with it.
    pub fn is_busy(&self, node: &NodeId) -> bool {
        self.connections.contains_key(node)
            || self.peers.get(node).is_some_and(|peer| peer.is_dialing)
    }

    /// Dials one peer, whatever its back-off: a person asks for it.
    ///
    /// # Errors
    ///
    /// Why it can't be dialed, in words.
    pub fn dial_now(&mut self, node: &NodeId) -> Result<(NodeId, Addresses), &'static str> {
        let peer = self.peers.get(node).ok_or("nobody of this id is known here")?;
        match peer {
            _ if peer.is_blocked => Err("it is blocked here"),
            _ if !peer.has_address() => Err("no address of it is known"),
            _ => self.dial(*node).ok_or("nobody of this id is known here"),
        }
    }

    fn dial(&mut self, node: NodeId) -> Option<(NodeId, Addresses)> {
        let peer = self.peers.get_mut(&node)?;
        peer.is_dialing = true;
        self.dials += 1;
        Some((node, peer.addresses(self.wall_ms)))
    }
}

/// When a peer may be dialed again.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Now.
    pub now: Now,
    /// From now, in milliseconds.
    pub wait_ms: u64,
}

#[cfg(test)]
mod tests;
