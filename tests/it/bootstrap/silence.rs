//! Storage nodes that don't answer.

use std::time::{Duration, Instant};

use mosaik_dht::ChainEvent;
use mosaik_lab::dht::{
    NODES,
    stub::{Behaviour, EqualSeq, Requests},
};

use super::Dht;

/// A farewell takes at most 3 s; a busy machine is given ten times that.
const LEAVE_MAX: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_among_silent_nodes_says_so_and_leaves() {
    let silent = Behaviour { silent: true, ..Behaviour::new(EqualSeq::Overwrites) };
    let dht = Dht::start("silent", vec![silent; NODES]).await;
    let mut node = dht.node(1);
    let summary = node.event("a state", |event| match event {
        ChainEvent::State(summary) => Some(summary),
        ChainEvent::Found(found) => panic!("nobody is there: {found:?}"),
        ChainEvent::Nodes(nodes) => panic!("nobody answers: {nodes:?}"),
    });
    let summary = summary.await;
    assert!(!summary.answering);
    assert_eq!((summary.unknown, summary.held), (16, None));
    let started = Instant::now();
    node.handle.leave().await;
    assert!(started.elapsed() < LEAVE_MAX, "{:?}", started.elapsed());
    assert_eq!(dht.stub.requests(), Requests::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_whose_storage_nodes_fell_silent_keeps_its_slot_and_leaves_in_time() {
    let dht = Dht::start("falls silent", Behaviour::mix(super::EXPIRES_AFTER)).await;
    let mut node = dht.node(1);
    let held = node.holds().await;
    dht.stub.silence();
    node.handle.look();
    let summary = node.event("a read without an answer", |event| match event {
        ChainEvent::State(summary) if !summary.answering && summary.next_look_ms > 0 => {
            Some(summary)
        }
        ChainEvent::State(_) | ChainEvent::Found(_) | ChainEvent::Nodes(_) => None,
    });
    let summary = summary.await;
    assert_eq!(summary.held, Some(held.slot));
    let started = Instant::now();
    node.handle.leave().await;
    assert!(started.elapsed() < LEAVE_MAX, "{:?}", started.elapsed());
    assert_eq!(dht.writes().len(), 1);
}
