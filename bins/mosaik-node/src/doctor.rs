//! What works here and what doesn't, from facts to sentences.
//!
//! Invariant: but for [`disk_free`] pure. Facts come in, checks come out: each says what was found, and
//! where something is amiss what still works and what to do.

use std::{net::SocketAddr, path::Path};

use mosaik_api::document::{Check, Verdict};
use mosaik_core::hlc::{OBSERVE_AHEAD_MAX_MS, SKEW_MAX_MS};
use mosaik_dht::Summary;
use mosaik_net::Outlook;

use crate::config::Config;

/// Less free space than this is soon none, in bytes.
const DISK_FREE_WARN: u64 = 256 << 20;

/// Which sources and paths are switched on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Means {
    /// The DHT.
    pub dht: bool,
    /// Relays.
    pub relay: bool,
    /// Multicast DNS.
    pub mdns: bool,
    /// No direct path, whatever could be had.
    pub relay_only: bool,
}

impl Means {
    /// What these settings switch on.
    pub fn of(config: &Config) -> Self {
        Self {
            dht: config.uses_dht(),
            relay: config.uses_relay(),
            mdns: config.uses_mdns(),
            relay_only: config.relay_only,
        }
    }
}

/// How many peers are connected, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    /// By UDP in the local network.
    pub lan: usize,
    /// By UDP.
    pub direct: usize,
    /// By a relay.
    pub relay: usize,
}

/// What the disk says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that are free for this user; none if it doesn't say.
    pub free: Option<u64>,
    /// Why nothing can be written, if nothing can.
    pub refuses: Option<String>,
}

/// All that is looked at.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Whether a person has paused the node.
    pub paused: bool,
    /// What is switched on.
    pub means: Means,
    /// What the endpoint has seen of the network.
    pub outlook: Outlook,
    /// The chain's figures; none where the DHT isn't used.
    pub slots: Option<Summary>,
    /// Connected peers.
    pub reached: Reached,
    /// The peers' median clock against this one; none without peers.
    pub clock_offset_ms: Option<i64>,
    /// Whether this machine's clock is before the program's own date.
    pub clock_unset: bool,
    /// The disk under the data directory.
    pub disk: Disk,
}

/// Bytes that are free for this user on the disk of a directory; none if it doesn't say.
pub fn disk_free(directory: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(directory).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// All checks, in the order in which a person would look.
pub fn examine(facts: &Facts) -> Vec<Check> {
    if facts.paused {
        return vec![peers(facts), disk(&facts.disk)];
    }
    vec![
        peers(facts),
        udp(facts),
        family("ipv4", facts, SocketAddr::is_ipv4),
        family("ipv6", facts, SocketAddr::is_ipv6),
        nat(facts),
        dht(facts),
        slots(facts),
        relay(facts),
        mdns(facts),
        clock(facts),
        disk(&facts.disk),
    ]
}

/// A check without advice.
fn says(name: &str, verdict: Verdict, found: impl Into<String>) -> Check {
    Check { name: name.to_owned(), verdict, found: found.into(), advice: None }
}

/// A check with what still works and what to do.
fn advises(
    name: &str,
    verdict: Verdict,
    found: impl Into<String>,
    advice: impl Into<String>,
) -> Check {
    Check { advice: Some(advice.into()), ..says(name, verdict, found) }
}

fn peers(facts: &Facts) -> Check {
    let Reached { lan, direct, relay } = facts.reached;
    if lan + direct + relay > 0 {
        let found = format!("{lan} in the local network, {direct} direct, {relay} by relay");
        return says("peers", Verdict::Ok, found);
    }
    if facts.paused {
        let advice = "what is written here is kept and goes out after `mosaik-node resume`";
        return advises("peers", Verdict::Bad, "none is connected: the node is paused", advice);
    }
    advises(
        "peers",
        Verdict::Bad,
        "none is connected",
        "what is written here is kept and goes out when one is; `slots` and `peers` show who was \
         tried, and --peer takes the ticket of one that is known to run",
    )
}

fn udp(facts: &Facts) -> Check {
    if facts.means.relay_only {
        return says("udp", Verdict::Off, "not used for peers: relay_only is set");
    }
    let (outlook, reached) = (&facts.outlook, facts.reached);
    let answering = facts.slots.is_some_and(|slots| slots.answering);
    let proofs = [
        (reached.direct > 0, "peers outside are reached directly"),
        (answering, "DHT nodes answer"),
        (outlook.udp_v4 || outlook.udp_v6, "relays answer over UDP"),
        (reached.lan > 0, "peers in the local network are reached directly"),
    ];
    let seen: Vec<_> = proofs.iter().filter(|(is_so, _)| *is_so).map(|(_, what)| *what).collect();
    if !seen.is_empty() {
        return says("udp", Verdict::Ok, seen.join(", "));
    }
    let asked = facts.slots.is_some() || outlook.has_probed;
    if !asked {
        return says("udp", Verdict::Unknown, "nobody outside was asked yet");
    }
    advises(
        "udp",
        Verdict::Bad,
        "no answer came from outside",
        "the DHT and direct paths need UDP out; without it relays, --peer tickets and --pkarr-relay \
         go on over TCP",
    )
}

fn family(name: &str, facts: &Facts, is_it: fn(&SocketAddr) -> bool) -> Check {
    let texts = |addresses: &[SocketAddr]| -> Vec<String> {
        addresses.iter().filter(|address| is_it(address)).map(ToString::to_string).collect()
    };
    let (local, public) = (texts(&facts.outlook.local), texts(&facts.outlook.public));
    match (local.is_empty(), public.is_empty()) {
        (true, true) => says(name, Verdict::Off, "no interface has an address"),
        (_, false) => {
            says(name, Verdict::Ok, format!("seen from outside as {}", public.join(", ")))
        }
        (false, true) => says(name, Verdict::Ok, format!("on {}", local.join(", "))),
    }
}

fn nat(facts: &Facts) -> Check {
    let outlook = &facts.outlook;
    if outlook.mapping_varies == Some(true) {
        return advises(
            "nat",
            Verdict::Warn,
            "each destination sees another port (symmetric)",
            "peers behind a port-restricted or symmetric NAT are reached by a relay only; a forwarded \
             UDP port (--listen) makes direct paths possible",
        );
    }
    let Some(seen) = outlook.public.first() else {
        let found = "not seen: no relay has told under which address this node is seen";
        return says("nat", Verdict::Unknown, found);
    };
    if outlook.local.iter().any(|local| local.ip() == seen.ip()) {
        return says("nat", Verdict::Ok, "none: the public address is this machine's own");
    }
    match outlook.mapping_varies {
        Some(_) => {
            says("nat", Verdict::Ok, "all destinations see one port: direct paths can be opened")
        }
        None => says("nat", Verdict::Unknown, "there is one; one relay alone can't tell its kind"),
    }
}

fn dht(facts: &Facts) -> Check {
    match facts.slots {
        None => says("dht", Verdict::Off, "switched off"),
        Some(slots) if slots.answering => says("dht", Verdict::Ok, "storage nodes answer"),
        Some(_) => advises(
            "dht",
            Verdict::Bad,
            "no storage node answers",
            "known peers, tickets and the local network go on; where UDP is blocked --pkarr-relay \
             reads the slots over HTTPS, and a closed network needs `serve dht` and --dht-bootstrap",
        ),
    }
}

fn slots(facts: &Facts) -> Check {
    let Some(slots) = facts.slots else {
        return says("slots", Verdict::Off, "not used without the DHT");
    };
    let found = match slots.held {
        Some(slot) => format!("this node holds slot {slot}, others hold {}", slots.live),
        None => format!("this node holds none, others hold {}", slots.live),
    };
    if slots.unknown == mosaik_core::key::SLOTS {
        return says("slots", Verdict::Unknown, "none was read yet");
    }
    if slots.held.is_none() && slots.live == 0 {
        return advises(
            "slots",
            Verdict::Warn,
            found,
            "nobody can find this network by its id alone until a node with an address to publish \
             holds one; `slots` shows what stands there",
        );
    }
    says("slots", Verdict::Ok, found)
}

fn relay(facts: &Facts) -> Check {
    if !facts.means.relay {
        return says("relay", Verdict::Off, "switched off");
    }
    let relays = &facts.outlook.relays;
    if let Some(relay) = relays.iter().find(|relay| relay.is_connected) {
        return says("relay", Verdict::Ok, format!("connected to {}", relay.url));
    }
    let why = relays.iter().find_map(|relay| {
        relay.error.as_ref().map(|error| format!("{} is not reached: {error}", relay.url))
    });
    advises(
        "relay",
        Verdict::Bad,
        why.unwrap_or_else(|| "none is connected".to_owned()),
        "direct paths go on; peers that can't reach this node directly need one: check TCP out to it, \
         or name another with --relay",
    )
}

fn mdns(facts: &Facts) -> Check {
    if !facts.means.mdns {
        return says("mdns", Verdict::Off, "switched off");
    }
    match facts.outlook.mdns_addresses {
        0 => says("mdns", Verdict::Off, "no interface has a private address to announce"),
        _ => says("mdns", Verdict::Ok, "this node is announced in the local network"),
    }
}

fn clock(facts: &Facts) -> Check {
    const SET: &str = "set it (NTP, or by hand): what is written meanwhile is stamped by the peers' \
                       clocks if there are any";
    if facts.clock_unset {
        return advises("clock", Verdict::Bad, "it was never set", SET);
    }
    let Some(offset_ms) = facts.clock_offset_ms else {
        return says("clock", Verdict::Unknown, "no peer to compare with");
    };
    let seconds = offset_ms.unsigned_abs() / 1000;
    let side = if offset_ms > 0 { "behind" } else { "ahead of" };
    let found = format!("{seconds} s {side} the peers' median");
    if offset_ms.unsigned_abs() <= OBSERVE_AHEAD_MAX_MS {
        return says("clock", Verdict::Ok, found);
    }
    if offset_ms.unsigned_abs() <= SKEW_MAX_MS {
        let advice = "all works, and beyond 10 min it won't: set this clock, or look at the peers'";
        return advises("clock", Verdict::Warn, found, advice);
    }
    let advice =
        "writes of the clock that is ahead show late on the others: set this one, or the peers'";
    advises("clock", Verdict::Bad, found, advice)
}

/// The disk under the data directory; also where no node runs.
pub fn disk(disk: &Disk) -> Check {
    if let Some(why) = &disk.refuses {
        let advice = "reads go on, and nothing is acknowledged until it takes writes again";
        return advises("disk", Verdict::Bad, why.clone(), advice);
    }
    let Some(free) = disk.free else {
        return says("disk", Verdict::Unknown, "it doesn't say how much is free");
    };
    let found = format!("{} MB free", free / 1_000_000);
    if free < DISK_FREE_WARN {
        let advice = "all works until it is full: make room, or set store_max so that the node stops \
                      taking events before";
        return advises("disk", Verdict::Warn, found, advice);
    }
    says("disk", Verdict::Ok, found)
}

#[cfg(test)]
mod tests {
    use mosaik_net::HomeRelay;

    use super::*;

    fn verdict(facts: &Facts, name: &str) -> Verdict {
        examine(facts).into_iter().find(|check| check.name == name).expect("a check").verdict
    }

    fn summary(answering: bool, held: Option<u8>) -> Summary {
        Summary { unknown: 0, empty: 15, live: 0, other: 0, held, answering, next_look_ms: 0 }
    }

    #[test]
    fn whatever_is_bad_says_what_to_do() {
        let bad = Facts {
            means: Means { dht: true, relay: true, mdns: true, relay_only: false },
            slots: Some(summary(false, None)),
            clock_unset: true,
            disk: Disk { free: Some(5), refuses: Some("the disk is full".into()) },
            ..Facts::default()
        };
        let checks = examine(&bad);
        assert!(checks.iter().filter(|check| check.verdict == Verdict::Bad).count() >= 6);
        for check in checks {
            let needs = matches!(check.verdict, Verdict::Bad | Verdict::Warn);
            assert!(check.advice.is_some() == needs, "{check:?}");
        }
    }

    #[test]
    fn udp_is_proved_by_whoever_answers_over_it() {
        let blocked = Facts { slots: Some(summary(false, None)), ..Facts::default() };
        assert_eq!(verdict(&blocked, "udp"), Verdict::Bad);
        assert_eq!(verdict(&Facts::default(), "udp"), Verdict::Unknown);
        let answering = Facts { slots: Some(summary(true, Some(3))), ..Facts::default() };
        assert_eq!(verdict(&answering, "udp"), Verdict::Ok);
        let direct = Reached { direct: 1, ..Reached::default() };
        assert_eq!(verdict(&Facts { reached: direct, ..blocked }, "udp"), Verdict::Ok);
    }

    #[test]
    fn the_kind_of_nat_is_said_as_far_as_it_was_seen() {
        let seen = |local: &str, varies| Facts {
            outlook: Outlook {
                local: vec![local.parse().expect("an address")],
                public: vec!["203.0.113.7:4242".parse().expect("an address")],
                mapping_varies: varies,
                ..Outlook::default()
            },
            ..Facts::default()
        };
        let nat = |facts: &Facts| {
            examine(facts).into_iter().find(|check| check.name == "nat").expect("a check").found
        };
        assert!(nat(&seen("203.0.113.7:4242", Some(false))).starts_with("none"));
        assert!(nat(&seen("10.0.0.1:4242", Some(false))).contains("one port"));
        assert!(nat(&seen("10.0.0.1:4242", Some(true))).contains("symmetric"));
        assert!(nat(&seen("10.0.0.1:4242", None)).contains("one relay"));
        assert!(nat(&Facts::default()).contains("not seen"));
    }

    #[test]
    fn a_relay_that_is_not_reached_is_named_with_the_reason() {
        let relay = HomeRelay {
            url: "https://relay.example.org./".into(),
            is_connected: false,
            error: Some("connection refused".into()),
        };
        let facts = Facts {
            means: Means { relay: true, ..Means::default() },
            outlook: Outlook { relays: vec![relay], ..Outlook::default() },
            ..Facts::default()
        };
        let checks = examine(&facts);
        let check = checks.iter().find(|check| check.name == "relay").expect("a check");
        assert_eq!(check.verdict, Verdict::Bad);
        assert!(check.found.contains("relay.example.org") && check.found.contains("refused"));
    }

    #[test]
    fn clocks_are_judged_by_what_their_skew_does() {
        let off = |ms| Facts { clock_offset_ms: Some(ms), ..Facts::default() };
        assert_eq!(verdict(&off(-240_000), "clock"), Verdict::Ok);
        assert_eq!(verdict(&off(400_000), "clock"), Verdict::Warn);
        assert_eq!(verdict(&off(-3_600_000), "clock"), Verdict::Bad);
    }
}
