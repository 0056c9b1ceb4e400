//! How fast events fold: sets that replace one another, sets that don't, and the settling of
//! batches.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mosaik_core::{
    event::{Event, Payload},
    hlc::Hlc,
    id::{AuthorId, EventId, Fingerprint},
    kv::MemoryKv,
    record::RecordEvent,
    value::Value,
    view,
};

const SETS: u64 = 20_000;
const NETWORK: Fingerprint = Fingerprint([5; 32]);

fn id(at: u64) -> EventId {
    EventId(*blake3::hash(&at.to_be_bytes()).as_bytes())
}

/// Set number `at`, of one field of one of `records` records; it names the set of that field before.
fn set(at: u64, records: u64, fields: u64) -> Event {
    let cells = records * fields;
    let meaning = RecordEvent::Set {
        record: format!("record-{:06}", at % records),
        field: format!("field-{}", at / records % fields),
        value: Value::Int(at as i64),
        over: at.checked_sub(cells).map(|before| id(before).prefix()).into_iter().collect(),
    };
    let draft = meaning.encode().expect("within the limits");
    Event {
        id: id(at),
        author: AuthorId([1; 32]),
        seq: at + 1,
        prev: EventId::ZERO,
        hlc: Hlc::new(at, 0),
        kind: draft.kind,
        payload: Payload::Present(draft.payload),
    }
}

fn fold_in_batches(events: &[Event], batch_len: usize) -> MemoryKv {
    let rule = view::rule(&NETWORK);
    let mut kv = MemoryKv::new();
    for batch in events.chunks(batch_len) {
        for event in batch {
            view::fold(&mut kv, event).expect("memory");
        }
        view::settle(&mut kv, &rule).expect("memory");
    }
    kv
}

fn fold(c: &mut Criterion) {
    let mut group = c.benchmark_group("fold");
    group.sample_size(10);
    group.throughput(Throughput::Elements(SETS));
    for (name, records, fields, batch_len) in [
        ("20,000 sets of 2,000 records, in batches of 1,000", 2_000, 5, 1_000),
        ("20,000 sets of 2,000 records, one by one", 2_000, 5, 1),
        ("20,000 sets of 20,000 records, in batches of 1,000", 20_000, 1, 1_000),
        ("20,000 sets of one field, in batches of 1,000", 1, 1, 1_000),
    ] {
        let events: Vec<_> = (0..SETS).map(|at| set(at, records, fields)).collect();
        group.bench_function(name, |b| {
            b.iter_batched(
                || (),
                |()| black_box(fold_in_batches(&events, batch_len)),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn read(c: &mut Criterion) {
    let events: Vec<_> = (0..SETS).map(|at| set(at, 2_000, 5)).collect();
    let kv = fold_in_batches(&events, 1_000);
    let mut group = c.benchmark_group("view");
    group.bench_function("one record of 5 fields", |b| {
        b.iter(|| view::record(&kv, black_box("record-000777")).expect("memory"));
    });
    group.bench_function("a list of 2,000 records", |b| {
        b.iter(|| view::records(&kv, black_box(&view::RecordsQuery::default())).expect("memory"));
    });
    group.finish();
}

criterion_group!(benches, fold, read);
criterion_main!(benches);
