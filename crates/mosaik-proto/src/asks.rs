//! Which session is asked for which tip, and when.
//!
//! Invariants:
//! - An author is asked of one session at a time, another of its tips when that `Want` is closed.
//! - What is granted and not yet here stays within [`CREDIT_MAX`] for all peers together.
//! - Feeds with the fewest missing events go first, then round by bytes: one huge feed can't starve
//!   a hundred small ones.
//! - What peers claim is bounded; what doesn't fit, the next comparison brings again.

use std::collections::{BTreeMap, BTreeSet};

use mosaik_core::{feed::Tip, id::AuthorId, limits::TIPS_MAX};

use crate::{carrier::SessionId, message::RUN_BYTES_MAX};

/// Bytes of runs that may be on their way to this node from all peers together.
pub const CREDIT_MAX: u64 = 16 << 20;
/// Bytes granted to one `Want` at a time: the longest run. A `Want` gets more when less than that is
/// left, for then its sender may hold a run that doesn't fit the rest, and wait.
pub(crate) const CREDIT_ASK: u64 = RUN_BYTES_MAX as u64;
/// How long a `Want` may bring nothing before another session is asked, in milliseconds.
pub(crate) const STALL_MS: u64 = 2000;
/// How long a `Want` may bring no run while others wait for its credit, in milliseconds: a full run
/// takes that long at 80 kbit/s.
const HOARD_MS: u64 = 30_000;
/// How old a head must be before it is asked for, in milliseconds: its run is mostly on its way.
pub(crate) const HEAD_WAIT_MS: u64 = 200;
/// Authors that may wait to be asked for.
const AUTHORS_MAX: usize = 65_536;

/// A `Want` to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Next {
    pub(crate) session: SessionId,
    pub(crate) author: AuthorId,
    pub(crate) tip: Tip,
    pub(crate) credit: u64,
}

#[derive(Debug)]
struct Open {
    session: SessionId,
    tip: Tip,
    /// Granted and not yet here.
    credit: u64,
    /// When the session last brought anything.
    progress_ms: u64,
    /// When it last brought a run of this author.
    run_ms: u64,
}

#[derive(Debug, Default)]
struct Claims {
    /// Tips that are not held, and the sessions that say they hold them.
    tips: BTreeMap<Tip, BTreeSet<SessionId>>,
    open: Option<Open>,
    /// Not before this.
    due_ms: u64,
    /// Missing events, as far as claimed; then the bytes got, so that turns go round.
    rank: u64,
}

/// What is claimed to be out there, and what is asked for.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    authors: BTreeMap<AuthorId, Claims>,
    /// Authors without an open `Want`, by rank.
    waiting: BTreeSet<(u64, AuthorId)>,
    /// Authors with one.
    open: BTreeSet<AuthorId>,
    granted: u64,
}

impl Asks {
    /// Notes that `session` says it holds `tip`, which is not held here; `gap` is how many events
    /// that is above what is. Whether there was room for it.
    pub(crate) fn claim(
        &mut self,
        session: SessionId,
        author: AuthorId,
        tip: Tip,
        gap: u64,
        due_ms: u64,
    ) -> bool {
        if self.authors.len() >= AUTHORS_MAX && !self.authors.contains_key(&author) {
            return false;
        }
        let claims = self.authors.entry(author).or_insert_with(|| {
            self.waiting.insert((gap, author));
            Claims { rank: gap, due_ms, ..Claims::default() }
        });
        claims.due_ms = claims.due_ms.min(due_ms);
        let has_room = claims.tips.len() < TIPS_MAX || claims.tips.contains_key(&tip);
        if has_room {
            claims.tips.entry(tip).or_default().insert(session);
        }
        has_room
    }

    /// Tips of `author` that are claimed.
    pub(crate) fn claimed(&self, author: &AuthorId) -> Vec<Tip> {
        self.authors
            .get(author)
            .map(|claims| claims.tips.keys().copied().collect())
            .unwrap_or_default()
    }

    /// Whether any session still claims this tip.
    pub(crate) fn is_claimed(&self, author: &AuthorId, tip: Tip) -> bool {
        self.authors.get(author).is_some_and(|claims| claims.tips.contains_key(&tip))
    }

    /// Whether `session` is being asked for `author`.
    pub(crate) fn is_asked(&self, session: SessionId, author: &AuthorId) -> bool {
        let open = self.authors.get(author).and_then(|claims| claims.open.as_ref());
        open.is_some_and(|open| open.session == session)
    }

    /// Whether anything is claimed that is neither held nor given up.
    pub(crate) fn is_empty(&self) -> bool {
        self.authors.is_empty()
    }

    /// A tip is here now, or not wanted any more.
    pub(crate) fn settle(&mut self, author: &AuthorId, tip: Tip) {
        self.change(author, |claims| {
            claims.tips.remove(&tip);
        });
    }

    /// Nothing of this author is wanted any more.
    pub(crate) fn forget(&mut self, author: &AuthorId) {
        self.change(author, |claims| claims.tips.clear());
    }

    /// `session` can't serve `tip` after all; none: nothing of the author.
    pub(crate) fn lacks(&mut self, session: SessionId, author: &AuthorId, tip: Option<Tip>) {
        self.change(author, |claims| {
            claims.tips.retain(|claimed, sessions| {
                if tip.is_none_or(|tip| tip == *claimed) {
                    sessions.remove(&session);
                }
                !sessions.is_empty()
            });
        });
    }

    /// The session is gone.
    pub(crate) fn close(&mut self, session: SessionId) {
        let authors: Vec<AuthorId> = self.authors.keys().copied().collect();
        for author in authors {
            self.lacks(session, &author, None);
        }
    }

    /// Something came on a session, be it part of a frame.
    pub(crate) fn progress(&mut self, session: SessionId, now_ms: u64) {
        for author in &self.open {
            if let Some(open) = self.authors.get_mut(author).and_then(|claims| claims.open.as_mut())
                && open.session == session
            {
                open.progress_ms = now_ms;
            }
        }
    }

    /// A run of `len` bytes came, asked for or not.
    pub(crate) fn received(
        &mut self,
        session: SessionId,
        author: &AuthorId,
        len: u64,
        now_ms: u64,
    ) {
        let Some(claims) = self.authors.get_mut(author) else { return };
        let Some(open) = claims.open.as_mut().filter(|open| open.session == session) else {
            return;
        };
        claims.rank = claims.rank.saturating_add(len);
        let used = len.min(open.credit);
        open.credit -= used;
        open.run_ms = now_ms;
        self.granted -= used;
    }

    fn has_credit(&self) -> bool {
        self.granted + CREDIT_ASK <= CREDIT_MAX
    }

    /// Asks for `author` at once if nothing stands against it: of `session`.
    pub(crate) fn ask_now(
        &mut self,
        session: SessionId,
        author: &AuthorId,
        now_ms: u64,
    ) -> Option<Next> {
        if !self.has_credit() {
            return None;
        }
        let claims = self.authors.get_mut(author)?;
        if claims.open.is_some() {
            return None;
        }
        let tip = *claims.tips.iter().rev().find(|(_, sessions)| sessions.contains(&session))?.0;
        Some(self.open(*author, session, tip, now_ms))
    }

    /// All that may be asked for now: more of what comes, then what is new.
    pub(crate) fn next(&mut self, now_ms: u64) -> Vec<Next> {
        self.give_up_stalled(now_ms);
        let mut next = self.top_up();
        let mut load: BTreeMap<SessionId, usize> = BTreeMap::new();
        for author in &self.open {
            if let Some(open) = self.authors.get(author).and_then(|claims| claims.open.as_ref()) {
                *load.entry(open.session).or_default() += 1;
            }
        }
        let due: Vec<AuthorId> = self
            .waiting
            .iter()
            .filter(|(_, author)| self.authors.get(author).is_some_and(|c| c.due_ms <= now_ms))
            .map(|(_, author)| *author)
            .take(((CREDIT_MAX - self.granted) / CREDIT_ASK) as usize)
            .collect();
        for author in due {
            let Some(claims) = self.authors.get(&author) else { continue };
            // The greatest tip: on a feed without branches it brings the rest along.
            let Some((tip, sessions)) = claims.tips.last_key_value() else { continue };
            let least =
                sessions.iter().min_by_key(|session| load.get(session).copied().unwrap_or(0));
            let Some(session) = least.copied() else { continue };
            *load.entry(session).or_default() += 1;
            next.push(self.open(author, session, *tip, now_ms));
        }
        next
    }

    /// When something becomes due or stalls, if anything waits.
    pub(crate) fn next_timeout_ms(&self) -> Option<u64> {
        let due =
            self.waiting.iter().filter_map(|(_, author)| Some(self.authors.get(author)?.due_ms));
        let stalls = self.open.iter().filter_map(|author| {
            let claims = self.authors.get(author)?;
            let open = claims.open.as_ref()?;
            let alternative =
                claims.tips.values().any(|sessions| sessions.iter().any(|s| *s != open.session));
            alternative.then_some(open.progress_ms + STALL_MS)
        });
        let hoards = self.open.iter().filter_map(|author| {
            let open = self.authors.get(author)?.open.as_ref()?;
            Some(open.run_ms + HOARD_MS)
        });
        let has_credit = self.has_credit();
        due.filter(|_| has_credit).chain(stalls).chain(hoards.filter(|_| !has_credit)).min()
    }

    /// More credit for the `Want`s that run low; those that have got least so far go first.
    fn top_up(&mut self) -> Vec<Next> {
        let low = |author: &AuthorId| {
            let claims = self.authors.get(author)?;
            let open = claims.open.as_ref().filter(|open| open.credit < CREDIT_ASK)?;
            Some((claims.rank, *author, open.session, open.tip))
        };
        let mut low: Vec<_> = self.open.iter().filter_map(low).collect();
        low.sort_unstable();
        low.truncate(((CREDIT_MAX - self.granted) / CREDIT_ASK) as usize);
        for (_, author, ..) in &low {
            if let Some(open) = self.authors.get_mut(author).and_then(|claims| claims.open.as_mut())
            {
                open.credit += CREDIT_ASK;
                self.granted += CREDIT_ASK;
            }
        }
        let want = |(_, author, session, tip)| Next { session, author, tip, credit: CREDIT_ASK };
        low.into_iter().map(want).collect()
    }

    fn open(&mut self, author: AuthorId, session: SessionId, tip: Tip, now_ms: u64) -> Next {
        if let Some(claims) = self.authors.get_mut(&author) {
            self.waiting.remove(&(claims.rank, author));
            claims.open = Some(Open {
                session,
                tip,
                credit: CREDIT_ASK,
                progress_ms: now_ms,
                run_ms: now_ms,
            });
        }
        self.open.insert(author);
        self.granted += CREDIT_ASK;
        Next { session, author, tip, credit: CREDIT_ASK }
    }

    /// A `Want` that brings nothing is closed where another session says it has the feed too, or
    /// where others wait for its credit.
    fn give_up_stalled(&mut self, now_ms: u64) {
        let has_credit = self.has_credit();
        let stalled: Vec<(AuthorId, SessionId)> = self
            .open
            .iter()
            .filter_map(|author| {
                let claims = self.authors.get(author)?;
                let open = claims.open.as_ref()?;
                let late = open.progress_ms + STALL_MS <= now_ms;
                let other = claims
                    .tips
                    .values()
                    .any(|sessions| sessions.iter().any(|s| *s != open.session));
                let hoards = !has_credit && open.run_ms + HOARD_MS <= now_ms;
                ((late && other) || hoards).then_some((*author, open.session))
            })
            .collect();
        for (author, session) in stalled {
            self.lacks(session, &author, None);
        }
    }

    /// Changes the claims of an author, and closes its `Want` if its tip is no longer claimed of the
    /// session that is asked.
    fn change(&mut self, author: &AuthorId, change: impl FnOnce(&mut Claims)) {
        let Some(claims) = self.authors.get_mut(author) else { return };
        let rank = claims.rank;
        change(claims);
        let closed = claims.open.as_ref().is_some_and(|open| {
            claims.tips.get(&open.tip).is_none_or(|sessions| !sessions.contains(&open.session))
        });
        if closed && let Some(open) = claims.open.take() {
            self.granted -= open.credit;
            self.open.remove(author);
            self.waiting.insert((claims.rank, *author));
        }
        if claims.tips.is_empty() {
            self.waiting.remove(&(rank, *author));
            self.authors.remove(author);
        }
    }
}

#[cfg(test)]
mod tests {
    use mosaik_core::id::EventId;

    use super::*;

    const A: AuthorId = AuthorId([1; 32]);
    const B: AuthorId = AuthorId([2; 32]);

    fn tip(seq: u64) -> Tip {
        Tip { seq, id: EventId([seq as u8; 32]) }
    }

    #[test]
    fn an_author_is_asked_of_one_session_and_of_another_when_it_stalls() {
        let mut asks = Asks::default();
        asks.claim(SessionId(1), A, tip(9), 9, 0);
        asks.claim(SessionId(2), A, tip(9), 9, 0);
        let first = asks.next(0);
        assert_eq!(first.len(), 1);
        assert_eq!(asks.next(STALL_MS - 1), []);
        let second = asks.next(STALL_MS);
        assert_eq!(second.len(), 1);
        assert_ne!(second[0].session, first[0].session);
    }

    #[test]
    fn a_stalled_want_stays_where_nobody_else_has_the_feed() {
        let mut asks = Asks::default();
        asks.claim(SessionId(1), A, tip(9), 9, 0);
        assert_eq!(asks.next(0).len(), 1);
        assert_eq!(asks.next(10 * STALL_MS), []);
        assert_eq!(asks.next_timeout_ms(), None);
    }

    #[test]
    fn the_feed_with_the_fewest_missing_events_goes_first() {
        let mut asks = Asks::default();
        asks.claim(SessionId(1), A, tip(900), 900, 0);
        asks.claim(SessionId(1), B, tip(2), 2, 0);
        let order: Vec<AuthorId> = asks.next(0).iter().map(|next| next.author).collect();
        assert_eq!(order, [B, A]);
    }

    #[test]
    fn all_credit_comes_back_when_what_was_asked_for_is_settled_or_its_session_gone() {
        let mut asks = Asks::default();
        asks.claim(SessionId(1), A, tip(9), 9, 0);
        asks.claim(SessionId(1), B, tip(9), 9, 0);
        assert_eq!(asks.next(0).len(), 2);
        asks.received(SessionId(1), &A, 100_000, 0);
        asks.settle(&A, tip(9));
        asks.close(SessionId(1));
        assert!(asks.is_empty());
        assert_eq!((asks.granted, asks.waiting.len(), asks.open.len()), (0, 0, 0));
    }

    /// Met by a seed: with half a run left nothing more was granted, and the sender's next run was
    /// longer than that.
    #[test]
    fn a_want_gets_more_credit_as_soon_as_the_longest_run_might_not_fit() {
        let mut asks = Asks::default();
        asks.claim(SessionId(1), A, tip(9_000), 9_000, 0);
        asks.next(0);
        asks.received(SessionId(1), &A, 1, 0);
        let more: Vec<u64> = asks.next(0).iter().map(|next| next.credit).collect();
        assert_eq!(more, [CREDIT_ASK]);
        asks.received(SessionId(1), &A, 1000, 0);
        assert_eq!(asks.next(0), []);
    }

    /// So many authors that all credit is granted.
    fn exhausted(session: SessionId) -> (Asks, usize) {
        let mut asks = Asks::default();
        let authors = (CREDIT_MAX / CREDIT_ASK) as usize;
        for i in 0..=authors {
            asks.claim(session, AuthorId([i as u8; 32]), tip(9), 9, 0);
        }
        assert_eq!(asks.next(0).len(), authors);
        (asks, authors)
    }

    #[test]
    fn credit_that_was_short_is_granted_when_others_have_used_theirs() {
        let (mut asks, _) = exhausted(SessionId(1));
        for author in [A, B] {
            asks.received(SessionId(1), &author, 1000, 0);
        }
        let first = asks.next(0);
        asks.settle(&AuthorId([3; 32]), tip(9));
        asks.settle(&AuthorId([4; 32]), tip(9));
        let all: BTreeSet<AuthorId> =
            first.iter().chain(&asks.next(0)).map(|next| next.author).collect();
        assert!(all.contains(&A) && all.contains(&B), "{all:?}");
    }

    #[test]
    fn a_peer_that_brings_no_run_does_not_keep_the_credit_from_others() {
        let (mut asks, authors) = exhausted(SessionId(1));
        let other = AuthorId([200; 32]);
        asks.claim(SessionId(2), other, tip(9), 9, 0);
        asks.progress(SessionId(1), HOARD_MS - 1);
        assert_eq!(asks.next(HOARD_MS - 1), []);
        assert_eq!(asks.next_timeout_ms(), Some(HOARD_MS));
        let next = asks.next(HOARD_MS);
        assert_eq!(asks.authors.len(), 2, "of {authors} none has brought a run");
        assert!(next.iter().any(|next| next.author == other));
    }
}
