//! One link: what waits on it, its short form, its stream.

use std::collections::VecDeque;

use mosaik_core::{event::Hasher, id::AuthorId};
use mosaik_proto::{
    carrier::{Role, SessionId},
    message::{FILE_SLICE_MAX, FrameError, Message},
    turns::Island,
};

use super::{
    HANDSHAKE, IDLE_MS, IDLE_PIECE_MS,
    queue::{Class, Kinds, Queue, Queued},
};
use crate::{
    codec::Codec,
    stack::{Interface, Peer},
    stream::{Outgoing, Pace, Stream, StreamError},
};

/// How long a link is new at the most, in times of a whole packet on air: its greeting and a comparison.
const NEW: u64 = 12;
/// See the module's head.
#[derive(Debug)]
pub(super) struct LinkState {
    pub(super) role: Role,
    pub(super) interface: Interface,
    pub(super) pace: Pace,
    /// Who is at the other end, once that is known.
    pub(super) peer: Option<Peer>,
    pub(super) session: Option<SessionId>,
    /// What its session was told of the bridges around it.
    pub(super) island: Island,
    pub(super) stream: Stream,
    pub(super) codec: Codec,
    hasher: Hasher,
    /// What no segment has taken. It stays here as long as it can, so that what is more urgent overtakes it.
    queue: Queue,
    opened_ms: u64,
    /// When something came or went last.
    pub(super) moved_ms: u64,
    /// When it ends though not all was acknowledged.
    pub(super) closing_ms: Option<u64>,
    /// Records of which segments have not taken all: their lengths there, and as frames.
    begun: VecDeque<(usize, usize, Class)>,
    /// Bytes of the first of them that segments have taken.
    taken: usize,
    /// Whether a piece of a file was asked for here, and hasn't all come.
    awaits_piece: bool,
}

/// What goes next on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub(super) class: Class,
    /// Bytes of it at the most.
    pub(super) len: usize,
}

/// What went.
#[derive(Debug)]
pub(super) struct Gone {
    pub(super) out: Outgoing,
    /// Bytes of whole frames that are gone with it.
    pub(super) sent: usize,
    /// Whose records were taken for it, with their bytes.
    pub(super) of: Vec<(AuthorId, usize)>,
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
            island: Island::default(),
            stream: Stream::new(pace),
            codec: Codec::new(hasher.clone()),
            hasher,
            queue: Queue::default(),
            opened_ms: now_ms,
            moved_ms: now_ms,
            closing_ms: None,
            begun: VecDeque::new(),
            taken: 0,
            awaits_piece: false,
        }
    }

    /// Whether its ends are still telling each other what they hold.
    pub(super) fn is_new(&self, now_ms: u64) -> bool {
        let has_begun = self.session.is_some() && self.moved_ms > self.opened_ms;
        let is_quiet = has_begun && self.is_idle() && self.moved_ms + self.quiet_ms() <= now_ms;
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

    /// Whether nothing waits here, and all that went is acknowledged.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.stream.is_idle()
    }

    /// Appends a frame.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if it is none that this node could have made.
    pub(super) fn push(
        &mut self,
        frame: &[u8],
        is_asked: bool,
        first: &Kinds,
        now_ms: u64,
    ) -> Result<(), FrameError> {
        let body = frame.get(4..).ok_or(FrameError::Length(frame.len()))?;
        let message = Message::decode(body, &self.hasher)?;
        self.awaits_piece |= matches!(message, Message::FileWant(_));
        self.queue.push(message, frame.len(), is_asked, first);
        self.moved_ms = now_ms;
        Ok(())
    }

    /// Notes what came, as far as the link has to do with it. True for a slice of a file.
    pub(super) fn note_came(&mut self, message: &Message) -> bool {
        let Message::FilePart(part) = message else { return false };
        // The last slice, or none at all; of others the next is soon there.
        self.awaits_piece = part.bytes.len() == FILE_SLICE_MAX;
        !part.bytes.is_empty()
    }

    /// Whether a piece of a file that was asked for here is coming.
    pub(super) fn brings_piece(&self, now_ms: u64) -> bool {
        self.awaits_piece && self.moved_ms + IDLE_MS > now_ms
    }

    /// The authors of whom something waits.
    pub(super) fn authors(&self) -> impl Iterator<Item = &AuthorId> {
        self.queue.authors()
    }

    /// What would go now, where some authors have to wait.
    pub(super) fn due(&self, may: impl Fn(&AuthorId) -> bool, now_ms: u64) -> Option<Due> {
        let begun = self.begun.front().map(|(_, _, class)| *class);
        let next = self.queue.next(may);
        if let Some(len) = self.stream.next_len(now_ms) {
            let class = match (begun, next) {
                // The rest of a slice may not hold up what is more urgent until there is time for files.
                (Some(Class::Files), Some(next)) => next.class.max(Class::News),
                (begun, _) => begun.unwrap_or(Class::Control),
            };
            return Some(Due { class, len });
        }
        let next = next.filter(|_| self.stream.has_room())?;
        let len = self.stream.len_of(self.queue.bytes());
        Some(Due { class: next.class, len })
    }

    /// Takes what goes now.
    ///
    /// # Errors
    ///
    /// [`StreamError`].
    pub(super) fn next(
        &mut self,
        may: impl Fn(&AuthorId) -> bool,
        now_ms: u64,
    ) -> Result<Option<Gone>, StreamError> {
        let of = self.fill(may);
        let before = self.stream.waiting();
        let Some(out) = self.stream.next(now_ms)? else { return Ok(None) };
        self.moved_ms = now_ms;
        self.taken += before - self.stream.waiting();
        let mut sent = 0;
        while let Some((len, frame_len, _)) = self.begun.front().copied()
            && len <= self.taken
        {
            self.taken -= len;
            sent += frame_len;
            self.begun.pop_front();
        }
        Ok(Some(Gone { out, sent, of }))
    }

    /// Gives the stream as much as one transmission takes.
    fn fill(&mut self, may: impl Fn(&AuthorId) -> bool) -> Vec<(AuthorId, usize)> {
        let mut of = Vec::new();
        if !self.stream.has_room() {
            return of;
        }
        // One byte more, so that the segment isn't taken for the last of all.
        let most = self.stream.len_of(self.stream.waiting() + self.queue.bytes()) + 1;
        while self.stream.waiting() < most
            && let Some(entry) = self.queue.take(&may)
        {
            let before = self.stream.waiting();
            self.stream.push(&self.codec.shorten(&entry.message));
            let len = self.stream.waiting() - before;
            self.begun.push_back((len, entry.len, entry.class));
            of.extend(entry.author.map(|author| (author, len)));
        }
        of
    }

    /// When it ends if nothing happens: a goodbye is out or late, its other end never said who it is, or
    /// nothing was said on it for long.
    pub(super) fn closes_at_ms(&self) -> Option<u64> {
        if let Some(ms) = self.closing_ms {
            return Some(if self.is_idle() { 0 } else { ms });
        }
        if self.session.is_none() {
            return Some(self.opened_ms + 10_000 + HANDSHAKE * self.pace.packet_ms);
        }
        let idle_ms = if self.awaits_piece { IDLE_PIECE_MS } else { IDLE_MS };
        (self.role == Role::Dialer && self.is_idle()).then_some(self.moved_ms + idle_ms)
    }

    pub(super) fn count_queued(&self, queued: &mut Queued) {
        self.queue.count(queued);
    }
}
