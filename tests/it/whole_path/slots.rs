//! The slots in the DHT, read without our own code: BLAKE3, Ed25519, mainline and pkarr's packets.
//!
//! What is done here by hand is what crates/mosaik-dht/FORMAT.md and crates/mosaik-core/FORMAT.md say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::Ipv4Addr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use futures_lite::StreamExt;
use mainline::{Dht, MutableItem, async_dht::AsyncDht};
use mosaik_api::document::{SlotState, Slots};
use mosaik_lab::{Cluster, wait};
use mosaik_tests::{Diary, cluster, play, repository};
use pkarr::{PublicKey, SignedPacket, dns::rdata::RData};
use serde_json::Value;
use tokio::task::JoinSet;

use super::STEP;

/// The network of the golden vectors.
const NETWORK: &str = "mosaik-node-test-vector-1";

/// Whoever knows the name alone can tell from the DHT who is there: each holder at its slot's key.
#[tokio::test]
async fn every_holder_is_found_at_the_key_of_the_vectors_by_an_independent_reader() {
    play(cluster(5).relay(false).network(NETWORK), async |cluster: &mut Cluster| {
        let seeds = slot_seeds(NETWORK);
        let keys = seeds.map(|seed| SigningKey::from_bytes(&seed).verifying_key().to_bytes());
        ensure!(keys.map(|key| HEXLOWER.encode(&key)) == vectors()?[..], "the vectors' keys");

        let diary = Diary::begin();
        cluster.start().await?;
        let mut addresses = BTreeMap::new();
        for node in &cluster.nodes {
            let identity = node.identity().await?;
            addresses.insert(identity.node, identity.addresses);
        }
        let bootstrap = cluster.dht().context("it has a DHT")?.bootstrap();
        let dht = readers(bootstrap)?;

        // Two nodes that took one slot at once settle it: what is claimed and what is there come to
        // be one.
        let running = &*cluster;
        wait::until("each node to be found where `slots` says", STEP, || async {
            let found = read(&dht, &keys).await.map_err(|error| format!("{error:#}"))?;
            let held = held(running).await.map_err(|error| format!("{error:#}"))?;
            let by_slot: BTreeMap<_, _> = found.iter().map(|(slot, r)| (*slot, r.id)).collect();
            let holders: BTreeSet<_> = held.values().collect();
            if by_slot != held || holders.len() != addresses.len() {
                return Err(format!("{held:?} by `slots`, {by_slot:?} in the DHT"));
            }
            found.iter().try_for_each(|(slot, record)| {
                let own = &addresses[&HEXLOWER.encode(&record.id)];
                record.check(*slot, own).map_err(|error| format!("slot {slot}: {error:#}"))
            })
        })
        .await?;
        diary.note("each holder is found at its slot's key");
        let nodes = cluster.nodes.len();
        cluster.stop().await?;
        wait::until("each node to have left its slot", STEP, || async {
            let left = all_have_left(&dht, &keys, nodes).await;
            left.map_err(|error| format!("{error:#}"))
        })
        .await?;
        diary.note("each slot says that its holder left");
        Ok(())
    })
    .await;
}

/// Each node has left its slot in words that still prove who it was, and lead nowhere.
async fn all_have_left(dht: &[AsyncDht], keys: &[[u8; 32]; 16], nodes: usize) -> Result<()> {
    let found = read(dht, keys).await?;
    ensure!(found.len() == nodes, "{} records of {nodes} nodes that left", found.len());
    for (slot, record) in found {
        ensure!(record.issued == record.expires, "slot {slot} still has a lease");
        ensure!(record.addresses.is_empty() && record.relays.is_empty(), "slot {slot}");
        let key = VerifyingKey::from_bytes(&record.id)?;
        key.verify_strict(&record.signed(slot), &record.signature)?;
    }
    Ok(())
}

/// `id_0`, which is the BLAKE3 of a public name, and `id_{i+1}` = BLAKE3(`id_i` || `id_i`).
fn slot_seeds(name: &str) -> [[u8; 32]; 16] {
    let mut id = *blake3::hash(name.as_bytes()).as_bytes();
    [(); 16].map(|()| {
        let this = id;
        id = *blake3::hash(&[this, this].concat()).as_bytes();
        this
    })
}

/// The keys of `tests/vectors/slot.json`.
fn vectors() -> Result<Vec<String>> {
    let text = fs::read_to_string(repository().join("tests/vectors/slot.json"))?;
    let vectors: Value = serde_json::from_str(&text)?;
    let slots = vectors["public"]["slots"].as_array().context("the vectors have slots")?;
    let key = |slot: &Value| slot["public_key"].as_str().map(str::to_owned);
    slots.iter().map(|slot| key(slot).context("a slot has a key")).collect()
}

/// Who holds which slot, by what each node says of itself.
async fn held(cluster: &Cluster) -> Result<BTreeMap<u8, [u8; 32]>> {
    let mut held = BTreeMap::new();
    for node in &cluster.nodes {
        let Slots { slots, .. } = node.run(&["slots", "--json"]).await?.json()?;
        ensure!(slots.len() == 16, "{} slots", slots.len());
        for slot in slots.into_iter().filter(|slot| slot.state == SlotState::Mine) {
            let holder = slot.holder.context("a slot of its own has a holder")?;
            let id = HEXLOWER.decode(holder.as_bytes())?;
            let id = id.try_into().map_err(|_| anyhow::anyhow!("{holder} is no id"))?;
            ensure!(held.insert(slot.slot, id).is_none(), "two hold slot {}", slot.slot);
        }
    }
    Ok(held)
}

/// Clients of the DHT that read together. One socket's buffer is too small for the answers to 16
/// lookups at once.
const READERS: usize = 4;

fn readers(bootstrap: &[String]) -> Result<Vec<AsyncDht>> {
    let mut builder = Dht::builder();
    builder.bootstrap(bootstrap).bind_address(Ipv4Addr::LOCALHOST);
    let reader = |_| Ok(builder.build().context("a socket for the DHT")?.as_async());
    (0..READERS).map(reader).collect()
}

/// The newest record of each slot that has one.
async fn read(readers: &[AsyncDht], keys: &[[u8; 32]; 16]) -> Result<BTreeMap<u8, Record>> {
    let mut lookups = JoinSet::new();
    for ((slot, key), dht) in (0_u8..).zip(*keys).zip(readers.iter().cycle()) {
        let mut values = dht.get_mutable(&key, None, None);
        lookups.spawn(async move {
            let mut newest: Option<MutableItem> = None;
            while let Some(value) = values.next().await {
                if newest.as_ref().is_none_or(|newest| newest.seq() < value.seq()) {
                    newest = Some(value);
                }
            }
            (slot, key, newest)
        });
    }
    let mut found = BTreeMap::new();
    while let Some(lookup) = lookups.join_next().await {
        let (slot, key, newest) = lookup?;
        if let Some(value) = newest {
            found.insert(slot, Record::of(&key, &value).with_context(|| format!("slot {slot}"))?);
        }
    }
    Ok(found)
}

/// An open record, as it stands in the DHT.
struct Record {
    id: [u8; 32],
    /// The texts of `_r` and `_ip`.
    relays: Vec<String>,
    addresses: Vec<String>,
    issued: u64,
    expires: u64,
    signature: Signature,
}

impl Record {
    fn of(key: &[u8; 32], value: &MutableItem) -> Result<Self> {
        let payload = [value.signature(), &value.seq().to_be_bytes()[..], value.value()].concat();
        let packet = SignedPacket::from_relay_payload(&PublicKey::try_from(key)?, &payload.into())?;
        let origin = format!(".{}", packet.public_key().to_z32());
        let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in packet.all_resource_records() {
            let name = entry.name.to_string();
            let name = name.strip_suffix(&origin).context("a name outside the slot's key")?;
            let RData::TXT(text) = &entry.rdata else { continue };
            texts.entry(name.to_owned()).or_default().push(text.clone().try_into()?);
        }
        let mut one = |name: &str| {
            let mut texts = texts.remove(name).unwrap_or_default();
            ensure!(texts.len() == 1, "{} texts of {name}", texts.len());
            Ok(texts.remove(0))
        };
        let id = bs58::decode(one("_id")?).into_vec()?;
        let lease = BASE64URL_NOPAD.decode(one("_l")?.as_bytes())?;
        ensure!(lease.len() == 81 && lease[0] == 1, "a lease of {} bytes", lease.len());
        Ok(Self {
            id: id.try_into().map_err(|id| anyhow::anyhow!("_id has the bytes {id:?}"))?,
            relays: texts.remove("_r").unwrap_or_default(),
            addresses: texts.remove("_ip").unwrap_or_default(),
            issued: u64::from_be_bytes(lease[1..9].try_into()?),
            expires: u64::from_be_bytes(lease[9..17].try_into()?),
            signature: Signature::from_slice(&lease[17..])?,
        })
    }

    /// The lease holds now, for this slot and these addresses.
    fn check(&self, slot: u8, addresses: &[String]) -> Result<()> {
        ensure!(self.relays.is_empty(), "relays that nobody was told of: {:?}", self.relays);
        ensure!(self.addresses == addresses, "{:?}, not {addresses:?}", self.addresses);
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        ensure!(self.issued <= now.as_secs() + 1, "issued at {}", self.issued);
        ensure!(now < Duration::from_secs(self.expires), "it has expired");
        ensure!(self.expires - self.issued == 3600, "{} s", self.expires - self.issued);
        let key = VerifyingKey::from_bytes(&self.id)?;
        key.verify_strict(&self.signed(slot), &self.signature)?;
        let elsewhere = key.verify_strict(&self.signed((slot + 1) % 16), &self.signature);
        ensure!(elsewhere.is_err(), "the lease holds for another slot as well");
        Ok(())
    }

    fn signed(&self, slot: u8) -> Vec<u8> {
        let seed = blake3::hash(NETWORK.as_bytes());
        let fingerprint = blake3::derive_key("mosaik-node 2026-11 fingerprint v1", seed.as_bytes());
        let mut texts: Vec<_> = self.relays.iter().chain(&self.addresses).cloned().collect();
        texts.sort();
        let texts: String = texts.into_iter().map(|text| text + "\n").collect();
        [
            b"mosaik-node lease v1",
            &fingerprint[..],
            &[slot],
            &self.id,
            blake3::hash(texts.as_bytes()).as_bytes(),
            &self.issued.to_be_bytes(),
            &self.expires.to_be_bytes(),
        ]
        .concat()
    }
}
