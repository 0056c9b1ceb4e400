//! Changes to bytes of which nothing is known.

use rand::{Rng, RngExt};

use super::Chance;

/// Varints and bytes at the edges of their ranges.
const EDGES: [&[u8]; 10] = [
    &[0],
    &[0x7f],
    &[0x80],
    &[0xff],
    &[0x80, 0],
    &[0xff, 0xff, 0x03],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
    &[0; 32],
    &[0xff; 8],
];

/// Changes a few places.
pub(super) fn change(bytes: &mut Vec<u8>, chance: &mut Chance) {
    for _ in 0..chance.random_range(1..=3) {
        change_one(bytes, chance);
    }
}

fn change_one(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let at = chance.random_range(0..=bytes.len());
    let end = bytes.len().min(at + chance.random_range(1..=40));
    match chance.random_range(0..8) {
        0 | 1 if at < bytes.len() => bytes[at] ^= 1 << chance.random_range(0..8),
        2 if at < bytes.len() => bytes[at] = chance.random(),
        3 => drop(bytes.drain(at..end)),
        4 => {
            let again = bytes[at..end].to_vec();
            drop(bytes.splice(at..at, again));
        }
        5 => bytes.truncate(at),
        6 => {
            let edge = EDGES[chance.random_range(0..EDGES.len())];
            let end = bytes.len().min(at + chance.random_range(0..=edge.len()));
            drop(bytes.splice(at..end, edge.iter().copied()));
        }
        _ => drop(bytes.splice(at..at, some(chance, 20))),
    }
}

/// Up to `max` bytes of chance.
pub(super) fn some(chance: &mut Chance, max: usize) -> Vec<u8> {
    let mut bytes = vec![0; chance.random_range(0..=max)];
    chance.fill_bytes(&mut bytes);
    bytes
}

/// A number, often at an edge of its range.
pub(super) fn number(chance: &mut Chance) -> u64 {
    match chance.random_range(0..6) {
        0 => 0,
        1 => chance.random_range(1..4),
        2 => u64::MAX - chance.random_range(0..2),
        3 => 1 << chance.random_range(0..64),
        4 => chance.random_range(0..5000),
        _ => chance.random(),
    }
}

/// One bit of `bytes`, chosen by what they are; none of no bytes. The same bytes, the same bit.
pub(super) fn flipped(bytes: &[u8], nth: u8) -> Option<Vec<u8>> {
    let hash = blake3::Hasher::new().update(&[nth]).update(bytes).finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    let bit = u64::from_le_bytes(first).checked_rem(8 * bytes.len() as u64)? as usize;
    let mut flipped = bytes.to_vec();
    flipped[bit / 8] ^= 1 << (bit % 8);
    Some(flipped)
}
