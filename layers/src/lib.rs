//! Canonical layers: making, naming by digest, checking and unpacking them.
//!
//! A layer is a tar whose bytes follow from the content alone, named by the SHA-256 of those bytes; the compressed blob
//! has a digest of its own. A raw overlay directory is no layer: the kernel marks new directories opaque, and two such
//! directories on each other hide files.

#![forbid(unsafe_code)]

pub mod archive;
pub mod canonical;
pub mod digest;
pub mod elf;
pub mod meta;
pub mod store;

pub use archive::{
    ArchiveError, Limits, LinkPolicy, MAX_DROPLET_ENTRIES, UnpackedTree, decompress, on_disk, scan_tar, unpack_droplet,
    unpack_open, unpack_zip,
};
pub use canonical::{MakeError, Owners, PackOptions, Packed, Times, compressor, pack};
pub use digest::Digest;
pub use meta::{LayerEntry, LayerIndex, LayerMeta, Package};
pub use store::{StoreError, unpack_layer};
