//! A network without internet: nodes that have nothing but a DHT that `serve dht` runs for them.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use mosaik_api::document::DialEnd;
use mosaik_lab::{
    Cluster, Node, Output,
    binary::node_binary,
    process::{self, Group, Process},
    wait,
};
use mosaik_tests::{cluster, play};
use tokio::process::Command;

/// How long any one step may take.
const STEP: Duration = Duration::from_secs(60);

/// How long it may take until a node with a peer has read all slots again: twice that.
const READ_AGAIN: Duration = Duration::from_secs(160);

/// `serve dht` on a free port of this machine, and its address.
struct Served {
    process: Process,
    address: String,
}

impl Served {
    async fn start(log: &Path, bootstrap: &[&str]) -> Result<Self> {
        let mut process = Process::spawn(command(bootstrap)?, log, Group::Shared)?;
        let told = wait::until("its address", STEP, || async {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("dht        "));
            let address = line.and_then(|line| line.split_once(", ")).map(|(at, _)| at.to_owned());
            address.ok_or(text)
        });
        let address = told.await?;
        ensure!(process.ended()?.is_none(), "it has ended");
        Ok(Self { process, address })
    }
}

fn command(bootstrap: &[&str]) -> Result<Command> {
    let mut command = Command::new(node_binary()?);
    command.args(["serve", "dht", "--listen", "127.0.0.1:0"]);
    bootstrap.iter().for_each(|address| {
        command.args(["--bootstrap", address]);
    });
    Ok(command)
}

#[tokio::test]
async fn two_nodes_find_each_other_through_two_dht_nodes_of_their_own() {
    tokio::task::spawn_blocking(node_binary).await.expect("no panic").expect("the node builds");
    let logs = tempfile::tempdir().expect("a directory");
    let started = async {
        let first = Served::start(&logs.path().join("first"), &[]).await?;
        let second = Served::start(&logs.path().join("second"), &[first.address.as_str()]).await?;
        anyhow::Ok([first, second])
    };
    let mut served = started.await.expect("both run");
    let bootstrap = served.each_ref().map(|served| served.address.clone());
    play(cluster(2).dht_of(bootstrap).relay(false), async |cluster: &mut Cluster| {
        cluster.start().await?;
        for node in &cluster.nodes {
            node.run(&["wait", "--peers", "1", "--timeout", "60"]).await?.ok()?;
        }
        let [n1, n2] = &cluster.nodes[..] else { unreachable!("two nodes") };
        let found = [n1.peers().await?, n2.peers().await?];
        match found.each_ref().map(|peers| peers.peers[0].found_by.as_str()) {
            ["slot", _] => slots_are_told(n1, n2).await,
            [_, "slot"] => slots_are_told(n2, n1).await,
            others => bail!("nobody was found in a slot, but by {others:?}"),
        }
    })
    .await;
    for Served { process, .. } in &mut served {
        let ended = process.terminate(STEP).await.expect("it stops");
        assert!(ended.success(), "{ended}: {}", process.log_tail());
    }
}

/// The slot of `held`, by which it was found, shows up with name, address, lease and dial; and what
/// both did is counted.
async fn slots_are_told(finder: &Node, held: &Node) -> Result<()> {
    let id = held.identity().await?.node;
    let told = wait::until("the other's slot", READ_AGAIN, || async {
        let slots = finder.slots().await.map_err(|error| format!("{error:#}"))?.slots;
        let theirs = slots.iter().find(|slot| slot.holder.as_ref() == Some(&id)).cloned();
        theirs.filter(|slot| slot.last_dial.is_some()).ok_or(format!("{slots:?}"))
    });
    let slot = told.await?;
    ensure!(slot.holder_name.as_deref() == Some(held.name()), "{slot:?}");
    ensure!(slot.last_dial.is_some_and(|dial| dial.ended == DialEnd::Ok), "{slot:?}");
    ensure!(slot.addresses.len() == 1 && slot.issued_ms < slot.expires_ms, "{slot:?}");
    let table = finder.run(&["slots"]).await?.ok()?;
    ensure!(table.lines().count() == 17, "{table}");
    ensure!(table.contains(&format!("{} (", held.name())) && table.contains("ok "), "{table}");
    // One of the two may have answered too late to be counted.
    let stored = ["mosaik_dht_stored_nodes 1", "mosaik_dht_stored_nodes 2"];
    wait::until("what it holds in its metrics", READ_AGAIN, || async {
        let text = held.client().map_err(|error| format!("{error:#}"))?.metrics().await;
        let text = text.map_err(|error| error.to_string())?;
        let has = |line: &str| text.lines().any(|found| found == line);
        let is_there = has("mosaik_slots{state=\"mine\"} 1")
            && stored.into_iter().any(has)
            && text.contains("\nmosaik_first_peer_seconds ");
        if is_there { Ok(()) } else { Err(text) }
    })
    .await
}

#[tokio::test]
async fn a_dht_node_that_cannot_run_says_why_in_one_sentence() {
    tokio::task::spawn_blocking(node_binary).await.expect("no panic").expect("the node builds");
    let logs = tempfile::tempdir().expect("a directory");
    let first = Served::start(&logs.path().join("first"), &[]).await.expect("it runs");
    for (arguments, code, says) in [
        (["--listen", first.address.as_str()], 1, "is in use"),
        (["--listen", "[::1]:6881"], 2, "IPv4 alone"),
        (["--listen", "6881"], 2, "0.0.0.0:6881"),
        (["--public-ip", "::1"], 2, "invalid"),
    ] {
        let refused = run(&arguments).await.expect("it ends");
        assert_eq!(refused.code, Some(code), "{refused:?}");
        assert!(refused.stderr.contains(says), "{says:?} in {}", refused.stderr);
    }
    let unknown = ["--listen", "127.0.0.1:0", "--bootstrap", "no-such-host.invalid:1"];
    let refused = run(&unknown).await.expect("it ends");
    assert!(
        refused.code == Some(1) && refused.stderr.contains("no-such-host.invalid"),
        "{refused:?}"
    );
}

async fn run(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(node_binary()?);
    command.args(["serve", "dht"]).args(arguments);
    process::run(command, b"", STEP).await.context("serve dht")
}
