//! Figures on their way out: a table for a person, a line each for a program.

use std::{
    fmt,
    io::{IsTerminal, Write, stderr},
};

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use super::place::Place;
use crate::print;

/// How much longer what is promised may take on a machine that does other things too.
pub const TIME_ROOM: f64 = 10.0;

/// One measured number.
#[derive(Debug, Clone)]
pub struct Figure {
    workload: &'static str,
    case: String,
    metric: &'static str,
    value: f64,
    unit: &'static str,
    share_of_limit: Option<f64>,
    target: Option<Target>,
}

/// What a figure is to be.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Target {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "at most {}", shown(*limit)),
            Self::AtLeast(limit) => write!(f, "at least {}", shown(*limit)),
        }
    }
}

impl Figure {
    pub(super) fn new(
        workload: &'static str,
        case: impl Into<String>,
        metric: &'static str,
        value: f64,
        unit: &'static str,
    ) -> Self {
        let case = case.into();
        Self { workload, case, metric, value, unit, share_of_limit: None, target: None }
    }

    /// As a share of what the machine does alone, in the same unit.
    pub(super) fn of_limit(mut self, limit: f64) -> Self {
        self.share_of_limit = Some(self.value / limit);
        self
    }

    pub(super) fn at_most(mut self, limit: f64) -> Self {
        self.target = Some(Target::AtMost(rounded(limit)));
        self
    }

    pub(super) fn at_least(mut self, limit: f64) -> Self {
        self.target = Some(Target::AtLeast(rounded(limit)));
        self
    }

    /// Whether anything is promised of it.
    pub fn has_target(&self) -> bool {
        self.target.is_some()
    }

    /// Holds it against its target for a test, which isn't alone on its machine: a time may be
    /// [`TIME_ROOM`] times as long, anything else is as promised.
    ///
    /// # Errors
    ///
    /// What was measured and what it should have been, if it isn't met.
    pub fn check(&self) -> Result<(), String> {
        let room = if matches!(self.unit, "s" | "ms") { TIME_ROOM } else { 1.0 };
        let target = match self.target {
            Some(Target::AtMost(limit)) => Target::AtMost(limit * room),
            Some(Target::AtLeast(limit)) => Target::AtLeast(limit),
            None => return Ok(()),
        };
        if target.is_met(self.value) {
            return Ok(());
        }
        let Self { workload, case, metric, value, unit, .. } = self;
        Err(format!("{workload}, {case}: {metric} is {} {unit}, {target}", shown(*value)))
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "workload": self.workload,
            "case": self.case,
            "metric": self.metric,
            "value": rounded(self.value),
            "unit": self.unit,
            "share_of_limit": self.share_of_limit.map(rounded),
            "target": self.target,
            "met": self.target.map(|target| target.is_met(self.value)),
        })
    }
}

/// A row of the table.
impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = match self.share_of_limit {
            Some(share) => format!("{:.0} % of limit", share * 100.0),
            None => String::new(),
        };
        let target = match self.target {
            Some(target) => {
                let met = if target.is_met(self.value) { "met" } else { "NOT MET" };
                format!("{met}: {target}")
            }
            None => String::new(),
        };
        let value = format!("{} {}", shown(self.value), self.unit);
        let row = format!(
            "{:<7} {:<20} {:<22} {value:>18}  {share:>15}  {target}",
            self.workload, self.case, self.metric
        );
        f.write_str(row.trim_end())
    }
}

/// Six digits: no measurement has more that mean anything.
fn rounded(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

/// A number as a person reads it: thousands apart, few digits behind the point.
fn shown(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut out = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) && !out.ends_with('-') {
            out.push(' ');
        }
        out.push(digit);
    }
    if digits > 0 {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// Where figures go: standard output, each as soon as it is known.
#[derive(Debug)]
pub(super) struct Report {
    json: bool,
    met: usize,
    missed: usize,
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        Self { json, met: 0, missed: 0 }
    }

    /// Says where it is measured.
    ///
    /// # Errors
    ///
    /// If the system can't tell.
    pub(super) fn begin(&self, place: &Place) -> Result<()> {
        let cores = std::thread::available_parallelism()?;
        if !self.json {
            print::line(format_args!("{cores} cores; stores in {}", place.described()));
        }
        Ok(())
    }

    pub(super) fn add(&mut self, figure: &Figure) {
        match figure.target.map(|target| target.is_met(figure.value)) {
            Some(true) => self.met += 1,
            Some(false) => self.missed += 1,
            None => {}
        }
        if self.json {
            print::line(figure.json());
        } else {
            print::line(figure);
        }
    }

    pub(super) fn add_all(&mut self, figures: &[Figure]) {
        for figure in figures {
            self.add(figure);
        }
    }

    pub(super) fn end(&self) {
        if !self.json {
            print::line(format_args!("targets: {} met, {} not met", self.met, self.missed));
        }
    }
}

/// What is being done, for a person who waits.
pub(super) fn progress(text: impl std::fmt::Display) {
    let mut out = stderr().lock();
    if out.is_terminal() {
        // Nobody may be looking any more.
        let _ = writeln!(out, "... {text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure() -> Figure {
        Figure::new("W1", "1x100000", "events_per_s", 312_345.678_9, "1/s")
    }

    #[test]
    fn a_line_has_the_keys_that_programs_read() {
        let line = figure().of_limit(400_000.0).at_least(320_000.0).json();
        assert_eq!(
            line,
            json!({
                "workload": "W1", "case": "1x100000", "metric": "events_per_s",
                "value": 312_346.0, "unit": "1/s", "share_of_limit": 0.780_864,
                "target": { "at_least": 320_000.0 }, "met": false,
            })
        );
        let line = figure().json();
        assert!(line["share_of_limit"].is_null() && line["target"].is_null());
        assert!(line["met"].is_null());
    }

    #[test]
    fn a_row_says_whether_the_target_is_met() {
        let row = figure().at_most(400_000.0).to_string();
        assert!(row.contains(" 312 346 1/s ") && row.ends_with("met: at most 400 000"), "{row}");
        let row = figure().at_least(400_000.0).to_string();
        assert!(row.ends_with("NOT MET: at least 400 000"), "{row}");
    }

    #[test]
    fn a_test_gives_times_ten_times_the_room_and_counts_none() {
        let time = |value| Figure::new("W1", "two", "p95_s", value, "s").at_most(0.3);
        assert_eq!(time(2.9).check(), Ok(()));
        let missed = "W1, two: p95_s is 3.10 s, at most 3.00".to_owned();
        assert_eq!(time(3.1).check(), Err(missed));
        let count = |value| Figure::new("W1", "two", "holders", value, "").at_least(8.0);
        assert_eq!(count(8.0).check(), Ok(()));
        assert!(count(7.0).check().is_err());
        assert!(count(9.0).at_most(8.0).check().is_err());
        assert!(!figure().has_target() && figure().check().is_ok());
    }

    #[test]
    fn numbers_are_shown_with_the_digits_that_matter() {
        let all = [0.0, 0.012_34, 1.234, 12.34, 123.4, 1_234_567.0, -1234.0].map(shown);
        assert_eq!(all, ["0", "0.0123", "1.23", "12.3", "123", "1 234 567", "-1 234"]);
    }
}
