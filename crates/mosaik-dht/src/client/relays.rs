//! Pkarr relays: servers that keep the slots' values, or ask the DHT for them, over HTTP. For hosts from
//! which UDP doesn't get out.
//!
//! Invariants:
//! - What a relay gives is a claim: nothing goes on that the slot's key did not sign.
//! - A body is read up to the longest value, a request ends at [`REQUEST_MAX`], and no relay has more
//!   than [`REQUESTS_MAX`] of them at a time.
//! - Relays are asked beside each other: one that doesn't answer holds up nobody, and is not waited for
//!   until it has answered again.
//!
//! Source: pkarr's design/relays.md.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use reqwest::{Client, Response, StatusCode, Url, header, redirect};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tracing::{debug, warn};

use crate::{
    chain::Input,
    slot::{SlotKeys, SlotValue, VALUE_LEN_MAX},
};

/// The longest that one request may take, with its wait for a place.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// Requests at a time to one relay.
const REQUESTS_MAX: usize = 4;
/// How long relays are waited for once somebody else has answered: a read's end is needed for writing.
const GRACE: Duration = Duration::from_secs(1);
/// Signature and seq before the value.
const HEAD_LEN: usize = 72;
/// The longest answer that holds a value.
const BODY_LEN_MAX: usize = HEAD_LEN + VALUE_LEN_MAX;

/// What a relay did with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Taken,
    /// For another value that is there.
    Refused,
}

/// All relays. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Relays {
    client: Client,
    relays: Arc<[Relay]>,
}

#[derive(Debug)]
struct Relay {
    url: Url,
    places: Arc<Semaphore>,
    /// Whether its last request was answered.
    answers: AtomicBool,
}

impl Relays {
    /// Relays at these URLs; none without any. Where no certificates are installed, those of `https`
    /// can't be asked.
    pub(super) fn new(urls: &[String]) -> Option<Self> {
        let url = |text: &String| {
            let mut url = Url::parse(text).ok().filter(|url| !url.cannot_be_a_base())?;
            // A key is appended to the path.
            if !url.path().ends_with('/') {
                url.set_path(&format!("{}/", url.path()));
            }
            Some(url)
        };
        let relay = |url| Relay {
            url,
            places: Arc::new(Semaphore::new(REQUESTS_MAX)),
            answers: AtomicBool::new(true),
        };
        let relays: Arc<[Relay]> = urls.iter().filter_map(url).map(relay).collect();
        if relays.is_empty() {
            return None;
        }
        let client = client().inspect_err(|error| warn!(%error, "pkarr relays can't be used"));
        Some(Self { client: client.ok()?, relays })
    }

    /// Asks all for the value of a slot. What they have goes to `answers` when it comes.
    pub(super) fn get(
        &self,
        keys: &SlotKeys,
        slot: u8,
        answers: &mpsc::Sender<Input>,
    ) -> Asked<()> {
        let (name, key) = (keys.z_base_32(slot), keys.public_key(slot));
        let answers = answers.clone();
        self.ask(move |client, url| {
            let (name, answers) = (name.clone(), answers.clone());
            async move {
                let response = client.get(url.join(&name)?).send().await?;
                match response.status() {
                    StatusCode::NOT_FOUND => Ok(()),
                    StatusCode::OK => {
                        let value = value(response, &key).await?;
                        answers.send(Input::Value { slot, value }).await?;
                        Ok(())
                    }
                    status => Err(format!("status {status}").into()),
                }
            }
        })
    }

    /// Puts a slot's value to all.
    pub(super) fn put(
        &self,
        keys: &SlotKeys,
        slot: u8,
        value: &SlotValue,
        cas: Option<i64>,
    ) -> Asked<Put> {
        let (name, body) = (keys.z_base_32(slot), body(value));
        self.ask(move |client, url| {
            let (name, body) = (name.clone(), body.clone());
            async move {
                let mut request = client.put(url.join(&name)?).body(body);
                // Their seq is unsigned: one below zero can't be named.
                if let Some(cas) = cas.filter(|cas| *cas >= 0) {
                    request = request.header(header::IF_MATCH, cas);
                }
                match request.send().await?.status() {
                    status if status.is_success() => Ok(Put::Taken),
                    StatusCode::CONFLICT
                    | StatusCode::PRECONDITION_FAILED
                    | StatusCode::PRECONDITION_REQUIRED => Ok(Put::Refused),
                    status => Err(format!("status {status}").into()),
                }
            }
        })
    }

    fn ask<T, F, R>(&self, request: F) -> Asked<T>
    where
        T: Send + 'static,
        F: Fn(Client, Url) -> R + Send + Sync + 'static,
        R: Future<Output = Result<T, BoxError>> + Send + 'static,
    {
        let request = Arc::new(request);
        let mut asked = Asked { tasks: JoinSet::new(), trusted: 0 };
        for at in 0..self.relays.len() {
            let (relays, client) = (self.relays.clone(), self.client.clone());
            let request = request.clone();
            let is_trusted = relays[at].answers.load(Relaxed);
            asked.trusted += usize::from(is_trusted);
            asked.tasks.spawn(async move {
                let relay = &relays[at];
                let answer = timeout(REQUEST_MAX, async {
                    let _place = relay.places.acquire().await?;
                    request(client, relay.url.clone()).await
                });
                let answer = answer.await.unwrap_or_else(|_| Err("no answer in time".into()));
                relay.answers.store(answer.is_ok(), Relaxed);
                if let Err(error) = &answer {
                    debug!(relay = %relay.url, %error, "a pkarr relay gave no answer");
                }
                (is_trusted, answer.ok())
            });
        }
        asked
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Relays that were asked, and have not all answered.
#[derive(Debug)]
pub(super) struct Asked<T> {
    tasks: JoinSet<(bool, Option<T>)>,
    /// Those still out that answered their last request.
    trusted: usize,
}

impl<T: Send + 'static> Asked<T> {
    /// Nobody was asked.
    pub(super) fn nobody() -> Self {
        Self { tasks: JoinSet::new(), trusted: 0 }
    }

    /// What `dht` comes to, and what relays answer until then and a little longer. With it `dht` says
    /// whether anybody answered: if so, or if a relay did, the slower ones are given [`GRACE`].
    pub(super) async fn beside<D>(mut self, dht: impl Future<Output = (D, bool)>) -> (D, Vec<T>) {
        let mut dht = std::pin::pin!(dht);
        let mut given = Vec::new();
        let (over, is_answered) = loop {
            tokio::select! {
                over = &mut dht => break over,
                Some(answer) = self.next(None) => given.push(answer),
            }
        };
        let mut since = (is_answered || !given.is_empty()).then(Instant::now);
        while let Some(answer) = self.next(since).await {
            given.push(answer);
            since.get_or_insert_with(Instant::now);
        }
        // Those that are still out come to their own end, so that it is known who doesn't answer.
        self.tasks.detach_all();
        (over, given)
    }

    /// The next answer, as long as one is worth waiting for: with `others`, somebody else has answered
    /// already, then.
    async fn next(&mut self, others: Option<Instant>) -> Option<T> {
        loop {
            let next = match others {
                None => self.tasks.join_next().await,
                // What is here already is taken all the same.
                Some(_) if self.trusted == 0 => self.tasks.try_join_next(),
                Some(since) => timeout_at(since + GRACE, self.tasks.join_next()).await.ok()?,
            };
            let (was_trusted, answer) = next?.ok()?;
            self.trusted -= usize::from(was_trusted);
            if answer.is_some() {
                return answer;
            }
        }
    }
}

/// A client that knows this machine's certificates and follows nobody elsewhere.
fn client() -> io::Result<Client> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let tls = match builder.clone().with_platform_verifier() {
        Ok(tls) => tls.with_no_client_auth(),
        Err(error) => {
            warn!(%error, "no certificates are installed, so pkarr relays can be asked by http only");
            builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        }
    };
    Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        .build()
        .map_err(io::Error::other)
}

/// What a relay answered, if the key signed it.
async fn value(mut response: Response, key: &[u8; 32]) -> Result<SlotValue, BoxError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > BODY_LEN_MAX {
            return Err(format!("more than {BODY_LEN_MAX} bytes").into());
        }
        body.extend_from_slice(&chunk);
    }
    let value = parse(&body).ok_or("no signature, seq and value")?;
    if !value.is_signed_by(key) {
        return Err("what it gave isn't signed by the slot's key".into());
    }
    Ok(value)
}

/// Signature, seq as a big-endian number, value: as FORMAT.md has it.
fn body(value: &SlotValue) -> Vec<u8> {
    [&value.signature[..], &value.seq.to_be_bytes(), &value.value].concat()
}

fn parse(body: &[u8]) -> Option<SlotValue> {
    let (signature, rest) = body.split_first_chunk()?;
    let (seq, value) = rest.split_first_chunk()?;
    let seq = i64::try_from(u64::from_be_bytes(*seq)).ok()?;
    Some(SlotValue { seq, signature: *signature, value: value.to_vec() })
}
