//! Bytes from outside: whatever comes, decoding says yes or no, and what it took means one thing.

use ed25519_dalek::SigningKey;
use mosaik_core::{
    event::{Draft, Event, Hasher, Kind, Payload},
    feed::Tip,
    hlc::Hlc,
    id::{AuthorId, BlobId, EventId, Fingerprint, NodeId},
    run::VerifiedRun,
    trie::Prefix,
};
use mosaik_proto::{
    hint::Hint,
    message::{
        Ask, Bye, ByeCode, FILE_SLICE_MAX, FRAME_MAX, FilePart, FileWant, FrameError, FrontierItem,
        Greet, Hello, Items, LackReason, Message, Payloads, Probe, ProbeId, Probed, Reason,
        SessionWay, Want, frame_len, run_frame,
    },
};
use proptest::{collection::vec, prelude::*};

const FINGERPRINT: Fingerprint = Fingerprint([4; 32]);

fn hasher() -> Hasher {
    Hasher::new(&FINGERPRINT)
}

fn run(author: u8, drafts: &[Draft]) -> VerifiedRun {
    let key = SigningKey::from_bytes(&[author; 32]);
    let author = AuthorId(key.verifying_key().to_bytes());
    let mut last = Tip::ROOT;
    let mut events = Vec::new();
    for (i, draft) in drafts.iter().enumerate() {
        let (seq, hlc) = (last.seq + 1, Hlc::new(1_000 + i as u64, 0));
        let (kind, payload) = (draft.kind.clone(), Payload::Present(draft.payload.clone()));
        let id = hasher().id(&author, seq, &last.id, hlc, &kind, &payload);
        events.push(Event { id, author, seq, prev: last.id, hlc, kind, payload });
        last = Tip { seq, id };
    }
    VerifiedRun::sign(&key, events)
}

fn tip() -> impl Strategy<Value = Tip> {
    (1..u64::MAX, any::<[u8; 32]>()).prop_map(|(seq, id)| Tip { seq, id: EventId(id) })
}

fn author() -> impl Strategy<Value = AuthorId> {
    any::<[u8; 32]>().prop_map(AuthorId)
}

fn prefix(nibbles_max: usize) -> impl Strategy<Value = Prefix> {
    vec(0usize..16, 0..=nibbles_max)
        .prop_map(|nibbles| nibbles.into_iter().fold(Prefix::EMPTY, |prefix, n| prefix.child(n)))
}

fn items() -> impl Strategy<Value = Items> {
    let tips = proptest::collection::btree_set(tip(), 1..5);
    let items = proptest::collection::btree_map(author(), tips, 0..20);
    (items, vec(any::<[u8; 8]>(), 0..=32), any::<bool>()).prop_map(|(items, lacked, more)| Items {
        prefix: Prefix::EMPTY,
        items: items
            .into_iter()
            .map(|(author, tips)| FrontierItem { author, tips: tips.into_iter().collect() })
            .collect(),
        lacked,
        more,
    })
}

fn hello() -> impl Strategy<Value = Hello> {
    let texts = ("[a-z ./0-9]{0,64}", "[a-zA-Z]{0,64}");
    let numbers = (any::<u64>(), 4096u32.., any::<[u64; 5]>());
    (texts, numbers, any::<[u8; 16]>(), any::<[u8; 16]>()).prop_map(
        |((software, name), (capabilities, frame_max, numbers), top, declines)| {
            let [credit, clock_ms, boot, authors, events] = numbers;
            Hello {
                software,
                capabilities,
                frame_max,
                credit,
                clock_ms,
                name,
                boot,
                top,
                authors,
                events,
                declines,
            }
        },
    )
}

fn payloads() -> impl Strategy<Value = Payloads> {
    let id = || any::<[u8; 32]>().prop_map(EventId);
    let ask = (author(), tip()).prop_map(|(author, tip)| Ask { author, tip });
    let give = (id(), vec(any::<u8>(), 0..300));
    (vec(ask, 0..5), vec(give, 0..5), vec(id(), 0..5)).prop_map(|(ask, give, lack)| Payloads {
        ask,
        give,
        lack,
    })
}

fn want() -> impl Strategy<Value = Want> {
    let locator = vec(tip(), 0..10).prop_map(|mut tips| {
        tips.sort_unstable_by(|a, b| b.cmp(a));
        tips
    });
    (author(), proptest::option::of(tip()), locator, any::<bool>(), any::<u64>()).prop_map(
        |(author, tip, mut locator, from_root, credit)| {
            locator.extend(from_root.then_some(Tip::ROOT));
            Want { author, tip, locator, credit }
        },
    )
}

fn probe() -> impl Strategy<Value = Probe> {
    (any::<[u8; 16]>(), any::<[u8; 32]>(), any::<u64>(), any::<u8>()).prop_map(
        |(id, origin, sent_ms, hops)| Probe {
            id: ProbeId(id),
            origin: NodeId(origin),
            sent_ms,
            hops,
        },
    )
}

fn probed() -> impl Strategy<Value = Probed> {
    let ids = (any::<[u8; 16]>(), any::<[u8; 32]>(), any::<[u8; 32]>());
    (ids, "[a-z ]{0,64}", any::<u64>(), any::<u8>(), any::<u8>()).prop_map(
        |((id, node, from), name, received_ms, hops, way)| Probed {
            id: ProbeId(id),
            node: NodeId(node),
            name,
            received_ms,
            hops,
            from: NodeId(from),
            way: SessionWay::from_u8(way),
        },
    )
}

fn file_part() -> impl Strategy<Value = FilePart> {
    (any::<u64>(), vec(any::<u8>(), 0..=FILE_SLICE_MAX), 0..1_000u32).prop_map(
        |(token, bytes, more)| {
            let total = if bytes.is_empty() { 0 } else { bytes.len() as u32 + more };
            FilePart { token, total, bytes }
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let greet = (0u64..9, 0u64..9, any::<[u8; 32]>()).prop_map(|(low, high, proof)| Greet {
        app: "mosaik-node/sync".into(),
        versions: (low, high),
        proof,
    });
    let reason = prop::sample::select(vec![
        Reason::Blocked,
        Reason::Quota,
        Reason::NotAWriter,
        Reason::Crowded,
        Reason::Other(200),
    ]);
    let lack = prop::sample::select(vec![
        LackReason::SendLongLocator,
        LackReason::Gone,
        LackReason::Other(0),
    ]);
    let runs = (1u8..4, vec(vec(any::<u8>(), 0..200), 1..8)).prop_map(|(author, payloads)| {
        let kind = Kind::new("note.add").expect("a kind");
        let drafts = payloads.into_iter().map(|payload| Draft { kind: kind.clone(), payload });
        run(author, &drafts.collect::<Vec<_>>())
    });
    prop_oneof![
        greet.prop_map(Message::Greet),
        hello().prop_map(Message::Hello),
        any::<[u8; 16]>().prop_map(Message::Root),
        (prefix(63), any::<[[u8; 8]; 16]>()).prop_map(|(p, children)| Message::Tree(p, children)),
        (prefix(64), vec(any::<[u8; 8]>(), 0..=32)).prop_map(|(p, items)| Message::Leaf(p, items)),
        items().prop_map(Message::Items),
        prefix(64).prop_map(Message::Done),
        want().prop_map(Message::Want),
        runs.prop_map(Message::Run),
        (author(), tip()).prop_map(|(author, tip)| Message::Have(author, tip)),
        payloads().prop_map(Message::Payloads),
        (author(), reason).prop_map(|(author, reason)| Message::Decline(author, reason)),
        (author(), proptest::option::of(tip()), lack)
            .prop_map(|(author, tip, reason)| Message::Lack(author, tip, reason)),
        (any::<u8>(), "[a-z ]{0,256}")
            .prop_map(|(code, text)| Message::Bye(Bye::new(ByeCode::from_u8(code), text))),
        any::<u64>().prop_map(Message::Again),
        any::<u64>().prop_map(Message::Twin),
        any::<u64>().prop_map(Message::Ping),
        any::<u64>().prop_map(Message::Pong),
        probe().prop_map(Message::Probe),
        probed().prop_map(Message::Probed),
        (any::<u64>(), any::<[u8; 32]>(), any::<u32>(), any::<u32>()).prop_map(
            |(token, blob, group, from)| {
                Message::FileWant(FileWant { token, blob: BlobId(blob), group, from })
            }
        ),
        file_part().prop_map(Message::FilePart),
    ]
}

/// What was taken encodes to bytes that are taken as the same.
fn means_one_thing(frame: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(message) = Message::decode(frame, &hasher()) {
        let again = message.encode();
        prop_assert_eq!(Message::decode(&again[4..], &hasher()), Ok(message));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_message_comes_back_as_it_went(message in message()) {
        let frame = message.encode();
        let header = *frame.first_chunk().expect("a frame has a length");
        prop_assert_eq!(frame_len(header), Ok(frame.len() - 4));
        prop_assert_eq!(Message::decode(&frame[4..], &hasher()), Ok(message));
    }

    #[test]
    fn later_fields_behind_a_body_are_left_alone(message in message(), more in vec(any::<u8>(), 0..20)) {
        let mut frame = message.encode();
        frame.extend(more);
        prop_assert_eq!(Message::decode(&frame[4..], &hasher()), Ok(message));
    }

    #[test]
    fn a_body_that_ends_early_is_refused(message in message(), cut in any::<prop::sample::Index>()) {
        let frame = message.encode();
        let len = 1 + cut.index(frame.len() - 4);
        if len < frame.len() - 4 {
            prop_assert!(Message::decode(&frame[4..4 + len], &hasher()).is_err());
        }
    }

    #[test]
    fn changed_bytes_are_refused_or_mean_one_thing(
        message in message(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut frame = message.encode().split_off(4);
        for (at, byte) in changes {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        means_one_thing(&frame)?;
    }

    #[test]
    fn any_bytes_are_refused_or_mean_one_thing(kind in 0u8..20, body in vec(any::<u8>(), 0..200)) {
        let frame: Vec<u8> = std::iter::once(kind).chain(body).collect();
        means_one_thing(&frame)?;
        let _ = Hint::decode(&frame, &hasher(), &FINGERPRINT);
    }

    #[test]
    fn a_run_with_one_bit_changed_is_refused_or_has_another_base(
        payloads in vec(vec(any::<u8>(), 0..100), 1..5),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let kind = Kind::new("app.x").expect("a kind");
        let drafts: Vec<_> =
            payloads.into_iter().map(|payload| Draft { kind: kind.clone(), payload }).collect();
        let run = run(1, &drafts);
        let mut frame = run_frame(&run.encode(), false).split_off(4);
        let at = at.index(frame.len());
        frame[at] ^= 1 << bit;
        match Message::decode(&frame, &hasher()) {
            Err(_) => {}
            Ok(taken) => prop_assert_ne!(taken, Message::Run(run)),
        }
    }
}

#[test]
fn a_length_out_of_bounds_is_refused_before_anything_is_allocated() {
    assert_eq!(frame_len([0; 4]), Err(FrameError::Length(0)));
    assert_eq!(frame_len([255; 4]), Err(FrameError::Length(u32::MAX as usize)));
    assert_eq!(frame_len((FRAME_MAX as u32).to_be_bytes()), Ok(FRAME_MAX));
    assert!(frame_len((FRAME_MAX as u32 + 1).to_be_bytes()).is_err());
}

/// Of a long run a piece is tried first; what doesn't shrink goes as it is.
#[test]
fn a_run_goes_compressed_where_that_makes_it_shorter_whatever_its_length() {
    let kind = Kind::new("app.x").expect("a kind");
    // Hashes stand for what no compressor can shorten.
    let noise = |i: u32| -> Vec<u8> {
        let blocks = (0..5u32).map(|n| blake3::hash(&(i * 8 + n).to_le_bytes()));
        blocks.flat_map(|hash| *hash.as_bytes()).collect()
    };
    let text = |i: u32| format!("{{\"temperature\": {}, \"humidity\": {}}}", 20 + i % 3, i % 50);
    let texts = |i| text(i).into_bytes();
    for count in [20, 900] {
        let drafts = |payload: &dyn Fn(u32) -> Vec<u8>| -> Vec<Draft> {
            (0..count).map(|i| Draft { kind: kind.clone(), payload: payload(i) }).collect()
        };
        for (drafts, shrinks) in [(drafts(&noise), false), (drafts(&texts), true)] {
            let run = run(1, &drafts);
            let (plain, packed) = (run_frame(&run.encode(), false), run_frame(&run.encode(), true));
            assert_eq!(packed.len() < plain.len() / 2, shrinks, "{count} events");
            assert_eq!(Message::decode(&packed[4..], &hasher()), Ok(Message::Run(run)));
        }
    }
}

#[test]
fn a_small_frame_can_not_unfold_to_a_large_run() {
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).expect("zeros compress");
    let mut frame = vec![9, 1];
    let mut len = bomb.len();
    while len >= 128 {
        frame.push(len as u8 | 128);
        len >>= 7;
    }
    frame.push(len as u8);
    frame.extend(bomb);
    assert_eq!(Message::decode(&frame, &hasher()), Err(FrameError::Compression));
}
