//! Pruning payloads that are due, in small steps between batches.

use std::time::{Duration, Instant};

use mosaik_core::{feed::Ledger, id::AuthorId};
use mosaik_store::{Batch, Pruned, StoreError};
use tracing::{info, warn};

use super::{Owner, cause};
use crate::{
    node::CLOCK_FLOOR_MS,
    retention::{Pass, Rule},
};

/// How long after the end of a walk over all events the next one begins.
///
/// An hour: a walk reads the whole store, some seconds of work for a million events.
const PASS_EVERY: Duration = Duration::from_secs(3600);
/// How long after an error of the store it begins anew.
const AFTER_TROUBLE: Duration = Duration::from_secs(60);
/// How long a walk rests between two steps.
const STEP_EVERY: Duration = Duration::from_millis(50);
/// Arrivals looked at in one step at most.
const ARRIVALS_A_STEP: u64 = 256;
/// Events after which a step ends: a run's worth, some milliseconds.
const EVENTS_A_STEP: u64 = 1024;

/// What is kept how long, and how far the walk is.
pub(super) struct Retention {
    rules: Vec<Rule>,
    walk: Option<Walk>,
    next_step: Option<Instant>,
}

struct Walk {
    pass: Pass,
    /// Arrivals up to this one are still to be looked at.
    left: u64,
    pruned: Pruned,
}

impl Retention {
    pub(super) fn new(rules: Vec<Rule>) -> Self {
        let next_step = (!rules.is_empty()).then(Instant::now);
        Self { rules, walk: None, next_step }
    }

    /// When there is something to do.
    pub(super) fn next_step(&self) -> Option<Instant> {
        self.next_step
    }
}

impl Owner {
    /// Takes one step of the walk, if it is time for one.
    pub(super) fn retain_if_due(&mut self) {
        let now = Instant::now();
        if self.retention.next_step.is_none_or(|at| at > now) {
            return;
        }
        if self.replica.is_none() {
            // The store is out of order: its way back comes first.
            self.retention.next_step = Some(now + AFTER_TROUBLE);
            return;
        }
        // Never by what peers say the time is: what is pruned everywhere is gone. By a clock that was
        // never set nothing is old.
        let wall_ms = self.now().wall_ms;
        let now_ms = if wall_ms < CLOCK_FLOOR_MS { 0 } else { wall_ms };
        let mut walk = self.retention.walk.take().unwrap_or_else(|| Walk {
            pass: Pass::new(&self.retention.rules),
            left: *self.desk.arrivals.borrow(),
            pruned: Pruned::default(),
        });
        match self.store.write(|batch| step(batch, &mut walk, now_ms)) {
            Ok(left) => walk.left = left,
            Err(error) => {
                warn!(error = cause(&error), "payloads are not pruned now");
                self.retention.next_step = Some(now + AFTER_TROUBLE);
                return;
            }
        }
        if walk.left > 0 {
            self.retention.walk = Some(walk);
            self.retention.next_step = Some(now + STEP_EVERY);
            return;
        }
        if walk.pruned.payloads > 0 {
            let Pruned { payloads, bytes } = walk.pruned;
            info!(payloads, bytes, "payloads are pruned, as retention says");
        }
        self.retention.next_step = Some(now + PASS_EVERY);
    }
}

/// Prunes what is due among the newest arrivals that are left, the newest first; returns the number of
/// the last one that is left then.
fn step(batch: &mut Batch<'_>, walk: &mut Walk, now_ms: u64) -> Result<u64, StoreError> {
    let first = walk.left.saturating_sub(ARRIVALS_A_STEP);
    let count = usize::try_from(walk.left - first).unwrap_or(0);
    let mut arrivals = batch.arrivals(first, count)?.into_iter().rev().peekable();
    let mut events = 0;
    while let Some(arrival) = arrivals.next() {
        let (branch, to) = (arrival.branch, arrival.last_seq);
        let (mut from, mut left) = (arrival.first_seq, arrival.number - 1);
        // Single events that came one after the other lie in the same blocks.
        while events + (to - from) < EVENTS_A_STEP
            && let Some(before) = arrivals.next_if(|before| {
                before.branch == branch && before.last_seq.checked_add(1) == Some(from)
            })
        {
            (from, left) = (before.first_seq, before.number - 1);
        }
        let pass = &mut walk.pass;
        match batch.prune(branch, from, to, &mut |event| pass.is_due(event, now_ms)) {
            Ok(pruned) => walk.pruned += pruned,
            // What can't be read can't be pruned; the check tells of it.
            Err(StoreError::Corrupt { table: "blocks", .. }) => {}
            Err(error) => return Err(error),
        }
        events += to - from + 1;
        if events >= EVENTS_A_STEP {
            return Ok(left);
        }
    }
    Ok(first)
}

/// Asks for the absent payloads at one place of a feed, as if retention had never taken them.
pub(super) fn want(batch: &mut Batch<'_>, author: &AuthorId, seq: u64) -> Result<(), StoreError> {
    for branch in batch.branches()? {
        if branch.author == *author && branch.covers(seq) {
            batch.want(branch.id, seq)?;
        }
    }
    Ok(())
}
