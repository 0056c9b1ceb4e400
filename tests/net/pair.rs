//! Two nodes of a network of their own, each in a home.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_lite::future::zip;
use mosaik_api::document::{Peer, PeerState};
use mosaik_lab::{Node, wait};

use super::internet::{Home, Internet};

/// How long any step may take that is promised no time.
pub(crate) const STEP: Duration = Duration::from_secs(120);
/// A direct path opens within 5 s where one can. Where both ends' packets missed each other under load,
/// the transport tries again after a minute.
pub(crate) const DIRECT_MAX: Duration = Duration::from_secs(120);
/// Ten times the 10 s within which nodes are in sync again when the network is back, in seconds.
const BACK_MAX_S: &str = "100";

/// The only peer of a node, if it is connected.
pub(crate) async fn connected(node: &Node) -> Result<Peer, String> {
    let peers = node.peers().await.map_err(|error| format!("{error:#}"))?.peers;
    match peers.iter().find(|peer| peer.state == PeerState::Connected) {
        Some(peer) => Ok(peer.clone()),
        None => Err(format!("{peers:?}")),
    }
}

pub(crate) fn is_on(peer: &Peer, path: &str) -> bool {
    peer.path.as_deref() == Some(path)
}

pub(crate) async fn until_on(node: &Node, path: &str, deadline: Duration) -> Result<()> {
    wait::until(&format!("the path to be {path}"), deadline, || async {
        let peer = connected(node).await?;
        if is_on(&peer, path) { Ok(()) } else { Err(format!("{peer:?}")) }
    })
    .await
    .with_context(|| node.name().to_owned())
}

pub(crate) async fn write(node: &Node, record: &str) -> Result<()> {
    node.run(&["record", "create", record, "--form", "visit", "place=well"]).await?.ok().map(drop)
}

/// Waits until a node has what the other wrote.
pub(crate) async fn has(node: &Node, record: &str, seconds: &str) -> Result<()> {
    let wait = ["wait", "--record", record, "--field", "place=well", "--timeout", seconds];
    node.run_with(&wait, b"", STEP * 2).await?.ok().map(drop)
}

/// Two nodes of a network of their own.
pub(crate) struct Pair {
    pub(crate) a: Node,
    pub(crate) b: Node,
}

impl Pair {
    pub(crate) fn new(internet: &Internet, name: &str, a: &Home, b: &Home) -> Result<Self> {
        let network = format!("nat-{name}");
        let node = |end: &str, home| internet.node(home, &format!("{name}-{end}"), &network);
        Ok(Self { a: node("a", a)?, b: node("b", b)? })
    }

    pub(crate) async fn start(&mut self) -> Result<()> {
        self.a.launch()?;
        self.b.launch()?;
        self.a.ready().await?;
        self.b.ready().await
    }

    /// Waits until they have met.
    pub(crate) async fn meet(&self) -> Result<()> {
        let met = wait::until("a peer", STEP, || async { connected(&self.a).await.map(drop) });
        met.await.with_context(|| self.a.name().to_owned())
    }

    /// Writes at both ends, and waits until each has what the other wrote.
    pub(crate) async fn in_sync(&self, name: &str) -> Result<()> {
        let (from_a, from_b) = (format!("{name}-a"), format!("{name}-b"));
        write(&self.a, &from_a).await?;
        write(&self.b, &from_b).await?;
        self.both_have(&from_a, &from_b).await
    }

    pub(crate) async fn both_have(&self, from_a: &str, from_b: &str) -> Result<()> {
        let both = zip(has(&self.a, from_b, BACK_MAX_S), has(&self.b, from_a, BACK_MAX_S)).await;
        both.0.and(both.1)
    }

    /// Waits until `b` has lost `a`: what was done to `a` works.
    pub(crate) async fn is_lost(&self) -> Result<()> {
        wait::until("the session to end", STEP, || async {
            match connected(&self.b).await {
                Ok(peer) => Err(format!("{peer:?}")),
                Err(_) => Ok(()),
            }
        })
        .await
    }
}

/// All of them at the same time, whatever comes of any.
pub(crate) async fn all<T>(stories: Vec<impl Future<Output = Result<T>>>) -> Vec<Result<T>> {
    let mut done = Vec::new();
    let mut stories: Vec<_> = stories.into_iter().map(Box::pin).map(Some).collect();
    std::future::poll_fn(|context| {
        for story in &mut stories {
            if let Some(running) = story
                && let std::task::Poll::Ready(end) = running.as_mut().poll(context)
            {
                done.push(end);
                *story = None;
            }
        }
        match stories.iter().all(Option::is_none) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    done
}
