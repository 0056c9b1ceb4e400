//! Finding the node that is meant, and saying so when there is none.
//!
//! A verb takes the node that `--network` names, or the only one that runs under the data directory.
//! Where nobody said which data directory, nodes that run elsewhere on this machine count too.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use mosaik_api::{client::Client, failure::Code};
use mosaik_core::key::Network;

use super::{Failed, Place, RunFlags, layer};
use crate::{
    config::{self, ConfigError, Loaded, Machine, NetworkSource, Origin, Sources, Spot},
    directory::{self, Directory, Known},
};

impl From<ConfigError> for Failed {
    fn from(error: ConfigError) -> Self {
        Self::usage(format!("{:#}", anyhow::Error::new(error)))
    }
}

impl From<directory::DirectoryError> for Failed {
    fn from(error: directory::DirectoryError) -> Self {
        Self::from(anyhow::Error::new(error))
    }
}

/// The settings as flags, environment and file say them.
pub(crate) fn settings(place: &Place, run: &RunFlags) -> Result<Loaded, Failed> {
    with_sources(place, run, config::load)
}

/// Where the data is and which network is meant, whatever the other settings say.
pub(crate) fn spot(place: &Place) -> Result<Spot, Failed> {
    with_sources(place, &RunFlags::default(), config::spot)
}

fn with_sources<T>(
    place: &Place,
    run: &RunFlags,
    read: impl FnOnce(&Sources<'_>) -> Result<T, ConfigError>,
) -> Result<T, Failed> {
    let machine = machine();
    let file = config_file(place, &machine)?;
    let sources = Sources {
        flags: &layer(place, run),
        env: &variable,
        file: file.as_ref().map(|(path, text)| (path.as_path(), text.as_str())),
        machine: &machine,
    };
    Ok(read(&sources)?)
}

fn variable(name: &str) -> Option<String> {
    env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn machine() -> Machine {
    Machine {
        is_root: rustix::process::geteuid().is_root(),
        home: env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from),
        host_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
    }
}

/// The TOML file that is named, or the one in the usual place if there is one.
fn config_file(place: &Place, machine: &Machine) -> Result<Option<(PathBuf, String)>, Failed> {
    let named = place.config.clone().or_else(|| {
        env::var_os("MOSAIK_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from)
    });
    let usual = match &machine.home {
        Some(home) if !machine.is_root => home.join(".config/mosaik-node/node.toml"),
        _ => PathBuf::from("/etc/mosaik-node/node.toml"),
    };
    let path = named.clone().unwrap_or(usual);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(Failed::usage(format!("cannot read the settings in {}: {error}", path.display())))
        }
    }
}

/// The directory for sockets with long paths and for the list of running nodes.
pub(crate) fn runtime_directory() -> PathBuf {
    let user = rustix::process::geteuid();
    directory::runtime_directory(user.is_root(), user.as_raw())
}

/// The network that is named, if one is.
pub(crate) fn named_network(source: Option<&NetworkSource>) -> Result<Option<Network>, Failed> {
    Ok(match source {
        None => None,
        Some(NetworkSource::Id(id, origin)) => {
            let network = Network::parse(id).with_context(|| format!("network ({origin})"));
            Some(network.map_err(|error| Failed::usage(format!("{error:#}")))?)
        }
        Some(NetworkSource::File(path, _)) => Some(
            directory::read_network(path)
                .map_err(|error| Failed::usage(format!("{:#}", anyhow::Error::new(error))))?,
        ),
    })
}

/// The node that is meant.
pub(crate) async fn node(place: &Place) -> Result<Client, Failed> {
    let spot = spot(place)?;
    let runtime = runtime_directory();
    if let Some(network) = named_network(spot.network.as_ref())? {
        let fingerprint = network.keys().fingerprint;
        let directory = Directory::of(&spot.data_dir, &fingerprint);
        let client = Client::new(directory.socket(&runtime));
        if client.is_there().await {
            return Ok(client);
        }
        let start = start_command(&spot, Some(&network));
        return Err(Failed::new(
            Code::NoNode,
            format!(
                "no node of this network runs under {}; start one with: {start}",
                spot.data_dir.display()
            ),
        ));
    }
    let mut running = running(&spot, &runtime).await;
    match running.len() {
        0 => Err(no_node(&spot)),
        1 => Ok(running.remove(0).1),
        _ => Err(several(&running)),
    }
}

/// The nodes that answer: under the data directory and, where nobody named one, elsewhere.
async fn running(spot: &Spot, runtime: &Path) -> Vec<(Known, Client)> {
    let mut known: BTreeMap<PathBuf, Known> = BTreeMap::new();
    for network in directory::known_networks(&spot.data_dir) {
        known.insert(network.directory.path().to_owned(), network);
    }
    if spot.data_dir_origin == Origin::Default {
        for path in directory::announced(runtime) {
            if let Some(network) = directory::known_network(&path) {
                known.insert(path, network);
            }
        }
    }
    let mut running = Vec::new();
    for network in known.into_values() {
        let client = Client::new(network.directory.socket(runtime));
        if client.is_there().await {
            running.push((network, client));
        }
    }
    running
}

fn no_node(spot: &Spot) -> Failed {
    let known = directory::known_networks(&spot.data_dir);
    let start = match known.as_slice() {
        [only] => start_command(spot, Some(&only.network)),
        _ => start_command(spot, None),
    };
    let place = spot.data_dir.display();
    Failed::new(Code::NoNode, format!("no node runs under {place}; start one with: {start}"))
}

fn several(running: &[(Known, Client)]) -> Failed {
    let list: Vec<_> = running
        .iter()
        .map(|(known, _)| {
            let data_dir = known.directory.path().parent().unwrap_or(Path::new("/"));
            format!("  --data-dir {} {}", data_dir.display(), network_flag(known))
        })
        .collect();
    Failed::usage(format!(
        "{} nodes run; say which one is meant:\n{}",
        running.len(),
        list.join("\n")
    ))
}

/// How to name this network on the command line, a secret one by its file.
pub(super) fn network_flag(known: &Known) -> String {
    match &known.network {
        Network::Public(name) => format!("--network {}", quoted(name)),
        Network::Secret { .. } => {
            format!("--network-file {}", known.directory.path().join("network").display())
        }
    }
}

/// The command that starts a node, without a secret in it.
fn start_command(spot: &Spot, network: Option<&Network>) -> String {
    let mut command = "mosaik-node".to_owned();
    if spot.data_dir_origin != Origin::Default {
        command.push_str(&format!(" --data-dir {}", quoted(&spot.data_dir.display().to_string())));
    }
    match network {
        Some(Network::Public(name)) => command.push_str(&format!(" --network {}", quoted(name))),
        Some(network) => {
            let directory = Directory::of(&spot.data_dir, &network.keys().fingerprint);
            let is_known = matches!(directory.network(), Ok(Some(_)));
            let file = directory.path().join("network").display().to_string();
            let file = if is_known { quoted(&file) } else { "FILE-WITH-ITS-ID".to_owned() };
            command.push_str(&format!(" --network-file {file}"));
        }
        None => command.push_str(" --network NAME"),
    }
    command
}

/// A word as a shell takes it.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot_of(data_dir: &Path) -> Spot {
        Spot { data_dir: data_dir.to_owned(), data_dir_origin: Origin::Flag, network: None }
    }

    #[test]
    fn the_command_that_starts_a_node_never_holds_a_secret() {
        let root = tempfile::tempdir().expect("a directory");
        let spot = spot_of(root.path());
        let secret =
            Network::Secret { secret: [7; 32], creator: mosaik_core::id::AuthorId([0; 32]) };
        assert!(start_command(&spot, Some(&secret)).ends_with("--network-file FILE-WITH-ITS-ID"));
        let directory = Directory::of(root.path(), &secret.keys().fingerprint);
        directory.prepare(&secret).expect("ours");
        let command = start_command(&spot, Some(&secret));
        assert!(command.ends_with("/network") && !command.contains("mnet1"), "{command}");
        let public = Network::Public("my net".into());
        assert!(start_command(&spot, Some(&public)).ends_with("--network 'my net'"));
    }

    #[tokio::test]
    async fn without_a_node_the_sentence_says_how_to_start_one() {
        let root = tempfile::tempdir().expect("a directory");
        let place = Place { data_dir: Some(root.path().into()), ..Place::default() };
        let Err(Failed::With(failure)) = node(&place).await else { panic!("no node runs there") };
        assert_eq!(failure.code, Code::NoNode);
        assert!(failure.message.contains("mosaik-node --data-dir"), "{failure}");
    }
}
