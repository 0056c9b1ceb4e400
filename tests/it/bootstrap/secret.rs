//! Networks with a secret id: who holds what stands in a slot learns nothing from it.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use mainline::MutableItem;
use mosaik_core::{
    id::AuthorId,
    key::{Network, SLOTS},
};
use mosaik_dht::{Hint, Neighbour, SlotState, slot::SlotKeys};
use mosaik_lab::dht::stub::Item;

use super::{Client, Dht, address, every_dht_of, node_id, now_us, on_each};

fn secret(byte: u8) -> Network {
    Network::Secret { secret: [byte; 32], creator: AuthorId([0; 32]) }
}

impl Dht {
    /// The same storage nodes, asked by who means another network.
    fn as_in(&self, network: &Network) -> Self {
        let network = network.keys();
        Self { keys: SlotKeys::new(&network), network, ..self.clone() }
    }

    /// A node that names another in its record.
    fn node_with_neighbour(&self, node: u8, neighbour: u8) -> Client {
        let client = self.reader(node);
        let hint = Hint::Address(address(neighbour));
        client.handle.set_neighbours(vec![Neighbour { node: node_id(neighbour), hint }]);
        client.handle.set_addresses(vec![], vec![address(node)]);
        client
    }

    /// Which of these stand in any value that a storage node was given.
    fn shown(&self, clear: &[(&'static str, Vec<u8>)]) -> BTreeSet<&'static str> {
        let puts = self.stub.puts();
        assert!(!puts.is_empty(), "{}: nothing was put", self.name);
        let stands = |bytes: &[u8]| {
            let within = |put: &mosaik_lab::dht::stub::Put| {
                put.item.value.windows(bytes.len()).any(|part| part == bytes)
            };
            puts.iter().any(within)
        };
        clear.iter().filter(|(_, bytes)| stands(bytes)).map(|(what, _)| *what).collect()
    }
}

/// What a record says of a node and its neighbour, in the forms in which it could be written.
fn clear(node: u8, neighbour: u8) -> Vec<(&'static str, Vec<u8>)> {
    let base58 = |node| bs58::encode(node_id(node).as_bytes()).into_string().into_bytes();
    let socket = |node| {
        let port = address(node).port();
        [&[127, 0, 0, 1][..], &port.to_be_bytes()].concat()
    };
    vec![
        ("id", node_id(node).0.to_vec()),
        ("id in base58", base58(node)),
        ("neighbour", node_id(neighbour).0.to_vec()),
        ("neighbour in base58", base58(neighbour)),
        ("address", address(node).to_string().into_bytes()),
        ("address as bytes", socket(node)),
        ("neighbour's address", address(neighbour).to_string().into_bytes()),
        ("ip", b"127.0.0.1".to_vec()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_a_secret_network_find_each_other_and_storage_nodes_read_nothing() {
    on_each(every_dht_of(&secret(3)).await, |dht| async move {
        let node = dht.node_with_neighbour(1, 5);
        let claimed = node.holds().await;
        let found = dht.reader(2).find(1).await;
        assert_eq!((found.slot, found.addresses), (claimed.slot, vec![address(1)]));
        assert_eq!(found.neighbours.len(), 1, "{}", dht.name);
        assert_eq!(dht.shown(&clear(1, 5)), BTreeSet::new(), "{}", dht.name);

        // What is looked for is there to be seen where the network is a public one.
        let public = dht.as_in(&Network::Public("mosaik-node-test-vector-1".to_owned()));
        public.node_with_neighbour(1, 5).holds().await;
        let shown = public.shown(&clear(1, 5));
        let open = ["id in base58", "neighbour in base58", "address", "neighbour's address", "ip"];
        assert_eq!(shown, BTreeSet::from(open), "{}", dht.name);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_secret_id_nothing_of_its_network_is_found_or_written() {
    on_each(every_dht_of(&secret(3)).await, |dht| async move {
        let claimed = dht.node(1).holds().await;
        let own: BTreeSet<_> = (0..SLOTS as u8).map(|slot| dht.keys.public_key(slot)).collect();
        // Another secret, and the public network whose name is that id.
        let named = Network::Public(format!("{:?}", [3; 32]));
        for (node, network) in [(8, secret(4)), (9, named)] {
            let other = dht.as_in(&network);
            let keys: Vec<_> = (0..SLOTS as u8).map(|slot| other.keys.public_key(slot)).collect();
            assert!(keys.iter().all(|key| !own.contains(key)), "{}", dht.name);
            other.node(node).holds().await;
            let found = other.reader(2).look().await;
            let found: BTreeSet<_> = found.iter().map(|candidate| candidate.node).collect();
            assert_eq!(found, BTreeSet::from([node_id(node)]), "{}", dht.name);
        }
        // A storage node sees the slots' public keys. What it makes up under one isn't signed by it.
        let made_up = (0..SLOTS as u8).find(|slot| *slot != claimed.slot).expect("sixteen slots");
        let forged = MutableItem::new(SigningKey::from_bytes(&[7; 32]), b"x", now_us(), None);
        let (seq, signature) = (forged.seq(), *forged.signature());
        dht.place(made_up, &Item { seq, signature, value: b"x".to_vec() });
        let mut reader = dht.reader(2);
        let found = reader.look().await;
        let found: BTreeSet<_> = found.iter().map(|found| (found.slot, found.node)).collect();
        assert_eq!(found, BTreeSet::from([(claimed.slot, node_id(1))]), "{}", dht.name);
        let state = reader.handle.slots()[usize::from(made_up)].state;
        assert_eq!(state, SlotState::Empty, "{}", dht.name);
        assert_eq!(dht.holders(), BTreeMap::from([(claimed.slot, node_id(1))]), "{}", dht.name);
    })
    .await;
}
