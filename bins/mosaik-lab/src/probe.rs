//! `mosaik-lab probe`: a probe in a cluster of which nodes have just died and come back, held against
//! what the nodes themselves have logged.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use mosaik_api::document;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde::Serialize;

use crate::{Cluster, Node, cli::Probe, cluster::Builder, print};

/// How long any one step may take: ten times what a busy machine needs.
const STEP: Duration = Duration::from_secs(60);

/// Of so many nodes one is killed.
const KILLED_ONE_OF: usize = 4;

/// What a node logs when a probe comes.
const LOGGED: &str = "a probe came";

/// What a probe told, and what the nodes' logs say of it. Nodes are named as the lab names them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Observed {
    /// The version of this document.
    pub schema: u32,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Where chance began.
    pub seed: u64,
    /// Which node probed.
    pub origin: String,
    /// Nodes that were killed before.
    pub killed: Vec<String>,
    /// Those of them that were started again.
    pub restarted: Vec<String>,
    /// Nodes that logged the probe and ran until the end.
    pub received: Vec<String>,
    /// Nodes that ran and logged nothing: the probe didn't reach them.
    pub unreached: Vec<String>,
    /// Of those that received it, the ones that the report lacks.
    pub missing: Vec<String>,
    /// What is in the report and was logged by nobody: names, or ids of no node here.
    pub made_up: Vec<String>,
    /// What the node that probed reported.
    pub probe: document::Probe,
}

impl Observed {
    /// Whether the report names exactly those who got the probe.
    ///
    /// # Errors
    ///
    /// Whom it lacks or makes up; or that nobody got it, so that nothing was held against anything.
    pub fn holds(&self) -> Result<()> {
        ensure!(!self.received.is_empty(), "nobody got the probe, so this says nothing");
        ensure!(
            self.missing.is_empty() && self.made_up.is_empty(),
            "the report is not what the nodes logged: it lacks {:?}, and makes up {:?}",
            self.missing,
            self.made_up
        );
        Ok(())
    }
}

/// A cluster whose nodes log what [`observe`] reads.
#[must_use]
pub fn logging(builder: Builder) -> Builder {
    builder.argument("--log-level").argument("debug")
}

/// Starts a cluster made by [`logging`], kills some nodes and starts half of them again, as `seed` will
/// have it, probes from one at once, and reads the logs.
///
/// # Errors
///
/// If a node doesn't do what it is told, or finds no other; not for what the probe told.
pub async fn observe(cluster: &mut Cluster, seed: u64) -> Result<Observed> {
    let mut rng = StdRng::seed_from_u64(seed);
    cluster.start().await?;
    ensure!(cluster.nodes.len() > 1, "one node alone has nobody to probe");
    let mut ids = BTreeMap::new();
    for node in &cluster.nodes {
        meets(node).await?;
        ids.insert(node.identity().await?.node, node.name().to_owned());
    }
    let mut order: Vec<usize> = (0..cluster.nodes.len()).collect();
    order.shuffle(&mut rng);
    let Some((&origin, others)) = order.split_first() else { bail!("there are no nodes") };
    // At least one other is left.
    let count = cluster.nodes.len().div_ceil(KILLED_ONE_OF).min(others.len() - 1);
    let (killed, _) = others.split_at(count);
    let (restarted, _) = killed.split_at(count - rng.random_range(0..=count / 2));
    for at in killed {
        cluster.nodes[*at].kill().await?;
    }
    for at in restarted {
        cluster.nodes[*at].start().await?;
        meets(&cluster.nodes[*at]).await?;
    }
    let answered = cluster.nodes[origin].run(&["probe", "--json"]).await?;
    let probe: document::Probe = answered.json()?;
    let names = |numbers: &[usize]| {
        let mut names: Vec<_> =
            numbers.iter().map(|at| cluster.nodes[*at].name().to_owned()).collect();
        names.sort_unstable();
        names
    };
    let (origin_name, killed, restarted) =
        (cluster.nodes[origin].name().to_owned(), names(killed), names(restarted));

    let (mut logged, mut running) = (BTreeSet::new(), BTreeSet::new());
    for node in &mut cluster.nodes {
        let name = node.name().to_owned();
        if has_logged(node, &probe.id)? {
            logged.insert(name.clone());
        }
        if node.is_running() && name != origin_name {
            running.insert(name);
        }
    }
    let reported = probe.answers.iter().map(|answer| ids.get(&answer.id).unwrap_or(&answer.id));
    let reported: BTreeSet<String> = reported.cloned().collect();
    let received: BTreeSet<String> = logged.intersection(&running).cloned().collect();
    Ok(Observed {
        schema: 1,
        nodes: cluster.nodes.len(),
        seed,
        origin: origin_name,
        killed,
        restarted,
        unreached: running.difference(&logged).cloned().collect(),
        missing: received.difference(&reported).cloned().collect(),
        made_up: reported.difference(&logged).cloned().collect(),
        received: received.into_iter().collect(),
        probe,
    })
}

async fn meets(node: &Node) -> Result<()> {
    node.wait_until("a peer", STEP, |status| status.peers > 0).await.map(|_| ())
}

/// Whether a node's log has a line of its having received the probe of this name.
fn has_logged(node: &Node, probe: &str) -> Result<bool> {
    let log = fs::read(node.log()).with_context(|| format!("the log of {}", node.name()))?;
    let field = format!("probe={probe} ");
    Ok(String::from_utf8_lossy(&log).lines().any(|line| names(line, &field)))
}

fn names(line: &str, field: &str) -> bool {
    line.split_once(LOGGED).is_some_and(|(_, fields)| fields.contains(field))
}

/// Does what the command line says.
pub(crate) async fn probe(asked: Probe) -> Result<()> {
    tokio::select! {
        told = tell(asked) => told,
        _ = tokio::signal::ctrl_c() => bail!("interrupted; all processes are stopped"),
    }
}

async fn tell(asked: Probe) -> Result<()> {
    let builder = logging(Cluster::builder().nodes(asked.nodes as usize).sync_every(3, 1));
    let mut cluster = builder.build().await?;
    let observed = observe(&mut cluster, asked.seed).await?;
    if asked.json {
        print::line(serde_json::to_string(&observed)?);
    } else {
        show(&observed);
    }
    let held = observed.holds();
    cluster.stop().await?;
    held
}

fn show(observed: &Observed) {
    let list = |names: &[String]| match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    };
    print::line(format_args!("seed {}: {} nodes", observed.seed, observed.nodes));
    for (what, names) in [
        ("killed", &observed.killed),
        ("of those started again", &observed.restarted),
        ("logged the probe, and ran until the end", &observed.received),
        ("ran, and were not reached", &observed.unreached),
        ("logged it and are not in the report", &observed.missing),
        ("are in the report and logged nothing", &observed.made_up),
    ] {
        print::line(format_args!("{what}: {}", list(names)));
    }
    let probe = &observed.probe;
    print::line(format_args!(
        "{} probed: {} of {} known nodes answered within {:.1} s",
        observed.origin,
        probe.answered,
        probe.known,
        probe.elapsed_ms / 1e3
    ));
    if let Some(of) = probe.propagation_ms {
        print::line(format_args!(
            "half the round trip: p50 {:.1} ms, p75 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms",
            of.p50, of.p75, of.p90, of.p99
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_names_its_probe_and_no_other() {
        let line = "2026-11-21T23:00:00Z DEBUG mosaik_node::owner::probing: a probe came \
                    probe=00ff from=\"3f2a9c\" hops=1";
        assert!(names(line, "probe=00ff "));
        assert!(!names(line, "probe=00f "), "another probe");
        assert!(!names("INFO a probe was sent probe=00ff ", "probe=00ff "), "it sent it");
    }

    #[test]
    fn a_report_that_lacks_a_node_or_makes_one_up_does_not_hold() {
        let probe = document::Probe {
            schema: 1,
            id: String::new(),
            node: String::new(),
            sent_ms: 0,
            elapsed_ms: 0.0,
            known: 0,
            answered: 0,
            propagation_ms: None,
            answers: Vec::new(),
            silent: Vec::new(),
        };
        let good = Observed {
            schema: 1,
            nodes: 3,
            seed: 1,
            origin: "n1".into(),
            killed: Vec::new(),
            restarted: Vec::new(),
            received: vec!["n2".into()],
            unreached: vec!["n3".into()],
            missing: Vec::new(),
            made_up: Vec::new(),
            probe,
        };
        assert!(good.holds().is_ok());
        assert!(Observed { received: Vec::new(), ..good.clone() }.holds().is_err());
        assert!(Observed { missing: vec!["n2".into()], ..good.clone() }.holds().is_err());
        assert!(Observed { made_up: vec!["n3".into()], ..good }.holds().is_err());
    }
}
