//! The interfaces' time, lent to what else speaks over them: there is one budget an interface.

use std::collections::BTreeMap;

use super::{Air, Class, Station, WIRE_BITRATE, resource_max, spread_ms};
use crate::{
    airtime::Channel,
    stack::{Interface, Peer},
    stream::RESOURCE_FROM,
};

/// The interfaces' time. All of it counts as history, and goes after what the station itself orders at
/// the same time.
#[derive(Debug)]
pub struct Airtime<'a> {
    airs: &'a mut BTreeMap<Interface, Air>,
}

/// A link that something goes over.
#[derive(Debug, Clone, Copy)]
pub struct On {
    /// On which interface.
    pub interface: Interface,
    /// To whom.
    pub peer: Peer,
    /// Bytes of one packet at most.
    pub packet_max: usize,
}

impl Station {
    /// Lends the interfaces' time.
    pub fn airtime(&mut self) -> Airtime<'_> {
        Airtime { airs: &mut self.airs }
    }
}

impl Airtime<'_> {
    /// How fast an interface is; one that isn't known is a wire.
    pub fn channel(&self, interface: Interface) -> Channel {
        self.airs.get(&interface).map_or(Channel::Bits(WIRE_BITRATE), |air| air.channel)
    }

    /// Whether an interface's time is dear.
    pub fn is_radio(&self, interface: Interface) -> bool {
        self.airs.get(&interface).is_some_and(Air::is_radio)
    }

    /// How long somebody waits at the most before speaking unasked, in milliseconds.
    pub fn spread_ms(&self, interface: Interface) -> u64 {
        spread_ms(self.channel(interface))
    }

    /// Bytes of a Resource at most.
    pub fn resource_max(&self, interface: Interface) -> usize {
        let Some(air) = self.airs.get(&interface) else { return RESOURCE_FROM };
        resource_max(air.channel, air.budget.share_ms())
    }

    /// The interfaces that can send.
    pub fn online(&self) -> Vec<Interface> {
        let online = self.airs.iter().filter(|(_, air)| air.is_online);
        online.map(|(interface, _)| *interface).collect()
    }

    /// When a packet of so many bytes on air may go; none for one that never will.
    pub fn packet_at_ms(&self, interface: Interface, len: usize, due_ms: u64) -> Option<u64> {
        self.airs.get(&interface)?.begins_at_ms(len, due_ms)
    }

    /// When so many bytes may go over a link; none for what never will.
    pub fn send_at_ms(&self, on: On, len: usize, now_ms: u64) -> Option<u64> {
        let air = self.airs.get(&on.interface)?;
        air.may_send_at_ms(Class::History, (len, on.packet_max), Some(on.peer), now_ms)
    }

    /// A packet of so many bytes on air goes.
    pub fn spend_packet(&mut self, interface: Interface, len: usize, now_ms: u64) {
        if let Some(air) = self.airs.get_mut(&interface) {
            air.spend(len, now_ms);
        }
    }

    /// So many bytes go over a link.
    pub fn spend_send(&mut self, on: On, len: usize, now_ms: u64) {
        if let Some(air) = self.airs.get_mut(&on.interface) {
            air.spend_send((len, on.packet_max), Some(on.peer), now_ms);
        }
    }
}
