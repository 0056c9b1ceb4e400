//! `probe`: which nodes a message reaches, and how soon.

mod file;
mod plot;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget};
use mosaik_api::{
    client::Client,
    document::{PeerState, Probe, ProbeAnswer},
    failure::{Code, Failure},
};
use tokio::time::Instant;

use self::file::OutFile;
use super::{
    Failed,
    output::{count, named, plain, print, print_bytes, print_json, print_table},
    wait,
};

/// How often the node is asked for what has come.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Answers find their way for a minute.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// How long nodes that are not known yet have at the least, in milliseconds, once all known ones have
/// answered; and twice the longest round trip.
const QUIET_MS_MIN: f64 = 200.0;

/// What to do with the answers.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProbeFlags {
    /// Wait so many seconds for answers, 60 at the most; less if all known nodes have answered
    #[arg(long, value_name = "S", default_value = "10", value_parser = parse_timeout)]
    timeout: Duration,
    /// Write the answers as CSV to a file; - is stdout, instead of the table
    #[arg(long, value_name = "FILE|-")]
    csv: Option<PathBuf>,
    /// Draw how many nodes were reached after which time
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = wait::parse_timeout(text)?;
    if timeout > TIMEOUT_MAX {
        return Err("answers find their way back for 60 s: give that or less".to_owned());
    }
    Ok(timeout)
}

/// Sends a probe, waits for the answers, and says what came of it.
pub(super) async fn probe(client: &Client, flags: ProbeFlags, json: bool) -> Result<(), Failed> {
    let (csv_to_stdout, csv) = match flags.csv {
        Some(path) if path == Path::new("-") => (true, None),
        path => (false, path),
    };
    if json && csv_to_stdout {
        return Err(Failed::usage("--csv - and --json both write to stdout: choose one"));
    }
    // Before a probe is spent for nothing: a node has one a minute.
    let csv = csv.map(OutFile::open).transpose()?;
    let plot = flags.plot.map(OutFile::open).transpose()?;
    let report = answers(client, flags.timeout).await?;
    let table = csv_of(&report)?;
    if let Some(file) = csv {
        file.write(&table)?;
    }
    if let Some(file) = plot {
        file.write(plot::svg(&report).as_bytes())?;
    }
    match (json, csv_to_stdout) {
        (true, _) => print_json(&report)?,
        (false, true) => print_bytes(&table)?,
        (false, false) => show(&report)?,
    }
    if report.answers.is_empty() {
        let sentence = format!("no node has answered within {} s", flags.timeout.as_secs_f64());
        return Err(Failed::Shown(Failure::new(Code::Timeout, sentence)));
    }
    Ok(())
}

async fn answers(client: &Client, timeout: Duration) -> Result<Probe, Failed> {
    let mut report = client.probe().await?;
    let deadline = Instant::now() + timeout;
    // Hidden where stderr is no terminal.
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    loop {
        let Probe { answered, known, .. } = report;
        bar.set_message(format!("{answered} of {} have answered", count(known, "node")));
        bar.tick();
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || is_over(&report) {
            bar.finish_and_clear();
            return Ok(report);
        }
        tokio::time::sleep(left.min(LOOK_EVERY)).await;
        let id = report.id;
        report = client.probed().await?;
        if report.id != id {
            return Err(Failed::new(Code::Failed, "another probe was sent meanwhile"));
        }
    }
}

/// Whether all known nodes have answered that can be hoped for, and others have had time to.
fn is_over(report: &Probe) -> bool {
    let hoped = [PeerState::Connected, PeerState::Dialing, PeerState::Reachable];
    let longest_ms = report.answers.last().map(|answer| answer.rtt_ms);
    longest_ms.is_some_and(|ms| report.elapsed_ms >= (2.0 * ms).max(QUIET_MS_MIN))
        && !report.silent.iter().any(|node| hoped.contains(&node.state))
}

fn csv_of(report: &Probe) -> Result<Vec<u8>, Failed> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    let row = |answer: &ProbeAnswer| {
        let after_ms = answer.received_after_ms.map(|ms| ms.to_string());
        [
            answer.id.clone(),
            answer.name.clone(),
            answer.hops.to_string(),
            answer.path.clone().unwrap_or_default(),
            answer.from.clone(),
            format!("{:.3}", answer.rtt_ms),
            format!("{:.3}", answer.propagation_ms),
            answer.received_ms.to_string(),
            after_ms.unwrap_or_default(),
        ]
    };
    let heading = [
        "id",
        "name",
        "hops",
        "path",
        "from",
        "rtt_ms",
        "propagation_ms",
        "received_ms",
        "received_after_ms",
    ]
    .map(str::to_owned);
    for row in std::iter::once(heading).chain(report.answers.iter().map(row)) {
        csv.write_record(&row).map_err(anyhow::Error::new)?;
    }
    csv.into_inner().map_err(|error| anyhow::Error::msg(error.to_string()).into())
}

fn show(report: &Probe) -> Result<(), Failed> {
    print(format!(
        "{} of {} have answered within {:.1} s",
        report.answered,
        count(report.known, "known node"),
        report.elapsed_ms / 1e3
    ))?;
    if let Some(of) = report.propagation_ms {
        print(format!(
            "reached after (half the round trip): p50 {:.1} ms, p75 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms",
            of.p50, of.p75, of.p90, of.p99
        ))?;
    }
    if report.answers.is_empty() && report.silent.is_empty() {
        return Ok(());
    }
    let name_of = |id: &str| match report.answers.iter().find(|answer| answer.id == id) {
        _ if id == report.node => "this node".to_owned(),
        Some(answer) => named(&answer.name, id),
        None => named("", id),
    };
    let row = |answer: &ProbeAnswer| {
        let after_ms = answer.received_after_ms;
        [
            named(&answer.name, &answer.id),
            answer.hops.to_string(),
            answer.path.as_deref().map_or("-".to_owned(), plain),
            name_of(&answer.from),
            format!("{:.1} ms", answer.propagation_ms),
            format!("{:.1} ms", answer.rtt_ms),
            after_ms.map_or("-".to_owned(), |ms| format!("{ms:.0} ms")),
        ]
    };
    let mut rows: Vec<[String; 7]> = report.answers.iter().map(row).collect();
    for node in &report.silent {
        let state = node.state.as_str().replace('_', " ");
        let none = || "-".to_owned();
        let why = format!("no answer, {state}");
        rows.push([named(&node.name, &node.id), none(), none(), none(), why, none(), none()]);
    }
    let heading = ["node", "hops", "path", "from", "reached after", "round trip", "by its clock"];
    print_table(heading, &rows)
}

#[cfg(test)]
pub(crate) mod tests {
    use mosaik_api::document::{Percentiles, SilentNode};

    use super::*;

    pub(crate) fn report(times: &[f64]) -> Probe {
        let answer = |(at, rtt_ms): (usize, &f64)| ProbeAnswer {
            id: format!("{at:064x}"),
            name: format!("n, \"{at}\""),
            hops: 1,
            from: "7".repeat(64),
            path: Some("lan".to_owned()),
            rtt_ms: *rtt_ms,
            propagation_ms: rtt_ms / 2.0,
            received_ms: 5,
            received_after_ms: None,
        };
        let last = times.last().map(|ms| ms / 2.0);
        Probe {
            schema: 1,
            id: "a".repeat(32),
            node: "7".repeat(64),
            sent_ms: 1,
            elapsed_ms: 1000.0,
            known: times.len() as u64,
            answered: times.len() as u64,
            propagation_ms: last.map(|ms| Percentiles { p50: ms, p75: ms, p90: ms, p99: ms }),
            answers: times.iter().enumerate().map(answer).collect(),
            silent: Vec::new(),
        }
    }

    #[test]
    fn waiting_ends_when_all_that_can_be_hoped_for_have_answered() {
        let mut seen = report(&[4.0, 90.0]);
        assert!(is_over(&seen));
        seen.elapsed_ms = 150.0;
        assert!(!is_over(&seen), "nodes that are not known have no time");
        seen.elapsed_ms = 250.0;
        assert!(is_over(&seen));
        let silent = |state| SilentNode { id: "b".repeat(64), name: String::new(), state };
        seen.silent.push(silent(PeerState::Lost));
        assert!(is_over(&seen), "nobody waits for who is lost");
        seen.silent.push(silent(PeerState::Reachable));
        assert!(!is_over(&seen));
        assert!(!is_over(&report(&[])), "nobody has answered");
    }

    #[test]
    fn a_row_of_csv_is_an_answer() {
        let csv = String::from_utf8(csv_of(&report(&[4.0])).expect("memory")).expect("text");
        let expected = format!(
            "id,name,hops,path,from,rtt_ms,propagation_ms,received_ms,received_after_ms\n\
             {},\"n, \"\"0\"\"\",1,lan,{},4.000,2.000,5,\n",
            "0".repeat(64),
            "7".repeat(64)
        );
        assert_eq!(csv, expected);
    }

    #[test]
    fn a_timeout_is_a_minute_at_the_most() {
        assert_eq!(parse_timeout("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_timeout("60"), Ok(TIMEOUT_MAX));
        assert!(parse_timeout("61").is_err_and(|why| why.contains("60 s")));
    }
}
