//! What one request used, by unit.
use super::error::PriceError;
use super::unit::{INPUT_TOKENS, OUTPUT_TOKENS, UNITS_LEN, Unit};

/// The largest count of any unit, 2⁴⁰: a thousand times what the largest context window holds.
pub const COUNT_MAX: u64 = 1 << 40;

/// Counts by unit, overlapping as providers report them; 0 where nothing was reported.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Usage {
    counts: [u64; UNITS_LEN],
}

impl Default for Usage {
    fn default() -> Self {
        Self {
            counts: [0; UNITS_LEN],
        }
    }
}

impl Usage {
    /// A usage of text tokens that were neither cached nor reasoned with.
    ///
    /// # Errors
    /// [`PriceError::Count`] above [`COUNT_MAX`].
    pub fn of_tokens(input: u64, output: u64) -> Result<Self, PriceError> {
        Self::default()
            .with(INPUT_TOKENS, input)?
            .with(OUTPUT_TOKENS, output)
    }

    /// The same usage with one count replaced.
    ///
    /// # Errors
    /// [`PriceError::Count`] above [`COUNT_MAX`].
    pub fn with(mut self, unit: Unit, count: u64) -> Result<Self, PriceError> {
        check_count(unit.name(), count)?;
        if let Some(slot) = self.counts.get_mut(unit.index()) {
            *slot = count;
        }
        Ok(self)
    }

    /// The count of one unit.
    pub fn count(&self, unit: Unit) -> u64 {
        self.counts.get(unit.index()).copied().unwrap_or(0)
    }

    /// The counts that are not zero, in the catalogue's order.
    pub fn nonzero(&self) -> impl Iterator<Item = (Unit, u64)> {
        Unit::all()
            .map(|unit| (unit, self.count(unit)))
            .filter(|(_, count)| *count > 0)
    }
}

/// Refuse a count above [`COUNT_MAX`].
pub(super) fn check_count(name: &'static str, count: u64) -> Result<(), PriceError> {
    if count > COUNT_MAX {
        return Err(PriceError::Count { name, count });
    }
    Ok(())
}
