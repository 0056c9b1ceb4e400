//! The rows of a CSV file, each with the line at which it begins.
//!
//! RFC 4180, and one thing more: a quote inside a cell that doesn't begin with one is itself. Empty
//! lines are passed over.
//!
//! The csv crate reads all this as well, but counts lines from before the ones that it skips, and
//! takes a quote that is never closed for a long cell; both would be told wrong.

use std::io::{self, BufRead, Read};

/// The cells of a row.
pub(super) type Cells = Vec<Vec<u8>>;

/// Why a row has no cells.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowError {
    /// It is over, and a quote still open.
    #[error("a quote that opens in this row is never closed; nothing after it was read")]
    Unclosed,
    /// Something other than a comma follows a closing quote.
    #[error("something follows a closing quote; a quote inside a cell is written twice")]
    AfterQuote,
    /// It has more bytes than can be sent.
    #[error("the row has over {0} bytes; nothing after it was read")]
    TooLong(usize),
    /// The file fails.
    #[error("the file can't be read from here on: {0}")]
    Read(#[from] io::Error),
}

impl RowError {
    /// Whether no row can be read after it.
    pub(super) fn ends_the_file(&self) -> bool {
        !matches!(self, Self::AfterQuote)
    }
}

/// A file, row by row.
pub(super) struct Table<R> {
    reader: R,
    /// Lines read so far.
    lines: u64,
    row_len_max: usize,
}

enum State {
    CellBegins,
    Plain,
    Quoted,
    /// A quote in a quoted cell: its end, or the first of two.
    QuoteSeen,
}

impl<R: BufRead> Table<R> {
    /// Reads rows of at most `row_len_max` bytes.
    pub(super) fn new(reader: R, row_len_max: usize) -> Self {
        Self { reader, lines: 0, row_len_max }
    }

    /// The next row and its line; none at the end.
    pub(super) fn next_row(&mut self) -> Option<(u64, Result<Cells, RowError>)> {
        loop {
            let line = self.lines + 1;
            match self.row() {
                Ok(None) => return None,
                Ok(Some(cells)) if cells.len() == 1 && cells[0].is_empty() => {}
                Ok(Some(cells)) => return Some((line, Ok(cells))),
                Err(error) => return Some((line, Err(error))),
            }
        }
    }

    fn row(&mut self) -> Result<Option<Cells>, RowError> {
        let (mut cells, mut cell) = (Cells::new(), Vec::new());
        let (mut state, mut is_wrong, mut len) = (State::CellBegins, false, 0);
        loop {
            let mut line = Vec::new();
            let limit = self.row_len_max.saturating_sub(len) + 1;
            (&mut self.reader).take(limit as u64).read_until(b'\n', &mut line)?;
            len += line.len();
            if len > self.row_len_max {
                return Err(RowError::TooLong(self.row_len_max));
            }
            let is_over = line.is_empty();
            self.lines += u64::from(!is_over);
            let end = line.len() - line_end(&line).len();
            for byte in &line[..end] {
                state = match (state, byte) {
                    (State::CellBegins, b'"') => State::Quoted,
                    (State::Quoted, b'"') => State::QuoteSeen,
                    (State::CellBegins | State::Plain | State::QuoteSeen, b',') => {
                        cells.push(std::mem::take(&mut cell));
                        State::CellBegins
                    }
                    (State::QuoteSeen, b'"') => {
                        cell.push(b'"');
                        State::Quoted
                    }
                    (State::Quoted, byte) => {
                        cell.push(*byte);
                        State::Quoted
                    }
                    (before, byte) => {
                        is_wrong |= matches!(before, State::QuoteSeen);
                        cell.push(*byte);
                        State::Plain
                    }
                };
            }
            match state {
                State::Quoted if is_over => return Err(RowError::Unclosed),
                State::Quoted => cell.extend_from_slice(&line[end..]),
                _ if is_over && len == 0 => return Ok(None),
                _ if is_wrong => return Err(RowError::AfterQuote),
                _ => {
                    cells.push(cell);
                    return Ok(Some(cells));
                }
            }
        }
    }
}

/// What ends a line: LF, CRLF, or nothing at the end of the file.
fn line_end(line: &[u8]) -> &[u8] {
    let len = match line {
        [.., b'\r', b'\n'] => 2,
        [.., b'\n'] => 1,
        _ => 0,
    };
    &line[line.len() - len..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<(u64, Result<Vec<String>, String>)> {
        let mut table = Table::new(text.as_bytes(), 100);
        let mut rows = Vec::new();
        while let Some((line, row)) = table.next_row() {
            let is_last = row.as_ref().is_err_and(RowError::ends_the_file);
            let text = |cell: Vec<u8>| String::from_utf8(cell).expect("utf-8 went in");
            let row = row.map(|cells| cells.into_iter().map(text).collect());
            rows.push((line, row.map_err(|error| error.to_string())));
            if is_last {
                break;
            }
        }
        rows
    }

    fn good(line: u64, cells: &[&str]) -> (u64, Result<Vec<String>, String>) {
        (line, Ok(cells.iter().map(|cell| (*cell).to_owned()).collect()))
    }

    #[test]
    fn cells_are_plain_or_quoted_and_lines_end_either_way() {
        assert_eq!(
            rows("a,b\r\n\n\r\n,\"x, \"\"y\"\"\r\nz\"\n5\" pipe,c\n\"\",\"d\""),
            [
                good(1, &["a", "b"]),
                good(4, &["", "x, \"y\"\r\nz"]),
                good(6, &["5\" pipe", "c"]),
                good(7, &["", "d"]),
            ]
        );
        assert_eq!(rows(""), []);
        assert_eq!(rows("\n\n"), []);
    }

    #[test]
    fn what_is_wrong_is_told_with_the_line_where_its_row_begins() {
        let found = rows("a\n\"b\" c,d\n\"\n\" x\nf\n\"g\nh\n");
        let lines: Vec<_> = found.iter().map(|(line, row)| (*line, row.is_ok())).collect();
        assert_eq!(lines, [(1, true), (2, false), (3, false), (5, true), (6, false)]);
        let long = rows(&format!("a\n{}\nb\n", "x".repeat(101)));
        assert_eq!((long.len(), long[1].0, long[1].1.is_err()), (2, 2, true));
        assert_eq!(rows(&format!("{}\n", "x".repeat(99))).len(), 1);
    }

    #[test]
    fn what_the_csv_crate_writes_is_read_as_it_was() {
        let cells = ["", " a ", "\"", "\"\"", "x,y", "1\n2", "1\r\n2", "\r", "é", "a\"b", "#"];
        for first in cells {
            for second in cells {
                let mut csv = csv::Writer::from_writer(Vec::new());
                csv.write_record([first, second]).expect("in memory");
                let text = String::from_utf8(csv.into_inner().expect("in memory")).expect("text");
                assert_eq!(rows(&text), [good(1, &[first, second])], "{text:?}");
            }
        }
    }
}
