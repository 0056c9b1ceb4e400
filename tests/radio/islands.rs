//! Whole nodes that have a radio: what is written where no network is reaches the others.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mosaik_api::document::{Attachment, BridgePeer, FileState};
use mosaik_lab::{
    Node,
    process::Process,
    radio::{Air, Cable, Channel, by_kind},
    wait,
};
use mosaik_tests::Diary;
use tempfile::TempDir;

use super::{play, shared::share, venv::Venv, whole};

/// How long something may take over a line of 9600 bit/s, or SF8 three times as fast as the air: ten
/// times of what it does.
const SOON: Duration = Duration::from_secs(60);
/// Bits a second of the line between the field and the base.
const BITRATE: u32 = 9600;
/// What rns reckons for the radios that they have elsewhere, and how many times as fast as the air that
/// channel is.
const FACTOR_BITRATE: u32 = 3125;
const SPEED: u32 = 3;
/// Bits a second of the line over which a photo goes, and its bytes: eleven seconds, and as much again where
/// all went twice.
const PHOTO_BITRATE: u32 = 28_800;
const SMALL_PHOTO_LEN: usize = 40_000;
/// Bytes of the photo that waits for IP: over the line they would take seven minutes, by radio twenty.
const PHOTO_LEN: usize = 500_000;

/// What is between the field and the base, for as long as it is held.
enum Between {
    Line { _cable: Cable },
    Radio { air: Air, _daemons: Vec<Process> },
}

/// A node in the field, a base that it reaches without IP, and somebody on the internet.
struct Island {
    field: Node,
    base: Node,
    away: Node,
    between: Between,
    directory: TempDir,
}

impl Island {
    /// With a serial line. None of them runs yet.
    fn on_a_line() -> Result<Self> {
        Self::on_a_line_of(BITRATE)
    }

    /// The same with another line.
    fn on_a_line_of(bitrate: u32) -> Result<Self> {
        let cable = Cable::start(Some(bitrate))?;
        let way = |end| {
            let way = format!("serial:{}@{bitrate}", cable.device(end).display());
            whole::radio(&way, None, bitrate, "100%")
        };
        let ways = [way(0), way(1)];
        Self::new(directory()?, ways, Between::Line { _cable: cable })
    }

    /// With RNodes, each behind an `rnsd` of its own. No node runs yet.
    async fn on_radio(venv: &Venv) -> Result<Self> {
        let directory = directory()?;
        let air = Channel { radios: 2, loss_per_mille: 0, seed: 3, speed: SPEED }.start()?;
        let config = |end: usize| directory.path().join(format!("rnsd{end}"));
        let mut daemons = Vec::new();
        for end in [0, 1] {
            daemons.push(share(venv, &config(end), (&air, end), "No").await?);
        }
        let way = |end| whole::radio("rnsd", Some(&config(end)), FACTOR_BITRATE, "100%");
        let ways = [way(0), way(1)];
        Self::new(directory, ways, Between::Radio { air, _daemons: daemons })
    }

    fn new(directory: TempDir, ways: [Vec<String>; 2], between: Between) -> Result<Self> {
        let node = |name: &str, way: &[String]| whole::node(directory.path(), name, way);
        let [of_field, of_base] = ways;
        let [field, base] = [node("field", &of_field)?, node("base", &of_base)?];
        Ok(Self { field, base, away: node("away", &[])?, between, directory })
    }
}

fn directory() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("mlab-").tempdir()?)
}

/// A node's arguments with the ticket of another.
async fn linked_to(node: &mut Node, other: &Node) -> Result<()> {
    let ticket = other.identity().await?.ticket;
    node.arguments.extend(["--peer".to_owned(), ticket]);
    Ok(())
}

/// The photo of a record as a node sees it, once it sees one.
async fn photo(node: &Node, state: FileState) -> Result<Attachment> {
    photo_that(node, &format!("{state:?}"), |photo| photo.state == state).await
}

async fn photo_that(
    node: &Node,
    what: &str,
    is: impl Fn(&Attachment) -> bool,
) -> Result<Attachment> {
    let is = &is;
    wait::until(&format!("the photo at {} to be {what}", node.name()), SOON, || async move {
        let client = node.client().map_err(|error| format!("{error:#}"))?;
        let record = client.record("R-1").await.map_err(|error| format!("{error:#}"))?;
        let photo =
            record.attachments.into_iter().find(|it| it.field == "photo").ok_or("no photo")?;
        if is(&photo) { Ok(photo) } else { Err(format!("{photo:?}")) }
    })
    .await
}

/// Over a serial line, without Python.
pub(crate) async fn a_record_leaves_the_island_and_its_photo_waits() -> Result<()> {
    a_photo_waits(Island::on_a_line()?).await
}

/// Over LoRa: two RNodes, two `rnsd`s, the nodes their clients.
pub(crate) fn a_record_leaves_by_radio_and_its_photo_waits(venv: Venv) -> Result<()> {
    play(async { a_photo_waits(Island::on_radio(&venv).await?).await })
}

/// A record made in the field is read on the internet within seconds. Its photo is listed there, and
/// comes when the field has an uplink; not a byte of it goes another way.
async fn a_photo_waits(mut island: Island) -> Result<()> {
    let diary = Diary::begin();
    island.base.start().await?;
    linked_to(&mut island.away, &island.base).await?;
    island.away.start().await?;
    island.field.start().await?;
    let field = &island.field;
    field.run(&["record", "create", "R-1", "--form", "visit", "state=open"]).await?.ok()?;
    let file = island.directory.path().join("roof.jpg");
    std::fs::write(&file, vec![7; PHOTO_LEN])?;
    let file = file.to_str().context("a path of text")?;
    field.run(&["attachment", "add", "R-1", "photo", file]).await?.ok()?;
    diary.note("a record and a photo in the field");
    for node in [&island.base, &island.away] {
        // First it asks the peer that it is connected to.
        let waits = |photo: &Attachment| {
            photo.waits_for.as_ref().is_some_and(|waits| waits.starts_with("IP: "))
        };
        let listed = photo_that(node, "waiting for IP", waits).await?;
        ensure!(listed.state == FileState::Pending, "{listed:?}");
        ensure!(listed.size == PHOTO_LEN as u64 && listed.here == 0, "{listed:?}");
    }
    diary.note("both are known on the internet");
    let away = &island.away;
    wait::until("the list to say so", SOON, || async move {
        let listed = away.run(&["attachment", "list"]).await.and_then(|it| it.ok());
        let words = listed.map_err(|error| format!("{error:#}"))?;
        if words.contains("pending, 500 kB, waits for IP") { Ok(()) } else { Err(words) }
    })
    .await?;
    let bridge = island.base.client()?.bridge().await?;
    ensure!(bridge.peers.iter().any(|peer| peer.linked), "{bridge:?}");
    let airtime_ms: u64 = bridge.interfaces.iter().map(|way| way.airtime_used_ms).sum();
    ensure!(airtime_ms > 0 && airtime_ms < 60_000, "{bridge:?}");
    // The uplink is there.
    island.field.stop().await?;
    linked_to(&mut island.field, &island.base).await?;
    island.field.start().await?;
    let here = photo(&island.away, FileState::Here).await?;
    ensure!(here.waits_for.is_none(), "{here:?}");
    let copy = island.directory.path().join("copy.jpg");
    let path = copy.to_str().context("a path of text")?;
    island.away.run(&["attachment", "get", "R-1", "photo", "-o", path]).await?.ok()?;
    ensure!(std::fs::read(&copy)? == [7; PHOTO_LEN], "another file");
    diary.note("the photo came by IP");
    if let Between::Radio { air, .. } = &island.between {
        let sent = air.sent();
        for (kind, sum) in by_kind(&sent) {
            let air_ms = sum.air_us / 1000;
            diary.note(format!("{kind}: {} packets, {} B, {air_ms} ms", sum.packets, sum.bytes));
        }
        let bytes: usize = sent.iter().map(|sent| sent.packet.len()).sum();
        ensure!(bytes < PHOTO_LEN / 20, "{bytes} bytes were on the air");
    }
    for node in [&mut island.field, &mut island.base, &mut island.away] {
        node.stop().await?;
    }
    Ok(())
}

/// Two nodes with nothing but a line write at both ends, one is away for a while, and both hold the
/// same in the end.
pub(crate) async fn two_on_a_line_hold_the_same() -> Result<()> {
    let mut island = Island::on_a_line()?;
    island.field.start().await?;
    island.base.start().await?;
    let write = async |node: &Node, record: &str| {
        node.run(&["record", "create", record, "--form", "visit", "state=open"]).await?.ok()
    };
    write(&island.field, "F-1").await?;
    write(&island.base, "B-1").await?;
    equal(&island.field, &island.base, 2).await?;
    knows(&island.field, &island.base).await?;
    knows(&island.base, &island.field).await?;
    island.base.kill().await?;
    write(&island.field, "F-2").await?;
    island.base.start().await?;
    equal(&island.field, &island.base, 3).await?;
    island.field.stop().await?;
    island.base.stop().await
}

/// Whether a node shows of its one peer on the air who that is, as both have signed.
async fn knows(one: &Node, other: &Node) -> Result<()> {
    let author = other.identity().await?.author;
    let identity = other.client()?.bridge().await?.identity.context("a radio")?;
    let peers = one.client()?.bridge().await?.peers;
    let is_it = |peer: &BridgePeer| {
        peer.identity == identity
            && peer.author.as_ref() == Some(&author)
            && peer.name.as_deref() == Some(other.name())
    };
    ensure!(peers.len() == 1 && is_it(&peers[0]), "{peers:?} for {author} at {identity}");
    Ok(())
}

/// Waits until both show so many records, and the same.
async fn equal(one: &Node, other: &Node, records: u64) -> Result<()> {
    wait::until(&format!("{records} equal records"), 2 * SOON, || async move {
        let view = async |node: &Node| node.view().await.map_err(|error| format!("{error:#}"));
        let (one, other) = (view(one).await?, view(other).await?);
        let is_equal = one.digest == other.digest && one.records == records;
        if is_equal { Ok(()) } else { Err(format!("{one:?} {other:?}")) }
    })
    .await
}

/// Nothing of a photo goes over radio until somebody asks for it there. Then it comes piece by piece, news
/// overtake it, and a base that is started anew goes on where it was.
pub(crate) async fn a_photo_that_is_asked_for_comes_over_radio() -> Result<()> {
    let diary = Diary::begin();
    let mut island = Island::on_a_line_of(PHOTO_BITRATE)?;
    island.field.start().await?;
    island.base.start().await?;
    let bytes: Vec<u8> =
        (0..SMALL_PHOTO_LEN as u32).flat_map(|at| (at * at).to_le_bytes()).collect();
    let bytes = &bytes[..SMALL_PHOTO_LEN];
    let add = async |name: &str, bytes: &[u8]| {
        let file = island.directory.path().join(name);
        std::fs::write(&file, bytes)?;
        let file = file.to_str().context("a path of text")?;
        let field = &island.field;
        field.run(&["attachment", "add", "R-1", name, file]).await?.ok()
    };
    let create = ["record", "create", "R-1", "--form", "visit", "state=open"];
    island.field.run(&create).await?.ok()?;
    add("photo", bytes).await?;
    let is_offered = |photo: &Attachment| {
        photo.waits_for.as_ref().is_some_and(|waits| waits.contains("--over-radio"))
    };
    let listed = photo_that(&island.base, "offered", is_offered).await?;
    ensure!(listed.state == FileState::Pending && listed.here == 0, "{listed:?}");
    add("film", &vec![1; 300_000]).await?;
    equal(&island.field, &island.base, 1).await?;
    let refused = island.base.run(&["attachment", "get", "R-1", "film", "--over-radio"]).await?;
    let words = &refused.stderr;
    ensure!(words.contains("at most 262144 bytes") && words.contains("2 minutes"), "{words}");
    let unasked_ms = used_ms(&island.field).await?;
    let photo_ms = SMALL_PHOTO_LEN as u64 * 8000 / u64::from(PHOTO_BITRATE);
    ensure!(unasked_ms < photo_ms / 3, "{unasked_ms} ms were on air before anybody asked");
    diary.note("both files are known, nothing of them went");

    let copy = island.directory.path().join("copy");
    let path = copy.to_str().context("a path of text")?;
    let get = ["attachment", "get", "R-1", "photo", "-o", path];
    let asked = island.base.run(&[&get[..], &["--over-radio", "--timeout", "0"]].concat()).await?;
    ensure!(asked.stderr.contains("not here yet"), "{}", asked.stderr);
    let comes = |photo: &Attachment| photo.over_radio && photo.here > 0;
    photo_that(&island.base, "coming", comes).await?;
    let create = ["record", "create", "R-2", "--form", "visit", "state=open"];
    island.field.run(&create).await?.ok()?;
    equal(&island.field, &island.base, 2).await?;
    let photo = photo_that(&island.base, "on its way", |_| true).await?;
    ensure!(
        photo.state != FileState::Here,
        "what was written later did not overtake it: {photo:?}"
    );
    let bridge = island.base.client()?.bridge().await?;
    ensure!(bridge.files.len() == 1 && bridge.files[0].blob == photo.blob, "{bridge:?}");
    ensure!(bridge.held_back.files == 1 && bridge.held_back.bytes == 300_000, "{bridge:?}");
    diary.note("news overtook it");

    // Two pieces of three.
    let has_begun = |photo: &Attachment| photo.here > 24_000;
    photo_that(&island.base, "begun", has_begun).await?;
    island.base.kill().await?;
    island.base.start().await?;
    diary.note("the base was started anew");
    let goes_on = |photo: &Attachment| photo.state == FileState::Here || photo.here > 16_384;
    let photo = photo_that(&island.base, "going on", goes_on).await?;
    ensure!(photo.state == FileState::Here || photo.over_radio, "{photo:?}");
    let photo = photo_that(&island.base, "whole", |photo| photo.state == FileState::Here).await?;
    ensure!(!photo.over_radio && photo.waits_for.is_none(), "{photo:?}");
    diary.note("all of it is here");
    island.base.run(&get).await?.ok()?;
    ensure!(std::fs::read(&copy)? == bytes, "another file");
    let all_ms = used_ms(&island.field).await?;
    ensure!(all_ms < 2 * photo_ms, "{all_ms} ms were on air, the photo alone takes {photo_ms}");
    diary.note(format!(
        "{all_ms} ms were on air, {unasked_ms} of them before; the photo alone: {photo_ms}"
    ));
    let bridge = island.base.client()?.bridge().await?;
    ensure!(bridge.files.is_empty(), "{bridge:?}");
    island.field.stop().await?;
    island.base.stop().await
}

/// A bridge that is asked for a file that it lacks fetches it by IP, though it would fetch none by itself.
pub(crate) async fn a_bridge_fetches_what_is_asked_for_over_radio() -> Result<()> {
    let mut island = Island::on_a_line_of(PHOTO_BITRATE)?;
    island.base.arguments.extend(["--attachments", "none"].map(str::to_owned));
    island.base.start().await?;
    linked_to(&mut island.away, &island.base).await?;
    island.away.start().await?;
    island.field.start().await?;
    let bytes: Vec<u8> = (0..2_500u32).flat_map(|at| (at * at).to_le_bytes()).collect();
    let file = island.directory.path().join("roof.jpg");
    std::fs::write(&file, &bytes)?;
    let file = file.to_str().context("a path of text")?;
    let create = ["record", "create", "R-1", "--form", "visit", "state=open"];
    island.away.run(&create).await?.ok()?;
    island.away.run(&["attachment", "add", "R-1", "photo", file]).await?.ok()?;
    photo(&island.base, FileState::LeftOut).await?;
    photo(&island.field, FileState::Pending).await?;
    let copy = island.directory.path().join("copy.jpg");
    let path = copy.to_str().context("a path of text")?;
    let get = ["attachment", "get", "R-1", "photo", "-o", path, "--over-radio", "--timeout", "50"];
    island.field.run(&get).await?.ok()?;
    ensure!(std::fs::read(&copy)? == bytes, "another file");
    photo(&island.base, FileState::Here).await?;
    for node in [&mut island.field, &mut island.base, &mut island.away] {
        node.stop().await?;
    }
    Ok(())
}

/// Milliseconds that a node was on air.
async fn used_ms(node: &Node) -> Result<u64> {
    let bridge = node.client()?.bridge().await?;
    Ok(bridge.interfaces.iter().map(|way| way.airtime_used_ms).sum())
}
