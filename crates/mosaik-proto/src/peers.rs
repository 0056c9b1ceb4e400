//! The peer book: who is known, where, in which state, and when to dial whom.
//!
//! Invariants:
//! - One way in: what any source says of a peer comes through [`PeerBook::observe`].
//! - A peer is never forgotten because of silence alone; its addresses grow old.
//! - Time and chance are arguments: the book reads no clock and draws nothing.

use std::collections::BTreeMap;

use mosaik_core::{
    codec::{ReadError, Reader, Writer},
    id::NodeId,
};

use crate::carrier::{Addresses, Source};

/// Sessions that a node keeps open for news.
pub const SESSIONS_KEPT: usize = 8;
/// Dials under way at a time.
const DIALS_MAX: usize = 8;
/// The same for who has no session: the 16 slots, and some that they or the cache name.
const DIALS_ALONE_MAX: usize = 24;
/// The first back-off, doubled with each failure, in milliseconds.
const BACK_OFF_MS: u64 = 1000;
/// The longest back-off, in milliseconds: a peer that is back is found within five minutes.
const BACK_OFF_MAX_MS: u64 = 5 * 60 * 1000;
/// How long a peer that said it leaves is left alone, in milliseconds. It may come back where it was,
/// knowing nobody.
const LEFT_WAIT_MS: u64 = 60_000;
/// Failures that such a peer is taken to have: it is not tried often.
const LEFT_FAILURES: u32 = 6;
/// The least wait before a peer of another network is tried again, in milliseconds; doubled each time.
const REFUSED_WAIT_MS: u64 = 30_000;
/// Peers known at a time. For one more a stranger goes: a peer that was never heard. For one that has
/// greeted, if there is no stranger, the one goes that was heard longest ago.
const PEERS_MAX: usize = 4096;
/// Peers in the cache on disk: those that answered last.
const CACHED_MAX: usize = 256;
/// Direct addresses kept of one source.
const DIRECT_MAX: usize = 8;
const RELAYS_MAX: usize = 2;
const RELAY_LEN_MAX: usize = 200;

/// In which state a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// A session is open.
    Connected,
    /// A dial is under way.
    Dialing,
    /// Known, and dialed when there is need.
    Reachable,
    /// The last dials failed, or it would not talk now.
    BackingOff,
    /// The session broke without a word.
    Lost,
    /// It said that it leaves.
    Left,
    /// Its people's or ours: blocked here.
    Blocked,
    /// It is in another network, or speaks another protocol.
    Refused,
}

impl PeerState {
    /// The word for `peers`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Dialing => "dialing",
            Self::Reachable => "reachable",
            Self::BackingOff => "backing off",
            Self::Lost => "lost",
            Self::Left => "left",
            Self::Blocked => "blocked",
            Self::Refused => "refused",
        }
    }
}

/// What is known of one peer.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where, by who says so.
    addresses: BTreeMap<Source, Addresses>,
    /// Who said so first.
    pub found_by: Source,
    /// What it calls itself.
    pub name: String,
    /// What it runs.
    pub software: String,
    /// When it was last heard, Unix ms; 0 for never.
    pub heard_ms: u64,
    /// Why the last dial or session ended, in words.
    pub last_reason: String,
    /// What came of it last; never [`PeerState::Connected`], `Dialing` or `Blocked`.
    outcome: PeerState,
    is_blocked: bool,
    is_dialing: bool,
    is_open: bool,
    failures: u32,
    next_dial_ms: u64,
    /// The newest presence: boot number and when it was said.
    said: (u64, u64),
}

impl Peer {
    fn new(source: Source) -> Self {
        Self {
            addresses: BTreeMap::new(),
            found_by: source,
            name: String::new(),
            software: String::new(),
            heard_ms: 0,
            last_reason: String::new(),
            outcome: PeerState::Reachable,
            is_blocked: false,
            is_dialing: false,
            is_open: false,
            failures: 0,
            next_dial_ms: 0,
            said: (0, 0),
        }
    }

    /// In which state it is.
    pub fn state(&self) -> PeerState {
        match self.outcome {
            _ if self.is_blocked => PeerState::Blocked,
            _ if self.is_open => PeerState::Connected,
            // Probing who left or was refused is no news.
            PeerState::Left | PeerState::Refused => self.outcome,
            _ if self.is_dialing => PeerState::Dialing,
            _ => self.outcome,
        }
    }

    /// All that is known of where it is.
    pub fn addresses(&self) -> Addresses {
        let mut all = Addresses::default();
        for addresses in self.addresses.values() {
            all.direct.extend(&addresses.direct);
            all.relays.extend(addresses.relays.iter().cloned());
        }
        all.direct.sort_unstable();
        all.direct.dedup();
        all.relays.sort_unstable();
        all.relays.dedup();
        all
    }

    /// There is news of it: it is tried at once.
    fn is_back(&mut self, now_ms: u64) {
        self.next_dial_ms = self.next_dial_ms.min(now_ms);
        if matches!(self.outcome, PeerState::Left | PeerState::Refused) {
            self.outcome = PeerState::Reachable;
            self.failures = 0;
        }
    }

    fn leaves(&mut self, now_ms: u64) {
        self.outcome = PeerState::Left;
        self.failures = self.failures.max(LEFT_FAILURES);
        self.next_dial_ms = now_ms + LEFT_WAIT_MS;
    }

    fn has_address(&self) -> bool {
        self.addresses.values().any(|addresses| !addresses.is_empty())
    }

    /// Nobody but some source has ever spoken of it.
    fn is_stranger(&self) -> bool {
        self.heard_ms == 0
            && !self.is_blocked
            && !self.is_dialing
            && self.found_by != Source::Ticket
    }
}

/// All peers that are known.
#[derive(Debug, Default)]
pub struct PeerBook {
    peers: BTreeMap<NodeId, Peer>,
    /// Connections at a time, those of strangers that have not greeted yet among them.
    connections: BTreeMap<NodeId, usize>,
    /// Dials under way.
    dials: usize,
}

impl PeerBook {
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
            is_free && peer.has_address() && !self.connections.contains_key(*node)
        })
    }

    /// Some source says where a peer is. News are tried at once, whatever failed before.
    pub fn observe(&mut self, node: NodeId, mut addresses: Addresses, source: Source, now_ms: u64) {
        if !self.peers.contains_key(&node) && !self.make_room() {
            return;
        }
        addresses.direct.truncate(DIRECT_MAX);
        addresses.relays.retain(|url| url.len() <= RELAY_LEN_MAX);
        addresses.relays.truncate(RELAYS_MAX);
        let peer = self.peers.entry(node).or_insert_with(|| Peer::new(source));
        if peer.addresses.get(&source) == Some(&addresses) {
            return;
        }
        peer.addresses.insert(source, addresses);
        peer.is_back(now_ms);
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
    pub fn observe_presence(&mut self, presence: &crate::hint::Presence, now_ms: u64) {
        let said = (presence.boot, presence.said_ms);
        if self.peers.get(&presence.node).is_some_and(|peer| peer.said >= said) {
            return;
        }
        self.observe(presence.node, presence.addresses.clone(), Source::Gossip, now_ms);
        let Some(peer) = self.peers.get_mut(&presence.node) else { return };
        peer.said = said;
        peer.name.clone_from(&presence.name);
        if presence.leaving {
            peer.leaves(now_ms);
        } else {
            peer.is_back(now_ms);
        }
    }

    /// A connection with a node is up, whoever dialed. Nothing is known of a stranger yet.
    pub fn connected(&mut self, node: NodeId) {
        self.dial_is_over(&node);
        *self.connections.entry(node).or_default() += 1;
    }

    /// Both have said hello.
    pub fn opened(&mut self, node: NodeId, name: &str, software: &str, wall_ms: u64) {
        if !self.peers.contains_key(&node) && !self.make_room() {
            self.forget_longest_silent();
        }
        let peer = self.peers.entry(node).or_insert_with(|| Peer::new(Source::Inbound));
        peer.name = name.to_owned();
        peer.software = software.to_owned();
        peer.heard_ms = wall_ms;
        peer.failures = 0;
        peer.is_open = true;
        peer.outcome = PeerState::Reachable;
        peer.last_reason.clear();
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
        peer.next_dial_ms = at.now_ms + at.wait_ms;
        match then {
            PeerState::Left => peer.leaves(at.now_ms),
            // It had said so by gossip.
            PeerState::Lost if peer.outcome == PeerState::Left => {}
            PeerState::Refused => {
                peer.outcome = then;
                peer.next_dial_ms = at.now_ms + (REFUSED_WAIT_MS << peer.failures.min(4));
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
    pub fn block(&mut self, node: NodeId, blocked: bool, now_ms: u64) {
        let peer = self.peers.entry(node).or_insert_with(|| Peer::new(Source::Inbound));
        if peer.is_blocked && !blocked {
            peer.failures = 0;
            peer.next_dial_ms = now_ms;
        }
        peer.is_blocked = blocked;
    }

    /// Whether a peer is blocked here.
    pub fn is_blocked(&self, node: &NodeId) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.is_blocked)
    }

    /// The peers that are blocked here.
    pub fn blocked(&self) -> Vec<NodeId> {
        self.peers.iter().filter(|(_, peer)| peer.is_blocked).map(|(id, _)| *id).collect()
    }

    /// Whom to dial now, so that `sessions` become [`SESSIONS_KEPT`]: who failed least goes first,
    /// and of these who was heard before.
    pub fn due(&mut self, sessions: usize, now_ms: u64) -> Vec<(NodeId, Addresses)> {
        let room = self.room(sessions);
        let due = self.may_be_dialed().filter(|(_, peer)| peer.next_dial_ms <= now_ms);
        let mut due: Vec<_> =
            due.map(|(node, peer)| (peer.failures, peer.heard_ms == 0, *node)).collect();
        due.sort_unstable();
        due.truncate(room);
        due.into_iter().filter_map(|(.., node)| self.dial(node)).collect()
    }

    /// When [`PeerBook::due`] has somebody, if more sessions are wanted.
    pub fn next_due_ms(&self, sessions: usize) -> Option<u64> {
        if self.room(sessions) == 0 {
            return None;
        }
        self.may_be_dialed().map(|(_, peer)| peer.next_dial_ms).min()
    }

    /// How many more dials there may be. Each to a dead address takes seconds, so who has no session
    /// yet dials all slots and more at once.
    fn room(&self, sessions: usize) -> usize {
        if sessions == 0 {
            return DIALS_ALONE_MAX.saturating_sub(self.dials);
        }
        let wanted = SESSIONS_KEPT.saturating_sub(sessions + self.dials);
        wanted.min(DIALS_MAX.saturating_sub(self.dials))
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

    fn dial(&mut self, node: NodeId) -> Option<(NodeId, Addresses)> {
        let peer = self.peers.get_mut(&node)?;
        peer.is_dialing = true;
        self.dials += 1;
        Some((node, peer.addresses()))
    }

    /// The cache on disk: the peers that answered last, with their addresses.
    pub fn encode(&self) -> Vec<u8> {
        let mut heard: Vec<_> = self.peers.iter().filter(|(_, peer)| peer.heard_ms > 0).collect();
        heard.sort_unstable_by_key(|(_, peer)| std::cmp::Reverse(peer.heard_ms));
        heard.truncate(CACHED_MAX);
        let mut writer = Writer::new();
        writer.len(heard.len());
        for (node, peer) in heard {
            let addresses = peer.addresses();
            writer.raw(node.as_bytes()).varint(peer.heard_ms).str(&peer.name);
            writer.len(addresses.direct.len());
            for address in &addresses.direct {
                writer.str(&address.to_string());
            }
            writer.len(addresses.relays.len());
            for relay in &addresses.relays {
                writer.str(relay);
            }
        }
        writer.into_bytes()
    }

    /// Takes the cache in; a damaged one only lacks peers.
    pub fn restore(&mut self, bytes: &[u8], now_ms: u64) -> Result<(), ReadError> {
        let mut reader = Reader::new(bytes);
        for _ in 0..reader.count(CACHED_MAX, 36)? {
            let node = NodeId(reader.array()?);
            let heard_ms = reader.varint()?;
            let name = reader.str(crate::message::NAME_LEN_MAX)?.to_owned();
            let mut addresses = Addresses::default();
            for _ in 0..reader.len(1024)? {
                addresses.direct.extend(reader.str(64)?.parse::<std::net::SocketAddr>());
            }
            for _ in 0..reader.len(1024)? {
                addresses.relays.push(reader.str(RELAY_LEN_MAX)?.to_owned());
            }
            self.observe(node, addresses, Source::Cache, now_ms);
            if let Some(peer) = self.peers.get_mut(&node) {
                (peer.heard_ms, peer.name) = (heard_ms, name);
            }
        }
        reader.finish()
    }
}

/// When a peer may be dialed again.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Now.
    pub now_ms: u64,
    /// From now, in milliseconds.
    pub wait_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId([1; 32]);

    fn somewhere(port: u16) -> Addresses {
        Addresses { direct: vec![([127, 0, 0, 1], port).into()], relays: vec![] }
    }

    #[test]
    fn a_failed_peer_backs_off_and_a_new_address_is_tried_at_once() {
        let mut book = PeerBook::default();
        book.observe(A, somewhere(1), Source::Slot, 0);
        assert_eq!(book.due(0, 0).len(), 1);
        book.dial_failed(A, "no answer", 0, 700);
        assert_eq!(book.due(0, 100), []);
        book.observe(A, somewhere(2), Source::Gossip, 100);
        assert_eq!(book.due(0, 100).len(), 1);
    }

    #[test]
    fn a_blocked_peer_is_never_dialed() {
        let mut book = PeerBook::default();
        book.block(A, true, 0);
        book.observe(A, somewhere(1), Source::Slot, 0);
        assert_eq!(book.due(0, u64::MAX), []);
        assert_eq!(book.any(false, 5), None);
        book.block(A, false, 0);
        assert_eq!(book.due(0, 0).len(), 1);
    }

    #[test]
    fn one_lost_peer_is_probed_whatever_its_back_off() {
        let mut book = PeerBook::default();
        book.observe(A, somewhere(1), Source::Slot, 0);
        book.due(0, 0);
        book.dial_failed(A, "no answer", 0, u64::MAX);
        assert_eq!(book.any(true, 9).map(|(node, _)| node), Some(A));
    }

    #[test]
    fn enough_sessions_ask_for_no_dial() {
        let mut book = PeerBook::default();
        book.observe(A, somewhere(1), Source::Slot, 0);
        assert_eq!(book.due(SESSIONS_KEPT, 0), []);
        assert_eq!(book.next_due_ms(SESSIONS_KEPT), None);
    }

    #[test]
    fn the_cache_keeps_who_answered_and_where() {
        let mut book = PeerBook::default();
        book.observe(A, somewhere(1), Source::Slot, 0);
        book.connected(A);
        book.opened(A, "hq", "mosaik-node 0.1.0", 77);
        let mut restored = PeerBook::default();
        restored.restore(&book.encode(), 0).expect("own encoding");
        assert_eq!(restored.get(&A).map(Peer::addresses), Some(somewhere(1)));
        assert_eq!(restored.get(&A).map(|peer| peer.name.as_str()), Some("hq"));
    }

    /// Whoever comes back where it was, and knows nobody, must be found.
    /// Fifteen of sixteen holders may be dead, and each of them costs a dial its full time.
    #[test]
    fn who_has_no_session_dials_all_slots_at_once() {
        let mut book = PeerBook::default();
        for i in 0..40 {
            book.observe(NodeId([i; 32]), somewhere(1), Source::Slot, 0);
        }
        assert_eq!(book.due(0, 0).len(), DIALS_ALONE_MAX);
        assert_eq!((book.due(0, 0).len(), book.next_due_ms(0)), (0, None));
        assert_eq!((book.due(1, 0).len(), book.next_due_ms(1)), (0, None));
    }

    #[test]
    fn a_peer_that_left_is_shown_as_left_and_looked_for_now_and_then() {
        let mut book = PeerBook::default();
        book.observe(A, somewhere(1), Source::Ticket, 0);
        book.connected(A);
        book.opened(A, "hq", "mosaik-node 0.1.0", 77);
        book.disconnected(
            A,
            PeerState::Left,
            "the node is stopping",
            Retry { now_ms: 0, wait_ms: 9 },
        );
        assert_eq!(book.due(0, LEFT_WAIT_MS - 1), []);
        assert_eq!(book.due(0, LEFT_WAIT_MS).len(), 1);
        assert_eq!(book.get(&A).map(Peer::state), Some(PeerState::Left));
        book.dial_failed(A, "no answer", LEFT_WAIT_MS, u64::MAX);
        assert_eq!(book.get(&A).map(Peer::state), Some(PeerState::Left));
        assert!(book.next_due_ms(0).is_some());
    }

    #[test]
    fn a_peer_of_two_connections_is_connected_until_both_are_gone() {
        let mut book = PeerBook::default();
        book.observe(A, somewhere(1), Source::Slot, 0);
        for _ in 0..2 {
            book.connected(A);
            book.opened(A, "hq", "mosaik-node 0.1.0", 77);
        }
        let at = Retry { now_ms: 0, wait_ms: 0 };
        book.disconnected(A, PeerState::Reachable, "another connection is kept", at);
        assert_eq!(book.get(&A).map(Peer::state), Some(PeerState::Connected));
        assert_eq!(book.due(0, 0), []);
        book.disconnected(A, PeerState::Lost, "the connection broke", at);
        assert_eq!(book.get(&A).map(Peer::state), Some(PeerState::Lost));
        assert_eq!(book.due(0, 0).len(), 1);
    }

    #[test]
    fn strangers_that_only_connect_take_no_place() {
        let mut book = PeerBook::default();
        let at = Retry { now_ms: 0, wait_ms: 0 };
        book.connected(A);
        book.disconnected(A, PeerState::Refused, "another network", at);
        assert!(book.get(&A).is_none());
    }

    #[test]
    fn a_full_book_lets_a_stranger_go_for_one_more_and_keeps_who_was_heard() {
        let mut book = PeerBook::default();
        let node = |i: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&i.to_be_bytes());
            NodeId(bytes)
        };
        for i in 0..PEERS_MAX {
            book.observe(node(i), somewhere(1), Source::Slot, 0);
        }
        book.connected(node(0));
        book.opened(node(0), "hq", "mosaik-node 0.1.0", 77);
        book.dial_failed(node(7), "no answer", 0, 0);
        book.observe(A, somewhere(2), Source::Slot, 0);
        assert!(book.get(&A).is_some() && book.get(&node(0)).is_some());
        assert!(book.get(&node(7)).is_none(), "of the strangers it had failed most");
    }

    /// Node keys cost nothing: whoever has many must not fill the book.
    #[test]
    fn a_full_book_lets_the_longest_silent_go_for_one_that_has_greeted() {
        let mut book = PeerBook::default();
        let node = |i: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&i.to_be_bytes());
            NodeId(bytes)
        };
        book.observe(A, somewhere(1), Source::Ticket, 0);
        let at = Retry { now_ms: 0, wait_ms: 0 };
        for i in 0..PEERS_MAX + 10 {
            book.connected(node(i));
            book.opened(node(i), "one of many", "mosaik-node 0.1.0", 1 + i as u64);
            book.disconnected(node(i), PeerState::Lost, "gone", at);
        }
        assert_eq!(book.iter().count(), PEERS_MAX);
        assert!(book.get(&A).is_some(), "a person named it");
        assert!(book.get(&node(0)).is_none() && book.get(&node(PEERS_MAX + 9)).is_some());
    }
}
