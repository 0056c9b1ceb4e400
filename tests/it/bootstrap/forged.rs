//! Slots full of what nobody of the network wrote.

use std::time::Duration;

use mosaik_core::key::SLOTS;
use mosaik_dht::{SlotState, lease::Lease};
use mosaik_lab::wait;

use super::{Dht, STEP, address, node_id, now_s, now_us, on_every_dht};

const HOUR_US: i64 = 3_600_000_000;
/// The least time between two tries for a slot (FORMAT.md of mosaik-dht, section 6), less what a
/// put's way through a busy machine may take off the second's.
const APART: Duration = Duration::from_millis(900);

/// Fills all slots; what a reader is to make of each.
fn forge(dht: &Dht) -> Vec<SlotState> {
    let stranger = bs58::encode(node_id(9).as_bytes()).into_string();
    let ip = address(9).to_string();
    let seq = now_us() - HOUR_US;
    // A lease of that node, live and good, but in slot 0.
    let copied = dht.record(9, 0, seq, 60);
    let value = mosaik_dht::slot::SlotValue {
        seq,
        signature: copied.signature,
        value: copied.value.clone(),
    };
    let lease = mosaik_dht::record::parse(&dht.keys, 0, &value).expect("it is good there").lease;
    let unsigned = Lease { issued_s: now_s(), expires_s: now_s() + 3600, signature: [0; 64] };
    let forge = |slot: u8| match slot {
        0..4 => (dht.signed(slot, i64::MAX - i64::from(slot), b"garbage"), SlotState::Locked),
        4..6 => (dht.signed(slot, seq, &copied.value), SlotState::Foreign),
        6..8 => {
            let texts = [("_id", &*stranger), ("_ip", &ip), ("_l", &lease.to_text())];
            (dht.packed(slot, seq, &texts), SlotState::Forged)
        }
        8..10 => {
            let texts = [("_id", &*stranger), ("_ip", &ip)];
            (dht.packed(slot, seq, &texts), SlotState::Foreign)
        }
        10..12 => {
            let texts = [("_id", &*stranger), ("_ip", &ip), ("_l", &unsigned.to_text())];
            (dht.packed(slot, seq, &texts), SlotState::Forged)
        }
        _ => (dht.signed(slot, now_us() + HOUR_US, b"from tomorrow"), SlotState::Foreign),
    };
    let states = (0..SLOTS as u8).map(|slot| {
        let (item, state) = forge(slot);
        dht.place(slot, &item);
        state
    });
    states.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_forged_slots_lead_nowhere_and_cost_one_write() {
    on_every_dht(|dht| async move {
        let states = forge(&dht);
        let mut reader = dht.reader(1);
        let found = reader.look().await;
        assert!(found.is_empty(), "{}: {found:#?}", dht.name);
        let judged = || async {
            let slots = reader.handle.slots();
            let read: Vec<_> = slots.iter().map(|slot| slot.state).collect();
            if read == states { Ok(()) } else { Err(format!("{read:?}")) }
        };
        let what = format!("{states:?} on the DHT {:?}", dht.name);
        wait::until(&what, STEP, judged).await.expect("each slot is judged for what it is");

        let mut node = dht.node(2);
        let claimed = node.holds().await;
        assert!(claimed.slot >= 4, "{}: slot {} is locked", dht.name, claimed.slot);
        assert!(node.look().await.is_empty() && node.look().await.is_empty(), "{}", dht.name);
        assert_eq!(reader.find(2).await.slot, claimed.slot, "{}", dht.name);
        let writes = dht.writes();
        assert_eq!(writes.len(), 1, "{}: {writes:#?}", dht.name);
        dht.check_seqs();
    })
    .await;
}

/// Somebody writes garbage over each slot that is taken. That may cost the slot, but not the peace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_slots_are_written_over_tries_at_most_once_a_second() {
    on_every_dht(|dht| async move {
        let node = dht.node(1);
        let mut attacked = 0;
        let look = || {
            let writes = dht.writes();
            for write in &writes[attacked..] {
                dht.place(write.slot, &dht.signed(write.slot, write.seq + 1, b"garbage"));
            }
            attacked = writes.len();
            let enough = if attacked >= 4 { Ok(()) } else { Err(format!("{attacked} writes")) };
            async { enough }
        };
        let what = format!("four writes on the DHT {:?}", dht.name);
        wait::until(&what, STEP, look).await.expect("it tries again");
        drop(node);
        let times: Vec<_> = dht.writes().iter().map(|write| write.at).collect();
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= APART), "{}: {times:?}", dht.name);
        // Garbage may overtake a write on its way, so a seq may be too low; but none is used twice.
        dht.check_no_seq_twice();
    })
    .await;
}
