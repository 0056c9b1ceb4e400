//! Some hundred clusters in every test run; many more with `mosaik-sim --seeds 0..10000`.

use mosaik_sim::{
    Cluster, Plant,
    checker::{self, Broken},
};

/// How many seeds every test run does: 10 to 20 s on two cores.
const SEEDS: u64 = 500;
/// How many of them a planted bug may survive.
const CANARY_SEEDS: u64 = 200;

#[test]
fn every_cluster_agrees_once_its_faults_have_stopped() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let broken: Vec<String> = std::thread::scope(|scope| {
        let check = |seed| match checker::check(seed) {
            Ok(()) => None,
            Err(Broken(what)) => Some(format!(
                "seed {seed}: {what}\n  again: cargo run --release -p mosaik-sim -- --seeds {seed}..{}",
                seed + 1
            )),
        };
        let workers: Vec<_> = (0..threads)
            .map(|first| {
                let seeds = (first..SEEDS).step_by(threads as usize);
                scope.spawn(move || seeds.filter_map(check).collect::<Vec<_>>())
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no replica panics")).collect()
    });
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// A checker that finds nothing has to be shown something.
#[test]
fn a_node_that_sends_before_it_commits_is_caught() {
    let is_caught =
        |seed| checker::promises(&mut Cluster::new(seed).with(Plant::SendBeforeCommit)).is_err();
    let caught = (0..CANARY_SEEDS).find(|seed| is_caught(*seed));
    assert!(caught.is_some(), "{CANARY_SEEDS} seeds didn't notice");
}
