//! What a session's peer says, made into inputs.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use iroh::endpoint::{ReadError, RecvStream};
use mosaik_proto::{
    carrier::{Input, SessionId},
    message::{FrameError, Message},
};
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    budget::{Delivery, Frame, Room},
    connect::Shared,
    frame::Assembler,
    limits::Peer,
    rate::piece_max,
};

/// Progress is told at most this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// Frames of one session that are checked at a time. More would only wait for a worker.
const CHECKS_MAX: usize = 8;
/// Bytes from which on a frame is checked in a task of its own: that costs some microseconds, and to
/// check as many bytes of a run costs ten times that. A guess.
const CHECKED_APART_FROM: usize = 8 * 1024;

pub(super) struct Reader {
    shared: Arc<Shared>,
    session: SessionId,
    /// What the peer may send in a second.
    limits: Arc<Peer>,
    recv: RecvStream,
    assembler: Assembler,
    /// The room of the frame that isn't whole yet.
    frame: Option<Frame>,
    /// Frames that are whole, in the order in which they came, the first of them being checked.
    checks: VecDeque<Check>,
    /// When progress was told last.
    progress: Option<Instant>,
}

/// A whole frame on its way to being a message.
struct Check {
    outcome: Outcome,
    room: Room,
}

enum Outcome {
    /// None once it was told.
    Known(Option<Result<Message, FrameError>>),
    /// A run, in a task of its own: other workers check the next ones meanwhile.
    Running(JoinHandle<Result<Message, FrameError>>),
}

/// Why a reader stopped.
pub(super) enum ReadEnd {
    /// The peer finished its stream.
    Finished,
    /// The same, in the middle of a frame.
    Cut,
    /// A frame that breaks the protocol; told.
    Bad,
    /// It left a frame unfinished for so long that others needed the room.
    GivenUp,
    /// The connection or the stream is gone.
    Lost(ReadError),
    /// Nobody takes inputs any more.
    Nobody,
    /// A fault of this program.
    Panicked,
}

impl Reader {
    pub(super) fn new(
        shared: Arc<Shared>,
        session: SessionId,
        limits: Arc<Peer>,
        recv: RecvStream,
    ) -> Self {
        let (assembler, checks) = (Assembler::default(), VecDeque::new());
        Self { shared, session, limits, recv, assembler, frame: None, checks, progress: None }
    }

    pub(super) async fn run(mut self) -> ReadEnd {
        match self.read().await {
            Err(end) => end,
            // What came before the end is told before it.
            Ok(end) => self.tell_all_but(0).await.err().unwrap_or(end),
        }
    }

    /// Reads to the end of the stream. An error: what came last is not to be told.
    async fn read(&mut self) -> Result<ReadEnd, ReadEnd> {
        let shared = self.shared.clone();
        let rate = shared.rate_down.as_deref();
        loop {
            let piece = tokio::select! {
                biased;
                checked = first(&mut self.checks) => {
                    self.tell_first(checked).await?;
                    continue;
                }
                () = given_up(&self.frame) => return Ok(ReadEnd::GivenUp),
                piece = self.recv.read_chunk(piece_max(rate)) => piece,
            };
            let piece = match piece {
                Ok(Some(piece)) => piece,
                Ok(None) if self.assembler.is_partial() => return Ok(ReadEnd::Cut),
                Ok(None) => return Ok(ReadEnd::Finished),
                Err(error) => return Ok(ReadEnd::Lost(error)),
            };
            shared.counters.bytes_received.add(piece.len() as u64);
            if let Some(rate) = rate {
                rate.take(piece.len()).await;
            }
            self.take(piece).await?;
            self.tell_progress().await?;
        }
    }

    /// Cuts a piece into frames, and has them checked.
    async fn take(&mut self, mut piece: Bytes) -> Result<(), ReadEnd> {
        while !piece.is_empty() {
            let before = piece.len();
            let taken = self.assembler.take(&mut piece);
            let len = before - piece.len();
            match taken {
                Ok(Some(body)) => {
                    let room = match self.frame.take() {
                        None => self.shared.budget.room(len).await,
                        Some(mut frame) => {
                            self.have_room(&mut frame, len).await?;
                            frame.finish()
                        }
                    };
                    self.check(body, room).await?;
                }
                Ok(None) => {
                    let begun = self.frame.take();
                    let mut frame = begun.unwrap_or_else(|| self.shared.budget.frame());
                    self.have_room(&mut frame, len).await?;
                    self.frame = Some(frame);
                }
                Err(error) => {
                    self.tell_all_but(0).await?;
                    return self.tell(Err(error), Room::default()).await;
                }
            }
        }
        Ok(())
    }

    /// Waits for room for `len` bytes more of a frame.
    async fn have_room(&mut self, frame: &mut Frame, len: usize) -> Result<(), ReadEnd> {
        if frame.take(len).await.is_err() {
            self.tell_all_but(0).await?;
            return Err(ReadEnd::GivenUp);
        }
        Ok(())
    }

    /// Begins to check a frame. Waits where as many as may be are being checked.
    async fn check(&mut self, body: Vec<u8>, room: Room) -> Result<(), ReadEnd> {
        let outcome = if body.len() < CHECKED_APART_FROM {
            let message = Message::decode(&body, &self.shared.hasher);
            if self.checks.is_empty() {
                return self.tell(message, room).await;
            }
            Outcome::Known(Some(message))
        } else {
            let shared = self.shared.clone();
            Outcome::Running(tokio::spawn(async move { Message::decode(&body, &shared.hasher) }))
        };
        self.tell_all_but(CHECKS_MAX - 1).await?;
        self.checks.push_back(Check { outcome, room });
        Ok(())
    }

    /// Tells of the first frames, until at most `left` are still being checked.
    async fn tell_all_but(&mut self, left: usize) -> Result<(), ReadEnd> {
        while self.checks.len() > left {
            let checked = first(&mut self.checks).await;
            self.tell_first(checked).await?;
        }
        Ok(())
    }

    async fn tell_first(
        &mut self,
        checked: Option<Result<Message, FrameError>>,
    ) -> Result<(), ReadEnd> {
        let room = self.checks.pop_front().map(|check| check.room).unwrap_or_default();
        match checked {
            Some(checked) => self.tell(checked, room).await,
            None => Err(ReadEnd::Panicked),
        }
    }

    async fn tell(
        &mut self,
        decoded: Result<Message, FrameError>,
        room: Room,
    ) -> Result<(), ReadEnd> {
        let (session, counters) = (self.session, &self.shared.counters);
        let (input, is_bad) = match decoded {
            Ok(message) => {
                // Nothing more is read meanwhile.
                self.limits.frame(&message).await;
                (Input::Frame { session, message }, false)
            }
            Err(error) => (Input::BadFrame { session, error }, true),
        };
        if is_bad { &counters.frames_bad } else { &counters.frames_received }.one_more();
        match self.shared.inbox.send(Delivery::new(input, room)).await {
            Ok(()) if is_bad => Err(ReadEnd::Bad),
            Ok(()) => Ok(()),
            Err(_) => Err(ReadEnd::Nobody),
        }
    }

    /// Tells now and then that a long frame is on its way.
    async fn tell_progress(&mut self) -> Result<(), ReadEnd> {
        let now = Instant::now();
        if !self.assembler.is_partial()
            || self.progress.is_some_and(|told| now < told + PROGRESS_EVERY)
        {
            return Ok(());
        }
        self.progress = Some(now);
        let progress = Input::Progress { session: self.session };
        self.shared.inbox.send(progress.into()).await.map_err(|_| ReadEnd::Nobody)
    }
}

/// What becomes of the first frame that is being checked; none if its task failed. Never, where there
/// is no frame. Cancel safe: what is known is asked for again.
async fn first(checks: &mut VecDeque<Check>) -> Option<Result<Message, FrameError>> {
    match checks.front_mut() {
        None => std::future::pending().await,
        Some(Check { outcome: Outcome::Known(known), .. }) => known.take(),
        Some(Check { outcome: Outcome::Running(task), .. }) => task.await.ok(),
    }
}

/// Returns when the room of a frame on its way is needed more by others.
async fn given_up(frame: &Option<Frame>) {
    match frame {
        Some(frame) => frame.given_up().await,
        None => std::future::pending().await,
    }
}
