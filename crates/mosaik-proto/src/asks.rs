//! Which session is asked for which tip, and when.
//!
//! Invariants:
//! - An author is asked of one session at a time, another of its tips when that `Want` is closed.
//! - What is granted and not yet here stays within [`CREDIT_MAX`] for all peers together, half of it
//!   for one of them. Where the sender might wait for more, more is granted as soon as there is some.
//! - Feeds with the fewest missing events go first, then round by bytes: one huge feed can't starve
//!   a hundred small ones.
//! - What peers claim is bounded; what doesn't fit, the next comparison brings again. No claim is
//!   believed for ever: who doesn't bring what it claims is asked no more.

use std::collections::{BTreeMap, BTreeSet};

use mosaik_core::{feed::Tip, id::AuthorId, limits::TIPS_MAX};

use crate::{carrier::SessionId, message::RUN_BYTES_MAX};

/// Bytes of runs that may be on their way to this node from all peers together.
pub const CREDIT_MAX: u64 = 16 << 20;
/// Of these from one peer: so nobody can keep all from the others.
const CREDIT_SESSION_MAX: u64 = CREDIT_MAX / 2;
/// Bytes granted to one `Want` at the least, but for what is known to be short: the longest run. With
/// less than that left its sender may hold a run that doesn't fit the rest, and wait.
const CREDIT_ASK: u64 = RUN_BYTES_MAX as u64;
/// Bytes granted to one `Want` at the most, where nothing else is wanted of its session: enough that
/// runs are on their way and being verified while others are committed.
const WINDOW_MAX: u64 = 4 << 20;
/// What a missing event is reckoned at in the first credit of a `Want`, in bytes: a guess.
const CREDIT_EVENT: u64 = 1 << 10;
/// The least first credit, in bytes: one run goes whatever the credit, and few have fewer.
const CREDIT_MIN: u64 = 16 << 10;
/// How long a `Want` that may be in need of credit waits for it where what is missing seems to fit what
/// is left, in milliseconds. More credit for a `Want` that is served already would be a new `Want`,
/// and bring the runs that are on their way once more.
const TOP_UP_WAIT_MS: u64 = 500;
/// How long a session may be silent before another one is asked, in milliseconds.
pub(crate) const STALL_MS: u64 = 2000;
/// How long a session that speaks may bring no run of a `Want` before another one is asked, in
/// milliseconds: some full runs of other feeds on a slow line.
const UNSERVED_MS: u64 = 10_000;
/// How long where there is no other one, in milliseconds. Then the next comparison asks anew.
const GIVE_UP_MS: u64 = 60_000;
/// How old a head must be before it is asked for, in milliseconds: its run is mostly on its way.
pub(crate) const HEAD_WAIT_MS: u64 = 200;
/// Authors that may be claimed at a time.
const AUTHORS_MAX: usize = 65_536;
/// Tips of all of them that may be claimed at a time.
const CLAIMS_MAX: usize = 2 * AUTHORS_MAX;
/// The same, each counted for every session that claims it: so that many who claim the same cost no
/// more than some who claim different things.
const CLAIMANTS_MAX: usize = 2 * CLAIMS_MAX;

/// What peers have shown and is still to come. A node holds no more of this than its bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Awaited {
    /// Authors, at most 65,536.
    pub feeds: usize,
    /// Tips of them, at most 131,072.
    pub tips: usize,
    /// Bytes of runs that were asked for, at most [`CREDIT_MAX`].
    pub bytes: u64,
}

/// A `Want` to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Next {
    pub(crate) session: SessionId,
    pub(crate) author: AuthorId,
    /// None: all that the session holds.
    pub(crate) tip: Option<Tip>,
    pub(crate) credit: u64,
}

/// What one `Want` has to do with.
#[derive(Debug)]
struct Open {
    session: SessionId,
    /// What the session claimed when it began.
    tips: Vec<Tip>,
    /// Granted and not yet here.
    credit: u64,
    /// The most that it may have, by what else was wanted when it was granted last.
    window: u64,
    /// When it began or last brought a run.
    moved_ms: u64,
    /// Events and bytes that it has brought.
    got: (u64, u64),
    /// Whether the long locator has gone.
    is_long: bool,
    /// Where it stands in [`Asks::asked`].
    wakes_ms: u64,
    /// How many times longer its session takes than others.
    patience: u64,
}

impl Open {
    /// What is asked for. Many branches come for one `Want`, so that they cost one round trip.
    fn wanted(&self) -> Option<Tip> {
        match self.tips[..] {
            [tip] => Some(tip),
            _ => None,
        }
    }
}

/// A tip that is not held.
#[derive(Debug)]
struct Claim {
    tip: Tip,
    /// The sessions that say they hold it, ascending.
    sessions: Vec<SessionId>,
    /// Not to be asked for before this.
    due_ms: u64,
}

#[derive(Debug, Default)]
struct Claims {
    /// Ascending. A list: most have one, and the node of a tree would be ten times as large.
    tips: Vec<Claim>,
    stage: Stage,
    /// The session whose `Want` stalled just now: another one is next.
    avoid: Option<SessionId>,
    /// Missing events, as far as claimed.
    missing: u64,
    /// As many at first, and the bytes got, so that turns go round.
    rank: u64,
}

#[derive(Debug, Default)]
enum Stage {
    /// Not due yet.
    #[default]
    Young,
    /// To be asked for when there is credit.
    Waiting,
    /// Asked for.
    Asked(Open),
}

/// What is to be known of a session.
#[derive(Debug, Default)]
struct Line {
    granted: u64,
    heard_ms: u64,
}

/// What is claimed to be out there, and what is asked for.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    authors: BTreeMap<AuthorId, Claims>,
    /// Authors that are not due yet, by when they are.
    young: BTreeSet<(u64, AuthorId)>,
    /// Authors that wait, by rank, with each session that holds their greatest claimed tip.
    waiting: BTreeMap<SessionId, BTreeSet<(u64, AuthorId)>>,
    /// Authors with an open `Want`, by a time before which it neither stalls nor gets more credit. What
    /// comes moves those times on: then the later one is found when the earlier one is over.
    asked: BTreeSet<(u64, AuthorId)>,
    lines: BTreeMap<SessionId, Line>,
    /// Sessions that take longer than others, by how many times.
    slow: BTreeMap<SessionId, u64>,
    granted: u64,
    /// Tips of all authors.
    tips: usize,
    /// The same, each as often as it has claimants.
    claimants: usize,
    /// How often a tip was taken off the list.
    settled: u64,
}

impl Claims {
    /// Where `tip` stands, or would.
    fn place(&self, tip: &Tip) -> Result<usize, usize> {
        self.tips.binary_search_by_key(tip, |claim| claim.tip)
    }

    fn claimants(&self) -> usize {
        self.tips.iter().map(|claim| claim.sessions.len()).sum()
    }

    fn due_ms(&self) -> u64 {
        self.tips.iter().map(|claim| claim.due_ms).min().unwrap_or_default()
    }

    /// Whether `session` claims `tip`.
    fn has(&self, session: SessionId, tip: &Tip) -> bool {
        self.place(tip).is_ok_and(|at| self.tips[at].sessions.contains(&session))
    }

    /// The least tip below `tip` that `session` alone claims and that is not asked for: where there is no
    /// room for both, the greater is worth more, for a feed has seldom branches and brings the lesser along.
    fn lesser(&self, session: SessionId, tip: Tip) -> Option<Tip> {
        let asked = self.open().map_or(&[][..], |open| &open.tips);
        let is_its_own =
            |claim: &&Claim| claim.sessions == [session] && !asked.contains(&claim.tip);
        self.tips
            .iter()
            .filter(is_its_own)
            .map(|claim| claim.tip)
            .find(|lesser| lesser.seq < tip.seq)
    }

    /// Whether anybody else claims anything.
    fn has_others(&self, session: SessionId) -> bool {
        let others = |claim: &Claim| claim.sessions.iter().any(|other| *other != session);
        self.tips.iter().any(others)
    }

    /// All tips that `session` claims.
    fn of(&self, session: SessionId) -> Vec<Tip> {
        let of_session = self.tips.iter().filter(|claim| claim.sessions.contains(&session));
        of_session.map(|claim| claim.tip).collect()
    }

    /// The sessions that hold the greatest tip, but for the one to avoid if there is another. On a
    /// feed without branches that tip brings the rest along.
    fn holders(&self) -> Vec<SessionId> {
        let others = |claim: &Claim| -> Vec<SessionId> {
            claim.sessions.iter().filter(|other| Some(**other) != self.avoid).copied().collect()
        };
        let others = self.tips.iter().rev().map(others).find(|others| !others.is_empty());
        others.unwrap_or_else(|| self.avoid.into_iter().collect())
    }

    /// Bytes that the missing events will take, by the length of those that came; none, if none came.
    fn expected(&self, open: &Open) -> Option<u64> {
        let (events, bytes) = open.got;
        (events > 0).then(|| self.missing.saturating_mul(bytes.div_ceil(events)))
    }

    /// When the open `Want` gets more credit: at once if the events that are missing won't fit what is
    /// left. If none came, its sender may stand before a long run of an earlier `Want` for the same, to
    /// which this one only added its credit.
    fn top_up_at_ms(&self) -> Option<u64> {
        let open = self.open().filter(|open| open.credit < CREDIT_ASK.max(open.window / 2))?;
        let may_wait = open.credit < CREDIT_ASK;
        match self.expected(open) {
            Some(expected) if expected > open.credit => Some(0),
            Some(_) => may_wait.then_some(open.moved_ms + TOP_UP_WAIT_MS * open.patience),
            // On a slow line it is only late, and a further `Want` brings it twice.
            None => {
                let alone = may_wait && !self.has_others(open.session);
                alone.then_some(open.moved_ms + STALL_MS * open.patience)
            }
        }
    }

    fn open(&self) -> Option<&Open> {
        match &self.stage {
            Stage::Asked(open) => Some(open),
            Stage::Young | Stage::Waiting => None,
        }
    }

    fn open_mut(&mut self) -> Option<&mut Open> {
        match &mut self.stage {
            Stage::Asked(open) => Some(open),
            Stage::Young | Stage::Waiting => None,
        }
    }
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
        let known = self.authors.get(&author);
        let is_known = known.is_some_and(|claims| claims.place(&tip).is_ok());
        let is_full = known.is_some_and(|claims| claims.tips.len() >= TIPS_MAX) && !is_known;
        let lesser = known.filter(|_| is_full).and_then(|claims| claims.lesser(session, tip));
        let has_room = match known {
            _ if self.claimants >= CLAIMANTS_MAX => {
                known.is_some_and(|claims| claims.has(session, &tip))
            }
            None => self.authors.len() < AUTHORS_MAX && self.tips < CLAIMS_MAX,
            Some(_) if is_full => lesser.is_some(),
            Some(_) => is_known || self.tips < CLAIMS_MAX,
        };
        if !has_room {
            return false;
        }
        if known.is_none() {
            let claims = Claims { rank: gap, ..Claims::default() };
            self.authors.insert(author, claims);
        }
        self.change(&author, |claims| {
            claims.tips.retain(|claim| Some(claim.tip) != lesser);
            // A feed that grows while it is fetched: what is expected of it decides on its credit.
            claims.missing = claims.missing.max(gap);
            let at = claims.place(&tip).unwrap_or_else(|at| {
                // Exactly so much room: most authors have one.
                claims.tips.reserve_exact(1);
                claims.tips.insert(at, Claim { tip, sessions: Vec::with_capacity(1), due_ms });
                at
            });
            let claim = &mut claims.tips[at];
            claim.due_ms = claim.due_ms.min(due_ms);
            if let Err(at) = claim.sessions.binary_search(&session) {
                claim.sessions.insert(at, session);
            }
        });
        true
    }

    /// Tips of `author` that are claimed.
    pub(crate) fn claimed(&self, author: &AuthorId) -> Vec<Tip> {
        let claims = self.authors.get(author);
        claims.map(|claims| claims.tips.iter().map(|claim| claim.tip).collect()).unwrap_or_default()
    }

    /// Whether any session still claims this tip.
    pub(crate) fn is_claimed(&self, author: &AuthorId, tip: Tip) -> bool {
        self.authors.get(author).is_some_and(|claims| claims.place(&tip).is_ok())
    }

    /// Whether `session` claims anything of this author.
    pub(crate) fn is_claimed_by(&self, session: SessionId, author: &AuthorId) -> bool {
        self.authors.get(author).is_some_and(|claims| !claims.of(session).is_empty())
    }

    /// How often a claim was settled or given up: as long as it is the same, all stand.
    pub(crate) fn settled(&self) -> u64 {
        self.settled
    }

    /// How much is claimed and on its way.
    pub(crate) fn awaited(&self) -> Awaited {
        Awaited { feeds: self.authors.len(), tips: self.tips, bytes: self.granted }
    }

    /// How many events each session has that are not here, as far as it has said: for each feed those
    /// above `held`, the greatest seq here. Looks at every claim.
    pub(crate) fn behind(&self, held: impl Fn(&AuthorId) -> u64) -> BTreeMap<SessionId, u64> {
        let mut behind = BTreeMap::new();
        for (author, claims) in &self.authors {
            let held = held(author);
            let mut greatest: BTreeMap<SessionId, u64> = BTreeMap::new();
            for claim in &claims.tips {
                for session in &claim.sessions {
                    let seq = greatest.entry(*session).or_default();
                    *seq = claim.tip.seq.max(*seq);
                }
            }
            for (session, seq) in greatest {
                // A claimed tip that is no higher ends a branch that is not here.
                *behind.entry(session).or_default() += seq.saturating_sub(held).max(1);
            }
        }
        behind
    }

    /// Whether anything is claimed that is neither held nor given up.
    pub(crate) fn is_empty(&self) -> bool {
        self.authors.is_empty()
    }

    /// A tip is here now, or not wanted any more.
    pub(crate) fn settle(&mut self, author: &AuthorId, tip: Tip) {
        self.change(author, |claims| {
            claims.tips.retain(|claim| claim.tip != tip);
        });
    }

    /// Nothing of this author is wanted any more.
    pub(crate) fn forget(&mut self, author: &AuthorId) {
        self.change(author, |claims| claims.tips.clear());
    }

    /// `session` can't serve `tip` after all; none: nothing of the author.
    pub(crate) fn lacks(&mut self, session: SessionId, author: &AuthorId, tip: Option<Tip>) {
        self.change(author, |claims| {
            claims.tips.retain_mut(|claim| {
                if tip.is_none_or(|tip| tip == claim.tip) {
                    claim.sessions.retain(|other| *other != session);
                }
                !claim.sessions.is_empty()
            });
        });
    }

    /// The credit with which `session` may be sent the long locator for its open `Want` to `tip`: once.
    /// It is what is granted already, for nothing came for that.
    pub(crate) fn may_be_long(
        &mut self,
        session: SessionId,
        author: &AuthorId,
        tip: Option<Tip>,
    ) -> Option<u64> {
        let open = self.authors.get_mut(author).and_then(Claims::open_mut)?;
        let is_this = open.session == session && open.wanted() == tip;
        (is_this && !std::mem::replace(&mut open.is_long, true)).then_some(open.credit)
    }

    /// The session is gone.
    pub(crate) fn close(&mut self, session: SessionId) {
        let claims_of =
            |claims: &Claims| claims.tips.iter().any(|claim| claim.sessions.contains(&session));
        let authors: Vec<AuthorId> =
            self.authors.iter().filter(|(_, c)| claims_of(c)).map(|(author, _)| *author).collect();
        for author in authors {
            self.lacks(session, &author, None);
        }
        self.lines.remove(&session);
        self.slow.remove(&session);
    }

    /// The session takes so many times longer than others: it is given that much more time, and asked
    /// only for what no other has.
    pub(crate) fn slow(&mut self, session: SessionId, patience: u64) {
        self.slow.insert(session, patience);
    }

    /// Something came on a session, be it part of a frame.
    pub(crate) fn progress(&mut self, session: SessionId, now_ms: u64) {
        if let Some(line) = self.lines.get_mut(&session) {
            line.heard_ms = now_ms;
        }
    }

    /// A run of so many events and bytes came, asked for or not.
    pub(crate) fn received(
        &mut self,
        session: SessionId,
        author: &AuthorId,
        (events, bytes): (u64, u64),
        now_ms: u64,
    ) {
        let Some(claims) = self.authors.get_mut(author) else { return };
        claims.missing = claims.missing.saturating_sub(events);
        let rank = claims.rank.saturating_add(bytes);
        let Some(open) = claims.open_mut().filter(|open| open.session == session) else { return };
        let used = bytes.min(open.credit);
        open.credit -= used;
        open.moved_ms = now_ms;
        open.got = (open.got.0 + events, open.got.1 + bytes);
        claims.rank = rank;
        self.give_back(session, used);
        self.wake_earlier(author);
    }

    /// Asks for `author` at once if nothing stands against it: of `session`.
    pub(crate) fn ask_now(
        &mut self,
        session: SessionId,
        author: &AuthorId,
        now_ms: u64,
    ) -> Option<Next> {
        let claims = self.authors.get(author)?;
        if claims.open().is_some() || !self.has_credit(session) {
            return None;
        }
        if claims.of(session).is_empty() {
            return None;
        }
        Some(self.open(*author, session, now_ms))
    }

    /// All that may be asked for now: more of what comes, then what is new.
    pub(crate) fn next(&mut self, now_ms: u64) -> Vec<Next> {
        let woken = self.woken(now_ms);
        self.give_up_stalled(&woken, now_ms);
        while let Some((due_ms, author)) = self.young.first().copied()
            && due_ms <= now_ms
        {
            self.stage(&author, Stage::Waiting);
        }
        let mut next = self.top_up(&woken, now_ms);
        for author in &woken {
            if let Some(claims) = self.unlist(author) {
                self.list(*author, claims);
            }
        }
        while let Some((session, author)) = self.most_wanted() {
            next.push(self.open(author, session, now_ms));
        }
        next
    }

    /// When something becomes due or stalls, if anything waits.
    pub(crate) fn next_timeout_ms(&self) -> Option<u64> {
        let mut first_ms = self.young.first().map(|(due_ms, _)| *due_ms);
        for (wakes_ms, author) in &self.asked {
            let thirsty = self.authors.get(author).filter(|claims| self.is_thirsty(claims));
            let at_ms = thirsty.and_then(|claims| self.stalls_at_ms(claims)).unwrap_or(*wakes_ms);
            first_ms = Some(first_ms.map_or(at_ms, |first_ms| first_ms.min(at_ms)));
            if thirsty.is_none() {
                break;
            }
        }
        first_ms
    }

    /// Whether an open `Want` needs more credit at once and there is none: no time brings any.
    fn is_thirsty(&self, claims: &Claims) -> bool {
        let session = claims.open().map(|open| open.session);
        claims.top_up_at_ms().is_some() && session.is_some_and(|session| !self.has_credit(session))
    }

    /// Before when there is nothing to do for an open `Want`, unless a frame comes.
    fn wakes_at_ms(&self, claims: &Claims) -> u64 {
        let times = [claims.top_up_at_ms(), self.stalls_at_ms(claims)];
        times.into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    /// What came may have used up the credit of an open `Want`.
    fn wake_earlier(&mut self, author: &AuthorId) {
        let Some(claims) = self.authors.get(author) else { return };
        let wakes_ms = self.wakes_at_ms(claims);
        let Some(open) = self.authors.get_mut(author).and_then(Claims::open_mut) else { return };
        if wakes_ms < open.wakes_ms {
            self.asked.remove(&(open.wakes_ms, *author));
            self.asked.insert((wakes_ms, *author));
            open.wakes_ms = wakes_ms;
        }
    }

    /// The open `Want`s whose time may have come.
    fn woken(&self, now_ms: u64) -> Vec<AuthorId> {
        let is_due = |(wakes_ms, _): &&(u64, AuthorId)| *wakes_ms <= now_ms;
        let due = self.asked.iter().take_while(is_due);
        let mut woken: Vec<AuthorId> = due.map(|(_, author)| *author).collect();
        woken.sort_unstable();
        woken
    }

    fn has_credit(&self, session: SessionId) -> bool {
        let of_session = self.lines.get(&session).map_or(0, |line| line.granted);
        self.granted + CREDIT_ASK <= CREDIT_MAX && of_session + CREDIT_ASK <= CREDIT_SESSION_MAX
    }

    /// The most that a `Want` of a session with credit left may have, which has `credit` of it now and
    /// is to leave some for `others`: its share of what is left.
    fn window(&self, session: SessionId, credit: u64, others: usize) -> u64 {
        let of_session = self.lines.get(&session).map_or(0, |line| line.granted);
        let left = (CREDIT_MAX - self.granted).min(CREDIT_SESSION_MAX - of_session) + credit;
        // It may be among them itself, and something must be left for what comes next.
        let waiting = self.waiting.get(&session).map_or(0, BTreeSet::len) + others;
        (left / (waiting.max(1) as u64 + 1)).clamp(CREDIT_ASK, WINDOW_MAX)
    }

    fn grant(&mut self, session: SessionId, credit: u64, now_ms: Option<u64>) {
        self.granted += credit;
        let line = self.lines.entry(session).or_default();
        line.granted += credit;
        line.heard_ms = line.heard_ms.max(now_ms.unwrap_or_default());
    }

    fn give_back(&mut self, session: SessionId, credit: u64) {
        self.granted -= credit;
        if let Some(line) = self.lines.get_mut(&session) {
            line.granted -= credit;
        }
    }

    /// Of the authors that wait with a session that has credit left the one with the lowest rank,
    /// and of its sessions the one that has least to do.
    fn most_wanted(&self) -> Option<(SessionId, AuthorId)> {
        let first = |(session, authors): (&SessionId, &BTreeSet<(u64, AuthorId)>)| {
            let load = self.lines.get(session).map_or(0, |line| line.granted);
            let load = (self.slow.contains_key(session), load);
            let (rank, author) = authors.first().filter(|_| self.has_credit(*session))?;
            Some((*rank, *author, load, *session))
        };
        let (_, author, _, session) = self.waiting.iter().filter_map(first).min()?;
        Some((session, author))
    }

    /// More credit for the `Want`s that run low; those that have got least so far go first.
    fn top_up(&mut self, woken: &[AuthorId], now_ms: u64) -> Vec<Next> {
        let low = |author: &AuthorId| {
            let claims = self.authors.get(author)?;
            let open = claims.open()?;
            claims.top_up_at_ms().filter(|at_ms| *at_ms <= now_ms)?;
            Some((claims.rank, *author, open.session, open.wanted()))
        };
        let mut low: Vec<_> = woken.iter().filter_map(low).collect();
        low.sort_unstable();
        let mut next = Vec::new();
        for (at, (_, author, session, tip)) in low.iter().copied().enumerate() {
            if !self.has_credit(session) {
                continue;
            }
            let Some(claims) = self.authors.get(&author) else { continue };
            let Some(open) = claims.open() else { continue };
            let window = self.window(session, open.credit, low.len() - at - 1);
            let expected = claims.expected(open).unwrap_or(0);
            let credit = window.min(expected).saturating_sub(open.credit).max(CREDIT_ASK);
            if let Some(open) = self.authors.get_mut(&author).and_then(Claims::open_mut) {
                (open.credit, open.window) = (open.credit + credit, window);
                self.grant(session, credit, None);
                next.push(Next { session, author, tip, credit });
            }
        }
        next
    }

    fn open(&mut self, author: AuthorId, session: SessionId, now_ms: u64) -> Next {
        let claims = self.authors.get(&author);
        let (missing, tips) =
            claims.map(|claims| (claims.missing, claims.of(session))).unwrap_or_default();
        let window = self.window(session, 0, 0);
        let credit = missing.saturating_mul(CREDIT_EVENT).clamp(CREDIT_MIN, window);
        let (moved_ms, got, is_long) = (now_ms, (0, 0), false);
        let patience = self.slow.get(&session).copied().unwrap_or(1);
        let wakes_ms = 0;
        let open =
            Open { session, tips, credit, window, moved_ms, got, is_long, wakes_ms, patience };
        let tip = open.wanted();
        self.stage(&author, Stage::Asked(open));
        self.grant(session, credit, Some(now_ms));
        Next { session, author, tip, credit }
    }

    /// When an open `Want` is given up if nothing comes.
    fn stalls_at_ms(&self, claims: &Claims) -> Option<u64> {
        let open = claims.open()?;
        if !claims.has_others(open.session) {
            return Some(open.moved_ms + GIVE_UP_MS * open.patience);
        }
        let heard_ms = self.lines.get(&open.session).map_or(0, |line| line.heard_ms);
        let stall_ms = heard_ms.max(open.moved_ms) + STALL_MS * open.patience;
        Some(stall_ms.min(open.moved_ms + UNSERVED_MS * open.patience))
    }

    /// A `Want` that brings nothing is closed, soon where another session says it has something of the
    /// feed too: that one is asked first. Only who is alone with its claim is believed no more.
    fn give_up_stalled(&mut self, woken: &[AuthorId], now_ms: u64) {
        for author in woken.iter().copied() {
            let Some(claims) = self.authors.get(&author) else { continue };
            if self.stalls_at_ms(claims).is_none_or(|ms| ms > now_ms) {
                continue;
            }
            let Some(Open { session, credit, .. }) = claims.open() else { continue };
            let (session, credit) = (*session, *credit);
            if claims.has_others(session) {
                self.give_back(session, credit);
                if let Some(claims) = self.unlist(&author) {
                    let (stage, avoid) = (Stage::Waiting, Some(session));
                    self.list(author, Claims { stage, avoid, ..claims });
                }
            } else {
                self.lacks(session, &author, None);
            }
        }
    }

    /// Changes the claims of an author, and closes its `Want` if what it asked for is no longer claimed
    /// of the session that is asked.
    fn change(&mut self, author: &AuthorId, change: impl FnOnce(&mut Claims)) {
        let Some(mut claims) = self.unlist(author) else { return };
        let before = claims.tips.len();
        self.tips -= before;
        self.claimants -= claims.claimants();
        change(&mut claims);
        self.tips += claims.tips.len();
        self.claimants += claims.claimants();
        self.settled += u64::from(claims.tips.len() < before);
        if let Stage::Asked(open) = &claims.stage
            && !open.tips.iter().any(|tip| claims.has(open.session, tip))
        {
            let (session, credit) = (open.session, open.credit);
            self.give_back(session, credit);
            claims.stage = Stage::Young;
        }
        if !claims.tips.is_empty() {
            self.list(*author, claims);
        }
    }

    fn stage(&mut self, author: &AuthorId, stage: Stage) {
        if let Some(claims) = self.unlist(author) {
            self.list(*author, Claims { stage, avoid: None, ..claims });
        }
    }

    /// Takes an author out of every list.
    fn unlist(&mut self, author: &AuthorId) -> Option<Claims> {
        let claims = self.authors.remove(author)?;
        match &claims.stage {
            Stage::Young => drop(self.young.remove(&(claims.due_ms(), *author))),
            Stage::Asked(open) => drop(self.asked.remove(&(open.wakes_ms, *author))),
            Stage::Waiting => {
                for session in claims.holders() {
                    if let Some(waiting) = self.waiting.get_mut(&session) {
                        waiting.remove(&(claims.rank, *author));
                        if waiting.is_empty() {
                            self.waiting.remove(&session);
                        }
                    }
                }
            }
        }
        Some(claims)
    }

    /// Puts an author into the list of its stage.
    fn list(&mut self, author: AuthorId, mut claims: Claims) {
        let wakes_ms = self.wakes_at_ms(&claims);
        match &mut claims.stage {
            Stage::Young => drop(self.young.insert((claims.due_ms(), author))),
            Stage::Asked(open) => {
                open.wakes_ms = wakes_ms;
                self.asked.insert((wakes_ms, author));
            }
            Stage::Waiting => {
                for session in claims.holders() {
                    self.waiting.entry(session).or_default().insert((claims.rank, author));
                }
            }
        }
        self.authors.insert(author, claims);
    }
}

#[cfg(test)]
mod tests;
