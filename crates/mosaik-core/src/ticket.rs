//! Peer tickets: a node and its addresses in one word that a mistyped letter breaks.
//!
//! Source: FORMAT.md beside this crate, section 6; BIP-350 for bech32m.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use bech32::Hrp;

use crate::{
    codec::{ReadError, Reader, Writer},
    id::NodeId,
    key::{bech32m_decode, bech32m_encode},
};

const HRP: Hrp = Hrp::parse_unchecked("mpeer");
const VERSION: u8 = 1;
/// Relays in a ticket: the home relay and a spare one.
const RELAYS_MAX: usize = 2;
/// Addresses in a ticket.
const ADDRESSES_MAX: usize = 8;
/// Bytes of a relay's URL, so that the ticket stays within bech32m's 1,023 characters.
const RELAY_LEN_MAX: usize = 200;

/// Why a text is no peer ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Not what `id --ticket` printed.
    #[error(
        "this is not a peer ticket (mpeer1...), or it is mistyped or cut: {0}; copy it again from `id --ticket`"
    )]
    Mistyped(&'static str),
    /// The letters are right, the content is not.
    #[error("this peer ticket says something that this program does not understand: {0}")]
    Content(#[from] ReadError),
}

/// Where a node can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Who.
    pub node: NodeId,
    /// Relay URLs, at most 2 are kept.
    pub relays: Vec<String>,
    /// Socket addresses, at most 8 are kept.
    pub addresses: Vec<SocketAddr>,
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relays: Vec<_> =
            self.relays.iter().filter(|url| url.len() <= RELAY_LEN_MAX).take(RELAYS_MAX).collect();
        let addresses = &self.addresses[..self.addresses.len().min(ADDRESSES_MAX)];
        let mut writer = Writer::new();
        writer.u8(VERSION).raw(self.node.as_bytes()).len(relays.len());
        for relay in relays {
            writer.str(relay);
        }
        writer.len(addresses.len());
        for address in addresses {
            match address.ip() {
                IpAddr::V4(ip) => writer.u8(0).raw(&ip.octets()),
                IpAddr::V6(ip) => writer.u8(1).raw(&ip.octets()),
            };
            writer.varint(u64::from(address.port()));
        }
        f.write_str(&bech32m_encode(HRP, writer.as_bytes()))
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = bech32m_decode(HRP, text).map_err(TicketError::Mistyped)?;
        let mut reader = Reader::new(&bytes);
        match reader.u8()? {
            VERSION => {}
            version => return Err(ReadError::Tag(u64::from(version)).into()),
        }
        let node = NodeId(reader.array()?);
        let relays = (0..reader.count(RELAYS_MAX, 1)?)
            .map(|_| reader.str(RELAY_LEN_MAX).map(str::to_owned))
            .collect::<Result<_, _>>()?;
        let addresses = (0..reader.count(ADDRESSES_MAX, 6)?)
            .map(|_| {
                let ip: IpAddr = match reader.u8()? {
                    0 => reader.array::<4>()?.into(),
                    1 => reader.array::<16>()?.into(),
                    tag => return Err(ReadError::Tag(u64::from(tag))),
                };
                Ok(SocketAddr::new(ip, reader.varint_u16()?))
            })
            .collect::<Result<_, _>>()?;
        // What follows is of a later program.
        Ok(Self { node, relays, addresses })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_round_trips_and_a_changed_letter_is_refused() {
        let ticket = Ticket {
            node: NodeId([7; 32]),
            relays: vec!["https://relay.example.org./".into()],
            addresses: vec![
                "203.0.113.7:4242".parse().expect("v4"),
                "[2001:db8::7]:4242".parse().expect("v6"),
            ],
        };
        let text = ticket.to_string();
        assert!(text.starts_with("mpeer1"));
        assert_eq!(text.parse::<Ticket>(), Ok(ticket));
        let typo = text.replacen('q', "p", 1);
        assert!(matches!(typo.parse::<Ticket>(), Err(TicketError::Mistyped(_))));
        assert!("mnet1abc".parse::<Ticket>().is_err());
        let later = [bech32m_decode(HRP, &text).expect("bytes"), b"later".to_vec()].concat();
        assert_eq!(bech32m_encode(HRP, &later).parse(), text.parse::<Ticket>());
    }
}
