//! W1: a node that has nothing catches up with one that has all, over loopback, until all of it is
//! durable.
//!
//! The clock runs from the moment at which the receiver is told of the sender, dial and greeting
//! included, to the end of the commit that brought the last event, as the receiver notes it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::{
    Run,
    figure::{Figure, progress},
    fill::{self, Content, Filling, fill},
    limits::{median, redb_events_per_s},
    place::{Directory, bytes_taken},
    probe::{PeakWatch, cpu_s},
    scrape::{Scrape, until_events},
};
use crate::{Cluster, Node};

/// How long a catch-up may take: a million events on a slow disk.
const CATCH_UP_MAX: Duration = Duration::from_secs(300);
/// How often a case of at most [`REPEATED_EVENTS`] is measured: the middle one counts.
const TIMES: usize = 3;
const REPEATED_EVENTS: u64 = 100_000;
const MILLION: u64 = 1_000_000;

/// The share of redb alone that is to be reached, with samples and with records in the view.
const SAMPLES_SHARE: f64 = 0.8;
const RECORDS_SHARE: f64 = 0.5;
/// Processor seconds for 100,000 events, both sides together, on a machine where redb alone does
/// [`CPU_AT`] events a second.
const CPU_S_MAX: f64 = 0.5;
const CPU_AT: f64 = 400_000.0;
const WIRE_BYTES_MAX: f64 = 165.0;
const DISK_BYTES_MAX: f64 = 190.0;
const RSS_MAX: f64 = (64 << 20) as f64;

/// What one catch-up took.
#[derive(Debug, Clone, Default)]
struct CatchUp {
    took_s: f64,
    cpu_s: f64,
    rss: f64,
    wire_bytes: f64,
    app_bytes: f64,
    disk_bytes: f64,
    /// What the receiver's view then holds, where events are records.
    view: Vec<(Vec<u8>, Vec<u8>)>,
}

pub(super) async fn all(run: &mut Run) -> Result<()> {
    for filling in cases(run.events, run.quick) {
        let case = filling.case();
        progress(format_args!("W1 {case}: filling a store"));
        let source = run.place.directory()?;
        let data_dir = source.path().join("n1");
        fill(&data_dir, filling)?;
        fold(&source).await?;
        let is_repeated = run.events.is_none() && filling.events <= REPEATED_EVENTS;
        let times = if is_repeated { TIMES } else { 1 };
        let (mut limits, mut all) = (Vec::new(), Vec::<CatchUp>::new());
        for time in 0..times {
            progress(format_args!("W1 {case}: catching up, {} of {times}", time + 1));
            all.push(catch_up(&source, filling).await?);
            let view = all.last().map(|one| one.view.as_slice()).unwrap_or_default();
            let directory = run.place.directory()?;
            limits.push(redb_events_per_s(directory.path(), filling, view)?);
        }
        report(run, filling, &all, median(&limits));
    }
    Ok(())
}

fn cases(events: Option<u64>, quick: bool) -> Vec<Filling> {
    let largest = if quick { REPEATED_EVENTS } else { MILLION };
    let numbers: Vec<u64> = match events {
        Some(events) => vec![events],
        None => [10_000, 100_000, MILLION].into_iter().filter(|n| *n <= largest).collect(),
    };
    let samples = |authors: u64| {
        let of =
            move |events: &u64| Filling { authors, events: *events, content: Content::Samples };
        numbers.iter().filter(move |events| **events >= authors).map(of)
    };
    let records = numbers.iter().copied().filter(|events| *events <= REPEATED_EVENTS).max();
    let records = records.map(|events| Filling { authors: 1, events, content: Content::Records });
    samples(1).chain(samples(1000)).chain(records).collect()
}

/// Lets a node look at a store that was filled without one, so that its first start is no part of
/// what is measured.
pub(super) async fn fold(source: &Directory) -> Result<()> {
    let mut cluster = source.cluster(1).await?;
    cluster.start().await?;
    cluster.stop().await
}

/// One catch-up. The sender's store stays as it is; the receiver's is new each time.
async fn catch_up(source: &Directory, filling: Filling) -> Result<CatchUp> {
    let mut cluster = source.cluster(2).await?;
    let receiver_dir = cluster.nodes[1].data_dir().to_owned();
    let caught = between(&mut cluster, filling).await;
    cluster.stop().await?;
    let mut caught = caught?;
    let (directory, store) = fill::open(&receiver_dir)?;
    if filling.content == Content::Records {
        caught.view = fill::view_entries(&store)?;
    }
    drop(store);
    caught.disk_bytes = bytes_taken(&directory.store())? as f64;
    std::fs::remove_dir_all(&receiver_dir)?;
    Ok(caught)
}

async fn between(cluster: &mut Cluster, filling: Filling) -> Result<CatchUp> {
    cluster.start().await?;
    let [sender, receiver] = cluster.nodes.as_mut_slice() else { anyhow::bail!("two nodes") };
    let pids = [pid(sender)?, pid(receiver)?];
    let ticket = sender.identity().await?.ticket;
    let client = receiver.client()?;
    let events = sender.status().await?.events + receiver.status().await?.events;
    let before = [Scrape::of(&sender.client()?).await?, Scrape::of(&client).await?];
    let cpu = || anyhow::Ok(cpu_s(pids[0])? + cpu_s(pids[1])?);
    let (cpu_before, watch) = (cpu()?, PeakWatch::start(pids.to_vec()));

    let begun_s = unix_s()?;
    client.add_peer(&ticket).await?;
    let after = until_events(&client, events, CATCH_UP_MAX).await?;
    let cpu_s = cpu()? - cpu_before;
    let rss = watch.peak() as f64;

    let at_sender = Scrape::of(&sender.client()?).await?;
    let both = |name: &str| {
        anyhow::Ok(at_sender.since(&before[0], name)? + after.since(&before[1], name)?)
    };
    anyhow::ensure!(
        after.since(&before[1], "events_received_total")? >= filling.events as f64,
        "the receiver had some of the events before"
    );
    Ok(CatchUp {
        took_s: after.get("last_event_timestamp_seconds")? - begun_s,
        cpu_s,
        rss,
        wire_bytes: both("udp_bytes_sent_total")?,
        app_bytes: both("sync_bytes_sent_total")?,
        ..CatchUp::default()
    })
}

fn pid(node: &mut Node) -> Result<u32> {
    Ok(node.process().context("it was started")?.pid())
}

fn unix_s() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is not set")?.as_secs_f64())
}

fn report(run: &mut Run, filling: Filling, all: &[CatchUp], redb_events_per_s: f64) {
    let middle = |of: fn(&CatchUp) -> f64| median(&all.iter().map(of).collect::<Vec<_>>());
    let (events, case) = (filling.events as f64, filling.case());
    let figure = |metric, value, unit| Figure::new("W1", case.clone(), metric, value, unit);
    let share = match filling.content {
        Content::Samples => SAMPLES_SHARE,
        Content::Records => RECORDS_SHARE,
    };
    let cpu_max = CPU_S_MAX * events / 1e5 * CPU_AT / redb_events_per_s;
    let rate = figure("events_per_s", events / middle(|one| one.took_s), "1/s");
    let rate = rate.of_limit(redb_events_per_s).at_least(share * redb_events_per_s);
    let cpu = figure("cpu_s", middle(|one| one.cpu_s), "s");
    let wire = figure("wire_bytes_per_event", middle(|one| one.wire_bytes) / events, "B");
    let app = figure("app_bytes", middle(|one| one.app_bytes), "B");
    let disk = figure("disk_bytes_per_event", middle(|one| one.disk_bytes) / events, "B");
    let rss = figure("peak_rss_anon_bytes", middle(|one| one.rss), "B").at_most(RSS_MAX);
    run.report.add(&figure("redb_alone_events_per_s", redb_events_per_s, "1/s"));
    run.report.add(&rate);
    match filling.content {
        Content::Samples => {
            run.report.add(&cpu.at_most(cpu_max));
            run.report.add(&wire.at_most(WIRE_BYTES_MAX));
            run.report.add(&app);
            run.report.add(&disk.at_most(DISK_BYTES_MAX));
        }
        // Their payloads are of their own length, and the view lies on the disk beside them.
        Content::Records => [cpu, wire, app, disk].iter().for_each(|one| run.report.add(one)),
    }
    run.report.add(&rss);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_has_all_cases_but_those_of_a_million() {
        let names =
            |quick| -> Vec<String> { cases(None, quick).iter().map(Filling::case).collect() };
        let quick = ["1x10000", "1x100000", "1000x10000", "1000x100000", "records-1x100000"];
        assert_eq!(names(true), quick);
        let mut all = names(false);
        all.retain(|name| !name.ends_with("x1000000"));
        assert_eq!(all, quick);
        assert_eq!(names(false).len(), quick.len() + 2);
    }

    #[test]
    fn an_own_number_of_events_takes_the_place_of_all() {
        let names: Vec<String> = cases(Some(500), true).iter().map(Filling::case).collect();
        assert_eq!(names, ["1x500", "records-1x500"]);
    }
}
