//! Calendar periods: half-open, right at clock changes.
use comptroller_engine::{Calendar, Period};
use jiff::Timestamp;
use proptest::prelude::*;

fn ns(text: &str) -> u64 {
    text.parse::<Timestamp>()
        .unwrap()
        .as_nanosecond()
        .try_into()
        .unwrap()
}

fn bounds(period: Period, zone: &str, instant: &str) -> (u64, u64) {
    let bounds = Calendar::new(period, zone)
        .unwrap()
        .bounds(ns(instant))
        .unwrap();
    (bounds.starts_at_ns, bounds.ends_at_ns)
}

#[test]
fn a_boundary_belongs_to_the_new_period() {
    let first = (ns("2026-01-01T00:00:00Z"), ns("2026-02-01T00:00:00Z"));
    assert_eq!(
        bounds(Period::Month, "UTC", "2026-01-31T23:59:59.999999999Z"),
        first
    );
    assert_eq!(
        bounds(Period::Month, "UTC", "2026-02-01T00:00:00Z").0,
        first.1
    );
}

#[test]
fn a_week_begins_on_monday() {
    let week = (ns("2025-12-29T00:00:00Z"), ns("2026-01-05T00:00:00Z"));
    assert_eq!(bounds(Period::Week, "UTC", "2026-01-04T23:00:00Z"), week);
}

#[test]
fn a_day_of_a_clock_change_has_23_or_25_hours() {
    let short = (ns("2026-03-28T23:00:00Z"), ns("2026-03-29T22:00:00Z"));
    assert_eq!(
        bounds(Period::Day, "Europe/Berlin", "2026-03-29T12:00:00Z"),
        short
    );
    let long = (ns("2026-10-24T22:00:00Z"), ns("2026-10-25T23:00:00Z"));
    assert_eq!(
        bounds(Period::Day, "Europe/Berlin", "2026-10-25T00:30:00Z"),
        long
    );
}

#[test]
fn a_day_whose_midnight_is_skipped_begins_at_one() {
    // Beirut went from 00:00 to 01:00 on 2022-03-27.
    let day = (ns("2022-03-26T22:00:00Z"), ns("2022-03-27T21:00:00Z"));
    assert_eq!(
        bounds(Period::Day, "Asia/Beirut", "2022-03-27T10:00:00Z"),
        day
    );
}

#[test]
fn a_midnight_that_comes_twice_begins_the_day_once() {
    // St. John's went back from 00:01 to 23:01 on 2010-11-07, so both dates are shown twice.
    let first = ns("2010-11-07T02:30:00Z");
    assert_eq!(
        bounds(Period::Day, "America/St_Johns", "2010-11-07T02:30:30Z").0,
        first
    );
    assert_eq!(
        bounds(Period::Day, "America/St_Johns", "2010-11-07T03:00:00Z").0,
        first
    );
}

#[test]
fn a_date_that_never_was_is_no_day_of_its_own() {
    // Samoa skipped 2011-12-30.
    let day = (ns("2011-12-29T10:00:00Z"), ns("2011-12-30T10:00:00Z"));
    assert_eq!(
        bounds(Period::Day, "Pacific/Apia", "2011-12-29T12:00:00Z"),
        day
    );
    assert_eq!(
        bounds(Period::Day, "Pacific/Apia", "2011-12-30T12:00:00Z").0,
        day.1
    );
}

#[test]
fn an_unknown_time_zone_is_refused() {
    let error = Calendar::new(Period::Day, "Europe/Atlantis").unwrap_err();
    assert_eq!(error.code(), "invalid_policy");
}

proptest! {
    #[test]
    fn periods_contain_their_instant_and_follow_each_other(
        wall_ns in 315_532_800_000_000_000_u64..4_102_444_800_000_000_000,
        period in prop::sample::select(vec![Period::Day, Period::Week, Period::Month]),
        zone in prop::sample::select(vec![
            "UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia",
            "America/St_Johns", "Asia/Beirut", "Australia/Lord_Howe", "Africa/Casablanca",
        ]),
    ) {
        let calendar = Calendar::new(period, zone).unwrap();
        let bounds = calendar.bounds(wall_ns).unwrap();
        prop_assert!(bounds.contains(wall_ns));
        prop_assert_eq!(calendar.bounds(bounds.starts_at_ns).unwrap(), bounds);
        prop_assert_eq!(calendar.bounds(bounds.ends_at_ns - 1).unwrap(), bounds);
        let next = calendar.bounds(bounds.ends_at_ns).unwrap();
        prop_assert_eq!(next.starts_at_ns, bounds.ends_at_ns);
    }
}
