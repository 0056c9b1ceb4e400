//! One half-duplex channel: who hears what, how long it takes, what is lost.
//!
//! - A transmitter listens first, and waits while it hears another; two that can't hear each other
//!   collide at whoever hears both.
//! - Who transmits hears nothing.

use std::collections::BTreeMap;

use mosaik_reticulum::airtime::Channel;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::stack::Packet;

/// How long after the channel is free a waiting transmitter begins, at the most, in milliseconds.
const SLOT_MS: u64 = 200;

/// What was on air, of one kind of packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// How many.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Milliseconds.
    pub air_ms: u64,
}

/// What one node sent, for its share of an hour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) node: usize,
    pub(super) kind: &'static str,
    pub(super) at_ms: u64,
    pub(super) air_ms: u64,
    bytes: u64,
}

impl Used {
    /// One packet more.
    pub(super) fn add(&mut self, sent: &Sent) {
        self.packets += 1;
        self.bytes += sent.bytes;
        self.air_ms += sent.air_ms;
    }
}

/// One transmission.
#[derive(Debug, Clone)]
struct OnAir {
    from: usize,
    begins_ms: u64,
    ends_ms: u64,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Air {
    channel: Channel,
    /// Of a packet at one receiver, in thousandths.
    loss: u32,
    /// Who doesn't hear whom.
    deaf: Vec<(usize, usize)>,
    /// The last ones: as long as they may collide with something.
    recent: Vec<OnAir>,
    /// By kind.
    pub(super) used: BTreeMap<&'static str, Used>,
    /// All of it, in the order of time.
    pub(super) sent: Vec<Sent>,
}

impl Air {
    pub(super) fn new(channel: Channel, loss: u32, deaf: Vec<(usize, usize)>) -> Self {
        Self { channel, loss, deaf, recent: Vec::new(), used: BTreeMap::new(), sent: Vec::new() }
    }

    pub(super) fn hears(&self, at: usize, from: usize) -> bool {
        at != from && !self.deaf.contains(&(at, from)) && !self.deaf.contains(&(from, at))
    }

    /// When `from` may begin: now, or it looks again then.
    pub(super) fn free_ms(&self, from: usize, now_ms: u64, rng: &mut ChaCha8Rng) -> u64 {
        let heard = self.recent.iter().filter(|it| it.from == from || self.hears(from, it.from));
        let busy_ms = heard.map(|it| it.ends_ms).filter(|ms| *ms > now_ms).max();
        busy_ms.map_or(now_ms, |ms| ms + rng.random_range(1..=SLOT_MS))
    }

    /// Begins to transmit; gives when it ends.
    pub(super) fn begin(&mut self, from: usize, packet: &Packet, now_ms: u64) -> u64 {
        let air_ms = self.channel.packet_ms(packet.len());
        let (kind, bytes) = (packet.kind(), packet.len() as u64);
        let sent = Sent { node: from, kind, at_ms: now_ms, air_ms, bytes };
        self.used.entry(kind).or_default().add(&sent);
        self.sent.push(sent);
        let ends_ms = now_ms + air_ms;
        let oldest_ms = self.recent.iter().map(|it| it.begins_ms).min().unwrap_or(now_ms);
        if self.recent.len() > 64 {
            self.recent.retain(|it| it.ends_ms + (now_ms - oldest_ms).min(60_000) > now_ms);
        }
        self.recent.push(OnAir { from, begins_ms: now_ms, ends_ms });
        ends_ms
    }

    /// Whether what `from` sent from `begins_ms` until now arrives at `at`.
    pub(super) fn arrives(
        &self,
        at: usize,
        from: usize,
        (begins_ms, ends_ms): (u64, u64),
        rng: &mut ChaCha8Rng,
    ) -> bool {
        let disturbs = |it: &&OnAir| {
            let overlaps = it.begins_ms < ends_ms && it.ends_ms > begins_ms;
            let is_itself = it.from == from && it.begins_ms == begins_ms;
            overlaps && !is_itself && (it.from == at || self.hears(at, it.from))
        };
        self.hears(at, from)
            && !self.recent.iter().any(|it| disturbs(&it))
            && rng.random_range(0..1000) >= self.loss
    }
}
