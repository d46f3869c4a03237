//! What every server part of Slipway starts with. Knows no business word.
//!
//! * [`admin`]: the operator's listener, with health and metrics.
//! * [`telemetry`]: log lines with one grammar.
//! * [`config`]: typed configuration from a TOML file, all mistakes reported at once.
//! * [`shutdown`]: tell, wait, force.
//! * [`backoff`]: growing pauses with jitter.
//! * [`clock`]: the time of day as numbers.
//! * [`driver`]: background tasks that reconcile, with a period, a wake and a visible status.
//! * [`files`]: small files that are replaced as a whole.
//! * [`metrics`]: a page in Prometheus' text format.
//! * [`errors`]: printing a chain of causes once, where it is handled.

#![forbid(unsafe_code)]

pub mod admin;
pub mod backoff;
pub mod clock;
pub mod config;
pub mod driver;
pub mod errors;
pub mod files;
pub mod metrics;
pub mod shutdown;
pub mod sizes;
pub mod telemetry;

pub use backoff::Backoff;
pub use errors::chain;
pub use shutdown::Shutdown;
