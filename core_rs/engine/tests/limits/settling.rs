//! How reservations end, and what extension and progress do before.
use comptroller_engine::decision::WaitsFor;
use comptroller_engine::{Amounts, Error, UNBOOKED_MAX};
use serde_json::Value;

use crate::fixture::{
    DAY, House, S, admitted, amounts, at, day, expecting, figures, first, id, limit, minute,
    organization, path, refused, reservation, spend, states, stream, taught,
};

#[test]
fn a_settlement_books_what_it_cost_and_frees_the_rest() {
    let mut organization = organization(&[limit(1, "budget team spend hard", &day(), 100)]);
    admitted(&mut organization, 1, spend(80), at(0));
    let settlement = organization
        .settle(reservation(1), amounts(30, 7), at(1))
        .unwrap();
    assert!(settlement.first && settlement.exceeded.is_empty());
    assert_eq!(
        (settlement.seq, settlement.booked, settlement.overrun_nanos),
        (1, amounts(30, 7), 0)
    );
    assert_eq!(first(&mut organization, at(1)), (30, 0));
    assert_eq!(organization.open_reservations(), 0);
    admitted(&mut organization, 2, spend(70), at(1));
}

#[test]
fn a_second_settlement_returns_the_first_and_books_nothing() {
    let mut organization = organization(&[limit(1, "budget team spend hard", &day(), 100)]);
    admitted(&mut organization, 1, spend(80), at(0));
    let settlement = organization
        .settle(reservation(1), spend(30), at(1))
        .unwrap();
    let again = organization
        .settle(reservation(1), spend(50), at(2))
        .unwrap();
    assert!(!again.first);
    assert_eq!((again.seq, again.booked), (settlement.seq, spend(30)));
    assert_eq!(first(&mut organization, at(2)), (30, 0));
}

#[test]
fn a_reservation_has_one_end() {
    let mut organization = organization(&[]);
    admitted(&mut organization, 1, spend(1), at(0));
    admitted(&mut organization, 2, spend(1), at(0));
    let _ = organization
        .settle(reservation(1), spend(1), at(0))
        .unwrap();
    assert_eq!(organization.release(reservation(2), at(0)), Ok(true));
    assert_eq!(organization.release(reservation(2), at(0)), Ok(false));
    assert_eq!(
        organization.release(reservation(1), at(0)),
        Err(Error::AlreadySettled)
    );
    assert_eq!(
        organization.settle(reservation(2), spend(1), at(0)),
        Err(Error::AlreadyReleased)
    );
    assert_eq!(
        organization.progress(reservation(1), spend(1), at(0)),
        Err(Error::AlreadySettled)
    );
    assert_eq!(
        organization.release(reservation(3), at(0)),
        Err(Error::UnknownReservation)
    );
    let taken = organization.admit(reservation(2), path(), spend(1), at(0));
    assert_eq!(taken.unwrap_err(), Error::DuplicateReservation);
}

#[test]
fn a_release_takes_the_counted_request_back_out_of_its_bucket_and_period() {
    let limits = [
        limit(1, "rate key requests hard", &minute(), 1),
        limit(2, "quota organization requests hard", &day(), 1),
    ];
    let mut organization = organization(&limits);
    admitted(&mut organization, 1, spend(1), at(0));
    let refusal = refused(&mut organization, 2, spend(1), at(S));
    assert_eq!(refusal.limit.unwrap().limit_id, id(1001));
    assert_eq!(organization.release(reservation(1), at(S)), Ok(true));
    admitted(&mut organization, 2, spend(1), at(S));
}

#[test]
fn a_settlement_beyond_hold_and_cap_applies_and_says_so() {
    let mut organization = organization(&[limit(1, "budget team spend hard", &day(), 100)]);
    admitted(&mut organization, 1, spend(80), at(0));
    let settlement = organization
        .settle(reservation(1), spend(130), at(0))
        .unwrap();
    assert_eq!(
        (settlement.overrun_nanos, settlement.exceeded),
        (50, vec![id(1001)])
    );
    assert_eq!(
        refused(&mut organization, 2, spend(0), at(0)).waits_for,
        Some(WaitsFor::Period)
    );
}

#[test]
fn a_reservation_settles_in_the_period_that_admitted_it() {
    let mut organization = organization(&[limit(1, "budget team spend hard", &day(), 100)]);
    admitted(&mut organization, 1, spend(100), at(0));
    admitted(&mut organization, 2, spend(100), at(DAY));
    let settlement = organization
        .settle(reservation(1), spend(500), at(DAY))
        .unwrap();
    assert_eq!(settlement.exceeded, vec![id(1001)]);
    assert_eq!(first(&mut organization, at(DAY)), (0, 100));
    assert!(
        organization
            .settle(reservation(2), spend(100), at(DAY))
            .unwrap()
            .exceeded
            .is_empty()
    );
}

#[test]
fn an_extension_holds_more_on_all_hard_limits_or_on_none() {
    let limits = [
        expecting(limit(1, "budget key spend hard", &day(), 1_000)),
        expecting(limit(2, "budget team spend hard", &day(), 100)),
        limit(3, "breaker team spend metered", &minute(), 1_000),
        limit(4, "budget organization spend hard", &day(), 210),
    ];
    let mut organization = organization(&limits);
    taught(&mut organization, 55);
    let admission = admitted(&mut organization, 1, stream(0, 200, 5), at(0));
    assert_eq!(
        (admission.output_tokens_allowed, admission.extendable),
        (55, true)
    );
    assert_eq!(
        (admission.held, admission.bound),
        (amounts(60, 60), amounts(200, 200))
    );
    organization
        .progress(reservation(1), spend(5), at(0))
        .unwrap();
    assert_eq!(
        figures(&mut organization, at(0)),
        [(5, 55), (5, 55), (5, 195), (5, 195)]
    );
    assert_eq!(organization.extend(reservation(1), 55, at(0)), Ok(Some(55)));
    assert_eq!(organization.extend(reservation(1), 90, at(0)), Ok(Some(95)));
    assert_eq!(
        figures(&mut organization, at(0)),
        [(5, 195), (5, 195), (5, 195), (5, 195)]
    );
    assert_eq!(organization.extend(reservation(1), 96, at(0)), Ok(None));
    assert_eq!(organization.told(), ["cut 1"]);
    assert_eq!(
        figures(&mut organization, at(0)),
        [(5, 195), (5, 195), (5, 195), (5, 195)]
    );
    assert_eq!(organization.extend(reservation(1), 96, at(0)), Ok(None));
    assert!(organization.told().is_empty());
}

#[test]
fn an_extension_counts_in_the_period_of_the_admission_and_cuts_only_there() {
    let mut organization =
        organization(&[expecting(limit(1, "budget team spend hard", &day(), 100))]);
    taught(&mut organization, 50);
    admitted(&mut organization, 1, stream(0, 200, 5), at(0));
    admitted(&mut organization, 2, stream(0, 95, 5), at(DAY));
    assert_eq!(
        organization.extend(reservation(1), 90, at(DAY)),
        Ok(Some(95))
    );
    assert_eq!(first(&mut organization, at(DAY)), (0, 55));
    assert_eq!(organization.extend(reservation(1), 96, at(DAY)), Ok(None));
    assert_eq!(organization.told(), ["cut 1"]);
    assert_eq!(
        organization.extend(reservation(2), 56, at(DAY)),
        Ok(Some(61))
    );
    // It outgrew what was expected of it, so all that it can cost is kept from new requests.
    assert_eq!(first(&mut organization, at(DAY)), (0, 95));
}

#[test]
fn progress_moves_a_hold_to_use_and_never_back() {
    let limits = [
        limit(1, "budget key spend hard", &day(), 1_000),
        limit(2, "rate key tokens metered", &minute(), 90),
    ];
    let mut organization = organization(&limits);
    admitted(&mut organization, 1, amounts(100, 100), at(0));
    organization
        .progress(reservation(1), amounts(40, 40), at(S))
        .unwrap();
    organization
        .progress(reservation(1), amounts(30, 30), at(S))
        .unwrap();
    assert_eq!(first(&mut organization, at(S)), (40, 60));
    organization
        .progress(reservation(1), amounts(130, 130), at(2 * S))
        .unwrap();
    assert_eq!(first(&mut organization, at(2 * S)), (130, 0));
    assert_eq!(
        &*refused(&mut organization, 2, spend(0), at(2 * S)).code,
        "rate_limit_exceeded"
    );
    let _ = organization
        .settle(reservation(1), amounts(125, 125), at(3 * S))
        .unwrap();
    assert_eq!(first(&mut organization, at(3 * S)), (125, 0));
}

#[test]
fn a_release_gives_back_what_was_used_so_far_on_every_window() {
    let limits = [
        limit(1, "budget key spend hard", &day(), 100),
        limit(2, "breaker key spend metered", &minute(), 100),
    ];
    let mut organization = organization(&limits);
    let figures = |organization: &mut House, now| {
        states(organization, now)
            .iter()
            .map(|state| [&state["used"], &state["held"], &state["settled"]].map(Value::as_i64))
            .collect::<Vec<_>>()
    };
    let empty = figures(&mut organization, at(0));
    admitted(&mut organization, 1, spend(60), at(0));
    organization
        .progress(reservation(1), spend(40), at(S))
        .unwrap();
    let running = [Some(40), Some(20), Some(0)];
    assert_eq!(figures(&mut organization, at(S)), [running, running]);
    assert_eq!(organization.release(reservation(1), at(2 * S)), Ok(true));
    assert_eq!(figures(&mut organization, at(2 * S)), empty);
    // What is left of the first would hide what the second holds.
    admitted(&mut organization, 2, spend(100), at(2 * S));
    let held = [Some(0), Some(100), Some(0)];
    assert_eq!(figures(&mut organization, at(2 * S)), [held, held]);
}

#[test]
fn amounts_that_are_negative_or_overflow_change_nothing() {
    let mut organization = organization(&[limit(1, "budget key spend soft", &day(), 10)]);
    admitted(&mut organization, 1, spend(i64::MAX), at(0));
    let ask = |number, amounts: Amounts| (reservation(number), amounts);
    for (id, amounts) in [ask(2, spend(1)), ask(2, spend(-1)), ask(2, amounts(0, -1))] {
        let code = organization
            .admit(id, path(), amounts, at(0))
            .unwrap_err()
            .code();
        assert_eq!(
            code,
            if amounts == spend(1) {
                "overflow"
            } else {
                "invalid_argument"
            }
        );
    }
    assert_eq!(
        organization
            .extend(reservation(1), -1, at(0))
            .unwrap_err()
            .code(),
        "invalid_argument"
    );
    assert_eq!(first(&mut organization, at(0)), (0, i64::MAX));
    let _ = organization
        .settle(reservation(1), spend(1), at(0))
        .unwrap();
    admitted(&mut organization, 2, spend(5), at(0));
    let overflowing = spend(i64::MAX);
    assert_eq!(
        organization.progress(reservation(2), overflowing, at(0)),
        Err(Error::Overflow)
    );
    assert_eq!(
        organization.settle(reservation(2), overflowing, at(0)),
        Err(Error::Overflow)
    );
    assert_eq!(first(&mut organization, at(0)), (1, 5));
    assert_eq!(organization.release(reservation(2), at(0)), Ok(true));
    assert_eq!(first(&mut organization, at(0)), (1, 0));
}

#[test]
fn outcomes_are_forgotten_when_the_ledger_has_them() {
    let mut organization = organization(&[]);
    for number in 1..=2 {
        admitted(&mut organization, number, spend(1), at(0));
        let _ = organization
            .settle(reservation(number), spend(1), at(0))
            .unwrap();
    }
    organization.booked_through(1).unwrap();
    assert_eq!(
        organization.settle(reservation(1), spend(1), at(0)),
        Err(Error::UnknownReservation)
    );
    assert_eq!(
        organization
            .settle(reservation(2), spend(1), at(0))
            .unwrap()
            .seq,
        2
    );
    assert_eq!(
        organization.booked_through(3).unwrap_err().code(),
        "invalid_argument"
    );
}

#[test]
fn admission_stops_when_the_ledger_is_too_far_behind() {
    let mut organization = organization(&[]);
    let full = UNBOOKED_MAX as u128;
    for number in 0..full {
        admitted(&mut organization, number, spend(0), at(0));
        let _ = organization
            .settle(reservation(number), spend(0), at(0))
            .unwrap();
    }
    let stopped = organization.admit(reservation(full), path(), spend(0), at(0));
    assert_eq!(stopped.unwrap_err(), Error::UnbookedFull);
    organization.booked_through(1).unwrap();
    admitted(&mut organization, full, spend(0), at(0));
}
