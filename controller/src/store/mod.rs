//! All SQL. Methods are named noun first (`app_create`, `route_list`) and say in their suffix when they need a
//! transaction. Nothing here mentions HTTP.

pub mod addresses;
pub mod apps;
pub mod apptasks;
pub mod blobs;
pub mod bootstrap;
pub mod buildpacks;
pub mod builds;
pub mod change_log;
pub mod cluster;
pub mod constraints;
pub mod deployments;
pub mod domains;
pub mod done_jobs;
pub mod drains;
pub mod droplets;
pub mod egress;
pub mod environment_groups;
pub mod events;
pub mod feature_flags;
pub mod instances;
pub mod jobs;
pub mod keys;
pub mod list;
pub mod manifest_routes;
pub mod metadata;
pub mod organizations;
pub mod packages;
pub mod parents;
pub mod passcodes;
pub mod placement;
pub mod processes;
pub mod quotas;
pub mod retention;
pub mod revisions;
pub mod roles;
pub mod route_shares;
pub mod routes;
pub mod security_groups;
pub mod segments;
pub mod services;
pub mod sidecars;
pub mod spaces;
pub mod specs;
pub mod stacks;
pub mod usage;
pub mod usage_events;
pub mod users;

use sqlx::PgPool;

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
}

impl Store {
    /// A store over a pool that has been migrated.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// The pool, for the methods in this module's children.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}
