//! The most a text-only request can cost.
use super::cost::{PICOS_PER_NANO, Rates, add_product, nanos_of};
use super::error::PriceError;
use super::rate::Rate;
use super::unit::{INPUT_TOKENS, REQUESTS, Unit};
use super::usage::{COUNT_MAX, check_count};

/// How many choices one request asks for at most.
pub const CHOICES_MAX: u64 = 1 << 16;

/// What a request may use at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Input tokens, cached ones included.
    pub input_tokens: u64,
    /// Output tokens of each choice, reasoning included.
    pub output_tokens: u64,
    /// How many choices are asked for.
    pub choices: u64,
}

impl Extent {
    /// Refuse counts beyond their limits, and a request for no choice.
    pub(super) fn check(self) -> Result<Self, PriceError> {
        check_count("input_tokens", self.input_tokens)?;
        check_count("output_tokens", self.output_tokens)?;
        if !(1..=CHOICES_MAX).contains(&self.choices) {
            return Err(PriceError::Count {
                name: "choices",
                count: self.choices,
            });
        }
        Ok(self)
    }
}

/// The dearest rates a text-only request can reach.
///
/// Every input token is charged at the rate of exactly one input unit and every output token at that
/// of one output unit, so the dearest of them, over all tiers up to the input bound, is above all.
#[derive(Clone, Debug)]
pub(super) struct Ceiling {
    input: Rate,
    output: Rate,
    request: Rate,
    provable: bool,
}

impl Ceiling {
    /// Find the dearest rates among these.
    pub(super) fn of(rates: &Rates) -> Self {
        let among = |reachable: fn(Unit) -> bool| {
            let reached = rates.iter().filter(|priced| reachable(priced.unit));
            Rate::dearest(&reached.map(|priced| &priced.rate).collect::<Vec<_>>())
        };
        let paid_unbounded = rates
            .iter()
            .any(|p| p.unit.is_unbounded() && !p.rate.is_free());
        Self {
            input: among(Unit::is_text_input),
            output: among(Unit::is_text_answer),
            request: among(|unit| unit == REQUESTS),
            provable: !paid_unbounded
                && rates
                    .iter()
                    .any(|p| p.unit == INPUT_TOKENS || p.unit == REQUESTS),
        }
    }

    /// The most that anything within `extent` costs, in nano units.
    pub(super) fn bound(&self, extent: Extent) -> Result<i64, PriceError> {
        let picos = self.picos_before_output(extent.input_tokens)?;
        let output_tokens = extent
            .output_tokens
            .checked_mul(extent.choices)
            .ok_or(PriceError::Overflow)?;
        nanos_of(add_product(
            picos,
            output_tokens,
            self.output.at(extent.input_tokens),
        )?)
    }

    /// The largest `output_tokens` with which `extent` costs at most `nanos`; `None` if none.
    ///
    /// ⌈picos / 1000⌉ ≤ nanos exactly if picos ≤ 1000 × nanos, so nothing is lost to rounding.
    pub(super) fn output_within(
        &self,
        nanos: i64,
        extent: Extent,
    ) -> Result<Option<u64>, PriceError> {
        let before = self.picos_before_output(extent.input_tokens)?;
        let rest = i128::from(nanos)
            .checked_mul(PICOS_PER_NANO)
            .and_then(|picos| picos.checked_sub(before))
            .ok_or(PriceError::Overflow)?;
        if rest < 0 {
            return Ok(None);
        }
        let each = add_product(0, extent.choices, self.output.at(extent.input_tokens))?;
        let fitting = rest
            .checked_div(each)
            .map_or(COUNT_MAX, |fits| u64::try_from(fits).unwrap_or(COUNT_MAX));
        Ok(Some(fitting.min(COUNT_MAX)))
    }

    /// The dearest rate of one output token, in pico units, for a request with so much input.
    pub(super) fn output_picos(&self, input_tokens: u64) -> Result<u64, PriceError> {
        if self.provable {
            Ok(self.output.at(input_tokens))
        } else {
            Err(PriceError::NotBounded)
        }
    }

    fn picos_before_output(&self, input_tokens: u64) -> Result<i128, PriceError> {
        if !self.provable {
            return Err(PriceError::NotBounded);
        }
        let fee = i128::from(self.request.at(input_tokens));
        add_product(fee, input_tokens, self.input.at(input_tokens))
    }
}
