pub mod api;
pub mod handle;
pub mod metrics;
pub mod serve;
