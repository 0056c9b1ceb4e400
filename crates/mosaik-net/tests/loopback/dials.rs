//! Dials that fail, and ports that can't be had.

use std::net::UdpSocket;

use mosaik_core::{id::NodeId, reach::Reach};
use mosaik_net::{BindError, Net, NetConfig, RelaySetting, SYNC_ALPN};
use mosaik_proto::carrier::Addresses;
use tokio::{sync::mpsc, time::Instant};

use crate::node::{Node, bare, config, connect, place_of};

fn at(port: u16) -> Addresses {
    Addresses { direct: vec![([127, 0, 0, 1], port).into()], relays: Vec::new() }
}

fn id_of(seed: u8) -> NodeId {
    NodeId(*iroh::SecretKey::from_bytes(&[seed; 32]).public().as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_address_fails_after_five_seconds() {
    let mut ada = Node::start(1).await;
    // Bound and silent: nothing answers, not even the system.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let start = Instant::now();
    ada.dial_at(id_of(77), at(silent.local_addr().expect("an address").port()));
    assert_eq!(ada.dial_failed(id_of(77)).await, "no answer within 5 s");
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    assert_eq!(ada.net.counters().dials_failed.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_address_beside_a_good_one_does_no_harm() {
    let (mut ada, mut ben) = (Node::start(1).await, Node::start(2).await);
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let mut addresses = ben.net.addresses();
    addresses.direct.push(silent.local_addr().expect("an address"));
    ada.dial_at(ben.net.node_id(), addresses);
    assert_eq!(ada.connected().await.peer, ben.net.node_id());
    connect(&mut ada, &mut ben).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_another_protocol_is_named_as_such() {
    let mut ada = Node::start(1).await;
    let other = bare(2, b"another/1").await;
    let accepting = other.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            let _ = incoming.await;
        }
    });
    let (id, addresses) = place_of(&other);
    ada.dial_at(id, addresses);
    assert_eq!(ada.dial_failed(id).await, "it does not speak this protocol");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_at_the_address_is_named_as_such() {
    let (mut ada, ben) = (Node::start(1).await, Node::start(2).await);
    ada.dial_at(id_of(3), ben.net.addresses());
    assert_eq!(ada.dial_failed(id_of(3)).await, "another node answers at that address");
}

#[tokio::test(flavor = "multi_thread")]
async fn dials_that_can_not_succeed_fail_at_once_and_say_why() {
    let mut ada = Node::start(1).await;
    let (own, place) = (ada.net.node_id(), ada.net.addresses());
    ada.dial_at(own, place);
    assert_eq!(ada.dial_failed(own).await, "that is this node's own id");
    ada.dial_at(id_of(5), Addresses::default());
    assert_eq!(ada.dial_failed(id_of(5)).await, "no address of it is known");
    // About half of all strings are no curve points; this is one.
    let no_key = (0..=255)
        .map(|byte| NodeId([byte; 32]))
        .find(|id| iroh::EndpointId::from_bytes(id.as_bytes()).is_err());
    let no_key = no_key.expect("a string that is no key");
    ada.dial_at(no_key, at(1));
    assert_eq!(ada.dial_failed(no_key).await, "that is no node id");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_public_reach_loopback_is_neither_dialed_nor_told() {
    let public = NetConfig { reach: Reach::Public, ..config(1) };
    let mut ada = Node::start_with(public, 16).await;
    let ben = Node::start(2).await;
    assert!(ada.net.addresses().is_empty());
    ada.dial(&ben);
    let reason = ada.dial_failed(ben.net.node_id()).await;
    assert_eq!(reason, "none of its addresses may be dialed from here");
}

#[tokio::test(flavor = "multi_thread")]
async fn dials_over_the_queue_fail_at_once() {
    let mut ada = Node::start_with(config(1), 1024).await;
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = at(silent.local_addr().expect("an address").port());
    // 32 at once and 256 that wait.
    for _ in 0..=32 + 256 {
        ada.dial_at(id_of(77), address.clone());
    }
    let reason = ada.dial_failed(id_of(77)).await;
    assert!(reason.ends_with("other dials are waiting"), "{reason}");
    let start = Instant::now();
    ada.net.close().await;
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let config = NetConfig { listen: vec![address], ..config(1) };
    let error = Net::bind(config, mpsc::channel(1).0).await.err().expect("no port");
    assert!(matches!(error, BindError::PortInUse(at) if at == address), "{error:?}");
    let said = format!("UDP port {} of 127.0.0.1 is in use by another program", address.port());
    assert_eq!(error.to_string(), said);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_another_machine_is_named() {
    let address = "203.0.113.7:4242".parse().expect("an address");
    let config = NetConfig { listen: vec![address], ..config(1) };
    let error = Net::bind(config, mpsc::channel(1).0).await.err().expect("not here");
    assert_eq!(error.to_string(), "no interface of this machine has the address 203.0.113.7");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_no_url_is_named() {
    let relays = RelaySetting::Custom(vec!["not a url".into()]);
    let config = NetConfig { relays, ..config(1) };
    let error = Net::bind(config, mpsc::channel(1).0).await.err().expect("no relay");
    assert_eq!(error.to_string(), "\"not a url\" is not the URL of a relay");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_listens_on_several_addresses() {
    let listen = ["127.0.0.1:0", "127.0.0.2:0", "[::1]:0"].map(|at| at.parse().expect("address"));
    let config = NetConfig { listen: listen.to_vec(), ..config(1) };
    let mut ada = Node::start_with(config, 64).await;
    let direct = ada.net.addresses().direct;
    assert_eq!(direct.len(), 3, "{direct:?}");
    for address in direct {
        let dialer = bare(8, SYNC_ALPN).await;
        if address.is_ipv6() {
            continue;
        }
        let id = iroh::EndpointId::from_bytes(ada.net.node_id().as_bytes()).expect("a key");
        let addr = iroh::EndpointAddr::new(id).with_ip_addr(address);
        let connection = dialer.connect(addr, SYNC_ALPN).await.expect("reached");
        let (mut send, _recv) = connection.open_bi().await.expect("a stream");
        send.write_all(&mosaik_proto::message::Message::Again(1).encode()).await.expect("written");
        ada.connected().await;
    }
}
