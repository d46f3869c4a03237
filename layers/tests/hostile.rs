//! Archives that try to leave their directory, to fill the disk or to make things that an app must not have.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use slipway_layers::{
    ArchiveError, Digest, Limits, LinkPolicy, Owners, PackOptions, StoreError, Times, pack, scan_tar, unpack_droplet,
    unpack_layer, unpack_zip,
};
use tar::{EntryType, Header};

const SMALL: Limits = Limits { max_bytes: 1 << 20, max_entries: 100 };

/// A tar with these entries, names and targets byte for byte as given.
fn tarball(entries: &[(EntryType, &str, &str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, name, link, content) in entries {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o4755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// Unpacks into a directory beside which a canary lies; the canary must survive whatever the answer is.
fn unpack(bytes: &[u8], limits: Limits) -> (tempfile::TempDir, Result<slipway_layers::UnpackedTree, ArchiveError>) {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("in");
    fs::create_dir(&inside).unwrap();
    fs::write(directory.path().join("canary"), "alive").unwrap();
    let blob = directory.path().join("blob");
    fs::write(&blob, zstd::encode_all(bytes, 1).unwrap()).unwrap();
    let result = unpack_droplet(&blob, "tar.zst", &inside, limits, None);
    assert_eq!(fs::read_to_string(directory.path().join("canary")).unwrap(), "alive");
    (directory, result)
}

#[test]
fn names_that_climb_out_are_refused() {
    for name in ["../canary", "/etc/slipway-test", "a/../../canary", ".."] {
        let (_keep, result) = unpack(&tarball(&[(EntryType::Regular, name, "", b"x")]), SMALL);
        assert!(matches!(result, Err(ArchiveError::Escapes { .. })), "{name}: {result:?}");
    }
    let (_keep, result) = unpack(&tarball(&[(EntryType::Regular, ".", "", b"x")]), SMALL);
    assert!(matches!(result, Err(ArchiveError::Escapes { .. })), "{result:?}");
}

#[test]
fn nothing_is_written_through_a_link() {
    for target in ["..", "/tmp", "."] {
        let bytes =
            tarball(&[(EntryType::Symlink, "link", target, b""), (EntryType::Regular, "link/canary", "", b"x")]);
        let (_keep, result) = unpack(&bytes, SMALL);
        assert!(matches!(result, Err(ArchiveError::Escapes { .. })), "{target}: {result:?}");
    }
    // A file with the name of a link replaces the link, not what it points to.
    let bytes = tarball(&[(EntryType::Symlink, "link", "../canary", b""), (EntryType::Regular, "link", "", b"x")]);
    let (keep, result) = unpack(&bytes, SMALL);
    result.unwrap();
    assert!(fs::symlink_metadata(keep.path().join("in/link")).unwrap().is_file());
    // A directory with the name of a link does not adopt the link's target.
    let bytes = tarball(&[(EntryType::Symlink, "link", "..", b""), (EntryType::Directory, "link", "", b"")]);
    assert!(matches!(unpack(&bytes, SMALL).1, Err(ArchiveError::Escapes { .. })));
}

#[test]
fn hard_links_stay_among_the_archives_files() {
    for target in ["../canary", "/etc/passwd", "absent"] {
        let (_keep, result) = unpack(&tarball(&[(EntryType::Link, "steal", target, b"")]), SMALL);
        assert!(matches!(result, Err(ArchiveError::Escapes { .. })), "{target}: {result:?}");
    }
    let bytes = tarball(&[(EntryType::Symlink, "link", "../canary", b""), (EntryType::Link, "steal", "link", b"")]);
    assert!(matches!(unpack(&bytes, SMALL).1, Err(ArchiveError::Escapes { .. })));
    let bytes = tarball(&[(EntryType::Regular, "a", "", b"x"), (EntryType::Link, "b", "a", b"")]);
    let (keep, result) = unpack(&bytes, SMALL);
    result.unwrap();
    assert_eq!(fs::metadata(keep.path().join("in/b")).unwrap().nlink(), 2);
}

#[test]
fn devices_and_pipes_are_refused_and_setuid_is_cleared() {
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo, EntryType::GNUSparse] {
        let (_keep, result) = unpack(&tarball(&[(kind, "special", "", b"")]), SMALL);
        assert!(matches!(result, Err(ArchiveError::Kind { .. })), "{kind:?}: {result:?}");
    }
    let (keep, result) = unpack(&tarball(&[(EntryType::Regular, "su", "", b"x")]), SMALL);
    assert_eq!(result.unwrap().bytes, 1);
    assert_eq!(fs::metadata(keep.path().join("in/su")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn bombs_end_at_their_limit() {
    let zeros = vec![0; 3 << 20];
    let (keep, result) = unpack(&tarball(&[(EntryType::Regular, "bomb", "", &zeros)]), SMALL);
    assert!(matches!(result, Err(ArchiveError::TooLarge { unit: "bytes", .. })), "{result:?}");
    drop(keep);
    let many: Vec<_> = (0..200).map(|_| (EntryType::Regular, "same", "", &b""[..])).collect();
    assert!(matches!(unpack(&tarball(&many), SMALL).1, Err(ArchiveError::TooLarge { unit: "files", .. })));
    let name = vec![b'n'; 1 << 20];
    let (_keep, result) = unpack(&tarball(&[(EntryType::GNULongName, "x", "", &name)]), SMALL);
    assert!(matches!(result, Err(ArchiveError::Damaged { .. })), "{result:?}");
}

#[test]
fn a_cut_or_foreign_archive_is_damaged() {
    let good = tarball(&[(EntryType::Regular, "a", "", &[7; 5000])]);
    for cut in [100, 600, 3000] {
        assert!(matches!(unpack(&good[..cut], SMALL).1, Err(ArchiveError::Damaged { .. })), "{cut}");
    }
    assert!(matches!(unpack(b"", SMALL).1, Err(ArchiveError::Damaged { .. })));
    let directory = tempfile::tempdir().unwrap();
    let blob = directory.path().join("blob");
    let whole = zstd::encode_all(&good[..], 1).unwrap();
    fs::write(&blob, &whole[..whole.len() - 3]).unwrap();
    for (format, bytes) in [("tar.zst", &whole[..whole.len() - 3]), ("tar.gz", &whole[..]), ("tar.zst", b"junk")] {
        fs::write(&blob, bytes).unwrap();
        let result = unpack_droplet(&blob, format, directory.path(), SMALL, None);
        assert!(matches!(result, Err(ArchiveError::Damaged { .. })), "{format}: {result:?}");
    }
    let result = unpack_droplet(&blob, "rar", directory.path(), SMALL, None);
    assert!(matches!(result, Err(ArchiveError::Format(_))));
}

#[test]
fn a_classic_droplet_is_unpacked() {
    let bytes = tarball(&[(EntryType::Directory, "./", "", b""), (EntryType::Regular, "./app/a", "", b"hello")]);
    let directory = tempfile::tempdir().unwrap();
    let blob = directory.path().join("droplet.tgz");
    let mut gz = flate2::write::GzEncoder::new(fs::File::create(&blob).unwrap(), flate2::Compression::fast());
    gz.write_all(&bytes).unwrap();
    gz.finish().unwrap();
    let inside = directory.path().join("in");
    fs::create_dir(&inside).unwrap();
    unpack_droplet(&blob, "tar.gz", &inside, SMALL, None).unwrap();
    assert_eq!(fs::read_to_string(inside.join("app/a")).unwrap(), "hello");
}

fn zipped(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, mode, content) in entries {
        let options = zip::write::SimpleFileOptions::default().unix_permissions(mode & 0o7777);
        if mode & 0o170_000 == 0o120_000 {
            writer.add_symlink(*name, std::str::from_utf8(content).unwrap(), options).unwrap();
        } else {
            writer.start_file(*name, options).unwrap();
            writer.write_all(content).unwrap();
        }
    }
    writer.finish().unwrap().into_inner()
}

fn unzip(bytes: &[u8], links: LinkPolicy) -> (tempfile::TempDir, Result<slipway_layers::UnpackedTree, ArchiveError>) {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("in");
    fs::create_dir(&inside).unwrap();
    let blob = directory.path().join("package.zip");
    fs::write(&blob, bytes).unwrap();
    let result = unpack_zip(&blob, &inside, SMALL, links, None);
    (directory, result)
}

#[test]
fn hostile_zips_are_refused() {
    // The writer refuses to make such names, so they are patched into the bytes.
    let evil = zipped(&[("aa/canary", 0o644, b"x")]);
    let patched: Vec<u8> = replace(&evil, b"aa/canary", b"../canary");
    assert!(matches!(unzip(&patched, LinkPolicy::Any).1, Err(ArchiveError::Escapes { .. })));
    let patched: Vec<u8> = replace(&evil, b"aa/canary", b"/aacanary");
    assert!(matches!(unzip(&patched, LinkPolicy::Any).1, Err(ArchiveError::Escapes { .. })));
    for target in ["/etc/passwd", "../../x"] {
        let link = zipped(&[("link", 0o120_777, target.as_bytes())]);
        assert!(matches!(unzip(&link, LinkPolicy::Inside).1, Err(ArchiveError::Escapes { .. })), "{target}");
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().to_str().unwrap();
    let through = zipped(&[("link", 0o120_777, target.as_bytes()), ("link/x", 0o644, b"x")]);
    let (_keep, result) = unzip(&through, LinkPolicy::Any);
    assert!(result.is_err() || !elsewhere.path().join("x").exists());
    let bomb = zipped(&[("bomb", 0o644, &vec![0; 3 << 20])]);
    assert!(matches!(unzip(&bomb, LinkPolicy::Any).1, Err(ArchiveError::TooLarge { .. })));
    let whole = zipped(&[("a", 0o644, &[1; 2000])]);
    for cut in [0, 10, whole.len() / 2, whole.len() - 5] {
        assert!(matches!(unzip(&whole[..cut], LinkPolicy::Any).1, Err(ArchiveError::Damaged { .. })), "{cut}");
    }
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for at in 0..=out.len() - from.len() {
        if out[at..].starts_with(from) {
            out[at..at + to.len()].copy_from_slice(to);
        }
    }
    out
}

#[test]
fn a_plain_zip_keeps_modes_and_inner_links() {
    let bytes = zipped(&[("bin/run", 0o755, b"#!/bin/sh"), ("data", 0o600, b"d"), ("bin/link", 0o120_777, b"../data")]);
    let (keep, result) = unzip(&bytes, LinkPolicy::Inside);
    assert_eq!(result.unwrap().entries, 3);
    let inside = keep.path().join("in");
    assert_eq!(fs::metadata(inside.join("bin/run")).unwrap().mode() & 0o777, 0o755);
    assert_eq!(fs::read_to_string(inside.join("bin/link")).unwrap(), "d");
}

#[test]
fn a_layer_comes_back_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("source");
    fs::create_dir_all(source.join("usr/lib")).unwrap();
    fs::create_dir_all(source.join("var/log/nginx")).unwrap();
    fs::write(source.join("usr/lib/a.so"), [7; 100_000]).unwrap();
    let long = format!("usr/lib/{}", "n".repeat(200));
    fs::write(source.join(&long), "long").unwrap();
    symlink("a.so", source.join("usr/lib/b.so")).unwrap();
    let blob = directory.path().join("layer.tar.zst");
    let user = fs::metadata(&source).unwrap();
    let options = PackOptions {
        owners: Owners::Fixed(user.uid(), user.gid()),
        times: Times::Clamp(1_000_000_000),
        take: &|_| true,
        skip_special: false,
        max_bytes: u64::MAX,
        durable: true,
    };
    let packed = pack(&source, &blob, &options).unwrap();
    let parent = directory.path().join("layers");
    let target = unpack_layer(&blob, packed.digest, &parent).unwrap();
    assert_eq!(target, parent.join(packed.digest.to_string()));
    assert_eq!(fs::read_to_string(target.join(&long)).unwrap(), "long");
    assert!(target.join("var/log/nginx").is_dir(), "empty directories are kept");
    assert_eq!(fs::metadata(target.join("usr/lib/a.so")).unwrap().mtime(), 1_000_000_000);
    // Packing what was unpacked gives the same layer: the format is a fixed point.
    assert_eq!(pack(&target, &directory.path().join("again"), &options).unwrap(), packed);
    // Again is at once, and needs no blob.
    assert_eq!(unpack_layer(Path::new("/absent"), packed.digest, &parent).unwrap(), target);

    let wrong = Digest::of(b"something else");
    assert!(matches!(unpack_layer(&blob, wrong, &parent), Err(StoreError::WrongDigest { .. })));
    let bytes = fs::read(&blob).unwrap();
    fs::write(&blob, &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(unpack_layer(&blob, wrong, &parent), Err(StoreError::Archive { .. })));
    assert_eq!(fs::read_dir(&parent).unwrap().count(), 1, "a failure leaves nothing behind");
}

/// An extension record of this kind and length in front of a file.
fn extended(kind: EntryType, length: usize) -> Vec<u8> {
    tarball(&[(kind, "././@LongLink", "", &vec![b'a'; length]), (EntryType::Regular, "app/x", "", b"x")])
}

#[test]
fn records_in_front_of_an_entry_are_short_or_refused() {
    let limits = Limits { max_bytes: 16 << 20, max_entries: 100 };
    let scan = |bytes: &[u8]| scan_tar(bytes, limits, |_, _, _| Ok::<(), ArchiveError>(()));
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader, EntryType::XGlobalHeader] {
        let long = extended(kind, 2 << 20);
        for result in [scan(&long), unpack(&long, limits).1] {
            let error = result.expect_err("too long").to_string();
            assert!(error.contains("an extended header has more than 64 KiB"), "{kind:?}: {error}");
        }
    }
    // A name that is only long is none that a file can have; one of a bearable length is read.
    assert!(scan(&extended(EntryType::GNULongName, 5000)).is_err());
    assert!(scan(&extended(EntryType::GNULongName, 200)).is_ok());
}

#[test]
fn looking_refuses_what_unpacking_refuses() {
    let scan = |bytes: &[u8]| scan_tar(bytes, SMALL, |_, _, _| Ok::<(), ArchiveError>(()));
    for bytes in [
        tarball(&[(EntryType::Regular, "../canary", "", b"x")]),
        tarball(&[(EntryType::Regular, ".", "", b"x")]),
        tarball(&[(EntryType::Char, "null", "", b"")]),
        tarball(&[(EntryType::Fifo, "pipe", "", b"")]),
        tarball(&[(EntryType::GNUSparse, "sparse", "", b"")]),
        tarball(&[(EntryType::Symlink, "l", "", b"")]),
        tarball(&vec![(EntryType::Regular, "x", "", &b""[..]); 101]),
        tarball(&[(EntryType::Regular, "big", "", &vec![0; (1 << 20) + 1])]),
        tarball(&[(EntryType::Regular, "x", "", b"content")])[..600].to_vec(),
        Vec::new(),
    ] {
        let (seen, done) = (scan(&bytes), unpack(&bytes, SMALL).1);
        let (seen, done) = (seen.expect_err("refused"), done.expect_err("refused"));
        assert_eq!(std::mem::discriminant(&seen), std::mem::discriminant(&done), "{seen} and {done}");
    }
    let good = tarball(&[
        (EntryType::Directory, ".", "", b""),
        (EntryType::Regular, "a/x", "", b"content"),
        (EntryType::Symlink, "a/l", "/usr/bin/x", b""),
    ]);
    let mut files = Vec::new();
    let found = scan_tar(&good[..], SMALL, |path, size, content| {
        let mut text = String::new();
        std::io::Read::read_to_string(content, &mut text).unwrap();
        files.push((path.to_owned(), size, text));
        Ok::<(), ArchiveError>(())
    });
    assert_eq!(found.unwrap(), slipway_layers::UnpackedTree { bytes: 7, entries: 3, disk: 3 * 4096 });
    assert_eq!(files, [(Path::new("a/x").to_owned(), 7, "content".to_owned())]);
}
