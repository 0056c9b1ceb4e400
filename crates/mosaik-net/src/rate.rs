//! Limits on what is done in a second: bytes that are read, or written, for all sessions and files
//! together; and what one peer asks for.
//!
//! Invariants:
//! - Who takes of a rate takes turns, in pieces of an eighth of a second's worth at the most.
//! - All files together are one of those who take turns: a session never stands behind more than one
//!   piece of a file, and files go on beside sessions that never pause.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// How much may come at once after a pause, in time at the set rate.
///
/// A guess: short enough that a second's worth of bytes never comes as one burst.
const BURST: Duration = Duration::from_millis(250);
/// The most that goes in one piece without a limit.
const PIECE_MAX: usize = 64 * 1024;

/// A token bucket, counted in time: when all that was taken so far is paid for.
///
/// Locked by all that take for a few instructions, never across an await.
#[derive(Debug)]
pub(crate) struct Rate {
    per_s: u64,
    burst: Duration,
    paid: Mutex<Instant>,
}

impl Rate {
    /// So many bytes a second.
    pub(crate) fn new(bytes_per_s: u64) -> Self {
        Self::with_burst(bytes_per_s, BURST)
    }

    /// So many of whatever is counted a second, and after a pause those of `burst` at once.
    pub(crate) fn with_burst(per_s: u64, burst: Duration) -> Self {
        let now = Instant::now();
        // Nothing was taken yet: the pause before the first is long enough.
        let paid = Mutex::new(now.checked_sub(burst).unwrap_or(now));
        Self { per_s: per_s.max(1), burst, paid }
    }

    /// Waits until `units` that have gone are within the rate. A reader that waits doesn't read on, so that
    /// the peer's flow control stops it; a writer lets what is to follow wait.
    pub(crate) async fn take(&self, units: usize) {
        if let Some(until) = self.charge(units) {
            sleep_until(until).await;
        }
    }

    /// Takes `units`, and says when that is within the rate; none: it is by now.
    pub(crate) fn charge(&self, units: usize) -> Option<Instant> {
        let (mut paid, now) = self.paid();
        *paid += self.cost(units);
        Some(*paid).filter(|paid| *paid > now)
    }

    /// Takes one if that is within the rate by now.
    pub(crate) fn try_take(&self) -> bool {
        let (mut paid, now) = self.paid();
        let is_free = *paid + self.cost(1) <= now;
        if is_free {
            *paid += self.cost(1);
        }
        is_free
    }

    /// Whether a fresh one would be just like it.
    pub(crate) fn is_rested(&self) -> bool {
        let (paid, now) = self.paid();
        *paid + self.burst <= now
    }

    fn cost(&self, units: usize) -> Duration {
        Duration::from_secs_f64(units as f64 / self.per_s as f64)
    }

    /// When all is paid for, not further back than what is saved up; and the time by which that is.
    fn paid(&self) -> (MutexGuard<'_, Instant>, Instant) {
        let mut paid = self.paid.lock().expect("nothing panics while it holds this lock");
        let now = Instant::now();
        *paid = (*paid).max(now.checked_sub(self.burst).unwrap_or(now));
        (paid, now)
    }
}

/// The one place that all files have among the sessions that share a rate.
#[derive(Debug)]
pub(crate) struct Place {
    rate: Arc<Rate>,
    /// Held by the file whose turn it is; they get it in the order in which they ask.
    turn: tokio::sync::Mutex<()>,
}

impl Place {
    pub(crate) fn new(rate: Arc<Rate>) -> Self {
        Self { rate, turn: tokio::sync::Mutex::default() }
    }

    pub(crate) fn bytes_per_s(&self) -> u64 {
        self.rate.per_s
    }

    /// As [`Rate::take`], piece by piece, when it is this one's turn.
    pub(crate) async fn take(&self, bytes: usize) {
        let _turn = self.turn.lock().await;
        let piece_max = piece_max(Some(&self.rate));
        let mut rest = bytes;
        while rest > 0 {
            let piece = rest.min(piece_max);
            self.rate.take(piece).await;
            rest -= piece;
        }
    }
}

/// The most that goes in one piece: an eighth of a second's worth.
pub(crate) fn piece_max(rate: Option<&Rate>) -> usize {
    rate.map_or(PIECE_MAX, |rate| {
        usize::try_from(rate.per_s / 8).unwrap_or(PIECE_MAX).clamp(512, PIECE_MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn two_takers_share_one_rate() {
        let rate = Rate::new(1000);
        let start = Instant::now();
        let take = async || {
            for _ in 0..20 {
                rate.take(100).await;
            }
        };
        tokio::join!(take(), take());
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(3700), "{took:?}");
        assert!(took <= Duration::from_millis(4100), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_pause_saves_up_a_quarter_of_a_second_only() {
        let rate = Rate::new(1000);
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        rate.take(1000).await;
        assert!(start.elapsed() >= Duration::from_millis(740), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_stands_behind_one_piece_of_a_file_however_many_there_are() {
        let rate = Arc::new(Rate::new(8000));
        let place = Arc::new(Place::new(rate.clone()));
        let mut files = tokio::task::JoinSet::new();
        for _ in 0..32 {
            let place = place.clone();
            files.spawn(async move { place.take(16_000).await });
        }
        for _ in 0..20 {
            tokio::time::advance(Duration::from_millis(500)).await;
            let start = Instant::now();
            rate.take(100).await;
            assert!(start.elapsed() <= Duration::from_millis(300), "{:?}", start.elapsed());
        }
        assert!(!files.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_never_pauses_and_the_files_get_as_much() {
        let rate = Arc::new(Rate::new(8000));
        let place = Place::new(rate.clone());
        let session = async {
            for _ in 0..100 {
                rate.take(1000).await;
            }
        };
        let start = Instant::now();
        tokio::select! {
            () = session => panic!("the files were kept waiting"),
            () = place.take(80_000) => {}
        }
        assert!(start.elapsed() >= Duration::from_secs(19), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_wait_gets_what_is_saved_up_and_then_the_rate() {
        let rate = Rate::with_burst(10, Duration::from_secs(2));
        let got = |rate: &Rate| (0..100).filter(|_| rate.try_take()).count();
        assert_eq!(got(&rate), 20);
        assert!(!rate.is_rested());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(got(&rate), 10);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(rate.is_rested());
        assert_eq!(got(&rate), 20);
    }
}
