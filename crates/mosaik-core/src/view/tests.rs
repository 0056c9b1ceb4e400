//! The rules of the fold one by one. That order and grouping don't matter, `tests/fold.rs` says.

use super::*;
use crate::{
    event::{Kind, Payload},
    id::Fingerprint,
    kv::MemoryKv,
    limits::OVER_MAX,
    meshlog::{MeshlogId, compose, foreign_draft, json::Json, translate},
};

const RECORD: &str = "r";

fn origin(ms: u64, author: u8) -> Origin {
    let mut id = [author; 32];
    id[..8].copy_from_slice(&ms.to_be_bytes());
    Origin { hlc: Hlc::new(ms, 0), author: AuthorId([author; 32]), seq: ms, id: EventId(id) }
}

fn event_at(origin: Origin, meaning: &RecordEvent) -> Event {
    let draft = meaning.encode().expect("within the limits");
    Event {
        id: origin.id,
        author: origin.author,
        seq: origin.seq,
        prev: EventId::ZERO,
        hlc: origin.hlc,
        kind: draft.kind,
        payload: Payload::Present(draft.payload),
    }
}

/// The event of author 1 at `ms`; its id begins with `ms`.
fn event(ms: u64, meaning: &RecordEvent) -> Event {
    event_at(origin(ms, 1), meaning)
}

fn name(ms: u64) -> SetName {
    ms.to_be_bytes()
}

fn set(field: &str, value: impl Into<Value>, over: &[u64]) -> RecordEvent {
    set_of(RECORD, field, value, over)
}

fn set_of(record: &str, field: &str, value: impl Into<Value>, over: &[u64]) -> RecordEvent {
    let (record, field) = (record.to_owned(), field.to_owned());
    let over = over.iter().map(|&ms| name(ms)).collect();
    RecordEvent::Set { record, field, value: value.into(), over }
}

fn create(form: &str) -> RecordEvent {
    RecordEvent::Create { record: RECORD.to_owned(), form: form.to_owned() }
}

fn archive(archived: bool) -> RecordEvent {
    RecordEvent::Archive { record: RECORD.to_owned(), archived }
}

fn network() -> crate::trie::Rule {
    rule(&Fingerprint([7; 32]))
}

fn fold_all<'a>(kv: &mut MemoryKv, events: impl IntoIterator<Item = &'a Event>) {
    for event in events {
        fold(kv, event).expect("memory doesn't fail");
    }
    settle(kv, &network()).expect("memory doesn't fail");
}

/// The view of author 1's events at 1, 2, 3, ... ms.
fn view_of(meanings: &[RecordEvent]) -> MemoryKv {
    let mut kv = MemoryKv::new();
    let events: Vec<_> = (1..).zip(meanings).map(|(ms, meaning)| event(ms, meaning)).collect();
    fold_all(&mut kv, &events);
    kv
}

fn read(kv: &MemoryKv) -> Record {
    record(kv, RECORD).expect("memory doesn't fail").expect("the record exists")
}

fn shown<'a>(record: &'a Record, field: &str) -> &'a Value {
    &record.fields[field].shown.value
}

#[test]
fn a_set_that_names_another_replaces_it() {
    let record = read(&view_of(&[set("f", 1, &[]), set("f", 2, &[1])]));
    assert_eq!(shown(&record, "f"), &Value::Int(2));
    assert!(record.fields["f"].others.is_empty());
}

#[test]
fn two_sets_that_name_the_same_are_a_conflict_and_the_later_shows() {
    let kv = view_of(&[set("f", 1, &[]), set("f", 2, &[1]), set("f", 3, &[1])]);
    let record = read(&kv);
    assert_eq!(shown(&record, "f"), &Value::Int(3));
    assert_eq!(record.fields["f"].others[0].value, Value::Int(2));
    assert_eq!(record.conflicts(), ["f"]);
    let conflict = Conflict { record: RECORD.to_owned(), field: "f".to_owned() };
    assert_eq!(conflicts(&kv, None, 10).expect("memory"), std::slice::from_ref(&conflict));
    assert_eq!(conflicts(&kv, Some(&conflict), 10).expect("memory"), []);
    assert_eq!(conflicts(&kv, None, 0).expect("memory"), []);
    assert_eq!(counts(&kv).expect("memory"), Counts { records: 1, conflicts: 1 });
}

#[test]
fn a_set_that_names_both_sides_ends_a_conflict() {
    let kv = view_of(&[set("f", 1, &[]), set("f", 2, &[]), set("f", 1, &[1, 2])]);
    assert_eq!(read(&kv).conflicts(), [""; 0]);
    assert_eq!(counts(&kv).expect("memory"), Counts { records: 1, conflicts: 0 });
}

#[test]
fn equal_values_of_two_writers_are_no_conflict() {
    let record = read(&view_of(&[set("f", 1, &[]), set("f", 1, &[])]));
    assert_eq!(record.fields["f"].others.len(), 1);
    assert!(!record.fields["f"].in_conflict());
}

#[test]
fn a_replaced_set_still_replaces() {
    let record = read(&view_of(&[set("f", 1, &[]), set("f", 2, &[1]), set("f", 3, &[2])]));
    let field = &record.fields["f"];
    assert_eq!((&field.shown.value, field.others.len()), (&Value::Int(3), 0));
}

#[test]
fn a_name_replaces_only_in_its_own_record_and_field() {
    let mut kv = MemoryKv::new();
    let named = event(1, &set("f", 1, &[]));
    let other_field = event(2, &set("g", 2, &[1]));
    let other_record = event(3, &set_of("other", "f", 3, &[1]));
    fold_all(&mut kv, [&named, &other_field, &other_record]);
    assert_eq!(shown(&read(&kv), "f"), &Value::Int(1));
}

#[test]
fn one_name_replaces_all_sets_whose_ids_begin_with_it() {
    let mut kv = MemoryKv::new();
    let [one, other] = [1, 2].map(|author| event_at(origin(5, author), &set("f", 1, &[])));
    assert_ne!(one.id, other.id);
    let replacing = event(9, &set("f", 2, &[5]));
    fold_all(&mut kv, [&one, &replacing, &other]);
    assert_eq!(candidates(&kv, RECORD, "f").expect("memory"), [replacing.id]);
}

#[test]
fn a_set_that_names_itself_is_replaced_and_its_record_exists() {
    let kv = view_of(&[set("f", 1, &[1])]);
    let record = read(&kv);
    assert!(record.fields.is_empty());
    assert!(exists(&kv, RECORD).expect("memory"));
}

#[test]
fn a_field_with_null_is_not_empty() {
    let record = read(&view_of(&[set("f", 1, &[]), set("f", Value::Null, &[1])]));
    assert_eq!(shown(&record, "f"), &Value::Null);
}

#[test]
fn the_form_is_a_field_that_record_create_sets_and_that_can_be_named() {
    let kv = view_of(&[create("dog"), set("", "cat", &[1])]);
    assert_eq!(read(&kv).form_name(), Some("cat"));
    let two = read(&view_of(&[create("dog"), create("cat")]));
    assert_eq!((two.form_name(), two.conflicts()), (Some("cat"), vec![""]));
    assert!(two.fields.is_empty());
}

#[test]
fn a_form_that_is_not_text_counts_for_nothing() {
    let mut bad = event(2, &set("", "x", &[1]));
    let Payload::Present(payload) = &mut bad.payload else { panic!("it was made present") };
    payload.splice(3..6, [0]);
    let mut kv = MemoryKv::new();
    assert!(!fold(&mut kv, &bad).expect("memory"));
    assert!(kv.is_empty());
    fold_all(&mut kv, [&event(1, &create("dog")), &bad]);
    assert_eq!(read(&kv).form_name(), Some("dog"));
}

#[test]
fn a_record_is_archived_by_the_later_of_archive_and_create() {
    assert!(!read(&view_of(&[set("f", 1, &[])])).archived);
    assert!(read(&view_of(&[create("f"), archive(true)])).archived);
    assert!(!read(&view_of(&[archive(true), create("f")])).archived);
    assert!(!read(&view_of(&[archive(true), archive(false)])).archived);
}

#[test]
fn the_first_create_says_who_created_a_record() {
    let mut kv = MemoryKv::new();
    let [first, second] =
        [(1, 2), (4, 1)].map(|(ms, author)| event_at(origin(ms, author), &create("f")));
    fold_all(&mut kv, [&second, &first]);
    assert_eq!(read(&kv).created_by, Some(origin(1, 2)));
    assert_eq!(read(&view_of(&[set("f", 1, &[])])).created_by, None);
}

#[test]
fn notes_stand_in_the_order_of_the_fold() {
    let note = |text: &str| RecordEvent::Note { record: RECORD.into(), text: text.into() };
    let mut kv = MemoryKv::new();
    let [a, b, c] = [(3, 1, "c"), (1, 2, "b"), (1, 1, "a")]
        .map(|(ms, author, text)| event_at(origin(ms, author), &note(text)));
    fold_all(&mut kv, [&a, &b, &c]);
    let notes = read(&kv).notes;
    assert_eq!(notes.iter().map(|note| note.text.as_str()).collect::<String>(), "abc");
}

#[test]
fn of_attachments_of_one_field_and_blob_the_greatest_shows() {
    let attach = |field: &str, blob, name: &str| RecordEvent::Attach {
        record: RECORD.into(),
        field: field.into(),
        blob: [blob; 32],
        size: 1,
        mime: "text/plain".into(),
        name: name.into(),
    };
    let mut kv = MemoryKv::new();
    let [old, new] = [(1, "old"), (2, "new")].map(|(ms, name)| event(ms, &attach("f", 1, name)));
    fold_all(&mut kv, [&new, &old, &event(3, &attach("", 1, "other"))]);
    let names: Vec<_> = read(&kv).attachments.into_iter().map(|file| file.name).collect();
    assert_eq!(names, ["other", "new"]);
}

#[test]
fn a_blob_is_found_by_all_that_name_it_until_none_does() {
    let attach = |record: &str, field: &str, blob, size| RecordEvent::Attach {
        record: record.into(),
        field: field.into(),
        blob: [blob; 32],
        size,
        mime: "text/plain".into(),
        name: "a".into(),
    };
    let of = |kv: &MemoryKv, blob: u8| {
        let mut found = Vec::new();
        let each = |file: FileReference| {
            found.push((file.record, file.field, file.size));
            true
        };
        files_of(kv, &[blob; 32], each).expect("memory");
        found
    };
    let mut kv = MemoryKv::new();
    let [old, new] = [(1, 10), (2, 20)].map(|(ms, size)| event(ms, &attach(RECORD, "f", 1, size)));
    let others = [event(3, &attach("other", "", 1, 5)), event(4, &attach("other", "\0", 2, 5))];
    fold_all(&mut kv, [&new, &old, &others[0], &others[1]]);
    // Of one field and blob the greatest counts.
    let named = |record: &str, field: &str, size| (record.to_owned(), field.to_owned(), size);
    let mut both = [named(RECORD, "f", 20), named("other", "", 5)];
    both.sort();
    assert_eq!((of(&kv, 1), of(&kv, 2)), (both.to_vec(), vec![named("other", "\0", 5)]));
    // Page by page the same.
    let (mut paged, mut after): (usize, Option<FileReference>) = (0, None);
    loop {
        let mut next = None;
        let each = |file| {
            next = Some(file);
            false
        };
        files(&kv, after.as_ref(), each).expect("memory");
        let Some(seen) = next else { break };
        (paged, after) = (paged + 1, Some(seen));
    }
    assert_eq!(paged, 3);
    refold(&mut kv, "other", [&others[1]]).expect("memory");
    refold(&mut kv, RECORD, [] as [&Event; 0]).expect("memory");
    assert_eq!((of(&kv, 1), of(&kv, 2).len()), (Vec::new(), 1));
}

#[test]
fn the_greatest_profile_of_an_author_shows() {
    let profile_event = |ms, name: &str| event(ms, &RecordEvent::Profile { name: name.into() });
    let mut kv = MemoryKv::new();
    fold_all(&mut kv, [&profile_event(2, "new"), &profile_event(1, "old")]);
    let author = AuthorId([1; 32]);
    assert_eq!(profile(&kv, &author).expect("memory").expect("it is there").name, "new");
    assert_eq!(profile(&kv, &AuthorId([2; 32])).expect("memory"), None);
    assert_eq!(digest(&kv).expect("memory"), [0; 32]);
}

/// An event of author 1 at `outer` that carries what `north` says at `ms`.
fn foreign_event(outer: u64, ms: u64, kind: &str, payload: &str) -> Event {
    let payload = Json::parse(payload.as_bytes()).expect("JSON");
    let wire = compose("north", 1, Hlc::new(ms, 0), kind, &payload, None).wire;
    let draft = foreign_draft(wire.as_bytes()).expect("a good event").0;
    let mut event = event(outer, &create("dog"));
    (event.kind, event.payload) = (draft.kind, Payload::Present(draft.payload));
    event
}

fn foreign_set(outer: u64, ms: u64, value: u64) -> Event {
    let payload = format!(r#"{{"record":"{RECORD}","field":"f","value":{value}}}"#);
    foreign_event(outer, ms, "field.set", &payload)
}

#[test]
fn a_foreign_set_replaces_what_stands_before_it_and_nothing_else() {
    let mut kv = MemoryKv::new();
    let before = event(4, &set("f", 4, &[]));
    let other_field = event(3, &set("g", 3, &[]));
    let after = event(6, &set("f", 6, &[]));
    fold_all(&mut kv, [&before, &foreign_set(9, 5, 5), &other_field, &after]);
    let record = read(&kv);
    let values: Vec<_> = record.fields["f"].candidates().map(|one| one.value.clone()).collect();
    assert_eq!(values, [Value::Int(6), Value::Int(5)]);
    assert_eq!(shown(&record, "g"), &Value::Int(3));
    // Also what comes late.
    fold_all(&mut kv, [&event(2, &set("f", 2, &[]))]);
    assert_eq!(read(&kv), record);
}

/// Who writes in the same batch must not name what is replaced, nor be shown it.
#[test]
fn what_a_foreign_set_replaces_is_gone_before_the_batch_is_settled() {
    let mut kv = view_of(&[set("f", 1, &[]), set("f", 2, &[]), set("g", 3, &[])]);
    let carrying = foreign_set(9, 5, 5);
    fold(&mut kv, &carrying).expect("memory");
    let inner = foreign(&carrying).expect("it is good").origin();
    let unsettled = kv.clone();
    settle(&mut kv, &network()).expect("memory");
    assert!(kv.len() < unsettled.len(), "the two that are replaced");
    for kv in [unsettled, kv] {
        assert_eq!(candidates(&kv, RECORD, "f").expect("memory"), [inner.id]);
        let shown = field(&kv, RECORD, "f").expect("memory").expect("it has one");
        assert_eq!((shown.shown.origin, shown.others.len()), (inner, 0));
        assert_eq!(read(&kv).fields["f"], shown);
        assert_eq!(read(&kv).fields["g"].candidates().count(), 1);
    }
}

#[test]
fn a_set_replaces_a_foreign_one_by_the_id_that_it_has_in_the_view() {
    let mut kv = MemoryKv::new();
    let carrying = foreign_set(9, 5, 5);
    fold_all(&mut kv, [&carrying]);
    let over = over(&kv, RECORD, "f").expect("memory");
    let inner = foreign(&carrying).expect("it is good");
    assert_eq!(over, [inner.origin().id.prefix()]);
    let replacing =
        RecordEvent::Set { record: RECORD.into(), field: "f".into(), value: Value::Int(6), over };
    fold_all(&mut kv, [&event(6, &replacing)]);
    assert_eq!(read(&kv).fields["f"].candidates().count(), 1);
    assert_eq!(shown(&read(&kv), "f"), &Value::Int(6));
}

/// Two bridges bring it: one set, of the author that it names, and the least event is said to carry it.
#[test]
fn a_foreign_event_counts_once_whatever_carries_it() {
    let (first, second) = (foreign_set(7, 5, 5), foreign_set(8, 5, 5));
    let mut once = MemoryKv::new();
    fold_all(&mut once, [&first]);
    let mut twice = MemoryKv::new();
    fold_all(&mut twice, [&second]);
    let inner = foreign(&first).expect("it is good");
    assert_eq!(carried(&twice, &inner).expect("memory").map(|by| by.seq), Some(8));
    fold_all(&mut twice, [&first, &second]);
    assert_eq!(twice, once);
    let found = carried(&twice, &inner).expect("memory").expect("it is here");
    assert_eq!((found.author, found.seq, found.id), (first.author, 7, first.id));
    let origin = read(&once).fields["f"].shown.origin;
    let name = foreign_author(&once, &origin.author).expect("memory");
    assert_eq!(name.as_deref(), Some("north"));
    assert_eq!(foreign_author(&once, &first.author).expect("memory"), None);
}

#[test]
fn a_foreign_event_is_held_back_by_the_stamp_inside_it_once_its_payload_is_here() {
    let mut carrying = foreign_set(7_000, 5, 5);
    assert_eq!(stamp(&carrying), Some(Hlc::new(5, 0)));
    carrying.payload = Payload::Absent { len: 9, hash: carrying.payload.hash() };
    assert_eq!(stamp(&carrying), None);
    assert_eq!(stamp(&event(7, &create("dog"))), Some(Hlc::new(7, 0)));
    // Until then it is known to be here, and counts for nothing.
    let ahead = foreign_set(1, 5, 5);
    let mut kv = MemoryKv::new();
    index(&mut kv, &ahead).expect("memory");
    let inner = foreign(&ahead).expect("it is good");
    assert!(carried(&kv, &inner).expect("memory").is_some());
    assert!(!exists(&kv, RECORD).expect("memory"));
}

#[test]
fn what_was_changed_or_is_a_translation_of_ours_counts_for_nothing() {
    let mut changed = foreign_set(7, 5, 5);
    let Payload::Present(payload) = &mut changed.payload else { panic!("it was made present") };
    let at = payload.iter().position(|byte| *byte == b'5').expect("it says 5");
    payload[at] = b'6';
    let mut kv = MemoryKv::new();
    assert!(!fold(&mut kv, &changed).expect("memory"));
    assert!(kv.is_empty());

    let ours = event(3, &set("f", 1, &[]));
    let wire = translate(&ours, Some(MeshlogId([1; 16]))).expect("its payload is here").wire;
    let mut back = event(8, &create("dog"));
    let draft = foreign_draft(wire.as_bytes()).expect("a good event").0;
    (back.kind, back.payload) = (draft.kind, Payload::Present(draft.payload));
    assert!(!fold(&mut kv, &back).expect("memory"));
    assert!(!exists(&kv, RECORD).expect("memory"));
}

#[test]
fn foreign_events_are_listed_by_author_and_seq() {
    let mut kv = MemoryKv::new();
    let events = [(1, 3), (2, 1), (3, 2)].map(|(outer, seq)| {
        let prev = (seq > 1).then_some(MeshlogId([9; 16]));
        let payload = Json::map([]);
        let wire = compose("north", seq, Hlc::new(seq, 0), "x", &payload, prev).wire;
        let draft = foreign_draft(wire.as_bytes()).expect("a good event").0;
        let mut event = event(outer, &create("dog"));
        (event.kind, event.payload) = (draft.kind, Payload::Present(draft.payload));
        event
    });
    for event in &events {
        // Nothing is said of a record, but it is here.
        assert!(!fold(&mut kv, event).expect("memory"));
    }
    let mut authors = Vec::new();
    let each = |author, name: &str| {
        authors.push((author, name.to_owned()));
        true
    };
    foreign_authors(&kv, each).expect("memory");
    let north = crate::meshlog::foreign_author("north");
    assert_eq!(authors, [(north, "north".to_owned())]);
    let from = |seq| {
        let mut found = Vec::new();
        let each = |at: ForeignAt| {
            found.push((at.seq, at.carried.seq));
            true
        };
        foreign_events(&kv, &north, seq, each).expect("memory");
        found
    };
    assert_eq!(from(0), [(1, 2), (2, 3), (3, 1)]);
    assert_eq!(from(2), [(2, 3), (3, 1)]);
}

#[test]
fn an_event_without_payload_counts_once_its_payload_is_here() {
    let whole = event(1, &set("f", 1, &[]));
    let mut lacking = whole.clone();
    lacking.payload = Payload::Absent { len: 9, hash: whole.payload.hash() };
    let mut kv = MemoryKv::new();
    assert!(!fold(&mut kv, &lacking).expect("memory"));
    assert!(kv.is_empty());
    assert!(fold(&mut kv, &whole).expect("memory"));
}

#[test]
fn kinds_that_this_version_does_not_know_count_for_nothing() {
    let mut other = event(1, &set("f", 1, &[]));
    let mut kv = MemoryKv::new();
    for kind in ["event.erase", "field.unset", "app.reading"] {
        other.kind = Kind::new(kind).expect("a kind");
        assert!(!fold(&mut kv, &other).expect("memory"));
    }
    assert!(kv.is_empty());
}

#[test]
fn a_new_set_names_the_sixteen_greatest_candidates() {
    let meanings: Vec<_> = (0..20).map(|i| set("f", i, &[])).collect();
    let kv = view_of(&meanings);
    let named = over(&kv, RECORD, "f").expect("memory");
    assert_eq!(named, (5..=20).rev().map(name).collect::<Vec<_>>());
    assert_eq!(named.len(), OVER_MAX);
    let field = field(&kv, RECORD, "f").expect("memory").expect("it has candidates");
    assert_eq!(field.candidates().count(), 20);
}

#[test]
fn records_are_listed_by_form_in_pages_by_the_bytes_of_their_ids() {
    let mut kv = MemoryKv::new();
    let ids = ["a", "a\0", "a\u{1}", "b", "ä"];
    let events: Vec<_> = (1..)
        .zip(ids)
        .map(|(ms, id)| event(ms, &set_of(id, "", if id == "b" { "cat" } else { "dog" }, &[])))
        .collect();
    fold_all(&mut kv, &events);
    let hidden = RecordEvent::Archive { record: "a\0".into(), archived: true };
    fold_all(&mut kv, [&event(9, &hidden)]);

    let list = |query: RecordsQuery<'_>| -> Vec<String> {
        let listed = records(&kv, &query).expect("memory");
        listed.into_iter().map(|listed| listed.record).collect()
    };
    let all = RecordsQuery { include_archived: true, ..RecordsQuery::default() };
    assert_eq!(list(all), ids);
    assert_eq!(list(RecordsQuery::default()), ["a", "a\u{1}", "b", "ä"]);
    let dogs = RecordsQuery { form: Some("dog"), ..all };
    assert_eq!(list(dogs), ["a", "a\0", "a\u{1}", "ä"]);
    assert_eq!(list(RecordsQuery { after: Some("a"), limit: 2, ..dogs }), ["a\0", "a\u{1}"]);
    assert_eq!(list(RecordsQuery { after: Some("a"), limit: 2, ..all }), ["a\0", "a\u{1}"]);
    assert_eq!(list(RecordsQuery { after: Some("aa"), ..all }), ["b", "ä"]);
    assert_eq!(list(RecordsQuery { limit: 0, ..all }), [""; 0]);
    assert_eq!(list(RecordsQuery { form: Some("do"), ..all }), [""; 0]);
}

#[test]
fn a_record_leaves_the_list_of_a_form_that_it_no_longer_shows() {
    let mut kv = view_of(&[create("dog")]);
    fold_all(&mut kv, [&event(2, &set("", "cat", &[1]))]);
    let of = |form| records(&kv, &RecordsQuery { form: Some(form), ..RecordsQuery::default() });
    assert_eq!(of("dog").expect("memory"), []);
    assert_eq!(of("cat").expect("memory").len(), 1);
}

#[test]
fn settle_names_the_records_whose_digest_changed() {
    let mut kv = view_of(&[create("dog")]);
    fold(&mut kv, &event(1, &create("dog"))).expect("memory");
    fold(&mut kv, &event(2, &set_of("other", "f", 1, &[]))).expect("memory");
    assert_eq!(settle(&mut kv, &network()).expect("memory"), ["other"]);
    assert_eq!(settle(&mut kv, &network()).expect("memory"), [""; 0]);
}

#[test]
fn refold_from_nothing_takes_a_record_away() {
    let mut kv = view_of(&[create("dog"), set("f", 1, &[]), set("f", 2, &[])]);
    refold(&mut kv, RECORD, [] as [&Event; 0]).expect("memory");
    assert_eq!(settle(&mut kv, &network()).expect("memory"), [RECORD]);
    assert_eq!(digest(&kv).expect("memory"), [0; 32]);
    assert_eq!(counts(&kv).expect("memory"), Counts::default());
    assert_eq!(record(&kv, RECORD).expect("memory"), None);
    assert_eq!(kv, MemoryKv::new());
}

#[test]
fn a_view_is_current_from_its_reset_on() {
    let mut kv = view_of(&[create("dog")]);
    assert!(!is_current(&kv).expect("memory"));
    reset(&mut kv).expect("memory");
    assert!(is_current(&kv).expect("memory"));
    assert_eq!(kv.len(), 1);
}

#[test]
fn more_cells_than_one_pass_takes_are_cleared() {
    let mut kv = MemoryKv::new();
    for at in 0..CLEAR_KEYS as u64 * 2 {
        kv.put(&at.to_be_bytes(), &[]).expect("memory");
    }
    reset(&mut kv).expect("memory");
    assert_eq!(kv.len(), 1);
}

#[test]
fn a_damaged_cell_is_an_error_and_no_panic() {
    let whole = view_of(&[create("dog"), set("f", "x", &[]), set("f", "y", &[])]);
    for key in whole.keys() {
        for damaged in [Some(vec![0xff; 3]), Some(Vec::new()), Some(vec![0; 640]), None] {
            let mut kv = whole.clone();
            match damaged {
                Some(cell) => kv.insert(key.clone(), cell),
                None => kv.remove(key),
            };
            // Each of these may find the damage or not; none may panic.
            let _ = record(&kv, RECORD);
            let _ = records(&kv, &RecordsQuery::default());
            let _ = (conflicts(&kv, None, 9), counts(&kv), digest(&kv));
            let _ = (field(&kv, RECORD, "f"), candidates(&kv, RECORD, "f"));
            let _ = fold(&mut kv, &event(9, &set("f", "z", &[2, 3])));
            let _ = settle(&mut kv, &network());
            let _ = refold(&mut kv, RECORD, [] as [&Event; 0]);
            let _ = settle(&mut kv, &network());
        }
    }
    let mut kv = whole;
    kv.insert(Cells::of(RECORD).meta().to_vec(), vec![2]);
    assert!(matches!(record(&kv, RECORD), Err(ViewError::Damaged(_))));
}

/// What a field has once held may be much; what one event does to it may not.
#[test]
fn the_cells_of_a_field_stay_small_after_many_sets() {
    let meanings: Vec<_> = (0..5_000u64).map(|i| set("f", i as i64, &[i])).collect();
    let kv = view_of(&meanings);
    assert_eq!(candidates(&kv, RECORD, "f").expect("memory").len(), 1);
    let value_len_max = kv.values().map(Vec::len).max().unwrap_or(0);
    assert!(value_len_max < 200, "{value_len_max}");
}

/// More than is kept between the two readings of a record.
#[test]
fn a_record_of_many_large_values_has_the_digest_of_its_small_transcription() {
    let text = |i: u64| Value::Text(i.to_string().repeat(15_000));
    let meanings: Vec<_> = (0..12).map(|i| set(&format!("f{}", i % 5), text(i), &[])).collect();
    let kv = view_of(&meanings);

    let mut body = crate::codec::Writer::new();
    body.str(RECORD).bool(false).len(5);
    for field in 0..5 {
        let sets: Vec<_> = (0..12).filter(|i| i % 5 == field).collect();
        body.str(&format!("f{field}")).len(sets.len());
        for i in sets {
            body.raw(&origin(i + 1, 1).id.0).raw(&text(i).encode());
        }
    }
    body.len(0).len(0);
    let mut of_record = crate::key::deriver_of("view record", FOLD_VERSION);
    of_record.update(body.as_bytes());
    let of_record = *of_record.finalize().as_bytes();
    let item = [*blake3::hash(RECORD.as_bytes()).as_bytes(), of_record].concat();
    assert_eq!(digest(&kv).expect("memory"), network().leaf([item]));
    assert_eq!(counts(&kv).expect("memory"), Counts { records: 1, conflicts: 5 });
}

/// Frozen: what changes it is another version of the fold.
#[test]
fn a_small_view_has_the_digest_of_the_format() {
    let note = RecordEvent::Note { record: RECORD.into(), text: "seen".into() };
    let file = RecordEvent::Attach {
        record: RECORD.into(),
        field: "photo".into(),
        blob: [9; 32],
        size: 1_024,
        mime: "image/png".into(),
        name: "a.png".into(),
    };
    let sets = [set("f", 1, &[]), set("f", 2, &[2]), set("f", Value::Null, &[2]), note, file];
    let kv = view_of(&[&[create("dog")][..], &sets, &[archive(true)]].concat());
    assert_eq!(
        EventId(digest(&kv).expect("memory")).to_string(),
        "05012e22bdec363be1397db777d8a623c4fb4da88cd3dafd928d1762b9d037df"
    );
}
