//! Hints over gossip, and who may gossip.

use ed25519_dalek::SigningKey;
use iroh::endpoint::ConnectionError;
use mosaik_core::{
    event::{Event, Hasher, Kind, Payload},
    feed::Tip,
    hlc::Hlc,
    id::{AuthorId, EventId, NodeId},
    run::VerifiedRun,
};
use mosaik_net::NetConfig;
use mosaik_proto::{
    carrier::{Addresses, Effect, Input},
    hint::{HINT_LEN_MAX, Hint, Presence},
    message::{ByeCode, Message},
};
use tokio::time::{Instant, timeout};

use crate::node::{DEADLINE, INBOX, Node, Open, bare, config, connect, dial_node};

async fn gossiper(seed: u8) -> Node {
    Node::start_with(NetConfig { gossip: true, ..config(seed) }, INBOX).await
}

/// A session in which both ends have shown who they are.
async fn greet(dialer: &mut Node, listener: &mut Node) -> (Open, Open) {
    let (at_dialer, at_listener) = connect(dialer, listener).await;
    listener.open(&at_listener);
    dialer.open(&at_dialer);
    (at_dialer, at_listener)
}

async fn neighbour(node: &mut Node, id: NodeId, wanted: bool) {
    node.until("a gossip neighbour", |input| match input {
        Input::Neighbour { peer, up } if peer == id && up == wanted => Some(()),
        _ => None,
    })
    .await;
}

fn head(number: u8) -> Hint {
    Hint::Head(AuthorId([number; 32]), Tip { seq: 7, id: EventId([number; 32]) })
}

async fn hint(node: &mut Node) -> (NodeId, Hint) {
    node.until("a hint", |input| match input {
        Input::Hint { from, hint } => Some((from, hint)),
        _ => None,
    })
    .await
}

fn run_of(payload: usize) -> Hint {
    let key = SigningKey::from_bytes(&[3; 32]);
    let author = AuthorId(key.verifying_key().to_bytes());
    let kind = Kind::new("test").expect("a kind");
    let (hlc, payload) = (Hlc::new(1, 0), Payload::Present(vec![5; payload]));
    let hasher = Hasher::new(&config(0).keys.fingerprint);
    let id = hasher.id(&author, 1, &EventId::ZERO, hlc, &kind, &payload);
    let event = Event { id, author, seq: 1, prev: EventId::ZERO, hlc, kind, payload };
    Hint::Run(VerifiedRun::sign(&key, vec![event]))
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_reach_neighbours_and_their_neighbours() {
    let (mut ada, mut ben, mut cyd) = (gossiper(1).await, gossiper(2).await, gossiper(3).await);
    greet(&mut ada, &mut ben).await;
    greet(&mut cyd, &mut ben).await;
    neighbour(&mut ada, ben.net.node_id(), true).await;
    neighbour(&mut cyd, ben.net.node_id(), true).await;
    // Ben may hear of both in either order.
    ada.net.carry(Effect::Gossip(head(1)));
    assert_eq!(hint(&mut ben).await, (ada.net.node_id(), head(1)));
    assert_eq!(hint(&mut cyd).await, (ben.net.node_id(), head(1)));
    let key = SigningKey::from_bytes(&[3; 32]);
    let keys = config(0).keys;
    let addresses = Addresses { direct: vec![([127, 0, 0, 1], 1).into()], relays: Vec::new() };
    let presence = Presence::sign(&key, &keys.fingerprint, 1, 2, false, "cyd", &addresses);
    for said in [run_of(100), Hint::Presence(presence), head(1)] {
        cyd.net.carry(Effect::Gossip(said.clone()));
        assert_eq!(hint(&mut ben).await, (cyd.net.node_id(), said.clone()));
        assert_eq!(hint(&mut ada).await, (ben.net.node_id(), said));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gossip_ends_with_the_last_session_and_comes_back_with_the_next() {
    let (mut ada, mut ben) = (gossiper(1).await, gossiper(2).await);
    let (ada_id, ben_id) = (ada.net.node_id(), ben.net.node_id());
    let (first, _) = greet(&mut ada, &mut ben).await;
    neighbour(&mut ada, ben_id, true).await;
    neighbour(&mut ben, ada_id, true).await;
    ada.close(first.session, ByeCode::Blocked, "");
    neighbour(&mut ada, ben_id, false).await;
    neighbour(&mut ben, ada_id, false).await;
    greet(&mut ada, &mut ben).await;
    neighbour(&mut ada, ben_id, true).await;
    neighbour(&mut ben, ada_id, true).await;
    ben.net.carry(Effect::Gossip(head(2)));
    assert_eq!(hint(&mut ada).await, (ben_id, head(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_restarts_is_a_neighbour_again() {
    let (mut ada, mut ben) = (gossiper(1).await, gossiper(2).await);
    let (ada_id, ben_id) = (ada.net.node_id(), ben.net.node_id());
    greet(&mut ada, &mut ben).await;
    neighbour(&mut ben, ada_id, true).await;
    ada.net.close().await;
    neighbour(&mut ben, ada_id, false).await;
    let mut ada = gossiper(1).await;
    greet(&mut ben, &mut ada).await;
    neighbour(&mut ada, ben_id, true).await;
    neighbour(&mut ben, ada_id, true).await;
    ada.net.carry(Effect::Gossip(head(1)));
    assert_eq!(hint(&mut ben).await, (ada_id, head(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_too_large_is_never_broadcast_and_the_next_one_arrives() {
    let (mut ada, mut ben) = (gossiper(1).await, gossiper(2).await);
    greet(&mut ada, &mut ben).await;
    neighbour(&mut ada, ben.net.node_id(), true).await;
    let large = run_of(HINT_LEN_MAX);
    assert!(large.encode(0).len() > HINT_LEN_MAX);
    ada.net.carry(Effect::Gossip(large));
    ada.net.carry(Effect::Gossip(head(4)));
    assert_eq!(hint(&mut ben).await, (ada.net.node_id(), head(4)));
    assert_eq!(ada.net.counters().hints_oversize.get(), 1);
    assert_eq!(ada.net.counters().hints_sent.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_inbox_drops_hints_and_loses_no_frame() {
    let ada = NetConfig { gossip: true, ..config(1) };
    let (mut ada, mut ben) = (Node::start_with(ada, 8).await, gossiper(2).await);
    let (_, at_ben) = greet(&mut ada, &mut ben).await;
    neighbour(&mut ada, ben.net.node_id(), true).await;
    neighbour(&mut ben, ada.net.node_id(), true).await;
    // Ada's inbox is left alone until it has overflown.
    let dropped = async {
        let mut number = 0;
        while ada.net.counters().hints_dropped.get() == 0 {
            ben.net.carry(Effect::Gossip(head(number)));
            number = number.wrapping_add(1);
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, dropped).await.expect("a full inbox");
    ben.send(at_ben.session, &Message::Again(77));
    ada.until("the frame", |input| match input {
        Input::Frame { message: Message::Again(77), .. } => Some(()),
        _ => None,
    })
    .await;
}

/// 2,000 at once and 1,000 a second are taken; no more than that is computed for, or comes to the inbox.
#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_that_floods_is_heard_in_part_and_its_session_goes_on() {
    let (mut ada, mut ben) = (gossiper(1).await, gossiper(2).await);
    let (_, at_ben) = greet(&mut ada, &mut ben).await;
    neighbour(&mut ada, ben.net.node_id(), true).await;
    neighbour(&mut ben, ada.net.node_id(), true).await;
    let counters = ada.net.counters();
    let start = Instant::now();
    let flood = async {
        let mut number = 0;
        while counters.limited_hints.get() == 0 {
            ben.net.carry(Effect::Gossip(head(number)));
            number = number.wrapping_add(1);
            while ada.inbox.try_recv().is_ok() {}
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, flood).await.expect("too many");
    let (received, dropped) = (counters.hints_received.get(), counters.hints_dropped.get());
    let most = 2001.0 + 1000.0 * start.elapsed().as_secs_f64();
    assert!(received as f64 <= most, "{received} of {most}");
    assert!(received + dropped >= 2000, "{received} and {dropped}");
    ben.send(at_ben.session, &Message::Again(77));
    ada.until("the frame", |input| match input {
        Input::Frame { message: Message::Again(77), .. } => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gossip_without_an_open_session_is_turned_away() {
    let mut ada = gossiper(1).await;
    let stranger = bare(2, iroh_gossip::ALPN).await;
    // A connection alone is not enough, nor is a session before its greeting.
    let connection = dial_node(&stranger, &ada, iroh_gossip::ALPN).await;
    let error = timeout(DEADLINE, connection.closed()).await.expect("closed in time");
    let ConnectionError::ApplicationClosed(close) = error else { panic!("{error}") };
    assert_eq!(close.reason, "gossip needs an open session".as_bytes());
    assert_eq!(ada.net.counters().refused.get(), 1);

    let mut ben = Node::start(3).await;
    let (_, open) = connect(&mut ben, &mut ada).await;
    let same_key = bare(3, iroh_gossip::ALPN).await;
    let connection = dial_node(&same_key, &ada, iroh_gossip::ALPN).await;
    timeout(DEADLINE, connection.closed()).await.expect("closed in time");
    assert_eq!(ada.net.counters().refused.get(), 2);

    // With it, it is.
    ada.open(&open);
    let welcome = async {
        loop {
            let connection = dial_node(&same_key, &ada, iroh_gossip::ALPN).await;
            // Turned away means closed at once; the admission may be on its way.
            let closed = timeout(std::time::Duration::from_millis(500), connection.closed()).await;
            if closed.is_err() {
                break;
            }
        }
    };
    timeout(DEADLINE, welcome).await.expect("let in");
}

/// Gossip knows peers by id alone and sends to the newest connection, so that of two twins perhaps
/// one hears it. The sessions of both are what counts, and stay as they are.
#[tokio::test(flavor = "multi_thread")]
async fn gossip_with_twins_disturbs_the_session_of_neither() {
    let (mut one, mut two) = (gossiper(1).await, gossiper(1).await);
    let mut ben = gossiper(2).await;
    let id = one.net.node_id();
    let (from_one, of_one) = greet(&mut one, &mut ben).await;
    let (from_two, of_two) = greet(&mut two, &mut ben).await;
    neighbour(&mut ben, id, true).await;
    ben.net.carry(Effect::Gossip(head(1)));
    tokio::select! {
        _ = hint(&mut one) => {}
        _ = hint(&mut two) => {}
    }
    for (twin, from, of) in [(&mut one, &from_one, &of_one), (&mut two, &from_two, &of_two)] {
        twin.send(from.session, &Message::Again(5));
        assert_eq!(ben.frame(of.session).await, Message::Again(5));
        ben.send(of.session, &Message::Again(6));
        assert_eq!(twin.frame(from.session).await, Message::Again(6));
    }
    // One leaves; the other is still a guest.
    one.close(from_one.session, ByeCode::Done, "");
    ben.disconnected(of_one.session).await;
    two.send(from_two.session, &Message::Again(7));
    assert_eq!(ben.frame(of_two.session).await, Message::Again(7));
    assert_eq!(ben.net.counters().refused.get(), 0);
}
