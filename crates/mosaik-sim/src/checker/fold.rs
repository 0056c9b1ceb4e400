//! The view once more, in the few words of its rules: records by the events that say something of
//! them, one after the other, whatever they replace.

use std::collections::{BTreeMap, BTreeSet};

use mosaik_core::{
    event::Event,
    id::{AuthorId, EventId},
    record::{RecordEvent, SetName},
    view::{self, Carried, Origin, Said},
};

use crate::{cluster::Cluster, storage::Snapshot};

/// What is said of one record.
#[derive(Default)]
struct Record {
    /// The sets of each field; the form is the field with the empty name.
    sets: BTreeMap<String, BTreeSet<Origin>>,
    /// Names of sets that some set of the field replaces.
    replaced: BTreeMap<String, BTreeSet<SetName>>,
    /// The greatest foreign set of each field: it replaces all before it.
    floors: BTreeMap<String, Origin>,
    archived: BTreeMap<Origin, bool>,
    created: BTreeSet<Origin>,
    notes: BTreeSet<Origin>,
    /// Who attached each file, with the size that is claimed.
    files: BTreeMap<(String, [u8; 32]), BTreeMap<Origin, u64>>,
}

/// What shows of one record.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    archived: bool,
    created: Option<EventId>,
    /// The candidates of each field, greatest first.
    fields: BTreeMap<String, Vec<EventId>>,
    notes: Vec<EventId>,
    files: Vec<(String, [u8; 32], EventId, u64)>,
}

/// What a set of events says of all records and authors.
#[derive(Default)]
struct Told {
    records: BTreeMap<String, Record>,
    /// The greatest profile of each author.
    profiles: BTreeMap<AuthorId, (Origin, String)>,
    /// An event that carries each foreign event, and the least of those that do.
    foreign: BTreeMap<EventId, (Event, Carried)>,
}

impl Cluster {
    /// Where all hold the same it is told once, and held against what each of them shows: digests
    /// don't cover all of that.
    pub(super) fn the_view_is_right(&mut self) -> Result<(), String> {
        let speak_for_all = !self.views_may_differ(&self.declined());
        let mut told = None;
        for (index, _, storage) in self.replicas() {
            let snapshot = storage.snapshot();
            if !speak_for_all {
                told = None;
            }
            let told = told.get_or_insert_with(|| Told::by(&snapshot));
            told.compare(&snapshot).map_err(|what| format!("node {index} shows {what}"))?;
        }
        Ok(())
    }
}

impl Told {
    fn by(snapshot: &Snapshot<'_>) -> Self {
        let mut told = Self::default();
        for branch in snapshot.branches() {
            for event in snapshot.events(&branch) {
                if let Some(said) = Said::by(&event)
                    && !snapshot.is_held_back(&event, branch.id)
                {
                    told.take(said);
                }
                if let Some(inner) = view::foreign(&event) {
                    let by = Carried { author: event.author, seq: event.seq, id: event.id };
                    let least = told.foreign.entry(inner.origin().id).or_insert((event, by));
                    least.1 = least.1.min(by);
                }
            }
        }
        told
    }

    fn take(&mut self, said: Said) {
        let origin = said.origin;
        if let Some(record) = said.meaning.record() {
            self.records.entry(record.to_owned()).or_default().take(said);
        } else if let RecordEvent::Profile { name } = said.meaning {
            let profile = self.profiles.entry(origin.author).or_insert((origin, String::new()));
            if profile.0 <= origin {
                *profile = (origin, name);
            }
        }
    }

    /// Whether a view shows just this.
    fn compare(&self, snapshot: &Snapshot<'_>) -> Result<(), String> {
        for (record, said) in &self.records {
            let (told, shown) = (said.shown(), shown(snapshot, record));
            if Some(&told) != shown.as_ref() {
                return Err(format!("{shown:?} of record {record}, it should be {told:?}"));
            }
        }
        for (author, (_, name)) in &self.profiles {
            let shown = view::profile(snapshot, author).expect("memory can be read");
            if shown.as_ref().map(|profile| &profile.name) != Some(name) {
                return Err(format!("{shown:?} of {}, it should be {name:?}", author.short()));
            }
        }
        for (event, by) in self.foreign.values() {
            let inner = view::foreign(event).expect("it carried one");
            let shown = view::carried(snapshot, &inner).expect("memory can be read");
            if shown != Some(*by) {
                return Err(format!(
                    "{shown:?} for what carries {}, it should be {by:?}",
                    inner.id
                ));
            }
        }
        Ok(())
    }
}

impl Record {
    fn take(&mut self, Said { origin, meaning, is_foreign }: Said) {
        let field = match &meaning {
            RecordEvent::Create { .. } => Some(""),
            RecordEvent::Set { field, .. } => Some(field.as_str()),
            _ => None,
        };
        if let Some(field) = field.filter(|_| is_foreign) {
            let floor = self.floors.entry(field.to_owned()).or_insert(origin);
            *floor = (*floor).max(origin);
        }
        match meaning {
            RecordEvent::Create { .. } => {
                self.sets.entry(String::new()).or_default().insert(origin);
                self.archived.insert(origin, false);
                self.created.insert(origin);
            }
            RecordEvent::Set { field, over, .. } => {
                self.replaced.entry(field.clone()).or_default().extend(over);
                self.sets.entry(field).or_default().insert(origin);
            }
            RecordEvent::Note { .. } => drop(self.notes.insert(origin)),
            RecordEvent::Archive { archived, .. } => drop(self.archived.insert(origin, archived)),
            RecordEvent::Attach { field, blob, size, .. } => {
                self.files.entry((field, blob)).or_default().insert(origin, size);
            }
            RecordEvent::Profile { .. } => {}
        }
    }

    fn shown(&self) -> Shown {
        let is_replaced = |field: &String, set: &Origin| {
            self.replaced.get(field).is_some_and(|names| names.contains(&set.id.prefix()))
                || self.floors.get(field).is_some_and(|floor| set < floor)
        };
        let fields = self.sets.iter().map(|(field, sets)| {
            let candidates = sets.iter().rev().filter(|set| !is_replaced(field, set));
            (field.clone(), candidates.map(|set| set.id).collect::<Vec<_>>())
        });
        let files = self.files.iter().filter_map(|((field, blob), claims)| {
            let (origin, size) = claims.last_key_value()?;
            Some((field.clone(), *blob, origin.id, *size))
        });
        Shown {
            archived: self.archived.last_key_value().is_some_and(|(_, archived)| *archived),
            created: self.created.first().map(|origin| origin.id),
            fields: fields.filter(|(_, candidates)| !candidates.is_empty()).collect(),
            notes: self.notes.iter().map(|note| note.id).collect(),
            files: files.collect(),
        }
    }
}

fn shown(snapshot: &Snapshot<'_>, record: &str) -> Option<Shown> {
    let record = view::record(snapshot, record).expect("memory can be read")?;
    let form = record.form.iter().map(|form| ("", form));
    let fields = form.chain(record.fields.iter().map(|(name, field)| (name.as_str(), field)));
    let ids = |field: &view::Field| field.candidates().map(|c| c.origin.id).collect();
    let files = record.attachments.iter();
    Some(Shown {
        archived: record.archived,
        created: record.created_by.map(|origin| origin.id),
        fields: fields.map(|(name, field)| (name.to_owned(), ids(field))).collect(),
        notes: record.notes.iter().map(|note| note.origin.id).collect(),
        files: files.map(|f| (f.field.clone(), f.blob, f.origin.id, f.size)).collect(),
    })
}
