//! What sessions tell: opened, grown, declined, over.

use std::collections::BTreeMap;

use mosaik_core::{feed::Ledger, id::NodeId};
use rand::RngExt;

use super::{META_PEERS, Replica};
use crate::{
    Fault,
    carrier::{Effect, Now, Role, SessionId},
    feeds::DECLINES_MAX,
    message::{Bye, ByeCode},
    peers::{Introduction, PeerState, Retry},
    session::{Declines, Notice, Session},
};

/// Authors that are remembered as declined by peers, each counted for every peer: some megabytes.
const REMEMBERED_DECLINES_MAX: usize = 2 * DECLINES_MAX;
/// How long a peer that closed an idle session is left alone, in milliseconds.
const DONE_WAIT_MS: u64 = 60_000;
/// How long the listener of two connections waits for their dialer to end one, and how far apart two may
/// have opened that were dialed by either side at once, in milliseconds: longer than a dead connection
/// takes to be noticed (8 s), and than a dial takes (5 s).
const DUPLICATE_WAIT_MS: u64 = 10_000;

impl Replica {
    pub(super) fn on_notices<L: Ledger>(
        &mut self,
        now: Now,
        notices: Vec<Notice>,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault<L>> {
        for notice in notices {
            match notice {
                Notice::Opened(id) => self.on_opened(now, id, ledger, effects)?,
                Notice::Grew => self.totals.runs_taken += 1,
                Notice::Duplicate(events) => {
                    self.totals.runs_duplicate += 1;
                    self.totals.events_duplicate += events as u64;
                }
                Notice::Declined(author) => {
                    self.totals.declined += 1;
                    self.asks.forget(&author);
                    for session in self.sessions.values_mut() {
                        session.leave_out(author, &self.feeds);
                    }
                }
                Notice::Twin(boot) => {
                    if boot != self.me.boot {
                        self.twin = Some(boot);
                    }
                }
                Notice::Pong(id, token) => self.pings.answered(id, token, effects),
                Notice::Probe(id, probe) => self.on_probe(now, id, &probe, effects),
                Notice::Probed(id, probed) => self.on_probed(now, id, probed, effects),
                Notice::Over(id, bye) => self.on_over(now, id, &bye, effects),
            }
        }
        Ok(())
    }

    fn on_opened<L: Ledger>(
        &mut self,
        now: Now,
        id: SessionId,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault<L>> {
        let Some(session) = self.sessions.get(&id) else { return Ok(()) };
        let (peer, Some(hello)) = (session.peer, session.hello()) else { return Ok(()) };
        let (boot, is_radio) = (hello.boot, session.is_radio());
        // A clock that was never set says nothing of the time.
        if hello.clock_ms >= self.config.clock_floor_ms {
            self.clock_offsets.insert(peer, hello.clock_ms.wrapping_sub(now.wall_ms) as i64);
        }
        if is_radio {
            return Ok(());
        }
        let introduction = Introduction {
            name: hello.name.clone(),
            software: hello.software.clone(),
            protocol: session.version(),
            capabilities: hello.capabilities,
            rtt_ms: session.rtt_ms,
        };
        self.peers.opened(peer, introduction, now.wall_ms);
        ledger.set_meta(META_PEERS, &self.peers.encode(now.wall_ms))?;
        self.ping_opened(now, peer, effects);
        self.end_duplicates(now, peer, boot, ledger, effects)
    }

    /// Of two connections between the same node and boot number the one stays that the smaller id
    /// dialed. Of two that one side dialed that side keeps the newer; the other, which may have seen
    /// them open in another order, leaves it the choice for a while. But who has a session dials no
    /// other: one that was open long before the newest is dead at its other end, though the transport
    /// here may take minutes to see it.
    pub(super) fn end_duplicates<L: Ledger>(
        &mut self,
        now: Now,
        peer: NodeId,
        boot: u64,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault<L>> {
        let dialed_by_smaller =
            |session: &Session| (session.role == Role::Dialer) == (self.me.node < peer);
        let same = |s: &&Session| {
            s.peer == peer && s.is_open() && s.hello().is_some_and(|hello| hello.boot == boot)
        };
        let mut same: Vec<&Session> = self.sessions.values().filter(same).collect();
        let newest_ms = same.iter().map(|session| session.opened_ms).max().unwrap_or(0);
        let is_young = |session: &Session| session.opened_ms + DUPLICATE_WAIT_MS > newest_ms;
        same.sort_unstable_by_key(|s| (is_young(s), dialed_by_smaller(s), s.opened_ms, s.id));
        let Some(kept) = same.pop() else { return Ok(()) };
        let is_theirs = |session: &Session| {
            is_young(session)
                && session.role == Role::Listener
                && kept.role == Role::Listener
                && kept.opened_ms + DUPLICATE_WAIT_MS > now.mono_ms
        };
        let surplus: Vec<SessionId> =
            same.into_iter().filter(|session| !is_theirs(session)).map(|s| s.id).collect();
        let mut notices = Vec::new();
        for surplus in surplus {
            let (session, mut shared) = self.session(now, surplus, ledger, effects, &mut notices);
            if let Some(session) = session {
                session
                    .bye(Bye::new(ByeCode::Duplicate, "another connection is kept"), &mut shared);
            }
        }
        self.on_notices(now, notices, ledger, effects)
    }

    fn on_over(&mut self, now: Now, id: SessionId, bye: &Bye, effects: &mut Vec<Effect>) {
        let then = match bye.code {
            // It is this node that goes, and comes back.
            ByeCode::Leaving if self.is_paused => PeerState::Reachable,
            ByeCode::Leaving => PeerState::Left,
            ByeCode::OtherNetwork | ByeCode::Version => PeerState::Refused,
            ByeCode::Done | ByeCode::Duplicate => PeerState::Reachable,
            ByeCode::Blocked | ByeCode::Unable => PeerState::BackingOff,
            ByeCode::Violation => {
                self.totals.violations += 1;
                PeerState::BackingOff
            }
            _ => PeerState::Lost,
        };
        self.end_session(now, id, then, &bye.text, effects);
    }

    /// For the next session with `peer`. Where there is no room the others' go, which then are told
    /// again.
    fn remember_declines(&mut self, peer: NodeId, declines: Declines) {
        self.peer_declines.remove(&peer);
        let held = |peers: &BTreeMap<NodeId, Declines>| peers.values().map(Declines::len).sum();
        let mut held: usize = held(&self.peer_declines);
        while held + declines.len() > REMEMBERED_DECLINES_MAX
            && let Some((_, forgotten)) = self.peer_declines.pop_first()
        {
            held -= forgotten.len();
        }
        self.peer_declines.insert(peer, declines);
    }

    pub(super) fn end_session(
        &mut self,
        now: Now,
        id: SessionId,
        then: PeerState,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.asks.close(id);
        self.pings.ended(id, &session.peer, reason, effects);
        self.probes.ended(id);
        self.twins_told.retain(|(a, b)| *a != id && *b != id);
        if let Some(declines) = session.peer_declines() {
            self.remember_declines(session.peer, declines);
        }
        if session.is_radio() {
            self.clock_offsets.remove(&session.peer);
            return;
        }
        let wait_ms = match then {
            // Whoever closed an idle session has others enough.
            PeerState::Reachable => DONE_WAIT_MS,
            PeerState::Refused | PeerState::BackingOff => DONE_WAIT_MS / 2,
            _ => self.rng.random_range(0..1000),
        };
        let retry = Retry { now, wait_ms };
        self.peers.disconnected(session.peer, then, reason, retry);
        if self.sessions.values().any(|other| other.peer == session.peer) {
            return;
        }
        self.clock_offsets.remove(&session.peer);
        // A dial that came to no greeting has led nowhere. Who turns others away for coming too often
        // would have this node come again within a second.
        let is_in_vain =
            then == PeerState::Lost && session.role == Role::Dialer && session.hello().is_none();
        if is_in_vain {
            let chance = self.rng.random();
            self.peers.dial_failed(session.peer, reason, now.mono_ms, chance);
        }
    }
}
