//! Imports what `slipway stack build` leaves in the layer directory: blobs into the object store, rows into the
//! catalogue. Looks again when the index changes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use slipway_chassis::Shutdown;
use slipway_chassis::driver::{Definition, Next, Registry, Task, Wake};
use slipway_layers::meta::{INDEX_FILE, IndexError, LayerEntry, LayerIndex};

use crate::blobs::{BlobError, BlobStore};
use crate::context::Context;

/// The import, as a task.
const LAYERS: Definition = Definition {
    name: "layers",
    description: "Imports what `slipway stack build` has left in the layer directory",
    period: Duration::from_secs(10),
    woken_by: "",
};

/// Why layers cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The index.
    #[error("the layers cannot be imported")]
    Index(#[from] IndexError),
    /// A file of the directory.
    #[error("the layer file {path} cannot be read; run `slipway stack build` again")]
    File {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: BlobError,
    },
    /// A file that is not what the index says.
    #[error(
        "the layer file {path} does not match the index of layers (the digest of the file is {found}); run `slipway stack build` again"
    )]
    Changed {
        /// Which.
        path: PathBuf,
        /// What it has.
        found: String,
    },
    /// The index names a file outside its directory.
    #[error("the layer index names the file {0:?}, which is not a plain file name")]
    Outside(String),
    /// The database.
    #[error("the catalogue of layers cannot be written")]
    Database(#[from] sqlx::Error),
}

/// Imports now and whenever the index changes.
pub fn start(context: Context, directory: PathBuf, tasks: &Registry, shutdown: &Shutdown) -> Task {
    let imported = Arc::new(Mutex::new(None::<SystemTime>));
    tasks.start(shutdown, LAYERS, Wake::default(), move || {
        let (context, directory, imported) = (context.clone(), directory.clone(), Arc::clone(&imported));
        async move {
            let modified = std::fs::metadata(directory.join(INDEX_FILE)).and_then(|meta| meta.modified()).ok();
            let before = *imported.lock().unwrap_or_else(PoisonError::into_inner);
            if modified.is_none() || modified == before {
                return Ok(Next::AfterPeriod);
            }
            import(&context, &directory).await?;
            // Only now: a failed import is tried again.
            *imported.lock().unwrap_or_else(PoisonError::into_inner) = modified;
            Ok::<_, LayerError>(Next::AfterPeriod)
        }
    })
}

/// Waits until the first look at the directory is over, well or badly: a controller that called itself ready before
/// would refuse the first push of a new platform for want of a stack.
pub async fn looked(task: &Task, shutdown: &Shutdown) {
    while task.status().runs == 0 && !shutdown.is_stopping() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Imports every layer of the index that the catalogue does not have; returns how many were new.
///
/// # Errors
/// When a file is missing or is not what the index says, or a store fails. Layers before it are imported.
pub async fn import(context: &Context, directory: &Path) -> Result<usize, LayerError> {
    let index = LayerIndex::read(directory)?;
    let mut new = 0;
    for entry in &index.layers {
        if context.store.layer_exists(entry.meta.digest.as_bytes(), entry.meta.blob.as_bytes()).await? {
            continue;
        }
        put_blob(&context.blobs, directory, entry).await?;
        context.store.layer_put(entry).await?;
        tracing::info!(layer = entry.meta.line, version = entry.meta.version, digest = %entry.meta.digest, "a layer was imported");
        new += 1;
    }
    Ok(new)
}

async fn put_blob(blobs: &BlobStore, directory: &Path, entry: &LayerEntry) -> Result<(), LayerError> {
    if Path::new(&entry.file).file_name() != Some(entry.file.as_ref()) {
        return Err(LayerError::Outside(entry.file.clone()));
    }
    let path = directory.join(&entry.file);
    match blobs.put_file_as(&path, entry.meta.blob.as_bytes()).await {
        Ok(()) => Ok(()),
        Err(BlobError::WrongDigest { found, .. }) => Err(LayerError::Changed { path, found }),
        Err(source) => Err(LayerError::File { path, source }),
    }
}
