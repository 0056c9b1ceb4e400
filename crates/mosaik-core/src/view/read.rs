//! Typed reads of a view.

use std::collections::BTreeMap;

use super::{
    Origin, ViewError,
    cell::{
        self, ATTACHMENT, CANDIDATE, Cells, File, Key, Listing, META, Meta, NOTE, Space, Span,
        file_key, scan,
    },
};
use crate::{
    codec::{ReadError, Reader},
    id::{AuthorId, EventId},
    kv::Kv,
    limits::OVER_MAX,
    record::SetName,
    value::Value,
};

/// A record with all that is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its id.
    pub record: String,
    /// Whether it is in the archive.
    pub archived: bool,
    /// The least `record.create`. None where it exists by other events alone.
    pub created_by: Option<Origin>,
    /// Its form, as the field with the empty name; the values are text. None where it has no form.
    pub form: Option<Field>,
    /// The fields that have a candidate, by name; not the form.
    pub fields: BTreeMap<String, Field>,
    /// The notes in the order of the fold.
    pub notes: Vec<Note>,
    /// The attachments by field and blob.
    pub attachments: Vec<Attachment>,
}

impl Record {
    /// The form that it shows.
    pub fn form_name(&self) -> Option<&str> {
        self.form.as_ref()?.shown.value.as_text()
    }

    /// The names of its fields in conflict, by their bytes; the form has the empty name.
    pub fn conflicts(&self) -> Vec<&str> {
        let form = self.form.iter().map(|field| ("", field));
        let fields = self.fields.iter().map(|(name, field)| (name.as_str(), field));
        let in_conflict = form.chain(fields).filter(|(_, field)| field.in_conflict());
        in_conflict.map(|(name, _)| name).collect()
    }
}

/// A field with its candidates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The greatest candidate in the total order: what the field shows.
    pub shown: Candidate,
    /// The other candidates, greatest first.
    pub others: Vec<Candidate>,
}

impl Field {
    /// The field of these candidates; none if there are none.
    fn of(mut candidates: Vec<Candidate>) -> Option<Self> {
        candidates.sort_unstable_by_key(|candidate| candidate.origin);
        let shown = candidates.pop()?;
        candidates.reverse();
        Some(Self { shown, others: candidates })
    }

    /// Whether a candidate has another value than the one that shows.
    pub fn in_conflict(&self) -> bool {
        self.others.iter().any(|other| other.value != self.shown.value)
    }

    /// All candidates, greatest first.
    pub fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        std::iter::once(&self.shown).chain(&self.others)
    }
}

/// A set that no other replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// By whom and when.
    pub origin: Origin,
    /// What it says.
    pub value: Value,
}

/// A remark on a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// By whom and when.
    pub origin: Origin,
    /// What it says.
    pub text: String,
}

/// A file that belongs to a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// By whom and when.
    pub origin: Origin,
    /// The field that it belongs to.
    pub field: String,
    /// BLAKE3 of the file.
    pub blob: [u8; 32],
    /// Its bytes, as claimed.
    pub size: u64,
    /// Its media type, as claimed.
    pub mime: String,
    /// Its name, as claimed.
    pub name: String,
}

/// That a record names a blob.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileReference {
    /// BLAKE3 of the file.
    pub blob: [u8; 32],
    /// The record.
    pub record: String,
    /// The field that the attachment belongs to.
    pub field: String,
    /// Bytes of the file, as claimed.
    pub size: u64,
}

/// What an author calls itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// When, and by which event.
    pub origin: Origin,
    /// The name: a claim.
    pub name: String,
}

/// A record in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub record: String,
    /// The form that it shows.
    pub form: Option<String>,
    /// Whether it is in the archive.
    pub archived: bool,
}

/// A field in conflict.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// The record.
    pub record: String,
    /// The field's name; empty for the form.
    pub field: String,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Records, archived ones too.
    pub records: u64,
    /// Fields in conflict, of all records.
    pub conflicts: u64,
}

impl Counts {
    pub(super) fn encode(self) -> Vec<u8> {
        [self.records.to_be_bytes(), self.conflicts.to_be_bytes()].concat()
    }

    fn decode(cell: &[u8]) -> Result<Self, ReadError> {
        let mut reader = Reader::new(cell);
        let records = u64::from_be_bytes(reader.array()?);
        Ok(Self { records, conflicts: u64::from_be_bytes(reader.array()?) })
    }
}

/// Which records to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordsQuery<'a> {
    /// Those that show this form; all without one.
    pub form: Option<&'a str>,
    /// Those after this record id; from the first without one.
    pub after: Option<&'a str>,
    /// At most this many.
    pub limit: usize,
    /// Also those in the archive.
    pub include_archived: bool,
}

impl Default for RecordsQuery<'_> {
    fn default() -> Self {
        Self { form: None, after: None, limit: usize::MAX, include_archived: false }
    }
}

/// Whether there is such a record.
///
/// # Errors
///
/// [`ViewError`], as all reads.
pub fn exists<K: Kv>(kv: &K, record: &str) -> Result<bool, ViewError<K::Error>> {
    Ok(kv.get(&Cells::of(record).meta())?.is_some())
}

/// A record with all that is in it, if it exists.
///
/// # Errors
///
/// [`ViewError`], as all reads.
pub fn record<K: Kv>(kv: &K, record: &str) -> Result<Option<Record>, ViewError<K::Error>> {
    let cells = Cells::of(record);
    let prefix_len = cells.prefix_len();
    let floors = cell::floors(kv, &cells)?;
    let mut meta = None;
    let mut candidates: BTreeMap<String, Vec<Candidate>> = BTreeMap::new();
    let mut notes = Vec::new();
    let mut attachments = Vec::new();
    let mut take = |part, key: &mut Reader<'_>, cell: &[u8]| -> Result<(), ReadError> {
        match part {
            META => meta = Some(Meta::read(cell)?),
            CANDIDATE => {
                let field = cell::take_text(key)?;
                let candidate = read_candidate(cell)?;
                if floors.get(&field).is_none_or(|floor| candidate.origin >= *floor) {
                    candidates.entry(field).or_default().push(candidate);
                }
            }
            NOTE => notes.push(Note { origin: cell::read_origin(key)?, text: read_text(cell)? }),
            ATTACHMENT => {
                let field = cell::take_text(key)?;
                attachments.push(read_attachment(field, key.array()?, cell)?);
            }
            _ => {}
        }
        Ok(())
    };
    // The names of replaced sets lie between these and may be many.
    for span in [cells.meta().span(), cells.candidates(), cells.notes(), cells.attachments()] {
        scan(kv, &span, |key, cell| {
            let mut key = Reader::new(&key[prefix_len..]);
            take(key.u8()?, &mut key, cell).map(|()| true)
        })?;
    }
    let Some(meta) = meta else { return Ok(None) };
    let mut fields: BTreeMap<String, Field> = candidates
        .into_iter()
        .filter_map(|(name, candidates)| Some((name, Field::of(candidates)?)))
        .collect();
    Ok(Some(Record {
        record: record.to_owned(),
        archived: meta.is_archived(),
        created_by: meta.created,
        form: fields.remove(""),
        fields,
        notes,
        attachments,
    }))
}

/// One field of a record, if it has a candidate. The form has the empty name.
///
/// # Errors
///
/// [`ViewError`], as all reads.
pub fn field<K: Kv>(
    kv: &K,
    record: &str,
    field: &str,
) -> Result<Option<Field>, ViewError<K::Error>> {
    let cells = Cells::of(record);
    let floor = kv.get(&cells.floor(field))?;
    let floor = cell::held_origin(floor.as_deref())?;
    let mut candidates = Vec::new();
    scan(kv, &cells.candidates_of(field), |_, cell| {
        candidates.extend(Some(read_candidate(cell)?).filter(|one| Some(one.origin) >= floor));
        Ok(true)
    })?;
    Ok(Field::of(candidates))
}

/// The candidates that a new set of this field must name in its `over`: the 16 greatest, greatest
/// first. Where there are more, it takes another set for the rest.
///
/// # Errors
///
/// [`ViewError`], as all reads.
pub fn candidates<K: Kv>(
    kv: &K,
    record: &str,
    field: &str,
) -> Result<Vec<EventId>, ViewError<K::Error>> {
    let cells = Cells::of(record);
    let floor = kv.get(&cells.floor(field))?;
    let floor = cell::held_origin(floor.as_deref())?;
    let mut origins = Vec::new();
    scan(kv, &cells.candidates_of(field), |_, cell| {
        origins.extend(Some(cell::split_candidate(cell)?.0).filter(|one| Some(*one) >= floor));
        Ok(true)
    })?;
    origins.sort_unstable_by(|one, other| other.cmp(one));
    origins.truncate(OVER_MAX);
    Ok(origins.into_iter().map(|origin| origin.id).collect())
}

/// [`candidates`] as a set's `over` names them.
///
/// # Errors
///
/// [`ViewError`], as all reads.
pub fn over<K: Kv>(kv: &K, record: &str, field: &str) -> Result<Vec<SetName>, ViewError<K::Error>> {
    Ok(candidates(kv, record, field)?.iter().map(EventId::prefix).collect())
}

/// The records of `query`, by the bytes of their ids.
///
/// # Errors
///
/// [`ViewError`], as all reads.
pub fn records<K: Kv>(
    kv: &K,
    query: &RecordsQuery<'_>,
) -> Result<Vec<Listed>, ViewError<K::Error>> {
    let index = match query.form {
        Some(form) => Key::new(Space::Forms).text(form),
        None => Key::new(Space::Listed),
    };
    let mut span = index.clone().span();
    if let Some(after) = query.after {
        span = span.after(index.clone().text(after));
    }
    let mut records = Vec::new();
    if query.limit == 0 {
        return Ok(records);
    }
    scan(kv, &span, |key, cell| {
        let (archived, form) = match query.form {
            Some(form) => (Reader::new(cell).bool()?, Some(form.to_owned())),
            None => {
                let listing = Listing::decode(cell)?;
                (listing.archived, listing.form)
            }
        };
        if query.include_archived || !archived {
            let record = cell::take_text(&mut Reader::new(&key[index.len()..]))?;
            records.push(Listed { record, form, archived });
        }
        Ok(records.len() < query.limit)
    })?;
    Ok(records)
}

/// At most `limit` fields in conflict, by record and field, those after `after`.
///
/// # Errors
///
/// [`ViewError`], as all reads.
pub fn conflicts<K: Kv>(
    kv: &K,
    after: Option<&Conflict>,
    limit: usize,
) -> Result<Vec<Conflict>, ViewError<K::Error>> {
    let mut span = Key::new(Space::Conflicts).span();
    if let Some(Conflict { record, field }) = after {
        span = span.after(Key::new(Space::Conflicts).text(record).text(field));
    }
    let mut conflicts = Vec::new();
    if limit == 0 {
        return Ok(conflicts);
    }
    scan(kv, &span, |key, _| {
        let mut key = Reader::new(&key[1..]);
        let record = cell::take_text(&mut key)?;
        conflicts.push(Conflict { record, field: cell::take_text(&mut key)? });
        Ok(conflicts.len() < limit)
    })?;
    Ok(conflicts)
}

/// What `author` calls itself, if it ever said.
///
/// # Errors
///
/// [`ViewError`], as all reads.
pub fn profile<K: Kv>(kv: &K, author: &AuthorId) -> Result<Option<Profile>, ViewError<K::Error>> {
    let cell = kv.get(&Key::new(Space::Profiles).raw(&author.0))?;
    let read = |cell: &[u8]| {
        let mut reader = Reader::new(cell);
        let origin = cell::read_origin(&mut reader)?;
        Ok(Profile { origin, name: read_text(reader.rest())? })
    };
    cell.as_deref().map(read).transpose().map_err(ViewError::Damaged)
}

/// The form that a record shows, as the last [`super::settle`] listed it; none without one, or where
/// the record isn't there.
///
/// # Errors
///
/// [`ViewError`], as all reads.
pub fn form<K: Kv>(kv: &K, record: &str) -> Result<Option<String>, ViewError<K::Error>> {
    let cell = kv.get(&Key::new(Space::Listed).text(record))?;
    let listing = cell.as_deref().map(Listing::decode).transpose().map_err(ViewError::Damaged)?;
    Ok(listing.and_then(|listing| listing.form))
}

/// Calls `each` for what records say of files, by blob, record and field, until it returns false: all of
/// it, or what comes after one that was seen.
///
/// # Errors
///
/// [`ViewError`], as all reads.
pub fn files<K: Kv>(
    kv: &K,
    after: Option<&FileReference>,
    each: impl FnMut(FileReference) -> bool,
) -> Result<(), ViewError<K::Error>> {
    let all = Key::new(Space::Files).span();
    let span = match after {
        Some(seen) => all.after(file_key(&seen.blob, &seen.record, &seen.field)),
        None => all,
    };
    scan_files(kv, &span, each)
}

/// Calls `each` for what records say of one file, until it returns false.
///
/// # Errors
///
/// [`ViewError`], as all reads.
pub fn files_of<K: Kv>(
    kv: &K,
    blob: &[u8; 32],
    each: impl FnMut(FileReference) -> bool,
) -> Result<(), ViewError<K::Error>> {
    scan_files(kv, &Key::new(Space::Files).raw(blob).span(), each)
}

fn scan_files<K: Kv>(
    kv: &K,
    span: &Span,
    mut each: impl FnMut(FileReference) -> bool,
) -> Result<(), ViewError<K::Error>> {
    scan(kv, span, |key, cell| {
        let mut key = Reader::new(&key[1..]);
        let blob = key.array()?;
        let (record, field) = (cell::take_text(&mut key)?, cell::take_text(&mut key)?);
        let size = Reader::new(cell).varint()?;
        Ok(each(FileReference { blob, record, field, size }))
    })
}

/// One attachment of a record, if it has it.
///
/// # Errors
///
/// [`ViewError`], as all reads.
pub fn attachment<K: Kv>(
    kv: &K,
    record: &str,
    field: &str,
    blob: &[u8; 32],
) -> Result<Option<Attachment>, ViewError<K::Error>> {
    let cell = kv.get(&Cells::of(record).attachment(field, blob))?;
    let read = |cell: &[u8]| read_attachment(field.to_owned(), *blob, cell);
    cell.as_deref().map(read).transpose().map_err(ViewError::Damaged)
}

/// How many records and conflicts there are.
///
/// # Errors
///
/// [`ViewError`], as all reads.
pub fn counts<K: Kv>(kv: &K) -> Result<Counts, ViewError<K::Error>> {
    let cell = kv.get(&Key::new(Space::Counts))?;
    cell.as_deref().map_or(Ok(Counts::default()), Counts::decode).map_err(ViewError::Damaged)
}

fn read_candidate(cell: &[u8]) -> Result<Candidate, ReadError> {
    let (origin, value) = cell::split_candidate(cell)?;
    Ok(Candidate { origin, value: Value::decode(value)? })
}

fn read_attachment(field: String, blob: [u8; 32], cell: &[u8]) -> Result<Attachment, ReadError> {
    let file = File::decode(cell)?;
    let (mime, name) = (file.mime.to_owned(), file.name.to_owned());
    Ok(Attachment { origin: file.origin, field, blob, size: file.size, mime, name })
}

/// Field and blob of an attachment's key.
pub(super) fn attachment_place(cells: &Cells, key: &[u8]) -> Result<(String, [u8; 32]), ReadError> {
    // Behind the record and the part.
    let mut key = Reader::new(&key[cells.prefix_len() + 1..]);
    Ok((cell::take_text(&mut key)?, key.array()?))
}

fn read_text(bytes: &[u8]) -> Result<String, ReadError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| ReadError::Utf8)
}
