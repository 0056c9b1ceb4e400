//! Whom to dial first.
//!
//! Sources take turns, so that one that names hundreds of dead or forged peers can't keep the others'
//! peers waiting: in each turn every source has some places, the more the harder it is to flood. Of one
//! source who failed least goes first, then who was heard before, then who is near.

use std::{collections::BTreeMap, net::SocketAddr};

use mosaik_core::{id::NodeId, reach::Subnet};

use super::Peer;
use crate::carrier::Source;

/// Dials under way to one part of the public internet: one house can't take all places.
const DIALS_PER_SUBNET_MAX: usize = 4;

/// Dials that may begin: to peers that are named by who can't name many, and to others.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Room {
    pub(super) named: usize,
    pub(super) others: usize,
}

impl Room {
    pub(super) fn is_none(&self) -> bool {
        self.named + self.others == 0
    }

    /// That for a peer.
    pub(super) fn of(&self, peer: &Peer) -> usize {
        if is_named(peer) { self.named } else { self.others }
    }

    fn take(&mut self, peer: &Peer) {
        let room = if is_named(peer) { &mut self.named } else { &mut self.others };
        *room = room.saturating_sub(1);
    }
}

/// Whether a peer is named by people, by who shares the wire, or by one of 16 at a time.
pub(super) fn is_named(peer: &Peer) -> bool {
    matches!(peer.best_source(), Source::Ticket | Source::Mdns | Source::Slot)
}

/// Places of a source in each turn.
fn places(source: Source) -> usize {
    match source {
        // Said by people, by who shares the wire, or by at most 16 at a time.
        Source::Ticket | Source::Mdns | Source::Slot => 6,
        Source::Cache => 4,
        // What any member may say of anybody.
        Source::SlotNeighbour | Source::Gossip | Source::Inbound => 1,
    }
}

/// Who comes first of those of one source.
type Rank = (u32, bool, u32, NodeId);

fn rank(node: &NodeId, peer: &Peer) -> Rank {
    let rtt_ms = peer.introduction.rtt_ms.unwrap_or(u32::MAX);
    (peer.failures, peer.heard_ms == 0, rtt_ms, *node)
}

/// Whom to dial, and who has to wait.
pub(super) struct First {
    /// The first first.
    pub(super) nodes: Vec<NodeId>,
    /// Those whose turn it was, in a part of the internet where enough are being dialed.
    pub(super) crowded: Vec<NodeId>,
}

/// Of `due` as many as there is `room` for. `busy` are the peers that are being dialed.
pub(super) fn first<'a>(
    due: impl Iterator<Item = (&'a NodeId, &'a Peer)>,
    busy: impl Iterator<Item = &'a Peer>,
    mut room: Room,
    wall_ms: u64,
) -> First {
    let mut by_source: BTreeMap<Source, BTreeMap<Rank, &Peer>> = BTreeMap::new();
    for (node, peer) in due {
        by_source.entry(peer.best_source()).or_default().insert(rank(node, peer), peer);
    }
    let mut turns = Vec::new();
    for (source, ranks) in by_source {
        let turn = |(at, (rank, peer))| (at / places(source), source, rank, peer);
        turns.extend(ranks.into_iter().enumerate().map(turn));
    }
    turns.sort_unstable_by_key(|(turn, source, rank, _)| (*turn, *source, *rank));
    let mut dials: BTreeMap<Subnet, usize> = BTreeMap::new();
    for subnet in busy.filter_map(|peer| subnet(peer, wall_ms)) {
        *dials.entry(subnet).or_default() += 1;
    }
    let mut first = First { nodes: Vec::new(), crowded: Vec::new() };
    for (.., (.., node), peer) in turns {
        if room.of(peer) == 0 {
            continue;
        }
        let dials = subnet(peer, wall_ms).map(|subnet| dials.entry(subnet).or_default());
        match dials {
            Some(dials) if *dials >= DIALS_PER_SUBNET_MAX => first.crowded.push(node),
            dials => {
                dials.into_iter().for_each(|dials| *dials += 1);
                room.take(peer);
                first.nodes.push(node);
            }
        }
    }
    first
}

/// The part of the public internet in which a peer is, if all its addresses are in one and it has no
/// relay.
fn subnet(peer: &Peer, wall_ms: u64) -> Option<Subnet> {
    let addresses = peer.addresses(wall_ms);
    if !addresses.relays.is_empty() {
        return None;
    }
    let of = |address: &SocketAddr| Subnet::of(address.ip());
    let first = of(addresses.direct.first()?)?;
    addresses.direct.iter().all(|address| of(address) == Some(first)).then_some(first)
}
