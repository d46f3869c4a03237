//! Layers from the directory of `slipway stack build` into the catalogue.

use std::path::Path;

use slipway_controller::tasks::layers::{LayerError, import};
use slipway_layers::meta::{LayerEntry, LayerIndex};
use tempfile::TempDir;

use crate::support::TestController;

fn hex_of(bytes: &[u8]) -> String {
    hex::encode(slipway_protocol::digest::sha256(bytes))
}

/// A layer whose blob is this, in this file; the file is written.
fn layer(directory: &Path, line: &str, file: &str, blob: &[u8]) -> LayerEntry {
    if !file.contains('/') {
        std::fs::write(directory.join(file), blob).expect("write");
    }
    serde_json::from_value(serde_json::json!({
        "digest": hex_of(line.as_bytes()), "blob": hex_of(blob), "blob_size": blob.len(), "size": 10, "kind": "runtime",
        "name": line, "line": line, "version": "1", "architecture": "x86_64", "file": file, "made_at": 0,
        "recipe": hex_of(b"recipe"),
    }))
    .expect("an entry")
}

async fn lines(controller: &TestController) -> Vec<String> {
    sqlx::query_scalar("select line from layer order by line")
        .fetch_all(&controller.database.pool)
        .await
        .expect("lines")
}

#[tokio::test]
async fn layers_are_imported_once_and_damaged_ones_not_at_all() {
    let controller = TestController::start().await;
    let directory = TempDir::new().expect("a directory");
    let path = directory.path();
    let context = &controller.context;
    assert_eq!(import(context, path).await.expect("an empty directory"), 0);

    let good = layer(path, "node-22", "node.tar.zst", b"node");
    let mut index = LayerIndex { layers: vec![good.clone()] };
    index.write(path).expect("write");
    assert_eq!(import(context, path).await.expect("imported"), 1);
    assert_eq!(import(context, path).await.expect("known"), 0);
    assert!(context.blobs.exists(good.meta.blob.as_bytes()).await.expect("exists"));

    // The file is not what the index says; what comes before it stays, what comes after it waits.
    let changed = layer(path, "python-3", "python.tar.zst", b"python");
    std::fs::write(path.join("python.tar.zst"), b"pythoff").expect("write");
    index.layers = vec![good.clone(), changed, layer(path, "ruby-3", "ruby.tar.zst", b"ruby")];
    index.write(path).expect("write");
    let error = import(context, path).await.expect_err("changed");
    assert!(matches!(&error, LayerError::Changed { found, .. } if *found == hex_of(b"pythoff")), "{error}");
    assert_eq!(lines(&controller).await, ["node-22"]);
    assert!(!context.blobs.exists(&slipway_protocol::digest::sha256(b"pythoff")).await.expect("exists"));

    // The wrong content is that of a good layer: this one loses nothing.
    std::fs::write(path.join("python.tar.zst"), b"node").expect("write");
    assert!(matches!(import(context, path).await.expect_err("changed"), LayerError::Changed { .. }));
    assert!(context.blobs.exists(good.meta.blob.as_bytes()).await.expect("exists"));

    index.layers = vec![layer(path, "evil", "../evil", b"evil")];
    index.write(path).expect("write");
    assert!(matches!(import(context, path).await.expect_err("outside"), LayerError::Outside(_)));
    index.layers = vec![layer(path, "gone", "gone.tar.zst", b"gone")];
    std::fs::remove_file(path.join("gone.tar.zst")).expect("remove");
    index.write(path).expect("write");
    assert!(matches!(import(context, path).await.expect_err("missing"), LayerError::File { .. }));
    std::fs::write(path.join("index.json"), "{").expect("write");
    assert!(matches!(import(context, path).await.expect_err("no index"), LayerError::Index(_)));
    assert_eq!(lines(&controller).await, ["node-22"]);
}
