//! What a packet costs on air, and how much of that an interface may spend.
//!
//! Invariants:
//! - In no hour, wherever it begins, is more spent than the share: a bucket that fills within an hour
//!   would let twice as much through.
//! - Nothing here reads a clock: times are arguments, in milliseconds.
//!
//! Source: Semtech AN1200.13 for LoRa; the Reticulum manual for lengths of packets.

use std::collections::{BTreeMap, VecDeque};

/// How long a budget looks back, in milliseconds.
pub const HOUR_MS: u64 = 3_600_000;
/// What is spent is counted by the minute, in milliseconds.
const MINUTE_MS: u64 = 60_000;
/// Bytes of a packet before its data: flags, hops, destination, context.
pub const HEADER_LEN: usize = 19;
/// Bytes that encryption adds to a link packet, before padding: IV and HMAC.
const SEAL_LEN: usize = 48;
/// An announce without its data: header, keys, name hash, random hash, signature.
pub const ANNOUNCE_LEN: usize = HEADER_LEN + 148;
/// A link request with its MTU.
pub const LINK_REQUEST_LEN: usize = 86;
/// The answer to a link request.
pub const LINK_PROOF_LEN: usize = 118;
/// What the dialer says then: the round trip, and who it is.
pub const LINK_IDENTIFY_LEN: usize = 83 + 211;
/// A Resource beside its parts: advertisement, a request for every ten parts, proof.
const RESOURCE_OVERHEAD_LEN: usize = 227 + 83;
const RESOURCE_REQUEST_LEN: usize = 131;
const RESOURCE_REQUEST_PARTS: usize = 10;
/// Bytes of a Resource in one packet.
const RESOURCE_PART_LEN: usize = 464;

/// Bytes on air of a link packet with so much in it.
pub fn link_packet_len(data: usize) -> usize {
    HEADER_LEN + SEAL_LEN + (data / 16 + 1) * 16
}

/// Bytes on air of a Resource: (of its sender, of its receiver).
pub fn resource_len(data: usize) -> (usize, usize) {
    let parts = (data + SEAL_LEN).div_ceil(RESOURCE_PART_LEN);
    let requests = parts.div_ceil(RESOURCE_REQUEST_PARTS);
    let sender = data + SEAL_LEN + parts * HEADER_LEN + RESOURCE_OVERHEAD_LEN - 83;
    (sender, requests * RESOURCE_REQUEST_LEN + 83)
}

/// How fast a channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// So many bits a second, all of them the packet's.
    Bits(u32),
    /// LoRa as an RNode sends it.
    Lora(Lora),
}

/// How a LoRa modem is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lora {
    /// Spreading factor, 7 to 12.
    pub spreading_factor: u8,
    /// Bandwidth in Hz.
    pub bandwidth: u32,
    /// Coding rate 4/5 to 4/8, as 5 to 8.
    pub coding_rate: u8,
}

/// Symbols of the preamble that an RNode sends.
const PREAMBLE: f64 = 18.0;
/// Bytes of the longest LoRa frame, with the byte that an RNode puts before it.
const LORA_FRAME_MAX: usize = 255;

impl Lora {
    /// Bits a second as Reticulum reckons them.
    fn nominal_bits(&self) -> f64 {
        let spread = f64::from(self.spreading_factor);
        spread * 4.0 / f64::from(self.coding_rate) * f64::from(self.bandwidth) / spread.exp2()
    }

    /// Seconds on air of one frame of so many bytes.
    pub fn frame_s(&self, len: usize) -> f64 {
        let spread = f64::from(self.spreading_factor);
        let symbol_s = spread.exp2() / f64::from(self.bandwidth);
        // Low data rate optimisation, where a symbol takes over 16 ms.
        let slow = if symbol_s > 0.016 { 2.0 } else { 0.0 };
        // Explicit header and CRC: 8 n - 4 SF + 28 + 16 bits, in groups of 4 (SF - 2 DE).
        let bits = 8.0 * len as f64 - 4.0 * spread + 44.0;
        let groups = (bits / (4.0 * (spread - slow))).ceil().max(0.0);
        let symbols = PREAMBLE + 4.25 + 8.0 + groups * f64::from(self.coding_rate);
        symbols * symbol_s
    }
}

/// Bandwidths that LoRa modems have, in Hz, the most common first: some settings have one bitrate.
const BANDWIDTHS: [u32; 10] =
    [125_000, 250_000, 500_000, 62_500, 41_700, 31_250, 20_800, 15_600, 10_400, 7_800];

impl Channel {
    /// The channel with this bitrate. Where it is just that of a LoRa setting, as Reticulum reckons it,
    /// it is taken for that: its packets take longer than their bits, by preamble and header.
    pub fn of_bitrate(bits: u32) -> Self {
        for bandwidth in BANDWIDTHS {
            for (spreading_factor, coding_rate) in
                (7..=12).flat_map(|sf| (5..=8).map(move |cr| (sf, cr)))
            {
                let lora = Lora { spreading_factor, bandwidth, coding_rate };
                if (lora.nominal_bits() - f64::from(bits)).abs() <= 1.0 {
                    return Self::Lora(lora);
                }
            }
        }
        Self::Bits(bits)
    }

    /// Milliseconds on air of a packet of so many bytes.
    pub fn packet_ms(&self, len: usize) -> u64 {
        match self {
            Self::Bits(bits) => (len as u64 * 8_000).div_ceil(u64::from(*bits).max(1)),
            Self::Lora(lora) => {
                // A packet that is too long for a frame goes as two, each with its byte before it.
                let first = (len + 1).min(LORA_FRAME_MAX);
                let rest = (len + 1).saturating_sub(LORA_FRAME_MAX);
                let second_s = if rest > 0 { lora.frame_s(rest + 1) } else { 0.0 };
                ((lora.frame_s(first) + second_s) * 1000.0).ceil() as u64
            }
        }
    }

    /// Milliseconds on air of many bytes in packets of the usual 500.
    pub fn bytes_ms(&self, len: usize) -> u64 {
        let whole = (len / 500) as u64 * self.packet_ms(500);
        match len % 500 {
            0 => whole,
            rest => whole + self.packet_ms(rest),
        }
    }
}

/// What one interface may spend, and has spent.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Milliseconds on air in any hour.
    share_ms: u64,
    /// What was spent, by the minute in which it was, oldest first.
    spent: VecDeque<(u64, u64)>,
    /// What of that nobody sent: it may have been, before this node was started.
    withheld: (u64, u64),
}

impl Budget {
    /// So many milliseconds in any hour: 36,000 is a duty cycle of 1 %.
    pub fn new(share_ms: u64) -> Self {
        Self { share_ms, spent: VecDeque::new(), withheld: (0, 0) }
    }

    /// The same at a start. Half of the first hour's is withheld: a node that is started again and again
    /// has no more.
    pub fn begun(share_ms: u64, now_ms: u64) -> Self {
        let mut budget = Self::new(share_ms);
        budget.withheld = (now_ms / MINUTE_MS, share_ms / 2);
        budget.spend(share_ms / 2, now_ms);
        budget
    }

    /// For what is free.
    pub fn unlimited() -> Self {
        Self::new(u64::MAX)
    }

    /// Milliseconds that may be spent in an hour.
    pub fn share_ms(&self) -> u64 {
        self.share_ms
    }

    /// Milliseconds that were spent in the last hour, counted by whole minutes.
    pub fn used_ms(&self, now_ms: u64) -> u64 {
        let (minute, withheld_ms) = self.withheld;
        self.taken_ms(now_ms) - if is_within(minute, now_ms) { withheld_ms } else { 0 }
    }

    /// The same with what is withheld.
    fn taken_ms(&self, now_ms: u64) -> u64 {
        self.spent.iter().filter(|(minute, _)| is_within(*minute, now_ms)).map(|(_, ms)| ms).sum()
    }

    /// Milliseconds that may be spent now; none: without limit.
    pub fn left_ms(&self, now_ms: u64) -> Option<u64> {
        (self.share_ms != u64::MAX).then(|| self.share_ms.saturating_sub(self.taken_ms(now_ms)))
    }

    /// When `cost_ms` may be spent: now, later, or never, because it is more than the share.
    pub fn when(&self, cost_ms: u64, now_ms: u64) -> Option<u64> {
        if self.share_ms == u64::MAX {
            return Some(now_ms);
        }
        let Some(mut excess) = (self.taken_ms(now_ms) + cost_ms).checked_sub(self.share_ms) else {
            return Some(now_ms);
        };
        if excess == 0 {
            return Some(now_ms);
        }
        for (minute, ms) in self.spent.iter().filter(|(minute, _)| is_within(*minute, now_ms)) {
            excess = excess.saturating_sub(*ms);
            if excess == 0 {
                return Some((minute + 1) * MINUTE_MS + HOUR_MS);
            }
        }
        None
    }

    /// So much was spent.
    pub fn spend(&mut self, cost_ms: u64, now_ms: u64) {
        let minute = now_ms / MINUTE_MS;
        while self.spent.front().is_some_and(|(at, _)| !is_within(*at, now_ms)) {
            self.spent.pop_front();
        }
        match self.spent.back_mut() {
            Some((at, ms)) if *at == minute => *ms += cost_ms,
            _ => self.spent.push_back((minute, cost_ms)),
        }
    }
}

/// Keys that a [`Shares`] counts for; then who spent least is forgotten. A guess: more than speak in an hour.
const KEYS_MAX: usize = 4096;

/// What each of many has spent of an interface, so that nobody takes all of its hour.
#[derive(Debug, Clone)]
pub struct Shares<K> {
    /// Milliseconds of any hour that each may spend.
    each_ms: u64,
    spent: BTreeMap<K, Budget>,
}

impl<K: Ord + Copy> Shares<K> {
    /// So many milliseconds in any hour for each; [`u64::MAX`]: nobody counts.
    pub fn new(each_ms: u64) -> Self {
        Self { each_ms, spent: BTreeMap::new() }
    }

    /// Milliseconds that one spent in the last hour.
    pub fn used_ms(&self, of: &K, now_ms: u64) -> u64 {
        self.spent.get(of).map_or(0, |budget| budget.used_ms(now_ms))
    }

    /// From when on one may spend something.
    pub fn when(&self, of: &K, now_ms: u64) -> u64 {
        self.spent.get(of).and_then(|budget| budget.when(1, now_ms)).unwrap_or(now_ms)
    }

    /// So much was spent.
    pub fn spend(&mut self, of: K, cost_ms: u64, now_ms: u64) {
        if self.each_ms == u64::MAX {
            return;
        }
        if self.spent.len() >= KEYS_MAX && !self.spent.contains_key(&of) {
            let least = self.spent.iter().min_by_key(|(_, budget)| budget.used_ms(now_ms));
            let Some(least) = least.map(|(of, _)| *of) else { return };
            self.spent.remove(&least);
        }
        let each_ms = self.each_ms;
        self.spent.entry(of).or_insert_with(|| Budget::new(each_ms)).spend(cost_ms, now_ms);
    }
}

/// How much an interface may send in an hour, whoever wants it.
///
/// What lies above a Reticulum stack paces what it orders. But the stack answers by itself too:
/// requests for links and paths, offers of Resources, packets that want a proof. A hostile peer can ask
/// for more of that than a duty cycle allows, so beneath the stack each packet is counted, and one that
/// doesn't fit is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceiling {
    /// What it is on.
    pub channel: Channel,
    /// Milliseconds on air in any hour.
    pub an_hour_ms: u64,
}

/// Why a stack sends something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It was ordered here, or serves what was.
    Own,
    /// Others want it, or it may be left out. A quarter of the ceiling is not for it.
    Asked,
}

/// What is left below a [`Ceiling`].
#[derive(Debug, Clone)]
pub struct Account {
    ceiling: Ceiling,
    budget: Budget,
}

impl Account {
    /// One at a start.
    pub fn new(ceiling: Ceiling, now_ms: u64) -> Self {
        Self { ceiling, budget: Budget::begun(ceiling.an_hour_ms, now_ms) }
    }

    /// Takes what a packet of so many bytes costs; without room for it nothing, and it must not be sent.
    pub fn takes(&mut self, len: usize, cause: Cause, now_ms: u64) -> bool {
        let air_ms = self.ceiling.channel.packet_ms(len);
        let reserve_ms = match cause {
            Cause::Own => 0,
            Cause::Asked => self.ceiling.an_hour_ms / 4,
        };
        if self.budget.left_ms(now_ms).is_some_and(|left_ms| air_ms + reserve_ms > left_ms) {
            return false;
        }
        self.budget.spend(air_ms, now_ms);
        true
    }
}

/// Whether some of a minute lies in the hour before now.
fn is_within(minute: u64, now_ms: u64) -> bool {
    (minute + 1) * MINUTE_MS + HOUR_MS > now_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lora(spreading_factor: u8) -> Channel {
        Channel::Lora(Lora { spreading_factor, bandwidth: 125_000, coding_rate: 5 })
    }

    /// Of 500, 209 and 83 bytes, as an emulated channel measured them.
    #[test]
    fn packets_take_as_long_as_on_a_real_channel() {
        let measured = [
            (7, [0.81, 0.34, 0.16]),
            (8, [1.43, 0.60, 0.29]),
            (9, [2.56, 1.09, 0.51]),
            (10, [4.67, 2.01, 0.94]),
            (11, [10.2, 4.35, 2.05]),
            (12, [18.5, 7.87, 3.78]),
        ];
        for (spreading_factor, seconds) in measured {
            for (len, s) in [500, 209, 83].into_iter().zip(seconds) {
                let ms = lora(spreading_factor).packet_ms(len) as f64;
                assert!((ms / 1000.0 / s - 1.0).abs() < 0.02, "SF{spreading_factor} {len}: {ms}");
            }
        }
    }

    #[test]
    fn a_bitrate_of_a_modem_is_taken_for_its_setting() {
        for (spreading_factor, bits) in [(7, 5_468), (8, 3_125), (9, 1_757), (10, 976), (12, 292)] {
            assert_eq!(Channel::of_bitrate(bits + 1), lora(spreading_factor), "{bits}");
        }
        assert_eq!(Channel::of_bitrate(1_200), Channel::Bits(1_200));
        assert_eq!(Channel::of_bitrate(10_000_000), Channel::Bits(10_000_000));
    }

    #[test]
    fn no_hour_has_more_than_its_share() {
        let mut budget = Budget::new(36_000);
        let mut log: Vec<(u64, u64)> = Vec::new();
        let mut now_ms = 12_345;
        // As fast as it lets us, with packets of all lengths.
        for turn in 0..2000u64 {
            let cost_ms = 290 + turn * 7 % 1200;
            now_ms = budget.when(cost_ms, now_ms).expect("each is less than the share");
            assert_eq!(budget.when(cost_ms, now_ms), Some(now_ms));
            budget.spend(cost_ms, now_ms);
            log.push((now_ms, cost_ms));
        }
        for (end_ms, _) in &log {
            let hour = log.iter().filter(|(at, _)| at <= end_ms && at + HOUR_MS > *end_ms);
            assert!(hour.map(|(_, ms)| ms).sum::<u64>() <= 36_000);
        }
        // And not much less: counting by minutes costs a sixtieth.
        let all: u64 = log.iter().map(|(_, ms)| ms).sum();
        let hours = (now_ms - 12_345) as f64 / HOUR_MS as f64;
        assert!(all as f64 / hours > 0.95 * 36_000.0, "{all} in {hours} h");
    }

    #[test]
    fn nobody_takes_the_others_share() {
        let mut shares = Shares::new(1_000);
        shares.spend('a', 1_000, 0);
        shares.spend('b', 999, 0);
        assert_eq!(shares.when(&'b', 5_000), 5_000);
        assert_eq!(shares.when(&'c', 5_000), 5_000);
        let ms = shares.when(&'a', 5_000);
        assert!((HOUR_MS..=HOUR_MS + MINUTE_MS).contains(&ms), "{ms}");
        assert_eq!(shares.when(&'a', ms), ms);
        // One more than it counts for: who spent least is forgotten.
        (0..KEYS_MAX)
            .for_each(|at| shares.spend(char::from_u32(256 + at as u32).unwrap_or('d'), 2_000, 0));
        assert_eq!(shares.spent.len(), KEYS_MAX);
        assert_eq!(shares.used_ms(&'b', 0), 0);
    }

    #[test]
    fn what_is_over_the_share_never_goes() {
        let budget = Budget::new(3_600);
        assert_eq!(budget.when(3_600, 0), Some(0));
        assert_eq!(budget.when(3_601, 0), None);
        assert_eq!(Budget::unlimited().when(u64::MAX / 2, 7), Some(7));
    }

    #[test]
    fn half_of_the_first_hour_is_withheld_and_not_shown_as_used() {
        let mut budget = Budget::begun(36_000, 0);
        budget.spend(1_000, 5_000);
        assert_eq!((budget.used_ms(5_000), budget.left_ms(5_000)), (1_000, Some(17_000)));
        let later_ms = HOUR_MS + MINUTE_MS;
        assert_eq!((budget.used_ms(later_ms), budget.left_ms(later_ms)), (0, Some(36_000)));
    }

    /// SF8 at one percent: 36 s an hour.
    fn one_percent() -> Account {
        Account::new(Ceiling { channel: lora(8), an_hour_ms: 36_000 }, 0)
    }

    #[test]
    fn a_flood_sends_no_more_than_the_ceiling_and_leaves_room_for_what_is_ours() {
        let (mut account, mut now_ms) = (one_percent(), 0);
        let air_ms = lora(8).packet_ms(LINK_PROOF_LEN);
        // Ten hours of a link request every 100 ms.
        let mut sent = Vec::new();
        for _ in 0..10 * 36_000 {
            now_ms += 100;
            if account.takes(LINK_PROOF_LEN, Cause::Asked, now_ms) {
                sent.push(now_ms);
            }
        }
        for end in &sent {
            let hour = sent.iter().filter(|at| *at <= end && **at + HOUR_MS > *end).count() as u64;
            assert!(air_ms * hour <= 27_000, "{hour}");
        }
        assert!(sent.len() as u64 * air_ms >= 9 * 26_000, "{}", sent.len());
        let ours = (0..1000).filter(|_| account.takes(100, Cause::Own, now_ms)).count() as u64;
        assert!(ours * lora(8).packet_ms(100) >= 8_500, "{ours}");
    }

    #[test]
    fn what_was_not_used_is_kept_for_an_hour_and_no_longer() {
        let mut account = one_percent();
        let sent = (0..1000).filter(|_| account.takes(100, Cause::Own, 10 * HOUR_MS)).count();
        assert_eq!(sent as u64, 36_000 / lora(8).packet_ms(100));
    }
}
