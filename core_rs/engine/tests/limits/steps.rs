//! What limits do before and instead of refusing: notices, downgrades, confirmations, queues.
use comptroller_engine::{Action, Ask, Decision, STEPS_MAX};
use serde_json::{Value, json};

use crate::fixture::{
    DAY, House, NEW_YEAR, S, admitted, at, by, day, diverted, fixed, id, limit, minute,
    organization, patient, policy, refused, reload, reservation, snapshot, spend, waiting, with,
};

fn stepped(mode: &str, cap: i64, steps: &Value) -> Value {
    let limit = limit(1, &format!("budget team spend {mode}"), &day(), cap);
    with(limit, "steps", steps.clone())
}

/// Settle a request that costs so much; return what it crossed, as (percent, repeat, settled).
fn spent(house: &mut House, number: u128, cost_nanos: i64, now_ns: u64) -> Vec<(u8, u32, i64)> {
    admitted(house, number, spend(0), at(now_ns));
    let done = house
        .settle(reservation(number), spend(cost_nanos), at(now_ns))
        .unwrap();
    done.crossed
        .iter()
        .map(|it| (it.percent, it.repeat, it.settled))
        .collect()
}

fn after(ask: Ask, steps: usize) -> Ask {
    Ask {
        taken: vec![(id(1001), steps)],
        ..ask
    }
}

#[test]
fn a_share_of_the_cap_is_told_once_a_period_whoever_reaches_it() {
    let steps = json!([
        {"percent": 50, "action": "notify"}, {"percent": 80, "action": "notify"},
        {"percent": 100, "action": "notify"},
    ]);
    let mut house = organization(&[stepped("hard", 100, &steps)]);
    assert_eq!(spent(&mut house, 1, 49, 0), []);
    assert_eq!(spent(&mut house, 2, 1, 0), [(50, 0, 50)]);
    assert_eq!(spent(&mut house, 3, 10, 0), []);
    // A lowered cap tells what it makes reached, a raised one nothing again.
    reload(&mut house, &[stepped("hard", 75, &steps)], at(0));
    assert_eq!(spent(&mut house, 4, 0, 0), [(80, 0, 60)]);
    reload(&mut house, &[stepped("hard", 1_000, &steps)], at(0));
    assert_eq!(spent(&mut house, 5, 740, 0), []);
    assert_eq!(spent(&mut house, 6, 300, 0), [(100, 0, 1_100)]);
    assert_eq!(spent(&mut house, 7, 900, DAY), [(50, 0, 900), (80, 0, 900)]);
}

#[test]
fn a_crossing_names_limit_period_and_cap() {
    let steps = json!([{"percent": 80, "action": "notify"}]);
    let mut house = organization(&[stepped("soft", 100, &steps)]);
    admitted(&mut house, 1, spend(0), at(0));
    let done = house.settle(reservation(1), spend(80), at(0)).unwrap();
    let crossing = done.crossed[0];
    assert_eq!((crossing.limit_id, crossing.cap), (id(1001), 100));
    assert_eq!(crossing.period_starts_at_ns, NEW_YEAR);
}

#[test]
fn a_settlement_in_a_period_that_is_over_tells_nothing_and_spoils_nothing() {
    let steps = json!([{"percent": 50, "action": "notify"}]);
    let mut house = organization(&[stepped("hard", 100, &steps)]);
    admitted(&mut house, 1, spend(60), at(0));
    assert_eq!(spent(&mut house, 2, 50, DAY), [(50, 0, 50)]);
    let done = house.settle(reservation(1), spend(60), at(DAY)).unwrap();
    assert!(done.crossed.is_empty());
    assert_eq!(spent(&mut house, 3, 50, DAY), []);
}

#[test]
fn the_notice_of_a_soft_limit_is_repeated_while_it_is_over_after_each_cooldown() {
    let steps = json!([{"percent": 100, "action": "notify"}]);
    let soft = |cap| with(stepped("soft", cap, &steps), "cooldown_s", json!(60));
    let mut house = organization(&[soft(100)]);
    assert_eq!(spent(&mut house, 1, 150, 0), [(100, 0, 150)]);
    assert_eq!(spent(&mut house, 2, 1, 60 * S - 1), []);
    assert_eq!(spent(&mut house, 3, 1, 60 * S), [(100, 1, 152)]);
    assert_eq!(spent(&mut house, 4, 1, 61 * S), []);
    assert_eq!(spent(&mut house, 5, 1, 130 * S), [(100, 2, 154)]);
    reload(&mut house, &[soft(1_000)], at(200 * S));
    assert_eq!(spent(&mut house, 6, 1, 300 * S), []);
    let once = stepped("soft", 100, &steps);
    let mut quiet = organization(&[once]);
    assert_eq!(spent(&mut quiet, 1, 150, 0), [(100, 0, 150)]);
    assert_eq!(spent(&mut quiet, 2, 1, 3_600 * S), []);
}

#[test]
fn a_downgrade_below_the_cap_follows_settled_money_and_does_not_ask_twice() {
    let steps = json!([
        {"percent": 80, "action": "downgrade", "model": "small"},
        {"percent": 90, "action": "downgrade", "model": "tiny"},
        {"percent": 100, "action": "refuse", "code": "team_is_broke", "status": 403},
    ]);
    let mut house = organization(&[stepped("hard", 100, &steps)]);
    admitted(&mut house, 1, spend(79), at(0));
    admitted(&mut house, 2, spend(1), at(0));
    let _ = house.settle(reservation(1), spend(79), at(0)).unwrap();
    admitted(&mut house, 3, spend(1), at(0));
    let _ = house.settle(reservation(2), spend(1), at(0)).unwrap();
    let before = house.trace();
    let diversion = diverted(&mut house, 4, spend(1), at(0));
    assert!(before == house.trace(), "a diversion leaves no trace");
    let small = Action::Downgrade {
        model: "small".into(),
    };
    assert_eq!(
        (diversion.action, diversion.step, diversion.percent),
        (small, 0, 80)
    );
    assert_eq!(diversion.limit_id, id(1001));
    admitted(&mut house, 4, after(by("small", fixed(10, 0)), 1), at(0));
    // Asked for by its name, it is served.
    admitted(&mut house, 5, by("small", fixed(0, 0)), at(0));
    let _ = house.settle(reservation(4), spend(10), at(0)).unwrap();
    let diversion = diverted(&mut house, 6, after(by("small", fixed(1, 0)), 1), at(0));
    assert_eq!((diversion.step, diversion.percent), (1, 90));
    let refusal = refused(&mut house, 7, after(by("tiny", fixed(11, 0)), 2), at(0));
    assert_eq!((&*refusal.code, refusal.status), ("team_is_broke", 403));
}

#[test]
fn at_the_cap_a_request_is_downgraded_then_refused() {
    let steps = json!([
        {"percent": 100, "action": "downgrade", "model": "small"},
        {"percent": 100, "action": "downgrade", "model": "tiny"},
        {"percent": 100, "action": "refuse", "status": 429},
    ]);
    let mut house = organization(&[stepped("hard", 100, &steps)]);
    admitted(&mut house, 1, spend(95), at(0));
    let diversion = diverted(&mut house, 2, spend(10), at(0));
    assert_eq!((diversion.step, diversion.percent), (0, 100));
    let diversion = diverted(&mut house, 2, after(by("small", fixed(6, 0)), 1), at(0));
    assert_eq!(diversion.step, 1);
    let refusal = refused(&mut house, 2, after(by("tiny", fixed(6, 0)), 2), at(0));
    assert_eq!(
        (&*refusal.code, refusal.status),
        ("team_budget_exceeded", 429)
    );
    admitted(&mut house, 2, after(by("tiny", fixed(5, 0)), 2), at(0));
}

#[test]
fn a_downgrade_waits_for_the_hold_wait_first() {
    let steps = json!([{"percent": 100, "action": "downgrade", "model": "small"}]);
    let mut house = organization(&[stepped("hard", 100, &steps)]);
    admitted(&mut house, 1, spend(95), at(0));
    let waits = waiting(&mut house, 2, patient(fixed(10, 0)), at(0));
    assert_eq!((waits.timeout_ns, waits.is_queued), (30 * S, false));
    house.go_on(at(30 * S - 1));
    assert!(house.told().is_empty());
    house.go_on(at(30 * S));
    assert_eq!(house.told(), ["diverted 2 Downgrade { model: \"small\" }"]);
}

#[test]
fn every_limit_without_room_must_know_better_than_to_refuse() {
    let steps = json!([{"percent": 100, "action": "downgrade", "model": "small"}]);
    let other = limit(2, "budget organization spend hard", &day(), 100);
    let mut house = organization(&[stepped("hard", 100, &steps), other.clone()]);
    let refusal = refused(&mut house, 1, spend(101), at(0));
    assert_eq!(&*refusal.code, "team_budget_exceeded");
    let also = with(
        other,
        "steps",
        json!([{"percent": 100, "action": "downgrade", "model": "x"}]),
    );
    reload(&mut house, &[stepped("hard", 100, &steps), also], at(0));
    let diversion = diverted(&mut house, 1, spend(101), at(0));
    assert_eq!(diversion.limit_id, id(1001));
}

#[test]
fn a_confirmation_is_asked_for_what_would_pass() {
    let steps = json!([{"percent": 60, "action": "confirm"}, {"percent": 100, "action": "refuse"}]);
    let mut house = organization(&[stepped("hard", 100, &steps)]);
    assert_eq!(spent(&mut house, 1, 59, 0), []);
    admitted(&mut house, 2, spend(1), at(0));
    let _ = house.settle(reservation(2), spend(1), at(0)).unwrap();
    let diversion = diverted(&mut house, 3, spend(40), at(0));
    assert_eq!((diversion.action, diversion.percent), (Action::Confirm, 60));
    assert_eq!(
        &*refused(&mut house, 3, spend(41), at(0)).code,
        "team_budget_exceeded"
    );
    admitted(&mut house, 3, after(fixed(40, 0), 1), at(0));
}

#[test]
fn a_soft_limit_can_confirm_and_downgrade_beyond_its_cap() {
    let steps = json!([
        {"percent": 100, "action": "confirm"},
        {"percent": 100, "action": "downgrade", "model": "small"},
    ]);
    let mut house = organization(&[stepped("soft", 100, &steps)]);
    admitted(&mut house, 1, spend(100), at(0));
    assert_eq!(
        diverted(&mut house, 2, spend(1), at(0)).action,
        Action::Confirm
    );
    let diversion = diverted(&mut house, 2, after(fixed(1, 0), 1), at(0));
    assert_eq!(diversion.step, 1);
    admitted(&mut house, 2, after(by("small", fixed(1, 0)), 2), at(0));
}

#[test]
fn a_queue_waits_for_the_next_period_and_then_for_the_next_step() {
    let steps = json!([
        {"percent": 100, "action": "queue", "timeout_s": 10},
        {"percent": 100, "action": "downgrade", "model": "small"},
        {"percent": 100, "action": "refuse"},
    ]);
    let queueing = stepped("hard", 100, &steps);
    let mut house = organization(&[queueing]);
    assert_eq!(spent(&mut house, 1, 100, 0), []);
    let evening = DAY / 2 - 5 * S;
    let waits = waiting(&mut house, 2, patient(fixed(10, 0)), at(evening));
    assert_eq!((waits.timeout_ns, waits.is_queued), (10 * S, true));
    house.go_on(at(DAY / 2 - 1));
    assert!(house.told().is_empty());
    house.go_on(at(DAY / 2));
    assert_eq!(house.told(), ["admitted 2"]);
    let _ = house
        .settle(reservation(2), spend(100), at(DAY / 2))
        .unwrap();
    let _ = waiting(&mut house, 3, patient(fixed(10, 0)), at(DAY / 2));
    house.go_on(at(DAY / 2 + 10 * S - 1));
    assert!(house.told().is_empty());
    house.go_on(at(DAY / 2 + 10 * S));
    assert_eq!(house.told(), ["diverted 3 Downgrade { model: \"small\" }"]);
    // Who may not wait does not queue.
    let _ = refused(&mut house, 4, spend(10), at(DAY));
}

#[test]
fn a_request_waits_for_others_first_and_queues_then_in_its_place() {
    let steps = json!([
        {"percent": 100, "action": "queue", "timeout_s": 100}, {"percent": 100, "action": "refuse"},
    ]);
    let mut house = organization(&[stepped("hard", 100, &steps)]);
    admitted(&mut house, 1, spend(95), at(0));
    assert!(!waiting(&mut house, 2, patient(fixed(20, 0)), at(0)).is_queued);
    assert!(!waiting(&mut house, 3, patient(fixed(10, 0)), at(S)).is_queued);
    house.go_on(at(30 * S));
    house.go_on(at(31 * S));
    assert!(house.told().is_empty());
    assert_eq!(house.waiting_requests(), 2);
    // The first still comes first, although the second would fit.
    let _ = house.settle(reservation(1), spend(85), at(40 * S)).unwrap();
    assert!(house.told().is_empty());
    house.go_on(at(130 * S - 1));
    assert!(house.told().is_empty());
    house.go_on(at(130 * S));
    assert_eq!(
        house.told(),
        ["refused 2 team_budget_exceeded", "admitted 3"]
    );
}

#[test]
fn money_that_is_gone_turns_a_wait_into_a_queue_at_once() {
    let steps = json!([{"percent": 100, "action": "queue", "timeout_s": 100}]);
    let mut house = organization(&[stepped("hard", 100, &steps)]);
    admitted(&mut house, 1, spend(95), at(0));
    let _ = waiting(&mut house, 2, patient(fixed(20, 0)), at(0));
    let _ = house.settle(reservation(1), spend(95), at(20 * S)).unwrap();
    house.go_on(at(120 * S - 1));
    assert!(house.told().is_empty());
    house.go_on(at(120 * S));
    assert_eq!(house.told(), ["refused 2 team_budget_exceeded"]);
}

#[test]
fn a_suspended_organization_lets_nobody_queue() {
    let steps = json!([{"percent": 100, "action": "queue", "timeout_s": 100}]);
    let mut house = organization(&[stepped("hard", 0, &steps)]);
    let _ = waiting(&mut house, 1, patient(fixed(20, 0)), at(0));
    let suspended = with(snapshot(&[]), "state", json!("suspended"));
    house.load(policy(&suspended), &[], at(0)).unwrap();
    assert_eq!(house.told(), ["refused 1 organization_suspended"]);
}

#[test]
fn a_step_that_cannot_be_is_refused() {
    let code = |steps: &Value| {
        let snapshot = snapshot(&[stepped("hard", 1, steps)]).to_string();
        comptroller_engine::Policy::from_json(snapshot.as_bytes())
            .map_or_else(|error| error.code(), |_| "fine")
    };
    let notify = |percent: u8| json!({"percent": percent, "action": "notify"});
    let many = |count| json!(vec![notify(1); count]);
    assert_eq!(code(&many(STEPS_MAX)), "fine");
    assert_eq!(code(&many(STEPS_MAX + 1)), "too_many");
    assert_eq!(code(&json!([notify(0)])), "invalid_policy");
    assert_eq!(code(&json!([notify(101)])), "invalid_policy");
    assert_eq!(code(&json!([notify(80), notify(50)])), "invalid_policy");
    let table = [
        (
            json!({"percent": 100, "action": "queue", "timeout_s": 300}),
            "fine",
        ),
        (
            json!({"percent": 100, "action": "queue", "timeout_s": 301}),
            "invalid_policy",
        ),
        (
            json!({"percent": 100, "action": "queue", "timeout_s": 0}),
            "invalid_policy",
        ),
        (
            json!({"percent": 99, "action": "queue", "timeout_s": 1}),
            "invalid_policy",
        ),
        (json!({"percent": 99, "action": "refuse"}), "invalid_policy"),
        (
            json!({"percent": 100, "action": "refuse", "status": 500}),
            "invalid_policy",
        ),
        (
            json!({"percent": 100, "action": "refuse", "code": "Not A Code"}),
            "invalid_policy",
        ),
        (
            json!({"percent": 50, "action": "downgrade", "model": ""}),
            "invalid_policy",
        ),
        (json!({"percent": 50, "action": "defer"}), "invalid_json"),
    ];
    for (step, expected) in table {
        assert_eq!(code(&json!([step])), expected, "{step}");
    }
}

#[test]
fn a_downgrade_comes_before_what_a_rate_says() {
    let steps = json!([{"percent": 50, "action": "downgrade", "model": "small"}]);
    let rate = limit(2, "rate key requests hard", &minute(), 1);
    let mut house = organization(&[stepped("hard", 100, &steps), rate]);
    assert_eq!(spent(&mut house, 1, 60, 0), []);
    let _ = diverted(&mut house, 2, spend(1), at(0));
    let refusal = refused(&mut house, 2, after(by("small", fixed(1, 0)), 1), at(0));
    assert_eq!(&*refusal.code, "rate_limit_exceeded");
    assert!(matches!(
        house.preview(crate::fixture::path(), spend(1), at(0)),
        Ok(Decision::Diverted(_))
    ));
}
