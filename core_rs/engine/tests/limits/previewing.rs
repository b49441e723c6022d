//! Previews say what an admission would, and leave nothing behind.
use comptroller_engine::{Decision, NAME_BYTES_MAX, Now, RELEASED_MAX};
use serde_json::json;

use crate::fixture::{
    Asks, DAY, House, S, admitted, amounts, ask, at, by, day, limit, minute, organization, path,
    policy, refused, reservation, snapshot, spend, states,
};

fn preview(organization: &mut House, ask: impl Asks, now: Now) -> Decision {
    organization.preview(path(), ask, now).unwrap()
}

#[test]
fn an_admission_is_foretold_with_its_figures_and_nothing_is_held() {
    let limits = [
        limit(1, "rate key requests hard", &minute(), 2),
        limit(2, "rate key tokens hard", &minute(), 100),
        limit(3, "budget team spend hard", &day(), 50),
    ];
    let mut organization = organization(&limits);
    for _ in 0..10 {
        let Decision::Admitted(foretold) = preview(&mut organization, amounts(20, 30), at(0))
        else {
            panic!("refused")
        };
        assert_eq!(foretold.held, amounts(20, 30));
        assert_eq!(foretold.remaining_spend_nanos, Some(30));
        let (requests, tokens) = (foretold.requests.unwrap(), foretold.tokens.unwrap());
        assert_eq!((requests.remaining, requests.reset_ns), (1, 61 * S));
        assert_eq!((tokens.remaining, tokens.reset_ns), (70, 0));
    }
    assert_eq!(organization.open_reservations(), 0);
    for state in states(&mut organization, at(0)) {
        assert_eq!((&state["used"], &state["held"]), (&json!(0), &json!(0)));
    }
    let real = admitted(&mut organization, 1, amounts(20, 30), at(0));
    assert_eq!(real.requests.unwrap().remaining, 1);
    assert_eq!(real.requests.unwrap().reset_ns, 61 * S);
    assert_eq!(real.tokens.unwrap().remaining, 70);
}

#[test]
fn a_refusal_is_foretold_to_the_instant_at_which_it_ends() {
    let mut organization = organization(&[limit(1, "budget key spend hard", &day(), 50)]);
    let _ = admitted(&mut organization, 1, spend(40), at(0));
    let _ = organization
        .settle(reservation(1), spend(40), at(0))
        .unwrap();
    let Decision::Refused(foretold) = preview(&mut organization, spend(11), at(1)) else {
        panic!("admitted")
    };
    let real = refused(&mut organization, 2, spend(11), at(1));
    assert_eq!(format!("{foretold:?}"), format!("{real:?}"));
    let wait_ns = real.retry_after_ns.unwrap();
    assert_eq!(wait_ns, DAY / 2 - 1);
    let is_admitted = |decision| matches!(decision, Decision::Admitted(_));
    let mut foretells = |ns| is_admitted(preview(&mut organization, spend(11), at(1 + ns)));
    assert!(!foretells(wait_ns - 1));
    assert!(foretells(wait_ns));
}

#[test]
fn what_cannot_be_decided_is_the_same_error() {
    let mut organization = organization(&[limit(1, "budget key spend soft", &day(), i64::MAX)]);
    let long = "m".repeat(NAME_BYTES_MAX + 1);
    let mut code = |ask: comptroller_engine::Amounts, model: &str| {
        let failed = organization.preview(path(), by(model, ask.asks()), at(0));
        failed.unwrap_err().code()
    };
    assert_eq!(code(spend(-1), "m"), "invalid_argument");
    assert_eq!(code(spend(0), &long), "invalid_argument");
    let _ = admitted(&mut organization, 1, spend(i64::MAX), at(0));
    let failed = organization.preview(path(), spend(1), at(0));
    assert_eq!(failed.unwrap_err().code(), "overflow");
    assert_eq!(organization.open_reservations(), 1);
}

#[test]
fn a_suspended_organization_refuses_a_preview() {
    let mut suspended = snapshot(&[]);
    suspended["state"] = json!("suspended");
    let mut organization = House::new(policy(&suspended), &[], at(0)).unwrap();
    let Decision::Refused(refusal) = preview(&mut organization, spend(1), at(0)) else {
        panic!("admitted")
    };
    assert_eq!(&*refusal.code, "organization_suspended");
}

#[test]
fn previews_are_not_remembered_as_releases_are() {
    let mut organization = organization(&[]);
    for _ in 0..=RELEASED_MAX {
        let _ = preview(&mut organization, spend(1), at(0));
    }
    assert!(matches!(
        ask(&mut organization, 1, spend(1), at(0)),
        Decision::Admitted(_)
    ));
    assert_eq!(organization.open_reservations(), 1);
}

#[test]
fn rate_figures_are_those_of_the_limits_that_count_the_request() {
    let mut narrow = limit(1, "rate key requests hard", &minute(), 1);
    narrow["where"] = json!({"models": ["other"], "providers": null});
    let mut organization =
        organization(&[narrow, limit(2, "rate key requests hard", &minute(), 9)]);
    let admission = admitted(&mut organization, 1, spend(0), at(0));
    let requests = admission.requests.unwrap();
    assert_eq!((requests.limit, requests.remaining), (9, 8));
}

#[test]
fn the_states_of_a_path_are_of_its_scopes_alone_narrowest_first() {
    let mut other = limit(5, "budget key spend hard", &day(), 7);
    other["scope"]["id"] = json!("00000000-0000-0000-0000-0000000000ff");
    let mut organization = organization(&[
        limit(1, "budget organization spend hard", &day(), 9),
        limit(2, "budget team spend metered", &day(), 9),
        limit(3, "rate key requests hard", &minute(), 9),
        limit(4, "budget member spend hard", &day(), 9),
        other,
    ]);
    let _ = admitted(&mut organization, 1, spend(3), at(2 * S));
    let json = organization.path_states(&path(), at(5 * S)).unwrap();
    let found: Vec<serde_json::Value> = serde_json::from_slice(&json).unwrap();
    let kinds: Vec<&str> = found
        .iter()
        .map(|state| state["scope"]["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["key", "member", "team", "organization"]);
    assert_eq!(
        (&found[0]["used"], &found[0]["held"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(found[0]["empties_at_ns"], json!(at(63 * S).wall_ns));
    assert_eq!(
        (&found[1]["used"], &found[1]["held"]),
        (&json!(0), &json!(3))
    );
    assert_eq!(found[1]["empties_at_ns"], json!(null));
}
