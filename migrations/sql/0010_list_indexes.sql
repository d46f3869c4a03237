-- Lists are asked for in order of creation, forwards or backwards, with the guid to tell rows of one instant apart: an
-- index in that order gives a page without reading the table.
create index route_by_created on route (created_at, guid);
create index process_by_created on process (created_at, guid);
create index package_by_created on package (created_at, guid);
create index droplet_by_created on droplet (created_at, guid);
create index build_by_created on build (created_at, guid);
create index task_by_created on task (created_at, guid);
create index revision_by_created on revision (created_at, guid);
create index deployment_by_created on deployment (created_at, guid);
create index role_by_created on role (created_at, guid);
create index user_account_by_created on user_account (created_at, guid);
create index service_instance_by_created on service_instance (created_at, guid);
create index event_by_created on event (created_at, guid);

-- `label_selector=k=v`, as `labels @> '{"k": "v"}'`. Apps have theirs.
create index route_labels on route using gin (labels jsonb_path_ops);
