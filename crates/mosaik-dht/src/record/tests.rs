use ed25519_dalek::SigningKey;
use mosaik_core::{
    id::{AuthorId, Fingerprint},
    key::Network,
    reach::Reach,
};
use proptest::prelude::*;

use super::*;
use crate::lease::LEASE_LEN_MAX_S;

const NOW_S: u64 = 1_750_000_000;
const SEQ: i64 = 1_750_000_000_000_000;
const NONCE: [u8; 24] = [5; 24];

fn public() -> SlotKeys {
    SlotKeys::new(&Network::Public("mosaik-node-test-vector-1".to_owned()).keys())
}

fn secret(byte: u8) -> SlotKeys {
    let network = Network::Secret { secret: [byte; 32], creator: AuthorId([0; 32]) };
    SlotKeys::new(&network.keys())
}

fn key(byte: u8) -> SigningKey {
    SigningKey::from_bytes(&[byte; 32])
}

fn node(byte: u8) -> NodeId {
    NodeId(key(byte).verifying_key().to_bytes())
}

fn draft() -> Draft {
    Draft {
        relays: vec!["https://relay.example.org./".to_owned()],
        addresses: vec![
            "203.0.113.7:4242".parse().expect("v4"),
            "[2001:db8::7]:4242".parse().expect("v6"),
        ],
        neighbours: vec![
            Neighbour { node: node(8), hint: Hint::Address("203.0.113.8:1".parse().expect("v4")) },
            Neighbour { node: node(9), hint: Hint::Relay("relay.example.org.".to_owned()) },
        ],
        issued_s: NOW_S,
        expires_s: NOW_S + 3600,
    }
}

fn built(keys: &SlotKeys, slot: u8, draft: &Draft) -> (SlotValue, Record) {
    build(keys, slot, &key(7), draft, SEQ, &NONCE).expect("a record")
}

/// A packet under the slot's key with any texts.
fn forged(keys: &SlotKeys, slot: u8, texts: &[(&str, &str)]) -> SlotValue {
    let texts: Vec<(String, String)> =
        texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let packet = packet(keys, slot, &texts, SEQ as u64).expect("a packet");
    let signature = packet.signature().to_bytes();
    SlotValue { seq: SEQ, signature, value: packet.encoded_packet().to_vec() }
}

/// Signs any bytes with the slot's key, as everybody who knows a public network's name can.
fn signed(keys: &SlotKeys, slot: u8, seq: i64, value: &[u8]) -> SlotValue {
    let key = SigningKey::from_bytes(&keys.keypair(slot).secret_key());
    let item = mainline::MutableItem::new(key, value, seq, None);
    SlotValue { seq, signature: *item.signature(), value: value.to_vec() }
}

/// The texts of a built public record, to tamper with.
fn texts_of(keys: &SlotKeys, slot: u8, draft: &Draft) -> Vec<(String, String)> {
    public::texts(&built(keys, slot, draft).1)
}

fn repacked(keys: &SlotKeys, slot: u8, texts: &[(String, String)]) -> SlotValue {
    let texts: Vec<(&str, &str)> = texts.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
    forged(keys, slot, &texts)
}

#[test]
fn a_record_of_either_kind_parses_back_to_what_went_in() {
    for keys in [public(), secret(1)] {
        let (value, record) = built(&keys, 3, &draft());
        assert!(value.value.len() <= VALUE_LEN_MAX);
        let parsed = parse(&keys, 3, &value).expect("our own record");
        assert_eq!(parsed, record);
        assert_eq!(parsed.node, node(7));
        assert_eq!(parsed.addresses, draft().addresses);
        assert_eq!(parsed.neighbours, draft().neighbours);
        assert!(parsed.lease.is_live(NOW_S));
    }
}

#[test]
fn a_tombstone_carries_id_and_lease_alone() {
    for keys in [public(), secret(1)] {
        let (value, _) = built(&keys, 3, &Draft { expires_s: NOW_S, ..draft() });
        let parsed = parse(&keys, 3, &value).expect("our own record");
        assert!(parsed.lease.is_tombstone());
        assert!(parsed.relays.is_empty() && parsed.addresses.is_empty());
        assert!(parsed.neighbours.is_empty());
    }
    let texts = texts_of(&public(), 3, &Draft { expires_s: NOW_S, ..draft() });
    let names: Vec<&str> = texts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["_id", "_l"]);
}

#[test]
fn the_records_stand_in_the_order_of_the_format() {
    let keys = public();
    let (value, _) = built(&keys, 0, &draft());
    let payload = [&value.signature[..], &SEQ.to_be_bytes(), &value.value].concat();
    let packet = SignedPacket::from_relay_payload(&keys.keypair(0).public_key(), &payload.into());
    let packet = packet.expect("a packet");
    let names: Vec<String> = packet
        .all_resource_records()
        .map(|entry| {
            assert_eq!(entry.ttl, 600);
            entry.name.to_string().split('.').next().unwrap_or_default().to_owned()
        })
        .collect();
    assert_eq!(names, ["_id", "_r", "_ip", "_ip", "_l", "_p", "_p"]);
}

#[test]
fn what_does_not_fit_is_left_out_neighbours_first() {
    for keys in [public(), secret(1)] {
        let long = format!("https://{}.example.org./", "r".repeat(200));
        let mut crowded = draft();
        crowded.relays = vec![long];
        crowded.addresses = (0..7)
            .map(|i| format!("[2001:db8:ffff:ffff:ffff:ffff:ffff:{i}]:4242").parse().expect("v6"))
            .collect();
        crowded.neighbours = (0..4)
            .map(|i| Neighbour { node: node(i), hint: Hint::Relay("h".repeat(150)) })
            .collect();
        let (value, record) = built(&keys, 0, &crowded);
        assert!(value.value.len() <= VALUE_LEN_MAX);
        assert_eq!(parse(&keys, 0, &value).expect("it fits now"), record);
        assert_eq!(record.relays, crowded.relays);
        assert!(record.neighbours.len() < 4);
        assert!(record.neighbours.is_empty() || record.addresses.len() == 7);
        assert_eq!(record.addresses[..], crowded.addresses[..record.addresses.len()]);
    }
    // Far more than any caller gives: addresses go, and in the end relays.
    let mut endless = draft();
    endless.addresses =
        (0..60).map(|i| format!("203.0.113.{i}:4242").parse().expect("v4")).collect();
    endless.relays = (0..9).map(|i| format!("https://{}{i}./", "r".repeat(230))).collect();
    let (value, record) = built(&public(), 0, &endless);
    assert!(value.value.len() <= VALUE_LEN_MAX);
    assert!(record.addresses.is_empty() && (1..9).contains(&record.relays.len()));
}

#[test]
fn forty_addresses_at_the_cap_fit_with_a_relay_and_a_neighbour() {
    let addresses: Vec<SocketAddr> =
        (0..40).map(|i| format!("[2001:db8:1:2:3:4:5:{i}]:4242").parse().expect("v6")).collect();
    let (relays, addresses) = publish::choose(Reach::Public, &draft().relays, &addresses);
    let (_, record) = built(&public(), 0, &Draft { relays, addresses, ..draft() });
    assert_eq!((record.relays.len(), record.addresses.len()), (1, 7));
    assert!(!record.neighbours.is_empty());
}

#[test]
fn a_text_that_no_record_can_carry_is_left_out_of_it() {
    let mut odd = draft();
    odd.relays = vec!["https://a/?b=c".to_owned(), "https://\u{e9}/".to_owned(), "x".repeat(255)];
    odd.neighbours = vec![
        Neighbour { node: node(8), hint: Hint::Relay("relay/path".to_owned()) },
        Neighbour { node: node(8), hint: Hint::Relay("r".repeat(210)) },
    ];
    let (value, record) = built(&public(), 0, &odd);
    assert!(record.relays.is_empty() && record.neighbours.is_empty());
    assert_eq!(parse(&public(), 0, &value).expect("our own"), record);
}

#[test]
fn a_record_without_a_lease_is_nobodys() {
    let id = bs58::encode(node(7).as_bytes()).into_string();
    let value = forged(&public(), 0, &[("_id", &id), ("_ip", "203.0.113.7:4242")]);
    assert!(matches!(parse(&public(), 0, &value), Err(RecordError::Missing("_l"))));
    let lease = built(&public(), 0, &draft()).1.lease.to_text();
    let value = forged(&public(), 0, &[("_l", &lease)]);
    assert!(matches!(parse(&public(), 0, &value), Err(RecordError::Missing("_id"))));
}

#[test]
fn a_second_id_or_lease_makes_a_record_nobodys() {
    let keys = public();
    for name in ["_id", "_l"] {
        let mut texts = texts_of(&keys, 0, &draft());
        let again = texts.iter().find(|(n, _)| n == name).cloned().expect("it is there");
        texts.push(again);
        let parsed = parse(&keys, 0, &repacked(&keys, 0, &texts));
        assert!(matches!(parsed, Err(RecordError::Repeated { count: 2, .. })), "{parsed:?}");
    }
}

#[test]
fn a_strangers_endpoint_under_our_lease_is_a_forgery() {
    let keys = public();
    let mut texts = texts_of(&keys, 0, &draft());
    texts[0].1 = bs58::encode(node(8).as_bytes()).into_string();
    let error = parse(&keys, 0, &repacked(&keys, 0, &texts)).expect_err("forged");
    assert!(error.is_forgery(), "{error}");
}

#[test]
fn changed_added_or_removed_addresses_are_a_forgery() {
    let keys = public();
    let good = texts_of(&keys, 0, &draft());
    assert!(parse(&keys, 0, &repacked(&keys, 0, &good)).is_ok());
    let mut changed = good.clone();
    changed[2].1 = "203.0.113.9:4242".to_owned();
    let mut added = good.clone();
    added.push(("_ip".to_owned(), "203.0.113.9:4242".to_owned()));
    let mut repeated = good.clone();
    repeated.push(good[2].clone());
    let mut removed = good.clone();
    removed.remove(1);
    for texts in [changed, added, repeated, removed] {
        let error = parse(&keys, 0, &repacked(&keys, 0, &texts)).expect_err("forged");
        assert!(error.is_forgery(), "{error}");
    }
}

#[test]
fn a_record_copied_to_another_slot_or_network_is_a_forgery() {
    let keys = public();
    let texts = texts_of(&keys, 0, &draft());
    assert!(parse(&keys, 1, &repacked(&keys, 1, &texts)).expect_err("another slot").is_forgery());
    let other = SlotKeys::new(&Network::Public("another".to_owned()).keys());
    assert!(parse(&other, 0, &repacked(&other, 0, &texts)).expect_err("another").is_forgery());
    // Without the other slot's key not even the packet's signature holds.
    let (value, _) = built(&keys, 0, &draft());
    assert!(matches!(parse(&keys, 1, &value), Err(RecordError::Packet(_))));
}

#[test]
fn expired_and_future_leases_parse_but_are_not_live() {
    let keys = public();
    for (issued_s, live) in [(NOW_S - 3601, false), (NOW_S + 301, false), (NOW_S + 300, true)] {
        let (value, _) =
            built(&keys, 0, &Draft { issued_s, expires_s: issued_s + 3600, ..draft() });
        assert_eq!(parse(&keys, 0, &value).expect("good").lease.is_live(NOW_S), live);
    }
    let expires_s = NOW_S + LEASE_LEN_MAX_S + 1;
    let (value, _) = built(&keys, 0, &Draft { expires_s, ..draft() });
    assert!(matches!(parse(&keys, 0, &value), Err(RecordError::Lease(LeaseError::Span { .. }))));
}

#[test]
fn a_lease_in_another_form_is_refused() {
    let keys = public();
    let good = texts_of(&keys, 0, &draft());
    let at = good.iter().position(|(name, _)| name == "_l").expect("a lease");
    for text in [format!("{}=", good[at].1), good[at].1[1..].to_owned(), "?".to_owned()] {
        let mut texts = good.clone();
        texts[at].1 = text;
        let parsed = parse(&keys, 0, &repacked(&keys, 0, &texts));
        assert!(matches!(parsed, Err(RecordError::Lease(_))), "{parsed:?}");
    }
}

#[test]
fn an_id_that_is_not_32_bytes_of_base58_is_refused() {
    let keys = public();
    let mut texts = texts_of(&keys, 0, &draft());
    for id in [
        bs58::encode([1; 31]).into_string(),
        bs58::encode([1; 33]).into_string(),
        "0OIl".to_owned(),
    ] {
        texts[0].1 = id;
        let parsed = parse(&keys, 0, &repacked(&keys, 0, &texts));
        assert!(matches!(parsed, Err(RecordError::Id)), "{parsed:?}");
    }
}

#[test]
fn an_address_that_makes_no_sense_is_passed_over_but_signed() {
    let keys = public();
    let record = Record {
        relays: [
            "relay by pigeon",
            "999.0.0.1:1",
            "203.0.113.8:01",
            "[2001:db8::0]:1",
            "[fe80::1%1]:1",
        ]
        .map(str::to_owned)
        .to_vec(),
        ..built(&keys, 0, &draft()).1
    };
    let texts: Vec<String> = signed_texts(&record);
    let addresses = lease::digest(texts.iter().map(String::as_str));
    let scope = Scope { fingerprint: keys.fingerprint(), slot: 0, node: &record.node, addresses };
    let lease = Lease::sign(&key(7), &scope, NOW_S, NOW_S + 3600);
    let mut texts = public::texts(&Record { lease, ..record });
    texts[2..6].iter_mut().for_each(|(name, _)| *name = "_ip".to_owned());
    let parsed = parse(&keys, 0, &repacked(&keys, 0, &texts)).expect("signed as it stands");
    assert_eq!(parsed.addresses, draft().addresses);
    assert_eq!(parsed.relays, ["relay by pigeon"]);
}

#[test]
fn neighbours_beyond_four_and_nonsense_are_passed_over() {
    let keys = public();
    let mut texts = texts_of(&keys, 0, &draft());
    let id = bs58::encode(node(9).as_bytes()).into_string();
    texts.push(("_p".to_owned(), format!("{id} http://a")));
    texts.push(("_p".to_owned(), "one word".to_owned()));
    for i in 0..3 {
        texts.push(("_p".to_owned(), format!("{id} 203.0.113.{i}:1")));
    }
    let parsed = parse(&keys, 0, &repacked(&keys, 0, &texts)).expect("outside the lease");
    assert_eq!(parsed.neighbours.len(), NEIGHBOURS_MAX);
    assert_eq!(parsed.neighbours[..2], draft().neighbours);
}

#[test]
fn junk_wrong_signatures_and_negative_seqs_are_refused() {
    let keys = public();
    let (good, _) = built(&keys, 0, &draft());
    let junk = signed(&keys, 0, SEQ, b"not dns");
    assert!(matches!(parse(&keys, 0, &junk), Err(RecordError::Packet(_))));
    let unsigned = SlotValue { signature: [1; 64], ..good.clone() };
    assert!(matches!(parse(&keys, 0, &unsigned), Err(RecordError::Packet(_))));
    let moved = SlotValue { seq: SEQ + 1, ..good.clone() };
    assert!(matches!(parse(&keys, 0, &moved), Err(RecordError::Packet(_))));
    let negative = signed(&keys, 0, -5, &good.value);
    assert!(matches!(parse(&keys, 0, &negative), Err(RecordError::NegativeSeq(-5))));
    let long = SlotValue { value: vec![0; 1001], ..good.clone() };
    assert!(matches!(parse(&keys, 0, &long), Err(RecordError::TooLong(1001))));
    assert!(matches!(
        build(&keys, 0, &key(7), &draft(), -1, &NONCE),
        Err(BuildError::NegativeSeq(-1))
    ));
}

#[test]
fn a_packet_that_claims_more_entries_than_bytes_is_not_parsed() {
    let keys = public();
    let (mut value, _) = built(&keys, 0, &draft());
    value.value[4..12].copy_from_slice(&[0xff; 8]);
    let value = signed(&keys, 0, SEQ, &value.value);
    assert!(matches!(parse(&keys, 0, &value), Err(RecordError::Entries { entries: 262_140, .. })));
}

#[test]
fn a_sealed_record_opens_with_its_networks_key_for_its_slot_only() {
    let (keys, other) = (secret(1), secret(2));
    let (value, _) = built(&keys, 3, &draft());
    let texts = texts(&keys, 3, &value).expect("a packet");
    assert!(texts.keys().all(|name| name.starts_with("_e")));
    for (keys, slot) in [(&other, 3), (&keys, 4)] {
        let texts: Vec<(&str, &str)> =
            texts.iter().map(|(name, text)| (name.as_str(), text[0].as_str())).collect();
        let parsed = parse(keys, slot, &forged(keys, slot, &texts));
        assert!(matches!(parsed, Err(RecordError::Seal)), "{parsed:?}");
    }
}

#[test]
fn a_sealed_record_shows_neither_id_nor_addresses() {
    let (value, record) = built(&secret(1), 3, &draft());
    let find = |needle: &[u8]| value.value.windows(needle.len()).any(|window| window == needle);
    assert!(!find(record.node.as_bytes()));
    assert!(!find(bs58::encode(record.node.as_bytes()).into_string().as_bytes()));
    assert!(!find(b"203.0.113.7") && !find(b"relay.example"));
    let open = built(&public(), 3, &draft()).0.value;
    assert!(open.windows(13).any(|window| window == b"relay.example"));
}

#[test]
fn the_parts_of_a_sealed_record_have_one_form() {
    let keys = secret(1);
    let (value, _) = built(&keys, 3, &draft());
    let good: Vec<(String, String)> = texts(&keys, 3, &value)
        .expect("a packet")
        .into_iter()
        .map(|(name, mut text)| (name, text.remove(0)))
        .collect();
    assert!(good.len() > 1 && good[0].1.len() == 240);
    assert!(parse(&keys, 3, &repacked(&keys, 3, &good)).is_ok());
    let reversed: Vec<_> = good.iter().rev().cloned().collect();
    assert!(parse(&keys, 3, &repacked(&keys, 3, &reversed)).is_ok());

    let mut gap = good.clone();
    gap.remove(0);
    let mut renamed = good.clone();
    renamed[1].0 = "_e01".to_owned();
    let mut twice = good.clone();
    twice.push(good[0].clone());
    let mut cut = good.clone();
    let rest = cut[0].1.split_off(100);
    cut.insert(1, ("_e1".to_owned(), rest));
    for (at, (name, _)) in cut.iter_mut().enumerate() {
        *name = format!("_e{at}");
    }
    let mut empty = good.clone();
    empty.push((format!("_e{}", good.len()), String::new()));
    let mut padded = good.clone();
    let last = padded.len() - 1;
    padded[last].1.push('=');
    for (what, texts) in [
        ("gap", gap),
        ("leading zero", renamed),
        ("repeat", twice),
        ("cut elsewhere", cut),
        ("an empty part", empty),
        ("padding", padded),
    ] {
        let parsed = parse(&keys, 3, &repacked(&keys, 3, &texts));
        // A part under another name is passed over: the rest does not open.
        assert!(
            matches!(parsed, Err(RecordError::Parts | RecordError::Seal)),
            "{what}: {parsed:?}"
        );
    }
    let none = forged(&keys, 3, &[]);
    assert!(matches!(parse(&keys, 3, &none), Err(RecordError::Missing("_e0"))));
}

/// What a later version puts beside the names of this one must not make a used slot free.
#[test]
fn names_of_a_later_version_are_passed_over_in_open_and_sealed_records() {
    for keys in [public(), secret(1)] {
        let (value, record) = built(&keys, 3, &draft());
        let mut texts: Vec<(String, String)> = texts(&keys, 3, &value)
            .expect("a packet")
            .into_iter()
            .flat_map(|(name, texts)| texts.into_iter().map(move |text| (name.clone(), text)))
            .collect();
        for name in ["_l2", "_x", "_e", "_e00", "_ID", "e0"] {
            texts.insert(1, (name.to_owned(), "later".to_owned()));
        }
        assert_eq!(parse(&keys, 3, &repacked(&keys, 3, &texts)).expect("passed over"), record);
    }
}

#[test]
fn a_text_that_is_not_utf8_is_refused_under_our_names_only() {
    let keys = public();
    let mut texts = texts_of(&keys, 0, &draft());
    texts.push(("_xyz".to_owned(), "not utf-8 soon".to_owned()));
    let mut value = repacked(&keys, 0, &texts).value;
    let at = value.windows(3).position(|bytes| bytes == b"soo").expect("the text is there");
    value[at] = 0xff;
    assert!(parse(&keys, 0, &signed(&keys, 0, SEQ, &value)).is_ok());
    let at = value.windows(5).position(|bytes| bytes == b"relay").expect("the relay is there");
    value[at] = 0xff;
    let parsed = parse(&keys, 0, &signed(&keys, 0, SEQ, &value));
    assert!(matches!(parsed, Err(RecordError::Utf8(ref name)) if name == "_r"), "{parsed:?}");
}

#[test]
fn one_flipped_character_of_a_sealed_record_breaks_the_seal() {
    let keys = secret(1);
    let (value, _) = built(&keys, 3, &draft());
    let mut texts: Vec<(String, String)> = texts(&keys, 3, &value)
        .expect("a packet")
        .into_iter()
        .map(|(name, mut text)| (name, text.remove(0)))
        .collect();
    for at in [0, 31, 40, 200] {
        let before = texts[0].1.clone();
        let flip = if &before[at..=at] == "A" { "B" } else { "A" };
        texts[0].1.replace_range(at..=at, flip);
        let parsed = parse(&keys, 3, &repacked(&keys, 3, &texts));
        assert!(matches!(parsed, Err(RecordError::Seal)), "{parsed:?}");
        texts[0].1 = before;
    }
}

/// Seals any plaintext, as a member of the network could.
fn sealed_by_a_member(keys: &SlotKeys, slot: u8, plain: &[u8]) -> SlotValue {
    let seal = keys.seal().expect("a secret network");
    let texts = sealed::seal(plain, seal, &keys.public_key(slot), &NONCE);
    repacked(keys, slot, &texts)
}

#[test]
fn a_sealed_plaintext_has_one_encoding() {
    let keys = secret(1);
    let record = built(&keys, 3, &draft()).1;
    let good = sealed::encode(&record);
    assert!(good.len().is_multiple_of(64));
    let parsed = |plain: &[u8]| parse(&keys, 3, &sealed_by_a_member(&keys, 3, plain));
    assert_eq!(parsed(&good).expect("as we do it"), record);

    let mut not_zero = good.clone();
    *not_zero.last_mut().expect("bytes") = 1;
    let mut a_block_more = good.clone();
    a_block_more.resize(good.len() + 64, 0);
    let unpadded: Vec<u8> = {
        let end = good.iter().rposition(|&byte| byte != 0).expect("bytes");
        good[..=end].to_vec()
    };
    // The count of relays as a long varint.
    let mut long_varint = good.clone();
    long_varint.splice(32..33, [0x81, 0x00]);
    long_varint.truncate(good.len());
    let mut cut = good.clone();
    cut.truncate(64);
    let huge_count = [&good[..32], &[0xff, 0xff, 0x03], &[0; 29]].concat();
    for (what, plain) in [
        ("padding not zero", not_zero),
        ("a block too many", a_block_more),
        ("not padded", unpadded),
        ("a long varint", long_varint),
        ("cut", cut),
        ("a count without its items", huge_count),
        ("nothing", Vec::new()),
    ] {
        let parsed = parsed(&plain);
        assert!(matches!(parsed, Err(RecordError::Sealed(_))), "{what}: {parsed:?}");
    }
}

#[test]
fn a_sealed_lease_is_verified_like_an_open_one() {
    let keys = secret(1);
    let mut record = built(&keys, 3, &draft()).1;
    record.addresses[0].set_port(1);
    let value = sealed_by_a_member(&keys, 3, &sealed::encode(&record));
    assert!(parse(&keys, 3, &value).expect_err("forged").is_forgery());
    // Sealed for another slot by a member, with the lease of this one.
    let record = built(&keys, 3, &draft()).1;
    let value = sealed_by_a_member(&keys, 4, &sealed::encode(&record));
    assert!(parse(&keys, 4, &value).expect_err("copied").is_forgery());
}

#[test]
fn an_open_record_is_refused_in_a_secret_network_and_a_sealed_one_in_a_public() {
    let (open, closed) = (public(), secret(1));
    let texts = texts_of(&open, 0, &draft());
    let parsed = parse(&closed, 0, &repacked(&closed, 0, &texts));
    assert!(matches!(parsed, Err(RecordError::Missing("_e0"))), "{parsed:?}");
    let value = forged(&open, 0, &[("_e0", "AAAA")]);
    assert!(matches!(parse(&open, 0, &value), Err(RecordError::Missing("_id"))));
}

#[test]
fn a_hint_without_a_port_is_a_relays_host() {
    for (text, hint) in [
        ("203.0.113.7:1", Some(Hint::Address("203.0.113.7:1".parse().expect("v4")))),
        ("[2001:db8::7]:1", Some(Hint::Address("[2001:db8::7]:1".parse().expect("v6")))),
        ("relay.example.org.", Some(Hint::Relay("relay.example.org.".to_owned()))),
        ("[2001:DB8::7]:1", None),
        ("[2001:db8:0::7]:1", None),
        ("[fe80::1%2]:1", None),
        ("203.0.113.7:01", None),
        ("relay.example.org:443", None),
        ("https://relay.example.org", None),
        ("relay.example.org/", None),
        ("", None),
    ] {
        assert_eq!(Hint::parse(text), hint, "{text}");
    }
    let url = Hint::Relay("relay.example.org.".to_owned()).relay_url();
    assert_eq!(url.as_deref(), Some("https://relay.example.org./"));
}

fn drafts() -> impl Strategy<Value = Draft> {
    let addresses = prop::collection::vec(any::<SocketAddr>(), 0..12);
    let relays = prop::collection::vec("https://[a-z0-9.-]{1,200}/", 0..4);
    let hints = prop_oneof![
        any::<SocketAddr>().prop_map(|address| Hint::Address(publish::plain(&address))),
        "[a-z0-9.-]{1,200}".prop_map(Hint::Relay),
    ];
    let neighbours = prop::collection::vec(
        (any::<[u8; 32]>(), hints).prop_map(|(id, hint)| Neighbour { node: NodeId(id), hint }),
        0..6,
    );
    (addresses, relays, neighbours, any::<u32>(), 0..=LEASE_LEN_MAX_S).prop_map(
        |(addresses, relays, neighbours, issued, span)| Draft {
            addresses,
            relays,
            neighbours,
            issued_s: u64::from(issued),
            expires_s: u64::from(issued) + span,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_draft_fits_and_parses_back(draft in drafts(), slot in 0u8..16, sealed: bool, nonce: [u8; 24]) {
        let keys = if sealed { secret(1) } else { public() };
        let (value, record) = build(&keys, slot, &key(7), &draft, SEQ, &nonce).expect("a record");
        prop_assert!(value.value.len() <= VALUE_LEN_MAX);
        prop_assert_eq!(parse(&keys, slot, &value).expect("our own record"), record);
    }

    #[test]
    fn random_bytes_under_the_right_key_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..1100),
        sealed: bool,
        seq: i64,
    ) {
        let keys = if sealed { secret(1) } else { public() };
        prop_assert!(parse(&keys, 0, &signed(&keys, 0, seq, &bytes)).is_err());
    }

    #[test]
    fn a_mutated_record_is_refused_or_the_same_beside_its_neighbours(
        at in any::<prop::sample::Index>(),
        byte: u8,
        cut in any::<prop::sample::Index>(),
        sealed: bool,
    ) {
        let keys = if sealed { secret(1) } else { public() };
        let (mut value, record) = built(&keys, 0, &draft());
        let at = at.index(value.value.len());
        value.value[at] = byte;
        let mutated = signed(&keys, 0, SEQ, &value.value);
        if let Ok(parsed) = parse(&keys, 0, &mutated) {
            prop_assert_eq!(parsed.node, record.node);
            prop_assert_eq!(parsed.lease, record.lease);
            prop_assert_eq!(signed_texts(&parsed), signed_texts(&record));
        }
        value.value.truncate(cut.index(value.value.len()));
        prop_assert!(parse(&keys, 0, &signed(&keys, 0, SEQ, &value.value)).is_err());
    }

    #[test]
    fn random_plaintext_under_the_right_seal_never_panics(
        plain in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let keys = secret(1);
        prop_assert!(parse(&keys, 0, &sealed_by_a_member(&keys, 0, &plain)).is_err());
    }
}

#[test]
fn the_fingerprint_of_the_lease_is_the_networks() {
    assert_ne!(public().fingerprint(), &Fingerprint([0; 32]));
    assert_ne!(public().fingerprint(), secret(1).fingerprint());
}

/// What other tools of the 16-slot chain write: endpoint and addresses alone.
#[test]
fn the_packet_layout_is_that_of_existing_tools_byte_for_byte() {
    let id = bs58::encode(node(7).as_bytes()).into_string();
    let value = forged(
        &public(),
        0,
        &[
            ("_id", id.as_str()),
            ("_r", "https://relay.example.org./"),
            ("_ip", "203.0.113.7:4242"),
            ("_ip", "[2001:db8::7]:4242"),
        ],
    );
    let hex = data_encoding::HEXLOWER;
    assert_eq!(
        hex.encode(&value.value),
        concat!(
            "000080000000000400000000035f6964346e7273616f67626b72676d716366636b6b6b79663779336a",
            "77673379697462316d636238796137317a7164346d357364797a776f000010000100000258002d2c47",
            "6d6144727070424337503541524b56386733646a6977503839767a316a4c4b3233563247426a754145",
            "4742025f72c0100010000100000258001c1b68747470733a2f2f72656c61792e6578616d706c652e6f",
            "72672e2f035f6970c01000100001000002580011103230332e302e3131332e373a34323432c0a80010",
            "0001000002580013125b323030313a6462383a3a375d3a34323432",
        )
    );
    assert_eq!(
        hex.encode(&value.signature),
        concat!(
            "5a74d32e8872438f2ce6c1fb05bee61c4f79f4c664bb9728dc7d2a3ca18c6c25",
            "7229b6fb8e43bb9866a29f17647e9517e9effbe9179c06a919c8ca0d5e77e605",
        )
    );
}
