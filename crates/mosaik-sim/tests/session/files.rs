//! Pieces of files over a radio link: slice by slice, behind all else, lacked, or of nobody's asking.

use mosaik_core::id::BlobId;
use mosaik_proto::{
    carrier::{Effect, Input, Radio, Role, SessionId},
    message::{ByeCode, FILE_PIECE_MAX, FILE_SLICE_MAX, FilePart, FileWant, Message},
};

use super::wire::{BINDING, Node, Pair, hasher};

const SESSION: SessionId = SessionId(1);
const BLOB: BlobId = BlobId([5; 32]);
/// How many times longer than over the internet everything may take.
const PATIENCE: u64 = 3;

/// Two nodes and the link between them: the first asks, the second gives.
struct Link {
    nodes: [Node; 2],
    /// What each was told of files.
    told: [Vec<Effect>; 2],
    /// What went of files, by who sent it.
    said: [Vec<Message>; 2],
    /// Why it ended.
    end: Option<ByeCode>,
}

impl Link {
    fn open() -> Self {
        let mut nodes = [Node::new(1), Node::new(2)];
        let names = [vec![1; 16], vec![2; 16]];
        let ids = nodes.each_ref().map(|node| node.replica.node());
        for (at, role) in [(0, Role::Dialer), (1, Role::Listener)] {
            let (own_name, peer_name) = (names[at].clone(), names[1 - at].clone());
            let radio = Radio { own_name, peer_name, patience: PATIENCE, run_len_max: 1 << 14 };
            let (peer, binding) = (ids[1 - at], BINDING.to_vec());
            nodes[at].step(Input::Linked { session: SESSION, peer, role, binding, radio });
        }
        let mut link =
            Self { nodes, told: Default::default(), said: Default::default(), end: None };
        link.settle();
        let is_told = |told: &Vec<Effect>| matches!(&told[..], [Effect::FilePeer { .. }]);
        assert!(link.told.iter().all(is_told), "each knows that the other gives files");
        link.told = Default::default();
        link
    }

    /// Carries what a node has said; what leaves it is told back if it `sends`.
    fn carry(&mut self, from: usize, sends: bool) -> usize {
        let mut bytes = 0;
        for effect in std::mem::take(&mut self.nodes[from].effects) {
            match effect {
                Effect::Send { session, frame, .. } => {
                    bytes += frame.len();
                    let message = Message::decode(&frame[4..], &hasher()).expect("own frame");
                    if matches!(message, Message::FileWant(_) | Message::FilePart(_)) {
                        self.said[from].push(message.clone());
                    }
                    self.nodes[1 - from].step(Input::Frame { session, message });
                    if sends {
                        self.nodes[from].step(Input::Sent { session, bytes: frame.len() });
                    }
                }
                Effect::Close { bye, .. } => self.end = Some(bye.code),
                Effect::FilePeer { .. }
                | Effect::FileAsked { .. }
                | Effect::FileSlice { .. }
                | Effect::FileLacked { .. } => self.told[from].push(effect),
                _ => {}
            }
        }
        bytes
    }

    fn settle(&mut self) {
        while self.carry(0, true) + self.carry(1, true) > 0 {}
    }

    fn want(&mut self, group: u32, from: u32) {
        self.nodes[0].step(Input::FileWant { session: SESSION, blob: BLOB, group, from });
        self.settle();
    }

    /// The token of the question that the second was asked.
    fn token(&mut self) -> u64 {
        match std::mem::take(&mut self.told[1])[..] {
            [Effect::FileAsked { session: SESSION, token, blob: BLOB, .. }] => token,
            ref told => panic!("asked for nothing, or too much: {told:?}"),
        }
    }

    fn give(&mut self, token: u64, piece: Option<Vec<u8>>) {
        self.nodes[1].step(Input::FileGive { session: SESSION, token, piece });
    }

    /// The slices that the first got, joined.
    fn got(&mut self) -> Vec<u8> {
        let told = std::mem::take(&mut self.told[0]).into_iter();
        told.flat_map(|effect| match effect {
            Effect::FileSlice { bytes, .. } => bytes,
            other => panic!("no slice: {other:?}"),
        })
        .collect()
    }

    /// Says something of a file to the first, as the second never would.
    fn forge(&mut self, message: Message) {
        self.nodes[0].step(Input::Frame { session: SESSION, message });
        self.settle();
    }
}

fn part(token: u64, total: u32, len: usize) -> Message {
    Message::FilePart(FilePart { token, total, bytes: vec![0; len] })
}

#[test]
fn a_piece_comes_in_slices_and_a_part_of_it_where_the_rest_is_there() {
    let mut link = Link::open();
    let piece: Vec<u8> = (0..16_600u32).map(|at| (at % 251) as u8).collect();
    for from in [0, 5_000, 16_599] {
        link.want(2, from);
        let token = link.token();
        link.give(token, Some(piece.clone()));
        link.settle();
        assert_eq!(link.got(), piece[from as usize..]);
    }
    let is_short = |message: &Message| match message {
        Message::FilePart(part) => part.bytes.len() <= FILE_SLICE_MAX && part.total == 16_600,
        _ => false,
    };
    assert!(link.said[1].iter().all(is_short));
}

#[test]
fn slices_wait_here_while_something_waits_at_the_carrier() {
    let mut link = Link::open();
    link.want(0, 0);
    let token = link.token();
    link.give(token, Some(vec![1; FILE_PIECE_MAX]));
    let first = link.carry(1, false);
    assert!((8 << 10..10 << 10).contains(&first), "{first} bytes at once");
    assert_eq!(link.carry(1, false), 0);
    // A peer that asks on doesn't get more at a time.
    for token in 100..200 {
        let message = Message::FileWant(FileWant { token, blob: BLOB, group: 1, from: 0 });
        link.nodes[1].step(Input::Frame { session: SESSION, message });
    }
    assert!(link.told[1].is_empty());
    link.nodes[1].effects.clear();
    link.nodes[1].step(Input::Sent { session: SESSION, bytes: first });
    assert!(link.carry(1, false) > 0);
}

#[test]
fn what_cannot_be_given_is_lacked_and_so_is_what_a_silent_peer_owes() {
    let mut link = Link::open();
    for piece in [None, Some(Vec::new()), Some(vec![0; FILE_PIECE_MAX + 1])] {
        link.want(0, 0);
        let token = link.token();
        link.give(token, piece);
        link.settle();
        assert_eq!(std::mem::take(&mut link.told[0]), [Effect::FileLacked { session: SESSION }]);
    }
    link.want(0, 0);
    let token = link.token();
    // One at a time.
    link.want(1, 0);
    assert_eq!(std::mem::take(&mut link.told[0]), [Effect::FileLacked { session: SESSION }]);
    let silent_ms = 5 * 60_000 * PATIENCE;
    link.nodes[0].pass(silent_ms - 1);
    link.settle();
    assert!(link.told[0].is_empty());
    link.nodes[0].pass(1);
    link.settle();
    assert_eq!(std::mem::take(&mut link.told[0]), [Effect::FileLacked { session: SESSION }]);
    // What comes after all is nobody's.
    link.give(token, Some(vec![1; 10]));
    link.settle();
    assert!(link.told[0].is_empty());
    assert_eq!(link.end, None);
    // The session's end is the end of what is asked for.
    let bye = Input::Disconnected { session: SESSION, reason: "gone".into() };
    link.nodes[0].step(bye);
    link.want(0, 0);
    assert_eq!(link.told[0], [Effect::FileLacked { session: SESSION }]);
}

#[test]
fn a_piece_of_another_length_than_it_had_ends_the_session() {
    let wrong: [&[Message]; 3] = [
        &[part(1, 2_000, 1_000), part(1, 2_001, 1_000)],
        &[part(1, 2_000, 1_000), part(1, 2_000, 1_000), part(1, 2_000, 1)],
        &[part(1, 999, 999)],
    ];
    for (slices, from, is_over) in [(wrong[0], 0, true), (wrong[1], 0, false), (wrong[2], 1, true)]
    {
        let mut link = Link::open();
        link.want(0, from);
        for slice in slices {
            link.forge(slice.clone());
        }
        // What follows the last slice is of no question any more.
        assert_eq!(link.end, is_over.then_some(ByeCode::Violation));
    }
}

#[test]
fn over_the_internet_nobody_asks_and_nobody_answers() {
    let mut pair = Pair::connected(Node::new(1), Node::new(2));
    pair.nodes[0].step(Input::FileWant { session: SESSION, blob: BLOB, group: 0, from: 0 });
    assert_eq!(pair.nodes[0].effects, [Effect::FileLacked { session: SESSION }]);
    pair.nodes[1].effects.clear();
    let want = Message::FileWant(FileWant { token: 1, blob: BLOB, group: 0, from: 0 });
    for message in [want, part(1, 1, 1)] {
        pair.nodes[1].step(Input::Frame { session: SESSION, message });
    }
    assert!(pair.nodes[1].effects.is_empty(), "{:?}", pair.nodes[1].effects);
}
