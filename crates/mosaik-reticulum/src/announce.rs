//! What a node says of itself to all who hear it: at most 20 bytes, however many authors it holds.
//!
//! Source: FORMAT.md beside this crate, section 1.

use mosaik_core::codec::{ReadError, Reader, Writer};

/// The version of what stands in an announce.
const VERSION: u8 = 1;
/// Set in the byte of the version by who has no link with anybody.
const ALONE: u8 = 0x80;
/// Set there by who has sessions over the internet.
const BRIDGE: u8 = 0x40;
/// Set in the byte behind all else, which is there where any of its flags is, by who takes broadcasts.
const TAKES_BROADCASTS: u8 = 1;
/// The longest announce of this version, in bytes.
pub const LEN_MAX: usize = 20;
/// Numbers of events beyond this are told as this: it is for people.
const EVENTS_MAX: u64 = (1 << 42) - 1;

/// What an announce says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announce {
    /// Names the network; derived from its keys.
    pub tag: [u8; 4],
    /// The first 8 bytes of the topmost hash: equal where two nodes hold the same.
    pub top: [u8; 8],
    /// Events held.
    pub events: u64,
    /// Whether it has no link: who believes to have one with it is wrong.
    pub is_alone: bool,
    /// Whether it has sessions over the internet, too.
    pub is_bridge: bool,
    /// Whether it takes what is broadcast, and says what it then holds.
    pub takes_broadcasts: bool,
}

impl Announce {
    /// As it goes into an announce.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(LEN_MAX);
        let flag = |is_set, bit| if is_set { bit } else { 0 };
        let version = VERSION | flag(self.is_alone, ALONE) | flag(self.is_bridge, BRIDGE);
        writer.u8(version).raw(&self.tag).raw(&self.top).varint(self.events.min(EVENTS_MAX));
        if self.takes_broadcasts {
            writer.u8(TAKES_BROADCASTS);
        }
        writer.into_bytes()
    }

    /// What somebody's announce says. What follows is a later version's.
    ///
    /// # Errors
    ///
    /// [`ReadError`] where it isn't a node of this kind that speaks.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReadError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version & !(ALONE | BRIDGE) != VERSION {
            return Err(ReadError::Tag(u64::from(version)));
        }
        Ok(Self {
            tag: reader.array()?,
            top: reader.array()?,
            events: reader.varint()?,
            takes_broadcasts: reader.u8().is_ok_and(|flags| flags & TAKES_BROADCASTS != 0),
            is_alone: version & ALONE != 0,
            is_bridge: version & BRIDGE != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announce_has_at_most_twenty_bytes_and_comes_back() {
        for events in [0, 1, 127, 100_000, EVENTS_MAX] {
            let (is_alone, is_bridge) = (events % 2 == 0, events > 100);
            let takes_broadcasts = events % 3 == 0;
            let (tag, top) = ([7; 4], [9; 8]);
            let announce = Announce { tag, top, events, is_alone, is_bridge, takes_broadcasts };
            let bytes = announce.encode();
            assert!(bytes.len() <= LEN_MAX, "{}", bytes.len());
            assert_eq!(Announce::decode(&bytes), Ok(announce));
        }
        let most = Announce {
            tag: [7; 4],
            top: [9; 8],
            events: u64::MAX,
            is_alone: true,
            is_bridge: true,
            takes_broadcasts: true,
        };
        assert_eq!(most.encode().len(), LEN_MAX);
    }

    #[test]
    fn what_others_announce_is_refused_and_never_panics() {
        for bytes in [&b""[..], b"\x01", b"\x02abcd", b"{\"author\":5}", &[0xff; 40]] {
            assert!(Announce::decode(bytes).is_err());
        }
        let later = Announce {
            tag: [1; 4],
            top: [2; 8],
            events: 3,
            is_alone: false,
            is_bridge: false,
            takes_broadcasts: true,
        };
        let mut later = later.encode();
        later.push(9);
        assert!(Announce::decode(&later).is_ok());
    }
}
