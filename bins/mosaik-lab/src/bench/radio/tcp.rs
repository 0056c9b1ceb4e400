//! Two real nodes whose radios meet over TCP: what Reticulum itself makes possible, and what it costs.
//!
//! The clock runs from the moment at which the receiver's stack is connected, announces, link and greeting
//! included, to the end of the commit that brought the last event. Bytes are those of the TCP stream, both
//! ways, of everything between the two.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use mosaik_api::{
    json::to_json,
    request::{EmitEvent, EmitEvents},
};
use mosaik_core::value::Value;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::super::{
    Run,
    figure::{Figure, progress},
    limits::median,
    scrape::{Scrape, until_events},
};
use crate::{Cluster, Node};

/// How many events there are, and how many fewer where it is to be seen what more of them cost.
const EVENTS: u64 = 10_000;
const FEW_EVENTS: u64 = 1_000;
/// Bytes that make a payload of 100.
const VALUE_LEN: usize = 98;
/// Events of one append.
const APPEND: u64 = 1_000;
/// How long it may take.
const LONG: Duration = Duration::from_secs(300);
/// How often threads are counted.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often it is measured: the middle one counts.
const TIMES: usize = 3;

/// What it is to be.
const TOOK_S_MAX: f64 = 3.0;
const BYTES_MAX: f64 = 130.0;

/// What one sync came to.
#[derive(Debug, Clone, Copy)]
struct Synced {
    took_s: f64,
    bytes: f64,
    /// The most threads of one of the two.
    threads: f64,
}

pub(super) async fn all(run: &mut Run) -> Result<()> {
    let (mut few, mut all) = (Vec::new(), Vec::new());
    for time in 0..TIMES {
        progress(format_args!("radio over TCP, {} of {TIMES}", time + 1));
        few.push(sync(run, FEW_EVENTS).await?);
        all.push(sync(run, EVENTS).await?);
    }
    let middle = |of: fn(&Synced) -> f64| median(&all.iter().map(of).collect::<Vec<_>>());
    // The runtime's pool for what blocks adds one now and then: the least is what is needed.
    let threads = |of: &[Synced]| of.iter().map(|it| it.threads).fold(f64::INFINITY, f64::min);
    let case = format!("{EVENTS} events over TCP");
    let figure = |metric, value, unit| Figure::new("radio", case.clone(), metric, value, unit);
    let slowest = all.iter().map(|it| it.took_s).fold(0.0, f64::max);
    let more_threads = threads(&all) - threads(&few);
    run.report.add_all(&[
        figure("took_s", middle(|it| it.took_s), "s").at_most(TOOK_S_MAX),
        figure("took_s_slowest", slowest, "s"),
        figure("bytes_an_event", middle(|it| it.bytes) / EVENTS as f64, "B").at_most(BYTES_MAX),
        figure("threads", threads(&all), ""),
        figure("threads_more_than_of_1000_events", more_threads, "").at_most(0.0),
    ]);
    Ok(())
}

async fn sync(run: &Run, events: u64) -> Result<Synced> {
    let directory = run.place.directory()?;
    let mut cluster = directory.cluster(2).await?;
    let synced = between(&mut cluster, events).await;
    cluster.stop().await?;
    synced
}

async fn between(cluster: &mut Cluster, events: u64) -> Result<Synced> {
    let listens = TcpListener::bind(("127.0.0.1", 0)).await?.local_addr()?;
    let wire = Wire::start(listens).await?;
    let [sender, receiver] = cluster.nodes.as_mut_slice() else { bail!("two nodes") };
    sender.arguments.extend(["--rns".to_owned(), format!("tcp-listen://{listens}")]);
    receiver.arguments.extend(["--rns".to_owned(), format!("tcp://{}", wire.address)]);
    sender.start().await?;
    write(sender, events).await?;
    receiver.start().await?;
    let pids = [pid(sender)?, pid(receiver)?];
    let held = sender.status().await?.events;
    let client = receiver.client()?;
    let own = Scrape::of(&client).await?.get("events_written_total")?;
    let mut most = 0;
    let watch = async {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            looks.tick().await;
            most = pids.iter().filter_map(|pid| threads(*pid).ok()).max().unwrap_or(0).max(most);
        }
    };
    let after = tokio::select! {
        after = until_events(&client, held + own as u64, LONG) => after?,
        () = watch => bail!("nobody counts any more"),
    };
    let begun_s = wire.begun_s().context("the receiver never connected")?;
    ensure!(after.get("events_received_total")? >= events as f64, "it had some of them before");
    Ok(Synced {
        took_s: after.get("last_event_timestamp_seconds")? - begun_s,
        bytes: wire.bytes.load(Ordering::Relaxed) as f64,
        threads: most as f64,
    })
}

fn threads(pid: u32) -> Result<u64> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/task"))?.count() as u64)
}

fn pid(node: &mut Node) -> Result<u32> {
    Ok(node.process().context("it was started")?.pid())
}

/// Events of 100 random bytes, a thousand an append.
async fn write(node: &Node, events: u64) -> Result<()> {
    let (client, mut random) = (node.client()?, StdRng::seed_from_u64(1));
    let mut event = || {
        let mut bytes = vec![0; VALUE_LEN];
        random.fill_bytes(&mut bytes);
        EmitEvent { kind: "reading".into(), value: to_json(&Value::Bytes(bytes)) }
    };
    for begun in (0..events).step_by(APPEND as usize) {
        let count = APPEND.min(events - begun);
        client.emit_all(&EmitEvents { events: (0..count).map(|_| event()).collect() }).await?;
    }
    Ok(())
}

/// A TCP port that passes on to another, and counts.
struct Wire {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
    begun_s: Arc<Mutex<Option<f64>>>,
    _tasks: JoinSet<()>,
}

impl Wire {
    async fn start(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (bytes, begun_s) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(None)));
        let (counted, begun) = (Arc::clone(&bytes), Arc::clone(&begun_s));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut ways = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(to).await else { continue };
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let mut begun = begun.lock().unwrap_or_else(PoisonError::into_inner);
                begun.get_or_insert(now.as_secs_f64());
                drop(begun);
                let _ = (near.set_nodelay(true), far.set_nodelay(true));
                let ((near_in, near_out), (far_in, far_out)) =
                    (near.into_split(), far.into_split());
                ways.spawn(pass(near_in, far_out, Arc::clone(&counted)));
                ways.spawn(pass(far_in, near_out, Arc::clone(&counted)));
            }
        });
        Ok(Self { address, bytes, begun_s, _tasks: tasks })
    }

    fn begun_s(&self) -> Option<f64> {
        *self.begun_s.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    bytes: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        bytes.fetch_add(read as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
