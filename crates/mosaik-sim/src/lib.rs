//! Many replicas on simulated time from one seed: the real core and protocol, a store in memory, a
//! network that delays and cuts, nodes that crash, restart and are copied, clocks that jump, peers
//! that lie.

mod call;
pub mod checker;
mod cluster;
pub mod disk;
mod fault;
mod hostile;
mod network;
mod trace;
mod wire;
mod writing;

pub use cluster::{Cluster, Plant};
