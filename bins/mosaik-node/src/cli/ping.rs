//! Whether a peer answers, by which way, and how soon.

use std::time::Duration;

use mosaik_api::{
    client::Client,
    document::Pinged,
    failure::{Code, Failure},
};

use super::{
    Failed,
    output::{named, plain, print, print_json},
    write::full_id,
};

/// Time between two pings. A relay carries the first packets as a rule, and a direct path takes a second
/// or two to open.
const APART: Duration = Duration::from_secs(1);

/// Pings until an answer comes directly, at most `count` times. How it ends is told by the last one.
pub(super) async fn ping(
    client: &Client,
    peer: String,
    count: u32,
    json: bool,
) -> Result<(), Failed> {
    let id = full_id(client, peer).await?;
    let known = client.peers().await?;
    let name = known.peers.iter().find(|peer| peer.id == id).map_or("", |peer| &peer.name);
    let mut at = 1;
    let last = loop {
        let pinged = client.ping(&id).await?;
        if !json {
            print(line(&named(name, &id), &pinged))?;
        }
        if is_direct(&pinged) || at == count {
            break pinged;
        }
        at += 1;
        tokio::time::sleep(APART).await;
    };
    if json {
        print_json(&last)?;
    }
    match (&last.reason, is_direct(&last)) {
        (Some(reason), _) => Err(Failed::Shown(Failure::new(Code::Unreachable, plain(reason)))),
        (None, false) => Err(Failed::Shown(Failure::new(Code::Indirect, way(&last)))),
        (None, true) => Ok(()),
    }
}

fn is_direct(pinged: &Pinged) -> bool {
    pinged.answered && matches!(pinged.path.as_deref(), Some("lan" | "direct"))
}

/// `relay https://relay.example.org./`.
fn way(pinged: &Pinged) -> String {
    let parts = [pinged.path.as_deref(), pinged.address.as_deref()];
    parts.into_iter().flatten().map(plain).collect::<Vec<_>>().join(" ")
}

fn line(name: &str, pinged: &Pinged) -> String {
    match (&pinged.reason, pinged.rtt_ms) {
        (Some(reason), _) => format!("{name}: no answer: {}", plain(reason)),
        (None, rtt_ms) => format!("{name}: {}, {:.1} ms", way(pinged), rtt_ms.unwrap_or(0.0)),
    }
}
