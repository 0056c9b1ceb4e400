//! The lines of a log that meshlogd has written.
//!
//! Invariants:
//! - A line is an event or refused, whatever the lines around it are: also behind one that is too long.
//! - At most one line is held in memory.

use std::io::{BufRead, Read};

use mosaik_api::request::MeshlogLine;
use mosaik_core::meshlog::{EVENT_LEN_MAX, EventError, MeshlogEvent};

use super::BadRow;

/// A log, line by line. Empty lines are passed over.
pub(crate) struct MeshlogLines<R> {
    reader: R,
    line: u64,
    ended: bool,
}

impl<R: BufRead> MeshlogLines<R> {
    /// Reads from the beginning.
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, line: 0, ended: false }
    }

    /// The next line without its end, and whether it had one; its beginning, if it is too long.
    fn next_line(&mut self) -> std::io::Result<Option<(Vec<u8>, bool)>> {
        let mut bytes = Vec::new();
        let limit = EVENT_LEN_MAX as u64 + 2;
        if (&mut self.reader).take(limit).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        self.line += 1;
        let mut is_whole = bytes.ends_with(b"\n");
        while !is_whole && bytes.len() > EVENT_LEN_MAX {
            let held = self.reader.fill_buf()?;
            if held.is_empty() {
                break;
            }
            let end = held.iter().position(|byte| *byte == b'\n');
            is_whole = end.is_some();
            let len = end.map_or(held.len(), |at| at + 1);
            self.reader.consume(len);
        }
        Ok(Some((bytes, is_whole)))
    }
}

impl<R: BufRead> Iterator for MeshlogLines<R> {
    type Item = std::io::Result<Result<MeshlogLine, BadRow>>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let (bytes, is_whole) = match self.next_line() {
                Ok(line) => line?,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            };
            let event = bytes.trim_ascii();
            if !event.is_empty() {
                return Some(Ok(read(event, self.line, is_whole)));
            }
        }
        None
    }
}

fn read(event: &[u8], line: u64, is_whole: bool) -> Result<MeshlogLine, BadRow> {
    let bad = |reason: String| BadRow { line, reason };
    match (MeshlogEvent::parse(event), std::str::from_utf8(event)) {
        (Ok(_), Ok(event)) => Ok(MeshlogLine { line, event: event.to_owned() }),
        (Err(EventError::Json(error)), _) if !is_whole => {
            Err(bad(format!("{error}; the file ends inside this line")))
        }
        (Err(error), _) => Err(bad(error.to_string())),
        (_, Err(_)) => Err(bad("it is not UTF-8".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = include_str!("../../../../tests/data/meshlogd.jsonl");

    fn lines(log: &[u8]) -> (Vec<MeshlogLine>, Vec<BadRow>) {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for line in MeshlogLines::new(log) {
            match line.expect("memory can be read") {
                Ok(line) => good.push(line),
                Err(row) => bad.push(row),
            }
        }
        (good, bad)
    }

    #[test]
    fn every_line_that_meshlogd_wrote_is_read_word_for_word() {
        let (good, bad) = lines(LOG.as_bytes());
        assert_eq!(bad, []);
        assert_eq!(
            good.iter().map(|line| line.line).collect::<Vec<_>>(),
            (1..=16).collect::<Vec<_>>()
        );
        let text: Vec<_> = good.iter().map(|line| line.event.as_str()).collect();
        assert_eq!(text, LOG.lines().collect::<Vec<_>>());
    }

    #[test]
    fn a_damaged_line_is_named_and_costs_no_other() {
        let mut log: Vec<Vec<u8>> = LOG.lines().map(|line| line.as_bytes().to_vec()).collect();
        log[1] = b"[]".to_vec();
        log[2][200] ^= 1;
        log[3] = vec![b'x'; 3 * EVENT_LEN_MAX];
        log[4] = Vec::new();
        log[5] = b"\xff\xfe".to_vec();
        let torn = log[15].len() / 2;
        log[15].truncate(torn);
        let (good, bad) = lines(&log.join(&b'\n'));
        assert_eq!(bad.iter().map(|row| row.line).collect::<Vec<_>>(), [2, 3, 4, 6, 16], "{bad:?}");
        assert_eq!(good.len(), 10);
        assert!(bad[4].reason.contains("ends inside this line"), "{bad:?}");
        assert!(bad[2].reason.contains("at most 65536 bytes"), "{bad:?}");
    }

    #[test]
    fn a_line_of_the_greatest_length_is_read_and_one_more_is_not() {
        let event = LOG.lines().next().expect("a log with lines");
        let padded = |len: usize| {
            format!("{}{}}}", &event[..event.len() - 1], " ".repeat(len - event.len()))
        };
        let (good, bad) = lines(format!("{}\r\n{event}\n", padded(EVENT_LEN_MAX)).as_bytes());
        assert_eq!((good.len(), bad), (2, Vec::new()));
        let (good, bad) = lines(format!("{}\n{event}", padded(EVENT_LEN_MAX + 1)).as_bytes());
        assert_eq!((good.len(), bad.len()), (1, 1));
        assert_eq!((good[0].line, bad[0].line), (2, 1));
    }
}
