//! What is known of one peer: what it has, what it was sent, what was asked of it.

use std::collections::BTreeMap;

use mosaik_core::meshlog::message::Frontier;

use super::Held;
use crate::stack::{Interface, Link};

/// How long a peer may take until what was proved to have come shows in what it says that it has, besides
/// the time of a message on air. Doubled each time that it doesn't.
const SHOWS_MS: u64 = 15_000;
const SHOWS_MAX_MS: u64 = 6 * 60 * 60 * 1000;

/// What was sent of one author.
#[derive(Debug)]
struct Sent {
    up_to: u64,
    at_ms: u64,
    wait_ms: u64,
    /// What it said to have last, and at the most.
    seen: u64,
    most: u64,
    /// Whether the last that went was to see if it takes anything at all.
    is_probe: bool,
}

/// Something that was sent and isn't answered.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) link: Link,
    pub(super) token: u64,
    pub(super) up_to: Vec<(String, u64)>,
    pub(super) events: usize,
}

/// A message that is put together.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) bytes: Vec<u8>,
    pub(super) up_to: Vec<(String, u64)>,
    pub(super) events: usize,
}

/// What was told of what is held here.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) at_ms: u64,
    /// How often nothing came of it.
    pub(super) in_vain: u32,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct PeerState {
    pub(super) interface: Interface,
    pub(super) heard_ms: Option<u64>,
    /// When a link is to be opened.
    pub(super) dial_ms: Option<u64>,
    pub(super) is_dialing: bool,
    pub(super) failures: u32,
    /// Before that it isn't dialed.
    pub(super) retry_ms: u64,
    /// Until then it is left alone: what it said made no sense.
    pub(super) barred_ms: u64,
    pub(super) bars: u32,
    pub(super) was_linked: bool,
    pub(super) theirs: Option<Frontier>,
    sent: BTreeMap<String, Sent>,
    pub(super) told: Option<Told>,
    /// When something new came from it last.
    pub(super) news_ms: u64,
    pub(super) asked: Option<(u64, Vec<(String, u64)>)>,
    pub(super) ready: Option<Ready>,
    pub(super) in_flight: Option<InFlight>,
    pub(super) send_failures: u32,
    pub(super) resume_ms: u64,
    /// When what it lacks, and what lacks here, is to be reckoned again.
    pub(super) look_ms: Option<u64>,
    /// What lacks there, and here, as last reckoned.
    pub(super) lacks: u64,
    pub(super) offers: u64,
    /// Which of its links is used: they are taken in turn where nothing comes of one.
    pub(super) turn: usize,
}

impl PeerState {
    pub(super) fn new(interface: Interface) -> Self {
        Self {
            interface,
            heard_ms: None,
            dial_ms: None,
            is_dialing: false,
            failures: 0,
            retry_ms: 0,
            barred_ms: 0,
            bars: 0,
            was_linked: false,
            theirs: None,
            sent: BTreeMap::new(),
            told: None,
            news_ms: 0,
            asked: None,
            ready: None,
            in_flight: None,
            send_failures: 0,
            resume_ms: 0,
            look_ms: None,
            lacks: 0,
            offers: 0,
            turn: 0,
        }
    }

    /// Notes what it says that it has.
    pub(super) fn on_frontier(&mut self, theirs: Frontier, air_ms: u64, now_ms: u64) {
        for (author, sent) in &mut self.sent {
            let has = theirs.get(author).copied().unwrap_or(0);
            if has > sent.seen {
                sent.at_ms = now_ms;
                if sent.is_probe {
                    (sent.up_to, sent.is_probe) = (has, false);
                }
            }
            // Who loses what it had gets it again; who says so time after time, ever more rarely.
            if has > sent.most {
                (sent.most, sent.wait_ms) = (has, SHOWS_MS + air_ms);
            }
            sent.seen = has;
        }
        self.theirs = Some(theirs);
        self.look_ms = Some(now_ms);
    }

    /// What it lacks of what is held: each author with the seq from which on, and how many events to send,
    /// at most; and when there is more to see.
    pub(super) fn wants(
        &self,
        held: &BTreeMap<String, Held>,
        now_ms: u64,
    ) -> (Vec<Want>, Option<u64>) {
        let Some(theirs) = &self.theirs else { return (Vec::new(), None) };
        let (mut wants, mut next_ms) = (Vec::new(), None::<u64>);
        for (author, held) in held {
            let has = theirs.get(author).copied().unwrap_or(0);
            let (from, is_probe) = match self.sent.get(author) {
                Some(sent) if has < sent.up_to => {
                    let due_ms = sent.at_ms + sent.wait_ms;
                    if due_ms <= now_ms {
                        (has + 1, true)
                    } else if sent.is_probe || sent.up_to >= held.len {
                        next_ms = Some(next_ms.map_or(due_ms, |ms| ms.min(due_ms)));
                        continue;
                    } else {
                        (sent.up_to + 1, false)
                    }
                }
                _ => (has + 1, false),
            };
            if from <= held.len {
                wants.push(Want {
                    author: author.clone(),
                    from,
                    lacks: held.len + 1 - from,
                    is_probe,
                });
            }
        }
        // Who has little gets through first.
        wants.sort_by_key(|want| (want.is_probe, want.lacks));
        (wants, next_ms)
    }

    /// These are on their way: proved to be there, or as good as.
    pub(super) fn on_sent(&mut self, up_to: Vec<(String, u64)>, air_ms: u64, now_ms: u64) {
        for (author, up_to) in up_to {
            let seen = self.theirs.as_ref().and_then(|theirs| theirs.get(&author)).copied();
            let fresh = Sent {
                up_to: 0,
                at_ms: now_ms,
                wait_ms: SHOWS_MS + air_ms,
                seen: seen.unwrap_or(0),
                most: seen.unwrap_or(0),
                is_probe: false,
            };
            let sent = self.sent.entry(author).or_insert(fresh);
            let was_there = up_to <= sent.up_to;
            if was_there {
                // It was sent before and didn't show.
                sent.is_probe = true;
                sent.wait_ms = (2 * sent.wait_ms).min(SHOWS_MAX_MS);
            }
            sent.up_to = sent.up_to.max(up_to);
            sent.at_ms = now_ms;
        }
        self.send_failures = 0;
        self.look_ms = Some(now_ms);
    }

    /// This never gets through: it isn't tried again for long.
    pub(super) fn give_up(&mut self, up_to: Vec<(String, u64)>, now_ms: u64) {
        self.on_sent(up_to.clone(), 0, now_ms);
        for (author, _) in up_to {
            if let Some(sent) = self.sent.get_mut(&author) {
                (sent.is_probe, sent.wait_ms) = (true, SHOWS_MAX_MS);
            }
        }
    }

    /// All its links are gone.
    pub(super) fn on_unlinked(&mut self) {
        (self.told, self.asked, self.ready, self.in_flight) = (None, None, None, None);
        self.turn = 0;
    }
}

/// What a peer lacks of one author.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) author: String,
    pub(super) from: u64,
    pub(super) lacks: u64,
    /// What was sent before didn't show: one event, to see if it does now.
    pub(super) is_probe: bool,
}
