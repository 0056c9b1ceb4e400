//! Which pieces of files to ask for over radio, and of whom.
//!
//! Invariants:
//! - Only what a person asks for goes this way, and only files of at most [`FILE_MAX`] bytes.
//! - Of one peer one piece is asked at a time, and each file of one peer at a time.
//! - A piece is begun anew with another peer, so that who gave a wrong one is known; that one isn't asked
//!   for the file again.
//! - The last piece goes first: it alone proves the file's length.
//! - What is kept is bounded: [`ASKED_MAX`] files, of each at most one piece that isn't verified.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use mosaik_core::id::{BlobId, NodeId};

use crate::{
    carrier::SessionId,
    message::{FILE_GROUP_LEN, FILE_PIECE_MAX},
};

/// Bytes of the longest file that goes over radio: a photo of a phone, made smaller. At SF8 and a tenth of
/// the time it takes some five hours. A guess.
pub const FILE_MAX: u64 = 256 << 10;
/// Files that are asked for at a time. A guess: more than go over radio in days.
pub const ASKED_MAX: usize = 64;
/// Files that are fetched over IP because one peer asked for them over radio, at a time.
pub const FETCHED_FOR_PEER_MAX: usize = 4;
/// Peers for which that is done.
const FETCHED_FOR_MAX: usize = 64;
/// When a peer is asked again that lacked a file, in milliseconds; twice as long each time.
const RETRY_FIRST_MS: u64 = 60 * 1000;
const RETRY_MAX_MS: u64 = 30 * 60 * 1000;

/// A piece to ask for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Where.
    pub session: SessionId,
    /// The file.
    pub blob: BlobId,
    /// Which [`FILE_GROUP_LEN`] bytes of it.
    pub group: u32,
    /// Bytes of the piece that came before.
    pub from: u32,
}

/// A piece of which all slices have come, to be verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The file.
    pub blob: BlobId,
    /// Its bytes, as claimed.
    pub size: u64,
    /// Which [`FILE_GROUP_LEN`] bytes of it.
    pub group: u32,
    /// As the peer gave it.
    pub bytes: Vec<u8>,
}

/// What came of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// It is here, verified.
    Held,
    /// It is no piece of a file with that hash and length.
    Wrong,
    /// This side's disk failed.
    Failed,
}

/// How it stands with a file that was asked for over radio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The file.
    pub blob: BlobId,
    /// Its bytes, as claimed.
    pub size: u64,
    /// Bytes that are here; those of the last piece may not be verified yet.
    pub here: u64,
    /// Whether a piece is under way.
    pub is_coming: bool,
}

/// Why a file isn't asked for over radio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It is too long.
    #[error("over radio go files of at most {FILE_MAX} bytes, and this one has {0}")]
    TooLong(u64),
    /// Too many are asked for.
    #[error("{ASKED_MAX} files are asked for over radio already: wait for one, or drop one")]
    TooMany,
}

#[derive(Debug)]
struct Asked {
    /// Of those asked for, the how-manieth.
    number: u64,
    size: u64,
    /// The pieces that lack, in the order in which they are asked for; none while that isn't known.
    lacking: Option<Vec<u32>>,
    step: Step,
    partial: Option<Partial>,
    /// Who gave a wrong piece.
    refused: BTreeSet<NodeId>,
    /// When to ask peers again that lacked it.
    retries: BTreeMap<NodeId, Retry>,
    /// Not before, for this side's disk failed.
    not_before_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Idle,
    Asking(SessionId),
    Checking,
}

/// The beginning of the piece that lacks first, by one peer.
#[derive(Debug)]
struct Partial {
    by: NodeId,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Retry {
    at_ms: u64,
    after_ms: u64,
}

#[derive(Debug)]
struct Peer {
    node: NodeId,
    /// Of which file it was asked for a piece.
    asked: Option<BlobId>,
    /// Bytes of that piece that are here.
    came: usize,
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Pieces {
    last_number: u64,
    asked: BTreeMap<BlobId, Asked>,
    peers: BTreeMap<SessionId, Peer>,
    /// What is fetched over IP because a peer asked for it here.
    fetched_for: BTreeMap<NodeId, BTreeSet<BlobId>>,
}

impl Pieces {
    /// Somebody asks for a file of so many bytes, as claimed. What of it lacks is to be told by
    /// [`Pieces::lacks`].
    ///
    /// # Errors
    ///
    /// [`AskError`].
    pub fn ask(&mut self, blob: BlobId, size: u64) -> Result<(), AskError> {
        if size > FILE_MAX {
            return Err(AskError::TooLong(size));
        }
        if self.asked.contains_key(&blob) {
            return Ok(());
        }
        if self.asked.len() >= ASKED_MAX {
            return Err(AskError::TooMany);
        }
        self.last_number += 1;
        let asked = Asked {
            number: self.last_number,
            size,
            lacking: None,
            step: Step::Idle,
            partial: None,
            refused: BTreeSet::new(),
            retries: BTreeMap::new(),
            not_before_ms: 0,
        };
        self.asked.insert(blob, asked);
        Ok(())
    }

    /// Nobody asks for it any more, or it is whole.
    pub fn forget(&mut self, blob: &BlobId) {
        self.asked.remove(blob);
        for wishes in self.fetched_for.values_mut() {
            wishes.remove(blob);
        }
    }

    /// Whether it is asked for.
    pub fn is_asked(&self, blob: &BlobId) -> bool {
        self.asked.contains_key(blob)
    }

    /// The files of which is to be found out what lacks, with their bytes, as claimed: they were asked for
    /// just now, or some of them came another way.
    pub fn unknown(&self) -> impl Iterator<Item = (BlobId, u64)> {
        let unknown = self.asked.iter().filter(|(_, asked)| asked.lacking.is_none());
        unknown.map(|(blob, asked)| (*blob, asked.size))
    }

    /// These pieces of a file lack. Nothing changes if that is known better by now.
    pub fn lacks(&mut self, blob: &BlobId, mut lacking: Vec<u32>) {
        let Some(asked) = self.asked.get_mut(blob).filter(|asked| asked.lacking.is_none()) else {
            return;
        };
        lacking.sort_unstable();
        lacking.dedup();
        let last = u32::try_from(asked.size.div_ceil(FILE_GROUP_LEN)).unwrap_or(0);
        if let Some(at) = lacking.iter().position(|group| group + 1 == last) {
            lacking[..=at].rotate_right(1);
        }
        asked.lacking = Some(lacking);
    }

    /// Some of it may have come another way.
    pub fn may_have_come(&mut self, blob: &BlobId) {
        if let Some(asked) = self.asked.get_mut(blob).filter(|asked| asked.step == Step::Idle) {
            (asked.lacking, asked.partial) = (None, None);
        }
    }

    /// A session is open with a peer that gives pieces. What it lacked before, it may have now.
    pub fn up(&mut self, session: SessionId, node: NodeId) {
        self.peers.insert(session, Peer { node, asked: None, came: 0 });
        for asked in self.asked.values_mut() {
            asked.retries.remove(&node);
        }
    }

    /// The session is over.
    pub fn down(&mut self, session: &SessionId) {
        self.peers.remove(session);
        for asked in self.asked.values_mut().filter(|it| it.step == Step::Asking(*session)) {
            asked.step = Step::Idle;
        }
    }

    /// The next piece to ask for, which from then on counts as asked for; not of files that are fetched
    /// another way just now.
    pub fn next(&mut self, now_ms: u64, is_fetched: impl Fn(&BlobId) -> bool) -> Option<Want> {
        let ready = self.asked.iter().filter(|(blob, asked)| {
            let is_known = asked.lacking.as_ref().is_some_and(|lacking| !lacking.is_empty());
            is_known
                && asked.step == Step::Idle
                && asked.not_before_ms <= now_ms
                && !is_fetched(blob)
        });
        let found = ready
            .filter_map(|(blob, asked)| Some((asked.number, *blob, self.giver(asked, now_ms)?)));
        let (_, blob, session) = found.min()?;
        let peer = self.peers.get_mut(&session)?;
        let asked = self.asked.get_mut(&blob)?;
        let group = *asked.lacking.as_ref()?.first()?;
        asked.step = Step::Asking(session);
        peer.asked = Some(blob);
        if asked.partial.as_ref().is_none_or(|partial| partial.by != peer.node) {
            asked.partial = Some(Partial { by: peer.node, bytes: Vec::new() });
        }
        let from = asked.partial.as_ref().map_or(0, |partial| partial.bytes.len() as u32);
        peer.came = from as usize;
        Some(Want { session, blob, group, from })
    }

    /// Whom to ask: who has begun a piece, then who lacked it least often.
    fn giver(&self, asked: &Asked, now_ms: u64) -> Option<SessionId> {
        let ready = self.peers.iter().filter(|(_, peer)| {
            let waits = asked.retries.get(&peer.node).is_some_and(|retry| retry.at_ms > now_ms);
            peer.asked.is_none() && !waits && !asked.refused.contains(&peer.node)
        });
        let key = |(session, peer): &(&SessionId, &Peer)| {
            let begun = asked.partial.as_ref().is_some_and(|partial| partial.by == peer.node);
            let lacked = asked.retries.get(&peer.node).map_or(0, |retry| retry.after_ms);
            (!begun, lacked, **session)
        };
        ready.min_by_key(key).map(|(session, _)| *session)
    }

    /// A slice came; gives the piece if it is the last one. `total` are the bytes of the whole piece.
    pub fn slice(&mut self, session: &SessionId, total: usize, bytes: &[u8]) -> Option<Piece> {
        let peer = self.peers.get_mut(session)?;
        let blob = peer.asked?;
        peer.came += bytes.len();
        let is_last = peer.came >= total.min(FILE_PIECE_MAX);
        if is_last {
            peer.asked = None;
        }
        // Else it was dropped meanwhile.
        let asked = self.asked.get_mut(&blob).filter(|it| it.step == Step::Asking(*session))?;
        let partial = asked.partial.as_mut()?;
        partial.bytes.extend_from_slice(bytes);
        if !is_last {
            return None;
        }
        asked.step = Step::Checking;
        let group = *asked.lacking.as_ref()?.first()?;
        Some(Piece { blob, size: asked.size, group, bytes: std::mem::take(&mut partial.bytes) })
    }

    /// The piece that was asked for doesn't come.
    pub fn lacked(&mut self, session: &SessionId, now_ms: u64) {
        let Some(peer) = self.peers.get_mut(session) else { return };
        let Some(asked) = peer.asked.take().and_then(|blob| self.asked.get_mut(&blob)) else {
            return;
        };
        if asked.step == Step::Asking(*session) {
            asked.step = Step::Idle;
        }
        let before_ms = asked.retries.get(&peer.node).map_or(0, |retry| retry.after_ms);
        let after_ms = (2 * before_ms).clamp(RETRY_FIRST_MS, RETRY_MAX_MS);
        asked.retries.insert(peer.node, Retry { at_ms: now_ms + after_ms, after_ms });
    }

    /// What came of a piece that was verified. True once no piece of the file lacks.
    pub fn checked(&mut self, blob: &BlobId, group: u32, checked: Checked, now_ms: u64) -> bool {
        let Some(asked) = self.asked.get_mut(blob).filter(|it| it.step == Step::Checking) else {
            return false;
        };
        asked.step = Step::Idle;
        let by = asked.partial.take().map(|partial| partial.by);
        match checked {
            Checked::Held => {
                let Some(lacking) = &mut asked.lacking else { return false };
                lacking.retain(|it| *it != group);
                return lacking.is_empty();
            }
            Checked::Wrong => asked.refused.extend(by),
            Checked::Failed => asked.not_before_ms = now_ms + RETRY_FIRST_MS,
        }
        false
    }

    /// When, after `now_ms`, [`Pieces::next`] may have something without anything else happening.
    pub fn next_timeout_ms(&self, now_ms: u64) -> Option<u64> {
        let idle = self.asked.values().filter(|asked| asked.step == Step::Idle);
        let times = idle.flat_map(|asked| {
            let of_peers = self.peers.values().filter_map(|peer| asked.retries.get(&peer.node));
            of_peers.map(|retry| retry.at_ms).chain([asked.not_before_ms]).collect::<Vec<_>>()
        });
        times.filter(|at_ms| *at_ms > now_ms).min()
    }

    /// Whether a peer over radio may be of use.
    pub fn is_seeking(&self) -> bool {
        self.asked.values().any(|asked| asked.lacking.as_ref().is_none_or(|it| !it.is_empty()))
    }

    /// How it stands with a file, if it is asked for.
    pub fn standing(&self, blob: &BlobId) -> Option<Standing> {
        self.asked.get(blob).map(|asked| asked.standing(*blob))
    }

    /// All that is asked for, in the order of that.
    pub fn all(&self) -> Vec<Standing> {
        let mut all: Vec<_> = self.asked.iter().collect();
        all.sort_by_key(|(_, asked)| asked.number);
        all.into_iter().map(|(blob, asked)| asked.standing(*blob)).collect()
    }

    /// A peer asks for a file that lacks here: whether it is to be fetched over IP for that.
    pub fn may_fetch_for(&mut self, session: &SessionId, blob: BlobId) -> bool {
        let Some(peer) = self.peers.get(session) else { return false };
        self.fetched_for.retain(|_, wishes| !wishes.is_empty());
        let is_known = self.fetched_for.contains_key(&peer.node);
        if !is_known && self.fetched_for.len() >= FETCHED_FOR_MAX {
            return false;
        }
        let wishes = self.fetched_for.entry(peer.node).or_default();
        wishes.contains(&blob) || (wishes.len() < FETCHED_FOR_PEER_MAX && wishes.insert(blob))
    }
}

impl Asked {
    fn standing(&self, blob: BlobId) -> Standing {
        let lacks = |group: &u32| {
            let begin = u64::from(*group) * FILE_GROUP_LEN;
            self.size.saturating_sub(begin).min(FILE_GROUP_LEN)
        };
        // As long as that isn't known: nothing.
        let lacking = self.lacking.as_ref();
        let lacking = lacking.map_or(self.size, |lacking| lacking.iter().map(lacks).sum());
        let begun = self.partial.as_ref().map_or(0, |partial| partial.bytes.len() as u64);
        let here = self.size.saturating_sub(lacking.saturating_sub(begun.min(FILE_GROUP_LEN)));
        Standing { blob, size: self.size, here, is_coming: matches!(self.step, Step::Asking(_)) }
    }
}
