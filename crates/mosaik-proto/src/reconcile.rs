//! The comparison of two frontiers: hashes down the trie, short hashes of items, items.
//!
//! Invariants:
//! - A frame that answers nothing is refused: a peer can't make this side work unasked.
//! - What is kept for one comparison is bounded by this side's own trie, never by the peer's claims.
//! - It runs on the live trie: a change meanwhile costs a needless item, never a missed one, because
//!   new heads are told by `Have` from `Hello` on.
//!
//! Source: FORMAT.md beside this crate, section 3.

use std::collections::{BTreeMap, BTreeSet};

use mosaik_core::{
    feed::Feed,
    frontier::Frontier,
    id::AuthorId,
    trie::{Hash, LEAF_MAX, Prefix, item_bytes},
};

use crate::{
    message::{FrontierItem, Items, Message, PAGE_ITEMS_MAX, Short},
    proof::short_hash,
};

/// The dialer tells all of its feeds at once if it has no more than this.
const ALL_AT_ONCE_MAX: usize = 64;
/// The same over radio. An item takes 68 bytes there, a short hash 8 and, if it differs, a round trip.
const ALL_AT_ONCE_RADIO_MAX: usize = 4;
/// Room left in a frame of items for all that is not an item.
const PAGE_OVERHEAD: usize = 512;

/// A comparison frame that answers nothing: the peer broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stray;

/// What this side holds, as far as the two compare it.
#[derive(Clone, Copy)]
pub(crate) struct Held<'a> {
    pub(crate) frontier: &'a Frontier,
    /// Authors that one of the two declines.
    pub(crate) skip: &'a BTreeSet<AuthorId>,
}

impl<'a> Held<'a> {
    pub(crate) fn top(&self) -> Hash {
        self.frontier.hash(&Prefix::EMPTY, self.skip)
    }

    fn under(&self, prefix: &Prefix) -> Vec<(AuthorId, &'a Feed)> {
        self.frontier.under(prefix, self.skip)
    }

    fn count(&self, prefix: &Prefix) -> usize {
        self.frontier.count(prefix, self.skip)
    }
}

/// What the topmost hash of this side waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Top {
    /// Nothing.
    Settled,
    /// The listener's `Hello` or `Root` is out: `Done`, `Items` or `Tree` answers it.
    Told,
    /// The dialer's `Root` is out: `Done` or `Root` answers it.
    Asked,
}

/// Items that go to and fro under one prefix.
#[derive(Debug, Default)]
struct Exchange {
    /// Authors whose items this side has sent here in this comparison.
    sent: BTreeSet<AuthorId>,
    /// Authors whose items still go, in pages.
    pending: BTreeSet<AuthorId>,
    /// Whether this side's last page said that another follows.
    promised: bool,
}

/// One side of a comparison.
#[derive(Debug)]
pub(crate) struct Comparison {
    /// Keys the short hashes: the dialer's proof, which nobody could choose.
    key: [u8; 32],
    /// Bytes of the largest frame that the peer takes.
    frame_max: usize,
    /// Feeds that the dialer tells at once.
    at_once_max: usize,
    top: Top,
    /// `Tree`s of this side that wait for their `Done`, with the children answered so far.
    trees: BTreeMap<Prefix, u16>,
    /// Prefixes under which an answer is awaited.
    exchanges: BTreeMap<Prefix, Exchange>,
}

impl Comparison {
    pub(crate) fn new(key: [u8; 32], frame_max: usize) -> Self {
        Self {
            key,
            frame_max,
            at_once_max: ALL_AT_ONCE_MAX,
            top: Top::Settled,
            trees: BTreeMap::new(),
            exchanges: BTreeMap::new(),
        }
    }

    /// The peer has said how large a frame it takes.
    pub(crate) fn set_frame_max(&mut self, frame_max: usize) {
        self.frame_max = frame_max;
    }

    /// Bytes are dearer than round trips.
    pub(crate) fn set_short(&mut self) {
        self.at_once_max = ALL_AT_ONCE_RADIO_MAX;
    }

    /// Whether all that this side sent is answered.
    pub(crate) fn has_ended(&self) -> bool {
        self.top == Top::Settled && self.trees.is_empty() && self.exchanges.is_empty()
    }

    /// The listener has told its topmost hash.
    pub(crate) fn told(&mut self) {
        self.top = Top::Told;
    }

    /// The dialer asks for a comparison.
    pub(crate) fn ask(&mut self, held: Held<'_>) -> Message {
        self.top = Top::Asked;
        Message::Root(held.top())
    }

    /// The dialer answers the listener's topmost hash.
    pub(crate) fn answer_top(&mut self, theirs: Hash, held: Held<'_>) -> Message {
        self.top = Top::Settled;
        if theirs == held.top() {
            return Message::Done(Prefix::EMPTY);
        }
        let all = held.under(&Prefix::EMPTY);
        if all.len() <= self.at_once_max {
            let exchange = Exchange {
                pending: all.iter().map(|(author, _)| *author).collect(),
                ..Exchange::default()
            };
            let mut whole = exchange;
            let page = self.page(Prefix::EMPTY, &mut whole, held, Vec::new());
            if !page.more {
                self.exchanges.insert(Prefix::EMPTY, whole);
                return Message::Items(page);
            }
        }
        if all.len() <= LEAF_MAX && self.at_once_max < LEAF_MAX {
            return self.leaf(Prefix::EMPTY, held);
        }
        self.tree(Prefix::EMPTY, held)
    }

    /// Takes the other's `Root`. The dialer answers the listener's; the listener says that both are
    /// equal, or tells its own.
    pub(crate) fn on_root(
        &mut self,
        theirs: Hash,
        is_dialer: bool,
        held: Held<'_>,
    ) -> Result<Message, Stray> {
        if is_dialer {
            if self.top != Top::Asked {
                return Err(Stray);
            }
            return Ok(self.answer_top(theirs, held));
        }
        if !self.has_ended() {
            return Err(Stray);
        }
        if theirs == held.top() {
            return Ok(Message::Done(Prefix::EMPTY));
        }
        self.told();
        Ok(Message::Root(held.top()))
    }

    pub(crate) fn on_tree(
        &mut self,
        prefix: Prefix,
        theirs: &[Short; 16],
        held: Held<'_>,
    ) -> Result<Vec<Message>, Stray> {
        if prefix == Prefix::EMPTY && self.top == Top::Told {
            self.top = Top::Settled;
        } else {
            self.answer_child(prefix)?;
        }
        if held.count(&prefix) <= LEAF_MAX {
            return Ok(vec![self.leaf(prefix, held)]);
        }
        let mut answer = Vec::new();
        let ours = held.frontier.children(&prefix, held.skip);
        for (child, (our, their)) in prefix.children().zip(ours.iter().zip(theirs)) {
            if self.short(our) == *their {
                continue;
            }
            answer.push(if held.count(&child) <= LEAF_MAX {
                self.leaf(child, held)
            } else {
                self.tree(child, held)
            });
        }
        answer.push(Message::Done(prefix));
        Ok(answer)
    }

    pub(crate) fn on_leaf(
        &mut self,
        prefix: Prefix,
        theirs: &[Short],
        held: Held<'_>,
    ) -> Result<Message, Stray> {
        if prefix == Prefix::EMPTY && self.top == Top::Told {
            self.top = Top::Settled;
        } else if self.trees.get(&prefix) == Some(&0) {
            self.trees.remove(&prefix);
        } else {
            self.answer_child(prefix)?;
        }
        let mut lacked: BTreeSet<Short> = theirs.iter().copied().collect();
        let mut exchange = Exchange::default();
        for (author, feed) in held.under(&prefix) {
            if !lacked.remove(&self.short(&item_bytes(&author, feed))) {
                exchange.pending.insert(author);
            }
        }
        if exchange.pending.is_empty() && lacked.is_empty() {
            return Ok(Message::Done(prefix));
        }
        let page = self.page(prefix, &mut exchange, held, lacked.into_iter().collect());
        self.exchanges.insert(prefix, exchange);
        Ok(Message::Items(page))
    }

    /// Whether `Items` of this prefix answer something, and whether they are all that the dialer
    /// holds.
    pub(crate) fn expects_items(&self, prefix: Prefix) -> Result<bool, Stray> {
        match self.top {
            Top::Told if prefix == Prefix::EMPTY => Ok(true),
            _ if self.exchanges.contains_key(&prefix) => Ok(false),
            _ => Err(Stray),
        }
    }

    /// Answers a page of items. `differing` are the page's authors of whom this side holds something
    /// else; of those in `said` a run or a `Want` has just said what it holds.
    pub(crate) fn answer_items(
        &mut self,
        theirs: &Items,
        differing: BTreeSet<AuthorId>,
        said: BTreeSet<AuthorId>,
        held: Held<'_>,
    ) -> Result<Message, Stray> {
        let prefix = theirs.prefix;
        let all = self.expects_items(prefix)?;
        if all {
            self.top = Top::Settled;
        }
        let mut exchange = self.exchanges.remove(&prefix).unwrap_or_default();
        let mut wanted = differing;
        if all {
            let named = |author: &AuthorId| {
                theirs.items.binary_search_by_key(author, |item| item.author).is_ok()
            };
            let unnamed = held.under(&prefix).into_iter().map(|(author, _)| author);
            wanted.extend(unnamed.filter(|author| !named(author)));
        }
        if !theirs.lacked.is_empty() {
            wanted.extend(self.resolve(prefix, &theirs.lacked, held));
        }
        exchange.sent.extend(said);
        exchange.pending.extend(wanted.difference(&exchange.sent).copied().collect::<Vec<_>>());
        Ok(self.next_page(prefix, exchange, theirs.more, held))
    }

    /// Whether a `Done` of this prefix says that the topmost hash, as it was told, is the other's too.
    pub(crate) fn is_answer_to_top(&self, prefix: Prefix) -> bool {
        prefix == Prefix::EMPTY && self.top != Top::Settled
    }

    /// Takes a `Done`: of a `Tree`, of a page, or of the topmost hash. May be answered by a page.
    pub(crate) fn on_done(
        &mut self,
        prefix: Prefix,
        held: Held<'_>,
    ) -> Result<Option<Message>, Stray> {
        if self.trees.remove(&prefix).is_some() {
            return Ok(None);
        }
        if let Some(exchange) = self.exchanges.remove(&prefix) {
            if exchange.promised {
                return Ok(Some(self.next_page(prefix, exchange, false, held)));
            }
            return Ok(None);
        }
        if prefix == Prefix::EMPTY && self.top != Top::Settled {
            self.top = Top::Settled;
            return Ok(None);
        }
        Err(Stray)
    }

    /// Marks the child `prefix` of one of our `Tree`s as answered, once.
    fn answer_child(&mut self, prefix: Prefix) -> Result<(), Stray> {
        let (parent, nibble) = prefix.parent().ok_or(Stray)?;
        let answered = self.trees.get_mut(&parent).ok_or(Stray)?;
        let bit = 1 << nibble;
        if *answered & bit != 0 {
            return Err(Stray);
        }
        *answered |= bit;
        Ok(())
    }

    fn tree(&mut self, prefix: Prefix, held: Held<'_>) -> Message {
        self.trees.insert(prefix, 0);
        let children = held.frontier.children(&prefix, held.skip);
        Message::Tree(prefix, std::array::from_fn(|i| self.short(&children[i])))
    }

    fn leaf(&mut self, prefix: Prefix, held: Held<'_>) -> Message {
        self.exchanges.insert(prefix, Exchange::default());
        let items = held.under(&prefix).into_iter();
        Message::Leaf(
            prefix,
            items.map(|(author, feed)| self.short(&item_bytes(&author, feed))).collect(),
        )
    }

    /// The authors of the items that a peer lacks; all under the prefix if one of them is not there
    /// any more.
    fn resolve(&self, prefix: Prefix, lacked: &[Short], held: Held<'_>) -> Vec<AuthorId> {
        let under = held.under(&prefix);
        let mut lacked: BTreeSet<Short> = lacked.iter().copied().collect();
        let mut found = Vec::new();
        for (author, feed) in &under {
            if lacked.remove(&self.short(&item_bytes(author, *feed))) {
                found.push(*author);
            }
        }
        if lacked.is_empty() {
            found
        } else {
            under.into_iter().map(|(author, _)| author).collect()
        }
    }

    /// A page, or `Done` where there is nothing to send; `more` tells whether the other has promised
    /// a page, which `Done` then asks for.
    fn next_page(
        &mut self,
        prefix: Prefix,
        mut exchange: Exchange,
        more: bool,
        held: Held<'_>,
    ) -> Message {
        if exchange.pending.is_empty() && !exchange.promised {
            if more {
                self.exchanges.insert(prefix, exchange);
            }
            return Message::Done(prefix);
        }
        let page = self.page(prefix, &mut exchange, held, Vec::new());
        self.exchanges.insert(prefix, exchange);
        Message::Items(page)
    }

    /// Moves as many pending authors into a page as fit.
    fn page(
        &self,
        prefix: Prefix,
        exchange: &mut Exchange,
        held: Held<'_>,
        lacked: Vec<Short>,
    ) -> Items {
        let mut room = self.frame_max.saturating_sub(PAGE_OVERHEAD + 8 * lacked.len());
        let mut items = Vec::new();
        while let Some(author) = exchange.pending.first().copied() {
            let feed = held.frontier.get(&author).filter(|_| !held.skip.contains(&author));
            if let Some(feed) = feed {
                let len = item_bytes(&author, feed).len();
                if items.len() == PAGE_ITEMS_MAX || (len > room && !items.is_empty()) {
                    break;
                }
                room = room.saturating_sub(len);
                items.push(FrontierItem { author, tips: feed.tips() });
                exchange.sent.insert(author);
            }
            exchange.pending.remove(&author);
        }
        exchange.promised = !exchange.pending.is_empty();
        Items { prefix, items, lacked, more: exchange.promised }
    }

    fn short(&self, bytes: &[u8]) -> Short {
        short_hash(&self.key, bytes)
    }
}

#[cfg(test)]
mod tests;
