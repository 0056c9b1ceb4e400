//! Answers that take long: a line now and then, so that whoever asked sees it go on.

use std::{
    io,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use futures_lite::stream;
use mosaik_api::{
    failure::Failure,
    work::{Line, Progress},
};
use serde::Serialize;
use tokio::sync::mpsc;

/// How often it is told how far a work is.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Lines that may wait for a slow reader; the work then waits too.
const LINES_WAITING: usize = 4;

/// Runs `work` where blocking harms nobody. It is given what tells how far it is, and must end soon
/// once that returns false: nobody listens any more.
pub(super) fn answer<T: Serialize + Send + 'static>(
    work: impl FnOnce(&mut dyn FnMut(Progress) -> bool) -> Result<T, Failure> + Send + 'static,
) -> Response {
    let (sender, lines) = mpsc::channel::<Bytes>(LINES_WAITING);
    tokio::task::spawn_blocking(move || {
        let mut told = Instant::now();
        let mut tell = |progress| {
            if told.elapsed() < TELL_EVERY {
                return !sender.is_closed();
            }
            told = Instant::now();
            send(&sender, &Line::<()>::Progress(progress))
        };
        let line = match work(&mut tell) {
            Ok(done) => Line::Done(done),
            Err(failure) => Line::Failed(failure),
        };
        send(&sender, &line);
    });
    let body = stream::unfold(lines, |mut lines| async move {
        let line = lines.recv().await?;
        Some((Ok::<_, io::Error>(line), lines))
    });
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body)).into_response()
}

/// Sends a line; false if nobody listens.
fn send<T: Serialize>(sender: &mpsc::Sender<Bytes>, line: &Line<T>) -> bool {
    let Ok(mut bytes) = serde_json::to_vec(line) else { return false };
    bytes.push(b'\n');
    sender.blocking_send(bytes.into()).is_ok()
}
