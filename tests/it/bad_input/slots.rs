//! Values in a network's slots that no node of it wrote: passed over, and nobody is dialed for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ed25519_dalek::{Signer, SigningKey};
use iroh::Endpoint;
use mainline::{Dht, MutableItem, async_dht::AsyncDht};
use mosaik_api::document::{PeerState, SlotState};
use mosaik_lab::{Cluster, wait};
use mosaik_tests::{Diary, cluster, play};
use pkarr::{Keypair, SignedPacket};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    stranger::{ALPN, STEP, closed, endpoint},
    wire::Keys,
};

/// How far puts lie apart: each sends some dozens of datagrams.
const PUT_EVERY: Duration = Duration::from_millis(20);

/// Who knows a public network's name may write its slots. Nodes still find each other by the rest.
#[tokio::test]
async fn records_that_no_node_wrote_lead_nowhere_and_nodes_meet_by_the_other_slots() {
    play(cluster(2).relay(false), async |cluster: &mut Cluster| {
        let keys = Keys::of(cluster.network());
        let bootstrap = cluster.dht().context("it has a DHT")?.bootstrap();
        let dht = Dht::builder().bootstrap(bootstrap).bind_address(Ipv4Addr::LOCALHOST).build()?;
        let dht = dht.as_async();
        dht.bootstrapped().await;

        let squatter = endpoint(ALPN).await?;
        let diary = Diary::begin();
        // Its lease is in order, and has ended. Who has read no other yet can't tell whether that is so or
        // its own clock is wrong, and tries it.
        let past = SigningKey::from_bytes(&rand::random());
        let past_id = HEXLOWER.encode(past.verifying_key().as_bytes());
        let values = values(&keys, &squatter, past)?;
        // Together, for a put waits for storage nodes that are slow to answer; but not at once: they
        // would overflow a socket's buffer, and what is lost is waited for.
        let mut puts = JoinSet::new();
        for (slot, value) in &values {
            puts.spawn(put(dht.clone(), &keys, *slot, value));
            sleep(PUT_EVERY).await;
        }
        while let Some(put) = puts.join_next().await {
            put??;
        }
        diary.note(format_args!("{} slots hold what is nobody's", values.len()));
        let squatting = tokio::spawn(squat(squatter.clone()));

        cluster.start().await?;
        for node in &cluster.nodes {
            node.wait_until("one peer", STEP, |status| status.peers == 1).await?;
            let name = node.name();
            node.run(&["record", "create", name, "--form", "report"]).await?.ok()?;
        }
        let agreed = cluster.agreement(STEP).await?;
        ensure!(agreed.frontier.len() == 2, "{:?}", agreed.frontier);
        diary.note("both nodes have met");

        let mut ids = BTreeSet::new();
        for node in &cluster.nodes {
            ids.insert(node.identity().await?.node);
        }
        let mut found_by = BTreeSet::new();
        for node in &cluster.nodes {
            for peer in node.peers().await?.peers {
                if peer.id == squatter.id().to_string() || peer.id == past_id {
                    ensure!(peer.state != PeerState::Connected, "{peer:?}");
                } else {
                    ensure!(ids.contains(&peer.id), "a forged record was believed: {peer:?}");
                    found_by.insert(peer.found_by);
                }
            }
        }
        ensure!(found_by.contains("slot"), "they met otherwise: {found_by:?}");

        // What a slot is shown to hold is what it holds, unless a node has taken it since.
        for node in &cluster.nodes {
            let what = format!("{} to have read all slots", node.name());
            wait::until(&what, STEP, || async {
                let slots = node.slots().await.map_err(|error| format!("{error:#}"))?.slots;
                let wrong: Vec<_> = slots
                    .iter()
                    .filter(|slot| !slot.holder.as_ref().is_some_and(|holder| ids.contains(holder)))
                    .filter(|slot| {
                        let expected = values.get(&slot.slot).map(|value| value.shown);
                        !expected.unwrap_or(&[SlotState::Empty]).contains(&slot.state)
                    })
                    .collect();
                if wrong.is_empty() { Ok(()) } else { Err(format!("{wrong:?}")) }
            })
            .await?;
        }
        squatting.abort();
        Ok(())
    })
    .await;
}

/// Takes every dial and answers with what it got, as a node of another program might.
async fn squat(endpoint: Endpoint) -> Result<()> {
    while let Some(incoming) = endpoint.accept().await {
        let connection = incoming.await?;
        let (mut send, mut recv) = connection.accept_bi().await?;
        let _ = tokio::io::copy(&mut recv, &mut send).await;
        closed(&connection).await?;
    }
    bail!("the endpoint was closed")
}

/// One item of the DHT.
struct Value {
    bytes: Vec<u8>,
    seq: i64,
    /// What a node may show of it.
    shown: &'static [SlotState],
}

fn values(keys: &Keys, squatter: &Endpoint, past: SigningKey) -> Result<BTreeMap<u8, Value>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let (now_s, seq) = (now.as_secs(), i64::try_from(now.as_micros())?);
    let mut values = BTreeMap::new();
    let mut hold = |slot, bytes, shown| {
        values.insert(slot, Value { bytes, seq, shown });
    };
    let mut noise = vec![0; 1000];
    blake3::Hasher::new().update(b"slots").finalize_xof().fill(&mut noise);
    hold(0, noise[..300].to_vec(), FOREIGN);
    hold(1, noise.clone(), FOREIGN);
    hold(2, Vec::new(), FOREIGN);
    // A DNS header that claims 65,535 records of each kind.
    let mut huge = noise;
    huge[..12].copy_from_slice(&[0, 0, 0x80, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    hold(3, huge, FOREIGN);

    let forger = SigningKey::from_bytes(&rand::random());
    let record = Record::new(SigningKey::from_bytes(&rand::random()), now_s);
    // Whole and good, for other places than this.
    let other = Keys::of("another network");
    hold(4, record.packet(&other, 4, &record.lease(&other, 4, &record.key))?, FOREIGN);
    hold(5, record.packet(keys, 5, &record.lease(keys, 6, &record.key))?, FORGED);
    hold(6, record.packet(keys, 6, &record.lease(&other, 6, &record.key))?, FORGED);
    hold(7, record.packet(keys, 7, &record.lease(keys, 7, &forger))?, FORGED);
    let mut moved = record.clone();
    moved.address = "127.0.0.1:9".into();
    hold(8, moved.packet(keys, 8, &record.lease(keys, 8, &record.key))?, FORGED);
    let mut forever = record.clone();
    forever.expires = u64::MAX;
    hold(9, forever.packet(keys, 9, &forever.lease(keys, 9, &record.key))?, FORGED);
    let mut past = Record::new(past, now_s);
    (past.issued, past.expires) = (now_s - 7200, now_s - 3600);
    hold(10, past.packet(keys, 10, &past.lease(keys, 10, &past.key))?, &[SlotState::Expired]);

    // All in order, but there is no node at the other end.
    let mut squatting =
        Record::new(SigningKey::from_bytes(&squatter.secret_key().to_bytes()), now_s);
    squatting.address = squatter.bound_sockets()[0].to_string();
    let lease = squatting.lease(keys, 11, &squatting.key);
    hold(11, squatting.packet(keys, 11, &lease)?, &[SlotState::Live, SlotState::Dead]);
    let last = Value { bytes: b"locked".to_vec(), seq: i64::MAX, shown: &[SlotState::Locked] };
    values.insert(12, last);
    Ok(values)
}

const FOREIGN: &[SlotState] = &[SlotState::Foreign];
const FORGED: &[SlotState] = &[SlotState::Forged];

/// A slot's record: crates/mosaik-dht/FORMAT.md, sections 2 and 3.
#[derive(Clone)]
struct Record {
    key: SigningKey,
    address: String,
    issued: u64,
    expires: u64,
}

impl Record {
    fn new(key: SigningKey, now_s: u64) -> Self {
        Self { key, address: "127.0.0.1:4242".into(), issued: now_s, expires: now_s + 3600 }
    }

    /// The lease of this record for a slot of a network, signed by `signer`.
    fn lease(&self, keys: &Keys, slot: u8, signer: &SigningKey) -> String {
        let addresses = format!("{}\n", self.address);
        let signed = [
            b"mosaik-node lease v1",
            &keys.fingerprint[..],
            &[slot],
            self.key.verifying_key().as_bytes(),
            blake3::hash(addresses.as_bytes()).as_bytes(),
            &self.issued.to_be_bytes(),
            &self.expires.to_be_bytes(),
        ]
        .concat();
        let signature = signer.sign(&signed).to_bytes();
        let times = [self.issued.to_be_bytes(), self.expires.to_be_bytes()].concat();
        BASE64URL_NOPAD.encode(&[&[1], &times[..], &signature].concat())
    }

    /// The DNS message of a slot.
    fn packet(&self, keys: &Keys, slot: u8, lease: &str) -> Result<Vec<u8>> {
        let id = bs58::encode(self.key.verifying_key().as_bytes()).into_string();
        let mut builder = SignedPacket::builder();
        for (name, text) in [("_id", id.as_str()), ("_ip", &self.address), ("_l", lease)] {
            builder = builder.txt(name.try_into()?, text.try_into()?, 600);
        }
        let packet = builder.sign(&Keypair::from_secret_key(&keys.slots[usize::from(slot)]))?;
        Ok(packet.encoded_packet().to_vec())
    }
}

/// Puts a value where the slot's own key says that it may be.
fn put(
    dht: AsyncDht,
    keys: &Keys,
    slot: u8,
    value: &Value,
) -> impl Future<Output = Result<()>> + Send + use<> {
    let key = SigningKey::from_bytes(&keys.slots[usize::from(slot)]);
    let item = MutableItem::new(key, &value.bytes, value.seq, None);
    async move {
        let mut put = dht.put_mutable(item.clone(), None).await;
        // What found no node goes again.
        for _ in 0..4 {
            if put.is_ok() {
                break;
            }
            put = dht.put_mutable(item.clone(), None).await;
        }
        put.map(|_| ()).with_context(|| format!("slot {slot}"))
    }
}
