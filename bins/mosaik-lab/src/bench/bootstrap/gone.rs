//! Slots whose holders died without a word: their leases last for up to an hour more.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mosaik_api::document::PeerState;
use tokio::task::JoinSet;

use super::{
    broken_after,
    site::{Site, first_peer_s, holds_slot},
    times,
};
use crate::{
    Node,
    bench::{
        figure::{Figure, progress},
        place::{Directory, Place},
    },
    wait,
};

/// How many runs of two nodes go on at the same time. They mostly wait.
const PAIRS_AT_A_TIME: usize = 10;
const PAIR_MAX_S: f64 = 50.0;

/// Live leases that make others need no slot.
const HOLDERS: usize = 8;
/// Who lives on.
const OTHERS: usize = 4;
/// With how many of the holders each of them has a session.
const SESSIONS_MIN: usize = 4;
/// How long that may take before something is broken.
const SESSIONS: Duration = Duration::from_secs(120);
/// How many runs with all of these go on at the same time.
const KILLS_AT_A_TIME: usize = 4;
const LINKED_MAX_S: f64 = 45.0;
/// So many slots are to be those of living nodes again.
const SLOTS_MIN: usize = 4;
const SLOTS_MAX_S: f64 = 90.0;

/// Two nodes come to a chain of sixteen leases whose holders are gone, and meet.
///
/// # Errors
///
/// If a node doesn't start, or meets nobody in ten times the time.
pub async fn sixteen_dead(place: &Place, runs: usize) -> Result<Vec<Figure>> {
    let case = "16 dead, two meet";
    progress(format_args!("bootstrap: {case}"));
    let took = side_by_side(place, runs, PAIRS_AT_A_TIME, two_among_dead).await?;
    Ok(times(case, &took, None, PAIR_MAX_S))
}

async fn two_among_dead(directory: Directory) -> Result<f64> {
    let mut site = Site::new(directory).await?;
    site.slots.fill_free_with_dead()?;
    site.start(2).await?;
    let mut last = 0.0_f64;
    for node in &site.cluster.nodes {
        last = last.max(first_peer_s(node, PAIR_MAX_S).await?);
    }
    site.cluster.stop().await?;
    Ok(last)
}

/// All who hold a slot are killed at once while four others live, and leases of nodes that were gone
/// before are in all other slots. A newcomer finds the four, and they take slots.
///
/// # Errors
///
/// If a node doesn't start, or anything takes ten times its time.
pub async fn holders_killed(place: &Place, runs: usize) -> Result<Vec<Figure>> {
    progress("bootstrap: all holders killed");
    let took = side_by_side(place, runs, KILLS_AT_A_TIME, after_a_kill).await?;
    let (linked, taken): (Vec<f64>, Vec<f64>) = took.into_iter().unzip();
    let mut figures = times("killed, newcomer", &linked, None, LINKED_MAX_S);
    figures.extend(times("killed, 4 slots", &taken, None, SLOTS_MAX_S));
    Ok(figures)
}

/// From the start of a newcomer to its first peer, and from the kill before it to four slots of living
/// nodes.
async fn after_a_kill(directory: Directory) -> Result<(f64, f64)> {
    let mut site = Site::new(directory).await?;
    site.start_holders(HOLDERS).await?;
    let holders = ids(&site.cluster.nodes).await?;
    site.slots.fill_free_with_dead()?;
    site.start(OTHERS).await?;
    let mut living = ids(&site.cluster.nodes[HOLDERS..]).await?;
    for node in &site.cluster.nodes[HOLDERS..] {
        has_sessions_with(node, &holders).await?;
        ensure!(!holds_slot(node).await?, "{} is in a slot before anybody was killed", node.name());
    }
    let killed = Instant::now();
    site.kill_first(HOLDERS).await?;
    let newcomer = site.cluster.add_node()?;
    newcomer.start().await?;
    living.insert(newcomer.identity().await?.node);
    let newcomer = &site.cluster.nodes[HOLDERS + OTHERS];
    let taken = async {
        wait::until("slots of living nodes", broken_after(SLOTS_MAX_S), async || {
            let holders = site.slots.holders().map_err(|error| format!("{error:#}"))?;
            let held = holders.keys().filter(|node| living.contains(&node.to_string())).count();
            if held >= SLOTS_MIN { Ok(()) } else { Err(format!("{held} slots")) }
        })
        .await?;
        Ok(killed.elapsed().as_secs_f64())
    };
    let measured = tokio::try_join!(first_peer_s(newcomer, LINKED_MAX_S), taken)?;
    site.cluster.stop().await?;
    Ok(measured)
}

async fn ids(nodes: &[Node]) -> Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    for node in nodes {
        ids.insert(node.identity().await?.node);
    }
    Ok(ids)
}

/// Waits until a node has sessions with enough of these.
async fn has_sessions_with(node: &Node, ids: &BTreeSet<String>) -> Result<()> {
    wait::until("sessions with holders", SESSIONS, async || {
        let peers = node.peers().await.map_err(|error| format!("{error:#}"))?.peers;
        let open = peers.iter().filter(|peer| peer.state == PeerState::Connected);
        let sessions = open.filter(|peer| ids.contains(&peer.id)).count();
        if sessions >= SESSIONS_MIN { Ok(()) } else { Err(format!("{sessions} sessions")) }
    })
    .await
}

/// Plays a case so many times, some at a time, each in a directory of its own.
async fn side_by_side<T, F>(
    place: &Place,
    runs: usize,
    at_a_time: usize,
    play: impl Fn(Directory) -> F,
) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let (mut playing, mut done) = (JoinSet::new(), Vec::new());
    for _ in 0..runs {
        if playing.len() >= at_a_time
            && let Some(ended) = playing.join_next().await
        {
            done.push(ended??);
        }
        playing.spawn(play(place.directory()?));
    }
    while let Some(ended) = playing.join_next().await {
        done.push(ended??);
    }
    Ok(done)
}
