//! What a sheet holds, and which sheets are refused.
use comptroller_engine::price::{
    CACHE_READ_TOKENS, CACHE_WRITE_TOKENS, COUNT_MAX, INPUT_TOKENS, OUTPUT_REASONING_TOKENS,
    OUTPUT_TOKENS, PriceError, PriceSheet, REQUESTS,
};
use serde_json::{Value, json};

use crate::fixture::{DAY_NS, load, model_json, priced, sheet_json};

#[test]
fn models_are_found_by_exact_names_only() {
    let sheet = priced(json!({"requests": 0}));
    assert_eq!(
        (sheet.find("p", "m"), sheet.find("p", "alias")),
        (Some(0), Some(0))
    );
    for (provider, model) in [("p", "M"), ("p", "m "), ("p", ""), ("q", "m"), ("", "m")] {
        assert_eq!(sheet.find(provider, model), None);
    }
    assert_eq!(sheet.context_window(0), Ok(Some(1_000)));
    assert_eq!(sheet.context_window(1), Err(PriceError::Unknown(1)));
}

#[test]
fn the_named_units_are_where_the_registry_has_them() {
    let named = [
        (INPUT_TOKENS, "input_tokens"),
        (OUTPUT_TOKENS, "output_tokens"),
        (CACHE_READ_TOKENS, "cache_read_tokens"),
        (CACHE_WRITE_TOKENS, "cache_write_tokens"),
        (OUTPUT_REASONING_TOKENS, "output_reasoning_tokens"),
        (REQUESTS, "requests"),
    ];
    for (unit, name) in named {
        assert_eq!(unit.name(), name);
    }
}

#[test]
fn sheets_that_cannot_be_trusted_are_refused() {
    let tiers = |tiers: Value| model_json(json!({"input_tokens": {"base": 1, "tiers": tiers}}));
    let tier = |above: u64| json!({"above": above, "picos": 1});
    let with = |name: &str, value: Value| {
        let mut model = model_json(json!({"requests": 1}));
        model[name] = value;
        model
    };
    let refused = [
        model_json(json!({})),
        model_json(json!({"no_such_unit": 1})),
        model_json(json!({"cache_read_tokens": 1})),
        model_json(json!({"input_tokens": 1, "cache_read_tokens": 1, "input_audio_tokens": 1})),
        model_json(json!({"input_tokens": -1})),
        model_json(json!({"input_tokens": 1.5})),
        model_json(json!({"input_tokens": 1_000_000_000_000_000_001_u64})),
        tiers(json!([tier(5), tier(5)])),
        tiers(json!([tier(6), tier(5)])),
        tiers(Value::Array((0..17).map(tier).collect())),
        with("prices", json!([])),
        with(
            "prices",
            json!(vec![json!({"when": null, "rates": {"requests": 1}}); 65]),
        ),
        with("model", json!("")),
        with("model", json!("x".repeat(201))),
        with("aliases", json!(["m"])),
        with("context_window", json!(COUNT_MAX + 1)),
        with("surprise", json!(1)),
        with(
            "variants",
            json!([{"context": {}, "when": null, "rates": {"requests": 1}}]),
        ),
        with(
            "prices",
            json!([{"when": {"daily": {"start_ns": DAY_NS, "end_ns": 0}}, "rates": {"requests": 1}}]),
        ),
    ];
    for model in refused {
        let error = load(json!([model.clone()])).expect_err(&model.to_string());
        assert_eq!(error.code(), "invalid_price_sheet", "{model}");
    }
    let model = model_json(json!({"requests": 1}));
    assert!(load(json!([model.clone(), model])).is_err());
}

#[test]
fn a_sheet_of_another_format_or_with_other_units_is_refused() {
    let sheet = sheet_json(json!([]));
    assert!(PriceSheet::load(sheet.to_string().as_bytes()).is_ok());
    let changed = [
        ("format", json!(2)),
        ("units", json!({})),
        ("more", json!(1)),
    ];
    for (name, value) in changed {
        let mut other = sheet.clone();
        other[name] = value;
        assert!(
            PriceSheet::load(other.to_string().as_bytes()).is_err(),
            "{name}"
        );
    }
    let mut traits = sheet;
    traits["units"]["cache_read_tokens"] = json!(["input", "tokens"]);
    assert!(PriceSheet::load(traits.to_string().as_bytes()).is_err());
}
