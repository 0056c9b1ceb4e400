//! Randomness as an argument: numbers drawn from one seed.

/// A source of random numbers that gives the same for the same seed.
///
/// The caller seeds it from the system, a test from a number.
#[derive(Debug, Clone)]
pub struct Draw {
    seed: [u8; 32],
    drawn: u64,
}

impl Draw {
    /// Draws from `seed`, which must not be used twice outside tests: nonces come from it.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self { seed, drawn: 0 }
    }

    /// A number below `limit`, or 0 if that is 0. Its bias is below `limit` / 2^64.
    pub fn below(&mut self, limit: u64) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.next();
        u64::from_be_bytes([a, b, c, d, e, f, g, h]).checked_rem(limit).unwrap_or(0)
    }

    /// `base`, and up to a third more.
    pub fn jittered(&mut self, base: u64) -> u64 {
        base + self.below(base / 3 + 1)
    }

    /// A nonce for one sealed record.
    pub fn nonce(&mut self) -> [u8; 24] {
        let mut nonce = [0; 24];
        nonce.copy_from_slice(&self.next()[..24]);
        nonce
    }

    fn next(&mut self) -> [u8; 32] {
        self.drawn += 1;
        *blake3::keyed_hash(&self.seed, &self.drawn.to_be_bytes()).as_bytes()
    }
}
