//! Prices that depend on the instant or the context.
use comptroller_engine::price::{Context, INPUT_TOKENS, OUTPUT_TOKENS, Usage};
use serde_json::json;

use crate::fixture::{DAY_NS, HOUR_NS, dated, extent, load, model_json, usage};

#[test]
fn a_dated_price_is_in_force_from_the_first_instant_of_its_day() {
    let sheet = dated(json!([
        {"when": null, "rates": {"requests": 1_000}},
        {"when": {"since": {"day": 20_000}}, "rates": {"requests": 2_000}},
    ]));
    let at = |at_wall_ns| sheet.cost(0, &Usage::default(), at_wall_ns, None).unwrap();
    assert_eq!(at(20_000 * DAY_NS - 1), 1);
    assert_eq!(at(20_000 * DAY_NS), 2);
}

#[test]
fn a_daily_price_is_in_force_from_its_start_until_before_its_end_also_past_midnight() {
    let sheet = dated(json!([
        {"when": null, "rates": {"requests": 1_000}},
        {"when": {"daily": {"start_ns": HOUR_NS, "end_ns": 2 * HOUR_NS}}, "rates": {"requests": 2_000}},
        {"when": {"daily": {"start_ns": 22 * HOUR_NS, "end_ns": HOUR_NS / 2}}, "rates": {"requests": 3_000}},
    ]));
    let at = |time_ns| {
        sheet
            .cost(0, &Usage::default(), 500 * DAY_NS + time_ns, None)
            .unwrap()
    };
    assert_eq!(
        [
            at(HOUR_NS - 1),
            at(HOUR_NS),
            at(2 * HOUR_NS - 1),
            at(2 * HOUR_NS)
        ],
        [1, 2, 2, 1]
    );
    assert_eq!(
        [
            at(22 * HOUR_NS - 1),
            at(22 * HOUR_NS),
            at(0),
            at(HOUR_NS / 2)
        ],
        [1, 3, 3, 1]
    );
}

#[test]
fn the_bound_covers_prices_that_come_into_force_within_a_day() {
    let sheet = dated(json!([
        {"when": null, "rates": {"input_tokens": 0, "output_tokens": 1_000}},
        {"when": {"since": {"day": 20_000}}, "rates": {"input_tokens": 0, "output_tokens": 9_000}},
    ]));
    let at = |at_wall_ns| sheet.bound(0, extent(0, 10, 1), at_wall_ns, None).unwrap();
    assert_eq!(at(19_999 * DAY_NS - 1), 10);
    assert_eq!(at(19_999 * DAY_NS), 90);
    let within = sheet.output_tokens_within(0, 90, extent(0, 0, 1), 19_999 * DAY_NS, None);
    assert_eq!(within, Ok(Some(10)));
}

#[test]
fn when_no_condition_holds_the_first_price_counts() {
    let sheet = dated(json!([
        {"when": {"since": {"day": 20_000}}, "rates": {"requests": 1_000}},
        {"when": {"since": {"day": 20_001}}, "rates": {"requests": 2_000}},
    ]));
    assert_eq!(sheet.cost(0, &Usage::default(), 0, None), Ok(1));
}

#[test]
fn a_context_replaces_the_prices_its_first_fitting_variants_name() {
    let mut model = model_json(json!({"input_tokens": 1_000, "output_tokens": 10_000}));
    model["variants"] = json!([
        {"context": {"tier": "fast"}, "when": null, "rates": {"input_tokens": 2_000}},
        {"context": {"tier": "fast"}, "when": null,
         "rates": {"input_tokens": 900_000, "output_tokens": 20_000}},
        {"context": {"tier": "fast", "region": "eu"}, "when": null, "rates": {"output_tokens": 1}},
    ]);
    let sheet = load(json!([model])).unwrap();
    let used = usage(&[(INPUT_TOKENS, 1), (OUTPUT_TOKENS, 1)]);
    let within = |context: &[(&str, &str)]| {
        let named = context
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let context: Context = named.collect();
        let cost = sheet.cost(0, &used, 0, Some(&context)).unwrap();
        assert_eq!(sheet.bound(0, extent(1, 1, 1), 0, Some(&context)), Ok(cost));
        cost
    };
    assert_eq!(within(&[]), 11);
    assert_eq!(within(&[("tier", "slow")]), 11);
    assert_eq!(within(&[("tier", "fast")]), 22);
}
