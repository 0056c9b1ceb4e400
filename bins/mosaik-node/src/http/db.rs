//! The store as a whole.

use std::path::Path;

use axum::{extract::State, response::Response};
use mosaik_api::failure::{Code, Failure};

use super::{App, work};
use crate::{check, directory::Directory};

pub(super) async fn check(State(app): State<App>) -> Response {
    let directory = Directory::of(Path::new(&app.about.data_dir), &app.about.fingerprint);
    work::answer(move |go_on| {
        let snapshot = app.reads.snapshot().map_err(failed)?;
        check::check(snapshot.view(), directory.path(), go_on).map_err(failed)
    })
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::new(Code::Failed, format!("{:#}", anyhow::Error::new(error)))
}
