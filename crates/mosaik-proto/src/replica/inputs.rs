//! What becomes of each input that is not a session's.

use mosaik_core::{
    event::Draft,
    feed::{Ledger, Tip, Way},
    id::{AuthorId, NodeId},
    run::VerifiedRun,
};

use super::{BACK_MS, META_BLOCKED, Replica};
use crate::{
    Fault,
    asks::HEAD_WAIT_MS,
    carrier::{Addresses, Effect, Now, Radio, Role, SessionId},
    feeds::Taken,
    hint::Hint,
    message::{Bye, ByeCode},
    session::{Notice, Session, Shared},
};

/// Sessions at a time, greeting ones included. Carriers have settings for it; none lets more in.
const SESSIONS_MAX: usize = 4096 + 64;
/// What peers are told.
const PAUSED: &str = "the node is paused";

impl Replica {
    pub(super) fn on_append<L: Ledger>(
        &mut self,
        now: Now,
        token: u64,
        drafts: Vec<Draft>,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault<L>> {
        if self.own_feed_until_ms.is_some() {
            self.waiting.push((token, drafts));
            return Ok(());
        }
        let wall = self.wall(now);
        let runs = self.feeds.append_own(drafts, wall, ledger)?;
        let events = runs.iter().flat_map(|run| run.events().iter().map(Tip::from)).collect();
        effects.push(Effect::Appended { token, author: self.feeds.own_author(), events });
        self.fresh.extend(runs);
        Ok(())
    }

    /// The own feed was fetched, or nobody gave it in time: appends go on.
    pub(super) fn own_feed_is_here<L: Ledger>(
        &mut self,
        now: Now,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault<L>> {
        self.own_feed_until_ms = None;
        for (token, drafts) in std::mem::take(&mut self.waiting) {
            self.on_append(now, token, drafts, ledger, effects)?;
        }
        Ok(())
    }

    pub(super) fn on_connected<L: Ledger>(
        &mut self,
        now: Now,
        (id, peer, role): (SessionId, NodeId, Role),
        (binding, radio): (Vec<u8>, Option<Radio>),
        ledger: &mut L,
        effects: &mut Vec<Effect>,
        notices: &mut Vec<Notice>,
    ) {
        if radio.is_none() {
            self.peers.connected(peer);
        }
        let remembered = self.peer_declines.get(&peer).cloned().unwrap_or_default();
        let wall = self.wall(now);
        let mut shared = Shared {
            now,
            wall,
            me: &self.me,
            feeds: &mut self.feeds,
            asks: &mut self.asks,
            ledger,
            effects,
            notices,
        };
        let mut session = Session::new(id, peer, role, binding, radio, remembered, &mut shared);
        if self.is_paused {
            session.bye(Bye::new(ByeCode::Unable, PAUSED), &mut shared);
        } else if self.peers.is_blocked(&peer) {
            session.bye(Bye::new(ByeCode::Blocked, "this node is blocked here"), &mut shared);
        } else if self.sessions.len() >= SESSIONS_MAX {
            session.bye(Bye::new(ByeCode::Unable, "too many sessions, try later"), &mut shared);
        }
        session.is_neighbour = self.neighbours.contains(&peer);
        self.sessions.insert(id, session);
    }

    pub(super) fn on_hint<L: Ledger>(
        &mut self,
        now: Now,
        from: NodeId,
        hint: Hint,
        ledger: &mut L,
        notices: &mut Vec<Notice>,
    ) -> Result<(), Fault<L>> {
        match hint {
            Hint::Head(author, tip) => {
                if self.feeds.declines(&author).is_none()
                    && self.feeds.find(&author, tip, ledger)?.is_none()
                {
                    self.claim_from(now, from, author, tip);
                }
            }
            Hint::Run(run) => {
                if self.take_untold(now, &run, ledger, notices)? == Taken::UnknownBase {
                    self.claim_from(now, from, run.author(), Tip::from(run.head()));
                }
            }
            Hint::Presence(presence) if presence.node == self.me.node => {
                // An older number may be this node's own last start, still under way.
                if presence.boot > self.me.boot {
                    notices.push(Notice::Twin(presence.boot));
                }
            }
            Hint::Presence(presence) => self.peers.observe_presence(&presence, now),
        }
        Ok(())
    }

    /// Takes a run that came outside of all sessions.
    fn take_untold<L: Ledger>(
        &mut self,
        now: Now,
        run: &VerifiedRun,
        ledger: &mut L,
        notices: &mut Vec<Notice>,
    ) -> Result<Taken, Fault<L>> {
        let taken = self.feeds.take_run(run, Way::Gossip, self.wall(now), ledger)?;
        match taken {
            Taken::New => notices.push(Notice::Grew),
            Taken::Held => notices.push(Notice::Duplicate(run.events().len())),
            Taken::Declined => notices.push(Notice::Declined(run.author())),
            Taken::UnknownBase | Taken::NoRoom => {}
        }
        Ok(taken)
    }

    /// A run that all around heard: it is told to nobody there who hears such.
    pub(super) fn on_overheard<L: Ledger>(
        &mut self,
        now: Now,
        from: Option<SessionId>,
        run: &VerifiedRun,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
        notices: &mut Vec<Notice>,
    ) -> Result<(), Fault<L>> {
        let (author, head) = (run.author(), Tip::from(run.head()));
        match self.take_untold(now, run, ledger, notices)? {
            Taken::New => drop(self.overheard.insert((author, head))),
            Taken::Held => {}
            Taken::UnknownBase => {
                let Some(from) = from else { return Ok(()) };
                let (session, mut shared) = self.session(now, from, ledger, effects, notices);
                if let Some(session) = session {
                    session.claim_overheard(author, head, &mut shared);
                }
                return Ok(());
            }
            Taken::NoRoom | Taken::Declined => return Ok(()),
        }
        for session in self.sessions.values_mut().filter(|it| it.hears_broadcasts()) {
            session.was_broadcast(&author, head.seq);
        }
        Ok(())
    }

    /// A head told by gossip is asked of the neighbour that passed it on, over its newest session:
    /// an older one may be dead already.
    pub(super) fn claim_from(&mut self, now: Now, from: NodeId, author: AuthorId, tip: Tip) {
        let session = self.sessions.values().rev().find(|s| s.peer == from && s.is_open());
        if let Some(session) = session {
            let greatest = self.feeds.feed(&author).map_or(0, |feed| feed.greatest().seq);
            let gap = tip.seq.saturating_sub(greatest);
            let due_ms = now.mono_ms + HEAD_WAIT_MS;
            self.asks.claim(session.id, author, tip, gap, due_ms);
        }
    }

    pub(super) fn on_neighbour(&mut self, now: Now, peer: NodeId, up: bool) {
        if up {
            self.neighbours.insert(peer);
            self.tell_presence_soon(now);
        } else {
            self.neighbours.remove(&peer);
        }
        for session in self.sessions.values_mut().filter(|session| session.peer == peer) {
            session.is_neighbour = up;
        }
    }

    pub(super) fn compare<L: Ledger>(
        &mut self,
        now: Now,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
        notices: &mut Vec<Notice>,
    ) {
        self.again += 1;
        let token = self.again;
        let over_ip = self.sessions.values().filter(|session| !session.is_radio());
        let ids: Vec<SessionId> = over_ip.map(|session| session.id).collect();
        for id in ids {
            let (session, mut shared) = self.session(now, id, ledger, effects, notices);
            if let Some(session) = session {
                session.compare(token, &mut shared);
            }
        }
    }

    pub(super) fn on_block<L: Ledger>(
        &mut self,
        now: Now,
        peer: NodeId,
        blocked: bool,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
        notices: &mut Vec<Notice>,
    ) -> Result<(), Fault<L>> {
        self.peers.block(peer, blocked, now);
        let all: Vec<u8> = self.peers.blocked().into_iter().flat_map(|node| node.0).collect();
        ledger.set_meta(META_BLOCKED, &all)?;
        let ids: Vec<SessionId> =
            self.sessions.values().filter(|s| blocked && s.peer == peer).map(|s| s.id).collect();
        for id in ids {
            let (session, mut shared) = self.session(now, id, ledger, effects, notices);
            if let Some(session) = session {
                session.bye(Bye::new(ByeCode::Blocked, "this node is blocked here"), &mut shared);
            }
        }
        Ok(())
    }

    /// Notes whether there is room for more events. While there is none nothing is asked for and no run
    /// is taken; what is held is compared and served on. Once there is room again the sessions are
    /// closed: the next ones begin with a comparison.
    ///
    /// # Errors
    ///
    /// As [`Replica::handle`].
    pub fn set_full<L: Ledger>(
        &mut self,
        now: Now,
        is_full: bool,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault<L>> {
        if !self.feeds.set_full(is_full) || is_full {
            return Ok(());
        }
        let mut notices = Vec::new();
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            let (session, mut shared) = self.session(now, id, ledger, effects, &mut notices);
            if let Some(session) = session {
                let why = "there is room again, and so a new beginning";
                session.bye(Bye::new(ByeCode::Unable, why), &mut shared);
            }
        }
        self.on_notices(now, notices, ledger, effects)
    }

    pub(super) fn leave<L: Ledger>(
        &mut self,
        now: Now,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
        notices: &mut Vec<Notice>,
    ) {
        self.say_goodbye(now, "the node is stopping", ledger, effects, notices);
    }

    /// While paused it has no sessions and dials nobody; reads and appends go on.
    pub(super) fn pause<L: Ledger>(
        &mut self,
        now: Now,
        on: bool,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
        notices: &mut Vec<Notice>,
    ) {
        if std::mem::replace(&mut self.is_paused, on) == on {
            return;
        }
        if on {
            self.say_goodbye(now, PAUSED, ledger, effects, notices);
        } else {
            self.peers.all_are_due(now.mono_ms);
            self.tell_presence_soon(now);
        }
    }

    fn say_goodbye<L: Ledger>(
        &mut self,
        now: Now,
        why: &str,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
        notices: &mut Vec<Notice>,
    ) {
        self.tell_presence(now, true, effects);
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            let (session, mut shared) = self.session(now, id, ledger, effects, notices);
            if let Some(session) = session {
                session.bye(Bye::new(ByeCode::Leaving, why), &mut shared);
            }
        }
    }

    /// Where this node is now. An address that it had not before says that a network is there: who
    /// could not be reached from the last one is tried again.
    pub(super) fn on_own_addresses(&mut self, now: Now, addresses: Addresses) {
        let is_new = addresses.direct.iter().any(|it| !self.own_addresses.direct.contains(it));
        let is_soon = self.back_ms.is_some_and(|ms| ms + BACK_MS > now.mono_ms);
        if is_new && !is_soon {
            self.back_ms = Some(now.mono_ms);
            self.peers.all_are_due(now.mono_ms);
        }
        self.own_addresses = addresses;
        self.tell_presence_soon(now);
    }
}
