//! A limit on the bytes that are read, or written, for all sessions and files together.
//!
//! Invariants:
//! - Who takes of a rate takes turns, in pieces of an eighth of a second's worth at the most.
//! - All files together are one of those who take turns: a session never stands behind more than one
//!   piece of a file, and files go on beside sessions that never pause.

use std::{
    sync::{Arc, Mutex},
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
/// Locked by all sessions for a few instructions, never across an await.
#[derive(Debug)]
pub(crate) struct Rate {
    bytes_per_s: u64,
    paid: Mutex<Instant>,
}

impl Rate {
    pub(crate) fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s: bytes_per_s.max(1), paid: Mutex::new(Instant::now()) }
    }

    /// Waits until `bytes` that have gone are within the rate. A reader that waits doesn't read on, so that
    /// the peer's flow control stops it; a writer lets what is to follow wait.
    pub(crate) async fn take(&self, bytes: usize) {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
        let until = {
            let mut paid = self.paid.lock().expect("nothing panics while it holds this lock");
            let now = Instant::now();
            *paid = (*paid).max(now.checked_sub(BURST).unwrap_or(now)) + cost;
            *paid
        };
        sleep_until(until).await;
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
        self.rate.bytes_per_s
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
        usize::try_from(rate.bytes_per_s / 8).unwrap_or(PIECE_MAX).clamp(512, PIECE_MAX)
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
}
