//! Where nodes were that are gone: addresses that take packets, never answer, and count who dials.
//!
//! A closed port would do for the first two, but not for the count, and the system would answer for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use tokio::{net::UdpSocket, task::JoinSet};

/// Longer than any packet on loopback.
const PACKET_MAX: usize = 1 << 16;
const DIALERS_MAX: usize = 10_000;

/// Who dialed which of them: connection ids by ghost and by where they came from.
type Dials = BTreeMap<(usize, SocketAddr), BTreeSet<Vec<u8>>>;

/// Such addresses.
#[derive(Debug)]
pub(super) struct Ghosts {
    addresses: Vec<SocketAddr>,
    dials: Arc<Mutex<Dials>>,
    _tasks: JoinSet<()>,
}

impl Ghosts {
    /// So many.
    pub(super) async fn start(ghosts: usize) -> Result<Self> {
        let (mut addresses, dials, mut tasks) =
            (Vec::new(), Arc::new(Mutex::new(Dials::new())), JoinSet::new());
        for ghost in 0..ghosts {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await;
            let socket = socket.context("no address for a node that is gone")?;
            addresses.push(socket.local_addr()?);
            tasks.spawn(listen(socket, ghost, dials.clone()));
        }
        Ok(Self { addresses, dials, _tasks: tasks })
    }

    pub(super) fn address(&self, ghost: usize) -> SocketAddr {
        self.addresses[ghost]
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.addresses.iter().copied()
    }

    /// How often each of them was dialed from these addresses.
    pub(super) fn dials_from(&self, from: &[SocketAddr]) -> Vec<usize> {
        let dials = self.dials.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |ghost: usize| {
            let those =
                dials.iter().filter(|((at, dialer), _)| *at == ghost && from.contains(dialer));
            those.map(|(_, ids)| ids.len()).sum()
        };
        (0..self.addresses.len()).map(of).collect()
    }
}

async fn listen(socket: UdpSocket, ghost: usize, dials: Arc<Mutex<Dials>>) {
    let mut packet = vec![0; PACKET_MAX];
    // An error is a dialer's that is gone itself.
    loop {
        let Ok((len, from)) = socket.recv_from(&mut packet).await else { continue };
        let Some(id) = dialed_id(&packet[..len]) else { continue };
        let mut dials = dials.lock().unwrap_or_else(PoisonError::into_inner);
        if dials.len() < DIALERS_MAX {
            dials.entry((ghost, from)).or_default().insert(id.to_vec());
        }
    }
}

/// The connection id that a dialer draws for a new connection. It keeps it until it is answered, so
/// each is one dial.
///
/// Source: RFC 9000, sections 7.2 and 17.2.2.
fn dialed_id(packet: &[u8]) -> Option<&[u8]> {
    let (&[first, 0, 0, 0, 1, len], rest) = packet.split_first_chunk::<6>()? else { return None };
    let is_initial = first & 0b1111_0000 == 0b1100_0000;
    rest.get(..usize::from(len)).filter(|_| is_initial)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dial_is_counted_once_however_often_its_first_packet_comes() {
        let ghosts = Ghosts::start(4).await.expect("loopback is there");
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
        let own = [socket.local_addr().expect("it is bound")];
        for packet in [b"\xc3\0\0\0\x01\x02ab...", b"\xc1\0\0\0\x01\x02ab..."] {
            socket.send_to(packet, ghosts.address(3)).await.expect("loopback takes it");
        }
        // No first packet: a handshake, a short header, another version, a cut one.
        for packet in
            [&b"\xe3\0\0\0\x01\x02cd"[..], b"\x43abcdefgh", b"\xc3\0\0\0\x02\x02ef", b"\xc3"]
        {
            socket.send_to(packet, ghosts.address(3)).await.expect("loopback takes it");
        }
        socket.send_to(b"\xc3\0\0\0\x01\x02gh", ghosts.address(3)).await.expect("it takes it");
        let both = async || {
            let dials = ghosts.dials_from(&own);
            if dials[3] == 2 { Ok(dials) } else { Err(format!("{dials:?}")) }
        };
        let deadline = std::time::Duration::from_secs(20);
        let dials = crate::wait::until("two dials", deadline, both).await.expect("both come");
        assert_eq!(dials.iter().sum::<usize>(), 2);
        assert_eq!(ghosts.dials_from(&[]), [0; 4]);
    }
}
