//! Serving a `Want`: which runs lead from what the asker holds to the tip that it asks for.
//!
//! Invariants:
//! - Every run that is sent has its base at the asker, or in a run sent before it.
//! - Only a position is kept for a `Want`: runs are read when the carrier has room for them.
//!
//! Source: FORMAT.md beside this crate, section 3; the locator is Bitcoin's.

use mosaik_core::{
    feed::{Feed, Ledger, Segment, Tip},
    id::AuthorId,
    limits::{RUN_EVENTS_MAX, RUN_LEN_MAX},
    run::{Fill, encode_events},
};

use crate::{
    Fault,
    message::{LOCATOR_MAX, LackReason},
};

/// How long a `Want` waits for credit, in milliseconds: its asker gives it up after as long.
const WAIT_MS: u64 = 60_000;

/// A `Want` that is being served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Serve {
    pub(crate) author: AuthorId,
    /// What was asked for.
    pub(crate) tip: Option<Tip>,
    /// Bytes of runs that may still go.
    pub(crate) credit: u64,
    /// What still has to go, the next stretch last.
    path: Vec<Segment>,
    /// Whether a run went: the first goes whatever the credit.
    begun: bool,
    /// Since when it waits for credit.
    waits_since_ms: Option<u64>,
    /// Bytes of payload in one run, as far as its author signed so often.
    run_len_max: usize,
}

/// What one step of serving gives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// The next run, encoded.
    Run(Vec<u8>),
    /// The credit is used up: it goes on when more comes.
    Waits,
    /// All is sent.
    Finished,
    /// What should be there can't be read as a run.
    Damaged,
}

impl Serve {
    /// Finds the way from what `locator` says the asker holds to `tip` and no further (or to every
    /// tip). A tip between two signed heads is reached with the run of the second.
    ///
    /// # Errors
    ///
    /// The outer one is the storage's; the inner one goes to the asker.
    pub(crate) fn begin<L: Ledger>(
        feed: &Feed,
        author: AuthorId,
        tip: Option<Tip>,
        locator: &[Tip],
        credit: u64,
        ledger: &L,
    ) -> Result<Result<Self, LackReason>, Fault<L>> {
        let mut known = Vec::new();
        let mut any = false;
        for at in locator {
            if *at == Tip::ROOT {
                any = true;
            } else if let Some(branch) = feed.find(*at, ledger)? {
                any = true;
                let mut path = feed.path(branch);
                // Of the branch itself the asker holds the part up to its event.
                if let Some(last) = path.last_mut() {
                    last.to = at.seq;
                }
                known.extend(path);
            }
        }
        if !any {
            return Ok(Err(LackReason::SendLongLocator));
        }
        let targets = match tip {
            Some(tip) => match feed.find(tip, ledger)? {
                Some(branch) => vec![(branch, tip.seq)],
                None => return Ok(Err(LackReason::Gone)),
            },
            None => feed.branches().iter().map(|branch| (branch.id, branch.tip.seq)).collect(),
        };
        let mut path: Vec<Segment> = Vec::new();
        for (target, end) in targets {
            for part in feed.path(target) {
                let part = Segment { to: part.to.min(end), ..part };
                let done = known.iter().chain(&path).filter(|other| other.branch == part.branch);
                let from = done.map(|other| other.to + 1).max().unwrap_or(part.from).max(part.from);
                if from <= part.to {
                    path.push(Segment { from, ..part });
                }
            }
        }
        path.reverse();
        let (begun, waits_since_ms) = (false, None);
        Ok(Ok(Self { author, tip, credit, path, begun, waits_since_ms, run_len_max: RUN_LEN_MAX }))
    }

    /// Gives runs of about so many bytes, where their author signed so often.
    pub(crate) fn in_short_runs(&mut self, run_len_max: usize) {
        self.run_len_max = run_len_max.min(RUN_LEN_MAX);
    }

    /// How many events still have to go.
    pub(crate) fn events(&self) -> u64 {
        self.path.iter().map(|part| part.to + 1 - part.from).sum()
    }

    /// Whether it doesn't wait for credit.
    pub(crate) fn may_go(&self) -> bool {
        self.waits_since_ms.is_none()
    }

    /// More credit came for it.
    pub(crate) fn grant(&mut self, credit: u64) {
        self.credit = self.credit.saturating_add(credit);
        self.waits_since_ms = None;
    }

    /// It waits for credit at `now_ms`. Whether it is still worth keeping, where everything takes
    /// `patience` times as long as usual.
    pub(crate) fn waits(&mut self, patience: u64, now_ms: u64) -> bool {
        *self.waits_since_ms.get_or_insert(now_ms) + WAIT_MS * patience > now_ms
    }

    /// Reads the next run, if the credit allows one.
    pub(crate) fn next<L: Ledger>(&mut self, ledger: &L) -> Result<Served, Fault<L>> {
        let Some(part) = self.path.last().copied() else {
            return Ok(Served::Finished);
        };
        if self.begun && self.credit == 0 {
            return Ok(Served::Waits);
        }
        let short = match self.run_len_max {
            RUN_LEN_MAX => None,
            len_max => read_run(part, len_max, ledger)?,
        };
        // Where the next signed head is further than that, up to it.
        let Some((last, bytes)) =
            short.map_or_else(|| read_run(part, RUN_LEN_MAX, ledger), |run| Ok(Some(run)))?
        else {
            return Ok(Served::Damaged);
        };
        let len = bytes.len() as u64;
        if self.begun && len > self.credit {
            return Ok(Served::Waits);
        }
        self.begun = true;
        self.credit = self.credit.saturating_sub(len);
        self.path.pop();
        if last < part.to {
            self.path.push(Segment { from: last + 1, ..part });
        }
        Ok(Served::Run(bytes))
    }
}

/// The longest run of a stretch from its start, encoded, and the seq of its last event. Where the stretch ends at a fork below the next
/// signed head, the run goes on to that head: it alone vouches for the events before the fork.
fn read_run<L: Ledger>(
    part: Segment,
    len_max: usize,
    ledger: &L,
) -> Result<Option<(u64, Vec<u8>)>, Fault<L>> {
    let bound = part.from.saturating_add(RUN_EVENTS_MAX as u64 - 1);
    let mut events = match ledger.events(part.branch, part.from, bound, len_max) {
        Err(error) if L::is_damage(&error) => return Ok(None),
        events => events?,
    };
    let mut fill = Fill::default();
    let fitting = events.iter().take_while(|event| fill.take(&event.kind, &event.payload)).count();
    events.truncate(fitting);
    let Some(last) = events.last() else {
        return Ok(None);
    };
    let within = ledger.signed_up_to(part.branch, part.from, last.seq.min(part.to))?;
    let head = match within {
        // The next head after a fork's place covers this one as well: send only the one.
        Some((seq, _)) if seq < part.to && last.seq >= part.to => {
            match ledger.signed_from(part.branch, part.to)? {
                Some(head) if head.0 <= last.seq => Some(head),
                _ => within,
            }
        }
        Some(head) => Some(head),
        None => ledger.signed_from(part.branch, part.from)?,
    };
    let Some((seq, signature)) = head.filter(|(seq, _)| *seq <= last.seq) else {
        return Ok(None);
    };
    events.truncate((seq - part.from + 1) as usize);
    Ok(Some((seq, encode_events(&events, &signature))))
}

/// What a `Want` says first: one's own tips, falling; seq 0 where nothing is held.
pub(crate) fn short_locator(feed: Option<&Feed>) -> Vec<Tip> {
    let mut tips = feed.map(Feed::tips).unwrap_or_default();
    tips.reverse();
    if tips.is_empty() { vec![Tip::ROOT] } else { tips }
}

/// What it says when the sender knows none of the tips: 1, 2, 4, ... below each of the 8 greatest,
/// the small steps of all first, and seq 0.
pub(crate) fn long_locator<L: Ledger>(feed: &Feed, ledger: &L) -> Result<Vec<Tip>, Fault<L>> {
    let mut branches: Vec<_> = feed.branches().iter().collect();
    branches.sort_unstable_by_key(|branch| std::cmp::Reverse(branch.tip));
    branches.truncate(8);
    let tips = feed.tips();
    let mut found: Vec<Tip> = Vec::new();
    'all: for step in (0..64).map(|power| 1u64 << power) {
        if branches.iter().all(|branch| branch.tip.seq <= step) {
            break;
        }
        for branch in branches.iter().filter(|branch| branch.tip.seq > step) {
            let seq = branch.tip.seq - step;
            let part =
                feed.path(branch.id).into_iter().find(|part| (part.from..=part.to).contains(&seq));
            let Some(part) = part else { continue };
            let Some(id) = ledger.id_at(part.branch, seq)? else { continue };
            let at = Tip { seq, id };
            if !found.contains(&at) && !tips.contains(&at) {
                found.push(at);
            }
            if found.len() == LOCATOR_MAX - 1 {
                break 'all;
            }
        }
    }
    found.sort_unstable_by_key(|at| std::cmp::Reverse(*at));
    found.push(Tip::ROOT);
    Ok(found)
}
