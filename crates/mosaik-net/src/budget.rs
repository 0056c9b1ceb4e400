//! Room for what peers have sent and the node has not taken in yet: one budget for all sessions.
//!
//! Invariants:
//! - Bytes take room as they are read, and give it back when their input is dropped: what waits in
//!   the inbox counts as well as frames that aren't whole.
//! - Nobody can keep the room from the others: where frames that don't become whole hold most of it,
//!   those that began first are given up.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use mosaik_proto::carrier::Input;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Bytes of frames that all sessions together may have here, not yet taken in.
pub const INCOMING_MAX: usize = 16 << 20;
/// How long a session waits for room before others are looked at. A guess: longer than a commit.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// An input on its way to the node's owner, with the room that its bytes take: held until it is dropped.
#[derive(Debug)]
pub struct Delivery {
    /// What happened.
    pub input: Input,
    room: Room,
}

impl Delivery {
    pub(crate) fn new(input: Input, room: Room) -> Self {
        Self { input, room }
    }

    /// Bytes on the wire that this input came from; 0 for what came from none.
    pub fn len(&self) -> usize {
        self.room.len()
    }

    /// Whether it came from no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The input, and what holds its room.
    pub fn into_parts(self) -> (Input, Room) {
        (self.input, self.room)
    }
}

impl From<Input> for Delivery {
    fn from(input: Input) -> Self {
        Self { input, room: Room::default() }
    }
}

/// Room for some bytes, given back when it is dropped.
#[derive(Debug, Default)]
pub struct Room(Option<OwnedSemaphorePermit>);

impl Room {
    fn len(&self) -> usize {
        self.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    fn add(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.0 {
            Some(permit) => permit.merge(more),
            None => self.0 = Some(more),
        }
    }
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Budget {
    free: Arc<Semaphore>,
    bytes_max: usize,
    partial: Mutex<Partial>,
}

/// Frames that aren't whole, in the order in which they began.
#[derive(Debug, Default)]
struct Partial {
    frames: BTreeMap<u64, (usize, Arc<Notify>)>,
    begun: u64,
    /// Bytes of all of them.
    bytes: usize,
}

/// A frame was given up: others need its room more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GivenUp;

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(bytes_max)), bytes_max, partial: Mutex::default() }
    }

    /// Waits for room for a frame of `bytes` that has come in one piece.
    pub(crate) async fn room(&self, bytes: usize) -> Room {
        Room(Some(self.acquire(bytes).await))
    }

    /// Begins a frame of which more is to come.
    pub(crate) fn frame(self: &Arc<Self>) -> Frame {
        let given_up = Arc::new(Notify::new());
        let mut partial = self.partial();
        partial.begun += 1;
        let number = partial.begun;
        partial.frames.insert(number, (0, given_up.clone()));
        drop(partial);
        Frame { budget: self.clone(), number, given_up, room: Room::default() }
    }

    async fn acquire(&self, bytes: usize) -> OwnedSemaphorePermit {
        // Pieces are far shorter than 4 GiB.
        let mut acquired = pin!(self.free.clone().acquire_many_owned(bytes as u32));
        loop {
            tokio::select! {
                biased;
                permit = &mut acquired => return permit.expect("the semaphore is never closed"),
                () = tokio::time::sleep(WAIT_MAX) => self.give_up_one(),
            }
        }
    }

    fn partial(&self) -> std::sync::MutexGuard<'_, Partial> {
        self.partial.lock().expect("nothing panics while it holds this lock")
    }

    /// Gives up the frame that began first, if frames that aren't whole are what takes the room.
    fn give_up_one(&self) {
        let partial = self.partial();
        if partial.bytes > self.bytes_max / 2
            && let Some((_, given_up)) = partial.frames.values().find(|(bytes, _)| *bytes > 0)
        {
            given_up.notify_one();
        }
    }
}

/// The room of a frame on its way in.
#[derive(Debug)]
pub(crate) struct Frame {
    budget: Arc<Budget>,
    number: u64,
    given_up: Arc<Notify>,
    room: Room,
}

impl Frame {
    /// Waits for room for `bytes` more of it.
    ///
    /// # Errors
    ///
    /// [`GivenUp`]: it waited while it held room itself, and was the first to go.
    pub(crate) async fn take(&mut self, bytes: usize) -> Result<(), GivenUp> {
        let permit = tokio::select! {
            biased;
            permit = self.budget.acquire(bytes) => permit,
            () = self.given_up.notified() => return Err(GivenUp),
        };
        self.room.add(permit);
        let mut partial = self.budget.partial();
        partial.bytes += bytes;
        if let Some((held, _)) = partial.frames.get_mut(&self.number) {
            *held += bytes;
        }
        Ok(())
    }

    /// Returns when others need its room more.
    pub(crate) async fn given_up(&self) {
        self.given_up.notified().await;
    }

    /// It is whole: its room goes with its input.
    pub(crate) fn finish(mut self) -> Room {
        std::mem::take(&mut self.room)
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        let mut partial = self.budget.partial();
        if let Some((held, _)) = partial.frames.remove(&self.number) {
            partial.bytes -= held;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn room_is_had_when_an_input_is_dropped() {
        let budget = Budget::new(INCOMING_MAX);
        let delivery = Delivery::new(Input::Compare, budget.room(INCOMING_MAX).await);
        assert_eq!(delivery.len(), INCOMING_MAX);
        let waiting = budget.room(1);
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(WAIT_MAX * 3, &mut waiting).await.is_err());
        drop(delivery);
        waiting.await;
    }

    /// Sixteen frames that aren't whole, and take all the room.
    async fn halves(budget: &Arc<Budget>) -> Vec<Frame> {
        let mut halves: Vec<Frame> = (0..16).map(|_| budget.frame()).collect();
        for frame in &mut halves {
            frame.take(INCOMING_MAX / 16).await.expect("there is room");
        }
        halves
    }

    /// Room that whole frames take in the inbox is the disk's to give back; nobody is at fault.
    #[tokio::test(start_paused = true)]
    async fn frames_that_stay_unfinished_are_given_up_oldest_first_for_who_waits() {
        let budget = Arc::new(Budget::new(INCOMING_MAX));
        let mut rest = halves(&budget).await.into_iter();
        let (first, next) = (rest.next().expect("the oldest"), rest.next().expect("another"));
        let giving_way = async {
            first.given_up().await;
            drop(first);
        };
        let (_room, ()) = tokio::join!(budget.room(INCOMING_MAX / 16), giving_way);
        assert!(tokio::time::timeout(WAIT_MAX, next.given_up()).await.is_err());
    }

    /// All hold room and all want more: one has to go, or all would stand for ever.
    #[tokio::test(start_paused = true)]
    async fn frames_that_wait_for_one_another_are_given_up_until_one_goes_on() {
        let budget = Arc::new(Budget::new(INCOMING_MAX));
        let mut waiting = tokio::task::JoinSet::new();
        for mut frame in halves(&budget).await {
            waiting.spawn(async move { frame.take(INCOMING_MAX / 16).await });
        }
        let mut ends = waiting.join_all().await;
        let went_on = ends.iter().filter(|end| end.is_ok()).count();
        assert!(went_on >= 8, "{went_on} of 16 went on");
        ends.retain(Result::is_err);
        assert!(!ends.is_empty() && ends.len() <= 8, "{} were given up", ends.len());
    }
}
