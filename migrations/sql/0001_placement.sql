-- The placement store: the one order of everything, who plans, what runs where.
-- docs/ARCHITECTURE.md ("State") says which part may write what.

create table store_identity (
    only_row    boolean primary key default true check (only_row),
    cluster_id  uuid    not null,
    -- Raised when a peer shows a version that this store does not know (a restored backup, a failover that lost commits).
    epoch       bigint  not null default 1 check (epoch >= 1)
);

-- Every transaction that changes input of placement or routing appends here, under an advisory lock taken last,
-- so that sequence order is commit order. Gaps are harmless (rolled back transactions); reordering is not.
create sequence change_seq as bigint start 1;
create table change_log (
    seq   bigint   primary key,
    epoch bigint   not null,
    kind  text     not null,
    id    uuid     not null,
    at    timestamptz not null default now()
);

-- The lease is a fence: planner transactions hold FOR KEY SHARE on the row of their own term. `term` is a key
-- column, so taking over (a new term) waits for them, while renewal (renewed_at) does not.
create table lease (
    name       text   primary key,
    term       bigint not null unique,
    holder     uuid   not null,
    renewed_at timestamptz not null default now()
);

create table controller (
    id          uuid primary key,
    api_address text not null,
    api_tls     boolean not null default false,
    cluster_address text not null,
    seen_at     timestamptz not null default now()
);

create table cell (
    id            uuid primary key,
    zone          text not null,
    tags          text[] not null default '{}',
    session       uuid,
    boot_id       text not null default '',
    binary_version text not null default '',
    memory_mb     bigint not null,
    disk_mb       bigint not null,
    slots         integer not null check (slots between 1 and 4096),
    advertise_mode text not null default 'host-port',
    advertise_host text not null default '',
    query_address text not null default '',
    info          jsonb not null default '{}',
    -- Judged by controllers on their own clocks; written here for people and for the planner's next round.
    state         text not null default 'connected' check (state in ('connected', 'suspect', 'lost', 'fenced')),
    cordoned      boolean not null default false,
    last_counter  bigint not null default 0,      -- highest observation recorded
    applied_seq   bigint not null default 0,
    registered_at timestamptz not null default now()
);

create table router (
    id            uuid primary key,
    zone          text not null,
    session       uuid,
    query_address text not null default '',
    applied_epoch bigint not null default 0,
    applied_seq   bigint not null default 0,
    durable_epoch bigint not null default 0,
    durable_seq   bigint not null default 0,
    fenced        boolean not null default false,
    registered_at timestamptz not null default now(),
    -- Last sign of a session, by the database's clock: a router that never comes back must not hold slots for ever.
    seen_at       timestamptz not null default now()
);

-- Immutable bodies by digest. `body` is sealed (AES-256-GCM), the digest is of the plain bytes.
create table spec (
    digest     bytea primary key check (octet_length(digest) = 32),
    kind       text  not null check (kind in ('lrp', 'task', 'build')),
    body       bytea not null,
    memory_mb  bigint not null,
    disk_mb    bigint not null,
    stack      text  not null default '',
    tags       text[] not null default '{}',      -- placement constraints: every tag must be on the cell
    created_at timestamptz not null default now()
);

-- What we chose (intent), and what the cell last said (observed_*). Tombstoned, not deleted, for as long as logs are kept.
create table assignment (
    id            uuid primary key,
    group_id      uuid not null,                  -- process, task or build
    app_id        uuid,
    index         integer not null check (index >= 0),
    spec          bytea not null references spec (digest),
    kind          text not null check (kind in ('lrp', 'task', 'build')),
    cell          uuid not null references cell (id),
    role          text not null default 'primary' check (role in ('primary', 'suspect', 'extra')),
    intent        text not null default 'run' check (intent in ('run', 'drain', 'stop')),
    intent_at     timestamptz not null default now(),
    attempt       integer not null default 1,
    slot          integer not null check (slot between 0 and 4095),
    restart_nonce bigint not null default 0,
    restart_crashes integer not null default 0,
    seq           bigint not null,                -- of the last change of what the cell must know
    created_at    timestamptz not null default now(),
    -- observed, in the cell's own order
    observed      text not null default 'unknown' check (observed in
        ('unknown', 'preparing', 'starting', 'running', 'crashed', 'given_up', 'stopped', 'completed', 'refused')),
    ready         boolean not null default false,
    host          text,
    port          integer,
    fault         text,
    exit          jsonb,
    reason        text,
    refusal       text,
    incarnation   bigint not null default 0,
    obs_session   uuid,
    obs_seq       bigint not null default 0,      -- the cell's counter
    route_seq     bigint not null default 0,      -- sequence at which its endpoint last entered or left the table
    observed_since timestamptz,
    -- the slot is free again once this is set: stopped on the cell and durably gone from every registered router
    released_at   timestamptz,
    tombstone_at  timestamptz
);
create unique index assignment_one_primary on assignment (group_id, index) where role = 'primary' and tombstone_at is null;
create unique index assignment_slot on assignment (cell, slot) where released_at is null;
create index assignment_by_group on assignment (group_id) where tombstone_at is null;
create index assignment_by_cell on assignment (cell) where tombstone_at is null;
create index assignment_by_app on assignment (app_id);
create index assignment_unreleased on assignment (id) where released_at is null and intent = 'stop';

-- One reason for each instance that could not be placed in the last round.
create table unplaced (
    group_id uuid not null,
    index    integer not null,
    reason   text not null,
    since    timestamptz not null default now(),
    primary key (group_id, index)
);

-- Refusals are remembered, so that a cell that refused an instance is not asked again at once.
create table refusal (
    group_id uuid not null,
    cell     uuid not null references cell (id) on delete cascade,
    spec     bytea not null,
    reason   text not null,
    at       timestamptz not null default now(),
    primary key (group_id, cell, spec)
);

-- The catalogue of layers that stagings and instances may use.
create table layer (
    digest      bytea primary key check (octet_length(digest) = 32),
    blob        bytea not null,
    blob_size   bigint not null,
    size        bigint not null,
    kind        text not null check (kind in ('stack', 'compat', 'runtime', 'build')),
    name        text not null,
    line        text not null,
    version     text not null,
    architecture text not null,
    built_over  bytea,
    manifest    jsonb not null,
    created_at  timestamptz not null default now()
);
create index layer_by_line on layer (kind, line, created_at desc);

-- Controller-side payload work (deletions, uploads to process, broker calls), claimed with skip-locked and a lease.
create table job (
    guid        uuid primary key,
    operation   text not null,                    -- "app.delete"
    resource_type text,
    resource_guid uuid,
    payload     jsonb not null default '{}',
    state       text not null default 'PROCESSING' check (state in ('PROCESSING', 'POLLING', 'COMPLETE', 'FAILED')),
    errors      jsonb not null default '[]',
    warnings    jsonb not null default '[]',
    tries       integer not null default 0,
    lease_until timestamptz,
    lease_holder uuid,
    run_at      timestamptz not null default now(),
    dead_reason text,
    created_by  text,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
create index job_open on job (run_at) where state in ('PROCESSING', 'POLLING');
