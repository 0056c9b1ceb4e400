//! The bootstrap chain: 16 slots on Mainline through which nodes of one network find each other.
//!
//! [`slot`] holds the keys, [`lease`] the statement that makes a slot somebody's, [`record`] the
//! bytes that stand in it, [`chain`] what to read, write and leave when, and [`client`] does it.
//! [`server`] is a node of the DHT itself, for networks without internet. All but these two are pure:
//! time and randomness come in as arguments.

pub mod chain;
pub mod client;
pub mod lease;
pub mod publish;
pub mod record;
pub mod server;
pub mod slot;

pub use chain::{Candidate, DialEnd, LastDial, SlotState, SlotStatus, Summary};
pub use client::{ChainClient, ChainConfig, ChainEvent, ChainHandle, ChainMeters};
pub use record::{Hint, Neighbour};
