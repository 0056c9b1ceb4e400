//! Sessions and hints over iroh: one of a node's carriers.
//!
//! [`Net`] turns connections into [`Input`]s and carries out [`Effect`]s. It decides nothing: whom
//! to dial, when to hang up and whom to believe is the replica's business.
//!
//! Invariants:
//! - [`Net::carry`] never waits. What a session can't take closes that session; a hint that finds
//!   no room is dropped.
//! - Sessions and bad news wait for the inbox, and with them the peers that send; hints don't wait.
//! - What has come and was not taken in yet stays within [`INCOMING_MAX`] bytes for all sessions.
//! - After [`Net::close`] nothing of it holds the UDP port.
//! - What may not be dialed is neither dialed nor told by this crate. To a peer that is connected,
//!   iroh itself tells more: local addresses too are candidates for a direct path to it.
//!
//! Source: FORMAT.md beside this crate.

mod blobs;
mod budget;
mod connect;
mod counters;
mod endpoint;
mod frame;
mod gossip;
mod limits;
mod mdns;
mod net;
mod outlook;
mod rate;
mod reason;
mod relay;
mod sync;

pub use blobs::{
    Fetcher, Fetching, Held, Inventory, Reading, Shelf, ShelfError, Staged, TakenPiece,
};
pub use budget::{Delivery, INCOMING_MAX, Room};
pub use counters::{Bytes, Count, Counters, Traffic};
pub use endpoint::{BindError, NetConfig, SYNC_ALPN};
pub use gossip::MESSAGE_LEN_MAX;
pub use net::{Net, Path, Via};
pub use outlook::{HomeRelay, Outlook};
pub use relay::RelaySetting;
pub use sync::QUEUE_LEN_MAX;

#[cfg(doc)]
use mosaik_proto::carrier::{Effect, Input};
