//! Runs seeds of the simulator: `mosaik-sim --seeds 0..10000`.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use mosaik_sim::checker;

/// Many replicas on simulated time, one cluster a seed.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Which seeds to run, FROM..TO.
    #[arg(long, default_value = "0..1000", value_parser = seeds)]
    seeds: Range<u64>,
    /// Tell all that happens: for one seed.
    #[arg(long)]
    trace: bool,
}

fn seeds(text: &str) -> Result<Range<u64>> {
    let (from, to) = text.split_once("..").context("expected FROM..TO")?;
    let range = from.parse()?..to.parse()?;
    if range.is_empty() {
        bail!("no seed in {text}");
    }
    Ok(range)
}

#[expect(clippy::print_stdout, reason = "its output is what it is run for")]
fn main() -> Result<()> {
    let args = Args::parse();
    let next = AtomicU64::new(args.seeds.start);
    let broken = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= args.seeds.end {
                        break;
                    }
                    let outcome = if args.trace {
                        checker::trace(seed, |line| println!("{line}"))
                    } else {
                        checker::check(seed)
                    };
                    if let Err(checker::Broken(what)) = outcome {
                        broken.fetch_add(1, Ordering::Relaxed);
                        println!("seed {seed}: {what}");
                        println!(
                            "  again: cargo run --release -p mosaik-sim -- --seeds {seed}..{}",
                            seed + 1
                        );
                    }
                }
            });
        }
    });
    let (count, broken) = (args.seeds.end - args.seeds.start, broken.into_inner());
    println!("{} of {count} seeds passed", count - broken);
    if broken > 0 {
        bail!("{broken} seeds failed");
    }
    Ok(())
}
