//! The golden vectors of values as JSON, made by a second implementation.

#![expect(clippy::unwrap_used, reason = "a vector that is not as it must be fails the test")]

use data_encoding::HEXLOWER;
use mosaik_api::json::{parse, to_json};
use mosaik_core::value::Value;
use serde_json::Value as Json;

fn list(name: &str) -> Vec<Json> {
    let vectors: Json =
        serde_json::from_str(include_str!("../../../tests/vectors/json.json")).unwrap();
    let list = vectors[name].as_array().unwrap().clone();
    assert!(!list.is_empty(), "{name}");
    list
}

fn json(of: &Json) -> &str {
    of["json"].as_str().unwrap()
}

fn bytes(of: &Json) -> Vec<u8> {
    HEXLOWER.decode(of["bytes"].as_str().unwrap().as_bytes()).unwrap()
}

#[test]
fn a_value_has_the_json_of_the_format_and_comes_back_from_it() {
    for of in list("values") {
        let value = Value::decode(&bytes(&of)).unwrap();
        // How a float is spelled is left open: the numbers are compared.
        assert_eq!(to_json(&value), serde_json::from_str::<Json>(json(&of)).unwrap(), "{of}");
        assert_eq!(parse(json(&of)).unwrap().encode(), bytes(&of), "{of}");
    }
}

#[test]
fn json_in_another_spelling_is_the_same_value() {
    for of in list("same") {
        assert_eq!(parse(json(&of)).unwrap().encode(), bytes(&of), "{of}");
    }
}

#[test]
fn json_that_is_no_value_is_refused() {
    for of in list("refused") {
        assert!(parse(json(&of)).is_err(), "{of}");
    }
}
