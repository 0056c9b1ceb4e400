//! Events that come: checked, put in order, offered to the node.
//!
//! Invariants:
//! - Of an author whose key is known only what is signed by it goes on.
//! - What goes on continues the chain that is held, or claims a place that is taken already, which the
//!   node decides. What would leave a gap waits, in bounds.
//! - A stamp is never looked at here: one in the future is the view's to hold back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use data_encoding::HEXLOWER;
use mosaik_core::meshlog::{EventError, MeshlogEvent, MeshlogId, VerifyError, json::JsonError};

use super::{Came, Fate, Held, Offer};
use crate::stack::{Peer, PublicKeys};

/// Events of one author that wait for one before them, and of all, and their bytes.
const PENDING_AUTHOR_MAX: usize = 64;
const PENDING_MAX: usize = 512;
const PENDING_BYTES_MAX: usize = 1 << 20;
/// How long they wait, in milliseconds: who has them has what lacks too, and sends it again.
const PENDING_MS: u64 = 10 * 60 * 1000;
/// Events, and their bytes, that wait to be taken. Above, they are dropped: who has them is asked again.
const QUEUE_MAX: usize = 512;
const QUEUE_BYTES_MAX: usize = 2 << 20;
/// Events that the node is offered at once: a message's.
const OFFER_MAX: usize = 64;
/// Authors of whom no key is known: anybody can make them up. And how many come at once, and one of them
/// after each of so many milliseconds.
const STRANGERS_MAX: usize = 256;
const STRANGERS_AT_ONCE: u64 = 64;
const STRANGER_MS: u64 = 60_000;
/// Keys that are kept, at 64 bytes each.
const KEYS_MAX: usize = 4096;
/// How long an author of whom something was refused isn't asked for again; doubled each time.
const BLOCK_MS: u64 = 60_000;
const BLOCK_MAX_MS: u64 = 6 * 60 * 60 * 1000;
/// Authors that are remembered as such.
const BLOCKED_MAX: usize = 1024;

/// Why something was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Refused {
    /// It is no message.
    Malformed,
    /// It is no event.
    NoEvent,
    /// It has more bytes or more levels than an event may have.
    TooLong,
    /// It isn't signed, and its author's key is known.
    Unsigned,
    /// Its signature is not its author's.
    BadSignature,
    /// Another event stands at its place, or it follows another one than is held.
    Fork,
    /// It would be of one more author without a key than there may be.
    Strangers,
    /// It waits for one before it, and there is no room.
    PendingFull,
    /// More comes than is taken in.
    Busy,
    /// The node could not write it.
    NotWritten,
}

impl Refused {
    /// Its name, for scripts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NoEvent => "no_event",
            Self::TooLong => "too_long",
            Self::Unsigned => "unsigned",
            Self::BadSignature => "bad_signature",
            Self::Fork => "fork",
            Self::Strangers => "strangers",
            Self::PendingFull => "pending_full",
            Self::Busy => "busy",
            Self::NotWritten => "not_written",
        }
    }

    /// Whether only a broken or a hostile peer sends it.
    pub(super) fn is_peers_fault(self) -> bool {
        matches!(self, Self::Malformed | Self::NoEvent)
    }
}

/// What became of all that came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events taken whose signature is their author's.
    pub verified: u64,
    /// Events taken whose author's key isn't known.
    pub unverified: u64,
    /// Events that were here already.
    pub known: u64,
    /// Our own, translated, that came back.
    pub echoed: u64,
    /// The others, by why.
    pub refused: BTreeMap<Refused, u64>,
}

/// What of an author is on its way to the node, beyond what is held.
#[derive(Debug)]
struct Ahead {
    last: Held,
    ids: BTreeMap<u64, MeshlogId>,
}

#[derive(Debug)]
struct Waiting {
    event: Came,
    prev: Option<MeshlogId>,
    since_ms: u64,
}

#[derive(Debug)]
struct Blocked {
    until_ms: u64,
    wait_ms: u64,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Taking {
    held: BTreeMap<String, Held>,
    ahead: BTreeMap<String, Ahead>,
    keys: BTreeMap<Peer, PublicKeys>,
    pending: BTreeMap<String, BTreeMap<u64, Vec<Waiting>>>,
    pending_len: usize,
    pending_bytes: usize,
    /// With the time from which on they may be offered.
    queue: VecDeque<(u64, Came)>,
    queue_bytes: usize,
    offered: Option<(u64, Vec<(String, bool)>)>,
    blocked: BTreeMap<String, Blocked>,
    /// When the allowance for new strangers is whole again.
    strangers_ms: u64,
    pub(super) counts: Counts,
}

impl Taking {
    /// What the node holds of an author; length 0: nothing any more.
    pub(super) fn set_held(&mut self, author: String, held: Held, now_ms: u64) {
        match held.len {
            0 => drop(self.held.remove(&author)),
            _ => drop(self.held.insert(author.clone(), held)),
        }
        self.prune(&author);
        self.drain(&author, now_ms, 0);
    }

    /// What the node holds, by author.
    pub(super) fn held(&self) -> &BTreeMap<String, Held> {
        &self.held
    }

    /// How many events of an author are here or on their way to the node.
    pub(super) fn len(&self, author: &str) -> u64 {
        self.last(author).map_or(0, |last| last.len)
    }

    fn last(&self, author: &str) -> Option<Held> {
        self.ahead.get(author).map(|ahead| ahead.last).or_else(|| self.held.get(author).copied())
    }

    /// Whether an author isn't asked for now, because of what was refused.
    pub(super) fn is_blocked(&self, author: &str, now_ms: u64) -> bool {
        self.blocked.get(author).is_some_and(|blocked| blocked.until_ms > now_ms)
    }

    /// Learns whose key this is. Returns whether it is new.
    pub(super) fn learn(&mut self, keys: PublicKeys) -> bool {
        let peer = keys.peer();
        if self.keys.contains_key(&peer) {
            return false;
        }
        if self.keys.len() >= KEYS_MAX {
            let idle = self.keys.keys().find(|peer| !self.held.contains_key(&peer.to_string()));
            let Some(idle) = idle.copied() else { return false };
            self.keys.remove(&idle);
        }
        self.keys.insert(peer, keys);
        true
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &PublicKeys> {
        self.keys.values()
    }

    /// The key of an author, if its name is an identity's and that is known.
    fn key_of(&self, author: &str) -> Option<&PublicKeys> {
        let hash = HEXLOWER.decode(author.as_bytes()).ok()?;
        self.keys.get(&Peer(hash.try_into().ok()?))
    }

    /// Authors of whom something is held or comes, and no key is known.
    fn strangers(&self) -> usize {
        let ahead = self.ahead.keys().filter(|author| !self.held.contains_key(*author));
        self.held.keys().chain(ahead).filter(|author| self.is_stranger(author)).count()
    }

    fn is_stranger(&self, author: &str) -> bool {
        author.len() != 64 && self.key_of(author).is_none()
    }

    /// Takes one event in; it may be offered after `wait_ms`. Returns whether it is new, and goes on or
    /// waits for one before it.
    pub(super) fn admit(
        &mut self,
        json: &str,
        now_ms: u64,
        wait_ms: impl FnOnce(&str) -> u64,
    ) -> Result<bool, Refused> {
        let checked = self.check(json, now_ms);
        let admitted = checked.and_then(|checked| match checked {
            Some((event, prev)) => {
                let wait_ms = wait_ms(&event.author);
                self.place(event, prev, now_ms, wait_ms)
            }
            None => Ok(false),
        });
        if let Err(refused) = admitted {
            self.refuse(refused);
        }
        admitted
    }

    pub(super) fn refuse(&mut self, refused: Refused) {
        *self.counts.refused.entry(refused).or_default() += 1;
    }

    fn check(
        &mut self,
        json: &str,
        now_ms: u64,
    ) -> Result<Option<(Came, Option<MeshlogId>)>, Refused> {
        let event = MeshlogEvent::parse(json.as_bytes()).map_err(|error| match error {
            EventError::TooLong(_) | EventError::Json(JsonError::TooDeep) => Refused::TooLong,
            _ => Refused::NoEvent,
        })?;
        if event.is_translated() {
            self.counts.echoed += 1;
            return Ok(None);
        }
        let author = event.author.clone();
        let key = self.key_of(&author);
        let verified = key.map(|keys| event.verify(&keys.0)).transpose();
        let is_verified = match verified {
            Ok(verified) => verified.is_some(),
            Err(error) => {
                self.block(&author, now_ms);
                return Err(match error {
                    VerifyError::Unsigned => Refused::Unsigned,
                    _ => Refused::BadSignature,
                });
            }
        };
        if !is_verified && self.last(&author).is_none() && !self.admits_stranger(now_ms) {
            self.block(&author, now_ms);
            return Err(Refused::Strangers);
        }
        let (seq, id, prev) = (event.seq, event.id, event.prev);
        let json = json.to_owned();
        Ok(Some((Came { author, seq, id, prev, json, is_verified }, prev)))
    }

    fn admits_stranger(&mut self, now_ms: u64) -> bool {
        let full_ms = self.strangers_ms.max(now_ms) + STRANGER_MS;
        if full_ms > now_ms + STRANGERS_AT_ONCE * STRANGER_MS || self.strangers() >= STRANGERS_MAX {
            return false;
        }
        self.strangers_ms = full_ms;
        true
    }

    fn place(
        &mut self,
        event: Came,
        prev: Option<MeshlogId>,
        now_ms: u64,
        wait_ms: u64,
    ) -> Result<bool, Refused> {
        let author = event.author.clone();
        let last = self.last(&author);
        let len = last.map_or(0, |last| last.len);
        if event.seq > len + 1 {
            return self.wait(Waiting { event, prev, since_ms: now_ms });
        }
        if event.seq <= len {
            let ahead = self.ahead.get(&author).and_then(|ahead| ahead.ids.get(&event.seq));
            return match ahead {
                Some(id) if *id == event.id => {
                    self.counts.known += 1;
                    Ok(false)
                }
                Some(_) => {
                    self.block(&author, now_ms);
                    Err(Refused::Fork)
                }
                // Whether that one is held, the node knows.
                None => self.enqueue(event, now_ms, wait_ms).map(|()| false),
            };
        }
        if prev != last.map(|last| last.head) {
            self.block(&author, now_ms);
            return Err(Refused::Fork);
        }
        self.extend(event, now_ms, wait_ms)?;
        self.drain(&author, now_ms, wait_ms);
        Ok(true)
    }

    /// Appends what continues its author's chain.
    fn extend(&mut self, event: Came, now_ms: u64, wait_ms: u64) -> Result<(), Refused> {
        let (author, last) = (event.author.clone(), Held { len: event.seq, head: event.id });
        self.enqueue(event, now_ms, wait_ms)?;
        let ahead = self.ahead.entry(author).or_insert(Ahead { last, ids: BTreeMap::new() });
        ahead.last = last;
        ahead.ids.insert(last.len, last.head);
        Ok(())
    }

    fn enqueue(&mut self, event: Came, now_ms: u64, wait_ms: u64) -> Result<(), Refused> {
        let bytes = self.queue_bytes + event.json.len();
        if self.queue.len() >= QUEUE_MAX || bytes > QUEUE_BYTES_MAX {
            return Err(Refused::Busy);
        }
        self.queue_bytes = bytes;
        self.queue.push_back((now_ms + wait_ms, event));
        Ok(())
    }

    fn wait(&mut self, waiting: Waiting) -> Result<bool, Refused> {
        let Waiting { event, .. } = &waiting;
        let of_author = self.pending.get(&event.author);
        let at_place = of_author.and_then(|places| places.get(&event.seq));
        if at_place.is_some_and(|held| held.iter().any(|held| held.event.id == event.id)) {
            return Ok(false);
        }
        let count: usize = of_author.map_or(0, |places| places.values().map(Vec::len).sum());
        let bytes = self.pending_bytes + event.json.len();
        if count >= PENDING_AUTHOR_MAX
            || self.pending_len >= PENDING_MAX
            || bytes > PENDING_BYTES_MAX
        {
            return Err(Refused::PendingFull);
        }
        (self.pending_len, self.pending_bytes) = (self.pending_len + 1, bytes);
        let places = self.pending.entry(event.author.clone()).or_default();
        places.entry(event.seq).or_default().push(waiting);
        Ok(true)
    }

    /// Lets those go on that waited for what is there now, and drops those whose place is taken.
    fn drain(&mut self, author: &str, now_ms: u64, wait_ms: u64) {
        let Some(mut places) = self.pending.remove(author) else { return };
        while let Some(entry) = places.first_entry() {
            let last = self.last(author);
            let len = last.map_or(0, |last| last.len);
            if *entry.key() > len + 1 {
                break;
            }
            let (seq, all) = entry.remove_entry();
            for waiting in all {
                self.pending_len -= 1;
                self.pending_bytes -= waiting.event.json.len();
                let follows = seq == len + 1 && waiting.prev == last.map(|last| last.head);
                let is_next = follows && self.len(author) == len;
                if let Err(refused) = match is_next {
                    true => self.extend(waiting.event, now_ms, wait_ms),
                    false => Err(Refused::Fork),
                } {
                    self.refuse(refused);
                }
            }
        }
        if !places.is_empty() {
            self.pending.insert(author.to_owned(), places);
        }
    }

    /// Forgets what has waited for too long.
    pub(super) fn expire(&mut self, now_ms: u64) {
        let (mut len, mut bytes) = (self.pending_len, self.pending_bytes);
        self.pending.retain(|_, places| {
            places.retain(|_, all| {
                all.retain(|waiting| {
                    let stays = waiting.since_ms + PENDING_MS > now_ms;
                    if !stays {
                        (len, bytes) = (len - 1, bytes - waiting.event.json.len());
                    }
                    stays
                });
                !all.is_empty()
            });
            !places.is_empty()
        });
        (self.pending_len, self.pending_bytes) = (len, bytes);
    }

    /// Events that wait for others.
    pub(super) fn pending(&self) -> usize {
        self.pending_len
    }

    /// Remembers that something of this author was refused: to ask for it again soon brings the same.
    fn block(&mut self, author: &str, now_ms: u64) {
        if !self.blocked.contains_key(author) && self.blocked.len() >= BLOCKED_MAX {
            self.blocked.retain(|_, blocked| blocked.until_ms > now_ms);
            if self.blocked.len() >= BLOCKED_MAX {
                return;
            }
        }
        let blocked = self.blocked.entry(author.to_owned());
        let blocked = blocked.or_insert(Blocked { until_ms: 0, wait_ms: BLOCK_MS });
        // One message may bring many.
        if blocked.until_ms <= now_ms {
            blocked.until_ms = now_ms + blocked.wait_ms;
            blocked.wait_ms = (2 * blocked.wait_ms).min(BLOCK_MAX_MS);
        }
    }

    /// The next events for the node, if it has answered for the last.
    pub(super) fn offer(&mut self, token: u64, now_ms: u64) -> Option<Offer> {
        if self.offered.is_some() {
            return None;
        }
        let (mut events, mut rest) = (Vec::new(), VecDeque::new());
        let mut later = BTreeSet::new();
        for (due_ms, event) in std::mem::take(&mut self.queue) {
            if due_ms > now_ms || events.len() >= OFFER_MAX || later.contains(&event.author) {
                later.insert(event.author.clone());
                rest.push_back((due_ms, event));
            } else {
                events.push(event);
            }
        }
        self.queue = rest;
        self.queue_bytes = self.queue.iter().map(|(_, event)| event.json.len()).sum();
        if events.is_empty() {
            return None;
        }
        let meta = events.iter().map(|event| (event.author.clone(), event.is_verified)).collect();
        self.offered = Some((token, meta));
        Some(Offer { token, events })
    }

    /// When the next events are to be offered.
    pub(super) fn offers_at_ms(&self) -> Option<u64> {
        self.queue.iter().map(|(due_ms, _)| *due_ms).min().filter(|_| self.offered.is_none())
    }

    /// What the node did with what it was offered. What it holds now it has told before.
    pub(super) fn on_taken(&mut self, token: u64, fates: &[Fate], now_ms: u64) {
        let Some((_, meta)) = self.offered.take_if(|(offered, _)| *offered == token) else {
            return;
        };
        let fates = fates.iter().copied().chain(std::iter::repeat(Fate::NotWritten));
        for ((author, is_verified), fate) in meta.iter().zip(fates) {
            match fate {
                Fate::Taken if *is_verified => self.counts.verified += 1,
                Fate::Taken => self.counts.unverified += 1,
                Fate::Known => self.counts.known += 1,
                Fate::Fork | Fate::NotWritten => {
                    let is_fork = fate == Fate::Fork;
                    self.refuse(if is_fork { Refused::Fork } else { Refused::NotWritten });
                    self.block(author, now_ms);
                }
            }
        }
        let authors: BTreeSet<String> = meta.into_iter().map(|(author, _)| author).collect();
        for author in authors {
            self.prune(&author);
            let is_stuck = self.ahead.get(&author).is_some_and(|ahead| {
                // Its next is neither held nor on its way.
                let next = self.held.get(&author).map_or(1, |held| held.len + 1);
                let waits = |(_, event): &(u64, Came)| event.author == author && event.seq == next;
                ahead.last.len >= next && !self.queue.iter().any(waits)
            });
            if is_stuck {
                self.ahead.remove(&author);
                self.queue.retain(|(_, event)| event.author != author);
                self.queue_bytes = self.queue.iter().map(|(_, event)| event.json.len()).sum();
            }
        }
    }

    /// Forgets what was ahead of what is held and isn't any more.
    fn prune(&mut self, author: &str) {
        let len = self.held.get(author).map_or(0, |held| held.len);
        if let Some(ahead) = self.ahead.get_mut(author) {
            ahead.ids.retain(|seq, _| *seq > len);
            if ahead.ids.is_empty() {
                self.ahead.remove(author);
            }
        }
    }
}
