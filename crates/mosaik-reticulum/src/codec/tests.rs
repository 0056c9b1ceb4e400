//! The short form, against the frames that it stands for.

use ed25519_dalek::SigningKey;
use mosaik_core::{
    event::{Kind, Payload},
    hlc::Hlc,
    id::Fingerprint,
    run::{Entry, VerifiedRun, chain},
};
use mosaik_proto::message::{Bye, ByeCode, FrontierItem, Greet, LackReason, Reason};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use mosaik_proto::message::{Items, Want};

use super::*;

fn hasher() -> Hasher {
    Hasher::new(&Fingerprint([3; 32]))
}

/// Two ends of a link; what one shortens the other expands.
struct Pair(Codec, Codec);

impl Pair {
    fn new() -> Self {
        Self(Codec::new(hasher()), Codec::new(hasher()))
    }

    fn say(&mut self, message: &Message) -> usize {
        let record = self.0.shorten(message);
        assert_eq!(self.1.expand(&record).as_ref(), Ok(message));
        record.len()
    }

    fn turn(self) -> Self {
        Self(self.1, self.0)
    }
}

fn tip(seq: u64, byte: u8) -> Tip {
    Tip { seq, id: EventId([byte; 32]) }
}

fn run(key: &SigningKey, base: Option<&VerifiedRun>, count: u64, payload: &[u8]) -> VerifiedRun {
    let author = AuthorId(key.verifying_key().to_bytes());
    let (seq, prev) = base.map_or((1, EventId::ZERO), |run| (run.head().seq + 1, run.head().id));
    let entry = |at| Entry {
        hlc: Hlc::new(1_790_000_000_000 + (seq + at) * 250, 0),
        kind: Kind::new("note.add").expect("a kind"),
        payload: Payload::Present(payload.to_vec()),
    };
    let events = chain(&hasher(), author, seq, prev, (0..count).map(entry).collect());
    VerifiedRun::sign(key, events)
}

#[test]
fn every_message_comes_back() {
    let mut pair = Pair::new();
    let author = |byte| AuthorId([byte; 32]);
    let messages = [
        Message::Greet(Greet { app: APP.into(), versions: (1, 3), proof: [5; 32] }),
        Message::Hello(Hello {
            software: "x".into(),
            capabilities: 3,
            frame_max: 1 << 20,
            credit: 9,
            clock_ms: 77,
            name: "n".into(),
            boot: 5,
            top: [1; 16],
            authors: 2,
            events: 3,
            declines: [4; 16],
        }),
        Message::Root([9; 16]),
        Message::Leaf(Prefix::EMPTY, vec![[1; 8], [2; 8]]),
        Message::Items(Items {
            prefix: Prefix::EMPTY,
            items: vec![
                FrontierItem { author: author(1), tips: vec![tip(1, 1), tip(2, 9)] },
                FrontierItem { author: author(2), tips: vec![tip(7, 2)] },
            ],
            lacked: vec![[3; 8]],
            more: true,
        }),
        Message::Want(Want {
            author: author(1),
            tip: Some(tip(9, 4)),
            locator: vec![tip(2, 9), Tip::ROOT],
            credit: 16_384,
        }),
        Message::Have(author(2), tip(7, 2)),
        Message::Decline(author(2), Reason::Quota),
        Message::Lack(author(1), None, LackReason::Gone),
        Message::Lack(author(1), Some(tip(9, 4)), LackReason::SendLongLocator),
        Message::Done(Prefix::EMPTY),
        Message::Bye(Bye::new(ByeCode::Done, "all said")),
    ];
    for _ in 0..2 {
        for message in &messages {
            pair.say(message);
        }
        pair = pair.turn();
    }
}

#[test]
fn what_was_named_goes_as_a_number_at_both_ends() {
    let mut pair = Pair::new();
    let (author, held) = (AuthorId([8; 32]), tip(3, 3));
    let full = pair.say(&Message::Have(author, held));
    assert_eq!(full, 1 + 33 + 34);
    assert_eq!(pair.say(&Message::Have(author, held)), 3);
    let mut pair = pair.turn();
    assert!(pair.say(&Message::Have(author, held)) <= 4);
}

/// Of one event of 100 random bytes no more than 190 are sent once its author and the event before are
/// known: payload, signature, stamp, kind, and some numbers.
#[test]
fn a_new_event_of_a_known_feed_costs_little_more_than_itself() {
    let key = SigningKey::from_bytes(&[7; 32]);
    let mut rng = StdRng::seed_from_u64(1);
    let mut payload = || (0..100).map(|_| rng.random()).collect::<Vec<u8>>();
    let mut pair = Pair::new();
    let first = run(&key, None, 1, &payload());
    pair.say(&Message::Run(first.clone()));
    let second = run(&key, Some(&first), 1, &payload());
    let len = pair.say(&Message::Run(second.clone()));
    assert!(len <= 190, "{len}");
    let third = run(&key, Some(&second), 2, &payload());
    // The other end goes on from what it heard.
    let mut pair = pair.turn();
    let len = pair.say(&Message::Run(third));
    assert!(len <= 300, "{len}");
}

#[test]
fn a_run_of_text_is_compressed() {
    let key = SigningKey::from_bytes(&[7; 32]);
    let text = b"household of five, roof damaged, water from the well is not clean";
    let run = run(&key, None, 20, text);
    let len = Pair::new().say(&Message::Run(run.clone()));
    assert!(len * 3 < run.encode().len(), "{len} of {}", run.encode().len());
}

#[test]
fn the_lists_stay_bounded_and_what_fell_out_goes_in_full() {
    let mut pair = Pair::new();
    let author = AuthorId([8; 32]);
    for seq in 1..=(EVENTS_MAX as u64 + 500) {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&seq.to_be_bytes());
        pair.say(&Message::Have(author, Tip { seq, id: EventId(id) }));
    }
    for known in [&pair.0.said, &pair.1.heard] {
        assert_eq!((known.events.len(), known.event_at.len()), (EVENTS_MAX, EVENTS_MAX));
    }
    let mut id = [0; 32];
    id[7] = 1;
    let oldest = Message::Have(author, Tip { seq: 1, id: EventId(id) });
    assert!(pair.say(&oldest) > 32);
    // Of what the other end has said only the newest are named by number.
    let mut pair = pair.turn();
    for back in [0, EVENTS_HEARD_MAX as u64 - 2, EVENTS_HEARD_MAX as u64 + 2] {
        let seq = EVENTS_MAX as u64 + 500 - back;
        let mut id = [0; 32];
        id[..8].copy_from_slice(&seq.to_be_bytes());
        let len = pair.say(&Message::Have(author, Tip { seq, id: EventId(id) }));
        assert_eq!(len < 10, back < EVENTS_HEARD_MAX as u64, "{back}: {len}");
    }
}

#[test]
fn hostile_records_are_refused_and_never_panic() {
    let mut rng = StdRng::seed_from_u64(9);
    let mut codec = Codec::new(hasher());
    for _ in 0..100_000 {
        let len = rng.random_range(0..90);
        let mut record: Vec<u8> = (0..len).map(|_| rng.random()).collect();
        if let Some(kind) = record.first_mut() {
            *kind %= 16;
        }
        let _ = codec.expand(&record);
    }
    let mut codec = Codec::new(hasher());
    assert!(codec.expand(&[10, 9, 9]).is_err());
    assert!(codec.expand(&[]).is_err());
}
