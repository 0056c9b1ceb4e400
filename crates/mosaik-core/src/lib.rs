//! What an event is, when it is valid, and what a set of events means.
//!
//! Events stand in feeds ([`feed`]), travel in runs ([`run`]), are compared by frontier
//! ([`frontier`]) and fold to a view ([`view`]). Nothing here reads a clock, a socket, a disk or a
//! random source, and nothing is async.

pub mod binding;
pub mod codec;
pub mod event;
pub mod feed;
pub mod frontier;
pub mod hlc;
pub mod id;
pub mod key;
pub mod kv;
pub mod limits;
pub mod meshlog;
pub mod reach;
pub mod record;
pub mod run;
pub mod ticket;
pub mod time;
pub mod trie;
pub mod value;
pub mod view;
