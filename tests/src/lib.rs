//! What the tests of the whole share: where things are, clusters made for a test, and what nodes
//! have acknowledged.

mod acknowledged;
#[path = "../fuzz/src/lib.rs"]
pub mod fuzz;

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Result;
use mosaik_lab::{Cluster, cluster::Builder};

pub use acknowledged::{Acknowledged, Held};

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

/// Makes the cluster and plays `story` on it.
///
/// # Panics
///
/// If the story fails: while the cluster is still there, so that its logs stay to be read.
pub async fn play(cluster: Builder, story: impl AsyncFnOnce(&mut Cluster) -> Result<()>) {
    let mut cluster = cluster.build().await.unwrap_or_else(|error| panic!("{error:#}"));
    if let Err(error) = story(&mut cluster).await {
        panic!("{error:#}");
    }
}

/// Says what a test does and measures: shown with `--nocapture`, and where the test fails.
#[derive(Debug)]
pub struct Diary(Instant);

impl Diary {
    /// Begins to count the time.
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    /// Says something, with the time since the beginning.
    #[expect(clippy::print_stdout, reason = "a test's output is captured by its harness")]
    pub fn note(&self, text: impl fmt::Display) {
        println!("{:>6.2} s  {text}", self.0.elapsed().as_secs_f32());
    }
}
