//! The view digest: the trie over the records' digests, with its upper part kept in cells.
//!
//! Invariants:
//! - A prefix has a branch cell exactly where more than 32 records are under it, so the cells are a
//!   function of the records, too.
//! - An update reads the branches on the paths to what changed, and the leaves at their ends.

use super::{
    FOLD_VERSION, ViewError,
    cell::{Key, Space, Span, scan},
};
use crate::{
    codec::{ReadError, Reader},
    id::Fingerprint,
    kv::{Kv, KvMut},
    trie::{LEAF_MAX, Prefix, Rule},
};

/// The hashes of the trie over one network's records.
pub fn rule(fingerprint: &Fingerprint) -> Rule {
    Rule::new("view leaf", "view node", FOLD_VERSION, fingerprint)
}

/// The view digest as of the last [`super::settle`]; zeros without records.
///
/// Two nodes that hold the same events, and hold back and miss the same of them, have the same one.
///
/// # Errors
///
/// [`ViewError`].
pub fn digest<K: Kv>(kv: &K) -> Result<[u8; 32], ViewError<K::Error>> {
    let root = kv.get(&Key::new(Space::Root))?;
    root.map_or(Ok([0; 32]), |root| Reader::new(&root).array().map_err(ViewError::Damaged))
}

/// The key of a record in the trie.
pub(super) fn trie_key(record: &str) -> [u8; 32] {
    *blake3::hash(record.as_bytes()).as_bytes()
}

pub(super) fn digest_key(trie_key: &[u8; 32]) -> Key {
    Key::new(Space::Digests).raw(trie_key)
}

/// Makes the topmost hash right again after the digests of `changed` have been put or taken away.
pub(super) fn update<K: KvMut>(
    kv: &mut K,
    rule: &Rule,
    mut changed: Vec<[u8; 32]>,
) -> Result<(), ViewError<K::Error>> {
    if changed.is_empty() {
        return Ok(());
    }
    changed.sort_unstable();
    let top = update_under(kv, rule, Prefix::EMPTY, &changed)?;
    let key = Key::new(Space::Root);
    if top.entries == 0 {
        kv.delete(&key)?
    } else {
        kv.put(&key, &top.hash)?
    }
    Ok(())
}

/// What is under a prefix: how many records, and their hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Under {
    entries: u64,
    hash: [u8; 32],
}

fn update_under<K: KvMut>(
    kv: &mut K,
    rule: &Rule,
    prefix: Prefix,
    changed: &[[u8; 32]],
) -> Result<Under, ViewError<K::Error>> {
    let Some(cell) = kv.get(&branch_key(&prefix))? else { return build(kv, rule, prefix) };
    let mut children = decode_branch(&cell).map_err(ViewError::Damaged)?;
    let mut rest = changed;
    for (child, prefix) in children.iter_mut().zip(prefix.children()) {
        let (here, after) = rest.split_at(rest.partition_point(|key| *key <= prefix.last().0));
        rest = after;
        if !here.is_empty() {
            *child = update_under(kv, rule, prefix, here)?;
        }
    }
    if entries(&children) <= LEAF_MAX as u64 {
        kv.delete(&branch_key(&prefix))?;
        return build(kv, rule, prefix);
    }
    put_branch(kv, rule, &prefix, &children)
}

/// Hashes what is under a prefix that has no branch cell, and makes the cells that it now needs.
fn build<K: KvMut>(kv: &mut K, rule: &Rule, prefix: Prefix) -> Result<Under, ViewError<K::Error>> {
    let span = Span {
        from: digest_key(&prefix.first().0).to_vec(),
        to: digest_key(&prefix.last().0).span().to,
    };
    let mut items = Vec::new();
    scan(kv, &span, |key, digest| {
        // The item is the key without its space, then the digest.
        items.push([&key[1..], digest].concat());
        Ok(items.len() <= LEAF_MAX)
    })?;
    if items.is_empty() {
        return Ok(Under::default());
    }
    if items.len() <= LEAF_MAX {
        return Ok(Under { entries: items.len() as u64, hash: rule.leaf(items) });
    }
    let mut children = [Under::default(); 16];
    for (child, prefix) in children.iter_mut().zip(prefix.children()) {
        *child = build(kv, rule, prefix)?;
    }
    put_branch(kv, rule, &prefix, &children)
}

fn put_branch<K: KvMut>(
    kv: &mut K,
    rule: &Rule,
    prefix: &Prefix,
    children: &[Under; 16],
) -> Result<Under, ViewError<K::Error>> {
    let mut cell = Vec::with_capacity(16 * 40);
    for child in children {
        cell.extend(child.entries.to_be_bytes());
        cell.extend(child.hash);
    }
    kv.put(&branch_key(prefix), &cell)?;
    Ok(Under { entries: entries(children), hash: rule.node(&children.map(|child| child.hash)) })
}

fn decode_branch(cell: &[u8]) -> Result<[Under; 16], ReadError> {
    let mut reader = Reader::new(cell);
    let mut children = [Under::default(); 16];
    for child in &mut children {
        child.entries = u64::from_be_bytes(reader.array()?);
        child.hash = reader.array()?;
    }
    reader.finish()?;
    Ok(children)
}

fn entries(children: &[Under; 16]) -> u64 {
    children.iter().fold(0, |sum, child| sum.saturating_add(child.entries))
}

fn branch_key(prefix: &Prefix) -> Key {
    let mut writer = crate::codec::Writer::with_capacity(33);
    prefix.write(&mut writer);
    Key::new(Space::Branches).raw(writer.as_bytes())
}
