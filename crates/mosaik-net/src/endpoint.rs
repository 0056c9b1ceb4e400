//! The iroh endpoint: its settings, and what others can dial.
//!
//! Source: FORMAT.md beside this crate, sections 1 and 2.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures_lite::StreamExt;
use iroh::{
    Endpoint, EndpointAddr, EndpointId, NetReportConfig, RelayMode, RelayUrl, SecretKey, Watcher,
    endpoint::{BindOpts, PortmapperConfig, QuicTransportConfig, VarInt, presets},
};
use mosaik_core::{id::NodeId, key::NetworkKeys, reach::Reach};
use mosaik_proto::carrier::{Addresses, Input};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout_at},
};

use crate::{
    blobs::Shelf,
    budget::Delivery,
    gossip::Hook,
    relay::{self, RelaySetting},
};

/// The protocol that sessions speak.
pub const SYNC_ALPN: &[u8] = b"mosaik-node/sync/1";

/// How often a connection without traffic says that it is alive, and after how long a silence it
/// is given up: four missed in a row.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
const IDLE_MAX: Duration = Duration::from_secs(8);
/// The same for each path of a connection. While a path seems alive nothing goes by another: after a
/// host has got another address, what it wrote would wait for iroh's 15 s. Paths over a relay keep
/// iroh's 30 s.
const PATH_KEEP_ALIVE: Duration = Duration::from_secs(3);
const PATH_IDLE_MAX: Duration = Duration::from_secs(7);
/// Bytes that a peer may have on their way to this node in a stream, and in a connection so many times
/// that; and this node to a peer: what one connection can pin in memory. iroh's own figures allow over
/// 180 MB.
const STREAM_WINDOW: u32 = 512 << 10;
const STREAMS_IN_WINDOW: u32 = 4;
const SEND_WINDOW: u64 = 2 << 20;
/// Under a limit a peer may have as much on its way in a stream as is read in so many seconds, and at
/// least so many bytes: what waits here unread has come above the limit, and a peer that hears nothing of
/// what was read for long takes this end for dead.
const WINDOW_S: u64 = 2;
const STREAM_WINDOW_MIN: u32 = 16 << 10;
/// Streams that a peer may have open in each direction: sync uses one, gossip one for each topic,
/// files one for each that is fetched.
const STREAMS_MAX: u8 = 16;
/// How long own addresses must stay as they are before they are told: interfaces come one by one.
const ADDRESSES_SETTLE: Duration = Duration::from_millis(300);

/// What a carrier needs to know.
#[derive(Clone)]
pub struct NetConfig {
    /// Keys of the network.
    pub keys: NetworkKeys,
    /// Seed of the node key.
    pub secret: [u8; 32],
    /// UDP addresses to listen on; none: any free port on all interfaces, v4 and v6.
    pub listen: Vec<SocketAddr>,
    /// Relays to be reached through.
    pub relays: RelaySetting,
    /// Whether peers are reached through relays alone: no UDP socket is opened, `listen` counts for
    /// nothing, and no address of this machine is told.
    pub relay_only: bool,
    /// A PEM file with certificate authorities whose relays are trusted besides the well-known ones.
    pub relay_ca: Option<PathBuf>,
    /// Which addresses are dialed and told.
    pub reach: Reach,
    /// Bytes a second that are read of all sessions and files together; `None`: as they come.
    pub rate_down: Option<u64>,
    /// Bytes a second that are written to all sessions, and served of all files, together; `None`: as
    /// fast as they go.
    pub rate_up: Option<u64>,
    /// Connections that others may have open to this node, for sessions, gossip and files; one more is
    /// refused before its handshake. An idle one costs about 110 KB.
    pub connections_max: usize,
    /// Whether to announce this node on the local network, and to look for others there. What is found
    /// there is dialed directly: not with `relay_only`.
    pub mdns: bool,
    /// Whether to take part in gossip.
    pub gossip: bool,
    /// Where the files of attachments lie; none: they are neither served nor fetched.
    pub shelf: Option<Arc<Shelf>>,
}

/// Why a node can't listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another program has the port. Stop it, or choose another.
    #[error("UDP port {} of {} is in use by another program", .0.port(), .0.ip())]
    PortInUse(SocketAddr),
    /// The address is not one of this machine.
    #[error("no interface of this machine has the address {}", .0.ip())]
    NotHere(SocketAddr),
    /// The system forbids it: ports below 1024 need a right of their own.
    #[error("not permitted to listen on UDP port {} of {}", .0.port(), .0.ip())]
    Forbidden(SocketAddr),
    /// Not a relay's URL.
    #[error("{0:?} is not the URL of a relay")]
    Relay(String),
    /// The file with the relays' authorities.
    #[error("{} holds no certificate authority: {reason}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why, in words.
        reason: String,
    },
    /// Anything else.
    #[error("can't open the network endpoint")]
    Endpoint(#[source] Box<iroh::endpoint::BindError>),
}

/// Opens the endpoint; `mode` is `config.relays` for iroh, `alpns` are the protocols that it answers to.
pub(crate) async fn bind(
    config: &NetConfig,
    mode: RelayMode,
    alpns: Vec<Vec<u8>>,
    hook: Hook,
) -> Result<Endpoint, BindError> {
    let mut builder = Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&config.secret))
        .alpns(alpns)
        .relay_mode(mode)
        .ca_tls_config(relay::authorities(config.relay_ca.as_deref())?)
        .transport_config(transport(config.rate_down))
        .hooks(hook);
    if config.reach != Reach::Public || config.relay_only {
        builder = builder.portmapper_config(PortmapperConfig::Disabled);
    }
    if config.relays == RelaySetting::None {
        // Nobody there to be probed. With relays the probes are needed: the nearest is one's home.
        builder = builder.net_report_config(NetReportConfig::minimal());
    }
    let listen = if config.relay_only { &[][..] } else { &config.listen };
    if config.relay_only || !listen.is_empty() {
        builder = builder.clear_ip_transports();
    }
    for (address, opts) in routes(listen) {
        builder = builder
            .bind_addr_with_opts(address, opts)
            .expect("one default route a family, and prefixes within their family");
    }
    builder.bind().await.map_err(|error| diagnose(error, listen))
}

/// Each address with the part of the world that it sends to: the first of a family to all of it,
/// others to their own net. The first come last, as iroh wants it.
fn routes(listen: &[SocketAddr]) -> Vec<(SocketAddr, BindOpts)> {
    let (mut others, mut firsts) = (Vec::new(), Vec::new());
    for (at, address) in listen.iter().enumerate() {
        if !listen[..at].iter().any(|before| before.is_ipv4() == address.is_ipv4()) {
            firsts.push((*address, BindOpts::default()));
            continue;
        }
        // A guess at the net's size: loopback's is known, others are nearly always these.
        let prefix = match (address.is_ipv4(), address.ip().is_loopback()) {
            (true, true) => 8,
            (true, false) => 24,
            (false, true) => 128,
            (false, false) => 64,
        };
        others.push((*address, BindOpts::default().set_prefix_len(prefix)));
    }
    others.extend(firsts);
    others
}

fn transport(rate_down: Option<u64>) -> QuicTransportConfig {
    let read = rate_down.and_then(|rate| u32::try_from(rate.saturating_mul(WINDOW_S)).ok());
    let window = read.map_or(STREAM_WINDOW, |bytes| bytes.clamp(STREAM_WINDOW_MIN, STREAM_WINDOW));
    QuicTransportConfig::builder()
        .keep_alive_interval(KEEP_ALIVE)
        .default_path_keep_alive_interval(PATH_KEEP_ALIVE)
        .default_path_max_idle_timeout(PATH_IDLE_MAX)
        .max_idle_timeout(Some(IDLE_MAX.try_into().expect("8 s is within QUIC's range")))
        .receive_window(VarInt::from_u32(window * STREAMS_IN_WINDOW))
        .stream_receive_window(VarInt::from_u32(window))
        .send_window(SEND_WINDOW)
        // Nothing here reads any.
        .datagram_receive_buffer_size(None)
        .max_concurrent_bidi_streams(STREAMS_MAX.into())
        .max_concurrent_uni_streams(STREAMS_MAX.into())
        .build()
}

/// Names the address that could not be had; iroh's error doesn't.
fn diagnose(error: iroh::endpoint::BindError, listen: &[SocketAddr]) -> BindError {
    for address in listen {
        match UdpSocket::bind(address).map_err(|error| error.kind()) {
            Err(io::ErrorKind::AddrInUse) => return BindError::PortInUse(*address),
            Err(io::ErrorKind::AddrNotAvailable) => return BindError::NotHere(*address),
            Err(io::ErrorKind::PermissionDenied) => return BindError::Forbidden(*address),
            _ => {}
        }
    }
    BindError::Endpoint(Box::new(error))
}

/// What others can dial now.
pub(crate) fn addresses(addr: &EndpointAddr, reach: Reach) -> Addresses {
    Addresses {
        direct: addr.ip_addrs().filter(|address| reach.allows(address)).copied().collect(),
        relays: addr.relay_urls().map(ToString::to_string).collect(),
    }
}

/// A peer's addresses as iroh takes them, without those that may not be dialed. `None`: no key.
pub(crate) fn to_dial(peer: NodeId, addresses: &Addresses, reach: Reach) -> Option<EndpointAddr> {
    let mut addr = EndpointAddr::new(EndpointId::from_bytes(peer.as_bytes()).ok()?);
    for address in addresses.direct.iter().filter(|address| reach.allows(address)) {
        addr = addr.with_ip_addr(*address);
    }
    for relay in addresses.relays.iter().filter(|url| reach.allows_relay(url)) {
        if let Ok(url) = relay.parse::<RelayUrl>() {
            addr = addr.with_relay_url(url);
        }
    }
    Some(addr)
}

/// Tells own addresses whenever they have changed and then stayed for a while; the first ones too. And
/// again whenever there is something new to complain of: whoever shows both then looks.
pub(crate) async fn tell_addresses(
    endpoint: Endpoint,
    reach: Reach,
    mut complaints: watch::Receiver<Vec<String>>,
    inbox: mpsc::Sender<Delivery>,
) {
    let mut changes = endpoint.watch_addr().stream();
    // The stream ends with the endpoint; holding on to it here would keep its port.
    drop(endpoint);
    let mut told = Addresses::default();
    loop {
        tokio::select! {
            addr = changes.next() => {
                let Some(mut addr) = addr else { return };
                let settled = Instant::now() + ADDRESSES_SETTLE;
                while let Ok(Some(newer)) = timeout_at(settled, changes.next()).await {
                    addr = newer;
                }
                let now = addresses(&addr, reach);
                if now == told {
                    continue;
                }
                told = now;
            }
            Ok(()) = complaints.changed() => {}
        }
        if inbox.send(Input::OwnAddresses(told.clone()).into()).await.is_err() {
            return;
        }
    }
}
