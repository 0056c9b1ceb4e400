//! What a field can hold: ten types, each value in exactly one form of bytes.
//!
//! Invariants:
//! - A [`Value`] that exists has a form of bytes, and only one: floats are normalised, the keys of a
//!   map are sorted and unique, and no more than [`VALUE_DEPTH_MAX`] lists and maps lie in one
//!   another. So encoding can't fail, and neither reading nor dropping a value recurses deeper.
//! - [`Value::decode`] takes what [`Value::encode`] writes and nothing else.
//! - Two values are equal when their bytes are: the integer 1 is not the float 1.
//!
//! Source: FORMAT.md beside this crate, section 7.

use std::collections::BTreeMap;

use crate::{
    codec::{ReadError, Reader, Writer},
    limits::VALUE_DEPTH_MAX,
};

const NULL: u64 = 0;
const BOOL: u64 = 1;
const INT: u64 = 2;
const FLOAT: u64 = 3;
const TEXT: u64 = 4;
const BYTES: u64 = 5;
const LIST: u64 = 6;
const MAP: u64 = 7;
const TIME: u64 = 8;
const GEO: u64 = 9;

/// The bits of the only NaN.
const NAN_BITS: u64 = 0x7ff8_0000_0000_0000;

/// A list or map that would lie too deep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at most {VALUE_DEPTH_MAX} lists and maps may lie in one another")]
pub struct TooDeep;

/// What a field holds, and what an application's event carries.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// Nothing, said on purpose: a field with null is not an empty field.
    Null,
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number.
    Float(Float),
    /// UTF-8.
    Text(String),
    /// Anything.
    Bytes(Vec<u8>),
    /// Values in an order.
    List(List),
    /// Values by name.
    Map(Map),
    /// Unix milliseconds.
    Time(i64),
    /// A place on earth.
    Geo(Geo),
}

/// An `f64` with one NaN (`7ff8000000000000`) and one zero: it is equal where its bits are.
#[derive(Debug, Clone, Copy)]
pub struct Float(f64);

impl Float {
    /// Takes any float: every NaN becomes the one NaN, -0.0 becomes 0.0.
    pub fn new(float: f64) -> Self {
        if float.is_nan() {
            Self(f64::from_bits(NAN_BITS))
        } else if float == 0.0 {
            Self(0.0)
        } else {
            Self(float)
        }
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        let bits = u64::from_le_bytes(reader.array()?);
        let float = Self::new(f64::from_bits(bits));
        if float.0.to_bits() == bits {
            Ok(float)
        } else {
            Err(ReadError::Invalid("a float is -0.0 or another NaN than the one allowed"))
        }
    }

    fn write(self, writer: &mut Writer) {
        writer.raw(&self.0.to_le_bytes());
    }
}

impl PartialEq for Float {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Float {}

impl std::hash::Hash for Float {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

/// Values in an order, not too deep.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct List {
    items: Vec<Value>,
    /// Lists and maps below this one, at the deepest place.
    below: u8,
}

impl List {
    /// A list of `items`.
    ///
    /// # Errors
    ///
    /// [`TooDeep`] if one of them is as deep as a value may be.
    pub fn new(items: Vec<Value>) -> Result<Self, TooDeep> {
        let below = depth_below(items.iter())?;
        Ok(Self { items, below })
    }

    /// What is in it.
    pub fn items(&self) -> &[Value] {
        &self.items
    }

    /// What was in it.
    pub fn into_items(self) -> Vec<Value> {
        self.items
    }
}

/// Values by name, sorted by the bytes of the names, not too deep.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Map {
    entries: BTreeMap<String, Value>,
    below: u8,
}

impl Map {
    /// A map of `entries`.
    ///
    /// # Errors
    ///
    /// [`TooDeep`] if a value of it is as deep as a value may be.
    pub fn new(entries: BTreeMap<String, Value>) -> Result<Self, TooDeep> {
        let below = depth_below(entries.values())?;
        Ok(Self { entries, below })
    }

    /// What is in it.
    pub fn entries(&self) -> &BTreeMap<String, Value> {
        &self.entries
    }

    /// What was in it.
    pub fn into_entries(self) -> BTreeMap<String, Value> {
        self.entries
    }
}

/// The greatest depth of `values`, if a list or map may be put around them.
fn depth_below<'a>(values: impl Iterator<Item = &'a Value>) -> Result<u8, TooDeep> {
    let below = values.map(Value::depth).max().unwrap_or(0);
    if usize::from(below) < VALUE_DEPTH_MAX { Ok(below) } else { Err(TooDeep) }
}

/// A place on earth, WGS 84. Nothing checks that the numbers lie in their ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geo {
    /// Degrees north.
    pub lat: Float,
    /// Degrees east.
    pub lon: Float,
    /// Metres.
    pub altitude: Option<Float>,
    /// Metres around the place within which it is true.
    pub accuracy: Option<Float>,
}

impl Value {
    /// Takes any float in its one form.
    pub fn float(float: f64) -> Self {
        Self::Float(Float::new(float))
    }

    /// A list of `items`.
    ///
    /// # Errors
    ///
    /// As [`List::new`].
    pub fn list(items: Vec<Self>) -> Result<Self, TooDeep> {
        List::new(items).map(Self::List)
    }

    /// A map of `entries`.
    ///
    /// # Errors
    ///
    /// As [`Map::new`].
    pub fn map(entries: BTreeMap<String, Self>) -> Result<Self, TooDeep> {
        Map::new(entries).map(Self::Map)
    }

    /// How many lists and maps lie in one another, this one counted: 0 to [`VALUE_DEPTH_MAX`].
    pub fn depth(&self) -> u8 {
        match self {
            Self::List(list) => list.below + 1,
            Self::Map(map) => map.below + 1,
            _ => 0,
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What people call its type: `null`, `bool`, `int`, `float`, `text`, `bytes`, `list`, `map`,
    /// `time` or `geo`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Time(_) => "time",
            Self::Geo(_) => "geo",
        }
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        self.write(&mut writer);
        writer.into_bytes()
    }

    /// The value that `bytes` are, all of them.
    ///
    /// # Errors
    ///
    /// [`ReadError`] for what [`Value::encode`] wouldn't write.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReadError> {
        let mut reader = Reader::new(bytes);
        let value = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }

    /// Takes a value off the front.
    ///
    /// # Errors
    ///
    /// As [`Value::decode`], but for what follows.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        Self::read_inside(reader, 0)
    }

    /// Takes a value that lies in `outer` lists and maps. Their number bounds the recursion.
    fn read_inside(reader: &mut Reader<'_>, outer: usize) -> Result<Self, ReadError> {
        let tag = reader.varint()?;
        Ok(match tag {
            NULL => Self::Null,
            BOOL => Self::Bool(reader.bool()?),
            INT => Self::Int(reader.zigzag()?),
            FLOAT => Self::Float(Float::read(reader)?),
            TEXT => Self::Text(reader.str(usize::MAX)?.to_owned()),
            BYTES => Self::Bytes(reader.bytes(usize::MAX)?.to_owned()),
            LIST | MAP if outer == VALUE_DEPTH_MAX => return Err(ReadError::Invalid(DEEP)),
            LIST => Self::list(read_items(reader, outer)?).map_err(deep)?,
            MAP => Self::map(read_entries(reader, outer)?).map_err(deep)?,
            TIME => Self::Time(reader.zigzag()?),
            GEO => Self::Geo(Geo {
                lat: Float::read(reader)?,
                lon: Float::read(reader)?,
                altitude: read_option(reader)?,
                accuracy: read_option(reader)?,
            }),
            tag => return Err(ReadError::Tag(tag)),
        })
    }

    /// Appends the bytes.
    pub fn write(&self, writer: &mut Writer) {
        match self {
            Self::Null => {
                writer.varint(NULL);
            }
            Self::Bool(bool) => {
                writer.varint(BOOL).bool(*bool);
            }
            Self::Int(int) => {
                writer.varint(INT).zigzag(*int);
            }
            Self::Float(float) => float.write(writer.varint(FLOAT)),
            Self::Text(text) => {
                writer.varint(TEXT).str(text);
            }
            Self::Bytes(bytes) => {
                writer.varint(BYTES).bytes(bytes);
            }
            Self::List(list) => {
                writer.varint(LIST).len(list.items.len());
                for item in &list.items {
                    item.write(writer);
                }
            }
            Self::Map(map) => {
                writer.varint(MAP).len(map.entries.len());
                for (name, value) in &map.entries {
                    value.write(writer.str(name));
                }
            }
            Self::Time(ms) => {
                writer.varint(TIME).zigzag(*ms);
            }
            Self::Geo(geo) => {
                geo.lat.write(writer.varint(GEO));
                geo.lon.write(writer);
                for part in [geo.altitude, geo.accuracy] {
                    writer.bool(part.is_some());
                    if let Some(metres) = part {
                        metres.write(writer);
                    }
                }
            }
        }
    }
}

const DEEP: &str = "more than 16 lists and maps lie in one another";

fn deep(_: TooDeep) -> ReadError {
    ReadError::Invalid(DEEP)
}

fn read_items(reader: &mut Reader<'_>, outer: usize) -> Result<Vec<Value>, ReadError> {
    let count = reader.count(usize::MAX, 1)?;
    (0..count).map(|_| Value::read_inside(reader, outer + 1)).collect()
}

fn read_entries(
    reader: &mut Reader<'_>,
    outer: usize,
) -> Result<BTreeMap<String, Value>, ReadError> {
    let count = reader.count(usize::MAX, 2)?;
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let name = reader.str(usize::MAX)?;
        if entries.last_key_value().is_some_and(|(last, _): (&String, _)| last.as_str() >= name) {
            return Err(ReadError::Invalid("the keys of a map are not sorted and unique"));
        }
        entries.insert(name.to_owned(), Value::read_inside(reader, outer + 1)?);
    }
    Ok(entries)
}

fn read_option(reader: &mut Reader<'_>) -> Result<Option<Float>, ReadError> {
    Ok(if reader.option()? { Some(Float::read(reader)?) } else { None })
}

impl From<bool> for Value {
    fn from(bool: bool) -> Self {
        Self::Bool(bool)
    }
}

impl From<i64> for Value {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl From<f64> for Value {
    fn from(float: f64) -> Self {
        Self::float(float)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

#[cfg(test)]
mod tests;
