//! The shared libraries that an ELF file needs, and the name it gives itself.
//!
//! Reads the dynamic section of 64-bit little-endian files, which is all that this platform runs. The files come from
//! anybody: `object` knows the format and checks its tables, and only a bounded part of the file is read for it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use object::LittleEndian;
use object::elf::{self, Dyn64, FileHeader64, ProgramHeader64};
use object::pod::{Pod, slice_from_bytes};
use object::read::StringTable;
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};

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

type Segment = ProgramHeader64<LittleEndian>;

const LE: LittleEndian = LittleEndian;
/// Of this build.
const MACHINE: elf::Machine = if cfg!(target_arch = "aarch64") { elf::EM_AARCH64 } else { elf::EM_X86_64 };
/// A dynamic section or string table of more than this is not one.
const MAX_SECTION: u64 = 16 << 20;
/// Longer paths do not exist.
const MAX_INTERPRETER: u64 = 4096;

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

fn parse(header: &[u8; 64], read: impl Fn(u64, u64) -> io::Result<Vec<u8>>) -> io::Result<Option<Dynamic>> {
    let Ok(header) = FileHeader64::<LittleEndian>::parse(&header[..]) else { return Ok(None) };
    let size = header.e_phentsize(LE);
    if header.endian().is_err() || header.e_machine(LE) != MACHINE || usize::from(size) != size_of::<Segment>() {
        return Ok(None);
    }
    let bytes = read(header.e_phoff(LE), u64::from(size) * u64::from(header.e_phnum(LE)))?;
    let segments = table::<Segment>(&bytes);
    let mut found = Dynamic::default();
    for segment in segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_INTERP) {
        let text = read(segment.p_offset(LE), segment.p_filesz(LE).min(MAX_INTERPRETER))?;
        found.interpreter = string(&text, 0);
    }
    let Some(dynamic) = segments.iter().find(|segment| segment.p_type(LE) == elf::PT_DYNAMIC) else { return Ok(None) };
    let bytes = read(dynamic.p_offset(LE), dynamic.p_filesz(LE))?;
    let entries = table::<Dyn64<LittleEndian>>(&bytes).split(|entry| entry.d_tag(LE) == elf::DT_NULL).next();
    let entries = entries.unwrap_or_default();
    let value = |wanted| entries.iter().find(|entry| entry.d_tag(LE) == wanted).map(|entry| entry.d_val(LE));
    let (Some(address), Some(length)) = (value(elf::DT_STRTAB), value(elf::DT_STRSZ)) else { return Ok(Some(found)) };
    let Some(offset) = segments.iter().find_map(|segment| place(segment, address)) else { return Ok(Some(found)) };
    let strings = read(offset, length)?;
    for entry in entries {
        let Some(text) = u32::try_from(entry.d_val(LE)).ok().and_then(|at| string(&strings, at)) else { continue };
        match entry.d_tag(LE) {
            elf::DT_NEEDED => found.needed.push(text),
            elf::DT_SONAME => found.soname = Some(text),
            elf::DT_RPATH | elf::DT_RUNPATH => {
                found.search.extend(text.split(':').filter(|part| !part.is_empty()).map(str::to_owned));
            }
            _ => {}
        }
    }
    Ok(Some(found))
}

/// As many entries as there are whole ones.
fn table<T: Pod>(bytes: &[u8]) -> &[T] {
    slice_from_bytes(bytes, bytes.len() / size_of::<T>()).map_or(&[], |(entries, _)| entries)
}

/// Where in the file the byte lies that is loaded to this address.
fn place(segment: &Segment, address: u64) -> Option<u64> {
    let inside = address.checked_sub(segment.p_vaddr(LE)).filter(|inside| *inside < segment.p_filesz(LE))?;
    (segment.p_type(LE) == elf::PT_LOAD).then(|| segment.p_offset(LE).checked_add(inside))?
}

fn string(bytes: &[u8], at: u32) -> Option<String> {
    let text = StringTable::new(bytes, 0, bytes.len() as u64).get(at).ok()?;
    Some(String::from_utf8_lossy(text).into_owned())
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
    fn other_files_are_not_elf() {
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
