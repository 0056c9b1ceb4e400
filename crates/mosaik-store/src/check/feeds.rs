//! Feeds and the lists beside them.

use std::collections::BTreeMap;

use mosaik_core::{
    event::{Event, Hasher, Payload},
    feed::{Branch, BranchId, Tip, Way},
    id::EventId,
    limits::RUN_EVENTS_MAX,
    record::is_reserved,
    run::verify_head,
    view,
};
use redb::{ReadableTable, ReadableTableMetadata};

use super::{CheckError, CheckPhase, CheckProgress, Report, view::Fold};
use crate::{
    block::{self, BlockError},
    fault::StoreError,
    read,
    tables::{ReadTables, Tables},
};

type Step<'a> = dyn FnMut(CheckProgress) -> Result<(), CheckError> + 'a;

/// Rows of a list between two looks at whether to go on.
const ROWS_A_STEP: u64 = 4096;

/// What is carried along while branches are walked.
struct Walk<'a, 'txn> {
    tables: &'a ReadTables,
    hasher: &'a Hasher,
    report: &'a mut Report,
    fold: &'a mut Fold<'txn>,
    /// Where branches begin on an earlier one, and which.
    forks: BTreeMap<(BranchId, u64), Vec<BranchId>>,
    /// The ids of the events that these branches begin after.
    bases: BTreeMap<BranchId, EventId>,
    /// Whether anything may be held back: else that is not looked up for each event.
    any_held: bool,
}

/// Reads all blocks, checks chains and signatures, and folds what is here.
pub(super) fn walk(
    tables: &ReadTables,
    hasher: &Hasher,
    branches: &[Branch],
    report: &mut Report,
    fold: &mut Fold<'_>,
    step: &mut Step<'_>,
) -> Result<(), CheckError> {
    let mut forks: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for branch in branches {
        report.branches += 1;
        let Some((parent, seq)) = branch.parent else { continue };
        let at = branches.binary_search_by_key(&parent, |branch| branch.id);
        let is_rooted = at.is_ok_and(|at| {
            let held = &branches[at];
            parent < branch.id && held.author == branch.author && held.covers(seq)
        });
        if is_rooted {
            forks.entry((parent, seq)).or_default().push(branch.id);
        } else {
            report.find(
                "branches",
                format!("{} begins after an event that is not held", name(branch)),
            );
        }
    }
    let any_held = tables.held().len().map_err(StoreError::from)? > 0;
    let bases = BTreeMap::new();
    let mut walk = Walk { tables, hasher, report, fold, forks, bases, any_held };
    let total = read::events_total(tables).unwrap_or(0);
    for branch in branches {
        walk.branch(branch, total, step)?;
    }
    let blocks = tables.blocks().len().map_err(StoreError::from)?;
    if blocks != report.blocks {
        let more = blocks.saturating_sub(report.blocks);
        report.find("blocks", format!("{more} belong to no branch"));
        fold.give_up();
    }
    let counted = read::events_total(tables);
    let held: u64 = branches.iter().map(|branch| branch.tip.seq + 1 - branch.first_seq()).sum();
    if counted.as_ref().ok() != Some(&held) {
        report.find(
            "meta",
            format!(
                "the branches hold {held} events, counted are {}",
                match counted {
                    Ok(counted) => counted.to_string(),
                    Err(_) => "none".to_owned(),
                }
            ),
        );
    }
    Ok(())
}

/// How a person finds a branch.
fn name(branch: &Branch) -> String {
    format!("feed {} (branch {})", branch.author.short(), branch.id.0)
}

impl Walk<'_, '_> {
    fn branch(
        &mut self,
        branch: &Branch,
        total: u64,
        step: &mut Step<'_>,
    ) -> Result<(), CheckError> {
        let number = branch.id.0;
        let rows = self.tables.blocks().range((number, 0)..=(number, u64::MAX));
        let mut rows = rows.map_err(StoreError::from)?;
        let mut next = rows.next().transpose().map_err(StoreError::from)?;
        // What the next block must begin with, where that is known.
        let mut base = match branch.parent {
            None => Some(EventId::ZERO),
            Some(_) => self.bases.get(&branch.id).copied(),
        };
        let mut expected = branch.first_seq();
        let mut signed = expected.saturating_sub(1);
        while let Some((key, bytes)) = next {
            let first = key.value().1;
            next = rows.next().transpose().map_err(StoreError::from)?;
            self.report.blocks += 1;
            if first > expected {
                self.damaged(branch, (expected, first - 1), "are not there");
                base = None;
            } else if first < expected {
                self.damaged(branch, (first, expected - 1), "are of another branch");
                base = None;
            }
            let end = match &next {
                None => Some(branch.tip),
                Some((key, bytes)) => block::base(bytes.value())
                    .ok()
                    .map(|id| Tip { seq: key.value().1.saturating_sub(1), id }),
            };
            expected = end.map_or(first, |end| end.seq).saturating_add(1);
            let read = end.map(|end| {
                (end, block::events(self.hasher, branch.author, first, bytes.value(), end))
            });
            match read {
                // The next block is too short to say where it begins, and is told of itself.
                None => base = None,
                Some((end, Ok(events))) => {
                    if base.is_some_and(|base| base != events[0].prev) {
                        self.damaged(
                            branch,
                            (first, end.seq),
                            "do not follow the event before them",
                        );
                    } else {
                        self.events(branch, &events, &mut signed)?;
                    }
                    base = Some(end.id);
                }
                Some((end, Err(error))) => {
                    match error {
                        BlockError::Length { found, expected } if found < expected => {
                            self.damaged(branch, (found + 1, expected), "are not there");
                        }
                        error => {
                            self.damaged(branch, (first, end.seq), &format!("are damaged: {error}"))
                        }
                    }
                    base = Some(end.id);
                    signed = end.seq;
                }
            }
            step(CheckProgress { phase: CheckPhase::Events, done: self.report.events, total })?;
        }
        if expected <= branch.tip.seq {
            self.damaged(branch, (expected, branch.tip.seq), "are not there");
        } else if signed < branch.tip.seq {
            let what = format!("{} has no signature over its last event", name(branch));
            self.report.find("signatures", what);
        }
        Ok(())
    }

    fn damaged(&mut self, branch: &Branch, (from, to): (u64, u64), what: &str) {
        self.fold.give_up();
        self.report.find("blocks", format!("events {from} to {to} of {} {what}", name(branch)));
    }

    /// Takes the events of one block, whose chain holds.
    fn events(
        &mut self,
        branch: &Branch,
        events: &[Event],
        signed: &mut u64,
    ) -> Result<(), CheckError> {
        let number = branch.id.0;
        let (first, last) = (events[0].seq, events[events.len() - 1].seq);
        let signatures = self.tables.signatures().range((number, first)..=(number, last));
        for row in signatures.map_err(StoreError::from)? {
            let (key, signature) = row.map_err(StoreError::from)?;
            let seq = key.value().1;
            let event = &events[(seq - first) as usize];
            if verify_head(&branch.author, &event.id, signature.value()) {
                self.report.signatures += 1;
            } else {
                let what = format!("event {seq} of {} is not what its author signed", name(branch));
                self.report.find("signatures", what);
            }
            // A block may lie where it should not, before what was signed.
            if seq.saturating_sub(*signed) > RUN_EVENTS_MAX as u64 {
                let what = format!("events {} to {seq} of {} have none", *signed + 1, name(branch));
                self.report.find("signatures", what);
            }
            *signed = seq.max(*signed);
        }
        for event in events {
            self.event(branch, event)?;
        }
        Ok(())
    }

    fn event(&mut self, branch: &Branch, event: &Event) -> Result<(), CheckError> {
        self.report.events += 1;
        for child in self.forks.get(&(branch.id, event.seq)).into_iter().flatten() {
            self.bases.insert(*child, event.id);
        }
        if let Payload::Absent { .. } = event.payload {
            let (author, id) = (event.author.as_bytes(), event.id.as_bytes());
            let key = (author, branch.id.0, event.seq, id);
            if self.tables.missing().get(key).map_err(StoreError::from)?.is_some() {
                self.report.missing += 1;
            } else if is_reserved(event.kind.as_str()) {
                let what = format!(
                    "the absent payload of event {} of {} is not listed",
                    event.seq,
                    name(branch)
                );
                self.report.find("missing", what);
            } else {
                self.report.pruned += 1;
            }
        }
        if self.any_held
            && let Some(stamp) = view::stamp(event)
            && read::is_held_back(self.tables, stamp, branch.id, event.seq)?
        {
            self.report.held_back += 1;
            return self.fold.pass_over(event);
        }
        self.fold.take(event)
    }
}

/// Checks the log of arrivals, and that the lists name nothing else than what was walked.
pub(super) fn lists(
    tables: &ReadTables,
    branches: &[Branch],
    report: &mut Report,
    step: &mut Step<'_>,
) -> Result<(), CheckError> {
    arrivals(tables, branches, report, step)?;
    let are_events_whole = !report.findings.iter().any(|finding| finding.table == "blocks");
    if !are_events_whole {
        // What the lists say of damaged events can't be known.
        return Ok(());
    }
    let signatures = tables.signatures().len().map_err(StoreError::from)?;
    if signatures != report.arrivals {
        let what = format!("there are {signatures}, for {} arrivals", report.arrivals);
        report.find("signatures", what);
    }
    let missing = tables.missing().len().map_err(StoreError::from)?;
    if missing > report.missing {
        report.find(
            "missing",
            format!("{missing} payloads are listed, {} of them are absent", report.missing),
        );
    }
    let held = tables.held().len().map_err(StoreError::from)?;
    if held != report.held_back {
        let what = format!("{held} events are listed, {} of them are here", report.held_back);
        report.find("held", what);
    }
    Ok(())
}

/// One row for each append: each branch from its first event to its last, in order, without a hole.
fn arrivals(
    tables: &ReadTables,
    branches: &[Branch],
    report: &mut Report,
    step: &mut Step<'_>,
) -> Result<(), CheckError> {
    let mut ends: BTreeMap<u32, u64> =
        branches.iter().map(|branch| (branch.id.0, branch.first_seq() - 1)).collect();
    let total = tables.arrivals().len().map_err(StoreError::from)?;
    for row in tables.arrivals().iter().map_err(StoreError::from)? {
        let (number, row) = row.map_err(StoreError::from)?;
        let (branch, first, last, _, way) = row.value();
        report.arrivals += 1;
        let mut wrong = Vec::new();
        if number.value() != report.arrivals {
            wrong.push(format!("number {} should be {}", number.value(), report.arrivals));
        }
        match ends.get_mut(&branch) {
            None => wrong.push(format!("there is no branch {branch}")),
            Some(end) => {
                if first != *end + 1 || last < first {
                    wrong.push(format!("events {first} to {last} come after {end}"));
                }
                *end = last;
            }
        }
        if Way::from_u8(way).is_none() {
            wrong.push(format!("way {way} is unknown"));
        }
        if tables.signatures().get((branch, last)).map_err(StoreError::from)?.is_none() {
            wrong.push(format!("its last event, {last}, has no signature"));
        }
        for what in wrong {
            report.find("arrivals", format!("{} of branch {branch}: {what}", number.value()));
        }
        if report.arrivals.is_multiple_of(ROWS_A_STEP) {
            step(CheckProgress { phase: CheckPhase::Lists, done: report.arrivals, total })?;
        }
    }
    for branch in branches {
        if ends.get(&branch.id.0) != Some(&branch.tip.seq) {
            report.find("arrivals", format!("the last ones of {} are not there", name(branch)));
        }
    }
    Ok(())
}
