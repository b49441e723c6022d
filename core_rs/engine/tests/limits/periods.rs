//! Limits over periods: every so many days, lifetimes, gauges, and limits that begin and end.
use comptroller_engine::{DAYS_MAX, Policy, WaitsFor};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::fixture::{
    DAY, House, S, admitted, at, day, figures, first, id, limit, minute, organization, policy,
    refused, reload, reservation, seeds, snapshot, spend, states, with,
};

fn ns(text: &str) -> u64 {
    let instant: Timestamp = text.parse().unwrap();
    instant.as_nanosecond().try_into().unwrap()
}

fn days(days: u16, anchor: &str, time_zone: &str) -> Value {
    json!({"kind": "days", "days": days, "anchor": anchor, "time_zone": time_zone})
}

/// The period that a window has at an instant, by the state of a limit.
fn period(window: &Value, instant: &str) -> (String, String) {
    let now = comptroller_engine::Now {
        wall_ns: ns(instant),
        mono_ns: 0,
    };
    let limits = [limit(1, "budget key spend hard", window, 1)];
    let mut house = House::new(policy(&snapshot(&limits)), &[], now).unwrap();
    let text = |state: &Value| {
        let ns: i128 = state.as_u64().unwrap().into();
        Timestamp::from_nanosecond(ns).unwrap().to_string()
    };
    let state = &states(&mut house, now)[0];
    (text(&state["starts_at_ns"]), text(&state["ends_at_ns"]))
}

#[test]
fn periods_of_days_are_counted_from_the_anchor_both_ways() {
    let table = [
        (
            7,
            "2026-01-01",
            "UTC",
            "2026-01-01T00:00:00Z",
            "2026-01-01T00:00:00Z",
            "2026-01-08T00:00:00Z",
        ),
        (
            7,
            "2026-01-01",
            "UTC",
            "2025-12-31T23:59:59Z",
            "2025-12-25T00:00:00Z",
            "2026-01-01T00:00:00Z",
        ),
        (
            7,
            "2026-01-01",
            "UTC",
            "2025-12-24T12:00:00Z",
            "2025-12-18T00:00:00Z",
            "2025-12-25T00:00:00Z",
        ),
        (
            1,
            "2030-06-01",
            "UTC",
            "2026-02-28T12:00:00Z",
            "2026-02-28T00:00:00Z",
            "2026-03-01T00:00:00Z",
        ),
        (
            366,
            "2024-01-01",
            "UTC",
            "2024-12-31T00:00:00Z",
            "2024-01-01T00:00:00Z",
            "2025-01-01T00:00:00Z",
        ),
        (
            366,
            "2024-01-01",
            "UTC",
            "2025-12-31T00:00:00Z",
            "2025-01-01T00:00:00Z",
            "2026-01-02T00:00:00Z",
        ),
        // The clock goes forward on 29 March and back on 25 October: 167 and 169 hours.
        (
            7,
            "2026-03-26",
            "Europe/Berlin",
            "2026-03-30T00:00:00Z",
            "2026-03-25T23:00:00Z",
            "2026-04-01T22:00:00Z",
        ),
        (
            7,
            "2026-10-22",
            "Europe/Berlin",
            "2026-10-25T00:30:00Z",
            "2026-10-21T22:00:00Z",
            "2026-10-28T23:00:00Z",
        ),
        // An anchor after the change counts back over it.
        (
            10,
            "2026-04-05",
            "Europe/Berlin",
            "2026-03-27T00:00:00Z",
            "2026-03-25T23:00:00Z",
            "2026-04-04T22:00:00Z",
        ),
    ];
    for (count, anchor, zone, instant, starts, ends) in table {
        let found = period(&days(count, anchor, zone), instant);
        assert_eq!(
            found,
            (starts.to_owned(), ends.to_owned()),
            "{anchor} {instant}"
        );
    }
}

/// Period, zone and instant; when the period begins and ends.
const CALENDAR: [(&str, &str, &str, &str, &str); 15] = [
    // São Paulo skipped its midnight on 2018-11-04 and had it twice on 2018-02-18.
    (
        "day",
        "America/Sao_Paulo",
        "2018-11-04T12:00:00Z",
        "2018-11-04T03:00:00Z",
        "2018-11-05T02:00:00Z",
    ),
    (
        "day",
        "America/Sao_Paulo",
        "2018-11-03T12:00:00Z",
        "2018-11-03T03:00:00Z",
        "2018-11-04T03:00:00Z",
    ),
    (
        "day",
        "America/Sao_Paulo",
        "2018-02-17T12:00:00Z",
        "2018-02-17T02:00:00Z",
        "2018-02-18T03:00:00Z",
    ),
    (
        "day",
        "America/Sao_Paulo",
        "2018-02-18T02:30:00Z",
        "2018-02-17T02:00:00Z",
        "2018-02-18T03:00:00Z",
    ),
    // Cairo skipped its midnight on 2023-04-28 and went back at midnight of 2023-10-27.
    (
        "day",
        "Africa/Cairo",
        "2023-04-28T12:00:00Z",
        "2023-04-27T22:00:00Z",
        "2023-04-28T21:00:00Z",
    ),
    (
        "day",
        "Africa/Cairo",
        "2023-10-26T12:00:00Z",
        "2023-10-25T21:00:00Z",
        "2023-10-26T22:00:00Z",
    ),
    (
        "month",
        "America/Sao_Paulo",
        "2018-11-10T00:00:00Z",
        "2018-11-01T03:00:00Z",
        "2018-12-01T02:00:00Z",
    ),
    (
        "week",
        "Europe/Berlin",
        "2026-03-29T12:00:00Z",
        "2026-03-22T23:00:00Z",
        "2026-03-29T22:00:00Z",
    ),
    (
        "month",
        "Europe/Berlin",
        "2026-10-25T12:00:00Z",
        "2026-09-30T22:00:00Z",
        "2026-10-31T23:00:00Z",
    ),
    (
        "month",
        "UTC",
        "2024-02-29T23:59:59Z",
        "2024-02-01T00:00:00Z",
        "2024-03-01T00:00:00Z",
    ),
    (
        "month",
        "UTC",
        "2023-02-28T23:59:59Z",
        "2023-02-01T00:00:00Z",
        "2023-03-01T00:00:00Z",
    ),
    (
        "day",
        "UTC",
        "2024-02-29T12:00:00Z",
        "2024-02-29T00:00:00Z",
        "2024-03-01T00:00:00Z",
    ),
    (
        "month",
        "UTC",
        "2000-02-29T12:00:00Z",
        "2000-02-01T00:00:00Z",
        "2000-03-01T00:00:00Z",
    ),
    (
        "day",
        "Asia/Kathmandu",
        "2026-01-01T12:00:00Z",
        "2025-12-31T18:15:00Z",
        "2026-01-01T18:15:00Z",
    ),
    (
        "day",
        "Australia/Lord_Howe",
        "2026-04-05T02:00:00Z",
        "2026-04-04T13:00:00Z",
        "2026-04-05T13:30:00Z",
    ),
];

#[test]
fn days_weeks_and_months_keep_to_the_clock_of_their_zone() {
    let calendar =
        |period: &str, zone: &str| json!({"kind": "calendar", "period": period, "time_zone": zone});
    for (kind, zone, instant, starts, ends) in CALENDAR {
        let found = period(&calendar(kind, zone), instant);
        assert_eq!(
            found,
            (starts.to_owned(), ends.to_owned()),
            "{zone} {instant}"
        );
    }
}

#[test]
fn a_window_that_cannot_be_is_refused() {
    let code = |window: &Value, what: &str| {
        let snapshot = snapshot(&[limit(1, what, window, 1)]);
        let read = Policy::from_json(snapshot.to_string().as_bytes());
        read.map_or_else(|error| error.code(), |_| "fine")
    };
    let spend = "budget key spend hard";
    assert_eq!(code(&days(DAYS_MAX, "2026-01-01", "UTC"), spend), "fine");
    assert_eq!(
        code(&days(DAYS_MAX + 1, "2026-01-01", "UTC"), spend),
        "invalid_policy"
    );
    assert_eq!(code(&days(0, "2026-01-01", "UTC"), spend), "invalid_policy");
    assert_eq!(code(&days(1, "2026-02-29", "UTC"), spend), "invalid_policy");
    assert_eq!(
        code(&days(1, "2026-01-01", "Mars"), spend),
        "invalid_policy"
    );
    assert_eq!(code(&json!({"kind": "now"}), spend), "invalid_policy");
    let gauge = "concurrency key concurrency hard";
    assert_eq!(code(&json!({"kind": "now"}), gauge), "fine");
    assert_eq!(code(&minute(), gauge), "invalid_policy");
}

#[test]
fn a_lifetime_counts_from_its_start_and_never_ends() {
    let window = json!({"kind": "lifetime", "starts_at_ns": at(0).wall_ns - 5});
    let limits = [limit(1, "budget key spend hard", &window, 100)];
    let seed = json!([{
        "scope": limits[0]["scope"], "where": null, "resource": "spend", "window": window,
        "starts_at_ns": 0, "ends_at_ns": 0,
        "entries": [[at(0).wall_ns - 6, 50], [at(0).wall_ns - 5, 30]],
    }]);
    let mut house = House::new(policy(&snapshot(&limits)), &seeds(&seed), at(0)).unwrap();
    assert_eq!(first(&mut house, at(400 * DAY)), (30, 0));
    admitted(&mut house, 1, spend(70), at(0));
    let refusal = refused(&mut house, 2, spend(1), at(800 * DAY));
    assert_eq!(refusal.waits_for, Some(WaitsFor::OpenRequests));
    let _ = house
        .settle(reservation(1), spend(70), at(800 * DAY))
        .unwrap();
    let refusal = refused(&mut house, 2, spend(1), at(800 * DAY));
    assert_eq!(
        (refusal.waits_for, refusal.retry_after_ns),
        (Some(WaitsFor::Never), None)
    );
}

#[test]
fn a_prepaid_balance_waits_for_money_to_be_paid_in() {
    let window = json!({"kind": "lifetime", "starts_at_ns": 0});
    let balance = |cap| limit(1, "balance organization spend hard", &window, cap);
    let mut house = organization(&[balance(100)]);
    admitted(&mut house, 1, spend(80), at(0));
    let refusal = refused(&mut house, 2, spend(30), at(0));
    assert_eq!(
        (&*refusal.code, refusal.status),
        ("prepaid_balance_required", 402)
    );
    assert_eq!(refusal.waits_for, Some(WaitsFor::OpenRequests));
    let _ = house.settle(reservation(1), spend(80), at(0)).unwrap();
    let refusal = refused(&mut house, 2, spend(30), at(0));
    assert_eq!(
        (refusal.waits_for, refusal.retry_after_ns),
        (Some(WaitsFor::TopUp), None)
    );
    let refusal = refused(&mut house, 2, spend(500), at(0));
    assert_eq!(refusal.waits_for, Some(WaitsFor::TopUp));
    reload(&mut house, &[balance(110)], at(0));
    admitted(&mut house, 2, spend(30), at(0));
    let mut empty = organization(&[balance(0)]);
    assert_eq!(
        refused(&mut empty, 1, spend(0), at(0)).waits_for,
        Some(WaitsFor::TopUp)
    );
}

#[test]
fn a_gauge_counts_what_is_open_now() {
    let window = json!({"kind": "now"});
    let gauge = limit(1, "concurrency key concurrency hard", &window, 2);
    let mut house = organization(&[gauge]);
    admitted(&mut house, 1, spend(5), at(0));
    admitted(&mut house, 2, spend(5), at(DAY));
    let refusal = refused(&mut house, 3, spend(0), at(DAY));
    assert_eq!(
        (&*refusal.code, refusal.status),
        ("concurrency_exceeded", 429)
    );
    assert_eq!(refusal.waits_for, Some(WaitsFor::OpenRequests));
    let figures = refusal.limit.unwrap();
    assert_eq!((figures.used, figures.held, figures.requested), (2, 0, 1));
    assert_eq!(figures.window, "now");
    let _ = house.settle(reservation(1), spend(5), at(DAY)).unwrap();
    admitted(&mut house, 3, spend(0), at(DAY));
    assert_eq!(house.release(reservation(2), at(DAY)), Ok(true));
    assert_eq!(first(&mut house, at(DAY)), (1, 0));
    assert_eq!(
        house
            .missing_counters(policy(&snapshot(&[])), at(DAY))
            .unwrap(),
        b"[]"
    );
}

#[test]
fn a_gauge_made_late_counts_what_is_open_already() {
    let mut house = organization(&[]);
    admitted(&mut house, 1, spend(5), at(0));
    let window = json!({"kind": "now"});
    reload(
        &mut house,
        &[limit(1, "concurrency team concurrency hard", &window, 1)],
        at(0),
    );
    let _ = refused(&mut house, 2, spend(0), at(0));
    let _ = house.settle(reservation(1), spend(5), at(0)).unwrap();
    admitted(&mut house, 2, spend(0), at(0));
}

#[test]
fn a_limit_is_in_force_from_its_first_instant_to_its_last() {
    let midnight = at(DAY / 2).wall_ns;
    let week = json!({"kind": "calendar", "period": "week", "time_zone": "UTC"});
    let old = with(
        limit(1, "budget key spend hard", &day(), 100),
        "until_ns",
        json!(midnight),
    );
    let new = with(
        limit(1, "budget key spend hard", &week, 150),
        "from_ns",
        json!(midnight),
    );
    let mut house = organization(&[old, new]);
    assert_eq!(figures(&mut house, at(0)), [(0, 0)]);
    admitted(&mut house, 1, spend(100), at(0));
    let refusal = refused(&mut house, 2, spend(1), at(DAY / 2 - 1));
    assert_eq!(refusal.limit.unwrap().window, "calendar_day");
    // The week has known all along what the day counted.
    let refusal = refused(&mut house, 2, spend(51), at(DAY / 2));
    let limit = refusal.limit.unwrap();
    assert_eq!(
        (limit.window, limit.held, limit.limit_id),
        ("calendar_week", 100, id(1001))
    );
    admitted(&mut house, 2, spend(50), at(DAY / 2));
    assert_eq!(figures(&mut house, at(DAY / 2)), [(0, 150)]);
    let _ = house
        .settle(reservation(1), spend(100), at(DAY / 2))
        .unwrap();
    assert_eq!(figures(&mut house, at(DAY / 2)), [(100, 50)]);
}

#[test]
fn the_offset_of_a_breaker_lasts_until_its_instant() {
    let until = json!(at(10 * S).wall_ns);
    let breaker = |offset: i64| {
        let breaker = limit(1, "breaker key spend metered", &minute(), 100);
        with(
            with(breaker, "offset", json!(offset)),
            "offset_until_ns",
            until.clone(),
        )
    };
    let mut house = organization(&[breaker(0)]);
    admitted(&mut house, 1, spend(100), at(0));
    let _ = house.settle(reservation(1), spend(100), at(S)).unwrap();
    let opened = "opened 00000000-0000-0000-0000-0000000003e9";
    let closed = "closed 00000000-0000-0000-0000-0000000003e9";
    assert_eq!(house.told(), [opened]);
    let _ = refused(&mut house, 2, spend(0), at(2 * S));
    reload(&mut house, &[breaker(30)], at(2 * S));
    assert_eq!(house.told(), [closed]);
    assert_eq!(first(&mut house, at(2 * S)), (70, 0));
    admitted(&mut house, 2, spend(30), at(3 * S));
    let _ = house.settle(reservation(2), spend(29), at(3 * S)).unwrap();
    admitted(&mut house, 3, spend(0), at(10 * S - 1));
    let refusal = refused(&mut house, 4, spend(0), at(10 * S));
    assert_eq!(refusal.limit.unwrap().used, 129);
    assert_eq!(refusal.retry_after_ns, Some(52 * S));
    admitted(&mut house, 4, spend(0), at(62 * S));
}

#[test]
fn caps_of_zero_and_of_the_largest_integer() {
    let mut none = organization(&[limit(1, "budget key spend hard", &day(), 0)]);
    assert_eq!(
        refused(&mut none, 1, spend(0), at(0)).waits_for,
        Some(WaitsFor::Never)
    );
    let mut all = organization(&[limit(1, "budget key spend hard", &day(), i64::MAX)]);
    admitted(&mut all, 1, spend(i64::MAX - 1), at(0));
    admitted(&mut all, 2, spend(1), at(0));
    admitted(&mut all, 3, spend(0), at(0));
    let _ = refused(&mut all, 4, spend(1), at(0));
    assert_eq!(first(&mut all, at(0)), (0, i64::MAX));
}
