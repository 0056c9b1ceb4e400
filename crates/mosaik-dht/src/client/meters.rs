//! What a chain client counts, for who watches a node from outside.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::watch;

use crate::chain::{SlotState, SlotStatus};

/// Written by the client's task alone.
#[derive(Debug, Default)]
pub(super) struct Counters {
    lookups: AtomicU64,
    puts: AtomicU64,
    conflicts: AtomicU64,
    stored_at: AtomicU32,
}

impl Counters {
    pub(super) fn lookup(&self) {
        self.lookups.fetch_add(1, Relaxed);
    }

    pub(super) fn put(&self) {
        self.puts.fetch_add(1, Relaxed);
    }

    pub(super) fn conflicts(&self, all: u64) {
        self.conflicts.store(all, Relaxed);
    }

    pub(super) fn stored_at(&self, nodes: u32) {
        self.stored_at.store(nodes, Relaxed);
    }
}

/// The numbers of a chain client. Each stands for itself; to read them costs its task nothing.
#[derive(Debug, Clone)]
pub struct ChainMeters {
    counters: Arc<Counters>,
    slots: watch::Receiver<Vec<SlotStatus>>,
}

impl ChainMeters {
    pub(super) fn new(counters: Arc<Counters>, slots: watch::Receiver<Vec<SlotStatus>>) -> Self {
        Self { counters, slots }
    }

    /// Slots that storage nodes were asked for, of which each is one lookup in the DHT.
    pub fn lookups(&self) -> u64 {
        self.counters.lookups.load(Relaxed)
    }

    /// Writes that were given to the DHT.
    pub fn puts(&self) -> u64 {
        self.counters.puts.load(Relaxed)
    }

    /// See [`crate::chain::Chain::conflicts`].
    pub fn conflicts(&self) -> u64 {
        self.counters.conflicts.load(Relaxed)
    }

    /// Storage nodes and pkarr relays that acknowledged the last write that was answered; 0 if it was refused or
    /// nobody answered it. One that acknowledges need not have changed anything.
    pub fn stored_at(&self) -> u32 {
        self.counters.stored_at.load(Relaxed)
    }

    /// How many of the slots are in which state, of each state there is.
    pub fn states(&self) -> BTreeMap<SlotState, usize> {
        let mut states: BTreeMap<_, _> = SlotState::ALL.map(|state| (state, 0)).into();
        for slot in self.slots.borrow().iter() {
            *states.entry(slot.state).or_default() += 1;
        }
        states
    }
}
