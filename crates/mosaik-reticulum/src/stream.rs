//! Records in order over a link that loses packets: numbered segments, acknowledged together.
//!
//! Invariants:
//! - Records come out whole, in the order in which they went in, each once; or the link ends.
//! - Nothing is sent again before the acknowledgement is there that shows it lost, or before the time
//!   is over that it and its answer take on air.
//! - What is on its way is bounded, and so is what waits for an earlier segment.
//! - Nothing here reads a clock: times are arguments, in milliseconds.
//!
//! Source: FORMAT.md beside this crate, section 2.

use std::collections::{BTreeMap, VecDeque};

use mosaik_core::codec::{ReadError, Reader, Writer};

/// Segments on their way at a time. Their numbers go as one byte, and must differ among these and those
/// that the other end may still take for new.
const WINDOW: u64 = 16;
/// After so many segments an acknowledgement goes, whatever else there is to say.
const ACK_EVERY: u32 = 8;
/// How long an acknowledgement waits for something to go along with, in milliseconds: a commit's time.
const ACK_DELAY_MS: u64 = 150;
/// How long for more segments of a burst, in times of a packet on air.
const ACK_PATIENCE: u64 = 4;
/// From so many waiting bytes on a Resource is cheaper than packets, which pay 71 bytes each; and the
/// most that goes as one, so that what is more urgent doesn't wait for longer.
pub const RESOURCE_FROM: usize = 6 * 1024;
/// See [`RESOURCE_FROM`].
pub const RESOURCE_MAX: usize = 16 * 1024;
/// How often a segment goes while nothing at all comes back, before the link is given up.
const TRIES_MAX: u32 = 6;
/// Bytes of a record: the longest run, and its names.
pub const RECORD_MAX: usize = 300 * 1024;
/// Bytes of a segment before its data: flags, acknowledgement, number.
const HEAD_LEN: usize = 3;

/// Flags of a segment.
const DATA: u8 = 1;
const END_OF_BURST: u8 = 2;
const GAPS: u8 = 4;

/// Why a link can't go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// A segment that is none.
    #[error("a malformed segment: {0}")]
    Malformed(#[from] ReadError),
    /// A segment that was sent before another's end was in sight.
    #[error("a segment {0} ahead of the one awaited")]
    TooFarAhead(u64),
    /// A record longer than any.
    #[error("a record of {0} bytes, the limit is {RECORD_MAX}")]
    TooLong(u64),
    /// Nothing came back.
    #[error("no acknowledgement after {TRIES_MAX} attempts")]
    NoAnswer,
}

/// What goes on the link next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Told back with [`Stream::on_sent`].
    pub token: u64,
    /// A packet if it fits one, else a Resource.
    pub bytes: Vec<u8>,
    /// Whether it has gone before.
    pub is_again: bool,
}

/// The token of what has no data: nobody asks what became of it.
pub const ACK_TOKEN: u64 = u64::MAX;

#[derive(Debug)]
struct Segment {
    number: u64,
    data: Vec<u8>,
    is_last: bool,
    /// When it and its answer had time enough; none while it waits to go (again).
    until_ms: Option<u64>,
    tries: u32,
    /// Of these, those since something came.
    unanswered: u32,
}

/// How long things take on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Bytes of the longest packet.
    pub packet_max: usize,
    /// Bytes of the longest Resource; less than [`RESOURCE_FROM`]: none goes.
    pub resource_max: usize,
    /// Milliseconds on air of such a packet.
    pub packet_ms: u64,
    /// The round trip of the shortest packets.
    pub rtt_ms: u64,
}

/// One end of a link.
#[derive(Debug)]
pub struct Stream {
    pace: Pace,
    /// Bytes of records that no segment has taken yet.
    waiting: VecDeque<u8>,
    /// Segments without acknowledgement, oldest first.
    flight: VecDeque<Segment>,
    next_number: u64,
    /// Everything before this has come.
    expected: u64,
    /// What came before its turn.
    early: BTreeMap<u64, Vec<u8>>,
    /// The beginning of a record.
    partial: Vec<u8>,
    unacknowledged: u32,
    ack_at_ms: Option<u64>,
}

impl Stream {
    /// A fresh link.
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            waiting: VecDeque::new(),
            flight: VecDeque::new(),
            next_number: 0,
            expected: 0,
            early: BTreeMap::new(),
            partial: Vec::new(),
            unacknowledged: 0,
            ack_at_ms: None,
        }
    }

    /// Appends a record.
    pub fn push(&mut self, record: &[u8]) {
        let mut len = Writer::with_capacity(4);
        len.len(record.len());
        self.waiting.extend(len.as_bytes());
        self.waiting.extend(record);
    }

    /// Bytes that wait to go for the first time.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether all that was pushed is acknowledged, and all that came is.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.flight.is_empty() && self.ack_at_ms.is_none()
    }

    /// Whether a segment more may be on its way. Behind a Resource nothing goes: it couldn't be used before
    /// that is there.
    pub fn has_room(&self) -> bool {
        let behind = self.flight.back().is_some_and(|last| self.is_resource(&last.data));
        self.next_number < self.window_end() && !behind
    }

    /// The number from which on none may go: of what is on its way the oldest may be the one awaited, though
    /// Resources behind it are known to be there.
    fn window_end(&self) -> u64 {
        self.flight.front().map_or(self.next_number, |oldest| oldest.number) + WINDOW
    }

    /// Bytes of the transmission that would go, if so many waited.
    pub fn len_of(&self, waiting: usize) -> usize {
        let packet = self.pace.packet_max - HEAD_LEN;
        let resource = self.pace.resource_max.min(RESOURCE_MAX);
        let pays = waiting.min(resource) >= RESOURCE_FROM.max(2 * packet);
        HEAD_LEN + waiting.min(if pays { resource } else { packet })
    }

    /// How many bytes the next transmission would have, if one is due: for the budget.
    pub fn next_len(&self, now_ms: u64) -> Option<usize> {
        if let Some(segment) = self.flight.iter().find(|segment| is_due(segment, now_ms)) {
            return Some(HEAD_LEN + segment.data.len());
        }
        if self.may_begin() {
            return Some(self.len_of(self.waiting.len()));
        }
        self.ack_at_ms.is_some_and(|ms| ms <= now_ms).then_some(HEAD_LEN)
    }

    /// What goes now, if anything is due. The caller sends it at once.
    ///
    /// # Errors
    ///
    /// [`StreamError::NoAnswer`].
    pub fn next(&mut self, now_ms: u64) -> Result<Option<Outgoing>, StreamError> {
        if let Some(at) = self.flight.iter().position(|segment| is_due(segment, now_ms)) {
            return self.send(at, now_ms).map(Some);
        }
        if self.may_begin() {
            let len = self.len_of(self.waiting.len()) - HEAD_LEN;
            let data: Vec<u8> = self.waiting.drain(..len).collect();
            let number = self.next_number;
            self.next_number += 1;
            let is_last = self.waiting.is_empty() || self.next_number == self.window_end();
            self.flight.push_back(Segment {
                number,
                data,
                is_last,
                until_ms: None,
                tries: 0,
                unanswered: 0,
            });
            return self.send(self.flight.len() - 1, now_ms).map(Some);
        }
        if self.ack_at_ms.is_none_or(|ms| ms > now_ms) {
            return Ok(None);
        }
        let mut writer = Writer::with_capacity(HEAD_LEN);
        self.write_ack(0, &mut writer);
        Ok(Some(Outgoing { token: ACK_TOKEN, bytes: writer.into_bytes(), is_again: false }))
    }

    /// When [`Stream::next`] may have something, if nothing else happens.
    pub fn next_timeout_ms(&self) -> Option<u64> {
        if self.may_begin() {
            return Some(0);
        }
        let again = self.flight.iter().map(|segment| segment.until_ms.unwrap_or(0));
        again.chain(self.ack_at_ms).min()
    }

    fn may_begin(&self) -> bool {
        !self.waiting.is_empty() && self.has_room()
    }

    fn is_resource(&self, data: &[u8]) -> bool {
        HEAD_LEN + data.len() > self.pace.packet_max
    }

    fn send(&mut self, at: usize, now_ms: u64) -> Result<Outgoing, StreamError> {
        // With acknowledgements of segments that came while this one waits all would be new again.
        let ahead_ms: u64 = self.flight.iter().take(at + 1).map(|it| self.air_ms(&it.data)).sum();
        let segment = self.flight.get_mut(at).ok_or(StreamError::NoAnswer)?;
        if segment.unanswered == TRIES_MAX {
            return Err(StreamError::NoAnswer);
        }
        let answer_ms = self.pace.rtt_ms + 2 * ACK_DELAY_MS + ACK_PATIENCE * self.pace.packet_ms;
        let patience = 1 << segment.unanswered.min(4);
        let is_packet = HEAD_LEN + segment.data.len() <= self.pace.packet_max;
        // What becomes of a Resource the stack tells.
        segment.until_ms =
            Some(if is_packet { now_ms + ahead_ms + answer_ms * patience } else { u64::MAX });
        segment.tries += 1;
        segment.unanswered += 1;
        let is_again = segment.tries > 1;
        let (number, data) = (segment.number, segment.data.clone());
        let flags = if segment.is_last || is_again { DATA | END_OF_BURST } else { DATA };
        let mut writer = Writer::with_capacity(HEAD_LEN + 2 + data.len());
        self.write_ack(flags, &mut writer);
        writer.u8(number as u8).raw(&data);
        Ok(Outgoing { token: number, bytes: writer.into_bytes(), is_again })
    }

    fn air_ms(&self, data: &[u8]) -> u64 {
        self.pace.packet_ms * data.len().div_ceil(self.pace.packet_max) as u64
    }

    /// Flags, what has come, and which of the next eight after the first that lacks have come too.
    fn write_ack(&mut self, flags: u8, writer: &mut Writer) {
        self.unacknowledged = 0;
        self.ack_at_ms = None;
        let gaps = self.early.keys().filter_map(|number| {
            u32::try_from(number - self.expected - 1).ok().and_then(|bit| 1u8.checked_shl(bit))
        });
        let gaps = gaps.fold(0, |all, bit| all | bit);
        let with_gaps = if gaps == 0 { 0 } else { GAPS };
        writer.u8(flags | with_gaps).u8(self.expected as u8);
        if gaps != 0 {
            writer.u8(gaps);
        }
    }

    /// Takes what came; gives the records that are whole now.
    ///
    /// # Errors
    ///
    /// [`StreamError`]: the link must end.
    pub fn on_received(&mut self, bytes: &[u8], now_ms: u64) -> Result<Vec<Vec<u8>>, StreamError> {
        let mut reader = Reader::new(bytes);
        let flags = reader.u8()?;
        if flags & !(DATA | END_OF_BURST | GAPS) != 0 {
            return Err(ReadError::Tag(u64::from(flags)).into());
        }
        let acknowledged = reader.u8()?;
        self.flight.iter_mut().for_each(|segment| segment.unanswered = 0);
        let gaps = if flags & GAPS != 0 { reader.u8()? } else { 0 };
        self.on_acknowledged(acknowledged, gaps)?;
        if flags & DATA == 0 {
            reader.finish()?;
            return Ok(Vec::new());
        }
        let number = reader.u8()?;
        let ahead = u64::from(number.wrapping_sub(self.expected as u8));
        let is_old = ahead >= 256 - WINDOW;
        if !is_old && ahead >= WINDOW {
            return Err(StreamError::TooFarAhead(ahead));
        }
        let is_next = ahead == 0;
        // That a Resource has come its sender knows by its proof: it neither calls for an acknowledgement
        // nor puts off the one that a packet before it waits for.
        if bytes.len() <= self.pace.packet_max || !is_next {
            self.unacknowledged += 1;
            let soon = flags & END_OF_BURST != 0 || self.unacknowledged >= ACK_EVERY || is_old;
            let patience_ms = if soon { 0 } else { ACK_PATIENCE * self.pace.packet_ms };
            let at_ms = now_ms + ACK_DELAY_MS + patience_ms;
            self.ack_at_ms =
                Some(self.ack_at_ms.map_or(at_ms, |ms| if soon { ms.min(at_ms) } else { at_ms }));
        }
        if is_old {
            return Ok(Vec::new());
        }
        self.early.insert(self.expected + ahead, reader.rest().to_vec());
        while let Some(data) = self.early.remove(&self.expected) {
            self.expected += 1;
            self.partial.extend_from_slice(&data);
        }
        self.records()
    }

    /// Takes the whole records off the front of what has come.
    fn records(&mut self) -> Result<Vec<Vec<u8>>, StreamError> {
        let mut records = Vec::new();
        let mut reader = Reader::new(&self.partial);
        let mut used = 0;
        loop {
            let len = match reader.varint() {
                Ok(len) => len,
                Err(ReadError::End) => break,
                Err(error) => return Err(error.into()),
            };
            let len = usize::try_from(len).ok().filter(|len| *len <= RECORD_MAX);
            let Some(len) = len else { return Err(StreamError::TooLong(RECORD_MAX as u64 + 1)) };
            let Ok(record) = reader.raw(len) else { break };
            records.push(record.to_vec());
            used = self.partial.len() - reader.remaining();
        }
        self.partial.drain(..used);
        Ok(records)
    }

    fn on_acknowledged(&mut self, acknowledged: u8, gaps: u8) -> Result<(), StreamError> {
        let Some(oldest) = self.flight.front().map(|segment| segment.number) else {
            return Ok(());
        };
        let first = oldest + u64::from(acknowledged.wrapping_sub(oldest as u8));
        // An acknowledgement that was overtaken by a later one says less than is known.
        if first > self.next_number {
            return Ok(());
        }
        self.flight.retain(|segment| segment.number >= first);
        if gaps == 0 {
            return Ok(());
        }
        let has_come = |number: u64| {
            (1..=8).contains(&(number - first)) && gaps >> (number - first - 1) & 1 != 0
        };
        let Some(last) =
            self.flight.iter().map(|it| it.number).filter(|it| *it > first && has_come(*it)).max()
        else {
            return Ok(());
        };
        self.flight.retain(|segment| segment.number <= first || !has_come(segment.number));
        // What was sent before something that has come, and hasn't, is lost; a Resource only takes longer.
        let packet_max = self.pace.packet_max;
        for segment in self.flight.iter_mut().filter(|segment| segment.number < last) {
            if segment.tries == 1 && HEAD_LEN + segment.data.len() <= packet_max {
                segment.until_ms = None;
            }
        }
        Ok(())
    }

    /// What became of a Resource: it has arrived, or it has not and goes again.
    pub fn on_sent(&mut self, token: u64, has_arrived: bool) {
        if has_arrived {
            self.flight.retain(|segment| segment.number != token);
            // Its proof is an answer.
            self.flight.iter_mut().for_each(|segment| segment.unanswered = 0);
        } else if let Some(segment) = self.flight.iter_mut().find(|it| it.number == token) {
            segment.until_ms = None;
        }
    }
}

fn is_due(segment: &Segment, now_ms: u64) -> bool {
    segment.until_ms.is_none_or(|ms| ms <= now_ms)
}

#[cfg(test)]
mod tests;
