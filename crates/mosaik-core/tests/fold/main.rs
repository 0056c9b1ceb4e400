//! The view is a function of a set of events: in any order, in any batches, against a slow
//! transcription of the rules.
//!
//! A failure prints its case, shrunk, and keeps its seed in `proptest-regressions`, from where the
//! next run tries it first.

mod make;
mod slow;

use std::collections::{BTreeMap, BTreeSet};

use mosaik_core::{
    event::{Event, Payload},
    hlc::{Hlc, is_held_back},
    id::{AuthorId, EventId},
    kv::MemoryKv,
    record::RecordEvent,
    view::{self, Carried, Origin},
};
use proptest::{collection::vec, prelude::*};

use crate::{
    make::{Made, RECORDS, WALL_END_MS, make, plan},
    slow::{NETWORK, Slow, assert_view},
};

/// Events of one case at the most.
const EVENTS_MAX: usize = 14;

/// In which order and grouping events come to a node.
#[derive(Debug, Clone)]
struct Arrival {
    /// Sort keys of the events, of their repeats, and of their lacking forms.
    order: Vec<[u8; 3]>,
    /// Deliveries in a batch, one batch after the other, then from the start again.
    batches: Vec<usize>,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    (vec(any::<[u8; 3]>(), EVENTS_MAX), vec(1usize..8, 1..6))
        .prop_map(|(order, batches)| Arrival { order, batches })
}

impl Arrival {
    /// Each event whole, unless its payload is lost; some twice; some without payload before or
    /// after.
    fn deliveries(&self, made: &[Made]) -> Vec<Event> {
        let mut deliveries = Vec::new();
        for (made, [first, again, lacking]) in made.iter().zip(&self.order) {
            let whole = &made.event;
            let len = whole.payload.len() as u32;
            let absent = Payload::Absent { len, hash: whole.payload.hash() };
            let without = Event { payload: absent, ..whole.clone() };
            if made.lost {
                deliveries.push((first, without));
                continue;
            }
            deliveries.push((first, whole.clone()));
            if again % 2 == 0 {
                deliveries.push((again, whole.clone()));
            }
            if lacking % 2 == 0 && len > 0 {
                deliveries.push((lacking, without));
            }
        }
        deliveries.sort_by_key(|(key, _)| *key);
        deliveries.into_iter().map(|(_, event)| event).collect()
    }
}

fn fold(kv: &mut MemoryKv, event: &Event) -> bool {
    view::fold(kv, event).expect("memory")
}

fn settle(kv: &mut MemoryKv) {
    view::settle(kv, &view::rule(&NETWORK)).expect("memory");
}

fn empty() -> MemoryKv {
    let mut kv = MemoryKv::new();
    view::reset(&mut kv).expect("memory");
    kv
}

/// Folds as a node does: what is held back waits for its time, each batch is settled.
fn bring_in(made: &[Made], arrival: &Arrival) -> MemoryKv {
    let mut kv = empty();
    let mut waiting = Vec::new();
    let mut deliveries = arrival.deliveries(made).into_iter().peekable();
    let mut wall_ms = 0;
    for batch_len in arrival.batches.iter().cycle() {
        waiting.extend(deliveries.by_ref().take(*batch_len));
        let last = deliveries.peek().is_none();
        wall_ms = if last { WALL_END_MS } else { (wall_ms + 150_000).min(WALL_END_MS) };
        waiting.retain(|event| {
            let held_back = view::stamp(event).is_some_and(|stamp| is_held_back(stamp, wall_ms));
            if held_back {
                view::index(&mut kv, event).expect("memory");
            } else {
                fold(&mut kv, event);
            }
            held_back
        });
        settle(&mut kv);
        if last {
            break;
        }
    }
    kv
}

/// Each foreign event is found, held back or not, with the least of the events that carry it, and by
/// its author's name.
fn assert_carried(kv: &MemoryKv, made: &[Made]) {
    let mut carried = BTreeMap::new();
    for Made { event, .. } in made.iter().filter(|made| !made.lost) {
        let Some(inner) = view::foreign(event) else { continue };
        let origin = inner.origin();
        let name = view::foreign_author(kv, &origin.author).expect("memory");
        assert_eq!(name, Some(inner.author));
        let by = Carried { author: event.author, seq: event.seq, id: event.id };
        let least = carried.entry((origin.author, origin.seq, origin.id)).or_insert(by);
        *least = by.min(*least);
    }
    let (mut found, mut authors) = (BTreeMap::new(), BTreeSet::new());
    view::foreign_authors(kv, |author, _| authors.insert(author)).expect("memory");
    for author in authors {
        view::foreign_events(kv, &author, 0, |at| {
            found.insert((at.author, at.seq, at.event), at.carried).is_none()
        })
        .expect("memory");
    }
    assert_eq!(found, carried);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn the_view_is_a_function_of_the_set_of_events(
        plans in vec(plan(), 1..=EVENTS_MAX),
        arrivals in [arrival(), arrival()],
    ) {
        let made = make(&plans);
        let counting: Vec<_> =
            made.iter().filter_map(|made| made.counts_at(WALL_END_MS)).collect();
        let kv = bring_in(&made, &arrivals[0]);
        let told: Vec<_> = made.iter().filter_map(|made| made.told_at(WALL_END_MS)).collect();
        assert_view(&kv, &told);
        assert_carried(&kv, &made);

        // Another order and other batches.
        prop_assert_eq!(&bring_in(&made, &arrivals[1]), &kv);

        // Each record anew, from events of all records, after it has taken in what doesn't count.
        let mut again = kv.clone();
        for made in made.iter().filter(|made| made.counts_at(WALL_END_MS).is_none()) {
            // Those that are no record's are not made anew below.
            let is_a_records = made.event.kind.as_str() != "node.profile" && !(made.is_foreign() && made.lost);
            if is_a_records {
                fold(&mut again, &made.event);
            }
        }
        settle(&mut again);
        for record in RECORDS {
            let events = counting.iter().rev().map(|(event, _)| *event);
            view::refold(&mut again, record, events).expect("memory");
        }
        settle(&mut again);
        prop_assert_eq!(&again, &kv);

        // All anew.
        view::reset(&mut again).expect("memory");
        for (event, _) in &counting {
            prop_assert!(fold(&mut again, event));
        }
        for made in made.iter().filter(|made| !made.lost) {
            view::index(&mut again, &made.event).expect("memory");
        }
        settle(&mut again);
        prop_assert_eq!(&again, &kv);
    }
}

/// What makes a record of this number, or what changes it.
fn numbered(number: usize, change: bool) -> (Event, RecordEvent) {
    let record = number.to_string();
    let meaning = if change {
        RecordEvent::Archive { record, archived: true }
    } else {
        RecordEvent::Create { record, form: "dog".to_owned() }
    };
    let draft = meaning.encode().expect("within the limits");
    let mut id = [u8::from(change); 32];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let event = Event {
        id: EventId(id),
        author: AuthorId([1; 32]),
        seq: 1,
        prev: EventId::ZERO,
        hlc: Hlc::new(u64::from(change), 0),
        kind: draft.kind,
        payload: Payload::Present(draft.payload),
    };
    (event, meaning)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Enough records for a trie of three levels, and so many go that branches become leaves again.
    #[test]
    fn the_digest_of_many_records_follows_from_what_is_left_of_them(
        changes in vec((0usize..1_200, any::<bool>()), 0..1_500),
        gone in vec(0usize..1_200, 0..1_500),
        batch_len in 1usize..400,
    ) {
        let mut kv = empty();
        for batch in changes.chunks(batch_len) {
            for (number, change) in batch {
                fold(&mut kv, &numbered(*number, *change).0);
            }
            settle(&mut kv);
        }
        for batch in gone.chunks(batch_len) {
            for number in batch {
                view::refold(&mut kv, &number.to_string(), [] as [Event; 0]).expect("memory");
            }
            settle(&mut kv);
        }

        let mut left: BTreeMap<usize, BTreeSet<bool>> = BTreeMap::new();
        for (number, change) in changes {
            left.entry(number).or_default().insert(change);
        }
        left.retain(|number, _| !gone.contains(number));
        let mut once = empty();
        let mut records = Vec::new();
        for (number, changes) in &left {
            let made: Vec<_> = changes.iter().map(|change| numbered(*number, *change)).collect();
            for (event, _) in &made {
                fold(&mut once, event);
            }
            let events: Vec<_> =
                made.iter().map(|(event, meaning)| (Origin::of(event), meaning, false)).collect();
            records.extend(Slow::of(&number.to_string(), &events));
        }
        settle(&mut once);
        prop_assert_eq!(view::digest(&kv).expect("memory"), slow::digest(&records));
        prop_assert_eq!(kv, once);
    }
}
