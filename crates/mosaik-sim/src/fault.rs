//! What goes wrong in a cluster, and how it ends.

use ed25519_dalek::SigningKey;
use mosaik_core::{
    event::{Event, Hasher, Kind, Payload},
    feed::Tip,
    hlc::Hlc,
    id::AuthorId,
    limits::TIPS_MAX,
    run::VerifiedRun,
};
use mosaik_proto::{carrier::Input, hint::Hint};
use rand::RngExt;

use crate::cluster::{Cluster, EPOCH_MS, Nature, Timed, Weather};

/// How far a clock may be off when all is well, in milliseconds.
const CLOCKS_OFF_MS: i64 = 120_000;

impl Cluster {
    /// The faults stop; whoever is down comes up. Who is hostile stays so.
    pub(crate) fn heal(&mut self) {
        self.island.clear();
        self.weather = Weather { cut: 0, crash: 0, stripped: 0, ..self.weather.clone() };
        for node in 0..self.nodes.len() {
            if self.weather.jumps {
                let offset_ms = self.rng.random_range(-CLOCKS_OFF_MS..CLOCKS_OFF_MS);
                self.nodes[node].clock_offset_ms = offset_ms;
            }
            if self.nodes[node].replica.is_none() {
                self.at(self.now_ms, Timed::Restart(node));
            }
        }
    }

    pub(crate) fn crash(&mut self, index: usize) {
        self.nodes[index].ledger.crash();
        self.nodes[index].replica = None;
        for end in self.network.ends_of(index) {
            self.close(end);
        }
        let at_ms = self.now_ms + self.rng.random_range(1..10_000);
        self.at(at_ms, Timed::Restart(index));
    }

    pub(crate) fn partition(&mut self) {
        self.island = (0..self.nodes.len()).filter(|_| self.rng.random_bool(0.5)).collect();
        for (a, b) in self.network.connections() {
            if self.island.contains(&a.node) != self.island.contains(&b.node) {
                self.close(a);
            }
        }
    }

    pub(crate) fn clone_node(&mut self) {
        let honest = self.nodes.iter().filter(|node| node.nature == Nature::Honest).count();
        let original = self.rng.random_range(0..honest);
        let copy = self.add_copy(original);
        self.may_branch = true;
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
        self.may_branch = true;
        let from = self.id(0);
        for node in 0..self.nodes.len() {
            if self.nodes[node].nature == Nature::Foreign {
                continue;
            }
            for branch in 0..TIPS_MAX as u8 + 10 {
                if self.rng.random_bool(0.7) {
                    let run = crowded_run(&self.nodes[node].hasher, branch);
                    self.step(node, Some(Input::Hint { from, hint: Hint::Run(run) }));
                }
            }
        }
    }
}

/// Three events that all branches share, and one that tells them apart.
fn crowded_run(hasher: &Hasher, branch: u8) -> VerifiedRun {
    let key = SigningKey::from_bytes(&[7; 32]);
    let author = AuthorId(key.verifying_key().to_bytes());
    let kind = Kind::new("app.crowd").expect("a kind");
    let mut last = Tip::ROOT;
    let mut events = Vec::new();
    for (seq, mark) in [(1, 0), (2, 0), (3, 0), (4, branch)] {
        let (hlc, payload) = (Hlc::new(EPOCH_MS + seq, 0), Payload::Present(vec![mark]));
        let id = hasher.id(&author, seq, &last.id, hlc, &kind, &payload);
        events.push(Event { id, author, seq, prev: last.id, hlc, kind: kind.clone(), payload });
        last = Tip { seq, id };
    }
    VerifiedRun::sign(&key, events)
}
