//! Values for slots, made by those who have a slot's key: everybody who knows a public network's
//! name.

use ed25519_dalek::SigningKey;
use mainline::MutableItem;
use mosaik_dht::record::{self, Draft};
use mosaik_lab::dht::stub::Item;
use pkarr::{Keypair, SignedPacket};

use super::{Dht, address, key, now_s};

impl Dht {
    /// The record of a node whose lease began so long ago, with the address of that node.
    pub(super) fn record(&self, node: u8, slot: u8, seq: i64, age_s: u64) -> Item {
        let issued_s = now_s() - age_s;
        let draft = Draft {
            addresses: vec![address(node)],
            issued_s,
            expires_s: issued_s + 3600,
            ..Draft::default()
        };
        let built = record::build(&self.keys, slot, &key(node), &draft, seq, &[0; 24]);
        let (value, _) = built.expect("a record");
        Item { seq, signature: value.signature, value: value.value }
    }

    /// Any bytes, signed by the slot's key.
    pub(super) fn signed(&self, slot: u8, seq: i64, value: &[u8]) -> Item {
        let signer = SigningKey::from_bytes(&self.network.slot_seeds[usize::from(slot)]);
        let item = MutableItem::new(signer, value, seq, None);
        Item { seq, signature: *item.signature(), value: value.to_vec() }
    }

    /// TXT records under the slot's key.
    pub(super) fn packed(&self, slot: u8, seq: i64, texts: &[(&str, &str)]) -> Item {
        let keypair = Keypair::from_secret_key(&self.network.slot_seeds[usize::from(slot)]);
        let mut builder = SignedPacket::builder();
        for (name, text) in texts {
            let text = (*text).try_into().expect("a short text");
            builder = builder.txt((*name).try_into().expect("a short name"), text, 600);
        }
        let packet = builder.sign(&keypair).expect("it fits");
        self.signed(slot, seq, &packet.encoded_packet())
    }

    /// Lays an item into all storage nodes.
    pub(super) fn place(&self, slot: u8, item: &Item) {
        self.stub.place(&self.keys.public_key(slot), item);
    }
}
