//! What is promised of radio, measured: for the tests, which assert it, and for the benchmark, which
//! prints it. Each is none where nodes don't agree in time.

use mosaik_reticulum::airtime::{Channel, HOUR_MS};

use super::{Island, Setup};

/// Bytes of an event's payload, at random: nothing compresses them.
const PAYLOAD_LEN: usize = 100;
/// How long anything may take, in milliseconds.
const GIVE_UP_MS: u64 = 12 * HOUR_MS;
/// Hours that idle nodes are watched.
const IDLE_HOURS: u64 = 6;

/// What a sync came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Synced {
    /// From the start of both nodes until they held the same.
    pub took_ms: u64,
    /// Milliseconds on air, links and announces included.
    pub air_ms: u64,
    /// Bytes on air.
    pub bytes: u64,
}

/// Two nodes start, of which one holds so many events of 100 bytes, each written by itself.
pub fn history(setup: &Setup, events: usize) -> Option<Synced> {
    let mut island = Island::new(setup);
    island.write(0, events, PAYLOAD_LEN);
    let took_ms = island.converge(GIVE_UP_MS)?;
    let used = island.on_air();
    Some(Synced { took_ms, air_ms: used.air_ms, bytes: used.bytes })
}

/// Bytes on air of one new event and its acknowledgement, where two nodes have a link and know each
/// other's feeds.
pub fn one_event(setup: &Setup) -> Option<u64> {
    let mut island = Island::new(setup);
    island.write(0, 1, PAYLOAD_LEN);
    island.write(1, 1, PAYLOAD_LEN);
    island.converge(GIVE_UP_MS)?;
    island.run(60_000);
    let before = island.on_air().bytes;
    island.write(0, 1, PAYLOAD_LEN);
    island.converge(GIVE_UP_MS)?;
    island.run(30_000);
    Some(island.on_air().bytes - before)
}

/// What one new event at each node in turn costs, where all are linked and nothing else is said: bytes and
/// milliseconds on air for each, with all that follows it, and the milliseconds until all held it.
pub fn one_in_turn(setup: &Setup) -> Option<Synced> {
    let mut island = Island::new(setup);
    (0..setup.nodes).for_each(|node| island.write(node, 1, PAYLOAD_LEN));
    island.converge(GIVE_UP_MS)?;
    // Each has announced itself anew, and links are younger than that they would end.
    island.run(HOUR_MS / 12);
    let (before, count) = (island.on_air(), setup.nodes as u64);
    let mut took_ms = 0;
    for node in 0..setup.nodes {
        let began_ms = island.now_ms();
        island.write(node, 1, PAYLOAD_LEN);
        took_ms += island.converge(GIVE_UP_MS)? - began_ms;
        island.run(60_000);
    }
    let after = island.on_air();
    let (bytes, air_ms) = (after.bytes - before.bytes, after.air_ms - before.air_ms);
    Some(Synced { took_ms: took_ms / count, air_ms: air_ms / count, bytes: bytes / count })
}

/// Milliseconds until all nodes hold the event that each of them wrote before they met.
pub fn one_each(setup: &Setup) -> Option<u64> {
    let mut island = Island::new(setup);
    (0..setup.nodes).for_each(|node| island.write(node, 1, PAYLOAD_LEN));
    island.converge(GIVE_UP_MS)
}

/// Milliseconds on air an hour of nodes that have agreed and write nothing.
pub fn idle(setup: &Setup) -> Option<u64> {
    let mut island = Island::new(setup);
    (0..setup.nodes).for_each(|node| island.write(node, 1, PAYLOAD_LEN));
    island.converge(GIVE_UP_MS)?;
    island.run(HOUR_MS);
    let before_ms = island.on_air().air_ms;
    island.run(IDLE_HOURS * HOUR_MS);
    Some((island.on_air().air_ms - before_ms) / IDLE_HOURS)
}

/// How often an event from outside is said over radio for each node that can have it only so, in an island
/// of which two nodes have internet.
pub fn crossings(bitrate: u32, seed: u64, broadcasts: bool) -> Option<f64> {
    // Where the two stand in the order of hashes decides who is linked to whom.
    let bridges = [[4, 5], [0, 5], [0, 1], [1, 3]][seed as usize % 4];
    let (outside, inside) = (6, 2);
    let setup = Setup {
        nodes: 7,
        online: vec![bridges[0], bridges[1], outside],
        mute: vec![outside],
        ..Setup::pair(Channel::of_bitrate(bitrate), bitrate, seed).with_nodes(7, broadcasts)
    };
    let mut island = Island::new(&setup);
    (0..setup.nodes).for_each(|node| island.write(node, 1, PAYLOAD_LEN));
    island.converge(GIVE_UP_MS)?;
    island.run(HOUR_MS / 6);
    for _ in 0..10 {
        island.write(outside, 1, PAYLOAD_LEN);
        island.write(inside, 1, PAYLOAD_LEN);
        island.run(120_000);
    }
    island.converge(GIVE_UP_MS)?;
    island.run(HOUR_MS / 6);
    Some(island.said(outside) / 4.0)
}
