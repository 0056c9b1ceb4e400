//! A local network without internet.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Failed;
use mosaik_core::{id::NodeId, ticket::Ticket};
use mosaik_lab::{lock::Lock, wait};

use super::space::Host;

/// How long other clusters of processes are waited for.
const LOCK_MAX: Duration = Duration::from_secs(600);
/// What two nodes need to meet, with ten times the room.
const MEET_S: &str = "20";
const NETWORK: [&str; 2] = ["--network", "lan-test"];

pub(crate) fn play(story: impl AsyncFnOnce(&Path) -> Result<()>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let played = runtime.block_on(async {
        let _alone = Lock::take(LOCK_MAX).await?;
        let directory = tempfile::tempdir()?;
        story(directory.path()).await
    });
    played.map_err(|error| format!("{error:#}").into())
}

fn with<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    [&NETWORK[..], flags].concat()
}

/// Waits until the node listens: before that there is nobody to ask.
async fn up(host: &Host, dir: &Path) -> Result<()> {
    wait::until("a node to listen", Duration::from_secs(20), async || {
        let asked = host.ask(dir, &with(&["id"])).await.map_err(|error| format!("{error:#}"))?;
        asked.ok().map(drop).map_err(|error| format!("{error:#}"))
    })
    .await
}

/// The network's id is all that they have: what is written on one comes to the other.
pub(crate) fn pair() -> Result<(), Failed> {
    play(async |directory| {
        let (a, b) = (Host::new()?, Host::new()?);
        a.link(&b, "lan0", ["10.77.0.1/24", "10.77.0.2/24"])?;
        let (dir_a, dir_b) = (directory.join("a"), directory.join("b"));
        let quiet = with(&["--no-dht", "--no-relay"]);
        let _node_a = a.node(&dir_a, &quiet)?;
        let _node_b = b.node(&dir_b, &quiet)?;
        up(&a, &dir_a).await?;
        up(&b, &dir_b).await?;
        let wait = ["wait", "--peers", "1", "--timeout", MEET_S];
        a.ask(&dir_a, &with(&wait)).await?.ok()?;
        let peers = a.ask(&dir_a, &with(&["peers"])).await?.ok()?;
        ensure!(peers.contains("10.77.0.2:"), "met elsewhere: {peers}");
        let create = ["record", "create", "R-1", "--form", "visit", "place=well"];
        b.ask(&dir_b, &with(&create)).await?.ok()?;
        let wait = ["wait", "--record", "R-1", "--field", "place=well", "--timeout", MEET_S];
        a.ask(&dir_a, &with(&wait)).await?.ok()?;
        Ok(())
    })
}

/// A ticket tempts it with an address of the internet, which a node without the switch dials.
pub(crate) fn only() -> Result<(), Failed> {
    play(async |directory| {
        let (host, friend, world) = (Host::new()?, Host::new()?, Host::new()?);
        host.link(&friend, "lan0", ["10.77.0.1/24", "10.77.0.2/24"])?;
        host.link(&world, "wan0", ["10.78.0.1/24", "10.78.0.2/24"])?;
        host.route("10.78.0.2")?;
        host.count_outward()?;
        let ticket = Ticket {
            node: NodeId(
                ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes(),
            ),
            relays: Vec::new(),
            addresses: vec!["203.0.113.7:4242".parse().context("an address")?],
        };
        let ticket = ticket.to_string();
        let (dir, dir_friend) = (directory.join("host"), directory.join("friend"));

        let flags = with(&["--lan-only", "--peer", &ticket]);
        let mut node = host.node(&dir, &flags)?;
        let _friend = friend.node(&dir_friend, &with(&["--lan-only"]))?;
        up(&host, &dir).await?;
        let wait = ["wait", "--peers", "1", "--timeout", MEET_S];
        host.ask(&dir, &with(&wait)).await?.ok()?;
        // By now the ticket's address was looked at as well, and refused.
        wait::until("the ticket's peer to be refused", Duration::from_secs(20), async || {
            let peers = host.ask(&dir, &with(&["peers"])).await.and_then(|asked| asked.ok());
            let peers = peers.map_err(|error| format!("{error:#}"))?;
            if peers.contains("none of its addresses may be dialed") { Ok(()) } else { Err(peers) }
        })
        .await?;
        let outward = host.outward()?;
        ensure!(outward == 0, "{outward} packets went out");
        node.terminate(Duration::from_secs(20)).await?;

        let flags = with(&["--no-dht", "--no-relay", "--peer", &ticket]);
        let _node = host.node(&dir, &flags)?;
        wait::until("a node without the switch to dial", Duration::from_secs(20), async || {
            match host.outward() {
                Ok(0) => Err("no packet went out".to_owned()),
                Ok(_) => Ok(()),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await
    })
}
