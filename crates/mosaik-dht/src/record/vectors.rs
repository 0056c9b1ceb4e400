//! The golden vectors of FORMAT.md: what two implementations must agree on, byte for byte. The file
//! was written by the other one (`tests/vectors/generator/slots.py`).

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use mosaik_core::{
    id::{AuthorId, NodeId},
    key::Network,
};
use serde_json::{Value, json};

use super::{Draft, Hint, Neighbour, RecordError, build, parse, sealed, signed_texts};
use crate::{
    lease,
    slot::{SlotKeys, SlotValue},
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/slot.json");
const ISSUED_S: u64 = 1_750_000_000;
const SEQ: i64 = 1_750_000_000_123_456;
const NONCE: [u8; 24] = *b"twenty-four nonce bytes!";

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn networks() -> [(&'static str, Network); 2] {
    let secret = std::array::from_fn(|at| at as u8);
    [
        ("public", Network::Public("mosaik-node-test-vector-1".to_owned())),
        ("secret", Network::Secret { secret, creator: AuthorId([0; 32]) }),
    ]
}

fn draft(expires_s: u64) -> Draft {
    let neighbour = NodeId(SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes());
    Draft {
        relays: vec!["https://relay.example.org./".to_owned()],
        addresses: vec![
            "[2001:db8::7]:4242".parse().expect("v6"),
            "203.0.113.7:4242".parse().expect("v4"),
        ],
        neighbours: vec![
            Neighbour {
                node: neighbour,
                hint: Hint::Address("198.51.100.8:4343".parse().expect("v4")),
            },
            Neighbour { node: neighbour, hint: Hint::Relay("relay.example.net.".to_owned()) },
        ],
        issued_s: ISSUED_S,
        expires_s,
    }
}

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// One record, with all that leads to it.
fn record(keys: &SlotKeys, slot: u8, expires_s: u64) -> Value {
    let (value, record) =
        build(keys, slot, &key(), &draft(expires_s), SEQ, &NONCE).expect("a record");
    let addresses = lease::digest(signed_texts(&record).iter().map(String::as_str));
    let neighbours = record.neighbours.iter();
    let mut vector = json!({
        "slot": slot,
        "seq": SEQ,
        "relays": record.relays,
        "addresses": record.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "neighbours": neighbours.map(|n| json!([n.node.to_string(), n.hint.to_string()])).collect::<Vec<_>>(),
        "issued_s": record.lease.issued_s,
        "expires_s": record.lease.expires_s,
        "addresses_digest": hex(&addresses),
        "lease_signature": hex(&record.lease.signature),
        "lease_text": record.lease.to_text(),
        "value": hex(&value.value),
        "signature": hex(&value.signature),
    });
    if keys.seal().is_some() {
        vector["nonce"] = json!(hex(&NONCE));
        vector["plaintext"] = json!(hex(&sealed::encode(&record)));
    }
    vector
}

/// The whole file, from nothing but names, seeds and times.
fn vectors() -> Value {
    let mut vectors = json!({
        "endpoint": {
            "seed": hex(&[7; 32]),
            "id": hex(key().verifying_key().as_bytes()),
            "base58": bs58::encode(key().verifying_key().as_bytes()).into_string(),
        },
    });
    for (name, network) in networks() {
        let derived = network.keys();
        let keys = SlotKeys::new(&derived);
        let slots = (0..16).map(|slot| {
            let public_key = keys.public_key(slot);
            let target = mainline::MutableItem::target_from_key(&public_key, None);
            json!({
                "seed": hex(&derived.slot_seeds[usize::from(slot)]),
                "public_key": hex(&public_key),
                "z_base_32": keys.z_base_32(slot),
                "target": hex(target.as_bytes()),
            })
        });
        vectors[name] = json!({
            "network": network.to_string(),
            "fingerprint": derived.fingerprint.to_string(),
            "slot_record": hex(&derived.slot_record),
            "slots": slots.collect::<Vec<_>>(),
            "record": record(&keys, 3, ISSUED_S + 3600),
            "tombstone": record(&keys, 3, ISSUED_S),
            "preferred": preferred(),
        });
    }
    vectors
}

/// The slots in the order in which the endpoint would take them.
fn preferred() -> Vec<u8> {
    let node = NodeId(key().verifying_key().to_bytes());
    let mut slots: Vec<u8> = (0..16).collect();
    slots.sort_by_key(|&slot| crate::slot::preference(&node, slot));
    slots
}

/// The file holds more: values of which this code could not make one.
fn without_foreign(mut file: Value) -> Value {
    for (name, _) in networks() {
        let network = file[name].as_object_mut().expect("a network");
        network.remove("taken");
        network.remove("refused");
    }
    file
}

fn file() -> Value {
    let text = std::fs::read_to_string(FILE).expect("the vectors are in the repository");
    serde_json::from_str(&text).expect("the vectors are JSON")
}

#[test]
fn the_vectors_in_the_repository_are_what_this_code_makes() {
    let made = vectors();
    assert_eq!(made, without_foreign(file()), "made here:\n{made:#}");
}

fn slot_value(vector: &Value) -> SlotValue {
    let bytes = |field: &str| {
        let text = vector[field].as_str().expect("hex");
        HEXLOWER.decode(text.as_bytes()).expect("hex")
    };
    SlotValue {
        seq: vector["seq"].as_i64().expect("a number"),
        signature: bytes("signature").try_into().expect("64 bytes"),
        value: bytes("value"),
    }
}

#[test]
fn the_refused_values_in_the_repository_are_refused_for_what_they_say() {
    let file = file();
    for (name, network) in networks() {
        let keys = SlotKeys::new(&network.keys());
        let vectors = file[name]["refused"].as_array().expect("a list");
        assert!(vectors.len() >= 8);
        for vector in vectors {
            let error = parse(&keys, 3, &slot_value(vector));
            let error = error.expect_err(vector["why"].as_str().expect("a reason"));
            // The slot's key did sign it: it is refused for what it says.
            assert!(!matches!(error, RecordError::Packet(_)), "{vector}");
        }
    }
}

#[test]
fn the_records_in_the_repository_are_read_as_they_say() {
    let file = file();
    for (name, network) in networks() {
        let keys = SlotKeys::new(&network.keys());
        let written = ["record", "tombstone"].map(|kind| &file[name][kind]);
        let taken = file[name]["taken"].as_array().expect("a list");
        assert!(taken.len() >= 6);
        for vector in written.into_iter().chain(taken) {
            let record = parse(&keys, 3, &slot_value(vector));
            let record = record.unwrap_or_else(|error| panic!("{error}: {vector}"));
            assert_eq!(Some(record.node.to_string().as_str()), file["endpoint"]["id"].as_str());
            let addresses = record.addresses.iter().map(ToString::to_string);
            let neighbours = record.neighbours.iter();
            let neighbours = neighbours.map(|n| json!([n.node.to_string(), n.hint.to_string()]));
            let read = json!({
                "relays": record.relays,
                "addresses": addresses.collect::<Vec<_>>(),
                "neighbours": neighbours.collect::<Vec<_>>(),
                "issued_s": record.lease.issued_s,
                "expires_s": record.lease.expires_s,
            });
            for (field, value) in read.as_object().expect("an object") {
                assert_eq!(value, &vector[field], "{field} of {vector}");
            }
            let is_tombstone = vector["expires_s"] == vector["issued_s"];
            assert_eq!(record.lease.is_live(ISSUED_S), !is_tombstone);
            assert_eq!(record.lease.is_tombstone(), is_tombstone);
        }
    }
}
