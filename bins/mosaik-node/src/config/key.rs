//! The settings by their names.

/// One setting: what it is called in each place.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// In the TOML file; with dashes for underscores the flag.
    pub name: &'static str,
    /// In the environment.
    pub env: &'static str,
    /// The environment variable of the program that this one follows.
    pub old_env: Option<&'static str>,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Switch,
    List,
}

const fn key(name: &'static str, env: &'static str, kind: Kind) -> Key {
    Key { name, env, old_env: None, kind }
}

const fn old_key(name: &'static str, env: &'static str, old: &'static str, kind: Kind) -> Key {
    Key { name, env, old_env: Some(old), kind }
}

/// Where the networks' directories are.
pub const DATA_DIR: Key = old_key("data_dir", "MOSAIK_DATA_DIR", "STORAGE_DIR", Kind::Text);
/// A public network's name.
pub const NETWORK: Key = key("network", "MOSAIK_NETWORK", Kind::Text);
/// A file with a network id.
pub const NETWORK_FILE: Key = key("network_file", "MOSAIK_NETWORK_FILE", Kind::Text);
/// What the node calls itself.
pub const NAME: Key = key("name", "MOSAIK_NAME", Kind::Text);
/// UDP addresses to listen on.
pub const LISTEN: Key = key("listen", "MOSAIK_LISTEN", Kind::List);
/// Whether the Mainline DHT is used.
pub const DHT: Key = key("dht", "MOSAIK_DHT", Kind::Switch);
/// Where the DHT is entered.
pub const DHT_BOOTSTRAP: Key = key("dht_bootstrap", "MOSAIK_DHT_BOOTSTRAP", Kind::List);
/// Pkarr relays, which are asked beside the DHT.
pub const PKARR_RELAYS: Key = key("pkarr_relays", "MOSAIK_PKARR_RELAYS", Kind::List);
/// Whether relays are used.
pub const RELAY: Key = key("relay", "MOSAIK_RELAY", Kind::Switch);
/// Which relays.
pub const RELAYS: Key = key("relays", "MOSAIK_RELAYS", Kind::List);
/// Whether peers are reached through relays alone.
pub const RELAY_ONLY: Key = key("relay_only", "MOSAIK_RELAY_ONLY", Kind::Switch);
/// A file with authorities whose relays are trusted.
pub const RELAY_CA: Key = key("relay_ca", "MOSAIK_RELAY_CA", Kind::Text);
/// Tickets of peers to dial.
pub const PEERS: Key = key("peers", "MOSAIK_PEERS", Kind::List);
/// Whether this node announces itself on the local network.
pub const MDNS: Key = key("mdns", "MOSAIK_MDNS", Kind::Switch);
/// Whether private addresses are published and dialed.
pub const LAN: Key = key("lan", "MOSAIK_LAN", Kind::Switch);
/// Whether nothing is sent outside the local network.
pub const LAN_ONLY: Key = key("lan_only", "MOSAIK_LAN_ONLY", Kind::Switch);
/// Whether private and loopback addresses are published and dialed.
pub const LAB: Key = key("lab", "MOSAIK_LAB", Kind::Switch);
/// Seconds between comparisons.
pub const SYNC_INTERVAL: Key =
    old_key("sync_interval", "MOSAIK_SYNC_INTERVAL", "NETWORK_SYNC_INTERVAL", Kind::Number);
/// Seconds added at random.
pub const SYNC_JITTER: Key =
    old_key("sync_jitter", "MOSAIK_SYNC_JITTER", "NETWORK_SYNC_JITTER", Kind::Number);
/// Bytes a second of runs taken from peers.
pub const RATE_DOWN: Key = key("rate_down", "MOSAIK_RATE_DOWN", Kind::Number);
/// See [`Config::metered`](super::Config::metered).
pub const METERED: Key = key("metered", "MOSAIK_METERED", Kind::Switch);
/// See [`Config::rate_up`](super::Config::rate_up).
pub const RATE_UP: Key = key("rate_up", "MOSAIK_RATE_UP", Kind::Number);
/// Connections that others may have open.
pub const CONNECTIONS_MAX: Key = key("connections_max", "MOSAIK_CONNECTIONS_MAX", Kind::Number);
/// Ways into Reticulum.
pub const RNS: Key = key("rns", "MOSAIK_RNS", Kind::List);
/// Where the `rnsd` to use is configured.
pub const RNS_CONFIG: Key = key("rns_config", "MOSAIK_RNS_CONFIG", Kind::Text);
/// Bits a second on the air.
pub const RNS_BITRATE: Key = key("rns_bitrate", "MOSAIK_RNS_BITRATE", Kind::Number);
/// The share of its time that each radio may send.
pub const RNS_AIRTIME: Key = key("rns_airtime", "MOSAIK_RNS_AIRTIME", Kind::Text);
/// Kinds of events that go over radio before others.
pub const RNS_FIRST: Key = key("rns_first", "MOSAIK_RNS_FIRST", Kind::List);
/// Whether this node is a peer of meshlogd there.
pub const RNS_MESHLOG: Key = key("rns_meshlog", "MOSAIK_RNS_MESHLOG", Kind::Switch);
/// Whether new events go to all neighbours there at once.
pub const RNS_BROADCAST: Key = key("rns_broadcast", "MOSAIK_RNS_BROADCAST", Kind::Switch);
/// Bytes that the store may take.
pub const STORE_MAX: Key = key("store_max", "MOSAIK_STORE_MAX", Kind::Number);
/// Which payloads are pruned when.
pub const RETENTION: Key = key("retention", "MOSAIK_RETENTION", Kind::List);
/// Which files of attachments are fetched unasked.
pub const ATTACHMENTS: Key = key("attachments", "MOSAIK_ATTACHMENTS", Kind::List);
/// Bytes that the files of attachments may take.
pub const ATTACHMENTS_MAX: Key = key("attachments_max", "MOSAIK_ATTACHMENTS_MAX", Kind::Number);
/// Whether files are kept that no record names any more.
pub const ARCHIVE: Key = key("archive", "MOSAIK_ARCHIVE", Kind::Switch);
/// What is logged.
pub const LOG_LEVEL: Key = old_key("log_level", "MOSAIK_LOG_LEVEL", "LOG_LEVEL", Kind::Text);
/// In which form.
pub const LOG_FORMAT: Key = key("log_format", "MOSAIK_LOG_FORMAT", Kind::Text);
/// Where to.
pub const LOG_DIR: Key = old_key("log_dir", "MOSAIK_LOG_DIR", "LOG_DIR", Kind::Text);

/// All settings, in the order in which they are shown.
pub const KEYS: [&Key; 38] = [
    &DATA_DIR,
    &NETWORK,
    &NETWORK_FILE,
    &NAME,
    &LISTEN,
    &DHT,
    &DHT_BOOTSTRAP,
    &PKARR_RELAYS,
    &RELAY,
    &RELAYS,
    &RELAY_ONLY,
    &RELAY_CA,
    &PEERS,
    &MDNS,
    &LAN,
    &LAN_ONLY,
    &LAB,
    &METERED,
    &SYNC_INTERVAL,
    &SYNC_JITTER,
    &RATE_DOWN,
    &RATE_UP,
    &CONNECTIONS_MAX,
    &RNS,
    &RNS_CONFIG,
    &RNS_BITRATE,
    &RNS_AIRTIME,
    &RNS_FIRST,
    &RNS_MESHLOG,
    &RNS_BROADCAST,
    &STORE_MAX,
    &RETENTION,
    &ATTACHMENTS,
    &ATTACHMENTS_MAX,
    &ARCHIVE,
    &LOG_LEVEL,
    &LOG_FORMAT,
    &LOG_DIR,
];
