//! Whole nodes that have a radio: what is written where no network is reaches the others.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mosaik_api::document::{Attachment, FileState};
use mosaik_lab::{Node, binary::node_binary, process::Group, radio::Cable, wait};
use tempfile::TempDir;

/// How long something may take over a line of 9600 bit/s: ten times of what it does.
const SOON: Duration = Duration::from_secs(60);
/// Bits a second of the line between the field and the base.
const BITRATE: u32 = 9600;
/// Bytes of the photo: over the line they would take seven minutes.
const PHOTO_LEN: usize = 500_000;

/// A node in the field, a base with a line to it, and somebody on the internet.
struct Island {
    field: Node,
    base: Node,
    away: Node,
    _cable: Cable,
    directory: TempDir,
}

impl Island {
    /// None of them runs yet.
    fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("mlab-").tempdir()?;
        let cable = Cable::start(Some(BITRATE))?;
        let node = |name: &str, end: Option<usize>| -> Result<Node> {
            let mut node = Node::new(directory.path(), name, node_binary()?, Group::Shared)?;
            let quiet = ["--network", "island", "--name", name, "--listen", "127.0.0.1:0", "--lab"];
            let alone = ["--no-dht", "--no-relay", "--no-mdns"];
            node.arguments = quiet.into_iter().chain(alone).map(str::to_owned).collect();
            if let Some(end) = end {
                let way = format!("serial:{}@{BITRATE}", cable.device(end).display());
                let bitrate = BITRATE.to_string();
                let radio = ["--rns", &way, "--rns-bitrate", &bitrate, "--rns-airtime", "100%"];
                node.arguments.extend(radio.map(str::to_owned));
            }
            Ok(node)
        };
        let [field, base] = [node("field", Some(0))?, node("base", Some(1))?];
        Ok(Self { field, base, away: node("away", None)?, _cable: cable, directory })
    }
}

/// A node's arguments with the ticket of another.
async fn linked_to(node: &mut Node, other: &Node) -> Result<()> {
    let ticket = other.identity().await?.ticket;
    node.arguments.extend(["--peer".to_owned(), ticket]);
    Ok(())
}

/// The photo of a record as a node sees it, once it sees one.
async fn photo(node: &Node, state: FileState) -> Result<Attachment> {
    wait::until(&format!("{} to have the photo {state:?}", node.name()), SOON, || async move {
        let client = node.client().map_err(|error| format!("{error:#}"))?;
        let record = client.record("R-1").await.map_err(|error| format!("{error:#}"))?;
        let photo = record.attachments.into_iter().next().ok_or("no attachment")?;
        if photo.state == state { Ok(photo) } else { Err(format!("{photo:?}")) }
    })
    .await
}

/// A record made in the field is read on the internet within seconds. Its photo is listed there, and
/// comes when the field has an uplink; not a byte of it goes over the line.
pub(crate) async fn a_record_leaves_the_island_and_its_photo_waits() -> Result<()> {
    let mut island = Island::new()?;
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
    let listed = photo(&island.away, FileState::Pending).await?;
    ensure!(listed.size == PHOTO_LEN as u64 && listed.here == 0, "{listed:?}");
    ensure!(listed.waits_for.is_some(), "{listed:?}");
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
    for node in [&mut island.field, &mut island.base, &mut island.away] {
        node.stop().await?;
    }
    Ok(())
}

/// Two nodes with nothing but a line write at both ends, one is away for a while, and both hold the
/// same in the end.
pub(crate) async fn two_on_a_line_hold_the_same() -> Result<()> {
    let mut island = Island::new()?;
    island.field.start().await?;
    island.base.start().await?;
    let write = async |node: &Node, record: &str| {
        node.run(&["record", "create", record, "--form", "visit", "state=open"]).await?.ok()
    };
    write(&island.field, "F-1").await?;
    write(&island.base, "B-1").await?;
    equal(&island.field, &island.base, 2).await?;
    island.base.kill().await?;
    write(&island.field, "F-2").await?;
    island.base.start().await?;
    equal(&island.field, &island.base, 3).await?;
    island.field.stop().await?;
    island.base.stop().await
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
