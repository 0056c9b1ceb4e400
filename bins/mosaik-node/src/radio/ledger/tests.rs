use ed25519_dalek::SigningKey;
use mosaik_core::{
    event::{Draft, Kind},
    hlc::Hlc,
    key::Network,
    meshlog::{compose, foreign_draft, json::Json},
    record::{RecordEvent, application_draft},
    value::Value,
};
use mosaik_proto::{
    carrier::{Input, Now},
    replica::{Config, Replica},
};
use mosaik_store::Store;

use super::*;

/// A store, and what writes into it.
struct Bench {
    store: Store,
    replica: Replica,
    ledger: Ledger,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let keys = Network::parse("demo").expect("a name").keys();
        let mut store = Store::open(directory.path(), &keys.fingerprint).expect("a first run");
        let config = Config {
            keys,
            node_key: SigningKey::from_bytes(&[1; 32]),
            author_key: SigningKey::from_bytes(&[2; 32]),
            author_is_new: true,
            name: String::new(),
            software: String::new(),
            sync_interval_ms: 60_000,
            sync_jitter_ms: 0,
            sessions_kept: mosaik_proto::peers::SESSIONS_KEPT,
            authors_max: 10,
            clock_floor_ms: 0,
            seed: 1,
        };
        let opened = store.write(|batch| Replica::open(config, NOW, batch));
        let replica = opened.expect("an empty store");
        Self { store, replica, ledger: Ledger::default(), _directory: directory }
    }

    fn append(&mut self, drafts: Vec<Draft>) {
        let replica = &mut self.replica;
        let written = self.store.write(|batch| {
            replica.handle(NOW, Input::Append { token: 1, drafts }, batch, &mut Vec::new())
        });
        written.expect("a working disk");
    }

    /// Looks until there is nothing more: what changed.
    fn look(&mut self) -> BTreeMap<String, Held> {
        let reader = self.store.reader().expect("a reader");
        let mut changed = BTreeMap::new();
        loop {
            self.ledger.look_again();
            let looked = self.ledger.look(&reader).expect("a good store");
            changed.extend(looked.changed);
            if !looked.has_more {
                return changed;
            }
        }
    }

    fn events(&self, author: &str, from: u64, count: usize) -> Vec<Wire> {
        let wants = vec![(author.to_owned(), from, count)];
        let ask = Ask { token: 1, wants, events_max: 1000, bytes_max: 1 << 20 };
        self.ledger.events(&self.store.reader().expect("a reader"), &ask).expect("a good store")
    }

    fn author(&self) -> String {
        self.replica.author().to_string()
    }
}

const NOW: Now = Now { mono_ms: 0, wall_ms: 1_800_000_000_000 };

fn note(text: &str) -> Draft {
    let note = RecordEvent::Note { record: "r".to_owned(), text: text.to_owned() };
    note.encode().expect("a good note")
}

fn from_there(author: &str, seq: u64, text: &str, prev: Option<MeshlogId>) -> (Draft, MeshlogId) {
    let payload = Json::map([("text", Json::text(text))]);
    let written = compose(author, seq, Hlc::new(1_700_000_000_000, 0), "note", &payload, prev);
    let (draft, _) = foreign_draft(written.wire.as_bytes()).expect("an event");
    (draft, written.id)
}

#[test]
fn a_feed_is_served_alike_from_wherever_and_has_one_chain() {
    let mut bench = Bench::new();
    bench.append((0..200).map(|text| note(&text.to_string())).collect());
    let held = bench.look();
    let author = bench.author();
    let all = bench.events(&author, 1, 1000);
    let last = MeshlogEvent::parse(all[199].json.as_bytes()).expect("an event");
    assert_eq!(held[&author], Held { len: 200, head: last.id });
    for from in [1, 2, 63, 64, 65, 66, 128, 129, 200] {
        assert_eq!(bench.events(&author, from, 1000), all[from as usize - 1..], "from {from}");
        assert_eq!(bench.events(&author, from, 1), all[from as usize - 1..from as usize]);
    }
    let mut prev = None;
    for (wire, seq) in all.iter().zip(1..) {
        let event = MeshlogEvent::parse(wire.json.as_bytes()).expect("an event");
        assert_eq!((event.seq, event.prev), (seq, prev));
        prev = Some(event.id);
    }
    assert_eq!(bench.events(&author, 201, 10), []);
}

#[test]
fn a_feed_is_offered_up_to_what_says_something_there() {
    let mut bench = Bench::new();
    let author = bench.author();
    bench.append(vec![note("one"), from_there("a", 1, "x", None).0]);
    assert_eq!(bench.look()[&author].len, 1);
    // What came from there adds nothing, until something follows it.
    let kind = Kind::new("app.x").expect("a kind");
    bench.append(vec![RecordEvent::Profile { name: "n".to_owned() }.encode().expect("a name")]);
    assert!(!bench.look().contains_key(&author));
    bench.append(vec![application_draft(kind, &Value::Int(1)).expect("a value")]);
    assert_eq!(bench.look()[&author].len, 4);
    let kinds = bench.events(&author, 1, 10).into_iter().map(|wire| {
        let event = MeshlogEvent::parse(wire.json.as_bytes()).expect("an event");
        event.kind.to_lossy()
    });
    let kinds: Vec<_> = kinds.collect();
    assert_eq!(kinds, ["note.add", "mosaik.ref", "mosaik.ref", "app.x"]);
}

#[test]
fn a_foreign_feed_comes_back_word_for_word_and_tells_forks_from_what_is_known() {
    let mut bench = Bench::new();
    let (one, id) = from_there("a", 1, "one", None);
    let (two, second) = from_there("a", 2, "two", Some(id));
    let payloads = [one.payload.clone(), two.payload.clone()];
    bench.append(vec![two, one]);
    assert_eq!(bench.look()["a"], Held { len: 2, head: second });
    let jsons: Vec<_> =
        bench.events("a", 1, 9).into_iter().map(|it| it.json.into_bytes()).collect();
    assert_eq!(jsons, payloads);
    let came = |seq: u64, id: MeshlogId, prev: Option<MeshlogId>| Came {
        author: "a".to_owned(),
        seq,
        id,
        prev,
        json: String::new(),
        is_verified: false,
    };
    let other = MeshlogId([7; 16]);
    assert_eq!(bench.ledger.fate(&came(1, id, None), None), Some(Fate::Known));
    assert_eq!(bench.ledger.fate(&came(1, other, None), None), Some(Fate::Fork));
    assert_eq!(bench.ledger.fate(&came(3, other, Some(id)), None), Some(Fate::Fork));
    let third = came(3, other, Some(second));
    assert_eq!(bench.ledger.fate(&third, None), None);
    let fourth = came(4, id, Some(other));
    assert_eq!(bench.ledger.fate(&fourth, None), Some(Fate::Fork));
    assert_eq!(bench.ledger.fate(&fourth, Some(&third)), None);
}

#[test]
fn of_foreign_branches_the_longest_counts_and_of_equal_ones_the_smaller_id() {
    let place = |id: u8| Place { id: MeshlogId([id; 16]), branch: BranchId(1), seq: u64::from(id) };
    let prev = |id: u8| Some(MeshlogId([id; 16]));
    // 1 <- 5 <- 6, and 1 <- 3 <- 9 <- 8, and 7 without what it follows.
    let all = [
        (1, place(1), None),
        (2, place(5), prev(1)),
        (3, place(6), prev(5)),
        (2, place(3), prev(1)),
        (3, place(9), prev(3)),
        (5, place(7), prev(2)),
    ];
    let chain = |order: &[usize]| {
        let mut feed = Foreign::default();
        let mut held = None;
        for index in order {
            let (seq, place, prev) = all[*index];
            assert!(feed.note(seq, place, prev));
            assert!(!feed.note(seq, place, prev), "it is known");
            held = feed.settle();
        }
        (held, feed.chain.iter().map(|place| place.id.0[0]).collect::<Vec<_>>())
    };
    let expected = (Some(Held { len: 3, head: MeshlogId([6; 16]) }), vec![1, 5, 6]);
    assert_eq!(chain(&[0, 1, 2, 3, 4, 5]), expected);
    assert_eq!(chain(&[5, 4, 3, 2, 1, 0]), expected);
    assert_eq!(chain(&[0, 3, 4, 1, 5, 2]), expected);
    // The other one becomes longer.
    let mut feed = Foreign::default();
    for (seq, place, prev) in all {
        feed.note(seq, place, prev);
    }
    feed.settle();
    feed.note(4, place(8), prev(9));
    assert_eq!(feed.settle(), Some(Held { len: 4, head: MeshlogId([8; 16]) }));
}

/// Fault of meshlogd: whoever comes first with an author's name has its place for ever.
#[test]
fn what_was_planted_before_an_authors_key_was_known_gives_way_to_what_it_signed() {
    let signing = SigningKey::from_bytes(&[3; 32]);
    let mut keys = [3; 64];
    keys[32..].copy_from_slice(&signing.verifying_key().to_bytes());
    let keys = PublicKeys(keys);
    let author = keys.peer().to_string();
    let mut bench = Bench::new();
    bench.append(vec![from_there(&author, 1, "planted", None).0]);
    assert_eq!(bench.look()[&author].len, 1);
    let reader = bench.store.reader().expect("a reader");
    let learned = bench.ledger.learn(&reader, &keys).expect("a good store");
    assert_eq!((learned.good, learned.bad), (0, 1));
    assert_eq!(learned.changed, Some((author.clone(), NOTHING)));
    drop(reader);
    let (real, id) = from_there(&author, 1, "real", None);
    let event = MeshlogEvent::parse(&real.payload).expect("an event");
    let signature = ed25519_dalek::Signer::sign(&signing, event.body()).to_bytes();
    let text = String::from_utf8(real.payload).expect("text");
    let signed = format!("{},\"g\":\"{}\"}}", &text[..text.len() - 1], HEXLOWER.encode(&signature));
    let (draft, _) = foreign_draft(signed.as_bytes()).expect("an event");
    bench.append(vec![draft]);
    assert_eq!(bench.look()[&author], Held { len: 1, head: id });
    // It is the same after a start with the keys.
    bench.ledger = Ledger::new(&[keys]);
    assert_eq!(bench.look()[&author], Held { len: 1, head: id });
}
