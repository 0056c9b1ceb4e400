//! The reads.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderName, header::CONTENT_TYPE},
    response::IntoResponse,
};
use mosaik_api::{
    SCHEMA,
    document::{
        Bridge, BridgeFile, BridgeHeldBack, Conflicts, Doctor, Events, Feeds, Frontier, Identity,
        NetworkName, PeerState, Peers, Record, Records, Slots, Status, Traffic, View,
    },
    failure::Code,
};
use mosaik_core::id::{AuthorId, ParseIdError};

use crate::{
    attachments::OnRadio,
    doctor::{self, Disk, Facts, Reached, disk_free},
    handle::{Handle, Snapshot},
};

use super::{
    About, App,
    answer::{Answer, Refused, answer, read, read_little},
    bridge, files,
};

pub(super) type Pairs = Result<Query<BTreeMap<String, String>>, QueryRejection>;

/// The program and its version, as documents name it.
const SOFTWARE: &str = concat!("mosaik-node/", env!("CARGO_PKG_VERSION"));

/// What says that a text is for Prometheus.
const PROMETHEUS: (HeaderName, &str) = (CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");

fn network(about: &About) -> NetworkName {
    NetworkName { fingerprint: about.fingerprint.to_string(), kind: about.kind.as_str().to_owned() }
}

pub(super) async fn status(State(app): State<App>) -> Answer<Status> {
    let numbers = read(&app.reads, |snapshot| snapshot.numbers()).await?;
    let shown = app.handle.snapshot();
    let connected = shown.peers.iter().filter(|peer| peer.state == PeerState::Connected);
    let failing = failing(&shown);
    Ok(Json(Status {
        schema: SCHEMA,
        node: app.about.node.to_string(),
        name: app.about.name.clone(),
        author: shown.author.to_string(),
        network: network(&app.about),
        data_dir: app.about.data_dir.clone(),
        socket: app.about.socket.clone(),
        pid: std::process::id(),
        software: SOFTWARE.to_owned(),
        state: shown.state,
        peers: connected.count() as u64,
        doing: shown.doing,
        authors: numbers.authors,
        events: numbers.held.events,
        branches: numbers.branches,
        conflicts: numbers.view.conflicts,
        held_back: numbers.held.held_back,
        missing: numbers.held.missing,
        // Some may have come since the peers were asked.
        unavailable: shown.unavailable.min(numbers.held.missing),
        declined: shown.declined,
        crowded: shown.crowded.len() as u64,
        violations: shown.violations,
        view_digest: data_encoding::HEXLOWER.encode(&numbers.digest),
        paused: shown.paused,
        traffic: traffic(&app.handle),
        failing,
        degraded: shown.degraded,
        notices: shown.notices,
    }))
}

fn traffic(handle: &Handle) -> Vec<Traffic> {
    let purposes = handle.meters().purposes().into_iter();
    let shown = purposes.map(|(purpose, bytes)| Traffic {
        purpose: purpose.to_owned(),
        sent: bytes.sent,
        received: bytes.received,
    });
    shown.collect()
}

/// What keeps a node from its work.
fn failing(shown: &Snapshot) -> Vec<String> {
    let is_alone = !shown.peers.iter().any(|peer| peer.state == PeerState::Connected);
    let why = match shown.paused {
        true => "the node is paused: `resume` lets it go on",
        false => "no peer is connected: `doctor` says what may be the cause",
    };
    let alone = is_alone.then(|| why.to_owned());
    let dead = shown.dead_carriers.iter().cloned();
    shown.degraded.iter().cloned().chain(alone).chain(dead).collect()
}

/// What works and what doesn't, as far as it was seen.
pub(super) async fn doctor(State(app): State<App>) -> Answer<Doctor> {
    let surroundings = app.handle.surroundings().await?;
    let shown = app.handle.snapshot();
    let mut reached = Reached::default();
    for peer in &shown.peers {
        match peer.path.as_deref() {
            Some("lan") => reached.lan += 1,
            Some("direct") => reached.direct += 1,
            Some("relay") => reached.relay += 1,
            _ => {}
        }
    }
    let facts = Facts {
        paused: shown.paused,
        means: app.about.means,
        outlook: surroundings.outlook,
        slots: surroundings.slots,
        reached,
        clock_offset_ms: surroundings.clock_offset_ms,
        clock_unset: surroundings.clock_unset,
        disk: Disk {
            free: disk_free(std::path::Path::new(&app.about.data_dir)),
            refuses: shown.degraded,
        },
    };
    Ok(Json(Doctor { schema: SCHEMA, checks: doctor::examine(&facts) }))
}

pub(super) async fn identity(State(app): State<App>) -> Json<Identity> {
    let shown = app.handle.snapshot();
    Json(Identity {
        schema: SCHEMA,
        node: app.about.node.to_string(),
        name: app.about.name.clone(),
        author: shown.author.to_string(),
        network: network(&app.about),
        addresses: shown.ticket.addresses.iter().map(ToString::to_string).collect(),
        relays: shown.ticket.relays.clone(),
        ticket: shown.ticket.to_string(),
    })
}

pub(super) async fn peers(State(app): State<App>) -> Answer<Peers> {
    Ok(Json(Peers { schema: SCHEMA, peers: app.handle.peers().await? }))
}

/// What goes over radio.
pub(super) async fn bridge(State(app): State<App>) -> Answer<Bridge> {
    let OnRadio { asked, held_back } = app.attachments.on_radio().await?;
    let files = asked.into_iter().map(|file| BridgeFile {
        blob: file.blob.to_string(),
        size: file.size,
        here: file.here,
        coming: file.is_coming,
    });
    let held_back = BridgeHeldBack { files: held_back.count, bytes: held_back.bytes };
    let mut bridge = Bridge { files: files.collect(), held_back, ..app.handle.bridge() };
    answer(&app.reads, move |snapshot| {
        for peer in &mut bridge.peers {
            (peer.author, peer.name) = snapshot.author_of_radio(&peer.identity)?.unzip();
        }
        Ok(bridge)
    })
    .await
}

pub(super) async fn slots(State(app): State<App>) -> Json<Slots> {
    Json(Slots { schema: SCHEMA, slots: app.handle.snapshot().slots })
}

pub(super) async fn frontier(State(app): State<App>) -> Answer<Frontier> {
    answer(&app.reads, |snapshot| snapshot.frontier()).await
}

pub(super) async fn feeds(State(app): State<App>) -> Answer<Feeds> {
    let shown = app.handle.snapshot();
    answer(&app.reads, move |snapshot| snapshot.feeds(&shown.author, &shown.crowded)).await
}

pub(super) async fn conflicts(State(app): State<App>) -> Answer<Conflicts> {
    answer(&app.reads, |snapshot| snapshot.conflicts()).await
}

pub(super) async fn view(State(app): State<App>) -> Answer<View> {
    let crowded = app.handle.snapshot().crowded.len() as u64;
    answer(&app.reads, move |snapshot| snapshot.view_document(crowded)).await
}

pub(super) async fn metrics(State(app): State<App>) -> impl IntoResponse {
    ([PROMETHEUS], app.handle.meters().text() + &bridge::text(&app.handle.bridge()))
}

pub(super) async fn records(State(app): State<App>, pairs: Pairs) -> Answer<Records> {
    let mut query = Asked::of(pairs, &["form", "after", "archived"])?;
    let (form, after) = (query.take("form"), query.take("after"));
    let archived = query.switch("archived")?;
    answer(&app.reads, move |s| s.records(form.as_deref(), after.as_deref(), archived)).await
}

pub(super) async fn record(
    State(app): State<App>,
    record: Result<Path<String>, PathRejection>,
) -> Answer<Record> {
    let record = segment(record)?;
    let wanted = record.clone();
    let found = read_little(&app.reads, move |snapshot| snapshot.record(&wanted)).await?;
    let mut found = found.ok_or_else(|| Refused::no_record(&record))?;
    if !found.attachments.is_empty() {
        files::describe(&app, &mut found).await?;
    }
    Ok(Json(found))
}

pub(super) async fn events(State(app): State<App>, pairs: Pairs) -> Answer<Events> {
    let mut query = Asked::of(pairs, &["since", "limit"])?;
    let (since, limit) = (query.number("since")?.unwrap_or(0), query.number("limit")?);
    answer(&app.reads, move |snapshot| snapshot.events(since, limit)).await
}

/// The place of a feed that a path names.
pub(super) type PlacePath = Result<Path<(String, String)>, PathRejection>;

pub(super) async fn event(State(app): State<App>, place: PlacePath) -> Answer<Events> {
    events_at(&app, place_of(place)?).await.map(Json)
}

pub(super) fn place_of(place: PlacePath) -> Result<(AuthorId, u64), Refused> {
    let Ok(Path((author, seq))) = place else {
        return Err(Refused::new(Code::Invalid, "the path is not UTF-8"));
    };
    let author = author.parse().map_err(|error: ParseIdError| {
        Refused::new(Code::Invalid, format!("a feed is named by its author: {error}"))
    })?;
    let wrong = |_| Refused::new(Code::Invalid, format!("a seq is a number, not {seq:?}"));
    Ok((author, seq.parse().map_err(wrong)?))
}

/// The events at a place; an error if there are none.
pub(super) async fn events_at(app: &App, place: (AuthorId, u64)) -> Result<Events, Refused> {
    let (author, seq) = place;
    let found = read(&app.reads, move |snapshot| snapshot.events_at(&author, seq)).await?;
    if found.events.is_empty() {
        let sentence = format!("there is no event {seq} of {} here", author.short());
        return Err(Refused::new(Code::NotFound, sentence));
    }
    Ok(found)
}

/// A segment of a path, decoded.
pub(super) fn segment(path: Result<Path<String>, PathRejection>) -> Result<String, Refused> {
    match path {
        Ok(Path(text)) => Ok(text),
        Err(_) => Err(Refused::new(Code::Invalid, "the path is not UTF-8")),
    }
}

/// The pairs of a query, each of them known.
pub(super) struct Asked(BTreeMap<String, String>);

impl Asked {
    pub(super) fn of(pairs: Pairs, known: &[&str]) -> Result<Self, Refused> {
        let Ok(Query(pairs)) = pairs else {
            return Err(Refused::new(Code::Invalid, "the query can't be read"));
        };
        match pairs.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => {
                let known = known.join(", ");
                let sentence = format!("{name:?} is not asked for here; this path takes {known}");
                Err(Refused::new(Code::Invalid, sentence))
            }
            None => Ok(Self(pairs)),
        }
    }

    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    pub(super) fn number(&mut self, name: &str) -> Result<Option<u64>, Refused> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let wrong = |_| Refused::new(Code::Invalid, format!("{name} takes a number, not {text:?}"));
        text.parse().map(Some).map_err(wrong)
    }

    pub(super) fn switch(&mut self, name: &str) -> Result<bool, Refused> {
        match self.take(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Refused::new(Code::Invalid, format!("{name} takes true or false"))),
        }
    }
}
