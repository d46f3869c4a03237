//! What a build made: looked at here, uploaded, kept in this cell's own cache.

use std::path::Path;
use std::time::Duration;

use slipway_buildpacks::contract::{BuildOutcome, CACHE_FILE, DROPLET_FILE};
use slipway_protocol::v1::{Blob, BuildResult};
use tokio::time::Instant;

use super::failure::Failure;
use super::{Build, outcome};

impl Build<'_> {
    /// Checks what the builder claims, uploads the droplet and keeps it here as well.
    pub(super) async fn collect(&self, answer: BuildOutcome) -> Result<BuildResult, Failure> {
        let most = if self.spec.max_droplet_bytes == 0 { 4 << 30 } else { self.spec.max_droplet_bytes };
        let droplet = self.output(DROPLET_FILE, most).await?;
        let path = self.volume.output(DROPLET_FILE);
        // Unpacked first: what cannot be unpacked here cannot be unpacked anywhere.
        let lease = self.job.services.cache.adopt_droplet(&droplet, &path).await?;
        self.upload(&droplet, &path).await?;
        let cache = if answer.cache.is_some() { self.new_cache(most).await } else { None };
        let mut result = outcome::result(answer, self.spec, &self.job.prepared.spec.stack)?;
        result.droplet = Some(droplet);
        result.cache = cache;
        result.droplet_unpacked_bytes = lease.size();
        Ok(result)
    }

    /// A new build cache, uploaded; `None` when there is none to be noted. That of the last build stays the app's until
    /// another one is noted, so one that did not change is neither sent nor named.
    async fn new_cache(&self, most: u64) -> Option<Blob> {
        let warn = |failure: Failure| {
            tracing::warn!(reason = failure.text(), "the build cache was not kept");
        };
        let blob = self.output(CACHE_FILE, most).await.map_err(warn).ok()?;
        // One that was lost is sent again, also when it is the same.
        if self.has_cache && self.spec.cache.as_ref().is_some_and(|last| last.digest == blob.digest) {
            return None;
        }
        self.upload(&blob, &self.volume.output(CACHE_FILE)).await.map_err(warn).ok()?;
        Some(blob)
    }

    async fn output(&self, name: &'static str, most: u64) -> Result<Blob, Failure> {
        let volume = self.volume.clone();
        let hashed = tokio::task::spawn_blocking(move || volume.hash_output(name, most)).await;
        let (digest, size) = hashed
            .map_err(|error| Failure::host("hashing an output of the build", &std::io::Error::other(error)))?
            .map_err(|error| Failure::staging(&slipway_chassis::chain(&error).to_string()))?;
        Ok(Blob { digest: digest.as_bytes().to_vec().into(), size, format: "tar.zst".to_owned() })
    }

    async fn upload(&self, blob: &Blob, path: &Path) -> Result<(), Failure> {
        let mut backoff = slipway_chassis::Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        loop {
            let put = tokio::select! {
                put = self.job.services.controllers.put(path) => put,
                () = self.job.cancel.cancelled() => return Err(Failure::cancelled()),
            };
            match put {
                Ok(info) if info.digest == blob.digest && info.size == blob.size => return Ok(()),
                Ok(_) => return Err(Failure::platform("the object store holds another content than was uploaded")),
                // The build's work is done: it is worth waiting for a controller.
                Err(crate::controllers::CallError::Unreachable(status)) if Instant::now() < self.deadline => {
                    tracing::warn!(%status, "no controller takes the upload; trying again");
                    self.bounded(tokio::time::sleep(backoff.pause())).await?;
                }
                Err(error) => {
                    return Err(Failure::platform(&format!("the upload failed: {}", slipway_chassis::chain(&error))));
                }
            }
        }
    }
}
