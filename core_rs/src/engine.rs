//! Python classes of the limits engine: converts and delegates, decides nothing.
//!
//! The GIL is kept for a decision, which takes less than a microsecond; it is let go while JSON of
//! any size is read or written.
use comptroller_engine as engine;
use engine::{Actual, Digest, Id, KeyLimits, Now, Principal, Scope, ScopeKind, Use};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::ask::PyAsk;
use crate::decision::{
    PyAdmission, PyDiversion, PyRefusal, PySettlement, PyWaiting, decided, text,
};
use crate::effect::PyEffect;
use crate::error::{EngineError, Error};

type Result<T> = std::result::Result<T, Error>;

/// Register the classes of this file.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("EngineError", module.py().get_type::<EngineError>())?;
    module.add_class::<PyEngine>()?;
    module.add_class::<PyPrincipal>()?;
    module.add_class::<PyKeyLimits>()?;
    module.add_class::<PyAsk>()?;
    module.add_class::<PyAdmission>()?;
    module.add_class::<PyWaiting>()?;
    module.add_class::<PyDiversion>()?;
    module.add_class::<PyEffect>()?;
    module.add_class::<PyRefusal>()?;
    module.add_class::<PySettlement>()
}

fn now(wall_ns: u64, mono_ns: u64) -> Now {
    Now { wall_ns, mono_ns }
}

fn reservation_id(bytes: &[u8]) -> Result<engine::ReservationId> {
    let bytes: [u8; 16] = bytes
        .try_into()
        .map_err(|_| Error::Argument("a reservation id has 16 bytes"))?;
    Ok(bytes.into())
}

fn organization_id(text: &str) -> Result<Id> {
    Id::parse(text).ok_or(Error::Limits(engine::Error::UnknownOrganization))
}

fn scope(kind: &str, id: &str) -> Result<Scope> {
    let parts = ScopeKind::from_name(kind).zip(Id::parse(id));
    let (kind, id) = parts.ok_or(Error::Limits(engine::Error::InvalidArgument(
        "no such scope",
    )))?;
    Ok(Scope { kind, id })
}

/// Wraps [`engine::Engine`].
#[pyclass(frozen, name = "Engine", module = "core_rs")]
pub struct PyEngine(engine::Engine);

#[pymethods]
impl PyEngine {
    #[new]
    fn new() -> Self {
        Self(engine::Engine::new())
    }

    fn load_keys(&self, py: Python<'_>, keys_json: &[u8]) -> Result<usize> {
        Ok(py.detach(|| self.0.load_keys(keys_json))?)
    }

    fn missing_counters<'py>(
        &self,
        py: Python<'py>,
        snapshot_json: &[u8],
        wall_ns: u64,
        mono_ns: u64,
    ) -> Result<Bound<'py, PyBytes>> {
        let at = now(wall_ns, mono_ns);
        let json = py.detach(|| self.0.missing_counters(snapshot_json, at))?;
        Ok(PyBytes::new(py, &json))
    }

    fn load_organization(
        &self,
        py: Python<'_>,
        snapshot_json: &[u8],
        seeds_json: &[u8],
        wall_ns: u64,
        mono_ns: u64,
    ) -> Result<()> {
        let at = now(wall_ns, mono_ns);
        py.detach(|| self.0.load_organization(snapshot_json, seeds_json, at))?;
        Ok(())
    }

    fn authenticate(&self, digest: &[u8], wall_ns: u64) -> Result<Option<PyPrincipal>> {
        let digest: [u8; 32] = digest
            .try_into()
            .map_err(|_| Error::Argument("a digest has 32 bytes"))?;
        let found = self.0.authenticate(Digest::from(digest), wall_ns)?;
        Ok(found.map(PyPrincipal))
    }

    fn missing_shared<'py>(
        &self,
        py: Python<'py>,
        snapshot_json: &[u8],
        wall_ns: u64,
        mono_ns: u64,
    ) -> Result<Bound<'py, PyBytes>> {
        let at = now(wall_ns, mono_ns);
        let json = py.detach(|| self.0.missing_shared(snapshot_json, at))?;
        Ok(PyBytes::new(py, &json))
    }

    fn load_shared(
        &self,
        py: Python<'_>,
        snapshot_json: &[u8],
        seeds_json: &[u8],
        wall_ns: u64,
        mono_ns: u64,
    ) -> Result<()> {
        let at = now(wall_ns, mono_ns);
        Ok(py.detach(|| self.0.load_shared(snapshot_json, seeds_json, at))?)
    }

    fn shared_states<'py>(
        &self,
        py: Python<'py>,
        wall_ns: u64,
        mono_ns: u64,
    ) -> Result<Bound<'py, PyBytes>> {
        let json = py.detach(|| self.0.shared_states(now(wall_ns, mono_ns)))?;
        Ok(PyBytes::new(py, &json))
    }

    #[pyo3(signature = (key, *, model, provider, endpoint, request_class, tier=None, feature=None))]
    #[expect(
        clippy::too_many_arguments,
        reason = "every argument is named by its caller"
    )]
    fn refused_by_rule(
        &self,
        key: u32,
        model: &str,
        provider: &str,
        endpoint: &str,
        request_class: &str,
        tier: Option<&str>,
        feature: Option<&str>,
    ) -> Result<Option<(&'static str, &'static str)>> {
        let asked = Use {
            model,
            tier,
            provider,
            feature,
            class: request_class,
            endpoint,
        };
        let refused = self.0.refused_by_rule(key, &asked)?;
        Ok(refused.map(|(code, kind)| (code, kind.name())))
    }

    fn ruling_json<'py>(&self, py: Python<'py>, key: u32) -> Result<Bound<'py, PyBytes>> {
        let ruling = self.0.ruling(key)?;
        let json = serde_json::to_vec(&ruling).map_err(|_| Error::Argument("no JSON"))?;
        Ok(PyBytes::new(py, &json))
    }

    fn charge(&self, key: u32, cost_nanos: i64, wall_ns: u64) -> Result<i64> {
        Ok(self.0.charge(key, cost_nanos, wall_ns)?)
    }

    fn admit<'py>(
        &self,
        py: Python<'py>,
        key: u32,
        reservation_id: &[u8],
        ask: &PyAsk,
        wall_ns: u64,
        mono_ns: u64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let id = self::reservation_id(reservation_id)?;
        let decision = self.0.admit(key, id, &ask.0, now(wall_ns, mono_ns));
        decided(py, decision.map_err(Error::from)?)
    }

    fn preview<'py>(
        &self,
        py: Python<'py>,
        key: u32,
        ask: &PyAsk,
        wall_ns: u64,
        mono_ns: u64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let decision = self.0.preview(key, &ask.0, now(wall_ns, mono_ns));
        decided(py, decision.map_err(Error::from)?)
    }

    fn give_up<'py>(
        &self,
        py: Python<'py>,
        organization: u32,
        reservation_id: &[u8],
        wall_ns: u64,
        mono_ns: u64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let id = self::reservation_id(reservation_id)?;
        let decision = self.0.give_up(organization, id, now(wall_ns, mono_ns));
        decided(py, decision.map_err(Error::from)?)
    }

    fn leave(
        &self,
        organization: u32,
        reservation_id: &[u8],
        wall_ns: u64,
        mono_ns: u64,
    ) -> Result<bool> {
        let id = self::reservation_id(reservation_id)?;
        Ok(self.0.leave(organization, id, now(wall_ns, mono_ns))?)
    }

    fn go_on(&self, organization: u32, wall_ns: u64, mono_ns: u64) -> Result<bool> {
        Ok(self.0.go_on(organization, now(wall_ns, mono_ns))?)
    }

    fn has_effects(&self, organization: u32) -> Result<bool> {
        Ok(self.0.has_effects(organization)?)
    }

    fn take_effects(&self, py: Python<'_>, organization: u32) -> PyResult<Vec<PyEffect>> {
        let effects = self.0.take_effects(organization).map_err(Error::from)?;
        effects
            .into_iter()
            .map(|effect| PyEffect::new(py, effect))
            .collect()
    }

    fn key_limits(
        &self,
        py: Python<'_>,
        key: u32,
        wall_ns: u64,
        mono_ns: u64,
    ) -> Result<PyKeyLimits> {
        let limits = py.detach(|| self.0.key_limits(key, now(wall_ns, mono_ns)))?;
        Ok(PyKeyLimits(limits))
    }

    fn extend(
        &self,
        organization: u32,
        reservation_id: &[u8],
        output_tokens: i64,
        wall_ns: u64,
        mono_ns: u64,
    ) -> Result<Option<i64>> {
        let id = self::reservation_id(reservation_id)?;
        Ok(self
            .0
            .extend(organization, id, output_tokens, now(wall_ns, mono_ns))?)
    }

    fn progress(
        &self,
        organization: u32,
        reservation_id: &[u8],
        cost_nanos: i64,
        tokens: i64,
        wall_ns: u64,
        mono_ns: u64,
    ) -> Result<()> {
        let id = self::reservation_id(reservation_id)?;
        let so_far = Actual {
            cost_nanos,
            tokens,
            output_tokens: None,
        };
        Ok(self
            .0
            .progress(organization, id, so_far, now(wall_ns, mono_ns))?)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call a request: no object is built for it"
    )]
    fn settle(
        &self,
        organization: u32,
        reservation_id: &[u8],
        cost_nanos: i64,
        tokens: i64,
        output_tokens: Option<i64>,
        wall_ns: u64,
        mono_ns: u64,
    ) -> Result<PySettlement> {
        let id = self::reservation_id(reservation_id)?;
        let actual = Actual {
            cost_nanos,
            tokens,
            output_tokens,
        };
        Ok(PySettlement(self.0.settle(
            organization,
            id,
            actual,
            now(wall_ns, mono_ns),
        )?))
    }

    fn release(
        &self,
        organization: u32,
        reservation_id: &[u8],
        wall_ns: u64,
        mono_ns: u64,
    ) -> Result<bool> {
        let id = self::reservation_id(reservation_id)?;
        Ok(self.0.release(organization, id, now(wall_ns, mono_ns))?)
    }

    fn booked_through(&self, organization: u32, seq: u64) -> Result<()> {
        Ok(self.0.booked_through(organization, seq)?)
    }

    fn limit_states<'py>(
        &self,
        py: Python<'py>,
        organization_id: &str,
        wall_ns: u64,
        mono_ns: u64,
    ) -> Result<Bound<'py, PyBytes>> {
        let number = self.organization_index(organization_id)?;
        let json = py.detach(|| self.0.limit_states(number, now(wall_ns, mono_ns)))?;
        Ok(PyBytes::new(py, &json))
    }

    fn scope_states<'py>(
        &self,
        py: Python<'py>,
        organization_id: &str,
        scope_kind: &str,
        scope_id: &str,
        wall_ns: u64,
        mono_ns: u64,
    ) -> Result<Bound<'py, PyBytes>> {
        let number = self.organization_index(organization_id)?;
        let scope = scope(scope_kind, scope_id)?;
        let json = self.0.scope_states(number, scope, now(wall_ns, mono_ns))?;
        Ok(PyBytes::new(py, &json))
    }

    fn organization_index(&self, organization_id: &str) -> Result<u32> {
        Ok(self
            .0
            .organization_number(self::organization_id(organization_id)?)?)
    }

    fn organization_id(&self, organization: u32) -> Result<String> {
        Ok(self.0.organization_id(organization)?.to_string())
    }

    fn open_reservations(&self, organization_id: &str) -> Result<usize> {
        Ok(self
            .0
            .open_reservations(self.organization_index(organization_id)?)?)
    }
}

/// Wraps [`Principal`].
#[pyclass(frozen, name = "Principal", module = "core_rs")]
pub struct PyPrincipal(Principal);

#[pymethods]
impl PyPrincipal {
    #[getter]
    fn key(&self) -> u32 {
        self.0.key
    }

    #[getter]
    fn organization(&self) -> u32 {
        self.0.organization
    }

    #[getter]
    fn key_id(&self) -> String {
        self.0.key_id.to_string()
    }

    #[getter]
    fn organization_id(&self) -> String {
        self.0.organization_id.to_string()
    }

    #[getter]
    fn team_id(&self) -> Option<String> {
        text(self.0.team_id)
    }

    #[getter]
    fn member_id(&self) -> Option<String> {
        text(self.0.member_id)
    }

    #[getter]
    fn cost_center_id(&self) -> Option<String> {
        text(self.0.cost_center_id)
    }

    #[getter]
    fn state(&self) -> &'static str {
        self.0.state.name()
    }

    #[getter]
    fn organization_state(&self) -> &'static str {
        self.0.organization_state.name()
    }

    #[getter]
    fn policy_version(&self) -> &str {
        &self.0.policy_version
    }
}

/// Wraps [`KeyLimits`].
#[pyclass(frozen, name = "KeyLimits", module = "core_rs")]
pub struct PyKeyLimits(KeyLimits);

#[pymethods]
impl PyKeyLimits {
    #[getter]
    fn team_id(&self) -> Option<String> {
        text(self.0.path.team())
    }

    #[getter]
    fn member_id(&self) -> Option<String> {
        text(self.0.path.member())
    }

    #[getter]
    fn policy_version(&self) -> &str {
        &self.0.policy_version
    }

    fn states_json<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.states_json)
    }
}
