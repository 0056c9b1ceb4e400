//! Thousands of clusters in every test run; many more with `mosaik-sim --seeds 0..200000`.

use std::sync::atomic::{AtomicU64, Ordering};

use mosaik_sim::{
    Backing, Cluster, Plant,
    checker::{self, Broken},
};

/// How many seeds every test run does on the store model: two to three minutes on two cores.
const MODEL_SEEDS: u64 = 20_000;
/// How many on the real store.
const REDB_SEEDS: u64 = 500;
/// How many of them a planted bug may survive.
const CANARY_SEEDS: u64 = 2_000;

/// What is broken in the first `count` seeds, with the commands that show it again.
fn broken(count: u64, check: impl Fn(u64) -> Result<(), Broken> + Sync) -> Vec<(u64, Broken)> {
    let next = AtomicU64::new(0);
    let work = || {
        let mut broken = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= count {
                return broken;
            }
            broken.extend(check(seed).err().map(|what| (seed, what)));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("it catches panics")).collect()
    })
}

fn all_pass(count: u64, backing: Backing, flag: &str) {
    let broken = broken(count, |seed| checker::check(seed, backing).map(drop));
    let lines = broken.iter().map(|(seed, broken)| {
        let next = seed + 1;
        format!(
            "seed {seed}: {broken}\n  again: cargo run --release -p mosaik-sim -- --seeds {seed}..{next} {flag}"
        )
    });
    assert!(broken.is_empty(), "{}", lines.collect::<Vec<_>>().join("\n"));
}

#[test]
fn every_cluster_keeps_its_promises_on_the_store_model() {
    all_pass(MODEL_SEEDS, Backing::Model, "--redb 0");
}

#[test]
fn every_cluster_keeps_its_promises_on_the_real_store() {
    all_pass(REDB_SEEDS, Backing::Redb, "--redb");
}

/// What seeds that notice a planted bug see broken, one after the other.
fn notices(plant: Plant) -> impl Iterator<Item = Broken> {
    let check = move |seed| {
        checker::promises(|| Cluster::new(seed, Backing::Model).with(plant)).map(drop).err()
    };
    (0..CANARY_SEEDS).filter_map(check)
}

/// A checker that finds nothing has to be shown something.
#[test]
fn a_node_that_sends_before_it_commits_is_caught() {
    let broken = notices(Plant::SendBeforeCommit).next().expect("some seed notices");
    let promises = [
        "a hint names only what its sender can serve",
        "an append is durable when it is acknowledged",
    ];
    assert!(promises.contains(&broken.promise), "{broken}");
}

/// It may also hold something else than others, which some seeds see first.
#[test]
fn a_node_that_does_not_look_for_a_runs_base_is_caught() {
    let mut notices = notices(Plant::SkipBaseCheck);
    assert!(notices.any(|broken| broken.promise == "nothing unverified is stored"));
}
