//! The golden vectors of FORMAT.md, made by another implementation: `tests/vectors/*.json` at the
//! top of the repository. Each is checked both ways, and what must be refused is.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, net::SocketAddr};

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use mosaik_core::{
    codec::{Reader, Writer},
    event::{Event, Hasher, Kind, Payload},
    feed::{Tip, write_item},
    hlc::Hlc,
    id::{AuthorId, EventId, Fingerprint, NodeId},
    key::{Network, NetworkKind},
    run::{Run, VerifiedRun, sign_head, verify_head},
    ticket::Ticket,
    trie::{Item, LEAF_MAX, Prefix, Rule, Trie},
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
