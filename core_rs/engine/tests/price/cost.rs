//! What a usage costs.
use comptroller_engine::price::{
    CACHE_READ_TOKENS, CACHE_WRITE_TOKENS, COUNT_MAX, INPUT_TOKENS, OUTPUT_REASONING_TOKENS,
    OUTPUT_TOKENS, PriceError, Unit,
};
use serde_json::json;

use crate::fixture::{bound, cost, extent, load, model_json, priced};

#[test]
fn a_flat_request_price_counts_once_whatever_was_used() {
    let sheet = priced(json!({"requests": 50_000_000_000_u64}));
    assert_eq!(cost(&sheet, &[]), Ok(50_000_000));
    assert_eq!(
        cost(&sheet, &[(INPUT_TOKENS, 900), (OUTPUT_TOKENS, 7)]),
        Ok(50_000_000)
    );
    assert_eq!(bound(&sheet, extent(900, 7, 3)), Ok(50_000_000));
}

#[test]
fn token_prices_add_up_before_the_one_rounding() {
    // 3 × 150,000 + 2 × 600,000 = 1,650,000 picos.
    let sheet = priced(json!({"input_tokens": 150_000, "output_tokens": 600_000}));
    assert_eq!(
        cost(&sheet, &[(INPUT_TOKENS, 3), (OUTPUT_TOKENS, 2)]),
        Ok(1_650)
    );
}

#[test]
fn a_fraction_of_a_nano_unit_is_rounded_up_and_a_whole_one_is_not() {
    let sheet = priced(json!({"input_tokens": 1, "output_tokens": 999}));
    assert_eq!(cost(&sheet, &[]), Ok(0));
    assert_eq!(cost(&sheet, &[(INPUT_TOKENS, 1)]), Ok(1));
    assert_eq!(
        cost(&sheet, &[(INPUT_TOKENS, 1), (OUTPUT_TOKENS, 1)]),
        Ok(1)
    );
    assert_eq!(
        cost(&sheet, &[(INPUT_TOKENS, 2), (OUTPUT_TOKENS, 1)]),
        Ok(2)
    );
}

#[test]
fn a_cliff_tier_changes_the_price_of_all_tokens_one_beyond_its_threshold() {
    let tiered = json!({"base": 1_000, "tiers": [{"above": 200_000, "picos": 2_000}]});
    let sheet = priced(json!({"input_tokens": tiered, "output_tokens": 5_000}));
    assert_eq!(cost(&sheet, &[(INPUT_TOKENS, 200_000)]), Ok(200_000));
    assert_eq!(cost(&sheet, &[(INPUT_TOKENS, 200_001)]), Ok(400_002));
    assert_eq!(sheet.input_tiers_cross(0, 200_000), Ok(false));
    assert_eq!(sheet.input_tiers_cross(0, 200_001), Ok(true));
    assert_eq!(bound(&sheet, extent(200_000, 0, 1)), Ok(200_000));
    assert_eq!(bound(&sheet, extent(200_001, 0, 1)), Ok(400_002));
}

#[test]
fn output_is_priced_by_the_tier_of_the_input() {
    let tiered = json!({"base": 1_000, "tiers": [{"above": 10, "picos": 3_000}]});
    let sheet = priced(json!({"input_tokens": 0, "output_tokens": tiered}));
    assert_eq!(
        cost(&sheet, &[(INPUT_TOKENS, 10), (OUTPUT_TOKENS, 100)]),
        Ok(100)
    );
    assert_eq!(
        cost(&sheet, &[(INPUT_TOKENS, 11), (OUTPUT_TOKENS, 100)]),
        Ok(300)
    );
}

#[test]
fn a_part_is_charged_at_its_own_price_and_the_rest_of_its_whole_at_the_whole_s() {
    let sheet = priced(json!({
        "input_tokens": 10_000, "cache_read_tokens": 1_000, "cache_write_tokens": 12_500,
        "output_tokens": 40_000, "output_reasoning_tokens": 50_000,
    }));
    let counts = [
        (INPUT_TOKENS, 100),
        (CACHE_READ_TOKENS, 60),
        (CACHE_WRITE_TOKENS, 30),
        (OUTPUT_TOKENS, 20),
        (OUTPUT_REASONING_TOKENS, 15),
    ];
    // 10 × 10 + 60 × 1 + 30 × 12.5 + 5 × 40 + 15 × 50, in nano units.
    assert_eq!(cost(&sheet, &counts), Ok(100 + 60 + 375 + 200 + 750));
}

#[test]
fn an_overlap_of_two_parts_is_charged_once() {
    let [audio, both] =
        ["input_audio_tokens", "cache_audio_read_tokens"].map(|name| Unit::named(name).unwrap());
    let sheet = priced(json!({
        "input_tokens": 1_000, "cache_read_tokens": 10_000, "input_audio_tokens": 100_000,
        "cache_audio_read_tokens": 1_000_000,
    }));
    let counts = [
        (INPUT_TOKENS, 10),
        (CACHE_READ_TOKENS, 4),
        (audio, 5),
        (both, 3),
    ];
    // 3 both, 2 audio only, 1 cached text, 4 plain.
    assert_eq!(cost(&sheet, &counts), Ok(3_000 + 200 + 10 + 4));
}

#[test]
fn a_part_that_exceeds_its_whole_is_refused() {
    let sheet =
        priced(json!({"input_tokens": 10, "cache_read_tokens": 1, "cache_write_tokens": 12}));
    let refusal = PriceError::Contradiction {
        whole: "input_tokens",
    };
    assert_eq!(refusal.code(), "contradictory_usage");
    let contradiction = Err(refusal);
    assert_eq!(
        cost(&sheet, &[(INPUT_TOKENS, 5), (CACHE_READ_TOKENS, 6)]),
        contradiction
    );
    let halves = [
        (INPUT_TOKENS, 5),
        (CACHE_READ_TOKENS, 3),
        (CACHE_WRITE_TOKENS, 3),
    ];
    assert_eq!(cost(&sheet, &halves), contradiction);
}

#[test]
fn a_part_without_a_price_of_its_own_is_priced_as_its_whole() {
    let sheet = priced(json!({"input_tokens": 1_000}));
    assert_eq!(
        cost(&sheet, &[(INPUT_TOKENS, 5), (CACHE_READ_TOKENS, 4)]),
        Ok(5)
    );
}

#[test]
fn an_amount_beyond_63_bits_is_an_error_and_one_within_is_not() {
    let sheet = priced(json!({"input_tokens": 8_388_608_000_u64}));
    // 2^40 × 2^23 × 1000 picos = 2^63 nanos.
    assert_eq!(
        cost(&sheet, &[(INPUT_TOKENS, COUNT_MAX)]),
        Err(PriceError::Overflow)
    );
    assert_eq!(
        bound(&sheet, extent(COUNT_MAX, 0, 1)),
        Err(PriceError::Overflow)
    );
    let below = (1_i64 << 40)
        .checked_sub(1)
        .unwrap()
        .checked_mul(1 << 23)
        .unwrap();
    assert_eq!(cost(&sheet, &[(INPUT_TOKENS, COUNT_MAX - 1)]), Ok(below));
}

#[test]
fn short_audio_is_billed_at_its_least_length() {
    let mut model = model_json(json!({"audio_seconds": 1_000, "input_audio_seconds": 1_000}));
    model["audio_seconds_min"] = json!(10);
    let sheet = load(json!([model])).unwrap();
    let seconds = Unit::named("audio_seconds").unwrap();
    assert_eq!(cost(&sheet, &[]), Ok(0));
    assert_eq!(cost(&sheet, &[(seconds, 1)]), Ok(10));
    assert_eq!(cost(&sheet, &[(seconds, 11)]), Ok(11));
}
