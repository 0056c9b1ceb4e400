//! The end of a batch: what follows from the cells of the touched records.
//!
//! Invariants:
//! - Digest, listing, form index, conflicts and counts of a record are a function of its cells.
//! - A record's values aren't held in memory together, however large it is.

use super::{
    Counts, FOLD_VERSION, Origin, ViewError,
    cell::{self, Cells, File, Key, Listing, Meta, Space, Span, scan},
    digest::{digest_key, trie_key, update},
};
use crate::{
    codec::{ReadError, Reader, Writer},
    id::EventId,
    key::deriver_of,
    kv::{Kv, KvMut},
    trie::Rule,
    value::Value,
};

/// Brings listings, conflicts, counts and digests up to what has been folded since the last call.
/// Returns the records whose digest changed, by their bytes.
///
/// # Errors
///
/// [`ViewError`]; the transaction must then be given up.
pub fn settle<K: KvMut>(kv: &mut K, rule: &Rule) -> Result<Vec<String>, ViewError<K::Error>> {
    let mut touched = Vec::new();
    scan(kv, &Key::new(Space::Touched).span(), |key, _| {
        touched.push(cell::take_text(&mut Reader::new(&key[1..]))?);
        Ok(true)
    })?;
    if touched.is_empty() {
        return Ok(touched);
    }
    let digester = deriver_of("view record", FOLD_VERSION);
    let before = super::counts(kv)?;
    let mut counts = before;
    let mut keys = Vec::new();
    let mut changed = Vec::new();
    for record in touched {
        kv.delete(&Key::new(Space::Touched).text(&record))?;
        sweep(kv, &record)?;
        let summary = Summary::of(kv, &record, digester.clone())?;
        list(kv, &record, summary.as_ref().map(|summary| &summary.listing), &mut counts)?;
        let conflicts = summary.as_ref().map_or(&[][..], |summary| &summary.conflicts);
        mark_conflicts(kv, &record, conflicts, &mut counts)?;
        let trie_key = trie_key(&record);
        let key = digest_key(&trie_key);
        let held = kv.get(&key)?;
        match summary.map(|summary| summary.digest) {
            digest if held.as_deref() == digest.as_ref().map(|digest| &digest[..]) => continue,
            Some(digest) => kv.put(&key, &digest)?,
            None => kv.delete(&key)?,
        }
        keys.push(trie_key);
        changed.push(record);
    }
    let key = Key::new(Space::Counts);
    if counts == Counts::default() {
        kv.delete(&key)?;
    } else if counts != before {
        kv.put(&key, &counts.encode())?;
    }
    update(kv, rule, keys)?;
    Ok(changed)
}

/// Takes away the candidates that foreign sets have replaced.
fn sweep<K: KvMut>(kv: &mut K, record: &str) -> Result<(), ViewError<K::Error>> {
    let cells = Cells::of(record);
    for (field, floor) in cell::floors(kv, &cells)? {
        let mut below = Vec::new();
        scan(kv, &cells.candidates_of(&field), |_, candidate| {
            let (origin, _) = cell::split_candidate(candidate)?;
            if origin < floor {
                below.push(origin.id);
            }
            Ok(true)
        })?;
        for id in below {
            kv.delete(&cells.candidate(&field, &id))?;
        }
    }
    Ok(())
}

/// Puts a record where it is now to be found, and takes it away from where it was.
fn list<K: KvMut>(
    kv: &mut K,
    record: &str,
    now: Option<&Listing>,
    counts: &mut Counts,
) -> Result<(), ViewError<K::Error>> {
    let key = Key::new(Space::Listed).text(record);
    let cell = kv.get(&key)?;
    let before = cell.as_deref().map(Listing::decode).transpose().map_err(ViewError::Damaged)?;
    if before.as_ref() == now {
        return Ok(());
    }
    let form_key = |form: &str| Key::new(Space::Forms).text(form).text(record);
    if let Some(form) = before.as_ref().and_then(|listing| listing.form.as_deref()) {
        kv.delete(&form_key(form))?;
    }
    if before.is_some() {
        one_less(&mut counts.records).map_err(ViewError::Damaged)?;
    }
    counts.records += u64::from(now.is_some());
    let Some(listing) = now else {
        kv.delete(&key)?;
        return Ok(());
    };
    kv.put(&key, &listing.encode())?;
    if let Some(form) = &listing.form {
        kv.put(&form_key(form), &[u8::from(listing.archived)])?;
    }
    Ok(())
}

/// Marks the fields of a record that are in conflict now, `fields` by their bytes.
fn mark_conflicts<K: KvMut>(
    kv: &mut K,
    record: &str,
    fields: &[String],
    counts: &mut Counts,
) -> Result<(), ViewError<K::Error>> {
    let of_record = Key::new(Space::Conflicts).text(record);
    let mut before = Vec::new();
    scan(kv, &of_record.clone().span(), |key, _| {
        before.push(cell::take_text(&mut Reader::new(&key[of_record.len()..]))?);
        Ok(true)
    })?;
    for field in before.iter().filter(|field| fields.binary_search(field).is_err()) {
        kv.delete(&of_record.clone().text(field))?;
        one_less(&mut counts.conflicts).map_err(ViewError::Damaged)?;
    }
    for field in fields.iter().filter(|field| before.binary_search(field).is_err()) {
        kv.put(&of_record.clone().text(field), &[])?;
        counts.conflicts += 1;
    }
    Ok(())
}

/// Takes from a count what was counted once, as the cells say.
fn one_less(count: &mut u64) -> Result<(), ReadError> {
    *count = count.checked_sub(1).ok_or(ReadError::Invalid("less is counted than there is"))?;
    Ok(())
}

/// What follows from a record's cells.
struct Summary {
    listing: Listing,
    /// Names of the fields in conflict, by their bytes.
    conflicts: Vec<String>,
    digest: [u8; 32],
}

/// Bytes of values of one record that are kept from the first reading of its fields for the second.
///
/// 256 KiB: far more than a usual record holds. What is beyond it is read twice.
const VALUES_KEPT: usize = 256 * 1024;

/// A field while its record is summed up.
struct FieldSum {
    name: String,
    /// In the order of the fold after [`fields`]; with the value's bytes while they may be kept.
    candidates: Vec<(Origin, Option<Vec<u8>>)>,
    /// The hash of the first value that was met, and whether there is another.
    first: blake3::Hash,
    in_conflict: bool,
}

impl Summary {
    /// Sums up a record by what its digest is derived from: none if it doesn't exist.
    fn of<K: Kv>(
        kv: &K,
        record: &str,
        digester: blake3::Hasher,
    ) -> Result<Option<Self>, ViewError<K::Error>> {
        let cells = Cells::of(record);
        let Some(meta) = kv.get(&cells.meta())? else { return Ok(None) };
        let meta = Meta::read(&meta).map_err(ViewError::Damaged)?;
        let mut body = Body { digester, writer: Writer::with_capacity(Body::BUFFER * 2) };
        body.writer().str(record).bool(meta.is_archived());

        let fields = fields(kv, &cells)?;
        let mut form = None;
        let mut conflicts = Vec::new();
        body.writer().len(fields.len());
        for mut field in fields {
            body.writer().str(&field.name).len(field.candidates.len());
            let last = field.candidates.len() - 1;
            for (at, (origin, kept)) in field.candidates.iter_mut().enumerate() {
                let value = match kept.take() {
                    Some(value) => value,
                    None => value_of(kv, &cells, &field.name, &origin.id)?,
                };
                body.writer().raw(&origin.id.0).raw(&value);
                if at == last && field.name.is_empty() {
                    let value = Value::decode(&value).map_err(ViewError::Damaged)?;
                    form = value.as_text().map(str::to_owned);
                }
            }
            if field.in_conflict {
                conflicts.push(field.name);
            }
        }

        body.writer().len(count(kv, &cells.notes())?);
        let prefix_len = cells.prefix_len() + 1;
        scan(kv, &cells.notes(), |key, text| {
            let origin = cell::read_origin(&mut Reader::new(&key[prefix_len..]))?;
            body.writer().raw(&origin.id.0).bytes(text);
            Ok(true)
        })?;

        body.writer().len(count(kv, &cells.attachments())?);
        scan(kv, &cells.attachments(), |key, cell| {
            let mut key = Reader::new(&key[prefix_len..]);
            let field = cell::take_text(&mut key)?;
            let file = File::decode(cell)?;
            let writer = body.writer().str(&field).raw(&key.array::<32>()?);
            writer.varint(file.size).str(file.mime).str(file.name);
            Ok(true)
        })?;

        let listing = Listing { archived: meta.is_archived(), form };
        Ok(Some(Self { listing, conflicts, digest: body.finish() }))
    }
}

/// The fields that have candidates, by the bytes of their names.
fn fields<K: Kv>(kv: &K, cells: &Cells) -> Result<Vec<FieldSum>, ViewError<K::Error>> {
    let prefix_len = cells.prefix_len() + 1;
    let mut fields: Vec<FieldSum> = Vec::new();
    let mut kept = 0;
    scan(kv, &cells.candidates(), |key, cell| {
        let mut key = Reader::new(&key[prefix_len..]);
        let name = cell::take_text(&mut key)?;
        let (origin, value) = cell::split_candidate(cell)?;
        kept += value.len();
        let candidate = (origin, (kept <= VALUES_KEPT).then(|| value.to_vec()));
        let hash = blake3::hash(value);
        match fields.last_mut() {
            Some(field) if field.name == name => {
                field.candidates.push(candidate);
                field.in_conflict |= field.first != hash;
            }
            _ => fields.push(FieldSum {
                name,
                candidates: vec![candidate],
                first: hash,
                in_conflict: false,
            }),
        }
        Ok(true)
    })?;
    for field in &mut fields {
        field.candidates.sort_unstable_by_key(|(origin, _)| *origin);
    }
    Ok(fields)
}

fn value_of<K: Kv>(
    kv: &K,
    cells: &Cells,
    field: &str,
    id: &EventId,
) -> Result<Vec<u8>, ViewError<K::Error>> {
    let cell = kv.get(&cells.candidate(field, id))?.unwrap_or_default();
    Ok(cell::split_candidate(&cell).map_err(ViewError::Damaged)?.1.to_vec())
}

fn count<K: Kv>(kv: &K, span: &Span) -> Result<usize, ViewError<K::Error>> {
    let mut count = 0;
    scan(kv, span, |_, _| {
        count += 1;
        Ok(true)
    })?;
    Ok(count)
}

/// The bytes that a record's digest is derived from, hashed while they are written.
struct Body {
    digester: blake3::Hasher,
    writer: Writer,
}

impl Body {
    /// Bytes that are gathered before they are hashed.
    const BUFFER: usize = 4096;

    fn writer(&mut self) -> &mut Writer {
        if self.writer.written() >= Self::BUFFER {
            self.digester.update(self.writer.as_bytes());
            self.writer.clear();
        }
        &mut self.writer
    }

    fn finish(mut self) -> [u8; 32] {
        self.digester.update(self.writer.as_bytes());
        *self.digester.finalize().as_bytes()
    }
}
