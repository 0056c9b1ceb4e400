//! Slots are taken, kept, left, and shared out among those who start together.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mosaik_core::{id::NodeId, key::SLOTS};
use mosaik_dht::{SlotState, SlotStatus};
use mosaik_lab::{
    dht::{NODES, stub::Behaviour},
    wait,
};

use super::{Client, Dht, STEP, WRITES_MAX, address, every_dht, node_id, on_every_dht};

/// Live leases with which a chain needs no more (FORMAT.md of mosaik-dht, section 6).
const ENOUGH: usize = 8;
/// How long ten nodes may take: ten times 8 s.
const TEN_STEP: Duration = Duration::from_secs(80);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_is_claimed_seen_kept_over_a_restart_and_left() {
    on_every_dht(|dht| async move {
        let first = dht.node(1);
        let claimed = first.holds().await;
        assert_eq!(claimed.holder, Some(node_id(1)));
        let found = dht.reader(2).find(1).await;
        assert_eq!((found.slot, found.addresses), (claimed.slot, vec![address(1)]));
        assert_eq!(dht.writes().len(), 1, "{}", dht.name);

        // Without a farewell, as by SIGKILL.
        drop(first);
        let second = dht.node(1);
        let renewed = |slot: &SlotStatus| slot.state == SlotState::Mine && slot.seq > claimed.seq;
        let kept = second.slot_that("renewing its slot", renewed).await;
        assert_eq!(kept.slot, claimed.slot, "{}", dht.name);
        assert_eq!(dht.holders(), BTreeMap::from([(claimed.slot, node_id(1))]), "{}", dht.name);

        second.handle.leave().await;
        let left = dht.reader(3);
        let left = left.slot_that("shown the tombstone", |slot| slot.state == SlotState::Left);
        assert_eq!(left.await.slot, claimed.slot, "{}", dht.name);
        let found = dht.reader(4).look().await;
        // A storage node that missed the tombstone still gives the lease, and every value is tried.
        let all_know = dht.values(claimed.slot) == 1;
        assert!(found.is_empty() || !all_know, "{}: {found:#?}", dht.name);

        let writes = dht.writes();
        assert!(writes.iter().all(|write| write.slot == claimed.slot), "{writes:#?}");
        assert_eq!(writes.len(), 3, "{}: {writes:#?}", dht.name);
        dht.check_seqs();
    })
    .await;
}

/// Which slot of an empty chain a node takes (FORMAT.md of mosaik-dht, section 6).
pub(super) fn preferred(node: u8) -> u8 {
    let figure = |slot: u8| {
        let hash = *blake3::hash(&[node_id(node).as_bytes(), &[slot][..]].concat()).as_bytes();
        u64::from_be_bytes(std::array::from_fn(|at| hash[at]))
    };
    (0..SLOTS as u8).min_by_key(|&slot| figure(slot)).expect("there are slots")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_start_together_and_want_the_same_slot_end_in_two() {
    let rival = (2..=u8::MAX).find(|&node| preferred(node) == preferred(1)).expect("one of 254");
    on_every_dht(move |dht| async move {
        let clients = [dht.node(1), dht.node(rival)];
        settled(&dht, &clients, 2, STEP).await;
        assert!(dht.holders().contains_key(&preferred(1)), "{}: {:?}", dht.name, dht.holders());
        check_writes(&dht);
    })
    .await;
}

/// Ten nodes that want six slots at first. One DHT after the other: so many readers keep two cores
/// busy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_nodes_that_start_together_share_the_slots_out() {
    let nodes = 21..=30;
    assert_eq!(nodes.clone().map(preferred).collect::<BTreeSet<_>>().len(), 6);
    for dht in every_dht().await {
        let clients: Vec<Client> = nodes.clone().map(|node| dht.node(node)).collect();
        settled(&dht, &clients, ENOUGH, TEN_STEP).await;
        check_writes(&dht);
    }
}

/// A storage node may forget a lease long before it ends. Its slot is free then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_storage_nodes_forgot_is_taken_anew() {
    let kind = Behaviour::expiring(Duration::from_secs(3));
    let dht = Dht::start("forgets soon", vec![kind; NODES]).await;
    let holder = dht.node(1);
    let slot = holder.holds().await.slot;
    drop(holder);
    let forgotten = || async {
        let holders = dht.holders();
        if holders.is_empty() { Ok(()) } else { Err(format!("{holders:?}")) }
    };
    wait::until("the lease to be forgotten", STEP, forgotten).await.expect("it is");
    let reader = dht.reader(2);
    reader
        .slot_that("shown the empty slot", |found| {
            found.slot == slot && found.state == SlotState::Empty
        })
        .await;
    dht.node(1).holds().await;
    dht.check_seqs();
}

/// Waits until the clients and the storage nodes agree on who holds what, and enough do.
async fn settled(dht: &Dht, clients: &[Client], least: usize, deadline: Duration) {
    let look = || async {
        let mut claimed = BTreeMap::<u8, NodeId>::new();
        for client in clients {
            for slot in client.handle.slots() {
                if slot.state == SlotState::Mine
                    && let Some(other) = claimed.insert(slot.slot, slot.holder.expect("mine"))
                {
                    return Err(format!("{other:?} and another hold slot {}", slot.slot));
                }
            }
        }
        let holders = dht.holders();
        let most = clients.iter().map(|client| client.own().len()).max();
        if holders == claimed && holders.len() >= least && most == Some(1) {
            Ok(())
        } else {
            Err(format!("{claimed:?} by the nodes, {holders:?} by the DHT"))
        }
    };
    let what = format!("{least} holders on the DHT {:?}", dht.name);
    wait::until(&what, deadline, look).await.expect("they settle");
}

fn check_writes(dht: &Dht) {
    dht.check_no_seq_twice();
    let mut writes = BTreeMap::<NodeId, usize>::new();
    for write in dht.writes() {
        *writes.entry(write.node).or_default() += 1;
    }
    let most = writes.values().max().copied().unwrap_or(0);
    assert!(most <= WRITES_MAX, "{}: {writes:?}", dht.name);
}
