//! A client of one node: HTTP/1.1 over its Unix socket, one connection a request.
//!
//! Invariant: a node that is not there, one that refuses, and one that breaks off in the middle are
//! three different errors; only the first means that none runs.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, sync::mpsc};

use crate::{
    PREFIX,
    document::{
        Attached, Attachments, BlobChanged, Bridge, Conflicts, Doctor, Event, Events, Feeds,
        Frontier, Identity, Imported, ImportedMeshlog, Paused, PeerChanged, Peers, Pinged, Probe,
        Record, Records, Slots, Status, View, Waited, Written,
    },
    failure::{Failure, FailureDocument},
    request::{
        AddNote, AddPeer, Condition, CreateRecord, EmitEvent, EmitEvents, FetchBlob, ImportMeshlog,
        ImportRows, PinBlob, SetArchived, SetFields, Wait,
    },
    work::{Checked, Compacted, Line, Progress},
};

/// How long an ordinary answer may take.
///
/// A commit on a slow card takes seconds, a large page of events as well; a minute means that the
/// node hangs.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// What a waiting request may take beyond its own timeout: the node's answer is then on its way.
const WAIT_GRACE: Duration = Duration::from_secs(10);

/// Bytes of one line of a stream at most.
///
/// A payload of 64 KiB grows nineteenfold as JSON where it is a list of small times; 4 MiB is three
/// times that.
const LINE_LEN_MAX: usize = 4 << 20;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("no node listens on {}", socket.display())]
    NoNode {
        /// The socket.
        socket: PathBuf,
        /// What connecting said.
        #[source]
        source: io::Error,
    },
    /// The socket is there, but this user may not use it.
    #[error("no permission to use {}; run this as the user that runs the node", socket.display())]
    NotAllowed {
        /// The socket.
        socket: PathBuf,
        /// What connecting said.
        #[source]
        source: io::Error,
    },
    /// The node answered that it doesn't do this.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The node did not answer in time.
    #[error("the node did not answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// The connection broke before the answer was complete.
    #[error("the node closed the connection before its answer was complete")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer isn't what this program understands.
    #[error(
        "the node answered something that this program does not understand; are both of one version?"
    )]
    Garbled(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A node's socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the node that listens on `socket`. Nothing is opened yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Connects and hangs up: whether somebody listens.
    pub async fn is_there(&self) -> bool {
        UnixStream::connect(&self.socket).await.is_ok()
    }

    /// The node's state.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/status").await
    }

    /// Who the node is, and its ticket.
    pub async fn identity(&self) -> Result<Identity, ClientError> {
        self.get("/id").await
    }

    /// The peers that it knows.
    pub async fn peers(&self) -> Result<Peers, ClientError> {
        self.get("/peers").await
    }

    /// What goes over radio.
    pub async fn bridge(&self) -> Result<Bridge, ClientError> {
        self.get("/bridge").await
    }

    /// The slots of its network, as last seen.
    pub async fn slots(&self) -> Result<Slots, ClientError> {
        self.get("/slots").await
    }

    /// The slots, and again whenever one has changed, until the node stops.
    pub async fn follow_slots(&self) -> Result<SlotStream, ClientError> {
        let body = self.stream("/slots/stream").await?;
        Ok(SlotStream { lines: Lines { body, buffer: BytesMut::new() } })
    }

    /// What it holds, by author.
    pub async fn frontier(&self) -> Result<Frontier, ClientError> {
        self.get("/frontier").await
    }

    /// The feeds that it holds.
    pub async fn feeds(&self) -> Result<Feeds, ClientError> {
        self.get("/feeds").await
    }

    /// The fields whose candidates differ.
    pub async fn conflicts(&self) -> Result<Conflicts, ClientError> {
        self.get("/conflicts").await
    }

    /// The view's digest and numbers.
    pub async fn view(&self) -> Result<View, ClientError> {
        self.get("/view").await
    }

    /// What the node counts, in Prometheus' text format.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let answer = async {
            let response = accepted(self.open(Method::GET, "/metrics", None).await?).await?;
            let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
            String::from_utf8(body.into()).map_err(garbled)
        };
        within(Some(ANSWER_TIMEOUT), answer).await
    }

    /// A page of records after the id `after`, all or those of one form.
    pub async fn records(
        &self,
        form: Option<&str>,
        after: Option<&str>,
        archived: bool,
    ) -> Result<Records, ClientError> {
        let archived = archived.then_some("true");
        let query = query(&[("form", form), ("after", after), ("archived", archived)]);
        self.get(&format!("/records{query}")).await
    }

    /// One record.
    pub async fn record(&self, record: &str) -> Result<Record, ClientError> {
        self.get(&record_path(record)).await
    }

    /// A page of events after the arrival `since`.
    pub async fn events(&self, since: u64, limit: Option<u64>) -> Result<Events, ClientError> {
        let (since, limit) = (since.to_string(), limit.map(|limit| limit.to_string()));
        let query = query(&[("since", Some(&since)), ("limit", limit.as_deref())]);
        self.get(&format!("/events{query}")).await
    }

    /// The events at one place of a feed: one, or one a branch. With `fetch` an absent payload is asked of
    /// the peers first.
    pub async fn event(&self, author: &str, seq: u64, fetch: bool) -> Result<Events, ClientError> {
        let path = format!("/events/{}/{seq}", encode(author));
        if fetch {
            return self
                .send(Method::POST, &format!("{path}/fetch"), &serde_json::Map::new())
                .await;
        }
        self.get(&path).await
    }

    /// Events after the arrival `since`, and then new ones as they come, until the node stops.
    pub async fn follow(&self, since: u64) -> Result<EventStream, ClientError> {
        let body = self.stream(&format!("/events/stream?since={since}")).await?;
        Ok(EventStream { lines: Lines { body, buffer: BytesMut::new() } })
    }

    /// The records as one file: `format` is `csv` or `jsonl`.
    pub async fn export(&self, options: &[(&str, Option<&str>)]) -> Result<Chunks, ClientError> {
        let body = self.stream(&format!("/export{}", query(options))).await?;
        Ok(Chunks { body })
    }

    /// Makes a record.
    pub async fn create(&self, create: &CreateRecord) -> Result<Written, ClientError> {
        self.send(Method::POST, "/records", create).await
    }

    /// Sets fields of a record.
    pub async fn set(&self, record: &str, fields: &SetFields) -> Result<Written, ClientError> {
        self.send(Method::PATCH, &record_path(record), fields).await
    }

    /// Attaches a file to a record: its pieces as they come. An error among them breaks it off, and
    /// nothing is attached. There is no limit to the time that it takes.
    pub async fn attach(
        &self,
        record: &str,
        file: &[(&str, Option<&str>)],
        pieces: mpsc::Receiver<io::Result<Bytes>>,
    ) -> Result<Attached, ClientError> {
        let path = format!("{}/attachments{}", record_path(record), query(file));
        let body = Sent::Pieces(pieces);
        read(self.send_body(Method::POST, &path, "application/octet-stream", body).await?).await
    }

    /// A page of the attachments of all records after `after`.
    pub async fn attachments(&self, after: Option<&str>) -> Result<Attachments, ClientError> {
        self.get(&format!("/attachments{}", query(&[("after", after)]))).await
    }

    /// A file that is here, as its bytes.
    pub async fn blob(&self, blob: &str) -> Result<Chunks, ClientError> {
        Ok(Chunks { body: self.stream(&blob_path(blob)).await? })
    }

    /// Answers when the file is here; fails with [`crate::failure::Code::Timeout`] after `timeout`.
    /// `each` is told how far it is. `over_radio`: it may come over radio, too.
    pub async fn fetch_blob(
        &self,
        blob: &str,
        timeout: Option<Duration>,
        over_radio: bool,
        each: impl FnMut(&Progress),
    ) -> Result<BlobChanged, ClientError> {
        let timeout_ms = timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX));
        let body = to_body(&FetchBlob { timeout_ms, over_radio })?;
        let path = format!("{}/fetch", blob_path(blob));
        let answer = self.open(Method::POST, &path, Some(body)).await?;
        work(accepted(answer).await?.into_body(), each).await
    }

    /// Keeps a file whatever happens, or lifts that.
    pub async fn pin_blob(&self, blob: &str, pinned: bool) -> Result<BlobChanged, ClientError> {
        self.send(Method::POST, &format!("{}/pin", blob_path(blob)), &PinBlob { pinned }).await
    }

    /// Lets the bytes of a file go, here alone.
    pub async fn drop_blob(&self, blob: &str) -> Result<BlobChanged, ClientError> {
        let path = format!("{}/drop", blob_path(blob));
        self.send(Method::POST, &path, &serde_json::Map::new()).await
    }

    /// Adds a note to a record.
    pub async fn note(&self, record: &str, note: &AddNote) -> Result<Written, ClientError> {
        self.send(Method::POST, &format!("{}/notes", record_path(record)), note).await
    }

    /// Puts a record away, or takes it back.
    pub async fn archive(&self, record: &str, archived: bool) -> Result<Written, ClientError> {
        let path = format!("{}/archive", record_path(record));
        self.send(Method::POST, &path, &SetArchived { archived }).await
    }

    /// Appends an event of an application's own kind.
    pub async fn emit(&self, event: &EmitEvent) -> Result<Written, ClientError> {
        self.send(Method::POST, "/events", event).await
    }

    /// Appends events of applications' own kinds, all or none.
    pub async fn emit_all(&self, events: &EmitEvents) -> Result<Written, ClientError> {
        self.send(Method::POST, "/events/batch", events).await
    }

    /// Turns rows into records.
    pub async fn import(&self, rows: &ImportRows) -> Result<Imported, ClientError> {
        self.send(Method::POST, "/import", rows).await
    }

    /// Takes events of meshlogd in.
    pub async fn import_meshlog(
        &self,
        events: &ImportMeshlog,
    ) -> Result<ImportedMeshlog, ClientError> {
        self.send(Method::POST, "/import/meshlog", events).await
    }

    /// Dials a peer now, and remembers it.
    pub async fn add_peer(&self, ticket: &str) -> Result<PeerChanged, ClientError> {
        self.send(Method::POST, "/peers", &AddPeer { ticket: ticket.into() }).await
    }

    /// Blocks a peer, or lifts that.
    pub async fn block(&self, peer: &str, blocked: bool) -> Result<PeerChanged, ClientError> {
        let verb = if blocked { "block" } else { "unblock" };
        let path = format!("/peers/{}/{verb}", encode(peer));
        self.send(Method::POST, &path, &serde_json::Map::new()).await
    }

    /// What works and what doesn't.
    pub async fn doctor(&self) -> Result<Doctor, ClientError> {
        self.get("/doctor").await
    }

    /// Asks a peer for an answer; takes 15 s at the most.
    pub async fn ping(&self, peer: &str) -> Result<Pinged, ClientError> {
        let path = format!("/peers/{}/ping", encode(peer));
        self.send(Method::POST, &path, &serde_json::Map::new()).await
    }

    /// Sends a probe to all nodes that can be reached; a node may do that once a minute.
    pub async fn probe(&self) -> Result<Probe, ClientError> {
        self.send(Method::POST, "/probe", &serde_json::Map::new()).await
    }

    /// What has come so far of the last probe.
    pub async fn probed(&self) -> Result<Probe, ClientError> {
        self.get("/probe").await
    }

    /// Ends all sessions of the node, or lets it go on.
    pub async fn pause(&self, on: bool) -> Result<Paused, ClientError> {
        let path = if on { "/pause" } else { "/resume" };
        self.send(Method::POST, path, &serde_json::Map::new()).await
    }

    /// Forgets all that is known of a peer.
    pub async fn forget(&self, peer: &str) -> Result<PeerChanged, ClientError> {
        let path = format!("/peers/{}/forget", encode(peer));
        self.send(Method::POST, &path, &serde_json::Map::new()).await
    }

    /// Answers when `until` holds; fails with [`crate::failure::Code::Timeout`] after `timeout`.
    pub async fn wait(
        &self,
        until: Condition,
        timeout: Option<Duration>,
    ) -> Result<Waited, ClientError> {
        let timeout_ms = timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX));
        let body = to_body(&Wait { until, timeout_ms })?;
        let limit = timeout.map(|timeout| timeout.saturating_add(WAIT_GRACE));
        within(limit, async { read(self.open(Method::POST, "/wait", Some(body)).await?).await })
            .await
    }

    /// Looks at the whole store. `each` is told how far that is.
    pub async fn check(&self, each: impl FnMut(&Progress)) -> Result<Checked, ClientError> {
        work(self.stream("/db/check").await?, each).await
    }

    /// Makes the store as small as it can be.
    pub async fn compact(&self) -> Result<Compacted, ClientError> {
        let answer = self.open(Method::POST, "/db/compact", None).await?;
        work(accepted(answer).await?.into_body(), |_| {}).await
    }

    /// A backup, as the bytes of its file; with `secret` it holds the id of a secret network too.
    pub async fn backup(&self, secret: bool) -> Result<Chunks, ClientError> {
        let secret = secret.then_some("true");
        let body = self.stream(&format!("/backup{}", query(&[("secret", secret)]))).await?;
        Ok(Chunks { body })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let answer = async { read(self.open(Method::GET, path, None).await?).await };
        within(Some(ANSWER_TIMEOUT), answer).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = to_body(body)?;
        let answer = async { read(self.open(method, path, Some(body)).await?).await };
        within(Some(ANSWER_TIMEOUT), answer).await
    }

    async fn stream(&self, path: &str) -> Result<Incoming, ClientError> {
        let opened = async { accepted(self.open(Method::GET, path, None).await?).await };
        Ok(within(Some(ANSWER_TIMEOUT), opened).await?.into_body())
    }

    /// Sends a request and returns the head of the answer.
    async fn open(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Response<Incoming>, ClientError> {
        let content_type = if body.is_some() { "application/json" } else { "" };
        let body = Sent::Whole(Full::new(body.unwrap_or_default()));
        self.send_body(method, path, content_type, body).await
    }

    async fn send_body(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Sent,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| {
            let socket = self.socket.clone();
            match source.kind() {
                io::ErrorKind::PermissionDenied => ClientError::NotAllowed { socket, source },
                _ => ClientError::NoNode { socket, source },
            }
        })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends by itself when the answer is read or dropped.
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{PREFIX}{path}"))
            .header(HOST, "mosaik-node");
        if !content_type.is_empty() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let request = request.body(body).map_err(garbled)?;
        sender.send_request(request).await.map_err(broken)
    }
}

/// What a request carries.
enum Sent {
    Whole(Full<Bytes>),
    /// A file, piece by piece.
    Pieces(mpsc::Receiver<io::Result<Bytes>>),
}

impl Body for Sent {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(body) => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                Poll::Ready(frame.map(|frame| frame.map_err(|never| match never {})))
            }
            Self::Pieces(pieces) => {
                let piece = ready!(pieces.poll_recv(context));
                Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Pieces(_) => SizeHint::default(),
        }
    }
}

/// New events, one after the other.
#[derive(Debug)]
pub struct EventStream {
    lines: Lines,
}

impl EventStream {
    /// The next event; none once the node has stopped.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        self.lines.document().await
    }
}

/// The slots as they change.
#[derive(Debug)]
pub struct SlotStream {
    lines: Lines,
}

impl SlotStream {
    /// All slots, first as they are and then as they became; none once the node has stopped. May be
    /// dropped while it waits, and asked again: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Slots>, ClientError> {
        self.lines.document().await
    }
}

/// A file, piece by piece.
#[derive(Debug)]
pub struct Chunks {
    body: Incoming,
}

impl Chunks {
    /// The next piece; none at the end. An error means that the file is cut.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        next_data(&mut self.body).await
    }
}

#[derive(Debug)]
struct Lines {
    body: Incoming,
    buffer: BytesMut,
}

impl Lines {
    /// The next line as a document; none at the end.
    async fn document<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        let Some(line) = self.next().await? else { return Ok(None) };
        serde_json::from_slice(&line).map(Some).map_err(garbled)
    }

    async fn next(&mut self) -> Result<Option<BytesMut>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                // An empty line only says that the node is alive.
                if line.len() > 1 {
                    return Ok(Some(line));
                }
                continue;
            }
            if self.buffer.len() > LINE_LEN_MAX {
                return Err(garbled(format!("a line over {LINE_LEN_MAX} bytes")));
            }
            match next_data(&mut self.body).await? {
                Some(data) => self.buffer.extend_from_slice(&data),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(broken("the stream ended inside a line")),
            }
        }
    }
}

/// Reads the lines of a long work to its end.
async fn work<T: DeserializeOwned>(
    body: Incoming,
    mut each: impl FnMut(&Progress),
) -> Result<T, ClientError> {
    let mut lines = Lines { body, buffer: BytesMut::new() };
    while let Some(line) = lines.next().await? {
        match serde_json::from_slice(&line).map_err(garbled)? {
            Line::Progress(progress) => each(&progress),
            Line::Done(done) => return Ok(done),
            Line::Failed(failure) => return Err(failure.into()),
        }
    }
    Err(broken("the work was broken off"))
}

async fn next_data(body: &mut Incoming) -> Result<Option<Bytes>, ClientError> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(broken)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// The answer if the node agreed, else its refusal.
async fn accepted(response: Response<Incoming>) -> Result<Response<Incoming>, ClientError> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
    Err(refusal(status, &body))
}

fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<FailureDocument>(body) {
        Ok(document) => ClientError::Refused(document.error),
        Err(_) => garbled(format!("http status {status}")),
    }
}

async fn read<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, ClientError> {
    let body = accepted(response).await?.into_body().collect().await.map_err(broken)?.to_bytes();
    serde_json::from_slice(&body).map_err(garbled)
}

async fn within<T>(
    limit: Option<Duration>,
    answer: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    match limit {
        None => answer.await,
        Some(limit) => {
            tokio::time::timeout(limit, answer).await.map_err(|_| ClientError::Silent(limit))?
        }
    }
}

fn to_body(body: &impl Serialize) -> Result<Bytes, ClientError> {
    serde_json::to_vec(body).map(Bytes::from).map_err(garbled)
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
    ClientError::Broken(error.into())
}

fn garbled(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
    ClientError::Garbled(error.into())
}

fn record_path(record: &str) -> String {
    format!("/records/{}", encode(record))
}

fn blob_path(blob: &str) -> String {
    format!("/blobs/{}", encode(blob))
}

/// `?a=b&c=d` of those that are given, or nothing.
fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let given: Vec<_> = pairs
        .iter()
        .filter_map(|(name, value)| value.map(|value| format!("{name}={}", encode(value))))
        .collect();
    if given.is_empty() { String::new() } else { format!("?{}", given.join("&")) }
}

/// Percent-encodes all but the unreserved characters (RFC 3986, 2.3).
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            // A dot too: a record may be called `..`, and a path must not be.
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_fits_one_segment_of_a_path() {
        assert_eq!(encode("R-100"), "R-100");
        assert_eq!(encode("../a b?é"), "%2E%2E%2Fa%20b%3F%C3%A9");
        assert_eq!(query(&[("form", None), ("after", Some("a&b"))]), "?after=a%26b");
        assert_eq!(query(&[("form", None)]), "");
    }

    #[tokio::test]
    async fn a_socket_that_is_not_there_means_that_no_node_runs() {
        let client = Client::new("/nonexistent/node.sock");
        assert!(matches!(client.status().await, Err(ClientError::NoNode { .. })));
        assert!(!client.is_there().await);
    }
}
