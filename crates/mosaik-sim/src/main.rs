//! Runs seeds of the simulator: `mosaik-sim --seeds 0..10000`.

use std::{
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use mosaik_sim::{
    Backing, Tally,
    checker::{self, Broken},
    halves,
};
use serde::Serialize;

/// Many replicas on simulated time, one cluster a seed.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Which seeds to run, FROM..TO.
    #[arg(long, default_value = "0..1000", value_parser = seeds)]
    seeds: Range<u64>,
    /// In a hundred: how many seeds run on the real store, the others on a model of it. Without a
    /// number: all.
    #[arg(
        long,
        value_name = "PERCENT",
        default_value_t = 2,
        num_args = 0..=1,
        default_missing_value = "100",
        value_parser = clap::value_parser!(u64).range(..=100)
    )]
    redb: u64,
    /// Cut networks into two halves for ten minutes, and see them grow together again within one. All
    /// run on the model of the store.
    #[arg(long, conflicts_with = "redb")]
    halves: bool,
    /// Tell all that happens: for one seed.
    #[arg(long)]
    trace: bool,
    /// Give the summary as one JSON document.
    #[arg(long, conflicts_with = "trace")]
    json: bool,
}

fn seeds(text: &str) -> Result<Range<u64>> {
    let (from, to) = text.split_once("..").context("expected FROM..TO")?;
    let range = from.parse()?..to.parse()?;
    if range.is_empty() {
        bail!("no seed in {text}");
    }
    Ok(range)
}

/// All that the seeds came to.
#[derive(Debug, Default, Serialize)]
struct Summary {
    seeds: u64,
    passed: u64,
    on_redb: u64,
    failed: Vec<Failed>,
    took_ms: u64,
    simulated_ms: u64,
    steps: u64,
    crashes: u64,
    connections_cut: u64,
    hints_troubled: u64,
    stores_copied: u64,
    /// With `--halves`: the longest time that two of them took to be one network.
    #[serde(skip_serializing_if = "Option::is_none")]
    longest_merge_ms: Option<u64>,
}

/// What a seed that passed came to.
struct Passed {
    tally: Tally,
    merge_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Failed {
    seed: u64,
    promise: &'static str,
    what: String,
    again: String,
}

impl Args {
    /// The same seeds are on the real store whichever others run.
    fn backing(&self, seed: u64) -> Backing {
        // A prime spreads them: every hundred has its share.
        if !self.halves && (seed * 37) % 100 < self.redb { Backing::Redb } else { Backing::Model }
    }

    #[expect(clippy::print_stdout, reason = "what happens is told where it is asked for")]
    fn check(&self, seed: u64) -> Result<Passed, Broken> {
        let tell: fn(String) = |line| println!("{line}");
        if self.halves {
            let merged = if self.trace { halves::trace(seed, tell) } else { halves::check(seed) };
            return merged.map(|m| Passed { tally: m.tally, merge_ms: Some(m.took_ms) });
        }
        let backing = self.backing(seed);
        let tally = match self.trace {
            true => checker::trace(seed, backing, tell),
            false => checker::check(seed, backing),
        };
        tally.map(|tally| Passed { tally, merge_ms: None })
    }

    fn again(&self, seed: u64) -> String {
        let backing = match self.backing(seed) {
            _ if self.halves => "--halves",
            Backing::Redb => "--redb",
            Backing::Model => "--redb 0",
        };
        let next = seed + 1;
        format!("cargo run --release -p mosaik-sim -- --seeds {seed}..{next} {backing}")
    }
}

impl Summary {
    fn add(&mut self, args: &Args, seed: u64, outcome: Result<Passed, Broken>) {
        self.seeds += 1;
        self.on_redb += u64::from(args.backing(seed) == Backing::Redb);
        match outcome {
            Ok(Passed { tally, merge_ms }) => {
                self.passed += 1;
                self.longest_merge_ms = self.longest_merge_ms.max(merge_ms);
                self.simulated_ms += tally.simulated_ms;
                self.steps += tally.steps;
                self.crashes += tally.crashes;
                self.connections_cut += tally.cuts;
                self.hints_troubled += tally.hints_troubled;
                self.stores_copied += tally.copies;
            }
            Err(Broken { promise, what }) => {
                self.failed.push(Failed { seed, promise, what, again: args.again(seed) });
            }
        }
    }
}

#[expect(clippy::print_stdout, reason = "its output is what it is run for")]
fn main() -> Result<()> {
    let args = Args::parse();
    let summary = run(&args);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        println!(
            "{} of {} seeds passed, {} of them on redb, in {:.1} s: {:.0} simulated hours, {} crashes",
            summary.passed,
            summary.seeds,
            summary.on_redb,
            summary.took_ms as f64 / 1000.0,
            summary.simulated_ms as f64 / 3_600_000.0,
            summary.crashes,
        );
        if let Some(merge_ms) = summary.longest_merge_ms {
            println!("two halves were one network after {:.1} s at most", merge_ms as f64 / 1000.0);
        }
    }
    if !summary.failed.is_empty() {
        bail!("{} seeds failed", summary.failed.len());
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "its output is what it is run for")]
fn run(args: &Args) -> Summary {
    let started = Instant::now();
    let next = AtomicU64::new(args.seeds.start);
    let summary = Mutex::new(Summary::default());
    let progress = progress(args);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= args.seeds.end {
                break;
            }
            let outcome = args.check(seed);
            if let Err(broken) = &outcome
                && !args.json
            {
                let again = args.again(seed);
                progress.suspend(|| println!("seed {seed}: {broken}\n  again: {again}"));
            }
            progress.inc(1);
            summary.lock().unwrap_or_else(PoisonError::into_inner).add(args, seed, outcome);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    progress.finish_and_clear();
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.failed.sort_unstable_by_key(|failed| failed.seed);
    summary.took_ms = started.elapsed().as_millis() as u64;
    summary
}

/// Shown on a terminal only.
fn progress(args: &Args) -> ProgressBar {
    let bar = match args.trace {
        true => ProgressBar::hidden(),
        false => ProgressBar::new(args.seeds.end - args.seeds.start),
    };
    let template = "{bar:30} {pos} of {len} seeds, {per_sec}, {eta} left";
    let style = ProgressStyle::with_template(template);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
