//! One priced model: its list prices over time, and the prices other request contexts select.
use std::borrow::Cow;
use std::collections::BTreeMap;

use super::bound::{Ceiling, Extent};
use super::condition::{Condition, next_occurrence_ns};
use super::cost::Rates;
use super::error::PriceError;
use super::rate::Rate;
use super::unit::{AUDIO_SECONDS, INPUT_AUDIO_SECONDS, Unit};
use super::usage::Usage;

/// The units in which audio is billed by its length.
const AUDIO: [Unit; 2] = [AUDIO_SECONDS, INPUT_AUDIO_SECONDS];

/// What selects a price besides the model, for example `service_tier` = `priority`.
pub type Context = BTreeMap<String, String>;

/// Prices of one model.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// Never empty; the last that is in force counts, else the first.
    pub(super) prices: Vec<Dated>,
    /// The first that fits counts, for each unit by itself.
    pub(super) variants: Vec<Variant>,
    /// Times of day at which prices can change.
    pub(super) switches_ns: Vec<u64>,
    pub(super) context_window: Option<u64>,
    /// Audio of any length is billed as at least this many seconds.
    pub(super) audio_seconds_min: u64,
    /// Whether the model makes priced searches nobody asked for.
    pub(super) searches_unasked: bool,
    pub(super) first_tier_above: Option<u64>,
}

/// List prices and when they are in force.
#[derive(Clone, Debug)]
pub(super) struct Dated {
    pub(super) when: Option<Condition>,
    pub(super) priced: Priced,
}

/// Rates with what they can amount to.
#[derive(Clone, Debug)]
pub(super) struct Priced {
    pub(super) rates: Rates,
    ceiling: Ceiling,
}

/// Prices that replace list prices in a context.
#[derive(Clone, Debug)]
pub(super) struct Variant {
    pub(super) context: Context,
    pub(super) when: Option<Condition>,
    pub(super) rates: BTreeMap<Unit, Rate>,
}

impl Priced {
    pub(super) fn new(rates: &BTreeMap<Unit, Rate>) -> Result<Self, PriceError> {
        let rates = Rates::new(rates)?;
        let ceiling = Ceiling::of(&rates);
        Ok(Self { rates, ceiling })
    }
}

impl Model {
    /// What a usage costs in nano units at the prices in force at an instant.
    pub(super) fn cost(
        &self,
        usage: &Usage,
        at_wall_ns: u64,
        context: Option<&Context>,
    ) -> Result<i64, PriceError> {
        let priced = self.in_force(at_wall_ns, context)?;
        let billed = self.billed(usage)?;
        priced.rates.cost(&billed)
    }

    /// The most that anything within `extent` costs at any price in force within a day.
    pub(super) fn bound(
        &self,
        extent: Extent,
        at_wall_ns: u64,
        context: Option<&Context>,
    ) -> Result<i64, PriceError> {
        self.check_bounded()?;
        self.instants(at_wall_ns).try_fold(0, |most, instant_ns| {
            let priced = self.in_force(instant_ns, context)?;
            Ok(priced.ceiling.bound(extent)?.max(most))
        })
    }

    /// The most one more output token adds to the bound, in pico units.
    pub(super) fn output_picos(
        &self,
        input_tokens: u64,
        at_wall_ns: u64,
        context: Option<&Context>,
    ) -> Result<u64, PriceError> {
        self.check_bounded()?;
        self.instants(at_wall_ns).try_fold(0, |most, instant_ns| {
            let priced = self.in_force(instant_ns, context)?;
            Ok(priced.ceiling.output_picos(input_tokens)?.max(most))
        })
    }

    /// The most output whose bound fits; `None` if none does.
    pub(super) fn output_within(
        &self,
        nanos: i64,
        extent: Extent,
        at_wall_ns: u64,
        context: Option<&Context>,
    ) -> Result<Option<u64>, PriceError> {
        self.check_bounded()?;
        let mut fitting = None;
        for instant_ns in self.instants(at_wall_ns) {
            let priced = self.in_force(instant_ns, context)?;
            let Some(output_tokens) = priced.ceiling.output_within(nanos, extent)? else {
                return Ok(None);
            };
            fitting = Some(fitting.map_or(output_tokens, |least: u64| least.min(output_tokens)));
        }
        Ok(fitting)
    }

    /// `at_wall_ns` and every instant within a day after it at which the price can change.
    fn instants(&self, at_wall_ns: u64) -> impl Iterator<Item = u64> {
        let next = move |time_ns: &u64| next_occurrence_ns(*time_ns, at_wall_ns);
        std::iter::once(at_wall_ns).chain(self.switches_ns.iter().map(next))
    }

    fn check_bounded(&self) -> Result<(), PriceError> {
        if self.searches_unasked {
            Err(PriceError::NotBounded)
        } else {
            Ok(())
        }
    }

    /// `ModelInfo.get_prices` of the catalogue.
    fn in_force(
        &self,
        at_wall_ns: u64,
        context: Option<&Context>,
    ) -> Result<Cow<'_, Priced>, PriceError> {
        let standard = self.standard(at_wall_ns)?;
        let Some(context) = context.filter(|context| !context.is_empty()) else {
            return Ok(Cow::Borrowed(standard));
        };
        let mut rates = BTreeMap::new();
        for variant in self.variants.iter().filter(|v| v.fits(at_wall_ns, context)) {
            for (unit, rate) in &variant.rates {
                rates.entry(*unit).or_insert_with(|| rate.clone());
            }
        }
        if rates.is_empty() {
            return Ok(Cow::Borrowed(standard));
        }
        for listed in standard.rates.iter() {
            rates
                .entry(listed.unit)
                .or_insert_with(|| listed.rate.clone());
        }
        Priced::new(&rates).map(Cow::Owned)
    }

    fn standard(&self, at_wall_ns: u64) -> Result<&Priced, PriceError> {
        self.prices
            .iter()
            .rev()
            .find(|dated| holds(dated.when, at_wall_ns))
            .or(self.prices.first())
            .map(|dated| &dated.priced)
            .ok_or_else(|| PriceError::Price("a model has no price".to_owned()))
    }

    /// The usage as it is billed: audio has a least length (`ModelInfo.calc_price`).
    fn billed<'a>(&self, usage: &'a Usage) -> Result<Cow<'a, Usage>, PriceError> {
        let reported = AUDIO
            .iter()
            .map(|unit| usage.count(*unit))
            .find(|seconds| *seconds > 0);
        let Some(seconds) = reported.filter(|_| self.audio_seconds_min > 0) else {
            return Ok(Cow::Borrowed(usage));
        };
        let seconds = seconds.max(self.audio_seconds_min);
        let billed = AUDIO
            .iter()
            .try_fold(usage.clone(), |usage, unit| usage.with(*unit, seconds));
        billed.map(Cow::Owned)
    }
}

impl Variant {
    fn fits(&self, at_wall_ns: u64, context: &Context) -> bool {
        let given = |(name, value): (&String, &String)| context.get(name) == Some(value);
        holds(self.when, at_wall_ns) && self.context.iter().all(given)
    }
}

fn holds(when: Option<Condition>, at_wall_ns: u64) -> bool {
    when.is_none_or(|condition| condition.holds(at_wall_ns))
}
