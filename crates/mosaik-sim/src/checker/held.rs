//! What an honest node holds: chained, signed, and nothing that its frontier doesn't say.

use std::collections::{BTreeMap, BTreeSet};

use mosaik_core::{
    event::{Event, Hasher},
    feed::{Branch, Tip},
    id::EventId,
    run::verify_head,
    trie::Prefix,
};
use mosaik_proto::replica::Replica;
use rand::RngExt;

use crate::{
    cluster::Cluster,
    storage::{Snapshot, Storage},
};

/// What was found right before, at this node or another.
#[derive(Default)]
struct Seen {
    events: BTreeMap<EventId, Event>,
    heads: BTreeSet<(EventId, [u8; 64])>,
    /// Whether signatures are checked, which is most of the work.
    with_signatures: bool,
}

/// Of so many clusters one has its signatures checked: who doesn't check them would let forged runs
/// through in many.
const SIGNATURES_IN: u32 = 4;

impl Cluster {
    pub(super) fn all_is_verified(&mut self) -> Result<(), String> {
        let with_signatures = self.rng.random_range(0..SIGNATURES_IN) == 0;
        let mut seen = Seen { with_signatures, ..Seen::default() };
        for (index, replica, storage) in self.replicas() {
            verify(replica, storage, &self.nodes[index].hasher, &mut seen)
                .map_err(|what| format!("node {index}: {what}"))?;
        }
        Ok(())
    }
}

fn verify(
    replica: &Replica,
    storage: &Storage,
    hasher: &Hasher,
    seen: &mut Seen,
) -> Result<(), String> {
    let snapshot = storage.snapshot();
    let branches = snapshot.branches();
    let mut told = 0;
    for (author, feed) in replica.frontier().under(&Prefix::EMPTY, &BTreeSet::new()) {
        for branch in feed.branches() {
            told += 1;
            if !branches.contains(branch) {
                let seq = branch.tip.seq;
                return Err(format!("the frontier tells {} {seq}, it isn't held", author.short()));
            }
        }
    }
    if told < branches.len() {
        return Err("a branch is held that the frontier doesn't tell".into());
    }
    branches.iter().try_for_each(|branch| verify_branch(&snapshot, branch, hasher, seen))
}

fn verify_branch(
    snapshot: &Snapshot<'_>,
    branch: &Branch,
    hasher: &Hasher,
    seen: &mut Seen,
) -> Result<(), String> {
    let Branch { id, author, parent, tip } = *branch;
    let wrong = |what: &str, seq: u64| Err(format!("{what} at seq {seq} of {}", author.short()));
    let mut last = match parent {
        None => Tip::ROOT,
        Some((parent, seq)) => match snapshot.id_at(parent, seq) {
            Some(id) => Tip { seq, id },
            None => return wrong("a branch begins in nothing", seq),
        },
    };
    let mut signed = snapshot.signed_from(id, branch.first_seq());
    for event in snapshot.events(branch) {
        if (event.author, event.seq, event.prev) != (author, last.seq + 1, last.id) {
            return wrong("an event that doesn't follow the one before", event.seq);
        }
        last = Tip::from(&event);
        if let Some((seq, signature)) = signed.filter(|(seq, _)| *seq == event.seq) {
            let is_new = seen.with_signatures && seen.heads.insert((event.id, signature));
            if is_new && !verify_head(&author, &event.id, &signature) {
                return wrong("a head that its author didn't sign", seq);
            }
            signed = snapshot.signed_from(id, seq + 1);
            if signed.is_none() && seq != tip.seq {
                return wrong("an event that no signed head vouches for", seq + 1);
            }
        }
        if seen.events.get(&event.id) != Some(&event) {
            let Event { seq, prev, hlc, kind, payload, .. } = &event;
            if hasher.id(&author, *seq, prev, *hlc, kind, payload) != event.id {
                return wrong("an event of another name", event.seq);
            }
            seen.events.insert(event.id, event);
        }
    }
    if last != tip || signed.is_some() { wrong("a tip that isn't there", tip.seq) } else { Ok(()) }
}
