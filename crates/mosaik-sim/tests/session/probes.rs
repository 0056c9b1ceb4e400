//! A probe over several real replicas: whom it reaches, what it costs, and who is left out.

use std::collections::BTreeMap;

use mosaik_core::id::NodeId;
use mosaik_proto::{
    carrier::{Effect, Input, Role, SessionId},
    message::{Message, Probe, ProbeId, Probed, SessionWay},
};

use super::wire::{BINDING, EPOCH_MS, Node, Talk, hasher};

/// Nodes and the links between them. Time stands still unless a test lets it pass.
struct Mesh {
    nodes: Vec<Node>,
    /// The two ends of each session, by its number.
    links: BTreeMap<SessionId, [usize; 2]>,
    /// Frames of probes that went over each.
    probes: BTreeMap<SessionId, usize>,
    /// What the nodes that asked were told.
    begun: Vec<Result<Probe, String>>,
    answers: Vec<(Probed, Option<i64>)>,
}

impl Mesh {
    fn new(nodes: usize) -> Self {
        Self {
            nodes: (1..=nodes as u8).map(Node::new).collect(),
            links: BTreeMap::new(),
            probes: BTreeMap::new(),
            begun: Vec::new(),
            answers: Vec::new(),
        }
    }

    fn linked(nodes: usize, links: impl IntoIterator<Item = [usize; 2]>) -> Self {
        let mut mesh = Self::new(nodes);
        mesh.link(links);
        mesh
    }

    fn link(&mut self, links: impl IntoIterator<Item = [usize; 2]>) {
        for ends in links {
            let session = SessionId(self.links.len() as u64 + 1);
            let binding = [BINDING.as_slice(), &session.0.to_be_bytes()].concat();
            for (at, role) in [(0, Role::Dialer), (1, Role::Listener)] {
                let (peer, binding) = (self.id(ends[1 - at]), binding.clone());
                let connected = Input::Connected { session, peer, role, binding, rtt_ms: None };
                self.nodes[ends[at]].step(connected);
            }
            self.links.insert(session, ends);
        }
        self.settle();
    }

    fn line(nodes: usize) -> Self {
        Self::linked(nodes, (1..nodes).map(|at| [at - 1, at]))
    }

    fn id(&self, node: usize) -> NodeId {
        self.nodes[node].replica.node()
    }

    /// Until nobody says anything.
    fn settle(&mut self) {
        let mut flew = true;
        while flew {
            flew = false;
            for from in 0..self.nodes.len() {
                flew |= self.flight(from);
            }
        }
    }

    fn flight(&mut self, from: usize) -> bool {
        let mut flew = false;
        for effect in std::mem::take(&mut self.nodes[from].effects) {
            match effect {
                Effect::Send { session, frame, .. } => {
                    flew = true;
                    let message = Message::decode(&frame[4..], &hasher()).expect("own frame");
                    if matches!(message, Message::Probe(_)) {
                        *self.probes.entry(session).or_default() += 1;
                    }
                    let ends = self.links[&session];
                    let to = ends[usize::from(ends[0] == from)];
                    self.nodes[to].step(Input::Frame { session, message });
                    self.nodes[from].step(Input::Sent { session, bytes: frame.len() });
                }
                Effect::Close { bye, .. } => panic!("node {from} hangs up: {}", bye.text),
                Effect::ProbeBegun { result, .. } => self.begun.push(result),
                Effect::ProbeAnswered { answer, clock_offset_ms } => {
                    self.answers.push((answer, clock_offset_ms));
                }
                _ => {}
            }
        }
        flew
    }

    fn probe(&mut self, from: usize) {
        self.nodes[from].step(Input::Probe { token: 1 });
        self.settle();
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 100 {
            self.nodes.iter_mut().for_each(|node| node.pass(100));
            self.settle();
        }
    }

    /// Who has answered: by name, with its hops.
    fn answered(&self) -> Vec<(&str, u8)> {
        let answered = self.answers.iter().map(|(answer, _)| (answer.name.as_str(), answer.hops));
        let mut answered: Vec<_> = answered.collect();
        answered.sort_unstable();
        answered
    }
}

#[test]
fn a_probe_reaches_all_of_a_line_and_each_says_how_far_it_is() {
    let mut mesh = Mesh::line(5);
    mesh.nodes[1].wall_ms += 5_000;
    // The session that came first from the left, as its carrier knows it.
    mesh.nodes[2].step(Input::Way { session: SessionId(2), way: SessionWay::Relay });
    let events: Vec<_> = mesh.nodes.iter().map(|node| node.top()).collect();
    mesh.probe(0);
    assert_eq!(mesh.answered(), [("n2", 1), ("n3", 2), ("n4", 3), ("n5", 4)]);
    for at in 1..5 {
        let (answer, _) = mesh.answers.iter().find(|(a, _)| a.node == mesh.id(at)).expect("it did");
        assert_eq!(answer.from, mesh.id(at - 1));
        assert_eq!(answer.received_ms, EPOCH_MS + if at == 1 { 5_000 } else { 0 });
        let way = if at == 2 { SessionWay::Relay } else { SessionWay::Unknown };
        assert_eq!(answer.way, way);
    }
    assert!(mesh.probes.values().all(|frames| *frames == 1), "{:?}", mesh.probes);
    let after: Vec<_> = mesh.nodes.iter().map(|node| node.top()).collect();
    assert_eq!(events, after, "nothing is written for it");
}

#[test]
fn a_clock_that_is_ahead_is_known_of_neighbours_alone() {
    let mut mesh = Mesh::new(3);
    mesh.nodes.iter_mut().skip(1).for_each(|node| node.wall_ms += 5_000);
    mesh.link([[0, 1], [1, 2]]);
    mesh.probe(0);
    let offsets: BTreeMap<_, _> =
        mesh.answers.iter().map(|(a, offset)| (a.node, *offset)).collect();
    assert_eq!(offsets[&mesh.id(1)], Some(5_000));
    assert_eq!(offsets[&mesh.id(2)], None);
}

#[test]
fn no_link_carries_a_probe_more_than_once_each_way() {
    let all = (0..8).flat_map(|a| (a + 1..8).map(move |b| [a, b]));
    let mut mesh = Mesh::linked(8, all);
    mesh.probe(3);
    assert_eq!(mesh.answers.len(), 7);
    assert!(mesh.answers.iter().all(|(answer, _)| answer.hops <= 2), "{:?}", mesh.answered());
    assert!(mesh.probes.values().all(|frames| *frames <= 2), "{:?}", mesh.probes);
}

#[test]
fn a_second_probe_within_a_minute_is_refused_here_and_by_who_gets_it() {
    let mut mesh = Mesh::line(3);
    mesh.probe(0);
    assert_eq!(mesh.answers.len(), 2);
    mesh.pass(10_000);
    mesh.probe(0);
    let refused = mesh.begun[1].as_ref().expect_err("it is too soon");
    assert!(refused.contains("try again in 50 s"), "{refused}");
    // Another node's is taken meanwhile; one that only says so is not.
    mesh.probe(2);
    assert_eq!(mesh.answers.len(), 4);
    let second = Probe { id: ProbeId([9; 16]), origin: mesh.id(0), sent_ms: 0, hops: 1 };
    let message = Message::Probe(second);
    mesh.nodes[1].step(Input::Frame { session: SessionId(1), message });
    mesh.settle();
    assert_eq!(mesh.nodes[1].replica.totals().probes_dropped, 1);
    mesh.pass(50_000);
    mesh.probe(0);
    assert_eq!(mesh.answers.len(), 6);
}

#[test]
fn a_node_that_knows_no_probes_is_left_out() {
    // The peer that the test speaks for says that it answers pings alone.
    let mut talk = Talk::open(Node::new(1));
    talk.node.step(Input::Probe { token: 7 });
    let effects = std::mem::take(&mut talk.node.effects);
    let refused = effects.iter().find_map(|effect| match effect {
        Effect::ProbeBegun { token: 7, result: Err(reason) } => Some(reason),
        _ => None,
    });
    assert!(refused.is_some_and(|reason| reason.contains("no connected peer")), "{effects:?}");
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Send { .. })), "{effects:?}");
}

#[test]
fn a_probe_that_came_far_enough_is_answered_and_goes_no_further() {
    let mut mesh = Mesh::line(3);
    let mut far = Probe { id: ProbeId([9; 16]), origin: NodeId([7; 32]), sent_ms: 0, hops: 16 };
    let came = |mesh: &mut Mesh, probe: &Probe| {
        let message = Message::Probe(probe.clone());
        mesh.nodes[1].step(Input::Frame { session: SessionId(1), message });
        let effects = mesh.nodes[1].effects.clone();
        mesh.settle();
        let sent = effects.into_iter().filter_map(|effect| match effect {
            Effect::Send { frame, .. } => Message::decode(&frame[4..], &hasher()).ok(),
            _ => None,
        });
        sent.collect::<Vec<_>>()
    };
    let sent = came(&mut mesh, &far);
    assert!(matches!(&sent[..], [Message::Probed(answer)] if answer.hops == 16), "{sent:?}");
    (far.id, far.origin, far.hops) = (ProbeId([8; 16]), NodeId([6; 32]), 15);
    let sent = came(&mut mesh, &far);
    assert!(
        matches!(&sent[..], [Message::Probed(_), Message::Probe(further)] if further.hops == 16),
        "{sent:?}"
    );
}
