//! Which limit refuses, what it says, and that a refusal leaves no trace.
use comptroller_engine::decision::WaitsFor;
use comptroller_engine::{Decision, Mode, Resource, ScopeKind, Use};
use serde_json::{Value, json};

use crate::fixture::{
    DAY, House, S, admitted, amounts, at, day, first, hour, id, limit, minute, organization, path,
    placed, policy, refused, reload, reservation, snapshot, spend, states,
};

#[test]
fn a_budget_admits_up_to_its_cap_and_not_one_nano_unit_more() {
    let mut organization = organization(&[limit(1, "budget team spend hard", &day(), 100)]);
    assert_eq!(
        admitted(&mut organization, 1, spend(60), at(0)).remaining_spend_nanos,
        Some(40)
    );
    assert_eq!(
        admitted(&mut organization, 2, spend(40), at(0)).remaining_spend_nanos,
        Some(0)
    );
    let refusal = refused(&mut organization, 3, spend(1), at(0));
    assert_eq!(
        (&*refusal.code, refusal.status, refusal.kind),
        ("team_budget_exceeded", 402, "budget")
    );
    assert_eq!(refusal.scope.kind, ScopeKind::Team);
    let figures = refusal.limit.unwrap();
    assert_eq!(
        (figures.cap, figures.used, figures.held, figures.requested),
        (100, 0, 100, 1)
    );
    assert_eq!(
        (figures.limit_id, figures.resource),
        (id(1001), Resource::Spend)
    );
    assert_eq!((figures.mode, figures.window), (Mode::Hard, "calendar_day"));
    assert_eq!(figures.time_zone.as_deref(), Some("UTC"));
}

#[test]
fn each_level_has_a_code_of_its_own() {
    let expected = [
        ("budget key spend hard", "key_budget_exceeded", 402),
        ("budget member spend hard", "member_budget_exceeded", 402),
        ("budget team spend hard", "team_budget_exceeded", 402),
        (
            "budget organization spend hard",
            "tenant_budget_exceeded",
            402,
        ),
        ("rate key requests hard", "rate_limit_exceeded", 429),
        (
            "quota organization requests hard",
            "plan_quota_exceeded",
            429,
        ),
        ("breaker team spend metered", "spend_circuit_open", 503),
    ];
    for (what, code, status) in expected {
        let mut organization = organization(&[limit(1, what, &minute(), 0)]);
        let refusal = refused(&mut organization, 1, spend(0), at(0));
        assert_eq!((&*refusal.code, refusal.status), (code, status), "{what}");
        assert_eq!(refusal.waits_for, Some(WaitsFor::Never));
    }
}

#[test]
fn a_refusal_by_one_limit_of_eight_leaves_no_trace_on_the_others() {
    let mut limits: Vec<Value> = ["key", "member", "team", "organization"]
        .iter()
        .zip(0..)
        .flat_map(|(scope, number)| {
            let (budget, rate) = (
                format!("budget {scope} spend hard"),
                format!("rate {scope} requests hard"),
            );
            [
                limit(2 * number, &budget, &day(), 100),
                limit(2 * number + 1, &rate, &minute(), 100),
            ]
        })
        .collect();
    limits[6]["cap"] = json!(10);
    let mut organization = organization(&limits);
    admitted(&mut organization, 1, spend(10), at(0));
    let before = states(&mut organization, at(0));
    let refusal = refused(&mut organization, 2, spend(1), at(0));
    assert_eq!(refusal.limit.unwrap().limit_id, id(1006));
    assert_eq!(refusal.seen.len(), 8);
    assert_eq!(states(&mut organization, at(0)), before);
    assert_eq!(organization.open_reservations(), 1);
}

#[test]
fn a_hard_limit_says_whether_open_requests_time_or_nothing_will_help() {
    let mut organization = organization(&[limit(1, "budget key spend hard", &day(), 100)]);
    admitted(&mut organization, 1, spend(80), at(0));
    let refusal = refused(&mut organization, 2, spend(30), at(0));
    assert_eq!(
        (refusal.waits_for, refusal.frees_at_wall_ns),
        (Some(WaitsFor::OpenRequests), None)
    );
    let refusal = refused(&mut organization, 2, spend(101), at(0));
    assert_eq!(
        (refusal.waits_for, refusal.frees_at_wall_ns),
        (Some(WaitsFor::Never), None)
    );
    let _ = organization
        .settle(reservation(1), spend(80), at(0))
        .unwrap();
    let refusal = refused(&mut organization, 2, spend(30), at(5));
    assert_eq!(refusal.waits_for, Some(WaitsFor::Period));
    assert_eq!(refusal.frees_at_wall_ns, Some(at(DAY / 2).wall_ns));
    assert_eq!(refusal.retry_after_ns, Some(DAY / 2 - 5));
    assert_eq!(
        refused(&mut organization, 2, spend(30), at(DAY / 2 - 1)).retry_after_ns,
        Some(1)
    );
    admitted(&mut organization, 2, spend(30), at(DAY / 2));
}

#[test]
fn the_refusal_names_by_precedence_and_waits_for_the_limit_that_frees_last() {
    let mut organization = organization(&[
        limit(1, "budget organization spend hard", &day(), 10),
        limit(2, "breaker member spend metered", &hour(), 10),
        limit(3, "quota organization requests hard", &day(), 1),
        limit(4, "rate key tokens metered", &minute(), 10),
        limit(5, "rate key requests hard", &minute(), 1),
    ]);
    admitted(&mut organization, 1, amounts(10, 10), at(0));
    let _ = organization
        .settle(reservation(1), amounts(10, 10), at(0))
        .unwrap();
    let refusal = refused(&mut organization, 2, amounts(1, 1), at(0));
    assert_eq!(refusal.limit.unwrap().limit_id, id(1005));
    assert_eq!(refusal.retry_after_ns, Some(DAY / 2));
    for (gone, next) in [(5, 1004), (4, 1003), (3, 1002), (2, 1001)] {
        let left: Vec<Value> = (1..gone)
            .map(|number| match number {
                1 => limit(1, "budget organization spend hard", &day(), 10),
                2 => limit(2, "breaker member spend metered", &hour(), 10),
                3 => limit(3, "quota organization requests hard", &day(), 1),
                _ => limit(4, "rate key tokens metered", &minute(), 10),
            })
            .collect();
        reload(&mut organization, &left, at(0));
        let refusal = refused(&mut organization, 2, amounts(1, 1), at(0));
        assert_eq!(refusal.limit.unwrap().limit_id, id(next));
    }
}

#[test]
fn a_limit_that_never_frees_is_named_first() {
    let mut organization = organization(&[
        limit(1, "rate key requests hard", &minute(), 1),
        limit(2, "budget organization spend hard", &day(), 10),
    ]);
    admitted(&mut organization, 1, spend(0), at(0));
    let refusal = refused(&mut organization, 2, spend(11), at(0));
    assert_eq!(&*refusal.code, "tenant_budget_exceeded");
    assert_eq!(
        (refusal.waits_for, refusal.retry_after_ns),
        (Some(WaitsFor::Never), None)
    );
}

#[test]
fn a_breaker_ignores_holds_opens_at_its_threshold_and_closes_by_itself() {
    let mut organization = organization(&[
        limit(1, "breaker key spend metered", &minute(), 100),
        limit(2, "breaker key spend metered", &hour(), 150),
    ]);
    admitted(&mut organization, 1, spend(1_000), at(0));
    admitted(&mut organization, 2, spend(1_000), at(S));
    organization
        .progress(reservation(1), spend(99), at(2 * S))
        .unwrap();
    admitted(&mut organization, 3, spend(1_000), at(2 * S));
    organization
        .progress(reservation(1), spend(100), at(3 * S))
        .unwrap();
    let refusal = refused(&mut organization, 4, spend(1), at(3 * S));
    assert_eq!(
        (&*refusal.code, refusal.waits_for),
        ("spend_circuit_open", Some(WaitsFor::Period))
    );
    assert_eq!(refusal.retry_after_ns, Some(60 * S));
    let state = &states(&mut organization, at(3 * S))[0];
    assert_eq!(
        (&state["open"], &state["frees_at_ns"]),
        (&json!(true), &json!(at(63 * S).wall_ns))
    );
    refused(&mut organization, 4, spend(1), at(63 * S - 1))
        .retry_after_ns
        .unwrap();
    admitted(&mut organization, 4, spend(1), at(63 * S));
    assert_eq!(
        states(&mut organization, at(63 * S))[0]["open"],
        json!(false)
    );
}

#[test]
fn soft_and_shadow_limits_measure_and_never_refuse() {
    let mut organization = organization(&[
        limit(1, "budget key spend soft", &day(), 10),
        limit(2, "budget key spend shadow", &day(), 0),
    ]);
    let admission = admitted(&mut organization, 1, spend(1_000), at(0));
    assert_eq!(admission.remaining_spend_nanos, None);
    let _ = organization
        .settle(reservation(1), spend(900), at(0))
        .unwrap();
    assert_eq!(first(&mut organization, at(0)), (900, 0));
}

#[test]
fn a_limit_with_a_place_binds_only_the_models_and_providers_it_names() {
    let mut limited = limit(1, "budget key spend hard", &day(), 10);
    limited["where"] = json!({"models": ["gpt-4o", "o3"], "providers": ["openai"]});
    let mut organization = organization(&[limited]);
    admitted(&mut organization, 1, spend(1_000), at(0));
    let mut ask = |number, model, provider| {
        organization
            .admit(
                reservation(number),
                path(),
                placed(spend(11), model, provider),
                at(0),
            )
            .unwrap()
    };
    assert!(matches!(ask(2, "gpt-4o", "azure"), Decision::Admitted(_)));
    assert!(matches!(ask(3, "o3", "openai"), Decision::Refused(_)));
    assert_eq!(first(&mut organization, at(0)), (0, 0));
}

#[test]
fn a_suspended_organization_refuses_and_says_so() {
    let mut organization = organization(&[]);
    let mut suspended = snapshot(&[]);
    suspended["state"] = json!("suspended");
    organization.load(policy(&suspended), &[], at(0)).unwrap();
    let refusal = refused(&mut organization, 1, spend(0), at(0));
    assert_eq!(
        (&*refusal.code, refusal.status),
        ("organization_suspended", 403)
    );
    assert_eq!((refusal.kind, refusal.limit), ("organization", None));
    assert_eq!(organization.open_reservations(), 0);
}

#[test]
fn models_are_refused_by_the_outermost_scope_that_does_not_list_them() {
    let mut listed = snapshot(&[]);
    listed["rules"] = json!([
        {"scope": crate::fixture::scope("key"), "models": []},
        {"scope": crate::fixture::scope("team"), "models": ["gpt-4o", "o3"]},
    ]);
    let organization = House::new(policy(&listed), &[], at(0)).unwrap();
    let refused = |model| {
        let asked = Use {
            model,
            ..Use::default()
        };
        organization.refused_by_rule(&path(), &asked)
    };
    let code = "model_not_allowed";
    assert_eq!(refused("gpt-4o"), Some((code, ScopeKind::Key)));
    assert_eq!(refused("gpt-5"), Some((code, ScopeKind::Team)));
}

#[test]
fn the_keys_tightest_rates_are_told() {
    let mut organization = organization(&[
        limit(1, "rate key requests hard", &minute(), 10),
        limit(2, "rate key requests hard", &hour(), 5),
        limit(3, "rate key tokens metered", &minute(), 100),
        limit(4, "rate team requests hard", &minute(), 1),
    ]);
    let admission = admitted(&mut organization, 1, amounts(0, 70), at(S / 2));
    let (requests, tokens) = (admission.requests.unwrap(), admission.tokens.unwrap());
    assert_eq!((requests.limit, requests.remaining), (5, 4));
    assert_eq!(requests.reset_ns, 61 * 60 * S - S / 2);
    assert_eq!(
        (tokens.limit, tokens.remaining, tokens.reset_ns),
        (100, 100, 0)
    );
}

#[test]
fn kinds_of_limits_are_named_in_the_documented_order() {
    let now = json!({"kind": "now"});
    let life = json!({"kind": "lifetime", "starts_at_ns": 0});
    let order = [
        (
            "concurrency organization concurrency hard",
            &now,
            "concurrency_exceeded",
        ),
        (
            "rate organization requests hard",
            &minute(),
            "rate_limit_exceeded",
        ),
        (
            "rate organization tokens metered",
            &minute(),
            "rate_limit_exceeded",
        ),
        (
            "quota organization requests hard",
            &day(),
            "plan_quota_exceeded",
        ),
        ("breaker key spend metered", &minute(), "spend_circuit_open"),
        (
            "breaker organization spend metered",
            &hour(),
            "spend_circuit_open",
        ),
        ("budget key spend hard", &day(), "key_budget_exceeded"),
        (
            "budget organization spend hard",
            &day(),
            "tenant_budget_exceeded",
        ),
        (
            "balance organization spend hard",
            &life,
            "prepaid_balance_required",
        ),
    ];
    for first in 0..order.len() {
        // A cap of one request, or of one nano unit, that one request has used up.
        let limits: Vec<Value> = (first..order.len())
            .rev()
            .map(|at| limit(at as u128, order[at].0, order[at].1, 1))
            .collect();
        let mut organization = organization(&limits);
        admitted(&mut organization, 1, spend(0), at(0));
        organization
            .progress(reservation(1), amounts(1, 1), at(0))
            .unwrap();
        let refusal = refused(&mut organization, 2, spend(1), at(0));
        let code = order[first].2;
        let named = refusal.limit.unwrap().limit_id;
        assert_eq!((&*refusal.code, named), (code, id(1000 + first as u128)));
    }
}
