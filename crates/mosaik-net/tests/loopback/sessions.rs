//! Sessions between carriers that behave.

use mosaik_net::{NetConfig, RelaySetting, Via};
use mosaik_proto::{
    carrier::{Addresses, Input, Role},
    message::{Bye, ByeCode, Message},
};
use tokio::time::Instant;

use crate::node::{DEADLINE, INBOX, Node, bulky, config, connect};

#[tokio::test(flavor = "multi_thread")]
async fn frames_go_both_ways_and_both_ends_share_a_binding() {
    let (mut ada, mut ben) = (Node::start(1).await, Node::start(2).await);
    let (at_ada, at_ben) = connect(&mut ada, &mut ben).await;
    assert_eq!((at_ada.role, at_ben.role), (Role::Dialer, Role::Listener));
    assert_eq!((at_ada.peer, at_ben.peer), (ben.net.node_id(), ada.net.node_id()));
    assert_eq!(at_ada.binding, at_ben.binding);
    assert_eq!(at_ada.binding.len(), 32);
    assert_ne!(at_ada.binding, [0; 32]);

    let large = bulky(60_000);
    ada.send(at_ada.session, &large);
    assert_eq!(ben.frame(at_ben.session).await, large);
    for number in 1..=100 {
        ben.send(at_ben.session, &Message::Again(number));
    }
    for number in 1..=100 {
        assert_eq!(ada.frame(at_ada.session).await, Message::Again(number));
    }
    let mut left = 100 * Message::Again(1).encode().len() - 5;
    while left > 100 {
        let is_it = |input| match input {
            Input::Sent { session, bytes } if session == at_ben.session => Some(bytes),
            _ => None,
        };
        left = left.saturating_sub(ben.until("word of what was sent", is_it).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_connections_have_two_bindings_and_two_sessions() {
    let (mut ada, mut ben) = (Node::start(1).await, Node::start(2).await);
    let (first, first_at_ben) = connect(&mut ada, &mut ben).await;
    let (second, second_at_ben) = connect(&mut ada, &mut ben).await;
    assert_ne!(first.binding, second.binding);
    assert_ne!(first.session, second.session);
    ada.close(first.session, ByeCode::Duplicate, "");
    ben.disconnected(first_at_ben.session).await;
    ada.send(second.session, &Message::Again(9));
    assert_eq!(ben.frame(second_at_ben.session).await, Message::Again(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_comes_after_all_that_was_queued_and_is_readable_at_both_ends() {
    let (mut ada, mut ben) = (Node::start(1).await, Node::start(2).await);
    let (at_ada, at_ben) = connect(&mut ada, &mut ben).await;
    for number in 0..20 {
        ada.send(at_ada.session, &bulky(50_000 + number));
    }
    ada.close(at_ada.session, ByeCode::Blocked, "by ada");
    for number in 0..20 {
        assert_eq!(ben.frame(at_ben.session).await, bulky(50_000 + number));
    }
    let bye = Message::Bye(Bye::new(ByeCode::Blocked, "by ada"));
    assert_eq!(ben.frame(at_ben.session).await, bye);
    assert_eq!(ben.disconnected(at_ben.session).await, "closed by the peer: blocked (by ada)");
    assert_eq!(ada.disconnected(at_ada.session).await, "closed here: blocked (by ada)");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_may_close_at_once() {
    let (mut ada, mut ben) = (Node::start(1).await, Node::start(2).await);
    let (at_ada, at_ben) = connect(&mut ada, &mut ben).await;
    ada.close(at_ada.session, ByeCode::Done, "");
    ben.close(at_ben.session, ByeCode::Done, "");
    ada.disconnected(at_ada.session).await;
    ben.disconnected(at_ben.session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_session_follows_its_end() {
    let (mut ada, mut ben) = (Node::start(1).await, Node::start(2).await);
    let (first, at_ben) = connect(&mut ada, &mut ben).await;
    for number in 0..50 {
        ada.send(first.session, &Message::Again(number));
        ben.send(at_ben.session, &Message::Again(number));
    }
    ben.close(at_ben.session, ByeCode::Done, "");
    ada.disconnected(first.session).await;
    ada.send(first.session, &Message::Again(1));
    ada.close(first.session, ByeCode::Done, "");
    let (second, _) = connect(&mut ada, &mut ben).await;
    ada.close(second.session, ByeCode::Done, "");
    let ended = second.session;
    ada.until("the second end", |input| match input {
        Input::Frame { session, .. }
        | Input::Sent { session, .. }
        | Input::Progress { session }
        | Input::BadFrame { session, .. }
            if session == first.session =>
        {
            panic!("an input of a session that is over")
        }
        Input::Disconnected { session, .. } => {
            assert_eq!(session, ended, "a second end of the first session");
            Some(())
        }
        _ => None,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_carrier_that_closes_says_that_it_leaves_and_frees_its_port() {
    let (mut ada, mut ben) = (Node::start(1).await, Node::start(2).await);
    let (_, at_ben) = connect(&mut ada, &mut ben).await;
    let listen = ada.net.addresses().direct;
    let start = Instant::now();
    ada.net.close().await;
    let took = start.elapsed();
    assert!(took.as_millis() < 2000, "{took:?}");
    let reason = ben.disconnected(at_ben.session).await;
    assert_eq!(reason, "closed by the peer: leaving (the node is stopping)");
    Node::start_with(NetConfig { listen, ..config(1) }, INBOX).await.net.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_carrier_closes_quickly_though_nobody_reads_its_inbox() {
    let (mut ada, mut ben) = (Node::start_with(config(1), 4).await, Node::start(2).await);
    let (_, at_ben) = connect(&mut ada, &mut ben).await;
    for number in 0..50 {
        ben.send(at_ben.session, &Message::Again(number));
    }
    let mut left = 50 * Message::Again(1).encode().len();
    while left > 0 {
        let sent = |input| match input {
            Input::Sent { bytes, .. } => Some(bytes),
            _ => None,
        };
        left = left.saturating_sub(ben.until("word of what was sent", sent).await);
    }
    let start = Instant::now();
    ada.net.close().await;
    assert!(start.elapsed().as_millis() < 2000, "{:?}", start.elapsed());
    let reason = ben.disconnected(at_ben.session).await;
    assert_eq!(reason, "closed by the peer: leaving (the node is stopping)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_hangs_is_lost_when_it_has_not_answered_for_a_while() {
    let mut ada = Node::start(1).await;
    let (place_sender, place) = tokio::sync::oneshot::channel();
    let (hang, hung) = std::sync::mpsc::channel::<()>();
    // All of the peer runs on this one thread, so that blocking it stops all of it.
    let peer = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let mut ben = Node::start(2).await;
            place_sender.send((ben.net.node_id(), ben.net.addresses())).expect("awaited");
            let at_ben = ben.connected().await;
            assert_eq!(ben.frame(at_ben.session).await, Message::Again(0));
            let _ = hung.recv();
        });
    });
    let (id, addresses) = place.await.expect("told");
    ada.dial_at(id, addresses);
    let at_ada = ada.connected().await;
    ada.send(at_ada.session, &Message::Again(0));
    let start = Instant::now();
    assert_eq!(ada.disconnected(at_ada.session).await, "lost: no answer");
    assert!(start.elapsed() < DEADLINE / 2, "{:?}", start.elapsed());
    drop(hang);
    peer.join().expect("the peer ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_on_loopback_is_one_of_the_local_network() {
    let (mut ada, mut ben) = (Node::start(1).await, Node::start(2).await);
    let (at_ada, _) = connect(&mut ada, &mut ben).await;
    let path = ada.net.path(at_ada.session).expect("a session");
    assert_eq!(path.via, Via::Lan);
    assert_eq!(path.remote, ben.net.addresses().direct[0].to_string());
    assert!(path.rtt_ms < 1000, "{path:?}");
    ada.close(at_ada.session, ByeCode::Done, "");
    assert_eq!(ada.net.path(at_ada.session), None);
}

/// A data directory that was copied to a second machine: two processes have one node key.
#[tokio::test(flavor = "multi_thread")]
async fn twins_with_one_key_both_talk_to_a_third_node() {
    let (mut one, mut two) = (Node::start(1).await, Node::start(1).await);
    let mut ben = Node::start(2).await;
    assert_eq!(one.net.node_id(), two.net.node_id());
    let (from_one, of_one) = connect(&mut one, &mut ben).await;
    let (from_two, of_two) = connect(&mut two, &mut ben).await;
    assert_eq!(of_one.peer, of_two.peer);
    assert_ne!(of_one.session, of_two.session);
    for round in 0..40 {
        one.send(from_one.session, &bulky(40_000 + round));
        two.send(from_two.session, &bulky(50_000 + round));
        ben.send(of_one.session, &bulky(10_000 + round));
        ben.send(of_two.session, &bulky(20_000 + round));
        assert_eq!(one.frame(from_one.session).await, bulky(10_000 + round));
        assert_eq!(two.frame(from_two.session).await, bulky(20_000 + round));
        let (mut from_both, wanted) = (Vec::new(), [of_one.session, of_two.session]);
        while from_both.len() < 2 {
            let frame = |input| match input {
                Input::Frame { session, message } => Some((session, message)),
                Input::Disconnected { reason, .. } => panic!("{reason}"),
                _ => None,
            };
            from_both.push(ben.until("a frame of either", frame).await);
        }
        from_both.sort_by_key(|(session, _)| *session);
        assert_eq!(from_both[0], (wanted[0], bulky(40_000 + round)));
        assert_eq!(from_both[1], (wanted[1], bulky(50_000 + round)));
    }
    one.close(from_one.session, ByeCode::Done, "");
    ben.disconnected(of_one.session).await;
    two.send(from_two.session, &Message::Again(5));
    assert_eq!(ben.frame(of_two.session).await, Message::Again(5));
    // And the other way round: a node that dials a twin reaches the one that it addressed.
    let (_, at_one) = connect(&mut ben, &mut one).await;
    assert_eq!(at_one.peer, ben.net.node_id());
}

/// A relay of this process's own, and its URL.
async fn relay() -> (iroh_relay::server::Server, String) {
    let mut config = iroh_relay::server::ServerConfig::default();
    config.relay = Some(iroh_relay::server::RelayConfig::new(([127, 0, 0, 1], 0)));
    let server = iroh_relay::server::Server::spawn(config).await.expect("a relay");
    let url = format!("http://{}/", server.http_addr().expect("an address"));
    (server, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_reached_by_its_relay_alone() {
    let (_server, url) = relay().await;
    let relays = RelaySetting::Custom(vec![url.clone()]);
    let with = |seed| NetConfig { relays: relays.clone(), ..config(seed) };
    let mut ada = Node::start_with(with(1), INBOX).await;
    let mut ben = Node::start_with(with(2), INBOX).await;
    let by_relay = |input| match input {
        Input::OwnAddresses(addresses) if !addresses.relays.is_empty() => Some(addresses.relays),
        _ => None,
    };
    let relays = ben.until("a relay among its addresses", by_relay).await;
    assert_eq!(relays, [url]);
    ada.dial_at(ben.net.node_id(), Addresses { direct: Vec::new(), relays });
    let at_ada = ada.connected().await;
    ada.send(at_ada.session, &Message::Again(3));
    let at_ben = ben.connected().await;
    assert_eq!(ben.frame(at_ben.session).await, Message::Again(3));
    assert!(ada.net.path(at_ada.session).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn own_addresses_are_told_once_they_are_known() {
    let mut ada = Node::start(1).await;
    let own = ada.net.addresses();
    assert_eq!(own.direct.len(), 1);
    assert!(own.direct[0].ip().is_loopback() && own.direct[0].port() != 0);
    let told = ada
        .until("own addresses", |input| match input {
            Input::OwnAddresses(addresses) => Some(addresses),
            _ => None,
        })
        .await;
    assert_eq!(told, own);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_holds_for_all_sessions_together() {
    let rate = 100_000;
    let limited = NetConfig { rate_down: Some(rate), ..config(9) };
    let mut limited = Node::start_with(limited, INBOX).await;
    let (mut ada, mut ben) = (Node::start(1).await, Node::start(2).await);
    let (from_ada, _) = connect(&mut ada, &mut limited).await;
    let (from_ben, _) = connect(&mut ben, &mut limited).await;
    let start = Instant::now();
    for _ in 0..4 {
        ada.send(from_ada.session, &bulky(25_000));
        ben.send(from_ben.session, &bulky(25_000));
    }
    let (mut frames, mut progress) = (0, 0);
    while frames < 8 {
        let seen = |input| match input {
            Input::Frame { .. } => Some(true),
            Input::Progress { .. } => Some(false),
            _ => None,
        };
        if limited.until("eight frames", seen).await {
            frames += 1;
        } else {
            progress += 1;
        }
    }
    // 200,000 bytes, 25,000 of them at once.
    let took = start.elapsed().as_millis();
    assert!((1500..20_000).contains(&took), "{took} ms");
    assert!(progress > 0, "slow frames were not told");
    assert!(progress <= 2 * (2 + took / 500), "{progress} in {took} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_up_holds_for_all_sessions_together_and_a_farewell_does_not_wait_for_it() {
    let limited = NetConfig { rate_up: Some(100_000), ..config(9) };
    let mut limited = Node::start_with(limited, INBOX).await;
    let (mut ada, mut ben) = (Node::start(1).await, Node::start(2).await);
    let (_, to_ada) = connect(&mut ada, &mut limited).await;
    let (_, to_ben) = connect(&mut ben, &mut limited).await;
    let start = Instant::now();
    for _ in 0..4 {
        limited.send(to_ada.session, &bulky(25_000));
        limited.send(to_ben.session, &bulky(25_000));
    }
    let frame = |input| matches!(input, Input::Frame { .. }).then_some(());
    for peer in [&mut ada, &mut ben] {
        for _ in 0..4 {
            peer.until("a frame", frame).await;
        }
    }
    // 200,000 bytes, 25,000 of them at once.
    let took = start.elapsed().as_millis();
    assert!((1500..20_000).contains(&took), "{took} ms");
    for _ in 0..40 {
        limited.send(to_ada.session, &bulky(25_000));
    }
    let start = Instant::now();
    limited.close(to_ada.session, ByeCode::Leaving, "the node is stopping");
    let bye = |input| match input {
        Input::Frame { message: Message::Bye(bye), .. } => Some(bye.code),
        _ => None,
    };
    assert_eq!(ada.until("a goodbye", bye).await, ByeCode::Leaving);
    // A million bytes would take ten seconds at that rate.
    assert!(start.elapsed().as_secs() < 9, "{:?}", start.elapsed());
}
