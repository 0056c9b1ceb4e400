//! What an idle day costs on the wire: two nodes that hold the same and have nothing to say.
//!
//! They stand on loopback with a DHT and a relay of their own, joined by slot, with the relay's path
//! beside the direct one, as on the internet. What the DHT and mDNS take is not counted: the DHT of a lab
//! is far smaller than the real one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mosaik_api::document::Traffic;

use super::{
    Run,
    figure::{Figure, progress},
};
use crate::{Cluster, Node, wait};

/// How long two nodes are left alone before their bytes are counted, and for how long they are: long
/// against the interval between comparisons, also of metered ones.
const SETTLED: Duration = Duration::from_secs(60);
const WATCHED: Duration = Duration::from_secs(20 * 60);
const JOIN_MAX: Duration = Duration::from_secs(60);
const DHT_NODES: usize = 8;
const DAY_S: f64 = 86_400.0;

pub(super) async fn all(run: &mut Run) -> Result<()> {
    let directories = [run.place.directory()?, run.place.directory()?];
    let [usual, metered] = directories.each_ref().map(|directory| {
        let builder = Cluster::builder().network("day").directory(directory.path());
        builder.nodes(2).dht(DHT_NODES).relay(true)
    });
    let mut usual = usual.build().await?;
    let mut metered = metered.argument("--metered").build().await?;
    let counted = watch([&mut usual, &mut metered]).await;
    usual.stop().await?;
    metered.stop().await?;
    for (case, purposes) in ["a peer", "a peer, both metered"].into_iter().zip(counted?) {
        let mut sum = 0.0;
        for Traffic { purpose, sent, received } in &purposes {
            let day = (sent + received) as f64 * DAY_S / WATCHED.as_secs_f64();
            sum += day;
            let of = format!("{case}: {purpose}");
            run.report.add(&Figure::new("day", of, "bytes_a_day", day, "B"));
        }
        run.report.add(&Figure::new("day", case, "bytes_a_day", sum, "B"));
    }
    Ok(())
}

/// The bytes that the first node of each cluster sent and received while it was watched.
async fn watch(clusters: [&mut Cluster; 2]) -> Result<[Vec<Traffic>; 2]> {
    let [usual, metered] = clusters;
    for cluster in [&mut *usual, &mut *metered] {
        cluster.start().await?;
        wait::until("two nodes to meet", JOIN_MAX, async || {
            let told = first(cluster).await.map_err(|error| format!("{error:#}"))?;
            if told.1 == 1 { Ok(()) } else { Err(format!("{} peers", told.1)) }
        })
        .await?;
    }
    tokio::time::sleep(SETTLED).await;
    let before = [first(usual).await?.0, first(metered).await?.0];
    let begun = Instant::now();
    while let Some(left) = WATCHED.checked_sub(begun.elapsed()) {
        progress(format_args!("day: {} s to go", left.as_secs()));
        tokio::time::sleep(left.min(Duration::from_secs(10))).await;
    }
    let after = [first(usual).await?.0, first(metered).await?.0];
    let [before_usual, before_metered] = before;
    let [after_usual, after_metered] = after;
    Ok([since(before_usual, after_usual)?, since(before_metered, after_metered)?])
}

/// The first node's bytes so far, and its peers.
async fn first(cluster: &Cluster) -> Result<(Vec<Traffic>, u64)> {
    let node: &Node = cluster.nodes.first().context("a cluster has nodes")?;
    let status = node.client()?.status().await?;
    Ok((status.traffic, status.peers))
}

fn since(before: Vec<Traffic>, after: Vec<Traffic>) -> Result<Vec<Traffic>> {
    let difference = |(before, after): (Traffic, Traffic)| {
        if before.purpose != after.purpose {
            bail!("{} and {} are not one purpose", before.purpose, after.purpose);
        }
        let (sent, received) = (after.sent - before.sent, after.received - before.received);
        Ok(Traffic { purpose: after.purpose, sent, received })
    };
    before.into_iter().zip(after).map(difference).collect()
}
