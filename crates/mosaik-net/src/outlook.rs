//! What the endpoint has seen of the network around it.

use std::net::SocketAddr;

use iroh::{Endpoint, TransportAddr, Watcher};

use crate::mdns::private;

/// What the endpoint has seen so far. Nothing is asked for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Addresses of this machine on which it listens, private ones too.
    pub local: Vec<SocketAddr>,
    /// Under which addresses relays have seen it.
    pub public: Vec<SocketAddr>,
    /// Whether relays were probed and what follows is more than a beginning.
    pub has_probed: bool,
    /// A relay answered over UDP, by IPv4 and by IPv6.
    pub udp_v4: bool,
    /// The same by IPv6.
    pub udp_v6: bool,
    /// Whether two relays saw two addresses, as behind a symmetric NAT; none where fewer answered.
    pub mapping_varies: Option<bool>,
    /// The relays through which it is reached, or tries to be.
    pub relays: Vec<HomeRelay>,
    /// How many of its addresses are announced in the local network.
    pub mdns_addresses: usize,
}

/// A relay through which a node is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeRelay {
    /// Its URL.
    pub url: String,
    /// Whether it is connected.
    pub is_connected: bool,
    /// Why it is not, in words, if a try has failed.
    pub error: Option<String>,
}

pub(crate) fn of(endpoint: &Endpoint) -> Outlook {
    let report = endpoint.net_report().get();
    let seen = report.iter().flat_map(|report| {
        let v4 = report.global_v4.map(SocketAddr::V4);
        v4.into_iter().chain(report.global_v6.map(SocketAddr::V6))
    });
    let public: Vec<SocketAddr> = seen.collect();
    let is_own = |address: &SocketAddr| !public.contains(address);
    let addr = endpoint.addr();
    let direct = addr.addrs.iter().filter_map(|addr| match addr {
        TransportAddr::Ip(address) => Some(*address),
        _ => None,
    });
    let local: Vec<SocketAddr> = direct.filter(is_own).collect();
    let relays = endpoint.home_relay_status().get().into_iter().map(|relay| HomeRelay {
        url: relay.url().to_string(),
        is_connected: relay.is_connected(),
        error: relay.last_error().map(ToString::to_string),
    });
    Outlook {
        mdns_addresses: private(&addr).iter().filter(|address| address.is_ipv4()).count(),
        local,
        has_probed: report.as_ref().is_some_and(|r| r.relay_latency.iter().next().is_some()),
        udp_v4: report.as_ref().is_some_and(|report| report.udp_v4),
        udp_v6: report.as_ref().is_some_and(|report| report.udp_v6),
        mapping_varies: report.as_ref().and_then(|report| report.mapping_varies_by_dest()),
        relays: relays.collect(),
        public,
    }
}
