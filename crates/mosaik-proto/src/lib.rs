//! What a node decides: the replica, its sessions, and the messages between them.
//!
//! All of it is sans-IO. Time, randomness and storage come in as arguments; what is to be done
//! comes out as [`carrier::Effect`]s, to be carried out once the writes are durable.

pub mod carrier;
pub mod hint;
pub mod message;
