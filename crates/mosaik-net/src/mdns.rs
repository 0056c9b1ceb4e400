//! Peers of the same local network, found by multicast DNS: no internet is needed for it.
//!
//! Invariants:
//! - What is announced is the node's id and its private addresses, under a tag made from the
//!   network's keys: who doesn't know the network's id can't tell which network it is. A machine
//!   without a private address says nothing.
//! - Addresses that come this way are dialed though they are private: they were said in the local
//!   network itself. The word of slots and peers opens no way to them.
//! - At most [`NEIGHBOURS_MAX`] are kept; further ones are not dialed at private addresses.
//!
//! Source: FORMAT.md beside this crate, section 4.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use futures_lite::StreamExt;
use iroh::{Endpoint, EndpointAddr, Watcher};
use mosaik_core::{id::NodeId, reach::Reach};
use mosaik_proto::carrier::{Addresses, Input, Source};
use swarm_discovery::{Discoverer, DropGuard, IpClass, SpawnError};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tracing::debug;

use crate::budget::Delivery;

/// How long until it is tried again where no multicast is to be had.
const AGAIN_AFTER: Duration = Duration::from_secs(30);
/// Announcements that wait to be looked at; more are dropped, for they are repeated.
const FOUND_WAITING_MAX: usize = 64;
/// Others of the local network that are kept.
const NEIGHBOURS_MAX: usize = 1024;
/// Addresses of one of them.
const ADDRESSES_MAX: usize = 8;

/// Who was found on the local network, and where. Empty where nobody looks.
#[derive(Debug, Default)]
pub(crate) struct Neighbours(Mutex<HashMap<NodeId, Vec<SocketAddr>>>);

impl Neighbours {
    /// Where a peer was found last.
    pub(crate) fn addresses(&self, peer: &NodeId) -> Vec<SocketAddr> {
        self.lock().get(peer).cloned().unwrap_or_default()
    }

    fn note(&self, peer: NodeId, addresses: Vec<SocketAddr>) {
        let mut known = self.lock();
        if known.len() < NEIGHBOURS_MAX || known.contains_key(&peer) {
            known.insert(peer, addresses);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<NodeId, Vec<SocketAddr>>> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

/// What is announced, and to whom what is heard goes.
pub(crate) struct Mdns {
    /// The network's tag.
    pub(crate) tag: [u8; 8],
    pub(crate) node: NodeId,
    pub(crate) neighbours: Arc<Neighbours>,
    pub(crate) inbox: mpsc::Sender<Delivery>,
    /// Whether nothing is said for now.
    pub(crate) paused: watch::Receiver<bool>,
}

/// An announcement: the name it came under, and the addresses.
type Found = (String, Vec<SocketAddr>);

impl Mdns {
    /// Announces the endpoint, anew when its addresses have changed, and tells of others. Ends with
    /// the endpoint or when nobody takes inputs any more.
    pub(crate) async fn run(mut self, endpoint: Endpoint) {
        let mut changes = endpoint.watch_addr().stream();
        // The stream ends with the endpoint; holding on to it here would keep its port.
        drop(endpoint);
        let (sender, mut found) = mpsc::channel(FOUND_WAITING_MAX);
        let mut own = BTreeSet::new();
        let mut announced: Option<DropGuard> = None;
        let mut again: Option<Instant> = None;
        loop {
            tokio::select! {
                addr = changes.next() => {
                    let Some(addr) = addr else { return };
                    let now = private(&addr);
                    if now == own {
                        continue;
                    }
                    own = now;
                }
                Ok(()) = self.paused.changed() => {}
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
                Some(one) = found.recv() => {
                    if !self.take(one).await {
                        return;
                    }
                    continue;
                }
            }
            again = None;
            // The one before lets go of its sockets first.
            drop(announced.take());
            if own.is_empty() || *self.paused.borrow_and_update() {
                continue;
            }
            match self.announce(&own, sender.clone()) {
                Ok(guard) => announced = Some(guard),
                Err(error) => {
                    debug!(%error, "no multicast here, trying again later");
                    again = Some(Instant::now() + AGAIN_AFTER);
                }
            }
        }
    }

    /// Announces these addresses on the interfaces that have them.
    fn announce(
        &self,
        own: &BTreeSet<SocketAddr>,
        found: mpsc::Sender<Found>,
    ) -> Result<DropGuard, Box<SpawnError>> {
        let interfaces: BTreeSet<_> = own
            .iter()
            .filter_map(|address| match address.ip() {
                IpAddr::V4(ip) => Some(ip),
                IpAddr::V6(_) => None,
            })
            .collect();
        let name = BASE32_NOPAD.encode(self.node.as_bytes()).to_ascii_lowercase();
        let mut discoverer = Discoverer::new_interactive(HEXLOWER.encode(&self.tag), name)
            .with_ip_class(IpClass::V4Only)
            .with_multicast_interfaces_v4(interfaces.into_iter().collect())
            .with_callback(move |name, peer| {
                let addresses = peer.addrs().iter().take(ADDRESSES_MAX);
                let addresses = addresses.map(|(ip, port)| SocketAddr::new(*ip, *port));
                // What doesn't fit is said again.
                let _ = found.try_send((name.to_owned(), addresses.collect()));
            });
        for address in own {
            discoverer = discoverer.with_addrs(address.port(), [address.ip()]);
        }
        Ok(discoverer.spawn(&Handle::current())?)
    }

    /// `false`: nobody takes inputs any more.
    async fn take(&self, (name, mut direct): Found) -> bool {
        let id = BASE32_NOPAD.decode(name.to_ascii_uppercase().as_bytes());
        let Some(peer) = id.ok().and_then(|id| Some(NodeId(id.try_into().ok()?))) else {
            return true;
        };
        direct.retain(|address| Reach::LanOnly.allows(address));
        // Without an address it says that it was not heard for long.
        if direct.is_empty() || peer == self.node {
            return true;
        }
        debug!(peer = %peer.short(), "found on the local network");
        self.neighbours.note(peer, direct.clone());
        let addresses = Addresses { direct, relays: Vec::new() };
        let found = Input::Found { peer, addresses, source: Source::Mdns };
        self.inbox.send(found.into()).await.is_ok()
    }
}

/// The addresses of an endpoint that mean something in the local network alone.
pub(crate) fn private(addr: &EndpointAddr) -> BTreeSet<SocketAddr> {
    addr.ip_addrs().filter(|address| Reach::LanOnly.allows(address)).copied().collect()
}

#[cfg(test)]
mod tests {
    use iroh::SecretKey;

    use super::*;

    fn mdns() -> (Mdns, mpsc::Receiver<Delivery>) {
        let (inbox, inputs) = mpsc::channel(4);
        let node = NodeId([9; 32]);
        let paused = watch::channel(false).1;
        (Mdns { tag: [1; 8], node, neighbours: Arc::default(), inbox, paused }, inputs)
    }

    fn name(node: NodeId) -> String {
        BASE32_NOPAD.encode(node.as_bytes()).to_ascii_lowercase()
    }

    #[test]
    fn only_private_addresses_are_announced() {
        let mut addr = EndpointAddr::new(SecretKey::from_bytes(&[1; 32]).public());
        for address in
            ["10.0.0.7:1", "203.0.113.7:1", "127.0.0.1:1", "[fd00::7]:1", "[2001:db8::7]:1"]
        {
            addr = addr.with_ip_addr(address.parse().expect("an address"));
        }
        let private: Vec<String> = private(&addr).iter().map(ToString::to_string).collect();
        assert_eq!(private, ["10.0.0.7:1", "[fd00::7]:1"]);
    }

    #[tokio::test]
    async fn what_is_heard_is_told_without_public_addresses_and_without_oneself() {
        let (mdns, mut inputs) = mdns();
        let addresses: Vec<SocketAddr> = ["10.0.0.7:1", "203.0.113.7:1", "127.0.0.1:1"]
            .map(|address| address.parse().expect("an address"))
            .to_vec();
        let peer = NodeId([7; 32]);
        for name in [name(mdns.node), "no-id".to_owned(), name(peer)] {
            assert!(mdns.take((name, addresses.clone())).await);
        }
        assert!(mdns.take((name(NodeId([8; 32])), Vec::new())).await);
        assert_eq!(mdns.neighbours.addresses(&peer), addresses[..1]);
        let Some(Delivery { input, .. }) = inputs.recv().await else { panic!("one is told") };
        let Input::Found { peer: found, addresses: told, source } = input else { panic!("found") };
        assert_eq!((found, source), (peer, Source::Mdns));
        assert_eq!(told.direct, addresses[..1]);
        assert!(inputs.try_recv().is_err());
    }

    #[test]
    fn a_flood_of_names_is_bounded() {
        let neighbours = Neighbours::default();
        for number in 0..2 * NEIGHBOURS_MAX as u64 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_le_bytes());
            neighbours.note(NodeId(id), Vec::new());
        }
        assert_eq!(neighbours.lock().len(), NEIGHBOURS_MAX);
    }
}
