//! Behaviour of the wire crate through its public face; one binary, because each carries the vocabularies.
mod answer;
mod chat;
mod json;
mod stream;
mod tokens;
