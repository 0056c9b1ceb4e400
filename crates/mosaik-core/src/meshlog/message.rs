//! What two nodes say on `meshlog.sync`: which events one has, and events.
//!
//! Invariants:
//! - What is read is bounded: bytes, events, authors. Nothing is kept of what is over.
//! - An event is found in its message by brackets and quotes alone, and read by itself: one that is no
//!   event costs the others nothing.
//!
//! Source: FORMAT.md of mosaik-reticulum, section 4.

use std::{collections::BTreeMap, fmt::Write};

use super::{
    AUTHOR_LEN_MAX,
    json::{Json, JsonError},
};

/// Bytes of a message that is read: eight of the longest events.
pub const MESSAGE_LEN_MAX: usize = 512 << 10;
/// Events of a message that is read. meshlogd sends 32 at most.
pub const EVENTS_MAX: usize = 64;
/// Events of a message that is written, as meshlogd does.
pub const EVENTS_SENT_MAX: usize = 32;
/// Authors of a frontier that is read.
pub const FRONTIER_MAX: usize = 8192;

/// How many events of each author somebody has, without a hole.
pub type Frontier = BTreeMap<String, u64>;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// What its sender has.
    Frontier(Frontier),
    /// Events as they stand there, each still to be read.
    Events(Vec<&'a str>),
}

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// More bytes than are read.
    #[error("a message has at most {MESSAGE_LEN_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// Not text.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// Not an object, or none that ends.
    #[error("a message is an object")]
    NoObject,
    /// A part that is no JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A part that is not there, or not what it must be.
    #[error("{name:?} must be {takes}")]
    Wrong {
        /// The part's name.
        name: &'static str,
        /// What it must be.
        takes: &'static str,
    },
}

impl<'a> Message<'a> {
    /// Reads a message.
    ///
    /// # Errors
    ///
    /// [`MessageError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, MessageError> {
        if bytes.len() > MESSAGE_LEN_MAX {
            return Err(MessageError::TooLong(bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| MessageError::NotUtf8)?;
        let mut parts = Scan { text, at: 0 }.object().ok_or(MessageError::NoObject)?;
        let mut take = |name: &str| {
            let at = parts.iter().position(|(held, _)| *held == name)?;
            Some(parts.swap_remove(at).1)
        };
        match take("\"t\"") {
            Some("\"frontier\"") => {
                let text = take("\"f\"").ok_or(NO_FRONTIER)?;
                frontier(&Json::parse(text.as_bytes())?).map(Self::Frontier)
            }
            Some("\"events\"") => {
                let text = take("\"e\"").ok_or(NO_EVENTS)?;
                let events = Scan { text, at: 0 }.list().ok_or(NO_EVENTS)?;
                if events.len() > EVENTS_MAX { Err(NO_EVENTS) } else { Ok(Self::Events(events)) }
            }
            _ => Err(MessageError::Wrong { name: "t", takes: "\"frontier\" or \"events\"" }),
        }
    }
}

const NO_FRONTIER: MessageError =
    MessageError::Wrong { name: "f", takes: "an object of at most 8192 authors and whole numbers" };
const NO_EVENTS: MessageError =
    MessageError::Wrong { name: "e", takes: "a list of at most 64 events" };

fn frontier(json: &Json) -> Result<Frontier, MessageError> {
    let Json::Map(entries) = json else { return Err(NO_FRONTIER) };
    if entries.len() > FRONTIER_MAX {
        return Err(NO_FRONTIER);
    }
    let entry = |(author, seq): &(super::Text, Json)| {
        let author = author.as_str().filter(|name| name.len() <= AUTHOR_LEN_MAX)?;
        Some((author.to_owned(), seq.as_u64()?))
    };
    entries.iter().map(entry).collect::<Option<_>>().ok_or(NO_FRONTIER)
}

/// The message that says what somebody has.
pub fn write_frontier<'a>(entries: impl IntoIterator<Item = (&'a str, u64)>) -> String {
    let mut out = "{\"t\":\"frontier\",\"f\":{".to_owned();
    for (index, (author, seq)) in entries.into_iter().enumerate() {
        out.push_str(if index > 0 { "," } else { "" });
        Json::text(author).write(&mut out);
        let _ = write!(out, ":{seq}");
    }
    out.push_str("}}");
    out
}

/// The message that brings events, each as it stands on the wire.
pub fn write_events<'a>(events: impl IntoIterator<Item = &'a str>) -> String {
    let mut out = "{\"t\":\"events\",\"e\":[".to_owned();
    for (index, event) in events.into_iter().enumerate() {
        out.push_str(if index > 0 { "," } else { "" });
        out.push_str(event);
    }
    out.push_str("]}");
    out
}

/// Finds where values begin and end, and reads none.
struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    /// Names, as they are written, and values of an object that is all of the text.
    fn object(mut self) -> Option<Vec<(&'a str, &'a str)>> {
        let mut parts = Vec::new();
        self.take(b'{')?;
        if self.take(b'}').is_some() {
            return self.end().then_some(parts);
        }
        loop {
            let name = self.value()?;
            self.take(b':')?;
            parts.push((name, self.value()?));
            if self.take(b'}').is_some() {
                return self.end().then_some(parts);
            }
            self.take(b',')?;
        }
    }

    /// The values of a list that is all of the text.
    fn list(mut self) -> Option<Vec<&'a str>> {
        let mut parts = Vec::new();
        self.take(b'[')?;
        if self.take(b']').is_some() {
            return self.end().then_some(parts);
        }
        loop {
            parts.push(self.value()?);
            if self.take(b']').is_some() {
                return self.end().then_some(parts);
            }
            self.take(b',')?;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn end(&mut self) -> bool {
        self.skip_space();
        self.peek().is_none()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.skip_space();
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next.then_some(())
    }

    /// The text of the next value.
    fn value(&mut self) -> Option<&'a str> {
        self.skip_space();
        let (begin, mut depth) = (self.at, 0_usize);
        loop {
            match self.peek()? {
                b'"' => self.string()?,
                b'[' | b'{' => (depth, self.at) = (depth + 1, self.at + 1),
                b']' | b'}' => (depth, self.at) = (depth.checked_sub(1)?, self.at + 1),
                _ => {
                    let rest = &self.text.as_bytes()[self.at..];
                    let ends = |byte: &u8| b"\"[]{},: \t\r\n".contains(byte);
                    let plain = rest.iter().position(ends).unwrap_or(rest.len());
                    // Between values: only within another.
                    let step = if depth > 0 { plain.max(1) } else { plain };
                    if step == 0 {
                        return None;
                    }
                    self.at += step;
                }
            }
            if depth == 0 {
                return self.text.get(begin..self.at);
            }
        }
    }

    fn string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'\\' => self.at += 2,
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                _ => self.at += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let message = write_frontier([("north", 3), ("sü\"d", 0)]);
        let frontier = Frontier::from([("north".to_owned(), 3), ("sü\"d".to_owned(), 0)]);
        assert_eq!(Message::parse(message.as_bytes()), Ok(Message::Frontier(frontier)));
        let events = [r#"{"a":"]}\"","p":{"x":[1,{}]}}"#, "17", "{}"];
        let message = write_events(events);
        assert_eq!(Message::parse(message.as_bytes()), Ok(Message::Events(events.to_vec())));
        let spaced = br#" { "e" : [ {"a": [1, 2]} , NaN ] , "t" : "events" , "x" : null } "#;
        let events = vec![r#"{"a": [1, 2]}"#, "NaN"];
        assert_eq!(Message::parse(spaced), Ok(Message::Events(events)));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let many = write_events(vec!["{}"; EVENTS_MAX + 1]);
        let authors: Vec<String> = (0..=FRONTIER_MAX).map(|author| author.to_string()).collect();
        let wide = write_frontier(authors.iter().map(|author| (author.as_str(), 1)));
        let long = format!("{{\"t\":\"{}\"}}", "x".repeat(MESSAGE_LEN_MAX));
        let wrong = [
            "",
            "[]",
            "{",
            "17",
            "{}",
            "{\"t\":\"frontier\"}",
            "{\"t\":\"events\"}",
            "{\"t\":1}",
            "{\"t\":\"frontier\",\"f\":[]}",
            "{\"t\":\"frontier\",\"f\":{\"a\":1.5}}",
            "{\"t\":\"frontier\",\"f\":{\"a\":-1}}",
            "{\"t\":\"frontier\",\"f\":{\"a\":\"1\"}}",
            "{\"t\":\"frontier\",\"f\":{\"a\":1,\"a\":2}}",
            "{\"t\":\"events\",\"e\":{}}",
            "{\"t\":\"events\",\"e\":[}]}",
            "{\"t\":\"hello\",\"e\":[]}",
            "{\"t\":\"events\",\"e\":[]} x",
            &many,
            &wide,
            &long,
        ];
        for text in wrong {
            let shown: String = text.chars().take(60).collect();
            assert!(Message::parse(text.as_bytes()).is_err(), "{shown}");
        }
        assert_eq!(Message::parse(b"{\"t\":\xff}"), Err(MessageError::NotUtf8));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(text in "[\\[\\]{}\",:\\\\a-e0 ]{0,80}") {
            let _ = Message::parse(text.as_bytes());
            let whole = format!("{{\"t\":\"events\",\"e\":{text}}}");
            if let Ok(Message::Events(events)) = Message::parse(whole.as_bytes()) {
                prop_assert!(events.iter().all(|event| !event.is_empty()));
            }
        }
    }
}
