//! The peers on disk: those that answered last, so that a restart begins with them.
//!
//! Source: FORMAT.md of mosaik-store, `known peers`.

use mosaik_core::{
    codec::{ReadError, Reader, Writer},
    id::NodeId,
};

use super::{PeerBook, RELAY_LEN_MAX, peer::Whereabouts};
use crate::{
    carrier::{Addresses, Now, Source},
    message::NAME_LEN_MAX,
};

/// Peers in it.
const PEERS_MAX: usize = 256;
/// Addresses of one peer, of either kind.
const ADDRESSES_MAX: usize = 64;
/// The length of a socket address as text at the most.
const SOCKET_LEN_MAX: usize = 64;
/// The least that one peer takes.
const PEER_LEN_MIN: usize = 40;

impl PeerBook {
    /// The cache on disk: the peers that answered last, with what they said and their addresses.
    pub fn encode(&self, wall_ms: u64) -> Vec<u8> {
        let mut heard: Vec<_> = self.peers.iter().filter(|(_, peer)| peer.heard_ms > 0).collect();
        heard.sort_unstable_by_key(|(_, peer)| std::cmp::Reverse(peer.heard_ms));
        heard.truncate(PEERS_MAX);
        let mut writer = Writer::new();
        writer.len(heard.len());
        for (node, peer) in heard {
            let said = &peer.introduction;
            let seen_ms = peer.whereabouts().map(|(_, whereabouts)| whereabouts.seen_ms).max();
            let mut addresses = peer.addresses(wall_ms);
            addresses.direct.truncate(ADDRESSES_MAX);
            addresses.relays.truncate(ADDRESSES_MAX);
            writer.raw(node.as_bytes()).varint(peer.first_seen_ms).varint(peer.heard_ms);
            writer.str(&said.name).str(&said.software);
            writer.varint(said.protocol).varint(said.capabilities);
            writer.varint(said.rtt_ms.map_or(0, |rtt_ms| u64::from(rtt_ms) + 1));
            writer.varint(seen_ms.unwrap_or(0)).len(addresses.direct.len());
            for address in &addresses.direct {
                writer.str(&address.to_string());
            }
            writer.len(addresses.relays.len());
            for relay in &addresses.relays {
                writer.str(relay);
            }
        }
        writer.into_bytes()
    }

    /// Takes the cache in; a damaged one only lacks peers.
    ///
    /// # Errors
    ///
    /// Where it ends to be readable: what stands before is taken.
    pub fn restore(&mut self, bytes: &[u8], now: Now) -> Result<(), ReadError> {
        let mut reader = Reader::new(bytes);
        for _ in 0..reader.count(PEERS_MAX, PEER_LEN_MIN)? {
            self.restore_peer(&mut reader, now)?;
        }
        reader.finish()
    }

    fn restore_peer(&mut self, reader: &mut Reader<'_>, now: Now) -> Result<(), ReadError> {
        let node = NodeId(reader.array()?);
        let (first_seen_ms, heard_ms) = (reader.varint()?, reader.varint()?);
        let name = reader.str(NAME_LEN_MAX)?.to_owned();
        let software = reader.str(NAME_LEN_MAX)?.to_owned();
        let (protocol, capabilities) = (reader.varint()?, reader.varint()?);
        let rtt_ms = reader.varint()?.checked_sub(1).and_then(|rtt_ms| rtt_ms.try_into().ok());
        let seen_ms = reader.varint()?;
        let mut addresses = Addresses::default();
        for _ in 0..reader.len(ADDRESSES_MAX)? {
            addresses.direct.extend(reader.str(SOCKET_LEN_MAX)?.parse::<std::net::SocketAddr>());
        }
        for _ in 0..reader.len(ADDRESSES_MAX)? {
            addresses.relays.push(reader.str(RELAY_LEN_MAX)?.to_owned());
        }
        self.observe(node, addresses, Source::Cache, now);
        if let Some(peer) = self.peers.get_mut(&node) {
            (peer.first_seen_ms, peer.heard_ms) = (first_seen_ms, heard_ms);
            let said = &mut peer.introduction;
            (said.name, said.software, said.rtt_ms) = (name, software, rtt_ms);
            (said.protocol, said.capabilities) = (protocol, capabilities);
            if let Some(Whereabouts { seen_ms: seen, .. }) =
                peer.whereabouts.get_mut(&Source::Cache)
            {
                *seen = seen_ms;
            }
        }
        Ok(())
    }
}
