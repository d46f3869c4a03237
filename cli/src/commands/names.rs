//! Looking things up by their names.

use super::Session;
use crate::client::query;
use crate::client::views::NamedResource;
use crate::error::CliError;
use crate::settings::Named;

/// `org` or `org/space`.
pub(super) fn split_place(text: &str) -> Result<(&str, Option<&str>), CliError> {
    let (org, space) = match text.split_once('/') {
        Some((org, space)) => (org, Some(space)),
        None => (text, None),
    };
    if org.is_empty() || space.is_some_and(|space| space.is_empty() || space.contains('/')) {
        return Err(CliError::Usage {
            message: format!("'{text}' is not an org, or an org and a space."),
            hint: "Write ORG/SPACE, such as dev/dev.".to_owned(),
        });
    }
    Ok((org, space))
}

/// The name that was most likely meant, if one is close.
pub(crate) fn closest<'n>(typed: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let most = |name: &str| (typed.chars().count().max(name.chars().count()) / 3).clamp(1, 3);
    let distance = |name: &str| strsim::damerau_levenshtein(typed, name);
    names.filter(|name| *name != typed && distance(name) <= most(name)).min_by_key(|name| distance(name))
}

impl Session {
    /// The one thing of a list that has this name.
    pub(super) async fn named(
        &self,
        kind: &'static str,
        path: &str,
        name: &str,
        filters: &[(&str, &str)],
        place: &str,
    ) -> Result<NamedResource, CliError> {
        let mut parameters = vec![("names", name)];
        parameters.extend_from_slice(filters);
        let found: Vec<NamedResource> = self.client()?.list_as(&query(path, &parameters)).await?;
        found.into_iter().next().ok_or_else(|| CliError::Missing {
            kind,
            name: name.to_owned(),
            place: place.to_owned(),
        })
    }

    /// An org.
    pub(super) async fn org_named(&self, name: &str) -> Result<NamedResource, CliError> {
        self.named("Org", "/v3/organizations", name, &[], "").await
    }

    /// A space of an org.
    pub(super) async fn space_named(&self, org: &NamedResource, name: &str) -> Result<NamedResource, CliError> {
        let place = format!(" in org '{}'", org.name);
        self.named("Space", "/v3/spaces", name, &[("organization_guids", &org.guid)], &place).await
    }

    /// A domain.
    pub(super) async fn domain_named(&self, name: &str) -> Result<NamedResource, CliError> {
        self.named("Domain", "/v3/domains", name, &[("per_page", "1"), ("page", "1")], "").await
    }

    /// An org, or a space of one: what was written, else what is targeted.
    pub(super) async fn place(&self, text: Option<&str>) -> Result<(Named, Option<Named>), CliError> {
        let Some(text) = text else { return Ok((self.org()?.clone(), self.settings.space.clone())) };
        let (org, space) = split_place(text)?;
        let org = self.org_named(org).await?;
        let space = match space {
            Some(space) => Some(self.space_named(&org, space).await?.into()),
            None => None,
        };
        Ok((org.into(), space))
    }
}

/// What deleting gives when it is gone already: scripts may repeat the command.
pub(super) fn gone<T>(session: &Session, found: Result<T, CliError>) -> Result<Option<T>, CliError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(CliError::Missing { kind, name, place }) => {
            session.printer.say(&format!("{kind} '{name}' does not exist{place}; nothing was done."));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_close_and_another_name_is_not() {
        let meant = |typed| closest(typed, ["hello", "help", "shop-api"].into_iter());
        assert_eq!(meant("helo"), Some("hello"));
        assert_eq!(meant("shop-pai"), Some("shop-api"));
        assert_eq!(closest("nodap", ["nodeapp"].into_iter()), Some("nodeapp"), "the longer name counts");
        assert_eq!(meant("hello"), None, "two apart from any other");
        assert_eq!(meant("crm"), None);
    }
}
