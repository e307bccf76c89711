//! Spaces: containers that people work in, made from templates.
//!
//! What is wanted of a space is a document that any server may write ([`record`]); where it runs is a choice made once,
//! by whoever starts it ([`placement`]). The server that was chosen compares documents with what its container runtime
//! runs ([`agent`]), acts ([`runtime`]) and reports in a document that it alone writes. A space runs where its record
//! says and nowhere else: no server takes over from another that is silent, so none ever runs twice because a link is
//! down.

pub mod agent;
pub mod placement;
pub mod record;
pub mod runtime;
pub mod spec;
