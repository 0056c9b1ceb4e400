//! The verbs of attachments: files that belong to records.

use std::{
    fs::{self, OpenOptions},
    io::{self, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use mosaik_api::{
    SCHEMA,
    client::{Chunks, Client},
    document::{Attachment, Attachments, FileState, RecordAttachment},
    failure::Code,
    work::Progress,
};
use serde_json::json;
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};

use super::{
    AttachmentList, AttachmentVerb, Failed,
    db::Bar,
    output::{note, plain, print, print_json, print_table},
};

/// Bytes of one piece of a file that is sent to the node.
const PIECE_LEN: usize = 256 * 1024;
/// Pieces on their way.
const PIECES_WAITING: usize = 4;
/// The media types of common names; all else is bytes.
const TYPES: [(&str, &str); 16] = [
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("png", "image/png"),
    ("webp", "image/webp"),
    ("gif", "image/gif"),
    ("svg", "image/svg+xml"),
    ("pdf", "application/pdf"),
    ("txt", "text/plain"),
    ("csv", "text/csv"),
    ("json", "application/json"),
    ("zip", "application/zip"),
    ("mp3", "audio/mpeg"),
    ("ogg", "audio/ogg"),
    ("wav", "audio/wav"),
    ("mp4", "video/mp4"),
    ("webm", "video/webm"),
];

/// Does what is asked with an attachment.
pub(super) async fn attachment(
    client: &Client,
    list: AttachmentList,
    verb: Option<AttachmentVerb>,
    json: bool,
) -> Result<(), Failed> {
    match verb {
        None => show_all(client, list, json).await,
        Some(AttachmentVerb::List(own)) => show_all(client, own.or(list), json).await,
        Some(AttachmentVerb::Show { what, file }) => {
            let found = find(client, &what, file.as_deref()).await?;
            if json { print_json(&found) } else { print_one(&found) }
        }
        Some(AttachmentVerb::Add { record, field, file, mime, name, replicated }) => {
            let new = New { record, field, mime, name };
            add(client, new, &file, json).await?;
            super::write::replicated(client, replicated).await
        }
        Some(AttachmentVerb::Get { what, file, output, timeout, over_radio }) => {
            let found = find(client, &what, file.as_deref()).await?;
            let patience = Patience { timeout, over_radio };
            get(client, &found, output.as_deref(), patience, json).await
        }
        Some(AttachmentVerb::Pin { what, file, undo }) => {
            let found = find(client, &what, file.as_deref()).await?;
            let changed = client.pin_blob(&found.attachment.blob, !undo).await?;
            if json { print_json(&changed) } else { print(changed.blob) }
        }
        Some(AttachmentVerb::Drop { what, file }) => {
            let found = find(client, &what, file.as_deref()).await?;
            let changed = client.drop_blob(&found.attachment.blob).await?;
            if json { print_json(&changed) } else { print(changed.blob) }
        }
    }
}

async fn show_all(client: &Client, list: AttachmentList, json: bool) -> Result<(), Failed> {
    let attachments = match list.record {
        Some(record) => of_record(client, &record).await?,
        None => all(client).await?,
    };
    if json {
        return print_json(&Attachments { schema: SCHEMA, attachments, next: None });
    }
    let row = |line: &RecordAttachment| {
        let file = &line.attachment;
        [
            plain(&line.record),
            plain(&file.field),
            file.blob.get(..12).unwrap_or(&file.blob).to_owned(),
            plain(&file.name),
            told(file),
        ]
    };
    let rows: Vec<_> = attachments.iter().map(row).collect();
    print_table(["RECORD", "FIELD", "BLOB", "NAME", "STATE"], &rows)
}

async fn all(client: &Client) -> Result<Vec<RecordAttachment>, Failed> {
    let mut all = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = client.attachments(after.as_deref()).await?;
        all.extend(page.attachments);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(all),
        }
    }
}

async fn of_record(client: &Client, record: &str) -> Result<Vec<RecordAttachment>, Failed> {
    let attachments = client.record(record).await?.attachments.into_iter();
    let record = record.to_owned();
    Ok(attachments
        .map(|attachment| RecordAttachment { record: record.clone(), attachment })
        .collect())
}

fn print_one(found: &RecordAttachment) -> Result<(), Failed> {
    let file = &found.attachment;
    print(format!("record   {}", plain(&found.record)))?;
    print(format!("field    {}", plain(&file.field)))?;
    print(format!("blob     {}", file.blob))?;
    print(format!("name     {}", plain(&file.name)))?;
    print(format!("type     {}", plain(&file.mime)))?;
    print(format!("size     {} bytes", file.size))?;
    print(format!("state    {}", told(file)))
}

/// The attachment that is meant: by its hash alone, or by a record and a field or how the hash begins.
async fn find(client: &Client, what: &str, file: Option<&str>) -> Result<RecordAttachment, Failed> {
    let Some(file) = file else {
        let is_blob = what.len() == 64 && what.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_blob {
            return Err(Failed::usage(
                "name a file by its record and field, or by the 64 digits of its hash",
            ));
        }
        let blob = what.to_ascii_lowercase();
        let found = all(client).await?.into_iter().find(|line| line.attachment.blob == blob);
        let none = || Failed::new(Code::NotFound, format!("no record here names the file {blob}"));
        return found.ok_or_else(none);
    };
    let of_record = of_record(client, what).await?;
    let begins = |line: &&RecordAttachment| {
        file.len() >= 4 && line.attachment.blob.starts_with(&file.to_ascii_lowercase())
    };
    let mut found: Vec<_> = of_record.iter().filter(|line| line.attachment.field == file).collect();
    if found.is_empty() {
        found = of_record.iter().filter(begins).collect();
    }
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            let sentence = format!("record {what:?} has no file under {file:?}");
            Err(Failed::new(Code::NotFound, sentence))
        }
        several => {
            let hashes: Vec<_> =
                several.iter().filter_map(|line| line.attachment.blob.get(..12)).collect();
            Err(Failed::usage(format!(
                "there are {} files under {file:?}; name one by how its hash begins: {}",
                several.len(),
                hashes.join(", ")
            )))
        }
    }
}

/// What is attached, as the command line says it.
struct New {
    record: String,
    field: String,
    mime: Option<String>,
    name: Option<String>,
}

async fn add(client: &Client, new: New, path: &Path, json: bool) -> Result<(), Failed> {
    let is_stdin = path == Path::new("-");
    let (source, size): (Box<dyn AsyncRead + Unpin + Send>, u64) = if is_stdin {
        (Box::new(tokio::io::stdin()), 0)
    } else {
        let cannot = |error| Failed::usage(format!("cannot read {}: {error}", path.display()));
        let file = File::open(path).await.map_err(cannot)?;
        let about = file.metadata().await.map_err(cannot)?;
        if about.is_dir() {
            return Err(Failed::usage(format!("{} is a directory", path.display())));
        }
        (Box::new(file), about.len())
    };
    let own_name = path.file_name().filter(|_| !is_stdin);
    let name = new.name.or_else(|| own_name.map(|name| name.to_string_lossy().into_owned()));
    let mime = new.mime.unwrap_or_else(|| type_of(name.as_deref().unwrap_or_default()).to_owned());
    // Before the file is read: a mistyped record is told at once.
    client.record(&new.record).await?;
    let (sender, pieces) = mpsc::channel(PIECES_WAITING);
    let bar = Bar::new();
    let file =
        [("field", Some(new.field.as_str())), ("mime", Some(&mime)), ("name", name.as_deref())];
    let sent = client.attach(&new.record, &file, pieces);
    let (attached, ()) = tokio::join!(sent, send(source, size, sender, &bar));
    bar.end();
    let attached = attached?;
    if json { print_json(&attached) } else { print(attached.blob) }
}

/// Reads a file into pieces, until nobody takes them any more.
async fn send(
    mut source: impl AsyncRead + Unpin,
    size: u64,
    pieces: mpsc::Sender<io::Result<bytes::Bytes>>,
    bar: &Bar,
) {
    let mut done = 0;
    loop {
        let mut piece = bytes::BytesMut::with_capacity(PIECE_LEN);
        let read = source.read_buf(&mut piece).await;
        if matches!(read, Ok(0)) {
            return;
        }
        done += piece.len() as u64;
        bar.show(&Progress { phase: "adding".to_owned(), done, total: size });
        let is_over = read.is_err();
        if pieces.send(read.map(|_| piece.freeze())).await.is_err() || is_over {
            return;
        }
    }
}

fn type_of(name: &str) -> &'static str {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    let known = TYPES.iter().find(|(known, _)| ending.as_deref() == Some(known));
    known.map_or("application/octet-stream", |(_, mime)| mime)
}

/// How long a file is waited for, and on which ways.
#[derive(Debug, Clone, Copy)]
struct Patience {
    timeout: Option<Duration>,
    over_radio: bool,
}

/// Fetches a file if it isn't here, and writes it out.
async fn get(
    client: &Client,
    found: &RecordAttachment,
    output: Option<&Path>,
    Patience { timeout, over_radio }: Patience,
    json: bool,
) -> Result<(), Failed> {
    if output.is_none() && json {
        return Err(Failed::usage("with --json the file itself needs a place: -o FILE"));
    }
    if output.is_none() && io::stdout().is_terminal() && !found.attachment.mime.starts_with("text/")
    {
        return Err(Failed::usage("this is no text: give -o FILE, or redirect stdout"));
    }
    let blob = &found.attachment.blob;
    if found.attachment.state != FileState::Here {
        let bar = Bar::new();
        let fetched = client.fetch_blob(blob, timeout, over_radio, |progress| bar.show(progress));
        let fetched = fetched.await;
        bar.end();
        fetched?;
    }
    let bytes = client.blob(blob).await?;
    let Some(output) = output else {
        return write_out(bytes, &mut io::stdout().lock()).await.map(drop);
    };
    let len = write_file(bytes, output).await?;
    if json {
        let file = output.display().to_string();
        return print_json(&json!({
            "schema": SCHEMA, "record": found.record, "field": found.attachment.field,
            "blob": blob, "file": file, "bytes": len,
        }));
    }
    note(format!("{} in {}", size_text(len), output.display()));
    Ok(())
}

/// Writes a file under another name first: what has its name is whole.
async fn write_file(bytes: Chunks, path: &Path) -> Result<u64, Failed> {
    let unfinished: PathBuf = path.with_added_extension(format!("{}.unfinished", process::id()));
    let cannot = |error: io::Error| {
        Failed::from(anyhow::anyhow!("cannot write {}: {error}", path.display()))
    };
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&unfinished).map_err(cannot)?;
    let written = write_out(bytes, &mut file).await;
    let named = written.and_then(|len| {
        file.sync_all().and_then(|()| fs::rename(&unfinished, path)).map_err(cannot)?;
        Ok(len)
    });
    if named.is_err() {
        // It is not whole; its name says so where it can't be removed.
        let _ = fs::remove_file(&unfinished);
    }
    named
}

async fn write_out(mut bytes: Chunks, out: &mut impl Write) -> Result<u64, Failed> {
    let mut len = 0;
    while let Some(piece) = bytes.next().await? {
        out.write_all(&piece)?;
        len += piece.len() as u64;
    }
    out.flush()?;
    Ok(len)
}

/// `812 kB`: for a person.
pub(super) fn size_text(bytes: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes < unit * 10 => {
            format!("{:.1} {name}", bytes as f64 / unit as f64)
        }
        Some((unit, name)) => format!("{} {name}", bytes / unit),
        None => format!("{bytes} B"),
    }
}

fn state_text(file: &Attachment) -> String {
    let pinned = if file.pinned { ", pinned" } else { "" };
    format!("{}{pinned}", file.state.as_str().replace('_', " "))
}

/// `pending, 812 kB, waits for a peer: none is connected`: how it stands with a file, for a person.
pub(super) fn told(file: &Attachment) -> String {
    let size = size_text(file.size);
    let waits = file.waits_for.as_ref().map(|waits| format!(", waits for {}", plain(waits)));
    format!("{}, {size}{}", state_text(file), waits.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_with_two_digits_or_more() {
        let told: Vec<_> =
            [0, 999, 1_000, 812_345, 9_949_000, 64_000_000, 3_200_000_000].map(size_text).into();
        assert_eq!(told, ["0 B", "999 B", "1.0 kB", "812 kB", "9.9 MB", "64 MB", "3.2 GB"]);
    }

    #[test]
    fn a_name_tells_a_common_type() {
        assert_eq!(type_of("Photo 1.JPG"), "image/jpeg");
        assert_eq!(
            (type_of("a"), type_of("b.xyz")),
            ("application/octet-stream", "application/octet-stream")
        );
    }
}
