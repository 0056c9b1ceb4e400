//! Probes as the owner sees them: what was asked here, what has come of it, and what came from others.

use std::{collections::BTreeMap, time::Instant};

use mosaik_api::document;
use mosaik_net::Via;
use mosaik_proto::{
    carrier::{Effect, Input},
    message::{Message, SessionWay},
    replica::Replica,
};
use tokio::sync::oneshot;
use tracing::{debug, info};

use crate::{carrier::Carriers, observation::Observation};

type Reply = oneshot::Sender<Result<document::Probe, String>>;

/// The last probe of this node, and who waits for one to be sent.
#[derive(Debug, Default)]
pub(super) struct Probing {
    asked: BTreeMap<u64, Reply>,
    last: Option<(Instant, Observation)>,
}

impl Probing {
    pub(super) fn ask(&mut self, token: u64, reply: Reply) {
        self.asked.insert(token, reply);
    }

    /// Whoever waits is told that nothing came of it.
    pub(super) fn clear(&mut self) {
        self.asked.clear();
    }

    /// What has come so far of the last probe.
    pub(super) fn report(
        &self,
        replica: Option<&Replica>,
        wall_ms: u64,
    ) -> Option<document::Probe> {
        let (since, observation) = self.last.as_ref()?;
        let peers = replica.into_iter().flat_map(|replica| replica.peers().iter());
        Some(observation.report(since.elapsed(), peers, wall_ms))
    }

    /// Takes note of an effect that tells of a probe.
    pub(super) fn note(&mut self, effect: Effect, replica: Option<&Replica>, wall_ms: u64) {
        match effect {
            Effect::ProbeBegun { token, result } => {
                let reply = self.asked.remove(&token);
                let answer = result.map(|probe| {
                    info!(probe = %probe.id, "a probe was sent");
                    let last = (Instant::now(), Observation::new(&probe));
                    let peers = replica.into_iter().flat_map(|replica| replica.peers().iter());
                    let report = last.1.report(last.0.elapsed(), peers, wall_ms);
                    self.last = Some(last);
                    report
                });
                if let Some(reply) = reply {
                    // Whoever asked may be gone.
                    let _ = reply.send(answer);
                }
            }
            Effect::ProbeAnswered { answer, clock_offset_ms } => {
                if let Some((since, observation)) = &mut self.last {
                    observation.take(answer, clock_offset_ms, since.elapsed());
                }
            }
            Effect::ProbeCame { id, from, hops } => {
                debug!(probe = %id, from = from.short(), hops, "a probe came");
            }
            _ => {}
        }
    }
}

/// Where the answer to an input tells of the way of its session: that way, for the replica.
pub(super) fn way(input: &Input, carriers: &Carriers) -> Option<Input> {
    let Input::Frame { session, message: Message::Probe(_) } = input else { return None };
    let way = match carriers.path(*session)?.via {
        Via::Lan => SessionWay::Lan,
        Via::Direct => SessionWay::Direct,
        Via::Relay => SessionWay::Relay,
    };
    Some(Input::Way { session: *session, way })
}
