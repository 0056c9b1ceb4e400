//! The store on redb and the model in memory are one and the same to whoever uses them as a ledger.
//!
//! Random batches go to both, are committed, given up or lost to a failing disk in both, and all that
//! can be read is compared: of the batch that is still open, and of a snapshot after it.

use std::io::ErrorKind;

use mosaik_core::{
    event::{Event, Hasher, Kind, Payload},
    feed::{Branch, BranchId, Ledger, Missing, Way},
    hlc::Hlc,
    id::{AuthorId, Fingerprint},
    kv::{Kv, Order},
    run::{Entry, chain},
};
use mosaik_sim::disk::MemoryLedger;
use mosaik_store::{Batch, MemoryDisk, Reader, Store, StoreError};
use proptest::{prelude::*, sample::Index};

const NETWORK: Fingerprint = Fingerprint([7; 32]);

/// One event to append: stamp, kind, payload.
#[derive(Debug, Clone)]
struct Sketch {
    ms: u64,
    counter: u16,
    kind: u8,
    payload_len: usize,
    present: bool,
}

#[derive(Debug, Clone)]
enum Op {
    Author(u8),
    Fork(Index, Index),
    Append(Index, Vec<Sketch>),
    Fill(Index),
    HoldBack(Index, Index),
    Release(u64, usize),
    Put(u8, u8),
    Delete(u8),
    SetMeta(u8, u8),
    Read(Index, u64, u64, usize),
}

#[derive(Debug, Clone, Copy)]
enum End {
    Commit,
    GiveUp,
    DiskFails,
    Restart,
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let len = prop_oneof![
        20 => 0usize..300,
        3 => 1_000usize..6_000,
        1 => Just(65_536usize),
    ];
    let ms = prop_oneof![1_000_000u64..1_000_400, 0u64..1 << 48];
    let counter = prop_oneof![3 => Just(0u16), 1 => any::<u16>()];
    (ms, counter, 0u8..5, len, any::<bool>()).prop_map(|(ms, counter, kind, len, present)| Sketch {
        ms,
        counter,
        kind,
        payload_len: len,
        present: present || len == 0,
    })
}

fn op() -> impl Strategy<Value = Op> {
    let some = any::<Index>;
    prop_oneof![
        2 => (0u8..3).prop_map(Op::Author),
        1 => (some(), some()).prop_map(|(branch, seq)| Op::Fork(branch, seq)),
        8 => (some(), proptest::collection::vec(sketch(), 1..60))
            .prop_map(|(branch, events)| Op::Append(branch, events)),
        4 => some().prop_map(Op::Fill),
        2 => (some(), some()).prop_map(|(branch, seq)| Op::HoldBack(branch, seq)),
        1 => (0u64..1 << 48, 0usize..4).prop_map(|(until_ms, max)| Op::Release(until_ms, max)),
        2 => any::<(u8, u8)>().prop_map(|(key, value)| Op::Put(key % 16, value)),
        1 => any::<u8>().prop_map(|key| Op::Delete(key % 16)),
        1 => (0u8..4, any::<u8>()).prop_map(|(name, value)| Op::SetMeta(name, value)),
        3 => (some(), 0u64..120, 0u64..120, 0usize..9_000)
            .prop_map(|(branch, from, to, bytes_max)| Op::Read(branch, from, to, bytes_max)),
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        6 => Just(End::Commit),
        1 => Just(End::GiveUp),
        1 => Just(End::DiskFails),
        1 => Just(End::Restart),
    ]
}

/// Bytes that follow from the event's place, so that a missing payload can be made again.
fn payload(author: AuthorId, seq: u64, len: usize) -> Vec<u8> {
    let seed = (u64::from(author.0[0]) << 32 | seq).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let byte = |i: usize| (seed >> (i % 8 * 8)) as u8 ^ i as u8;
    (0..len).map(byte).collect()
}

/// Does `op`, and tells all that came of it.
fn apply<L: Ledger>(ledger: &mut L, op: &Op) -> String {
    let branches = ledger.branches().expect("a working store");
    let pick = |index: &Index| branches[index.index(branches.len())].clone();
    let alone = branches.is_empty() && !matches!(op, Op::Author(_));
    match op {
        _ if alone => String::new(),
        Op::Author(author) => {
            let begun = ledger.begin_branch(AuthorId([*author; 32]), None);
            format!("{:?}", begun.expect("a working store"))
        }
        Op::Fork(branch, at) => {
            let parent = pick(branch);
            let len = (parent.tip.seq + 1 - parent.first_seq()) as usize;
            if len == 0 {
                return String::new();
            }
            let seq = parent.first_seq() + at.index(len) as u64;
            let begun = ledger.begin_branch(parent.author, Some((parent.id, seq)));
            format!("{:?}", begun.expect("a working store"))
        }
        Op::Append(branch, sketches) => {
            let branch = pick(branch);
            let events = events_after(&branch, sketches);
            let signature = [sketches.len() as u8; 64];
            let way = Way::from_u8(sketches.len() as u8 % 3).expect("three ways");
            ledger
                .append(branch.id, &events, &signature, way, sketches[0].ms)
                .expect("a working store");
            String::new()
        }
        Op::Fill(index) => {
            let missing = ledger.missing(None, 1_000).expect("a working store");
            if missing.is_empty() {
                return String::new();
            }
            let Missing { author, branch, tip } = missing[index.index(missing.len())];
            let event = ledger.events(branch, tip.seq, tip.seq, 0);
            let len = event.expect("a working store")[0].payload.len();
            // The second fill of the same finds it there.
            for _ in 0..2 {
                ledger
                    .fill(branch, tip.seq, &payload(author, tip.seq, len))
                    .expect("a working store");
            }
            format!("{tip:?}")
        }
        Op::HoldBack(branch, seq) => {
            let branch = pick(branch);
            let seq = seq.index(branch.tip.seq as usize + 1) as u64;
            let hlc = Hlc::new(seq * 1_000, seq as u16);
            let before = ledger.is_held_back(hlc, branch.id, seq);
            ledger.hold_back(hlc, branch.id, seq).expect("a working store");
            let after = ledger.is_held_back(hlc, branch.id, seq);
            format!("{:?}", (before.is_ok_and(|held| held), after.ok()))
        }
        Op::Release(until_ms, max) => {
            let released = ledger.release(*until_ms, *max);
            format!("{:?}", released.expect("a working store"))
        }
        Op::Put(key, value) => {
            ledger.put(&[*key], &[*value; 3]).expect("a working store");
            String::new()
        }
        Op::Delete(key) => {
            ledger.delete(&[*key]).expect("a working store");
            String::new()
        }
        Op::SetMeta(name, value) => {
            ledger.set_meta(&format!("name-{name}"), &[*value; 2]).expect("a working store");
            String::new()
        }
        Op::Read(branch, from, to, bytes_max) => {
            let id = pick(branch).id;
            let events = ledger.events(id, *from, *to, *bytes_max);
            let id_at = ledger.id_at(id, *from);
            let signed = ledger.signed_from(id, *from);
            let signed_up_to = ledger.signed_up_to(id, *from, *to);
            format!(
                "{:?}",
                (
                    events.expect("a working store"),
                    id_at.expect("a working store"),
                    signed.expect("a working store"),
                    signed_up_to.expect("a working store")
                )
            )
        }
    }
}

fn events_after(branch: &Branch, sketches: &[Sketch]) -> Vec<Event> {
    let start = branch.tip.seq + 1;
    let entries = (start..).zip(sketches).map(|(seq, sketch)| {
        let present = Payload::Present(payload(branch.author, seq, sketch.payload_len));
        Entry {
            hlc: Hlc::new(sketch.ms, sketch.counter),
            kind: Kind::new(&format!("kind.{}", sketch.kind)).expect("a kind"),
            payload: match sketch.present {
                true => present,
                false => Payload::Absent { len: sketch.payload_len as u32, hash: present.hash() },
            },
        }
    });
    let hasher = Hasher::new(&NETWORK);
    chain(&hasher, branch.author, start, branch.tip.id, entries.collect())
}

/// All that can be read, by the names that ledger and snapshot share.
macro_rules! all_of {
    ($from:expr) => {{
        let from = $from;
        let branches = from.branches().expect("a working store");
        let feeds: Vec<_> = branches
            .iter()
            .map(|branch| {
                let (id, last) = (branch.id, branch.tip.seq);
                let ids: Vec<_> = (0..last + 2)
                    .map(|seq| from.id_at(id, seq).expect("a working store"))
                    .collect();
                let signed: Vec<_> = (0..last + 2)
                    .map(|seq| from.signed_from(id, seq).expect("a working store"))
                    .collect();
                let events = from.events(id, branch.first_seq(), u64::MAX, usize::MAX);
                (events.expect("a working store"), ids, signed)
            })
            .collect();
        let missing = from.missing(None, usize::MAX).expect("a working store");
        let paged = pages(|after| from.missing(after, 2).expect("a working store"));
        assert_eq!(missing, paged);
        let meta: Vec<_> = (0..4)
            .map(|name| from.meta(&format!("name-{name}")).expect("a working store"))
            .collect();
        let counts = from.counts().expect("a working store");
        let view = [Order::Ascending, Order::Descending].map(|order| view(from, order));
        (branches, feeds, missing, meta, counts, view)
    }};
}

fn pages(page: impl Fn(Option<&Missing>) -> Vec<Missing>) -> Vec<Missing> {
    let mut all: Vec<Missing> = Vec::new();
    loop {
        let next = page(all.last());
        if next.is_empty() {
            return all;
        }
        all.extend(next);
    }
}

/// The middle of the view, the first ten of it.
fn view(kv: &impl Kv, order: Order) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    kv.range(&[2], &[14], order, &mut |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        rows.len() < 10
    })
    .expect("a working store");
    rows
}

fn check_batch(batch: &Batch<'_>, model: &MemoryLedger) {
    assert_eq!(all_of!(batch), all_of!(model), "in the batch");
    let arrivals = batch.arrivals(0, usize::MAX).expect("a working store");
    assert_eq!(arrivals, model.arrivals(0, usize::MAX));
}

fn check_snapshot(reader: &Reader, model: &MemoryLedger) {
    assert_eq!(all_of!(reader), all_of!(model), "in the snapshot");
    let last = reader.last_arrival().expect("a working store");
    for after in [0, 1, last / 2, last, last + 1, u64::MAX] {
        for max in [0, 1, 3, usize::MAX] {
            let arrivals = reader.arrivals(after, max).expect("a working store");
            assert_eq!(arrivals, model.arrivals(after, max));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(192) })]

    #[test]
    fn the_store_answers_as_the_model_does(
        batches in proptest::collection::vec(
            (proptest::collection::vec(op(), 0..12), end()),
            1..8,
        ),
    ) {
        let disk = MemoryDisk::default();
        let mut store = Store::on_backend(disk.clone(), &NETWORK).expect("a new store");
        let mut model = MemoryLedger::default();
        for (ops, end) in batches {
            let readers = store.readers();
            let written = store.write(|batch| {
                for op in &ops {
                    assert_eq!(apply(batch, op), apply(&mut model, op), "{op:?}");
                }
                check_batch(batch, &model);
                match end {
                    End::GiveUp => Err(StoreError::Poisoned),
                    End::DiskFails => {
                        disk.fail(ErrorKind::StorageFull);
                        Ok(())
                    }
                    End::Commit | End::Restart => Ok(()),
                }
            });
            match written {
                Ok(()) => model.commit(),
                Err(_) => model.crash(),
            }
            let snapshot = readers.reader().expect("reads go on");
            check_snapshot(&snapshot, &model);
            disk.mend();
            match end {
                End::DiskFails => store.reopen().expect("a disk that works again"),
                End::Restart => {
                    drop(store);
                    store = Store::on_backend(disk.clone(), &NETWORK).expect("its own store");
                }
                End::Commit | End::GiveUp => {}
            }
            prop_assert!(store.damage().is_empty());
            check_snapshot(&store.reader().expect("an open store"), &model);
        }
    }
}

#[test]
fn an_append_of_a_thousand_events_is_read_back_whole() {
    let mut store = Store::on_backend(MemoryDisk::default(), &NETWORK).expect("a new store");
    let mut model = MemoryLedger::default();
    let sketch = |i: u64| Sketch {
        ms: 1_000_000 + i,
        counter: 0,
        kind: (i % 5) as u8,
        payload_len: i as usize % 200,
        present: !i.is_multiple_of(7) || i.is_multiple_of(200),
    };
    let ops = [
        Op::Author(1),
        Op::Append(any_index(), (0..1_024).map(sketch).collect()),
        Op::Append(any_index(), (1_024..2_000).map(sketch).collect()),
    ];
    store
        .write(|batch| {
            for op in &ops {
                apply(batch, op);
                apply(&mut model, op);
            }
            Ok::<_, StoreError>(())
        })
        .expect("a working store");
    check_snapshot(&store.reader().expect("an open store"), &model);
    let counts = store.reader().and_then(|reader| reader.counts());
    assert_eq!(counts.expect("an open store").events, 2_000);
}

/// A path through a fork may be asked for from below it.
#[test]
fn events_asked_from_before_a_branch_begin_with_its_first() {
    let mut store = Store::on_backend(MemoryDisk::default(), &NETWORK).expect("a new store");
    let mut model = MemoryLedger::default();
    let sketch = |ms| Sketch { ms, counter: 0, kind: 0, payload_len: 10, present: true };
    let written: Result<(), StoreError> = store.write(|batch| {
        for op in [Op::Author(1), Op::Append(any_index(), (0..10).map(sketch).collect())] {
            apply(batch, &op);
            apply(&mut model, &op);
        }
        let fork = batch.begin_branch(AuthorId([1; 32]), Some((BranchId(0), 6)))?;
        let begun = model.begin_branch(AuthorId([1; 32]), Some((BranchId(0), 6)));
        assert_eq!(Ok(fork), begun);
        let branch = batch.branches()?[1].clone();
        let events = events_after(&branch, &[sketch(1), sketch(2), sketch(3)]);
        batch.append(fork, &events, &[9; 64], Way::Session, 1)?;
        for (from, to, first) in [(1, 8, 0), (6, 9, 0), (8, 8, 1)] {
            let expected = &events[first..(to as usize - 6)];
            assert_eq!(batch.events(fork, from, to, usize::MAX)?, expected);
        }
        for (from, to) in [(1, 6), (10, 20), (9, 8), (0, 0)] {
            assert_eq!(batch.events(fork, from, to, usize::MAX)?, []);
        }
        Ok(())
    });
    written.expect("a working store");
}

/// Any index of a list of one.
fn any_index() -> Index {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let tree = any::<Index>().new_tree(&mut runner);
    tree.expect("an index").current()
}
