//! Bytes as an event of meshlogd.

use std::sync::LazyLock;

use mosaik_core::{
    event::{Event, Payload},
    hlc::Hlc,
    id::{AuthorId, EventId},
    kv::MemoryKv,
    meshlog::{EVENT_LEN_MAX, MeshlogEvent, MeshlogId, compose, foreign_draft, json::Json},
    view,
};
use rand::RngExt;

use super::{
    Chance, Seed, Target, bytes,
    vectors::{self, vectors},
    world::{HASHER, KEYS, NOW_MS},
};

/// See the module's head.
pub const TARGET: Target = Target { name: "meshlog", seeds, mutate, check };

static SEEDS: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    let (theirs, foreign) = (vectors!("meshlogd"), vectors!("foreign"));
    let of = |name: &str, (n, entry): (usize, &serde_json::Value)| {
        (format!("{name}-{n:02}"), vectors::text(entry, "wire").as_bytes().to_vec())
    };
    let theirs =
        vectors::list(&theirs, "events").map(|entry| of("theirs", entry)).collect::<Vec<_>>();
    let foreign = vectors::list(&foreign, "events").map(|entry| of("foreign", entry));
    theirs.into_iter().chain(foreign).filter(|(_, wire)| wire.len() <= 2048).collect()
});

fn seeds() -> Vec<Seed> {
    SEEDS.clone()
}

/// What is taken has the id of its body, means the same in any spelling, says what we could say, and counts
/// once in a view, whatever carries it.
fn check(wire: &[u8]) {
    let Ok((draft, event)) = foreign_draft(wire) else { return };
    assert!(wire.len() <= EVENT_LEN_MAX);
    assert_eq!(draft.payload, wire, "not word for word");
    assert_eq!(MeshlogId::of(event.body()), event.id);
    let mut again = String::new();
    Json::parse(wire).expect("it was read").write(&mut again);
    if again.len() <= EVENT_LEN_MAX {
        let again = MeshlogEvent::parse(again.as_bytes()).expect("the canonical spelling is good");
        assert_eq!(again, event, "another spelling means another thing");
    }
    for nth in 0..4 {
        let other = bytes::flipped(wire, nth).and_then(|wire| MeshlogEvent::parse(&wire).ok());
        let is_same =
            other.is_none_or(|other| (other.id, other.body()) == (event.id, event.body()));
        assert!(is_same, "a flipped bit was taken");
    }
    assert!(event.verify(&[9; 64]).is_err());
    if let Some(meaning) = event.meaning() {
        meaning.encode().expect("it keeps our limits");
    }
    let rule = view::rule(&KEYS.fingerprint);
    let [mut once, mut twice] = [MemoryKv::new(), MemoryKv::new()];
    let carrying = [carried(1, &draft), carried(2, &draft)];
    view::fold(&mut once, &carrying[0]).expect("memory never fails");
    view::settle(&mut once, &rule).expect("memory never fails");
    for event in carrying.iter().rev() {
        let counts = view::fold(&mut twice, event).expect("memory never fails");
        assert_eq!(counts, view::Said::by(event).is_some());
        view::settle(&mut twice, &rule).expect("memory never fails");
    }
    assert!(once == twice, "it counts twice");
}

fn carried(seq: u64, draft: &mosaik_core::event::Draft) -> Event {
    let (author, prev, hlc) = (AuthorId([7; 32]), EventId([9; 32]), Hlc::new(NOW_MS, 0));
    let (kind, payload) = (draft.kind.clone(), Payload::Present(draft.payload.clone()));
    let id = HASHER.id(&author, seq, &prev, hlc, &kind, &payload);
    Event { id, author, seq, prev, hlc, kind, payload }
}

/// Whether an input is an event.
pub fn is_taken(wire: &[u8]) -> bool {
    MeshlogEvent::parse(wire).is_ok()
}

/// Mostly what it carries is changed, and the id made anew: else all would end at the id.
fn mutate(wire: &mut Vec<u8>, chance: &mut Chance) {
    let Some(event) = MeshlogEvent::parse(wire).ok().filter(|_| chance.random_range(0..4) > 0)
    else {
        return bytes::change(wire, chance);
    };
    let mut payload = String::new();
    event.payload.write(&mut payload);
    let mut payload = payload.into_bytes();
    bytes::change(&mut payload, chance);
    let payload = match Json::parse(&payload) {
        Ok(changed @ Json::Map(_)) => changed,
        _ => event.payload.clone(),
    };
    let kinds = ["record.create", "field.set", "note.add", "record.archive", "x", ""];
    let kind = match event.kind.as_str() {
        Some(kind) if chance.random_range(0..4) > 0 => kind.to_owned(),
        _ => kinds[chance.random_range(0..kinds.len())].to_owned(),
    };
    let hlc = Hlc::from_u64(bytes::number(chance));
    *wire = compose(&event.author, event.seq, hlc, &kind, &payload, event.prev).wire.into_bytes();
}
