//! The lease: a node's signed, expiring statement that a slot and some addresses are its own.
//!
//! Invariants:
//! - A lease is signed by the endpoint it names, over network, slot and addresses: it can't be
//!   copied into another slot or network, nor put beside other addresses.
//! - No lease is live for longer than [`LEASE_LEN_MAX_S`] after it was issued.
//! - The time is an argument. Nothing here reads a clock.
//!
//! Source: FORMAT.md beside this crate, section 3.

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use mosaik_core::id::{Fingerprint, NodeId};

/// Seconds that a lease may last at most.
///
/// Two hours: as long as storage nodes keep an item that nobody writes again (BEP 44).
pub const LEASE_LEN_MAX_S: u64 = 7200;

/// Seconds by which `issued` may lie ahead of the reader's clock.
///
/// Five minutes: honest clocks agree at least that well.
pub const LEASE_EARLY_MAX_S: u64 = 300;

const VERSION: u8 = 1;
const TEXT_BYTES: usize = 1 + 8 + 8 + 64;
const CONTEXT: &[u8] = b"mosaik-node lease v1";

/// Why a lease binds nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// Not base64url without padding, in its only form, of 81 bytes.
    #[error("the lease is not 81 bytes of canonical base64url")]
    Text,
    /// Made by a later version.
    #[error("the lease is of version {0}, this program knows version {VERSION}")]
    Version(u8),
    /// Ends before it begins, or lasts too long.
    #[error(
        "the lease is issued at {issued_s} and expires at {expires_s}, the longest is {LEASE_LEN_MAX_S} s"
    )]
    Span {
        /// When it begins, Unix seconds.
        issued_s: u64,
        /// When it ends, Unix seconds.
        expires_s: u64,
    },
    /// Not signed by the endpoint for this network, slot and addresses: forged or copied.
    #[error("the lease is not signed by the endpoint for this slot and these addresses")]
    Signature,
}

/// A lease. Only [`Lease::verify`] makes it more than a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// When it was signed, Unix seconds.
    pub issued_s: u64,
    /// From when on it is void, Unix seconds.
    pub expires_s: u64,
    /// The endpoint's signature.
    pub signature: [u8; 64],
}

/// All that a lease is bound to, besides its times.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The network.
    pub fingerprint: &'a Fingerprint,
    /// The slot that the record stands in.
    pub slot: u8,
    /// The endpoint that signs.
    pub node: &'a NodeId,
    /// [`digest`] of the record's relays and addresses.
    pub addresses: [u8; 32],
}

impl Scope<'_> {
    fn message(&self, issued_s: u64, expires_s: u64) -> Vec<u8> {
        [
            CONTEXT,
            self.fingerprint.as_bytes(),
            &[self.slot],
            self.node.as_bytes(),
            &self.addresses,
            &issued_s.to_be_bytes(),
            &expires_s.to_be_bytes(),
        ]
        .concat()
    }
}

/// Hashes relays and addresses as they stand in the record: sorted, repeats kept, each with an LF.
pub fn digest<'a>(texts: impl Iterator<Item = &'a str>) -> [u8; 32] {
    let mut texts: Vec<&str> = texts.collect();
    texts.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for text in texts {
        hasher.update(text.as_bytes()).update(b"\n");
    }
    *hasher.finalize().as_bytes()
}

impl Lease {
    /// Signs a lease. With `expires_s` equal to `issued_s` it is a tombstone.
    pub fn sign(key: &SigningKey, scope: &Scope<'_>, issued_s: u64, expires_s: u64) -> Self {
        let signature = key.sign(&scope.message(issued_s, expires_s)).to_bytes();
        Self { issued_s, expires_s, signature }
    }

    /// Checks span and signature.
    ///
    /// # Errors
    ///
    /// [`LeaseError::Span`] or [`LeaseError::Signature`]. Whether it is live is another question.
    pub fn verify(&self, scope: &Scope<'_>) -> Result<(), LeaseError> {
        let Self { issued_s, expires_s, signature } = *self;
        if expires_s < issued_s || expires_s - issued_s > LEASE_LEN_MAX_S {
            return Err(LeaseError::Span { issued_s, expires_s });
        }
        // Strict: under a small-order key the other check takes any message.
        VerifyingKey::from_bytes(scope.node.as_bytes())
            .and_then(|key| {
                let message = scope.message(issued_s, expires_s);
                key.verify_strict(&message, &Signature::from_bytes(&signature))
            })
            .map_err(|_| LeaseError::Signature)
    }

    /// Whether it holds at `now_s`, Unix seconds. Says nothing about the signature.
    pub fn is_live(&self, now_s: u64) -> bool {
        self.issued_s.saturating_sub(LEASE_EARLY_MAX_S) <= now_s && now_s < self.expires_s
    }

    /// Whether its holder has left the slot.
    pub fn is_tombstone(&self) -> bool {
        self.expires_s == self.issued_s
    }

    /// The text of the `_l` record.
    pub fn to_text(&self) -> String {
        let mut bytes = Vec::with_capacity(TEXT_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.issued_s.to_be_bytes());
        bytes.extend_from_slice(&self.expires_s.to_be_bytes());
        bytes.extend_from_slice(&self.signature);
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// Reads the text of an `_l` record. Nothing is verified yet.
    ///
    /// # Errors
    ///
    /// [`LeaseError::Text`] or [`LeaseError::Version`].
    pub fn from_text(text: &str) -> Result<Self, LeaseError> {
        // The decoder refuses padding and bits behind the last byte: one encoding only.
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| LeaseError::Text)?;
        match bytes.first() {
            Some(&VERSION) => {}
            Some(&version) => return Err(LeaseError::Version(version)),
            None => return Err(LeaseError::Text),
        }
        if bytes.len() != TEXT_BYTES {
            return Err(LeaseError::Text);
        }
        let (mut issued, mut expires, mut signature) = ([0; 8], [0; 8], [0; 64]);
        issued.copy_from_slice(&bytes[1..9]);
        expires.copy_from_slice(&bytes[9..17]);
        signature.copy_from_slice(&bytes[17..]);
        Ok(Self {
            issued_s: u64::from_be_bytes(issued),
            expires_s: u64::from_be_bytes(expires),
            signature,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_750_000_000;
    const NETWORK: Fingerprint = Fingerprint([3; 32]);

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn node() -> NodeId {
        NodeId(key().verifying_key().to_bytes())
    }

    fn scope(node: &NodeId) -> Scope<'_> {
        let addresses = digest(["203.0.113.7:4242", "https://relay.example.org./"].into_iter());
        Scope { fingerprint: &NETWORK, slot: 4, node, addresses }
    }

    #[test]
    fn a_lease_round_trips_through_its_text() {
        let lease = Lease::sign(&key(), &scope(&node()), NOW_S, NOW_S + 3600);
        let text = lease.to_text();
        assert_eq!(text.len(), 108);
        assert_eq!(Lease::from_text(&text), Ok(lease));
        assert_eq!(lease.verify(&scope(&node())), Ok(()));
    }

    #[test]
    fn a_lease_holds_for_its_network_slot_endpoint_and_addresses_only() {
        let node = node();
        let lease = Lease::sign(&key(), &scope(&node), NOW_S, NOW_S + 3600);
        let other_network = Fingerprint([4; 32]);
        let other_node = NodeId(SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes());
        let good = scope(&node);
        for wrong in [
            Scope { fingerprint: &other_network, ..good },
            Scope { slot: 5, ..good },
            Scope { node: &other_node, ..good },
            Scope { addresses: digest(["203.0.113.7:4243"].into_iter()), ..good },
        ] {
            assert_eq!(lease.verify(&wrong), Err(LeaseError::Signature));
        }
        let moved = Lease { expires_s: lease.expires_s + 1, ..lease };
        assert_eq!(moved.verify(&good), Err(LeaseError::Signature));
    }

    #[test]
    fn a_small_order_key_signs_nothing() {
        // The identity point with a zero signature passes every check that is not strict.
        let mut identity = [0; 32];
        identity[0] = 1;
        let node = NodeId(identity);
        let mut signature = [0; 64];
        signature[0] = 1;
        let lease = Lease { issued_s: NOW_S, expires_s: NOW_S + 1, signature };
        assert_eq!(lease.verify(&scope(&node)), Err(LeaseError::Signature));
    }

    #[test]
    fn a_lease_that_lasts_too_long_or_ends_before_it_begins_is_refused() {
        let node = node();
        for expires_s in [NOW_S + LEASE_LEN_MAX_S + 1, NOW_S - 1, u64::MAX] {
            let lease = Lease::sign(&key(), &scope(&node), NOW_S, expires_s);
            assert_eq!(
                lease.verify(&scope(&node)),
                Err(LeaseError::Span { issued_s: NOW_S, expires_s })
            );
        }
        let longest = Lease::sign(&key(), &scope(&node), NOW_S, NOW_S + LEASE_LEN_MAX_S);
        assert_eq!(longest.verify(&scope(&node)), Ok(()));
    }

    #[test]
    fn a_lease_is_live_from_five_minutes_before_its_issue_until_it_expires() {
        let lease = Lease { issued_s: NOW_S, expires_s: NOW_S + 3600, signature: [0; 64] };
        assert!(!lease.is_live(NOW_S - 301));
        assert!(lease.is_live(NOW_S - 300));
        assert!(lease.is_live(NOW_S + 3599));
        assert!(!lease.is_live(NOW_S + 3600));
        let tombstone = Lease { expires_s: NOW_S, ..lease };
        assert!(tombstone.is_tombstone() && !tombstone.is_live(NOW_S));
    }

    #[test]
    fn a_lease_text_has_one_form() {
        let text = Lease { issued_s: 1, expires_s: 2, signature: [255; 64] }.to_text();
        assert_eq!(Lease::from_text(&format!("{text}=")), Err(LeaseError::Text));
        assert_eq!(Lease::from_text(&text.replace('_', "/")), Err(LeaseError::Text));
        assert_eq!(Lease::from_text(&text[..104]), Err(LeaseError::Text));
        assert_eq!(Lease::from_text(""), Err(LeaseError::Text));
        assert_eq!(
            Lease::from_text(&BASE64URL_NOPAD.encode(&[2; 81])),
            Err(LeaseError::Version(2))
        );
        // 80 bytes leave four bits behind the last one: they have to be zero.
        let short = BASE64URL_NOPAD.encode(&[1; 80]);
        let (head, _) = short.split_at(short.len() - 1);
        assert_eq!(Lease::from_text(&format!("{head}F")), Err(LeaseError::Text));
    }

    #[test]
    fn the_digest_keeps_repeats_and_forgets_order() {
        let of = |texts: &[&'static str]| digest(texts.iter().copied());
        assert_eq!(of(&["b", "a"]), of(&["a", "b"]));
        assert_ne!(of(&["a", "a"]), of(&["a"]));
        assert_ne!(of(&["a", "b"]), of(&["a\nb"]).map(|byte| byte ^ 1));
    }
}
