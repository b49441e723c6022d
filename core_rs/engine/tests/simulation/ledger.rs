//! Answers for the ledger: what was booked on counters that the engine does not keep.
use std::collections::BTreeMap;

use comptroller_engine::Id;
use serde_json::{Value, json};

use crate::book::{Book, End, Entry};
use crate::policy::{FEATURES, SESSIONS, label};

/// Fill in the sums that a list of missing counters asks for.
pub(crate) fn answered(book: &Book, missing: &[u8], organization: Option<usize>) -> Vec<u8> {
    let mut specs: Vec<Value> = serde_json::from_slice(missing).unwrap();
    for spec in &mut specs {
        answer(book, spec, organization);
    }
    serde_json::to_vec(&specs).unwrap()
}

fn answer(book: &Book, spec: &mut Value, organization: Option<usize>) {
    let kind = spec["scope"]["kind"].as_str().unwrap().to_owned();
    let booked: Vec<&Entry> = book
        .entries
        .values()
        .filter(|entry| entry.is_booked && organization.is_none_or(|own| own == entry.organization))
        .filter(|entry| is_at(entry, &spec["where"]))
        .collect();
    if spec["scope"]["each"] == true {
        let names: &[&str] = if kind == "feature" {
            &FEATURES
        } else {
            &SESSIONS
        };
        let of = |name: &&str| {
            let id = label(
                if kind == "feature" {
                    "feature"
                } else {
                    "session"
                },
                name,
            )
            .1;
            json!({"label": name, "entries": entries(&booked, spec, &kind, id)})
        };
        let labels: Vec<Value> = names.iter().map(of).collect();
        spec["labels"] = json!(labels);
        spec["rest"] = json!([]);
    } else {
        let id = Id::parse(spec["scope"]["id"].as_str().unwrap()).unwrap();
        spec["entries"] = entries(&booked, spec, &kind, id);
    }
}

fn is_at(entry: &Entry, place: &Value) -> bool {
    let models = place["models"].as_array();
    models.is_none_or(|models| models.iter().any(|model| *model == entry.model))
}

fn entries(booked: &[&Entry], spec: &Value, kind: &str, id: Id) -> Value {
    let (resource, is_shared) = (
        &spec["resource"],
        matches!(kind, "provider" | "installation"),
    );
    let is_rolling = spec["window"]["kind"] == "rolling";
    let mut sums: BTreeMap<u64, i64> = BTreeMap::new();
    for entry in booked {
        let has = entry.scopes.get(kind).is_some_and(|ids| ids.contains(&id));
        let End::Settled { at, actual, .. } = entry.end else {
            continue;
        };
        let (then, amount) = match resource.as_str().unwrap() {
            "requests" => (entry.admitted, 1),
            "tokens" => (at, actual[2]),
            _ => (at, actual[usize::from(is_shared)]),
        };
        let then = if is_rolling { then } else { entry.admitted };
        let wall_ns = then.wall_ns;
        let starts = spec["starts_at_ns"].as_u64().unwrap();
        if has && wall_ns >= starts && wall_ns < spec["ends_at_ns"].as_u64().unwrap() {
            *sums.entry(wall_ns).or_default() += amount;
        }
    }
    json!(sums.into_iter().collect::<Vec<_>>())
}
