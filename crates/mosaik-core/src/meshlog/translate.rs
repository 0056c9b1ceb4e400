//! Our events as meshlogd's, and what meshlogd's say of records.

use super::{
    EVENT_LEN_MAX, MeshlogId,
    json::Json,
    value::{to_json, to_value},
};
use crate::{
    event::{Event, Payload},
    hlc::Hlc,
    limits::{FIELD_LEN_MAX, RECORD_LEN_MAX},
    record::{RecordEvent, is_reserved},
    value::Value,
};

/// The kind of a translation that only names the event that it stands for.
const REFERENCE: &str = "mosaik.ref";

/// An event as meshlogd would write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its id: what the next event of its feed names.
    pub id: MeshlogId,
    /// Its JSON on meshlogd's wire, compact and ASCII; unsigned.
    pub wire: String,
    /// Whether it only names the event that it stands for.
    pub is_reference: bool,
}

/// What an event says must be known to translate it, and its payload isn't here: wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the payload of the event is not here")]
pub struct PayloadAbsent;

/// The meshlogd event of `event`, at the same place of the feed of its author's name there, after the
/// translation `prev` of the event before; none at seq 1. It has at most [`EVENT_LEN_MAX`] bytes.
///
/// # Errors
///
/// [`PayloadAbsent`].
pub fn translate(event: &Event, prev: Option<MeshlogId>) -> Result<Written, PayloadAbsent> {
    let author = event.author.to_string();
    let write =
        |kind: &str, payload: &Json| compose(&author, event.seq, event.hlc, kind, payload, prev);
    let (kind, payload) = said(event)?;
    let whole = write(kind, &payload);
    if whole.wire.len() <= EVENT_LEN_MAX {
        return Ok(whole);
    }
    Ok(write(REFERENCE, &reference(event)))
}

/// Writes an event by meshlogd's rules; the names of its payload in their order.
pub fn compose(
    author: &str,
    seq: u64,
    hlc: Hlc,
    kind: &str,
    payload: &Json,
    prev: Option<MeshlogId>,
) -> Written {
    let (author, seq, kind) = (Json::text(author), Json::whole(seq), Json::text(kind));
    let stamp = Json::List(vec![Json::whole(hlc.ms()), Json::whole(hlc.counter())]);
    let prev = Json::text(&prev.map(|id| id.to_string()).unwrap_or_default());
    let mut body = String::new();
    Json::map([
        ("author", author.clone()),
        ("seq", seq.clone()),
        ("hlc", stamp.clone()),
        ("kind", kind.clone()),
        ("payload", payload.clone()),
        ("prev", prev.clone()),
    ])
    .write(&mut body);
    let id = MeshlogId::of(body.as_bytes());
    let mut wire = String::with_capacity(body.len() + 64);
    let named = Json::text(&id.to_string());
    for (name, part) in [
        ("{\"a\":", &author),
        (",\"s\":", &seq),
        (",\"h\":", &stamp),
        (",\"k\":", &kind),
        (",\"p\":", payload),
        (",\"v\":", &prev),
        (",\"i\":", &named),
    ] {
        wire.push_str(name);
        part.write(&mut wire);
    }
    wire.push('}');
    Written { id, wire, is_reference: kind.as_str() == Some(REFERENCE) }
}

fn reference(event: &Event) -> Json {
    Json::map([("event", Json::text(&event.id.to_string()))])
}

/// Kind and payload of an event's translation.
fn said(event: &Event) -> Result<(&str, Json), PayloadAbsent> {
    let kind = event.kind.as_str();
    let has_meaning = MEANINGS.contains(&kind) || !is_reserved(kind);
    let payload = match &event.payload {
        Payload::Present(bytes) => bytes.as_slice(),
        Payload::Absent { .. } if has_meaning => return Err(PayloadAbsent),
        Payload::Absent { .. } => return Ok((REFERENCE, reference(event))),
    };
    let said = if is_reserved(kind) {
        RecordEvent::decode(kind, payload).ok().flatten().and_then(|meaning| of_record(&meaning))
    } else {
        Value::decode(payload).ok().map(|value| Json::map([("value", to_json(&value))]))
    };
    Ok(said.map_or_else(|| (REFERENCE, reference(event)), |payload| (kind, payload)))
}

const CREATE: &str = "record.create";
const SET: &str = "field.set";
const NOTE: &str = "note.add";
const ARCHIVE: &str = "record.archive";

/// The kinds that speak of records there as here.
const MEANINGS: [&str; 4] = [CREATE, SET, NOTE, ARCHIVE];

fn of_record(meaning: &RecordEvent) -> Option<Json> {
    Some(match meaning {
        RecordEvent::Create { record, form } => {
            Json::map([("record", Json::text(record)), ("form", Json::text(form))])
        }
        // Who reads it there takes the latest: the sets that it replaces have no names there.
        RecordEvent::Set { record, field, value, over: _ } => Json::map([
            ("record", Json::text(record)),
            ("field", Json::text(field)),
            ("value", to_json(value)),
        ]),
        RecordEvent::Note { record, text } => {
            Json::map([("record", Json::text(record)), ("text", Json::text(text))])
        }
        RecordEvent::Archive { record, archived } => {
            Json::map([("record", Json::text(record)), ("archived", Json::Bool(*archived))])
        }
        RecordEvent::Attach { .. } | RecordEvent::Profile { .. } => return None,
    })
}

/// What a meshlogd event of this kind says of a record; none where the kind has no meaning here, or the
/// payload isn't what the kind takes. Further names in the payload are passed over.
pub(super) fn meaning(kind: &str, payload: &Json) -> Option<RecordEvent> {
    let text = |name: &str| payload.get(name).and_then(Json::as_str).map(str::to_owned);
    let short = |name: &str| text(name).filter(|text| text.len() <= FIELD_LEN_MAX);
    if !MEANINGS.contains(&kind) {
        return None;
    }
    let record = text("record").filter(|record| (1..=RECORD_LEN_MAX).contains(&record.len()))?;
    Some(match kind {
        CREATE => RecordEvent::Create { record, form: short("form")? },
        SET => {
            let (field, value) = (short("field")?, to_value(payload.get("value")?)?);
            if field.is_empty() && value.as_text().is_none() {
                return None;
            }
            RecordEvent::Set { record, field, value, over: Vec::new() }
        }
        NOTE => RecordEvent::Note { record, text: text("text")? },
        _ => match payload.get("archived")? {
            Json::Bool(archived) => RecordEvent::Archive { record, archived: *archived },
            _ => return None,
        },
    })
}
