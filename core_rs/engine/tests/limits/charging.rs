//! From what a provider bills to what is charged, counted and refused.
use comptroller_engine::{Actual, Amounts, Decision, RATES_MAX, WaitsFor};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixture::{
    House, S, admitted, at, day, first, fixed, limit, path, policy, refused, reservation, snapshot,
    stream,
};

const UNIT: i64 = 1_000_000_000_000;

fn charged(rates: &[(u64, i64)], markup_ppm: i64, fee_nanos: i64) -> Value {
    let rates: Vec<Value> = rates
        .iter()
        .map(|(from_ns, picos)| json!({"from_ns": from_ns, "picos": picos}))
        .collect();
    let mut snapshot = snapshot(&[limit(1, "budget key spend hard", &day(), 1_000)]);
    snapshot["charging"] = json!({
        "rates": rates, "markup_ppm": markup_ppm, "fee_nanos": fee_nanos,
    });
    snapshot
}

fn house(charging: &Value) -> House {
    House::new(policy(charging), &[], at(0)).unwrap()
}

fn cost(cost_nanos: i64) -> Actual {
    Actual {
        cost_nanos,
        ..Actual::default()
    }
}

#[test]
fn a_cost_is_converted_marked_up_rounded_up_once_and_a_fee_is_added() {
    let table = [
        (10, UNIT, 0, 0, 10),
        (10, 2 * UNIT, 0, 0, 20),
        (3, UNIT / 2, 0, 0, 2),
        (1, 1, 0, 0, 1),
        (100, UNIT, 250_000, 0, 125),
        (1, UNIT, 1, 0, 2),
        (3, UNIT / 3, 500_000, 0, 2),
        (100, UNIT, 0, 7, 107),
        (100, 910_000_000_000, 200_000, 7, 117),
        (0, 2 * UNIT, 500_000, 7, 0),
    ];
    for (cost_nanos, picos, markup_ppm, fee_nanos, charge) in table {
        let mut house = house(&charged(&[(0, picos)], markup_ppm, fee_nanos));
        let admission = admitted(&mut house, 1, fixed(cost_nanos, 5), at(0));
        let expected = Amounts {
            spend_nanos: charge,
            cost_nanos,
            tokens: 5,
        };
        assert_eq!((admission.held, admission.bound), (expected, expected));
        assert_eq!(first(&mut house, at(0)), (0, charge));
        let done = house
            .settle(reservation(1), cost(cost_nanos), at(0))
            .unwrap();
        assert_eq!(done.booked.spend_nanos, charge);
        assert_eq!(done.booked.cost_nanos, cost_nanos);
        assert_eq!(first(&mut house, at(0)), (charge, 0));
        assert_eq!(house.charge(cost_nanos, at(0).wall_ns), Ok(charge));
    }
}

#[test]
fn what_was_released_or_cost_nothing_is_charged_nothing_not_even_the_fee() {
    let mut house = house(&charged(&[(0, UNIT)], 0, 9));
    admitted(&mut house, 1, fixed(10, 0), at(0));
    admitted(&mut house, 2, fixed(10, 0), at(0));
    assert_eq!(first(&mut house, at(0)), (0, 38));
    assert_eq!(house.release(reservation(1), at(0)), Ok(true));
    let done = house.settle(reservation(2), cost(0), at(0)).unwrap();
    assert_eq!(done.booked, Amounts::default());
    assert_eq!(first(&mut house, at(0)), (0, 0));
}

#[test]
fn the_rate_is_that_of_the_admission_however_long_the_request_runs() {
    let later = at(S).wall_ns;
    let rates = [(0, UNIT), (later, 3 * UNIT)];
    let mut house = house(&charged(&rates, 0, 0));
    admitted(&mut house, 1, fixed(10, 0), at(S - 1));
    admitted(&mut house, 2, fixed(10, 0), at(S));
    assert_eq!(first(&mut house, at(S)), (0, 40));
    house
        .load(policy(&charged(&[(0, 9 * UNIT)], 500_000, 7)), &[], at(S))
        .unwrap();
    house.progress(reservation(1), cost(5), at(2 * S)).unwrap();
    assert_eq!(first(&mut house, at(2 * S)), (5, 35));
    let done = [1, 2].map(|number| {
        let done = house
            .settle(reservation(number), cost(10), at(2 * S))
            .unwrap();
        done.booked.spend_nanos
    });
    assert_eq!(done, [10, 30]);
    assert_eq!(
        admitted(&mut house, 3, fixed(10, 0), at(2 * S))
            .held
            .spend_nanos,
        142
    );
}

#[test]
fn without_a_rate_nothing_is_decided() {
    let mut house = house(&charged(&[(at(S).wall_ns, UNIT)], 0, 0));
    let early = house.admit(reservation(1), path(), fixed(1, 0), at(S - 1));
    assert_eq!(early.unwrap_err().code(), "no_exchange_rate");
    assert_eq!(
        house.charge(1, at(S - 1).wall_ns).unwrap_err().code(),
        "no_exchange_rate"
    );
    assert_eq!(house.open_reservations(), 0);
    admitted(&mut house, 1, fixed(1, 0), at(S));
}

#[test]
fn tokens_that_fit_are_those_whose_charge_fits() {
    // Each token costs 1 and is charged 1.5, with a fee of 10 on top.
    let mut house = house(&charged(&[(0, UNIT)], 500_000, 10));
    let refusal = refused(&mut house, 1, stream(100, 5_000, 20), at(0));
    assert_eq!(refusal.waits_for, Some(WaitsFor::Never));
    let (tokens, _) = refusal.output_tokens_that_fit.unwrap();
    assert_eq!(tokens, 560);
    let _ = refused(&mut house, 2, stream(100, 561, 20), at(0));
    admitted(&mut house, 3, stream(100, 560, 20), at(0));
    assert_eq!(first(&mut house, at(0)), (0, 1_000));
}

#[test]
fn charging_that_means_nothing_is_refused() {
    let code = |charging: &Value| {
        comptroller_engine::Policy::from_json(charging.to_string().as_bytes())
            .map_or_else(|error| error.code(), |_| "fine")
    };
    let ascending = |count: usize| -> Vec<(u64, i64)> {
        (0..count as u64).map(|number| (number, UNIT)).collect()
    };
    assert_eq!(code(&charged(&ascending(RATES_MAX), 0, 0)), "fine");
    assert_eq!(code(&charged(&ascending(RATES_MAX + 1), 0, 0)), "too_many");
    assert_eq!(
        code(&charged(&[(5, UNIT), (5, UNIT)], 0, 0)),
        "invalid_policy"
    );
    assert_eq!(code(&charged(&[(0, 0)], 0, 0)), "invalid_policy");
    assert_eq!(code(&charged(&[(0, UNIT)], -1, 0)), "invalid_policy");
    assert_eq!(
        code(&charged(&[(0, UNIT)], 100_000_001, 0)),
        "invalid_policy"
    );
    assert_eq!(code(&charged(&[(0, UNIT)], 0, -1)), "invalid_policy");
}

/// The formula of the contract, in whole numbers of any size that fits.
fn exact(cost: i64, picos: i64, markup: i64, fee: i64) -> i128 {
    if cost == 0 {
        return 0;
    }
    let product = i128::from(cost) * i128::from(picos) * (1_000_000 + i128::from(markup));
    let divisor = 1_000_000_000_000_000_000_i128;
    (product + divisor - 1) / divisor + i128::from(fee)
}

proptest! {
    #[test]
    fn charges_are_those_of_the_formula(
        cost in prop_oneof![0..100_i64, 0..1_000_000_000_000_i64],
        picos in prop_oneof![Just(UNIT), 1..10 * UNIT, 1..1_000_i64],
        markup in prop_oneof![Just(0), 0..2_000_000_i64],
        fee in prop_oneof![Just(0), 0..1_000_000_i64],
    ) {
        let house = house(&charged(&[(0, picos)], markup, fee));
        let found = house.charge(cost, at(0).wall_ns).unwrap();
        prop_assert_eq!(i128::from(found), exact(cost, picos, markup, fee));
    }

    #[test]
    fn a_charge_beyond_the_range_is_an_error_and_holds_nothing(
        cost in i64::MAX / 2..i64::MAX,
        picos in 3 * UNIT..i64::MAX,
    ) {
        let mut house = house(&charged(&[(0, picos)], 0, 0));
        let failed = house.admit(reservation(1), path(), fixed(cost, 0), at(0));
        prop_assert_eq!(failed.unwrap_err().code(), "overflow");
        prop_assert_eq!(first(&mut house, at(0)), (0, 0));
        let decision = house.admit(reservation(1), path(), fixed(1, 0), at(0));
        prop_assert!(!matches!(decision, Ok(Decision::Waiting(_))));
    }
}
