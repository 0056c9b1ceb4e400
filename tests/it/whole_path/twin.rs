//! A data directory that was copied: two nodes with one node key and one author key.

use std::{fs, io, path::Path};

use anyhow::{Context, ensure};
use mosaik_api::document::{Feeds, Status};
use mosaik_lab::Cluster;
use mosaik_tests::{Acknowledged, Diary, cluster, play};
use serde_json::json;

use super::{STEP, create, record, set};

/// Records that each of the two writes before and after they meet a third node.
const EACH: u32 = 5;

/// The record that both set, each without knowing of the other.
const BOTH: &str = "both";

/// A backup that is restored beside its original is a mistake that must cost nothing but a notice.
#[tokio::test]
async fn nodes_that_share_a_copied_directory_lose_nothing_and_are_told() {
    play(cluster(3).relay(false), async |cluster: &mut Cluster| {
        let diary = Diary::begin();
        let mut acknowledged = Acknowledged::default();
        let [original, copy, third] = &mut cluster.nodes[..] else { unreachable!("three nodes") };
        original.start().await?;
        for number in 0..EACH {
            let name = format!("before-{number}");
            acknowledged.keep(&create(original, &name, "number", json!(number)).await?);
        }
        acknowledged.keep(&create(original, BOTH, "of", json!("before")).await?);
        original.stop().await?;
        copy_directory(original.data_dir(), copy.data_dir()).context("the copy")?;

        // Neither knows of the other, and both write.
        original.start().await?;
        copy.start().await?;
        let identity = original.identity().await?;
        let same = copy.identity().await?;
        ensure!(identity.node == same.node && identity.author == same.author, "two identities");
        ensure!(identity.addresses != same.addresses, "two nodes on one port");
        for node in [&*original, &*copy] {
            for number in 0..EACH {
                let name = format!("apart-{}-{number}", node.name());
                acknowledged.keep(&create(node, &name, "number", json!(number)).await?);
            }
            acknowledged.keep(&set(node, BOTH, "of", json!(node.name())).await?);
        }
        let apart = [original.status().await?, copy.status().await?];
        ensure!(apart.iter().all(|status| status.branches == 1), "{apart:?}");

        diary.note("both wrote apart");

        // A third node stands between them.
        third.start().await?;
        for node in [&*original, &*copy] {
            node.wait_until("both branches", STEP, |status| status.branches > 1).await?;
            for number in 0..EACH {
                let name = format!("together-{}-{number}", node.name());
                acknowledged.keep(&create(node, &name, "number", json!(number)).await?);
            }
        }
        ensure!(
            acknowledged.len() as u32 == 2 * (EACH + 1) + 2 * (4 * EACH + 1),
            "what is written"
        );
        let agreed = cluster.agreement(STEP).await?;

        diary.note(format_args!("{} events on all three", agreed.events));
        let [original, copy, third] = &cluster.nodes[..] else { unreachable!("three nodes") };
        let author = identity.author;
        let branches = agreed.frontier[&author].len();
        ensure!(branches >= 2, "the feed shows {branches} branches");
        for node in &cluster.nodes {
            acknowledged.are_held_by(node).await?;
            for when in ["before", "apart-n1", "apart-n2", "together-n1", "together-n2"] {
                for number in 0..EACH {
                    let found = record(node, &format!("{when}-{number}")).await?;
                    ensure!(found.fields["number"] == json!(number), "{found:?}");
                }
            }
            let found = record(node, BOTH).await?;
            let [conflict] = &found.conflicts[..] else {
                anyhow::bail!("both set {BOTH}, and that is no conflict: {found:?}")
            };
            let mut values = vec![&conflict.shown.value];
            values.extend(conflict.others.iter().map(|other| &other.value));
            values.sort_by_key(|value| value.to_string());
            ensure!(values == [&json!("n1"), &json!("n2")], "the candidates are {values:?}");

            let Feeds { feeds, .. } = node.run(&["feeds", "--json"]).await?.json()?;
            let feed = feeds.iter().find(|feed| feed.author == author);
            let feed = feed.context("the feed that both write")?;
            ensure!(feed.branches as usize == branches && feed.tips.len() == branches, "{feed:?}");
            ensure!(feed.own == (node.name() != third.name()), "{feed:?}");
        }

        // Both are told once both have lasted beside each other for ten seconds.
        for node in [original, copy] {
            let is_told = |status: &Status| {
                status
                    .notices
                    .iter()
                    .any(|notice| notice.contains("another node uses this node key"))
            };
            node.wait_until("a notice of its twin", STEP, is_told).await?;
            diary.note(format_args!("{} knows of its twin", node.name()));
            let said = node.run(&["status"]).await?.ok()?;
            ensure!(said.contains("another node uses this node key"), "{said}");
        }
        ensure!(third.status().await?.notices.is_empty(), "the third has no twin");
        Ok(())
    })
    .await;
}

/// Copies what a backup would: all files.
fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
