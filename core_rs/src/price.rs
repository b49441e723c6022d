//! `core_rs.PriceSheet` and `core_rs.Usage`: convert and delegate to `comptroller_engine::price`.
use comptroller_engine::price;
use comptroller_engine::price::{Context, Extent, Unit};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::Error;

/// Add the classes of this file to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PriceSheet>()?;
    module.add_class::<Usage>()
}

/// What one request used, by unit of the price catalogue.
#[pyclass(frozen, eq, hash, module = "core_rs._core")]
#[derive(PartialEq, Eq, Hash)]
pub struct Usage {
    usage: price::Usage,
}

#[pymethods]
impl Usage {
    #[new]
    #[pyo3(signature = (**counts))]
    fn new(counts: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let mut usage = price::Usage::default();
        for (name, count) in counts.into_iter().flatten() {
            let unit = unit_named(name.extract()?)?;
            usage = usage.with(unit, count.extract()?).map_err(Error::from)?;
        }
        Ok(Self { usage })
    }

    #[getter]
    fn input_tokens(&self) -> u64 {
        self.usage.count(price::INPUT_TOKENS)
    }

    #[getter]
    fn output_tokens(&self) -> u64 {
        self.usage.count(price::OUTPUT_TOKENS)
    }

    #[getter]
    fn cache_read_tokens(&self) -> u64 {
        self.usage.count(price::CACHE_READ_TOKENS)
    }

    #[getter]
    fn cache_write_tokens(&self) -> u64 {
        self.usage.count(price::CACHE_WRITE_TOKENS)
    }

    #[getter]
    fn output_reasoning_tokens(&self) -> u64 {
        self.usage.count(price::OUTPUT_REASONING_TOKENS)
    }

    fn as_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = PyDict::new(py);
        for (unit, count) in self.usage.nonzero() {
            counts.set_item(unit.name(), count)?;
        }
        Ok(counts)
    }

    fn __repr__(&self) -> String {
        let counts = self
            .usage
            .nonzero()
            .map(|(unit, count)| format!("{}={count}", unit.name()));
        format!("Usage({})", counts.collect::<Vec<_>>().join(", "))
    }
}

/// An immutable price version.
#[pyclass(frozen, module = "core_rs._core")]
pub struct PriceSheet {
    sheet: price::PriceSheet,
    version: String,
}

#[pymethods]
impl PriceSheet {
    #[new]
    fn new(py: Python<'_>, sheet_json: &[u8]) -> PyResult<Self> {
        // A full sheet is 0.7 MB and takes milliseconds, which would stop an event loop.
        let sheet = py
            .detach(|| price::PriceSheet::load(sheet_json))
            .map_err(Error::from)?;
        let digest = py
            .import("hashlib")?
            .call_method1("sha256", (sheet_json,))?;
        Ok(Self {
            sheet,
            version: digest.call_method0("hexdigest")?.extract()?,
        })
    }

    #[getter]
    fn version(&self) -> &str {
        &self.version
    }

    #[getter]
    fn currency(&self) -> &str {
        self.sheet.currency()
    }

    fn __len__(&self) -> usize {
        self.sheet.len()
    }

    fn find(&self, provider: &str, model: &str) -> Option<usize> {
        self.sheet.find(provider, model)
    }

    fn context_window(&self, price: usize) -> Result<Option<u64>, Error> {
        Ok(self.sheet.context_window(price)?)
    }

    fn input_tiers_cross(&self, price: usize, tokens: u64) -> Result<bool, Error> {
        Ok(self.sheet.input_tiers_cross(price, tokens)?)
    }

    #[pyo3(signature = (price, input_tokens, output_tokens, choices, at_wall_ns, context=None))]
    fn bound(
        &self,
        price: usize,
        input_tokens: u64,
        output_tokens: u64,
        choices: u64,
        at_wall_ns: u64,
        context: Option<Context>,
    ) -> Result<i64, Error> {
        let extent = Extent {
            input_tokens,
            output_tokens,
            choices,
        };
        Ok(self
            .sheet
            .bound(price, extent, at_wall_ns, context.as_ref())?)
    }

    #[pyo3(signature = (price, input_tokens, at_wall_ns, context=None))]
    fn output_picos(
        &self,
        price: usize,
        input_tokens: u64,
        at_wall_ns: u64,
        context: Option<Context>,
    ) -> Result<u64, Error> {
        Ok(self
            .sheet
            .output_picos(price, input_tokens, at_wall_ns, context.as_ref())?)
    }

    #[pyo3(signature = (price, usage, at_wall_ns, context=None))]
    fn cost(
        &self,
        price: usize,
        usage: &Usage,
        at_wall_ns: u64,
        context: Option<Context>,
    ) -> Result<i64, Error> {
        Ok(self
            .sheet
            .cost(price, &usage.usage, at_wall_ns, context.as_ref())?)
    }

    #[pyo3(signature = (price, nanos, input_tokens, choices, at_wall_ns, context=None))]
    fn output_tokens_within(
        &self,
        price: usize,
        nanos: i64,
        input_tokens: u64,
        choices: u64,
        at_wall_ns: u64,
        context: Option<Context>,
    ) -> Result<Option<u64>, Error> {
        let extent = Extent {
            input_tokens,
            output_tokens: 0,
            choices,
        };
        let context = context.as_ref();
        Ok(self
            .sheet
            .output_tokens_within(price, nanos, extent, at_wall_ns, context)?)
    }
}

/// Find a unit that usages report; requests are counted by the engine itself.
fn unit_named(name: &str) -> PyResult<Unit> {
    let reported = Unit::named(name).filter(|unit| *unit != price::REQUESTS);
    reported.ok_or_else(|| PyTypeError::new_err(format!("{name:?} is no unit of usage")))
}
