//! Settings: one struct, read and checked once.
//!
//! Invariants:
//! - Flags go before `MOSAIK_*` variables, these before the old names, these before the TOML file,
//!   this before the defaults. A value that is given empty counts as not given.
//! - Every value remembers where it came from, and an error names that place.
//! - The network is not part of it: its id may be a secret, and settings are shown.

mod key;
mod value;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use mosaik_core::ticket::Ticket;

pub use self::key::{
    ARCHIVE, ATTACHMENTS, ATTACHMENTS_MAX, CONNECTIONS_MAX, DATA_DIR, DHT, DHT_BOOTSTRAP, KEYS,
    Key, LAB, LAN, LAN_ONLY, LISTEN, LOG_DIR, LOG_FORMAT, LOG_LEVEL, MDNS, METERED, NAME, NETWORK,
    NETWORK_FILE, PEERS, PKARR_RELAYS, RATE_DOWN, RATE_UP, RELAY, RELAY_CA, RELAY_ONLY, RELAYS,
    RETENTION, RNS, RNS_AIRTIME, RNS_BITRATE, RNS_BROADCAST, RNS_CONFIG, RNS_FIRST, RNS_MESHLOG,
    STORE_MAX, SYNC_INTERVAL, SYNC_JITTER,
};
use self::{
    key::Kind,
    value::{
        default_name, parse_bytes, parse_connections_max, parse_host_port, parse_kinds,
        parse_listen, parse_name, parse_path, parse_percent, parse_rate, parse_relay, parse_rns,
        parse_seconds, parse_store_max, parse_switch,
    },
};

use crate::{
    attachments,
    log::{Format, Level},
    retention::Rule,
};

/// What the files of attachments may take where nothing is said: whoever can write could otherwise
/// fill the disk.
const ATTACHMENTS_MAX_DEFAULT: u64 = 10_000_000_000;
/// Seconds between comparisons where each byte costs.
const METERED_SYNC_INTERVAL_S: u64 = 600;

/// Connections that others may open where nothing is said. An idle one costs about 110 KB.
const CONNECTIONS_MAX_DEFAULT: usize = 256;

/// The share of its time that a radio may send where nothing is said: what most bands allow that such
/// modems use.
const RNS_AIRTIME_DEFAULT: Percent = Percent(10);

/// A share in percent, 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(pub u8);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// What the program is told, once and for its whole life.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// In it one directory a network.
    pub data_dir: PathBuf,
    /// What the node calls itself: a claim that peers see.
    pub name: String,
    /// UDP addresses to listen on; empty: any free port, kept over restarts.
    pub listen: Vec<SocketAddr>,
    /// Whether the Mainline DHT is used to find peers.
    pub dht: bool,
    /// Where it is entered, as host:port; empty: the public nodes.
    pub dht_bootstrap: Vec<String>,
    /// Pkarr relays, as URLs, which are asked beside the DHT; empty: none.
    pub pkarr_relays: Vec<String>,
    /// Whether relays are used.
    pub relay: bool,
    /// Which relays, as URLs; empty: iroh's public ones.
    pub relays: Vec<String>,
    /// Whether peers are reached through relays alone: no direct path is offered or taken.
    pub relay_only: bool,
    /// A PEM file with authorities whose certificates relays may show, besides the well-known ones.
    pub relay_ca: Option<PathBuf>,
    /// Peers to dial, whatever else finds any.
    pub peers: Vec<Ticket>,
    /// Whether this node announces itself on the local network and looks for others there; never in
    /// a lab.
    pub mdns: bool,
    /// Whether private addresses are published and dialed, besides what `mdns` finds.
    pub lan: bool,
    /// Whether private addresses alone are dialed: neither DHT nor relays are used, whatever `dht` and
    /// `relay` say.
    pub lan_only: bool,
    /// Whether private and loopback addresses are published and dialed.
    pub lab: bool,
    /// Whether each byte costs: fewer sessions and looks at the DHT, no gossip, no file unasked, and
    /// comparisons that are further apart, unless those are set.
    pub metered: bool,
    /// Seconds between comparisons with a random peer.
    pub sync_interval_s: u64,
    /// Up to so many seconds are added to it, drawn anew each round.
    pub sync_jitter_s: u64,
    /// Bytes a second, of files too, that are taken from all peers together; 0: no limit.
    pub rate_down: u64,
    /// Bytes a second, of files too, that are sent to all peers together; 0: no limit.
    pub rate_up: u64,
    /// Connections that others may have open to this node.
    pub connections_max: usize,
    /// Ways into Reticulum, as `mosaik_reticulum::Via` reads them; empty: no radio.
    pub rns: Vec<String>,
    /// The configuration directory of the `rnsd` to use; none: the one that rns takes.
    pub rns_config: Option<PathBuf>,
    /// Bits a second on the air behind a way that doesn't say so itself; 0: it is a wire.
    pub rns_bitrate: u64,
    /// The share of its time that each radio may send, in percent.
    pub rns_airtime: Percent,
    /// Kinds of events, or what they begin with and a `*`, that go over radio before others.
    pub rns_first: Vec<String>,
    /// Whether this node is a peer of meshlogd there: its events come in, this network's go out.
    pub rns_meshlog: bool,
    /// Whether new small events go to all neighbours there at once, and are taken so.
    pub rns_broadcast: bool,
    /// Bytes that the store may take on its disk; 0: as many as there are.
    pub store_max: u64,
    /// Which payloads of applications' own kinds are pruned when; empty: none.
    pub retention: Vec<Rule>,
    /// Which files of attachments are fetched unasked; empty: all up to a common size.
    pub attachments: Vec<attachments::Rule>,
    /// Bytes that the files of attachments may take on the disk; 0: as many as there are.
    pub attachments_max: u64,
    /// Whether files are kept that no record names any more.
    pub archive: bool,
    /// What is logged.
    pub log_level: Level,
    /// In which form.
    pub log_format: Format,
    /// Where to; without it stderr.
    pub log_dir: Option<PathBuf>,
}

impl Config {
    /// Whether the Mainline DHT is asked.
    pub fn uses_dht(&self) -> bool {
        self.dht && !self.lan_only
    }

    /// Whether relays are used.
    pub fn uses_relay(&self) -> bool {
        self.relay && !self.lan_only
    }

    /// Whether the local network is told of this node, and asked for others.
    pub fn uses_mdns(&self) -> bool {
        self.mdns && !self.lab && !self.relay_only
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// This environment variable.
    Env(&'static str),
    /// The TOML file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Env(name) => f.write_str(name),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Where the data is and which network is meant: all that a verb needs to find its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// In it one directory a network.
    pub data_dir: PathBuf,
    /// Who said so.
    pub data_dir_origin: Origin,
    /// What names the network, if anything does.
    pub network: Option<NetworkSource>,
}

/// Why settings were not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file isn't TOML.
    #[error("{} is not readable as TOML", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// The file names a setting that does not exist.
    #[error("{} sets {key:?}, which is no setting; the settings are {known}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// What it names.
        key: String,
        /// All there are.
        known: String,
    },
    /// A value is not what the setting takes.
    #[error("{key} = {value:?} ({origin}): {reason}")]
    BadValue {
        /// The setting.
        key: &'static str,
        /// What was given.
        value: String,
        /// By whom.
        origin: Origin,
        /// What it takes.
        reason: String,
    },
}

/// What one place says: texts by the names of [`KEYS`].
pub type Layer = BTreeMap<&'static str, Vec<String>>;

/// What the defaults depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Whether the program runs as root.
    pub is_root: bool,
    /// The home directory.
    pub home: Option<PathBuf>,
    /// The host's name.
    pub host_name: String,
}

/// All that says how to run, before it is read.
pub struct Sources<'a> {
    /// The command line.
    pub flags: &'a Layer,
    /// The environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The TOML file and its text.
    pub file: Option<(&'a Path, &'a str)>,
    /// What the defaults depend on.
    pub machine: &'a Machine,
}

/// Settings, and where each came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Each as text with its origin, in the order of [`KEYS`], without the network's.
    pub settings: Vec<(&'static str, String, Origin)>,
    /// What names the network: its text is not to be shown.
    pub network: Option<NetworkSource>,
    /// What the person should know, in sentences.
    pub notes: Vec<String>,
}

/// Where a network id is to be had.
#[derive(Clone, PartialEq, Eq)]
pub enum NetworkSource {
    /// Here it is.
    Id(String, Origin),
    /// In this file.
    File(PathBuf, Origin),
}

impl fmt::Debug for NetworkSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(_, origin) => f.debug_tuple("Id").field(origin).finish_non_exhaustive(),
            Self::File(path, origin) => f.debug_tuple("File").field(path).field(origin).finish(),
        }
    }
}

/// Reads and checks all settings.
///
/// # Errors
///
/// [`ConfigError`] for a file that isn't TOML, a setting that does not exist, or a value that one
/// doesn't take: with its origin.
pub fn load(sources: &Sources<'_>) -> Result<Loaded, ConfigError> {
    let mut reading = Reading::of(sources)?;
    let metered = reading.metered()?;
    let every_s = if metered { METERED_SYNC_INTERVAL_S } else { 60 };
    let config = Config {
        data_dir: reading.data_dir()?,
        name: reading.one(&NAME, parse_name, || default_name(&sources.machine.host_name))?,
        listen: reading.list(&LISTEN, parse_listen)?,
        dht: reading.one(&DHT, parse_switch, || true)?,
        dht_bootstrap: reading.list(&DHT_BOOTSTRAP, parse_host_port)?,
        pkarr_relays: reading.list(&PKARR_RELAYS, parse_relay)?,
        relay: reading.one(&RELAY, parse_switch, || true)?,
        relays: reading.list(&RELAYS, parse_relay)?,
        relay_only: reading.one(&RELAY_ONLY, parse_switch, || false)?,
        relay_ca: reading.optional_path(&RELAY_CA)?,
        peers: reading.list(&PEERS, |text| text.parse::<Ticket>().map_err(|e| e.to_string()))?,
        mdns: reading.one(&MDNS, parse_switch, || true)?,
        lan: reading.one(&LAN, parse_switch, || false)?,
        lan_only: reading.one(&LAN_ONLY, parse_switch, || false)?,
        lab: reading.one(&LAB, parse_switch, || false)?,
        metered: reading.one(&METERED, parse_switch, || false)?,
        sync_interval_s: reading.one(&SYNC_INTERVAL, |t| parse_seconds(t, 1), || every_s)?,
        sync_jitter_s: reading.one(&SYNC_JITTER, |t| parse_seconds(t, 0), || every_s / 2)?,
        rate_down: reading.one(&RATE_DOWN, parse_rate, || 0)?,
        rate_up: reading.one(&RATE_UP, parse_rate, || 0)?,
        connections_max: reading
            .one(&CONNECTIONS_MAX, parse_connections_max, || CONNECTIONS_MAX_DEFAULT)?,
        rns: reading.list(&RNS, parse_rns)?,
        rns_config: reading.optional_path(&RNS_CONFIG)?,
        rns_bitrate: reading.one(&RNS_BITRATE, parse_rate, || 0)?,
        rns_airtime: reading.one(&RNS_AIRTIME, parse_percent, || RNS_AIRTIME_DEFAULT)?,
        rns_first: reading.list(&RNS_FIRST, parse_kinds)?,
        rns_meshlog: reading.one(&RNS_MESHLOG, parse_switch, || false)?,
        rns_broadcast: reading.one(&RNS_BROADCAST, parse_switch, || false)?,
        store_max: reading.one(&STORE_MAX, parse_store_max, || 0)?,
        retention: reading.list(&RETENTION, str::parse::<Rule>)?,
        attachments: match reading.list(&ATTACHMENTS, str::parse::<attachments::Rule>)? {
            rules if rules.is_empty() && metered => {
                let none = attachments::Rule::none();
                reading.show_last_as(none.to_string());
                vec![none]
            }
            rules => rules,
        },
        attachments_max: reading.one(&ATTACHMENTS_MAX, parse_bytes, || ATTACHMENTS_MAX_DEFAULT)?,
        archive: reading.one(&ARCHIVE, parse_switch, || false)?,
        log_level: reading.one(&LOG_LEVEL, str::parse, Level::default)?,
        log_format: reading.one(&LOG_FORMAT, str::parse, Format::default)?,
        log_dir: reading.optional_path(&LOG_DIR)?,
    };
    if config.relay_only && (config.lan_only || !config.relay) {
        let reason =
            "without relays nobody could be reached; take back lan_only, and relay = false";
        return Err(reading.refused(&RELAY_ONLY, reason));
    }
    if config.rns_meshlog && config.rns.is_empty() {
        let reason = "meshlogd is reached over Reticulum: name a way into it, as rns = [\"rnsd\"]";
        return Err(reading.refused(&RNS_MESHLOG, reason));
    }
    let network = reading.network()?;
    let mut notes = Vec::new();
    if config.relay_only && !config.listen.is_empty() {
        notes.push("relay_only is set: no UDP address is listened on".to_owned());
    }
    let outside = [&config.dht_bootstrap, &config.pkarr_relays, &config.relays];
    if config.lan_only && outside.iter().any(|named| !named.is_empty()) {
        notes.push("lan_only is set: neither the DHT nor the relays named are used".to_owned());
    }
    if given(sources.env, "BOOT_NODE").is_some() {
        notes.push(
            "BOOT_NODE is set: none is needed, nodes find each other by the network id; it is ignored"
                .to_owned(),
        );
    }
    Ok(Loaded { config, settings: reading.settings, network, notes })
}

/// Reads where the data is and which network is meant, and checks no other value.
///
/// # Errors
///
/// As [`load`], of these settings and of the file as a whole.
pub fn spot(sources: &Sources<'_>) -> Result<Spot, ConfigError> {
    let mut reading = Reading::of(sources)?;
    let data_dir = reading.data_dir()?;
    let network = reading.network()?;
    let origin = reading.settings.pop().map_or(Origin::Default, |(_, _, origin)| origin);
    Ok(Spot { data_dir, data_dir_origin: origin, network })
}

struct Reading<'a> {
    sources: &'a Sources<'a>,
    file: Layer,
    settings: Vec<(&'static str, String, Origin)>,
}

impl<'a> Reading<'a> {
    fn of(sources: &'a Sources<'a>) -> Result<Self, ConfigError> {
        let file = match sources.file {
            Some((path, text)) => read_toml(path, text)?,
            None => Layer::new(),
        };
        Ok(Self { sources, file, settings: Vec::new() })
    }

    /// Read before its turn: other defaults depend on it.
    fn metered(&mut self) -> Result<bool, ConfigError> {
        let metered = self.one(&METERED, parse_switch, || false)?;
        self.settings.pop();
        Ok(metered)
    }

    /// What the setting that was read last comes to.
    fn show_last_as(&mut self, text: String) {
        if let Some((_, shown, _)) = self.settings.last_mut() {
            *shown = text;
        }
    }

    /// The texts of the strongest place that says something, and which place that is.
    fn find(&self, key: &Key) -> Option<(Vec<String>, Origin)> {
        if let Some(texts) = self.sources.flags.get(key.name) {
            return Some((texts.clone(), Origin::Flag));
        }
        for name in [Some(key.env), key.old_env].into_iter().flatten() {
            if let Some(text) = given(self.sources.env, name) {
                let texts = match key.kind {
                    Kind::List => text.split(',').map(|part| part.trim().to_owned()).collect(),
                    _ => vec![text],
                };
                return Some((texts, Origin::Env(name)));
            }
        }
        let (path, _) = self.sources.file?;
        let texts = self.file.get(key.name)?;
        Some((texts.clone(), Origin::File(path.to_owned())))
    }

    fn one<T: fmt::Display>(
        &mut self,
        key: &'static Key,
        parse: impl Fn(&str) -> Result<T, String>,
        default: impl FnOnce() -> T,
    ) -> Result<T, ConfigError> {
        let (value, origin) = match self.find(key) {
            Some((texts, origin)) => {
                let text = texts.last().map_or("", String::as_str);
                (parsed(key, text, &origin, &parse)?, origin)
            }
            None => (default(), Origin::Default),
        };
        self.settings.push((key.name, value.to_string(), origin));
        Ok(value)
    }

    fn list<T: fmt::Display>(
        &mut self,
        key: &'static Key,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        let (texts, origin) = self.find(key).unwrap_or((Vec::new(), Origin::Default));
        let values = texts
            .iter()
            .map(|text| parsed(key, text, &origin, &parse))
            .collect::<Result<Vec<_>, _>>()?;
        let shown: Vec<_> = values.iter().map(T::to_string).collect();
        self.settings.push((key.name, shown.join(", "), origin));
        Ok(values)
    }

    /// A value that is good by itself, and not with others.
    fn refused(&self, key: &'static Key, reason: &str) -> ConfigError {
        let shown = self.settings.iter().find(|(name, ..)| *name == key.name);
        let (value, origin) = shown
            .map_or((String::new(), Origin::Default), |(_, value, origin)| {
                (value.clone(), origin.clone())
            });
        ConfigError::BadValue { key: key.name, value, origin, reason: reason.to_owned() }
    }

    fn data_dir(&mut self) -> Result<PathBuf, ConfigError> {
        let (path, origin) = match self.find(&DATA_DIR) {
            Some((texts, origin)) => {
                let text = texts.last().map_or("", String::as_str);
                (parsed(&DATA_DIR, text, &origin, &parse_path)?, origin)
            }
            None => default_data_dir(self.sources),
        };
        self.settings.push((DATA_DIR.name, path.display().to_string(), origin));
        Ok(path)
    }

    fn optional_path(&mut self, key: &'static Key) -> Result<Option<PathBuf>, ConfigError> {
        let (path, origin) = match self.find(key) {
            Some((texts, origin)) => {
                let text = texts.last().map_or("", String::as_str);
                (Some(parsed(key, text, &origin, &parse_path)?), origin)
            }
            None => (None, Origin::Default),
        };
        let shown = path.as_ref().map_or_else(String::new, |path| path.display().to_string());
        self.settings.push((key.name, shown, origin));
        Ok(path)
    }

    /// The network of the strongest place that names one, as id or as file.
    fn network(&self) -> Result<Option<NetworkSource>, ConfigError> {
        let (id, path) = (self.find(&NETWORK), self.find(&NETWORK_FILE));
        let id_rank = id.as_ref().map(|(_, origin)| rank(origin));
        let path_rank = path.as_ref().map(|(_, origin)| rank(origin));
        let by_id = match (id_rank, path_rank) {
            (Some(id), Some(path)) if id == path => {
                return Err(ConfigError::BadValue {
                    key: NETWORK_FILE.name,
                    value: path_text(self.find(&NETWORK_FILE)),
                    origin: path_origin(self.find(&NETWORK_FILE)),
                    reason: "the network is named beside it as well; give one of the two".into(),
                });
            }
            (Some(id), Some(path)) => id < path,
            (id, _) => id.is_some(),
        };
        if by_id {
            return Ok(id.map(|(texts, origin)| NetworkSource::Id(texts.concat(), origin)));
        }
        Ok(path.map(|(texts, origin)| NetworkSource::File(PathBuf::from(texts.concat()), origin)))
    }
}

fn path_text(found: Option<(Vec<String>, Origin)>) -> String {
    found.map_or_else(String::new, |(texts, _)| texts.concat())
}

fn path_origin(found: Option<(Vec<String>, Origin)>) -> Origin {
    found.map_or(Origin::Default, |(_, origin)| origin)
}

/// The stronger, the smaller.
fn rank(origin: &Origin) -> u8 {
    match origin {
        Origin::Flag => 0,
        Origin::Env(_) => 1,
        Origin::File(_) => 2,
        Origin::Default => 3,
    }
}

fn parsed<T>(
    key: &Key,
    text: &str,
    origin: &Origin,
    parse: &impl Fn(&str) -> Result<T, String>,
) -> Result<T, ConfigError> {
    parse(text).map_err(|reason| ConfigError::BadValue {
        key: key.name,
        value: text.chars().take(200).collect(),
        origin: origin.clone(),
        reason,
    })
}

/// An environment variable that is set and not empty.
fn given(env: &dyn Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    env(name).filter(|text| !text.is_empty())
}

fn read_toml(path: &Path, text: &str) -> Result<Layer, ConfigError> {
    let table: toml::Table = toml::from_str(text).map_err(|source| ConfigError::NotToml {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    let mut layer = Layer::new();
    for (name, value) in table {
        let Some(key) = KEYS.into_iter().find(|key| key.name == name) else {
            let known: Vec<_> = KEYS.iter().map(|key| key.name).collect();
            let known = known.join(", ");
            return Err(ConfigError::UnknownKey { path: path.to_owned(), key: name, known });
        };
        layer.insert(key.name, toml_texts(path, key, &value)?);
    }
    let names_secret = |id: &String| {
        id.get(..mosaik_core::key::SECRET_PREFIX.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(mosaik_core::key::SECRET_PREFIX))
    };
    if layer.get(NETWORK.name).is_some_and(|texts| texts.iter().any(names_secret)) {
        return Err(ConfigError::BadValue {
            key: NETWORK.name,
            value: "mnet1...".into(),
            origin: Origin::File(path.to_owned()),
            reason: "a secret id has its own file that only its user can read; name that as network_file".into(),
        });
    }
    Ok(layer)
}

fn toml_texts(path: &Path, key: &Key, value: &toml::Value) -> Result<Vec<String>, ConfigError> {
    let wrong = |takes: &str| ConfigError::BadValue {
        key: key.name,
        value: value.to_string().chars().take(200).collect(),
        origin: Origin::File(path.to_owned()),
        reason: format!("this setting takes {takes}"),
    };
    match (key.kind, value) {
        (Kind::Text, toml::Value::String(text)) => Ok(vec![text.clone()]),
        (Kind::Number, toml::Value::Integer(number)) => Ok(vec![number.to_string()]),
        (Kind::Switch, toml::Value::Boolean(switch)) => Ok(vec![switch.to_string()]),
        (Kind::List, toml::Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(|| wrong("a list of texts")))
            .collect(),
        (Kind::Text, _) => Err(wrong("a text in quotes")),
        (Kind::Number, _) => Err(wrong("a whole number")),
        (Kind::Switch, _) => Err(wrong("true or false")),
        (Kind::List, _) => Err(wrong("a list of texts")),
    }
}

fn default_data_dir(sources: &Sources<'_>) -> (PathBuf, Origin) {
    // systemd may give several, with colons between them.
    if let Some(list) = given(sources.env, "STATE_DIRECTORY")
        && let Some(first) = list.split(':').next()
    {
        return (PathBuf::from(first), Origin::Env("STATE_DIRECTORY"));
    }
    let path = match &sources.machine.home {
        Some(home) if !sources.machine.is_root => home.join(".local/share/mosaik-node"),
        _ => PathBuf::from("/var/lib/mosaik-node"),
    };
    (path, Origin::Default)
}

#[cfg(test)]
mod tests;
