//! What waits to be said on a link, the most urgent first.
//!
//! Invariants:
//! - What is said of one author keeps its order: a run that came before the one it builds on would be
//!   asked for once more. So something urgent waits behind what is less so of the same author.
//! - What is of no author, or of many, overtakes nothing but files.
//! - Files wait for all else, and nothing waits for them.
//! - Whose share of the hour is used up waits, and holds up nobody else.

use std::collections::VecDeque;

use mosaik_core::{id::AuthorId, run::VerifiedRun};
use mosaik_proto::message::Message;

/// How urgent something is, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// What two ends have to say so that anything can be said: greetings, comparisons, wants.
    Control,
    /// What was written or came just now.
    News,
    /// What was asked for, and is of a kind that goes first.
    Priority,
    /// What was asked for.
    History,
    /// Pieces of files that a person asked for.
    Files,
}

/// What waits of one class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Events in its runs.
    pub events: u64,
    /// Bytes, before they are shortened.
    pub bytes: u64,
}

/// What waits, by class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queued {
    /// Greetings, comparisons, wants.
    pub control: Waiting,
    /// What was written or came just now.
    pub news: Waiting,
    /// What was asked for, and is of a kind that goes first.
    pub priority: Waiting,
    /// What was asked for.
    pub history: Waiting,
    /// Pieces of files that a person asked for.
    pub files: Waiting,
}

impl Queued {
    fn of(&mut self, class: Class) -> &mut Waiting {
        match class {
            Class::Control => &mut self.control,
            Class::News => &mut self.news,
            Class::Priority => &mut self.priority,
            Class::History => &mut self.history,
            Class::Files => &mut self.files,
        }
    }
}

/// Kinds of events that go first: `alert`, `sensor.*`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kinds(pub Vec<String>);

impl Kinds {
    fn has(&self, kind: &str) -> bool {
        self.0.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => kind.starts_with(prefix),
            None => kind == pattern,
        })
    }

    fn has_any_of(&self, run: &VerifiedRun) -> bool {
        !self.0.is_empty() && run.events().iter().any(|event| self.has(event.kind.as_str()))
    }
}

/// One message that waits.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) class: Class,
    /// Of whom it is, if of one.
    pub(super) author: Option<AuthorId>,
    /// Bytes of its frame.
    pub(super) len: usize,
    pub(super) message: Message,
}

impl Entry {
    fn events(&self) -> u64 {
        match &self.message {
            Message::Run(run) => run.events().len() as u64,
            _ => 0,
        }
    }
}

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all frames that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a message whose frame has so many bytes.
    pub(super) fn push(&mut self, message: Message, len: usize, is_asked: bool, first: &Kinds) {
        let (author, own) = match &message {
            Message::Run(run) => {
                let asked = if first.has_any_of(run) { Class::Priority } else { Class::History };
                (Some(run.author()), if is_asked { asked } else { Class::News })
            }
            Message::Have(author, _) | Message::Decline(author, _) | Message::Lack(author, ..) => {
                (Some(*author), Class::Control)
            }
            Message::Want(want) => (Some(want.author), Class::Control),
            Message::FileWant(_) | Message::FilePart(_) => (None, Class::Files),
            _ => (None, if is_asked { Class::History } else { Class::Control }),
        };
        let before = self.entries.iter().filter(|it| {
            let is_tied = author.is_none() || it.author.is_none() || it.author == author;
            is_tied && it.class != Class::Files
        });
        let class = before.map(|it| it.class).max().map_or(own, |class| class.max(own));
        self.bytes += len;
        self.entries.push_back(Entry { class, author, len, message });
    }

    fn next_at(&self, may: impl Fn(&AuthorId) -> bool) -> Option<usize> {
        let allowed = |entry: &Entry| entry.author.as_ref().is_none_or(&may);
        let entries = self.entries.iter().enumerate().filter(|(_, entry)| allowed(entry));
        entries.min_by_key(|(at, entry)| (entry.class, *at)).map(|(at, _)| at)
    }

    /// What goes next, where some authors have to wait.
    pub(super) fn next(&self, may: impl Fn(&AuthorId) -> bool) -> Option<&Entry> {
        self.next_at(may).and_then(|at| self.entries.get(at))
    }

    /// Takes what goes next.
    pub(super) fn take(&mut self, may: impl Fn(&AuthorId) -> bool) -> Option<Entry> {
        let entry = self.entries.remove(self.next_at(may)?)?;
        self.bytes -= entry.len;
        Some(entry)
    }

    /// The authors of whom something waits.
    pub(super) fn authors(&self) -> impl Iterator<Item = &AuthorId> {
        self.entries.iter().filter_map(|entry| entry.author.as_ref())
    }

    pub(super) fn count(&self, queued: &mut Queued) {
        for entry in &self.entries {
            let waiting = queued.of(entry.class);
            waiting.events += entry.events();
            waiting.bytes += entry.len as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use mosaik_core::{
        event::{Hasher, Kind, Payload},
        feed::Tip,
        hlc::Hlc,
        id::{EventId, Fingerprint},
        run::{self, chain},
    };
    use mosaik_proto::message::FilePart;

    use super::*;

    fn written(of: u8, kind: &str) -> Message {
        let kind = Kind::new(kind).expect("a kind");
        let (hlc, payload) = (Hlc::new(1_790_000_000_000, 0), Payload::Present(vec![of]));
        let entry = run::Entry { hlc, kind, payload };
        let hasher = Hasher::new(&Fingerprint([3; 32]));
        let events = chain(&hasher, author(of), 1, EventId::ZERO, vec![entry]);
        Message::Run(VerifiedRun::sign(&SigningKey::from_bytes(&[of; 32]), events))
    }

    fn author(of: u8) -> AuthorId {
        AuthorId(SigningKey::from_bytes(&[of; 32]).verifying_key().to_bytes())
    }

    fn have(of: u8) -> Message {
        Message::Have(author(of), Tip { seq: 1, id: EventId([of; 32]) })
    }

    /// Pushes (message, asked); gives the order in which they go.
    fn order(messages: Vec<(Message, bool)>) -> Vec<Message> {
        let mut queue = Queue::default();
        let first = Kinds(vec!["alert.*".into()]);
        for (message, is_asked) in messages {
            queue.push(message, 10, is_asked, &first);
        }
        let order = std::iter::from_fn(|| queue.take(|_| true).map(|it| it.message)).collect();
        assert_eq!(queue.bytes(), 0);
        order
    }

    #[test]
    fn what_is_more_urgent_goes_first() {
        let [history, alert, news] =
            [written(1, "reading"), written(2, "alert.fire"), written(3, "reading")];
        let pushed = vec![
            (history.clone(), true),
            (alert.clone(), true),
            (news.clone(), false),
            (have(4), false),
        ];
        assert_eq!(order(pushed), [have(4), news, alert, history]);
    }

    #[test]
    fn what_is_said_of_one_author_keeps_its_order() {
        let [old, new, other] =
            [written(1, "reading"), written(1, "alert.fire"), written(2, "reading")];
        let pushed = vec![(old.clone(), true), (new.clone(), false), (other.clone(), false)];
        assert_eq!(order(pushed), [other, old, new]);
    }

    #[test]
    fn what_is_of_no_author_overtakes_nothing_and_is_not_overtaken() {
        let [history, news] = [written(1, "reading"), written(2, "reading")];
        let root = Message::Root([7; 16]);
        let pushed = vec![(history.clone(), true), (root.clone(), false), (news.clone(), false)];
        assert_eq!(order(pushed), [history, root, news]);
    }

    #[test]
    fn files_wait_for_all_else_and_nothing_waits_for_them() {
        let slice = |of: u8| Message::FilePart(FilePart { token: 1, total: 2, bytes: vec![of] });
        let [history, news] = [written(1, "reading"), written(2, "reading")];
        let root = Message::Root([7; 16]);
        let pushed = vec![
            (slice(1), true),
            (slice(2), true),
            (history.clone(), true),
            (root.clone(), false),
            (news.clone(), false),
        ];
        assert_eq!(order(pushed), [history, root, news, slice(1), slice(2)]);
    }

    #[test]
    fn who_has_to_wait_holds_up_nobody_else() {
        let mut queue = Queue::default();
        for of in [1, 2] {
            queue.push(written(of, "reading"), 10, false, &Kinds::default());
        }
        let may = |it: &AuthorId| *it != author(1);
        assert_eq!(queue.take(may).map(|it| it.author), Some(Some(author(2))));
        assert!(queue.take(may).is_none());
        assert!(!queue.is_empty());
    }
}
