//! Learns how long answers are: the latest ones of a key, its team and its organization, by model.
use std::collections::{BTreeMap, VecDeque};

use crate::id::{Id, IdMap};

/// Answers that one estimate is made of.
const SAMPLES_MAX: usize = 64;
/// Fewer answers than this say too little; then nothing is expected but the bound.
pub const SAMPLES_MIN: usize = 5;
/// Most estimates of one organization; whichever is used least recently makes room.
pub const ESTIMATES_MAX: usize = 16_384;
/// Most models that are told apart; further ones are not learned.
const MODELS_MAX: usize = 1_024;

/// How far ahead is held for streams; `examples/truth.rs` prints what other figures would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foresight {
    /// Of a hundred answers so many are expected to be no longer than what is held for one.
    pub expected_percent: usize,
    /// An answer that is longer is expected to grow to so many times its length so far.
    ///
    /// Lengths have heavy tails. What it may grow to is kept from new requests only: streams that
    /// are open may take it, so that none is cut for money that nobody has used.
    pub growth: i64,
    /// So many of a hundred answers are too short for a rest of a limit to be begun for them.
    ///
    /// A request that takes the last rest is all but certain to be cut if the rest is shorter.
    pub rest_percent: usize,
}

impl Default for Foresight {
    /// With 200 typical requests to a cap, 50 at once: 98.9 % of it used, 0.9 % of streams cut.
    ///
    /// Without growth 7 % are cut; with a quantile of 99 and no growth 3.5 %, and at small caps a
    /// third of the money is refused to everybody.
    fn default() -> Self {
        Self {
            expected_percent: 95,
            growth: 3,
            rest_percent: 10,
        }
    }
}

/// For whom an answer was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Learner {
    pub(crate) key: Id,
    pub(crate) team: Id,
    pub(crate) organization: Id,
    /// Id of the feature; nil without.
    pub(crate) feature: Id,
}

impl Learner {
    /// List what answers are collected under, the most telling first.
    fn levels(&self) -> [(Id, Id); 4] {
        [
            (self.key, self.feature),
            (self.key, Id::NIL),
            (self.team, Id::NIL),
            (self.organization, Id::NIL),
        ]
    }
}

/// The latest lengths, in the order they came and in that of their size.
#[derive(Clone, Debug, Default)]
struct Samples {
    order: VecDeque<u32>,
    sorted: Vec<u32>,
    used: u64,
}

impl Samples {
    fn add(&mut self, tokens: u32) {
        if self.order.len() >= SAMPLES_MAX {
            if let Some(oldest) = self.order.pop_front() {
                let at = self.sorted.partition_point(|known| *known < oldest);
                if at < self.sorted.len() {
                    self.sorted.remove(at);
                }
            }
        }
        self.order.push_back(tokens);
        let at = self.sorted.partition_point(|known| *known < tokens);
        self.sorted.insert(at, tokens);
    }

    /// Return the length that so many percent do not pass; None while too few are known.
    fn quantile(&self, percent: usize) -> Option<u32> {
        if self.sorted.len() < SAMPLES_MIN {
            return None;
        }
        let rank = self.sorted.len().saturating_mul(percent).div_ceil(100);
        self.sorted.get(rank.saturating_sub(1)).copied()
    }
}

/// Everything learned in one organization.
#[derive(Clone, Debug, Default)]
pub(crate) struct Estimator {
    models: BTreeMap<Box<str>, IdMap<(Id, Id), Samples>>,
    count: usize,
    uses: u64,
}

impl Estimator {
    /// Return the expected output tokens of one choice; None where too little is known.
    pub(crate) fn expected(&self, model: &str, learner: &Learner, percent: usize) -> Option<i64> {
        let known = self.models.get(model)?;
        let levels = learner.levels();
        let mut samples = levels.iter().filter_map(|level| known.get(level));
        samples
            .find_map(|samples| samples.quantile(percent))
            .map(i64::from)
    }

    /// Learn from an answer; `output_tokens` of one choice.
    pub(crate) fn learn(&mut self, model: &str, learner: &Learner, output_tokens: i64) {
        if !self.models.contains_key(model) {
            if self.models.len() >= MODELS_MAX {
                return;
            }
            self.models.insert(model.into(), IdMap::default());
        }
        let tokens = u32::try_from(output_tokens).unwrap_or(u32::MAX);
        self.uses = self.uses.saturating_add(1);
        let (levels, uses) = (learner.levels(), self.uses);
        for (at, level) in levels.iter().enumerate() {
            let is_repeated = levels.iter().take(at).any(|earlier| earlier == level);
            if is_repeated || level.0.is_nil() {
                continue;
            }
            let Some(known) = self.models.get_mut(model) else {
                return;
            };
            if !known.contains_key(level) {
                self.count = self.count.saturating_add(1);
            }
            let samples = known.entry(*level).or_default();
            samples.used = uses;
            samples.add(tokens);
        }
        if self.count > ESTIMATES_MAX {
            self.forget();
        }
    }

    /// Forget the older half, so that this is seldom done.
    fn forget(&mut self) {
        let samples = self.models.values().flat_map(IdMap::values);
        let mut uses: Vec<u64> = samples.map(|samples| samples.used).collect();
        let middle = uses.len() / 2;
        let (_, median, _) = uses.select_nth_unstable(middle);
        let oldest = *median;
        for known in self.models.values_mut() {
            known.retain(|_, samples| samples.used >= oldest);
        }
        self.models.retain(|_, known| !known.is_empty());
        self.count = self.models.values().map(IdMap::len).sum();
    }
}
