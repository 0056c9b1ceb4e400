//! Whole nodes as peers of a real meshlogd: what either side has, the other has too.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mosaik_api::{document::BridgeMeshlog, request::CreateRecord};
use mosaik_core::{
    hlc::Hlc,
    meshlog::{MeshlogEvent, compose, json::Json},
};
use mosaik_lab::{
    Node,
    binary::node_binary,
    process::{Group, Process},
    radio::{Air, Channel, Kind, by_kind},
    wait,
};
use mosaik_reticulum::stack::Service;
use mosaik_tests::Diary;
use serde_json::{Value, json};

use super::{
    meshlog::Daemon,
    pair::free_port,
    play,
    python::{ALONE, Python, configure, hex, tcp_client, tcp_server},
    shared::share,
    venv::Venv,
};

/// How long something may take: ten times of what it does here.
const SOON: Duration = Duration::from_secs(60);
/// How long between two looks.
const AGAIN: Duration = Duration::from_millis(100);
/// Events that each side has at first.
const EVENTS: usize = 30;
/// Records that a second bridge creates.
const LATE: usize = 3;

/// A node of one network with a way into Reticulum, and the bridge to meshlogd.
fn node(directory: &Path, name: &str, radio: &[&str]) -> Result<Node> {
    let mut node = Node::new(directory, name, node_binary()?, Group::Shared)?;
    let quiet = ["--network", "bridge", "--name", name, "--listen", "127.0.0.1:0", "--lab"];
    let alone = ["--no-dht", "--no-relay", "--no-mdns", "--rns-meshlog"];
    let arguments = quiet.into_iter().chain(alone).chain(radio.iter().copied());
    node.arguments = arguments.map(str::to_owned).collect();
    Ok(node)
}

/// Records that are created on a node: so many events.
async fn create(node: &Node, name: &str, count: usize) -> Result<()> {
    let client = node.client()?;
    for number in 0..count {
        let record = Some(format!("{name}-{number}"));
        let form = "visit".to_owned();
        let create = CreateRecord { record, form, fields: BTreeMap::new(), if_absent: false };
        client.create(&create).await?;
    }
    Ok(())
}

async fn meshlog(node: &Node) -> Result<BridgeMeshlog> {
    node.client()?.bridge().await?.meshlog.context("a bridge to meshlogd")
}

/// The events of meshlogd that a node holds: each as it came.
async fn foreign(node: &Node) -> Result<Vec<MeshlogEvent>> {
    let (client, mut since, mut all) = (node.client()?, 0, Vec::new());
    loop {
        let page = client.events(since, None).await?;
        for event in page.events.iter().filter(|event| event.kind == "foreign.meshlog") {
            let json = event.payload["event"].as_str().context("its JSON")?;
            all.push(MeshlogEvent::parse(json.as_bytes())?);
        }
        since = page.next;
        if !page.more {
            return Ok(all);
        }
    }
}

/// Waits until a meshlogd holds so many events.
async fn holds(daemon: &mut Daemon, events: u64, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let status = daemon.call("status", json!({})).await?;
        if status["event_count"] == events {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{events} events: {status}");
        tokio::time::sleep(AGAIN).await;
    }
}

/// Waits until a node holds so many of meshlogd's.
async fn takes(node: &Node, events: usize, limit: Duration) -> Result<()> {
    let what = format!("{} to hold {events} events of meshlogd", node.name());
    wait::until(&what, limit, async || {
        let held = foreign(node).await.map_err(|error| format!("{error:#}"))?.len();
        if held == events { Ok(()) } else { Err(format!("{held}, {:?}", meshlog(node).await)) }
    })
    .await
}

/// Waits until a meshlogd holds what a second bridge wrote, and so many events of its own kind. Its other
/// events have no meaning there: its name and identity, and what it took before the last of its records.
async fn holds_late(
    daemon: &mut Daemon,
    second: &Node,
    events_of_theirs: usize,
    limit: Duration,
) -> Result<()> {
    let author = second.identity().await?.author;
    let deadline = Instant::now() + limit;
    loop {
        let all = events(daemon).await?;
        let of_second =
            all.iter().filter(|(by, .., kind)| *by == author && kind == "record.create");
        let theirs = all.iter().filter(|(by, ..)| by.len() == 32 || by == "far");
        let seen = (of_second.count(), theirs.count());
        if seen == (LATE, events_of_theirs) {
            let ids: BTreeSet<_> = all.iter().map(|(.., id, _)| id).collect();
            ensure!(ids.len() == all.len(), "an event is there twice: {all:?}");
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{seen:?} in {all:?}");
        tokio::time::sleep(AGAIN).await;
    }
}

/// Whether each event of meshlogd stands once on each node, and both show the same.
async fn each_once(nodes: &[&Node; 2]) -> Result<()> {
    for node in nodes {
        let all = foreign(node).await?;
        let ids: BTreeSet<_> = all.iter().map(|event| event.id).collect();
        ensure!(ids.len() == all.len(), "an event was taken twice: {}", all.len());
    }
    wait::until("one view", SOON, async || {
        let view = async |node: &Node| node.view().await.map_err(|error| format!("{error:#}"));
        let views = (view(nodes[0]).await?, view(nodes[1]).await?);
        if views.0.digest == views.1.digest { Ok(()) } else { Err(format!("{views:?}")) }
    })
    .await
}

/// Payloads that are hard to pass on, as they are written.
const PAYLOADS: [&str; 10] = [
    r#"{"text":"gr\u00fc\u00dfe \ud83d\ude00 \u007f \b\f\n\r\t\"\\/"}"#,
    r#"{"text":"grüße 😀"}"#,
    r#"{"half":"\ud800","zero":"\u0000"}"#,
    r#"{"floats":[1e+16,1e-07,-0.0,1.0,0.1,123456789.125]}"#,
    r#"{"big":1180591620717411303424,"small":-1180591620717411303424}"#,
    r#"{"z":1,"a":{"y":[[],{},[{"x":null}]],"b":[true,false]}}"#,
    r#"{"nan":NaN,"more":[Infinity,-Infinity]}"#,
    r#"{"":{"":""}}"#,
    r#"{"record":"M-1","form":"visit"}"#,
    "{}",
];

/// A log of meshlogd with so many authors, of so many events each; none is signed.
fn log(authors: usize, events: u64) -> String {
    let mut lines = String::new();
    for author in 0..authors {
        let (name, mut last) = (format!("station {author}"), None);
        for seq in 1..=events {
            let payload = Json::map([("reading", Json::whole(seq))]);
            let hlc = Hlc::new(1_790_000_000_000 + seq, 0);
            let written = compose(&name, seq, hlc, "reading", &payload, last);
            last = Some(written.id);
            lines.push_str(&written.wire);
            lines.push('\n');
        }
    }
    lines
}

/// All events of a meshlogd: author, seq, id and kind.
async fn events(daemon: &mut Daemon) -> Result<Vec<(String, u64, String, String)>> {
    let all = daemon.call("events", json!({"since": {}, "limit": 10_000})).await?;
    let event = |event: &Value| {
        let text = |name: &str| event[name].as_str().map(str::to_owned);
        Some((text("author")?, event["seq"].as_u64()?, text("id")?, text("kind")?))
    };
    let all = all["events"].as_array().context("a list")?;
    all.iter().map(event).collect::<Option<_>>().with_context(|| format!("{:?}", all.first()))
}

/// A meshlogd that hears another one only. Over a fast line meshlogd may miss the answer to its own link, and
/// then these two don't speak until one of them is started anew.
async fn behind(venv: &Venv, near: &mut Daemon, home: &Path, interfaces: &str) -> Result<Daemon> {
    for attempt in 0..6 {
        let mut far = Daemon::start(venv, home, interfaces, &["--author", "far"]).await?;
        if attempt == 0 {
            far.emit("note", "{\"text\":\"unsigned\"}").await?;
        }
        let deadline = Instant::now() + SOON / 6;
        while Instant::now() < deadline {
            let there = near.call("frontier", json!({})).await?.to_string().contains("\"far\"");
            let here = far.call("status", json!({})).await?["event_count"].as_u64();
            if there && here > Some(EVENTS as u64) {
                return Ok(far);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
    anyhow::bail!("two meshlogds don't meet")
}

/// A node and a meshlogd with 30 events each, and a log of 12 authors; another meshlogd that hears the first
/// one only; then a second bridge there. All hold the same in the end, each event once.
pub(crate) fn all_hold_the_same(venv: Venv) -> Result<()> {
    play(async {
        let diary = Diary::begin();
        let directory = tempfile::Builder::new().prefix("mlab-").tempdir()?;
        let path = |name: &str| directory.path().join(name);
        let [one, two, between] = [free_port()?, free_port()?, free_port()?];
        let way = |port: u16| format!("tcp-listen://127.0.0.1:{port}");
        let mut first = node(directory.path(), "first", &["--rns", &way(one)])?;
        first.start().await?;
        create(&first, "F", EVENTS).await?;
        let file = path("log.jsonl");
        fs::write(&file, log(12, 2))?;
        let file = file.to_str().context("a path of text")?;
        first.run(&["import", file, "--format", "meshlog"]).await?.ok()?;

        let interfaces = tcp_client(one) + "\n" + &tcp_server(between);
        let mut near = Daemon::start(&venv, &path("near"), &interfaces, &[]).await?;
        for number in 0..EVENTS {
            let payload = PAYLOADS[number % PAYLOADS.len()];
            let kind = if payload.contains("record") { "record.create" } else { "note" };
            near.emit(kind, payload).await?;
        }
        let interfaces =
            tcp_client(between) + "\n" + &tcp_client(two).replace("client]]", "other]]");
        let mut far = behind(&venv, &mut near, &path("far"), &interfaces).await?;
        diary.note("the two meshlogds have met");
        // The node's own name and its identity come first, and mean nothing there.
        let native = 2 + EVENTS as u64;
        let foreign_count = EVENTS as u64 + 24 + 1;
        let all = native + foreign_count;
        holds(&mut near, all, SOON).await?;
        diary.note("the near meshlogd holds all");
        holds(&mut far, all, SOON).await?;
        takes(&first, foreign_count as usize, SOON).await?;
        diary.note("the far one and the node hold all");

        let here = foreign(&first).await?;
        let ids: BTreeMap<_, _> = here
            .iter()
            .map(|event| ((event.author.clone(), event.seq), event.id.to_string()))
            .collect();
        let author = first.identity().await?.author;
        let mut translated = Vec::new();
        for (by, seq, id, kind) in events(&mut near).await? {
            if by == author {
                translated.push((seq, kind));
            } else {
                ensure!(ids.get(&(by.clone(), seq)) == Some(&id), "{by} {seq} {id}");
            }
        }
        translated.sort();
        let kinds = std::iter::repeat_n("mosaik.ref", 2).chain(std::iter::repeat("record.create"));
        let wanted: Vec<_> = (1..=native).zip(kinds.map(str::to_owned)).collect();
        ensure!(translated == wanted, "{translated:?}");
        wait::until("that to show", SOON, async || {
            let shown = meshlog(&first).await.map_err(|error| format!("{error:#}"))?;
            let is_all = (shown.verified, shown.unverified) == (EVENTS as u64, 1);
            let is_clean = shown.refused.is_empty() && shown.mismatched == 0 && shown.authors == 15;
            if is_all && is_clean { Ok(()) } else { Err(format!("{shown:?}")) }
        })
        .await?;
        let metrics = first.client()?.metrics().await?;
        ensure!(metrics.contains("\nmosaik_meshlog_events_verified_total 30\n"), "{metrics}");

        let mut second = node(directory.path(), "second", &["--rns", &way(two)])?;
        second.arguments.extend(["--peer".to_owned(), first.identity().await?.ticket]);
        second.start().await?;
        takes(&second, foreign_count as usize, SOON).await?;
        diary.note("the second bridge holds all");
        near.emit("note", "{\"text\":\"late\"}").await?;
        far.emit("note", "{\"text\":\"late too\"}").await?;
        create(&second, "S", LATE).await?;
        for node in [&first, &second] {
            takes(node, foreign_count as usize + 2, SOON).await?;
        }
        for daemon in [&mut near, &mut far] {
            holds_late(daemon, &second, EVENTS + 3, SOON).await?;
        }
        diary.note("what came later is everywhere");
        each_once(&[&first, &second]).await?;
        let view = first.view().await?;
        ensure!(view.records == 34, "{view:?}");
        first.stop().await?;
        second.stop().await
    })
}

/// A meshlogd with an RNode, and a node that is a client of an `rnsd` with another one, exchange 30 + 30 events
/// at spreading factor 8. Then a second bridge comes, with a third RNode, and no event is doubled.
pub(crate) fn over_lora(venv: Venv) -> Result<()> {
    play(async {
        // MOSAIK_RADIO_SPEED=1 measures; more is for continuous integration.
        let speed = env::var("MOSAIK_RADIO_SPEED").ok().and_then(|speed| speed.parse().ok());
        let speed: u32 = speed.unwrap_or(4);
        let air = Channel { radios: 3, loss_per_mille: 0, seed: 8, speed }.start()?;
        let directory = tempfile::Builder::new().prefix("mlab-").tempdir()?;
        let path = |name: &str| directory.path().join(name);
        let (mut node, _rnsd) = with_rnode(&venv, directory.path(), "base", &air, 0).await?;
        node.start().await?;
        create(&node, "N", EVENTS).await?;
        let diary = Diary::begin();
        // Its usual ten seconds, in time of the channel.
        let gossip = (10 / speed).max(1).to_string();
        let flags = ["--gossip-interval", &gossip];
        let mut daemon = Daemon::start(&venv, &path("far"), &air.interface(1, 8), &flags).await?;
        for number in 0..EVENTS {
            let payload = json!({"text": format!("{number}: {}", hex(&number.to_be_bytes()))});
            daemon.emit("note", &payload.to_string()).await?;
        }
        diary.note("both sides have their events");
        let limit = 10 * SOON / speed;
        takes(&node, EVENTS, limit).await?;
        diary.note("the node has them all");
        holds(&mut daemon, 2 + 2 * EVENTS as u64, limit).await?;
        diary.note("meshlogd has them all");
        wait::until("that to show", SOON, async || {
            let shown = meshlog(&node).await.map_err(|error| format!("{error:#}"))?;
            let is_sent = shown.sent == 2 + EVENTS as u64;
            let is_all = is_sent && shown.verified == EVENTS as u64 && shown.refused.is_empty();
            if is_all { Ok(()) } else { Err(format!("{shown:?}")) }
        })
        .await?;
        let own = node.client()?.bridge().await?.interfaces;
        let used_ms: u64 = own.iter().map(|interface| interface.airtime_used_ms).sum();
        diary.note(format!("reckoned by the node: {used_ms} ms"));
        let sent = air.sent();
        for radio in [0, 1] {
            let of_radio: Vec<_> =
                sent.iter().filter(|sent| sent.radio == radio).cloned().collect();
            for (kind, sum) in by_kind(&of_radio) {
                let (packets, bytes, ms) = (sum.packets, sum.bytes, sum.air_us / 1000);
                diary.note(format!("radio {radio} {kind}: {packets} packets, {bytes} B, {ms} ms"));
            }
        }
        // It goes on to say what it has; nobody answers.
        let said = |kind: Kind, radio: usize| {
            let sent = air.sent();
            sent.iter().filter(|it| it.radio == radio && Kind::of(&it.packet) == kind).count()
        };
        let ours = [Kind::LinkRequest, Kind::LinkData, Kind::ResourcePart, Kind::ResourceControl];
        let count = || ours.map(|kind| said(kind, 0));
        let hears = async |times: usize| {
            let before = said(Kind::LinkData, 1);
            wait::until("meshlogd to say what it has", limit, async || {
                let now = said(Kind::LinkData, 1) - before;
                if now >= times { Ok(()) } else { Err(format!("{now} times")) }
            })
            .await
        };
        // Parts that were asked for twice may still wait at the modem.
        let mut before = count();
        for round in 0.. {
            hears(4).await?;
            let now = count();
            if now == before {
                break;
            }
            ensure!(round < 4, "{now:?}, before {before:?}");
            before = now;
        }
        diary.note(format!("silence; {} proofs in all", said(Kind::Proof, 0)));

        let (mut second, _rnsd) = with_rnode(&venv, directory.path(), "second", &air, 2).await?;
        second.arguments.extend(["--peer".to_owned(), node.identity().await?.ticket]);
        second.start().await?;
        takes(&second, EVENTS, limit).await?;
        for number in 0..LATE {
            daemon.emit("note", &json!({"late": number}).to_string()).await?;
        }
        create(&second, "S", LATE).await?;
        for node in [&node, &second] {
            takes(node, EVENTS + LATE, limit).await?;
        }
        holds_late(&mut daemon, &second, EVENTS + LATE, limit).await?;
        each_once(&[&node, &second]).await?;
        diary.note("a second bridge, and nothing is doubled");
        second.stop().await?;
        node.stop().await
    })
}

/// A node that is a client of an `rnsd` of its own, and that with an RNode at SF8.
async fn with_rnode(
    venv: &Venv,
    directory: &Path,
    name: &str,
    air: &Air,
    radio: usize,
) -> Result<(Node, Process)> {
    let home = directory.join(format!("{name}-rnsd"));
    let rnsd = share(venv, &home, (air, radio), "Yes").await?;
    let config = home.to_str().context("a path of text")?;
    let radio = ["--rns", "rnsd", "--rns-config", config, "--rns-bitrate", "3125"];
    Ok((node(directory, name, &radio)?, rnsd))
}

/// Somebody who breaks every rule: it is counted, nothing of it is taken, and all goes on.
pub(crate) fn what_is_wrong_is_refused_and_shown(venv: Venv) -> Result<()> {
    play(async {
        let directory = tempfile::Builder::new().prefix("mlab-").tempdir()?;
        let port = free_port()?;
        let way = format!("tcp-listen://127.0.0.1:{port}");
        let mut node = node(directory.path(), "node", &["--rns", &way])?;
        node.start().await?;
        let home = directory.path().join("python");
        configure(&home, ALONE, &tcp_client(port))?;
        let mut python = Python::start(&venv, &home).await?;
        python.serve(Service::Meshlog, true).await?;
        let mut link = None;
        for _ in 0..10 {
            python.announce(Service::Meshlog, b"").await?;
            let within = Duration::from_secs(3);
            if let Ok(up) = python.expect_within(within, "identified", |_| true).await {
                link = up["link"].as_str().map(str::to_owned);
                break;
            }
        }
        let link = link.context("the node dials")?;
        let mut token = 0;
        let mut say = async |bytes: &[u8]| {
            token += 1;
            let kind = if bytes.len() > 400 { "resource" } else { "packet" };
            let order = json!({"do": kind, "link": link, "token": token, "bytes": hex(bytes)});
            python.order(order).await
        };
        let compose = |seq: u64, text: &str, prev| {
            let payload = Json::map([("text", Json::text(text))]);
            // The last stamp that there is: nobody's clock follows it.
            compose("evil", seq, Hlc::new(0xffff_ffff_ffff, 9), "note", &payload, prev)
        };
        let good = compose(1, "good", None);
        let other = compose(1, "other", None);
        let tail = compose(2, "tail", Some(other.id));
        let gap = compose(7, "gap", Some(good.id));
        let message =
            |events: &[&str]| format!("{{\"t\":\"events\",\"e\":[{}]}}", events.join(","));
        say(message(&[&good.wire]).as_bytes()).await?;
        takes(&node, 1, SOON).await?;
        for event in [&other, &tail, &gap, &good] {
            say(message(&[&event.wire]).as_bytes()).await?;
        }
        let forged = good.wire.replace("good", "evil");
        say(message(&[&forged, "17"]).as_bytes()).await?;
        let long = format!("{{\"text\":\"{}\"}}", "x".repeat(70_000));
        let long = good.wire.replace("{\"text\":\"good\"}", &long);
        say(message(&[&long]).as_bytes()).await?;
        for malformed in [&b"\xff\xfe"[..], b"[]", b"{\"t\":\"frontier\",\"f\":{\"a\":1.5}}"] {
            say(malformed).await?;
        }
        let wanted = [("fork", 2), ("malformed", 3), ("no_event", 2), ("too_long", 1)];
        let wanted: BTreeMap<_, _> = wanted.map(|(why, events)| (why.to_owned(), events)).into();
        let shown = wait::until("what was wrong to show", SOON, async || {
            let shown = meshlog(&node).await.map_err(|error| format!("{error:#}"))?;
            let refused = shown.refused.iter().map(|it| (it.why.clone(), it.events));
            let is_all = refused.collect::<BTreeMap<_, _>>() == wanted;
            if is_all && shown.known == 1 { Ok(shown) } else { Err(format!("{shown:?}")) }
        })
        .await?;
        ensure!((shown.unverified, shown.pending) == (1, 1), "{shown:?}");
        ensure!(foreign(&node).await?.len() == 1, "something else was taken");
        // What is written here is of now, and what came from the future waits.
        create(&node, "R", 1).await?;
        let view = node.view().await?;
        ensure!(view.records == 1 && view.held_back == 1, "{view:?}");
        let text = node.run(&["bridge"]).await?.ok()?;
        ensure!(text.contains("refused: 2 fork"), "{text}");
        node.stop().await
    })
}
