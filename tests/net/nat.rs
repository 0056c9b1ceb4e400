//! The NAT matrix: nodes behind every pair of NATs, real processes that are told the network id, a DHT
//! and a relay.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures_lite::future::zip;
use libtest_mimic::Failed;
use mosaik_lab::wait;

use super::{
    internet::{Home, Internet, Nat},
    lan::play,
    pair::{DIRECT_MAX, Pair, STEP, all, connected, has, is_on, until_on, write},
};

/// How long a pair without a direct path is watched: twice as long as one is promised to take.
const RELAYED_FOR: Duration = Duration::from_secs(10);

/// How a pair met; all times in seconds.
struct Met {
    nats: [Nat; 2],
    /// From both listening to a session.
    found_s: f32,
    /// From there to the other's first record.
    synced_s: f32,
    /// From there to a direct path.
    direct_s: Option<f32>,
}

/// All pairs at once: each is a network of its own, on two hosts of each kind.
pub(crate) fn matrix() -> Result<(), Failed> {
    play(async |directory| {
        let mut internet = Internet::new(directory).await?;
        let mut homes = |_| Nat::ALL.into_iter().map(|nat| internet.home(nat)).collect();
        let sides: [Result<Vec<Home>>; 2] = [0, 1].map(&mut homes);
        let [left, right] = sides;
        let (left, right) = (left?, right?);
        let mut meetings = Vec::new();
        for (at, a) in left.iter().enumerate() {
            for b in &right[at..] {
                meetings.push(meet(&internet, a, b));
            }
        }
        let met = all(meetings).await;
        let failed: Vec<String> =
            met.iter().filter_map(|met| Some(format!("{:#}", met.as_ref().err()?))).collect();
        let mut met: Vec<Met> = met.into_iter().flatten().collect();
        met.sort_by_key(|met| met.nats);
        show(&met);
        ensure!(failed.is_empty(), "{}", failed.join("\n"));
        Ok(())
    })
}

async fn meet(internet: &Internet, a: &Home, b: &Home) -> Result<Met> {
    let nats = [a.nat, b.nat];
    let name = format!("{}-{}", a.number, b.number);
    let mut pair = Pair::new(internet, &name, a, b)?;
    let met = async {
        pair.start().await?;
        let began = Instant::now();
        write(&pair.a, "R-1").await?;
        pair.meet().await?;
        let found = Instant::now();
        let reads = async {
            has(&pair.b, "R-1", "60").await?;
            anyhow::Ok(found.elapsed().as_secs_f32())
        };
        let opens = async {
            if a.nat.lets_through(b.nat) {
                until_on(&pair.a, "direct", DIRECT_MAX).await?;
                let direct_s = found.elapsed().as_secs_f32();
                until_on(&pair.b, "direct", DIRECT_MAX).await?;
                return anyhow::Ok(Some(direct_s));
            }
            stays_relayed(&pair).await?;
            Ok(None)
        };
        let (synced_s, direct_s) = zip(reads, opens).await;
        let found_s = found.duration_since(began).as_secs_f32();
        anyhow::Ok(Met { nats, found_s, synced_s: synced_s?, direct_s: direct_s? })
    };
    met.await.with_context(|| format!("{} and {}", a.nat, b.nat))
}

/// Looks at a pair that can't have a direct path for as long as one would take.
async fn stays_relayed(pair: &Pair) -> Result<()> {
    for node in [&pair.a, &pair.b] {
        until_on(node, "relay", STEP).await?;
    }
    let watched = wait::until("a direct path", RELAYED_FOR, || async {
        let peer = connected(&pair.a).await?;
        if is_on(&peer, "direct") { Ok(()) } else { Err(format!("{peer:?}")) }
    });
    ensure!(watched.await.is_err(), "a direct path came where none can be");
    for node in [&pair.a, &pair.b] {
        let peers = node.run(&["peer", "list"]).await?.ok()?;
        ensure!(peers.contains("relay https://"), "{peers}");
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the table is what a person runs this for")]
fn show(met: &[Met]) {
    let mut text = format!(
        "{:<12}{:<12}{:<8}{:>8}{:>14}{:>9}\n",
        "NAT", "NAT", "PATH", "FOUND", "FIRST RECORD", "DIRECT"
    );
    for Met { nats: [a, b], found_s, synced_s, direct_s } in met {
        let path = if direct_s.is_some() { "direct" } else { "relay" };
        let direct = direct_s.map_or("never".to_owned(), |direct_s| format!("{direct_s:.1} s"));
        let _ =
            writeln!(text, "{a:<12}{b:<12}{path:<8}{found_s:>6.1} s{synced_s:>12.1} s{direct:>9}");
    }
    println!("{text}");
}
