//! `mosaik-lab`: clusters of real nodes on this machine, for a person to look at.

use std::process::ExitCode;

fn main() -> ExitCode {
    mosaik_lab::program()
}
