//! What stands in the slots of a network, laid there or read from the storage nodes' own log.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use ed25519_dalek::SigningKey;
use mosaik_core::{id::NodeId, key::Network};
use mosaik_dht::{
    record::{self, Draft},
    slot::{SlotKeys, SlotValue},
};

use super::{numbers, unix_s};
use crate::dht::stub::{Item, Put, StubDht};

const LEASE_S: u64 = 3600;
/// A port that nobody has: below 1024, and no service's.
const DEAD_PORT: u16 = 1;

/// The slots of a network in a DHT.
pub(super) struct Slots {
    pub(super) stub: StubDht,
    keys: SlotKeys,
}

impl Slots {
    pub(super) fn new(stub: StubDht, network: &str) -> Self {
        let keys = Network::Public(network.to_owned()).keys();
        Self { stub, keys: SlotKeys::new(&keys) }
    }

    /// Lays live leases of nodes that aren't there into all slots in which nothing stands.
    pub(super) fn fill_free_with_dead(&self) -> Result<()> {
        for slot in numbers() {
            let key = self.keys.public_key(slot);
            if self.stub.stored(&key).iter().all(Option::is_none) {
                self.stub.place(&key, &item(&self.lease(slot, slot)?));
            }
        }
        Ok(())
    }

    /// Lays into the slots in turn: a copy of another slot's record, a good record at a seq near the
    /// ceiling, rubbish at a seq far in the future, and a record whose signature isn't the slot's.
    pub(super) fn fill_with_forged(&self) -> Result<()> {
        let stranger = self.lease(0, 200)?;
        for slot in numbers() {
            let own = self.lease(slot, 100 + slot)?;
            let forged = match slot % 4 {
                0 => SlotValue { value: self.lease((slot + 1) % 16, 200)?.value, ..own },
                1 => SlotValue { seq: i64::MAX - 1, ..own },
                2 => SlotValue { seq: (unix_s()? as i64 + 86_400) * 1_000_000, ..stranger.clone() },
                _ => SlotValue { signature: [7; 64], ..own },
            };
            self.stub.place(&self.keys.public_key(slot), &item(&forged));
        }
        Ok(())
    }

    /// Nodes with a lease that holds and has not ended, by the values with the highest seq.
    pub(super) fn holders(&self) -> Result<BTreeSet<NodeId>> {
        let now_s = unix_s()?;
        let live = numbers().filter_map(|slot| {
            let stored = self.stub.stored(&self.keys.public_key(slot));
            let top = stored.into_iter().flatten().max_by_key(|item| item.seq)?;
            let record = record::parse(&self.keys, slot, &value(top)).ok()?;
            record.lease.is_live(now_s).then_some(record.node)
        });
        Ok(live.collect())
    }

    /// How many slots each node has written so far, renewals and tombstones included.
    pub(super) fn writes(&self) -> BTreeMap<NodeId, usize> {
        let slots: BTreeMap<[u8; 32], u8> =
            numbers().map(|slot| (self.keys.public_key(slot), slot)).collect();
        let mut writes = BTreeMap::new();
        for put in distinct_writes(&self.stub.puts()) {
            let slot = slots.get(&put.key);
            let record = slot
                .and_then(|slot| record::parse(&self.keys, *slot, &value(put.item.clone())).ok());
            if let Some(record) = record {
                *writes.entry(record.node).or_default() += 1;
            }
        }
        writes
    }

    /// A lease of a node that isn't there.
    fn lease(&self, slot: u8, node: u8) -> Result<SlotValue> {
        let issued_s = unix_s()?;
        let draft = Draft {
            addresses: vec![([127, 0, 0, node.max(2)], DEAD_PORT).into()],
            issued_s,
            expires_s: issued_s + LEASE_S,
            ..Draft::default()
        };
        let key = SigningKey::from_bytes(&[node.max(1); 32]);
        let built = record::build(&self.keys, slot, &key, &draft, 1, &[0; 24]);
        Ok(built.context("a lease")?.0)
    }
}

fn item(value: &SlotValue) -> Item {
    Item { seq: value.seq, signature: value.signature, value: value.value.clone() }
}

fn value(item: Item) -> SlotValue {
    SlotValue { seq: item.seq, signature: item.signature, value: item.value }
}

/// Of the puts of one write to many storage nodes the first.
fn distinct_writes(puts: &[Put]) -> Vec<&Put> {
    let mut seen = BTreeSet::new();
    puts.iter().filter(|put| seen.insert((put.key, put.item.seq, put.item.signature))).collect()
}

/// Puts of other values at a seq that a storage node held already, or below it.
pub(super) fn writes_at_or_below_stored(puts: &[Put]) -> usize {
    let is_below = |put: &&Put| {
        put.before.as_ref().is_some_and(|before| {
            put.item.seq < before.seq || (put.item.seq == before.seq && put.item != *before)
        })
    };
    puts.iter().filter(is_below).count()
}
