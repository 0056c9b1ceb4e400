//! `wait`: for scripts. It also waits for the node itself to come up.

use std::time::Duration;

use mosaik_api::{
    client::{Client, ClientError},
    failure::{Code, Failure},
    json::to_json,
    request::Condition,
};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    Assignment, Failed, Place, connect,
    output::{note, print, print_json},
};

/// How often a node that isn't there yet is looked for.
///
/// A start takes some hundred milliseconds; nothing on disk tells of it sooner.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The longest timeout, in seconds: a year. More is a mistake.
const TIMEOUT_SECONDS_MAX: f64 = 31_536_000.0;

/// What is waited for, as the command line says it: exactly one of them.
pub(super) struct Until {
    pub(super) peers: Option<u64>,
    pub(super) synced: bool,
    pub(super) replicas: Option<u64>,
    pub(super) ready: bool,
    pub(super) record: Option<String>,
    pub(super) fields: Vec<Assignment>,
}

impl Until {
    fn condition(&self) -> Condition {
        if let Some(peers) = self.peers {
            return Condition::Peers(peers);
        }
        if let Some(replicas) = self.replicas {
            return Condition::Replicas(replicas);
        }
        if let Some(record) = &self.record {
            let fields = self.fields.iter();
            let fields = fields.map(|a| (a.field.clone(), to_json(&a.value))).collect();
            return Condition::Record { record: record.clone(), fields };
        }
        if self.synced { Condition::Synced } else { Condition::Ready }
    }
}

/// Reads seconds, also with a fraction.
pub(super) fn parse_timeout(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=TIMEOUT_SECONDS_MAX).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err("give seconds, as 30 or 0.5".to_owned()),
    }
}

/// Waits; says what state met the condition, or fails with a timeout that says what is lacking.
///
/// A node that isn't there yet is waited for where that can end: with a timeout, or for `--ready`.
pub(super) async fn wait(
    place: &Place,
    until: Until,
    timeout: Option<Duration>,
    json: bool,
) -> Result<(), Failed> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut told = false;
    loop {
        let absent = match connect::node(place).await {
            Ok(client) => match ask(&client, &until, deadline).await {
                Ok(waited) if json => return print_json(&waited),
                Ok(waited) => return print(waited.state),
                // It was about to end when it was found.
                Err(error @ ClientError::NoNode { .. }) => Failed::from(error),
                Err(ClientError::Refused(Failure { code: Code::Timeout, message })) => {
                    return Err(Failed::new(Code::Timeout, timed_out(timeout, &message)));
                }
                Err(error) => return Err(error.into()),
            },
            Err(Failed::With(failure)) if failure.code == Code::NoNode => Failed::With(failure),
            Err(error) => return Err(error),
        };
        if deadline.is_none() && !until.ready {
            return Err(absent);
        }
        let next = Instant::now() + LOOK_EVERY;
        if deadline.is_some_and(|deadline| deadline <= next) {
            let Failed::With(failure) = absent else { return Err(absent) };
            // That no node came is what `--ready` waits for; to all else it is a condition of its own.
            let code = if until.ready { Code::Timeout } else { Code::NoNode };
            return Err(Failed::new(code, timed_out(timeout, &failure.message)));
        }
        if !told {
            note("no node runs yet; waiting for it");
            told = true;
        }
        sleep_until(next).await;
    }
}

async fn ask(
    client: &Client,
    until: &Until,
    deadline: Option<Instant>,
) -> Result<mosaik_api::document::Waited, ClientError> {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let asked = client.wait(until.condition(), left);
    match deadline {
        None => asked.await,
        // The node keeps the time; this is for one that hangs.
        Some(deadline) => match timeout_at(deadline + LOOK_EVERY * 20, asked).await {
            Ok(answer) => answer,
            Err(_) => {
                Err(ClientError::Refused(Failure::new(Code::Timeout, "the node does not answer")))
            }
        },
    }
}

fn timed_out(timeout: Option<Duration>, state: &str) -> String {
    let seconds = timeout.unwrap_or_default().as_secs_f64();
    format!("not after {seconds} s: {state}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_seconds() {
        assert_eq!(parse_timeout("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_timeout("0"), Ok(Duration::ZERO));
        for text in ["-1", "NaN", "inf", "5s", "", "1e9"] {
            assert!(parse_timeout(text).is_err(), "{text}");
        }
    }
}
