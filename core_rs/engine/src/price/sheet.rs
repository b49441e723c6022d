//! A price version in memory: immutable, found by exact names.
use std::collections::HashMap;

use super::bound::Extent;
use super::error::PriceError;
use super::file::{ModelFile, SheetFile};
use super::model::{Context, Model};
use super::usage::{Usage, check_count};

/// The format this code reads.
pub const FORMAT: u32 = 1;
/// How large the JSON of a sheet is at most.
pub const SHEET_BYTES_MAX: usize = 16 << 20;
/// How many models a sheet prices at most.
pub const MODELS_MAX: usize = 50_000;

/// Prices of models by (provider, model).
#[derive(Debug)]
pub struct PriceSheet {
    currency: String,
    source: String,
    models: Vec<Model>,
    index: HashMap<String, HashMap<String, usize>>,
}

impl PriceSheet {
    /// Load a sheet.
    ///
    /// # Errors
    /// [`PriceError::Sheet`] or [`PriceError::Price`] naming what is wrong.
    pub fn load(json: &[u8]) -> Result<Self, PriceError> {
        if json.len() > SHEET_BYTES_MAX {
            return Err(PriceError::Sheet("the sheet is too large".to_owned()));
        }
        let file: SheetFile =
            serde_json::from_slice(json).map_err(|error| PriceError::Sheet(error.to_string()))?;
        if file.format != FORMAT || file.models.len() > MODELS_MAX {
            return Err(PriceError::Sheet(
                "another format, or too many models".to_owned(),
            ));
        }
        file.check_units()?;
        let index = index_of(&file.models)?;
        let models = file
            .models
            .into_iter()
            .map(compile)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            currency: file.currency,
            source: file.source,
            models,
            index,
        })
    }

    /// The currency of all prices, ISO 4217.
    pub fn currency(&self) -> &str {
        &self.currency
    }

    /// What the sheet was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How many models have a price.
    pub fn len(&self) -> usize {
        self.models.len()
    }

    /// Whether no model has a price.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// The index of the price of exactly this model.
    pub fn find(&self, provider: &str, model: &str) -> Option<usize> {
        self.index.get(provider)?.get(model).copied()
    }

    /// How many input tokens the model takes, where known.
    ///
    /// # Errors
    /// [`PriceError::Unknown`].
    pub fn context_window(&self, price: usize) -> Result<Option<u64>, PriceError> {
        Ok(self.model(price)?.context_window)
    }

    /// Whether this many input tokens reach beyond the first tier of any price of the model.
    ///
    /// # Errors
    /// [`PriceError::Unknown`].
    pub fn input_tiers_cross(&self, price: usize, tokens: u64) -> Result<bool, PriceError> {
        Ok(self
            .model(price)?
            .first_tier_above
            .is_some_and(|above| tokens > above))
    }

    /// What a usage costs in nano units, rounded up once; a price per request counts once.
    ///
    /// # Errors
    /// [`PriceError::Unknown`], [`PriceError::Contradiction`], [`PriceError::Overflow`];
    /// [`PriceError::Price`] where the context leaves parts of usages unpriced.
    pub fn cost(
        &self,
        price: usize,
        usage: &Usage,
        at_wall_ns: u64,
        context: Option<&Context>,
    ) -> Result<i64, PriceError> {
        self.model(price)?.cost(usage, at_wall_ns, context)
    }

    /// The most nano units a text-only request within `extent` costs, settled within a day.
    ///
    /// # Errors
    /// As [`Self::cost`]; [`PriceError::NotBounded`], [`PriceError::Count`].
    pub fn bound(
        &self,
        price: usize,
        extent: Extent,
        at_wall_ns: u64,
        context: Option<&Context>,
    ) -> Result<i64, PriceError> {
        self.model(price)?
            .bound(extent.check()?, at_wall_ns, context)
    }

    /// The dearest rate of one output token of a request with so much input, in pico units.
    ///
    /// [`Self::bound`] of any output is at most that of no output plus the output at this rate,
    /// rounded up. Where one list price is in force all day it is at most one nano unit less.
    ///
    /// # Errors
    /// As [`Self::bound`].
    pub fn output_picos(
        &self,
        price: usize,
        input_tokens: u64,
        at_wall_ns: u64,
        context: Option<&Context>,
    ) -> Result<u64, PriceError> {
        check_count("input_tokens", input_tokens)?;
        self.model(price)?
            .output_picos(input_tokens, at_wall_ns, context)
    }

    /// The most output tokens a choice whose bound fits into `nanos`, `None` if not even none do.
    ///
    /// `extent.output_tokens` is not read. At most [`super::COUNT_MAX`].
    ///
    /// # Errors
    /// As [`Self::bound`].
    pub fn output_tokens_within(
        &self,
        price: usize,
        nanos: i64,
        extent: Extent,
        at_wall_ns: u64,
        context: Option<&Context>,
    ) -> Result<Option<u64>, PriceError> {
        self.model(price)?
            .output_within(nanos, extent.check()?, at_wall_ns, context)
    }

    fn model(&self, price: usize) -> Result<&Model, PriceError> {
        self.models.get(price).ok_or(PriceError::Unknown(price))
    }
}

fn index_of(models: &[ModelFile]) -> Result<HashMap<String, HashMap<String, usize>>, PriceError> {
    let mut index: HashMap<String, HashMap<String, usize>> = HashMap::new();
    for (price, model) in models.iter().enumerate() {
        let named = index.entry(model.provider.clone()).or_default();
        for name in model.names() {
            if named.insert(name.clone(), price).is_some() {
                let provider = &model.provider;
                return Err(PriceError::Sheet(format!(
                    "{provider} {name} is priced twice"
                )));
            }
        }
    }
    Ok(index)
}

fn compile(file: ModelFile) -> Result<Model, PriceError> {
    let name = format!("{} {}", file.provider, file.model);
    file.compile()
        .map_err(|error| PriceError::Sheet(format!("{name}: {error}")))
}
