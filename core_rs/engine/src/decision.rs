//! Decides whether one limit has room, picks the limit a refusal names, and tells what was decided.
use std::sync::Arc;

use serde::Serialize;

use crate::counter::{Counter, Measure};
use crate::error::Result;
use crate::id::{Id, ReservationId};
use crate::limit::{Action, Hold, Limit, LimitKind, Mode, Resource, Scope, ScopeKind};
use crate::reservation::{Amounts, Path};
use crate::time::Now;

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

/// One limit has no room.
#[derive(Clone, Debug)]
pub(crate) struct Verdict<'a> {
    pub(crate) limit: &'a Limit,
    /// Whose counter it is; for a template, the label's.
    pub(crate) scope: Scope,
    pub(crate) measure: Measure,
    pub(crate) requested: i64,
    pub(crate) waits_for: WaitsFor,
    retry_after_ns: Option<u64>,
}

impl Verdict<'_> {
    /// Tell whether nothing but the holds of open requests stands in the way, and money is short.
    pub(crate) fn may_wait(&self) -> bool {
        self.limit.resource.is_money() && self.waits_for == WaitsFor::OpenRequests
    }
}

/// What one limit is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// What it must hold.
    pub(crate) amount: i64,
    /// What it must hold at least, when nothing else is open.
    pub(crate) least: i64,
    /// Whether the counter's period has ended.
    pub(crate) is_over: bool,
}

/// Ask one limit; None if it has room.
pub(crate) fn judge<'a>(
    limit: &'a Limit,
    scope: Scope,
    counter: &Counter,
    measure: Measure,
    request: Request,
    now: Now,
) -> Result<Option<Verdict<'a>>> {
    let requested = request.amount;
    let fits = match limit.mode {
        Mode::Hard => {
            limit.cap > 0 && measure.hard(limit.hold)?.saturating_add(requested) <= limit.cap
        }
        Mode::Metered => measure.used < limit.cap,
        Mode::Soft | Mode::Shadow => true,
    };
    if fits {
        return Ok(None);
    }
    let (waits_for, retry_after_ns) = wait(limit, counter, measure, request, now);
    Ok(Some(Verdict {
        limit,
        scope,
        measure,
        requested,
        waits_for,
        retry_after_ns,
    }))
}

/// Say what a refused request waits for, and how long that takes at most if nothing is added.
fn wait(
    limit: &Limit,
    counter: &Counter,
    measure: Measure,
    request: Request,
    now: Now,
) -> (WaitsFor, Option<u64>) {
    let is_hard = limit.mode == Mode::Hard;
    let free_of_use = if is_hard {
        limit.cap.saturating_sub(request.least)
    } else {
        limit.cap.saturating_sub(1)
    };
    if limit.kind == LimitKind::Balance && (free_of_use < measure.used || limit.cap == 0) {
        return (WaitsFor::TopUp, None);
    }
    if limit.cap == 0 || free_of_use < 0 {
        return (WaitsFor::Never, None);
    }
    let is_gauge = limit.resource == Resource::Concurrency;
    if is_gauge || (is_hard && measure.used <= free_of_use) {
        return (WaitsFor::OpenRequests, None);
    }
    if request.is_over {
        return (WaitsFor::Never, None);
    }
    // Holds stay while the window moves on; if they alone leave no room, they must end too.
    let held = if is_hard { measure.held(limit.hold) } else { 0 };
    let target = free_of_use.saturating_sub(held);
    let target = if target < 0 { free_of_use } else { target };
    let offset = limit.offset_at(now.wall_ns);
    match counter.falls_to_ns(target.saturating_add(offset), now) {
        Some(wait_ns) => (WaitsFor::Period, Some(wait_ns)),
        None => (WaitsFor::Never, None),
    }
}

/// Build the refusal of the limits that have no room; None if all have.
///
/// It names one that never frees, else the first by precedence; it reports when the last one frees.
pub(crate) fn refusal(
    verdicts: &[Verdict<'_>],
    seen: &[Seen],
    path: &Path,
    version: &Arc<str>,
    now: Now,
) -> Option<Refusal> {
    let named = verdicts.iter().min_by_key(|verdict| {
        (
            verdict.waits_for != WaitsFor::Never,
            precedence(verdict.limit),
        )
    })?;
    let last = verdicts.iter().max_by_key(|verdict| lateness(verdict))?;
    let (code, status) = code(named.limit);
    Some(Refusal {
        path: path.clone(),
        code: code.into(),
        status,
        kind: named.limit.kind.name(),
        scope: named.scope,
        limit: Some(figures(named)),
        frees_at_wall_ns: last
            .retry_after_ns
            .map(|wait_ns| now.wall_ns.saturating_add(wait_ns)),
        retry_after_ns: last.retry_after_ns,
        waits_for: Some(last.waits_for),
        output_tokens_that_fit: None,
        policy_version: Arc::clone(version),
        seen: seen.to_vec(),
    })
}

/// Build the refusal of a request that fits but must not pass those that stand in line before it.
pub(crate) fn refusal_in_line(
    limit: &Limit,
    scope: Scope,
    measure: Measure,
    requested: i64,
    seen: &[Seen],
    path: &Path,
    version: &Arc<str>,
) -> Refusal {
    let verdict = Verdict {
        limit,
        scope,
        measure,
        requested,
        waits_for: WaitsFor::OpenRequests,
        retry_after_ns: None,
    };
    let (code, status) = code(limit);
    Refusal {
        path: path.clone(),
        code: code.into(),
        status,
        kind: limit.kind.name(),
        scope,
        limit: Some(figures(&verdict)),
        frees_at_wall_ns: None,
        retry_after_ns: None,
        waits_for: Some(WaitsFor::OpenRequests),
        output_tokens_that_fit: None,
        policy_version: Arc::clone(version),
        seen: seen.to_vec(),
    }
}

fn figures(verdict: &Verdict<'_>) -> LimitFigures {
    let limit = verdict.limit;
    LimitFigures {
        limit_id: limit.id,
        resource: limit.resource,
        window: limit.window.name(),
        time_zone: limit.window.time_zone().map(str::to_owned),
        mode: limit.mode,
        cap: limit.cap,
        used: verdict.measure.used,
        held: verdict.measure.held(limit.hold),
        requested: verdict.requested,
    }
}

/// Concurrency, rates, quotas, breakers, budgets, balance; within them from the key outwards.
pub(crate) fn precedence(limit: &Limit) -> (u8, ScopeKind, Id) {
    let class = match (limit.kind, limit.resource) {
        (LimitKind::Concurrency, _) => 0,
        (LimitKind::Rate, Resource::Requests) => 1,
        (LimitKind::Rate, _) => 2,
        (LimitKind::Quota, _) => 3,
        (LimitKind::Breaker, _) => 4,
        (LimitKind::Budget, _) => 5,
        (LimitKind::Balance, _) => 6,
    };
    (class, limit.scope.kind, limit.id)
}

/// A known instant counts as later than open requests, of which nothing is known.
fn lateness(verdict: &Verdict<'_>) -> (u8, u64) {
    match verdict.waits_for {
        WaitsFor::OpenRequests => (0, 0),
        WaitsFor::Period => (1, verdict.retry_after_ns.unwrap_or(u64::MAX)),
        WaitsFor::TopUp => (2, 0),
        WaitsFor::Never => (3, 0),
    }
}

/// Return code and status: those of the limit's last step if it names any, else of its kind.
fn code(limit: &Limit) -> (&str, u16) {
    let (usual, usual_status) = usual_code(limit);
    let custom = limit
        .steps
        .iter()
        .rev()
        .find_map(|step| match &step.action {
            Action::Refuse { code, status } => Some((code.as_deref(), *status)),
            _ => None,
        });
    let (code, status) = custom.unwrap_or_default();
    (code.unwrap_or(usual), status.unwrap_or(usual_status))
}

fn usual_code(limit: &Limit) -> (&'static str, u16) {
    match limit.kind {
        LimitKind::Concurrency => ("concurrency_exceeded", 429),
        LimitKind::Rate => ("rate_limit_exceeded", 429),
        LimitKind::Quota => ("plan_quota_exceeded", 429),
        LimitKind::Breaker => ("spend_circuit_open", 503),
        LimitKind::Balance => ("prepaid_balance_required", 402),
        LimitKind::Budget => (
            match limit.scope.kind {
                ScopeKind::Key => "key_budget_exceeded",
                ScopeKind::Session => "session_budget_exceeded",
                ScopeKind::MemberInTeam => "member_in_team_budget_exceeded",
                ScopeKind::Member => "member_budget_exceeded",
                ScopeKind::Pool => "pool_budget_exceeded",
                ScopeKind::Feature => "feature_budget_exceeded",
                ScopeKind::Agent => "agent_budget_exceeded",
                ScopeKind::EndUser => "end_user_budget_exceeded",
                ScopeKind::Team => "team_budget_exceeded",
                ScopeKind::Organization => "tenant_budget_exceeded",
                ScopeKind::Provider => "provider_budget_exceeded",
                ScopeKind::Installation => "installation_budget_exceeded",
            },
            402,
        ),
    }
}

/// Tell whether a limit holds what is expected, so that its room can be taken step by step.
pub(crate) fn follows_streams(limit: &Limit) -> bool {
    limit.mode == Mode::Hard && limit.hold == Hold::Expected && !limit.resource.is_count()
}
