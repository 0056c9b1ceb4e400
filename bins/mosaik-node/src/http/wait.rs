//! Waiting: answered when a condition holds, or when the time is over.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
};
use mosaik_api::{
    SCHEMA,
    document::{Events, PayloadState, PeerState, Pinged, Probe, Waited},
    failure::Code,
    json::to_json,
    request::{Condition, Wait},
};
use mosaik_core::value::Value;

use super::{
    App,
    answer::{Answer, Refused, read, request},
    look::{PlacePath, events_at, place_of},
    write::values,
    write::{Segment, another},
};
use crate::{
    handle::{Snapshot, WriteError},
    reads::ReadError,
};

pub(super) async fn wait(
    State(app): State<App>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<Waited> {
    let Wait { until, timeout_ms } = request(body)?;
    let mut stopping = app.stopping.clone();
    // Now at the latest the record's fields must be values.
    let until = Until::of(until)?;
    let timeout = async {
        match timeout_ms {
            Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            None => std::future::pending().await,
        }
    };
    let stopped = async move {
        // An error says that whoever would tell is gone: the same.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    tokio::select! {
        // What holds at once holds with a timeout of 0 as well.
        biased;
        state = until.holds(&app) => Ok(Json(Waited { schema: SCHEMA, state: state? })),
        () = stopped => Err(WriteError::Stopping.into()),
        () = timeout => Err(Refused::new(Code::Timeout, until.lacking(&app).await?)),
    }
}

enum Until {
    Ready,
    Peers(u64),
    Synced,
    Replicas(u64),
    Record { record: String, fields: BTreeMap<String, Value> },
}

impl Until {
    fn of(condition: Condition) -> Result<Self, Refused> {
        Ok(match condition {
            Condition::Ready => Self::Ready,
            Condition::Peers(number) => Self::Peers(number),
            Condition::Synced => Self::Synced,
            Condition::Replicas(number) => Self::Replicas(number),
            Condition::Record { record, fields } => {
                Self::Record { record, fields: values(fields)? }
            }
        })
    }

    /// Returns when it holds, with a sentence about that.
    async fn holds(&self, app: &App) -> Result<String, Refused> {
        match self {
            Self::Ready => Ok(state_sentence(&app.handle.snapshot())),
            Self::Synced => {
                app.handle.synced().await?;
                Ok(format!("in sync; {}", peers_sentence(&app.handle.snapshot())))
            }
            Self::Replicas(number) => {
                let count = usize::try_from(*number).unwrap_or(usize::MAX);
                app.handle.replicated(count).await?;
                Ok(replicas_sentence(&format!("{number}"), *number))
            }
            Self::Peers(number) => {
                let mut snapshots = app.handle.watch();
                match snapshots.wait_for(|shown| connected(shown) >= *number).await {
                    Ok(shown) => Ok(peers_sentence(&shown)),
                    Err(_) => Err(WriteError::Stopping.into()),
                }
            }
            Self::Record { record, fields } => {
                // Events that were held back show without having come just now.
                let (mut snapshots, mut arrivals) = (app.handle.watch(), app.handle.arrivals());
                loop {
                    tokio::select! {
                        changed = snapshots.changed() => if changed.is_err() { break },
                        changed = arrivals.changed() => if changed.is_err() { break },
                    }
                    let (record, fields) = (record.clone(), fields.clone());
                    if read(&app.reads, move |s| s.shows(&record, &fields)).await? {
                        return Ok(self.record_sentence());
                    }
                }
                Err(WriteError::Stopping.into())
            }
        }
    }

    fn record_sentence(&self) -> String {
        match self {
            Self::Record { record, fields } if fields.is_empty() => {
                format!("record {record} is here")
            }
            Self::Record { record, fields } => {
                let shown: Vec<_> = fields
                    .iter()
                    .map(|(name, value)| format!("{name}={}", to_json(value)))
                    .collect();
                format!("record {record} shows {}", shown.join(" "))
            }
            _ => String::new(),
        }
    }

    /// What is still lacking, in one sentence.
    async fn lacking(&self, app: &App) -> Result<String, Refused> {
        let shown = app.handle.snapshot();
        Ok(match self {
            Self::Ready => state_sentence(&shown),
            Self::Peers(number) => {
                format!("{number} wanted, {}; {}", peers_sentence(&shown), state_sentence(&shown))
            }
            Self::Replicas(number) => {
                let held = replicas_sentence(&format!("{} of {number}", shown.replicas), *number);
                format!("{held}; {}", state_sentence(&shown))
            }
            Self::Synced => {
                format!("not in sync: {}; {}", peers_sentence(&shown), state_sentence(&shown))
            }
            Self::Record { record, fields } => {
                let (id, names) = (record.clone(), fields.keys().cloned().collect::<Vec<_>>());
                let found = read(&app.reads, move |snapshot| {
                    let is_here = snapshot.record(&id)?.is_some();
                    let shown = names.into_iter().map(|name| {
                        let value = snapshot.shown(&id, &name)?;
                        let value = value.map_or("nothing".into(), |v| to_json(&v).to_string());
                        Ok::<_, ReadError>(format!("{name}: {value}"))
                    });
                    Ok(is_here.then_some(shown.collect::<Result<Vec<_>, _>>()?))
                });
                match found.await? {
                    None => format!("record {record} is not here; {}", state_sentence(&shown)),
                    Some(fields) => {
                        let fields = fields.join(", ");
                        format!("record {record} shows {fields}; {}", state_sentence(&shown))
                    }
                }
            }
        })
    }
}

/// `2 peers hold all that was written here`.
fn replicas_sentence(count: &str, number: u64) -> String {
    let peers = if number == 1 { "peer holds" } else { "peers hold" };
    format!("{count} {peers} all that was written here")
}

/// How long the peers may take to give a payload.
const FETCH_MAX: Duration = Duration::from_secs(20);

/// Fetches the absent payloads at one place of a feed from peers that have them.
pub(super) async fn fetch(State(app): State<App>, place: PlacePath) -> Answer<Events> {
    let (author, seq) = place_of(place)?;
    let lacks = |events: &Events| {
        events.events.iter().any(|event| event.payload_state == PayloadState::Absent)
    };
    let held = events_at(&app, (author, seq)).await?;
    if !lacks(&held) {
        return Ok(Json(held));
    }
    let answered = tokio::time::timeout(FETCH_MAX, app.handle.fetch(author, seq)).await;
    let held = events_at(&app, (author, seq)).await?;
    if !lacks(&held) {
        return Ok(Json(held));
    }
    let peers = peers_sentence(&app.handle.snapshot());
    match answered {
        Ok(Ok(())) => {
            Err(Refused::new(Code::NotFound, format!("no peer has the payload; {peers}")))
        }
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Refused::new(
            Code::Timeout,
            format!("no peer gave the payload within {} s; {peers}", FETCH_MAX.as_secs()),
        )),
    }
}

/// Asks a peer for an answer.
pub(super) async fn ping(State(app): State<App>, peer: Segment) -> Answer<Pinged> {
    let peer = another(&app, peer)?;
    let answer = app.handle.ping(peer).await?;
    let path = answer.as_ref().ok().and_then(|pong| pong.path.clone());
    Ok(Json(Pinged {
        schema: SCHEMA,
        id: peer.to_string(),
        answered: answer.is_ok(),
        rtt_ms: answer.as_ref().ok().map(|pong| pong.rtt.as_secs_f64() * 1e3),
        path: path.as_ref().map(|path| path.via.as_str().to_owned()),
        address: path.map(|path| path.remote),
        reason: answer.err(),
    }))
}

/// Sends a probe. It is for who asks again to see what comes of it.
pub(super) async fn probe(State(app): State<App>) -> Answer<Probe> {
    match app.handle.probe().await? {
        Ok(begun) => Ok(Json(begun)),
        Err(reason) => Err(Refused::new(Code::Failed, reason)),
    }
}

/// What has come of the last probe.
pub(super) async fn probed(State(app): State<App>) -> Answer<Probe> {
    let none = || Refused::new(Code::NotFound, "this node has sent no probe since its start");
    app.handle.probed().await?.map(Json).ok_or_else(none)
}

fn connected(shown: &Snapshot) -> u64 {
    shown.peers.iter().filter(|peer| peer.state == PeerState::Connected).count() as u64
}

fn state_sentence(shown: &Snapshot) -> String {
    let state = shown.state.as_str().replace('_', " ");
    if shown.doing.starts_with(&state) {
        format!("the node is {}", shown.doing)
    } else {
        format!("the node is {state}: {}", shown.doing)
    }
}

/// `1 peer: hq (3f2a9c), direct, 38 ms`.
fn peers_sentence(shown: &Snapshot) -> String {
    let peers: Vec<_> = shown
        .peers
        .iter()
        .filter(|peer| peer.state == PeerState::Connected)
        .map(|peer| {
            let name = if peer.name.is_empty() { "unnamed" } else { &peer.name };
            let mut sentence = format!("{name} ({})", peer.id.get(..6).unwrap_or(&peer.id));
            if let Some(path) = &peer.path {
                sentence.push_str(&format!(", {path}"));
            }
            if let Some(rtt_ms) = peer.rtt_ms {
                sentence.push_str(&format!(", {rtt_ms:.0} ms"));
            }
            sentence
        })
        .collect();
    match peers.len() {
        0 => "no peer".to_owned(),
        1 => format!("1 peer: {}", peers.join("; ")),
        number => format!("{number} peers: {}", peers.join("; ")),
    }
}
