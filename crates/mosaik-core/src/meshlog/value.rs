//! Values as meshlogd's JSON, and JSON as values.
//!
//! Invariants:
//! - [`to_value`] of [`to_json`] is the value.
//! - The form is that of the node's own interface (mosaik-api, FORMAT.md, "Values").
//! - What that interface refuses because a person should write it otherwise is taken here, since nobody
//!   can be asked: see [`to_value`].

use std::collections::BTreeMap;

use data_encoding::BASE64;

use super::json::{Json, float_text};
use crate::{
    time::{format_ms, parse_ms},
    value::{Float, Geo, Value},
};

/// The value as JSON.
pub(super) fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(bool) => Json::Bool(*bool),
        Value::Int(int) => Json::whole(*int),
        Value::Float(float) => float_json(*float),
        Value::Text(text) => Json::text(text),
        Value::Bytes(bytes) => tagged("$bytes", Json::text(&BASE64.encode(bytes))),
        Value::List(list) => Json::List(list.items().iter().map(to_json).collect()),
        Value::Map(map) => {
            let entries = map.entries();
            let object = Json::map(entries.iter().map(|(name, value)| (&**name, to_json(value))));
            match entries.keys().next() {
                Some(only) if entries.len() == 1 && only.starts_with('$') => tagged("$map", object),
                _ => object,
            }
        }
        Value::Time(ms) => tagged("$time", Json::text(&format_ms(*ms))),
        Value::Geo(geo) => {
            let parts = [("altitude", geo.altitude), ("accuracy", geo.accuracy)];
            let parts = parts.into_iter().filter_map(|(name, part)| Some((name, part?)));
            let parts = [("lat", geo.lat), ("lon", geo.lon)].into_iter().chain(parts);
            tagged("$geo", Json::map(parts.map(|(name, part)| (name, float_json(part)))))
        }
    }
}

fn tagged(tag: &str, json: Json) -> Json {
    Json::map([(tag, json)])
}

fn float_json(float: Float) -> Json {
    match float.get() {
        nan if nan.is_nan() => tagged("$float", Json::text("NaN")),
        f64::INFINITY => tagged("$float", Json::text("inf")),
        f64::NEG_INFINITY => tagged("$float", Json::text("-inf")),
        float => Json::Number(float_text(float)),
    }
}

/// What the JSON is as a value; none where a value can't hold it: too deep, or a text with half a
/// surrogate pair.
///
/// A whole number beyond 64 bits is the text of its digits. An object whose only name begins with `$` and
/// that is none of the forms is a map of that name.
pub(super) fn to_value(json: &Json) -> Option<Value> {
    Some(match json {
        Json::Null => Value::Null,
        Json::Bool(bool) => Value::Bool(*bool),
        Json::Number(lexeme) => number(lexeme),
        Json::Text(text) => Value::from(text.as_str()?),
        Json::List(items) => {
            Value::list(items.iter().map(to_value).collect::<Option<_>>()?).ok()?
        }
        Json::Map(entries) => {
            if let [(name, inner)] = entries.as_slice()
                && let Some(value) = name.as_str().and_then(|name| of_tag(name, inner))
            {
                return Some(value);
            }
            map(json)?
        }
    })
}

fn number(lexeme: &str) -> Value {
    let is_whole = lexeme.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit());
    match (lexeme, lexeme.parse::<i64>()) {
        (_, Ok(int)) => Value::Int(int),
        ("Infinity", _) => Value::float(f64::INFINITY),
        ("-Infinity", _) => Value::float(f64::NEG_INFINITY),
        (digits, _) if is_whole => Value::from(digits),
        (float, _) => Value::float(float.parse().unwrap_or(f64::NAN)),
    }
}

fn map(json: &Json) -> Option<Value> {
    let Json::Map(entries) = json else { return None };
    let entries = entries
        .iter()
        .map(|(name, json)| Some((name.as_str()?.to_owned(), to_value(json)?)))
        .collect::<Option<BTreeMap<_, _>>>()?;
    Value::map(entries).ok()
}

fn of_tag(tag: &str, inner: &Json) -> Option<Value> {
    match tag {
        "$map" => map(inner),
        "$bytes" => BASE64.decode(inner.as_str()?.as_bytes()).ok().map(Value::Bytes),
        "$time" => match inner {
            Json::Number(lexeme) => lexeme.parse().ok().map(Value::Time),
            inner => parse_ms(inner.as_str()?).ok().map(Value::Time),
        },
        "$float" => match inner.as_str()? {
            "NaN" => Some(Value::float(f64::NAN)),
            "inf" => Some(Value::float(f64::INFINITY)),
            "-inf" => Some(Value::float(f64::NEG_INFINITY)),
            _ => None,
        },
        "$geo" => geo(inner),
        _ => None,
    }
}

fn geo(inner: &Json) -> Option<Value> {
    let Json::Map(entries) = inner else { return None };
    let part = |json: &Json| match to_value(json)? {
        Value::Int(_) => match json {
            Json::Number(lexeme) => lexeme.parse().ok().map(Float::new),
            _ => None,
        },
        Value::Float(float) => Some(float),
        _ => None,
    };
    let known = ["lat", "lon", "altitude", "accuracy"];
    if entries.iter().any(|(name, _)| name.as_str().is_none_or(|name| !known.contains(&name))) {
        return None;
    }
    let optional = |name| inner.get(name).map_or(Some(None), |json| part(json).map(Some));
    let (lat, lon) = (part(inner.get("lat")?)?, part(inner.get("lon")?)?);
    Some(Value::Geo(Geo {
        lat,
        lon,
        altitude: optional("altitude")?,
        accuracy: optional("accuracy")?,
    }))
}
