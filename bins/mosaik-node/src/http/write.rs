//! The writes: bodies become typed requests to the owner.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json,
    body::Bytes,
    extract::{
        Path, State,
        rejection::{BytesRejection, PathRejection},
    },
};
use mosaik_api::{
    SCHEMA,
    document::{Imported, ImportedMeshlog, Paused, PeerChanged, RefusedRow, Tip, Written},
    failure::Code,
    json::from_json,
    request::{
        AddNote, AddPeer, CreateRecord, EMIT_EVENTS_MAX, EmitEvent, EmitEvents, IMPORT_ROWS_MAX,
        ImportMeshlog, ImportRow, ImportRows, MeshlogLine, SetArchived, SetFields,
    },
};
use mosaik_core::{event::Kind, id::NodeId, ticket::Ticket, value::Value};
use mosaik_proto::peers::Unforgettable;
use serde_json::Value as JsonValue;

use super::{
    App,
    answer::{Answer, Refused, request},
    look::segment,
};
use crate::{
    edit::{Edit, Line, Row},
    handle::Appended,
    record_id,
};

type Body = Result<Bytes, BytesRejection>;
pub(super) type Segment = Result<Path<String>, PathRejection>;

pub(super) async fn create(State(app): State<App>, body: Body) -> Answer<Written> {
    let asked: CreateRecord = request(body)?;
    let record = asked.record.unwrap_or_else(|| record_id::sortable(now_ms(), rand::random()));
    let (form, if_absent) = (asked.form, asked.if_absent);
    let fields = values(asked.fields)?;
    let edit = Edit::Create { record: record.clone(), form, fields, if_absent };
    written(Some(record), app.handle.edit(edit).await?)
}

pub(super) async fn set(State(app): State<App>, record: Segment, body: Body) -> Answer<Written> {
    let record = segment(record)?;
    let SetFields { fields } = request(body)?;
    if fields.is_empty() {
        return Err(Refused::new(Code::Invalid, "name at least one field to set"));
    }
    let edit = Edit::Set { record: record.clone(), fields: values(fields)? };
    written(Some(record), app.handle.edit(edit).await?)
}

pub(super) async fn note(State(app): State<App>, record: Segment, body: Body) -> Answer<Written> {
    let record = segment(record)?;
    let AddNote { text } = request(body)?;
    let edit = Edit::Note { record: record.clone(), text };
    written(Some(record), app.handle.edit(edit).await?)
}

pub(super) async fn archive(
    State(app): State<App>,
    record: Segment,
    body: Body,
) -> Answer<Written> {
    let record = segment(record)?;
    let SetArchived { archived } = request(body)?;
    let edit = Edit::Archive { record: record.clone(), archived };
    written(Some(record), app.handle.edit(edit).await?)
}

pub(super) async fn emit(State(app): State<App>, body: Body) -> Answer<Written> {
    let (kind, value) = event(request(body)?)?;
    written(None, app.handle.edit(Edit::Emit { kind, value }).await?)
}

pub(super) async fn emit_all(State(app): State<App>, body: Body) -> Answer<Written> {
    let EmitEvents { events } = request(body)?;
    if !(1..=EMIT_EVENTS_MAX).contains(&events.len()) {
        let sentence = format!("{} events at once; 1 to {EMIT_EVENTS_MAX} are taken", events.len());
        return Err(Refused::new(Code::Invalid, sentence));
    }
    let events = events.into_iter().map(event).collect::<Result<_, _>>()?;
    written(None, app.handle.edit(Edit::EmitAll { events }).await?)
}

fn event(EmitEvent { kind, value }: EmitEvent) -> Result<(Kind, Value), Refused> {
    let kind = Kind::new(&kind).map_err(|error| Refused::new(Code::Invalid, error.to_string()))?;
    let value = from_json(value).map_err(|error| Refused::new(Code::Invalid, error.to_string()))?;
    Ok((kind, value))
}

pub(super) async fn import(State(app): State<App>, body: Body) -> Answer<Imported> {
    let ImportRows { form, rows } = request(body)?;
    if rows.len() > IMPORT_ROWS_MAX {
        let sentence = format!("{} rows at once; at most {IMPORT_ROWS_MAX} are taken", rows.len());
        return Err(Refused::new(Code::Invalid, sentence));
    }
    let (mut good, mut refused) = (Vec::new(), Vec::new());
    for ImportRow { line, record, fields } in rows {
        match values(fields) {
            Ok(fields) => good.push(Row { line, record, fields }),
            Err(Refused(failure)) => refused.push(RefusedRow { line, reason: failure.message }),
        }
    }
    let done = app.handle.edit(Edit::Import { form, rows: good }).await?.rows;
    let by_view = done.refused.into_iter();
    refused.extend(by_view.map(|(line, why)| RefusedRow { line, reason: why.to_string() }));
    refused.sort_by_key(|row| row.line);
    let (created, changed, unchanged) = (done.created, done.changed, done.unchanged);
    Ok(Json(Imported { schema: SCHEMA, created, changed, unchanged, refused }))
}

pub(super) async fn import_meshlog(State(app): State<App>, body: Body) -> Answer<ImportedMeshlog> {
    let ImportMeshlog { events } = request(body)?;
    if events.len() > IMPORT_ROWS_MAX {
        let sentence =
            format!("{} events at once; at most {IMPORT_ROWS_MAX} are taken", events.len());
        return Err(Refused::new(Code::Invalid, sentence));
    }
    let lines = events.into_iter().map(|MeshlogLine { line, event }| Line { line, wire: event });
    let edit = Edit::ImportMeshlog { lines: lines.collect() };
    let done = app.handle.edit(edit).await?.rows;
    let (refused, notices) = (done.refused.into_iter(), done.foreign.notices.into_iter());
    Ok(Json(ImportedMeshlog {
        schema: SCHEMA,
        imported: done.created,
        known: done.unchanged,
        translated: done.foreign.translated,
        unverified: done.foreign.unverified,
        unsigned: done.foreign.unsigned,
        refused: refused.map(|(line, why)| RefusedRow { line, reason: why.to_string() }).collect(),
        notices: notices
            .map(|(line, what)| RefusedRow { line, reason: what.to_string() })
            .collect(),
    }))
}

pub(super) async fn add_peer(State(app): State<App>, body: Body) -> Answer<PeerChanged> {
    let AddPeer { ticket } = request(body)?;
    let ticket: Ticket =
        ticket.parse().map_err(|error| Refused::new(Code::Invalid, format!("{error}")))?;
    if ticket.node == app.about.node {
        return Err(Refused::new(Code::Invalid, "this is the node's own ticket"));
    }
    let id = ticket.node.to_string();
    app.handle.dial(ticket).await?;
    Ok(Json(PeerChanged { schema: SCHEMA, id, blocked: false }))
}

pub(super) async fn block(State(app): State<App>, peer: Segment) -> Answer<PeerChanged> {
    set_blocked(&app, peer, true).await
}

pub(super) async fn unblock(State(app): State<App>, peer: Segment) -> Answer<PeerChanged> {
    set_blocked(&app, peer, false).await
}

pub(super) async fn forget(State(app): State<App>, peer: Segment) -> Answer<PeerChanged> {
    let peer = another(&app, peer)?;
    let refused = |error| match error {
        Unforgettable::Unknown => Refused::new(Code::NotFound, "nobody of this id is known here"),
        Unforgettable::Busy => Refused::new(
            Code::Invalid,
            "the peer is connected or being dialed: it would be known again at once",
        ),
        Unforgettable::Blocked => Refused::new(
            Code::Invalid,
            "the peer is blocked, and forgetting it would let it in again: unblock it first",
        ),
    };
    app.handle.forget(peer).await?.map_err(refused)?;
    Ok(Json(PeerChanged { schema: SCHEMA, id: peer.to_string(), blocked: false }))
}

pub(super) async fn pause(State(app): State<App>) -> Answer<Paused> {
    set_paused(&app, true).await
}

pub(super) async fn resume(State(app): State<App>) -> Answer<Paused> {
    set_paused(&app, false).await
}

async fn set_paused(app: &App, paused: bool) -> Answer<Paused> {
    app.handle.pause(paused).await?;
    Ok(Json(Paused { schema: SCHEMA, paused }))
}

/// The id of a node that isn't this one.
pub(super) fn another(app: &App, peer: Segment) -> Result<NodeId, Refused> {
    let peer: NodeId = segment(peer)?.parse().map_err(|error: mosaik_core::id::ParseIdError| {
        Refused::new(Code::Invalid, format!("a peer is named by its node id: {error}"))
    })?;
    if peer == app.about.node {
        return Err(Refused::new(Code::Invalid, "this is the node itself"));
    }
    Ok(peer)
}

async fn set_blocked(app: &App, peer: Segment, blocked: bool) -> Answer<PeerChanged> {
    let peer = another(app, peer)?;
    app.handle.block(peer, blocked).await?;
    Ok(Json(PeerChanged { schema: SCHEMA, id: peer.to_string(), blocked }))
}

/// Fields as values; the error names the field.
pub(super) fn values(
    fields: BTreeMap<String, JsonValue>,
) -> Result<BTreeMap<String, Value>, Refused> {
    let value = |(name, json): (String, JsonValue)| match from_json(json) {
        Ok(value) => Ok((name, value)),
        Err(error) => Err(Refused::new(Code::Invalid, format!("{name}: {error}"))),
    };
    fields.into_iter().map(value).collect()
}

fn written(record: Option<String>, appended: Appended) -> Answer<Written> {
    let events = appended.events.iter().map(|tip| Tip { seq: tip.seq, id: tip.id.to_string() });
    let (author, events) = (appended.author.to_string(), events.collect());
    Ok(Json(Written { schema: SCHEMA, record, author, events }))
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
