//! Sync over Reticulum: LoRa, packet radio, serial lines, and all else that a Reticulum stack has an
//! interface for. One of a node's carriers.
//!
//! What is asked of a stack and what it tells is in [`stack`], and nothing above that module knows
//! which stack it is. `prns` has the real one; the simulated radio is another. What is asked, and when,
//! [`station`] decides.
//!
//! ```text
//! Reticulum ─► Report ─► Station (links, stream, codec, airtime) ─► Input ─► Replica
//!           ◄─ Order  ◄─                                         ◄─ Effect ◄─
//! ```
//!
//! Invariants:
//! - All but `prns` is pure. Only `prns` names the library behind it: its thread, its version and its oddities end there.
//! - `Prns::carry` never waits.
//! - Whatever has come and was not taken in yet is bounded, in number and in bytes.
//! - The private key of this node's Reticulum identity leaves its file only into the stack.

pub mod airtime;
pub mod announce;
pub mod cast;
pub mod codec;
pub mod meshlog;
#[cfg(feature = "prns")]
pub mod prns;
pub mod stack;
pub mod station;
pub mod stream;
mod via;

pub use via::{Via, ViaError};
