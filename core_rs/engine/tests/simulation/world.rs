//! Many requests of some organizations on one engine, in virtual time; the proxy plays by the book.
mod playing;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use comptroller_engine::{Decision, Digest, Effect, Engine, Id, Now, ReservationId};
use serde_json::{Value, json};

use crate::auditor::{Auditor, How};
use crate::book::Terms;
use crate::ledger::answered;
use crate::policy::{
    KEYS, Limit, S, SHARED, START_NS, edit, id_of, key, member, pool, some_limit, team,
};
use crate::random::Random;
use crate::request::{Request, State};
use crate::seen::Seen;

/// After so long without anything else every waiter must have been heard.
const PATIENCE_NS: u64 = 400 * S;
/// A hundred times the events of a usual run.
const EVENTS_MAX: u64 = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    Arrive(u64),
    GiveUp(u64),
    Leave(u64),
    /// A stream has come to its end or to what it may relay.
    Wake(u64),
    /// A stream has come to the end of what is held for it.
    Dry(u64),
    Aborted(u64),
    Report(u64),
    Edit,
    Book,
    Tick,
}

/// What went wrong, and what led to it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) fault: String,
    pub(crate) trace: Vec<String>,
}

pub(crate) struct World {
    seed: u64,
    random: Random,
    engine: Engine,
    auditor: Auditor,
    at_ns: u64,
    queue: BinaryHeap<Reverse<(u64, u64, u64, Event)>>,
    planned: u64,
    last_ns: u64,
    organizations: usize,
    terms: Vec<Terms>,
    policies: BTreeMap<usize, Vec<Limit>>,
    requests: BTreeMap<u64, Request>,
    settled: Vec<u64>,
    seen: Seen,
    trace: Vec<String>,
    edits: u128,
}

fn reservation(number: u64) -> ReservationId {
    ReservationId::from(u128::from(number).to_be_bytes())
}

fn number(id: ReservationId) -> u64 {
    u128::from_be_bytes(<[u8; 16]>::from(id)) as u64
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let organizations = random.pick(&[1, 1, 2, 3]);
        let terms = |random: &mut Random| {
            let is_plain = random.chance(50);
            Terms {
                picos: if is_plain {
                    1_000_000_000_000
                } else {
                    917_333_333_333
                },
                markup_ppm: if is_plain { 0 } else { 125_001 },
                fee_nanos: if is_plain { 0 } else { 3 },
            }
        };
        let terms = (0..organizations).map(|_| terms(&mut random)).collect();
        Self {
            seed,
            random,
            engine: Engine::new(),
            auditor: Auditor::default(),
            at_ns: 0,
            queue: BinaryHeap::new(),
            planned: 0,
            last_ns: 0,
            organizations,
            terms,
            policies: BTreeMap::new(),
            requests: BTreeMap::new(),
            settled: vec![0; organizations],
            seen: Seen::default(),
            trace: Vec::new(),
            edits: 0,
        }
    }

    /// Run to the end; or to the first thing that cannot be.
    pub(crate) fn run(mut self) -> Result<Seen, Failure> {
        self.begin();
        while let Some(Reverse((at_ns, _, turn, event))) = self.queue.pop() {
            self.at_ns = at_ns;
            self.auditor.now = self.now();
            self.auditor.tick += 1;
            self.seen.events += 1;
            self.take(event, turn);
            self.take_effects();
            if self.seen.events % 4 == 0 {
                self.check_states();
            }
            let events = self.seen.events;
            self.auditor
                .require(events < EVENTS_MAX, || "the run never ends".to_owned());
            if !self.auditor.faults.is_empty() {
                return Err(self.failure());
            }
        }
        self.check_end();
        if self.auditor.faults.is_empty() {
            Ok(self.seen)
        } else {
            Err(self.failure())
        }
    }

    fn failure(self) -> Failure {
        Failure {
            seed: self.seed,
            fault: self.auditor.faults.join("\n"),
            trace: self.trace,
        }
    }

    fn now(&self) -> Now {
        Now {
            wall_ns: START_NS + self.at_ns,
            mono_ns: self.at_ns,
        }
    }

    fn note(&mut self, line: &str) {
        let at = self.at_ns / 1_000_000;
        self.trace
            .push(format!("{:>4}.{:03} {line}", at / 1_000, at % 1_000));
    }

    fn begin(&mut self) {
        for organization in (0..self.organizations).chain([SHARED]) {
            let count = if organization == SHARED {
                self.random.below(3)
            } else {
                1 + self.random.below(9)
            };
            let limits: Vec<Limit> = (0..count)
                .map(|number| some_limit(&mut self.random, organization, u128::from(number)))
                .collect();
            let wait_s = self.random.pick(&[0, 5, 30, 30, 60]);
            self.auditor.hold_wait_s.insert(organization, wait_s);
            self.policies.insert(organization, limits);
            self.load(organization);
        }
        self.load_keys();
        let count = 20 + self.random.below(60);
        let crowd_ns = self.random.pick(&[1, 10, 40]) * S;
        for number in 1..=count {
            let organization = self.random.below(self.organizations as u64) as usize;
            let terms = self.terms[organization];
            let request = Request::some(&mut self.random, number, organization, terms);
            self.requests.insert(number, request);
            let at_ns = self.random.below(crowd_ns);
            self.plan(at_ns, 0, Event::Arrive(number));
        }
        for event in [
            Event::Edit,
            Event::Edit,
            Event::Book,
            Event::Book,
            Event::Tick,
        ] {
            let at_ns = self.random.below(crowd_ns + 10 * S);
            self.plan(at_ns, 0, event);
        }
    }

    fn load_keys(&mut self) {
        let mut keys: Vec<Value> = Vec::new();
        for organization in 0..self.organizations {
            for number in 0..KEYS {
                let pools: Vec<String> = (number == 0)
                    .then(|| pool(organization).to_string())
                    .into_iter()
                    .collect();
                keys.push(json!({
                    "id": key(organization, number).to_string(),
                    "organization_id": id_of(organization, 0).to_string(),
                    "team_id": team(organization, number).to_string(),
                    "member_id": member(organization, number).to_string(),
                    "pools": pools, "state": "active", "expires_at_ns": null,
                    "secrets": [{"digest": format!("{:064x}", keys.len()), "expires_at_ns": null}],
                }));
            }
        }
        self.engine
            .load_keys(json!(keys).to_string().as_bytes())
            .unwrap();
        let mut digest = [0; 32];
        digest[31] = 1;
        let found = self
            .engine
            .authenticate(Digest::from(digest), START_NS)
            .unwrap();
        assert_eq!(found.unwrap().key, 1);
    }

    /// Put the policy of an organization, or that of all, in force.
    fn load(&mut self, organization: usize) {
        let limits = self.policies[&organization].clone();
        let listed: Vec<Value> = limits.iter().map(Limit::json).collect();
        let now = self.now();
        if organization == SHARED {
            let snapshot = json!({"version": "v", "limits": listed}).to_string();
            let missing = self
                .engine
                .missing_shared(snapshot.as_bytes(), now)
                .unwrap();
            let seeds = answered(&self.auditor.book, &missing, None);
            self.engine
                .load_shared(snapshot.as_bytes(), &seeds, now)
                .unwrap();
        } else {
            let terms = self.terms[organization];
            let id = id_of(organization, 0).to_string();
            let scope = json!({"kind": "organization", "id": id});
            let wait_s = self.auditor.hold_wait_s[&organization];
            let snapshot = json!({
                "organization_id": id, "state": "active", "currency": "EUR", "version": "v",
                "charging": {
                    "rates": [{"from_ns": 0, "picos": terms.picos}],
                    "markup_ppm": terms.markup_ppm, "fee_nanos": terms.fee_nanos,
                },
                "limits": listed, "rules": [{"scope": scope, "hold_wait_s": wait_s}],
            })
            .to_string();
            let missing = self
                .engine
                .missing_counters(snapshot.as_bytes(), now)
                .unwrap();
            let seeds = answered(&self.auditor.book, &missing, Some(organization));
            let loaded = self
                .engine
                .load_organization(snapshot.as_bytes(), &seeds, now);
            assert_eq!(loaded.unwrap(), organization as u32);
        }
        self.auditor.enforce(organization, &limits);
    }

    fn edit(&mut self) {
        let with_shared = self.organizations as u64 + 1;
        let mut organization = self.random.below(with_shared) as usize;
        if organization == self.organizations {
            organization = SHARED;
        }
        let mut limits = self.policies[&organization].clone();
        if !limits.is_empty() {
            self.edits += 1;
            self.seen.edits += 1;
            edit(
                &mut self.random,
                &mut limits,
                organization,
                1_000 + self.edits,
            );
            self.note(&format!("edit {organization}: {limits:?}"));
            self.policies.insert(organization, limits);
            self.load(organization);
            if organization == SHARED {
                // Who waits for a limit of all learns of its change when time is next told.
                self.go_on();
            }
        }
    }

    /// Have the ledger catch up with a part of what was settled.
    fn book(&mut self) {
        let organization = self.random.below(self.organizations as u64) as usize;
        let through = self.random.below(self.settled[organization] + 1);
        self.engine
            .booked_through(organization as u32, through)
            .unwrap();
        for entry in self.auditor.book.entries.values_mut() {
            let is_past = entry.number > 0 && entry.number <= through;
            entry.is_booked |= entry.organization == organization && is_past;
        }
    }

    /// Have time pass on the engine, as long as there is anything to wait for.
    fn tick(&mut self) {
        self.go_on();
        let stalled = self.auditor.stalled();
        self.auditor.require(stalled.is_none(), || {
            format!("stall: {stalled:?} waits for nobody")
        });
        let is_over = self
            .requests
            .values()
            .all(|request| request.state == State::Done);
        if !is_over && self.at_ns < self.last_ns + PATIENCE_NS {
            self.plan_tick();
        }
    }

    fn go_on(&mut self) {
        for organization in 0..self.organizations {
            self.engine.go_on(organization as u32, self.now()).unwrap();
            self.take_effects();
        }
    }

    fn plan_tick(&mut self) {
        self.planned += 1;
        self.queue
            .push(Reverse((self.at_ns + S, self.planned, 0, Event::Tick)));
    }

    pub(crate) fn plan(&mut self, at_ns: u64, turn: u64, event: Event) {
        self.planned += 1;
        let at_ns = at_ns.max(self.at_ns);
        self.last_ns = self.last_ns.max(at_ns);
        self.queue.push(Reverse((at_ns, self.planned, turn, event)));
    }

    /// Take all that has happened to others: first into the book, then into the proxy's plans.
    fn take_effects(&mut self) {
        for organization in 0..self.organizations {
            for effect in self.engine.take_effects(organization as u32).unwrap() {
                self.note(&format!("effect {}", brief(&effect)));
                self.take_effect(effect);
            }
        }
    }

    fn take_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Admitted(id, admission) => {
                self.decided(number(id), Decision::Admitted(*admission), How::Called);
            }
            Effect::Ended(id, decision) => self.decided(number(id), *decision, How::Called),
            Effect::Granted(id, allowed) => {
                if self.auditor.told_stream(number(id), true) {
                    self.granted(number(id), allowed);
                }
            }
            Effect::Cut(id, refusal) => {
                self.seen.cut += 1;
                self.auditor.cut(number(id), &refusal);
                self.abort(number(id));
            }
            Effect::Breaker(event) => {
                self.seen.breakers += 1;
                let scope = (event.scope.kind.name(), event.scope.id);
                self.auditor.breaker(event.limit_id, scope, event.is_open);
            }
        }
    }

    /// Compare what the engine says of every limit with the book.
    fn check_states(&mut self) {
        for organization in (0..self.organizations).chain([SHARED]) {
            let states = self.states(organization);
            let states: Vec<Value> = serde_json::from_slice(&states).unwrap();
            for state in &states {
                self.check_state(organization, state);
            }
        }
    }

    fn states(&self, organization: usize) -> Vec<u8> {
        if organization == SHARED {
            self.engine.shared_states(self.now()).unwrap()
        } else {
            self.engine
                .limit_states(organization as u32, self.now())
                .unwrap()
        }
    }

    fn check_state(&mut self, organization: usize, state: &Value) {
        let Some(id) = state["scope"]["id"].as_str().and_then(Id::parse) else {
            return;
        };
        let limits = &self.auditor.limits[&organization];
        let limit = limits
            .iter()
            .find(|limit| state["limit_id"] == limit.id.to_string());
        let Some(limit) = limit.cloned() else {
            self.auditor
                .faults
                .push(format!("a limit is gone: {state}"));
            return;
        };
        let kind = state["scope"]["kind"].as_str().unwrap();
        let target = (limit.target.0, id);
        let measure = self.auditor.measure(&(limit.clone(), target));
        let told = ["used", "settled", "held"].map(|name| state[name].as_i64().unwrap());
        let truth = [measure.used, measure.settled, measure.held(&limit)];
        self.auditor
            .require(told == truth && kind == limit.target.0, || {
                format!("I3: {told:?} is told, {truth:?} is in the book, for {state}")
            });
        let is_enough = !limit.window.is_rolling() || told[0] >= measure.exact;
        self.auditor
            .require(is_enough, || format!("I8: {state} is below {measure:?}"));
        self.auditor.check_caps(&limit, target, measure);
    }

    fn check_end(&mut self) {
        let mut left = self
            .requests
            .iter()
            .filter(|(_, it)| it.state != State::Done);
        if let Some((number, request)) = left.next() {
            let fault = format!(
                "{number} never ends: {:?}, pauses: {}",
                request.state, request.pauses
            );
            self.auditor.faults.push(fault);
        }
        for organization in 0..self.organizations {
            let open = self.engine.open_reservations(organization as u32).unwrap();
            self.auditor
                .require(open == 0, || format!("I4: {open} reservations are open"));
        }
        self.check_states();
    }
}

fn brief(effect: &Effect) -> String {
    match effect {
        Effect::Admitted(id, admission) => {
            format!("admitted {} {:?}", number(*id), admission.held)
        }
        Effect::Ended(id, _) => format!("ended {}", number(*id)),
        Effect::Granted(id, allowed) => format!("granted {} {allowed}", number(*id)),
        Effect::Cut(id, refusal) => format!("cut {} {:?}", number(*id), refusal.limit),
        Effect::Breaker(event) => format!("{event:?}"),
    }
}
