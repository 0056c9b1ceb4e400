//! Whoever is no node of this network, at either end of a connection: told why, hung up on, and the
//! node goes on.

use std::{net::UdpSocket, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use iroh::{Endpoint, EndpointAddr, SecretKey};
use mosaik_api::document::{Peer, PeerState};
use mosaik_lab::{Cluster, Node, wait};
use mosaik_tests::{Diary, cluster, play};
use tokio::task::JoinSet;

use super::goes_on;
use crate::{
    stranger::{ALPN, APP, Greet, STEP, Stranger, closed, endpoint, place_of},
    wire::{Keys, bytes, ticket, varint},
};

/// Who dials a node and is none. Each ends with the code and the words that it reads.
#[tokio::test]
async fn who_dials_and_is_no_node_of_this_network_is_hung_up_on_and_the_node_goes_on() {
    play(cluster(2).dht(0).relay(false), async |cluster: &mut Cluster| {
        let keys = Keys::of(cluster.network());
        let [n1, n2] = &mut cluster.nodes[..] else { unreachable!("two nodes") };
        n1.start().await?;
        n1.run(&["record", "create", "R-1", "--form", "report", "of=n1"]).await?.ok()?;
        let place = place_of(n1).await?;
        let diary = Diary::begin();

        // The two that are waited for take seconds: meanwhile come all the others.
        let mut slow = JoinSet::new();
        slow.spawn(says_nothing(place.clone(), false));
        slow.spawn(says_nothing(place.clone(), true));

        let mut status = n1.status().await?;
        for datagram in 0..200_u64 {
            noise(&place, datagram).context("noise on the port")?;
        }
        status = goes_on(n1, &status).await?;
        for (name, greeting, code, text) in greetings(&keys) {
            let mut stranger = Stranger::dial(&place).await?;
            let greet = greeting(&stranger)?;
            stranger.send(1, &greet.body()).await?;
            is_told(name, stranger.closed().await?, code, text)?;
            let seen = peer(n1, &stranger.id(), PeerState::Refused).await.context(name)?;
            let reason = seen.reason.context("a refused peer has a reason")?;
            ensure!(reason.contains(text), "{name}: the node says {reason:?}");
            status = goes_on(n1, &status).await.context(name)?;
        }
        diary.note("greetings of others are refused");

        for (name, garbage) in garbage() {
            let mut stranger = Stranger::dial(&place).await?;
            stranger.send_raw(&garbage).await?;
            is_told(name, stranger.closed().await?, 4, "")?;
            status = goes_on(n1, &status).await.context(name)?;
            let mut member = Stranger::open(&place, &keys).await?;
            member.send_raw(&garbage).await?;
            is_told(name, member.closed().await?, 4, "")?;
            let seen = peer(n1, &member.id(), PeerState::BackingOff).await.context(name)?;
            ensure!(seen.reason.is_some_and(|reason| !reason.is_empty()), "{name}: no reason");
            status = goes_on(n1, &status).await.context(name)?;
        }
        diary.note("garbage is hung up on");

        let proof = Stranger::open(&place, &keys).await?.proof(&keys)?;
        let mut thief = Stranger::dial(&place).await?;
        thief.send(1, &Greet { app: APP, versions: (1, 1), proof }.body()).await?;
        is_told("another connection's proof", thief.closed().await?, 2, "not in this network")?;

        while let Some(told) = slow.join_next().await {
            is_told("silence", told??, 7, "")?;
        }
        diary.note("silence has an end");
        goes_on(n1, &status).await?;

        // Whoever belongs here still gets in.
        n2.arguments.extend(["--peer".into(), n1.identity().await?.ticket]);
        n2.start().await?;
        let agreed = cluster.agreement(STEP).await?;
        ensure!(agreed.frontier.len() == 2, "{:?}", agreed.frontier);
        diary.note("a node of this network is let in");
        Ok(())
    })
    .await;
}

/// Who is dialed by a ticket and is none.
#[tokio::test]
async fn whoever_answers_at_the_other_end_of_a_ticket_the_node_says_what_it_found_and_goes_on() {
    play(cluster(2).dht(0).relay(false), async |cluster: &mut Cluster| {
        let [n1, n2] = &mut cluster.nodes[..] else { unreachable!("two nodes") };
        let (echo, silent) = (endpoint(ALPN).await?, endpoint(ALPN).await?);
        let other = endpoint(b"another/protocol").await?;
        // It takes what comes, and never was QUIC.
        let deaf = UdpSocket::bind("127.0.0.1:0")?;
        let nobody = SecretKey::from_bytes(&rand::random()).public();
        // The one that says nothing comes last: ten seconds are given to it.
        let expected = [
            (echo.id(), echo.bound_sockets(), PeerState::Refused, "not in this network"),
            (other.id(), other.bound_sockets(), PeerState::BackingOff, "does not speak this"),
            (nobody, vec![deaf.local_addr()?], PeerState::BackingOff, "no answer"),
            (silent.id(), silent.bound_sockets(), PeerState::BackingOff, "no greeting within 10 s"),
        ];
        for (id, addresses, ..) in &expected {
            n1.arguments.extend(["--peer".into(), ticket(id.as_bytes(), addresses)?]);
        }
        let mut servers = JoinSet::new();
        servers.spawn(serve(echo.clone(), true));
        servers.spawn(serve(silent.clone(), false));
        servers.spawn(serve(other.clone(), false));

        let diary = Diary::begin();
        n1.start().await?;
        let before = n1.status().await?;
        for (id, _, state, text) in expected {
            let seen = peer(n1, &id.to_string(), state).await?;
            let reason = seen.reason.context("it has a reason")?;
            ensure!(reason.contains(text), "{text:?} is expected, it says {reason:?}");
            ensure!(seen.found_by == "ticket", "found by {}", seen.found_by);
            diary.note(reason);
        }
        let refused = wait::until("a line for the person who looks", STEP, async || {
            let log = std::fs::read_to_string(n1.log()).map_err(|error| error.to_string())?;
            let line = log.lines().find(|line| line.contains(" is refused: "));
            line.map(str::to_owned).ok_or(log)
        });
        let line = refused.await?;
        ensure!(line.contains(&echo.id().to_string()[..6]), "{line:?}");
        goes_on(n1, &before).await?;

        n2.arguments.extend(["--peer".into(), n1.identity().await?.ticket]);
        n2.start().await?;
        cluster.agreement(STEP).await?;
        Ok(())
    })
    .await;
}

type Greeting = Box<dyn Fn(&Stranger) -> Result<Greet> + Send>;

/// Greetings of others: what the node answers, as code and words.
fn greetings(keys: &Keys) -> [(&'static str, Greeting, u64, &'static str); 5] {
    let member = keys.clone();
    let greet = move |app: &'static str, versions: (u64, u64)| -> Greeting {
        let keys = member.clone();
        Box::new(move |stranger| Ok(Greet { app, versions, proof: stranger.proof(&keys)? }))
    };
    let other = Keys::of("another network");
    let of_other = move |stranger: &Stranger| {
        Ok(Greet { app: APP, versions: (1, 1), proof: stranger.proof(&other)? })
    };
    [
        ("a node of another network", Box::new(of_other), 2, "not in this network"),
        ("a later version", greet(APP, (2, 3)), 3, "the other mosaik-node/sync 2 to 3"),
        ("versions the wrong way round", greet(APP, (2, 1)), 3, "no common protocol"),
        ("version 0", greet(APP, (0, 0)), 3, "no common protocol"),
        ("another program", greet("another/sync", (1, 1)), 3, "the other another/sync"),
    ]
}

/// What no node sends, before a greeting or after.
fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    let mut noise = vec![0; 64 << 10];
    blake3::Hasher::new().update(b"garbage").finalize_xof().fill(&mut noise);
    // Its first length is one that can be.
    noise[..4].copy_from_slice(&[0, 0, 0x10, 0]);
    noise[4] = 5;
    let frame = |kind: u8, body: &[u8]| {
        let len = u32::try_from(body.len() + 1).expect("short");
        [&len.to_be_bytes()[..], &[kind], body].concat()
    };
    vec![
        ("noise", noise),
        ("a length of 4 GiB", vec![0xff; 100]),
        ("a length above the limit", [&((1_u32 << 20) + 1).to_be_bytes()[..], &[9]].concat()),
        ("a length of 0", vec![0; 8]),
        ("an unknown type", frame(127, b"?")),
        ("a greeting that ends in a field", frame(1, &[16, b'm'])),
        ("a greeting with a long varint", frame(1, &[&[0x80, 0][..], &[1, 1], &[0; 32]].concat())),
        ("a greeting with a long name", frame(1, &bytes(&[b'a'; 65]))),
        ("a list that is not there", frame(8, &[&[7; 32][..], &[0], &varint(1 << 40)].concat())),
        ("an answer to nothing", frame(4, &[&[0][..], &[0; 128]].concat())),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
    ]
}

/// A peer that connects and then says nothing, or half of a greeting.
async fn says_nothing(place: EndpointAddr, begins: bool) -> Result<(u64, String)> {
    let mut stranger = Stranger::dial(&place).await?;
    if begins {
        stranger.send_raw(&[0, 0, 0, 60, 1, 16]).await?;
    }
    stranger.closed().await
}

/// A datagram that is no QUIC, or begins like it.
fn noise(place: &EndpointAddr, number: u64) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let mut datagram = vec![0; 1 + (number as usize * 37) % 1400];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut datagram);
    if number.is_multiple_of(2) {
        // A long header: an initial packet of version 1 (RFC 9000, 17.2).
        let head = [0xc3, 0, 0, 0, 1];
        let len = datagram.len().min(head.len());
        datagram[..len].copy_from_slice(&head[..len]);
    }
    for address in place.ip_addrs() {
        socket.send_to(&datagram, address)?;
    }
    Ok(())
}

fn is_told(name: &str, told: (u64, String), code: u64, text: &str) -> Result<()> {
    ensure!(
        told.0 == code && told.1.contains(text),
        "{name} is told {told:?}, not {code} {text:?}"
    );
    ensure!(!told.1.is_empty(), "{name} is told no reason");
    Ok(())
}

/// Takes the node's dials: sends back what comes, or nothing.
async fn serve(endpoint: Endpoint, echoes: bool) -> Result<()> {
    while let Some(incoming) = endpoint.accept().await {
        // A dialer that wants another protocol is turned away by the transport.
        let Ok(connection) = incoming.await else { continue };
        let (mut send, mut recv) = connection.accept_bi().await?;
        if echoes {
            // The node closes the connection, and then so ends this.
            let _ = tokio::io::copy(&mut recv, &mut send).await;
        }
        closed(&connection).await?;
    }
    bail!("the endpoint was closed")
}

/// This peer, once it stands so at the node.
async fn peer(node: &Node, id: &str, state: PeerState) -> Result<Peer> {
    let what = format!("{} to be {}", &id[..6], state.as_str());
    // A dial on its way hides what became of the last one.
    wait::until(&what, Duration::from_secs(30), async || {
        let peers = node.peers().await.map_err(|error| format!("{error:#}"))?.peers;
        let found = peers.iter().find(|peer| peer.id == id);
        found.filter(|peer| peer.state == state).cloned().ok_or_else(|| format!("{peers:?}"))
    })
    .await
}
