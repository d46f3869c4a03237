//! Packages: what a developer uploads. [`archive`] judges and completes the zip; [`upload`] makes a package of it.

pub mod archive;
pub mod buildpack_archive;
pub mod directory;
pub mod upload;
