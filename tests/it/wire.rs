//! The bytes of a network, its events and its sessions, made by hand.
//!
//! Source: crates/mosaik-core/FORMAT.md, sections 1 to 6; crates/mosaik-proto/FORMAT.md, 1 and 2.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use bech32::{Bech32m, Hrp};
use ed25519_dalek::{Signer, SigningKey};

/// What follows from a public network's name.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) fingerprint: [u8; 32],
    pub(crate) membership: [u8; 32],
    /// The seeds of the slots' keys.
    pub(crate) slots: [[u8; 32]; 16],
}

impl Keys {
    pub(crate) fn of(name: &str) -> Self {
        let seed = *blake3::hash(name.as_bytes()).as_bytes();
        let mut id = seed;
        let slots = [(); 16].map(|()| {
            let this = id;
            id = *blake3::hash(&[this, this].concat()).as_bytes();
            this
        });
        Self {
            fingerprint: derive("fingerprint", &seed),
            membership: derive("membership", &seed),
            slots,
        }
    }
}

fn derive(x: &str, bytes: &[u8]) -> [u8; 32] {
    blake3::derive_key(&format!("mosaik-node 2026-11 {x} v1"), bytes)
}

pub(crate) fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

pub(crate) fn bytes(bytes: &[u8]) -> Vec<u8> {
    [&varint(bytes.len() as u64), bytes].concat()
}

/// What `--peer` takes.
pub(crate) fn ticket(node: &[u8; 32], addresses: &[SocketAddr]) -> Result<String> {
    // No relay.
    let mut ticket = [&[1], &node[..], &[0], &varint(addresses.len() as u64)].concat();
    for address in addresses {
        match address.ip() {
            IpAddr::V4(ip) => ticket.extend([&[0][..], &ip.octets()].concat()),
            IpAddr::V6(ip) => ticket.extend([&[1][..], &ip.octets()].concat()),
        }
        ticket.extend(varint(address.port().into()));
    }
    bech32::encode::<Bech32m>(Hrp::parse("mpeer")?, &ticket).context("a ticket is short")
}

/// What one event of a forger says: a record is made, which a view would show.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) ms: u64,
    pub(crate) payload: Vec<u8>,
}

const KIND: &str = "record.create";

impl Entry {
    pub(crate) fn new(ms: u64, record: &str) -> Self {
        Self { ms, payload: [bytes(record.as_bytes()), bytes(b"forged")].concat() }
    }
}

/// A run in parts, so that each can be spoiled.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// Whom it names as author.
    pub(crate) author: [u8; 32],
    pub(crate) start_seq: u64,
    pub(crate) base: [u8; 32],
    pub(crate) entries: Vec<Entry>,
    pub(crate) signature: [u8; 64],
}

impl Run {
    /// A run that is in order if `base` is what its author wrote at `start_seq` - 1.
    pub(crate) fn signed(
        key: &SigningKey,
        keys: &Keys,
        start_seq: u64,
        base: [u8; 32],
        entries: Vec<Entry>,
    ) -> Self {
        let author = key.verifying_key().to_bytes();
        let mut run = Self { author, start_seq, base, entries, signature: [0; 64] };
        run.sign(key, keys);
        run
    }

    pub(crate) fn sign(&mut self, key: &SigningKey, keys: &Keys) {
        let message = [b"mosaik-node head v1", &self.head(keys)[..]].concat();
        self.signature = key.sign(&message).to_bytes();
    }

    /// The ids of its events.
    pub(crate) fn ids(&self, keys: &Keys) -> Vec<[u8; 32]> {
        let mut prev = self.base;
        let places = (self.start_seq..).zip(&self.entries);
        places
            .map(|(seq, entry)| {
                let payload_hash = blake3::hash(&entry.payload);
                let header = [
                    &self.author[..],
                    &varint(seq),
                    &prev,
                    &varint(entry.ms << 16),
                    &bytes(KIND.as_bytes()),
                    &varint(entry.payload.len() as u64),
                    payload_hash.as_bytes(),
                ];
                prev = derive("event", &[&keys.fingerprint[..], &header.concat()].concat());
                prev
            })
            .collect()
    }

    pub(crate) fn head(&self, keys: &Keys) -> [u8; 32] {
        *self.ids(keys).last().expect("no run here is empty")
    }

    pub(crate) fn head_seq(&self) -> u64 {
        self.start_seq + self.entries.len() as u64 - 1
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        self.encode_with_start(&varint(self.start_seq))
    }

    /// With `start` where the encoding of the start seq belongs.
    pub(crate) fn encode_with_start(&self, start: &[u8]) -> Vec<u8> {
        let mut run = [&[1], &self.author[..], start, &self.base, &[1]].concat();
        run.extend(bytes(KIND.as_bytes()));
        run.extend(varint(self.entries.len() as u64));
        let mut before = 0;
        for Entry { ms, payload } in &self.entries {
            let d = ms.cast_signed() - before;
            before = ms.cast_signed();
            let zigzag = ((d << 1) ^ (d >> 63)).cast_unsigned();
            run.extend(varint(zigzag << 1));
            // The first kind, and its payload is here.
            run.extend(varint(0));
            run.extend(bytes(payload));
        }
        run.extend(self.signature);
        run
    }
}
