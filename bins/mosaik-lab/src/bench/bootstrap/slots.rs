//! What stands in the slots of a network, laid there or read from the storage nodes' own log.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use ed25519_dalek::SigningKey;
use mainline::MutableItem;
use mosaik_core::{
    id::NodeId,
    key::{Network, NetworkKeys, SLOTS},
};
use mosaik_dht::{
    record::{self, Draft},
    slot::{SlotKeys, SlotValue},
};

use super::{ghosts::Ghosts, numbers, site::usual, unix_s};
use crate::dht::stub::{Item, Put, StubDht};

const LEASE_S: u64 = 3600;
/// The first of the nodes that forged records are of; below it are those that are gone.
const FORGED: u8 = 100;
/// A node whose record is copied to where it doesn't belong.
const STRANGER: u8 = 200;

/// The slots of a network in a DHT, and where nodes of theirs were that are gone.
pub(super) struct Slots {
    pub(super) stub: StubDht,
    pub(super) ghosts: Ghosts,
    network: NetworkKeys,
    keys: SlotKeys,
}

impl Slots {
    pub(super) async fn start(network: &str) -> Result<Self> {
        let network = Network::Public(network.to_owned()).keys();
        let (stub, ghosts) = (StubDht::start(usual()).await?, Ghosts::start(SLOTS).await?);
        Ok(Self { stub, ghosts, keys: SlotKeys::new(&network), network })
    }

    pub(super) fn network(&self) -> &NetworkKeys {
        &self.network
    }

    /// Lays live leases of nodes that are gone, another in each, into all slots in which nothing stands.
    pub(super) fn fill_free_with_dead(&self) -> Result<()> {
        for slot in numbers() {
            let key = self.keys.public_key(slot);
            if self.stub.stored(&key).iter().all(Option::is_none) {
                self.stub.place(&key, &item(&self.lease(slot, slot, 1 + slot, 1)?));
            }
        }
        Ok(())
    }

    /// Lays into the slots in turn: a copy of another slot's record, a good record at a seq near the
    /// ceiling, rubbish at a seq far in the future, and a record whose signature isn't the slot's.
    /// Returns in how many there is a lease that holds: anyone can write one for a key of his own.
    pub(super) fn fill_with_forged(&self) -> Result<usize> {
        let tomorrow_us = (unix_s()? as i64 + 86_400) * 1_000_000;
        let mut good_leases = 0;
        for slot in numbers() {
            let own = |seq| self.lease(slot, slot, FORGED + slot, seq);
            let forged = match slot % 4 {
                0 => {
                    let copied = self.lease((slot + 1) % 16, slot, STRANGER, 1)?;
                    self.signed(slot, 1, &copied.value)
                }
                1 => {
                    good_leases += 1;
                    item(&own(i64::MAX - 1)?)
                }
                2 => self.signed(slot, tomorrow_us, b"rubbish"),
                _ => Item { signature: [7; 64], ..item(&own(1)?) },
            };
            self.stub.place(&self.keys.public_key(slot), &forged);
        }
        Ok(good_leases)
    }

    /// In how many slots each node has a lease that holds and has not ended, by the values with the
    /// highest seq.
    pub(super) fn holders(&self) -> Result<BTreeMap<NodeId, usize>> {
        let now_s = unix_s()?;
        let live = numbers().filter_map(|slot| {
            let stored = self.stub.stored(&self.keys.public_key(slot));
            let top = stored.into_iter().flatten().max_by_key(|item| item.seq)?;
            let record = record::parse(&self.keys, slot, &value(top)).ok()?;
            record.lease.is_live(now_s).then_some(record.node)
        });
        let mut holders = BTreeMap::new();
        for node in live {
            *holders.entry(node).or_default() += 1;
        }
        Ok(holders)
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

    /// A slot's record of a node that is gone, or never was: its address is the ghost's of a slot.
    fn lease(&self, slot: u8, ghost: u8, node: u8, seq: i64) -> Result<SlotValue> {
        let issued_s = unix_s()?;
        let draft = Draft {
            addresses: vec![self.ghosts.address(usize::from(ghost))],
            issued_s,
            expires_s: issued_s + LEASE_S,
            ..Draft::default()
        };
        let key = SigningKey::from_bytes(&[node; 32]);
        let built = record::build(&self.keys, slot, &key, &draft, seq, &[0; 24]);
        Ok(built.context("a lease")?.0)
    }

    /// Any bytes, signed by the slot's key.
    fn signed(&self, slot: u8, seq: i64, value: &[u8]) -> Item {
        let signer = SigningKey::from_bytes(&self.network.slot_seeds[usize::from(slot)]);
        let signature = *MutableItem::new(signer, value, seq, None).signature();
        Item { seq, signature, value: value.to_vec() }
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
