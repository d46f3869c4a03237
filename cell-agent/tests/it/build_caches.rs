//! The build cache on its way: given to the build, and sent back only when there is something new.

use std::path::Path;

use bytes::Bytes;
use slipway_cell_agent::sandbox::SandboxSpec;
use slipway_cell_agent::sim::{Program, exit};
use slipway_protocol::digest::sha256;
use slipway_protocol::v1::{Blob, BuildResult};

use crate::builds::{build, outcome, plan, write};
use crate::world::{World, archive};

fn cache(text: &str) -> Vec<u8> {
    archive(&[("mine/installed.json", text)]).0
}

fn digest(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&sha256(bytes))
}

/// A build that was given the cache `old`, which the object store has or has lost, and does `make` for the new one.
async fn with_cache(
    lost: bool,
    make: impl Fn(&Path) -> Option<serde_json::Value> + Send + Sync + 'static,
) -> (World, BuildResult) {
    let script = move |_: &SandboxSpec, volume: &Path, phase: &str| {
        if phase == "detect" {
            return plan(volume);
        }
        let given = std::fs::read(volume.join("in/cache.tar.zst")).ok();
        assert_eq!(given, (!lost).then(|| cache("old")));
        std::fs::write(volume.join("out/droplet.tar.zst"), archive(&[("app/a", "b")]).0).expect("droplet");
        let mut answer = outcome();
        if let Some(made) = make(volume) {
            answer["cache"] = made;
        }
        write(volume, "result.json", &answer);
        Program::Exit(exit(0))
    };
    build(script, |world, spec| {
        let bytes = cache("old");
        let size = bytes.len() as u64;
        let digest = if lost { digest(&bytes) } else { world.controller.put_blob(bytes) };
        spec.cache = Some(Blob { digest, size, format: "tar.zst".into() });
    })
    .await
}

fn made(volume: &Path, bytes: &[u8]) -> Option<serde_json::Value> {
    std::fs::write(volume.join("out/cache.tar.zst"), bytes).expect("cache");
    // The figures of the builder are claims, which nobody reads.
    Some(serde_json::json!({ "file": "cache.tar.zst", "sha256": "?", "size": 1, "unpacked": 1 }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cache_is_sent_and_named() {
    let (world, result) = with_cache(false, |volume| made(volume, &cache("new"))).await;
    assert!(result.ok, "{}", result.error_text);
    assert_eq!(result.cache.expect("named").digest, digest(&cache("new")));
    assert_eq!(world.controller.uploads(&digest(&cache("new"))), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_did_not_change_is_not_sent_again() {
    for again in [false, true] {
        let (world, result) =
            with_cache(false, move |volume| again.then(|| made(volume, &cache("old"))).flatten()).await;
        assert!(result.ok, "{}", result.error_text);
        assert_eq!(result.cache, None, "that of the last build stays the app's");
        assert_eq!(world.controller.uploads(&digest(&cache("old"))), 0);
        let droplet = result.droplet.expect("droplet");
        assert_eq!(world.controller.uploads(&droplet.digest), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_cache_is_replaced_also_by_an_equal_one() {
    let (world, result) = with_cache(true, |volume| made(volume, &cache("old"))).await;
    assert!(result.ok, "{}", result.error_text);
    assert_eq!(result.cache.expect("named").digest, digest(&cache("old")));
    assert_eq!(world.controller.uploads(&digest(&cache("old"))), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_cache_costs_the_cache_and_not_the_build() {
    let link = |volume: &Path| {
        std::os::unix::fs::symlink("/etc/passwd", volume.join("out/cache.tar.zst")).expect("link");
        Some(serde_json::json!({ "file": "../../../etc/passwd", "sha256": "?", "size": 1, "unpacked": 1 }))
    };
    let (world, result) = with_cache(false, link).await;
    assert!(result.ok, "{}", result.error_text);
    assert_eq!(result.cache, None);
    let passwd = std::fs::read("/etc/passwd").expect("passwd");
    assert!(!world.controller.has_blob(&digest(&passwd)));
}
