-- What the object store holds, by content, as far as it was put there since this table came. The row is the lock between
-- putting a blob and removing it, and the time says for how long it may have to wait for the row that speaks of it: a
-- cell uploads a droplet some time before the build that made it is told. Without a row a blob was put long ago.
create table blob (
    digest  bytea primary key,                    -- SHA-256
    put_at  timestamptz not null default now(),   -- last time that somebody put this content
    suspect boolean not null default true         -- nothing may speak of it: to be looked at when it has settled
);
create index blob_suspect on blob (put_at) where suspect;
