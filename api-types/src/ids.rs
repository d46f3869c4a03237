//! One type per kind of guid, so that an app's guid cannot stand where a process's belongs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! guid {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new random guid.
            #[must_use]
            #[allow(clippy::new_without_default, reason = "a default that differs each time would surprise")]
            pub fn new() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl From<$name> for Uuid {
            fn from(guid: $name) -> Uuid {
                guid.0
            }
        }
    )+};
}

guid! {
    /// An application.
    AppGuid,
    /// A process (type) of an application.
    ProcessGuid,
    /// A package: source as uploaded.
    PackageGuid,
    /// A build: one staging.
    BuildGuid,
    /// A droplet: what a build made.
    DropletGuid,
    /// A task.
    TaskGuid,
    /// An organization.
    OrgGuid,
    /// A space.
    SpaceGuid,
    /// A route.
    RouteGuid,
    /// A destination of a route.
    DestinationGuid,
    /// A domain.
    DomainGuid,
    /// A role of a user.
    RoleGuid,
    /// An asynchronous job.
    JobGuid,
    /// A deployment.
    DeploymentGuid,
    /// A revision.
    RevisionGuid,
    /// A cell.
    CellId,
    /// A router.
    RouterId,
    /// A controller.
    ControllerId,
    /// One place of one instance, task attempt or build attempt; the instance guid an app sees.
    AssignmentId,
}

/// A user's guid: a UUID, or the client id for service accounts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserGuid(pub String);

impl fmt::Display for UserGuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
