//! What a usage costs under one set of rates.
//!
//! The decomposition is that of `genai_prices/decompose.py`: each priced unit is charged for what no
//! more specific priced unit charges. Exact until one division at the end, rounded up.
use std::collections::BTreeMap;

use super::error::PriceError;
use super::rate::Rate;
use super::unit::{INPUT_TOKENS, REQUESTS, Unit};
use super::usage::Usage;

/// Pico units in one nano unit.
pub(super) const PICOS_PER_NANO: i128 = 1_000;

/// What the units of a request cost, the most specific first.
#[derive(Clone, Debug)]
pub(super) struct Rates {
    priced: Vec<Priced>,
}

#[derive(Clone, Debug)]
pub(super) struct Priced {
    pub(super) unit: Unit,
    pub(super) rate: Rate,
    /// The priced units that count a part of this one, as bits.
    parts: u64,
}

impl Rates {
    /// Price these units.
    ///
    /// # Errors
    /// [`PriceError::Price`] if a part is priced and its whole is not, or two overlapping units are
    /// priced and their overlap is not: then a usage could not be split.
    pub(super) fn new(rates: &BTreeMap<Unit, Rate>) -> Result<Self, PriceError> {
        check_coverage(rates)?;
        let parts = |whole: Unit| rates.keys().filter(move |unit| unit.is_part_of(whole));
        let mut priced: Vec<Priced> = rates
            .iter()
            .map(|(unit, rate)| Priced {
                unit: *unit,
                rate: rate.clone(),
                parts: parts(*unit).fold(0, |set, part| set | part.bit()),
            })
            .collect();
        priced.sort_by_key(|priced| std::cmp::Reverse(priced.unit.depth()));
        Ok(Self { priced })
    }

    /// The priced units.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Priced> {
        self.priced.iter()
    }

    /// What a usage costs in nano units.
    pub(super) fn cost(&self, usage: &Usage) -> Result<i64, PriceError> {
        let input_tokens = usage.count(INPUT_TOKENS);
        let mut charged: Vec<u64> = Vec::with_capacity(self.priced.len());
        let mut picos: i128 = 0;
        for priced in &self.priced {
            let count = self.own_count(priced, usage, &charged)?;
            charged.push(count);
            picos = add_product(picos, count, priced.rate.at(input_tokens))?;
        }
        nanos_of(picos)
    }

    /// How much of a unit none of its parts, which were charged before it, charges.
    fn own_count(&self, of: &Priced, usage: &Usage, charged: &[u64]) -> Result<u64, PriceError> {
        if of.unit == REQUESTS {
            return Ok(1);
        }
        let is_part = |(before, _): &(&Priced, &u64)| of.parts & before.unit.bit() != 0;
        self.priced
            .iter()
            .zip(charged)
            .filter(is_part)
            .try_fold(usage.count(of.unit), |left, (_, count)| {
                left.checked_sub(*count)
            })
            .ok_or(PriceError::Contradiction {
                whole: of.unit.name(),
            })
    }
}

/// Add `count` × `rate` to a sum of pico units.
pub(super) fn add_product(picos: i128, count: u64, rate: u64) -> Result<i128, PriceError> {
    i128::from(count)
        .checked_mul(i128::from(rate))
        .and_then(|product| picos.checked_add(product))
        .ok_or(PriceError::Overflow)
}

/// Divide a sum of pico units into nano units, rounding up.
pub(super) fn nanos_of(picos: i128) -> Result<i64, PriceError> {
    let up = picos
        .checked_add(PICOS_PER_NANO.saturating_sub(1))
        .ok_or(PriceError::Overflow)?;
    i64::try_from(up / PICOS_PER_NANO).map_err(|_| PriceError::Overflow)
}

/// The rules of `genai_prices/validation.py` (`validate_priced_units`).
fn check_coverage(rates: &BTreeMap<Unit, Rate>) -> Result<(), PriceError> {
    let priced = |unit: &Unit| rates.contains_key(unit);
    for unit in rates.keys() {
        if let Some(whole) = Unit::all().find(|whole| unit.is_part_of(*whole) && !priced(whole)) {
            return refuse(*unit, whole);
        }
        let unsplit = |other: &&Unit| {
            unit.can_overlap(**other)
                && !unit.joined_with(**other).is_some_and(|both| priced(&both))
        };
        if let Some(other) = rates.keys().find(unsplit) {
            return refuse(*unit, *other);
        }
    }
    Ok(())
}

fn refuse(unit: Unit, other: Unit) -> Result<(), PriceError> {
    let (unit, other) = (unit.name(), other.name());
    Err(PriceError::Price(format!(
        "{unit} is priced, what it shares with {other} is not"
    )))
}
