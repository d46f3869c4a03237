-- A platform's worth of rows in the shape that use gives them: apps with processes, packages, builds, droplets, tasks,
-- deployments, events and routes, spread over organizations and spaces, with members and labels. Four rows in a row
-- share their instant of creation, as rows of one transaction do. {names} in braces are numbers put in by dataset.rs.
-- Guids follow from the row's kind and number. Nothing asks to run: no process has a spec, no build or task is open.

insert into organization (guid, name, quota_guid, labels, created_at, updated_at)
select md5('organization' || i)::uuid, 'org-' || i, (select guid from organization_quota order by created_at limit 1),
       pg_temp.labels(i), pg_temp.created(i), pg_temp.updated(i)
from generate_series(0, {orgs} - 1) i;

insert into space (guid, org_guid, name, labels, created_at, updated_at)
select md5('space' || i)::uuid, md5('organization' || i % {orgs})::uuid, 'space-' || i,
       pg_temp.labels(i), pg_temp.created(i), pg_temp.updated(i)
from generate_series(0, {spaces} - 1) i;

insert into user_account (guid, username, email, in_api, labels, created_at, updated_at)
select md5('user' || i)::uuid::text, 'user-' || i, 'user-' || i || '@example.com', true,
       pg_temp.labels(i), pg_temp.created(i), pg_temp.updated(i)
from generate_series(0, {users} - 1) i;

insert into role (guid, type, user_guid, org_guid, created_at, updated_at)
select md5('org-role' || i)::uuid,
       'organization_user', md5('user' || i)::uuid::text, md5('organization' || (i % {spaces}) % {orgs})::uuid,
       pg_temp.created(i), pg_temp.updated(i)
from generate_series(0, {users} - 1) i;

insert into role (guid, type, user_guid, org_guid, space_guid, created_at, updated_at)
select md5('space-role' || i)::uuid,
       (array['space_developer', 'space_manager', 'space_auditor', 'space_supporter'])[1 + i % 4],
       md5('user' || i)::uuid::text, md5('organization' || (i % {spaces}) % {orgs})::uuid, md5('space' || i % {spaces})::uuid,
       pg_temp.created(i), pg_temp.updated(i)
from generate_series(0, {users} - 1) i;

insert into domain (guid, name, org_guid, labels, created_at, updated_at)
select md5('domain' || i)::uuid, 'domain-' || i || '.example.com', md5('organization' || i)::uuid,
       pg_temp.labels(i), pg_temp.created(i), pg_temp.updated(i)
from generate_series(0, {orgs} - 1) i;

insert into app (guid, space_guid, name, state, lifecycle_buildpacks, labels, annotations, created_at, updated_at)
select md5('app' || i)::uuid, md5('space' || i % {spaces})::uuid, 'app-' || i,
       case when i % 3 = 0 then 'STOPPED' else 'STARTED' end,
       case when i % 2 = 0 then array['nodejs_buildpack'] else '{}' end,
       pg_temp.labels(i), '{"contact": "team@example.com"}', pg_temp.created(i), pg_temp.updated(i)
from generate_series(0, {apps} - 1) i;

insert into process (guid, app_guid, type, command, instances, memory_in_mb, disk_in_mb, labels, created_at, updated_at)
select md5('process' || i)::uuid, md5('app' || i % {apps})::uuid, case when i < {apps} then 'web' else 'worker' end,
       case when i < {apps} then null else 'bin/work' end, 1 + i % 4, 256, 512,
       pg_temp.labels(i), pg_temp.created(i), pg_temp.updated(i)
from generate_series(0, {apps} + {apps} / 5 - 1) i;

insert into package (guid, app_guid, type, state, blob, blob_size, labels, created_at, updated_at)
select md5('package' || i)::uuid, md5('app' || i % {apps})::uuid, 'bits',
       (array['READY', 'READY', 'EXPIRED', 'FAILED'])[1 + i % 4], sha256(('package' || i)::bytea), 100000 + i,
       pg_temp.labels(i), pg_temp.created(i), pg_temp.updated(i)
from generate_series(0, 2 * {apps} - 1) i;

insert into droplet (guid, app_guid, package_guid, build_guid, state, blob, blob_size, stack, buildpacks, process_types,
                     labels, created_at, updated_at)
select md5('droplet' || i)::uuid, md5('app' || i % {apps})::uuid, md5('package' || i)::uuid, md5('build' || i)::uuid,
       case when i % 5 = 4 then 'EXPIRED' else 'STAGED' end, sha256(('droplet' || i)::bytea), 5000000 + i, 'debian12',
       '[{"name": "nodejs_buildpack", "detect_output": "nodejs", "buildpack_name": "node", "version": "1.2.3"}]',
       '{"web": "node server.js"}', pg_temp.labels(i), pg_temp.created(i), pg_temp.updated(i)
from generate_series(0, 2 * {apps} - 1) i;

update app set droplet_guid = (select guid from droplet where droplet.app_guid = app.guid and state = 'STAGED'
                               order by created_at desc, guid limit 1)
where name like 'app-%';

insert into build (guid, app_guid, package_guid, droplet_guid, state, error, lifecycle, staging_memory_in_mb,
                   staging_disk_in_mb, created_by, labels, created_at, updated_at)
select md5('build' || i)::uuid, md5('app' || i % {apps})::uuid, md5('package' || i)::uuid, md5('droplet' || i)::uuid,
       case when i % 4 = 3 then 'FAILED' else 'STAGED' end,
       case when i % 4 = 3 then 'StagingError - the build failed' end,
       '{"type": "buildpack", "data": {"buildpacks": [], "stack": "debian12"}}', 1024, 1024,
       '{"guid": "x", "name": "someone", "email": "someone@example.com"}',
       pg_temp.labels(i), pg_temp.created(i), pg_temp.updated(i)
from generate_series(0, 2 * {apps} - 1) i;

insert into task (guid, app_guid, droplet_guid, sequence_id, name, command, state, memory_in_mb, disk_in_mb,
                  failure_reason, labels, created_at, updated_at)
select md5('task' || i)::uuid, md5('app' || i % {apps})::uuid, md5('droplet' || i % {apps})::uuid, 1 + i / {apps},
       'task-' || i % 10, 'bin/migrate', case when i % 3 = 0 then 'FAILED' else 'SUCCEEDED' end, 64, 64,
       case when i % 3 = 0 then 'Exited with status 1' end,
       pg_temp.labels(i), pg_temp.created(i), pg_temp.updated(i)
from generate_series(0, {apps} - 1) i;

insert into route (guid, space_guid, domain_guid, host, path, labels, created_at, updated_at)
select md5('route' || i)::uuid, md5('space' || (i % {apps}) % {spaces})::uuid,
       case when i % 5 = 0 then md5('domain' || ((i % {apps}) % {spaces}) % {orgs})::uuid
            else (select guid from domain where is_default limit 1) end,
       'host-' || i, case when i % 7 = 0 then '/v' || i % 3 else '' end,
       pg_temp.labels(i), pg_temp.created(i), pg_temp.updated(i)
from generate_series(0, {routes} - 1) i;

insert into route_destination (guid, route_guid, app_guid, created_at)
select md5('destination' || i)::uuid, md5('route' || i)::uuid, md5('app' || i % {apps})::uuid, pg_temp.created(i)
from generate_series(0, {routes} - 1) i;

insert into event (guid, type, actor_guid, actor_type, actor_name, target_guid, target_type, target_name, data,
                   space_guid, org_guid, created_at)
select md5('event' || i)::uuid,
       (array['audit.app.create', 'audit.app.update', 'audit.app.start', 'app.crash'])[1 + i % 4],
       md5('user' || i % {users})::uuid::text, 'user', 'user-' || i % {users},
       md5('app' || i % {apps})::uuid::text, 'app', 'app-' || i % {apps}, '{"request": {}}',
       md5('space' || (i % {apps}) % {spaces})::uuid, md5('organization' || ((i % {apps}) % {spaces}) % {orgs})::uuid,
       pg_temp.created(i)
from generate_series(0, 5 * {apps} - 1) i;

insert into service_instance (guid, space_guid, name, type, tags, route_service_url, labels, created_at, updated_at)
select md5('service' || i)::uuid, md5('space' || i % {spaces})::uuid, 'service-' || i, 'user-provided', '{}',
       case when i < {orgs} then 'https://filter.example.com' end,
       pg_temp.labels(i), pg_temp.created(i), pg_temp.updated(i)
from generate_series(0, {apps} / 2 - 1) i;

insert into service_binding (guid, type, service_instance_guid, app_guid, labels, created_at, updated_at)
select md5('binding' || i)::uuid, 'app', md5('service' || i)::uuid, md5('app' || i)::uuid,
       pg_temp.labels(i), pg_temp.created(i), pg_temp.updated(i)
from generate_series(0, {apps} / 2 - 1) i;

insert into service_binding (guid, type, service_instance_guid, route_guid, labels, created_at, updated_at)
select md5('route-binding' || i)::uuid, 'route', md5('service' || i)::uuid, md5('route' || i)::uuid,
       pg_temp.labels(i), pg_temp.created(i), pg_temp.updated(i)
from generate_series(0, {orgs} - 1) i;

insert into service_binding (guid, type, service_instance_guid, name, labels, created_at, updated_at)
select md5('key' || i)::uuid, 'key', md5('service' || i)::uuid, 'key-' || i,
       pg_temp.labels(i), pg_temp.created(i), pg_temp.updated(i)
from generate_series(0, {orgs} - 1) i;

insert into security_group (guid, name, rules, created_at, updated_at)
select md5('group' || i)::uuid, 'group-' || i, '[{"protocol": "tcp", "destination": "10.0.0.0/8", "ports": "443"}]',
       pg_temp.created(i), pg_temp.updated(i)
from generate_series(0, {orgs} - 1) i;

insert into security_group_space (security_group_guid, space_guid, phase)
select md5('group' || i % {orgs})::uuid, md5('space' || i)::uuid, case when i % 2 = 0 then 'running' else 'staging' end
from generate_series(0, {spaces} - 1) i;

insert into space_quota (guid, org_guid, name, total_memory_in_mb, created_at, updated_at)
select md5('space-quota' || i)::uuid, md5('organization' || i % {orgs})::uuid, 'quota-' || i, 10240,
       pg_temp.created(i), pg_temp.updated(i)
from generate_series(0, {orgs} - 1) i;

insert into isolation_segment (guid, name, labels, created_at, updated_at)
select md5('segment' || i)::uuid, 'segment-' || i, pg_temp.labels(i), pg_temp.created(i), pg_temp.updated(i)
from generate_series(0, {orgs} - 1) i;

insert into revision (guid, app_guid, version, description, droplet_guid, labels, created_at, updated_at)
select md5('revision' || i)::uuid, md5('app' || i % {apps})::uuid, 1 + i / {apps}, 'Initial revision.',
       md5('droplet' || i)::uuid, pg_temp.labels(i), pg_temp.created(i), pg_temp.updated(i)
from generate_series(0, 2 * {apps} - 1) i;
