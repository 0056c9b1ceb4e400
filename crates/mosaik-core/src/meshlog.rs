//! Events of meshlogd 0.5.0: read, checked, understood, and made of ours.
//!
//! Invariants:
//! - [`MeshlogEvent::parse`] takes what meshlogd takes of [`EVENT_LEN_MAX`] bytes and [`json::DEPTH_MAX`]
//!   levels, and whose id is that of what it says; what it refuses it refuses with a reason.
//! - All that the fold uses follows from the canonical body: two texts of one event mean the same.
//! - [`translate`] is a function of the event and of the id before: any two bridges write the same bytes.
//! - A signature is a claim until [`MeshlogEvent::verify`] has held it against the author's key.
//!
//! Source: FORMAT.md beside this crate, section 10.

pub mod json;
pub mod message;
mod translate;
mod value;

#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha256};

use self::json::{Json, JsonError, Text};
pub use self::translate::{PayloadAbsent, Written, compose, translate};
use crate::{
    event::{Draft, Kind},
    hlc::{Hlc, MS_MAX},
    id::{AuthorId, EventId},
    key::derive,
    limits::PAYLOAD_LEN_MAX,
    record::RecordEvent,
    view::Origin,
};

/// The kind of an event whose payload is a meshlogd event, as it came.
pub const FOREIGN_KIND: &str = "foreign.meshlog";

/// Bytes of one event on meshlogd's wire: it must fit a payload.
pub const EVENT_LEN_MAX: usize = PAYLOAD_LEN_MAX;

/// Bytes of an author's name. An identity has 32; free names are short words.
pub const AUTHOR_LEN_MAX: usize = 256;

/// Names of an event on the wire: author, seq, stamp, kind, payload, id before, id, signature.
const NAMES: [&str; 8] = ["a", "s", "h", "k", "p", "v", "i", "g"];

/// The name of a meshlogd event: the first 16 bytes of the SHA-256 of its body.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeshlogId(pub [u8; 16]);

impl MeshlogId {
    /// The id of what has this body.
    pub fn of(body: &[u8]) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&Sha256::digest(body)[..16]);
        Self(id)
    }
}

impl fmt::Display for MeshlogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for MeshlogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshlogId({})", HEXLOWER.encode(&self.0[..3]))
    }
}

/// Text that is not 32 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 32 lower-case hex digits")]
pub struct NoMeshlogId;

impl FromStr for MeshlogId {
    type Err = NoMeshlogId;

    fn from_str(text: &str) -> Result<Self, NoMeshlogId> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| NoMeshlogId)?;
        bytes.try_into().map(Self).map_err(|_| NoMeshlogId)
    }
}

/// Why bytes are no meshlogd event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// More bytes than a payload has room for.
    #[error("an event has at most {EVENT_LEN_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// Not the JSON that meshlogd writes.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Another thing than an object.
    #[error("an event is an object")]
    NoObject,
    /// A name that events of version 0.5 don't have.
    #[error("an event has no {0:?}")]
    UnknownName(String),
    /// A part that is not there, or not what it must be.
    #[error("{name:?} must be {takes}")]
    Wrong {
        /// The part's name.
        name: &'static str,
        /// What it must be.
        takes: &'static str,
    },
    /// The id is not that of what the event says: it was changed, or cut and mended.
    #[error("its id is {said}, but what it says has the id {is}")]
    OtherId {
        /// The id that it bears.
        said: MeshlogId,
        /// The id of its body.
        is: MeshlogId,
    },
}

/// Why an event is not known to be its author's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The key is another identity's.
    #[error("the key is not that of the event's author")]
    OtherAuthor,
    /// It bears no signature.
    #[error("the event is not signed")]
    Unsigned,
    /// Its signature is not that of the key over what it says.
    #[error("the signature is not the author's over this event")]
    BadSignature,
}

/// One event of meshlogd, whose id is that of what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshlogEvent {
    /// Who it says wrote it: an identity's hash as 32 hex digits, or a free name.
    pub author: String,
    /// Its place in the author's feed, from 1.
    pub seq: u64,
    /// Its stamp: Unix milliseconds, at most 48 bits.
    pub wall_ms: u64,
    /// The counter of its stamp.
    pub counter: u64,
    /// What it means.
    pub kind: Text,
    /// What it carries: an object.
    pub payload: Json,
    /// The event before in its feed; none at seq 1.
    pub prev: Option<MeshlogId>,
    /// Its name.
    pub id: MeshlogId,
    /// Whose signature it bears is not known before [`MeshlogEvent::verify`].
    pub signature: Option<[u8; 64]>,
    /// What id and signature are made over.
    body: String,
}

impl MeshlogEvent {
    /// Reads an event as it stands on the wire or in a line of a log.
    ///
    /// # Errors
    ///
    /// [`EventError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, EventError> {
        if bytes.len() > EVENT_LEN_MAX {
            return Err(EventError::TooLong(bytes.len()));
        }
        let mut parts = Parts::of(Json::parse(bytes)?)?;
        let author = parts.text("a", "a text of 1 to 256 bytes")?;
        let author = author.as_str().filter(|name| (1..=AUTHOR_LEN_MAX).contains(&name.len()));
        let author = author.ok_or_else(|| wrong("a", "a text of 1 to 256 bytes"))?.to_owned();
        let seq = parts.take("s").as_ref().and_then(Json::as_u64).filter(|seq| *seq > 0);
        let seq = seq.ok_or_else(|| wrong("s", "a whole number from 1"))?;
        let (wall_ms, counter) = parts.stamp()?;
        let kind = parts.text("k", "a text")?;
        let payload = parts.take("p").filter(|payload| matches!(payload, Json::Map(_)));
        let payload = payload.ok_or_else(|| wrong("p", "an object"))?;
        let prev = parts.prev(seq)?;
        let id = parts.text("i", IS_ID)?;
        let id = id.as_str().and_then(|id| id.parse().ok()).ok_or_else(|| wrong("i", IS_ID))?;
        let signature = parts.signature()?;
        let mut event = Self {
            author,
            seq,
            wall_ms,
            counter,
            kind,
            payload,
            prev,
            id,
            signature,
            body: String::new(),
        };
        event.body = event.canonical();
        match MeshlogId::of(event.body.as_bytes()) {
            is if is == id => Ok(event),
            is => Err(EventError::OtherId { said: id, is }),
        }
    }

    fn canonical(&self) -> String {
        let body = Json::map([
            ("author", Json::text(&self.author)),
            ("seq", Json::whole(self.seq)),
            ("hlc", Json::List(vec![Json::whole(self.wall_ms), Json::whole(self.counter)])),
            ("kind", Json::Text(self.kind.clone())),
            ("payload", self.payload.clone()),
            ("prev", Json::text(&self.prev.map(|id| id.to_string()).unwrap_or_default())),
        ]);
        let mut text = String::new();
        body.write(&mut text);
        text
    }

    /// What id and signature are made over.
    pub fn body(&self) -> &[u8] {
        self.body.as_bytes()
    }

    /// Its stamp as ours. A counter beyond 16 bits is the greatest one.
    pub fn hlc(&self) -> Hlc {
        Hlc::new(self.wall_ms, u16::try_from(self.counter).unwrap_or(u16::MAX))
    }

    /// Where it stands in the order of the fold.
    pub fn origin(&self) -> Origin {
        Origin {
            hlc: self.hlc(),
            author: foreign_author(&self.author),
            seq: self.seq,
            id: EventId(derive("foreign event", self.body())),
        }
    }

    /// Whether it says to be one of ours, translated: that one counts, and this one doesn't.
    pub fn is_translated(&self) -> bool {
        is_native_author(&self.author)
    }

    /// What it says of a record, if anything.
    pub fn meaning(&self) -> Option<RecordEvent> {
        if self.is_translated() {
            return None;
        }
        translate::meaning(self.kind.as_str()?, &self.payload)
    }

    /// Whether the identity with these public keys (X25519, then Ed25519) has signed it.
    ///
    /// # Errors
    ///
    /// [`VerifyError`].
    pub fn verify(&self, public_keys: &[u8; 64]) -> Result<(), VerifyError> {
        if self.author != HEXLOWER.encode(&identity_hash(public_keys)) {
            return Err(VerifyError::OtherAuthor);
        }
        let signature = Signature::from_bytes(&self.signature.ok_or(VerifyError::Unsigned)?);
        let mut signing = [0; 32];
        signing.copy_from_slice(&public_keys[32..]);
        let key = VerifyingKey::from_bytes(&signing).map_err(|_| VerifyError::BadSignature)?;
        key.verify_strict(self.body(), &signature).map_err(|_| VerifyError::BadSignature)
    }
}

/// The hash of an RNS identity: the first 16 bytes of the SHA-256 of its public keys.
pub fn identity_hash(public_keys: &[u8; 64]) -> [u8; 16] {
    MeshlogId::of(public_keys).0
}

/// What stands in the view for a meshlogd author of this name.
pub fn foreign_author(name: &str) -> AuthorId {
    AuthorId(derive("foreign author", name.as_bytes()))
}

/// Whether a meshlogd author's name is that of an author of ours: 64 lower-case hex digits.
pub fn is_native_author(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The draft of an event that carries this meshlogd event, word for word.
///
/// # Errors
///
/// [`EventError`]: it is none.
pub fn foreign_draft(wire: &[u8]) -> Result<(Draft, MeshlogEvent), EventError> {
    let event = MeshlogEvent::parse(wire)?;
    let kind = Kind::new(FOREIGN_KIND).expect("the kind is well formed");
    Ok((Draft { kind, payload: wire.to_vec() }, event))
}

const IS_ID: &str = "32 lower-case hex digits";

fn wrong(name: &'static str, takes: &'static str) -> EventError {
    EventError::Wrong { name, takes }
}

/// The parts of an event that are still to be read.
struct Parts(Vec<(Text, Json)>);

impl Parts {
    fn of(json: Json) -> Result<Self, EventError> {
        let Json::Map(entries) = json else { return Err(EventError::NoObject) };
        let known = |name: &Text| name.as_str().is_some_and(|name| NAMES.contains(&name));
        match entries.iter().find(|(name, _)| !known(name)) {
            Some((name, _)) => {
                Err(EventError::UnknownName(name.to_lossy().chars().take(80).collect()))
            }
            None => Ok(Self(entries)),
        }
    }

    fn take(&mut self, name: &str) -> Option<Json> {
        let at = self.0.iter().position(|(held, _)| held.as_str() == Some(name))?;
        Some(self.0.swap_remove(at).1)
    }

    fn text(&mut self, name: &'static str, takes: &'static str) -> Result<Text, EventError> {
        match self.take(name) {
            Some(Json::Text(text)) => Ok(text),
            _ => Err(wrong(name, takes)),
        }
    }

    fn stamp(&mut self) -> Result<(u64, u64), EventError> {
        let stamp = match self.take("h") {
            Some(Json::List(parts)) if parts.len() == 2 => parts[0].as_u64().zip(parts[1].as_u64()),
            _ => None,
        };
        let takes = "milliseconds of at most 48 bits and a counter";
        stamp.filter(|(ms, _)| *ms <= MS_MAX).ok_or_else(|| wrong("h", takes))
    }

    fn prev(&mut self, seq: u64) -> Result<Option<MeshlogId>, EventError> {
        let takes = "the id of the event before, or empty at seq 1";
        let text = self.text("v", takes)?;
        match (seq, text.as_str()) {
            (1, Some("")) => Ok(None),
            (2.., Some(id)) => id.parse().map(Some).map_err(|_| wrong("v", takes)),
            _ => Err(wrong("v", takes)),
        }
    }

    fn signature(&mut self) -> Result<Option<[u8; 64]>, EventError> {
        let takes = "128 hex digits, where it is signed";
        let Some(json) = self.take("g") else { return Ok(None) };
        match json.as_str() {
            Some("") => Ok(None),
            Some(hex) => {
                let bytes = HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok();
                let signature = bytes.and_then(|bytes| bytes.try_into().ok());
                signature.map(Some).ok_or_else(|| wrong("g", takes))
            }
            None => Err(wrong("g", takes)),
        }
    }
}
