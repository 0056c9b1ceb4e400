//! What is restored is what was there, or nothing.

use std::path::Path;

use mosaik_core::feed::{BranchId, Ledger, Tip};
use mosaik_store::{Backup, BackupError, BackupOf, CompactError, Restored, Store};
use tempfile::TempDir;

use crate::make::{NETWORK, absent, append, author, check, entries, store};

fn dir() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn opened(dir: &Path) -> Store {
    Store::open(dir, &NETWORK).expect("a store")
}

/// The bytes of a backup of what `store` makes, and the digest that was told of it.
fn backup(dir: &Path) -> (Vec<u8>, [u8; 32]) {
    let opened = opened(dir);
    let of = BackupOf {
        network: Some("demo"),
        node_key: [1; 32],
        author_key: [2; 32],
        made_ms: 1_790_000_000_000,
    };
    let mut bytes = Vec::new();
    let reader = opened.reader().expect("an open store");
    let digest = reader.backup(&of, &mut bytes, &mut |_, _| true).expect("a sound store");
    (bytes, digest)
}

fn made() -> (TempDir, Vec<u8>, [u8; 32]) {
    let dir = dir();
    store(dir.path());
    let mut opened = opened(dir.path());
    opened.write(|batch| batch.set_meta("own last", b"something")).expect("a working disk");
    // One payload more is absent, and was pruned.
    let tip = opened.reader().expect("open").branches().expect("undamaged")[0].tip;
    let tip = append(&mut opened, Some(BranchId(0)), tip, vec![absent()]);
    let pruned = opened.write(|batch| batch.prune(BranchId(0), tip.seq, tip.seq, &mut |_| true));
    pruned.expect("a working disk");
    drop(opened);
    let (bytes, digest) = backup(dir.path());
    (dir, bytes, digest)
}

fn restore(bytes: &[u8], dir: &Path) -> Result<Restored, BackupError> {
    Backup::open(bytes)?.restore(&mut opened(dir), &author(), &mut |_, _| true)
}

#[test]
fn what_is_restored_is_what_was_there() {
    let (from, bytes, digest) = made();
    let head = Backup::open(bytes.as_slice()).expect("a backup").head().clone();
    assert_eq!((head.fingerprint, head.network.as_deref()), (NETWORK, Some("demo")));
    assert_eq!((head.node_key, head.author_key), ([1; 32], [2; 32]));
    assert_eq!((head.events, head.arrivals), (321, 6));

    let to = dir();
    let restored = restore(&bytes, to.path()).expect("a whole backup");
    assert_eq!((restored.events, restored.branches, restored.digest), (321, 2, digest));
    assert_eq!(restored.own_seq.map(u64::from), Some(301));
    let (from, to_store) = (opened(from.path()), opened(to.path()));
    let (was, is) = (from.reader().expect("open"), to_store.reader().expect("open"));
    let branches = was.branches().expect("undamaged");
    assert_eq!(is.branches().expect("undamaged"), branches);
    for branch in &branches {
        let events = |reader: &mosaik_store::Reader| {
            reader.events(branch.id, 1, u64::MAX, usize::MAX).expect("undamaged")
        };
        assert_eq!(events(&is), events(&was));
    }
    let arrivals = |reader: &mosaik_store::Reader| reader.arrivals(0, 100).expect("undamaged");
    assert_eq!(arrivals(&is), arrivals(&was));
    let missing = was.missing(None, 9).expect("undamaged");
    assert_eq!((missing.len(), is.missing(None, 9).expect("undamaged")), (1, missing));
    assert_eq!(is.counts().expect("undamaged"), was.counts().expect("undamaged"));
    assert_eq!(is.meta("own last").expect("undamaged").as_deref(), Some(b"something".as_slice()));
    drop((is, to_store));
    assert!(check(to.path()).is_sound());
    // A copy of the copy says the same of all but what the node kept beside it.
    assert_eq!(backup(to.path()), (bytes, digest));
}

#[test]
fn a_backup_that_is_cut_anywhere_is_told_so() {
    let (_from, bytes, digest) = made();
    let through = Backup::open(bytes.as_slice()).expect("a backup").read_through(&mut |_, _| true);
    assert_eq!(through.expect("a whole backup"), digest);
    for len in (0..bytes.len()).step_by(701).chain([bytes.len() - 1]) {
        let cut = &bytes[..len];
        let error = Backup::open(cut).and_then(|backup| backup.read_through(&mut |_, _| true));
        let error = error.expect_err("it is cut");
        assert!(matches!(error, BackupError::Cut | BackupError::Foreign), "{len}: {error:?}");
        if len % 4 == 0 {
            assert!(restore(cut, dir().path()).is_err(), "{len}");
        }
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(matches!(restore(&longer, dir().path()), Err(BackupError::Damaged(_))));
}

#[test]
fn a_byte_that_is_changed_anywhere_is_found() {
    let (_from, bytes, _) = made();
    for at in (0..bytes.len()).step_by(997) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        let through = Backup::open(changed.as_slice())
            .and_then(|backup| backup.read_through(&mut |_, _| true));
        assert!(through.is_err(), "byte {at}");
        if at % 8 == 0 {
            assert!(restore(&changed, dir().path()).is_err(), "byte {at}");
        }
    }
}

/// Whoever forges a digest still can't forge what an author signed.
#[test]
fn a_changed_payload_is_found_also_under_a_digest_that_fits() {
    let (_from, mut bytes, _) = made();
    let at = bytes.windows(20).rposition(|part| part == [b'0'; 20]).expect("part of a value");
    bytes[at] = b'1';
    let end = bytes.len() - 37;
    let digest = blake3::hash(&bytes[..end]);
    bytes[end + 5..].copy_from_slice(digest.as_bytes());
    let through =
        Backup::open(bytes.as_slice()).and_then(|backup| backup.read_through(&mut |_, _| true));
    assert!(through.is_ok(), "well formed it is");
    let error = restore(&bytes, dir().path()).expect_err("nobody signed that");
    assert!(error.to_string().contains("is not what its author signed"), "{error}");
}

#[test]
fn a_length_that_is_made_up_takes_no_memory() {
    let bytes = [b"mosaik-node backup 1\n\x01".as_slice(), &u32::MAX.to_le_bytes()].concat();
    let error = Backup::open(bytes.as_slice()).expect_err("nothing is that long");
    assert!(matches!(error, BackupError::Damaged(_)), "{error:?}");
}

#[test]
fn a_backup_goes_into_an_empty_store_of_its_own_network_only() {
    let (from, bytes, _) = made();
    let again = restore(&bytes, from.path());
    assert!(matches!(again, Err(BackupError::NotEmpty)), "{again:?}");
    let other = dir();
    let mut store =
        Store::open(other.path(), &mosaik_core::id::Fingerprint([8; 32])).expect("a first run");
    let backup = Backup::open(bytes.as_slice()).expect("a backup");
    let refused = backup.restore(&mut store, &author(), &mut |_, _| true);
    assert!(matches!(refused, Err(BackupError::OtherNetwork { .. })), "{refused:?}");
    assert_eq!(store.reader().expect("open").last_arrival().expect("undamaged"), 0);
}

#[test]
fn a_damaged_store_is_not_copied_as_if_it_were_sound() {
    let (from, _, _) = made();
    let blocks = redb::TableDefinition::<(u32, u64), &[u8]>::new("blocks");
    let database = redb::Database::open(from.path().join("store.redb")).expect("a database");
    let transaction = database.begin_write().expect("nobody else writes");
    transaction.open_table(blocks).expect("it is there").remove((0, 1)).expect("a working disk");
    transaction.commit().expect("a working disk");
    drop(database);
    let of = BackupOf { network: None, node_key: [0; 32], author_key: [0; 32], made_ms: 0 };
    let opened = opened(from.path());
    let made = opened.reader().expect("open").backup(&of, std::io::sink(), &mut |_, _| true);
    assert!(matches!(made, Err(BackupError::Store(_))), "{made:?}");
}

#[test]
fn a_store_is_compacted_when_nobody_reads_and_holds_the_same() {
    let dir = dir();
    store(dir.path());
    let mut opened = opened(dir.path());
    let tip = opened.reader().expect("open").branches().expect("undamaged")[0].tip;
    append(&mut opened, Some(BranchId(0)), tip, entries(1000, 200));
    let reader = opened.reader().expect("open");
    assert!(matches!(opened.compact(), Err(CompactError::Busy)));
    drop(reader);
    let before = opened.disk_len().expect("a file").expect("on a file system");
    opened.compact().expect("nobody reads");
    let after = opened.disk_len().expect("a file").expect("on a file system");
    assert!(after < before, "{before} bytes, then {after}");
    append(&mut opened, None, Tip::ROOT, entries(5000, 3));
    drop(opened);
    let report = check(dir.path());
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.events, 523);
}
