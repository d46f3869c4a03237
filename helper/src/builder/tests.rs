//! Both phases on real directories, with buildpacks that behave well and badly.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use slipway_buildpacks::contract::{
    BuildLimits, BuildOutcome, BuildPaths, BuildPlan, BuildRequest, BuildpackRequest, CatalogueLayer, PACKAGE_FILE,
    PLAN_FILE, REQUEST_FILE, RESULT_FILE,
};
use slipway_layers::{Limits, unpack_droplet};

use super::files::{read_json, write_json};

/// The directories of one build, and its request.
struct Staging {
    directory: tempfile::TempDir,
    request: BuildRequest,
}

fn zip(path: &Path, files: &[(&str, &str)]) {
    let mut writer = zip::ZipWriter::new(fs::File::create(path).unwrap());
    for (name, text) in files {
        let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
        writer.start_file(*name, options).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap();
}

impl Staging {
    fn new(app: &[(&str, &str)], buildpacks: Vec<BuildpackRequest>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["in/buildpacks", "out"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        zip(&at("in").join(PACKAGE_FILE), app);
        let request = BuildRequest {
            stack: "debian12".into(),
            env: Default::default(),
            skip_detect: false,
            buildpacks,
            catalogue: vec![],
            command: None,
            paths: BuildPaths {
                app: at("home/vcap/app"),
                deps: at("home/vcap/deps"),
                cache: at("cache"),
                input: at("in"),
                output: at("out"),
                buildpacks: at("buildpacks"),
            },
            limits: BuildLimits::default(),
        };
        Self { directory, request }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn phase(&self, verb: &str) -> i32 {
        let request = self.path("in").join(REQUEST_FILE);
        write_json(&request, &self.request).unwrap();
        super::main(&[verb.to_owned(), request.display().to_string()])
    }

    fn plan(&self) -> BuildPlan {
        read_json(&self.path("out").join(PLAN_FILE)).unwrap()
    }

    fn outcome(&self) -> BuildOutcome {
        read_json(&self.path("out").join(RESULT_FILE)).unwrap()
    }

    /// Runs both phases; the error of the first that fails.
    fn fails(&self) -> (String, String) {
        if self.phase("detect") != 0 {
            let error = self.plan().error.unwrap();
            return (error.id, error.text);
        }
        assert_eq!(self.phase("build"), 1);
        let outcome = self.outcome();
        assert!(!outcome.ok && outcome.droplet.is_none());
        let error = outcome.error.unwrap();
        (error.id, error.text)
    }
}

fn binary() -> Vec<BuildpackRequest> {
    vec![BuildpackRequest {
        name: "binary_buildpack".into(),
        builtin: Some("binary".into()),
        ..BuildpackRequest::default()
    }]
}

/// A build with an uploaded buildpack of these scripts.
fn foreign(app: &[(&str, &str)], scripts: &[(&str, &str)]) -> Staging {
    let pack =
        BuildpackRequest { name: "mine".into(), zip: Some("buildpacks/0.zip".into()), ..BuildpackRequest::default() };
    let staging = Staging::new(app, vec![pack]);
    let scripts: Vec<(String, String)> =
        scripts.iter().map(|(name, text)| (format!("bin/{name}"), format!("#!/bin/sh\n{text}\n"))).collect();
    let scripts: Vec<(&str, &str)> = scripts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    zip(&staging.path("in/buildpacks/0.zip"), &scripts);
    staging
}

#[test]
fn the_same_source_gives_the_same_droplet() {
    let app = [("Procfile", "web: ./run\nworker: ./work\n"), ("run", "#!/bin/sh\n"), ("lib/x", "y")];
    let build = || {
        let mut staging = Staging::new(&app, binary());
        staging.request.skip_detect = true;
        assert_eq!(staging.phase("detect"), 0);
        assert_eq!(staging.phase("build"), 0);
        let outcome = staging.outcome();
        (staging, outcome)
    };
    let (staging, first) = build();
    let (_again, second) = build();
    let droplet = first.droplet.unwrap();
    assert_eq!(droplet, second.droplet.unwrap());
    assert_eq!(first.process_types[0].command, "./run");
    assert_eq!(first.process_types[1].kind, "worker");
    let target = staging.path("unpacked");
    fs::create_dir(&target).unwrap();
    unpack_droplet(&staging.path("out").join(&droplet.file), "tar.zst", &target, Limits::default(), None).unwrap();
    for name in
        ["app/run", "app/lib/x", "deps/0/config.yml", "profile.d/000_multi-supply.sh", "slipway.json", "tmp", "logs"]
    {
        assert!(target.join(name).exists(), "{name}");
    }
    let info: serde_json::Value = read_json(&target.join("staging_info.yml")).unwrap();
    assert_eq!(info["start_command"], "./run");
}

#[test]
fn a_changed_file_has_another_time_in_the_droplet() {
    use std::os::unix::fs::MetadataExt as _;
    let times = |word: &str| {
        let app = [("Procfile", "web: ./run\n"), ("run", "#!/bin/sh\n"), ("page.html", word)];
        let mut staging = Staging::new(&app, binary());
        staging.request.skip_detect = true;
        assert_eq!((staging.phase("detect"), staging.phase("build")), (0, 0));
        let target = staging.path("unpacked");
        fs::create_dir(&target).unwrap();
        let droplet = staging.path("out").join(staging.outcome().droplet.unwrap().file);
        unpack_droplet(&droplet, "tar.zst", &target, Limits::default(), None).unwrap();
        ["app/page.html", "app/run", "app"].map(|name| fs::metadata(target.join(name)).unwrap().mtime())
    };
    let (afloat, awash) = (times("Afloat"), times("Awash!"));
    assert_ne!(afloat[0], awash[0], "the size is the same, so that a web server knows it by the time alone");
    assert_eq!(afloat[1], awash[1]);
    assert_eq!(times("Afloat"), afloat);
}

#[test]
fn process_types_are_listed_after_a_build() {
    let announced = |procfile: &str| {
        let mut staging = Staging::new(&[("Procfile", procfile), ("run", "#!/bin/sh\n")], binary());
        staging.request.skip_detect = true;
        assert_eq!((staging.phase("detect"), staging.phase("build")), (0, 0));
        staging.outcome().process_types.into_iter().map(|process| process.kind).collect::<Vec<_>>()
    };
    assert_eq!(announced("worker: ./run\nrelease: ./migrate\n"), ["worker", "release"]);
    assert_eq!(announced("worker: ./run\nweb: ./run\n"), ["web", "worker"]);
}

#[test]
fn a_foreign_buildpack_runs_as_it_is_and_its_cache_comes_back() {
    let scripts = [
        ("detect", "[ -f $1/app.txt ] && echo mine 1"),
        ("supply", "mkdir -p $3/$4/bin; cat $2/seen > $1/previous 2>/dev/null; echo yes > $2/seen"),
        ("finalize", "echo 'export MINE=1' > $5/mine.sh"),
        ("release", "echo 'default_process_types: {web: ./mine}'"),
    ];
    let staging = foreign(&[("app.txt", "")], &scripts);
    assert_eq!(staging.phase("detect"), 0);
    assert_eq!(staging.plan().buildpacks[0].detect_output, "mine 1");
    assert_eq!(staging.phase("build"), 0);
    let outcome = staging.outcome();
    assert_eq!(outcome.process_types[0].command, "./mine");
    assert!(staging.path("home/vcap/profile.d/mine.sh").exists());
    let cache = outcome.cache.unwrap();

    let next = foreign(&[("app.txt", "")], &scripts);
    fs::copy(staging.path("out").join(&cache.file), next.path("in/cache.tar.zst")).unwrap();
    assert_eq!((next.phase("detect"), next.phase("build")), (0, 0));
    assert_eq!(fs::read_to_string(next.path("home/vcap/app/previous")).unwrap(), "yes\n");

    assert!(next.outcome().cache.is_some(), "it was written again, so it is packed again");

    let damaged = foreign(&[("app.txt", "")], &scripts);
    fs::write(damaged.path("in/cache.tar.zst"), "junk").unwrap();
    assert_eq!((damaged.phase("detect"), damaged.phase("build")), (0, 0), "a damaged cache is no reason to fail");
}

#[test]
fn a_cache_that_stays_as_it_was_is_not_packed_again() {
    let quiet = [
        ("detect", "exit 0"),
        ("supply", "[ -f $2/seen ] || echo yes > $2/seen; cat $2/seen > $1/previous"),
        ("finalize", "true"),
    ];
    let first = foreign(&[("a", "")], &quiet);
    assert_eq!((first.phase("detect"), first.phase("build")), (0, 0));
    let cache = first.path("out").join(first.outcome().cache.unwrap().file);

    let again = foreign(&[("a", "")], &quiet);
    fs::copy(&cache, again.path("in/cache.tar.zst")).unwrap();
    assert_eq!((again.phase("detect"), again.phase("build")), (0, 0));
    assert_eq!(fs::read_to_string(again.path("home/vcap/app/previous")).unwrap(), "yes\n");
    assert!(again.outcome().cache.is_none() && !again.path("out/cache.tar.zst").exists());

    let other =
        foreign(&[("a", "")], &[("detect", "exit 0"), ("supply", "echo more >> $2/seen"), ("finalize", "true")]);
    fs::copy(&cache, other.path("in/cache.tar.zst")).unwrap();
    assert_eq!((other.phase("detect"), other.phase("build")), (0, 0));
    assert!(other.outcome().cache.is_some());
}

/// A cache archive with these links, in the part of the buildpack `mine` and beside it.
fn linked_cache(staging: &Staging, target: &Path) {
    let key = slipway_layers::Digest::of(b"mine").to_string();
    let mut tar = tar::Builder::new(fs::File::create(staging.path("links.tar")).unwrap());
    for name in [&key[..32], "beside"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        header.set_mtime(0);
        tar.append_link(&mut header, name, target).unwrap();
    }
    tar.into_inner().unwrap();
    let status = std::process::Command::new("zstd")
        .args(["-q", "-f", "-o"])
        .arg(staging.path("in/cache.tar.zst"))
        .arg(staging.path("links.tar"))
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn a_cache_whose_links_lead_out_is_written_to_nowhere_else() {
    let scripts = [("detect", "exit 0"), ("supply", "echo yes > $2/seen"), ("finalize", "true")];
    let staging = foreign(&[("a", "")], &scripts);
    fs::create_dir(staging.path("outside")).unwrap();
    linked_cache(&staging, &staging.path("outside"));
    assert_eq!((staging.phase("detect"), staging.phase("build")), (0, 0));
    assert_eq!(fs::read_dir(staging.path("outside")).unwrap().count(), 0);
    assert!(staging.outcome().cache.is_some());
}

#[test]
fn failures_carry_their_name_and_say_what_to_do() {
    let app = [("a", "b")];
    let (id, text) = Staging::new(&app, binary()).fails();
    assert_eq!(id, "NoAppDetectedError");
    assert!(
        text.contains("An app was not successfully detected by any available buildpack")
            && text.contains("binary_buildpack")
    );
    for (scripts, expected, words) in [
        (&[("detect", "exit 1")][..], "NoAppDetectedError", "mine"),
        (&[("detect", "exit 0"), ("compile", "echo broken; exit 4")], "BuildpackCompileFailed", "exit status 4"),
        (&[("detect", "exit 0"), ("finalize", "true"), ("release", "exit 5")], "BuildpackReleaseFailed", "bin/release"),
        (&[("detect", "exit 0")], "BuildpackCompileFailed", "neither bin/finalize nor bin/compile"),
        (&[("supply", "true")], "NoAppDetectedError", "bin/detect is missing"),
        (&[("detect", "exit 0"), ("compile", "cp /bin/sh $1/sh; printf x > $1/ok")], "", ""),
    ] {
        let staging = foreign(&app, scripts);
        if expected.is_empty() {
            assert_eq!((staging.phase("detect"), staging.phase("build")), (0, 0));
            let needed = &staging.outcome().sonames["app/sh"];
            assert!(needed.iter().any(|library| library.starts_with("libc.so")));
            continue;
        }
        let (id, text) = staging.fails();
        assert_eq!(id, expected, "{text}");
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn a_requested_buildpack_is_reported_by_its_own_name() {
    let says = "mkdir -p $3/$4; printf 'name: words\\nversion: 1.2\\n' > $3/$4/config.yml";
    let scripts = [
        ("detect", "echo detected"),
        ("supply", says),
        ("finalize", "true"),
        ("release", "echo 'default_process_types: {web: ./mine}'"),
    ];
    let detected = |request: fn(&mut Staging)| {
        let mut staging = foreign(&[("run", "")], &scripts);
        request(&mut staging);
        assert_eq!((staging.phase("detect"), staging.phase("build")), (0, 0));
        let used = staging.outcome().buildpacks;
        used.into_iter().map(|pack| (pack.detect_output, pack.buildpack_name)).collect::<Vec<_>>()
    };
    let pair = |detected: &str, name: &str| (detected.to_owned(), name.to_owned());
    assert_eq!(detected(|_| ()), [pair("detected", "words")]);
    assert_eq!(detected(|staging| staging.request.skip_detect = true), [pair("words", "words")]);
    // Of several, only the last one speaks.
    let before = |staging: &mut Staging| {
        staging.request.skip_detect = true;
        let mine = staging.request.buildpacks[0].clone();
        staging.request.buildpacks.push(mine);
    };
    assert_eq!(detected(before), [pair("", "words"), pair("words", "words")]);
}

#[test]
fn only_the_last_buildpack_arranges_the_app() {
    let mut files = binary();
    files[0] = BuildpackRequest {
        name: "staticfile_buildpack".into(),
        builtin: Some("staticfile".into()),
        ..files[0].clone()
    };
    let nginx = CatalogueLayer {
        digest: "ab".repeat(32),
        kind: "runtime".into(),
        name: "nginx".into(),
        line: "nginx-1.22".into(),
        version: "1.22.1".into(),
    };
    for (buildpacks, moved) in [([files.clone(), binary()].concat(), false), (files, true)] {
        let mut staging = Staging::new(&[("Staticfile", ""), ("index.html", "hello")], buildpacks);
        staging.request.skip_detect = true;
        staging.request.catalogue = vec![nginx.clone()];
        assert_eq!((staging.phase("detect"), staging.phase("build")), (0, 0));
        assert_eq!(staging.request.paths.app.join("public/index.html").exists(), moved);
        assert_eq!(staging.request.paths.app.join("index.html").exists(), !moved);
        assert_eq!(staging.outcome().process_types.len(), usize::from(moved));
    }
}

#[test]
fn limits_hold() {
    let mut endless = foreign(&[("a", "b")], &[("detect", "exit 0"), ("compile", "sleep 1000")]);
    assert_eq!(endless.phase("detect"), 0);
    // For the second phase alone: the first, which is not what this is about, must not run out of it.
    endless.request.limits.timeout_ms = 400;
    assert_eq!(endless.phase("build"), 1);
    assert_eq!(endless.outcome().error.unwrap().id, "StagingTimeExpired");

    let mut chatty =
        foreign(&[("a", "b")], &[("detect", "exit 0"), ("compile", "head -c 5000000 /dev/zero | tr '\\0' x")]);
    chatty.request.limits.max_output_bytes = 100;
    assert_eq!((chatty.phase("detect"), chatty.phase("build")), (0, 0), "talking much is no failure");

    let mut grown = foreign(&[("a", "b")], &[("detect", "exit 0"), ("compile", "head -c 300000 /dev/zero > $1/big")]);
    grown.request.limits.max_droplet_bytes = 200_000;
    let (id, text) = grown.fails();
    assert!(id == "StagingError" && text.contains(".cfignore"), "{text}");

    let mut bomb = Staging::new(&[("big", &"0".repeat(300_000))], binary());
    bomb.request.limits.max_droplet_bytes = 200_000;
    let (id, text) = bomb.fails();
    assert!(id == "StagingError" && text.contains("200000 bytes"), "{text}");

    let cut = Staging::new(&[("a", "b")], binary());
    fs::write(cut.path("in").join(PACKAGE_FILE), "PK").unwrap();
    let (id, text) = cut.fails();
    assert!(id == "StagingError" && text.contains("upload it again"), "{text}");
}

#[test]
fn without_a_request_there_is_no_answer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(REQUEST_FILE);
    assert_eq!(super::main(&["detect".into(), path.display().to_string()]), super::NO_ANSWER);
    fs::write(&path, "{").unwrap();
    assert_eq!(super::main(&["build".into(), path.display().to_string()]), super::NO_ANSWER);
    assert_eq!(super::main(&["fly".into()]), super::NO_ANSWER);
}

#[test]
fn a_full_disk_is_reported_as_such() {
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    let error = slipway_layers::ArchiveError::NoSpace { path: "x".into(), source: full };
    let error = super::platform("the package could not be unpacked", error).to_error();
    assert!(error.text.contains("disk quota"), "{}", error.text);
    let other = super::platform("a step", std::io::Error::other("strange")).to_error();
    assert!(other.text.contains("strange"), "{}", other.text);
}
