//! What a request can cost at most, and how much output fits.
use comptroller_engine::price::{COUNT_MAX, INPUT_TOKENS, PriceError, Usage};
use serde_json::json;

use crate::fixture::{HOUR_NS, bound, dated, extent, load, model_json, priced};

#[test]
fn counts_beyond_their_limit_are_refused() {
    let beyond = Usage::default().with(INPUT_TOKENS, COUNT_MAX + 1);
    assert_eq!(beyond.unwrap_err().code(), "count_out_of_range");
    let sheet = priced(json!({"input_tokens": 1, "output_tokens": 1}));
    for refused in [
        extent(COUNT_MAX + 1, 0, 1),
        extent(0, COUNT_MAX + 1, 1),
        extent(0, 0, 0),
    ] {
        assert_eq!(
            bound(&sheet, refused).unwrap_err().code(),
            "count_out_of_range"
        );
    }
    assert_eq!(
        bound(&sheet, extent(0, 0, (1 << 16) + 1))
            .unwrap_err()
            .code(),
        "count_out_of_range"
    );
}

#[test]
fn the_bound_takes_the_dearest_reachable_rate_of_each_direction() {
    let sheet = priced(json!({
        "input_tokens": 10_000, "cache_read_tokens": 1_000, "cache_write_tokens": 12_500,
        "output_tokens": 40_000, "output_reasoning_tokens": 50_000, "requests": 7_000,
    }));
    assert_eq!(bound(&sheet, extent(8, 10, 2)), Ok(100 + 1_000 + 7));
}

#[test]
fn the_bound_leaves_out_audio_and_sent_images_but_not_images_the_model_may_answer_with() {
    let sheet = priced(json!({
        "input_tokens": 1_000, "input_audio_tokens": 90_000, "input_image_tokens": 90_000,
        "output_tokens": 2_000, "output_audio_tokens": 90_000, "output_image_tokens": 30_000,
    }));
    assert_eq!(bound(&sheet, extent(1, 1, 1)), Ok(31));
}

#[test]
fn a_cheaper_tier_beyond_a_threshold_does_not_lower_the_bound() {
    let tiered = json!({"base": 5_000, "tiers": [{"above": 100, "picos": 1_000}]});
    let sheet = priced(json!({"input_tokens": tiered}));
    assert_eq!(bound(&sheet, extent(101, 0, 1)), Ok(505));
}

#[test]
fn models_whose_cost_tokens_do_not_bound_have_no_bound() {
    let unbounded = [
        json!({"input_characters": 5}),
        json!({"input_tokens": 5, "input_characters": 5}),
        json!({"input_document_pages": 5}),
        json!({"audio_seconds": 5}),
    ];
    for rates in unbounded {
        assert_eq!(
            bound(&priced(rates), extent(1, 1, 1)),
            Err(PriceError::NotBounded)
        );
    }
    let mut searching = model_json(json!({"input_tokens": 1, "web_searches": 5}));
    searching["searches_unasked"] = json!(true);
    let sheet = load(json!([searching])).unwrap();
    assert_eq!(bound(&sheet, extent(1, 1, 1)), Err(PriceError::NotBounded));
    assert_eq!(
        sheet.output_tokens_within(0, 5, extent(1, 0, 1), 0, None),
        Err(PriceError::NotBounded)
    );
    assert_eq!(
        sheet.output_picos(0, 1, 0, None),
        Err(PriceError::NotBounded)
    );
    let by_character = priced(json!({"input_characters": 5}));
    assert_eq!(
        by_character.output_picos(0, 1, 0, None),
        Err(PriceError::NotBounded)
    );
}

#[test]
fn the_output_that_fits_is_exact_to_one_token() {
    let sheet = priced(json!({"input_tokens": 1_500, "output_tokens": 1_700, "requests": 100}));
    let within = |nanos, input, choices| {
        sheet
            .output_tokens_within(0, nanos, extent(input, 0, choices), 0, None)
            .unwrap()
    };
    let fits = within(1_000, 10, 3).unwrap();
    assert_eq!(fits, 193); // (1,000,000 − 15,000 − 100) / 5,100
    assert!(bound(&sheet, extent(10, fits, 3)).unwrap() <= 1_000);
    assert!(bound(&sheet, extent(10, fits + 1, 3)).unwrap() > 1_000);
    assert_eq!(within(16, 10, 1), Some(0));
    assert_eq!(within(15, 10, 1), None);
    assert_eq!(within(-1, 0, 1), None);
}

#[test]
fn free_output_fits_without_end() {
    let sheet = priced(json!({"input_tokens": 1_000, "output_tokens": 0}));
    let within = |nanos| sheet.output_tokens_within(0, nanos, extent(5, 0, 1), 0, None);
    assert_eq!(within(5), Ok(Some(COUNT_MAX)));
    assert_eq!(within(4), Ok(None));
}

#[test]
fn the_rate_of_output_is_the_dearest_for_this_much_input() {
    let tiered = json!({"base": 2_000, "tiers": [{"above": 100, "picos": 3_000}]});
    let sheet = priced(json!({
        "input_tokens": 1_000, "output_tokens": tiered, "output_reasoning_tokens": 2_500,
    }));
    let picos = |input_tokens| sheet.output_picos(0, input_tokens, 0, None);
    assert_eq!((picos(100), picos(101)), (Ok(2_500), Ok(3_000)));
    assert_eq!(
        picos(COUNT_MAX + 1).unwrap_err().code(),
        "count_out_of_range"
    );
}

#[test]
fn the_rate_of_output_is_that_of_the_dearest_hour_of_the_day() {
    let night = json!({"daily": {"start_ns": 20 * HOUR_NS, "end_ns": 4 * HOUR_NS}});
    let rates = |input: u64, output: u64| json!({"input_tokens": input, "output_tokens": output});
    let sheet = dated(json!([
        {"when": null, "rates": rates(9_000, 5_000)},
        {"when": night, "rates": rates(1_000, 6_000)},
    ]));
    let noon_ns = 12 * HOUR_NS;
    assert_eq!(sheet.output_picos(0, 1, noon_ns, None), Ok(6_000));
    // Each part is bounded by itself, so their sum may be above the bound of both.
    assert_eq!(sheet.bound(0, extent(1, 1, 1), noon_ns, None), Ok(14));
    assert_eq!(sheet.bound(0, extent(1, 0, 1), noon_ns, None), Ok(9));
}
