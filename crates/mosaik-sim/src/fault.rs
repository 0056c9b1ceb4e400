//! What goes wrong in a cluster, and how it ends.

use std::collections::BTreeSet;

use mosaik_core::limits::TIPS_MAX;
use mosaik_proto::{carrier::Input, hint::Hint};
use rand::RngExt;

use crate::{
    cluster::{Cluster, EPOCH_MS, Timed},
    hostile::branch_run,
    node::{Doom, Nature, Node},
    storage::{Crash, Storage},
    weather::Weather,
};

/// How far a clock may be off when all is well, in milliseconds.
const CLOCKS_OFF_MS: i64 = 120_000;
/// How long a connection that lets nothing through lasts until it is noticed, in milliseconds.
const IDLE_MS: u64 = 8_000;
/// How long a node may stand still and keep its connections, in milliseconds.
const PAUSE_MAX_MS: u64 = 7_000;
/// The key of the author who has more branches than anybody takes.
const CROWD_KEY: [u8; 32] = [7; 32];

impl Cluster {
    /// The faults stop; whoever is down comes up. Who is hostile stays so.
    pub(crate) fn heal(&mut self) {
        self.island.clear();
        let calm = Weather {
            slow: None,
            cut: 0,
            late_end: 0,
            crash: 0,
            stripped: 0,
            ..self.weather.clone()
        };
        self.weather = calm;
        for node in 0..self.nodes.len() {
            self.nodes[node].paused_until_ms = 0;
            self.nodes[node].doom = None;
            self.nodes[node].storage.mend();
            if self.weather.jumps {
                let offset_ms = self.rng.random_range(-CLOCKS_OFF_MS..CLOCKS_OFF_MS);
                self.nodes[node].clock_offset_ms = offset_ms;
            }
            if self.nodes[node].replica.is_none() {
                self.at(self.now_ms, Timed::Restart(node));
            }
        }
    }

    /// A node ends as its doom says, and comes again some time.
    pub(crate) fn crash(&mut self, index: usize) {
        self.tally.crashes += 1;
        if let Some(tell) = self.tell {
            tell(format!("{:>7} n{index} ends: {:?}", self.now_ms, self.nodes[index].doom));
        }
        for end in self.network.ends_of(index) {
            self.close(end);
        }
        let node = &mut self.nodes[index];
        if let Some(replica) = node.replica.take() {
            node.declined = replica.declines().keys().copied().collect();
        }
        node.paused_until_ms = 0;
        let crash = match node.doom.take() {
            Some(Doom::Power) => Crash::Power(&mut self.rng),
            Some(Doom::Kill | Doom::Commit) | None => Crash::Process,
        };
        node.storage.crash(crash);
        let at_ms = self.now_ms + self.rng.random_range(1..10_000);
        self.at(at_ms, Timed::Restart(index));
    }

    /// What goes from one side to the other is cut, at once or without a word.
    pub(crate) fn partition(&mut self) {
        let island = (0..self.nodes.len()).filter(|_| self.rng.random_bool(0.5)).collect();
        self.cut_off(island);
    }

    /// The same, with these on the one side.
    pub(crate) fn cut_off(&mut self, island: BTreeSet<usize>) {
        self.island = island;
        let is_silent = self.rng.random_bool(0.5);
        for (a, b) in self.network.connections() {
            if self.island.contains(&a.node) == self.island.contains(&b.node) {
                continue;
            }
            if is_silent {
                self.network.silence(a);
                let at_ms = self.now_ms + self.rng.random_range(0..IDLE_MS);
                self.at(at_ms, Timed::Dead(a));
            } else {
                self.close(a);
            }
        }
    }

    pub(crate) fn pause(&mut self, index: usize) {
        let pause_ms = self.rng.random_range(1..PAUSE_MAX_MS);
        self.nodes[index].paused_until_ms = self.now_ms + pause_ms;
    }

    pub(crate) fn backup(&mut self, index: usize) {
        self.nodes[index].backup = Some(self.nodes[index].storage.backup());
    }

    /// What was saved is put back: all since then is lost but for what others hold.
    pub(crate) fn restore(&mut self, index: usize) {
        let Some(backup) = self.nodes[index].backup.take() else { return };
        self.tally.copies += 1;
        if self.nodes[index].replica.is_some() {
            self.crash(index);
        }
        let fingerprint = self.nodes[index].config.keys.fingerprint;
        self.nodes[index].storage = Storage::of(&backup, fingerprint);
        let author = self.author(index);
        self.expect_branches(author);
        let mut acknowledged = std::mem::take(&mut self.acknowledged);
        acknowledged.retain(|(author, tip)| {
            let holds = |node: &Node| node.storage.snapshot().find(author, *tip).is_some();
            self.nodes.iter().any(|node| node.nature == Nature::Honest && holds(node))
        });
        self.acknowledged = acknowledged;
        // Whoever was asked may not hold any more what it held.
        self.calls.clear();
    }

    pub(crate) fn clone_node(&mut self) {
        let honest = self.nodes.iter().filter(|node| node.nature == Nature::Honest).count();
        let original = self.rng.random_range(0..honest);
        self.tally.copies += 1;
        let copy = self.add_copy(original);
        let author = self.author(original);
        self.expect_branches(author);
        self.at(self.now_ms + 1, Timed::Restart(copy));
        for _ in 0..3 {
            let at_ms = self.now_ms + self.rng.random_range(1..5_000);
            let writer = if self.rng.random_bool(0.5) { copy } else { original };
            self.at(at_ms, Timed::Append(writer));
        }
    }

    /// Sets a clock ahead, behind, or to where it was never set.
    pub(crate) fn jump(&mut self, node: usize) {
        self.nodes[node].clock_offset_ms = match self.rng.random_range(0..4) {
            0 => self.rng.random_range(0..20 * 60_000),
            1 => -self.rng.random_range(0..24 * 60 * 60_000),
            2 => -(EPOCH_MS as i64),
            _ => self.rng.random_range(-CLOCKS_OFF_MS..CLOCKS_OFF_MS),
        };
    }

    /// Gives each node some branches of one author, who has more than anybody takes.
    pub(crate) fn crowd(&mut self) {
        let from = self.id(0);
        for node in 0..self.nodes.len() {
            if self.nodes[node].nature == Nature::Foreign {
                continue;
            }
            for branch in 0..TIPS_MAX as u16 + 10 {
                if self.rng.random_bool(0.7) {
                    let run = branch_run(&self.nodes[node].hasher, CROWD_KEY, branch);
                    self.expect_branches(run.author());
                    self.step(node, Some(Input::Hint { from, hint: Hint::Run(run) }));
                }
            }
        }
    }
}
