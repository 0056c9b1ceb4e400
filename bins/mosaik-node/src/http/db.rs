//! The store as a whole: looked at, made smaller, copied.

use std::{io, path::Path};

use axum::{
    body::Body,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use futures_lite::stream;
use mosaik_api::{
    SCHEMA,
    failure::{Code, Failure},
    work::Compacted,
};
use tokio::{runtime, sync::mpsc};

use super::{
    App,
    answer::Refused,
    look::{Asked, Pairs},
    stream::{CHUNK_LEN, CHUNKS_WAITING, Chunks},
    work,
};
use crate::{backup, check, directory::Directory};

fn directory(app: &App) -> Directory {
    Directory::of(Path::new(&app.about.data_dir), &app.about.fingerprint)
}

pub(super) async fn check(State(app): State<App>) -> Response {
    let directory = directory(&app);
    work::answer(move |go_on| {
        let snapshot = app.reads.snapshot().map_err(failed)?;
        check::check(snapshot.view(), directory.path(), go_on).map_err(failed)
    })
}

pub(super) async fn compact(State(app): State<App>) -> Response {
    let runtime = runtime::Handle::current();
    work::answer(move |_| {
        let compacted = runtime.block_on(app.handle.compact());
        let compacted = compacted.map_err(|error| Refused::from(error).0)?;
        Ok(Compacted { schema: SCHEMA, before: compacted.before, after: compacted.after })
    })
}

pub(super) async fn backup(State(app): State<App>, pairs: Pairs) -> Result<Response, Refused> {
    let secret = Asked::of(pairs, &["secret"])?.switch("secret")?;
    let directory = directory(&app);
    let snapshot = app.reads.snapshot()?;
    let (sender, chunks) = mpsc::channel(CHUNKS_WAITING);
    tokio::task::spawn_blocking(move || {
        let out = io::BufWriter::with_capacity(CHUNK_LEN, Chunks(sender.clone()));
        let made = backup::write(snapshot.view(), &directory, secret, out, &mut |_, _| true);
        if let Err(error) = made {
            let error = anyhow::Error::new(error);
            tracing::warn!(error = format!("{error:#}"), "a backup broke off");
            let _ = sender.blocking_send(Err(io::Error::other(error)));
        }
    });
    let body = stream::try_unfold(chunks, |mut chunks| async move {
        let chunk = chunks.recv().await.transpose()?;
        Ok::<_, io::Error>(chunk.map(|chunk| (chunk, chunks)))
    });
    Ok(([(CONTENT_TYPE, "application/octet-stream")], Body::from_stream(body)).into_response())
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::new(Code::Failed, format!("{:#}", anyhow::Error::new(error)))
}
