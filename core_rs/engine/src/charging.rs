//! From what a provider bills to what an organization is charged.
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::limit::Resource;
use crate::planted::{self, Fault};
use crate::reservation::Amounts;

/// Most exchange rates of one organization.
pub const RATES_MAX: usize = 1_000;
const PICOS_PER_UNIT: i128 = 1_000_000_000_000;
const PARTS_PER_UNIT: i128 = 1_000_000;
const MARKUP_PPM_MAX: i64 = 100_000_000;
const PICOS_PER_NANO: i128 = 1_000;

/// How an organization is charged from some instants on.
#[derive(Clone, Debug)]
pub(crate) struct Charging {
    /// Instants and picos of the organization's currency for a unit of the sheet's; ascending.
    rates: Vec<(u64, i64)>,
    markup_ppm: i64,
    fee_nanos: i64,
}

impl Default for Charging {
    /// Charge what it costs.
    fn default() -> Self {
        Self {
            rates: vec![(0, 1_000_000_000_000)],
            markup_ppm: 0,
            fee_nanos: 0,
        }
    }
}

/// Charging as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChargingForm {
    rates: Vec<RateForm>,
    markup_ppm: i64,
    fee_nanos: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RateForm {
    from_ns: u64,
    picos: i64,
}

impl ChargingForm {
    pub(crate) fn check(self) -> Result<Charging> {
        if self.rates.len() > RATES_MAX {
            return Err(Error::TooMany("exchange rates"));
        }
        let rates: Vec<(u64, i64)> = self
            .rates
            .into_iter()
            .map(|rate| (rate.from_ns, rate.picos))
            .collect();
        let is_ascending = rates.is_sorted_by(|left, right| left.0 < right.0);
        let fits = is_ascending
            && rates.iter().all(|(_, picos)| *picos > 0)
            && (0..=MARKUP_PPM_MAX).contains(&self.markup_ppm)
            && self.fee_nanos >= 0;
        if !fits {
            return Err(Error::InvalidPolicy("charging does not fit".to_owned()));
        }
        Ok(Charging {
            rates,
            markup_ppm: self.markup_ppm,
            fee_nanos: self.fee_nanos,
        })
    }
}

impl Charging {
    /// Return the terms at an instant; None while there is no exchange rate.
    pub(crate) fn terms_at(&self, wall_ns: u64) -> Option<Terms> {
        let (_, picos) = *self
            .rates
            .iter()
            .rev()
            .find(|(from_ns, _)| *from_ns <= wall_ns)?;
        Some(Terms {
            picos,
            markup_ppm: self.markup_ppm,
            fee_nanos: self.fee_nanos,
        })
    }
}

/// How one request is charged, whatever becomes of plan and rates while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    picos: i64,
    markup_ppm: i64,
    fee_nanos: i64,
}

impl Terms {
    /// Charge what it costs, in the sheet's own currency.
    pub const AT_COST: Self = Self {
        picos: 1_000_000_000_000,
        markup_ppm: 0,
        fee_nanos: 0,
    };

    /// Return the charge for a cost, rounded up once; what costs nothing is charged nothing.
    ///
    /// # Errors
    /// `Overflow`.
    pub fn charge(&self, cost_nanos: i64) -> Result<i64> {
        if cost_nanos == 0 || *self == Self::AT_COST {
            return Ok(cost_nanos);
        }
        let parts = PARTS_PER_UNIT.saturating_add(i128::from(self.markup_ppm));
        let product = i128::from(cost_nanos)
            .checked_mul(i128::from(self.picos))
            .and_then(|product| product.checked_mul(parts))
            .ok_or(Error::Overflow)?;
        let divisor = PICOS_PER_UNIT.saturating_mul(PARTS_PER_UNIT);
        let rounded = if planted::is(Fault::ChargeRoundedDown) {
            product.checked_div(divisor).unwrap_or(0)
        } else {
            div_up(product, divisor)
        };
        let nanos = rounded.saturating_add(i128::from(self.fee_nanos));
        i64::try_from(nanos).map_err(|_| Error::Overflow)
    }
}

/// What a request can cost, by the length of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tariff {
    pub(crate) terms: Terms,
    pub(crate) input_tokens: i64,
    pub(crate) output_tokens_max: i64,
    pub(crate) bound_nanos: i64,
    pub(crate) input_nanos: i64,
    pub(crate) output_picos: i64,
    /// What bounds are multiplied by, since the provider was seen to bill more.
    pub(crate) calibration: i64,
}

impl Tariff {
    /// Return the cost with so many output tokens, never above the bound.
    pub(crate) fn cost(&self, output_tokens: i64) -> Result<i64> {
        let cost = if output_tokens >= self.output_tokens_max {
            i128::from(self.bound_nanos)
        } else {
            let picos = i128::from(self.output_picos).saturating_mul(i128::from(output_tokens));
            let nanos = i128::from(self.input_nanos).saturating_add(div_up(picos, PICOS_PER_NANO));
            nanos.min(i128::from(self.bound_nanos))
        };
        let calibrated = cost.saturating_mul(i128::from(self.calibration));
        i64::try_from(calibrated).map_err(|_| Error::Overflow)
    }

    /// Return what a request with so many output tokens costs, uses and is charged.
    pub(crate) fn amounts(&self, output_tokens: i64) -> Result<Amounts> {
        let output_tokens = output_tokens.min(self.output_tokens_max);
        let cost_nanos = self.cost(output_tokens)?;
        Ok(Amounts {
            spend_nanos: self.terms.charge(cost_nanos)?,
            cost_nanos,
            tokens: self.input_tokens.saturating_add(output_tokens),
        })
    }

    /// Return the most output tokens that fit in the room of a resource; None if not even none.
    pub(crate) fn output_tokens_within(
        &self,
        resource: Resource,
        room: i64,
    ) -> Result<Option<i64>> {
        if self.amounts(0)?.of(resource) > room {
            return Ok(None);
        }
        // The amount grows with every token: halve the span in which it passes the room.
        let (mut fits, mut exceeds) = (0, self.output_tokens_max.saturating_add(1));
        while exceeds.saturating_sub(fits) > 1 {
            let middle = fits.saturating_add(exceeds.saturating_sub(fits) / 2);
            if self.amounts(middle)?.of(resource) <= room {
                fits = middle;
            } else {
                exceeds = middle;
            }
        }
        Ok(Some(fits))
    }
}

fn div_up(dividend: i128, divisor: i128) -> i128 {
    let quotient = dividend.checked_div(divisor).unwrap_or(i128::MAX);
    let rest = dividend.checked_rem(divisor).unwrap_or(0);
    quotient.saturating_add(i128::from(rest > 0))
}
