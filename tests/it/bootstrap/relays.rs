//! Pkarr relays: the way to the slots where UDP is blocked.

use std::collections::BTreeSet;

use mosaik_core::key::{Network, SLOTS};
use mosaik_core::reach::Reach;
use mosaik_dht::{ChainClient, ChainConfig, ChainEvent, SlotState, record, slot::SlotKeys};
use mosaik_lab::{
    dht::stub::relay::{RelayBehaviour, StubRelay},
    wait,
};

use super::{Client, Dht, STEP, address, key, node_id, on_every_dht, slot_value};

fn network() -> Network {
    Network::Public("mosaik-node-test-vector-1".to_owned())
}

async fn relay(behaviour: RelayBehaviour) -> StubRelay {
    StubRelay::start(behaviour).await.expect("loopback is there")
}

/// A client of these relays and of a DHT, if there is one; with an address if it is to need a slot.
fn client(relays: &[&StubRelay], dht: Option<&Dht>, node: u8, writes: bool) -> Client {
    let config = ChainConfig {
        dht: dht.is_some(),
        dht_bootstrap: dht.map_or_else(Vec::new, |dht| dht.stub.bootstrap().to_vec()),
        pkarr_relays: relays.iter().map(|relay| relay.url().to_owned()).collect(),
        reach: Reach::Lab,
        ..ChainConfig::new(network().keys(), key(node))
    };
    let (handle, events) = ChainClient::spawn(config);
    if writes {
        handle.set_addresses(vec![], vec![address(node)]);
    }
    Client { name: format!("node {node} at {} relays", relays.len()), handle, events }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_find_each_other_by_a_relay_alone_and_leave_again() {
    let relay = relay(RelayBehaviour::Honest).await;
    let node = client(&[&relay], None, 1, true);
    let claimed = node.holds().await;
    let found = client(&[&relay], None, 2, false).find(1).await;
    assert_eq!((found.slot, found.addresses), (claimed.slot, vec![address(1)]));
    // What stands there is what stands in the DHT.
    let keys = SlotKeys::new(&network().keys());
    let item = relay.stored(&keys.public_key(claimed.slot)).expect("it was put there");
    let record = record::parse(&keys, claimed.slot, &slot_value(&item)).expect("a good record");
    assert_eq!(record.node, node_id(1));

    node.handle.leave().await;
    let late = client(&[&relay], None, 3, false);
    let left = late.slot_that("shown the tombstone", |slot| slot.state == SlotState::Left).await;
    assert_eq!(left.slot, claimed.slot);
}

/// Both want the same slot of an empty chain: the relay refuses one of them, or a read shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_start_together_at_a_relay_end_in_two_slots() {
    let preferred = super::claims::preferred;
    let rival = (2..=u8::MAX).find(|&node| preferred(node) == preferred(1)).expect("one of 254");
    let relay = relay(RelayBehaviour::Honest).await;
    let clients = [1, rival].map(|node| client(&[&relay], None, node, true));
    let keys = SlotKeys::new(&network().keys());
    let settled = || async {
        let holder = |slot| {
            let item = relay.stored(&keys.public_key(slot))?;
            Some((slot, record::parse(&keys, slot, &slot_value(&item)).ok()?.node))
        };
        let there: BTreeSet<_> = (0..SLOTS as u8).filter_map(holder).collect();
        let own: Vec<_> = clients.iter().map(Client::own).collect();
        let is_so = |(own, node): (&Vec<u8>, u8)| matches!(own[..], [slot] if there.contains(&(slot, node_id(node))));
        let all = own.iter().zip([1, rival]).all(is_so);
        if all && there.len() == 2 { Ok(()) } else { Err(format!("{own:?}, {there:?}")) }
    };
    wait::until("both to hold a slot", STEP, settled).await.expect("they settle");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_that_lie_or_say_nothing_lead_nowhere_and_nothing_is_claimed_there() {
    for behaviour in RelayBehaviour::BAD {
        let relay = relay(behaviour).await;
        let mut node = client(&[&relay], None, 1, true);
        let looked = |event| match event {
            ChainEvent::State(summary) if summary.next_look_ms > 0 => Some(summary),
            ChainEvent::Found(found) => panic!("{behaviour:?}: {found:?}"),
            ChainEvent::State(_) | ChainEvent::Nodes(_) => None,
        };
        let summary = node.event("a read of all slots", looked).await;
        assert_eq!((summary.answering, summary.unknown), (false, 16), "{behaviour:?}");
        assert_eq!(summary.held, None, "{behaviour:?}");
        assert!((1..=16).contains(&relay.requests()), "{behaviour:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_that_lie_or_say_nothing_harm_nobody_beside_a_good_one() {
    let good = relay(RelayBehaviour::Honest).await;
    let mut relays = Vec::new();
    for behaviour in RelayBehaviour::BAD {
        relays.push(relay(behaviour).await);
    }
    let all: Vec<&StubRelay> = relays.iter().chain([&good]).collect();
    let claimed = client(&all, None, 1, true).holds().await;
    let found = client(&all, None, 2, false).find(1).await;
    assert_eq!(found.slot, claimed.slot);
}

/// The DHT is what most nodes have: with a relay besides, each finds those who have only the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_the_dht_and_a_relay_is_found_by_both() {
    on_every_dht(|dht| async move {
        let (good, silent) =
            (relay(RelayBehaviour::Honest).await, relay(RelayBehaviour::Silent).await);
        let node = client(&[&good, &silent], Some(&dht), 1, true);
        let claimed = node.holds().await;
        for found in [dht.reader(2).find(1).await, client(&[&good], None, 3, false).find(1).await] {
            assert_eq!(found.slot, claimed.slot, "{}", dht.name);
        }
        // Whoever has both sees whoever is at the relay alone.
        client(&[&good], None, 4, true).holds().await;
        client(&[&good, &silent], Some(&dht), 5, false).find(4).await;
        dht.check_seqs();
    })
    .await;
}
