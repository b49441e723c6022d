//! A small organization: one key, its member, its team; short ways to write limits and instants.
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use comptroller_engine::{
    Actual, Admission, Amounts, Ask, Board, Decision, Diversion, Effect, Id, Now, Organization,
    Path, Policy, Refusal, ReservationId, Result, SAMPLES_MIN, Seed, Settlement, Streams, Subject,
    Waiting,
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

/// Amounts of an organization that is charged what it costs.
pub(crate) fn amounts(spend_nanos: i64, tokens: i64) -> Amounts {
    Amounts {
        spend_nanos,
        cost_nanos: spend_nanos,
        tokens,
    }
}

pub(crate) fn spend(nanos: i64) -> Amounts {
    amounts(nanos, 0)
}

/// What a request can ask for: an `Ask`, or amounts that are known exactly.
pub(crate) trait Asks {
    fn asks(self) -> Ask;
}

impl Asks for Ask {
    fn asks(self) -> Ask {
        self
    }
}

impl Asks for Amounts {
    fn asks(self) -> Ask {
        fixed(self.spend_nanos, self.tokens)
    }
}

/// What a request can have used: an `Actual`, or amounts of which nothing is learned.
pub(crate) trait Uses {
    fn used(self) -> Actual;
}

impl Uses for Actual {
    fn used(self) -> Actual {
        self
    }
}

impl Uses for Amounts {
    fn used(self) -> Actual {
        Actual {
            cost_nanos: self.spend_nanos,
            tokens: self.tokens,
            output_tokens: None,
        }
    }
}

pub(crate) fn subject(model: &str, provider: &str) -> Subject {
    Subject {
        model: model.into(),
        tier: None,
        provider: provider.into(),
        feature: None,
    }
}

/// A request whose answer comes in one piece and that costs just this, and may not wait.
pub(crate) fn fixed(cost_nanos: i64, tokens: i64) -> Ask {
    Ask {
        subject: Arc::new(subject("gpt-4o-mini", "openai")),
        input_tokens: tokens,
        bound_nanos: cost_nanos,
        input_nanos: cost_nanos,
        choices: 1,
        calibration: 1,
        ..Ask::default()
    }
}

/// A request that streams, at one nano unit for its input and for each of its output tokens.
pub(crate) fn stream(input: i64, output_tokens_max: i64, step_tokens: i64) -> Ask {
    Ask {
        input_tokens: input,
        output_tokens_max,
        bound_nanos: input + output_tokens_max,
        input_nanos: input,
        output_picos: 1_000,
        step_tokens,
        streams: Streams::Stream,
        ..fixed(0, 0)
    }
}

/// The same request, which may wait for others to end.
pub(crate) fn patient(ask: Ask) -> Ask {
    Ask {
        may_wait: true,
        ..ask
    }
}

/// Amounts that are known exactly, of a model of a provider.
pub(crate) fn placed(amounts: Amounts, model: &str, provider: &str) -> Ask {
    Ask {
        subject: Arc::new(subject(model, provider)),
        ..amounts.asks()
    }
}

/// The same request for a feature.
pub(crate) fn featured(feature: &str, ask: Ask) -> Ask {
    let subject = Subject {
        feature: Some(feature.into()),
        ..Subject::clone(&ask.subject)
    };
    Ask {
        subject: Arc::new(subject),
        ..ask
    }
}

/// The same request for another model.
pub(crate) fn by(model: &str, ask: Ask) -> Ask {
    let subject = Subject {
        model: model.into(),
        ..Subject::clone(&ask.subject)
    };
    Ask {
        subject: Arc::new(subject),
        ..ask
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

/// The same JSON with one member set.
pub(crate) fn with(mut json: Value, name: &str, value: Value) -> Value {
    json[name] = value;
    json
}

/// A limit that holds what is expected.
pub(crate) fn expecting(limit: Value) -> Value {
    with(limit, "hold", json!("expected"))
}

/// The scope of a label of a dynamic kind.
pub(crate) fn label(kind: &str, label: &str) -> Value {
    json!({"kind": kind, "id": Id::of_label(kind, label).to_string()})
}

/// The scope of each label of a dynamic kind.
pub(crate) fn each(kind: &str) -> Value {
    json!({"kind": kind, "each": true})
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
        "version": "v1", "limits": limits, "rules": [],
    })
}

pub(crate) fn policy(snapshot: &Value) -> Policy {
    Policy::from_json(snapshot.to_string().as_bytes()).unwrap()
}

pub(crate) fn seeds(list: &Value) -> Vec<Seed> {
    Seed::list_from_json(list.to_string().as_bytes()).unwrap()
}

/// An organization, and the board of the limits that it shares with others.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) own: Organization,
    pub(crate) shared: Board,
}

impl Deref for House {
    type Target = Organization;

    fn deref(&self) -> &Organization {
        &self.own
    }
}

impl DerefMut for House {
    fn deref_mut(&mut self) -> &mut Organization {
        &mut self.own
    }
}

impl House {
    pub(crate) fn new(policy: Policy, seeds: &[Seed], now: Now) -> Result<Self> {
        Ok(Self {
            own: Organization::new(policy, seeds, now)?,
            shared: Board::default(),
        })
    }

    pub(crate) fn load(&mut self, policy: Policy, seeds: &[Seed], now: Now) -> Result<()> {
        self.own.load(&mut self.shared, policy, seeds, now)
    }

    pub(crate) fn admit(
        &mut self,
        id: ReservationId,
        path: Path,
        ask: impl Asks,
        now: Now,
    ) -> Result<Decision> {
        self.own.admit(&mut self.shared, id, path, &ask.asks(), now)
    }

    pub(crate) fn preview(&mut self, path: Path, ask: impl Asks, now: Now) -> Result<Decision> {
        self.own.preview(&mut self.shared, path, &ask.asks(), now)
    }

    pub(crate) fn extend(
        &mut self,
        id: ReservationId,
        wanted: i64,
        now: Now,
    ) -> Result<Option<i64>> {
        self.own.extend(&mut self.shared, id, wanted, now)
    }

    pub(crate) fn progress(&mut self, id: ReservationId, used: impl Uses, now: Now) -> Result<()> {
        self.own.progress(&mut self.shared, id, used.used(), now)
    }

    pub(crate) fn settle(
        &mut self,
        id: ReservationId,
        used: impl Uses,
        now: Now,
    ) -> Result<Settlement> {
        self.own.settle(&mut self.shared, id, used.used(), now)
    }

    pub(crate) fn release(&mut self, id: ReservationId, now: Now) -> Result<bool> {
        self.own.release(&mut self.shared, id, now)
    }

    pub(crate) fn give_up(&mut self, id: ReservationId, now: Now) -> Result<Decision> {
        self.own.give_up(&mut self.shared, id, now)
    }

    pub(crate) fn leave(&mut self, id: ReservationId, now: Now) -> bool {
        self.own.leave(&mut self.shared, id, now)
    }

    pub(crate) fn go_on(&mut self, now: Now) {
        self.own.go_on(&mut self.shared, now).unwrap();
    }

    /// All that is known, but for what time it is.
    pub(crate) fn trace(&self) -> String {
        let all = format!("{self:?}");
        let mut parts = all.split("clock: Now { ");
        let first = parts.next().unwrap().to_owned();
        parts.fold(first, |trace, part| trace + part.split_once('}').unwrap().1)
    }

    /// What was told since this was asked last, in short words.
    pub(crate) fn told(&mut self) -> Vec<String> {
        self.own.take_effects().iter().map(words).collect()
    }
}

/// "admitted 3", "refused 3 code", "granted 3 40", "cut 3", "opened 1001", …
fn words(effect: &Effect) -> String {
    let number = |id: ReservationId| u128::from_be_bytes(id.into());
    match effect {
        Effect::Admitted(id, _) => format!("admitted {}", number(*id)),
        Effect::Ended(id, decision) => match &**decision {
            Decision::Refused(refusal) => format!("refused {} {}", number(*id), refusal.code),
            Decision::Diverted(diversion) => {
                format!("diverted {} {:?}", number(*id), diversion.action)
            }
            other => format!("{other:?}"),
        },
        Effect::Granted(id, tokens) => format!("granted {} {tokens}", number(*id)),
        Effect::Cut(id, _) => format!("cut {}", number(*id)),
        Effect::Breaker(event) => {
            let word = if event.is_open { "opened" } else { "closed" };
            format!("{word} {}", event.limit_id)
        }
    }
}

/// An organization under these limits, made at offset 0.
pub(crate) fn organization(limits: &[Value]) -> House {
    House::new(policy(&snapshot(limits)), &[], at(0)).unwrap()
}

pub(crate) fn reload(organization: &mut House, limits: &[Value], now: Now) {
    organization
        .load(policy(&snapshot(limits)), &[], now)
        .unwrap();
}

pub(crate) fn ask(organization: &mut House, number: u128, ask: impl Asks, now: Now) -> Decision {
    organization
        .admit(reservation(number), path(), ask, now)
        .unwrap()
}

pub(crate) fn admitted(
    organization: &mut House,
    number: u128,
    asked: impl Asks,
    now: Now,
) -> Admission {
    match ask(organization, number, asked, now) {
        Decision::Admitted(admission) => admission,
        other => panic!("not admitted: {other:?}"),
    }
}

/// Refused, and nothing has moved but the clock.
pub(crate) fn refused(
    organization: &mut House,
    number: u128,
    asked: impl Asks,
    now: Now,
) -> Refusal {
    let asked = asked.asks();
    let Decision::Refused(foretold) = organization.preview(path(), asked.clone(), now).unwrap()
    else {
        panic!("not refused")
    };
    let before = organization.trace();
    let Decision::Refused(refusal) = ask(organization, number, asked, now) else {
        panic!("not refused")
    };
    assert!(before == organization.trace(), "a refusal leaves no trace");
    assert_eq!(format!("{foretold:?}"), format!("{refusal:?}"));
    *refusal
}

pub(crate) fn waiting(
    organization: &mut House,
    number: u128,
    asked: impl Asks,
    now: Now,
) -> Waiting {
    match ask(organization, number, asked, now) {
        Decision::Waiting(waiting) => *waiting,
        other => panic!("does not wait: {other:?}"),
    }
}

pub(crate) fn diverted(
    organization: &mut House,
    number: u128,
    asked: impl Asks,
    now: Now,
) -> Diversion {
    match ask(organization, number, asked, now) {
        Decision::Diverted(diversion) => *diversion,
        other => panic!("not diverted: {other:?}"),
    }
}

/// Let an organization learn that the key's answers have so many tokens, without cost.
pub(crate) fn taught(organization: &mut House, output_tokens: i64) {
    taught_lengths(organization, &[output_tokens; SAMPLES_MIN]);
}

/// Let an organization learn that the key's answers have these lengths, without cost.
pub(crate) fn taught_lengths(organization: &mut House, lengths: &[i64]) {
    for (number, output_tokens) in (1_000_000..).zip(lengths) {
        let _ = admitted(organization, number, fixed(0, 0), at(0));
        let learned = Actual {
            output_tokens: Some(*output_tokens),
            ..Actual::default()
        };
        let _ = organization
            .settle(reservation(number), learned, at(0))
            .unwrap();
    }
}

/// State of every limit, in the order of their ids.
pub(crate) fn states(organization: &mut House, now: Now) -> Vec<Value> {
    let mut states: Vec<Value> =
        serde_json::from_slice(&organization.limit_states(now).unwrap()).unwrap();
    states.sort_by_key(|state| state["limit_id"].as_str().unwrap().to_owned());
    states
}

/// Used and held of every limit, in the order of their ids.
pub(crate) fn figures(organization: &mut House, now: Now) -> Vec<(i64, i64)> {
    let figure = |state: &Value, name: &str| state[name].as_i64().unwrap();
    states(organization, now)
        .iter()
        .map(|state| (figure(state, "used"), figure(state, "held")))
        .collect()
}

/// Used and held of the limit with the lowest id.
pub(crate) fn first(organization: &mut House, now: Now) -> (i64, i64) {
    let states = states(organization, now);
    (
        states[0]["used"].as_i64().unwrap(),
        states[0]["held"].as_i64().unwrap(),
    )
}
