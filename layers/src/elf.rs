//! The shared libraries that an ELF file needs, and the name it gives itself.
//!
//! Reads the dynamic section of 64-bit little-endian files, which is all that this platform runs. The files come from
//! anybody: every offset is checked.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What a dynamic ELF file says about libraries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dynamic {
    /// `DT_NEEDED`, in order.
    pub needed: Vec<String>,
    /// `DT_SONAME`.
    pub soname: Option<String>,
    /// `DT_RPATH` and `DT_RUNPATH`, split, not expanded.
    pub search: Vec<String>,
    /// The loader that the program asks for.
    pub interpreter: Option<String>,
}

const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const INTERPRETER: u32 = 3;
/// A dynamic section or string table of more than this is not one.
const MAX_SECTION: u64 = 16 << 20;

/// Reads the dynamic section: `None` when the file is not an ELF file of this machine, or is static.
///
/// # Errors
/// When the file cannot be read. A damaged ELF file is `None`: the program that runs it will say so better.
pub fn dynamic(path: &Path) -> io::Result<Option<Dynamic>> {
    let file = File::open(path)?;
    let mut header = [0; 64];
    match file.read_exact_at(&mut header, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    match parse(&header, |offset, length| section(&file, offset, length)) {
        Ok(found) => Ok(found),
        // An offset behind the end, or beyond what a file can have.
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput) => Ok(None),
        Err(error) => Err(error),
    }
}

fn section(file: &File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let length = usize::try_from(length.min(MAX_SECTION)).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

fn parse(header: &[u8; 64], read: impl Fn(u64, u64) -> io::Result<Vec<u8>>) -> io::Result<Option<Dynamic>> {
    if header[..6] != *b"\x7fELF\x02\x01" || u16_at(header, 18) != Some(machine()) {
        return Ok(None);
    }
    let (Some(table), Some(size), Some(count)) = (u64_at(header, 32), u16_at(header, 54), u16_at(header, 56)) else {
        return Ok(None);
    };
    if size < 56 {
        return Ok(None);
    }
    let bytes = read(table, u64::from(size) * u64::from(count))?;
    let segments: Vec<Segment> = bytes
        .chunks_exact(size.into())
        .filter_map(|entry| {
            Some(Segment {
                kind: u32_at(entry, 0)?,
                offset: u64_at(entry, 8)?,
                address: u64_at(entry, 16)?,
                size: u64_at(entry, 32)?,
            })
        })
        .collect();
    let mut found = Dynamic::default();
    for segment in segments.iter().filter(|segment| segment.kind == INTERPRETER) {
        let text = read(segment.offset, segment.size.min(4096))?;
        found.interpreter = string_at(&text, 0);
    }
    let Some(dynamic) = segments.iter().find(|segment| segment.kind == DYNAMIC) else { return Ok(None) };
    let entries: Vec<(u64, u64)> = read(dynamic.offset, dynamic.size)?
        .chunks_exact(16)
        .filter_map(|entry| Some((u64_at(entry, 0)?, u64_at(entry, 8)?)))
        .take_while(|(tag, _)| *tag != 0)
        .collect();
    let value = |wanted| entries.iter().find(|(tag, _)| *tag == wanted).map(|(_, value)| *value);
    let (Some(strings), Some(length)) = (value(5), value(10)) else { return Ok(Some(found)) };
    let Some(offset) = segments
        .iter()
        .filter(|segment| segment.kind == LOAD)
        .find(|segment| strings >= segment.address && strings - segment.address < segment.size)
        .and_then(|segment| segment.offset.checked_add(strings - segment.address))
    else {
        return Ok(Some(found));
    };
    let strings = read(offset, length)?;
    for (tag, at) in &entries {
        let Some(text) = usize::try_from(*at).ok().and_then(|at| string_at(&strings, at)) else { continue };
        match tag {
            1 => found.needed.push(text),
            14 => found.soname = Some(text),
            15 | 29 => found.search.extend(text.split(':').filter(|part| !part.is_empty()).map(str::to_owned)),
            _ => {}
        }
    }
    Ok(Some(found))
}

fn string_at(bytes: &[u8], at: usize) -> Option<String> {
    let rest = bytes.get(at..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    Some(String::from_utf8_lossy(&rest[..end]).into_owned())
}

/// `e_machine` of this build.
const fn machine() -> u16 {
    if cfg!(target_arch = "aarch64") { 183 } else { 62 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_needs_the_c_library() {
        let found = dynamic(&std::env::current_exe().unwrap()).unwrap().unwrap();
        assert!(found.needed.iter().any(|name| name.starts_with("libc.so")), "{found:?}");
        assert!(found.interpreter.unwrap().contains("ld-linux"));
    }

    #[test]
    fn other_files_are_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for content in [&b""[..], b"#!/bin/sh\n", b"\x7fELF\x02\x01", &[0x7f; 4096]] {
            std::fs::write(file.path(), content).unwrap();
            assert_eq!(dynamic(file.path()).unwrap(), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn damage_never_panics(at in 0usize..4096, byte: u8, cut in 64usize..65536) {
            let mut bytes = std::fs::read("/bin/sh").unwrap();
            bytes.truncate(cut.max(at + 1));
            if let Some(place) = bytes.get_mut(at) { *place = byte; }
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &bytes).unwrap();
            dynamic(file.path()).unwrap();
        }
    }
}
