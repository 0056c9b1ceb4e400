//! Decisions, folded back into a view.

use std::convert::Infallible;

use mosaik_core::{
    event::{Event, Payload},
    hlc::Hlc,
    id::{AuthorId, EventId, Fingerprint},
    kv::MemoryKv,
    limits::PAYLOAD_LEN_MAX,
    meshlog::{FOREIGN_KIND, MeshlogEvent, MeshlogId, compose, json::Json, translate},
};

use super::*;

/// A view and the events that came to it.
struct World {
    kv: MemoryKv,
    events: u64,
}

fn rule() -> mosaik_core::trie::Rule {
    view::rule(&Fingerprint([2; 32]))
}

impl World {
    fn new() -> Self {
        let mut kv = MemoryKv::new();
        view::reset(&mut kv).expect("in memory");
        Self { kv, events: 0 }
    }

    /// Folds drafts as one author's next events.
    fn append(&mut self, drafts: &[Draft]) {
        for draft in drafts {
            self.events += 1;
            let event = Event {
                id: EventId(mosaik_core::key::derive("test", &self.events.to_be_bytes())),
                author: AuthorId([1; 32]),
                seq: self.events,
                prev: EventId::ZERO,
                hlc: Hlc::new(self.events, 0),
                kind: draft.kind.clone(),
                payload: Payload::Present(draft.payload.clone()),
            };
            let counts = view::fold(&mut self.kv, &event).expect("in memory");
            assert!(counts || draft.kind.as_str() == FOREIGN_KIND, "every draft counts");
        }
        view::settle(&mut self.kv, &rule()).expect("in memory");
    }

    fn edit(&mut self, edit: &Edit) -> Result<Decision, EditError<Infallible>> {
        let decision = decide(&self.kv, edit)?;
        self.append(&decision.drafts);
        Ok(decision)
    }

    fn refused(&mut self, edit: &Edit) -> Refusal {
        match self.edit(edit) {
            Err(EditError::Refused(refusal)) => refusal,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    fn shown(&self, record: &str, field: &str) -> Option<Value> {
        view::field(&self.kv, record, field).expect("in memory").map(|field| field.shown.value)
    }

    fn conflicts(&self) -> u64 {
        view::counts(&self.kv).expect("in memory").conflicts
    }
}

fn fields(pairs: &[(&str, i64)]) -> BTreeMap<String, Value> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), Value::Int(*value))).collect()
}

fn created(record: &str, pairs: &[(&str, i64)]) -> Edit {
    let (record, form) = (record.to_owned(), "f".to_owned());
    Edit::Create { record, form, fields: fields(pairs), if_absent: false }
}

fn changed(record: &str, pairs: &[(&str, i64)]) -> Edit {
    Edit::Set { record: record.to_owned(), fields: fields(pairs) }
}

/// Line, record and fields of a row.
type TestRow<'a> = (u64, &'a str, &'a [(&'a str, i64)]);

fn imported(rows: &[TestRow<'_>]) -> Edit {
    let rows = rows
        .iter()
        .map(|(line, record, pairs)| Row {
            line: *line,
            record: (*record).to_owned(),
            fields: fields(pairs),
        })
        .collect();
    Edit::Import { form: "f".to_owned(), rows }
}

#[test]
fn an_id_that_exists_is_refused_unless_that_is_fine() {
    let mut world = World::new();
    world.edit(&created("r", &[("a", 1)])).expect("new");
    assert_eq!(world.refused(&created("r", &[("a", 2)])), Refusal::RecordExists("r".into()));
    let Edit::Create { record, form, fields, .. } = created("r", &[("a", 2)]) else { return };
    let again = Edit::Create { record, form, fields, if_absent: true };
    assert_eq!(world.edit(&again).expect("fine").drafts, []);
    assert_eq!(world.shown("r", "a"), Some(Value::Int(1)));
}

#[test]
fn what_is_not_there_cannot_be_changed() {
    let mut world = World::new();
    let (record, text) = ("r".to_owned(), "t".to_owned());
    for edit in [
        changed("r", &[("a", 1)]),
        Edit::Note { record: record.clone(), text },
        Edit::Archive { record, archived: true },
    ] {
        assert_eq!(world.refused(&edit), Refusal::NoSuchRecord("r".into()));
    }
}

#[test]
fn a_set_replaces_what_its_writer_saw() {
    let mut world = World::new();
    world.edit(&created("r", &[("a", 1)])).expect("new");
    world.edit(&changed("r", &[("a", 2)])).expect("there");
    let field = view::field(&world.kv, "r", "a").expect("in memory").expect("set");
    assert_eq!((field.shown.value, field.others.len()), (Value::Int(2), 0));
}

#[test]
fn one_set_ends_a_conflict_of_any_number_of_candidates() {
    let mut world = World::new();
    world.edit(&created("r", &[])).expect("new");
    let apart: Vec<_> =
        (0..40).map(|n| one_set("r", "a", &Value::Int(n), Vec::new()).expect("small")).collect();
    world.append(&apart);
    assert_eq!(world.conflicts(), 1);
    let decision = world.edit(&changed("r", &[("a", 7)])).expect("there");
    assert_eq!(decision.drafts.len(), 3, "16 candidates a set");
    assert_eq!(world.conflicts(), 0);
    assert_eq!(world.shown("r", "a"), Some(Value::Int(7)));
}

#[test]
fn the_field_without_a_name_is_not_for_values() {
    let mut world = World::new();
    assert_eq!(world.refused(&created("r", &[("", 1)])), Refusal::NoFieldName);
    world.edit(&created("r", &[])).expect("new");
    assert_eq!(world.refused(&changed("r", &[("", 1)])), Refusal::NoFieldName);
}

#[test]
fn what_no_node_would_fold_is_refused() {
    let mut world = World::new();
    let long = "x".repeat(PAYLOAD_LEN_MAX);
    let too_long = [
        created("", &[]),
        created(&"r".repeat(257), &[]),
        created("r", &[("f".repeat(129).as_str(), 1)]),
        Edit::Emit { kind: Kind::new("record.create").expect("a kind"), value: Value::Null },
        Edit::Emit { kind: Kind::new("app").expect("a kind"), value: Value::from(long.as_str()) },
    ];
    for edit in too_long {
        assert!(matches!(world.refused(&edit), Refusal::Draft(_)));
    }
    world.edit(&created("r", &[])).expect("new");
    let note = Edit::Note { record: "r".into(), text: long };
    assert!(matches!(world.refused(&note), Refusal::Draft(DraftError::PayloadLen(_))));
    assert_eq!(world.events, 1);
}

#[test]
fn importing_twice_is_importing_once() {
    let mut world = World::new();
    let file = imported(&[(2, "a", &[("x", 1), ("y", 2)]), (3, "b", &[])]);
    let first = world.edit(&file).expect("new");
    assert_eq!((first.rows.created, first.drafts.len()), (2, 4));
    let again = world.edit(&file).expect("known");
    assert_eq!((again.rows.unchanged, again.drafts.len()), (2, 0));
    let one_changed = imported(&[(2, "a", &[("x", 1), ("y", 3)]), (3, "b", &[])]);
    let third = world.edit(&one_changed).expect("known");
    assert_eq!((third.rows.changed, third.rows.unchanged, third.drafts.len()), (1, 1, 1));
    assert_eq!(world.shown("a", "y"), Some(Value::Int(3)));
}

#[test]
fn a_row_is_taken_whole_or_not_at_all_and_the_others_stay() {
    let mut world = World::new();
    let bad_field = "f".repeat(129);
    let decision = world
        .edit(&imported(&[
            (2, "a", &[("x", 1)]),
            (3, "b", &[("a", 1), (bad_field.as_str(), 2), ("z", 3)]),
            (4, "c", &[("x", 1)]),
            (5, "a", &[("x", 9)]),
            (6, "", &[]),
        ]))
        .expect("some are good");
    assert_eq!(decision.rows.created, 2);
    let lines: Vec<_> = decision.rows.refused.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [3, 5, 6]);
    assert!(!view::exists(&world.kv, "b").expect("in memory"));
    assert_eq!(world.shown("a", "x"), Some(Value::Int(1)));
}

#[test]
fn a_row_does_not_take_over_a_record_of_another_form() {
    let mut world = World::new();
    let (record, form) = ("a".to_owned(), "other".to_owned());
    let fields = fields(&[("x", 1)]);
    world.edit(&Edit::Create { record, form, fields, if_absent: false }).expect("new");
    let decision = world.edit(&imported(&[(2, "a", &[("x", 2)])])).expect("refused by row");
    assert!(matches!(decision.rows.refused[..], [(2, Refusal::OtherForm { .. })]));
    assert_eq!(world.shown("a", "x"), Some(Value::Int(1)));
}

#[test]
fn a_row_gives_a_form_to_a_record_that_has_none() {
    let mut world = World::new();
    let note = RecordEvent::Note { record: "a".into(), text: "seen".into() };
    world.append(&[note.encode().expect("small")]);
    world.edit(&imported(&[(2, "a", &[("x", 2)])])).expect("good");
    assert_eq!(world.shown("a", ""), Some(Value::from("f")));
    assert_eq!(world.shown("a", "x"), Some(Value::Int(2)));
}

/// What a meshlogd wrote.
const LOG: &str = include_str!("../../../../tests/data/meshlogd.jsonl");

fn log<'a>(lines: impl IntoIterator<Item = &'a str>) -> Edit {
    let lines = (1..).zip(lines).map(|(line, wire)| Line { line, wire: wire.to_owned() });
    Edit::ImportMeshlog { lines: lines.collect() }
}

#[test]
fn an_event_of_meshlogd_is_taken_once_word_for_word_and_in_order() {
    let mut world = World::new();
    let first = world.edit(&log(LOG.lines())).expect("a good log");
    let said: Vec<_> = first.drafts.iter().map(|draft| draft.payload.as_slice()).collect();
    assert_eq!(said, LOG.lines().map(str::as_bytes).collect::<Vec<_>>());
    let foreign = Foreign { unverified: 14, unsigned: 2, ..Foreign::default() };
    assert_eq!(first.rows, Rows { created: 16, foreign, ..Rows::default() });
    assert_eq!(world.shown("R-200", "reading"), Some(Value::Int(99)));
    let digest = view::digest(&world.kv).expect("in memory");

    // Again; and with other spaces, beside itself.
    let tight = LOG.lines().map(|line| line.replace(", ", ",").replace(": ", ":"));
    let lines: Vec<_> = tight.flat_map(|line| [line.clone(), line]).collect();
    for again in [log(LOG.lines()), log(lines.iter().map(String::as_str))] {
        let again = world.edit(&again).expect("known");
        assert_eq!((again.rows.created, again.drafts.len()), (0, 0));
        assert!(again.rows.unchanged >= 16);
    }
    assert_eq!(view::digest(&world.kv).expect("in memory"), digest);
    let mut anew = World::new();
    let both: Vec<_> = LOG.lines().flat_map(|line| [line, line]).collect();
    let both = anew.edit(&log(both)).expect("a good log");
    assert_eq!((both.rows.created, both.rows.unchanged), (16, 16));
}

/// A key used twice on that side, a lost middle of a log, a planted seq 1: all is kept, and told.
#[test]
fn branches_and_gaps_of_meshlogd_are_taken_and_told() {
    let mut world = World::new();
    let write = |seq: u64, text: &str, prev: Option<MeshlogId>| {
        let payload = Json::map([("record", Json::text("r")), ("text", Json::text(text))]);
        compose("north", seq, Hlc::new(seq, 0), "note.add", &payload, prev)
    };
    let one = write(1, "one", None);
    let planted = write(1, "planted", None);
    let two = write(2, "two", Some(one.id));
    let three = write(3, "three", Some(two.id));
    let lines = [&one.wire, &three.wire, &planted.wire];
    let done = world.edit(&log(lines.map(String::as_str))).expect("good").rows;
    let (author, seq) = ("north".to_owned(), 3);
    let gap = Notice::Gap { author: author.clone(), seq };
    let branch = Notice::Branch { author, seq: 1 };
    assert_eq!((done.created, done.foreign.notices), (3, vec![(2, gap), (3, branch)]));
    // What was lacking comes later, and closes the gap.
    let late = world.edit(&log([two.wire.as_str()])).expect("good").rows;
    assert_eq!((late.created, late.foreign.notices), (1, vec![]));
    let notes = view::record(&world.kv, "r").expect("in memory").expect("it is there").notes;
    assert_eq!(notes.len(), 4);
}

#[test]
fn our_own_events_that_come_back_translated_are_not_taken() {
    let mut world = World::new();
    let note = RecordEvent::Note { record: "r".into(), text: "ours".into() };
    let draft = note.encode().expect("short");
    let event = Event {
        id: EventId([3; 32]),
        author: AuthorId([1; 32]),
        seq: 1,
        prev: EventId::ZERO,
        hlc: Hlc::new(5, 0),
        kind: draft.kind,
        payload: Payload::Present(draft.payload),
    };
    let wire = translate(&event, None).expect("its payload is here").wire;
    let done = world.edit(&log([wire.as_str()])).expect("good");
    assert_eq!((done.rows.foreign.translated, done.rows.created, done.drafts.len()), (1, 0, 0));
}

/// The log and the HTTP interface are both outside: what the program has checked is checked again.
#[test]
fn what_is_no_event_of_meshlogd_is_refused_by_line_and_costs_no_other() {
    let mut world = World::new();
    let good: Vec<_> = LOG.lines().collect();
    let tampered = good[1].replace("OPENED", "CLOSED");
    let done = world.edit(&log(["", good[0], &tampered, good[1], "{}"])).expect("some are good");
    assert_eq!(done.rows.created, 2);
    let lines: Vec<_> = done.rows.refused.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [1, 3, 5]);
    assert!(matches!(done.rows.refused[1].1, Refusal::Foreign(EventError::OtherId { .. })));
    assert!(MeshlogEvent::parse(good[1].as_bytes()).is_ok());
}
