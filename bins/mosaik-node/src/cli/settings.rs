//! The settings, shown and checked without a node.

use mosaik_api::SCHEMA;
use mosaik_core::key::Network;
use serde_json::json;

use super::{
    ConfigShow, Failed, Place, RunFlags, connect,
    output::{note, print, print_json, print_table},
};
use crate::config::{Loaded, NetworkSource, Origin};

/// Prints every setting and its value; of a secret network the fingerprint.
pub(super) fn show(
    place: &Place,
    show: ConfigShow,
    run: RunFlags,
    json: bool,
) -> Result<(), Failed> {
    let loaded = connect::settings(place, &show.run.or(run))?;
    let settings = with_network(&loaded)?;
    if json {
        let settings: Vec<_> = settings
            .iter()
            .map(|(key, value, origin)| {
                json!({ "key": key, "value": value, "origin": origin.to_string() })
            })
            .collect();
        return print_json(&json!({ "schema": SCHEMA, "settings": settings }));
    }
    if show.origin {
        let rows: Vec<_> = settings
            .into_iter()
            .map(|(key, value, origin)| [key.to_owned(), value, origin.to_string()])
            .collect();
        print_table(["SETTING", "VALUE", "FROM"], &rows)?;
    } else {
        let rows: Vec<_> =
            settings.into_iter().map(|(key, value, _)| [key.to_owned(), value]).collect();
        print_table(["SETTING", "VALUE"], &rows)?;
    }
    loaded.notes.iter().for_each(|sentence| note(format!("note: {sentence}")));
    Ok(())
}

/// Reads all settings, and says that they are good.
pub(super) fn check(place: &Place, run: &RunFlags) -> Result<(), Failed> {
    let loaded = connect::settings(place, run)?;
    with_network(&loaded)?;
    loaded.notes.iter().for_each(|sentence| note(format!("note: {sentence}")));
    print("the settings are good")
}

/// The settings with the network's among them, as it may be shown.
fn with_network(loaded: &Loaded) -> Result<Vec<(&'static str, String, Origin)>, Failed> {
    let network = connect::named_network(loaded.network.as_ref())?;
    let shown = match &network {
        None => "(the only one known in the data directory)".to_owned(),
        Some(Network::Public(name)) => name.clone(),
        Some(secret) => format!("secret, fingerprint {}", secret.keys().fingerprint),
    };
    let origin = match &loaded.network {
        None => Origin::Default,
        Some(NetworkSource::Id(_, origin) | NetworkSource::File(_, origin)) => origin.clone(),
    };
    let mut settings = loaded.settings.clone();
    settings.insert(1, ("network", shown, origin));
    Ok(settings)
}
