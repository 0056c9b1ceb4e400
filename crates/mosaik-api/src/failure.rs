//! The error document: one code that a script can match, one sentence for a person.
//!
//! Invariant: a code has one HTTP status and one exit code, so that `curl` and the command line
//! agree about what happened.

use serde::{Deserialize, Serialize};

use crate::SCHEMA;

/// What kind of failure this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Code {
    /// The request itself is wrong: ask otherwise.
    Invalid,
    /// No node runs where it was looked for.
    NoNode,
    /// What was named isn't here.
    NotFound,
    /// What was to be made is already here.
    Exists,
    /// The time that was given is over.
    Timeout,
    /// The node runs but can't write: it serves reads and acknowledges nothing.
    Degraded,
    /// The node is stopping.
    Stopping,
    /// The peer answers, but the way leads over a relay or a radio.
    Indirect,
    /// The peer doesn't answer.
    Unreachable,
    /// Anything else: the sentence says what.
    Failed,
}

impl Code {
    /// The exit code of the program.
    pub fn exit(self) -> u8 {
        match self {
            Self::Exists | Self::Stopping | Self::Failed => 1,
            Self::Invalid => 2,
            Self::NoNode => 3,
            Self::NotFound => 4,
            Self::Timeout => 5,
            Self::Degraded => 6,
            Self::Indirect => 10,
            Self::Unreachable => 11,
        }
    }

    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::NotFound => 404,
            Self::Exists => 409,
            Self::Timeout => 408,
            Self::NoNode | Self::Degraded | Self::Stopping => 503,
            Self::Failed | Self::Indirect | Self::Unreachable => 500,
        }
    }
}

/// A failure: code and sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind.
    pub code: Code,
    /// What happened and what to do, in words.
    pub message: String,
}

impl Failure {
    /// A failure of this kind with this sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// The error document: `{schema, error: {code, message}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureDocument {
    /// The version of this document.
    pub schema: u32,
    /// What went wrong.
    pub error: Failure,
}

impl From<Failure> for FailureDocument {
    fn from(error: Failure) -> Self {
        Self { schema: SCHEMA, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_document_has_the_shape_that_scripts_match() {
        let document = FailureDocument::from(Failure::new(Code::NotFound, "no record R-1 here"));
        assert_eq!(
            serde_json::to_string(&document).expect("plain data"),
            r#"{"schema":1,"error":{"code":"not_found","message":"no record R-1 here"}}"#
        );
    }
}
