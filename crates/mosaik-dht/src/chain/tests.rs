use super::{
    hold::WRITES_MAX,
    model::{WALL_MS, World, keys, node_id, signing_key, situation},
    *,
};
use crate::record::{self, Draft};

const WALL_S: u64 = WALL_MS / 1000;
const ME: u8 = 1;
const OTHER: u8 = 2;

/// One chain, driven by hand.
struct Bench {
    chain: Chain,
    draw: Draw,
    mono_ms: u64,
    effects: Vec<Effect>,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            chain: Chain::new(keys(), signing_key(ME), Reach::Public),
            draw: Draw::from_seed([9; 32]),
            mono_ms: 0,
            effects: Vec::new(),
        };
        bench.input(Input::Situation(situation(ME, 0)));
        bench.input(Input::DhtUp);
        bench
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.mono_ms, wall_ms: WALL_MS + self.mono_ms }
    }

    fn wall_s(&self) -> u64 {
        self.now().wall_ms / 1000
    }

    fn input(&mut self, input: Input) -> &mut Self {
        let now = self.now();
        self.chain.handle(now, &mut self.draw, input, &mut self.effects);
        self
    }

    /// Lets time pass, with all that comes due on the way; reads stay unanswered.
    fn pass(&mut self, ms: u64) -> &mut Self {
        let until_ms = self.mono_ms + ms;
        while let Some(at_ms) = self.chain.next_timeout_ms().filter(|&at_ms| at_ms <= until_ms) {
            self.mono_ms = self.mono_ms.max(at_ms);
            let now = self.now();
            self.chain.handle_timeout(now, &mut self.draw, &mut self.effects);
        }
        self.mono_ms = until_ms;
        self
    }

    fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    fn reads(&mut self) -> Vec<Vec<u8>> {
        let reads = |effect| match effect {
            Effect::Read(slots) => Some(slots),
            _ => None,
        };
        self.take().into_iter().filter_map(reads).collect()
    }

    fn put(&mut self) -> Option<(u8, SlotValue, Option<i64>)> {
        let puts = |effect| match effect {
            Effect::Put { slot, value, cas } => Some((slot, value, cas)),
            _ => None,
        };
        let mut puts: Vec<_> = self.take().into_iter().filter_map(puts).collect();
        assert!(puts.len() <= 1, "one write at a time");
        puts.pop()
    }

    fn found(&mut self) -> Vec<(NodeId, u8)> {
        let found = |effect| match effect {
            Effect::Found(candidate) => Some((candidate.node, candidate.slot)),
            _ => None,
        };
        self.take().into_iter().filter_map(found).collect()
    }

    /// Ends the read of all slots, with these values in them.
    fn round(&mut self, values: &[(u8, SlotValue)]) -> &mut Self {
        for (slot, value) in values {
            self.input(Input::Value { slot: *slot, value: value.clone() });
        }
        for slot in 0..16 {
            self.input(Input::ReadEnded { slot, answered: 20 });
        }
        self
    }

    /// Waits for the next read of all slots and answers it.
    fn next_round(&mut self, values: &[(u8, SlotValue)]) -> &mut Self {
        for _ in 0..400 {
            if self.chain.round.is_some() {
                return self.round(values);
            }
            self.pass(100);
        }
        panic!("no read within 40 s");
    }

    /// Answers reads of all slots until one of them is followed by a put; into which slot.
    fn next_put(&mut self, values: &[(u8, SlotValue)]) -> u8 {
        for _ in 0..5 {
            if let Some((slot, ..)) = self.next_round(values).put() {
                return slot;
            }
        }
        panic!("no put after five reads");
    }

    fn state(&self, slot: u8) -> SlotState {
        self.chain.state(self.now(), slot)
    }

    /// Claims a slot of an empty chain; which, and its value.
    fn claimed() -> (Self, u8, SlotValue) {
        let mut bench = Self::new();
        let (slot, value, _) = bench.round(&[]).put().expect("an empty chain");
        bench.input(Input::PutOk { slot, seq: value.seq });
        assert_eq!(bench.chain.held(), Some(slot));
        bench.take();
        (bench, slot, value)
    }
}

fn value_at(node: u8, slot: u8, seq: i64, issued_s: u64, expires_s: u64) -> SlotValue {
    let draft =
        Draft { addresses: situation(node, 0).addresses, issued_s, expires_s, ..Draft::default() };
    let built = record::build(&keys(), slot, &signing_key(node), &draft, seq, &[0; 24]);
    built.expect("a record").0
}

fn live(node: u8, slot: u8, seq: i64) -> (u8, SlotValue) {
    (slot, value_at(node, slot, seq, WALL_S, WALL_S + 3600))
}

fn junk(slot: u8, seq: i64) -> (u8, SlotValue) {
    let key = SigningKey::from_bytes(&keys().keypair(slot).secret_key());
    let item = mainline::MutableItem::new(key, b"junk", seq, None);
    (slot, SlotValue { seq, signature: *item.signature(), value: item.value().to_vec() })
}

/// Live leases of 16 others, of which the slots in `but` are left out.
fn full_but(but: &[u8]) -> Vec<(u8, SlotValue)> {
    (0..16).filter(|slot| !but.contains(slot)).map(|slot| live(100 + slot, slot, 1)).collect()
}

fn seq_of(value: &SlotValue) -> u64 {
    u64::try_from(value.seq).expect("our seqs are times")
}

#[test]
fn all_slots_are_read_at_once_as_soon_as_the_dht_is_up() {
    let mut bench = Bench::new();
    assert_eq!(bench.reads(), [(0..16).collect::<Vec<u8>>()]);
}

#[test]
fn a_live_lease_is_found_when_its_value_arrives_and_once_a_read() {
    let mut bench = Bench::new();
    let (slot, value) = live(OTHER, 5, 1);
    bench.input(Input::Value { slot, value: value.clone() });
    assert_eq!(bench.found(), [(node_id(OTHER), 5)]);
    bench.input(Input::Value { slot, value });
    assert_eq!(bench.found(), []);
}

#[test]
fn every_distinct_value_of_a_slot_is_considered() {
    let mut bench = Bench::new();
    for (node, seq) in [(OTHER, 1), (3, 2), (4, 3)] {
        bench.input(Input::Value { slot: 5, value: live(node, 5, seq).1 });
    }
    assert_eq!(bench.found(), [(node_id(OTHER), 5), (node_id(3), 5), (node_id(4), 5)]);
}

#[test]
fn expired_forged_left_and_junk_values_are_not_dialed() {
    let mut bench = Bench::new();
    bench.input(Input::Value { slot: 0, value: live(3, 0, 1).1 });
    assert_eq!(bench.found().len(), 1);
    let values = [
        (1, value_at(OTHER, 1, 1, WALL_S - 7200, WALL_S - 3600)),
        (2, live(OTHER, 3, 1).1),
        (4, value_at(OTHER, 4, 1, WALL_S, WALL_S)),
        junk(5, 1),
        (6, value_at(OTHER, 6, 1, WALL_S + 400, WALL_S + 3600)),
    ];
    bench.round(&values);
    assert_eq!(bench.found(), []);
    let states = [1, 2, 4, 5, 6].map(|slot| bench.state(slot));
    use SlotState::{Expired, Foreign, Left};
    assert_eq!(states, [Expired, Foreign, Left, Foreign, Expired]);
}

#[test]
fn private_addresses_of_a_record_are_not_dialed_by_default() {
    let mut bench = Bench::new();
    let draft = Draft {
        addresses: vec!["10.0.0.1:1".parse().expect("v4")],
        issued_s: WALL_S,
        expires_s: WALL_S + 60,
        ..Draft::default()
    };
    let built = record::build(&keys(), 0, &signing_key(OTHER), &draft, 1, &[0; 24]);
    bench.input(Input::Value { slot: 0, value: built.expect("a record").0 });
    assert_eq!(bench.found(), []);
}

#[test]
fn the_own_record_is_never_dialed() {
    let mut bench = Bench::new();
    bench.input(Input::Value { slot: 0, value: live(ME, 0, 1).1 });
    assert_eq!(bench.found(), []);
}

#[test]
fn a_holder_is_found_again_at_each_read_while_peers_are_few() {
    let mut bench = Bench::new();
    let values = [live(OTHER, 5, 1)];
    assert_eq!(bench.round(&values).found().len(), 1);
    assert_eq!(bench.next_round(&values).found().len(), 1);
    bench.input(Input::Situation(situation(ME, 3)));
    bench.input(Input::Look);
    assert_eq!(bench.next_round(&values).found(), []);
    bench.input(Input::Look);
    assert_eq!(bench.next_round(&[live(OTHER, 5, 2)]).found().len(), 1, "a new value is news");
}

#[test]
fn with_no_lease_live_by_this_clock_the_newest_good_one_gives_the_time() {
    let mut bench = Bench::new();
    let day = 86_400;
    let values = [
        (1, value_at(OTHER, 1, 1, WALL_S + day, WALL_S + day + 3600)),
        (2, value_at(3, 2, 1, WALL_S + day - 1800, WALL_S + day + 1800)),
        (3, value_at(4, 3, 1, WALL_S - day, WALL_S - day + 3600)),
    ];
    assert_eq!(bench.round(&values).found(), [(node_id(OTHER), 1), (node_id(3), 2)]);
    assert_eq!(bench.state(1), SlotState::Live);
    assert_eq!(bench.state(3), SlotState::Expired);
    // As soon as one is live by the own clock, that is believed.
    let mut bench = Bench::new();
    let values = [values[0].clone(), live(5, 9, 1)];
    assert_eq!(bench.round(&values).found(), [(node_id(5), 9)]);
    assert_eq!(bench.state(1), SlotState::Expired);
}

#[test]
fn an_empty_slot_is_taken_without_cas_at_the_time_in_microseconds() {
    let mut bench = Bench::new();
    let (slot, value, cas) = bench.round(&[]).put().expect("an empty chain");
    assert_eq!(cas, None);
    assert_eq!(seq_of(&value) / 1000, WALL_MS);
    let parsed = record::parse(&keys(), slot, &value).expect("a record");
    assert_eq!(parsed.node, node_id(ME));
    assert_eq!(parsed.addresses, situation(ME, 0).addresses);
    assert_eq!((parsed.lease.issued_s, parsed.lease.expires_s), (WALL_S, WALL_S + 3600));
    assert_eq!(bench.chain.held(), None, "not before it is stored");
    bench.input(Input::PutOk { slot, seq: value.seq });
    assert_eq!(bench.chain.held(), Some(slot));
    assert_eq!(bench.state(slot), SlotState::Mine);
}

#[test]
fn nothing_is_claimed_before_all_slots_are_read() {
    let mut bench = Bench::new();
    for slot in 0..15 {
        bench.input(Input::ReadEnded { slot, answered: 20 });
    }
    assert!(bench.put().is_none());
    bench.input(Input::ReadEnded { slot: 15, answered: 20 });
    assert!(bench.put().is_some());
}

#[test]
fn nothing_is_claimed_where_no_storage_node_answered() {
    let mut bench = Bench::new();
    for slot in 0..16 {
        bench.input(Input::ReadEnded { slot, answered: 0 });
    }
    assert!(bench.put().is_none());
    assert_eq!(bench.state(3), SlotState::Unknown);
    assert!(!bench.chain.summary(bench.now()).answering);
}

#[test]
fn a_slot_without_an_answer_delays_a_claim_by_two_reads() {
    let mut bench = Bench::new();
    for read in 1..=3 {
        while bench.chain.round.is_none() {
            bench.pass(100);
        }
        for slot in 0..16 {
            bench.input(Input::ReadEnded { slot, answered: u32::from(slot != 5) });
        }
        let put = bench.put();
        assert_eq!(put.is_some(), read == 3);
        assert!(put.is_none_or(|(slot, ..)| slot != 5), "nobody knows what stands there");
    }
}

#[test]
fn nothing_is_claimed_without_an_address_to_publish() {
    let mut bench = Bench::new();
    let mut private = situation(ME, 0);
    private.addresses = vec!["192.168.0.1:1".parse().expect("v4")];
    bench.input(Input::Situation(private));
    assert!(bench.round(&[]).put().is_none());
    bench.input(Input::Situation(situation(ME, 0)));
    assert!(bench.next_round(&[]).put().is_some());
}

#[test]
fn free_slots_of_any_kind_are_taken_over_their_seq_with_cas() {
    for (name, slot, value) in [
        ("left", 4, value_at(OTHER, 4, 77, WALL_S, WALL_S)),
        ("expired", 4, value_at(OTHER, 4, 77, WALL_S - 7200, WALL_S - 3600)),
        ("junk", 4, junk(4, 77).1),
        ("a copy", 4, live(OTHER, 5, 77).1),
    ] {
        let mut bench = Bench::new();
        // Seven live leases, and the rest locked: only this slot is left.
        let mut values: Vec<_> = (8..15).map(|slot| live(100 + slot, slot, 1)).collect();
        values.extend([0, 1, 2, 3, 5, 6, 7, 15].map(|slot| junk(slot, i64::MAX)));
        values.push((slot, value));
        let (taken, value, cas) = bench.round(&values).put().expect(name);
        assert_eq!((taken, cas), (4, Some(77)), "{name}");
        assert_eq!(seq_of(&value) / 1000, WALL_MS, "{name}");
    }
}

#[test]
fn a_seq_in_the_future_is_raised_by_one() {
    let mut bench = Bench::new();
    let future = i64::try_from(WALL_MS * 1000).expect("a time") + 1_000_000_000_000;
    let mut values: Vec<_> = (9..16).map(|slot| live(100 + slot, slot, 1)).collect();
    values.extend((0..9).map(|slot| junk(slot, future)));
    let (_, value, cas) = bench.round(&values).put().expect("junk is free");
    assert_eq!((value.seq, cas), (future + 1, Some(future)));
}

#[test]
fn a_slot_at_the_ceiling_is_locked() {
    let mut bench = Bench::new();
    let values: Vec<_> = (0..16).map(|slot| junk(slot, i64::MAX - i64::from(slot))).collect();
    assert!(bench.round(&values).put().is_none());
    assert!((0..16).all(|slot| bench.state(slot) == SlotState::Locked));
}

#[test]
fn a_negative_seq_is_overwritten_with_it_as_cas() {
    let mut bench = Bench::new();
    let values: Vec<_> = (0..16).map(|slot| junk(slot, -5)).collect();
    let (_, value, cas) = bench.round(&values).put().expect("junk is free");
    assert_eq!((seq_of(&value) / 1000, cas), (WALL_MS, Some(-5)));
}

#[test]
fn eight_live_leases_make_a_slot_needless() {
    for (live_slots, claims) in [(7, true), (8, false), (16, false)] {
        let mut bench = Bench::new();
        let values: Vec<_> = (0..live_slots).map(|slot| live(100 + slot, slot, 1)).collect();
        assert_eq!(bench.round(&values).put().is_some(), claims, "{live_slots}");
    }
}

#[test]
fn a_live_lease_of_another_is_not_taken() {
    let mut bench = Bench::new();
    let mut values: Vec<_> = (0..7).map(|slot| live(100 + slot, slot, 1)).collect();
    values.extend((7..16).map(|slot| junk(slot, i64::MAX)));
    bench.round(&values);
    assert!(bench.put().is_none());
    bench.input(Input::DialFailed(node_id(100)));
    bench.pass(10_000).input(Input::DialFailed(node_id(100)));
    assert!(bench.next_round(&values).put().is_none(), "two dials 10 s apart prove nothing");
}

#[test]
fn a_holder_that_two_dials_thirty_seconds_apart_did_not_reach_loses_its_slot() {
    let mut bench = Bench::new();
    let values = full_but(&[]);
    bench.round(&values);
    for round in 0..2 {
        for slot in 0..16 {
            bench.input(Input::DialFailed(node_id(100 + slot)));
        }
        if round == 0 {
            assert!(bench.next_round(&values).put().is_none());
            bench.pass(40_000);
        }
    }
    bench.effects.clear();
    let at_ms = bench.mono_ms;
    let (_, _, cas) = bench.next_round(&values).put().expect("its holder is dead");
    assert_eq!(cas, Some(1));
    assert!(bench.mono_ms - at_ms < 3_000, "a death is acted upon soon");
}

#[test]
fn one_failed_dial_after_a_broken_session_is_enough() {
    let mut bench = Bench::new();
    let mut values: Vec<_> = (0..7).map(|slot| live(100 + slot, slot, 1)).collect();
    values.extend((7..16).map(|slot| junk(slot, i64::MAX)));
    bench.round(&values).put();
    bench.input(Input::SessionBroke(node_id(103)));
    assert!(bench.next_round(&values).put().is_none());
    bench.input(Input::DialFailed(node_id(103)));
    let (slot, ..) = bench.next_round(&values).put().expect("its holder is dead");
    assert_eq!(slot, 3);
}

#[test]
fn a_holder_that_renewed_its_lease_is_alive_again() {
    let mut bench = Bench::new();
    let mut values: Vec<_> = (0..7).map(|slot| live(100 + slot, slot, 1)).collect();
    values.extend((7..16).map(|slot| junk(slot, i64::MAX)));
    bench.round(&values);
    bench.input(Input::SessionBroke(node_id(103)));
    bench.input(Input::DialFailed(node_id(103)));
    assert_eq!(bench.state(3), SlotState::Dead);
    values[3].1 = value_at(103, 3, 2, WALL_S + 1, WALL_S + 3600);
    assert!(bench.next_round(&values).put().is_none());
    assert_eq!(bench.state(3), SlotState::Live);
}

#[test]
fn free_slots_go_before_dead_ones() {
    let mut bench = Bench::new();
    let mut values = full_but(&[11]);
    values.retain(|(slot, _)| *slot < 6 || *slot == 11);
    values.extend((6..16).filter(|slot| *slot != 11).map(|slot| junk(slot, i64::MAX)));
    for slot in 0..6 {
        bench.input(Input::SessionBroke(node_id(100 + slot)));
        bench.input(Input::DialFailed(node_id(100 + slot)));
    }
    let (slot, ..) = bench.round(&values).put().expect("one is empty");
    assert_eq!(slot, 11);
}

#[test]
fn nodes_prefer_different_slots_of_an_empty_chain() {
    let mut slots: Vec<u8> = (1..40)
        .map(|node| {
            let mut chain = Chain::new(keys(), signing_key(node), Reach::Public);
            let (now, mut effects) = (Now { mono_ms: 0, wall_ms: WALL_MS }, Vec::new());
            let mut draw = Draw::from_seed([0; 32]);
            chain.handle(now, &mut draw, Input::Situation(situation(node, 0)), &mut effects);
            chain.handle(now, &mut draw, Input::DhtUp, &mut effects);
            for slot in 0..16 {
                chain.handle(now, &mut draw, Input::ReadEnded { slot, answered: 1 }, &mut effects);
            }
            let put = effects.iter().find_map(|effect| match effect {
                Effect::Put { slot, .. } => Some(*slot),
                _ => None,
            });
            put.expect("an empty chain")
        })
        .collect();
    slots.sort_unstable();
    slots.dedup();
    assert!(slots.len() > 10, "{slots:?}");
}

#[test]
fn a_failed_put_is_read_again_and_sent_once_more_without_cas() {
    let mut bench = Bench::new();
    let (slot, value, _) = bench.round(&[]).put().expect("an empty chain");
    bench.input(Input::PutFailed { slot, seq: value.seq, refused: true });
    assert_eq!(bench.reads(), [[slot]]);
    bench.input(Input::ReadEnded { slot, answered: 20 });
    let (again_slot, again, cas) = bench.put().expect("once more");
    assert_eq!((again_slot, &again, cas), (slot, &value, None));
    // A second refusal, and still nothing of ours there: lost.
    bench.input(Input::PutFailed { slot, seq: value.seq, refused: true });
    bench.input(Input::ReadEnded { slot, answered: 20 });
    assert!(bench.put().is_none());
    assert_eq!(bench.chain.held(), None);
}

/// Storage nodes said yes to a claim, and the next read shows `before` only.
fn claimed_in_vain(before: &[(u8, SlotValue)]) -> (Bench, u8, SlotValue) {
    let mut bench = Bench::new();
    let (slot, value, _) = bench.round(before).put().expect("a free slot");
    bench.input(Input::PutOk { slot, seq: value.seq });
    bench.take();
    bench.next_round(before);
    (bench, slot, value)
}

#[test]
fn a_claim_that_no_read_shows_is_put_once_more_without_cas_and_then_left_for_a_minute() {
    let junk: Vec<_> = (0..16).map(|slot| junk(slot, 77)).collect();
    for before in [&[][..], &junk] {
        let (mut bench, slot, value) = claimed_in_vain(before);
        assert!(bench.mono_ms < 3_000, "{} ms", bench.mono_ms);
        let (again_slot, again, cas) = bench.put().expect("once more");
        assert_eq!((again_slot, &again, cas), (slot, &value, None));
        bench.input(Input::PutOk { slot, seq: value.seq });
        assert_eq!(bench.chain.held(), Some(slot));
        let said_ms = bench.mono_ms;
        bench.take();
        // It is looked for once more, and not put a third time; a minute later a new one is.
        bench.next_round(before);
        assert!(bench.mono_ms - said_ms < 3_000, "{} ms", bench.mono_ms - said_ms);
        assert!(bench.put().is_none());
        let renewed = loop {
            bench.pass(100);
            for slot in bench.reads().into_iter().flatten() {
                for (_, value) in before.iter().filter(|(at, _)| *at == slot) {
                    bench.input(Input::Value { slot, value: value.clone() });
                }
                bench.input(Input::ReadEnded { slot, answered: 20 });
            }
            if let Some((_, renewed, _)) = bench.put() {
                break renewed;
            }
            assert!(bench.mono_ms - said_ms < 70_000, "never written again");
        };
        assert!(bench.mono_ms - said_ms >= 60_000);
        assert!(renewed.seq > value.seq, "never another value at one seq");
    }
}

#[test]
fn a_claim_that_a_read_has_shown_is_not_put_once_more_when_it_is_forgotten() {
    let (mut bench, slot, value) = Bench::claimed();
    bench.next_round(&[(slot, value)]).take();
    bench.next_round(&[]);
    assert!(bench.put().is_none());
    assert_eq!(bench.chain.held(), Some(slot));
}

#[test]
fn a_claim_beside_an_older_value_that_was_not_seen_before_is_not_put_once_more() {
    let (mut bench, slot, value) = Bench::claimed();
    bench.next_round(&[live(OTHER, slot, value.seq - 1)]);
    assert!(bench.put().is_none());
    assert_eq!(bench.chain.held(), Some(slot));
}

#[test]
fn a_claim_put_once_more_and_refused_for_another_value_is_lost() {
    let (mut bench, slot, value) = claimed_in_vain(&[]);
    bench.put().expect("once more");
    bench.input(Input::PutFailed { slot, seq: value.seq, refused: true });
    bench.input(Input::Value { slot, value: live(OTHER, slot, value.seq + 1).1 });
    bench.input(Input::ReadEnded { slot, answered: 20 });
    assert_eq!((bench.chain.held(), bench.chain.conflicts()), (None, 1));
    assert!(bench.put().is_none());
}

#[test]
fn a_failed_put_that_is_out_there_all_the_same_holds_the_slot() {
    let mut bench = Bench::new();
    let (slot, value, _) = bench.round(&[]).put().expect("an empty chain");
    bench.input(Input::PutFailed { slot, seq: value.seq, refused: true });
    bench.input(Input::Value { slot, value: value.clone() });
    bench.input(Input::ReadEnded { slot, answered: 20 });
    assert!(bench.put().is_none());
    assert_eq!(bench.chain.held(), Some(slot));
}

#[test]
fn a_third_value_after_a_failed_put_means_the_slot_is_lost() {
    let mut bench = Bench::new();
    let (slot, value, _) = bench.round(&[]).put().expect("an empty chain");
    bench.input(Input::PutFailed { slot, seq: value.seq, refused: true });
    let theirs = live(OTHER, slot, value.seq + 1);
    bench.input(Input::Value { slot, value: theirs.1.clone() });
    assert_eq!(bench.found(), [(node_id(OTHER), slot)]);
    bench.input(Input::ReadEnded { slot, answered: 20 });
    assert_eq!(bench.chain.held(), None);
    let lost_ms = bench.mono_ms;
    let other_slot = bench.next_put(&[theirs]);
    assert_ne!(other_slot, slot);
    let waited_ms = bench.mono_ms - lost_ms;
    assert!((1_000..4_000).contains(&waited_ms), "{waited_ms} ms");
}

/// Of a hundred that start at once some lose slot after slot: the DHT isn't to pay for it.
#[test]
fn whoever_loses_each_slot_that_it_takes_writes_three_times_in_any_minute() {
    let mut bench = Bench::new();
    let (mut taken, mut writes) = (Vec::new(), Vec::new());
    let mut put = bench.round(&[]).put();
    while bench.mono_ms < 150_000 {
        if let Some((slot, value, _)) = put.take() {
            writes.push(bench.mono_ms);
            bench.input(Input::PutFailed { slot, seq: value.seq, refused: true });
            let theirs = live(OTHER, slot, value.seq + 1);
            bench.input(Input::Value { slot, value: theirs.1.clone() });
            bench.input(Input::ReadEnded { slot, answered: 20 });
            taken.push(theirs);
        }
        put = bench.next_round(&taken).put();
    }
    assert!(writes.len() > WRITES_MAX, "{writes:?}");
    let minute = |some: &[u64]| some[WRITES_MAX] - some[0] >= 60_000;
    assert!(writes.windows(WRITES_MAX + 1).all(minute), "{writes:?}");
}

#[test]
fn an_unanswered_put_and_an_unanswered_read_after_it_decide_nothing() {
    let (mut bench, slot, value) = Bench::claimed();
    bench.next_round(&[(slot, value.clone())]);
    bench.chain.held.as_mut().expect("held").postpone(0);
    bench.pass(1);
    bench.input(Input::Value { slot, value: value.clone() });
    bench.input(Input::ReadEnded { slot, answered: 20 });
    let (_, renewed, _) = bench.put().expect("a renewal");
    bench.input(Input::PutFailed { slot, seq: renewed.seq, refused: true });
    bench.input(Input::ReadEnded { slot, answered: 0 });
    assert_eq!(bench.chain.held(), Some(slot));
}

#[test]
fn back_off_grows_with_each_loss_and_never_falls_below_a_second() {
    let mut bench = Bench::new();
    let mut waits = Vec::new();
    for _ in 0..12 {
        let (now, before_ms) = (bench.now(), bench.mono_ms);
        bench.chain.lose(now, &mut bench.draw);
        waits.push(bench.chain.claim_not_before_ms - before_ms);
    }
    assert!(waits.iter().all(|wait| (1_000..=61_000).contains(wait)), "{waits:?}");
    assert!(waits[..2].iter().max() < waits[6..].iter().max(), "{waits:?}");
}

#[test]
fn after_a_claim_a_lonely_node_reads_again_within_two_seconds() {
    let (mut bench, ..) = Bench::claimed();
    bench.pass(1_400);
    assert_eq!(bench.reads(), [(0..16).collect::<Vec<u8>>()]);
}

#[test]
fn an_own_slot_overwritten_by_another_is_lost_and_another_is_taken() {
    let (mut bench, slot, value) = Bench::claimed();
    let theirs = live(OTHER, slot, value.seq + 1);
    bench.next_round(std::slice::from_ref(&theirs));
    assert_eq!(bench.chain.held(), None);
    assert_ne!(bench.next_put(&[theirs]), slot);
}

#[test]
fn an_older_value_from_a_lagging_node_takes_nothing_away() {
    let (mut bench, slot, value) = Bench::claimed();
    bench.next_round(&[live(OTHER, slot, value.seq - 1), (slot, value)]);
    assert_eq!(bench.chain.held(), Some(slot));
}

#[test]
fn a_slot_is_renewed_between_twenty_and_thirty_minutes_after_its_write() {
    let (mut bench, slot, value) = Bench::claimed();
    bench.input(Input::Situation(situation(ME, 3)));
    let put_ms = bench.mono_ms;
    bench.next_round(&[(slot, value.clone())]);
    bench.take();
    // Every read is answered at once: only the renewal's is for one slot.
    loop {
        bench.pass(1_000);
        assert!(bench.mono_ms < 31 * 60_000, "no renewal");
        match bench.reads().as_slice() {
            [] => {}
            [one] if one == &[slot] => break,
            _ => {
                bench.round(&[(slot, value.clone())]);
            }
        }
    }
    let waited_ms = bench.mono_ms - put_ms;
    assert!((20 * 60_000..=30 * 60_000 + 1_000).contains(&waited_ms), "{waited_ms}");
    bench.input(Input::Value { slot, value: value.clone() });
    bench.input(Input::ReadEnded { slot, answered: 20 });
    let (renewed_slot, renewed, cas) = bench.put().expect("the renewal");
    assert_eq!((renewed_slot, cas), (slot, Some(value.seq)));
    assert!(renewed.seq > value.seq);
    let lease = record::parse(&keys(), slot, &renewed).expect("a record").lease;
    assert_eq!(lease.expires_s, bench.wall_s() + 3600);
}

#[test]
fn a_slot_taken_by_another_before_its_renewal_is_not_written_over() {
    let (mut bench, slot, value) = Bench::claimed();
    bench.next_round(&[(slot, value.clone())]);
    bench.chain.held.as_mut().expect("held").postpone(0);
    bench.pass(1);
    bench.input(Input::Value { slot, value: live(OTHER, slot, value.seq + 1).1 });
    bench.input(Input::ReadEnded { slot, answered: 20 });
    assert!(bench.put().is_none());
    assert_eq!(bench.chain.held(), None);
}

#[test]
fn junk_over_the_own_slot_is_written_over_at_the_renewal() {
    let (mut bench, slot, value) = Bench::claimed();
    bench.next_round(&[(slot, value.clone())]);
    bench.chain.held.as_mut().expect("held").postpone(0);
    bench.pass(1);
    bench.input(Input::Value { slot, value: junk(slot, value.seq + 10).1 });
    bench.input(Input::ReadEnded { slot, answered: 20 });
    let (_, renewed, cas) = bench.put().expect("nobody else's");
    assert_eq!(cas, Some(value.seq + 10));
    assert!(renewed.seq > value.seq + 10);
}

#[test]
fn new_addresses_are_written_within_ten_seconds_but_once_a_minute() {
    let (mut bench, slot, value) = Bench::claimed();
    bench.input(Input::Situation(situation(ME, 3)));
    bench.pass(70_000);
    bench.round(&[(slot, value.clone())]).take();
    let mut stored = value;
    let mut written_ms = None;
    for port in [1, 2] {
        let mut moved = situation(ME, 3);
        moved.addresses[0].set_port(port);
        bench.input(Input::Situation(moved.clone()));
        let changed_ms = bench.mono_ms;
        let renewed = loop {
            bench.pass(100);
            for read in bench.reads() {
                for slot in read {
                    bench.input(Input::ReadEnded { slot, answered: 20 });
                }
            }
            if let Some((_, renewed, _)) = bench.put() {
                break renewed;
            }
            assert!(bench.mono_ms - changed_ms < 70_000, "never written");
        };
        assert!(renewed.seq > stored.seq);
        let parsed = record::parse(&keys(), slot, &renewed).expect("a record");
        assert_eq!(parsed.addresses, moved.addresses);
        bench.input(Input::PutOk { slot, seq: renewed.seq });
        match written_ms.replace(bench.mono_ms) {
            None => assert!(bench.mono_ms - changed_ms < 10_000),
            Some(before_ms) => assert!(bench.mono_ms - before_ms >= 60_000),
        }
        stored = renewed;
    }
}

#[test]
fn addresses_that_change_back_are_not_written() {
    let (mut bench, ..) = Bench::claimed();
    let mut moved = situation(ME, 0);
    moved.addresses[0].set_port(1);
    bench.input(Input::Situation(moved));
    assert!(bench.chain.held.as_ref().expect("held").has_change());
    bench.input(Input::Situation(situation(ME, 0)));
    assert!(!bench.chain.held.as_ref().expect("held").has_change());
}

#[test]
fn a_restarted_node_finds_its_own_lease_and_keeps_that_slot() {
    let mut bench = Bench::new();
    let before = live(ME, 9, 5);
    bench.take();
    bench.round(std::slice::from_ref(&before));
    assert_eq!(bench.chain.held(), Some(9));
    assert_eq!(bench.reads(), [vec![9]], "it is renewed at once");
    bench.input(Input::Value { slot: 9, value: before.1 });
    bench.input(Input::ReadEnded { slot: 9, answered: 20 });
    let (slot, _, cas) = bench.put().expect("the renewal");
    assert_eq!((slot, cas), (9, Some(5)));
}

#[test]
fn of_two_own_slots_the_older_gets_a_tombstone() {
    let mut bench = Bench::new();
    let values = [live(ME, 3, 5), live(ME, 9, 6)];
    bench.round(&values);
    let (slot, value, cas) = bench.put().expect("a tombstone");
    assert_eq!((slot, cas, bench.chain.held()), (3, Some(5), Some(9)));
    assert!(record::parse(&keys(), 3, &value).expect("a record").lease.is_tombstone());
    bench.input(Input::PutOk { slot, seq: value.seq });
    assert_eq!(bench.chain.held(), Some(9));
    assert_eq!(bench.state(3), SlotState::Left);
}

/// Calm nodes read once an hour: nobody may be kept from a slot for so long.
#[test]
fn a_second_slot_is_left_soon_though_the_minute_is_spent_and_a_tombstone_is_refused() {
    let mut bench = Bench::new();
    bench.input(Input::Situation(situation(ME, PEERS_ENOUGH)));
    bench.chain.pace = Pace::default();
    for _ in 0..6 {
        bench.chain.pace.after_read(PEERS_ENOUGH);
    }
    bench.chain.writes_ms = [Some(0); WRITES_MAX];
    let values = [live(ME, 3, 5), live(ME, 9, 6)];
    assert!(bench.round(&values).put().is_none(), "three writes a minute are enough");
    bench.input(Input::ReadEnded { slot: 9, answered: 20 });
    bench.chain.held.as_mut().expect("held").postpone(u64::MAX);
    bench.pass(60_001).take();
    let (slot, value, _) = bench.round(&values).put().expect("a tombstone");
    assert_eq!((slot, bench.mono_ms), (3, 60_001));
    bench.input(Input::PutFailed { slot, seq: value.seq, refused: true });
    bench.pass(30_001).take();
    let (slot, ..) = bench.round(&values).put().expect("another");
    assert_eq!((slot, bench.mono_ms), (3, 90_002));
}

#[test]
fn leaving_writes_a_tombstone_over_the_own_value_and_ends() {
    let (mut bench, slot, value) = Bench::claimed();
    let (left, tombstone, cas) = bench.input(Input::Leave).put().expect("a tombstone");
    assert_eq!((left, cas), (slot, Some(value.seq)));
    assert!(tombstone.seq > value.seq);
    let record = record::parse(&keys(), slot, &tombstone).expect("a record");
    assert!(record.lease.is_tombstone() && record.addresses.is_empty());
    bench.input(Input::PutOk { slot, seq: tombstone.seq });
    assert!(matches!(bench.take().as_slice(), [Effect::Over]));
    bench.pass(600_000);
    assert!(bench.take().is_empty());
}

#[test]
fn leaving_without_a_slot_ends_at_once_and_with_a_dead_dht_soon() {
    let mut bench = Bench::new();
    bench.take();
    bench.input(Input::Leave);
    assert!(matches!(bench.take().as_slice(), [Effect::Over]));
    let (mut bench, ..) = Bench::claimed();
    bench.input(Input::Leave);
    bench.take();
    bench.pass(ANSWER_MS_MAX);
    assert!(bench.take().iter().any(|effect| matches!(effect, Effect::Over)));
}

#[test]
fn leaving_while_a_claim_is_on_its_way_withdraws_that() {
    let mut bench = Bench::new();
    let (slot, value, _) = bench.round(&[]).put().expect("an empty chain");
    let (left, tombstone, cas) = bench.input(Input::Leave).put().expect("a tombstone");
    assert_eq!((left, cas), (slot, Some(value.seq)));
    assert!(tombstone.seq > value.seq);
}

#[test]
fn a_read_that_never_ends_is_given_up() {
    let mut bench = Bench::new();
    bench.take();
    bench.pass(ANSWER_MS_MAX + 10_000);
    assert!(!bench.reads().is_empty());
}

#[test]
fn the_last_peer_lost_is_followed_by_a_read_within_two_seconds() {
    let (mut bench, slot, value) = Bench::claimed();
    bench.input(Input::Situation(situation(ME, 3)));
    bench.next_round(&[(slot, value)]).take();
    bench.input(Input::Situation(situation(ME, 0)));
    bench.pass(2_000);
    assert_eq!(bench.reads().len(), 1);
}

#[test]
fn strange_inputs_change_nothing() {
    let mut bench = Bench::new();
    bench.take();
    bench.input(Input::Value { slot: 16, value: live(OTHER, 5, 1).1 });
    bench.input(Input::ReadEnded { slot: 255, answered: 1 });
    bench.input(Input::PutOk { slot: 3, seq: 1 });
    bench.input(Input::PutFailed { slot: 3, seq: 1, refused: true });
    assert!(bench.take().is_empty());
}

#[test]
fn many_values_under_one_key_are_bounded_and_the_highest_decides() {
    let mut bench = Bench::new();
    for seq in 0..500 {
        bench.input(Input::Value { slot: 5, value: junk(5, seq).1 });
    }
    bench.round(&[]);
    assert_eq!(bench.chain.board(5).values().len(), 16);
    assert_eq!(bench.chain.top(5).map(|top| top.seq), Some(499));
    assert_eq!(bench.chain.board(5).seq_max, Some(499));
}

#[test]
fn nodes_that_start_together_end_connected_in_distinct_slots() {
    for (nodes, seeds, within_ms) in [(2, 30, 5_000), (10, 15, 8_000), (35, 8, 12_000)] {
        for seed in 0..seeds {
            let mut world = World::new(seed, nodes);
            let at_ms = world.run_until_so(within_ms, |world| world.components() == 1);
            assert!(at_ms.is_some(), "seed {seed}: {nodes} nodes, {} groups", world.components());
            world.run_until(300_000);
            let mut held = world.held();
            let holders = held.len();
            assert!(holders >= usize::from(nodes).min(LIVE_ENOUGH), "seed {seed}: {held:?}");
            held.dedup();
            assert_eq!(held.len(), holders, "seed {seed}: one slot, two holders");
            for node in 0..usize::from(nodes) {
                let puts = world.puts(node, 0);
                assert!(puts <= 6, "seed {seed}: node {node} wrote {puts} times");
            }
        }
    }
}

#[test]
fn a_newcomer_meets_a_living_node_behind_fifteen_dead_ones() {
    for seed in 0..5 {
        let mut world = World::new(seed, 0);
        for node in 1..=12 {
            let at = world.join(node, 0);
            world.run_until(world.now_ms + 3_000);
            world.kill(at);
        }
        let survivor = world.join(100, 0);
        world.run_until(world.now_ms + 90_000);
        assert!(world.chain(survivor).held().is_some(), "seed {seed}: it took a slot");
        let newcomer = world.join(101, 0);
        let joined_ms = world.now_ms;
        let met_ms = world.run_until_so(joined_ms + 2_000, |world| world.peers(newcomer) > 0);
        assert!(met_ms.is_some(), "seed {seed}");
    }
}

#[test]
fn two_newcomers_meet_though_all_sixteen_slots_are_leased_to_the_dead() {
    for seed in 0..5 {
        let mut world = World::new(seed, 0);
        // One after the other, so that each finds the former's lease and takes another slot.
        for node in 1..=16 {
            world.fill(node, node - 1);
        }
        let (a, b) = (world.join(100, 0), world.join(101, 100));
        let met_ms = world.run_until_so(50_000, |world| world.peers(a) > 0 && world.peers(b) > 0);
        assert!(met_ms.is_some(), "seed {seed}");
    }
}

#[test]
fn when_all_holders_die_a_newcomer_is_connected_and_slots_are_taken_anew() {
    for seed in 0..20 {
        let mut world = World::new(seed, 20);
        world.run_until(120_000);
        let holders: Vec<usize> =
            (0..20).filter(|&node| world.chain(node).held().is_some()).collect();
        assert!((LIVE_ENOUGH..=16).contains(&holders.len()), "seed {seed}: {holders:?}");
        for node in holders {
            world.kill(node);
        }
        let newcomer = world.join(100, 0);
        let met_ms = world.run_until_so(165_000, |world| world.peers(newcomer) > 0);
        assert!(met_ms.is_some(), "seed {seed}: nobody was met");
        let taken_ms = world.run_until_so(210_000, |world| world.held().len() >= 4);
        assert!(taken_ms.is_some(), "seed {seed}: {:?} are held", world.held());
    }
}

/// Eight leases of nodes that were never there look like enough, until their holders are dialed.
#[test]
fn holders_that_answer_no_dial_keep_nobody_from_taking_a_slot() {
    let mut bench = Bench::new();
    let values: Vec<_> = (0..8).map(|slot| live(100 + slot, slot, 1)).collect();
    assert!(bench.round(&values).put().is_none());
    bench.input(Input::DialFailed(node_id(100)));
    let slot = bench.next_put(&values);
    assert!(slot >= 8, "slot {slot} is another's, and one failed dial kills nobody");
    assert!(bench.mono_ms < 5_000, "{} ms", bench.mono_ms);
}

#[test]
fn when_all_holders_die_leases_of_nobody_delay_no_newcomer() {
    let mut longest_ms = 0;
    for seed in 0..20 {
        let mut world = World::new(seed, 20);
        world.run_until(120_000);
        let held = |world: &World, node: &usize| world.chain(*node).held().is_some();
        let holders: Vec<usize> = (0..20).filter(|node| held(&world, node)).collect();
        holders.into_iter().for_each(|node| world.kill(node));
        world.fill_empty();
        let newcomer = world.join(100, 0);
        let met_ms = world.run_until_so(165_000, |world| world.peers(newcomer) > 0);
        longest_ms = longest_ms.max(met_ms.expect("somebody is met") - 120_000);
    }
    assert!(longest_ms < 30_000, "{longest_ms} ms");
}

#[test]
fn a_steady_node_stays_under_thirty_lookups_and_three_puts_an_hour() {
    for nodes in [2, 10] {
        let mut world = World::new(7, nodes);
        let hour_ms = 3_600_000;
        world.run_until(6 * hour_ms);
        let before: Vec<usize> = (0..usize::from(nodes)).map(|node| world.reads(node)).collect();
        world.run_until(16 * hour_ms);
        for (node, before) in before.into_iter().enumerate() {
            let lookups = world.reads(node) - before;
            let puts = world.puts(node, 6 * hour_ms);
            assert!(lookups <= 300, "{nodes}: node {node} read {lookups} times in ten hours");
            assert!(puts <= 30, "{nodes}: node {node} wrote {puts} times in ten hours");
            assert!(world.chain(node).held().is_none() || puts >= 15, "{nodes}: it renews");
        }
    }
}

#[test]
fn a_slot_that_was_left_is_free_for_the_next() {
    let mut world = World::new(3, 1);
    world.run_until(10_000);
    assert_eq!(world.held().len(), 1);
    let slot = world.held()[0];
    world.leave(0);
    world.run_until(12_000);
    let newcomer = world.join(50, 0);
    world.run_until(20_000);
    assert!(world.chain(newcomer).held().is_some());
    let status = world.chain(newcomer).slots(world.now());
    let state = status[usize::from(slot)].state;
    assert!(matches!(state, SlotState::Left | SlotState::Mine), "{state:?}");
}

/// `slots` says of each holder how the last dial ended, whatever became of its lease since.
#[test]
fn a_slot_tells_how_the_last_dial_of_its_holder_ended() {
    let mut bench = Bench::new();
    let held = (3, value_at(OTHER, 3, 1, WALL_S, WALL_S + 3600));
    bench.round(std::slice::from_ref(&held));
    let told = |bench: &Bench| {
        let slots = bench.chain.slots(bench.now());
        (slots[3].last_dial, slots[4].last_dial)
    };
    assert_eq!(told(&bench), (None, None));
    bench.take();
    bench.input(Input::DialFailed(node_id(OTHER)));
    let failed = LastDial { at_ms: bench.now().wall_ms, end: DialEnd::Failed };
    assert_eq!(told(&bench), (Some(failed), None));
    assert!(bench.take().iter().any(|effect| matches!(effect, Effect::HolderDialed)));
    bench.pass(1_000).input(Input::SessionUp(node_id(OTHER)));
    let ok = LastDial { at_ms: bench.now().wall_ms, end: DialEnd::Ok };
    assert_eq!(told(&bench), (Some(ok), None));
    bench.take();
    bench.input(Input::SessionUp(node_id(7)));
    assert!(!bench.take().iter().any(|effect| matches!(effect, Effect::HolderDialed)));
}

#[test]
fn a_value_in_the_way_is_one_conflict_whether_a_put_is_refused_for_it_or_a_read_shows_it() {
    let mut bench = Bench::new();
    let (slot, value, _) = bench.round(&[]).put().expect("an empty chain");
    let theirs = value_at(OTHER, slot, value.seq, WALL_S, WALL_S + 3600);
    bench.input(Input::PutFailed { slot, seq: value.seq, refused: true });
    bench.input(Input::Value { slot, value: theirs.clone() });
    bench.input(Input::ReadEnded { slot, answered: 20 });
    assert_eq!((bench.chain.held(), bench.chain.conflicts()), (None, 1));

    // Nobody refused it, and it was lost all the same.
    let (mut bench, slot, value) = Bench::claimed();
    assert_eq!(bench.chain.conflicts(), 0);
    let theirs = value_at(OTHER, slot, value.seq + 1, WALL_S, WALL_S + 3600);
    bench.next_round(&[(slot, theirs)]);
    assert_eq!((bench.chain.held(), bench.chain.conflicts()), (None, 1));
}
