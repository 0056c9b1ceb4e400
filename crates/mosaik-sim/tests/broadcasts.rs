//! Islands whose nodes broadcast what is new: what that saves, and that all meet whatever is lost.

use mosaik_reticulum::airtime::{Channel, HOUR_MS};
use mosaik_sim::radio::{
    Island, Setup, cases,
    hours::{self, Load},
};

const SF8: u32 = 3_125;

fn setup(nodes: usize, seed: u64) -> Setup {
    Setup::pair(Channel::of_bitrate(SF8), SF8, seed).with_nodes(nodes, true)
}

#[test]
fn an_event_costs_half_of_what_links_cost_and_is_there_sooner() {
    for nodes in [5, 9] {
        let one = |broadcasts| {
            let setup = setup(nodes, 7).with_nodes(nodes, broadcasts);
            cases::one_in_turn(&setup).expect("neighbours")
        };
        let (links, broadcasts) = (one(false), one(true));
        assert!(broadcasts.bytes * 2 < links.bytes, "{nodes}: {links:?} {broadcasts:?}");
        assert!(broadcasts.took_ms < links.took_ms, "{nodes}: {links:?} {broadcasts:?}");
    }
}

/// Where nothing is lost each event is said once, and no link carries it.
#[test]
fn nothing_is_doubled() {
    let mut island = Island::new(&setup(6, 3));
    (0..6).for_each(|node| island.write(node, 1, 100));
    assert!(island.converge(HOUR_MS).is_some());
    island.run(HOUR_MS / 12);
    let before = island.used();
    for node in 0..6 {
        island.write(node, 1, 100);
        island.run(90_000);
        assert!(island.is_equal(), "{:?}", island.used());
    }
    let used = island.used();
    let more = |kind| {
        let packets = |used: &std::collections::BTreeMap<_, mosaik_sim::radio::Used>| {
            used.get(kind).map_or(0, |it| it.packets)
        };
        packets(&used) - packets(&before)
    };
    assert_eq!(more("broadcast, event"), 6, "{used:?}");
    assert_eq!((more("data"), more("resource part")), (0, 0), "{before:?} {used:?}");
}

/// In a row, too, where some never hear each other; and where some don't broadcast.
#[test]
fn islands_converge_whatever_they_lose_and_whoever_hears_whom() {
    for seed in 0..12 {
        let loss = [0, 100, 200][seed as usize % 3];
        let nodes = 3 + (seed as usize * 5) % 8;
        let deaf = match seed % 4 {
            0 => (0..nodes).flat_map(|a| (a + 2..nodes).map(move |b| (a, b))).collect(),
            _ => Vec::new(),
        };
        let mut setup = Setup { loss, deaf, ..setup(nodes, seed) };
        if seed % 4 == 1 {
            setup.broadcasting.retain(|node| node % 3 > 0);
        }
        let mut island = Island::new(&setup);
        (0..nodes).for_each(|node| island.write(node, 1 + node % 3, 60));
        assert!(island.converge(12 * HOUR_MS).is_some(), "seed {seed}: {:?}", island.used());
        for round in 0..6 {
            island.write((seed as usize + round * 3) % nodes, 1, 80);
            island.run(20_000);
        }
        let from_ms = island.now_ms();
        let done_ms = island.converge(12 * HOUR_MS);
        assert!(done_ms.is_some(), "seed {seed}: {:?}", island.used());
        let took_ms = done_ms.unwrap_or(0) - from_ms;
        assert!(took_ms <= HOUR_MS, "seed {seed}: {took_ms} {:?}", island.used());
    }
}

#[test]
fn whoever_broadcasts_nonsense_makes_nobody_send_more_than_its_share() {
    let share = 10;
    let setup = Setup { nodes: 3, share, is_flooded: true, ..setup(3, 1) };
    let hour = hours::busiest(&setup, Load::Idle).expect("something comes through");
    let air_ms = hours::air_ms(&hour);
    assert!(air_ms <= HOUR_MS / 1000 * u64::from(share), "{air_ms}: {hour:?}");
}

#[test]
fn whoever_broadcasts_nonsense_is_heard_by_nobody() {
    // Each holds its own and the others' events, once, and nothing else.
    let mut island = Island::new(&Setup { is_flooded: true, ..setup(4, 5) });
    (0..4).for_each(|node| island.write(node, 2, 60));
    island.run(HOUR_MS);
    (0..4).for_each(|node| island.write(node, 1, 60));
    island.run(HOUR_MS);
    for (node, of) in (0..4).flat_map(|node| (0..4).map(move |of| (node, of))) {
        assert_eq!((island.held(node, of), island.branches(node, of)), (3, 1), "{node} {of}");
    }
}

#[test]
fn two_bridges_bring_in_hardly_more_than_one() {
    let seeds = 12;
    let one = |seed| cases::crossings(SF8, seed, true).unwrap_or_else(|| panic!("seed {seed}"));
    let all: Vec<f64> = (0..seeds).map(one).collect();
    // One broadcast is for all four.
    assert!(all.iter().sum::<f64>() <= 0.7 * seeds as f64, "{all:?}");
}
