//! W2: what it costs two nodes to find that they hold the same, or that a few feeds differ.
//!
//! Bytes and round trips are of two replicas in this process, on a wire that delivers all that is
//! under way at once: so they are exact, and the same in every run. Processor time and datagrams are
//! of two processes on loopback, with the QUIC handshake, gossip and both commits.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use mosaik_api::request::Condition;
use mosaik_core::{
    feed::{Branch, BranchId, Feed, Ledger, Tip},
    frontier::Frontier,
    id::{AuthorId, EventId},
    trie::{Prefix, Rule},
};
use mosaik_store::StoreError;

use super::{
    Run,
    figure::{Figure, progress},
    fill::{self, Content, Filling, fill},
    place::Directory,
    probe::{cpu_exact_s, rss_anon},
    scrape::{Scrape, until_events},
    wire::{Pair, Talk},
};
use crate::{Cluster, Node};

/// Feeds that differ, by one event each.
const DIFFERING: [u64; 3] = [0, 1, 10];
const AUTHORS: [u64; 3] = [1, 1_000, 100_000];
const EVENTS: u64 = 100_000;
/// How long a comparison may take on a machine that also builds.
const SYNC_MAX: Duration = Duration::from_secs(60);

/// Bytes each way where nothing differs, of sync and of UDP with the handshake.
const SAME_APP_MAX: f64 = 300.0;
const SAME_UDP_MAX: f64 = 6.0 * 1024.0;
/// Bytes both ways beside the runs: where one feed differs; ten, up to 1,000 authors; and beyond.
const ONE_MORE_MAX: f64 = 2.0 * 1024.0;
const TEN_MORE_MAX: f64 = 5.0 * 1024.0;
const TEN_OF_MANY_MORE_MAX: f64 = 8.0 * 1024.0;
/// Round trips after Hello, up to 1,000 authors and beyond.
const TRIPS_MAX: f64 = 4.0;
const TRIPS_OF_MANY_MAX: f64 = 5.0;
const CPU_S_MAX: f64 = 0.02;
/// Authors of a frontier alone, and the bytes of memory that each may take.
const ALONE_AUTHORS: u64 = 1_000_000;
const AUTHOR_BYTES_MAX: f64 = 200.0;

pub(super) async fn all(run: &mut Run) -> Result<()> {
    let events = run.events.unwrap_or(EVENTS);
    for authors in AUTHORS.into_iter().filter(|authors| *authors <= events) {
        let filling = Filling { authors, events, content: Content::Samples };
        progress(format_args!("W2 {}: filling two stores", filling.case()));
        let directory = run.place.directory()?;
        let ends = [directory.path().join("n1"), directory.path().join("n2")];
        fill(&ends[0], filling)?;
        copy_store(&ends[0], &ends[1])?;
        let differing = || DIFFERING.into_iter().filter(|differing| *differing <= authors);
        for differing in differing() {
            let mut pair = Pair::open(&ends, differing)?;
            let talk = pair.talk()?;
            report_talk(run, filling, differing, &talk);
        }
        meet(&directory).await?;
        for differing in differing() {
            progress(format_args!("W2 {}: {differing} feeds differ", filling.case()));
            let cost = processes(&directory, differing).await?;
            report_cost(run, filling, differing, &cost);
        }
    }
    Ok(())
}

/// What a frontier takes of this process's memory. To be measured before all else: memory that was
/// given back would be used again.
pub(super) fn frontier(run: &mut Run) -> Result<()> {
    progress(format_args!("W2: a frontier of {ALONE_AUTHORS} authors"));
    let case = format!("frontier of {ALONE_AUTHORS} authors");
    let bytes = frontier_bytes(ALONE_AUTHORS)? / ALONE_AUTHORS as f64;
    let figure = Figure::new("W2", case, "rss_anon_bytes_per_author", bytes, "B");
    run.report.add(&figure.at_most(AUTHOR_BYTES_MAX));
    Ok(())
}

/// Memory of this process that a frontier takes, its hashes included.
fn frontier_bytes(authors: u64) -> Result<f64> {
    let pid = std::process::id();
    let before = rss_anon(pid)?;
    let mut frontier = Frontier::new(Rule::frontier(&fill::network()?.keys().fingerprint));
    for number in 0..authors {
        let author = AuthorId(*blake3::hash(&number.to_be_bytes()).as_bytes());
        let tip = Tip { seq: 1, id: EventId(author.0) };
        let branch = Branch { id: BranchId(number as u32), author, parent: None, tip };
        frontier.insert(author, Feed::from(branch));
    }
    std::hint::black_box(frontier.hash(&Prefix::EMPTY, &BTreeSet::new()));
    Ok(rss_anon(pid)?.saturating_sub(before) as f64)
}

fn case(filling: Filling, differing: u64) -> String {
    match differing {
        0 => format!("{} same", filling.case()),
        1 => format!("{} 1 differs", filling.case()),
        _ => format!("{} {differing} differ", filling.case()),
    }
}

fn report_talk(run: &mut Run, filling: Filling, differing: u64, talk: &Talk) {
    let case = case(filling, differing);
    let is_many = filling.authors > 1_000;
    let figure = |metric, value, unit| Figure::new("W2", case.clone(), metric, value, unit);
    let [there, back] = talk.bytes.map(|bytes| bytes as f64);
    let runs = talk.run_bytes as f64;
    let app = match differing {
        0 => figure("app_bytes", there.max(back), "B").at_most(SAME_APP_MAX),
        differing => {
            let more = match (differing, is_many) {
                (1, _) => ONE_MORE_MAX,
                (_, false) => TEN_MORE_MAX,
                (_, true) => TEN_OF_MANY_MORE_MAX,
            };
            figure("app_bytes", there + back, "B").at_most(runs + more)
        }
    };
    run.report.add(&app);
    if differing > 0 {
        run.report.add(&figure("run_bytes", runs, "B"));
    }
    let trips = figure("round_trips", talk.round_trips, "");
    run.report.add(&trips.at_most(if is_many { TRIPS_OF_MANY_MAX } else { TRIPS_MAX }));
}

/// What a sync of two processes took.
struct Cost {
    cpu_s: f64,
    /// Datagrams each way.
    udp_bytes: [f64; 2],
}

fn report_cost(run: &mut Run, filling: Filling, differing: u64, cost: &Cost) {
    let figure =
        |metric, value, unit| Figure::new("W2", case(filling, differing), metric, value, unit);
    let wire = figure("wire_bytes", cost.udp_bytes[0].max(cost.udp_bytes[1]), "B");
    run.report.add(&if differing == 0 { wire.at_most(SAME_UDP_MAX) } else { wire });
    run.report.add(&figure("cpu_s", cost.cpu_s, "s").at_most(CPU_S_MAX));
}

/// Copies a store to a node that has none. The keys are left: it is another node.
fn copy_store(from: &Path, to: &Path) -> Result<()> {
    let (source, store) = fill::open(from)?;
    drop(store);
    let (target, store) = fill::open(to)?;
    drop(store);
    fs::copy(source.store(), target.store()).context("cannot copy a store")?;
    Ok(())
}

/// Lets both nodes run once, fold, and take the other's profile, so that they hold the same.
async fn meet(directory: &Directory) -> Result<()> {
    let mut cluster = directory.cluster(2).await?;
    cluster.start().await?;
    let met = async {
        let ticket = cluster.nodes[0].identity().await?.ticket;
        let counts = [cluster.nodes[0].status().await?, cluster.nodes[1].status().await?];
        cluster.nodes[1].client()?.add_peer(&ticket).await?;
        for (node, status) in cluster.nodes.iter().zip(&counts) {
            until_events(&node.client()?, status.events + 1, SYNC_MAX).await?;
        }
        anyhow::Ok(())
    };
    let met = met.await;
    cluster.stop().await?;
    met
}

/// One sync of two processes that hold the same but for some new events at the first.
async fn processes(directory: &Directory, differing: u64) -> Result<Cost> {
    for name in ["n1", "n2"] {
        let (_, mut store) = fill::open(&directory.path().join(name))?;
        // Otherwise they would dial each other by themselves.
        store.write(|batch| -> Result<(), StoreError> { batch.set_meta("peers", b"") })?;
        if name == "n1" {
            fill::lengthen(&mut store, differing)?;
        }
    }
    let mut cluster = directory.cluster(2).await?;
    cluster.start().await?;
    let cost = sync(&mut cluster).await;
    cluster.stop().await?;
    cost
}

async fn sync(cluster: &mut Cluster) -> Result<Cost> {
    let [listener, dialer] = cluster.nodes.as_mut_slice() else { anyhow::bail!("two nodes") };
    let pid = |node: &mut Node| anyhow::Ok(node.process().context("it was started")?.pid());
    let pids = [pid(listener)?, pid(dialer)?];
    let ticket = listener.identity().await?.ticket;
    let events = listener.status().await?.events;
    ensure!(dialer.status().await?.peers == 0, "the nodes have met before");
    let client = dialer.client()?;
    let before = Scrape::of(&client).await?;
    let cpu = || anyhow::Ok(cpu_exact_s(pids[0])? + cpu_exact_s(pids[1])?);
    let cpu_before = cpu()?;
    let waiting = client.wait(Condition::Synced, Some(SYNC_MAX));
    let (synced, added) = tokio::join!(waiting, client.add_peer(&ticket));
    synced?;
    added?;
    let after = until_events(&client, events, SYNC_MAX).await?;
    let cpu_s = cpu()? - cpu_before;
    let udp = |name| after.since(&before, name);
    Ok(Cost { cpu_s, udp_bytes: [udp("udp_bytes_sent_total")?, udp("udp_bytes_received_total")?] })
}
