//! From outcomes to answers, and from bodies to requests.

use axum::{
    Json,
    body::Bytes,
    extract::rejection::BytesRejection,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use mosaik_api::{
    failure::{Code, Failure, FailureDocument},
    json::parse_text,
    request::BODY_LEN_MAX,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    edit::Refusal,
    handle::WriteError,
    reads::{ReadError, Reads, Snapshot},
};

/// A failure on its way out.
pub(super) struct Refused(pub(super) Failure);

/// A document, or why there is none.
pub(super) type Answer<T> = Result<Json<T>, Refused>;

impl Refused {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Failure::new(code, message))
    }

    pub(super) fn no_record(record: &str) -> Self {
        Refusal::NoSuchRecord(record.to_owned()).into()
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(FailureDocument::from(self.0))).into_response()
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal {
            Refusal::RecordExists(_) => Code::Exists,
            Refusal::NoSuchRecord(_) => Code::NotFound,
            _ => Code::Invalid,
        };
        Self::new(code, refusal.to_string())
    }
}

impl From<WriteError> for Refused {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Refused(refusal) => refusal.into(),
            WriteError::Degraded(_) => Self::new(Code::Degraded, error.to_string()),
            WriteError::Reading => Self::new(Code::Failed, error.to_string()),
            WriteError::Stopping => Self::new(Code::Stopping, error.to_string()),
        }
    }
}

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Self {
        let error = anyhow::Error::new(error);
        tracing::warn!(error = format!("{error:#}"), "a read failed");
        Self::new(Code::Failed, format!("{error:#}"))
    }
}

/// Reads from one snapshot, where blocking harms nobody.
pub(super) async fn read<T: Send + 'static>(
    reads: &Reads,
    read: impl FnOnce(&Snapshot) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, Refused> {
    let reads = reads.clone();
    let done = tokio::task::spawn_blocking(move || read(&reads.snapshot()?)).await;
    match done {
        Ok(read) => Ok(read?),
        Err(error) => Err(Refused::new(Code::Failed, format!("a read broke off: {error}"))),
    }
}

/// Reads some rows from one snapshot: here, since to hand so little to another thread and to hear of it
/// takes longer than to read it; but elsewhere where the store would have to be waited for.
pub(super) async fn read_little<T: Send + 'static>(
    reads: &Reads,
    little: impl FnOnce(&Snapshot) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, Refused> {
    match reads.snapshot_now()? {
        Some(snapshot) => Ok(little(&snapshot)?),
        None => read(reads, little).await,
    }
}

/// A document read from one snapshot.
pub(super) async fn answer<T: Serialize + Send + 'static>(
    reads: &Reads,
    document: impl FnOnce(&Snapshot) -> Result<T, ReadError> + Send + 'static,
) -> Answer<T> {
    read(reads, document).await.map(Json)
}

/// The request that a body is. Numbers that would lose digits are refused.
pub(super) fn request<T: DeserializeOwned>(
    body: Result<Bytes, BytesRejection>,
) -> Result<T, Refused> {
    let invalid = |reason: String| Refused::new(Code::Invalid, reason);
    let body = body.map_err(|error| match error.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            invalid(format!("a request has at most {BODY_LEN_MAX} bytes; send less at once"))
        }
        _ => invalid("the request's body could not be read".to_owned()),
    })?;
    let text = std::str::from_utf8(&body).map_err(|_| invalid("the body is not UTF-8".into()))?;
    let json = parse_text(text).map_err(|error| invalid(format!("the body is {error}")))?;
    serde_json::from_value(json).map_err(|error| invalid(format!("the body is wrong: {error}")))
}

pub(super) async fn no_such_path() -> Refused {
    Refused::new(Code::NotFound, "there is nothing under this path")
}

pub(super) async fn no_such_method() -> Refused {
    Refused::new(Code::Invalid, "this path takes another method")
}
