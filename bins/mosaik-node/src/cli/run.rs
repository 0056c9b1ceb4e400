//! `run`: a node in the foreground, until it is told to stop.
//!
//! Prints what the node is and what it publishes, then one line for each change. SIGINT and SIGTERM
//! say goodbye and stop; a second one stops at once. SIGHUP reads the settings again, takes the log's
//! level from them, and opens the log anew.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use mosaik_api::{
    document::{Peer, PeerState, State},
    failure::Code,
};
use mosaik_core::key::{Network, NetworkKind};
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tracing::{info, warn};

use super::{
    Failed, Place, RunFlags, connect,
    look::{only_known, path_text, state_line},
    output::{named, note, plain, print},
};
use crate::{
    Node,
    config::Config,
    directory::make_private,
    doctor::Means,
    handle::Snapshot,
    http::{self, About},
    subscriber::Log,
};

/// How long answers that are under way may take at the end.
///
/// A commit on a slow card. Who is still sending a request then was promised nothing.
const ANSWERS_END: Duration = Duration::from_secs(5);

/// Runs a node until a signal stops it.
pub(super) fn run(place: &Place, flags: &RunFlags) -> Result<(), Failed> {
    let loaded = connect::settings(place, flags)?;
    loaded.notes.iter().for_each(|sentence| note(format!("note: {sentence}")));
    let network = match connect::named_network(loaded.network.as_ref())? {
        Some(network) => network,
        None => only_known(&loaded.config.data_dir).map_err(as_usage)?,
    };
    // What libraries make on their own is for this user alone, too.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let log = Log::begin(&loaded.config)?;
    let runtime = runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the threads of a node")?;
    let again = || connect::settings(place, flags).map(|loaded| loaded.config);
    let ended = runtime.block_on(Box::pin(foreground(loaded.config, &network, &log, again)));
    // A read that hangs on a broken disk must not keep the process.
    runtime.shutdown_timeout(ANSWERS_END);
    ended
}

/// Where nothing is known yet, a network has to be named: that isn't a thing that was looked for.
fn as_usage(failed: Failed) -> Failed {
    match failed {
        Failed::With(failure) => Failed::usage(failure.message),
        Failed::Shown(_) | Failed::NobodyReads => failed,
    }
}

async fn foreground(
    config: Config,
    network: &Network,
    log: &Log,
    again: impl Fn() -> Result<Config, Failed>,
) -> Result<(), Failed> {
    // Before anything is open: from here on a signal is a wish, not an end.
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let (name, data_dir) = (config.name.clone(), config.data_dir.clone());
    let means = Means::of(&config);
    let node = Box::pin(Node::open(config, network)).await.map_err(anyhow::Error::new)?;
    let keys = network.keys();
    let door = Door::open(&node, |socket| About {
        node: node.id(),
        name: name.clone(),
        fingerprint: keys.fingerprint,
        kind: keys.kind,
        data_dir: data_dir.display().to_string(),
        socket,
        means,
    })?;
    say(format!("node       {}, {}", named(&name, &node.id().to_string()), node.id()));
    say(format!("network    {} ({})", keys.fingerprint, keys.kind.as_str()));
    if keys.kind == NetworkKind::Public {
        say("           anyone who knows its name can join and write");
    }
    say(format!("data dir   {}", node.directory().path().display()));
    say(format!("socket     {}", door.socket.display()));
    info!(node = node.id().short(), network = keys.fingerprint.short(), "the node runs");

    let handle = node.handle();
    let mut snapshots = handle.watch();
    let mut teller = Teller::default();
    let mut ended_by_itself = false;
    loop {
        tokio::select! {
            changed = snapshots.changed() => {
                if changed.is_err() {
                    ended_by_itself = true;
                    break;
                }
                let lines = teller.changes(&snapshots.borrow_and_update());
                lines.into_iter().for_each(say);
            }
            wish = signals.next() => match wish {
                Wish::Stop => break,
                Wish::Reload => reload(log, &again),
            },
        }
    }
    if ended_by_itself {
        door.close().await;
        return Err(Failed::new(Code::Failed, "the node ended by itself; the log says why"));
    }
    say("leaving");
    let leave = async {
        door.close().await;
        handle.shutdown().await;
        node.stopped().await;
    };
    let at_once = async { while !matches!(signals.next().await, Wish::Stop) {} };
    tokio::select! {
        () = leave => {
            say("left");
            info!("the node has stopped");
            Ok(())
        }
        () = at_once => Err(Failed::new(Code::Failed, "stopped at once, without a goodbye")),
    }
}

/// Prints a line; that nobody reads it does not end a node.
fn say(line: impl std::fmt::Display) {
    let _ = print(line);
}

fn reload(log: &Log, again: &impl Fn() -> Result<Config, Failed>) {
    let reopened = log.reopen();
    match again() {
        Ok(config) => match reopened.and_then(|()| log.set_level(config.log_level)) {
            Ok(()) => info!(level = %config.log_level, "settings read again"),
            Err(error) => warn!(error = format!("{error:#}"), "the log stays as it was"),
        },
        Err(Failed::With(failure)) => warn!(%failure, "the settings stay as they were"),
        Err(Failed::Shown(_) | Failed::NobodyReads) => {}
    }
}

pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.hang_up.recv() => Wish::Reload,
        }
    }
}

/// What a signal asks for.
pub(super) enum Wish {
    Stop,
    Reload,
}

/// Where verbs come in: the socket, and the note in the runtime directory that it is there.
struct Door {
    socket: PathBuf,
    runtime: PathBuf,
    directory: crate::directory::Directory,
    stop: watch::Sender<bool>,
    server: JoinHandle<io::Result<()>>,
}

impl Door {
    fn open(node: &Node, about: impl FnOnce(String) -> About) -> Result<Self, Failed> {
        let runtime = connect::runtime_directory();
        let directory = node.directory().clone();
        let socket = directory.socket(&runtime);
        if !socket.starts_with(directory.path()) {
            make_private(&runtime)?;
        }
        let listener = http::bind(&socket)
            .with_context(|| format!("cannot listen on {}", socket.display()))?;
        if let Err(error) = directory.announce(&runtime) {
            // Only verbs without --data-dir miss it.
            warn!(error = format!("{:#}", anyhow::Error::new(error)), "the node is not announced");
        }
        let (stop, stopping) = watch::channel(false);
        let about = about(socket.display().to_string());
        let served =
            http::serve(listener, about, node.handle(), node.reads(), node.attachments(), stopping);
        Ok(Self { socket, runtime, directory, stop, server: tokio::spawn(served) })
    }

    /// Takes no more requests, finishes those under way, and removes the socket.
    async fn close(self) {
        self.stop.send_replace(true);
        let mut server = self.server;
        if timeout(ANSWERS_END, &mut server).await.is_err() {
            server.abort();
        }
        self.directory.withdraw(&self.runtime);
        remove(&self.socket);
    }
}

fn remove(socket: &Path) {
    if let Err(error) = fs::remove_file(socket)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(%error, "the socket stays behind");
    }
}

/// Turns snapshots into lines: one for each change that a person would want to know.
#[derive(Default)]
struct Teller {
    published: Vec<String>,
    notices: Vec<String>,
    degraded: Option<String>,
    doing: Option<(State, String)>,
    peers: BTreeMap<String, PeerState>,
}

impl Teller {
    fn changes(&mut self, shown: &Snapshot) -> Vec<String> {
        let mut lines = Vec::new();
        if shown.published != self.published {
            for sentence in shown.published.iter().filter(|s| !self.published.contains(s)) {
                lines.push(format!("publishes  {}", plain(sentence)));
            }
            self.published.clone_from(&shown.published);
        }
        for peer in &shown.peers {
            let before = self.peers.insert(peer.id.clone(), peer.state);
            if before != Some(peer.state) {
                lines.extend(peer_line(peer, before));
            }
        }
        for notice in shown.notices.iter().filter(|notice| !self.notices.contains(notice)) {
            lines.push(format!("notice     {}", plain(notice)));
        }
        self.notices.clone_from(&shown.notices);
        if shown.degraded != self.degraded {
            lines.push(match &shown.degraded {
                Some(why) => format!("degraded   nothing can be written: {}", plain(why)),
                None => "recovered  writing works again".to_owned(),
            });
            self.degraded.clone_from(&shown.degraded);
        }
        let doing = (shown.state, without_countdown(&shown.doing).to_owned());
        if self.doing.as_ref() != Some(&doing) {
            lines.push(format!("state      {}", state_line(shown.state, &shown.doing)));
            self.doing = Some(doing);
        }
        lines
    }
}

/// What is done, without when it is done next: that alone is no change.
fn without_countdown(doing: &str) -> &str {
    doing.split_once(", next look in").map_or(doing, |(doing, _)| doing)
}

/// What became of a peer; nothing is said of what only may be.
fn peer_line(peer: &Peer, before: Option<PeerState>) -> Option<String> {
    let name = named(&peer.name, &peer.id);
    let what = match (peer.state, before) {
        (PeerState::Connected, _) => {
            format!("{name} found by {}, {}", plain(&peer.found_by), path_text(peer))
        }
        (PeerState::Lost, Some(PeerState::Connected)) => format!("{name} is lost"),
        (PeerState::Left, Some(_)) => format!("{name} left"),
        (PeerState::Refused, _) => {
            let reason = peer.reason.as_deref().unwrap_or("another network, or another protocol");
            format!("{name} is refused: {}", plain(reason))
        }
        (PeerState::Blocked, Some(_)) => format!("{name} is blocked"),
        _ => return None,
    };
    Some(format!("peer       {what}"))
}

#[cfg(test)]
mod tests {
    use mosaik_core::{
        id::{AuthorId, NodeId},
        ticket::Ticket,
    };

    use super::*;

    fn snapshot() -> Snapshot {
        let ticket = Ticket { node: NodeId([1; 32]), relays: Vec::new(), addresses: Vec::new() };
        Snapshot::beginning(AuthorId([2; 32]), ticket)
    }

    fn peer(state: PeerState) -> Peer {
        Peer {
            name: "team".into(),
            path: Some("direct".into()),
            address: Some("192.0.2.1:4242".into()),
            rtt_ms: Some(1.0),
            ..Peer::new("3f2a9c".repeat(8), state, "slot")
        }
    }

    #[test]
    fn each_change_is_one_line_and_a_countdown_is_none() {
        let (mut teller, mut shown) = (Teller::default(), snapshot());
        shown.doing = "looking for peers: 16 slots empty, next look in 5 s".into();
        assert_eq!(
            teller.changes(&shown),
            ["state      isolated: looking for peers: 16 slots empty, next look in 5 s"]
        );
        shown.doing = "looking for peers: 16 slots empty, next look in 4 s".into();
        assert!(teller.changes(&shown).is_empty());
        shown.peers = vec![peer(PeerState::Dialing)];
        assert!(teller.changes(&shown).is_empty());
        shown.peers = vec![peer(PeerState::Connected)];
        assert_eq!(
            teller.changes(&shown),
            ["peer       team (3f2a9c) found by slot, direct 192.0.2.1:4242"]
        );
        shown.peers[0].rtt_ms = Some(2.0);
        assert!(teller.changes(&shown).is_empty());
        shown.peers = vec![peer(PeerState::Left)];
        shown.state = State::InSync;
        assert_eq!(teller.changes(&shown).len(), 2);
    }

    #[test]
    fn a_refused_peer_is_named_with_the_reason() {
        let (mut teller, mut shown) = (Teller::default(), snapshot());
        shown.peers = vec![Peer { reason: Some("too old".into()), ..peer(PeerState::Refused) }];
        let lines = teller.changes(&shown);
        assert_eq!(lines[0], "peer       team (3f2a9c) is refused: too old");
    }

    #[test]
    fn what_goes_wrong_is_said_once_and_so_is_its_end() {
        let (mut teller, mut shown) = (Teller::default(), snapshot());
        teller.changes(&shown);
        shown.degraded = Some("the disk is full".into());
        shown.notices = vec!["another node uses this node key".into()];
        assert_eq!(teller.changes(&shown).len(), 2);
        assert!(teller.changes(&shown).is_empty());
        shown.degraded = None;
        assert_eq!(teller.changes(&shown), ["recovered  writing works again"]);
    }
}
