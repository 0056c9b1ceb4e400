//! What one seed does to its cluster: its weather, and what befalls whom when.

use mosaik_core::id::AuthorId;
use rand::{RngExt, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use crate::{
    cluster::{Cluster, Timed},
    node::{Nature, Temper},
};

/// Appends of one seed at the most.
const APPENDS_MAX: u64 = 24;

/// Whom a hint reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gossip {
    Nobody,
    /// All whom nothing separates from who tells it.
    Everybody,
    /// All to whom a chain of open connections leads.
    Connected,
}

/// What one seed does to its cluster.
#[derive(Debug, Clone)]
pub(crate) struct Weather {
    pub(crate) latency_ms: u64,
    /// The node whose lines are slow, and how many times slower.
    pub(crate) slow: Option<(usize, u64)>,
    /// In a thousand: how often a send cuts its connection at some byte.
    pub(crate) cut: u32,
    /// In a hundred: how often one end of a connection that is gone notices it much later.
    pub(crate) late_end: u32,
    /// In ten thousand: how often a commit fails or the node crashes in it.
    pub(crate) crash: u32,
    /// In a hundred: how often a hint is lost, comes twice, or comes late.
    pub(crate) hint_loss: u32,
    pub(crate) hint_copies: u32,
    pub(crate) hint_late: u32,
    /// In a hundred: how often a run goes over gossip without its payloads.
    pub(crate) stripped: u32,
    pub(crate) gossip: Gossip,
    /// In a hundred: how often a dial gets no answer though somebody is there.
    pub(crate) dial_loss: u32,
    /// How long a dial without an answer lasts.
    pub(crate) dial_ms: u64,
    /// Whether clocks jump.
    pub(crate) jumps: bool,
    /// How far clocks run apart: parts in a million, either way.
    pub(crate) drift_ppm: i64,
    /// Authors that a node takes.
    pub(crate) authors_max: usize,
    pub(crate) chaos_ms: u64,
}

impl Weather {
    pub(crate) fn draw(rng: &mut ChaCha8Rng) -> Self {
        let mut one_of = |of: &[u32]| of.choose(rng).copied().unwrap_or_default();
        let weather = Self {
            latency_ms: one_of(&[1, 20, 300]).into(),
            slow: None,
            cut: one_of(&[0, 5, 60]),
            late_end: one_of(&[0, 0, 30]),
            crash: one_of(&[0, 3, 30]),
            hint_loss: one_of(&[0, 20, 90]),
            hint_copies: one_of(&[0, 0, 30]),
            hint_late: one_of(&[0, 0, 30]),
            stripped: one_of(&[0, 0, 0, 50]),
            gossip: if one_of(&[0, 1]) == 1 { Gossip::Everybody } else { Gossip::Nobody },
            dial_loss: 0,
            dial_ms: 0,
            jumps: one_of(&[0, 0, 0, 0, 0, 1]) == 1,
            drift_ppm: one_of(&[0, 0, 50_000]).into(),
            authors_max: 1000,
            chaos_ms: 0,
        };
        let authors_max = if rng.random_bool(0.03) { 10 } else { weather.authors_max };
        Self { authors_max, chaos_ms: rng.random_range(3_000..40_000), ..weather }
    }
}

impl Cluster {
    /// Draws who takes part: 2 to 8 honest nodes, and some that nobody can trust.
    pub(crate) fn populate(&mut self) {
        // Few are as good as many for most that can go wrong, and cost far less.
        let honest = [2, 3, 3, 3, 4, 4, 5, 8].choose(&mut self.rng).copied().unwrap_or(3);
        (0..honest).for_each(|_| self.add_node(Nature::Honest));
        for share in [0.2, 0.05] {
            if self.rng.random_bool(share) {
                let temper = Temper::ALL.choose(&mut self.rng).copied().unwrap_or(Temper::Liar);
                self.add_node(Nature::Hostile(temper));
            }
        }
        if self.rng.random_bool(0.1) {
            self.add_node(Nature::Foreign);
        }
        if self.rng.random_bool(0.1) {
            let node = self.rng.random_range(0..honest);
            self.weather.slow = Some((node, self.rng.random_range(5..20)));
        }
        self.plan(honest);
    }

    /// Draws when what happens, among the first `honest` nodes.
    fn plan(&mut self, honest: usize) {
        let appends = self.rng.random_range(1..=APPENDS_MAX);
        self.strew(appends, honest, Timed::Append);
        let partitions = self.rng.random_range(0..4);
        self.strew(partitions, honest, |_| Timed::Partition);
        let calls = self.rng.random_range(0..6);
        self.strew(calls, honest, Timed::Call);
        if self.rng.random_bool(0.2) {
            let pauses = self.rng.random_range(1..6);
            self.strew(pauses, honest, Timed::Pause);
        }
        if honest >= 3 && self.rng.random_bool(0.2) {
            let chaos_ms = self.weather.chaos_ms;
            let at_ms = self.rng.random_range(chaos_ms / 2..chaos_ms);
            self.at(at_ms, Timed::Clone);
        }
        if self.rng.random_bool(0.15) {
            self.plan_restore(honest);
        }
        if self.weather.jumps {
            let jumps = self.rng.random_range(1..6);
            self.strew(jumps, honest, Timed::Jump);
        }
        if self.rng.random_bool(0.05) {
            self.strew(1, honest, |_| Timed::Crowd);
        }
    }

    /// Some node's directory is saved, and some time later put back. It writes in between, and after.
    fn plan_restore(&mut self, honest: usize) {
        let node = self.rng.random_range(0..honest);
        let mut at_ms = 0;
        for event in [Timed::Backup, Timed::Append, Timed::Restore, Timed::Append] {
            at_ms = self.rng.random_range(at_ms..self.weather.chaos_ms);
            self.at(at_ms, event(node));
        }
    }

    /// As many events, each at any moment of the chaos, of any honest node.
    fn strew(&mut self, count: u64, honest: usize, event: impl Fn(usize) -> Timed) {
        for _ in 0..count {
            let (node, at_ms) =
                (self.rng.random_range(0..honest), self.rng.random_range(0..self.weather.chaos_ms));
            self.at(at_ms, event(node));
        }
    }

    /// From now on branches of this author are to be expected.
    pub(crate) fn expect_branches(&mut self, author: AuthorId) {
        self.may_branch.insert(author);
    }
}
