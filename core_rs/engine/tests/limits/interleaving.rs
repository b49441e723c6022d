//! Threads that admit, settle and roll over at once: no update is lost, no cap is passed.
use comptroller_engine::{Actual, Decision, Engine, Now};
use serde_json::{Value, json};
use shuttle::sync::Arc;
use shuttle::thread;

use crate::fixture::{DAY, KEY, at, day, fixed, id, limit, minute, reservation, snapshot};

const CAP: i64 = 10;

fn engine() -> Engine {
    let engine = Engine::new();
    let limits = [
        limit(1, "budget organization spend hard", &day(), CAP),
        limit(2, "quota organization requests soft", &minute(), 100),
    ];
    engine
        .load_organization(snapshot(&limits).to_string().as_bytes(), b"[]", at(0))
        .unwrap();
    let key = json!([{
        "id": id(KEY).to_string(), "organization_id": id(1).to_string(), "team_id": null,
        "member_id": null, "state": "active", "expires_at_ns": null, "secrets": [],
    }]);
    engine.load_keys(key.to_string().as_bytes()).unwrap();
    engine
}

/// Just before midnight, and at it.
fn instants() -> [Now; 2] {
    [at(DAY / 2 - 1), at(DAY / 2)]
}

/// Ask twice, before and after midnight; settle what was admitted. Return (booked before, after).
fn work(engine: &Engine, thread: u128) -> [i64; 2] {
    let mut booked = [0, 0];
    for (number, now) in instants().into_iter().enumerate() {
        let id = reservation(10 * thread + number as u128);
        if let Decision::Admitted(_) = engine.admit(0, id, &fixed(6, 0), now).unwrap() {
            let actual = Actual {
                cost_nanos: 5,
                ..Actual::default()
            };
            let _ = engine.settle(0, id, actual, instants()[1]).unwrap();
            booked[number] += 5;
        }
    }
    booked
}

fn states(engine: &Engine) -> Vec<Value> {
    serde_json::from_slice(&engine.limit_states(0, instants()[1]).unwrap()).unwrap()
}

fn run() {
    let engine = Arc::new(engine());
    let threads: Vec<_> = (1..=3)
        .map(|number| {
            let engine = Arc::clone(&engine);
            thread::spawn(move || work(&engine, number))
        })
        .collect();
    let booked: Vec<[i64; 2]> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    let total: i64 = booked.iter().flatten().sum();
    let states = states(&engine);
    // An admission before midnight may come after another thread has seen midnight: then it counts
    // in the new period. So the sums of both periods are known, and neither passes its cap.
    let today = states[0]["used"].as_i64().unwrap();
    assert_eq!(states[0]["held"], json!(0));
    assert!(today <= CAP && total - today <= CAP, "{booked:?} {today}");
    assert_eq!(states[1]["used"].as_i64().unwrap() * 5, total);
    assert_eq!(engine.open_reservations(0).unwrap(), 0);
}

#[test]
fn no_update_is_lost_at_a_rollover() {
    let is_full = std::env::var_os("COMPTROLLER_TEST_FULL").is_some();
    shuttle::check_random(run, if is_full { 100_000 } else { 300 });
    shuttle::check_pct(run, if is_full { 100_000 } else { 300 }, 3);
}
