//! Nodes that came by themselves and were turned away: of another network, or another protocol.
//!
//! The peer book keeps nothing of who never said hello, or anybody could fill it. A person who
//! wonders why two nodes don't meet must still find the reason on both ends, so the last few are
//! kept here, to be shown beside the peers.
//!
//! Invariant: at most [`KEPT_MAX`] are shown, and each for [`KEPT_MS`]: a flood of strangers neither
//! fills memory nor writes a line each.

use std::collections::HashMap;

use mosaik_core::id::NodeId;
use mosaik_proto::{
    carrier::{Effect, Input, SessionId},
    message::ByeCode,
};

/// Strangers that are shown. A guess: more than a person reads.
const KEPT_MAX: usize = 16;
/// How long one is shown after it was turned away last, in milliseconds.
///
/// It comes again after half a minute or more, doubled each time; an hour covers that.
const KEPT_MS: u64 = 60 * 60 * 1000;

/// One that was turned away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stranger {
    pub(crate) node: NodeId,
    /// What it was told.
    pub(crate) reason: String,
    /// When, Unix ms.
    pub(crate) at_ms: u64,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    /// Who has not said hello yet.
    greeting: HashMap<SessionId, NodeId>,
    refused: Vec<Stranger>,
}

impl Strangers {
    /// Those that were turned away lately, the first first.
    pub(crate) fn refused(&self) -> &[Stranger] {
        &self.refused
    }

    /// Sees who comes and goes.
    pub(crate) fn note_input(&mut self, input: &Input) {
        match input {
            Input::Connected { session, peer, .. } => {
                self.greeting.insert(*session, *peer);
            }
            Input::Disconnected { session, .. } => {
                self.greeting.remove(session);
            }
            _ => {}
        }
    }

    /// Sees who is let in, and who is turned away; the wall clock shows `wall_ms`.
    pub(crate) fn note_effect(&mut self, effect: &Effect, wall_ms: u64) {
        match effect {
            Effect::Opened { session, .. } => {
                self.greeting.remove(session);
            }
            Effect::Close { session, bye } => {
                let Some(node) = self.greeting.remove(session) else { return };
                if matches!(bye.code, ByeCode::OtherNetwork | ByeCode::Version) {
                    self.refuse(Stranger { node, reason: bye.text.clone(), at_ms: wall_ms });
                }
            }
            _ => {}
        }
    }

    fn refuse(&mut self, stranger: Stranger) {
        self.refused.retain(|known| known.at_ms + KEPT_MS > stranger.at_ms);
        if let Some(known) = self.refused.iter_mut().find(|known| known.node == stranger.node) {
            *known = stranger;
        } else if self.refused.len() < KEPT_MAX {
            self.refused.push(stranger);
        }
    }
}

#[cfg(test)]
mod tests {
    use mosaik_proto::{carrier::Role, message::Bye};

    use super::*;

    fn come(strangers: &mut Strangers, number: u8) {
        let (session, peer) = (SessionId(number.into()), NodeId([number; 32]));
        let binding = vec![0; 32];
        strangers.note_input(&Input::Connected {
            session,
            peer,
            role: Role::Listener,
            binding,
            rtt_ms: None,
        });
    }

    fn close(strangers: &mut Strangers, number: u8, code: ByeCode, wall_ms: u64) {
        let bye = Bye::new(code, "its network id differs");
        strangers.note_effect(&Effect::Close { session: SessionId(number.into()), bye }, wall_ms);
    }

    #[test]
    fn who_is_of_another_network_is_kept_with_the_reason_and_who_is_late_is_not() {
        let mut strangers = Strangers::default();
        come(&mut strangers, 1);
        come(&mut strangers, 2);
        close(&mut strangers, 1, ByeCode::OtherNetwork, 5);
        close(&mut strangers, 2, ByeCode::Timeout, 6);
        let reason = "its network id differs".to_owned();
        assert_eq!(strangers.refused(), [Stranger { node: NodeId([1; 32]), reason, at_ms: 5 }]);
        assert!(strangers.greeting.is_empty());
    }

    #[test]
    fn who_went_by_itself_leaves_nothing_behind() {
        let mut strangers = Strangers::default();
        come(&mut strangers, 1);
        let reason = String::new();
        strangers.note_input(&Input::Disconnected { session: SessionId(1), reason });
        assert!(strangers.greeting.is_empty() && strangers.refused().is_empty());
    }

    #[test]
    fn a_flood_shows_the_first_few_until_they_are_old() {
        let mut strangers = Strangers::default();
        for number in 0..200 {
            come(&mut strangers, number);
            close(&mut strangers, number, ByeCode::OtherNetwork, number.into());
        }
        assert_eq!(strangers.refused().len(), KEPT_MAX);
        come(&mut strangers, 200);
        close(&mut strangers, 200, ByeCode::OtherNetwork, KEPT_MS + 1_000);
        let shown: Vec<_> = strangers.refused().iter().map(|stranger| stranger.node.0[0]).collect();
        assert_eq!(shown, [200]);
    }
}
