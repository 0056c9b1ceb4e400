//! One form of bytes for each value, and no other.

use proptest::prelude::*;

use super::*;

fn nested(depth: usize) -> Vec<u8> {
    let mut bytes = Writer::new();
    for _ in 0..depth {
        bytes.varint(LIST).len(1);
    }
    bytes.varint(NULL);
    bytes.into_bytes()
}

fn geo(altitude: Option<f64>, accuracy: Option<f64>) -> Value {
    let [altitude, accuracy] = [altitude, accuracy].map(|part| part.map(Float::new));
    Value::Geo(Geo { lat: Float::new(48.5), lon: Float::new(-9.25), altitude, accuracy })
}

/// Any value, at most `depth` lists and maps deep.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<u64>().prop_map(|bits| Value::float(f64::from_bits(bits))),
        any::<f64>().prop_map(Value::float),
        ".{0,6}".prop_map(Value::Text),
        proptest::collection::vec(any::<u8>(), 0..6).prop_map(Value::Bytes),
        any::<i64>().prop_map(Value::Time),
        (any::<Option<f64>>(), any::<Option<f64>>()).prop_map(|(a, b)| geo(a, b)),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4)
                .prop_map(|items| Value::list(items).expect("shallow")),
            proptest::collection::btree_map("[a-c]{0,2}", inner, 0..4)
                .prop_map(|entries| Value::map(entries).expect("shallow")),
        ]
    })
}

#[test]
fn each_type_has_the_bytes_of_the_format() {
    let list = Value::list(vec![Value::Null, Value::Int(-1)]).expect("shallow");
    let map = [("a".to_owned(), Value::Bool(true)), ("b".to_owned(), list.clone())];
    let cases: [(Value, &[u8]); 12] = [
        (Value::Null, &[0]),
        (Value::Bool(true), &[1, 1]),
        (Value::Int(-3), &[2, 5]),
        (Value::float(1.0), &[3, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]),
        (Value::float(f64::NAN), &[3, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f]),
        (Value::float(f64::NEG_INFINITY), &[3, 0, 0, 0, 0, 0, 0, 0xf0, 0xff]),
        (Value::from("ä"), &[4, 2, 0xc3, 0xa4]),
        (Value::Bytes(vec![7, 0]), &[5, 2, 7, 0]),
        (list, &[6, 2, 0, 2, 1]),
        (Value::map(map.into()).expect("shallow"), &[7, 2, 1, b'a', 1, 1, 1, b'b', 6, 2, 0, 2, 1]),
        (Value::Time(64), &[8, 0x80, 1]),
        (
            geo(Some(0.0), None),
            &[
                9, 0, 0, 0, 0, 0, 0x40, 0x48, 0x40, 0, 0, 0, 0, 0, 0x80, 0x22, 0xc0, 1, 0, 0, 0, 0,
                0, 0, 0, 0, 0,
            ],
        ),
    ];
    for (value, bytes) in cases {
        assert_eq!(value.encode(), bytes, "{value:?}");
        assert_eq!(Value::decode(bytes), Ok(value));
    }
}

#[test]
fn every_nan_and_zero_made_here_is_the_one_that_is_allowed() {
    for bits in [0x7ff8_0000_0000_0001, 0xfff8_0000_0000_0000, 0x7ff0_0000_0000_0001] {
        assert_eq!(Value::float(f64::from_bits(bits)), Value::float(f64::NAN));
    }
    assert_eq!(Value::float(-0.0).encode(), Value::float(0.0).encode());
}

#[test]
fn an_integer_is_not_equal_to_the_float_of_the_same_size() {
    assert_ne!(Value::Int(1), Value::float(1.0));
}

#[test]
fn what_has_another_form_is_refused() {
    let mut negative_zero = vec![3];
    negative_zero.extend((-0.0f64).to_le_bytes());
    let mut other_nan = vec![3];
    other_nan.extend(0x7ff8_0000_0000_0001u64.to_le_bytes());
    let mut nan_altitude = geo(Some(1.0), None).encode();
    nan_altitude[18..26].copy_from_slice(&0xfff8_0000_0000_0000u64.to_le_bytes());
    let cases: [(&str, &[u8]); 16] = [
        ("nothing", &[]),
        ("an unknown tag", &[10]),
        ("a long tag", &[0x80, 0]),
        ("a trailing byte", &[0, 0]),
        ("a third bool", &[1, 2]),
        ("a long number", &[2, 0x81, 0]),
        ("a cut float", &[3, 0, 0]),
        ("-0.0", &negative_zero),
        ("another NaN", &other_nan),
        ("another NaN as altitude", &nan_altitude),
        ("text that is not UTF-8", &[4, 1, 0xff]),
        ("text longer than its bytes", &[4, 200, 1, b'a']),
        ("a list longer than its bytes", &[6, 0xff, 0xff, 0xff, 0xff, 0x0f, 0]),
        ("keys out of order", &[7, 2, 1, b'b', 0, 1, b'a', 0]),
        ("a key twice", &[7, 2, 1, b'a', 0, 1, b'a', 0]),
        ("an option that is neither", &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]),
    ];
    for (what, bytes) in cases {
        assert!(Value::decode(bytes).is_err(), "{what}");
    }
}

#[test]
fn sixteen_lists_may_lie_in_one_another_and_seventeen_may_not() {
    let deepest = Value::decode(&nested(16)).expect("16 is allowed");
    assert_eq!(deepest.depth(), 16);
    assert_eq!(Value::list(vec![deepest.clone()]), Err(TooDeep));
    assert_eq!(Value::map([(String::new(), deepest)].into()), Err(TooDeep));
    assert_eq!(Value::decode(&nested(17)), Err(ReadError::Invalid(DEEP)));
}

#[test]
fn a_payload_of_lists_alone_is_refused_without_deep_recursion() {
    assert_eq!(Value::decode(&nested(30_000)), Err(ReadError::Invalid(DEEP)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_value_comes_back_from_its_bytes(value in value()) {
        prop_assert_eq!(Value::decode(&value.encode()), Ok(value));
    }

    #[test]
    fn values_are_equal_when_their_bytes_are(one in value(), other in value()) {
        prop_assert_eq!(one == other, one.encode() == other.encode());
    }

    #[test]
    fn changed_bytes_are_refused_or_are_the_one_form_of_another_value(
        value in value(),
        at: prop::sample::Index,
        byte: u8,
        grow: bool,
    ) {
        let mut bytes = value.encode();
        let at = at.index(bytes.len());
        if grow { bytes.insert(at, byte) } else { bytes[at] = byte }
        if let Ok(other) = Value::decode(&bytes) {
            prop_assert_eq!(other.encode(), bytes);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_are_the_one_form_of_a_value(
        bytes in proptest::collection::vec(prop_oneof![0u8..12, any::<u8>()], 0..24),
    ) {
        if let Ok(value) = Value::decode(&bytes) {
            prop_assert_eq!(value.encode(), bytes);
        }
    }
}
