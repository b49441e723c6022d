//! How a price sheet is written: canonical JSON, compiled by `controlplane/pricing/sheet.py`.
use std::collections::BTreeMap;

use serde::Deserialize;

use super::condition::Condition;
use super::error::PriceError;
use super::model::{Context, Dated, Model, Priced, Variant};
use super::rate::{Rate, RateFile};
use super::unit::{UNITS_LEN, Unit};
use super::usage::COUNT_MAX;

/// How many dated prices or variants one model has at most.
pub(super) const ENTRIES_MAX: usize = 64;
/// How many aliases or context values one entry has at most.
pub(super) const NAMES_MAX: usize = 256;
/// How long a name is at most, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 200;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SheetFile {
    pub(super) format: u32,
    pub(super) currency: String,
    /// What the sheet was compiled from; informative.
    pub(super) source: String,
    /// The sorted traits of every unit, so that a catalogue with other units is noticed.
    pub(super) units: BTreeMap<String, Vec<String>>,
    pub(super) models: Vec<ModelFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelFile {
    pub(super) provider: String,
    pub(super) model: String,
    pub(super) aliases: Vec<String>,
    context_window: Option<u64>,
    audio_seconds_min: u64,
    searches_unasked: bool,
    prices: Vec<DatedFile>,
    variants: Vec<VariantFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DatedFile {
    when: Option<Condition>,
    rates: BTreeMap<String, RateFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VariantFile {
    context: Context,
    when: Option<Condition>,
    rates: BTreeMap<String, RateFile>,
}

impl SheetFile {
    /// Refuse a sheet whose units are not the ones this code prices.
    pub(super) fn check_units(&self) -> Result<(), PriceError> {
        let known = |(name, traits): (&String, &Vec<String>)| {
            Unit::named(name).is_some_and(|unit| unit.trait_names() == *traits)
        };
        if self.units.len() == UNITS_LEN && self.units.iter().all(known) {
            return Ok(());
        }
        Err(PriceError::Sheet(
            "the units are not those of this engine".to_owned(),
        ))
    }
}

impl ModelFile {
    /// All names the model is found by.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.model).chain(&self.aliases)
    }

    /// Check the entry and make it ready for use.
    pub(super) fn compile(self) -> Result<Model, PriceError> {
        self.check_sizes()?;
        let prices = self.prices.into_iter().map(DatedFile::compile);
        let prices: Vec<Dated> = prices.collect::<Result<_, _>>()?;
        let variants = self.variants.into_iter().map(VariantFile::compile);
        let variants: Vec<Variant> = variants.collect::<Result<_, _>>()?;
        Ok(Model {
            switches_ns: switches_ns(&prices, &variants),
            first_tier_above: first_tier_above(&prices, &variants),
            context_window: self.context_window,
            audio_seconds_min: self.audio_seconds_min,
            searches_unasked: self.searches_unasked,
            prices,
            variants,
        })
    }

    fn check_sizes(&self) -> Result<(), PriceError> {
        check_name(&self.provider)?;
        self.names().try_for_each(|name| check_name(name))?;
        let listed = self.prices.len().max(self.variants.len());
        let counted = self.context_window.unwrap_or(0).max(self.audio_seconds_min);
        if self.prices.is_empty()
            || listed > ENTRIES_MAX
            || self.aliases.len() > NAMES_MAX
            || counted > COUNT_MAX
        {
            return Err(PriceError::Sheet(
                "an entry is empty or too large".to_owned(),
            ));
        }
        Ok(())
    }
}

impl DatedFile {
    fn compile(self) -> Result<Dated, PriceError> {
        let when = self.when.map(Condition::check).transpose()?;
        Ok(Dated {
            when,
            priced: Priced::new(&compile_rates(self.rates)?)?,
        })
    }
}

impl VariantFile {
    fn compile(self) -> Result<Variant, PriceError> {
        if self.context.is_empty() || self.context.len() > NAMES_MAX {
            return Err(PriceError::Sheet(
                "a variant has no context or a too large one".to_owned(),
            ));
        }
        for (name, value) in &self.context {
            check_name(name)?;
            check_name(value)?;
        }
        let when = self.when.map(Condition::check).transpose()?;
        Ok(Variant {
            context: self.context,
            when,
            rates: compile_rates(self.rates)?,
        })
    }
}

fn compile_rates(files: BTreeMap<String, RateFile>) -> Result<BTreeMap<Unit, Rate>, PriceError> {
    if files.is_empty() {
        return Err(PriceError::Sheet("an entry has no rates".to_owned()));
    }
    let compile = |(name, file): (String, RateFile)| {
        let unknown = || PriceError::Sheet(format!("no unit is named {name:?}"));
        Ok((
            Unit::named(&name).ok_or_else(unknown)?,
            Rate::try_from(file)?,
        ))
    };
    files.into_iter().map(compile).collect()
}

fn check_name(name: &str) -> Result<(), PriceError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(PriceError::Sheet("a name is empty or too long".to_owned()));
    }
    Ok(())
}

fn switches_ns(prices: &[Dated], variants: &[Variant]) -> Vec<u64> {
    let conditions = prices.iter().map(|dated| dated.when);
    let conditions = conditions.chain(variants.iter().map(|variant| variant.when));
    let mut switches: Vec<u64> = conditions
        .flatten()
        .flat_map(Condition::switches_ns)
        .collect();
    switches.sort_unstable();
    switches.dedup();
    switches
}

fn first_tier_above(prices: &[Dated], variants: &[Variant]) -> Option<u64> {
    let listed = prices.iter().flat_map(|dated| dated.priced.rates.iter());
    let listed = listed.filter_map(|priced| priced.rate.first_above());
    let varied = variants.iter().flat_map(|variant| variant.rates.values());
    listed.chain(varied.filter_map(Rate::first_above)).min()
}
