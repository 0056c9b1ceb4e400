//! Pings: whether a peer answers, asked by a person.

use mosaik_core::id::NodeId;

use super::Replica;
use crate::{
    carrier::{Effect, Now, SessionId},
    message::{Message, PING},
};

/// How long an answer may take, dial included, in milliseconds.
const ANSWER_MS_MAX: u64 = 10_000;
/// Pings at a time.
const PINGS_MAX: usize = 64;

/// A ping without an answer so far.
#[derive(Debug)]
struct Ping {
    token: u64,
    peer: NodeId,
    since_ms: u64,
    /// Where it was sent, once there was a session.
    session: Option<SessionId>,
}

/// The pings under way.
#[derive(Debug, Default)]
pub(super) struct Pings(Vec<Ping>);

impl Pings {
    /// The peer answered over this session.
    pub(super) fn answered(&mut self, session: SessionId, token: u64, effects: &mut Vec<Effect>) {
        let is_it = |ping: &Ping| ping.token == token && ping.session == Some(session);
        self.end(is_it, |_| Ok(session), effects);
    }

    /// Those that wait for a session with `peer` have none to hope for.
    pub(super) fn dial_failed(&mut self, peer: &NodeId, reason: &str, effects: &mut Vec<Effect>) {
        let waits = |ping: &Ping| ping.peer == *peer && ping.session.is_none();
        self.end(waits, |_| Err(reason.to_owned()), effects);
    }

    /// A session with `peer` is over: also for those that waited for it to open.
    pub(super) fn ended(
        &mut self,
        session: SessionId,
        peer: &NodeId,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        let was_there = |ping: &Ping| {
            ping.session == Some(session) || (ping.session.is_none() && ping.peer == *peer)
        };
        self.end(was_there, |_| Err(reason.to_owned()), effects);
    }

    /// Gives up those that wait too long.
    pub(super) fn expire(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let is_late = |ping: &Ping| ping.since_ms + ANSWER_MS_MAX <= now.mono_ms;
        let late = |_: &Ping| Err(format!("no answer within {} s", ANSWER_MS_MAX / 1000));
        self.end(is_late, late, effects);
    }

    fn end(
        &mut self,
        is_over: impl Fn(&Ping) -> bool,
        answer: impl Fn(&Ping) -> Result<SessionId, String>,
        effects: &mut Vec<Effect>,
    ) {
        for ping in self.0.extract_if(.., |ping| is_over(ping)) {
            effects.push(Effect::Ponged { token: ping.token, answer: answer(&ping) });
        }
    }
}

impl Replica {
    pub(super) fn on_ping(
        &mut self,
        now: Now,
        token: u64,
        peer: NodeId,
        effects: &mut Vec<Effect>,
    ) {
        if let Err(reason) = self.try_ping(now, token, peer, effects) {
            effects.push(Effect::Ponged { token, answer: Err(reason.to_owned()) });
        }
    }

    fn try_ping(
        &mut self,
        now: Now,
        token: u64,
        peer: NodeId,
        effects: &mut Vec<Effect>,
    ) -> Result<(), &'static str> {
        if self.pings.0.len() >= PINGS_MAX {
            return Err("too many pings are under way, try later");
        }
        let is_open = self.sessions.values().any(|s| s.peer == peer && s.is_open());
        if self.is_paused() {
            return Err("this node is paused: `mosaik-node resume` lets it go on");
        }
        if !is_open && !self.peers.is_busy(&peer) {
            let (peer, addresses) = self.peers.dial_now(&peer)?;
            effects.push(Effect::Dial { peer, addresses });
        }
        let since_ms = now.mono_ms;
        self.pings.0.push(Ping { token, peer, since_ms, session: None });
        if is_open {
            self.ping_opened(now, peer, effects);
        }
        Ok(())
    }

    /// There is a session with `peer`: what waited for it is sent.
    pub(super) fn ping_opened(&mut self, now: Now, peer: NodeId, effects: &mut Vec<Effect>) {
        let open = self.sessions.values_mut().filter(|s| s.peer == peer && s.is_open());
        // An older one may be dead already.
        let Some(session) = open.last() else { return };
        let answers = session.hello().is_some_and(|hello| hello.capabilities & PING != 0);
        if !answers {
            let reason = "it is connected, and its version answers no pings";
            return self.pings.dial_failed(&peer, reason, effects);
        }
        let waiting = self.pings.0.iter_mut().filter(|p| p.peer == peer && p.session.is_none());
        for ping in waiting {
            ping.session = Some(session.id);
            ping.since_ms = now.mono_ms;
            session.send(Message::Ping(ping.token), effects);
            effects.push(Effect::Pinged { token: ping.token });
        }
    }
}
