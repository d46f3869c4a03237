-- The v3 API's resources. Names of constraints are part of the contract with controller/src/store/constraints.rs,
-- which turns them into the errors that clients know.

create table signing_key (
    kid         text primary key,
    private_pem bytea not null,                   -- sealed
    public_pem  text  not null,
    created_at  timestamptz not null default now(),
    retired_at  timestamptz
);

create table user_account (
    guid        text primary key,                 -- uuid, or a client id for service accounts
    username    text,
    origin      text not null default 'uaa',
    is_client   boolean not null default false,
    -- argon2id of the password, or of the client's secret; null = cannot log in
    password_hash text,
    -- cloud_controller.admin, cloud_controller.admin_read_only, cloud_controller.global_auditor
    scopes      text[] not null default '{}',
    given_name  text,
    family_name text,
    email       text,
    failed_logins integer not null default 0,
    locked_until timestamptz,
    in_api      boolean not null default false,   -- known to /v3/users (POST /v3/users, or a role)
    labels      jsonb not null default '{}',
    annotations jsonb not null default '{}',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
create unique index user_account_name on user_account (lower(username), origin) where username is not null;

create table refresh_token (
    token_hash  bytea primary key,                -- SHA-256 of the opaque token
    user_guid   text not null references user_account (guid) on delete cascade,
    client_id   text not null,
    scopes      text[] not null,
    created_at  timestamptz not null default now(),
    expires_at  timestamptz not null
);

create table revoked_token (
    jti         text primary key,
    expires_at  timestamptz not null
);

create table organization_quota (
    guid        uuid primary key,
    name        text not null constraint organization_quota_name_key unique,
    total_memory_in_mb bigint,
    per_process_memory_in_mb bigint,
    total_instances bigint,
    per_app_tasks bigint,
    log_rate_limit_in_bytes_per_second bigint,
    paid_services_allowed boolean not null default true,
    total_service_instances bigint,
    total_service_keys bigint,
    total_routes bigint,
    total_reserved_ports bigint,
    total_domains bigint,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);

create table organization (
    guid        uuid primary key,
    name        text not null,
    suspended   boolean not null default false,
    quota_guid  uuid not null references organization_quota (guid),
    default_isolation_segment_guid uuid,
    labels      jsonb not null default '{}',
    annotations jsonb not null default '{}',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
create unique index organization_name_key on organization (lower(name));

create table space_quota (
    guid        uuid primary key,
    org_guid    uuid not null references organization (guid) on delete cascade,
    name        text not null,
    total_memory_in_mb bigint,
    per_process_memory_in_mb bigint,
    total_instances bigint,
    per_app_tasks bigint,
    log_rate_limit_in_bytes_per_second bigint,
    paid_services_allowed boolean not null default true,
    total_service_instances bigint,
    total_service_keys bigint,
    total_routes bigint,
    total_reserved_ports bigint,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    constraint space_quota_name_key unique (org_guid, name)
);

create table space (
    guid        uuid primary key,
    org_guid    uuid not null references organization (guid),
    name        text not null,
    quota_guid  uuid references space_quota (guid) on delete set null,
    isolation_segment_guid uuid,
    allow_ssh   boolean not null default true,
    labels      jsonb not null default '{}',
    annotations jsonb not null default '{}',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
create unique index space_name_key on space (org_guid, lower(name));

create table role (
    guid        uuid primary key,
    type        text not null check (type in (
        'organization_user', 'organization_auditor', 'organization_manager', 'organization_billing_manager',
        'space_auditor', 'space_developer', 'space_manager', 'space_supporter')),
    user_guid   text not null references user_account (guid) on delete cascade,
    org_guid    uuid not null references organization (guid) on delete cascade,  -- of the space, for space roles
    space_guid  uuid references space (guid) on delete cascade,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    constraint role_space_matches_type check ((type like 'space\_%') = (space_guid is not null))
);
create unique index role_org_key on role (user_guid, type, org_guid) where space_guid is null;
create unique index role_space_key on role (user_guid, type, space_guid) where space_guid is not null;
create index role_by_org on role (org_guid);
create index role_by_space on role (space_guid);

create table isolation_segment (
    guid        uuid primary key,
    name        text not null,
    labels      jsonb not null default '{}',
    annotations jsonb not null default '{}',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
create unique index isolation_segment_name_key on isolation_segment (lower(name));
create table isolation_segment_organization (
    isolation_segment_guid uuid not null references isolation_segment (guid) on delete cascade,
    org_guid    uuid not null references organization (guid) on delete cascade,
    primary key (isolation_segment_guid, org_guid)
);

create table feature_flag (
    name        text primary key,
    enabled     boolean not null,
    custom_error_message text,
    updated_at  timestamptz not null default now()
);

create table environment_variable_group (
    name        text primary key check (name in ('running', 'staging')),
    var         bytea,                            -- sealed JSON object
    updated_at  timestamptz not null default now()
);

create table security_group (
    guid        uuid primary key,
    name        text not null constraint security_group_name_key unique,
    rules       jsonb not null default '[]',
    globally_running boolean not null default false,
    globally_staging boolean not null default false,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
create table security_group_space (
    security_group_guid uuid not null references security_group (guid) on delete cascade,
    space_guid  uuid not null references space (guid) on delete cascade,
    phase       text not null check (phase in ('running', 'staging')),
    primary key (security_group_guid, space_guid, phase)
);

create table stack (
    guid        uuid primary key,
    name        text not null constraint stack_name_key unique,
    description text not null default '',
    state       text not null default 'ACTIVE',
    state_reason text,
    labels      jsonb not null default '{}',
    annotations jsonb not null default '{}',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);

create table buildpack (
    guid        uuid primary key,
    name        text not null,
    stack       text,
    lifecycle   text not null default 'buildpack',
    builtin     text,                             -- one of ours; no blob
    blob        bytea,
    blob_size   bigint,
    filename    text,
    position    integer not null,
    enabled     boolean not null default true,
    locked      boolean not null default false,
    state       text not null default 'AWAITING_UPLOAD',
    labels      jsonb not null default '{}',
    annotations jsonb not null default '{}',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
create unique index buildpack_name_key on buildpack (name, coalesce(stack, ''), lifecycle);

create table app (
    guid        uuid primary key,
    space_guid  uuid not null references space (guid),
    name        text not null,
    state       text not null default 'STOPPED' check (state in ('STARTED', 'STOPPED')),
    lifecycle_type text not null default 'buildpack',
    lifecycle_buildpacks text[] not null default '{}',
    lifecycle_stack text not null default 'debian12',
    droplet_guid uuid,
    environment bytea,                            -- sealed JSON object of strings
    revisions_enabled boolean not null default true,
    ssh_enabled boolean not null default true,
    build_cache bytea,                            -- digest of the blob
    build_cache_size bigint,
    deleting    boolean not null default false,
    labels      jsonb not null default '{}',
    annotations jsonb not null default '{}',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
create unique index app_name_key on app (space_guid, lower(name));
create index app_by_created on app (created_at, guid);
create index app_labels on app using gin (labels jsonb_path_ops);

create table process (
    guid        uuid primary key,
    app_guid    uuid not null references app (guid) on delete cascade,
    type        text not null,
    command     text,                             -- from the user or the manifest; null = the droplet's
    instances   integer not null default 1 check (instances >= 0),
    memory_in_mb bigint not null default 1024 check (memory_in_mb > 0),
    disk_in_mb  bigint not null default 1024 check (disk_in_mb > 0),
    log_rate_limit bigint not null default -1,
    health_check jsonb not null default '{"type":"port","data":{"timeout":null,"invocation_timeout":null}}',
    readiness_health_check jsonb not null default '{"type":"process","data":{}}',
    -- What must run now: written by start, restart and deployments, null while nothing is desired.
    -- The planner reads only this row (with app.state) and the spec's placement columns.
    spec        bytea references spec (digest),
    version     uuid not null default gen_random_uuid(),
    deployment_guid uuid,                         -- set on the interim process of a running deployment
    revision_guid uuid,
    labels      jsonb not null default '{}',
    annotations jsonb not null default '{}',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
create unique index process_type_key on process (app_guid, type) where deployment_guid is null;
create index process_by_app on process (app_guid);

create table package (
    guid        uuid primary key,
    app_guid    uuid not null references app (guid) on delete cascade,
    type        text not null check (type in ('bits', 'docker')),
    state       text not null,
    error       text,
    blob        bytea,
    blob_size   bigint,
    docker      bytea,                            -- sealed JSON: image, username, password
    labels      jsonb not null default '{}',
    annotations jsonb not null default '{}',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
create index package_by_app on package (app_guid, created_at desc);

-- Files the platform has seen, by SHA-1 (what clients send) and SHA-256 (the name of the blob).
create table resource_file (
    sha1        bytea not null,
    size        bigint not null,
    blob        bytea not null,
    used_at     timestamptz not null default now(),
    primary key (sha1, size)
);

create table droplet (
    guid        uuid primary key,
    app_guid    uuid not null references app (guid) on delete cascade,
    package_guid uuid,
    build_guid  uuid,
    state       text not null,
    error       text,
    blob        bytea,
    blob_size   bigint,
    unpacked_size bigint,
    format      text not null default 'tar.zst',
    stack       text,
    lifecycle_type text not null default 'buildpack',
    buildpacks  jsonb,                            -- [{name, detect_output, buildpack_name, version}]
    process_types jsonb not null default '{}',    -- ordered {type: command}
    layers      jsonb not null default '[]',      -- runtime layers by line and digest, lowest first
    sonames     jsonb,
    execution_metadata text not null default '',
    labels      jsonb not null default '{}',
    annotations jsonb not null default '{}',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
create index droplet_by_app on droplet (app_guid, created_at desc);
create index droplet_by_package on droplet (package_guid);
alter table app add constraint app_droplet_fk foreign key (droplet_guid) references droplet (guid) on delete set null deferrable initially deferred;

create table build (
    guid        uuid primary key,
    app_guid    uuid not null references app (guid) on delete cascade,
    package_guid uuid not null references package (guid) on delete cascade,
    droplet_guid uuid,
    state       text not null default 'STAGING' check (state in ('STAGING', 'STAGED', 'FAILED')),
    attempt     integer not null default 1,
    spec        bytea references spec (digest),   -- null once it has ended
    error       text,
    lifecycle   jsonb not null,
    staging_memory_in_mb bigint not null,
    staging_disk_in_mb bigint not null,
    created_by  jsonb not null,
    timings     jsonb not null default '{}',
    labels      jsonb not null default '{}',
    annotations jsonb not null default '{}',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
create index build_by_app on build (app_guid, created_at desc);
create index build_open on build (guid) where state = 'STAGING';
create unique index build_one_at_a_time on build (package_guid) where state = 'STAGING';

create table task (
    guid        uuid primary key,
    app_guid    uuid not null references app (guid) on delete cascade,
    droplet_guid uuid not null,
    sequence_id integer not null,
    name        text not null,
    command     text not null,
    state       text not null default 'PENDING' check (state in ('PENDING', 'RUNNING', 'CANCELING', 'SUCCEEDED', 'FAILED')),
    attempt     integer not null default 1,
    spec        bytea references spec (digest),
    memory_in_mb bigint not null,
    disk_in_mb  bigint not null,
    log_rate_limit bigint not null default -1,
    failure_reason text,
    labels      jsonb not null default '{}',
    annotations jsonb not null default '{}',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    constraint task_sequence_key unique (app_guid, sequence_id)
);

create table revision (
    guid        uuid primary key,
    app_guid    uuid not null references app (guid) on delete cascade,
    version     integer not null,
    description text not null default '',
    droplet_guid uuid,
    environment bytea,
    commands    jsonb not null default '{}',
    sidecars    jsonb not null default '[]',
    labels      jsonb not null default '{}',
    annotations jsonb not null default '{}',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    constraint revision_version_key unique (app_guid, version)
);

create table sidecar (
    guid        uuid primary key,
    app_guid    uuid not null references app (guid) on delete cascade,
    name        text not null,
    command     text not null,
    process_types text[] not null,
    memory_in_mb bigint,
    origin      text not null default 'user',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    constraint sidecar_name_key unique (app_guid, name)
);

create table deployment (
    guid        uuid primary key,
    app_guid    uuid not null references app (guid) on delete cascade,
    version     bigint not null default 1,
    strategy    text not null default 'rolling',
    status_value text not null default 'ACTIVE',
    status_reason text not null default 'DEPLOYING',
    options     jsonb not null default '{}',
    snapshot    jsonb not null default '{}',
    step        jsonb not null default '{}',
    droplet_guid uuid,
    previous_droplet_guid uuid,
    revision_guid uuid,
    last_healthy_at timestamptz,
    status_changed_at timestamptz not null default now(),
    error       text,
    labels      jsonb not null default '{}',
    annotations jsonb not null default '{}',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
create unique index deployment_one_active on deployment (app_guid) where status_value = 'ACTIVE';

create table domain (
    guid        uuid primary key,
    name        text not null,
    internal    boolean not null default false,
    org_guid    uuid references organization (guid) on delete cascade,   -- null = shared
    is_default  boolean not null default false,
    labels      jsonb not null default '{}',
    annotations jsonb not null default '{}',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
create unique index domain_name_key on domain (lower(name));
create table domain_shared_organization (
    domain_guid uuid not null references domain (guid) on delete cascade,
    org_guid    uuid not null references organization (guid) on delete cascade,
    primary key (domain_guid, org_guid)
);

create table route (
    guid        uuid primary key,
    space_guid  uuid not null references space (guid),
    domain_guid uuid not null references domain (guid),
    host        text not null default '',
    path        text not null default '',
    port        integer,
    protocol    text not null default 'http',
    options     jsonb,
    labels      jsonb not null default '{}',
    annotations jsonb not null default '{}',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
create unique index route_address_key on route (domain_guid, lower(host), path, coalesce(port, 0));
create index route_by_space on route (space_guid, created_at);
create index route_by_domain on route (domain_guid);

create table route_destination (
    guid        uuid primary key,
    route_guid  uuid not null references route (guid) on delete cascade,
    app_guid    uuid not null references app (guid) on delete cascade,
    process_type text not null default 'web',
    port        integer,                          -- null = the app's PORT (8080)
    weight      integer,
    protocol    text not null default 'http1',
    created_at  timestamptz not null default now()
);
create unique index route_destination_key on route_destination (route_guid, app_guid, process_type, coalesce(port, 0));
create index route_destination_by_app on route_destination (app_guid);
create table route_shared_space (
    route_guid  uuid not null references route (guid) on delete cascade,
    space_guid  uuid not null references space (guid) on delete cascade,
    primary key (route_guid, space_guid)
);

create table service_instance (
    guid        uuid primary key,
    space_guid  uuid not null references space (guid),
    name        text not null,
    type        text not null check (type in ('managed', 'user-provided')),
    credentials bytea,
    tags        text[] not null default '{}',
    syslog_drain_url text,
    route_service_url text,
    last_operation jsonb not null default '{}',
    labels      jsonb not null default '{}',
    annotations jsonb not null default '{}',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
create unique index service_instance_name_key on service_instance (space_guid, name);
create table service_binding (
    guid        uuid primary key,
    type        text not null check (type in ('app', 'key')),
    service_instance_guid uuid not null references service_instance (guid),
    app_guid    uuid references app (guid) on delete cascade,
    name        text,
    credentials bytea,
    last_operation jsonb not null default '{}',
    labels      jsonb not null default '{}',
    annotations jsonb not null default '{}',
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);

-- Audit and app events. Not a foreign key anywhere: events outlive what they speak of.
create table event (
    seq         bigint generated always as identity primary key,
    guid        uuid not null unique,
    type        text not null,                    -- "audit.app.create", "app.crash"
    actor_guid  text not null,
    actor_type  text not null,
    actor_name  text not null,
    target_guid text not null,
    target_type text not null,
    target_name text not null,
    data        jsonb not null default '{}',
    space_guid  uuid,
    org_guid    uuid,
    created_at  timestamptz not null default now()
);
create index event_by_target on event (target_guid, created_at desc);
create index event_by_space on event (space_guid, created_at desc);
create index event_by_org on event (org_guid, created_at desc);
