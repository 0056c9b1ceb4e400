//! What goes to all neighbours at once, on one LoRa channel.

use std::time::Duration;

use anyhow::{Result, ensure};
use mosaik_api::document::Bridge;
use mosaik_lab::{
    Node,
    radio::{Air, Channel, Modulation},
    wait,
};
use mosaik_reticulum::stack::{Interface, Order, Report, Service};
use mosaik_tests::Diary;

use super::{
    ours::Ours,
    play,
    shared::{join, share},
    venv::Venv,
    whole,
};

/// How long something may take at SF8 and so many times as fast as the air: ten times of what it does.
const SOON: Duration = Duration::from_secs(60);
const SPEED: u32 = 8;
const BITRATE: u32 = 3125;
/// Flags of a packet that goes to all who hear it, in the clear as far as Reticulum knows.
const PLAIN_DATA: u8 = 0x08;

fn broadcasts(air: &Air) -> usize {
    air.sent().iter().filter(|sent| sent.packet.first() == Some(&PLAIN_DATA)).count()
}

/// A record written at one of three nodes is at the two others after one packet, and each says so.
pub(crate) async fn a_record_reaches_two_nodes_by_one_packet() -> Result<()> {
    let diary = Diary::begin();
    let air = Channel { radios: 3, loss_per_mille: 0, seed: 6, speed: SPEED }.start()?;
    let directory = tempfile::Builder::new().prefix("mlab-").tempdir()?;
    let node = |radio: usize| {
        air.switch_on(radio, Modulation::SF8);
        let way = format!("kiss:{}@115200", air.device(radio).display());
        let mut arguments = whole::radio(&way, None, BITRATE, "100%");
        arguments.push("--rns-broadcast".into());
        whole::node(directory.path(), &format!("n{radio}"), &arguments)
    };
    let (mut first, mut others) = (node(0)?, [node(1)?, node(2)?]);
    first.start().await?;
    for other in &mut others {
        other.start().await?;
    }
    let bridge = async |node: &Node| -> Result<Bridge, String> {
        let client = node.client().map_err(|error| format!("{error:#}"))?;
        client.bridge().await.map_err(|error| format!("{error:#}"))
    };
    wait::until("the first to hear two others", SOON, async || {
        let peers = bridge(&first).await?.peers;
        if peers.len() == 2 { Ok(()) } else { Err(format!("{peers:?}")) }
    })
    .await?;
    diary.note("both are heard");
    first.run(&["record", "create", "R-1", "--form", "visit", "state=open"]).await?.ok()?;
    for other in &others {
        wait::until("the record", SOON, async || {
            let client = other.client().map_err(|error| format!("{error:#}"))?;
            client.record("R-1").await.map(drop).map_err(|error| format!("{error:#}"))
        })
        .await?;
    }
    diary.note("both have the record");
    // What is shown is put together every second.
    for other in &others {
        wait::until("it to be shown as a broadcast", SOON, async || {
            let interfaces = bridge(other).await?.interfaces;
            let heard: u64 = interfaces.iter().map(|it| it.broadcasts_heard).sum();
            if heard > 0 { Ok(()) } else { Err(format!("{interfaces:?}")) }
        })
        .await?;
    }
    let shown = first.run(&["bridge", "--json"]).await?.ok()?;
    let shown: Bridge = serde_json::from_str(&shown)?;
    let sent: u64 = shown.interfaces.iter().map(|it| it.broadcasts_sent).sum();
    ensure!(sent > 0 && broadcasts(&air) as u64 >= sent, "{sent} {}", broadcasts(&air));
    first.stop().await?;
    for other in &mut others {
        other.stop().await?;
    }
    Ok(())
}

/// An `rnsd` gives what its client broadcasts to its other clients and to its radio, once, and what
/// comes by radio to its clients.
pub(crate) fn an_rnsd_passes_them_on(venv: Venv) -> Result<()> {
    play(async {
        let diary = Diary::begin();
        let directory = tempfile::tempdir()?;
        let air = Channel { radios: 3, loss_per_mille: 0, seed: 9, speed: SPEED }.start()?;
        let config = |end: usize| directory.path().join(format!("rnsd{end}"));
        let state = |name: &str| directory.path().join(name);
        let _daemons = (
            share(&venv, &config(0), (&air, 0), "No").await?,
            share(&venv, &config(1), (&air, 1), "Yes").await?,
        );
        air.switch_on(2, Modulation::SF8);
        let kiss = format!("kiss:{}@115200", air.device(2).display());
        let mut alone = Ours::start(&state("alone"), &[&kiss])?;
        alone.online(true).await?;
        let mut first = join(&state("first"), &config(0)).await?;
        let mut beside = join(&state("beside"), &config(0)).await?;
        let mut away = join(&state("away"), &config(1)).await?;
        diary.note("the radios are set");
        // All are direct neighbours: only those count as who hears a broadcast.
        first.announce(Service::Feed, b"first");
        for hears in [&mut beside, &mut away, &mut alone] {
            let from = first.peer();
            let hops = hears.expect_within(SOON, "an announce", |report| match report {
                Report::Heard { peer, hops, .. } if *peer == from => Some(*hops),
                _ => None,
            });
            let hops = hops.await?;
            ensure!(hops <= 1, "{hops} hops");
        }
        diary.note("all heard an announce");
        broadcast(&first, b"from a client");
        for hears in [&mut beside, &mut away, &mut alone] {
            overhear(hears, b"from a client").await?;
        }
        ensure!(broadcasts(&air) == 1, "{} packets", broadcasts(&air));
        broadcast(&alone, &[7; 464]);
        for hears in [&mut first, &mut beside, &mut away] {
            overhear(hears, &[7; 464]).await?;
        }
        ensure!(broadcasts(&air) == 2, "{} packets", broadcasts(&air));
        diary.note("all heard both");
        // Longer ones are not sent, and nobody hears itself.
        broadcast(&alone, &[8; 465]);
        broadcast(&alone, b"last");
        overhear(&mut away, b"last").await?;
        let heard_own = |it: &Ours| it.told(|report| matches!(report, Report::Overheard { .. }));
        ensure!(!heard_own(&alone) && broadcasts(&air) == 3, "{} packets", broadcasts(&air));
        Ok(())
    })
}

fn broadcast(ours: &Ours, bytes: &[u8]) {
    ours.prns.carry(Order::Broadcast { interface: Interface(0), bytes: bytes.to_vec() });
}

async fn overhear(ours: &mut Ours, wanted: &[u8]) -> Result<()> {
    ours.expect_within(SOON, "a broadcast", |report| match report {
        Report::Overheard { bytes, .. } if bytes == wanted => Some(()),
        _ => None,
    })
    .await
}
