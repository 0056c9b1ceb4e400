//! Sessions: one task each, that turns a stream into inputs and effects into a stream.
//!
//! Invariants:
//! - `Connected` comes first and `Disconnected` last, each once, whatever happens in between.
//! - What a session has not sent is bounded: one that falls behind is closed, nobody waits for it.
//! - A peer that sends faster than the inbox is emptied is stopped by its flow control.
//! - Runs are verified beside the owner's loop, several at a time, and told in the order in which
//!   they came.
//! - Nothing is keyed by node id: two copies of a node may be connected at once.
//!
//! Source: FORMAT.md beside this crate, section 1.

mod reader;
mod silence;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use iroh::endpoint::{Connection, ReadError, RecvStream, SendStream, VarInt, WeakConnectionHandle};
use mosaik_core::id::NodeId;
use mosaik_proto::{
    carrier::{Input, Role, SessionId},
    message::{Bye, ByeCode, Message},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tracing::debug;

use self::{
    reader::{ReadEnd, Reader},
    silence::silence,
};
use crate::{
    SYNC_ALPN,
    connect::Shared,
    gossip::Admission,
    limits::Peer,
    rate::piece_max,
    reason::{of_bye, of_connection},
};

/// Bytes that may wait to be sent in one session. With more it is closed.
///
/// Four frames of the largest kind: who sends [`Input::Sent`]'s worth at a time stays far below.
pub const QUEUE_LEN_MAX: usize = 4 << 20;
/// What a queued frame counts beside its bytes, so that tiny ones can't pile up.
const FRAME_COST: usize = 64;
/// How long a peer may take nothing of what is sent to it.
const STALL_MAX: Duration = Duration::from_secs(30);
/// How long the rest of the queue and the `Bye` may take, and their arrival after that.
const FAREWELL_MAX: Duration = Duration::from_millis(1500);
const ARRIVAL_MAX: Duration = Duration::from_secs(1);
/// How long a connection whose stream has ended may stay: its close reason is on the way.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// How long the replica may take to close a session that broke the protocol.
const VERDICT_MAX: Duration = Duration::from_secs(5);
/// Bytes after which `Sent` is told though more is queued.
const SENT_EVERY: usize = 64 * 1024;

/// What is known of an open session by whoever hands effects to it.
pub(crate) struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    queued: Arc<AtomicUsize>,
    ending: watch::Sender<Ending>,
    pub(crate) connection: WeakConnectionHandle,
}

enum Command {
    Frame(Vec<u8>),
    Admit(Role),
}

/// How this end wants a session to end.
#[derive(Debug, Clone)]
enum Ending {
    NotYet,
    /// After what is queued and a last word.
    Farewell(Bye),
    /// At once.
    Overflow,
}

/// The two halves of a session's stream.
pub(crate) type Streams = (SendStream, RecvStream);

/// Sessions that came and went, for the table of whoever hands effects to them.
pub(crate) enum News {
    Came(SessionId, Handle),
    Went(SessionId),
}

impl Handle {
    /// Queues a frame. `false`: the session is over, or is now, because too much is queued.
    pub(crate) fn send(&self, frame: Vec<u8>) -> bool {
        let cost = frame.len() + FRAME_COST;
        if self.queued.fetch_add(cost, Ordering::Relaxed) + cost > QUEUE_LEN_MAX {
            self.ending.send_replace(Ending::Overflow);
            return false;
        }
        self.commands.send(Command::Frame(frame)).is_ok()
    }

    /// The peer has shown that it is of this network.
    pub(crate) fn admit(&self, role: Role) {
        // A session that is over needs no admission.
        let _ = self.commands.send(Command::Admit(role));
    }

    /// Sends what is queued and `bye`, then closes.
    pub(crate) fn close(self, bye: Bye) {
        self.ending.send_replace(Ending::Farewell(bye));
    }
}

/// Runs a session from its first to its last input.
pub(crate) async fn run(
    shared: Arc<Shared>,
    connection: Connection,
    role: Role,
    (send, recv): Streams,
) {
    let session = shared.next_session();
    let peer = NodeId(*connection.remote_id().as_bytes());
    let mut binding = vec![0; 32];
    if connection.export_keying_material(&mut binding, SYNC_ALPN, b"").is_err() {
        // Only a context of over 64 KiB is refused.
        connection.close(code(ByeCode::Unable), b"no channel binding");
        return;
    }
    let (commands, queue) = mpsc::unbounded_channel();
    let (ending, ending_seen) = watch::channel(Ending::NotYet);
    let queued = Arc::new(AtomicUsize::new(0));
    let handle =
        Handle { commands, queued: queued.clone(), ending, connection: connection.weak_handle() };
    // Before `Connected`, so that whoever has heard of the session can send to it.
    let _ = shared.news.send(News::Came(session, handle));
    shared.counters.sessions.one_more();
    let rtt_ms = crate::net::path(&connection.weak_handle())
        .and_then(|path| u32::try_from(path.rtt_ms).ok());
    let connected = Input::Connected { session, peer, role, binding, rtt_ms };
    if shared.inbox.send(connected.into()).await.is_ok() {
        debug!(session = session.0, peer = %peer.short(), ?role, "session begun");
        let limits = shared.limits.of(peer);
        let writer = Writer {
            shared: &shared,
            session,
            peer,
            limits: limits.clone(),
            send,
            queue,
            queued: &queued,
            ending: ending_seen,
            farewell_by: None,
            admission: None,
        };
        let reader = Reader::new(shared.clone(), session, limits, recv);
        // A task of its own: a flood must not hold up what is sent.
        let mut reading = JoinSet::new();
        reading.spawn(reader.run());
        let reason = converse(&connection, writer, &mut reading).await;
        // Nothing of it may come after the end.
        reading.shutdown().await;
        debug!(session = session.0, peer = %peer.short(), reason, "session over");
        shared.tell(Input::Disconnected { session, reason }).await;
    }
    let _ = shared.news.send(News::Went(session));
}

/// Runs both halves until the connection is closed; says why it is.
async fn converse(
    connection: &Connection,
    writer: Writer<'_>,
    reading: &mut JoinSet<ReadEnd>,
) -> String {
    let mut writer = pin!(writer.run());
    // What was decided here goes before what the transport then says.
    let close = |bye: &Bye, reason: String| {
        connection.close(code(bye.code), bye.text.as_bytes());
        reason
    };
    tokio::select! {
        biased;
        end = read_end(reading) => match end {
            ReadEnd::Lost(error) => lost(connection, &error),
            // It has said all. Its reason comes as the transport's close; until then this end may
            // still say its own.
            ReadEnd::Finished => {
                let bye = Bye::new(ByeCode::Done, "the stream has ended");
                tokio::select! {
                    error = connection.closed() => of_connection(&error),
                    end = &mut writer => match end {
                        WriteEnd::Farewell(bye) => close(&bye, of_bye(&bye)),
                        _ => hang_up(connection, LINGER_MAX, &bye, "closed by the peer").await,
                    },
                    () = tokio::time::sleep(LINGER_MAX) => close(&bye, "closed by the peer".into()),
                }
            }
            ReadEnd::Cut => {
                let bye = Bye::new(ByeCode::Violation, "the stream ended within a frame");
                hang_up(connection, LINGER_MAX, &bye, "lost: it stopped within a frame").await
            }
            // The replica knows, and will say so to the peer.
            ReadEnd::Bad => {
                let bye = Bye::new(ByeCode::Violation, "a frame that breaks the protocol");
                match timeout(VERDICT_MAX, &mut writer).await {
                    Ok(WriteEnd::Farewell(bye)) => close(&bye, of_bye(&bye)),
                    _ => close(&bye, of_bye(&bye)),
                }
            }
            ReadEnd::GivenUp => {
                let text = "a frame stayed unfinished while others waited for its room";
                let bye = Bye::new(ByeCode::Timeout, text);
                close(&bye, format!("closed here: {text}"))
            }
            ReadEnd::Nobody => close(&leaving(), of_bye(&leaving())),
            ReadEnd::Panicked => {
                let bye = Bye::new(ByeCode::Unable, "a fault in this node");
                close(&bye, of_bye(&bye))
            }
        },
        end = &mut writer => match end {
            WriteEnd::Farewell(bye) => close(&bye, of_bye(&bye)),
            WriteEnd::Stalled => {
                let text = format!("nothing was taken for {} s", STALL_MAX.as_secs());
                close(&Bye::new(ByeCode::Timeout, text.as_str()), format!("lost: {text}"))
            }
            WriteEnd::Overflow => {
                let text = format!("fell behind by {QUEUE_LEN_MAX} bytes");
                close(&Bye::new(ByeCode::Timeout, text.as_str()), format!("closed here: {text}"))
            }
            WriteEnd::Nobody => close(&leaving(), of_bye(&leaving())),
            WriteEnd::Lost => {
                let bye = Bye::new(ByeCode::Violation, "the stream was stopped");
                let reason = hang_up(connection, LINGER_MAX, &bye, "lost: it reads no more").await;
                // What came before is still to be read: the peer's own `Bye`, for one.
                read_end(reading).await;
                reason
            }
        },
        () = silence(connection) => {
            close(&Bye::new(ByeCode::Timeout, "no answer"), "lost: no answer".to_owned())
        }
    }
}

async fn read_end(reading: &mut JoinSet<ReadEnd>) -> ReadEnd {
    match reading.join_next().await {
        Some(Ok(end)) => end,
        Some(Err(_)) | None => ReadEnd::Panicked,
    }
}

/// Waits a moment for the peer's own reason, else closes for `otherwise`.
async fn hang_up(connection: &Connection, wait: Duration, bye: &Bye, otherwise: &str) -> String {
    match timeout(wait, connection.closed()).await {
        Ok(error) => of_connection(&error),
        Err(_) => {
            connection.close(code(bye.code), bye.text.as_bytes());
            otherwise.to_owned()
        }
    }
}

fn lost(connection: &Connection, error: &ReadError) -> String {
    match (connection.close_reason(), error) {
        (Some(reason), _) => of_connection(&reason),
        (None, ReadError::ConnectionLost(reason)) => of_connection(reason),
        (None, error) => {
            connection.close(code(ByeCode::Violation), b"the stream was reset");
            format!("lost: {error}")
        }
    }
}

fn leaving() -> Bye {
    Bye::new(ByeCode::Leaving, "the node is stopping")
}

pub(crate) fn code(code: ByeCode) -> VarInt {
    VarInt::from(code.as_u8())
}

struct Writer<'a> {
    shared: &'a Shared,
    session: SessionId,
    peer: NodeId,
    limits: Arc<Peer>,
    send: SendStream,
    queue: mpsc::UnboundedReceiver<Command>,
    queued: &'a AtomicUsize,
    ending: watch::Receiver<Ending>,
    /// When a farewell must be over; set once this end wants one.
    farewell_by: Option<Instant>,
    /// Held while the session lasts: gossip with the peer lasts as long.
    admission: Option<Admission>,
}

enum WriteEnd {
    /// All was said. Close with this.
    Farewell(Bye),
    /// The peer takes nothing.
    Stalled,
    /// Too much was queued.
    Overflow,
    /// The connection or the stream is gone.
    Lost,
    /// Nobody sends effects any more.
    Nobody,
}

impl Writer<'_> {
    async fn run(mut self) -> WriteEnd {
        let end = self.drain().await;
        let dropped = std::iter::from_fn(|| self.queue.try_recv().ok())
            .filter(|command| matches!(command, Command::Frame(_)))
            .count();
        self.shared.counters.frames_dropped.add(dropped as u64);
        end
    }

    /// Carries out commands until there will be no more, or no more can be carried out.
    async fn drain(&mut self) -> WriteEnd {
        let mut unsaid = 0;
        loop {
            let command = tokio::select! {
                biased;
                changed = self.ending.changed(), if self.farewell_by.is_none() => {
                    if let Err(end) = self.note_ending(changed.is_ok()) {
                        return end;
                    }
                    continue;
                }
                command = self.queue.recv() => command,
            };
            match command {
                Some(Command::Admit(role)) => {
                    self.admission = Some(self.shared.gate.admit(self.peer, self.session, role));
                }
                Some(Command::Frame(frame)) => {
                    let written = self.write(&frame).await;
                    self.queued.fetch_sub(frame.len() + FRAME_COST, Ordering::Relaxed);
                    if let Err(end) = written {
                        self.shared.counters.frames_dropped.one_more();
                        return match (end, self.bye()) {
                            // There was not time enough for all of it. The reason still goes.
                            (WriteEnd::Stalled, Some(bye)) => WriteEnd::Farewell(bye),
                            (end, _) => end,
                        };
                    }
                    self.shared.counters.frames_sent.one_more();
                    self.shared.counters.bytes_sent.add(frame.len() as u64);
                    unsaid += frame.len();
                    if unsaid >= SENT_EVERY || self.queue.is_empty() {
                        let sent = Input::Sent { session: self.session, bytes: unsaid };
                        unsaid = 0;
                        self.shared.tell(sent).await;
                    }
                }
                // The handle is gone: by a farewell, or with all of the carrier.
                None => {
                    return match self.bye() {
                        Some(bye) => self.farewell(bye).await,
                        None => WriteEnd::Nobody,
                    };
                }
            }
        }
    }

    fn bye(&self) -> Option<Bye> {
        match &*self.ending.borrow() {
            Ending::Farewell(bye) => Some(bye.clone()),
            Ending::NotYet | Ending::Overflow => None,
        }
    }

    /// Takes note of how the session is to end. `alive`: the handle is, or was until it said so.
    fn note_ending(&mut self, alive: bool) -> Result<(), WriteEnd> {
        match &*self.ending.borrow_and_update() {
            Ending::Farewell(_) => {
                self.farewell_by = Some(Instant::now() + FAREWELL_MAX);
                Ok(())
            }
            Ending::Overflow => Err(WriteEnd::Overflow),
            Ending::NotYet if alive => Ok(()),
            Ending::NotYet => Err(WriteEnd::Nobody),
        }
    }

    /// Writes a frame, as long as the peer takes some of it every [`STALL_MAX`]; in a farewell, as
    /// long as that may take.
    async fn write(&mut self, frame: &[u8]) -> Result<(), WriteEnd> {
        let mut rest = frame;
        let piece_max = piece_max(self.shared.rate_up.as_deref());
        while !rest.is_empty() {
            let by = self.farewell_by.unwrap_or_else(|| Instant::now() + STALL_MAX);
            let written = tokio::select! {
                biased;
                changed = self.ending.changed(), if self.farewell_by.is_none() => {
                    self.note_ending(changed.is_ok())?;
                    continue;
                }
                // Cancel safe: what doesn't end has written nothing.
                written = timeout_at(by, self.send.write(&rest[..rest.len().min(piece_max)])) => written,
            };
            match written {
                Ok(Ok(len)) => {
                    rest = &rest[len..];
                    self.keep_rate(len).await?;
                }
                Ok(Err(error)) => {
                    debug!(session = self.session.0, %error, "stream is gone");
                    return Err(WriteEnd::Lost);
                }
                Err(_) => return Err(WriteEnd::Stalled),
            }
        }
        Ok(())
    }

    /// Waits until what was written is within the limits, unless the session is about to end.
    async fn keep_rate(&mut self, bytes: usize) -> Result<(), WriteEnd> {
        if self.farewell_by.is_some() {
            return Ok(());
        }
        let (limits, rate) = (self.limits.clone(), self.shared.rate_up.as_deref());
        let within = async {
            limits.sent(bytes).await;
            if let Some(rate) = rate {
                rate.take(bytes).await;
            }
        };
        tokio::select! {
            biased;
            changed = self.ending.changed() => self.note_ending(changed.is_ok()),
            () = within => Ok(()),
        }
    }

    /// Says the last word and waits shortly until it has arrived: a close overtakes what is on its
    /// way. Whatever comes of it, the close says the same.
    async fn farewell(&mut self, bye: Bye) -> WriteEnd {
        let frame = Message::Bye(bye.clone()).encode();
        if self.write(&frame).await.is_ok() && self.send.finish().is_ok() {
            self.shared.counters.frames_sent.one_more();
            let _ = timeout(ARRIVAL_MAX, self.send.stopped()).await;
        }
        WriteEnd::Farewell(bye)
    }
}
