//! Small sheets to price with.
use std::collections::BTreeMap;

use comptroller_engine::price::{Extent, PriceError, PriceSheet, Unit, Usage};
use serde_json::{Value, json};

pub(crate) const DAY_NS: u64 = 86_400_000_000_000;
pub(crate) const HOUR_NS: u64 = DAY_NS / 24;

pub(crate) fn sheet_json(models: Value) -> Value {
    let units: BTreeMap<_, _> = Unit::all()
        .map(|unit| (unit.name(), unit.trait_names()))
        .collect();
    json!({"format": 1, "currency": "USD", "source": "test", "units": units, "models": models})
}

pub(crate) fn model_json(rates: Value) -> Value {
    json!({
        "provider": "p", "model": "m", "aliases": ["alias"], "context_window": 1000,
        "audio_seconds_min": 0, "searches_unasked": false,
        "prices": [{"when": null, "rates": rates}], "variants": [],
    })
}

pub(crate) fn load(models: Value) -> Result<PriceSheet, PriceError> {
    PriceSheet::load(sheet_json(models).to_string().as_bytes())
}

pub(crate) fn priced(rates: Value) -> PriceSheet {
    load(json!([model_json(rates)])).unwrap()
}

pub(crate) fn dated(prices: Value) -> PriceSheet {
    let mut model = model_json(json!({"requests": 0}));
    model["prices"] = prices;
    load(json!([model])).unwrap()
}

pub(crate) fn usage(counts: &[(Unit, u64)]) -> Usage {
    counts
        .iter()
        .fold(Usage::default(), |usage, (unit, count)| {
            usage.with(*unit, *count).unwrap()
        })
}

pub(crate) fn cost(sheet: &PriceSheet, counts: &[(Unit, u64)]) -> Result<i64, PriceError> {
    sheet.cost(0, &usage(counts), 0, None)
}

pub(crate) fn extent(input_tokens: u64, output_tokens: u64, choices: u64) -> Extent {
    Extent {
        input_tokens,
        output_tokens,
        choices,
    }
}

pub(crate) fn bound(sheet: &PriceSheet, extent: Extent) -> Result<i64, PriceError> {
    sheet.bound(0, extent, 0, None)
}
