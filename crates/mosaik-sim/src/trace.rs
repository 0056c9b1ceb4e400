//! What happens in a cluster, one line each: for the eyes of whoever looks for the bug of a seed.

use std::{
    collections::BTreeSet,
    fmt::{self, Display, Formatter},
};

use mosaik_core::{feed::Tip, trie::Prefix};
use mosaik_proto::{
    carrier::{Effect, Input},
    hint::Hint,
    message::{Message, frame_len},
};

use crate::cluster::Cluster;

/// An input in a few words.
pub(crate) struct In<'a>(pub(crate) &'a Input);

/// An effect in a few words. Runs are told by their length: the receiver's line says what is in them.
pub(crate) struct Out<'a>(pub(crate) &'a Effect);

impl Display for In<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Input::Append { drafts, .. } => write!(f, "append {}", drafts.len()),
            Input::Connected { session, peer, role, .. } => {
                write!(f, "s{} connected to {} as {role:?}", session.0, peer.short())
            }
            Input::Frame { session, message } => write!(f, "s{} <- {}", session.0, Said(message)),
            Input::Hint { from, hint } => write!(f, "hint of {}: {}", from.short(), Told(hint)),
            other => write!(f, "{other:?}"),
        }
    }
}

impl Display for Out<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Effect::Send { session, frame, .. } => {
                let len = frame.first_chunk().map_or(Ok(0), |header| frame_len(*header));
                let kind = frame.get(4).copied().unwrap_or_default();
                write!(f, "s{} -> type {kind}, {} bytes", session.0, len.unwrap_or_default())
            }
            Effect::Dial { peer, .. } => write!(f, "dial {}", peer.short()),
            Effect::Gossip(hint) => write!(f, "gossip {}", Told(hint)),
            Effect::Opened { session, peer, .. } => {
                write!(f, "s{} opened with {}", session.0, peer.short())
            }
            Effect::Appended { events, .. } => write!(f, "appended {}", events.len()),
            other => write!(f, "{other:?}"),
        }
    }
}

struct Said<'a>(&'a Message);

impl Display for Said<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Message::Greet(_) => write!(f, "Greet"),
            Message::Hello(hello) => {
                write!(f, "Hello {} boot {} top {:02x?}", hello.name, hello.boot, &hello.top[..3])
            }
            Message::Root(hash) => write!(f, "Root {:02x?}", &hash[..3]),
            Message::Items(items) => {
                write!(f, "Items")?;
                for item in &items.items {
                    write!(f, " {}:", item.author.short())?;
                    item.tips.iter().try_for_each(|tip| write!(f, " {}", Place(tip)))?;
                }
                write!(f, ", lacked {}, more {}", items.lacked.len(), items.more)
            }
            Message::Want(want) => {
                write!(f, "Want {}", want.author.short())?;
                want.tip.iter().try_for_each(|tip| write!(f, " to {}", Place(tip)))?;
                write!(f, " from")?;
                want.locator.iter().try_for_each(|tip| write!(f, " {}", Place(tip)))?;
                write!(f, ", credit {}", want.credit)
            }
            Message::Run(run) => {
                let (from, to) = (run.base().0 + 1, Tip::from(run.head()));
                write!(f, "Run {} {from} to {}", run.author().short(), Place(&to))
            }
            Message::Have(author, tip) => write!(f, "Have {} {}", author.short(), Place(tip)),
            Message::Lack(author, tip, reason) => {
                write!(f, "Lack {} {:?} {reason:?}", author.short(), tip.as_ref().map(|t| t.seq))
            }
            Message::Payloads(payloads) => write!(
                f,
                "Payloads: asks {}, gives {}, lacks {}",
                payloads.ask.len(),
                payloads.give.len(),
                payloads.lack.len()
            ),
            other => write!(f, "{other:?}"),
        }
    }
}

struct Told<'a>(&'a Hint);

impl Display for Told<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Hint::Head(author, tip) => write!(f, "head {} {}", author.short(), Place(tip)),
            Hint::Run(run) => {
                let head = Tip::from(run.head());
                write!(f, "run {} to {}", run.author().short(), Place(&head))
            }
            Hint::Presence(presence) => write!(
                f,
                "presence of {} boot {} leaving {}",
                presence.node.short(),
                presence.boot,
                presence.leaving
            ),
        }
    }
}

struct Place<'a>(&'a Tip);

impl Display for Place<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [a, b, ..] = *self.0.id.as_bytes();
        write!(f, "{}/{a:02x}{b:02x}", self.0.seq)
    }
}

impl Display for Cluster {
    /// Who holds what and talks to whom.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(replica) = &node.replica else {
                writeln!(f, "n{index}: down")?;
                continue;
            };
            writeln!(f, "n{index}: {} boot {}", replica.node().short(), replica.boot())?;
            let snapshot = node.storage.snapshot();
            let [a, b, ..] = snapshot.digest();
            writeln!(f, "  {:?}, view {a:02x}{b:02x}", snapshot.counts())?;
            for (author, feed) in replica.frontier().under(&Prefix::EMPTY, &BTreeSet::new()) {
                write!(f, "  feed {}", author.short())?;
                feed.tips().iter().try_for_each(|tip| write!(f, " {}", Place(tip)))?;
                writeln!(f)?;
            }
            for session in replica.sessions() {
                let open = if session.is_open { "open" } else { "greeting" };
                let (id, peer) = (session.session.0, session.peer.short());
                writeln!(f, "  s{id} with {peer}, {:?}, {open}", session.role)?;
            }
            for (id, peer) in replica.peers().iter() {
                let (state, reason) = (peer.state().as_str(), &peer.last_reason);
                writeln!(f, "  peer {} {state} {reason:?}", id.short())?;
            }
        }
        Ok(())
    }
}
