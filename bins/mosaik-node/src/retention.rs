//! Retention: whose payloads a node keeps, and how long or how many bytes of them.
//!
//! Invariants:
//! - Only payloads of applications' own kinds are ever due: what folds into the view stays.
//! - Nothing here reads a clock or a disk. A pass is told the events from the newest arrival to the
//!   oldest, so what is over a limit of bytes is what came first.

use std::{fmt, str::FromStr};

use mosaik_core::{event::Event, record::is_reserved};

/// A payload that is gone leaves its hash: one this short would leave as much as it was.
const PAYLOAD_LEN_MIN: usize = 33;

const AGES: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
const SIZES: [(&str, u64); 4] = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000), ("B", 1)];

/// What is kept of some kinds: `sensor.*:30d`, `photo.thumb:500MB`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    text: String,
    /// The kind, or what it begins with.
    kind: String,
    is_prefix: bool,
    limit: Limit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// Events stamped longer ago than so many milliseconds are due.
    Age(u64),
    /// What came before the newest so many bytes is due.
    Bytes(u64),
}

/// What names kinds: one, or what several begin with and a `*`; whether it is that.
pub fn kinds(text: &str) -> Option<(&str, bool)> {
    let (kind, is_prefix) = match text.strip_suffix('*') {
        Some(prefix) => (prefix, true),
        None => (text, false),
    };
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    (kind.bytes().all(allowed) && (is_prefix || !kind.is_empty())).then_some((kind, is_prefix))
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let takes = "a rule is KIND:LIMIT, as sensor.*:30d or photo.thumb:500MB; units are s, m, h, \
                     d, B, kB, MB, GB";
        let (kind, limit) = text.split_once(':').ok_or(takes)?;
        let (kind, is_prefix) = kinds(kind).ok_or(takes)?;
        if is_reserved(kind) {
            return Err(format!("{kind} is not an application's kind: its payloads are all kept"));
        }
        let of = |units: &[(&str, u64)], factor: u64| {
            let (unit, scale) = units.iter().find(|(unit, _)| limit.ends_with(unit))?;
            let number: u64 = limit[..limit.len() - unit.len()].parse().ok()?;
            number.checked_mul(*scale)?.checked_mul(factor)
        };
        let limit = match (of(&AGES, 1000), of(&SIZES, 1)) {
            (Some(ms), _) => Limit::Age(ms),
            (None, Some(bytes)) => Limit::Bytes(bytes),
            (None, None) => return Err(takes.to_owned()),
        };
        Ok(Self { text: text.to_owned(), kind: kind.to_owned(), is_prefix, limit })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Rule {
    fn is_of(&self, kind: &str) -> bool {
        if self.is_prefix { kind.starts_with(&self.kind) } else { kind == self.kind }
    }
}

/// One walk over all events, from the newest arrival to the oldest.
#[derive(Debug)]
pub struct Pass {
    rules: Vec<Rule>,
    /// Bytes met so far, by rule.
    bytes: Vec<u64>,
}

impl Pass {
    /// Begins a walk.
    pub fn new(rules: &[Rule]) -> Self {
        Self { rules: rules.to_vec(), bytes: vec![0; rules.len()] }
    }

    /// Whether the payload of `event` is due at `now_ms`; also said of one that is absent.
    pub fn is_due(&mut self, event: &Event, now_ms: u64) -> bool {
        let kind = event.kind.as_str();
        if is_reserved(kind) {
            return false;
        }
        let here = event.payload.bytes().map(<[u8]>::len);
        let mut is_due = false;
        for (rule, met) in self.rules.iter().zip(&mut self.bytes) {
            if !rule.is_of(kind) {
                continue;
            }
            is_due |= match rule.limit {
                Limit::Age(ms) => event.hlc.ms().saturating_add(ms) < now_ms,
                Limit::Bytes(limit) => {
                    *met = met.saturating_add(here.unwrap_or(0) as u64);
                    *met > limit
                }
            };
        }
        is_due && here.is_none_or(|len| len >= PAYLOAD_LEN_MIN)
    }
}

#[cfg(test)]
mod tests {
    use mosaik_core::{
        event::{Kind, Payload},
        hlc::Hlc,
        id::{AuthorId, EventId},
    };

    use super::*;

    fn event(kind: &str, ms: u64, payload: Payload) -> Event {
        Event {
            id: EventId([1; 32]),
            author: AuthorId([2; 32]),
            seq: 1,
            prev: EventId::ZERO,
            hlc: Hlc::new(ms, 0),
            kind: Kind::new(kind).expect("a kind"),
            payload,
        }
    }

    fn long(kind: &str, ms: u64) -> Event {
        event(kind, ms, Payload::Present(vec![0; 100]))
    }

    fn pass(rules: &[&str]) -> Pass {
        let rules: Vec<Rule> = rules.iter().map(|rule| rule.parse().expect("a rule")).collect();
        Pass::new(&rules)
    }

    #[test]
    fn a_rule_says_a_kind_and_a_limit() {
        for good in ["sensor.*:30d", "*:1GB", "photo.thumb:500MB", "x:0s", "a-b_c:7kB"] {
            assert_eq!(good.parse::<Rule>().expect("a rule").to_string(), good);
        }
        for bad in [
            "",
            "x",
            "x:",
            "x:5",
            ":5d",
            "x:5 d",
            "x:-1d",
            "x:d",
            "X:5d",
            "x*y:5d",
            "x:5w",
            "x:99999999999999999999d",
        ] {
            assert!(bad.parse::<Rule>().is_err(), "{bad}");
        }
        for reserved in ["record.create:5d", "note.*:5d", "node.profile:1B"] {
            let why = reserved.parse::<Rule>().expect_err("it is kept");
            assert!(why.contains("not an application's kind"), "{why}");
        }
    }

    #[test]
    fn what_is_older_than_its_kind_may_be_is_due() {
        let mut pass = pass(&["sensor.*:10s", "log:1s"]);
        let now_ms = 1_000_000;
        assert!(pass.is_due(&long("sensor.a", now_ms - 10_001), now_ms));
        assert!(!pass.is_due(&long("sensor.a", now_ms - 10_000), now_ms));
        assert!(pass.is_due(&long("log", now_ms - 5_000), now_ms));
        assert!(!pass.is_due(&long("logs", 0), now_ms), "another kind");
        assert!(!pass.is_due(&long("sensor.a", 0), 0), "a clock that was never set");
    }

    #[test]
    fn the_newest_bytes_of_a_kind_are_kept() {
        let mut pass = pass(&["sensor.*:250B"]);
        let due: Vec<bool> = (0..4).map(|_| pass.is_due(&long("sensor.a", 5), 9)).collect();
        assert_eq!(due, [false, false, true, true]);
        assert!(!pass.is_due(&long("other", 5), 9));
    }

    #[test]
    fn what_folds_into_the_view_and_what_is_short_is_never_due() {
        let mut pass = pass(&["*:0s", "*:0B"]);
        assert!(!pass.is_due(&long("record.create", 0), u64::MAX));
        assert!(!pass.is_due(&long("foreign.x", 0), u64::MAX));
        let short = event("sensor.a", 0, Payload::Present(vec![0; 32]));
        assert!(!pass.is_due(&short, u64::MAX));
        let absent = event("sensor.a", 0, Payload::Absent { len: 5, hash: [0; 32] });
        assert!(pass.is_due(&absent, u64::MAX), "it is not asked for any more");
    }
}
