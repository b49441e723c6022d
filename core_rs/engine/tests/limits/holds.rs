//! Holds that follow streams: what is expected, extensions, cuts, and the last rest.
use comptroller_engine::{Actual, Ask, Decision, Path, SAMPLES_MIN, Streams, WaitsFor};

use crate::fixture::{
    DAY, House, KEY, MEMBER, ORGANIZATION, OTHER_KEY, TEAM, admitted, amounts, at, by, day,
    expecting, featured, figures, first, fixed, id, limit, organization, path, patient, refused,
    reload, reservation, spend, stream, taught, taught_lengths, waiting,
};

/// An organization of one limit that holds what is expected.
fn house(cap: i64) -> House {
    organization(&[expecting(limit(1, "budget team spend hard", &day(), cap))])
}

/// Let so many answers of one length be learned under a path.
fn learn(house: &mut House, from: u128, path: &Path, ask: &Ask, lengths: &[i64]) {
    for (number, tokens) in (from..).zip(lengths) {
        let decision = house.admit(reservation(number), path.clone(), ask.clone(), at(0));
        assert!(matches!(decision, Ok(Decision::Admitted(_))));
        let actual = Actual {
            output_tokens: Some(*tokens),
            ..Actual::default()
        };
        let _ = house.settle(reservation(number), actual, at(0)).unwrap();
    }
}

/// What a stream of a path may relay at first; nothing stays open.
fn expected(house: &mut House, path: &Path, ask: Ask) -> i64 {
    let decision = house.preview(path.clone(), ask, at(0)).unwrap();
    let Decision::Admitted(admission) = decision else {
        panic!("{decision:?}")
    };
    admission.output_tokens_allowed
}

#[test]
fn one_path_holds_what_is_expected_on_one_limit_and_the_bound_on_another() {
    let mut house = organization(&[
        expecting(limit(1, "budget key spend hard", &day(), 10_000)),
        limit(2, "budget team spend hard", &day(), 10_000),
        limit(3, "balance organization spend hard", &day(), 10_000),
    ]);
    taught(&mut house, 50);
    let admission = admitted(&mut house, 1, stream(10, 1_000, 20), at(0));
    assert_eq!(
        (admission.output_tokens_allowed, admission.extendable),
        (50, true)
    );
    assert_eq!(
        (admission.held, admission.bound),
        (amounts(80, 80), amounts(1_010, 1_010))
    );
    assert_eq!(
        figures(&mut house, at(0)),
        [(0, 80), (0, 1_010), (0, 1_010)]
    );
    assert_eq!(house.extend(reservation(1), 51, at(0)), Ok(Some(71)));
    assert_eq!(
        figures(&mut house, at(0)),
        [(0, 283), (0, 1_010), (0, 1_010)]
    );
    let _ = house
        .settle(reservation(1), amounts(61, 61), at(0))
        .unwrap();
    assert_eq!(figures(&mut house, at(0)), [(61, 0); 3]);
}

#[test]
fn below_five_answers_nothing_is_expected_but_the_bound() {
    let mut house = house(10_000);
    let ask = fixed(0, 0);
    for number in 0..SAMPLES_MIN as u128 {
        assert_eq!(expected(&mut house, &path(), stream(10, 1_000, 20)), 1_000);
        learn(&mut house, 100 + number, &path(), &ask, &[50]);
    }
    assert_eq!(expected(&mut house, &path(), stream(10, 1_000, 20)), 50);
    assert_eq!(
        expected(&mut house, &path(), by("other", stream(10, 1_000, 20))),
        1_000
    );
    assert_eq!(expected(&mut house, &path(), stream(10, 30, 20)), 30);
}

#[test]
fn of_a_hundred_answers_ninety_five_are_no_longer_than_expected() {
    let mut house = house(10_000);
    let lengths: Vec<i64> = (1..=20).rev().collect();
    learn(&mut house, 100, &path(), &fixed(0, 0), &lengths);
    assert_eq!(expected(&mut house, &path(), stream(10, 1_000, 5)), 19);
    // Only the latest 64 count.
    learn(&mut house, 200, &path(), &fixed(0, 0), &[7; 64]);
    assert_eq!(expected(&mut house, &path(), stream(10, 1_000, 5)), 7);
    let two = Ask {
        choices: 2,
        ..stream(10, 1_000, 5)
    };
    assert_eq!(expected(&mut house, &path(), two), 14);
}

#[test]
fn what_is_learned_falls_back_from_feature_to_key_to_team_to_organization() {
    let mut house = house(10_000);
    let of = |key: u128, team: u128| {
        Path::new(id(key), Some(id(MEMBER)), Some(id(team)), id(ORGANIZATION))
    };
    let (own, mate, far) = (of(KEY, TEAM), of(OTHER_KEY, TEAM), of(77, 78));
    let asked = |feature: &str| featured(feature, stream(0, 1_000, 5));
    learn(&mut house, 100, &own, &featured("a", fixed(0, 0)), &[10; 5]);
    assert_eq!(expected(&mut house, &own, asked("b")), 10);
    learn(&mut house, 200, &own, &featured("b", fixed(0, 0)), &[30; 5]);
    assert_eq!(expected(&mut house, &own, asked("a")), 10);
    assert_eq!(expected(&mut house, &own, asked("b")), 30);
    assert_eq!(expected(&mut house, &own, asked("c")), 30);
    assert_eq!(expected(&mut house, &own, stream(0, 1_000, 5)), 30);
    assert_eq!(expected(&mut house, &mate, asked("a")), 30);
    learn(&mut house, 300, &mate, &fixed(0, 0), &[7; 5]);
    assert_eq!(expected(&mut house, &mate, asked("a")), 7);
    assert_eq!(expected(&mut house, &own, asked("a")), 10);
    assert_eq!(expected(&mut house, &far, asked("a")), 30);
}

#[test]
fn an_answer_in_one_piece_holds_the_bound_whatever_is_learned() {
    let mut house = house(10_000);
    taught(&mut house, 50);
    let plain = Ask {
        streams: Streams::Plain,
        ..stream(10, 1_000, 20)
    };
    let admission = admitted(&mut house, 1, plain, at(0));
    assert_eq!(
        (admission.held, admission.extendable),
        (amounts(1_010, 1_010), false)
    );
    assert_eq!(house.extend(reservation(1), 5_000, at(0)), Ok(Some(1_000)));
}

#[test]
fn an_answer_is_assembled_from_a_stream_only_near_a_cap() {
    let mut house = house(1_000);
    taught(&mut house, 10);
    let assembled = |bound| Ask {
        streams: Streams::Assembled,
        ..stream(0, bound, 5)
    };
    let admission = admitted(&mut house, 1, assembled(100), at(0));
    assert_eq!(
        (admission.held, admission.extendable),
        (amounts(100, 100), false)
    );
    assert_eq!(house.release(reservation(1), at(0)), Ok(true));
    let admission = admitted(&mut house, 2, assembled(101), at(0));
    assert_eq!(
        (admission.held, admission.extendable),
        (amounts(15, 15), true)
    );
}

#[test]
fn the_youngest_stream_is_cut_one_at_a_time_and_the_others_go_on_when_it_has_ended() {
    let mut house = house(250);
    taught(&mut house, 50);
    for number in 1..=4 {
        admitted(&mut house, number, stream(0, 1_000, 10), at(0));
    }
    assert_eq!(first(&mut house, at(0)), (0, 240));
    assert_eq!(house.extend(reservation(1), 55, at(0)), Ok(None));
    assert_eq!(house.told(), ["cut 4"]);
    assert_eq!(house.extend(reservation(2), 55, at(0)), Ok(None));
    assert_eq!(house.extend(reservation(4), 55, at(0)), Ok(None));
    assert!(house.told().is_empty());
    assert_eq!(first(&mut house, at(0)), (0, 240));
    // Ten are free, yet nobody comes before a stream that waits.
    let refusal = refused(&mut house, 5, spend(10), at(0));
    assert_eq!(refusal.waits_for, Some(WaitsFor::OpenRequests));
    let _ = waiting(&mut house, 6, patient(fixed(5, 0)), at(0));
    let _ = house.settle(reservation(4), spend(40), at(0)).unwrap();
    assert_eq!(house.told(), ["granted 1 65", "granted 2 65"]);
    // Both have outgrown what was expected of them: three times their length is kept from others.
    assert_eq!(first(&mut house, at(0)), (40, 225 + 225 + 60));
    let _ = house.settle(reservation(3), spend(50), at(0)).unwrap();
    let _ = house.settle(reservation(1), spend(65), at(0)).unwrap();
    assert!(house.told().is_empty());
    let _ = house.settle(reservation(2), spend(65), at(0)).unwrap();
    assert_eq!(house.told(), ["admitted 6"]);
    assert_eq!(first(&mut house, at(0)), (220, 5));
}

#[test]
fn when_the_cut_one_frees_too_little_the_next_is_cut() {
    let mut house = house(240);
    taught(&mut house, 50);
    for number in 1..=4 {
        admitted(&mut house, number, stream(0, 1_000, 10), at(0));
    }
    assert_eq!(house.extend(reservation(1), 55, at(0)), Ok(None));
    assert_eq!(house.told(), ["cut 4"]);
    let _ = house.settle(reservation(4), spend(60), at(0)).unwrap();
    assert_eq!(house.told(), ["cut 3"]);
    let _ = house.settle(reservation(3), spend(45), at(0)).unwrap();
    assert_eq!(house.told(), ["granted 1 65"]);
    assert_eq!(first(&mut house, at(0)), (105, 225 + 60));
}

#[test]
fn a_stream_that_is_the_youngest_is_cut_itself() {
    let mut house = house(100);
    taught(&mut house, 50);
    admitted(&mut house, 1, spend(30), at(0));
    admitted(&mut house, 2, stream(0, 1_000, 10), at(0));
    assert_eq!(house.extend(reservation(2), 61, at(0)), Ok(None));
    assert_eq!(house.told(), ["cut 2"]);
    let _ = house.settle(reservation(1), spend(0), at(0)).unwrap();
    assert!(house.told().is_empty(), "who was cut is not let go on");
}

#[test]
fn a_stream_that_waits_for_room_may_end_by_itself() {
    let mut house = house(130);
    taught(&mut house, 50);
    admitted(&mut house, 1, stream(0, 1_000, 10), at(0));
    admitted(&mut house, 2, stream(0, 1_000, 10), at(0));
    assert_eq!(house.extend(reservation(1), 55, at(0)), Ok(None));
    assert_eq!(house.told(), ["cut 2"]);
    let _ = waiting(&mut house, 3, patient(fixed(10, 0)), at(0));
    let _ = house.settle(reservation(1), spend(55), at(0)).unwrap();
    assert_eq!(house.told(), ["admitted 3"]);
    let _ = house.settle(reservation(2), spend(50), at(0)).unwrap();
    assert!(house.told().is_empty());
    assert_eq!(first(&mut house, at(0)), (105, 10));
}

#[test]
fn a_raised_cap_lets_a_stream_go_on() {
    let mut house = house(60);
    taught(&mut house, 50);
    admitted(&mut house, 1, fixed(0, 0), at(0));
    admitted(&mut house, 2, stream(0, 1_000, 10), at(0));
    let _ = house.settle(reservation(1), spend(0), at(0)).unwrap();
    admitted(&mut house, 3, stream(0, 0, 0), at(0));
    assert_eq!(house.extend(reservation(2), 51, at(0)), Ok(None));
    assert_eq!(house.told(), ["cut 3"]);
    let raised = expecting(limit(1, "budget team spend hard", &day(), 71));
    reload(&mut house, &[raised], at(0));
    assert_eq!(house.told(), ["granted 2 61"]);
}

#[test]
fn limits_that_hold_the_bound_cut_nobody_below_it() {
    let mut house = organization(&[limit(1, "budget key spend hard", &day(), 1_010)]);
    taught(&mut house, 50);
    admitted(&mut house, 1, stream(10, 1_000, 20), at(0));
    assert_eq!(house.extend(reservation(1), 51, at(0)), Ok(Some(71)));
    assert_eq!(house.extend(reservation(1), 990, at(0)), Ok(Some(1_000)));
    assert_eq!(house.extend(reservation(1), 5_000, at(0)), Ok(Some(1_000)));
    assert_eq!(first(&mut house, at(0)), (0, 1_010));
    assert!(house.told().is_empty());
}

/// Spend so much of the first period.
fn spent(house: &mut House, nanos: i64) {
    admitted(house, 900, spend(0), at(0));
    let _ = house.settle(reservation(900), spend(nanos), at(0)).unwrap();
}

#[test]
fn a_stream_takes_what_is_left_where_nothing_else_is_open() {
    for (used, allowed, held) in [(40, Some(30), 60), (70, Some(0), 30), (71, None, 0)] {
        let mut house = house(100);
        spent(&mut house, used);
        let cold = stream(10, 1_000, 20);
        let Some(allowed) = allowed else {
            let refusal = refused(&mut house, 1, cold, at(0));
            assert_eq!(refusal.waits_for, Some(WaitsFor::Period));
            assert_eq!(
                refusal.output_tokens_that_fit.map(|(tokens, _)| tokens),
                Some(19)
            );
            continue;
        };
        let admission = admitted(&mut house, 1, cold, at(0));
        assert_eq!(admission.output_tokens_allowed, allowed);
        assert_eq!(
            (admission.held, admission.bound),
            (amounts(held, held), amounts(1_010, 1_010))
        );
        assert_eq!(admission.remaining_spend_nanos, Some(0));
        assert_eq!(first(&mut house, at(0)), (used, held));
        assert_eq!(house.extend(reservation(1), allowed + 1, at(0)), Ok(None));
        assert_eq!(house.told(), ["cut 1"]);
    }
}

#[test]
fn a_rest_is_begun_only_if_it_is_enough_for_a_short_answer() {
    for (cap, held) in [(44, None), (45, Some(45)), (60, Some(60)), (90, Some(80))] {
        let mut house = house(cap);
        // Of a hundred answers ten are no longer than 15 tokens, ninety-five no longer than 50.
        taught_lengths(&mut house, &[50, 15, 30, 50, 40]);
        let asked = stream(10, 1_000, 20);
        let Some(held) = held else {
            assert_eq!(
                refused(&mut house, 1, asked, at(0)).waits_for,
                Some(WaitsFor::Never)
            );
            continue;
        };
        let admission = admitted(&mut house, 1, asked, at(0));
        assert_eq!(admission.held, amounts(held, held));
        assert_eq!(admission.output_tokens_allowed, held - 30);
    }
}

#[test]
fn the_last_rest_is_not_taken_beside_others_nor_of_a_limit_that_holds_the_bound() {
    let mut shared = house(100);
    admitted(&mut shared, 1, spend(1), at(0));
    let refusal = refused(&mut shared, 2, stream(10, 1_000, 20), at(0));
    assert_eq!(refusal.waits_for, Some(WaitsFor::OpenRequests));
    let _ = waiting(&mut shared, 3, patient(stream(10, 1_000, 20)), at(0));
    let _ = shared.settle(reservation(1), spend(1), at(0)).unwrap();
    assert_eq!(shared.told(), ["admitted 3"]);
    assert_eq!(first(&mut shared, at(0)), (1, 99));
    let mut bound = organization(&[limit(1, "budget team spend hard", &day(), 100)]);
    let refusal = refused(&mut bound, 1, stream(10, 1_000, 20), at(0));
    assert_eq!(refusal.waits_for, Some(WaitsFor::Never));
    assert_eq!(
        refusal.output_tokens_that_fit.map(|(tokens, _)| tokens),
        Some(90)
    );
    let mut plain = house(100);
    assert_eq!(
        refused(&mut plain, 1, spend(101), at(0)).waits_for,
        Some(WaitsFor::Never)
    );
}

#[test]
fn the_least_of_several_rests_is_taken() {
    let mut house = organization(&[
        expecting(limit(1, "budget key spend hard", &day(), 100)),
        expecting(limit(2, "budget team spend hard", &day(), 70)),
        expecting(limit(3, "budget organization spend hard", &day(), 80)),
        expecting(limit(4, "budget member spend hard", &day(), 5_000)),
    ]);
    let admission = admitted(&mut house, 1, stream(10, 1_000, 20), at(0));
    assert_eq!(
        (admission.output_tokens_allowed, admission.held),
        (40, amounts(70, 70))
    );
    assert_eq!(figures(&mut house, at(0)), [(0, 70); 4]);
}

#[test]
fn a_rest_of_tokens_is_no_money_and_refuses() {
    let tokens = expecting(limit(1, "quota team tokens hard", &day(), 100));
    let mut house = organization(&[tokens]);
    let refusal = refused(&mut house, 1, patient(stream(10, 1_000, 20)), at(0));
    assert_eq!(
        (&*refusal.code, refusal.output_tokens_that_fit),
        ("plan_quota_exceeded", None)
    );
}

#[test]
fn a_calibration_multiplies_what_is_held() {
    let mut house = house(10_000);
    taught(&mut house, 50);
    let dear = Ask {
        calibration: 3,
        ..stream(10, 1_000, 20)
    };
    let admission = admitted(&mut house, 1, dear, at(0));
    assert_eq!(admission.calibration, 3);
    assert_eq!(
        (admission.held, admission.bound),
        (amounts(240, 80), amounts(3_030, 1_010))
    );
    let done = house
        .settle(reservation(1), amounts(2_021, 60), at(0))
        .unwrap();
    assert_eq!((done.bound_ratio, done.overrun_nanos), (3, 2_021 - 240));
    admitted(&mut house, 2, spend(10), at(DAY));
    let done = house.settle(reservation(2), spend(10), at(DAY)).unwrap();
    assert_eq!((done.bound_ratio, done.overrun_nanos), (1, 0));
}
