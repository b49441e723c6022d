//! What a request asks for: what it is about, what it can cost, and how its answer comes.
use std::sync::Arc;

use crate::charging::{Tariff, Terms};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::limit::Subject;
use crate::money;
use crate::rules::NAME_BYTES_MAX;

/// Largest calibration.
pub const CALIBRATION_MAX: i64 = 1_000;
/// Most steps that one request can have passed.
pub const TAKEN_MAX: usize = 1_000;

/// How the answer comes from the provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Streams {
    /// In one piece: nothing is known before it is complete.
    #[default]
    Plain,
    /// As a stream, to a caller who wants one.
    Stream,
    /// In one piece, or as a stream that the proxy puts together when money is short.
    Assembled,
}

impl Streams {
    /// Find what a name on the wire stands for.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "plain" => Some(Self::Plain),
            "stream" => Some(Self::Stream),
            "assembled" => Some(Self::Assembled),
            _ => None,
        }
    }
}

/// What a request asks for.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// Model, tier, provider and feature.
    pub subject: Arc<Subject>,
    /// The agent that it says it is of.
    pub agent: Option<Box<str>>,
    /// The end user that it says it is for.
    pub end_user: Option<Box<str>>,
    /// The session that it says it belongs to.
    pub session: Option<Box<str>>,
    /// Bound of its input tokens.
    pub input_tokens: i64,
    /// Bound of its output tokens, of all choices together.
    pub output_tokens_max: i64,
    /// Choices it asks for, from 1.
    pub choices: i64,
    /// The most that it costs, nano units of the price sheet's currency.
    pub bound_nanos: i64,
    /// The most that it costs without an answer.
    pub input_nanos: i64,
    /// The dearest price of an output token, in picos.
    pub output_picos: i64,
    /// Tokens that stay free ahead of a stream; at least what a provider generates after an abort.
    pub step_tokens: i64,
    /// What bounds are multiplied by, from 1.
    pub calibration: i64,
    /// How the answer comes.
    pub streams: Streams,
    /// Whether the request may wait for others to end.
    pub may_wait: bool,
    /// Steps of limits that it has passed: all before the numbers.
    pub taken: Vec<(Id, usize)>,
}

impl Ask {
    pub(crate) fn check(&self) -> Result<()> {
        let labels = [
            Some(&*self.subject.model),
            Some(&*self.subject.provider),
            self.subject.tier.as_deref(),
            self.subject.feature.as_deref(),
            self.agent.as_deref(),
            self.end_user.as_deref(),
            self.session.as_deref(),
        ];
        let is_long = |name: &&str| name.len() > NAME_BYTES_MAX;
        if labels.iter().flatten().any(is_long) {
            return Err(Error::InvalidArgument("a name is too long"));
        }
        if self.taken.len() > TAKEN_MAX {
            return Err(Error::TooMany("steps taken"));
        }
        if self.choices < 1 || !(1..=CALIBRATION_MAX).contains(&self.calibration) {
            return Err(Error::InvalidArgument("choices and calibration begin at 1"));
        }
        [
            self.input_tokens,
            self.output_tokens_max,
            self.bound_nanos,
            self.input_nanos,
            self.output_picos,
            self.step_tokens,
        ]
        .into_iter()
        .try_for_each(|amount| money::amount(amount).map(|_| ()))
    }

    pub(crate) fn tariff(&self, terms: Terms) -> Tariff {
        Tariff {
            terms,
            input_tokens: self.input_tokens,
            output_tokens_max: self.output_tokens_max,
            bound_nanos: self.bound_nanos,
            input_nanos: self.input_nanos,
            output_picos: self.output_picos,
            calibration: self.calibration,
        }
    }

    /// Return how many steps of a limit have been passed.
    pub(crate) fn steps_taken(&self, limit_id: Id) -> usize {
        let taken = self.taken.iter().filter(|(id, _)| *id == limit_id);
        taken.map(|(_, steps)| *steps).max().unwrap_or(0)
    }
}
