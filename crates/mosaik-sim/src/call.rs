//! Whoever waits to be synced, and what it is promised: a comparison that began after the call has
//! ended, and all that it showed is here.

use mosaik_core::{feed::Tip, id::AuthorId};
use mosaik_proto::carrier::Input;

use crate::{
    checker::SYNCED,
    cluster::Cluster,
    node::{Nature, Node},
};

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
        if self.has_hostile() {
            return;
        }
        let others = self.nodes.iter().enumerate();
        let others = others.filter(|(i, other)| *i != node && other.nature == Nature::Honest);
        let held = others.map(|(_, other)| {
            let branches = other.storage.snapshot().branches();
            branches.into_iter().map(|branch| (branch.author, branch.tip)).collect()
        });
        let held = held.collect();
        self.calls.push(Call { node, at_ms: self.now_ms, held });
        self.step(node, Some(Input::Compare));
    }

    /// Answers the calls at `node` that are synced by now. Each must hold all that one other held.
    pub(crate) fn answer_calls(&mut self, node: usize) {
        let Node { replica: Some(replica), storage, .. } = &self.nodes[node] else { return };
        let Some(since_ms) = replica.synced_since_ms() else { return };
        if !self.calls.iter().any(|call| call.node == node && call.at_ms <= since_ms) {
            return;
        }
        let declined = self.declined();
        let snapshot = storage.snapshot();
        let holds = |(author, tip): &(AuthorId, Tip)| {
            declined.contains(author) || snapshot.find(author, *tip).is_some()
        };
        let is_due = |call: &Call| call.node == node && call.at_ms <= since_ms;
        let broken = self
            .calls
            .iter()
            .find(|call| is_due(call) && !call.held.iter().any(|held| held.iter().all(holds)));
        if let Some(Call { at_ms, .. }) = broken {
            let now_ms = self.now_ms;
            let what = format!(
                "node {node} was synced at {now_ms} for a call at {at_ms} and lacks something of each"
            );
            self.break_promise(SYNCED, what);
        }
        self.calls.retain(|call| !is_due(call));
    }
}
