//! A network that is cut into two halves for ten minutes, and grows together again.
//!
//! Intervals are those that a node has by default, dials last as long as real ones, and hints go only
//! where connections lead: after the cut nothing but the nodes' own dials can join the halves.

use std::collections::BTreeSet;

use mosaik_core::id::NodeId;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    Backing, Tally,
    checker::Broken,
    cluster::{Cluster, Timed},
    node::Nature,
    weather::{Gossip, Weather},
};

/// Nodes of the largest cluster.
const NODES_MAX: usize = 20;
/// How long all may take to meet and agree before the cut, in milliseconds.
const MEET_MS: u64 = 300_000;
/// How long the cut lasts, in milliseconds.
pub const CUT_MS: u64 = 600_000;
/// How long the halves may take to be one network again, in milliseconds.
pub const MERGE_MS: u64 = 60_000;
/// How often it is looked at, in milliseconds.
const LOOK_MS: u64 = 100;
/// Interval and jitter of comparisons by default, in milliseconds.
const INTERVAL_MS: u64 = 60_000;
const JITTER_MS: u64 = 30_000;
/// How long a dial lasts that gets no answer, in milliseconds.
const DIAL_MS: u64 = 5_000;
/// Appends on each side of the cut, at the most.
const APPENDS_MAX: u64 = 12;

const MET: &str = "nodes that know each other in a ring meet and agree";
const APART: &str = "a cut keeps its sides apart";
const MERGED: &str = "two halves that were cut apart are one again within a minute";

/// How one seed went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merged {
    /// Nodes in all.
    pub nodes: usize,
    /// Nodes on one side of the cut.
    pub cut_off: usize,
    /// From the end of the cut until all were connected by open sessions and held the same, in ms.
    pub took_ms: u64,
    /// How much happened.
    pub tally: Tally,
}

/// Runs one seed.
///
/// # Errors
///
/// [`Broken`] if the halves are not one within [`MERGE_MS`], or any promise broke on the way.
pub fn check(seed: u64) -> Result<Merged, Broken> {
    Cluster::halves(seed).merge()
}

/// The same, and all that happens is told.
///
/// # Errors
///
/// As [`check`].
pub fn trace(seed: u64, tell: fn(String)) -> Result<Merged, Broken> {
    let mut cluster = Cluster::halves(seed);
    cluster.tell = Some(tell);
    cluster.merge()
}

impl Cluster {
    /// 2 to 20 honest nodes that lose a little, all drawn from `seed`.
    pub fn halves(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let weather = Weather {
            latency_ms: rng.random_range(1..=200),
            slow: None,
            cut: rng.random_range(0..=2),
            late_end: 0,
            crash: 0,
            hint_loss: rng.random_range(0..=10),
            hint_copies: 0,
            hint_late: 0,
            stripped: 0,
            gossip: if rng.random_bool(0.5) { Gossip::Connected } else { Gossip::Nobody },
            dial_loss: rng.random_range(0..=5),
            dial_ms: DIAL_MS,
            jumps: false,
            drift_ppm: 0,
            authors_max: 1000,
            chaos_ms: 0,
        };
        let count = rng.random_range(2..=NODES_MAX);
        let mut cluster = Self::empty(rng, weather, Backing::Model);
        for node in 0..count {
            cluster.add_node(Nature::Honest);
            let config = &mut cluster.nodes[node].config;
            (config.sync_interval_ms, config.sync_jitter_ms) = (INTERVAL_MS, JITTER_MS);
            let at_ms = cluster.rng.random_range(2_000..10_000);
            cluster.at(at_ms, Timed::Append(node));
        }
        cluster
    }

    fn merge(mut self) -> Result<Merged, Broken> {
        // All have started and written something by then.
        self.run_until(10_000);
        self.are_one_within(MEET_MS, MET)?;
        let nodes = self.nodes.len();
        let cut_off = if self.rng.random_bool(0.3) { 1 } else { self.rng.random_range(1..nodes) };
        let mut island = BTreeSet::new();
        while island.len() < cut_off {
            island.insert(self.rng.random_range(0..nodes));
        }
        let end_ms = self.now_ms + CUT_MS;
        for side in [true, false] {
            let of_side = (0..nodes).filter(|node| island.contains(node) == side).collect();
            self.write_during(of_side, end_ms);
        }
        self.cut_off(island);
        self.run_until(end_ms);
        if let Some(broken) = self.broken.take() {
            return Err(broken);
        }
        if self.is_connected() || self.agrees() {
            return Err(Broken { promise: APART, what: "they are one all the time".into() });
        }
        self.island.clear();
        let took_ms = self.are_one_within(MERGE_MS, MERGED)?;
        Ok(Merged { nodes, cut_off, took_ms, tally: self.tally() })
    }

    /// Some of these nodes write until then.
    fn write_during(&mut self, nodes: Vec<usize>, end_ms: u64) {
        for _ in 0..self.rng.random_range(1..=APPENDS_MAX) {
            let node = nodes[self.rng.random_range(0..nodes.len())];
            let at_ms = self.rng.random_range(self.now_ms..end_ms);
            self.at(at_ms, Timed::Append(node));
        }
    }

    /// Lets time go on until all are connected and hold the same: how long that took.
    fn are_one_within(&mut self, ms: u64, promise: &'static str) -> Result<u64, Broken> {
        let from_ms = self.now_ms;
        loop {
            if let Some(broken) = self.broken.take() {
                return Err(broken);
            }
            let is_connected = self.is_connected();
            if is_connected && self.agrees() {
                return Ok(self.now_ms - from_ms);
            }
            if self.now_ms >= from_ms + ms {
                let nodes = self.nodes.len();
                let what =
                    format!("not so {ms} ms later: {nodes} nodes, connected: {is_connected}");
                return Err(Broken { promise, what });
            }
            self.run_until(self.now_ms + LOOK_MS);
        }
    }

    /// Whether open sessions join all nodes.
    fn is_connected(&self) -> bool {
        let open_peers = |node: usize| -> BTreeSet<NodeId> {
            let sessions = self.nodes[node].replica.iter().flat_map(|replica| replica.sessions());
            sessions.filter(|session| session.is_open).map(|session| session.peer).collect()
        };
        let open: Vec<_> = (0..self.nodes.len()).map(open_peers).collect();
        // A session counts when both its ends have it.
        let joined =
            |a: usize, b: usize| open[a].contains(&self.id(b)) && open[b].contains(&self.id(a));
        let mut left: Vec<usize> = (1..self.nodes.len()).collect();
        let mut next = vec![0];
        while let Some(from) = next.pop() {
            next.extend(left.extract_if(.., |node| joined(from, *node)));
        }
        left.is_empty()
    }
}
