//! Bytes as a run.

use std::sync::LazyLock;

use mosaik_core::{
    event::{Kind, Payload},
    hlc::Hlc,
    id::{AuthorId, EventId},
    limits::{RUN_EVENTS_MAX, RUN_LEN_MAX},
    run::{Run, chain, sign_head},
};
use rand::RngExt;

use super::{
    Chance, Seed, Target, bytes,
    vectors::{self, vectors},
    world::{self, HASHER, NOW_MS, key},
};

/// See the module's head.
pub const TARGET: Target = Target { name: "run", seeds, mutate, check };

static SEEDS: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    let file = vectors!("run");
    let runs = vectors::list(&file, "runs")
        .map(|(n, entry)| (format!("run-{n:02}"), vectors::bytes(entry, "run")));
    let refused = vectors::list(&file, "refused")
        .map(|(n, entry)| (format!("refused-{n:02}"), vectors::bytes(entry, "run")));
    // A run may have 256 KiB: what its length shows, the vectors' own tests show.
    runs.chain(refused).filter(|(_, bytes)| bytes.len() <= 4096).collect()
});

fn seeds() -> Vec<Seed> {
    SEEDS.clone()
}

/// What is taken is written back byte for byte, follows from its base, and no bit of it can change.
fn check(bytes: &[u8]) {
    let Ok(run) = Run::decode(bytes) else { return };
    assert_eq!(run.encode(), bytes, "a run in another encoding than its own");
    assert!((1..=RUN_EVENTS_MAX).contains(&run.entries.len()));
    let payloads: usize = run.entries.iter().map(|entry| entry.payload.len()).sum();
    assert!(payloads <= RUN_LEN_MAX, "payloads of {payloads} bytes");
    let (start_seq, base) = (run.start_seq, run.base);
    let Ok(verified) = run.verify(&HASHER) else { return };
    assert_eq!(verified.encode(), bytes);
    assert_eq!(verified.base(), (start_seq - 1, base));
    for pair in verified.events().windows(2) {
        assert_eq!((pair[1].seq, pair[1].prev), (pair[0].seq + 1, pair[0].id));
    }
    for nth in 0..4 {
        let Some(flipped) = bytes::flipped(bytes, nth) else { return };
        let taken = Run::decode(&flipped).map(|run| run.verify(&HASHER));
        assert!(!matches!(taken, Ok(Ok(_))), "a run with a flipped bit was taken: {flipped:02x?}");
    }
}

/// Whether an input is a run that its author signed.
pub fn is_taken(bytes: &[u8]) -> bool {
    Run::decode(bytes).is_ok_and(|run| run.verify(&HASHER).is_ok())
}

fn mutate(bytes: &mut Vec<u8>, chance: &mut Chance) {
    if chance.random_range(0..4) == 0 {
        return bytes::change(bytes, chance);
    }
    let mut run = Run::decode(bytes).unwrap_or_else(|_| {
        Run::decode(&world::run(chance).encode()).expect("runs of this world are in order")
    });
    for _ in 0..chance.random_range(1..=3) {
        change(&mut run, chance);
    }
    let fits = run.start_seq.checked_add(run.entries.len() as u64).is_some();
    if fits && chance.random_range(0..4) > 0 {
        let key = key(chance.random_range(0..4));
        run.author = AuthorId(key.verifying_key().to_bytes());
        let events = chain(&HASHER, run.author, run.start_seq, run.base, run.entries.clone());
        if let Some(head) = events.last() {
            run.signature = sign_head(&key, &head.id);
        }
    }
    *bytes = run.encode();
}

fn change(run: &mut Run, chance: &mut Chance) {
    let at = chance.random_range(0..run.entries.len().max(1));
    let Some(mut entry) = run.entries.get(at).cloned() else { return };
    match chance.random_range(0..9) {
        0 => {
            run.start_seq = bytes::number(chance).max(1);
            run.base = EventId(if run.start_seq == 1 { [0; 32] } else { chance.random() });
        }
        1 => drop(run.entries.remove(at)),
        2 => {
            let times = [1, 2, 40, RUN_EVENTS_MAX][chance.random_range(0..4)];
            run.entries.extend(vec![entry; times]);
        }
        3 => {
            let other = chance.random_range(0..run.entries.len());
            run.entries.swap(at, other);
        }
        4 => {
            entry.hlc = match chance.random_range(0..3) {
                0 => Hlc::from_u64(bytes::number(chance)),
                1 => Hlc::new(NOW_MS, chance.random()),
                _ => Hlc::new(entry.hlc.ms().saturating_sub(chance.random_range(0..9)), 0),
            };
            run.entries[at] = entry;
        }
        5 => {
            let kinds = ["x", "field.set", "record.create", "app._-0", "event.erase"];
            entry.kind = Kind::new(kinds[chance.random_range(0..kinds.len())]).expect("a kind");
            run.entries[at] = entry;
        }
        6 => {
            let len = (bytes::number(chance) % 70_000) as u32;
            entry.payload = Payload::Absent { len, hash: chance.random() };
            run.entries[at] = entry;
        }
        _ => {
            let mut payload = entry.payload.bytes().unwrap_or_default().to_vec();
            bytes::change(&mut payload, chance);
            entry.payload = Payload::Present(payload);
            run.entries[at] = entry;
        }
    }
}
