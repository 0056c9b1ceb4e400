use std::collections::BTreeMap;

use ed25519_dalek::{Signer, SigningKey};
use mosaik_core::{
    event::Hasher,
    hlc::Hlc,
    key::Network,
    meshlog::{
        MeshlogEvent, compose, identity_hash,
        json::Json,
        message::{write_events, write_frontier},
    },
};

use super::*;
use crate::{
    stack::Outcome,
    station::{Station, StationConfig},
};

const OWN: Peer = Peer([9; 16]);
const THEIR_LINK: Link = Link([2; 16]);
const WIRE: Interface = Interface(0);

/// Somebody with an identity, who writes events.
struct Author {
    signing: SigningKey,
    keys: PublicKeys,
    name: String,
    last: Option<MeshlogId>,
    seq: u64,
}

impl Author {
    fn new(seed: u8) -> Self {
        let signing = SigningKey::from_bytes(&[seed; 32]);
        let mut keys = [seed; 64];
        keys[32..].copy_from_slice(&signing.verifying_key().to_bytes());
        let name = Peer(identity_hash(&keys)).to_string();
        Self { signing, keys: PublicKeys(keys), name, last: None, seq: 0 }
    }

    fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::new(77) }
    }

    fn peer(&self) -> Peer {
        self.keys.peer()
    }

    fn write(&mut self, text: &str) -> String {
        self.write_at(text, 1_700_000_000_000)
    }

    fn write_at(&mut self, text: &str, wall_ms: u64) -> String {
        self.seq += 1;
        let payload = Json::map([("text", Json::text(text))]);
        let hlc = Hlc::new(wall_ms, 0);
        let written = compose(&self.name, self.seq, hlc, "note", &payload, self.last);
        self.last = Some(written.id);
        written.wire
    }

    fn sign(&self, json: &str) -> String {
        let event = MeshlogEvent::parse(json.as_bytes()).expect("an event");
        let signature = self.signing.sign(event.body()).to_bytes();
        let hex = data_encoding::HEXLOWER.encode(&signature);
        format!("{},\"g\":\"{hex}\"}}", &json[..json.len() - 1])
    }

    fn signed(&mut self, text: &str) -> String {
        let json = self.write(text);
        self.sign(&json)
    }
}

/// The machine, the interfaces' time, and a node that holds what it is offered.
struct Bench {
    machine: Meshlog,
    station: Station,
    now_ms: u64,
    /// By author, what is held.
    store: BTreeMap<String, Vec<String>>,
    orders: Vec<Order>,
    learned: usize,
    /// Whether the node answers.
    is_serving: bool,
}

impl Bench {
    fn new() -> Self {
        Self::on(None, 1000)
    }

    /// On a radio of so many bits a second, with a share of its time in thousandths.
    fn on(bitrate: Option<u32>, share: u32) -> Self {
        let keys = Network::parse("demo").expect("a name").keys();
        let mut station = Station::new(StationConfig {
            own: OWN,
            tag: keys.radio,
            hasher: Hasher::new(&keys.fingerprint),
            share,
            bitrate,
            first: Default::default(),
            seal: None,
            seed: 1,
        });
        let up = Report::Interface {
            interface: WIRE,
            name: "wire".to_owned(),
            bitrate: None,
            online: true,
        };
        station.handle_report(up, 0, &mut Default::default());
        let config = MeshlogConfig { own: OWN, tag: keys.radio, keys: Vec::new(), seed: 1 };
        let store = BTreeMap::new();
        let machine = Meshlog::new(config);
        let (orders, learned, is_serving) = (Vec::new(), 0, true);
        Self { machine, station, now_ms: 0, store, orders, learned, is_serving }
    }

    /// Linked by `author`'s node, which has said who it is.
    fn linked(author: &Author) -> Self {
        let mut bench = Self::new();
        bench.hear(author);
        bench.link(author.peer());
        bench
    }

    fn hear(&mut self, author: &Author) {
        self.report(Report::Heard {
            service: Service::Meshlog,
            peer: author.peer(),
            keys: author.keys,
            app_data: b"{}".to_vec(),
            hops: 1,
            interface: WIRE,
        });
    }

    fn link(&mut self, peer: Peer) {
        self.report(Report::Up {
            link: THEIR_LINK,
            service: Service::Meshlog,
            peer: None,
            role: Role::Listener,
            rtt_ms: 1,
            packet_max: 431,
            interface: WIRE,
        });
        self.report(Report::Identified { link: THEIR_LINK, peer });
    }

    fn report(&mut self, report: Report) {
        let mut turn = Turn::default();
        self.machine.handle_report(&report, self.now_ms, &mut self.station.airtime(), &mut turn);
        self.run(turn);
    }

    fn receive(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref().to_vec();
        self.report(Report::Received { link: THEIR_LINK, bytes });
    }

    fn events(&mut self, events: &[&str]) {
        self.receive(write_events(events.iter().copied()));
    }

    fn frontier(&mut self, entries: &[(&str, u64)]) {
        self.receive(write_frontier(entries.iter().copied()));
    }

    /// Lets it do all that is due now.
    fn run(&mut self, mut turn: Turn) {
        loop {
            self.machine.handle_timeout(self.now_ms, &mut self.station.airtime(), &mut turn);
            self.orders.append(&mut turn.orders);
            self.learned += turn.learned.len();
            if !self.is_serving || turn.asks.is_empty() && turn.offers.is_empty() {
                return;
            }
            let Turn { asks, offers, .. } = std::mem::take(&mut turn);
            offers.into_iter().for_each(|offer| self.take(offer));
            asks.into_iter().for_each(|ask| self.answer(&ask));
        }
    }

    fn take(&mut self, offer: Offer) {
        let (mut fates, mut held) = (Vec::new(), Vec::new());
        for came in offer.events {
            let feed = self.store.entry(came.author.clone()).or_default();
            let fate = match feed.get(came.seq as usize - 1) {
                Some(json) if *json == came.json => Fate::Known,
                Some(_) => Fate::Fork,
                None if feed.len() as u64 + 1 == came.seq => Fate::Taken,
                None => Fate::NotWritten,
            };
            if fate == Fate::Taken {
                feed.push(came.json);
                held.push((came.author, Held { len: came.seq, head: came.id }));
            }
            fates.push(fate);
        }
        self.machine.set_held(held, self.now_ms);
        self.machine.on_taken(offer.token, &fates, self.now_ms);
    }

    fn answer(&mut self, ask: &Ask) {
        let mut events = Vec::new();
        for (author, from, count) in &ask.wants {
            let feed = self.store.get(author).into_iter().flatten().zip(1_u64..);
            let of_author = feed
                .filter(|(_, seq)| seq >= from)
                .take(*count)
                .map(|(json, seq)| Wire { author: author.clone(), seq, json: json.clone() });
            events.extend(of_author);
        }
        events.truncate(ask.events_max);
        self.machine.on_events(ask.token, &events, self.now_ms);
    }

    /// The node holds these.
    fn hold(&mut self, author: &str, jsons: &[String]) {
        let last = MeshlogEvent::parse(jsons[jsons.len() - 1].as_bytes()).expect("an event");
        self.store.insert(author.to_owned(), jsons.to_vec());
        let held = Held { len: jsons.len() as u64, head: last.id };
        self.machine.set_held(vec![(author.to_owned(), held)], self.now_ms);
        self.run(Turn::default());
    }

    /// Lets time pass, step by step.
    fn pass(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while let Some(next_ms) = self.machine.next_timeout_ms().filter(|ms| *ms <= end_ms) {
            self.now_ms = self.now_ms.max(next_ms);
            self.run(Turn::default());
        }
        self.now_ms = end_ms;
        self.run(Turn::default());
    }

    /// What was sent since it was looked last: token and message.
    fn sent(&mut self) -> Vec<(u64, Vec<u8>)> {
        let orders = std::mem::take(&mut self.orders);
        let sent = orders.into_iter().filter_map(|order| match order {
            Order::Send { token, bytes, .. } => Some((token, bytes)),
            _ => None,
        });
        sent.collect()
    }

    /// Of that the messages with events: tokens and how many.
    fn sent_events(&mut self) -> Vec<(u64, usize)> {
        let count = |(token, bytes): (u64, Vec<u8>)| match Message::parse(&bytes) {
            Ok(Message::Events(events)) => Some((token, events.len())),
            _ => None,
        };
        self.sent().into_iter().filter_map(count).collect()
    }

    fn prove(&mut self, token: u64) {
        self.report(Report::Sent { link: THEIR_LINK, token, outcome: Outcome::Proved });
    }

    fn refused(&self, why: Refused) -> u64 {
        let counts = self.machine.status(self.now_ms).counts;
        counts.refused.get(&why).copied().unwrap_or(0)
    }

    fn held(&self, author: &str) -> usize {
        self.store.get(author).map_or(0, Vec::len)
    }
}

/// So many events of ours, translated.
fn ours(count: usize) -> (String, Vec<String>) {
    let mut author = Author::named(&"a1".repeat(32));
    let jsons = (0..count).map(|text| author.write(&text.to_string())).collect();
    (author.name, jsons)
}

#[test]
fn what_comes_signed_is_taken_in_order_and_counted() {
    let mut north = Author::new(1);
    let mut bench = Bench::linked(&north);
    let events: Vec<String> = (0..40).map(|text| north.signed(&text.to_string())).collect();
    for chunk in events.chunks(32) {
        let chunk: Vec<&str> = chunk.iter().map(String::as_str).collect();
        bench.events(&chunk);
    }
    assert_eq!(bench.held(&north.name), 40);
    let counts = bench.machine.status(0).counts;
    assert_eq!((counts.verified, counts.unverified), (40, 0));
    assert_eq!(bench.learned, 1);
}

#[test]
fn of_an_author_whose_key_is_known_only_what_it_signed_is_taken() {
    let mut north = Author::new(1);
    let mut bench = Bench::linked(&north);
    let unsigned = north.write("one");
    bench.events(&[&unsigned]);
    let forged = Author::new(2).sign(&unsigned);
    bench.events(&[&forged]);
    assert_eq!((bench.refused(Refused::Unsigned), bench.refused(Refused::BadSignature)), (1, 1));
    assert_eq!(bench.held(&north.name), 0);
    let signed = north.sign(&unsigned);
    bench.events(&[&signed]);
    assert_eq!(bench.held(&north.name), 1);
}

#[test]
fn free_names_are_taken_unverified_and_only_so_many() {
    let north = Author::new(1);
    let mut bench = Bench::linked(&north);
    for name in 0..300 {
        let event = Author::named(&format!("name {name}")).write("x");
        bench.events(&[&event]);
        bench.pass(1_000);
    }
    let counts = bench.machine.status(0).counts;
    // 64 at once, then one a minute.
    assert!((64..=72).contains(&counts.unverified), "{counts:?}");
    assert_eq!(bench.refused(Refused::Strangers), 300 - counts.unverified);
    bench.pass(24 * 60 * 60 * 1000);
    for name in 300..900 {
        let event = Author::named(&format!("name {name}")).write("x");
        bench.events(&[&event]);
        bench.pass(60_000);
    }
    assert_eq!(bench.machine.status(0).counts.unverified, 256);
}

#[test]
fn a_gap_waits_in_bounds_and_is_filled() {
    let mut north = Author::new(1);
    let mut bench = Bench::linked(&north);
    let events: Vec<String> = (0..100).map(|text| north.signed(&text.to_string())).collect();
    for event in &events[1..] {
        bench.events(&[event]);
    }
    assert_eq!(bench.held(&north.name), 0);
    assert_eq!(bench.machine.status(0).pending, 64);
    assert_eq!(bench.refused(Refused::PendingFull), 35);
    bench.events(&[&events[0]]);
    assert_eq!(bench.held(&north.name), 65);
    assert_eq!(bench.machine.status(0).pending, 0);
}

/// A forged event with a place in the future stands beside the honest one.
#[test]
fn a_forged_future_event_displaces_no_honest_one() {
    let mut honest = Author::named("free");
    let mut bench = Bench::linked(&Author::new(1));
    let (one, two) = (honest.write("one"), honest.write("two"));
    let mut forger = Author::named("free");
    forger.write("another");
    let forged = forger.write("forged");
    bench.events(&[&forged, &two]);
    bench.events(&[&forged]);
    assert_eq!(bench.machine.status(0).pending, 2);
    bench.events(&[&one]);
    assert_eq!(bench.store["free"], [one, two]);
    assert_eq!(bench.refused(Refused::Fork), 1);
}

#[test]
fn a_fork_is_refused_and_its_author_is_left_alone_for_a_while() {
    let mut first = Author::named("free");
    let peer = Author::new(1);
    let mut bench = Bench::linked(&peer);
    let one = first.write("one");
    bench.events(&[&one]);
    let mut second = Author::named("free");
    let (other, tail) = (second.write("other"), second.write("tail"));
    bench.events(&[&other, &tail]);
    assert_eq!(bench.store["free"], [one]);
    assert_eq!(bench.refused(Refused::Fork), 2);
    // It says to have two, and is told that two are here: else it would send the tail for ever.
    bench.sent();
    bench.frontier(&[("free", 2), ("more", 1)]);
    bench.pass(10_000);
    let told: Vec<_> = bench.sent().into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(told.first().map(Vec::as_slice), Some(&br#"{"t":"frontier","f":{"free":2}}"#[..]));
}

#[test]
fn a_replay_is_counted_and_asks_nothing_of_anybody() {
    let mut north = Author::new(1);
    let mut bench = Bench::linked(&north);
    let event = north.signed("one");
    for _ in 0..10 {
        bench.events(&[&event]);
    }
    let counts = bench.machine.status(0).counts;
    assert_eq!((counts.verified, counts.known), (1, 9));
    assert_eq!(bench.held(&north.name), 1);
}

#[test]
fn malformed_messages_are_counted_and_end_the_link() {
    let north = Author::new(1);
    let mut bench = Bench::linked(&north);
    let long = vec![b' '; 600_000];
    let senseless: [&[u8]; 8] = [
        b"\xff",
        b"[]",
        b"{",
        b"{\"t\":\"frontier\",\"f\":{\"a\":1.5}}",
        b"{\"t\":\"events\"}",
        b"{\"t\":\"x\"}",
        &long,
        b"",
    ];
    for bytes in senseless {
        bench.receive(bytes);
    }
    assert_eq!(bench.refused(Refused::Malformed), 8);
    assert!(bench.orders.contains(&Order::Close { link: THEIR_LINK }));
    // It is left alone: neither dialed nor let in.
    bench.orders.clear();
    bench.report(Report::Down { link: THEIR_LINK, reason: String::new() });
    bench.hear(&north);
    bench.pass(5 * 60 * 1000);
    assert!(!bench.orders.iter().any(|order| matches!(order, Order::Open { .. })));
    bench.orders.clear();
    bench.link(north.peer());
    assert!(bench.orders.contains(&Order::Close { link: THEIR_LINK }));
}

#[test]
fn one_event_that_is_none_costs_the_others_nothing() {
    let mut north = Author::new(1);
    let mut bench = Bench::linked(&north);
    let (one, two) = (north.signed("one"), north.signed("two"));
    bench.events(&[&one, "17", "{\"a\":1}", &two]);
    assert_eq!(bench.held(&north.name), 2);
    assert_eq!(bench.refused(Refused::NoEvent), 2);
}

/// A stamp of the year 2286 is taken as it is: the view holds it back, and nobody's clock moves.
#[test]
fn a_stamp_from_the_future_passes_and_moves_nothing() {
    let mut north = Author::new(1);
    let mut bench = Bench::linked(&north);
    let json = north.write_at("later", 9_999_999_999_999);
    let json = north.sign(&json);
    bench.events(&[&json]);
    assert_eq!(bench.held(&north.name), 1);
    assert!(bench.machine.next_timeout_ms().is_none_or(|ms| ms < 3 * 60 * 60 * 1000));
}

#[test]
fn one_message_is_on_its_way_and_nothing_goes_twice() {
    let north = Author::new(1);
    let mut bench = Bench::linked(&north);
    let (author, events) = ours(70);
    bench.hold(&author, &events);
    // Without a word of what it has, it is sent nothing.
    bench.pass(60_000);
    assert_eq!(bench.sent_events(), []);
    let mut counts = Vec::new();
    bench.frontier(&[]);
    loop {
        // It says again what it had before: nothing goes twice for that.
        bench.frontier(&[]);
        bench.pass(1_000);
        let sent = bench.sent_events();
        let [(token, events)] = sent[..] else {
            assert_eq!(sent, []);
            break;
        };
        counts.push(events);
        bench.prove(token);
    }
    assert_eq!(counts, [32, 32, 6]);
    // Once it shows, there is silence.
    bench.frontier(&[(&author, 70)]);
    bench.pass(24 * 60 * 60 * 1000);
    assert_eq!(bench.sent(), []);
}

#[test]
fn what_fails_goes_again() {
    let north = Author::new(1);
    let mut bench = Bench::linked(&north);
    let (author, events) = ours(3);
    bench.hold(&author, &events);
    bench.frontier(&[]);
    let [(token, 3)] = bench.sent_events()[..] else { panic!("three go") };
    let outcome = Outcome::Failed("lost".to_owned());
    bench.report(Report::Sent { link: THEIR_LINK, token, outcome });
    assert_eq!(bench.sent_events(), []);
    bench.pass(10_000);
    let [(token, 3)] = bench.sent_events()[..] else { panic!("they go again") };
    bench.prove(token);
    bench.pass(10_000);
    assert_eq!(bench.sent_events(), []);
}

/// It has another branch, or refuses ours: one event now and then, ever more rarely.
#[test]
fn what_does_not_show_there_is_not_sent_for_ever() {
    let north = Author::new(1);
    let mut bench = Bench::linked(&north);
    let (author, events) = ours(20);
    bench.hold(&author, &events);
    let mut counts = Vec::new();
    for _ in 0..6 * 60 {
        bench.frontier(&[(&author, 4)]);
        for (token, events) in bench.sent_events() {
            counts.push(events);
            bench.prove(token);
        }
        bench.pass(10_000);
    }
    assert_eq!(counts[0], 16);
    assert!(counts[1..].iter().all(|events| *events == 1), "{counts:?}");
    assert!((4..=9).contains(&counts.len()), "{counts:?}");
    // It takes them after all: the rest follows.
    bench.frontier(&[(&author, 5)]);
    bench.pass(1_000);
    let [(_, 15)] = bench.sent_events()[..] else { panic!("the rest goes") };
}

#[test]
fn what_is_held_is_told_only_to_whom_has_more_and_ever_more_rarely() {
    let mut north = Author::new(1);
    let mut bench = Bench::linked(&north);
    // The first word, to whom nothing is known of.
    assert_eq!(bench.sent().len(), 1);
    bench.frontier(&[]);
    bench.pass(60 * 60 * 1000);
    assert_eq!(bench.sent().len(), 0);
    let mut told = 0;
    for _ in 0..360 {
        bench.frontier(&[(&north.name, 1)]);
        bench.pass(10_000);
        told += bench.sent().len();
    }
    assert!((5..=12).contains(&told), "{told} times in an hour");
    let event = north.signed("one");
    bench.events(&[&event]);
    bench.frontier(&[(&north.name, 1)]);
    bench.pass(60 * 60 * 1000);
    assert_eq!(bench.sent(), []);
}

#[test]
fn events_of_ours_that_come_back_are_dropped_and_not_asked_for() {
    let north = Author::new(1);
    let mut bench = Bench::linked(&north);
    let (author, events) = ours(2);
    bench.events(&[&events[0], &events[1]]);
    assert_eq!(bench.machine.status(0).counts.echoed, 2);
    assert_eq!(bench.held(&author), 0);
    bench.sent();
    bench.frontier(&[(&author, 2)]);
    bench.pass(60 * 60 * 1000);
    assert_eq!(bench.sent(), []);
}

#[test]
fn a_flood_is_taken_in_bounds() {
    let mut north = Author::new(1);
    let mut bench = Bench::linked(&north);
    bench.is_serving = false;
    for _ in 0..100 {
        let events: Vec<String> = (0..32).map(|_| north.signed("flood")).collect();
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        bench.events(&events);
    }
    let status = bench.machine.status(0);
    assert!(status.pending <= 64, "{status:?}");
    let refused: u64 = status.counts.refused.values().sum();
    // A message was offered, as many wait as may.
    assert_eq!(refused + status.pending + 512 + 32, 3200, "{status:?}");
}

#[test]
fn a_link_whose_other_end_stays_unknown_is_closed() {
    let mut bench = Bench::new();
    bench.report(Report::Up {
        link: THEIR_LINK,
        service: Service::Meshlog,
        peer: None,
        role: Role::Listener,
        rtt_ms: 1,
        packet_max: 431,
        interface: WIRE,
    });
    bench.pass(500);
    assert!(!bench.orders.contains(&Order::Close { link: THEIR_LINK }));
    bench.pass(5_000);
    assert!(bench.orders.contains(&Order::Close { link: THEIR_LINK }));
}

#[test]
fn who_is_heard_is_dialed_and_bridges_of_the_same_network_are_not() {
    let (north, south) = (Author::new(1), Author::new(2));
    let mut bench = Bench::new();
    bench.run(Turn::default());
    bench.pass(60_000);
    let announces = |orders: &[Order]| {
        orders.iter().filter(|order| matches!(order, Order::Announce { .. })).count()
    };
    assert_eq!(announces(&bench.orders), 1);
    let app_data = bench.machine.announce_data().to_vec();
    bench.report(Report::Heard {
        service: Service::Meshlog,
        peer: south.peer(),
        keys: south.keys,
        app_data,
        hops: 1,
        interface: WIRE,
    });
    bench.pass(60_000);
    assert_eq!(bench.machine.status(0).bridges, 1);
    assert!(!bench.orders.iter().any(|order| matches!(order, Order::Open { .. })));
    bench.hear(&north);
    bench.pass(60_000);
    let open = Order::Open { service: Service::Meshlog, peer: north.peer() };
    assert_eq!(bench.orders.iter().filter(|order| **order == open).count(), 1);
}

#[test]
fn of_two_bridges_one_waits_for_the_other() {
    let own = OWN;
    let other = Peer([1; 16]);
    let bridges = BTreeMap::from([(other, 0)]);
    let back = BTreeMap::from([(own, 0)]);
    let first = |author: &String| is_first(own, &bridges, author, 1);
    let names: Vec<String> = (0..100).map(|name| name.to_string()).collect();
    let count = names.iter().filter(|author| first(author)).count();
    assert!((20..80).contains(&count), "{count}");
    // Just one of the two is first.
    assert!(names.iter().all(|author| first(author) != is_first(other, &back, author, 1)));
}

/// On a radio this node listens first, and dials whom it hears: then meshlogd uses that link.
#[test]
fn on_a_radio_who_is_heard_at_first_is_dialed_before_the_announce() {
    let north = Author::new(1);
    let mut bench = Bench::on(Some(3125), 100);
    bench.run(Turn::default());
    bench.pass(15_000);
    bench.hear(&north);
    bench.pass(9_000);
    assert_eq!(bench.orders, [Order::Open { service: Service::Meshlog, peer: north.peer() }]);
    bench.pass(60_000);
    assert!(matches!(bench.orders[1], Order::Announce { .. }));
}

#[test]
fn who_has_lost_what_it_had_gets_it_again() {
    let north = Author::new(1);
    let mut bench = Bench::linked(&north);
    let (author, events) = ours(100);
    bench.hold(&author, &events);
    let mut has = 0;
    let mut counts = Vec::new();
    for round in 0..60 {
        if round == 20 {
            has = 0;
        }
        bench.frontier(&[(&author, has)]);
        while let [(token, events)] = bench.sent_events()[..] {
            counts.push(events);
            has += events as u64;
            bench.prove(token);
        }
        bench.pass(10_000);
    }
    assert_eq!(has, 100);
    assert_eq!(counts, [32, 32, 32, 4, 1, 32, 32, 32, 3]);
}

/// Somebody says now that it has all, now that it has nothing, and so asks for it again and again.
#[test]
fn who_asks_for_the_same_again_and_again_gets_it_ever_more_rarely() {
    let north = Author::new(1);
    let mut bench = Bench::on(Some(3125), 1000);
    bench.hear(&north);
    bench.link(north.peer());
    let (author, events) = ours(100);
    bench.hold(&author, &events);
    let (mut sent, hour_ms) = (0, 60 * 60 * 1000);
    while bench.now_ms < hour_ms {
        for has in [0, 100] {
            bench.frontier(&[(&author, has)]);
            for (token, events) in bench.sent_events() {
                sent += events;
                bench.prove(token);
            }
            bench.pass(1_000);
        }
    }
    assert!((100..=600).contains(&sent), "{sent} events");
}
