//! The files of attachments: sent in and out as they are, everything else as documents.

use std::{
    io,
    time::{Duration, Instant},
};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{
        Path, State,
        rejection::{BytesRejection, PathRejection},
    },
    http::header::{CONTENT_LENGTH, CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use futures_lite::{StreamExt, stream};
use mosaik_api::{
    SCHEMA,
    document::{
        Attached, Attachment, Attachments, BlobChanged, FileState, Peer, Record, RecordAttachment,
        Tip,
    },
    failure::Code,
    request::{FetchBlob, PinBlob},
    work::Progress,
};
use mosaik_core::id::{BlobId, NodeId};
use mosaik_net::ShelfError;
use mosaik_proto::attachments::State as Standing;
use tokio::{runtime, sync::mpsc};

use super::{
    App,
    answer::{Answer, Refused, read, request},
    look::{Asked, Pairs, segment},
    work,
};
use crate::{
    attachments::{AttachmentError, Look, NewFile, RadioWay, Waiting, waits_for},
    reads::AttachmentsPage,
};

/// Pieces of a file that may wait between the socket and the disk.
const PIECES_WAITING: usize = 4;
/// Attachments in one page of all of them.
const PAGE: usize = 1000;
/// The media type of what nobody named one for.
const MIME_DEFAULT: &str = "application/octet-stream";

impl From<AttachmentError> for Refused {
    fn from(error: AttachmentError) -> Self {
        let code = match &error {
            AttachmentError::Write(_) => match error {
                AttachmentError::Write(error) => return error.into(),
                _ => Code::Failed,
            },
            AttachmentError::Unknown(_) | AttachmentError::NotHere(_) => Code::NotFound,
            AttachmentError::NoRadio | AttachmentError::TooLongForRadio { .. } => Code::Invalid,
            AttachmentError::Stopping => Code::Stopping,
            AttachmentError::Shelf(ShelfError::Source(_)) => Code::Invalid,
            _ => Code::Failed,
        };
        Self::new(code, format!("{:#}", anyhow::Error::new(error)))
    }
}

/// Puts how it stands with the files into a record's document.
pub(super) async fn describe(app: &App, record: &mut Record) -> Result<(), Refused> {
    let form = record.form.clone();
    let attachments = record.attachments.iter_mut();
    fill(app, attachments.map(|attachment| (attachment, form.as_deref())).collect()).await
}

async fn fill(app: &App, files: Vec<(&mut Attachment, Option<&str>)>) -> Result<(), Refused> {
    let claims: Vec<_> = files
        .iter()
        .map(|(file, form)| (file.blob.parse().unwrap_or_default(), file.size, *form))
        .collect();
    let looks = app.attachments.look(&claims).await?;
    let peers = app.handle.snapshot().peers;
    for ((file, _), look) in files.into_iter().zip(looks) {
        file.state = state_of(&look);
        (file.here, file.pinned) = (look.here, look.pinned);
        file.over_radio = matches!(look.radio, RadioWay::Asked { .. });
        file.waits_for = waits_for(&look, file.size, |peer| name_of(&peers, peer));
    }
    Ok(())
}

fn state_of(look: &Look) -> FileState {
    match look.state {
        Standing::Here => FileState::Here,
        Standing::Fetching { .. } => FileState::Fetching,
        Standing::LeftOut | Standing::Dropped => FileState::LeftOut,
        _ if look.radio == (RadioWay::Asked { is_coming: true }) => FileState::Fetching,
        _ => FileState::Pending,
    }
}

fn name_of(peers: &[Peer], peer: &NodeId) -> String {
    let id = peer.to_string();
    let name = peers.iter().find(|known| known.id == id).map(|known| known.name.as_str());
    match name {
        Some(name) if !name.is_empty() => format!("{name} ({})", peer.short()),
        _ => peer.short(),
    }
}

/// Takes a file in as it comes.
pub(super) async fn add(
    State(app): State<App>,
    record: Result<Path<String>, PathRejection>,
    pairs: Pairs,
    body: Body,
) -> Answer<Attached> {
    let record = segment(record)?;
    let mut asked = Asked::of(pairs, &["field", "mime", "name"])?;
    let field = asked.take("field").unwrap_or_default();
    let file = NewFile {
        record: record.clone(),
        field: field.clone(),
        mime: asked.take("mime").unwrap_or_else(|| MIME_DEFAULT.to_owned()),
        name: asked.take("name").unwrap_or_default(),
    };
    let (sender, pieces) = mpsc::channel(PIECES_WAITING);
    let pieces = stream::unfold(pieces, |mut pieces: mpsc::Receiver<io::Result<Bytes>>| async {
        let piece = pieces.recv().await?;
        Some((piece, pieces))
    });
    let pump = async {
        let mut body = body.into_data_stream();
        while let Some(piece) = body.next().await {
            let is_cut = piece.is_err();
            // Where nobody takes it any more it is read to its end all the same: who sends it could
            // otherwise not read the answer.
            let _ = sender.send(piece.map_err(io::Error::other)).await;
            if is_cut {
                break;
            }
        }
        drop(sender);
    };
    let (attached, ()) = tokio::join!(app.attachments.add(file, pieces), pump);
    let attached = attached?;
    let events = attached.appended.events.iter();
    let events = events.map(|tip| Tip { seq: tip.seq, id: tip.id.to_string() }).collect();
    Ok(Json(Attached {
        schema: SCHEMA,
        record,
        field,
        blob: attached.blob.to_string(),
        size: attached.size,
        author: attached.appended.author.to_string(),
        events,
    }))
}

/// The attachments of all records, a page at a time.
pub(super) async fn list(State(app): State<App>, pairs: Pairs) -> Answer<Attachments> {
    let mut asked = Asked::of(pairs, &["after"])?;
    let after = asked.take("after");
    let AttachmentsPage { mut attachments, next } =
        read(&app.reads, move |snapshot| snapshot.attachments(after.as_deref(), PAGE)).await?;
    let files = attachments.iter_mut();
    let files = files.map(|(file, form)| (&mut file.attachment, form.as_deref()));
    fill(&app, files.collect()).await?;
    let attachments =
        attachments.into_iter().map(|(file, _)| file).collect::<Vec<RecordAttachment>>();
    Ok(Json(Attachments { schema: SCHEMA, attachments, next }))
}

fn blob_of(blob: Result<Path<String>, PathRejection>) -> Result<BlobId, Refused> {
    segment(blob)?.parse().map_err(|error| {
        Refused::new(Code::Invalid, format!("a file is named by its hash: {error}"))
    })
}

/// A file that is here, as it is.
pub(super) async fn get(
    State(app): State<App>,
    blob: Result<Path<String>, PathRejection>,
) -> Result<Response, Refused> {
    let (size, reading) = app.attachments.open(blob_of(blob)?).await?;
    let body = stream::try_unfold(reading, |mut reading| async move {
        let piece = reading.next().await;
        if let Err(error) = &piece {
            tracing::warn!(%error, "a file of an attachment can't be read to its end");
        }
        Ok::<_, ShelfError>(piece?.map(|piece| (piece, reading)))
    });
    let head = [(CONTENT_TYPE, MIME_DEFAULT.to_owned()), (CONTENT_LENGTH, size.to_string())];
    Ok((head, Body::from_stream(body)).into_response())
}

/// Fetches a file if it isn't here.
pub(super) async fn fetch(
    State(app): State<App>,
    blob: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let blob = blob_of(blob)?;
    let FetchBlob { timeout_ms, over_radio } = request(body)?;
    let deadline = timeout_ms.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
    let waiting = match over_radio {
        true => app.attachments.ask_for_over_radio(blob).await?,
        false => app.attachments.ask_for(blob).await?,
    };
    let runtime = runtime::Handle::current();
    Ok(work::answer(move |tell| {
        let fetched = wait(&app, waiting, deadline, &runtime, tell);
        let here = fetched.map_err(|refused| refused.0)?;
        runtime.block_on(changed(&app, blob, Some(here))).map_err(|refused| refused.0)
    }))
}

/// Waits for a file, in a thread that may block.
fn wait(
    app: &App,
    mut waiting: Waiting,
    deadline: Option<Instant>,
    runtime: &runtime::Handle,
    tell: &mut dyn FnMut(Progress) -> bool,
) -> Result<u64, Refused> {
    let mut stopping = app.stopping.clone();
    loop {
        let step = runtime.block_on(async {
            let over = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // What is here at once is here with a timeout of 0 as well.
                biased;
                here = waiting.next() => here.map(Some),
                _ = stopping.wait_for(|stopping| *stopping) => Err(AttachmentError::Stopping),
                () = over => Ok(None),
            }
        });
        let peers = app.handle.snapshot().peers;
        let waits =
            |(look, size): (Look, u64)| waits_for(&look, size, |peer| name_of(&peers, peer));
        match step? {
            Some(Some(here)) => return Ok(here),
            Some(None) => {}
            None => {
                let waits = waiting.look().and_then(waits);
                let waits = waits.map(|waits| format!("; it waits for {waits}"));
                let sentence = format!("the file is not here yet{}", waits.unwrap_or_default());
                return Err(Refused::new(Code::Timeout, sentence));
            }
        }
        let Some((look, total)) = waiting.look() else { continue };
        let is_coming = state_of(&look) == FileState::Fetching;
        let phase = if is_coming { "fetching" } else { "waiting" };
        if !tell(Progress { phase: phase.to_owned(), done: look.here, total }) {
            return Err(Refused::new(Code::Failed, "nobody waits for the file any more"));
        }
    }
}

/// Pins a file, or lifts that.
pub(super) async fn pin(
    State(app): State<App>,
    blob: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<BlobChanged> {
    let blob = blob_of(blob)?;
    let PinBlob { pinned } = request(body)?;
    app.attachments.pin(blob, pinned).await?;
    changed(&app, blob, None).await.map(Json)
}

/// Lets the bytes of a file go.
pub(super) async fn let_go(
    State(app): State<App>,
    blob: Result<Path<String>, PathRejection>,
) -> Answer<BlobChanged> {
    let blob = blob_of(blob)?;
    app.attachments.let_go(blob).await?;
    changed(&app, blob, None).await.map(Json)
}

async fn changed(app: &App, blob: BlobId, here: Option<u64>) -> Result<BlobChanged, Refused> {
    let looks = app.attachments.look(&[(blob, 0, None)]).await?;
    let Some(look) = looks.first() else { return Err(AttachmentError::Stopping.into()) };
    let here = here.unwrap_or(look.here);
    Ok(BlobChanged { schema: SCHEMA, blob: blob.to_string(), here, pinned: look.pinned })
}
