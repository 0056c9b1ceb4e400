//! What a network id is, and the keys that are derived from it.
//!
//! Invariants:
//! - The same id gives the same keys everywhere; one context each, so that no key says anything
//!   about another.
//! - Only a network's [`Fingerprint`] may be shown. Of a secret network all else stays inside.
//!
//! Source: FORMAT.md beside this crate, sections 1 and 2; BIP-350 for bech32m.

use std::fmt;

use bech32::{Bech32m, Hrp};

use crate::{
    id::{AuthorId, Fingerprint},
    limits::NETWORK_NAME_LEN_MAX,
};

/// Slots in a bootstrap chain.
pub const SLOTS: usize = 16;

/// What a secret network id begins with; a public name never does.
pub const SECRET_PREFIX: &str = "mnet1";

const SECRET_VERSION: u8 = 1;
const SECRET_FLAGS: u8 = 0;
const SECRET_LEN: usize = 66;

/// `BLAKE3.derive_key("mosaik-node 2026-11 " + x + " v1", bytes)`: every derived value but event
/// proofs and slot ids is one of these.
pub fn derive(x: &str, bytes: &[u8]) -> [u8; 32] {
    let mut hasher = deriver(x);
    hasher.update(bytes);
    *hasher.finalize().as_bytes()
}

/// The hasher of [`derive`] before its bytes: prepare it once where many are hashed.
pub fn deriver(x: &str) -> blake3::Hasher {
    deriver_of(x, 1)
}

/// The hasher of what is derived in another version than the first.
pub fn deriver_of(x: &str, version: u32) -> blake3::Hasher {
    blake3::Hasher::new_derive_key(&format!("mosaik-node 2026-11 {x} v{version}"))
}

/// Why a text is no network id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The empty text.
    #[error("a network id must not be empty; name one, or make a secret one with `network new`")]
    Empty,
    /// A public name over the limit.
    #[error("a public network name has at most {NETWORK_NAME_LEN_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// Begins like a secret id, but is none.
    #[error(
        "this begins like a secret network id (mnet1...) but is mistyped or cut: {0}; copy it again \
         from `network show` on a node that is in the network"
    )]
    Mistyped(&'static str),
    /// A secret id of a version that came later.
    #[error(
        "this secret network id is of version {0}, this program knows version {SECRET_VERSION}; update it"
    )]
    Version(u8),
}

/// Whether a network's id is a name or a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkKind {
    /// Anyone who knows the name can join and write.
    Public,
    /// Only who has the id can find the network.
    Secret,
}

impl NetworkKind {
    /// `public` or `secret`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Secret => "secret",
        }
    }
}

/// A network id: what a person passes to `--network`.
#[derive(Clone, PartialEq, Eq)]
pub enum Network {
    /// A name that anyone may know.
    Public(String),
    /// 32 random bytes and the author key of who made the network.
    Secret {
        /// The secret.
        secret: [u8; 32],
        /// The creator's author key; zeros: everybody may write.
        creator: AuthorId,
    },
}

impl Network {
    /// Reads a network id, byte for byte as given.
    ///
    /// # Errors
    ///
    /// [`NetworkError`] for an empty or over-long name, and for what begins with `mnet1` (in either
    /// case) without being a secret id: a mistyped secret must not silently become a public name.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        if text.is_empty() {
            return Err(NetworkError::Empty);
        }
        let head = text.as_bytes().get(..SECRET_PREFIX.len());
        if head.is_some_and(|head| head.eq_ignore_ascii_case(SECRET_PREFIX.as_bytes())) {
            return Self::parse_secret(text);
        }
        if text.len() > NETWORK_NAME_LEN_MAX {
            return Err(NetworkError::TooLong(text.len()));
        }
        Ok(Self::Public(text.to_owned()))
    }

    fn parse_secret(text: &str) -> Result<Self, NetworkError> {
        let bytes = bech32m_decode(SECRET_HRP, text).map_err(NetworkError::Mistyped)?;
        let &[version, flags, ref keys @ ..] = bytes.as_slice() else {
            return Err(NetworkError::Mistyped("it is too short"));
        };
        if version != SECRET_VERSION {
            return Err(NetworkError::Version(version));
        }
        if flags != SECRET_FLAGS || bytes.len() != SECRET_LEN {
            return Err(NetworkError::Mistyped("its length or flags are wrong"));
        }
        let (mut secret, mut creator) = ([0; 32], [0; 32]);
        secret.copy_from_slice(&keys[..32]);
        creator.copy_from_slice(&keys[32..]);
        Ok(Self::Secret { secret, creator: AuthorId(creator) })
    }

    /// Public or secret.
    pub fn kind(&self) -> NetworkKind {
        match self {
            Self::Public(_) => NetworkKind::Public,
            Self::Secret { .. } => NetworkKind::Secret,
        }
    }

    /// Derives every key of the network.
    pub fn keys(&self) -> NetworkKeys {
        let (seed, slot_zero) = match self {
            Self::Public(name) => {
                let id = public_id(name);
                (id.to_vec(), id)
            }
            Self::Secret { secret, creator } => {
                let seed = secret_bytes(secret, creator);
                let slot_zero = derive("slots", &seed);
                (seed, slot_zero)
            }
        };
        let (mut mdns, mut radio) = ([0; 8], [0; 4]);
        mdns.copy_from_slice(&derive("mdns", &seed)[..8]);
        radio.copy_from_slice(&derive("radio", &seed)[..4]);
        NetworkKeys {
            kind: self.kind(),
            fingerprint: Fingerprint(derive("fingerprint", &seed)),
            membership: derive("membership", &seed),
            topic: derive("topic", &seed),
            slot_record: derive("slot record", &seed),
            slot_seeds: slot_seeds(slot_zero),
            mdns,
            radio,
        }
    }
}

impl fmt::Display for Network {
    /// Prints the id itself, the secret included: for `network show` and the id's own file only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public(name) => f.write_str(name),
            Self::Secret { secret, creator } => {
                f.write_str(&bech32m_encode(SECRET_HRP, &secret_bytes(secret, creator)))
            }
        }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public(name) => f.debug_tuple("Public").field(name).finish(),
            Self::Secret { .. } => f.write_str("Secret(..)"),
        }
    }
}

/// All that is derived from a network id.
#[derive(Clone, PartialEq, Eq)]
pub struct NetworkKeys {
    /// Public or secret.
    pub kind: NetworkKind,
    /// Names the network in event ids, leases and directories; may be shown.
    pub fingerprint: Fingerprint,
    /// Keys the proof of membership in `Greet`.
    pub membership: [u8; 32],
    /// The gossip topic.
    pub topic: [u8; 32],
    /// Seals slot records; used by secret networks only.
    pub slot_record: [u8; 32],
    /// Ed25519 seeds of the slots.
    pub slot_seeds: [[u8; 32]; SLOTS],
    /// The mDNS service tag.
    pub mdns: [u8; 8],
    /// The radio tag.
    pub radio: [u8; 4],
}

impl fmt::Debug for NetworkKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkKeys")
            .field("kind", &self.kind)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

const SECRET_HRP: Hrp = Hrp::parse_unchecked("mnet");

fn public_id(name: &str) -> [u8; 32] {
    name.parse::<Fingerprint>()
        .map_or_else(|_| *blake3::hash(name.as_bytes()).as_bytes(), |id| id.0)
}

fn secret_bytes(secret: &[u8; 32], creator: &AuthorId) -> Vec<u8> {
    [&[SECRET_VERSION, SECRET_FLAGS], &secret[..], creator.as_bytes()].concat()
}

/// `id_{i+1} = BLAKE3(id_i || id_i)`, from `id_0`.
fn slot_seeds(first: [u8; 32]) -> [[u8; 32]; SLOTS] {
    let mut seeds = [first; SLOTS];
    for i in 1..SLOTS {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seeds[i - 1]).update(&seeds[i - 1]);
        seeds[i] = *hasher.finalize().as_bytes();
    }
    seeds
}

pub(crate) fn bech32m_encode(hrp: Hrp, bytes: &[u8]) -> String {
    bech32::encode::<Bech32m>(hrp, bytes)
        .expect("ids and tickets are shorter than 1,023 characters")
}

/// Decodes bech32m with exactly this prefix; says in words what is wrong.
pub(crate) fn bech32m_decode(hrp: Hrp, text: &str) -> Result<Vec<u8>, &'static str> {
    let decoded = bech32::primitives::decode::CheckedHrpstring::new::<Bech32m>(text)
        .map_err(|_| "its checksum does not hold")?;
    if decoded.hrp() != hrp {
        return Err("it begins with another prefix");
    }
    let bytes: Vec<u8> = decoded.byte_iter().collect();
    // One encoding only: this also refuses padding bits that are not zero.
    if bech32m_encode(hrp, &bytes) != text.to_ascii_lowercase() {
        return Err("its last characters are not canonical");
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_id_round_trips_and_has_117_characters() {
        let network = Network::Secret { secret: [7; 32], creator: AuthorId([9; 32]) };
        let text = network.to_string();
        assert_eq!(text.len(), 117);
        assert_eq!(Network::parse(&text), Ok(network.clone()));
        assert_eq!(Network::parse(&text.to_uppercase()), Ok(network));
    }

    #[test]
    fn every_single_mistyped_character_of_a_secret_id_is_refused() {
        let text = Network::Secret { secret: [7; 32], creator: AuthorId([0; 32]) }.to_string();
        for at in SECRET_PREFIX.len()..text.len() {
            let mut typo = text.clone().into_bytes();
            typo[at] = if typo[at] == b'q' { b'p' } else { b'q' };
            let typo = String::from_utf8(typo).expect("ascii");
            assert!(matches!(Network::parse(&typo), Err(NetworkError::Mistyped(_))), "{typo}");
        }
        assert!(Network::parse(&text[..text.len() - 1]).is_err());
        assert!(Network::parse("mnet1").is_err());
        assert!(Network::parse("MNET1abc").is_err());
    }

    #[test]
    fn sixty_four_hex_digits_are_the_id_itself_in_either_case() {
        let hex = "AB".repeat(32);
        let lower = Network::Public(hex.to_lowercase()).keys();
        assert_eq!(Network::Public(hex).keys(), lower);
        assert_eq!(lower.slot_seeds[0], [0xab; 32]);
    }

    #[test]
    fn a_secret_is_not_printed_by_debug() {
        let network = Network::Secret { secret: [7; 32], creator: AuthorId([0; 32]) };
        assert!(!format!("{network:?} {:?}", network.keys()).contains("070707"));
    }
}
