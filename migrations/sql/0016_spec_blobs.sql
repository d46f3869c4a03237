-- Blobs that a spec names: the droplet, or the package, cache and buildpacks of a build. What runs may have to start again
-- elsewhere after somebody has deleted the droplet; the body that names it is sealed. Specs from before name none here, until
-- their app is started again.
alter table spec add column blobs bytea[] not null default '{}';
create index spec_by_blob on spec using gin (blobs);
