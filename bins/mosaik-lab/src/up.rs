//! `mosaik-lab up N`: a cluster to play with, until Ctrl-C.

use std::{
    process,
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    Cluster,
    cli::Up,
    node::Node,
    print,
    process::Group,
    running::{self, Lab},
};

/// How often it is looked whether all nodes still run.
const POLL: Duration = Duration::from_millis(500);

pub(crate) async fn up(asked: Up) -> Result<()> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut stopped = async || {
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
        }
    };
    let mut cluster = tokio::select! {
        started = start(asked) => started?,
        () = stopped() => return Ok(()),
    };
    let lab = Lab {
        pid: process::id(),
        directory: cluster.directory().to_owned(),
        logs: cluster.nodes.iter().map(|node| node.log().to_owned()).collect(),
    };
    let _announcement = lab.announce(&running::place()?)?;
    describe(&cluster);
    tokio::select! {
        () = watch(&mut cluster.nodes) => (),
        () = stopped() => (),
    }
    print::line("stopping: each node leaves its network; Ctrl-C again kills");
    let begun = Instant::now();
    tokio::select! {
        ended = cluster.stop() => {
            ended?;
            print::line(format_args!("all stopped after {:.1} s", begun.elapsed().as_secs_f32()));
        }
        () = stopped() => print::line("killed"),
    }
    Ok(())
}

async fn start(asked: Up) -> Result<Cluster> {
    let begun = Instant::now();
    let mut builder = Cluster::builder()
        .nodes(asked.nodes as usize)
        .relay(!asked.no_relay)
        // This process tells the nodes when to stop, and in which order.
        .group(Group::Own);
    if let Some(id) = asked.network {
        builder = builder.network(id);
    }
    if let Some(directory) = asked.dir {
        builder = builder.directory(directory);
    }
    for (name, value) in asked.env {
        builder = builder.env(name, value);
    }
    let mut cluster = builder.build().await?;
    cluster.start().await?;
    let took = begun.elapsed().as_secs_f32();
    print::line(format_args!("{} nodes are up after {took:.1} s", cluster.nodes.len()));
    Ok(cluster)
}

fn describe(cluster: &Cluster) {
    print::line(format_args!("network    {}", cluster.network()));
    if let Some(dht) = cluster.dht() {
        print::line(format_args!("DHT        {} nodes, {}", dht.nodes(), dht.bootstrap()[0]));
    }
    print::line(format_args!("relay      {}", cluster.relay().map_or("none", |relay| relay.url())));
    let fate = if cluster.is_temporary() { " (removed at the end; --dir keeps one)" } else { "" };
    print::line(format_args!("directory  {}{fate}", cluster.directory().display()));
    for node in &cluster.nodes {
        let socket = node.socket().map_or_else(|e| format!("{e:#}"), |s| s.display().to_string());
        print::line(format_args!(
            "{:<10} log {}  socket {socket}",
            node.name(),
            node.log().display()
        ));
    }
    let directory = cluster.directory().display();
    print::line("");
    print::line(format_args!("look at one:   mosaik-node --data-dir {directory}/n1 status"));
    print::line("follow one:    mosaik-lab logs 1 --follow");
    let arguments = cluster.join_arguments();
    let arguments = arguments.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    print::line(format_args!("add another:   mosaik-node --data-dir DIR {arguments}"));
    print::line("Ctrl-C stops all");
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/:=@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Says which nodes end by themselves; returns when none is left.
async fn watch(nodes: &mut [Node]) {
    let mut running = vec![true; nodes.len()];
    while running.contains(&true) {
        tokio::time::sleep(POLL).await;
        for (node, runs) in nodes.iter_mut().zip(&mut running) {
            if *runs && !node.is_running() {
                *runs = false;
                let log = node.log().display();
                print::line(format_args!("{} ended by itself; its log is {log}", node.name()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_name_with_spaces_can_be_pasted_into_a_shell() {
        assert_eq!(quoted("http://127.0.0.1:3/"), "http://127.0.0.1:3/");
        assert_eq!(quoted("Anna's net"), r"'Anna'\''s net'");
        assert_eq!(quoted(""), "''");
    }
}
