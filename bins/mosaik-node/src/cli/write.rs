//! The verbs that write.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mosaik_api::{
    SCHEMA,
    client::{Client, ClientError},
    document::{Imported, RefusedRow, Written},
    failure::{Code, Failure},
    json::{parse_text, to_json},
    request::{
        AddNote, Condition, CreateRecord, EmitEvent, IMPORT_ROWS_MAX, ImportRow, ImportRows,
        SetFields,
    },
};
use mosaik_core::id::NodeId;
use serde_json::Value as Json;

use super::{
    Assignment, Failed, FileFormat, PeerVerb, RecordVerb, Replicated, look,
    output::{count, note, print, print_json},
};
use crate::import::{BadRow, Rows};

/// Bytes of rows that go into one request at most: a batch of long rows ends before it has
/// [`IMPORT_ROWS_MAX`].
pub(super) const BATCH_LEN_MAX: usize = 4 << 20;

/// Refused rows that are printed one by one; the rest is counted.
///
/// A file in the wrong encoding has a bad row on every line; 50 show what is wrong with it.
pub(super) const REFUSED_SHOWN: usize = 50;

/// Does what is asked with a record.
pub(super) async fn record(client: &Client, verb: RecordVerb, json: bool) -> Result<(), Failed> {
    match verb {
        RecordVerb::List(_) => Err(Failed::usage("a list is not a write")),
        RecordVerb::Get { record } => look::print_record(&client.record(&record).await?, json),
        RecordVerb::Create { what, form, if_absent, .. } => {
            let (record, fields) = id_and_fields(what)?;
            let create = CreateRecord { record, form, fields, if_absent };
            let written = client.create(&create).await?;
            if json {
                return print_json(&written);
            }
            if written.events.is_empty() {
                note("it exists already; nothing was written");
            }
            print(written.record.unwrap_or_default())
        }
        RecordVerb::Set { record, fields, .. } => {
            let fields = assigned(fields)?;
            done(&client.set(&record, &SetFields { fields }).await?, json)
        }
        RecordVerb::Note { record, text, .. } => {
            done(&client.note(&record, &AddNote { text }).await?, json)
        }
        RecordVerb::Archive { record, undo, .. } => {
            done(&client.archive(&record, !undo).await?, json)
        }
    }
}

/// Waits until the peers that were asked for hold what was written. It is told before: it is written
/// whatever they do.
pub(super) async fn replicated(client: &Client, wanted: Replicated) -> Result<(), Failed> {
    let Some(replicas) = wanted.replicas else { return Ok(()) };
    match client.wait(Condition::Replicas(replicas), wanted.timeout).await {
        Ok(waited) => {
            note(waited.state);
            Ok(())
        }
        Err(ClientError::Refused(Failure { code: Code::Timeout, message })) => {
            Err(Failed::new(Code::Timeout, format!("it is written here, but only {message}")))
        }
        Err(error) => Err(error.into()),
    }
}

/// Splits the words after `create` into an id, if the first is none of the fields, and fields.
fn id_and_fields(
    mut what: Vec<String>,
) -> Result<(Option<String>, BTreeMap<String, Json>), Failed> {
    let has_id = what.first().is_some_and(|first| !first.contains('='));
    let record = has_id.then(|| what.remove(0));
    let fields = what
        .iter()
        .map(|word| word.parse::<Assignment>().map_err(Failed::usage))
        .collect::<Result<_, _>>()?;
    Ok((record, assigned(fields)?))
}

/// Fields by name, each once.
fn assigned(fields: Vec<Assignment>) -> Result<BTreeMap<String, Json>, Failed> {
    let mut by_name = BTreeMap::new();
    for Assignment { field, value } in fields {
        if by_name.insert(field.clone(), to_json(&value)).is_some() {
            return Err(Failed::usage(format!("the field {field:?} is given twice")));
        }
    }
    Ok(by_name)
}

/// Says in a word what was written.
fn done(written: &Written, json: bool) -> Result<(), Failed> {
    if json {
        return print_json(written);
    }
    print(format!("{} written", count(written.events.len() as u64, "event")))
}

/// Appends an event of an application's own kind.
pub(super) async fn emit(
    client: &Client,
    kind: String,
    value: &str,
    json: bool,
) -> Result<(), Failed> {
    let value =
        parse_text(value).map_err(|error| Failed::usage(format!("the payload: {error}")))?;
    let written = client.emit(&EmitEvent { kind, value }).await?;
    if json {
        return print_json(&written);
    }
    print(written.events.first().map(|event| event.id.clone()).unwrap_or_default())
}

/// Does what is asked with a peer.
pub(super) async fn peer(client: &Client, verb: PeerVerb, json: bool) -> Result<(), Failed> {
    let changed = match verb {
        PeerVerb::List => return Err(Failed::usage("a list is not a write")),
        PeerVerb::Show { peer } => return look::peer(client, &peer, json).await,
        PeerVerb::Add { ticket } => client.add_peer(&ticket).await?,
        PeerVerb::Block { peer } => client.block(&full_id(client, peer).await?, true).await?,
        PeerVerb::Forget { peer } => client.forget(&full_id(client, peer).await?).await?,
        PeerVerb::Unblock { peer } => client.block(&full_id(client, peer).await?, false).await?,
    };
    if json {
        return print_json(&changed);
    }
    print(changed.id)
}

/// Pauses the node, or lets it go on.
pub(super) async fn pause(client: &Client, on: bool, json: bool) -> Result<(), Failed> {
    let paused = client.pause(on).await?;
    if json {
        return print_json(&paused);
    }
    print(if paused.paused { "paused" } else { "running" }.to_owned())
}

/// A node id, completed from the known ones. A whole id need not be known.
pub(super) async fn full_id(client: &Client, peer: String) -> Result<String, Failed> {
    if peer.parse::<NodeId>().is_ok() {
        return Ok(peer);
    }
    let known = client.peers().await?;
    look::one_that_begins("peer", known.peers.iter().map(|peer| peer.id.as_str()), &peer)
}

/// What to import, as the command line says it.
pub(super) struct ImportFile {
    pub(super) path: PathBuf,
    pub(super) form: String,
    pub(super) id_column: String,
    pub(super) format: Option<FileFormat>,
}

/// Sends the rows of a file to the node, batch by batch. Good rows are kept whatever the others are.
pub(super) async fn import(client: &Client, file: ImportFile, json: bool) -> Result<(), Failed> {
    let format = format_of(&file)?;
    let (source, progress) = open(&file.path)?;
    let rows = Rows::open(BufReader::new(progress.wrap_read(source)), format, &file.id_column)
        .map_err(|error| Failed::usage(format!("{}: {error}", file.path.display())))?;
    let mut total = Imported { schema: SCHEMA, ..Imported::default() };
    let sent = send_rows(client, &file.form, rows, &progress, &mut total).await;
    progress.finish_and_clear();
    total.refused.sort_by_key(|row| row.line);
    report(&total, json)?;
    sent?;
    match total.refused.len() as u64 {
        0 => Ok(()),
        bad => Err(Failed::new(
            Code::Failed,
            format!("{} refused; the other rows are kept", count(bad, "row")),
        )),
    }
}

async fn send_rows(
    client: &Client,
    form: &str,
    rows: Rows<impl BufRead>,
    progress: &ProgressBar,
    total: &mut Imported,
) -> Result<(), Failed> {
    let mut batch = Batch { form, rows: Vec::new(), len: 0 };
    for row in rows {
        match row {
            Ok(row) if batch.takes(&row) => batch.push(row),
            Ok(row) => {
                batch.send(client, total).await?;
                progress.set_message(count(total.created + total.changed + total.unchanged, "row"));
                batch.push(row);
            }
            Err(BadRow { line, reason }) => total.refused.push(RefusedRow { line, reason }),
        }
    }
    batch.send(client, total).await
}

/// Rows that go into one request.
struct Batch<'a> {
    form: &'a str,
    rows: Vec<ImportRow>,
    len: usize,
}

impl Batch<'_> {
    fn takes(&self, row: &ImportRow) -> bool {
        self.rows.is_empty()
            || (self.rows.len() < IMPORT_ROWS_MAX && self.len + row_len(row) <= BATCH_LEN_MAX)
    }

    fn push(&mut self, row: ImportRow) {
        self.len += row_len(&row);
        self.rows.push(row);
    }

    async fn send(&mut self, client: &Client, total: &mut Imported) -> Result<(), Failed> {
        if self.rows.is_empty() {
            return Ok(());
        }
        self.len = 0;
        let rows = std::mem::take(&mut self.rows);
        let done = client.import(&ImportRows { form: self.form.to_owned(), rows }).await?;
        total.created += done.created;
        total.changed += done.changed;
        total.unchanged += done.unchanged;
        total.refused.extend(done.refused);
        Ok(())
    }
}

/// About how many bytes a row is in a request.
fn row_len(row: &ImportRow) -> usize {
    fn len(json: &Json) -> usize {
        match json {
            Json::String(text) => text.len() + 2,
            Json::Array(items) => items.iter().map(len).sum::<usize>() + items.len() + 2,
            Json::Object(object) => {
                object.iter().map(|(name, value)| name.len() + 4 + len(value)).sum()
            }
            _ => 24,
        }
    }
    row.record.len()
        + row.fields.iter().map(|(name, value)| name.len() + 4 + len(value)).sum::<usize>()
}

fn format_of(file: &ImportFile) -> Result<FileFormat, Failed> {
    if let Some(format) = file.format {
        return Ok(format);
    }
    let extension = file.path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        Some("csv") => Ok(FileFormat::Csv),
        Some("jsonl" | "ndjson") => Ok(FileFormat::Jsonl),
        _ => Err(Failed::usage(format!(
            "{} does not say by its name what it is; give --format csv or --format jsonl",
            file.path.display()
        ))),
    }
}

/// Opens a file, or stdin, with a bar for it where somebody looks.
pub(super) fn open(path: &Path) -> Result<(Box<dyn Read>, ProgressBar), Failed> {
    if path == Path::new("-") {
        let style = ProgressStyle::with_template("{spinner} {bytes} read, {msg}");
        let progress = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        return Ok((Box::new(io::stdin().lock()), styled(progress, style)));
    }
    let cannot = |error| Failed::usage(format!("cannot read {}: {error}", path.display()));
    let file = File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if metadata.is_dir() {
        return Err(Failed::usage(format!("{} is a directory", path.display())));
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes}, {msg}, {eta} left");
    let progress =
        ProgressBar::with_draw_target(Some(metadata.len()), ProgressDrawTarget::stderr());
    Ok((Box::new(file), styled(progress, style)))
}

fn styled(
    progress: ProgressBar,
    style: Result<ProgressStyle, indicatif::style::TemplateError>,
) -> ProgressBar {
    match style {
        Ok(style) => progress.with_style(style),
        Err(_) => progress,
    }
}

fn report(total: &Imported, json: bool) -> Result<(), Failed> {
    if json {
        return print_json(total);
    }
    for row in total.refused.iter().take(REFUSED_SHOWN) {
        note(format!("line {}: {}", row.line, row.reason));
    }
    if let Some(more) = total.refused.len().checked_sub(REFUSED_SHOWN).filter(|more| *more > 0) {
        note(format!("... and {more} more; --json lists all"));
    }
    print(format!(
        "{} created, {} changed, {} unchanged, {} refused",
        total.created,
        total.changed,
        total.unchanged,
        total.refused.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn the_first_word_is_the_id_unless_it_sets_a_field() {
        let (record, fields) = id_and_fields(words(&["R-1", "a=1", "b:text=1"])).expect("good");
        assert_eq!((record.as_deref(), fields.len()), (Some("R-1"), 2));
        let (record, fields) = id_and_fields(words(&["a=1"])).expect("good");
        assert_eq!((record, fields["a"].clone()), (None, Json::from(1)));
        assert!(id_and_fields(words(&["a=1", "R-1"])).is_err());
        assert!(id_and_fields(words(&["R-1", "a=1", "a=2"])).is_err());
    }

    #[test]
    fn a_file_says_by_its_name_what_it_is_unless_it_is_told() {
        let file = |path: &str, format| ImportFile {
            path: path.into(),
            form: "f".into(),
            id_column: "id".into(),
            format,
        };
        assert_eq!(format_of(&file("a.CSV", None)).expect("a name"), FileFormat::Csv);
        assert_eq!(format_of(&file("a.ndjson", None)).expect("a name"), FileFormat::Jsonl);
        assert!(format_of(&file("-", None)).is_err());
        let told = file("a.csv", Some(FileFormat::Jsonl));
        assert_eq!(format_of(&told).expect("told"), FileFormat::Jsonl);
    }

    #[test]
    fn a_batch_ends_before_it_is_too_large() {
        let row = |len: usize| ImportRow {
            line: 2,
            record: "r".into(),
            fields: BTreeMap::from([("a".to_owned(), Json::from("x".repeat(len)))]),
        };
        let mut batch = Batch { form: "f", rows: Vec::new(), len: 0 };
        assert!(batch.takes(&row(2 * BATCH_LEN_MAX)), "a row alone always goes");
        batch.push(row(10));
        assert!(batch.takes(&row(10)) && !batch.takes(&row(BATCH_LEN_MAX)));
        (1..IMPORT_ROWS_MAX).for_each(|_| batch.push(row(10)));
        assert!(!batch.takes(&row(10)));
    }
}
