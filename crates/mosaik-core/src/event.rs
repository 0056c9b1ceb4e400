//! One entry of a feed: header, payload, id.
//!
//! Invariants:
//! - An [`Event`]'s id is the keyed hash of its network's fingerprint and its header, so it can't be
//!   replayed into another network; it names everything but the payload's bytes, which its hash does.
//! - A payload may be absent while the chain still verifies.
//!
//! Source: FORMAT.md beside this crate, section 3.

use std::{fmt, sync::Arc};

use crate::{
    codec::Writer,
    hlc::Hlc,
    id::{AuthorId, EventId, Fingerprint},
    key::deriver,
    limits::{KIND_LEN_MAX, PAYLOAD_LEN_MAX},
};

/// A text that is no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a kind is 1 to {KIND_LEN_MAX} of a-z, 0-9, '.', '_' and '-', got {0:?}")]
pub struct KindError(String);

/// What an event means: 1 to 64 bytes of `[a-z0-9._-]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(Arc<str>);

impl Kind {
    /// Checks and keeps `text`.
    ///
    /// # Errors
    ///
    /// [`KindError`] if it is empty, too long or has other characters.
    pub fn new(text: &str) -> Result<Self, KindError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        if (1..=KIND_LEN_MAX).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(KindError(text.chars().take(KIND_LEN_MAX + 1).collect()))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// What an event carries, or what is known of it.
#[derive(Clone, PartialEq, Eq)]
pub enum Payload {
    /// The bytes, at most [`PAYLOAD_LEN_MAX`].
    Present(Vec<u8>),
    /// Not here: its length, never 0, and its BLAKE3.
    Absent {
        /// Bytes.
        len: u32,
        /// BLAKE3 of the bytes.
        hash: [u8; 32],
    },
}

impl Payload {
    /// The bytes, if they are here.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Present(bytes) => Some(bytes),
            Self::Absent { .. } => None,
        }
    }

    /// The length, here or not.
    pub fn len(&self) -> usize {
        match self {
            Self::Present(bytes) => bytes.len(),
            Self::Absent { len, .. } => *len as usize,
        }
    }

    /// Whether it has no bytes at all. An absent payload is never empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// BLAKE3 of the bytes.
    pub fn hash(&self) -> [u8; 32] {
        match self {
            Self::Present(bytes) => *blake3::hash(bytes).as_bytes(),
            Self::Absent { hash, .. } => *hash,
        }
    }

    /// Whether `bytes` are what an absent payload stands for.
    pub fn is(&self, bytes: &[u8]) -> bool {
        self.len() == bytes.len() && self.hash() == *blake3::hash(bytes).as_bytes()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present(bytes) => write!(f, "Present({} bytes)", bytes.len()),
            Self::Absent { len, .. } => write!(f, "Absent({len} bytes)"),
        }
    }
}

/// An event before it has its place in a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// What it means.
    pub kind: Kind,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// A draft with a payload over the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a payload has at most {PAYLOAD_LEN_MAX} bytes, this one has {0}; larger things are attachments"
)]
pub struct PayloadTooLong(pub usize);

impl Draft {
    /// A draft of at most [`PAYLOAD_LEN_MAX`] bytes.
    ///
    /// # Errors
    ///
    /// [`PayloadTooLong`] with the length.
    pub fn new(kind: Kind, payload: Vec<u8>) -> Result<Self, PayloadTooLong> {
        if payload.len() > PAYLOAD_LEN_MAX {
            return Err(PayloadTooLong(payload.len()));
        }
        Ok(Self { kind, payload })
    }
}

/// An event in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its name: [`Hasher::id`] of all the rest.
    pub id: EventId,
    /// Whose feed.
    pub author: AuthorId,
    /// Place in the feed, from 1.
    pub seq: u64,
    /// Id of the event before; [`EventId::ZERO`] at seq 1.
    pub prev: EventId,
    /// Stamp.
    pub hlc: Hlc,
    /// Meaning.
    pub kind: Kind,
    /// Bytes, or what is known of them.
    pub payload: Payload,
}

impl Event {
    /// The total order of the fold: (hlc, author, seq, id).
    pub fn order(&self) -> (Hlc, AuthorId, u64, EventId) {
        (self.hlc, self.author, self.seq, self.id)
    }
}

/// Computes event ids of one network.
#[derive(Clone)]
pub struct Hasher {
    prepared: blake3::Hasher,
}

impl Hasher {
    /// For the network of this fingerprint.
    pub fn new(fingerprint: &Fingerprint) -> Self {
        let mut prepared = deriver("event");
        prepared.update(fingerprint.as_bytes());
        Self { prepared }
    }

    /// `derive("event", fingerprint || header)`.
    pub fn id(
        &self,
        author: &AuthorId,
        seq: u64,
        prev: &EventId,
        hlc: Hlc,
        kind: &Kind,
        payload: &Payload,
    ) -> EventId {
        let mut header = Writer::with_capacity(192);
        header.raw(author.as_bytes()).varint(seq).raw(prev.as_bytes()).varint(hlc.as_u64());
        header.str(kind.as_str()).varint(payload.len() as u64).raw(&payload.hash());
        let mut hasher = self.prepared.clone();
        hasher.update(header.as_bytes());
        EventId(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_only_its_own_characters() {
        assert!(Kind::new("field.set").is_ok());
        let long = "x".repeat(65);
        for bad in ["", "Field", "a b", "ä", long.as_str()] {
            assert!(Kind::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_absent_payload_has_the_id_of_the_present_one() {
        let hasher = Hasher::new(&Fingerprint([3; 32]));
        let kind = Kind::new("x").expect("a kind");
        let present = Payload::Present(b"bytes".to_vec());
        let absent = Payload::Absent { len: 5, hash: present.hash() };
        let id = |payload| {
            hasher.id(&AuthorId([1; 32]), 1, &EventId::ZERO, Hlc::new(1, 1), &kind, payload)
        };
        assert_eq!(id(&present), id(&absent));
    }
}
