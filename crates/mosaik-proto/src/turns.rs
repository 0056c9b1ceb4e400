//! Which of an island's bridges brings in what comes from outside: one of them, and another where that one
//! doesn't.
//!
//! Invariants:
//! - For each author the bridges of an island have an order that all of them reckon alike: the smallest
//!   BLAKE3 of author and bridge first. So they share the load without a word.
//! - Who isn't first waits, and drops what its peer says to hold by then. So nothing depends on the first:
//!   where it has gone the event comes all the same, only later.
//!
//! Source: FORMAT.md beside `mosaik-reticulum`, section 1.

use std::collections::VecDeque;

use mosaik_core::{feed::Tip, id::AuthorId};

/// Events that wait for their turn on one session; beyond it the oldest go untold. The next comparison finds
/// them. A guess: more than an island has airtime for.
const HELD_MAX: usize = 1024;

/// What a carrier knows of those around a session over radio.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Island {
    /// Whether the session's peer is a bridge.
    pub is_peer_bridge: bool,
    /// The names of the other bridges that this node hears there, the peer too if it is one.
    pub bridges: Vec<Vec<u8>>,
    /// How long who isn't first waits, in milliseconds: twice what an event and its answer take.
    pub wait_ms: u64,
    /// Whether the peer hears what this node broadcasts, and asks for what it lacks.
    pub hears_broadcasts: bool,
}

impl Island {
    /// Whether this bridge is the first of the island for an author.
    pub(crate) fn is_first(&self, own_name: &[u8], author: &AuthorId) -> bool {
        let own = rank(author, own_name);
        self.bridges.iter().all(|other| own <= rank(author, other))
    }
}

/// Where a bridge stands in the order of an author.
fn rank(author: &AuthorId, bridge: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(author.as_bytes()).update(bridge).finalize().as_bytes()
}

/// What waits for its turn on one session.
#[derive(Debug, Default)]
pub(crate) struct Held(VecDeque<(u64, AuthorId, Tip)>);

impl Held {
    /// Tells of an event at `due_ms`, unless its peer has it by then. With `is_head` of the feed's last one
    /// alone, as soon as it would have told of an earlier one.
    pub(crate) fn push(&mut self, due_ms: u64, author: AuthorId, tip: Tip, is_head: bool) {
        let before = self.0.iter_mut().find(|(_, of, _)| is_head && *of == author);
        if let Some((_, _, held)) = before {
            return *held = tip.max(*held);
        }
        if self.0.len() == HELD_MAX {
            self.0.pop_front();
        }
        self.0.push_back((due_ms, author, tip));
    }

    /// The peer holds this author's feed up to here.
    pub(crate) fn drop_held(&mut self, author: &AuthorId, seq: u64) {
        self.0.retain(|(_, of, tip)| of != author || tip.seq > seq);
    }

    /// What is due, the oldest first.
    pub(crate) fn due(&mut self, now_ms: u64) -> Option<(AuthorId, Tip)> {
        let at = self.0.iter().position(|(due_ms, ..)| *due_ms <= now_ms)?;
        self.0.remove(at).map(|(_, author, tip)| (author, tip))
    }

    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.0.iter().map(|(due_ms, ..)| *due_ms).min()
    }
}

#[cfg(test)]
mod tests {
    use mosaik_core::id::EventId;

    use super::*;

    #[test]
    fn each_author_has_one_bridge_that_is_first_and_they_share() {
        let names: Vec<Vec<u8>> = (0..3u8).map(|at| vec![at; 16]).collect();
        let mut firsts = [0; 3];
        for author in (0..=255).map(|byte| AuthorId([byte; 32])) {
            let is_first = |own: usize| {
                let bridges = names.iter().enumerate().filter(|(at, _)| *at != own);
                let bridges = bridges.map(|(_, name)| name.clone()).collect();
                Island { bridges, ..Island::default() }.is_first(&names[own], &author)
            };
            let first: Vec<usize> = (0..3).filter(|own| is_first(*own)).collect();
            assert_eq!(first.len(), 1, "{first:?}");
            firsts[first[0]] += 1;
        }
        assert!(firsts.iter().all(|count| *count > 50), "{firsts:?}");
    }

    #[test]
    fn what_the_peer_has_by_then_is_not_told() {
        let mut held = Held::default();
        let [a, b] = [1, 2].map(|byte| AuthorId([byte; 32]));
        let tip = |seq| Tip { seq, id: EventId([7; 32]) };
        held.push(10, a, tip(1), false);
        held.push(10, a, tip(2), false);
        held.push(20, b, tip(1), true);
        held.drop_held(&a, 1);
        assert_eq!(held.due(9), None);
        assert_eq!(held.due(10), Some((a, tip(2))));
        assert_eq!(held.due(10), None);
        assert_eq!(held.next_ms(), Some(20));
        held.push(30, b, tip(5), true);
        assert_eq!(held.due(20), Some((b, tip(5))));
        assert_eq!(held.next_ms(), None);
    }
}
