use mosaik_core::run::VerifiedRun;
use mosaik_proto::{
    carrier::{Effect, Input, Role, SessionId},
    message::Message,
};

use super::wire::{Author, BINDING, Node, hasher};

/// One node in the middle that has dialed all the others. Time stands still.
struct Star {
    middle: Node,
    others: Vec<Node>,
    /// Bytes of runs, as encoded, that the one in the middle was sent.
    run_bytes: usize,
}

impl Star {
    fn connect(middle: Node, others: Vec<Node>) -> Self {
        let mut star = Self { middle, others, run_bytes: 0 };
        let center = star.middle.replica.node();
        for (at, other) in star.others.iter_mut().enumerate() {
            let session = SessionId(at as u64);
            let binding = [BINDING.as_slice(), &[at as u8]].concat();
            let (peer, role) = (other.replica.node(), Role::Dialer);
            star.middle.step(Input::Connected {
                session,
                peer,
                role,
                binding: binding.clone(),
                rtt_ms: None,
            });
            let (peer, role) = (center, Role::Listener);
            other.step(Input::Connected { session, peer, role, binding, rtt_ms: None });
        }
        star
    }

    /// Until nobody says anything.
    fn settle(&mut self) {
        let mut flew = true;
        while flew {
            flew = false;
            for other in &mut self.others {
                for (session, message) in said(other) {
                    flew = true;
                    if let Message::Run(run) = &message {
                        self.run_bytes += run.encoded_len();
                    }
                    self.middle.step(Input::Frame { session, message });
                }
            }
            for (session, message) in said(&mut self.middle) {
                flew = true;
                self.others[session.0 as usize].step(Input::Frame { session, message });
            }
        }
    }
}

/// What a node has said, all of it sent.
fn said(node: &mut Node) -> Vec<(SessionId, Message)> {
    let mut said = Vec::new();
    for effect in std::mem::take(&mut node.effects) {
        if let Effect::Send { session, frame, .. } = effect {
            said.push((session, Message::decode(&frame[4..], &hasher()).expect("own frame")));
            node.step(Input::Sent { session, bytes: frame.len() });
        }
    }
    said
}

fn fetched_once(authors: &[Author], runs: impl Fn(&Author) -> Vec<VerifiedRun>) {
    let holder = |n: u8| {
        let mut node = Node::new(n);
        node.take(authors.iter().flat_map(&runs));
        node
    };
    let held: usize = authors.iter().flat_map(&runs).map(|run| run.encoded_len()).sum();
    let mut star = Star::connect(Node::new(1), (2..10).map(holder).collect());
    star.settle();
    assert!(authors.iter().all(|author| star.middle.holds(author)));
    let times = star.run_bytes as f64 / held as f64;
    assert!(times <= 1.1, "{times:.2} times the bytes that there are");
}

#[test]
fn a_newcomer_gets_many_feeds_once_from_eight_who_have_them() {
    let authors: Vec<Author> = (0..300).map(|n| Author::of(n, 30)).collect();
    fetched_once(&authors, |author| vec![author.all()]);
}

#[test]
fn a_newcomer_gets_one_long_feed_once_from_eight_who_have_it() {
    let mut author = Author::new(1);
    (0..6_000u32).for_each(|i| author.write(&[&i.to_be_bytes()[..], &[7; 150]].concat()));
    fetched_once(&[author], |author| {
        (0..24).map(|i| author.run(i * 250 + 1, i * 250 + 250)).collect()
    });
}

/// It may know nobody else before gossip has told it of others.
#[test]
fn a_newcomer_keeps_its_session_for_a_minute_though_there_is_no_place_for_it() {
    let mut star = Star::connect(Node::new(1), (2..22).map(Node::new).collect());
    star.settle();
    let mut peers_after = |steps: u64| {
        for _ in 0..steps {
            star.middle.pass(10_000);
            star.settle();
        }
        star.middle.replica.open_peers()
    };
    assert_eq!(peers_after(5), 20);
    assert_eq!(peers_after(3), 16);
}
