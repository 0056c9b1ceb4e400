//! What an event costs on its way: its id, its author's signature, its run's bytes and check.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ed25519_dalek::SigningKey;
use mosaik_core::{
    event::{Hasher, Kind, Payload},
    hlc::Hlc,
    id::{AuthorId, EventId, Fingerprint},
    run::{Entry, Run, VerifiedRun, chain, sign_head, verify_head},
};

/// Bytes of payload of each event: a short reading or a field with its names.
const PAYLOAD_LEN: usize = 150;

fn run_of(key: &SigningKey, hasher: &Hasher, events: u64) -> VerifiedRun {
    let kind = Kind::new("telemetry.sample").expect("a kind");
    let entries = (0..events).map(|i| Entry {
        hlc: Hlc::new(1_790_000_000_000 + i, 0),
        kind: kind.clone(),
        payload: Payload::Present(vec![i as u8; PAYLOAD_LEN]),
    });
    let author = AuthorId(key.verifying_key().to_bytes());
    VerifiedRun::sign(key, chain(hasher, author, 1, EventId::ZERO, entries.collect()))
}

fn events(c: &mut Criterion) {
    let hasher = Hasher::new(&Fingerprint([1; 32]));
    let key = SigningKey::from_bytes(&[2; 32]);
    let author = AuthorId(key.verifying_key().to_bytes());
    let kind = Kind::new("telemetry.sample").expect("a kind");
    let payload = Payload::Present(vec![7; PAYLOAD_LEN]);
    let id =
        hasher.id(&author, 9, &EventId([3; 32]), Hlc::new(1_790_000_000_000, 0), &kind, &payload);
    let signature = sign_head(&key, &id);

    c.bench_function("event id", |b| {
        let hlc = Hlc::new(1_790_000_000_000, 0);
        b.iter(|| hasher.id(&author, 9, &EventId([3; 32]), hlc, &kind, black_box(&payload)));
    });
    c.bench_function("sign a head", |b| b.iter(|| sign_head(&key, black_box(&id))));
    c.bench_function("verify a head", |b| {
        b.iter(|| verify_head(&author, black_box(&id), &signature));
    });

    let mut group = c.benchmark_group("run");
    for events in [1, 100, 1000] {
        let run = run_of(&key, &hasher, events);
        let bytes = run.encode();
        group.throughput(Throughput::Elements(events));
        group.bench_function(format!("encode {events}"), |b| b.iter(|| black_box(&run).encode()));
        group.bench_function(format!("decode {events}"), |b| {
            b.iter(|| Run::decode(black_box(&bytes)));
        });
        group.bench_function(format!("decode and verify {events}"), |b| {
            b.iter(|| Run::decode(black_box(&bytes)).map(|run| run.verify(&hasher)));
        });
    }
    group.finish();
}

criterion_group!(benches, events);
criterion_main!(benches);
