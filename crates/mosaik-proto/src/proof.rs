//! The keyed hashes of a session: who belongs to the network, and what stands for long things.
//!
//! Source: FORMAT.md beside this crate, sections 1 and 3.

use mosaik_core::{
    id::{AuthorId, Fingerprint},
    key::derive,
};

use crate::message::Short;

/// The proof in a `Greet`: it can't be made without the network's membership key, nor be used on
/// another connection or by another node. The ids are the transport's.
pub fn membership_proof(
    membership: &[u8; 32],
    binding: &[u8],
    sender: &[u8],
    receiver: &[u8],
) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(membership);
    hasher.update(binding).update(sender).update(receiver);
    *hasher.finalize().as_bytes()
}

/// What stands for a hash or an item between the two of one session. The key is the dialer's proof,
/// so nobody can prepare two things that look the same.
pub fn short_hash(dialers_proof: &[u8; 32], bytes: &[u8]) -> Short {
    let mut short = [0; 8];
    short.copy_from_slice(&blake3::keyed_hash(dialers_proof, bytes).as_bytes()[..8]);
    short
}

/// What a node declines, in 16 bytes: zeros for nothing. The authors ascend.
pub fn declines_digest<'a>(
    fingerprint: &Fingerprint,
    authors: impl Iterator<Item = &'a AuthorId>,
) -> [u8; 16] {
    let mut bytes = fingerprint.0.to_vec();
    authors.for_each(|author| bytes.extend_from_slice(author.as_bytes()));
    let mut digest = [0; 16];
    if bytes.len() > fingerprint.0.len() {
        digest.copy_from_slice(&derive("declines", &bytes)[..16]);
    }
    digest
}
