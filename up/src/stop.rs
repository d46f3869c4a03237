//! `slipway down`: everything ends, in the order that loses nothing, and the host is as it was.

use std::time::Duration;

use nix::sys::signal::Signal;
use slipway_chassis::chain;
use tokio::process::Command;

use crate::UpError;
use crate::layout::Layout;
use crate::parts;
use crate::previous::{DNS, ROUTER};
use crate::process::ChildRecord;
use crate::supervisor;

/// Stops the platform of this state directory. Returns whether anything ran.
///
/// # Errors
/// When a supervisor that is stuck still holds its lock after it was killed.
pub async fn down(layout: &Layout) -> Result<bool, UpError> {
    let mut ran = false;
    if let Some(known) = supervisor::running(layout) {
        ran = true;
        supervisor::ask_to_stop(known, Duration::from_secs(90)).await;
    }
    if !layout.state.exists() {
        return Ok(ran);
    }
    // Also after a supervisor that was killed, or whose work was cut short: repeating is harmless.
    let _lock = supervisor::lock(layout)?;
    ran |= ["postgres", "controller", "cell", ROUTER, DNS]
        .iter()
        .any(|part| ChildRecord::load(&layout.pid(part)).is_some());
    everything(layout).await;
    Ok(ran)
}

/// Ends the router (no new requests), the cell and its instances, the controller, then Postgres.
pub(crate) async fn everything(layout: &Layout) {
    end(layout, DNS, Signal::SIGTERM, Duration::from_secs(5)).await;
    end_router(layout).await;
    end(layout, "cell", Signal::SIGTERM, Duration::from_secs(15)).await;
    tear_down_cell(layout).await;
    end(layout, "controller", Signal::SIGTERM, Duration::from_secs(15)).await;
    // SIGINT is Postgres' fast shutdown: sessions are cut, the data directory is left clean.
    end(layout, "postgres", Signal::SIGINT, Duration::from_secs(30)).await;
    if let Err(error) = remove_run_directory(layout) {
        tracing::warn!(error = %chain(&error), "run directory not removed");
    }
}

/// Ends parts that an earlier supervisor left, without touching the instances: the next agent adopts them. The router
/// goes on until it can be replaced: [`end_router`].
pub(crate) async fn end_parts(layout: &Layout) {
    for part in [DNS, "cell", "controller"] {
        end(layout, part, Signal::SIGTERM, Duration::from_secs(10)).await;
    }
    end(layout, "postgres", Signal::SIGINT, Duration::from_secs(30)).await;
}

/// Ends a router that an earlier supervisor left.
pub(crate) async fn end_router(layout: &Layout) {
    end(layout, ROUTER, Signal::SIGTERM, Duration::from_secs(15)).await;
}

async fn end(layout: &Layout, part: &str, signal: Signal, grace: Duration) {
    if let Some(known) = ChildRecord::load(&layout.pid(part))
        && !known.end(signal, grace).await
    {
        tracing::warn!(part, "did not stop in time and was killed");
    }
    // The files speak of a process that is gone; absent ones are fine.
    let _ = std::fs::remove_file(layout.pid(part));
    let _ = std::fs::remove_file(layout.ready(part));
}

/// Ends every instance and removes bridge, tables, cgroups, mounts and loop devices of the cell.
async fn tear_down_cell(layout: &Layout) {
    let config = layout.config("cell");
    if !config.exists() {
        return;
    }
    let outcome = match parts::program() {
        Ok(program) => Command::new(program).arg("cell").arg("--config").arg(&config).arg("--teardown").output().await,
        Err(error) => {
            tracing::warn!(error = %chain(&error), "the cell's host resources were not removed");
            return;
        }
    };
    match outcome {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            tracing::warn!(status = %output.status, text, "the cell's host resources were not all removed");
        }
        Err(error) => tracing::warn!(%error, "the cell's host resources were not removed"),
    }
}

fn remove_run_directory(layout: &Layout) -> Result<(), UpError> {
    match std::fs::remove_dir_all(&layout.run) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(UpError::File { path: layout.run.clone(), source: error })
        }
        _ => Ok(()),
    }
}
