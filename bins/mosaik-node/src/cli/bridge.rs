//! `bridge`: what goes over radio, and what that costs.

use mosaik_api::{
    client::Client,
    document::{
        Bridge, BridgeFile, BridgeInterface, BridgeMeshlog, BridgePeer, BridgeWaiting, MeshlogPeer,
    },
};

use super::{
    Failed,
    attachment::size_text,
    output::{count, named, note, print, print_json, print_table},
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
        "FILES",
    ];
    print_table(heading, &interfaces)?;
    for it in bridge.interfaces.iter().filter(|it| it.broadcasts_sent + it.broadcasts_heard > 0) {
        let (sent, heard) = (it.broadcasts_sent, it.broadcasts_heard);
        print(format!("broadcast on {}: {sent} events sent, {heard} heard", it.name))?;
    }
    print("")?;
    if let Some(meshlog) = &bridge.meshlog {
        show_meshlog(meshlog)?;
        print("")?;
    }
    show_files(&bridge)?;
    if bridge.peers.is_empty() {
        note("nobody of this network was heard yet");
        return Ok(());
    }
    let peers: Vec<_> = bridge.peers.iter().map(peer).collect();
    print_table(["PEER", "WHO", "STATE", "EVENTS", "HOPS", "HEARD"], &peers)
}

/// The files that are asked for, and what waits for another way.
fn show_files(bridge: &Bridge) -> Result<(), Failed> {
    if bridge.held_back.files > 0 {
        let of = size_text(bridge.held_back.bytes);
        let files = count(bridge.held_back.files, "file");
        print(format!("held back  {files}, {of}: for IP"))?;
        print("")?;
    }
    if bridge.files.is_empty() {
        return Ok(());
    }
    let files: Vec<_> = bridge.files.iter().map(file).collect();
    print_table(["FILE", "STATE", "HERE", "SIZE"], &files)?;
    print("")
}

fn file(it: &BridgeFile) -> [String; 4] {
    let state = if it.coming { "coming" } else { "waits" };
    let blob = it.blob.get(..12).unwrap_or(&it.blob);
    [blob.to_owned(), state.to_owned(), size_text(it.here), size_text(it.size)]
}

fn show_meshlog(it: &BridgeMeshlog) -> Result<(), Failed> {
    let taken = it.verified + it.unverified;
    print(format!("meshlogd   {} authors, {taken} events taken, {} sent", it.authors, it.sent))?;
    if it.unverified > 0 {
        print(format!("           {} of them of authors whose keys are not known", it.unverified))?;
    }
    if it.mismatched > 0 {
        print(format!("           {} of them turned out not to be their author's", it.mismatched))?;
    }
    if it.pending > 0 {
        print(format!("           {} wait for one before them", it.pending))?;
    }
    for refusal in &it.refused {
        print(format!("           refused: {} {}", refusal.events, refusal.why))?;
    }
    let peers: Vec<_> = it.peers.iter().map(meshlog_peer).collect();
    if peers.is_empty() {
        note("no meshlogd was heard yet");
        return Ok(());
    }
    print_table(["MESHLOGD", "STATE", "LACKS", "OFFERS", "HEARD"], &peers)
}

fn meshlog_peer(it: &MeshlogPeer) -> [String; 5] {
    [
        it.identity.clone(),
        if it.linked { "linked" } else { "-" }.to_owned(),
        it.lacks.to_string(),
        it.offers.to_string(),
        it.heard_ms.map_or_else(|| "-".to_owned(), |ms| format!("{} ago", seconds(ms))),
    ]
}

fn interface(it: &BridgeInterface) -> [String; 10] {
    let waiting = |it: BridgeWaiting| match it.bytes {
        0 => "-".to_owned(),
        bytes => format!("{} ({bytes} B)", it.events),
    };
    let bytes =
        |it: BridgeWaiting| Some(it.bytes).filter(|len| *len > 0).map(|len| format!("{len} B"));
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        it.name.clone(),
        if it.online { "online" } else { "offline" }.to_owned(),
        or_dash(it.bitrate.map(|bits| bits.to_string())),
        seconds(it.airtime_used_ms),
        or_dash(it.airtime_left_ms.map(seconds)),
        or_dash(bytes(it.queued.control)),
        waiting(it.queued.news),
        waiting(it.queued.priority),
        waiting(it.queued.history),
        or_dash(bytes(it.queued.files)),
    ]
}

fn peer(it: &BridgePeer) -> [String; 6] {
    let who = it
        .author
        .as_ref()
        .map_or("-".to_owned(), |author| named(it.name.as_deref().unwrap_or_default(), author));
    let state = match (it.linked, it.in_sync) {
        (true, _) => "linked",
        (false, true) => "in sync",
        (false, false) => "differs",
    };
    [
        it.identity.clone(),
        who,
        state.to_owned(),
        it.events.to_string(),
        it.hops.to_string(),
        format!("{} ago", seconds(it.heard_ms)),
    ]
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}
