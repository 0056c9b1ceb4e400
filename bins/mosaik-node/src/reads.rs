//! What is read from the store, as documents: always all of one document from one snapshot.
//!
//! Everything here blocks on the disk; it is called where that harms nobody.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use mosaik_api::{
    SCHEMA,
    document::{
        Attachment, Candidate, Conflict, Conflicts, Event, Events, Feed, Feeds, FileState,
        Frontier, Note, PayloadState, Record, RecordAttachment, RecordLine, Records, Tip, View,
    },
    json::to_json,
};
use mosaik_core::{
    binding::{RADIO_KIND, RadioIdentity},
    event,
    feed::{self, BranchId, Counts, Way},
    id::AuthorId,
    meshlog::{FOREIGN_KIND, MeshlogEvent},
    record::RecordEvent,
    value::Value,
    view::{self, RecordsQuery, ViewError},
};
use mosaik_store::{Arrival, Reader, Readers, StoreError};
use serde_json::{Value as Json, json};

/// Arrivals in one page of events: a run of 1,024 events each at most.
const ARRIVALS_PER_PAGE: usize = 64;

/// Arrivals that are read at once to find one of them.
const ARRIVALS_LOOKED_THROUGH: usize = 4096;

/// Bytes of payload after which a page of events ends.
///
/// 1 MiB: a page is held in memory as JSON, several times that.
const PAGE_LEN_MAX: usize = 1 << 20;

/// Records in one page.
const RECORDS_PER_PAGE: usize = 1000;

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The store.
    #[error("the store could not be read")]
    Store(#[from] StoreError),
    /// The view in it.
    #[error("the view could not be read")]
    View(#[from] ViewError<StoreError>),
}

type Result<T> = std::result::Result<T, ReadError>;

/// Where snapshots come from.
#[derive(Debug, Clone)]
pub struct Reads {
    readers: Readers,
}

/// The numbers of one snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Authors of whom events are held.
    pub authors: u64,
    /// Tips of all feeds.
    pub branches: u64,
    /// Events, missing payloads, events held back.
    pub held: Counts,
    /// Records and conflicts.
    pub view: view::Counts,
    /// The digest of the view.
    pub digest: [u8; 32],
}

impl Reads {
    /// Reads from the store behind `readers`.
    pub fn new(readers: Readers) -> Self {
        Self { readers }
    }

    /// All that is committed now. Keep it short: while it is held, the file grows.
    ///
    /// # Errors
    ///
    /// [`ReadError`], here and below: of the disk, or of what stands on it.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Ok(Snapshot { reader: self.readers.reader()? })
    }

    /// The same, if it can be had without waiting: not while the store is compacted.
    ///
    /// # Errors
    ///
    /// As [`Reads::snapshot`].
    pub(crate) fn snapshot_now(&self) -> Result<Option<Snapshot>> {
        Ok(self.readers.reader_now()?.map(|reader| Snapshot { reader }))
    }
}

/// A page of the attachments of all records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachmentsPage {
    /// Them, each with the form of its record. How it stands with their files isn't known here.
    pub attachments: Vec<(RecordAttachment, Option<String>)>,
    /// What to give as `after` for the next page; none on the last one.
    pub next: Option<String>,
}

/// All that was committed at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    reader: Reader,
}

#[allow(clippy::missing_errors_doc, reason = "one sentence for all of them stands above")]
impl Snapshot {
    /// The map that the view is kept in.
    pub fn view(&self) -> &Reader {
        &self.reader
    }

    /// How much there is.
    pub fn numbers(&self) -> Result<Numbers> {
        let branches = self.reader.branches()?;
        let authors: std::collections::BTreeSet<_> = branches.iter().map(|b| b.author).collect();
        Ok(Numbers {
            authors: authors.len() as u64,
            branches: branches.len() as u64,
            held: self.reader.counts()?,
            view: view::counts(&self.reader)?,
            digest: view::digest(&self.reader)?,
        })
    }

    /// The view's digest and numbers; how many authors are crowded is the caller's to know.
    pub fn view_document(&self, crowded: u64) -> Result<View> {
        let numbers = self.numbers()?;
        Ok(View {
            schema: SCHEMA,
            digest: hex(&numbers.digest),
            fold: view::FOLD_VERSION,
            records: numbers.view.records,
            conflicts: numbers.view.conflicts,
            held_back: numbers.held.held_back,
            missing: numbers.held.missing,
            crowded,
        })
    }

    fn tips(&self) -> Result<BTreeMap<AuthorId, Vec<feed::Tip>>> {
        let mut tips: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for branch in self.reader.branches()? {
            tips.entry(branch.author).or_default().push(branch.tip);
        }
        tips.values_mut().for_each(|tips| tips.sort_unstable());
        Ok(tips)
    }

    /// The newest events held, by author.
    pub fn frontier(&self) -> Result<Frontier> {
        let tips = self.tips()?.into_iter();
        let frontier = tips
            .map(|(author, tips)| (author.to_string(), tips.iter().map(tip).collect()))
            .collect();
        Ok(Frontier { schema: SCHEMA, frontier })
    }

    /// The feeds; whose is this node's own and which are crowded is the caller's to know.
    pub fn feeds(&self, own: &AuthorId, crowded: &[AuthorId]) -> Result<Feeds> {
        let mut events: BTreeMap<AuthorId, u64> = BTreeMap::new();
        for branch in self.reader.branches()? {
            *events.entry(branch.author).or_default() += branch.tip.seq + 1 - branch.first_seq();
        }
        let mut feeds = Vec::new();
        for (author, tips) in self.tips()? {
            feeds.push(Feed {
                author: author.to_string(),
                name: self.name(&author)?,
                own: author == *own,
                events: events.get(&author).copied().unwrap_or(0),
                branches: tips.len() as u64,
                tips: tips.iter().map(tip).collect(),
                crowded: crowded.contains(&author),
            });
        }
        Ok(Feeds { schema: SCHEMA, feeds })
    }

    /// Whose an identity in Reticulum is, and what that author calls itself.
    pub fn author_of_radio(&self, identity: &str) -> Result<Option<(String, String)>> {
        let hash = HEXLOWER.decode(identity.as_bytes()).ok().and_then(|hash| hash.try_into().ok());
        let Some(hash) = hash else { return Ok(None) };
        let author = view::author_of_radio(&self.reader, &hash)?;
        author.map(|author| Ok((author.to_string(), self.name(&author)?))).transpose()
    }

    fn name(&self, author: &AuthorId) -> Result<String> {
        if let Some(profile) = view::profile(&self.reader, author)? {
            return Ok(profile.name);
        }
        // Of another system: its name there, which is all that it has.
        Ok(view::foreign_author(&self.reader, author)?.unwrap_or_default())
    }

    /// A page of records after `after`.
    pub fn records(
        &self,
        form: Option<&str>,
        after: Option<&str>,
        include_archived: bool,
    ) -> Result<Records> {
        let limit = RECORDS_PER_PAGE;
        let query = RecordsQuery { form, after, limit, include_archived };
        let listed = view::records(&self.reader, &query)?;
        let next = (listed.len() == limit).then(|| listed.last().map(|last| last.record.clone()));
        let records = listed
            .into_iter()
            .map(|line| RecordLine {
                record: line.record,
                form: line.form,
                archived: line.archived,
            })
            .collect();
        Ok(Records { schema: SCHEMA, records, next: next.flatten() })
    }

    /// One record, if it is here.
    pub fn record(&self, record: &str) -> Result<Option<Record>> {
        let Some(found) = view::record(&self.reader, record)? else { return Ok(None) };
        let mut conflicts = Vec::new();
        for name in found.conflicts() {
            let field = if name.is_empty() { found.form.as_ref() } else { found.fields.get(name) };
            if let Some(field) = field {
                conflicts.push(self.conflict(record, name, field)?);
            }
        }
        let note = |note: &view::Note| -> Result<Note> {
            Ok(Note {
                id: note.origin.id.to_string(),
                author: note.origin.author.to_string(),
                author_name: self.name(&note.origin.author)?,
                time_ms: note.origin.hlc.ms(),
                text: note.text.clone(),
            })
        };
        let fields = found.fields.iter();
        Ok(Some(Record {
            schema: SCHEMA,
            record: found.record.clone(),
            form: found.form_name().map(str::to_owned),
            created_by: found.created_by.map(|origin| origin.author.to_string()),
            archived: found.archived,
            fields: fields.map(|(name, f)| (name.clone(), to_json(&f.shown.value))).collect(),
            notes: found.notes.iter().map(note).collect::<Result<_>>()?,
            attachments: found.attachments.iter().map(attachment_document).collect(),
            conflicts,
        }))
    }

    /// At most `limit` attachments of all records, by blob, record and field, after what `after` names.
    pub fn attachments(&self, after: Option<&str>, limit: usize) -> Result<AttachmentsPage> {
        let after = after.and_then(reference_of);
        let mut named = Vec::new();
        view::files(&self.reader, after.as_ref(), |file| {
            named.push(file);
            named.len() < limit
        })?;
        let next = named.last().filter(|_| named.len() == limit).map(cursor_of);
        let mut attachments = Vec::new();
        for file in named {
            let found = view::attachment(&self.reader, &file.record, &file.field, &file.blob)?;
            let Some(found) = found else { continue };
            let form = view::form(&self.reader, &file.record)?;
            let attachment = attachment_document(&found);
            attachments.push((RecordAttachment { record: file.record, attachment }, form));
        }
        Ok(AttachmentsPage { attachments, next })
    }

    /// Whether a record is here and its fields show these values.
    pub fn shows(&self, record: &str, fields: &BTreeMap<String, Value>) -> Result<bool> {
        if !view::exists(&self.reader, record)? {
            return Ok(false);
        }
        for (name, value) in fields {
            let held = view::field(&self.reader, record, name)?;
            if held.is_none_or(|held| held.shown.value != *value) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a field shows, if the record is here and has it.
    pub fn shown(&self, record: &str, field: &str) -> Result<Option<Value>> {
        Ok(view::field(&self.reader, record, field)?.map(|field| field.shown.value))
    }

    /// All fields whose candidates differ.
    pub fn conflicts(&self) -> Result<Conflicts> {
        let mut conflicts = Vec::new();
        for view::Conflict { record, field } in view::conflicts(&self.reader, None, usize::MAX)? {
            if let Some(held) = view::field(&self.reader, &record, &field)? {
                conflicts.push(self.conflict(&record, &field, &held)?);
            }
        }
        Ok(Conflicts { schema: SCHEMA, conflicts })
    }

    fn conflict(&self, record: &str, name: &str, field: &view::Field) -> Result<Conflict> {
        let candidate = |candidate: &view::Candidate| {
            let origin = &candidate.origin;
            Ok(Candidate {
                id: origin.id.to_string(),
                author: origin.author.to_string(),
                author_name: self.name(&origin.author)?,
                time_ms: origin.hlc.ms(),
                value: to_json(&candidate.value),
            })
        };
        Ok(Conflict {
            record: record.to_owned(),
            field: name.to_owned(),
            shown: candidate(&field.shown)?,
            others: field.others.iter().map(candidate).collect::<Result<_>>()?,
        })
    }

    /// Events of whole arrivals after `since`, at most a page and about `limit`; at least one
    /// arrival, where there is one.
    pub fn events(&self, since: u64, limit: Option<u64>) -> Result<Events> {
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let mut page = Events { schema: SCHEMA, events: Vec::new(), next: since, more: false };
        let mut bytes = 0;
        for arrival in self.reader.arrivals(since, ARRIVALS_PER_PAGE)? {
            if page.next > since && (bytes >= PAGE_LEN_MAX || page.events.len() >= limit) {
                break;
            }
            bytes += self.arrival(&arrival, &mut page.events)?;
            page.next = arrival.number;
        }
        page.more = page.next < self.reader.last_arrival()?;
        Ok(page)
    }

    /// The events at one place of a feed: one, or one a branch where its key was used twice.
    pub fn events_at(&self, author: &AuthorId, seq: u64) -> Result<Events> {
        let mut found = Events { schema: SCHEMA, events: Vec::new(), next: 0, more: false };
        for branch in self.reader.branches()? {
            if branch.author != *author || !branch.covers(seq) {
                continue;
            }
            let events = self.reader.events(branch.id, seq, seq, 0)?;
            let arrival = self.arrival_of(branch.id, seq)?;
            if let (Some(event), Some(arrival)) = (events.first(), arrival) {
                found.events.push(event_document(&arrival, event));
            }
        }
        Ok(found)
    }

    /// The run that an event came in. Looks through the log, which has no index: rows are short.
    fn arrival_of(&self, branch: BranchId, seq: u64) -> Result<Option<Arrival>> {
        let mut after = 0;
        loop {
            let page = self.reader.arrivals(after, ARRIVALS_LOOKED_THROUGH)?;
            let Some(last) = page.last() else { return Ok(None) };
            after = last.number;
            let holds = |arrival: &&Arrival| {
                arrival.branch == branch && (arrival.first_seq..=arrival.last_seq).contains(&seq)
            };
            if let Some(found) = page.iter().find(holds) {
                return Ok(Some(*found));
            }
        }
    }

    /// Adds the events of one arrival; returns the bytes of their payloads.
    fn arrival(&self, arrival: &Arrival, events: &mut Vec<Event>) -> Result<usize> {
        let (mut next, mut bytes) = (arrival.first_seq, 0);
        while next <= arrival.last_seq {
            let read = self.read(arrival.branch, next, arrival.last_seq)?;
            let Some(last) = read.last() else { break };
            next = last.seq + 1;
            bytes += read.iter().map(|event| event.payload.len()).sum::<usize>();
            events.extend(read.iter().map(|event| event_document(arrival, event)));
        }
        Ok(bytes)
    }

    fn read(&self, branch: BranchId, from: u64, to: u64) -> Result<Vec<event::Event>> {
        Ok(self.reader.events(branch, from, to, PAGE_LEN_MAX)?)
    }
}

fn event_document(arrival: &Arrival, event: &event::Event) -> Event {
    let (payload, payload_state) = match event.payload.bytes() {
        None => (Json::Null, PayloadState::Absent),
        Some(bytes) => match payload_json(event.kind.as_str(), bytes) {
            Some(payload) => (payload, PayloadState::Present),
            None => (Json::Null, PayloadState::Undecodable),
        },
    };
    Event {
        schema: SCHEMA,
        arrival: arrival.number,
        last_of_arrival: event.seq == arrival.last_seq,
        received_ms: arrival.received_ms,
        way: way_name(arrival.way).to_owned(),
        author: event.author.to_string(),
        seq: event.seq,
        id: event.id.to_string(),
        time_ms: event.hlc.ms(),
        kind: event.kind.to_string(),
        payload,
        payload_state,
    }
}

/// The payload of an event of this kind as JSON, if it decodes.
fn payload_json(kind: &str, bytes: &[u8]) -> Option<Json> {
    if !mosaik_core::record::is_reserved(kind) {
        return Value::decode(bytes).ok().map(|value| to_json(&value));
    }
    if kind == FOREIGN_KIND {
        // Word for word: its numbers are texts to whoever checks its id.
        let inner = MeshlogEvent::parse(bytes).is_ok().then(|| String::from_utf8_lossy(bytes));
        return inner.map(|inner| json!({ "event": inner }));
    }
    if kind == RADIO_KIND {
        let identity = RadioIdentity::read(bytes).ok()?;
        return Some(json!({ "identity": hex(&identity.hash()), "keys": hex(&identity.keys) }));
    }
    Some(match RecordEvent::decode(kind, bytes).ok()?? {
        RecordEvent::Create { record, form } => json!({ "record": record, "form": form }),
        RecordEvent::Set { record, field, value, over } => json!({
            "record": record,
            "field": field,
            "value": to_json(&value),
            "over": over.iter().map(|name| hex(name)).collect::<Vec<_>>(),
        }),
        RecordEvent::Note { record, text } => json!({ "record": record, "text": text }),
        RecordEvent::Attach { record, field, blob, size, mime, name } => json!({
            "record": record,
            "field": field,
            "blob": hex(&blob),
            "size": size,
            "mime": mime,
            "name": name,
        }),
        RecordEvent::Archive { record, archived } => {
            json!({ "record": record, "archived": archived })
        }
        RecordEvent::Profile { name } => json!({ "name": name }),
    })
}

fn way_name(way: Way) -> &'static str {
    match way {
        Way::Own => "own",
        Way::Session => "session",
        Way::Gossip => "gossip",
    }
}

fn tip(tip: &feed::Tip) -> Tip {
    Tip { seq: tip.seq, id: tip.id.to_string() }
}

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// An attachment whose file nothing is known of yet.
fn attachment_document(file: &view::Attachment) -> Attachment {
    Attachment {
        field: file.field.clone(),
        blob: hex(&file.blob),
        size: file.size,
        mime: file.mime.clone(),
        name: file.name.clone(),
        state: FileState::default(),
        here: 0,
        waits_for: None,
        over_radio: false,
        pinned: false,
    }
}

/// A reference as the cursor of a list, and back. Only what a list gave is given again.
fn cursor_of(file: &view::FileReference) -> String {
    let (record, field) = (file.record.as_bytes(), file.field.as_bytes());
    [&file.blob[..], record, field].map(hex).join(".")
}

fn reference_of(cursor: &str) -> Option<view::FileReference> {
    let mut parts =
        cursor.split('.').map(|part| data_encoding::HEXLOWER.decode(part.as_bytes()).ok());
    let mut part = || parts.next().flatten();
    let blob = part()?.try_into().ok()?;
    let text = |bytes: Option<Vec<u8>>| bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    Some(view::FileReference { blob, record: text(part())?, field: text(part())?, size: 0 })
}
