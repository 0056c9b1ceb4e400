//! The golden vectors of FORMAT.md, made by another implementation: `tests/vectors/*.json` at the
//! top of the repository. Each is checked both ways, and what must be refused is.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use mosaik_core::{
    binding::RadioIdentity,
    codec::{Reader, Writer},
    event::{Event, Hasher, Kind, Payload},
    feed::{Tip, write_item},
    hlc::{Hlc, is_held_back},
    id::{AuthorId, EventId, Fingerprint, NodeId},
    key::{Network, NetworkKind},
    kv::MemoryKv,
    record::{RecordEvent, application_draft, is_reserved},
    run::{Run, VerifiedRun, sign_head, verify_head},
    ticket::Ticket,
    trie::{Item, LEAF_MAX, Prefix, Rule, Trie},
    value::{Float, Geo, Value},
    view,
};
use serde_json::Value as Json;

macro_rules! vectors {
    ($name:literal) => {{
        let text = include_str!(concat!("../../../tests/vectors/", $name, ".json"));
        serde_json::from_str::<Json>(text).unwrap()
    }};
}

/// The members of a list; a list without any would test nothing.
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

fn hex(of: &Json, name: &str) -> Vec<u8> {
    HEXLOWER.decode(text(of, name).as_bytes()).unwrap()
}

fn array<const N: usize>(of: &Json, name: &str) -> [u8; N] {
    hex(of, name).try_into().unwrap()
}

fn fingerprint(of: &Json) -> Fingerprint {
    Fingerprint(array(of, "fingerprint"))
}

fn payload(of: &Json) -> Payload {
    let absent = &of["absent"];
    if absent.is_null() {
        Payload::Present(hex(of, "payload"))
    } else {
        Payload::Absent { len: number(absent, "len") as u32, hash: array(absent, "hash") }
    }
}

fn event(of: &Json) -> Event {
    Event {
        id: EventId(array(of, "id")),
        author: AuthorId(array(of, "author")),
        seq: number(of, "seq"),
        prev: EventId(array(of, "prev")),
        hlc: Hlc::new(number(of, "ms"), number(of, "counter") as u16),
        kind: Kind::new(text(of, "kind")).unwrap(),
        payload: payload(of),
    }
}

#[test]
fn every_key_of_a_network_follows_from_its_id() {
    let vectors = vectors!("keys");
    for of in list(&vectors, "networks") {
        let network = Network::parse(text(of, "id")).unwrap();
        assert_eq!(network.to_string(), text(of, "id"));
        if let Network::Secret { secret, creator } = &network {
            assert_eq!(*secret, array(of, "secret"));
            assert_eq!(creator.0, array(of, "creator"));
        }
        let keys = network.keys();
        assert_eq!(keys.kind.as_str(), text(of, "kind"));
        assert_eq!(keys.kind == NetworkKind::Secret, text(of, "id").starts_with("mnet1"));
        assert_eq!(keys.fingerprint, fingerprint(of));
        assert_eq!(keys.membership, array(of, "membership"));
        assert_eq!(keys.topic, array(of, "topic"));
        assert_eq!(keys.slot_record, array(of, "slot_record"));
        assert_eq!(keys.mdns, array(of, "mdns"));
        assert_eq!(keys.radio, array(of, "radio"));
        let slots = list(of, "slots");
        assert_eq!(slots.len(), keys.slot_seeds.len());
        for (slot, seed) in slots.iter().zip(&keys.slot_seeds) {
            assert_eq!(*seed, array(slot, "seed"));
            let key = SigningKey::from_bytes(seed).verifying_key();
            assert_eq!(key.to_bytes(), array(slot, "public_key"));
        }
    }
    for of in list(&vectors, "same") {
        let keys = |name| Network::parse(text(of, name)).unwrap().keys();
        assert_eq!(keys("id"), keys("as"));
    }
}

#[test]
fn what_is_no_network_id_is_refused() {
    for of in list(&vectors!("keys"), "refused") {
        assert!(Network::parse(text(of, "id")).is_err(), "{of}");
    }
}

#[test]
fn an_event_id_is_derived_from_fingerprint_and_header() {
    let vectors = vectors!("event");
    let id = |hasher: &Hasher, event: &Event| {
        let Event { author, seq, prev, hlc, kind, payload, .. } = event;
        hasher.id(author, *seq, prev, *hlc, kind, payload)
    };
    let hasher = Hasher::new(&fingerprint(&vectors));
    for of in list(&vectors, "events") {
        let event = event(of);
        assert_eq!(id(&hasher, &event), event.id, "{of}");
        assert_eq!(event.payload.hash(), array(of, "payload_hash"));
        assert_eq!(event.payload.len() as u64, number(of, "payload_len"));
    }
    let elsewhere = &vectors["elsewhere"];
    let first = event(&list(&vectors, "events")[0]);
    let there = id(&Hasher::new(&fingerprint(elsewhere)), &first);
    assert_eq!(there.0, array(elsewhere, "id"));
    for kind in list(&vectors, "refused_kinds") {
        assert!(Kind::new(kind.as_str().unwrap()).is_err(), "{kind}");
    }
}

#[test]
fn a_head_is_signed_over_its_context_and_id() {
    for of in list(&vectors!("head"), "heads") {
        let key = SigningKey::from_bytes(&array(of, "seed"));
        let (author, id) = (AuthorId(array(of, "author")), EventId(array(of, "id")));
        assert_eq!(key.verifying_key().to_bytes(), author.0);
        assert_eq!(sign_head(&key, &id), array(of, "signature"));
        assert!(verify_head(&author, &id, &array(of, "signature")));
    }
}

/// Who multiplies the cofactor in takes this one too, but also others that are refused here.
#[test]
fn a_key_with_a_part_of_small_order_is_taken_where_that_part_vanishes() {
    for of in list(&vectors!("head"), "taken") {
        let (author, id) = (AuthorId(array(of, "author")), EventId(array(of, "id")));
        assert!(verify_head(&author, &id, &array(of, "signature")), "{of}");
    }
}

#[test]
fn a_signature_that_only_a_lax_check_takes_is_refused() {
    for of in list(&vectors!("head"), "refused") {
        let (author, id) = (AuthorId(array(of, "author")), EventId(array(of, "id")));
        assert!(!verify_head(&author, &id, &array(of, "signature")), "{of}");
    }
}

#[test]
fn a_run_has_the_bytes_of_the_format() {
    let vectors = vectors!("run");
    let hasher = Hasher::new(&fingerprint(&vectors));
    let key = SigningKey::from_bytes(&array(&vectors, "seed"));
    for of in list(&vectors, "runs") {
        let name = text(of, "name");
        let run = Run::decode(&hex(of, "run")).unwrap();
        assert_eq!(run.encode(), hex(of, "run"), "{name}");
        let run = run.verify(&hasher).unwrap();
        assert_eq!(run.author().0, array(of, "author"));
        assert_eq!(run.base(), (number(of, "start_seq") - 1, EventId(array(of, "base"))));
        assert_eq!(run.events().len() as u64, number(of, "count"));
        assert_eq!(run.head().id.0, array(of, "head"));
        assert_eq!(*run.signature(), array(of, "signature"));
        if let Some(events) = of["events"].as_array() {
            let events: Vec<Event> = events.iter().map(event).collect();
            assert_eq!(run.events(), events, "{name}");
            assert_eq!(VerifiedRun::sign(&key, events).encode(), hex(of, "run"), "{name}");
        }
    }
}

#[test]
fn what_is_no_run_is_refused() {
    let vectors = vectors!("run");
    let hasher = Hasher::new(&fingerprint(&vectors));
    for of in list(&vectors, "refused") {
        let taken = Run::decode(&hex(of, "run")).and_then(|run| run.verify(&hasher));
        assert!(taken.is_err(), "{of}");
    }
}

/// An item as it stands in the vectors.
struct Bytes(Vec<u8>);

impl Item for Bytes {
    fn write_item(&self, _: &AuthorId, writer: &mut Writer) {
        writer.raw(&self.0);
    }
}

#[test]
fn a_frontier_item_has_the_bytes_of_the_format() {
    for of in list(&vectors!("item"), "items") {
        let tip = |tip| Tip { seq: number(tip, "seq"), id: EventId(array(tip, "id")) };
        let tips: Vec<Tip> = list(of, "tips").iter().map(tip).collect();
        let mut writer = Writer::new();
        write_item(&AuthorId(array(of, "author")), &tips, &mut writer);
        assert_eq!(writer.as_bytes(), hex(of, "item"));
    }
}

#[test]
fn the_hash_of_every_prefix_is_that_of_the_format() {
    let vectors = vectors!("trie");
    let none = BTreeSet::new();
    for of in list(&vectors, "tries") {
        let mut trie = Trie::new(Rule::frontier(&fingerprint(&vectors)));
        for item in of["items"].as_array().unwrap() {
            let item = HEXLOWER.decode(item.as_str().unwrap().as_bytes()).unwrap();
            trie.insert(AuthorId(item[..32].try_into().unwrap()), Bytes(item));
        }
        assert_eq!(trie.hash(&Prefix::EMPTY, &none), array(of, "top"), "{} items", trie.len());
        for at in list(of, "prefixes") {
            let prefix = text(at, "prefix").chars().fold(Prefix::EMPTY, |prefix, digit| {
                prefix.child(digit.to_digit(16).unwrap() as usize)
            });
            let mut writer = Writer::new();
            prefix.write(&mut writer);
            assert_eq!(writer.as_bytes(), hex(at, "bytes"));
            assert_eq!(Prefix::read(&mut Reader::new(writer.as_bytes()), 64), Ok(prefix));
            assert_eq!(trie.count(&prefix, &none) as u64, number(at, "authors"));
            assert_eq!(trie.hash(&prefix, &none), array(at, "hash"), "{at}");
        }
        let key = |key: &Json| key.as_str().unwrap().parse::<AuthorId>().unwrap();
        let left_out: BTreeSet<AuthorId> =
            of["left_out"].as_array().unwrap().iter().map(key).collect();
        assert_eq!(trie.hash(&Prefix::EMPTY, &left_out), array(of, "top_without"));
    }
    assert!(
        list(&vectors, "tries").iter().any(|of| of["items"].as_array().unwrap().len() > LEAF_MAX)
    );
    for of in list(&vectors, "refused_prefixes") {
        let bytes = hex(of, "bytes");
        let mut reader = Reader::new(&bytes);
        assert!(Prefix::read(&mut reader, 64).is_err(), "{of}");
    }
}

#[test]
fn a_peer_ticket_has_the_letters_of_the_format() {
    let vectors = vectors!("ticket");
    for of in list(&vectors, "tickets") {
        let address = |of: &Json| {
            let port = number(of, "port") as u16;
            SocketAddr::new(text(of, "ip").parse().unwrap(), port)
        };
        let relays = of["relays"].as_array().unwrap().iter();
        let ticket = Ticket {
            node: NodeId(array(of, "node")),
            relays: relays.map(|relay| relay.as_str().unwrap().to_owned()).collect(),
            addresses: of["addresses"].as_array().unwrap().iter().map(address).collect(),
        };
        assert_eq!(ticket.to_string(), text(of, "ticket"));
        assert_eq!(text(of, "ticket").parse::<Ticket>(), Ok(ticket));
    }
    for of in list(&vectors, "same") {
        assert_eq!(text(of, "ticket").parse::<Ticket>(), text(of, "as").parse::<Ticket>());
        assert!(text(of, "ticket").parse::<Ticket>().is_ok());
    }
    for of in list(&vectors, "refused") {
        assert!(text(of, "ticket").parse::<Ticket>().is_err(), "{of}");
    }
}

fn float(bits: &Json) -> Float {
    let bits = u64::from_str_radix(bits.as_str().unwrap(), 16).unwrap();
    let float = Float::new(f64::from_bits(bits));
    assert_eq!(float.get().to_bits(), bits);
    float
}

fn value(of: &Json) -> Value {
    let (name, held) = of.as_object().unwrap().iter().next().unwrap();
    let metres = |part: &Json| (!part.is_null()).then(|| float(part));
    match name.as_str() {
        "null" => Value::Null,
        "bool" => Value::Bool(held.as_bool().unwrap()),
        "int" => Value::Int(held.as_i64().unwrap()),
        "float" => Value::Float(float(held)),
        "text" => Value::Text(held.as_str().unwrap().to_owned()),
        "bytes" => Value::Bytes(hex(of, "bytes")),
        "list" => Value::list(held.as_array().unwrap().iter().map(value).collect()).unwrap(),
        "map" => {
            let entries = held.as_object().unwrap().iter();
            Value::map(entries.map(|(name, held)| (name.clone(), value(held))).collect()).unwrap()
        }
        "time" => Value::Time(held.as_i64().unwrap()),
        "geo" => Value::Geo(Geo {
            lat: float(&held[0]),
            lon: float(&held[1]),
            altitude: metres(&held[2]),
            accuracy: metres(&held[3]),
        }),
        name => panic!("a value of type {name}"),
    }
}

#[test]
fn a_value_has_the_bytes_of_the_format() {
    let vectors = vectors!("value");
    for of in list(&vectors, "values") {
        let value = value(&of["value"]);
        assert_eq!(value.encode(), hex(of, "bytes"), "{of}");
        assert_eq!(Value::decode(&hex(of, "bytes")), Ok(value), "{of}");
    }
    for pair in list(&vectors, "different") {
        let [one, other] = [0, 1].map(|at| HEXLOWER.decode(pair[at].as_str().unwrap().as_bytes()));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_ne!(Value::decode(&one).unwrap(), Value::decode(&other).unwrap(), "{pair}");
    }
}

#[test]
fn what_is_no_value_is_refused() {
    for of in list(&vectors!("value"), "refused") {
        assert!(Value::decode(&hex(of, "bytes")).is_err(), "{of}");
    }
}

fn record_event(of: &Json) -> RecordEvent {
    let own = |name| text(of, name).to_owned();
    match text(of, "kind") {
        "record.create" => RecordEvent::Create { record: own("record"), form: own("form") },
        "field.set" => RecordEvent::Set {
            record: own("record"),
            field: own("field"),
            value: value(&of["value"]),
            over: of["over"]
                .as_array()
                .unwrap()
                .iter()
                .map(|name| HEXLOWER.decode(name.as_str().unwrap().as_bytes()).unwrap())
                .map(|name| name.try_into().unwrap())
                .collect(),
        },
        "note.add" => RecordEvent::Note { record: own("record"), text: own("text") },
        "attachment.add" => RecordEvent::Attach {
            record: own("record"),
            field: own("field"),
            blob: array(of, "blob"),
            size: number(of, "size"),
            mime: own("mime"),
            name: own("name"),
        },
        "record.archive" => RecordEvent::Archive {
            record: own("record"),
            archived: of["archived"].as_bool().unwrap(),
        },
        "node.profile" => RecordEvent::Profile { name: own("name") },
        kind => panic!("an event of kind {kind}"),
    }
}

#[test]
fn a_record_event_has_the_payload_of_the_format() {
    let vectors = vectors!("record");
    for of in list(&vectors, "events") {
        let event = record_event(of);
        let draft = event.encode().unwrap();
        assert_eq!(draft.kind.as_str(), text(of, "kind"));
        assert_eq!(draft.payload, hex(of, "payload"), "{of}");
        assert_eq!(RecordEvent::decode(text(of, "kind"), &draft.payload), Ok(Some(event)));
    }
    for kind in list(&vectors, "not_decoded") {
        assert_eq!(RecordEvent::decode(kind.as_str().unwrap(), b"\x01r\x01f"), Ok(None), "{kind}");
    }
}

#[test]
fn an_ill_typed_payload_is_refused() {
    for of in list(&vectors!("record"), "refused") {
        assert!(RecordEvent::decode(text(of, "kind"), &hex(of, "payload")).is_err(), "{of}");
    }
}

#[test]
fn an_identity_in_reticulum_and_its_author_name_each_other() {
    let vectors = vectors!("record");
    for of in list(&vectors, "radios") {
        let identity = RadioIdentity::read(&hex(of, "payload")).unwrap();
        assert_eq!(
            (identity.hash(), identity.draft().payload),
            (array(of, "identity"), hex(of, "payload"))
        );
        assert!(identity.is_of(&AuthorId(array(of, "author"))), "{of}");
    }
    for of in list(&vectors, "refused_radios") {
        let author = AuthorId(array(of, "author"));
        let identity = RadioIdentity::read(&hex(of, "payload"));
        assert!(!identity.is_ok_and(|identity| identity.is_of(&author)), "{of}");
    }
}

#[test]
fn only_the_listed_prefixes_are_reserved() {
    let vectors = vectors!("record");
    for (name, reserved) in [("reserved", true), ("not_reserved", false)] {
        for kind in list(&vectors, name) {
            let kind = Kind::new(kind.as_str().unwrap()).unwrap();
            assert_eq!(is_reserved(kind.as_str()), reserved, "{kind}");
            assert_eq!(application_draft(kind, &Value::Null).is_err(), reserved);
        }
    }
}

/// What the vectors show of a record.
fn shown(of: &view::Record) -> BTreeMap<String, Vec<(EventId, Value)>> {
    let form = of.form.iter().map(|form| (String::new(), form));
    let fields = of.fields.iter().map(|(name, field)| (name.clone(), field));
    form.chain(fields)
        .map(|(name, field)| {
            let mut candidates: Vec<_> =
                field.candidates().map(|one| (one.origin.id, one.value.clone())).collect();
            candidates.reverse();
            (name, candidates)
        })
        .collect()
}

fn check_record(kv: &MemoryKv, of: &Json) {
    let record = view::record(kv, text(of, "record")).unwrap().unwrap();
    assert_eq!(record.archived, of["archived"].as_bool().unwrap());
    let candidate = |of: &Json| (EventId(array(of, "id")), value(&of["value"]));
    let fields = of["fields"].as_object().unwrap().iter().map(|(name, candidates)| {
        (name.clone(), candidates.as_array().unwrap().iter().map(candidate).collect())
    });
    assert_eq!(shown(&record), fields.collect());
    let texts = |name: &str| -> Vec<&str> {
        of[name].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
    };
    assert_eq!(record.conflicts(), texts("conflicts"));
    assert_eq!(record.notes.iter().map(|note| &note.text).collect::<Vec<_>>(), texts("notes"));
    let files = of["attachments"].as_array().unwrap();
    assert_eq!(record.attachments.len(), files.len());
    for (file, of) in record.attachments.iter().zip(files) {
        assert_eq!((&*file.field, file.blob), (text(of, "field"), array(of, "blob")));
        assert_eq!((&*file.mime, &*file.name), (text(of, "mime"), text(of, "name")));
        assert_eq!(file.size, number(of, "size"));
    }
}

#[test]
fn a_set_of_events_folds_to_the_view_of_the_format() {
    let vectors = vectors!("view");
    let fingerprint = fingerprint(&vectors);
    let (hasher, rule) = (Hasher::new(&fingerprint), view::rule(&fingerprint));
    for of in list(&vectors, "views") {
        let mut events: Vec<Event> = of["events"].as_array().unwrap().iter().map(event).collect();
        let now = number(of, "now");
        events.retain(|e| !view::stamp(e).is_some_and(|stamp| is_held_back(stamp, now)));
        for _ in 0..2 {
            let mut kv = MemoryKv::new();
            view::reset(&mut kv).unwrap();
            for event in &events {
                let Event { author, seq, prev, hlc, kind, payload, .. } = event;
                assert_eq!(hasher.id(author, *seq, prev, *hlc, kind, payload), event.id);
                view::fold(&mut kv, event).unwrap();
            }
            view::settle(&mut kv, &rule).unwrap();
            let records = of["records"].as_array().unwrap();
            assert_eq!(view::counts(&kv).unwrap().records as usize, records.len());
            for record in records {
                check_record(&kv, record);
            }
            let profiles = of["profiles"].as_object().unwrap();
            for (author, name) in profiles {
                let profile = view::profile(&kv, &author.parse().unwrap()).unwrap().unwrap();
                assert_eq!(profile.name, name.as_str().unwrap());
            }
            let digest = view::digest(&kv).unwrap();
            assert_eq!(HEXLOWER.encode(&digest), text(of, "digest"), "{}", text(of, "name"));
            events.reverse();
        }
    }
}
