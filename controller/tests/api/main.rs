//! The API over real HTTP and a real database; cells and routers are simulated.

#[path = "../support/mod.rs"]
mod support;

mod apps;
mod audit;
mod blobs;
mod buildpacks;
mod clients;
mod deployments;
mod domains;
mod drains;
mod early;
mod errors;
mod fair;
mod guessing;
mod hangups;
mod jobs;
mod known_files;
mod layers;
mod manifests;
mod mapped_routes;
mod operator;
mod passcodes;
mod protocols;
mod quota_resources;
mod quotas;
mod registry;
mod removals;
mod retention;
mod revocation;
mod room;
mod route_bindings;
mod route_names;
mod route_sharing;
mod security_groups;
mod segments;
mod services;
mod sidecars;
mod spaces_and_organizations;
mod stored;
mod together;
mod tokens;
mod traps;
mod uploads;
mod users;
