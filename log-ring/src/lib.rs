//! A bounded ring of numbered log lines on disk.
//!
//! A ring is a directory of segments named by the sequence number of their first line. One process appends (an
//! instance's init, a router); any number read. When a segment is full the next one is begun and the oldest go, so the
//! directory stays within its bound. Lines carry sequence numbers, so a hole is seen, and a reader shows it as a line ([`GAP`]).
//!
//! Lines are handed to the kernel as they are appended, without fsync: they survive the death of the writer, and a power
//! cut costs the tail at most. A torn or damaged tail is cut off when the ring is opened again.
//!
//! Record on disk, little endian: `len u32` (of what follows the checksum), `crc32 u32`, `seq u64`, `unix_ns i64`,
//! `flags u8`, text.

#![forbid(unsafe_code)]

mod reader;
mod record;
mod writer;

pub use reader::{Query, Reader};
pub use record::Record;
pub use writer::Writer;

use std::path::PathBuf;

/// Flag: the line came from standard error.
pub const STDERR: u8 = 1;
/// Flag: the platform says something about the line's neighbourhood (lines were dropped, the rate limit was hit).
pub const NOTICE: u8 = 2;
/// Flag: a reader's own line where lines are missing. No ring holds it; it has no number.
pub const GAP: u8 = 4;

/// Flags hold the number of the program that wrote the line in the bits from here on: 0 = the command, others = its
/// sidecars in their order.
pub const PROGRAM_SHIFT: u32 = 4;
/// Most programs beside the command that [`PROGRAM_SHIFT`] can tell apart.
pub const MAX_SIDECARS: usize = 15;

/// A longer line is cut; the same bound as on Cloud Foundry (60 KiB).
pub const MAX_TEXT: usize = 61_440;

/// A ring could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("the log ring {path} cannot be used")]
pub struct RingError {
    /// The directory or segment.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: std::io::Error,
}

impl RingError {
    fn at(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self { path, source }
    }
}
