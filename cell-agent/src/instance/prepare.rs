//! What must be here before a sandbox can start: the spec, its layers, the droplet.

use std::sync::Arc;

use futures::future::try_join_all;
use slipway_protocol::v1::{Assignment, Refusal, WorkloadKind, WorkloadSpec};

use crate::cache::CacheLease;
use crate::services::Services;

/// Everything a start needs, kept for as long as the instance is assigned.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The spec.
    pub spec: Arc<WorkloadSpec>,
    /// Unpacked layers, lowest first, then the droplet.
    pub layers: Vec<CacheLease>,
}

impl Prepared {
    /// Bytes of the droplet on disk, which count as the instance's own.
    #[must_use]
    pub fn droplet_bytes(&self) -> u64 {
        if self.spec.droplet.is_some() { self.layers.last().map_or(0, CacheLease::size) } else { 0 }
    }
}

/// Fetches what is lacking; waits while no controller answers.
///
/// # Errors
/// Why this cell cannot run it, as it is reported.
pub async fn prepare(services: &Services, assignment: &Assignment) -> Result<Prepared, (Refusal, String)> {
    let invalid = |text: String| (Refusal::SpecInvalid, text);
    let spec = services
        .specs
        .get(&assignment.spec_digest)
        .await
        .map_err(|error| invalid(slipway_chassis::chain(&error).to_string()))?;
    if spec.kind != assignment.kind {
        return Err(invalid(format!("the spec is of kind {}, the assignment of kind {}", spec.kind, assignment.kind)));
    }
    if spec.layers.is_empty() {
        return Err(invalid("the spec names no layers: there is nothing to run on".to_owned()));
    }
    let refused = |error: crate::cache::CacheError| (error.refusal(), slipway_chassis::chain(&error).to_string());
    let mut layers =
        try_join_all(spec.layers.iter().map(|layer| services.cache.layer(layer))).await.map_err(refused)?;
    if spec.kind() != WorkloadKind::Build {
        let Some(droplet) = &spec.droplet else {
            return Err(invalid("the spec names no droplet".to_owned()));
        };
        layers.push(services.cache.droplet(droplet).await.map_err(refused)?);
    }
    Ok(Prepared { spec: Arc::new(spec), layers })
}
