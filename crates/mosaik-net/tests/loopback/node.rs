//! What the tests stand on: a carrier with its inbox, and a bare endpoint that plays any peer.

use std::time::Duration;

use iroh::{
    Endpoint, EndpointAddr, RelayMode, SecretKey,
    endpoint::{Connection, PortmapperConfig, presets},
};
use mosaik_core::{
    id::{EventId, NodeId},
    key::Network,
    reach::Reach,
};
use mosaik_net::{Delivery, Net, NetConfig, RelaySetting, SYNC_ALPN};
use mosaik_proto::{
    carrier::{Addresses, Effect, Input, Role, SessionId},
    message::{Bye, ByeCode, Message, Payloads},
};
use tokio::{sync::mpsc, time::timeout};

/// How long anything may take before a test gives up: above the transport's idle timeout of 8 s,
/// with room for a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// Inputs that may wait, as a node has it.
pub(crate) const INBOX: usize = 256;

pub(crate) struct Node {
    pub(crate) net: Net,
    pub(crate) inbox: mpsc::Receiver<Delivery>,
}

/// Settings of a node on loopback; `seed` makes its key.
pub(crate) fn config(seed: u8) -> NetConfig {
    NetConfig {
        keys: Network::Public("mosaik-net's own tests".into()).keys(),
        secret: [seed; 32],
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        relays: RelaySetting::None,
        relay_only: false,
        relay_ca: None,
        reach: Reach::Lab,
        rate_down: None,
        rate_up: None,
        connections_max: 256,
        mdns: false,
        shelf: None,
        gossip: false,
    }
}

impl Node {
    pub(crate) async fn start(seed: u8) -> Self {
        Self::start_with(config(seed), INBOX).await
    }

    pub(crate) async fn start_with(config: NetConfig, inbox: usize) -> Self {
        let (sender, inbox) = mpsc::channel(inbox);
        Self { net: Net::bind(config, sender).await.expect("a free port"), inbox }
    }

    pub(crate) fn dial(&mut self, to: &Self) {
        self.dial_at(to.net.node_id(), to.net.addresses());
    }

    pub(crate) fn dial_at(&mut self, peer: NodeId, addresses: Addresses) {
        self.net.carry(Effect::Dial { peer, addresses });
    }

    pub(crate) fn send(&mut self, session: SessionId, message: &Message) {
        self.net.carry(Effect::Send { session, frame: message.encode(), is_asked: false });
    }

    pub(crate) fn close(&mut self, session: SessionId, code: ByeCode, text: &str) {
        self.net.carry(Effect::Close { session, bye: Bye::new(code, text) });
    }

    pub(crate) fn open(&mut self, session: &Open) {
        let Open { session, peer, role, .. } = *session;
        self.net.carry(Effect::Opened { session, peer, role });
    }

    /// Drops inputs until `wanted` picks one.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(Input) -> Option<T>,
    ) -> T {
        let mut passed = Vec::new();
        let found = timeout(DEADLINE, async {
            while let Some(Delivery { input, .. }) = self.inbox.recv().await {
                passed.push(format!("{input:.60?}").chars().take(100).collect::<String>());
                if let Some(found) = wanted(input) {
                    return Some(found);
                }
            }
            None
        })
        .await;
        match found {
            Ok(Some(found)) => found,
            Ok(None) => panic!("the inbox ended before: {what}"),
            Err(_) => panic!("waited in vain for: {what}; saw {passed:#?}"),
        }
    }

    pub(crate) async fn connected(&mut self) -> Open {
        self.until("a connection", |input| match input {
            Input::Connected { session, peer, role, binding, .. } => {
                Some(Open { session, peer, role, binding })
            }
            _ => None,
        })
        .await
    }

    pub(crate) async fn frame(&mut self, from: SessionId) -> Message {
        self.until("a frame", |input| match input {
            Input::Frame { session, message } if session == from => Some(message),
            _ => None,
        })
        .await
    }

    pub(crate) async fn disconnected(&mut self, from: SessionId) -> String {
        self.until("the end of a session", |input| match input {
            Input::Disconnected { session, reason } if session == from => Some(reason),
            _ => None,
        })
        .await
    }

    pub(crate) async fn dial_failed(&mut self, to: NodeId) -> String {
        self.until("a dial that fails", |input| match input {
            Input::DialFailed { peer, reason } if peer == to => Some(reason),
            Input::Connected { .. } => panic!("the dial reached somebody"),
            _ => None,
        })
        .await
    }
}

/// What `Connected` said.
#[derive(Debug, Clone)]
pub(crate) struct Open {
    pub(crate) session: SessionId,
    pub(crate) peer: NodeId,
    pub(crate) role: Role,
    pub(crate) binding: Vec<u8>,
}

/// Connects two nodes and gives the session at each.
pub(crate) async fn connect(dialer: &mut Node, listener: &mut Node) -> (Open, Open) {
    dialer.dial(listener);
    let at_dialer = dialer.connected().await;
    // The listener hears of a session with its first bytes.
    dialer.send(at_dialer.session, &Message::Again(0));
    let at_listener = listener.connected().await;
    assert_eq!(listener.frame(at_listener.session).await, Message::Again(0));
    (at_dialer, at_listener)
}

/// A message of about `len` bytes, at most 64 KiB.
pub(crate) fn bulky(len: usize) -> Message {
    Message::Payloads(Payloads {
        give: vec![(EventId([1; 32]), vec![7; len])],
        ..Payloads::default()
    })
}

/// A bare endpoint on loopback.
pub(crate) async fn bare(seed: u8, alpn: &[u8]) -> Endpoint {
    Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&[seed; 32]))
        .alpns(vec![alpn.to_vec()])
        .relay_mode(RelayMode::Disabled)
        .portmapper_config(PortmapperConfig::Disabled)
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .expect("an address")
        .bind()
        .await
        .expect("a free port")
}

/// Where a bare endpoint is.
pub(crate) fn place_of(endpoint: &Endpoint) -> (NodeId, Addresses) {
    let addresses = Addresses { direct: endpoint.bound_sockets(), relays: Vec::new() };
    (NodeId(*endpoint.id().as_bytes()), addresses)
}

/// Dials a node from a bare endpoint.
pub(crate) async fn dial_node(endpoint: &Endpoint, node: &Node, alpn: &[u8]) -> Connection {
    let id = iroh::EndpointId::from_bytes(node.net.node_id().as_bytes()).expect("a key");
    let addr = node
        .net
        .addresses()
        .direct
        .into_iter()
        .fold(EndpointAddr::new(id), |addr, to| addr.with_ip_addr(to));
    timeout(DEADLINE, endpoint.connect(addr, alpn)).await.expect("in time").expect("reached")
}

/// A stream to a node from a bare endpoint, with its first bytes.
pub(crate) async fn stream_to(
    endpoint: &Endpoint,
    node: &Node,
    first: &[u8],
) -> (Connection, iroh::endpoint::SendStream, iroh::endpoint::RecvStream) {
    let connection = dial_node(endpoint, node, SYNC_ALPN).await;
    let (mut send, recv) = connection.open_bi().await.expect("a stream");
    send.write_all(first).await.expect("written");
    (connection, send, recv)
}
