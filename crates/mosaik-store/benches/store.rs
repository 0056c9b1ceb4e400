//! What durable appends cost, beside what the same bytes cost in redb alone, one row an event.
//!
//! All on files: `TMPDIR` says on which disk.

#![allow(clippy::print_stderr, reason = "criterion has no place for bytes on disk")]

use std::{hint::black_box, os::unix::fs::MetadataExt, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mosaik_core::{
    event::{Event, Hasher, Kind, Payload},
    feed::{BranchId, Ledger, Tip, Way},
    hlc::Hlc,
    id::{AuthorId, Fingerprint},
    limits::RUN_EVENTS_MAX,
    run::{Entry, chain},
};
use mosaik_store::{Store, StoreError};
use redb::{Builder, Database, TableDefinition};
use tempfile::TempDir;

const NETWORK: Fingerprint = Fingerprint([7; 32]);
const ROWS: TableDefinition<(u32, u64), &[u8]> = TableDefinition::new("events");
const PAYLOAD_LEN: usize = 150;
const INGEST_EVENTS: usize = 100_000;
/// Events of one commit of an ingest.
const COMMIT_EVENTS: usize = 10_000;

fn events(author: u32, after: Tip, count: usize) -> Vec<Event> {
    let kind = Kind::new("telemetry.sample").expect("a kind");
    let entries = (0..count as u64).map(|i| {
        let n = after.seq + i;
        let byte = |at: u64| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (at % 57)) as u8;
        Entry {
            hlc: Hlc::new(1_790_000_000_000 + n * 600, 0),
            kind: kind.clone(),
            payload: Payload::Present((0..PAYLOAD_LEN as u64).map(byte).collect()),
        }
    });
    let mut name = [0; 32];
    name[..4].copy_from_slice(&author.to_be_bytes());
    let hasher = Hasher::new(&NETWORK);
    let entries = entries.collect();
    chain(&hasher, AuthorId(name), after.seq + 1, after.id, entries)
}

fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(dir.path(), &NETWORK).expect("a new store");
    (dir, store)
}

fn redb_alone() -> (TempDir, Database) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let database = Builder::new()
        .set_cache_size(mosaik_store::CACHE_LEN)
        .create(dir.path().join("store.redb"))
        .expect("a new database");
    (dir, database)
}

/// One durable commit of these rows.
fn insert(database: &Database, author: u32, events: &[Event]) {
    let transaction = database.begin_write().expect("a working disk");
    let mut rows = transaction.open_table(ROWS).expect("its table");
    for event in events {
        let bytes = event.payload.bytes().expect("it is here");
        rows.insert((author, event.seq), bytes).expect("a working disk");
    }
    drop(rows);
    transaction.commit().expect("a working disk");
}

/// One durable commit of these events of one author, in runs.
fn append(store: &mut Store, branch: BranchId, events: &[Event]) {
    let appended: Result<(), StoreError> = store.write(|batch| {
        for run in events.chunks(RUN_EVENTS_MAX) {
            batch.append(branch, run, &[9; 64], Way::Session, 1)?;
        }
        Ok(())
    });
    appended.expect("a working disk");
}

fn begin(store: &mut Store, authors: u32) {
    let begun: Result<(), StoreError> = store.write(|batch| {
        for author in 0..authors {
            let first = events(author, Tip::ROOT, 1);
            batch.begin_branch(first[0].author, None)?;
        }
        Ok(())
    });
    begun.expect("a working disk");
}

/// Appends of `count` events, each durable before the next.
fn appends(criterion: &mut Criterion, name: &str, count: usize) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(count as u64));
    let (_dir, mut store) = store();
    begin(&mut store, 1);
    let mut tip = Tip::ROOT;
    group.bench_function("store", |bencher| {
        bencher.iter_batched(
            || {
                let next = events(0, tip, count);
                tip = next.last().map_or(tip, Tip::from);
                next
            },
            |events| append(&mut store, BranchId(0), &events),
            BatchSize::PerIteration,
        );
    });
    let (_dir, database) = redb_alone();
    let mut tip = Tip::ROOT;
    group.bench_function("redb_alone", |bencher| {
        bencher.iter_batched(
            || {
                let next = events(0, tip, count);
                tip = next.last().map_or(tip, Tip::from);
                next
            },
            |events| insert(&database, 0, &events),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn append_one_by_one(criterion: &mut Criterion) {
    appends(criterion, "append_one_by_one", 1);
}

fn append_by_thousands(criterion: &mut Criterion) {
    appends(criterion, "append_by_1000", 1_000);
}

/// The feeds of an ingest: all events of each author.
fn feeds(authors: u32) -> Vec<Vec<Event>> {
    let each = INGEST_EVENTS / authors as usize;
    (0..authors).map(|author| events(author, Tip::ROOT, each)).collect()
}

/// Commits of [`COMMIT_EVENTS`], feeds one after the other, a run each time.
fn ingest_store(store: &mut Store, feeds: &[Vec<Event>]) {
    begin(store, feeds.len() as u32);
    let mut runs = (0..)
        .zip(feeds)
        .flat_map(|(branch, events)| {
            events.chunks(RUN_EVENTS_MAX).map(move |run| (BranchId(branch), run))
        })
        .peekable();
    while runs.peek().is_some() {
        let ingested: Result<(), StoreError> = store.write(|batch| {
            let mut events = 0;
            while events < COMMIT_EVENTS
                && let Some((branch, run)) = runs.next()
            {
                events += run.len();
                batch.append(branch, run, &[9; 64], Way::Session, 1)?;
            }
            Ok(())
        });
        ingested.expect("a working disk");
    }
}

/// Runs of 10 events, feeds by turns: every block is rewritten several times.
fn ingest_by_turns(store: &mut Store, feeds: &[Vec<Event>]) {
    begin(store, feeds.len() as u32);
    let longest = feeds.iter().map(Vec::len).max().unwrap_or(0);
    for start in (0..longest).step_by(10) {
        let ingested: Result<(), StoreError> = store.write(|batch| {
            for (branch, events) in (0..).zip(feeds) {
                let run = &events[start..events.len().min(start + 10)];
                batch.append(BranchId(branch), run, &[9; 64], Way::Session, 1)?;
            }
            Ok(())
        });
        ingested.expect("a working disk");
    }
}

fn ingest_redb(database: &Database, feeds: &[Vec<Event>]) {
    let rows: Vec<(u32, &Event)> = (0..)
        .zip(feeds)
        .flat_map(|(author, events)| events.iter().map(move |event| (author, event)))
        .collect();
    for commit in rows.chunks(COMMIT_EVENTS) {
        let transaction = database.begin_write().expect("a working disk");
        let mut rows = transaction.open_table(ROWS).expect("its table");
        for (author, event) in commit {
            let bytes = event.payload.bytes().expect("it is here");
            rows.insert((*author, event.seq), bytes).expect("a working disk");
        }
        drop(rows);
        transaction.commit().expect("a working disk");
    }
}

fn ingest(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ingest_100000");
    group.throughput(Throughput::Elements(INGEST_EVENTS as u64));
    group.sample_size(10);
    for authors in [1u32, 1_000] {
        let feeds = feeds(authors);
        group.bench_function(format!("store/{authors}_authors"), |bencher| {
            bencher.iter_batched(
                store,
                |(dir, mut store)| {
                    ingest_store(&mut store, &feeds);
                    (dir, store)
                },
                BatchSize::PerIteration,
            );
        });
        group.bench_function(format!("redb_alone/{authors}_authors"), |bencher| {
            bencher.iter_batched(
                redb_alone,
                |(dir, database)| {
                    ingest_redb(&database, &feeds);
                    (dir, database)
                },
                BatchSize::PerIteration,
            );
        });
        bytes_on_disk(authors, &feeds);
    }
    group.finish();
}

fn bytes_on_disk(authors: u32, feeds: &[Vec<Event>]) {
    // What the file takes, not how long it says it is: redb lets it grow by halves, with holes.
    let len = |dir: &TempDir| {
        let file = std::fs::metadata(dir.path().join("store.redb")).expect("the database");
        file.blocks() as f64 * 512.0 / INGEST_EVENTS as f64
    };
    let (dir, mut store) = store();
    ingest_store(&mut store, feeds);
    let open = len(&dir);
    drop(store);
    let ours = len(&dir);
    let (dir, database) = redb_alone();
    ingest_redb(&database, feeds);
    drop(database);
    let alone = len(&dir);
    let (turns_dir, mut turns_store) = self::store();
    ingest_by_turns(&mut turns_store, feeds);
    drop(turns_store);
    let turns = len(&turns_dir);
    eprintln!(
        "disk_bytes_per_event/{authors}_authors: store {ours:.0} ({open:.0} while open), runs of 10 by turns {turns:.0}, redb alone {alone:.0}"
    );
}

fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read_1000");
    group.throughput(Throughput::Elements(1_000));
    let (_dir, mut store) = store();
    ingest_store(&mut store, &feeds(1));
    let mut from = 1;
    group.bench_function("events", |bencher| {
        bencher.iter(|| {
            from = from % 90_000 + 1_009;
            let reader = store.reader().expect("an open store");
            let events = reader.events(BranchId(0), from, from + 999, usize::MAX);
            black_box(events.expect("undamaged events"))
        });
    });
    group.bench_function("id_at", |bencher| {
        bencher.iter(|| {
            from = from % 90_000 + 1_009;
            let reader = store.reader().expect("an open store");
            black_box(reader.id_at(BranchId(0), from).expect("undamaged events"))
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = append_one_by_one, append_by_thousands, ingest, read
}
criterion_main!(benches);
