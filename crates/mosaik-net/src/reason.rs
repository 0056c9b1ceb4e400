//! Why connections end and dials fail, in words that a person can read.

use iroh::endpoint::{
    ConnectError, ConnectWithOptsError, ConnectingError, ConnectionError, TransportErrorCode,
};
use mosaik_proto::message::{Bye, ByeCode};

/// Characters of another node's text that are shown.
const TEXT_LEN_MAX: usize = 256;
/// RFC 8446, 6.2: unknown_ca, what iroh says when another key answers.
const ALERT_UNKNOWN_CA: u8 = 48;
/// RFC 7301, 3.2: no_application_protocol.
const ALERT_NO_PROTOCOL: u8 = 120;

/// Why a connection is gone, told by the transport.
pub(crate) fn of_connection(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let code = u8::try_from(u64::from(close.error_code)).ok().map(ByeCode::from_u8);
            let text = printable(&String::from_utf8_lossy(&close.reason));
            match code {
                Some(ByeCode::Done) if text.is_empty() => "closed by the peer".to_owned(),
                Some(code) => with_text(&format!("closed by the peer: {}", word(code)), &text),
                None => with_text("closed by the peer", &text),
            }
        }
        ConnectionError::TimedOut => "lost: no answer".to_owned(),
        ConnectionError::Reset => "lost: the peer has restarted".to_owned(),
        ConnectionError::LocallyClosed => "closed here".to_owned(),
        ConnectionError::ConnectionClosed(close) => {
            if close.error_code == TransportErrorCode::CONNECTION_REFUSED {
                "refused: it takes no more connections".to_owned()
            } else {
                by_transport(close.error_code, &close.to_string())
            }
        }
        ConnectionError::TransportError(error) => by_transport(error.code, &error.to_string()),
        ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => {
            format!("lost: {error}")
        }
    }
}

/// Why a connection that this end closes is gone.
pub(crate) fn of_bye(bye: &Bye) -> String {
    with_text(&format!("closed here: {}", word(bye.code)), &printable(&bye.text))
}

/// Why a dial led nowhere.
pub(crate) fn of_dial(error: &ConnectError) -> String {
    match error {
        ConnectError::Connect { source, .. } => match source {
            ConnectWithOptsError::SelfConnect { .. } => "that is this node's own id".to_owned(),
            ConnectWithOptsError::NoAddress { .. } => "no address of it is known".to_owned(),
            other => other.to_string(),
        },
        ConnectError::Connecting {
            source: ConnectingError::ConnectionError { source, .. },
            ..
        }
        | ConnectError::Connection { source, .. } => match source {
            ConnectionError::TimedOut => "no answer".to_owned(),
            other => of_connection(other),
        },
        other => other.to_string(),
    }
}

/// Whether the other end lives and doesn't speak the protocol that it was dialed for.
pub(crate) fn speaks_not(error: &ConnectError) -> bool {
    let (ConnectError::Connecting {
        source: ConnectingError::ConnectionError { source, .. }, ..
    }
    | ConnectError::Connection { source, .. }) = error
    else {
        return false;
    };
    let no_protocol = TransportErrorCode::crypto(ALERT_NO_PROTOCOL);
    match source {
        ConnectionError::ConnectionClosed(close) => close.error_code == no_protocol,
        ConnectionError::TransportError(error) => error.code == no_protocol,
        _ => false,
    }
}

fn by_transport(code: TransportErrorCode, text: &str) -> String {
    if code == TransportErrorCode::crypto(ALERT_NO_PROTOCOL) {
        "it does not speak this protocol".to_owned()
    } else if code == TransportErrorCode::crypto(ALERT_UNKNOWN_CA) {
        "another node answers at that address".to_owned()
    } else {
        format!("lost: {}", printable(text))
    }
}

fn word(code: ByeCode) -> String {
    match code {
        ByeCode::Done => "done".to_owned(),
        ByeCode::Leaving => "leaving".to_owned(),
        ByeCode::OtherNetwork => "another network".to_owned(),
        ByeCode::Version => "no version in common".to_owned(),
        ByeCode::Violation => "protocol violation".to_owned(),
        ByeCode::Duplicate => "another connection is kept".to_owned(),
        ByeCode::Blocked => "blocked".to_owned(),
        ByeCode::Timeout => "too slow".to_owned(),
        ByeCode::Unable => "unable for now".to_owned(),
        other => format!("code {}", other.as_u8()),
    }
}

fn with_text(what: &str, text: &str) -> String {
    if text.is_empty() { what.to_owned() } else { format!("{what} ({text})") }
}

/// Another node's text, cut and without what would drive a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_LEN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use iroh::endpoint::ApplicationClose;

    use super::*;

    fn closed(code: u32, reason: &[u8]) -> String {
        of_connection(&ConnectionError::ApplicationClosed(ApplicationClose {
            error_code: code.into(),
            reason: reason.to_vec().into(),
        }))
    }

    #[test]
    fn a_close_code_is_said_as_its_word() {
        assert_eq!(closed(6, b"by ada"), "closed by the peer: blocked (by ada)");
        assert_eq!(closed(1, b""), "closed by the peer: leaving");
        assert_eq!(closed(0, b""), "closed by the peer");
        assert_eq!(closed(77, b""), "closed by the peer: code 77");
        assert_eq!(closed(70_000, b"x"), "closed by the peer (x)");
    }

    #[test]
    fn another_nodes_text_can_not_drive_a_terminal() {
        let said = closed(4, b"\x1b[2Jgone\r\n\xff");
        assert_eq!(said, "closed by the peer: protocol violation ([2Jgone\u{fffd})");
    }
}
