//! How long a dial takes until the first frame, and how many bytes of frames go over loopback.
#![allow(missing_docs, clippy::print_stdout)]

use std::time::Instant;

use mosaik_core::{id::EventId, key::Network, reach::Reach};
use mosaik_net::{Delivery, Net, NetConfig, RelaySetting};
use mosaik_proto::{
    carrier::{Effect, Input, SessionId},
    message::{Message, Payloads},
};
use tokio::sync::mpsc;

const DIALS: u32 = 50;
const BYTES: usize = 200 << 20;
/// Bytes queued at once, as the replica paces itself by `Sent`.
const AHEAD: usize = 1 << 20;

async fn start(seed: u8) -> (Net, mpsc::Receiver<Delivery>) {
    let (sender, inbox) = mpsc::channel(256);
    let config = NetConfig {
        keys: Network::Public("bench".into()).keys(),
        secret: [seed; 32],
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        relays: RelaySetting::None,
        relay_only: false,
        relay_ca: None,
        reach: Reach::Lab,
        rate_down: None,
        rate_up: None,
        connections_max: 256,
        mdns: false,
        gossip: false,
        shelf: None,
    };
    (Net::bind(config, sender).await.expect("a free port"), inbox)
}

async fn connected(inbox: &mut mpsc::Receiver<Delivery>) -> SessionId {
    loop {
        match inbox.recv().await.expect("the carrier lives").input {
            Input::Connected { session, .. } => return session,
            Input::DialFailed { reason, .. } => panic!("{reason}"),
            _ => {}
        }
    }
}

async fn frame(inbox: &mut mpsc::Receiver<Delivery>) {
    while !matches!(inbox.recv().await.expect("the carrier lives").input, Input::Frame { .. }) {}
}

#[tokio::main]
async fn main() {
    let ((mut ada, mut at_ada), (ben, mut at_ben)) = (start(1).await, start(2).await);
    let mut session = SessionId(0);
    let begun = Instant::now();
    for _ in 0..DIALS {
        ada.carry(Effect::Dial { peer: ben.node_id(), addresses: ben.addresses() });
        session = connected(&mut at_ada).await;
        ada.carry(Effect::Send { session, frame: Message::Again(0).encode(), is_asked: false });
        frame(&mut at_ben).await;
    }
    println!("dial to first frame at the listener: {:?}", begun.elapsed() / DIALS);

    for len in [1_000, 60_000] {
        let message = Message::Payloads(Payloads {
            give: vec![(EventId([1; 32]), vec![7; len])],
            ..Payloads::default()
        });
        let frame = message.encode();
        let count = BYTES / frame.len() / if len < 10_000 { 4 } else { 1 };
        let reader = tokio::spawn(async move {
            let mut left = count;
            while left > 0 {
                if let Input::Frame { .. } = at_ben.recv().await.expect("the carrier lives").input {
                    left -= 1;
                }
            }
            at_ben
        });
        let begun = Instant::now();
        let mut ahead = 0;
        for _ in 0..count {
            ada.carry(Effect::Send { session, frame: frame.clone(), is_asked: false });
            ahead += frame.len();
            while ahead > AHEAD {
                match at_ada.recv().await.expect("the carrier lives").input {
                    Input::Sent { bytes, .. } => ahead -= bytes,
                    Input::Disconnected { reason, .. } => panic!("{reason}"),
                    _ => {}
                }
            }
        }
        at_ben = reader.await.expect("no panic");
        let (took, bytes) = (begun.elapsed(), count * frame.len());
        println!(
            "{count} frames of {} bytes: {:.0} MB/s, {:.0} frames/s",
            frame.len(),
            bytes as f64 / 1e6 / took.as_secs_f64(),
            count as f64 / took.as_secs_f64()
        );
    }
    ada.close().await;
    ben.close().await;
}
