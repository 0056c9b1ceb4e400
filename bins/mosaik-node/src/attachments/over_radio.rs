//! Files over radio: asked for and given piece by piece, as what decides says.
//!
//! Invariants:
//! - Only what a record here names is given, and only files of at most [`FILE_MAX`] bytes.
//! - A piece is kept once the file's hash has proved it.
//! - What a person asked for stays asked for over restarts, until it is whole or let go.

use std::{collections::HashSet, sync::Arc};

use mosaik_core::id::{BlobId, NodeId};
use mosaik_net::{Delivery, Shelf, ShelfError, TakenPiece};
use mosaik_proto::{
    attachments::State,
    carrier::{Effect, Input, SessionId},
    pieces::{AskError, Checked, FILE_MAX, Pieces},
};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::{
    keeper::{self, Keeper},
    longest_claim,
};
use crate::reads::Reads;

/// How long a peer's question waits for a file that is fetched over IP for it, in milliseconds. Over radio a
/// second question costs more than the wait.
const HELD_MS: u64 = 60_000;

/// What a keeper needs beside the rest where there is a radio.
#[derive(Debug)]
pub(crate) struct OverRadio {
    /// To the owner.
    pub(crate) inbox: mpsc::Sender<Delivery>,
    /// From the owner.
    pub(crate) news: mpsc::UnboundedReceiver<FileNews>,
    /// Tells the radio whether it is to look for peers.
    pub(crate) seeks: watch::Sender<bool>,
}

/// What the owner tells of files over radio. Nothing bounds the queue but the sessions themselves: on each,
/// one piece of at most 17 KiB is under way in each direction.
#[derive(Debug)]
pub(crate) enum FileNews {
    /// A session is open with a peer that gives pieces.
    Peer(SessionId, NodeId),
    /// A session is over.
    Over(SessionId),
    /// A peer asks for a piece.
    Asked(Question),
    /// A slice came, of a piece of so many bytes.
    Slice { session: SessionId, total: usize, bytes: Vec<u8> },
    /// The piece that was asked for doesn't come.
    Lacked(SessionId),
}

/// A peer's question for a piece of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    session: SessionId,
    token: u64,
    blob: BlobId,
    group: u32,
}

impl FileNews {
    /// What an effect tells; none if it is of no file.
    pub(crate) fn of(effect: &Effect) -> Option<Self> {
        Some(match effect {
            Effect::FilePeer { session, peer } => Self::Peer(*session, *peer),
            Effect::FileAsked { session, token, blob, group } => Self::Asked(Question {
                session: *session,
                token: *token,
                blob: *blob,
                group: *group,
            }),
            Effect::FileSlice { session, total, bytes } => {
                Self::Slice { session: *session, total: *total, bytes: bytes.clone() }
            }
            Effect::FileLacked { session } => Self::Lacked(*session),
            Effect::Close { session, .. } => Self::Over(*session),
            _ => return None,
        })
    }
}

/// What is asked for, and by which way.
pub(super) struct Over {
    pub(super) parts: OverRadio,
    pub(super) pieces: Pieces,
    /// Files of which it is being found out what lacks.
    reading: HashSet<BlobId>,
    /// Questions for files that are fetched over IP for them, and until when they wait. At most one of each
    /// session.
    held: Vec<(Question, u64)>,
}

impl Over {
    pub(super) fn new(parts: OverRadio) -> Self {
        Self { parts, pieces: Pieces::default(), reading: HashSet::new(), held: Vec::new() }
    }

    /// When, after `now_ms`, there is something to do without anything else happening.
    pub(super) fn next_timeout_ms(&self, now_ms: u64) -> Option<u64> {
        let held = self.held.iter().map(|(_, until_ms)| *until_ms);
        self.pieces.next_timeout_ms(now_ms).into_iter().chain(held).min()
    }
}

/// What a task has done.
pub(super) enum Done {
    /// It told the owner something.
    Said,
    /// It found the claim of a file that was asked for before the start.
    Claimed(BlobId, Option<u64>),
    /// It found which pieces lack of a file of so many bytes.
    Lacks(BlobId, u64, Result<Vec<u32>, ShelfError>),
    /// It verified a piece of a file of so many bytes.
    Checked(BlobId, u64, u32, Result<TakenPiece, ShelfError>),
    /// It found that a piece can't be given, of a file of so many bytes, as claimed; none: no record names it,
    /// or it is too long.
    Missing(Question, Option<u64>),
    /// It lifted a mark.
    Unmarked(Result<(), ShelfError>),
}

impl Keeper {
    /// Somebody asks for a file of so many bytes, as claimed.
    pub(super) fn ask_over_radio(&mut self, blob: BlobId, size: u64) -> Result<(), AskError> {
        let Some(over) = self.over.as_mut().filter(|_| self.policy.held(&blob).is_none()) else {
            return Ok(());
        };
        over.pieces.ask(blob, size)?;
        self.policy.begin(blob);
        Ok(())
    }

    /// The same after a start: what was asked for before.
    pub(super) fn ask_over_radio_again(&mut self, blob: BlobId) {
        let reads = self.parts.reads.clone();
        let claimed = async move { Done::Claimed(blob, claimed(reads, blob).await) };
        self.spawn(claimed);
    }

    /// It is whole, or nobody asks for it any more.
    pub(super) fn end_over_radio(&mut self, blob: BlobId) {
        let Some(over) = &mut self.over else { return };
        let held: Vec<_> = over.held.extract_if(.., |(it, _)| it.blob == blob).collect();
        let was_asked = over.pieces.is_asked(&blob);
        over.pieces.forget(&blob);
        if was_asked {
            let shelf = self.parts.shelf.clone();
            self.spawn(async move { Done::Unmarked(shelf.mark_over_radio(blob, false).await) });
        }
        held.into_iter().for_each(|(question, _)| self.give(question));
    }

    /// Answers a peer's question, if the piece is here.
    fn give(&mut self, question: Question) {
        let Some(over) = &self.over else { return };
        let (shelf, reads) = (self.parts.shelf.clone(), self.parts.reads.clone());
        let inbox = over.parts.inbox.clone();
        let Question { session, token, blob, group } = question;
        self.spawn(async move {
            let claimed = claimed(reads, blob).await.filter(|size| *size <= FILE_MAX);
            let piece = match claimed {
                Some(_) => piece(&shelf, blob, group).await,
                None => None,
            };
            if piece.is_none() {
                return Done::Missing(question, claimed);
            }
            // The owner has ended otherwise: then nobody waits.
            let _ = inbox.send(Input::FileGive { session, token, piece }.into()).await;
            Done::Said
        });
    }

    fn lack(&mut self, question: Question) {
        let Question { session, token, .. } = question;
        self.say(Input::FileGive { session, token, piece: None });
    }

    /// Some of it may have come over IP.
    pub(super) fn may_have_come(&mut self, blob: &BlobId) {
        if let Some(over) = &mut self.over {
            over.pieces.may_have_come(blob);
        }
    }

    /// Asks for what is to be asked for now.
    pub(super) fn want_pieces(&mut self) {
        let now_ms = self.now_ms();
        let Some(over) = &mut self.over else { return };
        let late: Vec<_> = over.held.extract_if(.., |(_, until_ms)| *until_ms <= now_ms).collect();
        let unknown: Vec<_> = over.pieces.unknown().collect();
        let mut wants = Vec::new();
        // What comes over IP doesn't come twice.
        while self.policy.room() >= FILE_MAX
            && let Some(want) = over.pieces.next(now_ms, |blob| self.running.contains_key(blob))
        {
            wants.push(want);
        }
        let is_seeking = over.pieces.is_seeking();
        over.parts
            .seeks
            .send_if_modified(|seeks| std::mem::replace(seeks, is_seeking) != is_seeking);
        let new: Vec<_> =
            unknown.into_iter().filter(|(blob, _)| over.reading.insert(*blob)).collect();
        for (blob, size) in new {
            let shelf = self.parts.shelf.clone();
            self.spawn(async move { Done::Lacks(blob, size, shelf.lacking(blob, size).await) });
        }
        late.into_iter().for_each(|(question, _)| self.lack(question));
        for want in wants {
            let (session, blob) = (want.session, want.blob);
            debug!(
                blob = blob.short(),
                group = want.group,
                from = want.from,
                "a piece is asked for"
            );
            self.say(Input::FileWant { session, blob, group: want.group, from: want.from });
            self.changed();
        }
    }

    /// Takes what the owner tells.
    pub(super) fn take_news(&mut self, news: FileNews) {
        let now_ms = self.now_ms();
        let Some(over) = &mut self.over else { return };
        match news {
            FileNews::Peer(session, node) => over.pieces.up(session, node),
            FileNews::Over(session) => {
                over.pieces.down(&session);
                over.held.retain(|(question, _)| question.session != session);
            }
            FileNews::Lacked(session) => over.pieces.lacked(&session, now_ms),
            FileNews::Slice { session, total, bytes } => {
                let Some(piece) = over.pieces.slice(&session, total, &bytes) else { return };
                let (shelf, blob, size) = (self.parts.shelf.clone(), piece.blob, piece.size);
                self.spawn(async move {
                    let taken = shelf.take_piece(blob, size, piece.group, piece.bytes).await;
                    Done::Checked(blob, size, piece.group, taken)
                });
            }
            FileNews::Asked(question) => self.give(question),
        }
        self.changed();
    }

    /// Takes what a task has done.
    pub(super) fn take_over_radio(&mut self, done: Done) {
        let now_ms = self.now_ms();
        let Some(over) = &mut self.over else { return };
        match done {
            Done::Said | Done::Unmarked(Ok(())) | Done::Claimed(_, None) => {}
            Done::Unmarked(Err(error)) => warn!(%error, "that a file came could not be noted"),
            Done::Claimed(blob, Some(size)) => match self.ask_over_radio(blob, size) {
                Ok(()) => self.policy.ask(blob, size),
                Err(error) => debug!(%error, "a file is not asked for over radio again"),
            },
            Done::Lacks(blob, size, lacking) => {
                over.reading.remove(&blob);
                match lacking {
                    Ok(lacking) if lacking.is_empty() && over.pieces.is_asked(&blob) => {
                        self.is_whole(blob, size);
                    }
                    Ok(lacking) => over.pieces.lacks(&blob, lacking),
                    Err(error) => {
                        warn!(%error, "what lacks of a file can't be read");
                        // It waits for IP.
                        self.end_over_radio(blob);
                    }
                }
            }
            Done::Checked(blob, size, group, taken) => {
                let checked = match &taken {
                    Ok(TakenPiece::Whole | TakenPiece::Held) => Checked::Held,
                    Ok(TakenPiece::Wrong) => Checked::Wrong,
                    Err(_) => Checked::Failed,
                };
                over.pieces.checked(&blob, group, checked, now_ms);
                match taken {
                    Ok(TakenPiece::Whole) => self.is_whole(blob, size),
                    // It was let go meanwhile.
                    Ok(TakenPiece::Held) if self.is_dropped(&blob, size) => self.remove(vec![blob]),
                    Ok(TakenPiece::Held) => self.policy.begin(blob),
                    Ok(TakenPiece::Wrong) => info!(
                        blob = blob.short(),
                        "a peer gave a wrong piece of a file, and isn't asked for it again"
                    ),
                    Err(error) => warn!(%error, "a piece of a file could not be kept"),
                }
            }
            Done::Missing(question, claimed) => {
                let Question { session, blob, .. } = question;
                let size = claimed.filter(|_| self.policy.held(&blob).is_none());
                let size = size.filter(|_| over.pieces.may_fetch_for(&session, blob));
                if let Some(size) = size {
                    debug!(blob = blob.short(), "a file is fetched for a peer on the radio");
                    self.policy.ask(blob, size);
                }
                if size.is_some() && self.parts.fetcher.is_some() && !self.peers.is_empty() {
                    over.held.push((question, now_ms + HELD_MS));
                } else {
                    self.lack(question);
                }
            }
        }
        self.changed();
    }

    fn is_dropped(&self, blob: &BlobId, size: u64) -> bool {
        self.policy.state(blob, size, false) == State::Dropped
    }

    fn is_whole(&mut self, blob: BlobId, size: u64) {
        info!(blob = blob.short(), size, "a file came over radio");
        self.policy.came(blob, size);
        self.end_over_radio(blob);
    }

    fn say(&mut self, input: Input) {
        let Some(over) = &self.over else { return };
        let inbox = over.parts.inbox.clone();
        self.spawn(async move {
            // The owner has ended otherwise.
            let _ = inbox.send(input.into()).await;
            Done::Said
        });
    }

    fn spawn(&mut self, work: impl Future<Output = Done> + Send + 'static) {
        self.tasks.spawn(async move { keeper::Done::OverRadio(work.await) });
    }
}

async fn piece(shelf: &Arc<Shelf>, blob: BlobId, group: u32) -> Option<Vec<u8>> {
    let piece = shelf.piece(blob, group, FILE_MAX).await;
    piece.unwrap_or_else(|error| {
        warn!(%error, "a piece of a file can't be read");
        None
    })
}

/// The longest claim of a file that a record here names.
async fn claimed(reads: Reads, blob: BlobId) -> Option<u64> {
    let read = tokio::task::spawn_blocking(move || longest_claim(reads.snapshot()?.view(), &blob));
    // An error of the task says that the program ends.
    let read = read.await.unwrap_or(Ok(None));
    read.unwrap_or_else(|error| {
        let error = anyhow::Error::new(error);
        warn!(error = format!("{error:#}"), "the attachments could not be read");
        None
    })
}
