//! What the program asks of the running node, and what the node shows of itself.
//!
//! Invariants:
//! - The node's state has one owner. Others hold a [`Handle`]: an inbox to ask through, and the
//!   newest [`Snapshot`] to look at.
//! - The inbox is bounded. Who asks while it is full waits; nothing is dropped.
//! - A request whose asker is gone may still be carried out. An answer means that it was, and that
//!   what it wrote is durable.

use std::{sync::Arc, time::Duration};

use mosaik_api::{
    SCHEMA,
    document::{Bridge, Peer, Probe, Slot, State},
};
use mosaik_core::{
    feed::Tip,
    id::{AuthorId, NodeId},
    ticket::Ticket,
};
use mosaik_dht::Summary;
use mosaik_net::{Outlook, Path};
use mosaik_proto::peers::Unforgettable;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    edit::{Edit, Refusal, Rows},
    meters::Meters,
};

/// Requests that may wait for the owner.
///
/// A guess: a burst of 64 writes goes into one commit or two; who comes later waits that long.
pub const INBOX_LEN: usize = 64;

/// A request to the owner. Where the asker went away, its `reply` is closed: not an error.
#[derive(Debug)]
pub enum Request {
    /// Decide ([`crate::edit::decide`]), append, commit, then answer.
    Edit {
        /// What to write.
        edit: Edit,
        /// Told once it is durable.
        reply: oneshot::Sender<Result<Appended, WriteError>>,
    },
    /// Block a peer (close its connections; refuse its dials and its gossip, don't dial it), or
    /// lift that. Kept over restarts. Answered when its connections are closed.
    Block {
        /// Which peer; need not be known.
        peer: NodeId,
        /// Whether it is blocked from now on.
        on: bool,
        /// Told when that is so, and kept.
        reply: oneshot::Sender<Result<(), WriteError>>,
    },
    /// Remember a peer, and dial it now. Answered when the dial has begun.
    Dial {
        /// Who and where.
        ticket: Ticket,
        /// Told when it is remembered.
        reply: oneshot::Sender<Result<(), WriteError>>,
    },
    /// The peers with all that is known of each.
    Peers {
        /// Told at once.
        reply: oneshot::Sender<Vec<Peer>>,
    },
    /// Ask a peer for an answer, over a session that is dialed if there is none.
    Ping {
        /// Which peer.
        peer: NodeId,
        /// Told when it answers, or why it doesn't; after 15 s at the latest.
        reply: oneshot::Sender<Result<Pong, String>>,
    },
    /// What the node has seen of its surroundings.
    Surroundings {
        /// Told at once.
        reply: oneshot::Sender<Surroundings>,
    },
    /// Send a probe to all nodes that can be reached.
    Probe {
        /// Told when it is on its way, or why it isn't.
        reply: oneshot::Sender<Result<Probe, String>>,
    },
    /// What has come so far of the last probe, if one was sent since the start.
    Probed {
        /// Told at once.
        reply: oneshot::Sender<Option<Probe>>,
    },
    /// Forget all that is known of a peer.
    Forget {
        /// Which peer.
        peer: NodeId,
        /// Told when that is durable.
        reply: oneshot::Sender<Result<(), Unforgettable>>,
    },
    /// Compare with a peer. Answered when a comparison that began after this request has ended, and
    /// all that it showed is here, declined or unavailable; without a peer that takes until there is
    /// one. Given up when `reply` is closed.
    Compare {
        /// Told when synced.
        reply: oneshot::Sender<()>,
    },
    /// Ask the peers for the absent payloads at one place of a feed, also for those that retention has
    /// taken. Answered as [`Request::Compare`].
    Fetch {
        /// Whose feed.
        author: AuthorId,
        /// Which place.
        seq: u64,
        /// Told when every peer's answer is here.
        reply: oneshot::Sender<()>,
    },
    /// Move what the store holds together, and give the rest back to the disk. Waits some seconds for
    /// those who read; nothing else is done meanwhile.
    Compact {
        /// Told when it is done.
        reply: oneshot::Sender<Result<Compacted, WriteError>>,
    },
    /// Wait until so many connected peers hold all that this node has written by now. Given up when
    /// `reply` is closed.
    Replicas {
        /// How many.
        count: usize,
        /// Told when they do.
        reply: oneshot::Sender<()>,
    },
    /// Say goodbye to all peers and look for nobody, or begin anew. Reads and writes go on.
    Pause {
        /// Pause?
        on: bool,
        /// Told at once; what is said to peers may be under way.
        reply: oneshot::Sender<()>,
    },
    /// Say goodbye, close everything, end. The handle's snapshots end when that is done.
    Shutdown,
}

/// What a node has seen of its surroundings.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Of the network.
    pub outlook: Outlook,
    /// Of the chain; none where the DHT isn't used.
    pub slots: Option<Summary>,
    /// The peers' median clock against this one, in milliseconds; none without peers.
    pub clock_offset_ms: Option<i64>,
    /// Whether this machine's clock is before the program's own date.
    pub clock_unset: bool,
}

/// A peer's answer to a ping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pong {
    /// From the ping to the answer, through both programs.
    pub rtt: Duration,
    /// The way that the session takes.
    pub path: Option<Path>,
}

/// What was appended, durable here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// By whom.
    pub author: AuthorId,
    /// The events, in order; none if there was nothing to write.
    pub events: Vec<Tip>,
    /// What became of an import's rows.
    pub rows: Rows,
}

/// What a store takes on its disk, before it was made smaller and after, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Before.
    pub before: u64,
    /// After.
    pub after: u64,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// What is asked for can't be.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store takes no writes now; reads go on. The words say why.
    #[error("nothing can be written now, and nothing was: {0}")]
    Degraded(String),
    /// The store can't be moved under those who read it.
    #[error("the store is being read: try again when the export, check or backup is done")]
    Reading,
    /// The node is stopping, or has stopped.
    #[error("the node is stopping; nothing was written")]
    Stopping,
}

/// What the node shows of itself. The owner sends a new one after each step that changed it.
///
/// What is in the store (events, records, the digest) isn't in it: that is read from the store, all
/// from one snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Whether a person has paused the node.
    pub paused: bool,
    /// How far it is.
    pub state: State,
    /// One sentence about that, without its first letter large or a full stop: "looking for peers:
    /// 16 slots empty, holding slot 11, next look in 5 s". A new sentence is a new line of `run`.
    pub doing: String,
    /// The author that it writes as.
    pub author: AuthorId,
    /// How to reach it: what `id --ticket` prints.
    pub ticket: Ticket,
    /// What it publishes about itself, one sentence each: addresses, relay, slot.
    pub published: Vec<String>,
    /// The peers that it knows, connected ones first.
    pub peers: Vec<Peer>,
    /// The 16 slots, in order; empty where the DHT isn't used.
    pub slots: Vec<Slot>,
    /// Missing payloads that every connected peer lacks.
    pub unavailable: u64,
    /// Connected peers that are known to hold all that this node has written.
    pub replicas: u64,
    /// Feeds held back from a peer or by one.
    pub declined: u64,
    /// Authors with too many branches.
    pub crowded: Vec<AuthorId>,
    /// Sessions since the start that ended because one side broke the protocol.
    pub violations: u64,
    /// Why nothing can be written, if nothing can.
    pub degraded: Option<String>,
    /// Why carriers that carry nothing any more don't.
    pub dead_carriers: Vec<String>,
    /// What a person should look at, in sentences: another node with this key, a wrong clock.
    pub notices: Vec<String>,
}

impl Snapshot {
    /// A node that has just begun.
    pub fn beginning(author: AuthorId, ticket: Ticket) -> Self {
        Self {
            paused: false,
            state: State::Isolated,
            doing: "starting".to_owned(),
            author,
            ticket,
            published: Vec::new(),
            peers: Vec::new(),
            slots: Vec::new(),
            unavailable: 0,
            replicas: 0,
            declined: 0,
            crowded: Vec::new(),
            violations: 0,
            degraded: None,
            dead_carriers: Vec::new(),
            notices: Vec::new(),
        }
    }
}

/// The owner's end.
#[derive(Debug)]
pub struct Desk {
    /// What is asked.
    pub inbox: mpsc::Receiver<Request>,
    /// What is shown. Dropped when the node has ended.
    pub snapshots: watch::Sender<Snapshot>,
    /// Number of the last arrival: told after the commit that brought it, at once, so that who
    /// follows events doesn't wait for a snapshot.
    pub arrivals: watch::Sender<u64>,
    /// What is counted.
    pub meters: Arc<Meters>,
}

/// A way to a running node, for whoever is in the same process.
#[derive(Debug, Clone)]
pub struct Handle {
    inbox: mpsc::Sender<Request>,
    snapshots: watch::Receiver<Snapshot>,
    arrivals: watch::Receiver<u64>,
    meters: Arc<Meters>,
    bridge: watch::Receiver<Bridge>,
}

/// A handle, and the end that the owner serves.
pub fn handle(
    beginning: Snapshot,
    meters: Meters,
    bridge: watch::Receiver<Bridge>,
) -> (Handle, Desk) {
    let (sender, inbox) = mpsc::channel(INBOX_LEN);
    let (shown, snapshots) = watch::channel(beginning);
    let (arrived, arrivals) = watch::channel(0);
    let meters = Arc::new(meters);
    let desk = Desk { inbox, snapshots: shown, arrivals: arrived, meters: meters.clone() };
    (Handle { inbox: sender, snapshots, arrivals, meters, bridge }, desk)
}

impl Handle {
    /// What goes over radio.
    pub fn bridge(&self) -> Bridge {
        Bridge { schema: SCHEMA, ..self.bridge.borrow().clone() }
    }

    /// Writes, and returns when it is durable.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: then nothing was written.
    pub async fn edit(&self, edit: Edit) -> Result<Appended, WriteError> {
        self.ask(|reply| Request::Edit { edit, reply }).await?
    }

    /// Blocks a peer, or lifts that.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: then nothing changed.
    pub async fn block(&self, peer: NodeId, on: bool) -> Result<(), WriteError> {
        self.ask(|reply| Request::Block { peer, on, reply }).await?
    }

    /// Remembers a peer and dials it.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: then it isn't remembered.
    pub async fn dial(&self, ticket: Ticket) -> Result<(), WriteError> {
        self.ask(|reply| Request::Dial { ticket, reply }).await?
    }

    /// The peers with all that is known of each, connected ones first.
    ///
    /// # Errors
    ///
    /// [`WriteError::Stopping`].
    pub async fn peers(&self) -> Result<Vec<Peer>, WriteError> {
        self.ask(|reply| Request::Peers { reply }).await
    }

    /// Asks a peer for an answer, over a session that is dialed if there is none. The inner error says in
    /// words why none came, after 15 s at the latest.
    ///
    /// # Errors
    ///
    /// [`WriteError::Stopping`].
    pub async fn ping(&self, peer: NodeId) -> Result<Result<Pong, String>, WriteError> {
        self.ask(|reply| Request::Ping { peer, reply }).await
    }

    /// What the node has seen of its surroundings.
    ///
    /// # Errors
    ///
    /// [`WriteError::Stopping`].
    pub async fn surroundings(&self) -> Result<Surroundings, WriteError> {
        self.ask(|reply| Request::Surroundings { reply }).await
    }

    /// Sends a probe to all nodes that can be reached: at most one a minute. What comes of it is told by
    /// [`Self::probed`]; the inner error says in words why none was sent.
    ///
    /// # Errors
    ///
    /// [`WriteError::Stopping`].
    pub async fn probe(&self) -> Result<Result<Probe, String>, WriteError> {
        self.ask(|reply| Request::Probe { reply }).await
    }

    /// What has come so far of the last probe, if one was sent since the start.
    ///
    /// # Errors
    ///
    /// [`WriteError::Stopping`].
    pub async fn probed(&self) -> Result<Option<Probe>, WriteError> {
        self.ask(|reply| Request::Probed { reply }).await
    }

    /// Forgets all that is known of a peer.
    ///
    /// # Errors
    ///
    /// [`WriteError::Stopping`]; the inner one says why the peer stays.
    pub async fn forget(&self, peer: NodeId) -> Result<Result<(), Unforgettable>, WriteError> {
        self.ask(|reply| Request::Forget { peer, reply }).await
    }

    /// Returns when a comparison that began after the call has ended, and all that it showed is
    /// here, declined or unavailable. Dropping the future gives it up.
    ///
    /// # Errors
    ///
    /// [`WriteError::Stopping`].
    pub async fn synced(&self) -> Result<(), WriteError> {
        self.ask(|reply| Request::Compare { reply }).await
    }

    /// Asks the peers for the absent payloads at one place of a feed, and returns when a comparison that
    /// began after the call has ended. Dropping the future gives it up.
    ///
    /// # Errors
    ///
    /// [`WriteError::Stopping`].
    pub async fn fetch(&self, author: AuthorId, seq: u64) -> Result<(), WriteError> {
        self.ask(|reply| Request::Fetch { author, seq, reply }).await
    }

    /// Makes the store as small as it can be.
    ///
    /// # Errors
    ///
    /// [`WriteError::Reading`] if somebody reads too long; [`WriteError::Degraded`] if the disk fails.
    pub async fn compact(&self) -> Result<Compacted, WriteError> {
        self.ask(|reply| Request::Compact { reply }).await?
    }

    /// Returns when `count` connected peers hold all that this node had written at the call, durably.
    /// Dropping the future gives it up.
    ///
    /// # Errors
    ///
    /// [`WriteError::Stopping`].
    pub async fn replicated(&self, count: usize) -> Result<(), WriteError> {
        self.ask(|reply| Request::Replicas { count, reply }).await
    }

    /// Ends all sessions and looks for nobody, or begins anew: `on` pauses. A node that starts isn't paused.
    ///
    /// # Errors
    ///
    /// [`WriteError::Stopping`].
    pub async fn pause(&self, on: bool) -> Result<(), WriteError> {
        self.ask(|reply| Request::Pause { on, reply }).await
    }

    /// Asks the node to end, and returns when it has.
    pub async fn shutdown(&self) {
        // An error says that it has ended already.
        let _ = self.inbox.send(Request::Shutdown).await;
        let mut snapshots = self.snapshots.clone();
        while snapshots.changed().await.is_ok() {}
    }

    /// What the node counts.
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshots.borrow().clone()
    }

    /// The snapshots as they change; an error of `changed` says that the node has ended.
    pub fn watch(&self) -> watch::Receiver<Snapshot> {
        let mut snapshots = self.snapshots.clone();
        snapshots.mark_changed();
        snapshots
    }

    /// The number of the last arrival as it grows; an error of `changed` says that the node has
    /// ended.
    pub fn arrivals(&self) -> watch::Receiver<u64> {
        self.arrivals.clone()
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(request(reply)).await.map_err(|_| WriteError::Stopping)?;
        answer.await.map_err(|_| {
            if self.inbox.is_closed() {
                return WriteError::Stopping;
            }
            // It was in a batch that could not be carried out to its end.
            WriteError::Degraded(
                "the store failed in the middle of it; look at `status`".to_owned(),
            )
        })
    }
}
