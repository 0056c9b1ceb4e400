//! What this machine does at all: its disk, its processor, its loopback, without this program's code.

use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use ed25519_dalek::Signer;
use iroh::{
    Endpoint, RelayMode,
    endpoint::{PortmapperConfig, QuicTransportConfig, VarInt, presets},
};
use rand::{SeedableRng, rngs::StdRng};
use redb::{Builder, Database, TableDefinition};

use super::{
    Run,
    figure::{Figure, progress},
    fill::{COMMIT_EVENTS, Filling, PAYLOAD_LEN, key, payloads, sample},
};

/// How long one of them is measured.
const MEASURED: Duration = Duration::from_millis(500);
/// Bytes that go over loopback.
const QUIC_LEN: usize = 256 << 20;
const QUIC_ALPN: &[u8] = b"mosaik-lab/bench/1";
const ROWS: TableDefinition<(u32, u64), &[u8]> = TableDefinition::new("events");
const ENTRIES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("view");

pub(super) async fn all(run: &mut Run) -> Result<()> {
    progress("limits of this machine");
    let directory = run.place.directory()?;
    let mut limit = |metric, value, unit| {
        run.report.add(&Figure::new("limits", "machine", metric, value, unit));
    };
    limit("fsyncs_per_s", fsyncs_per_s(directory.path())?, "1/s");
    let commits = commits_ms(directory.path(), 1)?;
    limit("redb_commits_per_s", 1000.0 / median(&commits), "1/s");
    let payload = [7; PAYLOAD_LEN];
    limit("blake3_150_bytes_per_s", per_s(|| blake3::hash(&payload)), "1/s");
    let key = key(0);
    limit("ed25519_signs_per_s", per_s(|| key.sign(&payload)), "1/s");
    let (signature, public) = (key.sign(&payload), key.verifying_key());
    limit("ed25519_checks_per_s", per_s(|| public.verify_strict(&payload, &signature)), "1/s");
    limit("quic_bytes_per_s", quic_bytes_per_s().await?, "B/s");
    Ok(())
}

/// How often a second `work` is done.
fn per_s<T>(mut work: impl FnMut() -> T) -> f64 {
    let (begun, mut done) = (Instant::now(), 0_u32);
    while begun.elapsed() < MEASURED {
        for _ in 0..64 {
            std::hint::black_box(work());
        }
        done += 64;
    }
    f64::from(done) / begun.elapsed().as_secs_f64()
}

/// A page written in place and synced, one after the other.
fn fsyncs_per_s(directory: &Path) -> Result<f64> {
    let path = directory.join("fsync");
    let file = OpenOptions::new().create_new(true).write(true).open(&path)?;
    let (begun, mut done, mut page) = (Instant::now(), 0_u32, [0; 4096]);
    while begun.elapsed() < MEASURED {
        page[..4].copy_from_slice(&done.to_be_bytes());
        file.write_all_at(&page, 0)?;
        file.sync_data()?;
        done += 1;
    }
    Ok(f64::from(done) / begun.elapsed().as_secs_f64())
}

/// Milliseconds of durable commits with so many rows each, one after the other.
pub(super) fn commits_ms(directory: &Path, rows: usize) -> Result<Vec<f64>> {
    let path = directory.join("commits.redb");
    let database = database(&path)?;
    let mut random = StdRng::seed_from_u64(1);
    let (begun, mut took, mut seq) = (Instant::now(), Vec::new(), 0);
    while begun.elapsed() < MEASURED {
        let payloads: Vec<_> = (0..rows).map(|_| sample(&mut random).payload).collect();
        let one = Instant::now();
        let transaction = database.begin_write()?;
        let mut table = transaction.open_table(ROWS)?;
        for payload in &payloads {
            seq += 1;
            table.insert((0, seq), payload.as_slice())?;
        }
        drop(table);
        transaction.commit()?;
        took.push(one.elapsed().as_secs_f64() * 1000.0);
    }
    drop(database);
    std::fs::remove_file(&path)?;
    Ok(took)
}

/// Events a second that redb alone takes, one row each and feed after feed, in durable commits of
/// [`COMMIT_EVENTS`]; `view` are entries that go in beside them, shared out over the commits.
pub(super) fn redb_events_per_s(
    directory: &Path,
    filling: Filling,
    view: &[(Vec<u8>, Vec<u8>)],
) -> Result<f64> {
    let commits = filling.events.div_ceil(COMMIT_EVENTS as u64) as usize;
    let mut view = view.chunks(view.len().div_ceil(commits).max(1));
    let path = directory.join("alone.redb");
    let database = database(&path)?;
    let (mut payloads, mut took) = (payloads(filling), Duration::ZERO);
    for _ in 0..commits {
        // Making them is no part of it.
        let rows: Vec<_> = payloads.by_ref().take(COMMIT_EVENTS).collect();
        let begun = Instant::now();
        let transaction = database.begin_write()?;
        let mut table = transaction.open_table(ROWS)?;
        for (key, payload) in &rows {
            table.insert(key, payload.as_slice())?;
        }
        drop(table);
        let mut table = transaction.open_table(ENTRIES)?;
        for (key, value) in view.next().unwrap_or_default() {
            table.insert(key.as_slice(), value.as_slice())?;
        }
        drop(table);
        transaction.commit()?;
        took += begun.elapsed();
    }
    drop(database);
    std::fs::remove_file(&path)?;
    Ok(filling.events as f64 / took.as_secs_f64())
}

/// A database with as much cache as a node's store has.
fn database(path: &Path) -> Result<Database> {
    let mut builder = Builder::new();
    builder.set_cache_size(mosaik_store::CACHE_LEN);
    builder.create(path).with_context(|| format!("cannot make {}", path.display()))
}

/// Bytes a second on one stream between two endpoints on loopback, with windows of iroh's own size.
async fn quic_bytes_per_s() -> Result<f64> {
    let (from, to) = (endpoint().await?, endpoint().await?);
    let address = to.addr();
    let reading = tokio::spawn(async move {
        let connection = to.accept().await.context("the endpoint is open")?.await?;
        let mut stream = connection.accept_uni().await?;
        let mut bytes = 0;
        while let Some(piece) = stream.read_chunk(1 << 20).await? {
            bytes += piece.len();
        }
        connection.close(VarInt::from_u32(0), b"all is here");
        to.close().await;
        anyhow::Ok(bytes)
    });
    let connection = from.connect(address, QUIC_ALPN).await?;
    let mut stream = connection.open_uni().await?;
    let piece = vec![7; 1 << 20];
    let begun = Instant::now();
    for _ in 0..QUIC_LEN / piece.len() {
        stream.write_all(&piece).await?;
    }
    stream.finish()?;
    let bytes = reading.await??;
    let took = begun.elapsed();
    from.close().await;
    anyhow::ensure!(bytes == QUIC_LEN, "{bytes} of {QUIC_LEN} bytes came over loopback");
    Ok(bytes as f64 / took.as_secs_f64())
}

async fn endpoint() -> Result<Endpoint> {
    let builder = Endpoint::builder(presets::Minimal)
        .alpns(vec![QUIC_ALPN.to_vec()])
        .relay_mode(RelayMode::Disabled)
        .portmapper_config(PortmapperConfig::Disabled)
        .net_report_config(iroh::NetReportConfig::minimal())
        .transport_config(QuicTransportConfig::builder().build())
        .clear_ip_transports();
    Ok(builder.bind_addr("127.0.0.1:0")?.bind().await?)
}

/// The middle one.
pub(super) fn median(numbers: &[f64]) -> f64 {
    quantile(numbers, 0.5)
}

/// The number that so large a part of all is not above. 0 of none.
pub(super) fn quantile(numbers: &[f64], part: f64) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_numbers() {
        let numbers = [3.0, 1.0, 2.0, 4.0];
        assert_eq!((median(&numbers), quantile(&numbers, 0.99)), (2.0, 4.0));
        assert_eq!((quantile(&numbers, 0.25), median(&[])), (1.0, 0.0));
    }
}
