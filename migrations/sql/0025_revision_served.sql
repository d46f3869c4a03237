-- Revisions of which nothing has served yet: neither did a deployment of one reach its end, nor was an instance ready. A row
-- goes when one serves. A table and not a column: a controller of the version before reads whole rows of `revision`. What
-- is there already counts as having served, and so does what such a controller makes meanwhile.
create table revision_unserved (
    guid        uuid primary key references revision (guid) on delete cascade
);
-- Whose instances are looked at every few seconds.
create index process_by_revision on process (revision_guid);
