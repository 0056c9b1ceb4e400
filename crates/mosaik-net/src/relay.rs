//! Relays: which ones there are, and what becomes of one that can't be used.
//!
//! iroh keeps the nearest of them as home: the one at which this node can be reached, and which others
//! are told. That its home is gone it knows at once, or where the home is only silent when a ping isn't
//! answered (20 s). But it looks for another no sooner than with its next look at the network, and every
//! other of these asks no relay: up to 52 s. So here one that can't be used is taken from the list for
//! a while, which makes iroh look at once.
//!
//! Invariants:
//! - A relay that is in use is left alone, and so are direct paths.
//! - The list is never empty: what is left of it is tried on and on.

use std::{path::Path, sync::Arc, time::Duration};

use futures_lite::StreamExt;
use iroh::{
    Endpoint, RelayConfig, RelayMap, RelayMode, RelayUrl, Watcher, endpoint::RelayStatus,
    tls::CaTlsConfig,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::info;

use crate::endpoint::BindError;

/// How long the home may be unconnected before another is looked for: a relay that is started anew
/// is back within this, and a connection over it lives on.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a relay that couldn't be used is left alone. Its return costs a look at all relays, and
/// where it is the nearest and refuses this node, a change of home and back.
const REST: Duration = Duration::from_secs(10 * 60);
/// At how many relays of its own list a node looks for a peer that is told to be at one of them.
const SHARED_MAX: usize = 4;

/// Relays to be reached through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelaySetting {
    /// Those that iroh's makers run for all.
    Default,
    /// None: only who can be reached directly is.
    None,
    /// These URLs.
    Custom(Vec<String>),
}

impl RelaySetting {
    /// The same for iroh.
    pub(crate) fn mode(&self) -> Result<RelayMode, BindError> {
        Ok(match self {
            Self::Default => RelayMode::Default,
            Self::None => RelayMode::Disabled,
            Self::Custom(urls) => RelayMode::Custom(
                urls.iter().map(|url| relay_config(url)).collect::<Result<RelayMap, _>>()?,
            ),
        })
    }

    /// Where else a peer may be that is told to be at `relays`: who uses a relay of a list that somebody
    /// wrote was told the same list, and may have moved within it.
    pub(crate) fn shared(&self, relays: &[String]) -> Vec<RelayUrl> {
        let Self::Custom(own) = self else { return Vec::new() };
        let own: Vec<RelayUrl> = own.iter().filter_map(|url| url.parse().ok()).collect();
        let mut told = relays.iter().filter_map(|url| url.parse::<RelayUrl>().ok());
        if !told.any(|url| own.contains(&url)) {
            return Vec::new();
        }
        own.into_iter().take(SHARED_MAX).collect()
    }
}

/// A relay without TLS has no QUIC beside it, and is not asked for this node's address over it.
fn relay_config(url: &str) -> Result<RelayConfig, BindError> {
    let parsed: RelayUrl = url.parse().map_err(|_| BindError::Relay(url.to_owned()))?;
    Ok(match parsed.scheme() {
        "http" => RelayConfig::new(parsed, None),
        "https" => RelayConfig::from(parsed),
        _ => return Err(BindError::Relay(url.to_owned())),
    })
}

/// Whose certificates relays may show: the well-known authorities', and those of the file.
pub(crate) fn authorities(file: Option<&Path>) -> Result<CaTlsConfig, BindError> {
    let Some(path) = file else { return Ok(CaTlsConfig::default()) };
    let unusable = |reason: String| BindError::Authority { path: path.to_owned(), reason };
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(error.to_string()))?;
    if found.is_empty() {
        return Err(unusable("no certificate is in it".to_owned()));
    }
    Ok(CaTlsConfig::default().with_extra_roots(found))
}

/// What goes wrong with relays, in sentences for people.
pub(crate) type Complaints = watch::Sender<Vec<String>>;

/// Watches the home, and takes it from the list while it can't be used.
pub(crate) struct Homes {
    pub(crate) endpoint: Endpoint,
    /// The relays that iroh chooses from: shared with it, and changed through it.
    pub(crate) list: RelayMap,
    pub(crate) complaints: Complaints,
    /// Whether nothing is looked for now.
    pub(crate) paused: watch::Receiver<bool>,
}

/// A relay that is left alone.
struct Resting {
    config: Arc<RelayConfig>,
    until: Instant,
    complaint: String,
}

impl Homes {
    /// Returns with the endpoint.
    pub(crate) async fn watch(mut self) {
        while self.watch_until_paused().await && self.let_go_until_resumed().await {}
    }

    /// Takes all relays from the list, so that iroh measures none, and puts them back at the end of the
    /// pause. It stays at its home meanwhile. `false`: the endpoint is gone.
    async fn let_go_until_resumed(&mut self) -> bool {
        let all: Vec<Arc<RelayConfig>> = self.list.relays();
        for relay in &all {
            self.endpoint.remove_relay(&relay.url).await;
        }
        let is_over = self.paused.wait_for(|on| !on).await.is_ok();
        for relay in all {
            self.endpoint.insert_relay(relay.url.clone(), relay).await;
        }
        is_over
    }

    /// `false`: the endpoint is gone.
    async fn watch_until_paused(&self) -> bool {
        let mut paused = self.paused.clone();
        let mut homes = self.endpoint.home_relay_status().stream();
        let mut home: Option<RelayStatus> = None;
        let mut why = None;
        let mut resting: Vec<Resting> = Vec::new();
        let mut lost_at = Some(Instant::now() + PATIENCE);
        loop {
            let due = resting.iter().map(|relay| relay.until).chain(lost_at).min();
            tokio::select! {
                now = homes.next() => {
                    let Some(now) = now.map(|homes| homes.into_iter().next()) else { return false };
                    if now.as_ref().is_some_and(RelayStatus::is_connected) {
                        (lost_at, why) = (None, None);
                        self.tell(&resting, None);
                    } else if !is_same(home.as_ref(), now.as_ref()) {
                        (lost_at, why) = (Some(Instant::now() + PATIENCE), None);
                    }
                    // While it is dialed again there is no error to be had.
                    why = now.as_ref().and_then(complaint).or(why);
                    home = now;
                }
                is_paused = async { paused.wait_for(|on| *on).await.is_ok() } => {
                    for relay in resting {
                        self.endpoint.insert_relay(relay.config.url.clone(), relay.config).await;
                    }
                    self.complaints.send_replace(Vec::new());
                    return is_paused;
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let now = Instant::now();
                    for relay in resting.extract_if(.., |relay| relay.until <= now) {
                        self.endpoint.insert_relay(relay.config.url.clone(), relay.config).await;
                    }
                    if lost_at.is_some_and(|at| at <= now) {
                        let complaint = why.clone().unwrap_or_else(|| silent(home.as_ref()));
                        let next = self.look_elsewhere(home.as_ref(), complaint, &mut resting).await;
                        lost_at = next.then(|| now + PATIENCE);
                    }
                }
            }
        }
    }

    /// Lets the home rest. Returns false if there is no other: then those that rest come back, for they
    /// are no worse.
    async fn look_elsewhere(
        &self,
        home: Option<&RelayStatus>,
        complaint: String,
        resting: &mut Vec<Resting>,
    ) -> bool {
        info!(complaint, "looking for another relay");
        let url = home.map(RelayStatus::url).filter(|url| self.list.contains(url));
        if let Some(url) = url.filter(|_| self.list.len() > 1)
            && let Some(config) = self.endpoint.remove_relay(url).await
        {
            resting.push(Resting { config, until: Instant::now() + REST, complaint });
            self.tell(resting, None);
            return true;
        }
        for relay in resting.drain(..) {
            self.endpoint.insert_relay(relay.config.url.clone(), relay.config).await;
        }
        self.tell(resting, Some(complaint));
        false
    }

    fn tell(&self, resting: &[Resting], more: Option<String>) {
        let minutes = REST.as_secs() / 60;
        let all = resting.iter().map(|Resting { complaint, .. }| {
            format!("{complaint}; it is left alone for {minutes} min")
        });
        let all: Vec<String> = all.chain(more).collect();
        self.complaints.send_if_modified(|told| {
            let changed = *told != all;
            *told = all;
            changed
        });
    }
}

/// Whether this is still the same home, and it wasn't connected before either.
fn is_same(before: Option<&RelayStatus>, now: Option<&RelayStatus>) -> bool {
    before.map(RelayStatus::url) == now.map(RelayStatus::url)
        && !before.is_some_and(RelayStatus::is_connected)
}

/// Why a home can't be used, where that is known.
fn complaint(home: &RelayStatus) -> Option<String> {
    let url = home.url();
    if let Some(reason) = home.auth_denied_reason() {
        let reason: String = reason.chars().filter(|c| !c.is_control()).take(200).collect();
        return Some(format!("the relay {url} refuses this node: {reason}"));
    }
    home.last_error().map(|error| format!("the relay {url} can't be used: {error:#}"))
}

fn silent(home: Option<&RelayStatus>) -> String {
    match home {
        Some(home) => format!("the relay {} does not answer", home.url()),
        None => "no relay answers, or none shows a certificate that is trusted here".to_owned(),
    }
}
