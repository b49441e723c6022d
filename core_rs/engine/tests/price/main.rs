//! Prices: exact costs, bounds that hold, sheets that are refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::needless_pass_by_value,
    reason = "a test that panics has failed, which is what it is for"
)]

mod bound;
mod cost;
mod dates;
mod fixture;
mod property;
mod sheet;
