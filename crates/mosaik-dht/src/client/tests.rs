use std::{
    future::Future,
    net::UdpSocket,
    time::{Duration, Instant},
};

use mainline::Testnet;
use mosaik_core::{id::AuthorId, key::Network};

use super::*;
use crate::{chain::SlotState, record};

const DEADLINE: Duration = Duration::from_secs(20);

fn public() -> NetworkKeys {
    Network::Public("mosaik-node-test-vector-1".to_owned()).keys()
}

fn secret() -> NetworkKeys {
    Network::Secret { secret: [3; 32], creator: AuthorId([0; 32]) }.keys()
}

fn key(node: u8) -> SigningKey {
    SigningKey::from_bytes(&[node; 32])
}

fn node_id(node: u8) -> NodeId {
    NodeId(key(node).verifying_key().to_bytes())
}

fn config(net: &Testnet, keys: NetworkKeys, node: u8) -> ChainConfig {
    ChainConfig {
        dht_bootstrap: net.bootstrap.clone(),
        reach: Reach::Lab,
        ..ChainConfig::new(keys, key(node))
    }
}

async fn testnet(nodes: usize) -> Testnet {
    let built = tokio::task::spawn_blocking(move || Testnet::builder(nodes).build()).await;
    built.expect("no panic").expect("a local DHT")
}

/// A client with an address to publish.
fn spawn(net: &Testnet, keys: NetworkKeys, node: u8) -> (ChainHandle, mpsc::Receiver<ChainEvent>) {
    let (handle, events) = ChainClient::spawn(config(net, keys, node));
    handle.set_addresses(vec![], vec![SocketAddr::from(([127, 0, 0, 1], 4000 + u16::from(node)))]);
    (handle, events)
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {DEADLINE:?}"),
    }
}

async fn find(events: &mut mpsc::Receiver<ChainEvent>, node: u8) -> Candidate {
    within("found", async {
        loop {
            match events.recv().await.expect("the task runs") {
                ChainEvent::Found(candidate) if candidate.node == node_id(node) => {
                    return candidate;
                }
                ChainEvent::Found(_) | ChainEvent::State(_) | ChainEvent::Nodes(_) => {}
            }
        }
    })
    .await
}

/// Waits until `slots` say so; the slot that did.
async fn slot_that(handle: &ChainHandle, is: impl Fn(&SlotStatus) -> bool) -> SlotStatus {
    let mut slots = handle.watch_slots();
    within("a slot", async {
        loop {
            if let Some(slot) = slots.borrow_and_update().iter().find(|slot| is(slot)) {
                return slot.clone();
            }
            slots.changed().await.expect("the task runs");
        }
    })
    .await
}

fn is_mine(slot: &SlotStatus) -> bool {
    slot.state == SlotState::Mine
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claimed_slot_is_seen_by_a_fresh_reader_and_a_tombstone_after_leaving() {
    let net = testnet(20).await;
    let (holder, _events) = spawn(&net, public(), 1);
    let mine = slot_that(&holder, is_mine).await;
    assert_eq!(mine.holder, Some(node_id(1)));

    let (_reader, mut events) = ChainClient::spawn(config(&net, public(), 2));
    let candidate = find(&mut events, 1).await;
    assert_eq!(candidate.slot, mine.slot);
    assert_eq!(candidate.addresses, [SocketAddr::from(([127, 0, 0, 1], 4001))]);

    holder.leave().await;
    let (late, _events) = ChainClient::spawn(config(&net, public(), 3));
    // What was done is counted, also after the end of the task.
    let meters = holder.meters();
    assert!(meters.lookups() >= 16 && meters.puts() >= 2, "{meters:?}");
    assert!(meters.stored_at() > 0, "{meters:?}");
    assert_eq!(meters.states().values().sum::<usize>(), 16);
    let left =
        slot_that(&late, |slot| slot.slot == mine.slot && slot.state != SlotState::Unknown).await;
    assert_eq!(left.state, SlotState::Left);
    assert_eq!(left.issued_ms, left.expires_ms);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_start_together_find_each_other() {
    let net = testnet(20).await;
    let (a, mut a_events) = spawn(&net, public(), 1);
    let (b, mut b_events) = spawn(&net, public(), 2);
    tokio::join!(find(&mut a_events, 2), find(&mut b_events, 1));
    let (a, b) = tokio::join!(slot_that(&a, is_mine), slot_that(&b, is_mine));
    assert_ne!(a.slot, b.slot);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_network_is_found_by_its_members_alone() {
    let net = testnet(20).await;
    let (holder, _events) = spawn(&net, secret(), 1);
    let slot = slot_that(&holder, is_mine).await.slot;
    let (_member, mut events) = ChainClient::spawn(config(&net, secret(), 2));
    assert_eq!(find(&mut events, 1).await.slot, slot);

    // Whoever learns the slot's key from the DHT still reads nothing in it.
    let bootstrap = net.bootstrap.clone();
    let dht = tokio::task::spawn_blocking(move || build(&bootstrap, &[], None)).await;
    let dht = dht.expect("no panic").expect("a client");
    let keys = SlotKeys::new(&secret());
    let item = dht.get_mutable_most_recent(&keys.public_key(slot), None).await.expect("a value");
    let value = slot_value(&item);
    let record = record::parse(&keys, slot, &value).expect("a member reads it");
    assert_eq!(record.node, node_id(1));
    // Names with their length before them, as in DNS: three letters alone may stand in what is sealed.
    let needles = [&node_id(1).0[..], b"127.0.0.1", b"\x03_id", b"\x03_ip"];
    for needle in needles {
        assert!(!value.value.windows(needle.len()).any(|window| window == needle));
    }
    // The right slot key, but not the key that seals.
    let stranger = NetworkKeys { slot_record: [0; 32], ..secret() };
    assert!(record::parse(&SlotKeys::new(&stranger), slot, &value).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_addresses_again_are_not_written_again() {
    let net = testnet(5).await;
    let (holder, mut events) = spawn(&net, public(), 1);
    let before = slot_that(&holder, is_mine).await;
    assert_eq!(before.addresses, [SocketAddr::from(([127, 0, 0, 1], 4001))]);
    holder.set_addresses(vec![], before.addresses.clone());
    holder.look();
    within("the look", async {
        while !matches!(events.recv().await, Some(ChainEvent::State(state)) if state.held.is_some() && state.next_look_ms > 0) {}
    })
    .await;
    assert_eq!(slot_that(&holder, is_mine).await.seq, before.seq);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_keeps_its_slot() {
    let net = testnet(20).await;
    let (first, events) = spawn(&net, public(), 1);
    let before = slot_that(&first, is_mine).await;
    // Dropped without a farewell, as by SIGKILL.
    drop((first, events));
    let (second, _events) = spawn(&net, public(), 1);
    let newer = |slot: &SlotStatus| is_mine(slot) && slot.seq > before.seq;
    let after = slot_that(&second, newer).await;
    assert_eq!(after.slot, before.slot, "{:#?}", second.slots());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_storage_node_the_client_says_so_and_can_leave() {
    // A bound socket that never answers.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = silent.local_addr().expect("bound").to_string();
    let config = ChainConfig {
        dht_bootstrap: vec![address],
        reach: Reach::Lab,
        request_timeout: Some(Duration::from_millis(100)),
        ..ChainConfig::new(public(), key(1))
    };
    let (handle, mut events) = ChainClient::spawn(config);
    let event = within("a state", events.recv()).await.expect("the task runs");
    let ChainEvent::State(summary) = event else { panic!("nobody is there: {event:?}") };
    assert!(!summary.answering);
    assert_eq!((summary.unknown, summary.held), (16, None));
    within("leaving", handle.leave()).await;
    assert_eq!(within("the end", events.recv()).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_cannot_start_is_tried_again() {
    // `.invalid` never resolves (RFC 6761), with or without a network.
    let config = ChainConfig {
        dht_bootstrap: vec!["nowhere.invalid:6881".to_owned()],
        ..ChainConfig::new(public(), key(1))
    };
    let (handle, mut events) = ChainClient::spawn(config);
    let event = within("a state", events.recv()).await.expect("the task runs");
    assert!(matches!(event, ChainEvent::State(summary) if !summary.answering), "{event:?}");
    handle.set_peers(1);
    handle.dial_failed(node_id(2));
    within("leaving", handle.leave()).await;
}

/// The names resolve to nobody, or to somebody who is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_an_earlier_run_are_a_way_in_of_their_own() {
    let net = testnet(20).await;
    let (holder, mut events) = spawn(&net, public(), 1);
    slot_that(&holder, is_mine).await;
    let known_nodes = within("nodes that answer", async {
        loop {
            if let ChainEvent::Nodes(nodes) = events.recv().await.expect("the task runs") {
                return nodes;
            }
        }
    })
    .await;
    assert!((1..=NODES_MAX).contains(&known_nodes.len()), "{known_nodes:?}");
    for gone in ["nowhere.invalid:6881", "127.0.0.1:1"] {
        let config = ChainConfig {
            dht_bootstrap: vec![gone.to_owned()],
            known_nodes: known_nodes.clone(),
            ..config(&net, public(), 2)
        };
        let (_reader, mut events) = ChainClient::spawn(config);
        find(&mut events, 1).await;
    }
}

#[test]
fn bootstrap_nodes_without_an_ipv4_address_are_no_start() {
    assert!(resolve(&["[::1]:6881".to_owned()]).is_err());
    assert!(resolve(&["no port".to_owned()]).is_err());
    let mixed = ["no port".to_owned(), "127.0.0.1:6881".to_owned()];
    assert_eq!(resolve(&mixed).expect("one is enough").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_gives_its_first_value_long_before_its_end() {
    let net = testnet(20).await;
    let (holder, _events) = spawn(&net, public(), 1);
    slot_that(&holder, is_mine).await;
    let started = Instant::now();
    let (_reader, mut events) = ChainClient::spawn(config(&net, public(), 2));
    let mut found_ms = None;
    within("the end of the first read", async {
        loop {
            match events.recv().await.expect("the task runs") {
                ChainEvent::Found(_) => {
                    found_ms.get_or_insert(started.elapsed());
                }
                ChainEvent::State(summary) if summary.answering => break,
                ChainEvent::State(_) | ChainEvent::Nodes(_) => {}
            }
        }
    })
    .await;
    assert!(found_ms.expect("the holder") < started.elapsed());
}
