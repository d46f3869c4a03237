//! What each list understands, and where in a resource the value of a filter stands.
//!
//! A place is a path through the JSON: `name`, `destinations.app.guid` (arrays are gone through), `@space` for
//! `relationships.space.data.guid`, and `@space.@organization` to go on in the resource that this names.

/// One list.
pub(crate) struct List {
    pub(crate) path: &'static str,
    /// Filters with the place of their values.
    pub(crate) filters: &'static [(&'static str, &'static str)],
    /// Orders besides the two times, with the place of their values.
    pub(crate) orders: &'static [(&'static str, &'static str)],
    /// Values of `include`, with the place of the guids and the key in `included`.
    pub(crate) includes: &'static [(&'static str, &'static str, &'static str)],
    pub(crate) labels: bool,
}

const SPACE: (&str, &str) = ("space_guids", "@space");
const ORG_OF_SPACE: (&str, &str) = ("organization_guids", "@space.@organization");
const APP: (&str, &str) = ("app_guids", "@app");
const SPACE_OF_APP: (&str, &str) = ("space_guids", "@app.@space");
const ORG_OF_APP: (&str, &str) = ("organization_guids", "@app.@space.@organization");
const NAMES: (&str, &str) = ("names", "name");
const GUIDS: (&str, &str) = ("guids", "guid");
const BY_NAME: &[(&str, &str)] = &[("name", "name")];

pub(crate) const LISTS: &[List] = &[
    List { path: "/v3/organizations", filters: &[GUIDS, NAMES], orders: BY_NAME, includes: &[], labels: true },
    List {
        path: "/v3/spaces",
        filters: &[GUIDS, NAMES, ("organization_guids", "@organization")],
        orders: BY_NAME,
        includes: &[("organization", "@organization", "organizations")],
        labels: true,
    },
    List {
        path: "/v3/apps",
        filters: &[
            GUIDS,
            NAMES,
            SPACE,
            ORG_OF_SPACE,
            ("stacks", "lifecycle.data.stack"),
            ("lifecycle_type", "lifecycle.type"),
        ],
        orders: &[("name", "name"), ("state", "state")],
        includes: &[("space", "@space", "spaces"), ("space.organization", "@space.@organization", "organizations")],
        labels: true,
    },
    List {
        path: "/v3/processes",
        filters: &[GUIDS, APP, SPACE_OF_APP, ORG_OF_APP, ("types", "type")],
        orders: &[],
        includes: &[],
        labels: true,
    },
    List {
        path: "/v3/packages",
        filters: &[GUIDS, APP, SPACE_OF_APP, ORG_OF_APP, ("states", "state"), ("types", "type")],
        orders: &[],
        includes: &[],
        labels: true,
    },
    List {
        path: "/v3/builds",
        filters: &[GUIDS, APP, ("states", "state"), ("package_guids", "package.guid")],
        orders: &[],
        includes: &[],
        labels: true,
    },
    List {
        path: "/v3/droplets",
        filters: &[GUIDS, APP, SPACE_OF_APP, ORG_OF_APP, ("states", "state")],
        orders: &[],
        includes: &[],
        labels: true,
    },
    List {
        path: "/v3/tasks",
        filters: &[GUIDS, APP, SPACE_OF_APP, ORG_OF_APP, NAMES, ("states", "state"), ("sequence_ids", "sequence_id")],
        orders: &[],
        includes: &[],
        labels: true,
    },
    List {
        path: "/v3/deployments",
        filters: &[GUIDS, APP, ("status_values", "status.value"), ("status_reasons", "status.reason")],
        orders: &[],
        includes: &[],
        labels: true,
    },
    List {
        path: "/v3/routes",
        filters: &[
            GUIDS,
            SPACE,
            ORG_OF_SPACE,
            ("domain_guids", "@domain"),
            ("hosts", "host"),
            ("paths", "path"),
            ("app_guids", "destinations.app.guid"),
        ],
        orders: &[],
        includes: &[
            ("domain", "@domain", "domains"),
            ("space", "@space", "spaces"),
            ("space.organization", "@space.@organization", "organizations"),
        ],
        labels: true,
    },
    List {
        path: "/v3/domains",
        filters: &[GUIDS, NAMES, ("organization_guids", "@organization")],
        orders: &[],
        includes: &[],
        labels: true,
    },
    List {
        path: "/v3/roles",
        filters: &[GUIDS, ("types", "type"), ("user_guids", "@user"), SPACE, ("organization_guids", "@organization")],
        orders: &[],
        includes: &[
            ("user", "@user", "users"),
            ("space", "@space", "spaces"),
            ("organization", "@organization", "organizations"),
        ],
        labels: false,
    },
    List { path: "/v3/users", filters: &[GUIDS, ("usernames", "username")], orders: &[], includes: &[], labels: true },
    List {
        path: "/v3/audit_events",
        filters: &[
            GUIDS,
            ("types", "type"),
            ("target_guids", "target.guid"),
            ("space_guids", "space.guid"),
            ("organization_guids", "organization.guid"),
        ],
        orders: &[],
        includes: &[],
        labels: false,
    },
    List {
        path: "/v3/buildpacks",
        filters: &[GUIDS, NAMES, ("lifecycle", "lifecycle")],
        orders: &[("position", "position"), ("name", "name")],
        includes: &[],
        labels: true,
    },
    List { path: "/v3/stacks", filters: &[GUIDS, NAMES], orders: BY_NAME, includes: &[], labels: true },
    List { path: "/v3/organization_quotas", filters: &[GUIDS, NAMES], orders: BY_NAME, includes: &[], labels: false },
    List { path: "/v3/isolation_segments", filters: &[GUIDS, NAMES], orders: BY_NAME, includes: &[], labels: true },
    List {
        path: "/v3/space_quotas",
        filters: &[GUIDS, NAMES, ("organization_guids", "@organization")],
        orders: BY_NAME,
        includes: &[],
        labels: false,
    },
    List {
        path: "/v3/security_groups",
        filters: &[GUIDS, NAMES, ("running_space_guids", "relationships.running_spaces.data.guid")],
        orders: BY_NAME,
        includes: &[],
        labels: false,
    },
    List { path: "/v3/app_usage_events", filters: &[GUIDS], orders: &[], includes: &[], labels: false },
    List { path: "/v3/service_usage_events", filters: &[GUIDS], orders: &[], includes: &[], labels: false },
    List { path: "/v3/service_brokers", filters: &[NAMES], orders: BY_NAME, includes: &[], labels: true },
    List { path: "/v3/service_offerings", filters: &[NAMES], orders: BY_NAME, includes: &[], labels: true },
    List { path: "/v3/service_plans", filters: &[NAMES], orders: BY_NAME, includes: &[], labels: true },
    List {
        path: "/v3/service_instances",
        filters: &[GUIDS, NAMES, SPACE, ORG_OF_SPACE, ("type", "type")],
        orders: BY_NAME,
        includes: &[],
        labels: true,
    },
    List {
        path: "/v3/service_credential_bindings",
        filters: &[GUIDS, APP, ("service_instance_guids", "@service_instance"), ("type", "type")],
        orders: &[],
        includes: &[("app", "@app", "apps"), ("service_instance", "@service_instance", "service_instances")],
        labels: true,
    },
    List {
        path: "/v3/service_route_bindings",
        filters: &[GUIDS, ("service_instance_guids", "@service_instance"), ("route_guids", "@route")],
        orders: &[],
        includes: &[("service_instance", "@service_instance", "service_instances"), ("route", "@route", "routes")],
        labels: true,
    },
];
