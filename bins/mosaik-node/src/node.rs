//! The node to embed: settings in, a running node out.
//!
//! Invariants:
//! - A node that could not start has changed nothing but its own directory.
//! - Being alone is a state, not a failure: neither peers, nor relays, nor the DHT are waited for.
//! - When [`Node::stopped`] returns, the store is closed and the port is free.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use ed25519_dalek::SigningKey;
use mosaik_api::document::Bridge;
use mosaik_core::{
    binding::RadioIdentity,
    id::{AuthorId, NodeId},
    key::Network,
    reach::Reach,
    ticket::Ticket,
    view::ViewError,
};
use mosaik_dht::{ChainClient, ChainConfig};
use mosaik_net::{BindError, Delivery, Net, NetConfig, RelaySetting, Shelf};
use mosaik_proto::{
    attachments::Limits,
    carrier::{Addresses, Input, Source},
    peers::SESSIONS_KEPT,
    replica,
};
use mosaik_store::{OpenError, Store, StoreError};
use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
};

use crate::{
    attachments::{self, Attachments, OverRadio},
    carrier::{Carrier, Carriers},
    config::Config,
    dht_nodes::DhtNodes,
    directory::{Directory, DirectoryError},
    handle::{Handle, Snapshot, handle},
    meters::Meters,
    owner::{INPUTS_MAX, Owner, Parts},
    reads::Reads,
};

/// A wall clock before this was never set: the program is younger (2026-11-01, Unix ms).
pub(crate) const CLOCK_FLOOR_MS: u64 = 1_793_491_200_000;
/// Authors that a node takes; a tip counts like one.
const AUTHORS_MAX: usize = 1_000_000;
/// Sessions kept open where each byte costs: one may break.
const SESSIONS_KEPT_METERED: usize = 2;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Its store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Its port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// What its store holds.
    #[error("what the store holds can't be read")]
    Content(#[source] ViewError<StoreError>),
    /// Its way into Reticulum.
    #[error("no radio")]
    Radio(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The system gives no thread.
    #[error("no thread for the node")]
    Thread(#[source] std::io::Error),
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    id: NodeId,
    author: AuthorId,
    directory: Directory,
    handle: Handle,
    reads: Reads,
    attachments: Attachments,
    stopped: oneshot::Receiver<()>,
}

impl Node {
    /// Starts a node of `network`. Returns when it listens; it looks for peers from then on.
    ///
    /// Must be called inside a tokio runtime; the node's own loop has a thread of its own there.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn open(config: Config, network: &Network) -> Result<Self, StartError> {
        let started = Instant::now();
        let keys = network.keys();
        let directory = Directory::of(&config.data_dir, &keys.fingerprint);
        directory.prepare(network)?;
        // Before the store: to open one is to write to it.
        directory.check_keys()?;
        let store = Store::open(directory.path(), &keys.fingerprint)?;
        // Behind the store's lock: two starts must not make two keys.
        let author_is_new = !directory.has_author();
        let own = directory.keys()?;
        let (sender, inputs) = mpsc::channel(INPUTS_MAX);
        let shelf = Arc::new(Shelf::new(directory.path().join("blobs")));
        let radio_inbox = sender.clone();
        let (bridge_shown, bridge) = watch::channel(Bridge::default());
        let net = bind(&config, &directory, &keys, own.node, &shelf, sender).await?;
        let dht_nodes = DhtNodes::new(directory.clone(), &config.dht_bootstrap);
        let has_pkarr_relays = !config.pkarr_relays.is_empty() && !config.lan_only;
        let chain = (config.uses_dht() || has_pkarr_relays).then(|| {
            let mut chain = ChainConfig::new(keys.clone(), SigningKey::from_bytes(&own.node));
            chain.dht = config.uses_dht();
            chain.pkarr_relays.clone_from(&config.pkarr_relays);
            chain.dht_bootstrap.clone_from(&config.dht_bootstrap);
            chain.known_nodes = dht_nodes.read();
            chain.reach = reach(&config);
            chain.metered = config.metered;
            ChainClient::spawn(chain)
        });
        let meters = chain.as_ref().map(|(chain, _)| chain.meters());
        let author_key = SigningKey::from_bytes(&own.author);
        let author = AuthorId(author_key.verifying_key().to_bytes());
        let id = net.node_id();
        // What is known now, so that a ticket that is asked for at once isn't empty.
        let own_addresses = net.addresses();
        let ticket = Ticket {
            node: id,
            relays: own_addresses.relays.clone(),
            addresses: own_addresses.direct.clone(),
        };
        let (handle, desk) = handle(
            Snapshot::beginning(author, ticket),
            Meters::new(vec![net.traffic()], meters),
            bridge,
        );
        let reads = Reads::new(store.readers());
        let (seeks, seeking) = watch::channel(false);
        let outside = Outside {
            inbox: radio_inbox.clone(),
            shown: bridge_shown,
            handle: handle.clone(),
            reads: reads.clone(),
            author,
            seeks: seeking,
        };
        let radio = match radio(&config, &directory, &keys, outside) {
            Ok(radio) => radio,
            Err(error) => {
                // What listens already says goodbye; to drop it is an error in iroh's eyes.
                Box::pin(net.close()).await;
                return Err(error);
            }
        };
        let (radio, identity) = radio.unzip();
        let (files, news) = mpsc::unbounded_channel();
        let has_radio = radio.is_some();
        let over_radio = has_radio.then(|| OverRadio { inbox: radio_inbox, news, seeks });
        let (attachments, keeper) = Attachments::new(
            handle.clone(),
            attachments::Parts {
                shelf,
                fetcher: net.fetcher(),
                reads: reads.clone(),
                rules: config.attachments.into(),
                limits: Limits { bytes_max: config.attachments_max, archive: config.archive },
                snapshots: handle.watch(),
                arrivals: handle.arrivals(),
                meters: desk.meters.clone(),
                over_radio,
            },
        );
        let mut carriers: Vec<Box<dyn Carrier>> = vec![Box::new(net)];
        carriers.extend(radio);
        let parts = Parts {
            store,
            config: replica::Config {
                keys,
                node_key: SigningKey::from_bytes(&own.node),
                author_key,
                author_is_new,
                name: config.name.clone(),
                software: concat!("mosaik-node ", env!("CARGO_PKG_VERSION")).to_owned(),
                sync_interval_ms: config.sync_interval_s * 1000,
                sync_jitter_ms: config.sync_jitter_s * 1000,
                sessions_kept: if config.metered { SESSIONS_KEPT_METERED } else { SESSIONS_KEPT },
                authors_max: AUTHORS_MAX,
                clock_floor_ms: CLOCK_FLOOR_MS,
                seed: rand::random(),
            },
            store_max: config.store_max,
            retention: config.retention,
            carriers: Carriers::new(carriers),
            radio: identity,
            inputs,
            chain,
            dht_nodes,
            files: has_radio.then_some(files),
            desk,
            started,
        };
        let owner = Owner::new(parts).map_err(StartError::Content)?;
        let first = config.peers.into_iter().map(|ticket| {
            let addresses = Addresses { direct: ticket.addresses, relays: ticket.relays };
            Input::Found { peer: ticket.node, addresses, source: Source::Ticket }
        });
        let (tell, stopped) = oneshot::channel();
        let first = std::iter::once(Input::OwnAddresses(own_addresses)).chain(first).collect();
        let runtime = runtime::Handle::current();
        let keeper = tokio::spawn(keeper.run());
        // A thread of its own: a commit waits for the disk, and must not hold up a worker.
        std::thread::Builder::new()
            .name("owner".to_owned())
            .spawn(move || {
                runtime.block_on(owner.run(first));
                // An error says that it broke off: then it has ended as well.
                let _ = runtime.block_on(keeper);
                // Nobody may be listening any more.
                let _ = tell.send(());
            })
            .map_err(StartError::Thread)?;
        Ok(Self { id, author, directory, handle, reads, attachments, stopped })
    }

    /// Its id.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The author that it writes as.
    pub fn author(&self) -> AuthorId {
        self.author
    }

    /// Where it keeps what it holds.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// A way to write, to ask, and to watch: [`Handle::edit`], [`Handle::watch`].
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// A way to read what is committed.
    pub fn reads(&self) -> Reads {
        self.reads.clone()
    }

    /// A way to the files of attachments: to add, fetch and read them.
    pub fn attachments(&self) -> Attachments {
        self.attachments.clone()
    }

    /// Returns when the node has ended: after [`Handle::shutdown`], and not otherwise.
    pub async fn stopped(self) {
        // An error says that the thread is gone: the same.
        let _ = self.stopped.await;
    }
}

/// What a radio has to do with: the owner, who looks at it, the store.
#[cfg_attr(not(feature = "reticulum"), expect(dead_code, reason = "there is no radio"))]
struct Outside {
    inbox: mpsc::Sender<Delivery>,
    shown: watch::Sender<Bridge>,
    handle: Handle,
    reads: Reads,
    author: AuthorId,
    seeks: watch::Receiver<bool>,
}

/// A carrier for radio, and the identity that it has there.
type OnAir = (Box<dyn Carrier>, RadioIdentity);

/// A carrier for radio, if one is asked for.
#[cfg(feature = "reticulum")]
fn radio(
    config: &Config,
    directory: &Directory,
    keys: &mosaik_core::key::NetworkKeys,
    outside: Outside,
) -> Result<Option<OnAir>, StartError> {
    use crate::radio::{Parts, Radio};
    if config.rns.is_empty() {
        return Ok(None);
    }
    let ways = config.rns.iter().map(|way| way.parse()).collect::<Result<Vec<_>, _>>();
    let ways = ways.map_err(|error| StartError::Radio(Box::new(error)))?;
    let Outside { inbox, shown, handle, reads, author, seeks } = outside;
    let directory = directory.path();
    let parts = Parts { directory, keys, inbox, shown, handle, reads, author, seeks };
    let radio =
        Radio::start(config, ways, parts).map_err(|error| StartError::Radio(Box::new(error)))?;
    let identity = radio.identity();
    Ok(Some((Box::new(radio), identity)))
}

#[cfg(not(feature = "reticulum"))]
fn radio(
    _: &Config,
    _: &Directory,
    _: &mosaik_core::key::NetworkKeys,
    _: Outside,
) -> Result<Option<OnAir>, StartError> {
    Ok(None)
}

/// Which addresses the node publishes and dials.
fn reach(config: &Config) -> Reach {
    match config {
        Config { lab: true, .. } => Reach::Lab,
        Config { lan_only: true, .. } => Reach::LanOnly,
        Config { lan: true, .. } => Reach::Lan,
        _ => Reach::Public,
    }
}

/// Opens the endpoint: on the addresses that were asked for, else on the port of the last start if
/// it is free, else on any.
async fn bind(
    config: &Config,
    directory: &Directory,
    keys: &mosaik_core::key::NetworkKeys,
    secret: [u8; 32],
    shelf: &Arc<Shelf>,
    inbox: mpsc::Sender<Delivery>,
) -> Result<Net, StartError> {
    let net = |listen: Vec<SocketAddr>| NetConfig {
        keys: keys.clone(),
        secret,
        listen,
        relays: match (config.uses_relay(), config.relays.is_empty()) {
            (false, _) => RelaySetting::None,
            (true, true) => RelaySetting::Default,
            (true, false) => RelaySetting::Custom(config.relays.clone()),
        },
        relay_only: config.relay_only,
        relay_ca: config.relay_ca.clone(),
        reach: reach(config),
        rate_down: (config.rate_down > 0).then_some(config.rate_down),
        rate_up: (config.rate_up > 0).then_some(config.rate_up),
        connections_max: config.connections_max,
        mdns: config.uses_mdns(),
        gossip: !config.metered,
        shelf: Some(shelf.clone()),
    };
    let kept = directory.port();
    let asked: Vec<SocketAddr> = match (config.listen.as_slice(), kept) {
        // Addresses of version 6 in a local network are public ones as a rule.
        ([], port) if config.lan_only => vec![(Ipv4Addr::UNSPECIFIED, port.unwrap_or(0)).into()],
        ([], Some(port)) => {
            vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()]
        }
        (listen, kept) => listen.iter().map(|address| with_port(*address, kept)).collect(),
    };
    let bound = match Net::bind(net(asked), inbox.clone()).await {
        // The port was any free one, and somebody else has it now: take another.
        Err(BindError::PortInUse(taken)) if !config.listen.contains(&taken) => {
            Net::bind(net(config.listen.clone()), inbox).await?
        }
        bound => bound?,
    };
    if let Some(port) = bound.bound_port()
        && kept != Some(port)
    {
        directory.keep_port(port)?;
    }
    Ok(bound)
}

/// Port 0 stands for any free one: the same one at every start.
fn with_port(address: SocketAddr, kept: Option<u16>) -> SocketAddr {
    match kept {
        Some(port) if address.port() == 0 => SocketAddr::new(address.ip(), port),
        _ => address,
    }
}
