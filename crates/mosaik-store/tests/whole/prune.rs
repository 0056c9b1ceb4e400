//! Payloads that are taken away, and come back.

use mosaik_core::{
    event::{Event, Kind, Payload},
    feed::{BranchId, Ledger, Tip},
    hlc::Hlc,
    run::{Entry, Run, VerifiedRun},
};
use mosaik_store::{Pruned, Store};
use tempfile::TempDir;

use crate::make::{NETWORK, append, check, entries, key};

const FIRST: BranchId = BranchId(0);

/// A hundred events of an application after a hundred that fold.
fn made() -> (TempDir, Store) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = Store::open(dir.path(), &NETWORK).expect("a first run");
    let tip = append(&mut store, None, Tip::ROOT, entries(1, 100));
    let samples = (0..100).map(|i| Entry {
        hlc: Hlc::new(1_790_000_001_000 + i, 0),
        kind: Kind::new("sensor.sample").expect("a kind"),
        payload: Payload::Present(vec![i as u8; 200]),
    });
    append(&mut store, Some(FIRST), tip, samples.collect());
    (dir, store)
}

fn events(store: &Store) -> Vec<Event> {
    let reader = store.reader().expect("an open store");
    reader.events(FIRST, 1, u64::MAX, usize::MAX).expect("undamaged")
}

fn prune(store: &mut Store, from: u64, to: u64, due: &mut dyn FnMut(&Event) -> bool) -> Pruned {
    store.write(|batch| batch.prune(FIRST, from, to, due)).expect("a working disk")
}

fn is_sample(event: &Event) -> bool {
    event.kind.as_str() == "sensor.sample"
}

#[test]
fn what_is_pruned_leaves_a_chain_that_holds_and_is_not_asked_for() {
    let (dir, mut store) = made();
    let before = events(&store);
    let pruned = prune(&mut store, 1, 150, &mut is_sample);
    assert_eq!(pruned, Pruned { payloads: 50, bytes: 10_000 });
    let after = events(&store);
    assert!(before.iter().map(|event| event.id).eq(after.iter().map(|event| event.id)));
    for (before, after) in before.iter().zip(&after) {
        let is_pruned = (101..=150).contains(&before.seq);
        assert_eq!(after.payload.bytes().is_none(), is_pruned, "event {}", before.seq);
        assert_eq!(after.payload.hash(), before.payload.hash());
    }
    let reader = store.reader().expect("an open store");
    assert_eq!(reader.counts().expect("undamaged").missing, 0);
    // What is served of it is still what its author signed.
    let (seq, signature) = reader.signed_from(FIRST, 150).expect("undamaged").expect("signed");
    let run = VerifiedRun::sign(&key(), after[..seq as usize].to_vec());
    assert_eq!(run.signature(), &signature);
    assert!(Run::decode(&run.encode()).is_ok());
    drop((reader, store));
    let report = check(dir.path());
    assert!(report.is_sound(), "{report:#?}");
    assert_eq!((report.pruned, report.missing), (50, 0));
}

#[test]
fn the_newest_are_looked_at_first_and_what_is_not_due_stays_as_it_is() {
    let (_dir, mut store) = made();
    let mut seen = Vec::new();
    prune(&mut store, 90, 120, &mut |event| {
        seen.push(event.seq);
        false
    });
    assert!(seen.iter().copied().eq((90..=120).rev()), "{seen:?}");
    assert_eq!(prune(&mut store, 150, 100, &mut |_| true), Pruned::default());
    assert_eq!(prune(&mut store, 500, 900, &mut |_| true), Pruned::default());
    assert!(events(&store).iter().all(|event| event.payload.bytes().is_some()));
}

#[test]
fn a_payload_that_somebody_wants_is_asked_for_and_comes_back() {
    let (dir, mut store) = made();
    let before = events(&store);
    prune(&mut store, 1, 200, &mut is_sample);
    store
        .write(|batch| {
            batch.want(FIRST, 120)?;
            // What is here, or nowhere, is not missing.
            batch.want(FIRST, 5)?;
            batch.want(FIRST, 500)
        })
        .expect("a working disk");
    let missing =
        |store: &Store| store.reader().expect("open").missing(None, 9).expect("undamaged");
    assert_eq!(missing(&store).iter().map(|m| m.tip.seq).collect::<Vec<_>>(), [120]);
    let payload = before[119].payload.bytes().expect("it was here").to_vec();
    store.write(|batch| batch.fill(FIRST, 120, &payload)).expect("a working disk");
    assert!(missing(&store).is_empty());
    assert_eq!(events(&store)[119], before[119]);

    // One that no peer gave is taken off the list by the next walk.
    store.write(|batch| batch.want(FIRST, 130)).expect("a working disk");
    assert_eq!(missing(&store).len(), 1);
    prune(&mut store, 121, 200, &mut is_sample);
    assert!(missing(&store).is_empty());
    drop(store);
    assert!(check(dir.path()).is_sound());
}

/// Only an application's payload may be absent without being asked for.
#[test]
fn a_payload_of_the_view_that_is_not_asked_for_is_damage() {
    let (dir, mut store) = made();
    prune(&mut store, 7, 7, &mut |_| true);
    drop(store);
    let report = check(dir.path());
    let says =
        |text: &str| report.findings.iter().any(|finding| finding.to_string().contains(text));
    assert!(says("missing: the absent payload of event 7"), "{report:#?}");
}
