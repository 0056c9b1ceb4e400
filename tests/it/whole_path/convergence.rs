//! Five nodes and a real dataset, with all that can happen to them short of a lost disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mosaik_api::document::{Frontier, Imported, PeerState, Status, Written};
use mosaik_lab::{Agreement, Cluster, Node, cluster::agreement, wait};
use mosaik_tests::{Acknowledged, Diary, Held, cluster, data, play};
use serde_json::{Value, json};

use super::{STEP, create, record, set};

/// Rows of `tests/data/airports.csv`.
const ROWS: u64 = 3376;

/// Records that are edited while cut off.
const EDITED: usize = 200;

/// Of those, the ones that are edited on the other side as well.
const EDITED_TWICE: usize = 20;

/// The field that is edited.
const FIELD: &str = "city";

/// How often the syncing node is killed.
const KILLS: u64 = 5;

/// Bytes a second that it takes while it is killed: some 370 KB are to come, so it would be at it for
/// 46 s. Between two kills it is up for the 2 s that its own write waits at a start, or little more.
const RATE_DOWN: u64 = 8_000;

/// Between two kills at least one part in so many of all events comes.
const PARTS: u64 = 50;

/// How long such a part may take.
const PART: Duration = Duration::from_secs(60);

/// The whole of what the program is for.
#[tokio::test]
async fn five_nodes_end_with_one_view_and_every_acknowledged_write() {
    play(cluster(5).relay(false), async |cluster: &mut Cluster| {
        let dht = cluster.dht().context("it has a DHT")?;
        ensure!(dht.nodes() >= 20, "a DHT of {} nodes", dht.nodes());
        Story { diary: Diary::begin(), acknowledged: Acknowledged::default(), edits: Vec::new() }
            .play(cluster)
            .await
    })
    .await;
}

struct Story {
    diary: Diary,
    acknowledged: Acknowledged,
    /// Record and value of each edit.
    edits: Vec<(String, String)>,
}

impl Story {
    async fn play(mut self, cluster: &mut Cluster) -> Result<()> {
        // By the network's id alone: nobody is told of anybody.
        cluster.start().await?;
        for node in &cluster.nodes {
            node.wait_until("four peers", STEP, |status| status.peers == 4).await?;
        }
        self.diary.note("five nodes started together, each is connected to the four others");
        let [n1, n2, n3, n4, n5] = &mut cluster.nodes[..] else { unreachable!("five nodes") };

        // From here on n2 and n5 never run at the same time. n4 begins anew, as the last.
        for node in [&mut *n3, &mut *n4, &mut *n5] {
            node.stop().await?;
        }
        fs::remove_dir_all(n4.data_dir())?;
        self.import(n1).await?;
        self.agree(&[n1, n2]).await?;

        cut(n2, n1, true).await?;
        let unhindered = n3.arguments.clone();
        n3.arguments.extend(["--rate-down".into(), RATE_DOWN.to_string()]);
        n3.start().await?;
        cut(n2, n3, true).await?;
        n2.wait_until("no peer", STEP, |status| status.peers == 0).await?;
        self.diary.note("n2 is cut off");
        self.edit(n1, n2).await?;
        self.kill_while_it_syncs(n1, n3).await?;
        n3.arguments = unhindered;
        n3.start().await?;

        ensure!(n2.status().await?.peers == 0, "n2 is not cut off any more");
        cut(n2, n1, false).await?;
        cut(n2, n3, false).await?;
        self.diary.note("n2 is let in again");
        self.agree(&[n1, n2, n3]).await?;
        n2.stop().await?;

        n5.start().await?;
        self.agree(&[n1, n3, n5]).await?;
        self.report(n5, "first").await?;
        self.agree(&[n1, n3, n5]).await?;
        let left = n5.identity().await?.node;
        n5.stop().await?;
        has_left(n1, &left).await?;
        self.diary.note("n5 has returned, written and left");

        n2.start().await?;
        self.agree(&[n1, n2, n3]).await?;
        record(n2, "n5-first-9").await.context("n5's report came through others")?;
        self.report(n2, "second").await?;
        self.agree(&[n1, n2, n3]).await?;
        n2.stop().await?;
        self.diary.note("n2 has n5's writes, has written and left");

        n5.start().await?;
        n4.start().await?;
        self.agree(&[n1, n3, n4, n5]).await?;
        record(n5, "n2-second-9").await.context("n2's report came through others")?;
        self.report(n4, "last").await?;
        self.agree(&[n1, n3, n4, n5]).await?;
        self.diary.note("n5 has n2's writes; n4 has joined last");

        n2.start().await?;
        let agreed = self.agree(&[n1, n2, n3, n4, n5]).await?;
        self.end(cluster, &agreed).await
    }

    async fn agree(&self, nodes: &[&Node]) -> Result<Agreement> {
        let agreed = agreement(nodes, STEP).await?;
        let names: Vec<_> = nodes.iter().map(|node| node.name()).collect();
        let names = names.join(", ");
        self.diary.note(format_args!("{names} agree on {} events", agreed.events));
        Ok(agreed)
    }

    /// Imports the dataset. Its answer acknowledges every row.
    async fn import(&mut self, node: &Node) -> Result<()> {
        let file = data("airports.csv").display().to_string();
        let verb = ["import", &file, "--form", "airport", "--id-column", "iata", "--json"];
        let imported: Imported = node.run(&verb).await?.json()?;
        ensure!(imported.created == ROWS && imported.refused.is_empty(), "{imported:?}");
        let held = Held::by(node).await?;
        ensure!(held.kinds["record.create"] == ROWS, "{:?}", held.kinds);
        self.acknowledged.keep_all(&held);
        self.diary.note(format_args!("imported {ROWS} rows, {} events", held.events.len()));
        Ok(())
    }

    /// `cut_off` edits many records; the other side edits some of the same.
    async fn edit(&mut self, other: &Node, cut_off: &Node) -> Result<()> {
        let mut records = Vec::new();
        let mut after = None;
        while records.len() < EDITED {
            let page = cut_off.client()?.records(None, after.as_deref(), false).await?;
            records.extend(page.records.into_iter().map(|line| line.record));
            after = page.next;
        }
        records.truncate(EDITED);
        for (number, name) in records.iter().enumerate() {
            let sides = if number < EDITED_TWICE { vec![cut_off, other] } else { vec![cut_off] };
            for node in sides {
                let value = format!("{} of {}", number, node.name());
                let written = set(node, name, FIELD, json!(value)).await?;
                ensure!(written.events.len() == 1, "{written:?}");
                self.acknowledged.keep(&written);
                self.edits.push((name.clone(), value));
            }
        }
        self.diary.note(format_args!("n2 edited {EDITED} records, n1 {EDITED_TWICE} of them"));
        Ok(())
    }

    /// Kills `node` while it syncs, over and over. What it held and what it wrote is there again.
    async fn kill_while_it_syncs(&mut self, whole: &Node, node: &mut Node) -> Result<()> {
        for kill in 1..=KILLS {
            let before = node.status().await?.events;
            let goal = before + whole.status().await?.events / PARTS;
            let more = node.wait_until("more events", PART, |status| status.events >= goal);
            // While it syncs, it writes as well.
            let name = format!("{}-before-kill-{kill}", node.name());
            let write = create(node, &name, "kill", json!(kill));
            let (more, written) = tokio::join!(more, write);
            more?;
            self.acknowledged.keep(&written?);
            let (held, all) = (node.status().await?.events, whole.status().await?.events);
            node.kill().await?;
            ensure!(held < all - all / PARTS, "kill {kill} came late: {held} of {all} events");
            self.diary.note(format_args!("kill {kill} at {held} of {all} events, {before} before"));
            node.start().await?;
            let again = node.status().await?.events;
            ensure!(again >= held, "{held} events before kill {kill}, {again} after it");
            record(node, &name).await.context("written before the kill")?;
        }
        node.stop().await
    }

    /// Ten records of `node`.
    async fn report(&mut self, node: &Node, what: &str) -> Result<()> {
        for number in 0..10 {
            let name = format!("{}-{what}-{number}", node.name());
            let verb = ["record", "create", &name, "--form", "report", "on=the whole", "--json"];
            let written: Written = node.run(&verb).await?.json()?;
            ensure!(written.events.len() == 2, "{written:?}");
            self.acknowledged.keep(&written);
        }
        Ok(())
    }

    /// All five hold the same, and all that was acknowledged.
    async fn end(&self, cluster: &mut Cluster, agreed: &Agreement) -> Result<()> {
        let mut exports = BTreeSet::new();
        for node in &cluster.nodes {
            let status: Status = node.run(&["status", "--json"]).await?.json()?;
            let frontier: Frontier = node.run(&["frontier", "--json"]).await?.json()?;
            let digest = node.run(&["view", "--digest"]).await?.ok()?;
            ensure!(status.events == agreed.events, "{status:?}");
            ensure!(frontier.frontier == agreed.frontier, "another frontier on {}", node.name());
            ensure!(digest.trim_end() == agreed.view_digest, "another view on {}", node.name());
            ensure!(status.branches == status.authors, "a feed has branched: {status:?}");
            let outside = [status.missing, status.held_back, status.declined, status.crowded];
            ensure!(outside == [0; 4], "{status:?}");
            ensure!(status.conflicts == EDITED_TWICE as u64, "{} conflicts", status.conflicts);
            let held = self.acknowledged.are_held_by(node).await?;
            ensure!(held.events.len() as u64 == agreed.events, "{} events", held.events.len());
            exports.insert(node.run(&["export", "--format", "jsonl"]).await?.ok()?);
            self.edits_show(node).await?;
        }
        ensure!(exports.len() == 1, "{} different exports", exports.len());
        let export = exports.first().context("five exports")?;
        let edited: BTreeSet<_> = self.edits.iter().map(|(name, _)| name.as_str()).collect();
        let rows = imported_rows_show(export, &edited)?;
        self.diary.note(format_args!(
            "{} events, {} of them held against an acknowledgement, {rows} rows as imported, view {}",
            agreed.events,
            self.acknowledged.len(),
            agreed.view_digest
        ));
        cluster.stop().await
    }

    /// Each edit is what shows, or is told beside it.
    async fn edits_show(&self, node: &Node) -> Result<()> {
        for (name, value) in &self.edits {
            let found = record(node, name).await?;
            let beside = found.conflicts.iter().flat_map(|conflict| &conflict.others);
            let mut all = beside.map(|other| &other.value).chain(found.fields.get(FIELD));
            ensure!(all.any(|shown| shown == value), "{} lost {value:?} of {name}", node.name());
        }
        Ok(())
    }
}

/// Blocks two nodes from each other on both sides, or lifts that.
async fn cut(one: &Node, other: &Node, apart: bool) -> Result<()> {
    let verb = if apart { "block" } else { "unblock" };
    for (near, far) in [(one, other), (other, one)] {
        let id = far.identity().await?.node;
        near.run(&["peers", verb, &id]).await?.ok()?;
    }
    Ok(())
}

/// Waits until `node` has heard that a peer left.
async fn has_left(node: &Node, peer: &str) -> Result<()> {
    wait::until("n1 to know that n5 left", STEP, async || {
        let peers = node.peers().await.map_err(|error| format!("{error:#}"))?.peers;
        let found = peers.into_iter().find(|other| other.id == peer);
        match found {
            Some(found) if found.state == PeerState::Left => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Every row of the file is a record with these fields, but for what was edited. Returns how many.
fn imported_rows_show(export: &str, edited: &BTreeSet<&str>) -> Result<u64> {
    let mut records: BTreeMap<String, Value> = BTreeMap::new();
    for line in export.lines() {
        let shown: Value = serde_json::from_str(line)?;
        let name = shown["record"].as_str().context("a record has an id")?;
        records.insert(name.to_owned(), shown);
    }
    let text = fs::read_to_string(data("airports.csv"))?;
    let mut lines = text.lines();
    let columns = cells(lines.next().context("a header")?);
    let mut rows = 0;
    for line in lines {
        let cells = cells(line);
        ensure!(cells.len() == columns.len(), "{line}");
        let record = records.get(&cells[0]).with_context(|| format!("the row {line}"))?;
        for (column, cell) in columns.iter().zip(&cells).skip(1) {
            let shown = match record.get(column.as_str()).or_else(|| record["fields"].get(column)) {
                _ if column == FIELD && edited.contains(cells[0].as_str()) => continue,
                Some(Value::String(text)) => text.clone(),
                Some(Value::Number(number)) => number.to_string(),
                None => String::new(),
                Some(other) => anyhow::bail!("{column} of {line} shows {other}"),
            };
            let equal = shown == *cell
                || matches!((shown.parse::<f64>(), cell.parse::<f64>()), (Ok(a), Ok(b)) if a == b);
            ensure!(equal, "{column} of {line} shows {shown:?}");
        }
        rows += 1;
    }
    ensure!(rows == ROWS, "{rows} rows");
    Ok(rows)
}

/// The cells of a line; one in quotes may hold commas.
fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut is_quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if is_quoted && characters.next_if_eq(&'"').is_some() => {
                cells.last_mut().expect("it begins with one").push('"');
            }
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => cells.push(String::new()),
            other => cells.last_mut().expect("it begins with one").push(other),
        }
    }
    cells
}
