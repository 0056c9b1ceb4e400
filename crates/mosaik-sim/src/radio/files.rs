//! Files of a node: pieces asked for and given as its keeper does, by the real policy.
//!
//! Nothing is hashed here: a piece has the bytes that its place in the file says, and the length that its
//! hashes make.

use std::collections::BTreeMap;

use mosaik_core::id::BlobId;
use mosaik_proto::{
    carrier::{Effect, Input, SessionId},
    message::FILE_GROUP_LEN,
    pieces::{Checked, Pieces},
};

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) pieces: Pieces,
    /// Those that are whole, and their bytes.
    pub(super) whole: BTreeMap<BlobId, u64>,
}

impl Files {
    /// Takes what an effect says of files; gives what is to be answered.
    pub(super) fn take(&mut self, effect: &Effect, now_ms: u64) -> Option<Input> {
        match effect {
            Effect::FilePeer { session, peer } => self.pieces.up(*session, *peer),
            Effect::FileLacked { session } => self.pieces.lacked(session, now_ms),
            Effect::Close { session, .. } => self.down(session),
            Effect::FileAsked { session, token, blob, group } => {
                let piece = self.whole.get(blob).map(|size| piece(*size, *group));
                return Some(Input::FileGive { session: *session, token: *token, piece });
            }
            Effect::FileSlice { session, total, bytes } => {
                let came = self.pieces.slice(session, *total, bytes)?;
                let is_right = came.bytes == piece(came.size, came.group);
                let checked = if is_right { Checked::Held } else { Checked::Wrong };
                if self.pieces.checked(&came.blob, came.group, checked, now_ms) {
                    self.pieces.forget(&came.blob);
                    self.whole.insert(came.blob, came.size);
                }
            }
            _ => {}
        }
        None
    }

    /// A session is over.
    pub(super) fn down(&mut self, session: &SessionId) {
        self.pieces.down(session);
    }

    /// Somebody asks for a file of so many bytes.
    pub(super) fn ask(&mut self, blob: BlobId, size: u64) {
        self.pieces.ask(blob, size).expect("a file that goes over radio");
        self.pieces.lacks(&blob, (0..size.div_ceil(FILE_GROUP_LEN) as u32).collect());
    }

    /// What is to be asked for now.
    pub(super) fn wants(&mut self, now_ms: u64) -> Vec<Input> {
        let next = || self.pieces.next(now_ms, |_| false);
        let wants = std::iter::from_fn(next).map(|want| Input::FileWant {
            session: want.session,
            blob: want.blob,
            group: want.group,
            from: want.from,
        });
        wants.collect()
    }
}

/// A piece of a file of so many bytes.
fn piece(size: u64, group: u32) -> Vec<u8> {
    let groups = size.div_ceil(FILE_GROUP_LEN);
    let begin = u64::from(group) * FILE_GROUP_LEN;
    let hashes = 64 * u64::from(groups.next_power_of_two().trailing_zeros());
    let len = 8 + hashes + size.saturating_sub(begin).min(FILE_GROUP_LEN);
    (0..len).map(|at| ((begin + at) * 31 / 7) as u8).collect()
}
