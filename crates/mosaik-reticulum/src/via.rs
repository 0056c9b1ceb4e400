//! What `--rns` names: by which way this node takes part in Reticulum.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

/// Bits a second of a serial line where none are named: what rns takes too.
const BAUD: u32 = 9600;

/// Bits a second that a serial line may have: below 50 no hardware goes, above 4,000,000 none that
/// is a line.
const BAUDS: std::ops::RangeInclusive<u32> = 50..=4_000_000;

/// A way into Reticulum.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Via {
    /// As a client of the `rnsd` that runs on this machine, and so over all of its interfaces.
    Rnsd,
    /// Connects to a TCP server interface.
    Tcp {
        /// A name or an address.
        host: String,
        /// Its port.
        port: u16,
    },
    /// Accepts TCP client interfaces.
    TcpListen(SocketAddr),
    /// Datagrams to one address, which may be a broadcast address.
    Udp {
        /// Where to receive.
        listen: SocketAddr,
        /// Where to send.
        peer: SocketAddr,
    },
    /// A line with another Reticulum stack at its end, framed as rns's SerialInterface does.
    Serial {
        /// The device.
        device: PathBuf,
        /// Bits a second, 8N1.
        baud: u32,
    },
    /// A KISS modem on a serial line.
    Kiss {
        /// The device.
        device: PathBuf,
        /// Bits a second of the line, not of the air.
        baud: u32,
    },
    /// A program's standard input and output, framed as rns's PipeInterface does.
    Pipe {
        /// The program and its arguments: split at spaces, no shell takes part.
        command: Vec<String>,
    },
}

/// Why a text names no way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ViaError {
    /// Nothing that is known begins so.
    #[error(
        "{given:?} is no way into Reticulum: write rnsd, tcp://HOST:PORT, tcp-listen://ADDRESS:PORT, udp://LISTEN,PEER, serial:DEVICE, kiss:DEVICE or pipe:COMMAND"
    )]
    Unknown {
        /// What was given.
        given: String,
    },
    /// Its beginning is known, the rest isn't what must follow.
    #[error("{given:?} {wrong}: write it like {example}")]
    Wrong {
        /// What was given.
        given: String,
        /// What is wrong with it.
        wrong: &'static str,
        /// How it looks where it is right.
        example: &'static str,
    },
}

impl FromStr for Via {
    type Err = ViaError;

    fn from_str(given: &str) -> Result<Self, ViaError> {
        let wrong = |wrong, example| ViaError::Wrong { given: given.to_owned(), wrong, example };
        if given == "rnsd" {
            return Ok(Self::Rnsd);
        }
        if let Some(rest) = given.strip_prefix("tcp://") {
            return tcp(rest)
                .ok_or_else(|| wrong("lacks a host or a port", "tcp://rns.example.org:4242"));
        }
        if let Some(rest) = given.strip_prefix("tcp-listen://") {
            let address = rest.parse().map(Self::TcpListen);
            return address
                .map_err(|_| wrong("names no address and port", "tcp-listen://0.0.0.0:4242"));
        }
        if let Some(rest) = given.strip_prefix("udp://") {
            let pair = rest.split_once(',').and_then(|(listen, peer)| {
                Some(Self::Udp { listen: listen.parse().ok()?, peer: peer.parse().ok()? })
            });
            return pair.ok_or_else(|| {
                wrong("names no two addresses with ports", "udp://0.0.0.0:4242,192.168.1.255:4242")
            });
        }
        if let Some(rest) = given.strip_prefix("serial:") {
            return line(rest)
                .map(|(device, baud)| Self::Serial { device, baud })
                .ok_or_else(|| wrong("names no device", "serial:/dev/ttyUSB0@57600"));
        }
        if let Some(rest) = given.strip_prefix("kiss:") {
            return line(rest)
                .map(|(device, baud)| Self::Kiss { device, baud })
                .ok_or_else(|| wrong("names no device", "kiss:/dev/ttyUSB0@9600"));
        }
        if let Some(rest) = given.strip_prefix("pipe:") {
            let command: Vec<_> = rest.split_whitespace().map(str::to_owned).collect();
            return match command.is_empty() {
                true => Err(wrong("names no program", "pipe:ssh base.example.org rns-pipe")),
                false => Ok(Self::Pipe { command }),
            };
        }
        Err(ViaError::Unknown { given: given.to_owned() })
    }
}

/// `HOST:PORT`, where a host that is an IPv6 address stands in brackets.
fn tcp(rest: &str) -> Option<Via> {
    let (host, port) = rest.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let plain = !bare.is_empty() && !bare.contains(['/', ' ', '[', ']']);
    let brackets = bare.contains(':') == (bare.len() != host.len());
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (plain && brackets).then(|| Via::Tcp { host: bare.to_owned(), port })
}

/// `DEVICE` or `DEVICE@BAUD`.
fn line(rest: &str) -> Option<(PathBuf, u32)> {
    let (device, baud) = match rest.rsplit_once('@') {
        Some((device, baud)) => (device, baud.parse().ok().filter(|baud| BAUDS.contains(baud))?),
        None => (rest, BAUD),
    };
    device.starts_with('/').then(|| (PathBuf::from(device), baud))
}

impl Via {
    /// Bits a second, where the way itself says it. Not what the air behind a modem or an rnsd bears.
    pub fn bitrate(&self) -> Option<u32> {
        match self {
            Self::Serial { baud, .. } => Some(*baud),
            Self::Rnsd
            | Self::Tcp { .. }
            | Self::TcpListen(_)
            | Self::Udp { .. }
            | Self::Kiss { .. }
            | Self::Pipe { .. } => None,
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rnsd => f.write_str("rnsd"),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::TcpListen(address) => write!(f, "tcp-listen://{address}"),
            Self::Udp { listen, peer } => write!(f, "udp://{listen},{peer}"),
            Self::Serial { device, baud } => write!(f, "serial:{}@{baud}", device.display()),
            Self::Kiss { device, baud } => write!(f, "kiss:{}@{baud}", device.display()),
            Self::Pipe { command } => write!(f, "pipe:{}", command.join(" ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_shown_as_it_was_written() {
        for text in [
            "rnsd",
            "tcp://rns.example.org:4242",
            "tcp://[2001:db8::7]:4242",
            "tcp-listen://0.0.0.0:4242",
            "tcp-listen://[::]:4242",
            "udp://0.0.0.0:4242,192.168.1.255:4242",
            "serial:/dev/ttyUSB0@57600",
            "kiss:/dev/serial/by-id/a@b@1200",
            "pipe:ssh base.example.org rns-pipe",
        ] {
            let via: Via = text.parse().expect(text);
            assert_eq!(via.to_string(), text);
        }
    }

    #[test]
    fn a_line_without_a_speed_has_that_of_rns() {
        let via: Via = "serial:/dev/ttyUSB0".parse().expect("a device");
        assert_eq!(via, Via::Serial { device: "/dev/ttyUSB0".into(), baud: 9600 });
        assert_eq!(via.bitrate(), Some(9600));
    }

    #[test]
    fn what_is_wrong_is_said_in_one_sentence_with_an_example() {
        for text in [
            "tcp://host",
            "tcp://:4242",
            "tcp://host:0",
            "tcp://host:70000",
            "tcp://2001:db8::7:4242",
            "tcp://[host]:4242",
            "tcp-listen://host:4242",
            "udp://0.0.0.0:4242",
            "serial:ttyUSB0",
            "serial:/dev/ttyUSB0@fast",
            "serial:/dev/ttyUSB0@1",
            "kiss:",
            "pipe: ",
        ] {
            let said = text.parse::<Via>().expect_err(text).to_string();
            assert!(said.starts_with(&format!("{text:?} ")), "{said}");
            assert!(said.contains(": write it like "), "{said}");
        }
        let said = "bluetooth:".parse::<Via>().expect_err("not known").to_string();
        assert!(said.contains("write rnsd, tcp://HOST:PORT,"), "{said}");
    }

    #[test]
    fn every_example_of_an_error_is_right() {
        for text in ["tcp://", "tcp-listen://", "udp://", "serial:", "kiss:", "pipe:"] {
            let said = text.parse::<Via>().expect_err(text).to_string();
            let (_, example) = said.rsplit_once(": write it like ").expect("an example");
            assert!(example.parse::<Via>().is_ok(), "{example}");
        }
    }
}
