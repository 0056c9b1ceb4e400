use proptest::prelude::*;

use super::{json::Json, *};
use crate::{limits::RECORD_LEN_MAX, value::Value};

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        any::<i64>().prop_map(Json::whole),
        any::<i128>().prop_map(Json::whole),
        any::<f64>().prop_map(|float| Json::Number(json::float_text(float))),
        any::<String>().prop_map(|text| Json::text(&text)),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        let name = prop_oneof![any::<String>(), "\\$(map|bytes|time|geo|float|x)?"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::List),
            prop::collection::btree_map(name, inner, 0..4)
                .prop_map(|map| Json::map(map.iter().map(|(name, json)| (&**name, json.clone())))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_composed_is_read_with_the_same_id_whatever_its_payload(
        payload in prop::collection::btree_map(any::<String>(), json(), 0..4),
        kind: String,
        author in "[^\u{0}]{1,60}",
        ms in 0..=MS_MAX,
        counter: u16,
        seq in 1u64..,
        prev: [u8; 16],
    ) {
        let payload = Json::map(payload.iter().map(|(name, json)| (&**name, json.clone())));
        let prev = (seq > 1).then_some(MeshlogId(prev));
        let hlc = Hlc::new(ms, counter);
        let written = compose(&author, seq, hlc, &kind, &payload, prev);
        let read = MeshlogEvent::parse(written.wire.as_bytes()).expect("it is good");
        prop_assert_eq!((read.id, read.hlc(), read.seq, read.prev), (written.id, hlc, seq, prev));
        prop_assert_eq!(MeshlogId::of(read.body()), read.id);
        prop_assert_eq!(&read.payload, &payload);
        // What it means can be written by us as well.
        if let Some(meaning) = read.meaning() {
            prop_assert!(meaning.encode().is_ok());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = MeshlogEvent::parse(&bytes);
    }

    /// JSON of the other side is a value, unless it is too deep, and that value keeps its JSON.
    #[test]
    fn a_value_comes_back_from_its_json(json in json()) {
        if let Some(value) = value::to_value(&json) {
            prop_assert_eq!(value::to_value(&value::to_json(&value)), Some(value));
        }
    }
}

#[test]
fn a_foreign_record_event_has_the_limits_of_ours() {
    let say = |record: usize| {
        let payload = Json::map([
            ("record", Json::text(&"r".repeat(record))),
            ("field", Json::text("f")),
            ("value", Json::Null),
        ]);
        let wire = compose("north", 1, Hlc::new(1, 0), "field.set", &payload, None).wire;
        MeshlogEvent::parse(wire.as_bytes()).expect("it is good").meaning()
    };
    assert!(matches!(say(RECORD_LEN_MAX), Some(RecordEvent::Set { value: Value::Null, .. })));
    assert_eq!((say(0), say(RECORD_LEN_MAX + 1)), (None, None));
}
