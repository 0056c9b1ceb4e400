//! What a node decides: the replica, its sessions, and the messages between them.
//!
//! All of it is sans-IO. Time, chance and storage come in as arguments; what is to be done comes
//! out as [`carrier::Effect`]s, to be carried out once the writes are durable.

mod asks;
pub mod attachments;
pub mod carrier;
mod feeds;
pub mod hint;
pub mod message;
pub mod peers;
pub mod pieces;
pub mod proof;
mod reconcile;
pub mod replica;
mod serve;
mod session;
pub mod turns;

pub use asks::{Awaited, CREDIT_MAX};
pub use session::{SEND_AHEAD, UNASKED_MAX};

/// Why a replica can't go on: its ledger failed, or a cell of the view is damaged.
pub type Fault<L> = mosaik_core::view::ViewError<<L as mosaik_core::kv::Kv>::Error>;
