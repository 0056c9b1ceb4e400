//! Events of meshlogd that become events of ours, each once.

use std::collections::{BTreeMap, BTreeSet};

use mosaik_core::{
    id::{AuthorId, EventId},
    kv::Kv,
    meshlog::{MeshlogEvent, MeshlogId, foreign_draft},
    view::{self, ViewError},
};

use super::{Decision, Refusal, Rows};

/// One event as it stands in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where in its file it stands.
    pub line: u64,
    /// Its JSON.
    pub wire: String,
}

/// What is known of events of meshlogd beyond that they are taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foreign {
    /// Those that are our own events, translated: they are not taken.
    pub translated: u64,
    /// Those taken that are signed. Nobody's key is known here: the signatures are not checked.
    pub unverified: u64,
    /// Those taken that are not signed.
    pub unsigned: u64,
    /// What is odd about those taken: line and what.
    pub notices: Vec<(u64, Notice)>,
}

/// Something that is odd about an event that is taken all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    /// What it follows isn't here.
    #[error(
        "event {seq} of {author:?} follows one that is not here; meshlogd itself would stop before it"
    )]
    Gap {
        /// Whose.
        author: String,
        /// Its place.
        seq: u64,
    },
    /// There is another one at its place.
    #[error(
        "another event {seq} of {author:?} is here; of a feed that branches meshlogd shows one part only"
    )]
    Branch {
        /// Whose.
        author: String,
        /// Its place.
        seq: u64,
    },
}

/// The events at one place of a foreign feed, by the ids that they have here and there.
type Place = BTreeSet<(EventId, MeshlogId)>;

/// Decides which of some events are taken: those that are not here, once each, in their order.
pub(super) fn import<K: Kv>(kv: &K, lines: &[Line]) -> Result<Decision, ViewError<K::Error>> {
    let (mut drafts, mut rows) = (Vec::new(), Rows::default());
    let mut taken: BTreeMap<(AuthorId, u64), Place> = BTreeMap::new();
    for Line { line, wire } in lines {
        let (draft, inner) = match foreign_draft(wire.as_bytes()) {
            Ok(good) => good,
            Err(error) => {
                rows.refused.push((*line, Refusal::Foreign(error)));
                continue;
            }
        };
        if inner.is_translated() {
            rows.foreign.translated += 1;
            continue;
        }
        let origin = inner.origin();
        let beside = place(kv, &taken, &origin.author, inner.seq)?;
        if beside.contains(&(origin.id, inner.id)) {
            rows.unchanged += 1;
            continue;
        }
        if let Some(notice) = notice(kv, &taken, &inner, &beside)? {
            rows.foreign.notices.push((*line, notice));
        }
        rows.created += 1;
        match inner.signature {
            Some(_) => rows.foreign.unverified += 1,
            None => rows.foreign.unsigned += 1,
        }
        taken.entry((origin.author, inner.seq)).or_default().insert((origin.id, inner.id));
        drafts.push(draft);
    }
    Ok(Decision { drafts, rows })
}

/// What is odd about an event beside which these others stand.
fn notice<K: Kv>(
    kv: &K,
    taken: &BTreeMap<(AuthorId, u64), Place>,
    inner: &MeshlogEvent,
    beside: &Place,
) -> Result<Option<Notice>, ViewError<K::Error>> {
    let (author, seq) = (inner.author.clone(), inner.seq);
    if !beside.is_empty() {
        return Ok(Some(Notice::Branch { author, seq }));
    }
    let Some(prev) = inner.prev else { return Ok(None) };
    let before = place(kv, taken, &inner.origin().author, seq - 1)?;
    let follows = before.iter().any(|(_, id)| *id == prev);
    Ok((!follows).then_some(Notice::Gap { author, seq }))
}

/// The events at one place that are here, or are about to be.
fn place<K: Kv>(
    kv: &K,
    taken: &BTreeMap<(AuthorId, u64), Place>,
    author: &AuthorId,
    seq: u64,
) -> Result<Place, ViewError<K::Error>> {
    let mut place = taken.get(&(*author, seq)).cloned().unwrap_or_default();
    view::foreign_events(kv, author, seq, |at| {
        if at.seq == seq {
            place.insert((at.event, at.id));
        }
        at.seq == seq
    })?;
    Ok(place)
}
