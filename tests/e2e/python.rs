//! cloudfoundry-client for Python, as people install it, over every resource that it knows.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};
use slipway_tests::Platform;

/// A Python that has the client; `./test` makes one and says where.
fn python() -> PathBuf {
    std::env::var_os("SLIPWAY_PYTHON").map_or_else(|| "/var/cache/slipway/venv/bin/python3".into(), PathBuf::from)
}

pub(crate) async fn the_python_client_does_everything_that_it_knows(platform: &mut Platform) -> anyhow::Result<()> {
    let (python, repository) = (python(), Platform::repository());
    let outcome = Command::new(&python)
        .arg(repository.join("tests/python/walk.py"))
        .arg(platform.url("api"))
        .arg(platform.router_address().port().to_string())
        .arg(platform.layout().state("admin-password"))
        .arg(repository.join("examples/static"))
        .output()
        .with_context(|| format!("{}: run ./test once, which makes it", python.display()))?;
    let (out, errors) = (String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));
    ensure!(outcome.status.success(), "walk.py: {}\n{out}\n{errors}", outcome.status);
    ensure!(out.contains("everything_goes_away ... ok"), "walk.py did not come to its end:\n{out}");
    Ok(())
}
