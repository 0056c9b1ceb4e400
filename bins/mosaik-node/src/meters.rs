//! Numbers for who watches a node from outside, in Prometheus' text format.
//!
//! Invariants:
//! - Whoever counts never waits, and a read costs the node's loop nothing.
//! - A name closes with its unit, and none has a label but `mosaik_slots`, the slots' state: not a
//!   peer's, not an author's.
//!
//! Source: FORMAT.md of mosaik-api; Prometheus, "Exposition formats", text format 0.0.4.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mosaik_dht::ChainMeters;
use mosaik_net::{Bytes, Traffic};
use mosaik_proto::{attachments::Pending, replica::Totals};

/// The numbers of a running node. Each stands for itself: no two are read as of one moment.
#[derive(Debug, Default)]
pub struct Meters {
    events: AtomicU64,
    events_written: AtomicU64,
    events_received: AtomicU64,
    runs_taken: AtomicU64,
    runs_duplicate: AtomicU64,
    events_duplicate: AtomicU64,
    violations: AtomicU64,
    declined: AtomicU64,
    probes_dropped: AtomicU64,
    batches: AtomicU64,
    batches_us: AtomicU64,
    last_event_us: AtomicU64,
    first_peer_us: AtomicU64,
    files_held: AtomicU64,
    files_held_bytes: AtomicU64,
    files_pending: AtomicU64,
    files_pending_bytes: AtomicU64,
    carriers: Vec<Traffic>,
    /// None where the DHT isn't used.
    chain: Option<ChainMeters>,
}

/// A batch of the owner's loop that is committed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Committed {
    /// How long it took: deciding and the commit.
    pub(crate) took: Duration,
    /// Events held now.
    pub(crate) events: u64,
    /// Of the new ones, those that were written here.
    pub(crate) written: u64,
    /// The replica's own totals.
    pub(crate) totals: Totals,
}

impl Meters {
    /// Meters of a node with these carriers and, if it uses the DHT, this chain.
    pub fn new(carriers: Vec<Traffic>, chain: Option<ChainMeters>) -> Self {
        Self { carriers, chain, ..Self::default() }
    }

    /// Notes that a session was authenticated, so long after the start. Only the first counts.
    pub(crate) fn peer_came(&self, since_start: Duration) {
        let us = (since_start.as_micros() as u64).max(1);
        // An error says that one came before.
        let _ = self.first_peer_us.compare_exchange(0, us, Relaxed, Relaxed);
    }

    /// Notes how many events there are before anything is done.
    pub(crate) fn begin(&self, events: u64) {
        self.events.store(events, Relaxed);
    }

    pub(crate) fn committed(&self, batch: Committed) {
        self.batches.fetch_add(1, Relaxed);
        self.batches_us.fetch_add(batch.took.as_micros() as u64, Relaxed);
        self.runs_taken.store(batch.totals.runs_taken, Relaxed);
        self.runs_duplicate.store(batch.totals.runs_duplicate, Relaxed);
        self.events_duplicate.store(batch.totals.events_duplicate, Relaxed);
        self.violations.store(batch.totals.violations, Relaxed);
        self.declined.store(batch.totals.declined, Relaxed);
        self.probes_dropped.store(batch.totals.probes_dropped, Relaxed);
        let new = batch.events.saturating_sub(self.events.load(Relaxed));
        if new > 0 {
            self.events_written.fetch_add(batch.written, Relaxed);
            self.events_received.fetch_add(new.saturating_sub(batch.written), Relaxed);
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.last_event_us.store(wall.as_micros() as u64, Relaxed);
            // Last: who sees them all finds the time of the last.
            self.events.store(batch.events, Relaxed);
        }
    }

    /// Notes how many files of attachments are here, and how many wait to be fetched.
    pub(crate) fn attachments(&self, held: Pending, pending: Pending) {
        self.files_held.store(held.count, Relaxed);
        self.files_held_bytes.store(held.bytes, Relaxed);
        self.files_pending.store(pending.count, Relaxed);
        self.files_pending_bytes.store(pending.bytes, Relaxed);
    }

    /// All numbers in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, kind: &str, value: String| {
            let _ = write!(text, "# TYPE mosaik_{name} {kind}\nmosaik_{name} {value}\n");
        };
        let get = |number: &AtomicU64| number.load(Relaxed).to_string();
        let seconds = |us: &AtomicU64| format!("{:.6}", us.load(Relaxed) as f64 / 1e6);
        line("events", "gauge", get(&self.events));
        line("last_event_timestamp_seconds", "gauge", seconds(&self.last_event_us));
        let files = [
            ("attachments_held", &self.files_held),
            ("attachments_held_bytes", &self.files_held_bytes),
            ("attachments_pending", &self.files_pending),
            ("attachments_pending_bytes", &self.files_pending_bytes),
        ];
        for (name, number) in files {
            line(name, "gauge", get(number));
        }
        let counters = [
            ("events_written_total", &self.events_written),
            ("events_received_total", &self.events_received),
            ("events_duplicate_total", &self.events_duplicate),
            ("runs_taken_total", &self.runs_taken),
            ("runs_duplicate_total", &self.runs_duplicate),
            ("sessions_violated_total", &self.violations),
            ("declined_total", &self.declined),
            ("probes_dropped_total", &self.probes_dropped),
        ];
        for (name, number) in counters {
            line(name, "counter", get(number));
        }
        if self.first_peer_us.load(Relaxed) > 0 {
            line("first_peer_seconds", "gauge", seconds(&self.first_peer_us));
        }
        if let Some(chain) = &self.chain {
            line("dht_lookups_total", "counter", chain.lookups().to_string());
            line("dht_puts_total", "counter", chain.puts().to_string());
            line("dht_conflicts_total", "counter", chain.conflicts().to_string());
            line("dht_stored_nodes", "gauge", chain.stored_at().to_string());
        }
        for (name, number) in self.traffic() {
            line(&format!("{name}_total"), "counter", number.to_string());
        }
        let (count, sum) = (get(&self.batches), seconds(&self.batches_us));
        let _ = write!(
            text,
            "# TYPE mosaik_batch_seconds summary\n\
             mosaik_batch_seconds_count {count}\nmosaik_batch_seconds_sum {sum}\n"
        );
        if let Some(chain) = &self.chain {
            text.push_str("# TYPE mosaik_slots gauge\n");
            for (state, slots) in chain.states() {
                let _ = writeln!(text, "mosaik_slots{{state=\"{}\"}} {slots}", state.as_str());
            }
        }
        text
    }

    /// What the carriers' bytes were for, of all of them together.
    pub fn purposes(&self) -> Vec<(&'static str, Bytes)> {
        let mut sums: Vec<(&'static str, Bytes)> = Vec::new();
        for (purpose, bytes) in self.carriers.iter().flat_map(Traffic::purposes) {
            match sums.iter_mut().find(|(known, _)| *known == purpose) {
                Some((_, sum)) => {
                    sum.sent += bytes.sent;
                    sum.received += bytes.received;
                }
                None => sums.push((purpose, bytes)),
            }
        }
        sums
    }

    /// What the carriers count, of all of them together.
    fn traffic(&self) -> Vec<(&'static str, u64)> {
        let mut sums: Vec<(&'static str, u64)> = Vec::new();
        for (name, number) in self.carriers.iter().flat_map(Traffic::numbers) {
            match sums.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += number,
                None => sums.push((name, number)),
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(events: u64, written: u64) -> Committed {
        let totals = Totals { runs_taken: 3, ..Totals::default() };
        Committed { took: Duration::from_millis(2), events, written, totals }
    }

    #[test]
    fn events_written_here_and_those_received_are_told_apart() {
        let meters = Meters::default();
        meters.begin(100);
        meters.committed(batch(105, 2));
        let text = meters.text();
        for line in [
            "mosaik_events 105",
            "mosaik_events_written_total 2",
            "mosaik_events_received_total 3",
            "mosaik_runs_taken_total 3",
            "mosaik_batch_seconds_count 1",
            "mosaik_batch_seconds_sum 0.002000",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn the_first_peer_is_timed_and_no_later_one() {
        let meters = Meters::default();
        assert!(!meters.text().contains("first_peer"), "nobody has come yet");
        meters.peer_came(Duration::from_millis(1500));
        meters.peer_came(Duration::from_millis(9000));
        assert!(meters.text().contains("\nmosaik_first_peer_seconds 1.500000\n"));
    }

    #[tokio::test]
    async fn a_chain_tells_of_every_state_that_a_slot_can_have() {
        let keys = mosaik_core::key::Network::Public("x".into()).keys();
        let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
        let mut config = mosaik_dht::ChainConfig::new(keys, key);
        // Nobody listens there, and nothing is sent beyond this machine.
        config.dht_bootstrap = vec!["127.0.0.1:9".into()];
        let (chain, _events) = mosaik_dht::ChainClient::spawn(config);
        let text = Meters::new(Vec::new(), Some(chain.meters())).text();
        for line in [
            "mosaik_dht_lookups_total 0",
            "mosaik_dht_puts_total 0",
            "mosaik_dht_conflicts_total 0",
            "mosaik_dht_stored_nodes 0",
            "mosaik_slots{state=\"unknown\"} 16",
            "mosaik_slots{state=\"live\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        let states = text.lines().filter(|line| line.starts_with("mosaik_slots{"));
        assert_eq!(states.count(), 10);
        assert!(text.lines().all(|line| line.starts_with('#') || line.split(' ').count() == 2));
    }

    #[test]
    fn a_batch_without_events_leaves_the_time_of_the_last_one() {
        let meters = Meters::default();
        meters.begin(100);
        meters.committed(batch(100, 0));
        assert!(meters.text().contains("mosaik_last_event_timestamp_seconds 0.000000\n"));
        meters.committed(batch(101, 0));
        assert!(!meters.text().contains("mosaik_last_event_timestamp_seconds 0.000000\n"));
    }
}
