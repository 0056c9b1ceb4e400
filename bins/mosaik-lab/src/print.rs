//! What a person reads. A reader that went away is no error: the work goes on without it.

use std::{
    fmt::Display,
    io::{self, Write},
};

/// One line on standard output.
pub(crate) fn line(text: impl Display) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Bytes on standard output, as they are.
///
/// # Errors
///
/// If nobody reads them: then there is no reason to go on.
pub(crate) fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Why the program ends, on standard error.
pub(crate) fn error(error: &anyhow::Error) {
    let _ = writeln!(io::stderr(), "error: {error:#}");
}
