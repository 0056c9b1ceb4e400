//! Absent payloads: asked for after a comparison, given, or lacked here too.

use mosaik_core::{
    feed::{Ledger, Missing},
    id::EventId,
};

use super::{SEND_AHEAD, Session, Shared};
use crate::{
    Fault,
    message::{Ask, FRAME_MAX, FRAME_MIN, Message, Payloads},
};

/// Absent payloads asked for at a time: below a MiB even where all are as long as may be.
const ASKS_MAX: usize = 15;
/// Of a peer's asks only so many are kept; the others are told to lack.
const GIVES_MAX: usize = 64;
/// Bytes of a given payload beside its own, at the most.
const GIVE_OVERHEAD: usize = 64;
/// Bytes of a payload that is lacked.
const LACK_LEN: usize = 32;

impl Session {
    pub(super) fn ask_payloads<L: Ledger>(
        &mut self,
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        // Once there is room again, sessions begin anew, and ask.
        if shared.feeds.is_full() {
            return Ok(());
        }
        let Some(round) = &mut self.round else { return Ok(()) };
        let missing = shared.ledger.missing(round.asked_to.as_ref(), ASKS_MAX)?;
        let Some(last) = missing.last() else {
            self.lacked = Some(round.lacked);
            return Ok(());
        };
        round.asked_to = Some(*last);
        round.payloads = missing.iter().map(|missing| (missing.tip.id, *missing)).collect();
        let ask = missing.iter().map(|missing| Ask { author: missing.author, tip: missing.tip });
        let ask = ask.collect();
        self.send(Message::Payloads(Payloads { ask, ..Payloads::default() }), shared.effects);
        Ok(())
    }

    pub(super) fn on_payloads<L: Ledger>(
        &mut self,
        payloads: Payloads,
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        self.note_asks(payloads.ask, shared);
        let was_waiting = self.awaits_payloads();
        for (id, bytes) in &payloads.give {
            if let Some(at) = self.take_pending(id) {
                shared.feeds.fill(&at.author, at.tip, bytes, shared.wall, shared.ledger)?;
            }
        }
        for id in &payloads.lack {
            if self.take_pending(id).is_some()
                && let Some(round) = &mut self.round
            {
                round.lacked += 1;
            }
        }
        if was_waiting && !self.awaits_payloads() { self.ask_payloads(shared) } else { Ok(()) }
    }

    fn awaits_payloads(&self) -> bool {
        self.round.as_ref().is_some_and(|round| !round.payloads.is_empty())
    }

    fn take_pending(&mut self, id: &EventId) -> Option<Missing> {
        self.round.as_mut()?.payloads.remove(id)
    }

    /// Notes what the peer asks for; beyond [`GIVES_MAX`] it lacks at once.
    fn note_asks<L: Ledger>(&mut self, asks: Vec<Ask>, shared: &mut Shared<'_, L>) {
        let mut asks = asks.into_iter();
        let room = GIVES_MAX - self.gives.len();
        self.gives.extend(asks.by_ref().take(room));
        let lack: Vec<EventId> = asks.map(|ask| ask.tip.id).collect();
        if !lack.is_empty() {
            self.send(Message::Payloads(Payloads { lack, ..Payloads::default() }), shared.effects);
        }
    }

    /// Answers what was asked for, in as many frames as it takes, as long as the carrier has room.
    pub(super) fn give_payloads<L: Ledger>(
        &mut self,
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        let frame_max = self.hello.as_ref().map_or(FRAME_MIN, |hello| hello.frame_max) as usize;
        while self.queued < SEND_AHEAD && !self.gives.is_empty() {
            let mut room = frame_max.min(FRAME_MAX) - GIVES_MAX * LACK_LEN;
            let mut answer = Payloads::default();
            while let Some(ask) = self.gives.front() {
                match payload(ask, shared)? {
                    None => answer.lack.push(ask.tip.id),
                    Some(bytes) => {
                        let len = bytes.len() + GIVE_OVERHEAD;
                        if len > room {
                            break;
                        }
                        room -= len;
                        answer.give.push((ask.tip.id, bytes));
                    }
                }
                self.gives.pop_front();
            }
            self.push_frame(Message::Payloads(answer).encode(), true, shared.effects);
        }
        Ok(())
    }
}

/// The payload that is asked for, if it is here.
fn payload<L: Ledger>(ask: &Ask, shared: &mut Shared<'_, L>) -> Result<Option<Vec<u8>>, Fault<L>> {
    let Some(branch) = shared.feeds.find(&ask.author, ask.tip, shared.ledger)? else {
        return Ok(None);
    };
    let event = shared.ledger.events(branch, ask.tip.seq, ask.tip.seq, 0)?.pop();
    Ok(event.and_then(|event| event.payload.bytes().map(<[u8]>::to_vec)))
}
