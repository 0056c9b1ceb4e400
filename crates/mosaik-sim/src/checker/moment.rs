//! What is looked at when it happens: a hint goes out, an append is acknowledged.

use mosaik_core::{
    event::Event,
    feed::Tip,
    hlc::{Hlc, SKEW_MAX_MS},
    id::AuthorId,
};
use mosaik_proto::{Awaited, CREDIT_MAX, carrier::Effect, hint::Hint, message::Message};

use super::{BOUNDS, DURABLE, HINTS, STAMPS};
use crate::{cluster::Cluster, node::Nature};

/// The type byte of a `Have`.
const HAVE: u8 = 10;
/// What a node may hold of each, whoever it talks to.
const FEEDS_AWAITED_MAX: usize = 65_536;
const TIPS_AWAITED_MAX: usize = 2 * FEEDS_AWAITED_MAX;
const SESSIONS_MAX: usize = 256;
const DECLINES_MAX: usize = 65_536;
const PEERS_MAX: usize = 4096;

impl Cluster {
    /// An effect is carried out: what it tells of must be on disk.
    pub(crate) fn check_effect(&mut self, index: usize, effect: &Effect) {
        if self.nodes[index].nature != Nature::Honest {
            return;
        }
        match effect {
            Effect::Send { frame, .. } if frame.get(4) == Some(&HAVE) => {
                if let Ok(Message::Have(author, tip)) =
                    Message::decode(&frame[4..], &self.nodes[index].hasher)
                {
                    self.check_told(index, &author, tip);
                }
            }
            Effect::Gossip(Hint::Head(author, tip)) => self.check_told(index, author, *tip),
            Effect::Gossip(Hint::Run(run)) => {
                self.check_told(index, &run.author(), Tip::from(run.head()));
            }
            Effect::Appended { author, events, .. } => self.check_append(index, author, events),
            _ => {}
        }
    }

    /// A batch is done: memory stays bounded, however much was claimed in it.
    pub(crate) fn check_bounds(&mut self, index: usize) {
        let Some(replica) = &self.nodes[index].replica else { return };
        let Awaited { feeds, tips, bytes } = replica.awaited();
        let peers = replica.peers().iter().count();
        let (sessions, declines) = (replica.open_peers(), replica.declines().len());
        let is_bounded = feeds <= FEEDS_AWAITED_MAX
            && tips <= TIPS_AWAITED_MAX
            && bytes <= CREDIT_MAX
            && sessions <= SESSIONS_MAX
            && declines <= DECLINES_MAX
            && peers <= PEERS_MAX;
        if !is_bounded {
            let what = format!(
                "node {index} awaits {tips} tips of {feeds} feeds, {bytes} bytes asked for, has \
                 {sessions} sessions, {declines} declines, {peers} peers"
            );
            self.break_promise(BOUNDS, what);
        }
    }

    fn check_told(&mut self, index: usize, author: &AuthorId, tip: Tip) {
        if self.nodes[index].storage.snapshot().find(author, tip).is_none() {
            let what = format!("node {index} told of seq {} of {}", tip.seq, author.short());
            self.break_promise(HINTS, what);
        }
    }

    fn check_append(&mut self, index: usize, author: &AuthorId, tips: &[Tip]) {
        let snapshot = self.nodes[index].storage.snapshot();
        let mut events = Vec::new();
        for tip in tips {
            let branch = snapshot.find(author, *tip);
            events.extend(branch.and_then(|branch| snapshot.event(branch, tip.seq)));
        }
        if events.len() < tips.len() {
            let what = format!("node {index} lacks an append of its own");
            return self.break_promise(DURABLE, what);
        }
        let Some(first) = events.first() else { return };
        let before = Tip { seq: first.seq - 1, id: first.prev };
        let before = snapshot.find(author, before).and_then(|b| snapshot.event(b, before.seq));
        // Without jumps no clock is so far ahead of another that its stamps aren't adopted. What came
        // in the same batch after the append, its writer has not seen.
        let branch = snapshot.find(author, Tip::from(first)).filter(|_| !self.weather.jumps);
        let seen = branch.and_then(|branch| snapshot.greatest_stamp_before(branch, first.seq));
        let wall_ms = self.wall_ms(index);
        drop(snapshot);
        if let Some(what) = falls(&events, before.as_ref(), seen, wall_ms) {
            self.break_promise(STAMPS, format!("node {index} wrote {what}"));
        }
    }

    /// The time that a node works with.
    fn wall_ms(&self, index: usize) -> u64 {
        let now = self.now(index);
        self.nodes[index].replica.as_ref().map_or(now.wall_ms, |replica| replica.wall_ms(now))
    }
}

/// The stamp that is not above those before it. Only where the one before was written by a clock far
/// ahead it may be so.
fn falls(
    events: &[Event],
    before: Option<&Event>,
    seen: Option<Hlc>,
    wall_ms: u64,
) -> Option<String> {
    let first = events.first()?;
    if let Some(seen) = seen.filter(|seen| first.hlc <= *seen) {
        return Some(format!("{:?} and had seen {seen:?}", first.hlc));
    }
    let mut stamps = before.into_iter().chain(events).map(|event| event.hlc);
    let mut last = stamps.next()?;
    for stamp in stamps {
        if stamp <= last && last.ms() <= wall_ms.saturating_add(SKEW_MAX_MS) {
            return Some(format!("{stamp:?} after {last:?}"));
        }
        last = stamp;
    }
    None
}
