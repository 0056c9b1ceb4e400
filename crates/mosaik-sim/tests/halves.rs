//! Networks that were cut in two grow together again by themselves.

use mosaik_sim::halves;

/// How many networks are cut.
const SEEDS: u64 = 100;

#[test]
fn two_halves_cut_apart_for_ten_minutes_are_one_network_a_minute_later() {
    let runs: Vec<_> = (0..SEEDS).map(|seed| (seed, halves::check(seed))).collect();
    let broken = runs.iter().filter_map(|(seed, run)| Some((seed, run.as_ref().err()?)));
    let lines: Vec<String> = broken
        .map(|(seed, broken)| {
            let next = seed + 1;
            let again =
                format!("cargo run --release -p mosaik-sim -- --halves --seeds {seed}..{next}");
            format!("seed {seed}: {broken}\n  again: {again}")
        })
        .collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
    // The seeds draw what they are to: large and small, one against the rest, and records to fetch.
    let merged: Vec<_> = runs.into_iter().filter_map(|(_, run)| run.ok()).collect();
    assert!(merged.iter().any(|run| run.nodes == 2) && merged.iter().any(|run| run.nodes == 20));
    assert!(merged.iter().any(|run| run.nodes > 2 && run.cut_off == 1));
}
