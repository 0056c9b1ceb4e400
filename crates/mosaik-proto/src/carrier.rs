//! What carriers and the replica say to one another: `Input` in, `Effect` out.
//!
//! Invariants:
//! - A carrier hands effects to its wire only after the writes made with them are durable.
//! - Frames of one session are delivered in the order sent, or the session ends.
//! - A carrier that can't take an effect drops the session, never the process; what was lost, the
//!   next comparison repairs.

use std::net::SocketAddr;

use mosaik_core::{
    event::Draft,
    feed::Tip,
    id::{AuthorId, BlobId, NodeId},
    run::VerifiedRun,
};

use crate::{
    hint::Hint,
    message::{Bye, FrameError, Message, Probe, ProbeId, Probed, SessionWay},
    peers::Unforgettable,
    turns::Island,
};

/// The time, as whoever drives the machine sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since some start; never falls.
    pub mono_ms: u64,
    /// Milliseconds of the Unix epoch; may jump.
    pub wall_ms: u64,
}

/// A conversation with one peer over one connection. The carrier numbers them and uses none twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Which end of a connection this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It opened the connection: speaks first, starts comparisons.
    Dialer,
    /// It accepted the connection.
    Listener,
}

/// What a session over radio is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Radio {
    /// What names this end in proofs: an identity hash.
    pub own_name: Vec<u8>,
    /// What names the peer.
    pub peer_name: Vec<u8>,
    /// How many times longer than over the internet everything may take; at least 1.
    pub patience: u64,
    /// Bytes of a run, as far as its author signed so often: what a link that breaks may cost.
    pub run_len_max: usize,
}

/// Where a node can be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// UDP sockets.
    pub direct: Vec<SocketAddr>,
    /// URLs of relays that it is connected to.
    pub relays: Vec<String>,
}

impl Addresses {
    /// Whether there is nothing to dial.
    pub fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.relays.is_empty()
    }
}

/// How a peer became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A ticket that a person gave.
    Ticket,
    /// A slot of the bootstrap chain.
    Slot,
    /// Named by the holder of a slot.
    SlotNeighbour,
    /// The peer cache on disk.
    Cache,
    /// It announces itself on the local network.
    Mdns,
    /// Presence in gossip.
    Gossip,
    /// It dialed here.
    Inbound,
}

impl Source {
    /// The word for `peers`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ticket => "ticket",
            Self::Slot => "slot",
            Self::SlotNeighbour => "slot neighbour",
            Self::Cache => "cache",
            Self::Mdns => "mdns",
            Self::Gossip => "gossip",
            Self::Inbound => "inbound",
        }
    }
}

/// Peers that announce themselves over radio.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OnAir {
    /// How many were heard lately.
    pub heard: u32,
    /// How many of these announced what this node holds.
    pub equal: u32,
}

/// What happens to a replica.
#[derive(Debug)]
#[non_exhaustive]
pub enum Input {
    /// Somebody here appends events to the node's own feed, all or none. Answered by
    /// [`Effect::Appended`] with the same token.
    Append {
        /// Chosen by the caller.
        token: u64,
        /// At least one.
        drafts: Vec<Draft>,
    },
    /// A connection is open; nothing was said on it yet.
    Connected {
        /// Its number.
        session: SessionId,
        /// Whom the transport authenticated.
        peer: NodeId,
        /// Which end this is.
        role: Role,
        /// What binds proofs to this connection, the same bytes at both ends.
        binding: Vec<u8>,
        /// The round trip so far, in milliseconds, if the carrier knows it.
        rtt_ms: Option<u32>,
    },
    /// A link is open over radio; nothing was said on it yet. The carrier has its own list of peers
    /// and looks for them itself: none of the peers here.
    Linked {
        /// Its number.
        session: SessionId,
        /// Stands for the peer here; the same for all its links.
        peer: NodeId,
        /// Which end this is.
        role: Role,
        /// What binds proofs to this link, the same bytes at both ends.
        binding: Vec<u8>,
        /// What the link is like.
        radio: Radio,
    },
    /// Who was heard over radio, at first and whenever that changes. Those that hold the same need no session.
    OnAir(OnAir),
    /// Which bridges are around a session over radio, once some are and whenever that changes.
    Island {
        /// Which session.
        session: SessionId,
        /// What its carrier knows.
        island: Island,
    },
    /// Whether what this node broadcasts over radio is heard by some there.
    Broadcasting(bool),
    /// A run came by broadcast over radio, verified.
    Overheard {
        /// Of whom to ask for what lacks before it, if of anybody.
        session: Option<SessionId>,
        /// What.
        run: VerifiedRun,
    },
    /// The peer of a session over radio holds what this node lacks, though nothing comes: it is to be
    /// compared.
    Behind {
        /// Which session.
        session: SessionId,
    },
    /// A frame came and was decoded, a run in it verified.
    Frame {
        /// Where.
        session: SessionId,
        /// What.
        message: Message,
    },
    /// A frame came that breaks the protocol.
    BadFrame {
        /// Where.
        session: SessionId,
        /// Why.
        error: FrameError,
    },
    /// Bytes of a frame that isn't whole yet came: the peer is slow, not silent. At most twice a
    /// second is enough.
    Progress {
        /// Where.
        session: SessionId,
    },
    /// This many bytes handed over by [`Effect::Send`] have left the carrier's queue.
    Sent {
        /// Where.
        session: SessionId,
        /// Bytes of whole frames.
        bytes: usize,
    },
    /// The connection is gone, whoever ended it.
    Disconnected {
        /// Its number.
        session: SessionId,
        /// Why, in words.
        reason: String,
    },
    /// A dial that [`Effect::Dial`] asked for led nowhere.
    DialFailed {
        /// To whom.
        peer: NodeId,
        /// Why, in words.
        reason: String,
    },
    /// Some source says where a peer can be reached.
    Found {
        /// Who.
        peer: NodeId,
        /// Where.
        addresses: Addresses,
        /// Who says so.
        source: Source,
    },
    /// A hint came over gossip, checked as far as can be without knowing what is held.
    Hint {
        /// The neighbour that passed it on.
        from: NodeId,
        /// What it says.
        hint: Hint,
    },
    /// A gossip neighbour came or went.
    Neighbour {
        /// Who.
        peer: NodeId,
        /// Whether it is one now.
        up: bool,
    },
    /// Where this node can be reached has changed.
    OwnAddresses(Addresses),
    /// Somebody here waits for a comparison that begins now.
    Compare,
    /// A person wants no sessions from now on, or wants them again.
    Pause(bool),
    /// A person blocks a node, or lets it in again.
    Block {
        /// Who.
        peer: NodeId,
        /// Blocked from now on?
        blocked: bool,
    },
    /// A person wants to know whether a peer answers, and how soon. Answered by [`Effect::Ponged`] with
    /// the same token; [`Effect::Pinged`] comes before if there is a session, or one could be opened.
    Ping {
        /// Chosen by the caller.
        token: u64,
        /// Whom.
        peer: NodeId,
    },
    /// The way that a session takes now. Said before a frame of which the answer tells it.
    Way {
        /// Which session.
        session: SessionId,
        /// Its way.
        way: SessionWay,
    },
    /// A person wants to know which nodes a message reaches, and how soon. Answered by
    /// [`Effect::ProbeBegun`], and then by [`Effect::ProbeAnswered`] for each node that answers.
    Probe {
        /// Chosen by the caller.
        token: u64,
    },
    /// A person wants a peer to be forgotten. Answered by [`Effect::Forgotten`].
    Forget {
        /// Whom.
        peer: NodeId,
    },
    /// A piece of a file is to be asked for over radio. Answered by [`Effect::FileSlice`] or
    /// [`Effect::FileLacked`], unless the session ends before.
    FileWant {
        /// Where; one piece at a time.
        session: SessionId,
        /// The file.
        blob: BlobId,
        /// Which [`FILE_GROUP_LEN`](crate::message::FILE_GROUP_LEN) bytes of it.
        group: u32,
        /// Bytes of the piece that are here.
        from: u32,
    },
    /// The answer to [`Effect::FileAsked`].
    FileGive {
        /// Where.
        session: SessionId,
        /// That of the question.
        token: u64,
        /// The whole piece; none: it can't be given.
        piece: Option<Vec<u8>>,
    },
    /// The node is stopping: say so to all.
    Leave,
}

/// What a replica wants done, after the writes of the same batch are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// Send a whole frame.
    Send {
        /// Where.
        session: SessionId,
        /// Length, type, body.
        frame: Vec<u8>,
        /// Whether it is data that was asked for. Where not all fits, what is told goes first.
        is_asked: bool,
    },
    /// Broadcast a run over radio, to all that take such.
    Broadcast {
        /// The frame that it would be.
        frame: Vec<u8>,
    },
    /// The other's proof holds: gossip may be offered to it and taken from it.
    Opened {
        /// Where.
        session: SessionId,
        /// With whom.
        peer: NodeId,
        /// Which end this is.
        role: Role,
    },
    /// A session over radio is open whose peer gives pieces of files.
    FilePeer {
        /// Where.
        session: SessionId,
        /// Who.
        peer: NodeId,
    },
    /// A peer asks for a piece of a file over radio: to be answered by [`Input::FileGive`], once.
    FileAsked {
        /// Where.
        session: SessionId,
        /// To be repeated in the answer.
        token: u64,
        /// The file.
        blob: BlobId,
        /// Which [`FILE_GROUP_LEN`](crate::message::FILE_GROUP_LEN) bytes of it.
        group: u32,
    },
    /// The next slice of the piece that was asked for came. Nothing of it is verified.
    FileSlice {
        /// Where.
        session: SessionId,
        /// Bytes of the whole piece.
        total: usize,
        /// The slice.
        bytes: Vec<u8>,
    },
    /// The piece that was asked for doesn't come: the peer hasn't got it, or was silent for too long.
    FileLacked {
        /// Where.
        session: SessionId,
    },
    /// Send what is queued, wait shortly until it has arrived, close.
    Close {
        /// Which.
        session: SessionId,
        /// Said in the last frame, and to be used as the transport's own reason.
        bye: Bye,
    },
    /// Open a connection.
    Dial {
        /// To whom.
        peer: NodeId,
        /// Where.
        addresses: Addresses,
    },
    /// Tell all over gossip.
    Gossip(Hint),
    /// A ping is on its way: the time until the answer is counted from here.
    Pinged {
        /// The caller's.
        token: u64,
    },
    /// What came of a ping.
    Ponged {
        /// The caller's.
        token: u64,
        /// The session over which the answer came, or why none came, in words.
        answer: Result<SessionId, String>,
    },
    /// A probe is on its way, or why it isn't, in words: times are counted from here.
    ProbeBegun {
        /// The caller's.
        token: u64,
        /// As it was sent.
        result: Result<Probe, String>,
    },
    /// A node has answered this node's probe; each does once.
    ProbeAnswered {
        /// What it says.
        answer: Probed,
        /// Its clock against this node's, in milliseconds, if there is a session with it.
        clock_offset_ms: Option<i64>,
    },
    /// Another node's probe came, and was answered: for the log.
    ProbeCame {
        /// Its name.
        id: ProbeId,
        /// The neighbour that passed it on.
        from: NodeId,
        /// Sessions that it had come over.
        hops: u8,
    },
    /// What came of [`Input::Forget`].
    Forgotten {
        /// Whom.
        peer: NodeId,
        /// Or why not.
        result: Result<(), Unforgettable>,
    },
    /// An append is durable.
    Appended {
        /// The caller's.
        token: u64,
        /// Whose feed it went to.
        author: AuthorId,
        /// Each event, in the order of the drafts.
        events: Vec<Tip>,
    },
}
