//! The open form of a record: one TXT record for each thing, as existing tools of the chain read it.

use std::collections::BTreeMap;

use mosaik_core::id::NodeId;

use super::{Hint, NEIGHBOURS_MAX, Neighbour, Record, RecordError, address, signed_texts};
use crate::{
    lease::{self, Lease, Scope},
    slot::SlotKeys,
};

/// Names and texts in the order in which they stand in the packet.
pub(super) fn texts(record: &Record) -> Vec<(String, String)> {
    let mut texts = vec![("_id".to_owned(), base58(&record.node))];
    let (relays, addresses) = (record.relays.len(), signed_texts(record));
    for (at, text) in addresses.into_iter().enumerate() {
        let name = if at < relays { "_r" } else { "_ip" };
        texts.push((name.to_owned(), text));
    }
    texts.push(("_l".to_owned(), record.lease.to_text()));
    for Neighbour { node, hint } in &record.neighbours {
        texts.push(("_p".to_owned(), format!("{} {hint}", base58(node))));
    }
    texts
}

/// Whether an open record has texts of this name.
pub(super) fn is_name(name: &str) -> bool {
    ["_id", "_r", "_ip", "_l", "_p"].contains(&name)
}

pub(super) fn parse(
    keys: &SlotKeys,
    slot: u8,
    texts: &BTreeMap<String, Vec<String>>,
) -> Result<Record, RecordError> {
    let node = from_base58(one(texts, "_id")?).ok_or(RecordError::Id)?;
    let lease = Lease::from_text(one(texts, "_l")?)?;
    let (relays, ips) = (all(texts, "_r"), all(texts, "_ip"));
    // The lease covers what stands there, also what this program can't make sense of.
    let addresses = lease::digest(relays.iter().chain(ips).map(String::as_str));
    lease.verify(&Scope { fingerprint: keys.fingerprint(), slot, node: &node, addresses })?;
    let neighbours = all(texts, "_p").iter().filter_map(|text| neighbour(text));
    Ok(Record {
        node,
        relays: relays.to_vec(),
        addresses: ips.iter().filter_map(|text| address(text)).collect(),
        lease,
        neighbours: neighbours.take(NEIGHBOURS_MAX).collect(),
    })
}

fn one<'a>(
    texts: &'a BTreeMap<String, Vec<String>>,
    name: &'static str,
) -> Result<&'a str, RecordError> {
    match all(texts, name) {
        [] => Err(RecordError::Missing(name)),
        [text] => Ok(text),
        many => Err(RecordError::Repeated { name, count: many.len() }),
    }
}

fn all<'a>(texts: &'a BTreeMap<String, Vec<String>>, name: &str) -> &'a [String] {
    texts.get(name).map_or(&[], Vec::as_slice)
}

fn neighbour(text: &str) -> Option<Neighbour> {
    let (node, hint) = text.split_once(' ')?;
    Some(Neighbour { node: from_base58(node)?, hint: Hint::parse(hint)? })
}

fn base58(node: &NodeId) -> String {
    bs58::encode(node.as_bytes()).into_string()
}

fn from_base58(text: &str) -> Option<NodeId> {
    let mut bytes = [0; 32];
    let len = bs58::decode(text).onto(&mut bytes[..]).ok()?;
    (len == bytes.len()).then_some(NodeId(bytes))
}
