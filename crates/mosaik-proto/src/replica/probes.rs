//! Probes: which nodes a message reaches, and how soon, asked by a person. A probe floods the sessions;
//! answers go back the ways that it came.
//!
//! Invariants:
//! - A probe is answered and passed on once, whatever ways it comes by; an answer takes one way.
//! - What is remembered is bounded in number and time, and so is what one session may make this node
//!   send. What is over that is dropped and counted, never a violation: others may have sent it in good
//!   faith.
//! - Nobody signs an answer. A node answers for itself; members of the network that lie can't be told.

use std::collections::{BTreeMap, BTreeSet};

use mosaik_core::id::NodeId;
use rand::RngExt;

use super::Replica;
use crate::{
    carrier::{Effect, Now, SessionId},
    message::{Message, PROBE, Probe, ProbeId, Probed},
};

/// Sessions that a probe comes over at the most. Nodes keep 8 or more: 5 hops reach thousands.
const HOPS_MAX: u8 = 16;
/// Time between two probes of a node, and how long the way back of one is remembered, in milliseconds.
const APART_MS: u64 = 60_000;
/// By how much sooner the next one may come, in milliseconds: it may come by a faster way.
const HASTE_MS: u64 = 5_000;
/// Probes that are remembered at a time: some hundred kilobytes.
const SEEN_MAX: usize = 1024;
/// Answers to one probe that are passed on, or taken by who asked.
const ANSWERS_MAX: usize = 4096;
/// Probes that are taken from one session in a minute: one liar can't fill what is remembered.
const SESSION_PROBES_MAX: usize = 64;
/// Answers that are passed on from one session in a minute: about a megabyte.
const SESSION_ANSWERS_MAX: usize = 8192;
/// Answers are not sent over a session on which so many bytes wait: others have more to say there.
const BACKLOG_MAX: usize = 1 << 20;

/// What is to be done with a probe.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Answer,
    /// It was answered before, or is this node's own.
    Again,
    Drop,
}

/// Where an answer goes.
#[derive(Debug, PartialEq, Eq)]
enum Back {
    Here,
    To(NodeId),
    Drop,
}

/// A probe of another node.
#[derive(Debug)]
struct Seen {
    origin: NodeId,
    /// Answers go there.
    from: NodeId,
    since_ms: u64,
    passed: usize,
}

/// The last probe of this node.
#[derive(Debug)]
struct Own {
    id: ProbeId,
    since_ms: u64,
    answered: BTreeSet<NodeId>,
}

/// What came over a session within a minute.
#[derive(Debug, Default)]
struct Spent {
    since_ms: u64,
    probes: usize,
    answers: usize,
}

/// The probes of the last minute.
#[derive(Debug, Default)]
pub(super) struct Probes {
    own: Option<Own>,
    seen: BTreeMap<ProbeId, Seen>,
    spent: BTreeMap<SessionId, Spent>,
}

impl Probes {
    /// Milliseconds until this node may send its next one.
    fn wait_ms(&self, now_ms: u64) -> u64 {
        self.own.as_ref().map_or(0, |own| (own.since_ms + APART_MS).saturating_sub(now_ms))
    }

    fn begin(&mut self, now_ms: u64, id: ProbeId) {
        self.own = Some(Own { id, since_ms: now_ms, answered: BTreeSet::new() });
    }

    /// A probe has come from the node `from` over `session`; `me` is this node.
    fn take(
        &mut self,
        now_ms: u64,
        (session, from): (SessionId, NodeId),
        me: NodeId,
        probe: &Probe,
    ) -> Verdict {
        let is_own = self.own.as_ref().is_some_and(|own| own.id == probe.id);
        if is_own || self.seen.contains_key(&probe.id) {
            return Verdict::Again;
        }
        // Only its origin sends it as one that came over a single session.
        let is_true = (1..=HOPS_MAX).contains(&probe.hops)
            && (probe.hops == 1) == (probe.origin == from)
            && probe.origin != me;
        let is_soon = |seen: &Seen| {
            seen.origin == probe.origin && seen.since_ms + APART_MS > now_ms + HASTE_MS
        };
        if !is_true || self.seen.values().any(is_soon) {
            return Verdict::Drop;
        }
        self.seen.retain(|_, seen| seen.since_ms + APART_MS > now_ms);
        let spent = self.spent_on(session, now_ms);
        spent.probes += 1;
        if spent.probes > SESSION_PROBES_MAX || self.seen.len() >= SEEN_MAX {
            return Verdict::Drop;
        }
        let seen = Seen { origin: probe.origin, from, since_ms: now_ms, passed: 0 };
        self.seen.insert(probe.id, seen);
        Verdict::Answer
    }

    /// An answer has come from the node `from` over `session`; `me` is this node.
    fn back(
        &mut self,
        now_ms: u64,
        (session, from): (SessionId, NodeId),
        me: NodeId,
        answer: &Probed,
    ) -> Back {
        if !(1..=HOPS_MAX).contains(&answer.hops) || answer.node == me {
            return Back::Drop;
        }
        if let Some(own) = self.own.as_mut().filter(|own| own.id == answer.id) {
            let is_new = own.since_ms + APART_MS > now_ms
                && own.answered.len() < ANSWERS_MAX
                && own.answered.insert(answer.node);
            return if is_new { Back::Here } else { Back::Drop };
        }
        let spent = self.spent_on(session, now_ms);
        spent.answers += 1;
        if spent.answers > SESSION_ANSWERS_MAX {
            return Back::Drop;
        }
        let Some(seen) = self.seen.get_mut(&answer.id) else { return Back::Drop };
        seen.passed += 1;
        let is_late = seen.since_ms + APART_MS <= now_ms;
        if is_late || seen.from == from || seen.passed > ANSWERS_MAX {
            return Back::Drop;
        }
        Back::To(seen.from)
    }

    fn spent_on(&mut self, session: SessionId, now_ms: u64) -> &mut Spent {
        let spent = self.spent.entry(session).or_default();
        if spent.since_ms + APART_MS <= now_ms {
            *spent = Spent { since_ms: now_ms, ..Spent::default() };
        }
        spent
    }

    /// A session is over.
    pub(super) fn ended(&mut self, session: SessionId) {
        self.spent.remove(&session);
    }
}

impl Replica {
    /// Sends a probe to all nodes that it reaches.
    pub(super) fn probe(&mut self, now: Now, token: u64, effects: &mut Vec<Effect>) {
        let wait_ms = self.probes.wait_ms(now.mono_ms);
        let refusal = if wait_ms > 0 {
            format!(
                "this node has sent a probe less than a minute ago, and the others take one a minute: \
                 try again in {} s",
                wait_ms.div_ceil(1000)
            )
        } else if self.probe_ways(&[]).is_empty() {
            "no connected peer answers probes, so none was sent".to_owned()
        } else {
            let id = ProbeId(self.rng.random());
            self.probes.begin(now.mono_ms, id);
            let probe = Probe { id, origin: self.me.node, sent_ms: now.wall_ms, hops: 1 };
            effects.push(Effect::ProbeBegun { token, result: Ok(probe.clone()) });
            return self.flood(&probe, &[], effects);
        };
        effects.push(Effect::ProbeBegun { token, result: Err(refusal) });
    }

    pub(super) fn on_probe(
        &mut self,
        now: Now,
        id: SessionId,
        probe: &Probe,
        effects: &mut Vec<Effect>,
    ) {
        let Some(session) = self.sessions.get(&id) else { return };
        let (from, way) = (session.peer, session.way);
        match self.probes.take(now.mono_ms, (id, from), self.me.node, probe) {
            Verdict::Answer => {}
            Verdict::Again => return,
            Verdict::Drop => return self.totals.probes_dropped += 1,
        }
        effects.push(Effect::ProbeCame { id: probe.id, from, hops: probe.hops });
        let answer = Probed {
            id: probe.id,
            node: self.me.node,
            name: self.me.name.clone(),
            received_ms: now.wall_ms,
            hops: probe.hops,
            from,
            way,
        };
        self.send_back(from, answer, effects);
        if probe.hops < HOPS_MAX {
            let further = Probe { hops: probe.hops + 1, ..probe.clone() };
            self.flood(&further, &[from, probe.origin], effects);
        }
    }

    pub(super) fn on_probed(
        &mut self,
        now: Now,
        id: SessionId,
        answer: Probed,
        effects: &mut Vec<Effect>,
    ) {
        let Some(session) = self.sessions.get(&id) else { return };
        let from = session.peer;
        match self.probes.back(now.mono_ms, (id, from), self.me.node, &answer) {
            Back::Here => {
                let clock_offset_ms = self.clock_offsets.get(&answer.node).copied();
                effects.push(Effect::ProbeAnswered { answer, clock_offset_ms });
            }
            Back::To(peer) => self.send_back(peer, answer, effects),
            Back::Drop => self.totals.probes_dropped += 1,
        }
    }

    fn flood(&mut self, probe: &Probe, but: &[NodeId], effects: &mut Vec<Effect>) {
        for session in self.probe_ways(but).into_values() {
            if let Some(session) = self.sessions.get_mut(&session) {
                session.send(Message::Probe(probe.clone()), effects);
            }
        }
    }

    /// The newest session with each peer that knows probes: an older one may be dead already.
    fn probe_ways(&self, but: &[NodeId]) -> BTreeMap<NodeId, SessionId> {
        let takes = self.sessions.values().filter(|session| {
            let knows = session.hello().is_some_and(|hello| hello.capabilities & PROBE != 0);
            session.is_open() && knows && !but.contains(&session.peer)
        });
        takes.map(|session| (session.peer, session.id)).collect()
    }

    fn send_back(&mut self, peer: NodeId, answer: Probed, effects: &mut Vec<Effect>) {
        let open = self.sessions.values_mut().rev().find(|s| s.peer == peer && s.is_open());
        match open.filter(|session| session.queued() < BACKLOG_MAX) {
            Some(session) => session.send(Message::Probed(answer), effects),
            None => self.totals.probes_dropped += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId([1; 32]);
    const NEAR: (SessionId, NodeId) = (SessionId(1), NodeId([2; 32]));
    const OTHER: (SessionId, NodeId) = (SessionId(2), NodeId([3; 32]));

    /// A probe of some node behind the neighbour, by number.
    fn far(n: u64) -> Probe {
        let (mut id, mut origin) = ([0; 16], [9; 32]);
        id[..8].copy_from_slice(&n.to_be_bytes());
        origin[..8].copy_from_slice(&n.to_be_bytes());
        Probe { id: ProbeId(id), origin: NodeId(origin), sent_ms: 7, hops: 3 }
    }

    fn answer(id: ProbeId, n: u64) -> Probed {
        let mut node = [8; 32];
        node[..8].copy_from_slice(&n.to_be_bytes());
        Probed {
            id,
            node: NodeId(node),
            name: String::new(),
            received_ms: 8,
            hops: 4,
            from: ME,
            way: Default::default(),
        }
    }

    #[test]
    fn a_probe_is_answered_once_whatever_ways_it_comes_by() {
        let mut probes = Probes::default();
        assert_eq!(probes.take(0, NEAR, ME, &far(1)), Verdict::Answer);
        assert_eq!(probes.take(0, NEAR, ME, &far(1)), Verdict::Again);
        assert_eq!(probes.take(9, OTHER, ME, &Probe { hops: 9, ..far(1) }), Verdict::Again);
        let own = far(2);
        probes.begin(0, own.id);
        assert_eq!(probes.take(0, OTHER, ME, &Probe { origin: ME, ..own }), Verdict::Again);
    }

    #[test]
    fn a_second_probe_of_a_node_within_a_minute_is_dropped() {
        let mut probes = Probes::default();
        let second = Probe { id: far(2).id, ..far(1) };
        assert_eq!(probes.take(0, NEAR, ME, &far(1)), Verdict::Answer);
        assert_eq!(probes.take(54_000, OTHER, ME, &second), Verdict::Drop);
        // Sent a minute later, by a faster way.
        assert_eq!(probes.take(56_000, OTHER, ME, &second), Verdict::Answer);
    }

    #[test]
    fn a_probe_that_its_sender_must_have_forged_is_dropped() {
        let mut probes = Probes::default();
        let forged = [
            Probe { hops: 0, ..far(1) },
            Probe { hops: 1, ..far(1) },
            Probe { hops: HOPS_MAX + 1, ..far(1) },
            Probe { origin: NEAR.1, ..far(1) },
            Probe { origin: ME, ..far(1) },
        ];
        for probe in forged {
            assert_eq!(probes.take(0, NEAR, ME, &probe), Verdict::Drop, "{probe:?}");
        }
        let own = Probe { origin: NEAR.1, hops: 1, ..far(1) };
        assert_eq!(probes.take(0, NEAR, ME, &own), Verdict::Answer);
    }

    #[test]
    fn one_session_cannot_fill_what_is_remembered() {
        let mut probes = Probes::default();
        let taken = |probes: &mut Probes, now_ms, way, numbers: std::ops::Range<u64>| {
            numbers.filter(|n| probes.take(now_ms, way, ME, &far(*n)) == Verdict::Answer).count()
        };
        assert_eq!(taken(&mut probes, 0, NEAR, 0..1000), SESSION_PROBES_MAX);
        for session in 0..100 {
            let way = (SessionId(session + 10), OTHER.1);
            taken(&mut probes, 1, way, session * 100 + 2000..session * 100 + 2100);
        }
        assert_eq!(probes.seen.len(), SEEN_MAX);
        // A minute later there is room again.
        assert_eq!(taken(&mut probes, 61_000, NEAR, 50_000..50_001), 1);
        assert_eq!(probes.seen.len(), 1);
    }

    #[test]
    fn answers_take_the_way_back_for_a_minute_and_are_so_many() {
        let mut probes = Probes::default();
        let probe = far(1);
        assert_eq!(probes.take(0, NEAR, ME, &probe), Verdict::Answer);
        assert_eq!(probes.back(1, OTHER, ME, &answer(probe.id, 1)), Back::To(NEAR.1));
        assert_eq!(probes.back(1, NEAR, ME, &answer(probe.id, 2)), Back::Drop, "not in a circle");
        assert_eq!(probes.back(1, OTHER, ME, &answer(far(2).id, 1)), Back::Drop, "nobody asked");
        let all = 10..10 + 2 * ANSWERS_MAX as u64;
        let passed = all.filter(|n| probes.back(2, OTHER, ME, &answer(probe.id, *n)) != Back::Drop);
        assert_eq!(passed.count(), ANSWERS_MAX - 2);
        assert_eq!(probes.back(60_000, OTHER, ME, &answer(probe.id, 3)), Back::Drop);
    }

    #[test]
    fn who_asked_takes_one_answer_a_node_and_so_many_in_all() {
        let mut probes = Probes::default();
        let id = far(1).id;
        probes.begin(0, id);
        assert_eq!(probes.back(1, NEAR, ME, &answer(id, 1)), Back::Here);
        assert_eq!(probes.back(1, OTHER, ME, &answer(id, 1)), Back::Drop);
        let of_me = Probed { node: ME, ..answer(id, 2) };
        assert_eq!(probes.back(1, NEAR, ME, &of_me), Back::Drop);
        let taken =
            (10..20_000).filter(|n| probes.back(1, NEAR, ME, &answer(id, *n)) == Back::Here);
        assert_eq!(taken.count(), ANSWERS_MAX - 1);
        assert_eq!(probes.wait_ms(1), APART_MS - 1);
    }
}
