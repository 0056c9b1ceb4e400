//! More connections than a node takes.

use iroh::{EndpointAddr, EndpointId};
use mosaik_net::{NetConfig, SYNC_ALPN};
use mosaik_proto::{
    carrier::{Input, Role},
    message::Message,
};
use tokio::time::timeout;

use crate::node::{DEADLINE, INBOX, Node, bare, config, stream_to};

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_refused_before_its_handshake_and_counted() {
    let mut ada = Node::start_with(NetConfig { connections_max: 2, ..config(1) }, INBOX).await;
    let again = Message::Again(1).encode();
    let (first, second) = (bare(2, SYNC_ALPN).await, bare(3, SYNC_ALPN).await);
    let held = stream_to(&first, &ada, &again).await;
    let at_ada = ada.connected().await;
    let _held = stream_to(&second, &ada, &again).await;
    ada.connected().await;

    let third = bare(4, SYNC_ALPN).await;
    let id = EndpointId::from_bytes(ada.net.node_id().as_bytes()).expect("a key");
    let place = ada.net.addresses().direct.into_iter();
    let place = place.fold(EndpointAddr::new(id), EndpointAddr::with_ip_addr);
    let dialed = timeout(DEADLINE, third.connect(place, SYNC_ALPN)).await.expect("in time");
    let refused = format!("{:#}", dialed.expect_err("there are two already"));
    assert!(refused.contains("refused to accept a new connection"), "{refused}");
    assert_eq!(ada.net.counters().refused.get(), 1);

    let mut ben = Node::start(5).await;
    ben.dial(&ada);
    let reason = ben.dial_failed(ada.net.node_id()).await;
    assert_eq!(reason, "refused: it takes no more connections");
    assert_eq!(ada.net.counters().refused.get(), 2);

    // Those that it opens itself don't count.
    ada.dial(&ben);
    assert_eq!(ada.connected().await.role, Role::Dialer);

    drop(held);
    ada.disconnected(at_ada.session).await;
    // Its place is free a moment after that was told.
    let free = async { while !has_dialed(&mut ben, &ada).await {} };
    timeout(DEADLINE, free).await.expect("there is a place");
}

/// Whether a dial led to a connection.
async fn has_dialed(dialer: &mut Node, to: &Node) -> bool {
    dialer.dial(to);
    let dialed = |input| match input {
        Input::Connected { role: Role::Dialer, .. } => Some(true),
        Input::DialFailed { .. } => Some(false),
        _ => None,
    };
    dialer.until("an end of the dial", dialed).await
}
