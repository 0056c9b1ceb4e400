//! Feeds and view in one redb file.

mod read;

pub use read::Arrival;
