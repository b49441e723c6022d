//! Python bindings. Registration only; each wrapper sits in a file of its own.
use pyo3::prelude::*;

mod ask;
mod decision;
mod effect;
mod engine;
mod error;
mod price;
mod wire;

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("ENGINE_VERSION", env!("CARGO_PKG_VERSION"))?;
    wire::register(module)?;
    engine::register(module)?;
    price::register(module)?;
    Ok(())
}
