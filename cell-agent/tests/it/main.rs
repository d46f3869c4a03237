//! The agent over a simulated runtime and a controller in this process, over real mutual TLS.

mod build_caches;
mod builds;
mod fake_controller;
mod instances;
mod journal;
mod registries;
mod registry_upstream;
mod world;
