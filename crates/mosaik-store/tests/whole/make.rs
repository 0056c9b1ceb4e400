//! A store with whatever a store may hold, and what its parts are made of.

use std::path::Path;

use ed25519_dalek::SigningKey;
use mosaik_core::{
    event::{Hasher, Kind, Payload},
    feed::{BranchId, Ledger, Tip, Way},
    hlc::Hlc,
    id::{AuthorId, Fingerprint},
    record::RecordEvent,
    run::{Entry, VerifiedRun, chain},
    value::Value,
    view,
};
use mosaik_store::{Report, Store};

pub(crate) const NETWORK: Fingerprint = Fingerprint([7; 32]);

pub(crate) fn key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

pub(crate) fn author() -> AuthorId {
    AuthorId(key().verifying_key().to_bytes())
}

/// Sets of one field of fifty records, long enough that a few fill a block.
pub(crate) fn entries(from: u64, count: u64) -> Vec<Entry> {
    (from..from + count)
        .map(|i| {
            let draft = RecordEvent::Set {
                record: format!("R-{}", i % 50),
                field: "a".into(),
                value: Value::Text(format!("{i:0100}")),
                over: Vec::new(),
            };
            let draft = draft.encode().expect("a small event");
            Entry {
                hlc: Hlc::new(1_790_000_000_000 + i, 0),
                kind: draft.kind,
                payload: Payload::Present(draft.payload),
            }
        })
        .collect()
}

pub(crate) fn append(
    store: &mut Store,
    branch: Option<BranchId>,
    after: Tip,
    entries: Vec<Entry>,
) -> Tip {
    let events = chain(&Hasher::new(&NETWORK), author(), after.seq + 1, after.id, entries);
    let run = VerifiedRun::sign(&key(), events);
    let written = store.write(|batch| {
        if !view::is_current(batch)? {
            view::reset(batch)?;
        }
        let branch = match branch {
            Some(branch) => branch,
            None => {
                let parent = (after.seq > 0).then_some((BranchId(0), after.seq));
                batch.begin_branch(author(), parent)?
            }
        };
        batch.append(branch, run.events(), run.signature(), Way::Own, 1)?;
        for event in run.events() {
            if event.payload.bytes().is_some() {
                view::fold(batch, event)?;
            }
        }
        view::settle(batch, &view::rule(&NETWORK))?;
        Ok::<_, view::ViewError<mosaik_store::StoreError>>(Tip::from(run.head()))
    });
    written.expect("a working disk")
}

/// An event of an application whose payload is absent.
pub(crate) fn absent() -> Entry {
    Entry {
        hlc: Hlc::new(1_790_000_001_000, 0),
        kind: Kind::new("sensor.sample").expect("a kind"),
        payload: Payload::Absent { len: 5, hash: [3; 32] },
    }
}

/// Two branches of 300 and 20 events in all, the second after event 150 of the first; one payload of
/// an application is absent.
pub(crate) fn store(dir: &Path) {
    let mut store = Store::open(dir, &NETWORK).expect("a first run");
    let mut tip = append(&mut store, None, Tip::ROOT, entries(1, 100));
    let middle = append(&mut store, Some(BranchId(0)), tip, entries(101, 50));
    tip = append(&mut store, Some(BranchId(0)), middle, entries(151, 149));
    append(&mut store, Some(BranchId(0)), tip, vec![absent()]);
    append(&mut store, None, middle, entries(301, 20));
}

pub(crate) fn check(dir: &Path) -> Report {
    let store = Store::open(dir, &NETWORK).expect("a store");
    let reader = store.reader().expect("an open store");
    reader.check(dir, |_| true).expect("it comes to an end")
}
