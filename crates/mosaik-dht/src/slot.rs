//! The 16 slots of a network: their keys, and what a storage node keeps under one.
//!
//! Invariants:
//! - Slot `i`'s Ed25519 seed is `slot_seeds[i]` of the network's keys; its place on the DHT is the
//!   BEP 44 target of that public key without salt.
//! - Which slot a node prefers is a function of the two alone, so that nodes which see the same
//!   free slots spread over them without talking.
//!
//! Source: FORMAT.md beside this crate, section 1; BEP 44.

use std::fmt;

use ed25519_dalek::{Signature, Verifier, VerifyingKey};
use mosaik_core::{
    id::{Fingerprint, NodeId},
    key::{NetworkKeys, NetworkKind, SLOTS},
};
use pkarr::Keypair;

/// Bytes of one value on the DHT.
///
/// Source: BEP 44, "the value must be at most 1000 bytes".
pub const VALUE_LEN_MAX: usize = 1000;

/// The keys by which a network's slots are found, signed and, if it is a secret one, sealed.
#[derive(Clone)]
pub struct SlotKeys {
    fingerprint: Fingerprint,
    seal: Option<[u8; 32]>,
    keypairs: [Keypair; SLOTS],
}

impl SlotKeys {
    /// Derives the slot keys of a network.
    pub fn new(keys: &NetworkKeys) -> Self {
        Self {
            fingerprint: keys.fingerprint,
            seal: match keys.kind {
                NetworkKind::Public => None,
                NetworkKind::Secret => Some(keys.slot_record),
            },
            keypairs: std::array::from_fn(|slot| Keypair::from_secret_key(&keys.slot_seeds[slot])),
        }
    }

    /// The network's fingerprint, which every lease names.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The 32-byte public key of a slot, under which it is asked for.
    ///
    /// # Panics
    ///
    /// If `slot` is not below 16, as all of this type's methods.
    pub fn public_key(&self, slot: u8) -> [u8; 32] {
        self.keypair(slot).public_key().to_bytes()
    }

    /// The public key of a slot in z-base-32, as tools print it.
    pub fn z_base_32(&self, slot: u8) -> String {
        self.keypair(slot).to_z32()
    }

    pub(crate) fn keypair(&self, slot: u8) -> &Keypair {
        &self.keypairs[usize::from(slot)]
    }

    /// The key that seals records; a public network's are not sealed.
    pub(crate) fn seal(&self) -> Option<&[u8; 32]> {
        self.seal.as_ref()
    }
}

impl fmt::Debug for SlotKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotKeys").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// What storage nodes keep under a slot's key: a BEP 44 mutable item without its key.
///
/// A claim until [`crate::record::parse`] has taken it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotValue {
    /// The item's sequence number; of our own records the time of writing in microseconds.
    pub seq: i64,
    /// The slot key's signature over `seq` and `value`.
    pub signature: [u8; 64],
    /// A DNS packet, if it is one of ours.
    pub value: Vec<u8>,
}

impl SlotValue {
    /// Whether the key of a slot signed it, as BEP 44 says: over seq and value, bencoded in a row.
    pub(crate) fn is_signed_by(&self, key: &[u8; 32]) -> bool {
        let mut signed = format!("3:seqi{}e1:v{}:", self.seq, self.value.len()).into_bytes();
        signed.extend_from_slice(&self.value);
        let signature = Signature::from_bytes(&self.signature);
        VerifyingKey::from_bytes(key).is_ok_and(|key| key.verify(&signed, &signature).is_ok())
    }

    /// Tells two values of one slot apart.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seq.to_be_bytes()).update(&self.value);
        *hasher.finalize().as_bytes()
    }
}

/// How much `node` likes `slot`: it takes the free slot with the lowest figure.
pub(crate) fn preference(node: &NodeId, slot: u8) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(node.as_bytes()).update(&[slot]);
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use mosaik_core::{id::AuthorId, key::Network};

    use super::*;

    #[test]
    fn the_slots_of_the_known_network_have_the_known_keys() {
        let network = Network::parse("mosaik-node-test-vector-1").expect("a public name");
        let keys = SlotKeys::new(&network.keys());
        for (slot, z_base_32) in [
            (0, "nrsaogbkrgmqcfckkkyf7y3jwg3yitb1mcb8ya71zqd4m5sdyzwo"),
            (1, "cte6zm1r5eamzx1i7syc7aqyi5kapo77trn8k1cutcdspsarqg9o"),
            (2, "3cisrsqeu6nh3b6ynrwhim916n8qstk6gpzufdw8hzazf949j86y"),
            (15, "atae4w8nsuebqid9qwshsk37pcpt7z7da3aj4tww7yubdta3kbhy"),
        ] {
            assert_eq!(keys.z_base_32(slot), z_base_32);
        }
    }

    #[test]
    fn only_a_secret_network_seals_its_records() {
        let public = Network::Public("a".to_owned());
        assert!(SlotKeys::new(&public.keys()).seal().is_none());
        let secret = Network::Secret { secret: [1; 32], creator: AuthorId([0; 32]) };
        assert!(SlotKeys::new(&secret.keys()).seal().is_some());
    }

    #[test]
    fn two_nodes_prefer_slots_in_another_order() {
        let order = |node: u8| {
            let mut slots: Vec<u8> = (0..16).collect();
            slots.sort_by_key(|&slot| preference(&NodeId([node; 32]), slot));
            slots
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }
}
