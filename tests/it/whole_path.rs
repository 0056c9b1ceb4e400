//! The whole path with real processes: nodes that find each other, sync, and show one view.
//!
//! Everything is done through what a person or an application has: the program's verbs and its
//! socket. Deadlines have ten times the room that a step takes on a small machine, so that one that
//! passes means something.

mod convergence;
mod joining;
mod probe;
mod slots;
mod twin;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use mosaik_api::{
    document::{Record, Written},
    request::{CreateRecord, SetFields},
};
use mosaik_lab::Node;
use serde_json::Value;

/// How long any one step may take.
const STEP: Duration = Duration::from_secs(60);

/// Makes a record with one field.
async fn create(node: &Node, record: &str, field: &str, value: Value) -> Result<Written> {
    let create = CreateRecord {
        record: Some(record.to_owned()),
        form: "report".to_owned(),
        fields: BTreeMap::from([(field.to_owned(), value)]),
        if_absent: false,
    };
    node.client()?.create(&create).await.with_context(|| format!("{} {record}", node.name()))
}

/// Sets one field.
async fn set(node: &Node, record: &str, field: &str, value: Value) -> Result<Written> {
    let set = SetFields { fields: BTreeMap::from([(field.to_owned(), value)]) };
    node.client()?.set(record, &set).await.with_context(|| format!("{} {record}", node.name()))
}

/// A record that has to be there.
async fn record(node: &Node, record: &str) -> Result<Record> {
    let found = node.client()?.record(record).await;
    found.with_context(|| format!("{} does not show {record}", node.name()))
}

/// What `id --ticket` prints.
async fn ticket(node: &Node) -> Result<String> {
    Ok(node.run(&["id", "--ticket"]).await?.ok()?.trim().to_owned())
}
