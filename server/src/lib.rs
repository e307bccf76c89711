//! The knot server: drives the engine, keeps its data, answers HTTP, and the command line around it.

pub mod accounts;
pub mod api;
pub mod cli;
pub mod config;
mod differences;
mod driver;
pub mod genkey;
pub mod handle;
mod hosts;
pub mod links;
pub mod logging;
pub mod metrics;
pub mod net;
pub mod records;
pub mod run;
pub mod serve;
pub mod simulated;
pub mod spaces;
pub mod start;
pub mod storage;
pub mod templates;
pub mod tls;
pub mod transitions;
mod web;
pub mod websocket;
pub mod zones;

pub use self::driver::Stop;
pub use self::run::{Platform, Reload, Reloaded, RunError, Running, run};
