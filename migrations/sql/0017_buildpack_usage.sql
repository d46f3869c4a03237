-- As on Cloud Foundry, a build that ends in a droplet records which buildpack it came from: the last one, which arranged
-- the app. Its guid is null when the buildpack is not one of the platform's.
create function app_usage_on_droplet() returns trigger language plpgsql as $$
begin
    insert into app_usage_event (state, previous_state, app_guid, app_name, space_guid, space_name, org_guid,
                                 memory_in_mb, previous_memory_in_mb, instances, previous_instances, buildpack_guid,
                                 buildpack_name)
    select 'BUILDPACK_SET', 'STAGING', a.guid, a.name, s.guid, s.name, s.org_guid, d.staging_memory_in_mb,
           d.staging_memory_in_mb, 1, 1,
           (select b.guid from buildpack b where b.name = new.buildpacks #>> '{-1,name}'
            order by (b.stack is not distinct from new.stack) desc, b.position limit 1),
           new.buildpacks #>> '{-1,name}'
    from app a join space s on s.guid = a.space_guid join build d on d.guid = new.build_guid
    where a.guid = new.app_guid;
    return null;
end $$;
create trigger droplet_usage after insert on droplet
    for each row when (new.build_guid is not null and new.buildpacks #>> '{-1,name}' is not null)
    execute function app_usage_on_droplet();
