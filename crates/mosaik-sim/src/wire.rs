//! What simulated carriers do with effects: dial, send, cut, pass hints on.

use mosaik_core::{
    event::{Hasher, Payload},
    id::NodeId,
    run::{Run, VerifiedRun},
};
use mosaik_proto::{
    carrier::{Effect, Input, Role, SessionId},
    hint::Hint,
    message::Message,
};
use rand::RngExt;

use crate::{
    cluster::{Cluster, Nature, Timed},
    network::End,
};

impl Cluster {
    pub(crate) fn carry(&mut self, index: usize, effect: Effect) {
        match effect {
            Effect::Send { session, frame } => self.send(End { node: index, session }, frame),
            Effect::Close { session, bye } => {
                let end = End { node: index, session };
                self.send(end, Message::Bye(bye).encode());
                self.close(end);
            }
            Effect::Dial { peer, .. } => self.soon(Timed::Dial(index, peer)),
            Effect::Gossip(hint) => self.gossip(index, hint),
            Effect::Opened { peer, .. } if self.weather.gossip => {
                self.soon(Timed::Neighbour(index, peer));
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
        if found.is_empty() || self.nodes[from].replica.is_none() {
            let reason = "no answer".into();
            self.step(from, Some(Input::DialFailed { peer: to, reason }));
            return;
        }
        let to = found[self.rng.random_range(0..found.len())];
        let (a, b) = (self.new_end(from), self.new_end(to));
        self.network.connect(a, b);
        let binding: Vec<u8> = (0..32).map(|_| self.rng.random()).collect();
        for (end, other, role) in [(a, to, Role::Dialer), (b, from, Role::Listener)] {
            let (peer, binding) = (self.id(other), binding.clone());
            let session = end.session;
            self.step(end.node, Some(Input::Connected { session, peer, role, binding }));
        }
    }

    fn new_end(&mut self, node: usize) -> End {
        self.nodes[node].next_session += 1;
        End { node, session: SessionId(self.nodes[node].next_session) }
    }

    fn send(&mut self, from: End, frame: Vec<u8>) {
        let frames = match self.nodes[from.node].nature {
            Nature::Hostile => self.corrupt(frame),
            Nature::Honest | Nature::Foreign => vec![frame],
        };
        for frame in frames {
            self.send_frame(from, frame);
        }
    }

    fn send_frame(&mut self, from: End, mut frame: Vec<u8>) {
        let Some(to) = self.network.other(from) else { return };
        self.network.count(from, frame.len());
        self.soon(Timed::Sent(from, frame.len()));
        let is_cut = self.rng.random_range(0..1000) < self.weather.cut;
        if is_cut {
            frame.truncate(self.rng.random_range(0..frame.len()));
        }
        let half = frame.split_off(self.rng.random_range(0..=frame.len()));
        for bytes in [frame, half] {
            let earliest_ms = self.now_ms + self.rng.random_range(0..=self.weather.latency_ms * 2);
            let at_ms = self.network.arrival_ms(to, earliest_ms);
            self.at(at_ms, Timed::Bytes(to, bytes));
        }
        if is_cut {
            self.close(from);
        }
    }

    pub(crate) fn receive(&mut self, end: End, bytes: &[u8]) {
        let session = end.session;
        match self.network.receive(end, bytes) {
            Ok(frames) => {
                for frame in frames {
                    let input = match Message::decode(&frame, &self.nodes[end.node].hasher) {
                        Ok(message) => Input::Frame { session, message },
                        Err(error) => Input::BadFrame { session, error },
                    };
                    self.step(end.node, Some(input));
                }
            }
            Err(error) => self.step(end.node, Some(Input::BadFrame { session, error })),
        }
    }

    /// Ends a connection; what is under way still arrives, then both ends notice.
    pub(crate) fn close(&mut self, end: End) {
        let Some(ends) = self.network.close(end) else { return };
        for end in ends {
            let earliest_ms = self.now_ms + self.rng.random_range(0..=self.weather.latency_ms * 2);
            let at_ms = self.network.arrival_ms(end, earliest_ms);
            self.at(at_ms, Timed::Closed(end));
        }
    }

    fn gossip(&mut self, from: usize, hint: Hint) {
        let hint = match hint {
            Hint::Run(run) if self.rng.random_range(0..100) < self.weather.stripped => {
                Hint::Run(stripped(&run, &self.nodes[from].hasher))
            }
            hint => hint,
        };
        let bytes = hint.encode(self.rng.random());
        let id = self.id(from);
        for node in 0..self.nodes.len() {
            let reached = self.island.contains(&node) == self.island.contains(&from)
                && self.nodes[node].config.keys == self.nodes[from].config.keys;
            if node != from && reached && self.rng.random_range(0..100) >= self.weather.hint_loss {
                self.soon(Timed::Hint(node, id, bytes.clone()));
            }
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
