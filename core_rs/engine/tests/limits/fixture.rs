//! A small organization: one key, its member, its team; short ways to write limits and instants.
use comptroller_engine::{
    Admission, Amounts, Decision, Id, Now, Organization, Path, Policy, Refusal, ReservationId, Seed,
};
use serde_json::{Value, json};

pub(crate) const S: u64 = 1_000_000_000;
pub(crate) const DAY: u64 = 86_400 * S;
/// 2026-01-01T00:00:00Z, a Thursday.
pub(crate) const NEW_YEAR: u64 = 1_767_225_600 * S;

pub(crate) const ORGANIZATION: u128 = 1;
pub(crate) const TEAM: u128 = 2;
pub(crate) const MEMBER: u128 = 3;
pub(crate) const KEY: u128 = 4;
pub(crate) const OTHER_KEY: u128 = 5;

/// Noon of New Year's Day plus an offset; the monotonic clock starts at 0.
pub(crate) fn at(offset_ns: u64) -> Now {
    Now {
        wall_ns: NEW_YEAR + DAY / 2 + offset_ns,
        mono_ns: offset_ns,
    }
}

pub(crate) fn id(number: u128) -> Id {
    Id::from(number)
}

pub(crate) fn reservation(number: u128) -> ReservationId {
    ReservationId::from(number.to_be_bytes())
}

pub(crate) fn path() -> Path {
    Path::new(id(KEY), Some(id(MEMBER)), Some(id(TEAM)), id(ORGANIZATION))
}

pub(crate) fn spend(nanos: i64) -> Amounts {
    Amounts {
        spend_nanos: nanos,
        tokens: 0,
    }
}

pub(crate) fn amounts(spend_nanos: i64, tokens: i64) -> Amounts {
    Amounts {
        spend_nanos,
        tokens,
    }
}

pub(crate) fn minute() -> Value {
    json!({"kind": "rolling", "seconds": 60})
}

pub(crate) fn hour() -> Value {
    json!({"kind": "rolling", "seconds": 3600})
}

pub(crate) fn day() -> Value {
    json!({"kind": "calendar", "period": "day", "time_zone": "UTC"})
}

pub(crate) fn scope(kind: &str) -> Value {
    let number = match kind {
        "organization" => ORGANIZATION,
        "team" => TEAM,
        "member" => MEMBER,
        _ => KEY,
    };
    json!({"kind": kind, "id": id(number).to_string()})
}

/// `what` is "kind scope resource mode", such as "budget team spend hard".
pub(crate) fn limit(number: u128, what: &str, window: &Value, cap: i64) -> Value {
    let words: Vec<&str> = what.split(' ').collect();
    json!({
        "id": id(1000 + number).to_string(), "kind": words[0], "scope": scope(words[1]),
        "where": null, "resource": words[2], "window": window, "cap": cap, "mode": words[3],
        "hold": "bound",
    })
}

pub(crate) fn snapshot(limits: &[Value]) -> Value {
    json!({
        "organization_id": id(ORGANIZATION).to_string(), "state": "active", "currency": "USD",
        "version": "v1", "limits": limits, "models": [],
    })
}

pub(crate) fn policy(snapshot: &Value) -> Policy {
    Policy::from_json(snapshot.to_string().as_bytes()).unwrap()
}

pub(crate) fn seeds(list: &Value) -> Vec<Seed> {
    Seed::list_from_json(list.to_string().as_bytes()).unwrap()
}

/// An organization under these limits, made at offset 0.
pub(crate) fn organization(limits: &[Value]) -> Organization {
    Organization::new(policy(&snapshot(limits)), &[], at(0)).unwrap()
}

pub(crate) fn reload(organization: &mut Organization, limits: &[Value], now: Now) {
    organization
        .load(policy(&snapshot(limits)), &[], now)
        .unwrap();
}

pub(crate) fn ask(
    organization: &mut Organization,
    number: u128,
    ask: Amounts,
    now: Now,
) -> Decision {
    organization
        .admit(
            reservation(number),
            path(),
            ask,
            "gpt-4o-mini",
            "openai",
            now,
        )
        .unwrap()
}

pub(crate) fn admitted(
    organization: &mut Organization,
    number: u128,
    amounts: Amounts,
    now: Now,
) -> Admission {
    match ask(organization, number, amounts, now) {
        Decision::Admitted(admission) => admission,
        Decision::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

pub(crate) fn refused(
    organization: &mut Organization,
    number: u128,
    amounts: Amounts,
    now: Now,
) -> Refusal {
    match ask(organization, number, amounts, now) {
        Decision::Admitted(admission) => panic!("admitted: {admission:?}"),
        Decision::Refused(refusal) => *refusal,
    }
}

/// State of every limit, in the order of their ids.
pub(crate) fn states(organization: &mut Organization, now: Now) -> Vec<Value> {
    let mut states: Vec<Value> =
        serde_json::from_slice(&organization.limit_states(now).unwrap()).unwrap();
    states.sort_by_key(|state| state["limit_id"].as_str().unwrap().to_owned());
    states
}

/// Used and held of the limit with the lowest id.
pub(crate) fn first(organization: &mut Organization, now: Now) -> (i64, i64) {
    let states = states(organization, now);
    (
        states[0]["used"].as_i64().unwrap(),
        states[0]["held"].as_i64().unwrap(),
    )
}
