//! The golden vectors of section 10 of FORMAT.md: `meshlogd.json`, which meshlogd 0.5.0 wrote, and
//! `foreign.json` of the other implementation.

#![allow(clippy::unwrap_used)]

use data_encoding::HEXLOWER;
use mosaik_core::{
    event::{Event, Hasher, Kind, Payload},
    hlc::Hlc,
    id::{AuthorId, EventId},
    key::Network,
    meshlog::{
        EventError, MeshlogEvent, MeshlogId, PayloadAbsent, VerifyError, foreign_author,
        foreign_draft, identity_hash,
        json::{Json as Theirs, float_text},
        translate,
    },
    record::RecordEvent,
    value::Value,
};
use serde_json::{Value as Json, json};

macro_rules! vectors {
    ($name:literal) => {{
        let text = include_str!(concat!("../../../tests/vectors/", $name, ".json"));
        serde_json::from_str::<Json>(text).unwrap()
    }};
}

fn list<'a>(of: &'a Json, name: &str) -> &'a [Json] {
    let list = of[name].as_array().unwrap();
    assert!(!list.is_empty(), "{name}");
    list
}

fn text<'a>(of: &'a Json, name: &str) -> &'a str {
    of[name].as_str().unwrap_or_else(|| panic!("{name} of {of}"))
}

fn number(of: &Json, name: &str) -> u64 {
    of[name].as_u64().unwrap_or_else(|| panic!("{name} of {of}"))
}

fn array<const N: usize>(of: &Json, name: &str) -> [u8; N] {
    HEXLOWER.decode(text(of, name).as_bytes()).unwrap().try_into().unwrap()
}

/// Authors with free names and unsigned events are among them.
#[test]
fn what_meshlogd_wrote_has_its_body_its_id_and_its_signature() {
    let vectors = vectors!("meshlogd");
    let keys: Vec<[u8; 64]> =
        list(&vectors, "identities").iter().map(|of| array(of, "public")).collect();
    for (of, key) in list(&vectors, "identities").iter().zip(&keys) {
        assert_eq!(identity_hash(key), array(of, "hash"));
    }
    let mut verified = 0;
    for of in list(&vectors, "events") {
        let event = MeshlogEvent::parse(text(of, "wire").as_bytes())
            .unwrap_or_else(|error| panic!("{}: {error}", text(of, "name")));
        assert_eq!(event.body(), text(of, "body").as_bytes());
        assert_eq!(event.id.to_string(), text(of, "id"));
        assert_eq!((&*event.author, event.seq), (text(of, "author"), number(of, "seq")));
        // A line of its log says the same with spaces.
        assert_eq!(MeshlogEvent::parse(text(of, "line").as_bytes()).as_ref(), Ok(&event));
        let key = keys.iter().find(|key| event.author == HEXLOWER.encode(&identity_hash(key)));
        match (key, event.signature) {
            (Some(key), Some(_)) => {
                assert_eq!(event.verify(key), Ok(()));
                let mut forged = event.clone();
                forged.signature.as_mut().unwrap()[9] ^= 1;
                assert_eq!(forged.verify(key), Err(VerifyError::BadSignature));
                verified += 1;
            }
            (Some(key), None) => assert_eq!(event.verify(key), Err(VerifyError::Unsigned)),
            (None, _) => assert_eq!(event.verify(&keys[0]), Err(VerifyError::OtherAuthor)),
        }
    }
    assert!(verified >= 10, "{verified}");
}

/// What it prints is the only thing that is known of a float, so ours must print the same.
#[test]
fn floats_are_written_as_meshlogd_writes_them() {
    for of in list(&vectors!("meshlogd"), "floats") {
        let float = f64::from_bits(u64::from_be_bytes(array(of, "bits")));
        assert_eq!(float_text(float), text(of, "text"));
        assert!(Theirs::parse(text(of, "text").as_bytes()).is_ok());
    }
}

/// One changed character anywhere is noticed, unless it is of the signature, which is the key's to check.
#[test]
fn an_event_that_was_changed_anywhere_is_refused_or_another_spelling_of_the_same() {
    for of in list(&vectors!("meshlogd"), "events").iter().take(14) {
        let wire = text(of, "wire");
        let event = MeshlogEvent::parse(wire.as_bytes()).unwrap();
        for at in 0..wire.len() {
            for flip in [1, 4, 0x20] {
                let mut changed = wire.as_bytes().to_vec();
                changed[at] ^= flip;
                if let Ok(other) = MeshlogEvent::parse(&changed) {
                    assert_eq!((other.id, other.body()), (event.id, event.body()), "byte {at}");
                }
            }
            assert!(MeshlogEvent::parse(&wire.as_bytes()[..at]).is_err(), "torn at {at}");
        }
    }
}

fn says(of: &Json) -> Option<RecordEvent> {
    let record = || text(of, "record").to_owned();
    Some(match of["kind"].as_str()? {
        "record.create" => {
            RecordEvent::Create { record: record(), form: text(of, "form").to_owned() }
        }
        "field.set" => RecordEvent::Set {
            record: record(),
            field: text(of, "field").to_owned(),
            value: Value::decode(&HEXLOWER.decode(text(of, "value").as_bytes()).unwrap()).unwrap(),
            over: Vec::new(),
        },
        "note.add" => RecordEvent::Note { record: record(), text: text(of, "text").to_owned() },
        "record.archive" => {
            RecordEvent::Archive { record: record(), archived: of["archived"].as_bool().unwrap() }
        }
        other => panic!("{other}"),
    })
}

#[test]
fn what_an_event_says_and_where_it_stands_is_that_of_the_format() {
    for of in list(&vectors!("foreign"), "events") {
        let name = text(of, "name");
        let (draft, event) = foreign_draft(text(of, "wire").as_bytes()).expect(name);
        assert_eq!(draft.kind.as_str(), "foreign.meshlog");
        assert_eq!(draft.payload, text(of, "wire").as_bytes(), "word for word");
        let origin = event.origin();
        assert_eq!(event.id.to_string(), text(of, "id"), "{name}");
        assert_eq!(origin.id, EventId(array(of, "event")), "{name}");
        assert_eq!(origin.author, AuthorId(array(of, "author")), "{name}");
        assert_eq!(foreign_author(&event.author), origin.author);
        assert_eq!(origin.seq, number(of, "seq"), "{name}");
        let hlc = Hlc::new(number(of, "ms"), number(of, "counter") as u16);
        assert_eq!(origin.hlc, hlc, "{name}");
        assert_eq!(event.meaning(), says(&of["says"]), "{name}");
    }
}

#[test]
fn what_is_no_event_is_refused_with_a_reason() {
    for of in list(&vectors!("foreign"), "refused") {
        let refused = MeshlogEvent::parse(text(of, "wire").as_bytes());
        assert!(refused.is_err(), "{}: {refused:?}", text(of, "name"));
    }
    let long = MeshlogEvent::parse(&[b' '; 65_537]);
    assert_eq!(long, Err(EventError::TooLong(65_537)));
    assert!(matches!(MeshlogEvent::parse(b"\xff\xfe"), Err(EventError::Json(_))));
}

fn ours(of: &Json) -> Event {
    let payload = match of["absent"].as_object() {
        Some(_) => Payload::Absent {
            len: number(&of["absent"], "len") as u32,
            hash: array(&of["absent"], "hash"),
        },
        None => Payload::Present(HEXLOWER.decode(text(of, "payload").as_bytes()).unwrap()),
    };
    Event {
        id: EventId(array(of, "id")),
        author: AuthorId(array(of, "author")),
        seq: number(of, "seq"),
        prev: EventId(array(of, "prev")),
        hlc: Hlc::new(number(of, "ms"), number(of, "counter") as u16),
        kind: Kind::new(text(of, "kind")).unwrap(),
        payload,
    }
}

/// And meshlogd takes it: what is written is an event by its own rules, in a chain of its own.
#[test]
fn our_events_are_translated_to_the_bytes_of_the_format() {
    let mut prev = None;
    for of in list(&vectors!("foreign"), "translated") {
        let event = ours(&of["event"]);
        let translated = translate(&event, prev).unwrap();
        assert_eq!(translated.wire, text(of, "wire"));
        assert_eq!(translated.id.to_string(), text(of, "id"));
        let theirs = MeshlogEvent::parse(translated.wire.as_bytes()).unwrap();
        assert_eq!((theirs.id, theirs.prev), (translated.id, prev));
        assert_eq!((theirs.author.clone(), theirs.seq), (event.author.to_string(), event.seq));
        assert_eq!(theirs.hlc(), event.hlc);
        // It comes back as nobody's word: the event that it stands for counts.
        assert!(theirs.is_translated() && theirs.meaning().is_none());
        prev = Some(translated.id);
    }
}

#[test]
fn an_event_waits_for_the_payload_that_its_translation_needs_and_for_no_other() {
    let hasher = Hasher::new(&Network::Public("t".into()).keys().fingerprint);
    let (author, prev, hlc) = (AuthorId([1; 32]), EventId([2; 32]), Hlc::new(5, 0));
    let lacking = |kind: &str| {
        let (kind, payload) = (Kind::new(kind).unwrap(), Payload::Absent { len: 3, hash: [3; 32] });
        let id = hasher.id(&author, 2, &prev, hlc, &kind, &payload);
        Event { id, author, seq: 2, prev, hlc, kind, payload }
    };
    let before = Some(MeshlogId([4; 16]));
    for kind in ["record.create", "field.set", "note.add", "record.archive", "app.reading"] {
        assert_eq!(translate(&lacking(kind), before), Err(PayloadAbsent), "{kind}");
    }
    for kind in ["attachment.add", "node.profile", "foreign.meshlog", "event.erase"] {
        let event = lacking(kind);
        let wire: Json = serde_json::from_str(&translate(&event, before).unwrap().wire).unwrap();
        assert_eq!(
            (&wire["k"], &wire["p"]),
            (&json!("mosaik.ref"), &json!({ "event": event.id.to_string() }))
        );
    }
}
