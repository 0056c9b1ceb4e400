//! Events that collide, conflict, branch, lack their payload, come too early or mean nothing.

use mosaik_core::{
    event::{Event, Kind, Payload},
    hlc::{Hlc, SKEW_MAX_MS, is_held_back},
    id::{AuthorId, EventId},
    meshlog::{MeshlogId, compose, foreign_draft, json::Json},
    record::RecordEvent,
    value::Value,
    view::Origin,
};
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::json;

/// Ids that need escapes, and one that others begin with.
pub(crate) const RECORDS: [&str; 4] = ["a", "a\0", "a\u{1}", "b"];
const FIELDS: [&str; 3] = ["", "x", "x\0"];
pub(crate) const FORMS: [&str; 3] = ["", "dog", "cat"];
/// Clock of the node when the last batch comes.
pub(crate) const WALL_END_MS: u64 = 1_000_000;

/// An event, and what it says if it counts once its payload is here and its time has come.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) event: Event,
    meaning: Option<RecordEvent>,
    /// Where that stands, if it was said in another system.
    inner: Option<Origin>,
    /// Its payload never comes.
    pub(crate) lost: bool,
}

impl Made {
    /// Says the same, but as an event of another system that this one carries. When it was carried doesn't
    /// matter.
    fn carrying(mut self, wire: &str) -> Self {
        let (draft, inner) = foreign_draft(wire.as_bytes()).expect("a good event");
        self.meaning = inner.meaning();
        self.inner = Some(inner.origin());
        self.event.kind = draft.kind;
        self.event.payload = Payload::Present(draft.payload);
        if self.event.id.0[0].is_multiple_of(2) {
            self.event.hlc = Hlc::new(SKEW_MAX_MS + WALL_END_MS + 1, 0);
        }
        self
    }

    pub(crate) fn counts_at(&self, wall_ms: u64) -> Option<(&Event, &RecordEvent)> {
        let hlc = self.inner.map_or(self.event.hlc, |inner| inner.hlc);
        let counts = !self.lost && !is_held_back(hlc, wall_ms);
        Some((&self.event, self.meaning.as_ref().filter(|_| counts)?))
    }

    pub(crate) fn is_foreign(&self) -> bool {
        self.inner.is_some()
    }

    /// What the view must take of it.
    pub(crate) fn told_at(&self, wall_ms: u64) -> Option<(Origin, &RecordEvent, bool)> {
        let (event, meaning) = self.counts_at(wall_ms)?;
        let origin = self.inner.unwrap_or_else(|| Origin::of(event));
        Some((origin, meaning, self.inner.is_some()))
    }
}

/// What an event says, before it is known which others there are to name.
#[derive(Debug, Clone)]
enum Say {
    Create { form: usize },
    Set { field: usize, value: Value, over: Vec<(Index, bool)> },
    Note { text: u8 },
    Attach { field: usize, blob: u8, name: u8 },
    Archive(bool),
    Profile(u8),
    Nothing(Nothing),
}

/// Why an event counts for nothing.
#[derive(Debug, Clone, Copy)]
enum Nothing {
    TrailingByte,
    FormNotText,
    OverTooLong,
    TooDeep,
    EmptyRecord,
    LongVarint,
    UnknownReservedKind,
    ApplicationKind,
    Empty,
}

#[derive(Debug, Clone, Copy)]
enum Stamp {
    Early(u8),
    /// Held back at first, released by a later batch.
    Ahead(u8),
    /// Held back when all has come.
    FarAhead,
}

impl Stamp {
    fn ms(self) -> u64 {
        match self {
            Self::Early(ms) => u64::from(ms),
            Self::Ahead(quarters) => SKEW_MAX_MS + WALL_END_MS / 4 * u64::from(quarters) + 1,
            Self::FarAhead => SKEW_MAX_MS + WALL_END_MS + 1,
        }
    }
}

/// An event that is to be made.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    say: Say,
    record: usize,
    author: u8,
    /// From a small range: so feeds branch.
    seq: u64,
    stamp: Stamp,
    /// Whether it carries what another system says.
    is_foreign: bool,
    /// Ids of one group begin with the same 8 bytes.
    id_group: u8,
    lost: bool,
}

fn say() -> impl Strategy<Value = Say> {
    let value = prop_oneof![
        (0i64..3).prop_map(Value::Int),
        Just(Value::Null),
        Just(Value::float(1.0)),
        "[ab]{0,2}".prop_map(Value::Text),
    ];
    let over = vec((any::<Index>(), prop::bool::weighted(0.9)), 0..4);
    let nothing = prop::sample::select(vec![
        Nothing::TrailingByte,
        Nothing::FormNotText,
        Nothing::OverTooLong,
        Nothing::TooDeep,
        Nothing::EmptyRecord,
        Nothing::LongVarint,
        Nothing::UnknownReservedKind,
        Nothing::ApplicationKind,
        Nothing::Empty,
    ]);
    prop_oneof![
        2 => (0..FORMS.len()).prop_map(|form| Say::Create { form }),
        8 => (0..FIELDS.len(), value, over)
            .prop_map(|(field, value, over)| Say::Set { field, value, over }),
        1 => any::<u8>().prop_map(|text| Say::Note { text }),
        2 => (0..FIELDS.len(), 0u8..2, any::<u8>())
            .prop_map(|(field, blob, name)| Say::Attach { field, blob, name }),
        2 => any::<bool>().prop_map(Say::Archive),
        1 => any::<u8>().prop_map(Say::Profile),
        2 => nothing.prop_map(Say::Nothing),
    ]
}

pub(crate) fn plan() -> impl Strategy<Value = Plan> {
    let stamp = prop_oneof![
        8 => (0u8..4).prop_map(Stamp::Early),
        2 => (0u8..4).prop_map(Stamp::Ahead),
        1 => Just(Stamp::FarAhead),
    ];
    let place = (1u8..4, 1u64..4, 0u8..6);
    let is = (prop::bool::weighted(0.1), prop::bool::weighted(0.3));
    (say(), 0..RECORDS.len(), place, stamp, is).prop_map(
        |(say, record, (author, seq, id_group), stamp, (lost, is_foreign))| Plan {
            say,
            record,
            author,
            seq,
            stamp,
            is_foreign,
            id_group,
            lost,
        },
    )
}

/// Makes the events of some plans; each may name any of the others, and itself.
pub(crate) fn make(plans: &[Plan]) -> Vec<Made> {
    let ids: Vec<_> = plans.iter().zip(0..).map(|(plan, at)| id(plan, at)).collect();
    let made = |names: &[EventId]| -> Vec<Made> {
        plans.iter().zip(&ids).map(|(plan, id)| make_one(plan, *id, names)).collect()
    };
    // What is foreign is named by the id that it has in the view, which depends on no name.
    let in_view = |made: Made| made.inner.map_or(made.event.id, |inner| inner.id);
    made(&made(&ids).into_iter().map(in_view).collect::<Vec<_>>())
}

/// Ids are made up, so that they collide: the fold takes them as they are.
fn id(plan: &Plan, at: u64) -> EventId {
    let mut id = [plan.id_group; 32];
    id[8..16].copy_from_slice(&at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    EventId(id)
}

fn make_one(plan: &Plan, id: EventId, ids: &[EventId]) -> Made {
    let record = RECORDS[plan.record];
    let (meaning, nothing) = match &plan.say {
        // It names all, and must replace none of them.
        Say::Nothing(nothing) => {
            let over = ids.iter().take(16).map(EventId::prefix).collect();
            let (record, field) = (record.to_owned(), FIELDS[1].to_owned());
            (RecordEvent::Set { record, field, value: Value::Null, over }, Some(*nothing))
        }
        say => (meaning(say, record.to_owned(), ids), None),
    };
    let foreign = foreign(plan, &meaning).filter(|_| plan.is_foreign && nothing.is_none());
    let draft = meaning.encode().expect("within the limits");
    let (mut kind, mut payload) = (draft.kind, draft.payload);
    if let Some(nothing) = nothing {
        spoil(&mut kind, &mut payload, nothing, record.len());
    }
    let ms = plan.stamp.ms();
    // An empty payload is never absent.
    let lost = plan.lost && !payload.is_empty();
    let event = Event {
        id,
        author: AuthorId([plan.author; 32]),
        seq: plan.seq,
        prev: EventId::ZERO,
        hlc: Hlc::new(ms, u16::from(plan.id_group % 2)),
        kind,
        payload: Payload::Present(payload),
    };
    let made = Made { event, meaning: nothing.is_none().then_some(meaning), inner: None, lost };
    match foreign {
        Some(wire) => made.carrying(&wire),
        None => made,
    }
}

/// What another system's author says, in few variants: so several events carry the same.
fn foreign(plan: &Plan, meaning: &RecordEvent) -> Option<String> {
    let (kind, payload) = match meaning {
        RecordEvent::Create { record, form } => {
            ("record.create", json!({ "record": record, "form": form }))
        }
        RecordEvent::Set { record, field, value, .. } => {
            let value = match value {
                Value::Int(int) => json!(int),
                Value::Text(text) => json!(text),
                _ => json!(null),
            };
            ("field.set", json!({ "record": record, "field": field, "value": value, "by": "x" }))
        }
        RecordEvent::Note { record, .. } => ("note.add", json!({ "record": record, "text": "n" })),
        RecordEvent::Archive { record, archived } => {
            ("record.archive", json!({ "record": record, "archived": archived }))
        }
        _ => return None,
    };
    let payload = Json::parse(payload.to_string().as_bytes()).expect("JSON");
    let prev = (plan.seq > 1).then_some(MeshlogId([7; 16]));
    let hlc = Hlc::new(plan.stamp.ms(), 0);
    Some(compose(&format!("m{}", plan.author), plan.seq, hlc, kind, &payload, prev).wire)
}

fn meaning(say: &Say, record: String, ids: &[EventId]) -> RecordEvent {
    match say {
        Say::Create { form } => RecordEvent::Create { record, form: FORMS[*form].to_owned() },
        Say::Set { field, value, over } => {
            let field = FIELDS[*field].to_owned();
            // Names of sets that are never seen, too.
            let name = |(at, held): &(Index, bool)| {
                if *held { at.get(ids).prefix() } else { [0xee; 8] }
            };
            let over = over.iter().map(name).collect();
            let value = match value {
                value if field.is_empty() => Value::from(value.type_name()),
                value => value.clone(),
            };
            RecordEvent::Set { record, field, value, over }
        }
        Say::Note { text } => RecordEvent::Note { record, text: text.to_string() },
        Say::Attach { field, blob, name } => RecordEvent::Attach {
            record,
            field: FIELDS[*field].to_owned(),
            blob: [*blob; 32],
            size: u64::from(*name),
            mime: "image/png".to_owned(),
            name: name.to_string(),
        },
        Say::Archive(archived) => RecordEvent::Archive { record, archived: *archived },
        Say::Profile(name) => RecordEvent::Profile { name: name.to_string() },
        Say::Nothing(_) => panic!("it is made elsewhere"),
    }
}

/// Makes a good set of field `x` to null into an event that counts for nothing.
fn spoil(kind: &mut Kind, payload: &mut Vec<u8>, nothing: Nothing, record_len: usize) {
    // Where the field begins: its length, its name, the value, the length of `over`, `over`.
    let field = 1 + record_len;
    match nothing {
        Nothing::TrailingByte => payload.push(0),
        Nothing::FormNotText => drop(payload.splice(field..field + 2, [0])),
        Nothing::OverTooLong => {
            payload.truncate(field + 3);
            payload.push(17);
            payload.extend([0xee; 17 * 8]);
        }
        Nothing::TooDeep => drop(payload.splice(field + 2..field + 2, [6, 1].repeat(17))),
        Nothing::EmptyRecord => drop(payload.splice(0..field, [0])),
        Nothing::LongVarint => drop(payload.splice(0..1, [0x80 | record_len as u8, 0])),
        Nothing::UnknownReservedKind => *kind = Kind::new("field.unset").expect("a kind"),
        Nothing::ApplicationKind => *kind = Kind::new("sensor.reading").expect("a kind"),
        Nothing::Empty => payload.clear(),
    }
}
