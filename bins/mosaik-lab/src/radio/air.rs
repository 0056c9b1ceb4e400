//! How long a packet is on the air.
//!
//! Source: Semtech, SX1276/77/78/79 datasheet, 4.1.1.6 and 4.1.1.7 (time on air, low data rate).

use std::time::Duration;

/// Symbols before the first of the header that an RNode sends.
const PREAMBLE_SYMBOLS: u64 = 18;

/// Bytes of a frame at most; the first is the RNode's own header.
const FRAME_LEN_MAX: usize = 255;

/// A symbol longer than this is sent with the low data rate optimisation.
const LONG_SYMBOL_US: u64 = 16_000;

/// How a radio is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modulation {
    /// 7 to 12: bits of a symbol.
    pub spreading_factor: u8,
    /// Its bandwidth.
    pub bandwidth_hz: u32,
    /// 5 to 8: the coding rate is 4 of so many.
    pub coding_rate: u8,
}

impl Modulation {
    /// Spreading factor 8, 125 kHz, 4/5: what rns's example configuration takes.
    pub const SF8: Self = Self { spreading_factor: 8, bandwidth_hz: 125_000, coding_rate: 5 };

    /// The nominal bit rate, as rns reckons it, in bit/s.
    pub fn bitrate(&self) -> u64 {
        let bits = u64::from(self.spreading_factor) * u64::from(self.bandwidth_hz) * 4;
        bits / (u64::from(self.coding_rate) << self.spreading_factor)
    }

    /// How long a packet of Reticulum is on the air: an RNode sends up to 254 bytes as one frame and
    /// more as two, each with a byte of its own.
    pub fn packet(&self, len: usize) -> Duration {
        let one = FRAME_LEN_MAX - 1;
        match len <= one {
            true => self.frame(len + 1),
            false => self.frame(FRAME_LEN_MAX) + self.frame(len - one + 1),
        }
    }

    /// How long a frame of `len` bytes is on the air, with an explicit header and a checksum.
    fn frame(&self, len: usize) -> Duration {
        let factor = u64::from(self.spreading_factor);
        let symbol_ns = (1_000_000_000u64 << factor) / u64::from(self.bandwidth_hz);
        let low_rate = if symbol_ns > LONG_SYMBOL_US * 1000 { 2 } else { 0 };
        let bits = (8 * len as u64 + 28 + 16).saturating_sub(4 * factor);
        let blocks = bits.div_ceil(4 * (factor - low_rate));
        // In quarters: the sync word ends a quarter of a symbol after the preamble's four.
        let quarters = 4 * (PREAMBLE_SYMBOLS + 4 + 8 + blocks * u64::from(self.coding_rate)) + 1;
        Duration::from_nanos(symbol_ns * quarters / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hundredths of a second, rounded.
    fn centis(factor: u8, len: usize) -> u128 {
        let modulation = Modulation { spreading_factor: factor, ..Modulation::SF8 };
        (modulation.packet(len).as_millis() + 5) / 10
    }

    #[test]
    fn packets_are_on_the_air_as_long_as_calculators_say() {
        assert_eq!(
            [7, 8, 9, 10, 11, 12].map(|factor| centis(factor, 83)),
            [16, 29, 51, 94, 205, 378]
        );
        assert_eq!([7, 8, 9, 10].map(|factor| centis(factor, 500)), [81, 143, 256, 467]);
    }

    #[test]
    fn a_packet_of_two_frames_has_two_preambles() {
        let step = Modulation::SF8.packet(255) - Modulation::SF8.packet(254);
        assert!(step > Duration::from_millis(50), "{step:?}");
    }

    #[test]
    fn the_nominal_rate_is_that_of_rns() {
        assert_eq!(Modulation::SF8.bitrate(), 3125);
        assert_eq!(Modulation { spreading_factor: 10, ..Modulation::SF8 }.bitrate(), 976);
    }
}
