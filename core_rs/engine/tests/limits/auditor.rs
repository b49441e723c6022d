//! Judges holds, waits and cuts from outside: it keeps every request and adds up from scratch.
use std::collections::BTreeSet;

use comptroller_engine::{Ask, Now, Path};
use serde_json::{Value, json};

use crate::fixture::{
    DAY, MEMBER, ORGANIZATION, S, expecting, fixed, id, limit, patient, stream, with,
};

/// Lengths of answers that the organization has learned.
pub(crate) const LEARNED: [i64; 5] = [10, 2, 10, 10, 10];
/// Output tokens that it expects, those of a short answer, and those of a step.
pub(crate) const EXPECTED: i64 = 10;
const SHORT: i64 = 2;
pub(crate) const STEP: i64 = 4;
/// An answer that is longer than was expected is held for growing to so many times its length.
const GROWTH: i64 = 3;
/// Team of each key.
pub(crate) const TEAMS: [u128; 3] = [11, 11, 12];

/// What a request wants, and how long its answer really is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub key: usize,
    pub input: i64,
    /// Most output tokens of a stream; None for an answer in one piece, which costs its input.
    pub longest: Option<i64>,
    pub length: i64,
    pub is_patient: bool,
}

impl Wish {
    pub(crate) fn ask(&self) -> Ask {
        let ask = match self.longest {
            Some(longest) => stream(self.input, longest, STEP),
            None => fixed(self.input, 0),
        };
        if self.is_patient { patient(ask) } else { ask }
    }

    pub(crate) fn path(&self) -> Path {
        let team = id(TEAMS[self.key]);
        Path::new(
            id(21 + self.key as u128),
            Some(id(MEMBER)),
            Some(team),
            id(ORGANIZATION),
        )
    }

    /// What is held for so many output tokens.
    pub(crate) fn with_tokens(&self, tokens: i64) -> i64 {
        self.input + self.longest.map_or(0, |longest| tokens.min(longest))
    }

    fn held(&self) -> i64 {
        self.with_tokens(EXPECTED.min(self.longest.unwrap_or(0)) + STEP)
    }

    fn least(&self) -> i64 {
        self.with_tokens(SHORT.min(self.longest.unwrap_or(0)) + STEP)
    }

    fn bound(&self) -> i64 {
        self.with_tokens(i64::MAX / 2)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    /// In line; the limits on which it has failed ever since it came.
    Waiting(BTreeSet<usize>),
    Open {
        /// Its place among all that were admitted.
        seq: usize,
        admitted: Now,
        /// What it can have cost before it asks for more, and what is held from others.
        firm: i64,
        held: i64,
        allowed: i64,
        wanted: Option<i64>,
        is_cut: bool,
    },
    Settled {
        admitted: Now,
        settled: Now,
        actual: i64,
        overrun: [i64; 2],
    },
    Gone,
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub wish: Wish,
    pub state: State,
}

/// Limits of different scopes, windows and holds; the caps are given.
pub(crate) fn limits(mask: u16, caps: &[i64; 8]) -> Vec<Value> {
    let day = crate::fixture::day();
    let life = json!({"kind": "lifetime", "starts_at_ns": 0});
    let minute = crate::fixture::minute();
    let scope = |kind: &str, number: u128| json!({"kind": kind, "id": id(number).to_string()});
    let all = [
        (scope("key", 21), &day, true),
        (scope("key", 22), &minute, false),
        (scope("key", 23), &life, true),
        (scope("team", 11), &day, true),
        (scope("team", 12), &minute, true),
        (scope("member", MEMBER), &day, false),
        (scope("organization", ORGANIZATION), &life, true),
        (scope("organization", ORGANIZATION), &day, false),
    ];
    all.iter()
        .zip(caps)
        .zip(0..)
        .filter(|(_, number)| mask & (1 << number) != 0)
        .map(|(((scope, window, follows), cap), number)| {
            let budget = limit(number, "budget key spend hard", window, *cap);
            let budget = with(budget, "scope", scope.clone());
            if *follows { expecting(budget) } else { budget }
        })
        .collect()
}

/// Let a stream relay so many tokens: it holds what it may cost, and more where it has outgrown.
pub(crate) fn grow(wish: &Wish, tokens: i64, firm: &mut i64, held: &mut i64) {
    *firm = wish.with_tokens(tokens + STEP).max(*firm);
    if *firm > *held {
        *held = wish.with_tokens((tokens + STEP) * GROWTH);
    }
}

pub(crate) struct Auditor {
    pub limits: Vec<Value>,
    pub requests: Vec<Request>,
    pub now: Now,
}

impl Auditor {
    fn cap(&self, limit: usize) -> i64 {
        self.limits[limit]["cap"].as_i64().unwrap()
    }

    fn follows(&self, limit: usize) -> bool {
        self.limits[limit]["hold"] == "expected"
    }

    pub(crate) fn binds(&self, limit: usize, wish: &Wish) -> bool {
        let scope = &self.limits[limit]["scope"];
        let own = match scope["kind"].as_str().unwrap() {
            "key" => 21 + wish.key as u128,
            "team" => TEAMS[wish.key],
            "member" => MEMBER,
            _ => ORGANIZATION,
        };
        scope["id"] == id(own).to_string()
    }

    pub(crate) fn on_path(&self, wish: &Wish) -> impl Iterator<Item = usize> {
        (0..self.limits.len()).filter(|limit| self.binds(*limit, wish))
    }

    /// Tell whether an admission belongs to the period of another instant.
    fn is_same_period(&self, limit: usize, then: Now, other: Now) -> bool {
        self.limits[limit]["window"]["kind"] != "calendar"
            || then.wall_ns / DAY == other.wall_ns / DAY
    }

    /// What is settled in the window that an instant belongs to.
    pub(crate) fn settled(&self, limit: usize, at: Now) -> i64 {
        let is_rolling = self.limits[limit]["window"]["kind"] == "rolling";
        let bound = self
            .requests
            .iter()
            .filter(|it| self.binds(limit, &it.wish));
        bound
            .map(|request| match request.state {
                State::Settled {
                    admitted,
                    settled,
                    actual,
                    ..
                } => {
                    let counts = if is_rolling {
                        settled.mono_ns / S + 60 >= at.mono_ns / S
                    } else {
                        self.is_same_period(limit, admitted, at)
                    };
                    actual * i64::from(counts)
                }
                _ => 0,
            })
            .sum()
    }

    /// How many are open in a period, and what they hold.
    pub(crate) fn open(&self, limit: usize, at: Now) -> (usize, i64) {
        let follows = self.follows(limit);
        let bound = self
            .requests
            .iter()
            .filter(|it| self.binds(limit, &it.wish));
        let held = bound.filter_map(|request| match request.state {
            State::Open { admitted, held, .. } if self.is_same_period(limit, admitted, at) => {
                Some(if follows { held } else { request.wish.bound() })
            }
            _ => None,
        });
        held.fold((0, 0), |(count, sum), held| (count + 1, sum + held))
    }

    /// Find the youngest stream on a limit, in a period, that is not cut.
    pub(crate) fn youngest(&self, limit: usize, at: Now) -> Option<usize> {
        let bound = self.requests.iter().enumerate();
        let streams = bound.filter_map(|(which, it)| match it.state {
            State::Open {
                seq,
                admitted,
                is_cut: false,
                ..
            } if it.wish.longest.is_some()
                && self.binds(limit, &it.wish)
                && self.is_same_period(limit, admitted, at) =>
            {
                Some((seq, which))
            }
            _ => None,
        });
        streams.max().map(|(_, which)| which)
    }

    /// Tell whether a stream on a limit has been cut and has not ended.
    pub(crate) fn is_cutting(&self, limit: usize, at: Now) -> bool {
        self.requests.iter().any(|it| match it.state {
            State::Open {
                admitted,
                is_cut: true,
                ..
            } => self.binds(limit, &it.wish) && self.is_same_period(limit, admitted, at),
            _ => false,
        })
    }

    /// Tell whether a limit has no room for a request that would be new now.
    pub(crate) fn fails(&self, limit: usize, wish: &Wish) -> bool {
        let (cap, settled) = (self.cap(limit), self.settled(limit, self.now));
        let (open, held) = self.open(limit, self.now);
        let follows = self.follows(limit);
        let amount = if follows { wish.held() } else { wish.bound() };
        let takes_rest = follows
            && wish.longest.is_some()
            && open == 0
            && cap > 0
            && wish.least() <= cap - settled;
        !takes_rest && (cap == 0 || settled + held + amount > cap)
    }

    pub(crate) fn failing(&self, wish: &Wish) -> BTreeSet<usize> {
        let path = self.on_path(wish);
        path.filter(|limit| self.fails(*limit, wish)).collect()
    }

    /// How many tokens a request that is admitted now may relay, and what it then holds.
    pub(crate) fn plan(&self, wish: &Wish) -> (i64, i64) {
        let mut allowed = wish.longest.map_or(0, |longest| longest.min(EXPECTED));
        let mut held = wish.held();
        let path = self.on_path(wish).filter(|limit| self.follows(*limit));
        for limit in path.collect::<Vec<_>>() {
            let settled = self.settled(limit, self.now);
            let room = self.cap(limit) - settled;
            if self.open(limit, self.now).0 == 0 && wish.held() > room {
                let fits = |tokens: &i64| wish.with_tokens(*tokens) <= room;
                let most = (0..=wish.longest.unwrap()).rev().find(fits).unwrap();
                allowed = allowed.min((most - STEP).max(0));
                held = held.min(wish.with_tokens(allowed + STEP));
            }
        }
        (allowed, held)
    }

    /// What open requests can have cost in a period before they ask for more.
    fn firm(&self, limit: usize, at: Now) -> i64 {
        let bound = self
            .requests
            .iter()
            .filter(|it| self.binds(limit, &it.wish));
        bound
            .map(|request| match request.state {
                State::Open { admitted, firm, .. } if self.is_same_period(limit, admitted, at) => {
                    firm
                }
                _ => 0,
            })
            .sum()
    }

    /// No hard limit is passed in any period but by what was billed beyond its hold (I1).
    pub(crate) fn check_caps(&self) {
        for limit in 0..self.limits.len() {
            let follows = usize::from(!self.follows(limit));
            for request in self
                .requests
                .iter()
                .filter(|it| self.binds(limit, &it.wish))
            {
                let State::Open { admitted, .. } = request.state else {
                    continue;
                };
                let at = if self.limits[limit]["window"]["kind"] == "rolling" {
                    self.now
                } else {
                    admitted
                };
                let overruns: i64 = self
                    .requests
                    .iter()
                    .map(|it| match it.state {
                        State::Settled { overrun, .. } => overrun[follows],
                        _ => 0,
                    })
                    .sum();
                let open = if self.follows(limit) {
                    self.firm(limit, at)
                } else {
                    self.open(limit, at).1
                };
                let sum = self.settled(limit, at) + open;
                assert!(sum <= self.cap(limit) + overruns, "{}", self.limits[limit]);
            }
        }
    }
}
