//! One request as its client, the proxy and the provider make it.
use std::collections::BTreeMap;
use std::sync::Arc;

use comptroller_engine::{Actual, Ask, Id, Streams, Subject};

use crate::auditor::Who;
use crate::book::{Price, Sums, Terms};
use crate::policy::{
    FEATURES, KEYS, MODELS, PROVIDERS, S, SESSIONS, id_of, key, label, member, member_in_team,
    pool, team,
};
use crate::random::Random;

const MS: u64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    New,
    Waiting,
    Open,
    /// Told to end; the provider has not noticed yet.
    Aborting,
    Done,
}

/// What will happen to a request, and how far it is.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) who: Who,
    pub(crate) key: u32,
    pub(crate) ask: Ask,
    /// Output tokens that the provider will generate if it is let.
    pub(crate) total: i64,
    /// Output tokens that are billed and seen by nobody.
    pub(crate) hidden: i64,
    /// Percent that the provider bills.
    pub(crate) billed_percent: i64,
    pub(crate) token_ns: u64,
    pub(crate) abort_ns: u64,
    /// The client stays so long.
    pub(crate) patience_ns: Option<u64>,
    pub(crate) is_refused_upstream: bool,
    /// Whether the provider stops when nobody reads.
    pub(crate) pauses: bool,
    pub(crate) state: State,
    pub(crate) turn: u64,
    pub(crate) allowed: i64,
    /// Tokens that had been generated at an instant, since when more are.
    pub(crate) base: i64,
    pub(crate) since_ns: u64,
    pub(crate) is_running: bool,
}

impl Request {
    pub(crate) fn some(
        random: &mut Random,
        number: u64,
        organization: usize,
        terms: Terms,
    ) -> Self {
        let key_number = u128::from(random.below(KEYS as u64));
        let (model, provider) = (random.pick(&MODELS), random.pick(&PROVIDERS));
        let feature = random.chance(60).then(|| random.pick(&FEATURES));
        let session = random.chance(60).then(|| random.pick(&SESSIONS));
        let tokens_max = random.pick(&[40, 200, 800]);
        let price = Price {
            terms,
            input_tokens: random.between(1, 30),
            input_nanos: random.between(0, 60),
            output_picos: random.pick(&[333, 1_000, 4_001]),
            tokens_max,
            calibration: random.pick(&[1, 1, 1, 2]),
        };
        let token_ns = random.pick(&[2, 10, 50]) * MS;
        let abort_ns = random.pick(&[0, 20, 100]) * MS;
        let tail = (abort_ns / token_ns) as i64 + 1;
        let who = Who {
            number,
            organization,
            scopes: scopes(organization, key_number, provider, feature, session),
            model,
            price,
            step: tail + random.between(1, 20),
            may_wait: random.chance(85),
        };
        let is_honest = random.chance(80);
        Self {
            key: organization as u32 * KEYS as u32 + key_number as u32,
            ask: ask(random, &who, provider, feature, session),
            who,
            total: random
                .length(60)
                .min(if is_honest { tokens_max } else { i64::MAX }),
            hidden: if is_honest { 0 } else { random.between(0, 50) },
            billed_percent: if is_honest {
                100
            } else {
                random.pick(&[100, 100, 300])
            },
            token_ns,
            abort_ns,
            patience_ns: random.chance(15).then(|| random.below(20 * S)),
            is_refused_upstream: random.chance(8),
            pauses: random.chance(50),
            state: State::New,
            turn: 0,
            allowed: 0,
            base: 0,
            since_ns: 0,
            is_running: false,
        }
    }

    /// Return how many tokens the provider has generated.
    pub(crate) fn generated(&self, at_ns: u64) -> i64 {
        let running = u64::from(self.is_running) * (at_ns - self.since_ns);
        (self.base + (running / self.token_ns) as i64).min(self.total)
    }

    /// Return when the provider has generated so many tokens.
    pub(crate) fn reaches_at_ns(&self, tokens: i64) -> u64 {
        self.since_ns + (tokens - self.base).max(0) as u64 * self.token_ns
    }

    pub(crate) fn pause(&mut self, at_ns: u64) {
        self.base = self.generated(at_ns);
        self.is_running = false;
    }

    pub(crate) fn resume(&mut self, at_ns: u64) {
        self.base = self.generated(at_ns);
        self.since_ns = at_ns;
        self.is_running = true;
    }

    /// Return what so many tokens are charged, cost and use, as the proxy sees it.
    pub(crate) fn so_far(&self, tokens: i64) -> (Actual, Sums) {
        self.told(self.who.price.cost(tokens), tokens, None)
    }

    /// Return what is booked in the end.
    pub(crate) fn actual(&self, tokens: i64, is_whole: bool) -> (Actual, Sums) {
        let all = tokens + self.hidden;
        let cost = self.who.price.cost(all) * self.billed_percent / 100;
        self.told(cost, all, is_whole.then_some(tokens))
    }

    fn told(&self, cost: i64, tokens: i64, learned: Option<i64>) -> (Actual, Sums) {
        let sums = self.who.price.actual(cost, tokens);
        let actual = Actual {
            cost_nanos: cost,
            tokens: sums[2],
            output_tokens: learned,
        };
        (actual, sums)
    }
}

fn scopes(
    organization: usize,
    number: u128,
    provider: &str,
    feature: Option<&str>,
    session: Option<&str>,
) -> BTreeMap<&'static str, Vec<Id>> {
    let mut scopes = BTreeMap::from([
        ("key", vec![key(organization, number)]),
        ("member", vec![member(organization, number)]),
        ("team", vec![team(organization, number)]),
        (
            "member_in_team",
            vec![member_in_team(organization, number).1],
        ),
        ("organization", vec![id_of(organization, 0)]),
        ("provider", vec![label("provider", provider).1]),
        ("installation", vec![label("installation", "").1]),
    ]);
    if number == 0 {
        scopes.insert("pool", vec![pool(organization)]);
    }
    if let Some(feature) = feature {
        scopes.insert("feature", vec![label("feature", feature).1]);
    }
    if let Some(session) = session {
        scopes.insert("session", vec![label("session", session).1]);
    }
    scopes
}

fn ask(
    random: &mut Random,
    who: &Who,
    provider: &str,
    feature: Option<&str>,
    session: Option<&str>,
) -> Ask {
    let price = &who.price;
    Ask {
        subject: Arc::new(Subject {
            model: who.model.into(),
            tier: None,
            provider: provider.into(),
            feature: feature.map(Into::into),
        }),
        session: session.map(Into::into),
        input_tokens: price.input_tokens,
        output_tokens_max: price.tokens_max,
        choices: 1,
        bound_nanos: price.cost(price.tokens_max),
        input_nanos: price.input_nanos,
        output_picos: price.output_picos,
        step_tokens: who.step,
        calibration: price.calibration,
        streams: random.pick(&[
            Streams::Stream,
            Streams::Stream,
            Streams::Stream,
            Streams::Assembled,
            Streams::Plain,
        ]),
        may_wait: who.may_wait,
        ..Ask::default()
    }
}
