//! Bytes as one event: its kind and what it says, folded into a view.
//!
//! An input is a kind as text with its length, a stamp of 8 bytes, and the payload.

use std::sync::LazyLock;

use mosaik_core::{
    codec::{Reader, Writer},
    event::{Event, Kind, Payload},
    hlc::Hlc,
    id::{AuthorId, EventId},
    kv::MemoryKv,
    limits::{KIND_LEN_MAX, PAYLOAD_LEN_MAX},
    record::RecordEvent,
    value::Value,
    view::{self, RecordsQuery},
};
use rand::RngExt;

use super::{
    Chance, Seed, Target, bytes,
    vectors::{self, vectors},
    world::{Author, HASHER, KEYS, NOW_MS},
};

/// See the module's head.
pub const TARGET: Target = Target { name: "event", seeds, mutate, check };

static SEEDS: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    let (records, values) = (vectors!("record"), vectors!("value"));
    let of = |name: &'static str, (n, entry): (usize, &serde_json::Value)| {
        let payload = vectors::bytes(entry, "payload");
        (format!("{name}-{n:02}"), input(vectors::text(entry, "kind"), NOW_MS, &payload))
    };
    let records = vectors::list(&records, "events")
        .map(|entry| of("record", entry))
        .chain(vectors::list(&records, "refused").map(|entry| of("refused", entry)))
        .collect::<Vec<_>>();
    let values = vectors::list(&values, "values").map(|(n, entry)| {
        // r1, its field f, the value, nothing replaced.
        let payload = [b"\x02r1\x01f", &vectors::bytes(entry, "bytes")[..], &[0]].concat();
        (format!("value-{n:02}"), input("field.set", NOW_MS, &payload))
    });
    let small = |(_, bytes): &Seed| bytes.len() <= 2048;
    records.into_iter().chain(values).filter(small).collect()
});

fn seeds() -> Vec<Seed> {
    SEEDS.clone()
}

fn input(kind: &str, ms: u64, payload: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.str(kind).raw(&Hlc::new(ms, 0).as_u64().to_be_bytes()).raw(payload);
    writer.into_bytes()
}

fn parse(bytes: &[u8]) -> Option<(Kind, Hlc, Vec<u8>)> {
    let mut reader = Reader::new(bytes);
    let kind = Kind::new(reader.str(KIND_LEN_MAX).ok()?).ok()?;
    let hlc = Hlc::from_u64(u64::from_be_bytes(reader.array().ok()?));
    let payload = reader.rest().get(..reader.remaining().min(PAYLOAD_LEN_MAX))?;
    Some((kind, hlc, payload.to_vec()))
}

/// What it says is written back byte for byte; its name covers all of it; and a view takes it in any
/// order and any number of times.
fn check(bytes: &[u8]) {
    let Some((kind, hlc, payload)) = parse(bytes) else { return };
    let says = RecordEvent::decode(kind.as_str(), &payload);
    if let Ok(Some(says)) = &says {
        let draft = says.encode().expect("what is decoded can be written");
        assert_eq!((&draft.kind, &draft.payload), (&kind, &payload), "another encoding");
    }
    if let Ok(Some(RecordEvent::Set { value, .. })) = &says {
        value_has_one_form(value);
    }
    let event = placed(kind, hlc, payload.clone());
    if let Some(other) = bytes::flipped(&payload, 0) {
        let other = placed(event.kind.clone(), hlc, other);
        assert_ne!(other.id, event.id, "two payloads under one name");
    }
    let counts = folds(&event);
    let is_foreign = view::Said::by(&event).is_some_and(|said| said.is_foreign);
    assert_eq!(
        counts,
        is_foreign || matches!(says, Ok(Some(_))),
        "a view and the decoder disagree"
    );
}

fn value_has_one_form(value: &Value) {
    let mut writer = Writer::new();
    value.write(&mut writer);
    let mut reader = Reader::new(writer.as_bytes());
    let again = Value::read(&mut reader).expect("what is written can be read");
    let mut twice = Writer::new();
    again.write(&mut twice);
    assert_eq!(writer.as_bytes(), twice.as_bytes());
    assert_eq!(reader.remaining(), 0);
}

fn placed(kind: Kind, hlc: Hlc, payload: Vec<u8>) -> Event {
    let (author, seq, prev) = (AuthorId([7; 32]), 2, EventId([9; 32]));
    let payload = Payload::Present(payload);
    let id = HASHER.id(&author, seq, &prev, hlc, &kind, &payload);
    Event { id, author, seq, prev, hlc, kind, payload }
}

/// Folds it among others that speak of the same records; whether it counts.
fn folds(event: &Event) -> bool {
    static OTHERS: LazyLock<Vec<Event>> = LazyLock::new(|| {
        let mut author = Author::new(1, 0);
        author.write(NOW_MS, "record.create", b"\x02r1\x04site".to_vec());
        author.write(NOW_MS, "field.set", b"\x02r1\x01f\x02\x02\x00".to_vec());
        author.write(NOW_MS + 1, "record.archive", b"\x02r1\x01".to_vec());
        author.events
    });
    let rule = view::rule(&KEYS.fingerprint);
    let (mut before, mut after) = (MemoryKv::new(), MemoryKv::new());
    let counts = view::fold(&mut before, event).expect("memory never fails");
    for other in OTHERS.iter() {
        view::fold(&mut before, other).expect("memory never fails");
        view::fold(&mut after, other).expect("memory never fails");
        view::settle(&mut after, &rule).expect("memory never fails");
    }
    for _ in 0..2 {
        view::fold(&mut after, event).expect("memory never fails");
        view::settle(&mut after, &rule).expect("memory never fails");
    }
    view::settle(&mut before, &rule).expect("memory never fails");
    assert!(before == after, "the view depends on the order");
    let listed =
        view::records(&before, &RecordsQuery { limit: usize::MAX, ..RecordsQuery::default() })
            .expect("own cells are whole");
    for listed in &listed {
        let record = view::record(&before, &listed.record).expect("own cells are whole");
        assert!(record.is_some(), "listed, but not there");
    }
    view::conflicts(&before, None, usize::MAX).expect("own cells are whole");
    view::counts(&before).expect("own cells are whole");
    counts
}

fn mutate(input: &mut Vec<u8>, chance: &mut Chance) {
    let Some((kind, hlc, mut payload)) = parse(input).filter(|_| chance.random_range(0..6) > 0)
    else {
        return bytes::change(input, chance);
    };
    let (mut kind, mut hlc) = (kind.as_str().to_owned(), hlc);
    match chance.random_range(0..8) {
        0 => {
            let kinds = [
                "record.create",
                "field.set",
                "note.add",
                "attachment.add",
                "record.archive",
                "node.profile",
                "app.x",
                "event.erase",
            ];
            kind = kinds[chance.random_range(0..kinds.len())].to_owned();
        }
        1 => hlc = Hlc::from_u64(bytes::number(chance)),
        2 => {
            // A value into the place of a value, or lists in lists.
            let depth = chance.random_range(0..20);
            let mut value = [6, 1].repeat(depth);
            value.extend([[0, 0], [1, 1], [2, 7]][chance.random_range(0..3)]);
            payload = [b"\x02r1\x01f", &value[..], &[0]].concat();
        }
        _ => bytes::change(&mut payload, chance),
    }
    let mut writer = Writer::new();
    writer.str(&kind).raw(&hlc.as_u64().to_be_bytes()).raw(&payload);
    *input = writer.into_bytes();
}
