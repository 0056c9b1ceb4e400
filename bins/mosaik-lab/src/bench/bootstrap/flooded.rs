//! Hundreds of dead peers: a hostile member has made them up, and goes on to tell of them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use ed25519_dalek::SigningKey;
use mosaik_api::document::{Peer, PeerState};
use mosaik_core::{id::NodeId, key::NetworkKeys};
use mosaik_proto::{
    carrier::{Addresses, Effect},
    hint::{Hint, Presence},
};
use tokio::{task::JoinSet, time::interval};

use super::{broken_after, count, ghosts::Ghosts, site::Site, times};
use crate::{
    Node,
    bench::{
        figure::{Figure, progress},
        member::{Member, place_of, unix_ms},
        place::{Directory, Place},
    },
    wait,
};

/// Nodes that are made up, of which so many greet, and are gone then: the cache on disk, which has 256, is
/// full of them. Of the others gossip alone has ever spoken.
const TOLD: usize = 500;
const GREETED: usize = 250;
/// How many of them greet at the same time.
const AT_ONCE: usize = 16;
/// From one word of gossip to the next.
const TELL_EVERY: Duration = Duration::from_millis(5);
/// How long it may take until the newcomer has heard of all, before something is broken.
const HEARD_MAX: Duration = Duration::from_secs(120);

const FOUND_MAX_S: f64 = 10.0;
const DIALS_MAX: f64 = 40.0;

/// In its first life a newcomer knows a hostile member alone. That tells it of hundreds of nodes, each by
/// the node's own signature, and plays half of them until they are known. In its second life all of those
/// are gone, and leases of dead nodes are in all slots but one. There is the one honest node, which it
/// finds while the hostile member keeps a session with it and goes on.
///
/// # Errors
///
/// If a node doesn't start, or the honest one isn't found in ten times the time.
pub async fn flooded(place: &Place, runs: usize) -> Result<Vec<Figure>> {
    let case = "500 dead 1 live";
    progress(format_args!("bootstrap: {case}"));
    let (mut took, mut dials) = (Vec::new(), 0);
    for _ in 0..runs {
        let found = Box::pin(second_life(place.directory()?)).await?;
        took.push(found.took_s);
        dials = dials.max(found.dials);
    }
    let mut figures = times(case, &took, None, FOUND_MAX_S);
    figures.push(count(case, "dials_max", dials).at_most(DIALS_MAX));
    Ok(figures)
}

/// How the newcomer fared in its second life.
struct Found {
    /// From its start to a session with the honest node.
    took_s: f64,
    /// Whom it had dialed until then, of those that are gone, and the two that are there.
    dials: usize,
}

async fn second_life(directory: Directory) -> Result<Found> {
    let mut site = Site::new(directory).await?;
    site.start_holders(1).await?;
    site.slots.fill_free_with_dead()?;
    let keys = site.slots.network().clone();
    let made_up = MadeUp::start().await?;
    let newcomer = site.cluster.add_node()?;
    let arguments = newcomer.arguments.clone();
    newcomer.arguments = without_dht(&arguments);
    newcomer.start().await?;
    let identity = newcomer.identity().await?;
    let parsed = identity.addresses.iter().map(|address| address.parse());
    let own = parsed.collect::<Result<Vec<SocketAddr>, _>>()?;

    let hostile = Member::start(&keys, &SigningKey::from_bytes(&rand::random()), true).await?;
    let place = place_of(newcomer).await?;
    let told = made_up.keys.iter().cloned().zip(made_up.ghosts.addresses()).collect();
    let mut goes_on = JoinSet::new();
    goes_on.spawn(go_on(hostile, place.clone(), keys.clone(), told));
    knows(newcomer, TOLD, |peer| !peer.known_addresses.is_empty()).await?;
    for keys_of_some in made_up.keys[..GREETED].chunks(AT_ONCE) {
        greet(keys_of_some, &place, &keys).await?;
    }
    newcomer.stop().await?;
    newcomer.arguments = arguments;
    let before = made_up.ghosts.dials_from(&own).into_iter().sum::<usize>();

    let begun = Instant::now();
    newcomer.launch()?;
    let [honest, newcomer] = &site.cluster.nodes[..] else { bail!("two nodes") };
    wait::until("a session with the honest node", broken_after(FOUND_MAX_S), async || {
        let peers = honest.peers().await.map_err(|error| format!("{error:#}"))?.peers;
        let is_there = |peer: &Peer| peer.id == identity.node && peer.state == PeerState::Connected;
        if peers.iter().any(is_there) { Ok(()) } else { Err(format!("{peers:?}")) }
    })
    .await?;
    let took_s = begun.elapsed().as_secs_f64();
    let of_slots: usize = site.slots.ghosts.dials_from(&own).into_iter().sum();
    let after = made_up.ghosts.dials_from(&own).into_iter().sum::<usize>();
    knows(newcomer, GREETED, |peer| peer.found_by == "cache").await?;
    goes_on.shutdown().await;
    site.cluster.stop().await?;
    // And the two that are there.
    Ok(Found { took_s, dials: after - before + of_slots + 2 })
}

/// Nodes that never were, or are gone by the time they are dialed.
struct MadeUp {
    keys: Vec<SigningKey>,
    ghosts: Ghosts,
}

impl MadeUp {
    async fn start() -> Result<Self> {
        let keys = (0..TOLD).map(|_| SigningKey::from_bytes(&rand::random())).collect();
        Ok(Self { keys, ghosts: Ghosts::start(TOLD).await? })
    }
}

/// A node's command line without the DHT.
fn without_dht(arguments: &[String]) -> Vec<String> {
    let mut words = arguments.iter();
    let mut without = vec!["--no-dht".to_owned()];
    while let Some(word) = words.next() {
        if word == "--dht-bootstrap" {
            words.next();
        } else {
            without.push(word.clone());
        }
    }
    without
}

/// Keeps a session with a node and tells it of all these again and again, as if they spoke themselves.
async fn go_on(
    hostile: Member,
    to: (NodeId, Addresses),
    keys: NetworkKeys,
    told: Vec<(SigningKey, SocketAddr)>,
) -> Result<()> {
    let mut every = interval(TELL_EVERY);
    for (key, address) in told.iter().cycle() {
        every.tick().await;
        if hostile.is_alone() {
            hostile.dial(to.clone()).await?;
        }
        let addresses = Addresses { direct: vec![*address], relays: Vec::new() };
        let word =
            Presence::sign(key, &keys.fingerprint, 1, unix_ms(), false, "made up", &addresses);
        hostile.order(Effect::Gossip(Hint::Presence(word))).await?;
    }
    Ok(())
}

/// Some of them greet a node, and are gone.
async fn greet(some: &[SigningKey], to: &(NodeId, Addresses), keys: &NetworkKeys) -> Result<()> {
    let mut members = Vec::new();
    for key in some {
        let member = Member::start(keys, key, false).await?;
        member.dial(to.clone()).await?;
        members.push(member);
    }
    let mut leaving = JoinSet::new();
    for mut member in members {
        member.opened().await?;
        leaving.spawn(member.leave());
    }
    while let Some(left) = leaving.join_next().await {
        left??;
    }
    Ok(())
}

/// Waits until a node knows so many such peers.
async fn knows(node: &Node, number: usize, such: impl Fn(&Peer) -> bool) -> Result<()> {
    wait::until("hundreds of peers to be known", HEARD_MAX, async || {
        let peers = node.peers().await.map_err(|error| format!("{error:#}"))?.peers;
        let known = peers.iter().filter(|peer| such(peer)).count();
        if known >= number { Ok(()) } else { Err(format!("{known} of {number}")) }
    })
    .await
}
