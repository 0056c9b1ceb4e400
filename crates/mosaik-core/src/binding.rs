//! Which identity in Reticulum belongs to an author: said by both, so that neither can claim the other.
//!
//! The author says it by an event of its own feed, of kind `node.radio`; the identity by a signature inside.
//! Both outlast every meeting: who has the feed can check it without ever having heard the radio.
//!
//! Source: FORMAT.md beside this crate, section 8.

use ed25519_dalek::{Signature, VerifyingKey};

use crate::{
    codec::{ReadError, Reader},
    event::{Draft, Event, Kind},
    id::AuthorId,
    meshlog::identity_hash,
};

/// The kind of the event.
pub const RADIO_KIND: &str = "node.radio";
/// What the signed statement begins with.
const STATEMENT: &[u8] = b"mosaik node.radio v1";

/// An identity in Reticulum, and that it takes an author for its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RadioIdentity {
    /// Its public keys: X25519, then Ed25519.
    pub keys: [u8; 64],
    /// Its signature over [`RadioIdentity::statement`].
    pub signature: [u8; 64],
}

impl RadioIdentity {
    /// What the identity signs so that this author may name it.
    pub fn statement(author: &AuthorId) -> Vec<u8> {
        [STATEMENT, author.as_bytes()].concat()
    }

    /// What an event says, if it is of this kind, well formed, and both have signed it: its author by the
    /// feed that it stands in.
    pub fn said_by(event: &Event) -> Option<Self> {
        let payload = event.payload.bytes().filter(|_| event.kind.as_str() == RADIO_KIND)?;
        Self::read(payload).ok().filter(|identity| identity.is_of(&event.author))
    }

    /// Of a payload of this kind; whether both say it, [`RadioIdentity::said_by`] tells.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if it isn't exactly two keys and a signature long.
    pub fn read(payload: &[u8]) -> Result<Self, ReadError> {
        let mut reader = Reader::new(payload);
        let identity = Self { keys: reader.array()?, signature: reader.array()? };
        reader.finish()?;
        Ok(identity)
    }

    /// The draft of the author's event.
    pub fn draft(&self) -> Draft {
        let kind = Kind::new(RADIO_KIND).expect("the kind is well formed");
        Draft { kind, payload: [&self.keys[..], &self.signature].concat() }
    }

    /// Whether the identity takes this author for its own.
    pub fn is_of(&self, author: &AuthorId) -> bool {
        let mut signing = [0; 32];
        signing.copy_from_slice(&self.keys[32..]);
        let signature = Signature::from_bytes(&self.signature);
        VerifyingKey::from_bytes(&signing)
            .is_ok_and(|key| key.verify_strict(&Self::statement(author), &signature).is_ok())
    }

    /// Its hash, which names it in Reticulum.
    pub fn hash(&self) -> [u8; 16] {
        identity_hash(&self.keys)
    }
}
