//! A cluster of real replicas on simulated time: one thread, one heap of timed events, one seed.
//!
//! Each seed draws its own mix: how many nodes, how slow and how faulty, and who is among them that
//! nobody can trust. First chaos, then the faults stop, then all must agree. Faults fall at any
//! moment, also between a commit and the frames that it lets go.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    sync::Arc,
};

use mosaik_core::{
    feed::Tip,
    id::{AuthorId, NodeId},
};
use mosaik_proto::{carrier::Input, hint::Hint};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    call::Call,
    checker::Broken,
    hostile::hostile_authors,
    network::{Decoded, End, Network},
    node::{Nature, Node},
    storage::Backing,
    weather::Weather,
};

/// Unix ms at the start of every simulation.
pub(crate) const EPOCH_MS: u64 = 1_800_000_000_000;
/// Interval and jitter of comparisons, in milliseconds.
pub(crate) const INTERVAL_MS: u64 = 10_000;
pub(crate) const JITTER_MS: u64 = 5_000;

/// A bug that is put in on purpose, to see that the checker finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// Effects are carried out before what they tell of is durable.
    SendBeforeCommit,
    /// A run is taken whatever event is held at the place of its base.
    SkipBaseCheck,
}

/// What happens at some moment.
pub(crate) enum Timed {
    /// A node's own timeout.
    Wake(usize),
    /// A node comes up again.
    Restart(usize),
    /// The next bytes under way reach one end of a connection.
    Bytes(End),
    /// The carrier at one end has sent that many bytes.
    Sent(End, usize),
    /// A connection is gone, as one end sees it.
    Closed(End),
    /// A connection over which nothing goes any more is noticed to be dead.
    Dead(End),
    /// A dial arrives, or fails.
    Dial(usize, NodeId),
    /// A dial got no answer in its time.
    NoAnswer(usize, NodeId),
    /// A hint reaches a node.
    Hint(usize, NodeId, Arc<Hint>),
    /// A node has a new gossip neighbour.
    Neighbour(usize, NodeId),
    /// Somebody writes.
    Append(usize),
    /// Two groups of nodes can't reach each other, until the next such moment.
    Partition,
    /// A node's directory is copied, and the copy started.
    Clone,
    /// A node's directory is saved, to be put back some time.
    Backup(usize),
    /// What was saved of a node's directory is put back.
    Restore(usize),
    /// Somebody waits to be synced.
    Call(usize),
    /// A node's clock jumps.
    Jump(usize),
    /// A node does nothing for a while.
    Pause(usize),
    /// An author has more branches than anybody takes.
    Crowd,
}

/// A moment and what happens then; of one moment the first that was planned goes first.
struct Planned {
    at: (u64, u64),
    event: Timed,
}

/// How much happened: that a seed's faults did fall.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Batches that nodes took.
    pub steps: u64,
    /// Nodes that ended in the middle of something.
    pub crashes: u64,
    /// Connections that were cut or timed out.
    pub cuts: u64,
    /// Hints lost, doubled or late.
    pub hints_troubled: u64,
    /// Directories copied or put back.
    pub copies: u64,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
}

/// See the module's head.
pub struct Cluster {
    pub(crate) now_ms: u64,
    pub(crate) backing: Backing,
    pub(crate) nodes: Vec<Node>,
    /// Every append that was acknowledged, and not lost with a disk that was replaced.
    pub(crate) acknowledged: Vec<(AuthorId, Tip)>,
    /// Authors of whom branches are to be expected: a directory was copied, or they are hostile.
    pub(crate) may_branch: BTreeSet<AuthorId>,
    pub(crate) weather: Weather,
    /// Where all that happens is told, if anywhere.
    pub(crate) tell: Option<fn(String)>,
    pub(crate) plant: Option<Plant>,
    pub(crate) network: Network,
    /// Frames of runs that were decoded before.
    pub(crate) decoded: Decoded,
    pub(crate) rng: ChaCha8Rng,
    /// Which nodes are cut off from the others.
    pub(crate) island: BTreeSet<usize>,
    pub(crate) appended: u64,
    /// Calls that wait.
    pub(crate) calls: Vec<Call>,
    /// The first promise that was seen broken while it ran.
    pub(crate) broken: Option<Broken>,
    pub(crate) tally: Tally,
    /// Runs that the network or somebody hostile sent once more.
    pub(crate) doubled: u64,
    planned: BinaryHeap<Reverse<Planned>>,
    next_number: u64,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("now_ms", &self.now_ms)
            .field("nodes", &self.nodes)
            .finish_non_exhaustive()
    }
}

impl Timed {
    /// The node whose own affair this is: it happens later if that one is paused.
    fn concerns(&self) -> Option<usize> {
        match self {
            Self::Wake(node) | Self::Append(node) | Self::Call(node) => Some(*node),
            Self::Bytes(end) | Self::Sent(end, _) | Self::Closed(end) => Some(end.node),
            Self::Dial(node, _)
            | Self::NoAnswer(node, _)
            | Self::Hint(node, ..)
            | Self::Neighbour(node, _) => Some(*node),
            Self::Restart(_)
            | Self::Dead(_)
            | Self::Partition
            | Self::Clone
            | Self::Backup(_)
            | Self::Restore(_)
            | Self::Jump(_)
            | Self::Pause(_)
            | Self::Crowd => None,
        }
    }

    /// What befalls whom, in a few words.
    fn fault(&self) -> Option<String> {
        Some(match self {
            Self::Restart(node) => format!("n{node} starts"),
            Self::Partition => "a partition".into(),
            Self::Clone => "a copy of a directory".into(),
            Self::Backup(node) => format!("n{node} is saved"),
            Self::Restore(node) => format!("n{node} is put back"),
            Self::Jump(node) => format!("n{node}'s clock jumps"),
            Self::Pause(node) => format!("n{node} stands still"),
            Self::Crowd => "an author is crowded".into(),
            _ => return None,
        })
    }
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl Cluster {
    /// A cluster of 2 to 8 honest nodes and some that nobody can trust, all drawn from `seed`.
    pub fn new(seed: u64, backing: Backing) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let weather = Weather::draw(&mut rng);
        let mut cluster = Self::empty(rng, weather, backing);
        cluster.populate();
        cluster
    }

    /// Nobody yet, under this weather.
    pub(crate) fn empty(rng: ChaCha8Rng, weather: Weather, backing: Backing) -> Self {
        Self {
            now_ms: 0,
            backing,
            nodes: Vec::new(),
            acknowledged: Vec::new(),
            may_branch: hostile_authors().into(),
            weather,
            tell: None,
            plant: None,
            network: Network::default(),
            decoded: BTreeMap::new(),
            rng,
            island: BTreeSet::new(),
            appended: 0,
            calls: Vec::new(),
            broken: None,
            tally: Tally::default(),
            doubled: 0,
            planned: BinaryHeap::new(),
            next_number: 0,
        }
    }

    /// Puts a bug in.
    #[must_use]
    pub fn with(self, plant: Plant) -> Self {
        Self { plant: Some(plant), ..self }
    }

    /// How much has happened.
    pub fn tally(&self) -> Tally {
        Tally { simulated_ms: self.now_ms, ..self.tally }
    }

    /// Runs the chaos, then lets all come back and gives them `rounds` intervals. Whether all agree.
    pub(crate) fn run(&mut self, rounds: u64) -> bool {
        self.run_until(self.weather.chaos_ms);
        self.heal();
        for _ in 0..rounds {
            self.run_round();
            if self.broken.is_some() || self.agrees() {
                return true;
            }
        }
        false
    }

    /// One interval with its jitter: every session compares at least once.
    pub(crate) fn run_round(&mut self) {
        self.run_until(self.now_ms + INTERVAL_MS + JITTER_MS);
    }

    pub(crate) fn run_until(&mut self, end_ms: u64) {
        while self.broken.is_none()
            && let Some(Reverse(next)) = self.planned.peek()
            && next.at.0 <= end_ms
        {
            let Some(Reverse(Planned { at: (at_ms, _), event })) = self.planned.pop() else {
                break;
            };
            self.now_ms = self.now_ms.max(at_ms);
            self.happen(event);
        }
        self.now_ms = end_ms;
    }

    pub(crate) fn at(&mut self, at_ms: u64, event: Timed) {
        self.planned.push(Reverse(Planned { at: (at_ms, self.next_number), event }));
        self.next_number += 1;
    }

    /// After the time that a word takes on a node's lines.
    pub(crate) fn soon(&mut self, node: usize, event: Timed) {
        let at_ms = self.now_ms + self.delay_ms(node, node);
        self.at(at_ms, event);
    }

    /// How long a word takes between two nodes, drawn anew.
    pub(crate) fn delay_ms(&mut self, from: usize, to: usize) -> u64 {
        let slower = match self.weather.slow {
            Some((node, times)) if node == from || node == to => times,
            _ => 1,
        };
        self.rng.random_range(0..=self.weather.latency_ms * 2 * slower)
    }

    fn happen(&mut self, event: Timed) {
        if let Some(node) = event.concerns()
            && self.nodes[node].paused_until_ms > self.now_ms
        {
            return self.at(self.nodes[node].paused_until_ms, event);
        }
        if let Some(tell) = self.tell
            && let Some(fault) = event.fault()
        {
            tell(format!("{:>7} {fault}", self.now_ms));
        }
        match event {
            Timed::Wake(node) => self.wake(node),
            Timed::Restart(node) => self.start(node),
            Timed::Bytes(end) => self.receive(end),
            Timed::Sent(end, bytes) => {
                self.step(end.node, Some(Input::Sent { session: end.session, bytes }));
            }
            Timed::Closed(end) => self.closed(end),
            Timed::Dead(end) => self.close(end),
            Timed::Dial(from, to) => self.dial(from, to),
            Timed::NoAnswer(from, to) => self.no_answer(from, to),
            Timed::Hint(node, from, hint) => {
                let hint = Arc::unwrap_or_clone(hint);
                self.step(node, Some(Input::Hint { from, hint }));
            }
            Timed::Neighbour(node, peer) => {
                self.step(node, Some(Input::Neighbour { peer, up: true }));
            }
            Timed::Append(node) => self.append(node),
            Timed::Partition => self.partition(),
            Timed::Clone => self.clone_node(),
            Timed::Backup(node) => self.backup(node),
            Timed::Restore(node) => self.restore(node),
            Timed::Call(node) => self.call(node),
            Timed::Jump(node) => self.jump(node),
            Timed::Pause(node) => self.pause(node),
            Timed::Crowd => self.crowd(),
        }
    }

    /// Whether anybody hostile takes part.
    pub(crate) fn has_hostile(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node.nature, Nature::Hostile(_)))
    }
}
