//! Rolling windows against an exact log.
use comptroller_engine::{Decision, Ring, Rolling};
use proptest::prelude::*;

use crate::fixture::{S, admitted, ask, at, limit, minute, organization, refused, spend};

fn exact(log: &[(u64, i64)], after_ns: i128, until_ns: u64) -> i64 {
    let is_in = |at_ns: u64| i128::from(at_ns) > after_ns && at_ns <= until_ns;
    log.iter()
        .filter(|(at_ns, _)| is_in(*at_ns))
        .map(|(_, amount)| amount)
        .sum()
}

fn steps() -> impl Strategy<Value = Vec<(u64, i64)>> {
    let wait_ns = prop_oneof![0..S, 0..70 * S, Just(60 * S), Just(S), Just(61 * S)];
    prop::collection::vec((wait_ns, 0_i64..1_000), 1..60)
}

proptest! {
    #[test]
    fn a_window_never_under_counts_and_over_counts_at_most_one_bucket(
        steps in steps(),
        rolling in prop::sample::select(vec![Rolling::Minute, Rolling::Hour]),
        start_ns in 0..10 * S,
    ) {
        let bucket_ns = rolling.bucket_ns();
        let scale = bucket_ns / S;
        let (mut now_ns, mut log) = (start_ns, Vec::new());
        let mut ring = Ring::new(rolling, now_ns);
        for (wait_ns, amount) in steps {
            now_ns += wait_ns * scale;
            ring.roll(now_ns);
            ring.add(amount, now_ns).unwrap();
            log.push((now_ns, amount));
            let now = i128::from(now_ns);
            let least = exact(&log, now - i128::from(60 * bucket_ns), now_ns);
            let most = exact(&log, now - i128::from(61 * bucket_ns), now_ns);
            prop_assert!(least <= ring.sum() && ring.sum() <= most);
        }
    }

    #[test]
    fn the_stated_wait_is_the_shortest_that_suffices(steps in steps(), target in 0_i64..3_000) {
        let mut now_ns = 0;
        let mut ring = Ring::new(Rolling::Minute, 0);
        for (wait_ns, amount) in steps {
            now_ns += wait_ns;
            ring.roll(now_ns);
            ring.add(amount, now_ns).unwrap();
        }
        let wait_ns = ring.falls_to_ns(target, now_ns).unwrap();
        let mut before = ring.clone();
        before.roll((now_ns + wait_ns).saturating_sub(1));
        prop_assert!(wait_ns == 0 || before.sum() > target);
        ring.roll(now_ns + wait_ns);
        prop_assert!(ring.sum() <= target);
    }

    #[test]
    fn ten_a_minute_never_lets_an_eleventh_through(
        waits in prop::collection::vec(0..9 * S, 1..150),
    ) {
        let mut organization = organization(&[limit(1, "rate key requests hard", &minute(), 10)]);
        let (mut now_ns, mut passed) = (0, Vec::new());
        for (number, wait_ns) in waits.into_iter().enumerate() {
            now_ns += wait_ns;
            match ask(&mut organization, number as u128, spend(1), at(now_ns)) {
                Decision::Admitted(_) => passed.push((now_ns, 1)),
                Decision::Refused(refusal) => {
                    let retry_ns = now_ns + refusal.retry_after_ns.unwrap();
                    prop_assert!(retry_ns > now_ns && retry_ns <= now_ns + 61 * S);
                }
                other => panic!("{other:?}"),
            }
            prop_assert!(exact(&passed, i128::from(now_ns) - i128::from(60 * S), now_ns) <= 10);
        }
    }
}

#[test]
fn a_request_is_refused_just_before_the_stated_instant_and_admitted_at_it() {
    let mut organization = organization(&[limit(1, "rate key requests hard", &minute(), 10)]);
    for number in 0..10 {
        admitted(
            &mut organization,
            number,
            spend(0),
            at(1_500_000_000 + number as u64),
        );
    }
    let now_ns = 20 * S + 7;
    let refusal = refused(&mut organization, 20, spend(0), at(now_ns));
    let frees_ns = now_ns + refusal.retry_after_ns.unwrap();
    assert_eq!(frees_ns, 62 * S);
    assert_eq!(refusal.frees_at_wall_ns, Some(at(frees_ns).wall_ns));
    assert_eq!(
        refused(&mut organization, 21, spend(0), at(frees_ns - 1)).retry_after_ns,
        Some(1)
    );
    admitted(&mut organization, 22, spend(0), at(frees_ns));
}

#[test]
fn a_downward_correction_takes_from_the_newest_buckets_and_leaves_no_bucket_negative() {
    let mut ring = Ring::new(Rolling::Minute, 0);
    ring.add(5, 0).unwrap();
    ring.roll(3 * S);
    ring.add(4, 3 * S).unwrap();
    ring.take_back(6, 0);
    assert_eq!(ring.sum(), 3);
    assert_eq!(ring.falls_to_ns(0, 3 * S), Some(58 * S));
    ring.take_back(100, 0);
    assert_eq!(ring.sum(), 0);
}

#[test]
fn a_correction_whose_beginning_has_left_takes_nothing_from_others() {
    let mut ring = Ring::new(Rolling::Minute, 0);
    ring.add(5, 0).unwrap();
    ring.roll(61 * S);
    ring.add(4, 61 * S).unwrap();
    ring.take_back(5, 0);
    assert_eq!(ring.sum(), 4);
}

#[test]
fn a_full_ring_refuses_to_overflow_and_stays_as_it_was() {
    let mut ring = Ring::new(Rolling::Hour, 0);
    ring.add(i64::MAX, 0).unwrap();
    ring.roll(60 * S);
    assert_eq!(ring.add(1, 60 * S).unwrap_err().code(), "overflow");
    assert_eq!(ring.sum(), i64::MAX);
}

#[test]
fn what_is_older_than_the_process_has_its_place() {
    let mut ring = Ring::new(Rolling::Hour, 5);
    ring.add_aged(7, 5, 59 * 60 * S).unwrap();
    ring.add_aged(9, 5, 62 * 60 * S).unwrap();
    assert_eq!(ring.sum(), 7);
    ring.roll(2 * 60 * S);
    assert_eq!(ring.sum(), 0);
}
