//! The fuzz targets as ordinary tests: on the corpus, and on inputs made from it.
//!
//! A failure names the target and the seed. `MOSAIK_FUZZ_SEED` begins there, and
//! `MOSAIK_FUZZ_INPUTS` says how many inputs are made of each target instead of 5,000.

use std::{
    collections::BTreeMap,
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use mosaik_tests::{
    Diary,
    fuzz::{TARGETS, Target, chance, hint, ingest, meshlog, message, run, slot},
    repository,
};
use rand::RngExt;

/// Inputs made of each target.
const INPUTS: u64 = 5_000;
/// Bytes of one input that are shown where it breaks something.
const SHOWN_MAX: usize = 4096;

fn corpus(target: &Target) -> PathBuf {
    repository().join("tests/fuzz/corpus").join(target.name)
}

#[test]
fn events_keep_their_promises() {
    holds("event");
}

#[test]
fn runs_keep_their_promises() {
    holds("run");
}

#[test]
fn messages_keep_their_promises() {
    holds("message");
}

#[test]
fn hints_keep_their_promises() {
    holds("hint");
}

#[test]
fn whatever_a_peer_sends_is_verified_before_it_is_kept() {
    holds("ingest");
}

#[test]
fn slots_keep_their_promises() {
    holds("slot");
}

#[test]
fn events_of_meshlogd_keep_their_promises() {
    holds("meshlog");
}

/// What is committed. What the fuzzer finds beside it has hashes for names.
#[test]
fn the_corpus_is_made_of_the_seeds() {
    for target in TARGETS {
        let directory = corpus(&target);
        let seeds: BTreeMap<String, Vec<u8>> = (target.seeds)().into_iter().collect();
        if env::var_os("MOSAIK_FUZZ_CORPUS").is_some_and(|text| text == "write") {
            write(&directory, &seeds);
        }
        let mut there = BTreeMap::new();
        for file in fs::read_dir(&directory).expect("each target has a corpus").flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            if name.contains('-') {
                there.insert(name, fs::read(file.path()).expect("a corpus is files"));
            }
        }
        let again = "MOSAIK_FUZZ_CORPUS=write makes it anew";
        assert!(there == seeds, "the corpus of {} is another: {again}", target.name);
    }
}

fn write(directory: &Path, seeds: &BTreeMap<String, Vec<u8>>) {
    // There may be none yet.
    let _ = fs::remove_dir_all(directory);
    fs::create_dir_all(directory).expect("the repository can be written");
    for (name, bytes) in seeds {
        fs::write(directory.join(name), bytes).expect("the repository can be written");
    }
}

/// Mutants reach what lies behind signatures and greetings: most of them would otherwise end there.
#[test]
fn many_mutants_are_well_formed() {
    for (target, is_taken, least) in [
        ("run", run::is_taken as fn(&[u8]) -> bool, 100),
        ("message", message::is_taken, 100),
        ("hint", hint::is_taken, 100),
        ("ingest", ingest::is_taken, 100),
        ("slot", slot::is_taken, 40),
        ("meshlog", meshlog::is_taken, 100),
    ] {
        let target = named(target);
        let (seeds, mut chance) = ((target.seeds)(), chance(1));
        let taken = (0..500).filter(|n| {
            let mut input = seeds[n % seeds.len()].1.clone();
            (target.mutate)(&mut input, &mut chance);
            is_taken(&input)
        });
        let taken = taken.count();
        Diary::begin().note(format_args!("{}: {taken} of 500 are taken", target.name));
        assert!(taken >= least, "{taken} of 500 mutants of {} are well formed", target.name);
    }
}

fn named(name: &str) -> Target {
    TARGETS.into_iter().find(|target| target.name == name).expect("a target of this name")
}

/// Checks the corpus, with what cargo-fuzz has found since, and inputs that are made of the seeds.
fn holds(name: &str) {
    let target = named(name);
    let diary = Diary::begin();
    for file in fs::read_dir(corpus(&target)).expect("each target has a corpus").flatten() {
        let input = fs::read(file.path()).expect("a corpus is files");
        try_input(&target, &file.path().display().to_string(), &input);
    }
    let seeds = (target.seeds)();
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse().ok());
    let first: u64 = number("MOSAIK_FUZZ_SEED").unwrap_or_else(rand::random);
    let count = number("MOSAIK_FUZZ_INPUTS").unwrap_or(INPUTS);
    diary.note(format_args!("{name}: {count} inputs, MOSAIK_FUZZ_SEED={first}"));
    for n in 0..count {
        let seed = first.wrapping_add(n);
        let mut chance = chance(seed);
        let mut input = seeds[chance.random_range(0..seeds.len())].1.clone();
        // Some changes lie behind others.
        for _ in 0..chance.random_range(1..=4) {
            (target.mutate)(&mut input, &mut chance);
        }
        let replay = format!("MOSAIK_FUZZ_SEED={seed} MOSAIK_FUZZ_INPUTS=1");
        try_input(&target, &replay, &input);
    }
    diary.note("all kept");
}

#[expect(clippy::print_stdout, reason = "a test's output is captured by its harness")]
fn try_input(target: &Target, origin: &str, input: &[u8]) {
    if let Err(broken) = catch_unwind(AssertUnwindSafe(|| (target.check)(input))) {
        let shown = &input[..input.len().min(SHOWN_MAX)];
        println!("{} breaks on {origin}: {}", target.name, HEXLOWER.encode(shown));
        resume_unwind(broken);
    }
}
