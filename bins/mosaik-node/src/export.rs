//! The records of a view as one file.
//!
//! Invariants:
//! - The bytes are a function of the view and the options: records by the bytes of their ids, fields
//!   by the bytes of their names, one text for each value. Nodes with one view write one file.
//! - A column is never two things: where a field is called like a column of the export's own, the
//!   export is refused with what to do.
//!
//! JSON lines keep the types of values. CSV has text alone: an empty cell is an absent field, null or
//! an empty text.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use data_encoding::BASE64;
use mosaik_api::{json::to_json, time::format_ms};
use mosaik_core::{
    value::{Float, Geo, Value},
    view::{self, Record, RecordsQuery, ViewError},
};
use mosaik_store::StoreError;
use serde_json::{Map, Value as Json};

use crate::reads::Snapshot;

/// What the column of the record's form is called, where there are several forms.
const FORM_COLUMN: &str = "form";

/// Records listed at a time.
const PAGE: usize = 1000;

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// RFC 4180, with a header.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

/// What to export, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The kind of file.
    pub format: Format,
    /// Only records that show this form; there is no column for it then.
    pub form: Option<String>,
    /// What the column of the record's id is called.
    pub id_column: String,
    /// Archived records too.
    pub archived: bool,
}

/// Why there is no export, or a cut one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A field has the name of the column with the record's id.
    #[error(
        "a field is called {0:?}, as the column of the record's id is; name that column otherwise with --id-column"
    )]
    IdColumnTaken(String),
    /// A field has the name of the column with the record's form.
    #[error(
        "a field is called {FORM_COLUMN:?}, as the column of the record's form is; export one form with --form"
    )]
    FormColumnTaken,
    /// The view can't be read.
    #[error("the view could not be read")]
    View(#[from] ViewError<StoreError>),
    /// The file can't be written.
    #[error("the export could not be written")]
    Write(#[from] io::Error),
}

/// Writes the records of `snapshot` to `out`.
///
/// # Errors
///
/// [`ExportError`]. A column that is taken is found before the first byte is written.
pub fn export(snapshot: &Snapshot, options: &Options, out: impl Write) -> Result<(), ExportError> {
    let fields = field_names(snapshot, options)?;
    if fields.contains(&options.id_column) {
        return Err(ExportError::IdColumnTaken(options.id_column.clone()));
    }
    if options.form.is_none() && (fields.contains(FORM_COLUMN) || options.id_column == FORM_COLUMN)
    {
        return Err(ExportError::FormColumnTaken);
    }
    match options.format {
        Format::Csv => export_csv(snapshot, options, &fields, out),
        Format::Jsonl => export_jsonl(snapshot, options, out),
    }
}

/// All fields of all records that are exported: a pass of its own, so that none is held in memory.
fn field_names(snapshot: &Snapshot, options: &Options) -> Result<BTreeSet<String>, ExportError> {
    let mut names = BTreeSet::new();
    each_record(snapshot, options, |record| {
        for name in record.fields.keys() {
            if !names.contains(name) {
                names.insert(name.clone());
            }
        }
        Ok(())
    })?;
    Ok(names)
}

fn each_record(
    snapshot: &Snapshot,
    options: &Options,
    mut each: impl FnMut(&Record) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let mut after: Option<String> = None;
    loop {
        let query = RecordsQuery {
            form: options.form.as_deref(),
            after: after.as_deref(),
            limit: PAGE,
            include_archived: options.archived,
        };
        let page = view::records(snapshot.view(), &query)?;
        for listed in &page {
            if let Some(record) = view::record(snapshot.view(), &listed.record)? {
                each(&record)?;
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.record.clone()),
            _ => return Ok(()),
        }
    }
}

fn export_csv(
    snapshot: &Snapshot,
    options: &Options,
    fields: &BTreeSet<String>,
    out: impl Write,
) -> Result<(), ExportError> {
    let mut csv = csv::Writer::from_writer(out);
    let mut header = vec![options.id_column.as_str()];
    if options.form.is_none() {
        header.push(FORM_COLUMN);
    }
    header.extend(fields.iter().map(String::as_str));
    csv.write_record(&header).map_err(io::Error::from)?;
    each_record(snapshot, options, |record| {
        let mut row = vec![record.record.clone()];
        if options.form.is_none() {
            row.push(record.form_name().unwrap_or_default().to_owned());
        }
        let cell = |name| record.fields.get(name).map(|field| cell_text(&field.shown.value));
        row.extend(fields.iter().map(|name| cell(name).unwrap_or_default()));
        csv.write_record(&row).map_err(io::Error::from)?;
        Ok(())
    })?;
    Ok(csv.flush()?)
}

fn export_jsonl(
    snapshot: &Snapshot,
    options: &Options,
    mut out: impl Write,
) -> Result<(), ExportError> {
    each_record(snapshot, options, |record| {
        let mut line = Map::new();
        line.insert(options.id_column.clone(), Json::from(record.record.as_str()));
        if options.form.is_none() {
            line.insert(FORM_COLUMN.to_owned(), record.form_name().map_or(Json::Null, Json::from));
        }
        for (name, field) in &record.fields {
            line.insert(name.clone(), to_json(&field.shown.value));
        }
        line.sort_keys();
        writeln!(out, "{}", Json::Object(line))?;
        Ok(())
    })
}

/// A value as the text of a cell: what an import guesses, or reads by its type, as the same value.
fn cell_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(bool) => bool.to_string(),
        Value::Int(int) => int.to_string(),
        Value::Float(float) => float_text(*float),
        Value::Text(text) => text.clone(),
        Value::Bytes(bytes) => BASE64.encode(bytes),
        Value::Time(ms) => format_ms(*ms),
        Value::Geo(geo) => geo_text(geo).unwrap_or_else(|| to_json(value).to_string()),
        Value::List(_) | Value::Map(_) => to_json(value).to_string(),
    }
}

/// The shortest digits that are this float, without an exponent, always with a point.
pub fn float_text(float: Float) -> String {
    let float = float.get();
    if float.is_finite() && float.fract() == 0.0 { format!("{float}.0") } else { float.to_string() }
}

/// `latitude longitude altitude accuracy`, as forms write it; none where an accuracy would stand in
/// the place of an altitude.
fn geo_text(geo: &Geo) -> Option<String> {
    if geo.altitude.is_none() && geo.accuracy.is_some() {
        return None;
    }
    let numbers = [Some(geo.lat), Some(geo.lon), geo.altitude, geo.accuracy].into_iter().flatten();
    Some(numbers.map(|number| number.get().to_string()).collect::<Vec<_>>().join(" "))
}
