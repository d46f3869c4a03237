//! Apps and manifests that cannot work: each gets an error that names what happened, and nothing is left half done.

use std::time::Duration;

use anyhow::ensure;
use slipway_tests::script::WORKER;
use slipway_tests::{Platform, ScriptApp};

/// Exit codes of the command line, by kind of failure.
const USAGE: i32 = 2;
const REFUSED: i32 = 5;
const STAGING: i32 = 7;
const START: i32 = 8;

const WEB: &str = "    memory: 64M\n    disk_quota: 64M\n    timeout: 5\n";

pub(crate) async fn apps_that_misbehave_are_named(platform: &mut Platform) -> anyhow::Result<()> {
    let cases = [
        ("exits-at-once", "echo going; exit 3", "'exits-at-once' crashed: exited with status 3"),
        ("never-listens", "sleep 100000", "'never-listens' crashed: did not listen on port 8080 within 5 s"),
        (
            "wrong-port",
            "exec perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen=>5,LocalPort=>3000) or die; sleep'",
            "did not listen on port 8080 within 5 s: it listens on port 3000; listen on the port in $PORT",
        ),
        // As a master process does whose workers cannot load the program.
        (
            "opens-and-fails",
            "exec perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen=>5,LocalPort=>$ENV{PORT}) or die; sleep 2; exit 3'",
            "'opens-and-fails' crashed: exited with status 3",
        ),
        (
            "too-much-memory",
            "perl -e '$x = \"a\" x (200*1024*1024); sleep 100'",
            "'too-much-memory' crashed: out of memory: limit 64 MiB",
        ),
    ];
    for (name, script, sentence) in cases {
        let pushed = ScriptApp { name, script, manifest: WEB }.push(platform)?;
        ensure!(pushed.code == START, "{name} exits with {}: {}", pushed.code, pushed.all());
        ensure!(pushed.all().contains(sentence), "{name}: not {sentence:?} in {}", pushed.all());
        platform.ok(&["delete", name, "-f", "-r"])?;
    }
    let no_app = platform.path("apps").join("nothing-to-detect");
    std::fs::create_dir_all(&no_app)?;
    std::fs::write(no_app.join("notes.txt"), "no app here")?;
    let pushed = platform.run(&["push", "nothing", "-p", &no_app.to_string_lossy(), "--no-manifest"])?;
    let sentence = "Staging failed: An app was not successfully detected by any available buildpack";
    ensure!(pushed.code == STAGING && pushed.all().contains(sentence), "{}", pushed.all());
    ensure!(pushed.all().contains("The app directory holds notes.txt."), "{}", pushed.all());
    platform.ok(&["delete", "nothing", "-f", "-r"])?;
    too_large(platform).await
}

/// More than any cell has, or one app may have, is refused with figures, before or at placement, never left hanging.
async fn too_large(platform: &Platform) -> anyhow::Result<()> {
    for (wish, sentences) in [
        (
            "memory: 4096G",
            ["asks for 4194304 MiB of memory, but the largest cell has ", "Ask for less, or add a larger cell."],
        ),
        ("disk_quota: 8192G", ["too much disk requested (requested 8388608 MB", "must be less than 2048 MB"]),
    ] {
        let manifest = format!("    {wish}\n    no-route: true\n    health-check-type: process\n");
        let pushed = ScriptApp { name: "too-large", script: "sleep 100000", manifest: &manifest }.push(platform)?;
        for sentence in sentences {
            ensure!(pushed.code == REFUSED && pushed.all().contains(sentence), "{wish}: {}", pushed.all());
        }
        platform.run(&["delete", "too-large", "-f", "-r"])?;
    }
    let flood =
        "yes 0123456789012345678901234567890123456789 | head -c 200000000; echo; echo CHECK flooded; sleep 100000";
    let pushed = ScriptApp { name: "talks-a-lot", script: flood, manifest: WORKER }.push(platform)?;
    ensure!(pushed.code == 0, "{}", pushed.all());
    Platform::eventually("the flood is over", Duration::from_secs(300), || async {
        let logs = platform.ok(&["logs", "talks-a-lot", "--recent"])?;
        ensure!(logs.stdout.contains("CHECK flooded"), "still talking");
        Ok(())
    })
    .await?;
    platform.ok(&["delete", "talks-a-lot", "-f", "-r"])?;
    Ok(())
}

pub(crate) async fn manifests_that_cannot_be_meant(platform: &mut Platform) -> anyhow::Result<()> {
    let directory = platform.path("apps").join("manifests");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("run.sh"), "sleep 1000")?;
    let cases = [
        (
            "units",
            "applications:\n  - name: bad-units\n    memory: 512Q\n",
            "app 'bad-units': 'memory': '512Q' is not a size: the unit must be B, K, M, G or T",
        ),
        (
            "types",
            "applications:\n  - name: bad-types\n    instances: many\n",
            "app 'bad-types': 'instances' must be a whole number, 0 or more, it is 'many'",
        ),
        ("twice", "applications:\n  - name: same\n  - name: same\n", "app 'same' is there more than once"),
        ("none", "apps: []\n", "there is no app under 'applications'"),
        ("yaml", "applications: [\n", "is not valid YAML: did not find expected node content at line 2 column 1"),
    ];
    let before = platform.settled_apps().await?;
    for (name, text, said) in cases {
        let manifest = directory.join(format!("{name}.yml"));
        std::fs::write(&manifest, text)?;
        let pushed = platform.fails(&["push", "-f", &manifest.to_string_lossy()], said)?;
        ensure!(pushed.code == USAGE, "{name} exits with {}", pushed.code);
    }
    let after = platform.ok(&["apps", "--json"])?.stdout;
    ensure!(before == after, "a refused manifest changed something: {before} became {after}");
    Ok(())
}
