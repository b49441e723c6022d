//! Decides whether one limit has room, picks the limit a refusal names, and tells what was decided.
use std::sync::Arc;

use serde::Serialize;

use crate::counter::{Counter, Measure};
use crate::error::Result;
use crate::id::Id;
use crate::limit::{Limit, LimitKind, Mode, Resource, Scope, ScopeKind};
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
    /// What its reservation holds.
    pub held: Amounts,
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
    /// Nothing helps but another policy.
    Never,
}

impl WaitsFor {
    /// Return the name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenRequests => "open_requests",
            Self::Period => "period",
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
    pub code: &'static str,
    /// HTTP status.
    pub status: u16,
    /// budget, breaker, rate, quota, key or organization.
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
    /// The policy that decided.
    pub policy_version: Arc<str>,
    /// Every limit of the path as it was.
    pub seen: Vec<Seen>,
}

impl Refusal {
    /// Refuse because of the state of a key or an organization.
    pub(crate) fn by_state(
        code: &'static str,
        status: u16,
        scope: Scope,
        path: Path,
        version: Arc<str>,
    ) -> Self {
        Self {
            path,
            code,
            status,
            kind: scope.kind.name(),
            scope,
            limit: None,
            frees_at_wall_ns: None,
            retry_after_ns: None,
            waits_for: None,
            policy_version: version,
            seen: Vec::new(),
        }
    }
}

/// A request was admitted or refused.
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
}

/// One limit has no room.
#[derive(Debug)]
pub(crate) struct Verdict<'a> {
    limit: &'a Limit,
    measure: Measure,
    requested: i64,
    waits_for: WaitsFor,
    retry_after_ns: Option<u64>,
}

/// Ask one limit; None if it has room. `is_over`: the counter's period has ended.
pub(crate) fn judge<'a>(
    limit: &'a Limit,
    counter: &Counter,
    measure: Measure,
    requested: i64,
    is_over: bool,
    now: Now,
) -> Result<Option<Verdict<'a>>> {
    if !refuses(limit, measure, requested)? {
        return Ok(None);
    }
    let (waits_for, target) = wait(limit, measure, requested, is_over);
    let retry_after_ns = target.and_then(|target| counter.falls_to_ns(target, now));
    Ok(Some(Verdict {
        limit,
        measure,
        requested,
        waits_for,
        retry_after_ns,
    }))
}

fn refuses(limit: &Limit, measure: Measure, requested: i64) -> Result<bool> {
    Ok(match limit.mode {
        Mode::Hard => limit.cap == 0 || measure.hard()?.saturating_add(requested) > limit.cap,
        Mode::Metered => measure.used >= limit.cap,
        Mode::Soft | Mode::Shadow => false,
    })
}

/// Say what a refused request waits for, and to what sum `used` must fall for it to fit.
fn wait(limit: &Limit, measure: Measure, requested: i64, is_over: bool) -> (WaitsFor, Option<i64>) {
    let free_of_use = match limit.mode {
        Mode::Hard => limit.cap.saturating_sub(requested),
        _ => limit.cap.saturating_sub(1),
    };
    if limit.cap == 0 || free_of_use < 0 {
        return (WaitsFor::Never, None);
    }
    if limit.mode == Mode::Hard && measure.used <= free_of_use {
        return (WaitsFor::OpenRequests, None);
    }
    if is_over {
        return (WaitsFor::Never, None);
    }
    // Holds stay while the window moves on; if they alone leave no room, they must end too.
    let held = if limit.mode == Mode::Hard {
        measure.held
    } else {
        0
    };
    let target = free_of_use.saturating_sub(held);
    (
        WaitsFor::Period,
        Some(if target < 0 { free_of_use } else { target }),
    )
}

/// Build the refusal of the limits that have no room; None if all have.
///
/// It names one that never frees, else the first by precedence; it reports when the last one frees.
pub(crate) fn refusal(
    verdicts: &[Verdict<'_>],
    seen: &[Seen],
    path: Path,
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
        path,
        code,
        status,
        kind: named.limit.kind.name(),
        scope: named.limit.scope,
        limit: Some(figures(named)),
        frees_at_wall_ns: last
            .retry_after_ns
            .map(|wait_ns| now.wall_ns.saturating_add(wait_ns)),
        retry_after_ns: last.retry_after_ns,
        waits_for: Some(last.waits_for),
        policy_version: Arc::clone(version),
        seen: seen.to_vec(),
    })
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
        held: verdict.measure.held,
        requested: verdict.requested,
    }
}

/// Rates, quotas, breakers, budgets; within them from the key outwards; last by id, to be stable.
fn precedence(limit: &Limit) -> (u8, ScopeKind, Id) {
    let class = match (limit.kind, limit.resource) {
        (LimitKind::Rate, Resource::Requests) => 0,
        (LimitKind::Rate, _) => 1,
        (LimitKind::Quota, _) => 2,
        (LimitKind::Breaker, _) => 3,
        (LimitKind::Budget, _) => 4,
    };
    (class, limit.scope.kind, limit.id)
}

/// A known instant counts as later than open requests, of which nothing is known.
fn lateness(verdict: &Verdict<'_>) -> (u8, u64) {
    match verdict.waits_for {
        WaitsFor::OpenRequests => (0, 0),
        WaitsFor::Period => (1, verdict.retry_after_ns.unwrap_or(u64::MAX)),
        WaitsFor::Never => (2, 0),
    }
}

fn code(limit: &Limit) -> (&'static str, u16) {
    match limit.kind {
        LimitKind::Rate => ("rate_limit_exceeded", 429),
        LimitKind::Quota => ("plan_quota_exceeded", 429),
        LimitKind::Breaker => ("spend_circuit_open", 503),
        LimitKind::Budget => match limit.scope.kind {
            ScopeKind::Key => ("key_budget_exceeded", 402),
            ScopeKind::Member => ("member_budget_exceeded", 402),
            ScopeKind::Team => ("team_budget_exceeded", 402),
            ScopeKind::Organization => ("tenant_budget_exceeded", 402),
            ScopeKind::Installation => ("installation_budget_exceeded", 402),
        },
    }
}
