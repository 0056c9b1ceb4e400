//! Runs: consecutive events of one branch that end in a signed head, the unit on every wire.
//!
//! Invariants:
//! - One encoding only: what [`Run::decode`] takes, [`Run::encode`] gives back byte for byte.
//! - A [`VerifiedRun`] only exists where every id follows from the one before and the author's
//!   signature covers the last. Its base is a claim still: whether it is held is the replica's to say.
//!
//! Source: FORMAT.md beside this crate, section 4.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::{
    codec::{ReadError, Reader, Writer, unzigzag, varint_len, zigzag},
    event::{Event, Hasher, Kind, Payload},
    hlc::{Hlc, MS_MAX},
    id::{AuthorId, EventId},
    limits::{KIND_LEN_MAX, PAYLOAD_LEN_MAX, RUN_EVENTS_MAX, RUN_LEN_MAX},
};

/// What an author signs is this and an event id.
const HEAD_CONTEXT: &[u8] = b"mosaik-node head v1";
const VERSION: u8 = 1;
/// Bytes of an entry at the least: stamp, kind, length, no payload.
const ENTRY_LEN_MIN: usize = 3;
/// Bytes of a kind at the least: its length and one character.
const KIND_SIZE_MIN: usize = 2;

/// Why bytes are no run, or a run is not its author's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Not the one encoding of any run.
    #[error("not a run: {0}")]
    Malformed(#[from] ReadError),
    /// Over a limit that both sides share.
    #[error(
        "a run of {events} events and {len} bytes, the limit is {RUN_EVENTS_MAX} and {RUN_LEN_MAX}"
    )]
    TooLong {
        /// Events in it.
        events: usize,
        /// Bytes, absent payloads counted at their length.
        len: usize,
    },
    /// The author's signature does not cover what was sent. The sender made it up, or was fooled.
    #[error("run of {author} at seq {start_seq} is not what its author signed")]
    BadSignature {
        /// Whose it claims to be.
        author: AuthorId,
        /// Where it claims to begin.
        start_seq: u64,
    },
}

/// Signs `id` as the head of its author's feed.
pub fn sign_head(key: &SigningKey, id: &EventId) -> [u8; 64] {
    key.sign(&head_message(id)).to_bytes()
}

/// Whether `author` signed `id`. Strict: a weak key or a malleable signature never passes.
pub fn verify_head(author: &AuthorId, id: &EventId, signature: &[u8; 64]) -> bool {
    let signature = Signature::from_bytes(signature);
    VerifyingKey::from_bytes(author.as_bytes())
        .is_ok_and(|key| key.verify_strict(&head_message(id), &signature).is_ok())
}

fn head_message(id: &EventId) -> Vec<u8> {
    [HEAD_CONTEXT, id.as_bytes()].concat()
}

/// An event as it stands in a run or a block: what can't be computed from the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Stamp.
    pub hlc: Hlc,
    /// Meaning.
    pub kind: Kind,
    /// Bytes, or what is known of them.
    pub payload: Payload,
}

/// What an entry is made of, wherever it stands.
pub type Parts<'a> = (Hlc, &'a Kind, &'a Payload);

impl Entry {
    /// What it is made of.
    pub fn parts(&self) -> Parts<'_> {
        (self.hlc, &self.kind, &self.payload)
    }
}

impl From<&Event> for Entry {
    fn from(event: &Event) -> Self {
        Self { hlc: event.hlc, kind: event.kind.clone(), payload: event.payload.clone() }
    }
}

/// A run as a peer sent it: well formed, and nothing more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Whose feed.
    pub author: AuthorId,
    /// Seq of the first event.
    pub start_seq: u64,
    /// Id of the event before the first.
    pub base: EventId,
    /// The events, 1 to [`RUN_EVENTS_MAX`].
    pub entries: Vec<Entry>,
    /// The author's signature over the last event's id.
    pub signature: [u8; 64],
}

impl Run {
    /// Joins consecutive events under the signature of their last.
    ///
    /// # Panics
    ///
    /// If `events` is empty: there is no run of nothing.
    pub fn of(events: &[Event], signature: [u8; 64]) -> Self {
        let first = events.first().expect("a run has at least one event");
        Self {
            author: first.author,
            start_seq: first.seq,
            base: first.prev,
            entries: events.iter().map(Entry::from).collect(),
            signature,
        }
    }

    /// Reads a run that fills `bytes`.
    ///
    /// # Errors
    ///
    /// [`RunError::Malformed`] for whatever would not encode back to the same bytes,
    /// [`RunError::TooLong`] past the limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, RunError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            version => return Err(ReadError::Tag(u64::from(version)).into()),
        }
        let author = AuthorId(reader.array()?);
        let start_seq = reader.varint()?;
        let (base, entries) = read_entries(&mut reader)?;
        let signature = reader.array()?;
        reader.finish()?;
        if (start_seq == 1) != (base == EventId::ZERO) || start_seq == 0 {
            return Err(ReadError::Invalid("seq 1 and only seq 1 has no event before it").into());
        }
        if start_seq.checked_add(entries.len() as u64 - 1).is_none() {
            return Err(ReadError::Invalid("its last seq is beyond 64 bits").into());
        }
        let run = Self { author, start_seq, base, entries, signature };
        let len = run.counted_len(bytes.len());
        if len > RUN_LEN_MAX {
            return Err(RunError::TooLong { events: run.entries.len(), len });
        }
        Ok(run)
    }

    /// The one encoding.
    pub fn encode(&self) -> Vec<u8> {
        let entries = self.entries.iter().map(Entry::parts);
        encode((self.author, self.start_seq, self.base), entries, &self.signature)
    }

    /// The length that [`RUN_LEN_MAX`] bounds: absent payloads count at their length, not their hash's.
    fn counted_len(&self, encoded_len: usize) -> usize {
        self.entries.iter().fold(encoded_len, |len, entry| match entry.payload {
            Payload::Present(_) => len,
            Payload::Absent { len: absent, .. } => len + absent as usize - 32,
        })
    }

    /// Computes the events' ids and checks the signature: two short hashes an event and one check.
    ///
    /// # Errors
    ///
    /// [`RunError::BadSignature`].
    pub fn verify(self, hasher: &Hasher) -> Result<VerifiedRun, RunError> {
        let events = chain(hasher, self.author, self.start_seq, self.base, self.entries);
        let head = events.last().expect("a decoded run has at least one event").id;
        if !verify_head(&self.author, &head, &self.signature) {
            return Err(RunError::BadSignature { author: self.author, start_seq: self.start_seq });
        }
        Ok(VerifiedRun { events, signature: self.signature })
    }
}

/// The encoding of consecutive events under the signature of their last: [`Run::of`], encoded.
///
/// # Panics
///
/// If `events` is empty.
pub fn encode_events(events: &[Event], signature: &[u8; 64]) -> Vec<u8> {
    let first = events.first().expect("a run has at least one event");
    let entries = events.iter().map(|event| (event.hlc, &event.kind, &event.payload));
    encode((first.author, first.seq, first.prev), entries, signature)
}

fn encode<'a>(
    (author, start_seq, base): (AuthorId, u64, EventId),
    entries: impl ExactSizeIterator<Item = Parts<'a>> + Clone,
    signature: &[u8; 64],
) -> Vec<u8> {
    // What is absent only claims its length.
    let len = |(_, _, payload): Parts<'_>| payload.bytes().map_or(32, <[u8]>::len);
    let payloads: usize = entries.clone().map(len).sum();
    let mut writer = Writer::with_capacity(256 + 16 * entries.len() + payloads);
    writer.u8(VERSION).raw(author.as_bytes()).varint(start_seq);
    write_entries(&mut writer, &base, entries);
    writer.raw(signature);
    writer.into_bytes()
}

/// A run whose chain and signature hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRun {
    events: Vec<Event>,
    signature: [u8; 64],
}

impl VerifiedRun {
    /// Signs own events that were just chained. They are the author's by construction.
    ///
    /// # Panics
    ///
    /// If `events` is empty.
    pub fn sign(key: &SigningKey, events: Vec<Event>) -> Self {
        let head = events.last().expect("a run has at least one event").id;
        Self { events, signature: sign_head(key, &head) }
    }

    /// Whose feed.
    pub fn author(&self) -> AuthorId {
        self.events[0].author
    }

    /// Seq and id of the event before the first.
    pub fn base(&self) -> (u64, EventId) {
        (self.events[0].seq - 1, self.events[0].prev)
    }

    /// The events, at least one, ascending.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The last event: the signed head.
    pub fn head(&self) -> &Event {
        self.events.last().expect("a run has at least one event")
    }

    /// The author's signature over the head.
    pub fn signature(&self) -> &[u8; 64] {
        &self.signature
    }

    /// As bytes for the wire.
    pub fn encode(&self) -> Vec<u8> {
        encode_events(&self.events, &self.signature)
    }

    /// How long [`VerifiedRun::encode`] is, without encoding it.
    pub fn encoded_len(&self) -> usize {
        let first = &self.events[0];
        let mut kinds: Vec<&Kind> = Vec::new();
        let mut last_ms = 0;
        let mut len = 0;
        for Event { hlc, kind, payload, .. } in &self.events {
            let index = kinds.iter().position(|known| *known == kind).unwrap_or_else(|| {
                kinds.push(kind);
                kinds.len() - 1
            });
            len += entry_len(&mut last_ms, index, *hlc, payload);
        }
        let kinds_len: usize = kinds.iter().map(|kind| kind_len(kind)).sum();
        let counts = varint_len(kinds.len() as u64) + varint_len(self.events.len() as u64);
        1 + 32 + varint_len(first.seq) + 32 + counts + kinds_len + len + 64
    }
}

/// Bytes of a kind in its table.
fn kind_len(kind: &Kind) -> usize {
    varint_len(kind.as_str().len() as u64) + kind.as_str().len()
}

/// Bytes of an entry, as [`write_entry`] writes it.
fn entry_len(last_ms: &mut i64, kind: usize, hlc: Hlc, payload: &Payload) -> usize {
    let counter_len = match hlc.counter() {
        0 => 0,
        counter => varint_len(u64::from(counter)),
    };
    varint_len(stamp(last_ms, hlc))
        + counter_len
        + varint_len((kind as u64) << 1)
        + varint_len(payload.len() as u64)
        + payload.bytes().map_or(32, <[u8]>::len)
}

/// Gives entries their place: seq, prev and id from the one before.
pub fn chain(
    hasher: &Hasher,
    author: AuthorId,
    start_seq: u64,
    base: EventId,
    entries: Vec<Entry>,
) -> Vec<Event> {
    let mut prev = base;
    // An open range of seqs would count one too far behind the last one that there is.
    (0..)
        .zip(entries)
        .map(|(i, Entry { hlc, kind, payload })| {
            let seq = start_seq + i;
            let id = hasher.id(&author, seq, &prev, hlc, &kind, &payload);
            let event = Event { id, author, seq, prev, hlc, kind, payload };
            prev = id;
            event
        })
        .collect()
}

/// Appends the shared middle of runs and blocks: base, kinds, entries.
pub fn write_entries<'a>(
    writer: &mut Writer,
    base: &EventId,
    entries: impl ExactSizeIterator<Item = Parts<'a>> + Clone,
) {
    writer.raw(base.as_bytes());
    let mut kinds: Vec<&Kind> = Vec::new();
    let index = |(_, kind, _): Parts<'a>| {
        kinds.iter().position(|known| *known == kind).unwrap_or_else(|| {
            kinds.push(kind);
            kinds.len() - 1
        })
    };
    let indices: Vec<usize> = entries.clone().map(index).collect();
    writer.len(kinds.len());
    for kind in kinds {
        writer.str(kind.as_str());
    }
    writer.len(entries.len());
    let mut last_ms = 0;
    for ((hlc, _, payload), index) in entries.zip(indices) {
        write_entry(writer, &mut last_ms, index, hlc, payload);
    }
}

fn write_entry(writer: &mut Writer, last_ms: &mut i64, kind: usize, hlc: Hlc, payload: &Payload) {
    writer.varint(stamp(last_ms, hlc));
    if hlc.counter() != 0 {
        writer.varint(u64::from(hlc.counter()));
    }
    let absent = payload.bytes().is_none();
    writer.varint((kind as u64) << 1 | u64::from(absent));
    writer.len(payload.len());
    match payload {
        Payload::Present(bytes) => writer.raw(bytes),
        Payload::Absent { hash, .. } => writer.raw(hash),
    };
}

/// The difference to the stamp before, and whether a counter follows.
fn stamp(last_ms: &mut i64, hlc: Hlc) -> u64 {
    let ms = hlc.ms() as i64;
    let delta = ms - std::mem::replace(last_ms, ms);
    zigzag(delta) << 1 | u64::from(hlc.counter() != 0)
}

/// The shared middle of runs and blocks, built event by event with its length known before each.
#[derive(Debug, Clone)]
pub struct Entries {
    base: EventId,
    kinds: Vec<Kind>,
    kinds_len: usize,
    count: usize,
    last_ms: i64,
    body: Writer,
}

impl Entries {
    /// No entry yet, after the event of id `base`.
    pub fn after(base: EventId) -> Self {
        Self { base, kinds: Vec::new(), kinds_len: 0, count: 0, last_ms: 0, body: Writer::new() }
    }

    /// How many entries it has.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Its bytes in all with one entry more.
    pub fn len_with(&self, hlc: Hlc, kind: &Kind, payload: &Payload) -> usize {
        let (index, kinds, kinds_len) = match self.kinds.iter().position(|known| known == kind) {
            Some(index) => (index, self.kinds.len(), self.kinds_len),
            None => {
                let index = self.kinds.len();
                (index, index + 1, self.kinds_len + kind_len(kind))
            }
        };
        let entry_len = entry_len(&mut { self.last_ms }, index, hlc, payload);
        32 + varint_len(kinds as u64)
            + kinds_len
            + varint_len(self.count as u64 + 1)
            + self.body.written()
            + entry_len
    }

    /// Adds an entry.
    pub fn push(&mut self, hlc: Hlc, kind: &Kind, payload: &Payload) {
        let known = self.kinds.iter().position(|known| known == kind);
        let index = known.unwrap_or_else(|| {
            self.kinds.push(kind.clone());
            self.kinds_len += kind_len(kind);
            self.kinds.len() - 1
        });
        self.count += 1;
        write_entry(&mut self.body, &mut self.last_ms, index, hlc, payload);
    }

    /// Appends all of it, as [`write_entries`] does.
    pub fn write(&self, writer: &mut Writer) {
        writer.raw(self.base.as_bytes()).len(self.kinds.len());
        for kind in &self.kinds {
            writer.str(kind.as_str());
        }
        writer.len(self.count).raw(self.body.as_bytes());
    }
}

/// Reads what [`write_entries`] wrote, one to [`RUN_EVENTS_MAX`] entries.
///
/// # Errors
///
/// [`ReadError`] for what it would not have written.
pub fn read_entries(reader: &mut Reader<'_>) -> Result<(EventId, Vec<Entry>), ReadError> {
    let base = EventId(reader.array()?);
    let kind_count = reader.count(RUN_EVENTS_MAX, KIND_SIZE_MIN)?;
    let mut kinds: Vec<Kind> = Vec::with_capacity(kind_count);
    for _ in 0..kind_count {
        let kind = Kind::new(reader.str(KIND_LEN_MAX)?)
            .map_err(|_| ReadError::Invalid("a kind has a forbidden character or length"))?;
        kinds.push(kind);
    }
    let mut sorted: Vec<&Kind> = kinds.iter().collect();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(ReadError::Invalid("a kind is listed twice"));
    }
    let count = reader.count(RUN_EVENTS_MAX, ENTRY_LEN_MIN)?;
    if count == 0 {
        return Err(ReadError::Invalid("no event"));
    }
    let (mut last_ms, mut kinds_used) = (0i64, 0);
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let hlc = read_stamp(reader, &mut last_ms)?;
        let tag = reader.varint()?;
        let index = (tag >> 1) as usize;
        let kind = kinds.get(index).ok_or(ReadError::Invalid("a kind index beyond the table"))?;
        if index > kinds_used {
            return Err(ReadError::Invalid("kinds are not in the order of their first use"));
        }
        kinds_used = kinds_used.max(index + 1);
        let payload = read_payload(reader, tag & 1 == 1)?;
        entries.push(Entry { hlc, kind: kind.clone(), payload });
    }
    if kinds_used != kinds.len() {
        return Err(ReadError::Invalid("a kind is not used"));
    }
    Ok((base, entries))
}

fn read_stamp(reader: &mut Reader<'_>, last_ms: &mut i64) -> Result<Hlc, ReadError> {
    let delta = reader.varint()?;
    let ms =
        last_ms.checked_add(unzigzag(delta >> 1)).filter(|ms| (0..=MS_MAX as i64).contains(ms));
    let ms = ms.ok_or(ReadError::Invalid("a stamp is outside 48 bits"))?;
    let counter = if delta & 1 == 1 { reader.varint_u16()? } else { 0 };
    if delta & 1 == 1 && counter == 0 {
        return Err(ReadError::Invalid("a counter of 0 is written as none"));
    }
    *last_ms = ms;
    Ok(Hlc::new(ms as u64, counter))
}

fn read_payload(reader: &mut Reader<'_>, absent: bool) -> Result<Payload, ReadError> {
    let len = reader.len(PAYLOAD_LEN_MAX)?;
    if !absent {
        return Ok(Payload::Present(reader.raw(len)?.to_vec()));
    }
    if len == 0 {
        return Err(ReadError::Invalid("an empty payload is never absent"));
    }
    Ok(Payload::Absent { len: len as u32, hash: reader.array()? })
}

/// Counts what events would take in one run, so that a batch can be cut where it is full.
#[derive(Debug, Clone, Default)]
pub struct Fill {
    events: usize,
    len: usize,
}

impl Fill {
    /// Counts `event` in, if a run of all so far and this one stays within the limits. The first
    /// always fits.
    pub fn take(&mut self, kind: &Kind, payload: &Payload) -> bool {
        // Stamps and kind table at their longest: a bound, not the exact size.
        let entry = 10
            + 3
            + 2 * varint_len(payload.len() as u64)
            + payload.len().max(32)
            + kind.as_str().len()
            + 1;
        let fixed = 1 + 32 + 10 + 32 + 2 + 2 + 64;
        if self.events > 0
            && (self.events == RUN_EVENTS_MAX || self.len + entry + fixed > RUN_LEN_MAX)
        {
            return false;
        }
        self.events += 1;
        self.len += entry;
        true
    }

    /// Bytes counted so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::Fingerprint;

    fn hasher() -> Hasher {
        Hasher::new(&Fingerprint([5; 32]))
    }

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[9; 32])
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let payload = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Payload::Present),
            (1u32..65_536, any::<[u8; 32]>()).prop_map(|(len, hash)| Payload::Absent { len, hash }),
        ];
        let kind = prop_oneof![Just("a"), Just("field.set"), Just("x-1")];
        (0u64..=MS_MAX, any::<u16>(), kind, payload).prop_map(|(ms, counter, kind, payload)| {
            Entry { hlc: Hlc::new(ms, counter), kind: Kind::new(kind).expect("a kind"), payload }
        })
    }

    fn signed_run() -> impl Strategy<Value = VerifiedRun> {
        (proptest::collection::vec(entry(), 1..4), 1u64..1_000_000, any::<[u8; 32]>()).prop_map(
            |(entries, start, base)| {
                let author = AuthorId(key().verifying_key().to_bytes());
                let base = if start == 1 { EventId::ZERO } else { EventId(base) };
                VerifiedRun::sign(&key(), chain(&hasher(), author, start, base, entries))
            },
        )
    }

    /// Seq, base, ids and signature of a run of `count` events with `payload_len` bytes each.
    fn run_of(count: usize, payload_len: usize) -> VerifiedRun {
        let entries = (0..count as u64).map(|i| Entry {
            hlc: Hlc::new(1_790_000_000_000 + i * 600, 0),
            kind: Kind::new("telemetry.sample").expect("a kind"),
            payload: Payload::Present(vec![i as u8; payload_len]),
        });
        let author = AuthorId(key().verifying_key().to_bytes());
        let events = chain(&hasher(), author, 7, EventId([1; 32]), entries.collect());
        VerifiedRun::sign(&key(), events)
    }

    #[test]
    fn a_hundred_events_of_a_hundred_bytes_cost_at_most_108_bytes_each() {
        let len = run_of(100, 100).encode().len();
        assert!(len <= 10_800, "{len} bytes");
    }

    /// Found by fuzzing: the lengths that absent payloads claim were reserved for them.
    #[test]
    fn a_run_of_absent_payloads_is_written_in_as_much_room_as_it_takes() {
        let kind = Kind::new("x").expect("a kind");
        let absent = Payload::Absent { len: u32::MAX, hash: [7; 32] };
        let entry = Entry { hlc: Hlc::new(1, 0), kind, payload: absent };
        let entries = vec![entry; RUN_EVENTS_MAX];
        let (author, base) = (AuthorId([1; 32]), EventId([2; 32]));
        let run = Run { author, start_seq: 2, base, entries, signature: [0; 64] };
        let bytes = run.encode();
        assert!(bytes.capacity() < 2 * bytes.len(), "{} for {}", bytes.capacity(), bytes.len());
    }

    #[test]
    fn any_single_flipped_bit_is_refused() {
        let run = run_of(3, 20);
        let bytes = run.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let taken = Run::decode(&flipped).and_then(|run| run.verify(&hasher()));
            // Also in the base, which no id in the run can do without.
            assert!(taken.is_err(), "bit {bit}");
        }
    }

    /// An author's id is its key, so there is none whose key is not known yet: the first that comes in its
    /// name is checked like all that follow, also at the first place of its feed.
    #[test]
    fn an_author_that_was_never_met_is_verified_and_nobody_writes_in_its_name() {
        let other = SigningKey::from_bytes(&[10; 32]);
        let entry = Entry {
            hlc: Hlc::new(1_790_000_000_000, 0),
            kind: Kind::new("x").expect("a kind"),
            payload: Payload::Present(vec![1]),
        };
        let author = AuthorId(key().verifying_key().to_bytes());
        let first = || chain(&hasher(), author, 1, EventId::ZERO, vec![entry.clone()]);
        let taken = |run: &VerifiedRun| {
            let run = Run::decode(&run.encode()).expect("it has the form of a run");
            run.verify(&hasher())
        };
        assert!(taken(&VerifiedRun::sign(&key(), first())).is_ok());
        let planted = taken(&VerifiedRun::sign(&other, first()));
        assert!(matches!(planted, Err(RunError::BadSignature { .. })), "{planted:?}");
    }

    #[test]
    fn a_run_over_the_limits_is_refused_absent_payloads_counted() {
        let absent = |len| Entry {
            hlc: Hlc::new(1, 0),
            kind: Kind::new("x").expect("a kind"),
            payload: Payload::Absent { len, hash: [0; 32] },
        };
        let run = |entries: Vec<Entry>| Run {
            author: AuthorId([1; 32]),
            start_seq: 2,
            base: EventId([1; 32]),
            entries,
            signature: [0; 64],
        };
        assert!(Run::decode(&run(vec![absent(65_536); 3]).encode()).is_ok());
        let long = run(vec![absent(65_536); 4]).encode();
        assert!(matches!(Run::decode(&long), Err(RunError::TooLong { events: 4, .. })));
        assert!(Run::decode(&run(vec![absent(1); 1024]).encode()).is_ok());
        assert!(Run::decode(&run(vec![absent(1); 1025]).encode()).is_err());
        assert!(Run::decode(&run(vec![absent(0)]).encode()).is_err());
        assert!(Run::decode(&run(vec![]).encode()).is_err());
        let mut last = run(vec![absent(1); 2]);
        last.start_seq = u64::MAX;
        assert!(Run::decode(&last.encode()).is_err());
    }

    #[test]
    fn a_weak_key_signs_for_nobody() {
        // The identity point: plain verification takes any message under it.
        let mut weak = [0; 32];
        weak[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!verify_head(&AuthorId(weak), &EventId([2; 32]), &signature));
    }

    proptest! {
        #[test]
        fn entries_built_one_by_one_are_the_same_bytes_of_the_length_foretold(
            entries in proptest::collection::vec(entry(), 1..40),
            base: [u8; 32],
        ) {
            let mut whole = Writer::new();
            write_entries(&mut whole, &EventId(base), entries.iter().map(Entry::parts));
            let mut built = Entries::after(EventId(base));
            let mut foretold = 0;
            for Entry { hlc, kind, payload } in &entries {
                foretold = built.len_with(*hlc, kind, payload);
                built.push(*hlc, kind, payload);
            }
            let mut bytes = Writer::new();
            built.write(&mut bytes);
            prop_assert_eq!(bytes.written(), foretold);
            prop_assert_eq!(bytes.as_bytes(), whole.as_bytes());
        }

        #[test]
        fn a_run_round_trips(run in signed_run()) {
            let decoded = Run::decode(&run.encode()).expect("own encoding");
            prop_assert_eq!(decoded.encode(), run.encode());
            prop_assert_eq!(run.encode().len(), run.encoded_len());
            prop_assert_eq!(decoded.verify(&hasher()).expect("own signature"), run);
        }

        #[test]
        fn changed_bytes_are_refused_or_the_one_encoding_of_something_else(
            run in signed_run(), at in any::<prop::sample::Index>(), byte: u8,
        ) {
            let mut bytes = run.encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(decoded) = Run::decode(&bytes) {
                prop_assert_eq!(decoded.encode(), bytes);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Run::decode(&bytes);
        }

        #[test]
        fn a_batch_cut_by_fill_stays_within_a_run(entries in proptest::collection::vec(entry(), 1..60)) {
            let mut fill = Fill::default();
            let fitting: Vec<Entry> =
                entries.into_iter().take_while(|entry| fill.take(&entry.kind, &entry.payload)).collect();
            let author = AuthorId(key().verifying_key().to_bytes());
            let run = VerifiedRun::sign(&key(), chain(&hasher(), author, 1, EventId::ZERO, fitting));
            prop_assert!(Run::decode(&run.encode()).is_ok());
        }
    }
}
