//! Islands: what a sync costs on air, and whether all meet, on channels as they are.

use mosaik_core::id::BlobId;
use mosaik_proto::replica::Progress;
use mosaik_reticulum::airtime::{Channel, HOUR_MS};
use mosaik_sim::radio::{
    Island, Setup,
    cases::{self, Synced},
    hours::{self, Load},
};

/// Seeds of each case: chance moves figures by some percent.
const SEEDS: u64 = 5;
/// Bits a second at SF8 and SF10.
const SF8: u32 = 3_125;
const SF10: u32 = 977;
const SF12: u32 = 292;

fn pair(bitrate: u32, seed: u64) -> Setup {
    Setup::pair(Channel::of_bitrate(bitrate), bitrate, seed)
}

/// A hundred events from one to another: the worst of some seeds.
fn hundred(setup: impl Fn(u64) -> Setup) -> Synced {
    let one = |seed| cases::history(&setup(seed), 100).unwrap_or_else(|| panic!("seed {seed}"));
    (0..SEEDS).map(one).fold(Synced { took_ms: 0, air_ms: 0, bytes: 0 }, |most, it| Synced {
        took_ms: most.took_ms.max(it.took_ms),
        air_ms: most.air_ms.max(it.air_ms),
        bytes: most.bytes.max(it.bytes),
    })
}

#[test]
fn a_hundred_events_cost_little_more_than_themselves() {
    let serial = hundred(|seed| pair(1_200, seed));
    assert!(serial.bytes / 100 <= 140 && serial.took_ms <= 100_000, "{serial:?}");
    let sf8 = hundred(|seed| pair(SF8, seed));
    assert!(sf8.air_ms <= 45_000, "{sf8:?}");
    let sf10 = hundred(|seed| pair(SF10, seed));
    assert!(sf10.air_ms <= 150_000, "{sf10:?}");
}

/// Where a packet takes 18 seconds, sessions break before what a run of the usual length takes.
#[test]
fn history_comes_on_the_slowest_channel_too() {
    for seed in 0..3 {
        let mut island = Island::new(&pair(SF12, seed));
        island.write(0, 120, 100);
        assert!(island.converge(HOUR_MS).is_some(), "seed {seed}: {:?}", island.used());
    }
}

#[test]
fn where_a_tenth_is_lost_a_fifth_more_goes() {
    let whole = hundred(|seed| pair(SF8, seed));
    let lossy = hundred(|seed| Setup { loss: 100, ..pair(SF8, seed) });
    assert!(lossy.air_ms <= whole.air_ms * 6 / 5, "{whole:?} {lossy:?}");
}

#[test]
fn one_event_on_an_open_link_is_two_packets() {
    let bytes = cases::one_event(&pair(SF8, 1)).expect("two neighbours meet");
    assert!(bytes <= 350, "{bytes}");
}

#[test]
fn five_nodes_with_an_event_each_agree_within_a_minute() {
    for seed in 0..20 {
        let took_ms = cases::one_each(&Setup { nodes: 5, ..pair(SF8, seed) });
        assert!(took_ms.is_some_and(|ms| ms <= 60_000), "seed {seed}: {took_ms:?}");
    }
}

#[test]
fn who_has_nothing_to_say_says_little() {
    for (nodes, share) in [(2, 5), (5, 15)] {
        let air_ms = cases::idle(&Setup { nodes, ..pair(SF8, 3) }).expect("neighbours");
        assert!(air_ms <= HOUR_MS / 1000 * share, "{nodes}: {air_ms}");
    }
}

#[test]
fn islands_converge_whatever_they_lose_and_whoever_hears_whom() {
    for seed in 0..12 {
        let loss = [0, 100, 200][seed as usize % 3];
        // The largest islands only where all is heard: where much is lost they take hours of their time.
        let most = if loss == 0 { 30 } else { 12 };
        let nodes = 2 + (seed as usize * 7) % (most - 1);
        // In a row, so that some never hear each other.
        let deaf = match seed % 3 {
            0 => (0..nodes).flat_map(|a| (a + 2..nodes).map(move |b| (a, b))).collect(),
            _ => Vec::new(),
        };
        let mut island = Island::new(&Setup { nodes, loss, deaf, ..pair(SF8, seed) });
        (0..nodes).for_each(|node| island.write(node, 1 + node % 4, 60));
        assert!(island.converge(12 * HOUR_MS).is_some(), "seed {seed}: {:?}", island.used());
    }
}

/// Links are closed when all is said; what is announced tells that nothing has come since.
#[test]
fn who_hears_that_others_hold_the_same_is_in_sync_without_a_link() {
    let mut island = Island::new(&pair(SF8, 5));
    assert_eq!(island.progress(1), (Progress::Isolated, 0));
    for round in 1..=2 {
        island.write(0, 1, 60);
        island.run(1);
        assert_ne!(island.progress(0).0, Progress::InSync, "round {round}: nobody has it yet");
        assert!(island.converge(HOUR_MS).is_some(), "{:?}", island.used());
        island.run(HOUR_MS);
        for node in 0..2 {
            assert_eq!(island.progress(node), (Progress::InSync, 0), "round {round}");
        }
    }
}

/// Within the Resource that is under way, once its writer has a link.
#[test]
fn what_is_new_overtakes_what_is_old() {
    let mut tried = 0;
    for seed in 0..12 {
        let mut island = Island::new(&Setup { nodes: 3, ..pair(SF8, seed) });
        let old = 1_500;
        island.write(0, old, 100);
        while island.held(1, 0) == 0 || island.progress(2).1 == 0 {
            assert!(island.now_ms() < HOUR_MS, "seed {seed}: {:?}", island.used());
            island.run(1_000);
        }
        let before = island.held(1, 0);
        island.write(2, 1, 100);
        while island.held(1, 2) == 0 {
            island.run(1_000);
        }
        // It may have got no link before all was said.
        if before < old as u64 {
            assert!(island.held(1, 0) < old as u64, "seed {seed}: all that is old came first");
            tried += 1;
        }
    }
    assert!(tried >= 6, "{tried}");
}

/// Who lost its disk and writes before its own feed has come back uses places in it twice. Both branches go
/// everywhere, and when all have them nobody sends any of it again.
#[test]
fn two_branches_of_one_author_end_equal_and_silent() {
    for seed in 0..4 {
        let mut island = Island::new(&Setup { nodes: 3, ..pair(SF8, seed) });
        island.write(0, 3, 60);
        assert!(island.converge(HOUR_MS).is_some(), "seed {seed}: before");
        island.lose_disk(0);
        island.write(0, 5, 60);
        assert!(island.converge(2 * HOUR_MS).is_some(), "seed {seed}: {:?}", island.used());
        for node in 0..3 {
            assert_eq!(island.branches(node, 0), 2, "seed {seed}");
        }
        island.run(HOUR_MS);
        let before = island.used();
        island.run(2 * HOUR_MS);
        let sent = |kind| island.used().get(kind).map(|used| used.packets);
        for kind in ["data", "resource part"] {
            let was = before.get(kind).map(|used| used.packets);
            assert_eq!(sent(kind), was, "seed {seed}: {kind}");
        }
    }
}

/// One percent and ten: whatever they have to say, and whoever asks for more.
#[test]
fn nobody_sends_more_than_its_share_of_any_hour() {
    let cases = [(Load::Idle, false), (Load::TooMuch, false), (Load::TooMuch, true)];
    for (share, (load, is_flooded)) in [10, 100].into_iter().flat_map(|it| cases.map(|of| (it, of)))
    {
        let setup = Setup { nodes: 3, share, is_flooded, ..pair(SF8, 4) };
        let hour = hours::busiest(&setup, load).expect("something comes through");
        let air_ms = hours::air_ms(&hour);
        assert!(air_ms <= HOUR_MS / 1000 * u64::from(share), "{air_ms}: {setup:?} {hour:?}");
        // Somebody who asks for more than that gets three quarters of it, and no more.
        assert!(!is_flooded || air_ms > HOUR_MS / 1500 * u64::from(share), "{air_ms}: {hour:?}");
    }
}

#[test]
fn two_bridges_bring_in_hardly_more_than_one() {
    // Chance makes single ones up to 2.5: fewer seeds would say little.
    let seeds = 60;
    let one = |seed| cases::crossings(SF8, seed, false).unwrap_or_else(|| panic!("seed {seed}"));
    let all: Vec<f64> = (0..seeds).map(one).collect();
    let mean = all.iter().sum::<f64>() / seeds as f64;
    assert!(mean <= 1.2, "{mean}: {all:?}");
}

/// Whoever may send for 36 s of an hour has a photo the next morning, and what is written meanwhile at once.
#[test]
fn a_file_comes_when_it_is_asked_for_within_the_share_and_news_overtake_it() {
    const PHOTO: BlobId = BlobId([4; 32]);
    const LEN: u64 = 40_000;
    for (share, loss, hours) in [(1000, 0, 1), (1000, 100, 1), (100, 0, 3), (10, 0, 24)] {
        let setup = Setup { share, loss, ..pair(SF8, 6) };
        let mut island = Island::new(&setup);
        island.write(0, 1, 100);
        island.converge(HOUR_MS).expect("one event comes through");
        island.add_file(0, PHOTO, LEN);
        // Both hold the same, and their link is closed.
        island.run(HOUR_MS);
        let unasked = island.on_air().bytes;
        assert!(unasked < LEN / 10, "{unasked} B unasked: {setup:?}");
        island.ask_for_file(1, PHOTO, LEN);
        let asked_ms = island.now_ms();
        let begins = |island: &Island| island.file_here(1, &PHOTO).is_some_and(|here| here > 0);
        island.until(hours * HOUR_MS, begins).expect("it begins");
        island.write(0, 1, 100);
        let written_ms = island.now_ms();
        let equal_ms = island.converge(HOUR_MS).expect("news come through");
        let here = island.file_here(1, &PHOTO);
        assert!(here.is_some_and(|here| here < LEN / 2), "{here:?} before the news: {setup:?}");
        let is_whole = |island: &Island| island.file_here(1, &PHOTO) == Some(LEN);
        let whole_ms = island.until(hours * HOUR_MS, is_whole).expect("all of it comes");
        let bytes = island.on_air().bytes - unasked;
        // With so little each packet goes by itself, and the link shows that it lives for half a day.
        let most = if share < 100 { LEN * 9 / 4 } else { LEN * 3 / 2 };
        assert!(bytes < most, "{bytes} B: {setup:?}");
        let air_ms = island.busiest_hour_ms();
        assert!(air_ms <= HOUR_MS / 1000 * u64::from(share), "{air_ms}: {setup:?}");
        let took = [equal_ms - written_ms, whole_ms - asked_ms].map(|ms| ms / 1000);
        assert!(took[0] < 600, "{took:?} s: {setup:?}");
    }
}

/// At SF12 a Resource of usual length is on air for longer than stacks wait for it.
#[test]
fn a_file_comes_on_the_slowest_channel() {
    const FILE: BlobId = BlobId([4; 32]);
    let mut island = Island::new(&pair(SF12, 7));
    island.write(0, 1, 100);
    island.converge(HOUR_MS).expect("one event comes through");
    island.add_file(0, FILE, 20_000);
    island.ask_for_file(1, FILE, 20_000);
    let is_whole = |island: &Island| island.file_here(1, &FILE) == Some(20_000);
    island.until(4 * HOUR_MS, is_whole).expect("all of it comes");
}
