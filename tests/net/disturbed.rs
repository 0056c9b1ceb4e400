//! What is done to networks that work, and how soon nodes are in sync again.

use std::{
    fmt::Write as _,
    fs,
    pin::Pin,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Failed;
use mosaik_api::document::{Attached, FileState, RecordAttachment};
use mosaik_lab::{Node, cluster::agreement, wait};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    internet::{Home, Internet, Nat},
    lan::play,
    pair::{DIRECT_MAX, Pair, STEP, all, until_on, write},
};

/// Bytes of events that a transfer takes, and of one of them.
const TRANSFER: usize = 20_000_000;
const ROW: usize = 40_000;
/// How long a paused node must have sent nothing: iroh looks at the network every 20 to 26 s. And how
/// long it may take until then.
const SILENT: Duration = Duration::from_secs(30);
/// Packets to the relay in that time: one each way every 15 s, with ten times the room.
const SIGNS_MAX: u64 = 60;
const SILENT_WITHIN: Duration = Duration::from_secs(60);
/// Bytes of a file that is fetched.
const FILE: usize = 20_000_000;
/// How long a node stands still.
const FROZEN: Duration = Duration::from_secs(30);

/// All of it at the same time, each to a pair of its own.
pub(crate) fn all_at_once() -> Result<(), Failed> {
    play(async |directory| {
        let mut internet = Internet::new(directory).await?;
        let mut home = |nat| internet.home(nat);
        let (r1, r2) = (home(Nat::Restricted)?, home(Nat::Restricted)?);
        let (s1, s2) = (home(Nat::Symmetric)?, home(Nat::Symmetric)?);
        let (moved, public) = (home(Nat::Restricted)?, home(Nat::None)?);
        let cut = home(Nat::Restricted)?;
        let (deaf1, deaf2) = (home(Nat::Restricted)?, home(Nat::Restricted)?);
        let quiet = home(Nat::Restricted)?;
        let internet = &internet;
        let pair = |name, a, b| Pair::new(internet, name, a, b);
        let stories: Vec<Pin<Box<dyn Future<Output = Result<()>>>>> = vec![
            Box::pin(named("20 MB directly", transfer(pair("direct", &r1, &r2)?, "direct"))),
            Box::pin(named("20 MB by relay", transfer(pair("relay", &s1, &s2)?, "relay"))),
            Box::pin(named("no UDP", no_udp(pair("tcp", &deaf1, &deaf2)?, [&deaf1, &deaf2]))),
            Box::pin(named(
                "another private address",
                readdressed(pair("moved", &moved, &r1)?, &moved),
            )),
            Box::pin(named(
                "another public address",
                readdressed(pair("public", &public, &r2)?, &public),
            )),
            Box::pin(named("a cut cable", cut_off(pair("cut", &cut, &r2)?, &cut))),
            Box::pin(named("a node that stands still", frozen(pair("frozen", &r1, &r2)?))),
            Box::pin(named("a pause", paused(pair("pause", &quiet, &r2)?, &quiet))),
        ];
        let failed: Vec<String> = all(stories)
            .await
            .into_iter()
            .filter_map(|end| Some(format!("{:#}", end.err()?)))
            .collect();
        ensure!(failed.is_empty(), "{}", failed.join("\n"));
        Ok(())
    })
}

#[expect(clippy::print_stdout, reason = "the figures are what a person runs this for")]
async fn named(name: &str, story: impl Future<Output = Result<String>>) -> Result<()> {
    let figures = story.await.with_context(|| name.to_owned())?;
    println!("{name}: {figures}");
    Ok(())
}

/// What a node counts under a name.
async fn counted(node: &Node, name: &str) -> Result<usize> {
    let metrics = node.client()?.metrics().await?;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|number| number.trim().parse().ok()).context(metrics.clone())
}

/// What a node counts of the bytes that came to it by a path.
fn came_by(path: &str) -> &'static str {
    match path {
        "relay" => "mosaik_relay_bytes_received_total",
        _ => "mosaik_udp_bytes_received_total",
    }
}

/// A file that is attached to a record at one end comes to the other by `path`, and is the same there.
async fn file(pair: &Pair, record: &str, path: &str) -> Result<String> {
    let mut bytes = vec![0; FILE];
    StdRng::seed_from_u64(21).fill(&mut bytes);
    let before = counted(&pair.b, came_by(path)).await?;
    let began = Instant::now();
    let add = ["attachment", "add", record, "film", "-", "--json"];
    let added: Attached = pair.a.run_with(&add, &bytes, STEP).await?.json()?;
    let shown = wait::until("the file to be here", STEP, || async {
        let show = ["attachment", "show", record, "film", "--json"];
        let shown = pair.b.run(&show).await.and_then(|said| said.json::<RecordAttachment>());
        match shown.map(|shown| shown.attachment) {
            Ok(shown) if shown.state == FileState::Here => Ok(shown),
            Ok(shown) => Err(format!("{shown:?}")),
            Err(error) => Err(format!("{error:#}")),
        }
    });
    let shown = shown.await.with_context(|| pair.b.name().to_owned())?;
    let took = began.elapsed();
    let hash = blake3::hash(&bytes).to_hex().to_string();
    ensure!(added.blob == hash && shown.blob == hash, "{hash} became {added:?} and {shown:?}");
    let copy = pair.b.data_dir().with_extension("film");
    let get = ["attachment", "get", record, "film", "-o", copy.to_str().context("a plain path")?];
    pair.b.run(&get).await?.ok()?;
    ensure!(fs::read(&copy)? == bytes, "the copy is another file");
    let fetched = counted(&pair.b, "mosaik_blob_bytes_fetched_total").await?;
    ensure!(fetched == FILE, "{fetched} bytes of files were fetched");
    let came = counted(&pair.b, came_by(path)).await? - before;
    ensure!(came > FILE / 2, "{came} bytes of the file came by {path}");
    Ok(format!("a file in {:.1} s, {came} bytes", took.as_secs_f32()))
}

/// Written at one end while both are connected by `path`, so that all of it goes that way.
async fn transfer(mut pair: Pair, path: &str) -> Result<String> {
    pair.start().await?;
    pair.meet().await?;
    until_on(&pair.a, path, DIRECT_MAX).await?;
    until_on(&pair.b, path, DIRECT_MAX).await?;
    // Text that nobody can pack much.
    let mut random = StdRng::seed_from_u64(20);
    let mut rows = String::new();
    let mut bytes = [0; ROW];
    for row in 0..TRANSFER / ROW {
        random.fill(&mut bytes);
        let text: String = bytes.iter().map(|byte| char::from(b'#' + byte % 56)).collect();
        let _ = writeln!(rows, "{{\"id\":\"T-{row}\",\"text\":\"{text}\"}}");
    }
    let import = ["import", "-", "--form", "scan", "--id-column", "id", "--format", "jsonl"];
    let began = Instant::now();
    pair.a.run_with(&import, rows.as_bytes(), STEP).await?.ok()?;
    let both = agreement(&[&pair.a, &pair.b], STEP).await?;
    let took = began.elapsed();
    ensure!(both.events >= (TRANSFER / ROW) as u64, "{} events", both.events);
    let bytes = counted(&pair.b, came_by(path)).await?;
    ensure!(bytes > TRANSFER / 2, "{bytes} bytes came by {path}");
    let events = format!("{} events in {:.1} s, {bytes} bytes", both.events, took.as_secs_f32());
    Ok(format!("{events} on the wire; {} on the wire", file(&pair, "T-0", path).await?))
}

/// Neither host can send a UDP packet further than its router: nor ask the DHT.
async fn no_udp(mut pair: Pair, homes: [&Home; 2]) -> Result<String> {
    for home in homes {
        home.routers[0].rules(
            "table inet count { counter dropped { }; chain forward { \
             type filter hook forward priority -10; meta l4proto udp counter name dropped drop; }; }",
        )?;
    }
    pair.a.start().await?;
    let ticket = wait::until("a relay in the ticket", STEP, || async {
        let told = pair.a.identity().await.map_err(|error| format!("{error:#}"))?;
        if told.relays.is_empty() { Err(format!("{told:?}")) } else { Ok(told.ticket) }
    });
    pair.b.arguments.extend(["--peer".to_owned(), ticket.await?]);
    pair.b.start().await?;
    pair.meet().await?;
    let met = Instant::now();
    pair.in_sync("R").await?;
    let synced_s = met.elapsed().as_secs_f32();
    until_on(&pair.a, "relay", STEP).await?;
    let file = file(&pair, "R-a", "relay").await?;
    for home in homes {
        ensure!(home.routers[0].counted("dropped")? > 0, "no UDP packet was dropped");
    }
    let by_udp = counted(&pair.b, came_by("direct")).await?;
    ensure!(by_udp == 0, "{by_udp} bytes came by UDP");
    Ok(format!("both ways in {synced_s:.1} s by the relay; {file} on the wire"))
}

/// The host gets another address, as from another access point of the same net.
async fn readdressed(mut pair: Pair, home: &Home) -> Result<String> {
    pair.start().await?;
    pair.meet().await?;
    until_on(&pair.a, "direct", DIRECT_MAX).await?;
    home.readdress()?;
    let before = home.host.counted("old")?;
    let back = Instant::now();
    pair.in_sync("R").await?;
    let mut figures = format!("in sync after {:.1} s", back.elapsed().as_secs_f32());
    let after = home.host.counted("old")?;
    ensure!(before == after, "{} packets still had the old address", after - before);
    // A home's router keeps the ports for the host's old address for minutes: until then it is as good
    // as symmetric.
    if home.nat == Nat::None {
        until_on(&pair.a, "direct", DIRECT_MAX).await?;
        let _ = write!(figures, ", direct again after {:.1} s", back.elapsed().as_secs_f32());
    }
    Ok(figures)
}

/// The interface goes down, for longer than a session lives, and up again.
async fn cut_off(mut pair: Pair, home: &Home) -> Result<String> {
    pair.start().await?;
    pair.meet().await?;
    home.cut()?;
    pair.is_lost().await?;
    write(&pair.a, "R-a").await?;
    write(&pair.b, "R-b").await?;
    home.mend()?;
    let back = Instant::now();
    pair.both_have("R-a", "R-b").await?;
    Ok(format!("in sync after {:.1} s", back.elapsed().as_secs_f32()))
}

/// The process stands still, as under a hypervisor that saves its machine, and goes on.
async fn frozen(mut pair: Pair) -> Result<String> {
    pair.start().await?;
    pair.meet().await?;
    pair.a.freeze()?;
    let still = Instant::now();
    pair.is_lost().await?;
    write(&pair.b, "R-b").await?;
    tokio::time::sleep(FROZEN.saturating_sub(still.elapsed())).await;
    pair.a.thaw()?;
    let back = Instant::now();
    write(&pair.a, "R-a").await?;
    pair.both_have("R-a", "R-b").await?;
    Ok(format!("in sync after {:.1} s", back.elapsed().as_secs_f32()))
}

/// While a node is paused it sends nothing but signs of life to its relay; then it catches up. What its
/// host's kernel answers for the closed port of the DHT client doesn't count.
async fn paused(mut pair: Pair, home: &Home) -> Result<String> {
    home.routers[0].rules(
        "table inet count { counter sent { }; counter signs { }; chain forward { \
         type filter hook forward priority -10; iifname != lan accept; \
         ip daddr 203.0.113.1 counter name signs accept; \
         meta l4proto != icmp counter name sent; }; }",
    )?;
    pair.start().await?;
    pair.meet().await?;
    ensure!(home.routers[0].counted("sent")? > 0, "nothing was counted");
    pair.a.run(&["pause"]).await?.ok()?;
    pair.is_lost().await?;
    let asked = Instant::now();
    let (mut sent, mut since, mut signs) = (0, Instant::now(), 0);
    while since.elapsed() < SILENT {
        let now = home.routers[0].counted("sent")?;
        if now != sent {
            ensure!(asked.elapsed() < SILENT_WITHIN, "{now} packets sent, and on it goes");
            (sent, since) = (now, Instant::now());
            signs = home.routers[0].counted("signs")?;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let silent_s = (since - asked).as_secs_f32();
    let signs = home.routers[0].counted("signs")? - signs;
    ensure!(signs <= SIGNS_MAX, "{signs} packets went to the relay");
    write(&pair.a, "R-a").await?;
    write(&pair.b, "R-b").await?;
    pair.a.run(&["resume"]).await?.ok()?;
    let back = Instant::now();
    pair.both_have("R-a", "R-b").await?;
    let back_s = back.elapsed().as_secs_f32();
    Ok(format!(
        "silent after {silent_s:.1} s but for {signs} packets to the relay in {} s, in sync {back_s:.1} s \
         after its end",
        SILENT.as_secs()
    ))
}
