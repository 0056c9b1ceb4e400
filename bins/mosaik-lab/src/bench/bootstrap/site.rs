//! Where nodes of one network meet: its slots in a DHT, and nodes that are processes.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use tokio::task::JoinSet;

use super::{broken_after, slots::Slots};
use crate::{
    Cluster, Node,
    bench::{
        place::{Directory, NETWORK},
        scrape::Scrape,
    },
    dht::{
        NODES,
        stub::{Behaviour, EqualSeq},
    },
    wait,
};

/// How long a newcomer is left to take a slot before it is killed, so that the next one meets its lease.
const GHOST: Duration = Duration::from_secs(3);
/// Within how long nodes that find free slots are in one, for an empty chain and ten of them.
const HELD_S: f64 = 8.0;

/// Quick storage nodes of one kind, two of which never answer.
pub(super) fn storage(kind: Behaviour) -> Vec<Behaviour> {
    let silent = |at: usize| at == 3 || at == 12;
    (0..NODES).map(|at| Behaviour { silent: silent(at), ..kind }).collect()
}

/// Those of most cases: they do as the mainline crate does.
pub(super) fn usual() -> Vec<Behaviour> {
    storage(Behaviour::new(EqualSeq::Overwrites))
}

/// A DHT, the slots of one network in it, and a cluster that is started there.
pub(super) struct Site {
    pub(super) slots: Slots,
    pub(super) cluster: Cluster,
    _directory: Directory,
}

/// How a newcomer fared.
pub(super) struct Met {
    /// From its start to its first authenticated peer, by its own clock.
    pub(super) took_s: f64,
    /// How often it dialed each slot's node that is gone.
    pub(super) dials: Vec<usize>,
}

impl Site {
    pub(super) async fn new(directory: Directory) -> Result<Self> {
        let slots = Slots::start(NETWORK).await?;
        let cluster = Cluster::builder()
            .network(NETWORK)
            .dht_of(slots.stub.bootstrap().iter().cloned())
            .relay(false)
            .directory(directory.path())
            .build()
            .await?;
        Ok(Self { slots, cluster, _directory: directory })
    }

    /// Starts so many more nodes at the same time, each of which is to take a slot.
    pub(super) async fn start_holders(&mut self, nodes: usize) -> Result<()> {
        let before = self.cluster.nodes.len();
        self.start(nodes).await?;
        for node in &self.cluster.nodes[before..] {
            holds(node, broken_after(HELD_S)).await?;
        }
        Ok(())
    }

    /// Starts so many more nodes at the same time.
    pub(super) async fn start(&mut self, nodes: usize) -> Result<()> {
        for _ in 0..nodes {
            self.cluster.add_node()?;
        }
        self.cluster.start().await
    }

    /// Kills so many of its nodes at once, the first ones.
    pub(super) async fn kill_first(&mut self, nodes: usize) -> Result<()> {
        let mut kills: JoinSet<_> =
            self.cluster.nodes[..nodes].iter_mut().map(Node::killing).collect();
        while let Some(killed) = kills.join_next().await {
            killed??;
        }
        Ok(())
    }

    /// Starts one more node, sees how it fares, and kills it once it is in a slot.
    pub(super) async fn newcomer(&mut self, more: &[String], promised_s: f64) -> Result<Met> {
        let node = self.cluster.add_node()?;
        node.arguments.extend(more.iter().cloned());
        node.launch()?;
        let took_s = first_peer_s(node, promised_s).await?;
        // Where enough live leases are seen it takes none.
        let _ = holds(node, GHOST).await;
        let own = node.identity().await?.addresses;
        let own: Vec<SocketAddr> = own.iter().filter_map(|address| address.parse().ok()).collect();
        node.kill().await?;
        Ok(Met { took_s, dials: self.slots.ghosts.dials_from(&own) })
    }
}

/// Waits until a node is in a slot.
async fn holds(node: &Node, deadline: Duration) -> Result<()> {
    wait::until("a slot", deadline, async || {
        if holds_slot(node).await.map_err(|error| format!("{error:#}"))? {
            Ok(())
        } else {
            Err("none is held".to_owned())
        }
    })
    .await
}

/// Whether a node is in a slot, as it sees it.
pub(super) async fn holds_slot(node: &Node) -> Result<bool> {
    Ok(node.slots().await?.slots.iter().any(|slot| slot.state.as_str() == "mine"))
}

/// Seconds from a node's start to its first authenticated peer, by its own clock.
pub(super) async fn first_peer_s(node: &Node, promised_s: f64) -> Result<f64> {
    wait::until("a first peer", broken_after(promised_s), async || {
        let client = node.client().map_err(|error| format!("{error:#}"))?;
        let scrape = Scrape::of(&client).await.map_err(|error| format!("{error:#}"))?;
        scrape.get("first_peer_seconds").map_err(|error| format!("{error:#}"))
    })
    .await
}
