//! What a check finds in a store that somebody has changed behind its back.

use std::{fs, path::Path};

use mosaik_core::view;
use mosaik_store::{CheckError, CheckPhase, Store, ViewState};
use redb::{Database, ReadableTable, TableDefinition, WriteTransaction};

use crate::make::{NETWORK, author, check, store};

const BLOCKS: TableDefinition<(u32, u64), &[u8]> = TableDefinition::new("blocks");
const SIGNATURES: TableDefinition<(u32, u64), &[u8; 64]> = TableDefinition::new("signatures");
const ARRIVALS: TableDefinition<u64, (u32, u64, u64, u64, u8)> = TableDefinition::new("arrivals");
const HELD: TableDefinition<(u64, u32, u64), ()> = TableDefinition::new("held");
const META: TableDefinition<&[u8], &[u8]> = TableDefinition::new("meta");
const VIEW: TableDefinition<&[u8], &[u8]> = TableDefinition::new("view");

/// Changes the database of a store as no program should.
fn damage(dir: &Path, change: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>) {
    let database = Database::open(dir.join("store.redb")).expect("a database");
    let transaction = database.begin_write().expect("nobody else writes");
    change(&transaction).expect("what is changed is there");
    transaction.commit().expect("a working disk");
}

/// What a check says of a store that was changed so.
fn found(change: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory");
    store(dir.path());
    damage(dir.path(), change);
    let findings = check(dir.path()).findings;
    findings.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn is_one(findings: &[String], says: &[&str]) {
    let [finding] = findings else { panic!("{findings:#?}") };
    for text in says {
        assert!(finding.contains(text), "{text:?} in {finding}");
    }
}

#[test]
fn a_sound_store_is_found_sound_and_left_as_it_was() {
    let dir = tempfile::tempdir().expect("a directory");
    store(dir.path());
    let before = fs::read(dir.path().join("store.redb")).expect("it is there");
    let opened = Store::open(dir.path(), &NETWORK).expect("a store");
    let reader = opened.reader().expect("an open store");
    let mut phases = Vec::new();
    let report = reader
        .check(dir.path(), |progress| {
            assert!(progress.done <= progress.total, "{progress:?}");
            phases.push(progress.phase);
            true
        })
        .expect("a working disk");
    assert!(report.is_sound(), "{report:#?}");
    assert_eq!((report.branches, report.events, report.signatures), (2, 320, 5));
    assert_eq!((report.arrivals, report.missing, report.held_back), (5, 1, 0));
    assert!(report.blocks > 5 && report.cells > 320, "{report:?}");
    assert_eq!(report.view, ViewState::Compared);
    assert_eq!(report.digest, view::digest(&reader).ok());
    phases.dedup();
    assert_eq!(phases, [CheckPhase::Events], "lists and view are smaller than a step");
    drop((reader, opened));
    assert!(!dir.path().join("store.scratch").exists());
    assert_eq!(fs::read(dir.path().join("store.redb")).expect("it is there").len(), before.len());
}

#[test]
fn a_flipped_byte_of_a_payload_is_found_in_its_block() {
    let findings = found(|transaction| {
        let mut blocks = transaction.open_table(BLOCKS)?;
        let (key, mut bytes) = {
            let (key, bytes) = blocks.iter()?.nth(2).expect("a third block")?;
            (key.value(), bytes.value().to_vec())
        };
        let at = bytes.len() - 10;
        assert_eq!(bytes[at], b'0', "of a value");
        bytes[at] = b'1';
        blocks.insert(key, bytes.as_slice())?;
        Ok(())
    });
    is_one(&findings, &["blocks: events ", &author().short(), "are not those that were stored"]);
}

#[test]
fn an_event_that_was_taken_out_of_its_block_is_found() {
    let findings = found(|transaction| {
        let mut blocks = transaction.open_table(BLOCKS)?;
        // The block anew without its last event: all that is left is as it was.
        let (key, bytes) = {
            let (key, bytes) = blocks.iter()?.nth(1).expect("a second block")?;
            (key.value(), bytes.value().to_vec())
        };
        let mut reader = mosaik_core::codec::Reader::new(&bytes);
        let (base, mut left) = mosaik_core::run::read_entries(&mut reader).expect("a block");
        left.pop();
        let mut writer = mosaik_core::codec::Writer::new();
        mosaik_core::run::write_entries(
            &mut writer,
            &base,
            left.iter().map(mosaik_core::run::Entry::parts),
        );
        blocks.insert(key, writer.into_bytes().as_slice())?;
        Ok(())
    });
    is_one(&findings, &["blocks: events ", "are not there"]);
}

#[test]
fn blocks_that_are_gone_are_found_wherever_they_stood() {
    for gone in [0, 3, usize::MAX] {
        let findings = found(|transaction| {
            let mut blocks = transaction.open_table(BLOCKS)?;
            let of_first = blocks.range((0, 0)..(1, 0))?.map(|row| Ok(row?.0.value()));
            let keys = of_first.collect::<Result<Vec<_>, redb::StorageError>>()?;
            blocks.remove(keys[gone.min(keys.len() - 1)])?;
            Ok(())
        });
        is_one(&findings, &["blocks: events ", "are not there"]);
    }
}

#[test]
fn a_changed_signature_is_found_and_so_is_one_that_is_gone() {
    let findings = found(|transaction| {
        let mut signatures = transaction.open_table(SIGNATURES)?;
        let mut bytes = *signatures.get((0, 150))?.expect("a signed event").value();
        bytes[20] ^= 1;
        signatures.insert((0, 150), &bytes)?;
        Ok(())
    });
    is_one(&findings, &["signatures: event 150 of feed ", "is not what its author signed"]);
    let findings = found(|transaction| {
        transaction.open_table(SIGNATURES)?.remove((0, 300))?;
        Ok(())
    });
    assert!(
        findings.iter().any(|f| f.contains("no signature over its last event")),
        "{findings:?}"
    );
}

#[test]
fn a_cell_of_the_view_that_differs_is_found_with_its_record() {
    type Change = fn(&mut redb::Table<'_, &[u8], &[u8]>, &[u8], &[u8]);
    let cell = |change: Change| {
        found(move |transaction| {
            let mut view = transaction.open_table(VIEW)?;
            let (key, value) = {
                let record = view.range(b"\x20R-17\x00\x01\x01".as_slice()..)?.next();
                let (key, value) = record.expect("a cell of the record")?;
                (key.value().to_vec(), value.value().to_vec())
            };
            change(&mut view, &key, &value);
            Ok(())
        })
    };
    let changed = cell(|view, key, value| {
        let mut value = value.to_vec();
        *value.last_mut().expect("a value") ^= 1;
        view.insert(key, value.as_slice()).expect("a working disk");
    });
    is_one(&changed, &["view: a cell of record \"R-17\"", "is not what the events say"]);
    let gone = cell(|view, key, _| {
        view.remove(key).expect("a working disk");
    });
    is_one(&gone, &["view: a cell of record \"R-17\"", "is gone"]);
    let made_up = cell(|view, key, value| {
        view.insert([key, b"x"].concat().as_slice(), value).expect("a working disk");
    });
    is_one(&made_up, &["view: a cell of record \"R-17\"", "should not be there"]);
}

#[test]
fn lists_that_say_something_else_than_the_feeds_are_found() {
    let findings = found(|transaction| {
        transaction.open_table(HELD)?.insert((5, 0, 7), ())?;
        Ok(())
    });
    is_one(&findings, &["held: 1 events are listed, 0 of them are here"]);
    let findings = found(|transaction| {
        transaction.open_table(ARRIVALS)?.remove(2)?;
        Ok(())
    });
    assert!(findings.iter().any(|f| f.starts_with("arrivals: 3 of branch 0")), "{findings:?}");
    let findings = found(|transaction| {
        let mut meta = transaction.open_table(META)?;
        meta.insert(b".events".as_slice(), 5_u64.to_le_bytes().as_slice())?;
        Ok(())
    });
    is_one(&findings, &["meta: the branches hold 320 events, counted are 5"]);
}

#[test]
fn a_check_that_nobody_wants_any_more_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    store(dir.path());
    let opened = Store::open(dir.path(), &NETWORK).expect("a store");
    let ended = opened.reader().expect("an open store").check(dir.path(), |_| false);
    assert!(matches!(ended, Err(CheckError::GivenUp)), "{ended:?}");
}

/// Before the first fold there is no view that could be wrong.
#[test]
fn a_store_without_a_view_is_sound_and_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(Store::open(dir.path(), &NETWORK).expect("a first run"));
    let report = check(dir.path());
    assert!(report.is_sound() && report.view == ViewState::NotFolded, "{report:?}");
}
