//! Behaviour of limits, counters, reservations and keys, through the crate's public face.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod auditor;
mod calendar;
mod charging;
mod clock;
mod fixture;
mod holding;
mod holds;
#[cfg(feature = "shuttle")]
mod interleaving;
#[cfg(not(feature = "shuttle"))]
mod keys;
mod labels;
mod ledger;
mod loading;
mod model;
mod periods;
mod previewing;
mod refusing;
mod scopes;
mod settling;
mod steps;
mod waiting;
mod window;
