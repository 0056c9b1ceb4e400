//! What the node says over its Unix socket: every JSON document, every request, and a client.
//!
//! - [`document`]: what reads answer. Each carries `schema: 1`.
//! - [`request`]: what writes ask.
//! - [`failure`]: the error document, and which exit code each of its codes means.
//! - [`json`] and [`time`]: values as JSON and instants as text, lossless both ways.
//! - [`work`]: answers that take long, line by line.
//! - [`client`]: HTTP/1.1 over the socket.
//!
//! FORMAT.md beside this crate describes the same for readers without Rust.

pub mod client;
pub mod document;
pub mod failure;
pub mod json;
pub mod request;
pub mod work;

pub use mosaik_core::time;

/// What every path begins with.
pub const PREFIX: &str = "/api/v1";

/// The version of the documents. A change that only adds fields keeps it.
pub const SCHEMA: u32 = 1;
