//! What is known of one peer.

use std::collections::BTreeMap;

use crate::carrier::{Addresses, Source};

/// How long an address counts after it was last said or used, in milliseconds of the wall clock. An
/// older one is dialed only where nothing newer is known: a clock that was never set, and then is, makes
/// all of them look old.
pub const ADDRESS_AGE_MAX_MS: u64 = 7 * 24 * 3_600_000;
/// How long a peer that said it leaves is left alone, in milliseconds. It may come back where it was,
/// knowing nobody.
pub(super) const LEFT_WAIT_MS: u64 = 60_000;
/// Failures that such a peer is taken to have: it is not tried often.
const LEFT_FAILURES: u32 = 6;

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

/// Where one source says that a peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whereabouts {
    /// Where.
    pub addresses: Addresses,
    /// When that was last said, or the peer last answered a dial there: Unix ms.
    pub seen_ms: u64,
}

impl Whereabouts {
    fn is_fresh(&self, wall_ms: u64) -> bool {
        wall_ms.saturating_sub(self.seen_ms) <= ADDRESS_AGE_MAX_MS
    }
}

/// What a peer says of itself in its greeting, and what the greeting shows of the way to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Introduction {
    /// What it calls itself.
    pub name: String,
    /// What it runs.
    pub software: String,
    /// The version of the protocol that both speak.
    pub protocol: u64,
    /// Bits, as in [`crate::message::Hello`].
    pub capabilities: u64,
    /// The round trip, in milliseconds, if the carrier knows it.
    pub rtt_ms: Option<u32>,
}

/// What is known of one peer.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where, by who says so.
    pub(super) whereabouts: BTreeMap<Source, Whereabouts>,
    /// Who said so first.
    pub found_by: Source,
    /// What it said of itself when it was last heard; empty before.
    pub introduction: Introduction,
    /// When it became known, Unix ms.
    pub first_seen_ms: u64,
    /// When it was last heard, Unix ms; 0 for never.
    pub heard_ms: u64,
    /// Dials that failed since.
    pub failures: u32,
    /// Why the last dial or session ended, in words.
    pub last_reason: String,
    /// What came of it last; never [`PeerState::Connected`], `Dialing` or `Blocked`.
    pub(super) outcome: PeerState,
    pub(super) is_blocked: bool,
    pub(super) is_dialing: bool,
    pub(super) is_open: bool,
    pub(super) next_dial_ms: u64,
    /// The newest presence: boot number and when it was said.
    pub(super) said: (u64, u64),
}

impl Peer {
    pub(super) fn new(source: Source, wall_ms: u64) -> Self {
        Self {
            whereabouts: BTreeMap::new(),
            found_by: source,
            introduction: Introduction::default(),
            first_seen_ms: wall_ms,
            heard_ms: 0,
            failures: 0,
            last_reason: String::new(),
            outcome: PeerState::Reachable,
            is_blocked: false,
            is_dialing: false,
            is_open: false,
            next_dial_ms: 0,
            said: (0, 0),
        }
    }

    /// When it was last here, or said by gossip that it is there: Unix ms; 0 for never.
    pub fn last_sign_ms(&self) -> u64 {
        // A session that lasts is confirmed at its end.
        let seen = self.whereabouts.values().map(|known| known.seen_ms).max();
        let seen_ms = seen.filter(|_| self.heard_ms > 0).unwrap_or(0);
        self.heard_ms.max(self.said.1).max(seen_ms)
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

    /// Where it is, by who says so, expired words among it.
    pub fn whereabouts(&self) -> impl Iterator<Item = (Source, &Whereabouts)> {
        self.whereabouts.iter().map(|(source, whereabouts)| (*source, whereabouts))
    }

    /// Where it is: what has not expired, or if there is nothing else, what has.
    pub fn addresses(&self, wall_ms: u64) -> Addresses {
        let mut all = Addresses::default();
        let is_known = |whereabouts: &&Whereabouts| !whereabouts.addresses.is_empty();
        let none_fresh = !self.whereabouts.values().filter(is_known).any(|w| w.is_fresh(wall_ms));
        let worth = self.whereabouts.values().filter(|w| none_fresh || w.is_fresh(wall_ms));
        for whereabouts in worth {
            all.direct.extend(&whereabouts.addresses.direct);
            all.relays.extend(whereabouts.addresses.relays.iter().cloned());
        }
        all.direct.sort_unstable();
        all.direct.dedup();
        all.relays.sort_unstable();
        all.relays.dedup();
        all
    }

    pub(super) fn has_address(&self) -> bool {
        self.whereabouts.values().any(|whereabouts| !whereabouts.addresses.is_empty())
    }

    /// The best of the sources that say where it is.
    pub(super) fn best_source(&self) -> Source {
        self.whereabouts.keys().next().copied().unwrap_or(self.found_by)
    }

    /// It answered where it was said to be.
    pub(super) fn confirm(&mut self, wall_ms: u64) {
        for whereabouts in self.whereabouts.values_mut() {
            whereabouts.seen_ms = whereabouts.seen_ms.max(wall_ms);
        }
    }

    /// There is news of it: it is tried at once.
    pub(super) fn is_back(&mut self, now_ms: u64) {
        self.next_dial_ms = self.next_dial_ms.min(now_ms);
        if matches!(self.outcome, PeerState::Left | PeerState::Refused) {
            self.outcome = PeerState::Reachable;
            self.failures = 0;
        }
    }

    pub(super) fn leaves(&mut self, now_ms: u64) {
        self.outcome = PeerState::Left;
        self.failures = self.failures.max(LEFT_FAILURES);
        self.next_dial_ms = now_ms + LEFT_WAIT_MS;
    }

    /// Nobody but some source has ever spoken of it.
    pub(super) fn is_stranger(&self) -> bool {
        self.heard_ms == 0
            && !self.is_blocked
            && !self.is_dialing
            && self.found_by != Source::Ticket
    }
}
