//! Log lines: a readable message plus fields with one fixed name per thing (`app.guid`, `cell.id`, `duration_ms`).
//! ERROR means that someone must look. No secrets, no bodies.

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

/// What is logged when nothing else is asked for. Libraries say at `info` what belongs to one request or query.
const QUIET: &str = "info,sqlx=warn,hyper=warn,h2=warn,tower=warn,rustls=warn,hickory_server=warn,hickory_proto=warn";

/// Starts logging to standard error. `SLIPWAY_LOG` holds the filter (`info` when unset), `SLIPWAY_LOG_FORMAT=json`
/// switches to one JSON object per line. A second call in the same process does nothing.
pub fn init(part: &'static str) {
    init_with(part, None);
}

/// The same, with a layer that gets events whether they are logged or not. It should have a filter of its own.
pub fn init_with(part: &'static str, layer: Option<Box<dyn Layer<Registry> + Send + Sync>>) {
    let filter = EnvFilter::try_from_env("SLIPWAY_LOG").unwrap_or_else(|_| EnvFilter::new(QUIET));
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if std::env::var("SLIPWAY_LOG_FORMAT").as_deref() == Ok("json") {
        lines.json().with_filter(filter).boxed()
    } else {
        lines.with_ansi(false).with_filter(filter).boxed()
    };
    if tracing_subscriber::registry().with(layer).with(lines).try_init().is_ok() {
        tracing::info!(part, version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "starting");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("lock").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn libraries_do_not_fill_the_log_with_a_line_for_each_request() {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(QUIET))
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "hickory_server::server", "request answered");
            tracing::info!(target: "sqlx::query", "select");
            tracing::warn!(target: "hickory_server::server", "cannot answer");
            tracing::info!("ours");
        });
        let text = String::from_utf8(captured.0.lock().expect("lock").clone()).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() == 2 && lines[0].contains("cannot answer") && lines[1].contains("ours"), "{text}");
    }
}
