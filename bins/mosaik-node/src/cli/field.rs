//! `FIELD=VALUE` and `FIELD:TYPE=VALUE`: what a word on the command line, or a cell of a table, means.
//!
//! Invariants:
//! - A guess never loses what was typed: a word becomes a number only if that number is printed as
//!   the same word again. `007`, `1.10`, `+5`, `1e5` and whole numbers beyond 64 bits stay text.
//! - A type that is named is obeyed or refused, never replaced by another.

use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use mosaik_api::{json, time::parse_ms};
use mosaik_core::value::{Float, Geo, Value};

/// The types that can be named, as a person reads them.
pub(crate) const TYPES: &str =
    "text, int, float, bool, time, geo (also geopoint), bytes (base64), hex, null, json";

/// A field, and the value to give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// Which field.
    pub(crate) field: String,
    /// Its value.
    pub(crate) value: Value,
}

/// A type that can be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Text,
    Int,
    Float,
    Bool,
    Time,
    Geo,
    Bytes,
    Hex,
    Null,
    Json,
}

impl Type {
    /// The type of this name, in either case.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "text" | "string" | "str" => Self::Text,
            "int" | "integer" => Self::Int,
            "float" | "decimal" => Self::Float,
            "bool" | "boolean" => Self::Bool,
            "time" | "datetime" | "date" => Self::Time,
            "geo" | "geopoint" => Self::Geo,
            "bytes" => Self::Bytes,
            "hex" => Self::Hex,
            "null" => Self::Null,
            "json" => Self::Json,
            _ => return None,
        })
    }

    /// The value that `text` is in this type.
    ///
    /// # Errors
    ///
    /// A sentence that says what the type takes.
    pub(crate) fn read(self, text: &str) -> Result<Value, String> {
        let wrong = |takes: &str| format!("{text:?} is not {takes}");
        match self {
            Self::Text => Ok(Value::from(text)),
            Self::Int => text
                .parse()
                .map(Value::Int)
                .map_err(|_| wrong("a whole number of at most 64 bits")),
            Self::Float => match text.parse::<f64>() {
                Ok(float) if float.is_infinite() && text.contains(|c: char| c.is_ascii_digit()) => {
                    Err(wrong("a number that a float can hold"))
                }
                Ok(float) => Ok(Value::float(float)),
                Err(_) => Err(wrong("a number")),
            },
            Self::Bool => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" => Ok(Value::Bool(true)),
                "false" | "no" | "0" => Ok(Value::Bool(false)),
                _ => Err(wrong("true or false")),
            },
            Self::Time => parse_ms(text).map(Value::Time).map_err(|error| error.to_string()),
            Self::Geo => geo(text).ok_or_else(|| {
                wrong("a place: latitude, longitude and if wanted altitude and accuracy in metres, with spaces between them")
            }),
            Self::Bytes => BASE64
                .decode(text.as_bytes())
                .map(Value::Bytes)
                .map_err(|_| wrong("base64")),
            Self::Hex => HEXLOWER_PERMISSIVE
                .decode(text.as_bytes())
                .map(Value::Bytes)
                .map_err(|_| wrong("pairs of hex digits")),
            Self::Null if text.is_empty() => Ok(Value::Null),
            Self::Null => Err(wrong("empty, as null must be")),
            Self::Json => json::parse(text).map_err(|error| error.to_string()),
        }
    }
}

/// Splits `name:type`; without a type all of it is the name.
///
/// # Errors
///
/// A sentence, if what follows the last colon is no type.
pub(crate) fn split_type(head: &str) -> Result<(&str, Option<Type>), String> {
    match head.rsplit_once(':') {
        None => Ok((head, None)),
        Some((name, kind)) => match Type::named(kind) {
            Some(kind) => Ok((name, Some(kind))),
            None => Err(format!(
                "{kind:?} is no type; the types are {TYPES}. If the colon belongs to the field, name the type after it: {head}:text"
            )),
        },
    }
}

/// What a word without a named type means.
pub(crate) fn guess(text: &str) -> Value {
    match text {
        "true" => return Value::Bool(true),
        "false" => return Value::Bool(false),
        _ => {}
    }
    if let Ok(int) = text.parse::<i64>()
        && int.to_string() == text
    {
        return Value::Int(int);
    }
    let is_plain =
        text.contains('.') && text.bytes().all(|b| b.is_ascii_digit() || b"-.".contains(&b));
    if is_plain
        && let Ok(float) = text.parse::<f64>()
        && crate::export::float_text(Float::new(float)) == text
    {
        return Value::float(float);
    }
    Value::from(text)
}

/// Latitude and longitude, then altitude and accuracy; spaces or commas between them.
fn geo(text: &str) -> Option<Value> {
    let numbers = text
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|part| !part.is_empty())
        .map(|part| part.parse::<f64>().ok().filter(|number| number.is_finite()).map(Float::new))
        .collect::<Option<Vec<_>>>()?;
    let (&lat, &lon) = (numbers.first()?, numbers.get(1)?);
    let in_range = lat.get().abs() <= 90.0 && lon.get().abs() <= 180.0;
    (in_range && numbers.len() <= 4).then(|| {
        Value::Geo(Geo {
            lat,
            lon,
            altitude: numbers.get(2).copied(),
            accuracy: numbers.get(3).copied(),
        })
    })
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (head, value) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is not FIELD=VALUE or FIELD:TYPE=VALUE"))?;
        let (field, kind) = split_type(head)?;
        if field.is_empty() {
            return Err("a field needs a name before the =".into());
        }
        let value = match kind {
            None => guess(value),
            Some(kind) => kind.read(value).map_err(|reason| format!("{field}: {reason}"))?,
        };
        Ok(Self { field: field.to_owned(), value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guess_never_loses_what_was_typed() {
        for text in [
            "007",
            "1.10",
            "+5",
            "1e5",
            "1E5",
            "9223372036854775808",
            "-0",
            "-0.0",
            "0x10",
            " 5",
            "5 ",
            ".5",
            "5.",
            "1_000",
            "NaN",
            "inf",
            "True",
            "",
            "00.5",
            "0.1000000000000000055511151231257827",
            "1.0000000000000001",
            "٣",
        ] {
            assert_eq!(guess(text), Value::from(text), "{text:?}");
        }
        assert_eq!(guess("42"), Value::Int(42));
        assert_eq!(guess("-9223372036854775808"), Value::Int(i64::MIN));
        assert_eq!(guess("true"), Value::Bool(true));
        for (text, float) in [("1.5", 1.5), ("-0.1", -0.1), ("2.0", 2.0), ("0.00001", 0.00001)] {
            assert_eq!(guess(text), Value::float(float), "{text:?}");
        }
    }

    fn value(text: &str) -> Result<Value, String> {
        text.parse::<Assignment>().map(|assignment| assignment.value)
    }

    #[test]
    fn a_named_type_is_obeyed() {
        assert_eq!(value("a:text=42"), Ok(Value::from("42")));
        assert_eq!(value("a:int=007"), Ok(Value::Int(7)));
        assert_eq!(value("a:float=1e5"), Ok(Value::float(100_000.0)));
        assert_eq!(value("a:bool=yes"), Ok(Value::Bool(true)));
        assert_eq!(value("a:time=1970-01-01T00:00:01Z"), Ok(Value::Time(1000)));
        assert_eq!(value("a:hex=0aFF"), Ok(Value::Bytes(vec![10, 255])));
        assert_eq!(value("a:bytes=AQI="), Ok(Value::Bytes(vec![1, 2])));
        assert_eq!(value("a:null="), Ok(Value::Null));
        assert_eq!(value("a:json=[1]"), Ok(Value::list(vec![Value::Int(1)]).expect("shallow")));
        let place = Value::Geo(Geo {
            lat: Float::new(12.97),
            lon: Float::new(77.59),
            altitude: Some(Float::new(900.0)),
            accuracy: None,
        });
        assert_eq!(value("loc:geopoint=12.97 77.59 900"), Ok(place));
    }

    #[test]
    fn a_value_that_its_type_does_not_take_is_refused_with_the_field() {
        for text in [
            "a:int=4.5",
            "a:int=",
            "a:int=99999999999999999999",
            "a:float=x",
            "a:float=1e999",
            "a:bool=maybe",
            "a:time=soon",
            "a:geo=91 0",
            "a:geo=1",
            "a:geo=1 2 3 4 5",
            "a:bytes=*",
            "a:hex=abc",
            "a:null=x",
            "a:json={",
            "a:json=99999999999999999999",
        ] {
            let error = value(text).expect_err(text);
            assert!(error.starts_with("a: "), "{error}");
        }
    }

    #[test]
    fn what_is_no_assignment_is_refused_with_what_to_write() {
        assert!(value("a").expect_err("no =").contains("FIELD=VALUE"));
        assert!(value("=5").expect_err("no field").contains("name"));
        assert!(value("dc:title=x").expect_err("no type").contains("dc:title:text"));
        let titled: Assignment = "dc:title:text=x=y".parse().expect("a type after the colon");
        assert_eq!((titled.field.as_str(), titled.value), ("dc:title", Value::from("x=y")));
    }
}
