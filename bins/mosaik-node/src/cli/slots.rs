//! `slots`: what stands in the 16 meeting points of a network, as the node saw them last.
//!
//! Invariant: nothing here waits for the DHT. The node reads the slots for itself; this shows what it
//! knows, and how old that is.

use std::{
    io::{self, IsTerminal},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mosaik_api::{
    client::Client,
    document::{Slot, Slots},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use super::{
    Failed, SlotList, SlotVerb,
    look::instant,
    nothing_before_the_verb,
    output::{named, note, plain, print, print_json, print_table, table},
};

/// How often the table on a terminal is drawn anew though no slot has changed: ages grow.
const REDRAW_EVERY: Duration = Duration::from_secs(5);

const HEADING: [&str; 7] = ["SLOT", "STATE", "HOLDER", "LEASE AGE", "LASTS", "ADDRESSES", "DIALED"];

/// Answers `slots` with all its verbs.
pub(super) async fn slots(
    client: &Client,
    list: SlotList,
    verb: Option<SlotVerb>,
    json: bool,
) -> Result<(), Failed> {
    let list = match verb {
        Some(SlotVerb::Show { slot }) => {
            nothing_before_the_verb(list == SlotList::default())?;
            return show(client, slot, json).await;
        }
        Some(SlotVerb::List(own)) => {
            nothing_before_the_verb(list == SlotList::default())?;
            own
        }
        None => list,
    };
    if list.watch {
        return watch(client, json).await;
    }
    let slots = client.slots().await?;
    if json {
        return print_json(&slots);
    }
    if slots.slots.is_empty() {
        note(NO_SLOTS);
        return Ok(());
    }
    print_table(HEADING, &rows(&slots, now_ms()))
}

const NO_SLOTS: &str = "the DHT is not used, so there are no slots";

async fn show(client: &Client, number: u8, json: bool) -> Result<(), Failed> {
    let mut slots = client.slots().await?;
    slots.slots.retain(|found| found.slot == number);
    if json {
        return print_json(&slots);
    }
    match slots.slots.first() {
        Some(slot) => lines(slot, now_ms()).iter().try_for_each(print),
        None => {
            note(NO_SLOTS);
            Ok(())
        }
    }
}

/// Shows the slots, and again whenever one has changed, until Ctrl-C or the node's end.
///
/// A terminal shows the present table; all else gets one block after the other, or with `json` one
/// document a line.
async fn watch(client: &Client, json: bool) -> Result<(), Failed> {
    let redraws = io::stdout().is_terminal() && !json;
    // Before the first line: whoever has read it may press the keys.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut stream = client.follow_slots().await?;
    let mut tick = interval(REDRAW_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shown: Option<Slots> = None;
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            next = stream.next() => match next? {
                Some(slots) => shown = Some(slots),
                None => {
                    note("the node has stopped");
                    return Ok(());
                }
            },
            _ = tick.tick(), if redraws && shown.is_some() => {}
        }
        let Some(slots) = &shown else { continue };
        if json {
            print(serde_json::to_string(slots).map_err(anyhow::Error::new)?)?;
            continue;
        }
        let now_ms = now_ms();
        let mut block = vec![instant(now_ms)];
        if slots.slots.is_empty() {
            block.push(NO_SLOTS.to_owned());
        } else {
            block.extend(table(HEADING, &rows(slots, now_ms)));
        }
        if redraws {
            // Over the last one rather than after a wiped screen: that flickers. ECMA-48: CUP, EL, ED.
            print(format!("\u{1b}[H{}\u{1b}[K\u{1b}[J", block.join("\u{1b}[K\n")))?;
        } else {
            print(format!("{}\n", block.join("\n")))?;
        }
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

fn rows(slots: &Slots, now_ms: u64) -> Vec<[String; 7]> {
    let row = |slot: &Slot| {
        [
            slot.slot.to_string(),
            slot.state.as_str().to_owned(),
            holder(slot).unwrap_or_default(),
            age(slot, now_ms).unwrap_or_default(),
            lasts(slot, now_ms).unwrap_or_default(),
            short_addresses(slot),
            dialed(slot, now_ms).unwrap_or_default(),
        ]
    };
    slots.slots.iter().map(row).collect()
}

/// One slot in full.
fn lines(slot: &Slot, now_ms: u64) -> Vec<String> {
    let lease = [slot.issued_ms, slot.expires_ms].map(|ms| ms.map(instant));
    let with = |at: Option<String>, span: Option<String>| Some(format!("{} ({})", at?, span?));
    let [issued, expires] = lease;
    let facts = [
        ("slot", Some(slot.slot.to_string())),
        ("state", Some(slot.state.as_str().to_owned())),
        ("reason", slot.reason.as_deref().map(plain)),
        ("holder", holder(slot)),
        ("node", slot.holder.clone()),
        ("issued", with(issued, age(slot, now_ms).map(|age| format!("{age} ago")))),
        ("expires", with(expires, lasts(slot, now_ms).map(|left| in_time(&left)))),
        ("addresses", Some(slot.addresses.join(", ")).filter(|text| !text.is_empty())),
        ("relays", Some(plain(&slot.relays.join(", "))).filter(|text| !text.is_empty())),
        ("dialed", dialed(slot, now_ms)),
    ];
    let line = |(name, value): (&str, Option<String>)| Some(format!("{name:<11}{}", value?));
    facts.into_iter().filter_map(line).collect()
}

fn holder(slot: &Slot) -> Option<String> {
    Some(named(slot.holder_name.as_deref().unwrap_or_default(), slot.holder.as_deref()?))
}

/// How old the lease is.
fn age(slot: &Slot, now_ms: u64) -> Option<String> {
    Some(span(now_ms.saturating_sub(slot.issued_ms?)))
}

/// How long it still lasts; `over` afterwards, and of a tombstone from its beginning.
fn lasts(slot: &Slot, now_ms: u64) -> Option<String> {
    let left_ms = slot.expires_ms?.saturating_sub(now_ms);
    Some(if left_ms == 0 { "over".to_owned() } else { span(left_ms) })
}

fn in_time(left: &str) -> String {
    if left == "over" { left.to_owned() } else { format!("in {left}") }
}

/// `192.0.2.1:4242 +2`: the first, and how many more.
fn short_addresses(slot: &Slot) -> String {
    let mut all = slot.addresses.iter().chain(&slot.relays);
    let Some(first) = all.next() else { return String::new() };
    match all.count() {
        0 => plain(first),
        more => format!("{} +{more}", plain(first)),
    }
}

/// `failed 12 s ago`.
fn dialed(slot: &Slot, now_ms: u64) -> Option<String> {
    let dial = slot.last_dial?;
    Some(format!("{} {} ago", dial.ended.as_str(), span(now_ms.saturating_sub(dial.at_ms))))
}

/// A length of time in its largest unit.
fn span(ms: u64) -> String {
    match ms / 1000 {
        s if s < 120 => format!("{s} s"),
        s if s < 120 * 60 => format!("{} min", s / 60),
        s if s < 48 * 3600 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use mosaik_api::document::{DialEnd, LastDial, SlotState};

    use super::*;

    const NOW_MS: u64 = 1_795_248_000_000;

    fn empty() -> Slot {
        Slot {
            slot: 3,
            state: SlotState::Empty,
            holder: None,
            holder_name: None,
            issued_ms: None,
            expires_ms: None,
            addresses: Vec::new(),
            relays: Vec::new(),
            last_dial: None,
            reason: None,
        }
    }

    fn dead() -> Slot {
        Slot {
            state: SlotState::Dead,
            holder: Some("3f2a9c".repeat(8)),
            holder_name: Some("team".into()),
            issued_ms: Some(NOW_MS - 10 * 60_000),
            expires_ms: Some(NOW_MS + 50 * 60_000),
            addresses: vec!["192.0.2.1:4242".into(), "[2001:db8::1]:4242".into()],
            relays: vec!["https://relay.example/".into()],
            last_dial: Some(LastDial { at_ms: NOW_MS - 12_000, ended: DialEnd::Failed }),
            ..empty()
        }
    }

    #[test]
    fn a_row_says_who_holds_a_slot_for_how_long_and_whether_they_can_be_reached() {
        let slots = Slots { schema: 1, slots: vec![empty(), dead()] };
        let rows = rows(&slots, NOW_MS);
        assert_eq!(rows[0], ["3", "empty", "", "", "", "", ""]);
        let dead = [
            "3",
            "dead",
            "team (3f2a9c)",
            "10 min",
            "50 min",
            "192.0.2.1:4242 +2",
            "failed 12 s ago",
        ];
        assert_eq!(rows[1], dead);
    }

    #[test]
    fn a_slot_in_full_leaves_out_what_is_not_known() {
        assert_eq!(lines(&empty(), NOW_MS), ["slot       3", "state      empty"]);
        let forged = Slot { reason: Some("forged\u{1b}[2J".into()), ..empty() };
        assert_eq!(lines(&forged, NOW_MS)[2], "reason     forged\u{fffd}[2J");
        let told = lines(&dead(), NOW_MS);
        assert!(told.iter().any(|line| line.ends_with("(in 50 min)")), "{told:?}");
        assert!(told.iter().any(|line| line.ends_with("(10 min ago)")), "{told:?}");
        let over = lines(&dead(), NOW_MS + 3_600_000);
        assert!(over.iter().any(|line| line.ends_with("(over)")), "{over:?}");
    }

    #[test]
    fn a_span_has_one_unit() {
        let spans = [0, 119_999, 120_000, 7_199_999, 7_200_000, 200_000_000].map(span);
        assert_eq!(spans, ["0 s", "119 s", "2 min", "119 min", "2 h", "2 d"]);
    }
}
