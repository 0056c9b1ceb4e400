//! The flags that say which node is meant, and how one runs.
//!
//! They are texts here: what they mean is checked where the settings of all places are read.

use std::path::PathBuf;

use clap::Args;

use crate::config::{self, Layer};

/// Which node is meant.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Place {
    /// The network's id: a public name, or a secret mnet1...
    #[arg(long, global = true, value_name = "ID", conflicts_with = "network_file", help_heading = WHERE)]
    pub(crate) network: Option<String>,
    /// A file that holds the network's id
    #[arg(long, global = true, value_name = "FILE", help_heading = WHERE)]
    pub(crate) network_file: Option<PathBuf>,
    /// Where everything is kept: in it one directory a network
    #[arg(long, global = true, value_name = "DIR", help_heading = WHERE)]
    pub(crate) data_dir: Option<PathBuf>,
    /// A TOML file with settings
    #[arg(long, global = true, value_name = "FILE", help_heading = WHERE)]
    pub(crate) config: Option<PathBuf>,
}

const WHERE: &str = "Which node";
const NODE: &str = "Running a node";

/// How a node runs.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub(crate) struct RunFlags {
    /// What this node calls itself [default: the host's name]
    #[arg(long, value_name = "NAME", help_heading = NODE)]
    name: Option<String>,
    /// A UDP address to listen on [default: any free port, kept over restarts]
    #[arg(long, value_name = "ADDR:PORT", help_heading = NODE)]
    listen: Vec<String>,
    /// Where to enter the DHT [default: the public nodes]
    #[arg(long, value_name = "HOST:PORT", help_heading = NODE)]
    dht_bootstrap: Vec<String>,
    /// Don't use the DHT
    #[arg(long, conflicts_with = "dht_bootstrap", help_heading = NODE)]
    no_dht: bool,
    /// A pkarr relay to ask beside the DHT, over HTTP: for where UDP is blocked [default: none]
    #[arg(long, value_name = "URL", help_heading = NODE)]
    pkarr_relay: Vec<String>,
    /// A relay to use [default: iroh's public ones]
    #[arg(long, value_name = "URL", help_heading = NODE)]
    relay: Vec<String>,
    /// Don't use relays
    #[arg(long, conflicts_with = "relay", help_heading = NODE)]
    no_relay: bool,
    /// Reach peers through relays alone: offer no direct path and take none
    #[arg(long, conflicts_with_all = ["no_relay", "lan_only"], help_heading = NODE)]
    relay_only: bool,
    /// A PEM file with the authority that vouches for the relays [default: the well-known ones]
    #[arg(long, value_name = "FILE", help_heading = NODE)]
    relay_ca: Option<PathBuf>,
    /// The ticket of a peer to dial (from `id --ticket` on that node)
    #[arg(long, value_name = "TICKET", help_heading = NODE)]
    peer: Vec<String>,
    /// Don't announce this node on the local network, nor look for others there
    #[arg(long, conflicts_with = "lan_only", help_heading = NODE)]
    no_mdns: bool,
    /// Publish and dial private addresses too: for a site with a DHT or relay of its own
    #[arg(long, help_heading = NODE)]
    lan: bool,
    /// Send nothing outside the local network: neither DHT nor relays
    #[arg(long, conflicts_with_all = ["dht_bootstrap", "pkarr_relay", "relay"], help_heading = NODE)]
    lan_only: bool,
    /// Publish and dial private and loopback addresses too
    #[arg(long, help_heading = NODE, hide_short_help = true)]
    lab: bool,
    /// Save bytes: fewer sessions and looks at the DHT, no gossip, files and comparisons more rarely
    #[arg(long, help_heading = NODE)]
    metered: bool,
    /// Seconds between comparisons with a random peer [default: 60]
    #[arg(long, value_name = "S", help_heading = NODE)]
    sync_interval: Option<String>,
    /// Up to so many seconds are added to it at random [default: 30]
    #[arg(long, value_name = "S", help_heading = NODE)]
    sync_jitter: Option<String>,
    /// Bytes of events and files a second taken from all peers together [default: no limit]
    #[arg(long, value_name = "BYTES", help_heading = NODE)]
    rate_down: Option<String>,
    /// Bytes of events and files a second sent to all peers together [default: no limit]
    #[arg(long, value_name = "BYTES", help_heading = NODE)]
    rate_up: Option<String>,
    /// Connections that others may have open to this node [default: 256]
    #[arg(long, value_name = "N", help_heading = NODE)]
    connections_max: Option<String>,
    /// A way into Reticulum, for radio: rnsd, tcp://HOST:PORT, serial:DEVICE, ... [default: none]
    #[arg(long, value_name = "WAY", help_heading = NODE)]
    rns: Vec<String>,
    /// The configuration directory of the rnsd to use [default: the one that rns takes]
    #[arg(long, value_name = "DIR", requires = "rns", help_heading = NODE)]
    rns_config: Option<PathBuf>,
    /// Bits a second on the air, where the way doesn't say so itself [default: it is a wire]
    #[arg(long, value_name = "BITS", requires = "rns", help_heading = NODE)]
    rns_bitrate: Option<String>,
    /// The share of its time that each radio may send, as the band allows: 1% or 10% [default: 10%]
    #[arg(long, value_name = "PERCENT", requires = "rns", help_heading = NODE)]
    rns_airtime: Option<String>,
    /// Send events of this kind (alert, or alert.*) over radio before others that were asked for
    #[arg(long, value_name = "KIND", requires = "rns", help_heading = NODE)]
    rns_first: Vec<String>,
    /// Be a peer of meshlogd there: take its events, and give it those of this network
    #[arg(long, requires = "rns", help_heading = NODE)]
    rns_meshlog: bool,
    /// Send new small events to all neighbours there at once: for three nodes or more on one channel
    #[arg(long, requires = "rns", help_heading = NODE)]
    rns_broadcast: bool,
    /// Bytes that the store may take on its disk [default: no limit]
    #[arg(long, value_name = "BYTES", help_heading = NODE)]
    store_max: Option<String>,
    /// Prune payloads of an application's own kind: by age (sensor.*:30d) or bytes (photo:1GB)
    #[arg(long, value_name = "KIND:LIMIT", help_heading = NODE)]
    retention: Vec<String>,
    /// Which files are fetched unasked: all, none, or by form and size [default: *:64MB]
    #[arg(long, value_name = "FORM:SIZE", help_heading = NODE)]
    attachments: Vec<String>,
    /// Bytes that the files of attachments may take; 0 is no limit [default: 10000000000]
    #[arg(long, value_name = "BYTES", help_heading = NODE)]
    attachments_max: Option<String>,
    /// Keep files too that no record names any more
    #[arg(long, help_heading = NODE)]
    archive: bool,
    /// error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL", help_heading = NODE)]
    log_level: Option<String>,
    /// text or json [default: text]
    #[arg(long, value_name = "FORM", help_heading = NODE)]
    log_format: Option<String>,
    /// Log to a file in this directory rather than to stderr
    #[arg(long, value_name = "DIR", help_heading = NODE)]
    log_dir: Option<PathBuf>,
}

impl RunFlags {
    /// Whether none was given.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These and, where they are silent, `weaker`.
    pub(crate) fn or(self, weaker: Self) -> Self {
        fn either<T>(strong: Vec<T>, weak: Vec<T>) -> Vec<T> {
            if strong.is_empty() { weak } else { strong }
        }
        Self {
            name: self.name.or(weaker.name),
            listen: either(self.listen, weaker.listen),
            dht_bootstrap: either(self.dht_bootstrap, weaker.dht_bootstrap),
            no_dht: self.no_dht || weaker.no_dht,
            pkarr_relay: either(self.pkarr_relay, weaker.pkarr_relay),
            relay: either(self.relay, weaker.relay),
            no_relay: self.no_relay || weaker.no_relay,
            relay_only: self.relay_only || weaker.relay_only,
            relay_ca: self.relay_ca.or(weaker.relay_ca),
            peer: either(self.peer, weaker.peer),
            no_mdns: self.no_mdns || weaker.no_mdns,
            lan: self.lan || weaker.lan,
            lan_only: self.lan_only || weaker.lan_only,
            lab: self.lab || weaker.lab,
            metered: self.metered || weaker.metered,
            sync_interval: self.sync_interval.or(weaker.sync_interval),
            sync_jitter: self.sync_jitter.or(weaker.sync_jitter),
            rate_down: self.rate_down.or(weaker.rate_down),
            rate_up: self.rate_up.or(weaker.rate_up),
            connections_max: self.connections_max.or(weaker.connections_max),
            rns: either(self.rns, weaker.rns),
            rns_config: self.rns_config.or(weaker.rns_config),
            rns_bitrate: self.rns_bitrate.or(weaker.rns_bitrate),
            rns_airtime: self.rns_airtime.or(weaker.rns_airtime),
            rns_first: either(self.rns_first, weaker.rns_first),
            rns_meshlog: self.rns_meshlog || weaker.rns_meshlog,
            rns_broadcast: self.rns_broadcast || weaker.rns_broadcast,
            store_max: self.store_max.or(weaker.store_max),
            retention: either(self.retention, weaker.retention),
            attachments: either(self.attachments, weaker.attachments),
            attachments_max: self.attachments_max.or(weaker.attachments_max),
            archive: self.archive || weaker.archive,
            log_level: self.log_level.or(weaker.log_level),
            log_format: self.log_format.or(weaker.log_format),
            log_dir: self.log_dir.or(weaker.log_dir),
        }
    }
}

/// What the flags say, as the settings take it.
pub(crate) fn layer(place: &Place, run: &RunFlags) -> Layer {
    let path = |path: &Option<PathBuf>| path.iter().map(|p| p.display().to_string()).collect();
    let text = |text: &Option<String>| text.iter().cloned().collect();
    let switch = |given: bool, value: &str| if given { vec![value.to_owned()] } else { Vec::new() };
    // A relay or a way into the DHT is given to be used, whatever a weaker place says.
    let wanted = |off: bool, list: &[String]| match (off, list.is_empty()) {
        (true, _) => vec!["false".to_owned()],
        (false, false) => vec!["true".to_owned()],
        (false, true) => Vec::new(),
    };
    let relay = match run.relay_only {
        true => vec!["true".to_owned()],
        false => wanted(run.no_relay, &run.relay),
    };
    let said: [(&config::Key, Vec<String>); 38] = [
        (&config::DATA_DIR, path(&place.data_dir)),
        (&config::NETWORK, text(&place.network)),
        (&config::NETWORK_FILE, path(&place.network_file)),
        (&config::NAME, text(&run.name)),
        (&config::LISTEN, run.listen.clone()),
        (&config::DHT, wanted(run.no_dht, &run.dht_bootstrap)),
        (&config::DHT_BOOTSTRAP, run.dht_bootstrap.clone()),
        (&config::PKARR_RELAYS, run.pkarr_relay.clone()),
        (&config::RELAY, relay),
        (&config::RELAYS, run.relay.clone()),
        (&config::RELAY_ONLY, switch(run.relay_only, "true")),
        (&config::RELAY_CA, path(&run.relay_ca)),
        (&config::PEERS, run.peer.clone()),
        (&config::MDNS, switch(run.no_mdns, "false")),
        (&config::LAN, switch(run.lan, "true")),
        (&config::LAN_ONLY, switch(run.lan_only, "true")),
        (&config::LAB, switch(run.lab, "true")),
        (&config::METERED, switch(run.metered, "true")),
        (&config::SYNC_INTERVAL, text(&run.sync_interval)),
        (&config::SYNC_JITTER, text(&run.sync_jitter)),
        (&config::RATE_DOWN, text(&run.rate_down)),
        (&config::RATE_UP, text(&run.rate_up)),
        (&config::CONNECTIONS_MAX, text(&run.connections_max)),
        (&config::RNS, run.rns.clone()),
        (&config::RNS_CONFIG, path(&run.rns_config)),
        (&config::RNS_BITRATE, text(&run.rns_bitrate)),
        (&config::RNS_AIRTIME, text(&run.rns_airtime)),
        (&config::RNS_FIRST, run.rns_first.clone()),
        (&config::RNS_MESHLOG, switch(run.rns_meshlog, "true")),
        (&config::RNS_BROADCAST, switch(run.rns_broadcast, "true")),
        (&config::STORE_MAX, text(&run.store_max)),
        (&config::RETENTION, run.retention.clone()),
        (&config::ATTACHMENTS, run.attachments.clone()),
        (&config::ATTACHMENTS_MAX, text(&run.attachments_max)),
        (&config::ARCHIVE, switch(run.archive, "true")),
        (&config::LOG_LEVEL, text(&run.log_level)),
        (&config::LOG_FORMAT, text(&run.log_format)),
        (&config::LOG_DIR, path(&run.log_dir)),
    ];
    said.into_iter().filter(|(_, texts)| !texts.is_empty()).map(|(k, t)| (k.name, t)).collect()
}
