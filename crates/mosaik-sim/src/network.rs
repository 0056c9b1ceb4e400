//! Streams between simulated nodes: ordered, delayed, cut at any byte.

use std::collections::BTreeMap;

use mosaik_proto::{
    carrier::SessionId,
    message::{FrameError, frame_len},
};

/// One end of a connection: which node, under which number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct End {
    pub(crate) node: usize,
    pub(crate) session: SessionId,
}

/// The bytes that have come on one end and are no whole frame yet.
#[derive(Debug, Default)]
struct Incoming {
    bytes: Vec<u8>,
    /// When the last bytes sent to this end arrive: a stream never overtakes itself.
    last_ms: u64,
}

/// All open connections, by either end.
#[derive(Debug, Default)]
pub(crate) struct Network {
    other: BTreeMap<End, End>,
    incoming: BTreeMap<End, Incoming>,
    /// Bytes sent by each end since [`Network::take_sent`].
    sent: BTreeMap<End, usize>,
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

    /// Notes bytes that are sent.
    pub(crate) fn count(&mut self, from: End, bytes: usize) {
        *self.sent.entry(from).or_default() += bytes;
    }

    /// Bytes that each end has sent since the last call.
    pub(crate) fn take_sent(&mut self) -> BTreeMap<End, usize> {
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

    /// When bytes sent now with this delay arrive at `to`.
    pub(crate) fn arrival_ms(&mut self, to: End, earliest_ms: u64) -> u64 {
        let incoming = self.incoming.entry(to).or_default();
        incoming.last_ms = incoming.last_ms.max(earliest_ms);
        incoming.last_ms
    }

    /// Bytes arrive: gives the frames that they complete, without their length fields.
    pub(crate) fn receive(&mut self, to: End, bytes: &[u8]) -> Result<Vec<Vec<u8>>, FrameError> {
        let Some(incoming) = self.incoming.get_mut(&to) else { return Ok(Vec::new()) };
        incoming.bytes.extend_from_slice(bytes);
        let mut frames = Vec::new();
        while let Some(header) = incoming.bytes.first_chunk::<4>() {
            let len = frame_len(*header)?;
            if incoming.bytes.len() < 4 + len {
                break;
            }
            frames.push(incoming.bytes[4..4 + len].to_vec());
            incoming.bytes.drain(..4 + len);
        }
        Ok(frames)
    }
}
