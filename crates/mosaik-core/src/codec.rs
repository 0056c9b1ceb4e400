//! Postcard's primitives, read and written by hand, in one encoding only.
//!
//! Invariants:
//! - What [`Reader`] accepts, [`Writer`] would write byte for byte: long varints, wrong bools and
//!   trailing bytes are refused (postcard itself accepts the first and the last).
//! - No length from outside is believed before the bytes behind it are there.
//!
//! Source: the postcard wire format, <https://postcard.jamesmunns.com/wire-format>.

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The bytes end inside a value.
    #[error("ends inside a value")]
    End,
    /// Bytes follow the last value.
    #[error("{0} bytes too many at the end")]
    Trailing(usize),
    /// A varint that is longer than it needs to be, or wider than its type.
    #[error("a number is not in its shortest form or too large")]
    Varint,
    /// A bool, option or enum tag that does not exist.
    #[error("unknown tag {0}")]
    Tag(u64),
    /// A length or count over its limit.
    #[error("a length of {len}, the limit is {limit}")]
    TooLong {
        /// What was claimed.
        len: u64,
        /// What is allowed.
        limit: usize,
    },
    /// Text that is not UTF-8.
    #[error("text is not utf-8")]
    Utf8,
    /// Right in form, wrong in meaning: the words say what.
    #[error("{0}")]
    Invalid(&'static str),
}

/// Takes values off the front of some bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// What is left, unread.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes `len` raw bytes.
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], ReadError> {
        if self.rest.len() < len {
            return Err(ReadError::End);
        }
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(taken)
    }

    /// Takes `N` raw bytes, as postcard writes `[u8; N]`.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let mut array = [0; N];
        array.copy_from_slice(self.raw(N)?);
        Ok(array)
    }

    /// Takes one raw byte.
    pub fn u8(&mut self) -> Result<u8, ReadError> {
        Ok(self.raw(1)?[0])
    }

    /// Takes a bool: one byte, 0 or 1.
    pub fn bool(&mut self) -> Result<bool, ReadError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(ReadError::Tag(u64::from(tag))),
        }
    }

    /// Takes an unsigned varint in its shortest form.
    pub fn varint(&mut self) -> Result<u64, ReadError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(ReadError::Varint);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 { Err(ReadError::Varint) } else { Ok(value) };
            }
        }
        Err(ReadError::Varint)
    }

    /// Takes a varint that fits 32 bits.
    pub fn varint_u32(&mut self) -> Result<u32, ReadError> {
        u32::try_from(self.varint()?).map_err(|_| ReadError::Varint)
    }

    /// Takes a varint that fits 16 bits.
    pub fn varint_u16(&mut self) -> Result<u16, ReadError> {
        u16::try_from(self.varint()?).map_err(|_| ReadError::Varint)
    }

    /// Takes a zigzag varint.
    pub fn zigzag(&mut self) -> Result<i64, ReadError> {
        self.varint().map(unzigzag)
    }

    /// Takes a length or count of at most `limit`.
    pub fn len(&mut self, limit: usize) -> Result<usize, ReadError> {
        let len = self.varint()?;
        match usize::try_from(len) {
            Ok(len) if len <= limit => Ok(len),
            _ => Err(ReadError::TooLong { len, limit }),
        }
    }

    /// Takes a count of at most `limit` values of at least `len_min` bytes each, so that the count
    /// may be used to reserve memory: the bytes for it are there.
    pub fn count(&mut self, limit: usize, len_min: usize) -> Result<usize, ReadError> {
        let count = self.len(limit)?;
        if count.saturating_mul(len_min) > self.rest.len() {
            return Err(ReadError::End);
        }
        Ok(count)
    }

    /// Takes bytes with a length before them, at most `limit`.
    pub fn bytes(&mut self, limit: usize) -> Result<&'a [u8], ReadError> {
        let len = self.len(limit)?;
        self.raw(len)
    }

    /// Takes UTF-8 text with a length before it, at most `limit` bytes.
    pub fn str(&mut self, limit: usize) -> Result<&'a str, ReadError> {
        std::str::from_utf8(self.bytes(limit)?).map_err(|_| ReadError::Utf8)
    }

    /// Takes the tag of an option: whether a value follows.
    pub fn option(&mut self) -> Result<bool, ReadError> {
        self.bool()
    }

    /// Ends the reading.
    ///
    /// # Errors
    ///
    /// [`ReadError::Trailing`] if anything is left.
    pub fn finish(self) -> Result<(), ReadError> {
        if self.rest.is_empty() { Ok(()) } else { Err(ReadError::Trailing(self.rest.len())) }
    }
}

/// Appends values to bytes.
#[derive(Debug, Clone, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Nothing written yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing written yet, room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity) }
    }

    /// How many bytes are written.
    pub fn written(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The bytes so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets what is written and keeps the room for it.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Raw bytes, without a length.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// One raw byte.
    pub fn u8(&mut self, byte: u8) -> &mut Self {
        self.bytes.push(byte);
        self
    }

    /// A bool, also the tag of an option.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    /// An unsigned varint.
    pub fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
        self
    }

    /// A zigzag varint.
    pub fn zigzag(&mut self, value: i64) -> &mut Self {
        self.varint(zigzag(value))
    }

    /// A length or count.
    pub fn len(&mut self, len: usize) -> &mut Self {
        self.varint(len as u64)
    }

    /// Bytes with their length before them.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.len(bytes.len()).raw(bytes)
    }

    /// Text with its length before it.
    pub fn str(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }
}

/// How many bytes [`Writer::varint`] takes for `value`.
pub fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Maps small magnitudes to small numbers: 0, -1, 1, -2 become 0, 1, 2, 3.
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_varint_has_one_form() {
        assert_eq!(Reader::new(&[0x81, 0x00]).varint(), Err(ReadError::Varint));
        assert_eq!(Reader::new(&[0x80]).varint(), Err(ReadError::End));
        let wide = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(Reader::new(&wide).varint(), Err(ReadError::Varint));
    }

    #[test]
    fn a_claimed_count_needs_its_bytes() {
        let mut bytes = Writer::new();
        bytes.varint(1 << 20).raw(&[0; 16]);
        assert_eq!(Reader::new(bytes.as_bytes()).count(1 << 21, 1), Err(ReadError::End));
    }

    proptest! {
        #[test]
        fn numbers_are_written_as_postcard_writes_them(value: u64, signed: i64) {
            let mut writer = Writer::new();
            writer.varint(value);
            prop_assert_eq!(writer.written(), varint_len(value));
            prop_assert_eq!(writer.as_bytes(), &postcard::to_allocvec(&value).expect("a number"));
            prop_assert_eq!(Reader::new(writer.as_bytes()).varint(), Ok(value));
            let mut writer = Writer::new();
            writer.zigzag(signed);
            prop_assert_eq!(writer.as_bytes(), &postcard::to_allocvec(&signed).expect("a number"));
            prop_assert_eq!(Reader::new(writer.as_bytes()).zigzag(), Ok(signed));
        }

        #[test]
        fn what_is_read_is_written_the_same(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            if let Ok(value) = reader.varint() {
                let mut writer = Writer::new();
                writer.varint(value);
                prop_assert_eq!(writer.as_bytes(), &bytes[..bytes.len() - reader.remaining()]);
            }
        }
    }
}
