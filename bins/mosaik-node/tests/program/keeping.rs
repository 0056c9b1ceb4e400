//! What keeps data: looking at a store, its limit, its copies.

use std::{fs, os::unix::fs::PermissionsExt, thread, time::Duration};

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

/// Runs a verb until its document is as it should be.
fn until(place: &Place, line: &str, is_so: impl Fn(&Json) -> bool) -> Json {
    let begun = std::time::Instant::now();
    loop {
        let done = place.run(line);
        let document: Json = serde_json::from_str(done.stdout.lines().next().unwrap_or_default())
            .unwrap_or_default();
        if is_so(&document) {
            return document;
        }
        assert!(begun.elapsed() < super::VERB_MAX, "{line}: {document}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_store_at_its_limit_takes_nothing_more_and_goes_on_to_answer() {
    let place = Place::new();
    let row = |i| format!("N-{i},{}\n", "x".repeat(4000));
    let rows: String = std::iter::once("id,text\n".to_owned()).chain((0..500).map(row)).collect();
    let file = place.file("rows.csv", &rows);
    place.run("run --network demo --store-max 5").fails(2, &["store_max", "at least 2000000"]);
    let node = place.node_with("demo", "--store-max 2000000");
    place.run("record create R-1 --form visit a=1").is(0);
    place.run(&format!("import {} --form note --id-column id", file.display())).is(0);
    place.run("record create R-2 --form visit").fails(6, &["store_max", "db compact"]);
    place.run("record get R-1").is(0);
    let status = until(&place, "status --json", |status| !status["degraded"].is_null());
    let why = status["degraded"].as_str().unwrap_or_default();
    assert!(why.contains("may take 2000000 (store_max)"), "{why}");
    place.run("status").is(6);

    // What others write is not taken, and what is here is given.
    let other = Place::new();
    let others = other.node("demo");
    other.run("record create R-3 --form visit").is(0);
    let ticket = other.run("id --ticket").is(0).stdout;
    place.run(&format!("peer add {}", ticket.trim())).is(0);
    other.run("wait --record N-499 --timeout 100").is(0);
    other.run("wait --synced --timeout 100").is(0);
    place.run("record get R-3").is(4);
    node.stop();

    let node = place.node("demo");
    place.run("wait --record R-3 --timeout 100").is(0);
    others.stop();
    place.run("record create R-2 --form visit").is(0);
    let compacted = place.run("db compact --json").json();
    assert!(compacted["after"].as_u64() <= compacted["before"].as_u64(), "{compacted}");
    place.run("record get R-2").is(0);
    place.run("db check").is(0);
    node.stop();
    assert!(place.run("db compact").is(0).stdout.contains("the store took"));
}

#[test]
fn a_backup_is_made_once_and_restored_where_there_is_nothing() {
    let place = Place::new();
    let file = place.path("one.backup");
    let create = format!("backup create {}", file.display());
    place.run(&create).fails(4, &["no network is known"]);
    let node = place.node("demo");
    place.run("record create R-1 --form visit a=1").is(0);
    let made = place.run(&create).is(0);
    assert_eq!(made.stdout.split_whitespace().next().map(str::len), Some(64), "{}", made.stdout);
    let mode = fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    place.run(&create).fails(2, &["there is one already"]);
    node.stop();
    let second = place.path("two.backup");
    place.run(&format!("backup create {}", second.display())).is(0);

    place.run(&format!("backup restore {}", file.display())).fails(1, &["is not empty"]);
    for (name, bytes) in
        [("text", &b"Dear diary,"[..]), ("cut", &fs::read(&file).expect("ours")[..600])]
    {
        let other = Place::new();
        let bad = other.path(name);
        fs::write(&bad, bytes).expect("ours");
        other.run(&format!("backup restore {}", bad.display())).fails(1, &["backup"]);
        let left = fs::read_dir(other.data_dir()).map(Iterator::count).unwrap_or_default();
        assert_eq!(left, 0, "{name}: something stays");
    }
    for backup in [&file, &second] {
        let other = Place::new();
        let restored = other.run(&format!("backup restore {}", backup.display())).is(0).stdout;
        assert!(restored.starts_with("feed test ("), "{restored}");
        assert!(restored.contains(") restored to 3"), "{restored}");
        let node = other.node("demo");
        assert_eq!(other.run("record get R-1 --json").json()["fields"]["a"], 1);
        other.run("record set R-1 a=2").is(0);
        assert_eq!(other.run("feeds --json").json()["feeds"][0]["branches"], 1);
        other.run("db check").is(0);
        node.stop();
    }
}

/// The id of a secret network is in a backup only where that was asked for.
#[test]
fn a_backup_tells_a_secret_id_only_if_it_was_to() {
    let place = Place::new();
    let id = place.run("network new").is(0).stdout.trim().to_owned();
    let id_file = place.file("id", &id);
    let node = place.node(&id);
    let told = |flag: &str, name: &str| {
        let file = place.path(name);
        place.run(&format!("backup create {} {flag}", file.display())).is(0);
        let bytes = fs::read(&file).expect("ours");
        (file, bytes.windows(id.len()).any(|window| window == id.as_bytes()))
    };
    let (without, is_told) = told("", "without");
    assert!(!is_told);
    let (with, is_told) = told("--with-secret", "with");
    assert!(is_told);
    node.stop();
    let restore = |file: &std::path::Path, flags: &str| {
        Place::new().run(&format!("backup restore {} {flags}", file.display()))
    };
    restore(&without, "").fails(2, &["does not hold its id", "--network-file"]);
    restore(&without, "--network another").fails(2, &["the backup is of network"]);
    restore(&without, &format!("--network-file {}", id_file.display())).is(0);
    restore(&with, "").is(0);
}

/// The same backup twice: beside a peer that knows more of its feed, and alone.
#[test]
fn a_restored_node_goes_on_where_its_peers_know_it_and_branches_harmlessly_where_none_does() {
    let (place, witness) = (Place::new(), Place::new());
    let node = place.node("demo");
    place.run("record create R-1 --form visit").is(0);
    let file = place.path("backup");
    place.run(&format!("backup create {}", file.display())).is(0);
    place.run("record create R-2 --form visit").is(0);
    let author = place.run("status --json").json()["author"].clone();
    let ticket = place.run("id --ticket").is(0).stdout;
    let witness_node = witness.node_with("demo", &format!("--peer {}", ticket.trim()));
    witness.run("wait --record R-2 --timeout 100").is(0);
    node.stop();
    let ticket = witness.run("id --ticket").is(0).stdout;
    let branches = || {
        let feeds = witness.run("feeds --json").json()["feeds"].clone();
        let feeds = feeds.as_array().cloned().unwrap_or_default();
        let feed = feeds.into_iter().find(|feed| feed["author"] == author);
        feed.and_then(|feed| feed["branches"].as_u64())
    };
    let restored = || {
        let place = Place::new();
        place.run(&format!("backup restore {}", file.display())).is(0);
        place
    };

    let with_peer = restored();
    let node = with_peer.node_with("demo", &format!("--peer {}", ticket.trim()));
    with_peer.run("wait --synced --timeout 100").is(0);
    with_peer.run("record create R-3 --form visit").is(0);
    with_peer.run("record get R-2").is(0);
    witness.run("wait --record R-3 --timeout 100").is(0);
    assert_eq!(branches(), Some(1), "it goes on where it was");
    node.stop();

    let alone = restored();
    let node = alone.node("demo");
    alone.run("record create R-4 --form visit").is(0);
    alone.run("record get R-2").is(4);
    alone.run(&format!("peer add {}", ticket.trim())).is(0);
    witness.run("wait --record R-4 --timeout 100").is(0);
    alone.run("wait --record R-3 --timeout 100").is(0);
    assert_eq!(branches(), Some(2), "both were written");
    let digest = witness.run("view --digest").is(0).stdout;
    until(&alone, "view --json", |view| view["digest"] == digest.trim());
    node.stop();
    witness_node.stop();
}

/// A store that an older program has left, and what that said of it: `tests/vectors` at the top.
#[test]
fn a_store_of_an_older_program_is_migrated_when_its_node_starts() {
    const STORE: &[u8] = include_bytes!("../../../../tests/vectors/store-v1.redb");
    /// Of the fold of this program: that of the older one gave another digest.
    const DIGEST: &str = "604671449524106602fb2b8fe9223e82cb600c9e885a28ba950c6c9415341991";
    let place = Place::new();
    let network = mosaik_core::key::Network::Public("schema-1".into());
    let fingerprint = network.keys().fingerprint.to_string();
    let directory = place.data_dir().join(&fingerprint[..16]);
    fs::create_dir_all(&directory).expect("a writable directory");
    fs::write(directory.join("store.redb"), STORE).expect("a writable directory");
    let node = place.node("schema-1");
    let copy = directory.join("store.redb.v1");
    assert!(copy.exists(), "what was there is kept while it is not sure that all is well");
    assert_eq!(place.run("record get R-1 --json").json()["fields"]["n"], 43);
    // The new author has said its name since: records are as they were.
    assert_eq!(place.run("view --digest").is(0).stdout.trim(), DIGEST);
    assert_eq!(place.run("view --json").json()["fold"], 2);
    place.run("db check").is(0);
    node.stop();
    assert!(!copy.exists());
}

/// What is pruned here is fetched again from who has it, when somebody asks.
#[test]
fn payloads_are_pruned_as_retention_says_and_fetched_again_when_asked_for() {
    let (place, other) = (Place::new(), Place::new());
    place.run("run --network demo --retention record.create:5d").fails(2, &["not an application"]);
    let node = place.node("demo");
    place.run("record create R-1 --form visit a=1").is(0);
    let value = format!("\"{}\"", "x".repeat(500));
    for _ in 0..3 {
        place.run(&format!("event emit sensor.sample {value}")).is(0);
    }
    let ticket = place.run("id --ticket").is(0).stdout;
    let others = other.node_with("demo", &format!("--peer {}", ticket.trim()));
    other.run("wait --record R-1 --timeout 100").is(0);
    other.run("wait --synced --timeout 100").is(0);
    let author = place.run("status --json").json()["author"].as_str().expect("an id").to_owned();
    let digest = place.run("view --digest").is(0).stdout;
    node.stop();

    // The newest 600 bytes are kept: one sample, and not a second one.
    let ticket = other.run("id --ticket").is(0).stdout;
    let flags = format!("--retention sensor.*:600B --peer {}", ticket.trim());
    let node = place.node_with("demo", &flags);
    until(&place, "db check --json", |checked| checked["pruned"] == 2);
    let show = |place: &Place, seq: u64, flag: &str| {
        let shown = place.run(&format!("event show {} {seq} --json {flag}", &author[..8])).json();
        shown["events"][0]["payload_state"].as_str().map(str::to_owned)
    };
    let feeds = place.run("feeds --json").json();
    let feeds = feeds["feeds"].as_array().expect("a list");
    let own = feeds.iter().find(|feed| feed["author"] == author.as_str()).expect("its own feed");
    let last = own["events"].as_u64().expect("a number");
    assert_eq!(show(&place, last, "").as_deref(), Some("present"));
    assert_eq!(show(&place, last - 1, "").as_deref(), Some("absent"));
    assert_eq!(show(&place, last - 2, "").as_deref(), Some("absent"));
    assert_eq!(place.run("view --digest").is(0).stdout, digest, "records are what they were");
    assert_eq!(place.run("status --json").json()["missing"], 0);

    place.run("wait --synced --timeout 100").is(0);
    assert_eq!(show(&place, last - 1, "--fetch").as_deref(), Some("present"));
    assert_eq!(show(&place, last - 2, "").as_deref(), Some("absent"), "nobody asked for that");
    place.run(&format!("event show {author} 999")).fails(4, &["there is no event 999"]);
    place.run("db check").is(0);
    others.stop();
    node.stop();
}
