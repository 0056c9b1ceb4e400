//! What the program shows of a replica.

use std::collections::{BTreeMap, BTreeSet};

use mosaik_core::{
    feed::Tip,
    frontier::Frontier,
    id::{AuthorId, NodeId},
};

use super::Replica;
use crate::{
    Awaited,
    carrier::{Now, OnAir, Role, SessionId},
    message::Reason,
    peers::PeerBook,
    session::Session,
};

/// Totals since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Runs that brought something new.
    pub runs_taken: u64,
    /// Runs that brought nothing.
    pub runs_duplicate: u64,
    /// The events of those.
    pub events_duplicate: u64,
    /// Sessions ended because the peer broke the protocol.
    pub violations: u64,
    /// Runs and items of declined authors.
    pub declined: u64,
    /// Probes and answers to them that were too many, or not what they can be.
    pub probes_dropped: u64,
}

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// No peer, and none to try.
    Isolated,
    /// No session yet, but somebody to dial.
    Joining,
    /// Something that a peer showed is still to come.
    Syncing,
    /// A comparison within the last two intervals, and all that it showed is here; or no session, and a
    /// peer that announced over radio what this node holds.
    InSync,
}

/// How far apart this node and a peer are, in events, as far as their sessions have shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// The peer has them, this node has not.
    pub behind: u64,
    /// The peer has asked for them, and they are still to be sent.
    pub ahead: u64,
}

/// One open session, for `peers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStatus {
    /// Its number.
    pub session: SessionId,
    /// With whom.
    pub peer: NodeId,
    /// Which end this is.
    pub role: Role,
    /// Whether hellos are exchanged.
    pub is_open: bool,
}

impl Replica {
    /// This node's id.
    pub fn node(&self) -> NodeId {
        self.me.node
    }

    /// The author whose feed it writes.
    pub fn author(&self) -> AuthorId {
        self.feeds.own_author()
    }

    /// The number of this start.
    pub fn boot(&self) -> u64 {
        self.me.boot
    }

    /// The boot number of another node that uses this node's key, if one was met.
    pub fn twin(&self) -> Option<u64> {
        self.twin
    }

    /// Whether a person has paused it.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// All peers.
    pub fn peers(&self) -> &PeerBook {
        &self.peers
    }

    /// All feeds.
    pub fn frontier(&self) -> &Frontier {
        &self.feeds.frontier
    }

    /// Authors that are declined here, and why.
    pub fn declines(&self) -> &BTreeMap<AuthorId, Reason> {
        &self.feeds.declines
    }

    /// Branches beyond each author's first.
    pub fn extra_branches(&self) -> usize {
        self.feeds.extra_branches()
    }

    /// Totals since the start.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The sessions.
    pub fn sessions(&self) -> Vec<SessionStatus> {
        let status = |session: &Session| SessionStatus {
            session: session.id,
            peer: session.peer,
            role: session.role,
            is_open: session.is_open(),
        };
        self.sessions.values().map(status).collect()
    }

    /// How far apart this node and each connected peer are. Looks at all that is claimed: for who asks,
    /// not for every batch.
    pub fn lags(&self) -> BTreeMap<NodeId, Lag> {
        let held =
            |author: &AuthorId| self.feeds.feed(author).map_or(0, |feed| feed.greatest().seq);
        let behind = self.asks.behind(held);
        let mut lags: BTreeMap<NodeId, Lag> = BTreeMap::new();
        for session in self.sessions.values().filter(|session| session.is_open()) {
            let lag = lags.entry(session.peer).or_default();
            lag.behind = lag.behind.max(behind.get(&session.id).copied().unwrap_or(0));
            lag.ahead += session.to_serve();
        }
        lags
    }

    /// What peers have shown and is still to come.
    pub fn awaited(&self) -> Awaited {
        self.asks.awaited()
    }

    /// How many peers have an open session.
    pub fn open_peers(&self) -> usize {
        let open = self.sessions.values().filter(|session| session.is_open());
        open.map(|session| session.peer).collect::<BTreeSet<_>>().len()
    }

    /// Seq of the last event that this node wrote; 0 before the first.
    pub fn own_seq(&self) -> u64 {
        self.feeds.own_last().map_or(0, |tip| tip.seq)
    }

    /// How many connected peers are known to hold this node's own feed up to `seq`, durably.
    pub fn replicas(&self, seq: u64) -> usize {
        let holds = |session: &&Session| session.is_open() && session.own_held_seq() >= seq;
        let peers = self.sessions.values().filter(holds).map(|session| session.peer);
        peers.collect::<BTreeSet<_>>().len()
    }

    /// Of the payloads that are missing here, how many every connected peer lacked, too, when it was
    /// last asked for all.
    pub fn unavailable(&self) -> u64 {
        let open = self.sessions.values().filter(|session| session.is_open());
        open.map(|session| session.lacked().unwrap_or(0)).min().unwrap_or(0)
    }

    /// How far it is.
    pub fn progress(&self, now: Now) -> Progress {
        if self.open_peers() == 0 {
            let on_air = self.on_air.unwrap_or_default();
            if on_air.equal > 0 {
                return Progress::InSync;
            }
            let known = on_air.heard > 0 || !self.sessions.is_empty();
            let hope = known || self.peers.has_hope();
            return if hope { Progress::Joining } else { Progress::Isolated };
        }
        let window_ms = 2 * (self.config.sync_interval_ms + self.config.sync_jitter_ms);
        let recent = self.synced_ms.is_some_and(|ms| ms + window_ms >= now.mono_ms);
        let busy = !self.asks.is_empty() || self.sessions.values().any(Session::is_syncing);
        if recent && !busy { Progress::InSync } else { Progress::Syncing }
    }

    /// Who was heard over radio, if there is one.
    pub fn on_air(&self) -> Option<OnAir> {
        self.on_air
    }

    /// When the newest comparison began of which all that it showed is here: monotonic ms. Whoever
    /// waits to be synced compares this with the time of its call.
    pub fn synced_since_ms(&self) -> Option<u64> {
        self.synced_strict_ms
    }

    /// The time to work with: this node's clock, or the peers' where it was never set.
    pub fn wall_ms(&self, now: Now) -> u64 {
        self.wall(now).ms
    }

    /// What the peers' clocks say against this one, in milliseconds: their median offset. Of an even
    /// number the middle one that is nearer to this clock counts: one of two peers whose clock is wrong
    /// changes nothing.
    pub fn clock_offset_ms(&self) -> Option<i64> {
        let mut offsets: Vec<i64> = self.clock_offsets.values().copied().collect();
        offsets.sort_unstable();
        let middle = offsets.len().checked_sub(1)? / 2..=offsets.len() / 2;
        offsets.get(middle)?.iter().copied().min_by_key(|offset_ms| offset_ms.unsigned_abs())
    }

    /// The last event that this node wrote, if any.
    pub fn own_last(&self) -> Option<Tip> {
        self.feeds.own_last()
    }
}
