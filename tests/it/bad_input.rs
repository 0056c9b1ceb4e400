//! Bad input with the real program: one sentence that says what to do, the right exit code, and
//! nothing lost. What comes from other nodes is told in the peer's line or dropped, and the node
//! goes on.
//!
//! What a stranger sends is made by hand from the FORMAT.md of each crate, so that a mistake in ours
//! can't hide itself here.

mod command_line;
mod data_directory;
mod forged_runs;
mod slots;
mod strangers;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use mosaik_api::{document::Status, request::EmitEvent};
use mosaik_lab::{Node, Output, binary::node_binary, process::Group};
use serde_json::json;
use tempfile::TempDir;

/// The words that start a node which looks for nobody.
const QUIET: [&str; 5] = ["--listen", "127.0.0.1:0", "--lab", "--no-dht", "--no-relay"];

/// A node with its own directories that doesn't run, to try command lines on.
async fn idle() -> Result<(TempDir, Node)> {
    let binary = tokio::task::spawn_blocking(node_binary).await??;
    let lab = tempfile::Builder::new().prefix("mlab-").tempdir()?;
    let node = Node::new(lab.path(), "n1", binary, Group::Shared)?;
    Ok((lab, node))
}

/// Runs a command line and holds its end against [`refused`].
async fn refuses(node: &Node, words: &[&str], code: i32, says: &[&str]) -> Result<String> {
    refused(&node.run(words).await?, code, says)
}

/// It ended with this code and one sentence that holds all of `says`; gives that sentence.
fn refused(output: &Output, code: i32, says: &[&str]) -> Result<String> {
    let Output { command, stderr, .. } = output;
    ensure!(output.code == Some(code), "{command} ended with {:?}: {stderr}", output.code);
    let sentences: Vec<_> =
        stderr.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
    ensure!(sentences.len() == 1, "{command} has {} errors: {stderr}", sentences.len());
    ensure!(!stderr.contains("panicked"), "{command}: {stderr}");
    for text in says {
        // A hint for a typo has a line of its own.
        ensure!(stderr.contains(text), "{command} does not say {text:?}: {stderr}");
    }
    Ok(sentences[0].to_owned())
}

/// Every file below `directory` with its bytes, but for the lock, which names its last holder.
fn contents(directory: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).with_context(|| format!("{}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.insert(path.clone(), Vec::new());
            found.extend(contents(&path)?);
        } else if path.is_file() && !path.ends_with("store.lock") {
            let bytes = fs::read(&path)?;
            found.insert(path, bytes);
        }
    }
    Ok(found)
}

/// Holds `directory` against what was in it before.
fn is_as_before(directory: &Path, before: &BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    let now = contents(directory)?;
    let names = |contents: &BTreeMap<PathBuf, Vec<u8>>| contents.keys().cloned().collect();
    let (was, is): (Vec<PathBuf>, Vec<PathBuf>) = (names(before), names(&now));
    ensure!(was == is, "there were {was:?}, there are {is:?}");
    let changed: Vec<_> = before.iter().filter(|(path, bytes)| now[*path] != **bytes).collect();
    ensure!(
        changed.is_empty(),
        "changed: {:?}",
        changed.iter().map(|(p, _)| p).collect::<Vec<_>>()
    );
    Ok(())
}

/// The node answers, acknowledges a write, and shows the view that it showed `before`: the write is
/// an application's own, which no view shows. Gives its status after that.
async fn goes_on(node: &Node, before: &Status) -> Result<Status> {
    let emit = EmitEvent { kind: "app.alive".to_owned(), value: json!(true) };
    node.client()?.emit(&emit).await.context("a write was not acknowledged")?;
    let now = node.status().await?;
    ensure!(now.events == before.events + 1, "{} events, {} before", now.events, before.events);
    ensure!(now.authors == before.authors, "{} authors now", now.authors);
    ensure!(now.view_digest == before.view_digest, "the view is another");
    ensure!(now.degraded.is_none(), "it is degraded: {:?}", now.degraded);
    Ok(now)
}
