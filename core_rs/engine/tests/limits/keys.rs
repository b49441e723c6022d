//! Keys and organizations through the engine: who a secret belongs to, and what its state allows.
use comptroller_engine::decision::WaitsFor;
use comptroller_engine::{Actual, Decision, Digest, Engine, Now, Principal, Refusal};
use serde_json::{Value, json};

use crate::fixture::{
    KEY, MEMBER, OTHER_KEY, TEAM, at, day, fixed, id, limit, reservation, snapshot,
};

fn key(number: u128, digests: &[u8], state: &str) -> Value {
    let secrets: Vec<Value> = digests
        .iter()
        .map(|byte| json!({"digest": format!("{byte:02x}").repeat(32), "expires_at_ns": null}))
        .collect();
    json!({
        "id": id(number).to_string(), "organization_id": id(1).to_string(),
        "team_id": id(TEAM).to_string(), "member_id": id(MEMBER).to_string(), "state": state,
        "expires_at_ns": null, "secrets": secrets,
    })
}

fn load(engine: &Engine, keys: &[Value]) -> Result<usize, &'static str> {
    engine
        .load_keys(json!(keys).to_string().as_bytes())
        .map_err(|error| error.code())
}

fn engine() -> Engine {
    let engine = Engine::new();
    let snapshot = snapshot(&[limit(1, "budget key spend hard", &day(), 100)]).to_string();
    engine
        .load_organization(snapshot.as_bytes(), b"[]", at(0))
        .unwrap();
    load(&engine, &[key(KEY, &[0xaa, 0xbb], "active")]).unwrap();
    engine
}

fn find(engine: &Engine, byte: u8) -> Option<Principal> {
    engine
        .authenticate(Digest::from([byte; 32]), at(0).wall_ns)
        .unwrap()
}

fn ask(engine: &Engine, key: u32, number: u128, now: Now) -> Decision {
    engine
        .admit(key, reservation(number), &fixed(1, 1), now)
        .unwrap()
}

fn refusal(decision: Decision) -> Refusal {
    match decision {
        Decision::Refused(refusal) => *refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn each_secret_of_a_key_names_its_principal() {
    let engine = engine();
    for byte in [0xaa, 0xbb] {
        let found = find(&engine, byte).unwrap();
        assert_eq!((found.key_id, found.organization_id), (id(KEY), id(1)));
        assert_eq!(
            (found.team_id, found.member_id),
            (Some(id(TEAM)), Some(id(MEMBER)))
        );
        assert_eq!(&*found.policy_version, "v1");
    }
    assert!(find(&engine, 0xcc).is_none());
}

#[test]
fn a_decision_tells_for_whom_the_key_acted_when_it_was_made() {
    let engine = engine();
    let mut charged = key(KEY, &[0xaa], "active");
    charged["cost_center_id"] = json!(id(70).to_string());
    load(&engine, std::slice::from_ref(&charged)).unwrap();
    let found = find(&engine, 0xaa).unwrap();
    assert_eq!(found.cost_center_id, Some(id(70)));
    charged["team_id"] = json!(id(20).to_string());
    charged["member_id"] = json!(null);
    charged["cost_center_id"] = json!(id(71).to_string());
    load(&engine, std::slice::from_ref(&charged)).unwrap();
    let Decision::Admitted(admission) = ask(&engine, found.key, 1, at(0)) else {
        panic!("refused")
    };
    let path = admission.path;
    assert_eq!((path.team(), path.member()), (Some(id(20)), None));
    assert_eq!(path.cost_center(), Some(id(71)));
    charged["state"] = json!("disabled");
    charged["cost_center_id"] = json!(null);
    load(&engine, &[charged]).unwrap();
    let refused = refusal(ask(&engine, found.key, 2, at(0)));
    assert_eq!(
        (refused.path.team(), refused.path.cost_center()),
        (Some(id(20)), None)
    );
}

#[test]
fn a_moved_key_counts_where_it_is_and_its_open_requests_where_they_were() {
    let engine = Engine::new();
    let mut limits = [
        limit(1, "budget team spend hard", &day(), 100),
        limit(2, "budget team spend hard", &day(), 100),
    ];
    limits[1]["scope"]["id"] = json!(id(20).to_string());
    let snapshot = snapshot(&limits).to_string();
    engine
        .load_organization(snapshot.as_bytes(), b"[]", at(0))
        .unwrap();
    let mut moving = key(KEY, &[0xaa], "active");
    load(&engine, std::slice::from_ref(&moving)).unwrap();
    let _ = ask(&engine, 0, 1, at(0));
    moving["team_id"] = json!(id(20).to_string());
    load(&engine, &[moving]).unwrap();
    let (_, second) = (ask(&engine, 0, 2, at(0)), ask(&engine, 0, 3, at(0)));
    assert!(matches!(second, Decision::Admitted(one) if one.path.team() == Some(id(20))));
    let done = engine.settle(0, reservation(1), Actual::default(), at(0));
    assert!(done.is_ok());
    let limits = engine.key_limits(0, at(0)).unwrap();
    let states: Vec<Value> = serde_json::from_slice(&limits.states_json).unwrap();
    assert_eq!(states.len(), 1);
    assert_eq!(states[0]["scope"]["id"], json!(id(20).to_string()));
    assert_eq!(states[0]["held"], json!(2));
    let all: Vec<Value> = serde_json::from_slice(&engine.limit_states(0, at(0)).unwrap()).unwrap();
    let held: i64 = all.iter().map(|it| it["held"].as_i64().unwrap()).sum();
    assert_eq!(held, 2);
}

#[test]
fn a_preview_refuses_what_the_keys_state_forbids() {
    let engine = engine();
    let preview = |wall| engine.preview(0, &fixed(0, 0), wall).unwrap();
    assert!(matches!(preview(at(0)), Decision::Admitted(_)));
    load(&engine, &[key(KEY, &[0xaa], "disabled")]).unwrap();
    assert_eq!(&*refusal(preview(at(0))).code, "key_disabled");
    load(&engine, &[key(KEY, &[], "revoked")]).unwrap();
    assert_eq!(&*refusal(preview(at(0))).code, "invalid_api_key");
    assert_eq!(engine.open_reservations(0).unwrap(), 0);
}

#[test]
fn replacing_a_key_forgets_its_old_secrets_and_keeps_its_number() {
    let engine = engine();
    let number = find(&engine, 0xaa).unwrap().key;
    load(&engine, &[key(KEY, &[0xbb, 0xcc], "active")]).unwrap();
    assert!(find(&engine, 0xaa).is_none());
    assert_eq!(find(&engine, 0xbb).unwrap().key, number);
    assert_eq!(find(&engine, 0xcc).unwrap().key, number);
}

#[test]
fn a_revoked_key_is_unknown_at_once_and_a_disabled_one_is_named() {
    let engine = engine();
    let number = find(&engine, 0xaa).unwrap().key;
    load(&engine, &[key(KEY, &[0xaa], "disabled")]).unwrap();
    assert_eq!(find(&engine, 0xaa).unwrap().state.name(), "disabled");
    let refused = refusal(ask(&engine, number, 1, at(0)));
    assert_eq!(
        (&*refused.code, refused.status, refused.kind),
        ("key_disabled", 403, "key")
    );
    load(&engine, &[key(KEY, &[0xaa], "revoked")]).unwrap();
    assert!(find(&engine, 0xaa).is_none());
    let refused = refusal(ask(&engine, number, 1, at(0)));
    assert_eq!((&*refused.code, refused.status), ("invalid_api_key", 401));
    assert_eq!((refused.limit, refused.waits_for), (None, None::<WaitsFor>));
}

#[test]
fn keys_and_secrets_expire_at_their_instant() {
    let engine = engine();
    let mut expiring = key(KEY, &[0xaa, 0xbb], "active");
    expiring["expires_at_ns"] = json!(at(10).wall_ns);
    expiring["secrets"][0]["expires_at_ns"] = json!(at(5).wall_ns);
    load(&engine, &[expiring]).unwrap();
    let is_known = |byte: u8, offset_ns| {
        engine
            .authenticate(Digest::from([byte; 32]), at(offset_ns).wall_ns)
            .unwrap()
            .is_some()
    };
    assert!(is_known(0xaa, 4) && !is_known(0xaa, 5));
    assert!(is_known(0xbb, 9) && !is_known(0xbb, 10));
    assert_eq!(
        &*refusal(ask(&engine, 0, 1, at(10))).code,
        "invalid_api_key"
    );
}

#[test]
fn a_list_with_a_fault_changes_no_key() {
    let engine = engine();
    let other = key(OTHER_KEY, &[0xcc], "active");
    let short = json!({"digest": "aa", "expires_at_ns": null});
    let mut broken = key(6, &[], "active");
    broken["secrets"] = json!([short]);
    assert_eq!(load(&engine, &[other.clone(), broken]), Err("invalid_keys"));
    assert_eq!(
        load(&engine, &[other.clone(), key(6, &[0xcc], "active")]),
        Err("invalid_keys")
    );
    assert_eq!(
        load(&engine, &[other.clone(), key(6, &[0xaa], "active")]),
        Err("invalid_keys")
    );
    assert_eq!(
        load(&engine, &[other.clone(), other.clone()]),
        Err("invalid_keys")
    );
    assert_eq!(
        load(&engine, &[key(6, &[1; 17], "active")]),
        Err("too_many")
    );
    assert!(find(&engine, 0xcc).is_none());
    assert_eq!(load(&engine, &[other]), Ok(1));
}

#[test]
fn what_is_not_there_is_an_error() {
    let engine = Engine::new();
    load(&engine, &[key(KEY, &[0xaa], "active")]).unwrap();
    let digest = Digest::from([0xaa; 32]);
    assert_eq!(
        engine.authenticate(digest, 0).unwrap_err().code(),
        "organization_not_loaded"
    );
    let ask = &fixed(0, 0);
    assert_eq!(
        engine
            .admit(0, reservation(1), ask, at(0))
            .unwrap_err()
            .code(),
        "organization_not_loaded"
    );
    assert_eq!(
        engine
            .admit(1, reservation(1), ask, at(0))
            .unwrap_err()
            .code(),
        "unknown_key"
    );
    let error = engine
        .settle(9, reservation(1), Actual::default(), at(0))
        .unwrap_err();
    assert_eq!(error.code(), "unknown_organization");
    assert_eq!(
        engine.organization_number(id(9)).unwrap_err().code(),
        "unknown_organization"
    );
}
