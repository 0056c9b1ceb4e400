//! Peers of the same local network, found by multicast DNS: no internet is needed for it.
//!
//! Invariants:
//! - What is announced is the node's id and its addresses, under a tag made from the network's keys:
//!   who doesn't know the network's id can't tell which network it is, nor list all nodes of any.
//! - Addresses that come this way are private ones as a rule, and are dialed all the same: they were
//!   said in the local network itself. The word of slots and peers opens no way to them.
//! - At most [`NEIGHBOURS_MAX`] are kept; further ones are told and not dialed at private addresses.
//! - A machine without multicast is tried again; nothing here ends the node.
//!
//! Source: FORMAT.md beside this crate, section 4.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_lite::StreamExt;
use iroh::Endpoint;
use iroh_mdns_address_lookup::{DiscoveryEvent, MdnsAddressLookup};
use mosaik_core::{id::NodeId, reach::Reach};
use mosaik_proto::carrier::{Addresses, Input, Source};
use tokio::{sync::mpsc, time::sleep};
use tracing::debug;

use crate::budget::Delivery;

/// How long until it is tried again where no multicast is to be had: interfaces come and go.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

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

    fn note(&self, peer: NodeId, addresses: &[SocketAddr]) {
        let mut known = self.lock();
        if known.len() < NEIGHBOURS_MAX || known.contains_key(&peer) {
            let addresses = addresses.iter().take(ADDRESSES_MAX).copied();
            known.insert(peer, addresses.collect());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<NodeId, Vec<SocketAddr>>> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

/// The name under which nodes of a network announce themselves.
fn service_name(tag: [u8; 8]) -> String {
    tag.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Announces the endpoint and tells of others until the inbox is closed.
pub(crate) async fn run(
    endpoint: Endpoint,
    tag: [u8; 8],
    reach: Reach,
    neighbours: Arc<Neighbours>,
    inbox: mpsc::Sender<Delivery>,
) {
    // Loopback is never announced.
    let reach = if reach == Reach::LanOnly { reach } else { Reach::Lan };
    let mdns = loop {
        let mdns = MdnsAddressLookup::builder().service_name(service_name(tag));
        match mdns.build(endpoint.id()) {
            Ok(mdns) => break mdns,
            Err(error) => debug!(%error, "no multicast here, trying again later"),
        }
        sleep(AGAIN_AFTER).await;
    };
    // An error says that the endpoint is closed.
    let Ok(lookups) = endpoint.address_lookup() else { return };
    lookups.add(mdns.clone());
    // The stream ends with the endpoint; holding on to it here would keep its port.
    drop(endpoint);
    let mut events = mdns.subscribe().await;
    while let Some(event) = events.next().await {
        let DiscoveryEvent::Discovered { endpoint_info, .. } = event else { continue };
        let peer = NodeId(*endpoint_info.endpoint_id.as_bytes());
        let addresses = Addresses {
            direct: endpoint_info.ip_addrs().filter(|at| reach.allows(at)).copied().collect(),
            relays: Vec::new(),
        };
        neighbours.note(peer, &addresses.direct);
        debug!(peer = %peer.short(), "found on the local network");
        let found = Input::Found { peer, addresses, source: Source::Mdns };
        if inbox.send(found.into()).await.is_err() {
            return;
        }
    }
}
