//! The least sizes of an app: the platform refuses less, and the command line says so before it asks.

/// Least memory, MiB: below this the kernel cannot even execute a program in the group, and the failure would have no name.
pub const LEAST_MEMORY_MB: u64 = 4;
/// Least disk to write to, MiB. Without this much a program can hardly write its first file, and the app would fail in a way
/// that tells nobody why.
pub const LEAST_DISK_MB: u64 = 4;
