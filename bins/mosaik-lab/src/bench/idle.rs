//! A node that has nothing to do: what it costs to have it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    Run,
    catch_up::fold,
    figure::{Figure, progress},
    fill::{self, Content, Filling, fill},
    limits::{median, quantile},
    probe::{cpu_s, rss_anon},
};
use crate::Cluster;

const EVENTS: u64 = 1_000_000;
const QUICK_EVENTS: u64 = 100_000;
const AUTHORS: u64 = 1_000;
/// Of the events, one in so many is of a record.
const ONE_OF_RECORDS: u64 = 10;
/// How long a node is left alone before it is looked at, and then watched.
const SETTLED: Duration = Duration::from_secs(3);
/// A step of what is told of processor time is 0.05 % of it.
const WATCHED: Duration = Duration::from_secs(20);
/// Starts, of which the middle one counts.
const STARTS: usize = 3;
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// How often its socket is tried: against 200 ms a small part.
const LOOK_EVERY: Duration = Duration::from_millis(1);
const GETS: usize = 1_000;

const RSS_MAX: f64 = 25e6;
/// Share of one core.
const CPU_MAX: f64 = 0.002;
const ANSWER_MS_MAX: f64 = 200.0;
const GET_P99_MS_MAX: f64 = 1.0;

pub(super) async fn all(run: &mut Run) -> Result<()> {
    let events = run.events.unwrap_or(if run.quick { QUICK_EVENTS } else { EVENTS });
    let authors = AUTHORS.min(events.div_ceil(ONE_OF_RECORDS));
    progress(format_args!("idle: filling a store with {events} events"));
    let directory = run.place.directory()?;
    let data_dir = directory.path().join("n1");
    let records = Filling { authors, events: events / ONE_OF_RECORDS, content: Content::Records };
    let samples =
        Filling { authors, events: events - events / ONE_OF_RECORDS, content: Content::Samples };
    fill(&data_dir, records)?;
    fill(&data_dir, samples)?;
    fold(&directory).await?;
    let case = format!("{authors}x{events}");
    let figure = |metric, value, unit| Figure::new("idle", case.clone(), metric, value, unit);

    let mut answers = Vec::new();
    for _ in 0..STARTS {
        let mut cluster = directory.cluster(1).await?;
        answers.push(until_it_answers(&mut cluster).await? * 1000.0);
        cluster.stop().await?;
    }
    let answer = figure("start_to_answer_ms", median(&answers), "ms").at_most(ANSWER_MS_MAX);
    run.report.add(&answer);

    let mut cluster = directory.cluster(1).await?;
    cluster.start().await?;
    let watched = watch(&mut cluster, records).await;
    cluster.stop().await?;
    let Watched { rss, cpu, gets_ms } = watched?;
    run.report.add(&figure("rss_anon_bytes", rss, "B").at_most(RSS_MAX));
    run.report.add(&figure("cpu_share", cpu, "").at_most(CPU_MAX));
    let p99 = quantile(&gets_ms, 0.99);
    run.report.add(&figure("record_get_p99_ms", p99, "ms").at_most(GET_P99_MS_MAX));
    Ok(())
}

/// Seconds from the start of a node's process until it answers on its socket.
async fn until_it_answers(cluster: &mut Cluster) -> Result<f64> {
    let node = cluster.nodes.first_mut().context("a cluster of one")?;
    let begun = Instant::now();
    node.launch()?;
    loop {
        if let Ok(client) = node.client()
            && client.identity().await.is_ok()
        {
            break;
        }
        ensure!(begun.elapsed() < ANSWER_MAX, "no answer within {} s", ANSWER_MAX.as_secs());
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let took = begun.elapsed().as_secs_f64();
    node.ready().await?;
    Ok(took)
}

struct Watched {
    rss: f64,
    cpu: f64,
    gets_ms: Vec<f64>,
}

async fn watch(cluster: &mut Cluster, records: Filling) -> Result<Watched> {
    let node = cluster.nodes.first_mut().context("a cluster of one")?;
    let pid = node.process().context("it was started")?.pid();
    tokio::time::sleep(SETTLED).await;
    progress(format_args!("idle: watching it for {} s", WATCHED.as_secs()));
    let (begun, before) = (Instant::now(), cpu_s(pid)?);
    tokio::time::sleep(WATCHED).await;
    let cpu = (cpu_s(pid)? - before) / begun.elapsed().as_secs_f64();
    let rss = rss_anon(pid)? as f64;

    let client = node.client()?;
    let mut random = StdRng::seed_from_u64(1);
    let mut gets_ms = Vec::new();
    for _ in 0..GETS {
        let author = random.random_range(0..records.authors);
        let record = fill::record_id(author, 0);
        let one = Instant::now();
        client.record(&record).await.with_context(|| record)?;
        gets_ms.push(one.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(Watched { rss, cpu, gets_ms })
}
