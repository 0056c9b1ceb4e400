//! The rows of a file, as an import sends them.
//!
//! Invariants:
//! - A row is read whole or refused whole, with the line at which it begins. One bad row takes no
//!   other with it.
//! - What a row means depends on the row and the header alone: the same file twice means the same.
//!   So a record that stands in two rows is refused the second time.
//!
//! An empty cell of a CSV file says nothing about its field. A column called `name:type` has that
//! type; others are guessed cell by cell, and a guess never loses a digit.

mod meshlog;
mod table;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    io::{self, BufRead, Read},
};

use mosaik_api::{
    json::{from_json, parse_text, to_json},
    request::{BODY_LEN_MAX, ImportRow},
};
use serde_json::Value as Json;

pub(crate) use self::meshlog::MeshlogLines;
use self::table::{Cells, RowError, Table};
use crate::cli::{FileFormat, Type, guess, split_type};

/// Bytes of one row at most: it fits a request with room to spare.
const ROW_LEN_MAX: usize = BODY_LEN_MAX / 2;

/// A row that can't be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadRow {
    /// Where it begins, from 1.
    pub(crate) line: u64,
    /// What is wrong with it.
    pub(crate) reason: String,
}

/// Why a file as a whole can't be imported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Read(#[from] io::Error),
    /// Its header isn't a row of CSV.
    #[error("its header is wrong: {0}")]
    BadHeader(#[source] RowError),
    /// It has no header.
    #[error("it is empty; a CSV file begins with the names of its columns")]
    NoHeader,
    /// Its header isn't text.
    #[error("its header is not UTF-8")]
    HeaderNotText,
    /// Two columns are called the same.
    #[error("two columns are called {0:?}")]
    ColumnTwice(String),
    /// A column has no name.
    #[error("column {0} has no name")]
    NoColumnName(usize),
    /// A column names a type that doesn't exist.
    #[error("{0}")]
    BadType(String),
    /// The column with the ids isn't there.
    #[error("there is no column {wanted:?}; the columns are {found}")]
    NoIdColumn {
        /// What was asked for.
        wanted: String,
        /// What there is.
        found: String,
    },
}

/// The rows of a file, one by one.
pub(crate) struct Rows<R> {
    source: Source<R>,
    id_column: String,
    /// Where each record stood.
    lines: HashMap<String, u64>,
    ended: bool,
}

enum Source<R> {
    Csv { table: Table<R>, columns: Vec<Column> },
    Jsonl { reader: R, line: u64 },
}

struct Column {
    name: String,
    kind: Option<Type>,
}

/// A record and what a row says of its fields.
type Said = (String, BTreeMap<String, Json>);

impl<R: BufRead> Rows<R> {
    /// Reads what stands before the first row.
    ///
    /// # Errors
    ///
    /// [`FileError`]: no row can be read then.
    pub(crate) fn open(
        mut source: R,
        format: FileFormat,
        id_column: &str,
    ) -> Result<Self, FileError> {
        if source.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
            // The byte order mark that spreadsheets write.
            source.consume(3);
        }
        let source = match format {
            FileFormat::Jsonl => Source::Jsonl { reader: source, line: 0 },
            FileFormat::Csv => {
                let mut table = Table::new(source, ROW_LEN_MAX);
                let (_, header) = table.next_row().ok_or(FileError::NoHeader)?;
                let columns = columns(&header.map_err(FileError::BadHeader)?, id_column)?;
                Source::Csv { table, columns }
            }
        };
        let id_column = id_column.to_owned();
        Ok(Self { source, id_column, lines: HashMap::new(), ended: false })
    }
}

impl<R> fmt::Debug for Rows<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("id_column", &self.id_column).finish_non_exhaustive()
    }
}

fn columns(header: &Cells, id_column: &str) -> Result<Vec<Column>, FileError> {
    let mut columns: Vec<Column> = Vec::new();
    for (at, head) in header.iter().enumerate() {
        let head = std::str::from_utf8(head).map_err(|_| FileError::HeaderNotText)?;
        let (name, kind) = split_type(head).map_err(FileError::BadType)?;
        if name.is_empty() {
            return Err(FileError::NoColumnName(at + 1));
        }
        if columns.iter().any(|column| column.name == name) {
            return Err(FileError::ColumnTwice(name.to_owned()));
        }
        columns.push(Column { name: name.to_owned(), kind });
    }
    if columns.iter().any(|column| column.name == id_column) {
        return Ok(columns);
    }
    let found: Vec<_> = columns.into_iter().map(|column| column.name).collect();
    Err(FileError::NoIdColumn { wanted: id_column.to_owned(), found: found.join(", ") })
}

impl<R: BufRead> Iterator for Rows<R> {
    type Item = Result<ImportRow, BadRow>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let (line, read) = match &mut self.source {
            Source::Csv { table, columns } => {
                let (line, cells) = table.next_row()?;
                self.ended = cells.as_ref().is_err_and(RowError::ends_the_file);
                let cells = cells.map_err(|error| error.to_string());
                (line, cells.and_then(|cells| table_row(&cells, columns, &self.id_column)))
            }
            Source::Jsonl { reader, line } => {
                jsonl_row(reader, line, &self.id_column, &mut self.ended)?
            }
        };
        let (record, fields) = match read {
            Ok(read) => read,
            Err(reason) => return Some(Err(BadRow { line, reason })),
        };
        if let Some(first) = self.lines.insert(record.clone(), line) {
            self.lines.insert(record.clone(), first);
            let reason = format!("record {record:?} stands in line {first} already");
            return Some(Err(BadRow { line, reason }));
        }
        Some(Ok(ImportRow { line, record, fields }))
    }
}

fn table_row(row: &Cells, columns: &[Column], id_column: &str) -> Result<Said, String> {
    if row.len() != columns.len() {
        return Err(format!("{} cells, but the header has {}", row.len(), columns.len()));
    }
    let (mut record, mut fields) = (String::new(), BTreeMap::new());
    for (column, cell) in columns.iter().zip(row) {
        let Column { name, kind } = column;
        let cell = std::str::from_utf8(cell).map_err(|_| format!("{name}: not UTF-8"))?;
        if name == id_column {
            record = cell.to_owned();
        } else if !cell.is_empty() {
            let value = match kind {
                None => guess(cell),
                Some(kind) => kind.read(cell).map_err(|reason| format!("{name}: {reason}"))?,
            };
            fields.insert(name.clone(), to_json(&value));
        }
    }
    if record.is_empty() { Err(no_id(id_column)) } else { Ok((record, fields)) }
}

fn no_id(id_column: &str) -> String {
    format!("no id in {id_column:?}")
}

/// The next row of JSON lines; none at their end. Empty lines are passed over.
fn jsonl_row(
    reader: &mut impl BufRead,
    line: &mut u64,
    id_column: &str,
    ended: &mut bool,
) -> Option<(u64, Result<Said, String>)> {
    loop {
        let mut bytes = Vec::new();
        *line += 1;
        match reader.by_ref().take(ROW_LEN_MAX as u64 + 1).read_until(b'\n', &mut bytes) {
            Ok(0) => return None,
            Ok(len) if len > ROW_LEN_MAX => {
                *ended = true;
                let reason = format!("over {ROW_LEN_MAX} bytes; nothing after it was read");
                return Some((*line, Err(reason)));
            }
            Ok(_) if bytes.trim_ascii().is_empty() => {}
            Ok(_) => return Some((*line, object_row(&bytes, id_column))),
            Err(error) => {
                *ended = true;
                return Some((*line, Err(format!("the file can't be read from here on: {error}"))));
            }
        }
    }
}

fn object_row(bytes: &[u8], id_column: &str) -> Result<Said, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())?;
    let Json::Object(mut object) = parse_text(text).map_err(|error| error.to_string())? else {
        return Err("not a JSON object".to_owned());
    };
    let record = match object.remove(id_column) {
        Some(Json::String(id)) if !id.is_empty() => id,
        Some(Json::Number(id)) if id.is_i64() => id.to_string(),
        None | Some(Json::Null | Json::String(_)) => return Err(no_id(id_column)),
        Some(_) => return Err(format!("the id in {id_column:?} is neither text nor whole number")),
    };
    for (name, json) in &object {
        // Told here, so that one bad value costs its row and not the batch.
        from_json(json.clone()).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok((record, object.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &[u8], format: FileFormat) -> Result<Rows<&[u8]>, FileError> {
        Rows::open(text, format, "id")
    }

    /// The good rows as `line id fields`, and the bad ones' lines and reasons.
    fn read(text: &[u8], format: FileFormat) -> (Vec<String>, Vec<(u64, String)>) {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for row in open(text, format).expect("a file with rows") {
            match row {
                Ok(row) => {
                    let fields = serde_json::to_string(&row.fields).expect("plain data");
                    good.push(format!("{} {} {fields}", row.line, row.record));
                }
                Err(BadRow { line, reason }) => bad.push((line, reason)),
            }
        }
        (good, bad)
    }

    #[test]
    fn cells_are_guessed_or_have_the_type_of_their_column() {
        let table = b"\xef\xbb\xbfid,n,zip,s:text,t:time\r\n1,5,007,9,\r\nb,1.5,,true,2026-11-21\n";
        let (good, bad) = read(table, FileFormat::Csv);
        assert_eq!(bad, []);
        assert_eq!(
            good,
            [
                r#"2 1 {"n":5,"s":"9","zip":"007"}"#,
                r#"3 b {"n":1.5,"s":"true","t":{"$time":"2026-11-21T00:00:00.000Z"}}"#,
            ]
        );
    }

    #[test]
    fn a_bad_row_of_a_table_is_named_by_its_line_and_costs_no_other() {
        let table = b"id,n:int\na,1\n\nb\nc,x\n\"d\nd\",4\n,5\ne,6,7\nf,\xff\na,8\ng,\"9\"\n";
        let (good, bad) = read(table, FileFormat::Csv);
        let lines: Vec<_> = bad.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [4, 5, 8, 9, 10, 11], "{bad:?}");
        assert_eq!(good, ["2 a {\"n\":1}", "6 d\nd {\"n\":4}", "12 g {\"n\":9}"]);
        assert!(bad[5].1.contains("line 2"), "{bad:?}");
    }

    #[test]
    fn a_quote_that_is_never_closed_is_named_by_the_line_where_its_row_begins() {
        let (good, bad) = read(b"id,n\na,1\nb,\"2\nc,3\n", FileFormat::Csv);
        assert_eq!(good, ["2 a {\"n\":1}"]);
        assert_eq!(bad[0].0, 3);
        assert!(bad[0].1.contains("never closed"), "{bad:?}");
        assert_eq!(bad.len(), 1);
    }

    #[test]
    fn a_last_row_needs_no_line_end() {
        assert_eq!(read(b"id,n\na,1", FileFormat::Csv).0, ["2 a {\"n\":1}"]);
        assert_eq!(read(b"{\"id\":1}", FileFormat::Jsonl).0, ["1 1 {}"]);
        assert_eq!(read(b"id", FileFormat::Csv), (vec![], vec![]));
    }

    #[test]
    fn a_table_with_a_wrong_header_is_refused_whole() {
        for (header, says) in [
            (&b""[..], "empty"),
            (b"a,b\n", "the columns are a, b"),
            (b"id,a,a\n", "two columns"),
            (b"id,a:int,a:text\n", "two columns"),
            (b"id,\n", "column 2 has no name"),
            (b"id,a:number\n", "no type"),
            (b"id,\xff\n", "UTF-8"),
        ] {
            let error = open(header, FileFormat::Csv).expect_err("a wrong header").to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn json_lines_keep_their_types_and_bad_ones_are_named() {
        let lines = br#"{"id":"a","n":1,"f":1.0,"l":[1,null]}
{"id":7,"t":{"$time":0}}

[1]
{"id":"b",}
{"n":1}
{"id":""}
{"id":1.5}
{"id":"c","n":99999999999999999999}
{"id":"d","n":{"$x":1}}
{"id":"a"}
{"id":"e"}
"#;
        let (good, bad) = read(lines, FileFormat::Jsonl);
        assert_eq!(
            good,
            [r#"1 a {"f":1.0,"l":[1,null],"n":1}"#, r#"2 7 {"t":{"$time":0}}"#, "12 e {}",]
        );
        let lines: Vec<_> = bad.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [4, 5, 6, 7, 8, 9, 10, 11], "{bad:?}");
    }
}
