//! What a node shows of itself, put together from all that it is made of.

use mosaik_api::document::{
    DialEnd as ShownEnd, KnownAddress, LastDial as ShownDial, Peer, PeerState as ShownState, Slot,
    SlotState as ShownSlot, State,
};
use mosaik_core::{hlc::SKEW_MAX_MS, id::NodeId, ticket::Ticket};
use mosaik_dht::{DialEnd, Hint, LastDial, Neighbour, SlotState, SlotStatus, Summary};
use mosaik_proto::{
    carrier::{Addresses, Now, OnAir, Source},
    message::{CAPABILITY_NAMES, Reason},
    peers::{self, ADDRESS_AGE_MAX_MS, PeerState},
    replica::{Progress, Replica},
};

use crate::{carrier::Carriers, handle::Snapshot, node::CLOCK_FLOOR_MS, strangers::Stranger};

/// Live neighbours that are named in the node's slot.
const NEIGHBOURS_MAX: usize = 4;

/// Where a snapshot comes from.
pub(crate) struct Sources<'a> {
    pub(crate) now: Now,
    /// What this node calls itself.
    pub(crate) name: &'a str,
    /// None while the store is out of order.
    pub(crate) replica: Option<&'a Replica>,
    pub(crate) carriers: &'a Carriers,
    /// Nodes that came and were turned away.
    pub(crate) strangers: &'a [Stranger],
    pub(crate) last: &'a Snapshot,
    pub(crate) addresses: &'a Addresses,
    pub(crate) summary: Option<Summary>,
    pub(crate) slots: &'a [SlotStatus],
    pub(crate) degraded: Option<&'a str>,
}

/// The snapshot of this moment.
pub(crate) fn of(sources: Sources<'_>) -> Snapshot {
    let Sources { replica, last, addresses, .. } = sources;
    let ticket = Ticket {
        node: last.ticket.node,
        relays: addresses.relays.clone(),
        addresses: addresses.direct.clone(),
    };
    let degraded = sources.degraded.map(str::to_owned);
    let name = |node: &NodeId| {
        let own = (*node == last.ticket.node).then_some(sources.name);
        let told = own.or_else(|| Some(replica?.peers().get(node)?.introduction.name.as_str()));
        told.filter(|name| !name.is_empty()).map(str::to_owned)
    };
    let slots = sources.slots.iter().map(|status| slot(status, name)).collect();
    let published = published(addresses, sources.summary);
    let Some(replica) = replica else {
        return Snapshot {
            state: State::Isolated,
            doing: "out of order: the store takes no writes".to_owned(),
            ticket,
            published,
            peers: Vec::new(),
            slots,
            degraded,
            ..last.clone()
        };
    };
    let state = match replica.progress(sources.now) {
        Progress::Isolated => State::Isolated,
        Progress::Joining => State::Joining,
        Progress::Syncing => State::Syncing,
        Progress::InSync => State::InSync,
    };
    let crowded = replica.declines().iter().filter(|(_, reason)| **reason == Reason::Crowded);
    Snapshot {
        paused: replica.is_paused(),
        state,
        doing: doing(state, replica, sources.summary),
        author: replica.author(),
        ticket,
        published,
        peers: peers(replica, sources.carriers, sources.strangers),
        slots,
        unavailable: replica.unavailable(),
        replicas: replica.replicas(replica.own_seq()) as u64,
        declined: replica.declines().len() as u64,
        crowded: crowded.map(|(author, _)| *author).collect(),
        violations: replica.totals().violations,
        degraded,
        dead_carriers: sources.carriers.dead(),
        notices: notices(replica, sources.carriers, sources.now),
    }
}

/// Nodes to name in this node's slot: those that it is connected to.
pub(crate) fn neighbours(replica: &Replica, wall_ms: u64) -> Vec<Neighbour> {
    let connected = replica.peers().iter().filter(|(_, peer)| peer.state() == PeerState::Connected);
    let named = connected.filter_map(|(node, peer)| {
        let address = *peer.addresses(wall_ms).direct.first()?;
        Some(Neighbour { node: *node, hint: Hint::Address(address) })
    });
    named.take(NEIGHBOURS_MAX).collect()
}

fn doing(state: State, replica: &Replica, slots: Option<Summary>) -> String {
    let peers = count(replica.open_peers(), "peer");
    if replica.is_paused() {
        return "paused by hand, `mosaik-node resume` lets it go on".to_owned();
    }
    match state {
        State::Syncing => match replica.awaited().feeds {
            0 => format!("syncing with {peers}"),
            feeds => format!("syncing with {peers}, {} to come", count(feeds, "feed")),
        },
        State::InSync if replica.open_peers() > 0 => format!("in sync with {peers}"),
        State::InSync => {
            let OnAir { heard, equal } = replica.on_air().unwrap_or_default();
            format!("in sync with {equal} of {heard} that were heard over radio")
        }
        State::Isolated | State::Joining => match slots {
            Some(slots) if !slots.answering && slots.unknown == 16 => {
                "looking for peers: no DHT node answers yet".to_owned()
            }
            Some(slots) => {
                let holding = match slots.held {
                    Some(slot) => format!("holding slot {slot}"),
                    None => "holding no slot".to_owned(),
                };
                let next = slots.next_look_ms.div_ceil(1000);
                format!(
                    "looking for peers: {} empty, {} live, {holding}, next look in {next} s",
                    count(slots.empty, "slot"),
                    slots.live,
                )
            }
            None => match replica.on_air() {
                Some(OnAir { heard: 1.., .. }) => {
                    "heard others over radio that hold other events: a link is next".to_owned()
                }
                _ if state == State::Joining => "dialing known peers".to_owned(),
                Some(_) => "listening: nobody was heard over radio yet".to_owned(),
                None => "waiting for peers: no DHT, and no known peer".to_owned(),
            },
        },
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn published(addresses: &Addresses, slots: Option<Summary>) -> Vec<String> {
    let mut lines = Vec::new();
    if !addresses.direct.is_empty() {
        let all: Vec<String> = addresses.direct.iter().map(ToString::to_string).collect();
        lines.push(format!("its addresses {}", all.join(", ")));
    }
    if !addresses.relays.is_empty() {
        lines.push(format!("its relay {}", addresses.relays.join(", ")));
    }
    if let Some(slot) = slots.and_then(|slots| slots.held) {
        lines.push(format!("both in slot {slot} of the network on the Mainline DHT"));
    }
    lines
}

fn notices(replica: &Replica, carriers: &Carriers, now: Now) -> Vec<String> {
    let twin = replica.twin().is_some();
    let twin = twin.then(|| "another node uses this node key: delete node.key in one".to_owned());
    let clock = clock_notice(replica.clock_offset_ms(), now.wall_ms);
    carriers.notices().into_iter().chain(twin).chain(clock).collect()
}

/// What is wrong with this machine's clock, by what was added to it to get the peers' time.
fn clock_notice(offset_ms: Option<i64>, wall_ms: u64) -> Option<String> {
    if wall_ms < CLOCK_FLOOR_MS {
        let until = match offset_ms {
            Some(_) => "its peers' time is used",
            None => "a peer's time will be used",
        };
        return Some(format!("this machine's clock was never set: {until} until it is"));
    }
    let offset_ms = offset_ms.filter(|offset_ms| offset_ms.unsigned_abs() > SKEW_MAX_MS)?;
    let minutes = (offset_ms.unsigned_abs() + 30_000) / 60_000;
    let apart = match (minutes / 60, minutes / 60 / 24) {
        (0 | 1, _) => format!("{minutes} minutes"),
        (hours, 0 | 1) => format!("{hours} hours"),
        (_, days) => format!("{days} days"),
    };
    Some(match offset_ms {
        ..0 => format!(
            "this machine's clock is {apart} ahead of its peers': what is written here shows there \
             that much later; set it"
        ),
        _ => format!(
            "this machine's clock is {apart} behind its peers': what they write shows here that \
             much later; set it"
        ),
    })
}

fn peers(replica: &Replica, carriers: &Carriers, strangers: &[Stranger]) -> Vec<Peer> {
    let sessions = replica.sessions();
    let peer = |(node, peer): (&NodeId, &peers::Peer)| {
        let session = sessions.iter().find(|session| session.peer == *node && session.is_open);
        let path = session.and_then(|session| carriers.path(session.session));
        let said = &peer.introduction;
        let rtt_ms = path.as_ref().map(|path| path.rtt_ms as f64);
        let named = CAPABILITY_NAMES.iter().filter(|(bit, _)| said.capabilities & bit != 0);
        Peer {
            id: node.to_string(),
            name: said.name.clone(),
            state: shown_state(peer.state()),
            rtt_ms: rtt_ms.or(said.rtt_ms.map(f64::from)),
            path: path.as_ref().map(|path| path.via.as_str().to_owned()),
            address: path.map(|path| path.remote),
            events_behind: None,
            events_ahead: None,
            software: said.software.clone(),
            protocol: (said.protocol > 0).then_some(said.protocol),
            capabilities: named.map(|(_, name)| (*name).to_owned()).collect(),
            found_by: peer.found_by.as_str().to_owned(),
            known_addresses: Vec::new(),
            first_seen_ms: (peer.first_seen_ms > 0).then_some(peer.first_seen_ms),
            last_seen_ms: (peer.heard_ms > 0).then_some(peer.heard_ms),
            failures: peer.failures,
            reason: Some(peer.last_reason.clone()).filter(|reason| !reason.is_empty()),
        }
    };
    let mut peers: Vec<Peer> = replica.peers().iter().map(peer).collect();
    let unknown = strangers.iter().filter(|s| replica.peers().get(&s.node).is_none());
    peers.extend(unknown.map(turned_away));
    peers.sort_by_key(|peer| peer.state != ShownState::Connected);
    peers
}

/// The peers with all that is known of each: what costs too much for every snapshot.
pub(crate) fn peers_in_full(
    replica: &Replica,
    carriers: &Carriers,
    strangers: &[Stranger],
    wall_ms: u64,
) -> Vec<Peer> {
    let mut all = peers(replica, carriers, strangers);
    let lags = replica.lags();
    for shown in &mut all {
        let Ok(node) = shown.id.parse::<NodeId>() else { continue };
        if let Some(lag) = lags.get(&node) {
            shown.events_behind = Some(lag.behind);
            shown.events_ahead = Some(lag.ahead);
        }
        if let Some(peer) = replica.peers().get(&node) {
            shown.known_addresses = known_addresses(peer, wall_ms);
        }
    }
    all
}

fn known_addresses(peer: &peers::Peer, wall_ms: u64) -> Vec<KnownAddress> {
    let known = peer.whereabouts().flat_map(|(source, known)| {
        let direct = known.addresses.direct.iter().map(ToString::to_string);
        let all = direct.chain(known.addresses.relays.iter().cloned());
        all.map(move |address| KnownAddress {
            address,
            source: source.as_str().to_owned(),
            seen_ms: known.seen_ms,
            expired: wall_ms.saturating_sub(known.seen_ms) > ADDRESS_AGE_MAX_MS,
        })
    });
    known.collect()
}

/// Who came by itself and is no peer.
fn turned_away(stranger: &Stranger) -> Peer {
    Peer {
        last_seen_ms: Some(stranger.at_ms),
        reason: Some(stranger.reason.clone()),
        ..Peer::new(stranger.node.to_string(), ShownState::Refused, Source::Inbound.as_str())
    }
}

pub(crate) fn shown_state(state: PeerState) -> ShownState {
    match state {
        PeerState::Connected => ShownState::Connected,
        PeerState::Dialing => ShownState::Dialing,
        PeerState::Reachable => ShownState::Reachable,
        PeerState::BackingOff => ShownState::BackingOff,
        PeerState::Lost => ShownState::Lost,
        PeerState::Left => ShownState::Left,
        PeerState::Blocked => ShownState::Blocked,
        PeerState::Refused => ShownState::Refused,
    }
}

fn slot(status: &SlotStatus, name: impl Fn(&NodeId) -> Option<String>) -> Slot {
    Slot {
        slot: status.slot,
        state: match status.state {
            SlotState::Unknown => ShownSlot::Unknown,
            SlotState::Empty => ShownSlot::Empty,
            SlotState::Mine => ShownSlot::Mine,
            SlotState::Live => ShownSlot::Live,
            SlotState::Dead => ShownSlot::Dead,
            SlotState::Expired => ShownSlot::Expired,
            SlotState::Left => ShownSlot::Left,
            SlotState::Foreign => ShownSlot::Foreign,
            SlotState::Forged => ShownSlot::Forged,
            SlotState::Locked => ShownSlot::Locked,
        },
        holder: status.holder.map(|node| node.to_string()),
        holder_name: status.holder.as_ref().and_then(name),
        issued_ms: status.issued_ms,
        expires_ms: status.expires_ms,
        addresses: status.addresses.iter().map(ToString::to_string).collect(),
        relays: status.relays.clone(),
        last_dial: status.last_dial.map(|LastDial { at_ms, end }| ShownDial {
            at_ms,
            ended: match end {
                DialEnd::Ok => ShownEnd::Ok,
                DialEnd::Failed => ShownEnd::Failed,
            },
        }),
        reason: status.refused.clone(),
    }
}
