//! Pieces of files, over radio alone: asked for, given slice by slice, or lacked.
//!
//! Invariants:
//! - One piece at a time is under way in each direction.
//! - A slice goes to the carrier when little else waits there: all else is before it.
//! - Nothing of a piece is believed here: who asked for it verifies it.

use mosaik_core::{feed::Ledger, id::BlobId};

use super::{Session, Shared};
use crate::{
    carrier::Effect,
    message::{FILE_PIECE_MAX, FILE_SLICE_MAX, FilePart, FileWant, Message},
};

/// How long the next slice may take over the internet, in milliseconds, to be multiplied by the patience of
/// the link: everything else goes before it.
const SLICE_TIMEOUT_MS: u64 = 5 * 60 * 1000;
/// Bytes that wait at the carrier while further slices are given to it: half of what runs leave there, so
/// that a file takes no place of theirs, and enough that they go together where that is cheaper.
const FILE_AHEAD: usize = 8 << 10;

/// What is under way on one session.
#[derive(Debug, Default)]
pub(super) struct Files {
    last_token: u64,
    wanted: Option<Wanted>,
    given: Option<Given>,
}

/// The piece that the peer was asked for.
#[derive(Debug)]
struct Wanted {
    token: u64,
    /// Bytes of it that are here.
    at: usize,
    /// Bytes of all of it, as its first slice said.
    total: Option<usize>,
    until_ms: u64,
}

/// The piece that the peer has asked for.
#[derive(Debug)]
enum Given {
    /// It is being read.
    Asked { token: u64, from: usize },
    /// It goes.
    Going { token: u64, piece: Vec<u8>, at: usize },
}

impl Files {
    /// When the peer has been silent for too long.
    pub(super) fn until_ms(&self) -> Option<u64> {
        self.wanted.as_ref().map(|wanted| wanted.until_ms)
    }
}

impl Session {
    /// Asks for a piece; at once lacked where that can't be.
    pub(crate) fn want_file<L: Ledger>(
        &mut self,
        blob: BlobId,
        group: u32,
        from: u32,
        shared: Shared<'_, L>,
    ) {
        if !self.is_radio() || self.files.wanted.is_some() {
            return shared.effects.push(Effect::FileLacked { session: self.id });
        }
        self.files.last_token += 1;
        let token = self.files.last_token;
        let until_ms = shared.now.mono_ms + SLICE_TIMEOUT_MS * self.patience();
        let at = from as usize;
        self.files.wanted = Some(Wanted { token, at, total: None, until_ms });
        self.send(Message::FileWant(FileWant { token, blob, group, from }), shared.effects);
    }

    pub(super) fn on_file_part<L: Ledger>(&mut self, part: FilePart, shared: &mut Shared<'_, L>) {
        let until_ms = shared.now.mono_ms + SLICE_TIMEOUT_MS * self.patience();
        // One that was given up may still come.
        let wanted = self.files.wanted.as_mut().filter(|wanted| wanted.token == part.token);
        let Some(wanted) = wanted else { return };
        let total = part.total as usize;
        if total == 0 {
            self.files.wanted = None;
            return shared.effects.push(Effect::FileLacked { session: self.id });
        }
        let at = wanted.at + part.bytes.len();
        if at > total || wanted.total.is_some_and(|said| said != total) {
            return self
                .violation("a piece of a file of another length than it had".into(), shared);
        }
        (wanted.at, wanted.total, wanted.until_ms) = (at, Some(total), until_ms);
        if at == total {
            self.files.wanted = None;
        }
        shared.effects.push(Effect::FileSlice { session: self.id, total, bytes: part.bytes });
    }

    pub(super) fn files_timeout<L: Ledger>(&mut self, shared: &mut Shared<'_, L>) {
        if self.files.until_ms().is_some_and(|ms| ms <= shared.now.mono_ms) {
            self.files.wanted = None;
            shared.effects.push(Effect::FileLacked { session: self.id });
        }
    }

    pub(super) fn on_file_want<L: Ledger>(&mut self, want: FileWant, shared: &mut Shared<'_, L>) {
        // Not offered over the internet.
        if !self.is_radio() {
            return;
        }
        if self.files.given.is_some() {
            // Who asks faster than it is answered isn't answered.
            if self.queued < FILE_AHEAD {
                self.lack_file(want.token, shared.effects);
            }
            return;
        }
        let FileWant { token, blob, group, from } = want;
        self.files.given = Some(Given::Asked { token, from: from as usize });
        shared.effects.push(Effect::FileAsked { session: self.id, token, blob, group });
    }

    fn lack_file(&mut self, token: u64, effects: &mut Vec<Effect>) {
        self.send(Message::FilePart(FilePart { token, total: 0, bytes: Vec::new() }), effects);
    }

    /// Gives the piece that was asked for; none: it lacks.
    pub(crate) fn give_file(
        &mut self,
        token: u64,
        piece: Option<Vec<u8>>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(Given::Asked { token: asked, from }) = self.files.given else { return };
        if asked != token {
            return;
        }
        match piece.filter(|piece| from < piece.len() && piece.len() <= FILE_PIECE_MAX) {
            Some(piece) => self.files.given = Some(Given::Going { token, piece, at: from }),
            None => {
                self.files.given = None;
                self.lack_file(token, effects);
            }
        }
    }

    /// Hands slices to the carrier, as long as little waits there.
    pub(super) fn give_slices(&mut self, effects: &mut Vec<Effect>) {
        while self.queued < FILE_AHEAD
            && let Some(Given::Going { token, piece, at }) = &mut self.files.given
        {
            let end = (*at + FILE_SLICE_MAX).min(piece.len());
            let (token, total) = (*token, piece.len());
            let bytes = piece.get(*at..end).unwrap_or_default().to_vec();
            *at = end;
            if end == total {
                self.files.given = None;
            }
            let part = FilePart { token, total: total as u32, bytes };
            self.push_frame(Message::FilePart(part).encode(), true, effects);
        }
    }
}
