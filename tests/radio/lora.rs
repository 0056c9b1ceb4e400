//! Over virtual RNodes: our stack by a real `rnsd`, and Python, on one LoRa channel.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mosaik_lab::radio::{Air, Channel, Kind, by_kind};
use mosaik_reticulum::stack::{Link, Outcome, Peer, Service};
use mosaik_tests::Diary;
use serde_json::json;

use super::{
    links::{name, of},
    ours::Ours,
    pair::{hear_python, heard_by_python},
    play,
    python::{ALONE, Python, bytes, configure, hex, rnsd},
    resources::content,
    shared::{close, join},
    venv::Venv,
};

/// Spreading factor 8.
const FACTOR: u8 = 8;
/// As many times as fast as the air. rns reckons its timeouts from the rate of the air, so a channel
/// that is faster than that shows no fault that isn't there; it hides some that real time would show.
const SPEED: u32 = 3;
/// How long a packet or a Resource may take before it is sent again.
const AGAIN: Duration = Duration::from_secs(12);
/// How often that is done.
const TIMES: u64 = 6;
/// How often who waits for an announce asks for another, each two seconds after the last.
const ANNOUNCES: u64 = 30;

pub(crate) fn without_loss(venv: Venv) -> Result<()> {
    play(meet(&venv, 0))
}

pub(crate) fn with_a_tenth_lost(venv: Venv) -> Result<()> {
    play(meet(&venv, 100))
}

async fn meet(venv: &Venv, loss_per_mille: u32) -> Result<()> {
    let diary = Diary::begin();
    let air = Channel { radios: 2, loss_per_mille, seed: 8, speed: SPEED }.start()?;
    let directory = tempfile::tempdir()?;
    let [config, end, state] = ["rnsd", "python", "ours"].map(|name| directory.path().join(name));
    let shares = format!(
        "enable_transport = Yes\nshare_instance = Yes\ninstance_name = mosaik-lora-{}-{loss_per_mille}",
        std::process::id()
    );
    configure(&config, &shares, &air.interface(0, FACTOR))?;
    configure(&end, ALONE, &air.interface(1, FACTOR))?;
    let _daemon = rnsd(venv, &config)?;
    // Python waits until its RNode is configured.
    let (ours, python) = tokio::join!(join(&state, &config), Python::start(venv, &end));
    let (mut ours, mut python) = (ours?, python?);
    diary.note("the radios are set");

    python.serve(Service::Feed, false).await?;
    let said = [3; 20];
    // On a busy machine rns finds its RNode at the second try or the third, each 5 s later.
    for left in (0..ANNOUNCES).rev() {
        match hear_python(&mut ours, &mut python, Service::Feed, &said).await {
            Err(error) if left == 0 => return Err(error),
            Err(_) => {}
            Ok(_) => break,
        }
    }
    heard_by_python(&ours, &mut python, Service::Feed, &said).await?;
    diary.note("heard both ways");
    let link = open(&mut ours, python.peer).await?;
    diary.note("the link is up");
    for content in [content(431, false), content(3_000, false)] {
        let content = &content;
        to_python(&mut ours, &mut python, link, content).await?;
        from_python(&mut ours, &mut python, link, content).await?;
        diary.note(format!("{} bytes both ways", content.len()));
    }
    close(&mut ours, link).await?;
    let lost = air.sent().iter().map(|sent| sent.lost).sum::<usize>();
    diary.note(format!("{lost} packets were lost"));
    ensure!((lost > 0) == (loss_per_mille > 0), "{lost} packets were lost");
    show(&diary, &air)
}

/// What was on the air, and that the channel did what it was told.
fn show(diary: &Diary, air: &Air) -> Result<()> {
    let sent = air.sent();
    let kinds = by_kind(&sent);
    for (kind, sum) in &kinds {
        diary.note(format!("{kind}: {} packets, {} B, {} us", sum.packets, sum.bytes, sum.air_us));
    }
    for kind in
        [Kind::Announce, Kind::LinkRequest, Kind::LinkProof, Kind::LinkData, Kind::ResourcePart]
    {
        ensure!(kinds.contains_key(&kind), "no {kind} was on the air");
    }
    // The channel carries one at a time.
    let mut ends = sent.windows(2).map(|pair| (pair[0].at + pair[0].air, pair[1].at));
    ensure!(ends.all(|(end, next)| next + Duration::from_millis(1) >= end), "two at a time");
    Ok(())
}

/// Opens a link, as often as it takes.
async fn open(ours: &mut Ours, peer: Peer) -> Result<Link> {
    let mut last = None;
    for _ in 0..TIMES {
        match ours.open(Service::Feed, peer).await {
            Ok(link) => return Ok(link),
            Err(error) => last = Some(error),
        }
    }
    Err(last.context("it was tried")?)
}

fn kind(content: &[u8]) -> &'static str {
    if content.len() > 431 { "resource" } else { "packet" }
}

/// Sends until it has arrived: a packet may be lost, and a Resource fail.
async fn to_python(ours: &mut Ours, python: &mut Python, link: Link, content: &[u8]) -> Result<()> {
    for token in 0..TIMES {
        ours.send(link, token, content);
        if let Ok(came) = python.expect_within(AGAIN, kind(content), of(&name(link))).await {
            ensure!(bytes(&came["bytes"])? == content, "something else came");
            return Ok(());
        }
        let outcome = ours.outcome(AGAIN, token).await?;
        ensure!(outcome != Outcome::Proved, "proved and not there");
    }
    anyhow::bail!("{} bytes never came to Python", content.len())
}

async fn from_python(
    ours: &mut Ours,
    python: &mut Python,
    link: Link,
    content: &[u8],
) -> Result<()> {
    for token in 0..TIMES {
        let bytes = hex(content);
        let order =
            json!({"do": kind(content), "link": name(link), "token": token, "bytes": bytes});
        python.order(order).await?;
        if let Ok(came) = ours.received(AGAIN, link).await {
            ensure!(came == content, "something else came");
            return Ok(());
        }
    }
    anyhow::bail!("{} bytes never came from Python", content.len())
}
