//! The program: a command line around the node.

use std::process::ExitCode;

fn main() -> ExitCode {
    mosaik_node::program()
}
