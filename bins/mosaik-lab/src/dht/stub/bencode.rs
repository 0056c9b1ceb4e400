//! Bencode, as far as KRPC needs it: what BEP 3 says, read with bounds.
//!
//! Invariant: reading costs no more memory and stack than a packet's length and [`DEPTH_MAX`] allow.
//!
//! Written by hand, so that the stub is a second opinion on what mainline's client writes.

use std::collections::BTreeMap;

/// Lists and dicts within one another. KRPC needs three.
const DEPTH_MAX: usize = 8;

/// One value, borrowed from the packet or from who writes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Integer(i64),
    Bytes(&'a [u8]),
    List(Vec<Value<'a>>),
    Dict(BTreeMap<&'a [u8], Value<'a>>),
}

impl<'a> Value<'a> {
    /// Reads one value that takes all of `bytes`. None if it is malformed or too deep.
    ///
    /// Keys may come in any order: there are clients that don't sort them.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        let value = value(&mut rest, 0)?;
        rest.is_empty().then_some(value)
    }

    /// A dict of these entries.
    pub(super) fn dict<const N: usize>(entries: [(&'a str, Value<'a>); N]) -> Self {
        Self::Dict(entries.map(|(key, value)| (key.as_bytes(), value)).into())
    }

    /// The entry of a dict.
    pub(super) fn get(&self, key: &str) -> Option<&Value<'a>> {
        match self {
            Self::Dict(entries) => entries.get(key.as_bytes()),
            Self::Integer(_) | Self::Bytes(_) | Self::List(_) => None,
        }
    }

    pub(super) fn bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Integer(_) | Self::List(_) | Self::Dict(_) => None,
        }
    }

    pub(super) fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(integer) => Some(*integer),
            Self::Bytes(_) | Self::List(_) | Self::Dict(_) => None,
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Integer(integer) => out.extend(format!("i{integer}e").as_bytes()),
            Self::Bytes(bytes) => write_bytes(bytes, out),
            Self::List(items) => {
                out.push(b'l');
                items.iter().for_each(|item| item.write(out));
                out.push(b'e');
            }
            Self::Dict(entries) => {
                out.push(b'd');
                for (key, value) in entries {
                    write_bytes(key, out);
                    value.write(out);
                }
                out.push(b'e');
            }
        }
    }
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(format!("{}:", bytes.len()).as_bytes());
    out.extend(bytes);
}

fn value<'a>(rest: &mut &'a [u8], depth: usize) -> Option<Value<'a>> {
    match rest.first()? {
        b'i' => {
            *rest = &rest[1..];
            Some(Value::Integer(number(rest, b'e')?))
        }
        b'l' | b'd' if depth == DEPTH_MAX => None,
        b'l' => {
            *rest = &rest[1..];
            let mut items = Vec::new();
            while !ends(rest)? {
                items.push(value(rest, depth + 1)?);
            }
            Some(Value::List(items))
        }
        b'd' => {
            *rest = &rest[1..];
            let mut entries = BTreeMap::new();
            while !ends(rest)? {
                let key = bytes(rest)?;
                entries.insert(key, value(rest, depth + 1)?);
            }
            Some(Value::Dict(entries))
        }
        _ => bytes(rest).map(Value::Bytes),
    }
}

/// Takes the `e` of a list or dict if it stands there.
fn ends(rest: &mut &[u8]) -> Option<bool> {
    let ends = *rest.first()? == b'e';
    if ends {
        *rest = &rest[1..];
    }
    Some(ends)
}

fn bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(number(rest, b':')?).ok()?;
    let (bytes, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(bytes)
}

/// A decimal number and the byte that ends it, in the one form that BEP 3 allows.
fn number(rest: &mut &[u8], end: u8) -> Option<i64> {
    let len = rest.iter().position(|&byte| byte == end)?;
    let number: i64 = std::str::from_utf8(&rest[..len]).ok()?.parse().ok()?;
    if number.to_string().as_bytes() != &rest[..len] {
        return None;
    }
    *rest = &rest[len + 1..];
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &Value<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        value.write(&mut out);
        out
    }

    #[test]
    fn what_is_written_reads_back_with_sorted_keys() {
        let value = Value::dict([
            ("y", Value::Bytes(b"r")),
            (
                "r",
                Value::dict([("seq", Value::Integer(i64::MIN)), ("id", Value::Bytes(b"\xff:e"))]),
            ),
            ("e", Value::List(vec![Value::Integer(301), Value::Bytes(b"")])),
        ]);
        let bytes = written(&value);
        assert_eq!(
            bytes,
            b"d1:eli301e0:e1:rd2:id3:\xff:e3:seqi-9223372036854775808ee1:y1:re".as_slice()
        );
        assert_eq!(Value::read(&bytes), Some(value));
    }

    #[test]
    fn malformed_bytes_are_nothing() {
        for bytes in [
            "",
            "i1",
            "ie",
            "i01e",
            "i-0e",
            "i+1e",
            "i9223372036854775808e",
            "5:abcd",
            "-1:",
            "01:a",
            "d1:a",
            "d1:ae",
            "di1e1:ae",
            "le1:a",
            "l",
            "99999999999999999999:",
            ":",
            "x",
        ] {
            assert_eq!(Value::read(bytes.as_bytes()), None, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_too_deep_is_refused_before_it_fills_the_stack() {
        let nested = |depth: usize| [vec![b'l'; depth], vec![b'e'; depth]].concat();
        assert!(Value::read(&nested(DEPTH_MAX)).is_some());
        assert!(Value::read(&nested(DEPTH_MAX + 1)).is_none());
        assert!(Value::read(&vec![b'd'; 2048]).is_none());
    }
}
