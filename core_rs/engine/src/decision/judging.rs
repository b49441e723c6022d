//! Decides whether one limit has room, and picks the limit that a refusal names.
use std::sync::Arc;

use super::{LimitFigures, Refusal, Seen, WaitsFor};
use crate::counter::{Counter, Measure};
use crate::error::Result;
use crate::id::Id;
use crate::limit::{Action, Hold, Limit, LimitKind, Mode, Resource, Scope, ScopeKind};
use crate::reservation::Path;
use crate::time::Now;

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
    let committed = measure.hard(limit.hold)?;
    let has_room = limit.has_room(measure.used, committed, request.amount);
    Ok((!has_room).then(|| verdict(limit, scope, counter, measure, request, now)))
}

/// Say what a limit without room waits for.
#[cold]
pub(crate) fn verdict<'a>(
    limit: &'a Limit,
    scope: Scope,
    counter: &Counter,
    measure: Measure,
    request: Request,
    now: Now,
) -> Verdict<'a> {
    let (waits_for, retry_after_ns) = wait(limit, counter, measure, request, now);
    Verdict {
        limit,
        scope,
        measure,
        requested: request.amount,
        waits_for,
        retry_after_ns,
    }
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
