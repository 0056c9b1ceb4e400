//! What of an interface's frames others may make this node work for.
//!
//! Each request for a link is answered, and remembered for up to six minutes; each announce is
//! verified, and remembered for days; of each broadcast a signature is checked. None costs the sender
//! anything but its own air.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use super::ceiling::Account;

/// Requests for links that are let in at once, and in a second: a guess, of 30 nodes that all come
/// back after the power did.
const REQUESTS: Rate = Rate { at_once: 64.0, a_second: 4.0 };

/// Announces: an rnsd that was away tells all that it knows when it is back.
const ANNOUNCES: Rate = Rate { at_once: 256.0, a_second: 8.0 };

/// Broadcasts: what radio carries, and what a few nodes say at once.
const BROADCASTS: Rate = Rate { at_once: 32.0, a_second: 8.0 };

/// How often something may happen.
#[derive(Debug, Clone, Copy)]
struct Rate {
    at_once: f64,
    a_second: f64,
}

/// Counts what happens.
#[derive(Debug)]
struct Tokens {
    rate: Rate,
    left: f64,
    filled: Instant,
}

impl Tokens {
    fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, left: rate.at_once, filled: now }
    }

    /// Takes one, if there is one.
    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.left = (self.left + passed * self.rate.a_second).min(self.rate.at_once);
        self.filled = now;
        let takes = self.left >= 1.0;
        if takes {
            self.left -= 1.0;
        }
        takes
    }
}

/// What is held against one interface of the configuration: all its connections share it.
#[derive(Debug)]
pub(super) struct Gate {
    requests: Mutex<Tokens>,
    announces: Mutex<Tokens>,
    broadcasts: Mutex<Tokens>,
    account: Option<Account>,
}

impl Gate {
    pub(super) fn new(account: Option<Account>, now: Instant) -> Self {
        let tokens = |rate| Mutex::new(Tokens::new(rate, now));
        let (requests, announces) = (tokens(REQUESTS), tokens(ANNOUNCES));
        Self { requests, announces, broadcasts: tokens(BROADCASTS), account }
    }

    /// Whether another request for a link may come in.
    pub(super) fn admits_request(&self, now: Instant) -> bool {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).take(now)
    }

    /// Whether another announce may come in.
    pub(super) fn admits_announce(&self, now: Instant) -> bool {
        self.announces.lock().unwrap_or_else(PoisonError::into_inner).take(now)
    }

    /// Whether another broadcast may come in.
    pub(super) fn admits_broadcast(&self, now: Instant) -> bool {
        self.broadcasts.lock().unwrap_or_else(PoisonError::into_inner).take(now)
    }

    /// Whether all frames may go out.
    pub(super) fn is_open(&self) -> bool {
        self.account.is_none()
    }

    /// Whether a frame may go out; it is counted then.
    pub(super) fn lets_out(&self, frame: &[u8], now: Instant) -> bool {
        self.account.as_ref().is_none_or(|account| account.takes(frame, now))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_let_in_at_its_rate_and_a_few_always() {
        let mut now = Instant::now();
        let gate = Gate::new(None, now);
        let mut admitted = 0;
        for _ in 0..60_000 {
            now += Duration::from_millis(1);
            admitted += u32::from(gate.admits_request(now));
        }
        assert!((300..=304).contains(&admitted), "{admitted}");
        now += Duration::from_secs(60);
        assert!((0..64).all(|_| gate.admits_request(now)));
        assert!(!gate.admits_request(now));
    }
}
