//! `bench bootstrap`: how soon nodes find each other through the 16 slots alone.
//!
//! The DHT has twenty nodes of this process, two of them silent; there is no relay. Nodes are processes
//! of their own but where a hundred start at once.
//!
//! Source: BEP 44 for what storage nodes do.

mod slots;
mod together;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use ed25519_dalek::SigningKey;
use mosaik_core::{
    key::{Network, SLOTS},
    reach::Reach,
};
use mosaik_dht::{ChainClient, ChainConfig, ChainEvent};

use self::slots::{Slots, writes_at_or_below_stored};
use super::{
    Run,
    figure::{Figure, progress},
    limits::{median, quantile},
    place::{Directory, NETWORK},
    scrape::Scrape,
};
use crate::{
    Cluster, Node,
    dht::{
        NODES,
        stub::{Behaviour, EqualSeq, StubDht},
    },
    wait,
};

/// How often each case is played.
const RUNS: usize = 20;
/// The same, where one takes the better part of a minute.
const LONG_RUNS: usize = 3;
/// How long anything may take before something is broken.
const BROKEN: Duration = Duration::from_secs(120);
/// How long a newcomer is left to take a slot before it is killed, so that the next one meets its lease.
const GHOST: Duration = Duration::from_secs(3);

/// Quick storage nodes of one kind, two of which never answer.
fn storage(kind: Behaviour) -> Vec<Behaviour> {
    let silent = |at: usize| at == 3 || at == 12;
    (0..NODES).map(|at| Behaviour { silent: silent(at), ..kind }).collect()
}

fn usual() -> Vec<Behaviour> {
    storage(Behaviour::new(EqualSeq::Overwrites))
}

pub(super) async fn all(run: &mut Run) -> Result<()> {
    one_live(run).await?;
    fifteen_dead(run).await?;
    forged(run).await?;
    peer_cache(run).await?;
    claims(run).await?;
    // Boxed: starting a node is a large future.
    Box::pin(together::all(run)).await?;
    all_dead(run).await
}

fn report(run: &mut Run, case: &str, took: &[f64], p50_max: Option<f64>, p95_max: Option<f64>) {
    let figure = |metric, value| Figure::new("bootstrap", case, metric, value, "s");
    let targeted = |figure: Figure, max: Option<f64>| match max {
        Some(max) => figure.at_most(max),
        None => figure,
    };
    run.report.add(&targeted(figure("p50_s", median(took)), p50_max));
    run.report.add(&targeted(figure("p95_s", quantile(took, 0.95)), p95_max));
}

/// A DHT, the slots of one network in it, and a cluster that is started there.
struct Place {
    slots: Slots,
    cluster: Cluster,
    _directory: Directory,
}

impl Place {
    async fn new(run: &Run) -> Result<Self> {
        let slots = Slots::new(StubDht::start(usual()).await?, NETWORK);
        let directory = run.place.directory()?;
        let cluster = Cluster::builder()
            .network(NETWORK)
            .dht_of(slots.stub.bootstrap().iter().cloned())
            .relay(false)
            .directory(directory.path())
            .build()
            .await?;
        Ok(Self { slots, cluster, _directory: directory })
    }

    /// A node that holds a slot.
    async fn holder(&mut self) -> Result<()> {
        let node = self.cluster.add_node()?;
        node.start().await?;
        holds(node, BROKEN).await
    }

    /// Starts one more node, says how long it took to its first peer, and kills it once it is in a slot.
    async fn newcomer(&mut self, more: &[String]) -> Result<f64> {
        let node = self.cluster.add_node()?;
        node.arguments.extend(more.iter().cloned());
        node.launch()?;
        let took = first_peer_s(node).await?;
        // Where enough live leases are seen it takes none.
        let _ = holds(node, GHOST).await;
        node.kill().await?;
        Ok(took)
    }
}

/// Waits until a node is in a slot.
async fn holds(node: &Node, deadline: Duration) -> Result<()> {
    wait::until("a slot", deadline, async || {
        let slots = node.slots().await.map_err(|error| format!("{error:#}"))?;
        let mine = slots.slots.iter().any(|slot| slot.state.as_str() == "mine");
        if mine { Ok(()) } else { Err("none is held".to_owned()) }
    })
    .await
}

/// Seconds from a node's start to its first authenticated peer, by its own clock.
async fn first_peer_s(node: &Node) -> Result<f64> {
    wait::until("a first peer", BROKEN, async || {
        let client = node.client().map_err(|error| format!("{error:#}"))?;
        let scrape = Scrape::of(&client).await.map_err(|error| format!("{error:#}"))?;
        scrape.get("first_peer_seconds").map_err(|error| format!("{error:#}"))
    })
    .await
}

async fn one_live(run: &mut Run) -> Result<()> {
    progress("bootstrap: 1 live of 16");
    let mut place = Place::new(run).await?;
    place.holder().await?;
    let mut took = Vec::new();
    for _ in 0..RUNS {
        took.push(place.newcomer(&[]).await?);
    }
    place.cluster.stop().await?;
    report(run, "1 live of 16", &took, Some(0.3), Some(1.0));
    Ok(())
}

async fn fifteen_dead(run: &mut Run) -> Result<()> {
    progress("bootstrap: 15 dead and 1 live");
    let mut place = Place::new(run).await?;
    place.holder().await?;
    place.slots.fill_free_with_dead()?;
    let mut took = Vec::new();
    for _ in 0..RUNS {
        took.push(place.newcomer(&[]).await?);
    }
    place.cluster.stop().await?;
    report(run, "15 dead 1 live", &took, None, Some(1.5));
    Ok(())
}

/// Rubbish in all slots, and a ticket as the one other source.
async fn forged(run: &mut Run) -> Result<()> {
    progress("bootstrap: 16 forged slots and a ticket");
    let mut place = Place::new(run).await?;
    place.slots.fill_with_forged()?;
    let node = place.cluster.add_node()?;
    node.start().await?;
    let ticket = node.identity().await?.ticket;
    let mut took = Vec::new();
    for _ in 0..RUNS {
        took.push(place.newcomer(&["--peer".to_owned(), ticket.clone()]).await?);
    }
    place.cluster.stop().await?;
    report(run, "16 forged 1 ticket", &took, None, Some(5.0));
    Ok(())
}

/// Two that have met before, and no DHT.
async fn peer_cache(run: &mut Run) -> Result<()> {
    progress("bootstrap: a peer cache and no DHT");
    let directory = run.place.directory()?;
    let mut cluster = directory.cluster(2).await?;
    cluster.start().await?;
    let ticket = cluster.nodes[0].identity().await?.ticket;
    cluster.nodes[1].client()?.add_peer(&ticket).await?;
    first_peer_s(&cluster.nodes[1]).await?;
    let mut took = Vec::new();
    for _ in 0..RUNS {
        let node = &mut cluster.nodes[1];
        node.kill().await?;
        node.launch()?;
        took.push(first_peer_s(node).await?);
    }
    cluster.stop().await?;
    report(run, "peer cache no DHT", &took, None, Some(0.3));
    Ok(())
}

/// From the decision to take a slot, which is the first put, to a fresh reader that finds its holder.
async fn claims(run: &mut Run) -> Result<()> {
    const EXPIRES_AFTER: Duration = Duration::from_secs(600);
    let [ignored, refused, overwritten, expiring] = Behaviour::kinds(EXPIRES_AFTER).map(storage);
    let mix = Behaviour::mix(EXPIRES_AFTER);
    for (name, storage) in [
        ("ignored", ignored),
        ("refused", refused),
        ("overwritten", overwritten),
        ("expiring", expiring),
        ("mix", mix),
    ] {
        let case = format!("claim seen, {name}");
        progress(format_args!("bootstrap: {case}"));
        let (mut took, mut below) = (Vec::new(), 0);
        for _ in 0..RUNS {
            let (seen_s, stub) = claim(storage.clone()).await?;
            took.push(seen_s);
            below += writes_at_or_below_stored(&stub.puts());
        }
        report(run, &case, &took, None, Some(5.0));
        let below = Figure::new("bootstrap", case, "puts_at_or_below_stored", below as f64, "");
        run.report.add(&below.at_most(0.0));
    }
    Ok(())
}

async fn claim(storage: Vec<Behaviour>) -> Result<(f64, StubDht)> {
    let stub = StubDht::start(storage).await?;
    let keys = Network::Public(NETWORK.to_owned()).keys();
    let config = |node: u8| ChainConfig {
        dht_bootstrap: stub.bootstrap().to_vec(),
        reach: Reach::Lab,
        ..ChainConfig::new(keys.clone(), SigningKey::from_bytes(&[node; 32]))
    };
    let (holder, _events) = ChainClient::spawn(config(1));
    holder.set_addresses(vec![], vec![([127, 0, 0, 1], 4001).into()]);
    let decided: Instant = wait::until("a put", BROKEN, async || {
        stub.puts().first().map(|put| put.at).ok_or_else(|| "none came".to_owned())
    })
    .await?;
    let (reader, mut events) = ChainClient::spawn(config(2));
    let found = async {
        while let Some(event) = events.recv().await {
            if matches!(event, ChainEvent::Found(_)) {
                return Ok(());
            }
        }
        anyhow::bail!("the reader ended")
    };
    tokio::time::timeout(BROKEN, found).await.context("nobody was found")??;
    drop(reader);
    Ok((decided.elapsed().as_secs_f64(), stub))
}

/// Two that come to a chain of sixteen leases whose holders died without a word.
async fn all_dead(run: &mut Run) -> Result<()> {
    let mut took = Vec::new();
    for at in 0..LONG_RUNS {
        progress(format_args!("bootstrap: 16 dead, {} of {LONG_RUNS}", at + 1));
        let mut place = Place::new(run).await?;
        place.slots.fill_free_with_dead()?;
        for _ in 0..2 {
            place.cluster.add_node()?;
        }
        place.cluster.start().await?;
        let mut last = 0.0_f64;
        for node in &place.cluster.nodes {
            last = last.max(first_peer_s(node).await?);
        }
        took.push(last);
        place.cluster.stop().await?;
    }
    report(run, "16 dead, two meet", &took, None, Some(50.0));
    Ok(())
}

fn unix_s() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is not set")?.as_secs())
}

/// All numbers of slots.
fn numbers() -> impl Iterator<Item = u8> {
    (0..SLOTS).map(|slot| slot as u8)
}
