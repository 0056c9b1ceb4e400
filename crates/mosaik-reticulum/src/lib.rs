//! Sync over Reticulum: LoRa, packet radio, serial lines, and all else that a Reticulum stack has an
//! interface for. One of a node's carriers.
//!
//! What is asked of a stack and what it tells is in [`stack`], and nothing above that module knows
//! which stack it is. [`prns::Prns`] is the real one; the simulated radio is another.
//!
//! Invariants:
//! - Only [`prns`] names the library behind it: its thread, its version and its oddities end there.
//! - [`prns::Prns::carry`] never waits.
//! - Whatever has come and was not taken in yet is bounded, in number and in bytes.
//! - The private key of this node's Reticulum identity leaves its file only into the stack.

pub mod prns;
pub mod stack;
mod via;

pub use via::{Via, ViaError};
