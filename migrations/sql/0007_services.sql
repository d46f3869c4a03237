-- Bindings to routes beside those to apps and keys; service instances shared with other spaces; apps that get their
-- bindings as files.

alter table service_binding drop constraint service_binding_type_check;
alter table service_binding add constraint service_binding_type_check check (type in ('app', 'key', 'route'));
alter table service_binding add column route_guid uuid references route (guid) on delete cascade;
alter table service_binding add constraint service_binding_ends
    check ((type = 'app') = (app_guid is not null) and (type = 'route') = (route_guid is not null));
-- A route has at most one route service.
create unique index service_binding_route_key on service_binding (route_guid) where type = 'route';
create unique index service_binding_key_name_key on service_binding (service_instance_guid, name) where type = 'key';
create index service_binding_by_instance on service_binding (service_instance_guid, created_at);
create index service_binding_by_app on service_binding (app_guid, created_at);

create table service_instance_share (
    service_instance_guid uuid not null references service_instance (guid) on delete cascade,
    space_guid  uuid not null references space (guid) on delete cascade,
    created_at  timestamptz not null default now(),
    primary key (service_instance_guid, space_guid)
);
create index service_instance_share_by_space on service_instance_share (space_guid);

-- No row: bindings come as the variable VCAP_SERVICES. One style at most, so that two cannot be switched on together.
create table app_binding_files (
    app_guid    uuid primary key references app (guid) on delete cascade,
    style       text not null check (style in ('file-based-vcap-services', 'service-binding-k8s'))
);
