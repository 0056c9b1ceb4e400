//! The promises, as code: what must hold of every cluster, while its faults fall and once they have
//! stopped.
//!
//! [`PROMISES`] are looked at when the faults have stopped. The others are looked at whenever
//! something happens that could break them: [`HINTS`], [`DURABLE`], [`STAMPS`], [`SYNCED`],
//! [`BOUNDS`], [`CALM`].

mod fold;
mod held;
mod moment;

use std::{
    collections::BTreeSet,
    panic::{self, AssertUnwindSafe},
};

use mosaik_core::{id::AuthorId, trie::Prefix};
use mosaik_proto::{peers::PeerState, replica::Replica};

pub use crate::storage::Backing;
use crate::{
    cluster::{Cluster, Tally},
    network::End,
    node::{Nature, Node, Temper},
    storage::Storage,
};

/// Intervals that a healed cluster may take until all agree: a node that was blocked by back-off
/// meets its next peer in one, news cross the ring in the rest.
const ROUNDS_MAX: u64 = 40;
/// Intervals beyond that until the last event from a clock that was ahead counts.
const ROUNDS_AHEAD_MAX: u64 = 30;
/// Intervals until all that is under way has ended.
const IDLE_ROUNDS_MAX: u64 = 6;
/// Bytes that one end of a connection may send in an interval in which nothing is new: a greeting and
/// a comparison of equals are less.
const IDLE_BYTES_MAX: usize = 300;
/// Runs that may come again in any case: a node that has just started has taken none.
const DUPLICATES_FREE: u64 = 20;

/// Something that always holds once the faults have stopped.
struct Promise {
    name: &'static str,
    holds: fn(&mut Cluster) -> Result<(), String>,
}

/// Looked at in this order; the last of them lets time go on.
const PROMISES: [Promise; 8] = [
    Promise {
        name: "all honest nodes reach equal frontiers and views, but for declined authors",
        holds: |cluster| {
            let more = if cluster.weather.jumps { ROUNDS_AHEAD_MAX } else { 0 };
            cluster.all_agree_within(ROUNDS_MAX + more)
        },
    },
    Promise { name: "no acknowledged append is lost", holds: |cluster| cluster.nothing_is_lost() },
    Promise { name: "nothing unverified is stored", holds: |cluster| cluster.all_is_verified() },
    Promise {
        name: "a feed has branches only where its key was used twice",
        holds: |cluster| cluster.nobody_branches(),
    },
    Promise {
        name: "the view is what the held events say, in whatever order they came",
        holds: |cluster| cluster.the_view_is_right(),
    },
    Promise {
        name: "what comes again stays within what is new",
        holds: |cluster| cluster.little_comes_twice(),
    },
    Promise {
        name: "nobody honest is blamed, and nobody foreign gets in",
        holds: |cluster| cluster.nobody_is_blamed(),
    },
    Promise {
        name: "where all is equal an interval costs next to nothing",
        holds: |cluster| cluster.idle_is_cheap(),
    },
];

/// Looked at when something is told.
pub(crate) const HINTS: &str = "a hint names only what its sender can serve";
/// Looked at when an append is acknowledged.
pub(crate) const DURABLE: &str = "an append is durable when it is acknowledged";
/// Looked at when an append is acknowledged.
pub(crate) const STAMPS: &str = "a stamp is above all that its writer has written and seen";
/// Looked at when a comparison has ended.
pub(crate) const SYNCED: &str =
    "synced means: a comparison that began after the call has ended, and all it showed is here";
/// Looked at after each batch.
pub(crate) const BOUNDS: &str = "a node holds no more than its bounds, whatever it is told";
/// Of everything, always.
const CALM: &str = "nothing panics";

/// What a seed broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which promise.
    pub promise: &'static str,
    /// How.
    pub what: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}

/// Runs one seed. How much happened in it.
///
/// # Errors
///
/// [`Broken`] with the promise that doesn't hold.
pub fn check(seed: u64, backing: Backing) -> Result<Tally, Broken> {
    promises(|| Cluster::new(seed, backing))
}

/// Runs one seed and tells all that happens, and how the cluster ends.
///
/// # Errors
///
/// As [`check`].
pub fn trace(seed: u64, backing: Backing, tell: fn(String)) -> Result<Tally, Broken> {
    promises(|| {
        let mut cluster = Cluster::new(seed, backing);
        cluster.tell = Some(tell);
        cluster
    })
}

/// Runs a cluster and holds it to all promises.
///
/// # Errors
///
/// As [`check`].
pub fn promises(cluster: impl FnOnce() -> Cluster) -> Result<Tally, Broken> {
    let run = AssertUnwindSafe(|| {
        let mut cluster = cluster();
        let outcome = PROMISES.iter().try_for_each(|promise| cluster.keep(promise));
        if let Some(tell) = cluster.tell {
            tell(cluster.to_string());
        }
        outcome.map(|()| cluster.tally())
    });
    panic::catch_unwind(run).unwrap_or_else(|panicked| {
        let what = match panicked.downcast::<String>() {
            Ok(text) => *text,
            Err(other) => other.downcast::<&str>().map_or("a panic".into(), |text| (*text).into()),
        };
        Err(Broken { promise: CALM, what })
    })
}

impl Cluster {
    fn keep(&mut self, promise: &Promise) -> Result<(), Broken> {
        let held = (promise.holds)(self);
        // What was seen first counts: it may be the cause of the rest.
        match (self.broken.take(), held) {
            (Some(broken), _) => Err(broken),
            (None, Err(what)) => Err(Broken { promise: promise.name, what }),
            (None, Ok(())) => Ok(()),
        }
    }

    /// Notes a promise that was broken; the first one counts.
    pub(crate) fn break_promise(&mut self, promise: &'static str, what: String) {
        self.broken.get_or_insert(Broken { promise, what });
    }

    fn honest(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes.iter().enumerate().filter(|(_, node)| node.nature == Nature::Honest)
    }

    fn replicas(&self) -> impl Iterator<Item = (usize, &Replica, &Storage)> {
        self.honest()
            .filter_map(|(index, node)| Some((index, node.replica.as_deref()?, &node.storage)))
    }

    /// Authors that some honest node declines: of them nothing is promised.
    pub(crate) fn declined(&self) -> BTreeSet<AuthorId> {
        let down = self.honest().filter(|(_, node)| node.replica.is_none());
        let down = down.flat_map(|(_, node)| node.declined.iter().copied());
        let up = self.replicas().flat_map(|(_, replica, _)| replica.declines().keys().copied());
        up.chain(down).collect()
    }

    /// Whether some honest author is declined: then views may differ by what it wrote.
    fn views_may_differ(&self, declined: &BTreeSet<AuthorId>) -> bool {
        self.honest().any(|(index, _)| declined.contains(&self.author(index)))
    }

    /// Whether all honest nodes have equal frontiers and view digests.
    pub(crate) fn agrees(&self) -> bool {
        let declined = self.declined();
        let views_may_differ = self.views_may_differ(&declined);
        // A payload that went with a disk which was replaced is lacked by all.
        let may_lack = self.tally.copies > 0;
        let mut states = BTreeSet::new();
        for (_, replica, storage) in self.replicas() {
            // The tips themselves: hashes are what nodes compare, and what may be wrong.
            let feeds = replica.frontier().under(&Prefix::EMPTY, &declined);
            let tips: Vec<_> = feeds.iter().map(|(author, feed)| (*author, feed.tips())).collect();
            let mut view = ([0; 32], 0, 0);
            if !views_may_differ {
                let snapshot = storage.snapshot();
                let counts = snapshot.counts();
                view = (snapshot.digest(), counts.missing, counts.held_back);
            }
            states.insert((tips, view));
        }
        states.len() == 1
            && states
                .iter()
                .all(|(_, (_, missing, held_back))| (*missing == 0 || may_lack) && *held_back == 0)
            && self.replicas().count() == self.honest().count()
    }

    fn all_agree_within(&mut self, rounds: u64) -> Result<(), String> {
        match self.run(rounds) {
            true => Ok(()),
            false => Err(format!("not so {rounds} rounds after the last fault")),
        }
    }

    fn nothing_is_lost(&mut self) -> Result<(), String> {
        let declined = self.declined();
        for (author, tip) in &self.acknowledged {
            let lacks = |storage: &Storage| storage.snapshot().find(author, *tip).is_none();
            let mut lacking = self.replicas().filter(|(.., storage)| lacks(storage));
            // Whoever declines an author needn't hold its feed; it itself does.
            let is_lost = match declined.contains(author) {
                true => lacking.count() == self.replicas().count(),
                false => lacking.next().is_some(),
            };
            if is_lost {
                return Err(format!("some node lacks seq {} of {}", tip.seq, author.short()));
            }
        }
        Ok(())
    }

    fn nobody_branches(&mut self) -> Result<(), String> {
        for (index, replica, _) in self.replicas() {
            for (author, feed) in replica.frontier().under(&Prefix::EMPTY, &self.may_branch) {
                if feed.branches().len() > 1 {
                    return Err(format!("node {index} holds a branch of {}", author.short()));
                }
            }
        }
        Ok(())
    }

    fn little_comes_twice(&mut self) -> Result<(), String> {
        let totals = self.replicas().map(|(_, replica, _)| replica.totals());
        let (taken, again) =
            totals.fold((0, 0), |sum, t| (sum.0 + t.runs_taken, sum.1 + t.runs_duplicate));
        // What was under way when a connection broke comes again on the next one.
        let free = self.doubled + self.tally.cuts + DUPLICATES_FREE;
        if !self.has_hostile() && again > taken + free {
            return Err(format!("{again} runs came again, {taken} were new"));
        }
        Ok(())
    }

    fn nobody_is_blamed(&mut self) -> Result<(), String> {
        for (index, replica, _) in self.replicas() {
            let violations = replica.totals().violations;
            if violations > 0 && !self.has_hostile() {
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

    /// Once what was under way has ended; also of authors that some decline. Payloads that nobody has
    /// any more are asked for in every interval, and whoever floods all with branches writes on.
    fn idle_is_cheap(&mut self) -> Result<(), String> {
        let lacks = |storage: &Storage| storage.snapshot().counts().missing > 0;
        let is_flooded = self.nodes.iter().any(|n| n.nature == Nature::Hostile(Temper::Flooder));
        if is_flooded {
            return Ok(());
        }
        let mut most = (0, 0);
        for round in 0..=IDLE_ROUNDS_MAX {
            // Looked at each time: the rounds before may have brought a feed that was pruned.
            if self.replicas().any(|(.., storage)| lacks(storage)) {
                return Ok(());
            }
            if round == IDLE_ROUNDS_MAX {
                break;
            }
            self.network.take_sent();
            self.run_round();
            let sent = self.network.take_sent();
            let is_honest = |end: &End| self.nodes[end.node].nature == Nature::Honest;
            let of_honest = sent.into_iter().filter(|((a, b), _)| is_honest(a) && is_honest(b));
            most = of_honest.map(|((end, _), bytes)| (bytes, end.node)).max().unwrap_or_default();
            if most.0 < IDLE_BYTES_MAX {
                return Ok(());
            }
        }
        let (bytes, node) = most;
        Err(format!("node {node} sent {bytes} bytes in an idle interval"))
    }
}
