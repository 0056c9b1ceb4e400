//! The rules of the fold and of its digest, transcribed over a whole set at once, with postcard for
//! the bytes and no tree.

use std::collections::{BTreeMap, BTreeSet};

use mosaik_core::{
    id::{AuthorId, Fingerprint},
    kv::MemoryKv,
    record::RecordEvent,
    value::Value,
    view::{self, Conflict, Counts, Listed, Origin, RecordsQuery},
};
use serde::Serialize;

use crate::make::FORMS;

pub(crate) const NETWORK: Fingerprint = Fingerprint([5; 32]);

/// Where what an event says stands, what it says, and whether it was said in another system.
pub(crate) type Told<'a> = (Origin, &'a RecordEvent, bool);

/// A file's origin, size, media type and name.
type File = (Origin, u64, String, String);

/// One record, folded.
#[derive(Debug, Default)]
pub(crate) struct Slow {
    record: String,
    archived: bool,
    created_by: Option<Origin>,
    /// Candidates by name, ascending.
    fields: BTreeMap<String, Vec<(Origin, Value)>>,
    notes: Vec<(Origin, String)>,
    attachments: BTreeMap<(String, [u8; 32]), File>,
}

/// A candidate's id and value.
type Set = ([u8; 32], Raw);

/// What postcard makes of this is what the record digest is derived from.
#[derive(Serialize)]
struct Digested<'a> {
    record: &'a str,
    archived: bool,
    fields: Vec<(&'a str, Vec<Set>)>,
    notes: Vec<([u8; 32], &'a str)>,
    attachments: Vec<(&'a str, [u8; 32], u64, &'a str, &'a str)>,
}

/// The values that are made here, as a postcard enum.
#[derive(Serialize)]
enum Raw {
    Null,
    #[expect(dead_code, reason = "holds the place of tag 1")]
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

fn raw(value: &Value) -> Raw {
    match value {
        Value::Null => Raw::Null,
        Value::Int(int) => Raw::Int(*int),
        Value::Float(float) => Raw::Float(float.get()),
        Value::Text(text) => Raw::Text(text.clone()),
        other => panic!("no {} is made here", other.type_name()),
    }
}

impl Slow {
    /// Folds what concerns one record. None if nothing does.
    pub(crate) fn of(record: &str, events: &[Told<'_>]) -> Option<Self> {
        let mut events: Vec<_> =
            events.iter().filter(|(_, meaning, _)| meaning.record() == Some(record)).collect();
        events.sort_by_key(|(origin, ..)| *origin);
        // A foreign event counts once, whatever carries it.
        events.dedup_by_key(|(origin, ..)| *origin);
        events.first()?;
        let mut slow = Self { record: record.to_owned(), ..Self::default() };
        let mut sets = Vec::new();
        let mut named = BTreeSet::new();
        let mut floors = BTreeMap::new();
        for (origin, meaning, is_foreign) in events {
            match (*meaning).clone() {
                RecordEvent::Create { form, .. } => {
                    if *is_foreign {
                        floors.insert(String::new(), *origin);
                    }
                    sets.push((String::new(), *origin, Value::Text(form)));
                    slow.archived = false;
                    slow.created_by = slow.created_by.or(Some(*origin));
                }
                RecordEvent::Set { field, value, over, .. } => {
                    named.extend(over.into_iter().map(|name| (field.clone(), name)));
                    if *is_foreign {
                        floors.insert(field.clone(), *origin);
                    }
                    sets.push((field, *origin, value));
                }
                RecordEvent::Note { text, .. } => slow.notes.push((*origin, text)),
                RecordEvent::Attach { field, blob, size, mime, name, .. } => {
                    slow.attachments.insert((field, blob), (*origin, size, mime, name));
                }
                RecordEvent::Archive { archived, .. } => slow.archived = archived,
                RecordEvent::Profile { .. } => {}
            }
        }
        for (field, origin, value) in sets {
            let is_below = floors.get(&field).is_some_and(|floor| origin < *floor);
            if !is_below && !named.contains(&(field.clone(), origin.id.prefix())) {
                slow.fields.entry(field).or_default().push((origin, value));
            }
        }
        Some(slow)
    }

    fn form(&self) -> Option<String> {
        let (_, value) = self.fields.get("")?.last()?;
        value.as_text().map(str::to_owned)
    }

    fn conflicts(&self) -> Vec<&str> {
        let conflict = |sets: &[(Origin, Value)]| sets.iter().any(|set| set.1 != sets[0].1);
        let fields = self.fields.iter().filter(|(_, sets)| conflict(sets));
        fields.map(|(name, _)| name.as_str()).collect()
    }

    fn listed(&self) -> Listed {
        Listed { record: self.record.clone(), form: self.form(), archived: self.archived }
    }

    fn digest(&self) -> [u8; 32] {
        let sets = |sets: &[(Origin, Value)]| {
            sets.iter().map(|(origin, value)| (origin.id.0, raw(value))).collect()
        };
        let fields = self.fields.iter().map(|(name, all)| (name.as_str(), sets(all))).collect();
        let notes = self.notes.iter().map(|(origin, text)| (origin.id.0, text.as_str())).collect();
        let files = self.attachments.iter().map(|((field, blob), (_, size, mime, name))| {
            (field.as_str(), *blob, *size, mime.as_str(), name.as_str())
        });
        let digested = Digested {
            record: &self.record,
            archived: self.archived,
            fields,
            notes,
            attachments: files.collect(),
        };
        let body = postcard::to_allocvec(&digested).expect("it has a form");
        blake3::derive_key("mosaik-node 2026-11 view record v2", &body)
    }

    fn assert_is_read_from(&self, kv: &MemoryKv) {
        let record = view::record(kv, &self.record).expect("memory").expect("it exists");
        assert_eq!(record.form_name().map(str::to_owned), self.form());
        assert_eq!(record.archived, self.archived);
        assert_eq!(record.created_by, self.created_by);
        assert_eq!(record.conflicts(), self.conflicts());

        let form = record.form.iter().map(|field| ("", field));
        let fields = form.chain(record.fields.iter().map(|(name, field)| (name.as_str(), field)));
        let fields: BTreeMap<_, _> = fields.collect();
        assert!(fields.keys().copied().eq(self.fields.keys().map(String::as_str)), "{fields:?}");
        for (name, sets) in &self.fields {
            let wanted: Vec<_> = sets.iter().rev().cloned().collect();
            let read: Vec<_> = fields[name.as_str()]
                .candidates()
                .map(|candidate| (candidate.origin, candidate.value.clone()))
                .collect();
            assert_eq!(read, wanted, "{name:?} of {:?}", self.record);
            let ids: Vec<_> = wanted.iter().take(16).map(|(origin, _)| origin.id).collect();
            assert_eq!(view::candidates(kv, &self.record, name).expect("memory"), ids);
            let field = view::field(kv, &self.record, name).expect("memory");
            assert_eq!(field.as_ref(), Some(fields[name.as_str()]));
        }

        let notes: Vec<_> = record.notes.into_iter().map(|note| (note.origin, note.text)).collect();
        assert_eq!(notes, self.notes);
        let files = record.attachments.into_iter();
        let files: Vec<_> = files
            .map(|file| ((file.field, file.blob), (file.origin, file.size, file.mime, file.name)))
            .collect();
        assert_eq!(files, self.attachments.clone().into_iter().collect::<Vec<_>>());
    }
}

/// The trie rule over (key, item), ascending.
fn trie(items: &[([u8; 32], Vec<u8>)], depth: usize) -> [u8; 32] {
    let of = |what: &str, parts: Vec<u8>| {
        let context = format!("mosaik-node 2026-11 {what} v2");
        blake3::derive_key(&context, &[&NETWORK.0[..], &parts].concat())
    };
    match items.len() {
        0 => [0; 32],
        1..=32 => of("view leaf", items.iter().flat_map(|(_, item)| item.clone()).collect()),
        _ => {
            let shift = if depth.is_multiple_of(2) { 4 } else { 0 };
            let children = (0..16).flat_map(|nibble| {
                let under = |key: &[u8; 32]| (key[depth / 2] >> shift) & 0x0f == nibble;
                let child: Vec<_> = items.iter().filter(|(key, _)| under(key)).cloned().collect();
                trie(&child, depth + 1)
            });
            of("view node", children.collect())
        }
    }
}

/// The view digest of these records.
pub(crate) fn digest<'a>(records: impl IntoIterator<Item = &'a Slow>) -> [u8; 32] {
    let item = |slow: &Slow| {
        let key = *blake3::hash(slow.record.as_bytes()).as_bytes();
        (key, [key, slow.digest()].concat())
    };
    let mut items: Vec<_> = records.into_iter().map(item).collect();
    items.sort();
    trie(&items, 0)
}

/// Asserts that all that can be read of `kv` is what these events fold to.
pub(crate) fn assert_view(kv: &MemoryKv, events: &[Told<'_>]) {
    let names: BTreeSet<_> = events.iter().filter_map(|(_, meaning, _)| meaning.record()).collect();
    let slow: Vec<_> = names.iter().filter_map(|record| Slow::of(record, events)).collect();
    for record in &slow {
        record.assert_is_read_from(kv);
    }
    assert_eq!(view::digest(kv).expect("memory"), digest(&slow));
    assert_lists(kv, &slow);
    for author in (0..4).map(|author| AuthorId([author; 32])) {
        let claims = events.iter().filter(|(origin, ..)| origin.author == author);
        let wanted = claims
            .filter_map(|(origin, meaning, _)| match meaning {
                RecordEvent::Profile { name } => Some((*origin, name.clone())),
                _ => None,
            })
            .max();
        let read = view::profile(kv, &author).expect("memory");
        assert_eq!(read.map(|profile| (profile.origin, profile.name)), wanted);
    }
}

fn assert_lists(kv: &MemoryKv, slow: &[Slow]) {
    let forms = FORMS.iter().copied().chain(["int", "text", "bird"]).map(Some).chain([None]);
    for form in forms {
        for include_archived in [false, true] {
            let query = RecordsQuery { form, include_archived, ..RecordsQuery::default() };
            let wanted: Vec<_> = slow
                .iter()
                .map(Slow::listed)
                .filter(|listed| form.is_none_or(|form| listed.form.as_deref() == Some(form)))
                .filter(|listed| include_archived || !listed.archived)
                .collect();
            assert_eq!(view::records(kv, &query).expect("memory"), wanted);
        }
    }
    let conflicts: Vec<_> = slow
        .iter()
        .flat_map(|slow| slow.conflicts().into_iter().map(|field| (&slow.record, field)))
        .map(|(record, field)| Conflict { record: record.clone(), field: field.to_owned() })
        .collect();
    assert_eq!(view::conflicts(kv, None, usize::MAX).expect("memory"), conflicts);
    let counts = Counts { records: slow.len() as u64, conflicts: conflicts.len() as u64 };
    assert_eq!(view::counts(kv).expect("memory"), counts);
}
