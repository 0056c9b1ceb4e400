//! One link: its stream, its short form, and what waits on it by class.

use std::collections::VecDeque;

use mosaik_core::event::Hasher;
use mosaik_proto::{
    carrier::{Role, SessionId},
    message::FrameError,
};

use super::{HANDSHAKE, IDLE_MS};
use crate::{
    codec::Codec,
    stack::{Interface, Peer},
    stream::{Outgoing, Pace, Stream, StreamError},
};

/// How urgent something is, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// What two ends have to say so that anything can be said: greetings, comparisons, wants.
    Control,
    /// What was written or came just now.
    News,
    /// What was asked for.
    History,
}

/// Bytes that wait, by class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queued {
    /// Of [`Class::Control`].
    pub control: u64,
    /// Of [`Class::News`].
    pub news: u64,
    /// Of [`Class::History`].
    pub history: u64,
}

/// How long a link is new at the most, in times of a whole packet on air: its greeting and a comparison.
const NEW: u64 = 12;
/// The frame type of a run.
const RUN: u8 = 9;

/// See the module's head.
#[derive(Debug)]
pub(super) struct LinkState {
    pub(super) role: Role,
    pub(super) interface: Interface,
    pub(super) pace: Pace,
    /// Who is at the other end, once that is known.
    pub(super) peer: Option<Peer>,
    pub(super) session: Option<SessionId>,
    pub(super) stream: Stream,
    pub(super) codec: Codec,
    opened_ms: u64,
    /// When something came or went last.
    pub(super) moved_ms: u64,
    /// When it ends though not all was acknowledged.
    pub(super) closing_ms: Option<u64>,
    /// Records in the stream that no segment has taken: their lengths there, and as frames.
    waiting: VecDeque<(usize, usize, Class)>,
    /// Bytes of the first of them that segments have taken.
    taken: usize,
}

impl LinkState {
    pub(super) fn new(
        role: Role,
        interface: Interface,
        pace: Pace,
        hasher: Hasher,
        now_ms: u64,
    ) -> Self {
        Self {
            role,
            interface,
            pace,
            peer: None,
            session: None,
            stream: Stream::new(pace),
            codec: Codec::new(hasher),
            opened_ms: now_ms,
            moved_ms: now_ms,
            closing_ms: None,
            waiting: VecDeque::new(),
            taken: 0,
        }
    }

    /// Whether its ends are still telling each other what they hold.
    pub(super) fn is_new(&self, now_ms: u64) -> bool {
        let has_begun = self.session.is_some() && self.moved_ms > self.opened_ms;
        let is_quiet =
            has_begun && self.stream.is_idle() && self.moved_ms + self.quiet_ms() <= now_ms;
        !is_quiet && self.new_until_ms() > now_ms
    }

    /// When it counts as new no longer, whatever goes over it.
    pub(super) fn new_until_ms(&self) -> u64 {
        self.opened_ms + 5_000 + NEW * self.pace.packet_ms
    }

    /// How long nothing comes or goes where all is said.
    fn quiet_ms(&self) -> u64 {
        500 + 2 * self.pace.packet_ms
    }

    /// Whether it is open for longer than two that dial each other at once are apart.
    pub(super) fn is_old(&self, now_ms: u64) -> bool {
        self.new_until_ms() <= now_ms
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing_ms.is_some()
    }

    /// Appends a frame, in its short form.
    pub(super) fn push(&mut self, frame: &[u8], now_ms: u64) -> Result<(), FrameError> {
        let record = self.codec.shorten(frame)?;
        let before = self.stream.waiting();
        self.stream.push(&record);
        let len = self.stream.waiting() - before;
        let class = match frame.get(4) {
            // A run that goes alone was written or came just now; what was asked for is history.
            Some(&RUN) if frame.len() <= self.pace.packet_max && before == 0 => Class::News,
            Some(&RUN) => Class::History,
            _ => Class::Control,
        };
        self.waiting.push_back((len, frame.len(), class));
        self.moved_ms = now_ms;
        Ok(())
    }

    /// How urgent what goes next is.
    pub(super) fn class(&self) -> Class {
        self.waiting.front().map_or(Class::Control, |(_, _, class)| *class)
    }

    /// What goes now, and bytes of whole frames that are gone with it.
    pub(super) fn next(&mut self, now_ms: u64) -> Result<Option<(Outgoing, usize)>, StreamError> {
        let before = self.stream.waiting();
        let Some(out) = self.stream.next(now_ms)? else { return Ok(None) };
        self.moved_ms = now_ms;
        self.taken += before - self.stream.waiting();
        let mut gone = 0;
        while let Some((len, frame_len, _)) = self.waiting.front().copied()
            && len <= self.taken
        {
            self.taken -= len;
            gone += frame_len;
            self.waiting.pop_front();
        }
        Ok(Some((out, gone)))
    }

    /// When it ends if nothing happens: a goodbye is out or late, its other end never said who it is, or
    /// nothing was said on it for long.
    pub(super) fn closes_at_ms(&self) -> Option<u64> {
        if let Some(ms) = self.closing_ms {
            return Some(if self.stream.is_idle() { 0 } else { ms });
        }
        if self.session.is_none() {
            return Some(self.opened_ms + 10_000 + HANDSHAKE * self.pace.packet_ms);
        }
        (self.role == Role::Dialer && self.stream.is_idle()).then_some(self.moved_ms + IDLE_MS)
    }

    pub(super) fn count_queued(&self, queued: &mut Queued) {
        for (len, _, class) in &self.waiting {
            let of_class = match class {
                Class::Control => &mut queued.control,
                Class::News => &mut queued.news,
                Class::History => &mut queued.history,
            };
            *of_class += *len as u64;
        }
    }
}
