//! The node to embed: settings in, a running node out.
//!
//! Only [`program`] parses a command line, takes signals and sets a global subscriber: who embeds a
//! node has all the rest. It stands here, and not beside `main`, so that it is compiled once.

pub mod attachments;
pub mod backup;
mod carrier;
pub mod check;
mod cli;
pub mod config;
mod dht_nodes;
pub mod directory;
pub mod doctor;
pub mod edit;
pub mod export;
pub mod handle;
pub mod http;
mod import;
pub mod log;
pub mod meters;
pub mod node;
mod observation;
mod owner;
#[cfg(feature = "reticulum")]
mod radio;
pub mod reads;
pub mod record_id;
pub mod retention;
mod snapshot;
mod strangers;
mod subscriber;

pub use node::{Node, StartError};

/// The command line, from its arguments to its exit code.
pub fn program() -> std::process::ExitCode {
    cli::main()
}
