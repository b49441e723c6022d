//! Prints how truthful holds are in both directions, in virtual time: S14 on the engine alone.
//!
//! Fifty clients send until the first refusal; answers have log-normal lengths, no `max_tokens`; the
//! provider bills what it generated until it noticed an abort, whether anybody reads or not. "used" is what requests that were admitted before the first refusal come to in the end, of the
//! cap; "settled" is what of that was booked at that instant. Shares are means over seeds, overspend
//! is the worst. `cargo run --release -p comptroller-engine --example truth`
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a measurement fails by panicking"
)]
#![expect(
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a simulation with small numbers"
)]
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use comptroller_engine::{
    Actual, Ask, Board, Decision, Effect, Foresight, Id, NS_PER_S, Now, Organization, Path, Policy,
    ReservationId, Streams, Subject,
};
use serde_json::json;

const START_NS: u64 = 1_767_268_800_000_000_000;
const CLIENTS: u32 = 50;
const WARM_REQUESTS: u32 = 100;
const MEDIAN_TOKENS: f64 = 300.0;
/// The mean of a log-normal length with this median and a sigma of 1.
const MEAN_TOKENS: i64 = 495;
const OUTPUT_TOKENS_MAX: i64 = 16_384;
const INPUT_TOKENS: i64 = 30;
const INPUT_NANOS: i64 = 4_500;
const OUTPUT_NANOS: i64 = 600;
const HOLD_WAIT_S: u32 = 60;
/// After so long a provider notices that nobody listens any more.
const NOTICED_NS: u64 = 20_000_000;

fn cost_nanos(tokens: i64) -> i64 {
    INPUT_NANOS + OUTPUT_NANOS * tokens
}

/// Splitmix64: good enough, and the same everywhere.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((word ^ (word >> 31)) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn length(&mut self) -> i64 {
        let radius = (-2.0 * self.unit().ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * self.unit()).cos();
        ((MEDIAN_TOKENS * normal.exp()).round() as i64).clamp(1, OUTPUT_TOKENS_MAX)
    }
}

#[derive(Clone, Copy)]
struct Case {
    /// Tokens a second.
    pace: i64,
    /// In requests of mean length.
    cap: i64,
    step_tokens: i64,
    foresight: Foresight,
}

impl Case {
    fn cap_nanos(&self) -> i64 {
        self.cap * cost_nanos(MEAN_TOKENS)
    }

    /// Return how many tokens come before a provider notices an abort.
    fn tail(&self) -> i64 {
        self.pace * NOTICED_NS as i64 / NS_PER_S as i64 + 1
    }

    fn ask(&self) -> Ask {
        Ask {
            subject: Arc::new(Subject {
                model: "m".into(),
                provider: "p".into(),
                ..Subject::default()
            }),
            input_tokens: INPUT_TOKENS,
            output_tokens_max: OUTPUT_TOKENS_MAX,
            choices: 1,
            calibration: 1,
            bound_nanos: cost_nanos(OUTPUT_TOKENS_MAX),
            input_nanos: INPUT_NANOS,
            output_picos: OUTPUT_NANOS * 1_000,
            step_tokens: self.step_tokens,
            streams: Streams::Stream,
            may_wait: true,
            ..Ask::default()
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Send,
    /// The time of a request in the line is up.
    GiveUp(u32),
    /// A stream has come to what it may relay.
    Ask(u32),
    /// A stream has not been given more and has come to what is held for it.
    Dry(u32),
    End(u32),
    Report(u32),
}

/// A stream; the plans of an earlier turn are void.
struct Stream {
    started_ns: u64,
    length: i64,
    allowed: i64,
    turn: u64,
    is_open: bool,
    is_early: bool,
}

#[derive(Clone, Copy, Default)]
struct Outcome {
    billed_nanos: i64,
    booked_nanos: i64,
    used_nanos: i64,
    settled_nanos: i64,
    admitted: u32,
    cut: u32,
    refused_s: f64,
}

struct World {
    case: Case,
    random: Random,
    organization: Organization,
    shared: Board,
    at_ns: u64,
    /// Instant, order of planning, turn, event.
    queue: BinaryHeap<Reverse<(u64, u64, u64, Event)>>,
    planned: u64,
    streams: BTreeMap<u32, Stream>,
    waits: BTreeMap<u32, u64>,
    sent: u32,
    is_refused: bool,
    outcome: Outcome,
}

fn reservation(number: u32) -> ReservationId {
    ReservationId::from(u128::from(number).to_be_bytes())
}

fn number(id: ReservationId) -> u32 {
    u128::from_be_bytes(<[u8; 16]>::from(id)) as u32
}

fn at(mono_ns: u64) -> Now {
    let wall_ns = START_NS + mono_ns;
    Now { wall_ns, mono_ns }
}

fn policy(cap_nanos: Option<i64>) -> Policy {
    let scope = json!({"kind": "organization", "id": Id::from(1).to_string()});
    let limits: Vec<_> = cap_nanos
        .iter()
        .map(|cap| {
            json!({
                "id": Id::from(9).to_string(), "kind": "budget", "scope": scope, "where": null,
                "resource": "spend", "cap": cap, "mode": "hard", "hold": "expected",
                "window": {"kind": "lifetime", "starts_at_ns": START_NS + NS_PER_S},
            })
        })
        .collect();
    let snapshot = json!({
        "organization_id": Id::from(1).to_string(), "state": "active", "currency": "USD",
        "version": "v", "limits": limits, "rules": [{"scope": scope, "hold_wait_s": HOLD_WAIT_S}],
    });
    Policy::from_json(snapshot.to_string().as_bytes()).unwrap()
}

impl World {
    fn new(case: Case, seed: u64) -> Self {
        let organization = Organization::new(policy(None), &[], at(0)).unwrap();
        let mut world = Self {
            case,
            random: Random(seed.wrapping_mul(0x1234_5678_9abc_def1)),
            organization: organization.foreseeing(case.foresight),
            shared: Board::default(),
            at_ns: 0,
            queue: BinaryHeap::new(),
            planned: 0,
            streams: BTreeMap::new(),
            waits: BTreeMap::new(),
            sent: 0,
            is_refused: false,
            outcome: Outcome::default(),
        };
        for _ in 0..WARM_REQUESTS {
            world.send();
            world.at_ns += 1;
            world.end(world.sent, false);
        }
        world.at_ns = NS_PER_S;
        let limited = policy(Some(case.cap_nanos()));
        let now = at(world.at_ns);
        let (organization, shared) = (&mut world.organization, &mut world.shared);
        organization.load(shared, limited, &[], now).unwrap();
        world.queue.clear();
        world.outcome = Outcome::default();
        world
    }

    fn run(mut self) -> Outcome {
        (0..CLIENTS).for_each(|_| self.plan(self.at_ns, 0, Event::Send));
        while let Some(Reverse((at_ns, _, turn, event))) = self.queue.pop() {
            self.at_ns = at_ns;
            self.take(event, turn);
            self.take_effects();
        }
        assert_eq!(self.organization.open_reservations(), 0);
        assert_eq!(self.organization.waiting_requests(), 0);
        assert!(self.outcome.billed_nanos <= self.outcome.booked_nanos);
        self.outcome
    }

    fn plan(&mut self, at_ns: u64, turn: u64, event: Event) {
        self.planned += 1;
        let at_ns = at_ns.max(self.at_ns);
        self.queue.push(Reverse((at_ns, self.planned, turn, event)));
    }

    /// Return how much of an answer has been generated by an instant.
    fn generated(&self, stream: &Stream, at_ns: u64) -> i64 {
        let passed = i128::from(at_ns - stream.started_ns) * i128::from(self.case.pace);
        ((passed / i128::from(NS_PER_S)) as i64).min(stream.length)
    }

    fn reaches_at_ns(&self, stream: &Stream, tokens: i64) -> u64 {
        let ns = i128::from(tokens) * i128::from(NS_PER_S) / i128::from(self.case.pace);
        stream.started_ns + ns as u64 + 1
    }

    fn take(&mut self, event: Event, turn: u64) {
        match event {
            Event::Send => self.send(),
            Event::GiveUp(id) => self.give_up(id, turn),
            Event::Report(id) => self.report(id),
            Event::Ask(id) | Event::Dry(id) | Event::End(id) => {
                let stream = &self.streams[&id];
                if stream.is_open && stream.turn == turn {
                    match event {
                        Event::Ask(_) => self.extend(id),
                        Event::Dry(_) => self.cut(id),
                        _ => self.end(id, false),
                    }
                }
            }
        }
    }

    fn send(&mut self) {
        if self.is_refused {
            return;
        }
        self.sent += 1;
        let (ask, now) = (self.case.ask(), at(self.at_ns));
        let (name, shared) = (reservation(self.sent), &mut self.shared);
        let path = Path::new(Id::from(4), None, None, Id::from(1));
        let decision = self.organization.admit(shared, name, path, &ask, now);
        self.decided(self.sent, decision.unwrap());
    }

    fn give_up(&mut self, id: u32, turn: u64) {
        if self.waits.get(&id) == Some(&turn) {
            let (name, now) = (reservation(id), at(self.at_ns));
            let decision = self.organization.give_up(&mut self.shared, name, now);
            self.decided(id, decision.unwrap());
        }
    }

    fn decided(&mut self, id: u32, decision: Decision) {
        self.waits.remove(&id);
        match decision {
            Decision::Admitted(admission) => {
                self.outcome.admitted += 1;
                let stream = Stream {
                    started_ns: self.at_ns,
                    length: self.random.length(),
                    allowed: 0,
                    turn: 0,
                    is_open: true,
                    is_early: !self.is_refused,
                };
                self.streams.insert(id, stream);
                self.granted(id, admission.output_tokens_allowed);
                self.plan(self.at_ns + NS_PER_S, 0, Event::Report(id));
            }
            Decision::Waiting(waiting) => {
                self.waits.insert(id, self.planned);
                let until_ns = self.at_ns + waiting.timeout_ns;
                self.plan(until_ns, self.planned, Event::GiveUp(id));
            }
            Decision::Refused(_) if !self.is_refused => {
                self.is_refused = true;
                self.outcome.settled_nanos = self.outcome.booked_nanos;
                self.outcome.refused_s = (self.at_ns - NS_PER_S) as f64 / NS_PER_S as f64;
            }
            Decision::Refused(_) => {}
            Decision::Diverted(_) => panic!("no step asks for anything"),
        }
    }

    fn granted(&mut self, id: u32, allowed: i64) {
        let stream = self.streams.get_mut(&id).unwrap();
        stream.allowed = allowed;
        stream.turn += 1;
        let turn = stream.turn;
        let stream = &self.streams[&id];
        let (tokens, event) = if stream.length <= allowed {
            (stream.length, Event::End(id))
        } else {
            (allowed, Event::Ask(id))
        };
        self.plan(self.reaches_at_ns(stream, tokens), turn, event);
    }

    fn extend(&mut self, id: u32) {
        let stream = &self.streams[&id];
        let wanted = self.generated(stream, self.at_ns) + 1;
        let (name, now) = (reservation(id), at(self.at_ns));
        let shared = &mut self.shared;
        let allowed = self.organization.extend(shared, name, wanted, now);
        if let Some(allowed) = allowed.unwrap() {
            self.granted(id, allowed);
        } else {
            // The provider goes on: the step that is held ahead is what may still be generated.
            let stream = &self.streams[&id];
            let held = stream.allowed + self.case.step_tokens - self.case.tail();
            let (at_ns, turn) = (self.reaches_at_ns(stream, held), stream.turn);
            self.plan(at_ns, turn, Event::Dry(id));
        }
    }

    fn report(&mut self, id: u32) {
        let stream = &self.streams[&id];
        if stream.is_open {
            let tokens = self.generated(stream, self.at_ns);
            let so_far = Actual {
                cost_nanos: cost_nanos(tokens),
                tokens: INPUT_TOKENS + tokens,
                output_tokens: None,
            };
            let (name, now, shared) = (reservation(id), at(self.at_ns), &mut self.shared);
            let done = self.organization.progress(shared, name, so_far, now);
            done.unwrap();
            self.plan(self.at_ns + NS_PER_S, 0, Event::Report(id));
        }
    }

    fn cut(&mut self, id: u32) {
        if self.streams[&id].is_open {
            self.outcome.cut += 1;
            self.end(id, true);
        }
    }

    /// Settle a stream that is whole or aborted, and send the client's next request.
    fn end(&mut self, id: u32, is_cut: bool) {
        let stream = &self.streams[&id];
        let (billed, booked) = if is_cut {
            (
                self.generated(stream, self.at_ns + NOTICED_NS),
                self.generated(stream, self.at_ns) + self.case.tail(),
            )
        } else {
            (stream.length, stream.length)
        };
        let is_early = stream.is_early;
        self.streams.get_mut(&id).unwrap().is_open = false;
        let actual = Actual {
            cost_nanos: cost_nanos(booked),
            tokens: INPUT_TOKENS + booked,
            output_tokens: (!is_cut).then_some(booked),
        };
        let _ = self
            .organization
            .settle(&mut self.shared, reservation(id), actual, at(self.at_ns))
            .unwrap();
        self.outcome.billed_nanos += cost_nanos(billed);
        self.outcome.booked_nanos += cost_nanos(booked);
        self.outcome.used_nanos += if is_early { cost_nanos(booked) } else { 0 };
        self.plan(self.at_ns, 0, Event::Send);
    }

    fn take_effects(&mut self) {
        loop {
            let effects = self.organization.take_effects();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::Admitted(id, admission) => {
                        self.decided(number(id), Decision::Admitted(*admission));
                    }
                    Effect::Ended(id, decision) => self.decided(number(id), *decision),
                    Effect::Granted(id, allowed) => self.granted(number(id), allowed),
                    Effect::Cut(id, _) => self.cut(number(id)),
                    Effect::Breaker(_) => {}
                }
            }
        }
    }
}

fn print(what: &str, case: Case, seeds: u64) {
    let outcomes: Vec<Outcome> = (1..=seeds)
        .map(|seed| World::new(case, seed).run())
        .collect();
    let cap = case.cap_nanos();
    let over = |outcome: &Outcome| (outcome.booked_nanos - cap).max(0);
    let mean =
        |of: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(of).sum::<f64>() / outcomes.len() as f64;
    let share = |of: fn(&Outcome) -> i64| mean(&|it| 100.0 * of(it) as f64 / cap as f64);
    let cuts = mean(&|it| f64::from(it.cut));
    println!(
        "{what:<26} {:>4}/s cap {:>4} step {:>3}: over {} used {:>6.2} % settled {:>6.2} % \
         cut {:>5.2} % ({cuts:.1}) first refusal {:>5.1} s",
        case.pace,
        case.cap,
        case.step_tokens,
        outcomes.iter().map(over).max().unwrap_or(0),
        share(|it| it.used_nanos),
        share(|it| it.settled_nanos),
        100.0 * cuts / mean(&|it| f64::from(it.admitted)),
        mean(&|it| it.refused_s),
    );
}

fn print_all(what: &str, foresight: Foresight, step_tokens: i64) {
    for pace in [50, 500] {
        for (cap, seeds) in [(20, 200), (200, 100), (2_000, 10)] {
            let case = Case {
                pace,
                cap,
                step_tokens,
                foresight,
            };
            print(what, case, seeds);
        }
    }
}

fn main() {
    let usual = Foresight::default();
    print_all("as it is", usual, 64);
    for step_tokens in [16, 32, 128, 256] {
        print_all("other step", usual, step_tokens);
    }
    for expected_percent in [90, 97, 99] {
        let other = Foresight {
            expected_percent,
            ..usual
        };
        print_all(&format!("quantile {expected_percent}"), other, 64);
        let other = Foresight { growth: 1, ..other };
        print_all(
            &format!("quantile {expected_percent}, no growth"),
            other,
            64,
        );
    }
    for growth in [1, 2, 4] {
        print_all(
            &format!("growth {growth}"),
            Foresight { growth, ..usual },
            64,
        );
    }
    for rest_percent in [0, 25, 50] {
        let what = format!("last rest from {rest_percent} %");
        let other = Foresight {
            rest_percent,
            ..usual
        };
        print_all(&what, other, 64);
    }
}
