//! Stores of older programs, as those left them: `tests/vectors/store-v*.redb` at the top of the repository.

use std::{fs, path::Path};

use data_encoding::HEXLOWER;
use mosaik_core::{feed::Ledger, id::Fingerprint, key::Network, view};
use mosaik_store::{OpenError, SCHEMA, Store, ViewState};
use redb::{Database, ReadableDatabase, TableHandle};
use tempfile::TempDir;

/// What the program that wrote it said of a store.
struct Fixture {
    schema: u32,
    bytes: &'static [u8],
    network: &'static str,
    events: u64,
    branches: usize,
    /// Of the view as that program folded it.
    digest: &'static str,
    /// Of the same events as they are folded now.
    digest_now: &'static str,
}

const FIXTURES: [Fixture; 1] = [Fixture {
    schema: 1,
    bytes: include_bytes!("../../../../tests/vectors/store-v1.redb"),
    network: "schema-1",
    events: 292,
    branches: 2,
    digest: "3e4ca8c688354f48bdd1d36aa2cfdbd4208f16ba13b6fbfcff3f88b38908645b",
    digest_now: "604671449524106602fb2b8fe9223e82cb600c9e885a28ba950c6c9415341991",
}];

impl Fixture {
    fn fingerprint(&self) -> Fingerprint {
        Network::Public(self.network.into()).keys().fingerprint
    }

    fn laid_out(&self) -> TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("store.redb"), self.bytes).expect("a working disk");
        dir
    }

    fn copy(&self, dir: &Path) -> std::path::PathBuf {
        dir.join(format!("store.redb.v{}", self.schema))
    }

    fn open(&self, dir: &Path) -> Store {
        Store::open(dir, &self.fingerprint()).expect("it is migrated")
    }
}

fn fold_anew(store: &mut Store, fingerprint: &Fingerprint) {
    let folded = store.write(|batch| {
        view::reset(batch)?;
        for branch in batch.branches()? {
            let all = branch.first_seq()..=branch.tip.seq;
            for event in batch.events(branch.id, *all.start(), *all.end(), usize::MAX)? {
                view::fold(batch, &event)?;
            }
        }
        view::settle(batch, &view::rule(fingerprint))
    });
    folded.expect("a working disk");
}

#[test]
fn there_is_a_store_of_every_older_schema() {
    assert!(FIXTURES.iter().map(|fixture| fixture.schema).eq(1..SCHEMA));
}

#[test]
fn an_older_store_is_migrated_and_holds_what_it_held() {
    for fixture in &FIXTURES {
        let dir = fixture.laid_out();
        let mut store = fixture.open(dir.path());
        let reader = store.reader().expect("an open store");
        assert_eq!(reader.counts().expect("undamaged").events, fixture.events);
        assert_eq!(reader.branches().expect("undamaged").len(), fixture.branches);
        let digest = view::digest(&reader).expect("undamaged");
        assert_eq!(HEXLOWER.encode(&digest), fixture.digest);
        // It was folded by an older version: who opens a replica on it folds it anew.
        let report = reader.check(dir.path(), |_| true).expect("a working disk");
        assert!(report.is_sound() && report.view == ViewState::NotFolded, "{report:#?}");
        drop(reader);
        fold_anew(&mut store, &fixture.fingerprint());
        let reader = store.reader().expect("an open store");
        let digest = view::digest(&reader).expect("undamaged");
        assert_eq!(HEXLOWER.encode(&digest), fixture.digest_now);
        let report = reader.check(dir.path(), |_| true).expect("a working disk");
        assert!(report.is_sound() && report.view == ViewState::Compared, "{report:#?}");
        drop((reader, store));

        // The second start finds nothing to do, and says the same.
        let store = fixture.open(dir.path());
        let reader = store.reader().expect("an open store");
        assert_eq!(view::digest(&reader).expect("undamaged"), digest);
        drop((reader, store));
        let database = Database::open(dir.path().join("store.redb")).expect("closed");
        let transaction = database.begin_read().expect("a database");
        let mut tables = transaction.list_tables().expect("a database");
        assert!(!tables.any(|table| table.name() == "peers"), "schema 2 has no such table");
    }
}

#[test]
fn the_store_before_is_kept_until_a_node_has_stopped_cleanly() {
    for fixture in &FIXTURES {
        let dir = fixture.laid_out();
        let copy = fixture.copy(dir.path());
        let store = fixture.open(dir.path());
        drop(store);
        assert!(copy.exists(), "whoever only looked is no reason to forget it");

        // Who goes back finds what was there, and may come again.
        fs::copy(&copy, dir.path().join("store.redb")).expect("a working disk");
        fs::remove_file(&copy).expect("ours");
        let store = fixture.open(dir.path());
        assert!(copy.exists(), "the same once more");
        store.has_served().expect("a working disk");
        assert!(!copy.exists());
        store.has_served().expect("nothing to remove is fine");
    }
}

/// As after a crash between the copy and the first step, or in the middle of the copy.
#[test]
fn a_migration_that_was_cut_off_is_begun_again() {
    for fixture in &FIXTURES {
        let dir = fixture.laid_out();
        let copy = fixture.copy(dir.path());
        fs::write(&copy, b"of a try before").expect("a working disk");
        fs::write(copy.with_added_extension("new"), b"half a copy").expect("a working disk");
        let store = fixture.open(dir.path());
        assert_eq!(
            store.reader().expect("open").counts().expect("undamaged").events,
            fixture.events
        );
        assert!(fs::read(&copy).expect("a copy").len() > 1000);
        assert!(!copy.with_added_extension("new").exists());
    }
}

#[test]
fn the_older_store_of_another_network_is_left_as_it_is() {
    for fixture in &FIXTURES {
        let dir = fixture.laid_out();
        let refused = Store::open(dir.path(), &Fingerprint([7; 32]));
        assert!(matches!(refused, Err(OpenError::OtherNetwork { .. })), "{refused:?}");
        let left = fs::read(dir.path().join("store.redb")).expect("it is there");
        assert!(left == fixture.bytes && !fixture.copy(dir.path()).exists());
    }
}
