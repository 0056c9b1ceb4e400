//! A node's own numbers, as its socket gives them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use mosaik_api::client::Client;

/// How often a node is asked while something is waited for: an answer costs it some 100 us. What is
/// waited for carries its own time, so this is not how exact the result is.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// All numbers of one answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    pub(super) async fn of(client: &Client) -> Result<Self> {
        Self::parse(&client.metrics().await?)
    }

    fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let number = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            Some((name.strip_prefix("mosaik_")?.to_owned(), value.parse().ok()?))
        };
        let numbers = lines.map(|line| number(line).with_context(|| format!("{line:?}")));
        Ok(Self(numbers.collect::<Result<_>>().context("metrics of another kind")?))
    }

    /// The number of this name, without `mosaik_`.
    pub(super) fn get(&self, name: &str) -> Result<f64> {
        self.0.get(name).copied().with_context(|| format!("the node doesn't count {name}"))
    }

    /// How much more it is than `before`.
    pub(super) fn since(&self, before: &Self, name: &str) -> Result<f64> {
        Ok(self.get(name)? - before.get(name)?)
    }
}

/// Asks until the node holds so many events, and returns what it then counts.
///
/// # Errors
///
/// If that takes longer than `deadline`.
pub(super) async fn until_events(
    client: &Client,
    events: u64,
    deadline: Duration,
) -> Result<Scrape> {
    let begun = Instant::now();
    loop {
        let scrape = Scrape::of(client).await?;
        let held = scrape.get("events")?;
        if held >= events as f64 {
            return Ok(scrape);
        }
        if begun.elapsed() > deadline {
            bail!("{held} of {events} events are here after {} s", deadline.as_secs());
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_by_name_and_what_is_none_is_an_error() {
        let text = "# TYPE mosaik_events gauge\nmosaik_events 5\nmosaik_batch_seconds_sum 0.25\n";
        let scrape = Scrape::parse(text).expect("two numbers");
        assert_eq!(scrape.get("events").expect("it is there"), 5.0);
        assert_eq!(scrape.since(&scrape, "batch_seconds_sum").expect("it is there"), 0.0);
        assert!(scrape.get("sheep").is_err());
        assert!(Scrape::parse("mosaik_events five\n").is_err());
    }
}
