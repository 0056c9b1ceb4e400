//! Nodes that start at the same time on an empty chain, in this process: a hundred processes would
//! measure the machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::Result;
use mosaik_api::document::PeerState;
use mosaik_core::key::Network;
use mosaik_node::Node;
use tokio::task::JoinSet;

use super::{broken_after, count, figure, slots::Slots};
use crate::{
    bench::{
        append::config,
        figure::{Figure, progress},
        place::{Directory, NETWORK, Place},
    },
    wait,
};

/// How many, and within how many seconds all of them are to be linked.
const CASES: [(usize, f64); 4] = [(2, 5.0), (10, 8.0), (35, 12.0), (100, 25.0)];
/// So many slots are worth it; fewer nodes hold one each.
const HOLDERS: usize = 8;
/// Within how many seconds they do.
const HELD_S: f64 = 30.0;
/// What a node writes is counted for so long.
const COUNTED: Duration = Duration::from_secs(60);
/// Who came to a second slot while all wrote at once has left it after so many seconds.
const ONE_EACH_S: f64 = 120.0;
/// And nobody writes more often.
const WRITES_MAX: f64 = 3.0;

/// 2, 10, 35 and 100 nodes start together on an empty chain, the next ones once the last are linked.
///
/// # Errors
///
/// If a node doesn't start, or anything takes ten times its time.
pub async fn together(place: &Place) -> Result<Vec<Figure>> {
    let mut tails = JoinSet::new();
    for (nodes, linked_s) in CASES {
        progress(format_args!("bootstrap: {nodes} started together"));
        let crowd = Crowd::start(nodes, place.directory()?).await?;
        let linked = crowd.linked(linked_s).await?;
        tails.spawn(async move {
            let rest = crowd.rest().await;
            crowd.end().await;
            let mut figures = vec![linked];
            figures.extend(rest?);
            anyhow::Ok((nodes, figures))
        });
    }
    let mut measured = BTreeMap::new();
    while let Some(ended) = tails.join_next().await {
        let (nodes, figures) = ended??;
        measured.insert(nodes, figures);
    }
    Ok(measured.into_values().flatten().collect())
}

/// Nodes in this process, and the slots of their network.
struct Crowd {
    case: String,
    nodes: Vec<Node>,
    slots: Slots,
    /// When the first began to start, and when the last had.
    began: Instant,
    started: Instant,
    _directory: Directory,
}

impl Crowd {
    async fn start(number: usize, directory: Directory) -> Result<Self> {
        let slots = Slots::start(NETWORK).await?;
        let network = Network::Public(NETWORK.to_owned());
        let (began, mut nodes) = (Instant::now(), Vec::new());
        for at in 0..number {
            let mut config = config(directory.path().join(format!("n{at}")));
            (config.dht, config.dht_bootstrap) = (true, slots.stub.bootstrap().to_vec());
            nodes.push(Box::pin(Node::open(config, &network)).await?);
        }
        let (case, started) = (format!("{number} together"), Instant::now());
        Ok(Self { case, nodes, slots, began, started, _directory: directory })
    }

    /// Waits until they are one component.
    async fn linked(&self, promised_s: f64) -> Result<Figure> {
        wait::until("one component", broken_after(promised_s), async || {
            match components(&self.nodes)[..] {
                [_] => Ok(()),
                ref sizes => Err(format!("groups of {sizes:?}")),
            }
        })
        .await?;
        let linked_s = self.began.elapsed().as_secs_f64();
        Ok(figure(&self.case, "linked_s", linked_s, "s").at_most(promised_s))
    }

    /// What is to be seen of the slots in the first minute, and until nobody has two.
    async fn rest(&self) -> Result<Vec<Figure>> {
        let wanted = self.nodes.len().min(HOLDERS);
        wait::until("enough holders", broken_after(HELD_S), async || {
            let holders = self.slots.holders().map_err(|error| format!("{error:#}"))?.len();
            if holders >= wanted { Ok(()) } else { Err(format!("{holders} holders")) }
        })
        .await?;
        let held_s = self.began.elapsed().as_secs_f64();
        tokio::time::sleep(COUNTED.saturating_sub(self.started.elapsed())).await;
        let writes = self.slots.writes().into_values().max().unwrap_or_default();
        let holders = wait::until("one slot each", broken_after(ONE_EACH_S), async || {
            let holders = self.slots.holders().map_err(|error| format!("{error:#}"))?;
            match holders.values().filter(|slots| **slots > 1).count() {
                0 => Ok(holders.len()),
                in_two => Err(format!("{in_two} nodes in two slots")),
            }
        })
        .await?;
        let one_each_s = self.began.elapsed().as_secs_f64();
        let count = |metric, value| count(&self.case, metric, value);
        Ok(vec![
            figure(&self.case, "held_s", held_s, "s").at_most(HELD_S),
            count("holders", holders).at_least(wanted as f64),
            // No shorter than writes are counted.
            figure(&self.case, "one_slot_each_s", one_each_s, "s").at_most(ONE_EACH_S),
            count("writes_a_node_max", writes).at_most(WRITES_MAX),
        ])
    }

    async fn end(self) {
        let mut ending = JoinSet::new();
        for node in self.nodes {
            ending.spawn(async move {
                node.handle().shutdown().await;
                node.stopped().await;
            });
        }
        ending.join_all().await;
    }
}

/// The sizes of the groups that the nodes form by their open sessions.
fn components(nodes: &[Node]) -> Vec<usize> {
    let links: BTreeMap<String, Vec<String>> = nodes
        .iter()
        .map(|node| {
            let snapshot = node.handle().snapshot();
            let open = snapshot.peers.iter().filter(|peer| peer.state == PeerState::Connected);
            (node.id().to_string(), open.map(|peer| peer.id.clone()).collect())
        })
        .collect();
    let mut left: BTreeSet<&String> = links.keys().collect();
    let mut sizes = Vec::new();
    while let Some(first) = left.pop_first() {
        let (mut reached, mut size) = (vec![first], 0);
        while let Some(node) = reached.pop() {
            size += 1;
            let peers = links.get(node).into_iter().flatten();
            reached.extend(peers.filter(|peer| left.remove(peer)));
        }
        sizes.push(size);
    }
    sizes
}
