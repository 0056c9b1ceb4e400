//! The command line of `mosaik-lab`: clusters of real nodes on this machine, for a person to look at.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{bench, demo, logs, print, probe, up};

/// Clusters of real mosaik-node processes on one machine, without internet.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a local DHT, a local relay and N nodes that know only a network id; Ctrl-C stops all.
    Up(Up),
    /// Show what node N of the running lab prints.
    Logs(Logs),
    /// Tell the story in under a minute: join by id, islands, a crash, convergence.
    Demo,
    /// Kill and start nodes, send a probe, and hold its report against what the nodes logged.
    Probe(Probe),
    /// Measure what nodes do beside what this machine can do, and print a table.
    Bench(bench::Bench),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// How many nodes.
    #[arg(value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) nodes: u32,
    /// A variable in every node's environment, as MOSAIK_SYNC_INTERVAL=5; repeatable.
    #[arg(short, long = "env", value_name = "K=V", value_parser = parse_pair)]
    pub(crate) env: Vec<(String, String)>,
    /// The network id that the nodes are told; otherwise a new one, or the one that DIR had before.
    #[arg(long, value_name = "ID")]
    pub(crate) network: Option<String>,
    /// Start no relay: the nodes reach each other directly or not at all.
    #[arg(long)]
    pub(crate) no_relay: bool,
    /// Where logs and data go, and stay; otherwise a temporary directory, removed at the end.
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// Which node: 1 is the first.
    pub(crate) node: usize,
    /// Go on showing lines as they come, until Ctrl-C.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// The lab's directory, where several labs run.
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Probe {
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u32).range(2..=200))]
    pub(crate) nodes: u32,
    /// Which nodes probe and die: another number, others.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("give NAME=VALUE".into()),
    }
}

/// From its arguments to its exit code.
#[tokio::main]
pub(crate) async fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Up(up) => up::up(up).await,
        Verb::Logs(logs) => logs::logs(logs).await,
        Verb::Demo => demo::demo().await,
        Verb::Probe(asked) => probe::probe(asked).await,
        Verb::Bench(asked) => Box::pin(bench::bench(asked)).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print::error(&error);
            ExitCode::FAILURE
        }
    }
}
