//! Bytes as the value of a slot, which anybody who knows a network's name can sign.
//!
//! An input is what it stands for (a byte below), the slot, a seq of 8 bytes, and the value.

use std::sync::LazyLock;

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signer, SigningKey};
use mosaik_core::{
    id::{AuthorId, NodeId},
    key::{Network, NetworkKeys},
};
use mosaik_dht::{
    Hint, Neighbour,
    lease::LEASE_LEN_MAX_S,
    record::{Draft, NEIGHBOURS_MAX, Record, build, parse},
    slot::{SlotKeys, SlotValue, VALUE_LEN_MAX},
};
use pkarr::{Keypair, SignedPacket};
use rand::RngExt;

use super::{
    Chance, Seed, Target, bytes, chance as chance_from,
    vectors::{self, vectors},
    world::{self, key},
};

/// See the module's head.
pub const TARGET: Target = Target { name: "slot", seeds, mutate, check };

/// What the value of an input is.
const OPEN: u8 = 0;
/// As it stands in a slot of a secret network.
const SEALED: u8 = 1;
/// What is sealed there, before it is.
const PLAIN: u8 = 2;
/// Where chance begins to draw a draft that is written and read.
const DRAFT: u8 = 3;

const NONCE: [u8; 24] = [7; 24];
const SEQ: i64 = 1_750_000_000_123_456;
const ISSUED_S: u64 = 1_750_000_000;

/// A network with the keys of its slots.
struct Slots {
    keys: NetworkKeys,
    slots: SlotKeys,
}

impl Slots {
    fn new(keys: NetworkKeys) -> Self {
        Self { slots: SlotKeys::new(&keys), keys }
    }

    /// A value, signed as a storage node asks it to be.
    ///
    /// Source: BEP 44, the buffer that is signed.
    fn signed(&self, slot: u8, seq: i64, value: &[u8]) -> SlotValue {
        let key = SigningKey::from_bytes(&self.keys.slot_seeds[usize::from(slot)]);
        let head = format!("3:seqi{seq}e1:v{}:", value.len());
        let signature = key.sign(&[head.as_bytes(), value].concat()).to_bytes();
        SlotValue { seq, signature, value: value.to_vec() }
    }
}

static OPEN_NETWORK: LazyLock<Slots> = LazyLock::new(|| Slots::new(world::KEYS.clone()));

static SECRET_NETWORK: LazyLock<Slots> = LazyLock::new(|| {
    let secret = std::array::from_fn(|at| at as u8);
    Slots::new(Network::Secret { secret, creator: AuthorId([0; 32]) }.keys())
});

static SEEDS: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    let file = vectors!("slot");
    let mut seeds = Vec::new();
    for (name, kind) in [("public", OPEN), ("secret", SEALED)] {
        for record in ["record", "tombstone"] {
            let entry = &file[name][record];
            let value = vectors::bytes(entry, "value");
            seeds.push((format!("{name}-{record}"), input(kind, 3, SEQ, &value)));
            if kind == SEALED {
                let plain = vectors::bytes(entry, "plaintext");
                seeds.push((format!("plain-{record}"), input(PLAIN, 3, SEQ, &plain)));
            }
        }
        for (n, entry) in vectors::list(&file[name], "refused") {
            let value = vectors::bytes(entry, "value");
            seeds.push((format!("{name}-refused-{n:02}"), input(kind, 3, SEQ, &value)));
        }
    }
    seeds.push(("draft-0".to_owned(), input(DRAFT, 3, SEQ, b"draft")));
    seeds
});

fn seeds() -> Vec<Seed> {
    SEEDS.clone()
}

fn input(kind: u8, slot: u8, seq: i64, value: &[u8]) -> Vec<u8> {
    [&[kind, slot][..], &seq.to_be_bytes(), value].concat()
}

fn split(input: &[u8]) -> Option<(u8, u8, i64, &[u8])> {
    let (&[kind, slot], rest) = input.split_first_chunk()?;
    let (seq, value) = rest.split_first_chunk()?;
    Some((kind % 4, slot % 16, i64::from_be_bytes(*seq), value))
}

/// What is taken is bounded and bound to its slot, and no bit of it can change unsigned.
fn check(input: &[u8]) {
    let Some((kind, slot, seq, value)) = split(input) else { return };
    match kind {
        OPEN => takes(&OPEN_NETWORK, slot, seq, value),
        SEALED => takes(&SECRET_NETWORK, slot, seq, value),
        PLAIN => {
            if let Some(value) = sealed(slot, value) {
                takes(&SECRET_NETWORK, slot, seq, &value);
            }
        }
        _ => comes_back(slot, seq, value),
    }
}

fn takes(network: &Slots, slot: u8, seq: i64, value: &[u8]) {
    let signed = network.signed(slot, seq, value);
    let Ok(record) = parse(&network.slots, slot, &signed) else { return };
    assert!(seq >= 0 && value.len() <= VALUE_LEN_MAX);
    is_bounded(&record);
    let elsewhere = (slot + 1) % 16;
    let copied = network.signed(elsewhere, seq, value);
    assert!(parse(&network.slots, elsewhere, &copied).is_err(), "it holds in another slot, too");
    for nth in 0..2 {
        if let Some(value) = bytes::flipped(value, nth) {
            let flipped = SlotValue { value, ..signed.clone() };
            assert!(parse(&network.slots, slot, &flipped).is_err(), "a flipped bit was taken");
        }
    }
}

fn is_bounded(record: &Record) {
    assert!(record.neighbours.len() <= NEIGHBOURS_MAX);
    assert!(record.addresses.len() <= VALUE_LEN_MAX && record.relays.len() <= VALUE_LEN_MAX);
    let (issued_s, expires_s) = (record.lease.issued_s, record.lease.expires_s);
    assert!(expires_s.checked_sub(issued_s).is_some_and(|len_s| len_s <= LEASE_LEN_MAX_S));
    assert!(!record.lease.is_live(expires_s));
}

/// Whether an input is a record that its holder signed.
pub fn is_taken(input: &[u8]) -> bool {
    let Some((kind, slot, seq, value)) = split(input) else { return false };
    let (network, value) = match kind {
        OPEN => (&OPEN_NETWORK, Some(value.to_vec())),
        SEALED => (&SECRET_NETWORK, Some(value.to_vec())),
        PLAIN => (&SECRET_NETWORK, sealed(slot, value)),
        _ => return seq >= 0,
    };
    value.is_some_and(|value| {
        parse(&network.slots, slot, &network.signed(slot, seq, &value)).is_ok()
    })
}

/// What a node writes it can read.
fn comes_back(slot: u8, seq: i64, seed: &[u8]) {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(seed).as_bytes()[..8]);
    let mut chance = chance_from(u64::from_le_bytes(first));
    let draft = draft(&mut chance);
    for network in [&OPEN_NETWORK, &SECRET_NETWORK] {
        match build(&network.slots, slot, &key(9), &draft, seq, &NONCE) {
            Ok((value, record)) => {
                assert!(value.value.len() <= VALUE_LEN_MAX);
                is_bounded(&record);
                let read = parse(&network.slots, slot, &value).expect("own records are read");
                assert_eq!(read, record, "a record comes back as another");
            }
            Err(error) => assert!(seq < 0, "{error}"),
        }
    }
}

fn draft(chance: &mut Chance) -> Draft {
    let relays = ["https://relay.example.org./", "http://[::1]:3340/", "", "https://ä/", "x y"];
    let mut relays: Vec<String> =
        (0..chance.random_range(0..4)).map(|_| relays[chance.random_range(0..5)].into()).collect();
    relays.push("r".repeat(chance.random_range(0..300)));
    let address = |chance: &mut Chance| match chance.random_range(0..2) {
        0 => (chance.random::<[u8; 4]>(), chance.random()).into(),
        _ => (chance.random::<[u8; 16]>(), chance.random()).into(),
    };
    let addresses = (0..chance.random_range(0..20)).map(|_| address(chance)).collect();
    let neighbours = (0..chance.random_range(0..6)).map(|_| {
        let hint = match chance.random_range(0..3) {
            0 => Hint::Address(address(chance)),
            1 => Hint::Relay("relay.example.net.".to_owned()),
            _ => Hint::Relay("h".repeat(chance.random_range(0..300))),
        };
        Neighbour { node: NodeId(chance.random()), hint }
    });
    let neighbours = neighbours.collect();
    let len_s = [0, 3600, LEASE_LEN_MAX_S][chance.random_range(0..3)];
    Draft { relays, addresses, neighbours, issued_s: ISSUED_S, expires_s: ISSUED_S + len_s }
}

/// A plaintext as a value of the secret network, if it fits one.
fn sealed(slot: u8, plain: &[u8]) -> Option<Vec<u8>> {
    let network = &*SECRET_NETWORK;
    let aad = network.slots.public_key(slot);
    let cipher = XChaCha20Poly1305::new((&network.keys.slot_record).into());
    let sealed = cipher.encrypt(&XNonce::from(NONCE), Payload { msg: plain, aad: &aad }).ok()?;
    let text = BASE64URL_NOPAD.encode(&[&NONCE[..], &sealed].concat());
    let mut builder = SignedPacket::builder();
    for (at, part) in text.as_bytes().chunks(240).enumerate() {
        let (name, text) = (format!("_e{at}"), String::from_utf8_lossy(part).into_owned());
        builder = builder.txt(name.as_str().try_into().ok()?, text.as_str().try_into().ok()?, 600);
    }
    let key = Keypair::from_secret_key(&network.keys.slot_seeds[usize::from(slot)]);
    Some(builder.sign(&key).ok()?.encoded_packet().to_vec())
}

fn mutate(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let Some((mut kind, mut slot, mut seq, value)) = split(bytes) else {
        return *bytes = SEEDS[chance.random_range(0..SEEDS.len())].1.clone();
    };
    let mut value = value.to_vec();
    match chance.random_range(0..12) {
        0 => seq = [0, -1, i64::MAX, i64::MIN, chance.random()][chance.random_range(0..5)],
        1 => slot = chance.random_range(0..16),
        2 => kind = chance.random_range(0..4),
        3 => {
            // Another record, whole.
            let draft = draft(chance);
            kind = [OPEN, SEALED][chance.random_range(0..2)];
            let network = if kind == OPEN { &OPEN_NETWORK } else { &SECRET_NETWORK };
            if let Ok((built, _)) = build(&network.slots, slot, &key(9), &draft, SEQ, &NONCE) {
                value = built.value;
            }
        }
        _ => bytes::change(&mut value, chance),
    }
    *bytes = input(kind, slot, seq, &value);
}
