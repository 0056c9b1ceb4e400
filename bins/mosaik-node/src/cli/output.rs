//! What is printed, and how the program ends.
//!
//! Invariants:
//! - What was asked for goes to stdout, all else to stderr. With `--json` stdout has one document,
//!   also when something failed.
//! - A reader that has seen enough (`| head`) ends the program quietly.

#![allow(clippy::print_stderr, reason = "this is the module that speaks to the person")]

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use mosaik_api::{
    client::ClientError,
    failure::{Code, Failure, FailureDocument},
};
use serde::Serialize;

/// Why the program ends without having done what was asked.
#[derive(Debug)]
pub(crate) enum Failed {
    /// This is what went wrong.
    With(Failure),
    /// This is what went wrong, and what was printed says it in full.
    Shown(Failure),
    /// Nobody reads on.
    NobodyReads,
}

impl Failed {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self::With(Failure::new(code, message))
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self::With(failure)
    }
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Code::Failed, format!("{error:#}"))
    }
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::Refused(failure) => return Self::With(failure.clone()),
            ClientError::NoNode { .. } => Code::NoNode,
            ClientError::Silent(_) => Code::Timeout,
            _ => Code::Failed,
        };
        Self::new(code, format!("{:#}", anyhow::Error::new(error)))
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => Self::new(Code::Failed, format!("cannot write to stdout: {error}")),
        }
    }
}

/// Says what went wrong, if anything did, and gives the exit code for it.
pub(crate) fn finish(result: Result<(), Failed>, json: bool) -> ExitCode {
    match result {
        Ok(()) | Err(Failed::NobodyReads) => ExitCode::SUCCESS,
        Err(Failed::Shown(failure)) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.code.exit())
        }
        Err(Failed::With(failure)) => {
            eprintln!("error: {failure}");
            let code = failure.code.exit();
            if json {
                // Whoever asked for JSON may have hung up; the exit code says it all the same.
                let _ = print_json(&FailureDocument::from(failure));
            }
            ExitCode::from(code)
        }
    }
}

/// Prints one line to stdout.
pub(crate) fn print(line: impl fmt::Display) -> Result<(), Failed> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

/// Prints bytes to stdout as they are.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failed> {
    Ok(io::stdout().lock().write_all(bytes)?)
}

/// Prints one document to stdout, on one line if nobody is looking.
pub(crate) fn print_json(document: &impl Serialize) -> Result<(), Failed> {
    let text = if io::stdout().is_terminal() {
        serde_json::to_string_pretty(document)
    } else {
        serde_json::to_string(document)
    };
    print(text.map_err(anyhow::Error::new)?)
}

/// Says something beside the answer.
pub(crate) fn note(line: impl fmt::Display) {
    eprintln!("{line}");
}

/// Prints rows as columns under a heading, two spaces between them.
pub(crate) fn print_table<const N: usize>(
    heading: [&str; N],
    rows: &[[String; N]],
) -> Result<(), Failed> {
    table(heading, rows).iter().try_for_each(print)
}

/// The lines of a table, its heading first.
pub(crate) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let mut widths = heading.map(|text| text.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    std::iter::once(line(&heading.map(str::to_owned))).chain(rows.iter().map(line)).collect()
}

/// `name (3f2a9c)`: a name is a claim, so the id stands beside it.
pub(crate) fn named(name: &str, id: &str) -> String {
    let short = id.get(..6).unwrap_or(id);
    if name.is_empty() { short.to_owned() } else { format!("{} ({short})", plain(name)) }
}

/// Text from others, without what would move the cursor.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// `1 peer`, `2 peers`.
pub(crate) fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_beside_ids_and_cannot_move_the_cursor() {
        assert_eq!(named("hq", "3f2a9c77"), "hq (3f2a9c)");
        assert_eq!(named("", "3f2a9c77"), "3f2a9c");
        assert_eq!(named("a\u{1b}[2J", "3f2a9c77"), "a\u{fffd}[2J (3f2a9c)");
    }
}
