//! The sealed form of a record: readable only with the keys of its secret network.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use data_encoding::BASE64URL_NOPAD;
use mosaik_core::{
    codec::{ReadError, Reader, Writer},
    id::NodeId,
};

use super::{Hint, NEIGHBOURS_MAX, Neighbour, Record, RecordError, signed_texts};
use crate::{
    lease::{self, Lease, Scope},
    slot::{SlotKeys, VALUE_LEN_MAX},
};

/// Characters in each part but the last.
const PART_LEN: usize = 240;
/// The plaintext is filled up to a multiple of this: its length says little about its contents.
const BLOCK_LEN: usize = 64;
const NONCE_LEN: usize = 24;

/// Names and texts in the order in which they stand in the packet.
pub(super) fn texts(
    record: &Record,
    key: &[u8; 32],
    slot_key: &[u8; 32],
    nonce: &[u8; NONCE_LEN],
) -> Vec<(String, String)> {
    seal(&encode(record), key, slot_key, nonce)
}

/// Seals any plaintext and cuts it into parts.
pub(super) fn seal(
    plain: &[u8],
    key: &[u8; 32],
    slot_key: &[u8; 32],
    nonce: &[u8; NONCE_LEN],
) -> Vec<(String, String)> {
    let sealed = XChaCha20Poly1305::new(key.into())
        .encrypt(&XNonce::from(*nonce), Payload { msg: plain, aad: slot_key })
        .expect("some hundred bytes are under the cipher's limit");
    let text = BASE64URL_NOPAD.encode(&[&nonce[..], &sealed].concat());
    let parts = text.as_bytes().chunks(PART_LEN).enumerate();
    parts
        .map(|(at, part)| (format!("_e{at}"), String::from_utf8_lossy(part).into_owned()))
        .collect()
}

pub(super) fn parse(
    keys: &SlotKeys,
    slot: u8,
    key: &[u8; 32],
    texts: BTreeMap<String, Vec<String>>,
) -> Result<Record, RecordError> {
    let sealed = BASE64URL_NOPAD.decode(join(texts)?.as_bytes()).map_err(|_| RecordError::Parts)?;
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(RecordError::Parts)?;
    let payload = Payload { msg: sealed, aad: &keys.public_key(slot) };
    let plain = XChaCha20Poly1305::new(key.into())
        .decrypt(&XNonce::from(*nonce), payload)
        .map_err(|_| RecordError::Seal)?;
    let record = decode(&plain).map_err(RecordError::Sealed)?;
    let addresses = lease::digest(signed_texts(&record).iter().map(String::as_str));
    let scope = Scope { fingerprint: keys.fingerprint(), slot, node: &record.node, addresses };
    record.lease.verify(&scope)?;
    Ok(record)
}

/// Whether this is the name of a part: `_e` and a decimal number without leading zeros.
pub(super) fn is_name(name: &str) -> bool {
    name.strip_prefix("_e").is_some_and(|number| {
        !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && (number == "0" || !number.starts_with('0'))
    })
}

/// Joins `_e0`, `_e1`, ...
fn join(mut texts: BTreeMap<String, Vec<String>>) -> Result<String, RecordError> {
    let mut whole = String::new();
    let parts = texts.len();
    if parts == 0 {
        return Err(RecordError::Missing("_e0"));
    }
    for at in 0..parts {
        let Some(part) = texts.remove(&format!("_e{at}")) else { return Err(RecordError::Parts) };
        let [part] = part.as_slice() else { return Err(RecordError::Parts) };
        let whole_part = part.len() == PART_LEN;
        let last_part = at + 1 == parts && (1..PART_LEN).contains(&part.len());
        if !whole_part && !last_part {
            return Err(RecordError::Parts);
        }
        whole.push_str(part);
    }
    Ok(whole)
}

pub(super) fn encode(record: &Record) -> Vec<u8> {
    let mut plain = Writer::new();
    plain.raw(record.node.as_bytes());
    plain.len(record.relays.len());
    for relay in &record.relays {
        plain.str(relay);
    }
    plain.len(record.addresses.len());
    for address in &record.addresses {
        match address.ip() {
            IpAddr::V4(ip) => plain.varint(0).raw(&ip.octets()),
            IpAddr::V6(ip) => plain.varint(1).raw(&ip.octets()),
        };
        plain.varint(u64::from(address.port()));
    }
    let Lease { issued_s, expires_s, signature } = &record.lease;
    plain.varint(*issued_s).varint(*expires_s).raw(signature);
    plain.len(record.neighbours.len());
    for Neighbour { node, hint } in &record.neighbours {
        plain.raw(node.as_bytes()).str(&hint.to_string());
    }
    let mut plain = plain.into_bytes();
    plain.resize(plain.len().next_multiple_of(BLOCK_LEN), 0);
    plain
}

fn decode(plain: &[u8]) -> Result<Record, ReadError> {
    let mut reader = Reader::new(plain);
    let node = NodeId(reader.array()?);
    let relays = (0..reader.count(VALUE_LEN_MAX, 1)?)
        .map(|_| reader.str(VALUE_LEN_MAX).map(str::to_owned))
        .collect::<Result<_, _>>()?;
    let addresses = (0..reader.count(VALUE_LEN_MAX, 6)?)
        .map(|_| address(&mut reader))
        .collect::<Result<_, _>>()?;
    let lease = Lease {
        issued_s: reader.varint()?,
        expires_s: reader.varint()?,
        signature: reader.array()?,
    };
    let mut neighbours = Vec::new();
    for _ in 0..reader.count(VALUE_LEN_MAX, 33)? {
        let (node, hint) = (NodeId(reader.array()?), reader.str(VALUE_LEN_MAX)?);
        // Hearsay that makes no sense is passed over, as in an open record.
        if let Some(hint) = Hint::parse(hint)
            && neighbours.len() < NEIGHBOURS_MAX
        {
            neighbours.push(Neighbour { node, hint });
        }
    }
    let padding = reader.rest();
    let whole_blocks = plain.len().is_multiple_of(BLOCK_LEN);
    if !whole_blocks || padding.len() >= BLOCK_LEN || padding.iter().any(|&byte| byte != 0) {
        return Err(ReadError::Invalid("the padding is not the fewest zeros to a whole block"));
    }
    Ok(Record { node, relays, addresses, lease, neighbours })
}

fn address(reader: &mut Reader<'_>) -> Result<SocketAddr, ReadError> {
    let ip = match reader.varint()? {
        0 => IpAddr::from(reader.array::<4>()?),
        1 => IpAddr::from(reader.array::<16>()?),
        tag => return Err(ReadError::Tag(tag)),
    };
    Ok(SocketAddr::new(ip, reader.varint_u16()?))
}
