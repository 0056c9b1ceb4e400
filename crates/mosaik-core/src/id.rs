//! The five 32-byte names: of authors, nodes, events, files and networks.
//!
//! Each is its own type, so that a node can't be taken for an author. All print as lower-case hex;
//! none of them claims to be a valid curve point, only a verified signature proves a key.

use std::{fmt, str::FromStr};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

/// Text that is not 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hex digits, got {0:?}")]
pub struct ParseIdError(String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The 32 bytes.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first 6 hex digits: for people, never to tell two apart.
            pub fn short(&self) -> String {
                HEXLOWER.encode(&self.0[..3])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; 32];
                if text.len() == 64
                    && HEXLOWER_PERMISSIVE.decode_mut(text.as_bytes(), &mut bytes).is_ok()
                {
                    Ok(Self(bytes))
                } else {
                    Err(ParseIdError(text.chars().take(80).collect()))
                }
            }
        }
    };
}

id! {
    /// The Ed25519 key that signs one feed.
    AuthorId
}
id! {
    /// The Ed25519 key of one running node: iroh's `EndpointId`.
    NodeId
}
id! {
    /// The keyed hash of one event's header.
    EventId
}
id! {
    /// The BLAKE3 of a file that an attachment names.
    BlobId
}
id! {
    /// The name of a network that may be shown: it opens nothing.
    Fingerprint
}

impl EventId {
    /// What stands before the first event of a feed.
    pub const ZERO: Self = Self([0; 32]);

    /// The first 8 bytes, by which a set names the sets that it replaces.
    pub fn prefix(&self) -> [u8; 8] {
        let mut prefix = [0; 8];
        prefix.copy_from_slice(&self.0[..8]);
        prefix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_round_trips_through_its_text_in_either_case() {
        let id = EventId([0xab; 32]);
        let text = id.to_string();
        assert_eq!(text.parse::<EventId>(), Ok(id));
        assert_eq!(text.to_uppercase().parse::<EventId>(), Ok(id));
        assert!(text[1..].parse::<EventId>().is_err());
    }
}
