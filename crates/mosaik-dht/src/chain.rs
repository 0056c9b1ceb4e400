//! What to do with the 16 slots: which to read, whom to dial, which to take, renew and leave, when.
//!
//! Invariants:
//! - Pure: time and randomness are arguments, bytes come in as values and go out as effects.
//! - A value is acted upon when it arrives; the end of a read is needed for writing only.
//! - No write is at a seq at or below one seen in its slot, and a slot that was occupied is written
//!   with the seq that was read there (`cas`).
//! - A node holds at most one slot, and one write is under way at most.
//! - A live lease of another is left alone unless its holder can't be reached.
//!
//! Source: FORMAT.md beside this crate, section 6; BEP 44 for seq and cas.

mod board;
mod dials;
mod draw;
mod hold;
mod pace;
mod status;

use std::{fmt, net::SocketAddr, sync::Arc};

use ed25519_dalek::SigningKey;
use mosaik_core::{id::NodeId, key::SLOTS, reach::Reach};

use crate::{
    publish,
    record::{Hint, Neighbour, Record},
    slot::{SlotKeys, SlotValue},
};

use board::{Board, Seen};
use dials::DialBook;
use hold::{Held, Job};
use pace::{PEERS_ENOUGH, Pace};

pub use draw::Draw;
pub use status::{DialEnd, LastDial, SlotState, SlotStatus, Summary};

/// Live leases of others with which a chain needs no more: half of the slots stay free for those
/// who come while holders die. Those whose holders didn't answer the last dial don't count.
pub const LIVE_ENOUGH: usize = 8;

/// No seq at or above this can be written over and renewed afterwards.
///
/// A thousand below the ceiling of BEP 44's 64-bit integers: a slot that is taken lasts some renewals.
pub const SEQ_LOCKED: i64 = i64::MAX - 1000;

/// Without a DHT client the first read is tried, in vain but said, after this.
const FIRST_LOOK_MS: u64 = 5_000;
/// A read or put that never answers is given up: far above any timeout of the DHT client.
const ANSWER_MS_MAX: u64 = 30_000;
/// After a claim the chain is read again this soon while there is no peer.
const LOOK_AFTER_CLAIM_MS: u64 = 1_000;
/// The same with peers.
const LOOK_AFTER_CLAIM_CALM_MS: u64 = 5_000;
/// After the last peer is lost or a holder turned out dead, likewise.
const LOOK_AFTER_LOSS_MS: u64 = 1_000;
/// After one of a few peers is lost.
const LOOK_AFTER_FEWER_MS: u64 = 60_000;

/// The time, twice: one for waiting, one for stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since some start; never goes back.
    pub mono_ms: u64,
    /// Milliseconds of the Unix epoch by this machine's clock.
    pub wall_ms: u64,
}

/// What the rest of the node knows and the chain goes by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Situation {
    /// Peers with an open session.
    pub peers: usize,
    /// This node's relays.
    pub relays: Vec<String>,
    /// This node's addresses, of any kind; what may not be published is left out here.
    pub addresses: Vec<SocketAddr>,
    /// Live peers to name in the record, best first.
    pub neighbours: Vec<Neighbour>,
    /// What to add to this machine's clock: the peers' median, as far as there are peers.
    pub clock_offset_ms: i64,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// The DHT client runs (again): reads at once.
    DhtUp,
    /// A storage node gave a value, which arrived in a read under way.
    Value {
        /// Of which slot.
        slot: u8,
        /// What it gave.
        value: SlotValue,
    },
    /// A read came to its end.
    ReadEnded {
        /// Of which slot.
        slot: u8,
        /// How many storage nodes answered, with a value or without.
        answered: u32,
    },
    /// A put was acknowledged by at least one node.
    PutOk {
        /// Into which slot.
        slot: u8,
        /// At which seq.
        seq: i64,
    },
    /// A put was refused by most nodes, or none answered. Some may have stored it all the same.
    PutFailed {
        /// Into which slot.
        slot: u8,
        /// At which seq.
        seq: i64,
        /// Whether they refused it for another value: by `cas`, or by seq.
        refused: bool,
    },
    /// The node's situation is now this.
    Situation(Situation),
    /// A node could not be reached.
    DialFailed(NodeId),
    /// A session with a node was authenticated.
    SessionUp(NodeId),
    /// A session with a node broke, without a farewell.
    SessionBroke(NodeId),
    /// Somebody wants to know now.
    Look,
    /// The node stops: leave a tombstone.
    Leave,
}

/// What must be done.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Read these slots, all at once.
    Read(Vec<u8>),
    /// Write a slot.
    Put {
        /// Which.
        slot: u8,
        /// What.
        value: SlotValue,
        /// The seq that storage nodes must hold for it.
        cas: Option<i64>,
    },
    /// Somebody to dial.
    Found(Candidate),
    /// The status changed in a way that a person may want to see.
    Changed,
    /// A slot's holder was dialed: a person may want to see how that ended.
    HolderDialed,
    /// After [`Input::Leave`]: nothing more will come.
    Over,
}

/// A node that holds or held a slot, by a good and live lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// Its relays, as far as they may be dialed.
    pub relays: Vec<String>,
    /// Its addresses, as far as they may be dialed.
    pub addresses: Vec<SocketAddr>,
    /// Nodes that it names. Hearsay, outside the lease.
    pub neighbours: Vec<Neighbour>,
    /// Where it was found.
    pub slot: u8,
}

/// A read of all slots.
#[derive(Debug, Clone, Copy)]
struct Round {
    pending: u16,
    answered: bool,
}

/// The state machine of one node's chain.
pub struct Chain {
    keys: SlotKeys,
    key: SigningKey,
    node: NodeId,
    reach: Reach,
    situation: Situation,
    boards: [Board; SLOTS],
    round: Option<Round>,
    next_read_ms: u64,
    answering: bool,
    /// Answered reads of all slots so far.
    rounds: u32,
    pace: Pace,
    dials: DialBook,
    held: Option<Held>,
    job: Job,
    claim_not_before_ms: u64,
    /// When the last writes began, the newest last.
    writes_ms: [Option<u64>; hold::WRITES_MAX],
    /// Slots lost in a row: the exponent of the back-off.
    losses: u32,
    /// See [`Chain::conflicts`].
    conflicts: u64,
}

impl Chain {
    /// A chain of which nothing is known. Its first read is due at [`Input::DhtUp`].
    pub fn new(keys: SlotKeys, key: SigningKey, reach: Reach) -> Self {
        Self {
            keys,
            node: NodeId(key.verifying_key().to_bytes()),
            key,
            reach,
            situation: Situation::default(),
            boards: std::array::from_fn(|_| Board::default()),
            round: None,
            next_read_ms: FIRST_LOOK_MS,
            answering: false,
            rounds: 0,
            pace: Pace::default(),
            dials: DialBook::default(),
            held: None,
            job: Job::Idle,
            claim_not_before_ms: 0,
            writes_ms: [None; hold::WRITES_MAX],
            losses: 0,
            conflicts: 0,
        }
    }

    /// The same, read more rarely if `metered`.
    pub fn metered(mut self, metered: bool) -> Self {
        self.pace = Pace::new(metered);
        self
    }

    /// The slot that this node holds, as far as it knows.
    pub fn held(&self) -> Option<u8> {
        self.held.as_ref().map(|held| held.slot)
    }

    /// How often another's value was in the way of ours: puts that were refused for it, and slots that
    /// were lost to it without a refusal.
    pub fn conflicts(&self) -> u64 {
        self.conflicts
    }

    /// Takes one input and appends what must be done to `effects`. Never fails.
    pub fn handle(&mut self, now: Now, draw: &mut Draw, input: Input, effects: &mut Vec<Effect>) {
        if self.job.is_leaving() {
            // A farewell waits for its answer only.
            if let Input::PutOk { slot, seq } | Input::PutFailed { slot, seq, .. } = input {
                self.on_farewell(slot, seq, effects);
            }
            return;
        }
        match input {
            Input::DhtUp | Input::Look => self.look_by(now.mono_ms),
            Input::Value { slot, value } => self.on_value(now, slot, value, effects),
            Input::ReadEnded { slot, answered } => {
                self.on_read_ended(now, draw, slot, answered > 0, effects);
            }
            Input::PutOk { slot, seq } => self.on_put_ok(now, draw, slot, seq, effects),
            Input::PutFailed { slot, seq, refused } => {
                self.on_put_failed(now, slot, seq, refused, effects);
            }
            Input::Situation(situation) => self.on_situation(now, draw, situation),
            Input::DialFailed(node) => {
                let before = (self.dials.is_dead(&node, now.mono_ms), self.live(now));
                self.dials.failed(node, now);
                self.show_if_holder(&node, effects);
                let died = !before.0 && self.dials.is_dead(&node, now.mono_ms);
                let too_few = before.1 >= LIVE_ENOUGH && self.live(now) < LIVE_ENOUGH;
                if self.held.is_none() && (died || too_few) {
                    self.look_by(now.mono_ms + draw.jittered(LOOK_AFTER_LOSS_MS));
                }
            }
            Input::SessionUp(node) => {
                self.dials.up(node, now);
                self.show_if_holder(&node, effects);
            }
            Input::SessionBroke(node) => self.dials.broke(node, now.mono_ms),
            Input::Leave => self.on_leave(now, draw, effects),
        }
        self.handle_timeout(now, draw, effects);
    }

    /// When [`Chain::handle_timeout`] wants to be called at the latest.
    pub fn next_timeout_ms(&self) -> Option<u64> {
        let reads = self.boards.iter().filter_map(Board::reading_until_ms);
        let round = match self.round {
            None if self.job.is_leaving() => None,
            None => Some(self.next_read_ms),
            Some(_) => None,
        };
        reads.chain(round).chain(self.write_timeout_ms()).min()
    }

    /// Does what has come due.
    pub fn handle_timeout(&mut self, now: Now, draw: &mut Draw, effects: &mut Vec<Effect>) {
        for slot in 0..SLOTS as u8 {
            if self.board(slot).reading_until_ms().is_some_and(|until_ms| until_ms <= now.mono_ms) {
                self.on_read_ended(now, draw, slot, false, effects);
            }
        }
        self.write_if_due(now, draw, effects);
        if self.round.is_none() && !self.job.is_leaving() && self.next_read_ms <= now.mono_ms {
            self.round = Some(Round { pending: u16::MAX, answered: false });
            let idle = |&slot: &u8| !self.board(slot).is_reading();
            let slots: Vec<u8> = (0..SLOTS as u8).filter(idle).collect();
            self.read(now, slots, effects);
        }
    }

    /// All slots as they were last read.
    pub fn slots(&self, now: Now) -> Vec<SlotStatus> {
        let status = |slot| {
            let board = self.board(slot);
            let top = board.top();
            let record = top.and_then(|seen| seen.record());
            SlotStatus {
                slot,
                state: self.state(now, slot),
                holder: record.map(|record| record.node),
                issued_ms: record.map(|record| record.lease.issued_s.saturating_mul(1000)),
                expires_ms: record.map(|record| record.lease.expires_s.saturating_mul(1000)),
                relays: record.map_or_else(Vec::new, |record| record.relays.clone()),
                addresses: record.map_or_else(Vec::new, |record| record.addresses.clone()),
                seq: top.map(|seen| seen.seq),
                read_ago_ms: board.read_ms.map(|at_ms| now.mono_ms.saturating_sub(at_ms)),
                refused: top.and_then(|seen| seen.verdict.as_ref().err()).map(ToString::to_string),
                last_dial: record.and_then(|record| self.dials.last_dial(&record.node)),
            }
        };
        (0..SLOTS as u8).map(status).collect()
    }

    /// The chain in a few figures.
    pub fn summary(&self, now: Now) -> Summary {
        let mut summary = Summary {
            unknown: 0,
            empty: 0,
            live: 0,
            other: 0,
            held: self.held(),
            answering: self.answering,
            next_look_ms: match self.round {
                Some(_) => 0,
                None => self.next_read_ms.saturating_sub(now.mono_ms),
            },
        };
        for slot in (0..SLOTS as u8).filter(|&slot| self.held() != Some(slot)) {
            match self.state(now, slot) {
                SlotState::Unknown => summary.unknown += 1,
                SlotState::Empty | SlotState::Left => summary.empty += 1,
                SlotState::Live => summary.live += 1,
                _ => summary.other += 1,
            }
        }
        summary
    }

    fn on_value(&mut self, now: Now, slot: u8, value: SlotValue, effects: &mut Vec<Effect>) {
        let Some(board) = self.boards.get_mut(usize::from(slot)) else { return };
        let Some((seen, new)) = board.take(&self.keys, slot, value) else { return };
        let Some(record) = seen.record() else { return };
        self.dials.leased(record.node, record.lease.issued_s);
        // Once there are enough peers, only what wasn't there before is news.
        let wanted = new || self.situation.peers < PEERS_ENOUGH;
        if wanted && record.lease.is_live(self.own_clock_s(now)) {
            effects.extend(self.candidate(slot, record).map(Effect::Found));
        }
    }

    fn on_read_ended(
        &mut self,
        now: Now,
        draw: &mut Draw,
        slot: u8,
        answered: bool,
        effects: &mut Vec<Effect>,
    ) {
        match self.boards.get_mut(usize::from(slot)) {
            Some(board) if board.is_reading() => board.end(answered),
            _ => return,
        }
        self.on_slot_read(now, draw, slot, answered, effects);
        if let Some(round) = &mut self.round {
            round.pending &= !(1 << slot);
            round.answered |= answered;
            if round.pending == 0 {
                let answered = round.answered;
                self.round = None;
                self.on_round_ended(now, draw, answered, effects);
            }
        }
    }

    fn on_round_ended(
        &mut self,
        now: Now,
        draw: &mut Draw,
        answered: bool,
        effects: &mut Vec<Effect>,
    ) {
        self.answering = answered;
        // Without an answer the peers are no reason to wait: nobody was asked.
        let peers = if answered { self.situation.peers } else { 0 };
        self.next_read_ms = now.mono_ms + draw.jittered(self.pace.after_read(peers));
        if answered {
            self.rounds = self.rounds.saturating_add(1);
            self.find_by_newest_lease(now, effects);
            self.review(now, draw, effects);
        }
        if self.held.is_none() && now.mono_ms < self.claim_not_before_ms {
            self.look_by(self.claim_not_before_ms);
        }
        effects.push(Effect::Changed);
    }

    fn on_situation(&mut self, now: Now, draw: &mut Draw, situation: Situation) {
        let (before, after) = (self.situation.peers, situation.peers);
        self.situation = situation;
        if after < before && after < PEERS_ENOUGH {
            self.pace.reset();
            let wait_ms = if after == 0 { LOOK_AFTER_LOSS_MS } else { LOOK_AFTER_FEWER_MS };
            self.look_by(now.mono_ms + draw.jittered(wait_ms));
        }
        self.note_addresses(now);
    }

    /// If no lease is live by this machine's clock while some are good, the clock may be wrong:
    /// those that are live at the newest `issued` are found after all.
    fn find_by_newest_lease(&self, now: Now, effects: &mut Vec<Effect>) {
        let (own_s, clock_s) = (self.own_clock_s(now), self.clock_s(now));
        if own_s == clock_s {
            return;
        }
        for slot in 0..SLOTS as u8 {
            for record in self.board(slot).values().iter().filter_map(|seen| seen.record()) {
                if record.lease.is_live(clock_s) {
                    effects.extend(self.candidate(slot, record).map(Effect::Found));
                }
            }
        }
    }

    /// A dial of `node` has ended.
    fn show_if_holder(&self, node: &NodeId, effects: &mut Vec<Effect>) {
        let mut records = self.boards.iter().filter_map(|board| board.top()?.record());
        if records.any(|record| record.node == *node) {
            effects.push(Effect::HolderDialed);
        }
    }

    /// Starts a read of some slots.
    fn read(&mut self, now: Now, slots: Vec<u8>, effects: &mut Vec<Effect>) {
        for &slot in &slots {
            let until_ms = now.mono_ms + ANSWER_MS_MAX;
            self.boards[usize::from(slot)].begin(now.mono_ms, until_ms);
        }
        if !slots.is_empty() {
            effects.push(Effect::Read(slots));
        }
    }

    fn look_by(&mut self, at_ms: u64) {
        self.next_read_ms = self.next_read_ms.min(at_ms);
    }

    fn board(&self, slot: u8) -> &Board {
        &self.boards[usize::from(slot)]
    }

    fn top(&self, slot: u8) -> Option<&Arc<Seen>> {
        self.board(slot).top()
    }

    /// What is worth dialing of a record, if it is another's.
    fn candidate(&self, slot: u8, record: &Record) -> Option<Candidate> {
        if record.node == self.node {
            return None;
        }
        let relays = record.relays.iter().filter(|url| publish::allows_relay(self.reach, url));
        let addresses = record.addresses.iter().filter(|address| self.reach.allows(address));
        let candidate = Candidate {
            node: record.node,
            relays: relays.take(crate::publish::ADDRESSES_MAX).cloned().collect(),
            addresses: addresses.take(crate::publish::ADDRESSES_MAX).copied().collect(),
            neighbours: self.dialable(&record.neighbours),
            slot,
        };
        let Candidate { relays, addresses, neighbours, .. } = &candidate;
        let empty = relays.is_empty() && addresses.is_empty() && neighbours.is_empty();
        (!empty).then_some(candidate)
    }

    /// The neighbours, other than this node, whose hints may be published and dialed.
    fn dialable(&self, neighbours: &[Neighbour]) -> Vec<Neighbour> {
        let may = |neighbour: &&Neighbour| match &neighbour.hint {
            _ if neighbour.node == self.node => false,
            Hint::Address(address) => self.reach.allows(address),
            Hint::Relay(_) => neighbour
                .hint
                .relay_url()
                .is_some_and(|url| publish::allows_relay(self.reach, &url)),
        };
        neighbours.iter().filter(may).cloned().collect()
    }

    fn state(&self, now: Now, slot: u8) -> SlotState {
        let board = self.board(slot);
        let Some(top) = board.top() else {
            return if board.read_ms.is_some() { SlotState::Empty } else { SlotState::Unknown };
        };
        let clock_s = self.clock_s(now);
        match &top.verdict {
            Ok(record) if record.node == self.node && record.lease.is_live(clock_s) => {
                SlotState::Mine
            }
            _ if board.seq_max >= Some(SEQ_LOCKED) => SlotState::Locked,
            Err(error) if error.is_forgery() => SlotState::Forged,
            Err(_) => SlotState::Foreign,
            Ok(record) if record.lease.is_tombstone() => SlotState::Left,
            Ok(record) if !record.lease.is_live(clock_s) => SlotState::Expired,
            Ok(record) if self.dials.is_dead(&record.node, now.mono_ms) => SlotState::Dead,
            Ok(_) => SlotState::Live,
        }
    }

    /// Unix seconds by this machine's clock and what the peers made of it.
    fn own_clock_s(&self, now: Now) -> u64 {
        now.wall_ms.saturating_add_signed(self.situation.clock_offset_ms) / 1000
    }

    /// Unix seconds for reading leases: the own clock, unless no lease is live by it while some are
    /// good, and no peer vouches for it; then the newest `issued`.
    fn clock_s(&self, now: Now) -> u64 {
        let own_s = self.own_clock_s(now);
        if self.situation.peers > 0 {
            return own_s;
        }
        let records = self
            .boards
            .iter()
            .flat_map(|board| board.values().iter().filter_map(|seen| seen.record()));
        let leases = records.filter(|record| record.node != self.node).map(|record| &record.lease);
        let mut newest_s = None;
        for lease in leases.filter(|lease| !lease.is_tombstone()) {
            if lease.is_live(own_s) {
                return own_s;
            }
            newest_s = newest_s.max(Some(lease.issued_s));
        }
        newest_s.unwrap_or(own_s)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain")
            .field("node", &self.node)
            .field("held", &self.held())
            .field("next_read_ms", &self.next_read_ms)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
