//! What the owner takes into one batch, and what it decides in the batch's transaction.

use mosaik_core::{id::AuthorId, record::RecordEvent, view};
use mosaik_net::{Delivery, Room};
use mosaik_proto::{
    carrier::{Effect, Input, Now},
    replica::Replica,
};
use mosaik_store::Batch;
use tokio::sync::oneshot;

use super::{Fault, retain::want};
use crate::{
    edit::{self, EditError, Rows},
    handle::{Appended, WriteError},
};

/// Inputs taken into one batch, and so into one commit.
const BATCH_MAX: usize = 256;
/// Bytes from peers in one batch: enough that the disk's sync is a small part of the commit, and a
/// writer here waits for some ten milliseconds only.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// What is taken together, and so committed together.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) inputs: Vec<Input>,
    pub(super) works: Vec<Work>,
    /// The room of the inputs' bytes: given back once they are committed.
    pub(super) rooms: Vec<Room>,
    bytes: usize,
    /// Whether the node is to end after it.
    pub(super) stop: bool,
}

impl Taken {
    pub(super) fn deliver(&mut self, delivery: Delivery) {
        self.bytes += delivery.len();
        let (input, room) = delivery.into_parts();
        self.inputs.push(input);
        self.rooms.push(room);
    }

    pub(super) fn is_full(&self) -> bool {
        self.inputs.len() + self.works.len() >= BATCH_MAX || self.bytes >= BATCH_BYTES_MAX
    }
}

/// What is asked for beside the replica's inputs.
pub(super) enum Work {
    Edit(edit::Edit, oneshot::Sender<Result<Appended, WriteError>>),
    /// Answered when the batch is durable.
    Reply(oneshot::Sender<Result<(), WriteError>>),
    /// Say this name, if the view has another.
    Profile(String),
    /// Ask for the absent payloads at this place of a feed.
    Want(AuthorId, u64),
}

/// What became of it, to be told after the commit.
pub(super) enum Outcome {
    Waits(u64, Pending),
    Edited(oneshot::Sender<Result<Appended, WriteError>>, Result<Appended, WriteError>),
    Done(oneshot::Sender<Result<(), WriteError>>),
}

/// Decides a write against the view and appends it, in the batch's transaction.
pub(super) fn carry_out(
    work: Work,
    next_token: &mut u64,
    now: Now,
    replica: &mut Replica,
    batch: &mut Batch<'_>,
    effects: &mut Vec<Effect>,
) -> Result<Option<Outcome>, Fault> {
    *next_token += 1;
    let token = *next_token;
    match work {
        Work::Reply(reply) => Ok(Some(Outcome::Done(reply))),
        Work::Want(author, seq) => {
            want(batch, &author, seq)?;
            Ok(None)
        }
        Work::Profile(name) => {
            let known = view::profile(batch, &replica.author())?;
            if known.is_none_or(|profile| profile.name != name)
                && let Ok(draft) = (RecordEvent::Profile { name }).encode()
            {
                let input = Input::Append { token, drafts: vec![draft] };
                replica.handle(now, input, batch, effects)?;
            }
            Ok(None)
        }
        Work::Edit(edit, reply) => match edit::decide(batch, &edit) {
            Ok(decision) if decision.drafts.is_empty() => {
                let (author, rows) = (replica.author(), decision.rows);
                let appended = Appended { author, events: Vec::new(), rows };
                Ok(Some(Outcome::Edited(reply, Ok(appended))))
            }
            Ok(decision) => {
                let input = Input::Append { token, drafts: decision.drafts };
                replica.handle(now, input, batch, effects)?;
                Ok(Some(Outcome::Waits(token, Pending { reply, rows: decision.rows })))
            }
            Err(EditError::Refused(refusal)) => {
                Ok(Some(Outcome::Edited(reply, Err(refusal.into()))))
            }
            Err(EditError::View(error)) => Err(error),
        },
    }
}

/// An append that is not durable yet.
pub(super) struct Pending {
    pub(super) reply: oneshot::Sender<Result<Appended, WriteError>>,
    pub(super) rows: Rows,
}
