//! What keeps data: looking at a store.

use redb::{Database, ReadableTable, TableDefinition};

use super::{Done, Json, Place};

const SIGNATURES: TableDefinition<'_, (u32, u64), &[u8; 64]> = TableDefinition::new("signatures");

/// The directory of the only network of a place.
fn network_directory(place: &Place) -> std::path::PathBuf {
    let list = place.run("networks --json").json();
    list["networks"][0]["directory"].as_str().expect("a path").into()
}

#[test]
fn a_store_is_checked_by_its_node_and_without_one() {
    let place = Place::new();
    place.run("db check").fails(4, &["no network is known"]);
    let node = place.node("demo");
    place.run("record create R-1 --form visit a=1").is(0);
    let asked = place.run("db check --json").json();
    assert_eq!((&asked["view"], asked["findings"].as_array()), (&"compared".into(), Some(&vec![])));
    let shown = place.run("db check").is(0);
    assert!(shown.stdout.contains("held against a fresh fold"), "{}", shown.stdout);
    node.stop();
    assert_eq!(place.run("db check --json").json(), asked, "the same without a node");

    let database = Database::open(network_directory(&place).join("store.redb")).expect("closed");
    let transaction = database.begin_write().expect("nobody else writes");
    {
        let mut signatures = transaction.open_table(SIGNATURES).expect("it is there");
        let (key, mut bytes) = {
            let (key, bytes) = signatures.last().expect("it reads").expect("a signed event");
            (key.value(), *bytes.value())
        };
        bytes[0] ^= 1;
        signatures.insert(key, &bytes).expect("a working disk");
    }
    transaction.commit().expect("a working disk");
    drop(database);
    let says = |done: Done| {
        let done = done.is(1);
        assert!(done.stderr.contains("1 thing is damaged in this store"), "{}", done.stderr);
        done.stdout
    };
    let text = says(place.run("db check"));
    assert!(text.contains("is not what its author signed"), "{text}");
    let node = place.node("demo");
    let document = says(place.run("db check --json"));
    let document: Json = serde_json::from_str(&document).expect("one document");
    assert_eq!(document["findings"][0]["table"], "signatures");
    node.stop();
}
