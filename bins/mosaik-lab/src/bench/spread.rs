//! W4: from an append at one node to the moment at which others show it.
//!
//! Each of the others is followed over its socket (`/events/stream`), so an event counts as visible
//! when a program beside that node has read it. The clock starts before the request to append.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use mosaik_api::{client::EventStream, request::EmitEvent};
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use super::{
    Run,
    figure::{Figure, progress},
    limits::{commits_ms, median, quantile},
    place::Place,
    scrape::Scrape,
};
use crate::{Cluster, Node, wait};

/// A disk in memory, where there is one.
const MEMORY: &str = "/dev/shm";
/// Nodes of the larger network.
const MANY: usize = 20;
/// Appends to each, and the pause before the next, so that each travels alone.
const APPENDS: u64 = 200;
const PAUSE: Duration = Duration::from_millis(20);
/// How long an event may be on its way before something is broken: where a hint is lost, the next
/// comparison brings it, within 90 s.
const TRAVEL_MAX: Duration = Duration::from_secs(120);
const JOIN_MAX: Duration = Duration::from_secs(60);

/// One hop, above two bare commits: at half of all appends, and at all but one in a hundred.
const HOP_P50_MS: f64 = 1.0;
const HOP_P99_MS: f64 = 5.0;
/// To all of [`MANY`] nodes.
const ALL_P50_MS: f64 = 10.0;
const ALL_P99_MS: f64 = 40.0;
/// How often an event comes to a node that doesn't hold it, and those that do.
const DELIVERIES_MAX: f64 = 1.5;

pub(super) async fn all(run: &mut Run) -> Result<()> {
    // Targets hold where a commit costs nothing; a disk is measured beside it, for what it is.
    if Path::new(MEMORY).is_dir() {
        let memory = Place::new(Some(Path::new(MEMORY)))?;
        on(run, &memory, "tmpfs", true).await?;
    } else {
        progress(format_args!("W4: there is no {MEMORY}, so only the disk is measured"));
    }
    let disk = run.place.again()?;
    on(run, &disk, "disk", false).await
}

async fn on(run: &mut Run, place: &Place, disk: &str, has_targets: bool) -> Result<()> {
    for nodes in [2, MANY] {
        let case =
            if nodes == 2 { format!("1 hop {disk}") } else { format!("{nodes} nodes {disk}") };
        progress(format_args!("W4 {case}"));
        let directory = place.directory()?;
        let commits_ms = 2.0 * median(&commits_ms(directory.path(), 1)?);
        let mut cluster = directory.cluster(nodes).await?;
        cluster.start().await?;
        let travels = travels(&cluster).await;
        cluster.stop().await?;
        let Travels { took, deliveries } = travels?;
        let figure = |metric, value, unit| Figure::new("W4", case.clone(), metric, value, unit);
        let p50 = figure("p50_ms", median(&took), "ms");
        let p99 = figure("p99_ms", quantile(&took, 0.99), "ms");
        let (p50_max, p99_max) = match nodes {
            2 => (commits_ms + HOP_P50_MS, commits_ms + HOP_P99_MS),
            _ => (ALL_P50_MS, ALL_P99_MS),
        };
        run.report.add(&figure("two_redb_commits_ms", commits_ms, "ms"));
        run.report.add(&if has_targets { p50.at_most(p50_max) } else { p50 });
        run.report.add(&if has_targets { p99.at_most(p99_max) } else { p99 });
        let deliveries = figure("deliveries_per_event_and_node", deliveries, "");
        run.report.add(&deliveries.at_most(DELIVERIES_MAX));
    }
    Ok(())
}

/// An event that was read from a node's stream.
struct Seen {
    id: String,
    at: Instant,
}

struct Travels {
    /// Milliseconds from each append at the first node until the last of the others shows it.
    took: Vec<f64>,
    /// Events that came from peers, by those that were new.
    deliveries: f64,
}

/// Events from peers at all of these nodes so far: new ones, and others.
async fn deliveries(nodes: &[Node]) -> Result<(f64, f64)> {
    let mut sum = (0.0, 0.0);
    for node in nodes {
        let scrape = Scrape::of(&node.client()?).await?;
        sum.0 += scrape.get("events_received_total")?;
        sum.1 += scrape.get("events_duplicate_total")?;
    }
    Ok(sum)
}

async fn travels(cluster: &Cluster) -> Result<Travels> {
    join(cluster).await?;
    let (first, others) = cluster.nodes.split_first().context("a cluster has nodes")?;
    let (seen, mut sightings) = mpsc::unbounded_channel();
    let mut followers = JoinSet::new();
    for node in others {
        let client = node.client()?;
        let stream = client.follow(node.client()?.events(0, None).await?.next).await?;
        followers.spawn(follow(stream, seen.clone()));
    }
    drop(seen);
    let before = deliveries(others).await?;
    let client = first.client()?;
    let mut took = Vec::new();
    for number in 0..APPENDS {
        tokio::time::sleep(PAUSE).await;
        let event = EmitEvent { kind: "telemetry.sample".to_owned(), value: json!(number) };
        let begun = Instant::now();
        let written = client.emit(&event).await?;
        let id = written.events.first().context("an append writes an event")?.id.clone();
        let (mut shown, mut last) = (0, begun);
        while shown < others.len() {
            let Ok(Some(seen)) = timeout(TRAVEL_MAX, sightings.recv()).await else {
                bail!("{shown} of {} nodes show an event", others.len());
            };
            // Others are what the nodes said of themselves.
            if seen.id == id {
                (shown, last) = (shown + 1, last.max(seen.at));
            }
        }
        took.push(last.duration_since(begun).as_secs_f64() * 1000.0);
    }
    followers.shutdown().await;
    let after = deliveries(others).await?;
    let (new, again) = (after.0 - before.0, after.1 - before.1);
    Ok(Travels { took, deliveries: (new + again) / new })
}

async fn follow(mut stream: EventStream, seen: mpsc::UnboundedSender<Seen>) {
    while let Ok(Some(event)) = stream.next().await {
        if seen.send(Seen { id: event.id, at: Instant::now() }).is_err() {
            return;
        }
    }
}

/// Tells every node of the first one, and waits until all hold what all have said of themselves and
/// are linked.
async fn join(cluster: &Cluster) -> Result<()> {
    let (first, others) = cluster.nodes.split_first().context("a cluster has nodes")?;
    let ticket = first.identity().await?.ticket;
    for node in others {
        node.client()?.add_peer(&ticket).await?;
    }
    let nodes: Vec<_> = cluster.nodes.iter().collect();
    let all = nodes.len() as u64;
    wait::until("all nodes to know all", JOIN_MAX, || {
        let nodes = nodes.clone();
        async move {
            for node in nodes {
                let status = node.status().await.map_err(|error| format!("{error:#}"))?;
                if status.events < all || status.peers == 0 {
                    return Err(crate::node::brief(&status));
                }
            }
            Ok(())
        }
    })
    .await
}
