//! Streams between simulated nodes: ordered, delayed, cut at any byte.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mosaik_proto::{
    carrier::SessionId,
    message::{FrameError, Message, frame_len},
};

/// One end of a connection: which node, under which number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct End {
    pub(crate) node: usize,
    pub(crate) session: SessionId,
}

/// Frames of runs with what they say: to decode one gives the same at every node of a network, and
/// most of that time goes into signatures.
pub(crate) type Decoded = BTreeMap<Vec<u8>, Message>;

/// The bytes that have come on one end and are no whole frame yet, and those under way.
#[derive(Debug, Default)]
struct Incoming {
    bytes: Vec<u8>,
    under_way: VecDeque<Vec<u8>>,
    /// When the last bytes sent to this end arrive: a stream never overtakes itself.
    last_ms: u64,
}

/// All open connections, by either end.
#[derive(Debug, Default)]
pub(crate) struct Network {
    other: BTreeMap<End, End>,
    incoming: BTreeMap<End, Incoming>,
    /// Connections over which nothing goes any more, without anybody having noticed.
    dead: BTreeSet<End>,
    /// Bytes sent by each end to its other since [`Network::take_sent`].
    sent: BTreeMap<(End, End), usize>,
}

impl Network {
    pub(crate) fn connect(&mut self, a: End, b: End) {
        for (end, other) in [(a, b), (b, a)] {
            self.other.insert(end, other);
            self.incoming.insert(end, Incoming::default());
        }
    }

    /// The other end of an open connection.
    pub(crate) fn other(&self, end: End) -> Option<End> {
        self.other.get(&end).copied()
    }

    /// Closes a connection; gives both ends if it was open.
    pub(crate) fn close(&mut self, end: End) -> Option<[End; 2]> {
        let other = self.other.remove(&end)?;
        self.other.remove(&other);
        Some([end, other])
    }

    /// Lets nothing through any more; the ends don't know it yet.
    pub(crate) fn silence(&mut self, end: End) {
        self.dead.extend(self.other(end).into_iter().chain([end]));
    }

    /// Whether what is sent from this end arrives.
    pub(crate) fn is_dead(&self, end: End) -> bool {
        self.dead.contains(&end)
    }

    /// Nothing more comes to this end.
    pub(crate) fn forget(&mut self, end: End) {
        self.incoming.remove(&end);
        self.dead.remove(&end);
    }

    /// Notes bytes that are sent.
    pub(crate) fn count(&mut self, from: End, to: End, bytes: usize) {
        *self.sent.entry((from, to)).or_default() += bytes;
    }

    /// Bytes that each end has sent to its other since the last call, also where the connection is
    /// gone by now.
    pub(crate) fn take_sent(&mut self) -> BTreeMap<(End, End), usize> {
        std::mem::take(&mut self.sent)
    }

    /// All ends at `node`.
    pub(crate) fn ends_of(&self, node: usize) -> Vec<End> {
        self.other.keys().filter(|end| end.node == node).copied().collect()
    }

    /// One end of every connection.
    pub(crate) fn connections(&self) -> Vec<(End, End)> {
        self.other.iter().filter(|(a, b)| a < b).map(|(a, b)| (*a, *b)).collect()
    }

    /// All nodes to which a chain of connections leads from `node`, it among them.
    pub(crate) fn connected(&self, node: usize) -> BTreeSet<usize> {
        let alive = || self.other.iter().filter(|(end, _)| !self.is_dead(**end));
        let (mut reached, mut next) = (BTreeSet::from([node]), vec![node]);
        while let Some(from) = next.pop() {
            let others = alive().filter(|(end, _)| end.node == from).map(|(_, other)| other.node);
            next.extend(others.filter(|other| reached.insert(*other)));
        }
        reached
    }

    /// When something sent now with this delay arrives at `to`: never before what was sent earlier.
    pub(crate) fn arrival_ms(&mut self, to: End, earliest_ms: u64) -> u64 {
        let Some(incoming) = self.incoming.get_mut(&to) else { return earliest_ms };
        incoming.last_ms = incoming.last_ms.max(earliest_ms);
        incoming.last_ms
    }

    /// Bytes are on their way to `to`.
    pub(crate) fn send(&mut self, to: End, bytes: Vec<u8>) {
        if let Some(incoming) = self.incoming.get_mut(&to) {
            incoming.under_way.push_back(bytes);
        }
    }

    /// The next bytes arrive: gives the frames that they complete, without their length fields.
    pub(crate) fn receive(&mut self, to: End) -> Result<Vec<Vec<u8>>, FrameError> {
        let Some(incoming) = self.incoming.get_mut(&to) else { return Ok(Vec::new()) };
        let Some(bytes) = incoming.under_way.pop_front() else { return Ok(Vec::new()) };
        incoming.bytes.extend_from_slice(&bytes);
        let mut frames = Vec::new();
        let mut read = 0;
        while let Some(header) = incoming.bytes[read..].first_chunk::<4>() {
            let end = read + 4 + frame_len(*header)?;
            let Some(frame) = incoming.bytes.get(read + 4..end) else { break };
            frames.push(frame.to_vec());
            read = end;
        }
        incoming.bytes.drain(..read);
        Ok(frames)
    }
}
