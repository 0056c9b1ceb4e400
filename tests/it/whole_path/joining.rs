//! The ways in which two nodes meet, each alone; and who is kept out.

use std::net::UdpSocket;

use anyhow::{Context, Result, ensure};
use mosaik_api::document::{Doctor, Peer, PeerState, Peers, Pinged, Verdict};
use mosaik_lab::{
    Cluster, Node,
    binary::node_binary,
    dht::stub::relay::{RelayBehaviour, StubRelay},
    process::Group,
    wait,
};
use mosaik_tests::{cluster, play};
use serde_json::json;

use super::{STEP, create, record, ticket};

/// A ticket is all that a network without internet needs.
#[tokio::test]
async fn two_nodes_with_a_ticket_and_no_dht_converge() {
    play(cluster(2).dht(0).relay(false), async |cluster: &mut Cluster| {
        let [n1, n2] = &mut cluster.nodes[..] else { unreachable!("two nodes") };
        n1.start().await?;
        let ticket = ticket(n1).await?;
        n2.arguments.extend(["--peer".into(), ticket]);
        n2.start().await?;
        converge(cluster).await?;
        let [n1, n2] = &cluster.nodes[..] else { unreachable!("two nodes") };
        ensure!(n2.slots().await?.slots.is_empty(), "there are slots without a DHT");
        let (seen1, seen2) = (peer(n1, n2).await?, peer(n2, n1).await?);
        ensure!(seen2.found_by == "ticket", "found by {}", seen2.found_by);
        ensure!(seen1.found_by == "inbound", "found by {}", seen1.found_by);
        is_direct(&seen1)?;
        is_direct(&seen2)?;
        replicate(n1).await
    })
    .await;
}

/// A write can wait for one peer to hold it; for two it waits in vain, and stays written.
async fn replicate(node: &Node) -> Result<()> {
    let create = ["record", "create", "R-1", "--form", "f", "--replicas", "1", "--timeout", "60"];
    ensure!(node.run(&create).await?.ok()?.trim() == "R-1", "the id is printed");
    let note = ["record", "note", "R-1", "seen", "--replicas", "2", "--timeout", "0.5"];
    let refused = node.run(&note).await?;
    ensure!(refused.code == Some(5), "{refused:?}");
    let sentence = "it is written here, but only ";
    ensure!(refused.stderr.contains(sentence), "{:?}", refused.stderr);
    ensure!(record(node, "R-1").await?.notes.len() == 1, "the note is not here");
    Ok(())
}

#[tokio::test]
async fn two_nodes_with_the_dht_and_no_relay_converge() {
    play(cluster(2).relay(false), async |cluster: &mut Cluster| {
        cluster.start().await?;
        converge(cluster).await?;
        let [n1, n2] = &cluster.nodes[..] else { unreachable!("two nodes") };
        let (seen1, seen2) = (peer(n1, n2).await?, peer(n2, n1).await?);
        let found = [seen1.found_by.as_str(), seen2.found_by.as_str()];
        ensure!(found.contains(&"slot"), "nobody was found in a slot, but by {found:?}");
        is_direct(&seen1)?;
        is_direct(&seen2)?;
        ping(cluster).await
    })
    .await;
}

/// Where UDP goes nowhere but to each other: the DHT can't be asked, a pkarr relay can.
#[tokio::test]
async fn two_nodes_with_a_pkarr_relay_and_no_dht_converge() {
    let relay = StubRelay::start(RelayBehaviour::Honest).await.expect("loopback is there");
    let arguments = cluster(2).dht(0).relay(false).argument("--pkarr-relay").argument(relay.url());
    play(arguments, async |cluster: &mut Cluster| {
        cluster.start().await?;
        converge(cluster).await?;
        let [n1, n2] = &cluster.nodes[..] else { unreachable!("two nodes") };
        let (seen1, seen2) = (peer(n1, n2).await?, peer(n2, n1).await?);
        let found = [seen1.found_by.as_str(), seen2.found_by.as_str()];
        ensure!(found.contains(&"slot"), "nobody was found in a slot, but by {found:?}");
        ensure!(relay.requests() > 0, "the relay was not asked");
        let slots = n1.slots().await?.slots;
        ensure!(slots.len() == 16, "{slots:?}");
        Ok(())
    })
    .await;
}

/// The ticket names an address that nobody answers on any more, and a relay that does know the node.
#[tokio::test]
async fn a_relay_leads_to_a_node_whose_address_has_changed() {
    play(cluster(2).dht(0), async |cluster: &mut Cluster| {
        let url = cluster.relay().context("it has a relay")?.url().to_owned();
        let [n1, n2] = &mut cluster.nodes[..] else { unreachable!("two nodes") };
        n1.start().await?;
        let has_relay = async || {
            let identity = n1.identity().await.map_err(|error| format!("{error:#}"))?;
            let is_there = identity.relays == [url.clone()] && identity.addresses.len() == 1;
            if is_there { Ok(identity) } else { Err(format!("{identity:?}")) }
        };
        let before = wait::until("the relay in the ticket", STEP, has_relay).await?;
        n1.stop().await?;
        // Somebody else has the port now, and does not answer.
        let _taken = UdpSocket::bind(&before.addresses[0]).context("the port of a stopped node")?;
        n1.start().await?;
        ensure!(!n1.identity().await?.addresses.contains(&before.addresses[0]), "it has moved");
        n2.arguments.extend(["--peer".into(), before.ticket]);
        n2.start().await?;
        converge(cluster).await?;
        let [n1, n2] = &cluster.nodes[..] else { unreachable!("two nodes") };
        ensure!(peer(n2, n1).await?.found_by == "ticket", "found in another way");
        Ok(())
    })
    .await;
}

/// Who has the node's address but not the network's secret learns nothing, and both ends can read why.
#[tokio::test]
async fn a_secret_network_converges_and_a_stranger_is_refused_with_a_reason_on_both_ends() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let (ours, theirs) =
        (new_secret(scratch.path(), "a").await, new_secret(scratch.path(), "b").await);
    assert_ne!(ours, theirs);
    play(cluster(3).relay(false).network(&ours), async |cluster: &mut Cluster| {
        let [n1, n2, stranger] = &mut cluster.nodes[..] else { unreachable!("three nodes") };
        n1.start().await?;
        n2.start().await?;
        for node in [&*n1, &*n2] {
            node.wait_until("one peer", STEP, |status| status.peers == 1).await?;
        }
        create(n1, "secret-1", "of", json!("n1")).await?;
        for word in &mut stranger.arguments {
            if *word == ours {
                word.clone_from(&theirs);
            }
        }
        let ticket = ticket(n1).await?;
        stranger.arguments.extend(["--peer".into(), ticket]);
        stranger.start().await?;
        for (near, far) in [(&*stranger, &*n1), (&*n1, &*stranger)] {
            let far = far.identity().await?.node;
            let what = format!("{} to have refused the other", near.name());
            let refused = wait::until(&what, STEP, || refusal(near, &far)).await?;
            let reason = refused.reason.context("a refused peer has a reason")?;
            ensure!(reason.contains("not in this network"), "{} says {reason:?}", near.name());
            // A person sees it without being asked.
            let said = async || {
                let log = std::fs::read_to_string(near.log()).map_err(|e| e.to_string())?;
                let line = log.lines().find(|line| line.contains(" is refused: "));
                line.map(str::to_owned).ok_or(log)
            };
            let line = wait::until("a line that says so", STEP, said).await?;
            ensure!(line.contains(&reason) && line.contains(&far[..6]), "{line:?}");
        }
        let status = stranger.status().await?;
        ensure!(status.peers == 0 && status.events == 1, "the stranger has {status:?}");
        let [n1, n2, _] = &cluster.nodes[..] else { unreachable!("three nodes") };
        let agreed = mosaik_lab::cluster::agreement(&[n1, n2], STEP).await?;
        ensure!(agreed.frontier.len() == 2, "the stranger's feed came in: {:?}", agreed.frontier);
        record(n2, "secret-1").await.map(|_| ())
    })
    .await;
}

/// Both write, and both have it all.
async fn converge(cluster: &mut Cluster) -> Result<()> {
    for node in &cluster.nodes {
        node.wait_until("one peer", STEP, |status| status.peers == 1).await?;
        create(node, &format!("of-{}", node.name()), "of", json!(node.name())).await?;
    }
    let agreed = cluster.agreement(STEP).await?;
    // Two names, two records with a field each.
    ensure!(agreed.events == 6, "{} events", agreed.events);
    for node in &cluster.nodes {
        for other in ["n1", "n2"] {
            let found = record(node, &format!("of-{other}")).await?;
            ensure!(found.fields["of"] == json!(other), "{found:?}");
        }
    }
    Ok(())
}

async fn peer(node: &Node, other: &Node) -> Result<Peer> {
    let id = other.identity().await?.node;
    let Peers { peers, .. } = node.run(&["peers", "--json"]).await?.json()?;
    peers.into_iter().find(|peer| peer.id == id).context("an unknown peer")
}

fn is_direct(peer: &Peer) -> Result<()> {
    let address = peer.address.as_deref().unwrap_or_default();
    let is_direct = peer.path.as_deref() == Some("lan") && address.starts_with("127.0.0.1:");
    ensure!(peer.state == PeerState::Connected && is_direct, "{peer:?}");
    Ok(())
}

/// A peer that is there answers, one that was killed doesn't, and can be forgotten then.
async fn ping(cluster: &mut Cluster) -> Result<()> {
    let [n1, n2] = &mut cluster.nodes[..] else { unreachable!("two nodes") };
    let other = n2.identity().await?.node;
    // Whoever was dialed learns by slot or gossip where the other is.
    let located = wait::until("an address of the other", STEP, async || {
        let seen = peer(n1, n2).await.map_err(|error| format!("{error:#}"))?;
        let is_known = seen.known_addresses.iter().any(|known| !known.expired);
        if is_known { Ok(seen) } else { Err(format!("{seen:?}")) }
    });
    let seen = located.await?;
    ensure!(seen.protocol == Some(1) && seen.software.starts_with("mosaik-node"), "{seen:?}");
    ensure!((seen.events_behind, seen.events_ahead) == (Some(0), Some(0)), "{seen:?}");
    n1.run(&["status", "--check"]).await?.ok()?;
    let doctor: Doctor = n1.run(&["doctor", "--json"]).await?.json()?;
    let verdict = |name: &str| doctor.checks.iter().find(|check| check.name == name);
    for (name, is) in [("peers", Verdict::Ok), ("dht", Verdict::Ok), ("relay", Verdict::Off)] {
        ensure!(verdict(name).is_some_and(|check| check.verdict == is), "{name}: {doctor:?}");
    }
    let forget = ["peer", "forget", &other];
    ensure!(n1.run(&forget).await?.code == Some(2), "a connected peer is forgotten");
    let pinged: Pinged = n1.run(&["ping", &other[..8], "--json"]).await?.json()?;
    ensure!(pinged.answered && pinged.rtt_ms.is_some_and(|ms| ms > 0.0), "{pinged:?}");
    ensure!(n1.run(&["ping", "00"]).await?.code == Some(4), "nobody is pinged");
    n2.kill().await?;
    let ping = n1.run(&["ping", &other, "--count", "1"]).await?;
    ensure!(ping.code == Some(11) && ping.stdout.contains("no answer"), "{ping:?}");
    let gone = async || {
        let forgotten = n1.run(&forget).await.map_err(|error| format!("{error:#}"))?;
        if forgotten.code == Some(0) { Ok(()) } else { Err(format!("{forgotten:?}")) }
    };
    // Not while the dead connection is waited for, or a dial is under way.
    wait::until("the peer to be forgotten", STEP, gone).await?;
    let check = n1.run(&["status", "--check"]).await?;
    ensure!(check.code == Some(6) && check.stderr.contains("no peer"), "{check:?}");
    let doctor = n1.run(&["doctor"]).await?;
    ensure!(doctor.code == Some(6) && doctor.stdout.contains("--peer"), "{doctor:?}");
    n1.stop().await?;
    let doctor = n1.run(&["doctor"]).await?;
    ensure!(doctor.code == Some(3) && doctor.stdout.contains("none runs here"), "{doctor:?}");
    n1.start().await?;
    let known = n1.peers().await?.peers;
    ensure!(known.iter().all(|peer| peer.state != PeerState::Connected), "{known:?}");
    Ok(())
}

async fn refusal(node: &Node, peer: &str) -> Result<Peer, String> {
    let peers = node.peers().await.map_err(|error| format!("{error:#}"))?.peers;
    let found = peers.iter().find(|other| other.id == peer && other.state == PeerState::Refused);
    found.cloned().ok_or_else(|| format!("{peers:?}"))
}

/// What `network new` prints.
async fn new_secret(directory: &std::path::Path, name: &str) -> String {
    let made = async {
        let binary = tokio::task::spawn_blocking(node_binary).await??;
        let node = Node::new(directory, name, binary, Group::Shared)?;
        node.run(&["network", "new"]).await?.ok()
    };
    let id = made.await.unwrap_or_else(|error| panic!("{error:#}"));
    assert!(id.starts_with("mnet1"), "{id}");
    id.trim().to_owned()
}
