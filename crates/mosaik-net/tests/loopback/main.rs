//! The carrier against real QUIC over loopback: other carriers, and peers that misbehave.
#![allow(missing_docs)]

mod crowd;
mod dials;
mod files;
mod hints;
mod hostile;
mod node;
mod sessions;
