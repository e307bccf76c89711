//! The knot server: drives the engine, keeps its data, answers HTTP, and the command line around it.

pub mod cli;
pub mod config;
pub mod genkey;
pub mod logging;
pub mod storage;
pub mod tls;
