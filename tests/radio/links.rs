//! Links: who opens them, who is at the other end, what a packet's proof says.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mosaik_reticulum::{
    prns::PACKET_MAX,
    stack::{Link, Order, Outcome, Peer, Report, Service},
};
use serde_json::{Value, json};

use super::{
    pair::Pair,
    play,
    python::{Python, SOON, bytes, hash, hex},
    venv::Venv,
};

/// The same link's name at Python.
pub(crate) fn name(link: Link) -> String {
    hex(&link.0)
}

pub(crate) fn of(link: &str) -> impl Fn(&Value) -> bool {
    move |event| event["link"] == link
}

/// Packets of the greatest length, both ways.
async fn carry(pair: &mut Pair, link: Link) -> Result<()> {
    let packet = [7; PACKET_MAX];
    pair.ours.send(link, 1, &packet);
    ensure!(pair.ours.outcome(SOON, 1).await? != Outcome::Failed(String::new()));
    let came = pair.python.expect("packet", of(&name(link))).await?;
    ensure!(bytes(&came["bytes"])? == packet, "another packet came");
    let order = json!({"do": "packet", "link": name(link), "token": 1, "bytes": hex(&packet)});
    pair.python.order(order).await?;
    ensure!(pair.ours.received(SOON, link).await? == packet, "another packet came");
    Ok(())
}

/// A link that we open: the id is the same at both ends, and we have identified.
async fn opened(pair: &mut Pair, peer: Peer) -> Result<Link> {
    let link = pair.ours.open(Service::Feed, peer).await?;
    pair.python.expect("up", of(&name(link))).await?;
    let identified = pair.python.expect("identified", of(&name(link))).await?;
    ensure!(hash(&identified["identity"])? == pair.ours.peer().0, "we are taken for another");
    Ok(link)
}

/// A link that Python opens: the id is the same at both ends, and Python has identified.
pub(crate) async fn accepted(pair: &mut Pair, service: Service, destination: &str) -> Result<Link> {
    open_from_python(&mut pair.python, service, destination).await?;
    let link = pair.ours.accept(service).await?;
    pair.python.expect("up", of(&name(link))).await?;
    pair.python.order(json!({"do": "identify", "link": name(link)})).await?;
    let peer = pair
        .ours
        .expect("who the other end is", |report| match report {
            Report::Identified { link: on, peer } if *on == link => Some(*peer),
            _ => None,
        })
        .await?;
    ensure!(peer == pair.python.peer, "{peer} identified");
    Ok(link)
}

pub(crate) async fn open_from_python(
    python: &mut Python,
    service: Service,
    destination: &str,
) -> Result<()> {
    let name = service.to_string();
    python.order(json!({"do": "open", "name": name, "destination": destination})).await
}

async fn closes_at_python(pair: &mut Pair, link: Link) -> Result<()> {
    pair.ours.prns.carry(Order::Close { link });
    pair.ours.down(link).await?;
    pair.python.expect("down", of(&name(link))).await?;
    Ok(())
}

async fn closes_at_ours(pair: &mut Pair, link: Link) -> Result<()> {
    pair.python.order(json!({"do": "close", "link": name(link)})).await?;
    let reason = pair.ours.down(link).await?;
    ensure!(reason == "closed by the other end", "{reason}");
    Ok(())
}

pub(crate) fn ours_opens(venv: Venv) -> Result<()> {
    play(async {
        let mut pair = Pair::we_listen(&venv).await?;
        let peer = pair.hear_python(Service::Feed, false).await?;
        let link = opened(&mut pair, peer).await?;
        carry(&mut pair, link).await?;
        closes_at_python(&mut pair, link).await?;
        let link = opened(&mut pair, peer).await?;
        carry(&mut pair, link).await?;
        closes_at_ours(&mut pair, link).await?;
        // What is sent on a link that is gone is answered too.
        pair.ours.send(link, 9, b"late");
        let outcome = pair.ours.outcome(SOON, 9).await?;
        ensure!(outcome == Outcome::Failed("no such link".to_owned()), "{outcome:?}");
        // A stack that is closed takes its links with it.
        let link = opened(&mut pair, peer).await?;
        pair.ours.prns.close().await;
        pair.python.expect("down", of(&name(link))).await?;
        Ok(())
    })
}

pub(crate) fn python_opens(venv: Venv) -> Result<()> {
    play(async {
        let mut pair = Pair::python_listens(&venv).await?;
        let destination = pair.hear_ours(Service::Feed).await?;
        let link = accepted(&mut pair, Service::Feed, &destination).await?;
        carry(&mut pair, link).await?;
        closes_at_ours(&mut pair, link).await?;
        let link = accepted(&mut pair, Service::Feed, &destination).await?;
        carry(&mut pair, link).await?;
        closes_at_python(&mut pair, link).await?;
        // A connection that is lost takes its links with it, at once.
        let link = accepted(&mut pair, Service::Feed, &destination).await?;
        pair.python.kill().await?;
        let reason = pair.ours.down(link).await?;
        ensure!(reason == "the interface's connection is lost", "{reason}");
        pair.ours.online(false).await?;
        Ok(())
    })
}

pub(crate) fn proofs(venv: Venv) -> Result<()> {
    play(async {
        let mut pair = Pair::we_listen(&venv).await?;
        let peer = pair.hear_python(Service::Meshlog, true).await?;
        pair.prns_open(peer).await?;
        for (service, event) in [(Service::Meshlog, "proved"), (Service::Feed, "unproved")] {
            let destination = pair.hear_ours(service).await?;
            let link = accepted(&mut pair, service, &destination).await?;
            // rns waits six times the way there and back, which here is a few milliseconds: a busy
            // machine takes longer now and then.
            for left in (0..5).rev() {
                let order =
                    json!({"do": "packet", "link": name(link), "token": left, "bytes": "00"});
                pair.python.order(order).await?;
                ensure!(pair.ours.received(SOON, link).await? == [0], "another packet came");
                let said = pair.python.expect_any(&["proved", "unproved"]).await?;
                if said["event"] == event {
                    break;
                }
                ensure!(left > 0 && event == "proved", "{said} of {service}");
            }
        }
        Ok(())
    })
}

impl Pair {
    /// Python proves what it gets on `meshlog.sync`; of a feed nothing is said after it has left.
    async fn prns_open(&mut self, peer: Peer) -> Result<()> {
        let link = self.ours.open(Service::Meshlog, peer).await?;
        self.ours.send(link, 1, b"prove this");
        let outcome = self.ours.outcome(SOON, 1).await?;
        ensure!(outcome == Outcome::Proved, "{outcome:?}");
        let came = self.python.expect("packet", of(&name(link))).await?;
        ensure!(bytes(&came["bytes"])? == b"prove this", "another packet came");
        self.ours.prns.carry(Order::Close { link });
        self.ours.down(link).await?;
        let peer = self.hear_python(Service::Feed, true).await?;
        let link = self.ours.open(Service::Feed, peer).await?;
        self.ours.send(link, 2, b"prove this too");
        let outcome = self.ours.outcome(SOON, 2).await?;
        ensure!(outcome == Outcome::Left, "{outcome:?}");
        Ok(())
    }
}

/// Longer than a link without keepalives lasts where the way is short: 15 s.
const QUIET: Duration = Duration::from_secs(20);

/// A link on which nothing is said stays, or both ends know that it doesn't, and the next one carries.
///
/// rns answers a keepalive only where its own interval since its last packet is over. An end that took
/// the way for longer than the other did, as on a busy machine, answers too seldom for that other.
pub(crate) fn idle(venv: Venv) -> Result<()> {
    play(async {
        let mut pair = Pair::we_listen(&venv).await?;
        let peer = pair.hear_python(Service::Feed, false).await?;
        let mut ours = opened(&mut pair, peer).await?;
        let destination = pair.hear_ours(Service::Feed).await?;
        let mut theirs = accepted(&mut pair, Service::Feed, &destination).await?;
        let deadline = Instant::now() + QUIET;
        let down = |report: &Report| match report {
            Report::Down { link, .. } => Some(*link),
            _ => None,
        };
        let mut fallen = Vec::new();
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            fallen.extend(pair.ours.expect_within(left, "the end of a link", down).await.ok());
        }
        for link in fallen {
            pair.python.expect("down", of(&name(link))).await?;
            if link == ours {
                ours = opened(&mut pair, peer).await?;
            } else {
                theirs = accepted(&mut pair, Service::Feed, &destination).await?;
            }
        }
        carry(&mut pair, ours).await?;
        carry(&mut pair, theirs).await
    })
}

pub(crate) fn unreachable(venv: Venv) -> Result<()> {
    play(async {
        let mut pair = Pair::python_listens(&venv).await?;
        let nobody = Peer([9; 16]);
        pair.ours.prns.carry(Order::Open { service: Service::Feed, peer: nobody });
        // A path is asked for, and nobody answers: rns waits 15 s.
        let limit = Duration::from_secs(60);
        let asked = pair.ours.expect_within(limit, "an answer", |report| match report {
            Report::Unreachable { peer, .. } if *peer == nobody => Some(()),
            _ => None,
        });
        asked.await.context("an order without an answer")?;
        ensure!(!pair.ours.told(|report| matches!(report, Report::Up { .. })), "a link to nobody");
        Ok(())
    })
}
