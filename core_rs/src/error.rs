//! The one error of the binding, and its one way into Python.
use comptroller_engine::Error as LimitsError;
use comptroller_engine::price::PriceError;
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

create_exception!(
    core_rs,
    EngineError,
    PyException,
    "A call was wrong or could not be carried out; nothing was changed. `code` is stable."
);

/// Collects the errors of all engine parts; each has a stable code and a message.
#[derive(Debug)]
pub enum Error {
    /// From the limits engine.
    Limits(LimitsError),
    /// From the price sheet.
    Price(PriceError),
    /// An argument that Python passed is outside its range.
    Argument(&'static str),
}

impl Error {
    fn code(&self) -> &'static str {
        match self {
            Self::Limits(error) => error.code(),
            Self::Price(error) => error.code(),
            Self::Argument(_) => "invalid_argument",
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Limits(error) => error.to_string(),
            Self::Price(error) => error.to_string(),
            Self::Argument(message) => (*message).to_owned(),
        }
    }
}

impl From<LimitsError> for Error {
    fn from(error: LimitsError) -> Self {
        Self::Limits(error)
    }
}

impl From<PriceError> for Error {
    fn from(error: PriceError) -> Self {
        Self::Price(error)
    }
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let raised = EngineError::new_err(error.message());
        // Setting an attribute on a fresh exception cannot fail but for memory; then it is that error.
        Python::attach(|py| match raised.value(py).setattr("code", error.code()) {
            Ok(()) => raised,
            Err(failed) => failed,
        })
    }
}
