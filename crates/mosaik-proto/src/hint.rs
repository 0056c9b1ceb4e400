//! Hints: what goes over gossip. Each only makes convergence sooner; none is needed for it.
//!
//! Invariants:
//! - A hint fits one gossip message, whose size is checked before it is broadcast: one too large
//!   silences the sender for good.
//! - Every hint differs from every other by its nonce: gossip drops bytes that it has seen.
//! - Presence and departures are signed by the node that they speak of. A hint of a head is a claim.
//!
//! Source: FORMAT.md beside this crate, section 4.

use std::net::SocketAddr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use mosaik_core::{
    codec::{ReadError, Reader, Writer},
    event::Hasher,
    feed::Tip,
    id::{AuthorId, EventId, Fingerprint, NodeId},
    run::{Run, RunError, VerifiedRun},
};

use crate::{carrier::Addresses, message::NAME_LEN_MAX};

/// Bytes of a whole hint. Gossip takes 4,057; the rest is room for its own header to grow.
pub const HINT_LEN_MAX: usize = 4000;
/// Bytes of a run that goes inline. Longer ones are told by their head.
pub const INLINE_RUN_MAX: usize = 2048;
/// Addresses and relays told in one presence.
const ADDRESSES_MAX: usize = 8;
const RELAYS_MAX: usize = 2;
const RELAY_LEN_MAX: usize = 200;

const VERSION: u8 = 1;
const PRESENCE_CONTEXT: &[u8] = b"mosaik-node presence v1";

/// What one node tells all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// An author's feed has this head.
    Head(AuthorId, Tip),
    /// A new run, small enough to go along.
    Run(VerifiedRun),
    /// A node says that it is here, or that it leaves.
    Presence(Presence),
}

/// A node's signed word on itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Who.
    pub node: NodeId,
    /// Which start of it.
    pub boot: u64,
    /// When it said so by its clock, Unix ms: the newest counts.
    pub said_ms: u64,
    /// Whether it leaves.
    pub leaving: bool,
    /// What its people call it: a claim.
    pub name: String,
    /// Where it can be reached.
    pub addresses: Addresses,
    /// The node key's signature over the network and all of the above.
    pub signature: [u8; 64],
}

/// Why bytes are no hint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HintError {
    /// Too long.
    #[error("a hint of {0} bytes, the limit is {HINT_LEN_MAX}")]
    Length(usize),
    /// Not well formed.
    #[error("a malformed hint: {0}")]
    Malformed(#[from] ReadError),
    /// A run that does not hold.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Presence that its node did not sign.
    #[error("presence of {0} is not what that node signed")]
    BadSignature(NodeId),
}

impl Presence {
    /// Signs a node's word on itself for one network.
    pub fn sign(
        key: &SigningKey,
        fingerprint: &Fingerprint,
        boot: u64,
        said_ms: u64,
        leaving: bool,
        name: &str,
        addresses: &Addresses,
    ) -> Self {
        let mut cut = name.len().min(NAME_LEN_MAX);
        while !name.is_char_boundary(cut) {
            cut -= 1;
        }
        let mut presence = Self {
            node: NodeId(key.verifying_key().to_bytes()),
            boot,
            said_ms,
            leaving,
            name: name[..cut].to_owned(),
            addresses: Addresses {
                direct: addresses.direct.iter().take(ADDRESSES_MAX).copied().collect(),
                relays: addresses
                    .relays
                    .iter()
                    .filter(|url| url.len() <= RELAY_LEN_MAX)
                    .take(RELAYS_MAX)
                    .cloned()
                    .collect(),
            },
            signature: [0; 64],
        };
        presence.signature = key.sign(&presence.signed_bytes(fingerprint)).to_bytes();
        presence
    }

    fn signed_bytes(&self, fingerprint: &Fingerprint) -> Vec<u8> {
        let mut writer = Writer::with_capacity(256);
        writer.raw(PRESENCE_CONTEXT).raw(fingerprint.as_bytes());
        self.write_statement(&mut writer);
        writer.into_bytes()
    }

    fn write_statement(&self, writer: &mut Writer) {
        writer.raw(self.node.as_bytes()).varint(self.boot).varint(self.said_ms);
        writer.bool(self.leaving).str(&self.name).len(self.addresses.direct.len());
        for address in &self.addresses.direct {
            writer.str(&address.to_string());
        }
        writer.len(self.addresses.relays.len());
        for relay in &self.addresses.relays {
            writer.str(relay);
        }
    }

    fn read(reader: &mut Reader<'_>, fingerprint: &Fingerprint) -> Result<Self, HintError> {
        let (node, boot) = (NodeId(reader.array()?), reader.varint()?);
        let (said_ms, leaving) = (reader.varint()?, reader.bool()?);
        let name = reader.str(NAME_LEN_MAX)?.to_owned();
        let mut addresses = Addresses::default();
        for _ in 0..reader.count(ADDRESSES_MAX, 1)? {
            let text = reader.str(64)?;
            let address: SocketAddr =
                text.parse().map_err(|_| ReadError::Invalid("an address that is none"))?;
            if address.to_string() != text {
                return Err(ReadError::Invalid("an address in another than its own form").into());
            }
            addresses.direct.push(address);
        }
        for _ in 0..reader.count(RELAYS_MAX, 1)? {
            addresses.relays.push(reader.str(RELAY_LEN_MAX)?.to_owned());
        }
        let signature = reader.array()?;
        let presence = Self { node, boot, said_ms, leaving, name, addresses, signature };
        let signed = VerifyingKey::from_bytes(node.as_bytes()).is_ok_and(|key| {
            let signature = Signature::from_bytes(&presence.signature);
            key.verify_strict(&presence.signed_bytes(fingerprint), &signature).is_ok()
        });
        if signed { Ok(presence) } else { Err(HintError::BadSignature(node)) }
    }
}

impl Hint {
    /// The gossip message; `nonce` is any number that differs from message to message.
    pub fn encode(&self, nonce: u64) -> Vec<u8> {
        let mut writer = Writer::with_capacity(256);
        writer.u8(VERSION).varint(nonce);
        match self {
            Self::Head(author, tip) => {
                writer.u8(1).raw(author.as_bytes()).varint(tip.seq).raw(tip.id.as_bytes());
            }
            Self::Run(run) => {
                writer.u8(2).bytes(&run.encode());
            }
            Self::Presence(presence) => {
                writer.u8(3);
                presence.write_statement(&mut writer);
                writer.raw(&presence.signature);
            }
        }
        writer.into_bytes()
    }

    /// Reads a gossip message and checks what can be checked without knowing what is held.
    ///
    /// # Errors
    ///
    /// [`HintError`]; the message is counted and dropped.
    pub fn decode(
        bytes: &[u8],
        hasher: &Hasher,
        fingerprint: &Fingerprint,
    ) -> Result<Self, HintError> {
        if bytes.len() > HINT_LEN_MAX {
            return Err(HintError::Length(bytes.len()));
        }
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            version => return Err(ReadError::Tag(u64::from(version)).into()),
        }
        reader.varint()?;
        match reader.u8()? {
            1 => {
                let author = AuthorId(reader.array()?);
                let tip = Tip { seq: reader.varint()?, id: EventId(reader.array()?) };
                if tip.seq == 0 {
                    return Err(ReadError::Invalid("an event of seq 0").into());
                }
                Ok(Self::Head(author, tip))
            }
            2 => Ok(Self::Run(Run::decode(reader.bytes(INLINE_RUN_MAX)?)?.verify(hasher)?)),
            3 => Ok(Self::Presence(Presence::read(&mut reader, fingerprint)?)),
            tag => Err(ReadError::Tag(u64::from(tag)).into()),
        }
    }
}
