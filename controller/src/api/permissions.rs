//! The role matrix of Cloud Foundry: what is unreadable is "not found", what is readable but not to be changed is
//! "not authorized".
//!
//! | role | reads the space | changes apps | maps routes, scales, starts | reads secrets | manages the space |
//! |---|---|---|---|---|---|
//! | admin | yes | yes | yes | yes | yes |
//! | admin read-only | yes | | | yes | |
//! | global auditor | yes | | | | |
//! | organization manager | yes | | | | yes |
//! | organization auditor | routes and events only | | | | |
//! | space developer | yes | yes | yes | yes | |
//! | space supporter | all but droplets' bits | | yes | environment variables only | |
//! | space manager | all but events | | | | yes |
//! | space auditor | yes | | | | |
//!
//! `tests/roles/table.txt` says it for every endpoint.

use uuid::Uuid;

use super::auth_extract::Caller;
use super::error::{ApiError, ApiResult};
use crate::context::Context;
use crate::domain::DomainError;
use crate::store::list::Visible;
use crate::store::roles::{OrgStanding, SpaceStanding};

const SPACE_ROLES: &[&str] = &["space_developer", "space_manager", "space_auditor", "space_supporter"];

/// What a caller wants to do in a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceAction {
    /// See what is there.
    Read,
    /// See its routes: an auditor of the organization does too.
    ReadRoutes,
    /// See environment values and credentials.
    ReadSecrets,
    /// See the variables that users have set for apps.
    ReadEnvironment,
    /// Fetch what was staged.
    Download,
    /// Create, change and delete apps, routes and services.
    Develop,
    /// Start, stop, scale, map routes.
    Support,
    /// Change the space itself.
    Manage,
}

/// What a caller wants to do in an organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrgAction {
    /// See it.
    Read,
    /// Change it, its spaces, domains and members.
    Manage,
}

/// A caller in a space.
#[derive(Clone, Debug)]
pub struct SpaceAccess {
    /// The space, its organization and the roles.
    pub standing: SpaceStanding,
    admin: bool,
    admin_read_only: bool,
    reads_all: bool,
}

impl SpaceAccess {
    fn has(&self, role: &str) -> bool {
        self.standing.roles.iter().any(|held| held == role)
    }

    /// Whether the role allows it, suspension aside.
    #[must_use]
    pub fn allows(&self, action: SpaceAction) -> bool {
        if self.admin {
            return true;
        }
        match action {
            SpaceAction::Read => self.reads_all || self.has("space_supporter") || self.allows(SpaceAction::Download),
            SpaceAction::ReadRoutes => self.allows(SpaceAction::Read) || self.has("organization_auditor"),
            SpaceAction::Download => {
                self.reads_all
                    || ["space_developer", "space_manager", "space_auditor", "organization_manager"]
                        .iter()
                        .any(|role| self.has(role))
            }
            SpaceAction::ReadSecrets => self.admin_read_only || self.has("space_developer"),
            SpaceAction::ReadEnvironment => self.allows(SpaceAction::ReadSecrets) || self.has("space_supporter"),
            SpaceAction::Develop => self.has("space_developer"),
            SpaceAction::Support => self.has("space_developer") || self.has("space_supporter"),
            SpaceAction::Manage => self.has("space_manager") || self.has("organization_manager"),
        }
    }
}

/// A caller in an organization.
#[derive(Clone, Debug)]
pub struct OrgAccess {
    /// The organization and the roles.
    pub standing: OrgStanding,
    admin: bool,
}

impl OrgAccess {
    /// Whether the role allows it, suspension aside. That it may be read was checked before.
    #[must_use]
    pub fn allows(&self, action: OrgAction) -> bool {
        match action {
            OrgAction::Read => true,
            OrgAction::Manage => self.admin || self.standing.roles.iter().any(|role| role == "organization_manager"),
        }
    }
}

impl Caller {
    /// Spaces whose contents the caller may read.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn visible_spaces(&self, context: &Context) -> ApiResult<Visible> {
        if self.reads_all() {
            return Ok(Visible::All);
        }
        Ok(context.store.spaces_visible_to(&self.user_guid).await?)
    }

    /// Spaces whose packages the caller may download.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn downloadable_spaces(&self, context: &Context) -> ApiResult<Visible> {
        if self.is_admin || self.is_admin_read_only {
            return Ok(Visible::All);
        }
        Ok(context.store.spaces_by_roles(&self.user_guid, &["space_developer"], &[]).await?)
    }

    /// Organizations that the caller may read.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn visible_orgs(&self, context: &Context) -> ApiResult<Visible> {
        if self.reads_all() {
            return Ok(Visible::All);
        }
        Ok(context.store.orgs_visible_to(&self.user_guid).await?)
    }

    /// Spaces whose routes the caller may read.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn visible_route_spaces(&self, context: &Context) -> ApiResult<Visible> {
        if self.reads_all() {
            return Ok(Visible::All);
        }
        let of_orgs = &["organization_manager", "organization_auditor"];
        Ok(context.store.spaces_by_roles(&self.user_guid, SPACE_ROLES, of_orgs).await?)
    }

    /// Spaces and organizations whose events the caller may read. An event of one of these organizations may be read
    /// wherever in it it happened.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn visible_events(&self, context: &Context) -> ApiResult<(Visible, Visible)> {
        if self.reads_all() {
            return Ok((Visible::All, Visible::All));
        }
        let of_spaces = &["space_developer", "space_auditor", "space_supporter"];
        let spaces = context.store.spaces_by_roles(&self.user_guid, of_spaces, &[]).await?;
        Ok((spaces, context.store.orgs_by_roles(&self.user_guid, &["organization_auditor"]).await?))
    }

    /// Organizations whose private domains the caller may read.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn visible_domain_orgs(&self, context: &Context) -> ApiResult<Visible> {
        if self.reads_all() {
            return Ok(Visible::All);
        }
        let roles = [&["organization_manager", "organization_auditor"], SPACE_ROLES].concat();
        Ok(context.store.orgs_by_roles(&self.user_guid, &roles).await?)
    }

    /// Whether the caller may read what is in a space.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn can_read_space(&self, context: &Context, space: Uuid) -> ApiResult<bool> {
        Ok(self.space_access(context, space).await?.is_some_and(|access| access.allows(SpaceAction::Read)))
    }

    async fn space_access(&self, context: &Context, space: Uuid) -> ApiResult<Option<SpaceAccess>> {
        let standing = context.store.space_standing(&self.user_guid, space).await?;
        Ok(standing.map(|standing| SpaceAccess {
            standing,
            admin: self.is_admin,
            admin_read_only: self.is_admin_read_only,
            reads_all: self.reads_all(),
        }))
    }

    /// Demands that the caller may do this in the space in which a `what` (`App`, `Route`, …) is.
    ///
    /// # Errors
    /// 404 `<what> not found` when the caller may not even read it, 403 when it may not do this, 403
    /// `CF-OrgSuspended` when nobody but admins may.
    pub async fn require_space(
        &self,
        context: &Context,
        space: Uuid,
        what: &'static str,
        action: SpaceAction,
    ) -> ApiResult<SpaceAccess> {
        self.require_seen(context, space, what, SpaceAction::Read, action).await
    }

    /// The same for a route: who may see it is more than may see the space.
    ///
    /// # Errors
    /// As [`Caller::require_space`].
    pub async fn require_route_space(
        &self,
        context: &Context,
        space: Uuid,
        action: SpaceAction,
    ) -> ApiResult<SpaceAccess> {
        self.require_seen(context, space, "Route", SpaceAction::ReadRoutes, action).await
    }

    async fn require_seen(
        &self,
        context: &Context,
        space: Uuid,
        what: &'static str,
        seen_by: SpaceAction,
        action: SpaceAction,
    ) -> ApiResult<SpaceAccess> {
        let access = self.space_access(context, space).await?.ok_or_else(|| ApiError::not_found(what))?;
        if !access.allows(seen_by) {
            return Err(ApiError::not_found(what));
        }
        if !access.allows(action) {
            return Err(ApiError::forbidden());
        }
        let changes = matches!(action, SpaceAction::Develop | SpaceAction::Support | SpaceAction::Manage);
        if changes && access.standing.suspended && !self.is_admin {
            return Err(DomainError::OrgSuspended.into());
        }
        Ok(access)
    }

    /// Demands that the caller may do this in the organization to which a `what` belongs. Errors as
    /// [`Caller::require_space`].
    ///
    /// # Errors
    /// See above.
    pub async fn require_org(
        &self,
        context: &Context,
        org: Uuid,
        what: &'static str,
        action: OrgAction,
    ) -> ApiResult<OrgAccess> {
        let standing =
            context.store.org_standing(&self.user_guid, org).await?.ok_or_else(|| ApiError::not_found(what))?;
        if !self.reads_all() && standing.roles.is_empty() {
            // A role in one of its spaces shows the organization as well.
            if !context.store.orgs_visible_to(&self.user_guid).await?.contains(org) {
                return Err(ApiError::not_found(what));
            }
        }
        let access = OrgAccess { standing, admin: self.is_admin };
        if !access.allows(action) {
            return Err(ApiError::forbidden());
        }
        if action != OrgAction::Read && access.standing.suspended && !self.is_admin {
            return Err(DomainError::OrgSuspended.into());
        }
        Ok(access)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(role: Option<&str>) -> SpaceAccess {
        SpaceAccess {
            standing: SpaceStanding {
                space_guid: Uuid::nil(),
                space_name: "s".to_owned(),
                org_guid: Uuid::nil(),
                org_name: "o".to_owned(),
                suspended: false,
                roles: role.map(ToOwned::to_owned).into_iter().collect(),
            },
            admin: false,
            admin_read_only: false,
            reads_all: false,
        }
    }

    #[test]
    fn the_matrix_holds() {
        use SpaceAction::{Develop, Download, Manage, Read, ReadEnvironment, ReadRoutes, ReadSecrets, Support};
        let table: &[(Option<&str>, &[SpaceAction])] = &[
            (None, &[]),
            (Some("organization_user"), &[]),
            (Some("organization_auditor"), &[ReadRoutes]),
            (Some("organization_billing_manager"), &[]),
            (Some("organization_manager"), &[Read, ReadRoutes, Download, Manage]),
            (Some("space_developer"), &[Read, ReadRoutes, ReadSecrets, ReadEnvironment, Download, Develop, Support]),
            (Some("space_supporter"), &[Read, ReadRoutes, ReadEnvironment, Support]),
            (Some("space_manager"), &[Read, ReadRoutes, Download, Manage]),
            (Some("space_auditor"), &[Read, ReadRoutes, Download]),
        ];
        for (role, allowed) in table {
            for action in [Read, ReadRoutes, ReadSecrets, ReadEnvironment, Download, Develop, Support, Manage] {
                assert_eq!(access(*role).allows(action), allowed.contains(&action), "{role:?} {action:?}");
            }
        }
    }
}
