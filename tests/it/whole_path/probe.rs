//! A probe among real processes: who got it by its own log is in the report, and none else.

use std::fs;

use anyhow::ensure;
use mosaik_api::document::ProbeAnswer;
use mosaik_lab::{
    Cluster,
    probe::{logging, observe},
};
use mosaik_tests::{cluster, play};

use super::ticket;

/// Two of five are killed right before, and one or both of them come back.
#[tokio::test]
async fn a_probe_names_exactly_the_nodes_that_logged_it() {
    play(logging(cluster(5)), async |cluster: &mut Cluster| {
        let observed = observe(cluster, 7).await?;
        observed.holds()?;
        ensure!(observed.killed.len() == 2 && !observed.restarted.is_empty(), "{observed:?}");
        ensure!(observed.unreached.is_empty(), "{observed:?}");
        let probe = &observed.probe;
        ensure!(probe.answered as usize == observed.received.len(), "{observed:?}");
        let is_sound = |answer: &ProbeAnswer| {
            answer.rtt_ms > 0.0 && (1..5).contains(&answer.hops) && answer.path.is_some()
        };
        ensure!(probe.answers.iter().all(is_sound), "{observed:?}");
        Ok(())
    })
    .await;
}

/// The files that it writes, and the sentence for who asks twice.
#[tokio::test]
async fn a_node_probes_once_a_minute_and_draws_what_it_saw() {
    play(cluster(2).dht(0).relay(false), async |cluster: &mut Cluster| {
        let directory = cluster.directory().to_owned();
        let [n1, n2] = &mut cluster.nodes[..] else { unreachable!("two nodes") };
        n1.start().await?;
        let alone = n1.run(&["probe"]).await?;
        ensure!(alone.code == Some(1) && alone.stderr.contains("no connected peer"), "{alone:?}");
        n2.arguments.extend(["--peer".into(), ticket(n1).await?]);
        n2.start().await?;
        n1.wait_until("a peer", super::STEP, |status| status.peers == 1).await?;
        let before = n1.frontier().await?;
        let (csv, svg) = (directory.join("p.csv"), directory.join("p.svg"));
        let nowhere = directory.join("no/p.csv").display().to_string();
        let refused = n1.run(&["probe", "--csv", &nowhere]).await?;
        ensure!(refused.code == Some(2), "and the minute is not spent: {refused:?}");
        let [csv_name, svg_name] = [&csv, &svg].map(|path| path.display().to_string());
        let told = n1.run(&["probe", "--csv", &csv_name, "--plot", &svg_name]).await?.ok()?;
        ensure!(told.starts_with("1 of 1 known node"), "{told}");
        ensure!(told.contains("p99") && told.contains("n2 ("), "{told}");
        let (csv, svg) = (fs::read_to_string(&csv)?, fs::read_to_string(&svg)?);
        ensure!(csv.lines().count() == 2 && csv.contains(",n2,1,lan,"), "{csv}");
        ensure!(svg.contains("1 of 1 known nodes reached"), "{svg}");
        let again = n1.run(&["probe", "--json"]).await?;
        ensure!(again.code == Some(1) && again.stderr.contains("try again in"), "{again:?}");
        ensure!(n1.frontier().await? == before, "a probe is no event");
        Ok(())
    })
    .await;
}
