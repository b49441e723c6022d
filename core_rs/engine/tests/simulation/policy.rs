//! Random policies: trees of limits with mixed windows, modes, holds and steps, and their edits.
use comptroller_engine::Id;
use serde_json::{Value, json};

use crate::random::Random;

pub(crate) const S: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * S;
/// 20 seconds before 2026-01-02T00:00:00Z: every run passes the end of a day.
pub(crate) const START_NS: u64 = 1_767_225_600 * S + DAY - 20 * S;

pub(crate) const MODELS: [&str; 2] = ["large", "small"];
pub(crate) const PROVIDERS: [&str; 2] = ["acme", "beta"];
pub(crate) const FEATURES: [&str; 2] = ["chat", "search"];
pub(crate) const SESSIONS: [&str; 3] = ["s1", "s2", "s3"];
pub(crate) const KEYS: u128 = 3;
/// Number of the policy that all organizations share.
pub(crate) const SHARED: usize = usize::MAX;

/// Whose counter it is; for a template the nil id.
pub(crate) type Target = (&'static str, Id);

pub(crate) fn each(kind: &'static str) -> Target {
    (kind, Id::from(0))
}

pub(crate) fn label(kind: &'static str, name: &str) -> Target {
    (kind, Id::of_label(kind, name))
}

pub(crate) fn id_of(organization: usize, what: u128) -> Id {
    Id::from(1_000 * (organization as u128 + 1) + what)
}

pub(crate) fn team(organization: usize, key: u128) -> Id {
    id_of(organization, 10 + key % 2)
}

pub(crate) fn member(organization: usize, key: u128) -> Id {
    id_of(organization, 20 + key / 2)
}

pub(crate) fn key(organization: usize, key: u128) -> Id {
    id_of(organization, 30 + key)
}

pub(crate) fn pool(organization: usize) -> Id {
    id_of(organization, 40)
}

pub(crate) fn member_in_team(organization: usize, key: u128) -> Target {
    let name = format!("{}/{}", member(organization, key), team(organization, key));
    label("member_in_team", &name)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Window {
    Minute,
    Hour,
    Day,
    Lifetime,
    Now,
}

impl Window {
    pub(crate) fn json(self) -> Value {
        match self {
            Self::Minute => json!({"kind": "rolling", "seconds": 60}),
            Self::Hour => json!({"kind": "rolling", "seconds": 3600}),
            Self::Day => json!({"kind": "calendar", "period": "day", "time_zone": "UTC"}),
            Self::Lifetime => json!({"kind": "lifetime", "starts_at_ns": 0}),
            Self::Now => json!({"kind": "now"}),
        }
    }

    pub(crate) fn is_rolling(self) -> bool {
        matches!(self, Self::Minute | Self::Hour)
    }

    /// Return the number of the period that an instant belongs to.
    pub(crate) fn period(self, wall_ns: u64) -> u64 {
        if self == Self::Day { wall_ns / DAY } else { 0 }
    }

    pub(crate) fn period_starts_at_ns(self, wall_ns: u64) -> u64 {
        self.period(wall_ns) * DAY
    }

    pub(crate) fn bucket_ns(self) -> u64 {
        if self == Self::Minute { S } else { 60 * S }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    Spend,
    Cost,
    Tokens,
    Requests,
    Concurrency,
}

impl Resource {
    pub(crate) fn is_money(self) -> bool {
        matches!(self, Self::Spend | Self::Cost)
    }

    /// Return which of spend, cost and tokens it is.
    pub(crate) fn amount(self) -> Option<usize> {
        match self {
            Self::Spend => Some(0),
            Self::Cost => Some(1),
            Self::Tokens => Some(2),
            Self::Requests | Self::Concurrency => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Spend | Self::Cost => "spend",
            Self::Tokens => "tokens",
            Self::Requests => "requests",
            Self::Concurrency => "concurrency",
        }
    }
}

/// One limit, as the auditor reads it.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    pub(crate) id: Id,
    /// Whose limit it is; `SHARED` for all.
    pub(crate) owner: usize,
    pub(crate) kind: &'static str,
    pub(crate) target: Target,
    pub(crate) model: Option<&'static str>,
    pub(crate) resource: Resource,
    pub(crate) window: Window,
    pub(crate) cap: i64,
    pub(crate) mode: &'static str,
    pub(crate) hold: &'static str,
    pub(crate) steps: Vec<Value>,
}

impl Limit {
    pub(crate) fn json(&self) -> Value {
        let (kind, id) = self.target;
        let scope = if self.is_template() {
            json!({"kind": kind, "each": true})
        } else {
            json!({"kind": kind, "id": id.to_string()})
        };
        let place = self.model.map(|model| json!({"models": [model]}));
        json!({
            "id": self.id.to_string(), "kind": self.kind, "scope": scope, "where": place,
            "resource": self.resource.name(), "window": self.window.json(), "cap": self.cap,
            "mode": self.mode, "hold": self.hold, "steps": self.steps,
        })
    }

    pub(crate) fn is_template(&self) -> bool {
        self.target == each(self.target.0)
    }

    pub(crate) fn is_hard(&self) -> bool {
        self.mode == "hard"
    }

    /// Tell whether it is about the same for one label as a template is for each.
    pub(crate) fn replaces(&self, template: &Self) -> bool {
        !self.is_template()
            && self.target.0 == template.target.0
            && (self.kind, self.model) == (template.kind, template.model)
            && (self.resource, self.window) == (template.resource, template.window)
    }

    /// Tell whether its room can be taken step by step.
    pub(crate) fn follows_streams(&self) -> bool {
        self.is_hard() && self.hold == "expected" && self.resource.amount().is_some()
    }
}

fn money_limit(random: &mut Random, id: Id, target: Target) -> Limit {
    let is_shared = matches!(target.0, "provider" | "installation");
    let is_balance = target.0 == "organization" && random.chance(30);
    let mode = random.pick(&["hard", "hard", "hard", "hard", "soft", "shadow"]);
    let mut steps = Vec::new();
    if random.chance(30) {
        steps.push(json!({"action": "notify", "percent": random.between(10, 60)}));
        steps.push(json!({"action": "notify", "percent": random.between(61, 95)}));
    }
    if random.chance(15) {
        steps.push(json!({"action": "confirm", "percent": 95}));
    }
    if random.chance(15) {
        steps.push(json!({"action": "downgrade", "percent": 96, "model": "small"}));
    }
    if mode == "hard" && random.chance(15) {
        let timeout_s = random.between(1, 60);
        steps.push(json!({"action": "queue", "percent": 100, "timeout_s": timeout_s}));
    }
    if random.chance(10) {
        steps.push(json!({"action": "notify", "percent": 100}));
    }
    Limit {
        id,
        owner: SHARED,
        kind: if is_balance { "balance" } else { "budget" },
        target,
        model: random.chance(20).then(|| random.pick(&MODELS)),
        resource: if is_shared {
            Resource::Cost
        } else {
            Resource::Spend
        },
        window: random.pick(&[Window::Lifetime, Window::Lifetime, Window::Day]),
        cap: cap(random),
        mode: if is_balance { "hard" } else { mode },
        hold: if is_balance || random.chance(20) {
            "bound"
        } else {
            "expected"
        },
        steps,
    }
}

fn cap(random: &mut Random) -> i64 {
    match random.below(20) {
        0 => 0,
        1 => i64::MAX / 4,
        _ => random.length(4_000),
    }
}

fn other_limit(random: &mut Random, id: Id, target: Target) -> Limit {
    let spend = match target.0 {
        "provider" | "installation" => Resource::Cost,
        _ => Resource::Spend,
    };
    let minute_or_hour = random.pick(&[Window::Minute, Window::Hour]);
    let (kind, resource, window, mode, cap) = match random.below(5) {
        0 => ("rate", Resource::Requests, Window::Minute, "hard", 40),
        1 => ("rate", Resource::Tokens, Window::Minute, "metered", 6_000),
        2 => ("quota", Resource::Tokens, Window::Day, "hard", 9_000),
        3 => ("breaker", spend, minute_or_hour, "metered", 8_000),
        _ => (
            "concurrency",
            Resource::Concurrency,
            Window::Now,
            "hard",
            12,
        ),
    };
    Limit {
        id,
        owner: SHARED,
        kind,
        target,
        model: random.chance(10).then(|| random.pick(&MODELS)),
        resource,
        window,
        cap: random.between(cap / 4, cap),
        mode,
        hold: random.pick(&["expected", "bound"]),
        steps: Vec::new(),
    }
}

/// Whose limit may be; `SHARED` for what all organizations have in common.
fn targets(organization: usize) -> Vec<Target> {
    if organization == SHARED {
        let providers = PROVIDERS.iter().map(|name| label("provider", name));
        return providers.chain([label("installation", "")]).collect();
    }
    let mut targets = vec![
        ("organization", id_of(organization, 0)),
        ("organization", id_of(organization, 0)),
        ("pool", pool(organization)),
        each("feature"),
        each("session"),
        label("feature", FEATURES[0]),
        label("session", SESSIONS[0]),
    ];
    for number in 0..KEYS {
        targets.push(("key", key(organization, number)));
        targets.push(("team", team(organization, number)));
        targets.push(("member", member(organization, number)));
        targets.push(member_in_team(organization, number));
    }
    targets
}

pub(crate) fn some_limit(random: &mut Random, organization: usize, number: u128) -> Limit {
    let target = random.pick(&targets(organization));
    let base = if organization == SHARED {
        900_000
    } else {
        100_000 * (organization as u128 + 1)
    };
    let id = Id::from(base + number);
    let limit = if random.chance(70) {
        money_limit(random, id, target)
    } else {
        other_limit(random, id, target)
    };
    Limit {
        owner: organization,
        ..limit
    }
}

/// Change a policy: a cap, what is limited, or nothing at all.
pub(crate) fn edit(
    random: &mut Random,
    limits: &mut Vec<Limit>,
    organization: usize,
    number: u128,
) {
    let at = random.below(limits.len() as u64) as usize;
    match random.below(4) {
        0 if limits.len() > 1 => {
            limits.remove(at);
        }
        1 => limits.push(some_limit(random, organization, number)),
        2 => limits[at].cap = cap(random),
        // A top-up.
        _ => limits[at].cap = limits[at].cap.saturating_add(random.between(0, 5_000)),
    }
}
