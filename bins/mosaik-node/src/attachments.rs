//! Attachments: the files that records name. They are added, fetched, read and let go here.
//!
//! Invariants:
//! - A file is durable before the event that names it is appended: nobody hears of one that can't be had.
//! - What is read was checked against its hash.
//! - That a file isn't here changes no record: references and files are two things.

mod keeper;
mod over_radio;
mod rules;

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_lite::Stream;
use mosaik_core::{
    id::{BlobId, NodeId},
    view,
};
use mosaik_net::{Reading, Shelf, ShelfError};
use mosaik_proto::{
    attachments::{Pending, State},
    pieces::{AskError, FILE_MAX, Standing},
};
use tokio::sync::{mpsc, oneshot, watch};

use self::keeper::Ask;
pub use self::rules::{Rule, takes};
pub(crate) use self::{
    keeper::{Keeper, Parts},
    over_radio::{FileNews, OverRadio},
};
use crate::{
    edit::{Edit, Refusal},
    handle::{Appended, Handle, WriteError},
    reads::{ReadError, Reads},
};

/// Questions that may wait for the keeper; who asks more waits.
const ASKS_MAX: usize = 64;
/// How often who waits for a file is told how much of it is here.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// A file that is to be attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// The record, which must exist.
    pub record: String,
    /// The field that it belongs to; need not be set.
    pub field: String,
    /// Its media type.
    pub mime: String,
    /// Its name.
    pub name: String,
}

/// A file that was attached: here and its event, both durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Its BLAKE3.
    pub blob: BlobId,
    /// Its bytes.
    pub size: u64,
    /// The event that names it.
    pub appended: Appended,
}

/// How it stands with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Whether it is here, or what it waits for.
    pub state: State,
    /// Bytes of it that are here, as far as they are being fetched, were asked for over radio, or it is
    /// whole.
    pub here: u64,
    /// Whether it comes over radio, or may.
    pub radio: RadioWay,
    /// Bytes that there is room for.
    pub room: u64,
    /// Connected peers, over IP.
    pub peers: usize,
    /// Known peers that aren't connected: who has it may be one of them.
    pub absent: usize,
    /// Whether it is kept whatever the settings and records say.
    pub pinned: bool,
}

/// How it stands with a file and the radio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RadioWay {
    /// There is none, or the file is too long for it.
    None,
    /// It is asked for there if somebody wants it so.
    Open,
    /// It is asked for there.
    Asked {
        /// Whether a piece of it is under way.
        is_coming: bool,
    },
}

/// What was asked for over radio, and what waits in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnRadio {
    /// Asked for there, in the order of that.
    pub asked: Vec<Standing>,
    /// Wanted, and not asked for there.
    pub held_back: Pending,
}

/// Why something was not done with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachmentError {
    /// The event that names it could not be appended.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The file itself.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// What records say of it can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No record here names such a file.
    #[error("no record here names the file {0}")]
    Unknown(BlobId),
    /// It isn't here.
    #[error("the file {0} is not here; `attachment get` fetches it")]
    NotHere(BlobId),
    /// There is no room for it.
    #[error(
        "the file has {size} bytes, and there is room for {room}: raise attachments_max, drop others, \
         or make room on the disk"
    )]
    NoRoom {
        /// Its bytes, as claimed.
        size: u64,
        /// Bytes that may come.
        room: u64,
    },
    /// It is longer than every record says that names it.
    #[error("the file is longer than its record says; it is not fetched")]
    TooLong,
    /// There is no radio.
    #[error("this node has no radio: start it with a way into Reticulum, as --rns rnsd")]
    NoRadio,
    /// It is too long for radio.
    #[error("over radio go files of at most {FILE_MAX} bytes, and this one has {size}{on_air}")]
    TooLongForRadio {
        /// Its bytes, as claimed.
        size: u64,
        /// What it would take there, in words.
        on_air: String,
    },
    /// It can't be asked for over radio.
    #[error(transparent)]
    OverRadio(#[from] AskError),
    /// It is in use.
    #[error("the file is being read or fetched; try again")]
    InUse,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// A way to the files of a running node.
#[derive(Debug, Clone)]
pub struct Attachments {
    handle: Handle,
    reads: Reads,
    shelf: Arc<Shelf>,
    has_radio: bool,
    rules: Arc<[Rule]>,
    asks: mpsc::Sender<Ask>,
    changes: watch::Receiver<u64>,
}

impl Attachments {
    /// A way to the files, and the loop that keeps them, which is to be run.
    pub(crate) fn new(handle: Handle, parts: Parts) -> (Self, Keeper) {
        let (sender, asks) = mpsc::channel(ASKS_MAX);
        let (changed, changes) = watch::channel(0);
        let (reads, shelf) = (parts.reads.clone(), parts.shelf.clone());
        let (rules, has_radio) = (parts.rules.clone(), parts.over_radio.is_some());
        let attachments = Self { handle, reads, shelf, has_radio, rules, asks: sender, changes };
        (attachments, Keeper::new(parts, asks, changed))
    }

    /// Attaches a file to a record; it is hashed while it comes. Dropping the future takes nothing in,
    /// unless the event is being appended already.
    ///
    /// # Errors
    ///
    /// [`AttachmentError`]: then no event was appended.
    pub async fn add(
        &self,
        file: NewFile,
        pieces: impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static,
    ) -> Result<Attached, AttachmentError> {
        let NewFile { record, field, mime, name } = file;
        let asked = record.clone();
        if !self.read(move |view| Ok(view::exists(view, &asked)?)).await? {
            return Err(WriteError::Refused(Refusal::NoSuchRecord(record)).into());
        }
        let room = self.ask(Ask::Room).await?;
        let staged = self.shelf.add(pieces, room).await?;
        let (blob, size) = (staged.blob, staged.size);
        self.shelf.mark_dropped(blob, false).await?;
        self.ask(|reply| Ask::Added(blob, size, reply)).await?;
        // Where this is refused, nothing names the file: it is collected in time.
        let appended =
            self.handle.edit(Edit::Attach { record, field, blob, size, mime, name }).await?;
        Ok(Attached { blob, size, appended })
    }

    /// How it stands with files of so many bytes, as claimed, of records of a form; in their order.
    ///
    /// # Errors
    ///
    /// [`AttachmentError::Stopping`].
    pub async fn look(
        &self,
        of: &[(BlobId, u64, Option<&str>)],
    ) -> Result<Vec<Look>, AttachmentError> {
        if of.is_empty() {
            return Ok(Vec::new());
        }
        let of =
            of.iter().map(|(blob, size, form)| (*blob, *size, takes(&self.rules, *form, *size)));
        let of = of.collect();
        self.ask(|reply| Ask::Look(of, reply)).await
    }

    /// Has a file fetched that a record names, if it isn't here, and returns its bytes when it is.
    /// Dropping the future gives the waiting up, not the fetch; so does whoever has no patience:
    /// [`Attachments::ask_for`] tells how far it is.
    ///
    /// # Errors
    ///
    /// As [`Waiting::next`].
    pub async fn fetch(&self, blob: BlobId) -> Result<u64, AttachmentError> {
        let mut waiting = self.ask_for(blob).await?;
        loop {
            if let Some(size) = waiting.next().await? {
                return Ok(size);
            }
        }
    }

    /// Has a file fetched that a record names, if it isn't here: before all others, and whatever the
    /// settings say.
    ///
    /// # Errors
    ///
    /// [`AttachmentError::Unknown`].
    pub async fn ask_for(&self, blob: BlobId) -> Result<Waiting, AttachmentError> {
        let claimed = self.claimed(blob).await?;
        self.shelf.mark_dropped(blob, false).await?;
        self.ask(|reply| Ask::Fetch(blob, claimed, reply)).await?;
        Ok(Waiting { attachments: self.clone(), blob, claimed, look: None })
    }

    /// The same, and it may come over radio, piece by piece, behind all else that goes there. It is asked
    /// for there until it is whole or let go, over restarts too.
    ///
    /// # Errors
    ///
    /// [`AttachmentError::Unknown`], [`AttachmentError::NoRadio`], [`AttachmentError::TooLongForRadio`],
    /// [`AttachmentError::OverRadio`]: then it isn't asked for over IP either.
    pub async fn ask_for_over_radio(&self, blob: BlobId) -> Result<Waiting, AttachmentError> {
        let size = self.claimed(blob).await?;
        if !self.has_radio {
            return Err(AttachmentError::NoRadio);
        }
        if size > FILE_MAX {
            return Err(AttachmentError::TooLongForRadio { size, on_air: self.on_air(size) });
        }
        if self.held(blob).await?.is_none() {
            // Before it is asked for: it may be here at once, and then the mark goes.
            self.shelf.mark_over_radio(blob, true).await?;
            if let Err(error) = self.ask(|reply| Ask::OverRadio(blob, size, reply)).await? {
                self.shelf.mark_over_radio(blob, false).await?;
                return Err(error.into());
            }
        }
        self.ask_for(blob).await
    }

    /// What so many bytes take on the fastest radio, in words; nothing where that isn't known.
    fn on_air(&self, size: u64) -> String {
        let bridge = self.handle.bridge();
        let bits = bridge.interfaces.iter().filter_map(|it| it.bitrate).filter(|bits| *bits > 0);
        let minutes = |bits: u32| (size * 8 / u64::from(bits)).div_ceil(60);
        let words =
            |bits: u32| format!(": more than {} minutes on air at {bits} bit/s", minutes(bits));
        bits.max().map(words).unwrap_or_default()
    }

    /// What was asked for over radio, and what waits in all.
    ///
    /// # Errors
    ///
    /// [`AttachmentError::Stopping`].
    pub async fn on_radio(&self) -> Result<OnRadio, AttachmentError> {
        let (asked, pending) = self.ask(Ask::Radio).await?;
        let bytes: u64 = asked.iter().map(|file| file.size).sum();
        let held_back = Pending {
            count: pending.count.saturating_sub(asked.len() as u64),
            bytes: pending.bytes.saturating_sub(bytes),
        };
        Ok(OnRadio { asked, held_back })
    }

    /// The longest claim of a file that is here or that a record names.
    async fn claimed(&self, blob: BlobId) -> Result<u64, AttachmentError> {
        match self.read(move |view| longest_claim(view, &blob)).await? {
            Some(size) => Ok(size),
            None => self.held(blob).await?.ok_or(AttachmentError::Unknown(blob)),
        }
    }

    /// The bytes of a file that is here.
    async fn held(&self, blob: BlobId) -> Result<Option<u64>, AttachmentError> {
        let looks = self.look(&[(blob, 0, None)]).await?;
        let here = looks.first().filter(|look| look.state == State::Here);
        Ok(here.map(|look| look.here))
    }

    /// Begins to read a file that is here; with its bytes.
    ///
    /// # Errors
    ///
    /// [`AttachmentError::NotHere`], [`AttachmentError::Unknown`].
    pub async fn open(&self, blob: BlobId) -> Result<(u64, Reading), AttachmentError> {
        let Some(size) = self.held(blob).await? else {
            self.claimed(blob).await?;
            return Err(AttachmentError::NotHere(blob));
        };
        Ok((size, self.shelf.read(blob).await?))
    }

    /// Keeps a file, and fetches it if it isn't here, whatever the settings say, also when no record
    /// names it any more; or lifts that. Kept over restarts.
    ///
    /// # Errors
    ///
    /// [`AttachmentError::Unknown`].
    pub async fn pin(&self, blob: BlobId, on: bool) -> Result<(), AttachmentError> {
        self.claimed(blob).await?;
        self.shelf.pin(blob, on).await?;
        if on {
            self.shelf.mark_dropped(blob, false).await?;
        }
        self.ask(|reply| Ask::Pinned(blob, on, reply)).await
    }

    /// Lets the bytes of a file go, here alone; the record names it as before. It stays away until
    /// somebody asks for it. A pin is lifted.
    ///
    /// # Errors
    ///
    /// [`AttachmentError::Unknown`]; [`AttachmentError::InUse`]: then it goes when it is free.
    pub async fn let_go(&self, blob: BlobId) -> Result<(), AttachmentError> {
        self.claimed(blob).await?;
        if self.shelf.is_begun() {
            self.shelf.pin(blob, false).await?;
            self.shelf.mark_dropped(blob, true).await?;
        }
        self.ask(|reply| Ask::LetGo(blob, reply)).await?;
        if self.shelf.remove(&[blob]).await? { Ok(()) } else { Err(AttachmentError::InUse) }
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mosaik_store::Reader) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, AttachmentError> {
        let reads = self.reads.clone();
        let done = tokio::task::spawn_blocking(move || read(reads.snapshot()?.view())).await;
        // It ends early only with the program.
        Ok(done.map_err(|_| AttachmentError::Stopping)??)
    }

    async fn ask<T>(
        &self,
        ask: impl FnOnce(oneshot::Sender<T>) -> Ask,
    ) -> Result<T, AttachmentError> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).await.map_err(|_| AttachmentError::Stopping)?;
        answer.await.map_err(|_| AttachmentError::Stopping)
    }
}

/// Somebody who waits for a file.
#[derive(Debug)]
pub struct Waiting {
    attachments: Attachments,
    blob: BlobId,
    claimed: u64,
    look: Option<Look>,
}

impl Waiting {
    /// Returns when something has changed, and a few times a second: the bytes of the file if it is here,
    /// else nothing. The first time it returns at once.
    ///
    /// # Errors
    ///
    /// [`AttachmentError::NoRoom`], [`AttachmentError::TooLong`]. That nobody has it is none: it is waited
    /// for.
    pub async fn next(&mut self) -> Result<Option<u64>, AttachmentError> {
        let changes = &mut self.attachments.changes;
        if self.look.is_some() {
            tokio::select! {
                changed = changes.changed() => changed.map_err(|_| AttachmentError::Stopping)?,
                () = tokio::time::sleep(TELL_EVERY) => {}
            }
        } else {
            changes.mark_unchanged();
        }
        let of = vec![(self.blob, self.claimed, true)];
        let looks = self.attachments.ask(|reply| Ask::Look(of, reply)).await?;
        let look = looks.first().ok_or(AttachmentError::Stopping)?;
        self.look = Some(*look);
        match look.state {
            State::Here => Ok(Some(look.here)),
            State::NoRoom => Err(AttachmentError::NoRoom { size: self.claimed, room: look.room }),
            State::TooLong => Err(AttachmentError::TooLong),
            _ => Ok(None),
        }
    }

    /// How it stood the last time, and the bytes that are claimed.
    pub fn look(&self) -> Option<(Look, u64)> {
        Some((self.look?, self.claimed))
    }
}

/// What a file waits for, in words for a person; nothing if it is here.
pub(crate) fn waits_for(
    look: &Look,
    size: u64,
    name: impl Fn(&NodeId) -> String,
) -> Option<String> {
    let percent = look.here.saturating_mul(100) / size.max(1);
    let waits = matches!(look.state, State::WaitsForHolder | State::WaitsForPeer);
    let waits = waits || look.state == State::WaitsForTurn;
    if let RadioWay::Asked { is_coming } = look.radio
        && waits
    {
        return Some(match is_coming {
            true => format!("the rest of it: {percent} % came over radio"),
            false => format!("a peer on the radio that has it, or IP: {percent} % came"),
        });
    }
    let words = match look.state {
        State::Here => return None,
        State::Fetching { from } => {
            format!("the rest of it: {percent} % came from {}", name(&from))
        }
        State::WaitsForTurn => "its turn: shorter ones go first".to_owned(),
        State::WaitsForHolder => {
            let lack = match look.peers {
                1 => "the connected one lacks it".to_owned(),
                peers => format!("the {peers} connected ones lack it"),
            };
            match look.absent {
                // The event that names it came here all the same, so its holder was never met over IP.
                0 => format!("IP: {lack}, and no other is known there{}", over_radio(look)),
                _ => format!("a peer that has it: {lack}"),
            }
        }
        State::WaitsForPeer if look.absent == 0 => {
            format!("IP: no peer is known there{}", over_radio(look))
        }
        State::WaitsForPeer => "a peer: none is connected".to_owned(),
        State::NoRoom => format!("room: {} bytes are left for attachments", look.room),
        State::TooLong => "a true claim: the file is longer than its record says".to_owned(),
        State::LeftOut => "`attachment get`: the settings leave it out".to_owned(),
        State::Dropped => "`attachment get`: it was dropped here".to_owned(),
    };
    Some(words)
}

/// The longest claim of all that records say of a file; none if none names it.
fn longest_claim(view: &mosaik_store::Reader, blob: &BlobId) -> Result<Option<u64>, ReadError> {
    let mut longest = None;
    view::files_of(view, &blob.0, |file| {
        longest = longest.max(Some(file.size));
        true
    })?;
    Ok(longest)
}

/// The other way, where there is one.
fn over_radio(look: &Look) -> &'static str {
    match look.radio {
        RadioWay::Open => "; `attachment get --over-radio` asks by radio",
        RadioWay::None | RadioWay::Asked { .. } => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record that came over radio names a file that does not: its words say what is missing.
    #[test]
    fn a_file_whose_holder_was_never_met_over_ip_waits_for_ip() {
        let words = |state, peers, absent| {
            let radio = RadioWay::None;
            let look = Look { state, here: 0, radio, room: 1, peers, absent, pinned: false };
            waits_for(&look, 10, |_| String::new()).expect("it isn't here")
        };
        let of_one = words(State::WaitsForHolder, 1, 0);
        assert_eq!(of_one, "IP: the connected one lacks it, and no other is known there");
        assert!(words(State::WaitsForHolder, 3, 0).starts_with("IP: the 3 connected ones"));
        assert_eq!(words(State::WaitsForPeer, 0, 0), "IP: no peer is known there");
        // One that is known and away may be who has it.
        assert!(words(State::WaitsForHolder, 1, 1).starts_with("a peer that has it: "));
        assert_eq!(words(State::WaitsForPeer, 0, 2), "a peer: none is connected");
    }

    #[test]
    fn a_file_that_may_come_over_radio_says_how_and_one_that_does_how_far_it_is() {
        let words = |state, here, radio| {
            let look = Look { state, here, radio, room: 1, peers: 0, absent: 0, pinned: false };
            waits_for(&look, 40_000, |_| String::new()).expect("it isn't here")
        };
        let waits = words(State::WaitsForPeer, 0, RadioWay::Open);
        assert!(waits.starts_with("IP: no peer is known there; `attachment get --over-radio`"));
        let asked = |is_coming| RadioWay::Asked { is_coming };
        let coming = words(State::WaitsForPeer, 10_000, asked(true));
        assert_eq!(coming, "the rest of it: 25 % came over radio");
        let waits = words(State::WaitsForHolder, 0, asked(false));
        assert_eq!(waits, "a peer on the radio that has it, or IP: 0 % came");
        // What stands in the way of both is said as ever.
        assert!(words(State::NoRoom, 0, asked(false)).starts_with("room: "));
    }
}
