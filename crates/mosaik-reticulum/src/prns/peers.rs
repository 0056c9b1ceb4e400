//! Whose destinations the stack remembers, so that it doesn't remember those of everybody.
//!
//! The stack keeps a path and keys of each destination whose announce it took, for up to a week. An
//! identity costs nothing, so who makes new ones all the time would fill this node's memory.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use personal_rns::DestinationHash;

/// Destinations that are remembered at most. An island has some 30 nodes; what an rnsd on the internet
/// hears of these two services may be more.
const PEERS_MAX: usize = 1024;

/// How long a destination that isn't heard any more has its place.
const SILENCE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Destinations that were heard, and when last.
#[derive(Debug, Default)]
pub(super) struct Peers(Mutex<HashMap<[u8; 16], Instant>>);

impl Peers {
    /// Whether the stack may take an announce of this destination: it is known, or there is room.
    pub(super) fn have_room(&self, destination: &DestinationHash, now: Instant) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < PEERS_MAX || known.contains_key(destination.as_bytes()) {
            return true;
        }
        known.retain(|_, heard| now.saturating_duration_since(*heard) < SILENCE_MAX);
        known.len() < PEERS_MAX
    }

    /// Remembers a destination whose announce the stack took: its signature was right.
    pub(super) fn heard(&self, destination: &DestinationHash, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(*destination.as_bytes(), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(index: usize) -> DestinationHash {
        let mut hash = [0; 16];
        hash[..8].copy_from_slice(&index.to_be_bytes());
        DestinationHash::new(hash)
    }

    #[test]
    fn who_is_known_is_heard_and_strangers_wait_for_room() {
        let (peers, now) = (Peers::default(), Instant::now());
        for index in 0..PEERS_MAX {
            assert!(peers.have_room(&destination(index), now));
            peers.heard(&destination(index), now);
        }
        assert!(peers.have_room(&destination(0), now));
        assert!(!peers.have_room(&destination(PEERS_MAX), now));
        let later = now + SILENCE_MAX;
        peers.heard(&destination(0), later);
        assert!(peers.have_room(&destination(PEERS_MAX), later));
    }
}
