-- What an operator sets: the quota of new organizations, isolation segments of cells, security groups that apply to
-- what runs, and the record of usage.

-- The quota of an organization that was made without one. A name would not do: quotas can be renamed.
alter table organization_quota add column is_default boolean not null default false;
update organization_quota set is_default = true where name = 'default';
create unique index organization_quota_one_default on organization_quota (is_default) where is_default;

alter table organization add constraint organization_default_isolation_segment_guid_fkey
    foreign key (default_isolation_segment_guid) references isolation_segment (guid);
alter table space add constraint space_isolation_segment_guid_fkey
    foreign key (isolation_segment_guid) references isolation_segment (guid);

-- The segment that a cell belongs to; null = the shared one. The planner compares it with the space's.
alter table cell add column isolation_segment text;

create index security_group_space_by_space on security_group_space (space_guid, phase);
