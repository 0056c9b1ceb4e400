//! `mosaik-lab demo`: the story of convergence, with real processes and real figures.
//!
//! Everything that is done is a verb of `mosaik-node` that a person could type; everything that is
//! shown was asked of a running node. The end is checked, not claimed: another view, other events
//! or a lost write is an error.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mosaik_api::document::{PeerState, Record};

use crate::{Agreement, Cluster, Node, cluster::agreement, print, wait};

/// How long any one step may take. The whole takes less than this where nothing is wrong.
const STEP: Duration = Duration::from_secs(60);

/// The record that both islands edit.
const DEPOT: &str = "depot-7";

/// Records that are written while a node is dead.
const MISSED: u64 = 25;

pub(crate) async fn demo() -> Result<()> {
    tokio::select! {
        told = tell() => told,
        _ = tokio::signal::ctrl_c() => bail!("interrupted; all processes are stopped"),
    }
}

async fn tell() -> Result<()> {
    print::line("Four nodes, no server. They are told one network id, and nothing of each other.");
    let begun = Instant::now();
    let mut cluster = Cluster::builder().nodes(4).sync_every(3, 1).build().await?;
    let mut story = Story { step: 0, begun: Instant::now() };
    let dht = cluster.dht().context("a demo has a DHT")?;
    let relay = cluster.relay().context("a demo has a relay")?;
    story.step("a Mainline DHT and a relay on this machine, for want of the internet's");
    story.say(format_args!("{} DHT nodes, relay {}", dht.nodes(), relay.url()));
    story.say(format_args!("network id {}", cluster.network()));

    join(&mut story, &mut cluster).await?;
    first_record(&mut story, &cluster.nodes).await?;
    cut(&mut story, &cluster.nodes, true).await?;
    islands(&mut story, &cluster.nodes).await?;
    crash(&mut story, &mut cluster.nodes).await?;
    story.step("the islands meet again");
    let healed = Instant::now();
    cut(&mut story, &cluster.nodes, false).await?;
    let agreed = cluster.agreement(STEP).await?;
    story.say(format_args!("all four hold the same {:.1} s later", seconds(healed)));
    conflict(&mut story, &cluster.nodes).await?;
    end(&mut story, &mut cluster, agreed).await?;

    let stopping = Instant::now();
    cluster.stop().await?;
    story.say(format_args!("stopped after {:.1} s", seconds(stopping)));
    print::line("");
    print::line(format_args!(
        "Told in {:.0} s, {:.0} s with building. `mosaik-lab up 4` starts nodes to play with.",
        seconds(story.begun),
        seconds(begun)
    ));
    Ok(())
}

async fn join(story: &mut Story, cluster: &mut Cluster) -> Result<()> {
    story.step("four nodes start, each with the network id alone");
    let started = Instant::now();
    cluster.start().await?;
    story.say(format_args!("all listen after {:.1} s", seconds(started)));
    for node in &cluster.nodes {
        node.wait_until("three peers", STEP, |status| status.peers >= 3).await?;
    }
    story
        .say(format_args!("each is connected to the three others after {:.1} s", seconds(started)));
    for node in &cluster.nodes {
        let (identity, peers) = (node.identity().await?, node.peers().await?);
        let slots = node.slots().await?.slots;
        let held = slots.iter().find(|slot| slot.holder.as_ref() == Some(&identity.node));
        let found: Vec<_> = peers
            .peers
            .iter()
            .filter(|peer| peer.state == PeerState::Connected)
            .map(|peer| format!("{} by {}", peer.name, peer.found_by))
            .collect();
        story.say(format_args!(
            "{} is {}, {}; found {}",
            node.name(),
            short(&identity.node),
            held.map_or("holds no slot".into(), |slot| format!("holds slot {}", slot.slot)),
            found.join(", ")
        ));
    }
    Ok(())
}

async fn first_record(story: &mut Story, nodes: &[Node]) -> Result<()> {
    story.step("a record is made on one node and shows on all");
    let [n1, others @ ..] = nodes else { bail!("a demo has four nodes") };
    let created = Instant::now();
    let verb = ["record", "create", DEPOT, "--form", "depot", "name=Harbour", "fuel=40"];
    story.run(n1, &verb).await?;
    for node in others {
        shows(node, DEPOT, "fuel", 40).await?;
    }
    story.say(format_args!("the three others show it after {:.2} s", seconds(created)));
    Ok(())
}

/// Cuts the two halves from each other, or joins them again.
async fn cut(story: &mut Story, nodes: &[Node], apart: bool) -> Result<()> {
    if apart {
        story.step("the network falls into two islands, n1 n2 and n3 n4: each blocks the others");
    }
    let verb = if apart { "block" } else { "unblock" };
    let since = Instant::now();
    let (a, b) = nodes.split_at(2);
    for (near, far) in [(a, b), (b, a)] {
        for node in near {
            for other in far {
                let id = other.identity().await?.node;
                node.run(&["peers", verb, id.as_str()]).await?.ok()?;
            }
        }
    }
    if apart {
        for node in nodes {
            node.wait_until("one peer", STEP, |status| status.peers == 1).await?;
        }
        story.say(format_args!("each sees its neighbour alone after {:.1} s", seconds(since)));
    } else {
        story.say(format_args!("8 × peers unblock took {:.1} s", seconds(since)));
    }
    Ok(())
}

async fn islands(story: &mut Story, nodes: &[Node]) -> Result<()> {
    story.step("both islands edit the same record");
    let [n1, n2, n3, n4] = nodes else { bail!("a demo has four nodes") };
    story.run(n1, &["record", "set", DEPOT, "fuel=35"]).await?;
    story.run(n3, &["record", "set", DEPOT, "fuel=12"]).await?;
    story.run(n2, &["record", "create", "depot-8", "--form", "depot", "name=Ridge"]).await?;
    shows(n2, DEPOT, "fuel", 35).await?;
    shows(n4, DEPOT, "fuel", 12).await?;
    let left = agreement(&[n1, n2], STEP).await?;
    let right = agreement(&[n3, n4], STEP).await?;
    ensure!(left.view_digest != right.view_digest, "the islands show one view though they are cut");
    story.say(format_args!("n1 n2 show fuel 35, view {}", short(&left.view_digest)));
    story.say(format_args!("n3 n4 show fuel 12, view {}", short(&right.view_digest)));
    Ok(())
}

async fn crash(story: &mut Story, nodes: &mut [Node]) -> Result<()> {
    story.step("n4 writes and is killed with SIGKILL; n3 goes on; n4 comes back");
    let [_, _, n3, n4] = nodes else { bail!("a demo has four nodes") };
    story.run(n4, &["record", "create", "depot-9", "--form", "depot", "name=Delta"]).await?;
    let held = n4.status().await?.events;
    n4.kill().await?;
    story.say(format_args!("n4 is dead: it held {held} events, and said no goodbye"));
    let written = Instant::now();
    for number in 1..=MISSED {
        let record = format!("report-{number:02}");
        let verb = ["record", "create", record.as_str(), "--form", "report", "of=depot-7"];
        n3.run(&verb).await?.ok()?;
    }
    story.say(format_args!("n3 wrote {MISSED} records in {:.1} s meanwhile", seconds(written)));
    let started = Instant::now();
    n4.start().await?;
    let agreed = agreement(&[n3, n4], STEP).await?;
    shows_record(n4, "depot-9").await?;
    story.say(format_args!(
        "n4 is back, has all {} events {:.1} s after its start, and its own write is there",
        agreed.events,
        seconds(started)
    ));
    Ok(())
}

async fn conflict(story: &mut Story, nodes: &[Node]) -> Result<()> {
    story.step("nothing was lost: both edits are there, and a person decides");
    let [n1, n2, ..] = nodes else { bail!("a demo has four nodes") };
    let conflicts = n2.client()?.conflicts().await?.conflicts;
    let found = conflicts.iter().find(|conflict| conflict.record == DEPOT);
    let found = found.context("the two edits are not told as a conflict")?;
    story.say(format_args!(
        "{}.{} shows {} of {}",
        found.record, found.field, found.shown.value, found.shown.author_name
    ));
    for other in &found.others {
        story.say(format_args!("beside it {} of {}", other.value, other.author_name));
    }
    let values: Vec<_> =
        [&found.shown].into_iter().chain(&found.others).map(|one| one.value.as_i64()).collect();
    ensure!(
        values.len() == 2 && values.contains(&Some(35)) && values.contains(&Some(12)),
        "the candidates are {values:?}, not the two edits"
    );
    let settled = Instant::now();
    story.run(n2, &["record", "set", DEPOT, "fuel=30"]).await?;
    shows(n1, DEPOT, "fuel", 30).await?;
    for node in nodes {
        node.wait_until("no conflict", STEP, |status| status.conflicts == 0).await?;
    }
    story.say(format_args!("settled on all four after {:.2} s", seconds(settled)));
    Ok(())
}

async fn end(story: &mut Story, cluster: &mut Cluster, healed: Agreement) -> Result<()> {
    story.step("the end: what each node holds");
    let agreed = cluster.agreement(STEP).await?;
    ensure!(agreed.events > healed.events, "the last edit is not among the events");
    let mut digests = Vec::new();
    for node in &cluster.nodes {
        // Asked once more, by the verb that a person would use.
        let digest = node.run(&["view", "--digest"]).await?.ok()?.trim().to_owned();
        let status = node.status().await?;
        story.say(format_args!(
            "{}: {} events of {} authors, view {digest}",
            node.name(),
            status.events,
            status.authors
        ));
        for record in [DEPOT, "depot-8", "depot-9", "report-01", "report-25"] {
            shows_record(node, record).await?;
        }
        digests.push(digest);
    }
    digests.dedup();
    ensure!(digests.len() == 1, "the views differ: {}", digests.join(", "));
    ensure!(digests[0] == agreed.view_digest, "the verb and the status name two digests");
    story.say("one view, and no acknowledged write is missing");
    Ok(())
}

/// Waits until a field of a record shows this number.
async fn shows(node: &Node, record: &str, field: &str, number: i64) -> Result<()> {
    let what = format!("{} to show {record}.{field} = {number}", node.name());
    wait::until(&what, STEP, || async {
        let found = look(node, record).await?;
        match found.fields.get(field) {
            Some(value) if value.as_i64() == Some(number) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

async fn shows_record(node: &Node, record: &str) -> Result<()> {
    look(node, record)
        .await
        .map(|_| ())
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("{} does not show {record}, which was acknowledged", node.name()))
}

async fn look(node: &Node, record: &str) -> Result<Record, String> {
    let client = node.client().map_err(|error| format!("{error:#}"))?;
    client.record(record).await.map_err(|error| error.to_string())
}

/// What is told, step by step.
struct Story {
    step: u32,
    begun: Instant,
}

impl Story {
    fn step(&mut self, title: &str) {
        self.step += 1;
        print::line(format_args!("\n{}. {title}  [{:.1} s]", self.step, seconds(self.begun)));
    }

    fn say(&self, text: impl std::fmt::Display) {
        print::line(format_args!("   {text}"));
    }

    /// Runs a verb and shows it as a person would type it.
    async fn run(&self, node: &Node, verb: &[&str]) -> Result<()> {
        self.say(format_args!("{}$ mosaik-node {}", node.name(), verb.join(" ")));
        node.run(verb).await?.ok().map(|_| ())
    }
}

fn seconds(since: Instant) -> f32 {
    since.elapsed().as_secs_f32()
}

fn short(hex: &str) -> &str {
    hex.get(..6).unwrap_or(hex)
}
