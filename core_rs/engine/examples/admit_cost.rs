//! Prints what one admission and one settlement over twelve limits cost, in nanoseconds; and what
//! a settlement costs while a thousand requests wait, for one limit or each for its own.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measurement fails by panicking"
)]
#![expect(clippy::arithmetic_side_effects, reason = "small numbers")]
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use comptroller_engine::{Actual, Ask, Decision, Digest, Engine, Id, Now, ReservationId, Subject};
use serde_json::{Value, json};

const RUNS: u32 = 11;
const REQUESTS: u32 = 20_000;
/// So many requests of an organization run at a time.
const OPEN: usize = 50;
const START_NS: u64 = 1_767_268_800_000_000_000;

fn scope(kind: &str) -> Value {
    let number = ["none", "organization", "team", "member", "key"]
        .iter()
        .position(|it| *it == kind);
    json!({"kind": kind, "id": Id::from(number.unwrap() as u128).to_string()})
}

fn limit(number: usize, what: &str, window: &Value) -> Value {
    let words: Vec<&str> = what.split(' ').collect();
    json!({
        "id": Id::from(100 + number as u128).to_string(), "kind": words[0], "scope": scope(words[1]),
        "where": null, "resource": words[2], "window": window, "cap": i64::MAX / 2, "mode": words[3],
        "hold": "bound",
    })
}

/// Four budgets, six breakers, requests and tokens a minute.
fn limits() -> Vec<Value> {
    let month = json!({"kind": "calendar", "period": "month", "time_zone": "Europe/Berlin"});
    let minute = json!({"kind": "rolling", "seconds": 60});
    let hour = json!({"kind": "rolling", "seconds": 3600});
    let mut limits = Vec::new();
    for scope in ["key", "member", "team", "organization"] {
        limits.push(limit(
            limits.len(),
            &format!("budget {scope} spend hard"),
            &month,
        ));
    }
    for scope in ["member", "team", "organization"] {
        for window in [&minute, &hour] {
            limits.push(limit(
                limits.len(),
                &format!("breaker {scope} spend metered"),
                window,
            ));
        }
    }
    limits.push(limit(limits.len(), "rate key requests hard", &minute));
    limits.push(limit(limits.len(), "rate key tokens metered", &minute));
    limits
}

fn engine() -> Engine {
    let engine = Engine::new();
    let id = |number: u128| Id::from(number).to_string();
    let snapshot = json!({
        "organization_id": id(1), "state": "active", "currency": "EUR", "version": "v1",
        "limits": limits(), "rules": [],
    });
    let keys = json!([{
        "id": id(4), "organization_id": id(1), "team_id": id(2), "member_id": id(3),
        "state": "active", "expires_at_ns": null,
        "secrets": [{"digest": "00".repeat(32), "expires_at_ns": null}],
    }]);
    engine.load_keys(keys.to_string().as_bytes()).unwrap();
    let now = Now {
        wall_ns: START_NS,
        mono_ns: 0,
    };
    engine
        .load_organization(snapshot.to_string().as_bytes(), b"[]", now)
        .unwrap();
    engine
}

/// What the caller makes of a request, once for each.
fn ask() -> Ask {
    Ask {
        subject: Arc::new(Subject {
            model: "gpt-4o-mini".into(),
            provider: "openai".into(),
            ..Subject::default()
        }),
        input_tokens: 50,
        output_tokens_max: 50,
        choices: 1,
        bound_nanos: 1_000,
        input_nanos: 500,
        output_picos: 10_000,
        step_tokens: 20,
        calibration: 1,
        ..Ask::default()
    }
}

/// Admit and settle; return nanoseconds per admission and per settlement.
fn run(engine: &Engine, key: u32, run: u32) -> (u128, u128) {
    let actual = Actual {
        cost_nanos: 1_000,
        tokens: 100,
        output_tokens: Some(50),
    };
    let id = |number: u32| ReservationId::from(u128::from(run * REQUESTS + number).to_be_bytes());
    let at = |number: u32| {
        let elapsed_ns = u64::from(run * REQUESTS + number) * 1_000_000;
        Now {
            wall_ns: START_NS + elapsed_ns,
            mono_ns: elapsed_ns,
        }
    };
    let (mut admitted, mut settled) = (0, 0);
    for first in (0..REQUESTS).step_by(OPEN) {
        let numbers = first..first + u32::try_from(OPEN).unwrap();
        let asks: Vec<Ask> = numbers.clone().map(|_| ask()).collect();
        let begun = Instant::now();
        for number in numbers.clone() {
            let decision = engine
                .admit(
                    key,
                    id(number),
                    &asks[(number - first) as usize],
                    at(number),
                )
                .unwrap();
            assert!(matches!(black_box(decision), Decision::Admitted(_)));
        }
        admitted += begun.elapsed().as_nanos();
        let begun = Instant::now();
        for number in numbers.clone() {
            let _ = black_box(engine.settle(0, id(number), actual, at(number)).unwrap());
        }
        settled += begun.elapsed().as_nanos();
        engine
            .booked_through(0, u64::from(run * REQUESTS + numbers.end))
            .unwrap();
    }
    (
        admitted / u128::from(REQUESTS),
        settled / u128::from(REQUESTS),
    )
}

/// Ten teams of a hundred keys each; every key has a budget, and so have the teams.
fn crowded(is_team_full: bool) -> Engine {
    let engine = Engine::new();
    let id = |number: u128| Id::from(number).to_string();
    let window = json!({"kind": "lifetime", "starts_at_ns": 0});
    let budget = |kind: &str, number: u128, cap: i64| {
        json!({
            "id": id(10_000 + number), "kind": "budget", "scope": {"kind": kind, "id": id(number)},
            "where": null, "resource": "spend", "window": window, "cap": cap, "mode": "hard",
            "hold": "bound",
        })
    };
    let (of_key, of_team) = if is_team_full {
        (1_000, 10)
    } else {
        (10, 100_000)
    };
    let keys = (0..1_000).map(|key| budget("key", 1_000 + key, of_key));
    let teams = (0..10).map(|team| budget("team", 100 + team, of_team));
    let snapshot = json!({
        "organization_id": id(1), "state": "active", "currency": "EUR", "version": "v1",
        "limits": keys.chain(teams).collect::<Vec<_>>(),
    });
    let keys: Vec<Value> = (0..1_000_u128)
        .map(|key| {
            json!({
                "id": id(1_000 + key), "organization_id": id(1), "team_id": id(100 + key / 100),
                "member_id": null, "state": "active", "expires_at_ns": null, "secrets": [],
            })
        })
        .collect();
    engine
        .load_keys(json!(keys).to_string().as_bytes())
        .unwrap();
    engine
        .load_organization(snapshot.to_string().as_bytes(), b"[]", START)
        .unwrap();
    engine
}

const START: Now = Now {
    wall_ns: START_NS,
    mono_ns: 0,
};

/// Let a client leave the line, and time pass; none of a thousand that wait gets room.
fn beside_waiters(is_team_full: bool) -> [u128; 2] {
    let engine = crowded(is_team_full);
    let costing = |nanos: i64, may_wait: bool| Ask {
        input_nanos: nanos,
        bound_nanos: nanos,
        output_tokens_max: 0,
        may_wait,
        ..ask()
    };
    let id = |number: u32| ReservationId::from(u128::from(number).to_be_bytes());
    for key in 0..1_000 {
        let cost_nanos = if is_team_full && key % 100 > 0 { 0 } else { 9 };
        let decision = engine.admit(key, id(key), &costing(cost_nanos, false), START);
        assert!(matches!(decision.unwrap(), Decision::Admitted(_)));
    }
    for key in 0..1_000 {
        let decision = engine.admit(key, id(10_000 + key), &costing(5, true), START);
        assert!(matches!(decision.unwrap(), Decision::Waiting(_)));
    }
    let (call, look): (Vec<u128>, Vec<u128>) = (0..RUNS)
        .map(|run| {
            let begun = Instant::now();
            assert!(engine.leave(0, id(10_000 + run * 90), START).unwrap());
            let call = begun.elapsed().as_nanos();
            let begun = Instant::now();
            assert!(engine.go_on(0, START).unwrap());
            (call, begun.elapsed().as_nanos())
        })
        .unzip();
    [median(call), median(look)]
}

fn median(mut figures: Vec<u128>) -> u128 {
    figures.sort_unstable();
    figures[figures.len() / 2]
}

fn main() {
    let engine = engine();
    let key = engine
        .authenticate(Digest::from([0; 32]), START_NS)
        .unwrap()
        .unwrap()
        .key;
    let runs = (0..RUNS).map(|number| run(&engine, key, number));
    let (admit, settle): (Vec<u128>, Vec<u128>) = runs.unzip();
    println!(
        "admit over 12 limits:  {} ns (median of {RUNS} runs)",
        median(admit)
    );
    println!(
        "settle over 12 limits: {} ns (median of {RUNS} runs)",
        median(settle)
    );
    for (is_team_full, what) in [(true, "ten limits"), (false, "a limit of their own each")] {
        let [call, look] = beside_waiters(is_team_full);
        println!("calling 1,000 who wait for {what}: {call} ns; looking at all of them: {look} ns");
    }
}
