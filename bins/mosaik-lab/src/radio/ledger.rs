//! What was sent, by kind.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

/// What a packet of Reticulum is, as far as its header tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An announce, own or repeated.
    Announce,
    /// A request for a path to a destination.
    PathRequest,
    /// A request for a link.
    LinkRequest,
    /// Its answer.
    LinkProof,
    /// The third packet of a handshake.
    LinkRtt,
    /// Who is at the other end.
    LinkIdentify,
    /// Keeps a link up.
    LinkKeepalive,
    /// Closes one.
    LinkClose,
    /// A packet on a link.
    LinkData,
    /// A part of a Resource.
    ResourcePart,
    /// An offer of a Resource, a wish for its parts, more of their hashes, its end.
    ResourceControl,
    /// The proof of a Resource or of a packet.
    Proof,
    /// All else.
    Other,
}

impl Kind {
    /// Of a packet with its header.
    pub fn of(packet: &[u8]) -> Self {
        let Some(flags) = packet.first() else { return Self::Other };
        let routed = flags & 0x40 != 0;
        let context = packet.get(if routed { 34 } else { 18 });
        match (flags & 3, flags >> 2 & 3, context) {
            (1, ..) => Self::Announce,
            (2, ..) => Self::LinkRequest,
            (3, _, Some(0xFF)) => Self::LinkProof,
            (3, ..) => Self::Proof,
            // To a destination without a key: among rns's own only the one for paths is used.
            (0, 2, _) => Self::PathRequest,
            (0, 3, Some(context)) => match context {
                0x00 => Self::LinkData,
                0x01 => Self::ResourcePart,
                0x02..=0x07 => Self::ResourceControl,
                0xFA => Self::LinkKeepalive,
                0xFB => Self::LinkIdentify,
                0xFC => Self::LinkClose,
                0xFE => Self::LinkRtt,
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// A packet that was on the air.
#[derive(Debug, Clone)]
pub struct Transmission {
    /// Which radio sent it.
    pub radio: usize,
    /// When it began, since the channel's beginning, in time of the channel.
    pub at: Duration,
    /// How long it was on the air.
    pub air: Duration,
    /// The packet itself.
    pub packet: Vec<u8>,
    /// How many radios it didn't reach.
    pub lost: usize,
}

/// A sum of packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sum {
    /// How many.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their time on the air, in microseconds.
    pub air_us: u64,
}

impl Sum {
    /// Adds a packet.
    pub fn add(&mut self, sent: &Transmission) {
        self.packets += 1;
        self.bytes += sent.packet.len() as u64;
        self.air_us += u64::try_from(sent.air.as_micros()).unwrap_or(u64::MAX);
    }
}

/// The sums of packets, by kind.
pub fn by_kind<'a>(sent: impl IntoIterator<Item = &'a Transmission>) -> BTreeMap<Kind, Sum> {
    let mut sums = BTreeMap::<_, Sum>::new();
    for sent in sent {
        sums.entry(Kind::of(&sent.packet)).or_default().add(sent);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(flags: u8, context: u8) -> Vec<u8> {
        let header = if flags & 0x40 == 0 { 17 } else { 33 };
        [&[flags][..], &vec![0; header], &[context]].concat()
    }

    #[test]
    fn a_header_tells_what_a_packet_is() {
        assert_eq!(Kind::of(&packet(0x01, 0)), Kind::Announce);
        assert_eq!(Kind::of(&packet(0x51, 0)), Kind::Announce);
        assert_eq!(Kind::of(&packet(0x02, 0)), Kind::LinkRequest);
        assert_eq!(Kind::of(&packet(0x0F, 0xFF)), Kind::LinkProof);
        assert_eq!(Kind::of(&packet(0x0C, 0)), Kind::LinkData);
        assert_eq!(Kind::of(&packet(0x4C, 0xFA)), Kind::LinkKeepalive);
        assert_eq!(Kind::of(&packet(0x0F, 5)), Kind::Proof);
        assert_eq!(Kind::of(&packet(0x08, 0)), Kind::PathRequest);
        assert_eq!(Kind::of(&[]), Kind::Other);
        assert_eq!(Kind::LinkKeepalive.to_string(), "link-keepalive");
    }
}
