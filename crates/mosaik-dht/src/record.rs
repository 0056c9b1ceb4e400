//! The record in a slot: which endpoint holds it, where it can be reached, and its lease.
//!
//! Invariants:
//! - What [`parse`] gives carries a lease that its endpoint signed for this network, slot and these
//!   addresses. Neighbours lie outside the lease: they are only ever dialed.
//! - What [`build`] gives is at most [`VALUE_LEN_MAX`] bytes and parses back to what went in, less
//!   what did not fit: neighbours from the end, then addresses from the end, then relays.
//! - A secret network's record shows neither ids nor addresses without the network's keys.
//! - Nothing here reads a clock or a random source; the nonce is an argument.
//!
//! Source: FORMAT.md beside this crate, sections 2 to 4; pkarr's signed packets.

mod public;
mod sealed;

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use ed25519_dalek::SigningKey;
use mosaik_core::{codec::ReadError, id::NodeId};
use pkarr::{
    SignedPacket, Timestamp,
    dns::rdata::RData,
    errors::{SignedPacketBuildError, SignedPacketVerifyError},
};

use crate::{
    lease::{self, Lease, LeaseError, Scope},
    publish,
    slot::{SlotKeys, SlotValue, VALUE_LEN_MAX},
};

/// Neighbours in one record.
///
/// Four: a stale record still leads somewhere, and the addresses keep their room.
pub const NEIGHBOURS_MAX: usize = 4;

/// Bytes of a relay's host in a hint: with 44 of base58 and a space it is one DNS string below 255.
const HINT_LEN_MAX: usize = 209;

/// Seconds for which resolvers may keep a record. Nothing of ours looks at it; the lease counts.
const TTL_S: u32 = 600;

/// The least bytes a question or record takes in a DNS packet.
const DNS_ENTRY_LEN_MIN: usize = 5;
const DNS_HEADER_LEN: usize = 12;

/// What a slot says, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who holds the slot.
    pub node: NodeId,
    /// Relays of the holder, URLs as given.
    pub relays: Vec<String>,
    /// Addresses of the holder. Of a public record, those that are well formed.
    pub addresses: Vec<SocketAddr>,
    /// The holder's lease. Its signature is good; whether it is live depends on the time.
    pub lease: Lease,
    /// Other nodes that the holder was connected to. Hearsay.
    pub neighbours: Vec<Neighbour>,
}

/// Another live node, named in a holder's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Its endpoint.
    pub node: NodeId,
    /// How it may be reached.
    pub hint: Hint,
}

/// One way to reach a neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// A socket address.
    Address(SocketAddr),
    /// The host of its relay, without scheme, port or slash.
    Relay(String),
}

impl Hint {
    /// Reads a hint; the missing port tells a relay's host from an address.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(address) = address(text) {
            return Some(Self::Address(address));
        }
        let host = !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        (host && text.len() <= HINT_LEN_MAX).then(|| Self::Relay(text.to_owned()))
    }

    /// The relay's URL, if the hint names one.
    pub fn relay_url(&self) -> Option<String> {
        match self {
            Self::Address(_) => None,
            Self::Relay(host) => Some(format!("https://{host}/")),
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => publish::plain(address).fmt(f),
            Self::Relay(host) => f.write_str(host),
        }
    }
}

/// What is to stand in a slot. Relays and addresses in the order of their worth.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// Relays; those that a TXT record can't carry are left out.
    pub relays: Vec<String>,
    /// Addresses.
    pub addresses: Vec<SocketAddr>,
    /// Neighbours, the first [`NEIGHBOURS_MAX`] count.
    pub neighbours: Vec<Neighbour>,
    /// When the lease begins, Unix seconds.
    pub issued_s: u64,
    /// When it ends; the same second makes a tombstone, which carries nothing else.
    pub expires_s: u64,
}

/// Why bytes can't be made of a draft.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// pkarr's timestamps are not negative.
    #[error("a record can't be written at seq {0}")]
    NegativeSeq(i64),
    /// The packet could not be written. [`SignedPacketBuildError::PacketTooLarge`] only ever comes
    /// out where not even the bare lease fits, which no input does.
    #[error("the packet can't be built")]
    Packet(#[from] SignedPacketBuildError),
}

/// Why a slot's value is not one of our records.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Legal for BEP 44, but no time that one of ours was written at.
    #[error("the value is at seq {0}, records have none below 0")]
    NegativeSeq(i64),
    /// Longer than any storage node should have taken.
    #[error("the value has {0} bytes, the limit is {VALUE_LEN_MAX}")]
    TooLong(usize),
    /// Claims more entries than its bytes can hold.
    #[error("the packet claims {entries} entries in {len} bytes")]
    Entries {
        /// Entries of all sections.
        entries: usize,
        /// Bytes of the packet.
        len: usize,
    },
    /// Not signed by the slot's key, or not a DNS packet.
    #[error("the packet is not signed by the slot's key or is not dns")]
    Packet(#[from] SignedPacketVerifyError),
    /// A TXT record of one of our names that is not UTF-8.
    #[error("the TXT record {0} is not utf-8")]
    Utf8(String),
    /// A record that has to be there.
    #[error("there is no {0} record")]
    Missing(&'static str),
    /// A record that may only be there once.
    #[error("there are {count} {name} records")]
    Repeated {
        /// Its name.
        name: &'static str,
        /// How many there are.
        count: usize,
    },
    /// The `_id` is not the base58 of 32 bytes.
    #[error("the _id record is not the base58 of 32 bytes")]
    Id,
    /// The lease is unreadable, or binds nobody to this.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The parts of a sealed record are not `_e0`, `_e1`, ... of 240 characters each but the last.
    #[error("the parts of the sealed record don't make one text")]
    Parts,
    /// Sealed with another key, or for another slot.
    #[error("the record is not sealed with this network's key for this slot")]
    Seal,
    /// Sealed by one who has the key, but not as the format says.
    #[error("the sealed record is malformed: {0}")]
    Sealed(ReadError),
}

impl RecordError {
    /// Whether it looks like a record of this network that somebody tampered with or copied.
    pub fn is_forgery(&self) -> bool {
        matches!(self, Self::Lease(LeaseError::Signature | LeaseError::Span { .. }))
    }
}

/// Makes the value of a slot, signed by the slot's key at `seq`, its lease by `key`.
///
/// Returns what went in beside the value. `nonce` must be new for each value of a secret network;
/// a public network's record has no use for it.
///
/// # Errors
///
/// [`BuildError::NegativeSeq`].
pub fn build(
    keys: &SlotKeys,
    slot: u8,
    key: &SigningKey,
    draft: &Draft,
    seq: i64,
    nonce: &[u8; 24],
) -> Result<(SlotValue, Record), BuildError> {
    let timestamp = u64::try_from(seq).map_err(|_| BuildError::NegativeSeq(seq))?;
    let mut record = unsigned(key, draft);
    loop {
        sign_lease(keys, slot, key, &mut record);
        let texts = match keys.seal() {
            None => public::texts(&record),
            Some(seal) => sealed::texts(&record, seal, &keys.public_key(slot), nonce),
        };
        match packet(keys, slot, &texts, timestamp) {
            Ok(packet) => {
                let signature = packet.signature().to_bytes();
                let value = packet.encoded_packet().to_vec();
                return Ok((SlotValue { seq, signature, value }, record));
            }
            Err(SignedPacketBuildError::PacketTooLarge(_)) if shrink(&mut record) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads the value of a slot: signature of the slot's key, form, seal, lease.
///
/// # Errors
///
/// [`RecordError`]; the value is then nobody's, and its slot free to take.
pub fn parse(keys: &SlotKeys, slot: u8, value: &SlotValue) -> Result<Record, RecordError> {
    let texts = texts(keys, slot, value)?;
    match keys.seal() {
        None => public::parse(keys, slot, &texts),
        Some(seal) => sealed::parse(keys, slot, seal, texts),
    }
}

/// The texts that a lease signs: relays as given, addresses as Rust prints them without scope.
fn signed_texts(record: &Record) -> Vec<String> {
    let addresses = record.addresses.iter();
    let addresses =
        addresses.map(|address| SocketAddr::new(address.ip(), address.port()).to_string());
    record.relays.iter().cloned().chain(addresses).collect()
}

fn unsigned(key: &SigningKey, draft: &Draft) -> Record {
    let tombstone = draft.expires_s == draft.issued_s;
    let mut record = Record {
        node: NodeId(key.verifying_key().to_bytes()),
        relays: Vec::new(),
        addresses: Vec::new(),
        lease: Lease { issued_s: draft.issued_s, expires_s: draft.expires_s, signature: [0; 64] },
        neighbours: Vec::new(),
    };
    if !tombstone {
        record.relays =
            draft.relays.iter().filter(|url| publish::is_publishable(url)).cloned().collect();
        record.addresses = draft.addresses.iter().map(publish::plain).collect();
        // Through its text and back: a hint that a reader could not read is left out.
        let neighbours = draft.neighbours.iter().filter_map(|Neighbour { node, hint }| {
            Some(Neighbour { node: *node, hint: Hint::parse(&hint.to_string())? })
        });
        record.neighbours = neighbours.take(NEIGHBOURS_MAX).collect();
    }
    record
}

fn sign_lease(keys: &SlotKeys, slot: u8, key: &SigningKey, record: &mut Record) {
    let addresses = lease::digest(signed_texts(record).iter().map(String::as_str));
    let scope = Scope { fingerprint: keys.fingerprint(), slot, node: &record.node, addresses };
    record.lease = Lease::sign(key, &scope, record.lease.issued_s, record.lease.expires_s);
}

/// Leaves out the thing of least worth. False if nothing is left to leave out.
fn shrink(record: &mut Record) -> bool {
    record.neighbours.pop().is_some()
        || record.addresses.pop().is_some()
        || record.relays.pop().is_some()
}

fn packet(
    keys: &SlotKeys,
    slot: u8,
    texts: &[(String, String)],
    timestamp: u64,
) -> Result<SignedPacket, SignedPacketBuildError> {
    let mut builder = SignedPacket::builder().timestamp(Timestamp::from(timestamp));
    for (name, text) in texts {
        let name = name.as_str().try_into().expect("our names are short and plain");
        let text = text.as_str().try_into().expect("our texts are shorter than one DNS string");
        builder = builder.txt(name, text, TTL_S);
    }
    builder.sign(keys.keypair(slot))
}

/// Reads a socket address in the one form that a writer gives it: no other spelling, no zone.
fn address(text: &str) -> Option<SocketAddr> {
    let address: SocketAddr = text.parse().ok()?;
    let has_zone = matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0);
    (!has_zone && address.to_string() == text).then_some(address)
}

/// The TXT records under the slot's key that have one of our names, by name, each name's in their
/// order. Others are passed over, whatever they hold.
fn texts(
    keys: &SlotKeys,
    slot: u8,
    value: &SlotValue,
) -> Result<BTreeMap<String, Vec<String>>, RecordError> {
    let seq = u64::try_from(value.seq).map_err(|_| RecordError::NegativeSeq(value.seq))?;
    let len = value.value.len();
    if len > VALUE_LEN_MAX {
        return Err(RecordError::TooLong(len));
    }
    // The DNS parser reserves memory for as many entries as the header claims.
    let entries: usize = value.value.get(4..DNS_HEADER_LEN).map_or(0, |counts| {
        counts.chunks(2).map(|n| usize::from(n[0]) << 8 | usize::from(n[1])).sum()
    });
    if entries * DNS_ENTRY_LEN_MIN > len {
        return Err(RecordError::Entries { entries, len });
    }
    let payload = [&value.signature[..], &seq.to_be_bytes(), &value.value].concat();
    let key = keys.keypair(slot).public_key();
    let packet = SignedPacket::from_relay_payload(&key, &payload.into())?;
    let origin = format!(".{}", key.to_z32());
    let is_ours = if keys.seal().is_none() { public::is_name } else { sealed::is_name };
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in packet.all_resource_records() {
        let name = entry.name.to_string();
        if let (Some(name), RData::TXT(text)) = (name.strip_suffix(&origin), &entry.rdata)
            && is_ours(name)
        {
            let text = String::try_from(text.clone());
            let text = text.map_err(|_| RecordError::Utf8(name.to_owned()))?;
            texts.entry(name.to_owned()).or_default().push(text);
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
