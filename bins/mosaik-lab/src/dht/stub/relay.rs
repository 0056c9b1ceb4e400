//! A pkarr relay on 127.0.0.1 that keeps what it is given and asks no DHT; or one that lies.
//!
//! Source: pkarr's design/relays.md.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use anyhow::{Context, Result};
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing,
};
use ed25519_dalek::SigningKey;
use iroh::PublicKey;
use mainline::MutableItem;
use tokio::{net::TcpListener, task::JoinHandle};

use super::{
    EqualSeq, Item, Outcome,
    storage::{Request, Storage, target},
};

/// Signature, seq and a value of the longest kind.
const BODY_LEN_MAX: usize = 64 + 8 + 1000;

/// How a relay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RelayBehaviour {
    /// It does what the description says.
    Honest,
    /// It gives a good value that another key signed, far in the future. Puts are praised and forgotten;
    /// so do those below.
    OtherKey,
    /// It gives a megabyte.
    Oversize,
    /// It gives a page for people.
    Garbage,
    /// It says that something is wrong with it.
    Failing,
    /// It takes connections and never answers.
    Silent,
}

impl RelayBehaviour {
    /// All that a node must not be harmed by.
    pub const BAD: [Self; 5] =
        [Self::OtherKey, Self::Oversize, Self::Garbage, Self::Failing, Self::Silent];
}

#[derive(Debug)]
struct Shared {
    behaviour: RelayBehaviour,
    storage: Mutex<Storage>,
    requests: AtomicU64,
}

/// The relay; it stops when it is dropped.
#[derive(Debug)]
pub struct StubRelay {
    url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl StubRelay {
    /// Starts it on a free port.
    ///
    /// # Errors
    ///
    /// If a socket can't be had.
    pub async fn start(behaviour: RelayBehaviour) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("cannot start a pkarr relay")?;
        let url = format!("http://{}/", listener.local_addr()?);
        let storage = Mutex::new(Storage::new(EqualSeq::Refused, None));
        let shared = Arc::new(Shared { behaviour, storage, requests: AtomicU64::new(0) });
        let router = Router::new()
            .route("/{key}", routing::get(get).put(put))
            .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
            .with_state(shared.clone());
        let task = tokio::spawn(async move {
            // It ends with the task.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { url, shared, task })
    }

    /// What `--pkarr-relay` takes.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How many requests came in.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Relaxed)
    }

    /// What it holds under a key.
    pub fn stored(&self, key: &[u8; 32]) -> Option<Item> {
        let storage = self.shared.storage.lock().unwrap_or_else(PoisonError::into_inner);
        storage.get(&target(key, None), Instant::now()).map(|kept| kept.item.clone())
    }
}

impl Drop for StubRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn get(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    shared.requests.fetch_add(1, Relaxed);
    match shared.behaviour {
        RelayBehaviour::Honest => {}
        RelayBehaviour::OtherKey => {
            let other = MutableItem::new(SigningKey::from_bytes(&[7; 32]), b"x", i64::MAX, None);
            let (seq, signature) = (other.seq(), *other.signature());
            return body(&Item { seq, signature, value: b"x".to_vec() }).into_response();
        }
        RelayBehaviour::Oversize => return vec![0u8; 1 << 20].into_response(),
        RelayBehaviour::Garbage => return "<html>please sign in</html>".into_response(),
        RelayBehaviour::Failing => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        RelayBehaviour::Silent => std::future::pending().await,
    }
    let Ok(key) = PublicKey::from_z32(&name) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let storage = shared.storage.lock().unwrap_or_else(PoisonError::into_inner);
    match storage.get(&target(key.as_bytes(), None), Instant::now()) {
        Some(kept) => body(&kept.item).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn put(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    shared.requests.fetch_add(1, Relaxed);
    match shared.behaviour {
        RelayBehaviour::Honest => {}
        RelayBehaviour::Silent => std::future::pending().await,
        RelayBehaviour::Failing => return StatusCode::INTERNAL_SERVER_ERROR,
        _ => return StatusCode::NO_CONTENT,
    }
    let (Ok(key), Some(item)) = (PublicKey::from_z32(&name), item(&body)) else {
        return StatusCode::BAD_REQUEST;
    };
    let cas = headers.get(header::IF_MATCH).map(|value| value.to_str().ok()?.parse().ok());
    if cas == Some(None) {
        return StatusCode::BAD_REQUEST;
    }
    let request = Request { key: *key.as_bytes(), salt: None, item, cas: cas.flatten() };
    let mut storage = shared.storage.lock().unwrap_or_else(PoisonError::into_inner);
    match storage.put(&request, Instant::now()) {
        Outcome::Stored | Outcome::Ignored => StatusCode::NO_CONTENT,
        Outcome::Refused(205) => StatusCode::PAYLOAD_TOO_LARGE,
        Outcome::Refused(206) => StatusCode::BAD_REQUEST,
        Outcome::Refused(301) => StatusCode::PRECONDITION_FAILED,
        Outcome::Refused(302) => StatusCode::CONFLICT,
        Outcome::Refused(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn body(item: &Item) -> Vec<u8> {
    [&item.signature[..], &item.seq.to_be_bytes(), &item.value].concat()
}

fn item(body: &[u8]) -> Option<Item> {
    let (signature, rest) = body.split_first_chunk()?;
    let (seq, value) = rest.split_first_chunk()?;
    let seq = i64::try_from(u64::from_be_bytes(*seq)).ok()?;
    Some(Item { seq, signature: *signature, value: value.to_vec() })
}
