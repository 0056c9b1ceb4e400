//! What nodes have beside their radios: sessions over an internet that loses nothing.

use std::collections::{BTreeMap, VecDeque};

use mosaik_proto::carrier::SessionId;

/// How long a frame takes, in milliseconds.
const LATENCY_MS: u64 = 50;

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Internet {
    /// The ends of each session.
    ends: BTreeMap<SessionId, (usize, usize)>,
    /// Frames under way: when they come, to whom.
    frames: VecDeque<(u64, usize, SessionId, Vec<u8>)>,
}

impl Internet {
    /// The pairs of these.
    pub(super) fn join(&self, online: &[usize]) -> Vec<(usize, usize)> {
        let pairs = |(at, a): (usize, &usize)| -> Vec<(usize, usize)> {
            online[at + 1..].iter().map(|b| (*a, *b)).collect()
        };
        online.iter().enumerate().flat_map(pairs).collect()
    }

    /// A session between two, numbered from 1.
    pub(super) fn session(&mut self, a: usize, b: usize) -> SessionId {
        let session = SessionId(self.ends.len() as u64 + 1);
        self.ends.insert(session, (a, b));
        session
    }

    /// Sends a frame, if it is of a session here.
    pub(super) fn send(
        &mut self,
        session: SessionId,
        from: usize,
        frame: &[u8],
        now_ms: u64,
    ) -> bool {
        let Some((a, b)) = self.ends.get(&session).copied() else { return false };
        let to = if from == a { b } else { a };
        self.frames.push_back((now_ms + LATENCY_MS, to, session, frame.to_vec()));
        true
    }

    pub(super) fn next_ms(&self) -> Option<u64> {
        self.frames.front().map(|(ms, ..)| *ms)
    }

    /// A frame that has come by now.
    pub(super) fn take(&mut self, now_ms: u64) -> Option<(usize, SessionId, Vec<u8>)> {
        self.next_ms().filter(|ms| *ms <= now_ms)?;
        let (_, to, session, frame) = self.frames.pop_front()?;
        Some((to, session, frame))
    }
}
