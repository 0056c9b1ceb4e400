//! Networks: made, listed and shown without a node.
//!
//! Invariant: a secret id is printed by `network new`, which makes it, and by `network show`, and by
//! nothing else.

use ed25519_dalek::SigningKey;
use mosaik_api::SCHEMA;
use mosaik_core::{
    id::AuthorId,
    key::{Network, NetworkKind},
};
use serde_json::json;

use super::{
    Failed, Place, connect,
    look::only_known,
    output::{note, plain, print, print_json, print_table},
    qr::print_qr,
};
use crate::directory::{self, Directory, known_networks};

/// Lists the networks that have a directory here.
pub(super) fn list(place: &Place, json: bool) -> Result<(), Failed> {
    let spot = connect::spot(place)?;
    // All are listed whichever is named; one that is mistyped is told all the same.
    connect::named_network(spot.network.as_ref())?;
    let data_dir = spot.data_dir;
    let known = known_networks(&data_dir);
    if json {
        let networks: Vec<_> = known
            .iter()
            .map(|known| {
                json!({
                    "fingerprint": known.fingerprint.to_string(),
                    "kind": known.network.kind().as_str(),
                    "name": public_name(&known.network),
                    "label": known.label,
                    "directory": known.directory.path().display().to_string(),
                })
            })
            .collect();
        return print_json(&json!({ "schema": SCHEMA, "networks": networks }));
    }
    if known.is_empty() {
        note(format!("no network is known in {}", data_dir.display()));
        return Ok(());
    }
    let rows: Vec<_> = known
        .iter()
        .map(|known| {
            let name = public_name(&known.network).or(known.label.as_deref()).unwrap_or_default();
            [
                known.fingerprint.to_string()[..16].to_owned(),
                known.network.kind().as_str().to_owned(),
                plain(name),
                known.directory.path().display().to_string(),
            ]
        })
        .collect();
    print_table(["NETWORK", "KIND", "NAME", "DIRECTORY"], &rows)
}

fn public_name(network: &Network) -> Option<&str> {
    match network {
        Network::Public(name) => Some(name),
        Network::Secret { .. } => None,
    }
}

/// Makes a secret network, keeps it here, and prints its id.
pub(super) fn new(place: &Place, label: Option<&str>, qr: bool, json: bool) -> Result<(), Failed> {
    if place.network.is_some() || place.network_file.is_some() {
        return Err(Failed::usage(
            "network new makes a network with an id of its own: leave --network out; to join the \
             one that it names, run a node with it",
        ));
    }
    let data_dir = connect::spot(place)?.data_dir;
    // The creator's author key is part of the id, so the key is made first and kept with it.
    let seed: [u8; 32] = rand::random();
    let creator = AuthorId(SigningKey::from_bytes(&seed).verifying_key().to_bytes());
    let network = Network::Secret { secret: rand::random(), creator };
    let fingerprint = network.keys().fingerprint;
    let directory = Directory::of(&data_dir, &fingerprint);
    directory.prepare(&network)?;
    directory.adopt_author(&seed)?;
    if let Some(label) = label {
        directory.set_label(label)?;
    }
    if json {
        return print_network(&network, label, &directory);
    }
    print(&network)?;
    if qr {
        print_qr(&network.to_string())?;
    }
    note(format!(
        "\nThis id is the only key to the network: who has it reads and writes all, and without it \
         nobody joins.\nKeep a copy where it is safe. It is also in {}.\n\
         The key of its creator, as whom this machine writes, is saved in {}.\n\n\
         Run a node here:     mosaik-node{} --network-file {}\n\
         On another machine:  put the id into a file that only you can read, then\n\
         \x20                    mosaik-node --network-file FILE",
        directory.path().join("network").display(),
        directory.path().join("author.key").display(),
        if place.data_dir.is_some() {
            format!(" --data-dir {}", connect::quoted(&data_dir.display().to_string()))
        } else {
            String::new()
        },
        connect::quoted(&directory.path().join("network").display().to_string()),
    ));
    Ok(())
}

/// Prints a network's id, the secret included.
pub(super) fn show(place: &Place, qr: bool, json: bool) -> Result<(), Failed> {
    let spot = connect::spot(place)?;
    let network = match connect::named_network(spot.network.as_ref())? {
        Some(network) => network,
        None => only_known(&spot.data_dir)?,
    };
    let directory = Directory::of(&spot.data_dir, &network.keys().fingerprint);
    if json {
        return print_network(&network, directory.label().as_deref(), &directory);
    }
    print(&network)?;
    if qr {
        print_qr(&network.to_string())?;
    }
    note(format!("fingerprint  {}", network.keys().fingerprint));
    note(match network.kind() {
        NetworkKind::Public => "public: anyone who knows this name can join and write",
        NetworkKind::Secret => "secret: who has this id can join and write; keep it so",
    });
    Ok(())
}

fn print_network(
    network: &Network,
    label: Option<&str>,
    directory: &Directory,
) -> Result<(), Failed> {
    let is_kept = directory::known_network(directory.path()).is_some();
    print_json(&json!({
        "schema": SCHEMA,
        "network": {
            "id": network.to_string(),
            "fingerprint": network.keys().fingerprint.to_string(),
            "kind": network.kind().as_str(),
        },
        "label": label,
        "directory": is_kept.then(|| directory.path().display().to_string()),
    }))
}
