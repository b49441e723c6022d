//! Holds, extensions, cuts and the line under random mixes of limits, against the auditor.
use comptroller_engine::{Actual, Decision, Effect, Id, ReservationId, WaitsFor};
use proptest::prelude::*;

use crate::auditor::{Auditor, LEARNED, Request, State, Wish, grow, limits};
use crate::fixture::{
    DAY, House, S, at, organization, reload, reservation, states, taught_lengths,
};

#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(u64),
    Ask(Wish),
    /// A stream goes on until it has relayed so many tokens more, or ends.
    Stream {
        which: usize,
        tokens: i64,
    },
    Settle {
        which: usize,
        overrun: i64,
    },
    Release {
        which: usize,
    },
    GiveUp {
        which: usize,
    },
    Leave {
        which: usize,
    },
    Raise {
        which: usize,
        more: i64,
    },
}

struct World {
    real: House,
    audit: Auditor,
    offset_ns: u64,
    caps: [i64; 8],
    mask: u16,
    /// Streams that have relayed so many tokens.
    relayed: Vec<i64>,
    admissions: usize,
    /// When each asked.
    asked: Vec<u64>,
}

fn number(id: ReservationId) -> usize {
    u128::from_be_bytes(id.into()) as usize
}

fn name(which: usize) -> ReservationId {
    reservation(which as u128)
}

impl World {
    fn new(mask: u16, caps: [i64; 8]) -> Self {
        let mut real = organization(&[]);
        taught_lengths(&mut real, &LEARNED);
        real.booked_through(5).unwrap();
        let list = limits(mask, &caps);
        reload(&mut real, &list, at(0));
        Self {
            real,
            audit: Auditor {
                limits: list,
                requests: Vec::new(),
                now: at(0),
            },
            offset_ns: 0,
            caps,
            mask,
            relayed: Vec::new(),
            admissions: 0,
            asked: Vec::new(),
        }
    }

    fn find(&self, which: usize, is_meant: impl Fn(&State) -> bool) -> Option<usize> {
        let all = self.audit.requests.iter().enumerate();
        let found: Vec<usize> = all
            .filter(|(_, it)| is_meant(&it.state))
            .map(|(at, _)| at)
            .collect();
        found.get(which % found.len().max(1)).copied()
    }

    fn find_open(&self, which: usize) -> Option<usize> {
        self.find(which, |state| matches!(state, State::Open { .. }))
    }

    fn find_waiting(&self, which: usize) -> Option<usize> {
        self.find(which, |state| matches!(state, State::Waiting(_)))
    }

    fn is_crowded(&self) -> bool {
        self.audit.requests.iter().any(|it| match it.state {
            State::Waiting(_) => true,
            State::Open { wanted, .. } => wanted.is_some(),
            _ => false,
        })
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Wait(ns) => {
                self.offset_ns += ns;
                self.audit.now = at(self.offset_ns);
                self.forget_failures();
                self.real.go_on(self.audit.now);
            }
            Step::Ask(wish) => self.ask(wish),
            Step::Stream { which, tokens } => self.stream(which, tokens),
            Step::Settle { which, overrun } => self.settle(which, overrun),
            Step::Release { which } => {
                if let Some(which) = self.find_open(which) {
                    assert_eq!(self.real.release(name(which), self.audit.now), Ok(true));
                    self.audit.requests[which].state = State::Gone;
                }
            }
            Step::GiveUp { which } => self.give_up(which),
            Step::Leave { which } => {
                if let Some(which) = self.find_waiting(which) {
                    self.audit.requests[which].state = State::Gone;
                    assert!(self.real.leave(name(which), self.audit.now));
                }
            }
            Step::Raise { which, more } => {
                self.caps[which % 8] += more;
                self.audit.limits = limits(self.mask, &self.caps);
                self.forget_failures();
                reload(&mut self.real, &self.audit.limits, self.audit.now);
            }
        }
        self.hear();
        self.check();
    }

    /// Note for whom each limit has room now: it has not failed on it ever since it came.
    fn forget_failures(&mut self) {
        for at in 0..self.audit.requests.len() {
            let failing = self.audit.failing(&self.audit.requests[at].wish);
            if let State::Waiting(since) = &mut self.audit.requests[at].state {
                since.retain(|limit| failing.contains(limit));
            }
        }
    }

    fn ask(&mut self, wish: Wish) {
        let (id, now) = (name(self.audit.requests.len()), self.audit.now);
        let failing = self.audit.failing(&wish);
        let may = failing.is_empty();
        let foretold = self.real.preview(wish.path(), wish.ask(), now).unwrap();
        let before = self.real.trace();
        let decision = self.real.admit(id, wish.path(), wish.ask(), now).unwrap();
        assert_eq!(format!("{foretold:?}"), format!("{decision:?}"));
        let is_crowded = self.is_crowded();
        let state = match decision {
            Decision::Admitted(admission) => {
                assert!(may);
                self.check_order(&wish, self.audit.requests.len());
                let (allowed, held) = self.audit.plan(&wish);
                assert_eq!(admission.held.spend_nanos, held);
                assert_eq!(admission.output_tokens_allowed, allowed);
                self.opened(allowed, held)
            }
            Decision::Waiting(_) => {
                assert!(wish.is_patient && (!may || is_crowded));
                State::Waiting(failing)
            }
            Decision::Refused(refusal) => {
                assert!(before == self.real.trace(), "a refusal leaves no trace");
                assert!(!may || is_crowded);
                let is_open = refusal.waits_for == Some(WaitsFor::OpenRequests);
                assert!(!(wish.is_patient && is_open), "it could have waited");
                State::Gone
            }
            Decision::Diverted(_) => panic!("nothing diverts"),
        };
        self.audit.requests.push(Request { wish, state });
        self.relayed.push(0);
        self.asked.push(self.offset_ns);
        self.forget_failures();
    }

    fn opened(&mut self, allowed: i64, held: i64) -> State {
        self.admissions += 1;
        State::Open {
            seq: self.admissions,
            admitted: self.audit.now,
            firm: held,
            held,
            allowed,
            wanted: None,
            is_cut: false,
        }
    }

    /// Nobody who came earlier has failed all the time on a limit that this one shares.
    fn check_order(&self, wish: &Wish, before: usize) {
        for earlier in &self.audit.requests[..before] {
            if let State::Waiting(since) = &earlier.state {
                assert!(!since.iter().any(|limit| self.audit.binds(*limit, wish)));
            }
        }
    }

    fn stream(&mut self, which: usize, tokens: i64) {
        let Some(which) = self.find_open(which) else {
            return;
        };
        let wish = self.audit.requests[which].wish;
        let State::Open {
            firm,
            held,
            allowed,
            wanted,
            is_cut,
            ..
        } = &mut self.audit.requests[which].state
        else {
            return;
        };
        if wish.longest.is_none() || *is_cut || wanted.is_some() {
            return;
        }
        let goal = (self.relayed[which] + tokens).min(wish.length);
        let answer = self.real.extend(name(which), goal, self.audit.now).unwrap();
        if let Some(more) = answer {
            assert!(more >= *allowed && more >= goal.min(wish.longest.unwrap()));
            if more > *allowed {
                grow(&wish, more, firm, held);
            }
            *allowed = more;
            self.relayed[which] = goal;
        } else {
            assert!(goal > *allowed);
            *wanted = Some(goal);
        }
        self.hear();
        self.forget_failures();
        if self.relayed[which] >= wish.length {
            self.end(which, 0);
        }
    }

    fn settle(&mut self, which: usize, overrun: i64) {
        if let Some(which) = self.find_open(which) {
            self.end(which, overrun);
        }
    }

    /// Settle for what was relayed, or for more than was held; a second time nothing happens (I4).
    fn end(&mut self, which: usize, overrun: i64) {
        let request = self.audit.requests[which].clone();
        let State::Open { admitted, firm, .. } = request.state else {
            return;
        };
        let bound = request.wish.with_tokens(i64::MAX / 2);
        let relayed = request.wish.with_tokens(self.relayed[which]);
        let actual = if overrun > 0 {
            firm + overrun
        } else {
            relayed.min(firm)
        };
        self.audit.requests[which].state = State::Settled {
            admitted,
            settled: self.audit.now,
            actual,
            overrun: [(actual - firm).max(0), (actual - bound).max(0)],
        };
        self.forget_failures();
        let used = Actual {
            cost_nanos: actual,
            ..Actual::default()
        };
        let done = self.real.settle(name(which), used, self.audit.now).unwrap();
        assert!(done.first && done.overrun_nanos == (actual - firm).max(0));
        let again = self.real.settle(name(which), used, self.audit.now).unwrap();
        assert!(!again.first && again.seq == done.seq);
        assert!(self.real.release(name(which), self.audit.now).is_err());
    }

    fn give_up(&mut self, which: usize) {
        let Some(which) = self.find_waiting(which) else {
            return;
        };
        let wish = self.audit.requests[which].wish;
        let failing = self.audit.failing(&wish);
        let decision = self.real.give_up(name(which), self.audit.now).unwrap();
        self.audit.requests[which].state = match decision {
            Decision::Admitted(admission) => {
                assert!(failing.is_empty());
                self.check_order(&wish, which);
                let held = admission.held.spend_nanos;
                self.opened(admission.output_tokens_allowed, held)
            }
            Decision::Refused(_) => State::Gone,
            other => panic!("{other:?}"),
        };
        self.forget_failures();
    }

    /// Take in what was told, in order; each of it must be true at its place.
    fn hear(&mut self) {
        self.forget_failures();
        for effect in self.real.take_effects() {
            match effect {
                Effect::Admitted(id, admission) => {
                    let which = number(id);
                    let wish = self.audit.requests[which].wish;
                    assert!(matches!(
                        self.audit.requests[which].state,
                        State::Waiting(_)
                    ));
                    assert!(self.audit.failing(&wish).is_empty());
                    self.check_order(&wish, which);
                    let (allowed, held) = self.audit.plan(&wish);
                    assert_eq!(admission.held.spend_nanos, held);
                    self.audit.requests[which].state = self.opened(allowed, held);
                }
                Effect::Ended(id, decision) => {
                    assert!(matches!(*decision, Decision::Refused(_)));
                    let state = &mut self.audit.requests[number(id)].state;
                    assert!(matches!(state, State::Waiting(_)));
                    *state = State::Gone;
                }
                Effect::Granted(id, tokens) => self.granted(number(id), tokens),
                Effect::Cut(id, refusal) => {
                    self.cut(number(id), refusal.limit.unwrap().limit_id);
                }
                Effect::Breaker(event) => panic!("{event:?}"),
            }
            self.forget_failures();
        }
    }

    fn granted(&mut self, which: usize, tokens: i64) {
        let request = &mut self.audit.requests[which];
        let State::Open {
            firm,
            held,
            allowed,
            wanted,
            is_cut,
            ..
        } = &mut request.state
        else {
            panic!("not open")
        };
        assert!(!*is_cut && wanted.take().unwrap() <= tokens);
        *allowed = tokens;
        grow(&request.wish, tokens, firm, held);
    }

    /// Of the streams on the limit that are not cut yet none is younger.
    fn cut(&mut self, which: usize, limit_id: Id) {
        let limit_id = limit_id.to_string();
        let mut limits = self.audit.limits.iter();
        let limit = limits.position(|it| it["id"] == limit_id).unwrap();
        let State::Open { admitted, .. } = self.audit.requests[which].state else {
            panic!("not open")
        };
        assert_eq!(self.audit.youngest(limit, admitted), Some(which));
        assert!(!self.audit.is_cutting(limit, admitted));
        let request = &mut self.audit.requests[which];
        let State::Open { is_cut, wanted, .. } = &mut request.state else {
            panic!("not open")
        };
        assert!(!*is_cut && request.wish.longest.is_some());
        *is_cut = true;
        *wanted = None;
    }

    /// Figures agree to the nano unit (I3, I8), caps hold (I1), and nobody waits for nothing.
    fn check(&mut self) {
        self.audit.check_caps();
        let now = self.audit.now;
        for (limit, state) in states(&mut self.real, now).iter().enumerate() {
            let used = self.audit.settled(limit, now);
            let held = self.audit.open(limit, now).1;
            let found = (
                state["used"].as_i64().unwrap(),
                state["held"].as_i64().unwrap(),
            );
            assert_eq!(found, (used, held), "{state}");
        }
        let count = |is_meant: fn(&State) -> bool| {
            let all = self.audit.requests.iter();
            all.filter(|it| is_meant(&it.state)).count()
        };
        let open = count(|state| matches!(state, State::Open { .. }));
        let waiting = count(|state| matches!(state, State::Waiting(_)));
        assert_eq!(self.real.open_reservations(), open);
        assert_eq!(self.real.waiting_requests(), waiting);
        for (request, asked) in self.audit.requests.iter().zip(&self.asked) {
            let is_waiting = matches!(request.state, State::Waiting(_));
            assert!(
                !is_waiting || self.offset_ns < asked + 30 * S,
                "its time was up"
            );
        }
        assert!(
            open > 0 || waiting == 0,
            "nothing is open, and somebody waits"
        );
    }

    /// Let all streams go on and end, and time pass, until nobody is left.
    fn finish(&mut self) {
        for _ in 0..400 {
            let open = self.audit.requests.len();
            for which in 0..open {
                let State::Open { wanted, is_cut, .. } = self.audit.requests[which].state else {
                    continue;
                };
                if is_cut || self.audit.requests[which].wish.longest.is_none() {
                    self.end(which, 0);
                } else if wanted.is_none() {
                    self.go_on_with(which);
                }
                self.hear();
            }
            self.check();
            let is_over =
                |it: &Request| !matches!(it.state, State::Open { .. } | State::Waiting(_));
            if self.audit.requests.iter().all(is_over) {
                return;
            }
            self.take(Step::Wait(S / 10));
        }
        panic!("somebody waits or streams for ever");
    }

    fn go_on_with(&mut self, which: usize) {
        let open: Vec<usize> = (0..self.audit.requests.len())
            .filter(|at| matches!(self.audit.requests[*at].state, State::Open { .. }))
            .collect();
        let place = open.iter().position(|at| *at == which).unwrap();
        self.stream(place, 7);
    }
}

fn wish() -> impl Strategy<Value = Wish> {
    let longest = prop_oneof![Just(None), (0..60_i64).prop_map(Some)];
    (0..3_usize, 0..40_i64, longest, 0..60_i64, any::<bool>()).prop_map(
        |(key, input, longest, length, is_patient)| Wish {
            key,
            input,
            longest,
            length: length.min(longest.unwrap_or(0)),
            is_patient,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let wait = prop_oneof![0..2 * S, 0..40 * S, Just(61 * S), Just(DAY / 2)];
    let which = any::<usize>;
    prop_oneof![
        2 => wait.prop_map(Step::Wait),
        12 => wish().prop_map(Step::Ask),
        8 => (which(), 1..20_i64).prop_map(|(which, tokens)| Step::Stream { which, tokens }),
        4 => (which(), prop_oneof![9 => Just(0), 1 => 1..30_i64])
            .prop_map(|(which, overrun)| Step::Settle { which, overrun }),
        1 => which().prop_map(|which| Step::Release { which }),
        1 => which().prop_map(|which| Step::GiveUp { which }),
        1 => which().prop_map(|which| Step::Leave { which }),
        1 => (which(), 0..50_i64).prop_map(|(which, more)| Step::Raise { which, more }),
    ]
}

fn cases() -> ProptestConfig {
    let is_full = std::env::var_os("COMPTROLLER_TEST_FULL").is_some();
    ProptestConfig::with_cases(if is_full { 20_000 } else { 150 })
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn no_cap_is_passed_nobody_is_overtaken_and_every_wait_ends(
        mask in prop_oneof![Just(0xff_u16), 1..0x100_u16],
        caps in prop::array::uniform8(prop_oneof![9 => 20..300_i64, 1 => Just(0)]),
        steps in prop::collection::vec(step(), 1..70),
    ) {
        let mut world = World::new(mask, caps);
        for step in steps {
            world.take(step);
        }
        world.finish();
    }
}
