//! Packages: what a developer uploads. [`archive`] judges and completes the zip; [`upload`] makes a package of it.
//! Buildpacks are uploaded in the same way.

pub mod archive;
pub mod buildpack_archive;
pub mod buildpack_upload;
pub mod create;
pub mod directory;
pub mod upload;
