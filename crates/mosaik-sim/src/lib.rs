//! Many replicas on simulated time from one seed: the real core and protocol, the real store on a
//! disk that loses what was not synced or a model of it, a network that drops, doubles, delays and
//! cuts, nodes that crash, restart, are copied and put back, clocks that jump, peers that lie.

mod call;
pub mod checker;
mod cluster;
pub mod disk;
mod fault;
pub mod halves;
mod hostile;
mod network;
mod node;
mod platter;
pub mod radio;
mod storage;
mod trace;
mod weather;
mod wire;
mod writing;

pub use cluster::{Cluster, Plant, Tally};
pub use storage::Backing;
