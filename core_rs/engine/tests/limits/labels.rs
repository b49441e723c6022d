//! Templates: one counter for each label, up to a number; the ledger and what is open fill them.
use comptroller_engine::{Ask, Decision, LABELS_MAX, Seed};
use serde_json::{Value, json};

use crate::fixture::{
    DAY, House, S, ask, at, day, each, featured, figures, fixed, label, limit, minute,
    organization, path, policy, reload, reservation, seeds, snapshot, spend, states, with,
};

fn template(number: u128, cap: i64) -> Value {
    let limit = limit(number, "budget key spend hard", &day(), cap);
    with(limit, "scope", each("feature"))
}

fn named(number: u128, name: &str, cap: i64) -> Value {
    let limit = limit(number, "budget key spend hard", &day(), cap);
    with(limit, "scope", label("feature", name))
}

fn asked(feature: &str, cost_nanos: i64) -> Ask {
    featured(feature, fixed(cost_nanos, 0))
}

fn is_admitted(house: &mut House, number: u128, feature: &str, cost_nanos: i64) -> bool {
    let decision = ask(house, number, asked(feature, cost_nanos), at(0));
    matches!(decision, Decision::Admitted(_))
}

/// Scope id, used and held of every state that is not empty.
fn counted(house: &mut House) -> Vec<(Value, i64, i64)> {
    let figure = |state: &Value, name: &str| state[name].as_i64().unwrap();
    let mut counted: Vec<_> = states(house, at(0))
        .iter()
        .map(|state| {
            let (used, held) = (figure(state, "used"), figure(state, "held"));
            (state["scope"].clone(), used, held)
        })
        .filter(|(_, used, held)| used + held > 0)
        .collect();
    counted.sort_by_key(|(scope, ..)| scope.to_string());
    counted
}

fn sorted(mut list: Vec<(Value, i64, i64)>) -> Vec<(Value, i64, i64)> {
    list.sort_by_key(|(scope, ..)| scope.to_string());
    list
}

#[test]
fn a_template_gives_each_label_a_counter_of_its_own() {
    let mut house = organization(&[template(1, 100)]);
    assert!(is_admitted(&mut house, 1, "search", 90));
    assert!(is_admitted(&mut house, 2, "chat", 100));
    assert!(!is_admitted(&mut house, 3, "search", 11));
    assert!(is_admitted(&mut house, 4, "search", 10));
    // A request without the label is not counted, however much it costs.
    assert!(matches!(
        ask(&mut house, 5, spend(500), at(0)),
        Decision::Admitted(_)
    ));
    let expected = vec![
        (label("feature", "chat"), 0, 100),
        (label("feature", "search"), 0, 100),
    ];
    assert_eq!(counted(&mut house), sorted(expected));
    let refusal = crate::fixture::refused(&mut house, 6, asked("chat", 1), at(0));
    assert_eq!(json!(refusal.scope), label("feature", "chat"));
    assert_eq!(&*refusal.code, "feature_budget_exceeded");
}

#[test]
fn a_refused_request_makes_no_label() {
    let mut house = organization(&[template(1, 100)]);
    for number in 0..10 {
        let name = format!("feature {number}");
        let _ = crate::fixture::refused(&mut house, number, asked(&name, 101), at(0));
    }
    assert_eq!(states(&mut house, at(0)).len(), 1);
}

#[test]
fn a_limit_that_names_a_label_replaces_the_template_for_it() {
    let other = with(template(3, 30), "window", minute());
    let mut house = organization(&[template(1, 100), named(2, "search", 150), other]);
    assert!(is_admitted(&mut house, 1, "chat", 20));
    assert!(!is_admitted(&mut house, 2, "chat", 11));
    // The other template has another window, so it still binds the label.
    assert!(!is_admitted(&mut house, 3, "search", 31));
    reload(
        &mut house,
        &[template(1, 100), named(2, "search", 150)],
        at(0),
    );
    assert!(is_admitted(&mut house, 4, "search", 150));
    assert!(!is_admitted(&mut house, 5, "search", 1));
    reload(&mut house, &[template(1, 100)], at(0));
    let refusal = crate::fixture::refused(&mut house, 6, asked("search", 0), at(0));
    let figures = refusal.limit.unwrap();
    assert_eq!((figures.cap, figures.held), (100, 150));
}

#[test]
fn labels_beyond_the_maximum_share_one_counter_until_empty_ones_are_forgotten() {
    let mut house = organization(&[template(1, 100)]);
    for number in 0..LABELS_MAX as u128 {
        assert!(is_admitted(
            &mut house,
            number,
            &format!("feature {number}"),
            1
        ));
    }
    assert!(is_admitted(&mut house, 1_000_001, "one too many", 60));
    assert!(!is_admitted(&mut house, 1_000_002, "another", 41));
    assert!(is_admitted(&mut house, 1_000_003, "another", 40));
    assert!(is_admitted(&mut house, 1_000_004, "feature 7", 99));
    let shared = |house: &mut House| {
        let json = house.scope_states(surplus(), at(0)).unwrap();
        let found: Vec<Value> = serde_json::from_slice(&json).unwrap();
        found[0]["held"].as_i64().unwrap()
    };
    assert_eq!(shared(&mut house), 100);
    // What it was counted with counts it to its end.
    assert_eq!(house.release(reservation(1_000_001), at(0)), Ok(true));
    assert_eq!(shared(&mut house), 40);
    // One label ends; it is looked for at most every 10 s.
    assert_eq!(house.release(reservation(3), at(0)), Ok(true));
    assert!(is_admitted(&mut house, 1_000_005, "another", 60));
    assert_eq!(shared(&mut house), 100);
    let later = at(10 * S);
    let decision = ask(&mut house, 1_000_006, asked("new", 100), later);
    assert!(matches!(decision, Decision::Admitted(_)));
    let decision = ask(&mut house, 1_000_007, asked("newer", 1), later);
    assert!(matches!(decision, Decision::Refused(_)));
    assert_eq!(house.release(reservation(1_000_003), later), Ok(true));
    assert_eq!(house.release(reservation(1_000_005), later), Ok(true));
    assert_eq!(shared(&mut house), 0);
}

fn surplus() -> comptroller_engine::Scope {
    comptroller_engine::Scope {
        kind: comptroller_engine::ScopeKind::Feature,
        id: comptroller_engine::Id::from(0),
    }
}

/// What the ledger says about a template.
fn seed(labels: &Value, rest: i64) -> Vec<Seed> {
    let noon = at(0).wall_ns;
    seeds(&json!([{
        "scope": each("feature"), "where": null, "resource": "spend", "window": day(),
        "starts_at_ns": 0, "ends_at_ns": 0, "labels": labels, "rest": [[noon, rest]],
    }]))
}

#[test]
fn a_template_starts_from_what_the_ledger_knows_of_each_label() {
    let noon = at(0).wall_ns;
    let labels = json!([
        {"label": "search", "entries": [[noon, 70], [noon - DAY, 1_000]]},
        {"label": "chat", "entries": [[noon, 20], [noon, 10]]},
    ]);
    let wanted = snapshot(&[template(1, 100)]);
    let json = comptroller_engine::Organization::all_counters(policy(&wanted), at(0)).unwrap();
    let specs: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(specs[0]["scope"], each("feature"));
    assert_eq!(specs.as_array().unwrap().len(), 1);
    let mut house = House::new(policy(&wanted), &seed(&labels, 5), at(0)).unwrap();
    let expected = vec![
        (label("feature", "search"), 70, 0),
        (label("feature", "chat"), 30, 0),
        (each("feature"), 5, 0),
    ];
    assert_eq!(counted(&mut house), sorted(expected));
    assert!(!is_admitted(&mut house, 1, "search", 31));
    assert!(is_admitted(&mut house, 2, "unknown", 100));
}

#[test]
fn a_label_with_a_limit_of_its_own_is_seeded_once() {
    let noon = at(0).wall_ns;
    let own = json!({
        "scope": label("feature", "search"), "where": null, "resource": "spend", "window": day(),
        "starts_at_ns": 0, "ends_at_ns": 0, "entries": [[noon, 70]],
    });
    let mut list = seeds(&json!([own]));
    list.extend(seed(
        &json!([{"label": "search", "entries": [[noon, 70]]}]),
        0,
    ));
    let wanted = snapshot(&[template(1, 100), named(2, "search", 150)]);
    let json = comptroller_engine::Organization::all_counters(policy(&wanted), at(0)).unwrap();
    let specs: Vec<Value> = serde_json::from_slice(&json).unwrap();
    assert_eq!(specs.len(), 2);
    let mut house = House::new(policy(&wanted), &list, at(0)).unwrap();
    assert_eq!(counted(&mut house), [(label("feature", "search"), 70, 0)]);
}

#[test]
fn open_reservations_count_in_a_template_that_comes_later_and_end_in_it() {
    let mut house = organization(&[]);
    assert!(is_admitted(&mut house, 1, "search", 60));
    assert!(is_admitted(&mut house, 2, "chat", 50));
    let _ = house.settle(reservation(2), spend(45), at(0)).unwrap();
    reload(&mut house, &[template(1, 100)], at(0));
    let expected = vec![
        (label("feature", "search"), 0, 60),
        (label("feature", "chat"), 45, 0),
    ];
    assert_eq!(counted(&mut house), sorted(expected));
    assert!(!is_admitted(&mut house, 3, "search", 41));
    // Edited: the counters stay. Removed: they go on counting. Back: nothing is forgotten.
    reload(&mut house, &[template(1, 70)], at(0));
    assert!(!is_admitted(&mut house, 3, "search", 11));
    reload(&mut house, &[], at(0));
    assert!(counted(&mut house).is_empty());
    assert!(is_admitted(&mut house, 3, "search", 500));
    assert!(is_admitted(&mut house, 4, "fresh", 7));
    let _ = house.settle(reservation(1), spend(55), at(0)).unwrap();
    reload(&mut house, &[template(2, 1_000)], at(0));
    let expected = vec![
        (label("feature", "search"), 55, 500),
        (label("feature", "chat"), 45, 0),
        (label("feature", "fresh"), 0, 7),
    ];
    assert_eq!(counted(&mut house), sorted(expected));
    for number in [3, 4] {
        assert_eq!(house.release(reservation(number), at(0)), Ok(true));
    }
    let expected = vec![
        (label("feature", "search"), 55, 0),
        (label("feature", "chat"), 45, 0),
    ];
    assert_eq!(counted(&mut house), sorted(expected));
}

#[test]
fn a_second_template_counts_what_is_open_under_the_first() {
    let mut house = organization(&[template(1, 100)]);
    assert!(is_admitted(&mut house, 1, "search", 60));
    let hourly = with(template(2, 100), "window", crate::fixture::hour());
    reload(&mut house, &[template(1, 100), hourly], at(0));
    let searched: Vec<i64> = figures(&mut house, at(0))
        .iter()
        .map(|(_, held)| *held)
        .collect();
    assert_eq!(searched.iter().sum::<i64>(), 120);
    let _ = house.settle(reservation(1), spend(50), at(0)).unwrap();
    assert_eq!(
        figures(&mut house, at(0))
            .iter()
            .map(|(used, _)| used)
            .sum::<i64>(),
        100
    );
}

#[test]
fn templates_of_each_dynamic_kind_count_their_own_labels() {
    for kind in ["session", "feature", "agent", "end_user"] {
        let limit = limit(1, "budget key spend hard", &day(), 10);
        let mut house = organization(&[with(limit, "scope", each(kind))]);
        let ask = Ask {
            session: Some("a".into()),
            agent: Some("a".into()),
            end_user: Some("a".into()),
            ..asked("a", 10)
        };
        let first = house
            .admit(reservation(1), path(), ask.clone(), at(0))
            .unwrap();
        assert!(matches!(first, Decision::Admitted(_)));
        assert_eq!(counted(&mut house), [(label(kind, "a"), 0, 10)]);
        let second = house.admit(reservation(2), path(), ask, at(0)).unwrap();
        let Decision::Refused(refusal) = second else {
            panic!("admitted")
        };
        assert_eq!(*refusal.code, format!("{kind}_budget_exceeded"));
    }
}
