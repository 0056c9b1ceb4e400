//! What an interface may send in an hour, held beneath the stack: the account that [`airtime`] keeps, for
//! frames and clocks as they are here.
//!
//! [`airtime`]: crate::airtime

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use personal_rns::wire::{PacketType, WireContext, WirePacketHeader};

use crate::airtime::{self, Cause, Ceiling};

/// One interface's account.
#[derive(Debug)]
pub(super) struct Account {
    begun: Instant,
    account: Mutex<airtime::Account>,
}

impl Account {
    pub(super) fn new(ceiling: Ceiling, now: Instant) -> Self {
        Self { begun: now, account: Mutex::new(airtime::Account::new(ceiling, 0)) }
    }

    /// Takes what a frame costs; without room for it nothing, and it must not be sent.
    pub(super) fn takes(&self, frame: &[u8], now: Instant) -> bool {
        let now_ms = now.saturating_duration_since(self.begun).as_millis() as u64;
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        account.takes(frame.len(), cause(frame), now_ms)
    }
}

/// Whether the stack sends this because others want it, and nobody here.
fn cause(frame: &[u8]) -> Cause {
    let Ok((header, _)) = WirePacketHeader::parse(frame) else { return Cause::Own };
    let is_asked = match header.packet_type {
        PacketType::Proof => header.context != WireContext::ResourceProof,
        PacketType::Announce => header.context == WireContext::PathResponse,
        // An offer that is refused; the end of a link, which its other end finds out by itself.
        PacketType::Data => {
            matches!(header.context, WireContext::ResourceReceiverCancel | WireContext::LinkClose)
        }
        PacketType::LinkRequest => false,
    };
    if is_asked { Cause::Asked } else { Cause::Own }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(flags: u8, context: u8) -> Vec<u8> {
        let mut frame = vec![0; 100];
        (frame[0], frame[18]) = (flags, context);
        frame
    }

    #[test]
    fn answers_are_told_from_what_is_ours() {
        // A link's proof, a packet's, the refusal of a Resource, the end of a link.
        for (flags, context) in [(0x0F, 0xFF), (0x0F, 0x00), (0x0C, 0x07), (0x0C, 0xFC)] {
            assert_eq!(cause(&frame(flags, context)), Cause::Asked, "{flags} {context}");
        }
        // A packet, a Resource's proof, an announce, a link request.
        for (flags, context) in [(0x0C, 0x00), (0x0F, 0x05), (0x01, 0x00), (0x02, 0x00)] {
            assert_eq!(cause(&frame(flags, context)), Cause::Own, "{flags} {context}");
        }
    }
}
