//! Python's view of the wire crate: converts and delegates.
use std::sync::{Mutex, MutexGuard, PoisonError};

use comptroller_wire as wire;
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple, PyType};

/// Work on less than this takes microseconds; giving up the GIL and taking it back costs as much.
const HELD_GIL_BYTES_MAX: usize = 16 << 10;

type Span = (usize, usize);

create_exception!(
    core_rs,
    WireError,
    PyException,
    "Bytes of a caller or a provider that cannot be trusted."
);

/// Carries an error of the wire crate into Python.
struct Raised(wire::WireError);

impl From<wire::WireError> for Raised {
    fn from(error: wire::WireError) -> Self {
        Self(error)
    }
}

impl From<Raised> for PyErr {
    fn from(Raised(error): Raised) -> Self {
        let raised = WireError::new_err(error.message.clone().into_owned());
        let param = (!error.param.is_empty()).then_some(error.param);
        // Setting an attribute on a fresh exception only fails for want of memory: then it is that.
        Python::attach(|py| {
            let value = raised.value(py);
            let set = value
                .setattr("code", error.code.as_str())
                .and_then(|()| value.setattr("message", error.message.as_ref()))
                .and_then(|()| value.setattr("param", param))
                .and_then(|()| value.setattr("offset", error.offset));
            set.err()
        })
        .unwrap_or(raised)
    }
}

/// Register everything of this file.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("WireError", error_class(module.py())?)?;
    module.add_class::<ChatFacts>()?;
    module.add_class::<ReportedUsage>()?;
    module.add_class::<StreamMeter>()?;
    module.add_class::<ChatAnswer>()?;
    module.add_class::<AnswerAssembler>()?;
    module.add_function(wrap_pyfunction!(scan_object, module)?)?;
    module.add_function(wrap_pyfunction!(chat_facts, module)?)?;
    module.add_function(wrap_pyfunction!(count_chat_tokens, module)?)?;
    module.add_function(wrap_pyfunction!(secret_checksum, module)?)?;
    module.add_function(wrap_pyfunction!(secret_digest, module)?)?;
    module.add_function(wrap_pyfunction!(vocabulary_of, module)?)?;
    module.add_function(wrap_pyfunction!(count_tokens, module)?)?;
    module.add_function(wrap_pyfunction!(warm_vocabularies, module)?)?;
    module.add_function(wrap_pyfunction!(parse_chat_answer, module)?)
}

/// The class with its attributes declared, so that the stubs can promise them.
fn error_class(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let class = py.get_type::<WireError>();
    class.setattr("code", "malformed_json")?;
    class.setattr("message", "")?;
    class.setattr("param", py.None())?;
    class.setattr("offset", 0)?;
    Ok(class)
}

/// Check a whole request body and give its top-level members as (name, start, end).
#[pyfunction]
fn scan_object<'py>(
    py: Python<'py>,
    body: &[u8],
) -> PyResult<Vec<(Bound<'py, PyString>, usize, usize)>> {
    let members = without_gil(py, body.len(), || wire::scan_object(body)).map_err(Raised)?;
    // Not interned: on Python 3.12 a caller could fill the memory with names that never die.
    let spans = members
        .iter()
        .map(|m| (PyString::new(py, &m.name), m.start, m.end));
    Ok(spans.collect())
}

/// Read the messages of a scanned body, and check its tools.
#[pyfunction]
#[pyo3(signature = (body, messages, tools=None, response_format=None))]
fn chat_facts(
    py: Python<'_>,
    body: &[u8],
    messages: Span,
    tools: Option<Span>,
    response_format: Option<Span>,
) -> PyResult<ChatFacts> {
    let input = wire::ChatInput {
        messages: span_bytes(body, messages)?,
        tools_bytes: tools
            .map(|span| span_bytes(body, span).map(<[u8]>::len))
            .transpose()?,
        response_format_bytes: response_format
            .map(|span| span_bytes(body, span).map(<[u8]>::len))
            .transpose()?,
    };
    let facts = without_gil(py, input.messages.len(), || wire::chat_facts(input));
    let facts = facts.map_err(|error| Raised(error.shifted(messages.0)))?;
    if let Some(span) = tools {
        let tools = span_bytes(body, span)?;
        let checked = without_gil(py, tools.len(), || wire::check_tools(tools));
        checked.map_err(|error| Raised(error.shifted(span.0)))?;
    }
    Ok(ChatFacts(facts))
}

/// Count the tokens of a chat input, never below what is billed.
#[pyfunction]
#[pyo3(signature = (vocabulary, messages_json, tools_json=None, response_format_json=None))]
fn count_chat_tokens(
    py: Python<'_>,
    vocabulary: &str,
    messages_json: &[u8],
    tools_json: Option<&[u8]>,
    response_format_json: Option<&[u8]>,
) -> PyResult<u64> {
    let vocabulary = named(vocabulary)?;
    let input = wire::ChatInput {
        messages: messages_json,
        tools_bytes: tools_json.map(<[u8]>::len),
        response_format_bytes: response_format_json.map(<[u8]>::len),
    };
    // Counting is fifty times as slow as scanning.
    let cost = messages_json.len().saturating_mul(50);
    let counted = without_gil(py, cost, || wire::count_chat_tokens(vocabulary, input));
    Ok(counted.map_err(Raised)?)
}

/// Compute the digits that end a secret.
#[pyfunction]
fn secret_checksum(stem: &str) -> String {
    wire::secret_checksum(stem)
}

/// Compute what is stored and looked up in place of a secret.
#[pyfunction]
fn secret_digest<'py>(py: Python<'py>, pepper: &[u8], secret: &str) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &wire::secret_digest(pepper, secret.as_bytes()))
}

/// Name the bundled vocabulary of a model; None if its tokenizer is closed.
#[pyfunction]
fn vocabulary_of(model: &str) -> Option<&'static str> {
    wire::Vocabulary::of_model(model).map(wire::Vocabulary::name)
}

/// Count the tokens of a text.
#[pyfunction]
fn count_tokens(py: Python<'_>, vocabulary: &str, text: &str) -> PyResult<u64> {
    let vocabulary = named(vocabulary)?;
    Ok(without_gil(py, text.len().saturating_mul(50), || {
        vocabulary.count(text)
    }))
}

/// Load both vocabularies now instead of at their first use.
#[pyfunction]
fn warm_vocabularies(py: Python<'_>) {
    py.detach(|| {
        wire::Vocabulary::O200kBase.warm();
        wire::Vocabulary::Cl100kBase.warm();
    });
}

/// Read the JSON answer of a chat-completions call that did not stream.
#[pyfunction]
#[pyo3(signature = (body, vocabulary=None))]
fn parse_chat_answer(
    py: Python<'_>,
    body: &[u8],
    vocabulary: Option<&str>,
) -> PyResult<ChatAnswer> {
    let vocabulary = vocabulary.map(named).transpose()?;
    let answer = without_gil(py, body.len(), || wire::parse_chat_answer(body, vocabulary));
    Ok(ChatAnswer(answer.map_err(Raised)?))
}

/// What admission needs to know about the input of a chat request.
#[pyclass(frozen, module = "core_rs._core")]
struct ChatFacts(wire::ChatFacts);

#[pymethods]
impl ChatFacts {
    #[getter]
    fn message_count(&self) -> usize {
        self.0.message_count
    }

    #[getter]
    fn input_tokens_max(&self) -> u64 {
        self.0.input_tokens_max
    }

    #[getter]
    fn unbounded_parts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.0.unbounded_parts)
    }
}

/// The usage a provider reported, in tokens.
#[pyclass(frozen, eq, module = "core_rs._core")]
#[derive(PartialEq)]
struct ReportedUsage(wire::Usage);

#[pymethods]
impl ReportedUsage {
    #[getter]
    fn input_tokens(&self) -> u64 {
        self.0.input_tokens
    }

    #[getter]
    fn output_tokens(&self) -> u64 {
        self.0.output_tokens
    }

    #[getter]
    fn cache_read_tokens(&self) -> u64 {
        self.0.cache_read_tokens
    }

    #[getter]
    fn cache_write_tokens(&self) -> u64 {
        self.0.cache_write_tokens
    }

    #[getter]
    fn input_audio_tokens(&self) -> u64 {
        self.0.input_audio_tokens
    }

    #[getter]
    fn output_audio_tokens(&self) -> u64 {
        self.0.output_audio_tokens
    }

    #[getter]
    fn reasoning_tokens(&self) -> u64 {
        self.0.reasoning_tokens
    }
}

/// Relay one chat-completions SSE stream and see what it says about itself.
#[pyclass(frozen, module = "core_rs._core")]
struct StreamMeter(Mutex<wire::StreamMeter>);

impl StreamMeter {
    /// A panic while feeding cannot leave the meter in a state that says too little was used.
    fn lock(&self) -> MutexGuard<'_, wire::StreamMeter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl StreamMeter {
    #[new]
    #[pyo3(signature = (*, strip_usage, vocabulary=None))]
    fn new(strip_usage: bool, vocabulary: Option<&str>) -> PyResult<Self> {
        let vocabulary = vocabulary.map(named).transpose()?;
        Ok(Self(Mutex::new(wire::StreamMeter::new(
            strip_usage,
            vocabulary,
        ))))
    }

    /// Take a chunk and give the bytes to relay now.
    fn feed<'py>(&self, chunk: Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyBytes>> {
        let py = chunk.py();
        let bytes = chunk.as_bytes();
        let relay = without_gil(py, bytes.len(), || self.lock().feed(bytes));
        Ok(match relay.map_err(Raised)? {
            wire::Relay::Chunk => chunk,
            wire::Relay::Bytes(bytes) => PyBytes::new(py, &bytes),
        })
    }

    /// Say that the stream ended and give the last bytes to relay.
    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let rest = self.lock().finish().map_err(Raised)?;
        Ok(PyBytes::new(py, &rest))
    }

    #[getter]
    fn failure(&self) -> Option<&'static str> {
        self.lock().failure().map(wire::Failure::as_str)
    }

    #[getter]
    fn usage(&self) -> Option<ReportedUsage> {
        self.lock().usage().map(ReportedUsage)
    }

    #[getter]
    fn usage_fault(&self) -> Option<&'static str> {
        self.lock().usage_fault().map(wire::UsageFault::as_str)
    }

    #[getter]
    fn is_done(&self) -> bool {
        self.lock().is_done()
    }

    #[getter]
    fn upstream_error<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.lock()
            .upstream_error()
            .map(|json| PyBytes::new(py, json.as_bytes()))
    }

    #[getter]
    fn model(&self) -> Option<String> {
        self.lock().model().map(String::from)
    }

    #[getter]
    fn finish_reasons<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.lock().finish_reasons().into_pyobject(py)
    }

    #[getter]
    fn has_generated(&self) -> bool {
        self.lock().generated_bytes() > 0
    }

    #[getter]
    fn generated_bytes(&self) -> u64 {
        self.lock().generated_bytes()
    }

    /// Count the visible tokens so far.
    fn generated_tokens(&self, py: Python<'_>) -> u64 {
        let cost = self.lock().uncounted_bytes().saturating_mul(50);
        without_gil(py, cost, || self.lock().generated_tokens())
    }
}

/// What a chat-completions answer in one piece says about itself.
#[pyclass(frozen, module = "core_rs._core")]
struct ChatAnswer(wire::ChatAnswer);

#[pymethods]
impl ChatAnswer {
    #[getter]
    fn usage(&self) -> Option<ReportedUsage> {
        self.0.usage.map(ReportedUsage)
    }

    #[getter]
    fn usage_fault(&self) -> Option<&'static str> {
        self.0.usage_fault.map(wire::UsageFault::as_str)
    }

    #[getter]
    fn model(&self) -> Option<&str> {
        self.0.model.as_deref()
    }

    #[getter]
    fn finish_reasons<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        (&self.0.finish_reasons).into_pyobject(py)
    }

    #[getter]
    fn upstream_error<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0
            .upstream_error
            .as_ref()
            .map(|json| PyBytes::new(py, json.as_bytes()))
    }

    #[getter]
    fn generated_bytes(&self) -> u64 {
        self.0.generated_bytes
    }

    #[getter]
    fn generated_tokens(&self) -> Option<u64> {
        self.0.generated_tokens
    }
}

/// Put the chunks of a stream together to the answer a plain call would have had.
#[pyclass(frozen, module = "core_rs._core")]
struct AnswerAssembler(Mutex<wire::AnswerAssembler>);

impl AnswerAssembler {
    /// A panic while feeding leaves an answer that is short, as one that was cut is.
    fn lock(&self) -> MutexGuard<'_, wire::AnswerAssembler> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl AnswerAssembler {
    #[new]
    #[pyo3(signature = (*, answer_id, created_s, model, choices=1, bytes_max))]
    fn new(
        answer_id: String,
        created_s: u64,
        model: String,
        choices: u32,
        bytes_max: usize,
    ) -> PyResult<Self> {
        if !(1..=wire::CHOICES_MAX).contains(&choices) {
            let message = format!("choices must be 1 to {}", wire::CHOICES_MAX);
            return Err(PyValueError::new_err(message));
        }
        let identity = wire::Identity {
            id: answer_id,
            created_s,
            model,
            choices,
        };
        Ok(Self(Mutex::new(wire::AnswerAssembler::new(
            identity, bytes_max,
        ))))
    }

    /// Take a chunk of the stream.
    fn feed(&self, chunk: Bound<'_, PyBytes>) -> PyResult<()> {
        let bytes = chunk.as_bytes();
        let fed = without_gil(chunk.py(), bytes.len(), || self.lock().feed(bytes));
        Ok(fed.map_err(Raised)?)
    }

    /// Say that the stream ended, and give the answer.
    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.lock().kept_bytes();
        let json = without_gil(py, bytes, || self.lock().finish()).map_err(Raised)?;
        Ok(PyBytes::new(py, &json))
    }

    /// Give what was generated so far.
    #[pyo3(signature = (*, input_tokens, output_tokens))]
    fn finish_cut<'py>(
        &self,
        py: Python<'py>,
        input_tokens: u64,
        output_tokens: u64,
    ) -> Bound<'py, PyBytes> {
        let bytes = self.lock().kept_bytes();
        let json = without_gil(py, bytes, || {
            self.lock().finish_cut(input_tokens, output_tokens)
        });
        PyBytes::new(py, &json)
    }

    #[getter]
    fn kept_bytes(&self) -> usize {
        self.lock().kept_bytes()
    }
}

/// Run work on so many bytes, without the GIL if they are many. A lock taken inside `work` is
/// given back before the GIL is taken again, so the two cannot wait for each other.
fn without_gil<T: Send>(py: Python<'_>, bytes: usize, work: impl FnOnce() -> T + Send) -> T {
    if bytes > HELD_GIL_BYTES_MAX {
        py.detach(work)
    } else {
        work()
    }
}

fn named(vocabulary: &str) -> PyResult<wire::Vocabulary> {
    wire::Vocabulary::named(vocabulary).map_err(|error| PyValueError::new_err(error.to_string()))
}

fn span_bytes(body: &[u8], (start, end): Span) -> PyResult<&[u8]> {
    body.get(start..end)
        .ok_or_else(|| PyValueError::new_err("a span lies outside the body"))
}
