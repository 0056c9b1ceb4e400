//! What takes minutes, and is played where it is asked for: `MOSAIK_LONG=1 cargo test --workspace --test
//! radio -- long::`.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use mosaik_lab::{
    Node,
    radio::{Channel, Transmission, by_kind},
    wait,
};
use mosaik_tests::Diary;

use super::{pair::free_port, play, shared::share, venv::Venv, whole};

/// Asks for these tests.
pub(crate) const ASKED_BY: &str = "MOSAIK_LONG";
/// What rns reckons for spreading factor 8.
const BITRATE: u32 = 3125;
/// Nodes on one channel.
const NODES: usize = 5;
/// How long they may take to agree: ten times of what is promised.
const AGREE: Duration = Duration::from_secs(600);
/// How long nobody says anything: longer than an idle link is kept.
const SILENCE: Duration = Duration::from_secs(11 * 60);

/// Five nodes behind five `rnsd`s and five RNodes, in real time: each wrote one record.
pub(crate) fn five_on_one_channel_agree(venv: Venv) -> Result<()> {
    play(async {
        let diary = Diary::begin();
        let directory = tempfile::Builder::new().prefix("mlab-").tempdir()?;
        let air = Channel { radios: NODES, loss_per_mille: 0, seed: 10, speed: 1 }.start()?;
        let (mut daemons, mut nodes) = (Vec::new(), Vec::new());
        for index in 0..NODES {
            let config = directory.path().join(format!("rnsd{index}"));
            daemons.push(share(&venv, &config, (&air, index), "No").await?);
            let radio = whole::radio("rnsd", Some(&config), BITRATE, "100%");
            nodes.push(whole::node(directory.path(), &format!("n{index}"), &radio)?);
        }
        diary.note("the radios are set");
        nodes.iter_mut().try_for_each(Node::launch)?;
        for (index, node) in nodes.iter_mut().enumerate() {
            node.ready().await?;
            write(node, &format!("R-{index}")).await?;
        }
        diary.note("each has written");
        equal(&nodes, NODES as u64).await?;
        diary.note("all hold the same");
        show(&diary, &air.sent());
        for node in &mut nodes {
            node.stop().await?;
        }
        Ok(())
    })
}

/// Two nodes on SF8, by `rnsd`: keepalives are minutes apart.
pub(crate) fn a_slow_link_is_silent_and_carries_again(venv: Venv) -> Result<()> {
    play(async {
        let diary = Diary::begin();
        let directory = tempfile::Builder::new().prefix("mlab-").tempdir()?;
        let air = Channel { radios: 2, loss_per_mille: 0, seed: 11, speed: 1 }.start()?;
        let (mut daemons, mut nodes) = (Vec::new(), Vec::new());
        for index in 0..2 {
            let config = directory.path().join(format!("rnsd{index}"));
            daemons.push(share(&venv, &config, (&air, index), "No").await?);
            let radio = whole::radio("rnsd", Some(&config), BITRATE, "100%");
            nodes.push(whole::node(directory.path(), &format!("n{index}"), &radio)?);
        }
        let before = agreed(&mut nodes, &diary).await?;
        let on_air = air.sent().len();
        still(&nodes, &before, &diary).await?;
        let sent = air.sent();
        diary.note("in the silence:");
        show(&diary, &sent[on_air..]);
        let air_s: f64 = sent[on_air..].iter().map(|sent| sent.air.as_secs_f64()).sum();
        let share = air_s / SILENCE.as_secs_f64();
        diary.note(format!("{:.2} % of the channel", 100.0 * share));
        ensure!(share <= 0.01, "{share}");
        carries(&mut nodes, &diary).await
    })
}

/// Two nodes over TCP: keepalives are seconds apart.
pub(crate) fn a_fast_link_is_silent_and_carries_again(_: Venv) -> Result<()> {
    play(async {
        let diary = Diary::begin();
        let directory = tempfile::Builder::new().prefix("mlab-").tempdir()?;
        let port = free_port()?;
        let ways = [format!("tcp-listen://127.0.0.1:{port}"), format!("tcp://127.0.0.1:{port}")];
        let mut nodes = Vec::new();
        for (index, way) in ways.into_iter().enumerate() {
            let radio = ["--rns".to_owned(), way];
            nodes.push(whole::node(directory.path(), &format!("n{index}"), &radio)?);
        }
        let before = agreed(&mut nodes, &diary).await?;
        still(&nodes, &before, &diary).await?;
        carries(&mut nodes, &diary).await
    })
}

/// Starts both; each writes, and they agree. Gives what they have counted.
async fn agreed(nodes: &mut [Node], diary: &Diary) -> Result<Vec<Counted>> {
    for (index, node) in nodes.iter_mut().enumerate() {
        node.start().await?;
        write(node, &format!("R-{index}")).await?;
    }
    equal(nodes, 2).await?;
    diary.note("both hold the same");
    let mut counted = Vec::new();
    for node in nodes.iter() {
        counted.push(counts(node).await?);
    }
    Ok(counted)
}

/// Nothing happens for long: no event is sent again meanwhile, and at its end nothing is doubled.
async fn still(nodes: &[Node], before: &[Counted], diary: &Diary) -> Result<()> {
    tokio::time::sleep(SILENCE).await;
    for (node, before) in nodes.iter().zip(before) {
        let after = counts(node).await?;
        let linked = node.client()?.bridge().await?.peers.iter().filter(|it| it.linked).count();
        diary.note(format!("{}: {linked} links, {after:?}", node.name()));
        ensure!(after == *before, "{}: {before:?}, then {after:?}", node.name());
    }
    Ok(())
}

/// What is written after the silence comes, from either end.
async fn carries(nodes: &mut [Node], diary: &Diary) -> Result<()> {
    for (index, node) in nodes.iter().enumerate() {
        write(node, &format!("S-{index}")).await?;
    }
    equal(nodes, 4).await?;
    diary.note("what came after the silence is on both");
    for node in nodes {
        let counted = counts(node).await?;
        ensure!(counted["events_duplicate_total"] == 0, "{}: {counted:?}", node.name());
        node.stop().await?;
    }
    Ok(())
}

type Counted = BTreeMap<&'static str, u64>;

/// What a node has counted of events.
async fn counts(node: &Node) -> Result<Counted> {
    let text = node.client()?.metrics().await?;
    let of = |name: &'static str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("mosaik_{name} ")));
        Ok((name, line.with_context(|| format!("no {name}"))?.parse()?))
    };
    ["events_received_total", "events_duplicate_total"].into_iter().map(of).collect()
}

async fn write(node: &Node, record: &str) -> Result<()> {
    node.run(&["record", "create", record, "--form", "visit", "state=open"]).await?.ok().map(drop)
}

/// Waits until all show so many records, and the same.
async fn equal(nodes: &[Node], records: u64) -> Result<()> {
    wait::until(&format!("{records} equal records"), AGREE, || async move {
        let mut views = Vec::new();
        for node in nodes {
            views.push(node.view().await.map_err(|error| format!("{error:#}"))?);
        }
        let is_whole = views.iter().all(|view| view.records == records);
        if is_whole && views.windows(2).all(|pair| pair[0].digest == pair[1].digest) {
            Ok(())
        } else {
            Err(format!("{:?}", views.iter().map(|view| view.records).collect::<Vec<_>>()))
        }
    })
    .await
}

fn show(diary: &Diary, sent: &[Transmission]) {
    for (kind, sum) in by_kind(sent) {
        let air_ms = sum.air_us / 1000;
        diary.note(format!("{kind}: {} packets, {} B, {air_ms} ms", sum.packets, sum.bytes));
    }
}
