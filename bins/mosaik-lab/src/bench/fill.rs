//! Stores with events in them, made without a node: as many authors and events as are asked for.
//!
//! All of it is valid: keys, chains, signatures, stamps of the past days. So a node that opens such a
//! store serves it, and another one takes it.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use ed25519_dalek::SigningKey;
use mosaik_core::{
    event::{Draft, Event, Hasher, Kind, Payload},
    feed::{BranchId, Ledger, Tip, Way},
    hlc::Hlc,
    id::{AuthorId, Fingerprint},
    key::Network,
    limits::{UNSIGNED_EVENTS_MAX, UNSIGNED_PAYLOAD_MAX},
    record::{RecordEvent, application_draft},
    run::{Entry, chain, sign_head},
    value::Value,
};
use mosaik_node::directory::Directory;
use mosaik_store::{Batch, Store, StoreError};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::place::NETWORK;

/// Bytes of an event's payload: a reading with its place and time, or a short note.
pub(super) const PAYLOAD_LEN: usize = 150;
/// The bytes in it: the value's own head takes 3, its type and the length as a varint of two.
pub(super) const SAMPLE_BYTES: usize = PAYLOAD_LEN - 3;
/// The kind of such an event.
pub(super) const SAMPLE: &str = "telemetry.sample";
/// Events of one commit: what a limit without this program's code is measured with as well.
pub(super) const COMMIT_EVENTS: usize = 10_000;
/// Time between two events of an author, in milliseconds.
const EVERY_MS: u64 = 600;
/// Where the numbers of authors begin whose events are records.
const RECORDS_FROM: u64 = 1 << 32;
/// Sets that follow the creation of each record.
const SETS_PER_RECORD: u64 = 9;
/// Text in each of them, so that an event is about as long as [`PAYLOAD_LEN`].
const TEXT_LEN: usize = 100;

/// What events are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Random bytes of an application's own kind, [`PAYLOAD_LEN`] each.
    Samples,
    /// Records with fields.
    Records,
}

/// How much is filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Filling {
    pub(super) authors: u64,
    pub(super) events: u64,
    pub(super) content: Content,
}

impl Filling {
    /// `1000x100000`: authors and events.
    pub(super) fn case(&self) -> String {
        let kind = if self.content == Content::Records { "records-" } else { "" };
        format!("{kind}{}x{}", self.authors, self.events)
    }
}

/// The network of all stores here.
pub(super) fn network() -> Result<Network> {
    Ok(Network::parse(NETWORK)?)
}

/// This machine's clock, in milliseconds since 1970.
pub(super) fn now_ms() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is not set")?;
    Ok(now.as_millis() as u64)
}

/// Opens the store of a node whose data directory this is, and makes it if it isn't there.
pub(super) fn open(data_dir: &std::path::Path) -> Result<(Directory, Store)> {
    let network = network()?;
    let fingerprint = network.keys().fingerprint;
    let directory = Directory::of(data_dir, &fingerprint);
    directory.prepare(&network)?;
    let store = Store::open(directory.path(), &fingerprint)?;
    Ok((directory, store))
}

/// Fills the store of a node that has never run.
pub(super) fn fill(data_dir: &std::path::Path, filling: Filling) -> Result<()> {
    let (_, mut store) = open(data_dir)?;
    let fingerprint = network()?.keys().fingerprint;
    let now_ms = now_ms()?;
    let mut feeds =
        (0..filling.authors).map(|number| Feed::new(number, filling, &fingerprint, now_ms));
    let mut feed = feeds.next();
    while feed.is_some() {
        store.write(|batch| -> Result<(), StoreError> {
            let mut room = COMMIT_EVENTS as u64;
            while room > 0
                && let Some(current) = feed.as_mut()
            {
                room -= current.write(batch, room)?;
                if current.left == 0 {
                    feed = feeds.next();
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Appends one event to each of the first so many feeds that [`fill`] made.
pub(super) fn lengthen(store: &mut Store, feeds: u64) -> Result<()> {
    let fingerprint = network()?.keys().fingerprint;
    let branches = store.reader()?.branches()?;
    let now_ms = now_ms()?;
    store.write(|batch| -> Result<(), StoreError> {
        for number in 0..feeds {
            let one = Filling { authors: 1, events: 1, content: Content::Samples };
            let mut feed = Feed::new(number, one, &fingerprint, now_ms);
            let author = feed.author();
            if let Some(branch) = branches.iter().find(|branch| branch.author == author) {
                (feed.branch, feed.tip) = (Some(branch.id), branch.tip);
                // The stamp of the event of this seq is now.
                feed.begin_ms = now_ms.saturating_sub((feed.tip.seq + 1) * EVERY_MS);
            }
            feed.write(batch, 1)?;
        }
        Ok(())
    })?;
    Ok(())
}

/// The payloads that [`fill`] gives to a store, feed after feed: author and seq, and the bytes.
pub(super) fn payloads(filling: Filling) -> impl Iterator<Item = ((u32, u64), Vec<u8>)> {
    (0..filling.authors).flat_map(move |number| {
        let mut feed = Feed::new(number, filling, &Fingerprint([0; 32]), 0);
        (1..=feed.left).map(move |seq| ((number as u32, seq), feed.draft(seq).payload))
    })
}

/// An event of [`Content::Samples`].
pub(super) fn sample(random: &mut StdRng) -> Draft {
    let mut bytes = vec![0; SAMPLE_BYTES];
    random.fill_bytes(&mut bytes);
    let kind = Kind::new(SAMPLE).expect("a kind");
    application_draft(kind, &Value::Bytes(bytes)).expect("far below the limits")
}

/// The key of an author by number.
pub(super) fn key(number: u64) -> SigningKey {
    SigningKey::from_bytes(blake3::hash(&number.to_be_bytes()).as_bytes())
}

/// An author who writes.
struct Feed {
    key: SigningKey,
    hasher: Hasher,
    random: StdRng,
    number: u64,
    content: Content,
    branch: Option<BranchId>,
    tip: Tip,
    begin_ms: u64,
    left: u64,
}

impl Feed {
    /// The author of this number, whose last event is of now.
    fn new(number: u64, filling: Filling, fingerprint: &Fingerprint, now_ms: u64) -> Self {
        let Filling { authors, events, content } = filling;
        // What can't be shared out goes to the first.
        let rest = if number == 0 { events % authors } else { 0 };
        let left = events / authors + rest;
        // So that a store can be filled with both, one after the other.
        let kept_apart = if content == Content::Records { RECORDS_FROM } else { 0 };
        Self {
            key: key(kept_apart + number),
            hasher: Hasher::new(fingerprint),
            random: StdRng::seed_from_u64(number),
            number,
            content,
            branch: None,
            tip: Tip::ROOT,
            begin_ms: now_ms.saturating_sub(left * EVERY_MS),
            left,
        }
    }

    fn author(&self) -> AuthorId {
        AuthorId(self.key.verifying_key().to_bytes())
    }

    /// Appends its next events, at most `max`, signed as a node would sign them.
    fn write(&mut self, batch: &mut Batch<'_>, max: u64) -> Result<u64, StoreError> {
        let branch = match self.branch {
            Some(branch) => branch,
            None => batch.begin_branch(self.author(), None)?,
        };
        self.branch = Some(branch);
        let count = max.min(self.left);
        let mut unwritten = count;
        while unwritten > 0 {
            let events = self.next_events(unwritten);
            let last = events.last().map_or(self.tip, Tip::from);
            let signature = sign_head(&self.key, &last.id);
            batch.append(branch, &events, &signature, Way::Session, self.begin_ms)?;
            self.tip = last;
            unwritten -= events.len() as u64;
        }
        self.left -= count;
        Ok(count)
    }

    /// Events up to the next one that has to be signed.
    fn next_events(&mut self, max: u64) -> Vec<Event> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for seq in self.tip.seq + 1..=self.tip.seq + max.min(UNSIGNED_EVENTS_MAX as u64) {
            let Draft { kind, payload } = self.draft(seq);
            bytes += payload.len();
            let hlc = Hlc::new(self.begin_ms + seq * EVERY_MS, 0);
            entries.push(Entry { hlc, kind, payload: Payload::Present(payload) });
            if bytes + 2 * PAYLOAD_LEN > UNSIGNED_PAYLOAD_MAX {
                break;
            }
        }
        chain(&self.hasher, self.author(), self.tip.seq + 1, self.tip.id, entries)
    }

    fn draft(&mut self, seq: u64) -> Draft {
        match self.content {
            Content::Samples => sample(&mut self.random),
            Content::Records => self.record_draft(seq),
        }
    }

    /// A record after the other: its creation, then one field each.
    fn record_draft(&mut self, seq: u64) -> Draft {
        let (number, field) =
            ((seq - 1) / (1 + SETS_PER_RECORD), (seq - 1) % (1 + SETS_PER_RECORD));
        let record = record_id(self.number, number);
        let event = if field == 0 {
            RecordEvent::Create { record, form: "visit".to_owned() }
        } else {
            let mut text = vec![0_u8; TEXT_LEN / 2];
            self.random.fill_bytes(&mut text);
            let text: String = text.iter().map(|byte| format!("{byte:02x}")).collect();
            let field = format!("field_{field}");
            RecordEvent::Set { record, field, value: Value::Text(text), over: Vec::new() }
        };
        event.encode().expect("far below the limits")
    }
}

/// The id of an author's record.
pub(super) fn record_id(author: u64, number: u64) -> String {
    format!("visit-{author:04}-{number:08}")
}

/// All entries of a view, as they lie in it.
pub(super) fn view_entries(store: &Store) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    use mosaik_core::kv::{Kv, Order};
    let mut entries = Vec::new();
    let reader = store.reader()?;
    reader.range(&[], &[0xff; 64], Order::Ascending, &mut |key, value| {
        entries.push((key.to_vec(), value.to_vec()));
        true
    })?;
    Ok(entries)
}
