//! The promises, as code: what must hold of every cluster once its faults have stopped.

use std::collections::BTreeSet;

use mosaik_core::{feed::Ledger, id::AuthorId, trie::Prefix, view};
use mosaik_proto::{peers::PeerState, replica::Replica};

use crate::{
    cluster::{Cluster, Nature, Node},
    disk::MemoryLedger,
    network::End,
};

/// Intervals that a healed cluster may take until all agree: a node that was blocked by back-off
/// meets its next peer in one, news cross the ring in the rest.
const ROUNDS_MAX: u64 = 40;
/// Intervals beyond that until the last event from a clock that was ahead counts.
const ROUNDS_AHEAD_MAX: u64 = 30;
/// Intervals until all that is under way has ended.
const IDLE_ROUNDS_MAX: u64 = 6;
/// Bytes that one end of a connection may send in an interval in which nothing is new.
const IDLE_BYTES_MAX: usize = 300;

/// Runs that may come again in any case: a node that has just started has taken none.
const DUPLICATES_FREE: u64 = 20;

/// What a seed broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken(pub String);

impl Cluster {
    fn honest(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes.iter().enumerate().filter(|(_, node)| node.nature == Nature::Honest)
    }

    fn replicas(&self) -> impl Iterator<Item = (usize, &Replica, &MemoryLedger)> {
        self.honest()
            .filter_map(|(index, node)| Some((index, node.replica.as_ref()?, &node.ledger)))
    }

    /// Authors that some honest node declines: of them nothing is promised.
    pub(crate) fn declined(&self) -> BTreeSet<AuthorId> {
        self.replicas().flat_map(|(_, replica, _)| replica.declines().keys().copied()).collect()
    }

    /// Whether all honest nodes have equal frontiers and view digests.
    pub(crate) fn agrees(&self) -> bool {
        let declined = self.declined();
        let mut states = BTreeSet::new();
        for (_, replica, ledger) in self.replicas() {
            let top = replica.frontier().hash(&Prefix::EMPTY, &declined);
            let digest = view::digest(ledger).expect("memory never fails");
            let counts = ledger.counts().expect("memory never fails");
            states.insert((top, digest, counts.missing, counts.held_back));
        }
        states.len() == 1
            && states.iter().all(|(.., missing, held_back)| (*missing, *held_back) == (0, 0))
            && self.replicas().count() == self.honest().count()
    }

    fn broken(&mut self) -> Result<(), String> {
        if let Some(broken) = self.broken_call.take() {
            return Err(broken);
        }
        self.nothing_is_lost()?;
        self.little_comes_twice()?;
        self.nobody_is_blamed()?;
        self.idle_is_cheap()
    }

    fn nothing_is_lost(&self) -> Result<(), String> {
        for (index, replica, ledger) in self.replicas() {
            for (author, tip) in &self.acknowledged {
                let found = replica.frontier().get(author).map(|feed| feed.find(*tip, ledger));
                if !matches!(found, Some(Ok(Some(_)))) {
                    let seq = tip.seq;
                    return Err(format!(
                        "node {index} lacks an acknowledged event: {author} {seq}"
                    ));
                }
            }
            if replica.extra_branches() > 0 && !self.may_branch {
                return Err(format!("node {index} holds a branch that nobody's copy made"));
            }
        }
        Ok(())
    }

    /// What came again stays within what was new.
    fn little_comes_twice(&self) -> Result<(), String> {
        let totals = self.replicas().map(|(_, replica, _)| replica.totals());
        let (taken, again) =
            totals.fold((0, 0), |sum, t| (sum.0 + t.runs_taken, sum.1 + t.runs_duplicate));
        if again > taken + DUPLICATES_FREE {
            return Err(format!("{again} runs came again, {taken} were new"));
        }
        Ok(())
    }

    /// Between honest nodes nobody breaks the protocol, and who is foreign is refused.
    fn nobody_is_blamed(&self) -> Result<(), String> {
        let has_hostile = self.nodes.iter().any(|node| node.nature == Nature::Hostile);
        for (index, replica, _) in self.replicas() {
            let violations = replica.totals().violations;
            if violations > 0 && !has_hostile {
                return Err(format!("node {index} saw {violations} violations by honest peers"));
            }
            for (other, node) in self.nodes.iter().enumerate() {
                let state = replica.peers().get(&self.id(other)).map(|peer| peer.state());
                if node.nature == Nature::Foreign && state == Some(PeerState::Connected) {
                    return Err(format!("node {index} talks to a node of another network"));
                }
            }
        }
        Ok(())
    }

    /// Where all is equal an interval costs next to nothing, once what was under way has ended: also
    /// of authors that some decline.
    fn idle_is_cheap(&mut self) -> Result<(), String> {
        let mut most = (0, 0);
        for _ in 0..IDLE_ROUNDS_MAX {
            self.network.take_sent();
            self.run_round();
            let sent = self.network.take_sent();
            let between_honest = |end: &End| {
                let other = self.network.other(*end);
                [Some(*end), other]
                    .iter()
                    .all(|end| end.is_some_and(|e| self.nodes[e.node].nature == Nature::Honest))
            };
            let of_honest = sent.into_iter().filter(|(end, _)| between_honest(end));
            most = of_honest.map(|(end, bytes)| (bytes, end.node)).max().unwrap_or_default();
            if most.0 < IDLE_BYTES_MAX {
                return Ok(());
            }
        }
        let (bytes, node) = most;
        Err(format!("node {node} sent {bytes} bytes in an idle interval"))
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

/// Runs a cluster and holds it to all promises.
///
/// # Errors
///
/// As [`check`].
pub fn promises(cluster: &mut Cluster) -> Result<(), Broken> {
    let rounds = ROUNDS_MAX + if cluster.weather.jumps { ROUNDS_AHEAD_MAX } else { 0 };
    if !cluster.run(rounds) {
        return Err(Broken(format!("no agreement {rounds} rounds after the last fault")));
    }
    cluster.broken().map_err(Broken)
}
