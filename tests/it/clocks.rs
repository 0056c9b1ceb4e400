//! Nodes whose machine's clock is wrong join a network by its id alone, and sync.
//!
//! The clock is shifted under the real program, by a library between it and the system. Whatever the
//! clock says, a node joins and every event gets everywhere. Where the clock is set and wrong, what is
//! stamped ahead of a node's own clock waits outside its view, and `status` says so.

use std::{
    path::Path,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use mosaik_api::{document::Status, request::CreateRecord, time::parse_ms};
use mosaik_lab::{Cluster, Node};
use mosaik_tests::{cluster, play};

/// How long any one step may take: ten times a start with a cold DHT.
const STEP: Duration = Duration::from_secs(60);
/// Events that nodes write by themselves: each says its name.
const PROFILES: u64 = 3;
const HOUR_S: i64 = 3600;
const YEAR_S: i64 = 365 * 24 * HOUR_S;

/// What the library is made of.
const SHIM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/it/clocks/shim.c");

/// Compiles the library that shifts a process's clock; where it is.
fn shim(directory: &Path) -> Result<String> {
    let library = directory.join("shim.so");
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", SHIM, "-o"])
        .arg(&library)
        .output()
        .context("a C compiler, `cc`, is needed to build this")?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    library.into_os_string().into_string().ok().context("a path in UTF-8")
}

/// What an event with one record needs.
async fn create(node: &Node, record: &str) -> Result<()> {
    let create = CreateRecord {
        record: Some(record.to_owned()),
        form: "report".to_owned(),
        ..CreateRecord::default()
    };
    node.client()?.create(&create).await.with_context(|| format!("{} {record}", node.name()))?;
    Ok(())
}

/// What a node shows, beside its events, of two nodes that wrote one record each.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    held_back: u64,
    records: [bool; 2],
}

async fn seen(node: &Node, status: &Status) -> Result<Seen> {
    let client = node.client()?;
    let mut records = [false; 2];
    for (at, record) in ["of-right", "of-wrong"].into_iter().enumerate() {
        records[at] = client.record(record).await.is_ok();
    }
    Ok(Seen { held_back: status.held_back, records })
}

/// A node whose clock is shifted joins two whose clocks are right.
struct Case {
    shift_s: i64,
    /// A part of what its status says of it.
    notice: &'static str,
    /// What it shows then, and what the others do.
    wrong: Seen,
    right: Seen,
    /// What it shows once its clock is right. The others show what they showed: a clock that was ahead
    /// costs what was written under it.
    healed: Seen,
}

async fn joins_and_syncs(case: Case) {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let shim = shim(scratch.path()).unwrap_or_else(|error| panic!("{error:#}"));
    let nodes = cluster(3).relay(false).argument("--log-level").argument("debug");
    play(nodes, async |cluster: &mut Cluster| {
        let [right, other, wrong] = &mut cluster.nodes[..] else { unreachable!("three nodes") };
        right.start().await?;
        other.start().await?;
        right.wait_until("a peer", STEP, |status| status.peers == 1).await?;
        let shift = [("LD_PRELOAD", shim), ("CLOCK_SHIM_S", case.shift_s.to_string())];
        wrong.env.extend(shift.map(|(name, value)| (name.to_owned(), value)));
        wrong.start().await?;
        let joined = wrong.wait_until("peers", STEP, |status| status.peers > 0).await?;
        ensure!(joined.notices.iter().any(|notice| notice.contains(case.notice)), "{joined:?}");
        is_logged_at(wrong, case.shift_s)?;

        create(right, "of-right").await?;
        create(wrong, "of-wrong").await?;
        ensure!(!shows(wrong, 2, &case.wrong).await?.notices.is_empty(), "it says nothing more");
        let told = shows(right, 2, &case.right).await?.notices;
        ensure!(told.is_empty(), "a clock that is right is blamed: {told:?}");

        wrong.stop().await?;
        wrong.env.clear();
        wrong.start().await?;
        create(wrong, "set-right").await?;
        for (node, seen) in [(&*wrong, &case.healed), (&*right, &case.right)] {
            let status = shows(node, 3, seen).await?;
            ensure!(status.notices.is_empty(), "{status:?}");
            node.client()?.record("set-right").await?;
        }
        Ok(())
    })
    .await;
}

/// Waits until a node holds so many records' events and this many events wait outside its view, and
/// looks at what it shows.
async fn shows(node: &Node, records: u64, expected: &Seen) -> Result<Status> {
    let events = PROFILES + records;
    let all = |status: &Status| {
        let held_back = status.held_back == expected.held_back;
        status.events == events && status.missing == 0 && held_back
    };
    let status = node.wait_until("all records", STEP, all).await?;
    let seen = seen(node, &status).await?;
    ensure!(seen == *expected, "{}: {seen:?}, not {expected:?}", node.name());
    Ok(status)
}

/// What its process printed last is of the time that its clock shows.
fn is_logged_at(node: &Node, shift_s: i64) -> Result<()> {
    let log = std::fs::read_to_string(node.log())?;
    let seconds = |line: &str| parse_ms(&format!("{}Z", line.get(..19)?)).ok();
    let mut stamps = log.lines().filter_map(seconds);
    let stamp_ms = stamps.next_back().context("no line of the log begins with a time")?;
    let apart_s = stamp_ms / 1000 - (now_s() + shift_s);
    ensure!(apart_s.unsigned_abs() < 300, "its clock is {apart_s} s from where it should stand");
    Ok(())
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    i64::try_from(since.as_secs()).expect("a time")
}

const fn all_shown(held_back: u64) -> Seen {
    Seen { held_back, records: [true; 2] }
}

#[tokio::test]
async fn a_node_whose_clock_was_never_set_joins_and_works_by_its_peers_time() {
    joins_and_syncs(Case {
        // Half an hour after the epoch.
        shift_s: HOUR_S / 2 - now_s(),
        notice: "clock was never set",
        wrong: all_shown(0),
        right: all_shown(0),
        healed: all_shown(0),
    })
    .await;
}

#[tokio::test]
async fn a_node_three_years_ahead_joins_and_what_it_writes_waits_outside_the_views_of_others() {
    joins_and_syncs(Case {
        shift_s: 3 * YEAR_S,
        notice: "clock is 1095 days ahead",
        wrong: all_shown(0),
        right: Seen { held_back: 2, records: [true, false] },
        healed: all_shown(0),
    })
    .await;
}

#[tokio::test]
async fn a_node_two_hours_behind_joins_and_shows_what_others_write_once_its_clock_is_right() {
    joins_and_syncs(Case {
        shift_s: -2 * HOUR_S,
        notice: "clock is 2 hours behind",
        wrong: Seen { held_back: 3, records: [false, true] },
        right: all_shown(0),
        healed: all_shown(0),
    })
    .await;
}
