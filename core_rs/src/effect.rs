//! `core_rs.Effect`: what happened to others than the request that was acted on.
use comptroller_engine as engine;
use engine::decision::BreakerEvent;
use engine::{Effect, ReservationId};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::decision::{PyAdmission, PyRefusal, decided};

/// Wraps [`Effect`]; what does not belong to its kind is None.
#[pyclass(frozen, name = "Effect", module = "core_rs")]
pub struct PyEffect {
    kind: &'static str,
    reservation: Option<ReservationId>,
    decision: Option<Py<PyAny>>,
    tokens: Option<i64>,
    breaker: Option<BreakerEvent>,
}

impl PyEffect {
    /// Wrap an effect.
    pub fn new(py: Python<'_>, effect: Effect) -> PyResult<Self> {
        let of = |kind: &'static str, id: ReservationId| Self {
            kind,
            reservation: Some(id),
            decision: None,
            tokens: None,
            breaker: None,
        };
        Ok(match effect {
            Effect::Admitted(id, admission) => Self {
                decision: Some(Py::new(py, PyAdmission(*admission))?.into_any()),
                ..of("admitted", id)
            },
            Effect::Ended(id, decision) => Self {
                decision: Some(decided(py, *decision)?.unbind()),
                ..of("ended", id)
            },
            Effect::Granted(id, tokens) => Self {
                tokens: Some(tokens),
                ..of("granted", id)
            },
            Effect::Cut(id, refusal) => Self {
                decision: Some(Py::new(py, PyRefusal(refusal))?.into_any()),
                ..of("cut", id)
            },
            Effect::Breaker(event) => Self {
                kind: "breaker",
                reservation: None,
                decision: None,
                tokens: None,
                breaker: Some(event),
            },
        })
    }
}

#[pymethods]
impl PyEffect {
    #[getter]
    fn kind(&self) -> &'static str {
        self.kind
    }

    #[getter]
    fn reservation_id<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.reservation
            .map(|id| PyBytes::new(py, &<[u8; 16]>::from(id)))
    }

    #[getter]
    fn decision(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.decision
            .as_ref()
            .map(|decision| decision.clone_ref(py))
    }

    #[getter]
    fn tokens(&self) -> Option<i64> {
        self.tokens
    }

    #[getter]
    fn limit_id(&self) -> Option<String> {
        self.breaker.map(|event| event.limit_id.to_string())
    }

    #[getter]
    fn scope_kind(&self) -> Option<&'static str> {
        self.breaker.map(|event| event.scope.kind.name())
    }

    #[getter]
    fn scope_id(&self) -> Option<String> {
        self.breaker.map(|event| event.scope.id.to_string())
    }

    #[getter]
    fn is_open(&self) -> Option<bool> {
        self.breaker.map(|event| event.is_open)
    }

    #[getter]
    fn sum(&self) -> Option<i64> {
        self.breaker.map(|event| event.sum)
    }

    #[getter]
    fn cap(&self) -> Option<i64> {
        self.breaker.map(|event| event.cap)
    }

    #[getter]
    fn at_wall_ns(&self) -> Option<u64> {
        self.breaker.map(|event| event.at_wall_ns)
    }
}
