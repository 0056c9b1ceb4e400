//! Storage nodes that hold what others have replaced.

use std::collections::{BTreeMap, BTreeSet};

use mosaik_core::key::SLOTS;
use mosaik_dht::{ChainEvent, SlotState, SlotStatus};
use mosaik_lab::{
    dht::{NODES, stub::Item},
    wait,
};

use super::{Dht, STEP, WRITES_MAX, node_id, now_us, on_every_dht};

const HOUR_US: i64 = 3_600_000_000;

impl Dht {
    /// Pins an item in the last nodes, so many.
    fn pin(&self, nodes: usize, slot: u8, item: &Item) {
        for node in NODES - nodes..NODES {
            self.stub.pin(node, &self.keys.public_key(slot), item);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_old_and_a_new_value_both_are_dialed_and_the_new_one_decides() {
    on_every_dht(|dht| async move {
        let (old, new) =
            (dht.record(8, 3, now_us() - HOUR_US, 600), dht.record(9, 3, now_us(), 60));
        dht.place(3, &new);
        dht.pin(6, 3, &old);
        let mut reader = dht.reader(1);
        let mut missing = BTreeSet::from([node_id(8), node_id(9)]);
        let found_both = |event| {
            if let ChainEvent::Found(found) = event {
                missing.remove(&found.node);
            }
            missing.is_empty().then_some(())
        };
        reader.event("the holders by both values", found_both).await;
        let decides = |slot: &SlotStatus| {
            slot.slot == 3
                && (slot.state, slot.holder) == (SlotState::Live, Some(node_id(9)))
                && slot.seq == Some(new.seq)
        };
        reader.slot_that("shown the newer holder", decides).await;
    })
    .await;
}

/// Most storage nodes are stuck with an old value, and refuse what is to replace the newest. That
/// the put fails decides nothing: it is out there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_is_taken_though_most_storage_nodes_keep_an_old_value() {
    on_every_dht(|dht| async move {
        for slot in 0..SLOTS as u8 {
            dht.place(slot, &dht.signed(slot, now_us() - HOUR_US, b"garbage"));
            dht.pin(12, slot, &dht.signed(slot, now_us() - 2 * HOUR_US, b"older garbage"));
        }
        let node = dht.node(1);
        let claimed = node.holds().await;
        let found = dht.reader(2).find(1).await;
        assert_eq!(found.slot, claimed.slot, "{}", dht.name);
        let writes = dht.writes();
        // One, unless the machine is so busy that all who would have kept it were too slow.
        assert!(writes.len() <= WRITES_MAX, "{}: {writes:#?}", dht.name);
        dht.check_seqs();
    })
    .await;
}

/// All storage nodes say yes to a claim, and none keeps it. A moment later they would: it is put once
/// more as soon as a read has shown that it isn't there, the same value at the same seq.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_was_acknowledged_and_not_kept_is_put_again_as_it_is() {
    on_every_dht(|dht| async move {
        let before_us = now_us() - HOUR_US;
        let old = |slot| dht.signed(slot, before_us, b"garbage");
        for slot in 0..SLOTS as u8 {
            dht.pin(NODES, slot, &old(slot));
        }
        let node = dht.node(1);
        let claimed = node.holds().await;
        assert_eq!(dht.holders(), BTreeMap::new(), "{}", dht.name);
        // They give way now.
        for slot in 0..SLOTS as u8 {
            dht.place(slot, &old(slot));
        }
        let stands = || async {
            let newest = dht.newest(claimed.slot).map(|value| value.seq);
            (newest == claimed.seq).then_some(()).ok_or_else(|| format!("{newest:?}"))
        };
        let what = format!("{}: the claim to stand there", dht.name);
        wait::until(&what, STEP, stands).await.expect("it does");
        assert_eq!(dht.writes().len(), 1, "{}: {:#?}", dht.name, dht.writes());
        dht.check_seqs();
    })
    .await;
}
