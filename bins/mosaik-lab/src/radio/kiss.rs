//! The RNode's host protocol: KISS frames whose first byte says what they are.
//!
//! Source: the protocol as rns's RNodeInterface speaks it; a virtual RNode answers what it asks for.

use super::air::Modulation;

const FEND: u8 = 0xC0;
const FESC: u8 = 0xDB;
const TFEND: u8 = 0xDC;
const TFESC: u8 = 0xDD;

const DATA: u8 = 0x00;
const FREQUENCY: u8 = 0x01;
const BANDWIDTH: u8 = 0x02;
const TX_POWER: u8 = 0x03;
const SPREADING_FACTOR: u8 = 0x04;
const CODING_RATE: u8 = 0x05;
const RADIO_STATE: u8 = 0x06;
const DETECT: u8 = 0x08;
const SHORT_LIMIT: u8 = 0x0B;
const LONG_LIMIT: u8 = 0x0C;
const READY: u8 = 0x0F;
const PLATFORM: u8 = 0x48;
const MCU: u8 = 0x49;
const FIRMWARE: u8 = 0x50;

/// The answer to a request for detection.
const DETECTED: u8 = 0x46;
/// An AVR, which has no display that rns would write to.
const PLATFORM_AVR: u8 = 0x90;
/// Any.
const MCU_1284P: u8 = 0x91;
/// Firmware 1.80: rns wants 1.52.
const VERSION: [u8; 2] = [1, 80];

/// Bytes of a frame at most: a packet of 508 bytes, and its command.
const FRAME_LEN_MAX: usize = 509;

/// A frame as it goes over the line.
pub(super) fn frame(command: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![FEND, command];
    for byte in data {
        match *byte {
            FEND => frame.extend([FESC, TFEND]),
            FESC => frame.extend([FESC, TFESC]),
            byte => frame.push(byte),
        }
    }
    frame.push(FEND);
    frame
}

/// A packet that was heard, as the host gets it.
pub(super) fn heard(packet: &[u8]) -> Vec<u8> {
    frame(DATA, packet)
}

/// Tells the host that its packet is out.
pub(super) fn ready() -> Vec<u8> {
    frame(READY, &[1])
}

/// Takes frames out of what comes over the line.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    frame: Vec<u8>,
    escaped: bool,
    /// More came than a frame may have: all up to the next end is dropped.
    over: bool,
}

impl Decoder {
    /// Takes a byte, and returns a frame where it ends one.
    pub(super) fn take(&mut self, byte: u8) -> Option<Vec<u8>> {
        let byte = match byte {
            FEND => {
                self.escaped = false;
                let over = std::mem::take(&mut self.over);
                let frame = std::mem::take(&mut self.frame);
                return (!over && !frame.is_empty()).then_some(frame);
            }
            FESC => {
                self.escaped = true;
                return None;
            }
            TFEND if self.escaped => FEND,
            TFESC if self.escaped => FESC,
            byte => byte,
        };
        self.escaped = false;
        self.over |= self.frame.len() >= FRAME_LEN_MAX;
        if !self.over {
            self.frame.push(byte);
        }
        None
    }
}

/// What an RNode's host wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// That this is sent.
    Packet(Vec<u8>),
    /// This answer, at once.
    Answer(Vec<u8>),
    /// Nothing that a virtual one has.
    Nothing,
}

/// An RNode's settings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Modem {
    pub(super) modulation: Modulation,
    /// Whether its radio is on.
    pub(super) on: bool,
}

impl Default for Modem {
    fn default() -> Self {
        Self { modulation: Modulation::SF8, on: false }
    }
}

impl Modem {
    /// Takes a frame of the host.
    pub(super) fn take(&mut self, given: &[u8]) -> Wanted {
        let Some((&command, data)) = given.split_first() else { return Wanted::Nothing };
        match (command, data) {
            (DATA, packet) if self.on && !packet.is_empty() => {
                return Wanted::Packet(packet.to_vec());
            }
            (BANDWIDTH, data) => {
                if let Ok(bytes) = data.try_into() {
                    self.modulation.bandwidth_hz = u32::from_be_bytes(bytes).max(7_800);
                }
            }
            (SPREADING_FACTOR, [factor @ 7..=12]) => self.modulation.spreading_factor = *factor,
            (CODING_RATE, [rate @ 5..=8]) => self.modulation.coding_rate = *rate,
            (RADIO_STATE, [state]) => self.on = *state == 1,
            _ => {}
        }
        let answer: &[u8] = match command {
            DETECT => &[DETECTED],
            FIRMWARE => &VERSION,
            PLATFORM => &[PLATFORM_AVR],
            MCU => &[MCU_1284P],
            // It tells what it is set to: here always what it was asked for.
            FREQUENCY | BANDWIDTH | TX_POWER | SPREADING_FACTOR | CODING_RATE | RADIO_STATE
            | SHORT_LIMIT | LONG_LIMIT => data,
            _ => return Wanted::Nothing,
        };
        Wanted::Answer(frame(command, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut decoder = Decoder::default();
        bytes.iter().filter_map(|byte| decoder.take(*byte)).collect()
    }

    #[test]
    fn every_byte_passes_a_frame() {
        let all: Vec<_> = (0..=255).collect();
        let expected = [&[DATA][..], &all].concat();
        assert_eq!(decoded(&heard(&all)), [expected]);
    }

    #[test]
    fn a_frame_that_is_too_long_is_dropped_and_the_next_is_read() {
        let line = [heard(&[1; FRAME_LEN_MAX]), heard(&[2; FRAME_LEN_MAX - 1])].concat();
        let frames = decoded(&line);
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].len(), FRAME_LEN_MAX);
    }

    #[test]
    fn a_modem_is_set_as_it_is_told_and_sends_only_when_it_is_on() {
        let mut modem = Modem::default();
        assert_eq!(modem.take(&[DATA, 1]), Wanted::Nothing);
        assert_eq!(modem.take(&[SPREADING_FACTOR, 10]), Wanted::Answer(frame(4, &[10])));
        modem.take(&[BANDWIDTH, 0, 3, 0xD0, 0x90]);
        assert_eq!(modem.take(&[RADIO_STATE, 1]), Wanted::Answer(frame(6, &[1])));
        let wanted = Modulation { spreading_factor: 10, bandwidth_hz: 250_000, coding_rate: 5 };
        assert_eq!(modem.modulation, wanted);
        assert_eq!(modem.take(&[DATA, 1]), Wanted::Packet(vec![1]));
    }
}
