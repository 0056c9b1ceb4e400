//! Nodes that start at the same time on an empty chain, in this process: a hundred processes would
//! measure the machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use mosaik_api::document::PeerState;
use mosaik_core::key::Network;
use mosaik_node::Node;
use tokio::task::JoinSet;

use super::{slots::Slots, usual};
use crate::{
    bench::{
        Run,
        append::config,
        figure::{Figure, progress},
        place::NETWORK,
    },
    dht::stub::StubDht,
    wait,
};

/// How many, and within how many seconds all of them are to be linked.
const CASES: [(usize, f64); 4] = [(2, 5.0), (10, 8.0), (35, 12.0), (100, 25.0)];
/// By then as many slots as are worth it are to be held.
const HOLDERS_S: u64 = 30;
/// And nobody writes more often in its first minute.
const WRITES_MAX: f64 = 3.0;
const BROKEN: Duration = Duration::from_secs(180);

pub(super) async fn all(run: &mut Run) -> Result<()> {
    for (nodes, linked_s) in CASES {
        progress(format_args!("bootstrap: {nodes} started together"));
        let case = format!("{nodes} together");
        let slots = Slots::new(StubDht::start(usual()).await?, NETWORK);
        let directory = run.place.directory()?;
        let started = Instant::now();
        let nodes = start(nodes, directory.path(), slots.stub.bootstrap()).await?;
        let measured = measure(&nodes, &slots, started).await;
        let mut ending = JoinSet::new();
        for node in nodes {
            ending.spawn(async move {
                node.handle().shutdown().await;
                node.stopped().await;
            });
        }
        ending.join_all().await;
        let measured = measured?;
        let figure =
            |metric, value, unit| Figure::new("bootstrap", case.clone(), metric, value, unit);
        run.report.add(&figure("linked_s", measured.linked_s, "s").at_most(linked_s));
        let holders = figure("holders", measured.holders as f64, "");
        run.report.add(&holders.at_least(measured.nodes.min(8) as f64));
        run.report
            .add(&figure("writes_a_node_max", measured.writes as f64, "").at_most(WRITES_MAX));
    }
    Ok(())
}

struct Measured {
    nodes: usize,
    linked_s: f64,
    holders: usize,
    writes: usize,
}

async fn start(number: usize, directory: &Path, bootstrap: &[String]) -> Result<Vec<Node>> {
    let network = Network::Public(NETWORK.to_owned());
    let open = |at: usize| {
        let mut config = config(directory.join(format!("n{at}")));
        (config.dht, config.dht_bootstrap) = (true, bootstrap.to_vec());
        Node::open(config, &network)
    };
    let mut nodes = Vec::new();
    for at in 0..number {
        nodes.push(open(at).await?);
    }
    Ok(nodes)
}

async fn measure(nodes: &[Node], slots: &Slots, started: Instant) -> Result<Measured> {
    let wanted = nodes.len().min(8);
    wait::until("one component", BROKEN, async || match components(nodes) {
        1 => Ok(()),
        components => Err(format!("{components} components")),
    })
    .await?;
    let linked_s = started.elapsed().as_secs_f64();
    let left = Duration::from_secs(HOLDERS_S).saturating_sub(started.elapsed());
    // Where fewer hold one by then, that is the figure.
    let _ = wait::until("enough holders", left, async || {
        let holders = slots.holders().map_err(|error| format!("{error:#}"))?.len();
        if holders >= wanted { Ok(()) } else { Err(format!("{holders} holders")) }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(60).saturating_sub(started.elapsed())).await;
    let writes = slots.writes().into_values().max().unwrap_or_default();
    Ok(Measured { nodes: nodes.len(), linked_s, holders: slots.holders()?.len(), writes })
}

/// How many groups the nodes form by their open sessions.
fn components(nodes: &[Node]) -> usize {
    let links: BTreeMap<String, Vec<String>> = nodes
        .iter()
        .map(|node| {
            let snapshot = node.handle().snapshot();
            let open = snapshot.peers.iter().filter(|peer| peer.state == PeerState::Connected);
            (node.id().to_string(), open.map(|peer| peer.id.clone()).collect())
        })
        .collect();
    let mut left: BTreeSet<&String> = links.keys().collect();
    let mut components = 0;
    while let Some(first) = left.pop_first() {
        components += 1;
        let mut reached = vec![first];
        while let Some(node) = reached.pop() {
            let peers = links.get(node).into_iter().flatten();
            reached.extend(peers.filter(|peer| left.remove(peer)));
        }
    }
    components
}
