//! JSON as meshlogd reads and writes it: Python's, and not quite JSON.
//!
//! Invariants:
//! - What is read is bounded before anything of it is kept: bytes by the caller, depth here.
//! - A number is the text that it was written as. It is taken only in the one form in which Python
//!   writes that number, so what is written again has the same bytes there.
//! - [`Json::write`] is Python's `json.dumps` with sorted keys, without spaces, in ASCII.
//!
//! Beyond JSON there are the numbers `NaN`, `Infinity` and `-Infinity`, and halves of surrogate pairs
//! in texts. Source: RFC 8259; the documentation of Python's `json`.

use std::fmt;

/// Lists and maps that may lie in one another in a meshlog event, itself counted.
///
/// Four times what a value of ours may have, so that only what is no record's is cut off; small
/// enough for any stack.
pub const DEPTH_MAX: usize = 64;

/// Digits of a whole number: Python reads no longer one.
const DIGITS_MAX: usize = 4300;

/// Why bytes are not this JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// Not text.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// Not JSON.
    #[error("no JSON at byte {at}: {what}")]
    Syntax {
        /// Where.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// Lists and maps too deep in one another.
    #[error("more than {DEPTH_MAX} lists and objects lie in one another")]
    TooDeep,
    /// A name that an object has twice.
    #[error("an object has the name {0:?} twice")]
    NameTwice(String),
    /// A number as Python wouldn't write it, so that its text says nothing of the event's id.
    #[error("the number {0} is not written as Python writes it")]
    NumberForm(String),
}

/// A text: UTF-8, in which a half of a surrogate pair may stand alone, as three bytes.
///
/// The order of its bytes is that of its code points.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text(Vec<u8>);

impl Text {
    /// The text, if it has no lone half of a surrogate pair.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The text for a person.
    pub fn to_lossy(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    fn push(&mut self, code: u32) {
        match char::from_u32(code) {
            Some(char) => self.0.extend(char.encode_utf8(&mut [0; 4]).as_bytes()),
            None => self.0.extend([
                0xe0 | (code >> 12) as u8,
                0x80 | (code >> 6 & 0x3f) as u8,
                0x80 | (code & 0x3f) as u8,
            ]),
        }
    }

    /// Its code points.
    fn codes(&self) -> impl Iterator<Item = u32> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (&first, after) = rest.split_first()?;
            let (mut code, following) = match first {
                0..0x80 => (u32::from(first), 0),
                0x80..0xe0 => (u32::from(first & 0x1f), 1),
                0xe0..0xf0 => (u32::from(first & 0x0f), 2),
                _ => (u32::from(first & 0x07), 3),
            };
            let (tail, after) = after.split_at(following.min(after.len()));
            for byte in tail {
                code = code << 6 | u32::from(byte & 0x3f);
            }
            rest = after;
            Some(code)
        })
    }

    fn write(&self, out: &mut String) {
        out.push('"');
        for code in self.codes() {
            match code {
                0x22 => out.push_str("\\\""),
                0x5c => out.push_str("\\\\"),
                0x08 => out.push_str("\\b"),
                0x09 => out.push_str("\\t"),
                0x0a => out.push_str("\\n"),
                0x0c => out.push_str("\\f"),
                0x0d => out.push_str("\\r"),
                0x20..=0x7e => out.push(char::from(code as u8)),
                0..=0xffff => push_unit(out, code),
                _ => {
                    let above = code - 0x1_0000;
                    push_unit(out, 0xd800 + (above >> 10));
                    push_unit(out, 0xdc00 + (above & 0x3ff));
                }
            }
        }
        out.push('"');
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

fn push_unit(out: &mut String, unit: u32) {
    out.push_str("\\u");
    for shift in [12, 8, 4, 0] {
        out.push(char::from(b"0123456789abcdef"[(unit >> shift & 0xf) as usize]));
    }
}

/// What a text in this JSON says.
#[derive(Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it is written.
    Number(String),
    /// A text.
    Text(Text),
    /// Things in an order.
    List(Vec<Json>),
    /// Things by name, by the code points of the names; none twice.
    Map(Vec<(Text, Json)>),
}

impl Json {
    /// Reads all of `bytes`.
    ///
    /// # Errors
    ///
    /// [`JsonError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        let text = std::str::from_utf8(bytes).map_err(|_| JsonError::NotUtf8)?;
        let mut parser = Parser { text, at: 0 };
        let json = parser.value(0)?;
        parser.skip_space();
        if parser.at < text.len() {
            Err(parser.wrong("something follows the end"))
        } else {
            Ok(json)
        }
    }

    /// A text of our own.
    pub fn text(text: &str) -> Self {
        Self::Text(Text::from(text))
    }

    /// A whole number.
    pub fn whole(number: impl Into<i128>) -> Self {
        Self::Number(number.into().to_string())
    }

    /// An object of these names, of which none comes twice.
    pub fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Json)>) -> Self {
        let mut entries: Vec<_> =
            entries.into_iter().map(|(name, json)| (Text::from(name), json)).collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Self::Map(entries)
    }

    /// What an object has under `name`.
    pub fn get(&self, name: &str) -> Option<&Json> {
        let Self::Map(entries) = self else { return None };
        let at = entries.binary_search_by(|(held, _)| held.0.as_slice().cmp(name.as_bytes()));
        at.ok().map(|at| &entries[at].1)
    }

    /// The text, if it is one without lone halves of surrogate pairs.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => text.as_str(),
            _ => None,
        }
    }

    /// The number, if it is a whole one from 0 that fits.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(lexeme) => lexeme.parse().ok(),
            _ => None,
        }
    }

    /// Writes it in its canonical form.
    pub fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(bool) => out.push_str(if *bool { "true" } else { "false" }),
            Self::Number(lexeme) => out.push_str(lexeme),
            Self::Text(text) => text.write(out),
            Self::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Self::Map(entries) => {
                out.push('{');
                for (at, (name, json)) in entries.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    name.write(out);
                    out.push(':');
                    json.write(out);
                }
                out.push('}');
            }
        }
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text);
        f.write_str(&text)
    }
}

/// A float as Python writes it.
pub fn float_text(float: f64) -> String {
    if float.is_nan() {
        return "NaN".to_owned();
    }
    let sign = if float.is_sign_negative() { "-" } else { "" };
    if float.is_infinite() {
        return format!("{sign}Infinity");
    }
    // The shortest digits that read as this float: Python and Rust choose the same.
    let shortest = format!("{:e}", float.abs());
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    if !(-4..16).contains(&exponent) {
        return format!("{sign}{mantissa}e{exponent:+03}");
    }
    let Ok(whole) = usize::try_from(exponent + 1) else {
        let zeros = "0".repeat((-exponent - 1).unsigned_abs() as usize);
        return format!("{sign}0.{zeros}{digits}");
    };
    match digits.split_at_checked(whole) {
        Some((whole, "")) => format!("{sign}{whole}.0"),
        Some(("", fraction)) => format!("{sign}0.{fraction}"),
        Some((whole, fraction)) => format!("{sign}{whole}.{fraction}"),
        None => format!("{sign}{digits}{}.0", "0".repeat(whole - digits.len())),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn wrong(&self, what: &'static str) -> JsonError {
        JsonError::Syntax { at: self.at, what }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Steps over `byte`, if it is next.
    fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let is_next = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        self.at += if is_next { word.len() } else { 0 };
        is_next
    }

    /// The next value, that lies in `depth` lists and objects.
    fn value(&mut self, depth: usize) -> Result<Json, JsonError> {
        self.skip_space();
        match self.peek() {
            Some(b'{') => self.map(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => self.string().map(Json::Text),
            Some(b'-' | b'0'..=b'9' | b'N' | b'I') => self.number(),
            _ if self.takes_word("null") => Ok(Json::Null),
            _ if self.takes_word("true") => Ok(Json::Bool(true)),
            _ if self.takes_word("false") => Ok(Json::Bool(false)),
            None => Err(self.wrong("it ends where a value must stand")),
            Some(_) => Err(self.wrong("here begins no value")),
        }
    }

    fn deeper(&mut self, depth: usize) -> Result<usize, JsonError> {
        self.at += 1;
        if depth < DEPTH_MAX { Ok(depth + 1) } else { Err(JsonError::TooDeep) }
    }

    fn list(&mut self, depth: usize) -> Result<Json, JsonError> {
        let depth = self.deeper(depth)?;
        let mut items = Vec::new();
        self.skip_space();
        if self.takes(b']') {
            return Ok(Json::List(items));
        }
        loop {
            items.push(self.value(depth)?);
            self.skip_space();
            if self.takes(b']') {
                return Ok(Json::List(items));
            }
            if !self.takes(b',') {
                return Err(self.wrong("a list goes on with , or ends with ]"));
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Json, JsonError> {
        let depth = self.deeper(depth)?;
        let mut entries = Vec::new();
        self.skip_space();
        if self.takes(b'}') {
            return Ok(Json::Map(entries));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.wrong("a name in quotes must stand here"));
            }
            let name = self.string()?;
            self.skip_space();
            if !self.takes(b':') {
                return Err(self.wrong("a : must follow a name"));
            }
            entries.push((name, self.value(depth)?));
            self.skip_space();
            if self.takes(b'}') {
                break;
            }
            if !self.takes(b',') {
                return Err(self.wrong("an object goes on with , or ends with }"));
            }
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        match entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => {
                Err(JsonError::NameTwice(pair[0].0.to_lossy().chars().take(80).collect()))
            }
            None => Ok(Json::Map(entries)),
        }
    }

    fn string(&mut self) -> Result<Text, JsonError> {
        self.at += 1;
        let mut text = Text::default();
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let plain = rest.iter().take_while(|b| !matches!(b, b'"' | b'\\' | 0..0x20)).count();
            text.0.extend(&rest[..plain]);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => text.push(self.escape()?),
                Some(_) => return Err(self.wrong("a control character stands in a text")),
                None => return Err(self.wrong("it ends inside a text")),
            }
        }
    }

    fn escape(&mut self) -> Result<u32, JsonError> {
        self.at += 1;
        let code = match self.peek() {
            Some(b'u') => return self.unicode(),
            Some(byte @ (b'"' | b'\\' | b'/')) => byte,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            _ => return Err(self.wrong("an unknown escape")),
        };
        self.at += 1;
        Ok(u32::from(code))
    }

    /// A code point behind a backslash: one unit, or a pair of surrogates.
    fn unicode(&mut self) -> Result<u32, JsonError> {
        let unit = self.unit()?;
        let after = self.at;
        if (0xd800..0xdc00).contains(&unit) && self.takes(b'\\') && self.peek() == Some(b'u') {
            let low = self.unit()?;
            if (0xdc00..0xe000).contains(&low) {
                return Ok(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00));
            }
        }
        self.at = after;
        Ok(unit)
    }

    /// `u` and four hex digits.
    fn unit(&mut self) -> Result<u32, JsonError> {
        let digits = self.text.as_bytes().get(self.at + 1..self.at + 5);
        let mut unit = 0;
        for digit in digits.ok_or_else(|| self.wrong("it ends inside an escape"))? {
            let digit = char::from(*digit).to_digit(16);
            unit =
                unit << 4 | digit.ok_or_else(|| self.wrong("four hex digits must follow \\u"))?;
        }
        self.at += 5;
        Ok(unit)
    }

    fn digits(&mut self) -> usize {
        let rest = &self.text.as_bytes()[self.at..];
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    fn number(&mut self) -> Result<Json, JsonError> {
        let start = self.at;
        for word in ["NaN", "Infinity", "-Infinity"] {
            if self.takes_word(word) {
                return Ok(Json::Number(word.to_owned()));
            }
        }
        let is_negative = self.takes(b'-');
        let begins_with_zero = self.peek() == Some(b'0');
        let whole = self.digits();
        if whole == 0 || (begins_with_zero && whole > 1) {
            return Err(self.wrong("here begins no number"));
        }
        let mut is_float = false;
        if self.takes(b'.') {
            is_float = true;
            if self.digits() == 0 {
                return Err(self.wrong("digits must follow the point of a number"));
            }
        }
        if self.takes(b'e') || self.takes(b'E') {
            is_float = true;
            let _ = self.takes(b'+') || self.takes(b'-');
            if self.digits() == 0 {
                return Err(self.wrong("digits must follow the exponent of a number"));
            }
        }
        let lexeme = &self.text[start..self.at];
        let is_pythons = if is_float {
            lexeme.parse().is_ok_and(|float| float_text(float) == lexeme)
        } else {
            whole <= DIGITS_MAX && !(is_negative && begins_with_zero)
        };
        if is_pythons {
            Ok(Json::Number(lexeme.to_owned()))
        } else {
            Err(JsonError::NumberForm(lexeme.chars().take(80).collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn again(text: &str) -> Result<String, JsonError> {
        let mut out = String::new();
        Json::parse(text.as_bytes())?.write(&mut out);
        Ok(out)
    }

    #[test]
    fn what_is_written_is_sorted_tight_and_ascii() {
        let text = " {\"b\" : [ 1 , {} , [] ] ,\t\"a\":\"\\u00e9\u{7f}😀\\ud83d\\ude00\\/\\b\\f\\n\\r\\t\\\"\\\\\" }\n";
        let wanted = r#"{"a":"\u00e9\u007f\ud83d\ude00\ud83d\ude00/\b\f\n\r\t\"\\","b":[1,{},[]]}"#;
        assert_eq!(again(text).expect("JSON"), wanted);
        assert_eq!(again(wanted).expect("JSON"), wanted);
    }

    #[test]
    fn names_sort_by_their_code_points_and_half_a_pair_stands_for_itself() {
        let text = r#"{"\ud83d\ude00":1,"\uffff":2,"\udc00":3,"\ud800\u0041":4,"z":5}"#;
        let wanted = r#"{"z":5,"\ud800A":4,"\udc00":3,"\uffff":2,"\ud83d\ude00":1}"#;
        assert_eq!(again(text).expect("JSON"), wanted);
        assert_eq!(Json::parse(br#""\ud800""#).expect("JSON").as_str(), None);
    }

    #[test]
    fn numbers_are_taken_as_python_writes_them_and_otherwise_refused() {
        let long = "9".repeat(4300);
        for good in [
            "0",
            "-1",
            "1.0",
            "-0.0",
            "1e+16",
            "1e-07",
            "1.5e+300",
            "NaN",
            "-Infinity",
            "1180591620717411303424",
            &long,
        ] {
            assert_eq!(again(good).as_deref(), Ok(good));
        }
        for bad in [
            "-0",
            "1.00",
            "1e16",
            "1E+16",
            "1e5",
            "0.00001",
            "1e999",
            "10000000000000000.0",
            &"9".repeat(4301),
        ] {
            assert!(matches!(again(bad), Err(JsonError::NumberForm(_))), "{bad}");
        }
        for bad in ["01", ".5", "1.", "1e", "+1", "-", "nan", "Inf", "0x1", "--Infinity"] {
            assert!(matches!(again(bad), Err(JsonError::Syntax { .. })), "{bad}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_place() {
        for bad in [
            "",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\u12",
            "\"\n\"",
            "1 2",
            "{\"a\" 1}",
            "\u{feff}1",
            "tru",
            "'a'",
        ] {
            assert!(matches!(again(bad), Err(JsonError::Syntax { .. })), "{bad}");
        }
        assert_eq!(Json::parse(b"\"\xff\""), Err(JsonError::NotUtf8));
        assert_eq!(again(r#"{"a":1,"\u0061":2}"#), Err(JsonError::NameTwice("a".to_owned())));
    }

    #[test]
    fn depth_is_bounded_whatever_the_length() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(again(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(again(&nested(DEPTH_MAX + 1)), Err(JsonError::TooDeep));
        assert_eq!(again(&"[{\"a\":".repeat(30_000)), Err(JsonError::TooDeep));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_float_is_read_as_it_was_written(bits: u64) {
            let float = f64::from_bits(bits);
            let text = float_text(float);
            if !float.is_nan() {
                let read = text.replace("Infinity", "inf").parse::<f64>().expect("a float");
                prop_assert_eq!(read.to_bits(), bits, "{}", text);
            }
            prop_assert_eq!(again(&text), Ok(text));
        }

        #[test]
        fn what_was_written_is_read_as_the_same(text in r#"[\[\]{}",:0-9a\\u\-.eE \u{7f}é😀]{0,40}"#) {
            if let Ok(json) = Json::parse(text.as_bytes()) {
                let mut out = String::new();
                json.write(&mut out);
                prop_assert_eq!(Json::parse(out.as_bytes()), Ok(json));
            }
        }
    }
}
