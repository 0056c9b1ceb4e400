//! The seam to a Reticulum stack: [`Order`]s go in, [`Report`]s come out.
//!
//! Rules that every stack keeps:
//! - An [`Order::Open`] is answered once, by [`Report::Up`] or [`Report::Unreachable`].
//! - An [`Order::Send`] is answered once, by [`Report::Sent`] with its token; a link's answers come
//!   before its [`Report::Down`].
//! - Each [`Report::Up`] is followed by one [`Report::Down`], whichever end closed the link.
//! - A broadcast is acknowledged by nobody, may be lost, and goes one hop. What came may be of anybody.
//! - Packets of a link may be lost and may be overtaken by others. Resources arrive whole or not at
//!   all, and at most one of a link and direction is under way.

use std::fmt;

use data_encoding::HEXLOWER;
use mosaik_core::meshlog::identity_hash;
use mosaik_proto::carrier::Role;

/// Bytes of an announce's app_data at most.
///
/// An announce has 167 bytes besides it, and 16 more on each transport hop: with 317 it still fits
/// the 500 bytes of every interface, with 285 an announce with a ratchet does too.
pub const APP_DATA_MAX: usize = 285;

/// Bytes of a broadcast at most: what a packet carries on every interface.
pub const BROADCAST_MAX: usize = 464;

/// An RNS identity's hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer(pub [u8; 16]);

/// A link's id, the same at both ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link(pub [u8; 16]);

/// An RNS identity's public keys as they are on the wire: 32 bytes X25519, then 32 bytes Ed25519.
///
/// The first 16 bytes of its SHA-256 are the [`Peer`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKeys(pub [u8; 64]);

impl PublicKeys {
    /// Whose they are.
    pub fn peer(&self) -> Peer {
        Peer(identity_hash(&self.0))
    }
}

/// An interface of this stack: its place among those that the configuration names, from 0.
///
/// All who connect to one listening socket are one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Interface(pub u16);

/// A destination of this node's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// `mosaik.feed`: this project's own. Link packets are not proved, what lies above acknowledges.
    Feed,
    /// `meshlog.sync`: as meshlogd has it. Link packets are proved.
    Meshlog,
}

/// What is asked of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// To all who hear it.
    Announce {
        /// Which destination.
        service: Service,
        /// On which interface.
        interface: Interface,
        /// At most [`APP_DATA_MAX`] bytes; longer ones are not announced.
        app_data: Vec<u8>,
    },
    /// Opens a link to a peer that was heard, and identifies on it. Answered by `Up` or `Unreachable`.
    Open {
        /// Which of the peer's destinations.
        service: Service,
        /// Whose.
        peer: Peer,
    },
    /// One packet if it fits the link's packet (`packet_max` of `Up`), else a Resource. Answered by
    /// `Sent` with the token.
    Send {
        /// On which link.
        link: Link,
        /// What the answer is recognised by.
        token: u64,
        /// What is sent, at least one byte.
        bytes: Vec<u8>,
    },
    /// One packet to all who hear it. Not answered.
    Broadcast {
        /// On which interface.
        interface: Interface,
        /// At most [`BROADCAST_MAX`] bytes; longer ones are not sent.
        bytes: Vec<u8>,
    },
    /// Closes a link. Answered by `Down`, if there was one.
    Close {
        /// Which.
        link: Link,
    },
}

/// What a stack tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// An announce, its signature verified by the stack.
    Heard {
        /// Which of the peer's destinations.
        service: Service,
        /// Who.
        peer: Peer,
        /// With which keys; the peer is their hash.
        keys: PublicKeys,
        /// What it says.
        app_data: Vec<u8>,
        /// How many hops it made, as RNS counts: 1 from a neighbour.
        hops: u8,
        /// From where.
        interface: Interface,
    },
    /// A link is up.
    Up {
        /// Which.
        link: Link,
        /// To or from which destination.
        service: Service,
        /// None until the other end of an inbound link identifies (`Identified` follows).
        peer: Option<Peer>,
        /// Which end this node is.
        role: Role,
        /// How long the handshake took there and back, in milliseconds.
        rtt_ms: u32,
        /// Bytes of one packet at most.
        packet_max: usize,
        /// Over which interface.
        interface: Interface,
    },
    /// The other end of an inbound link has shown who it is.
    Identified {
        /// Which link.
        link: Link,
        /// Who.
        peer: Peer,
    },
    /// No link came up.
    Unreachable {
        /// To which destination.
        service: Service,
        /// Whose.
        peer: Peer,
        /// For a log.
        reason: String,
    },
    /// A packet or a Resource came.
    Received {
        /// Over which link.
        link: Link,
        /// What.
        bytes: Vec<u8>,
    },
    /// A broadcast was heard, of whomever.
    Overheard {
        /// Where.
        interface: Interface,
        /// What: at most [`BROADCAST_MAX`] bytes.
        bytes: Vec<u8>,
    },
    /// What became of an `Order::Send`.
    Sent {
        /// Of which link.
        link: Link,
        /// As in the order.
        token: u64,
        /// What.
        outcome: Outcome,
    },
    /// A link is gone.
    Down {
        /// Which.
        link: Link,
        /// For a log.
        reason: String,
    },
    /// An interface came, went or changed. Told once for each at the start.
    Interface {
        /// Which.
        interface: Interface,
        /// As in the configuration.
        name: String,
        /// In bit/s, where it is known.
        bitrate: Option<u32>,
        /// Whether anything can be sent on it.
        online: bool,
    },
}

/// What became of something that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is out, nothing more is known.
    Left,
    /// The other end has it: a Resource's proof, or a packet's where the other end proves packets.
    Proved,
    /// It did not arrive. For a log.
    Failed(String),
}

impl Service {
    /// Its name in Reticulum: app name and aspect.
    pub fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::Feed => ("mosaik", "feed"),
            Self::Meshlog => ("meshlog", "sync"),
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (app, aspect) = self.name();
        write!(f, "{app}.{aspect}")
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({self})")
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({self})")
    }
}

impl fmt::Debug for PublicKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKeys({})", HEXLOWER.encode(&self.0))
    }
}
