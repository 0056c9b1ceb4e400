//! What nodes send where somebody floods them, held against their share of the air.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use mosaik_api::document::Bridge;
use mosaik_core::key::Network;
use mosaik_lab::{
    Node,
    radio::{Air, Channel, Kind, Modulation, Sum},
    wait,
};
use mosaik_reticulum::{announce::Announce, stack::Service};
use mosaik_tests::Diary;
use serde_json::json;

use super::{
    play,
    python::{ALONE, Python, configure, hex},
    shared::share,
    venv::Venv,
    whole,
};

/// Of whom each radio is: a node's `rnsd`, a node itself, and whoever floods them.
const OF_RNSD: usize = 0;
const OF_NODE: usize = 1;
const OF_FLOOD: usize = 2;
/// Spreading factor 8, what rns reckons for it, and how many times as fast as the air the channel is.
const FACTOR: u8 = 8;
const BITRATE: u32 = 3125;
const SPEED: u32 = 8;
/// Milliseconds on air that one percent of an hour is, and what of that a node begins with.
const SHARE_MS: u64 = 36_000;
const GRANTED_MS: u64 = SHARE_MS / 2;
/// Links that are asked of each node, at once and in all.
const AT_ONCE: usize = 10;
const LINKS: usize = 60;
/// Peers that don't exist, at once.
const STRANGERS: usize = 3;
/// How long all of it may take: ten times of what it does.
const LONG: Duration = Duration::from_secs(300);

/// Two nodes with one percent of the air, one behind an `rnsd` that forwards for others, one with a modem
/// of its own: whatever somebody asks of them, neither sends more than it may. What `rnsd` sends by itself
/// stands beside it.
pub(crate) fn a_flood_makes_nobody_send_more_than_its_share(venv: Venv) -> Result<()> {
    play(async {
        let diary = Diary::begin();
        let directory = tempfile::Builder::new().prefix("mlab-").tempdir()?;
        let air = Channel { radios: 3, loss_per_mille: 0, seed: 5, speed: SPEED }.start()?;
        air.switch_on(OF_NODE, Modulation::SF8);
        let config = directory.path().join("rnsd");
        let _daemon = share(&venv, &config, (&air, OF_RNSD), "Yes").await?;
        let by_rnsd = whole::radio("rnsd", Some(&config), BITRATE, "1%");
        let kiss = format!("kiss:{}@115200", air.device(OF_NODE).display());
        let by_kiss = whole::radio(&kiss, None, BITRATE, "1%");
        let mut nodes = [
            whole::node(directory.path(), "rnsd-client", &by_rnsd)?,
            whole::node(directory.path(), "modem", &by_kiss)?,
        ];
        let end = directory.path().join("python");
        configure(&end, ALONE, &air.interface(OF_FLOOD, FACTOR))?;
        let mut python = Python::start(&venv, &end).await?;
        for node in &mut nodes {
            node.start().await?;
        }
        let mut destinations = Vec::new();
        for node in &nodes {
            destinations.push(heard(&mut python, node).await?);
        }
        diary.note("both are heard");
        flood(&mut python, &destinations, &air).await?;
        diary.note("the flood is over");
        for (radio, node) in [(OF_RNSD, &nodes[0]), (OF_NODE, &nodes[1])] {
            let own = show(&diary, &air, radio, &destinations[radio]);
            let bridge = node.client()?.bridge().await?;
            let used_ms: u64 = bridge.interfaces.iter().map(|it| it.airtime_used_ms).sum();
            diary.note(format!("{} reckons that it ordered {used_ms} ms", node.name()));
            ensure!(own <= GRANTED_MS, "{} sent {own} ms of {GRANTED_MS}", node.name());
            // It answered for as long as it may: a quarter of the share is not for that.
            ensure!(own > GRANTED_MS / 3, "{} sent {own} ms: no flood", node.name());
        }
        for node in &mut nodes {
            node.stop().await?;
        }
        Ok(())
    })
}

/// The destination of a node, once it was heard.
async fn heard(python: &mut Python, node: &Node) -> Result<String> {
    let Bridge { identity, .. } = node.client()?.bridge().await?;
    let identity = identity.context("a node with a radio has an identity there")?;
    let heard = python.expect_within(LONG, "announce", |event| event["identity"] == *identity);
    Ok(heard.await?["destination"].as_str().context("a hash")?.to_owned())
}

/// Asks for links, of which none says whose it is, offers Resources on them, and tells of peers that are
/// nobody. The air carries one at a time, so each round waits for the one before.
async fn flood(python: &mut Python, destinations: &[String], air: &Air) -> Result<()> {
    let tag = Network::Public(whole::NETWORK.into()).keys().radio;
    for round in 0..LINKS / AT_ONCE {
        for destination in destinations {
            for _ in 0..AT_ONCE {
                let name = Service::Feed.to_string();
                let order = json!({"do": "open", "name": name, "destination": destination});
                python.order(order).await?;
            }
        }
        let (top, is_alone, is_bridge) = ([round as u8; 8], false, false);
        let takes_broadcasts = true;
        let announce = Announce { tag, top, events: 9, is_alone, is_bridge, takes_broadcasts };
        let app_data = hex(&announce.encode());
        let order = json!({"do": "strangers", "name": Service::Feed.to_string(),
            "count": STRANGERS, "app_data": app_data});
        python.order(order).await?;
        let asked = (round + 1) * AT_ONCE * destinations.len();
        wait::until(&format!("{asked} requests on the air"), LONG, async || {
            let sent = air.sent();
            let is_request = |kind| kind == Kind::LinkRequest;
            let from = sent.iter().filter(|sent| sent.radio == OF_FLOOD);
            let there = from.filter(|sent| is_request(Kind::of(&sent.packet))).count();
            if there >= asked { Ok(()) } else { Err(format!("{there} of {asked}")) }
        })
        .await?;
        // On links that are up: what their other end doesn't know who offers.
        python.order(json!({"do": "catch_up"})).await?;
        python.expect("caught up", |_| true).await?;
        while let Some(up) = python.seen("up") {
            let order = json!({"do": "resource", "link": up["link"], "token": 0,
                "bytes": hex(&[7; 3_000])});
            python.order(order).await?;
        }
    }
    Ok(())
}

/// What a radio sent, by kind: for the node, and for its `rnsd` itself. Gives the milliseconds on air of
/// the node.
fn show(diary: &Diary, air: &Air, radio: usize, destination: &str) -> u64 {
    let mut sums = BTreeMap::<(bool, Kind), Sum>::new();
    for sent in air.sent().iter().filter(|sent| sent.radio == radio) {
        let kind = Kind::of(&sent.packet);
        sums.entry((is_own(&sent.packet, kind, destination), kind)).or_default().add(sent);
    }
    for ((is_own, kind), sum) in &sums {
        let whose = if *is_own { "the node's" } else { "rnsd's own" };
        let air_ms = sum.air_us / 1000;
        diary.note(format!("radio {radio}, {whose} {kind}: {} packets, {air_ms} ms", sum.packets));
    }
    let own = sums.iter().filter(|((is_own, _), _)| *is_own);
    own.map(|(_, sum)| sum.air_us).sum::<u64>() / 1000
}

/// Whether a packet is of a node's destination: its announces and links. What else an `rnsd` sends it sends
/// by itself: announces of others, answers about paths.
fn is_own(packet: &[u8], kind: Kind, destination: &str) -> bool {
    /// What an announce is that answers a request for a path.
    const PATH_RESPONSE: u8 = 0x0B;
    let routed = packet.first().is_some_and(|flags| flags & 0x40 != 0);
    let address = if routed { packet.get(18..34) } else { packet.get(2..18) };
    let context = packet.get(if routed { 34 } else { 18 });
    match kind {
        Kind::Announce => {
            address.is_some_and(|address| hex(address) == destination)
                && context != Some(&PATH_RESPONSE)
        }
        Kind::PathRequest => false,
        _ => true,
    }
}
