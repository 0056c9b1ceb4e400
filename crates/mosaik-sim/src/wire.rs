//! What simulated carriers do with effects: dial, send, cut, pass hints on.

use std::sync::Arc;

use mosaik_core::{
    event::{Hasher, Payload},
    id::NodeId,
    run::{Run, VerifiedRun},
};
use mosaik_proto::{
    carrier::{Effect, Input, Role, SessionId},
    hint::{Hint, INLINE_RUN_MAX},
    message::{FrameError, Message},
};
use rand::RngExt;

use crate::{
    cluster::{Cluster, Timed},
    network::End,
    node::Nature,
    weather::Gossip,
};

/// The type byte of a run's frame.
const RUN: u8 = 9;
/// How late a late hint comes, in milliseconds.
const LATE_MS: u64 = 20_000;
/// How much later than the other one end may notice that a connection is gone.
const LATE_END_MS: u64 = 120_000;

impl Cluster {
    pub(crate) fn carry(&mut self, index: usize, effect: Effect) {
        match effect {
            Effect::Send { session, frame, .. } => self.send(End { node: index, session }, frame),
            Effect::Close { session, bye } => {
                let end = End { node: index, session };
                self.send(end, Message::Bye(bye).encode());
                self.close(end);
            }
            Effect::Dial { peer, .. } => self.soon(index, Timed::Dial(index, peer)),
            Effect::Gossip(hint) => self.gossip(index, hint),
            Effect::Opened { peer, .. } if self.weather.gossip != Gossip::Nobody => {
                self.soon(index, Timed::Neighbour(index, peer));
            }
            Effect::Appended { author, events, .. } => {
                self.acknowledged.extend(events.into_iter().map(|tip| (author, tip)));
            }
            _ => {}
        }
    }

    pub(crate) fn dial(&mut self, from: usize, to: NodeId) {
        let up = |node: &usize| {
            *node != from
                && self.id(*node) == to
                && self.nodes[*node].replica.is_some()
                && self.island.contains(node) == self.island.contains(&from)
        };
        let found: Vec<usize> = (0..self.nodes.len()).filter(up).collect();
        let is_lost =
            self.weather.dial_loss > 0 && self.rng.random_range(0..100) < self.weather.dial_loss;
        if found.is_empty() || is_lost || self.nodes[from].replica.is_none() {
            return match self.weather.dial_ms {
                0 => self.no_answer(from, to),
                wait_ms => self.at(self.now_ms + wait_ms, Timed::NoAnswer(from, to)),
            };
        }
        let to = found[self.rng.random_range(0..found.len())];
        let (a, b) = (self.new_end(from), self.new_end(to));
        self.network.connect(a, b);
        let binding: Vec<u8> = (0..32).map(|_| self.rng.random()).collect();
        for (end, other, role) in [(a, to, Role::Dialer), (b, from, Role::Listener)] {
            let (peer, binding) = (self.id(other), binding.clone());
            let session = end.session;
            self.step(
                end.node,
                Some(Input::Connected { session, peer, role, binding, rtt_ms: None }),
            );
        }
    }

    pub(crate) fn no_answer(&mut self, from: usize, to: NodeId) {
        let reason = "no answer".into();
        self.step(from, Some(Input::DialFailed { peer: to, reason }));
    }

    fn new_end(&mut self, node: usize) -> End {
        self.nodes[node].next_session += 1;
        End { node, session: SessionId(self.nodes[node].next_session) }
    }

    fn send(&mut self, from: End, frame: Vec<u8>) {
        let frames = match self.nodes[from.node].nature {
            Nature::Hostile(temper) => self.twist(temper, frame),
            Nature::Honest | Nature::Foreign => vec![frame],
        };
        for frame in frames {
            self.send_frame(from, frame);
        }
    }

    fn send_frame(&mut self, from: End, mut frame: Vec<u8>) {
        let Some(to) = self.network.other(from) else { return };
        if self.network.is_dead(from) {
            return;
        }
        self.network.count(from, to, frame.len());
        self.soon(from.node, Timed::Sent(from, frame.len()));
        let is_cut = self.rng.random_range(0..1000) < self.weather.cut;
        if is_cut {
            frame.truncate(self.rng.random_range(0..frame.len()));
        }
        // Most frames come in one piece; some are met in two, at any byte.
        let half = if self.rng.random_bool(0.3) {
            frame.split_off(self.rng.random_range(0..=frame.len()))
        } else {
            Vec::new()
        };
        for bytes in [frame, half].into_iter().filter(|bytes| !bytes.is_empty()) {
            let earliest_ms = self.now_ms + self.delay_ms(from.node, to.node);
            let at_ms = self.network.arrival_ms(to, earliest_ms);
            self.network.send(to, bytes);
            self.at(at_ms, Timed::Bytes(to));
        }
        if is_cut {
            self.close(from);
        }
    }

    pub(crate) fn receive(&mut self, end: End) {
        let session = end.session;
        if self.nodes[end.node].replica.is_none() {
            return;
        }
        match self.network.receive(end) {
            Ok(frames) => {
                for frame in frames {
                    let input = match self.decode(end.node, frame) {
                        Ok(message) => Input::Frame { session, message },
                        Err(error) => Input::BadFrame { session, error },
                    };
                    self.step(end.node, Some(input));
                }
            }
            Err(error) => self.step(end.node, Some(Input::BadFrame { session, error })),
        }
    }

    fn decode(&mut self, node: usize, frame: Vec<u8>) -> Result<Message, FrameError> {
        let node = &self.nodes[node];
        if frame.first() != Some(&RUN) || node.nature == Nature::Foreign {
            return Message::decode(&frame, &node.hasher);
        }
        if let Some(message) = self.decoded.get(&frame) {
            return Ok(message.clone());
        }
        let message = Message::decode(&frame, &node.hasher)?;
        self.decoded.insert(frame, message.clone());
        Ok(message)
    }

    /// Ends a connection; what is under way still arrives, then both ends notice, one of them maybe late.
    pub(crate) fn close(&mut self, end: End) {
        let Some(ends) = self.network.close(end) else { return };
        self.tally.cuts += 1;
        let is_late = self.rng.random_range(0..100) < self.weather.late_end;
        let late = is_late
            .then(|| (ends[self.rng.random_range(0..2)], self.rng.random_range(0..LATE_END_MS)));
        for end in ends {
            let late_ms = late.filter(|(late, _)| *late == end).map_or(0, |(_, late_ms)| late_ms);
            let earliest_ms = self.now_ms + self.delay_ms(end.node, end.node) + late_ms;
            let at_ms = self.network.arrival_ms(end, earliest_ms);
            self.at(at_ms, Timed::Closed(end));
        }
    }

    /// One end notices that its connection is gone.
    pub(crate) fn closed(&mut self, end: End) {
        self.network.forget(end);
        let reason = "the connection broke".into();
        self.step(end.node, Some(Input::Disconnected { session: end.session, reason }));
    }

    fn gossip(&mut self, from: usize, hint: Hint) {
        let hint = match hint {
            Hint::Run(run) if self.rng.random_range(0..100) < self.weather.stripped => {
                let stripped = stripped(&run, &self.nodes[from].hasher);
                // Hashes of many short payloads are longer than these.
                let fits = stripped.encode().len() <= INLINE_RUN_MAX;
                Hint::Run(if fits { stripped } else { run })
            }
            hint => hint,
        };
        let bytes = hint.encode(self.rng.random());
        let node = &self.nodes[from];
        let hint = match hint {
            // Its signature says nothing new: it is checked now and then.
            Hint::Presence(_) if self.rng.random_range(0..16) > 0 => hint,
            _ => Hint::decode(&bytes, &node.hasher, &node.config.keys.fingerprint)
                .expect("what a replica tells can be read"),
        };
        let hint = Arc::new(hint);
        let connected = match self.weather.gossip {
            Gossip::Connected => Some(self.network.connected(from)),
            Gossip::Everybody | Gossip::Nobody => None,
        };
        for node in 0..self.nodes.len() {
            let reached = self.island.contains(&node) == self.island.contains(&from)
                && connected.as_ref().is_none_or(|connected| connected.contains(&node))
                && self.nodes[node].config.keys == self.nodes[from].config.keys;
            if node != from && reached {
                self.pass_on(from, node, &hint);
            }
        }
    }

    /// A hint on its way to one node: lost, doubled, late, or as it should be.
    fn pass_on(&mut self, from: usize, to: usize, hint: &Arc<Hint>) {
        let mut strikes = |in_hundred: u32| self.rng.random_range(0..100) < in_hundred;
        let (is_lost, is_doubled, is_late) = (
            strikes(self.weather.hint_loss),
            strikes(self.weather.hint_copies),
            strikes(self.weather.hint_late),
        );
        self.tally.hints_troubled += u64::from(is_lost || is_doubled || is_late);
        if is_lost {
            return;
        }
        self.doubled += u64::from(is_doubled);
        let id = self.id(from);
        for _ in 0..=u8::from(is_doubled) {
            let late_ms = if is_late { self.rng.random_range(0..LATE_MS) } else { 0 };
            let at_ms = self.now_ms + self.delay_ms(from, to) + late_ms;
            self.at(at_ms, Timed::Hint(to, id, hint.clone()));
        }
    }
}

/// A run without the payloads in it.
fn stripped(run: &VerifiedRun, hasher: &Hasher) -> VerifiedRun {
    let mut run = Run::of(run.events(), *run.signature());
    for entry in run.entries.iter_mut().filter(|entry| !entry.payload.is_empty()) {
        let (len, hash) = (entry.payload.len() as u32, entry.payload.hash());
        entry.payload = Payload::Absent { len, hash };
    }
    run.verify(hasher).expect("payloads stand outside the header")
}
