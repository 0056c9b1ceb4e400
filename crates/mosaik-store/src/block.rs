//! Blocks: consecutive events of one branch in the form of a run's middle.
//!
//! Invariants:
//! - A block takes at most [`BLOCK_LEN_MAX`] bytes, unless a single event is larger: then it is alone.
//! - It begins with the id before its first event. So the ids inside can be computed, and the last
//!   must be what the next block begins with, or the branch's tip.
//!
//! Source: FORMAT.md beside this crate.

use mosaik_core::{
    codec::{ReadError, Reader, Writer},
    event::{Event, Hasher},
    feed::Tip,
    id::{AuthorId, EventId},
    limits::RUN_EVENTS_MAX,
    run::{Entries, Entry, chain, read_entries},
};

/// Bytes of a block.
///
/// With its key (12) and redb's own (8) it fills one leaf page of 4 KiB. Were blocks smaller, two
/// would have to share a page, and redb leaves pages half empty but for inserts past a table's end.
pub(crate) const BLOCK_LEN_MAX: usize = 4096 - 12 - 8;

/// A finished block, under the seq of its first event.
pub(crate) struct Block {
    pub(crate) first_seq: u64,
    pub(crate) bytes: Vec<u8>,
}

/// Cuts consecutive events into blocks.
pub(crate) struct Cutter {
    first_seq: u64,
    entries: Entries,
}

impl Cutter {
    /// Begins a block with the event of this seq, after the one of id `base`.
    pub(crate) fn begin(first_seq: u64, base: EventId) -> Self {
        Self { first_seq, entries: Entries::after(base) }
    }

    /// Goes on with a block that may not be full.
    pub(crate) fn resume(first_seq: u64, bytes: &[u8]) -> Result<Self, ReadError> {
        let (base, entries) = decode(bytes)?;
        let mut cutter = Self::begin(first_seq, base);
        for Entry { hlc, kind, payload } in &entries {
            cutter.entries.push(*hlc, kind, payload);
        }
        Ok(cutter)
    }

    /// Seq of the event that comes next.
    pub(crate) fn next_seq(&self) -> u64 {
        self.first_seq + self.entries.count() as u64
    }

    /// Takes the next event. Gives the block that was full before it.
    pub(crate) fn push(&mut self, event: &Event) -> Option<Block> {
        let (hlc, kind, payload) = (event.hlc, &event.kind, &event.payload);
        let full = self.entries.count() > 0
            && (self.entries.count() == RUN_EVENTS_MAX
                || self.entries.len_with(hlc, kind, payload) > BLOCK_LEN_MAX);
        let done = full.then(|| std::mem::replace(self, Self::begin(event.seq, event.prev)));
        self.entries.push(hlc, kind, payload);
        done.map(Self::finish)
    }

    /// Ends the last block. There must be an event in it.
    pub(crate) fn finish(self) -> Block {
        let mut writer = Writer::with_capacity(BLOCK_LEN_MAX);
        self.entries.write(&mut writer);
        Block { first_seq: self.first_seq, bytes: writer.into_bytes() }
    }
}

/// Reads a block without checking its ids.
fn decode(bytes: &[u8]) -> Result<(EventId, Vec<Entry>), ReadError> {
    let mut reader = Reader::new(bytes);
    let middle = read_entries(&mut reader)?;
    reader.finish()?;
    Ok(middle)
}

/// The id before a block.
pub(crate) fn base(bytes: &[u8]) -> Result<EventId, ReadError> {
    Reader::new(bytes).array().map(EventId)
}

/// Why a block is not what was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlockError {
    #[error(transparent)]
    Malformed(#[from] ReadError),
    #[error("it ends at seq {found}, and should at {expected}")]
    Length { found: u64, expected: u64 },
    #[error("its events are not those that were stored")]
    Chain,
}

/// The events of a block whose last must be `end`.
pub(crate) fn events(
    hasher: &Hasher,
    author: AuthorId,
    first_seq: u64,
    bytes: &[u8],
    end: Tip,
) -> Result<Vec<Event>, BlockError> {
    let (base, entries) = decode(bytes)?;
    let found = first_seq.saturating_add(entries.len() as u64 - 1);
    if found != end.seq {
        return Err(BlockError::Length { found, expected: end.seq });
    }
    let events = chain(hasher, author, first_seq, base, entries);
    if events.last().map(|event| event.id) != Some(end.id) {
        return Err(BlockError::Chain);
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use mosaik_core::{
        event::{Kind, Payload},
        hlc::Hlc,
        id::Fingerprint,
    };

    use super::*;

    const AUTHOR: AuthorId = AuthorId([1; 32]);

    fn hasher() -> Hasher {
        Hasher::new(&Fingerprint([7; 32]))
    }

    fn events(payload_lens: impl IntoIterator<Item = usize>) -> Vec<Event> {
        let entries = payload_lens.into_iter().enumerate().map(|(i, len)| Entry {
            hlc: Hlc::new(1_790_000_000_000 + i as u64 * 600, 0),
            kind: Kind::new("telemetry.sample").expect("a kind"),
            payload: Payload::Present(vec![i as u8; len]),
        });
        chain(&hasher(), AUTHOR, 1, EventId::ZERO, entries.collect())
    }

    /// In appends of `stop` events each.
    fn blocks(events: &[Event], stop: usize) -> Vec<Block> {
        let mut cutter = Cutter::begin(1, EventId::ZERO);
        let mut blocks = Vec::new();
        for (i, event) in events.iter().enumerate() {
            if i > 0 && i % stop == 0 {
                let open = cutter.finish();
                cutter = Cutter::resume(open.first_seq, &open.bytes).expect("its own block");
            }
            blocks.extend(cutter.push(event));
        }
        blocks.push(cutter.finish());
        blocks
    }

    #[test]
    fn a_block_ends_where_the_next_event_would_not_fit() {
        let events = events((0..2_000).map(|i| i * 7 % 400));
        let blocks = blocks(&events, usize::MAX);
        let next_len = |block: &Block| {
            let event = &events[block.first_seq as usize - 1];
            event.payload.len() + 1 + 1 + 2 + 3
        };
        for pair in blocks.windows(2) {
            let len = pair[0].bytes.len();
            assert!(len <= BLOCK_LEN_MAX, "{len} bytes");
            assert!(len + next_len(&pair[1]) + 4 > BLOCK_LEN_MAX, "{len} bytes");
        }
    }

    #[test]
    fn blocks_do_not_depend_on_how_events_were_grouped() {
        let events = events((0..300).map(|i| i * 31 % 900));
        let bytes = |stop| -> Vec<Vec<u8>> {
            let blocks = blocks(&events, stop);
            blocks.into_iter().map(|block| block.bytes).collect()
        };
        let whole = bytes(usize::MAX);
        for stop in [1, 2, 7, 100] {
            assert_eq!(bytes(stop), whole, "appends of {stop}");
        }
    }

    #[test]
    fn an_event_larger_than_a_block_is_alone_in_one() {
        let events = events([10, 65_536, 10]);
        let firsts: Vec<u64> =
            blocks(&events, usize::MAX).iter().map(|block| block.first_seq).collect();
        assert_eq!(firsts, [1, 2, 3]);
    }

    /// A thousand of the smallest events would fit the bytes, but not what a run's reader takes.
    #[test]
    fn a_block_never_has_more_events_than_a_run() {
        let mut sketches = events([0; 1_500]);
        for event in &mut sketches {
            event.hlc = Hlc::new(1, 0);
        }
        let entries = sketches.iter().map(Entry::from).collect();
        let events = chain(&hasher(), AUTHOR, 1, EventId::ZERO, entries);
        let blocks = blocks(&events, usize::MAX);
        assert_eq!(blocks[1].first_seq, RUN_EVENTS_MAX as u64 + 1);
        for (block, last) in blocks.iter().zip([RUN_EVENTS_MAX, 1_500]) {
            let end = Tip::from(&events[last - 1]);
            let read = super::events(&hasher(), AUTHOR, block.first_seq, &block.bytes, end);
            assert_eq!(read.map_or(0, |events| events.len()), last + 1 - block.first_seq as usize);
        }
    }
}
