//! Answers without a known end: events as they come, slots as they change, and files.

use std::{io, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use futures_lite::stream;
use mosaik_api::{
    SCHEMA,
    document::{Slot, Slots},
    failure::Code,
};
use tokio::sync::{mpsc, watch};

use super::{
    App,
    answer::{Refused, read, read_little},
    look::{Asked, Pairs},
};
use crate::{
    export::{ExportError, Format, Options, export as write_export},
    handle::Snapshot as Shown,
    reads::{Reads, Snapshot},
};

/// How long a stream of events may be silent before an empty line says that the node is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Bytes of a file that are gathered before they are sent.
pub(super) const CHUNK_LEN: usize = 64 * 1024;

/// Chunks of a file that may wait for a slow reader; whoever writes it then waits too.
pub(super) const CHUNKS_WAITING: usize = 4;

/// Who follows and lacks no more runs than these reads them where it stands.
const FEW_ARRIVALS: u64 = 16;

const JSON_LINES: (axum::http::HeaderName, &str) = (CONTENT_TYPE, "application/x-ndjson");
const CSV: (axum::http::HeaderName, &str) = (CONTENT_TYPE, "text/csv; charset=utf-8");

/// Who follows events.
struct Follower {
    reads: Reads,
    since: u64,
    /// Whether more are known to be here.
    more: bool,
    arrivals: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
}

pub(super) async fn events(State(app): State<App>, pairs: Pairs) -> Result<Response, Refused> {
    let since = Asked::of(pairs, &["since"])?.number("since")?.unwrap_or(0);
    let follower = Follower {
        since,
        more: true,
        arrivals: app.handle.arrivals(),
        reads: app.reads,
        stopping: app.stopping,
    };
    let lines = stream::try_unfold(follower, |mut follower| async move {
        let lines = follower.next().await?;
        Ok::<_, io::Error>(lines.map(|lines| (lines, follower)))
    });
    Ok(([JSON_LINES], Body::from_stream(lines)).into_response())
}

impl Follower {
    /// The next lines; none when the node ends.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if self.more {
                let lines = self.page().await?;
                if !lines.is_empty() {
                    return Ok(Some(lines.into()));
                }
            }
            tokio::select! {
                _ = self.stopping.wait_for(|stopping| *stopping) => return Ok(None),
                changed = self.arrivals.changed() => match changed {
                    Ok(()) => self.more = *self.arrivals.borrow_and_update() > self.since,
                    Err(_) => return Ok(None),
                },
                () = tokio::time::sleep(KEEP_ALIVE) => return Ok(Some(Bytes::from_static(b"\n"))),
            }
        }
    }

    /// Lines of what comes after those that were sent.
    async fn page(&mut self) -> io::Result<Vec<u8>> {
        let since = self.since;
        let page = move |snapshot: &Snapshot| snapshot.events(since, None);
        let behind = self.arrivals.borrow().saturating_sub(since);
        let page = if behind <= FEW_ARRIVALS {
            read_little(&self.reads, page).await
        } else {
            read(&self.reads, page).await
        };
        let page = page.map_err(|Refused(failure)| io::Error::other(failure))?;
        (self.since, self.more) = (page.next, page.more);
        let mut lines = Vec::new();
        for event in &page.events {
            serde_json::to_writer(&mut lines, event)?;
            lines.push(b'\n');
        }
        Ok(lines)
    }
}

/// Who follows the slots.
struct Watcher {
    shown: watch::Receiver<Shown>,
    /// What was sent last.
    sent: Option<Vec<Slot>>,
    stopping: watch::Receiver<bool>,
}

pub(super) async fn slots(State(app): State<App>) -> Response {
    let watcher = Watcher { shown: app.handle.watch(), sent: None, stopping: app.stopping };
    let lines = stream::try_unfold(watcher, |mut watcher| async move {
        let line = watcher.next().await?;
        Ok::<_, io::Error>(line.map(|line| (line, watcher)))
    });
    ([JSON_LINES], Body::from_stream(lines)).into_response()
}

impl Watcher {
    /// The next line; none when the node ends.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let slots = self.shown.borrow_and_update().slots.clone();
            if self.sent.as_ref() != Some(&slots) {
                let document = Slots { schema: SCHEMA, slots };
                let mut line = serde_json::to_vec(&document)?;
                line.push(b'\n');
                self.sent = Some(document.slots);
                return Ok(Some(line.into()));
            }
            tokio::select! {
                _ = self.stopping.wait_for(|stopping| *stopping) => return Ok(None),
                changed = self.shown.changed() => if changed.is_err() {
                    return Ok(None);
                },
                () = tokio::time::sleep(KEEP_ALIVE) => return Ok(Some(Bytes::from_static(b"\n"))),
            }
        }
    }
}

pub(super) async fn export(State(app): State<App>, pairs: Pairs) -> Result<Response, Refused> {
    let mut query = Asked::of(pairs, &["format", "form", "id_column", "archived"])?;
    let (format, content_type) = match query.take("format").as_deref() {
        Some("csv") => (Format::Csv, CSV),
        Some("jsonl") => (Format::Jsonl, JSON_LINES),
        _ => return Err(Refused::new(Code::Invalid, "format takes csv or jsonl")),
    };
    let options = Options {
        format,
        form: query.take("form"),
        id_column: query.take("id_column").unwrap_or_else(|| "record".to_owned()),
        archived: query.switch("archived")?,
    };
    let (sender, mut chunks) = mpsc::channel(CHUNKS_WAITING);
    let reads = app.reads.clone();
    tokio::task::spawn_blocking(move || {
        let mut out = io::BufWriter::with_capacity(CHUNK_LEN, Chunks(sender.clone()));
        let written = match reads.snapshot() {
            Ok(snapshot) => write_export(&snapshot, &options, &mut out),
            Err(error) => Err(ExportError::Write(io::Error::other(error))),
        };
        let written = written.and_then(|()| Ok(io::Write::flush(&mut out)?));
        // What is still in the writer after an error is not sent: the file is cut anyway.
        let _unsent = out.into_parts();
        if let Err(error) = written {
            let _ = sender.blocking_send(Err(error));
        }
    });
    // What goes wrong before the first byte is still an answer of its own.
    let first = match chunks.recv().await {
        None => Bytes::new(),
        Some(Ok(chunk)) => chunk,
        Some(Err(error @ (ExportError::IdColumnTaken(_) | ExportError::FormColumnTaken))) => {
            return Err(Refused::new(Code::Invalid, error.to_string()));
        }
        Some(Err(error)) => {
            return Err(Refused::new(Code::Failed, format!("{:#}", anyhow::Error::new(error))));
        }
    };
    let rest = stream::try_unfold((Some(first), chunks), |(first, mut chunks)| async move {
        let next = match first {
            Some(first) => Some(Ok(first)),
            None => chunks.recv().await,
        };
        Ok::<_, ExportError>(next.transpose()?.map(|chunk| (chunk, (None, chunks))))
    });
    Ok(([content_type], Body::from_stream(rest)).into_response())
}

/// Sends what is written to it; an error says that the reader went away.
pub(super) struct Chunks<E>(pub(super) mpsc::Sender<Result<Bytes, E>>);

impl<E> io::Write for Chunks<E> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))) {
            Ok(()) => Ok(bytes.len()),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
