//! Keys and values of the view's cells.
//!
//! A key is a space (one byte), then parts. Texts are escaped so that the keys sort as the texts do
//! by their bytes, whatever is in them, and end in `00 01`: `00` is written `00 ff`. So all that is
//! below a record, a field or a form is one range.
//!
//! | space | parts | value |
//! | --- | --- | --- |
//! | 00 version | | fold version, u32 big endian, and u8 3: the layout of the cells |
//! | 01 counts | | records u64, fields in conflict u64, big endian; not there without records |
//! | 02 root | | topmost hash of the digests, 32; not there without records |
//! | 10 touched | record | empty; gone after `settle` |
//! | 20 cells | record, 00 | `Meta`: the record exists |
//! | 20 cells | record, 01, field, id 32 | candidate: origin, value |
//! | 20 cells | record, 02, field, 8 bytes | empty: a set that is replaced, held or not |
//! | 20 cells | record, 03, origin | note: text |
//! | 20 cells | record, 04, field, blob 32 | attachment: origin, size, mime, name |
//! | 20 cells | record, 05, field | floor: the origin of the greatest foreign set |
//! | 30 listed | record | bool archived, option form |
//! | 31 forms | form, record | bool archived |
//! | 32 conflicts | record, field | empty |
//! | 33 files | blob 32, record, field | size, varint: what attachments name the blob |
//! | 40 digests | BLAKE3(record) 32 | record digest, 32 |
//! | 41 branches | number of nibbles, nibbles | 16 times (entries u64, hash 32): above 32 records |
//! | 50 profiles | author 32 | origin, name |
//! | 51 radios | author 32 | origin, public keys in Reticulum 64 |
//! | 52 radio hashes | identity hash 16, author 32 | origin |
//! | 60 foreign events | author 32, seq u64 big endian, event id 32 | meshlogd's id 16, then of the least event that carries it: author 32, seq u64 big endian, id 32 |
//! | 61 foreign authors | author 32 | the author's name there |
//!
//! An origin is 80 bytes that sort as the fold does: hlc, author, seq, id, numbers big endian.

use std::{collections::BTreeMap, ops::Deref};

use super::{Origin, ViewError};
use crate::{
    codec::{ReadError, Reader, Writer},
    hlc::Hlc,
    id::{AuthorId, EventId},
    kv::{Kv, Order},
    record::SetName,
    value::Value,
};

/// What a key is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Space {
    Version = 0x00,
    Counts = 0x01,
    Root = 0x02,
    Touched = 0x10,
    Cells = 0x20,
    Listed = 0x30,
    Forms = 0x31,
    Conflicts = 0x32,
    Files = 0x33,
    Digests = 0x40,
    Branches = 0x41,
    Profiles = 0x50,
    Radios = 0x51,
    RadioHashes = 0x52,
    ForeignEvents = 0x60,
    ForeignAuthors = 0x61,
}

/// What a record's cell is of.
pub(super) const META: u8 = 0x00;
pub(super) const CANDIDATE: u8 = 0x01;
const NAME: u8 = 0x02;
pub(super) const NOTE: u8 = 0x03;
pub(super) const ATTACHMENT: u8 = 0x04;
const FLOOR: u8 = 0x05;

/// What a text in a key ends in: below `00 ff` and below all other bytes, so a text sorts before
/// those that it begins.
const TEXT_END: [u8; 2] = [0x00, 0x01];
const ESCAPED_ZERO: [u8; 2] = [0x00, 0xff];

/// A key, or the beginning of many.
#[derive(Debug, Clone)]
pub(super) struct Key(Vec<u8>);

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// A half-open range of keys.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) from: Vec<u8>,
    pub(super) to: Vec<u8>,
}

impl Key {
    pub(super) fn new(space: Space) -> Self {
        let mut key = Vec::with_capacity(128);
        key.push(space as u8);
        Self(key)
    }

    /// All keys of the view.
    pub(super) fn everything() -> Span {
        Span { from: Vec::new(), to: vec![0xff] }
    }

    pub(super) fn text(mut self, text: &str) -> Self {
        for &byte in text.as_bytes() {
            if byte == 0 {
                self.0.extend(ESCAPED_ZERO);
            } else {
                self.0.push(byte);
            }
        }
        self.0.extend(TEXT_END);
        self
    }

    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// All keys that begin with this one.
    pub(super) fn span(self) -> Span {
        let mut to = self.0.clone();
        // The space is below ff, so a byte that can grow is always left.
        while to.last() == Some(&0xff) {
            to.pop();
        }
        if let Some(last) = to.last_mut() {
            *last += 1;
        }
        Span { from: self.0, to }
    }
}

impl Span {
    /// What of it comes after `key` and all that begins with it.
    pub(super) fn after(self, key: Key) -> Self {
        Self { from: key.span().to, to: self.to }
    }
}

/// Takes a text off the front of what is left of a key.
pub(super) fn take_text(key: &mut Reader<'_>) -> Result<String, ReadError> {
    let mut text = Vec::new();
    loop {
        match key.u8()? {
            0 => match [0, key.u8()?] {
                TEXT_END => return String::from_utf8(text).map_err(|_| ReadError::Utf8),
                ESCAPED_ZERO => text.push(0),
                _ => return Err(ReadError::Invalid("a key has an unknown escape")),
            },
            byte => text.push(byte),
        }
    }
}

/// What the cell under `key` is of, in words: for whoever is told that it is damaged.
pub fn cell_name(key: &[u8]) -> String {
    let spaces = [
        (Space::Version, "the view's version"),
        (Space::Counts, "the view's counts"),
        (Space::Root, "the view's digest"),
        (Space::Touched, "the mark of record"),
        (Space::Cells, "a cell of record"),
        (Space::Listed, "the listing of record"),
        (Space::Forms, "a listing under form"),
        (Space::Conflicts, "a conflict of record"),
        (Space::Files, "a reference to a file"),
        (Space::Digests, "the digest of a record"),
        (Space::Branches, "a branch of the digests"),
        (Space::Profiles, "an author's profile"),
        (Space::Radios, "an author's identity in Reticulum"),
        (Space::RadioHashes, "the author of an identity in Reticulum"),
        (Space::ForeignEvents, "the place of a foreign event"),
        (Space::ForeignAuthors, "the name of a foreign author"),
    ];
    let mut reader = Reader::new(key);
    let Ok(space) = reader.u8() else { return "the cell without a key".to_owned() };
    let known = spaces.into_iter().find(|(known, _)| *known as u8 == space);
    let Some((space, words)) = known else { return format!("a cell of an unknown space {space}") };
    match space {
        Space::Touched | Space::Cells | Space::Listed | Space::Forms | Space::Conflicts => {
            let text = take_text(&mut reader).unwrap_or_default();
            format!("{words} {text:?}")
        }
        _ => words.to_owned(),
    }
}

/// The key under which a blob's reference from a field is found.
pub(super) fn file_key(blob: &[u8; 32], record: &str, field: &str) -> Key {
    Key::new(Space::Files).raw(blob).text(record).text(field)
}

/// Makes the keys of one record's cells.
pub(super) struct Cells {
    record: Key,
}

impl Cells {
    pub(super) fn of(record: &str) -> Self {
        Self { record: Key::new(Space::Cells).text(record) }
    }

    fn part(&self, part: u8) -> Key {
        self.record.clone().raw(&[part])
    }

    /// Bytes of a key before its part.
    pub(super) fn prefix_len(&self) -> usize {
        self.record.len()
    }

    pub(super) fn all(&self) -> Span {
        self.record.clone().span()
    }

    pub(super) fn meta(&self) -> Key {
        self.part(META)
    }

    pub(super) fn candidates(&self) -> Span {
        self.part(CANDIDATE).span()
    }

    pub(super) fn candidates_of(&self, field: &str) -> Span {
        self.part(CANDIDATE).text(field).span()
    }

    pub(super) fn candidates_named(&self, field: &str, name: &SetName) -> Span {
        self.part(CANDIDATE).text(field).raw(name).span()
    }

    pub(super) fn candidate(&self, field: &str, id: &EventId) -> Key {
        self.part(CANDIDATE).text(field).raw(&id.0)
    }

    pub(super) fn name(&self, field: &str, name: &SetName) -> Key {
        self.part(NAME).text(field).raw(name)
    }

    pub(super) fn floor(&self, field: &str) -> Key {
        self.part(FLOOR).text(field)
    }

    pub(super) fn floors(&self) -> Span {
        self.part(FLOOR).span()
    }

    pub(super) fn notes(&self) -> Span {
        self.part(NOTE).span()
    }

    pub(super) fn note(&self, origin: &Origin) -> Key {
        self.part(NOTE).raw(&encode_origin(origin))
    }

    pub(super) fn attachments(&self) -> Span {
        self.part(ATTACHMENT).span()
    }

    pub(super) fn attachment(&self, field: &str, blob: &[u8; 32]) -> Key {
        self.part(ATTACHMENT).text(field).raw(blob)
    }
}

/// Calls `each` for the cells of `span` until it returns false.
pub(super) fn scan<K: Kv>(
    kv: &K,
    span: &Span,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<bool, ReadError>,
) -> Result<(), ViewError<K::Error>> {
    let mut damage = None;
    kv.range(&span.from, &span.to, Order::Ascending, &mut |key, value| match each(key, value) {
        Ok(more) => more,
        Err(error) => {
            damage = Some(error);
            false
        }
    })?;
    damage.map_or(Ok(()), |error| Err(ViewError::Damaged(error)))
}

/// The greatest foreign set of each field of a record that has one: candidates below it are replaced.
pub(super) fn floors<K: Kv>(
    kv: &K,
    cells: &Cells,
) -> Result<BTreeMap<String, Origin>, ViewError<K::Error>> {
    let mut floors = BTreeMap::new();
    scan(kv, &cells.floors(), |key, floor| {
        let field = take_text(&mut Reader::new(&key[cells.prefix_len() + 1..]))?;
        floors.insert(field, read_origin(&mut Reader::new(floor))?);
        Ok(true)
    })?;
    Ok(floors)
}

/// An origin's bytes, which sort as it does.
pub(super) fn encode_origin(origin: &Origin) -> [u8; 80] {
    let mut bytes = [0; 80];
    bytes[..8].copy_from_slice(&origin.hlc.as_u64().to_be_bytes());
    bytes[8..40].copy_from_slice(&origin.author.0);
    bytes[40..48].copy_from_slice(&origin.seq.to_be_bytes());
    bytes[48..].copy_from_slice(&origin.id.0);
    bytes
}

pub(super) fn read_origin(reader: &mut Reader<'_>) -> Result<Origin, ReadError> {
    Ok(Origin {
        hlc: Hlc::from_u64(u64::from_be_bytes(reader.array()?)),
        author: AuthorId(reader.array()?),
        seq: u64::from_be_bytes(reader.array()?),
        id: EventId(reader.array()?),
    })
}

/// The origin that a cell begins with, if the cell is there.
pub(super) fn held_origin<E>(cell: Option<&[u8]>) -> Result<Option<Origin>, ViewError<E>>
where
    E: std::error::Error + 'static,
{
    cell.map(|bytes| read_origin(&mut Reader::new(bytes))).transpose().map_err(ViewError::Damaged)
}

pub(super) fn encode_candidate(origin: &Origin, value: &Value) -> Vec<u8> {
    let mut writer = Writer::with_capacity(96);
    value.write(writer.raw(&encode_origin(origin)));
    writer.into_bytes()
}

/// Where a candidate comes from, and the bytes of its value.
pub(super) fn split_candidate(cell: &[u8]) -> Result<(Origin, &[u8]), ReadError> {
    let mut reader = Reader::new(cell);
    Ok((read_origin(&mut reader)?, reader.rest()))
}

pub(super) fn encode_profile(origin: &Origin, name: &str) -> Vec<u8> {
    [&encode_origin(origin)[..], name.as_bytes()].concat()
}

/// The value of an attachment's cell.
pub(super) struct File<'a> {
    pub(super) origin: Origin,
    pub(super) size: u64,
    pub(super) mime: &'a str,
    pub(super) name: &'a str,
}

impl<'a> File<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(&encode_origin(&self.origin));
        writer.varint(self.size).str(self.mime).str(self.name);
        writer.into_bytes()
    }

    pub(super) fn decode(cell: &'a [u8]) -> Result<Self, ReadError> {
        let mut reader = Reader::new(cell);
        Ok(Self {
            origin: read_origin(&mut reader)?,
            size: reader.varint()?,
            mime: reader.str(usize::MAX)?,
            name: reader.str(usize::MAX)?,
        })
    }
}

/// What is kept of a record beside what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Meta {
    /// The greatest event that puts it into the archive or takes it out, and which of both.
    pub(super) archived: Option<(Origin, bool)>,
    /// The least `record.create`.
    pub(super) created: Option<Origin>,
}

impl Meta {
    pub(super) fn is_archived(&self) -> bool {
        self.archived.is_some_and(|(_, archived)| archived)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.bool(self.archived.is_some());
        if let Some((origin, archived)) = &self.archived {
            writer.raw(&encode_origin(origin)).bool(*archived);
        }
        writer.bool(self.created.is_some());
        if let Some(origin) = &self.created {
            writer.raw(&encode_origin(origin));
        }
        writer.into_bytes()
    }

    pub(super) fn read(cell: &[u8]) -> Result<Self, ReadError> {
        let mut reader = Reader::new(cell);
        let mut meta = Self::default();
        if reader.option()? {
            meta.archived = Some((read_origin(&mut reader)?, reader.bool()?));
        }
        if reader.option()? {
            meta.created = Some(read_origin(&mut reader)?);
        }
        Ok(meta)
    }

    /// The meta of a cell, or of a record that isn't there yet.
    pub(super) fn decode<E>(cell: Option<&[u8]>) -> Result<Self, ViewError<E>>
    where
        E: std::error::Error + 'static,
    {
        cell.map(Self::read).transpose().map(Option::unwrap_or_default).map_err(ViewError::Damaged)
    }
}

/// What [`super::settle`] has last listed of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) archived: bool,
    pub(super) form: Option<String>,
}

impl Listing {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.bool(self.archived).bool(self.form.is_some());
        if let Some(form) = &self.form {
            writer.str(form);
        }
        writer.into_bytes()
    }

    pub(super) fn decode(cell: &[u8]) -> Result<Self, ReadError> {
        let mut reader = Reader::new(cell);
        let archived = reader.bool()?;
        let form = if reader.option()? { Some(reader.str(usize::MAX)?.to_owned()) } else { None };
        Ok(Self { archived, form })
    }
}
