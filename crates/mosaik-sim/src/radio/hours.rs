//! What a node sends in its busiest hour, by kind: what its share of the air is held against.

use std::collections::BTreeMap;

use mosaik_reticulum::airtime::HOUR_MS;

use super::{Island, Setup, Used};

/// Hours that nodes are watched.
const HOURS: u64 = 2;
/// What each node has to say of more than fits: at SF8 ten percent of an hour carries 63 kB.
const EVENTS: usize = 200;
const PAYLOAD_LEN: usize = 1_000;

/// What there is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// An event each, and nothing more.
    Idle,
    /// More than fits into the hours.
    TooMuch,
}

/// Of the node that sends most in an hour, that hour by kind. None where nothing of what two have to say
/// came through.
pub fn busiest(setup: &Setup, load: Load) -> Option<BTreeMap<&'static str, Used>> {
    let mut island = Island::new(setup);
    for node in 0..setup.nodes {
        match load {
            Load::Idle => island.write(node, 1, 100),
            Load::TooMuch => island.write(node, EVENTS, PAYLOAD_LEN),
        }
    }
    island.run(HOURS * HOUR_MS);
    let has_come = (1..setup.nodes).any(|node| island.held(node, 0) > 0);
    let hours = (0..setup.nodes).map(|node| island.busiest_hour(node));
    hours.filter(|_| has_come || setup.is_flooded).max_by_key(air_ms)
}

/// Milliseconds on air of all kinds.
pub fn air_ms(hour: &BTreeMap<&'static str, Used>) -> u64 {
    hour.values().map(|used| used.air_ms).sum()
}
