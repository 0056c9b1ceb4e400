//! The records that a set of events folds to, kept in an ordered map of bytes.
//!
//! Invariants:
//! - The view is a function of the set of folded events. Their order, their grouping into batches
//!   and repeats change no byte of it once [`settle`] has run.
//! - An event whose payload is missing counts for nothing until it is folded again with it. Which
//!   events are held back ([`crate::hlc::is_held_back`]) is the caller's to decide.
//! - [`fold`] touches a bounded number of cells, however much a record holds. [`settle`] reads each
//!   touched record once, its fields with foreign sets twice, and one path of the trie for each.
//! - What a foreign event is in the view follows from the event of the other system alone, whoever
//!   carries it, and however often.
//! - Between [`fold`] and [`settle`] the cells of the records and the index of files are right, while listings, conflicts,
//!   counts and digests are those of the last [`settle`]: call it in the transaction of the events.
//!
//! Source: FORMAT.md beside this crate, section 9.
//!
//! # Choices
//!
//! Where the rules leave something open, version 2 does this:
//! - The field with the empty name takes text alone: a `field.set` of it with another value counts
//!   for nothing, so it doesn't make its record exist, and its `over` replaces nothing.
//! - A record exists also when all its sets are replaced, and then has neither form nor fields.
//! - *Created by*: the least `record.create` in the total order. None without one. It stays the
//!   same when the record is created again, and is not part of the digest.
//! - A field is in conflict when its candidates don't all have the same value; the form counts as
//!   one of them, under the empty name. The number of conflicts is that of (record, field) pairs.
//! - A set that names itself, by a collision of 8 bytes, is replaced.
//! - Seventeen entries in `over` are ill-typed also where some are equal.
//! - Listed under a form is what shows that form; a record without a form is listed under none, one
//!   whose form is the empty text under the empty text.
//! - An attachment's media type and name, a note and a profile's name have no limit but the
//!   payload's.
//! - Of an author's profiles the greatest in the total order shows, also when its name is empty.

mod cell;
mod digest;
mod foreign;
mod radio;
mod read;
mod settle;

#[cfg(test)]
mod tests;

use std::borrow::Borrow;

use self::cell::{Cells, Key, Meta, Space, file_key};
pub use self::{
    cell::cell_name,
    digest::{digest, rule},
    foreign::{
        Carried, ForeignAt, carried, foreign_author, foreign_authors, foreign_events, index,
    },
    radio::{author_of_radio, radio_of},
    read::{
        Attachment, Candidate, Conflict, Counts, Field, FileReference, Listed, Note, Profile,
        Record, RecordsQuery, attachment, candidates, conflicts, counts, exists, field, files,
        files_of, form, over, profile, record, records,
    },
    settle::settle,
};
use crate::{
    codec::{ReadError, Writer},
    event::Event,
    hlc::Hlc,
    id::{AuthorId, EventId},
    kv::KvMut,
    meshlog::{FOREIGN_KIND, MeshlogEvent},
    record::{RecordEvent, SetName},
    value::Value,
};

/// The version of the fold. Digests are compared only within one; another one folds all anew.
///
/// 2: foreign events. 1: without them.
pub const FOLD_VERSION: u32 = 2;

/// How the cells are laid out: what a view of another layout lacks is made by a fold of all anew. No
/// digest depends on it. 3: identities in Reticulum; 2: the index of files; 1 was not written down.
const LAYOUT: u8 = 3;

/// Why the view can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ViewError<E: std::error::Error + 'static> {
    /// The storage says no.
    #[error("the storage of the view failed")]
    Storage(#[from] E),
    /// A cell doesn't hold what was put there: [`reset`] the view and fold all events again.
    #[error("a cell of the view is damaged, it must be folded anew")]
    Damaged(#[source] ReadError),
}

/// By whom and when something was said. Ordered as the fold orders events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The stamp.
    pub hlc: Hlc,
    /// Whose event.
    pub author: AuthorId,
    /// Its place in the feed.
    pub seq: u64,
    /// The event.
    pub id: EventId,
}

impl Origin {
    /// Where `event` stands.
    pub fn of(event: &Event) -> Self {
        let (hlc, author, seq, id) = event.order();
        Self { hlc, author, seq, id }
    }
}

/// The stamp by which `event` is held back ([`crate::hlc::is_held_back`]); none where there is nothing to
/// hold back.
///
/// A foreign event is held back by the stamp inside it, so not before its payload is here: ask again then.
pub fn stamp(event: &Event) -> Option<Hlc> {
    if event.kind.as_str() == FOREIGN_KIND {
        return foreign(event).map(|inner| inner.hlc());
    }
    Some(event.hlc)
}

/// The event of the other system that `event` carries, if it is a good one.
pub fn foreign(event: &Event) -> Option<MeshlogEvent> {
    let payload = event.payload.bytes().filter(|_| event.kind.as_str() == FOREIGN_KIND)?;
    MeshlogEvent::parse(payload).ok()
}

/// What an event says, and where what it says stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// By whom and when it was said; of a foreign event derived from what it carries.
    pub origin: Origin,
    /// What it says.
    pub meaning: RecordEvent,
    /// Whether it was said in another system: its sets replace all before them.
    pub is_foreign: bool,
}

impl Said {
    /// What `event` says, if it counts at all.
    pub fn by(event: &Event) -> Option<Self> {
        if event.kind.as_str() == FOREIGN_KIND {
            return Self::by_foreign(&foreign(event)?);
        }
        let meaning = RecordEvent::decode(event.kind.as_str(), event.payload.bytes()?).ok()??;
        Some(Self { origin: Origin::of(event), meaning, is_foreign: false })
    }

    fn by_foreign(inner: &MeshlogEvent) -> Option<Self> {
        Some(Self { meaning: inner.meaning()?, origin: inner.origin(), is_foreign: true })
    }
}

/// Takes `event` into the view. Returns whether it counts; a repeat counts, and changes nothing.
///
/// Of an event that is held back nothing must be folded until time has caught up: [`index`] it.
///
/// # Errors
///
/// [`ViewError`]; the transaction must then be given up.
pub fn fold<K: KvMut>(kv: &mut K, event: &Event) -> Result<bool, ViewError<K::Error>> {
    let said = match foreign(event) {
        Some(inner) => {
            foreign::put(kv, event, &inner)?;
            Said::by_foreign(&inner)
        }
        None => Said::by(event),
    };
    let Some(said) = said else {
        radio::put(kv, event)?;
        return Ok(false);
    };
    fold_said(kv, &said)?;
    Ok(true)
}

/// Makes `record` anew from `events`, which are all of the set that concern it; others are passed
/// over. Gives the same bytes as folding them one by one, once [`settle`] has run.
///
/// # Errors
///
/// As [`fold`].
pub fn refold<K: KvMut, E: Borrow<Event>>(
    kv: &mut K,
    record: &str,
    events: impl IntoIterator<Item = E>,
) -> Result<(), ViewError<K::Error>> {
    let cells = Cells::of(record);
    let mut files = Vec::new();
    cell::scan(kv, &cells.attachments(), |key, _| {
        files.push(read::attachment_place(&cells, key)?);
        Ok(true)
    })?;
    for (field, blob) in &files {
        kv.delete(&file_key(blob, record, field))?;
    }
    clear(kv, &cells.all())?;
    kv.put(&Key::new(Space::Touched).text(record), &[])?;
    for event in events {
        if let Some(said) = Said::by(event.borrow())
            && said.meaning.record() == Some(record)
        {
            fold_said(kv, &said)?;
        }
    }
    Ok(())
}

/// Empties the view, for a fold of all events by this version.
///
/// # Errors
///
/// As [`fold`].
pub fn reset<K: KvMut>(kv: &mut K) -> Result<(), ViewError<K::Error>> {
    clear(kv, &Key::everything())?;
    kv.put(&Key::new(Space::Version), &version())?;
    Ok(())
}

/// Whether what is in `kv` was begun by [`reset`] of this version and layout. If not, [`reset`] it and fold
/// all events.
///
/// # Errors
///
/// As [`fold`].
pub fn is_current<K: crate::kv::Kv>(kv: &K) -> Result<bool, ViewError<K::Error>> {
    let version = kv.get(&Key::new(Space::Version))?;
    Ok(version.as_deref() == Some(self::version().as_slice()))
}

/// The cell that says how a view was made.
fn version() -> [u8; 5] {
    let [a, b, c, d] = FOLD_VERSION.to_be_bytes();
    [a, b, c, d, LAYOUT]
}

fn fold_said<K: KvMut>(kv: &mut K, said: &Said) -> Result<(), ViewError<K::Error>> {
    let Said { origin, meaning, .. } = said;
    let Some(record) = meaning.record() else {
        return match meaning {
            RecordEvent::Profile { name } => fold_profile(kv, origin, name),
            _ => Ok(()),
        };
    };
    let cells = Cells::of(record);
    let mut archived = None;
    let mut created = false;
    match meaning {
        RecordEvent::Create { form, .. } => {
            fold_set(kv, &cells, "", said, &Value::Text(form.clone()), &[])?;
            archived = Some(false);
            created = true;
        }
        RecordEvent::Set { field, value, over, .. } => {
            fold_set(kv, &cells, field, said, value, over)?;
        }
        RecordEvent::Note { text, .. } => kv.put(&cells.note(origin), text.as_bytes())?,
        RecordEvent::Attach { field, blob, size, mime, name, .. } => {
            let key = cells.attachment(field, blob);
            let file = cell::File { origin: *origin, size: *size, mime, name };
            let held = kv.get(&key)?;
            if cell::held_origin(held.as_deref())? < Some(*origin) {
                kv.put(&key, &file.encode())?;
                let mut claimed = Writer::new();
                claimed.varint(*size);
                kv.put(&file_key(blob, record, field), &claimed.into_bytes())?;
            }
        }
        RecordEvent::Archive { archived: into, .. } => archived = Some(*into),
        RecordEvent::Profile { .. } => {}
    }
    let key = cells.meta();
    let held = kv.get(&key)?;
    let before = Meta::decode(held.as_deref())?;
    let mut meta = before;
    if let Some(archived) = archived {
        meta.archived = meta.archived.max(Some((*origin, archived)));
    }
    if created && meta.created.is_none_or(|first| *origin < first) {
        meta.created = Some(*origin);
    }
    if held.is_none() || meta != before {
        kv.put(&key, &meta.encode())?;
    }
    kv.put(&Key::new(Space::Touched).text(record), &[])?;
    Ok(())
}

/// A set replaces the candidates that it names, also those that come later, a foreign one all that stand
/// before it; and it is one itself unless a set that came before replaces it.
fn fold_set<K: KvMut>(
    kv: &mut K,
    cells: &Cells,
    field: &str,
    said: &Said,
    value: &Value,
    over: &[SetName],
) -> Result<(), ViewError<K::Error>> {
    let origin = &said.origin;
    let floor = cells.floor(field);
    let held = kv.get(&floor)?;
    let held = cell::held_origin(held.as_deref())?;
    if said.is_foreign && held < Some(*origin) {
        // Reads pass over the candidates below it; `settle` takes them away, once for all of a batch.
        kv.put(&floor, &cell::encode_origin(origin))?;
    }
    for name in over {
        kv.put(&cells.name(field, name), &[])?;
        clear(kv, &cells.candidates_named(field, name))?;
    }
    let is_below = held.is_some_and(|floor| *origin < floor);
    if !is_below && kv.get(&cells.name(field, &origin.id.prefix()))?.is_none() {
        let candidate = cell::encode_candidate(origin, value);
        kv.put(&cells.candidate(field, &origin.id), &candidate)?;
    }
    Ok(())
}

fn fold_profile<K: KvMut>(
    kv: &mut K,
    origin: &Origin,
    name: &str,
) -> Result<(), ViewError<K::Error>> {
    let key = Key::new(Space::Profiles).raw(&origin.author.0);
    let held = kv.get(&key)?;
    if cell::held_origin(held.as_deref())? < Some(*origin) {
        kv.put(&key, &cell::encode_profile(origin, name))?;
    }
    Ok(())
}

/// Keys that [`clear`] collects before it takes them away: bounds its memory.
const CLEAR_KEYS: usize = 4096;

/// Takes away all keys of `span`.
fn clear<K: KvMut>(kv: &mut K, span: &cell::Span) -> Result<(), ViewError<K::Error>> {
    loop {
        let mut keys = Vec::new();
        kv.range(&span.from, &span.to, crate::kv::Order::Ascending, &mut |key, _| {
            keys.push(key.to_vec());
            keys.len() < CLEAR_KEYS
        })?;
        for key in &keys {
            kv.delete(key)?;
        }
        if keys.len() < CLEAR_KEYS {
            return Ok(());
        }
    }
}
