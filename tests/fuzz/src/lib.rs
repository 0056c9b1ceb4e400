//! What bytes from outside may do, as functions of bytes: cargo-fuzz calls them without end, the tests
//! of the whole on the corpus and on some thousand inputs made from it.
//!
//! Invariants:
//! - A target panics where a promise is broken, and for nothing else.
//! - It depends on its input alone: what broke a promise once breaks it again.
//! - Mutants come from valid inputs and are mostly well formed: random bytes end at the first hash or
//!   signature, and find nothing behind it.
//!
//! With the fuzzer, from the repository's top (`cargo install cargo-fuzz --locked`; on stable Rust):
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir tests/fuzz run -- -rss_limit_mb=512 -malloc_limit_mb=64`.
//! The corpus that is committed are the seeds, of the golden vectors for the most part;
//! `MOSAIK_FUZZ_CORPUS=write cargo test -p mosaik-tests --test it the_corpus` writes them.

mod bytes;
pub mod event;
pub mod hint;
pub mod ingest;
pub mod meshlog;
pub mod message;
pub mod run;
pub mod slot;
mod vectors;
mod world;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Where chance comes from: the same seed, the same inputs.
pub type Chance = ChaCha8Rng;

/// Chance that begins at `seed`.
pub fn chance(seed: u64) -> Chance {
    Chance::seed_from_u64(seed)
}

/// A valid input and what it is called in the corpus.
pub type Seed = (String, Vec<u8>);

/// One kind of bytes from outside.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// What cargo-fuzz and the corpus call it.
    pub name: &'static str,
    /// Valid inputs of every kind.
    pub seeds: fn() -> Vec<Seed>,
    /// Makes another input of one, whatever that is.
    pub mutate: fn(&mut Vec<u8>, &mut Chance),
    /// Holds the promises against an input; panics where one is broken.
    pub check: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 7] = [
    event::TARGET,
    run::TARGET,
    message::TARGET,
    hint::TARGET,
    ingest::TARGET,
    slot::TARGET,
    meshlog::TARGET,
];
