//! Deterministic simulation of the engine: seeded policies, streams, edits and faults, and an auditor
//! outside the code under test. A failure prints its seed; `COMPTROLLER_SEED=n` replays it alone.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::struct_excessive_bools,
    clippy::result_large_err,
    reason = "a test fails by panicking"
)]

mod auditor;
mod book;
mod ledger;
#[cfg(feature = "planted")]
mod planted;
mod policy;
mod random;
mod request;
mod seen;
mod world;

use seen::Seen;
use world::{Failure, World};

/// Lines of a trace that are shown of a failure.
const SHOWN: usize = 40;

fn seeds(part: u64) -> std::ops::Range<u64> {
    let count = match std::env::var_os("COMPTROLLER_TEST_FULL") {
        Some(_) => 50_000,
        None => 4_000,
    };
    part * 1_000_000..part * 1_000_000 + count
}

fn show(failure: &Failure) -> String {
    let skipped = failure.trace.len().saturating_sub(SHOWN);
    let trace = failure.trace[skipped..].join("\n");
    format!("seed {}:\n{trace}\n{}", failure.seed, failure.fault)
}

fn run_all(part: u64) {
    let mut seen = Seen::default();
    for seed in seeds(part) {
        match World::new(seed).run() {
            Ok(run) => seen.add(run),
            Err(failure) => panic!("{}", show(&failure)),
        }
    }
    println!("{seen:?}");
    assert!(
        seen.is_telling(),
        "the runs have hardly seen anything: {seen:?}"
    );
}

#[test]
fn no_run_breaks_an_invariant() {
    run_all(1);
}

#[test]
fn no_other_run_breaks_an_invariant() {
    run_all(2);
}

#[test]
fn a_seed_can_be_replayed() {
    if let Ok(seed) = std::env::var("COMPTROLLER_SEED") {
        if let Err(failure) = World::new(seed.parse().unwrap()).run() {
            panic!("{}", failure.trace.join("\n") + "\n" + &failure.fault);
        }
    }
    let figures = |seed| {
        format!(
            "{:?}",
            World::new(seed).run().map_err(|failure| failure.seed)
        )
    };
    assert_eq!(figures(7), figures(7));
}
