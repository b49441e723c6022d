//! Behaviour of the wire crate through its public face; one binary, because each carries the vocabularies.
mod answer;
mod assembler;
mod chat;
mod json;
mod secret;
mod stream;
mod tokens;
mod tools;
