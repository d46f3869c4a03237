//! The second push of an app installs nothing again, says why, and makes the same droplet.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use reqwest::Method;
use slipway_tests::{Api, Outcome, Platform};

struct App<'p> {
    platform: &'p Platform,
    name: &'static str,
    directory: PathBuf,
}

impl<'p> App<'p> {
    /// A copy of an example, which may be changed.
    fn copy(platform: &'p Platform, example: &str, name: &'static str) -> anyhow::Result<Self> {
        let directory = platform.path("apps").join(name);
        std::fs::create_dir_all(&directory)?;
        for entry in std::fs::read_dir(Platform::repository().join("examples").join(example))?.flatten() {
            if entry.file_type()?.is_file() {
                std::fs::copy(entry.path(), directory.join(entry.file_name()))?;
            }
        }
        Ok(Self { platform, name, directory })
    }

    /// Pushes it; what was printed, and the digest of the droplet.
    async fn push(&self) -> anyhow::Result<(Outcome, String)> {
        let manifest = self.directory.join("manifest.yml");
        let text =
            ["--json", "push", self.name, "-p", &path(&self.directory), "-f", &path(&manifest)].map(str::to_owned);
        let pushed = self.platform.ok(&text.each_ref().map(String::as_str))?;
        let answer = pushed.json()?;
        let app = answer.get(0).unwrap_or(&answer);
        let droplet = app["droplet_guid"].as_str().context("no droplet_guid")?;
        let api = Api::admin(self.platform).await?;
        let (_, droplet) = api.send(Method::GET, &format!("/v3/droplets/{droplet}"), "").await?;
        let digest = droplet["checksum"]["value"].as_str().context("no checksum")?.to_owned();
        let (status, body) = self.platform.get(self.name, "/").await?;
        ensure!(status == 200, "{} answers {status} {body}", self.name);
        Ok((pushed, digest))
    }

    fn append(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let file = self.directory.join(file);
        let before = std::fs::read_to_string(&file)?;
        std::fs::write(&file, before + text)?;
        Ok(())
    }
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn says(outcome: &Outcome, words: &str) -> anyhow::Result<()> {
    ensure!(outcome.all().contains(words), "{words:?} is not in the output: {}", outcome.all());
    Ok(())
}

fn is_silent(outcome: &Outcome, words: &str) -> anyhow::Result<()> {
    ensure!(!outcome.all().contains(words), "{words:?} is in the output: {}", outcome.all());
    Ok(())
}

pub(crate) async fn node_modules_of_the_last_build_are_taken(platform: &mut Platform) -> anyhow::Result<()> {
    let app = App::copy(platform, "node", "warm-node")?;
    let (cold, first) = app.push().await?;
    says(&cold, "npm ci")?;
    for _ in 0..2 {
        let (warm, digest) = app.push().await?;
        says(&warm, "Taking node_modules of the last build")?;
        is_silent(&warm, "npm ci")?;
        ensure!(digest == first, "the droplet is another one: {first} became {digest}");
    }
    app.append("server.js", "// Code is not what dependencies follow from.\n")?;
    let (changed, digest) = app.push().await?;
    is_silent(&changed, "npm ci")?;
    ensure!(digest != first, "the droplet has the old code");

    app.append("package-lock.json", "\n")?;
    let (locked, _) = app.push().await?;
    says(&locked, "node_modules of the last build is not used: package-lock.json changed")?;
    says(&locked, "npm ci")?;

    platform.ok(&["set-env", app.name, "SLIPWAY_BUILD_CACHE", "off"])?;
    let (off, digest) = app.push().await?;
    says(&off, "SLIPWAY_BUILD_CACHE is off")?;
    says(&off, "npm ci")?;
    platform.ok(&["unset-env", app.name, "SLIPWAY_BUILD_CACHE"])?;
    let (on, again) = app.push().await?;
    is_silent(&on, "npm ci")?;
    ensure!(digest == again, "with and without the cache the droplet is another one");
    platform.ok(&["delete", app.name, "-f", "-r"])?;
    Ok(())
}

pub(crate) async fn python_packages_of_the_last_build_are_taken(platform: &mut Platform) -> anyhow::Result<()> {
    let app = App::copy(platform, "python", "warm-python")?;
    let (cold, first) = app.push().await?;
    says(&cold, "pip install")?;
    let (warm, digest) = app.push().await?;
    says(&warm, "Taking the installed packages of the last build")?;
    says(&warm, "Versions that requirements.txt leaves open stay")?;
    is_silent(&warm, "pip install")?;
    ensure!(digest == first, "the droplet is another one: {first} became {digest}");

    app.append("requirements.txt", "# a comment\n")?;
    let (changed, _) = app.push().await?;
    says(&changed, "The installed packages of the last build are not used: requirements.txt changed")?;
    says(&changed, "pip install")?;
    platform.ok(&["set-env", app.name, "CFLAGS", "-O3"])?;
    let (variables, _) = app.push().await?;
    says(&variables, "environment variables or settings that an installation sees have changed")?;
    platform.ok(&["delete", app.name, "-f", "-r"])?;
    Ok(())
}
