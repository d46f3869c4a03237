//! A cached tree is restored exactly, or not at all.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

struct World {
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("cache")).unwrap();
        fs::create_dir_all(directory.path().join("app")).unwrap();
        Self { directory }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn dependency_cache<'a>(&self, cache: &'a Path, lock: &str) -> DependencyCache<'a> {
        let facts = CacheInputs {
            app: "app-1".into(),
            stack: "debian12".into(),
            language: "Node.js".into(),
            version: "22.1.0".into(),
            layer: "d1".into(),
            arguments: vec!["ci".into()],
            place: "/home/vcap/app/node_modules".into(),
            inputs: BTreeMap::from([("package-lock.json".to_owned(), lock.to_owned())]),
        };
        DependencyCache {
            cache,
            facts,
            variables: Variables::of([(OsStr::new("A"), OsStr::new("1"))], ComparedVariables::All, Path::new("/")),
            place: self.at("app/node_modules"),
            leave: vec!["left".into()],
            max_entries: 100,
        }
    }

    /// Installs something and keeps it.
    fn install(&self, cached: &DependencyCache<'_>) {
        let tree = self.at("app/node_modules");
        fs::create_dir_all(tree.join(".bin")).unwrap();
        fs::create_dir_all(tree.join("express/empty")).unwrap();
        fs::create_dir_all(tree.join("left")).unwrap();
        fs::write(tree.join("express/cli.js"), "run").unwrap();
        fs::set_permissions(tree.join("express/cli.js"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(tree.join("left/over"), "x").unwrap();
        symlink("../express/cli.js", tree.join(".bin/cli")).unwrap();
        cached.keep().unwrap();
        fs::remove_dir_all(&tree).unwrap();
    }

    /// What is in the app's directory.
    fn app(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.at("app"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let world = World::new();
    let cache = world.at("cache");
    let cached = world.dependency_cache(&cache, "1");
    assert_eq!(cached.restore(), Restored::Nothing);
    world.install(&cached);
    // What the developer pushed in its place gives way, as it does for npm; a link does, not what it leads to.
    fs::create_dir(world.at("elsewhere")).unwrap();
    fs::write(world.at("elsewhere/precious"), "").unwrap();
    symlink("../elsewhere", world.at("app/node_modules")).unwrap();
    for _ in 0..2 {
        assert_eq!(cached.restore(), Restored::Taken);
        let tree = world.at("app/node_modules");
        assert_eq!(fs::read_to_string(tree.join(".bin/cli")).unwrap(), "run");
        assert_eq!(fs::metadata(tree.join("express/cli.js")).unwrap().permissions().mode() & 0o777, 0o755);
        assert!(tree.join("express/empty").is_dir() && !tree.join("left").exists());
        assert_eq!(world.app(), ["node_modules"]);
    }
    assert!(world.at("elsewhere/precious").exists());
}

#[test]
fn an_app_without_dependencies_has_nothing_to_install_again() {
    let world = World::new();
    let cache = world.at("cache");
    let cached = world.dependency_cache(&cache, "1");
    cached.keep().unwrap();
    fs::create_dir_all(world.at("app/node_modules/pushed")).unwrap();
    assert_eq!(cached.restore(), Restored::Taken);
    assert!(world.app().is_empty());
}

#[test]
fn each_difference_drops_the_cache_and_leaves_the_app_unchanged() {
    let world = World::new();
    let cache = world.at("cache");
    world.install(&world.dependency_cache(&cache, "1"));
    fs::create_dir_all(world.at("app/node_modules/pushed")).unwrap();
    let mut other = world.dependency_cache(&cache, "1");
    other.variables = Variables::of([(OsStr::new("A"), OsStr::new("2"))], ComparedVariables::All, Path::new("/"));
    for (cached, words) in
        [(world.dependency_cache(&cache, "2"), "package-lock.json changed"), (other, "environment variables")]
    {
        let Restored::Dropped(reason) = cached.restore() else { panic!("{words}") };
        assert!(reason.contains(words), "{reason}");
        assert!(world.at("app/node_modules/pushed").exists());
    }
    // It was compared, not destroyed.
    assert_eq!(world.dependency_cache(&cache, "1").restore(), Restored::Taken);
}

fn tar(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, text) in entries {
        let mut header = tar::Header::new_gnu();
        let link = matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link);
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_mtime(0);
        header.set_size(if link { 0 } else { text.len() as u64 });
        // The library refuses to write what an attacker writes.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        if link {
            header.set_link_name_literal(text).unwrap();
        }
        header.set_cksum();
        builder.append(&header, if link { &[][..] } else { text.as_bytes() }).unwrap();
    }
    zstd::encode_all(&builder.into_inner().unwrap()[..], 1).unwrap()
}

/// A cache in which the record speaks of exactly this archive.
fn forge(world: &World, cached: &DependencyCache<'_>, archive: &[u8], unpacked: u64) {
    world.install(cached);
    let record = world.at("cache").join(RECORD);
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    value["tree"]["sha256"] = Digest::of(archive).to_string().into();
    value["tree"]["unpacked"] = unpacked.into();
    fs::write(record, value.to_string()).unwrap();
    fs::write(world.at("cache").join(ARCHIVE), archive).unwrap();
}

#[test]
fn hostile_archives_are_dropped_and_write_nothing() {
    use tar::EntryType::{Char, Directory, Link, Regular, Symlink};
    let good = tar(&[("a", Regular, "1")]);
    let many: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), Regular, "")).collect();
    let cases: [(&str, Vec<u8>, u64, &str); 11] = [
        ("climbs", tar(&[("../stolen", Regular, "x")]), 10, "leads out"),
        ("absolute", tar(&[("/tmp/stolen", Regular, "x")]), 10, "leads out"),
        ("a link that climbs", tar(&[("d", Directory, ""), ("d/l", Symlink, "../../elsewhere")]), 10, "leads out"),
        ("an absolute link", tar(&[("l", Symlink, "/etc/passwd")]), 10, "leads out"),
        ("through a link", tar(&[("l", Symlink, "d"), ("l/x", Regular, "x")]), 10, "leads out"),
        ("a hard link to another file", tar(&[("l", Link, "../elsewhere")]), 10, "leads out"),
        ("a device", tar(&[("null", Char, "")]), 10, "device"),
        ("larger than it says", tar(&[("a", Regular, &"0".repeat(100_000))]), 10, "more than the permitted"),
        ("more files than may be", tar(&many), 10, "100"),
        ("cut off", good[..good.len() / 2].to_vec(), 10, "damaged"),
        ("no archive", b"junk".to_vec(), 10, "damaged"),
    ];
    for (name, archive, unpacked, words) in cases {
        let world = World::new();
        let cache = world.at("cache");
        let cached = world.dependency_cache(&cache, "1");
        fs::write(world.at("elsewhere"), "mine").unwrap();
        forge(&world, &cached, &archive, unpacked);
        fs::write(world.at("app/server.js"), "mine").unwrap();
        let Restored::Dropped(reason) = cached.restore() else { panic!("{name} was taken") };
        assert!(reason.contains(words), "{name}: {reason}");
        assert_eq!(world.app(), ["server.js"], "{name}");
        assert!(!world.at("stolen").exists() && !world.at("app/stolen").exists(), "{name}");
        assert_eq!(fs::read_to_string(world.at("elsewhere")).unwrap(), "mine");
        // The next installation takes its place.
        world.install(&cached);
        assert_eq!(cached.restore(), Restored::Taken, "{name}");
    }
}

#[test]
fn records_and_archives_that_are_no_files_are_dropped() {
    let world = World::new();
    let cache = world.at("cache");
    let cached = world.dependency_cache(&cache, "1");
    let (record, archive) = (cache.join(RECORD), cache.join(ARCHIVE));
    type Damage<'a> = &'a dyn Fn();
    let replace = |path: &Path, text: &str| {
        remove(path).unwrap();
        fs::write(path, text).unwrap();
    };
    let link = |path: &Path| {
        fs::rename(path, world.at("moved")).unwrap();
        symlink(world.at("moved"), path).unwrap();
    };
    let pipe = |path: &Path| {
        remove(path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    };
    let cases: [(&str, Damage<'_>, &str); 11] = [
        ("half a record", &|| replace(&record, "{\"version\":1,"), "cannot be read"),
        ("another version", &|| replace(&record, "{\"version\":99}"), "another version"),
        ("no object", &|| replace(&record, "[]"), "another version"),
        ("an unknown fact", &|| replace(&record, "{\"version\":1,\"facts\":{\"x\":1}}"), "cannot be read"),
        ("an endless record", &|| replace(&record, &" ".repeat(2 << 20)), "more than"),
        ("a link as record", &|| link(&record), "cannot be read"),
        ("a pipe as record", &|| pipe(&record), "no file"),
        ("half an archive", &|| replace(&archive, "x"), "damaged"),
        ("no archive", &|| remove(&archive).unwrap(), "cannot be read"),
        ("a link as archive", &|| link(&archive), "cannot be read"),
        ("a pipe as archive", &|| pipe(&archive), "no file"),
    ];
    for (name, damage, words) in cases {
        world.install(&cached);
        assert_eq!(cached.restore(), Restored::Taken, "{name}: before");
        fs::remove_dir_all(world.at("app/node_modules")).unwrap();
        damage();
        let Restored::Dropped(reason) = cached.restore() else { panic!("{name} was taken") };
        assert!(reason.contains(words), "{name}: {reason}");
        assert!(world.app().is_empty(), "{name}");
    }
}

#[test]
fn nothing_is_written_through_a_link_in_the_cache() {
    let world = World::new();
    let cache = world.at("cache");
    for name in [RECORD, ARCHIVE] {
        for name in [name.to_owned(), format!("{name}.part")] {
            fs::write(world.at(&format!("outside-{name}")), "mine").unwrap();
            symlink(world.at(&format!("outside-{name}")), cache.join(name)).unwrap();
        }
    }
    let cached = world.dependency_cache(&cache, "1");
    world.install(&cached);
    assert_eq!(cached.restore(), Restored::Taken);
    for name in [RECORD, ARCHIVE] {
        for name in [name.to_owned(), format!("{name}.part")] {
            assert_eq!(fs::read_to_string(world.at(&format!("outside-{name}"))).unwrap(), "mine", "{name}");
        }
    }
}

#[test]
fn a_tree_that_cannot_be_cached_leaves_nothing() {
    let world = World::new();
    let cache = world.at("cache");
    let cached = world.dependency_cache(&cache, "1");
    world.install(&cached);
    fs::create_dir_all(world.at("app/node_modules")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(world.at("app/node_modules/socket")).unwrap();
    assert!(cached.keep().unwrap_err().contains("socket"));
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 0, "nor what was there before, which is not true any more");
    fs::remove_dir_all(world.at("app/node_modules")).unwrap();
    symlink("/etc", world.at("app/node_modules")).unwrap();
    assert!(cached.keep().unwrap_err().contains("no directory"));
}
