//! `bench connections`: what connections that others open cost a node.
//!
//! Two cases, on loopback and without a DHT. Idle sessions are opened by members in this process, and the
//! node's own memory is looked at before and after. Then a node takes no more connections while strangers
//! dial it again and again: how long it takes to have a session with a newcomer that it is told of, beside
//! the same without strangers. The two take turns, and share the machine's cores with the strangers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ed25519_dalek::SigningKey;
use iroh::{
    Endpoint, EndpointAddr, EndpointId, RelayMode, SecretKey,
    endpoint::{PortmapperConfig, presets},
};
use mosaik_core::{
    id::NodeId,
    key::{Network, NetworkKeys},
};
use mosaik_proto::carrier::Addresses;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    Run,
    figure::{Figure, progress},
    limits::median,
    member::{Member, place_of},
    place::NETWORK,
    probe::rss_anon,
    scrape::Scrape,
};
use crate::{Node, wait};

/// Sessions opened before memory is looked at, so that what the first ones leave for good isn't counted.
const WARM: usize = 20;
/// Sessions that are counted. After 5 s a node lets the newest of more than 64 idle ones go.
const IDLE: usize = 200;
/// Dials at once: from 32 handshakes on a node has each address proven first.
const AT_ONCE: usize = 16;
/// Nodes, of which the middle one counts.
const NODES: usize = 3;
const BYTES_MAX: f64 = 128.0 * 1024.0;

/// Connections of the node that takes no more: members have them all.
const CAP: usize = 4;
/// How often strangers dial it, and from how many endpoints.
const ATTEMPTS: usize = 1_000;
const STRANGERS: usize = 4;
/// From one attempt to the next.
const ATTEMPT_EVERY: Duration = Duration::from_millis(5);
/// Each with as many attempts, and one without after it.
const ROUNDS: usize = 4;
/// How much longer a newcomer may wait.
const RATIO_MAX: f64 = 1.2;

/// How long anything may take before something is broken.
const STEP: Duration = Duration::from_secs(60);

type Place = (NodeId, Addresses);

pub(super) async fn all(run: &mut Run) -> Result<()> {
    let keys = Network::Public(NETWORK.to_owned()).keys();
    memory(run, &keys).await?;
    joins(run, &keys).await
}

fn figure(case: &str, metric: &'static str, value: f64, unit: &'static str) -> Figure {
    Figure::new("connections", case, metric, value, unit)
}

async fn memory(run: &mut Run, keys: &NetworkKeys) -> Result<()> {
    let case = format!("{IDLE} idle");
    let (mut before, mut each) = (Vec::new(), Vec::new());
    for at in 1..=NODES {
        progress(format_args!("connections: {IDLE} idle ones, node {at} of {NODES}"));
        let directory = run.place.directory()?;
        let mut cluster = directory.cluster(1).await?;
        cluster.start().await?;
        let node = cluster.nodes.first_mut().context("a cluster of one")?;
        let pid = node.process().context("it was started")?.pid();
        let place = place_of(node).await?;
        let mut members = Vec::new();
        for _ in 0..WARM + IDLE {
            members.push(Member::start(keys, &key(), false).await?);
        }
        let mut rest = members.split_off(WARM);
        open(&mut members, &place).await?;
        let warm = rss_anon(pid)? as f64;
        open(&mut rest, &place).await?;
        let (full, open) = (rss_anon(pid)? as f64, node.status().await?.peers);
        let counted = open.saturating_sub(WARM as u64) as f64;
        ensure!(counted >= IDLE as f64 / 2.0, "{open} sessions are open, this machine is too slow");
        before.push(warm);
        each.push((full - warm) / counted);
        cluster.stop().await?;
    }
    run.report.add(&figure(&case, "rss_anon_before_bytes", median(&before), "B"));
    run.report.add(&figure(&case, "bytes_a_connection", median(&each), "B").at_most(BYTES_MAX));
    Ok(())
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&rand::random())
}

/// Opens a session from each of these, some at a time.
async fn open(members: &mut [Member], place: &Place) -> Result<()> {
    for some in members.chunks_mut(AT_ONCE) {
        for member in &*some {
            member.dial(place.clone()).await?;
        }
        for member in some {
            member.opened().await?;
        }
    }
    Ok(())
}

async fn joins(run: &mut Run, keys: &NetworkKeys) -> Result<()> {
    let case = format!("{ATTEMPTS} refused");
    let directory = run.place.directory()?;
    let mut cluster = directory.cluster(1).await?;
    let node = cluster.nodes.first_mut().context("a cluster of one")?;
    node.arguments.extend(["--connections-max".to_owned(), CAP.to_string()]);
    node.start().await?;
    let place = place_of(node).await?;
    let mut members = Vec::new();
    for _ in 0..CAP {
        members.push(Member::start(keys, &key(), false).await?);
    }
    open(&mut members, &place).await?;
    let strangers = strangers().await?;

    let (mut quiet, mut flooded) = (Vec::new(), Vec::new());
    let refused_before = Scrape::of(&node.client()?).await?.get("connections_refused_total")?;
    for round in 1..=ROUNDS {
        progress(format_args!("connections: newcomers, round {round} of {ROUNDS}"));
        let flood = tokio::spawn(flood(strangers.clone(), place.clone()));
        let before = flooded.len();
        while !flood.is_finished() {
            flooded.push(join(node, keys).await?);
        }
        flood.await??;
        for _ in before..flooded.len() {
            quiet.push(join(node, keys).await?);
        }
    }
    let refused = Scrape::of(&node.client()?).await?.get("connections_refused_total")?;
    cluster.stop().await?;
    let (quiet, loud) = (median(&quiet), median(&flooded));
    run.report.add(&figure(&case, "newcomers", flooded.len() as f64, ""));
    let refused = figure(&case, "refused", refused - refused_before, "");
    run.report.add(&refused.at_least(ATTEMPTS as f64));
    run.report.add(&figure(&case, "join_quiet_p50_ms", quiet, "ms"));
    run.report.add(&figure(&case, "join_refusing_p50_ms", loud, "ms"));
    run.report.add(&figure(&case, "join_ratio", loud / quiet, "").at_most(RATIO_MAX));
    Ok(())
}

/// Milliseconds from when a node is told of a newcomer, which it then dials, to their open session.
async fn join(node: &Node, keys: &NetworkKeys) -> Result<f64> {
    let mut newcomer = Member::start(keys, &key(), false).await?;
    let (ticket, client) = (newcomer.ticket(), node.client()?);
    let told = Instant::now();
    client.add_peer(&ticket).await?;
    let took = newcomer.opened().await?.duration_since(told);
    let id = newcomer.id().to_string();
    newcomer.leave().await?;
    // Else the node dials it later on, while others are measured.
    wait::until("a newcomer to be forgotten", STEP, async || {
        client.forget(&id).await.map(drop).map_err(|error| error.to_string())
    })
    .await?;
    Ok(took.as_secs_f64() * 1000.0)
}

/// Endpoints that know nothing of the network.
async fn strangers() -> Result<Vec<Endpoint>> {
    let mut strangers = Vec::new();
    for _ in 0..STRANGERS {
        let stranger = Endpoint::builder(presets::Minimal)
            .secret_key(SecretKey::from_bytes(&rand::random()))
            .relay_mode(RelayMode::Disabled)
            .portmapper_config(PortmapperConfig::Disabled)
            .clear_ip_transports()
            .bind_addr("127.0.0.1:0")?
            .bind()
            .await?;
        strangers.push(stranger);
    }
    Ok(strangers)
}

/// One round's attempts, none of which may lead to a connection.
async fn flood(strangers: Vec<Endpoint>, (node, addresses): Place) -> Result<()> {
    let mut to = EndpointAddr::new(EndpointId::from_bytes(node.as_bytes())?);
    for address in addresses.direct {
        to = to.with_ip_addr(address);
    }
    let mut every = interval(ATTEMPT_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut attempts: JoinSet<Result<()>> = JoinSet::new();
    for stranger in strangers.iter().cycle().take(ATTEMPTS.div_ceil(ROUNDS)) {
        every.tick().await;
        let (stranger, to) = (stranger.clone(), to.clone());
        attempts.spawn(async move {
            let dialed = timeout(STEP, stranger.connect(to, mosaik_net::SYNC_ALPN)).await;
            ensure!(dialed.context("no answer")?.is_err(), "a stranger got a connection");
            Ok(())
        });
    }
    while let Some(attempt) = attempts.join_next().await {
        attempt??;
    }
    Ok(())
}
