//! How long to wait before the chain is read again.
//!
//! Invariants:
//! - While there is no peer it is read soon, and every 5 s for ten minutes; it is never left alone
//!   for longer than [`LONELY_MS_MAX`] then, jitter aside.
//! - With peers the waits only grow, to [`CALM_MS_MAX`]: 16 lookups an hour, and with those before
//!   its own renewals a node stays under 30.

/// Peers with which a node isn't in need of more.
pub(super) const PEERS_ENOUGH: usize = 3;

/// Waits after the first reads of a node without peers. Nodes that start together find an empty
/// chain and each other's records a moment later.
const LONELY_FIRST_MS: [u64; 3] = [1_000, 1_000, 2_000];
/// The wait while there is no peer.
const LONELY_MS: u64 = 5_000;
/// Reads at that pace: ten minutes. Who is alone for longer has published itself long ago, and
/// leaves the DHT in peace.
const LONELY_READS: u32 = 120;
/// The longest wait without a peer.
const LONELY_MS_MAX: u64 = 60_000;

/// The first wait once there are peers.
const CALM_MS: u64 = 60_000;
/// Reads at that pace while the peers are few.
const FEW_READS: u32 = 5;
/// How many times longer all but the first waits are where each byte costs.
const METERED_FACTOR: u64 = 4;
/// The longest wait.
const CALM_MS_MAX: u64 = 3_600_000;

/// Counts reads since the last change for the worse.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    lonely_reads: u32,
    calm_reads: u32,
    is_metered: bool,
}

impl Pace {
    /// Something got worse: begins anew at the shortest waits.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.is_metered);
    }

    /// Waits [`METERED_FACTOR`] times as long, once the first reads are done, if `is_metered`.
    pub(super) fn new(is_metered: bool) -> Self {
        Self { is_metered, ..Self::default() }
    }

    /// The wait after a read of all slots, without jitter.
    pub(super) fn after_read(&mut self, peers: usize) -> u64 {
        match self.usual(peers) {
            wait_ms if self.is_metered && wait_ms >= LONELY_MS => wait_ms * METERED_FACTOR,
            wait_ms => wait_ms,
        }
    }

    fn usual(&mut self, peers: usize) -> u64 {
        if peers == 0 {
            let reads = self.lonely_reads;
            self.lonely_reads = reads.saturating_add(1);
            self.calm_reads = 0;
            let first = usize::try_from(reads).ok().and_then(|at| LONELY_FIRST_MS.get(at));
            return first.copied().unwrap_or_else(|| match reads.checked_sub(LONELY_READS) {
                None => LONELY_MS,
                Some(over) => (LONELY_MS << (over / 4).min(8)).min(LONELY_MS_MAX),
            });
        }
        self.lonely_reads = 0;
        let reads = self.calm_reads;
        self.calm_reads = reads.saturating_add(1);
        let doublings = if peers < PEERS_ENOUGH { reads.saturating_sub(FEW_READS) } else { reads };
        (CALM_MS << doublings.min(8)).min(CALM_MS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(peers: usize, reads: usize) -> Vec<u64> {
        let mut pace = Pace::default();
        (0..reads).map(|_| pace.after_read(peers)).collect()
    }

    #[test]
    fn a_node_without_peers_reads_every_five_seconds_for_ten_minutes() {
        let waits = waits(0, 200);
        assert!(waits[3..120].iter().all(|&wait| wait == 5_000));
        assert!(waits[..120].iter().sum::<u64>() >= 589_000);
        assert_eq!(waits[199], 60_000);
    }

    #[test]
    fn a_node_with_peers_reads_ever_more_rarely_until_once_an_hour() {
        for peers in [1, 3] {
            let waits = waits(peers, 20);
            assert_eq!(waits[0], 60_000);
            assert!(waits.is_sorted());
            assert_eq!(waits[19], 3_600_000);
        }
        assert_eq!(waits(1, 5), [60_000; 5]);
        assert_eq!(waits(3, 3), [60_000, 120_000, 240_000]);
    }

    #[test]
    fn a_metered_node_joins_as_soon_and_reads_a_quarter_as_often_from_then_on() {
        let mut pace = Pace::new(true);
        let waits: Vec<u64> = (0..5).map(|_| pace.after_read(0)).collect();
        assert_eq!(waits, [1_000, 1_000, 2_000, 20_000, 20_000]);
        pace.reset();
        let last = (0..20).map(|_| pace.after_read(3)).last();
        assert_eq!(last, Some(4 * 3_600_000));
    }

    #[test]
    fn losing_all_peers_makes_the_waits_short_again() {
        let mut pace = Pace::default();
        for _ in 0..10 {
            pace.after_read(5);
        }
        pace.reset();
        assert_eq!(pace.after_read(0), 1_000);
    }
}
