//! What an interface may send in an hour, held beneath the stack.
//!
//! What lies above paces what it sends itself. But the stack answers by itself too: requests for links
//! and paths, packets that want a proof. A hostile peer can ask for more of that than a duty cycle
//! allows, so here each frame is counted, and one that doesn't fit is dropped.
//!
//! Invariant: in no hour, wherever it begins, is more sent than the ceiling.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use personal_rns::wire::{PacketType, WireContext, WirePacketHeader};

use crate::airtime::Budget;

/// How much an interface may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceiling {
    /// How long a byte is on the air, in nanoseconds.
    pub byte_ns: u64,
    /// How long a packet is on the air besides its bytes, in microseconds: preamble and header.
    pub packet_us: u64,
    /// Time on the air in an hour.
    pub an_hour: Duration,
}

impl Ceiling {
    fn air(&self, len: usize) -> Duration {
        Duration::from_micros(self.packet_us)
            + Duration::from_nanos(self.byte_ns.saturating_mul(len as u64))
    }
}

/// One interface's account.
#[derive(Debug)]
pub(super) struct Account {
    ceiling: Ceiling,
    begun: Instant,
    budget: Mutex<Budget>,
}

impl Account {
    /// One that begins with half of an hour's: a node that is started again and again has no more.
    pub(super) fn new(ceiling: Ceiling, now: Instant) -> Self {
        let an_hour_ms = ceiling.an_hour.as_millis() as u64;
        let mut budget = Budget::new(an_hour_ms);
        budget.spend(an_hour_ms / 2, 0);
        Self { ceiling, begun: now, budget: Mutex::new(budget) }
    }

    /// Takes what a frame costs; without room for it nothing, and it must not be sent.
    ///
    /// What others can make the stack send leaves a quarter to what is ours.
    pub(super) fn takes(&self, frame: &[u8], now: Instant) -> bool {
        let now_ms = now.saturating_duration_since(self.begun).as_millis() as u64;
        let air_ms = self.ceiling.air(frame.len()).as_micros().div_ceil(1000) as u64;
        let an_hour_ms = self.ceiling.an_hour.as_millis() as u64;
        let reserve_ms = if asked_for(frame) { an_hour_ms / 4 } else { 0 };
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        if budget.used_ms(now_ms) + air_ms + reserve_ms > an_hour_ms {
            return false;
        }
        budget.spend(air_ms, now_ms);
        true
    }
}

/// Whether the stack sends this because others want it, and nobody here.
fn asked_for(frame: &[u8]) -> bool {
    let Ok((header, _)) = WirePacketHeader::parse(frame) else { return false };
    match header.packet_type {
        PacketType::Proof => header.context != WireContext::ResourceProof,
        PacketType::Announce => header.context == WireContext::PathResponse,
        PacketType::Data | PacketType::LinkRequest => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 36 s an hour: one percent. A packet of 100 bytes is 0.3 s on the air.
    const ONE_PERCENT: Ceiling =
        Ceiling { byte_ns: 2_500_000, packet_us: 50_000, an_hour: Duration::from_secs(36) };

    const HOUR: Duration = Duration::from_secs(3600);

    fn frame(flags: u8, context: u8) -> Vec<u8> {
        let mut frame = vec![0; 100];
        (frame[0], frame[18]) = (flags, context);
        frame
    }

    #[test]
    fn a_flood_sends_no_more_than_the_ceiling_and_leaves_room_for_what_is_ours() {
        let mut now = Instant::now();
        let account = Account::new(ONE_PERCENT, now);
        let (proof, data) = (frame(0x0F, 0xFF), frame(0x0C, 0));
        // Ten hours of a link request every 100 ms.
        let mut sent = Vec::new();
        for _ in 0..10 * 36_000 {
            now += Duration::from_millis(100);
            if account.takes(&proof, now) {
                sent.push(now);
            }
        }
        for end in &sent {
            let hour = sent.iter().filter(|at| *at <= end && **at + HOUR > *end).count();
            assert!(ONE_PERCENT.air(100) * hour as u32 <= Duration::from_secs(27), "{hour}");
        }
        assert!(sent.len() >= 9 * 90 - 30, "{}", sent.len());
        let ours = (0..1000).filter(|_| account.takes(&data, now)).count();
        assert!(ours >= 29, "{ours}");
    }

    #[test]
    fn what_was_not_used_is_kept_for_an_hour_and_no_longer() {
        let now = Instant::now();
        let account = Account::new(ONE_PERCENT, now);
        let later = now + HOUR * 10;
        let data = frame(0x0C, 0);
        let sent = (0..1000).filter(|_| account.takes(&data, later)).count();
        assert_eq!(sent, 120, "36 s of 0.3 s each");
    }
}
