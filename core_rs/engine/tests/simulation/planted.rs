//! Each fault that is planted in the engine is caught, or the simulation is broken itself.
use std::panic::{AssertUnwindSafe, catch_unwind};

use comptroller_engine::{FAULTS, Fault, plant};

use crate::world::World;

/// A fault that takes more runs than this to be seen is as good as not caught.
const RUNS_MAX: u64 = 1_000;

/// Return the run and what the auditor said; an error of the engine is caught as well.
fn caught(fault: Fault) -> Option<(u64, String)> {
    plant(Some(fault));
    let found = (0..RUNS_MAX).find_map(|seed| {
        let run = catch_unwind(AssertUnwindSafe(|| World::new(seed).run()));
        match run {
            Ok(Ok(_)) => None,
            Ok(Err(failure)) => Some((seed, failure.fault)),
            Err(_) => Some((seed, "the engine returned an error".to_owned())),
        }
    });
    plant(None);
    found
}

#[test]
fn every_planted_fault_is_caught() {
    for fault in FAULTS {
        let found = caught(fault);
        let (seed, said) = found.unwrap_or_else(|| panic!("{fault:?} is not caught"));
        let said: String = said.chars().take(120).collect();
        println!("{fault:?}: seed {seed}: {said}");
    }
}

#[test]
fn nothing_is_caught_where_nothing_is_planted() {
    for seed in 0..RUNS_MAX {
        assert!(World::new(seed).run().is_ok(), "seed {seed}");
    }
}
