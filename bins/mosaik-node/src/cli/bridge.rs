//! `bridge`: what goes over radio, and what that costs.

use mosaik_api::{
    client::Client,
    document::{BridgeInterface, BridgePeer, BridgeWaiting},
};

use super::{
    Failed,
    output::{note, print, print_json, print_table},
};

/// Answers `bridge` and `bridge status`.
pub(super) async fn bridge(client: &Client, json: bool) -> Result<(), Failed> {
    let bridge = client.bridge().await?;
    if json {
        return print_json(&bridge);
    }
    let Some(identity) = &bridge.identity else {
        note("no radio: start the node with a way into Reticulum, as --rns rnsd");
        return Ok(());
    };
    print(format!("identity   {identity}"))?;
    print("")?;
    let interfaces: Vec<_> = bridge.interfaces.iter().map(interface).collect();
    let heading = [
        "INTERFACE",
        "STATE",
        "BIT/S",
        "AIR USED",
        "AIR LEFT",
        "CONTROL",
        "NEWS",
        "FIRST",
        "HISTORY",
    ];
    print_table(heading, &interfaces)?;
    print("")?;
    if bridge.peers.is_empty() {
        note("nobody of this network was heard yet");
        return Ok(());
    }
    let peers: Vec<_> = bridge.peers.iter().map(peer).collect();
    print_table(["PEER", "STATE", "EVENTS", "HOPS", "HEARD"], &peers)
}

fn interface(it: &BridgeInterface) -> [String; 9] {
    let waiting = |it: BridgeWaiting| match it.bytes {
        0 => "-".to_owned(),
        bytes => format!("{} ({bytes} B)", it.events),
    };
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        it.name.clone(),
        if it.online { "online" } else { "offline" }.to_owned(),
        or_dash(it.bitrate.map(|bits| bits.to_string())),
        seconds(it.airtime_used_ms),
        or_dash(it.airtime_left_ms.map(seconds)),
        or_dash(Some(it.queued.control.bytes).filter(|len| *len > 0).map(|len| format!("{len} B"))),
        waiting(it.queued.news),
        waiting(it.queued.priority),
        waiting(it.queued.history),
    ]
}

fn peer(it: &BridgePeer) -> [String; 5] {
    let state = match (it.linked, it.in_sync) {
        (true, _) => "linked",
        (false, true) => "in sync",
        (false, false) => "differs",
    };
    [
        it.identity.clone(),
        state.to_owned(),
        it.events.to_string(),
        it.hops.to_string(),
        format!("{} ago", seconds(it.heard_ms)),
    ]
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}
