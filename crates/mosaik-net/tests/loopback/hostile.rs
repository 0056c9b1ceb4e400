//! Peers that break the rules, or are no nodes at all.

use std::time::Duration;

use iroh::endpoint::{Connection, ConnectionError};
use mosaik_net::{NetConfig, QUEUE_LEN_MAX, SYNC_ALPN};
use mosaik_proto::{
    carrier::{Effect, Input},
    message::{ByeCode, FRAME_MAX, FrameError, Greet, Message},
};
use tokio::time::{Instant, timeout};

use crate::node::{DEADLINE, INBOX, Node, bare, bulky, config, dial_node, place_of, stream_to};

/// The code and text with which a connection was closed from the other end.
async fn closed(connection: &Connection) -> (u64, String) {
    match timeout(DEADLINE, connection.closed()).await.expect("closed in time") {
        ConnectionError::ApplicationClosed(close) => {
            (close.error_code.into(), String::from_utf8_lossy(&close.reason).into_owned())
        }
        other => panic!("{other}"),
    }
}

async fn bad_frame(node: &mut Node) -> FrameError {
    node.until("a bad frame", |input| match input {
        Input::BadFrame { error, .. } => Some(error),
        Input::Frame { message, .. } => panic!("a good frame: {message:?}"),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_echo_server_gets_a_session_and_its_reason() {
    let mut ada = Node::start(1).await;
    let echo = bare(2, SYNC_ALPN).await;
    let (id, addresses) = place_of(&echo);
    let server = tokio::spawn(async move {
        let connection = echo.accept().await.expect("a dial").await.expect("a handshake");
        let (mut send, mut recv) = connection.accept_bi().await.expect("a stream");
        let _ = tokio::io::copy(&mut recv, &mut send).await;
        closed(&connection).await
    });
    ada.dial_at(id, addresses);
    let open = ada.connected().await;
    let greet = Message::Greet(Greet { app: "me".into(), versions: (1, 1), proof: [3; 32] });
    ada.send(open.session, &greet);
    assert_eq!(ada.frame(open.session).await, greet);
    ada.close(open.session, ByeCode::OtherNetwork, "the proof does not hold");
    ada.disconnected(open.session).await;
    let seen = timeout(DEADLINE, server).await.expect("in time").expect("no panic");
    assert_eq!(seen, (2, "the proof does not hold".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversize_length_is_told_and_the_verdict_reaches_the_peer() {
    let (mut ada, peer) = (Node::start(1).await, bare(2, SYNC_ALPN).await);
    let (connection, _send, mut recv) = stream_to(&peer, &ada, &[0xff; 100]).await;
    let open = ada.connected().await;
    assert_eq!(bad_frame(&mut ada).await, FrameError::Length(u32::MAX as usize));
    ada.close(open.session, ByeCode::Violation, "a frame of 4294967295 bytes");
    let bye = recv.read_to_end(1000).await.expect("a last word");
    assert_eq!(Message::decode(&bye[4..], &hasher()).expect("a frame").kind(), 14);
    assert_eq!(closed(&connection).await, (4, "a frame of 4294967295 bytes".to_owned()));
    assert!(ada.disconnected(open.session).await.starts_with("closed here: protocol violation"));
    assert_eq!(ada.net.counters().frames_bad.get(), 1);
}

fn hasher() -> mosaik_core::event::Hasher {
    mosaik_core::event::Hasher::new(&config(0).keys.fingerprint)
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_told_and_nothing_after_it_is_read() {
    let (mut ada, peer) = (Node::start(1).await, bare(2, SYNC_ALPN).await);
    let garbage = [&[0, 0, 0, 5, 3, 1, 2, 3, 4][..], &Message::Again(1).encode()].concat();
    let (connection, ..) = stream_to(&peer, &ada, &garbage).await;
    ada.connected().await;
    assert!(matches!(bad_frame(&mut ada).await, FrameError::Body { kind: 3, .. }));
    // Where the replica says nothing, the carrier does.
    assert_eq!(closed(&connection).await.0, 4);
    let reason = ada
        .until("the end", |input| match input {
            Input::Frame { message, .. } => panic!("read on: {message:?}"),
            Input::Disconnected { reason, .. } => Some(reason),
            _ => None,
        })
        .await;
    assert!(reason.contains("protocol violation"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_within_a_frame_ends_the_session() {
    let (mut ada, peer) = (Node::start(1).await, bare(2, SYNC_ALPN).await);
    let (connection, mut send, _recv) = stream_to(&peer, &ada, &[0, 0, 0, 9, 1]).await;
    let open = ada.connected().await;
    send.finish().expect("open until now");
    assert_eq!(ada.disconnected(open.session).await, "lost: it stopped within a frame");
    assert_eq!(closed(&connection).await.0, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_stream_ends_the_session() {
    let (mut ada, peer) = (Node::start(1).await, bare(2, SYNC_ALPN).await);
    let again = Message::Again(1).encode();
    let (connection, mut send, _recv) = stream_to(&peer, &ada, &again).await;
    let open = ada.connected().await;
    assert_eq!(ada.frame(open.session).await, Message::Again(1));
    send.reset(7u32.into()).expect("open until now");
    assert!(ada.disconnected(open.session).await.starts_with("lost: "));
    assert_eq!(closed(&connection).await.0, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_connection_is_a_plain_close() {
    let (mut ada, peer) = (Node::start(1).await, bare(2, SYNC_ALPN).await);
    let again = Message::Again(1).encode();
    let streams = stream_to(&peer, &ada, &again).await;
    let open = ada.connected().await;
    assert_eq!(ada.frame(open.session).await, Message::Again(1));
    drop(streams);
    assert_eq!(ada.disconnected(open.session).await, "closed by the peer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_stream_is_closed_after_a_while() {
    let (ada, peer) = (Node::start(1).await, bare(2, SYNC_ALPN).await);
    let connection = dial_node(&peer, &ada, SYNC_ALPN).await;
    assert_eq!(closed(&connection).await, (7, "no stream was opened in time".to_owned()));
    assert_eq!(ada.net.counters().refused.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_comes_slowly_is_told_as_progress() {
    let (mut ada, peer) = (Node::start(1).await, bare(2, SYNC_ALPN).await);
    let frame = bulky(1000).encode();
    let (_connection, mut send, _recv) = stream_to(&peer, &ada, &frame[..10]).await;
    let open = ada.connected().await;
    ada.until("progress", |input| match input {
        Input::Progress { session } if session == open.session => Some(()),
        _ => None,
    })
    .await;
    send.write_all(&frame[10..]).await.expect("written");
    assert_eq!(ada.frame(open.session).await, bulky(1000));
}

/// A node that is busy must not take in what it has no room for.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_floods_a_busy_node_is_stopped_by_flow_control() {
    let mut ada = Node::start_with(config(1), 4).await;
    let peer = bare(2, SYNC_ALPN).await;
    let frame = bulky(60_000).encode();
    let (_connection, mut send, _recv) = stream_to(&peer, &ada, &frame).await;
    // Nobody reads ada's inbox. Each write is cancel safe, so that the place is known.
    let (mut taken, mut at) = (frame.len(), 0);
    while let Ok(written) = timeout(Duration::from_secs(1), send.write(&frame[at..])).await {
        let len = written.expect("the stream lives");
        (taken, at) = (taken + len, (at + len) % frame.len());
        assert!(taken < 4 << 20, "{taken} bytes were taken in");
    }
    // As soon as somebody does, it goes on where it stood.
    let flood = tokio::spawn(async move {
        while let Ok(len) = send.write(&frame[at..]).await {
            at = (at + len) % frame.len();
        }
    });
    for _ in 0..taken / 60_000 + 20 {
        let frame = |input| match input {
            Input::Frame { message, .. } => Some(message),
            Input::BadFrame { error, .. } => panic!("{error}"),
            _ => None,
        };
        assert_eq!(ada.until("frames", frame).await, bulky(60_000));
    }
    flood.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_reads_nothing_is_hung_up_on_when_too_much_is_queued() {
    let (mut ada, peer) = (Node::start(1).await, bare(2, SYNC_ALPN).await);
    let again = Message::Again(1).encode();
    let (connection, _send, _recv) = stream_to(&peer, &ada, &again).await;
    let open = ada.connected().await;
    let frame = bulky(65_000).encode();
    // More than the queue and all windows take together, without ever waiting.
    let start = Instant::now();
    for _ in 0..(QUEUE_LEN_MAX + (8 << 20)) / frame.len() {
        ada.net.carry(Effect::Send {
            session: open.session,
            frame: frame.clone(),
            is_asked: false,
        });
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let reason = ada.disconnected(open.session).await;
    assert_eq!(reason, format!("closed here: fell behind by {QUEUE_LEN_MAX} bytes"));
    assert_eq!(closed(&connection).await.0, 7);
    assert!(ada.net.counters().frames_dropped.get() > 0);
    const { assert!(FRAME_MAX < QUEUE_LEN_MAX) };
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_does_not_wait_long_for_a_peer_that_reads_nothing() {
    let (mut ada, peer) = (Node::start(1).await, bare(2, SYNC_ALPN).await);
    let again = Message::Again(1).encode();
    let (connection, _send, _recv) = stream_to(&peer, &ada, &again).await;
    let open = ada.connected().await;
    for _ in 0..50 {
        ada.send(open.session, &bulky(65_000));
    }
    let start = Instant::now();
    ada.close(open.session, ByeCode::Leaving, "good night");
    assert_eq!(ada.disconnected(open.session).await, "closed here: leaving (good night)");
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    assert_eq!(closed(&connection).await, (1, "good night".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_dials_in_again_and_again_is_turned_away_and_others_are_not() {
    let ada = Node::start_with(NetConfig { gossip: true, ..config(1) }, INBOX).await;
    let (peer, other) = (bare(2, iroh_gossip::ALPN).await, bare(3, iroh_gossip::ALPN).await);
    let start = Instant::now();
    let mut taken = 0;
    // Those that are taken are told that gossip needs a session.
    let refusal = loop {
        match closed(&dial_node(&peer, &ada, iroh_gossip::ALPN).await).await {
            (4, _) => taken += 1,
            refusal => break refusal,
        }
    };
    assert_eq!(refusal, (8, "too many connections within a minute, try later".to_owned()));
    assert!((60..=61 + start.elapsed().as_secs()).contains(&taken), "{taken}");
    assert_eq!(ada.net.counters().limited_connections.get(), 1);
    assert_eq!(closed(&dial_node(&other, &ada, iroh_gossip::ALPN).await).await.0, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_has_sixteen_sessions_at_once() {
    let (mut ada, peer) = (Node::start(1).await, bare(2, SYNC_ALPN).await);
    let again = Message::Again(1).encode();
    let mut open = Vec::new();
    for _ in 0..16 {
        let streams = stream_to(&peer, &ada, &again).await;
        open.push((ada.connected().await, streams));
    }
    let refused = closed(&dial_node(&peer, &ada, SYNC_ALPN).await).await;
    assert_eq!(refused, (8, "too many connections at once, try later".to_owned()));
    let (session, streams) = open.remove(3);
    drop(streams);
    ada.disconnected(session.session).await;
    let _streams = stream_to(&peer, &ada, &again).await;
    ada.connected().await;
}

/// Sends `count` frames beside another peer's single one: when each of the two had told all.
async fn flood(message: &Message, count: usize) -> (Node, Duration, Duration) {
    let mut ada = Node::start(1).await;
    let (peer, other) = (bare(2, SYNC_ALPN).await, bare(3, SYNC_ALPN).await);
    let (_connection, mut send, _recv) = stream_to(&peer, &ada, &message.encode()).await;
    let session = ada.connected().await.session;
    assert_eq!(&ada.frame(session).await, message);
    let frames = message.encode().repeat(count - 1);
    let start = Instant::now();
    let sending = tokio::spawn(async move {
        send.write_all(&frames).await.expect("it is taken");
        send
    });
    let _others = stream_to(&other, &ada, &Message::Again(7).encode()).await;
    let (mut came, mut others_at) = (1, None);
    while came < count || others_at.is_none() {
        let frame = |input| match input {
            Input::Frame { session, .. } => Some(session),
            _ => None,
        };
        if ada.until("a frame", frame).await == session {
            came += 1;
        } else {
            others_at = Some(start.elapsed());
        }
    }
    sending.await.expect("no panic");
    (ada, others_at.expect("it came"), start.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_compares_all_the_time_is_slowed_down_and_others_are_not() {
    let (ada, other, all) = flood(&Message::Again(1), 110).await;
    // 100 at once, and five a second.
    assert!(all >= Duration::from_millis(1500), "{all:?}");
    assert!(other < all, "{other:?} of {all:?}");
    assert!(ada.net.counters().limited_comparisons.get() >= 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_sends_frames_all_the_time_is_slowed_down_and_others_are_not() {
    let (ada, other, all) = flood(&Message::Ping(1), 30_000).await;
    // 20,000 at once, and 10,000 a second.
    assert!(all >= Duration::from_millis(800), "{all:?}");
    assert!(other < all, "{other:?} of {all:?}");
    assert!(ada.net.counters().limited_frames.get() > 0);
}
