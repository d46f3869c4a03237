//! Which layers a workload is mounted over.

use serde::{Deserialize, Serialize};
use slipway_protocol::v1;

use crate::store::specs::LayerRow;

/// A layer as a droplet remembers it: the line decides, the digest says what it was staged with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRef {
    /// `node-22`.
    pub line: String,
    /// `node`.
    #[serde(default)]
    pub name: String,
    /// `runtime`.
    #[serde(default)]
    pub kind: String,
    /// `22.11.0`.
    #[serde(default)]
    pub version: String,
    /// Hex.
    #[serde(default)]
    pub digest: String,
}

impl From<&v1::Layer> for LayerRef {
    fn from(layer: &v1::Layer) -> Self {
        Self {
            line: layer.line.clone(),
            name: layer.name.clone(),
            kind: layer.kind.clone(),
            version: layer.version.clone(),
            digest: hex::encode(&layer.digest),
        }
    }
}

/// Why layers could not be chosen.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayerError {
    /// No layer for the stack.
    #[error("the stack {0:?} has no layer on this platform; an operator makes it with: slipway stack build")]
    Stack(String),
    /// No layer for a runtime of the droplet.
    #[error(
        "the droplet needs the runtime {0:?}, which this platform does not hold; an operator makes it with: slipway stack build"
    )]
    Runtime(String),
}

/// The compatibility stack is a thin layer over the Debian one.
const COMPAT_BASES: &[(&str, &str)] = &[("cflinuxfs4", "debian12")];

/// The layers of a stack by its name, lowest first.
///
/// # Errors
/// When one of them is not in the catalogue.
pub fn of_stack(stack: &str, catalogue: &[LayerRow]) -> Result<Vec<v1::Layer>, LayerError> {
    let missing = || LayerError::Stack(stack.to_owned());
    match COMPAT_BASES.iter().find(|(name, _)| *name == stack) {
        Some((name, base)) => Ok(vec![
            newest("stack", base, catalogue).ok_or_else(missing)?,
            newest("compat", name, catalogue).ok_or_else(missing)?,
        ]),
        None => Ok(vec![newest("stack", stack, catalogue).ok_or_else(missing)?]),
    }
}

/// Stack, then the droplet's runtimes, each the newest of its line.
///
/// # Errors
/// When one of them is not in the catalogue.
pub fn for_running(stack: &str, droplet: &[LayerRef], catalogue: &[LayerRow]) -> Result<Vec<v1::Layer>, LayerError> {
    let mut layers = of_stack(stack, catalogue)?;
    for wanted in droplet {
        let layer =
            newest("runtime", &wanted.line, catalogue).ok_or_else(|| LayerError::Runtime(wanted.line.clone()))?;
        layers.push(layer);
    }
    Ok(layers)
}

/// What may be mounted after detection: the newest runtime and build layer of each line.
#[must_use]
pub fn for_staging(catalogue: &[LayerRow]) -> Vec<v1::Layer> {
    let mut lines: Vec<(&str, &str)> = catalogue
        .iter()
        .filter(|layer| layer.kind == "runtime" || layer.kind == "build")
        .map(|layer| (layer.kind.as_str(), layer.line.as_str()))
        .collect();
    // A fixed order keeps the digest of equal specs equal.
    lines.sort_unstable();
    lines.dedup();
    lines.into_iter().filter_map(|(kind, line)| newest(kind, line, catalogue)).collect()
}

fn newest(kind: &str, line: &str, catalogue: &[LayerRow]) -> Option<v1::Layer> {
    catalogue
        .iter()
        .filter(|layer| layer.kind == kind && layer.line == line)
        .max_by(|a, b| a.created_at.cmp(&b.created_at).then_with(|| a.digest.cmp(&b.digest)))
        .map(|layer| v1::Layer {
            digest: layer.digest.clone().into(),
            blob: layer.blob.clone().into(),
            blob_size: layer.blob_size.unsigned_abs(),
            size: layer.size.unsigned_abs(),
            kind: layer.kind.clone(),
            name: layer.name.clone(),
            line: layer.line.clone(),
            version: layer.version.clone(),
        })
}
