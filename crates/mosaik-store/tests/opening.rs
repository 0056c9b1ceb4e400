//! What a store says when it is opened: the first time, again, twice, damaged, foreign, or not at all.

use std::{
    env, fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{self, Command, Output},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use mosaik_core::{feed::Ledger, id::Fingerprint};
use mosaik_store::{OpenError, SCHEMA, Store, StoreError};
use redb::{Database, TableDefinition};

const NETWORK: Fingerprint = Fingerprint([7; 32]);
const META: TableDefinition<&[u8], &[u8]> = TableDefinition::new("meta");

/// Between fork and exec a child holds all locks of this process: no test that opens a store runs
/// beside one that starts a process.
static PROCESSES: RwLock<()> = RwLock::new(());

struct Dir<Guard> {
    dir: tempfile::TempDir,
    _guard: Guard,
}

impl<Guard> Dir<Guard> {
    fn path(&self) -> &Path {
        self.dir.path()
    }
}

fn dir_of<Guard>(guard: Guard) -> Dir<Guard> {
    Dir { dir: tempfile::tempdir().expect("a temporary directory"), _guard: guard }
}

/// For a test that starts no process.
fn dir() -> Dir<RwLockReadGuard<'static, ()>> {
    dir_of(PROCESSES.read().unwrap_or_else(PoisonError::into_inner))
}

/// For one that does.
fn dir_alone() -> Dir<RwLockWriteGuard<'static, ()>> {
    dir_of(PROCESSES.write().unwrap_or_else(PoisonError::into_inner))
}

fn set_name(store: &mut Store, value: &[u8]) {
    store.write(|batch| batch.set_meta("name", value)).expect("a working disk");
}

fn name(store: &Store) -> Option<Vec<u8>> {
    let reader = store.reader().expect("an open store");
    reader.meta("name").expect("a working disk")
}

/// Opens in `dir`, and gives the whole chain of what went wrong.
fn refused(dir: &Path) -> (OpenError, String) {
    let error = Store::open(dir, &NETWORK).expect_err("it can't be opened");
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    (error, text)
}

#[test]
fn what_was_written_is_there_after_the_store_is_opened_again() {
    let dir = dir();
    let mut store = Store::open(dir.path(), &NETWORK).expect("a first run");
    assert_eq!(name(&store), None);
    set_name(&mut store, b"one");
    drop(store);
    let store = Store::open(dir.path(), &NETWORK).expect("a second run");
    assert_eq!(name(&store).as_deref(), Some(b"one".as_slice()));
}

#[test]
fn all_files_are_their_owners_alone() {
    let dir = dir();
    let _store = Store::open(dir.path(), &NETWORK).expect("a first run");
    let mut names = Vec::new();
    for file in fs::read_dir(dir.path()).expect("the directory") {
        let file = file.expect("a file");
        let mode = file.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file:?}");
        names.push(file.file_name().into_string().expect("an ASCII name"));
    }
    names.sort();
    assert_eq!(names, ["store.created", "store.lock", "store.redb"]);
}

#[test]
fn a_lost_database_is_never_taken_for_a_first_run() {
    let dir = dir();
    drop(Store::open(dir.path(), &NETWORK).expect("a first run"));
    fs::remove_file(dir.path().join("store.redb")).expect("it is there");
    let (error, text) = refused(dir.path());
    assert!(matches!(error, OpenError::Missing { .. }), "{error:?}");
    assert!(text.contains("restore it from a backup, or delete"), "{text}");
    assert!(!dir.path().join("store.redb").exists());
    // What the sentence says helps.
    fs::remove_file(dir.path().join("store.created")).expect("it is there");
    Store::open(dir.path(), &NETWORK).expect("an empty store, as wanted");
}

#[test]
fn an_empty_database_is_refused_with_marker_and_without() {
    let dir = dir();
    drop(Store::open(dir.path(), &NETWORK).expect("a first run"));
    for marked in [true, false] {
        fs::write(dir.path().join("store.redb"), b"").expect("a writable directory");
        if !marked {
            fs::remove_file(dir.path().join("store.created")).expect("it is there");
        }
        let (error, _) = refused(dir.path());
        assert!(matches!(error, OpenError::Empty { .. }), "{error:?}");
    }
}

/// As after a crash between the two, or where only the database was restored.
#[test]
fn a_database_without_its_marker_is_opened_and_marked() {
    let dir = dir();
    let mut store = Store::open(dir.path(), &NETWORK).expect("a first run");
    set_name(&mut store, b"one");
    drop(store);
    fs::remove_file(dir.path().join("store.created")).expect("it is there");
    let store = Store::open(dir.path(), &NETWORK).expect("a database");
    assert_eq!(name(&store).as_deref(), Some(b"one".as_slice()));
    assert!(dir.path().join("store.created").exists());
}

#[test]
fn a_first_run_that_was_cut_off_begins_again() {
    let dir = dir();
    fs::write(dir.path().join("store.redb.new"), b"half a database").expect("a directory");
    Store::open(dir.path(), &NETWORK).expect("a first run");
    assert!(!dir.path().join("store.redb.new").exists());
}

#[test]
fn a_file_of_something_else_is_foreign() {
    let dir = dir();
    for bytes in [b"SQLite format 3\0 and so on".as_slice(), b"re", b"\0"] {
        fs::write(dir.path().join("store.redb"), bytes).expect("a directory");
        let (error, text) = refused(dir.path());
        assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
        assert!(text.contains("is not a store of mosaik-node"), "{text}");
        let left = fs::read(dir.path().join("store.redb")).expect("it is there");
        assert_eq!(left, bytes, "it is left alone");
    }
}

#[test]
fn a_redb_file_of_another_program_is_foreign() {
    for table in ["meta", "users"] {
        let dir = dir();
        let database = Database::create(dir.path().join("store.redb")).expect("a directory");
        let transaction = database.begin_write().expect("a working disk");
        transaction.open_table(TableDefinition::<u64, u64>::new(table)).expect("a new table");
        transaction.commit().expect("a working disk");
        drop(database);
        let (error, _) = refused(dir.path());
        assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
    }
}

#[test]
fn a_truncated_file_is_damaged_wherever_it_ends() {
    let dir = dir();
    let mut store = Store::open(dir.path(), &NETWORK).expect("a first run");
    set_name(&mut store, &[1; 10_000]);
    drop(store);
    let path = dir.path().join("store.redb");
    let whole = fs::read(&path).expect("it is there");
    for len in [4, 16, 320, 4_096, whole.len() / 2, whole.len() - 4_096] {
        fs::write(&path, &whole[..len]).expect("a working disk");
        let (error, text) = refused(dir.path());
        assert!(matches!(error, OpenError::Damaged { .. }), "{len}: {error:?}");
        assert!(text.contains("restore it from a backup"), "{text}");
    }
}

#[test]
fn the_store_of_another_network_is_refused_by_both_names() {
    let dir = dir();
    drop(Store::open(dir.path(), &Fingerprint([0xab; 32])).expect("a first run"));
    let (error, text) = refused(dir.path());
    assert!(matches!(error, OpenError::OtherNetwork { .. }), "{error:?}");
    assert!(text.contains("belongs to network ababab, not to 070707: move it away"), "{text}");
}

#[test]
fn a_newer_schema_is_refused_and_left_as_it_is() {
    let dir = dir();
    drop(Store::open(dir.path(), &NETWORK).expect("a first run"));
    let database = Database::open(dir.path().join("store.redb")).expect("a database");
    let transaction = database.begin_write().expect("a working disk");
    let newer = (SCHEMA + 1).to_le_bytes();
    let mut meta = transaction.open_table(META).expect("its table");
    meta.insert(b".schema".as_slice(), newer.as_slice()).expect("a working disk");
    drop(meta);
    transaction.commit().expect("a working disk");
    drop(database);
    let path = dir.path().join("store.redb");
    let newer = fs::read(&path).expect("it is there");
    for _ in 0..2 {
        let (error, text) = refused(dir.path());
        assert!(matches!(error, OpenError::Newer { .. }), "{error:?}");
        assert!(text.contains("install a newer one"), "{text}");
    }
    assert_eq!(fs::read(&path).expect("it is there"), newer);
}

#[test]
fn a_missing_directory_is_named() {
    let dir = dir();
    let (error, text) = refused(&dir.path().join("nowhere"));
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
    assert!(text.contains("nowhere"), "{text}");
}

#[test]
fn readers_end_with_their_store() {
    let dir = dir();
    let store = Store::open(dir.path(), &NETWORK).expect("a first run");
    let readers = store.readers();
    assert!(readers.reader().is_ok());
    drop(store);
    assert!(matches!(readers.reader(), Err(StoreError::Closed)));
    Store::open(dir.path(), &NETWORK).expect("nobody holds it");
}

/// Runs [`a_child_opens_what_it_is_told_to`] in a process of its own.
fn child(dir: &Path, user: Option<u32>) -> Output {
    // A copy, since another user may not be let into the build directory.
    let program = dir.join("child");
    fs::copy(env::current_exe().expect("this test"), &program).expect("a directory");
    let mut command = Command::new(&program);
    command
        .args(["--exact", "a_child_opens_what_it_is_told_to", "--nocapture"])
        .current_dir("/")
        .env("MOSAIK_TEST_DIR", dir.join("data"));
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    command.output().expect("a process")
}

/// Nothing by itself: the other half of the tests below.
#[test]
#[allow(clippy::print_stdout, reason = "it is how the child answers")]
fn a_child_opens_what_it_is_told_to() {
    let Some(dir) = env::var_os("MOSAIK_TEST_DIR") else {
        return;
    };
    match Store::open(Path::new(&dir), &NETWORK) {
        Ok(_) => println!("opened"),
        Err(error) => println!("refused: {error} ({error:?})"),
    }
}

#[test]
fn a_second_process_is_told_who_holds_the_store() {
    let dir = dir_alone();
    let data = dir.path().join("data");
    fs::create_dir(&data).expect("a directory");
    let store = Store::open(&data, &NETWORK).expect("a first run");
    let held = format!("another mosaik-node holds this data directory (pid {})", process::id());
    let out = String::from_utf8_lossy(&child(dir.path(), None).stdout).into_owned();
    assert!(out.contains(&held), "{out}");
    // The same within one process.
    let (error, text) = refused(&data);
    assert!(matches!(error, OpenError::Held { pid: Some(_) }), "{error:?}");
    assert_eq!(text, held);
    drop(store);
    let out = String::from_utf8_lossy(&child(dir.path(), None).stdout).into_owned();
    assert!(out.contains("opened"), "{out}");
}

/// Another program that knows redb but not our lock.
#[test]
fn a_database_that_redb_itself_finds_open_is_held_too() {
    let dir = dir();
    drop(Store::open(dir.path(), &NETWORK).expect("a first run"));
    let _other = Database::open(dir.path().join("store.redb")).expect("a database");
    let (error, text) = refused(dir.path());
    assert!(matches!(error, OpenError::Held { pid: None }), "{error:?}");
    assert!(text.contains("holds this data directory"), "{text}");
}

/// Root may write everywhere, so a child does this as nobody; without root this process is enough.
#[test]
fn a_directory_that_may_not_be_written_is_named() {
    const NOBODY: u32 = 65_534;
    let dir = dir_alone();
    let data = dir.path().join("data");
    fs::create_dir(&data).expect("a directory");
    for path in [dir.path(), &data] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o555)).expect("own directory");
    }
    let root = fs::write(data.join("try"), b"").is_ok();
    let text = if root {
        let out = child(dir.path(), Some(NOBODY));
        String::from_utf8_lossy(&out.stdout).into_owned()
    } else {
        let (error, text) = refused(&data);
        format!("{text} ({error:?})")
    };
    let path = data.join("store.lock");
    assert!(text.contains(&format!("can't write to {}", path.display())), "{text}");
    assert!(text.contains("PermissionDenied"), "{text}");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("own directory");
}
