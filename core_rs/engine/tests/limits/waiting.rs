//! The line of those that wait for others to end: order, maxima, and what ends a wait.
use comptroller_engine::Waiting;
use comptroller_engine::{Ask, Decision, KEY_WAITERS_MAX, Path, ScopeKind, WAITERS_MAX, WaitsFor};
use serde_json::json;

use crate::fixture::{
    DAY, House, MEMBER, ORGANIZATION, S, TEAM, admitted, at, day, expecting, fixed, id, limit,
    minute, organization, path, patient, policy, refused, reload, reservation, scope, snapshot,
    spend, waiting, with,
};

fn waits(house: &mut House, number: u128, cost_nanos: i64, now_ns: u64) -> Waiting {
    waiting(house, number, patient(fixed(cost_nanos, 0)), at(now_ns))
}

fn path_of(key: u128, team: u128) -> Path {
    Path::new(id(key), Some(id(MEMBER)), Some(id(team)), id(ORGANIZATION))
}

/// A team's budget of 100, of which 90 are held by request 1.
fn full() -> House {
    let mut house = organization(&[limit(1, "budget team spend hard", &day(), 100)]);
    admitted(&mut house, 1, spend(90), at(0));
    house
}

#[test]
fn a_waiter_is_told_what_it_waits_for_and_holds_nothing() {
    let mut house = full();
    let before = crate::fixture::states(&mut house, at(0));
    let found = waits(&mut house, 2, 20, 0);
    assert_eq!(
        (found.limit_id, found.scope.kind),
        (id(1001), ScopeKind::Team)
    );
    assert_eq!((found.timeout_ns, found.is_queued), (30 * S, false));
    assert_eq!(crate::fixture::states(&mut house, at(0)), before);
    assert_eq!(
        (house.waiting_requests(), house.open_reservations()),
        (1, 1)
    );
    let again = house.admit(reservation(2), path(), spend(1), at(0));
    assert_eq!(again.unwrap_err().code(), "duplicate_reservation");
}

type Act = Box<dyn Fn(&mut House)>;

#[test]
fn settlement_release_raise_removal_and_a_new_period_let_waiters_in() {
    let raised = limit(1, "budget team spend hard", &day(), 110);
    let table: [(&str, Act); 5] = [
        (
            "settle",
            Box::new(|it| {
                let _ = it.settle(reservation(1), spend(80), at(S)).unwrap();
            }),
        ),
        (
            "release",
            Box::new(|it| {
                assert_eq!(it.release(reservation(1), at(S)), Ok(true));
            }),
        ),
        (
            "raise",
            Box::new(move |it| reload(it, std::slice::from_ref(&raised), at(S))),
        ),
        ("removal", Box::new(|it| reload(it, &[], at(S)))),
        ("period", Box::new(|it| it.go_on(at(DAY / 2)))),
    ];
    for (what, act) in table {
        let mut house = full();
        let evening = if what == "period" { DAY / 2 - 2 * S } else { 0 };
        let _ = waits(&mut house, 2, 20, evening);
        house.go_on(at(evening + S / 2));
        assert!(house.told().is_empty());
        act(&mut house);
        assert_eq!(house.told(), ["admitted 2"], "{what}");
        assert_eq!(house.waiting_requests(), 0);
    }
}

#[test]
fn a_top_up_lets_waiters_in() {
    let window = json!({"kind": "lifetime", "starts_at_ns": 0});
    let balance = |cap| limit(1, "balance organization spend hard", &window, cap);
    let mut house = organization(&[balance(100)]);
    admitted(&mut house, 1, spend(90), at(0));
    let _ = waits(&mut house, 2, 20, 0);
    reload(&mut house, &[balance(110)], at(0));
    assert_eq!(house.told(), ["admitted 2"]);
}

#[test]
fn who_came_first_is_served_first_and_nobody_passes_on_a_limit_he_fails_on() {
    let mut house = full();
    let _ = waits(&mut house, 2, 50, 0);
    // These would fit.
    let _ = waits(&mut house, 3, 10, 0);
    assert_eq!(
        refused(&mut house, 4, spend(5), at(0)).waits_for,
        Some(WaitsFor::OpenRequests)
    );
    house.go_on(at(S));
    assert!(house.told().is_empty());
    let _ = house.settle(reservation(1), spend(45), at(S)).unwrap();
    assert_eq!(house.told(), ["admitted 2"]);
    assert_eq!(house.release(reservation(2), at(S)), Ok(true));
    assert_eq!(house.told(), ["admitted 3"]);
}

#[test]
fn who_shares_no_limit_that_an_earlier_one_fails_on_passes() {
    let mut other = limit(2, "budget team spend hard", &day(), 100);
    other["scope"]["id"] = json!(id(20).to_string());
    let whole = limit(3, "budget organization spend hard", &day(), 1_000);
    let mut house = organization(&[
        limit(1, "budget team spend hard", &day(), 100),
        other,
        whole,
    ]);
    admitted(&mut house, 1, spend(90), at(0));
    let _ = waits(&mut house, 2, 50, 0);
    let passes = house.admit(reservation(3), path_of(5, 20), spend(100), at(0));
    assert!(matches!(passes, Ok(Decision::Admitted(_))));
    let late = house.admit(reservation(4), path_of(5, 20), patient(fixed(1, 0)), at(0));
    assert!(matches!(late, Ok(Decision::Waiting(_))));
    let _ = house.settle(reservation(3), spend(99), at(0)).unwrap();
    assert_eq!(house.told(), ["admitted 4"]);
}

#[test]
fn a_wait_ends_with_a_refusal_at_its_instant() {
    let mut house = full();
    let _ = waits(&mut house, 2, 20, 0);
    house.go_on(at(30 * S - 1));
    assert!(house.told().is_empty());
    house.go_on(at(30 * S));
    assert_eq!(house.told(), ["refused 2 team_budget_exceeded"]);
    assert!(!house.has_waiters());
}

#[test]
fn a_late_one_is_let_in_by_what_is_free_but_not_past_an_earlier_one() {
    let short = json!([{"scope": scope("key"), "models": null, "hold_wait_s": 5}]);
    let limits = [limit(1, "budget team spend hard", &day(), 100)];
    let rules = with(snapshot(&limits), "rules", short);
    let mut house = House::new(policy(&rules), &[], at(0)).unwrap();
    admitted(&mut house, 1, spend(90), at(0));
    let patient_key = house.admit(
        reservation(2),
        path_of(5, TEAM),
        patient(fixed(50, 0)),
        at(0),
    );
    assert!(matches!(patient_key, Ok(Decision::Waiting(_))));
    assert_eq!(waits(&mut house, 3, 10, 0).timeout_ns, 5 * S);
    assert_eq!(waits(&mut house, 4, 10, 0).timeout_ns, 5 * S);
    let decision = house.give_up(reservation(4), at(S)).unwrap();
    assert!(
        matches!(decision, Decision::Refused(it) if it.waits_for == Some(WaitsFor::OpenRequests))
    );
    house.go_on(at(5 * S));
    assert_eq!(house.told(), ["refused 3 team_budget_exceeded"]);
    let _ = house.settle(reservation(1), spend(40), at(6 * S)).unwrap();
    assert_eq!(house.told(), ["admitted 2"]);
}

#[test]
fn settled_money_that_leaves_no_room_ends_a_wait_at_once() {
    let mut house = full();
    let _ = waits(&mut house, 2, 20, 0);
    let _ = waits(&mut house, 3, 20, 0);
    let _ = house.settle(reservation(1), spend(81), at(S)).unwrap();
    let refusals = [
        "refused 2 team_budget_exceeded",
        "refused 3 team_budget_exceeded",
    ];
    assert_eq!(house.told(), refusals);
}

#[test]
fn who_stands_behind_another_learns_when_no_waiting_will_help() {
    let mut house = full();
    let _ = waits(&mut house, 2, 10 + 1, 0);
    let _ = waits(&mut house, 3, 60, 0);
    house.progress(reservation(1), spend(45), at(0)).unwrap();
    assert!(house.told().is_empty());
    house.go_on(at(S));
    assert_eq!(house.told(), ["refused 3 team_budget_exceeded"]);
}

#[test]
fn only_money_is_waited_for() {
    let rate = limit(2, "rate key requests hard", &minute(), 1);
    let mut house = organization(&[limit(1, "budget team spend hard", &day(), 100), rate]);
    admitted(&mut house, 1, spend(90), at(0));
    let refusal = refused(&mut house, 2, patient(fixed(20, 0)), at(0));
    assert_eq!(&*refusal.code, "rate_limit_exceeded");
    let now = json!({"kind": "now"});
    let gauge = limit(1, "concurrency team concurrency hard", &now, 1);
    let mut house = organization(&[gauge]);
    admitted(&mut house, 1, spend(1), at(0));
    let _ = refused(&mut house, 2, patient(fixed(1, 0)), at(0));
}

#[test]
fn a_rule_can_forbid_to_wait() {
    let limits = [limit(1, "budget team spend hard", &day(), 100)];
    let rules = json!([{"scope": scope("team"), "models": null, "hold_wait_s": 0}]);
    let forbidden = with(snapshot(&limits), "rules", rules);
    let mut house = House::new(policy(&forbidden), &[], at(0)).unwrap();
    admitted(&mut house, 1, spend(90), at(0));
    let refusal = refused(&mut house, 2, patient(fixed(20, 0)), at(0));
    assert_eq!(refusal.waits_for, Some(WaitsFor::OpenRequests));
}

#[test]
fn a_key_and_an_organization_have_only_so_many_waiters() {
    let mut house = full();
    let key_of = |number: usize| 1_000 + (number / KEY_WAITERS_MAX) as u128;
    let ask = || patient(fixed(20, 0));
    for number in 0..WAITERS_MAX {
        let path = path_of(key_of(number), TEAM);
        let id = reservation(100 + number as u128);
        if number % KEY_WAITERS_MAX == 1 {
            continue;
        }
        let decision = house.admit(id, path, ask(), at(0)).unwrap();
        assert!(matches!(decision, Decision::Waiting(_)), "{number}");
    }
    let keys = (WAITERS_MAX / KEY_WAITERS_MAX) as u128;
    for key in 0..keys {
        assert!(one_more(&mut house, 2_000 + key, 1_000 + key));
        assert!(!one_more(&mut house, 3_000 + key, 1_000 + key));
    }
    assert!(!one_more(&mut house, 4_000, 5_000));
    assert_eq!(house.waiting_requests(), WAITERS_MAX);
    assert!(house.leave(reservation(100), at(0)));
    assert!(!house.leave(reservation(100), at(0)));
    assert!(one_more(&mut house, 4_001, 5_000));
    assert!(!one_more(&mut house, 4_002, 5_000));
}

fn one_more(house: &mut House, number: u128, key: u128) -> bool {
    let ask = patient(fixed(20, 0));
    let decision = house.admit(reservation(number), path_of(key, TEAM), ask, at(0));
    matches!(decision.unwrap(), Decision::Waiting(_))
}

#[test]
fn when_a_client_leaves_those_behind_move_up() {
    let mut house = full();
    let _ = waits(&mut house, 2, 50, 0);
    let _ = waits(&mut house, 3, 10, 0);
    assert!(house.leave(reservation(2), at(0)));
    assert_eq!(house.told(), ["admitted 3"]);
    assert!(!house.leave(reservation(3), at(0)));
    assert_eq!(
        house.give_up(reservation(3), at(0)).unwrap_err().code(),
        "unknown_reservation"
    );
}

#[test]
fn who_gives_up_hears_how_things_stand_and_those_behind_move_up() {
    let mut house = full();
    let _ = waits(&mut house, 2, 50, 0);
    let _ = waits(&mut house, 3, 10, 0);
    let Decision::Refused(refusal) = house.give_up(reservation(2), at(0)).unwrap() else {
        panic!("not refused")
    };
    let figures = refusal.limit.unwrap();
    assert_eq!((figures.used, figures.held, figures.requested), (0, 90, 50));
    assert_eq!(refusal.waits_for, Some(WaitsFor::OpenRequests));
    assert_eq!(house.told(), ["admitted 3"]);
}

#[test]
fn a_waiter_is_asked_what_its_path_says_when_it_is_called() {
    let mut house = full();
    let _ = waits(&mut house, 2, 20, 0);
    let tight = limit(2, "budget key spend hard", &day(), 5);
    let limits = [limit(1, "budget team spend hard", &day(), 100), tight];
    reload(&mut house, &limits, at(0));
    assert_eq!(house.told(), ["refused 2 key_budget_exceeded"]);
}

#[test]
fn without_an_exchange_rate_a_wait_ends_as_unavailable_and_harms_no_settlement() {
    let mut house = full();
    let _ = waits(&mut house, 2, 20, 0);
    let mut without = snapshot(&[limit(1, "budget team spend hard", &day(), 100)]);
    without["charging"] = json!({
        "rates": [{"from_ns": at(DAY).wall_ns, "picos": 1}], "markup_ppm": 0, "fee_nanos": 0,
    });
    house.load(policy(&without), &[], at(0)).unwrap();
    let _ = house.settle(reservation(1), spend(10), at(0)).unwrap();
    assert!(house.told().is_empty());
    house.go_on(at(30 * S));
    assert_eq!(house.told(), ["refused 2 enforcement_unavailable"]);
}

#[test]
fn a_cold_stream_waits_until_it_is_alone_and_takes_the_rest() {
    let mut house = organization(&[expecting(limit(1, "budget team spend hard", &day(), 100))]);
    for number in 1..=2 {
        admitted(&mut house, number, spend(30), at(0));
    }
    let cold = Ask {
        may_wait: true,
        ..crate::fixture::stream(10, 1_000, 20)
    };
    let _ = waiting(&mut house, 3, cold, at(0));
    let _ = house.settle(reservation(1), spend(30), at(0)).unwrap();
    assert!(house.told().is_empty());
    let _ = house.settle(reservation(2), spend(30), at(0)).unwrap();
    assert_eq!(house.told(), ["admitted 3"]);
    assert_eq!(crate::fixture::first(&mut house, at(0)), (60, 40));
}
