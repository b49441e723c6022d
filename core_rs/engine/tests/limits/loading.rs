//! Snapshots in force at once; counters that survive them; counters that start late.
use comptroller_engine::{
    LIMITS_MAX, NAMES_MAX, Organization, Policy, SCOPE_IDLE_COUNTERS_MAX, SCOPE_LIMITS_MAX, Seed,
};
use serde_json::{Value, json};

use crate::fixture::{
    DAY, House, NEW_YEAR, S, admitted, amounts, at, day, first, hour, id, limit, minute,
    organization, policy, refused, reload, reservation, scope, seeds, snapshot, spend, states,
};

fn code(change: impl FnOnce(&mut Value)) -> &'static str {
    let mut snapshot = snapshot(&[limit(1, "budget key spend hard", &day(), 1)]);
    change(&mut snapshot);
    Policy::from_json(snapshot.to_string().as_bytes()).map_or_else(|error| error.code(), |_| "fine")
}

#[test]
fn a_snapshot_that_means_nothing_is_refused() {
    assert_eq!(code(|_| ()), "fine");
    assert_eq!(code(|it| it["extra"] = json!(1)), "invalid_json");
    assert_eq!(
        code(|it| it["limits"][0]["extra"] = json!(1)),
        "invalid_json"
    );
    assert_eq!(
        code(|it| it["limits"][0]["cap"] = json!(1.5)),
        "invalid_json"
    );
    assert_eq!(
        code(|it| it["limits"][0]["id"] = json!("one")),
        "invalid_json"
    );
    assert_eq!(
        code(|it| it["limits"][0]["window"]["extra"] = json!(1)),
        "invalid_json"
    );
    assert_eq!(
        code(|it| it["limits"][0]["cap"] = json!(-1)),
        "invalid_policy"
    );
    assert_eq!(
        code(|it| it["limits"][0]["hold"] = json!("both")),
        "invalid_json"
    );
    assert_eq!(
        code(|it| it["limits"][0]["window"]["time_zone"] = json!("Mars")),
        "invalid_policy"
    );
    assert_eq!(
        code(|it| it["limits"][0]["window"] = json!({"kind": "rolling", "seconds": 61})),
        "invalid_policy"
    );
    assert_eq!(
        code(|it| it["limits"][0]["scope"]["kind"] = json!("installation")),
        "invalid_policy"
    );
    assert_eq!(
        code(|it| it["limits"][0]["kind"] = json!("rate")),
        "invalid_policy"
    );
    assert_eq!(code(|it| it["currency"] = json!("usd")), "invalid_policy");
    assert_eq!(
        code(|it| it["limits"] = json!([it["limits"][0], it["limits"][0]])),
        "invalid_policy"
    );
}

#[test]
fn every_list_has_an_end() {
    let names = |count: usize| {
        (0..count)
            .map(|number| number.to_string())
            .collect::<Vec<_>>()
    };
    let allow = |count| json!([{"scope": scope("key"), "models": names(count)}]);
    assert_eq!(code(|it| it["rules"] = allow(NAMES_MAX)), "fine");
    assert_eq!(code(|it| it["rules"] = allow(NAMES_MAX + 1)), "too_many");
    let limits = |count: usize| -> Vec<Value> {
        (0..count as u128)
            .map(|number| limit(number, "budget key spend hard", &day(), 1))
            .collect()
    };
    assert_eq!(
        code(|it| it["limits"] = json!(limits(LIMITS_MAX + 1))),
        "too_many"
    );
    let load = |count| House::new(policy(&snapshot(&limits(count))), &[], at(0));
    assert!(load(SCOPE_LIMITS_MAX).is_ok());
    assert_eq!(load(SCOPE_LIMITS_MAX + 1).unwrap_err().code(), "too_many");
}

#[test]
fn a_changed_cap_binds_the_next_request_and_forgets_nothing() {
    let mut organization = organization(&[limit(1, "budget key spend hard", &day(), 100)]);
    admitted(&mut organization, 1, spend(60), at(0));
    reload(
        &mut organization,
        &[limit(1, "budget key spend hard", &day(), 50)],
        at(0),
    );
    assert_eq!(
        refused(&mut organization, 2, spend(0), at(0))
            .limit
            .unwrap()
            .held,
        60
    );
    reload(
        &mut organization,
        &[limit(2, "budget key spend hard", &day(), 100)],
        at(0),
    );
    admitted(&mut organization, 2, spend(40), at(0));
}

#[test]
fn a_counter_survives_the_deletion_of_its_limit() {
    let mut organization = organization(&[limit(1, "budget key spend hard", &day(), 100)]);
    admitted(&mut organization, 1, spend(60), at(0));
    reload(&mut organization, &[], at(0));
    let _ = organization
        .settle(reservation(1), spend(55), at(0))
        .unwrap();
    organization.booked_through(1).unwrap();
    reload(
        &mut organization,
        &[limit(2, "budget key spend hard", &day(), 100)],
        at(0),
    );
    assert_eq!(first(&mut organization, at(0)), (55, 0));
}

#[test]
fn a_limit_still_binds_when_counters_made_before_its_own_are_dropped() {
    let placed = |number: u128| {
        let mut placed = limit(number, "budget key spend hard", &day(), 100);
        placed["where"] = json!({"models": [format!("model {number}")]});
        placed
    };
    let dropped = SCOPE_IDLE_COUNTERS_MAX as u128 + 8;
    let lasting = limit(900, "budget key spend hard", &day(), 100);
    let mut limits: Vec<Value> = (0..dropped).map(placed).collect();
    limits.push(lasting.clone());
    let mut organization = organization(&limits);
    admitted(&mut organization, 1, spend(60), at(0));
    reload(&mut organization, &[lasting], at(0));
    assert_eq!(first(&mut organization, at(0)), (0, 60));
    let refusal = refused(&mut organization, 2, spend(41), at(0));
    assert_eq!(refusal.limit.unwrap().limit_id, id(1900));
    // The youngest idle counters are kept; those dropped are asked for again.
    let json = organization
        .missing_counters(policy(&snapshot(&limits)), at(0))
        .unwrap();
    let missing: Vec<Value> = serde_json::from_slice(&json).unwrap();
    assert_eq!(missing.len(), 8);
}

#[test]
fn missing_counters_are_named_with_the_time_they_need_to_know() {
    let mut placed = limit(2, "rate key tokens metered", &minute(), 1);
    placed["where"] = json!({"models": ["b", "a", "b"], "providers": null});
    let wanted = [
        limit(1, "budget key spend hard", &day(), 100),
        placed.clone(),
    ];
    let organization = organization(&wanted[..1]);
    let json = organization
        .missing_counters(policy(&snapshot(&wanted)), at(0))
        .unwrap();
    let missing: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(
        missing,
        json!([{
            "scope": scope("key"), "where": {"models": ["a", "b"], "providers": null},
            "resource": "tokens", "window": minute(),
            "starts_at_ns": at(0).wall_ns - 61 * S, "ends_at_ns": at(0).wall_ns + 1,
        }])
    );
    let json = Organization::all_counters(policy(&snapshot(&wanted)), at(0)).unwrap();
    let all: Vec<Value> = serde_json::from_slice(&json).unwrap();
    assert_eq!((all.len(), &all[0]["starts_at_ns"]), (2, &json!(NEW_YEAR)));
    assert_eq!(all[0]["ends_at_ns"], json!(NEW_YEAR + DAY));
}

fn seed(window: &Value, entries: &Value) -> Value {
    json!({
        "scope": scope("key"), "where": null, "resource": "spend", "window": window,
        "starts_at_ns": 0, "ends_at_ns": 0, "entries": entries,
    })
}

#[test]
fn a_seed_fills_the_period_and_ages_the_window() {
    let limits = [
        limit(1, "budget key spend hard", &day(), 100),
        limit(2, "breaker key spend metered", &hour(), 100),
    ];
    let noon = at(0).wall_ns;
    let entries = json!([[noon - 30 * 60 * S, 8], [NEW_YEAR - 1, 16], [NEW_YEAR, 32]]);
    let list = seeds(&json!([seed(&day(), &entries), seed(&hour(), &entries)]));
    let mut organization = House::new(policy(&snapshot(&limits)), &list, at(0)).unwrap();
    let used = |organization: &mut House, now| {
        states(organization, now)
            .iter()
            .map(|state| state["used"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(used(&mut organization, at(0)), [40, 8]);
    assert_eq!(used(&mut organization, at(31 * 60 * S - 1)), [40, 8]);
    assert_eq!(used(&mut organization, at(31 * 60 * S)), [40, 0]);
}

#[test]
fn a_counter_made_late_knows_the_ledger_what_it_lacks_and_what_is_open() {
    let mut organization = organization(&[]);
    for number in 1..=4 {
        admitted(
            &mut organization,
            number,
            amounts(10, 0),
            at(number as u64 * S),
        );
    }
    for number in 1..=2 {
        let _ = organization
            .settle(reservation(number), spend(number as i64), at(10 * S))
            .unwrap();
    }
    organization.booked_through(1).unwrap();
    organization
        .progress(reservation(3), spend(4), at(11 * S))
        .unwrap();
    let limits = [
        limit(1, "budget key spend hard", &day(), 100),
        limit(2, "breaker team spend metered", &minute(), 100),
        limit(3, "quota organization requests hard", &day(), 100),
    ];
    let list = seeds(&json!([seed(&day(), &json!([[at(S).wall_ns, 1]]))]));
    organization
        .load(policy(&snapshot(&limits)), &list, at(12 * S))
        .unwrap();
    let figures = |organization: &mut House| {
        states(organization, at(12 * S))
            .iter()
            .map(|state| {
                (
                    state["used"].as_i64().unwrap(),
                    state["held"].as_i64().unwrap(),
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        figures(&mut organization),
        [(1 + 2 + 4, 6 + 10), (2 + 4, 6 + 10), (3, 0)]
    );
    let _ = organization
        .settle(reservation(3), spend(5), at(12 * S))
        .unwrap();
    assert_eq!(organization.release(reservation(4), at(12 * S)), Ok(true));
    assert_eq!(
        figures(&mut organization),
        [(1 + 2 + 5, 0), (2 + 5, 0), (2, 0)]
    );
}

#[test]
fn a_counter_made_in_a_later_period_lets_older_reservations_end() {
    let mut organization = organization(&[]);
    admitted(&mut organization, 1, spend(10), at(0));
    reload(
        &mut organization,
        &[limit(1, "budget key spend hard", &day(), 100)],
        at(DAY),
    );
    assert_eq!(first(&mut organization, at(DAY)), (0, 0));
    let _ = organization
        .settle(reservation(1), spend(9), at(DAY))
        .unwrap();
    assert_eq!(first(&mut organization, at(DAY)), (0, 0));
}

#[test]
fn a_snapshot_that_fails_leaves_the_old_one_in_force() {
    let mut organization = organization(&[limit(1, "budget key spend hard", &day(), 100)]);
    let overflowing = json!([seed(
        &hour(),
        &json!([[at(0).wall_ns, i64::MAX], [at(0).wall_ns, 1]])
    )]);
    let wanted = policy(&snapshot(&[limit(
        2,
        "breaker key spend metered",
        &hour(),
        1,
    )]));
    let error = organization
        .load(wanted, &seeds(&overflowing), at(0))
        .unwrap_err();
    assert_eq!(error.code(), "overflow");
    let states = states(&mut organization, at(0));
    assert_eq!(
        (states.len(), &states[0]["limit_id"]),
        (1, &json!(id(1001).to_string()))
    );
}

#[test]
fn a_negative_seed_is_refused() {
    let json = json!([seed(&day(), &json!([[0, -1]]))]).to_string();
    assert_eq!(
        Seed::list_from_json(json.as_bytes()).unwrap_err().code(),
        "invalid_argument"
    );
}
