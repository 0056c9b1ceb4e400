//! The wires that a node speaks over, as its owner loop sees them.
//!
//! Invariants:
//! - A carrier never waits in [`Carrier::carry`], and leaves alone what belongs to another's session.
//! - Session numbers are unique over all carriers: each numbers its own from a range of its own.

use std::{future::Future, pin::Pin};

use mosaik_net::{Net, Outlook, Path};
use mosaik_proto::{
    carrier::{Effect, SessionId},
    replica::Replica,
};

/// One kind of wire: iroh today, others beside it.
pub(crate) trait Carrier: Send {
    /// Carries an effect out, if it is this carrier's.
    fn carry(&mut self, effect: Effect);

    /// How the peer of one of its sessions is reached.
    fn path(&self, session: SessionId) -> Option<Path>;

    /// What a person should know of its wire, in sentences. With a change of it an input comes.
    fn notices(&self) -> Vec<String>;

    /// What it has seen of the network around it, if it looks.
    fn outlook(&self) -> Option<Outlook>;

    /// Why it carries nothing any more, if it doesn't.
    fn is_dead(&self) -> Option<String>;

    /// A batch is done: what the replica holds may have changed, and so may the number of events.
    fn note(&mut self, _replica: &Replica, _events: u64) {}

    /// Stays silent from now on, or speaks again. Its sessions are ended by effects.
    fn pause(&mut self, on: bool);

    /// Says goodbye and closes everything, within seconds.
    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

impl Carrier for Net {
    fn carry(&mut self, effect: Effect) {
        Self::carry(self, effect);
    }

    fn path(&self, session: SessionId) -> Option<Path> {
        Self::path(self, session)
    }

    fn notices(&self) -> Vec<String> {
        self.complaints()
    }

    fn outlook(&self) -> Option<Outlook> {
        Some(Self::outlook(self))
    }

    fn is_dead(&self) -> Option<String> {
        Self::is_dead(self)
    }

    fn pause(&mut self, on: bool) {
        Self::pause(self, on);
    }

    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(Self::close(*self))
    }
}

/// All carriers of a node.
pub(crate) struct Carriers(Vec<Box<dyn Carrier>>);

impl Carriers {
    pub(crate) fn new(carriers: Vec<Box<dyn Carrier>>) -> Self {
        Self(carriers)
    }

    /// Offers an effect to each carrier.
    pub(crate) fn carry(&mut self, effect: Effect) {
        if let Some((last, others)) = self.0.split_last_mut() {
            others.iter_mut().for_each(|carrier| carrier.carry(effect.clone()));
            last.carry(effect);
        }
    }

    pub(crate) fn path(&self, session: SessionId) -> Option<Path> {
        self.0.iter().find_map(|carrier| carrier.path(session))
    }

    pub(crate) fn notices(&self) -> Vec<String> {
        self.0.iter().flat_map(|carrier| carrier.notices()).collect()
    }

    pub(crate) fn outlook(&self) -> Outlook {
        self.0.iter().find_map(|carrier| carrier.outlook()).unwrap_or_default()
    }

    /// Why those that carry nothing any more don't.
    pub(crate) fn dead(&self) -> Vec<String> {
        self.0.iter().filter_map(|carrier| carrier.is_dead()).collect()
    }

    pub(crate) fn note(&mut self, replica: &Replica, events: u64) {
        self.0.iter_mut().for_each(|carrier| carrier.note(replica, events));
    }

    pub(crate) fn pause(&mut self, on: bool) {
        self.0.iter_mut().for_each(|carrier| carrier.pause(on));
    }

    pub(crate) async fn close(self) {
        for carrier in self.0 {
            carrier.close().await;
        }
    }
}
