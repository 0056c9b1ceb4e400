//! A Mainline DHT of real nodes in this process, on 127.0.0.1 only.
//!
//! [`stub`] has nodes that are as the open network's: each with its own ways.

pub mod stub;

use anyhow::{Context, Result};
use mainline::Testnet;

/// Nodes of a DHT unless said otherwise: as many as answer one lookup.
pub const NODES: usize = 20;

/// The DHT; its nodes stop when it is dropped.
#[derive(Debug)]
pub struct LocalDht {
    testnet: Testnet,
}

impl LocalDht {
    /// Starts so many nodes that know each other.
    ///
    /// # Errors
    ///
    /// If a socket can't be had.
    pub async fn start(nodes: usize) -> Result<Self> {
        // It blocks until all of them know each other.
        let testnet = tokio::task::spawn_blocking(move || Testnet::builder(nodes).build());
        let testnet = testnet.await?.context("cannot start a local DHT")?;
        Ok(Self { testnet })
    }

    /// Addresses to begin with, `host:port`: one a node.
    pub fn bootstrap(&self) -> &[String] {
        &self.testnet.bootstrap
    }

    /// How many nodes it has.
    pub fn nodes(&self) -> usize {
        self.testnet.nodes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_node_of_the_dht_can_be_begun_with_and_is_on_loopback() {
        let dht = LocalDht::start(4).await.expect("loopback is there");
        assert_eq!((dht.nodes(), dht.bootstrap().len()), (4, 4));
        assert!(dht.bootstrap().iter().all(|address| address.starts_with("127.0.0.1:")));
    }
}
