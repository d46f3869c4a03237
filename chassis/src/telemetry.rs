//! Log lines: a readable message plus fields with one fixed name per thing (`app.guid`, `cell.id`, `duration_ms`).
//! ERROR means that someone must look. No secrets, no bodies.

use tracing_subscriber::EnvFilter;

/// Starts logging to standard error. `SLIPWAY_LOG` holds the filter (`info` when unset), `SLIPWAY_LOG_FORMAT=json`
/// switches to one JSON object per line. A second call in the same process does nothing.
pub fn init(part: &'static str) {
    let filter = EnvFilter::try_from_env("SLIPWAY_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn,hyper=warn,h2=warn,tower=warn,rustls=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if std::env::var("SLIPWAY_LOG_FORMAT").as_deref() == Ok("json") {
        builder.json().try_init()
    } else {
        builder.with_ansi(false).try_init()
    };
    if started.is_ok() {
        tracing::info!(part, version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "starting");
    }
}
