//! `mosaik-lab bench`: workloads with real nodes, beside what this machine can do at all.
//!
//! Every figure is measured in this run; where there is a limit of the machine for it, that is
//! measured in the same run too, on the same disk, so that the figure stands as a share of it.
//! A target that is missed is printed, and is no error.

mod append;
pub mod bootstrap;
mod catch_up;
mod compare;
mod connections;
mod day;
pub mod figure;
mod fill;
mod idle;
mod limits;
mod member;
pub mod place;
mod probe;
mod radio;
mod scrape;
mod spread;
mod wire;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::ValueEnum;

use self::{figure::Report, place::Place};
use crate::lock::Lock;

/// How long to wait for others' clusters on this machine: they would take its cores.
const TURN_MAX: std::time::Duration = std::time::Duration::from_secs(20 * 60);

#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// What is no workload, and measured by itself; without it all workloads are.
    #[arg(value_enum, conflicts_with_all = ["quick", "only", "events"])]
    part: Option<Part>,
    /// All but the cases of a million events.
    #[arg(long)]
    quick: bool,
    /// One JSON object a figure and a line, rather than a table.
    #[arg(long)]
    json: bool,
    /// Only these workloads, as W1,limits.
    #[arg(long, value_enum, ignore_case = true, value_delimiter = ',', value_name = "NAME,...")]
    only: Vec<Workload>,
    /// So many events rather than each workload's own numbers of them.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    events: Option<u64>,
    /// On which disk: a directory in which a temporary one is made; otherwise the system's.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// A part that takes long, or that says nothing of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// How soon nodes find each other through the DHT.
    Bootstrap,
    /// What an idle day costs in bytes: takes 22 minutes.
    Day,
    /// What connections that others open cost a node.
    Connections,
    /// What a sync costs on air.
    Radio,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// What disk, processor and loopback do alone.
    Limits,
    /// Cold catch-up between two processes.
    #[value(name = "W1")]
    W1,
    /// Comparing what is equal, or nearly so.
    #[value(name = "W2")]
    W2,
    /// Durable appends.
    #[value(name = "W3")]
    W3,
    /// From an append to the others.
    #[value(name = "W4")]
    W4,
    /// A node that has nothing to do.
    Idle,
}

/// What is asked of every workload.
struct Run {
    report: Report,
    place: Place,
    /// Whether cases of a million events are left out.
    quick: bool,
    /// In place of a workload's own numbers of events.
    events: Option<u64>,
}

pub(crate) async fn bench(asked: Bench) -> Result<()> {
    tokio::select! {
        done = measure(asked) => done,
        _ = tokio::signal::ctrl_c() => bail!("interrupted; all processes are stopped"),
    }
}

async fn measure(asked: Bench) -> Result<()> {
    figure::progress("waiting for this machine's turn");
    let _turn = Lock::take(TURN_MAX).await?;
    figure::progress("building mosaik-node");
    tokio::task::spawn_blocking(crate::binary::node_binary).await??;
    let place = Place::new(asked.dir.as_deref())?;
    let report = Report::new(asked.json);
    let mut run = Run { report, place, quick: asked.quick, events: asked.events };
    let chosen = |workload| asked.only.is_empty() || asked.only.contains(&workload);
    run.report.begin(&run.place)?;
    if let Some(part) = asked.part {
        match part {
            Part::Bootstrap => bootstrap::all(&mut run).await?,
            Part::Day => day::all(&mut run).await?,
            Part::Connections => connections::all(&mut run).await?,
            Part::Radio => radio::all(&mut run).await?,
        }
        run.report.end();
        return Ok(());
    }
    if chosen(Workload::W2) {
        compare::frontier(&mut run)?;
    }
    if chosen(Workload::Limits) {
        limits::all(&mut run).await?;
    }
    if chosen(Workload::W1) {
        catch_up::all(&mut run).await?;
    }
    if chosen(Workload::W2) {
        compare::all(&mut run).await?;
    }
    if chosen(Workload::W3) {
        Box::pin(append::all(&mut run)).await?;
    }
    if chosen(Workload::W4) {
        spread::all(&mut run).await?;
    }
    if chosen(Workload::Idle) {
        idle::all(&mut run).await?;
    }
    run.report.end();
    Ok(())
}
