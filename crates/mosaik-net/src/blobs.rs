//! The files of attachments: kept on disk, served to peers, fetched from them. Over iroh-blobs.
//!
//! Invariants:
//! - Only peers that have an open session, whose `Greet` held, may ask for files, and are asked: the
//!   same gate as gossip's.
//! - What was fetched is checked against its hash piece by piece before it is kept; what isn't right
//!   is never seen by anybody. A fetch that is cut goes on where it ended.
//! - Peers only read. What they ask for is bounded in number and time, and is served when it is here
//!   whole.
//!
//! Source: FORMAT.md beside this crate, section 5.

mod fetch;
mod pieces;
mod serve;
mod shelf;

pub(crate) use self::{
    fetch::run,
    serve::{Serving, serve},
};
pub use self::{
    fetch::{Fetcher, Fetching},
    pieces::TakenPiece,
    shelf::{Held, Inventory, Reading, Shelf, ShelfError, Staged},
};

/// The protocol that files are asked for by.
pub(crate) const ALPN: &[u8] = iroh_blobs::ALPN;
