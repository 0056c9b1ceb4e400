//! One whole session, byte for byte: `tests/vectors/transcript.json` at the top of the repository.
//!
//! Whoever changes what is said has changed the protocol: then the first session version is no longer
//! what other implementations know.

use std::{fs, path::Path};

use data_encoding::HEXLOWER;
use mosaik_core::event::Hasher;
use mosaik_proto::{
    carrier::{Effect, Input, Role, SessionId},
    message::{Message, frame_len},
};
use serde_json::{Value as Json, json};

use super::wire::{Author, BINDING, Node, hasher};

/// Authors that both hold: more than a leaf of the comparison lists.
const SHARED: u64 = 300;

const SESSION: SessionId = SessionId(1);

/// A frame as it went over the wire, and who said it: 0 the dialer.
type Said = (usize, Vec<u8>);

/// Two nodes that hold different events meet, compare, ask, answer, tell of a new one, fill a payload,
/// and part.
fn session() -> ([Node; 2], Vec<Said>) {
    let mut nodes = [Node::new(1), Node::new(2)];
    let stripped = Author::of(1000, 2);
    for node in &mut nodes {
        node.take((0..SHARED).map(|n| Author::of(n, 1).all()));
    }
    // What one of them lacks: whole feeds, the end of one, a branch, a payload.
    let longer = Author::of(7, 4);
    nodes[0].take([Author::of(2000, 3).all(), longer.all(), stripped.all()]);
    nodes[1].take([Author::of(3000, 2).all(), longer.branch(1, 2, 9).all(), stripped.stripped()]);
    nodes[0].append(b"written before they met");
    let mut said = Vec::new();
    let ids = [0, 1].map(|node: usize| nodes[node].replica.node());
    for (node, role) in [(0, Role::Dialer), (1, Role::Listener)] {
        let (peer, binding) = (ids[1 - node], BINDING.to_vec());
        nodes[node].step(Input::Connected { session: SESSION, peer, role, binding, rtt_ms: None });
    }
    settle(&mut nodes, &mut said);
    nodes[1].append(b"written while they talk");
    settle(&mut nodes, &mut said);
    for node in &mut nodes {
        node.pass(100_000);
    }
    settle(&mut nodes, &mut said);
    nodes[0].step(Input::Leave);
    settle(&mut nodes, &mut said);
    (nodes, said)
}

/// Carries frames until nobody says anything.
fn settle(nodes: &mut [Node; 2], said: &mut Vec<Said>) {
    loop {
        let before = said.len();
        for from in [0, 1] {
            for effect in std::mem::take(&mut nodes[from].effects) {
                let frame = match effect {
                    Effect::Send { frame, .. } => frame,
                    Effect::Close { bye, .. } => Message::Bye(bye).encode(),
                    _ => continue,
                };
                let message = Message::decode(&frame[4..], &hasher()).expect("own frame");
                let bytes = frame.len();
                said.push((from, frame));
                nodes[1 - from].step(Input::Frame { session: SESSION, message });
                nodes[from].step(Input::Sent { session: SESSION, bytes });
            }
        }
        if said.len() == before {
            return;
        }
    }
}

fn is_one_frame(frame: &[u8], hasher: &Hasher) -> Message {
    let header = frame[..4].try_into().expect("a header");
    assert_eq!(frame_len(header).expect("a length"), frame.len() - 4);
    Message::decode(&frame[4..], hasher).expect("a frame of this version")
}

fn document(said: &[Said]) -> Json {
    let frames: Vec<_> = said
        .iter()
        .map(|(from, frame)| {
            let kind = is_one_frame(frame, &hasher()).kind();
            let from = ["dialer", "listener"][*from];
            json!({ "from": from, "type": kind, "frame": HEXLOWER.encode(frame) })
        })
        .collect();
    json!({ "network": "session", "binding": HEXLOWER.encode(&BINDING), "frames": frames })
}

#[test]
fn the_same_meeting_is_the_same_bytes() {
    let recorded: Json =
        serde_json::from_str(include_str!("../../../../tests/vectors/transcript.json"))
            .expect("a transcript");
    let (nodes, said) = session();
    let now = document(&said);
    if now != recorded {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("transcript.json");
        let text = serde_json::to_string_pretty(&now).expect("plain data");
        fs::write(&path, text + "\n").expect("the build's own directory");
        panic!("the session has changed; what is said now is in {}", path.display());
    }
    assert_eq!(nodes[0].top(), nodes[1].top(), "they end with the same");
    for node in &nodes {
        let counts = mosaik_core::feed::Ledger::counts(&node.ledger).expect("memory never fails");
        assert_eq!(counts.missing, 0, "the payloads came");
    }
}

#[test]
fn every_message_of_a_usual_session_is_in_the_transcript() {
    let (_, said) = session();
    let mut kinds: Vec<u8> =
        said.iter().map(|(_, frame)| is_one_frame(frame, &hasher()).kind()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14]);
}

/// A transcript that was recorded once is read for ever.
#[test]
fn the_recorded_frames_are_read_and_written_the_same() {
    let recorded: Json =
        serde_json::from_str(include_str!("../../../../tests/vectors/transcript.json"))
            .expect("a transcript");
    let frames = recorded["frames"].as_array().expect("a list");
    assert!(frames.len() > 10, "{} frames", frames.len());
    for recorded in frames {
        let frame = HEXLOWER.decode(recorded["frame"].as_str().expect("hex").as_bytes());
        let frame = frame.expect("hex");
        let message = is_one_frame(&frame, &hasher());
        assert_eq!(u64::from(message.kind()), recorded["type"].as_u64().expect("a number"));
        assert_eq!(message.encode(), frame, "type {}", message.kind());
    }
}
