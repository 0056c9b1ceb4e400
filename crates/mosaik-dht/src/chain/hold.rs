//! The writing half of the chain: taking a slot, keeping it, losing it, leaving it.

use std::sync::Arc;

use mosaik_core::key::SLOTS;

use super::{
    ANSWER_MS_MAX, Chain, Draw, Effect, LIVE_ENOUGH, LOOK_AFTER_CLAIM_CALM_MS, LOOK_AFTER_CLAIM_MS,
    Now, SEQ_LOCKED, SlotState, board::Seen,
};
use crate::{
    lease, publish,
    record::{self, Draft, Record},
    slot::{self, SlotValue},
};

/// Seconds that a lease of ours lasts: two renewals may fail before it is void.
const LEASE_S: u64 = 3600;
/// A slot is renewed this long after its last write, and up to [`RENEW_SPREAD_MS`] later.
const RENEW_MS: u64 = 20 * 60_000;
const RENEW_SPREAD_MS: u64 = 10 * 60_000;
/// A renewal that could not be decided, because no storage node answered, is tried again so late,
/// and so is a tombstone over a second slot of ours.
const RENEW_AGAIN_MS: u64 = 30_000;
/// Changed addresses are written when they have been still for this long,
const CHANGE_STILL_MS: u64 = 3_000;
/// but not later than this, so that with the read before it they are out within 10 s,
const CHANGE_MS_MAX: u64 = 6_000;
/// and a slot is not written more often than once a minute.
const WRITE_APART_MS: u64 = 60_000;
/// Writes of a node in any minute, whatever slots it wins and loses; a farewell comes on top.
pub(super) const WRITES_MAX: usize = 3;
/// Reads of all slots after which nobody waits any longer for the slots that got no answer: an own
/// lease of an earlier run may stand there, or a neighbour's.
const UNKNOWN_ROUNDS: u32 = 3;
/// After a lost slot: at least this long until the next try,
const BACK_OFF_MS_MIN: u64 = 1_000;
/// and up to this much longer, doubled with each loss in a row (full jitter),
const BACK_OFF_MS: u64 = 2_000;
/// at most to this.
const BACK_OFF_MS_MAX: u64 = 60_000;

/// A slot that is ours by our last knowledge.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) slot: u8,
    seq: i64,
    digest: [u8; 32],
    /// Digest of the relays and addresses that were to stand in it, whether all of them fit or not.
    addresses: [u8; 32],
    put_ms: u64,
    renew_ms: u64,
    /// Since when the addresses differ from those, and when to write them.
    change: Option<Change>,
    /// What storage nodes said yes to, until a read has shown it or it is put once more.
    unseen: Option<Unseen>,
}

/// A value that is out there by the word of storage nodes alone.
#[derive(Debug)]
struct Unseen {
    value: SlotValue,
    superseded: Vec<[u8; 32]>,
}

#[derive(Debug, Clone, Copy)]
struct Change {
    since_ms: u64,
    write_ms: u64,
}

impl Held {
    fn due_ms(&self) -> u64 {
        self.change.map_or(self.renew_ms, |change| change.write_ms.min(self.renew_ms))
    }

    #[cfg(test)]
    pub(super) fn has_change(&self) -> bool {
        self.change.is_some()
    }

    pub(super) fn postpone(&mut self, until_ms: u64) {
        self.renew_ms = until_ms;
        if let Some(change) = &mut self.change {
            change.write_ms = until_ms;
        }
    }
}

/// The write that is under way.
#[derive(Debug)]
pub(super) enum Job {
    Idle,
    /// The own slot is read before it is renewed.
    Checking {
        slot: u8,
    },
    /// A put waits for its answer.
    Putting {
        put: Put,
        until_ms: u64,
    },
    /// The put failed, which decides nothing: the slot is read again. `again`: a read that began
    /// before the put failed has to end first.
    Settling {
        put: Put,
        again: bool,
    },
    /// The tombstone waits for its answer, or there was none to write.
    Leaving {
        slot: u8,
        seq: i64,
        until_ms: u64,
    },
    Left,
}

impl Job {
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self, Self::Leaving { .. } | Self::Left)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Claim or renewal.
    Hold,
    /// A second slot of ours gets a tombstone.
    Release,
}

#[derive(Debug)]
pub(super) struct Put {
    slot: u8,
    value: SlotValue,
    digest: [u8; 32],
    /// As in [`Held`].
    addresses: [u8; 32],
    /// Digests of the values that were there before.
    superseded: Vec<[u8; 32]>,
    purpose: Purpose,
    retried: bool,
    /// Whether storage nodes refused it for another value.
    refused: bool,
}

impl Chain {
    pub(super) fn write_timeout_ms(&self) -> Option<u64> {
        match &self.job {
            Job::Idle => self.held.as_ref().map(Held::due_ms),
            Job::Putting { until_ms, .. } | Job::Leaving { until_ms, .. } => Some(*until_ms),
            Job::Checking { .. } | Job::Settling { .. } | Job::Left => None,
        }
    }

    pub(super) fn write_if_due(&mut self, now: Now, draw: &mut Draw, effects: &mut Vec<Effect>) {
        match &self.job {
            Job::Idle => {
                let Some(held) = self.held.as_mut().filter(|held| held.due_ms() <= now.mono_ms)
                else {
                    return;
                };
                let slot = held.slot;
                if !self.has_addresses() {
                    let again_ms = now.mono_ms + draw.jittered(RENEW_AGAIN_MS);
                    self.postpone(again_ms);
                    return;
                }
                self.job = Job::Checking { slot };
                // A read under way serves as well: it is judged by seq when it ends.
                if !self.board(slot).is_reading() {
                    self.read(now, vec![slot], effects);
                }
            }
            &Job::Putting { ref put, until_ms } if until_ms <= now.mono_ms => {
                let (slot, seq) = (put.slot, put.value.seq);
                self.on_put_failed(now, slot, seq, false, effects);
            }
            &Job::Leaving { slot, seq, until_ms } if until_ms <= now.mono_ms => {
                self.on_farewell(slot, seq, effects);
            }
            Job::Checking { .. } | Job::Putting { .. } | Job::Settling { .. } => {}
            Job::Leaving { .. } | Job::Left => {}
        }
    }

    /// A slot's read ended: goes on with the write that waited for it.
    pub(super) fn on_slot_read(
        &mut self,
        now: Now,
        draw: &mut Draw,
        slot: u8,
        answered: bool,
        effects: &mut Vec<Effect>,
    ) {
        match std::mem::replace(&mut self.job, Job::Idle) {
            Job::Checking { slot: checked } if checked == slot => {
                self.renew(now, draw, slot, answered, effects);
            }
            Job::Settling { put, again } if put.slot == slot => {
                if again {
                    self.job = Job::Settling { put, again: false };
                    self.read(now, vec![slot], effects);
                } else {
                    self.settle(now, draw, put, answered, effects);
                }
            }
            job => self.job = job,
        }
    }

    pub(super) fn on_put_ok(
        &mut self,
        now: Now,
        draw: &mut Draw,
        slot: u8,
        seq: i64,
        effects: &mut Vec<Effect>,
    ) {
        match std::mem::replace(&mut self.job, Job::Idle) {
            Job::Putting { put, .. } if put.is(slot, seq) => self.stored(now, draw, put, effects),
            job => self.job = job,
        }
    }

    pub(super) fn on_put_failed(
        &mut self,
        now: Now,
        slot: u8,
        seq: i64,
        refused: bool,
        effects: &mut Vec<Effect>,
    ) {
        match std::mem::replace(&mut self.job, Job::Idle) {
            Job::Putting { mut put, .. } if put.is(slot, seq) => {
                self.conflicts += u64::from(refused);
                put.refused |= refused;
                if put.purpose == Purpose::Release {
                    return self.look_by(now.mono_ms + RENEW_AGAIN_MS);
                }
                let again = self.board(slot).is_reading();
                self.job = Job::Settling { put, again };
                if !again {
                    self.read(now, vec![slot], effects);
                }
            }
            job => self.job = job,
        }
    }

    pub(super) fn on_leave(&mut self, now: Now, draw: &mut Draw, effects: &mut Vec<Effect>) {
        let under_way = match &self.job {
            Job::Putting { put, .. } | Job::Settling { put, .. }
                if put.purpose == Purpose::Hold =>
            {
                Some((put.slot, put.value.seq))
            }
            _ => None,
        };
        let held = self.held.as_ref().map(|held| (held.slot, held.seq));
        let tombstone = under_way.or(held).and_then(|(slot, seq)| {
            let value = self.write(now, draw, slot, false)?;
            Some((slot, seq, value))
        });
        self.held = None;
        self.job = match tombstone {
            None => {
                effects.push(Effect::Over);
                Job::Left
            }
            Some((slot, cas, value)) => {
                let (seq, until_ms) = (value.seq, now.mono_ms + ANSWER_MS_MAX);
                effects.push(Effect::Put { slot, value, cas: Some(cas) });
                Job::Leaving { slot, seq, until_ms }
            }
        };
    }

    /// The tombstone was answered: with a yes or a no, there is nothing more to do.
    pub(super) fn on_farewell(&mut self, slot: u8, seq: i64, effects: &mut Vec<Effect>) {
        if matches!(self.job, Job::Leaving { slot: s, seq: q, .. } if (s, q) == (slot, seq)) {
            self.job = Job::Left;
            effects.push(Effect::Over);
        }
    }

    /// The situation changed: if our addresses are others than those in the slot, they are written
    /// when they have settled.
    pub(super) fn note_addresses(&mut self, now: Now) {
        let addresses = self.addresses_digest();
        let Some(held) = &mut self.held else { return };
        if held.addresses == addresses {
            held.change = None;
            return;
        }
        let since_ms = held.change.map_or(now.mono_ms, |change| change.since_ms);
        let settled_ms = (now.mono_ms + CHANGE_STILL_MS).min(since_ms + CHANGE_MS_MAX);
        let write_ms = settled_ms.max(held.put_ms + WRITE_APART_MS);
        held.change = Some(Change { since_ms, write_ms });
    }

    /// All slots have been read: is ours still ours, do we hold one too many, or do we need one?
    pub(super) fn review(&mut self, now: Now, draw: &mut Draw, effects: &mut Vec<Effect>) {
        if !matches!(self.job, Job::Idle) {
            // The usual wait may be an hour; so long a second slot would be kept from others.
            if self.mine(now).any(|slot| self.held() != Some(slot)) {
                self.look_by(now.mono_ms + RENEW_AGAIN_MS);
            }
            return;
        }
        if self.review_held(now, draw, effects) {
            return;
        }
        if self.review_others(now, draw, effects) || self.held.is_some() {
            return;
        }
        let is_unknown = |&slot: &u8| self.state(now, slot) == SlotState::Unknown;
        let unknown = (0..SLOTS as u8).filter(is_unknown).count();
        let known = unknown == 0 || self.rounds >= UNKNOWN_ROUNDS;
        let may = known
            && self.claim_not_before_ms <= now.mono_ms
            && self.may_write(now)
            && self.has_addresses();
        if may
            && self.live(now) < LIVE_ENOUGH
            && let Some(slot) = self.choose(now)
        {
            self.put(now, draw, slot, Purpose::Hold, effects);
        }
    }

    /// Slots with a live lease of another that answered when it was last dialed, or was not dialed yet.
    pub(super) fn live(&self, now: Now) -> usize {
        let is_live = |&slot: &u8| {
            let holder = self.board(slot).top().and_then(|seen| seen.record());
            self.state(now, slot) == SlotState::Live
                && !holder.is_some_and(|record| self.dials.is_doubtful(&record.node))
        };
        (0..SLOTS as u8).filter(is_live).count()
    }

    /// Whether our slot is still ours. True if it was put again.
    fn review_held(&mut self, now: Now, draw: &mut Draw, effects: &mut Vec<Effect>) -> bool {
        let may_write = self.may_write(now);
        let Some(held) = &mut self.held else { return false };
        let (slot, digest, seq) = (held.slot, held.digest, held.seq);
        let board = &self.boards[usize::from(slot)];
        if board.read_ms.is_none_or(|read_ms| read_ms < held.put_ms) {
            return false; // That read began before our write.
        }
        let unseen = held.unseen.take();
        let top = board.top().cloned();
        match top {
            Some(top) if top.digest == digest => {}
            Some(top) if top.seq >= seq => {
                match top.record().filter(|record| record.node == self.node) {
                    // Written by another copy of this node: one slot serves both.
                    Some(record) if !record.lease.is_tombstone() => self.adopt(now, slot, &top),
                    _ => {
                        self.conflicts += 1;
                        self.lose(now, draw);
                    }
                }
            }
            // Storage nodes have forgotten it, or never took it.
            _ => {
                held.renew_ms = held.renew_ms.min(held.put_ms + WRITE_APART_MS);
                let known =
                    |seen: &Arc<Seen>, unseen: &Unseen| unseen.superseded.contains(&seen.digest);
                let all_known =
                    |unseen: &Unseen| board.values().iter().all(|seen| known(seen, unseen));
                if let Some(unseen) = unseen.filter(|unseen| may_write && all_known(unseen)) {
                    self.put_again(now, unseen, effects);
                    return true;
                }
            }
        }
        false
    }

    /// Those that said yes to our value don't have it: the same once more. At the same seq it changes
    /// nothing where it is, and without cas it needs no agreement on what was there.
    fn put_again(&mut self, now: Now, unseen: Unseen, effects: &mut Vec<Effect>) {
        let Some(held) = &self.held else { return };
        let Unseen { value, superseded } = unseen;
        let put = Put {
            slot: held.slot,
            digest: held.digest,
            value,
            addresses: held.addresses,
            superseded,
            purpose: Purpose::Hold,
            retried: true,
            refused: false,
        };
        self.begin_put(now, put, None, effects);
    }

    /// Slots with a live lease of ours.
    fn mine(&self, now: Now) -> impl Iterator<Item = u8> {
        (0..SLOTS as u8).filter(move |&slot| self.state(now, slot) == SlotState::Mine)
    }

    /// Other slots with a live lease of ours: an earlier run's, or another copy's of this node. The
    /// newest counts, others are given up. True if that took the one write that may be under way.
    fn review_others(&mut self, now: Now, draw: &mut Draw, effects: &mut Vec<Effect>) -> bool {
        let mut mine: Vec<(u8, Arc<Seen>)> =
            self.mine(now).filter_map(|slot| Some((slot, self.top(slot)?.clone()))).collect();
        mine.sort_by_key(|(_, top)| top.seq);
        if let Some((slot, top)) = mine.last()
            && self.held.as_ref().is_none_or(|held| held.slot != *slot && held.seq < top.seq)
        {
            self.adopt(now, *slot, top);
        }
        let surplus = mine.iter().find(|(slot, _)| self.held() != Some(*slot));
        let Some((slot, _)) = surplus else { return false };
        match self.may_write_ms() {
            may_ms if may_ms <= now.mono_ms => {
                self.put(now, draw, *slot, Purpose::Release, effects);
            }
            may_ms => self.look_by(may_ms),
        }
        true
    }

    /// Takes a slot for ours that already carries our lease; it is renewed at once.
    fn adopt(&mut self, now: Now, slot: u8, top: &Arc<Seen>) {
        let Some(record) = top.record() else { return };
        let same_slot = self.held.as_ref().filter(|held| held.slot == slot);
        self.held = Some(Held {
            slot,
            seq: top.seq,
            digest: top.digest,
            addresses: digest(record),
            put_ms: same_slot.map_or(now.mono_ms, |held| held.put_ms),
            renew_ms: same_slot.map_or(now.mono_ms, |held| held.renew_ms),
            change: None,
            unseen: None,
        });
        self.note_addresses(now);
    }

    /// The slot to take: the preferred one of the free, else of those whose holders are dead.
    fn choose(&self, now: Now) -> Option<u8> {
        let preferred = |wanted: &dyn Fn(SlotState) -> bool| {
            (0..SLOTS as u8)
                .filter(|&slot| wanted(self.state(now, slot)))
                .min_by_key(|&slot| slot::preference(&self.node, slot))
        };
        preferred(&SlotState::is_free).or_else(|| preferred(&|state| state == SlotState::Dead))
    }

    /// The own slot was read before its renewal.
    fn renew(
        &mut self,
        now: Now,
        draw: &mut Draw,
        slot: u8,
        answered: bool,
        effects: &mut Vec<Effect>,
    ) {
        if !answered || !self.may_write(now) {
            return self.postpone(now.mono_ms + draw.jittered(RENEW_AGAIN_MS));
        }
        let Some(held) = &self.held else { return };
        let newer = self.top(slot).filter(|top| top.seq >= held.seq && top.digest != held.digest);
        let theirs =
            newer.is_some() && matches!(self.state(now, slot), SlotState::Live | SlotState::Locked);
        if theirs || held.slot != slot {
            self.conflicts += u64::from(theirs);
            return self.lose(now, draw);
        }
        self.put(now, draw, slot, Purpose::Hold, effects);
    }

    /// A failed put, and the slot read again.
    fn settle(
        &mut self,
        now: Now,
        draw: &mut Draw,
        mut put: Put,
        answered: bool,
        effects: &mut Vec<Effect>,
    ) {
        if !answered {
            // Nobody is there to be asked. What we held, we may hold still.
            self.postpone(now.mono_ms + draw.jittered(RENEW_AGAIN_MS));
            self.claim_not_before_ms = now.mono_ms + draw.jittered(BACK_OFF_MS_MIN);
            return;
        }
        let values = self.board(put.slot).values();
        let known =
            |seen: &Arc<Seen>| seen.digest == put.digest || put.superseded.contains(&seen.digest);
        let third = values.iter().any(|seen| !known(seen));
        let ours = values.last().is_some_and(|top| top.digest == put.digest);
        let ours_alone = ours && values.len() == 1;
        if third {
            self.conflicts += u64::from(!put.refused);
            self.lose(now, draw);
            effects.push(Effect::Changed);
        } else if ours_alone || (ours && put.retried) {
            self.stored(now, draw, put, effects);
        } else if !put.retried && self.may_write(now) {
            // The same value at the same seq: it changes nothing where it already is.
            put.retried = true;
            self.begin_put(now, put, None, effects);
        } else {
            self.lose(now, draw);
            effects.push(Effect::Changed);
        }
    }

    /// Our value is out there.
    fn stored(&mut self, now: Now, draw: &mut Draw, put: Put, effects: &mut Vec<Effect>) {
        let Put { slot, value, digest, addresses, superseded, purpose, retried, .. } = put;
        let seq = value.seq;
        let unseen = (!retried).then(|| Unseen { value: value.clone(), superseded });
        self.boards[usize::from(slot)].place(Arc::new(Seen::new(&self.keys, slot, value)));
        effects.push(Effect::Changed);
        if purpose == Purpose::Release {
            return;
        }
        let renewed = self.held() == Some(slot);
        if renewed {
            self.losses = 0;
        }
        if !renewed || retried {
            // Whoever began when we did wrote when we did, and a yes may be false: look again soon.
            let lonely = self.situation.peers == 0;
            let wait_ms = if lonely { LOOK_AFTER_CLAIM_MS } else { LOOK_AFTER_CLAIM_CALM_MS };
            self.look_by(now.mono_ms + draw.jittered(wait_ms));
        }
        self.held = Some(Held {
            slot,
            seq,
            digest,
            addresses,
            put_ms: now.mono_ms,
            renew_ms: now.mono_ms + RENEW_MS + draw.below(RENEW_SPREAD_MS),
            change: None,
            unseen,
        });
        self.note_addresses(now);
    }

    /// The slot is another's. Tries again after a back-off with full jitter, from a fresh read.
    pub(super) fn lose(&mut self, now: Now, draw: &mut Draw) {
        self.held = None;
        let spread_ms = (BACK_OFF_MS << self.losses.min(8)).min(BACK_OFF_MS_MAX);
        self.losses = self.losses.saturating_add(1);
        self.claim_not_before_ms = now.mono_ms + BACK_OFF_MS_MIN + draw.below(spread_ms);
        self.look_by(self.claim_not_before_ms);
    }

    /// Whether one more write is within [`WRITES_MAX`] a minute.
    fn may_write(&self, now: Now) -> bool {
        self.may_write_ms() <= now.mono_ms
    }

    fn may_write_ms(&self) -> u64 {
        self.writes_ms[0].map_or(0, |ms| ms + WRITE_APART_MS)
    }

    /// The one place where writes begin, but for a farewell: each is counted.
    fn begin_put(&mut self, now: Now, put: Put, cas: Option<i64>, effects: &mut Vec<Effect>) {
        self.writes_ms.rotate_left(1);
        self.writes_ms[WRITES_MAX - 1] = Some(now.mono_ms);
        effects.push(Effect::Put { slot: put.slot, value: put.value.clone(), cas });
        self.job = Job::Putting { put, until_ms: now.mono_ms + ANSWER_MS_MAX };
    }

    fn postpone(&mut self, until_ms: u64) {
        if let Some(held) = &mut self.held {
            held.postpone(until_ms);
        }
    }

    fn put(
        &mut self,
        now: Now,
        draw: &mut Draw,
        slot: u8,
        purpose: Purpose,
        effects: &mut Vec<Effect>,
    ) {
        let Some(value) = self.write(now, draw, slot, purpose == Purpose::Hold) else {
            return self.lose(now, draw);
        };
        let board = &mut self.boards[usize::from(slot)];
        // BEP 44: with cas a storage node takes the value only over the seq that we have seen.
        let cas = board.top().map(|top| top.seq);
        board.seq_max = board.seq_max.max(Some(value.seq));
        let superseded = board.values().iter().map(|seen| seen.digest).collect();
        let put = Put {
            slot,
            digest: value.digest(),
            value,
            addresses: self.addresses_digest(),
            superseded,
            purpose,
            retried: false,
            refused: false,
        };
        self.begin_put(now, put, cas, effects);
    }

    /// Signs our lease, or a tombstone, over all that was seen in `slot`. None if it is locked.
    fn write(&self, now: Now, draw: &mut Draw, slot: u8, live: bool) -> Option<SlotValue> {
        let board = self.board(slot);
        let next = board.seq_max.map_or(0, |seq| seq.saturating_add(1)).max(0);
        if next > SEQ_LOCKED {
            return None;
        }
        // Two nodes that write in one millisecond must not write at one seq.
        let wall_ms = now.wall_ms.saturating_add_signed(self.situation.clock_offset_ms);
        let now_us = wall_ms.saturating_mul(1000).saturating_add(draw.below(1000));
        let seq = i64::try_from(now_us).unwrap_or(0).min(SEQ_LOCKED).max(next);
        let issued_s = self.own_clock_s(now);
        let (relays, addresses) =
            publish::choose(self.reach, &self.situation.relays, &self.situation.addresses);
        let draft = Draft {
            relays,
            addresses,
            neighbours: self.dialable(&self.situation.neighbours),
            issued_s,
            expires_s: issued_s.saturating_add(if live { LEASE_S } else { 0 }),
        };
        let built = record::build(&self.keys, slot, &self.key, &draft, seq, &draw.nonce());
        built.ok().map(|(value, _)| value)
    }

    fn has_addresses(&self) -> bool {
        let (relays, addresses) =
            publish::choose(self.reach, &self.situation.relays, &self.situation.addresses);
        !(relays.is_empty() && addresses.is_empty())
    }

    /// The digest of what a lease written now would cover.
    fn addresses_digest(&self) -> [u8; 32] {
        let (mut texts, addresses) =
            publish::choose(self.reach, &self.situation.relays, &self.situation.addresses);
        texts.extend(addresses.iter().map(ToString::to_string));
        lease::digest(texts.iter().map(String::as_str))
    }
}

impl Put {
    fn is(&self, slot: u8, seq: i64) -> bool {
        self.slot == slot && self.value.seq == seq
    }
}

fn digest(record: &Record) -> [u8; 32] {
    let addresses: Vec<String> = record.addresses.iter().map(ToString::to_string).collect();
    lease::digest(record.relays.iter().chain(&addresses).map(String::as_str))
}
