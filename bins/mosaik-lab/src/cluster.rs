//! A directory, a DHT, a relay, and nodes that are told one network id.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use std::time::Duration;
//! let mut cluster = mosaik_lab::Cluster::builder().nodes(3).sync_every(2, 1).build().await?;
//! cluster.start().await?;
//! cluster.nodes[0].run(&["record", "create", "depot-7", "--form", "depot"]).await?.ok()?;
//! let agreement = cluster.agreement(Duration::from_secs(30)).await?;
//! println!("{} events everywhere", agreement.events);
//! # Ok(())
//! # }
//! ```

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use mosaik_api::document::Tip;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::{
    binary::node_binary,
    dht::{self, LocalDht},
    lock::Lock,
    node::{self, Node},
    process::Group,
    relay::LocalRelay,
    wait,
};

/// How many nodes of the DHT each node is told of. One is enough; three survive its loss.
const BOOTSTRAP_NODES: usize = 3;

/// How long a cluster waits for others to end: a whole test suite on a slow machine.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20 * 60);

/// Set in the environment, it keeps the directories of all clusters.
const KEEP: &str = "MOSAIK_LAB_KEEP";

/// Nodes of one network on this machine.
///
/// Dropped, it kills its processes, and removes its directory if that was a temporary one; not so
/// while a test panics or where `MOSAIK_LAB_KEEP` is set, so that the logs can be read.
#[derive(Debug)]
pub struct Cluster {
    // In the order in which they have to go.
    /// Its nodes, `n1` first. They run once started.
    pub nodes: Vec<Node>,
    relay: Option<LocalRelay>,
    dht: Option<LocalDht>,
    directory: Directory,
    network: String,
    settings: Builder,
    binary: PathBuf,
    _lock: Option<Lock>,
}

/// How a cluster is to be.
#[derive(Debug, Clone)]
pub struct Builder {
    network: Option<String>,
    nodes: usize,
    dht_nodes: usize,
    dht_bootstrap: Vec<String>,
    relay: bool,
    relays: Vec<String>,
    exclusive: bool,
    group: Group,
    directory: Option<PathBuf>,
    arguments: Vec<String>,
    env: Vec<(String, String)>,
}

#[derive(Debug)]
enum Directory {
    Kept(PathBuf),
    Temporary(TempDir),
}

impl Directory {
    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(directory) => directory.path(),
        }
    }
}

/// What nodes that hold the same say, all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// Events held.
    pub events: u64,
    /// Per author the tips.
    pub frontier: BTreeMap<String, Vec<Tip>>,
    /// The view's digest.
    pub view_digest: String,
}

impl Cluster {
    /// No nodes, a DHT of 20 and a relay, in a temporary directory, until told otherwise.
    pub fn builder() -> Builder {
        Builder {
            network: None,
            nodes: 0,
            dht_nodes: dht::NODES,
            dht_bootstrap: Vec::new(),
            relay: true,
            relays: Vec::new(),
            exclusive: false,
            group: Group::Shared,
            directory: None,
            arguments: Vec::new(),
            env: Vec::new(),
        }
    }

    /// The network id that all nodes are told.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// Where logs and data directories are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Whether that is removed at the end.
    pub fn is_temporary(&self) -> bool {
        matches!(self.directory, Directory::Temporary(_))
    }

    /// The DHT, if it has one.
    pub fn dht(&self) -> Option<&LocalDht> {
        self.dht.as_ref()
    }

    /// The relay, if it has one.
    pub fn relay(&self) -> Option<&LocalRelay> {
        self.relay.as_ref()
    }

    /// One more node, which isn't started yet.
    ///
    /// # Errors
    ///
    /// If its directories can't be made.
    pub fn add_node(&mut self) -> Result<&mut Node> {
        let name = format!("n{}", self.nodes.len() + 1);
        let mut node = Node::new(self.directory.path(), &name, &self.binary, self.settings.group)?;
        node.arguments = self.join_arguments();
        node.arguments.extend(["--name".into(), name]);
        node.arguments.extend(self.settings.arguments.iter().cloned());
        node.env.clone_from(&self.settings.env);
        self.nodes.push(node);
        Ok(self.nodes.last_mut().expect("it was just added"))
    }

    /// What a node of this cluster is started with: the network id, and where DHT and relay are.
    pub fn join_arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = vec!["--network".into(), self.network.clone()];
        arguments.extend(["--listen", "127.0.0.1:0", "--lab"].map(str::to_owned));
        let bootstrap = self.dht.as_ref().map_or(&self.settings.dht_bootstrap[..], |dht| {
            &dht.bootstrap()[..dht.nodes().min(BOOTSTRAP_NODES)]
        });
        if bootstrap.is_empty() {
            arguments.push("--no-dht".into());
        }
        for address in bootstrap {
            arguments.extend(["--dht-bootstrap".into(), address.clone()]);
        }
        let own = self.relay.iter().map(|relay| relay.url().to_owned());
        let relays: Vec<String> = own.chain(self.settings.relays.iter().cloned()).collect();
        if relays.is_empty() {
            arguments.push("--no-relay".into());
        }
        for relay in relays {
            arguments.extend(["--relay".into(), relay]);
        }
        arguments
    }

    /// Starts all nodes that don't run, at the same time, and waits until each listens.
    ///
    /// # Errors
    ///
    /// If one doesn't.
    pub async fn start(&mut self) -> Result<()> {
        let mut started = Vec::new();
        for node in &mut self.nodes {
            if !node.is_running() {
                node.launch()?;
                started.push(node);
            }
        }
        for node in started {
            node.ready().await?;
        }
        Ok(())
    }

    /// Stops all nodes as a service manager would, at the same time.
    ///
    /// # Errors
    ///
    /// The first that didn't stop as it should; all are gone all the same.
    pub async fn stop(&mut self) -> Result<()> {
        // Together: a node that takes long must not delay the signal to the next.
        let mut stops: JoinSet<_> = self.nodes.iter_mut().map(Node::stopping).collect();
        let mut result = Ok(());
        while let Some(stopped) = stops.join_next().await {
            result = result.and(stopped?);
        }
        result
    }

    /// Waits until all running nodes hold the same events and show the same view.
    ///
    /// # Errors
    ///
    /// After `deadline`, with the state of each; or if none runs.
    pub async fn agreement(&mut self, deadline: Duration) -> Result<Agreement> {
        let running: Vec<bool> = self.nodes.iter_mut().map(Node::is_running).collect();
        let nodes: Vec<&Node> = self
            .nodes
            .iter()
            .zip(running)
            .filter_map(|(node, runs)| runs.then_some(node))
            .collect();
        agreement(&nodes, deadline).await
    }
}

/// Waits until these nodes hold the same events and show the same view.
///
/// # Errors
///
/// After `deadline`, with the state of each; or if there are none.
pub async fn agreement(nodes: &[&Node], deadline: Duration) -> Result<Agreement> {
    if nodes.is_empty() {
        bail!("no node runs, so none can agree");
    }
    wait::until("all nodes to agree", deadline, || async move {
        let mut found: Option<Agreement> = None;
        let mut agree = true;
        let mut states = Vec::new();
        for node in nodes {
            let told = async { anyhow::Ok((node.status().await?, node.frontier().await?)) }.await;
            let (status, frontier) = told.map_err(|error| format!("{error:#}"))?;
            states.push(node::brief(&status));
            let own = Agreement {
                events: status.events,
                frontier: frontier.frontier,
                view_digest: status.view_digest,
            };
            match &found {
                None => found = Some(own),
                Some(first) => agree &= *first == own,
            }
        }
        found.filter(|_| agree).ok_or_else(|| format!("\n  {}", states.join("\n  ")))
    })
    .await
}

impl Builder {
    /// The network id; otherwise a new public name.
    #[must_use]
    pub fn network(mut self, id: impl Into<String>) -> Self {
        self.network = Some(id.into());
        self
    }

    /// How many nodes.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// How many nodes the DHT has; none: no DHT.
    #[must_use]
    pub fn dht(mut self, nodes: usize) -> Self {
        self.dht_nodes = nodes;
        self
    }

    /// A DHT that somebody else runs, by these nodes, rather than one of its own.
    #[must_use]
    pub fn dht_of(mut self, bootstrap: impl IntoIterator<Item = String>) -> Self {
        self.dht_nodes = 0;
        self.dht_bootstrap = bootstrap.into_iter().collect();
        self
    }

    /// Whether there is a relay.
    #[must_use]
    pub fn relay(mut self, relay: bool) -> Self {
        self.relay = relay;
        self
    }

    /// Relays that somebody else runs, by their URLs, rather than one of its own.
    #[must_use]
    pub fn relay_of(mut self, urls: impl IntoIterator<Item = String>) -> Self {
        self.relay = false;
        self.relays = urls.into_iter().collect();
        self
    }

    /// The interval of anti-entropy and its jitter, in seconds; otherwise the nodes' own default.
    #[must_use]
    pub fn sync_every(self, interval_s: u32, jitter_s: u32) -> Self {
        self.argument("--sync-interval")
            .argument(interval_s.to_string())
            .argument("--sync-jitter")
            .argument(jitter_s.to_string())
    }

    /// One more word of every node's command line.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// One more variable in every node's environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// A directory that stays, rather than a temporary one.
    #[must_use]
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = Some(path.into());
        self
    }

    /// Waits until no other exclusive cluster runs on this machine: for tests.
    #[must_use]
    pub fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// Whom a terminal's Ctrl-C reaches.
    #[must_use]
    pub fn group(mut self, group: Group) -> Self {
        self.group = group;
        self
    }

    /// Starts DHT and relay, and makes the nodes, which don't run yet.
    ///
    /// # Errors
    ///
    /// If there is no `mosaik-node` to run, or a directory or socket can't be had.
    pub async fn build(self) -> Result<Cluster> {
        // It may build for minutes; others of this runtime go on meanwhile.
        let binary = tokio::task::spawn_blocking(node_binary).await??.to_owned();
        let lock = if self.exclusive { Some(Lock::take(LOCK_TIMEOUT).await?) } else { None };
        let directory = match &self.directory {
            Some(path) => {
                fs::create_dir_all(path)
                    .with_context(|| format!("cannot make {}", path.display()))?;
                Directory::Kept(path.canonicalize()?)
            }
            None => Directory::Temporary(tempfile::Builder::new().prefix("mlab-").tempdir()?),
        };
        let network = self.network_in(directory.path())?;
        // The relay first: a node that doesn't find it at its start looks again only after 20 s.
        let relay = if self.relay { Some(LocalRelay::start().await?) } else { None };
        let dht =
            if self.dht_nodes > 0 { Some(LocalDht::start(self.dht_nodes).await?) } else { None };
        let count = self.nodes;
        let mut cluster = Cluster {
            nodes: Vec::new(),
            relay,
            dht,
            directory,
            network,
            settings: self,
            binary,
            _lock: lock,
        };
        for _ in 0..count {
            cluster.add_node()?;
        }
        Ok(cluster)
    }

    /// The network id: the one asked for, else the one this directory had before, else a new one.
    fn network_in(&self, directory: &Path) -> Result<String> {
        let file = directory.join("network");
        let id = match (&self.network, fs::read_to_string(&file)) {
            (Some(id), _) => id.clone(),
            (None, Ok(text)) => text.trim_end().to_owned(),
            (None, Err(_)) => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                format!("lab-{:x}-{:x}", since.as_micros(), std::process::id())
            }
        };
        fs::write(&file, format!("{id}\n"))?;
        Ok(id)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if (thread::panicking() || env::var_os(KEEP).is_some())
            && let Directory::Temporary(directory) = &mut self.directory
        {
            directory.disable_cleanup(true);
            let path = directory.path().display();
            // A test that fails says here where to look; nobody else would know.
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("the cluster's logs and data stay in {path}\n"),
            );
        }
    }
}
