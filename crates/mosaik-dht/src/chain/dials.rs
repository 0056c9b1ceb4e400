//! What dialing told about the holders of slots: who may be taken for dead, and what a person may
//! want to know of the last dial.
//!
//! Invariants:
//! - A holder is dead after two failed dials at least 30 s apart, or after one when an
//!   authenticated session with it broke less than 10 minutes ago.
//! - A session, or a lease newer than those seen so far, makes it alive again.

use std::collections::BTreeMap;

use mosaik_core::id::NodeId;

use super::{
    Now,
    status::{DialEnd, LastDial},
};

/// Time between two failed dials that together mean something: one lost packet, one busy minute
/// must not cost a holder its slot.
const FAILED_APART_MS: u64 = 30_000;
/// For how long a broken session counts beside a failed dial.
const BROKE_MS: u64 = 600_000;
/// Nodes that are remembered: more than the holders of all slots in all their values.
const NODES_MAX: usize = 256;

#[derive(Debug, Clone, Copy, Default)]
struct Dials {
    failed_first_ms: Option<u64>,
    failed_last_ms: Option<u64>,
    broke_ms: Option<u64>,
    issued_s: u64,
    /// For show, and for who makes room: it says nothing of who is dead.
    last: Option<LastDial>,
    last_ms: Option<u64>,
}

impl Dials {
    fn clear(&mut self) {
        (self.failed_first_ms, self.failed_last_ms, self.broke_ms) = (None, None, None);
    }

    fn ended(&mut self, now: Now, end: DialEnd) {
        self.last = Some(LastDial { at_ms: now.wall_ms, end });
        self.last_ms = Some(now.mono_ms);
    }
}

/// One entry for each node that was seen in a slot or had a session.
#[derive(Debug, Clone, Default)]
pub(super) struct DialBook {
    nodes: BTreeMap<NodeId, Dials>,
}

impl DialBook {
    pub(super) fn failed(&mut self, node: NodeId, now: Now) {
        if let Some(dials) = self.entry(node) {
            dials.failed_first_ms.get_or_insert(now.mono_ms);
            dials.failed_last_ms = Some(now.mono_ms);
            dials.ended(now, DialEnd::Failed);
        }
    }

    pub(super) fn broke(&mut self, node: NodeId, mono_ms: u64) {
        if let Some(dials) = self.entry(node) {
            dials.failed_first_ms = None;
            dials.failed_last_ms = None;
            dials.broke_ms = Some(mono_ms);
        }
    }

    pub(super) fn up(&mut self, node: NodeId, now: Now) {
        if let Some(dials) = self.entry(node) {
            dials.clear();
            dials.ended(now, DialEnd::Ok);
        }
    }

    pub(super) fn last_dial(&self, node: &NodeId) -> Option<LastDial> {
        self.nodes.get(node)?.last
    }

    /// Learns of a lease. A newer one than before was signed by somebody alive.
    pub(super) fn leased(&mut self, node: NodeId, issued_s: u64) {
        if let Some(dials) = self.entry(node)
            && dials.issued_s < issued_s
        {
            let seen_before = dials.issued_s != 0;
            dials.issued_s = issued_s;
            if seen_before {
                dials.clear();
            }
        }
    }

    pub(super) fn is_dead(&self, node: &NodeId, mono_ms: u64) -> bool {
        let Some(dials) = self.nodes.get(node) else { return false };
        let (Some(first), Some(last)) = (dials.failed_first_ms, dials.failed_last_ms) else {
            return false;
        };
        last.saturating_sub(first) >= FAILED_APART_MS
            || dials.broke_ms.is_some_and(|broke| mono_ms.saturating_sub(broke) < BROKE_MS)
    }

    /// Whether the last dial failed, and nothing spoke for the node since. Not dead yet, but nobody to
    /// count on either.
    pub(super) fn is_doubtful(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|dials| dials.failed_last_ms.is_some())
    }

    /// The node's entry; the least known one makes room for it.
    fn entry(&mut self, node: NodeId) -> Option<&mut Dials> {
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(&node) {
            let told = |dials: &Dials| dials.last_ms.max(dials.broke_ms);
            let least =
                self.nodes.iter().min_by_key(|(_, dials)| told(dials)).map(|(node, _)| *node);
            self.nodes.remove(&least?);
        }
        Some(self.nodes.entry(node).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLDER: NodeId = NodeId([1; 32]);

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, wall_ms: 1_000_000 + mono_ms }
    }

    #[test]
    fn one_failed_dial_or_two_in_a_row_kill_nobody() {
        let mut book = DialBook::default();
        book.leased(HOLDER, 100);
        book.failed(HOLDER, at(1_000));
        assert!(!book.is_dead(&HOLDER, 1_000));
        book.failed(HOLDER, at(30_999));
        assert!(!book.is_dead(&HOLDER, 30_999));
        book.failed(HOLDER, at(31_000));
        assert!(book.is_dead(&HOLDER, 31_000));
    }

    #[test]
    fn one_failed_dial_is_enough_within_ten_minutes_of_a_broken_session() {
        let mut book = DialBook::default();
        book.broke(HOLDER, 1_000);
        assert!(!book.is_dead(&HOLDER, 1_000));
        book.failed(HOLDER, at(2_000));
        assert!(book.is_dead(&HOLDER, 2_000));
        assert!(!book.is_dead(&HOLDER, 601_000));
    }

    #[test]
    fn a_new_session_or_a_newer_lease_clears_the_failures() {
        let mut book = DialBook::default();
        book.leased(HOLDER, 100);
        book.failed(HOLDER, at(0));
        book.failed(HOLDER, at(40_000));
        book.leased(HOLDER, 100);
        assert!(book.is_dead(&HOLDER, 40_000));
        book.leased(HOLDER, 101);
        assert!(!book.is_dead(&HOLDER, 40_000));
        book.failed(HOLDER, at(50_000));
        book.failed(HOLDER, at(90_000));
        book.up(HOLDER, at(90_000));
        assert!(!book.is_dead(&HOLDER, 90_000));
    }

    #[test]
    fn the_last_dial_is_told_also_where_it_no_longer_counts() {
        let mut book = DialBook::default();
        book.leased(HOLDER, 100);
        assert_eq!(book.last_dial(&HOLDER), None);
        book.failed(HOLDER, at(40_000));
        book.leased(HOLDER, 101);
        let failed = LastDial { at_ms: 1_040_000, end: DialEnd::Failed };
        assert_eq!(book.last_dial(&HOLDER), Some(failed));
        book.up(HOLDER, at(50_000));
        let ok = LastDial { at_ms: 1_050_000, end: DialEnd::Ok };
        assert_eq!(book.last_dial(&HOLDER), Some(ok));
        book.broke(HOLDER, 60_000);
        assert_eq!(book.last_dial(&HOLDER), Some(ok));
    }

    #[test]
    fn strangers_cannot_fill_the_book() {
        let mut book = DialBook::default();
        book.broke(HOLDER, 5);
        for node in 0..1000u32 {
            let mut id = [9; 32];
            id[..4].copy_from_slice(&node.to_be_bytes());
            book.leased(NodeId(id), 1);
        }
        assert_eq!(book.nodes.len(), NODES_MAX);
        assert!(book.nodes.contains_key(&HOLDER));
    }
}
