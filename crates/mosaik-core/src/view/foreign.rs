//! Which events of other systems are here, held back or not, and which of ours carries each.
//!
//! It follows from the set of events that are here with their payloads, as the rest of the view does,
//! and is in no digest.

use super::{
    ViewError,
    cell::{Key, Space, Span, scan},
};
use crate::{
    codec::{ReadError, Reader},
    event::Event,
    id::{AuthorId, EventId},
    kv::{Kv, KvMut},
    meshlog::{self, MeshlogEvent, MeshlogId},
};

/// The event of ours that carries a foreign one: of several the least by (author, seq, id).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Carried {
    /// Whose feed.
    pub author: AuthorId,
    /// Its place in the feed.
    pub seq: u64,
    /// The event.
    pub id: EventId,
}

/// A foreign event that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignAt {
    /// Its author as the view has it ([`meshlog::foreign_author`]).
    pub author: AuthorId,
    /// Its place in that author's feed. Where the feed branches, several have it.
    pub seq: u64,
    /// Its id as the view has it.
    pub event: EventId,
    /// Its id there.
    pub id: MeshlogId,
    /// What carries it.
    pub carried: Carried,
}

/// Notes that `event` carries a foreign event, if it does. [`super::fold`] does so as well: this is for an
/// event that is held back.
///
/// # Errors
///
/// [`ViewError`]; the transaction must then be given up.
pub fn index<K: KvMut>(kv: &mut K, event: &Event) -> Result<(), ViewError<K::Error>> {
    match super::foreign(event) {
        Some(inner) => put(kv, event, &inner),
        None => Ok(()),
    }
}

pub(super) fn put<K: KvMut>(
    kv: &mut K,
    event: &Event,
    inner: &MeshlogEvent,
) -> Result<(), ViewError<K::Error>> {
    let key = key_of(inner);
    let by = Carried { author: event.author, seq: event.seq, id: event.id };
    let held = kv.get(&key)?;
    let held = held.as_deref().map(read_cell).transpose().map_err(ViewError::Damaged)?;
    if held.is_some_and(|(_, held)| held <= by) {
        return Ok(());
    }
    kv.put(&key, &[&inner.id.0[..], &by.author.0, &by.seq.to_be_bytes(), &by.id.0].concat())?;
    if held.is_none() {
        let author = meshlog::foreign_author(&inner.author);
        kv.put(&Key::new(Space::ForeignAuthors).raw(&author.0), inner.author.as_bytes())?;
    }
    Ok(())
}

/// What carries this foreign event here, if it is here, held back or not.
///
/// # Errors
///
/// [`ViewError`], as all reads.
pub fn carried<K: Kv>(
    kv: &K,
    inner: &MeshlogEvent,
) -> Result<Option<Carried>, ViewError<K::Error>> {
    let cell = kv.get(&key_of(inner))?;
    let cell = cell.as_deref().map(read_cell).transpose().map_err(ViewError::Damaged)?;
    Ok(cell.map(|(_, by)| by))
}

/// Calls `each` for the foreign events of one author that are here, from `seq` on and by it, until it
/// returns false.
///
/// # Errors
///
/// [`ViewError`], as all reads.
pub fn foreign_events<K: Kv>(
    kv: &K,
    author: &AuthorId,
    seq: u64,
    mut each: impl FnMut(ForeignAt) -> bool,
) -> Result<(), ViewError<K::Error>> {
    let of_author = Key::new(Space::ForeignEvents).raw(&author.0);
    let from = of_author.clone().raw(&seq.to_be_bytes()).to_vec();
    let span = Span { from, to: of_author.span().to };
    scan(kv, &span, |key, cell| {
        let mut key = Reader::new(&key[1..]);
        let author = AuthorId(key.array()?);
        let (seq, event) = (u64::from_be_bytes(key.array()?), EventId(key.array()?));
        let (id, carried) = read_cell(cell)?;
        Ok(each(ForeignAt { author, seq, event, id, carried }))
    })
}

/// Calls `each` for the foreign authors of whom something is here, with their names there, in a fixed
/// order, until it returns false.
///
/// # Errors
///
/// [`ViewError`], as all reads.
pub fn foreign_authors<K: Kv>(
    kv: &K,
    mut each: impl FnMut(AuthorId, &str) -> bool,
) -> Result<(), ViewError<K::Error>> {
    scan(kv, &Key::new(Space::ForeignAuthors).span(), |key, name| {
        let author = AuthorId(Reader::new(&key[1..]).array()?);
        Ok(each(author, read_name(name)?))
    })
}

/// The name there of an author of the view, if it is a foreign one.
///
/// # Errors
///
/// [`ViewError`], as all reads.
pub fn foreign_author<K: Kv>(
    kv: &K,
    author: &AuthorId,
) -> Result<Option<String>, ViewError<K::Error>> {
    let cell = kv.get(&Key::new(Space::ForeignAuthors).raw(&author.0))?;
    let name = cell.as_deref().map(read_name).transpose().map_err(ViewError::Damaged)?;
    Ok(name.map(str::to_owned))
}

fn key_of(inner: &MeshlogEvent) -> Key {
    let origin = inner.origin();
    Key::new(Space::ForeignEvents)
        .raw(&origin.author.0)
        .raw(&origin.seq.to_be_bytes())
        .raw(&origin.id.0)
}

fn read_cell(cell: &[u8]) -> Result<(MeshlogId, Carried), ReadError> {
    let mut reader = Reader::new(cell);
    let id = MeshlogId(reader.array()?);
    let author = AuthorId(reader.array()?);
    let (seq, event) = (u64::from_be_bytes(reader.array()?), EventId(reader.array()?));
    reader.finish()?;
    Ok((id, Carried { author, seq, id: event }))
}

fn read_name(cell: &[u8]) -> Result<&str, ReadError> {
    std::str::from_utf8(cell).map_err(|_| ReadError::Utf8)
}
