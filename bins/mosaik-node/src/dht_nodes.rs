//! Nodes of the DHT that answered, kept from one run to the next.
//!
//! Invariant: they are of use to the same DHT only, so they stand beside the way in by which they were
//! found: a closed site's node never asks those of the internet because it once was there.

use std::net::SocketAddrV4;

use tracing::debug;

use crate::directory::Directory;

/// Bytes of the file that are read: three times as many as it has at the most.
pub(crate) const FILE_LEN_MAX: u64 = 8 << 10;

/// The file in a network's directory, and the way into the DHT that it belongs to.
#[derive(Debug)]
pub(crate) struct DhtNodes {
    directory: Directory,
    /// `dht_bootstrap`, in one line.
    entrance: String,
}

impl DhtNodes {
    pub(crate) fn new(directory: Directory, bootstrap: &[String]) -> Self {
        let entrance = match bootstrap {
            [] => "public".to_owned(),
            bootstrap => bootstrap.join(","),
        };
        Self { directory, entrance }
    }

    /// Those of an earlier run; none, if the file is not there or is another's.
    pub(crate) fn read(&self) -> Vec<SocketAddrV4> {
        parse(&self.directory.dht_nodes(), &self.entrance)
    }

    /// Keeps them for the next start. That it can't be written is no reason to stop.
    pub(crate) fn keep(&self, nodes: &[SocketAddrV4]) {
        if nodes.is_empty() {
            return;
        }
        if let Err(error) = self.directory.keep_dht_nodes(&text(nodes, &self.entrance)) {
            debug!(%error, "the nodes of the DHT are not kept");
        }
    }
}

fn text(nodes: &[SocketAddrV4], entrance: &str) -> String {
    nodes.iter().fold(format!("{entrance}\n"), |text, node| format!("{text}{node}\n"))
}

fn parse(text: &str, entrance: &str) -> Vec<SocketAddrV4> {
    let mut lines = text.lines();
    if lines.next() != Some(entrance) {
        return Vec::new();
    }
    lines.filter_map(|line| line.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_read_back_by_who_enters_the_same_dht_alone() {
        let nodes: Vec<SocketAddrV4> =
            ["192.0.2.1:6881", "192.0.2.2:1"].map(|node| node.parse().expect("a node")).to_vec();
        let kept = text(&nodes, "a.example:6881");
        assert_eq!(parse(&kept, "a.example:6881"), nodes);
        assert_eq!(parse(&kept, "public"), []);
        assert_eq!(parse("public\nnot one\n192.0.2.1:6881", "public"), nodes[..1]);
        assert_eq!(parse("", "public"), []);
    }
}
