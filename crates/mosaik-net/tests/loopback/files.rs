//! Files: who may have them, what is kept of what comes, and what is asked for again.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_lite::stream;
use iroh::{Endpoint, endpoint::ConnectionError};
use iroh_blobs::{
    Hash,
    api::Store,
    get::fsm,
    protocol::{ChunkRanges, GetRequest, ObserveRequest, PushRequest},
    store::mem::MemStore,
};
use mosaik_core::id::{BlobId, NodeId};
use mosaik_net::{Held, NetConfig, SYNC_ALPN, Shelf, ShelfError};
use mosaik_proto::{
    attachments::{End, Fetch},
    carrier::{Effect, Role},
};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use crate::node::{DEADLINE, INBOX, Node, Open, bare, bulky, config, connect, dial_node, place_of};

/// A node with a place for files.
struct Holder {
    node: Node,
    shelf: Arc<Shelf>,
    _dir: TempDir,
}

async fn holder(seed: u8) -> Holder {
    holder_with(config(seed)).await
}

async fn holder_with(config: NetConfig) -> Holder {
    let dir = tempfile::tempdir().expect("a directory");
    let shelf = Arc::new(Shelf::new(dir.path().join("blobs")));
    let config = NetConfig { shelf: Some(shelf.clone()), ..config };
    Holder { node: Node::start_with(config, INBOX).await, shelf, _dir: dir }
}

/// Bytes that are no two times the same.
fn content(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(b"a file").finalize_xof().fill(&mut bytes);
    bytes
}

fn pieces(
    bytes: &[u8],
) -> impl futures_lite::Stream<Item = std::io::Result<Bytes>> + Send + Sync + 'static + use<> {
    let pieces: Vec<_> = bytes.chunks(100_000).map(|p| Ok(Bytes::copy_from_slice(p))).collect();
    stream::iter(pieces)
}

async fn add(holder: &Holder, bytes: &[u8]) -> BlobId {
    let staged = holder.shelf.add(pieces(bytes), u64::MAX).await.expect("room");
    assert_eq!(staged.size, bytes.len() as u64);
    assert_eq!(staged.blob, BlobId(*blake3::hash(bytes).as_bytes()));
    staged.blob
}

/// A session that both ends have let in.
async fn greet(dialer: &mut Node, listener: &mut Node) -> (Open, Open) {
    let (at_dialer, at_listener) = connect(dialer, listener).await;
    dialer.open(&at_dialer);
    listener.open(&at_listener);
    (at_dialer, at_listener)
}

/// Fetches until it ends otherwise than by a connection that the other end didn't let in yet.
async fn fetch(of: &Holder, blob: BlobId, peer: NodeId, len_max: u64) -> End {
    let fetcher = of.node.net.fetcher().expect("it has a shelf");
    let ended = async {
        loop {
            let end = fetcher.fetch(Fetch { blob, peer, len_max }).await.end().await;
            if !matches!(end, End::Cut { .. }) {
                return end;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(DEADLINE, ended).await.expect("it ends")
}

async fn read(shelf: &Shelf, blob: BlobId) -> Result<Vec<u8>, ShelfError> {
    let mut reading = shelf.read(blob).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = reading.next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_a_session_gets_a_file_and_all_others_are_turned_away() {
    let (mut ada, mut ben) = (holder(1).await, holder(2).await);
    // Of all kinds that are kept in different ways.
    for len in [0, 1, 20_000, 3_000_000] {
        let bytes = content(len);
        let blob = add(&ada, &bytes).await;
        if len == 0 {
            greet(&mut ben.node, &mut ada.node).await;
        }
        let ada_id = ada.node.net.node_id();
        let end = fetch(&ben, blob, ada_id, len as u64).await;
        assert_eq!(end, End::Whole { size: len as u64 });
        assert_eq!(read(&ben.shelf, blob).await.expect("it is whole"), bytes);
    }
    let nobody_has = BlobId([7; 32]);
    assert_eq!(fetch(&ben, nobody_has, ada.node.net.node_id(), 100).await, End::Lacked);

    let stranger = bare(3, iroh_blobs::ALPN).await;
    let connection = dial_node(&stranger, &ada.node, iroh_blobs::ALPN).await;
    let error = timeout(DEADLINE, connection.closed()).await.expect("closed in time");
    let ConnectionError::ApplicationClosed(close) = error else { panic!("{error}") };
    assert_eq!(close.reason, "files need an open session".as_bytes());
    // And this end asks nobody without one.
    let fetcher = ada.node.net.fetcher().expect("it has a shelf");
    let order = Fetch { blob: nobody_has, peer: NodeId(*stranger.id().as_bytes()), len_max: 1 };
    assert_eq!(fetcher.fetch(order).await.end().await, End::Cut { came: false });

    let inventory = ben.shelf.inventory().await.expect("a shelf");
    let whole = inventory.held.iter().filter(|(_, held)| matches!(held, Held::Whole(_))).count();
    // The empty file is everywhere, and need not lie anywhere.
    assert!((3..=4).contains(&whole), "{inventory:?}");
    ada.node.net.close().await;
    ben.node.net.close().await;
    ben.shelf.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_longer_than_allowed_is_broken_off_and_one_that_is_dropped_comes_again() {
    let (mut ada, mut ben) = (holder(1).await, holder(2).await);
    let bytes = content(5_000_000);
    let blob = add(&ada, &bytes).await;
    greet(&mut ben.node, &mut ada.node).await;
    let peer = ada.node.net.node_id();
    assert_eq!(fetch(&ben, blob, peer, 1_000_000).await, End::TooLong);
    assert!(ben.shelf.remove(&[blob]).await.expect("a shelf"));
    assert_eq!(ben.shelf.local(blob).await.expect("a shelf"), 0);
    for _ in 0..2 {
        assert_eq!(fetch(&ben, blob, peer, 5_000_000).await, End::Whole { size: 5_000_000 });
        assert_eq!(read(&ben.shelf, blob).await.expect("it is whole"), bytes);
        assert!(ben.shelf.remove(&[blob]).await.expect("a shelf"));
        assert_eq!(ben.shelf.local(blob).await.expect("a shelf"), 0);
    }
    let room = ada.shelf.add(pieces(&bytes), 1_000_000).await;
    assert!(matches!(room, Err(ShelfError::NoRoom(1_000_000))), "{room:?}");
    // Neither what was refused nor who broke off leaves anything behind.
    let cut = stream::iter([Ok(Bytes::from(bytes)), Err(std::io::ErrorKind::BrokenPipe.into())]);
    let cut = ada.shelf.add(cut, u64::MAX).await;
    assert!(matches!(cut, Err(ShelfError::Source(_))), "{cut:?}");
    let left = async || {
        add(&ada, b"the next one").await;
        std::fs::read_dir(ada.shelf.dir().join("temp")).expect("a directory").count()
    };
    timeout(DEADLINE, async { while left().await > 0 {} }).await.expect("all is removed");
}

/// A peer that has a session, and answers requests for files as it likes.
async fn liar(node: &mut Holder, seed: u8) -> (Endpoint, NodeId, tokio::task::JoinHandle<()>) {
    let endpoint = bare(seed, iroh_blobs::ALPN).await;
    endpoint.set_alpns(vec![SYNC_ALPN.to_vec(), iroh_blobs::ALPN.to_vec()]);
    let (peer, addresses) = place_of(&endpoint);
    node.node.dial_at(peer, addresses);
    let incoming = timeout(DEADLINE, endpoint.accept()).await.expect("in time").expect("open");
    let session = incoming.accept().expect("an offer").await.expect("a handshake");
    let open = node.node.connected().await;
    node.node.net.carry(Effect::Opened { session: open.session, peer, role: Role::Dialer });
    let kept = tokio::spawn(async move { drop(session.closed().await) });
    (endpoint, peer, kept)
}

/// Answers one request with these bytes, and ends the stream.
async fn answer_with(endpoint: &Endpoint, bytes: &[u8]) {
    let incoming = endpoint.accept().await.expect("open");
    let connection = incoming.accept().expect("an offer").await.expect("a handshake");
    let (mut send, mut recv) = connection.accept_bi().await.expect("a request");
    recv.read_to_end(1 << 20).await.expect("a request");
    // It may hang up before the end.
    let _ = send.write_all(bytes).await;
    let _ = send.finish();
    // All of it is there, or not wanted any more.
    let _ = send.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_not_kept_and_what_a_cut_left_is_not_asked_for_again() {
    let (mut ada, mut ben) = (holder(1).await, holder(2).await);
    let bytes = content(4_000_000);
    let blob = add(&ada, &bytes).await;
    let whole = whole_answer(&bytes).await;

    let (endpoint, peer, _kept) = liar(&mut ben, 3).await;
    // Right to the half, and then wrong: the first half stays.
    let mut half = whole.clone();
    let middle = half.len() / 2;
    half[middle] ^= 1;
    let (end, ()) = tokio::join!(fetch(&ben, blob, peer, 4_000_000), answer_with(&endpoint, &half));
    assert_eq!(end, End::Garbage);
    // The last of it may still be on its way to the disk.
    let right = 1_500_000..=2_000_000;
    let mut here = ben.shelf.local(blob).await.expect("a shelf");
    assert!(right.contains(&here), "{here}");
    // Another length than the true one, and noise.
    for (seed, lie) in
        [(4, [&9_000_000_u64.to_le_bytes()[..], &whole[8..]].concat()), (5, content(5000))]
    {
        let (endpoint, peer, _kept) = liar(&mut ben, seed).await;
        let fetcher = ben.node.net.fetcher().expect("a shelf");
        let order = Fetch { blob, peer, len_max: 4_000_000 };
        let (end, ()) = tokio::join!(
            async { fetcher.fetch(order).await.end().await },
            answer_with(&endpoint, &lie)
        );
        assert_ne!(end, End::Whole { size: 4_000_000 });
        here = ben.shelf.local(blob).await.expect("a shelf");
        assert!(right.contains(&here), "{end:?}: {here}");
    }

    greet(&mut ben.node, &mut ada.node).await;
    let end = fetch(&ben, blob, ada.node.net.node_id(), 4_000_000).await;
    assert_eq!(end, End::Whole { size: 4_000_000 });
    assert_eq!(read(&ben.shelf, blob).await.expect("it is whole"), bytes);
    let served = ada.node.net.counters().blob_bytes_served.get();
    assert!(served <= 4_000_000 - here + (1 << 16), "{served} bytes of the rest");
}

/// What a peer that has the file answers to a request for all of it.
async fn whole_answer(bytes: &[u8]) -> Vec<u8> {
    let store = MemStore::new();
    let tag = store.blobs().add_slice(bytes).temp_tag().await.expect("memory");
    let answer = store.blobs().export_bao(tag.hash(), ChunkRanges::all()).bao_to_vec().await;
    answer.expect("memory")
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_write_nothing_and_watch_nothing() {
    let mut ada = holder(1).await;
    let bytes = content(100_000);
    let blob = add(&ada, &bytes).await;
    let mut ben = Node::start(2).await;
    let (_, open) = connect(&mut ben, &mut ada.node).await;
    ada.node.open(&open);
    // The same key: the gate lets it in, and it speaks the whole protocol.
    let member = bare(2, iroh_blobs::ALPN).await;
    let store = MemStore::new();
    let own = store.blobs().add_slice(b"not asked for").temp_tag().await.expect("memory").hash();
    let connection = let_in(&member, &ada.node).await;
    let pushed = push(&store, connection.clone(), own).await;
    assert_eq!(ada.shelf.local(BlobId(*own.as_bytes())).await.expect("a shelf"), 0, "{pushed}");
    let request = ObserveRequest::new(Hash::from_bytes(blob.0));
    let mut watched = std::pin::pin!(store.remote().observe(connection.clone(), request));
    let first = timeout(DEADLINE, futures_lite::StreamExt::next(&mut watched)).await;
    assert!(matches!(first, Ok(None | Some(Err(_)))), "{first:?}");
    // Reading goes on.
    store.remote().fetch(connection, Hash::from_bytes(blob.0)).await.expect("a file");
    assert_eq!(store.blobs().get_bytes(Hash::from_bytes(blob.0)).await.expect("memory"), bytes);
}

/// Dials until the gate is open.
async fn let_in(endpoint: &Endpoint, node: &Node) -> iroh::endpoint::Connection {
    let dial = async {
        loop {
            let connection = dial_node(endpoint, node, iroh_blobs::ALPN).await;
            let closed = timeout(Duration::from_millis(500), connection.closed()).await;
            if closed.is_err() {
                return connection;
            }
        }
    };
    timeout(DEADLINE, dial).await.expect("let in")
}

async fn push(store: &Store, connection: iroh::endpoint::Connection, blob: Hash) -> String {
    let request = PushRequest::new(blob, iroh_blobs::protocol::ChunkRangesSeq::root());
    let pushed =
        timeout(DEADLINE, store.remote().execute_push(connection, request).complete()).await;
    format!("{pushed:?}")
}

/// How long two files and eight frames take from one node to another: a million bytes.
async fn files_and_frames(giver: NetConfig, taker: NetConfig) -> Duration {
    let (mut ada, mut ben) = (holder_with(giver).await, holder_with(taker).await);
    let (to_ada, from_ben) = greet(&mut ben.node, &mut ada.node).await;
    let peer = ada.node.net.node_id();
    // From here on the gate is open at both ends.
    assert_eq!(fetch(&ben, BlobId([7; 32]), peer, 1).await, End::Lacked);
    let blobs = [add(&ada, &content(300_000)).await, add(&ada, &content(299_999)).await];
    let start = Instant::now();
    for _ in 0..8 {
        ada.node.send(from_ben.session, &bulky(50_000));
    }
    let fetcher = ben.node.net.fetcher().expect("it has a shelf");
    let fetched = blobs.map(|blob| {
        let (fetcher, order) = (fetcher.clone(), Fetch { blob, peer, len_max: 300_000 });
        tokio::spawn(async move { fetcher.fetch(order).await.end().await })
    });
    for _ in 0..8 {
        assert_eq!(ben.node.frame(to_ada.session).await, bulky(50_000));
    }
    for end in fetched {
        let end = timeout(DEADLINE, end).await.expect("in time").expect("no panic");
        assert!(matches!(end, End::Whole { .. }), "{end:?}");
    }
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_sessions_share_one_rate_each_way() {
    let rate = Some(400_000);
    let (up, down) = tokio::join!(
        files_and_frames(NetConfig { rate_up: rate, ..config(1) }, config(2)),
        files_and_frames(config(3), NetConfig { rate_down: rate, ..config(4) }),
    );
    // 2.5 s, of which a quarter was saved up; with a rate for each kind it would be 1.5 s.
    for took in [up, down] {
        assert!(took >= Duration::from_millis(1800), "up {up:?}, down {down:?}");
    }
}

/// 32 requests are served at once. One peer that makes more, and reads nothing, must leave some to others.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_asks_for_much_and_takes_nothing_keeps_no_other_from_a_file() {
    let (mut ada, mut ben) = (holder(1).await, holder(2).await);
    let blob = add(&ada, &content(5_000_000)).await;
    let mut mallory = Node::start(3).await;
    let (_, open) = connect(&mut mallory, &mut ada.node).await;
    ada.node.open(&open);
    greet(&mut ben.node, &mut ada.node).await;
    let same_key = bare(3, iroh_blobs::ALPN).await;
    let request = || GetRequest::blob(Hash::from_bytes(blob.0));
    let mut connections = vec![let_in(&same_key, &ada.node).await];
    for _ in 0..2 {
        connections.push(dial_node(&same_key, &ada.node, iroh_blobs::ALPN).await);
    }
    let mut unread = Vec::new();
    for connection in &connections {
        for _ in 0..16 {
            let asking = fsm::start(connection.clone(), request(), Default::default());
            let asked = asking.next().await.expect("a stream");
            unread.push(asked.next().await.expect("it is taken"));
        }
    }
    let waiting = async {
        while ada.node.net.counters().limited_requests.get() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, waiting).await.expect("more than it may have");
    let fetched = fetch(&ben, blob, ada.node.net.node_id(), 5_000_000).await;
    assert_eq!(fetched, End::Whole { size: 5_000_000 });
    assert_eq!(unread.len(), 48);
}
