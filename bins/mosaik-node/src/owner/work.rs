//! What the owner takes into one batch, and what it decides in the batch's transaction.

use std::collections::BTreeSet;

use mosaik_core::{binding::RadioIdentity, event::Draft, id::AuthorId, record::RecordEvent, view};
use mosaik_net::{Delivery, Room};
use mosaik_proto::{
    carrier::{Effect, Input, Now},
    replica::Replica,
};
use mosaik_store::Batch;
use tokio::sync::oneshot;

use super::{Fault, retain::want};
use crate::{
    edit::{self, Decision, Edit, EditError, Rows},
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
    Edit(Edit, oneshot::Sender<Result<Appended, WriteError>>),
    /// Answered when the batch is durable.
    Reply(oneshot::Sender<Result<(), WriteError>>),
    /// Say this name, if the view has another.
    Profile(String),
    /// Say that this identity in Reticulum is this author's, if the view doesn't know it.
    Radio(Box<RadioIdentity>),
    /// Ask for the absent payloads at this place of a feed.
    Want(AuthorId, u64),
}

/// What became of it, to be told after the commit.
pub(super) enum Outcome {
    /// Those who wait for an append, in the order of their events.
    Waits(u64, Vec<Pending>),
    Edited(oneshot::Sender<Result<Appended, WriteError>>, Result<Appended, WriteError>),
    Done(oneshot::Sender<Result<(), WriteError>>),
}

/// Who waits for some events of an append that is not durable yet.
pub(super) struct Pending {
    pub(super) reply: oneshot::Sender<Result<Appended, WriteError>>,
    pub(super) rows: Rows,
    /// How many of its events are theirs.
    pub(super) events: usize,
}

/// Writes that will be appended together, and so under one signature: none could see another.
#[derive(Default)]
struct Together {
    drafts: Vec<Draft>,
    pending: Vec<Pending>,
    /// Of which records they are.
    records: BTreeSet<String>,
}

impl Together {
    /// Whether what `edit` means may depend on one of them.
    fn is_seen_by(&self, edit: &Edit) -> bool {
        edit.records().iter().any(|record| self.records.contains(*record))
    }
}

/// What works are carried out with, in the batch's transaction.
pub(super) struct Carrying<'a, 'txn> {
    now: Now,
    replica: &'a mut Replica,
    batch: &'a mut Batch<'txn>,
    effects: &'a mut Vec<Effect>,
    last_token: &'a mut u64,
    done: &'a mut Vec<Outcome>,
    together: Together,
}

impl<'a, 'txn> Carrying<'a, 'txn> {
    pub(super) fn new(
        now: Now,
        replica: &'a mut Replica,
        batch: &'a mut Batch<'txn>,
        effects: &'a mut Vec<Effect>,
        last_token: &'a mut u64,
        done: &'a mut Vec<Outcome>,
    ) -> Self {
        Self { now, replica, batch, effects, last_token, done, together: Together::default() }
    }

    /// Decides all writes against the view, in order, and appends them.
    pub(super) fn all(mut self, works: Vec<Work>) -> Result<(), Fault> {
        for work in works {
            match work {
                Work::Reply(reply) => self.done.push(Outcome::Done(reply)),
                Work::Want(author, seq) => want(self.batch, &author, seq)?,
                Work::Profile(name) => self.say_profile(name)?,
                Work::Radio(identity) => self.say_radio(&identity)?,
                Work::Edit(edit, reply) => self.edit(edit, reply)?,
            }
        }
        self.append()
    }

    fn say_profile(&mut self, name: String) -> Result<(), Fault> {
        let known = view::profile(self.batch, &self.replica.author())?;
        if known.is_none_or(|profile| profile.name != name)
            && let Ok(draft) = (RecordEvent::Profile { name }).encode()
        {
            self.together.drafts.push(draft);
            self.append()?;
        }
        Ok(())
    }

    fn say_radio(&mut self, identity: &RadioIdentity) -> Result<(), Fault> {
        let author = self.replica.author();
        let is_known = view::radio_of(self.batch, &author)? == Some(identity.keys);
        if !is_known && identity.is_of(&author) {
            self.together.drafts.push(identity.draft());
            self.append()?;
        }
        Ok(())
    }

    fn edit(
        &mut self,
        edit: Edit,
        reply: oneshot::Sender<Result<Appended, WriteError>>,
    ) -> Result<(), Fault> {
        if edit.stands_alone() || self.together.is_seen_by(&edit) {
            self.append()?;
        }
        match edit::decide(self.batch, &edit) {
            Ok(Decision { drafts, rows }) if drafts.is_empty() => {
                let author = self.replica.author();
                let appended = Appended { author, events: Vec::new(), rows };
                self.done.push(Outcome::Edited(reply, Ok(appended)));
            }
            Ok(Decision { drafts, rows }) => {
                self.together.pending.push(Pending { reply, rows, events: drafts.len() });
                self.together.drafts.extend(drafts);
                self.together.records.extend(edit.records().into_iter().map(str::to_owned));
                if edit.stands_alone() {
                    self.append()?;
                }
            }
            Err(EditError::Refused(refusal)) => {
                self.done.push(Outcome::Edited(reply, Err(refusal.into())));
            }
            Err(EditError::View(error)) => return Err(error),
        }
        Ok(())
    }

    /// Appends what is decided by now.
    fn append(&mut self) -> Result<(), Fault> {
        let Together { drafts, pending, .. } = std::mem::take(&mut self.together);
        if drafts.is_empty() {
            return Ok(());
        }
        *self.last_token += 1;
        let token = *self.last_token;
        self.done.push(Outcome::Waits(token, pending));
        let input = Input::Append { token, drafts };
        self.replica.handle(self.now, input, self.batch, self.effects)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ed25519_dalek::SigningKey;
    use mosaik_core::{event::Kind, key::Network, value::Value};
    use mosaik_proto::replica::Config;
    use mosaik_store::Store;

    use super::*;

    /// Carries out edits in one batch: how many events each append that was made has, and each asker.
    fn carried_out(edits: Vec<Edit>) -> (Vec<usize>, Vec<usize>) {
        let dir = tempfile::tempdir().expect("a directory");
        let keys = Network::parse("demo").expect("a name").keys();
        let mut store = Store::open(dir.path(), &keys.fingerprint).expect("a first run");
        let now = Now { mono_ms: 0, wall_ms: 1_800_000_000_000 };
        let config = Config {
            keys,
            node_key: SigningKey::from_bytes(&[1; 32]),
            author_key: SigningKey::from_bytes(&[2; 32]),
            author_is_new: true,
            name: String::new(),
            software: String::new(),
            sync_interval_ms: 60_000,
            sync_jitter_ms: 0,
            sessions_kept: mosaik_proto::peers::SESSIONS_KEPT,
            authors_max: 10,
            clock_floor_ms: 0,
            seed: 1,
        };
        let works = edits.into_iter().map(|edit| Work::Edit(edit, oneshot::channel().0)).collect();
        let (mut effects, mut done, mut token) = (Vec::new(), Vec::new(), 0);
        let written = store.write(|batch| -> Result<(), Fault> {
            let mut replica = Replica::open(config, now, batch)?;
            Carrying::new(now, &mut replica, batch, &mut effects, &mut token, &mut done).all(works)
        });
        written.expect("a working disk");
        let appends = effects.into_iter().filter_map(|effect| match effect {
            Effect::Appended { events, .. } => Some(events.len()),
            _ => None,
        });
        let waiting = done.into_iter().flat_map(|outcome| match outcome {
            Outcome::Waits(_, pending) => pending,
            _ => panic!("all of these edits append something"),
        });
        (appends.collect(), waiting.map(|pending| pending.events).collect())
    }

    fn set(record: &str, value: bool) -> Edit {
        let fields = BTreeMap::from([("a".to_owned(), Value::Bool(value))]);
        Edit::Set { record: record.to_owned(), fields }
    }

    fn create(record: &str) -> Edit {
        let (form, fields) = ("f".to_owned(), BTreeMap::new());
        Edit::Create { record: record.to_owned(), form, fields, if_absent: false }
    }

    #[test]
    fn writes_that_can_not_see_each_other_are_appended_under_one_signature() {
        let emit = |number: i64| (Kind::new("app.x").expect("a kind"), Value::Int(number));
        let (kind, value) = emit(1);
        let edits = vec![
            Edit::Emit { kind, value },
            create("one"),
            Edit::EmitAll { events: vec![emit(2), emit(3)] },
            create("two"),
        ];
        assert_eq!(carried_out(edits), (vec![5], vec![1, 1, 2, 1]));
    }

    #[test]
    fn a_write_sees_those_before_it_on_the_same_record() {
        let edits = vec![create("one"), set("one", true), create("two"), set("one", false)];
        assert_eq!(carried_out(edits), (vec![1, 2, 1], vec![1, 1, 1, 1]));
    }
}
