//! Prices: what a request can cost at most, and what it did cost.
//!
//! A [`PriceSheet`] is compiled from the catalogue `genai-prices` and agrees with it, fed with the
//! same rounded prices, to the nano unit. Rates are integer pico units of currency per unit of
//! [`Usage`]; amounts are nano units, rounded up once at the end.
mod bound;
mod condition;
mod cost;
mod error;
mod file;
mod model;
mod rate;
mod sheet;
mod unit;
mod usage;

pub use bound::{CHOICES_MAX, Extent};
pub use error::PriceError;
pub use model::Context;
pub use sheet::{FORMAT, MODELS_MAX, PriceSheet, SHEET_BYTES_MAX};
pub use unit::{
    CACHE_READ_TOKENS, CACHE_WRITE_TOKENS, INPUT_TOKENS, OUTPUT_REASONING_TOKENS, OUTPUT_TOKENS,
    REQUESTS, UNITS_LEN, Unit,
};
pub use usage::{COUNT_MAX, Usage};
