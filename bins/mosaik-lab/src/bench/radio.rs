//! `bench radio`: what a sync costs on air.
//!
//! The nodes' own code on a simulated channel, with airtime by the modem's formula: the same on every
//! machine. And two real ones over TCP, which is as fast as this machine.

mod tcp;

use anyhow::{Context, Result};
use mosaik_reticulum::airtime::{Channel, HOUR_MS};
use mosaik_sim::radio::{
    Setup, cases,
    hours::{self, Load},
};

use super::{Run, figure::Figure};

/// Seeds of each case, of which the worst counts.
const SEEDS: u64 = 20;
/// Chance makes single ones of these up to 2.5: fewer seeds would say little.
const CROSSING_SEEDS: u64 = 60;
/// The same of hours, which take longer.
const HOUR_SEEDS: u64 = 4;
/// The same of a new event at each of many nodes.
const TURN_SEEDS: u64 = 8;
/// Bits a second of a slow line, and of LoRa at 125 kHz and 4/5.
const LINE: u32 = 1_200;
const SF8: u32 = 3_125;
const SF10: u32 = 977;

pub(super) async fn all(run: &mut Run) -> Result<()> {
    tcp::all(run).await?;
    let line = history(LINE, 0)?;
    run.report.add_all(&[
        figure("100 events 1200 bit/s", "bytes_an_event", line.bytes / 100, "B").at_most(140.0),
        figure("100 events 1200 bit/s", "took_ms", line.took_ms, "ms").at_most(100_000.0),
    ]);
    let sf8 = history(SF8, 0)?;
    run.report.add_all(&[figure("100 events SF8", "air_ms", sf8.air_ms, "ms").at_most(45_000.0)]);
    let lossy = history(SF8, 100)?;
    let more = lossy.air_ms as f64 / sf8.air_ms as f64;
    let more = Figure::new("radio", "100 events SF8, 10 % lost", "air_ratio", more, "");
    run.report.add_all(&[more.at_most(1.2)]);
    let sf10 = history(SF10, 0)?;
    run.report
        .add_all(&[figure("100 events SF10", "air_ms", sf10.air_ms, "ms").at_most(150_000.0)]);
    let bytes = worst(|seed| cases::one_event(&pair(SF8, seed)))?;
    run.report.add_all(&[figure("one event, linked", "bytes", bytes, "B").at_most(350.0)]);
    let took_ms = worst(|seed| cases::one_each(&Setup { nodes: 5, ..pair(SF8, seed) }))?;
    run.report
        .add_all(&[figure("5 nodes, 1 event each", "took_ms", took_ms, "ms").at_most(60_000.0)]);
    for (nodes, percent) in [(2, 0.5), (5, 1.5)] {
        let air_ms = cases::idle(&Setup { nodes, ..pair(SF8, 1) }).context(UNMET)?;
        let share = 100.0 * air_ms as f64 / HOUR_MS as f64;
        let idle =
            Figure::new("radio", format!("{nodes} idle nodes SF8"), "air_percent", share, "%");
        run.report.add_all(&[idle.at_most(percent)]);
    }
    for nodes in [5, 9] {
        one_in_turn(run, nodes)?;
    }
    let crossings: Option<Vec<f64>> =
        (0..CROSSING_SEEDS).map(|seed| cases::crossings(SF8, seed, false)).collect();
    let crossings = crossings.context(UNMET)?.iter().sum::<f64>() / CROSSING_SEEDS as f64;
    let case = "2 bridges, an event from outside";
    run.report.add_all(&[Figure::new("radio", case, "crossings", crossings, "").at_most(1.2)]);
    for share in [10, 100] {
        hours(run, share, "idle", Load::Idle, false)?;
        hours(run, share, "too much to say", Load::TooMuch, false)?;
        hours(run, share, "the same, flooded", Load::TooMuch, true)?;
    }
    Ok(())
}

/// A new event at each of some linked nodes in turn, by links and by broadcast: the mean of some seeds.
fn one_in_turn(run: &mut Run, nodes: usize) -> Result<()> {
    for (way, broadcasts) in [("links", false), ("broadcast", true)] {
        for (lost, loss) in [("", 0), (", 10 % lost", 100)] {
            let one = |seed| {
                let setup = Setup { loss, ..pair(SF8, seed).with_nodes(nodes, broadcasts) };
                cases::one_in_turn(&setup)
            };
            let all: Option<Vec<cases::Synced>> = (0..TURN_SEEDS).map(one).collect();
            let all = all.context(UNMET)?;
            let mean =
                |of: fn(&cases::Synced) -> u64| all.iter().map(of).sum::<u64>() / all.len() as u64;
            let case = format!("{nodes} nodes SF8, an event by {way}{lost}");
            run.report.add_all(&[
                figure(&case, "bytes", mean(|it| it.bytes), "B"),
                figure(&case, "air_ms", mean(|it| it.air_ms), "ms"),
                figure(&case, "took_ms", mean(|it| it.took_ms), "ms"),
            ]);
        }
    }
    Ok(())
}

/// What of three nodes at SF8 the one that sends most has in its busiest hour, by kind: the worst of some
/// seeds. The share of an hour is in thousandths.
fn hours(run: &mut Run, share: u32, name: &str, load: Load, is_flooded: bool) -> Result<()> {
    let hour =
        |seed| hours::busiest(&Setup { nodes: 3, share, is_flooded, ..pair(SF8, seed) }, load);
    let all: Option<Vec<_>> = (0..HOUR_SEEDS).map(hour).collect();
    let worst = all.context(UNMET)?.into_iter().max_by_key(hours::air_ms).context(UNMET)?;
    let case = format!("{} % of SF8, {name}", share / 10);
    let all_ms = figure(&case, "busiest_hour_ms", hours::air_ms(&worst), "ms");
    run.report.add_all(&[all_ms.at_most(f64::from(share) / 1000.0 * HOUR_MS as f64)]);
    for (kind, used) in worst {
        run.report.add_all(&[figure(&format!("{case}: {kind}"), "air_ms", used.air_ms, "ms")]);
    }
    Ok(())
}

const UNMET: &str = "the nodes did not agree within twelve simulated hours";

fn pair(bitrate: u32, seed: u64) -> Setup {
    Setup::pair(Channel::of_bitrate(bitrate), bitrate, seed)
}

fn worst(case: impl Fn(u64) -> Option<u64>) -> Result<u64> {
    let all: Option<Vec<u64>> = (0..SEEDS).map(case).collect();
    Ok(all.context(UNMET)?.into_iter().max().unwrap_or(0))
}

/// A hundred events of 100 random bytes, the worst of all seeds in each respect.
fn history(bitrate: u32, loss: u32) -> Result<cases::Synced> {
    let one = |seed| cases::history(&Setup { loss, ..pair(bitrate, seed) }, 100);
    let all: Option<Vec<cases::Synced>> = (0..SEEDS).map(one).collect();
    let all = all.context(UNMET)?;
    let most = |of: fn(&cases::Synced) -> u64| all.iter().map(of).max().unwrap_or(0);
    Ok(cases::Synced {
        took_ms: most(|it| it.took_ms),
        air_ms: most(|it| it.air_ms),
        bytes: most(|it| it.bytes),
    })
}

fn figure(case: &str, metric: &'static str, value: u64, unit: &'static str) -> Figure {
    Figure::new("radio", case, metric, value as f64, unit)
}
