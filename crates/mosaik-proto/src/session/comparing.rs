//! Comparisons: when one begins, what it showed, and when all of that is here.

use std::collections::{BTreeMap, BTreeSet};

use mosaik_core::{
    feed::{Ledger, Missing, Tip},
    id::{AuthorId, EventId},
};

use super::{Again, Session, Shared, held};
use crate::{
    Fault,
    carrier::Role,
    message::{Bye, ByeCode, Items, Message},
    reconcile::Stray,
};

/// How long a comparison may stand still, in milliseconds.
pub(super) const COMPARE_TIMEOUT_MS: u64 = 60_000;

/// One comparison and what it showed.
#[derive(Debug)]
pub(super) struct Round {
    began_ms: u64,
    pub(super) moved_ms: u64,
    /// Whether it compares what the peer held when it began, or later.
    is_strict: bool,
    has_ended: bool,
    /// Tips that the peer showed and that were not held.
    pub(super) shown: BTreeSet<(AuthorId, Tip)>,
    /// Up to where what was settled since is taken off them.
    settled: u64,
    /// Payloads asked for and not yet given or lacked.
    pub(super) payloads: BTreeMap<EventId, Missing>,
    /// The last missing payload that was asked for.
    pub(super) asked_to: Option<Missing>,
    /// How many of them the peer lacks, too.
    pub(super) lacked: u64,
    /// Whether more was shown than could be noted: the next comparison shows the rest.
    is_partial: bool,
}

impl Round {
    fn is_complete(&self) -> bool {
        self.has_ended && !self.is_partial && self.shown.is_empty() && self.payloads.is_empty()
    }
}

impl Session {
    /// Whether a comparison runs, or something that it showed is still to come.
    pub(crate) fn is_syncing(&self) -> bool {
        self.round.as_ref().is_some_and(|round| !round.is_complete())
    }

    /// Whether this session has nothing to do but to wait for news.
    pub(crate) fn is_idle(&self) -> bool {
        !self.is_syncing() && self.serves.is_empty() && self.gives.is_empty()
    }

    /// When the last comparison began and whether it was strict, if all it showed is settled.
    pub(crate) fn synced(&self) -> Option<(u64, bool)> {
        let round = self.round.as_ref().filter(|round| round.is_complete())?;
        Some((round.began_ms, round.is_strict))
    }

    /// Settles what the last round showed and is here, declined or given up by now.
    pub(crate) fn settle<L: Ledger>(&mut self, shared: &Shared<'_, L>) {
        let settled = shared.asks.settled();
        if let Some(round) = self.round.as_mut().filter(|round| round.settled != settled) {
            round.settled = settled;
            // What is gone before the first that isn't can wait: none of it makes the round complete.
            while let Some((author, tip)) = round.shown.first()
                && !shared.asks.is_claimed(author, *tip)
            {
                round.shown.pop_first();
            }
        }
    }

    pub(super) fn begin_round(&mut self, now_ms: u64, is_strict: bool) {
        self.round = Some(Round {
            began_ms: now_ms,
            moved_ms: now_ms,
            is_strict,
            has_ended: false,
            shown: BTreeSet::new(),
            settled: 0,
            payloads: BTreeMap::new(),
            asked_to: None,
            lacked: 0,
            is_partial: false,
        });
    }

    /// Asks for a comparison that begins after now: the dialer begins one, the listener asks it to.
    /// While the greeting runs it is noted, to be done then.
    pub(crate) fn compare<L: Ledger>(&mut self, token: u64, shared: &mut Shared<'_, L>) {
        match self.role {
            Role::Dialer => {
                self.asked_again.get_or_insert(None);
            }
            Role::Listener => {
                self.again = Some(Again { token, at_ms: shared.now.mono_ms, is_echoed: false });
                if self.is_open() {
                    self.send(Message::Again(token), shared.effects);
                }
            }
        }
    }

    pub(super) fn on_again(&mut self, token: u64) {
        match self.role {
            Role::Dialer => self.asked_again = Some(Some(token)),
            Role::Listener => {
                if let Some(again) = self.again.as_mut().filter(|again| again.token == token) {
                    again.is_echoed = true;
                }
            }
        }
    }

    pub(super) fn on_root<L: Ledger>(
        &mut self,
        hash: [u8; 16],
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Stray> {
        let is_dialer = self.role == Role::Dialer;
        let answer = self.comparison.on_root(hash, is_dialer, held(shared.feeds, &self.skip))?;
        if !is_dialer {
            // An equal hash was computed by the dialer some time ago: strict only if it came for our
            // asking. Otherwise the dialer answers our own hash, and that is after now.
            let echoed = self.again.take_if(|again| again.is_echoed);
            let is_strict = echoed.is_some() || !matches!(answer, Message::Done(_));
            self.begin_round(echoed.map_or(shared.now.mono_ms, |again| again.at_ms), is_strict);
        }
        match answer {
            Message::Done(_) => {
                self.own_held = self.own_held.max(self.own_compared(shared.feeds));
            }
            _ => self.told_own = self.own_compared(shared.feeds),
        }
        self.send(answer, shared.effects);
        Ok(())
    }

    pub(super) fn on_items<L: Ledger>(
        &mut self,
        items: &Items,
        shared: &mut Shared<'_, L>,
    ) -> Result<Result<(), Stray>, Fault<L>> {
        if let Err(stray) = self.comparison.expects_items(items.prefix) {
            return Ok(Err(stray));
        }
        let (mut differing, mut said) = (BTreeSet::new(), BTreeSet::new());
        for item in &items.items {
            let author = item.author;
            self.lift_decline(&author, shared.feeds);
            if self.declined(&author, shared) {
                continue;
            }
            let mut lacks = false;
            for tip in &item.tips {
                if shared.feeds.find(&author, *tip, shared.ledger)?.is_none() {
                    lacks = true;
                    self.claim(author, *tip, 0, shared);
                } else {
                    self.note_held(&author, *tip, shared)?;
                }
            }
            let Some(feed) = shared.feeds.feed(&author) else {
                self.ask_now(&author, shared);
                continue;
            };
            if feed.tips() == item.tips {
                continue;
            }
            let is_said = if lacks {
                self.ask_now(&author, shared)
            } else {
                self.push_from(&author, &item.tips, shared)?
            };
            if is_said {
                said.insert(author)
            } else {
                differing.insert(author)
            };
        }
        let held = held(shared.feeds, &self.skip);
        let answer = self.comparison.answer_items(items, differing, said, held);
        Ok(answer.map(|answer| self.send(answer, shared.effects)))
    }

    /// A comparison that has not ended has shown this tip; not `noted` where there was no room for it.
    pub(super) fn note_shown(&mut self, author: AuthorId, tip: Tip, noted: bool) {
        let Some(round) = self.round.as_mut().filter(|round| !round.has_ended) else { return };
        if noted {
            round.shown.insert((author, tip));
        } else {
            round.is_partial = true;
        }
    }

    /// After a frame of a comparison: it may have ended.
    pub(super) fn note_progress<L: Ledger>(
        &mut self,
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        let Some(round) = &mut self.round else { return Ok(()) };
        round.moved_ms = shared.now.mono_ms;
        if !round.has_ended && self.comparison.has_ended() {
            round.has_ended = true;
            self.next_root_ms = None;
            self.ask_payloads(shared)?;
        }
        Ok(())
    }

    pub(super) fn open_timeout<L: Ledger>(
        &mut self,
        now_ms: u64,
        jitter_ms: u64,
        shared: &mut Shared<'_, L>,
    ) {
        if !self.comparison.has_ended() {
            let timeout_ms = COMPARE_TIMEOUT_MS * self.patience();
            if self.round.as_ref().is_some_and(|round| round.moved_ms + timeout_ms <= now_ms) {
                let text = format!("a comparison stood still for {} s", timeout_ms / 1000);
                self.bye(Bye::new(ByeCode::Timeout, text), shared);
            }
            return;
        }
        if self.role == Role::Listener || (self.is_radio() && self.asked_again.is_none()) {
            return;
        }
        let due_ms = *self.next_root_ms.get_or_insert(now_ms + shared.me.interval_ms + jitter_ms);
        let asked = self.asked_again.take();
        if asked.is_none() && due_ms > now_ms {
            return;
        }
        if let Some(Some(token)) = asked {
            self.send(Message::Again(token), shared.effects);
        }
        self.next_root_ms = None;
        self.begin_round(now_ms, true);
        self.told_own = self.own_compared(shared.feeds);
        let root = self.comparison.ask(held(shared.feeds, &self.skip));
        self.send(root, shared.effects);
    }
}
