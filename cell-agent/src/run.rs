//! The agent over Linux sandboxes, and the way to take a cell off its host.

use std::sync::Arc;

use slipway_chassis::Shutdown;

use crate::agent::{RunError, run_with};
use crate::config::CellConfig;
use crate::sandbox::{LinuxRuntime, RuntimeConfig, SandboxError, SandboxRuntime as _};

/// Runs an agent with Linux sandboxes until shutdown. Sandboxes outlive it and are adopted by the next one.
///
/// # Errors
/// When the host or the state cannot be used; once it serves, failures are reported and retried.
pub async fn run(config: CellConfig, shutdown: Shutdown) -> Result<(), RunError> {
    let runtime = LinuxRuntime::new(RuntimeConfig::from_cell(&config)?);
    run_with(Arc::new(runtime), config, shutdown).await
}

/// Ends every sandbox of a cell and removes all that it made on this host; the state directory stays. The agent must
/// not be running.
///
/// # Errors
/// The first thing that could not be removed; the others are tried all the same.
pub async fn teardown(config: CellConfig) -> Result<(), SandboxError> {
    let runtime = LinuxRuntime::new(RuntimeConfig::from_cell(&config)?);
    // Finds what there is, mounted or not, with the agent's own eyes.
    runtime.prepare().await?;
    runtime.adopt().await?;
    runtime.dismantle().await
}
