//! Feeds that one of the two holds back from.

use std::collections::BTreeSet;

use mosaik_core::{feed::Ledger, id::AuthorId};

use super::{Session, Shared};
use crate::{
    feeds::{DECLINES_MAX, Feeds},
    message::Message,
};

/// What a peer declines, as far as it has said so.
#[derive(Debug, Clone, Default)]
pub(crate) struct Declines {
    /// The digest in its last `Hello`, and the start of the peer that said it. Between two starts a
    /// quota may have changed, and the digest doesn't tell of what was declined after it.
    digest: [u8; 16],
    boot: u64,
    authors: BTreeSet<AuthorId>,
}

impl Declines {
    pub(super) fn authors(&self) -> impl Iterator<Item = &AuthorId> {
        self.authors.iter()
    }

    /// How many authors.
    pub(crate) fn len(&self) -> usize {
        self.authors.len()
    }
}

impl Session {
    /// What the peer declines, if anything: to be remembered for the next session.
    pub(crate) fn peer_declines(&self) -> Option<Declines> {
        let is_worth_it = self.hello.is_some() && !self.peer_declines.authors.is_empty();
        is_worth_it.then(|| self.peer_declines.clone())
    }

    /// What was remembered of the peer's declines counts as long as it hasn't started anew and their
    /// digest is the same.
    pub(super) fn on_declines_digest(&mut self, digest: [u8; 16], boot: u64, feeds: &Feeds) {
        if (digest, boot) != (self.peer_declines.digest, self.peer_declines.boot) {
            self.peer_declines = Declines { digest, boot, authors: BTreeSet::new() };
            self.skip = feeds.declines.keys().copied().collect();
        }
    }

    /// Whether `author` is declined here; says so once a session.
    pub(super) fn declined<L: Ledger>(
        &mut self,
        author: &AuthorId,
        shared: &mut Shared<'_, L>,
    ) -> bool {
        let Some(reason) = shared.feeds.declines(author) else { return false };
        self.leave_out(*author, shared.feeds);
        shared.asks.forget(author);
        self.serves.retain(|serve| serve.author != *author);
        if self.told.len() < DECLINES_MAX && self.told.insert(*author) {
            self.send(Message::Decline(*author, reason), shared.effects);
        }
        true
    }

    /// An author was declined here just now: it is left out from now on. Of whom nothing is held there
    /// is nothing to leave out, and no end of such authors.
    pub(crate) fn leave_out(&mut self, author: AuthorId, feeds: &Feeds) {
        if feeds.feed(&author).is_some() {
            self.skip.insert(author);
        }
        if let Some(round) = &mut self.round {
            round.shown.retain(|(shown, _)| *shown != author);
        }
    }

    pub(super) fn on_decline<L: Ledger>(&mut self, author: AuthorId, shared: &mut Shared<'_, L>) {
        // An honest peer only declines what it was told of or asked for. What it was asked for may
        // come from others by and by, and it says this but once.
        let is_about_ours =
            shared.feeds.feed(&author).is_some() || shared.asks.is_claimed_by(self.id, &author);
        if is_about_ours && self.peer_declines.authors.len() < DECLINES_MAX {
            self.peer_declines.authors.insert(author);
            self.skip.insert(author);
        }
        if author == shared.feeds.own_author() {
            // It may hold a part; what is written from now on it won't take.
            (self.own_held, self.told_own) = (None, None);
        }
        self.serves.retain(|serve| serve.author != author);
        shared.asks.lacks(self.id, &author, None);
    }

    /// The peer speaks of a feed that it had declined: it takes it again.
    pub(super) fn lift_decline(&mut self, author: &AuthorId, feeds: &Feeds) {
        if self.peer_declines.authors.remove(author) && !feeds.declines.contains_key(author) {
            self.skip.remove(author);
        }
    }
}
