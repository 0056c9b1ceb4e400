//! `bench bootstrap`: how soon nodes find each other through the 16 slots alone.
//!
//! The DHT has twenty nodes of this process, two of them silent; there is no relay. Nodes are processes
//! of their own but where a hundred start at once. Nodes that are gone are sockets that never answer.
//!
//! The cases: one live slot of 16, alone and among 15 of dead nodes; 16 forged slots and a ticket; a peer
//! cache and no DHT; from a claim to a reader that sees it, on storage nodes of each kind; 2, 10, 35 and 100
//! nodes together on an empty chain; two that come to 16 slots of dead nodes; all holders killed while four
//! others live; a peer cache and gossip full of nodes that are gone.
//!
//! Each is a function that plays it so many times and returns figures beside what is promised: the
//! benchmark plays it often, and tests once. Claims have tests of their own.
//!
//! Source: BEP 44 for what storage nodes do.

mod claims;
mod flooded;
mod ghosts;
mod gone;
mod site;
mod slots;
mod together;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use mosaik_api::document::PeerState;
use mosaik_core::key::SLOTS;

use self::site::{Site, first_peer_s};
pub use self::{
    flooded::flooded,
    gone::{holders_killed, sixteen_dead},
    together::together,
};
use super::{
    Run,
    figure::{Figure, TIME_ROOM, progress},
    limits::{median, quantile},
    place::Place,
};
use crate::wait;

/// How long the end of a killed process may take to be noticed: QUIC's idle time, several times.
const MISSED_MAX: Duration = Duration::from_secs(60);
/// How often each case is played.
const RUNS: usize = 20;

pub(super) async fn all(run: &mut Run) -> Result<()> {
    run.report.add_all(&one_live(&run.place, RUNS).await?);
    run.report.add_all(&fifteen_dead(&run.place, RUNS).await?);
    run.report.add_all(&forged(&run.place, RUNS).await?);
    run.report.add_all(&peer_cache(&run.place, RUNS).await?);
    claims::all(run).await?;
    run.report.add_all(&together(&run.place).await?);
    run.report.add_all(&sixteen_dead(&run.place, RUNS).await?);
    run.report.add_all(&holders_killed(&run.place, RUNS).await?);
    run.report.add_all(&flooded(&run.place, RUNS).await?);
    Ok(())
}

fn figure(case: &str, metric: &'static str, value: f64, unit: &'static str) -> Figure {
    Figure::new("bootstrap", case, metric, value, unit)
}

fn count(case: &str, metric: &'static str, value: usize) -> Figure {
    figure(case, metric, value as f64, "")
}

/// How long it took in all runs of a case. One run has no median.
fn times(case: &str, took_s: &[f64], p50_max_s: Option<f64>, p95_max_s: f64) -> Vec<Figure> {
    let mut figures = vec![count(case, "runs", took_s.len())];
    if took_s.len() > 1 {
        let p50 = figure(case, "p50_s", median(took_s), "s");
        figures.push(match p50_max_s {
            Some(max_s) => p50.at_most(max_s),
            None => p50,
        });
    }
    figures.push(figure(case, "p95_s", quantile(took_s, 0.95), "s").at_most(p95_max_s));
    figures
}

/// How long to wait for what is promised within so many seconds, before something is broken.
fn broken_after(promised_s: f64) -> Duration {
    Duration::from_secs_f64(promised_s * TIME_ROOM)
}

/// A newcomer finds the one node there is, in one of 16 slots.
///
/// # Errors
///
/// If a node doesn't start, or meets nobody in ten times the time.
pub async fn one_live(place: &Place, runs: usize) -> Result<Vec<Figure>> {
    const P95_MAX_S: f64 = 1.0;
    let case = "1 live of 16";
    progress(format_args!("bootstrap: {case}"));
    let mut site = Site::new(place.directory()?).await?;
    site.start_holders(1).await?;
    let mut took = Vec::new();
    for _ in 0..runs {
        took.push(site.newcomer(&[], P95_MAX_S).await?.took_s);
    }
    site.cluster.stop().await?;
    Ok(times(case, &took, Some(0.3), P95_MAX_S))
}

/// The same, where the other 15 slots have leases of nodes that are gone.
///
/// # Errors
///
/// If a node doesn't start, or meets nobody in ten times the time.
pub async fn fifteen_dead(place: &Place, runs: usize) -> Result<Vec<Figure>> {
    const P95_MAX_S: f64 = 1.5;
    let case = "15 dead 1 live";
    progress(format_args!("bootstrap: {case}"));
    let mut site = Site::new(place.directory()?).await?;
    site.start_holders(1).await?;
    site.slots.fill_free_with_dead()?;
    let mut took = Vec::new();
    for _ in 0..runs {
        took.push(site.newcomer(&[], P95_MAX_S).await?.took_s);
    }
    site.cluster.stop().await?;
    Ok(times(case, &took, None, P95_MAX_S))
}

/// Rubbish in all slots, and a ticket as the one other source.
///
/// # Errors
///
/// If a node doesn't start, or doesn't join in ten times the time.
pub async fn forged(place: &Place, runs: usize) -> Result<Vec<Figure>> {
    const P95_MAX_S: f64 = 5.0;
    let case = "16 forged 1 ticket";
    progress(format_args!("bootstrap: {case}"));
    let mut site = Site::new(place.directory()?).await?;
    let good_leases = site.slots.fill_with_forged()?;
    let node = site.cluster.add_node()?;
    node.start().await?;
    let ticket = ["--peer".to_owned(), node.identity().await?.ticket];
    let (mut took, mut dialed, mut dials) = (Vec::new(), 0, 0);
    for _ in 0..runs {
        let met = site.newcomer(&ticket, P95_MAX_S).await?;
        took.push(met.took_s);
        dialed = dialed.max(met.dials.iter().filter(|dials| **dials > 0).count());
        dials = dials.max(met.dials.into_iter().max().unwrap_or_default());
    }
    site.cluster.stop().await?;
    let mut figures = times(case, &took, None, P95_MAX_S);
    figures.push(count(case, "slots_dialed_max", dialed).at_most(good_leases as f64));
    figures.push(count(case, "dials_a_slot_max", dials).at_most(1.0));
    Ok(figures)
}

/// Two that have met before, and no DHT.
///
/// # Errors
///
/// If a node doesn't start, or doesn't meet the other in ten times the time.
pub async fn peer_cache(place: &Place, runs: usize) -> Result<Vec<Figure>> {
    const P95_MAX_S: f64 = 0.3;
    let case = "peer cache no DHT";
    progress(format_args!("bootstrap: {case}"));
    let directory = place.directory()?;
    let mut cluster = directory.cluster(2).await?;
    cluster.start().await?;
    let ticket = cluster.nodes[0].identity().await?.ticket;
    cluster.nodes[1].client()?.add_peer(&ticket).await?;
    first_peer_s(&cluster.nodes[1], P95_MAX_S).await?;
    let mut took = Vec::new();
    for _ in 0..runs {
        cluster.nodes[1].kill().await?;
        // A peer has some places for sessions, and each that died takes one until it is noticed.
        wait::until("the killed node to be missed", MISSED_MAX, async || {
            let client = cluster.nodes[0].client().map_err(|error| format!("{error:#}"))?;
            let peers = client.peers().await.map_err(|error| error.to_string())?.peers;
            let connected = peers.iter().filter(|peer| peer.state == PeerState::Connected).count();
            if connected == 0 { Ok(()) } else { Err("it counts as connected".to_owned()) }
        })
        .await?;
        let node = &mut cluster.nodes[1];
        node.launch()?;
        took.push(first_peer_s(node, P95_MAX_S).await?);
    }
    cluster.stop().await?;
    Ok(times(case, &took, None, P95_MAX_S))
}

fn unix_s() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is not set")?.as_secs())
}

/// All numbers of slots.
fn numbers() -> impl Iterator<Item = u8> {
    (0..SLOTS).map(|slot| slot as u8)
}
