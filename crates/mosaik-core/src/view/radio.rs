//! Which identity in Reticulum each author has, and whose an identity is.
//!
//! Of an author the last that it said, of an identity the author that said so last. It is in no digest.

use super::{
    Origin, ViewError,
    cell::{self, Key, Space, scan},
};
use crate::{
    binding::RadioIdentity,
    codec::{ReadError, Reader},
    event::Event,
    id::AuthorId,
    kv::{Kv, KvMut},
    meshlog::identity_hash,
};

/// Takes an event in, if it says which identity its author has.
pub(super) fn put<K: KvMut>(kv: &mut K, event: &Event) -> Result<(), ViewError<K::Error>> {
    let Some(identity) = RadioIdentity::said_by(event) else { return Ok(()) };
    let origin = Origin::of(event);
    let key = Key::new(Space::Radios).raw(&event.author.0);
    let held = kv.get(&key)?;
    let held = held.as_deref().map(read_cell).transpose().map_err(ViewError::Damaged)?;
    if let Some((before, keys)) = held {
        if before >= origin {
            return Ok(());
        }
        kv.delete(&key_of(&identity_hash(&keys), &event.author))?;
    }
    let encoded = cell::encode_origin(&origin);
    kv.put(&key, &[&encoded[..], &identity.keys].concat())?;
    kv.put(&key_of(&identity.hash(), &event.author), &encoded).map_err(ViewError::Storage)
}

/// The public keys of the identity that an author has: X25519, then Ed25519.
///
/// # Errors
///
/// [`ViewError`], as all reads.
pub fn radio_of<K: Kv>(kv: &K, author: &AuthorId) -> Result<Option<[u8; 64]>, ViewError<K::Error>> {
    let cell = kv.get(&Key::new(Space::Radios).raw(&author.0))?;
    let cell = cell.as_deref().map(read_cell).transpose().map_err(ViewError::Damaged)?;
    Ok(cell.map(|(_, keys)| keys))
}

/// Whose an identity is: of several authors the one that said so last.
///
/// # Errors
///
/// [`ViewError`], as all reads.
pub fn author_of_radio<K: Kv>(
    kv: &K,
    hash: &[u8; 16],
) -> Result<Option<AuthorId>, ViewError<K::Error>> {
    let mut last: Option<(Origin, AuthorId)> = None;
    scan(kv, &Key::new(Space::RadioHashes).raw(hash).span(), |key, cell| {
        let mut key = Reader::new(&key[1 + hash.len()..]);
        let author = AuthorId(key.array()?);
        let mut reader = Reader::new(cell);
        last = last.max(Some((cell::read_origin(&mut reader)?, author)));
        Ok(true)
    })?;
    Ok(last.map(|(_, author)| author))
}

fn key_of(hash: &[u8; 16], author: &AuthorId) -> Key {
    Key::new(Space::RadioHashes).raw(hash).raw(&author.0)
}

fn read_cell(cell: &[u8]) -> Result<(Origin, [u8; 64]), ReadError> {
    let mut reader = Reader::new(cell);
    let origin = cell::read_origin(&mut reader)?;
    let keys = reader.array()?;
    reader.finish()?;
    Ok((origin, keys))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};

    use super::*;
    use crate::{
        event::Payload,
        hlc::Hlc,
        id::EventId,
        kv::MemoryKv,
        view::{fold, radio_of},
    };

    fn author(of: u8) -> AuthorId {
        AuthorId([of; 32])
    }

    /// An identity that takes `of` for its own.
    fn identity(seed: u8, of: AuthorId) -> RadioIdentity {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let mut keys = [seed; 64];
        keys[32..].copy_from_slice(key.verifying_key().as_bytes());
        RadioIdentity { keys, signature: key.sign(&RadioIdentity::statement(&of)).to_bytes() }
    }

    fn event(ms: u64, author: AuthorId, identity: &RadioIdentity) -> Event {
        let draft = identity.draft();
        Event {
            id: EventId([ms as u8; 32]),
            author,
            seq: ms,
            prev: EventId::ZERO,
            hlc: Hlc::new(ms, 0),
            kind: draft.kind,
            payload: Payload::Present(draft.payload),
        }
    }

    fn view_of(events: &[Event]) -> MemoryKv {
        let mut kv = MemoryKv::new();
        for event in events {
            // It counts for nothing else.
            assert!(!fold(&mut kv, event).expect("memory"));
        }
        kv
    }

    #[test]
    fn neither_names_the_other_alone() {
        let [ours, theirs] = [author(1), author(2)];
        let good = identity(7, ours);
        let kv = view_of(&[event(1, ours, &good)]);
        assert_eq!(radio_of(&kv, &ours).expect("memory"), Some(good.keys));
        assert_eq!(author_of_radio(&kv, &good.hash()).expect("memory"), Some(ours));
        // Somebody else's identity, claimed; and one whose signature is cut.
        let mut cut = event(3, theirs, &identity(8, theirs));
        cut.payload = Payload::Present(cut.payload.bytes().expect("it is here")[..127].to_vec());
        let kv = view_of(&[event(2, theirs, &good), cut]);
        assert!(kv.is_empty());
    }

    #[test]
    fn the_last_one_counts_whatever_the_order() {
        let ours = author(1);
        let [first, last] = [identity(7, ours), identity(8, ours)];
        let events = [event(1, ours, &first), event(2, ours, &last)];
        let [a, b] =
            [[0, 1], [1, 0]].map(|order| view_of(&order.map(|at: usize| events[at].clone())));
        assert_eq!(a, b);
        assert_eq!(radio_of(&a, &ours).expect("memory"), Some(last.keys));
        assert_eq!(author_of_radio(&a, &first.hash()).expect("memory"), None);
        // An identity that another author has later is that one's.
        let next = author(2);
        let moved = identity(8, next);
        let kv = view_of(&[event(9, next, &moved), events[1].clone()]);
        assert_eq!(author_of_radio(&kv, &last.hash()).expect("memory"), Some(next));
    }
}
