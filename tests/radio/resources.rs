//! Resources.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mosaik_lab::radio::Cable;
use mosaik_reticulum::stack::{Link, Order, Outcome, Report, Service};
use mosaik_tests::Diary;
use serde_json::json;

use super::{
    links::{accepted, name, of, open_from_python},
    ours::{Ours, RESOURCE_LEN_MAX},
    pair::{Pair, free_port, heard},
    play,
    python::{ALONE, Python, SOON, bytes, configure, hex},
    venv::Venv,
};

const LENGTHS: [usize; 3] = [1_000, 20_000, 100_000];

/// How long a transfer may take. rns itself stalls for 10 s now and then: it offers a Resource before
/// it knows of it, and loses a wish that comes at once.
const TRANSFER_MAX: Duration = Duration::from_secs(60);

/// Bytes that no compression makes fewer, or ones that it does.
pub(crate) fn content(len: usize, compressible: bool) -> Vec<u8> {
    if compressible {
        return b"over and over ".iter().copied().cycle().take(len).collect();
    }
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// All lengths, both kinds, both ways.
async fn exchange(pair: &mut Pair, link: Link) -> Result<()> {
    let diary = Diary::begin();
    for (token, len) in LENGTHS.into_iter().enumerate() {
        for compressible in [false, true] {
            let (token, sent) = (token as u64, content(len, compressible));
            pair.ours.send(link, token, &sent);
            let came = pair.python.expect_within(TRANSFER_MAX, "resource", of(&name(link))).await?;
            ensure!(bytes(&came["bytes"])? == sent, "another Resource came to Python");
            let outcome = pair.ours.outcome(TRANSFER_MAX, token).await?;
            ensure!(outcome == Outcome::Proved, "{outcome:?}");
            diary.note(format!("{len} bytes to Python"));
            from_python(pair, link, token, &sent).await?;
            ensure!(pair.ours.received(TRANSFER_MAX, link).await? == sent, "another Resource came");
            let is = |event: &serde_json::Value| event["token"] == token && event["ok"] == true;
            pair.python.expect_within(TRANSFER_MAX, "sent", is).await?;
            diary.note(format!("{len} bytes from Python"));
        }
    }
    Ok(())
}

async fn from_python(pair: &mut Pair, link: Link, token: u64, bytes: &[u8]) -> Result<()> {
    let bytes = hex(bytes);
    let order = json!({"do": "resource", "link": name(link), "token": token, "bytes": bytes});
    pair.python.order(order).await
}

async fn mtu(pair: &mut Pair, link: Link) -> Result<u64> {
    let up = pair.python.expect("up", of(&name(link))).await?;
    Ok(up["mtu"].as_u64().unwrap_or_default())
}

/// On links that we open and on links that Python opens, with the MTU that TCP has.
pub(crate) fn over_tcp(venv: Venv) -> Result<()> {
    play(async {
        let mut pair = Pair::we_listen(&venv).await?;
        let peer = pair.hear_python(Service::Feed, false).await?;
        let link = pair.ours.open(Service::Feed, peer).await?;
        ensure!(mtu(&mut pair, link).await? > 500, "the link has a small MTU over TCP");
        exchange(&mut pair, link).await?;
        let destination = pair.hear_ours(Service::Meshlog).await?;
        let link = accepted(&mut pair, Service::Meshlog, &destination).await?;
        exchange(&mut pair, link).await
    })
}

/// Over a serial line, where an MTU of 500 holds.
pub(crate) fn over_serial(venv: Venv) -> Result<()> {
    play(async {
        let cable = Cable::start(None)?;
        let directory = tempfile::tempdir()?;
        let python = directory.path().join("python");
        let device = cable.device(1).display();
        let interface = format!(
            "[[line]]\ntype = SerialInterface\nenabled = Yes\nport = {device}\nspeed = 115200"
        );
        configure(&python, ALONE, &interface)?;
        let python = Python::start(&venv, &python).await?;
        let way = format!("serial:{}@115200", cable.device(0).display());
        let mut ours = Ours::start(&directory.path().join("ours"), &[&way])?;
        ours.online(true).await?;
        let mut pair = Pair { ours, python, _directory: directory };
        let peer = pair.hear_python(Service::Feed, false).await?;
        let link = pair.ours.open(Service::Feed, peer).await?;
        ensure!(mtu(&mut pair, link).await? == 500, "the link has another MTU than a serial line");
        exchange(&mut pair, link).await
    })
}

/// What is too long, or from whom nobody knows, is refused, and the link stays.
pub(crate) fn are_bounded(venv: Venv) -> Result<()> {
    play(async {
        let mut pair = Pair::python_listens(&venv).await?;
        let destination = pair.hear_ours(Service::Feed).await?;
        open_from_python(&mut pair.python, Service::Feed, &destination).await?;
        let link = pair.ours.accept(Service::Feed).await?;
        pair.python.expect("up", of(&name(link))).await?;
        let long = content(RESOURCE_LEN_MAX + 1, true);
        for (token, bytes) in [(1, &b"who".repeat(500)[..]), (2, &long)] {
            from_python(&mut pair, link, token, bytes).await?;
            let refused = pair.python.expect("sent", |event| event["token"] == token).await?;
            ensure!(refused["ok"] == false, "a Resource that must be refused came");
            pair.python.order(json!({"do": "identify", "link": name(link)})).await?;
        }
        from_python(&mut pair, link, 3, &long[..RESOURCE_LEN_MAX]).await?;
        let came = pair.ours.received(TRANSFER_MAX, link).await?;
        ensure!(came == long[..RESOURCE_LEN_MAX], "another Resource came");
        ensure!(!pair.ours.told(|report| matches!(report, Report::Received { .. })), "a second");
        Ok(())
    })
}

/// One that is sent as soon as the link is up, from either end.
pub(crate) fn at_once(venv: Venv) -> Result<()> {
    play(async {
        let diary = Diary::begin();
        let mut pair = Pair::we_listen(&venv).await?;
        let sent = content(20_000, false);
        let peer = pair.hear_python(Service::Feed, false).await?;
        let link = pair.ours.open(Service::Feed, peer).await?;
        let began = Instant::now();
        for token in 0..3 {
            pair.ours.send(link, token, &sent);
        }
        for token in 0..3 {
            let outcome = pair.ours.outcome(TRANSFER_MAX, token).await?;
            ensure!(outcome == Outcome::Proved, "{outcome:?}");
        }
        diary.note(format!("three from us as soon as the link was up: {:?}", began.elapsed()));
        let destination = pair.hear_ours(Service::Feed).await?;
        open_from_python(&mut pair.python, Service::Feed, &destination).await?;
        let up = pair
            .python
            .expect("up", |event| event["role"] == "dialer" && event["link"] != name(link))
            .await?;
        let link = up["link"].as_str().unwrap_or_default().to_owned();
        let began = Instant::now();
        pair.python.order(json!({"do": "identify", "link": link})).await?;
        let order = json!({"do": "resource", "link": link, "token": 7, "bytes": hex(&sent)});
        pair.python.order(order).await?;
        let link = pair.ours.accept(Service::Feed).await?;
        ensure!(pair.ours.received(TRANSFER_MAX, link).await? == sent, "another Resource came");
        diary.note(format!("one from Python as soon as the link was up: {:?}", began.elapsed()));
        Ok(())
    })
}

/// Between two of our stacks, from the end that didn't open the link: as soon as it is told of it.
pub(crate) fn ours(_: Venv) -> Result<()> {
    play(async {
        let diary = Diary::begin();
        let directory = tempfile::tempdir()?;
        let port = free_port()?;
        let (one, other) = (directory.path().join("one"), directory.path().join("other"));
        let mut one = Ours::start(&one, &[&format!("tcp-listen://127.0.0.1:{port}")])?;
        let mut other = Ours::start(&other, &[&format!("tcp://127.0.0.1:{port}")])?;
        other.online(true).await?;
        let peer = one.peer();
        // The connection may not be in the stack of the one that listens yet.
        let deadline = Instant::now() + SOON;
        loop {
            one.announce(Service::Feed, b"one");
            match heard(&mut other, peer, Service::Feed, b"one").await {
                Ok(_) => break,
                Err(error) => ensure!(Instant::now() < deadline, "{error}"),
            }
        }
        other.prns.carry(Order::Open { service: Service::Feed, peer });
        let link = one.accept(Service::Feed).await?;
        let began = Instant::now();
        let sent = content(RESOURCE_LEN_MAX, false);
        for token in 0..5 {
            one.send(link, token, &sent);
        }
        for token in 0..5 {
            ensure!(other.received(TRANSFER_MAX, link).await? == sent, "another Resource came");
            let outcome = one.outcome(TRANSFER_MAX, token).await?;
            ensure!(outcome == Outcome::Proved, "{outcome:?}");
        }
        diary.note(format!("five of {RESOURCE_LEN_MAX} bytes: {:?}", began.elapsed()));
        Ok(())
    })
}
