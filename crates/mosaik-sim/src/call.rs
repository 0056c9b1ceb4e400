//! Whoever waits to be synced, and what it is promised: a comparison that began after the call has
//! ended, and all that it showed is here.

use mosaik_core::{
    feed::{Ledger, Tip},
    id::AuthorId,
};
use mosaik_proto::carrier::Input;

use crate::cluster::{Cluster, Nature};

/// Somebody waits.
pub(crate) struct Call {
    node: usize,
    at_ms: u64,
    /// What each of the others held when the call was made, up or not.
    held: Vec<Vec<(AuthorId, Tip)>>,
}

impl Cluster {
    /// Somebody calls at `node`. Where a peer may be hostile nothing is promised.
    pub(crate) fn call(&mut self, node: usize) {
        if self.nodes.iter().any(|node| node.nature == Nature::Hostile) {
            return;
        }
        let others = self.nodes.iter().enumerate();
        let others = others.filter(|(i, other)| *i != node && other.nature == Nature::Honest);
        let held = others.map(|(_, other)| {
            let branches = other.ledger.branches().expect("memory never fails");
            branches.into_iter().map(|branch| (branch.author, branch.tip)).collect()
        });
        let held = held.collect();
        self.calls.push(Call { node, at_ms: self.now_ms, held });
        self.step(node, Some(Input::Compare));
    }

    /// Answers the calls at `node` that are synced by now. Each must hold all that one other held.
    pub(crate) fn answer_calls(&mut self, node: usize) {
        let Some(replica) = &self.nodes[node].replica else { return };
        let Some(since_ms) = replica.synced_since_ms() else { return };
        let declined = self.declined();
        let holds = |(author, tip): &(AuthorId, Tip)| {
            let feed = replica.frontier().get(author);
            let found = feed.map(|feed| feed.find(*tip, &self.nodes[node].ledger));
            declined.contains(author) || matches!(found, Some(Ok(Some(_))))
        };
        let is_due = |call: &Call| call.node == node && call.at_ms <= since_ms;
        let broken = self
            .calls
            .iter()
            .find(|call| is_due(call) && !call.held.iter().any(|held| held.iter().all(holds)));
        if let Some(Call { at_ms, .. }) = broken {
            let now_ms = self.now_ms;
            self.broken_call.get_or_insert(format!(
                "node {node} was synced at {now_ms} for a call at {at_ms} and lacks something of each"
            ));
        }
        self.calls.retain(|call| !is_due(call));
    }
}
