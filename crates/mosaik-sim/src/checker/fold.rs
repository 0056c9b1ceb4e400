//! The view once more, in the few words of its rules: records by the events that say something of
//! them, one after the other, whatever they replace.

use std::collections::{BTreeMap, BTreeSet};

use mosaik_core::{
    id::EventId,
    record::{RecordEvent, SetName},
    view::{self, Origin},
};

use crate::{cluster::Cluster, storage::Snapshot};

/// What is said of one record.
#[derive(Default)]
struct Said {
    /// The sets of each field; the form is the field with the empty name.
    sets: BTreeMap<String, BTreeSet<Origin>>,
    /// Names of sets that some set of the field replaces.
    replaced: BTreeMap<String, BTreeSet<SetName>>,
    archived: BTreeMap<Origin, bool>,
    notes: BTreeSet<Origin>,
}

/// What shows of one record: archived, candidates of each field, greatest first, and notes.
type Shown = (bool, BTreeMap<String, Vec<EventId>>, Vec<EventId>);

impl Cluster {
    /// Where all digests are equal one node speaks for all.
    pub(super) fn the_view_is_right(&mut self) -> Result<(), String> {
        let speak_for_all = !self.views_may_differ(&self.declined());
        let count = if speak_for_all { 1 } else { self.nodes.len() };
        for (index, _, storage) in self.replicas().take(count) {
            let snapshot = storage.snapshot();
            for (record, said) in said(&snapshot) {
                let (ours, theirs) = (said.shown(), shown(&snapshot, &record));
                if Some(&ours) != theirs.as_ref() {
                    return Err(format!(
                        "node {index} shows {theirs:?} of record {record}, it should be {ours:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}

fn said(snapshot: &Snapshot<'_>) -> BTreeMap<String, Said> {
    let mut records: BTreeMap<String, Said> = BTreeMap::new();
    for branch in snapshot.branches() {
        for event in snapshot.events(&branch) {
            let meaning =
                event.payload.bytes().map(|p| RecordEvent::decode(event.kind.as_str(), p));
            let Some(Ok(Some(meaning))) = meaning else { continue };
            if snapshot.is_held_back(&event, branch.id) {
                continue;
            }
            let Some(record) = meaning.record() else { continue };
            let said = records.entry(record.to_owned()).or_default();
            said.take(Origin::of(&event), meaning);
        }
    }
    records
}

impl Said {
    fn take(&mut self, origin: Origin, meaning: RecordEvent) {
        match meaning {
            RecordEvent::Create { .. } => {
                self.sets.entry(String::new()).or_default().insert(origin);
                self.archived.insert(origin, false);
            }
            RecordEvent::Set { field, over, .. } => {
                self.replaced.entry(field.clone()).or_default().extend(over);
                self.sets.entry(field).or_default().insert(origin);
            }
            RecordEvent::Note { .. } => drop(self.notes.insert(origin)),
            RecordEvent::Archive { archived, .. } => drop(self.archived.insert(origin, archived)),
            RecordEvent::Attach { .. } | RecordEvent::Profile { .. } => {}
        }
    }

    fn shown(&self) -> Shown {
        let is_replaced = |field: &String, set: &Origin| {
            self.replaced.get(field).is_some_and(|names| names.contains(&set.id.prefix()))
        };
        let fields = self.sets.iter().map(|(field, sets)| {
            let candidates = sets.iter().rev().filter(|set| !is_replaced(field, set));
            (field.clone(), candidates.map(|set| set.id).collect::<Vec<_>>())
        });
        let archived = self.archived.last_key_value().is_some_and(|(_, archived)| *archived);
        let fields = fields.filter(|(_, candidates)| !candidates.is_empty()).collect();
        (archived, fields, self.notes.iter().map(|note| note.id).collect())
    }
}

fn shown(snapshot: &Snapshot<'_>, record: &str) -> Option<Shown> {
    let record = view::record(snapshot, record).expect("memory can be read")?;
    let form = record.form.iter().map(|form| ("", form));
    let fields = form.chain(record.fields.iter().map(|(name, field)| (name.as_str(), field)));
    let ids = |field: &view::Field| field.candidates().map(|c| c.origin.id).collect();
    let fields = fields.map(|(name, field)| (name.to_owned(), ids(field))).collect();
    Some((record.archived, fields, record.notes.iter().map(|note| note.origin.id).collect()))
}
