//! What all nodes of a stub keep, and what they were asked: the part that tests look at.

use std::collections::BTreeMap;

use super::{
    Put, Requests,
    storage::{Storage, Target},
};

/// Puts in the log: at 20 a write, 5,000 writes. Later ones are counted, not logged.
const PUTS_MAX: usize = 100_000;
/// Targets that are counted one by one; all further ones are counted together.
const TARGETS_MAX: usize = 10_000;
/// Where those are counted: no key hashes to it.
const REST: Target = [0; 20];

/// One for all nodes, so that the log has one order.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) storages: Vec<Storage>,
    pub(super) puts: Vec<Put>,
    pub(super) requests: BTreeMap<Target, Requests>,
    /// Nobody answers any more.
    pub(super) silent: bool,
}

impl Ledger {
    pub(super) fn new(storages: Vec<Storage>) -> Self {
        Self { storages, puts: Vec::new(), requests: BTreeMap::new(), silent: false }
    }

    /// The counters of a target.
    pub(super) fn count(&mut self, target: Target) -> &mut Requests {
        let known = self.requests.len() < TARGETS_MAX || self.requests.contains_key(&target);
        self.requests.entry(if known { target } else { REST }).or_default()
    }

    pub(super) fn note(&mut self, put: Put) {
        if self.puts.len() < PUTS_MAX {
            self.puts.push(put);
        }
    }
}
