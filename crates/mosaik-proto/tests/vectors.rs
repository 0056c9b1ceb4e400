//! The golden vectors of FORMAT.md, made by another implementation: `tests/vectors/*.json` at the
//! top of the repository. Each is checked both ways, and what must be refused is.

#![allow(clippy::unwrap_used)]

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use mosaik_core::{
    codec::{Reader, Writer},
    event::Hasher,
    feed::{Tip, write_item},
    id::{AuthorId, BlobId, EventId, Fingerprint, NodeId},
    run::{Run, VerifiedRun},
    trie::Prefix,
};
use mosaik_proto::{
    carrier::Addresses,
    hint::{Hint, Presence},
    message::{
        Ask, Bye, ByeCode, FilePart, FileWant, FrontierItem, Greet, Hello, Items, LackReason,
        Message, Payloads, Probe, ProbeId, Probed, Reason, SessionWay, Short, Want, frame_len,
        read_item, run_frame, version_in_common,
    },
    proof::{declines_digest, membership_proof, short_hash},
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

/// What each member of a list is, of which there may be none.
fn each<T>(of: &Json, name: &str, member: impl Fn(&Json) -> T) -> Vec<T> {
    of[name].as_array().unwrap().iter().map(member).collect()
}

fn text<'a>(of: &'a Json, name: &str) -> &'a str {
    of[name].as_str().unwrap_or_else(|| panic!("{name} of {of}"))
}

fn number(of: &Json, name: &str) -> u64 {
    of[name].as_u64().unwrap_or_else(|| panic!("{name} of {of}"))
}

fn bytes(of: &Json) -> Vec<u8> {
    HEXLOWER.decode(of.as_str().unwrap().as_bytes()).unwrap()
}

fn hex(of: &Json, name: &str) -> Vec<u8> {
    bytes(&of[name])
}

fn array<const N: usize>(of: &Json, name: &str) -> [u8; N] {
    hex(of, name).try_into().unwrap()
}

fn hasher(of: &Json) -> Hasher {
    Hasher::new(&Fingerprint(array(of, "fingerprint")))
}

fn tip(of: &Json) -> Tip {
    Tip { seq: number(of, "seq"), id: EventId(array(of, "id")) }
}

fn option_tip(of: &Json) -> Option<Tip> {
    (!of["tip"].is_null()).then(|| tip(&of["tip"]))
}

fn short(of: &Json) -> Short {
    bytes(of).try_into().unwrap()
}

fn author(of: &Json) -> AuthorId {
    AuthorId(array(of, "author"))
}

fn prefix(of: &Json) -> Prefix {
    text(of, "prefix")
        .chars()
        .fold(Prefix::EMPTY, |prefix, digit| prefix.child(digit.to_digit(16).unwrap() as usize))
}

fn run(of: &Json, hasher: &Hasher) -> VerifiedRun {
    Run::decode(&hex(of, "run")).unwrap().verify(hasher).unwrap()
}

fn item(of: &Json) -> FrontierItem {
    FrontierItem { author: author(of), tips: each(of, "tips", tip) }
}

fn hello(of: &Json) -> Hello {
    Hello {
        software: text(of, "software").to_owned(),
        capabilities: number(of, "capabilities"),
        frame_max: number(of, "frame_max") as u32,
        credit: number(of, "credit"),
        clock_ms: number(of, "clock_ms"),
        name: text(of, "name").to_owned(),
        boot: number(of, "boot"),
        top: array(of, "top"),
        authors: number(of, "authors"),
        events: number(of, "events"),
        declines: array(of, "declines"),
    }
}

fn message(of: &Json, hasher: &Hasher) -> Message {
    let author = || author(of);
    match text(of, "message") {
        "Greet" => Message::Greet(Greet {
            app: text(of, "app").to_owned(),
            versions: (number(of, "lowest"), number(of, "highest")),
            proof: array(of, "proof"),
        }),
        "Hello" => Message::Hello(hello(of)),
        "Root" => Message::Root(array(of, "top")),
        "Tree" => Message::Tree(prefix(of), each(of, "children", short).try_into().unwrap()),
        "Leaf" => Message::Leaf(prefix(of), each(of, "shorts", short)),
        "Items" => Message::Items(Items {
            prefix: prefix(of),
            items: each(of, "items", item),
            lacked: each(of, "lacked", short),
            more: of["more"].as_bool().unwrap(),
        }),
        "Done" => Message::Done(prefix(of)),
        "Want" => Message::Want(Want {
            author: author(),
            tip: option_tip(of),
            locator: each(of, "locator", tip),
            credit: number(of, "credit"),
        }),
        "Run" => Message::Run(run(of, hasher)),
        "Have" => Message::Have(author(), tip(&of["tip"])),
        "Payloads" => Message::Payloads(Payloads {
            ask: each(of, "ask", |of| Ask {
                author: AuthorId(array(of, "author")),
                tip: tip(&of["tip"]),
            }),
            give: each(of, "give", |of| (EventId(array(of, "id")), hex(of, "payload"))),
            lack: each(of, "lack", |of| EventId(bytes(of).try_into().unwrap())),
        }),
        "Decline" => Message::Decline(author(), Reason::from_u8(number(of, "reason") as u8)),
        "Lack" => {
            let reason = LackReason::from_u8(number(of, "reason") as u8);
            Message::Lack(author(), option_tip(of), reason)
        }
        "Bye" => {
            let code = ByeCode::from_u8(number(of, "code") as u8);
            Message::Bye(Bye { code, text: text(of, "text").to_owned() })
        }
        "Again" => Message::Again(number(of, "token")),
        "Ping" => Message::Ping(number(of, "token")),
        "Pong" => Message::Pong(number(of, "token")),
        "Twin" => Message::Twin(number(of, "boot")),
        "Probe" => Message::Probe(Probe {
            id: ProbeId(array(of, "id")),
            origin: NodeId(array(of, "origin")),
            sent_ms: number(of, "sent_ms"),
            hops: number(of, "hops") as u8,
        }),
        "Probed" => Message::Probed(Probed {
            id: ProbeId(array(of, "id")),
            node: NodeId(array(of, "node")),
            name: text(of, "name").to_owned(),
            received_ms: number(of, "received_ms"),
            hops: number(of, "hops") as u8,
            from: NodeId(array(of, "from")),
            way: SessionWay::from_u8(number(of, "way") as u8),
        }),
        "FileWant" => Message::FileWant(FileWant {
            token: number(of, "token"),
            blob: BlobId(array(of, "blob")),
            group: number(of, "group") as u32,
            from: number(of, "from") as u32,
        }),
        "FilePart" => Message::FilePart(FilePart {
            token: number(of, "token"),
            total: number(of, "total") as u32,
            bytes: hex(of, "bytes"),
        }),
        name => panic!("a message called {name}"),
    }
}

#[test]
fn every_message_has_the_frame_of_the_format() {
    let vectors = vectors!("message");
    let hasher = hasher(&vectors);
    let mut kinds = Vec::new();
    for of in list(&vectors, "messages") {
        let (message, frame) = (message(of, &hasher), hex(of, "frame"));
        assert_eq!(message.encode(), frame, "{of}");
        assert_eq!(frame_len(frame[..4].try_into().unwrap()), Ok(frame.len() - 4));
        assert_eq!(Message::decode(&frame[4..], &hasher), Ok(message), "{of}");
        assert_eq!(u64::from(frame[4]), number(of, "type"));
        kinds.push(frame[4]);
    }
    kinds.dedup();
    let all: Vec<u8> = (1..=14).chain(128..=135).collect();
    assert_eq!(kinds, all);
}

#[test]
fn a_frame_with_later_fields_or_compressed_says_the_same() {
    let vectors = vectors!("message");
    let hasher = hasher(&vectors);
    for of in list(&vectors, "same") {
        let [frame, known] = ["frame", "as"].map(|name| hex(of, name));
        let message = Message::decode(&frame[4..], &hasher).unwrap();
        assert_eq!(message.encode(), known, "{of}");
        if let Message::Run(run) = message {
            let ours = run_frame(&run.encode(), true);
            assert_eq!(Message::decode(&ours[4..], &hasher), Ok(Message::Run(run)));
        }
    }
}

#[test]
fn a_frame_at_a_limit_is_taken_and_one_beyond_it_refused() {
    let vectors = vectors!("message");
    let hasher = hasher(&vectors);
    for of in list(&vectors, "long") {
        let middle = hex(of, "byte").repeat(number(of, "times") as usize);
        let frame = [hex(of, "start"), middle, hex(of, "end")].concat();
        let len = frame_len(frame[..4].try_into().unwrap());
        assert_eq!(len, Ok(frame.len() - 4));
        let message = Message::decode(&frame[4..], &hasher);
        assert_eq!(message.is_ok(), of["taken"].as_bool().unwrap(), "{message:?}");
        assert!(message.is_err() || message.is_ok_and(|message| message.encode() == frame));
    }
}

#[test]
fn an_unknown_type_from_128_on_is_skipped() {
    let vectors = vectors!("message");
    for of in list(&vectors, "skipped") {
        let skipped = Message::Skipped(number(of, "type") as u8);
        assert_eq!(Message::decode(&hex(of, "frame")[4..], &hasher(&vectors)), Ok(skipped));
    }
}

#[test]
fn a_length_out_of_bounds_is_refused_before_anything_is_read() {
    for of in list(&vectors!("message"), "lengths") {
        let len = frame_len(array(of, "header"));
        assert_eq!(len.is_ok(), of["taken"].as_bool().unwrap(), "{of}");
        assert!(len.is_err() || len == Ok(number(of, "length") as usize));
    }
}

#[test]
fn what_is_no_frame_is_refused() {
    let vectors = vectors!("message");
    let hasher = hasher(&vectors);
    for of in list(&vectors, "refused") {
        let frame = hex(of, "frame");
        assert!(Message::decode(&frame[4..], &hasher).is_err(), "{of}");
    }
}

#[test]
fn an_item_is_read_as_it_was_written() {
    let vectors = vectors!("item");
    for of in list(&vectors, "items") {
        let mut writer = Writer::new();
        let item = item(of);
        write_item(&item.author, &item.tips, &mut writer);
        assert_eq!(writer.as_bytes(), hex(of, "item"));
        assert_eq!(read_item(&mut Reader::new(writer.as_bytes())), Ok(item));
    }
    for of in list(&vectors, "refused") {
        let bytes = hex(of, "item");
        let mut reader = Reader::new(&bytes);
        assert!(read_item(&mut reader).and_then(|_| reader.finish()).is_err(), "{of}");
    }
}

#[test]
fn two_ends_choose_the_version_of_the_format() {
    for of in list(&vectors!("session"), "versions") {
        let [ours, theirs] = ["ours", "theirs"].map(|name| {
            let versions = each(of, name, |version| version.as_u64().unwrap());
            (versions[0], versions[1])
        });
        assert_eq!(version_in_common(ours, theirs), of["version"].as_u64(), "{of}");
    }
}

#[test]
fn the_hashes_of_a_session_are_those_of_the_format() {
    let vectors = vectors!("session");
    let membership = array(&vectors, "membership");
    for of in list(&vectors, "proofs") {
        let [binding, sender, receiver] =
            ["binding", "sender", "receiver"].map(|name| hex(of, name));
        let proof = membership_proof(&membership, &binding, &sender, &receiver);
        assert_eq!(proof, array(of, "proof"));
    }
    let dialers_proof = array(&vectors, "dialers_proof");
    for of in list(&vectors, "short_hashes") {
        assert_eq!(short_hash(&dialers_proof, &hex(of, "of")), array(of, "short"));
    }
    let fingerprint = Fingerprint(array(&vectors, "fingerprint"));
    for of in list(&vectors, "declines") {
        let authors = each(of, "authors", |author| AuthorId(bytes(author).try_into().unwrap()));
        assert_eq!(declines_digest(&fingerprint, authors.iter()), array(of, "digest"));
    }
}

fn presence(of: &Json, fingerprint: &Fingerprint) -> Presence {
    let addresses = Addresses {
        direct: each(of, "addresses", |address| address.as_str().unwrap().parse().unwrap()),
        relays: each(of, "relays", |relay| relay.as_str().unwrap().to_owned()),
    };
    let presence = Presence::sign(
        &SigningKey::from_bytes(&array(of, "seed")),
        fingerprint,
        number(of, "boot"),
        number(of, "said_ms"),
        of["leaving"].as_bool().unwrap(),
        text(of, "name"),
        &addresses,
    );
    assert_eq!(presence.node, NodeId(array(of, "node")));
    assert_eq!(presence.signature, array(of, "signature"), "{of}");
    presence
}

#[test]
fn a_hint_has_the_bytes_of_the_format() {
    let vectors = vectors!("hint");
    let hasher = hasher(&vectors);
    let fingerprint = Fingerprint(array(&vectors, "fingerprint"));
    for of in list(&vectors, "hints") {
        let hint = match text(of, "kind") {
            "head" => Hint::Head(author(of), tip(&of["tip"])),
            "run" => Hint::Run(run(of, &hasher)),
            _ => Hint::Presence(presence(of, &fingerprint)),
        };
        assert_eq!(hint.encode(number(of, "nonce")), hex(of, "hint"), "{of}");
        assert_eq!(Hint::decode(&hex(of, "hint"), &hasher, &fingerprint), Ok(hint));
    }
    for of in list(&vectors, "same") {
        let decode = |name| Hint::decode(&hex(of, name), &hasher, &fingerprint);
        assert!(decode("as").is_ok());
        assert_eq!(decode("hint"), decode("as"));
    }
}

#[test]
fn what_is_no_hint_is_refused() {
    let vectors = vectors!("hint");
    let hasher = hasher(&vectors);
    let fingerprint = Fingerprint(array(&vectors, "fingerprint"));
    for of in list(&vectors, "refused") {
        assert!(Hint::decode(&hex(of, "hint"), &hasher, &fingerprint).is_err(), "{of}");
    }
}
