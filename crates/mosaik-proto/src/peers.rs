//! The peer book: who is known, where, in which state, and when to dial whom.
//!
//! Invariants:
//! - One way in: what any source says of a peer comes through [`PeerBook::observe`].
//! - A peer is never forgotten because of silence alone; its addresses grow old.
//! - Time and chance are arguments: the book reads no clock and draws nothing.

use std::collections::{BTreeMap, BTreeSet};

use mosaik_core::{
    codec::{ReadError, Reader, Writer},
    id::NodeId,
};

use crate::carrier::{Addresses, Source};

/// Sessions that a node keeps open for news.
pub const SESSIONS_KEPT: usize = 8;
/// Dials under way at a time.
const DIALS_MAX: usize = 8;
/// The first back-off, doubled with each failure, in milliseconds.
const BACK_OFF_MS: u64 = 1000;
/// The longest back-off, in milliseconds: a peer that is back is found within five minutes.
const BACK_OFF_MAX_MS: u64 = 5 * 60 * 1000;
/// Peers known at a time; of strangers beyond it only connected ones are taken.
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
    /// The last dials failed.
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
    state: PeerState,
    sessions: usize,
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
            state: PeerState::Reachable,
            sessions: 0,
            failures: 0,
            next_dial_ms: 0,
            said: (0, 0),
        }
    }

    /// In which state it is.
    pub fn state(&self) -> PeerState {
        self.state
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

    fn may_be_dialed(&self) -> bool {
        let rests = matches!(
            self.state,
            PeerState::Reachable | PeerState::BackingOff | PeerState::Lost | PeerState::Refused
        );
        rests
            && self.sessions == 0
            && self.addresses.values().any(|addresses| !addresses.is_empty())
    }
}

/// All peers that are known.
#[derive(Debug, Default)]
pub struct PeerBook {
    peers: BTreeMap<NodeId, Peer>,
    dialing: BTreeSet<NodeId>,
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
        !self.dialing.is_empty() || self.peers.values().any(Peer::may_be_dialed)
    }

    /// Some source says where a peer is. News are tried at once, whatever failed before.
    pub fn observe(&mut self, node: NodeId, mut addresses: Addresses, source: Source, now_ms: u64) {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&node) {
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
        peer.next_dial_ms = peer.next_dial_ms.min(now_ms);
        if matches!(peer.state, PeerState::Left | PeerState::Refused) {
            peer.state = PeerState::Reachable;
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
        if presence.leaving && peer.state != PeerState::Blocked {
            peer.state = PeerState::Left;
        }
    }

    /// A session with a peer is connected, whoever dialed.
    pub fn connected(&mut self, node: NodeId, wall_ms: u64) {
        self.dialing.remove(&node);
        let peer = self.peers.entry(node).or_insert_with(|| Peer::new(Source::Inbound));
        peer.sessions += 1;
        peer.heard_ms = wall_ms;
    }

    /// Both have said hello.
    pub fn opened(&mut self, node: NodeId, name: &str, software: &str, wall_ms: u64) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.name = name.to_owned();
            peer.software = software.to_owned();
            peer.heard_ms = wall_ms;
            peer.failures = 0;
            peer.state = PeerState::Connected;
            peer.last_reason.clear();
        }
    }

    /// A session has ended: in which state that leaves the peer, should it have been the last.
    pub fn disconnected(&mut self, node: NodeId, then: PeerState, reason: &str, at: Retry) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.sessions = peer.sessions.saturating_sub(1);
            if peer.sessions == 0 && peer.state != PeerState::Blocked {
                peer.state = then;
                peer.last_reason = reason.to_owned();
                peer.next_dial_ms = at.now_ms + at.wait_ms;
            }
        }
    }

    /// A dial led nowhere: back off, with full jitter. `chance` is any number, drawn anew.
    pub fn dial_failed(&mut self, node: NodeId, reason: &str, now_ms: u64, chance: u64) {
        self.dialing.remove(&node);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.failures = peer.failures.saturating_add(1);
            let longest = (BACK_OFF_MS << peer.failures.min(16)).min(BACK_OFF_MAX_MS);
            peer.next_dial_ms = now_ms + BACK_OFF_MS / 2 + chance % longest;
            peer.last_reason = reason.to_owned();
            if peer.state == PeerState::Dialing {
                peer.state = PeerState::BackingOff;
            }
        }
    }

    /// Blocks a peer or lets it in again.
    pub fn block(&mut self, node: NodeId, blocked: bool, now_ms: u64) {
        let peer = self.peers.entry(node).or_insert_with(|| Peer::new(Source::Inbound));
        if blocked {
            peer.state = PeerState::Blocked;
        } else if peer.state == PeerState::Blocked {
            peer.state = PeerState::Reachable;
            peer.failures = 0;
            peer.next_dial_ms = now_ms;
        }
    }

    /// Whether a peer is blocked here.
    pub fn is_blocked(&self, node: &NodeId) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.state == PeerState::Blocked)
    }

    /// The peers that are blocked here.
    pub fn blocked(&self) -> Vec<NodeId> {
        self.peers
            .iter()
            .filter(|(_, p)| p.state == PeerState::Blocked)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Whom to dial now, so that `sessions` become [`SESSIONS_KEPT`].
    pub fn due(&mut self, sessions: usize, now_ms: u64) -> Vec<(NodeId, Addresses)> {
        let room = SESSIONS_KEPT.saturating_sub(sessions + self.dialing.len());
        let room = room.min(DIALS_MAX.saturating_sub(self.dialing.len()));
        let due = self.peers.iter().filter(|(_, p)| p.may_be_dialed() && p.next_dial_ms <= now_ms);
        let mut due: Vec<_> = due.map(|(node, peer)| (peer.failures, *node)).collect();
        due.sort_unstable();
        due.truncate(room);
        due.into_iter().filter_map(|(_, node)| self.dial(node)).collect()
    }

    /// When [`PeerBook::due`] has somebody, if more sessions are wanted.
    pub fn next_due_ms(&self, sessions: usize) -> Option<u64> {
        if sessions + self.dialing.len() >= SESSIONS_KEPT || self.dialing.len() >= DIALS_MAX {
            return None;
        }
        self.peers.values().filter(|peer| peer.may_be_dialed()).map(|peer| peer.next_dial_ms).min()
    }

    /// One of the peers that may be dialed, whatever their back-off; `lost` ones only, or any.
    pub fn any(&mut self, lost: bool, chance: u64) -> Option<(NodeId, Addresses)> {
        if self.dialing.len() >= DIALS_MAX {
            return None;
        }
        let may = |peer: &&Peer| {
            let is_lost = matches!(peer.state, PeerState::Lost | PeerState::BackingOff);
            peer.may_be_dialed() && (!lost || is_lost)
        };
        let count = self.peers.values().filter(may).count() as u64;
        let nth = chance.checked_rem(count)? as usize;
        let node = *self.peers.iter().filter(|(_, peer)| may(peer)).nth(nth)?.0;
        self.dial(node)
    }

    fn dial(&mut self, node: NodeId) -> Option<(NodeId, Addresses)> {
        let peer = self.peers.get_mut(&node)?;
        peer.state = PeerState::Dialing;
        self.dialing.insert(node);
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
        book.connected(A, 77);
        book.opened(A, "hq", "mosaik-node 0.1.0", 77);
        let mut restored = PeerBook::default();
        restored.restore(&book.encode(), 0).expect("own encoding");
        assert_eq!(restored.get(&A).map(Peer::addresses), Some(somewhere(1)));
        assert_eq!(restored.get(&A).map(|peer| peer.name.as_str()), Some("hq"));
    }
}
