//! The messages of a session: what two nodes may say to each other, and its limits.
//!
//! Source: FORMAT.md beside this crate, section 1.

mod frame;

use std::fmt;

use mosaik_core::{
    feed::Tip,
    id::{AuthorId, BlobId, EventId, NodeId},
    run::VerifiedRun,
    trie::{Hash, Prefix},
};

pub use self::frame::{FrameError, frame_len, read_item, run_frame};

/// Bytes of a frame behind its length field, type included.
pub const FRAME_MAX: usize = 1 << 20;
/// The least that a node must take in one frame: the longest run fits, and the longest payload.
pub const FRAME_MIN: u32 = 300 * 1024;
/// Items in one page.
pub const PAGE_ITEMS_MAX: usize = 1024;
/// Entries of a locator.
pub const LOCATOR_MAX: usize = 64;
/// Bytes of a run after decompression: a full run, and 32 bytes for each of its absent payloads.
pub const RUN_BYTES_MAX: usize = 288 * 1024;
/// Bytes of a name or of the software's own.
pub const NAME_LEN_MAX: usize = 64;
/// Bytes of the text in a `Bye`.
pub const BYE_TEXT_MAX: usize = 256;
/// What a `Greet` begins with.
pub const APP: &str = "mosaik-node/sync";
/// The versions of the protocol that this code speaks.
pub const VERSIONS: std::ops::RangeInclusive<u64> = 1..=1;
/// The version of a session between nodes that speak these lowest and highest versions, if they have
/// one in common: the lesser of the two highest.
pub fn version_in_common(ours: (u64, u64), theirs: (u64, u64)) -> Option<u64> {
    let version = ours.1.min(theirs.1);
    (version >= ours.0.max(theirs.0)).then_some(version)
}

/// Capability: runs may be compressed.
pub const ZSTD: u64 = 1;
/// Capability: a `Ping` is answered.
pub const PING: u64 = 1 << 8;
/// Capability: a `Probe` is answered and passed on.
pub const PROBE: u64 = 1 << 9;
/// Capability: pieces of files are given. Said over radio, where files have no other way.
pub const FILES: u64 = 1 << 10;
/// What this code can do over the internet; over radio it is [`FILES`] alone.
pub const CAPABILITIES: u64 = ZSTD | PING | PROBE;
/// Each capability that has a name, for people.
pub const CAPABILITY_NAMES: [(u64, &str); 4] =
    [(ZSTD, "zstd"), (PING, "ping"), (PROBE, "probe"), (FILES, "files")];
/// Bytes of a file in one piece: what iroh-blobs verifies at the least.
pub const FILE_GROUP_LEN: u64 = 16 << 10;
/// Bytes of a piece: a group, the file's length, and the 64 bytes of each of at most 15 pairs of hashes
/// above it.
pub const FILE_PIECE_MAX: usize = 17 << 10;
/// Bytes of a piece in one frame: two or three packets, which something urgent may have to wait for.
pub const FILE_SLICE_MAX: usize = 1024;

/// 8 bytes that stand for a hash or an item between two peers in one session.
pub type Short = [u8; 8];

/// A session's first frame: who may talk at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greet {
    /// Always [`APP`] from a node of this kind.
    pub app: String,
    /// Lowest and highest version spoken.
    pub versions: (u64, u64),
    /// BLAKE3 keyed by the network's membership key of binding, sender and receiver.
    pub proof: [u8; 32],
}

/// What a node says of itself once the other's proof holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Name and version of the program.
    pub software: String,
    /// Bits: [`ZSTD`], [`PING`], [`PROBE`].
    pub capabilities: u64,
    /// The largest frame it takes, in bytes.
    pub frame_max: u32,
    /// Bytes of runs that it takes unverified.
    pub credit: u64,
    /// Its wall clock, Unix ms.
    pub clock_ms: u64,
    /// What its people call it: a claim.
    pub name: String,
    /// A number that no other start of this node had.
    pub boot: u64,
    /// Hash of all its feeds but those that are declined between the two.
    pub top: Hash,
    /// Authors it holds.
    pub authors: u64,
    /// Events it holds.
    pub events: u64,
    /// Digest of what it declines; zeros for nothing.
    pub declines: [u8; 16],
}

/// A frontier item as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontierItem {
    /// Whose feed.
    pub author: AuthorId,
    /// 1 to 64 tips, ascending, none twice.
    pub tips: Vec<Tip>,
}

/// A page of frontier items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Items {
    /// Where they stand.
    pub prefix: Prefix,
    /// Ascending by author.
    pub items: Vec<FrontierItem>,
    /// Short hashes that the other listed and this side lacks.
    pub lacked: Vec<Short>,
    /// Whether a page follows.
    pub more: bool,
}

/// A question for runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Whose feed.
    pub author: AuthorId,
    /// Which tip, or all.
    pub tip: Option<Tip>,
    /// Held events, falling.
    pub locator: Vec<Tip>,
    /// Bytes of runs that may come.
    pub credit: u64,
}

/// One event whose payload is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Whose.
    pub author: AuthorId,
    /// Which.
    pub tip: Tip,
}

/// Absent payloads, asked for, given and lacked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payloads {
    /// Asked for.
    pub ask: Vec<Ask>,
    /// Given, by event.
    pub give: Vec<(EventId, Vec<u8>)>,
    /// Not here either.
    pub lack: Vec<EventId>,
}

/// Why a node holds back from a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Its people blocked the author.
    Blocked,
    /// It holds as much as it may.
    Quota,
    /// The author may not write here.
    NotAWriter,
    /// More than 64 tips.
    Crowded,
    /// A reason of a later version. A decline all the same.
    Other(u8),
}

impl Reason {
    /// The byte on the wire.
    pub fn as_u8(self) -> u8 {
        match self {
            Self::Blocked => 1,
            Self::Quota => 2,
            Self::NotAWriter => 3,
            Self::Crowded => 4,
            Self::Other(reason) => reason,
        }
    }

    /// The reason of a byte.
    pub fn from_u8(byte: u8) -> Self {
        match byte {
            1 => Self::Blocked,
            2 => Self::Quota,
            3 => Self::NotAWriter,
            4 => Self::Crowded,
            reason => Self::Other(reason),
        }
    }
}

/// Why a `Want` can't be served as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LackReason {
    /// None of the locator's events is held: send the long one.
    SendLongLocator,
    /// The tip is not here.
    Gone,
    /// A reason of a later version. It counts as [`LackReason::Gone`].
    Other(u8),
}

impl LackReason {
    /// The byte on the wire.
    pub fn as_u8(self) -> u8 {
        match self {
            Self::SendLongLocator => 1,
            Self::Gone => 2,
            Self::Other(reason) => reason,
        }
    }

    /// The reason of a byte.
    pub fn from_u8(byte: u8) -> Self {
        match byte {
            1 => Self::SendLongLocator,
            2 => Self::Gone,
            reason => Self::Other(reason),
        }
    }
}

/// A question to all nodes of the network, passed on from session to session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Random: no other probe has it.
    pub id: ProbeId,
    /// The node that asks.
    pub origin: NodeId,
    /// When it asked, by its own clock: Unix ms.
    pub sent_ms: u64,
    /// Sessions that it has come over when it arrives, from 1.
    pub hops: u8,
}

/// What names a probe.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId(pub [u8; 16]);

impl fmt::Display for ProbeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ProbeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A node's answer to a probe. It goes back the way that the probe came, and nobody signs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// Which probe.
    pub id: ProbeId,
    /// The node that answers.
    pub node: NodeId,
    /// What its people call it: a claim.
    pub name: String,
    /// When it got the probe, by its own clock: Unix ms.
    pub received_ms: u64,
    /// Sessions that the probe had come over.
    pub hops: u8,
    /// The node at the other end of the last one.
    pub from: NodeId,
    /// The way that the last one took.
    pub way: SessionWay,
}

/// The way that a session takes between its two nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SessionWay {
    /// Not known.
    #[default]
    Unknown,
    /// UDP to a private address.
    Lan,
    /// UDP.
    Direct,
    /// A relay passes the packets on.
    Relay,
    /// A way of a later version.
    Other(u8),
}

impl SessionWay {
    /// The byte on the wire.
    pub fn as_u8(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Lan => 1,
            Self::Direct => 2,
            Self::Relay => 3,
            Self::Other(way) => way,
        }
    }

    /// The way of a byte.
    pub fn from_u8(byte: u8) -> Self {
        match byte {
            0 => Self::Unknown,
            1 => Self::Lan,
            2 => Self::Direct,
            3 => Self::Relay,
            way => Self::Other(way),
        }
    }

    /// The word for people, as `peers` has it; none where it is not known.
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Lan => Some("lan"),
            Self::Direct => Some("direct"),
            Self::Relay => Some("relay"),
            Self::Unknown | Self::Other(_) => None,
        }
    }
}

/// A question for one piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileWant {
    /// Chosen by who asks; no other question of the session has it.
    pub token: u64,
    /// The file.
    pub blob: BlobId,
    /// Which [`FILE_GROUP_LEN`] bytes of it, from 0.
    pub group: u32,
    /// Bytes of the piece that are there already.
    pub from: u32,
}

/// A slice of a piece; the slices of a piece come in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePart {
    /// The question's.
    pub token: u64,
    /// Bytes of the whole piece, at most [`FILE_PIECE_MAX`]; 0: it can't be given.
    pub total: u32,
    /// 1 to [`FILE_SLICE_MAX`]; none where the total is 0.
    pub bytes: Vec<u8>,
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ByeCode {
    /// Everything is said; the place is needed for others.
    Done,
    /// The node is stopping.
    Leaving,
    /// The proof does not hold: another network, or somebody in between.
    OtherNetwork,
    /// No version in common, or another program.
    Version,
    /// What came breaks the protocol.
    Violation,
    /// Another connection between the two is kept.
    Duplicate,
    /// Its people blocked the other node.
    Blocked,
    /// It took too long.
    Timeout,
    /// Storage trouble: try again later.
    Unable,
    /// A code of a later version.
    Other(u8),
}

impl ByeCode {
    /// The byte on the wire.
    pub fn as_u8(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Leaving => 1,
            Self::OtherNetwork => 2,
            Self::Version => 3,
            Self::Violation => 4,
            Self::Duplicate => 5,
            Self::Blocked => 6,
            Self::Timeout => 7,
            Self::Unable => 8,
            Self::Other(code) => code,
        }
    }

    /// The code of a byte.
    pub fn from_u8(byte: u8) -> Self {
        match byte {
            0 => Self::Done,
            1 => Self::Leaving,
            2 => Self::OtherNetwork,
            3 => Self::Version,
            4 => Self::Violation,
            5 => Self::Duplicate,
            6 => Self::Blocked,
            7 => Self::Timeout,
            8 => Self::Unable,
            code => Self::Other(code),
        }
    }
}

/// The end of a session, with a reason that a person can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bye {
    /// For programs.
    pub code: ByeCode,
    /// For people.
    pub text: String,
}

impl Bye {
    /// An end with this reason, cut to what the wire takes.
    pub fn new(code: ByeCode, text: impl Into<String>) -> Self {
        let mut text = text.into();
        let mut end = text.len().min(BYE_TEXT_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        Self { code, text }
    }
}

/// What a session says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// 1
    Greet(Greet),
    /// 2
    Hello(Hello),
    /// 3: the topmost hash.
    Root(Hash),
    /// 4: the short hashes of a prefix's children.
    Tree(Prefix, [Short; 16]),
    /// 5: the short hashes of a prefix's items.
    Leaf(Prefix, Vec<Short>),
    /// 6
    Items(Items),
    /// 7: a prefix is settled.
    Done(Prefix),
    /// 8
    Want(Want),
    /// 9
    Run(VerifiedRun),
    /// 10: durable here; also a new head.
    Have(AuthorId, Tip),
    /// 11
    Payloads(Payloads),
    /// 12
    Decline(AuthorId, Reason),
    /// 13: what was asked for, and why it can't be served.
    Lack(AuthorId, Option<Tip>, LackReason),
    /// 14
    Bye(Bye),
    /// 128: a listener asks for a comparison; the dialer's echo comes right before the `Root` that
    /// it began for it.
    Again(u64),
    /// 129: another session of the same node id, under this boot number, is alive.
    Twin(u64),
    /// 130: asks for [`Message::Pong`] with this token.
    Ping(u64),
    /// 131
    Pong(u64),
    /// 132
    Probe(Probe),
    /// 133
    Probed(Probed),
    /// 134
    FileWant(FileWant),
    /// 135
    FilePart(FilePart),
    /// A type of 128 or more that is unknown here.
    Skipped(u8),
}
