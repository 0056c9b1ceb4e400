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

/// Absent payloads asked for at a time: even the longest then fit one frame.
const ASKS_MAX: usize = 15;
/// Of a peer's asks in one frame only so many are looked up; the others are told to lack.
const GIVES_MAX: usize = 64;
/// Bytes of a given payload beside its own, at the most.
const GIVE_OVERHEAD: usize = 64;

impl Session {
    pub(super) fn ask_payloads<L: Ledger>(
        &mut self,
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        let Some(round) = &mut self.round else { return Ok(()) };
        let missing = shared.ledger.missing(round.asked_to.as_ref(), ASKS_MAX)?;
        let Some(last) = missing.last() else { return Ok(()) };
        round.asked_to = Some(*last);
        round.payloads = missing.iter().map(|missing| (missing.tip.id, *missing)).collect();
        let ask = missing.iter().map(|missing| Ask { author: missing.author, tip: missing.tip });
        let ask = ask.collect();
        self.send(Message::Payloads(Payloads { ask, ..Payloads::default() }), shared.effects);
        Ok(())
    }

    pub(super) fn on_payloads<L: Ledger>(
        &mut self,
        payloads: &Payloads,
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        self.give_payloads(&payloads.ask, shared)?;
        let was_waiting = self.awaits_payloads();
        for (id, bytes) in &payloads.give {
            if let Some(at) = self.take_pending(id) {
                shared.feeds.fill(&at.author, at.tip, bytes, shared.wall, shared.ledger)?;
            }
        }
        for id in &payloads.lack {
            self.take_pending(id);
        }
        if was_waiting && !self.awaits_payloads() { self.ask_payloads(shared) } else { Ok(()) }
    }

    fn awaits_payloads(&self) -> bool {
        self.round.as_ref().is_some_and(|round| !round.payloads.is_empty())
    }

    fn take_pending(&mut self, id: &EventId) -> Option<Missing> {
        self.round.as_mut()?.payloads.remove(id)
    }

    fn give_payloads<L: Ledger>(
        &mut self,
        asks: &[Ask],
        shared: &mut Shared<'_, L>,
    ) -> Result<(), Fault<L>> {
        if asks.is_empty() {
            return Ok(());
        }
        let mut answer = Payloads::default();
        let frame_max = self.hello.as_ref().map_or(FRAME_MIN, |hello| hello.frame_max);
        let frame_max = FRAME_MAX.min(frame_max as usize);
        let mut room = frame_max.min(SEND_AHEAD.saturating_sub(self.queued));
        room = room.saturating_sub(asks.len() * GIVE_OVERHEAD);
        for (i, ask) in asks.iter().enumerate() {
            let branch = match i {
                ..GIVES_MAX => shared.feeds.find(&ask.author, ask.tip, shared.ledger)?,
                _ => None,
            };
            let event = match branch {
                Some(branch) => shared.ledger.events(branch, ask.tip.seq, ask.tip.seq, 0)?.pop(),
                None => None,
            };
            match event.as_ref().and_then(|event| event.payload.bytes()) {
                Some(bytes) if bytes.len() <= room => {
                    room -= bytes.len();
                    answer.give.push((ask.tip.id, bytes.to_vec()));
                }
                // It doesn't fit: the next comparison asks again.
                _ => answer.lack.push(ask.tip.id),
            }
        }
        self.send(Message::Payloads(answer), shared.effects);
        Ok(())
    }
}
