//! Islands: what a sync costs on air, and whether all meet, on channels as they are.

use mosaik_reticulum::airtime::{Channel, HOUR_MS, Lora};
use mosaik_sim::radio::{Island, Setup};

/// Seeds of each case: chance moves figures by some percent.
const SEEDS: u64 = 5;

fn lora(spreading_factor: u8) -> (Channel, u32) {
    let bits = match spreading_factor {
        8 => 3_125,
        _ => 977,
    };
    (Channel::Lora(Lora { spreading_factor, bandwidth: 125_000, coding_rate: 5 }), bits)
}

fn pair((channel, bitrate): (Channel, u32), seed: u64) -> Setup {
    Setup::pair(channel, bitrate, seed)
}

/// Two nodes, one of which holds 100 events of 100 random bytes: (milliseconds until both do,
/// milliseconds on air, bytes on air), the worst of some seeds.
fn hundred(setup: impl Fn(u64) -> Setup) -> (u64, u64, u64) {
    let one = |seed| {
        let mut island = Island::new(&setup(seed));
        island.write(0, 100, 100);
        let took_ms = island.converge(2 * HOUR_MS);
        let used = island.on_air();
        let took_ms = took_ms.unwrap_or_else(|| panic!("seed {seed}: {:?}", island.used()));
        (took_ms, used.air_ms, used.bytes)
    };
    let all: Vec<_> = (0..SEEDS).map(one).collect();
    let most = |of: fn(&(u64, u64, u64)) -> u64| all.iter().map(of).max().unwrap_or(0);
    (most(|it| it.0), most(|it| it.1), most(|it| it.2))
}

#[test]
fn a_hundred_events_cost_little_more_than_themselves() {
    let (took_ms, _, bytes) = hundred(|seed| pair((Channel::Bits(1_200), 1_200), seed));
    assert!(bytes / 100 <= 140, "{bytes}");
    assert!(took_ms <= 100_000, "{took_ms}");
    let (_, air_ms, _) = hundred(|seed| pair(lora(8), seed));
    assert!(air_ms <= 45_000, "{air_ms}");
    let (_, air_ms, _) = hundred(|seed| pair(lora(10), seed));
    assert!(air_ms <= 150_000, "{air_ms}");
}

#[test]
fn what_is_lost_costs_about_as_much_again() {
    let (_, whole_ms, _) = hundred(|seed| pair(lora(8), seed));
    let (_, lossy_ms, _) = hundred(|seed| Setup { loss: 100, ..pair(lora(8), seed) });
    assert!(lossy_ms <= whole_ms * 3 / 2, "{whole_ms} {lossy_ms}");
}

#[test]
fn one_event_on_an_open_link_is_two_packets() {
    let mut island = Island::new(&pair(lora(8), 1));
    island.write(0, 1, 100);
    island.write(1, 1, 100);
    island.converge(HOUR_MS).expect("two neighbours meet");
    island.run(60_000);
    let before = island.on_air().bytes;
    island.write(0, 1, 100);
    island.converge(HOUR_MS).expect("they are linked");
    island.run(30_000);
    let bytes = island.on_air().bytes - before;
    assert!(bytes <= 350, "{bytes} {:?}", island.used());
}

#[test]
fn five_nodes_with_an_event_each_agree_within_a_minute() {
    for seed in 0..10 {
        let setup = Setup { nodes: 5, ..pair(lora(8), seed) };
        let mut island = Island::new(&setup);
        (0..5).for_each(|node| island.write(node, 1, 100));
        let took_ms = island.converge(HOUR_MS);
        assert!(took_ms.is_some_and(|ms| ms <= 60_000), "seed {seed}: {took_ms:?}");
    }
}

#[test]
fn who_has_nothing_to_say_says_little() {
    for (nodes, share) in [(2, 5), (5, 15)] {
        let mut island = Island::new(&Setup { nodes, ..pair(lora(8), 3) });
        (0..nodes).for_each(|node| island.write(node, 1, 100));
        island.converge(HOUR_MS).expect("neighbours");
        island.run(HOUR_MS);
        let before_ms = island.on_air().air_ms;
        island.run(6 * HOUR_MS);
        let air_ms = island.on_air().air_ms - before_ms;
        assert!(air_ms <= 6 * HOUR_MS / 1000 * share, "{nodes}: {air_ms}");
    }
}

#[test]
fn islands_converge_whatever_they_lose_and_whoever_hears_whom() {
    for seed in 0..12 {
        let nodes = 2 + (seed as usize * 7) % 11;
        // In a row, so that some never hear each other.
        let deaf = match seed % 3 {
            0 => (0..nodes).flat_map(|a| (a + 2..nodes).map(move |b| (a, b))).collect(),
            _ => Vec::new(),
        };
        let loss = [0, 100, 200][seed as usize % 3];
        let setup = Setup { nodes, loss, deaf, ..pair(lora(8), seed) };
        let mut island = Island::new(&setup);
        (0..nodes).for_each(|node| island.write(node, 1 + node % 4, 60));
        let took_ms = island.converge(12 * HOUR_MS);
        assert!(took_ms.is_some(), "seed {seed}: {:?}", island.used());
    }
}

#[test]
fn nobody_sends_more_than_its_share_of_any_hour() {
    let mut island = Island::new(&Setup { share: 10, ..pair(lora(8), 4) });
    island.write(0, 200, 100);
    island.write(1, 50, 100);
    island.run(5 * HOUR_MS);
    let busiest_ms = island.busiest_hour_ms();
    assert!(busiest_ms <= HOUR_MS / 100, "{busiest_ms}");
    assert!(island.held(1, 0) > 0, "what fits goes");
}
