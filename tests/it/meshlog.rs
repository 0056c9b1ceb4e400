//! A log that a real meshlogd has written, taken in by a node and read on another.

use std::fs;

use anyhow::{Context, Result, ensure};
use mosaik_api::document::{Events, ImportedMeshlog, Record, View};
use mosaik_lab::{Cluster, Node, node::VERB_TIMEOUT, wait};
use mosaik_tests::{cluster, data, play};
use serde_json::json;

async fn import(node: &Node, path: &str) -> Result<ImportedMeshlog> {
    node.run(&["import", path, "--format", "meshlog", "--json"]).await?.json()
}

async fn record(node: &Node, record: &str) -> Result<Record> {
    node.run(&["record", "get", record, "--json"]).await?.json()
}

async fn digest(node: &Node) -> Result<String> {
    let view: View = node.run(&["view", "--json"]).await?.json()?;
    ensure!(view.fold == 2 && view.held_back == 0, "{view:?}");
    Ok(view.digest)
}

/// What the log says shows on both nodes alike, by whom it was written; again, or by the other node, it
/// changes nothing.
#[tokio::test]
async fn a_log_of_meshlogd_is_taken_in_once_by_whomever_and_shows_alike_everywhere() {
    play(cluster(2).dht(0).relay(false), async |cluster: &mut Cluster| {
        let log = data("meshlogd.jsonl");
        let path = log.to_str().context("a plain path")?;
        let [n1, n2] = &mut cluster.nodes[..] else { unreachable!("two nodes") };
        n1.start().await?;
        n2.arguments.extend(["--peer".into(), n1.identity().await?.ticket]);
        n2.start().await?;
        // A set of ours in the way, later than the log's: both stand, ours shows.
        n1.run(&["record", "create", "R-100", "--form", "site_assessment", "status=OURS"])
            .await?
            .ok()?;

        let first = import(n1, path).await?;
        let counts = (first.imported, first.known, first.unverified, first.unsigned);
        ensure!(counts == (16, 0, 14, 2), "{first:?}");
        ensure!(first.refused.is_empty() && first.notices.is_empty(), "{first:?}");
        let after = digest(n1).await?;
        wait::until("the other node to show the same", VERB_TIMEOUT, async || {
            let shown = digest(n2).await;
            shown.ok().filter(|shown| *shown == after).ok_or("another digest".to_owned())
        })
        .await?;
        for node in [&*n1, &*n2] {
            let shown = record(node, "R-100").await?;
            ensure!(shown.fields["status"] == json!("OURS"), "{shown:?}");
            ensure!(shown.fields["height"] == json!(12.5), "{shown:?}");
            let conflict = shown.conflicts.first().context("both stand")?;
            let author = &conflict.others[0].author_name;
            ensure!(author.len() == 32, "the hash of an identity: {shown:?}");
            ensure!(shown.notes[0].text == "grüße 😀 \u{7f}", "{shown:?}");
            let shown = record(node, "R-200").await?;
            ensure!(shown.fields["reading"] == json!(99), "{shown:?}");
            ensure!(shown.fields["flow"] == json!(1e16), "{shown:?}");
            ensure!(shown.fields["serial"] == json!("1180591620717411303424"), "{shown:?}");
            ensure!(
                shown.conflicts.is_empty(),
                "a foreign set replaces those before it: {shown:?}"
            );
            let shown = record(node, "R-300").await?;
            ensure!(shown.archived && shown.notes[0].author_name == "base", "{shown:?}");
        }
        for node in [&*n1, &*n2] {
            let again = import(node, path).await?;
            ensure!((again.imported, again.known) == (0, 16), "{again:?}");
            ensure!(digest(node).await? == after, "the second time changed something");
        }
        // Word for word: what goes out again is what came in.
        let events: Events = n2.run(&["events", "--json"]).await?.json()?;
        let foreign = events.events.iter().filter(|event| event.kind == "foreign.meshlog");
        let said: Vec<_> = foreign.map(|event| event.payload["event"].clone()).collect();
        ensure!(said == fs::read_to_string(&log)?.lines().collect::<Vec<_>>(), "{said:?}");
        n1.run(&["db", "check"]).await?.ok()?;
        n2.run(&["db", "check"]).await?.ok()?;
        Ok(())
    })
    .await;
}

/// meshlogd itself doesn't start with a torn log, joins over a lost line, and serves a changed one.
#[tokio::test]
async fn damaged_lines_of_a_log_are_named_and_the_others_are_kept() {
    play(cluster(1).dht(0).relay(false), async |cluster: &mut Cluster| {
        let path = cluster.directory().join("damaged.jsonl");
        let name = path.to_str().context("a plain path")?;
        let [n1] = &mut cluster.nodes[..] else { unreachable!("one node") };
        n1.start().await?;
        let whole = fs::read_to_string(data("meshlogd.jsonl"))?;
        let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
        lines[1] = lines[1].replace("OPENED", "CLOSED");
        lines[8] = "{}".to_owned();
        let torn = lines[15].len() - 20;
        lines[15].truncate(torn);
        fs::write(&path, lines.join("\n"))?;

        let output = n1.run(&["import", name, "--format", "meshlog"]).await?;
        let (told, shown) = (output.stderr.clone(), output.stdout.clone());
        output.exited(1)?;
        ensure!(shown.contains("13 imported, 0 here already, 3 refused"), "{shown}");
        for says in [
            "line 2: its id is",
            "line 9: ",
            "line 16: ",
            "ends inside this line",
            // What stood on the lines that are lost was followed by others.
            "line 3: event 3 of",
            "follows one that is not here",
            "12 signatures not verified: no key of the author",
            "3 lines refused; the other lines are kept",
        ] {
            ensure!(told.contains(says), "{says:?} is expected: {told}");
        }
        ensure!(!told.contains("line 11:"), "only what follows the gap itself is told: {told}");
        // The whole log later fills the holes.
        fs::write(&path, whole)?;
        let mended = import(n1, name).await?;
        ensure!((mended.imported, mended.known) == (3, 13), "{mended:?}");
        ensure!(record(n1, "R-100").await?.fields["status"] == json!("OPENED"));
        n1.run(&["db", "check"]).await?.ok()?;

        for (words, says) in [
            (&["import", "-", "--format", "meshlog"][..], "give a file"),
            (&["import", name, "--format", "meshlog", "--form", "f"][..], "leave out --form"),
            (&["import", name, "--format", "csv"][..], "--id-column"),
            (&["import", "/nowhere", "--format", "meshlog"][..], "cannot read"),
        ] {
            let output = n1.run(words).await?;
            ensure!(output.stderr.contains(says), "{}", output.stderr);
            output.exited(2)?;
        }
        Ok(())
    })
    .await;
}
