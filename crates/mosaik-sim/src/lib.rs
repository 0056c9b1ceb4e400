//! Many replicas on simulated time from one seed: the real core and protocol, a store in memory, a
//! network that delays and cuts, nodes that crash, restart and are copied.

pub mod checker;
mod cluster;
pub mod disk;
mod network;
mod trace;

pub use cluster::Cluster;
