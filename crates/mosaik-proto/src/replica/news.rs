//! News: to every session what has become durable here, to gossip what is this node's own.

use std::collections::BTreeSet;

use mosaik_core::{
    feed::{Ledger, Tip},
    id::AuthorId,
    run::VerifiedRun,
};

use super::Replica;
use crate::{
    Fault,
    carrier::{Effect, Now, SessionId},
    hint::{Hint, INLINE_RUN_MAX, Presence},
    message::run_frame,
    peers::PeerState,
    session::{BROADCAST_RUN_MAX, News, Session, Shared, UNASKED_MAX, event_run, settle_claims},
};

/// Own runs of a batch that go by broadcast at the most: who lacks more asks for all at once.
const BROADCASTS_MAX: usize = 4;
/// Presence is told at most this often, in milliseconds.
const PRESENCE_GAP_MS: u64 = 1_000;

/// The first of own runs, encoded: as many as a session takes at the most that nobody asked for.
fn may_go_unasked(fresh: &[VerifiedRun]) -> Vec<Vec<u8>> {
    let mut room = UNASKED_MAX;
    let fits = |run: &&VerifiedRun| {
        let rest = room.checked_sub(run.encoded_len());
        room = rest.unwrap_or(room);
        rest.is_some()
    };
    fresh.iter().take_while(fits).map(VerifiedRun::encode).collect()
}

impl Replica {
    /// Tells every session what has become durable in this batch, and gossip what is this node's.
    pub(super) fn tell_news<L: Ledger>(
        &mut self,
        now: Now,
        ledger: &mut L,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault<L>> {
        let fresh = std::mem::take(&mut self.fresh);
        let grown = self.feeds.take_grown();
        let own = self.feeds.own_author();
        // Sessions alone are quicker, and lose nothing.
        let by_gossip = !fresh.is_empty() && self.reaches_more_by_gossip();
        let mut news = News {
            is_bridge: self.is_bridge(),
            home: std::mem::take(&mut self.home),
            ..News::default()
        };
        self.sessions.values().for_each(|session| news.note(session));
        news.note_overheard(std::mem::take(&mut self.overheard));
        let is_broadcast = self.broadcast_own(&fresh, effects);
        if !self.sessions.is_empty() {
            let unasked = may_go_unasked(&fresh);
            let is_bridge = news.is_bridge;
            let to = self.sessions.values_mut().filter(|it| !it.is_between_bridges(is_bridge));
            for session in to.filter(|it| !(is_broadcast && it.hears_broadcasts())) {
                session.tell_own(&fresh, &unasked, by_gossip, effects);
            }
        }
        for run in fresh.iter().filter(|run| by_gossip && run.encoded_len() <= INLINE_RUN_MAX) {
            effects.push(Effect::Gossip(Hint::Run(run.clone())));
        }
        if let Some(last) = fresh.last().filter(|_| by_gossip)
            && last.encoded_len() > INLINE_RUN_MAX
        {
            effects.push(Effect::Gossip(Hint::Head(own, Tip::from(last.head()))));
        }
        let mut authors = BTreeSet::new();
        let mut notices = Vec::new();
        let over_radio: Vec<SessionId> =
            self.sessions.values().filter(|session| session.is_radio()).map(|it| it.id).collect();
        for (author, tip) in grown {
            authors.insert(author);
            let told =
                fresh.last().is_some_and(|run| author == own && Tip::from(run.head()) == tip);
            if !told {
                for session in self.sessions.values_mut().filter(|session| !session.is_radio()) {
                    session.tell_head(author, tip, effects);
                }
            }
            // Who is told: of what is this node's own, and was told above, bridges are in their turn.
            let mut to = Vec::new();
            for id in &over_radio {
                let (session, mut shared) = self.session(now, *id, ledger, effects, &mut notices);
                let Some(session) = session else { continue };
                let hears = session.hears_broadcasts();
                let is_known = match told {
                    true => !session.is_between_bridges(news.is_bridge) || (hears && is_broadcast),
                    false => hears && news.is_overheard(&(author, tip)),
                };
                if !is_known && session.is_turn((author, tip), &news, &mut shared) {
                    to.push((*id, hears));
                }
            }
            self.tell_over_radio((author, tip), to, (now, &news), ledger, effects)?;
        }
        for id in &over_radio {
            let (session, mut shared) = self.session(now, *id, ledger, effects, &mut notices);
            if let Some(session) = session {
                session.tell_due(news.is_bridge, &mut shared)?;
            }
        }
        self.home = news.home;
        self.sessions.values_mut().for_each(Session::has_told);
        let wall = self.wall(now);
        let mut shared = Shared {
            now,
            wall,
            me: &self.me,
            feeds: &mut self.feeds,
            asks: &mut self.asks,
            ledger,
            effects,
            notices: &mut notices,
        };
        for author in authors {
            settle_claims(&author, &mut shared)?;
        }
        Ok(())
    }

    /// Broadcasts own runs, if they are few and small, and somebody hears that. Whether they went so.
    fn broadcast_own(&self, fresh: &[VerifiedRun], effects: &mut Vec<Effect>) -> bool {
        let is_small = |run: &VerifiedRun| run.encoded_len() <= BROADCAST_RUN_MAX;
        let goes = self.is_broadcasting
            && (1..=BROADCASTS_MAX).contains(&fresh.len())
            && fresh.iter().all(is_small);
        if goes {
            let frames = fresh.iter().map(|run| run_frame(&run.encode(), false));
            effects.extend(frames.map(|frame| Effect::Broadcast { frame }));
        }
        goes
    }

    /// Tells an event to these sessions over radio: by one broadcast to those that hear it, where that is
    /// less, and to each of the others.
    fn tell_over_radio<L: Ledger>(
        &mut self,
        (author, tip): (AuthorId, Tip),
        to: Vec<(SessionId, bool)>,
        (now, news): (Now, &News),
        ledger: &mut L,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault<L>> {
        let hear = to.iter().filter(|(_, hears)| *hears).count();
        // What came over a link did not reach this node by broadcast, but mostly others.
        let from = if news.over_radio.contains(&(author, tip)) { 2 } else { 1 };
        let mut notices = Vec::new();
        let mut is_broadcast = false;
        if let Some((first, _)) = to.first().filter(|_| self.is_broadcasting && hear >= from) {
            let (_, mut shared) = self.session(now, *first, ledger, effects, &mut notices);
            let run = event_run(author, tip, &mut shared)?;
            if let Some(run) = run.filter(|run| run.len() <= BROADCAST_RUN_MAX) {
                effects.push(Effect::Broadcast { frame: run_frame(&run, false) });
                is_broadcast = true;
            }
        }
        for (id, _) in to.into_iter().filter(|(_, hears)| !(*hears && is_broadcast)) {
            let (session, mut shared) = self.session(now, id, ledger, effects, &mut notices);
            if let Some(session) = session {
                session.tell_event(author, tip, &mut shared)?;
            }
        }
        Ok(())
    }

    /// Whether this node has sessions over the internet. With others over radio it is a bridge between
    /// the two.
    pub fn is_bridge(&self) -> bool {
        self.sessions.values().any(|session| !session.is_radio() && session.is_open())
    }

    /// Whether gossip may come to anybody who has no session with this node.
    fn reaches_more_by_gossip(&self) -> bool {
        let is_there = |state| {
            !matches!(
                state,
                PeerState::Connected | PeerState::Left | PeerState::Blocked | PeerState::Refused
            )
        };
        !self.neighbours.is_empty() && self.peers.iter().any(|(_, peer)| is_there(peer.state()))
    }

    pub(super) fn tell_presence_soon(&mut self, now: Now) {
        let after_ms = self.last_presence_ms.map_or(now.mono_ms, |ms| ms + PRESENCE_GAP_MS);
        self.next_presence_ms = Some(after_ms.max(now.mono_ms));
    }

    pub(super) fn tell_presence(&mut self, now: Now, leaving: bool, effects: &mut Vec<Effect>) {
        self.next_presence_ms = None;
        self.last_presence_ms = Some(now.mono_ms);
        if self.neighbours.is_empty() {
            return;
        }
        let presence = Presence::sign(
            &self.config.node_key,
            &self.config.keys.fingerprint,
            self.me.boot,
            now.wall_ms,
            leaving,
            &self.me.name,
            &self.own_addresses,
        );
        effects.push(Effect::Gossip(Hint::Presence(presence)));
    }
}
