//! Bytes as a message of a session: the type and the body of a frame.

use std::sync::LazyLock;

use mosaik_core::{
    feed::Tip,
    id::{AuthorId, BlobId, EventId, NodeId},
    trie::Prefix,
};
use mosaik_proto::message::{
    APP, Ask, Bye, ByeCode, FILE_PIECE_MAX, FILE_SLICE_MAX, FRAME_MAX, FRAME_MIN, FilePart,
    FileWant, FrontierItem, Greet, Hello, Items, LackReason, Message, Payloads, Probe, ProbeId,
    Probed, Reason, SessionWay, Want, ZSTD, frame_len, run_frame,
};
use rand::RngExt;

use super::{
    Chance, Seed, Target, bytes,
    vectors::{self, vectors},
    world::{self, Author, HASHER, NOW_MS},
};

/// See the module's head.
pub const TARGET: Target = Target { name: "message", seeds, mutate, check };

static SEEDS: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    let file = vectors!("message");
    let of = |name: &'static str, list: &str| {
        let frames = vectors::list(&file, list);
        let small = frames.map(move |(n, entry)| {
            (format!("{name}-{n:02}"), vectors::bytes(entry, "frame").split_off(4))
        });
        small.filter(|(_, frame)| frame.len() <= 2048).collect::<Vec<_>>()
    };
    let all = [of("message", "messages"), of("same", "same"), of("skipped", "skipped")];
    all.into_iter().flatten().collect()
});

pub(super) fn seeds() -> Vec<Seed> {
    SEEDS.clone()
}

/// What is taken means one thing, and its known fields have one encoding.
fn check(frame: &[u8]) {
    let Ok(message) = Message::decode(frame, &HASHER) else { return };
    let again = message.encode();
    let (header, again) = again.split_first_chunk().expect("a frame has a length");
    assert_eq!(frame_len(*header), Ok(again.len()), "a message that fits no frame");
    assert_eq!(Message::decode(again, &HASHER).as_ref(), Ok(&message), "it means another thing");
    match &message {
        // Compression is the sender's choice.
        Message::Run(run) => {
            let packed = run_frame(&run.encode(), true);
            assert_eq!(Message::decode(&packed[4..], &HASHER).as_ref(), Ok(&message));
        }
        // Tags that this version doesn't know stand at its end.
        Message::Hello(_) => assert!(frame.starts_with(&again[..again.len() - 1])),
        _ => assert!(frame.starts_with(again), "another encoding: {frame:02x?}, {again:02x?}"),
    }
    let longer = [frame, &[0xff; 3]].concat();
    if longer.len() <= FRAME_MAX {
        let taken = Message::decode(&longer, &HASHER);
        assert_eq!(taken, Ok(message), "fields of a later version change it");
    }
}

/// Whether an input is a message.
pub fn is_taken(frame: &[u8]) -> bool {
    Message::decode(frame, &HASHER).is_ok()
}

fn mutate(frame: &mut Vec<u8>, chance: &mut Chance) {
    match chance.random_range(0..8) {
        0 => *frame = random(chance).encode().split_off(4),
        1 if !frame.is_empty() => frame[0] = chance.random_range(0..20),
        2 => {
            // The end of another.
            let other = &SEEDS[chance.random_range(0..SEEDS.len())].1;
            frame.truncate(chance.random_range(0..=frame.len()));
            frame.extend(&other[chance.random_range(0..other.len())..]);
        }
        3 => *frame = run_frame(&world::run(chance).encode(), true).split_off(4),
        _ => bytes::change(frame, chance),
    }
}

/// A message in good form, of authors that exist and of others.
pub(super) fn random(chance: &mut Chance) -> Message {
    let some = |chance: &mut Chance| (author(chance), tip(chance));
    match chance.random_range(0..16) {
        0 => Message::Greet(Greet {
            app: APP.to_owned(),
            versions: (bytes::number(chance), bytes::number(chance)),
            proof: chance.random(),
        }),
        1 => Message::Hello(hello(chance)),
        2 => Message::Root(chance.random()),
        3 => {
            let mut children = [[0; 8]; 16];
            children.fill_with(|| chance.random());
            Message::Tree(prefix(chance, 63), children)
        }
        4 => {
            let count = chance.random_range(0..=32);
            Message::Leaf(prefix(chance, 64), (0..count).map(|_| chance.random()).collect())
        }
        5 | 6 => Message::Items(items(chance)),
        7 => Message::Done(prefix(chance, 64)),
        8 => Message::Want(want(chance)),
        9 => Message::Run(world::run(chance)),
        10 => {
            let (author, tip) = some(chance);
            Message::Have(author, tip)
        }
        11 => Message::Payloads(payloads(chance)),
        12 => {
            let reason = Reason::from_u8(chance.random_range(0..8));
            Message::Decline(author(chance), reason)
        }
        13 => {
            let (author, tip) = some(chance);
            let tip = chance.random_bool(0.7).then_some(tip);
            Message::Lack(author, tip, LackReason::from_u8(chance.random_range(0..4)))
        }
        14 => Message::Again(bytes::number(chance)),
        _ => match chance.random_range(0..9) {
            0 => Message::Bye(Bye::new(ByeCode::from_u8(chance.random_range(0..10)), "so long")),
            1 => Message::Ping(bytes::number(chance)),
            2 => Message::Pong(bytes::number(chance)),
            3 => Message::Probe(Probe {
                id: ProbeId(chance.random()),
                origin: NodeId(chance.random()),
                sent_ms: bytes::number(chance),
                hops: chance.random_range(0..20),
            }),
            4 => Message::Probed(Probed {
                id: ProbeId(chance.random()),
                node: NodeId(chance.random()),
                name: "n".repeat(chance.random_range(0..=64)),
                received_ms: bytes::number(chance),
                hops: chance.random_range(0..20),
                from: NodeId(chance.random()),
                way: SessionWay::from_u8(chance.random_range(0..6)),
            }),
            5 => Message::FileWant(FileWant {
                token: bytes::number(chance),
                blob: BlobId(chance.random()),
                group: chance.random_range(0..20),
                from: chance.random_range(0..20_000),
            }),
            6 => {
                let len = [0, 1, FILE_SLICE_MAX][chance.random_range(0..3)];
                let total = if len == 0 { 0 } else { chance.random_range(len..=FILE_PIECE_MAX) };
                let (token, total) = (bytes::number(chance), total as u32);
                Message::FilePart(FilePart { token, total, bytes: vec![7; len] })
            }
            _ => Message::Twin(bytes::number(chance)),
        },
    }
}

fn hello(chance: &mut Chance) -> Hello {
    Hello {
        software: "mosaik-node 0.1.0".to_owned(),
        capabilities: [0, ZSTD, u64::MAX][chance.random_range(0..3)],
        frame_max: [FRAME_MIN, FRAME_MIN, 1 << 20, u32::MAX][chance.random_range(0..4)],
        credit: bytes::number(chance),
        clock_ms: [NOW_MS, bytes::number(chance)][chance.random_range(0..2)],
        name: "kitchen".to_owned(),
        boot: bytes::number(chance),
        top: chance.random(),
        authors: bytes::number(chance),
        events: bytes::number(chance),
        declines: [[0; 16], chance.random()][chance.random_range(0..2)],
    }
}

fn author(chance: &mut Chance) -> AuthorId {
    match chance.random_range(0..4) {
        0 => AuthorId(chance.random()),
        _ => world::author(chance).id(),
    }
}

/// Seq and id of an event: mostly of one that an author here has written.
fn tip(chance: &mut Chance) -> Tip {
    match chance.random_range(0..4) {
        0 => Tip { seq: bytes::number(chance).max(1), id: EventId(chance.random()) },
        _ => tip_of(world::author(chance), chance),
    }
}

/// One of its first events.
fn tip_of(author: &Author, chance: &mut Chance) -> Tip {
    Tip::from(&author.events[chance.random_range(0..author.events.len())])
}

/// Mostly a short one: under it something may lie.
fn prefix(chance: &mut Chance, nibbles_max: usize) -> Prefix {
    let nibbles = [0, 0, 0, 1, 1, 2, nibbles_max][chance.random_range(0..7)];
    (0..nibbles).fold(Prefix::EMPTY, |prefix, _| prefix.child(chance.random_range(0..16)))
}

fn items(chance: &mut Chance) -> Items {
    let count = [0, 1, 3, 70][chance.random_range(0..4)];
    let mut items: Vec<FrontierItem> = (0..count)
        .map(|_| {
            let author = world::author(chance);
            let mut tips = vec![tip_of(author, chance), tip(chance)];
            tips.truncate(chance.random_range(1..=2));
            tips.sort_unstable();
            tips.dedup();
            FrontierItem { author: author.id(), tips }
        })
        .collect();
    items.sort_unstable_by_key(|item| item.author);
    items.dedup_by_key(|item| item.author);
    let lacked = (0..chance.random_range(0..3)).map(|_| chance.random()).collect();
    let prefix = prefix(chance, 64);
    items.retain(|item| prefix.covers(&item.author.0));
    Items { prefix, items, lacked, more: chance.random() }
}

fn want(chance: &mut Chance) -> Want {
    let author = world::author(chance);
    let (skipped, count) = (chance.random_range(0..7), chance.random_range(0..3));
    let mut locator: Vec<Tip> =
        author.events.iter().rev().skip(skipped).take(count).map(Tip::from).collect();
    if chance.random_bool(0.2) {
        locator.insert(0, Tip { seq: u64::MAX, id: EventId(chance.random()) });
    }
    if chance.random_bool(0.6) {
        locator.push(Tip::ROOT);
    }
    let tips = [None, Some(tip(chance)), Some(tip_of(author, chance))];
    let tip = tips[chance.random_range(0..3)];
    Want { author: author.id(), tip, locator, credit: bytes::number(chance) }
}

fn payloads(chance: &mut Chance) -> Payloads {
    let mut payloads = Payloads::default();
    for _ in 0..chance.random_range(0..4) {
        let by = world::author(chance);
        let event = &by.events[chance.random_range(0..by.events.len())];
        let (author, tip) = (by.id(), Tip::from(event));
        match chance.random_range(0..3) {
            0 => payloads.ask.push(Ask { author, tip }),
            1 => {
                let bytes = event.payload.bytes().unwrap_or_default().to_vec();
                payloads.give.push((tip.id, bytes));
            }
            _ => payloads.lack.push(tip.id),
        }
    }
    payloads
}
