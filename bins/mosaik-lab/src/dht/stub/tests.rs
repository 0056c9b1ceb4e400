use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;
use mainline::{
    Dht, MutableItem, PutOutcome,
    async_dht::AsyncDht,
    errors::{ConcurrencyError, PutMutableError},
};

use super::{super::NODES, *};
use crate::wait;

/// Ten times what a lookup with its timeouts takes.
const STEP: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(600);

/// A client as the chain's own: by itself, on loopback. It waits long for one that should answer.
fn client(dht: &StubDht) -> AsyncDht {
    patient_client(dht, STEP)
}

fn patient_client(dht: &StubDht, request_timeout: Duration) -> AsyncDht {
    let mut builder = Dht::builder();
    builder
        .bootstrap(dht.bootstrap())
        .bind_address(Ipv4Addr::LOCALHOST)
        .port(0)
        .request_timeout(request_timeout);
    builder.build().expect("a socket on loopback").as_async()
}

fn signer() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn key() -> [u8; 32] {
    signer().verifying_key().to_bytes()
}

fn item(seq: i64, value: &[u8]) -> Item {
    let item = MutableItem::new(signer(), value, seq, None);
    Item { seq, signature: *item.signature(), value: value.to_vec() }
}

async fn put(
    client: &AsyncDht,
    seq: i64,
    value: &[u8],
    cas: Option<i64>,
) -> Result<PutOutcome, PutMutableError> {
    let put = client.put_mutable(MutableItem::new(signer(), value, seq, None), cas);
    tokio::time::timeout(STEP, put).await.expect("a put ends")
}

/// What a client makes of what it is given: the highest seq.
async fn newest(dht: &StubDht) -> Option<(i64, Vec<u8>)> {
    let client = client(dht);
    let key = key();
    let get = client.get_mutable_most_recent(&key, None);
    let item = tokio::time::timeout(STEP, get).await.expect("a get ends")?;
    Some((item.seq(), item.value().to_vec()))
}

/// The distinct values that are kept, and by how many nodes.
fn kept(dht: &StubDht) -> (BTreeSet<Vec<u8>>, usize) {
    let stored: Vec<Item> = dht.stored(&key()).into_iter().flatten().collect();
    let nodes = stored.len();
    (stored.into_iter().map(|item| item.value).collect(), nodes)
}

fn values(values: &[&str]) -> BTreeSet<Vec<u8>> {
    values.iter().map(|value| value.as_bytes().to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mainlines_client_puts_and_gets_on_nodes_of_every_kind() {
    for kind in Behaviour::kinds(LONG) {
        let dht = StubDht::start(vec![kind; NODES]).await.expect("loopback is there");
        let client = client(&dht);
        assert_eq!(newest(&dht).await, None, "{kind:?}");
        let outcome = put(&client, 5, b"one", None).await.expect("nothing stands there");
        assert_eq!(outcome.stored_at as usize, NODES, "{kind:?}");
        put(&client, 6, b"two", Some(5)).await.expect("it is newer");
        assert_eq!(newest(&dht).await, Some((6, b"two".to_vec())), "{kind:?}");
        assert_eq!(kept(&dht), (values(&["two"]), NODES), "{kind:?}");

        let lower = put(&client, 4, b"three", None).await;
        assert!(
            matches!(lower, Err(PutMutableError::Concurrency(ConcurrencyError::NotMostRecent))),
            "{kind:?}: {lower:?}"
        );
        let wrong_cas = put(&client, 7, b"three", Some(5)).await;
        assert!(
            matches!(wrong_cas, Err(PutMutableError::Concurrency(ConcurrencyError::CasFailed))),
            "{kind:?}: {wrong_cas:?}"
        );
        put(&client, 7, &[0; 1001], Some(6)).await.expect_err("it is too long");
        assert_eq!(kept(&dht), (values(&["two"]), NODES), "{kind:?}");

        let outcomes = |seq, cas| -> BTreeSet<_> {
            let puts = dht.puts().into_iter().filter(|put| (put.item.seq, put.cas) == (seq, cas));
            puts.map(|put| format!("{:?}", put.outcome)).collect()
        };
        for (seq, cas, outcome) in [
            (5, None, Outcome::Stored),
            (6, Some(5), Outcome::Stored),
            (4, None, Outcome::Refused(302)),
            (7, Some(5), Outcome::Refused(301)),
            (7, Some(6), Outcome::Refused(205)),
        ] {
            assert_eq!(outcomes(seq, cas), BTreeSet::from([format!("{outcome:?}")]), "{kind:?}");
        }
        let requests = dht.requests_for(&key());
        assert_eq!((requests.puts, requests), (5 * NODES as u64, dht.requests()), "{kind:?}");
        assert!(requests.gets >= NODES as u64, "{kind:?}: {requests:?}");
        assert_eq!(dht.requests_for(&[0; 32]), Requests::default());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_value_at_an_equal_seq_fares_as_each_kind_says() {
    for (kind, is_ok, left) in [
        (Behaviour::new(EqualSeq::Ignored), true, "one"),
        (Behaviour::new(EqualSeq::Refused), false, "one"),
        (Behaviour::new(EqualSeq::Overwrites), true, "two"),
        (Behaviour::expiring(LONG), false, "one"),
    ] {
        let dht = StubDht::start(vec![kind; NODES]).await.expect("loopback is there");
        let client = client(&dht);
        put(&client, 5, b"one", None).await.expect("nothing stands there");
        let again = put(&client, 5, b"one", None).await.expect("it is the same value");
        assert_eq!(again.stored_at as usize, NODES, "{kind:?}");
        let other = put(&client, 5, b"two", Some(5)).await;
        assert_eq!(other.is_ok(), is_ok, "{kind:?}: {other:?}");
        assert_eq!(kept(&dht), (values(&[left]), NODES), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_nobody_puts_again_is_forgotten() {
    let kind = Behaviour::expiring(Duration::from_secs(1));
    let dht = StubDht::start(vec![kind; 5]).await.expect("loopback is there");
    let client = client(&dht);
    put(&client, 5, b"one", None).await.expect("nothing stands there");
    let forgotten = || async {
        let (_, nodes) = kept(&dht);
        if nodes == 0 { Ok(()) } else { Err(format!("{nodes} nodes hold it")) }
    };
    wait::until("the item to expire", STEP, forgotten).await.expect("it expires");
    assert_eq!(newest(&dht).await, None);
    put(&client, 1, b"two", None).await.expect("its seq is forgotten as well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mix_with_silent_slow_and_lossy_nodes_keeps_what_is_put() {
    let mix = Behaviour::mix(LONG);
    let silent: Vec<usize> = (0..NODES).filter(|&node| mix[node].silent).collect();
    assert_eq!((mix.len(), silent.len()), (NODES, NODES / 10));
    let dht = StubDht::start(mix).await.expect("loopback is there");
    // Two never answer: each lookup and each put takes that long.
    let client = patient_client(&dht, Duration::from_millis(500));
    put(&client, 5, b"one", None).await.expect("nothing stands there");
    put(&client, 6, b"two", Some(5)).await.expect("most have the first");
    let item = client.get_mutable_most_recent(&key(), None).await.expect("most have it");
    assert_eq!((item.seq(), item.value()), (6, &b"two"[..]));
    let stored = dht.stored(&key());
    assert!(silent.iter().all(|&node| stored[node].is_none()));
    let nodes = stored.iter().flatten().filter(|item| item.value == b"two").count();
    assert!((10..=18).contains(&nodes), "{nodes} of 18 hold it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_node_gives_its_old_value_beside_the_others_new_one() {
    let kind = Behaviour::new(EqualSeq::Overwrites);
    let dht = StubDht::start(vec![kind; 5]).await.expect("loopback is there");
    dht.place(&key(), &item(5, b"old"));
    dht.pin(2, &key(), &item(5, b"old"));
    put(&client(&dht), 6, b"new", Some(5)).await.expect("it is newer");
    let seqs: Vec<_> = dht.stored(&key()).iter().flatten().map(|item| item.seq).collect();
    assert_eq!(seqs, [6, 6, 5, 6, 6]);
    assert_eq!(newest(&dht).await, Some((6, b"new".to_vec())));
    let outcomes: Vec<_> = dht.puts().iter().map(|put| (put.node, put.outcome)).collect();
    assert!(outcomes.contains(&(2, Outcome::Ignored)), "{outcomes:?}");
}

/// Sends a packet and gives what comes back.
async fn ask(socket: &UdpSocket, to: &str, packet: &[u8]) -> Vec<u8> {
    socket.send_to(packet, to).await.expect("loopback takes it");
    let mut answer = vec![0; 2048];
    let received = tokio::time::timeout(STEP, socket.recv(&mut answer)).await;
    answer.truncate(received.expect("there is an answer").expect("the socket works"));
    answer
}

#[tokio::test]
async fn a_put_without_a_good_token_and_an_unknown_query_are_refused() {
    let kind = Behaviour::new(EqualSeq::Overwrites);
    let dht = StubDht::start(vec![kind]).await.expect("loopback is there");
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
    let node = &dht.bootstrap()[0];
    let Item { signature, .. } = item(5, b"one");
    let put = [
        b"d1:ad2:id20:01234567890123456789",
        b"1:k32:".as_slice(),
        &key(),
        b"3:seqi5e3:sig64:",
        &signature,
        b"5:token4:nope1:v3:onee1:q3:put1:t2:aa1:y1:qe",
    ]
    .concat();
    let answer = ask(&socket, node, &put).await;
    assert!(answer.starts_with(b"d1:eli203e"), "{}", answer.escape_ascii());
    assert_eq!(kept(&dht).1, 0);
    assert_eq!(dht.puts()[0].outcome, Outcome::Refused(203));
    let answer = ask(&socket, node, b"d1:ade1:q4:vote1:t2:aa1:y1:qe").await;
    assert!(answer.starts_with(b"d1:eli204e"), "{}", answer.escape_ascii());
}

#[tokio::test]
async fn a_node_survives_packets_that_are_no_query() {
    let kind = Behaviour::new(EqualSeq::Overwrites);
    let dht = StubDht::start(vec![kind]).await.expect("loopback is there");
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
    let node = &dht.bootstrap()[0];
    for packet in [&b""[..], b"d", b"i1e", &[b'l'; 3000], b"d1:t2:aa1:y1:re", b"d1:y1:qe"] {
        socket.send_to(packet, node).await.expect("loopback takes it");
    }
    let answer = ask(&socket, node, b"d1:ade1:q4:ping1:t2:aa1:y1:qe").await;
    assert!(answer.ends_with(b"1:t2:aa1:y1:re"), "{}", answer.escape_ascii());
    assert_eq!(dht.requests(), Requests::default());
}

#[tokio::test]
async fn nodes_of_one_address_differ_where_mainline_looks() {
    let prefixes: BTreeSet<_> = (0..100).map(|node| id(node)[..2].to_vec()).collect();
    assert_eq!(prefixes.len(), 100);
}
