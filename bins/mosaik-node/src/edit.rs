//! What a typed write means in events, decided against the view.
//!
//! Invariants:
//! - A set names as replaced what its writer could see: every candidate of that field, and nothing
//!   else. So [`decide`] runs where nothing can come between it and the append: in the owner's loop.
//! - It only reads. A refused write has no draft; a refused row of an import takes none of the other
//!   rows with it, and leaves none of its own fields behind.

mod meshlog;

use std::collections::BTreeMap;

use mosaik_core::{
    event::{Draft, Kind},
    id::BlobId,
    kv::Kv,
    limits::OVER_MAX,
    meshlog::EventError,
    record::{DraftError, RecordEvent, SetName, application_draft},
    value::Value,
    view::{self, ViewError},
};

pub use self::meshlog::{Foreign, Line, Notice};

/// A write, as the program asks for it.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// A new record with its first fields.
    Create {
        /// Its id.
        record: String,
        /// Its form.
        form: String,
        /// Its fields.
        fields: BTreeMap<String, Value>,
        /// Whether an id that exists is fine, and then nothing is written.
        if_absent: bool,
    },
    /// Fields of a record that exists.
    Set {
        /// Its id.
        record: String,
        /// The fields.
        fields: BTreeMap<String, Value>,
    },
    /// A note on a record that exists.
    Note {
        /// Its id.
        record: String,
        /// What it says.
        text: String,
    },
    /// A file of a record that exists.
    Attach {
        /// Its id.
        record: String,
        /// The field that the file belongs to.
        field: String,
        /// The file's BLAKE3.
        blob: BlobId,
        /// The file's bytes.
        size: u64,
        /// The file's media type.
        mime: String,
        /// The file's name.
        name: String,
    },
    /// Into the archive, or out of it.
    Archive {
        /// The record's id.
        record: String,
        /// Whether it goes in.
        archived: bool,
    },
    /// An event of an application's own kind.
    Emit {
        /// Its kind.
        kind: Kind,
        /// Its payload.
        value: Value,
    },
    /// Such events, in this order, all or none.
    EmitAll {
        /// Kinds and payloads.
        events: Vec<(Kind, Value)>,
    },
    /// Rows that become records, or change them.
    Import {
        /// The form of all of them.
        form: String,
        /// The rows.
        rows: Vec<Row>,
    },
    /// Events of meshlogd.
    ImportMeshlog {
        /// The events, in the order of their log.
        lines: Vec<Line>,
    },
}

impl Edit {
    /// The records that it is about.
    pub fn records(&self) -> Vec<&str> {
        match self {
            Self::Create { record, .. }
            | Self::Set { record, .. }
            | Self::Note { record, .. }
            | Self::Attach { record, .. }
            | Self::Archive { record, .. } => vec![record],
            Self::Import { rows, .. } => rows.iter().map(|row| row.record.as_str()).collect(),
            Self::Emit { .. } | Self::EmitAll { .. } | Self::ImportMeshlog { .. } => Vec::new(),
        }
    }

    /// Whether it must be decided where all before it is in the view, and all after it where it is: of
    /// which records it is shows only when it is read.
    pub fn stands_alone(&self) -> bool {
        matches!(self, Self::ImportMeshlog { .. })
    }
}

/// One row of an import.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Where in its file it stands.
    pub line: u64,
    /// The record that it describes.
    pub record: String,
    /// Its fields.
    pub fields: BTreeMap<String, Value>,
}

/// The events to append at once, and what to tell whoever asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// The events, in order; may be none.
    pub drafts: Vec<Draft>,
    /// What became of an import's rows; zeros for all else.
    pub rows: Rows,
}

/// What became of an import's rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// Those that make a record; of meshlogd's events those that are taken.
    pub created: u64,
    /// Those that change one.
    pub changed: u64,
    /// Those equal to what the view shows; of meshlogd's events those that are here already.
    pub unchanged: u64,
    /// Those that can't be written: line and reason.
    pub refused: Vec<(u64, Refusal)>,
    /// What else is known of meshlogd's events.
    pub foreign: Foreign,
}

/// Why something isn't written. The caller may ask otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A record of this id is to be made, and is there already.
    #[error(
        "record {0:?} exists already; to change it, `record set`; if that is fine, --if-absent"
    )]
    RecordExists(String),
    /// A record that isn't there is to be changed.
    #[error("there is no record {0:?} here")]
    NoSuchRecord(String),
    /// A field without a name is to be set: that is the form's place.
    #[error("a field needs a name")]
    NoFieldName,
    /// A row of one form would change a record of another.
    #[error("record {record:?} exists with the form {form:?}, so this row is not about it")]
    OtherForm {
        /// The record.
        record: String,
        /// Its form.
        form: String,
    },
    /// Two rows of one import describe the same record.
    #[error("record {record:?} stands in line {first_line} already")]
    TwiceInImport {
        /// The record.
        record: String,
        /// Where it stood first.
        first_line: u64,
    },
    /// What no node would fold.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// What is no event of meshlogd.
    #[error(transparent)]
    Foreign(#[from] EventError),
}

/// Why [`decide`] has no decision.
#[derive(Debug, thiserror::Error)]
pub enum EditError<E: std::error::Error + 'static> {
    /// The write is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The view can't be read.
    #[error("the view could not be read")]
    View(#[from] ViewError<E>),
}

impl<E: std::error::Error + 'static> From<DraftError> for EditError<E> {
    fn from(error: DraftError) -> Self {
        Self::Refused(Refusal::Draft(error))
    }
}

/// Turns `edit` into the events that do it, where the view is `kv`.
///
/// # Errors
///
/// [`EditError`]: nothing is to be appended then.
pub fn decide<K: Kv>(kv: &K, edit: &Edit) -> Result<Decision, EditError<K::Error>> {
    let drafts = match edit {
        Edit::Create { record, form, fields, if_absent } => {
            // Also where the record exists: a wrong write is wrong on the second try as well.
            let drafts = create(record, form, fields)?;
            match (view::exists(kv, record)?, if_absent) {
                (false, _) => drafts,
                (true, true) => Vec::new(),
                (true, false) => return Err(Refusal::RecordExists(record.clone()).into()),
            }
        }
        Edit::Set { record, fields } => {
            must_exist(kv, record)?;
            let mut drafts = Vec::new();
            for (field, value) in fields {
                drafts.extend(set(kv, record, field, value)?);
            }
            drafts
        }
        Edit::Note { record, text } => {
            must_exist(kv, record)?;
            vec![RecordEvent::Note { record: record.clone(), text: text.clone() }.encode()?]
        }
        Edit::Attach { record, field, blob, size, mime, name } => {
            must_exist(kv, record)?;
            let attach = RecordEvent::Attach {
                record: record.clone(),
                field: field.clone(),
                blob: blob.0,
                size: *size,
                mime: mime.clone(),
                name: name.clone(),
            };
            vec![attach.encode()?]
        }
        Edit::Archive { record, archived } => {
            must_exist(kv, record)?;
            let archive = RecordEvent::Archive { record: record.clone(), archived: *archived };
            vec![archive.encode()?]
        }
        Edit::Emit { kind, value } => vec![application_draft(kind.clone(), value)?],
        Edit::EmitAll { events } => {
            let draft = |(kind, value): &(Kind, Value)| application_draft(kind.clone(), value);
            events.iter().map(draft).collect::<Result<_, _>>()?
        }
        Edit::Import { form, rows } => return Ok(import(kv, form, rows)?),
        Edit::ImportMeshlog { lines } => return Ok(meshlog::import(kv, lines)?),
    };
    Ok(Decision { drafts, rows: Rows::default() })
}

fn must_exist<K: Kv>(kv: &K, record: &str) -> Result<(), EditError<K::Error>> {
    if view::exists(kv, record)? {
        return Ok(());
    }
    Err(Refusal::NoSuchRecord(record.to_owned()).into())
}

/// A record from nothing: there is no candidate to replace.
fn create(
    record: &str,
    form: &str,
    fields: &BTreeMap<String, Value>,
) -> Result<Vec<Draft>, Refusal> {
    let create = RecordEvent::Create { record: record.to_owned(), form: form.to_owned() };
    let mut drafts = vec![create.encode()?];
    for (field, value) in fields {
        drafts.push(one_set(record, field, value, Vec::new())?);
    }
    Ok(drafts)
}

/// As many sets as it takes to replace all candidates of a field; nearly always one.
fn set<K: Kv>(
    kv: &K,
    record: &str,
    field: &str,
    value: &Value,
) -> Result<Vec<Draft>, EditError<K::Error>> {
    let held = view::field(kv, record, field)?;
    let names: Vec<SetName> = held
        .iter()
        .flat_map(view::Field::candidates)
        .map(|candidate| candidate.origin.id.prefix())
        .collect();
    if names.is_empty() {
        return Ok(vec![one_set(record, field, value, Vec::new())?]);
    }
    let sets = names.chunks(OVER_MAX).map(|over| one_set(record, field, value, over.to_vec()));
    Ok(sets.collect::<Result<_, _>>()?)
}

fn one_set(record: &str, field: &str, value: &Value, over: Vec<SetName>) -> Result<Draft, Refusal> {
    if field.is_empty() {
        return Err(Refusal::NoFieldName);
    }
    let (record, field, value) = (record.to_owned(), field.to_owned(), value.clone());
    Ok(RecordEvent::Set { record, field, value, over }.encode()?)
}

fn import<K: Kv>(kv: &K, form: &str, rows: &[Row]) -> Result<Decision, ViewError<K::Error>> {
    let mut decision = Decision::default();
    let mut lines: BTreeMap<&str, u64> = BTreeMap::new();
    for row in rows {
        let done = match lines.insert(&row.record, row.line) {
            Some(first_line) => {
                let record = row.record.clone();
                Err(EditError::Refused(Refusal::TwiceInImport { record, first_line }))
            }
            None => import_row(kv, form, row),
        };
        let Rows { created, changed, unchanged, refused, .. } = &mut decision.rows;
        match done {
            Ok((drafts, RowDone::Created)) => {
                *created += 1;
                decision.drafts.extend(drafts);
            }
            Ok((drafts, RowDone::Known)) if drafts.is_empty() => *unchanged += 1,
            Ok((drafts, RowDone::Known)) => {
                *changed += 1;
                decision.drafts.extend(drafts);
            }
            Err(EditError::Refused(refusal)) => refused.push((row.line, refusal)),
            Err(EditError::View(error)) => return Err(error),
        }
    }
    Ok(decision)
}

enum RowDone {
    Created,
    Known,
}

fn import_row<K: Kv>(
    kv: &K,
    form: &str,
    row: &Row,
) -> Result<(Vec<Draft>, RowDone), EditError<K::Error>> {
    if !view::exists(kv, &row.record)? {
        return Ok((create(&row.record, form, &row.fields)?, RowDone::Created));
    }
    let mut drafts = Vec::new();
    match view::field(kv, &row.record, "")? {
        Some(shown) if shown.shown.value.as_text() == Some(form) => {}
        Some(shown) => {
            let form = shown.shown.value.as_text().unwrap_or_default().to_owned();
            return Err(Refusal::OtherForm { record: row.record.clone(), form }.into());
        }
        // It exists by a note or a field alone, so far without a form.
        None => {
            let (record, field) = (row.record.clone(), String::new());
            let value = Value::from(form);
            drafts.push(RecordEvent::Set { record, field, value, over: Vec::new() }.encode()?);
        }
    }
    for (field, value) in &row.fields {
        if view::field(kv, &row.record, field)?.is_none_or(|held| held.shown.value != *value) {
            drafts.extend(set(kv, &row.record, field, value)?);
        }
    }
    Ok((drafts, RowDone::Known))
}

#[cfg(test)]
mod tests;
