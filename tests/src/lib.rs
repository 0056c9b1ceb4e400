//! What the tests of the whole share: where things are, and clusters made for a test.

use std::path::{Path, PathBuf};

use mosaik_lab::{Cluster, cluster::Builder};

/// The repository's top.
pub fn repository() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("this package lies in the repository").to_owned()
}

/// A file of `tests/data`.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

/// A cluster for a test: alone on the machine, and with comparisons every few seconds, so that what
/// gossip misses doesn't make a test wait a minute.
pub fn cluster(nodes: usize) -> Builder {
    Cluster::builder().nodes(nodes).sync_every(2, 1).exclusive()
}
