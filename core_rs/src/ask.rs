//! `core_rs.Ask`: what a request asks for, as one immutable value.
use std::sync::Arc;

use comptroller_engine as engine;
use engine::{Id, Streams, Subject};
use pyo3::prelude::*;

use crate::error::Error;

/// Wraps [`engine::Ask`].
#[pyclass(frozen, name = "Ask", module = "core_rs")]
pub struct PyAsk(pub engine::Ask);

#[pymethods]
impl PyAsk {
    #[new]
    #[pyo3(signature = (
        *, model, provider, input_tokens, output_tokens_max, bound_nanos, input_nanos,
        output_picos, tier=None, feature=None, agent=None, end_user=None, session=None,
        choices=1, step_tokens=0, calibration=1, streams="plain", may_wait=false, taken=None,
    ))]
    #[expect(
        clippy::too_many_arguments,
        reason = "one value says all of a request; every argument is named by its caller"
    )]
    fn new(
        model: &str,
        provider: &str,
        input_tokens: i64,
        output_tokens_max: i64,
        bound_nanos: i64,
        input_nanos: i64,
        output_picos: i64,
        tier: Option<&str>,
        feature: Option<&str>,
        agent: Option<&str>,
        end_user: Option<&str>,
        session: Option<&str>,
        choices: i64,
        step_tokens: i64,
        calibration: i64,
        streams: &str,
        may_wait: bool,
        taken: Option<Vec<(String, usize)>>,
    ) -> Result<Self, Error> {
        let streams =
            Streams::from_name(streams).ok_or(Error::Argument("streams has no such value"))?;
        Ok(Self(engine::Ask {
            subject: Arc::new(Subject {
                model: model.into(),
                tier: tier.map(Into::into),
                provider: provider.into(),
                feature: feature.map(Into::into),
            }),
            agent: agent.map(Into::into),
            end_user: end_user.map(Into::into),
            session: session.map(Into::into),
            input_tokens,
            output_tokens_max,
            choices,
            bound_nanos,
            input_nanos,
            output_picos,
            step_tokens,
            calibration,
            streams,
            may_wait,
            taken: taken.map(steps).transpose()?.unwrap_or_default(),
        }))
    }
}

fn steps(taken: Vec<(String, usize)>) -> Result<Vec<(Id, usize)>, Error> {
    let read = |(id, steps): (String, usize)| Some((Id::parse(&id)?, steps));
    let steps: Option<Vec<_>> = taken.into_iter().map(read).collect();
    steps.ok_or(Error::Argument("a step is of no limit"))
}
