//! Files of records, between real processes: waited for, fetched, cut off, and whole in the end.
//!
//! The file that is cut off is small, so that the test is short. With one of 200 MB:
//! `MOSAIK_TEST_ATTACHMENT_MB=200 cargo test --workspace --test it -- attachments --nocapture`

use std::{env, fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use iroh::EndpointAddr;
use mosaik_api::document::{Attached, FileState, RecordAttachment};
use mosaik_lab::{Cluster, Node, wait};
use mosaik_tests::{Diary, cluster, play};

use crate::stranger::{STEP, closed, endpoint, place_of};

/// How long a file may take on a busy machine.
const FETCH: Duration = Duration::from_secs(120);
/// Megabytes of the file that is cut off ten times; more by the environment.
const CUT_MB: &str = "MOSAIK_TEST_ATTACHMENT_MB";
const CUT_MB_DEFAULT: u64 = 24;

/// A file of so many bytes, no two parts of it alike.
fn make(path: &Path, len: u64) -> Result<String> {
    let mut bytes = vec![0; usize::try_from(len)?];
    blake3::Hasher::new().update(b"an attachment").finalize_xof().fill(&mut bytes);
    fs::write(path, &bytes)?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}

async fn show(node: &Node, field: &str) -> Result<RecordAttachment> {
    node.run(&["attachment", "show", "R-1", field, "--json"]).await?.json()
}

/// The file of this field, once it stands so.
async fn until(
    node: &Node,
    field: &str,
    what: &str,
    holds: impl Fn(&RecordAttachment) -> bool,
) -> Result<RecordAttachment> {
    let what = format!("{field} at {} {what}", node.name());
    wait::until(&what, FETCH, async || match show(node, field).await {
        Ok(shown) if holds(&shown) => Ok(shown),
        Ok(shown) => Err(format!("{:?}", shown.attachment)),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
}

async fn is_here(node: &Node, field: &str) -> Result<RecordAttachment> {
    until(node, field, "to be here", |shown| shown.attachment.state == FileState::Here).await
}

/// A number that a node counts.
async fn metric(node: &Node, name: &str) -> Result<u64> {
    let text = node.client()?.metrics().await?;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("mosaik_{name} ")));
    Ok(line.with_context(|| format!("no {name} in {text}"))?.parse()?)
}

#[tokio::test]
async fn a_file_waits_for_who_has_it_and_then_is_equal_everywhere() {
    play(cluster(3).dht(0).relay(false), async |cluster: &mut Cluster| {
        let diary = Diary::begin();
        let directory = cluster.directory().to_owned();
        let file = directory.join("photo.jpg");
        let hash = make(&file, 20_000_000)?;
        let path = file.to_str().context("a path")?;
        let [n1, n2, n3] = &mut cluster.nodes[..] else { unreachable!("three nodes") };
        n1.arguments.extend(["--attachments-max".into(), "20000200".into()]);
        n1.start().await?;
        let of_n1 = n1.identity().await?.ticket;
        n3.arguments.extend(["--attachments".into(), "none".into()]);
        n3.arguments.extend(["--peer".into(), of_n1.clone()]);
        n3.start().await?;
        n1.run(&["record", "create", "R-1", "--form", "report"]).await?.ok()?;
        let added = n1.run(&["attachment", "add", "R-1", "photo", path, "--json"]).await?;
        let added: Attached = added.json()?;
        ensure!(added.blob == hash && added.size == 20_000_000, "{added:?}");
        let words = [b"words".as_slice(), &[b' '; 100]].concat();
        n1.run_with(
            &["attachment", "add", "R-1", "words", "-", "--mime", "text/plain"],
            &words,
            STEP,
        )
        .await?
        .ok()?;
        let more = n1.run(&["attachment", "add", "R-1", "photo", path, "--json"]).await?;
        let refused = more.exited(1)?;
        ensure!(refused.contains("there is room for 95 more bytes"), "{refused}");
        n1.run(&["attachment", "add", "R-2", "photo", path]).await?.exited(4)?;
        let network = fs::read_dir(n1.data_dir())?.next().context("the network's directory")??;
        let kept = network.path().join("blobs/data").join(format!("{hash}.data"));
        let mode = fs::metadata(&kept).context("the file on the shelf")?.permissions().mode();
        ensure!(mode & 0o077 == 0, "others may read the files: {mode:o}");
        diary.note("two files are attached");

        // n3 has the record, not the files: its settings leave them out.
        let left = until(n3, "words", "to be known", |_| true).await?.attachment;
        ensure!(left.state == FileState::LeftOut && left.here == 0, "{left:?}");
        is_here(n1, "photo").await?;
        n1.stop().await?;

        // n2 hears of them of n3, and waits for who has them.
        n2.arguments.extend(["--peer".into(), of_n1, "--peer".into(), n3.identity().await?.ticket]);
        n2.start().await?;
        let waiting = until(n2, "photo", "to wait for a holder", |shown| {
            let waits = shown.attachment.waits_for.as_deref().unwrap_or_default();
            shown.attachment.state == FileState::Pending
                && waits.contains("the connected one lacks it")
        });
        ensure!(waiting.await?.attachment.here == 0);
        let text = n2.run(&["record", "get", "R-1"]).await?.ok()?;
        ensure!(text.contains("pending, 20 MB, waits for a peer that has it"), "{text}");
        let pending = metric(n2, "attachments_pending_bytes").await?;
        ensure!(pending == 20_000_105, "{pending} bytes are pending");
        let early = n2.run(&["attachment", "get", "R-1", "photo", "--timeout", "0.2"]).await?;
        early.exited(5)?;
        n2.run(&["attachment", "get", "R-1", "other"]).await?.exited(4)?;
        diary.note("what is not here says what it waits for");

        n1.start().await?;
        is_here(n2, "photo").await?;
        let text = n2.run(&["record", "get", "R-1"]).await?.ok()?;
        ensure!(text.contains("here, 20 MB") && !text.contains("pending"), "{text}");
        let copy = directory.join("copy");
        let copy_path = copy.to_str().context("a path")?;
        n2.run(&["attachment", "get", "R-1", "photo", "-o", copy_path]).await?.ok()?;
        ensure!(fs::read(&copy)? == fs::read(&file)?, "the copy is another file");
        ensure!(n2.run(&["attachment", "get", "R-1", "words"]).await?.ok()?.as_bytes() == words);
        diary.note("it came when its holder did");

        // Whoever leaves files out gets one by asking, and gives it back.
        n3.run(&["attachment", "get", &hash, "-o", copy_path]).await?.ok()?;
        ensure!(fs::read(&copy)? == fs::read(&file)?, "the copy is another file");
        is_here(n3, "photo").await?;
        n3.run(&["attachment", "drop", "R-1", "photo"]).await?.ok()?;
        let dropped = show(n3, "photo").await?.attachment;
        ensure!(dropped.state == FileState::LeftOut && dropped.here == 0, "{dropped:?}");
        ensure!(metric(n3, "attachments_held_bytes").await? == 0);
        n3.run(&["attachment", "pin", "R-1", "words"]).await?.ok()?;
        ensure!(is_here(n3, "words").await?.attachment.pinned);
        n3.stop().await?;
        n3.start().await?;
        ensure!(is_here(n3, "words").await?.attachment.pinned, "the pin is forgotten");
        diary.note("drop and pin hold");

        // Who is no member gets nothing.
        let mut place: EndpointAddr = place_of(n1).await?;
        place.addrs.retain(|address| !address.is_relay());
        let stranger = endpoint(b"/iroh-bytes/4").await?;
        let connection = stranger.connect(place, b"/iroh-bytes/4").await?;
        let (_, reason) = closed(&connection).await?;
        ensure!(reason == "files need an open session", "{reason}");
        cluster.agreement(STEP).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_file_whose_receiver_is_killed_ten_times_arrives_whole_and_is_not_sent_twice() {
    let megabytes = env::var(CUT_MB).ok().and_then(|text| text.parse().ok());
    let len = megabytes.unwrap_or(CUT_MB_DEFAULT) * 1_000_000;
    play(cluster(2).dht(0).relay(false), async |cluster: &mut Cluster| {
        let diary = Diary::begin();
        let directory = cluster.directory().to_owned();
        let file = directory.join("film");
        let hash = make(&file, len)?;
        let path = file.to_str().context("a path")?;
        let [n1, n2] = &mut cluster.nodes[..] else { unreachable!("two nodes") };
        n1.start().await?;
        n1.run(&["record", "create", "R-1", "--form", "report"]).await?.ok()?;
        let added: Attached =
            n1.run(&["attachment", "add", "R-1", "film", path, "--json"]).await?.json()?;
        ensure!(added.blob == hash);
        n2.arguments.extend(["--peer".into(), n1.identity().await?.ticket]);
        n2.arguments.extend(["--attachments".into(), "all".into()]);
        // So slow that there is time to kill it: all of it takes half a minute at most.
        let rate = (len / 10).to_string();
        n2.arguments.extend(["--rate-down".into(), rate]);
        for cut in 1..=10 {
            n2.start().await?;
            let enough = len * cut / 12;
            let shown =
                until(n2, "film", "to be here in part", |shown| shown.attachment.here >= enough);
            let shown = shown.await?.attachment;
            ensure!(shown.state == FileState::Fetching, "{shown:?}");
            n2.kill().await?;
            diary.note(format_args!("killed at {} of {len}", shown.here));
        }
        n2.start().await?;
        is_here(n2, "film").await?;
        let copy = directory.join("copy");
        n2.run(&["attachment", "get", "R-1", "film", "-o", copy.to_str().context("a path")?])
            .await?
            .ok()?;
        ensure!(blake3::hash(&fs::read(&copy)?).to_hex().to_string() == hash);
        let served = metric(n1, "blob_bytes_served_total").await?;
        diary.note(format_args!("{served} bytes were served for {len}"));
        ensure!((len..=2 * len).contains(&served), "{served} bytes were served for {len}");
        Ok(())
    })
    .await;
}
