//! Python classes of what the limits engine decides and books: converts and delegates.
use comptroller_engine as engine;
use engine::decision::{Diversion, Waiting};
use engine::{Action, Admission, Decision, Id, Refusal, Settlement};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::Error;

type Result<T> = std::result::Result<T, Error>;

/// Write an id as Python knows it.
pub fn text(id: Option<Id>) -> Option<String> {
    id.map(|id| id.to_string())
}

/// Wrap an admission or a refusal.
pub fn decided(py: Python<'_>, decision: Decision) -> PyResult<Bound<'_, PyAny>> {
    match decision {
        Decision::Admitted(admission) => Ok(Bound::new(py, PyAdmission(admission))?.into_any()),
        Decision::Refused(refusal) => Ok(Bound::new(py, PyRefusal(refusal))?.into_any()),
        Decision::Waiting(waiting) => Ok(Bound::new(py, PyWaiting(*waiting))?.into_any()),
        Decision::Diverted(diversion) => Ok(Bound::new(py, PyDiversion(*diversion))?.into_any()),
    }
}

fn seen_json<'py>(py: Python<'py>, seen: &[engine::decision::Seen]) -> Result<Bound<'py, PyBytes>> {
    let json = serde_json::to_vec(seen).map_err(|_| Error::Argument("figures are not JSON"))?;
    Ok(PyBytes::new(py, &json))
}

/// Wraps [`Admission`].
#[pyclass(frozen, name = "Admission", module = "core_rs")]
pub struct PyAdmission(pub Admission);

#[pymethods]
impl PyAdmission {
    #[getter]
    fn team_id(&self) -> Option<String> {
        text(self.0.path.team())
    }

    #[getter]
    fn member_id(&self) -> Option<String> {
        text(self.0.path.member())
    }

    #[getter]
    fn cost_center_id(&self) -> Option<String> {
        text(self.0.path.cost_center())
    }

    #[getter]
    fn pool_ids(&self) -> Vec<String> {
        self.0
            .path
            .pools()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[getter]
    fn spend_nanos(&self) -> i64 {
        self.0.held.spend_nanos
    }

    #[getter]
    fn bound_nanos(&self) -> i64 {
        self.0.bound.spend_nanos
    }

    #[getter]
    fn bound_cost_nanos(&self) -> i64 {
        self.0.bound.cost_nanos
    }

    #[getter]
    fn bound_tokens(&self) -> i64 {
        self.0.bound.tokens
    }

    #[getter]
    fn calibration(&self) -> i64 {
        self.0.calibration
    }

    #[getter]
    fn output_tokens_allowed(&self) -> i64 {
        self.0.output_tokens_allowed
    }

    #[getter]
    fn extendable(&self) -> bool {
        self.0.extendable
    }

    #[getter]
    fn tokens(&self) -> i64 {
        self.0.held.tokens
    }

    #[getter]
    fn admitted_wall_ns(&self) -> u64 {
        self.0.admitted_wall_ns
    }

    #[getter]
    fn policy_version(&self) -> &str {
        &self.0.policy_version
    }

    #[getter]
    fn remaining_spend_nanos(&self) -> Option<i64> {
        self.0.remaining_spend_nanos
    }

    #[getter]
    fn requests_limit(&self) -> Option<i64> {
        self.0.requests.map(|rate| rate.limit)
    }

    #[getter]
    fn requests_remaining(&self) -> Option<i64> {
        self.0.requests.map(|rate| rate.remaining)
    }

    #[getter]
    fn requests_reset_ns(&self) -> Option<u64> {
        self.0.requests.map(|rate| rate.reset_ns)
    }

    #[getter]
    fn tokens_limit(&self) -> Option<i64> {
        self.0.tokens.map(|rate| rate.limit)
    }

    #[getter]
    fn tokens_remaining(&self) -> Option<i64> {
        self.0.tokens.map(|rate| rate.remaining)
    }

    #[getter]
    fn tokens_reset_ns(&self) -> Option<u64> {
        self.0.tokens.map(|rate| rate.reset_ns)
    }

    fn seen_json<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyBytes>> {
        self::seen_json(py, &self.0.seen)
    }
}

/// Wraps [`Refusal`].
#[pyclass(frozen, name = "Refusal", module = "core_rs")]
pub struct PyRefusal(pub Box<Refusal>);

impl PyRefusal {
    fn of_limit<'a, T>(
        &'a self,
        get: impl FnOnce(&'a engine::decision::LimitFigures) -> T,
    ) -> Option<T> {
        self.0.limit.as_ref().map(get)
    }
}

#[pymethods]
impl PyRefusal {
    #[getter]
    fn team_id(&self) -> Option<String> {
        text(self.0.path.team())
    }

    #[getter]
    fn member_id(&self) -> Option<String> {
        text(self.0.path.member())
    }

    #[getter]
    fn cost_center_id(&self) -> Option<String> {
        text(self.0.path.cost_center())
    }

    #[getter]
    fn code(&self) -> &str {
        &self.0.code
    }

    #[getter]
    fn status(&self) -> u16 {
        self.0.status
    }

    #[getter]
    fn kind(&self) -> &'static str {
        self.0.kind
    }

    #[getter]
    fn limit_id(&self) -> Option<String> {
        self.of_limit(|limit| limit.limit_id.to_string())
    }

    #[getter]
    fn scope_kind(&self) -> &'static str {
        self.0.scope.kind.name()
    }

    #[getter]
    fn scope_id(&self) -> String {
        self.0.scope.id.to_string()
    }

    #[getter]
    fn resource(&self) -> Option<&'static str> {
        self.of_limit(|limit| limit.resource.name())
    }

    #[getter]
    fn window(&self) -> Option<&'static str> {
        self.of_limit(|limit| limit.window)
    }

    #[getter]
    fn time_zone(&self) -> Option<&str> {
        self.of_limit(|limit| limit.time_zone.as_deref()).flatten()
    }

    #[getter]
    fn mode(&self) -> Option<&'static str> {
        self.of_limit(|limit| limit.mode.name())
    }

    #[getter]
    fn cap(&self) -> Option<i64> {
        self.of_limit(|limit| limit.cap)
    }

    #[getter]
    fn used(&self) -> Option<i64> {
        self.of_limit(|limit| limit.used)
    }

    #[getter]
    fn held(&self) -> Option<i64> {
        self.of_limit(|limit| limit.held)
    }

    #[getter]
    fn requested(&self) -> Option<i64> {
        self.of_limit(|limit| limit.requested)
    }

    #[getter]
    fn frees_at_wall_ns(&self) -> Option<u64> {
        self.0.frees_at_wall_ns
    }

    #[getter]
    fn retry_after_ns(&self) -> Option<u64> {
        self.0.retry_after_ns
    }

    #[getter]
    fn waits_for(&self) -> Option<&'static str> {
        self.0.waits_for.map(engine::decision::WaitsFor::name)
    }

    #[getter]
    fn output_tokens_that_fit(&self) -> Option<i64> {
        self.0.output_tokens_that_fit.map(|(tokens, _)| tokens)
    }

    #[getter]
    fn fitting_scope_kind(&self) -> Option<&'static str> {
        self.0.output_tokens_that_fit.map(|(_, kind)| kind.name())
    }

    #[getter]
    fn policy_version(&self) -> &str {
        &self.0.policy_version
    }

    fn seen_json<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyBytes>> {
        self::seen_json(py, &self.0.seen)
    }
}

/// Wraps [`Waiting`].
#[pyclass(frozen, name = "Waiting", module = "core_rs")]
pub struct PyWaiting(Waiting);

#[pymethods]
impl PyWaiting {
    #[getter]
    fn limit_id(&self) -> String {
        self.0.limit_id.to_string()
    }

    #[getter]
    fn scope_kind(&self) -> &'static str {
        self.0.scope.kind.name()
    }

    #[getter]
    fn is_queued(&self) -> bool {
        self.0.is_queued
    }

    #[getter]
    fn timeout_ns(&self) -> u64 {
        self.0.timeout_ns
    }
}

/// Wraps [`Diversion`].
#[pyclass(frozen, name = "Diversion", module = "core_rs")]
pub struct PyDiversion(Diversion);

#[pymethods]
impl PyDiversion {
    #[getter]
    fn limit_id(&self) -> String {
        self.0.limit_id.to_string()
    }

    #[getter]
    fn scope_kind(&self) -> &'static str {
        self.0.scope.kind.name()
    }

    #[getter]
    fn scope_id(&self) -> String {
        self.0.scope.id.to_string()
    }

    #[getter]
    fn resource(&self) -> &'static str {
        self.0.resource.name()
    }

    #[getter]
    fn window(&self) -> &'static str {
        self.0.window
    }

    #[getter]
    fn step(&self) -> usize {
        self.0.step
    }

    #[getter]
    fn percent(&self) -> u8 {
        self.0.percent
    }

    #[getter]
    fn action(&self) -> &'static str {
        match self.0.action {
            Action::Downgrade { .. } => "downgrade",
            _ => "confirm",
        }
    }

    #[getter]
    fn model(&self) -> Option<&str> {
        match &self.0.action {
            Action::Downgrade { model } => Some(model),
            _ => None,
        }
    }

    #[getter]
    fn policy_version(&self) -> &str {
        &self.0.policy_version
    }
}

/// Wraps [`Settlement`].
#[pyclass(frozen, name = "Settlement", module = "core_rs")]
pub struct PySettlement(pub Settlement);

#[pymethods]
impl PySettlement {
    #[getter]
    fn first(&self) -> bool {
        self.0.first
    }

    #[getter]
    fn seq(&self) -> u64 {
        self.0.seq
    }

    #[getter]
    fn spend_nanos(&self) -> i64 {
        self.0.booked.spend_nanos
    }

    #[getter]
    fn tokens(&self) -> i64 {
        self.0.booked.tokens
    }

    #[getter]
    fn cost_nanos(&self) -> i64 {
        self.0.booked.cost_nanos
    }

    #[getter]
    fn bound_ratio(&self) -> i64 {
        self.0.bound_ratio
    }

    #[getter]
    fn crossed(&self) -> Vec<(String, u64, u8, u32, i64, i64)> {
        let crossed = self.0.crossed.iter();
        crossed
            .map(|crossing| {
                (
                    crossing.limit_id.to_string(),
                    crossing.period_starts_at_ns,
                    crossing.percent,
                    crossing.repeat,
                    crossing.settled,
                    crossing.cap,
                )
            })
            .collect()
    }

    #[getter]
    fn overrun_nanos(&self) -> i64 {
        self.0.overrun_nanos
    }

    #[getter]
    fn exceeded(&self) -> Vec<String> {
        self.0.exceeded.iter().map(ToString::to_string).collect()
    }
}
