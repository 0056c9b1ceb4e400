//! The program: a command line around the node.

mod cli;
mod import;
mod subscriber;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let json = cli.json;
    cli::finish(cli::execute(cli), json)
}
