//! Whole nodes with a radio, as a person starts them.

use std::path::Path;

use anyhow::Result;
use mosaik_lab::{Node, binary::node_binary, process::Group};

/// The network of these nodes.
pub(crate) const NETWORK: &str = "island";

/// A node that finds others by radio alone, or by tickets; `radio` says how it is to have one. It doesn't
/// run yet.
pub(crate) fn node(directory: &Path, name: &str, radio: &[String]) -> Result<Node> {
    let mut node = Node::new(directory, name, node_binary()?, Group::Shared)?;
    let quiet = ["--network", NETWORK, "--name", name, "--listen", "127.0.0.1:0", "--lab"];
    let alone = ["--no-dht", "--no-relay", "--no-mdns"];
    node.arguments = quiet.into_iter().chain(alone).map(str::to_owned).collect();
    node.arguments.extend_from_slice(radio);
    Ok(node)
}

/// What such a node is told of its radio: the way, what the air carries, and the share of it.
pub(crate) fn radio(way: &str, config: Option<&Path>, bitrate: u32, share: &str) -> Vec<String> {
    let bitrate = bitrate.to_string();
    let mut all = ["--rns", way, "--rns-bitrate", &bitrate, "--rns-airtime", share].to_vec();
    let config = config.map(|config| config.display().to_string());
    all.extend(config.iter().flat_map(|config| ["--rns-config", config]));
    all.into_iter().map(str::to_owned).collect()
}
