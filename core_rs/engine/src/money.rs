//! Checked sums of amounts: nano units of currency, tokens or requests, always as `i64`.
use crate::error::{Error, Result};

/// Nano units in one unit of currency.
pub const NANOS_PER_UNIT: i64 = 1_000_000_000;

/// Add two amounts.
///
/// # Errors
/// [`Error::Overflow`].
pub(crate) fn add(left: i64, right: i64) -> Result<i64> {
    left.checked_add(right).ok_or(Error::Overflow)
}

/// Subtract an amount that is part of the other.
///
/// # Errors
/// [`Error::Overflow`] if the difference is negative: a part cannot be larger than its whole.
pub(crate) fn subtract(whole: i64, part: i64) -> Result<i64> {
    whole
        .checked_sub(part)
        .filter(|rest| *rest >= 0)
        .ok_or(Error::Overflow)
}

/// Accept an amount that is not negative.
///
/// # Errors
/// [`Error::InvalidArgument`].
pub(crate) fn amount(value: i64) -> Result<i64> {
    if value < 0 {
        Err(Error::InvalidArgument("amounts must not be negative"))
    } else {
        Ok(value)
    }
}
