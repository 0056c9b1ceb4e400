//! W3: durable appends a second: at the inbox of a node in this process, as a program that embeds one
//! appends, and over the socket of another process.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Result;
use mosaik_api::{
    client::Client,
    json::to_json,
    request::{EmitEvent, EmitEvents},
};
use mosaik_core::{event::Kind, value::Value};
use mosaik_node::{
    Node,
    config::{Config, Percent},
    edit::Edit,
    handle::Handle,
    log::{Format, Level},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::task::JoinSet;

use super::{
    Run,
    figure::{Figure, progress},
    fill::{self, SAMPLE, SAMPLE_BYTES},
    limits::{commits_ms, median, quantile},
};

/// How long each way of appending is measured.
const MEASURED: Duration = Duration::from_secs(2);
const WRITERS: u64 = 64;
const BATCH_EVENTS: usize = 1_000;

/// One append against one bare commit.
const SINGLE_MAX: f64 = 1.3;
/// Many writers together against one.
const WRITERS_TIMES_MIN: f64 = 20.0;
/// Batches against the same commits by redb alone.
const BATCH_SHARE_MIN: f64 = 0.6;

/// A way in.
#[derive(Clone)]
enum Door {
    Inbox(Handle),
    Socket(Client),
}

pub(super) async fn all(run: &mut Run) -> Result<()> {
    let directory = run.place.directory()?;
    let node = Node::open(config(directory.path().join("inbox")), &fill::network()?).await?;
    let door = Door::Inbox(node.handle());
    let measured = measure(run, &door, directory.path()).await;
    node.handle().shutdown().await;
    node.stopped().await;
    measured?;

    let mut cluster = directory.cluster(1).await?;
    cluster.start().await?;
    let door = Door::Socket(cluster.nodes[0].client()?);
    let measured = measure(run, &door, directory.path()).await;
    cluster.stop().await?;
    measured
}

/// A node that knows nobody.
pub(super) fn config(data_dir: PathBuf) -> Config {
    Config {
        data_dir,
        name: "bench".to_owned(),
        listen: vec![([127, 0, 0, 1], 0).into()],
        dht: false,
        dht_bootstrap: Vec::new(),
        pkarr_relays: Vec::new(),
        relay: false,
        relays: Vec::new(),
        relay_only: false,
        relay_ca: None,
        peers: Vec::new(),
        mdns: false,
        lan: false,
        lan_only: false,
        lab: true,
        metered: false,
        sync_interval_s: 60,
        sync_jitter_s: 30,
        rate_down: 0,
        rate_up: 0,
        connections_max: 256,
        rns: Vec::new(),
        rns_config: None,
        rns_bitrate: 0,
        rns_airtime: Percent(100),
        rns_first: Vec::new(),
        rns_meshlog: false,
        rns_broadcast: false,
        store_max: 0,
        retention: Vec::new(),
        attachments: Vec::new(),
        attachments_max: 0,
        archive: false,
        log_level: Level::Error,
        log_format: Format::Text,
        log_dir: None,
    }
}

/// Measures all ways of appending through one door; only the inbox has targets.
async fn measure(run: &mut Run, door: &Door, directory: &Path) -> Result<()> {
    let (name, has_targets) = match door {
        Door::Inbox(_) => ("inbox", true),
        Door::Socket(_) => ("socket", false),
    };
    progress(format_args!("W3 {name}: one by one"));
    let commit_ms = median(&commits_ms(directory, 1)?);
    let single = writer(door.clone(), 1, 1, MEASURED).await?;
    let single_per_s = per_s(single.len(), MEASURED);
    let case = format!("{name} one by one");
    let figure = |metric, value, unit| Figure::new("W3", case.clone(), metric, value, unit);
    let p50 = figure("p50_ms", median(&single), "ms").of_limit(commit_ms);
    run.report.add(&figure("redb_commit_ms", commit_ms, "ms"));
    run.report.add(&if has_targets { p50.at_most(SINGLE_MAX * commit_ms) } else { p50 });
    run.report.add(&figure("p99_ms", quantile(&single, 0.99), "ms"));
    run.report.add(&figure("events_per_s", single_per_s, "1/s"));

    progress(format_args!("W3 {name}: {WRITERS} writers"));
    let mut writers: JoinSet<_> =
        (0..WRITERS).map(|seed| writer(door.clone(), seed, 1, MEASURED)).collect();
    let mut appended = 0;
    while let Some(done) = writers.join_next().await {
        appended += done??.len();
    }
    let rate = per_s(appended, MEASURED);
    let rate = Figure::new("W3", format!("{name} {WRITERS} writers"), "events_per_s", rate, "1/s");
    let min = WRITERS_TIMES_MIN * single_per_s;
    run.report.add(&if has_targets { rate.at_least(min) } else { rate });

    progress(format_args!("W3 {name}: batches of {BATCH_EVENTS}"));
    let commit_ms = median(&commits_ms(directory, BATCH_EVENTS)?);
    let limit = BATCH_EVENTS as f64 * 1000.0 / commit_ms;
    let batches = writer(door.clone(), 1, BATCH_EVENTS, MEASURED).await?;
    let rate = BATCH_EVENTS as f64 * 1000.0 / median(&batches);
    let case = format!("{name} batches of {BATCH_EVENTS}");
    let rate = Figure::new("W3", case, "events_per_s", rate, "1/s").of_limit(limit);
    run.report.add(&if has_targets { rate.at_least(BATCH_SHARE_MIN * limit) } else { rate });
    Ok(())
}

fn per_s(number: usize, time: Duration) -> f64 {
    number as f64 / time.as_secs_f64()
}

/// Appends so many events at once, again and again, each time waiting until all are durable: how
/// long each took, in milliseconds.
async fn writer(door: Door, seed: u64, events: usize, time: Duration) -> Result<Vec<f64>> {
    let mut random = StdRng::seed_from_u64(seed);
    let (begun, mut took) = (Instant::now(), Vec::new());
    while begun.elapsed() < time {
        // Making them is the caller's work.
        let batch: Vec<_> = (0..events).map(|_| sample(&mut random)).collect();
        let edit = match &door {
            Door::Inbox(handle) => {
                let one = Instant::now();
                handle.edit(Edit::EmitAll { events: batch }).await?;
                one
            }
            Door::Socket(client) => {
                let mut events: Vec<EmitEvent> = batch.into_iter().map(emitted).collect();
                let one = Instant::now();
                match events.pop() {
                    Some(event) if events.is_empty() => client.emit(&event).await?,
                    last => {
                        events.extend(last);
                        client.emit_all(&EmitEvents { events }).await?
                    }
                };
                one
            }
        };
        took.push(edit.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(took)
}

fn sample(random: &mut StdRng) -> (Kind, Value) {
    let mut bytes = vec![0; SAMPLE_BYTES];
    random.fill_bytes(&mut bytes);
    (Kind::new(SAMPLE).expect("a kind"), Value::Bytes(bytes))
}

fn emitted((kind, value): (Kind, Value)) -> EmitEvent {
    EmitEvent { kind: kind.as_str().to_owned(), value: to_json(&value) }
}
