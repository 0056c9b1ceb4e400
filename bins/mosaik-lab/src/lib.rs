//! Real nodes on one machine without internet: processes, clusters, a local DHT and a local relay.
//!
//! What `mosaik-lab` shows to a person, tests use as a library:
//!
//! - [`bench`]: what is measured; of [`bench::bootstrap`] each case can be played by itself.
//! - [`binary`]: finds the `mosaik-node` program, and builds it where this one was built.
//! - [`process`]: a child with its log, stopped on drop; [`process::run`] for one that ends by itself.
//! - [`node`]: one node: its directory, its command line, its verbs and its socket.
//! - [`cluster`]: a directory, a DHT, a relay and nodes that know one network id.
//! - [`dht`], [`relay`]: the two, in this process, on 127.0.0.1 only; [`dht::stub`] has storage nodes
//!   that misbehave as told.
//! - [`probe`]: a probe among nodes that die and come back, held against their logs.
//! - [`radio`]: virtual RNodes on one channel, with the time on air that real ones would take.
//! - [`lock`]: one cluster at a time on a machine.
//! - [`wait`]: conditions with a deadline. Nothing here sleeps and hopes.
//!
//! Invariant: whatever way this process ends but by SIGKILL, the processes that it started end too.

pub mod bench;
pub mod binary;
mod cli;
pub mod cluster;
mod demo;
pub mod dht;
pub mod lock;
mod logs;
pub mod node;
mod print;
pub mod probe;
pub mod process;
pub mod radio;
pub mod relay;
mod running;
mod up;
pub mod wait;

pub use cluster::{Agreement, Cluster};
pub use node::Node;
pub use process::{Output, Process};

/// The command line, from its arguments to its exit code. It stands here, and not beside `main`, so
/// that it is compiled once.
pub fn program() -> std::process::ExitCode {
    cli::main()
}
