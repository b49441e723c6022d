//! Wall clocks that jump: no period is opened twice, and what callers are told stays true.
use comptroller_engine::decision::WaitsFor;
use comptroller_engine::{Decision, Now, Path};
use serde_json::{Value, json};

use crate::fixture::{
    DAY, House, KEY, ORGANIZATION, S, admitted, at, day, first, fixed, id, limit, minute,
    organization, patient, policy, refused, reload, reservation, seeds, snapshot, spend, states,
    waiting,
};

const HOUR: u64 = 3600 * S;

/// `at`, on a wall clock that is an hour behind the one seen before.
fn behind(offset_ns: u64) -> Now {
    let now = at(offset_ns);
    Now {
        wall_ns: now.wall_ns - HOUR,
        ..now
    }
}

#[test]
fn a_clock_that_jumps_back_opens_no_period_again() {
    let mut organization = organization(&[limit(1, "budget key spend hard", &day(), 100)]);
    admitted(&mut organization, 1, spend(100), at(DAY));
    let _ = refused(&mut organization, 2, spend(1), at(0));
    assert_eq!(first(&mut organization, at(0)), (0, 100));
}

#[test]
fn what_a_clock_that_jumped_back_admits_counts_in_the_period_that_had_begun() {
    let mut organization = organization(&[limit(1, "budget key spend hard", &day(), 100)]);
    let midnight = DAY / 2;
    admitted(&mut organization, 1, spend(40), at(midnight));
    let admission = admitted(&mut organization, 2, spend(50), behind(midnight + S));
    assert_eq!(admission.admitted_wall_ns, at(midnight).wall_ns);
    assert_eq!(first(&mut organization, behind(midnight + S)), (0, 90));
    let _ = refused(&mut organization, 3, spend(11), behind(midnight + S));
    let settlement = organization
        .settle(reservation(2), spend(45), behind(midnight + 2 * S))
        .unwrap();
    assert_eq!(settlement.booked, spend(45));
    assert_eq!(first(&mut organization, at(midnight + HOUR)), (45, 40));
}

#[test]
fn a_clock_that_jumps_forward_over_midnight_and_back_gives_the_new_budget_once() {
    let mut organization = organization(&[limit(1, "budget key spend hard", &day(), 100)]);
    admitted(&mut organization, 1, spend(100), at(0));
    admitted(&mut organization, 2, spend(100), at(DAY / 2));
    for now in [behind(DAY / 2), behind(DAY / 2 + HOUR), at(DAY / 2 + 2)] {
        let _ = refused(&mut organization, 3, spend(1), now);
    }
    assert_eq!(organization.open_reservations(), 2);
}

#[test]
fn the_stated_wait_is_by_the_callers_clock_also_after_it_jumped_back() {
    let mut organization = organization(&[limit(1, "budget key spend hard", &day(), 100)]);
    admitted(&mut organization, 1, spend(100), at(S));
    let _ = organization
        .settle(reservation(1), spend(100), at(S))
        .unwrap();
    let refusal = refused(&mut organization, 2, spend(1), behind(2 * S));
    assert_eq!(refusal.waits_for, Some(WaitsFor::Period));
    assert_eq!(refusal.frees_at_wall_ns, Some(at(DAY / 2).wall_ns));
    assert_eq!(refusal.retry_after_ns, Some(DAY / 2 - 2 * S + HOUR));
    let frees = DAY / 2 + HOUR;
    let _ = refused(&mut organization, 2, spend(1), behind(frees - 1));
    admitted(&mut organization, 2, spend(1), behind(frees));
}

#[test]
fn an_open_breaker_frees_at_an_instant_of_the_callers_clock() {
    let mut organization = organization(&[limit(1, "breaker key spend metered", &minute(), 10)]);
    admitted(&mut organization, 1, spend(10), at(S));
    let _ = organization
        .settle(reservation(1), spend(10), at(S))
        .unwrap();
    let state = &states(&mut organization, behind(2 * S))[0];
    assert_eq!(
        (&state["open"], &state["frees_at_ns"]),
        (&json!(true), &json!(behind(62 * S).wall_ns))
    );
}

#[test]
fn a_window_made_after_the_clock_jumped_back_counts_what_the_ledger_has_since() {
    let mut organization = organization(&[]);
    admitted(&mut organization, 1, spend(10), at(0));
    let now = behind(10 * S);
    let wanted = policy(&snapshot(&[limit(
        1,
        "breaker key spend metered",
        &minute(),
        10,
    )]));
    let json = organization.missing_counters(wanted.clone(), now).unwrap();
    let missing: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(missing[0]["starts_at_ns"], json!(now.wall_ns - 61 * S));
    let _ = organization
        .settle(reservation(1), spend(10), behind(5 * S))
        .unwrap();
    organization.booked_through(1).unwrap();
    let mut seed = missing;
    seed[0]["entries"] = json!([[behind(5 * S).wall_ns, 10]]);
    organization.load(wanted, &seeds(&seed), now).unwrap();
    let refusal = refused(&mut organization, 2, spend(1), now);
    assert_eq!(refusal.limit.unwrap().used, 10);
    assert_eq!(refusal.retry_after_ns, Some(56 * S));
}

#[test]
fn a_load_by_a_clock_that_jumped_back_opens_no_period_again() {
    let budget = [limit(1, "budget key spend hard", &day(), 100)];
    let mut organization = organization(&[]);
    admitted(&mut organization, 1, spend(100), at(DAY / 2));
    reload(&mut organization, &budget, behind(DAY / 2));
    let refusal = refused(&mut organization, 2, spend(1), behind(DAY / 2));
    assert_eq!(refusal.limit.unwrap().limit_id, id(1001));
}

#[test]
fn waits_and_rolling_windows_know_nothing_of_a_wall_clock_that_jumps_an_hour() {
    for jump_ns in [HOUR, 0] {
        let jumped = |offset_ns: u64| Now {
            // Ahead by an hour, or behind by one, half an hour into the first day.
            wall_ns: at(offset_ns).wall_ns - HOUR + 2 * jump_ns,
            mono_ns: offset_ns,
        };
        let limits = [
            limit(1, "budget team spend hard", &day(), 100),
            limit(2, "rate key requests hard", &minute(), 3),
        ];
        let mut organization = organization(&limits);
        admitted(&mut organization, 1, spend(90), at(0));
        let asked = patient(fixed(20, 0));
        let _ = waiting(&mut organization, 2, asked, at(0));
        admitted_elsewhere(&mut organization, 3, jumped(S));
        organization.go_on(jumped(30 * S - 1));
        assert!(organization.told().is_empty());
        organization.go_on(jumped(30 * S));
        assert_eq!(organization.told(), ["refused 2 team_budget_exceeded"]);
        admitted_elsewhere(&mut organization, 4, jumped(31 * S));
        let refusal = refused(&mut organization, 5, spend(0), jumped(32 * S));
        assert_eq!(refusal.retry_after_ns, Some(29 * S));
        assert_eq!(refusal.frees_at_wall_ns, Some(jumped(61 * S).wall_ns));
        assert_eq!(first(&mut organization, jumped(32 * S)), (0, 90));
    }
}

/// Admit a request of the same key that belongs to no team.
fn admitted_elsewhere(organization: &mut House, number: u128, now: Now) {
    let path = Path::new(id(KEY), None, None, id(ORGANIZATION));
    let decision = organization.admit(reservation(number), path, spend(0), now);
    assert!(matches!(decision, Ok(Decision::Admitted(_))));
}
