-- What an organization stores is on its account: packages, droplets and build caches by their sizes. Beside the quotas, not
-- in them: a controller of the previous version reads whole rows of those.
create table organization_quota_storage (
    quota_guid  uuid primary key references organization_quota (guid) on delete cascade,
    total_stored_in_mb bigint not null
);

-- Content that was put for an organization. It stays on the disk for an hour, whoever deletes the package or droplet
-- meanwhile (see blob.put_at), so for that long it stays on the account.
create table stored_put (
    org_guid    uuid not null references organization (guid) on delete cascade,
    digest      bytea not null,                   -- SHA-256
    size        bigint not null,
    put_at      timestamptz not null default now(),
    primary key (org_guid, digest)
);
create index stored_put_by_time on stored_put (put_at);
