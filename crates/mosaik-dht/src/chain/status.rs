//! What a person is told about the chain.

use std::net::SocketAddr;

use mosaik_core::id::NodeId;

/// What a slot is to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SlotState {
    /// No storage node has answered yet.
    Unknown,
    /// Nothing stands there.
    Empty,
    /// This node's own live lease.
    Mine,
    /// Another's live lease.
    Live,
    /// Another's live lease, but the holder can't be reached.
    Dead,
    /// A good lease that has run out, or not begun.
    Expired,
    /// A tombstone: its holder left.
    Left,
    /// Not one of this network's records.
    Foreign,
    /// A record whose lease was forged or copied.
    Forged,
    /// At the highest seq there is: nobody can write there any more.
    Locked,
}

impl SlotState {
    /// All there are.
    pub const ALL: [Self; 10] = [
        Self::Unknown,
        Self::Empty,
        Self::Mine,
        Self::Live,
        Self::Dead,
        Self::Expired,
        Self::Left,
        Self::Foreign,
        Self::Forged,
        Self::Locked,
    ];

    /// One lower-case word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Empty => "empty",
            Self::Mine => "mine",
            Self::Live => "live",
            Self::Dead => "dead",
            Self::Expired => "expired",
            Self::Left => "left",
            Self::Foreign => "foreign",
            Self::Forged => "forged",
            Self::Locked => "locked",
        }
    }

    /// Whether a node that needs a slot may take it without asking whether its holder is alive.
    pub(super) fn is_free(self) -> bool {
        match self {
            Self::Empty | Self::Left | Self::Expired | Self::Foreign | Self::Forged => true,
            Self::Unknown | Self::Mine | Self::Live | Self::Dead | Self::Locked => false,
        }
    }
}

/// How the last try to reach a node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastDial {
    /// When, Unix ms by this machine's clock.
    pub at_ms: u64,
    /// How.
    pub end: DialEnd,
}

/// How a dial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialEnd {
    /// With an authenticated session, whichever side began it.
    Ok,
    /// Without one.
    Failed,
}

/// One slot as it was last read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotStatus {
    /// Its number, below 16.
    pub slot: u8,
    /// What it is to this node.
    pub state: SlotState,
    /// Who holds or held it, if its record is good.
    pub holder: Option<NodeId>,
    /// When its lease was issued, Unix ms.
    pub issued_ms: Option<u64>,
    /// When its lease expires, Unix ms.
    pub expires_ms: Option<u64>,
    /// The holder's relays.
    pub relays: Vec<String>,
    /// The holder's addresses.
    pub addresses: Vec<SocketAddr>,
    /// The seq of the value that decides.
    pub seq: Option<i64>,
    /// How long ago the last read that was answered began, ms.
    pub read_ago_ms: Option<u64>,
    /// Why the value is no record of this network.
    pub refused: Option<String>,
    /// The last dial to the holder since this node's start.
    pub last_dial: Option<LastDial>,
}

/// The chain in a few figures, for a status line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Slots that were never read with an answer.
    pub unknown: usize,
    /// Slots where nothing stands, or a tombstone.
    pub empty: usize,
    /// Live leases of others whose holders aren't known to be dead.
    pub live: usize,
    /// All other slots but this node's own.
    pub other: usize,
    /// The slot that this node holds.
    pub held: Option<u8>,
    /// Whether storage nodes answered in the last read.
    pub answering: bool,
    /// How long until the chain is read again, ms; 0 while it is being read.
    pub next_look_ms: u64,
}
