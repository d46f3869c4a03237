-- Files of packages by SHA-1 (what clients send) and SHA-256 (the name of the blob), by the space whose package holds them:
-- only who may read that package is told that the file is there. resource_file, which knew no spaces, is not read any more
-- and empties itself. No reference to the space: rows of one that is gone are removed by the sweep, which looks at their
-- blobs then.
create table space_file (
    space_guid  uuid not null,
    sha1        bytea not null,
    size        bigint not null,
    blob        bytea not null,
    used_at     timestamptz not null default now(),
    primary key (space_guid, sha1, size)
);
create index space_file_by_blob on space_file (blob);
create index space_file_by_use on space_file (used_at);
