//! Every kind of scope, and the places within it: who is bound, and who is not.
use std::sync::Arc;

use comptroller_engine::{Ask, Decision, Engine, Id, Path, ScopeKind, Subject};
use serde_json::{Value, json};

use crate::fixture::{
    House, KEY, MEMBER, ORGANIZATION, TEAM, at, day, each, figures, fixed, id, label, limit,
    organization, reservation, snapshot, spend, with,
};

const POOLS: [u128; 2] = [6, 7];

fn member_in_team(member: u128) -> Id {
    let label = format!("{}/{}", id(member), id(TEAM));
    Id::of_label("member_in_team", &label)
}

/// All scopes that a request can have within its organization; the owner of the key is given.
fn wide_path(key: u128, member: u128) -> Path {
    Path::new(id(key), Some(id(member)), Some(id(TEAM)), id(ORGANIZATION))
        .drawing_on(Some(Arc::from(POOLS.map(id))), Some(member_in_team(member)))
}

/// A request that names all that it can.
fn named(cost_nanos: i64, name: &str) -> Ask {
    Ask {
        subject: Arc::new(Subject {
            model: "gpt-4o".into(),
            tier: Some("flagship".into()),
            provider: "openai".into(),
            feature: Some(name.into()),
        }),
        session: Some(name.into()),
        agent: Some(name.into()),
        end_user: Some(name.into()),
        ..fixed(cost_nanos, 0)
    }
}

fn scopes() -> Vec<(Value, &'static str)> {
    let plain = |kind: &str, number: u128| json!({"kind": kind, "id": id(number).to_string()});
    let team_member = member_in_team(MEMBER).to_string();
    vec![
        (plain("key", KEY), "key_budget_exceeded"),
        (label("session", "a"), "session_budget_exceeded"),
        (
            json!({"kind": "member_in_team", "id": team_member}),
            "member_in_team_budget_exceeded",
        ),
        (plain("member", MEMBER), "member_budget_exceeded"),
        (plain("pool", POOLS[0]), "pool_budget_exceeded"),
        (plain("pool", POOLS[1]), "pool_budget_exceeded"),
        (label("feature", "a"), "feature_budget_exceeded"),
        (label("agent", "a"), "agent_budget_exceeded"),
        (label("end_user", "a"), "end_user_budget_exceeded"),
        (plain("team", TEAM), "team_budget_exceeded"),
        (
            plain("organization", ORGANIZATION),
            "tenant_budget_exceeded",
        ),
    ]
}

fn budget(number: u128, scope: &Value, cap: i64) -> Value {
    let budget = limit(number, "budget key spend hard", &day(), cap);
    with(budget, "scope", scope.clone())
}

fn code(house: &mut House, number: u128, path: Path, ask: Ask) -> String {
    match house.admit(reservation(number), path, ask, at(0)).unwrap() {
        Decision::Admitted(_) => "admitted".to_owned(),
        Decision::Refused(refusal) => refusal.code.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn each_kind_of_scope_binds_its_own_requests_under_its_own_code() {
    for (scope, expected) in scopes() {
        let mut house = organization(&[budget(1, &scope, 10)]);
        let path = || wide_path(KEY, MEMBER);
        assert_eq!(code(&mut house, 1, path(), named(11, "a")), expected);
        assert_eq!(code(&mut house, 2, path(), named(10, "a")), "admitted");
        assert_eq!(code(&mut house, 3, path(), named(1, "a")), expected);
        let other = Path::new(id(9), None, None, id(8));
        assert_eq!(code(&mut house, 4, other, named(11, "b")), "admitted");
        assert_eq!(figures(&mut house, at(0)), [(0, 10)], "{scope}");
    }
}

#[test]
fn every_scope_of_a_request_is_charged_in_full_each_pool_too() {
    let limits: Vec<Value> = scopes()
        .iter()
        .zip(1..)
        .map(|((scope, _), number)| budget(number, scope, 100))
        .collect();
    let mut house = organization(&limits);
    let ask = named(70, "a");
    assert_eq!(code(&mut house, 1, wide_path(KEY, MEMBER), ask), "admitted");
    assert_eq!(figures(&mut house, at(0)), [(0, 70); 11]);
    let _ = house.settle(reservation(1), spend(64), at(0)).unwrap();
    assert_eq!(figures(&mut house, at(0)), [(64, 0); 11]);
}

#[test]
fn the_narrowest_of_the_scopes_that_refuse_is_named() {
    let order = scopes();
    for first in 0..order.len() {
        let limits: Vec<Value> = order
            .iter()
            .zip(1_u8..12)
            .skip(first)
            .rev()
            .map(|((scope, _), number)| budget(number.into(), scope, 0))
            .collect();
        let mut house = organization(&limits);
        let found = code(&mut house, 1, wide_path(KEY, MEMBER), named(0, "a"));
        assert_eq!(found, order[first].1);
    }
}

#[test]
fn a_member_spends_apart_in_each_team() {
    let scope = json!({"kind": "member_in_team", "id": member_in_team(MEMBER).to_string()});
    let mut house = organization(&[budget(1, &scope, 10)]);
    let elsewhere = Path::new(id(KEY), Some(id(MEMBER)), Some(id(20)), id(ORGANIZATION))
        .drawing_on(None, Some(Id::of_label("member_in_team", "other")));
    assert_eq!(code(&mut house, 1, elsewhere, named(11, "a")), "admitted");
    assert_eq!(
        code(&mut house, 2, wide_path(KEY, 30), named(11, "a")),
        "admitted"
    );
    let refused = code(&mut house, 3, wide_path(KEY, MEMBER), named(11, "a"));
    assert_eq!(refused, "member_in_team_budget_exceeded");
}

#[test]
fn a_place_binds_the_requests_that_each_of_its_lists_names() {
    let places = [
        (json!({"models": ["gpt-4o"]}), true),
        (json!({"models": ["gpt-4o-mini", "o3"]}), false),
        (json!({"tiers": ["economy", "flagship"]}), true),
        (json!({"tiers": ["economy"]}), false),
        (json!({"providers": ["openai"]}), true),
        (json!({"providers": ["azure"]}), false),
        (json!({"features": ["a"]}), true),
        (json!({"features": ["A"]}), false),
        (json!({"models": []}), false),
        (
            json!({"models": null, "tiers": null, "providers": null, "features": null}),
            true,
        ),
        (
            json!({"models": ["gpt-4o"], "tiers": ["flagship"], "features": ["a"]}),
            true,
        ),
        (
            json!({"models": ["gpt-4o"], "tiers": ["flagship"], "features": ["b"]}),
            false,
        ),
    ];
    for (place, binds) in places {
        let binding = with(
            limit(1, "budget key spend hard", &day(), 10),
            "where",
            place.clone(),
        );
        let mut house = organization(&[binding]);
        let found = code(&mut house, 1, wide_path(KEY, MEMBER), named(11, "a"));
        assert_eq!(found == "key_budget_exceeded", binds, "{place}");
        let unnamed = Ask {
            subject: Arc::new(Subject::default()),
            ..fixed(11, 0)
        };
        let everything = place["models"].is_null()
            && ["tiers", "providers", "features"]
                .iter()
                .all(|list| place[list].is_null());
        let found = code(&mut house, 2, wide_path(KEY, MEMBER), unnamed);
        assert_eq!(found == "key_budget_exceeded", everything, "{place}");
    }
}

#[test]
fn several_limits_read_one_counter() {
    let soft = limit(2, "budget key spend soft", &day(), 10);
    let mut house = organization(&[limit(1, "budget key spend hard", &day(), 100), soft]);
    assert_eq!(
        code(&mut house, 1, wide_path(KEY, MEMBER), named(60, "a")),
        "admitted"
    );
    assert_eq!(figures(&mut house, at(0)), [(0, 60), (0, 60)]);
    let named_twice = house.missing_counters(
        crate::fixture::policy(&snapshot(&[limit(3, "budget key spend shadow", &day(), 1)])),
        at(0),
    );
    assert_eq!(named_twice.unwrap(), b"[]");
}

/// Two organizations with a key each, and limits of the installation.
fn engine(limits: &[Value], charging: &Value) -> Engine {
    let engine = Engine::new();
    for number in [1, 2] {
        let owner = id(number).to_string();
        let policy = json!({
            "organization_id": owner, "state": "active", "currency": "EUR", "version": "v1",
            "charging": charging, "limits": [],
        });
        let keys = json!([{
            "id": id(number + 10).to_string(), "organization_id": owner, "team_id": null,
            "member_id": null, "state": "active", "expires_at_ns": null, "secrets": [],
        }]);
        engine
            .load_organization(policy.to_string().as_bytes(), b"[]", at(0))
            .unwrap();
        engine.load_keys(keys.to_string().as_bytes()).unwrap();
    }
    let shared = json!({"version": "v1", "limits": limits});
    engine
        .load_shared(shared.to_string().as_bytes(), b"[]", at(0))
        .unwrap();
    engine
}

fn shared_code(engine: &Engine, key: u32, number: u128, cost_nanos: i64) -> String {
    let ask = fixed(cost_nanos, 0);
    match engine.admit(key, reservation(number), &ask, at(0)).unwrap() {
        Decision::Admitted(_) => "admitted".to_owned(),
        Decision::Refused(refusal) => {
            assert!(matches!(
                refusal.scope.kind,
                ScopeKind::Provider | ScopeKind::Installation
            ));
            refusal.code.to_string()
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn limits_of_providers_and_of_the_installation_count_cost_of_all_organizations() {
    // Two units of the organizations' currency for one of the price sheet's.
    let charging = json!({
        "rates": [{"from_ns": 0, "picos": 2_000_000_000_000_i64}], "markup_ppm": 0, "fee_nanos": 0,
    });
    for (scope, code) in [
        (label("provider", "openai"), "provider_budget_exceeded"),
        (label("installation", ""), "installation_budget_exceeded"),
    ] {
        let engine = engine(&[budget(1, &scope, 100)], &charging);
        assert_eq!(shared_code(&engine, 0, 1, 60), "admitted");
        assert_eq!(shared_code(&engine, 1, 2, 41), code);
        assert_eq!(shared_code(&engine, 1, 3, 40), "admitted");
        let states: Value = serde_json::from_slice(&engine.shared_states(at(0)).unwrap()).unwrap();
        assert_eq!(
            (&states[0]["used"], &states[0]["held"]),
            (&json!(0), &json!(100))
        );
        assert_eq!(states[0]["resource"], json!("spend"));
    }
    let elsewhere = engine(&[budget(1, &label("provider", "azure"), 0)], &charging);
    assert_eq!(shared_code(&elsewhere, 0, 1, 60), "admitted");
}

#[test]
fn what_is_open_when_the_installation_is_first_limited_counts() {
    let engine = engine(&[], &json!(null));
    assert_eq!(shared_code(&engine, 0, 1, 60), "admitted");
    let limits = json!({"version": "v2", "limits": [budget(1, &label("installation", ""), 100)]});
    let json = limits.to_string();
    engine.load_shared(json.as_bytes(), b"[]", at(0)).unwrap();
    assert_eq!(
        shared_code(&engine, 1, 2, 41),
        "installation_budget_exceeded"
    );
    let actual = comptroller_engine::Actual::default();
    let _ = engine.settle(0, reservation(1), actual, at(0)).unwrap();
    assert_eq!(shared_code(&engine, 1, 3, 100), "admitted");
}

#[test]
fn a_scope_of_the_wrong_board_is_refused() {
    let own = |scope: Value| {
        let snapshot = snapshot(&[budget(1, &scope, 1)]).to_string();
        comptroller_engine::Policy::from_json(snapshot.as_bytes()).is_ok()
    };
    assert!(!own(label("provider", "openai")) && !own(label("installation", "")));
    assert!(!own(each("team")) && own(each("feature")));
    let shared = json!({"version": "v", "limits": [budget(1, &label("team", "x"), 1)]});
    let policy = comptroller_engine::SharedPolicy::from_json(shared.to_string().as_bytes());
    assert_eq!(policy.unwrap_err().code(), "invalid_policy");
}
