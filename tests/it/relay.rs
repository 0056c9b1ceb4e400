//! Relays of one's own: `serve relay`, nodes that reach each other by relays alone, and a relay that
//! dies.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mosaik_api::document::{Peer, PeerState};
use mosaik_lab::{
    Cluster, Node, Output,
    binary::node_binary,
    cluster::agreement,
    process::{self, Group, Process},
    wait,
};
use mosaik_tests::{Diary, cluster, play};
use rustix::process::Signal;
use tokio::process::Command;

/// How long any one step may take.
const STEP: Duration = Duration::from_secs(60);
/// Ten times the minute within which nodes that meet by a relay have left a dead one.
const MOVED: Duration = Duration::from_secs(600);

/// `serve relay` on a free port of this machine, and its URL.
struct Served {
    process: Process,
    url: String,
}

impl Served {
    async fn start(log: &Path, flags: &[&str]) -> Result<Self> {
        tokio::task::spawn_blocking(node_binary).await??;
        let mut command = Command::new(node_binary()?);
        command.args(["serve", "relay", "--http", "127.0.0.1:0"]).args(flags);
        let mut process = Process::spawn(command, log, Group::Shared)?;
        let url = wait::until("its URL", STEP, || async {
            let text = fs::read_to_string(log).unwrap_or_default();
            let mut lines = text.lines();
            let url = lines.find_map(|line| line.strip_prefix("nodes use it with --relay "));
            url.map(str::to_owned).ok_or(text.clone())
        })
        .await?;
        ensure!(process.ended()?.is_none(), "it has ended");
        Ok(Self { process, url })
    }

    async fn stop(mut self) -> Result<()> {
        let ended = self.process.terminate(STEP).await?;
        ensure!(ended.success(), "{ended}: {}", self.process.log_tail());
        Ok(())
    }
}

/// The only peer of a node.
async fn peer(node: &Node) -> Result<Peer, String> {
    let peers = node.peers().await.map_err(|error| format!("{error:#}"))?.peers;
    let [peer] = &peers[..] else { return Err(format!("{peers:?}")) };
    Ok(peer.clone())
}

/// Waits until the only peer of a node is connected through this relay.
async fn by_relay(node: &Node, url: &str, deadline: Duration) -> Result<()> {
    wait::until("a session through the relay", deadline, || async {
        let peer = peer(node).await?;
        let is_there = peer.state == PeerState::Connected && peer.path.as_deref() == Some("relay");
        let is_this = peer.address.as_ref().is_some_and(|at| at.trim_end_matches('/') == url);
        if is_there && is_this { Ok(()) } else { Err(format!("{peer:?}")) }
    })
    .await
}

async fn write_and_agree(cluster: &mut Cluster, record: &str) -> Result<()> {
    let create = ["record", "create", record, "--form", "visit", "place=well"];
    cluster.nodes[0].run(&create).await?.ok()?;
    cluster.agreement(STEP).await?;
    let get = ["record", "get", record];
    let text = cluster.nodes[1].run(&get).await?.ok()?;
    ensure!(text.contains("well"), "{text}");
    Ok(())
}

#[tokio::test]
async fn nodes_that_offer_no_direct_path_sync_through_a_relay_of_their_own() {
    let logs = tempfile::tempdir().expect("a directory");
    let relay = Served::start(&logs.path().join("relay"), &[]).await.expect("it runs");
    let nodes = cluster(2).relay_of([relay.url.clone()]).argument("--relay-only");
    play(nodes, async |cluster: &mut Cluster| {
        cluster.start().await?;
        for node in &cluster.nodes {
            by_relay(node, &relay.url, STEP).await?;
            let told = node.identity().await?;
            ensure!(told.addresses.is_empty() && told.relays.len() == 1, "{told:?}");
        }
        write_and_agree(cluster, "R-1").await?;
        let metrics = cluster.nodes[0].client()?.metrics().await?;
        let sent = metrics.lines().find(|line| line.starts_with("mosaik_udp_bytes_sent_total "));
        ensure!(sent == Some("mosaik_udp_bytes_sent_total 0"), "{sent:?}");
        Ok(())
    })
    .await;
    relay.stop().await.expect("it stops");
}

/// The notice with which a node says that a relay turns it away.
async fn refused(node: &Node, deadline: Duration) -> Result<String> {
    let id = node.identity().await?.node;
    wait::until("a notice", deadline, || async {
        let notices = node.status().await.map_err(|error| format!("{error:#}"))?.notices;
        let says = format!("refuses this node: node {} is not on its list", &id[..6]);
        let notice = notices.iter().find(|notice| notice.contains(&says));
        notice.cloned().ok_or(format!("{notices:?}"))
    })
    .await
}

fn allow(list: &Path, relay: &mut Served, ids: &[&str]) -> Result<()> {
    fs::write(list, ids.join("\n"))?;
    relay.process.signal(Signal::HUP)
}

#[tokio::test]
async fn a_relay_serves_the_nodes_of_its_list_and_the_others_say_why_not() {
    let logs = tempfile::tempdir().expect("a directory");
    let list: PathBuf = logs.path().join("list");
    fs::write(&list, "# nobody yet\n").expect("ours");
    let flags = ["--allow", list.to_str().expect("text")];
    let mut relay = Served::start(&logs.path().join("relay"), &flags).await.expect("it runs");
    let nodes = cluster(2).relay_of([relay.url.clone()]).argument("--relay-only");
    play(nodes, async |cluster: &mut Cluster| {
        cluster.start().await?;
        let [n1, n2] = &cluster.nodes[..] else { unreachable!("two nodes") };
        for node in [n1, n2] {
            let notice = refused(node, STEP).await?;
            ensure!(node.run(&["status"]).await?.ok()?.contains(&notice), "{notice}");
        }
        let ids = [n1.identity().await?.node, n2.identity().await?.node];
        allow(&list, &mut relay, &ids.each_ref().map(String::as_str))?;
        for node in [n1, n2] {
            by_relay(node, &relay.url, STEP).await?;
            let notices = node.status().await?.notices;
            ensure!(notices.is_empty(), "{notices:?}");
        }
        allow(&list, &mut relay, &[&ids[0], "not-an-id"])?;
        allow(&list, &mut relay, &[&ids[0]])?;
        refused(n2, STEP).await?;
        ensure!(n1.status().await?.notices.is_empty(), "it is on the list");
        write_and_read_alone(n1).await
    })
    .await;
    relay.stop().await.expect("it stops");
}

/// What a relay refuses is no reason not to write.
async fn write_and_read_alone(node: &Node) -> Result<()> {
    node.run(&["record", "create", "R-1", "--form", "visit", "place=well"]).await?.ok()?;
    ensure!(node.run(&["record", "get", "R-1"]).await?.ok()?.contains("well"), "written");
    Ok(())
}

async fn sessions_so_far(node: &Node) -> Result<String> {
    let metrics = node.client()?.metrics().await?;
    let line = metrics.lines().find(|line| line.starts_with("mosaik_sessions_total "));
    Ok(line.context("a count of sessions")?.to_owned())
}

#[tokio::test]
async fn a_dead_relay_is_left_for_another_and_direct_pairs_notice_nothing() {
    let diary = Diary::begin();
    let logs = tempfile::tempdir().expect("a directory");
    let start = async |name: &str| Served::start(&logs.path().join(name), &[]).await;
    let mut relays = vec![start("a").await.expect("it runs"), start("b").await.expect("it runs")];
    let urls: Vec<String> = relays.iter().map(|relay| relay.url.clone()).collect();
    play(cluster(5).relay_of(urls.clone()), async |cluster: &mut Cluster| {
        // n1 and n2 have but relays; n3 and n4 are another network, and direct; n5 only looks.
        for (at, node) in cluster.nodes.iter_mut().enumerate() {
            match at {
                0 | 1 => node.arguments.push("--relay-only".into()),
                2 | 3 => node.arguments[1].push_str("-direct"),
                _ => {
                    let relay = |word: &String| word == "--relay" || urls.contains(word);
                    node.arguments.retain(|word| !relay(word));
                    node.arguments.push("--no-relay".into());
                }
            }
        }
        cluster.nodes[..4].iter_mut().try_for_each(Node::launch)?;
        for node in &mut cluster.nodes[..4] {
            node.ready().await?;
        }
        for node in &cluster.nodes[..4] {
            node.run(&["wait", "--peers", "1", "--timeout", "60"]).await?.ok()?;
        }
        let direct = wait::until("a direct path", STEP, || async {
            let peer = peer(&cluster.nodes[2]).await?;
            if peer.path.as_deref() == Some("lan") { Ok(()) } else { Err(format!("{peer:?}")) }
        });
        direct.await?;
        let before = sessions_so_far(&cluster.nodes[2]).await?;
        let used = peer(&cluster.nodes[0]).await.map_err(anyhow::Error::msg)?.address;
        let used = used.context("a connected peer has an address")?;
        let at = urls.iter().position(|url| *url == used.trim_end_matches('/'));
        let mut dead = relays.swap_remove(at.with_context(|| format!("{used} of {urls:?}"))?);
        let living = &relays[0].url;
        diary.note(format!("{} dies", dead.url));
        let died = Instant::now();
        dead.process.kill().await?;
        for node in &cluster.nodes[..2] {
            by_relay(node, living, MOVED).await?;
        }
        diary.note(format!("sessions are back after {:.1} s", died.elapsed().as_secs_f32()));
        agreement(&[&cluster.nodes[0], &cluster.nodes[1]], STEP).await?;
        let all = [&cluster.nodes[0], &cluster.nodes[1], &cluster.nodes[2]];
        for node in all {
            let told = node.identity().await?.relays;
            let told: Vec<_> = told.iter().map(|url| url.trim_end_matches('/')).collect();
            ensure!(told == [living.as_str()], "{told:?}");
        }
        ensure!(sessions_so_far(&cluster.nodes[2]).await? == before, "not {before} any more");

        let (looker, others) = cluster.nodes.split_last_mut().context("five nodes")?;
        looker.start().await?;
        let ids = [others[0].identity().await?.node, others[1].identity().await?.node];
        wait::until("slots that name the other relay", MOVED, || async {
            let slots = looker.slots().await.map_err(|error| format!("{error:#}"))?.slots;
            let is_new = |id: &String| {
                let slot = slots.iter().find(|slot| slot.holder.as_ref() == Some(id));
                slot.is_some_and(|slot| slot.relays.iter().all(|url| url.contains(living)))
            };
            if ids.iter().all(is_new) { Ok(()) } else { Err(format!("{slots:?}")) }
        })
        .await?;
        diary.note(format!("slots are new after {:.1} s", died.elapsed().as_secs_f32()));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_relay_that_cannot_run_says_why_in_one_sentence() {
    tokio::task::spawn_blocking(node_binary).await.expect("no panic").expect("the node builds");
    let logs = tempfile::tempdir().expect("a directory");
    let first = Served::start(&logs.path().join("first"), &[]).await.expect("it runs");
    let taken = first.url.trim_start_matches("http://");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    for (arguments, code, says) in [
        (&["--http", taken][..], 1, "is in use by another program"),
        (&[], 2, "a relay needs a certificate"),
        (&["--https", "127.0.0.1:0", "--http", "127.0.0.1:0"], 2, "--https needs a certificate"),
        (&["--cert", manifest, "--key", manifest], 1, "are no certificate with its key"),
        (&["--cert", "/nowhere.pem", "--key", manifest], 1, "cannot read /nowhere.pem"),
        (&["--acme", "relay.example.org", "--acme-contact", "me"], 2, "give a mail address"),
        (&["--acme", "relay.example.org", "--acme-contact", "me@example.org"], 2, "--acme-dir"),
        (&["--http", "127.0.0.1:0", "--allow", manifest], 2, "line 1: no node id"),
        (&["--http", "127.0.0.1:0", "--allow", "/nowhere"], 1, "cannot read /nowhere"),
    ] {
        let refused = run(arguments).await.expect("it ends");
        assert_eq!(refused.code, Some(code), "{refused:?}");
        assert!(refused.stderr.contains(says), "{says:?} in {}", refused.stderr);
    }
}

async fn run(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(node_binary()?);
    command.args(["serve", "relay"]).args(arguments).env_remove("STATE_DIRECTORY");
    process::run(command, b"", STEP).await.context("serve relay")
}
