//! The promises, as code: what must hold of every cluster once its faults have stopped.

use std::collections::BTreeSet;

use mosaik_core::{feed::Ledger, trie::Prefix, view};

use crate::cluster::Cluster;

/// Intervals that a healed cluster may take until all agree: a node that was blocked by back-off
/// meets its next peer in one, news cross the ring in the rest.
pub const ROUNDS_MAX: u64 = 40;

/// What a seed broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken(pub String);

impl Cluster {
    /// Whether all nodes have equal frontiers and view digests.
    pub(crate) fn agrees(&self) -> bool {
        let mut states = BTreeSet::new();
        for node in &self.nodes {
            let Some(replica) = &node.replica else { return false };
            let top = replica.frontier().hash(&Prefix::EMPTY, &BTreeSet::new());
            let digest = view::digest(&node.ledger).expect("memory never fails");
            states.insert((top, digest));
        }
        states.len() == 1
    }

    fn broken(&self) -> Option<String> {
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(replica) = &node.replica else {
                return Some(format!("node {index} is down"));
            };
            let frontier = replica.frontier();
            for (author, tip) in &self.acknowledged {
                let found = frontier.get(author).map(|feed| feed.find(*tip, &node.ledger));
                if !matches!(found, Some(Ok(Some(_)))) {
                    return Some(format!(
                        "node {index} lacks an acknowledged event: {author} {}",
                        tip.seq
                    ));
                }
            }
            if replica.extra_branches() > 0 && !self.has_clone {
                return Some(format!("node {index} holds a branch that nobody's copy made"));
            }
            let counts = node.ledger.counts().expect("memory never fails");
            if counts.missing > 0 || counts.held_back > 0 {
                return Some(format!("node {index} misses or holds back something: {counts:?}"));
            }
        }
        None
    }
}

/// Runs one seed.
///
/// # Errors
///
/// [`Broken`] with the promise that doesn't hold.
pub fn check(seed: u64) -> Result<(), Broken> {
    promises(&mut Cluster::new(seed))
}

/// Runs one seed and tells all that happens, and how the cluster ends.
///
/// # Errors
///
/// As [`check`].
pub fn trace(seed: u64, tell: fn(String)) -> Result<(), Broken> {
    let mut cluster = Cluster::new(seed);
    cluster.tell = Some(tell);
    let outcome = promises(&mut cluster);
    tell(cluster.to_string());
    outcome
}

fn promises(cluster: &mut Cluster) -> Result<(), Broken> {
    if !cluster.run(ROUNDS_MAX) {
        return Err(Broken(format!("no agreement {ROUNDS_MAX} rounds after the last fault")));
    }
    cluster.broken().map_or(Ok(()), |what| Err(Broken(what)))
}
