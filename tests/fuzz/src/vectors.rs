//! The golden vectors, as the valid inputs that they are.

use data_encoding::HEXLOWER;
use serde_json::Value;

/// A file of `tests/vectors`.
macro_rules! vectors {
    ($name:literal) => {
        super::vectors::parse(include_str!(concat!("../../vectors/", $name, ".json")))
    };
}
pub(super) use vectors;

/// Reads the text of such a file.
pub(super) fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("the vectors are JSON")
}

/// The list of this name, each entry with its number.
pub(super) fn list<'a>(file: &'a Value, name: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    file[name].as_array().into_iter().flatten().enumerate()
}

/// The text of a field.
pub(super) fn text<'a>(entry: &'a Value, name: &str) -> &'a str {
    entry[name].as_str().expect("the vectors have this text")
}

/// The bytes of a field.
pub(super) fn bytes(entry: &Value, name: &str) -> Vec<u8> {
    HEXLOWER.decode(text(entry, name).as_bytes()).expect("the vectors have bytes as hex")
}
