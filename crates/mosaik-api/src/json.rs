//! Values as JSON, lossless both ways.
//!
//! | value | JSON |
//! | --- | --- |
//! | null, bool, text, list | themselves |
//! | int | a number without `.` and exponent |
//! | float | a number with `.` or exponent; `{"$float": "NaN" \| "inf" \| "-inf"}` where JSON has none |
//! | map | an object; where its only key begins with `$`, `{"$map": {...}}` around it |
//! | bytes | `{"$bytes": base64}` |
//! | time | `{"$time": RFC 3339}`; a bare number of milliseconds is read as well |
//! | geo | `{"$geo": {"lat": , "lon": , "altitude"?: , "accuracy"?: }}` |
//!
//! Invariants:
//! - [`from_json`] of [`to_json`] is the value, bit for bit.
//! - A number that would lose digits is refused: [`parse`] checks the text, since a JSON number is
//!   a float to most readers.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use mosaik_core::{
    time::{ParseTimeError, format_ms, parse_ms},
    value::{Float, Geo, TooDeep, Value},
};
use serde_json::{Map, Number, Value as Json, json};

/// Why JSON is no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// The text isn't JSON.
    #[error("not valid JSON: {0}")]
    Syntax(#[from] serde_json::Error),
    /// A whole number outside 64 bits.
    #[error("the number {0} does not fit 64 bits and would lose digits; put it in quotes")]
    LosesDigits(String),
    /// An object with one key that begins with `$`, and no meaning.
    #[error("{0:?} is no type; there are $bytes, $time, $geo, $float and $map")]
    UnknownTag(String),
    /// A known `$` key with something else in it than it takes.
    #[error("{tag} takes {takes}")]
    BadTag {
        /// The key.
        tag: &'static str,
        /// What it takes.
        takes: &'static str,
    },
    /// A `$time` that is none.
    #[error(transparent)]
    BadTime(#[from] ParseTimeError),
    /// Lists and maps too deep in one another.
    #[error(transparent)]
    TooDeep(#[from] TooDeep),
}

/// The value as JSON.
pub fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(bool) => Json::Bool(*bool),
        Value::Int(int) => Json::from(*int),
        Value::Float(float) => float_to_json(*float),
        Value::Text(text) => Json::from(text.as_str()),
        Value::Bytes(bytes) => json!({ "$bytes": BASE64.encode(bytes) }),
        Value::List(list) => list.items().iter().map(to_json).collect(),
        Value::Map(map) => {
            let object: Map<_, _> =
                map.entries().iter().map(|(name, value)| (name.clone(), to_json(value))).collect();
            if tag_of(&object).is_some() { json!({ "$map": object }) } else { Json::Object(object) }
        }
        Value::Time(ms) => json!({ "$time": format_ms(*ms) }),
        Value::Geo(geo) => {
            let mut parts = Map::new();
            parts.insert("lat".into(), float_to_json(geo.lat));
            parts.insert("lon".into(), float_to_json(geo.lon));
            for (name, part) in [("altitude", geo.altitude), ("accuracy", geo.accuracy)] {
                if let Some(metres) = part {
                    parts.insert(name.into(), float_to_json(metres));
                }
            }
            json!({ "$geo": parts })
        }
    }
}

fn float_to_json(float: Float) -> Json {
    match Number::from_f64(float.get()) {
        Some(number) => Json::Number(number),
        None if float.get().is_nan() => json!({ "$float": "NaN" }),
        None if float.get() > 0.0 => json!({ "$float": "inf" }),
        None => json!({ "$float": "-inf" }),
    }
}

/// The value of a JSON text.
///
/// # Errors
///
/// [`JsonError`] for what isn't JSON, for whole numbers outside 64 bits, and as [`from_json`].
pub fn parse(text: &str) -> Result<Value, JsonError> {
    from_json(parse_text(text)?)
}

/// Reads JSON, and refuses whole numbers that would come out as floats.
///
/// # Errors
///
/// [`JsonError::Syntax`] or [`JsonError::LosesDigits`].
pub fn parse_text(text: &str) -> Result<Json, JsonError> {
    let json = serde_json::from_str(text)?;
    match whole_numbers(text).find(|number| number.parse::<i64>().is_err()) {
        Some(number) => Err(JsonError::LosesDigits(number.chars().take(80).collect())),
        None => Ok(json),
    }
}

/// The whole numbers of a text that is known to be JSON.
fn whole_numbers(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let start = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit())?;
            rest = &rest[start..];
            if rest.starts_with('"') {
                rest = after_string(rest);
                continue;
            }
            let is_number = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
            let end = rest.find(|c| !is_number(c)).unwrap_or(rest.len());
            let number;
            (number, rest) = rest.split_at(end);
            if !number.contains(['.', 'e', 'E']) {
                return Some(number);
            }
        }
    })
}

/// What follows the string that `text` begins with.
fn after_string(text: &str) -> &str {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return &text[at + 1..],
            _ => {}
        }
    }
    ""
}

/// The value of this JSON.
///
/// # Errors
///
/// [`JsonError`] for numbers that no value holds, `$` keys without a meaning, and what is too deep.
pub fn from_json(json: Json) -> Result<Value, JsonError> {
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(bool) => Value::Bool(bool),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(int), _) => Value::Int(int),
            (None, Some(float)) if number.is_f64() => Value::float(float),
            _ => return Err(JsonError::LosesDigits(number.to_string())),
        },
        Json::String(text) => Value::Text(text),
        Json::Array(items) => {
            Value::list(items.into_iter().map(from_json).collect::<Result<_, _>>()?)?
        }
        Json::Object(object) => match tag_of(&object).map(str::to_owned) {
            Some(tag) => {
                let inner = object.into_iter().next().map_or(Json::Null, |(_, inner)| inner);
                tagged(&tag, inner)?
            }
            None => map(object)?,
        },
    })
}

/// The only key of an object, if it begins with `$`.
fn tag_of(object: &Map<String, Json>) -> Option<&str> {
    let mut keys = object.keys();
    let only = keys.next().filter(|key| key.starts_with('$'))?;
    keys.next().is_none().then_some(only)
}

fn map(object: Map<String, Json>) -> Result<Value, JsonError> {
    let entries = object
        .into_iter()
        .map(|(name, json)| Ok((name, from_json(json)?)))
        .collect::<Result<BTreeMap<_, _>, JsonError>>()?;
    Ok(Value::map(entries)?)
}

fn tagged(tag: &str, inner: Json) -> Result<Value, JsonError> {
    match (tag, inner) {
        ("$map", Json::Object(object)) => map(object),
        ("$map", _) => Err(JsonError::BadTag { tag: "$map", takes: "an object" }),
        ("$bytes", Json::String(text)) => BASE64
            .decode(text.as_bytes())
            .map(Value::Bytes)
            .map_err(|_| JsonError::BadTag { tag: "$bytes", takes: "base64" }),
        ("$bytes", _) => Err(JsonError::BadTag { tag: "$bytes", takes: "base64" }),
        ("$time", Json::String(text)) => Ok(Value::Time(parse_ms(&text)?)),
        ("$time", Json::Number(number)) => number
            .as_i64()
            .map(Value::Time)
            .ok_or(JsonError::BadTag { tag: "$time", takes: "whole milliseconds" }),
        ("$time", _) => Err(JsonError::BadTag { tag: "$time", takes: "RFC 3339 or milliseconds" }),
        ("$geo", Json::Object(parts)) => geo(parts),
        ("$geo", _) => Err(BAD_GEO),
        ("$float", inner) => match inner.as_str() {
            Some("NaN") => Ok(Value::float(f64::NAN)),
            Some("inf") => Ok(Value::float(f64::INFINITY)),
            Some("-inf") => Ok(Value::float(f64::NEG_INFINITY)),
            _ => Err(JsonError::BadTag { tag: "$float", takes: "\"NaN\", \"inf\" or \"-inf\"" }),
        },
        (tag, _) => Err(JsonError::UnknownTag(tag.chars().take(80).collect())),
    }
}

const BAD_GEO: JsonError = JsonError::BadTag {
    tag: "$geo",
    takes: "an object of numbers: lat, lon, and if wanted altitude, accuracy",
};

fn geo(mut parts: Map<String, Json>) -> Result<Value, JsonError> {
    let mut take = |name: &str| match parts.remove(name) {
        None => Ok(None),
        Some(Json::Number(number)) => number.as_f64().map(|f| Some(Float::new(f))).ok_or(BAD_GEO),
        Some(special) => match from_json(special)? {
            Value::Float(float) => Ok(Some(float)),
            _ => Err(BAD_GEO),
        },
    };
    let (lat, lon) = (take("lat")?.ok_or(BAD_GEO)?, take("lon")?.ok_or(BAD_GEO)?);
    let (altitude, accuracy) = (take("altitude")?, take("accuracy")?);
    if parts.is_empty() {
        Ok(Value::Geo(Geo { lat, lon, altitude, accuracy }))
    } else {
        Err(BAD_GEO)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let geo = (any::<f64>(), any::<f64>(), any::<Option<f64>>(), any::<Option<f64>>())
            .prop_map(|(lat, lon, altitude, accuracy)| {
                Value::Geo(Geo {
                    lat: Float::new(lat),
                    lon: Float::new(lon),
                    altitude: altitude.map(Float::new),
                    accuracy: accuracy.map(Float::new),
                })
            });
        let bits = any::<u64>().prop_map(|bits| Value::float(f64::from_bits(bits)));
        let key = prop_oneof![any::<String>(), "\\$(map|bytes|time|geo|float|x)?"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_map(Value::float),
            bits,
            any::<String>().prop_map(Value::Text),
            any::<Vec<u8>>().prop_map(Value::Bytes),
            any::<i64>().prop_map(Value::Time),
            geo,
        ];
        leaf.prop_recursive(6, 40, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6)
                    .prop_map(|items| Value::list(items).expect("shallow")),
                prop::collection::btree_map(key.clone(), inner, 0..3)
                    .prop_map(|entries| Value::map(entries).expect("shallow")),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn every_value_comes_back_from_its_json_text(value in value()) {
            let text = to_json(&value).to_string();
            let back = parse(&text);
            prop_assert_eq!(back.expect("what was written is read").encode(), value.encode(), "{}", text);
        }
    }

    fn shown(text: &str) -> String {
        to_json(&parse(text).expect(text)).to_string()
    }

    #[test]
    fn plain_json_stays_as_it_is() {
        for text in
            ["null", "true", "-5", "1.5", "1.0", "\"a\"", "[1,\"$bytes\"]", r#"{"$a":1,"b":2}"#]
        {
            assert_eq!(shown(text), text);
        }
        assert_eq!(shown("-0.0"), "0.0");
        assert_eq!(shown("1e2"), "100.0");
    }

    #[test]
    fn types_that_json_lacks_stand_behind_a_dollar_key() {
        assert_eq!(to_json(&Value::Bytes(vec![1, 2])).to_string(), r#"{"$bytes":"AQI="}"#);
        assert_eq!(to_json(&Value::Time(0)).to_string(), r#"{"$time":"1970-01-01T00:00:00.000Z"}"#);
        assert_eq!(parse(r#"{"$time": 5}"#).expect("ms"), Value::Time(5));
        assert_eq!(shown(r#"{"$geo":{"lat":1,"lon":2.5}}"#), r#"{"$geo":{"lat":1.0,"lon":2.5}}"#);
        let dollar = Value::map(BTreeMap::from([("$x".to_owned(), Value::Null)])).expect("shallow");
        assert_eq!(to_json(&dollar).to_string(), r#"{"$map":{"$x":null}}"#);
    }

    #[test]
    fn whole_numbers_that_would_lose_digits_are_refused() {
        for text in [
            "9223372036854775808",
            "-9223372036854775809",
            "123456789012345678901234567890",
            r#"{"a": [1, "x\"", 99999999999999999999]}"#,
        ] {
            assert!(matches!(parse(text), Err(JsonError::LosesDigits(_))), "{text}");
        }
        for text in [
            "9223372036854775807",
            "\"99999999999999999999\"",
            "1e300",
            r#"{"99999999999999999999":1}"#,
        ] {
            assert!(parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_stands_wrong_behind_a_dollar_key_is_refused() {
        for text in [
            r#"{"$byte": "AA=="}"#,
            r#"{"$bytes": "A"}"#,
            r#"{"$bytes": 5}"#,
            r#"{"$time": "now"}"#,
            r#"{"$time": 1.5}"#,
            r#"{"$geo": {"lat": 1}}"#,
            r#"{"$geo": {"lat": 1, "lon": 2, "x": 3}}"#,
            r#"{"$geo": {"lat": "1", "lon": 2}}"#,
            r#"{"$float": 1.0}"#,
            r#"{"$map": 1}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn json_that_nests_too_deep_is_refused_whatever_its_depth() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(16)).is_ok());
        assert!(matches!(parse(&nested(17)), Err(JsonError::TooDeep(_))));
        assert!(matches!(parse(&nested(100_000)), Err(JsonError::Syntax(_))));
    }
}
