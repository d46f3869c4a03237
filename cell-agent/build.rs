//! Builds the static helper that this crate embeds.
//!
//! It is a program of its own kind (statically linked, small), so a nested cargo builds it, in a target directory of its
//! own: sharing one would wait for the lock that the outer cargo holds. `SLIPWAY_HELPER` names a finished file instead.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=SLIPWAY_HELPER");
    let file = match std::env::var_os("SLIPWAY_HELPER") {
        Some(file) => {
            let file = PathBuf::from(file);
            println!("cargo:rerun-if-changed={}", file.display());
            file
        }
        // Watched by its sources: as a result of this script it would always be newer than the script's start.
        None => build(),
    };
    println!("cargo:rustc-env=SLIPWAY_HELPER_FILE={}", file.display());
}

fn build() -> PathBuf {
    let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let workspace = manifest.parent().expect("the crate lies in the workspace").to_owned();
    for source in
        ["helper/src", "helper/Cargo.toml", "buildpacks/src", "layers/src", "log-ring/src", "Cargo.toml", "Cargo.lock"]
    {
        println!("cargo:rerun-if-changed={}", workspace.join(source).display());
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    // <target>/<profile>/build/<package>/out
    let target: &Path = out.ancestors().nth(4).expect("cargo's directories are deeper");
    let target = target.join("helper");
    let mut cargo = Command::new(std::env::var_os("CARGO").expect("cargo sets it"));
    cargo
        .current_dir(&workspace)
        .args(["rustc", "--quiet", "--package", "slipway-helper", "--bin", "slipway-helper", "--profile", "helper"])
        .arg("--target-dir")
        .arg(&target);
    // Beside tests it has what they need: the choice to leave out a guard, and the program that looks for what then is open.
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        // Of this package alone: what it is made of is compiled once.
        cargo.args(["--config", "profile.helper.package.slipway-helper.debug-assertions=true"]);
    }
    cargo
        // For this crate only: for all crates the flag breaks procedural macros.
        .args(["--", "-C", "target-feature=+crt-static"]);
    // What the outer cargo runs (clippy, a flag for all crates) is not meant for this build.
    for name in ["RUSTC_WORKSPACE_WRAPPER", "RUSTC_WRAPPER", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR"]
    {
        cargo.env_remove(name);
    }
    let status = cargo.status().expect("cargo runs this script, so it can be run");
    assert!(status.success(), "building the helper failed; see above");
    // Another profile or clone may use the same target directory later; what is embedded here stays.
    let own = out.join("slipway-helper");
    std::fs::copy(target.join("helper").join("slipway-helper"), &own).expect("the helper was just built");
    own
}
