//! Bytes as a hint over gossip.

use std::sync::LazyLock;

use mosaik_core::{feed::Tip, id::NodeId};
use mosaik_proto::{
    carrier::Addresses,
    hint::{HINT_LEN_MAX, Hint, Presence},
};
use rand::RngExt;

use super::{
    Chance, Seed, Target, bytes,
    vectors::{self, vectors},
    world::{self, HASHER, KEYS, NOW_MS, key},
};

/// See the module's head.
pub const TARGET: Target = Target { name: "hint", seeds, mutate, check };

static SEEDS: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    let file = vectors!("hint");
    let hints = vectors::list(&file, "hints");
    hints.map(|(n, entry)| (format!("hint-{n:02}"), vectors::bytes(entry, "hint"))).collect()
});

fn seeds() -> Vec<Seed> {
    SEEDS.clone()
}

fn decode(bytes: &[u8]) -> Option<Hint> {
    Hint::decode(bytes, &HASHER, &KEYS.fingerprint).ok()
}

/// What is taken means one thing, fits one message of gossip, and is what its node signed.
fn check(bytes: &[u8]) {
    let Some(hint) = decode(bytes) else { return };
    assert!(bytes.len() <= HINT_LEN_MAX);
    for nonce in [0, u64::MAX] {
        assert_eq!(decode(&hint.encode(nonce)).as_ref(), Some(&hint), "it means another thing");
    }
    let (Hint::Presence(_) | Hint::Run(_)) = &hint else { return };
    for nth in 0..4 {
        // The nonce and what stands behind the fields belong to nobody.
        let flipped = bytes::flipped(bytes, nth).and_then(|bytes| decode(&bytes));
        let is_refused = match &flipped {
            Some(Hint::Presence(other)) => hint == Hint::Presence(other.clone()),
            Some(other @ Hint::Run(_)) => hint == *other,
            Some(Hint::Head(..)) | None => true,
        };
        assert!(is_refused, "a flipped bit made {flipped:?} of {hint:?}");
    }
}

/// Whether an input is a hint.
pub fn is_taken(bytes: &[u8]) -> bool {
    decode(bytes).is_some()
}

fn mutate(bytes: &mut Vec<u8>, chance: &mut Chance) {
    if chance.random_range(0..3) > 0 {
        return bytes::change(bytes, chance);
    }
    let run = world::run(chance);
    let hint = match chance.random_range(0..3) {
        0 => Hint::Head(run.author(), Tip::from(run.head())),
        1 => Hint::Run(run),
        _ => Hint::Presence(presence(chance)),
    };
    *bytes = hint.encode(bytes::number(chance));
}

fn presence(chance: &mut Chance) -> Presence {
    let count = chance.random_range(0..10);
    let direct = (0..count).map(|_| match chance.random_range(0..2) {
        0 => (chance.random::<[u8; 4]>(), chance.random()).into(),
        _ => (chance.random::<[u8; 16]>(), chance.random()).into(),
    });
    let addresses = Addresses { direct: direct.collect(), relays: vec!["x".repeat(count * 25)] };
    let (boot, name) = (bytes::number(chance), "ä".repeat(count * 5));
    let key = key(chance.random_range(0..4));
    let leaving = chance.random();
    let said_ms = [NOW_MS, bytes::number(chance)][chance.random_range(0..2)];
    let presence =
        Presence::sign(&key, &KEYS.fingerprint, boot, said_ms, leaving, &name, &addresses);
    debug_assert_eq!(presence.node, NodeId(key.verifying_key().to_bytes()));
    presence
}
