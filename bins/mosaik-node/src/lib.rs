//! The node to embed: settings in, a running node out.
//!
//! Nothing here parses a command line, takes a signal or sets a global subscriber; the program
//! beside it does.

pub mod backup;
mod carrier;
pub mod check;
pub mod config;
pub mod directory;
pub mod edit;
pub mod export;
pub mod handle;
pub mod http;
pub mod log;
pub mod meters;
pub mod node;
mod owner;
pub mod reads;
pub mod record_id;
pub mod retention;
mod snapshot;
mod strangers;

pub use node::{Node, StartError};
