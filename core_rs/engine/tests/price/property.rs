//! The bound holds for any sheet and any usage within it.
use std::collections::BTreeMap;

use comptroller_engine::price::{COUNT_MAX, INPUT_TOKENS, OUTPUT_TOKENS, PriceSheet, Unit, Usage};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixture::{DAY_NS, dated, extent, priced, usage};

/// Units a text-only request can be billed in; models answer with images unasked.
const REACHABLE: [&str; 17] = [
    "input_tokens",
    "input_text_tokens",
    "cache_read_tokens",
    "cache_text_read_tokens",
    "cache_write_tokens",
    "cache_text_write_tokens",
    "cache_write_1h_tokens",
    "cache_text_write_1h_tokens",
    "output_tokens",
    "output_text_tokens",
    "output_image_tokens",
    "output_reasoning_tokens",
    "output_text_reasoning_tokens",
    "output_image_reasoning_tokens",
    "output_citation_tokens",
    "output_text_citation_tokens",
    "output_image_citation_tokens",
];
const INPUT_UNITS: usize = 8;

fn any_rate() -> impl Strategy<Value = Value> {
    let picos = 0_u64..20_000_000;
    let tier = (0_u64..500_000, picos.clone());
    (picos, prop::collection::btree_map(tier.0, tier.1, 0..3)).prop_map(|(base, tiers)| {
        let tiers: Vec<_> = tiers
            .iter()
            .map(|(above, picos)| json!({"above": above, "picos": picos}))
            .collect();
        json!({"base": base, "tiers": tiers})
    })
}

/// Rates of the units without some traits: what is left can always be priced together.
fn any_rates() -> impl Strategy<Value = Value> {
    let rates = prop::collection::vec(any_rate(), REACHABLE.len());
    let traits = [
        "text",
        "image",
        "cache_read",
        "cache_write",
        "1h",
        "reasoning",
        "citation",
    ];
    let left_out = prop::sample::subsequence(traits.to_vec(), 0..=traits.len());
    (rates, left_out, any_rate()).prop_map(|(rates, left_out, request)| {
        let mut priced: BTreeMap<_, _> = REACHABLE.into_iter().zip(rates).collect();
        priced.retain(|name, _| {
            let traits = Unit::named(name).unwrap().trait_names();
            left_out.iter().all(|it| !traits.contains(it))
        });
        priced.insert("requests", request);
        json!(priced)
    })
}

fn any_daily() -> impl Strategy<Value = Value> {
    (0..DAY_NS, 0..DAY_NS)
        .prop_map(|(start_ns, end_ns)| json!({"daily": {"start_ns": start_ns, "end_ns": end_ns}}))
}

fn any_sheet() -> impl Strategy<Value = PriceSheet> {
    (
        any_rates(),
        any_rates(),
        any_rates(),
        any_daily(),
        19_999_u64..20_002,
    )
        .prop_map(|(first, second, third, daily, day)| {
            dated(json!([
                {"when": null, "rates": first},
                {"when": {"since": {"day": day}}, "rates": second},
                {"when": daily, "rates": third},
            ]))
        })
}

/// Tell whether all that one unit counts is counted by another, too.
fn is_within(part: &str, whole: &str) -> bool {
    let traits = |name| Unit::named(name).unwrap().trait_names();
    let of_part = traits(part);
    traits(whole).iter().all(|it| of_part.contains(it))
}

/// A usage of tokens that each are of one most specific kind, counted in every unit they belong to.
fn any_usage() -> impl Strategy<Value = Usage> {
    let mixed = prop::collection::vec(0_u64..200_000, REACHABLE.len());
    // Tokens of one kind alone leave the bound no slack but its own.
    let pure = (0..REACHABLE.len(), 0_u64..600_000).prop_map(|(kind, tokens)| {
        let only = |place| if place == kind { tokens } else { 0 };
        (0..REACHABLE.len()).map(only).collect()
    });
    prop_oneof![mixed, pure].prop_map(|tokens: Vec<u64>| {
        let kinds: Vec<_> = REACHABLE.into_iter().zip(tokens).collect();
        let count = |unit: &str| {
            let within = kinds.iter().filter(|(kind, _)| is_within(kind, unit));
            within.map(|(_, tokens)| tokens).sum()
        };
        let counts = REACHABLE.map(|name| (Unit::named(name).unwrap(), count(name)));
        usage(&counts)
    })
}

#[test]
fn the_usages_of_these_tests_add_up() {
    let inputs = &REACHABLE[..INPUT_UNITS];
    assert!(inputs.iter().all(|unit| is_within(unit, "input_tokens")));
    assert!(
        REACHABLE[INPUT_UNITS..]
            .iter()
            .all(|unit| is_within(unit, "output_tokens"))
    );
    assert!(!is_within("input_tokens", "input_text_tokens"));
}

proptest! {
    #[test]
    fn no_usage_within_its_extent_costs_more_than_the_bound(
        sheet in any_sheet(),
        used in any_usage(),
        choices in 1_u64..9,
        slack in (0_u64..1_000, 0_u64..100),
        at_ns in 19_999 * DAY_NS..20_002 * DAY_NS,
        later_ns in 0..=DAY_NS,
    ) {
        let each = used.count(OUTPUT_TOKENS).div_ceil(choices) + slack.1;
        let extent = extent(used.count(INPUT_TOKENS) + slack.0, each, choices);
        let bound = sheet.bound(0, extent, at_ns, None).unwrap();
        prop_assert!(sheet.cost(0, &used, at_ns, None).unwrap() <= bound);
        prop_assert!(sheet.cost(0, &used, at_ns + later_ns, None).unwrap() <= bound);
    }

    #[test]
    fn the_bound_is_that_of_the_input_and_of_the_output_at_its_rate(
        sheet in any_sheet(),
        single in any_rates(),
        input_tokens in 0_u64..600_000,
        output_tokens in 0_u64..300_000,
        at_ns in 19_999 * DAY_NS..20_002 * DAY_NS,
    ) {
        let single = priced(single);
        for (sheet, is_single) in [(&sheet, false), (&single, true)] {
            let bound = |output_tokens| {
                let extent = extent(input_tokens, output_tokens, 1);
                sheet.bound(0, extent, at_ns, None).unwrap()
            };
            let picos = sheet.output_picos(0, input_tokens, at_ns, None).unwrap();
            let output_nanos = i64::try_from((output_tokens * picos).div_ceil(1_000)).unwrap();
            let sum = bound(0) + output_nanos;
            prop_assert!(bound(output_tokens) <= sum);
            prop_assert!(!is_single || bound(output_tokens) >= sum - 1);
        }
    }

    #[test]
    fn the_output_that_fits_is_the_largest_whose_bound_fits(
        sheet in any_sheet(),
        nanos in 0_i64..20_000_000_000,
        input_tokens in 0_u64..600_000,
        choices in 1_u64..9,
        at_ns in 19_999 * DAY_NS..20_002 * DAY_NS,
    ) {
        let asked = |output_tokens| extent(input_tokens, output_tokens, choices);
        let bound = |output| sheet.bound(0, asked(output), at_ns, None).unwrap();
        match sheet.output_tokens_within(0, nanos, asked(0), at_ns, None).unwrap() {
            None => prop_assert!(bound(0) > nanos),
            Some(COUNT_MAX) => prop_assert!(bound(COUNT_MAX) <= nanos),
            Some(fits) => {
                prop_assert!(bound(fits) <= nanos);
                prop_assert!(bound(fits + 1) > nanos);
            }
        }
    }
}
