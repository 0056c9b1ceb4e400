//! The node's answers: HTTP/1.1 under `/api/v1` on a Unix socket.
//!
//! Invariants:
//! - Only the node's own user reaches it: the socket is 0600 in a directory that is 0700.
//! - Reads come from one snapshot of the store, writes go to the owner; nothing here decides.
//! - Every failure is an error document with a code, whatever went wrong.

mod answer;
mod bridge;
mod db;
mod files;
mod look;
mod stream;
mod wait;
mod work;
mod write;

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, patch, post},
};
use mosaik_api::{PREFIX, request::BODY_LEN_MAX};
use mosaik_core::{
    id::{Fingerprint, NodeId},
    key::NetworkKind,
};
use tokio::{net::UnixListener, sync::watch};

use crate::{attachments::Attachments, doctor::Means, handle::Handle, reads::Reads};

/// What never changes while a node runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Its id.
    pub node: NodeId,
    /// What it calls itself.
    pub name: String,
    /// Its network.
    pub fingerprint: Fingerprint,
    /// Public or secret.
    pub kind: NetworkKind,
    /// What `--data-dir` names.
    pub data_dir: String,
    /// Its socket.
    pub socket: String,
    /// What is switched on.
    pub means: Means,
}

/// What every handler reaches.
#[derive(Debug, Clone)]
struct App {
    about: Arc<About>,
    handle: Handle,
    reads: Reads,
    attachments: Attachments,
    /// True from the moment at which the server is to end.
    stopping: watch::Receiver<bool>,
}

/// Binds the node's socket. One that is there is a dead process's: who calls this holds the store.
///
/// # Errors
///
/// The system's own; the caller names the path.
pub fn bind(socket: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    // Between the two only the directory's permissions count; they are the same user's.
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until `stopping` is true; streams end then, and answers under way are finished.
///
/// # Errors
///
/// None that ends it today; axum keeps the right to.
pub async fn serve(
    listener: UnixListener,
    about: About,
    handle: Handle,
    reads: Reads,
    attachments: Attachments,
    stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut ending = stopping.clone();
    let app = App { about: Arc::new(about), handle, reads, attachments, stopping };
    axum::serve(listener, router(app))
        .with_graceful_shutdown(async move {
            // An error says that whoever would tell is gone: the same.
            let _ = ending.wait_for(|stopping| *stopping).await;
        })
        .await
}

fn router(app: App) -> Router {
    let api = Router::new()
        .route("/status", get(look::status))
        .route("/id", get(look::identity))
        .route("/peers", get(look::peers).post(write::add_peer))
        .route("/peers/{peer}/block", post(write::block))
        .route("/peers/{peer}/unblock", post(write::unblock))
        .route("/peers/{peer}/forget", post(write::forget))
        .route("/peers/{peer}/ping", post(wait::ping))
        .route("/pause", post(write::pause))
        .route("/resume", post(write::resume))
        .route("/probe", get(wait::probed).post(wait::probe))
        .route("/bridge", get(look::bridge))
        .route("/slots", get(look::slots))
        .route("/slots/stream", get(stream::slots))
        .route("/frontier", get(look::frontier))
        .route("/feeds", get(look::feeds))
        .route("/conflicts", get(look::conflicts))
        .route("/view", get(look::view))
        .route("/metrics", get(look::metrics))
        .route("/doctor", get(look::doctor))
        .route("/records", get(look::records).post(write::create))
        .route("/records/{record}", get(look::record).merge(patch(write::set)))
        .route("/records/{record}/notes", post(write::note))
        .route("/records/{record}/archive", post(write::archive))
        .route("/records/{record}/attachments", post(files::add).layer(DefaultBodyLimit::disable()))
        .route("/attachments", get(files::list))
        .route("/blobs/{blob}", get(files::get))
        .route("/blobs/{blob}/fetch", post(files::fetch))
        .route("/blobs/{blob}/pin", post(files::pin))
        .route("/blobs/{blob}/drop", post(files::let_go))
        .route("/events", get(look::events).post(write::emit))
        .route("/events/batch", post(write::emit_all))
        .route("/events/stream", get(stream::events))
        .route("/events/{author}/{seq}", get(look::event))
        .route("/events/{author}/{seq}/fetch", post(wait::fetch))
        .route("/import", post(write::import))
        .route("/import/meshlog", post(write::import_meshlog))
        .route("/export", get(stream::export))
        .route("/db/check", get(db::check))
        .route("/db/compact", post(db::compact))
        .route("/backup", get(db::backup))
        .route("/wait", post(wait::wait))
        .fallback(answer::no_such_path)
        .method_not_allowed_fallback(answer::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
        .with_state(app);
    Router::new().nest(PREFIX, api).fallback(answer::no_such_path)
}

#[cfg(test)]
mod tests;
