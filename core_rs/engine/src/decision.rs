//! What was decided about a request, and what happened to others because of it.
mod judging;

use std::sync::Arc;

use serde::Serialize;

use crate::id::{Id, ReservationId};
use crate::limit::{Action, Mode, Resource, Scope, ScopeKind};
use crate::reservation::{Amounts, Path};
pub(crate) use judging::{
    Request, Verdict, follows_streams, judge, precedence, refusal, refusal_in_line, verdict,
};

/// What a decision saw of one limit before it added anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// The limit.
    pub limit_id: Id,
    /// Settled, and what open requests have cost so far.
    pub used: i64,
    /// The rest of what open requests hold.
    pub held: i64,
    /// The cap in force.
    pub cap: i64,
}

/// What the caller is told about a rate limit of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateFigures {
    /// Its cap.
    pub limit: i64,
    /// Room left after this admission, ≥ 0.
    pub remaining: i64,
    /// Nanoseconds until its window is empty if nothing is added.
    pub reset_ns: u64,
}

/// A request was admitted.
#[derive(Clone, Debug)]
pub struct Admission {
    /// For whom the key acted, and so whose counters hold it.
    pub path: Path,
    /// What its reservation holds on limits that hold what is expected.
    pub held: Amounts,
    /// The most that it can cost, which the other limits hold.
    pub bound: Amounts,
    /// What the bound was multiplied by.
    pub calibration: i64,
    /// Output tokens that may be relayed before more is held.
    pub output_tokens_allowed: i64,
    /// Whether the answer is to be streamed from the provider, and its hold follows it.
    pub extendable: bool,
    /// Instant whose periods count it; after a wall clock jumped back, later than that clock.
    pub admitted_wall_ns: u64,
    /// The policy that decided.
    pub policy_version: Arc<str>,
    /// Every limit of the path as it was before.
    pub seen: Vec<Seen>,
    /// Least room that a hard spend limit has left; None without such a limit.
    pub remaining_spend_nanos: Option<i64>,
    /// The key's tightest rate limit on requests.
    pub requests: Option<RateFigures>,
    /// The key's tightest rate limit on tokens.
    pub tokens: Option<RateFigures>,
}

/// What has to happen before a refused request fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// Open requests must end; no instant is known.
    OpenRequests,
    /// Time must pass.
    Period,
    /// Money must be paid in.
    TopUp,
    /// Nothing helps but another policy.
    Never,
}

impl WaitsFor {
    /// Return the name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenRequests => "open_requests",
            Self::Period => "period",
            Self::TopUp => "top_up",
            Self::Never => "never",
        }
    }
}

/// The figures of the limit that a refusal names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitFigures {
    /// The limit.
    pub limit_id: Id,
    /// What it counts.
    pub resource: Resource,
    /// Name of its window.
    pub window: &'static str,
    /// Time zone of its periods.
    pub time_zone: Option<String>,
    /// Its mode.
    pub mode: Mode,
    /// Its cap.
    pub cap: i64,
    /// Settled, and what open requests have cost so far.
    pub used: i64,
    /// The rest of what open requests hold.
    pub held: i64,
    /// What did not fit.
    pub requested: i64,
}

/// Says why a request was not admitted; nothing was changed.
#[derive(Clone, Debug)]
#[must_use]
pub struct Refusal {
    /// For whom the key acted.
    pub path: Path,
    /// Stable code.
    pub code: Box<str>,
    /// HTTP status.
    pub status: u16,
    /// concurrency, rate, quota, breaker, budget, balance, key or organization.
    pub kind: &'static str,
    /// Whose limit or state it is.
    pub scope: Scope,
    /// The limit; None if a state refuses.
    pub limit: Option<LimitFigures>,
    /// When the request can succeed, on the wall clock.
    pub frees_at_wall_ns: Option<u64>,
    /// The same, from now.
    pub retry_after_ns: Option<u64>,
    /// What that takes; None if a state refuses.
    pub waits_for: Option<WaitsFor>,
    /// Output tokens with which it would fit every limit on money, and whose limit allows no more.
    ///
    /// None where money is not short.
    pub output_tokens_that_fit: Option<(i64, ScopeKind)>,
    /// The policy that decided.
    pub policy_version: Arc<str>,
    /// Every limit of the path as it was.
    pub seen: Vec<Seen>,
}

impl Refusal {
    /// Refuse because of the state of a key or an organization.
    pub(crate) fn by_state(
        code: &str,
        status: u16,
        scope: Scope,
        path: Path,
        version: Arc<str>,
    ) -> Self {
        Self {
            path,
            code: code.into(),
            status,
            kind: scope.kind.name(),
            scope,
            limit: None,
            frees_at_wall_ns: None,
            retry_after_ns: None,
            waits_for: None,
            output_tokens_that_fit: None,
            policy_version: version,
            seen: Vec::new(),
        }
    }
}

/// A request waits in line; nothing is held for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The limit it waits for.
    pub limit_id: Id,
    /// Whose it is.
    pub scope: Scope,
    /// Whether a step of the limit queues it, so that it stays until its time is up.
    pub is_queued: bool,
    /// How long it waits at most.
    pub timeout_ns: u64,
}

/// A step of a limit asks for something before the request may pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diversion {
    /// The limit.
    pub limit_id: Id,
    /// Whose it is.
    pub scope: Scope,
    /// What it counts.
    pub resource: Resource,
    /// Name of its window.
    pub window: &'static str,
    /// Which of its steps, from 0.
    pub step: usize,
    /// From which share of the cap on.
    pub percent: u8,
    /// Downgrade or confirm.
    pub action: Action,
    /// The policy that decided.
    pub policy_version: Arc<str>,
}

/// What becomes of a request.
#[derive(Clone, Debug)]
#[must_use]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every decision is an admission; a box would be an allocation for each"
)]
pub enum Decision {
    /// It may be sent.
    Admitted(Admission),
    /// It may not.
    Refused(Box<Refusal>),
    /// It waits until others have ended.
    Waiting(Box<Waiting>),
    /// Something else is to be asked, or somebody.
    Diverted(Box<Diversion>),
}

/// Something that happened to another request than the one that was acted on, or to a limit.
#[derive(Clone, Debug)]
pub enum Effect {
    /// A request that waited was admitted.
    Admitted(ReservationId, Box<Admission>),
    /// A request that waited was refused, or is to be asked something.
    Ended(ReservationId, Box<Decision>),
    /// A stream that waited may relay so many output tokens.
    Granted(ReservationId, i64),
    /// A stream is to be closed at once, because of the limit of this refusal.
    Cut(ReservationId, Box<Refusal>),
    /// A breaker opened or closed.
    Breaker(BreakerEvent),
}

/// A breaker opened or closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerEvent {
    /// The limit.
    pub limit_id: Id,
    /// Whose it is.
    pub scope: Scope,
    /// Whether it opened.
    pub is_open: bool,
    /// What was spent in its window.
    pub sum: i64,
    /// Its threshold.
    pub cap: i64,
    /// When, on the wall clock.
    pub at_wall_ns: u64,
}
