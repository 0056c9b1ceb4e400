//! What a probe has shown so far.
//!
//! Invariants:
//! - Answers stand in the order in which they came, and so by their round trip.
//! - A percentile is a time that was measured, never one between two.

use std::{collections::BTreeSet, time::Duration};

use mosaik_api::{
    SCHEMA,
    document::{self, Percentiles, ProbeAnswer, SilentNode},
};
use mosaik_core::id::NodeId;
use mosaik_proto::{
    message::{Probe, Probed},
    peers::{Peer, PeerState},
};

use crate::snapshot::shown_state;

/// How long after its last sign of life a peer counts as one that could answer, in milliseconds: nodes
/// tell of themselves every minute or two.
const SIGN_AGE_MAX_MS: u64 = 3_600_000;

/// A probe and the answers to it.
#[derive(Debug)]
pub(crate) struct Observation {
    probe: Probe,
    answered: BTreeSet<NodeId>,
    answers: Vec<ProbeAnswer>,
}

impl Observation {
    pub(crate) fn new(probe: &Probe) -> Self {
        Self { probe: probe.clone(), answered: BTreeSet::new(), answers: Vec::new() }
    }

    /// An answer came, so long after the sending. `clock_offset_ms` is its node's clock against ours.
    pub(crate) fn take(&mut self, answer: Probed, clock_offset_ms: Option<i64>, rtt: Duration) {
        let rtt_ms = rtt.as_secs_f64() * 1e3;
        let since_sent = |offset_ms: i64| {
            let received_ms = answer.received_ms as i128 - i128::from(offset_ms);
            (received_ms - i128::from(self.probe.sent_ms)) as f64
        };
        self.answered.insert(answer.node);
        self.answers.push(ProbeAnswer {
            id: answer.node.to_string(),
            hops: answer.hops,
            from: answer.from.to_string(),
            path: answer.way.as_str().map(str::to_owned),
            rtt_ms,
            propagation_ms: rtt_ms / 2.0,
            received_ms: answer.received_ms,
            received_after_ms: clock_offset_ms.map(since_sent),
            name: answer.name,
        });
    }

    /// The report, so long after the sending.
    pub(crate) fn report<'a>(
        &self,
        elapsed: Duration,
        peers: impl Iterator<Item = (&'a NodeId, &'a Peer)>,
        wall_ms: u64,
    ) -> document::Probe {
        let silent = peers
            .filter(|(node, peer)| !self.answered.contains(node) && is_known(peer, wall_ms))
            .map(|(node, peer)| SilentNode {
                id: node.to_string(),
                name: peer.introduction.name.clone(),
                state: shown_state(peer.state()),
            });
        let silent: Vec<SilentNode> = silent.collect();
        let times: Vec<f64> = self.answers.iter().map(|answer| answer.propagation_ms).collect();
        document::Probe {
            schema: SCHEMA,
            id: self.probe.id.to_string(),
            node: self.probe.origin.to_string(),
            sent_ms: self.probe.sent_ms,
            elapsed_ms: elapsed.as_secs_f64() * 1e3,
            known: (self.answers.len() + silent.len()) as u64,
            answered: self.answers.len() as u64,
            propagation_ms: percentiles(&times),
            answers: self.answers.clone(),
            silent,
        }
    }
}

fn is_known(peer: &Peer, wall_ms: u64) -> bool {
    match peer.state() {
        PeerState::Connected => true,
        PeerState::Left | PeerState::Blocked | PeerState::Refused => false,
        _ => wall_ms.saturating_sub(peer.last_sign_ms()) <= SIGN_AGE_MAX_MS,
    }
}

/// Of ascending times, by nearest rank.
fn percentiles(times: &[f64]) -> Option<Percentiles> {
    let at = |percent: usize| {
        let rank = (times.len() * percent).div_ceil(100);
        times.get(rank.saturating_sub(1)).copied()
    };
    Some(Percentiles { p50: at(50)?, p75: at(75)?, p90: at(90)?, p99: at(99)? })
}

#[cfg(test)]
mod tests {
    use mosaik_proto::message::{ProbeId, SessionWay};

    use super::*;

    const SENT_MS: u64 = 1_800_000_000_000;

    fn answer(node: u8, received_ms: u64) -> Probed {
        Probed {
            id: ProbeId([1; 16]),
            node: NodeId([node; 32]),
            name: format!("n{node}"),
            received_ms,
            hops: 2,
            from: NodeId([9; 32]),
            way: SessionWay::Relay,
        }
    }

    fn observation() -> Observation {
        let origin = NodeId([7; 32]);
        Observation::new(&Probe { id: ProbeId([1; 16]), origin, sent_ms: SENT_MS, hops: 1 })
    }

    #[test]
    fn a_round_trip_needs_no_clock_and_a_receive_time_is_corrected_where_the_clock_is_known() {
        let mut observed = observation();
        let rtt = Duration::from_millis(40);
        observed.take(answer(2, SENT_MS + 5_018), Some(5_000), rtt);
        // A clock of whom nothing is known, and an answer that is made up.
        observed.take(answer(3, 0), None, 2 * rtt);
        observed.take(answer(4, u64::MAX), Some(i64::MIN), 3 * rtt);
        let report = observed.report(4 * rtt, std::iter::empty(), SENT_MS);
        assert_eq!((report.known, report.answered), (3, 3));
        let [first, second, _] = &report.answers[..] else { panic!("{report:?}") };
        assert_eq!((first.rtt_ms, first.propagation_ms), (40.0, 20.0));
        assert_eq!((first.received_after_ms, second.received_after_ms), (Some(18.0), None));
        assert_eq!((first.path.as_deref(), first.hops), (Some("relay"), 2));
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        assert_eq!(percentiles(&[]), None);
        let one = Percentiles { p50: 3.0, p75: 3.0, p90: 3.0, p99: 3.0 };
        assert_eq!(percentiles(&[3.0]), Some(one));
        let times: Vec<f64> = (1..=100).map(f64::from).collect();
        let hundred = Percentiles { p50: 50.0, p75: 75.0, p90: 90.0, p99: 99.0 };
        assert_eq!(percentiles(&times), Some(hundred));
        let ten: Vec<f64> = (1..=10).map(f64::from).collect();
        let of_ten = Percentiles { p50: 5.0, p75: 8.0, p90: 9.0, p99: 10.0 };
        assert_eq!(percentiles(&ten), Some(of_ten));
    }
}
