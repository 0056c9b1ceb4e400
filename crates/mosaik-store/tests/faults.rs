//! What a disk that fails, or lies, can and can't do to a store.

use std::{
    io::{self, ErrorKind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use mosaik_core::{
    event::{Event, Hasher, Kind, Payload},
    feed::{BranchId, Ledger, Missing, Tip, Way},
    hlc::Hlc,
    id::{AuthorId, EventId, Fingerprint},
    kv::{Kv, KvMut},
    run::{Entry, chain},
};
use mosaik_store::{MemoryDisk, OpenError, Reader, Store, StoreError};
use redb::{Builder, ReadableTable, StorageBackend, TableDefinition};

const NETWORK: Fingerprint = Fingerprint([7; 32]);
const BLOCKS: TableDefinition<(u32, u64), &[u8]> = TableDefinition::new("blocks");

fn events(after: Tip, payload_lens: &[usize]) -> Vec<Event> {
    let entries = payload_lens.iter().enumerate().map(|(i, len)| Entry {
        hlc: Hlc::new(1_700_000_000_000 + i as u64, 0),
        kind: Kind::new("telemetry.sample").expect("a kind"),
        payload: Payload::Present(vec![i as u8; *len]),
    });
    let entries = entries.collect();
    chain(&Hasher::new(&NETWORK), AuthorId([1; 32]), after.seq + 1, after.id, entries)
}

/// Appends to the first branch, which is begun if there is none.
fn append(store: &mut Store, payload_lens: &[usize]) -> Result<Vec<Event>, StoreError> {
    store.write(|batch| {
        let (branch, tip) = match batch.branches()?.first() {
            Some(branch) => (branch.id, branch.tip),
            None => (batch.begin_branch(AuthorId([1; 32]), None)?, Tip::ROOT),
        };
        let events = events(tip, payload_lens);
        batch.append(branch, &events, &[9; 64], Way::Own, 1)?;
        batch.put(b"last", events.last().map_or(b"", |event| event.id.as_bytes()))?;
        Ok(events)
    })
}

fn held(reader: &Reader) -> Result<Vec<Event>, StoreError> {
    reader.events(BranchId(0), 1, u64::MAX, usize::MAX)
}

fn held_now(store: &Store) -> Vec<Event> {
    let reader = store.reader().expect("an open store");
    held(&reader).expect("undamaged events")
}

#[test]
fn after_a_failed_write_nothing_of_it_is_there_and_reads_go_on_until_it_is_reopened() {
    for (kind, full) in [(ErrorKind::StorageFull, true), (ErrorKind::Other, false)] {
        let disk = MemoryDisk::default();
        let mut store = Store::on_backend(disk.clone(), &NETWORK).expect("a new store");
        let mut kept = append(&mut store, &[10, 20]).expect("a working disk");
        let old = store.reader().expect("an open store");

        disk.fail(kind);
        let error = append(&mut store, &[30]).expect_err("a failing disk");
        assert_eq!(matches!(error, StoreError::Full(_)), full, "{error:?}");
        assert_eq!(matches!(error, StoreError::Io(_)), !full, "{error:?}");
        assert!(store.is_poisoned());
        assert_eq!(held_now(&store), kept);

        // The disk works again, but nobody has looked at the file yet.
        disk.mend();
        let error = append(&mut store, &[30]).expect_err("a poisoned store");
        assert!(matches!(error, StoreError::Poisoned), "{error:?}");
        assert_eq!(held_now(&store), kept);

        store.reopen().expect("a working disk");
        assert!(!store.is_poisoned());
        assert_eq!(held_now(&store), kept);
        match held(&old) {
            Ok(events) => assert_eq!(events, kept, "from pages still in memory"),
            Err(error) => assert!(matches!(error, StoreError::Closed), "{error:?}"),
        }
        kept.extend(append(&mut store, &[30]).expect("a working disk"));
        assert_eq!(held_now(&store), kept);
        drop(store);
        let store = Store::on_backend(disk, &NETWORK).expect("its own store");
        assert_eq!(held_now(&store), kept);
    }
}

#[test]
fn a_store_that_can_not_be_reopened_yet_can_be_later() {
    let disk = MemoryDisk::default();
    let mut store = Store::on_backend(disk.clone(), &NETWORK).expect("a new store");
    let kept = append(&mut store, &[10]).expect("a working disk");
    disk.fail(ErrorKind::StorageFull);
    append(&mut store, &[20]).expect_err("a failing disk");
    let error = store.reopen().expect_err("a failing disk");
    assert!(matches!(error, OpenError::Unwritable { .. }), "{error:?}");
    assert!(store.is_poisoned());
    assert!(matches!(store.reader(), Err(StoreError::Closed)));
    disk.mend();
    store.reopen().expect("a working disk");
    assert_eq!(held_now(&store), kept);
}

/// Writes arrive, syncs fail: what the batch became nobody knows before the file is looked at again.
#[derive(Debug, Clone, Default)]
struct Unsynced {
    disk: MemoryDisk,
    failing: Arc<AtomicBool>,
}

impl StorageBackend for Unsynced {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        if self.failing.load(Ordering::SeqCst) {
            return Err(io::Error::other("injected"));
        }
        self.disk.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write(offset, data)
    }
}

#[test]
fn a_batch_whose_sync_failed_is_there_whole_or_not_at_all() {
    let disk = Unsynced::default();
    let mut store = Store::on_backend(disk.clone(), &NETWORK).expect("a new store");
    let kept = append(&mut store, &[10, 20]).expect("a working disk");
    disk.failing.store(true, Ordering::SeqCst);
    let error = append(&mut store, &[30, 40]).expect_err("a failing disk");
    assert!(matches!(error, StoreError::Io(_)), "{error:?}");
    assert_eq!(held_now(&store), kept);
    disk.failing.store(false, Ordering::SeqCst);
    store.reopen().expect("a working disk");
    let held = held_now(&store);
    assert_eq!(held[..2], kept);
    assert!([2, 4].contains(&held.len()), "{} events", held.len());
    let last = store.reader().and_then(|reader| reader.get(b"last"));
    let last = last.expect("a working disk").expect("it was put");
    assert_eq!(last, held[held.len() - 1].id.as_bytes(), "the view goes with the events");
    append(&mut store, &[50]).expect("a working disk");
}

/// The disk of a real node is tried first: while it is full, the database stays open for reads.
#[test]
fn on_files_reads_go_on_while_the_disk_takes_no_writes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut store = Store::open(dir.path(), &NETWORK).expect("a first run");
    let kept = append(&mut store, &[10]).expect("a working disk");
    // Where the probe should be written there is a directory.
    std::fs::create_dir(dir.path().join("store.probe")).expect("a directory");
    store.reopen().expect_err("a probe that can't be written");
    assert!(store.is_poisoned());
    assert_eq!(held_now(&store), kept);
    std::fs::remove_dir(dir.path().join("store.probe")).expect("it is there");
    store.reopen().expect("a working disk");
    assert_eq!(held_now(&store), kept);
    append(&mut store, &[20]).expect("a working disk");
}

#[test]
fn what_fails_in_the_work_itself_leaves_nothing_and_poisons_nothing() {
    let mut store = Store::on_backend(MemoryDisk::default(), &NETWORK).expect("a new store");
    let kept = append(&mut store, &[10]).expect("a working disk");
    #[derive(Debug)]
    enum Own {
        Mine,
        Store,
    }
    impl From<StoreError> for Own {
        fn from(_: StoreError) -> Self {
            Self::Store
        }
    }
    let outcome = store.write(|batch| {
        let tip = Tip::from(&kept[0]);
        batch.append(BranchId(0), &events(tip, &[1]), &[9; 64], Way::Own, 1)?;
        batch.put(b"last", b"never")?;
        batch.set_meta("name", b"never")?;
        assert_eq!(batch.counts()?.events, 2);
        Err::<(), _>(Own::Mine)
    });
    assert!(matches!(outcome, Err(Own::Mine)));
    assert!(!store.is_poisoned());
    let reader = store.reader().expect("an open store");
    assert_eq!(held(&reader).expect("undamaged events"), kept);
    assert_eq!(reader.counts().expect("a working disk").events, 1);
    assert_eq!(reader.last_arrival().expect("a working disk"), 1);
    assert_eq!(reader.meta("name").expect("a working disk"), None);
    let last = reader.get(b"last").expect("a working disk");
    assert_eq!(last.as_deref(), Some(kept[0].id.as_bytes().as_slice()));
}

/// On a disk that fails every write, a batch that wrote nothing succeeds.
#[test]
fn a_batch_without_writes_does_not_touch_the_disk() {
    let disk = MemoryDisk::default();
    let mut store = Store::on_backend(disk.clone(), &NETWORK).expect("a new store");
    append(&mut store, &[10]).expect("a working disk");
    disk.fail(ErrorKind::StorageFull);
    let counts = store.write(|batch| {
        batch.delete(b"not there")?;
        assert!(batch.release(u64::MAX, 10)?.is_empty());
        batch.fill(BranchId(0), 1, &[0; 10])?;
        batch.counts()
    });
    assert_eq!(counts.expect("nothing was written").events, 1);
}

#[test]
fn events_that_do_not_follow_the_tip_are_refused() {
    let mut store = Store::on_backend(MemoryDisk::default(), &NETWORK).expect("a new store");
    let kept = append(&mut store, &[10, 20]).expect("a working disk");
    let tip = Tip::from(&kept[1]);
    let gap = Tip { seq: 3, id: tip.id };
    let stranger = Tip { seq: 2, id: EventId([5; 32]) };
    for before in [Tip::ROOT, Tip::from(&kept[0]), gap, stranger] {
        let misplaced = store
            .write(|batch| batch.append(BranchId(0), &events(before, &[1]), &[9; 64], Way::Own, 1));
        assert!(matches!(misplaced, Err(StoreError::Misplaced { .. })), "{misplaced:?}");
    }
    let mut torn = events(tip, &[1, 2, 3]);
    torn.remove(1);
    let misplaced = store.write(|batch| batch.append(BranchId(0), &torn, &[9; 64], Way::Own, 1));
    assert!(matches!(misplaced, Err(StoreError::Misplaced { .. })), "{misplaced:?}");
    let nowhere =
        store.write(|batch| batch.begin_branch(AuthorId([1; 32]), Some((BranchId(0), 3))));
    assert!(matches!(nowhere, Err(StoreError::Misplaced { .. })), "{nowhere:?}");
    assert!(!store.is_poisoned());
    assert_eq!(held_now(&store), kept);
}

/// A database of 40 events in several blocks, closed.
fn written(disk: &MemoryDisk) -> Vec<Event> {
    let mut store = open(disk);
    append(&mut store, &[400; 40]).expect("a working disk")
}

fn open(disk: &MemoryDisk) -> Store {
    Store::on_backend(disk.clone(), &NETWORK).expect("its tables are whole")
}

fn change(disk: &MemoryDisk, change: impl FnOnce(&mut redb::Table<'_, (u32, u64), &'static [u8]>)) {
    let database = Builder::new().create_with_backend(disk.clone()).expect("a database");
    let transaction = database.begin_write().expect("a working disk");
    change(&mut transaction.open_table(BLOCKS).expect("its table"));
    transaction.commit().expect("a working disk");
}

fn block(table: &redb::Table<'_, (u32, u64), &'static [u8]>, nth: usize) -> (u64, Vec<u8>) {
    let mut rows = table.iter().expect("a working disk");
    let (key, bytes) = rows.nth(nth).expect("a block").expect("a working disk");
    (key.value().1, bytes.value().to_vec())
}

/// Each bit of a middle and of the last block: its head, its stamps, its payloads.
#[test]
fn a_flipped_bit_in_a_block_is_an_error_and_never_another_event() {
    let disk = MemoryDisk::default();
    let kept = written(&disk);
    for nth in [1, 4] {
        let mut whole = Vec::new();
        change(&disk, |table| whole = block(table, nth).1);
        for bit in (0..whole.len() * 8).step_by(whole.len() / 8 * 8 / 37 + 1) {
            let mut first_seq = 0;
            change(&disk, |table| {
                let (seq, mut bytes) = block(table, nth);
                bytes[bit / 8] ^= 1 << (bit % 8);
                table.insert((0, seq), bytes.as_slice()).expect("a working disk");
                first_seq = seq;
            });
            let store = open(&disk);
            let reader = store.reader().expect("an open store");
            let error = held(&reader).expect_err("a damaged block");
            assert!(matches!(error, StoreError::Corrupt { table: "blocks", .. }), "{error:?}");
            // What lies in other blocks is read as before. A base is its own block's and the one before's.
            let before = reader.events(BranchId(0), 1, 1, usize::MAX);
            assert!(before.is_err() || before.is_ok_and(|events| events == kept[..1]), "bit {bit}");
            drop(reader);
            drop(store);
            change(&disk, |table| {
                table.insert((0, first_seq), whole.as_slice()).expect("a working disk");
            });
        }
    }
    let store = open(&disk);
    assert_eq!(held_now(&store), kept);
}

#[test]
fn a_lost_block_is_an_error_wherever_it_stood() {
    for nth in 0..5 {
        let disk = MemoryDisk::default();
        written(&disk);
        let mut lost = 0;
        change(&disk, |table| {
            lost = block(table, nth).0;
            table.remove((0, lost)).expect("a working disk");
        });
        let store = open(&disk);
        let reader = store.reader().expect("an open store");
        let error = held(&reader).expect_err("a lost block");
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
        let error = reader.id_at(BranchId(0), lost).expect_err("a lost block");
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    }
}

/// Else one bad sector would silence an author for good.
#[test]
fn a_feed_whose_open_block_is_damaged_is_reported_and_goes_on_after_it() {
    let disk = MemoryDisk::default();
    let kept = written(&disk);
    change(&disk, |table| {
        let (seq, _) = block(table, 4);
        table.insert((0, seq), [0xff; 100].as_slice()).expect("a working disk");
    });
    let mut store = open(&disk);
    assert_eq!(store.damage().len(), 1);
    let new = append(&mut store, &[10]).expect("a working disk");
    assert_eq!(new[0].prev, kept[39].id);
    let reader = store.reader().expect("an open store");
    let read = reader.events(BranchId(0), 41, 41, usize::MAX);
    assert_eq!(read.expect("an undamaged block"), new);
    assert_eq!(reader.id_at(BranchId(0), 41).expect("the tip"), Some(new[0].id));
}

#[test]
fn a_filled_payload_makes_its_block_two_without_changing_an_id() {
    let mut store = Store::on_backend(MemoryDisk::default(), &NETWORK).expect("a new store");
    let whole = events(Tip::ROOT, &[100, 3_000, 100, 65_536, 100]);
    let mut sparse = whole.clone();
    for event in &mut sparse {
        if event.payload.len() > 100 {
            let (len, hash) = (event.payload.len() as u32, event.payload.hash());
            event.payload = Payload::Absent { len, hash };
        }
    }
    let appended = store.write(|batch| {
        let branch = batch.begin_branch(AuthorId([1; 32]), None)?;
        batch.append(branch, &sparse, &[9; 64], Way::Session, 1)
    });
    appended.expect("a working disk");
    assert_eq!(held_now(&store), sparse);
    let missing = |store: &Store| -> Vec<Missing> {
        let reader = store.reader().expect("an open store");
        reader.missing(None, 10).expect("a working disk")
    };
    let listed: Vec<Tip> = missing(&store).iter().map(|entry| entry.tip).collect();
    assert_eq!(listed, [Tip::from(&whole[1]), Tip::from(&whole[3])]);
    for seq in [4u64, 2] {
        let payload = whole[seq as usize - 1].payload.bytes().expect("it is here");
        store.write(|batch| batch.fill(BranchId(0), seq, payload)).expect("a working disk");
    }
    assert_eq!(held_now(&store), whole);
    assert_eq!(missing(&store), []);
    let after = append(&mut store, &[5]).expect("a working disk");
    assert_eq!(held_now(&store), [whole, after].concat());
}

#[test]
fn snapshots_may_be_read_by_several_threads() {
    fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    let store = Store::on_backend(MemoryDisk::default(), &NETWORK).expect("a new store");
    shared(&store.readers());
    shared(&store.reader().expect("an open store"));
}
